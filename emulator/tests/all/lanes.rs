//! Instructions in which lanes and warps act together, and memory instructions.

use crate::common::{kernel, lanes, run_with, warp};
use nabla_emulator::{Completion, Options};

fn each<T>(f: impl Fn(u32) -> T) -> [T; 32] {
    std::array::from_fn(|lane| f(lane as u32))
}

#[test]
fn shuffles_follow_segments_and_bounds() {
    let input = each(|lane| lane * 10);
    let shuffle = |text: &str| warp(&format!("    shfl.sync.{text}, 0xffffffff;"), input);
    assert_eq!(shuffle("bfly.b32 %r2, %r1, 1, 0x1f"), each(|lane| (lane ^ 1) * 10));
    assert_eq!(shuffle("up.b32 %r2, %r1, 3, 0"), each(|lane| if lane < 3 { lane } else { lane - 3 } * 10));
    assert_eq!(
        shuffle("down.b32 %r2, %r1, 3, 0x1f"),
        each(|lane| if lane > 28 { lane } else { lane + 3 } * 10)
    );
    assert_eq!(shuffle("idx.b32 %r2, %r1, 5, 0x1f"), [50; 32]);
    // Segments of eight lanes: bits 8 to 12 hold 32 - 8.
    assert_eq!(shuffle("idx.b32 %r2, %r1, 5, 0x181f"), each(|lane| (lane / 8 * 8 + 5) * 10));
    assert_eq!(
        shuffle("down.b32 %r2, %r1, 6, 0x181f"),
        each(|lane| if lane % 8 > 1 { lane } else { lane + 6 } * 10)
    );
    let valid = "    shfl.sync.down.b32 %r3|%p0, %r1, 1, 0x1f, 0xffffffff;\n    selp.b32 %r2, 1, 0, %p0;";
    assert_eq!(warp(valid, input), each(|lane| u32::from(lane < 31)));
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "    and.b32 %r3, %r1, 1;\n    setp.ne.b32 %p0, %r3, 0;\n";
    let run = |text: &str| warp(&format!("{odd}    {text}"), each(|lane| lane));
    assert_eq!(run("vote.sync.ballot.b32 %r2, %p0, -1;"), [0xaaaa_aaaa; 32]);
    assert_eq!(run("vote.sync.ballot.b32 %r2, !%p0, -1;"), [0x5555_5555; 32]);
    assert_eq!(run("vote.sync.any.pred %p1, %p0, -1;\n selp.b32 %r2, 1, 0, %p1;"), [1; 32]);
    assert_eq!(run("vote.sync.all.pred %p1, %p0, -1;\n selp.b32 %r2, 1, 0, %p1;"), [0; 32]);
    assert_eq!(
        run("shr.u32 %r4, %r1, 2;\n match.any.sync.b32 %r2, %r4, -1;"),
        each(|lane| 0xf << (lane / 4 * 4))
    );
    assert_eq!(run("match.all.sync.b32 %r2|%p2, %r3, -1;"), [0; 32]);
    assert_eq!(run("redux.sync.add.u32 %r2, %r1, -1;"), [31 * 16; 32]);
    assert_eq!(run("redux.sync.max.s32 %r2, %r1, -1;"), [31; 32]);
    assert_eq!(
        run("mov.u32 %r2, 0;\n @%p0 activemask.b32 %r2;"),
        each(|l| if l & 1 == 1 { 0xaaaa_aaaa } else { 0 })
    );
}

#[test]
fn special_registers() {
    assert_eq!(warp("    mov.u32 %r2, %laneid;", [0; 32]), each(|lane| lane));
    assert_eq!(warp("    mov.u32 %r2, %lanemask_lt;", [0; 32]), each(|lane| (1 << lane) - 1));
    assert_eq!(warp("    mov.u32 %r2, %lanemask_ge;", [0; 32]), each(|lane| u32::MAX << lane));
    assert_eq!(
        warp("    mov.u32 %r2, %lanemask_gt;", [0; 32]),
        each(|lane| (u64::from(u32::MAX) << (lane + 1)) as u32)
    );
    assert_eq!(warp("    mov.u32 %r2, %ntid.x;", [0; 32]), [32; 32]);
}

