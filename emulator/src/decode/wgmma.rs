//! `wgmma`: m64nNk16 of f16 and bf16.

use std::collections::BTreeSet;

use super::operands::{Decoded, Reader};
use crate::ast::OperandKind;
use crate::hopper::{Hopper, MatrixA, Wgmma};
use crate::program::Slot;
use crate::scalar::Scalar;

pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    for modifier in [".sync", ".aligned"] {
        r.require(modifier)?;
    }
    if r.accept(".fence") {
        return Ok(Hopper::WgmmaFence);
    }
    if r.accept(".commit_group") {
        return Ok(Hopper::WgmmaCommit);
    }
    if r.accept(".wait_group") {
        let groups = r.number("a count of groups")?;
        if groups > 7 {
            return r.error(format!("`wgmma.wait_group` takes 0 to 7 groups, not {groups}"));
        }
        return Ok(Hopper::WgmmaWait(groups as u32));
    }
    r.require(".mma_async")?;
    product(r)
}

fn product(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let n = r.find(|modifier| {
        let n = modifier.strip_prefix(".m64n")?.strip_suffix("k16")?.parse::<u32>().ok()?;
        ((8..=256).contains(&n) && n.is_multiple_of(8)).then_some(n)
    });
    let Some(n) = n else {
        return r.error("`wgmma` of 16-bit floats has the shapes `.m64nNk16`, N a multiple of 8 up to 256");
    };
    let (half, bf16) = match [r.scalar()?, r.scalar()?, r.scalar()?] {
        [Scalar::F32, Scalar::Bf16, Scalar::Bf16] => (false, true),
        [Scalar::F32, Scalar::F16, Scalar::F16] => (false, false),
        [Scalar::F16, Scalar::F16, Scalar::F16] => (true, false),
        _ => return r.error("only `.f32.bf16.bf16`, `.f32.f16.f16` and `.f16.f16.f16` are modelled"),
    };
    let count = n as usize / if half { 4 } else { 2 };
    let scalar = if half { Scalar::B32 } else { Scalar::F32 };
    let items = r.vector(&[count])?;
    let d: Decoded<Vec<_>> = items.iter().map(|item| r.destination_at(item, scalar)).collect();
    let from_registers =
        matches!(r.instruction.operands.get(1).map(|operand| &operand.kind), Some(OperandKind::Vector(_)));
    let a = if from_registers {
        MatrixA::Registers(r.slots::<4>(Scalar::B32, true)?)
    } else {
        MatrixA::Shared(r.source(Scalar::B64)?, false)
    };
    let b = r.source(Scalar::B64)?;
    let (scale_d, scale_d_negated) = r.predicate()?;
    let negative = sign(r)? != sign(r)?;
    let a = match a {
        MatrixA::Shared(slot, _) => MatrixA::Shared(slot, flag(r)?),
        registers => registers,
    };
    let b_transposed = flag(r)?;
    let d = d?;
    let mut used: Vec<Slot> = d.clone();
    if let MatrixA::Registers(slots) = a {
        // A's registers may repeat each other, but not an accumulator.
        used.extend(slots.iter().collect::<BTreeSet<_>>());
    }
    let all = used.len();
    if used.into_iter().collect::<BTreeSet<_>>().len() != all {
        return r.error("an accumulator names a register that this `wgmma` uses already");
    }
    Ok(Hopper::Wgmma(Box::new(Wgmma {
        n,
        bf16,
        half,
        d,
        a,
        b,
        b_transposed,
        scale_d,
        scale_d_negated,
        negative,
    })))
}

/// A scale of 1 or -1: is it negative?
fn sign(r: &mut Reader<'_, '_>) -> Decoded<bool> {
    match r.number("a scale, 1 or -1,")? as i64 {
        1 => Ok(false),
        -1 => Ok(true),
        other => r.error(format!("a scale is 1 or -1, not {other}")),
    }
}

fn flag(r: &mut Reader<'_, '_>) -> Decoded<bool> {
    match r.number("0 or 1")? {
        0 => Ok(false),
        1 => Ok(true),
        other => r.error(format!("a transposition is 0 or 1, not {other}")),
    }
}
