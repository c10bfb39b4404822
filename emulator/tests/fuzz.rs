//! Texts nobody would write: parsing and running them ends soon, in a result, an error or a fault, within bounded memory.
//! Every run is the same: the seeds are fixed.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{bytes, kernel};
use nabla_emulator::{LaunchConfig, Memory, Module, Options, Param, launch_with, mutants};

/// Counts what is allocated now, and the most that was.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `at` came from `alloc` above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time for one text: a few hundredths of it are used where nothing is quadratic, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;

/// One case at a time, so that what is allocated is the case's own.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a step and checks its time and its memory, in MiB.
#[track_caller]
fn bounded<T>(what: &str, most: usize, step: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = Instant::now();
    let out = step();
    let (time, peak) = (start.elapsed(), PEAK.load(Relaxed).saturating_sub(before) / MIB);
    assert!(time < PATIENCE, "{what} took {time:?}");
    assert!(peak <= most, "{what} allocated {peak} MiB, {most} are enough");
    out
}

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Refused,
    Faulted,
    Ran,
}

/// Parses a text; launches every kernel of what parses, on small buffers and with few steps.
#[track_caller]
fn survive(what: &str, text: &str) -> End {
    // A syntax tree is larger than its text by a constant factor.
    let parsed = bounded(what, 16 + text.len() * 128 / MIB, || Module::parse("fuzz.ptx", text));
    let Ok(module) = parsed else { return End::Refused };
    let entries: Vec<String> = module.entries().take(3).map(str::to_owned).collect();
    let mut end = End::Ran;
    for entry in entries {
        let params: Vec<(String, u32)> = module.params(&entry).unwrap_or_default();
        let mut memory = Memory::new();
        let buffer = memory.alloc_from(&bytes(&[3; 256]));
        let params: Vec<Param> = params
            .iter()
            .map(|(_, size)| match size {
                8 => Param::Ptr(buffer),
                size => Param::Bytes(vec![1; *size as usize]),
            })
            .collect();
        let config = LaunchConfig { grid: [2, 1, 1], block: [40, 1, 1], dynamic_shared_bytes: 256 };
        let options = Options { instruction_budget: 50_000, ..Options::default() };
        let run = || launch_with(&module, &entry, config, &params, &mut memory, &options).map_err(Box::new);
        if let Err(fault) = bounded(what, 1024, run) {
            let _ = fault.to_string();
            end = End::Faulted;
        }
    }
    end
}

/// A small generator of numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const FIXTURE: &str = include_str!("fixtures/attention_sparse_d64.ptx");

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

/// Instructions with operands and numbers of the right kinds but any values.
#[test]
fn any_instructions_with_any_values_end() {
    let _alone = alone();
    let mut dice = Dice(4);
    let mut ends = [0; 3];
    for _ in 0..12_000 {
        let mut body = String::from("ld.param.b64 %rd0, [in]; ld.param.b64 %rd1, [out];\n");
        for at in 0..8 {
            body += &format!(
                "mov.b32 %r{at}, {}; mov.b64 %rd{}, {};\n",
                word(&mut dice),
                at + 2,
                wide(&mut dice)
            );
            body +=
                &format!("mov.b16 %rs{at}, {}; setp.ne.u32 %p{at}, %r{at}, 0;\n", word(&mut dice) & 0xffff);
        }
        for line in 0..6 {
            body += &format!("L{line}: {}\n", instruction(&mut dice));
        }
        ends[survive("instructions", &kernel(&body)) as usize] += 1;
    }
    assert!(
        ends[End::Ran as usize] > 200 && ends[End::Faulted as usize] > 200,
        "refused, faulted, ran: {ends:?}"
    );
}

/// Values at the edges of every width and format.
fn wide(dice: &mut Dice) -> u64 {
    const EDGES: &[u64] = &[
        0,
        1,
        2,
        31,
        32,
        33,
        63,
        64,
        127,
        128,
        255,
        256,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0080_0000,
        0x7f7f_ffff,
        0x7ff0_0000_0000_0000,
        0xfff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0x57f8_0000_0000_0000,
        0x5800_0000_0000_0001,
        0x7fef_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        0x7fff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x3ff0_0000_0000_0000,
    ];
    match dice.below(4) {
        0 => dice.next(),
        // Exponents of every size.
        1 => (dice.next() & 0x800f_ffff_ffff_ffff) | (dice.next() & 0x7ff) << 52,
        _ => EDGES[dice.below(EDGES.len())],
    }
}

fn word(dice: &mut Dice) -> u32 {
    wide(dice) as u32
}

