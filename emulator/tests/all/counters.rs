//! What a report counts, against numbers worked out by hand.

use crate::common::{kernel, lanes, run_with};
use nabla_emulator::{
    Counters, Coverage, Kind, LaunchConfig, Memory, Module, Options, Param, Report, launch,
};

fn report(body: &str, threads: u32, shared: u32) -> Report {
    let options = Options::default();
    let (_, report) = run_with(&lanes(body), threads, shared, &[0; 8192], 8192, &options)
        .unwrap_or_else(|fault| panic!("{fault}"));
    report
}

fn counters(body: &str, shared: u32) -> Counters {
    report(body, 32, shared).counters
}

/// Requests, wavefronts and conflicts of one store and of one load by the same addresses; the two must agree. `%r3` holds
/// what `address` makes of the lane in `%r0`.
fn shared(address: &str, kind: &str) -> (u64, u64) {
    let registers = match kind {
        "u16" => "%rs1",
        "v2.b32" => "{%r4, %r5}",
        "v4.b32" => "{%r4, %r5, %r6, %r7}",
        "b64" => "%rd4",
        _ => "%r4",
    };
    let set = "    mov.b32 %r4, 0;\n mov.b32 %r5, 0;\n mov.b32 %r6, 0;\n mov.b32 %r7, 0;\n mov.b16 %rs1, 0;\n
    mov.b64 %rd4, 0;\n";
    let store = format!("{set}    {address}\n    st.shared.{kind} [%r3], {registers};\n");
    let load = format!("{store}    ld.shared.{kind} {registers}, [%r3];\n");
    let (one, two) = (counters(&store, 8192), counters(&load, 8192));
    assert_eq!((one.shared_requests, two.shared_requests), (1, 2));
    assert_eq!(two.shared_wavefronts, 2 * one.shared_wavefronts, "{address}");
    assert_eq!(two.shared_conflicts, 2 * one.shared_conflicts, "{address}");
    assert_eq!(two.shared_bytes, 2 * one.shared_bytes);
    (one.shared_wavefronts, one.shared_conflicts)
}

fn stride(bytes: u32) -> String {
    format!("mul.lo.u32 %r3, %r0, {bytes};")
}

#[test]
fn four_byte_accesses_conflict_by_bank() {
    // Bank = address / 4 mod 32. Neighbouring words: 32 banks.
    assert_eq!(shared(&stride(4), "b32"), (1, 0));
    // Every other word: lanes i and i + 16 share a bank.
    assert_eq!(shared(&stride(8), "b32"), (2, 1));
    // A column of rows of 128 bytes: one bank for all; padded by a word, each row starts one bank further.
    assert_eq!(shared(&stride(128), "b32"), (32, 31));
    assert_eq!(shared(&stride(132), "b32"), (1, 0));
    // All lanes want one word.
    assert_eq!(shared("mov.b32 %r3, 64;", "b32"), (1, 0));
    // Lane i wants word 32 (i mod 4): four words of one bank, each shared by eight lanes.
    assert_eq!(shared("and.b32 %r3, %r0, 3;\n shl.b32 %r3, %r3, 7;", "b32"), (4, 3));
    // Two lanes share each word.
    assert_eq!(shared(&stride(2), "u16"), (1, 0));
}

#[test]
fn wide_accesses_go_by_halves_and_quarters_of_the_warp() {
    // 32 lanes of 8 bytes are two rows of all banks, of 16 bytes four.
    assert_eq!(shared(&stride(8), "v2.b32"), (2, 0));
    assert_eq!(shared(&stride(8), "b64"), (2, 0));
    assert_eq!(shared(&stride(16), "v4.b32"), (4, 0));
    // A column of rows of 128 bytes: 16-way in each half, 8-way in each quarter.
    assert_eq!(shared(&stride(128), "b64"), (32, 30));
    assert_eq!(shared(&stride(128), "v4.b32"), (32, 28));
    // Rows of 144 bytes: each of a quarter's eight lanes starts four banks further.
    assert_eq!(shared(&stride(144), "v4.b32"), (4, 0));
    // Rows of 32 bytes: lanes i and i + 4 of a quarter share four banks.
    assert_eq!(shared(&stride(32), "v4.b32"), (8, 4));
}

#[test]
fn lanes_that_are_switched_off_cost_nothing() {
    // Of a column of 16-byte units only lanes 0 to 9 are left: quarters of 8 and 2 lanes.
    let body = "
    setp.lt.u32 %p0, %r0, 10;
    mul.lo.u32 %r3, %r0, 128;
    mov.b32 %r4, 0;
    @%p0 st.shared.v4.b32 [%r3], {%r4, %r4, %r4, %r4};";
    let got = counters(body, 8192);
    assert_eq!((got.shared_wavefronts, got.shared_conflicts, got.shared_bytes), (10, 8, 160));
}

