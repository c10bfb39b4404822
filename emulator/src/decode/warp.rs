//! Instructions in which lanes or warps act together.

use super::operands::{Decoded, File, Reader};
use crate::program::{Barrier, BarrierKind, Constant, Int2, Mma, NONE, Op, Shuffle, Slot, Sync, Vote};
use crate::scalar::{Scalar, Space};

/// Decodes what belongs here; `None` leaves the opcode unknown.
pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Option<(Op, Sync)>> {
    Ok(Some(match r.instruction.root {
        "bar" | "barrier" => {
            if r.accept(".warp") {
                r.require(".sync")?;
                (Op::Nop, members(r)?)
            } else {
                (barrier(r)?, Sync::Aligned)
            }
        }
        "shfl" => shuffle(r)?,
        "vote" => vote(r)?,
        "match" => matching(r)?,
        "redux" => reduce(r)?,
        "activemask" => {
            r.require(".b32")?;
            (Op::ActiveMask(r.destination(Scalar::B32)?), Sync::Free)
        }
        "ldmatrix" => (load_matrix(r)?, Sync::Aligned),
        "mma" => (mma(r)?, Sync::Aligned),
        _ => return Ok(None),
    }))
}

fn members(r: &mut Reader<'_, '_>) -> Decoded<Sync> {
    r.source(Scalar::B32).map(Sync::Members)
}

fn barrier(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    r.accept(".cta");
    if r.instruction.root == "barrier" {
        // Both forms wait for the whole warp first; the aligned one merely promises that it stands together already.
        r.accept(".aligned");
    }
    let (arrive, reduce) = (r.accept(".arrive"), r.accept(".red"));
    if !arrive && !reduce {
        r.require(".sync")?;
    }
    let popc = reduce && r.accept(".popc");
    let and = reduce && !popc && r.accept(".and");
    if reduce && !popc && !and {
        r.require(".or")?;
    }
    let d = match (reduce, popc) {
        (false, _) => NONE,
        (true, true) => {
            r.require(".u32")?;
            r.destination(Scalar::U32)?
        }
        (true, false) => {
            r.require(".pred")?;
            r.destination(Scalar::Pred)?
        }
    };
    let id = r.source(Scalar::U32)?;
    let counted = r.left() > usize::from(reduce);
    let threads = if counted { r.source(Scalar::U32)? } else { NONE };
    let kind = if reduce {
        let (p, negated) = r.predicate()?;
        if popc {
            BarrierKind::ReducePopc(d, p, negated)
        } else {
            BarrierKind::ReduceLogic(d, p, negated, and)
        }
    } else if arrive {
        if !counted {
            return r.error("`arrive` needs a count of threads");
        }
        BarrierKind::Arrive
    } else {
        BarrierKind::Sync
    };
    Ok(Op::Barrier(Box::new(Barrier { id, threads, kind })))
}

fn shuffle(r: &mut Reader<'_, '_>) -> Decoded<(Op, Sync)> {
    r.require(".sync")?;
    let f = r.find(|modifier| {
        Some(match modifier {
            ".up" => Shuffle::Up,
            ".down" => Shuffle::Down,
            ".bfly" => Shuffle::Butterfly,
            ".idx" => Shuffle::Index,
            _ => return None,
        })
    });
    let Some(f) = f else { return r.error("`shfl` needs one of `.up .down .bfly .idx`") };
    r.require(".b32")?;
    let operand = r.operand()?;
    let (d, p) = match &operand.kind {
        crate::ast::OperandKind::Pair(d, p) => {
            (r.destination_or_sink(d, Scalar::B32)?, r.destination_or_sink(p, Scalar::Pred)?)
        }
        _ => (r.destination_at(operand, Scalar::B32)?, NONE),
    };
    let (a, b, c) = (r.source(Scalar::B32)?, r.source(Scalar::B32)?, r.source(Scalar::B32)?);
    Ok((Op::Shuffle { f, d, p, a, b, c }, members(r)?))
}

fn vote(r: &mut Reader<'_, '_>) -> Decoded<(Op, Sync)> {
    r.require(".sync")?;
    let f = r.find(|modifier| {
        Some(match modifier {
            ".all" => Vote::All,
            ".any" => Vote::Any,
            ".uni" => Vote::Uni,
            ".ballot" => Vote::Ballot,
            _ => return None,
        })
    });
    let Some(f) = f else { return r.error("`vote` needs one of `.all .any .uni .ballot`") };
    let scalar = if f == Vote::Ballot { Scalar::B32 } else { Scalar::Pred };
    r.require(if f == Vote::Ballot { ".b32" } else { ".pred" })?;
    let d = r.destination(scalar)?;
    let (p, negated) = r.predicate()?;
    Ok((Op::Vote { f, d, p, negated }, members(r)?))
}

