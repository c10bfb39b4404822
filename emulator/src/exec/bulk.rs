//! Issue of bulk copies, `st.async` and `red.async`: everything that can be checked is checked here. What they do when
//! they complete is in `complete.rs`.

use super::access::addresses;
use super::asynchronous::{Extent, SharedPlace, Work};
use super::events::{Event, Issue, Range, Traffic};
use super::lanes::lanes_of;
use super::step::Machine;
use super::tile::Tile;
use super::warp::{Ran, Warp, at_lane};
use crate::fault::{FaultKind, MemorySpace};
use crate::hopper::{Bulk, GlobalSide, StoreAsync, Tensor};
use crate::program::{Address, AtomOp, NONE};
use crate::scalar::Scalar;
use crate::tensor_map::{MAP_ALIGN, MAP_BYTES, TensorElement, TensorMap};

fn bulk<T>(text: String) -> Result<T, FaultKind> {
    Err(FaultKind::Bulk(text))
}

fn aligned(address: u32, to: u32) -> Result<(), FaultKind> {
    if address.is_multiple_of(to) {
        return Ok(());
    }
    bulk(format!("the address {address:#x} in shared memory must be a multiple of {to} for this copy"))
}

/// The type of a tensor's reductions.
fn scalar(element: TensorElement, op: AtomOp) -> Option<Scalar> {
    let bits = matches!(op, AtomOp::And | AtomOp::Or | AtomOp::Xor);
    let counts = matches!(op, AtomOp::Increment | AtomOp::Decrement);
    Some(match element {
        TensorElement::U32 | TensorElement::I32 if bits => Scalar::B32,
        TensorElement::U64 | TensorElement::I64 if bits => Scalar::B64,
        TensorElement::U32 => Scalar::U32,
        _ if bits || counts => return None,
        TensorElement::I32 => Scalar::S32,
        TensorElement::U64 => Scalar::U64,
        TensorElement::I64 if op != AtomOp::Add => Scalar::S64,
        TensorElement::F16 => Scalar::F16,
        TensorElement::Bf16 => Scalar::Bf16,
        TensorElement::F32 if op == AtomOp::Add => Scalar::F32,
        TensorElement::F64 if op == AtomOp::Add => Scalar::F64,
        _ => return None,
    })
}

