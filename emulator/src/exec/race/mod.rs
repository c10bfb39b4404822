//! Data races: accesses of which one is a write and between which nothing says which comes first.
//!
//! This module owns the order of things (vector clocks) and who touched which byte when (shadow memory); it neither
//! moves data nor knows instructions. Warps run in turns, so a race rarely shows in the data; here it shows whatever
//! the turns were, because only the order that synchronisation gives counts.
//!
//! # Agents
//! Each warp of the CTAs that share these clocks is an agent, and so are a queue of `cp.async` for each warp, a queue for
//! tensor-core operations for each warp, and a slot for every other asynchronous operation in flight. Lanes of a warp
//! count as one: only lanes of one store that disagree are looked for (`lanes_agree`).
//!
//! # Clocks
//! A warp has two vector clocks: `generic` holds what its own accesses come after, `visible` what asynchronous operations
//! it issues come after. [`Race::fence_proxy_async`] copies the first to the second; what is released and acquired
//! (barriers, mbarriers, flags) carries both.
//!
//! | access now | earlier generic write | earlier generic read | earlier asynchronous access |
//! |---|---|---|---|
//! | generic | in `generic` | in `generic` (for a write) | in either clock |
//! | asynchronous | in `visible`, else a proxy fence is missing | in `generic` (for a write) | in either clock |
//!
//! A read followed by an asynchronous write needs no proxy fence: the data has left memory when the read is complete.
//! Checks are made when an operation is issued.
//!
//! # Strong accesses
//! Atomics, `.volatile`, `.relaxed`, `.acquire` and `.release` accesses do not race with each other but with plain ones.
//! Each address that was written by one keeps the clock that a reader gets: of a release write, or of the last fence
//! before a relaxed one. An acquire read takes it at once, a relaxed one at the next fence. Read-modify-writes add to the
//! clock, stores replace it. Fences count at every scope inside a CTA.
//!
//! # Global memory
//! Inside a CTA it is treated as shared memory is. Between CTAs nothing is ordered except by the pattern of flags and
//! counters: what a CTA did before a release of device scope (a fence and then a strong write or atomic, or a release) is
//! ordered before what another did after an acquire of device scope. Which release an acquire sees is not asked, so that
//! the order in which CTAs happen to run decides nothing. Each CTA's accesses are compared with those of the
//! CTAs before it when it ends: [`Launch`].
//!
//! # Use
//! Asynchronous operations: `let op = race.issue_async(warp, queue, &reads, &writes, pc)?` when issued, and where their
//! completion is signalled `barrier_clock.join(&race.complete(op))`; who waits does `race.acquire(warp, &barrier_clock)`,
//! who arrives `barrier_clock.join(&race.release(warp))`. Warps are numbered through all CTAs of a cluster
//! (rank x warps of a CTA + warp), shared memory by the CTA's rank. Who calls what for which instruction is in
//! `exec/events.rs` and `exec/order.rs`.

mod asynchronous;
mod clock;
mod grid;
mod lanes;
mod marks;
mod pages;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

pub(crate) use asynchronous::Op;
pub(crate) use clock::Clock;
use clock::{Agent, Times};
pub(crate) use grid::Launch;
pub(super) use lanes::lanes_agree;
use marks::{AFTER, ASYNC, COPY, DEVICE, GRANULE, Mark, PC_SHIFT, STRONG, Slots, WRITE};
use pages::Pages;

use super::lanes::lanes_of;
use crate::fault::FaultKind;
use crate::program::Order;

/// Marks of sixteen bytes of shared memory: a writer, and four warps that read what it wrote.
type SharedCell = Slots<Mark, 5>;

/// Slots that stay unused after an operation, so that a clock that knows the next one's end does not soon count as
/// knowing this one's.
const RESTING_SLOTS: usize = 64;

/// Which memory, for the race checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Region {
    /// Shared memory of the CTA of this rank in its cluster.
    Shared(u16),
    Global,
}

impl Region {
    /// Shared memory of the CTA of this rank; clusters have 16 at most.
    #[inline(always)]
    pub(crate) fn of(rank: u32) -> Self {
        Self::Shared(rank as u16)
    }
}

/// Where the CTAs that share clocks lie in the grid, for reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Coordinates of the first.
    pub(crate) first: [u32; 3],
    /// CTAs along each axis.
    pub(crate) shape: [u32; 3],
}