fn matching(r: &mut Reader<'_, '_>) -> Decoded<(Op, Sync)> {
    let all = r.accept(".all");
    if !all {
        r.require(".any")?;
    }
    r.require(".sync")?;
    let scalar = r.scalar()?;
    if !matches!(scalar, Scalar::B32 | Scalar::B64) {
        return r.unsupported(scalar);
    }
    let wide = scalar == Scalar::B64;
    let operand = r.operand()?;
    let (d, p) = match &operand.kind {
        crate::ast::OperandKind::Pair(d, p) if all => {
            (r.destination_or_sink(d, Scalar::B32)?, r.destination_or_sink(p, Scalar::Pred)?)
        }
        _ => (r.destination_at(operand, Scalar::B32)?, NONE),
    };
    let a = r.source(scalar)?;
    let op = if all { Op::MatchAll { d, p, a, wide } } else { Op::MatchAny { d, a, wide } };
    Ok((op, members(r)?))
}

fn reduce(r: &mut Reader<'_, '_>) -> Decoded<(Op, Sync)> {
    r.require(".sync")?;
    let f = r.find(|modifier| {
        Some(match modifier {
            ".add" => (Int2::Add, Int2::Add),
            ".min" => (Int2::MinU, Int2::MinS),
            ".max" => (Int2::MaxU, Int2::MaxS),
            ".and" => (Int2::And, Int2::And),
            ".or" => (Int2::Or, Int2::Or),
            ".xor" => (Int2::Xor, Int2::Xor),
            _ => return None,
        })
    });
    let Some((unsigned, signed)) = f else { return r.error("`redux` needs an operation") };
    let scalar = r.scalar()?;
    let f = match scalar {
        Scalar::U32 | Scalar::B32 => unsigned,
        Scalar::S32 => signed,
        _ => return r.unsupported(scalar),
    };
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    Ok((Op::Reduce { f, d, a }, members(r)?))
}

/// What `ldmatrix` and `stmatrix` have in common: how many 8 x 8 matrices, and whether they are transposed.
pub(super) fn matrices(r: &mut Reader<'_, '_>) -> Decoded<(u8, bool)> {
    for modifier in [".sync", ".aligned", ".m8n8"] {
        r.require(modifier)?;
    }
    let count: u8 = match (r.accept(".x2"), r.accept(".x4")) {
        (true, _) => 2,
        (_, true) => 4,
        _ => {
            r.require(".x1")?;
            1
        }
    };
    Ok((count, r.accept(".trans")))
}

fn load_matrix(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let (count, transposed) = matrices(r)?;
    let generic = !(r.accept(".shared") || r.accept(".shared::cta"));
    r.require(".b16")?;
    let items = r.vector(&[usize::from(count)])?;
    let mut slots = [NONE; 4];
    for (slot, item) in slots.iter_mut().zip(items) {
        *slot = r.destination_at(item, Scalar::B32)?;
    }
    let address = r.address(if generic { Space::Generic } else { Space::Shared })?;
    Ok(Op::LoadMatrix { count, transposed, slots, address, generic })
}

fn mma(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    for modifier in [".sync", ".aligned"] {
        r.require(modifier)?;
    }
    let k = if r.accept(".m16n8k16") {
        16
    } else {
        r.require(".m16n8k8")?;
        8
    };
    for modifier in [".row", ".col"] {
        r.require(modifier)?;
    }
    let types = [r.scalar()?, r.scalar()?, r.scalar()?, r.scalar()?];
    let bf16 = match types {
        [Scalar::F32, Scalar::Bf16, Scalar::Bf16, Scalar::F32] => true,
        [Scalar::F32, Scalar::F16, Scalar::F16, Scalar::F32] => false,
        _ => return r.error("only `.f32.bf16.bf16.f32` and `.f32.f16.f16.f32` are modelled"),
    };
    let d = r.slots::<4>(Scalar::F32, false)?;
    let (a, b) = if k == 16 {
        (r.slots::<4>(Scalar::B32, true)?, r.slots::<2>(Scalar::B32, true)?)
    } else {
        let ([a0, a1], [b0]) = (r.slots::<2>(Scalar::B32, true)?, r.slots::<1>(Scalar::B32, true)?);
        let zero: Slot = r.names.constant(File::Narrow, Constant::Bits(0), r.instruction.opcode)?;
        ([a0, a1, zero, zero], [b0, zero])
    };
    let c = r.slots::<4>(Scalar::F32, true)?;
    Ok(Op::Mma(Box::new(Mma { bf16, d, a, b, c })))
}
