//! Integer, floating-point, logic, comparison and selection instructions.

use super::operands::{Decoded, Reader};
use crate::program::{
    Compare, CompareAs, Count, Float1, Float2, Int1, Int2, Int3, Logic, NONE, Op, SetPredicate,
};
use crate::scalar::Scalar;

/// Decodes what belongs here; `None` leaves the opcode to the other decoders.
pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Option<Op>> {
    Ok(Some(match r.instruction.root {
        "add" | "sub" | "min" | "max" | "div" | "rem" | "and" | "or" | "xor" | "shl" | "shr" | "copysign" => {
            two(r)?
        }
        "mul" | "mad" => product(r)?,
        "mul24" | "mad24" => return r.error("24-bit products are not modelled"),
        "fma" => {
            let (ftz, sat) = float_modifiers(r)?;
            match r.scalar()? {
                Scalar::F32 => fma32(r, ftz, sat)?,
                Scalar::F64 if !ftz && !sat => fma64(r)?,
                other => return r.unsupported(other),
            }
        }
        "neg" | "abs" | "not" | "brev" | "cnot" => one(r)?,
        "popc" | "clz" | "bfind" => count(r)?,
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => function(r)?,
        "bfe" => field_extract(r)?,
        "bfi" => field_insert(r)?,
        "prmt" => {
            r.require(".b32")?;
            ternary(r, Int3::Prmt, Scalar::B32)?
        }
        "shf" => {
            let left = r.accept(".l");
            if !left {
                r.require(".r")?;
            }
            let wrap = r.accept(".wrap");
            if !wrap {
                r.require(".clamp")?;
            }
            r.require(".b32")?;
            let f = match (left, wrap) {
                (true, true) => Int3::FunnelLeftWrap,
                (true, false) => Int3::FunnelLeftClamp,
                (false, true) => Int3::FunnelRightWrap,
                (false, false) => Int3::FunnelRightClamp,
            };
            ternary(r, f, Scalar::B32)?
        }
        "sad" => match r.scalar()? {
            Scalar::U32 => ternary(r, Int3::SadU, Scalar::U32)?,
            Scalar::S32 => ternary(r, Int3::SadS, Scalar::S32)?,
            other => return r.unsupported(other),
        },
        "lop3" => {
            r.require(".b32")?;
            let (d, a) = (r.destination(Scalar::B32)?, r.source(Scalar::B32)?);
            let (b, c) = (r.source(Scalar::B32)?, r.source(Scalar::B32)?);
            let table = r.number("a look-up table")?;
            if table > 255 {
                return r.error(format!("the look-up table {table} has more than eight bits"));
            }
            Op::Lop3 { d, a, b, c, table: table as u8 }
        }
        "setp" => compare(r)?,
        "selp" => {
            let scalar = r.scalar()?;
            let (d, a, b) = (r.destination(scalar)?, r.source(scalar)?, r.source(scalar)?);
            let p = r.source(Scalar::Pred)?;
            match scalar.bits() {
                64 => Op::Select64 { d, a, b, p },
                16 | 32 => Op::Select32 { d, a, b, p },
                _ => return r.unsupported(scalar),
            }
        }
        _ => return Ok(None),
    }))
}

/// Takes `.rn .ftz .sat`; the other roundings are named and refused.
fn float_modifiers(r: &mut Reader<'_, '_>) -> Decoded<(bool, bool)> {
    r.accept(".rn");
    for rounding in [".rz", ".rm", ".rp"] {
        if r.accept(rounding) {
            return r
                .error(format!("floating-point arithmetic with the rounding `{rounding}` is not modelled"));
        }
    }
    Ok((r.accept(".ftz"), r.accept(".sat")))
}

