//! The order that asynchronous instructions give: what each event releases, acquires, reads and writes, for the race
//! checker. This module knows instructions; clocks and shadow memory are in `race`.
//!
//! Everything an operation touches is checked when it is issued, and what a wait covers is taken from what was issued
//! before it, so that the moments at which operations complete in a run decide nothing.
//!
//! - An mbarrier has, for each phase, a clock of what arrived with a release and one of the operations that completed on
//!   it. A wait takes both; a relaxed one the first only at the warp's next fence.
//! - The eight bytes of an mbarrier are written by `init` and `inval` and read by everything else: whoever uses it must come
//!   after the `init`, and an operation of the async proxy also after a proxy fence or `fence.mbarrier_init`.
//! - A copy to several CTAs is an operation for each. A bulk store is two: reading the source, and writing global memory.
//! - `wgmma` reads through a queue of the warp, whose wait covers what that warp issued: its own quarter of the product.

use std::collections::HashMap;

use super::asynchronous::{ClusterState, Extent};
use super::events::{Agent, Event, Issue, Phase, Range};
use super::lanes::lanes_of;
use super::race::{Clock, Op, Race, Range as Bytes, Region};
use super::step::Machine;
use super::tile::Tile;
use crate::fault::FaultKind;
use crate::hopper::Fence;
use crate::program::Order;

/// Bytes of an mbarrier.
const OBJECT: u64 = 8;

/// What the end of a phase hands to those who see it.
#[derive(Clone, Debug, Default)]
struct Ends {
    arrivals: Clock,
    completions: Clock,
}

/// The newest phase of an mbarrier of which something is known, and the one before.
#[derive(Debug, Default)]
struct Phases {
    number: u64,
    current: Ends,
    previous: Ends,
}

impl Phases {
    fn at(&mut self, number: u64) -> &mut Ends {
        if number > self.number {
            let current = std::mem::take(&mut self.current);
            self.previous = if number == self.number + 1 { current } else { Ends::default() };
            self.number = number;
        }
        if number == self.number { &mut self.current } else { &mut self.previous }
    }
}

/// A bulk store nobody has waited for.
#[derive(Debug)]
struct Stored {
    group: u32,
    pc: u32,
    /// Its reads, until a wait covered them.
    source: Option<Op>,
    result: Op,
}

/// What is remembered between events, for the CTAs of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Ordering {
    barriers: HashMap<(u32, u32), Phases>,
    cluster: Phases,
    /// Operations that will complete on an mbarrier, by number and the rank of that mbarrier.
    operations: HashMap<(u64, u32), Op>,
    /// Bulk stores by warp and lane.
    stores: HashMap<(usize, usize), Vec<Stored>>,
    products: HashMap<u64, Op>,
    /// mbarriers that were initialised and not fenced: warp, rank, address.
    fresh: Vec<(usize, u32, u32)>,
    /// What the instruction that runs now hands over with each of its arrivals.
    released: Clock,
}

impl Ordering {
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }
}

fn shared(rank: u32, address: u32, bytes: u64) -> Bytes {
    Bytes { region: Region::of(rank), start: u64::from(address), bytes }
}

fn bytes_of(range: &Range) -> Bytes {
    shared(range.rank, range.address, u64::from(range.bytes))
}

/// What a box takes from shared memory at an address: its elements inside the tensor.
fn inside_of(tile: &Tile, rank: u32, from: u32) -> Result<Vec<Bytes>, FaultKind> {
    let (element, row_bytes) = (tile.map.element.bytes(), tile.row_bytes());
    let mut out: Vec<Bytes> = Vec::new();
    let mut add = |start: u32, bytes: u32| match out.last_mut() {
        Some(last) if last.start + last.bytes == u64::from(start) => last.bytes += u64::from(bytes),
        _ => out.push(shared(rank, start, u64::from(bytes))),
    };
    tile.rows(|row| {
        let (low, high) = (row.inside.0 * element, row.inside.1 * element);
        if high - low == row_bytes && tile.map.swizzle.span().is_none_or(|span| span == row_bytes) {
            // Swizzling permutes the chunks of a row.
            add(from.wrapping_add(row.offset), row_bytes);
            return Ok(());
        }
        for at in (low / 16 * 16..high).step_by(16) {
            let (first, last) = (low.max(at), high.min(at + 16));
            let chunk = tile.map.swizzle.apply(from.wrapping_add(row.offset + at));
            add(chunk.wrapping_add(first - at), last - first);
        }
        Ok(())
    })?;
    Ok(out)
}

