//! `cvt` against the definition of each rounding (PTX ISA, section "Data Movement and Conversion Instructions: cvt").

use super::forms::{all, check, over};

/// A binary format by its definition: bits of the exponent and of the fraction.
#[derive(Clone, Copy)]
struct Format {
    exponent: i32,
    fraction: i32,
}

const F16: Format = Format { exponent: 5, fraction: 10 };
const BF16: Format = Format { exponent: 8, fraction: 7 };
const F32: Format = Format { exponent: 8, fraction: 23 };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The value of the bits below the sign; infinity stands for what would be the next number.
    fn value(self, bits: u64) -> f64 {
        let (high, low) = (bits >> self.fraction, bits & ((1 << self.fraction) - 1));
        if high == 0 {
            low as f64 * 2.0_f64.powi(1 - self.bias() - self.fraction)
        } else {
            ((1 << self.fraction) + low) as f64 * 2.0_f64.powi(high as i32 - self.bias() - self.fraction)
        }
    }

    /// Rounds by comparing with the two numbers around it.
    fn round(self, x: f64, mode: &str) -> u64 {
        let sign = u64::from(x.is_sign_negative()) << (self.exponent + self.fraction);
        let infinity = ((1 << self.exponent) - 1) << self.fraction;
        if x.is_nan() {
            return (1 << (self.exponent + self.fraction)) - 1;
        }
        let magnitude = x.abs();
        if magnitude.is_infinite() {
            return sign | infinity;
        }
        // The largest number that is not above: by bisection, since numbers are in the order of their bits.
        let (mut low, mut high) = (0, infinity);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.value(middle) <= magnitude { low = middle } else { high = middle }
        }
        if self.value(low) == magnitude {
            return sign | low;
        }
        let up = match (mode, sign != 0) {
            ("rz", _) | ("rm", false) | ("rp", true) => false,
            ("rm", true) | ("rp", false) => true,
            _ => {
                let (below, above) = (magnitude - self.value(low), self.value(high) - magnitude);
                above < below || above == below && low % 2 == 1
            }
        };
        sign | if up { high } else { low }
    }
}

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// Doubles around the numbers of a format: each number, the middle to the next, and a little to both sides.
fn around(format: Format) -> Vec<u64> {
    let infinity = ((1_u64 << format.exponent) - 1) << format.fraction;
    let step = (infinity / 97).max(1) as usize;
    let ends = [0, 1, 2, (1 << format.fraction) - 1, 1 << format.fraction, infinity - 2, infinity - 1];
    let mut values = Vec::new();
    for bits in (0..infinity).step_by(step).chain(ends) {
        let (low, high) = (format.value(bits), format.value(bits + 1));
        let middle = low + (high - low) / 2.0;
        values.extend([low, middle, middle.next_up(), middle.next_down(), low.next_up(), high.next_down()]);
    }
    let far =
        [1e-300, 1e-46, 1e39, 2.0_f64.powi(385) * 1.999_999_99, 2.0_f64.powi(386), 2.0_f64.powi(898), 1e300];
    values.extend(far.into_iter().chain([f64::INFINITY, f64::NAN]));
    values
        .iter()
        .flat_map(|x| [x.to_bits(), (-x).to_bits()])
        .filter(|x| *x != (-f64::NAN).to_bits())
        .collect()
}

#[test]
fn doubles_round_to_single() {
    let sets: Vec<[u64; 1]> = around(F32).iter().map(|x| [*x]).collect();
    for mode in MODES {
        check(&format!("cvt.{mode}.f32.f64 %r0, %rd1;"), &sets, |[x]| F32.round(f64::from_bits(x), mode));
    }
}

#[test]
fn singles_round_to_half_precision() {
    for (name, format, modes) in [("f16", F16, &MODES[..]), ("bf16", BF16, &MODES[..2])] {
        let mut sets: Vec<[u64; 1]> =
            around(format).iter().map(|x| [u64::from((f64::from_bits(*x) as f32).to_bits())]).collect();
        sets.extend([[1], [0x8000_0001], [0x7f7f_ffff], [0xff7f_ffff]]);
        for mode in modes {
            let exact = |x: u64| format.round(f64::from(f32::from_bits(x as u32)), mode);
            check(&format!("cvt.{mode}.{name}.f32 %rs0, %r1;"), &sets, |[x]| exact(x));
            if matches!(*mode, "rn" | "rz") {
                let pairs: Vec<[u64; 2]> =
                    sets.iter().zip(sets.iter().rev()).map(|(a, b)| [a[0], b[0]]).collect();
                // The first source is the upper half.
                check(&format!("cvt.{mode}.{name}x2.f32 %r0, %r1, %r2;"), &pairs, |[a, b]| {
                    exact(a) << 16 | exact(b)
                });
                let relu = |x: u64| {
                    let value = f32::from_bits(x as u32);
                    if value <= 0.0 { 0 } else { exact(x) }
                };
                let pairs: Vec<[u64; 2]> =
                    pairs.into_iter().filter(|pair| pair.iter().all(|x| *x != 0x8000_0000)).collect();
                check(&format!("cvt.{mode}.relu.{name}x2.f32 %r0, %r1, %r2;"), &pairs, |[a, b]| {
                    relu(a) << 16 | relu(b)
                });
            }
        }
    }
}

