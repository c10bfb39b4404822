//! One line for each behaviour of an instruction: text, inputs, result. The results follow from the PTX ISA's words and
//! are computed here by other means than the emulator's.

use crate::common::{kernel, run_with};
use nabla_emulator::Options;

/// Runs one thread. Inputs arrive in `%r1..` (low 32 bits), `%rd1..` and `%rs1..`; the result is `%r0`, `%rd0`, `%rs0`
/// or, as 0 or 1, `%p0`: whichever the text names first.
fn eval(text: &str, inputs: &[u64]) -> u64 {
    let mut body = String::from("    ld.param.b64 %rd30, [in];\n    ld.param.b64 %rd31, [out];\n");
    let mut words = Vec::new();
    for (at, input) in inputs.iter().enumerate() {
        let n = at + 1;
        body += &format!("    ld.global.b64 %rd{n}, [%rd30+{}];\n    cvt.u32.u64 %r{n}, %rd{n};\n", at * 8);
        body += &format!("    cvt.u16.u64 %rs{n}, %rd{n};\n");
        body += &format!("    setp.ne.u64 %p{n}, %rd{n}, 0;\n");
        words.extend([*input as u32, (*input >> 32) as u32]);
    }
    body += &format!("    mov.b64 %rd0, 0;\n    {text}\n");
    let store = ["%rd0", "%rs0", "%r0", "%p0"].into_iter().filter_map(|name| Some((text.find(name)?, name)));
    match store.min().map_or("", |first| first.1) {
        "%rd0" => {}
        "%rs0" => body += "    cvt.u64.u16 %rd0, %rs0;\n",
        "%r0" => body += "    cvt.u64.u32 %rd0, %r0;\n",
        _ => body += "    selp.b64 %rd0, 1, 0, %p0;\n",
    }
    body += "    st.global.b64 [%rd31], %rd0;\n";
    let (out, _) = run_with(&kernel(&body), 1, 0, &words, 2, &Options::default())
        .unwrap_or_else(|fault| panic!("{text}: {fault}"));
    u64::from(out[0]) | u64::from(out[1]) << 32
}

fn table(cases: &[(&str, &[u64], u64)]) {
    for (text, inputs, expected) in cases {
        let got = eval(text, inputs);
        assert_eq!(got, *expected, "{text} of {inputs:x?}: {got:#x} instead of {expected:#x}");
    }
}

const fn f(x: f32) -> u64 {
    x.to_bits() as u64
}

const fn d(x: f64) -> u64 {
    x.to_bits()
}

const fn s(x: i32) -> u64 {
    x as u32 as u64
}

#[test]
fn integer_arithmetic() {
    table(&[
        ("add.s32 %r0, %r1, %r2;", &[s(-5), 3], s(-2)),
        ("add.s32 %r0, %r1, -7;", &[3], s(-4)),
        ("add.s64 %rd0, %rd1, %rd2;", &[u64::MAX, 2], 1),
        ("add.s16 %rs0, %rs1, %rs2;", &[0xffff, 2], 1),
        ("sub.s32 %r0, %r1, %r2;", &[1, 2], s(-1)),
        ("mul.lo.s32 %r0, %r1, %r2;", &[s(-3), 5], s(-15)),
        ("mul.hi.u32 %r0, %r1, %r2;", &[0xffff_ffff, 0xffff_ffff], 0xffff_fffe),
        ("mul.hi.s32 %r0, %r1, %r2;", &[s(-1), 2], s(-1)),
        ("mul.hi.u64 %rd0, %rd1, %rd2;", &[1 << 63, 4], 2),
        ("mul.hi.u16 %rs0, %rs1, %rs2;", &[0xffff, 0xffff], 0xfffe),
        ("mul.hi.s16 %rs0, %rs1, %rs2;", &[0xffff, 2], 0xffff),
        ("mul.lo.s16 %rs0, %rs1, %rs2;", &[300, 300], 90000 & 0xffff),
        ("mul.wide.s32 %rd0, %r1, %r2;", &[s(-3), 7], -21_i64 as u64),
        ("mul.wide.u32 %rd0, %r1, %r2;", &[s(-1), 2], 0x1_ffff_fffe),
        ("mul.wide.s16 %r0, %rs1, %rs2;", &[0xffff, 3], s(-3)),
        ("mul.wide.u16 %r0, %rs1, %rs2;", &[0xffff, 3], 0x2fffd),
        ("mad.lo.s32 %r0, %r1, %r2, %r3;", &[3, 4, 5], 17),
        ("mad.lo.s16 %rs0, %rs1, %rs2, %rs3;", &[300, 300, 1], 90001 & 0xffff),
        ("mad.wide.u32 %rd0, %r1, %r2, %rd3;", &[s(-1), 2, 1], 0x1_ffff_ffff),
        ("mad.hi.u32 %r0, %r1, %r2, %r3;", &[1 << 31, 4, 1], 3),
        ("div.s32 %r0, %r1, %r2;", &[s(-7), 2], s(-3)),
        ("div.u32 %r0, %r1, %r2;", &[s(-7), 2], (u32::MAX as u64 - 6) / 2),
        ("rem.s32 %r0, %r1, %r2;", &[s(-7), 2], s(-1)),
        ("div.u64 %rd0, %rd1, %rd2;", &[1 << 40, 3], (1 << 40) / 3),
        ("rem.u16 %rs0, %rs1, %rs2;", &[65535, 10], 5),
        ("min.s32 %r0, %r1, %r2;", &[s(-1), 1], s(-1)),
        ("min.u32 %r0, %r1, %r2;", &[s(-1), 1], 1),
        ("max.s64 %rd0, %rd1, %rd2;", &[-1_i64 as u64, 1], 1),
        ("max.s16 %rs0, %rs1, %rs2;", &[0x8000, 1], 1),
        ("abs.s32 %r0, %r1;", &[s(-9)], 9),
        ("neg.s16 %rs0, %rs1;", &[1], 0xffff),
        ("neg.s64 %rd0, %rd1;", &[1], u64::MAX),
        ("sad.u32 %r0, %r1, %r2, %r3;", &[3, 10, 100], 107),
    ]);
}

