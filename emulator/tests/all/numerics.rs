//! Matrix products bit by bit, as tensor cores of two generations make them.

use crate::common::{kernel, run_with};
use nabla_emulator::{Numerics, Options};

const GOLDEN: &str = include_str!("../fixtures/tensor_core.txt");

/// One element of a product: factors and accumulator as bits.
#[derive(Clone, Copy, Debug)]
struct Case {
    a: [u16; 16],
    b: [u16; 16],
    c: u32,
}

/// Runs `mma.m16n8k16` once. Case `i` has row `i` of A, column `i` of B and the element where they meet.
fn mma(kind: &str, numerics: Numerics, cases: &[Case]) -> Vec<u32> {
    assert!(cases.len() <= 8);
    // The fragments of `mma.m16n8k16` with 16-bit floats as the PTX ISA draws them, in the order of the registers of lane 4 g + t.
    let pair = |x: [u16; 16], at: usize| u32::from(x[at]) | u32::from(x[at + 1]) << 16;
    let mut input = Vec::new();
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        let case = cases.get(g).copied().unwrap_or(Case { a: [0; 16], b: [0; 16], c: 0 });
        let c = |column: usize| if column == g { case.c } else { 0 };
        input.extend([pair(case.a, 2 * t), 0, pair(case.a, 2 * t + 8), 0]);
        input.extend([pair(case.b, 2 * t), pair(case.b, 2 * t + 8), c(2 * t), c(2 * t + 1)]);
    }
    let body = format!(
        "
    mov.u32 %r0, %tid.x;
    ld.param.b64 %rd0, [in];
    ld.param.b64 %rd1, [out];
    mad.wide.u32 %rd2, %r0, 32, %rd0;
    mad.wide.u32 %rd3, %r0, 8, %rd1;
    ld.global.v4.b32 {{%r1, %r2, %r3, %r4}}, [%rd2];
    ld.global.v4.b32 {{%r5, %r6, %r7, %r8}}, [%rd2+16];
    mov.b32 %r9, 0;
    mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32
        {{%r10, %r11, %r12, %r13}}, {{%r1, %r2, %r3, %r4}}, {{%r5, %r6}}, {{%r7, %r8, %r9, %r9}};
    st.global.v2.b32 [%rd3], {{%r10, %r11}};"
    );
    let options = Options { numerics, ..Options::default() };
    let (out, _) =
        run_with(&kernel(&body), 32, 0, &input, 64, &options).unwrap_or_else(|fault| panic!("{fault}"));
    (0..cases.len()).map(|g| out[(4 * g + g / 2) * 2 + g % 2]).collect()
}

