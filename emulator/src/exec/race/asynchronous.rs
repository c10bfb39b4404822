//! Asynchronous operations: what they touch when they are issued, and what their end hands over.

use super::clock::{Agent, Clock};
use super::marks::{ASYNC, COPY, DEVICE, GRANULE, Mark, PC_SHIFT, STRONG, WRITE};
use super::{RESTING_SLOTS, Race, Range, Region};
use crate::fault::FaultKind;

/// An asynchronous operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an operation that never completes is never ordered before anything"]
pub(crate) struct Op {
    pub(super) agent: Agent,
    pub(super) time: u32,
    /// In the generic proxy: the async proxy sees its result only behind a proxy fence.
    generic: bool,
}

impl Race {
    /// `fence.mbarrier_init`: asynchronous operations see the eight bytes at this address as the warp wrote them.
    pub(crate) fn fence_barrier(&mut self, warp: usize, region: Region, address: u32) {
        let Region::Shared(rank) = region else { return };
        let address = u64::from(address);
        let Some(cell) = self.shared[usize::from(rank)].get_mut((address / GRANULE) as usize) else { return };
        let object = 0xff << (address % GRANULE);
        for mark in cell.iter_mut() {
            // As written in both proxies.
            if usize::from(mark.agent) == warp && mark.is(WRITE) && mark.mask & object != 0 {
                mark.code |= ASYNC;
            }
        }
    }

    /// What an asynchronous operation that the warp issues touches; `queue` is the number of a warp whose tensor-core
    /// operations end in order, `None` gives the operation an order of its own.
    pub(crate) fn issue_async(
        &mut self,
        warp: usize,
        queue: Option<usize>,
        reads: &[Range],
        writes: &[Range],
        pc: u32,
    ) -> Result<Op, FaultKind> {
        let op = self.begin(warp, queue);
        let touched = reads.iter().map(|range| (*range, false));
        for (range, write) in touched.chain(writes.iter().map(|range| (*range, true))) {
            self.touch_async(warp, op, range, write, pc)?;
        }
        Ok(op)
    }

    /// What a reduction that the warp issues touches: its writes do not race with others of their kind.
    pub(crate) fn issue_reduction(
        &mut self,
        warp: usize,
        reads: &[Range],
        updates: &[Range],
        pc: u32,
    ) -> Result<Op, FaultKind> {
        let op = self.begin(warp, None);
        for range in reads {
            self.touch_async(warp, op, *range, false, pc)?;
        }
        let code = pc << PC_SHIFT | ASYNC | WRITE | STRONG | DEVICE;
        for range in updates {
            self.touch(warp, *range, Mark { time: op.time, code, agent: op.agent, mask: 0 })?;
        }
        Ok(op)
    }

    /// What `st.async` touches, or `red.async`, whose writes do not race with others of their kind: as the warp itself
    /// does, but later.
    pub(crate) fn issue_store(
        &mut self,
        warp: usize,
        reads: &[Range],
        writes: &[Range],
        reduces: bool,
        pc: u32,
    ) -> Result<Op, FaultKind> {
        let op = Op { generic: true, ..self.take_slot(warp) };
        let write = COPY | WRITE | if reduces { STRONG } else { 0 };
        for (ranges, kind) in [(reads, COPY), (writes, write)] {
            for range in ranges {
                let mark = Mark { time: op.time, code: pc << PC_SHIFT | kind, agent: op.agent, mask: 0 };
                self.touch(warp, *range, mark)?;
            }
        }
        Ok(op)
    }

    fn begin(&mut self, warp: usize, queue: Option<usize>) -> Op {
        let Some(queue) = queue else { return self.take_slot(warp) };
        self.tensor[queue] += 1;
        Op { agent: (2 * self.warps.len() + queue) as Agent, time: self.tensor[queue], generic: false }
    }

    fn touch_async(
        &mut self,
        warp: usize,
        op: Op,
        range: Range,
        write: bool,
        pc: u32,
    ) -> Result<(), FaultKind> {
        let code = pc << PC_SHIFT | ASYNC | if write { WRITE } else { 0 };
        self.touch(warp, range, Mark { time: op.time, code, agent: op.agent, mask: 0 })
    }

    fn take_slot(&mut self, warp: usize) -> Op {
        let first = self.first_slot();
        // An operation nobody waits for keeps its slot. Should all be taken, the last one serves again: later operations
        // then seem to end before earlier ones do, which can only hide something.
        let full = first + self.slots.len() > usize::from(Agent::MAX);
        let rested = self.resting.len() > RESTING_SLOTS || full;
        let agent = match if rested { self.resting.pop_front() } else { None } {
            Some(agent) => agent,
            None if full => Agent::MAX,
            None => {
                self.slots.push(Vec::new());
                (first + self.slots.len() - 1) as Agent
            }
        };
        let issuers = &mut self.slots[usize::from(agent) - first];
        issuers.push(warp as u16);
        Op { agent, time: issuers.len() as u32, generic: false }
    }

    /// What the end of an operation hands to those who wait for it: the operation, and those before it in its queue.
    /// The clock of an operation without a queue must be asked for once.
    pub(crate) fn complete(&mut self, op: Op) -> Clock {
        if usize::from(op.agent) >= self.first_slot() {
            self.resting.push_back(op.agent);
        }
        let mut clock = Clock::default();
        clock.generic.raise(op.agent, op.time);
        if !op.generic {
            clock.visible.raise(op.agent, op.time);
        }
        clock
    }

    /// What an mbarrier gets that tracks the copies a warp has issued (`cp.async.mbarrier.arrive`).
    pub(crate) fn copies_clock(&mut self, warp: usize) -> Clock {
        let agent = self.copies(warp);
        let clocks = &mut self.warps[warp];
        // Copies that follow into the same group have a time of their own.
        if let Some(at) = clocks.groups.iter().position(|entry| !entry.closed) {
            let open = clocks.groups[at];
            match clocks.groups[..at].iter_mut().find(|entry| entry.group == open.group) {
                Some(older) => {
                    older.lanes |= open.lanes;
                    clocks.groups.remove(at);
                }
                None => clocks.groups[at].closed = true,
            }
        }
        let mut clock = Clock::default();
        clock.generic.raise(agent, clocks.copied);
        clock
    }
}