impl Place {
    /// The place of the CTAs with another number, counted over the grid along x, then y, then z.
    pub(super) fn of_number(&self, number: u32, grid: [u32; 3]) -> Self {
        let [x, y, _]: [u32; 3] = std::array::from_fn(|axis| grid[axis] / self.shape[axis].max(1));
        let at = [number % x, number / x % y, number / x / y];
        Self { first: std::array::from_fn(|axis| at[axis] * self.shape[axis]), ..*self }
    }

    pub(super) fn cta(&self, rank: u32) -> [u32; 3] {
        let [x, y, _] = self.shape;
        let offset = [rank % x, rank / x % y, rank / x / y];
        std::array::from_fn(|axis| self.first[axis] + offset[axis])
    }
}

/// Bytes in one memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) region: Region,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// Copies of one group of a warp: group, time in the warp's queue, lanes that have not waited.
#[derive(Clone, Copy, Debug)]
struct Group {
    group: u32,
    time: u32,
    lanes: u32,
    /// An mbarrier tracks these, and none that follow.
    closed: bool,
}

#[derive(Debug, Default)]
struct WarpClocks {
    generic: Times,
    visible: Times,
    /// Handed over by relaxed writes: the clock at the last fence, and what lies before fences of device scope.
    fenced: Option<Clock>,
    fenced_for_device: Times,
    /// Taken by relaxed reads, in force at the next fence; and whether that may be of another CTA.
    pending: Clock,
    pending_foreign: bool,
    /// Something of another CTA was acquired.
    foreign: bool,
    groups: Vec<Group>,
    /// Time of the newest group of copies.
    copied: u32,
}

impl WarpClocks {
    fn acquire(&mut self, clock: &Clock) {
        self.generic.join(&clock.generic);
        self.visible.join(&clock.visible);
        self.foreign |= clock.foreign;
        self.fenced_for_device.join(&clock.fenced_for_device);
        self.pending_foreign |= clock.pending_foreign;
    }
}

/// Clocks and shadow memory of a CTA, or of the CTAs of a cluster.
#[derive(Debug)]
pub(crate) struct Race {
    warps: Vec<WarpClocks>,
    shared: Vec<Vec<SharedCell>>,
    global: Pages,
    /// What strong writes handed over, by address.
    flags: HashMap<(Region, u64), Clock>,
    /// What was released to other CTAs.
    published: Times,
    /// Times of the tensor-core queues.
    tensor: Vec<u32>,
    /// Of each slot for asynchronous operations the warps that issued them, one for each time, and the slots that rest or
    /// are free, the longest first.
    slots: Vec<Vec<u16>>,
    resting: VecDeque<Agent>,
    place: Place,
}

impl Race {
    /// Makes the state for `ctas` CTAs of `warps` warps each, with `shared` bytes of shared memory each.
    pub(crate) fn new(ctas: usize, warps: usize, shared: usize) -> Self {
        let mut race = Self {
            warps: Vec::new(),
            shared: vec![Vec::new(); ctas],
            global: Pages::default(),
            flags: HashMap::new(),
            published: Times::default(),
            tensor: Vec::new(),
            slots: Vec::new(),
            resting: VecDeque::new(),
            place: Place { first: [0; 3], shape: [ctas as u32, 1, 1] },
        };
        race.warps.resize_with(ctas * warps, WarpClocks::default);
        race.restart(shared, race.place);
        race
    }

    /// Forgets everything: the next CTA or cluster starts.
    pub(crate) fn restart(&mut self, shared: usize, place: Place) {
        self.place = place;
        for cells in &mut self.shared {
            cells.clear();
            cells.resize_with(shared.div_ceil(GRANULE as usize), SharedCell::default);
        }
        for (at, warp) in self.warps.iter_mut().enumerate() {
            *warp = WarpClocks::default();
            warp.generic.raise(at as Agent, 1);
        }
        self.global.clear();
        self.flags.clear();
        self.published.clear();
        self.tensor.clear();
        self.tensor.resize(self.warps.len(), 0);
        self.slots.clear();
        self.resting.clear();
    }

    /// The queue of the copies of a warp.
    fn copies(&self, warp: usize) -> Agent {
        (self.warps.len() + warp) as Agent
    }