/// As [`mma`] by `wgmma.m64n8k16` with A in registers, the same in each of the four warps; a result for each of them.
fn wgmma(kind: &str, numerics: Numerics, cases: &[Case]) -> [Vec<u32>; 4] {
    assert!(cases.len() <= 8);
    let pair = |x: [u16; 16], at: usize| u32::from(x[at]) | u32::from(x[at + 1]) << 16;
    let none = Case { a: [0; 16], b: [0; 16], c: 0 };
    let case = |g: usize| cases.get(g).copied().unwrap_or(none);
    let mut input = Vec::new();
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        let c = |column: usize| if column == g { case(g).c } else { 0 };
        input.extend([
            pair(case(g).a, 2 * t),
            0,
            pair(case(g).a, 2 * t + 8),
            0,
            c(2 * t),
            c(2 * t + 1),
            0,
            0,
        ]);
    }
    // Matrix B without swizzling: the first eight elements along k of its eight columns, then the others.
    for half in 0..2 {
        for g in 0..8 {
            input.extend((0..4).map(|at| pair(case(g).b, 8 * half + 2 * at)));
        }
    }
    let body = format!(
        "
    .shared .align 128 .b8 tile[256];
    mov.u32 %r0, %tid.x;
    ld.param.b64 %rd0, [in];
    ld.param.b64 %rd1, [out];
    and.b32 %r20, %r0, 31;
    mad.wide.u32 %rd2, %r20, 32, %rd0;
    mad.wide.u32 %rd3, %r0, 8, %rd1;
    mad.wide.u32 %rd4, %r0, 4, %rd0;
    setp.lt.u32 %p0, %r0, 64;
    mov.b32 %r21, tile;
    mad.lo.u32 %r22, %r0, 4, %r21;
    @%p0 ld.global.b32 %r23, [%rd4+1024];
    @%p0 st.shared.b32 [%r22], %r23;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    ld.global.v4.b32 {{%r1, %r2, %r3, %r4}}, [%rd2];
    ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%rd2+16];
    shr.u32 %r21, %r21, 4;
    cvt.u64.u32 %rd5, %r21;
    add.s64 %rd5, %rd5, {};
    setp.eq.u32 %p1, %r0, %r0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.{kind}.{kind}
        {{%r10, %r11, %r12, %r13}}, {{%r1, %r2, %r3, %r4}}, %rd5, %p1, 1, 1, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    st.global.v2.b32 [%rd3], {{%r10, %r11}};",
        8_u64 << 16 | 16 << 32
    );
    let options = Options { numerics, races: true, ..Options::default() };
    let text = kernel(&body).replace("sm_80", "sm_90a").replace(".version 7.8", ".version 8.0");
    let (out, _) = run_with(&text, 128, 0, &input, 256, &options).unwrap_or_else(|fault| panic!("{fault}"));
    let of = |warp: usize| (0..cases.len()).map(|g| out[64 * warp + (4 * g + g / 2) * 2 + g % 2]).collect();
    std::array::from_fn(of)
}

fn golden() -> Vec<(&'static str, Case, [u32; 2])> {
    let bits = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal");
    let factors = |text: &str| std::array::from_fn(|i| bits(&text[4 * i..4 * i + 4]) as u16);
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [kind, a, b, c, ampere, hopper] =
                line.split(' ').collect::<Vec<_>>().try_into().expect("six fields");
            (kind, Case { a: factors(a), b: factors(b), c: bits(c) }, [bits(ampere), bits(hopper)])
        })
        .collect()
}

#[test]
fn warpgroup_products_have_the_bits_of_the_published_model() {
    for kind in ["bf16", "f16"] {
        let cases: Vec<_> = golden().into_iter().filter(|case| case.0 == kind).collect();
        for chunk in cases.chunks(8) {
            let inputs: Vec<Case> = chunk.iter().map(|case| case.1).collect();
            let expected: Vec<u32> = chunk.iter().map(|case| case.2[1]).collect();
            for got in wgmma(kind, Numerics::Hopper, &inputs) {
                assert_eq!(got, expected, "{kind} {inputs:?}");
            }
        }
    }
}

#[test]
fn products_have_the_bits_of_the_published_models() {
    for kind in ["bf16", "f16"] {
        let cases: Vec<_> = golden().into_iter().filter(|case| case.0 == kind).collect();
        assert!(cases.len() >= 300);
        for chunk in cases.chunks(8) {
            let inputs: Vec<Case> = chunk.iter().map(|case| case.1).collect();
            for (at, numerics) in [Numerics::Ampere, Numerics::Hopper].into_iter().enumerate() {
                for (i, got) in mma(kind, numerics, &inputs).into_iter().enumerate() {
                    let Case { a, b, c } = inputs[i];
                    let expected = chunk[i].2[at];
                    assert!(
                        got == expected,
                        "{kind} {numerics:?} {a:04x?} {b:04x?} {c:08x}: {got:08x}, not {expected:08x}"
                    );
                }
            }
        }
    }
}

/// A case of bf16 powers of two and small multiples: pairs of factors, the rest zero.
fn case(pairs: &[(f32, f32)], c: f32) -> Case {
    let bf16 = |x: f32| (x.to_bits() >> 16) as u16;
    let mut case = Case { a: [0; 16], b: [0; 16], c: c.to_bits() };
    for (at, (x, y)) in pairs.iter().enumerate() {
        (case.a[at], case.b[at]) = (bf16(*x), bf16(*y));
    }
    case
}

