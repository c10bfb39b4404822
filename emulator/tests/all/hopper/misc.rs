//! The small instructions of sm_90: elections, matrix stores, register counts, fences, hints.

use super::{fault, kernel, options, run, run_bytes, says, threads};
use nabla_emulator::{Completion, Module};

#[test]
fn one_lane_of_the_mask_is_elected() {
    let body = "
    setp.lt.u32 %p1, %r0, 20;
    mov.b32 %r1, 99;
    mov.b32 %r2, 0;
    @!%p1 bra DONE;
    elect.sync %r1|%p2, 0xfffff;
    selp.b32 %r2, 100, 0, %p2;
DONE:
    add.s32 %r1, %r1, %r2;
    st.global.b32 [%rd2], %r1;";
    for seed in 0..20 {
        let (out, _) = run_bytes(body, threads(32), &[0; 4], 128, &options(Completion::Late, seed)).unwrap();
        let out = super::words(&out);
        let leaders: Vec<usize> = (0..20).filter(|lane| out[*lane] >= 100).collect();
        assert_eq!(leaders.len(), 1, "seed {seed}: {out:?}");
        assert!((0..20).all(|lane| out[lane] % 100 == leaders[0] as u32));
        assert_eq!(out[20..], [99; 12]);
        assert_eq!(leaders[0], (seed % 20) as usize, "the seed chooses, and seed 0 the lowest");
    }
}

#[test]
fn matrices_are_stored_as_they_are_loaded() {
    for trans in ["", ".trans"] {
        for count in [1_u32, 2, 4] {
            let list: Vec<String> = (0..count).map(|i| format!("%r{}", 10 + i)).collect();
            let list = list.join(", ");
            // Lane l holds pairs 2 l, 2 l + 1 of matrix i, plus 1000 i.
            let body = format!(
                "
    shl.b32 %r1, %r0, 1;
    add.s32 %r2, %r1, 1;
    shl.b32 %r2, %r2, 16;
    or.b32 %r10, %r1, %r2;
    add.s32 %r11, %r10, 0x03e803e8;
    add.s32 %r12, %r11, 0x03e803e8;
    add.s32 %r13, %r12, 0x03e803e8;
    shl.b32 %r3, %r0, 4;
    stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r3], {{{list}}};
    bar.warp.sync -1;
    shl.b32 %r4, %r0, 2;
    mov.b32 %r6, 0;
NEXT:
    ld.shared.b32 %r5, [%r4];
    st.global.b32 [%rd2], %r5;
    add.s32 %r4, %r4, 128;
    add.s64 %rd2, %rd2, 128;
    add.s32 %r6, %r6, 1;
    setp.lt.u32 %p1, %r6, {count};
    @%p1 bra NEXT;"
            );
            let out = run(&body, threads(32), &[0], 32 * count as usize);
            for (at, word) in out.iter().enumerate() {
                for part in 0..2 {
                    let (matrix, element) = (at as u32 / 32, at as u32 % 32 * 2 + part);
                    let (row, column) = (element / 8, element % 8);
                    let source = if trans.is_empty() { element } else { column * 8 + row };
                    assert_eq!(*word >> (16 * part) & 0xffff, source + 1000 * matrix, "{count}{trans}");
                }
            }
        }
    }
    let remote = "    mov.b32 %r3, 0x01000000;\n    stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r3], {%r0};";
    says(&fault(remote, threads(32)), &["out-of-bounds"]);
}

fn registers(body: &str, directive: &str, count: u32) -> Result<Vec<String>, String> {
    let text = kernel(body).replace(".maxntid 512", directive);
    let mut memory = nabla_emulator::Memory::new();
    let ptr = nabla_emulator::Param::Ptr(memory.alloc(4));
    let params = [ptr.clone(), ptr];
    super::launch_in(&mut memory, &text, threads(count), &params, &options(Completion::Late, 0))
        .map(|report| report.notes)
}

#[test]
fn registers_move_between_warpgroups() {
    let body = |consumer: u32| {
        format!(
            "
    setp.ge.u32 %p1, %r0, 128;
    @%p1 bra CONSUMER;
    setmaxnreg.dec.sync.aligned.u32 24;
    bra DONE;
CONSUMER:
    setmaxnreg.inc.sync.aligned.u32 {consumer};
DONE:"
        )
    };
    // 168 for each of 384 threads at the start: two warpgroups gain what one gives.
    assert_eq!(registers(&body(240), ".maxntid 384", 384), Ok(vec![]));
    let text = registers(&body(248), ".maxntid 384", 384).unwrap_err();
    says(
        &text,
        &["deadlock", "registers per thread more, which setmaxnreg.dec of other warps must give back"],
    );
    assert_eq!(registers(&body(96), ".maxnreg 72", 384), Ok(vec![]));
    let notes = registers(&body(240), "", 384).unwrap();
    says(&notes[0], &["setmaxnreg is ignored", ".maxntid"]);
    let up_and_down = "
    setmaxnreg.dec.sync.aligned.u32 40;
    setmaxnreg.inc.sync.aligned.u32 32;";
    says(&registers(up_and_down, ".maxntid 128", 128).unwrap_err(), &["fewer than the 40 the warp has"]);
    let partial = "
    setp.ge.u32 %p1, %r0, 96;
    @%p1 bra DONE;
    setmaxnreg.dec.sync.aligned.u32 40;
DONE:";
    says(&registers(partial, ".maxntid 128", 128).unwrap_err(), &["the warp exits, but other warps"]);
}

