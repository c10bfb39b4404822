//! Loads, stores, atomics, asynchronous copies and fences.

use super::operands::{Decoded, Reader, Symbol};
use crate::ast::OperandKind;
use crate::program::{Access, Address, AtomOp, Atomic, NONE, Op, Order, Semantics};
use crate::scalar::{Scalar, Space};

/// Hints and orderings that change neither values nor the order in which one thread sees its own accesses.
const HINTS: &[&str] = &[
    ".ca",
    ".cg",
    ".cs",
    ".cv",
    ".lu",
    ".wb",
    ".wt",
    ".nc",
    ".weak",
    ".volatile",
    ".relaxed",
    ".acquire",
    ".release",
    ".acq_rel",
    ".cta",
    ".cluster",
    ".gpu",
    ".sys",
    ".L1::evict_normal",
    ".L1::evict_unchanged",
    ".L1::evict_first",
    ".L1::evict_last",
    ".L1::no_allocate",
    ".L2::64B",
    ".L2::128B",
    ".L2::256B",
];

/// The ordering of an access; atomics are strong and of device scope unless they say otherwise.
fn order(r: &mut Reader<'_, '_>, atomic: bool) -> Order {
    let mut one = |modifier| r.accept(modifier);
    let volatile = one(".volatile");
    let semantics = match () {
        () if one(".acq_rel") => Semantics::AcquireRelease,
        () if one(".acquire") => Semantics::Acquire,
        () if one(".release") => Semantics::Release,
        () if one(".relaxed") || volatile || atomic => Semantics::Relaxed,
        () => Semantics::Weak,
    };
    let narrow = one(".cta") || one(".cluster");
    Order { semantics, device: semantics != Semantics::Weak && !narrow }
}

fn hints(r: &mut Reader<'_, '_>) {
    for hint in HINTS {
        r.accept(hint);
    }
}

/// Decodes what belongs here; `None` leaves the opcode to the other decoders.
pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Option<Op>> {
    Ok(Some(match r.instruction.root {
        "ld" | "ldu" => load(r)?,
        "st" => store(r)?,
        "atom" => atomic(r, true)?,
        "red" => atomic(r, false)?,
        "cp" => copy(r)?,
        "membar" => {
            let narrow = r.accept(".cta");
            if !narrow && !r.accept(".gl") {
                r.require(".sys")?;
            }
            Op::Fence(!narrow)
        }
        "prefetch" => {
            for modifier in [".L1", ".L2", ".L2::evict_last", ".L2::evict_normal"] {
                r.accept(modifier);
            }
            let space = r.find(Space::parse).unwrap_or(Space::Generic);
            r.address(space)?;
            Op::Nop
        }
        "nanosleep" => {
            r.require(".u32")?;
            r.source(Scalar::U32)?;
            Op::Nop
        }
        "isspacep" => {
            let Some(space) = r.find(Space::parse) else { return r.error("`isspacep` needs a state space") };
            let p = r.destination(Scalar::Pred)?;
            Op::IsSpace { space, p, a: Address { slot: r.source(Scalar::U64)?, wide: true, offset: 0 } }
        }
        _ => return Ok(None),
    }))
}

fn space(r: &mut Reader<'_, '_>) -> Space {
    r.find(Space::parse).unwrap_or(Space::Generic)
}

fn count(r: &mut Reader<'_, '_>) -> u8 {
    match (r.accept(".v2"), r.accept(".v4")) {
        (true, _) => 2,
        (_, true) => 4,
        _ => 1,
    }
}

fn element(r: &mut Reader<'_, '_>, count: u8) -> Decoded<Scalar> {
    let scalar = r.scalar()?;
    if scalar == Scalar::Pred || scalar.bytes() * u32::from(count) > 16 {
        return r.unsupported(scalar);
    }
    Ok(scalar)
}

fn load(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let space = space(r);
    let order = order(r, false);
    hints(r);
    let count = count(r);
    let scalar = element(r, count)?;
    let items = r.vector(&[usize::from(count)])?;
    let (mut slots, mut register) = ([NONE; 4], 0);
    for (slot, item) in slots.iter_mut().zip(items) {
        let (found, bits) = r.relaxed(item, scalar, false)?;
        if found != NONE && register != 0 && register != bits {
            return r.error("the registers of a vector must have one width");
        }
        *slot = found;
        register = if found == NONE { register } else { bits };
    }
    if register == 0 {
        return r.error("every destination is `_`");
    }
    let access = |address| Access {
        space,
        bytes: scalar.bytes() as u8,
        count,
        signed: scalar.is_signed(),
        register: register as u8,
        slots,
        address,
        order,
    };
    if space != Space::Param {
        let address = r.address(space)?;
        return Ok(Op::Load(access(address)));
    }
    let operand = r.operand()?;
    let OperandKind::Address(name, offset) = operand.kind else {
        return r.error("expected `[parameter+offset]`");
    };
    match r.names.symbols.get(name) {
        Some(Symbol::Param(at)) => {
            let offset = i64::from(*at).saturating_add(offset);
            let Ok(offset) = i32::try_from(offset) else {
                return r.error(format!("the offset {offset} lies outside the parameters"));
            };
            Ok(Op::LoadParam(access(Address { slot: NONE, wide: true, offset })))
        }
        Some(Symbol::CallParam) => Ok(Op::Unmodelled("the result of a call")),
        _ => r.error(format!("`{name}` is no parameter of this kernel")),
    }
}

