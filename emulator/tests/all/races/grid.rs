//! Races between CTAs, and of warps on global memory.

use nabla_emulator::{FaultKind, MemorySpace};

use super::{case, grid};

/// Writes the thread's word of the output; the grid's CTAs all write the same.
const EVERY_CTA: &str = "st.global.b32 [%rd3], 1;";

#[test]
fn ctas_that_write_the_same_bytes_race() {
    let between = "CTAs of a launch have no order";
    grid(3, 32, format!("    {EVERY_CTA}")).races(MemorySpace::Global, [EVERY_CTA; 2], between);
    let own = "
    mov.u32 %r4, %ctaid.x;
    mul.wide.u32 %rd4, %r4, 128;
    add.s64 %rd3, %rd3, %rd4;
    st.global.b32 [%rd3], 1;
    ld.global.b32 %r5, [%rd3];";
    grid(3, 32, own).is_clean();
}

/// One CTA writes what the other reads, whichever of the two comes first.
#[test]
fn a_cta_that_reads_what_another_writes_races_in_both_orders() {
    for writer in [0, 1] {
        let body = format!(
            "
    mov.u32 %r4, %ctaid.x;
    setp.eq.u32 %p0, %r4, {writer};
    @%p0 st.global.b32 [%rd3], 1;
    @!%p0 ld.global.b32 %r5, [%rd3];"
        );
        let lines = ["@%p0 st.global.b32 [%rd3], 1;", "@!%p0 ld.global.b32 %r5, [%rd3];"];
        grid(2, 32, body.clone()).races(MemorySpace::Global, lines, "CTAs of a launch have no order");
        // Many readers do not hide the one writer.
        grid(40, 32, body).races(MemorySpace::Global, lines, "CTAs of a launch have no order");
    }
    grid(40, 32, "    ld.global.b32 %r5, [%rd2];").is_clean();
}

#[test]
fn warps_of_a_cta_race_on_global_memory_as_on_shared() {
    let body = |barrier: &str| {
        case(
            64,
            format!(
                "
    xor.b32 %r4, %r0, 32;
    mad.wide.u32 %rd4, %r4, 4, %rd1;
    st.global.b32 [%rd3], %r0;
    {barrier}
    ld.global.b32 %r5, [%rd4];"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").races(
        MemorySpace::Global,
        ["st.global.b32 [%rd3], %r0;", "ld.global.b32 %r5, [%rd4];"],
        "a barrier",
    );
}

#[test]
fn atomics_of_many_ctas_are_clean_and_race_with_plain_stores() {
    let body = |last: &str| {
        grid(
            8,
            64,
            format!("    red.global.add.u32 [%rd1], 1;\n    atom.global.max.u32 %r4, [%rd1+4], %r0;\n{last}"),
        )
    };
    body("").is_clean();
    body("    ld.volatile.global.b32 %r5, [%rd1];").is_clean();
    for (options, outcome) in body("    ld.global.b32 %r5, [%rd1];").outcomes() {
        let fault = outcome.expect_err("a plain read beside atomics");
        assert!(matches!(fault.kind, FaultKind::Race(_)), "{options:?}: {fault}");
    }
    // An atomic of CTA scope is none to the other CTAs.
    let narrow = "red.relaxed.cta.global.add.u32 [%rd1], 1;";
    grid(2, 32, format!("    {narrow}")).races(MemorySpace::Global, [narrow; 2], "CTAs of a launch");
    case(64, format!("    {narrow}")).is_clean();
    let hidden = format!("    {narrow}\n    red.global.add.u32 [%rd1], 1;");
    for (options, outcome) in grid(2, 32, hidden).outcomes() {
        let fault = outcome.expect_err("a wide atomic does not hide a narrow one");
        assert!(fault.to_string().contains(narrow), "{options:?}: {fault}");
    }
}

/// Each CTA leaves a part and counts up; the last to come adds the parts.
#[test]
fn the_last_cta_may_read_what_the_others_released() {
    let body = |fence: &str, after: &str| {
        grid(
            4,
            32,
            format!(
                "
    mov.u32 %r4, %ctaid.x;
    mad.wide.u32 %rd4, %r4, 128, %rd3;
    st.global.b32 [%rd4], %r0;
    {fence}
    bar.sync 0;
    mov.b32 %r6, 0;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 atom.global.add.u32 %r6, [%rd1+2048], 1;
    {after}
    shfl.sync.idx.b32 %r6, %r6, 0, 31, 0xffffffff;
    setp.ne.u32 %p2, %r6, 3;
    @%p2 bra DONE;
    ld.global.b32 %r5, [%rd3];
    ld.global.b32 %r5, [%rd3+128];
    ld.global.b32 %r5, [%rd3+256];
    ld.global.b32 %r5, [%rd3+384];
DONE:"
            ),
        )
    };
    body("membar.gl;", "membar.gl;").is_clean();
    body("fence.acq_rel.gpu;", "fence.acq_rel.gpu;").is_clean();
    for (fence, after) in [("", "membar.gl;"), ("membar.gl;", ""), ("membar.cta;", "membar.gl;")] {
        for (options, outcome) in body(fence, after).outcomes() {
            let fault = outcome.expect_err("half a pattern orders nothing");
            assert!(matches!(fault.kind, FaultKind::Race(_)), "{options:?}: {fault}");
        }
    }
}

/// As above with two warps: all fence, one thread counts and tells the others, all fence again.
#[test]
fn a_barrier_may_stand_between_a_fence_and_the_counter() {
    let body = |before: &str, barrier: &str, after: &str| {
        grid(
            4,
            64,
            format!(
                "
    mov.u32 %r4, %ctaid.x;
    mad.wide.u32 %rd4, %r4, 256, %rd3;
    st.global.b32 [%rd4], %r0;
    {before}
    {barrier}
    setp.eq.u32 %p1, %r0, 0;
    mov.b32 %r7, 0;
    @%p1 atom.global.add.u32 %r6, [%rd1+2048], 1;
    @%p1 st.shared.b32 [%r7], %r6;
    bar.sync 0;
    ld.shared.b32 %r6, [%r7];
    {after}
    setp.ne.u32 %p2, %r6, 3;
    @%p2 bra DONE;
    ld.global.b32 %r5, [%rd3];
    ld.global.b32 %r5, [%rd3+256];
    ld.global.b32 %r5, [%rd3+512];
    ld.global.b32 %r5, [%rd3+768];
DONE:"
            ),
        )
    };
    let fence = "membar.gl;";
    body(fence, "bar.sync 0;", fence).is_clean();
    body("", "bar.sync 0;\n    membar.gl;", fence).is_clean();
    for (before, barrier, after) in
        [(fence, "", fence), ("", "bar.sync 0;", fence), (fence, "bar.sync 0;", "")]
    {
        for (options, outcome) in body(before, barrier, after).outcomes() {
            let fault = outcome.expect_err("a part of the pattern is missing");
            assert!(matches!(fault.kind, FaultKind::Race(_)), "{options:?}: {fault}");
        }
    }
}
