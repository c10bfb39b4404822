//! Bulk copies, clusters, fences and the rest of sm_90 but mbarriers and `wgmma`.

use super::operands::{Decoded, Reader};
use super::warp::matrices;
use super::{mbarrier, wgmma};
use crate::ast::OperandKind;
use crate::hopper::{Bulk, Fence, GlobalSide, Hopper, Site, StoreAsync, Tensor};
use crate::program::{AtomOp, NONE, Op, Sync};
use crate::scalar::{Scalar, Space};

/// Decodes what belongs here; `None` leaves the opcode to the other decoders.
pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Option<(Op, Sync)>> {
    let free = |op: Hopper| (op, Sync::Free);
    let has = |r: &Reader<'_, '_>, modifier: &str| r.instruction.modifiers.iter().any(|m| m.0 == modifier);
    let (op, sync) = match r.instruction.root {
        "mbarrier" => free(mbarrier::decode(r)?),
        "wgmma" => (wgmma::decode(r)?, Sync::Aligned),
        "cp" if has(r, ".mbarrier") => free(mbarrier::copy_arrive(r)?),
        "cp" if has(r, ".bulk") => free(bulk(r)?),
        "st" | "red" if has(r, ".async") => free(store_async(r)?),
        "fence" => free(fence(r)?),
        "prefetch" if has(r, ".tensormap") => {
            r.require(".tensormap")?;
            r.find(Space::parse);
            free(Hopper::PrefetchMap(r.address(Space::Generic)?))
        }
        "mapa" => free(map_address(r)?),
        "getctarank" => {
            let space = cluster_or_generic(r);
            let scalar = address_type(r)?;
            let wide = scalar == Scalar::U64;
            let (d, a) = (r.destination(Scalar::U32)?, r.source(scalar)?);
            free(Hopper::CtaRank { d, a, wide, space })
        }
        "elect" => elect(r)?,
        "barrier" if has(r, ".cluster") => cluster_barrier(r)?,
        "stmatrix" => (store_matrix(r)?, Sync::Aligned),
        "setmaxnreg" => (set_registers(r)?, Sync::Aligned),
        "griddepcontrol" => {
            if !r.accept(".wait") {
                r.require(".launch_dependents")?;
            }
            free(Hopper::GridControl)
        }
        "createpolicy" => free(create_policy(r)?),
        "discard" | "applypriority" => {
            cache_control(r)?;
            return Ok(Some((Op::Nop, Sync::Free)));
        }
        _ => return Ok(None),
    };
    Ok(Some((Op::Hopper(Box::new(op)), sync)))
}

/// Refuses instructions that the module's target does not have.
pub(super) fn check_target(r: &Reader<'_, '_>, target: &str) -> Decoded<()> {
    let has = |modifier: &str| r.instruction.modifiers.iter().any(|m| m.0 == modifier);
    let root = r.instruction.root;
    let needed = match root {
        "wgmma" | "setmaxnreg" if target == "sm_90a" => return Ok(()),
        "wgmma" | "setmaxnreg" => {
            return r.error(format!("`{root}` needs `.target sm_90a`, this module has `{target}`"));
        }
        "mbarrier" if has(".try_wait") || has(".expect_tx") || has(".complete_tx") => 90,
        "cp" if has(".bulk") => 90,
        "fence" if has(".proxy") || has(".mbarrier_init") || has(".cluster") => 90,
        "mbarrier" | "cp" | "fence" | "createpolicy" | "discard" | "applypriority" => 70,
        _ => 90,
    };
    let digits = target.trim_start_matches("sm_").trim_end_matches(|c: char| !c.is_ascii_digit());
    match digits.parse::<u32>() {
        Ok(version) if version < needed => {
            r.error(format!("`{root}` in this form needs `.target sm_{needed}`, this module has `{target}`"))
        }
        _ => Ok(()),
    }
}