#[test]
fn bits_and_shifts() {
    table(&[
        ("and.b32 %r0, %r1, 0xff;", &[0x1234], 0x34),
        ("or.b64 %rd0, %rd1, %rd2;", &[1 << 40, 1], 1 << 40 | 1),
        ("xor.b16 %rs0, %rs1, %rs2;", &[0xff00, 0x0ff0], 0xf0f0),
        ("not.b32 %r0, %r1;", &[0], 0xffff_ffff),
        ("not.b16 %rs0, %rs1;", &[1], 0xfffe),
        ("shl.b32 %r0, %r1, %r2;", &[1, 31], 1 << 31),
        ("shl.b32 %r0, %r1, %r2;", &[1, 32], 0),
        ("shr.u32 %r0, %r1, %r2;", &[1 << 31, 31], 1),
        ("shr.s32 %r0, %r1, %r2;", &[1 << 31, 40], 0xffff_ffff),
        ("shr.s16 %rs0, %rs1, 4;", &[0x8000], 0xf800),
        ("shl.b64 %rd0, %rd1, %r2;", &[3, 62], 3 << 62),
        ("shr.s64 %rd0, %rd1, 63;", &[1 << 63], u64::MAX),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", &[0x8000_0001, 0x12, 4], 0x128),
        ("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", &[0x10, 0x3, 36], 0x3000_0001),
        ("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", &[0x10, 0x3, 40], 0x3),
        ("bfe.u32 %r0, %r1, 4, 8;", &[0xabcd], 0xbc),
        ("bfe.s32 %r0, %r1, 4, 8;", &[0xabcd], 0xffff_ffbc),
        ("bfe.s32 %r0, %r1, 40, 4;", &[1 << 31], 0xffff_ffff),
        ("bfe.u32 %r0, %r1, 28, 8;", &[0xa000_0000], 0xa),
        ("bfe.u64 %rd0, %rd1, 36, 8;", &[0xabc << 32], 0xab),
        ("bfi.b32 %r0, %r1, %r2, 8, 4;", &[0xf5, 0xffff_ffff], 0xffff_f5ff),
        ("bfi.b32 %r0, %r1, %r2, 32, 4;", &[0xf5, 0x77], 0x77),
        ("bfi.b64 %rd0, %rd1, %rd2, 60, 8;", &[0xab, 0], 0xb << 60),
        ("prmt.b32 %r0, %r1, %r2, 0x5410;", &[0x3322_1100, 0x7766_5544], 0x5544_1100),
        ("prmt.b32 %r0, %r1, %r2, 0x0123;", &[0x3322_1100, 0], 0x0011_2233),
        ("prmt.b32 %r0, %r1, %r2, 0x88bb;", &[0x8011_2233, 0], 0x0000_ffff),
        ("popc.b32 %r0, %r1;", &[0xf0f0], 8),
        ("popc.b64 %r0, %rd1;", &[u64::MAX], 64),
        ("clz.b32 %r0, %r1;", &[1], 31),
        ("clz.b64 %r0, %rd1;", &[0], 64),
        ("brev.b32 %r0, %r1;", &[1], 1 << 31),
        ("bfind.u32 %r0, %r1;", &[0x100], 8),
        ("bfind.s32 %r0, %r1;", &[s(-1)], 0xffff_ffff),
        ("bfind.shiftamt.u32 %r0, %r1;", &[0x100], 23),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xe8;", &[0b1100, 0b1010, 0b0110], 0b1110),
        ("cnot.b32 %r0, %r1;", &[0], 1),
        ("mov.b64 %rd0, {%r1, %r2};", &[1, 2], 2 << 32 | 1),
        ("mov.b64 {%r5, %r0}, %rd1;", &[7 << 32 | 9], 7),
        ("mov.b32 %r0, {%rs1, %rs2};", &[1, 2], 0x2_0001),
        ("mov.b32 {_, %rs0}, %r1;", &[0xabcd_0000], 0xabcd),
    ]);
}

