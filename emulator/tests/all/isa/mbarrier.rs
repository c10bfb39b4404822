//! `mbarrier` against the PTX ISA: phases and their parity, arrivals, expected bytes, states, counts (section "Parallel
//! Synchronization and Communication Instructions: mbarrier").

use super::hopper::{Setup, fault, run, wait};

/// One thread initialises the barrier at the start of shared memory for `count` arrivals.
fn init(count: u32) -> String {
    format!(
        "
    setp.eq.u32 %p14, %r0, 0;
    @%p14 mbarrier.init.shared::cta.b64 [%r1], {count};
    bar.sync 0;"
    )
}

/// Stores whether the phase of a parity is over, as word `at` of the output.
fn test(at: u32, parity: u32) -> String {
    format!(
        "
    mbarrier.test_wait.parity.shared::cta.b64 %p13, [%r1], {parity};
    selp.b32 %r50, 1, 0, %p13;
    st.global.b32 [%rd1+{}], %r50;",
        4 * at
    )
}

fn single(body: &str, output: usize) -> Vec<u32> {
    run(&format!("{}{body}", init(1)), &Setup { threads: 1, output, ..Setup::default() })
}

/// The phase before the first counts as over, with parity 1.
#[test]
fn phases_alternate_in_parity() {
    let mut body = String::new();
    for phase in 0..5 {
        body += &test(2 * phase, 0);
        body += &test(2 * phase + 1, 1);
        body += "\n    mbarrier.arrive.shared::cta.b64 _, [%r1];";
    }
    // While phase n is under way the parity of phase n - 1 is over.
    assert_eq!(single(&body, 10), [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]);
}

#[test]
fn a_phase_needs_all_its_arrivals() {
    let mut body = init(3);
    for at in 0..7 {
        body += &test(at, 0);
        body += "\n    mbarrier.arrive.shared::cta.b64 %rd20, [%r1];";
    }
    let out = run(&body, &Setup { threads: 1, output: 7, ..Setup::default() });
    assert_eq!(out, [0, 0, 0, 1, 1, 1, 0]);
}

#[test]
fn an_arrival_may_count_for_several() {
    let mut body = init(10);
    for (at, count) in [4, 5, 1, 10].into_iter().enumerate() {
        body += &format!("\n    mbarrier.arrive.release.cta.shared::cta.b64 _, [%r1], {count};");
        body += &test(2 * at as u32, 0);
        body += &test(2 * at as u32 + 1, 1);
    }
    let out = run(&body, &Setup { threads: 1, output: 8, ..Setup::default() });
    assert_eq!(out, [0, 1, 0, 1, 1, 0, 0, 1]);
}

/// A state names the phase it was taken in: it is over once that phase is, and stays so for the next.
#[test]
fn states_remember_their_phase() {
    let state = |at: u32, state: &str| {
        format!(
            "
    mbarrier.test_wait.shared::cta.b64 %p13, [%r1], {state};
    selp.b32 %r50, 1, 0, %p13;
    st.global.b32 [%rd1+{}], %r50;",
            4 * at
        )
    };
    let body = init(2)
        + "\n    mbarrier.arrive.shared::cta.b64 %rd20, [%r1];"
        + &state(0, "%rd20")
        + "\n    mbarrier.arrive.shared::cta.b64 %rd21, [%r1];"
        + &state(1, "%rd20")
        + &state(2, "%rd21")
        + "\n    mbarrier.arrive.shared::cta.b64 %rd22, [%r1];"
        + &state(3, "%rd22")
        + &state(4, "%rd21")
        + "\n    mbarrier.arrive.shared::cta.b64 %rd23, [%r1];"
        + &state(5, "%rd22");
    let out = run(&body, &Setup { threads: 1, output: 6, ..Setup::default() });
    assert_eq!(out, [0, 1, 1, 0, 1, 1]);
}

/// Bytes hold the phase open after the last arrival; bytes that come first wait for their expectation.
#[test]
fn expected_bytes_hold_the_phase_open() {
    let body = "
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 48;"
        .to_owned()
        + &test(0, 0)
        + "\n    mbarrier.complete_tx.shared::cta.relaxed.cta.b64 [%r1], 16;".replace(".shared::cta.relaxed.cta", ".relaxed.cta.shared::cta").as_str()
        + &test(1, 0)
        + "\n    mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r1], 32;"
        + &test(2, 0)
        // The next phase: expectation apart from the arrival, in two parts.
        + "\n    mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], 8;"
        + "\n    mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], 8;"
        + "\n    mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r1], 16;"
        + &test(3, 1)
        + "\n    mbarrier.arrive.shared::cta.b64 _, [%r1];"
        + &test(4, 1);
    assert_eq!(single(&body, 5), [0, 0, 1, 0, 1]);
}