/// An address in `.shared::cta`, `.shared::cluster` or without a space.
pub(super) fn site(r: &mut Reader<'_, '_>, space: Space) -> Decoded<Site> {
    Ok(Site { space, address: r.address(space)? })
}

/// The state space of an operand in shared memory, generic without one.
pub(super) fn shared_space(r: &mut Reader<'_, '_>) -> Space {
    r.find(|modifier| Space::parse(modifier).filter(|space| matches!(space, Space::Shared | Space::Cluster)))
        .unwrap_or(Space::Generic)
}

fn cluster_or_generic(r: &mut Reader<'_, '_>) -> Space {
    if r.accept(".shared::cluster") { Space::Cluster } else { Space::Generic }
}

fn address_type(r: &mut Reader<'_, '_>) -> Decoded<Scalar> {
    let scalar = r.scalar()?;
    if matches!(scalar, Scalar::U32 | Scalar::U64) { Ok(scalar) } else { r.unsupported(scalar) }
}

fn map_address(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let space = cluster_or_generic(r);
    let scalar = address_type(r)?;
    let wide = scalar == Scalar::U64;
    if !wide && space == Space::Generic {
        return r.error("generic addresses have 64 bits: write `mapa.u64` or `mapa.shared::cluster.u32`");
    }
    let (d, a) = (r.destination(scalar)?, r.source(scalar)?);
    Ok(Hopper::MapAddress { d, a, rank: r.source(Scalar::U32)?, wide, space })
}

fn elect(r: &mut Reader<'_, '_>) -> Decoded<(Hopper, Sync)> {
    r.require(".sync")?;
    let operand = r.operand()?;
    let OperandKind::Pair(d, p) = &operand.kind else {
        return r.error("`elect.sync` writes `d|p`; either may be `_`");
    };
    let (d, p) = (r.destination_or_sink(d, Scalar::B32)?, r.destination_or_sink(p, Scalar::Pred)?);
    Ok((Hopper::Elect { d, p }, Sync::Members(r.source(Scalar::B32)?)))
}

fn cluster_barrier(r: &mut Reader<'_, '_>) -> Decoded<(Hopper, Sync)> {
    r.require(".cluster")?;
    let op = if r.accept(".arrive") {
        let relaxed = r.accept(".relaxed");
        r.accept(".release");
        Hopper::ClusterArrive { release: !relaxed }
    } else {
        r.require(".wait")?;
        r.accept(".acquire");
        Hopper::ClusterWait { acquire: true }
    };
    Ok((op, if r.accept(".aligned") { Sync::Aligned } else { Sync::Free }))
}

fn store_matrix(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let (count, transposed) = matrices(r)?;
    let space = if r.accept(".shared") || r.accept(".shared::cta") { Space::Shared } else { Space::Generic };
    r.require(".b16")?;
    let at = site(r, space)?;
    let items = r.vector(&[usize::from(count)])?;
    let mut slots = [NONE; 4];
    for (slot, item) in slots.iter_mut().zip(items) {
        *slot = r.source_at(item, Scalar::B32)?;
    }
    Ok(Hopper::StoreMatrix { at, count, transposed, slots })
}

fn set_registers(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let increase = r.accept(".inc");
    if !increase {
        r.require(".dec")?;
    }
    for modifier in [".sync", ".aligned", ".u32"] {
        r.require(modifier)?;
    }
    let count = r.number("a count of registers")?;
    if !(24..=256).contains(&count) || !count.is_multiple_of(8) {
        return r.error(format!("`setmaxnreg` takes a multiple of 8 from 24 to 256, not {count}"));
    }
    Ok(Hopper::SetRegisters { increase, count: count as u32 })
}