#[test]
fn comparison_and_selection() {
    let nan = f(f32::NAN);
    table(&[
        ("setp.lt.s32 %p0, %r1, %r2;", &[s(-1), 0], 1),
        ("setp.lt.u32 %p0, %r1, %r2;", &[s(-1), 0], 0),
        ("setp.hi.u32 %p0, %r1, %r2;", &[s(-1), 0], 1),
        ("setp.ge.s16 %p0, %rs1, %rs2;", &[0x8000, 0], 0),
        ("setp.eq.b16 %p0, %rs1, 5;", &[5], 1),
        ("setp.gt.u64 %p0, %rd1, %rd2;", &[1 << 40, 1], 1),
        ("setp.lt.f32 %p0, %r1, %r2;", &[f(-0.0), f(0.0)], 0),
        ("setp.ne.f32 %p0, %r1, %r1;", &[nan], 0),
        ("setp.neu.f32 %p0, %r1, %r1;", &[nan], 1),
        ("setp.equ.f32 %p0, %r1, %r2;", &[nan, f(1.0)], 1),
        ("setp.geu.f32 %p0, %r1, %r2;", &[nan, f(1.0)], 1),
        ("setp.nan.f32 %p0, %r1, %r2;", &[nan, f(1.0)], 1),
        ("setp.num.f32 %p0, %r1, %r2;", &[nan, f(1.0)], 0),
        ("setp.gt.f64 %p0, %rd1, %rd2;", &[d(1.5), d(1.0)], 1),
        ("setp.eq.ftz.f32 %p0, %r1, %r2;", &[1, 0], 1),
        ("setp.eq.and.s32 %p0, %r1, 3, %p2;", &[3, 0], 0),
        ("setp.eq.and.s32 %p0, %r1, 3, !%p2;", &[3, 0], 1),
        ("setp.eq.or.s32 %p0|%p5, %r1, 4, %p2;", &[3, 1], 1),
        ("setp.eq.s32 %p5|%p0, %r1, 4;", &[3], 1),
        ("xor.pred %p0, %p1, %p2;", &[1, 1], 0),
        ("not.pred %p0, %p1;", &[0], 1),
        ("mov.pred %p0, 1;", &[0], 1),
        ("selp.b32 %r0, %r1, %r2, %p3;", &[7, 8, 0], 8),
        ("selp.b64 %rd0, %rd1, %rd2, %p3;", &[7 << 40, 8, 1], 7 << 40),
        ("selp.b16 %rs0, %rs1, -1, %p1;", &[0], 0xffff),
    ]);
}

