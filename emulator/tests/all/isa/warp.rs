//! Instructions of a whole warp against the formulas of the PTX ISA: `shfl vote match redux`, `ldmatrix`, `mma`, barriers
//! with a reduction.

use crate::common::{fault, lanes, run_with};
use nabla_emulator::Options;

fn each<T>(f: impl Fn(u32) -> T) -> [T; 32] {
    std::array::from_fn(|lane| f(lane as u32))
}

/// Runs a body for a warp whose lane `i` finds `inputs[j][i]` in `%r{j+1}`; returns `%r20` and `%r21` of each lane.
fn two(body: &str, inputs: &[[u32; 32]]) -> ([u32; 32], [u32; 32]) {
    let mut text = String::new();
    for at in 0..inputs.len() {
        text += &format!("    ld.global.b32 %r{}, [%rd2+{}];\n", at + 1, 128 * at);
    }
    text += &format!(
        "    mov.b32 %r20, 0;\n    mov.b32 %r21, 0;\n{body}\n    st.global.b32 [%rd3], %r20;\n    st.global.b32 [%rd3+128], %r21;"
    );
    let input: Vec<u32> = inputs.iter().flatten().copied().collect();
    let (out, _) = run_with(&lanes(&text), 32, 0, &input, 64, &Options::default())
        .unwrap_or_else(|fault| panic!("{fault}"));
    (std::array::from_fn(|i| out[i]), std::array::from_fn(|i| out[32 + i]))
}

/// The pseudo-code of `shfl`: source lane of a lane, and whether it lies in bounds.
fn source(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (bval, cval, mask) = (b & 31, c & 31, c >> 8 & 31);
    let max_lane = lane & mask | cval & !mask & 31;
    let min_lane = lane & mask;
    let (j, inside) = match mode {
        "up" => {
            let j = lane as i32 - bval as i32;
            (j, j >= max_lane as i32)
        }
        "down" => ((lane + bval) as i32, lane + bval <= max_lane),
        "bfly" => ((lane ^ bval) as i32, (lane ^ bval) <= max_lane),
        _ => {
            let j = min_lane | bval & !mask & 31;
            (j as i32, j <= max_lane)
        }
    };
    if inside { (j as u32, true) } else { (lane, false) }
}

#[test]
fn shuffles_follow_their_pseudo_code() {
    let values = each(|lane| lane * 0x0101_0101 + 7);
    // Segments of 32, 16, 8, 4, 2 and 1 lanes, bounds inside them, and bits beyond the fields.
    let controls =
        [0x1f, 0, 0x1001, 0x100f, 0x181f, 0x1803, 0x1c1f, 0x1c02, 0x1e1f, 0x1f1f, 0x0a15, 0xffff_e01f, 7];
    for mode in ["up", "down", "bfly", "idx"] {
        for c in controls {
            for b in [0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 0xffff_ffff] {
                let body = format!(
                    "    shfl.sync.{mode}.b32 %r20|%p1, %r1, %r2, %r3, 0xffffffff;\n    selp.b32 %r21, 1, 0, %p1;"
                );
                let (d, p) = two(&body, &[values, [b; 32], [c; 32]]);
                for lane in 0..32 {
                    let (from, inside) = source(mode, lane, b, c);
                    let at = lane as usize;
                    assert_eq!(d[at], values[from as usize], "{mode} {b:#x} {c:#x} lane {lane}");
                    assert_eq!(p[at], u32::from(inside), "{mode} {b:#x} {c:#x} lane {lane}");
                }
            }
        }
    }
}

/// Each lane reads its own operands: the source lane's value, but the reader's distance and bounds.
#[test]
fn shuffle_operands_belong_to_the_reader() {
    let (b, c) = (each(|lane| lane * 5 + 3), each(|lane| if lane < 16 { 0x1f } else { 0x181f }));
    let values = each(|lane| 100 + lane);
    for mode in ["up", "down", "bfly", "idx"] {
        let body = format!("    shfl.sync.{mode}.b32 %r20, %r1, %r2, %r3, -1;");
        let (d, _) = two(&body, &[values, b, c]);
        assert_eq!(d, each(|lane| 100 + source(mode, lane, b[lane as usize], c[lane as usize]).0), "{mode}");
    }
}

/// Half of the warp exchanges values among itself.
#[test]
fn shuffles_of_a_part_of_the_warp() {
    let body = "
    and.b32 %r2, %r1, 1;
    setp.eq.b32 %p1, %r2, 1;
    @%p1 shfl.sync.bfly.b32 %r20, %r1, 2, 0x1f, 0xaaaaaaaa;";
    let (d, _) = two(body, &[each(|lane| lane)]);
    assert_eq!(d, each(|lane| if lane % 2 == 1 { lane ^ 2 } else { 0 }));
}

