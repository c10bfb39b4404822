//! mbarriers: phases, states, bytes; and what the report of each misuse says.

use super::{fault, options, run, run_bytes, says, threads, wait};
use nabla_emulator::{Completion, Options};

/// Thread 0 makes a barrier of `count` at address 0; all threads wait until it has.
fn start(count: u32) -> String {
    format!(
        "
    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [smem], {count};
    fence.mbarrier_init.release.cluster;
    bar.sync 0;"
    )
}

#[test]
fn a_phase_ends_with_its_last_arrival() {
    // The parity that has ended, asked for before and after each arrival.
    let body = format!(
        "{}
    mbarrier.test_wait.parity.shared.b64 %p1, [smem], 0;
    mbarrier.arrive.shared.b64 _, [smem];
    mbarrier.test_wait.parity.shared.b64 %p2, [smem], 0;
    mbarrier.arrive.shared.b64 _, [smem], 2;
    mbarrier.test_wait.parity.shared.b64 %p3, [smem], 0;
    mbarrier.test_wait.parity.shared.b64 %p4, [smem], 1;
    selp.b32 %r1, 1, 0, %p1;
    selp.b32 %r2, 2, 0, %p2;
    selp.b32 %r3, 4, 0, %p3;
    selp.b32 %r4, 8, 0, %p4;
    or.b32 %r1, %r1, %r2;
    or.b32 %r1, %r1, %r3;
    or.b32 %r1, %r1, %r4;
    st.global.b32 [%rd2], %r1;",
        start(3)
    );
    assert_eq!(run(&body, threads(1), &[0], 1), [4]);
}

#[test]
fn states_tell_phase_and_pending_count() {
    let body = format!(
        "{}
    mbarrier.arrive.shared.b64 %rd5, [smem], 3;
    mbarrier.arrive.noComplete.shared.b64 %rd6, [smem], 1;
    mbarrier.pending_count.b64 %r1, %rd5;
    mbarrier.pending_count.b64 %r2, %rd6;
    mbarrier.test_wait.shared.b64 %p1, [smem], %rd5;
    mbarrier.arrive_drop.shared.b64 %rd7, [smem];
    mbarrier.test_wait.shared.b64 %p2, [smem], %rd5;
    mbarrier.arrive.shared.b64 %rd8, [smem], 4;
    mbarrier.pending_count.b64 %r3, %rd8;
    mbarrier.test_wait.parity.shared.b64 %p3, [smem], 1;
    selp.b32 %r4, 100, 0, %p1;
    selp.b32 %r5, 1000, 0, %p2;
    selp.b32 %r6, 10000, 0, %p3;
    add.s32 %r4, %r4, %r5;
    add.s32 %r4, %r4, %r6;
    st.global.v4.b32 [%rd1], {{%r1, %r2, %r3, %r4}};",
        start(5)
    );
    // 5 before the first arrival, 2 before the second; after the drop a phase takes 4.
    assert_eq!(run(&body, threads(1), &[0], 4), [5, 2, 4, 11000]);
}