#[test]
fn floating_point() {
    let (nan, inf) = (f(f32::NAN), f(f32::INFINITY));
    table(&[
        ("add.rn.f32 %r0, %r1, %r2;", &[f(1.5), f(2.25)], f(3.75)),
        ("add.f32 %r0, %r1, 0f3F800000;", &[f(1.0)], f(2.0)),
        ("sub.rn.f32 %r0, %r1, %r2;", &[f(1.0), f(3.0)], f(-2.0)),
        ("mul.ftz.f32 %r0, %r1, %r2;", &[f(1e-20), f(1e-20)], 0),
        ("mul.f32 %r0, %r1, %r2;", &[f(1e-20), f(-1e-20)], f(1e-20 * -1e-20)),
        ("add.sat.f32 %r0, %r1, %r2;", &[f(0.75), f(0.75)], f(1.0)),
        ("div.rn.f32 %r0, %r1, %r2;", &[f(1.0), f(3.0)], f(1.0 / 3.0)),
        ("max.f32 %r0, %r1, %r2;", &[nan, f(-1.0)], f(-1.0)),
        ("max.f32 %r0, %r1, %r2;", &[f(-0.0), f(0.0)], f(0.0)),
        ("min.f32 %r0, %r1, %r2;", &[f(0.0), f(-0.0)], f(-0.0)),
        ("max.f32 %r0, %r1, %r2;", &[nan, nan], 0x7fff_ffff),
        ("max.NaN.f32 %r0, %r1, %r2;", &[nan, f(1.0)], 0x7fff_ffff),
        ("max.f32 %r0, %r1, %r2;", &[f(f32::NEG_INFINITY), f(-3.0)], f(-3.0)),
        (
            "fma.rn.f32 %r0, %r1, %r2, %r3;",
            &[f(1.0 + f32::EPSILON), f(1.0 - f32::EPSILON), f(-1.0)],
            f(-f32::EPSILON * f32::EPSILON),
        ),
        ("neg.f32 %r0, %r1;", &[f(0.0)], f(-0.0)),
        ("abs.f32 %r0, %r1;", &[f(-2.0)], f(2.0)),
        ("copysign.f32 %r0, %r1, %r2;", &[f(-1.0), f(3.0)], f(-3.0)),
        ("rcp.rn.f32 %r0, %r1;", &[f(4.0)], f(0.25)),
        ("rcp.approx.ftz.f32 %r0, %r1;", &[f(0.0)], inf),
        ("sqrt.rn.f32 %r0, %r1;", &[f(2.0)], f(std::f32::consts::SQRT_2)),
        ("rsqrt.approx.f32 %r0, %r1;", &[f(16.0)], f(0.25)),
        ("ex2.approx.ftz.f32 %r0, %r1;", &[f(-3.0)], f(0.125)),
        ("ex2.approx.ftz.f32 %r0, %r1;", &[f(f32::NEG_INFINITY)], 0),
        ("ex2.approx.f32 %r0, %r1;", &[f(-149.0)], 1),
        ("ex2.approx.ftz.f32 %r0, %r1;", &[f(128.0)], inf),
        ("lg2.approx.f32 %r0, %r1;", &[f(1024.0)], f(10.0)),
        ("lg2.approx.f32 %r0, %r1;", &[f(0.0)], f(f32::NEG_INFINITY)),
        ("add.f64 %rd0, %rd1, %rd2;", &[d(0.1), d(0.2)], d(0.1 + 0.2)),
        ("fma.rn.f64 %rd0, %rd1, %rd2, %rd3;", &[d(3.0), d(4.0), d(0.5)], d(12.5)),
        ("mul.f64 %rd0, %rd1, 0d4000000000000000;", &[d(1.5)], d(3.0)),
        ("min.f64 %rd0, %rd1, %rd2;", &[d(f64::NAN), d(2.0)], d(2.0)),
    ]);
    let got = eval("ex2.approx.ftz.f32 %r0, %r1;", &[nan]);
    assert!(f32::from_bits(got as u32).is_nan(), "two to the power of NaN is NaN");
}

