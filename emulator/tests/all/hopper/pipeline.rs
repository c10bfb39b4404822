//! A warp-specialised matrix product (TMA, mbarriers, wgmma, bulk store) against plain sums, and with its
//! synchronisation removed or weakened piece by piece.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use super::{launch_in, options, place, threads, values, wait};
use nabla_emulator::{Completion, Memory, Options, OutOfBounds, Param, Swizzle, TensorElement, TensorMap};

const N: usize = 64;
const K: usize = 6 * 64;

/// Synchronisation whose absence shows without looking for races.
const SYNCS: [&str; 11] = [
    "bar.sync 0; // init",
    "@!%p15 bra EMPTY;",
    "@!%p15 bra FULL;",
    "wgmma.fence.sync.aligned;",
    "wgmma.commit_group.sync.aligned;",
    "wgmma.wait_group.sync.aligned 0;",
    "@%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];",
    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 16384;",
    "bar.sync 1, 128; // stored",
    "cp.async.bulk.commit_group;",
    "cp.async.bulk.wait_group.read 0;",
];

/// What to put in place of what.
const CHANGES: [(&str, &str); 14] = [
    ("[smem+49168], 4;", "[smem+49168], 1;"),
    ("[smem+49176], 4;", "[smem+49176], 5;"),
    ("_, [%r5], 16384;", "_, [%r5], 8192;"),
    ("_, [%r5], 16384;", "_, [%r5], 16400;"),
    ("arrive.expect_tx.shared::cta.b64 _, [%r5], 16384;", "arrive.shared::cta.b64 _, [%r5];"),
    ("xor.b32 %r4, %r4, 1;", ""),
    ("wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;"),
    ("[%rd1, {%r7, 0}], [%r5];", "[%rd1, {%r7, 0}], [%r5+16];"),
    ("[%r6+16384], [%rd1", "[%r6+16384], [%rd0"),
    ("cp.async.bulk.wait_group.read 0;", "cp.async.bulk.wait_group.read 1;"),
    ("bar.sync 1, 128;", "bar.sync 1, 160;"),
    ("mbarrier.init.shared::cta.b64 [smem+49160], 1;", ""),
    ("@%p5 mbarrier.arrive.shared", "mbarrier.arrive.shared"),
    ("elect.sync _|%p2, 0xffffffff;\n    @!%p2 bra DONE;", ""),
];

/// Fences whose absence shows only when races are looked for.
const FENCES: [&str; 2] = ["fence.proxy.async.shared::cta;", "fence.mbarrier_init.release.cluster;"];

/// D (64 x 64, f32) = A (64 x K) times B (N x K) transposed, both bf16. Shared memory: two stages of A at 0 and of B at
/// 16 KiB, D at 32 KiB, barriers behind it. Warps 0 to 3 multiply, warp 4 loads.
fn kernel() -> String {
    let accumulators: Vec<String> = (100..132).map(|at| format!("%r{at}")).collect();
    let accumulators = accumulators.join(", ");
    let mut text = "
.version 8.6
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 d)
.maxntid 160
{
    .reg .pred %p<16>;
    .reg .b32 %r<200>;
    .reg .b64 %rd<40>;
    .shared .align 1024 .b8 smem[49216];
    mov.u32 %r0, %tid.x;
    ld.param.b64 %rd0, [a];
    ld.param.b64 %rd1, [b];
    ld.param.b64 %rd2, [d];
    setp.eq.u32 %p0, %r0, 0;
    @!%p0 bra READY;
    mbarrier.init.shared::cta.b64 [smem+49152], 1;
    mbarrier.init.shared::cta.b64 [smem+49160], 1;
    mbarrier.init.shared::cta.b64 [smem+49168], 4;
    mbarrier.init.shared::cta.b64 [smem+49176], 4;
    fence.mbarrier_init.release.cluster;
READY:
    bar.sync 0; // init
    shr.u32 %r1, %r0, 5;
    mov.b32 %r2, 0;
    setp.lt.u32 %p1, %r1, 4;
    @%p1 bra MULTIPLY;
    elect.sync _|%p2, 0xffffffff;
    @!%p2 bra DONE;
LOAD:
    and.b32 %r3, %r2, 1;
    bfe.u32 %r4, %r2, 1, 1;
    xor.b32 %r4, %r4, 1;
    mad.lo.s32 %r5, %r3, 8, 49152;
    shl.b32 %r6, %r3, 13;
    shl.b32 %r7, %r2, 6;"
        .to_owned();
    text += &wait("%r5+16", "%r4", "EMPTY");
    text += "
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 16384;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r6], [%rd0, {%r7, 0}], [%r5];
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r6+16384], [%rd1, {%r7, 0}], [%r5];
    add.s32 %r2, %r2, 1;
    setp.lt.u32 %p3, %r2, 6;
    @%p3 bra LOAD;
    bra DONE;
