//! The state of asynchronous work: what a warp remembers of it, and what the CTAs of a cluster share.

use std::collections::BTreeMap;

use super::lanes::{LANES, lanes_of};
use super::mbarrier::Mbarrier;
use super::order::Ordering;
use super::race::{Clock, Race};
use super::shared::Scratch;
use super::tile::Tile;
use super::warpgroup::Warpgroup;
use super::wgmma::Flight;
use crate::program::AtomOp;
use crate::scalar::Scalar;

/// What a warp that gave its turn back waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// The end of this phase of an mbarrier of its CTA; objects made at one place are told apart by number.
    Mbarrier { address: u32, object: u64, phase: u64 },
    /// All but the last bulk groups of these lanes.
    Bulk { lanes: u32, groups: u32, read: bool },
    /// The end of this phase of the cluster's barrier.
    Cluster { phase: u32 },
    /// Registers another warp still holds.
    Registers { needed: i64 },
}

/// What a warp remembers of asynchronous work.
#[derive(Debug, Default)]
pub(crate) struct WarpState {
    /// The wait it failed last, and where.
    pub(crate) block: Option<(Block, u32)>,
    /// A wait that was answered "not yet" once without blocking.
    pub(crate) expired: Option<(Block, u32)>,
    /// Bulk groups each lane has committed.
    pub(crate) bulk_groups: [u32; LANES],
    /// Lanes that arrived at the cluster's barrier and have not waited, and the phase they arrived in.
    pub(crate) cluster_lanes: u32,
    pub(crate) cluster_phases: [u32; LANES],
    /// `cp.async` issued so far.
    pub(crate) copies: u64,
    pub(crate) flight: Flight,
}

impl WarpState {
    pub(crate) fn restart(&mut self, registers: usize) {
        (self.block, self.expired) = (None, None);
        (self.bulk_groups, self.copies) = ([0; LANES], 0);
        (self.cluster_lanes, self.cluster_phases) = (0, [0; LANES]);
        self.flight.restart(registers);
    }
}

impl WarpState {
    /// Lanes that arrived at the cluster's barrier in a phase.
    pub(crate) fn cluster_arrived(&self, phase: u32) -> u32 {
        lanes_of(self.cluster_lanes)
            .filter(|lane| self.cluster_phases[*lane] == phase)
            .fold(0, |lanes, lane| lanes | 1 << lane)
    }
}

/// A place in the shared memory of a CTA of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SharedPlace {
    pub(crate) rank: u32,
    pub(crate) address: u32,
}

/// Where in global memory a bulk copy works.
#[derive(Clone, Debug)]
pub(crate) enum Extent {
    Linear(u64),
    Tile(Box<Tile>),
}

/// A reduction in place of a plain write.
pub(crate) type Reduction = Option<(AtomOp, Scalar)>;

#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Global memory to shared memory at this offset of each of the CTAs in the mask.
    Load { from: Extent, ranks: u32, to: u32, bytes: u32, barrier: u32 },
    /// Shared memory to global memory. The data is there once the source was read.
    Store { from: SharedPlace, bytes: u32, to: Extent, reduce: Reduction, data: Option<Vec<u8>> },
    /// Shared memory to shared memory.
    Copy { from: SharedPlace, to: SharedPlace, bytes: u32, barrier: u32, reduce: Reduction },
    /// Registers to shared memory.
    Write { data: Vec<u8>, to: SharedPlace, barrier: u32, reduce: Reduction },
    /// The arrival of `cp.async.mbarrier.arrive`, when the lane's copies up to this number have landed; the clock is theirs.
    Arrival { at: SharedPlace, copies: u64, clock: Clock },
}

/// An asynchronous operation that has not completed.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) operation: u64,
    /// Who issued it, and where.
    pub(crate) rank: u32,
    pub(crate) warp: u32,
    pub(crate) lane: u8,
    pub(crate) pc: u32,
    /// Bulk group of a store.
    pub(crate) group: u32,
    pub(crate) work: Work,
}

/// What the CTAs of a cluster see of one of them.
#[derive(Debug, Default)]
pub(crate) struct Rank {
    /// Its shared memory, while none of its warps has its turn.
    pub(crate) memory: Scratch,
    /// By address.
    pub(crate) barriers: BTreeMap<u32, Mbarrier>,
    pub(crate) warpgroups: Vec<Warpgroup>,
    /// Registers given back by `setmaxnreg` and not taken, in registers of one thread times threads.
    pub(crate) pool: i64,
    pub(crate) exited: bool,
}

/// What the CTAs of a cluster share.
#[derive(Debug, Default)]
pub(crate) struct ClusterState {
    pub(crate) ranks: Vec<Rank>,
    pub(crate) pending: Vec<Pending>,
    /// Phases of the cluster's barrier that have ended.
    pub(crate) phase: u32,
    /// Looks for data races.
    pub(crate) race: Option<Box<Race>>,
    pub(crate) ordering: Ordering,
    /// Counts everything that may let another warp go on.
    pub(crate) effects: u64,
    operations: u64,
    random: u64,
    pub(crate) seed: u64,
}

impl ClusterState {
    /// Starts a cluster; `number` makes its choices its own.
    pub(crate) fn restart(&mut self, size: usize, seed: u64, number: u64) {
        self.ranks.resize_with(size, Rank::default);
        for rank in &mut self.ranks {
            rank.barriers.clear();
            rank.warpgroups.clear();
            (rank.pool, rank.exited) = (0, false);
        }
        self.pending.clear();
        self.ordering.restart();
        (self.phase, self.effects, self.operations) = (0, 0, 0);
        self.seed = seed;
        self.random = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Numbers operations in the order of their issue.
    pub(crate) fn operation(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }

    /// A number below `bound` (SplitMix64).
    pub(crate) fn choose(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) % bound.max(1) as u64) as usize
    }

    /// Is a bulk group operation of these lanes pending that a wait for all but the last groups covers?
    pub(crate) fn bulk_pending(&self, rank: u32, warp: u32, state: &WarpState, block: Block) -> bool {
        let Block::Bulk { lanes, groups, read } = block else { return false };
        self.pending.iter().any(|pending| {
            let Work::Store { data, .. } = &pending.work else { return false };
            let committed = state.bulk_groups[usize::from(pending.lane)];
            pending.rank == rank
                && pending.warp == warp
                && lanes >> pending.lane & 1 == 1
                && pending.group < committed.saturating_sub(groups)
                && !(read && data.is_some())
        })
    }
}