fn two(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let root = r.instruction.root;
    let scalar = r.instruction.modifiers.iter().rev().find_map(|m| Scalar::parse(m.0));
    let Some(scalar) = scalar else { return r.error(format!("`{root}` needs a type such as `.b32`")) };
    if scalar.is_float() {
        return float_two(r);
    }
    r.scalar()?;
    let signed = scalar.is_signed();
    if scalar == Scalar::Pred {
        let f = match root {
            "and" => Logic::And,
            "or" => Logic::Or,
            "xor" => Logic::Xor,
            _ => return r.unsupported(scalar),
        };
        let (d, a, b) = (r.destination(scalar)?, r.source(scalar)?, r.source(scalar)?);
        return Ok(Op::LogicPred { f, d, a, b });
    }
    let bitwise = matches!(scalar, Scalar::B16 | Scalar::B32 | Scalar::B64);
    let f = match (root, signed) {
        ("and", _) if bitwise => Int2::And,
        ("or", _) if bitwise => Int2::Or,
        ("xor", _) if bitwise => Int2::Xor,
        ("shl", _) if bitwise => Int2::Shl,
        ("shr", false) => Int2::ShrU,
        ("shr", true) => Int2::ShrS,
        _ if bitwise => return r.unsupported(scalar),
        ("add", _) => Int2::Add,
        ("sub", _) => Int2::Sub,
        ("min", false) => Int2::MinU,
        ("min", true) => Int2::MinS,
        ("max", false) => Int2::MaxU,
        ("max", true) => Int2::MaxS,
        ("div", false) => Int2::DivU,
        ("div", true) => Int2::DivS,
        ("rem", false) => Int2::RemU,
        ("rem", true) => Int2::RemS,
        _ => return r.unsupported(scalar),
    };
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    let shift = matches!(f, Int2::Shl | Int2::ShrU | Int2::ShrS);
    if shift && scalar.bits() == 64 {
        // The count is 32 bits wide; `Int64` reads it from a narrow slot.
        let b = r.source(Scalar::U32)?;
        return Ok(Op::Int64(f, d, a, b));
    }
    let b = r.source(if shift { Scalar::U32 } else { scalar })?;
    match scalar.bits() {
        16 => Ok(Op::Int16(f, signed, d, a, b)),
        32 => Ok(Op::Int32(f, d, a, b)),
        64 => Ok(Op::Int64(f, d, a, b)),
        _ => r.unsupported(scalar),
    }
}

fn float_two(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let root = r.instruction.root;
    let nan = matches!(root, "min" | "max") && r.accept(".NaN");
    if root == "div" {
        // Both are within 2 units in the last place of the quotient that `.rn` rounds correctly.
        let _ = r.accept(".full") || r.accept(".approx");
    }
    let (ftz, sat) = float_modifiers(r)?;
    let scalar = r.scalar()?;
    let f = match (root, nan) {
        ("add", _) => Float2::Add,
        ("sub", _) => Float2::Sub,
        ("div", _) => Float2::Div,
        ("min", false) => Float2::Min,
        ("min", true) => Float2::MinNan,
        ("max", false) => Float2::Max,
        ("max", true) => Float2::MaxNan,
        ("copysign", _) => Float2::CopySign,
        _ => return r.unsupported(scalar),
    };
    float_two_with(r, f, scalar, ftz, sat)
}

fn float_two_with(r: &mut Reader<'_, '_>, f: Float2, scalar: Scalar, ftz: bool, sat: bool) -> Decoded<Op> {
    if sat && !matches!(f, Float2::Add | Float2::Sub | Float2::Mul) {
        return r.error("`.sat` belongs to add, sub, mul and fma");
    }
    if !matches!(scalar, Scalar::F32 | Scalar::F64) || scalar == Scalar::F64 && (ftz || sat) {
        return r.unsupported(scalar);
    }
    let (d, a, b) = (r.destination(scalar)?, r.source(scalar)?, r.source(scalar)?);
    // `copysign a, b` gives b the sign of a.
    let (a, b) = if f == Float2::CopySign { (b, a) } else { (a, b) };
    Ok(match scalar {
        Scalar::F32 => Op::Float32 { f, ftz, sat, d, a, b },
        _ => Op::Float64 { f, d, a, b },
    })
}

