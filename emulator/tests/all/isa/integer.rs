//! Integer instructions against the formulas of the PTX ISA (sections "Integer Arithmetic", "Logic and Shift", "Comparison
//! and Selection"), over values at the edges of each width.

use super::forms::{all, check};

const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x1_2345,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
    0x0123_4567_89ab_cdef,
];

/// Register of a type and its value as a whole number.
fn register(kind: &str) -> &'static str {
    match kind {
        "s16" | "u16" | "b16" => "%rs",
        "s64" | "u64" | "b64" => "%rd",
        _ => "%r",
    }
}

fn bits(kind: &str) -> u32 {
    kind[1..].parse().expect("a width behind the letter")
}

fn read(x: u64, kind: &str) -> i128 {
    let shift = 64 - bits(kind);
    if kind.starts_with('s') {
        i128::from((x << shift) as i64 >> shift)
    } else {
        i128::from(x << shift >> shift)
    }
}

fn write(x: i128, kind: &str) -> u64 {
    x as u64 & (u64::MAX >> (64 - bits(kind)))
}

const KINDS: [&str; 6] = ["s16", "u16", "s32", "u32", "s64", "u64"];

#[test]
fn arithmetic_of_two_operands() {
    type Formula = fn(i128, i128, u32) -> i128;
    let forms: [(&str, Formula); 6] = [
        ("add", |a, b, _| a + b),
        ("sub", |a, b, _| a - b),
        ("mul.lo", |a, b, _| a.wrapping_mul(b)),
        ("mul.hi", |a, b, bits| a.wrapping_mul(b) >> bits),
        ("min", |a, b, _| a.min(b)),
        ("max", |a, b, _| a.max(b)),
    ];
    for kind in KINDS {
        let r = register(kind);
        for (name, formula) in forms {
            check(&format!("{name}.{kind} {r}0, {r}1, {r}2;"), &all::<2>(EDGES), |[a, b]| {
                write(formula(read(a, kind), read(b, kind), bits(kind)), kind)
            });
        }
        // Division by zero has no defined value; neither has the quotient that overflows.
        let defined: Vec<[u64; 2]> = all::<2>(EDGES)
            .into_iter()
            .filter(|[a, b]| {
                let lowest = kind.starts_with('s') && read(*a, kind) == -(1_i128 << (bits(kind) - 1));
                read(*b, kind) != 0 && !(lowest && read(*b, kind) == -1)
            })
            .collect();
        check(&format!("div.{kind} {r}0, {r}1, {r}2;"), &defined, |[a, b]| {
            write(read(a, kind) / read(b, kind), kind)
        });
        check(&format!("rem.{kind} {r}0, {r}1, {r}2;"), &defined, |[a, b]| {
            write(read(a, kind) % read(b, kind), kind)
        });
    }
}

#[test]
fn products_with_an_addend() {
    let few = &[0, 1, 0x7fff, 0x8000, 0xffff, 0x8000_0000, 0xffff_ffff, 0x8000_0000_0000_0001, u64::MAX];
    for kind in KINDS {
        let r = register(kind);
        check(&format!("mad.lo.{kind} {r}0, {r}1, {r}2, {r}3;"), &all::<3>(few), |[a, b, c]| {
            write(read(a, kind).wrapping_mul(read(b, kind)).wrapping_add(read(c, kind)), kind)
        });
        if bits(kind) > 16 {
            check(&format!("mad.hi.{kind} {r}0, {r}1, {r}2, {r}3;"), &all::<3>(few), |[a, b, c]| {
                write((read(a, kind).wrapping_mul(read(b, kind)) >> bits(kind)) + read(c, kind), kind)
            });
        }
    }
    for (kind, double) in [("s16", "s32"), ("u16", "u32"), ("s32", "s64"), ("u32", "u64")] {
        let (r, d) = (register(kind), register(double));
        check(&format!("mul.wide.{kind} {d}0, {r}1, {r}2;"), &all::<2>(few), |[a, b]| {
            write(read(a, kind) * read(b, kind), double)
        });
        check(&format!("mad.wide.{kind} {d}0, {r}1, {r}2, {d}3;"), &all::<3>(few), |[a, b, c]| {
            write(read(a, kind) * read(b, kind) + read(c, double), double)
        });
    }
    for kind in ["s32", "u32"] {
        check(&format!("sad.{kind} %r0, %r1, %r2, %r3;"), &all::<3>(few), |[a, b, c]| {
            write(read(c, "u32") + (read(a, kind) - read(b, kind)).abs(), kind)
        });
    }
}

