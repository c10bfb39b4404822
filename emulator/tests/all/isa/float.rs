//! Floating-point instructions against IEEE 754 and the special values that the PTX ISA tabulates (section
//! "Floating Point Instructions").

use super::forms::{all, check, over};

const CANONICAL_NAN: u32 = 0x7fff_ffff;

fn bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn float(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

/// Zeros, subnormals, the ends of the range, infinities, NaN, and ordinary numbers, of both signs.
fn edges() -> Vec<u64> {
    let positive = [
        0.0,
        f32::from_bits(1),
        f32::from_bits(0x007f_ffff),
        f32::MIN_POSITIVE,
        1e-30,
        0.1,
        0.5,
        1.0,
        1.0 + f32::EPSILON,
        1.5,
        3.0,
        1e10,
        f32::MAX,
        f32::INFINITY,
    ];
    positive.into_iter().flat_map(|x| [bits(x), bits(-x)]).chain([bits(f32::NAN)]).collect()
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// Any NaN counts as one.
fn same(x: f32) -> u64 {
    if x.is_nan() { u64::from(CANONICAL_NAN) } else { bits(x) }
}

/// Checks a form with `.f32` operands; results that are NaN only have to be NaN.
#[track_caller]
fn check_f32<const N: usize>(text: &str, sets: &[[u64; N]], formula: impl Fn([f32; N]) -> f32) {
    let got = over(text, &sets.iter().map(|set| set.to_vec()).collect::<Vec<_>>());
    for (set, got) in sets.iter().zip(got) {
        let (expected, values) = (formula(set.map(float)), set.map(float));
        assert_eq!(
            same(float(got)),
            same(expected),
            "{text} of {values:?}: {} instead of {expected}",
            float(got)
        );
    }
}

#[test]
fn arithmetic_rounds_to_nearest_even() {
    let pairs = all::<2>(&edges());
    type Formula = fn(f32, f32) -> f32;
    let forms: [(&str, Formula); 4] = [
        ("add.rn.f32", |a, b| a + b),
        ("sub.f32", |a, b| a - b),
        ("mul.rn.f32", |a, b| a * b),
        ("div.rn.f32", |a, b| a / b),
    ];
    for (name, formula) in forms {
        check_f32(&format!("{name} %r0, %r1, %r2;"), &pairs, |[a, b]| formula(a, b));
        let ftz = name.replace("f32", "ftz.f32");
        check_f32(&format!("{ftz} %r0, %r1, %r2;"), &pairs, |[a, b]| flush(formula(flush(a), flush(b))));
    }
    check_f32("fma.rn.f32 %r0, %r1, %r2, %r3;", &all::<3>(&edges()), |[a, b, c]| a.mul_add(b, c));
    check_f32("fma.rn.ftz.f32 %r0, %r1, %r2, %r3;", &all::<3>(&edges()), |[a, b, c]| {
        flush(flush(a).mul_add(flush(b), flush(c)))
    });
    check_f32("sqrt.rn.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| a.sqrt());
    check_f32("rcp.rn.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| 1.0 / a);
    check_f32("rcp.rn.ftz.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| flush(1.0 / flush(a)));
}

/// `.sat` clamps to 0 and 1, and NaN to 0.
#[test]
fn saturation_clamps_to_the_unit_interval() {
    let clamp = |x: f32| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
    let pairs = all::<2>(&edges());
    check_f32("add.sat.f32 %r0, %r1, %r2;", &pairs, |[a, b]| clamp(a + b) + 0.0);
    check_f32("mul.sat.f32 %r0, %r1, %r2;", &pairs, |[a, b]| clamp(a * b) + 0.0);
    check_f32("fma.rn.sat.f32 %r0, %r1, %r2, %r3;", &all::<3>(&edges()), |[a, b, c]| {
        clamp(a.mul_add(b, c)) + 0.0
    });
}

/// One NaN gives the other operand, two the canonical NaN; `.NaN` passes it on; +0.0 is greater than -0.0.
#[test]
fn least_and_greatest() {
    let pairs = all::<2>(&edges());
    let less = |a: f32, b: f32| a < b || a == b && a.is_sign_negative();
    type Pick = fn(bool, f32, f32) -> f32;
    let forms: [(&str, Pick); 2] =
        [("min", |less, a, b| if less { a } else { b }), ("max", |less, a, b| if less { b } else { a })];
    for (name, pick) in forms {
        for (modifier, ftz) in [("", false), (".ftz", true)] {
            let read = |x: u64| if ftz { flush(float(x)) } else { float(x) };
            check(&format!("{name}{modifier}.f32 %r0, %r1, %r2;"), &pairs, |[a, b]| {
                let (a, b) = (read(a), read(b));
                match (a.is_nan(), b.is_nan()) {
                    (true, true) => u64::from(CANONICAL_NAN),
                    (true, false) => bits(b),
                    (false, true) => bits(a),
                    _ => bits(pick(less(a, b), a, b)),
                }
            });
            check(&format!("{name}{modifier}.NaN.f32 %r0, %r1, %r2;"), &pairs, |[a, b]| {
                let (a, b) = (read(a), read(b));
                if a.is_nan() || b.is_nan() { u64::from(CANONICAL_NAN) } else { bits(pick(less(a, b), a, b)) }
            });
        }
    }
}

#[test]
fn signs_are_bits() {
    let sets = all::<2>(&edges());
    check("copysign.f32 %r0, %r1, %r2;", &sets, |[a, b]| a & 0x8000_0000 | b & 0x7fff_ffff);
    check_f32("neg.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| -a);
    check_f32("abs.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| a.abs());
    check_f32("neg.ftz.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| -flush(a));
    check_f32("abs.ftz.f32 %r0, %r1;", &all::<1>(&edges()), |[a]| flush(a).abs());
}

#[test]
fn double_precision() {
    let positive = [0.0, f64::from_bits(1), f64::MIN_POSITIVE, 0.1, 1.0, 1.5, 1e300, f64::MAX, f64::INFINITY];
    let edges: Vec<u64> = positive
        .into_iter()
        .flat_map(|x| [x.to_bits(), (-x).to_bits()])
        .chain([f64::NAN.to_bits()])
        .collect();
    let same = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
    let checked = |text: &str, sets: Vec<Vec<u64>>, formula: &dyn Fn(&[f64]) -> f64| {
        for (set, got) in sets.iter().zip(over(text, &sets)) {
            let values: Vec<f64> = set.iter().map(|x| f64::from_bits(*x)).collect();
            assert_eq!(same(f64::from_bits(got)), same(formula(&values)), "{text} of {values:?}");
        }
    };
    let pairs = || all::<2>(&edges).into_iter().map(Vec::from).collect();
    checked("add.f64 %rd0, %rd1, %rd2;", pairs(), &|x| x[0] + x[1]);
    checked("sub.rn.f64 %rd0, %rd1, %rd2;", pairs(), &|x| x[0] - x[1]);
    checked("mul.f64 %rd0, %rd1, %rd2;", pairs(), &|x| x[0] * x[1]);
    checked("div.rn.f64 %rd0, %rd1, %rd2;", pairs(), &|x| x[0] / x[1]);
    checked(
        "fma.rn.f64 %rd0, %rd1, %rd2, %rd3;",
        all::<3>(&edges).into_iter().map(Vec::from).collect(),
        &|x| x[0].mul_add(x[1], x[2]),
    );
    let singles = || all::<1>(&edges).into_iter().map(Vec::from).collect();
    checked("sqrt.rn.f64 %rd0, %rd1;", singles(), &|x| x[0].sqrt());
    checked("rcp.rn.f64 %rd0, %rd1;", singles(), &|x| 1.0 / x[0]);
    checked("neg.f64 %rd0, %rd1;", singles(), &|x| -x[0]);
    checked("abs.f64 %rd0, %rd1;", singles(), &|x| x[0].abs());
}

/// Six comparisons that are false and six that are true where an operand is NaN, and the tests for NaN itself.
#[test]
fn comparisons_know_nan() {
    type Formula = fn(f64, f64) -> bool;
    let forms: [(&str, Formula); 6] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a.partial_cmp(&b).is_some_and(|order| order.is_ne())),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
    ];
    let doubles: Vec<u64> = edges().iter().map(|x| f64::from(float(*x)).to_bits()).collect();
    for (kind, register, edges) in
        [("f32", "%r", edges()), ("ftz.f32", "%r", edges()), ("f64", "%rd", doubles)]
    {
        let read = |x: u64| match kind {
            "f32" => f64::from(float(x)),
            "ftz.f32" => f64::from(flush(float(x))),
            _ => f64::from_bits(x),
        };
        let sets = all::<2>(&edges);
        let check = |name: &str, formula: &dyn Fn(f64, f64) -> bool| {
            check(&format!("setp.{name}.{kind} %p0, {register}1, {register}2;"), &sets, |[a, b]| {
                u64::from(formula(read(a), read(b)))
            });
        };
        for (name, formula) in forms {
            check(name, &formula);
            check(&format!("{name}u"), &|a, b| a.is_nan() || b.is_nan() || formula(a, b));
        }
        check("num", &|a, b| !a.is_nan() && !b.is_nan());
        check("nan", &|a, b| a.is_nan() || b.is_nan());
    }
}

/// The tables of special values of each approximate function.
#[test]
fn approximations_have_their_special_values() {
    let (inf, nan, sub) = (f32::INFINITY, f32::NAN, 1e-40_f32);
    let tables: &[(&str, &[(f32, f32)])] = &[
        ("rcp.approx.f32", &[(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, -0.0), (nan, nan)]),
        (
            "rcp.approx.ftz.f32",
            &[(0.0, inf), (-0.0, -inf), (sub, inf), (-sub, -inf), (inf, 0.0), (-inf, -0.0)],
        ),
        ("sqrt.approx.f32", &[(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, nan), (-1.0, nan), (nan, nan)]),
        ("sqrt.approx.ftz.f32", &[(sub, 0.0), (-sub, -0.0), (-1.0, nan)]),
        ("rsqrt.approx.f32", &[(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, nan), (-1.0, nan), (nan, nan)]),
        ("rsqrt.approx.ftz.f32", &[(sub, inf), (-sub, -inf)]),
        ("ex2.approx.f32", &[(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (sub, 1.0)]),
        ("ex2.approx.ftz.f32", &[(-126.0, f32::MIN_POSITIVE), (-127.0, 0.0), (-inf, 0.0), (1000.0, inf)]),
        (
            "lg2.approx.f32",
            &[(0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-1.0, nan), (nan, nan), (1.0, 0.0)],
        ),
        ("lg2.approx.ftz.f32", &[(sub, -inf), (-sub, -inf)]),
        ("sin.approx.f32", &[(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)]),
        ("cos.approx.f32", &[(0.0, 1.0), (-0.0, 1.0), (inf, nan), (-inf, nan), (nan, nan)]),
        ("tanh.approx.f32", &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)]),
    ];
    for (name, table) in tables {
        let sets: Vec<[u64; 1]> = table.iter().map(|(x, _)| [bits(*x)]).collect();
        check_f32(&format!("{name} %r0, %r1;"), &sets, |[x]| {
            table.iter().find(|(from, _)| bits(*from) == bits(x)).map_or(f32::NAN, |row| row.1)
        });
    }
}

/// Bounds of the ISA on relative or absolute errors over ordinary numbers.
#[test]
fn approximations_keep_their_bounds() {
    type Exact = fn(f64) -> f64;
    let positive: Vec<f32> =
        (0..4000).map(|i| (1.0 + i as f32 / 4000.0) * 2.0_f32.powi(i % 61 - 30)).collect();
    let near: Vec<f32> = (-2000..2000).map(|i| i as f32 * 0.0015).collect();
    let relative: [(&str, Exact, f64, &[f32]); 7] = [
        ("rcp.approx.ftz.f32", |x| 1.0 / x, -23.0, &positive),
        ("rcp.approx.f32", |x| 1.0 / x, -23.0, &positive),
        ("sqrt.approx.f32", f64::sqrt, -23.0, &positive),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), -22.4, &positive),
        ("ex2.approx.f32", f64::exp2, -22.0, &near),
        ("tanh.approx.f32", f64::tanh, -11.0, &near),
        ("div.full.f32", |x| 1.0 / x, -22.0, &positive),
    ];
    for (name, exact, bound, inputs) in relative {
        let sets: Vec<Vec<u64>> = inputs.iter().map(|x| vec![bits(*x)]).collect();
        let text = match name {
            "div.full.f32" => "mov.b32 %r2, 0f3F800000; div.full.f32 %r0, %r2, %r1;".to_owned(),
            _ => format!("{name} %r0, %r1;"),
        };
        for (x, got) in inputs.iter().zip(over(&text, &sets)) {
            let expected = exact(f64::from(*x));
            let error = if expected == 0.0 {
                f64::from(float(got)).abs()
            } else {
                (f64::from(float(got)) / expected - 1.0).abs()
            };
            assert!(error <= bound.exp2(), "{name} of {x}: error 2^{:.1}", error.log2());
        }
    }
    let absolute: [(&str, Exact, f64, &[f32]); 3] = [
        ("sin.approx.f32", f64::sin, -20.5, &near),
        ("cos.approx.f32", f64::cos, -20.5, &near),
        ("lg2.approx.f32", f64::log2, -22.0, &[0.5, 0.75, 0.999, 1.0, 1.001, 1.25, 1.5, 1.9, 2.0]),
    ];
    for (name, exact, bound, inputs) in absolute {
        let sets: Vec<Vec<u64>> = inputs.iter().map(|x| vec![bits(*x)]).collect();
        for (x, got) in inputs.iter().zip(over(&format!("{name} %r0, %r1;"), &sets)) {
            let error = (f64::from(float(got)) - exact(f64::from(*x))).abs();
            assert!(error <= bound.exp2(), "{name} of {x}: error 2^{:.1}", error.log2());
        }
    }
}