#[test]
fn fences_hints_and_policies_run() {
    let body = "
    fence.proxy.async;
    fence.proxy.async.global;
    fence.proxy.async.shared::cta;
    fence.proxy.alias;
    fence.mbarrier_init.release.cluster;
    fence.proxy.tensormap::generic.release.gpu;
    fence.proxy.tensormap::generic.acquire.gpu [%rd0], 128;
    fence.acq_rel.cta;
    fence.sc.cluster;
    fence.acq_rel.gpu;
    fence.acquire.sync_restrict::shared::cluster.cluster;
    fence.release.sync_restrict::shared::cta.cluster;
    fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;
    nanosleep.u32 20;
    createpolicy.fractional.L2::evict_last.b64 %rd5, 0f3F800000;
    createpolicy.fractional.L2::evict_first.b64 %rd6;
    createpolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 %rd7, [%rd0], 128, 256;
    discard.global.L2 [%rd0], 128;
    applypriority.global.L2::evict_normal [%rd0], 128;
    griddepcontrol.wait;
    griddepcontrol.launch_dependents;
    mov.b32 %r1, 1;
    st.global.b32 [%rd2], %r1;";
    let (_, report) = run_bytes(body, threads(32), &[0; 512], 128, &options(Completion::Late, 0)).unwrap();
    assert_eq!(report.notes.len(), 1);
    says(&report.notes[0], &["griddepcontrol has no effect here"]);
}

#[test]
fn spellings_outside_the_subset_are_errors_with_their_place() {
    let cases = [
        (
            "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%r1,%r2,%r3,%r4}, %rd1, %rd2, 1, 1, 1;",
            "m64nNk16",
        ),
        (
            "wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {%r1,%r2}, %rd1, %rd2, 1, 1, 1, 0, 0;",
            "a multiple of 8",
        ),
        (
            "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r1,%r2,%r3}, %rd1, %rd2, 1, 1, 1, 0, 0;",
            "expected [4] registers, found 3",
        ),
        (
            "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r1,%r2,%r3,%r1}, %rd1, %rd2, 1, 1, 1, 0, 0;",
            "uses already",
        ),
        (
            "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r1,%r2,%r3,%r4}, %rd1, %rd2, 1, 2, 1, 0, 0;",
            "a scale is 1 or -1, not 2",
        ),
        ("wgmma.wait_group.sync.aligned 8;", "0 to 7 groups"),
        ("setmaxnreg.inc.sync.aligned.u32 20;", "a multiple of 8 from 24 to 256, not 20"),
        ("mbarrier.arrive.shared::cluster.b64 %rd5, [%r1];", "returns no state: write `_`"),
        ("mbarrier.init.shared::cluster.b64 [%r1], 1;", "own CTA"),
        (
            "mbarrier.try_wait.parity.frob.shared.b64 %p1, [%r1], 0;",
            "the modifier `.frob` of `mbarrier` is not modelled",
        ),
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r1], [%rd0, {%r1, %r2}], [%r3];",
            "`.im2col`",
        ),
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd0, {%r1}], [%r3];",
            "takes 2 coordinates, not 1",
        ),
        (
            "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f16 [%rd0], [%r1], 16;",
            "`.add` of 16-bit floats needs `.noftz`",
        ),
        ("cp.async.bulk.global.shared::cta.bulk_group.cp_mask [%rd0], [%r1], 16;", "`.cp_mask`"),
        ("barrier.cluster.sync;", "needs `.wait`"),
    ];
    for (line, says_so) in cases {
        let text = kernel(&format!("    {line}"));
        let error = Module::parse("bad.ptx", &text).expect_err(line);
        assert_eq!(error.text.trim(), line);
        says(&error.message, &[says_so]);
    }
    let old = kernel("    setmaxnreg.dec.sync.aligned.u32 24;").replace("sm_90a", "sm_90");
    says(&Module::parse("bad.ptx", &old).unwrap_err().message, &["needs `.target sm_90a`", "`sm_90`"]);
    let older = kernel("    fence.proxy.async;").replace("sm_90a", "sm_80");
    says(&Module::parse("bad.ptx", &older).unwrap_err().message, &["needs `.target sm_90`"]);
}