fn product(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let add = r.instruction.root == "mad";
    let scalar = r.instruction.modifiers.iter().rev().find_map(|m| Scalar::parse(m.0));
    if let Some(scalar @ (Scalar::F32 | Scalar::F64)) = scalar {
        let (ftz, sat) = float_modifiers(r)?;
        r.scalar()?;
        return match (add, scalar) {
            (false, _) => float_two_with(r, Float2::Mul, scalar, ftz, sat),
            (true, Scalar::F32) => fma32(r, ftz, sat),
            (true, _) => fma64(r),
        };
    }
    let wide = r.accept(".wide");
    let high = !wide && r.accept(".hi");
    if !wide && !high {
        r.require(".lo")?;
    }
    let scalar = r.scalar()?;
    let signed = scalar.is_signed();
    if scalar.is_float() || !matches!(scalar.bits(), 16 | 32 | 64) {
        return r.unsupported(scalar);
    }
    if wide {
        let result = match scalar.bits() {
            16 => Scalar::B32,
            32 => Scalar::B64,
            _ => return r.unsupported(scalar),
        };
        let (d, a, b) = (r.destination(result)?, r.source(scalar)?, r.source(scalar)?);
        let c = if add { r.source(result)? } else { NONE };
        return Ok(match scalar.bits() {
            16 => Op::Widen16 { signed, d, a, b, c },
            _ => Op::Widen32 { signed, d, a, b, c },
        });
    }
    let (d, a, b) = (r.destination(scalar)?, r.source(scalar)?, r.source(scalar)?);
    if add {
        let f = match (high, signed) {
            (false, _) => Int3::MadLow,
            (true, false) => Int3::MadHighU,
            (true, true) => Int3::MadHighS,
        };
        let c = r.source(scalar)?;
        return match (scalar.bits(), high) {
            (16, false) => Ok(Op::Mad16(d, a, b, c)),
            (32, _) => Ok(Op::Ternary32(f, d, a, b, c)),
            (64, _) => Ok(Op::Ternary64(f, d, a, b, c)),
            _ => r.unsupported(scalar),
        };
    }
    let f = match (high, signed) {
        (false, _) => Int2::Mul,
        (true, false) => Int2::MulHighU,
        (true, true) => Int2::MulHighS,
    };
    match (scalar.bits(), high) {
        (16, _) => Ok(Op::Int16(f, signed, d, a, b)),
        (32, _) => Ok(Op::Int32(f, d, a, b)),
        (64, _) => Ok(Op::Int64(f, d, a, b)),
        _ => r.unsupported(scalar),
    }
}

fn fma32(r: &mut Reader<'_, '_>, ftz: bool, sat: bool) -> Decoded<Op> {
    let (d, a) = (r.destination(Scalar::F32)?, r.source(Scalar::F32)?);
    Ok(Op::Fma32 { ftz, sat, d, a, b: r.source(Scalar::F32)?, c: r.source(Scalar::F32)? })
}

fn fma64(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let (d, a) = (r.destination(Scalar::F64)?, r.source(Scalar::F64)?);
    Ok(Op::Fma64 { d, a, b: r.source(Scalar::F64)?, c: r.source(Scalar::F64)? })
}

fn one(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let root = r.instruction.root;
    let ftz = r.accept(".ftz");
    let scalar = r.scalar()?;
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    if scalar.is_float() {
        let f = if root == "neg" { Float1::Neg } else { Float1::Abs };
        return match scalar {
            _ if !matches!(root, "neg" | "abs") => r.unsupported(scalar),
            Scalar::F32 => Ok(Op::FloatUnary32 { f, ftz, d, a }),
            Scalar::F64 if !ftz => Ok(Op::FloatUnary64 { f, d, a }),
            _ => r.unsupported(scalar),
        };
    }
    let f = match (root, scalar) {
        ("not", Scalar::Pred) => return Ok(Op::NotPred(d, a)),
        ("not", Scalar::B16 | Scalar::B32 | Scalar::B64) => Int1::Not,
        ("neg", Scalar::S16 | Scalar::S32 | Scalar::S64) => Int1::Neg,
        ("abs", Scalar::S16 | Scalar::S32 | Scalar::S64) => Int1::Abs,
        ("brev", Scalar::B32 | Scalar::B64) => Int1::Brev,
        ("cnot", Scalar::B16 | Scalar::B32 | Scalar::B64) => Int1::Cnot,
        _ => return r.unsupported(scalar),
    };
    Ok(match scalar.bits() {
        16 => Op::Unary16(f, d, a),
        32 => Op::Unary32(f, d, a),
        _ => Op::Unary64(f, d, a),
    })
}

fn count(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let shift = r.accept(".shiftamt");
    let scalar = r.scalar()?;
    let f = match (r.instruction.root, scalar, shift) {
        ("popc", Scalar::B32 | Scalar::B64, false) => Count::Popc,
        ("clz", Scalar::B32 | Scalar::B64, false) => Count::Clz,
        ("bfind", Scalar::U32 | Scalar::U64, false) => Count::FindU,
        ("bfind", Scalar::S32 | Scalar::S64, false) => Count::FindS,
        ("bfind", Scalar::U32 | Scalar::U64, true) => Count::FindShiftU,
        ("bfind", Scalar::S32 | Scalar::S64, true) => Count::FindShiftS,
        _ => return r.unsupported(scalar),
    };
    let d = r.destination(Scalar::U32)?;
    Ok(Op::Count { f, wide: scalar.bits() == 64, d, a: r.source(scalar)? })
}

