//! `mov`, `cvt` and `cvta`.

use super::operands::{Decoded, File, Reader};
use crate::ast::OperandKind;
use crate::program::{Convert, Int2, NONE, Op, Rounding, Slot};
use crate::scalar::{Scalar, Space};

/// Generic addresses of the shared and the local window; global addresses are their own.
pub(crate) const SHARED_BASE: u64 = 0x0100_0000_0000;
/// See [`SHARED_BASE`].
pub(crate) const LOCAL_BASE: u64 = 0x0200_0000_0000;
/// Size of both windows.
pub(crate) const WINDOW: u64 = 1 << 32;

/// Decodes what belongs here; `None` leaves the opcode to the other decoders.
pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Option<Op>> {
    Ok(Some(match r.instruction.root {
        "mov" => mov(r)?,
        "cvt" => cvt(r)?,
        "cvta" => cvta(r)?,
        _ => return Ok(None),
    }))
}

fn mov(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let scalar = r.scalar()?;
    let wide = scalar.bits() == 64;
    let operands = &r.instruction.operands;
    let vector = operands.iter().position(|operand| matches!(operand.kind, OperandKind::Vector(_)));
    if let Some(side) = vector {
        return pack(r, scalar, side == 1);
    }
    if let Some(OperandKind::Name(name @ ("%clock" | "%clock64" | "%clock_hi" | "%globaltimer"))) =
        operands.get(1).map(|operand| &operand.kind)
    {
        if *name == "%clock_hi" {
            return r.error("`%clock_hi` is not modelled: read `%clock64`");
        }
        let d = r.destination(scalar)?;
        r.operand()?;
        return Ok(Op::Clock { d, wide });
    }
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    Ok(match scalar.bits() {
        1 => Op::MovPred(d, a),
        64 => Op::Mov64(d, a),
        _ => Op::Mov32(d, a),
    })
}

fn pack(r: &mut Reader<'_, '_>, scalar: Scalar, packing: bool) -> Decoded<Op> {
    let operands = &r.instruction.operands;
    let count = match operands.get(usize::from(packing)).map(|operand| &operand.kind) {
        Some(OperandKind::Vector(items)) => items.len(),
        _ => 0,
    };
    let part = match (scalar.bits(), count) {
        (64, 2) => Scalar::B32,
        (64, 4) | (32, 2) => Scalar::B16,
        (32, 4) | (16, 2) => Scalar::B8,
        _ => return r.error(format!("`mov` of {} bits does not split into {count} parts", scalar.bits())),
    };
    let (wide, bits) = (scalar.bits() == 64, part.bits() as u8);
    let mut parts = [NONE; 4];
    if packing {
        let d = r.destination(scalar)?;
        let items = r.vector(&[count])?;
        for (slot, item) in parts.iter_mut().zip(items) {
            *slot = r.source_at(item, part)?;
        }
        return Ok(Op::Pack { d, wide, parts, count: count as u8, bits });
    }
    let items = r.vector(&[count])?;
    for (slot, item) in parts.iter_mut().zip(items) {
        *slot = r.destination_or_sink(item, part)?;
    }
    Ok(Op::Unpack { a: r.source(scalar)?, wide, parts, count: count as u8, bits })
}

fn cvt(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let rounding = r.find(|modifier| {
        Some(match modifier {
            ".rn" => (Rounding::Nearest, false),
            ".rz" => (Rounding::Zero, false),
            ".rm" => (Rounding::Down, false),
            ".rp" => (Rounding::Up, false),
            ".rna" => (Rounding::Away, false),
            ".rni" => (Rounding::Nearest, true),
            ".rzi" => (Rounding::Zero, true),
            ".rmi" => (Rounding::Down, true),
            ".rpi" => (Rounding::Up, true),
            _ => return None,
        })
    });
    let (ftz, saturate, relu) = (r.accept(".ftz"), r.accept(".sat"), r.accept(".relu"));
    let (to, from) = (r.scalar()?, r.scalar()?);
    if matches!(to, Scalar::F16x2 | Scalar::Bf16x2) {
        if from != Scalar::F32 || saturate || ftz {
            return r.error("pairs of 16-bit floats are made from two `.f32`, without `.ftz` or `.sat`");
        }
        let Some((rounding @ (Rounding::Nearest | Rounding::Zero), false)) = rounding else {
            return r.error("a pair of 16-bit floats is rounded by `.rn` or `.rz`");
        };
        let (d, a) = (r.destination(Scalar::B32)?, r.source(from)?);
        let b = r.source(from)?;
        return Ok(Op::PackFloats { bf16: to == Scalar::Bf16x2, rounding, relu, d, a, b });
    }
    let unit = |s: Scalar| matches!(s, Scalar::Pred | Scalar::F16x2 | Scalar::Bf16x2);
    if unit(to) || unit(from) {
        return r.error("these types do not convert into each other");
    }
    let needs = match (to.is_float(), from.is_float()) {
        (true, true) => to.bits() < from.bits(),
        (false, false) => false,
        _ => true,
    };
    if needs && rounding.is_none() {
        return r.error("this conversion can lose bits: it needs a rounding such as `.rn` or `.rzi`");
    }
    let source = r.instruction.operands.get(1);
    let destination = r.operand()?;
    let (d, register) = r.relaxed(destination, to, false)?;
    r.operand()?;
    let Some(source) = source else { return r.error("`cvt` needs two operands") };
    let (a, from_register) = r.relaxed(source, from, true)?;
    let (to_wide, from_wide) = (register == 64, from_register == 64);
    if !to.is_float() && !from.is_float() && !saturate {
        // A destination register wider than the type is filled by the type's sign.
        let (bits, signed, cut) = if to.bits() <= from.bits() {
            (to.bits(), to.is_signed(), register)
        } else {
            (from.bits(), from.is_signed(), if to.is_signed() { register } else { to.bits() })
        };
        return Ok(Op::Extend { d, to_wide, a, from_wide, bits: bits as u8, signed, cut: cut as u8 });
    }
    let exact = |slot_wide: bool, scalar: Scalar| slot_wide == (File::of(scalar) == File::Wide);
    if !exact(to_wide, to) || !exact(from_wide, from) {
        return r.error("registers wider than the type are modelled for conversions between integers only");
    }
    let (rounding, integral) = rounding.unwrap_or((Rounding::Nearest, false));
    Ok(Op::Convert {
        how: Convert { to, register: register as u8, from, rounding, integral, ftz, saturate, relu },
        d,
        a,
    })
}

fn cvta(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let to = r.accept(".to");
    let Some(space) = r.find(Space::parse) else { return r.error("`cvta` needs a state space") };
    r.require(".u64")?;
    let d: Slot = r.destination(Scalar::U64)?;
    let a = r.source(Scalar::U64)?;
    let base = match space {
        Space::Global | Space::Generic => return Ok(Op::Mov64(d, a)),
        Space::Shared | Space::Cluster => SHARED_BASE,
        Space::Local => LOCAL_BASE,
        Space::Param => return r.error("generic addresses of parameters are not modelled"),
    };
    let span = r.instruction.opcode;
    let base = r.names.constant(File::Wide, crate::program::Constant::Bits(base), span)?;
    Ok(Op::Int64(if to { Int2::Sub } else { Int2::Add }, d, a, base))
}
