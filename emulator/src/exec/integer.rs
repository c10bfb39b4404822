//! Integer arithmetic on all lanes.

use super::lanes::{LANES, map1, map2, map3};
use crate::program::{Count, Int1, Int2, Int3};

type Narrow = [u32; LANES];
type Wide = [u64; LANES];

/// Two operands of 32 bits; a shift count beyond the width shifts everything out.
#[inline(always)]
pub(crate) fn two32(f: Int2, a: &Narrow, b: &Narrow) -> Narrow {
    let signed = |f: fn(i32, i32) -> i32| map2(a, b, move |x, y| f(x as i32, y as i32) as u32);
    match f {
        Int2::Add => map2(a, b, u32::wrapping_add),
        Int2::Sub => map2(a, b, u32::wrapping_sub),
        Int2::Mul => map2(a, b, u32::wrapping_mul),
        Int2::MulHighU => map2(a, b, |x, y| ((u64::from(x) * u64::from(y)) >> 32) as u32),
        Int2::MulHighS => map2(a, b, |x, y| ((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32),
        Int2::And => map2(a, b, |x, y| x & y),
        Int2::Or => map2(a, b, |x, y| x | y),
        Int2::Xor => map2(a, b, |x, y| x ^ y),
        Int2::Shl => map2(a, b, |x, y| if y > 31 { 0 } else { x << y }),
        Int2::ShrU => map2(a, b, |x, y| if y > 31 { 0 } else { x >> y }),
        Int2::ShrS => map2(a, b, |x, y| (x as i32 >> y.min(31)) as u32),
        Int2::MinU => map2(a, b, u32::min),
        Int2::MaxU => map2(a, b, u32::max),
        Int2::MinS => map2(a, b, |x, y| (x as i32).min(y as i32) as u32),
        Int2::MaxS => map2(a, b, |x, y| (x as i32).max(y as i32) as u32),
        // Division by zero has no value in PTX; the hardware gives all ones, and the dividend as the remainder.
        Int2::DivU => map2(a, b, |x, y| x.checked_div(y).unwrap_or(u32::MAX)),
        Int2::RemU => map2(a, b, |x, y| x.checked_rem(y).unwrap_or(x)),
        Int2::DivS => signed(|x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        Int2::RemS => signed(|x, y| if y == 0 { x } else { x.wrapping_rem(y) }),
    }
}

/// Two operands of 64 bits; shifts are apart, since their count has 32.
#[inline(always)]
pub(crate) fn two64(f: Int2, a: &Wide, b: &Wide) -> Wide {
    let signed = |f: fn(i64, i64) -> i64| map2(a, b, move |x, y| f(x as i64, y as i64) as u64);
    match f {
        Int2::Add => map2(a, b, u64::wrapping_add),
        Int2::Sub => map2(a, b, u64::wrapping_sub),
        Int2::Mul => map2(a, b, u64::wrapping_mul),
        Int2::MulHighU => map2(a, b, |x, y| ((u128::from(x) * u128::from(y)) >> 64) as u64),
        Int2::MulHighS => map2(a, b, |x, y| ((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64),
        Int2::And => map2(a, b, |x, y| x & y),
        Int2::Or => map2(a, b, |x, y| x | y),
        Int2::Xor => map2(a, b, |x, y| x ^ y),
        Int2::MinU => map2(a, b, u64::min),
        Int2::MaxU => map2(a, b, u64::max),
        Int2::MinS => signed(i64::min),
        Int2::MaxS => signed(i64::max),
        Int2::DivU => map2(a, b, |x, y| x.checked_div(y).unwrap_or(u64::MAX)),
        Int2::RemU => map2(a, b, |x, y| x.checked_rem(y).unwrap_or(x)),
        Int2::DivS => signed(|x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        Int2::RemS => signed(|x, y| if y == 0 { x } else { x.wrapping_rem(y) }),
        Int2::Shl | Int2::ShrU | Int2::ShrS => *a,
    }
}

/// Shifts of 64-bit lanes.
#[inline(always)]
pub(crate) fn shift64(f: Int2, a: &Wide, b: &Narrow) -> Wide {
    match f {
        Int2::Shl => map2(a, b, |x, y| if y > 63 { 0 } else { x << y }),
        Int2::ShrU => map2(a, b, |x, y| if y > 63 { 0 } else { x >> y }),
        _ => map2(a, b, |x, y| (x as i64 >> y.min(63)) as u64),
    }
}

pub(crate) fn one32(f: Int1, a: &Narrow) -> Narrow {
    match f {
        Int1::Not => map1(a, |x| !x),
        Int1::Neg => map1(a, u32::wrapping_neg),
        Int1::Abs => map1(a, |x| (x as i32).wrapping_abs() as u32),
        Int1::Brev => map1(a, u32::reverse_bits),
        Int1::Cnot => map1(a, |x| u32::from(x == 0)),
    }
}

pub(crate) fn one64(f: Int1, a: &Wide) -> Wide {
    match f {
        Int1::Not => map1(a, |x| !x),
        Int1::Neg => map1(a, u64::wrapping_neg),
        Int1::Abs => map1(a, |x| (x as i64).wrapping_abs() as u64),
        Int1::Brev => map1(a, u64::reverse_bits),
        Int1::Cnot => map1(a, |x| u64::from(x == 0)),
    }
}

/// Counts of a value of `bits` bits, held zero-extended.
pub(crate) fn count(f: Count, value: u64, bits: u32) -> u32 {
    let find = |value: u64| if value == 0 { u32::MAX } else { 63 - value.leading_zeros() };
    // The signed form looks for the highest bit that differs from the sign.
    let negative = value >> (bits - 1) & 1 == 1;
    let flipped = if negative { !value & (u64::MAX >> (64 - bits)) } else { value };
    let shift = |at: u32| if at == u32::MAX { at } else { bits - 1 - at };
    match f {
        Count::Popc => value.count_ones(),
        Count::Clz => value.leading_zeros() - (64 - bits),
        Count::FindU => find(value),
        Count::FindS => find(flipped),
        Count::FindShiftU => shift(find(value)),
        Count::FindShiftS => shift(find(flipped)),
    }
}

/// Extracts a field of `width` bits; position and length count to 255.
fn extract(value: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if length == 0 {
        return 0;
    }
    let full = u64::MAX >> (64 - width);
    let sign = signed && value >> (position + length - 1).min(width - 1) & 1 == 1;
    let field = if position < width { (value & full) >> position } else { 0 };
    let taken = length.min(width.saturating_sub(position));
    let keep = if taken == 0 { 0 } else { u64::MAX >> (64 - taken) };
    (field & keep) | if sign { full & !keep } else { 0 }
}

/// Inserts the low bits of `a` into `b`.
pub(crate) fn insert(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if length == 0 || position >= width {
        return b;
    }
    let taken = length.min(width - position);
    let mask = (u64::MAX >> (64 - taken)) << position;
    b & !mask | a << position & mask
}

fn permute(a: u32, b: u32, control: u32) -> u32 {
    let source = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    u32::from_le_bytes(std::array::from_fn(|at| {
        let select = control >> (4 * at) & 15;
        let byte = source[(select & 7) as usize];
        // The fourth bit repeats the sign of the byte.
        if select & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte }
    }))
}

#[inline(always)]
pub(crate) fn three32(f: Int3, a: &Narrow, b: &Narrow, c: &Narrow) -> Narrow {
    let funnel = |x: u32, y: u32| u64::from(y) << 32 | u64::from(x);
    match f {
        Int3::MadLow => map3(a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        Int3::MadHighU => {
            map3(a, b, c, |x, y, z| (((u64::from(x) * u64::from(y)) >> 32) as u32).wrapping_add(z))
        }
        Int3::MadHighS => map3(a, b, c, |x, y, z| {
            (((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32).wrapping_add(z)
        }),
        Int3::BfeU => map3(a, b, c, |x, y, z| extract(u64::from(x), y, z, 32, false) as u32),
        Int3::BfeS => map3(a, b, c, |x, y, z| extract(u64::from(x), y, z, 32, true) as u32),
        Int3::Prmt => map3(a, b, c, permute),
        Int3::FunnelLeftWrap => map3(a, b, c, |x, y, z| ((funnel(x, y) << (z & 31)) >> 32) as u32),
        Int3::FunnelRightWrap => map3(a, b, c, |x, y, z| (funnel(x, y) >> (z & 31)) as u32),
        Int3::FunnelLeftClamp => map3(a, b, c, |x, y, z| ((funnel(x, y) << z.min(32)) >> 32) as u32),
        Int3::FunnelRightClamp => map3(a, b, c, |x, y, z| (funnel(x, y) >> z.min(32)) as u32),
        Int3::SadU => map3(a, b, c, |x, y, z| z.wrapping_add(x.abs_diff(y))),
        Int3::SadS => map3(a, b, c, |x, y, z| z.wrapping_add((x as i32).abs_diff(y as i32))),
    }
}

/// Products and sums of 64-bit lanes.
pub(crate) fn mad64(f: Int3, a: &Wide, b: &Wide, c: &Wide) -> Wide {
    match f {
        Int3::MadHighU => {
            map3(a, b, c, |x, y, z| (((u128::from(x) * u128::from(y)) >> 64) as u64).wrapping_add(z))
        }
        Int3::MadHighS => map3(a, b, c, |x, y, z| {
            (((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64).wrapping_add(z)
        }),
        _ => map3(a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
    }
}

/// Field extraction of 64-bit lanes.
pub(crate) fn extract64(signed: bool, a: &Wide, b: &Narrow, c: &Narrow) -> Wide {
    map3(a, b, c, |x, y, z| extract(x, y, z, 64, signed))
}

pub(crate) fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    (0..8).filter(|row| table >> row & 1 == 1).fold(0, |out, row| {
        let pick = |value: u32, bit: u32| if row >> bit & 1 == 1 { value } else { !value };
        out | pick(a, 2) & pick(b, 1) & pick(c, 0)
    })
}