const OPCODES: &[&str] = &[
    "add.T D, S, S",
    "sub.T D, S, S",
    "mul.lo.T D, S, S",
    "mul.hi.T D, S, S",
    "div.T D, S, S",
    "rem.T D, S, S",
    "min.T D, S, S",
    "max.T D, S, S",
    "abs.T D, S",
    "neg.T D, S",
    "mad.lo.T D, S, S, S",
    "mad.hi.T D, S, S, S",
    "sad.s32 N, N, N, N",
    "mul.wide.s32 W, N, N",
    "mul.wide.u16 N, H, H",
    "mad.wide.u32 W, N, N, W",
    "shl.b32 N, N, N",
    "shr.s32 N, N, N",
    "shr.u64 W, W, N",
    "shl.b16 H, H, N",
    "shr.s16 H, H, N",
    "shf.l.clamp.b32 N, N, N, N",
    "shf.r.wrap.b32 N, N, N, N",
    "bfe.s32 N, N, N, N",
    "bfe.u64 W, W, N, N",
    "bfe.s64 W, W, N, N",
    "bfi.b32 N, N, N, N, N",
    "bfi.b64 W, W, W, N, N",
    "prmt.b32 N, N, N, N",
    "bfind.s32 N, N",
    "bfind.shiftamt.u64 N, W",
    "popc.b64 N, W",
    "clz.b32 N, N",
    "brev.b64 W, W",
    "lop3.b32 N, N, N, N, 0x96",
    "cnot.b32 N, N",
    "not.b64 W, W",
    "xor.b32 N, N, N",
    "cvt.R.F.F D, S",
    "cvt.RI.I.F D, S",
    "cvt.R.F.I D, S",
    "cvt.I.I D, S",
    "cvt.sat.I.I D, S",
    "cvt.RI.sat.I.F D, S",
    "cvt.R.sat.F.F D, S",
    "cvt.rn.bf16x2.f32 N, N, N",
    "cvt.rz.f16x2.f32 N, N, N",
    "cvt.rn.f16.f32 H, N",
    "cvt.rn.bf16.f32 H, N",
    "cvt.f32.f16 N, H",
    "cvt.rn.f32.f64 N, W",
    "cvt.rp.f32.f64 N, W",
    "cvt.rzi.s32.f64 N, W",
    "cvt.rni.u64.f32 W, N",
    "cvt.rm.f32.s64 N, W",
    "cvt.rp.f64.u64 W, W",
    "cvt.rpi.f32.f32 N, N",
    "add.f32 N, N, N",
    "fma.rn.f32 N, N, N, N",
    "div.rn.f32 N, N, N",
    "ex2.approx.f32 N, N",
    "lg2.approx.f32 N, N",
    "sqrt.rn.f32 N, N",
    "rsqrt.approx.f32 N, N",
    "sin.approx.f32 N, N",
    "tanh.approx.f32 N, N",
    "rcp.rn.f64 W, W",
    "min.NaN.f32 N, N, N",
    "fma.rn.f64 W, W, W, W",
    "copysign.f32 N, N, N",
    "setp.lt.and.s32 P|P, N, N, P",
    "setp.equ.f32 P, N, N",
    "setp.gtu.or.f64 P, W, W, !P",
    "selp.b64 W, W, W, P",
    "and.pred P, P, P",
    "ld.global.b32 N, [A]",
    "ld.global.v4.b32 {N, N, N, N}, [A]",
    "st.global.b64 [A], W",
    "ld.b8 N, [A]",
    "st.v2.b64 [A], {W, W}",
    "ld.shared.b32 N, [N]",
    "st.shared.v2.b32 [N], {N, N}",
    "st.shared.b16 [128], H",
    "ld.param.b32 N, [in+4]",
    "ld.local.b32 N, [N]",
    "atom.global.add.u32 N, [A], N",
    "atom.shared.cas.b64 W, [N], W, W",
    "atom.global.inc.u32 N, [A], N",
    "red.global.min.s64 [A], W",
    "red.shared.add.f32 [N], N",
    "atom.exch.b32 N, [A], N",
    "cp.async.ca.shared.global [N], [A], 4",
    "cp.async.cg.shared.global [128], [A], 16, N",
    "cp.async.commit_group",
    "cp.async.wait_group 0",
    "cp.async.wait_group 4294967296",
    "cp.async.wait_all",
    "shfl.sync.bfly.b32 N, N, N, N, -1",
    "shfl.sync.idx.b32 N|P, N, N, N, 0xff",
    "shfl.sync.up.b32 N, N, N, N, N",
    "vote.sync.all.pred P, P, -1",
    "vote.sync.ballot.b32 N, P, N",
    "match.any.sync.b64 N, W, -1",
    "match.all.sync.b32 N|P, N, N",
    "redux.sync.max.s32 N, N, -1",
    "activemask.b32 N",
    "bar.sync N",
    "bar.sync 0",
    "bar.sync 1, N",
    "bar.arrive 1, 64",
    "bar.red.popc.u32 N, 0, P",
    "bar.red.or.pred P, 0, !P",
    "bar.warp.sync N",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {N, N, N, N}, [N]",
    "ldmatrix.sync.aligned.m8n8.x1.trans.b16 {N}, [A]",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {N, N, N, N}, {N, N, N, N}, {N, N}, {N, N, N, N}",
    "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {N, N, N, N}, {N, N}, {N}, {N, N, N, N}",
    "bra J",
    "bra.uni J",
    "mov.b64 W, {N, N}",
    "mov.b64 {N, _}, W",
    "mov.b32 {H, H}, N",
    "mov.u32 N, %clock",
    "cvta.shared.u64 W, W",
    "cvta.to.global.u64 W, W",
    "isspacep.shared P, W",
    "membar.gl",
    "nanosleep.u32 N",
    "exit",
    "trap",
];