/// Lanes leave a loop at different times, meet behind it and shuffle.
#[test]
fn lanes_meet_again_after_a_rotated_loop() {
    let body = "
    and.b32 %r3, %r1, 7;
    mov.b32 %r4, 0;
LOOP:
    setp.ge.u32 %p0, %r4, %r3;
    @%p0 bra OUT;
    add.s32 %r4, %r4, 1;
    bra LOOP;
OUT:
    shfl.sync.bfly.b32 %r2, %r4, 1, 0x1f, -1;";
    assert_eq!(warp(body, each(|lane| lane)), each(|lane| (lane ^ 1) & 7));
}

/// One lane spins until another of its warp, behind it in the text, has stored.
#[test]
fn a_spinning_lane_lets_its_warp_go_on() {
    let text = lanes(
        "
    setp.ne.u32 %p0, %r0, 0;
    @%p0 bra GIVE;
SPIN:
    ld.volatile.global.b32 %r1, [%rd1+4];
    setp.eq.b32 %p1, %r1, 0;
    @%p1 bra SPIN;
    bra DONE;
GIVE:
    st.volatile.global.b32 [%rd3], 7;
DONE:
    bar.warp.sync -1;",
    );
    let (out, _) = run_with(&text, 32, 0, &[0; 32], 32, &Options::default()).unwrap();
    assert_eq!(out[1], 7);
}

#[test]
fn a_branch_table_takes_each_lane_to_its_target() {
    let body = "
    and.b32 %r3, %r1, 3;
    brx.idx %r3, TABLE;
TABLE:
    .branchtargets A, B, A, C;
A:  mov.b32 %r2, 10;
    bra DONE;
B:  mov.b32 %r2, 11;
    bra DONE;
C:  mov.b32 %r2, 13;
DONE:";
    assert_eq!(warp(body, each(|lane| lane)), each(|lane| [10, 11, 10, 13][lane as usize % 4]));
}

/// Lane `4 g + t` gets columns `2 t` and `2 t + 1` of row `g`; transposed, rows `2 t` and `2 t + 1` of column `g`.
#[test]
fn matrix_loads_deal_rows_and_columns() {
    let text = |trans: &str| {
        let rows = lanes(&format!(
            "
    .shared .align 16 .b8 tile[512];
    mov.u32 %r10, tile;
    mad.lo.s32 %r11, %r0, 4, %r10;
    ld.global.b32 %r1, [%rd2];
    st.shared.b32 [%r11], %r1;
    ld.global.b32 %r1, [%rd2+128];
    st.shared.b32 [%r11+128], %r1;
    bar.sync 0;
    and.b32 %r12, %r0, 15;
    mad.lo.s32 %r13, %r12, 16, %r10;
    ldmatrix.sync.aligned.m8n8.x2{trans}.shared.b16 {{%r2, %r3}}, [%r13];
    st.global.b32 [%rd3], %r2;
    st.global.b32 [%rd3+128], %r3;"
        ));
        // Element (row, column) of matrix m is 256 m + 16 row + column.
        let half = |i: u32| 256 * (i / 64) + 16 * (i % 64 / 8) + i % 8;
        let input: Vec<u32> = (0..64).map(|word| half(2 * word) | half(2 * word + 1) << 16).collect();
        run_with(&rows, 32, 0, &input, 64, &Options::default()).unwrap().0
    };
    let (plain, transposed) = (text(""), text(".trans"));
    for matrix in 0..2 {
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            let element = |row: u32, column: u32| 256 * matrix + 16 * row + column;
            let at = (32 * matrix + lane) as usize;
            assert_eq!(plain[at], element(g, 2 * t) | element(g, 2 * t + 1) << 16);
            assert_eq!(transposed[at], element(2 * t, g) | element(2 * t + 1, g) << 16);
        }
    }
}