#[test]
fn votes_of_members() {
    let cases: [[u32; 32]; 4] = [[0; 32], [1; 32], each(|lane| lane & 1), each(|lane| u32::from(lane == 9))];
    for input in cases {
        // All lanes, and the upper half without the others.
        for members in [u32::MAX, 0xffff_0000] {
            let inside = |lane: u32| members >> lane & 1 == 1;
            let yes = (0..32).filter(|lane| inside(*lane) && input[*lane as usize] != 0).count() as u32;
            let results = [
                ("all", u32::from(yes == members.count_ones())),
                ("any", u32::from(yes > 0)),
                ("uni", u32::from(yes == 0 || yes == members.count_ones())),
            ];
            let head = "    setp.ne.b32 %p1, %r1, 0;\n    mov.u32 %r3, %laneid;\n    setp.ge.u32 %p3, %r3, ";
            let head = format!("{head}{};\n    mov.pred %p2, 0;\n", members.trailing_zeros());
            for (mode, expected) in results {
                let body = format!(
                    "{head}    @%p3 vote.sync.{mode}.pred %p2, %p1, {members};\n    selp.b32 %r20, 1, 0, %p2;"
                );
                let (d, _) = two(&body, &[input]);
                assert_eq!(d, each(|lane| if inside(lane) { expected } else { 0 }), "{mode}");
            }
            let ballot =
                (0..32).map(|lane| u32::from(inside(lane) && input[lane as usize] != 0) << lane).sum();
            let (d, _) = two(&format!("{head}    @%p3 vote.sync.ballot.b32 %r20, %p1, {members};"), &[input]);
            assert_eq!(d, each(|lane| if inside(lane) { ballot } else { 0 }));
        }
    }
}

#[test]
fn matches_compare_all_bits() {
    let low = each(|lane| lane % 3 * 0x1000_0001);
    let high = each(|lane| lane / 8);
    let equal = |f: &dyn Fn(u32) -> u64| {
        each(|lane| (0..32).map(|other| u32::from(f(other) == f(lane)) << other).sum())
    };
    let (d, _) = two("    match.any.sync.b32 %r20, %r1, -1;", &[low]);
    assert_eq!(d, equal(&|lane| u64::from(low[lane as usize])));
    let (d, _) = two("    mov.b64 %rd5, {%r1, %r2};\n    match.any.sync.b64 %r20, %rd5, -1;", &[low, high]);
    assert_eq!(d, equal(&|lane| u64::from(low[lane as usize]) | u64::from(high[lane as usize]) << 32));
    let all = "    match.all.sync.b32 %r20|%p1, %r1, -1;\n    selp.b32 %r21, 1, 0, %p1;";
    assert_eq!(two(all, &[[0xdead_beef; 32]]), ([u32::MAX; 32], [1; 32]));
    assert_eq!(two(all, &[each(|lane| u32::from(lane == 31))]), ([0; 32], [0; 32]));
}

