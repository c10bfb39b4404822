//! Planted bugs, and what the report of each says.

use crate::common::{fault, lanes, run_with};
use nabla_emulator::{LaunchConfig, Memory, Module, Options, Param, launch};

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[test]
fn out_of_bounds_names_kernel_line_and_thread() {
    let text = fault("    ld.global.b32 %r1, [%rd2+4];", 32, 0);
    says(&text, &["kernel `k`", "out-of-bounds", "128 bytes into allocation 0, which has 128"]);
    says(&text, &["test.ptx:17", "ld.global.b32 %r1, [%rd2+4];", "warp 0, thread (31, 0, 0)"]);
    says(
        &fault("    mov.b32 %r1, 4096;\n    ld.shared.b32 %r2, [%r1];", 32, 64),
        &["shared", "there are 64 bytes"],
    );
    says(&fault("    mov.b64 %rd5, 0;\n    ld.global.b32 %r2, [%rd5];", 32, 0), &["below every allocation"]);
}

#[test]
fn misaligned_accesses_fault() {
    says(&fault("    ld.global.b64 %rd5, [%rd2+4];", 32, 0), &["misaligned", "thread (0, 0, 0)"]);
    says(
        &fault("    ld.global.v4.b32 {%r1,%r2,%r3,%r4}, [%rd1+8];", 32, 0),
        &["misaligned", "16 bytes need"],
    );
    says(&fault("    mov.b32 %r1, 2;\n    st.shared.b32 [%r1], %r0;", 32, 64), &["misaligned", "shared"]);
}

#[test]
fn uninitialised_reads_fault() {
    says(
        &fault("    add.s32 %r1, %r40, 1;", 32, 0),
        &["register that was never written", "add.s32 %r1, %r40, 1;"],
    );
    says(
        &fault("    mov.b32 %r1, 8;\n    ld.shared.b32 %r2, [%r1];", 32, 64),
        &["never written", "shared address 0x8"],
    );
    let half = "    setp.lt.u32 %p0, %r0, 16;\n    @%p0 mov.b32 %r1, 3;\n    st.global.b32 [%rd3], %r1;";
    says(&fault(half, 32, 0), &["never written on this path", "thread (16, 0, 0)"]);
}

#[test]
fn unwritten_global_memory_faults_unless_allowed() {
    let module = Module::parse("test.ptx", &lanes("    ld.global.b32 %r1, [%rd3];")).unwrap();
    let mut memory = Memory::new();
    let (a, b) = (memory.alloc_from(&[0; 128]), memory.alloc(128));
    let config = LaunchConfig { block: [32, 1, 1], ..LaunchConfig::default() };
    let params = [Param::Ptr(a), Param::Ptr(b)];
    let fault = launch(&module, "k", config, &params, &mut memory).unwrap_err().to_string();
    says(&fault, &["never written", "global address"]);
    let options = Options { allow_uninitialised: true, ..Options::default() };
    nabla_emulator::launch_with(&module, "k", config, &params, &mut memory, &options).unwrap();
    assert_eq!(memory.unwritten(b, 128).unwrap(), 128);
}

#[test]
fn a_missing_wait_shows() {
    let body = |wait: &str| {
        format!(
            "
    mov.u32 %r10, 0;
    mad.lo.s32 %r11, %r0, 4, %r10;
    cp.async.ca.shared.global [%r11], [%rd2], 4;
    cp.async.commit_group;
    {wait}
    ld.shared.b32 %r1, [%r11];
    st.global.b32 [%rd3], %r1;"
        )
    };
    let input: Vec<u32> = (0..32).collect();
    let clean = run_with(&lanes(&body("cp.async.wait_group 0;")), 32, 128, &input, 32, &Options::default());
    assert_eq!(clean.unwrap().0, input);
    for wrong in ["", "cp.async.wait_group 1;"] {
        says(
            &fault(&body(wrong), 32, 128),
            &["read of 4 bytes", "while a cp.async to them is in flight", "ld.shared.b32"],
        );
    }
    let overwrite = "    mov.u32 %r10, 0;\n    cp.async.ca.shared.global [%r10], [%rd2], 4;\n    st.shared.b32 [%r10], 1;";
    says(&fault(overwrite, 1, 128), &["write to 4 bytes", "in flight"]);
}

