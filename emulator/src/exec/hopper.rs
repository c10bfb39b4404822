//! Instructions of sm_90: what each hands its work to, and the small ones themselves.

use super::asynchronous::{Block, Pending, SharedPlace, Work};
use super::events::{Agent, Event};
use super::lanes::{LANES, lanes_of};
use super::shared::Scratch;
use super::step::Machine;
use super::warp::{Ran, Warp, at_lane, stop};
use crate::decode::{SHARED_BASE, WINDOW};
use crate::fault::{FaultKind, MemorySpace};
use crate::hopper::{Hopper, Site};
use crate::program::{NONE, Slot};
use crate::scalar::Space;

/// Address bits below the rank of a CTA in the shared window of a cluster. Rank `r` is written `r + 1` there; zero is the
/// own CTA, whose addresses are plain offsets.
const RANK_SHIFT: u32 = 24;

/// How a warp goes on after an instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Go,
    /// It found nothing new: others get their turn first.
    Poll,
    /// It executes the instruction again when this has happened.
    Wait(Block),
    /// It arrived at the cluster's barrier, which may open now.
    ClusterArrival,
}

impl Machine<'_> {
    /// Executes one instruction.
    pub(super) fn hopper(&mut self, warp: &mut Warp, op: &Hopper, mask: u32) -> Ran<Next> {
        let agent = self.agent(warp, mask);
        match *op {
            Hopper::BarrierInit { at, count } => self.barrier_init(warp, at, count, mask)?,
            Hopper::BarrierInvalidate(at) => self.barrier_invalidate(warp, at, mask)?,
            Hopper::Arrive(ref op) => self.barrier_arrive(warp, op, mask)?,
            Hopper::ExpectBytes { at, bytes } => self.barrier_bytes(warp, at, bytes, 1, mask)?,
            Hopper::CompleteBytes { at, bytes } => self.barrier_bytes(warp, at, bytes, -1, mask)?,
            Hopper::Wait(ref op) => return self.barrier_wait(warp, op, mask),
            Hopper::PendingCount { d, state } => self.pending_count(warp, d, state, mask)?,
            Hopper::CopyArrive { at, no_increment } => self.copy_arrive(warp, at, no_increment, mask)?,
            Hopper::Bulk(ref op) => self.bulk(warp, op, mask)?,
            Hopper::BulkCommit => {
                lanes_of(mask).for_each(|lane| warp.state.bulk_groups[lane] += 1);
            }
            Hopper::BulkWait { groups, read } => {
                let block = Block::Bulk { lanes: mask, groups, read };
                if self.cluster.bulk_pending(self.rank, warp.id, &warp.state, block) {
                    return Ok(Next::Wait(block));
                }
                self.event(Event::BulkWait { agent, groups, read });
            }
            Hopper::StoreAsync(ref op) => self.store_async(warp, op, mask)?,
            Hopper::Fence(fence) => self.event(Event::Fence { agent, fence }),
            Hopper::PrefetchMap(address) => self.prefetch_map(warp, address, mask)?,
            Hopper::MapAddress { d, a, rank, wide, space } => {
                self.map_address(warp, [d, a, rank], wide, space, mask)?;
            }
            Hopper::CtaRank { d, a, wide, space } => {
                let raw = super::access::get(warp, a, wide, mask)?;
                let mut out = [0; LANES];
                for lane in lanes_of(mask) {
                    out[lane] = at_lane(self.place(space, raw[lane]), lane)?.rank;
                }
                warp.set_narrow(d, mask, &out);
            }
            Hopper::Elect { d, p } => self.elect(warp, d, p, mask),
            Hopper::ClusterArrive { release } => {
                self.cluster_arrive(warp, release, mask)?;
                return Ok(Next::ClusterArrival);
            }
            Hopper::ClusterWait { acquire } => return self.cluster_wait(warp, acquire, mask),
            Hopper::StoreMatrix { at, count, transposed, ref slots } => {
                self.store_matrix(warp, at, (count, transposed), slots)?;
            }
            Hopper::SetRegisters { increase, count } => return self.set_registers(warp, increase, count),
            Hopper::GridControl => {}
            Hopper::WgmmaFence => self.wgmma_fence(warp)?,
            Hopper::WgmmaCommit => self.wgmma_commit(warp)?,
            Hopper::WgmmaWait(groups) => self.wgmma_wait(warp, groups)?,
            Hopper::Wgmma(ref op) => self.wgmma(warp, op)?,
            Hopper::CreatePolicy(d) => warp.set_wide(d, mask, &[0x12f0_0000_0000_0000; LANES]),
        }
        Ok(Next::Go)
    }

    pub(super) fn agent(&self, warp: &Warp, lanes: u32) -> Agent {
        Agent { rank: self.rank, warp: warp.id, lanes }
    }

    /// The shared memory of a CTA of the cluster that still runs.
    pub(super) fn peer(&mut self, rank: u32) -> Result<&mut Scratch, FaultKind> {
        if rank == self.rank {
            return Ok(&mut self.shared);
        }
        let size = self.cluster.ranks.len();
        if self.cluster.phase == 0 && (rank as usize) < size {
            return Err(FaultKind::Cluster(format!(
                "the CTA with rank {rank} may not have started yet: let all CTAs of the cluster meet at barrier.cluster \
                 before one works on the shared memory of another"
            )));
        }
        match self.cluster.ranks.get_mut(rank as usize) {
            Some(found) if found.exited => Err(FaultKind::Cluster(format!(
                "the CTA with rank {rank} has exited, and its shared memory with it: let all CTAs of the cluster meet at \
                 barrier.cluster before any of them exits"
            ))),
            Some(found) => Ok(&mut found.memory),
            None => Err(FaultKind::Cluster(format!("the cluster has {size} CTAs, none with rank {rank}"))),
        }
    }

    /// What an address of shared memory means.
    pub(super) fn place(&self, space: Space, address: u64) -> Result<SharedPlace, FaultKind> {
        let inside = match space {
            Space::Generic if address.wrapping_sub(SHARED_BASE) < WINDOW => address - SHARED_BASE,
            Space::Generic => {
                let nearest = "a generic address of shared memory is needed here".to_owned();
                return Err(FaultKind::OutOfBounds {
                    space: MemorySpace::Shared,
                    address,
                    bytes: 1,
                    nearest,
                });
            }
            _ => address,
        };
        let outside = |nearest: String| {
            Err(FaultKind::OutOfBounds { space: MemorySpace::Shared, address: inside, bytes: 1, nearest })
        };
        let Ok(low) = u32::try_from(inside) else {
            return outside("addresses of shared memory have 32 bits".to_owned());
        };
        let offset = low & ((1 << RANK_SHIFT) - 1);
        match low >> RANK_SHIFT {
            0 => Ok(SharedPlace { rank: self.rank, address: offset }),
            _ if space == Space::Shared => outside(
                "it is an address of `.shared::cluster`, and `.shared::cta` is needed here".to_owned(),
            ),
            rank if rank as usize <= self.cluster.ranks.len() => {
                Ok(SharedPlace { rank: rank - 1, address: offset })
            }
            rank => {
                let size = self.cluster.ranks.len();
                outside(format!("it names rank {} of a cluster of {size}: take it from `mapa`", rank - 1))
            }
        }
    }

    /// Puts an operation among those that have not completed, and returns its number.
    pub(super) fn enqueue(&mut self, warp: &Warp, lane: usize, work: Work) -> u64 {
        self.cluster.effects += 1;
        let operation = self.cluster.operation();
        self.cluster.pending.push(Pending {
            operation,
            rank: self.rank,
            warp: warp.id,
            lane: lane as u8,
            pc: warp.pc,
            group: warp.state.bulk_groups[lane],
            work,
        });
        operation
    }

    fn elect(&mut self, warp: &mut Warp, d: Slot, p: Slot, mask: u32) {
        // Which lane is chosen is the hardware's affair; the same mask has the same leader.
        let skip = (self.cluster.seed % u64::from(mask.count_ones().max(1))) as usize;
        let leader = lanes_of(mask).nth(skip).unwrap_or(0);
        if d != NONE {
            warp.set_narrow(d, mask, &[leader as u32; LANES]);
        }
        if p != NONE {
            warp.set_predicate(p, mask, 1 << leader);
        }
    }

    fn map_address(
        &self,
        warp: &mut Warp,
        [d, a, rank]: [Slot; 3],
        wide: bool,
        space: Space,
        mask: u32,
    ) -> Ran<()> {
        let raw = super::access::get(warp, a, wide, mask)?;
        let ranks = *warp.narrow(rank, mask)?;
        let size = self.cluster.ranks.len() as u32;
        let mut out = [0; LANES];
        for lane in lanes_of(mask) {
            let from = at_lane(self.place(space, raw[lane]), lane)?;
            if ranks[lane] >= size {
                let text = format!(
                    "the cluster has {size} CTAs, none with rank {}: launch the kernel with a cluster, or check the rank \
                     against %cluster_nctarank",
                    ranks[lane]
                );
                return stop(FaultKind::Cluster(text), Some(lane));
            }
            let base = if space == Space::Generic { SHARED_BASE } else { 0 };
            out[lane] = base + (u64::from(ranks[lane] + 1) << RANK_SHIFT | u64::from(from.address));
        }
        if wide {
            warp.set_wide(d, mask, &out);
        } else {
            warp.set_narrow(d, mask, &out.map(|address| address as u32));
        }
        Ok(())
    }

    fn cluster_arrive(&mut self, warp: &mut Warp, release: bool, mask: u32) -> Ran<()> {
        let twice = warp.state.cluster_lanes & mask;
        if twice != 0 {
            let text = "barrier.cluster.arrive twice without barrier.cluster.wait in between".to_owned();
            return stop(FaultKind::Cluster(text), Some(twice.trailing_zeros() as usize));
        }
        warp.state.cluster_lanes |= mask;
        let phase = self.cluster.phase;
        lanes_of(mask).for_each(|lane| warp.state.cluster_phases[lane] = phase);
        self.cluster.effects += 1;
        self.event(Event::ClusterArrive { agent: self.agent(warp, mask), phase, release });
        Ok(())
    }

    fn cluster_wait(&mut self, warp: &mut Warp, acquire: bool, mask: u32) -> Ran<Next> {
        let missing = mask & !warp.state.cluster_lanes;
        if missing != 0 {
            let text = "barrier.cluster.wait without barrier.cluster.arrive before it".to_owned();
            return stop(FaultKind::Cluster(text), Some(missing.trailing_zeros() as usize));
        }
        let phase = self.cluster.phase;
        if lanes_of(mask).any(|lane| warp.state.cluster_phases[lane] == phase) {
            return Ok(Next::Wait(Block::Cluster { phase }));
        }
        warp.state.cluster_lanes &= !mask;
        self.event(Event::ClusterWait { agent: self.agent(warp, mask), phase: phase - 1, acquire });
        Ok(Next::Go)
    }

    fn store_matrix(
        &mut self,
        warp: &mut Warp,
        at: Site,
        (count, transposed): (u8, bool),
        slots: &[Slot; 4],
    ) -> Ran<()> {
        // Rows of matrix i go to the addresses of lanes 8 i to 8 i + 7.
        let used = u32::MAX >> (32 - 8 * u32::from(count));
        let places = self.places(warp, at, used)?;
        if let Some(lane) = lanes_of(used).find(|lane| places[*lane].rank != self.rank) {
            let text = "stmatrix writes to the shared memory of the own CTA only".to_owned();
            return stop(FaultKind::Cluster(text), Some(lane));
        }
        for (matrix, slot) in slots.iter().enumerate().take(usize::from(count)) {
            let values = *warp.narrow(*slot, warp.live)?;
            let mut rows = [[0_u8; 16]; 8];
            for (lane, value) in values.iter().enumerate() {
                let (major, minor) = (lane / 4, lane % 4);
                for (part, half) in [*value as u16, (*value >> 16) as u16].into_iter().enumerate() {
                    let (row, column) =
                        if transposed { (2 * minor + part, major) } else { (major, 2 * minor + part) };
                    rows[row][2 * column..2 * column + 2].copy_from_slice(&half.to_le_bytes());
                }
            }
            for (row, data) in rows.iter().enumerate() {
                let lane = matrix * 8 + row;
                at_lane(self.shared.store(u64::from(places[lane].address), *data), lane)?;
            }
            self.counters.shared_bytes += 128;
        }
        self.cluster.effects += 1;
        Ok(())
    }
}
