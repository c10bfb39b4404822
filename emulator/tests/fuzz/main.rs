//! Texts nobody would write: parsing and running them ends soon, in a result, an error or a fault, within bounded memory.
//! Every run is the same: the seeds are fixed.

#[path = "../all/common.rs"]
mod common;

mod bounds;
mod dice;
mod forms;
mod long;

use bounds::{End, alone, bounded, survive};
use common::kernel;
use dice::Dice;
use nabla_emulator::mutants;

const FIXTURE: &str = include_str!("../fixtures/attention_sparse_d64.ptx");

const TOKENS: &[&str] = &[
    ".version",
    ".target",
    ".address_size",
    ".visible",
    ".entry",
    ".func",
    ".extern",
    ".weak",
    ".param",
    ".reg",
    ".shared",
    ".global",
    ".const",
    ".local",
    ".align",
    ".maxntid",
    ".reqntid",
    ".loc",
    ".file",
    ".section",
    ".pragma",
    ".branchtargets",
    ".callprototype",
    ".b8",
    ".b16",
    ".b32",
    ".b64",
    ".u32",
    ".u64",
    ".s32",
    ".f32",
    ".f64",
    ".pred",
    ".f16",
    "k",
    "k2",
    "%r1",
    "%r<4>",
    "%r0",
    "%p0",
    "%rd0",
    "%tid.x",
    "%laneid",
    "L",
    "L:",
    "_",
    "sm_80",
    "8.0",
    "64",
    "0",
    "1",
    "-1",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "0xffffffffffffffff",
    "0f7f800000",
    "0d7ff8000000000000",
    "0x",
    "0b",
    "08",
    "1.5e-3",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    ",",
    ";",
    ":",
    "@",
    "@!",
    "!",
    "|",
    "+",
    "-",
    "=",
    "\"text\"",
    "//\n",
    "/* */",
    "/*",
    "\"",
    "add.s32",
    "mov.b32",
    "mov.b64",
    "ld.global.b32",
    "st.shared.v4.b32",
    "ld.param.b64",
    "bra",
    "bra.uni",
    "brx.idx",
    "call",
    "ret",
    "exit",
    "trap",
    "bar.sync",
    "bar.red.popc.u32",
    "barrier.arrive",
    "setp.lt.s32",
    "selp.b32",
    "cvt.rn.f32.f64",
    "shfl.sync.bfly.b32",
    "vote.sync.ballot.b32",
    "cp.async.wait_group",
    "cp.async.commit_group",
    "cp.async.ca.shared.global",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
    "atom.global.add.u32",
    "red.shared.max.s32",
    "bfe.u32",
    "prmt.b32",
    "lop3.b32",
    "cvta.to.global.u64",
    "isspacep.shared",
    "activemask.b32",
    "match.any.sync.b32",
    "redux.sync.add.s32",
    "membar.gl",
    "fence.acq_rel.gpu",
    "mul.wide.u32",
    "mad.lo.s32",
    "div.s32",
    "rem.s64",
    "shf.l.wrap.b32",
];

#[test]
fn arbitrary_bytes_are_no_module() {
    let _alone = alone();
    let mut dice = Dice(1);
    for _ in 0..3000 {
        let length = dice.below(300);
        let raw: Vec<u8> = (0..length).map(|_| dice.next() as u8).collect();
        survive("bytes", &String::from_utf8_lossy(&raw));
        let ascii: String = raw.iter().map(|byte| char::from(byte % 96 + 32)).collect();
        survive("characters", &ascii);
    }
}

#[test]
fn token_soup_ends() {
    let _alone = alone();
    let mut dice = Dice(2);
    for _ in 0..20_000 {
        let soup: Vec<&str> = (0..dice.below(60)).map(|_| dice.pick(TOKENS)).collect();
        survive("soup", &soup.join(" "));
        // The same as a body, where instructions are read.
        survive("soup in a body", &kernel(&soup.join(" ")));
    }
}

/// Lines of the fixture dropped, doubled, swapped, cut, or with a token from elsewhere.
fn damage(dice: &mut Dice) -> String {
    let mut lines: Vec<String> = FIXTURE.lines().map(str::to_owned).collect();
    for _ in 0..1 + dice.below(4) {
        let (a, b) = (dice.below(lines.len()), dice.below(lines.len()));
        match dice.below(8) {
            0 => drop(lines.remove(a)),
            1 => {
                let line = lines[b].clone();
                lines.insert(a, line);
            }
            2 => lines.swap(a, b),
            3 => lines.truncate(a.max(1)),
            4 => {
                let cut = dice.below(lines[a].len() + 1);
                lines[a].truncate(cut);
            }
            5 => {
                let other: Vec<&str> = lines[b].split_whitespace().collect();
                let token = if other.is_empty() { ";".to_owned() } else { dice.pick(&other).to_owned() };
                let mut words: Vec<&str> = lines[a].split_whitespace().collect();
                let at = dice.below(words.len());
                if let Some(word) = words.get_mut(at) {
                    *word = &token;
                }
                lines[a] = words.join(" ");
            }
            6 => {
                let digits: String = lines[a]
                    .chars()
                    .map(|c| if c.is_ascii_digit() && dice.below(3) == 0 { '9' } else { c })
                    .collect();
                lines[a] = digits;
            }
            _ => lines[a] = format!("{} {}", dice.pick(TOKENS), lines[a]),
        }
    }
    lines.join("\n")
}

#[test]
fn damaged_kernels_end() {
    let _alone = alone();
    let mut dice = Dice(3);
    let mut ends = [0; 3];
    for _ in 0..800 {
        let text = damage(&mut dice);
        ends[survive("a damaged kernel", &text) as usize] += 1;
        // Its mutants are made without a panic too.
        bounded("mutants", 64, || mutants(&text, "nabla_attention_sparse").map_or(0, |found| found.len()));
    }
    // Damage that always stops at the parser would test the parser alone.
    assert!(ends[End::Faulted as usize] + ends[End::Ran as usize] > 40, "refused, faulted, ran: {ends:?}");
}