#[test]
fn arithmetic_of_one_operand() {
    for kind in ["s16", "s32", "s64"] {
        let r = register(kind);
        check(&format!("neg.{kind} {r}0, {r}1;"), &all::<1>(EDGES), |[a]| write(-read(a, kind), kind));
        check(&format!("abs.{kind} {r}0, {r}1;"), &all::<1>(EDGES), |[a]| write(read(a, kind).abs(), kind));
    }
    for kind in ["b16", "b32", "b64"] {
        let r = register(kind);
        let u = &format!("u{}", bits(kind));
        check(&format!("not.{kind} {r}0, {r}1;"), &all::<1>(EDGES), |[a]| write(!read(a, u), u));
        check(&format!("cnot.{kind} {r}0, {r}1;"), &all::<1>(EDGES), |[a]| u64::from(read(a, u) == 0));
    }
}

/// Bits from the lowest up.
fn bit(x: u64, at: u32) -> u64 {
    x >> at & 1
}

#[test]
fn counts_of_bits() {
    for width in [32, 64] {
        let r = if width == 32 { "%r" } else { "%rd" };
        let cut = |x: u64| x & (u64::MAX >> (64 - width));
        check(&format!("popc.b{width} %r0, {r}1;"), &all::<1>(EDGES), |[a]| {
            (0..width).map(|at| bit(a, at)).sum()
        });
        check(&format!("clz.b{width} %r0, {r}1;"), &all::<1>(EDGES), |[a]| {
            (0..width).rev().take_while(|at| bit(a, *at) == 0).count() as u64
        });
        check(&format!("brev.b{width} {r}0, {r}1;"), &all::<1>(EDGES), |[a]| {
            (0..width).map(|at| bit(a, at) << (width - 1 - at)).sum()
        });
        for kind in ["u", "s"] {
            // The most significant bit that is no copy of the sign; -1 where there is none.
            let find = |a: u64| {
                let negative = kind == "s" && bit(a, width - 1) == 1;
                (0..width).rev().find(|at| bit(cut(if negative { !a } else { a }), *at) == 1)
            };
            check(&format!("bfind.{kind}{width} %r0, {r}1;"), &all::<1>(EDGES), |[a]| {
                find(a).map_or(0xffff_ffff, u64::from)
            });
            check(&format!("bfind.shiftamt.{kind}{width} %r0, {r}1;"), &all::<1>(EDGES), |[a]| {
                find(a).map_or(0xffff_ffff, |at| u64::from(width - 1 - at))
            });
        }
    }
}