#[test]
fn half_precision_widens_exactly() {
    for (name, format) in [("f16", F16), ("bf16", BF16)] {
        let sign = 1 << 15;
        let infinity = ((1_u64 << format.exponent) - 1) << format.fraction;
        let sets: Vec<[u64; 1]> =
            (0..=infinity).step_by(7).chain([1, 2, infinity - 1, infinity]).map(|x| [x]).collect();
        let sets: Vec<[u64; 1]> = sets.iter().flat_map(|[x]| [[*x], [*x | sign]]).collect();
        check(&format!("cvt.f32.{name} %r0, %rs1;"), &sets, |[x]| {
            let magnitude = if x & !sign == infinity { f64::INFINITY } else { format.value(x & !sign) };
            let value = if x & sign == 0 { magnitude } else { -magnitude };
            u64::from((value as f32).to_bits())
        });
        let nan = over(&format!("cvt.f32.{name} %r0, %rs1;"), &[vec![infinity + 1]])[0];
        assert!(f32::from_bits(nan as u32).is_nan());
    }
    let singles: Vec<[u64; 1]> =
        [0.1_f32, -0.0, 1e-45, f32::MAX, f32::INFINITY].iter().map(|x| [u64::from(x.to_bits())]).collect();
    check("cvt.f64.f32 %rd0, %r1;", &singles, |[x]| f64::from(f32::from_bits(x as u32)).to_bits());
}

const INTEGERS: [&str; 8] = ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"];

fn width(kind: &str) -> u32 {
    kind[1..].parse().expect("a width behind the letter")
}

/// Registers hold at least 16 bits.
fn register(kind: &str) -> &'static str {
    match width(kind) {
        64 => "%rd",
        8 | 16 => "%rs",
        _ => "%r",
    }
}

fn read(x: u64, kind: &str) -> i128 {
    let shift = 64 - width(kind);
    if kind.starts_with('s') {
        i128::from((x << shift) as i64 >> shift)
    } else {
        i128::from(x << shift >> shift)
    }
}

fn range(kind: &str) -> (i128, i128) {
    let bits = width(kind);
    if kind.starts_with('s') { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// What a register of a type holds after a value of it was written: extended by the type's sign.
fn held(x: i128, kind: &str) -> u64 {
    let value = read(x as u64, kind);
    let register = width(kind).max(16);
    value as u64 & (u64::MAX >> (64 - register))
}

const EDGES: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
    0x0123_4567_89ab_cdef,
];

#[test]
fn integers_are_cut_extended_and_clamped() {
    for from in INTEGERS {
        for to in INTEGERS {
            let (d, a) = (register(to), register(from));
            check(&format!("cvt.{to}.{from} {d}0, {a}1;"), &all::<1>(EDGES), |[x]| held(read(x, from), to));
            let (low, high) = range(to);
            check(&format!("cvt.sat.{to}.{from} {d}0, {a}1;"), &all::<1>(EDGES), |[x]| {
                held(read(x, from).clamp(low, high), to)
            });
        }
    }
}

/// Doubles near the ends of an integer type, halves, and the rest of the line.
fn line(kind: &str) -> Vec<f64> {
    let (low, high) = range(kind);
    let mut values = vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 100.5, 1e-40, 1e20, 1e38, f64::INFINITY];
    for end in [low as f64, high as f64, (high + 1) as f64] {
        values.extend([end, end + 0.5, end - 0.5, end + 1.0, end - 1.0]);
    }
    values.iter().flat_map(|x| [*x, -*x]).collect()
}

fn whole(x: f64, mode: &str) -> f64 {
    match mode {
        "rni" => x.round_ties_even(),
        "rzi" => x.trunc(),
        "rmi" => x.floor(),
        _ => x.ceil(),
    }
}

#[test]
fn floats_become_integers_within_their_range() {
    for kind in INTEGERS {
        let d = register(kind);
        let (low, high) = range(kind);
        for mode in ["rni", "rzi", "rmi", "rpi"] {
            let clamp = |x: f64| held((whole(x, mode) as i128).clamp(low, high), kind);
            let doubles: Vec<[u64; 1]> = line(kind).iter().map(|x| [x.to_bits()]).collect();
            check(&format!("cvt.{mode}.{kind}.f64 {d}0, %rd1;"), &doubles, |[x]| clamp(f64::from_bits(x)));
            let singles: Vec<[u64; 1]> =
                line(kind).iter().map(|x| [u64::from((*x as f32).to_bits())]).collect();
            check(&format!("cvt.{mode}.{kind}.f32 {d}0, %r1;"), &singles, |[x]| {
                clamp(f64::from(f32::from_bits(x as u32)))
            });
            let halves: Vec<[u64; 1]> = line(kind).iter().map(|x| [F16.round(*x, "rn")]).collect();
            check(&format!("cvt.{mode}.{kind}.f16 {d}0, %rs1;"), &halves, |[x]| {
                let magnitude = if x & 0x7fff == 0x7c00 { f64::INFINITY } else { F16.value(x & 0x7fff) };
                clamp(if x & 0x8000 == 0 { magnitude } else { -magnitude })
            });
        }
    }
}