fn both(case: Case) -> [f32; 2] {
    [Numerics::Ampere, Numerics::Hopper].map(|numerics| f32::from_bits(mma("bf16", numerics, &[case])[0]))
}

fn two(power: i32) -> f32 {
    2.0_f32.powi(power)
}

#[test]
fn terms_are_cut_off_behind_the_largest_exponent() {
    // Beside 1, -1 and 2^-24: 24 bits keep 2^-24, and lose half of it.
    assert_eq!(both(case(&[(1.0, 1.0), (-1.0, 1.0), (two(-24), 1.0)], 0.0)), [two(-24); 2]);
    assert_eq!(both(case(&[(1.0, 1.0), (-1.0, 1.0), (two(-25), 1.0)], 0.0)), [0.0, two(-25)]);
    assert_eq!(both(case(&[(1.0, 1.0), (-1.0, 1.0), (two(-26), 1.0)], 0.0)), [0.0; 2]);
    // The accumulator is cut off like a product: 1.5 * 2^-24 keeps 2^-24, on Hopper all of it.
    let c = 1.5 * two(-24);
    assert_eq!(both(case(&[(1.0, 1.0), (-1.0, 1.0)], c)), [two(-24), c]);
}

#[test]
fn negative_terms_are_cut_off_toward_zero() {
    // -2^-26 beside 1 becomes 0 and not -2^-25, which would leave 1 - 2^-24 after the last cut.
    assert_eq!(both(case(&[(1.0, 1.0), (-two(-26), 1.0)], 0.0)), [1.0; 2]);
    // The sum is cut off toward zero, too: 1 + 2^-24 and -1 - 2^-24 lose their last bit.
    assert_eq!(both(case(&[(1.0, 1.0), (two(-24), 1.0)], 0.0)), [1.0; 2]);
    assert_eq!(both(case(&[(-1.0, 1.0), (-two(-24), 1.0)], 0.0)), [-1.0; 2]);
    // 1 - 2^-24 is an f32, 1 - 2^-25 is not: toward zero it becomes 1 - 2^-24. Ampere does not see the 2^-25.
    assert_eq!(both(case(&[(1.0, 1.0), (-two(-24), 1.0)], 0.0)), [1.0 - two(-24); 2]);
    assert_eq!(both(case(&[(1.0, 1.0), (-two(-25), 1.0)], 0.0)), [1.0, 1.0 - two(-24)]);
}

#[test]
fn exponents_of_products_are_not_normalised() {
    // 1.5 * 1.5 = 2.25 counts with exponent 0: 2^-25 is kept on Hopper, where exponent 1 would cut it off. Both 2.25 and
    // its opposite leave it alone.
    let pairs = [(1.5, 1.5), (-1.5, 1.5), (two(-25), 1.0)];
    assert_eq!(both(case(&pairs, 0.0)), [0.0, two(-25)]);
}

#[test]
fn ampere_takes_eight_products_a_step_and_hopper_sixteen() {
    // 1 in the first eight, -1 and 2^-24 in the last eight: Ampere starts the second step with 1 as accumulator, Hopper has
    // one step; nothing is lost.
    let mut pairs = [(0.0, 0.0); 16];
    (pairs[0], pairs[8], pairs[9]) = ((1.0, 1.0), (-1.0, 1.0), (two(-24), 1.0));
    assert_eq!(both(case(&pairs, 0.0)), [two(-24); 2]);
    // With 2^-24 in the first half, Ampere's first step ends at 1 + 2^-24, cut off to 1.
    (pairs[1], pairs[9]) = ((two(-24), 1.0), (0.0, 0.0));
    assert_eq!(both(case(&pairs, 0.0)), [0.0, two(-24)]);
}