#[test]
fn generic_addresses_count_where_they_point() {
    let body = "
    mul.wide.u32 %rd4, %r0, 128;
    cvta.shared.u64 %rd5, %rd4;
    st.b32 [%rd5], %r0;
    st.b32 [%rd3], %r0;";
    let got = counters(body, 8192);
    assert_eq!((got.shared_requests, got.shared_wavefronts, got.shared_conflicts), (1, 32, 31));
    assert_eq!((got.global_store_requests, got.global_store_sectors), (1, 4));
    assert_eq!((got.shared_bytes, got.global_store_bytes), (128, 128));
}

/// Fills 2048 bytes, 16 rows of 128, then loads four matrices: lane `i` gives row `i mod 16`, unit `i / 16` of 16 bytes, at
/// the place `unit` says.
fn matrices(unit: &str) -> Counters {
    counters(
        &format!(
            "
    mov.b32 %r4, 0;
    shl.b32 %r3, %r0, 4;
    st.shared.v4.b32 [%r3], {{%r4, %r4, %r4, %r4}};
    st.shared.v4.b32 [%r3+512], {{%r4, %r4, %r4, %r4}};
    st.shared.v4.b32 [%r3+1024], {{%r4, %r4, %r4, %r4}};
    st.shared.v4.b32 [%r3+1536], {{%r4, %r4, %r4, %r4}};
    and.b32 %r5, %r0, 15;
    shr.u32 %r6, %r0, 4;
    {unit}
    shl.b32 %r7, %r5, 7;
    shl.b32 %r8, %r6, 4;
    add.s32 %r7, %r7, %r8;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r9, %r10, %r11, %r12}}, [%r7];"
        ),
        2048,
    )
}

#[test]
fn swizzled_matrices_load_without_conflicts() {
    // The four stores take four wavefronts each, without conflicts. Rows of 128 bytes put the eight rows of a matrix on the
    // same four banks: eight wavefronts for each of four matrices.
    let plain = matrices("");
    assert_eq!((plain.ldmatrix, plain.shared_requests), (1, 5));
    assert_eq!((plain.shared_wavefronts, plain.shared_conflicts), (16 + 32, 28));
    assert_eq!(plain.shared_bytes, 2048 + 512);
    // With unit ^= row mod 8 they lie on all of them.
    let swizzled = matrices("and.b32 %r7, %r5, 7;\n    xor.b32 %r6, %r6, %r7;");
    assert_eq!((swizzled.shared_wavefronts, swizzled.shared_conflicts), (16 + 4, 0));
    // With unit ^= row mod 4 rows r and r + 4 collide.
    let half = matrices("and.b32 %r7, %r5, 3;\n    xor.b32 %r6, %r6, %r7;");
    assert_eq!((half.shared_wavefronts, half.shared_conflicts), (16 + 8, 4));
}

/// Requests and sectors of one load; `%rd4` becomes the address from the lane in `%r0` and the buffer in `%rd0`.
fn loaded(address: &str, kind: &str) -> (u64, u64) {
    let registers = if kind == "v4.b32" { "{%r4, %r5, %r6, %r7}" } else { "%r4" };
    let got = counters(&format!("    {address}\n    ld.global.{kind} {registers}, [%rd4];"), 0);
    (got.global_load_requests, got.global_load_sectors)
}

#[test]
fn global_requests_count_different_sectors() {
    let stride = |bytes: u32| format!("mad.wide.u32 %rd4, %r0, {bytes}, %rd0;");
    // 128 neighbouring bytes are four sectors of 32; the buffer is aligned to 256.
    assert_eq!(loaded(&stride(4), "b32"), (1, 4));
    // A word later they touch a fifth.
    assert_eq!(loaded(&format!("{}\n add.s64 %rd4, %rd4, 4;", stride(4)), "b32"), (1, 5));
    // 256 bytes, of which every other word is used; a sector for each lane; 512 bytes.
    assert_eq!(loaded(&stride(8), "b32"), (1, 8));
    assert_eq!(loaded(&stride(256), "b32"), (1, 32));
    assert_eq!(loaded(&stride(16), "v4.b32"), (1, 16));
    assert_eq!(loaded("mov.b64 %rd4, %rd0;", "b32"), (1, 1));
    // Descending, and lanes that come back to sectors of others: the order does not matter.
    let reversed = "sub.s32 %r3, 31, %r0;\n mad.wide.u32 %rd4, %r3, 4, %rd0;";
    assert_eq!(loaded(reversed, "b32"), (1, 4));
    let alternating = "and.b32 %r3, %r0, 1;\n mad.wide.u32 %rd4, %r3, 512, %rd0;";
    assert_eq!(loaded(alternating, "b32"), (1, 2));
}

#[test]
fn stores_and_atomics_count_apart_from_loads() {
    let got = counters("    st.global.b32 [%rd3], %r0;\n    red.global.add.u32 [%rd1], 1;", 0);
    assert_eq!((got.global_store_requests, got.global_store_sectors, got.global_store_bytes), (2, 5, 256));
    assert_eq!((got.global_load_requests, got.global_load_sectors, got.global_load_bytes), (0, 0, 0));
}