    fn first_slot(&self) -> usize {
        3 * self.warps.len()
    }

    fn own_time(&self, warp: usize) -> u32 {
        self.warps[warp].generic.get(warp as Agent)
    }

    /// Everything the warp did or knows of, to hand over; its later accesses are told apart from those before.
    pub(crate) fn release(&mut self, warp: usize) -> Clock {
        let own = self.own_time(warp);
        let clocks = &mut self.warps[warp];
        let clock = Clock {
            generic: clocks.generic.clone(),
            visible: clocks.visible.clone(),
            foreign: clocks.foreign,
            fenced_for_device: clocks.fenced_for_device.clone(),
            pending_foreign: clocks.pending_foreign,
        };
        clocks.generic.raise(warp as Agent, own + 1);
        clock
    }

    /// Orders the warp's later accesses behind what was handed over.
    pub(crate) fn acquire(&mut self, warp: usize, clock: &Clock) {
        self.warps[warp].acquire(clock);
    }

    /// `fence.proxy.async`: asynchronous operations come after all that generic accesses come after.
    pub(crate) fn fence_proxy_async(&mut self, warp: usize) {
        let clock = self.release(warp);
        self.warps[warp].visible.join(&clock.generic);
    }

    /// What a relaxed arrival hands over: what lies before the warp's last fence.
    pub(crate) fn fenced(&self, warp: usize) -> Option<&Clock> {
        self.warps[warp].fenced.as_ref()
    }

    /// A relaxed wait: takes effect at the warp's next fence.
    pub(crate) fn acquire_at_fence(&mut self, warp: usize, clock: &Clock) {
        self.warps[warp].pending.join(clock);
    }

    /// `fence` or `membar`; `device` when it works beyond the cluster.
    pub(crate) fn fence(&mut self, warp: usize, device: bool) {
        let pending = std::mem::take(&mut self.warps[warp].pending);
        self.acquire(warp, &pending);
        let clocks = &mut self.warps[warp];
        clocks.foreign |= device && clocks.pending_foreign;
        let clock = self.release(warp);
        if device {
            self.warps[warp].fenced_for_device.join(&clock.generic);
        }
        self.warps[warp].fenced = Some(clock);
    }

    /// A load of a warp, by one lane or several.
    #[inline]
    pub(crate) fn read(&mut self, warp: usize, range: Range, pc: u32, order: Order) -> Result<(), FaultKind> {
        self.generic(warp, range, pc, strength(order))?;
        if order.strong() {
            self.observe(warp, range, order);
        }
        Ok(())
    }

    /// A store of a warp, by one lane or several.
    #[inline]
    pub(crate) fn write(
        &mut self,
        warp: usize,
        range: Range,
        pc: u32,
        order: Order,
    ) -> Result<(), FaultKind> {
        self.generic(warp, range, pc, WRITE | strength(order))?;
        if order.strong() {
            self.publish(warp, range, order, false);
        }
        Ok(())
    }

    /// A read-modify-write.
    pub(crate) fn atomic(
        &mut self,
        warp: usize,
        range: Range,
        pc: u32,
        order: Order,
    ) -> Result<(), FaultKind> {
        self.generic(warp, range, pc, WRITE | strength(order))?;
        self.observe(warp, range, order);
        self.publish(warp, range, order, true);
        Ok(())
    }

    /// A `cp.async` of one lane, into the group with this number.
    pub(crate) fn copy(
        &mut self,
        (warp, lane, group): (usize, usize, u32),
        to: Range,
        from: Range,
        pc: u32,
    ) -> Result<(), FaultKind> {
        let agent = self.copies(warp);
        let clocks = &mut self.warps[warp];
        let time = match clocks.groups.iter_mut().find(|entry| entry.group == group && !entry.closed) {
            Some(entry) => {
                entry.lanes |= 1 << lane;
                entry.time
            }
            None => {
                clocks.copied += 1;
                clocks.groups.push(Group { group, time: clocks.copied, lanes: 1 << lane, closed: false });
                clocks.copied
            }
        };
        self.touch(warp, from, Mark { time, code: pc << PC_SHIFT | COPY, agent, mask: 0 })?;
        self.touch(warp, to, Mark { time, code: pc << PC_SHIFT | COPY | WRITE, agent, mask: 0 })
    }