#[test]
fn warps_hand_data_over_by_phases() {
    // Warp 0 writes eight rounds of values, warp 1 adds them up: full barrier at 0, empty barrier at 8.
    let body = format!(
        "
    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [smem], 32;
    @%p0 mbarrier.init.shared::cta.b64 [smem+8], 32;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    and.b32 %r1, %r0, 31;
    mad.lo.s32 %r2, %r1, 4, 64;
    mov.b32 %r3, 0;
    mov.b32 %r4, 0;
    setp.ge.u32 %p1, %r0, 32;
    @%p1 bra CONSUMER;
PRODUCER:
    and.b32 %r5, %r3, 1;
    xor.b32 %r5, %r5, 1;{}
    mad.lo.s32 %r6, %r3, 10, %r1;
    st.shared.b32 [%r2], %r6;
    mbarrier.arrive.release.cta.shared::cta.b64 _, [smem];
    add.s32 %r3, %r3, 1;
    setp.lt.u32 %p2, %r3, 8;
    @%p2 bra PRODUCER;
    bra DONE;
CONSUMER:
    and.b32 %r5, %r3, 1;{}
    ld.shared.b32 %r6, [%r2];
    add.s32 %r4, %r4, %r6;
    mbarrier.arrive.shared::cta.b64 %rd9, [smem+8];
    add.s32 %r3, %r3, 1;
    setp.lt.u32 %p2, %r3, 8;
    @%p2 bra CONSUMER;
    st.global.b32 [%rd2+-128], %r4;
DONE:",
        wait("smem+8", "%r5", "EMPTY"),
        wait("smem", "%r5", "FULL")
    );
    let expected: Vec<u32> = (0..32).map(|lane| 8 * lane + 10 * 28).collect();
    assert_eq!(run(&body, threads(64), &[0], 32), expected);
}

#[test]
fn a_polling_test_wait_lets_the_others_go_on() {
    let body = format!(
        "{}
    setp.ge.u32 %p1, %r0, 32;
    @%p1 bra ARRIVE;
    mov.b32 %r2, 0;
POLL:
    add.s32 %r2, %r2, 1;
    mbarrier.test_wait.parity.shared.b64 %p2, [smem], 0;
    @!%p2 bra POLL;
    ld.shared.b32 %r1, [smem+16];
    st.global.b32 [%rd2], %r1;
    bra DONE;
ARRIVE:
    st.shared.b32 [smem+16], 7;
    mbarrier.arrive.shared.b64 _, [smem];
DONE:",
        start(32)
    );
    assert_eq!(run(&body, threads(64), &[0], 32), [7; 32]);
}

#[test]
fn a_loop_that_polls_and_counts_sees_the_end_of_a_copy() {
    // Each round leaves a mark in memory, so that the warp never merely waits.
    let body = format!(
        "{}
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem], 64;
    cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [smem+64], [%rd0], 64, [smem];
POLL:
    atom.global.add.u32 %r2, [%rd1+4], 1;
    mbarrier.test_wait.parity.shared.b64 %p2, [smem], 0;
    @!%p2 bra POLL;
    ld.shared.b32 %r1, [smem+64];
    st.global.b32 [%rd1], %r1;
    st.global.b32 [%rd1+4], 0;",
        start(1)
    );
    assert_eq!(run(&body, threads(1), &[6; 16], 2), [6, 0]);
}

#[test]
fn a_lane_may_wait_for_its_siblings() {
    // Lane 0 waits for the other lanes of its warp, which arrive on another path.
    let body = format!(
        "{}
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra OTHERS;{}
    st.global.b32 [%rd2], 5;
    bra DONE;
OTHERS:
    mbarrier.arrive.shared.b64 _, [smem];
DONE:",
        start(31),
        wait("smem", "0", "WAIT")
    );
    assert_eq!(run(&body, threads(32), &[0], 1), [5]);
}

#[test]
fn copies_arrive_at_an_mbarrier() {
    for (suffix, count) in [(".noinc", 32), ("", 1)] {
        // Without .noinc the copies count themselves, and one more arrival is needed.
        let extra = if suffix.is_empty() { "@%p0 mbarrier.arrive.shared.b64 _, [smem];" } else { "" };
        let body = format!(
            "{}
    mad.lo.s32 %r2, %r0, 4, 64;
    mad.wide.u32 %rd5, %r0, 4, %rd0;
    cp.async.ca.shared.global [%r2], [%rd5], 4;
    cp.async.mbarrier.arrive{suffix}.shared.b64 [smem];
    bar.warp.sync -1;
    {extra}{}
    ld.shared.b32 %r1, [%r2];
    st.global.b32 [%rd2], %r1;",
            start(count),
            wait("smem", "0", "WAIT")
        );
        let input: Vec<u32> = (100..132).collect();
        assert_eq!(run(&body, threads(32), &input, 32), input);
        let missing = body.replace("@!%p15 bra WAIT;", "");
        says(&fault(&missing, threads(32)), &["in flight", "ld.shared.b32"]);
    }
}