fn store(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    let space = space(r);
    let order = order(r, false);
    hints(r);
    let count = count(r);
    let scalar = element(r, count)?;
    if space == Space::Param {
        // An argument of a call, which faults when it is reached.
        r.operand()?;
        r.operand()?;
        return Ok(Op::Nop);
    }
    let address = r.address(space)?;
    let items = r.vector(&[usize::from(count)])?;
    let (mut slots, mut register) = ([NONE; 4], 0);
    for (slot, item) in slots.iter_mut().zip(items) {
        let (found, bits) = r.relaxed(item, scalar, true)?;
        if register != 0 && (register == 64) != (bits == 64) {
            return r.error("the registers of a vector must have one width");
        }
        (*slot, register) = (found, bits);
    }
    let (bytes, signed, register) = (scalar.bytes() as u8, scalar.is_signed(), register as u8);
    Ok(Op::Store(Access { space, bytes, count, signed, register, slots, address, order }))
}

fn atomic(r: &mut Reader<'_, '_>, returns: bool) -> Decoded<Op> {
    let space = space(r);
    let order = order(r, true);
    hints(r);
    let op = r.find(|modifier| {
        Some(match modifier {
            ".add" => AtomOp::Add,
            ".min" => AtomOp::Min,
            ".max" => AtomOp::Max,
            ".and" => AtomOp::And,
            ".or" => AtomOp::Or,
            ".xor" => AtomOp::Xor,
            ".exch" => AtomOp::Exchange,
            ".cas" => AtomOp::CompareSwap,
            ".inc" => AtomOp::Increment,
            ".dec" => AtomOp::Decrement,
            _ => return None,
        })
    });
    let Some(op) = op else { return r.error("this atomic operation is not modelled") };
    let scalar = r.scalar()?;
    let bits_only = matches!(scalar, Scalar::B32 | Scalar::B64);
    let suits = match op {
        AtomOp::Add => matches!(scalar, Scalar::U32 | Scalar::S32 | Scalar::U64 | Scalar::F32 | Scalar::F64),
        AtomOp::Min | AtomOp::Max => matches!(scalar, Scalar::U32 | Scalar::S32 | Scalar::U64 | Scalar::S64),
        AtomOp::Increment | AtomOp::Decrement => scalar == Scalar::U32,
        _ => bits_only,
    };
    if !suits {
        return r.unsupported(scalar);
    }
    let d = if returns {
        let operand = r.operand()?;
        r.destination_or_sink(operand, scalar)?
    } else {
        NONE
    };
    if space == Space::Param || space == Space::Local {
        return r.error("atomics work on global and shared memory");
    }
    let address = r.address(space)?;
    let b = r.source(scalar)?;
    let c = if op == AtomOp::CompareSwap { r.source(scalar)? } else { NONE };
    Ok(Op::Atomic(Box::new(Atomic { space, op, scalar, d, address, b, c, order })))
}

fn copy(r: &mut Reader<'_, '_>) -> Decoded<Op> {
    r.require(".async")?;
    if r.accept(".commit_group") {
        return Ok(Op::CopyCommit);
    }
    if r.accept(".wait_all") {
        return Ok(Op::CopyWaitAll);
    }
    if r.accept(".wait_group") {
        let count = r.number("a count of groups")?;
        return Ok(Op::CopyWait(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    let bypass = r.accept(".cg");
    if !bypass {
        r.require(".ca")?;
    }
    if !r.accept(".shared") {
        r.require(".shared::cta")?;
    }
    r.require(".global")?;
    for hint in [".L2::64B", ".L2::128B", ".L2::256B"] {
        r.accept(hint);
    }
    let (to, from) = (r.address(Space::Shared)?, r.address(Space::Global)?);
    let bytes = r.number("the size of the copy")?;
    if !matches!((bypass, bytes), (_, 16) | (false, 4 | 8)) {
        return r.error(format!("`.cg` copies 16 bytes and `.ca` 4, 8 or 16, not {bytes}"));
    }
    let source_bytes = if r.left() > 0 { r.source(Scalar::U32)? } else { NONE };
    Ok(Op::CopyAsync { to, from, bytes: bytes as u8, source_bytes })
}
