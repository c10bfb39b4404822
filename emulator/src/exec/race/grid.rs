//! Races between CTAs of a launch: each CTA's accesses to global memory against those of the CTAs that ended before it.
//!
//! Between CTAs nothing is ordered but by flags and counters of device scope, so it does not matter which of two CTAs
//! ends first: the later one meets what the earlier left here.

use std::sync::{Mutex, PoisonError};

use super::Race;
use super::marks::{AFTER, DEVICE, GRANULE, KINDS, Mark, Masked, PC_SHIFT, STRONG, Slots, WRITE};
use super::pages::{PAGE, PageMap};
use super::report::{Side, conflict_of_ctas};
use crate::fault::FaultKind;

/// Locks of the map, by page: CTAs that end at the same time rarely meet.
const SHARDS: u64 = 64;

/// What CTAs of a launch that have ended did to global memory.
#[derive(Debug)]
pub(crate) struct Launch {
    shards: Vec<Mutex<PageMap<Box<Page>>>>,
}

type Page = [Slots<Trace, 2>; PAGE as usize];

#[derive(Clone, Copy, Debug, Default)]
struct Trace {
    /// Number of the CTA, or of the cluster, in its grid.
    cta: u32,
    code: u32,
    mask: u16,
    warp: u16,
    /// Lies before a release of device scope of its CTA.
    published: bool,
}

impl Masked for Trace {
    fn mask(&self) -> u16 {
        self.mask
    }
}

impl Trace {
    fn is(&self, kind: u32) -> bool {
        self.code & kind != 0
    }

    fn conflicts(&self, other: &Self) -> bool {
        let strong = |trace: &Self| trace.code & (STRONG | DEVICE) == STRONG | DEVICE;
        let ordered = self.published && other.is(AFTER) || other.published && self.is(AFTER);
        self.mask & other.mask != 0
            && (self.is(WRITE) || other.is(WRITE))
            && !(strong(self) && strong(other))
            && !ordered
    }

    /// Conflicts with the same CTAs that end later: its own, which would not count, has said all it has to say.
    fn stands_for(&self, other: &Self) -> bool {
        self.code & KINDS == other.code & KINDS && self.published == other.published
    }
}

impl Launch {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Slots<Trace, 2> {
    /// Records what a CTA did, unless it conflicts with what another one did.
    fn meet(&mut self, mut new: Trace) -> Result<(), Trace> {
        let mut covered = 0;
        for trace in self.iter().filter(|trace| trace.mask & new.mask != 0) {
            if trace.cta != new.cta && trace.conflicts(&new) {
                return Err(*trace);
            }
            if trace.stands_for(&new) {
                covered |= trace.mask;
            }
        }
        new.mask &= !covered;
        if new.mask == 0 {
            return Ok(());
        }
        let same = |trace: &&mut Trace| {
            trace.mask != 0 && (trace.cta, trace.code, trace.published) == (new.cta, new.code, new.published)
        };
        if let Some(trace) = self.iter_mut().find(same) {
            trace.mask |= new.mask;
            return Ok(());
        }
        self.add(new);
        Ok(())
    }
}

/// A race with an earlier CTA: what, at which instruction, of which warp of which CTA of the cluster.
pub(crate) struct Clash {
    pub(crate) kind: FaultKind,
    pub(crate) pc: u32,
    pub(crate) warp: Option<u32>,
    pub(crate) rank: usize,
}

impl Race {
    /// Compares what the CTA or cluster of this number did to global memory with what others did, at its end.
    pub(crate) fn finish(&self, launch: &Launch, cta: u32, grid: [u32; 3]) -> Result<(), Box<Clash>> {
        for (page, cells) in self.global.iter() {
            let shard = &launch.shards[(page % SHARDS) as usize];
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let traces =
                shard.entry(page).or_insert_with(|| Box::new(std::array::from_fn(|_| Slots::default())));
            for (at, (cell, traces)) in cells.iter().zip(traces.iter_mut()).enumerate() {
                for mark in cell.iter().filter(|mark| mark.mask != 0) {
                    let new = self.trace(cta, mark);
                    if let Err(earlier) = traces.meet(new) {
                        let overlap = earlier.mask & new.mask;
                        let start = (page * PAGE + at as u64) * GRANULE;
                        let (rank, warp) = self.split(usize::from(earlier.warp));
                        let earlier = Side {
                            cta: self.place.of_number(earlier.cta, grid).cta(rank as u32),
                            warp,
                            code: earlier.code,
                        };
                        let kind = conflict_of_ctas(start, overlap, new.code, earlier);
                        let (rank, warp) = self.split(usize::from(new.warp));
                        let (pc, warp) = (new.code >> PC_SHIFT, Some(warp));
                        return Err(Box::new(Clash { kind, pc, warp, rank }));
                    }
                }
            }
        }
        Ok(())
    }

    fn trace(&self, cta: u32, mark: &Mark) -> Trace {
        let published = mark.time <= self.published.get(mark.agent);
        Trace { cta, code: mark.code, mask: mark.mask, warp: self.warp_of(mark) as u16, published }
    }
}