/// The bytes of global memory that a copy reads or writes.
fn global_of(extent: &Extent, bytes: u64) -> Result<Vec<Bytes>, FaultKind> {
    let region = Region::Global;
    match extent {
        Extent::Linear(start) => Ok(vec![Bytes { region, start: *start, bytes }]),
        Extent::Tile(tile) => {
            let element = u64::from(tile.map.element.bytes());
            let mut out = Vec::new();
            tile.rows(|row| {
                let bytes = u64::from(row.inside.1 - row.inside.0) * element;
                if bytes > 0 {
                    out.push(Bytes { region, start: row.address, bytes });
                }
                Ok(())
            })?;
            Ok(out)
        }
    }
}

impl Machine<'_> {
    /// Number of an agent's warp among those of the cluster.
    fn number_of(&self, agent: &Agent) -> usize {
        (agent.rank * self.threads.div_ceil(32) + agent.warp) as usize
    }

    /// Tells the race checker of an event.
    pub(super) fn order(&mut self, event: &Event<'_>) -> Result<(), FaultKind> {
        let warp = event.agent().map_or(0, |agent| self.number_of(agent));
        let ClusterState { race: Some(race), ordering, .. } = &mut *self.cluster else { return Ok(()) };
        match event {
            Event::Issue(issue) => ordering.issue(race, warp, issue)?,
            Event::Complete { operation, phase } => {
                if let Some(op) = ordering.operations.remove(&(*operation, phase.rank)) {
                    let clock = race.complete(op);
                    ordering.phase(*phase).completions.join(&clock);
                }
            }
            Event::BarrierStart { agent, rank, address } => {
                race.write(warp, shared(*rank, *address, OBJECT), agent.pc, Order::default())?;
                ordering.barriers.remove(&(*rank, *address));
                ordering.fresh.push((warp, *rank, *address));
            }
            Event::BarrierEnd { agent, rank, address } => {
                race.write(warp, shared(*rank, *address, OBJECT), agent.pc, Order::default())?;
                ordering.barriers.remove(&(*rank, *address));
                ordering.fresh.retain(|fresh| (fresh.1, fresh.2) != (*rank, *address));
            }
            Event::BarrierUse { agent, rank, address } => {
                race.read(warp, shared(*rank, *address, OBJECT), agent.pc, Order::default())?;
            }
            Event::Release { release, .. } => ordering.released = released(race, warp, *release),
            Event::Arrive { phase, .. } => {
                let released = std::mem::take(&mut ordering.released);
                ordering.phase(*phase).arrivals.join(&released);
                ordering.released = released;
            }
            Event::CopiesArrive { phase, clock } => ordering.phase(*phase).arrivals.join(clock),
            Event::Observe { phase, acquire, .. } => {
                let ends = ordering.phase(*phase);
                race.acquire(warp, &ends.completions);
                if *acquire {
                    race.acquire(warp, &ends.arrivals);
                } else {
                    race.acquire_at_fence(warp, &ends.arrivals);
                }
            }
            Event::Fence { fence, .. } => match fence {
                Fence::ProxyAsync { .. } => race.fence_proxy_async(warp),
                Fence::BarrierInit => {
                    for (_, rank, address) in ordering.fresh.extract_if(.., |fresh| fresh.0 == warp) {
                        race.fence_barrier(warp, Region::of(rank), address);
                    }
                }
                Fence::Memory(device) => race.fence(warp, *device),
                Fence::ProxyTensorMap | Fence::ProxyAlias => {}
            },
            Event::ClusterArrive { phase, release, .. } => {
                let clock = released(race, warp, *release);
                ordering.cluster.at(u64::from(*phase)).arrivals.join(&clock);
            }
            Event::ClusterWait { phase, acquire, .. } => {
                let ends = ordering.cluster.at(u64::from(*phase));
                if *acquire {
                    race.acquire(warp, &ends.arrivals);
                } else {
                    race.acquire_at_fence(warp, &ends.arrivals);
                }
            }
            Event::WgmmaIssue { agent, operation, chunks, .. } => {
                let mut reads: Vec<Bytes> = Vec::with_capacity(chunks.len());
                for chunk in *chunks {
                    match reads.last_mut() {
                        Some(last) if last.start + last.bytes == u64::from(*chunk) => last.bytes += 16,
                        _ => reads.push(shared(agent.rank, *chunk, 16)),
                    }
                }
                let op = race.issue_async(warp, Some(warp), &reads, &[], agent.pc)?;
                ordering.products.insert(*operation, op);
            }
            Event::WgmmaWait { operations, .. } => {
                for operation in *operations {
                    if let Some(op) = ordering.products.remove(operation) {
                        let clock = race.complete(op);
                        race.acquire(warp, &clock);
                    }
                }
            }
            Event::BulkWait { agent, groups, read } => {
                for lane in lanes_of(agent.lanes) {
                    ordering.wait_stores(race, (warp, lane), groups[lane], *read);
                }
            }
        }
        Ok(())
    }
}