#[test]
fn a_barrier_that_never_opens_names_every_warp() {
    let body = "
    setp.lt.u32 %p0, %r0, 32;
    @%p0 bra ONE;
    bar.sync 1;
    bra DONE;
ONE:
    bar.sync 2;
DONE:";
    let text = fault(body, 96, 0);
    says(
        &text,
        &[
            "deadlock: no warp can go on",
            "warp 0, lanes 0xffffffff, waits at barrier 2 for all living threads",
        ],
    );
    says(
        &text,
        &[
            "warp 1, lanes 0xffffffff, waits at barrier 1",
            "64 arrived",
            "warp 2",
            "bar.sync 1;",
            "bar.sync 2;",
        ],
    );
}

#[test]
fn barriers_count_their_threads() {
    says(&fault("    bar.sync 0, 48;", 64, 0), &["48 threads", "multiple of 32"]);
    says(&fault("    mov.b32 %r1, 16;\n    bar.sync %r1;", 64, 0), &["barrier 16 does not exist"]);
    let mixed =
        "    setp.lt.u32 %p0, %r0, 32;\n    @%p0 bra A;\n    bar.sync 1, 64;\nA:\n    bar.sync 1, 96;";
    says(&fault(mixed, 96, 0), &["barrier 1 was entered for 96 threads and now for 64 threads"]);
}

#[test]
fn warps_that_exited_do_not_hold_a_barrier() {
    let text =
        lanes("    setp.ge.u32 %p0, %r0, 32;\n    @%p0 exit;\n    bar.sync 0;\n    st.global.b32 [%rd3], 1;");
    let (out, _) = run_with(&text, 64, 0, &[0; 64], 64, &Options::default()).unwrap();
    assert_eq!(out[31..33], [1, 0]);
}

#[test]
fn divergence_at_a_synchronous_operation_shows_each_path() {
    let body = "
    setp.lt.u32 %p0, %r0, 16;
    @%p0 bra A;
    bar.sync 0;
    bra DONE;
A:
    shfl.sync.bfly.b32 %r1, %r0, 1, 0x1f, -1;
DONE:";
    let text = fault(body, 32, 0);
    says(&text, &["diverged", "lanes 0xffff0000", "bar.sync 0;", "lanes 0x0000ffff", "shfl.sync.bfly"]);
    let foreign = "    shfl.sync.bfly.b32 %r1, %r0, 1, 0x1f, 0xffff;";
    says(&fault(foreign, 32, 0), &["member mask 0x0000ffff, which does not name it", "thread (16, 0, 0)"]);
}

#[test]
fn traps_calls_and_endless_loops_end() {
    says(&fault("    trap;", 32, 0), &["trap executed"]);
    says(&fault("    call.uni panic_fmt, (%rd0);", 32, 0), &["calls `panic_fmt`"]);
    let options = Options { instruction_budget: 100_000, ..Options::default() };
    let fault = run_with(&lanes("L:\n    bra L;"), 32, 0, &[0; 32], 32, &options).unwrap_err();
    says(&fault.to_string(), &["more than 100000 warp-instructions"]);
}

#[test]
fn launches_that_do_not_suit_the_kernel_are_refused() {
    let text = lanes("").replace(".param .u64 out)", ".param .u64 out)\n.maxntid 64,1,1");
    let module = Module::parse("test.ptx", &text).unwrap();
    let mut memory = Memory::new();
    let ptr = Param::Ptr(memory.alloc(4));
    let config = LaunchConfig { block: [32, 1, 1], ..LaunchConfig::default() };
    let mut refused = |entry: &str, config: LaunchConfig, params: &[Param]| {
        launch(&module, entry, config, params, &mut memory).unwrap_err().to_string()
    };
    let both = [ptr.clone(), ptr.clone()];
    says(&refused("other", config, &both), &["no kernel of this name", "\"k\""]);
    says(&refused("k", config, &both[..1]), &["takes 2 parameters, not 1"]);
    says(&refused("k", config, &[ptr, Param::U32(1)]), &["parameter 1, `out`, has 8 bytes"]);
    says(
        &refused("k", LaunchConfig { block: [128, 1, 1], ..config }, &both),
        &["allows 64 threads (.maxntid), not 128"],
    );
    says(
        &refused("k", LaunchConfig { dynamic_shared_bytes: 200_000, ..config }, &both),
        &["166912 of sm_80"],
    );
    says(&refused("k", LaunchConfig { grid: [1, 0, 1], ..config }, &both), &["grid"]);
}

#[test]
fn debug_information_leads_to_the_source_line() {
    let body = "    .loc 1 42 7\n    trap;";
    let text = lanes(body).replace(".visible", ".file 1 \"src/kernel.rs\"\n.visible");
    let fault = run_with(&text, 1, 0, &[0], 1, &Options::default()).unwrap_err();
    says(&fault.to_string(), &["from src/kernel.rs:42"]);
}
