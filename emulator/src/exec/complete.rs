//! Completion of bulk copies, `st.async` and `red.async`.

use super::access::combine;
use super::asynchronous::{Extent, Pending, Reduction, SharedPlace, Work};
use super::convert::pack_one;
use super::events::{Agent, Event};
use super::lanes::lanes_of;
use super::mma::half_to_f32;
use super::step::Machine;
use crate::fault::{FaultKind, MemorySpace};
use crate::program::{AtomOp, Rounding};
use crate::scalar::Scalar;

impl Machine<'_> {
    /// Completes everything pending, in the order of issue.
    pub(super) fn complete_all(&mut self) -> Result<(), FaultKind> {
        while !self.cluster.pending.is_empty() {
            self.complete(0)?;
        }
        Ok(())
    }

    /// Lets the pending operation of this index make its next step: a store reads its source, then writes; everything
    /// else is done at once.
    pub(super) fn complete(&mut self, index: usize) -> Result<(), FaultKind> {
        let pending = self.cluster.pending.swap_remove(index);
        self.cluster.effects += 1;
        let Pending { operation, .. } = pending;
        match pending.work {
            Work::Load { from, ranks, to, bytes, barrier } => {
                let data = self.gather(&from, to, bytes)?;
                for rank in lanes_of(ranks) {
                    let rank = rank as u32;
                    self.peer(rank)?.land(to, &data);
                    let at = SharedPlace { rank, address: barrier };
                    self.complete_bytes(at, (to, bytes), operation, true)?;
                }
                Ok(())
            }
            Work::Store { from, bytes, to, reduce, data: None } => {
                let data = self.take_source(from, bytes)?;
                self.event(Event::SourceRead { operation });
                let work = Work::Store { from, bytes, to, reduce, data: Some(data) };
                // Back to its place: with eager completion the order of issue is kept.
                self.cluster.pending.insert(index, Pending { work, ..pending });
                Ok(())
            }
            Work::Store { from, to, reduce, data: Some(data), .. } => {
                self.scatter(&to, from.address, &data, reduce)
            }
            Work::Copy { from, to, bytes, barrier, reduce } => {
                let data = self.take_source(from, bytes)?;
                self.deliver(operation, to, barrier, &data, reduce)
            }
            Work::Write { data, to, barrier, reduce } => self.deliver(operation, to, barrier, &data, reduce),
            Work::Arrival { at, .. } => {
                let agent = Agent { rank: pending.rank, warp: pending.warp, lanes: 1 << pending.lane };
                self.copies_arrived(at, agent)
            }
        }
    }

    /// Reads what a copy moves out of shared memory and takes its marks away.
    fn take_source(&mut self, from: SharedPlace, bytes: u32) -> Result<Vec<u8>, FaultKind> {
        let memory = self.peer(from.rank)?;
        let data = memory.raw(from.address, bytes).to_vec();
        memory.end_source(from.address, bytes);
        self.mark_sources(from.rank);
        Ok(data)
    }

    /// Marks again what other copies still have to read in a CTA.
    pub(super) fn mark_sources(&mut self, rank: u32) {
        let cluster = &mut self.cluster;
        let own = rank == self.rank;
        for pending in &cluster.pending {
            let (Work::Store { from, bytes, data: None, .. } | Work::Copy { from, bytes, .. }) =
                &pending.work
            else {
                continue;
            };
            if from.rank == rank {
                let memory = if own { &mut self.shared } else { &mut cluster.ranks[rank as usize].memory };
                memory.mark_source(from.address, *bytes);
            }
        }
    }

    /// Writes or adds data at its place in shared memory and tells the mbarrier.
    fn deliver(
        &mut self,
        operation: u64,
        to: SharedPlace,
        barrier: u32,
        data: &[u8],
        reduce: Reduction,
    ) -> Result<(), FaultKind> {
        let bytes = data.len() as u32;
        let memory = self.peer(to.rank)?;
        let mut data = data.to_vec();
        if let Some(reduce) = reduce {
            let old = memory.raw(to.address, bytes).to_vec();
            fold(&mut data, &old, reduce);
        }
        memory.land(to.address, &data);
        let at = SharedPlace { rank: to.rank, address: barrier };
        self.complete_bytes(at, (to.address, bytes), operation, reduce.is_none())
    }

    /// Reads global memory into the order of shared memory; `to` decides how a box is swizzled.
    fn gather(&self, from: &Extent, to: u32, bytes: u32) -> Result<Vec<u8>, FaultKind> {
        let mut out = vec![0; bytes as usize];
        let unwritten =
            |address, bytes| FaultKind::UninitialisedMemory { space: MemorySpace::Global, address, bytes };
        match from {
            Extent::Linear(address) => {
                if !self.memory.read_bulk(*address, &mut out)? && !self.lenient {
                    return Err(unwritten(*address, bytes));
                }
            }
            Extent::Tile(tile) => {
                let (element, row_bytes) = (tile.map.element.bytes(), tile.row_bytes());
                let mut line = vec![0; row_bytes as usize];
                tile.rows(|row| {
                    let (low, high) = row.inside;
                    if high - low != row_bytes / element {
                        tile.fill(&mut line);
                    }
                    if high > low {
                        let part = &mut line[(low * element) as usize..(high * element) as usize];
                        if !self.memory.read_bulk(row.address, part)? && !self.lenient {
                            return Err(unwritten(row.address, part.len() as u32));
                        }
                    }
                    for (at, chunk) in line.chunks_exact(16).enumerate() {
                        let place = to + row.offset + 16 * at as u32;
                        let place = (tile.map.swizzle.apply(place) - to) as usize;
                        out[place..place + 16].copy_from_slice(chunk);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(out)
    }

    /// Writes data in the order of shared memory to global memory.
    fn scatter(&mut self, to: &Extent, from: u32, data: &[u8], reduce: Reduction) -> Result<(), FaultKind> {
        let memory = self.memory;
        let lenient = self.lenient;
        let put = |address: u64, part: &mut [u8]| -> Result<(), FaultKind> {
            let Some(reduce) = reduce else { return memory.write_bulk(address, part) };
            let _others_wait = memory.exclusive();
            let mut old = vec![0; part.len()];
            if !memory.read_bulk(address, &mut old)? && !lenient {
                let (space, bytes) = (MemorySpace::Global, part.len() as u32);
                return Err(FaultKind::UninitialisedMemory { space, address, bytes });
            }
            fold(part, &old, reduce);
            memory.write_bulk(address, part)
        };
        match to {
            Extent::Linear(address) => put(*address, &mut data.to_vec()),
            Extent::Tile(tile) => {
                let element = tile.map.element.bytes();
                let mut line = vec![0; tile.row_bytes() as usize];
                tile.rows(|row| {
                    for (at, chunk) in line.chunks_exact_mut(16).enumerate() {
                        let place = from + row.offset + 16 * at as u32;
                        let place = (tile.map.swizzle.apply(place) - from) as usize;
                        chunk.copy_from_slice(&data[place..place + 16]);
                    }
                    let (low, high) = row.inside;
                    if high > low {
                        put(row.address, &mut line[(low * element) as usize..(high * element) as usize])?;
                    }
                    Ok(())
                })
            }
        }
    }
}

/// Combines each element of `data` with that of `old`.
fn fold(data: &mut [u8], old: &[u8], (op, scalar): (AtomOp, Scalar)) {
    let bytes = scalar.bytes() as usize;
    for (new, old) in data.chunks_exact_mut(bytes).zip(old.chunks_exact(bytes)) {
        let read = |part: &[u8]| {
            let mut raw = [0; 8];
            raw[..bytes].copy_from_slice(part);
            u64::from_le_bytes(raw)
        };
        let (value, before) = (read(new), read(old));
        let result = match scalar {
            Scalar::F16 | Scalar::Bf16 => {
                u64::from(half(op, scalar == Scalar::Bf16, before as u32, value as u32))
            }
            _ => combine(op, scalar, before, value, value),
        };
        new.copy_from_slice(&result.to_le_bytes()[..bytes]);
    }
}

fn half(op: AtomOp, bf16: bool, old: u32, value: u32) -> u32 {
    let widen = |x: u32| if bf16 { f32::from_bits(x << 16) } else { half_to_f32(x) };
    let (x, y) = (widen(old), widen(value));
    let result = match op {
        AtomOp::Min => x.min(y),
        AtomOp::Max => x.max(y),
        // The sum of two 16-bit floats is exact in f32 up to a rounding that the second one absorbs.
        _ => x + y,
    };
    pack_one(bf16, Rounding::Nearest, false, result.to_bits()) & 0xffff
}