/// Counts beyond the width act as the width; the count has 32 bits whatever the operand.
#[test]
fn shifts_clamp_their_count() {
    let values = [1, 0x8001, 0x8000_0001, 0x8000_0000_0000_0001, 0x7fff_0ff0_7fff_0ff0, u64::MAX];
    let counts = [0, 1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 0x1_0001, 0x8000_0000, 0xffff_ffff];
    let sets: Vec<[u64; 2]> = values.iter().flat_map(|a| counts.map(|b| [*a, b])).collect();
    for width in [16_u32, 32, 64] {
        let r = register(&format!("b{width}"));
        let (unsigned, signed) = (format!("u{width}"), format!("s{width}"));
        let clamp = |b: u64| b.min(u64::from(width)) as u32;
        check(&format!("shl.b{width} {r}0, {r}1, %r2;"), &sets, |[a, b]| {
            write(read(a, &unsigned) << clamp(b), &unsigned)
        });
        for kind in [&unsigned, &signed] {
            check(&format!("shr.{kind} {r}0, {r}1, %r2;"), &sets, |[a, b]| {
                write(read(a, kind) >> clamp(b), kind)
            });
        }
        check(&format!("shr.b{width} {r}0, {r}1, %r2;"), &sets, |[a, b]| {
            write(read(a, &unsigned) >> clamp(b), &unsigned)
        });
    }
    let sets: Vec<[u64; 3]> =
        sets.iter().map(|[a, b]| [*a & 0xffff_ffff, *a >> 32 ^ 0x1234_5678, *b]).collect();
    for (mode, limit) in [("clamp", None), ("wrap", Some(31))] {
        let count = |c: u64| limit.map_or(c.min(32), |mask| c & mask);
        let pair = |a: u64, b: u64| u128::from(b << 32 | a & 0xffff_ffff);
        check(&format!("shf.l.{mode}.b32 %r0, %r1, %r2, %r3;"), &sets, |[a, b, c]| {
            (pair(a, b) << count(c) >> 32) as u64 & 0xffff_ffff
        });
        check(&format!("shf.r.{mode}.b32 %r0, %r1, %r2, %r3;"), &sets, |[a, b, c]| {
            (pair(a, b) >> count(c)) as u64 & 0xffff_ffff
        });
    }
}

/// The ISA's own loop over the bits; position and length are the low bytes of their operands.
#[test]
fn fields_are_extracted_and_inserted() {
    let numbers = [0, 1, 5, 31, 32, 33, 60, 63, 64, 100, 255, 256, 257, 0x1_0020];
    let values = [0x8000_0000_0000_0000, 0xa5a5_5a5a_c3c3_3c3c, 0x0123_4567_89ab_cdef, u64::MAX];
    for width in [32, 64] {
        let r = register(&format!("b{width}"));
        let msb = width - 1;
        let sets: Vec<[u64; 3]> =
            values.iter().flat_map(|a| all::<2>(&numbers).into_iter().map(|[b, c]| [*a, b, c])).collect();
        for kind in ["u", "s"] {
            check(&format!("bfe.{kind}{width} {r}0, {r}1, %r2, %r3;"), &sets, |[a, b, c]| {
                let (position, length) = ((b & 0xff) as u32, (c & 0xff) as u32);
                let sign =
                    if kind == "u" || length == 0 { 0 } else { bit(a, (position + length - 1).min(msb)) };
                (0..=msb)
                    .map(|i| if i < length && position + i <= msb { bit(a, position + i) } else { sign } << i)
                    .sum()
            });
        }
        let sets: Vec<[u64; 4]> =
            sets.iter().map(|[a, b, c]| [*a, a.rotate_left(17) ^ 0xff, *b, *c]).collect();
        check(&format!("bfi.b{width} {r}0, {r}1, {r}2, %r3, %r4;"), &sets, |[a, b, c, d]| {
            let (position, length) = ((c & 0xff) as u32, (d & 0xff) as u32);
            let mut f = b & (u64::MAX >> (63 - msb));
            for i in (0..length).take_while(|i| position + i <= msb) {
                f = f & !(1 << (position + i)) | bit(a, i) << (position + i);
            }
            f
        });
    }
}

#[test]
fn bytes_are_permuted() {
    let controls: Vec<[u64; 3]> = (0..0x1_0000)
        .step_by(37)
        .chain([0, 0x3210, 0x7654, 0x8888, 0xffff, 0xdead_3210])
        .map(|control| [0x83_7f_00_ff, 0x80_01_fe_7e, control])
        .collect();
    check("prmt.b32 %r0, %r1, %r2, %r3;", &controls, |[a, b, control]| {
        let bytes = b << 32 | a;
        (0..4)
            .map(|at| {
                let select = control >> (4 * at) & 0xf;
                let byte = bytes >> (8 * (select & 7)) & 0xff;
                let value = if select & 8 == 0 { byte } else { 0xff * (byte >> 7) };
                value << (8 * at)
            })
            .sum()
    });
}

