//! Planted data races, each reported with both places, and their repaired twins, which are clean under every schedule.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod grid;

use crate::common::{bytes, lanes};
use nabla_emulator::{
    Completion, Fault, FaultKind, LaunchConfig, Memory, MemorySpace, Module, Options, Param, launch_with,
};

/// Seeds a verdict is tried with, besides the plain order.
const SEEDS: u64 = 100;

/// A launch: `ctas` of `threads`, 1024 bytes of shared memory, an input of ramps and an output of zeros.
struct Case {
    body: String,
    ctas: u32,
    threads: u32,
}

impl Case {
    fn run(&self, options: &Options) -> Result<(), Box<Fault>> {
        let module = Module::parse("test.ptx", &lanes(&self.body)).unwrap_or_else(|error| panic!("{error}"));
        let mut memory = Memory::new();
        let input: Vec<u32> = (0..1024).collect();
        let params = [memory.alloc_from(&bytes(&input)), memory.alloc_from(&[0; 4096])].map(Param::Ptr);
        let block = [self.threads, 1, 1];
        let config =
            LaunchConfig { grid: [self.ctas, 1, 1], block, dynamic_shared_bytes: 1024, cluster: [1; 3] };
        launch_with(&module, "k", config, &params, &mut memory, options).map(|_| ()).map_err(Box::new)
    }

    fn outcomes(&self) -> impl Iterator<Item = (Options, Result<(), Box<Fault>>)> {
        let seeds = std::iter::once(None).chain((0..SEEDS).map(Some));
        let options = seeds.flat_map(|schedule_seed| {
            [Completion::Late, Completion::Eager].map(|completion| Options {
                completion,
                races: true,
                schedule_seed,
                ..Options::default()
            })
        });
        options.map(|options| (options, self.run(&options)))
    }

    #[track_caller]
    fn is_clean(&self) {
        for (options, outcome) in self.outcomes() {
            if let Err(fault) = outcome {
                panic!("{options:?}: {fault}");
            }
        }
    }

    /// Every schedule must report a race between these two lines, in either order, with this advice.
    #[track_caller]
    fn races(&self, space: MemorySpace, lines: [&str; 2], advice: &str) {
        for (options, outcome) in self.outcomes() {
            let fault = outcome.expect_err("a race was planted");
            let text = fault.to_string();
            let FaultKind::Race(race) = &fault.kind else { panic!("{options:?}: {text}") };
            let now = fault.place.as_ref().unwrap().text.as_str();
            let earlier = race.earlier.place.as_ref().unwrap().text.as_str();
            assert!([[now, earlier], [earlier, now]].contains(&lines), "{options:?}: {text}");
            assert_eq!(race.space, space, "{text}");
            for part in [now, earlier, advice, "kernel `k`", "in CTA (", ", warp ", "test.ptx:"] {
                assert!(text.contains(part), "no `{part}` in {text}");
            }
        }
    }

    #[track_caller]
    fn shares_badly(&self, lines: [&str; 2], advice: &str) {
        self.races(MemorySpace::Shared, lines, advice);
    }
}

fn case(threads: u32, body: impl Into<String>) -> Case {
    Case { body: body.into(), ctas: 1, threads }
}

fn grid(ctas: u32, threads: u32, body: impl Into<String>) -> Case {
    Case { body: body.into(), ctas, threads }
}

/// `%r1` is the thread's word, `%r2` the word of its neighbour in the other of two warps.
const NEIGHBOURS: &str = "
    shl.b32 %r1, %r0, 2;
    xor.b32 %r2, %r1, 128;";

/// Sets `%p0` in the first warp.
const FIRST_WARP: &str = "
    setp.lt.u32 %p0, %r0, 32;";

/// Sets `%p1` in the first lane of each warp.
const FIRST_LANE: &str = "
    and.b32 %r9, %r0, 31;
    setp.eq.u32 %p1, %r9, 0;";

fn store_then_load(barrier: &str) -> Case {
    // Written once before, so that an early read is of stale and not of unwritten bytes.
    let zero = "    st.shared.b32 [%r1], 0;\n    bar.sync 0;";
    case(
        64,
        format!(
            "{NEIGHBOURS}\n{zero}
    st.shared.b32 [%r1], %r0;
    {barrier}
    ld.shared.b32 %r3, [%r2];"
        ),
    )
}