MULTIPLY:
    setp.ne.u32 %p4, %r0, %r0;
    and.b32 %r8, %r0, 31;
    setp.eq.u32 %p5, %r8, 0;
NEXT:
    and.b32 %r3, %r2, 1;
    bfe.u32 %r4, %r2, 1, 1;
    mad.lo.s32 %r5, %r3, 8, 49152;";
    text += &wait("%r5", "%r4", "FULL");
    text += &format!(
        "
    shl.b32 %r6, %r3, 9;
    cvt.u64.u32 %rd4, %r6;
    add.s64 %rd5, %rd4, {};
    wgmma.fence.sync.aligned;",
        1_u64 << 62 | 64 << 32 | 1 << 16
    );
    for step in 0..4 {
        text += &format!(
            "
    add.s64 %rd{}, %rd5, {};
    add.s64 %rd{}, %rd5, {};
    wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {{{accumulators}}}, %rd{}, %rd{}, %p4, 1, 1, 0, 0;
    setp.eq.u32 %p4, %r0, %r0;",
            10 + step,
            2 * step,
            20 + step,
            2 * step + 1024,
            10 + step,
            20 + step
        );
    }
    text += "
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    @%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];
    add.s32 %r2, %r2, 1;
    setp.lt.u32 %p3, %r2, 6;
    @%p3 bra NEXT;
    shr.u32 %r9, %r8, 2;
    mad.lo.s32 %r9, %r1, 16, %r9;
    and.b32 %r10, %r8, 3;
    shl.b32 %r10, %r10, 3;
    mad.lo.s32 %r9, %r9, 256, %r10;";
    for j in 0..8 {
        for h in 0..2 {
            text += &format!(
                "
    st.shared.v2.b32 [%r9+{}], {{%r{}, %r{}}};",
                32768 + 32 * j + 2048 * h,
                100 + 4 * j + 2 * h,
                101 + 4 * j + 2 * h
            );
        }
    }
    text += "
    fence.proxy.async.shared::cta;
    bar.sync 1, 128; // stored
    @!%p0 bra DONE;
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd2, {0, 0}], [smem+32768];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
DONE:
    ret;
}
";
    text
}

/// Runs a text; true when the product is right.
fn run(ptx: &str, options: &Options) -> Result<bool, String> {
    let (a, b) = (values(5, 64 * K), values(6, N * K));
    let mut memory = Memory::new();
    let bf16 = |values: &[f32]| -> Vec<u8> {
        values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
    };
    let mut params = Vec::new();
    for matrix in [&a, &b] {
        let at = memory.alloc_from(&bf16(matrix));
        let map = TensorMap::rows(TensorElement::Bf16, at, 64, K as u64, [64, 64]);
        params.push(Param::Ptr(place(&mut memory, &map)));
    }
    let out = memory.alloc_from(&[0xff; 64 * N * 4]);
    let map = TensorMap {
        element: TensorElement::F32,
        address: out,
        sizes: vec![N as u64, 64],
        strides: vec![N as u64 * 4],
        box_sizes: vec![N as u32, 64],
        element_strides: vec![1, 1],
        swizzle: Swizzle::None,
        out_of_bounds: OutOfBounds::Zero,
    };
    params.push(Param::Ptr(place(&mut memory, &map)));
    launch_in(&mut memory, ptx, threads(160), &params, options)?;
    let got = memory.read(out, (64 * N * 4) as u64).unwrap();
    let right = got.chunks_exact(4).enumerate().all(|(at, bits)| {
        let (row, column) = (at / N, at % N);
        let exact: f32 = (0..K).map(|k| a[row * K + k] * b[column * K + k]).sum();
        f32::from_le_bytes(bits.try_into().unwrap()) == exact
    });
    Ok(right)
}