/// An arrival for good: its phase has it, the next ones do without.
#[test]
fn dropped_participants_are_not_expected_again() {
    let body = init(3)
        + "\n    mbarrier.arrive_drop.shared::cta.b64 _, [%r1];"
        + &test(0, 0)
        + "\n    mbarrier.arrive.shared::cta.b64 _, [%r1], 2;"
        + &test(1, 0)
        + "\n    mbarrier.arrive.shared::cta.b64 _, [%r1];"
        + &test(2, 1)
        + "\n    mbarrier.arrive_drop.shared::cta.b64 _, [%r1];"
        + &test(3, 1)
        + "\n    mbarrier.arrive.shared::cta.b64 _, [%r1];"
        + &test(4, 0);
    let out = run(&body, &Setup { threads: 1, output: 5, ..Setup::default() });
    assert_eq!(out, [0, 1, 0, 1, 1]);
}

#[test]
fn an_invalidated_barrier_is_made_anew() {
    let body = "
    mbarrier.arrive.shared::cta.b64 _, [%r1];
    mbarrier.inval.shared::cta.b64 [%r1];
    mbarrier.init.shared::cta.b64 [%r1], 2;"
        .to_owned()
        + &test(0, 0)
        + &test(1, 1)
        + "\n    mbarrier.arrive.shared::cta.b64 _, [%r1], 2;"
        + &test(2, 0);
    assert_eq!(single(&body, 3), [0, 1, 1]);
    fault(
        &format!(
            "{}\n    mbarrier.inval.shared::cta.b64 [%r1];\n    mbarrier.arrive.shared::cta.b64 _, [%r1];",
            init(1)
        ),
        &Setup { threads: 1, ..Setup::default() },
        "no mbarrier at",
    );
}

/// Every lane of a warp arrives by itself.
#[test]
fn lanes_arrive_one_by_one() {
    let body = init(96)
        + "\n    mbarrier.arrive.shared::cta.b64 _, [%r1];"
        + &wait("W", "%r1", "0")
        + "
    mad.wide.u32 %rd20, %r0, 4, %rd1;
    st.global.b32 [%rd20], %r0;";
    let out = run(&body, &Setup { threads: 96, output: 96, ..Setup::default() });
    assert_eq!(out, (0..96).collect::<Vec<u32>>());
    // One too few never opens it.
    fault(
        &body.replacen(", 96;", ", 97;", 1),
        &Setup { threads: 96, output: 96, ..Setup::default() },
        "still needs 1 arrivals",
    );
}

/// A ring of two buffers between a producer and a consumer warp, 16 turns: each waits for the other by parity.
#[test]
fn a_ring_hands_values_over() {
    let body = "
    // Barriers: full at 0 and 8, empty at 16 and 24; buffers of 32 words at 128 and 256.
    setp.eq.u32 %p1, %r0, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r1], 32;
    @%p1 mbarrier.init.shared::cta.b64 [%r1+8], 32;
    @%p1 mbarrier.init.shared::cta.b64 [%r1+16], 32;
    @%p1 mbarrier.init.shared::cta.b64 [%r1+24], 32;
    bar.sync 0;
    and.b32 %r10, %r0, 31;
    mad.lo.s32 %r11, %r10, 4, %r1;
    mov.b32 %r12, 0;
    mov.b32 %r20, 0;
    setp.ge.u32 %p2, %r0, 32;
TURN:
    and.b32 %r13, %r12, 1;
    mad.lo.s32 %r14, %r13, 8, %r1;
    mad.lo.s32 %r15, %r13, 128, %r11;
    shr.u32 %r16, %r12, 1;
    and.b32 %r16, %r16, 1;
    xor.b32 %r17, %r16, 1;
    @%p2 bra CONSUME;
EMPTY:
    mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r14+16], %r17;
    @!%p3 bra EMPTY;
    mad.lo.s32 %r18, %r12, 1000, %r10;
    st.shared.b32 [%r15+128], %r18;
    mbarrier.arrive.shared::cta.b64 _, [%r14];
    bra NEXT;
