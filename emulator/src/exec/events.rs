//! What happens asynchronously, told in one place.
//!
//! [`Machine::event`] is called for each of these at the moment it happens, in the order of the run. It counts; a checker
//! of races and of proxy fences attaches there. All addresses are offsets in the shared memory of the CTA with the given
//! rank; global memory is not told of.
//!
//! - [`Event::Issue`]: a thread starts an asynchronous operation. From now on the operation may read `reads` and write
//!   `writes`, through the async proxy (`st.async` and `red.async` too): the generic accesses that made the data, and
//!   those that must be over before it is overwritten, must be ordered before this, with a proxy fence in between.
//! - [`Event::Complete`]: an operation has done its work and told the mbarrier, whose phase of that number it belongs to.
//!   It is ordered before whoever observes the end of that phase; proxy fences are not needed for that.
//! - [`Event::SourceRead`]: a bulk copy of a bulk group has read its source.
//! - [`Event::BarrierStart`], [`Event::BarrierEnd`]: `mbarrier.init` and `mbarrier.inval`.
//! - [`Event::Arrive`]: a thread arrives. With `release` everything the thread did or saw before is ordered before whoever
//!   acquires the end of that phase.
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

use super::step::Machine;
use crate::hopper::Fence;

/// Lanes of a warp of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Rank of the CTA.
    pub(crate) rank: u32,
    pub(crate) warp: u32,
    pub(crate) lanes: u32,
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

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the counters read a part, a checker of races reads the rest")]
pub(crate) enum Event<'a> {
    Issue { operation: u64, agent: Agent, reads: &'a [Range], writes: &'a [Range], traffic: Traffic },
    Complete { operation: u64, phase: Phase },
    SourceRead { operation: u64 },
    BarrierStart { agent: Agent, rank: u32, address: u32 },
    BarrierEnd { agent: Agent, rank: u32, address: u32 },
    Arrive { agent: Agent, phase: Phase, release: bool },
    Observe { agent: Agent, phase: Phase, acquire: bool },
    Fence { agent: Agent, fence: Fence },
    ClusterArrive { agent: Agent, phase: u32, release: bool },
    ClusterWait { agent: Agent, phase: u32, acquire: bool },
    WgmmaIssue { agent: Agent, operation: u64, chunks: &'a [u32], multiplications: u64 },
    WgmmaWait { agent: Agent, operations: &'a [u64] },
    BulkWait { agent: Agent, groups: u32, read: bool },
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

impl Machine<'_> {
    /// Told of everything asynchronous.
    pub(super) fn event(&mut self, event: Event<'_>) {
        let counters = &mut self.counters;
        match event {
            Event::Issue { traffic: Traffic::Load(bytes), .. } => counters.bulk_load_bytes += bytes,
            Event::Issue { traffic: Traffic::Store(bytes), .. } => counters.bulk_store_bytes += bytes,
            Event::Issue { traffic: Traffic::Cluster(bytes), .. } => counters.bulk_cluster_bytes += bytes,
            Event::Observe { .. } => counters.mbarrier_waits += 1,
            Event::ClusterArrive { .. } => counters.cluster_arrivals += 1,
            Event::WgmmaIssue { agent, multiplications, .. } => {
                counters.wgmma += u64::from(agent.warp.is_multiple_of(4));
                counters.wgmma_flops += 2 * multiplications;
            }
            _ => {}
        }
    }
}