fn all() -> Vec<Options> {
    let late = (0..6).map(|seed| options(Completion::Late, seed));
    late.chain([options(Completion::Eager, 0)]).collect()
}

#[test]
fn the_product_is_right_in_every_mode() {
    for options in all() {
        assert_eq!(run(&kernel(), &options), Ok(true), "{options:?}");
    }
}

#[test]
fn runs_with_one_seed_have_the_same_report() {
    let (a, b) =
        (run(&kernel(), &options(Completion::Late, 9)), run(&kernel(), &options(Completion::Late, 9)));
    assert_eq!(a, b);
}

/// Whether some mode faults or gives a wrong product.
fn shows(ptx: &str) -> bool {
    all().iter().any(|options| run(ptx, options) != Ok(true))
}

#[test]
fn each_missing_wait_shows() {
    let text = kernel();
    for sync in SYNCS {
        assert_eq!(text.matches(sync).count(), 1, "{sync}");
        assert!(shows(&text.replace(sync, "")), "not noticed: {sync}");
    }
}

#[test]
fn each_weakened_wait_shows() {
    let text = kernel();
    for (from, to) in CHANGES {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        assert!(shows(&text.replace(from, to)), "not noticed: {from} -> {to}");
    }
}

fn with_races(options: &Options) -> Options {
    Options { races: true, ..*options }
}

#[test]
fn the_product_has_no_races_whatever_the_seed() {
    for completion in [Completion::Late, Completion::Eager] {
        for seed in 0..50 {
            assert_eq!(
                run(&kernel(), &with_races(&options(completion, seed))),
                Ok(true),
                "{completion:?} {seed}"
            );
        }
    }
}

/// Late completion in the plain order suffices, since races show whatever the order was.
#[test]
fn one_run_with_races_shows_each_missing_or_weakened_wait() {
    let text = kernel();
    let missing = SYNCS.into_iter().chain(FENCES).map(|sync| (sync, ""));
    for (from, to) in missing.chain(CHANGES) {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let found = run(&text.replace(from, to), &with_races(&options(Completion::Late, 0)));
        assert_ne!(found, Ok(true), "not noticed: {from} -> {to}");
    }
}

#[test]
fn a_missing_proxy_fence_is_named_in_every_mode() {
    let text = kernel();
    for (fence, advice) in FENCES.into_iter().zip(["a fence.proxy.async between", "a fence.mbarrier_init"]) {
        for options in all() {
            let Err(fault) = run(&text.replace(fence, ""), &with_races(&options)) else {
                panic!("not noticed: {fence}, {options:?}");
            };
            assert!(fault.contains(advice) && fault.contains(" is missing"), "{fault}");
        }
    }
}

/// A wait behind the arrival that gives the stage back, and a stage that is one off.
#[test]
fn a_stage_that_is_given_back_too_early_is_a_race_in_every_mode() {
    let text = kernel();
    let arrive = "    @%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];\n";
    let wait = "    wgmma.wait_group.sync.aligned 0;\n";
    let moved = text.replace(wait, "").replace(arrive, &format!("{arrive}{wait}"));
    let stage = "    add.s64 %rd5, %rd4, ";
    let off = text.replace(stage, &format!("    xor.b64 %rd4, %rd4, 512;\n{stage}"));
    for options in all() {
        let options = with_races(&options);
        let Err(fault) = run(&moved, &options) else { panic!("not noticed: {options:?}") };
        assert!(fault.contains("asynchronous write against an earlier asynchronous read"), "{fault}");
        assert_ne!(run(&off, &options), Ok(true));
    }
}