#[test]
fn reductions_fold_the_values_of_members() {
    let input = each(|lane| lane.wrapping_mul(0x1357_9bdf) ^ 0x8000_0000);
    type Fold = fn(u32, u32) -> u32;
    let forms: [(&str, Fold); 9] = [
        ("add.u32", u32::wrapping_add),
        ("add.s32", u32::wrapping_add),
        ("min.u32", u32::min),
        ("max.u32", u32::max),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (name, fold) in forms {
        let (d, _) = two(&format!("    redux.sync.{name} %r20, %r1, -1;"), &[input]);
        let whole = input.into_iter().reduce(fold).unwrap();
        assert_eq!(d, [whole; 32], "{name}");
        let part = format!(
            "    mov.u32 %r3, %laneid;\n    setp.lt.u32 %p3, %r3, 5;\n    @%p3 redux.sync.{name} %r20, %r1, 31;"
        );
        let (d, _) = two(&part, &[input]);
        let part = input[..5].iter().copied().reduce(fold).unwrap();
        assert_eq!(d, each(|lane| if lane < 5 { part } else { 0 }), "{name} of five");
    }
}

/// Rows of matrix `i` are where lanes `8 i` to `8 i + 7` say, in any order and anywhere; the addresses of the other lanes do
/// not count.
#[test]
fn matrix_loads_take_rows_from_their_lanes() {
    for (count, kind) in [(1, "x1"), (2, "x2"), (4, "x4")] {
        for trans in ["", ".trans"] {
            let registers: Vec<String> = (0..count).map(|at| format!("%r{}", 30 + at)).collect();
            let mut text = format!(
                "
    .shared .align 128 .b8 tile[2048];
    mov.u32 %r10, tile;
    mad.lo.s32 %r11, %r0, 4, %r10;
    mov.b32 %r12, 0;
FILL:
    ld.global.b32 %r1, [%rd2];
    st.shared.b32 [%r11], %r1;
    add.s64 %rd2, %rd2, 128;
    add.s32 %r11, %r11, 128;
    add.s32 %r12, %r12, 1;
    setp.lt.u32 %p1, %r12, 16;
    @%p1 bra FILL;
    bar.sync 0;
    // The row of a lane: 11 lane + 5 modulo 128, none for lanes whose address does not count.
    mad.lo.s32 %r13, %r0, 11, 5;
    and.b32 %r13, %r13, 127;
    mad.lo.s32 %r13, %r13, 16, %r10;
    setp.lt.u32 %p2, %r0, {};
    selp.b32 %r13, %r13, 0x7ffffff0, %p2;
    ldmatrix.sync.aligned.m8n8.{kind}{trans}.shared.b16 {{{}}}, [%r13];\n",
                8 * count,
                registers.join(",")
            );
            for (at, register) in registers.iter().enumerate() {
                text += &format!("    st.global.b32 [%rd3+{}], {register};\n", 128 * at);
            }
            // Half `i` of the tile is `i`: row r holds 8 r to 8 r + 7.
            let input: Vec<u32> = (0..512).map(|word| (2 * word) | ((2 * word + 1) << 16)).collect();
            let (out, _) = run_with(&lanes(&text), 32, 0, &input, 32 * count, &Options::default())
                .unwrap_or_else(|fault| panic!("{fault}"));
            for matrix in 0..count as u32 {
                let element = |row: u32, column: u32| 8 * ((11 * (8 * matrix + row) + 5) & 127) + column;
                for lane in 0..32 {
                    let (group, thread) = (lane / 4, lane % 4);
                    let expected = if trans.is_empty() {
                        element(group, 2 * thread) | element(group, 2 * thread + 1) << 16
                    } else {
                        element(2 * thread, group) | element(2 * thread + 1, group) << 16
                    };
                    assert_eq!(
                        out[(32 * matrix + lane) as usize],
                        expected,
                        "{kind}{trans} {matrix} lane {lane}"
                    );
                }
            }
        }
    }
}

/// Small whole numbers as f16 or bf16.
fn encode(x: i32, bf16: bool) -> u32 {
    if bf16 {
        return (x as f32).to_bits() >> 16;
    }
    match x.unsigned_abs() {
        0 => 0,
        n => (u32::from(x < 0) << 15) | ((15 + n.ilog2()) << 10) | ((n << (10 - n.ilog2())) & 0x3ff),
    }
}

/// Fragments of `mma.m16n8k8` and `.m16n8k16` by the ISA's formulas for row and column of element `i` of a lane.
#[test]
fn matrix_products_have_their_fragments() {
    for k in [8_u32, 16] {
        for name in ["bf16", "f16"] {
            let encode = |x: i32| encode(x, name == "bf16");
            let a = |row: u32, k: u32| (row * 5 + k * 3) as i32 % 13 - 6;
            let b = |k: u32, column: u32| (k * 11 + column * 4) as i32 % 9 - 4;
            let c = |row: u32, column: u32| (row * 16) as i32 - (column * 3) as i32;
            let (a_registers, b_registers) = (k / 4, k / 8);
            let mut input = Vec::new();
            for register in 0..a_registers {
                input.extend(each(|lane| {
                    let half = |h: u32| {
                        let i = 2 * register + h;
                        // m16n8k16: row + 8 for a2,a3,a6,a7, k + 8 from a4 on; m16n8k8: row + 8 for a2,a3.
                        let row = lane / 4 + if i / 2 % 2 == 1 { 8 } else { 0 };
                        let column = lane % 4 * 2 + i % 2 + if i >= 4 { 8 } else { 0 };
                        encode(a(row, column))
                    };
                    half(0) | half(1) << 16
                }));
            }
            for register in 0..b_registers {
                input.extend(each(|lane| {
                    let half = |h: u32| encode(b(lane % 4 * 2 + h + 8 * register, lane / 4));
                    half(0) | half(1) << 16
                }));
            }
            let place = |lane: u32, i: u32| (lane / 4 + if i >= 2 { 8 } else { 0 }, lane % 4 * 2 + i % 2);
            for i in 0..4 {
                input.extend(each(|lane| {
                    let (row, column) = place(lane, i);
                    (c(row, column) as f32).to_bits()
                }));
            }
            let list = |first: u32, count: u32| {
                (first..first + count).map(|at| format!("%r{at}")).collect::<Vec<_>>().join(",")
            };
            let loads: String = (0..a_registers + b_registers + 4)
                .map(|i| format!("    ld.global.b32 %r{}, [%rd2+{}];\n", 10 + i, 128 * i))
                .collect();
            let stores: String =
                (0..4).map(|i| format!("    st.global.b32 [%rd3+{}], %r{};\n", 128 * i, 40 + i)).collect();
            let text = format!(
                "{loads}    mma.sync.aligned.m16n8k{k}.row.col.f32.{name}.{name}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};\n{stores}",
                list(40, 4),
                list(10, a_registers),
                list(10 + a_registers, b_registers),
                list(10 + a_registers + b_registers, 4),
            );
            let (out, _) = run_with(&lanes(&text), 32, 0, &input, 128, &Options::default())
                .unwrap_or_else(|fault| panic!("{fault}"));
            for lane in 0..32 {
                for i in 0..4 {
                    let (row, column) = place(lane, i);
                    let expected = c(row, column) + (0..k).map(|k| a(row, k) * b(k, column)).sum::<i32>();
                    let got = f32::from_bits(out[(32 * i + lane) as usize]);
                    assert_eq!(got, expected as f32, "{name} k{k} row {row} column {column}");
                }
            }
        }
    }
}

/// `bar.red` counts, or combines, the predicates of all threads that meet.
#[test]
fn barriers_reduce_predicates_of_all_threads() {
    for (threshold, count) in [(0_u32, 0_u32), (1, 1), (77, 77), (128, 128), (500, 128)] {
        let text = lanes(&format!(
            "
    setp.lt.u32 %p1, %r0, {threshold};
    bar.red.popc.u32 %r1, 0, %p1;
    barrier.red.popc.u32 %r2, 1, 128, !%p1;
    bar.red.and.pred %p2, 2, %p1;
    bar.red.or.pred %p3, 3, 128, %p1;
    bar.red.and.pred %p4, 4, !%p1;
    selp.b32 %r3, 1, 0, %p2;
    selp.b32 %r4, 2, 0, %p3;
    selp.b32 %r5, 4, 0, %p4;
    or.b32 %r3, %r3, %r4;
    or.b32 %r3, %r3, %r5;
    mad.lo.s32 %r1, %r1, 1000, %r2;
    mad.lo.s32 %r1, %r1, 10, %r3;
    st.global.b32 [%rd3], %r1;"
        ));
        let (out, _) = run_with(&text, 128, 0, &[0; 128], 128, &Options::default())
            .unwrap_or_else(|fault| panic!("{fault}"));
        let flags = u32::from(count == 128) + 2 * u32::from(count > 0) + 4 * u32::from(count == 0);
        assert_eq!(out, vec![(count * 1000 + 128 - count) * 10 + flags; 128]);
    }
}

/// Barriers are apart: half of the CTA may pass number 1 twice while the other half waits at number 2.
#[test]
fn numbered_barriers_are_independent() {
    let text = lanes(
        "
    .shared .align 4 .b8 box[256];
    mov.u32 %r10, box;
    setp.ge.u32 %p1, %r0, 64;
    and.b32 %r11, %r0, 63;
    mad.lo.s32 %r12, %r11, 4, %r10;
    xor.b32 %r13, %r11, 63;
    mad.lo.s32 %r13, %r13, 4, %r10;
    mov.b32 %r20, 7;
    @%p1 bra SECOND;
    st.shared.b32 [%r12], %r0;
    bar.sync 1, 64;
    ld.shared.b32 %r20, [%r13];
    bar.sync 1, 64;
    st.shared.b32 [%r12], %r20;
    bar.arrive 2, 128;
    bra DONE;
SECOND:
    bar.sync 2, 128;
    ld.shared.b32 %r20, [%r12];
DONE:
    st.global.b32 [%rd3], %r20;",
    );
    let (out, _) = run_with(&text, 128, 0, &[0; 128], 128, &Options::default())
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(out, (0..128).map(|t| 63 - t % 64).collect::<Vec<u32>>());
}

#[test]
fn members_must_name_the_lanes_that_come() {
    let text = fault(
        "    setp.lt.u32 %p1, %r0, 16;\n    @%p1 shfl.sync.idx.b32 %r2, %r0, 0, 31, -1;\n    bar.warp.sync -1;",
        32,
        0,
    );
    assert!(text.contains("waits for the warp's other lanes") || text.contains("diverge"), "{text}");
    let text = fault("    setp.ne.u32 %p2, %r0, 0;\n    vote.sync.any.pred %p1, %p2, 1;", 32, 0);
    assert!(text.contains("member mask"), "{text}");
}