#[test]
fn bytes_count_like_arrivals() {
    let body = format!(
        "{}
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem], 48;
    mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [smem], 16;
    mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [smem], 32;
    mbarrier.test_wait.parity.shared.b64 %p1, [smem], 0;
    mbarrier.complete_tx.shared::cta.b64 [smem], 32;
    mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 %p2, [smem], 0;
    mbarrier.inval.shared::cta.b64 [smem];
    st.shared.b64 [smem], 0;
    selp.b32 %r1, 1, 0, %p1;
    selp.b32 %r2, 2, 0, %p2;
    add.s32 %r1, %r1, %r2;
    st.global.b32 [%rd2], %r1;",
        start(1)
    );
    assert_eq!(run(&body, threads(1), &[0], 1), [2]);
}

#[test]
fn misuse_is_a_fault_that_says_what_to_do() {
    let with = |count: u32, body: &str| format!("{}\n    {body}", start(count));
    let one = threads(1);
    let cases = [
        (
            with(2, "mbarrier.arrive.shared.b64 _, [smem], 3;"),
            "of which phase 0 expects only 2: more threads arrive",
        ),
        (
            with(1, "mbarrier.arrive.shared.b64 _, [smem+8];"),
            "there is no mbarrier at shared address 0x8: initialise it",
        ),
        (with(1, "mbarrier.arrive.shared.b64 _, [smem+4];"), "an mbarrier lies at a multiple of 8"),
        (
            with(1, "mbarrier.inval.shared.b64 [smem];\n    mbarrier.arrive.shared.b64 _, [smem];"),
            "there is no mbarrier at shared address 0x0",
        ),
        (with(1, "mbarrier.init.shared.b64 [smem], 1;"), "where an mbarrier lives already"),
        (with(0, ""), "expects 1 to 1048575 arrivals, not 0"),
        (
            with(2, "mbarrier.arrive.shared.b64 _, [smem];\n    mbarrier.inval.shared.b64 [smem];"),
            "while it is in use (phase 0 (parity 0) still needs 1 arrivals",
        ),
        (with(1, "mbarrier.expect_tx.shared::cta.b64 [smem], 1048576;"), "can track 1048575: split the copy"),
        (
            with(1, "mbarrier.arrive.noComplete.shared.b64 %rd5, [smem], 1;"),
            "noComplete is the last arrival of phase 0",
        ),
        (with(1, "mbarrier.test_wait.parity.shared.b64 %p1, [smem], 2;"), "is 0 or 1, not 2: mask it"),
        (
            with(1, "mov.b64 %rd5, 3;\n    mbarrier.test_wait.shared.b64 %p1, [smem], %rd5;"),
            "no state that an mbarrier.arrive",
        ),
        (
            with(
                1,
                "mbarrier.arrive.shared.b64 %rd5, [smem];\n    mbarrier.arrive.shared.b64 _, [smem];\n    \
                 mbarrier.test_wait.shared.b64 %p1, [smem], %rd5;",
            ),
            "the state is of phase 0 and the mbarrier at shared address 0x0 is in phase 2",
        ),
        (
            with(1, "st.shared.b32 [smem+4], 1;"),
            "write to 4 bytes at shared address 0x4, where an mbarrier lives",
        ),
        (
            with(1, "ld.shared.b64 %rd5, [smem];"),
            "read of 8 bytes at shared address 0x0, where an mbarrier lives",
        ),
    ];
    for (body, text) in cases {
        says(&fault(&body, one), &[text, "test.ptx:"]);
    }
}

