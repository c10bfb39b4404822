//! Small instructions of sm_90a: `elect.sync`, `setmaxnreg`, fences and hints that change no value.

use super::hopper::{Setup, fault, run, run_with};
use nabla_emulator::Options;

/// One lane of the members leads; all of them learn which, the same at every vote.
#[test]
fn one_member_is_elected() {
    for members in [u32::MAX, 0xff00, 0x8000_0001, 1 << 17] {
        let body = format!(
            "
    mov.u32 %r10, %laneid;
    mov.b32 %r11, {members};
    shr.u32 %r12, %r11, %r10;
    and.b32 %r12, %r12, 1;
    setp.eq.u32 %p1, %r12, 1;
    mov.b32 %r13, 99;
    mov.b32 %r15, 99;
    mov.pred %p2, 0;
    @%p1 elect.sync %r13|%p2, {members};
    @%p1 elect.sync %r15|%p3, {members};
    selp.b32 %r14, 100, 0, %p2;
    add.s32 %r14, %r14, %r13;
    mad.wide.u32 %rd10, %r0, 8, %rd1;
    st.global.b32 [%rd10], %r14;
    st.global.b32 [%rd10+4], %r15;"
        );
        // Which one is free; that it is one, and the same each time, is not.
        for seed in 0..4 {
            let options = Options { seed, ..Options::default() };
            let out = run_with(&body, &Setup { output: 64, ..Setup::default() }, &options)
                .unwrap_or_else(|fault| panic!("{fault}"));
            let leader = out[2 * members.trailing_zeros() as usize + 1];
            assert!(members >> leader & 1 == 1, "{leader} is a member of {members:#x}");
            for lane in 0..32 {
                let expected = match members >> lane & 1 {
                    0 => [99, 99],
                    _ => [leader + 100 * u32::from(lane == leader), leader],
                };
                assert_eq!(out[2 * lane as usize..][..2], expected, "lane {lane} of {members:#x}");
            }
        }
    }
    fault("    mov.b32 %r10, 2;\n    elect.sync %r11|%p1, 2;", &Setup::default(), "mask");
}

/// What orders, hints or budgets changes no value.
#[test]
fn orders_and_hints_change_no_value() {
    for line in [
        "setmaxnreg.inc.sync.aligned.u32 240;",
        "setmaxnreg.dec.sync.aligned.u32 40;",
        "fence.proxy.async;",
        "fence.proxy.async.shared::cta;",
        "fence.proxy.async.global;",
        "fence.mbarrier_init.release.cluster;",
        "fence.acq_rel.cluster;",
        "fence.sc.gpu;",
        "griddepcontrol.wait;",
        "griddepcontrol.launch_dependents;",
    ] {
        let body = format!(
            "    mov.b32 %r10, 5;\n    {line}\n    mad.wide.u32 %rd10, %r0, 4, %rd1;\n    st.global.b32 [%rd10], %r10;"
        );
        // setmaxnreg is for a whole group of four warps.
        let out = run(&body, &Setup { threads: 128, output: 128, ..Setup::default() });
        assert_eq!(out, [5; 128], "{line}");
    }
}