fn instruction(dice: &mut Dice) -> String {
    let text = dice.pick(OPCODES);
    instance(text, dice)
}

/// Every form above is one the parser takes, so that the runs above reach each.
#[test]
fn every_form_is_accepted_with_some_operands() {
    let mut dice = Dice(5);
    for form in OPCODES {
        let labels = "L0: L1: L2: L3: L4: L5:";
        let accepted = (0..60).any(|_| {
            let text = kernel(&format!("{labels} {}", instance(form, &mut dice)));
            Module::parse("form.ptx", &text).is_ok()
        });
        assert!(accepted, "{form}");
    }
}

/// Fills a form: `T F I` are types of all numbers, of floats, of integers, `R RI` roundings, `D S` a register of the first
/// and the last type, `N W H P` registers of 32, 64, 16 bits and predicates, `A` an address, `J` a label.
fn instance(text: &str, dice: &mut Dice) -> String {
    let scalar = dice.pick(&["s16", "u16", "s32", "u32", "s64", "u64"]);
    let float = |dice: &mut Dice| dice.pick(&["f32", "f64", "f16", "bf16"]);
    let integer = |dice: &mut Dice| dice.pick(&["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"]);
    let of = |name: &str| match &name[name.len() - 2..] {
        "64" => 'W',
        "16" => 'H',
        _ => 'N',
    };
    // `D` is of the first type, `S` of the last.
    let mut types: Vec<&str> = Vec::new();
    let (opcode, operands) = text.split_once(' ').unwrap_or((text, ""));
    let parts: Vec<&str> = opcode
        .split('.')
        .map(|part| match part {
            "T" => {
                types.push(scalar);
                scalar
            }
            "F" => {
                types.push(float(dice));
                types[types.len() - 1]
            }
            "I" => {
                types.push(integer(dice));
                types[types.len() - 1]
            }
            "R" => dice.pick(&["rn", "rz", "rm", "rp"]),
            "RI" => dice.pick(&["rni", "rzi", "rmi", "rpi"]),
            other => other,
        })
        .collect();
    let (to, from) = (types.first().map_or('N', |t| of(t)), types.last().map_or('N', |t| of(t)));
    let mut out = if dice.below(4) == 0 { format!("@%p{} ", dice.below(8)) } else { String::new() };
    out += &parts.join(".");
    out.push(' ');
    let mut first = true;
    for c in operands.chars() {
        let c = match c {
            'D' => to,
            'S' => from,
            other => other,
        };
        let at = dice.below(8);
        // Sources may be numbers; the first operand never is.
        let number = !first && dice.below(5) == 0 && !operands.contains(['[', '{', '|']);
        match c {
            'N' if number => out += &word(dice).to_string(),
            'W' if number => out += &wide(dice).to_string(),
            'H' if number => out += &(word(dice) & 0xffff).to_string(),
            'N' => out += &format!("%r{at}"),
            'W' => out += &format!("%rd{}", at + 2),
            'H' => out += &format!("%rs{at}"),
            'P' => out += &format!("%p{at}"),
            'A' => {
                out += &format!(
                    "%rd{}+{}",
                    if dice.below(6) == 0 { at + 2 } else { dice.below(2) },
                    4 * dice.below(40)
                )
            }
            'J' => out += &format!("L{}", dice.below(6)),
            other => out.push(other),
        }
        first &= c != ',';
    }
    out.push(';');
    out
}