#[test]
fn a_load_behind_a_store_of_another_warp_needs_a_barrier() {
    store_then_load("bar.sync 0;").is_clean();
    store_then_load("barrier.cta.sync 3, 64;").is_clean();
    let lines = ["ld.shared.b32 %r3, [%r2];", "st.shared.b32 [%r1], %r0;"];
    store_then_load("").shares_badly(lines, "a barrier (bar.sync)");
    store_then_load("bar.warp.sync 0xffffffff;").shares_badly(lines, "a barrier (bar.sync)");
    store_then_load("membar.cta;").shares_badly(lines, "a barrier (bar.sync)");
}

#[test]
fn a_store_behind_a_load_of_another_warp_needs_a_barrier() {
    let body = |barrier: &str| {
        case(
            64,
            format!(
                "{NEIGHBOURS}
    st.shared.b32 [%r1], %r0;
    bar.sync 0;
    ld.shared.b32 %r3, [%r2];
    {barrier}
    st.shared.b32 [%r1], 7;"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").shares_badly(["ld.shared.b32 %r3, [%r2];", "st.shared.b32 [%r1], 7;"], "a barrier");
}

#[test]
fn two_stores_of_different_warps_need_a_barrier() {
    let body = |barrier: &str| {
        case(
            64,
            format!(
                "{FIRST_WARP}\n    and.b32 %r4, %r0, 31;\n    shl.b32 %r4, %r4, 2;\n    @%p0 st.shared.b32 [%r4], 1;\n    {barrier}\n    @!%p0 st.shared.b32 [%r4], 2;"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").shares_badly(["@%p0 st.shared.b32 [%r4], 1;", "@!%p0 st.shared.b32 [%r4], 2;"], "a barrier");
}

#[test]
fn a_loop_needs_its_second_barrier() {
    let body = |second: &str| {
        case(
            128,
            format!(
                "
    shl.b32 %r1, %r0, 2;
    xor.b32 %r2, %r1, 384;
    mov.b32 %r5, 0;
LOOP:
    st.shared.b32 [%r1], %r5;
    bar.sync 0;
    ld.shared.b32 %r3, [%r2];
    {second}
    add.s32 %r5, %r5, 1;
    setp.lt.u32 %p0, %r5, 4;
    @%p0 bra LOOP;"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").shares_badly(["ld.shared.b32 %r3, [%r2];", "st.shared.b32 [%r1], %r5;"], "a barrier");
}

/// With two buffers one barrier for each step is enough, with none between the steps it is not.
#[test]
fn a_double_buffered_loop_needs_one_barrier_a_step() {
    let body = |barrier: &str| {
        case(
            64,
            format!(
                "{NEIGHBOURS}
    st.shared.b32 [%r1], 0;
    st.shared.b32 [%r1+256], 0;
    bar.sync 0;
    mov.b32 %r5, 0;
LOOP:
    st.shared.b32 [%r1], %r5;
    {barrier}
    ld.shared.b32 %r3, [%r2];
    xor.b32 %r1, %r1, 256;
    xor.b32 %r2, %r2, 256;
    add.s32 %r5, %r5, 1;
    setp.lt.u32 %p0, %r5, 6;
    @%p0 bra LOOP;"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").shares_badly(["ld.shared.b32 %r3, [%r2];", "st.shared.b32 [%r1], %r5;"], "a barrier");
}

#[test]
fn a_barrier_of_another_name_orders_nothing() {
    // The first warp stores and arrives; the second waits, at the right or the wrong barrier; the third serves both.
    let body = |wait: u32| {
        case(
            96,
            format!(
                "{FIRST_WARP}
    and.b32 %r4, %r0, 31;
    shl.b32 %r4, %r4, 2;
    @%p0 bra STORE;
    setp.lt.u32 %p2, %r0, 64;
    @%p2 bra LOAD;
    bar.arrive 2, 64;
    bra DONE;
STORE:
    st.shared.b32 [%r4], 1;
    bar.sync 3, 64;
    bar.arrive 1, 64;
    bra DONE;
LOAD:
    bar.arrive 3, 64;
    bar.sync {wait}, 64;
    ld.shared.b32 %r3, [%r4];
DONE:"
            ),
        )
    };
    body(1).is_clean();
    for (_, outcome) in body(2).outcomes() {
        // A schedule in which the load is first finds unwritten memory instead.
        let fault = outcome.expect_err("the wrong barrier");
        match &fault.kind {
            FaultKind::Race(race) => {
                assert_eq!(race.earlier.place.as_ref().unwrap().text, "st.shared.b32 [%r4], 1;")
            }
            FaultKind::UninitialisedMemory { .. } => {}
            _ => panic!("{fault}"),
        }
        assert_eq!(fault.place.unwrap().text, "ld.shared.b32 %r3, [%r4];");
    }
}

/// `bar.arrive` hands over what its warp did, but does not wait for the others.
#[test]
fn arriving_gives_and_does_not_take() {
    let body = |first: &str| {
        case(
            64,
            format!(
                "{NEIGHBOURS}{FIRST_WARP}
    st.shared.b32 [%r1], 0;
    bar.sync 0;
    st.shared.b32 [%r1], 5;
    @%p0 bra FIRST;
    bar.sync 1, 64;
    ld.shared.b32 %r3, [%r2];
    bra DONE;
FIRST:
    {first}
DONE:"
            ),
        )
    };
    body("bar.arrive 1, 64;").is_clean();
    body("bar.arrive 1, 64;\n    ld.shared.b32 %r4, [%r2];")
        .shares_badly(["ld.shared.b32 %r4, [%r2];", "st.shared.b32 [%r1], 5;"], "a barrier");
}

fn copy_then_load(wait: &str, barrier: &str, from: &str) -> Case {
    case(
        64,
        format!(
            "{NEIGHBOURS}
    st.shared.b32 [%r1], 0;
    bar.sync 0;
    cp.async.ca.shared.global [%r1], [%rd2], 4;
    cp.async.commit_group;
    {wait}
    {barrier}
    ld.shared.b32 %r3, [{from}];"
        ),
    )
}

#[test]
fn a_copy_needs_its_wait_and_then_a_barrier() {
    copy_then_load("cp.async.wait_group 0;", "bar.sync 0;", "%r2").is_clean();
    copy_then_load("cp.async.wait_all;", "", "%r1").is_clean();
    let copy = "cp.async.ca.shared.global [%r1], [%rd2], 4;";
    let other = ["ld.shared.b32 %r3, [%r2];", copy];
    copy_then_load("cp.async.wait_group 0;", "", "%r2").shares_badly(other, "a barrier (bar.sync)");
    copy_then_load("", "bar.sync 0;", "%r2").shares_badly(other, "behind a cp.async.wait_group in that warp");
    copy_then_load("cp.async.wait_group 1;", "bar.sync 0;", "%r2")
        .shares_badly(other, "behind a cp.async.wait_group in that warp");
    copy_then_load("", "", "%r1")
        .shares_badly(["ld.shared.b32 %r3, [%r1];", copy], "cp.async has not been waited for");
}

#[test]
fn a_wait_covers_the_groups_below_its_count() {
    let body = |count: u32, read: &str| {
        case(
            64,
            format!(
                "{NEIGHBOURS}
    cp.async.ca.shared.global [%r1], [%rd2], 4;
    cp.async.commit_group;
    cp.async.ca.shared.global [%r1+256], [%rd2], 4;
    cp.async.commit_group;
    cp.async.wait_group {count};
    bar.sync 0;
    ld.shared.b32 %r3, [{read}];"
            ),
        )
    };
    body(1, "%r2").is_clean();
    body(0, "%r2+256").is_clean();
    body(1, "%r2+256").shares_badly(
        ["ld.shared.b32 %r3, [%r2+256];", "cp.async.ca.shared.global [%r1+256], [%rd2], 4;"],
        "wait",
    );
}

#[test]
fn a_copy_over_what_others_still_read_is_a_race() {
    let body = |barrier: &str| {
        case(
            64,
            format!(
                "{NEIGHBOURS}
    st.shared.b32 [%r1], 0;
    bar.sync 0;
    ld.shared.b32 %r3, [%r2];
    {barrier}
    cp.async.ca.shared.global [%r1], [%rd2], 4;
    cp.async.wait_all;"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").shares_badly(
        ["cp.async.ca.shared.global [%r1], [%rd2], 4;", "ld.shared.b32 %r3, [%r2];"],
        "a barrier",
    );
}

#[test]
fn a_copy_reads_its_source_until_it_is_waited_for() {
    let body = |wait: &str| {
        case(
            32,
            format!(
                "
    shl.b32 %r1, %r0, 2;
    cp.async.ca.shared.global [%r1], [%rd2], 4;
    {wait}
    st.global.b32 [%rd2], 1;"
            ),
        )
    };
    body("cp.async.wait_all;").is_clean();
    body("").races(
        MemorySpace::Global,
        ["cp.async.ca.shared.global [%r1], [%rd2], 4;", "st.global.b32 [%rd2], 1;"],
        "cp.async has not been waited for",
    );
}

#[test]
fn matrix_loads_are_reads() {
    let body = |barrier: &str| {
        case(
            64,
            format!(
                "{NEIGHBOURS}
    st.shared.b32 [%r1], 0;
    bar.sync 0;
    st.shared.b32 [%r1], %r0;
    {barrier}
    and.b32 %r4, %r0, 15;
    shl.b32 %r4, %r4, 4;
    ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r5,%r6}}, [%r4];"
            ),
        )
    };
    body("bar.sync 0;").is_clean();
    body("").shares_badly(
        ["ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r5,%r6}, [%r4];", "st.shared.b32 [%r1], %r0;"],
        "a barrier",
    );
}

/// Two warps write neighbouring bytes, halves and words, and each reads its own again.
#[test]
fn neighbours_in_a_word_are_no_race() {
    for (width, scale) in [("b8", 1), ("b16", 2), ("b32", 4)] {
        let body = format!(
            "
    and.b32 %r4, %r0, 31;
    shr.u32 %r5, %r0, 5;
    shl.b32 %r4, %r4, 1;
    add.s32 %r4, %r4, %r5;
    mul.lo.s32 %r4, %r4, {scale};
    cvt.u64.u32 %rd4, %r4;
    add.s64 %rd5, %rd1, %rd4;
    mov.b16 %rs0, 3;
    mov.b32 %r6, 3;
    st.shared.{width} [%r4], {value};
    ld.shared.{width} {value}, [%r4];
    st.global.{width} [%rd5], {value};
    ld.global.{width} {value}, [%rd5];",
            value = if scale == 4 { "%r6" } else { "%rs0" }
        );
        case(64, body).is_clean();
        let across = "
    mov.u32 %r7, %ctaid.x;
    shl.b32 %r4, %r0, 1;
    add.s32 %r4, %r4, %r7;
    cvt.u64.u32 %rd4, %r4;
    add.s64 %rd5, %rd1, %rd4;
    mov.b16 %rs0, 3;
    st.global.b8 [%rd5], %rs0;
    ld.global.b8 %rs1, [%rd5];";
        grid(2, 64, across).is_clean();
    }
}

#[test]
fn lanes_of_a_store_must_agree() {
    let text = |value: &str, space: &str, at: &str| {
        let case = case(32, format!("    mov.b32 %r4, 16;\n    st.{space}.b32 [{at}], {value};"));
        case.run(&Options { races: true, ..Options::default() }).map_err(|fault| fault.to_string())
    };
    assert_eq!(text("7", "shared", "%r4"), Ok(()));
    assert_eq!(text("7", "global", "%rd1"), Ok(()));
    for (space, at) in [("shared", "%r4"), ("global", "%rd1")] {
        let said = text("%r0", space, at).unwrap_err();
        assert!(said.contains("lanes 0 and 1 of one store write different values"), "{said}");
        assert!(said.contains(&format!("{space} address")) && said.contains("let one lane store"), "{said}");
    }
}

#[test]
fn atomics_on_shared_memory_are_clean_among_themselves() {
    let body = |read: &str| {
        case(
            64,
            format!(
                "{FIRST_WARP}
    mov.b32 %r4, 0;
    @%p0 st.shared.b32 [%r4], 0;
    bar.sync 0;
    atom.shared.add.u32 %r5, [%r4], 1;
    red.shared.max.u32 [%r4], %r0;
    {read} %r6, [%r4];"
            ),
        )
    };
    body("bar.sync 0;\n    ld.shared.b32").is_clean();
    body("ld.volatile.shared.b32").is_clean();
    body("ld.relaxed.cta.shared.b32").is_clean();
    for (options, outcome) in body("ld.shared.b32").outcomes() {
        let fault = outcome.expect_err("a plain read");
        assert!(matches!(fault.kind, FaultKind::Race(_)), "{options:?}: {fault}");
        assert!(fault.to_string().contains("ld.shared.b32 %r6, [%r4];"), "{fault}");
    }
}

/// The first warp leaves data and raises a flag, the second spins on the flag and reads the data.
fn flag(raise: &str, wait: &str, seen: &str) -> Case {
    case(
        64,
        format!(
            "{FIRST_WARP}{FIRST_LANE}
    and.b32 %r4, %r0, 31;
    shl.b32 %r4, %r4, 2;
    mov.b32 %r7, 512;
    @%p0 st.shared.b32 [%r4], 0;
    @%p0 st.shared.b32 [%r7], 0;
    bar.sync 0;
    @!%p0 bra WAIT;
    st.shared.b32 [%r4], %r0;
    bar.warp.sync 0xffffffff;
    {raise}
    bra DONE;
WAIT:
    {wait} %r5, [%r7];
    setp.eq.u32 %p2, %r5, 0;
    @%p2 bra WAIT;
    {seen}
    ld.shared.b32 %r6, [%r4];
DONE:"
        ),
    )
}

#[test]
fn flags_in_shared_memory_order_what_they_guard() {
    let release = "@%p1 st.release.cta.shared.b32 [%r7], 1;";
    let acquire = "ld.acquire.cta.shared.b32";
    let fenced = |store: &str| format!("membar.cta;\n    @%p1 {store} [%r7], 1;");
    flag(release, acquire, "").is_clean();
    flag(&fenced("st.volatile.shared.b32"), "ld.volatile.shared.b32", "membar.cta;").is_clean();
    flag(&fenced("st.relaxed.cta.shared.b32"), "ld.relaxed.cta.shared.b32", "fence.acq_rel.cta;").is_clean();
    flag(&fenced("red.shared.add.u32"), acquire, "").is_clean();
    flag("@%p1 atom.release.cta.shared.exch.b32 %r8, [%r7], 1;", acquire, "").is_clean();
    let lines = ["ld.shared.b32 %r6, [%r4];", "st.shared.b32 [%r4], %r0;"];
    // The releasing or the acquiring half is missing.
    flag("@%p1 st.volatile.shared.b32 [%r7], 1;", acquire, "").shares_badly(lines, "a barrier");
    flag(release, "ld.volatile.shared.b32", "").shares_badly(lines, "a barrier");
}

#[test]
fn without_the_option_nothing_is_looked_for() {
    assert_eq!(store_then_load("").run(&Options::default()), Ok(()));
}

#[test]
fn two_groups_of_warps_that_share_a_named_barrier_may_meet_at_it() {
    // Warps 0 and 1 meet twice, warps 2 and 3 once; all at a barrier for 64 threads.
    let groups = |first: u32, second: u32, between: &str| {
        case(
            128,
            format!(
                "
    setp.lt.u32 %p0, %r0, 64;
    @!%p0 bra $second;
    bar.sync {first}, 64;
    bar.sync {first}, 64;
    {between}
    bra.uni $end;
$second:
    {between}
    bar.sync {second}, 64;
$end:"
            ),
        )
    };
    groups(1, 2, "").is_clean();
    groups(1, 1, "bar.sync 0;").is_clean();
    for (options, outcome) in groups(1, 1, "").outcomes() {
        let fault = outcome.expect_err("nothing keeps the groups apart").to_string();
        assert!(
            fault.contains("nothing orders this warp behind the last time that barrier 1 opened"),
            "{options:?}: {fault}"
        );
    }
}