fn function(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let f = match r.instruction.root {
        "rcp" => Float1::Rcp,
        "sqrt" => Float1::Sqrt,
        "rsqrt" => Float1::Rsqrt,
        "ex2" => Float1::Exp2,
        "lg2" => Float1::Log2,
        "sin" => Float1::Sin,
        "cos" => Float1::Cos,
        _ => Float1::Tanh,
    };
    let approx = r.accept(".approx");
    if !approx {
        if !matches!(f, Float1::Rcp | Float1::Sqrt) {
            return r.error(format!("`{}` needs `.approx`", r.instruction.root));
        }
        r.require(".rn")?;
    }
    let ftz = f != Float1::Tanh && r.accept(".ftz");
    let scalar = r.scalar()?;
    let exact64 = !approx && matches!(f, Float1::Rcp | Float1::Sqrt) && !ftz;
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    match scalar {
        Scalar::F32 => Ok(Op::FloatUnary32 { f, ftz, d, a }),
        Scalar::F64 if exact64 => Ok(Op::FloatUnary64 { f, d, a }),
        _ => r.unsupported(scalar),
    }
}

fn ternary(r: &mut Reader<'_, '_>, f: Int3, scalar: Scalar) -> Decoded<Op> {
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    Ok(Op::Ternary32(f, d, a, r.source(scalar)?, r.source(scalar)?))
}

fn field_extract(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let scalar = r.scalar()?;
    let f = match scalar {
        Scalar::U32 | Scalar::U64 => Int3::BfeU,
        Scalar::S32 | Scalar::S64 => Int3::BfeS,
        _ => return r.unsupported(scalar),
    };
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    let (b, c) = (r.source(Scalar::U32)?, r.source(Scalar::U32)?);
    Ok(if scalar.bits() == 64 { Op::Ternary64(f, d, a, b, c) } else { Op::Ternary32(f, d, a, b, c) })
}

fn field_insert(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let scalar = r.scalar()?;
    let (d, a, b) = (r.destination(scalar)?, r.source(scalar)?, r.source(scalar)?);
    let slots = [d, a, b, r.source(Scalar::U32)?, r.source(Scalar::U32)?];
    match scalar {
        Scalar::B32 => Ok(Op::Bfi32(slots)),
        Scalar::B64 => Ok(Op::Bfi64(slots)),
        _ => r.unsupported(scalar),
    }
}

fn compare(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let scalar = r.instruction.modifiers.iter().rev().find_map(|m| Scalar::parse(m.0));
    let float = scalar.is_some_and(Scalar::is_float);
    let compare = r.find(|modifier| {
        Some(match modifier {
            ".eq" => Compare::Eq,
            ".ne" if float => Compare::Ne,
            ".ne" => Compare::NeU,
            ".lt" | ".lo" => Compare::Lt,
            ".le" | ".ls" => Compare::Le,
            ".gt" | ".hi" => Compare::Gt,
            ".ge" | ".hs" => Compare::Ge,
            ".equ" if float => Compare::EqU,
            ".neu" if float => Compare::NeU,
            ".ltu" if float => Compare::LtU,
            ".leu" if float => Compare::LeU,
            ".gtu" if float => Compare::GtU,
            ".geu" if float => Compare::GeU,
            ".num" if float => Compare::Num,
            ".nan" if float => Compare::Nan,
            _ => return None,
        })
    });
    let Some(compare) = compare else { return r.error("`setp` needs a comparison that suits its type") };
    let logic = r.find(|modifier| match modifier {
        ".and" => Some(Logic::And),
        ".or" => Some(Logic::Or),
        ".xor" => Some(Logic::Xor),
        _ => None,
    });
    let ftz = r.accept(".ftz");
    let scalar = r.scalar()?;
    let read = match scalar {
        Scalar::U16 | Scalar::B16 => CompareAs::U16,
        Scalar::S16 => CompareAs::S16,
        Scalar::U32 | Scalar::B32 => CompareAs::U32,
        Scalar::S32 => CompareAs::S32,
        Scalar::U64 | Scalar::B64 => CompareAs::U64,
        Scalar::S64 => CompareAs::S64,
        Scalar::F32 => CompareAs::F32 { ftz },
        Scalar::F64 => CompareAs::F64,
        _ => return r.unsupported(scalar),
    };
    if ftz && scalar != Scalar::F32 {
        return r.unsupported(scalar);
    }
    let (p, q) = r.predicate_pair()?;
    let (a, b) = (r.source(scalar)?, r.source(scalar)?);
    let (c, negated) = if logic.is_some() { r.predicate()? } else { (NONE, false) };
    let logic = logic.unwrap_or(Logic::And);
    Ok(Op::SetPredicate(SetPredicate { compare, read, p, q, a, b, logic, c, negated }))
}