/// What a warp hands over: all it did, or without a release what lies before its last fence.
fn released(race: &mut Race, warp: usize, release: bool) -> Clock {
    if release { race.release(warp) } else { race.fenced(warp).cloned().unwrap_or_default() }
}

impl Ordering {
    fn phase(&mut self, phase: Phase) -> &mut Ends {
        self.barriers.entry((phase.rank, phase.address)).or_default().at(phase.number)
    }

    fn issue(&mut self, race: &mut Race, warp: usize, issue: &Issue<'_>) -> Result<(), FaultKind> {
        let pc = issue.agent.pc;
        let global = match issue.global {
            Some(extent) => global_of(extent, issue.traffic.bytes())?,
            None => Vec::new(),
        };
        let Some(barrier) = issue.barrier else {
            let mut reads = Vec::new();
            for range in issue.reads {
                match issue.global {
                    Some(Extent::Tile(tile)) => reads.extend(inside_of(tile, range.rank, range.address)?),
                    _ => reads.push(bytes_of(range)),
                }
            }
            let source = race.issue_async(warp, None, &reads, &[], pc)?;
            let result = if issue.reduces {
                race.issue_reduction(warp, &[], &global, pc)?
            } else {
                race.issue_async(warp, None, &[], &global, pc)?
            };
            let lane = issue.agent.lanes.trailing_zeros() as usize;
            let stored = Stored { group: issue.group, pc, source: Some(source), result };
            self.stores.entry((warp, lane)).or_default().push(stored);
            return Ok(());
        };
        let sources: Vec<Bytes> = issue.reads.iter().map(bytes_of).chain(global).collect();
        for range in issue.writes {
            let object = shared(range.rank, barrier, OBJECT);
            let mut reads = vec![object];
            reads.extend_from_slice(&sources);
            let writes = [bytes_of(range)];
            let op = if issue.generic {
                race.issue_store(warp, &reads, &writes, issue.reduces, pc)
            } else if issue.reduces {
                race.issue_reduction(warp, &reads, &writes, pc)
            } else {
                race.issue_async(warp, None, &reads, &writes, pc)
            };
            let op = op.map_err(|kind| about_barrier(kind, barrier))?;
            self.operations.insert((issue.operation, range.rank), op);
        }
        Ok(())
    }

    /// A bulk store of one of these warps whose source no wait covered: warp, lane, instruction.
    pub(crate) fn unread(&self, warps: std::ops::Range<usize>) -> Option<(usize, usize, u32)> {
        let of_warps = self.stores.iter().filter(|((warp, _), _)| warps.contains(warp));
        let unread = of_warps.flat_map(|(&(warp, lane), stores)| {
            stores.iter().filter(|stored| stored.source.is_some()).map(move |stored| (warp, lane, stored.pc))
        });
        unread.min()
    }

    /// A lane waited for its bulk stores of the groups below a bound.
    fn wait_stores(&mut self, race: &mut Race, of: (usize, usize), bound: u32, read: bool) {
        let Some(stores) = self.stores.get_mut(&of) else { return };
        stores.retain_mut(|stored| {
            if stored.group >= bound {
                return true;
            }
            if let Some(op) = stored.source.take() {
                let clock = race.complete(op);
                race.acquire(of.0, &clock);
            }
            if !read {
                let clock = race.complete(stored.result);
                race.acquire(of.0, &clock);
            }
            read
        });
    }
}

/// Says what makes an mbarrier fit for asynchronous operations when that is what is missing.
#[cold]
fn about_barrier(kind: FaultKind, barrier: u32) -> FaultKind {
    match kind {
        FaultKind::MissingProxyFence(mut race)
            if (u64::from(barrier)..u64::from(barrier) + OBJECT).contains(&race.address) =>
        {
            race.advice = "a fence.mbarrier_init.release.cluster (or fence.proxy.async) behind mbarrier.init is missing: \
                           without it asynchronous operations need not see the initialised mbarrier";
            FaultKind::MissingProxyFence(race)
        }
        other => other,
    }
}