/// A 16x16 by 16x8 product of small whole numbers is exact, so that only the layout can be wrong.
#[test]
fn matrix_products_have_the_layout_of_the_isa() {
    for (name, widen) in [("bf16", 16), ("f16", 0)] {
        let encode = |x: i32| match widen {
            16 => (x as f32).to_bits() >> 16,
            _ => match x.unsigned_abs() {
                0 => 0,
                n => (u32::from(x < 0) << 15) | ((15 + n.ilog2()) << 10) | ((n << (10 - n.ilog2())) & 0x3ff),
            },
        };
        let a = |row: u32, k: u32| (row * 3 + k * 5) as i32 % 11 - 5;
        let b = |k: u32, column: u32| (k * 7 + column * 2) as i32 % 9 - 4;
        let c = |row: u32, column: u32| (row * 8 + column) as i32;
        let pair = |x: i32, y: i32| encode(x) | encode(y) << 16;
        let mut input = vec![0; 320];
        for lane in 0..32_u32 {
            let (g, t) = (lane / 4, 2 * (lane % 4));
            let mut put = |register: u32, value: u32| input[(register * 32 + lane) as usize] = value;
            for i in 0..4 {
                let (row, k) = (g + 8 * (i & 1), t + 8 * (i >> 1));
                put(i, pair(a(row, k), a(row, k + 1)));
                put(6 + i, (c(g + 8 * (i >> 1), t + (i & 1)) as f32).to_bits());
            }
            for i in 0..2 {
                put(4 + i, pair(b(t + 8 * i, g), b(t + 8 * i + 1, g)));
            }
        }
        let mut body: String =
            (0..10).map(|i| format!("    ld.global.b32 %r{}, [%rd2+{}];\n", 10 + i, 128 * i)).collect();
        body += &format!(
            "    mma.sync.aligned.m16n8k16.row.col.f32.{name}.{name}.f32 {{%r30,%r31,%r32,%r33}},\n        \
             {{%r10,%r11,%r12,%r13}}, {{%r14,%r15}}, {{%r16,%r17,%r18,%r19}};\n"
        );
        body += &(0..4)
            .map(|i| format!("    st.global.b32 [%rd3+{}], %r{};\n", 128 * i, 30 + i))
            .collect::<String>();
        let (out, _) = run_with(&lanes(&body), 32, 0, &input, 128, &Options::default()).unwrap();
        for lane in 0..32_u32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + 8 * (i >> 1), 2 * (lane % 4) + (i & 1));
                let expected = c(row, column) + (0..16).map(|k| a(row, k) * b(k, column)).sum::<i32>();
                let got = f32::from_bits(out[(i * 32 + lane) as usize]);
                assert_eq!(got, expected as f32, "{name} row {row} column {column}");
            }
        }
    }
}

#[test]
fn loads_extend_and_vectors_keep_their_order() {
    let text = kernel(
        "
    ld.param.b64 %rd0, [in];
    ld.param.b64 %rd1, [out];
    ld.global.s8 %r0, [%rd0+3];
    ld.global.u8 %r1, [%rd0+3];
    ld.global.s16 %r2, [%rd0+2];
    ld.global.v4.b32 {%r4, %r5, _, %r7}, [%rd0];
    st.global.v2.b32 [%rd1], {%r0, %r1};
    st.global.b32 [%rd1+8], %r2;
    st.global.v2.b32 [%rd1+16], {%r7, %r5};
    st.global.b8 [%rd1+25], 0xab;
    mov.u16 %rs0, 0x1234;
    st.global.u16 [%rd1+26], %rs0;",
    );
    let (out, _) = run_with(&text, 1, 0, &[0x8070_6050, 2, 3, 4], 8, &Options::default()).unwrap();
    assert_eq!(out, [0xffff_ff80, 0x80, 0xffff_8070, 0, 4, 2, 0x1234_ab00, 0]);
}

#[test]
fn atomics_add_up_over_lanes_and_return_the_old_value() {
    let text = lanes(
        "
    atom.global.add.u32 %r2, [%rd1], 1;
    red.relaxed.gpu.global.max.u32 [%rd1+4], %r0;
    atom.global.cas.b32 %r3, [%rd1+8], 0, 5;
    atom.global.add.u64 %rd5, [%rd1+16], 3;
    atom.global.exch.b32 %r4, [%rd1+24], %r0;
    atom.global.inc.u32 %r5, [%rd1+28], 9;
    atom.global.add.f32 %r6, [%rd1+32], 0f3F000000;",
    );
    let (out, _) = run_with(&text, 64, 0, &[0; 64], 16, &Options::default()).unwrap();
    assert_eq!(&out[..9], [64, 63, 5, 0, 192, 0, 63, 4, 32.0_f32.to_bits()]);
}

