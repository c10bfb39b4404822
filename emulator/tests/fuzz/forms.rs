//! Instructions with operands of the right kinds and any values.

use nabla_emulator::Module;

use crate::bounds::{End, alone, survive, survive_with};
use crate::common::kernel;
use crate::dice::{Dice, wide, word};

/// Instructions with operands and numbers of the right kinds but any values.
#[test]
fn any_instructions_with_any_values_end() {
    let _alone = alone();
    let mut dice = Dice(4);
    let mut ends = [0; 3];
    for _ in 0..8_000 {
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

/// Instructions of sm_90a. `B` is a place in shared memory that may hold a barrier, `X` a tensor map or not.
const HOPPER: &[&str] = &[
    "mbarrier.init.shared::cta.b64 [B], N",
    "mbarrier.init.shared::cta.b64 [B], 1",
    "mbarrier.init.shared::cta.b64 [B], 40",
    "mbarrier.inval.shared::cta.b64 [B]",
    "mbarrier.arrive.shared::cta.b64 _, [B]",
    "mbarrier.arrive.shared::cta.b64 W, [B], N",
    "mbarrier.arrive.noComplete.shared::cta.b64 W, [B], 1",
    "mbarrier.arrive_drop.shared::cta.b64 _, [B]",
    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [B], N",
    "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [B], N",
    "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [B], N",
    "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [N]",
    "mbarrier.test_wait.shared::cta.b64 P, [B], W",
    "mbarrier.test_wait.parity.shared::cta.b64 P, [B], N",
    "mbarrier.try_wait.parity.shared::cta.b64 P, [B], 0",
    "mbarrier.try_wait.parity.shared::cta.b64 P, [B], N, 20",
    "mbarrier.pending_count.b64 N, W",
    "cp.async.mbarrier.arrive.shared::cta.b64 [B]",
    "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [B]",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [N], [A], 16, [B]",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [B], [A], N, [B]",
    "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [N], [B], 32, [B]",
    "cp.async.bulk.global.shared::cta.bulk_group [A], [B], 16",
    "cp.async.bulk.global.shared::cta.bulk_group [A], [N], N",
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [B], [X, {N, N}], [B]",
    "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [B], [X, {N, N, N, N, N}], [B]",
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [B], [X, {N, N}], [B], H",
    "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [X, {N, N}], [B]",
    "cp.async.bulk.commit_group",
    "cp.async.bulk.wait_group 0",
    "cp.async.bulk.wait_group.read 1",
    "fence.proxy.async",
    "fence.mbarrier_init.release.cluster",
    "barrier.cluster.arrive",
    "barrier.cluster.arrive.relaxed.aligned",
    "barrier.cluster.wait",
    "mapa.shared::cluster.u32 N, N, N",
    "mapa.shared::cluster.u32 N, N, 1",
    "getctarank.shared::cluster.u32 N, N",
    "ld.shared::cluster.b32 N, [N]",
    "st.shared::cluster.b32 [N], N",
    "atom.shared::cluster.add.u32 N, [N], N",
    "stmatrix.sync.aligned.m8n8.x4.shared.b16 [B], {N, N, N, N}",
    "wgmma.fence.sync.aligned",
    "wgmma.commit_group.sync.aligned",
    "wgmma.wait_group.sync.aligned 0",
    "wgmma.wait_group.sync.aligned 7",
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {N, N, N, N}, W, W, P, 1, 1, 0, 0",
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {N, N, N, N}, {N, N, N, N}, W, P, 1, -1, 1",
    "setmaxnreg.dec.sync.aligned.u32 24",
    "elect.sync N|P, -1",
];

fn instruction(dice: &mut Dice) -> String {
    let text = dice.pick(OPCODES);
    instance(text, dice)
}

/// The same for sm_90a, in groups of four warps, of clusters or not.
#[test]
fn any_hopper_instructions_with_any_values_end() {
    let _alone = alone();
    let mut dice = Dice(6);
    let mut ends = [0; 3];
    for round in 0..5000 {
        let mut body = String::from("ld.param.b64 %rd0, [in]; ld.param.b64 %rd1, [out];\n");
        body += "mov.u32 %r0, %tid.x; setp.eq.u32 %p0, %r0, 0; @%p0 mbarrier.init.shared::cta.b64 [0], 1;\n";
        body += "@%p0 mbarrier.init.shared::cta.b64 [8], 128; bar.sync 0;\n";
        for at in 0..8 {
            // Small numbers, so that addresses and counts are often right.
            let small = dice.below(3) > 0;
            let value = if small { 8 * dice.below(9) as u32 } else { word(&mut dice) };
            let long = if small { u64::from(value) << 16 | 16 } else { wide(&mut dice) };
            body += &format!("mov.b32 %r{at}, {value}; mov.b64 %rd{}, {long};\n", at + 2);
            body += &format!("mov.b16 %rs{at}, {}; setp.ne.u32 %p{at}, %r{at}, 0;\n", value & 0xffff);
        }
        for line in 0..4 {
            let form = if dice.below(5) == 0 { dice.pick(OPCODES) } else { dice.pick(HOPPER) };
            // Guards would mostly split the warp in front of aligned operations.
            body += &format!("L{line}: {}\n", instance(form, &mut dice));
        }
        let mut text = kernel(&body).replace("sm_80", "sm_90a").replace(".version 8.0", ".version 8.4");
        if round % 2 == 0 {
            text = text.replace("\n{\n", "\n.reqnctapercluster 2, 1, 1\n{\n");
        }
        ends[survive_with("sm_90a instructions", &text, 128) as usize] += 1;
    }
    assert!(
        ends[End::Ran as usize] > 50 && ends[End::Faulted as usize] > 200,
        "refused, faulted, ran: {ends:?}"
    );
}

/// Every form above is one the parser takes, so that the runs above reach each.
#[test]
fn every_form_is_accepted_with_some_operands() {
    let mut dice = Dice(5);
    for form in OPCODES.iter().chain(HOPPER) {
        let labels = "L0: L1: L2: L3: L4: L5:";
        let accepted = (0..60).any(|_| {
            let text = kernel(&format!("{labels} {}", instance(form, &mut dice))).replace("sm_80", "sm_90a");
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
            'B' => out += &(8 * dice.below(8)).to_string(),
            'X' => out += &format!("%rd{}", dice.below(3)),
            'J' => out += &format!("L{}", dice.below(6)),
            other => out.push(other),
        }
        first &= c != ',';
    }
    out.push(';');
    out
}