    /// The lanes waited for their copies of the groups below a bound of each lane.
    pub(crate) fn wait_copies(&mut self, warp: usize, mask: u32, bound: impl Fn(usize) -> u32) {
        let agent = self.copies(warp);
        let clocks = &mut self.warps[warp];
        clocks.groups.retain_mut(|entry| {
            for lane in lanes_of(entry.lanes & mask) {
                if entry.group < bound(lane) {
                    entry.lanes &= !(1 << lane);
                }
            }
            entry.lanes != 0
        });
        // Groups end in order, so all before the first that has not ended have.
        let oldest = clocks.groups.iter().map(|entry| entry.time - 1).min();
        clocks.generic.raise(agent, oldest.unwrap_or(clocks.copied));
    }

    #[inline]
    fn generic(&mut self, warp: usize, range: Range, pc: u32, kind: u32) -> Result<(), FaultKind> {
        let time = self.own_time(warp);
        self.touch(warp, range, Mark { time, code: pc << PC_SHIFT | kind, agent: warp as Agent, mask: 0 })
    }

    /// Checks and records one access; bytes outside the memory are left to those who move the data.
    #[inline]
    fn touch(&mut self, warp: usize, range: Range, mut mark: Mark) -> Result<(), FaultKind> {
        let clocks = &self.warps[warp];
        let asynchronous = mark.is(ASYNC);
        if clocks.foreign && range.region == Region::Global {
            mark.code |= AFTER;
        }
        let before = |earlier: &Mark| {
            let (agent, time) = (earlier.agent, earlier.time);
            if asynchronous {
                if earlier.is(ASYNC) {
                    return time <= clocks.generic.get(agent).max(clocks.visible.get(agent));
                }
                if earlier.is(WRITE) {
                    return time <= clocks.visible.get(agent);
                }
            }
            usize::from(agent) == warp
                || time <= clocks.generic.get(agent)
                || earlier.is(ASYNC) && time <= clocks.visible.get(agent)
        };
        let (mut at, end) = (range.start, range.start.saturating_add(range.bytes));
        while at < end {
            let (granule, offset) = (at / GRANULE, at % GRANULE);
            let bytes = (GRANULE - offset).min(end - at);
            mark.mask = (((1_u32 << bytes) - 1) as u16) << offset;
            let touched = match range.region {
                Region::Shared(rank) => match self.shared[usize::from(rank)].get_mut(granule as usize) {
                    Some(cell) => cell.touch(mark, before),
                    None => Ok(()),
                },
                Region::Global => self.global.cell(granule).touch(mark, before),
            };
            if let Err(earlier) = touched {
                return Err(self.conflict(warp, Range { start: granule * GRANULE, ..range }, mark, earlier));
            }
            at += bytes;
        }
        Ok(())
    }

    /// A strong read: takes what writes to this address handed over, now or at the next fence.
    fn observe(&mut self, warp: usize, range: Range, order: Order) {
        let device = range.region == Region::Global && order.device;
        if order.acquires() {
            self.warps[warp].foreign |= device;
            if let Some(clock) = self.flags.get(&(range.region, range.start)) {
                self.warps[warp].acquire(clock);
            }
            return;
        }
        let clocks = &mut self.warps[warp];
        clocks.pending_foreign |= device;
        if let Some(clock) = self.flags.get(&(range.region, range.start)) {
            clocks.pending.join(clock);
        }
    }

    /// A strong write: hands over what it, or the last fence before it, releases.
    fn publish(&mut self, warp: usize, range: Range, order: Order, modifies: bool) {
        let device = range.region == Region::Global && order.device;
        let clock = if order.releases() {
            let clock = self.release(warp);
            if device {
                self.published.join(&clock.generic);
            }
            Some(clock)
        } else {
            if device {
                self.published.join(&self.warps[warp].fenced_for_device);
            }
            self.warps[warp].fenced.clone()
        };
        let key = (range.region, range.start);
        match clock {
            Some(clock) if modifies => self.flags.entry(key).or_default().join(&clock),
            Some(clock) => {
                self.flags.insert(key, clock);
            }
            None if modifies => {}
            None => {
                self.flags.remove(&key);
            }
        }
    }
}

fn strength(order: Order) -> u32 {
    (if order.strong() { STRONG } else { 0 }) | (if order.device { DEVICE } else { 0 })
}
