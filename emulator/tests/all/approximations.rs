//! The `.approx` functions of f32 against the tables and the error bounds of the PTX ISA 9.1, section 9.7.3: `rcp` one unit
//! in the last place (ulp), `ex2` two, `rsqrt` 2^-22.9 of the result, `lg2` 2^-22 absolute for inputs in (0.5, 2) and relative
//! elsewhere, `sin` and `cos` 2^-20.5 absolute in [-2 pi, 2 pi] and 2^-14.7 in [-100 pi, 100 pi], `tanh` 2^-11 of the result.
//! `.ftz` replaces subnormal inputs and results by zeros of their sign; `tanh` has no `.ftz`.

use crate::common::{lanes, run_with};
use nabla_emulator::Options;

const INF: u32 = 0x7f80_0000;
const NEG: u32 = 0x8000_0000;
const ONE: u32 = 0x3f80_0000;
/// Any NaN, where a table expects one.
const NAN: u32 = 0x7fff_ffff;
/// The largest subnormal number.
const SUBNORMAL: u32 = 0x007f_ffff;

const FUNCTIONS: [&str; 7] = ["rcp", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"];

/// Applies a function to any number of inputs, all bits.
fn apply(function: &str, ftz: bool, inputs: &[u32]) -> Vec<u32> {
    let modifier = if ftz { ".ftz" } else { "" };
    let body = format!(
        "
    mov.b32 %r5, 0;
LOOP:
    ld.global.b32 %r3, [%rd2];
    {function}.approx{modifier}.f32 %r4, %r3;
    st.global.b32 [%rd3], %r4;
    add.s64 %rd2, %rd2, 4096;
    add.s64 %rd3, %rd3, 4096;
    add.s32 %r5, %r5, 1;
    setp.lt.s32 %p0, %r5, {};
    @%p0 bra LOOP;",
        inputs.len().div_ceil(1024)
    );
    let mut padded = inputs.to_vec();
    padded.resize(inputs.len().next_multiple_of(1024), 0);
    let (mut out, _) = run_with(&lanes(&body), 1024, 0, &padded, padded.len(), &Options::default())
        .unwrap_or_else(|fault| panic!("{fault}"));
    out.truncate(inputs.len());
    out
}

fn is_nan(bits: u32) -> bool {
    bits & !NEG > INF
}

fn flush(bits: u32) -> u32 {
    if bits & INF == 0 { bits & NEG } else { bits }
}

/// The function in f64, far more exact than every bound.
fn exact(function: &str, x: f64) -> f64 {
    match function {
        "rcp" => x.recip(),
        "rsqrt" => x.sqrt().recip(),
        "ex2" => x.exp2(),
        "lg2" => x.log2(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        // (e^2x - 1) / (e^2x + 1); beyond 20 it is one to 17 places.
        _ => {
            let power = (2.0 * x.clamp(-20.0, 20.0)).exp_m1();
            power / (power + 2.0)
        }
    }
}

/// Distance in steps from one f32 to the next; zeros of both signs are one.
fn ulps(a: u32, b: u32) -> u64 {
    let order = |bits: u32| {
        let magnitude = i64::from(bits & !NEG);
        if bits & NEG == 0 { magnitude } else { -magnitude }
    };
    order(a).abs_diff(order(b))
}

/// Whether a result for a finite input that no table lists lies within the bound; `None` where the ISA gives none.
fn within(function: &str, x: f64, got: u32) -> Option<bool> {
    use std::f64::consts::PI;
    let (y, value) = (exact(function, x), f64::from(f32::from_bits(got)));
    let nearest = (y as f32).to_bits();
    let (absolute, relative) = ((value - y).abs(), (value - y).abs() / y.abs());
    Some(match function {
        "rcp" => ulps(got, nearest) <= 1,
        "ex2" => ulps(got, nearest) <= 2,
        "rsqrt" => relative <= (-22.9_f64).exp2(),
        "lg2" if x > 0.5 && x < 2.0 => absolute <= (-22_f64).exp2(),
        "lg2" => relative <= (-22_f64).exp2(),
        "sin" | "cos" if x.abs() <= 2.0 * PI => absolute <= (-20.5_f64).exp2(),
        "sin" | "cos" if x.abs() <= 100.0 * PI => absolute <= (-14.7_f64).exp2(),
        "sin" | "cos" => return None,
        // A subnormal input comes back.
        _ if x.abs() < f64::from(f32::MIN_POSITIVE) => value == x,
        _ => relative <= (-11_f64).exp2(),
    })
}

fn check(function: &str, ftz: bool, inputs: &[u32]) {
    let mut bounded = 0;
    for (input, got) in inputs.iter().zip(apply(function, ftz, inputs)) {
        let read = if ftz { flush(*input) } else { *input };
        let x = f64::from(f32::from_bits(read));
        let negative = read & NEG != 0;
        if read & !NEG == 0 || read & !NEG >= INF || negative && matches!(function, "rsqrt" | "lg2") {
            continue;
        }
        let nearest = (exact(function, x) as f32).to_bits();
        // With `.ftz` a result that is subnormal, or so close that it may be, is a zero of its sign.
        if ftz && got & !NEG == 0 && nearest & !NEG <= SUBNORMAL + 2 {
            assert_eq!(got, nearest & NEG, "{function} {input:08x}");
            continue;
        }
        assert!(!ftz || got & !NEG > SUBNORMAL, "{function}.ftz {input:08x}: {got:08x} is subnormal");
        if let Some(right) = within(function, x, got) {
            assert!(right, "{function} ftz {ftz} {input:08x}: {got:08x}, nearest is {nearest:08x}");
            bounded += 1;
        }
    }
    assert!(bounded * 4 > inputs.len(), "{function}: the bound held for only {bounded} inputs");
}

/// 48 significands for each exponent and sign: the ends, and others spread by a multiplicative sequence.
fn every_exponent() -> Vec<u32> {
    let mut inputs = Vec::new();
    for upper in 0..512_u32 {
        for i in 0..48_u32 {
            let fraction = match i {
                0 => 0,
                1 => 1,
                2 => 0x7f_ffff,
                3 => 0x40_0000,
                _ => (upper * 48 + i).wrapping_mul(0x9e37_79b9) >> 9,
            };
            inputs.push(upper << 23 | fraction);
        }
    }
    inputs
}

/// Evenly spread numbers.
fn range(low: f32, high: f32) -> Vec<u32> {
    let count = 30_000_u16;
    let step = (high - low) / f32::from(count);
    (0..count).map(|i| (low + f32::from(i) * step).to_bits()).collect()
}

#[test]
fn errors_stay_within_the_bounds_at_every_exponent() {
    for function in FUNCTIONS {
        for ftz in [false, true] {
            if function != "tanh" || !ftz {
                check(function, ftz, &every_exponent());
            }
        }
    }
}

#[test]
fn errors_stay_within_the_bounds_where_the_functions_vary() {
    for ftz in [false, true] {
        // Results from beyond the least subnormal to infinity.
        check("ex2", ftz, &range(-152.0, 130.0));
        check("ex2", ftz, &range(-1.0, 1.0));
        check("lg2", ftz, &range(0.25, 4.0));
        check("lg2", ftz, &range(0.9999, 1.0001));
        check("rcp", ftz, &range(1.0, 2.0));
        check("rsqrt", ftz, &range(1.0, 4.0));
        for function in ["sin", "cos"] {
            check(function, ftz, &range(-6.29, 6.29));
            check(function, ftz, &range(-314.2, 314.2));
        }
    }
    check("ex2", false, &range(-150.5, -125.5));
    check("tanh", false, &range(-10.0, 10.0));
}

#[test]
fn special_values_are_those_of_the_tables() {
    // Results for -Inf, -0, +0, +Inf; NaN always gives NaN.
    let tables = [
        ("rcp", [NEG, NEG | INF, INF, 0]),
        ("rsqrt", [NAN, NEG | INF, INF, 0]),
        ("ex2", [0, ONE, ONE, INF]),
        ("lg2", [NAN, NEG | INF, NEG | INF, INF]),
        ("sin", [NAN, NEG, 0, NAN]),
        ("cos", [NAN, ONE, ONE, NAN]),
        ("tanh", [NEG | ONE, NEG, 0, ONE]),
    ];
    let nans = [NAN, INF | 1, NEG | INF | 1, 0x7fc0_0000];
    for (function, expected) in tables {
        for ftz in [false, true] {
            if function == "tanh" && ftz {
                continue;
            }
            let mut cases = vec![];
            cases.extend([NEG | INF, NEG, 0, INF].into_iter().zip(expected));
            cases.extend(nans.map(|nan| (nan, NAN)));
            if ftz {
                // Subnormal numbers are zeros of their sign.
                let [_, minus, plus, _] = expected;
                cases.extend([SUBNORMAL, 1].map(|x| (x, plus)));
                cases.extend([NEG | SUBNORMAL, NEG | 1].map(|x| (x, minus)));
            }
            if matches!(function, "rsqrt" | "lg2") {
                cases.extend([NEG | ONE, 0xff7f_ffff, 0x8080_0000].map(|x| (x, NAN)));
            }
            let inputs: Vec<u32> = cases.iter().map(|case| case.0).collect();
            for ((input, expected), got) in cases.into_iter().zip(apply(function, ftz, &inputs)) {
                let right = if expected == NAN { is_nan(got) } else { got == expected };
                assert!(right, "{function} ftz {ftz} {input:08x}: {got:08x}, not {expected:08x}");
            }
        }
    }
}

#[test]
fn subnormal_numbers_count_without_ftz() {
    let cases = [
        // 1 / 2^-127 = 2^127 and back; 1 / 2^-128 is too large.
        ("rcp", 0x0040_0000, 0x7f00_0000),
        ("rcp", 0x7f00_0000, 0x0040_0000),
        ("rcp", 0x8020_0000, NEG | INF),
        // 1 / sqrt(2^-148) = 2^74, log2(2^-149) = -149, 2^-149 is the least subnormal number.
        ("rsqrt", 2, (74 + 127) << 23),
        ("lg2", 1, (-149.0_f32).to_bits()),
        ("ex2", (-149.0_f32).to_bits(), 1),
        ("ex2", SUBNORMAL, ONE),
        ("cos", NEG | SUBNORMAL, ONE),
        ("tanh", NEG | 0x1234, NEG | 0x1234),
    ];
    for (function, input, expected) in cases {
        assert_eq!(apply(function, false, &[input]), [expected], "{function} {input:08x}");
    }
    // With `.ftz` the inputs and results above are zeros.
    assert_eq!(apply("rcp", true, &[0x7f00_0000, 0xff00_0000]), [0, NEG]);
    assert_eq!(apply("ex2", true, &[(-126.0_f32).to_bits(), (-127.0_f32).to_bits()]), [0x0080_0000, 0]);
}