impl Machine<'_> {
    /// Reads the tensor map at an address.
    fn tensor_map(&self, address: u64) -> Result<TensorMap, FaultKind> {
        if !address.is_multiple_of(MAP_ALIGN) {
            return Err(FaultKind::TensorMap(format!(
                "a tensor map lies at a multiple of {MAP_ALIGN}, not at {address:#x}"
            )));
        }
        let mut bytes = [0; MAP_BYTES];
        if !self.memory.read_bulk(address, &mut bytes)? && !self.lenient {
            return Err(FaultKind::UninitialisedMemory {
                space: MemorySpace::Global,
                address,
                bytes: MAP_BYTES as u32,
            });
        }
        TensorMap::decode(&bytes).ok_or_else(|| {
            FaultKind::TensorMap(format!(
                "the bytes at {address:#x} are no tensor map: pass the address of what TensorMap::encode returned"
            ))
        })
    }

    pub(super) fn prefetch_map(&self, warp: &Warp, address: Address, mask: u32) -> Ran<()> {
        let addresses = addresses(warp, address, mask)?;
        for lane in lanes_of(mask) {
            at_lane(self.tensor_map(addresses[lane]).map(|_| ()), lane)?;
        }
        Ok(())
    }

    /// The boxes that lanes name.
    fn tile(&self, warp: &Warp, tensor: &Tensor, lane: usize) -> Ran<Tile> {
        let only = 1 << lane;
        let address = addresses(warp, tensor.map, only)?[lane];
        let map = at_lane(self.tensor_map(address), lane)?;
        let rank = usize::from(tensor.rank);
        if map.sizes.len() != rank {
            let text = format!("the tensor has {} dimensions, the copy {rank}", map.sizes.len());
            return at_lane(Err(FaultKind::TensorMap(text)), lane);
        }
        let mut origin = Vec::with_capacity(rank);
        for slot in &tensor.coordinates[..rank] {
            origin.push(warp.narrow(*slot, only)?[lane] as i32);
        }
        let tile = Tile { map, origin };
        at_lane(tile.check(), lane)?;
        Ok(tile)
    }

    /// The global side of a lane's copy, its bytes, and the alignment it asks of shared memory.
    fn extent(&self, warp: &Warp, side: &GlobalSide, lane: usize) -> Ran<(Extent, u32, u32)> {
        match side {
            GlobalSide::Tensor(tensor) => {
                let tile = self.tile(warp, tensor, lane)?;
                let bytes = tile.bytes();
                // The tensor must lie inside one allocation where the box touches it.
                let found = tile.rows(|row| {
                    let count = row.inside.1 - row.inside.0;
                    if count == 0 {
                        return Ok(());
                    }
                    let bytes = count as usize * tile.map.element.bytes() as usize;
                    self.memory.bulk(row.address, bytes).map(|_| ())
                });
                at_lane(found, lane)?;
                Ok((Extent::Tile(Box::new(tile)), bytes, 128))
            }
            GlobalSide::Linear(address, size) => {
                let only = 1 << lane;
                let address = addresses(warp, *address, only)?[lane];
                let bytes = warp.narrow(*size, only)?[lane];
                at_lane(self.linear(address, bytes), lane)?;
                Ok((Extent::Linear(address), bytes, 16))
            }
        }
    }

    fn linear(&self, address: u64, bytes: u32) -> Result<(), FaultKind> {
        size(bytes)?;
        if !address.is_multiple_of(16) {
            return bulk(format!("the global address {address:#x} of a bulk copy must be a multiple of 16"));
        }
        self.memory.bulk(address, bytes as usize).map(|_| ())
    }

    pub(super) fn bulk(&mut self, warp: &mut Warp, op: &Bulk, mask: u32) -> Ran<()> {
        match op {
            Bulk::Prefetch(side) => {
                for lane in lanes_of(mask) {
                    self.extent(warp, side, lane)?;
                }
                Ok(())
            }
            Bulk::Load { to, from, barrier, mask: ranks } => {
                let places = self.places(warp, *to, mask)?;
                let barriers = self.places(warp, *barrier, mask)?;
                for lane in lanes_of(mask) {
                    let ranks = match *ranks {
                        NONE => 1 << places[lane].rank,
                        slot => warp.narrow(slot, 1 << lane)?[lane],
                    };
                    let (from, bytes, align) = self.extent(warp, from, lane)?;
                    let issued = self.issue_load(
                        warp,
                        lane,
                        (places[lane], barriers[lane]),
                        ranks,
                        (from, bytes, align),
                    );
                    at_lane(issued, lane)?;
                }
                Ok(())
            }
            Bulk::Store { to, from, reduce } => {
                let places = self.places(warp, *from, mask)?;
                for lane in lanes_of(mask) {
                    let (to, bytes, align) = self.extent(warp, to, lane)?;
                    let reduce = match (reduce, &to) {
                        (None, _) => None,
                        (Some((op, Some(scalar))), _) => Some((*op, *scalar)),
                        (Some((op, None)), Extent::Tile(tile)) => match scalar(tile.map.element, *op) {
                            Some(scalar) => Some((*op, scalar)),
                            None => {
                                let text =
                                    format!("{op:?} does not work on a tensor of {:?}", tile.map.element);
                                return at_lane(Err(FaultKind::TensorMap(text)), lane);
                            }
                        },
                        (Some((_, None)), Extent::Linear(_)) => None,
                    };
                    let from = places[lane];
                    at_lane(aligned(from.address, align), lane)?;
                    let checked = match &to {
                        Extent::Linear(_) => self.readable(from, bytes),
                        Extent::Tile(tile) => self.readable_inside(from, tile),
                    };
                    at_lane(checked.and_then(|()| self.begin_source(from, bytes)), lane)?;
                    let work = Work::Store { from, bytes, to, reduce, data: None };
                    let reads = [Range { rank: from.rank, address: from.address, bytes }];
                    self.issue(warp, lane, work, (&reads, &[]), Traffic::Store(u64::from(bytes)))?;
                }
                Ok(())
            }
            Bulk::Copy { to, from, bytes, barrier, reduce } => {
                let targets = self.places(warp, *to, mask)?;
                let sources = self.places(warp, *from, mask)?;
                let barriers = self.places(warp, *barrier, mask)?;
                let sizes = *warp.narrow(*bytes, mask)?;
                for lane in lanes_of(mask) {
                    let (from, to, bytes) = (sources[lane], targets[lane], sizes[lane]);
                    let checked = size(bytes)
                        .and_then(|()| aligned(from.address, 16))
                        .and_then(|()| aligned(to.address, 16))
                        .and_then(|()| self.same_cta(to, barriers[lane]))
                        .and_then(|()| self.readable(from, bytes))
                        .and_then(|()| self.begin_source(from, bytes))
                        .and_then(|()| self.begin_target(to, bytes, reduce.is_some()));
                    at_lane(checked, lane)?;
                    let work =
                        Work::Copy { from, to, bytes, barrier: barriers[lane].address, reduce: *reduce };
                    let reads = [Range { rank: from.rank, address: from.address, bytes }];
                    let writes = [Range { rank: to.rank, address: to.address, bytes }];
                    self.issue(warp, lane, work, (&reads, &writes), Traffic::Cluster(u64::from(bytes)))?;
                }
                Ok(())
            }
        }
    }

    fn readable(&mut self, from: SharedPlace, bytes: u32) -> Result<(), FaultKind> {
        self.peer(from.rank)?.readable(from.address, bytes)
    }

    /// What a store of a box writes must be there; what lies outside the tensor need not.
    fn readable_inside(&mut self, from: SharedPlace, tile: &Tile) -> Result<(), FaultKind> {
        let memory = self.peer(from.rank)?;
        let element = tile.map.element.bytes();
        tile.rows(|row| {
            let (low, high) = (row.inside.0 * element, row.inside.1 * element);
            for at in (low / 16 * 16..high).step_by(16) {
                // The part of the chunk that the tensor takes; swizzling moves chunks as they are.
                let (first, last) = (low.max(at), high.min(at + 16));
                let chunk = tile.map.swizzle.apply(from.address.wrapping_add(row.offset + at));
                memory.readable(chunk.wrapping_add(first - at), last - first)?;
            }
            Ok(())
        })
    }

    fn begin_source(&mut self, from: SharedPlace, bytes: u32) -> Result<(), FaultKind> {
        self.peer(from.rank)?.begin_source(from.address, bytes)
    }

    /// Marks what an operation writes. Reductions may share their targets; those must hold data.
    fn begin_target(&mut self, to: SharedPlace, bytes: u32, reduces: bool) -> Result<(), FaultKind> {
        let memory = self.peer(to.rank)?;
        if reduces {
            return memory.readable(to.address, bytes);
        }
        memory.begin_bulk(to.address, bytes)
    }

    /// The mbarrier exists and lies in the CTA the data goes to.
    fn same_cta(&mut self, to: SharedPlace, barrier: SharedPlace) -> Result<(), FaultKind> {
        if to.rank != barrier.rank {
            return bulk(format!(
                "the data goes to the CTA with rank {}, the mbarrier lies in that with rank {}: both must lie in one CTA",
                to.rank, barrier.rank
            ));
        }
        self.mbarrier(barrier).map(|_| ())
    }

    fn issue_load(
        &mut self,
        warp: &mut Warp,
        lane: usize,
        (to, barrier): (SharedPlace, SharedPlace),
        ranks: u32,
        (from, bytes, align): (Extent, u32, u32),
    ) -> Result<(), FaultKind> {
        aligned(to.address, align)?;
        let size = self.cluster.ranks.len() as u32;
        if ranks == 0 || u64::from(ranks) >> size != 0 {
            return bulk(format!(
                "the CTA mask {ranks:#x} must name CTAs of a cluster of {size}, at least one"
            ));
        }
        let mut writes = Vec::new();
        for rank in lanes_of(ranks) {
            let rank = rank as u32;
            // Data and signal go to the same offsets in each CTA.
            let place = |address| SharedPlace { rank, address };
            let same =
                if ranks.count_ones() > 1 || rank != to.rank { place(barrier.address) } else { barrier };
            self.same_cta(place(to.address), same)?;
            self.begin_target(place(to.address), bytes, false)?;
            writes.push(Range { rank, address: to.address, bytes });
        }
        let work = Work::Load { from, ranks, to: to.address, bytes, barrier: barrier.address };
        self.issue(warp, lane, work, (&[], &writes), Traffic::Load(u64::from(bytes)))
            .map_err(|stop| stop.kind)
    }

    fn issue(
        &mut self,
        warp: &Warp,
        lane: usize,
        work: Work,
        (reads, writes): (&[Range], &[Range]),
        traffic: Traffic,
    ) -> Ran<()> {
        let (global, barrier, reduces) = match &work {
            Work::Load { from, barrier, .. } => (Some(from.clone()), Some(*barrier), false),
            Work::Store { to, reduce, .. } => (Some(to.clone()), None, reduce.is_some()),
            Work::Copy { barrier, reduce, .. } | Work::Write { barrier, reduce, .. } => {
                (None, Some(*barrier), reduce.is_some())
            }
            Work::Arrival { .. } => return Ok(()),
        };
        let generic = matches!(work, Work::Write { .. });
        let operation = self.enqueue(warp, lane, work);
        let (agent, group) = (self.agent(warp, 1 << lane), warp.state.bulk_groups[lane]);
        let global = global.as_ref();
        let issue =
            Issue { operation, agent, reads, writes, global, generic, reduces, barrier, group, traffic };
        at_lane(self.event(Event::Issue(issue)), lane)?;
        if self.eager {
            at_lane(self.complete_all(), lane)?;
        }
        Ok(())
    }

    pub(super) fn store_async(&mut self, warp: &mut Warp, op: &StoreAsync, mask: u32) -> Ran<()> {
        let targets = self.places(warp, op.to, mask)?;
        let barriers = self.places(warp, op.barrier, mask)?;
        let (each, wide) = (op.scalar.bytes(), op.scalar.bits() == 64);
        let bytes = each * u32::from(op.count);
        let mut values = Vec::new();
        for slot in &op.values[..usize::from(op.count)] {
            values.push(super::access::get(warp, *slot, wide, mask)?);
        }
        for lane in lanes_of(mask) {
            let to = targets[lane];
            let checked = aligned(to.address, bytes)
                .and_then(|()| self.same_cta(to, barriers[lane]))
                .and_then(|()| self.begin_target(to, bytes, op.reduce.is_some()));
            at_lane(checked, lane)?;
            let data =
                values.iter().flat_map(|value| value[lane].to_le_bytes()[..each as usize].to_vec()).collect();
            let reduce = op.reduce.map(|reduce| (reduce, op.scalar));
            let work = Work::Write { data, to, barrier: barriers[lane].address, reduce };
            let writes = [Range { rank: to.rank, address: to.address, bytes }];
            self.issue(warp, lane, work, (&[], &writes), Traffic::Cluster(u64::from(bytes)))?;
        }
        Ok(())
    }
}

fn size(bytes: u32) -> Result<(), FaultKind> {
    if bytes > 0 && bytes.is_multiple_of(16) {
        return Ok(());
    }
    bulk(format!("a bulk copy moves a positive multiple of 16 bytes, not {bytes}"))
}