/// Texts of some MiB that grow in one direction each.
#[test]
fn long_texts_take_time_in_proportion() {
    let _alone = alone();
    const LONG: usize = 4 * MIB;
    let times = |part: &str| part.repeat(LONG / part.len());
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let entry = ".entry k() {";
    let half = LONG / 2;
    let cases: Vec<(&str, String)> = vec![
        ("digits", times("1")),
        ("digits of an array size", format!(".global .b8 a[{}];", times("1"))),
        ("hexadecimal digits", format!("0x{}", times("f"))),
        ("a decimal fraction", format!("1.{}", times("1e"))),
        ("a word", times("a")),
        ("a register with a long number", kernel(&format!("mov.b32 %r{}, 0;", times("1")))),
        ("modifiers", kernel(&format!("ld{} %r1, [%rd0];", times(".ca")))),
        ("words that end in colons", times("a::")),
        ("open braces", format!("{entry}{}", times("{"))),
        ("pairs of braces", format!("{entry}{}}}", times("{}"))),
        ("parentheses", kernel(&format!("call {}", times("(")))),
        ("open vectors", kernel(&format!("mov.b64 {}", times("{")))),
        ("a vector", kernel(&format!("mov.b64 %rd1, {{{}%r1}};", times("%r1,")))),
        ("operands", kernel(&format!("add.s32 {}%r1;", times("%r1,")))),
        ("a comment", times("/")),
        ("an open comment", format!("/*{}", times("*"))),
        ("comments", times("/**/")),
        ("an open string", format!(".file 1 \"{}", times("a"))),
        ("a section", format!(".section .debug {{ {}", times("{"))),
        ("a pragma", format!(".pragma {}", times("a "))),
        (
            "parameters",
            format!(".entry k({}.param .b32 z) {{}}", lines(LONG / 16, &|i| format!(".param .b32 p{i:05},"))),
        ),
        ("huge parameters", format!(".entry k({}.param .b32 z) {{}}", times(".param .b8 p[2000000000],"))),
        (
            "registers one by one",
            format!("{entry} .reg .b32 {}z; }}", lines(LONG / 8, &|i| format!("r{i:06},"))),
        ),
        ("blocks of registers", format!("{entry}{}}}", times("{.reg .b32 %r<60000>;}"))),
        ("kernels of registers", times(".entry k(){.reg .b32 %r<65000>;}")),
        ("kernels", times(".entry k(){}")),
        (
            "kernels beside variables",
            lines(half / 20, &|i| format!(".global .b8 a{i:05};")) + &".entry k(){}".repeat(half / 12),
        ),
        (
            "kernels beside dynamic arrays",
            lines(half / 32, &|i| format!(".extern .shared .b8 a{i:05}[];"))
                + &".entry k(){}".repeat(half / 12),
        ),
        ("variables", lines(LONG / 20, &|i| format!(".global .b8 a{i:05};"))),
        ("large variables", lines(LONG / 32, &|i| format!(".global .b8 a{i:05}[2147483648];"))),
        ("large shared variables", lines(20, &|i| format!(".shared .b8 a{i}[2147483647];")) + entry + "}"),
        ("an initialiser", format!(".global .b8 a[] = {{{}1}};", times("1,"))),
        ("addresses", format!(".global .b64 a[] = {{{}a}};", times("a,"))),
        ("labels", format!("{entry}{}}}", lines(LONG / 10, &|i| format!("L{i:06}: ")))),
        (
            "branches in a circle",
            format!(
                "{entry}{}L000000: bra L000001; L{:06}: bra L000000; }}",
                lines(LONG / 24, &|i| format!("L{:06}: bra L{:06}; ", i + 1, i + 2)),
                LONG / 24 + 1
            ),
        ),
        ("branches to one label", format!("{entry} L: {} }}", times("bra L; "))),
        (
            "tables of one list",
            kernel(&format!(
                "T: .branchtargets {}L; L: {}",
                "L,".repeat(half / 2),
                "brx.idx %r0, T;\n".repeat(60_000)
            )),
        ),
        ("lists of targets", kernel(&format!("L: {}", times("T: .branchtargets L, L;")))),
        ("places", format!("{entry}{}}}", times(".loc 1 2 3 "))),
        ("files", times(".file 1 \"a\" ")),
        ("numbers that do not fit", kernel(&times("mov.b32 %r1, 18446744073709551615; "))),
        ("numbers all different", kernel(&lines(LONG / 20, &|i| format!("mov.b32 %r1, {i};\n")))),
        ("calls", kernel(&times("call f; "))),
        ("instructions", kernel(&times("add.s32 %r1, %r1, 1; "))),
        ("guards", kernel(&times("@"))),
        ("semicolons", kernel(&times(";"))),
        ("functions", times(".func f();")),
        ("blanks", times(" \n\t\r")),
        ("errors in a long line", format!("{} $", times(" "))),
    ];
    for (what, text) in &cases {
        survive(what, text);
    }
}