fn fence(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let restricted = |r: &mut Reader<'_, '_>| {
        r.accept(".sync_restrict::shared::cta") || r.accept(".sync_restrict::shared::cluster")
    };
    if r.accept(".mbarrier_init") {
        r.require(".release")?;
        r.require(".cluster")?;
        return Ok(Hopper::Fence(Fence::BarrierInit));
    }
    if r.accept(".proxy") {
        if r.accept(".tensormap::generic") {
            if !r.accept(".release") {
                r.require(".acquire")?;
                scope(r);
                r.address(Space::Generic)?;
                if r.number("the size, 128,")? != 128 {
                    return r.error("the size of a tensor map is 128");
                }
            }
            scope(r);
            return Ok(Hopper::Fence(Fence::ProxyTensorMap));
        }
        if r.accept(".async::generic") {
            if !r.accept(".acquire") {
                r.require(".release")?;
            }
            restricted(r);
            r.require(".cluster")?;
            return Ok(Hopper::Fence(Fence::ProxyAsync { shared: true, global: false }));
        }
        if r.accept(".alias") {
            return Ok(Hopper::Fence(Fence::ProxyAlias));
        }
        r.require(".async")?;
        let global = r.accept(".global");
        let shared = r.accept(".shared::cta") || r.accept(".shared::cluster") || r.accept(".shared");
        return Ok(Hopper::Fence(match (shared, global) {
            (true, false) => Fence::ProxyAsync { shared, global },
            (false, true) => Fence::ProxyAsync { shared, global },
            _ => Fence::ProxyAsync { shared: true, global: true },
        }));
    }
    if ![".sc", ".acq_rel", ".acquire", ".release"].iter().any(|sem| r.accept(sem)) {
        return r.error("`fence` needs `.sc`, `.acq_rel`, `.proxy` or `.mbarrier_init`");
    }
    restricted(r);
    let narrow = r.accept(".cta") || r.accept(".cluster");
    scope(r);
    Ok(Hopper::Fence(Fence::Memory(!narrow)))
}

pub(super) fn scope(r: &mut Reader<'_, '_>) {
    for scope in [".cta", ".cluster", ".gpu", ".sys"] {
        r.accept(scope);
    }
}

fn create_policy(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    const LEVELS: [&str; 4] =
        [".L2::evict_last", ".L2::evict_normal", ".L2::evict_first", ".L2::evict_unchanged"];
    if r.accept(".cvt") {
        r.require(".L2")?;
        r.require(".b64")?;
        let d = r.destination(Scalar::B64)?;
        r.source(Scalar::B64)?;
        return Ok(Hopper::CreatePolicy(d));
    }
    let range = r.accept(".range");
    if range {
        r.find(Space::parse);
    } else {
        r.require(".fractional")?;
    }
    for level in LEVELS {
        r.accept(level);
    }
    r.require(".b64")?;
    let d = r.destination(Scalar::B64)?;
    if range {
        r.address(Space::Global)?;
        r.source(Scalar::U32)?;
        r.source(Scalar::U32)?;
    }
    if r.left() > 0 {
        r.source(Scalar::F32)?;
    }
    Ok(Hopper::CreatePolicy(d))
}

fn cache_control(r: &mut Reader<'_, '_>) -> Decoded<()> {
    r.accept(".global");
    if r.instruction.root == "discard" {
        r.require(".L2")?;
    } else {
        r.require(".L2::evict_normal")?;
    }
    r.address(Space::Global)?;
    match r.number("the size, 128,")? {
        128 => Ok(()),
        other => r.error(format!("the size is 128 bytes, not {other}")),
    }
}

fn reduction(r: &mut Reader<'_, '_>) -> Option<AtomOp> {
    r.find(|modifier| {
        Some(match modifier {
            ".add" => AtomOp::Add,
            ".min" => AtomOp::Min,
            ".max" => AtomOp::Max,
            ".inc" => AtomOp::Increment,
            ".dec" => AtomOp::Decrement,
            ".and" => AtomOp::And,
            ".or" => AtomOp::Or,
            ".xor" => AtomOp::Xor,
            _ => return None,
        })
    })
}