#[test]
fn large_products_do_not_overflow_by_themselves() {
    // 2^200 is no f32, but 2^200 - 2^200 is zero, and 1 is cut off beside it.
    let cancelling = [(two(100), two(100)), (-two(100), two(100))];
    assert_eq!(both(case(&cancelling, 1.0)), [0.0; 2]);
    assert_eq!(both(case(&[(two(100), two(28))], 0.0)), [f32::INFINITY; 2]);
    // Just below 2^128 the cut is toward zero: largest f32 plus half its last place stays.
    assert_eq!(both(case(&[(two(100), two(3))], f32::MAX)), [f32::MAX; 2]);
    assert_eq!(both(case(&[(-two(100), two(4))], -f32::MAX)), [f32::NEG_INFINITY; 2]);
}

#[test]
fn subnormal_results_and_zeros() {
    // Results are cut off at 2^-149. Beside nothing but zeros a product is kept down to 2^(-132 - 24) or 2^(-133 - 25).
    assert_eq!(both(case(&[(two(-100), two(-49))], 0.0)), [two(-149); 2]);
    assert_eq!(both(case(&[(two(-100), 1.5 * two(-49))], 0.0)), [two(-149); 2]);
    assert_eq!(both(case(&[(two(-100), two(-50))], 0.0)), [0.0; 2]);
    // Sixteen times 2^-153 are 2^-149; Ampere loses a half after eight.
    assert_eq!(both(case(&[(two(-100), two(-53)); 16], 0.0)), [0.0, two(-149)]);
    // Zeros count with exponent -132 on Ampere, -133 on Hopper, although every product is smaller. 255 * 2^-157 + 2^-157 is
    // 2^-149, but Ampere cuts both off at 2^-156, to 127 * 2^-156 + 0; 1023 * 2^-159 + 2^-159 loses on Hopper, too.
    let thin = [(15.0 * two(-80), 17.0 * two(-77)), (two(-80), two(-77))];
    assert_eq!(both(case(&thin, 0.0)), [0.0, two(-149)]);
    let thinner = [(33.0 * two(-80), 31.0 * two(-79)), (two(-80), two(-79))];
    assert_eq!(both(case(&thinner, 0.0)), [0.0, 0.0]);
    let negative_zeros = both(case(&[(-1.0, 0.0), (0.0, -1.0)], -0.0));
    assert_eq!(negative_zeros.map(f32::to_bits), [0; 2]);
    // An accumulator -0 alone becomes +0, a subnormal one comes back whole.
    let least = f32::from_bits(0x8000_0001);
    assert_eq!(both(case(&[], least)), [least; 2]);
}

#[test]
fn special_values() {
    let inf = f32::INFINITY;
    let bits = |pairs: &[(f32, f32)], c: f32| both(case(pairs, c)).map(f32::to_bits);
    assert_eq!(bits(&[(inf, 2.0)], 1.0), [0x7f80_0000; 2]);
    assert_eq!(bits(&[(inf, -2.0), (1.0, 1.0)], f32::MAX), [0xff80_0000; 2]);
    assert_eq!(bits(&[(inf, 0.0)], 1.0), [0x7fff_ffff; 2]);
    assert_eq!(bits(&[(inf, 1.0), (-inf, 1.0)], 1.0), [0x7fff_ffff; 2]);
    assert_eq!(bits(&[(inf, 1.0)], -inf), [0x7fff_ffff; 2]);
    assert_eq!(bits(&[(-f32::NAN, 1.0)], 1.0), [0x7fff_ffff; 2]);
    assert_eq!(bits(&[(1.0, 1.0)], f32::from_bits(0xffc0_1234)), [0x7fff_ffff; 2]);
    assert_eq!(bits(&[(1.0, 1.0)], -inf), [0xff80_0000; 2]);
    // On Ampere the sum of the first eight overflows, and a later -inf meets it.
    let mut pairs = [(0.0, 0.0); 16];
    (pairs[0], pairs[8]) = ((two(100), two(100)), (-inf, 1.0));
    assert_eq!(bits(&pairs, 0.0), [0x7fff_ffff, 0xff80_0000]);
}