#[test]
fn local_memory_belongs_to_its_thread() {
    let body = "
    .local .align 8 .b8 depot[16];
    mov.b64 %rd10, depot;
    cvta.local.u64 %rd11, %rd10;
    st.local.b32 [%rd10+4], %r1;
    ld.b32 %r2, [%rd11+4];";
    assert_eq!(warp(body, each(|lane| lane + 1)), each(|lane| lane + 1));
}

#[test]
fn module_variables_hold_numbers_and_addresses() {
    let text = kernel(
        "
    ld.param.b64 %rd1, [out];
    ld.global.b64 %rd2, [pointer];
    ld.global.b32 %r0, [%rd2];
    ld.global.b32 %r1, [numbers+8];
    st.global.v2.b32 [%rd1], {%r0, %r1};",
    )
    .replace(
        ".visible",
        ".global .align 8 .u64 pointer = generic(numbers)+4;\n.global .align 4 .b32 numbers[4] = {1, 2, 3};\n.visible",
    );
    assert_eq!(run_with(&text, 1, 0, &[0], 2, &Options::default()).unwrap().0, [2, 3]);
}

/// Two producer warps arrive, two consumer warps wait, all at one named barrier; a reduction counts.
#[test]
fn named_barriers_join_producers_and_consumers() {
    let text = lanes(
        "
    .shared .align 4 .b8 box[256];
    mov.u32 %r10, box;
    shr.u32 %r1, %r0, 5;
    setp.ge.u32 %p0, %r1, 2;
    and.b32 %r2, %r0, 63;
    mad.lo.s32 %r11, %r2, 4, %r10;
    @%p0 bra PRODUCE;
    barrier.sync 3, 128;
    ld.shared.b32 %r3, [%r11];
    bra DONE;
PRODUCE:
    st.shared.b32 [%r11], %r0;
    barrier.arrive 3, 128;
    mov.b32 %r3, 1;
DONE:
    setp.lt.u32 %p1, %r0, 100;
    bar.red.popc.u32 %r4, 0, %p1;
    add.s32 %r5, %r3, %r4;
    st.global.b32 [%rd3], %r5;",
    );
    let (out, report) = run_with(&text, 128, 0, &[0; 128], 128, &Options::default()).unwrap();
    let expected: Vec<u32> = (0..128).map(|t| 100 + if t < 64 { t + 64 } else { 1 }).collect();
    assert_eq!(out, expected);
    assert_eq!(report.counters.barriers, 8);
}

/// Copies land at the wait that covers their group; the part beyond the source size is zero.
#[test]
fn asynchronous_copies_land_at_their_wait() {
    let text = lanes(
        "
    .extern .shared .align 16 .b8 buffer[];
    mov.u32 %r10, buffer;
    mad.lo.s32 %r11, %r0, 16, %r10;
    mad.wide.u32 %rd5, %r0, 16, %rd0;
    cp.async.cg.shared.global [%r11], [%rd5], 16, 8;
    cp.async.commit_group;
    cp.async.ca.shared.global [%r11+512], [%rd5], 4;
    cp.async.commit_group;
    cp.async.wait_group 1;
    ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [%r11];
    add.s32 %r5, %r1, %r2;
    add.s32 %r5, %r5, %r3;
    add.s32 %r5, %r5, %r4;
    st.global.b32 [%rd3], %r5;
    cp.async.wait_all;",
    )
    .replace("    .extern .shared .align 16 .b8 buffer[];\n", "")
    .replace(".visible", ".extern .shared .align 16 .b8 buffer[];\n.visible");
    let input: Vec<u32> = (0..128).collect();
    for completion in [Completion::Late, Completion::Eager] {
        let options = Options { completion, ..Options::default() };
        let (out, report) =
            run_with(&text, 32, 1024, &input, 32, &options).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(out, each(|lane| 8 * lane + 1));
        assert_eq!(report.counters.unwaited_copies, 0);
    }
}