#[test]
fn a_wait_that_nothing_ends_is_a_deadlock_with_its_state() {
    let body = format!(
        "{}
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem], 64;{}",
        start(2),
        wait("smem", "0", "WAIT")
    );
    says(
        &fault(&body, threads(64)),
        &[
            "deadlock",
            "warp 0",
            "warp 1",
            "waits for phase 0 of the mbarrier at shared address 0x0",
            "phase 0 (parity 0) still needs 1 arrivals and 64 bytes",
            "mbarrier.try_wait.parity",
        ],
    );
    // The same for a loop that only polls.
    says(
        &fault(&body.replace("try_wait", "test_wait"), threads(64)),
        &["deadlock", "still needs 1 arrivals"],
    );
    // Turns of any length, which may end between two tries.
    let slow = body.replace("try_wait", "test_wait").replace("@!%p15", "add.s32 %r9, %r9, 1;\n    @!%p15");
    let options = Options { instruction_budget: 1 << 40, ..options(Completion::Late, 7) };
    let slow = format!("    mov.b32 %r9, 0;\n{slow}");
    says(&run_bytes(&slow, threads(512), &[0; 4], 4, &options).unwrap_err(), &["deadlock", "phase 0"]);
}

#[test]
fn a_lapped_waiter_shows() {
    // Warp 1 ends two phases while warp 0 waits for the first of them.
    let body = format!(
        "{}
    setp.ge.u32 %p1, %r0, 32;
    @%p1 bra ARRIVE;{}
    bra DONE;
ARRIVE:
    mbarrier.arrive.shared.b64 _, [smem];
    mbarrier.arrive.shared.b64 _, [smem];
DONE:",
        start(32),
        wait("smem", "0", "WAIT")
    );
    says(
        &fault(&body, threads(64)),
        &["lapped: the warp waits for phase 0", "which has meanwhile ended phases 0 to 1"],
    );
}

#[test]
fn a_barrier_starts_anew_after_its_end() {
    // Polls once in vain in a late phase, ends the barrier, makes it anew at the same place, and polls there again.
    let body = format!(
        "{}
    mov.b32 %r2, 0;
AGAIN:
    mbarrier.arrive.shared.b64 _, [smem];
    mbarrier.arrive.shared.b64 _, [smem];
ASK:
    mbarrier.test_wait.parity.shared.b64 %p1, [smem], 0;
    mbarrier.inval.shared.b64 [smem];
    mbarrier.init.shared.b64 [smem], 1;
    add.s32 %r2, %r2, 1;
    setp.lt.u32 %p2, %r2, 2;
    @%p2 bra ASK;
    setp.lt.u32 %p2, %r2, 4;
    @%p2 bra AGAIN;
    st.global.b32 [%rd2], %r2;",
        start(1)
    );
    assert_eq!(run(&body, threads(1), &[0], 1), [4]);
}

#[test]
fn a_try_wait_without_a_loop_shows() {
    let body = |again: &str| {
        format!(
            "{}
    setp.ge.u32 %p1, %r0, 32;
    @%p1 bra STORE;
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [smem], 0, 1000;
    {again}
    ld.shared.b32 %r1, [smem+16];
    st.global.b32 [%rd2], %r1;
    bra DONE;
STORE:
    st.shared.b32 [smem+16], 3;
    mbarrier.arrive.shared.b64 _, [smem];
DONE:",
            start(32)
        )
    };
    assert_eq!(run(&body("@!%p2 bra WAIT;"), threads(64), &[0], 32), [3; 32]);
    says(&fault(&body(""), threads(64)), &["read of 4 bytes", "never written"]);
}

#[test]
fn runs_with_one_seed_are_the_same() {
    let body = format!("{}{}", start(64), "\n    mbarrier.arrive.shared.b64 _, [smem];");
    let body = format!("{body}{}", wait("smem", "0", "WAIT"));
    let report =
        |seed| run_bytes(&body, threads(64), &[0; 4], 4, &options(Completion::Late, seed)).unwrap().1;
    assert_eq!(report(3), report(3));
    assert_eq!(report(3).counters.mbarrier_waits, 2);
}
