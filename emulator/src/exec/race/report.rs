//! A conflict in words: what was done, by whom, and what is missing between the two.

use super::marks::{ASYNC, COPY, GRANULE, Mark, PC_SHIFT, STRONG, WRITE};
use super::{Race, Range, Region};
use crate::fault::{DataRace, Earlier, FaultKind, MemorySpace};

/// The earlier access of two by different CTAs.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) cta: [u32; 3],
    pub(super) warp: u32,
    pub(super) code: u32,
}

fn access(code: u32) -> &'static str {
    let write = code & WRITE != 0;
    match (code & (STRONG | ASYNC | COPY), write) {
        (COPY, true) => "write by cp.async",
        (COPY, false) => "read by cp.async",
        _ if code & COPY != 0 => "reduction by red.async",
        (ASYNC, true) => "asynchronous write",
        (ASYNC, false) => "asynchronous read",
        _ if code & ASYNC != 0 => "asynchronous reduction",
        (STRONG, true) => "volatile, relaxed or atomic write",
        (STRONG, false) => "volatile or relaxed read",
        (_, true) => "write",
        (_, false) => "read",
    }
}

/// Address and number of the bytes of a mask.
fn bytes(granule: u64, mask: u16) -> (u64, u32) {
    (granule + u64::from(mask.trailing_zeros()), mask.count_ones())
}

impl Race {
    /// The warp that made an access or issued it, among those of all CTAs.
    pub(super) fn warp_of(&self, mark: &Mark) -> usize {
        let agent = usize::from(mark.agent);
        match agent.checked_sub(self.first_slot()) {
            None => agent % self.warps.len(),
            Some(slot) => usize::from(self.slots[slot][mark.time as usize - 1]),
        }
    }

    /// Rank of a warp's CTA and its number there.
    pub(super) fn split(&self, warp: usize) -> (usize, u32) {
        let warps = self.warps.len() / self.shared.len();
        (warp / warps, (warp % warps) as u32)
    }

    #[cold]
    pub(super) fn conflict(&self, warp: usize, granule: Range, now: Mark, earlier: Mark) -> FaultKind {
        let (address, bytes) = bytes(granule.start, earlier.mask);
        let other = self.warp_of(&earlier);
        let (rank, in_cta) = self.split(other);
        let clocks = &self.warps[warp];
        let seen = usize::from(earlier.agent) == warp || earlier.time <= clocks.generic.get(earlier.agent);
        let lone = |mark: &Mark| usize::from(mark.agent) >= self.first_slot();
        let words = |mark: &Mark| match access(mark.code) {
            _ if mark.is(COPY) && lone(mark) && !mark.is(STRONG) && mark.is(WRITE) => "write by st.async",
            // An initialised mbarrier, made visible to the async proxy.
            _ if mark.is(ASYNC) && usize::from(mark.agent) < self.warps.len() => "write",
            other => other,
        };
        let no_fence = now.is(ASYNC) && earlier.is(WRITE) && !earlier.is(ASYNC) && seen;
        let waited = earlier.time <= self.warps[other].generic.get(earlier.agent);
        let advice = if no_fence {
            "a fence.proxy.async between the write and the asynchronous operation is missing: the barrier alone does not \
             make generic writes visible to the async proxy"
        } else if lone(&earlier) || earlier.is(ASYNC) && usize::from(earlier.agent) >= self.warps.len() {
            "nothing waited for the end of the asynchronous operation: a wait for its mbarrier or group is missing"
        } else if earlier.is(COPY) && other == warp {
            "the cp.async has not been waited for: a cp.async.wait_group is missing, or its count is too high"
        } else if earlier.is(COPY) && !waited {
            "the copying warp has not waited for its cp.async so far: a barrier (bar.sync) behind a cp.async.wait_group in \
             that warp is missing"
        } else if earlier.is(COPY) {
            "the copying warp has waited for its cp.async, but a barrier (bar.sync) behind that wait is missing"
        } else if rank != self.split(warp).0 {
            "a barrier that both CTAs take part in (barrier.cluster, or an mbarrier) is missing between the two"
        } else if earlier.is(WRITE) {
            "a barrier (bar.sync) that both warps take part in, or an mbarrier, is missing between the two"
        } else {
            "a barrier (bar.sync) that both warps take part in, or an mbarrier, is missing between the read and the write \
             that follows"
        };
        let space = match granule.region {
            Region::Shared(_) => MemorySpace::Shared,
            Region::Global => MemorySpace::Global,
        };
        let race = DataRace {
            space,
            address,
            bytes,
            access: words(&now),
            earlier: Earlier {
                access: words(&earlier),
                cta: (rank != self.split(warp).0).then(|| self.place.cta(rank as u32)),
                warp: Some(in_cta),
                place: None,
                pc: earlier.code >> PC_SHIFT,
            },
            advice,
        };
        if no_fence { FaultKind::MissingProxyFence(Box::new(race)) } else { FaultKind::Race(Box::new(race)) }
    }
}

/// A conflict between CTAs, of which the second was here first.
pub(super) fn conflict_of_ctas(granule: u64, mask: u16, now: u32, earlier: Side) -> FaultKind {
    debug_assert!(granule.is_multiple_of(GRANULE));
    let (address, bytes) = bytes(granule, mask);
    let advice = if now & earlier.code & WRITE != 0 {
        "CTAs of a launch have no order: give each byte one CTA that writes it, use atomics, or split the launch in two"
    } else {
        "CTAs of a launch have no order: read in a second launch, or behind a flag that is released and acquired \
         (fences and atomics of device scope)"
    };
    FaultKind::Race(Box::new(DataRace {
        space: MemorySpace::Global,
        address,
        bytes,
        access: access(now),
        earlier: Earlier {
            access: access(earlier.code),
            cta: Some(earlier.cta),
            warp: Some(earlier.warp),
            place: None,
            pc: earlier.code >> PC_SHIFT,
        },
        advice,
    }))
}