fn suits(op: AtomOp, scalar: Scalar, global: bool) -> bool {
    let half = matches!(scalar, Scalar::F16 | Scalar::Bf16) && global;
    match op {
        AtomOp::Add => {
            half || matches!(scalar, Scalar::U32 | Scalar::S32 | Scalar::U64)
                || global && matches!(scalar, Scalar::F32 | Scalar::F64)
        }
        AtomOp::Min | AtomOp::Max => {
            half || matches!(scalar, Scalar::U32 | Scalar::S32)
                || global && matches!(scalar, Scalar::U64 | Scalar::S64)
        }
        AtomOp::Increment | AtomOp::Decrement => scalar == Scalar::U32,
        _ => scalar == Scalar::B32 || global && scalar == Scalar::B64,
    }
}

/// `[map, {c0, c1}]`
fn tensor(r: &mut Reader<'_, '_>, rank: u8) -> Decoded<Tensor> {
    let operand = r.operand()?;
    let OperandKind::Tensor(map, items) = &operand.kind else {
        return r.error("expected `[map, {coordinates}]`");
    };
    if items.len() != usize::from(rank) {
        return r.error(format!("a copy of {rank} dimensions takes {rank} coordinates, not {}", items.len()));
    }
    let mut coordinates = [NONE; 5];
    for (slot, item) in coordinates.iter_mut().zip(items) {
        *slot = r.source_at(item, Scalar::S32)?;
    }
    Ok(Tensor { map: r.address_at(map, Space::Generic)?, coordinates, rank })
}

fn bulk(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let reduces = r.accept(".reduce");
    for modifier in [".async", ".bulk"] {
        r.require(modifier)?;
    }
    if r.accept(".commit_group") {
        return Ok(Hopper::BulkCommit);
    }
    if r.accept(".wait_group") {
        let read = r.accept(".read");
        let groups = r.number("a count of groups")?;
        return Ok(Hopper::BulkWait { groups: u32::try_from(groups).unwrap_or(u32::MAX), read });
    }
    let prefetch = r.accept(".prefetch");
    let rank = if r.accept(".tensor") {
        let rank = [".1d", ".2d", ".3d", ".4d", ".5d"].iter().position(|rank| r.accept(rank));
        let Some(rank) = rank else { return r.error("a tensor copy needs `.1d` to `.5d`") };
        r.accept(".tile");
        Some(rank as u8 + 1)
    } else {
        None
    };
    if prefetch {
        r.require(".L2")?;
        r.require(".global")?;
        let hint = r.accept(".L2::cache_hint");
        let side = match rank {
            Some(rank) => GlobalSide::Tensor(tensor(r, rank)?),
            None => GlobalSide::Linear(r.address(Space::Global)?, r.source(Scalar::U32)?),
        };
        policy(r, hint)?;
        return Ok(Hopper::Bulk(Bulk::Prefetch(side)));
    }
    if r.accept(".bulk_group") {
        return store(r, reduces, rank);
    }
    r.require(".mbarrier::complete_tx::bytes")?;
    let to = if r.accept(".shared::cluster") {
        Space::Cluster
    } else {
        r.require(".shared::cta")?;
        Space::Shared
    };
    if r.accept(".shared::cta") {
        if to == Space::Shared || rank.is_some() {
            return r.error("a copy between CTAs goes from `.shared::cta` to `.shared::cluster`");
        }
        return between(r, reduces);
    }
    r.require(".global")?;
    if reduces {
        return r.error("a reduction from global to shared memory does not exist");
    }
    let multicast = r.accept(".multicast::cluster");
    if multicast && to == Space::Shared {
        return r.error("`.multicast::cluster` needs a destination in `.shared::cluster`");
    }
    let hint = r.accept(".L2::cache_hint");
    let target = site(r, to)?;
    let from = match rank {
        Some(rank) => GlobalSide::Tensor(tensor(r, rank)?),
        None => GlobalSide::Linear(r.address(Space::Global)?, r.source(Scalar::U32)?),
    };
    let barrier = site(r, to)?;
    let mask = if multicast { r.source(Scalar::B16)? } else { NONE };
    policy(r, hint)?;
    Ok(Hopper::Bulk(Bulk::Load { to: target, from, barrier, mask }))
}