/// Each of many barriers has its mutants, which share the text.
#[test]
fn mutants_of_a_long_text_take_time_and_memory_in_proportion() {
    let _alone = alone();
    for line in ["bar.sync 1, 64; ", "fence.acq_rel.gpu; ", "cp.async.wait_group 0; ", "@%p1 bar.sync %r1; "]
    {
        let count = 100_000;
        let text = kernel(&line.repeat(count));
        let found = bounded(line, 512, || mutants(&text, "k").map_or(0, |found| found.len()));
        assert_eq!(found, 2 * count, "{line}");
    }
}

/// Sizes that a text can ask for in a few bytes.
#[test]
fn large_requests_in_short_texts_are_refused_or_cheap() {
    let _alone = alone();
    let body = |text: &str| kernel(text);
    let refused = [
        body(".reg .b32 %x<4000000000>;"),
        body(".reg .b32 %x<18446744073709551615>;"),
        body(".reg .b32 %x<65000>; .reg .b32 %y<65000>;"),
        body(".local .b8 big[4000000000];"),
        body(".local .b8 big[600000];"),
        body(".shared .b8 big[2147483647]; .shared .b8 more[2147483647]; .shared .b8 last[2147483647];"),
        body(".shared .align 65536 .b8 big[2147483647]; .shared .b8 more[2147483646];"),
        ".global .b8 a[18446744073709551615];".to_owned(),
        ".global .b64 a[4611686018427387904];".to_owned(),
        ".global .b8 a[65536][65536][65536][65536][65536];".to_owned(),
        ".global .b8 a[2147483648]; .entry k() {}".to_owned(),
        ".global .b8 a[200000000]; .global .b8 b[200000000]; .entry k() {}".to_owned(),
        ".entry k(.param .b8 p[4294967295]) {}".to_owned(),
        ".entry k(.param .b8 p[2147483648], .param .b8 q[2147483648]) {}".to_owned(),
    ];
    for text in &refused {
        assert_eq!(survive("a large request", text), End::Refused, "{text}");
    }
    let served = [
        body(".reg .b32 %x<65000>; mov.b32 %x64999, 1;"),
        body(".reg .b64 %x<60000>; .reg .pred %q<60000>;"),
        ".extern .shared .align 65536 .b8 a[]; .entry k() {}".to_owned(),
    ];
    for text in &served {
        assert_ne!(survive("a cheap request", text), End::Refused, "{text}");
    }
}

/// A loop of barriers spends the launch's budget, however few lanes go round.
#[test]
fn endless_loops_end_whatever_they_wait_for() {
    let _alone = alone();
    for line in [
        "bar.sync 0;",
        "bar.warp.sync -1;",
        "@%p1 bar.sync 0;",
        "bar.red.popc.u32 %r1, 0, %p1;",
        "add.s32 %r1, %r1, 1;",
        "cp.async.commit_group;",
    ] {
        for threads in [1, 3, 32, 64] {
            let text = kernel(&format!("mov.b32 %r1, 0; setp.eq.b32 %p1, %r1, 1;\nL: {line}\nbra L;"));
            let module = Module::parse("loop.ptx", &text).unwrap_or_else(|error| panic!("{error}"));
            let mut memory = Memory::new();
            let buffer = memory.alloc_from(&[0; 64]);
            let config = LaunchConfig { grid: [1; 3], block: [threads, 1, 1], dynamic_shared_bytes: 0 };
            let options = Options { instruction_budget: 100_000, ..Options::default() };
            let params = [Param::Ptr(buffer), Param::Ptr(buffer)];
            let fault = bounded(line, 64, || {
                launch_with(&module, "k", config, &params, &mut memory, &options).map_err(Box::new)
            });
            let fault = fault.expect_err("an endless loop").to_string();
            assert!(
                fault.contains("budget") || fault.contains("waits for"),
                "{line} with {threads}: {fault}"
            );
        }
    }
}