#[test]
fn asynchronous_copies_count_on_both_sides() {
    // 512 bytes of 16 sectors go to a column of rows of 128 bytes: 8-way in each quarter.
    let copy = |address: &str| {
        counters(
            &format!("    mad.wide.u32 %rd4, %r0, 16, %rd0;\n    {address}\n    cp.async.wait_all;"),
            8192,
        )
    };
    let got = copy("shl.b32 %r3, %r0, 7;\n    cp.async.cg.shared.global [%r3], [%rd4], 16;");
    assert_eq!((got.global_load_requests, got.global_load_sectors, got.global_load_bytes), (1, 16, 512));
    assert_eq!((got.shared_wavefronts, got.shared_conflicts, got.shared_bytes), (32, 28, 512));
    // Lanes 0 to 7 alone read, 128 bytes; all lanes write, zeros where nothing was read.
    let got = copy(
        "shl.b32 %r3, %r0, 4;\n    setp.lt.u32 %p0, %r0, 8;\n    selp.b32 %r4, 16, 0, %p0;
    cp.async.cg.shared.global [%r3], [%rd4], 16, %r4;",
    );
    assert_eq!((got.global_load_requests, got.global_load_sectors, got.global_load_bytes), (1, 4, 128));
    assert_eq!((got.shared_wavefronts, got.shared_conflicts, got.shared_bytes), (4, 0, 512));
}

#[test]
fn barriers_count_arrivals_and_waits() {
    // Two warps meet at barrier 0; at barrier 1 the first only arrives.
    let body = "
    bar.sync 0;
    setp.lt.u32 %p0, %r0, 32;
    @%p0 bra FIRST;
    bar.sync 1, 64;
    bra DONE;
FIRST:
    bar.arrive 1, 64;
DONE:";
    let got = report(body, 64, 0).counters;
    assert_eq!((got.barriers, got.barrier_waits), (4, 3));
}

const MIXED: &str = "
    setp.lt.u32 %p0, %r0, 32;
    cvt.rn.f32.u32 %r3, %r0;
    add.f32 %r3, %r3, %r3;
    ex2.approx.ftz.f32 %r4, %r3;
    rcp.approx.ftz.f32 %r4, %r4;
    mov.b32 %r5, 0;
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
        {%r6, %r7, %r8, %r9}, {%r5, %r5, %r5, %r5}, {%r5, %r5}, {%r5, %r5, %r5, %r5};
    @%p0 bra END;
    st.global.b32 [%rd3], %r4; ret;
    trap;
END:";

#[test]
fn a_report_has_one_order_and_every_number() {
    let report = report(MIXED, 64, 0);
    // Two warps execute everything up to the branch, the second one goes on to the store.
    assert_eq!((report.ex2, report.mma_operations, report.counters.mma), (2, 2 * 2 * 16 * 8 * 16, 2));
    assert_eq!(report.by_kind[&Kind::Special], 4);
    assert_eq!(report.by_kind[&Kind::Global], 1);
    // The first warp's `bra`, which is switched off in the second, and a `ret` of each.
    assert_eq!(report.by_kind[&Kind::Branch], 3);
    assert_eq!(report.by_kind.values().sum::<u64>(), report.warp_instructions);
    let rows = report.rows();
    assert_eq!(rows.iter().find(|row| row.0 == "kind_float64"), Some(&("kind_float64".to_owned(), 0)));
    insta::assert_snapshot!(report);
}

#[test]
fn coverage_names_the_lines_nobody_reached() {
    let text = lanes(MIXED);
    let report = report(MIXED, 64, 0);
    let module = Module::parse("test.ptx", &text).expect("parsed before");
    // 5 lines before the body, 10 in it with `trap`, the `ret` behind it; the store and its `ret` share one line.
    assert_eq!(report.coverage(), Coverage { executed: 15, lines: 16 });
    let at = text.lines().position(|line| line.contains("trap")).expect("in the text") as u32 + 1;
    assert_eq!(report.never_executed(&module), [(at, "trap;")]);
}

#[test]
fn reports_do_not_depend_on_the_number_of_threads() {
    // Each CTA counts to its number, so that CTAs differ in what they execute.
    let body = "
    mov.u32 %r3, %ctaid.x;
    shl.b32 %r4, %r0, 7;
LOOP:
    st.shared.b32 [%r4], %r3;
    sub.s32 %r3, %r3, 1;
    setp.ge.s32 %p0, %r3, 0;
    @%p0 bra LOOP;
    bar.sync 0;";
    let module =
        Module::parse("test.ptx", &kernel(&format!("    mov.u32 %r0, %tid.x;\n{body}"))).expect("valid");
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let mut memory = Memory::new();
        let params = [Param::Ptr(memory.alloc(4)), Param::Ptr(memory.alloc(4))];
        let config =
            LaunchConfig { grid: [50, 1, 1], block: [64, 1, 1], dynamic_shared_bytes: 8192, cluster: [1; 3] };
        pool.install(|| launch(&module, "k", config, &params, &mut memory).unwrap_or_else(|f| panic!("{f}")))
    };
    let (one, five) = (run(1), run(5));
    assert_eq!(one, five);
    assert_eq!(one.to_string(), five.to_string());
    // 1 + 2 + ... + 50 stores of two warps.
    assert_eq!(one.counters.shared_requests, 2550);
    assert_eq!(one.counters.shared_conflicts, 2550 * 31);
}