fn store(r: &mut Reader<'_, '_>, reduces: bool, rank: Option<u8>) -> Decoded<Hopper> {
    r.require(".global")?;
    r.require(".shared::cta")?;
    let hint = r.accept(".L2::cache_hint");
    let reduce = if reduces {
        let Some(op) = reduction(r) else { return r.error("a reduction needs an operation such as `.add`") };
        let scalar = if rank.is_none() {
            let flushes = !r.accept(".noftz");
            let scalar = r.scalar()?;
            if !suits(op, scalar, true) {
                return r.unsupported(scalar);
            }
            if flushes && op == AtomOp::Add && matches!(scalar, Scalar::F16 | Scalar::Bf16) {
                return r.error("`.add` of 16-bit floats needs `.noftz`");
            }
            Some(scalar)
        } else {
            None
        };
        Some((op, scalar))
    } else {
        None
    };
    let (to, from) = match rank {
        Some(rank) => (GlobalSide::Tensor(tensor(r, rank)?), site(r, Space::Shared)?),
        None => {
            let to = r.address(Space::Global)?;
            let from = site(r, Space::Shared)?;
            (GlobalSide::Linear(to, r.source(Scalar::U32)?), from)
        }
    };
    policy(r, hint)?;
    Ok(Hopper::Bulk(Bulk::Store { to, from, reduce }))
}

fn between(r: &mut Reader<'_, '_>, reduces: bool) -> Decoded<Hopper> {
    let reduce = if reduces {
        let Some(op) = reduction(r) else { return r.error("a reduction needs an operation such as `.add`") };
        let scalar = r.scalar()?;
        if !suits(op, scalar, false) {
            return r.unsupported(scalar);
        }
        Some((op, scalar))
    } else {
        None
    };
    let (to, from) = (site(r, Space::Cluster)?, site(r, Space::Shared)?);
    let bytes = r.source(Scalar::U32)?;
    Ok(Hopper::Bulk(Bulk::Copy { to, from, bytes, barrier: site(r, Space::Cluster)?, reduce }))
}

/// The cache policy, an operand without effect here.
fn policy(r: &mut Reader<'_, '_>, hint: bool) -> Decoded<()> {
    if hint {
        r.source(Scalar::B64)?;
    }
    Ok(())
}

fn store_async(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    r.require(".async")?;
    let reduces = r.instruction.root == "red";
    r.accept(if reduces { ".relaxed" } else { ".weak" });
    if reduces {
        r.accept(".cluster");
    }
    r.require(".mbarrier::complete_tx::bytes")?;
    // Both addresses are `.shared::cluster`, whether the instruction says so or not.
    r.accept(".shared::cluster");
    let reduce = if reduces {
        let Some(op) = reduction(r) else { return r.error("`red.async` needs an operation such as `.add`") };
        Some(op)
    } else {
        None
    };
    let count = match (r.accept(".v2"), r.accept(".v4")) {
        (true, _) => 2,
        (_, true) => 4,
        _ => 1,
    };
    let scalar = r.scalar()?;
    let known = match reduce {
        Some(op) => suits(op, scalar, false) && count == 1,
        None => scalar.bits() >= 32 && scalar.bytes() * u32::from(count) <= 16 && scalar != Scalar::Pred,
    };
    if !known {
        return r.unsupported(scalar);
    }
    let to = site(r, Space::Cluster)?;
    let items = r.vector(&[usize::from(count)])?;
    let mut values = [NONE; 4];
    for (slot, item) in values.iter_mut().zip(items) {
        *slot = r.source_at(item, scalar)?;
    }
    let barrier = site(r, Space::Cluster)?;
    Ok(Hopper::StoreAsync(StoreAsync { to, barrier, scalar, count, values, reduce }))
}