/// Zero, unless the source is `.f64` or the destination has 64 bits: then the sign bit of the destination alone.
#[test]
fn nan_becomes_zero_or_the_sign_bit() {
    for kind in INTEGERS {
        let d = register(kind);
        let sign = held(1 << (width(kind) - 1), kind);
        let double = over(&format!("cvt.rzi.{kind}.f64 {d}0, %rd1;"), &[vec![f64::NAN.to_bits()]]);
        assert_eq!(double, [sign], "{kind} of a double NaN");
        let single = over(&format!("cvt.rzi.{kind}.f32 {d}0, %r1;"), &[vec![u64::from(f32::NAN.to_bits())]]);
        assert_eq!(single, [if width(kind) == 64 { sign } else { 0 }], "{kind} of a single NaN");
    }
}

#[test]
fn integers_become_floats() {
    let mut values = EDGES.to_vec();
    // Around ties of 24 and of 53 bits, where rounding twice would show.
    for shift in [8, 24, 40] {
        for low in [0, 1, 2, 3] {
            values.extend(
                [0x80_0000_u64, 0x80_0001, 0xff_ffff].map(|x| (x << shift | 1 << (shift - 1)) + low - 1),
            );
        }
    }
    values.extend([
        0x8000_0000_0000_0400,
        0x8000_0000_0000_0401,
        0x8000_0000_0000_0c00,
        0xffff_ffff_ffff_fc00,
    ]);
    for from in ["s32", "u32", "s64", "u64"] {
        let a = register(from);
        for mode in MODES {
            check(&format!("cvt.{mode}.f32.{from} %r0, {a}1;"), &all::<1>(&values), |[x]| {
                // Exact in 128 bits: the double that keeps an odd bit for what it cut rounds as the whole does.
                let value = read(x, from);
                let cut = (128 - value.unsigned_abs().leading_zeros()).saturating_sub(53);
                let kept = value.unsigned_abs() >> cut << cut;
                let sticky = if kept == value.unsigned_abs() { 0 } else { 1 << cut };
                let magnitude = (kept | sticky) as f64;
                F32.round(if value < 0 { -magnitude } else { magnitude }, mode)
            });
            check(&format!("cvt.{mode}.f64.{from} %rd0, {a}1;"), &all::<1>(&values), |[x]| {
                let value = read(x, from);
                let near = value as f64;
                let error = value - near as i128;
                let up = matches!(mode, "rp") || mode == "rz" && value < 0;
                let down = matches!(mode, "rm") || mode == "rz" && value > 0;
                (if error > 0 && up {
                    near.next_up()
                } else if error < 0 && down {
                    near.next_down()
                } else {
                    near
                })
                .to_bits()
            });
        }
    }
}

/// `.sat` clamps to 0 and 1 and makes NaN zero; a whole number in its own type keeps the sign of zero.
#[test]
fn floats_are_clamped_and_made_whole() {
    let singles: Vec<[u64; 1]> =
        [-2.0_f32, -0.5, -0.0, 0.0, 0.3, 0.5, 1.0, 1.5, 2.5, -1.5, 1e30, f32::INFINITY, f32::NEG_INFINITY]
            .iter()
            .map(|x| [u64::from(x.to_bits())])
            .collect();
    let float = |x: u64| f32::from_bits(x as u32);
    for mode in ["rni", "rzi", "rmi", "rpi"] {
        check(&format!("cvt.{mode}.f32.f32 %r0, %r1;"), &singles, |[x]| {
            let value = whole(f64::from(float(x)), mode) as f32;
            u64::from(value.copysign(float(x)).to_bits())
        });
    }
    let nonzero: Vec<[u64; 1]> = singles.iter().copied().filter(|[x]| *x != 0x8000_0000).collect();
    check("cvt.sat.f32.f32 %r0, %r1;", &nonzero, |[x]| u64::from(float(x).clamp(0.0, 1.0).to_bits()));
    assert_eq!(over("cvt.sat.f32.f32 %r0, %r1;", &[vec![u64::from(f32::NAN.to_bits())]]), [0]);
    // Subnormal sources and results become zeros of their sign.
    let subnormal = [[1], [0x8000_0001], [0x0080_0000]];
    check(
        "cvt.ftz.f32.f32 %r0, %r1;",
        &subnormal,
        |[x]| if x & 0x7f80_0000 == 0 { x & 0x8000_0000 } else { x },
    );
    check("cvt.ftz.rzi.s32.f32 %r0, %r1;", &subnormal, |_| 0);
    check("cvt.rpi.ftz.s32.f32 %r0, %r1;", &subnormal, |[x]| u64::from(x == 0x0080_0000));
    check("cvt.rn.ftz.f32.f64 %r0, %rd1;", &[[1e-40_f64.to_bits()], [(-1e-40_f64).to_bits()]], |[x]| {
        x >> 63 << 31
    });
}