#[test]
fn conversions() {
    table(&[
        ("cvt.u64.u32 %rd0, %r1;", &[s(-1)], 0xffff_ffff),
        ("cvt.s64.s32 %rd0, %r1;", &[s(-1)], u64::MAX),
        ("cvt.u32.u64 %r0, %rd1;", &[0xa_0000_0005], 5),
        ("cvt.s32.s8 %r0, %r1;", &[0x180], s(-128)),
        ("cvt.u32.u16 %r0, %rs1;", &[0xffff], 0xffff),
        ("cvt.s16.s8 %rs0, %rs1;", &[0x80], 0xff80),
        ("cvt.u16.u32 %rs0, %r1;", &[0x12_3456], 0x3456),
        ("cvt.sat.u8.s32 %r0, %r1;", &[s(-5)], 0),
        ("cvt.rn.f32.s32 %r0, %r1;", &[s(-3)], f(-3.0)),
        ("cvt.rn.f32.u32 %r0, %r1;", &[0xffff_ffff], f(4_294_967_296.0)),
        ("cvt.rz.f32.u32 %r0, %r1;", &[0xffff_ffff], 0x4f7f_ffff),
        ("cvt.rn.f32.u64 %r0, %rd1;", &[(1 << 60) + 1], f((1_u64 << 60) as f32)),
        ("cvt.rp.f32.u64 %r0, %rd1;", &[(1 << 60) + 1], f(((1_u64 << 60) as f32).next_up())),
        ("cvt.rzi.s32.f32 %r0, %r1;", &[f(-2.75)], s(-2)),
        ("cvt.rni.s32.f32 %r0, %r1;", &[f(2.5)], 2),
        ("cvt.rmi.s32.f32 %r0, %r1;", &[f(-2.25)], s(-3)),
        ("cvt.rpi.s32.f32 %r0, %r1;", &[f(2.25)], 3),
        ("cvt.rzi.u32.f32 %r0, %r1;", &[f(-1.0)], 0),
        ("cvt.rzi.s32.f32 %r0, %r1;", &[f(1e20)], 0x7fff_ffff),
        ("cvt.rzi.s32.f32 %r0, %r1;", &[f(f32::NAN)], 0),
        ("cvt.rni.f32.f32 %r0, %r1;", &[f(3.5)], f(4.0)),
        ("cvt.f64.f32 %rd0, %r1;", &[f(0.1)], d(0.1_f32 as f64)),
        ("cvt.rn.f32.f64 %r0, %rd1;", &[d(0.1)], f(0.1)),
        ("cvt.rm.f32.f64 %r0, %rd1;", &[d(-0.1)], f(-0.1)),
        ("cvt.f32.f16 %r0, %rs1;", &[0x3c01], f(1.0 + 1.0 / 1024.0)),
        ("cvt.f32.f16 %r0, %rs1;", &[0x8001], f(-2.0_f32.powi(-24))),
        ("cvt.f32.f16 %r0, %rs1;", &[0xfc00], f(f32::NEG_INFINITY)),
        ("cvt.f32.bf16 %r0, %rs1;", &[0x3f81], f(1.0 + 1.0 / 128.0)),
        ("cvt.rn.f16.f32 %rs0, %r1;", &[f(65519.0)], 0x7bff),
        ("cvt.rn.f16.f32 %rs0, %r1;", &[f(65520.0)], 0x7c00),
        ("cvt.rn.f16.f32 %rs0, %r1;", &[f(1.0 + 1.0 / 2048.0)], 0x3c00),
        ("cvt.rn.f16.f32 %rs0, %r1;", &[f(1.0 + 3.0 / 2048.0)], 0x3c02),
        ("cvt.rn.bf16.f32 %rs0, %r1;", &[f(1.0 + 1.0 / 256.0)], 0x3f80),
        ("cvt.rn.bf16.f32 %rs0, %r1;", &[f(1.0 + 3.0 / 256.0)], 0x3f82),
        // The first source goes to the upper half.
        ("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", &[f(2.0), f(1.0)], 0x4000_3f80),
        ("cvt.rn.f16x2.f32 %r0, %r1, %r2;", &[f(2.0), f(-1.0)], 0x4000_bc00),
        ("cvt.rn.relu.bf16x2.f32 %r0, %r1, %r2;", &[f(-2.0), f(1.0)], 0x0000_3f80),
        ("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", &[f(f32::NAN), f(f32::INFINITY)], 0x7fff_7f80),
        ("cvt.rz.bf16x2.f32 %r0, %r1, %r2;", &[f(1.999), f(-1.999)], 0x3fff_bfff),
    ]);
}

/// Every f16 widens and narrows back to itself, and every f32 in a sweep rounds as the definition by f64 says.
#[test]
fn half_precision_round_trips() {
    for bits in (0..0x7c00_u64).step_by(97).chain([1, 2, 0x3ff, 0x400, 0x7bff]) {
        let wide = eval("cvt.f32.f16 %r0, %rs1;", &[bits]);
        assert_eq!(eval("cvt.rn.f16.f32 %rs0, %r1;", &[wide]), bits);
        let pair = eval("cvt.rn.f16x2.f32 %r0, %r1, %r2;", &[wide, wide | 1 << 31]);
        assert_eq!(pair, bits << 16 | bits | 0x8000, "{bits:#x}");
    }
}

/// The PTX ISA promises a relative error of 2^-22 for `ex2.approx.ftz.f32`.
#[test]
fn exponential_is_within_its_documented_error() {
    let body = "
    ld.global.b32 %r1, [%rd2];
    ex2.approx.ftz.f32 %r2, %r1;
    st.global.b32 [%rd3], %r2;";
    for start in -126..128 {
        let input: Vec<u32> = (0..1024).map(|i| (start as f32 + i as f32 / 1024.0).to_bits()).collect();
        let (out, _) =
            run_with(&crate::common::lanes(body), 1024, 0, &input, 1024, &Options::default()).unwrap();
        for (x, y) in input.iter().zip(out) {
            let exact = f64::from(f32::from_bits(*x)).exp2();
            let error = (f64::from(f32::from_bits(y)) / exact - 1.0).abs();
            assert!(error <= 2.0_f64.powi(-22), "2^{}: {error:e}", f32::from_bits(*x));
        }
    }
}
