//! What happens asynchronously, told in one place.
//!
//! [`Machine::event`] is called for each of these at the moment it happens, in the order of the run. It counts, and tells
//! the race checker by way of `order.rs`. All addresses are offsets in the shared memory of the CTA with the given rank.
//!
//! - [`Event::Issue`]: a thread starts an asynchronous operation. From now on the operation may read `reads` and write
//!   `writes`, through the async proxy: the generic accesses that made the data, and those that must be over before it is
//!   overwritten, must be ordered before this, with a proxy fence behind writes. `st.async` and `red.async` are in the
//!   generic proxy and need no fence.
//! - [`Event::Complete`]: an operation has done its work and told the mbarrier, whose phase of that number it belongs to.
//!   It is ordered before whoever observes the end of that phase; proxy fences are not needed for that.
//! - [`Event::BarrierStart`], [`Event::BarrierEnd`]: `mbarrier.init` and `mbarrier.inval`.
//! - [`Event::BarrierUse`]: an instruction works on an mbarrier.
//! - [`Event::Release`]: an instruction is about to arrive at mbarriers, for each of its lanes. With `release` everything
//!   the warp did or saw before is ordered before whoever acquires the end of that phase.
//! - [`Event::Arrive`]: one of its lanes arrives in a phase.
//! - [`Event::CopiesArrive`]: the arrival that `cp.async.mbarrier.arrive` promised; the clock is of the copies it tracks.
//! - [`Event::Observe`]: lanes of a warp saw that a phase had ended. With `acquire` they are ordered after its arrivals;
//!   the data of completed operations they see either way.
//! - [`Event::Fence`]: lanes executed a fence; a proxy fence orders their earlier generic accesses before their later
//!   asynchronous operations, and the reverse.
//! - [`Event::ClusterArrive`], [`Event::ClusterWait`]: the barrier of the cluster, by its phase; as `Arrive`, `Observe`.
//! - [`Event::WgmmaIssue`]: a warp starts its quarter of a `wgmma`, which reads 16-byte chunks of its CTA's shared memory
//!   through the async proxy until the wait that covers it.
//! - [`Event::WgmmaWait`]: a warp's `wgmma.wait_group` covers these operations: their reads are over for this warp.
//! - [`Event::BulkWait`]: lanes passed `cp.async.bulk.wait_group`: the sources (and, without `read`, also the results) of
//!   their groups but the last `groups` are done.

use super::asynchronous::Extent;
use super::lanes::LANES;
use super::race::Clock;
use super::step::Machine;
use crate::fault::FaultKind;
use crate::hopper::Fence;

/// Lanes of a warp of the cluster, at an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Rank of the CTA.
    pub(crate) rank: u32,
    pub(crate) warp: u32,
    pub(crate) lanes: u32,
    pub(crate) pc: u32,
}

/// Bytes of the shared memory of one CTA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) rank: u32,
    pub(crate) address: u32,
    pub(crate) bytes: u32,
}

/// A phase of an mbarrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) rank: u32,
    pub(crate) address: u32,
    /// Counted from 0 at `mbarrier.init`.
    pub(crate) number: u64,
}

/// The start of an operation by one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issue<'a> {
    pub(crate) operation: u64,
    pub(crate) agent: Agent,
    /// Shared memory. Of a box only elements inside the tensor are read.
    pub(crate) reads: &'a [Range],
    pub(crate) writes: &'a [Range],
    /// Global memory: of a store the target, else the source.
    pub(crate) global: Option<&'a Extent>,
    /// In the generic proxy.
    pub(crate) generic: bool,
    /// The result is combined with what is there.
    pub(crate) reduces: bool,
    /// Address of the mbarrier it completes on, in each CTA it writes to; none for a store, which has a bulk group.
    pub(crate) barrier: Option<u32>,
    pub(crate) group: u32,
    pub(crate) traffic: Traffic,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    Issue(Issue<'a>),
    Complete {
        operation: u64,
        phase: Phase,
    },
    BarrierStart {
        agent: Agent,
        rank: u32,
        address: u32,
    },
    BarrierEnd {
        agent: Agent,
        rank: u32,
        address: u32,
    },
    BarrierUse {
        agent: Agent,
        rank: u32,
        address: u32,
    },
    Release {
        agent: Agent,
        release: bool,
    },
    Arrive {
        phase: Phase,
    },
    CopiesArrive {
        phase: Phase,
        clock: &'a Clock,
    },
    Observe {
        agent: Agent,
        phase: Phase,
        acquire: bool,
    },
    Fence {
        agent: Agent,
        fence: Fence,
    },
    ClusterArrive {
        agent: Agent,
        phase: u32,
        release: bool,
    },
    ClusterWait {
        agent: Agent,
        phase: u32,
        acquire: bool,
    },
    WgmmaIssue {
        agent: Agent,
        operation: u64,
        chunks: &'a [u32],
        multiplications: u64,
    },
    WgmmaWait {
        agent: Agent,
        operations: &'a [u64],
    },
    /// `groups` says for each lane below which number its groups are done.
    BulkWait {
        agent: Agent,
        groups: &'a [u32; LANES],
        read: bool,
    },
}

impl Event<'_> {
    /// Who does it, where somebody does.
    pub(crate) fn agent(&self) -> Option<&Agent> {
        match self {
            Self::Issue(Issue { agent, .. })
            | Self::BarrierStart { agent, .. }
            | Self::BarrierEnd { agent, .. }
            | Self::BarrierUse { agent, .. }
            | Self::Release { agent, .. }
            | Self::Observe { agent, .. }
            | Self::Fence { agent, .. }
            | Self::ClusterArrive { agent, .. }
            | Self::ClusterWait { agent, .. }
            | Self::WgmmaIssue { agent, .. }
            | Self::WgmmaWait { agent, .. }
            | Self::BulkWait { agent, .. } => Some(agent),
            Self::Complete { .. } | Self::Arrive { .. } | Self::CopiesArrive { .. } => None,
        }
    }
}

/// Bytes an operation moves, and between what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// From global memory, once however many CTAs get it.
    Load(u64),
    /// To global memory.
    Store(u64),
    /// Between the CTAs of a cluster.
    Cluster(u64),
}

impl Traffic {
    pub(crate) fn bytes(self) -> u64 {
        let (Self::Load(bytes) | Self::Store(bytes) | Self::Cluster(bytes)) = self;
        bytes
    }
}

impl Machine<'_> {
    /// Told of everything asynchronous; the fault is a race.
    pub(super) fn event(&mut self, event: Event<'_>) -> Result<(), FaultKind> {
        let counters = &mut self.counters;
        match event {
            Event::Issue(issue) => match issue.traffic {
                Traffic::Load(bytes) => {
                    counters.bulk_load_bytes += bytes;
                    counters.bulk_multicast_bytes += bytes * (issue.writes.len() as u64).saturating_sub(1);
                }
                Traffic::Store(bytes) => counters.bulk_store_bytes += bytes,
                Traffic::Cluster(bytes) => counters.bulk_cluster_bytes += bytes,
            },
            Event::Observe { .. } => counters.mbarrier_waits += 1,
            Event::ClusterArrive { .. } => counters.cluster_arrivals += 1,
            Event::WgmmaIssue { agent, multiplications, .. } => {
                counters.wgmma += u64::from(agent.warp.is_multiple_of(4));
                counters.wgmma_flops += 2 * multiplications;
            }
            _ => {}
        }
        if self.cluster.race.is_some() { self.order(&event) } else { Ok(()) }
    }
}