#[test]
fn any_function_of_three_bits() {
    let set = [[0x0f0f_3355_dead_beef, 0x3333_cccc_1234_5678, 0x5555_aaaa_8765_4321]];
    for table in 0..256_u64 {
        check(&format!("lop3.b32 %r0, %r1, %r2, %r3, {table};"), &set, |[a, b, c]| {
            (0..32).map(|at| bit(table, (bit(a, at) << 2 | bit(b, at) << 1 | bit(c, at)) as u32) << at).sum()
        });
    }
}

#[test]
fn logic_of_bits() {
    type Formula = fn(u64, u64) -> u64;
    let forms: [(&str, Formula); 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
    for (name, formula) in forms {
        for kind in ["b16", "b32", "b64"] {
            let r = register(kind);
            let u = format!("u{}", bits(kind));
            check(&format!("{name}.{kind} {r}0, {r}1, {r}2;"), &all::<2>(EDGES), |[a, b]| {
                write(i128::from(formula(a, b)), &u)
            });
        }
        check(&format!("{name}.pred %p0, %p1, %p2;"), &all::<2>(&[0, 1]), |[a, b]| formula(a, b));
    }
}

#[test]
fn comparisons_of_integers() {
    type Formula = fn(i128, i128) -> bool;
    let ordered: [(&str, &str, Formula); 6] = [
        ("eq", "eq", |a, b| a == b),
        ("ne", "ne", |a, b| a != b),
        ("lt", "lo", |a, b| a < b),
        ("le", "ls", |a, b| a <= b),
        ("gt", "hi", |a, b| a > b),
        ("ge", "hs", |a, b| a >= b),
    ];
    for kind in ["s16", "u16", "b16", "s32", "u32", "b32", "s64", "u64", "b64"] {
        let r = register(kind);
        for (name, unsigned, formula) in ordered {
            // Bits have no order, and the unsigned names are for unsigned types.
            if kind.starts_with('b') && !matches!(name, "eq" | "ne") {
                continue;
            }
            let names = if kind.starts_with('u') { vec![name, unsigned] } else { vec![name] };
            for name in names {
                check(&format!("setp.{name}.{kind} %p0, {r}1, {r}2;"), &all::<2>(EDGES), |[a, b]| {
                    u64::from(formula(read(a, kind), read(b, kind)))
                });
            }
        }
    }
}

/// The second destination holds the combination of the opposite comparison, not the opposite of the first.
#[test]
fn a_comparison_combines_with_a_predicate() {
    type Formula = fn(bool, bool) -> bool;
    let forms: [(&str, Formula); 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
    let sets = all::<3>(&[0, 1]);
    for (name, formula) in forms {
        for (mark, negated) in [("", false), ("!", true)] {
            let condition = |c: u64| (c != 0) != negated;
            check(&format!("setp.lt.{name}.s32 %p0|%p7, %r1, %r2, {mark}%p3;"), &sets, |[a, b, c]| {
                u64::from(formula(a < b, condition(c)))
            });
            check(&format!("setp.lt.{name}.s32 %p7|%p0, %r1, %r2, {mark}%p3;"), &sets, |[a, b, c]| {
                u64::from(formula(a >= b, condition(c)))
            });
        }
    }
    for kind in ["b16", "b32", "b64"] {
        let r = register(kind);
        check(&format!("selp.{kind} {r}0, {r}1, {r}2, %p3;"), &[[5, 9, 0], [5, 9, 1]], |[a, b, c]| {
            if c == 0 { b } else { a }
        });
    }
}