CONSUME:
FULL:
    mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r14], %r16;
    @!%p3 bra FULL;
    ld.shared.b32 %r18, [%r15+128];
    mad.lo.s32 %r20, %r20, 3, %r18;
    mbarrier.arrive.shared::cta.b64 _, [%r14+16];
NEXT:
    add.s32 %r12, %r12, 1;
    setp.lt.u32 %p4, %r12, 16;
    @%p4 bra TURN;
    mad.wide.u32 %rd20, %r10, 4, %rd1;
    @%p2 st.global.b32 [%rd20], %r20;";
    let out = run(body, &Setup { threads: 64, output: 32, ..Setup::default() });
    let expected =
        |lane: u32| (0..16).fold(0_u32, |sum, turn| sum.wrapping_mul(3).wrapping_add(turn * 1000 + lane));
    assert_eq!(out, (0..32).map(expected).collect::<Vec<u32>>());
    // A producer that does not wait for the empty buffer laps the consumer or finds it already read: never the same.
}

/// `cp.async.mbarrier.arrive` arrives when the thread's copies are there: with `.noinc` it is one of the count, without it
/// counts for itself.
#[test]
fn copies_arrive_when_they_are_there() {
    for (noinc, count) in [(".noinc", 32), ("", 1)] {
        let own = if noinc.is_empty() {
            "\n    setp.eq.u32 %p5, %r0, 0;\n    @%p5 mbarrier.arrive.shared::cta.b64 _, [%r1];"
        } else {
            ""
        };
        let body = init(count)
            + &format!(
                "
    mad.lo.s32 %r10, %r0, 4, %r1;
    mad.wide.u32 %rd20, %r0, 4, %rd0;
    cp.async.ca.shared.global [%r10+128], [%rd20], 4;
    cp.async.mbarrier.arrive{noinc}.shared::cta.b64 [%r1];{}{own}",
                if noinc.is_empty() { "\n    bar.sync 0;" } else { "" }
            )
            + &wait("W", "%r1", "0")
            + "
    xor.b32 %r11, %r0, 31;
    mad.lo.s32 %r11, %r11, 4, %r1;
    ld.shared.b32 %r12, [%r11+128];
    mad.wide.u32 %rd21, %r0, 4, %rd1;
    st.global.b32 [%rd21], %r12;";
        let setup = Setup { input: (500..532).collect(), output: 32, ..Setup::default() };
        assert_eq!(run(&body, &setup), (500..532).rev().collect::<Vec<u32>>(), "`{noinc}`");
    }
}

/// What no program may do.
#[test]
fn misuse_is_reported() {
    let setup = Setup { threads: 1, ..Setup::default() };
    let arrive = "\n    mbarrier.arrive.shared::cta.b64 _, [%r1]";
    let expect = "\n    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 64;";
    let zero = "    mov.b64 %rd20, 0;\n    st.shared.b64 [%r1], %rd20;";
    for (body, says) in [
        (format!("{zero}{arrive};"), "no mbarrier at"),
        ("    mbarrier.init.shared::cta.b64 [%r1+4], 1;".to_owned(), "misaligned"),
        ("    mbarrier.init.shared::cta.b64 [%r1], 0;".to_owned(), "not 0"),
        (format!("{}{arrive}, 3;", init(2)), "expects only 2"),
        (init(1) + &wait("W", "%r1", "0"), "deadlock"),
        (init(1) + expect + &wait("W", "%r1", "0"), "64 bytes"),
    ] {
        fault(&body, &setup, says);
    }
}

/// Without a space the address is a generic one.
#[test]
fn barriers_have_generic_addresses_too() {
    let body = "
    cvt.u64.u32 %rd20, %r1;
    cvta.shared.u64 %rd20, %rd20;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 mbarrier.init.b64 [%rd20], 32;
    bar.sync 0;
    mbarrier.arrive.b64 %rd21, [%rd20];
W:
    mbarrier.try_wait.b64 %p2, [%rd20], %rd21;
    @!%p2 bra W;
    mbarrier.test_wait.parity.shared::cta.b64 %p3, [%r1], 0;
    selp.b32 %r10, 1, 0, %p3;
    st.global.b32 [%rd1], %r10;";
    assert_eq!(run(body, &Setup::default()), [1]);
}
