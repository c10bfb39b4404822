//! Loads, stores, atomics, asynchronous copies and matrix loads of a warp.

use super::asynchronous::SharedPlace;
use super::lanes::{LANES, bits2, lanes_of};
use super::race::{Range, Region, lanes_agree};
use super::step::Machine;
use super::traffic::Direction;
use super::warp::{PendingCopy, Ran, Warp, at_lane, stop};
use crate::decode::{LOCAL_BASE, SHARED_BASE, WINDOW};
use crate::fault::{FaultKind, MemorySpace};
use crate::memory::Found;
use crate::program::{Access, Address, AtomOp, Atomic, NONE, Order, Slot};
use crate::scalar::{Scalar, Space};

/// One byte address in a definite space.
#[derive(Clone, Copy)]
enum Spot {
    Global(u64),
    Shared(u64),
    Local(u64),
    /// Shared memory of a CTA of the cluster.
    Peer(SharedPlace),
}

/// Addresses in the shared window from here on name a CTA of the cluster.
const PEERS: u64 = 1 << 24;

impl Machine<'_> {
    /// Number of a warp among those of the cluster.
    #[inline(always)]
    pub(super) fn race_warp(&self, warp: &Warp) -> usize {
        self.first_warp + warp.id as usize
    }

    #[inline(always)]
    fn spot(&self, space: Space, address: u64) -> Result<Spot, FaultKind> {
        let found = spot(space, address);
        match (space, found) {
            (Space::Shared, _) => Ok(found),
            (_, Spot::Shared(inside)) if inside >= PEERS => {
                self.place(Space::Cluster, inside).map(Spot::Peer)
            }
            _ => Ok(found),
        }
    }
}

fn spot(space: Space, address: u64) -> Spot {
    match space {
        Space::Cluster => Spot::Shared(address),
        Space::Shared => Spot::Shared(address),
        Space::Local => Spot::Local(address),
        Space::Generic if address.wrapping_sub(SHARED_BASE) < WINDOW => Spot::Shared(address - SHARED_BASE),
        Space::Generic if address.wrapping_sub(LOCAL_BASE) < WINDOW => Spot::Local(address - LOCAL_BASE),
        _ => Spot::Global(address),
    }
}

/// Addresses of all lanes; narrow registers wrap around at 32 bits, as the shared window does.
#[inline(always)]
pub(super) fn addresses(warp: &Warp, address: Address, mask: u32) -> Ran<[u64; LANES]> {
    let mut out = [0; LANES];
    if address.wide {
        let base = warp.wide(address.slot, mask)?;
        for lane in 0..LANES {
            out[lane] = base[lane].wrapping_add(i64::from(address.offset) as u64);
        }
    } else {
        let base = warp.narrow(address.slot, mask)?;
        for lane in 0..LANES {
            out[lane] = u64::from(base[lane].wrapping_add(address.offset as u32));
        }
    }
    Ok(out)
}

/// The bytes of an access by a CTA for the race checker; local memory is of one thread alone.
fn range(rank: u32, spot: Spot, bytes: u32) -> Option<Range> {
    let bytes = u64::from(bytes);
    match spot {
        Spot::Global(start) => Some(Range { region: Region::Global, start, bytes }),
        Spot::Shared(start) => Some(Range { region: Region::of(rank), start, bytes }),
        Spot::Peer(place) => {
            Some(Range { region: Region::of(place.rank), start: u64::from(place.address), bytes })
        }
        Spot::Local(_) => None,
    }
}

fn sign_extend(value: u64, bytes: u32, register: u8) -> u64 {
    let shift = 64 - 8 * bytes;
    let extended = ((value << shift) as i64 >> shift) as u64;
    extended & (u64::MAX >> (64 - u32::from(register)))
}

impl Spot {
    #[inline(always)]
    fn offset(self, bytes: u64) -> Self {
        match self {
            Self::Global(address) => Self::Global(address.wrapping_add(bytes)),
            Self::Shared(address) => Self::Shared(address.wrapping_add(bytes)),
            Self::Local(address) => Self::Local(address.wrapping_add(bytes)),
            Self::Peer(place) => {
                Self::Peer(SharedPlace { address: place.address.wrapping_add(bytes as u32), ..place })
            }
        }
    }
}

impl Machine<'_> {
    fn aligned(&self, spot: Spot, bytes: u32) -> Result<(), FaultKind> {
        let (space, address) = match spot {
            Spot::Global(address) => (MemorySpace::Global, address),
            Spot::Shared(address) => (MemorySpace::Shared, address),
            Spot::Local(address) => (MemorySpace::Local, address),
            Spot::Peer(place) => (MemorySpace::Shared, u64::from(place.address)),
        };
        if address & u64::from(bytes - 1) == 0 {
            Ok(())
        } else {
            Err(FaultKind::Misaligned { space, address, bytes })
        }
    }

    fn read(
        &mut self,
        warp: &Warp,
        lane: usize,
        spot: Spot,
        bytes: u32,
        last: &mut Option<Found>,
    ) -> Result<u64, FaultKind> {
        match spot {
            Spot::Shared(address) => self.shared.load_bits(address, bytes),
            Spot::Local(address) => warp.local[lane].load_bits(address, bytes),
            Spot::Peer(place) => self.peer(place.rank)?.load_bits(u64::from(place.address), bytes),
            Spot::Global(address) => {
                let found = self.memory.find(address, bytes, last)?;
                match self.memory.load(found, bytes) {
                    Some(value) => Ok(value),
                    None if self.lenient => Ok(0),
                    None => {
                        Err(FaultKind::UninitialisedMemory { space: MemorySpace::Global, address, bytes })
                    }
                }
            }
        }
    }

    fn write(
        &mut self,
        warp: &mut Warp,
        lane: usize,
        spot: Spot,
        bytes: u32,
        value: u64,
        last: &mut Option<Found>,
    ) -> Result<(), FaultKind> {
        match spot {
            Spot::Shared(address) => self.shared.store_bits(address, bytes, value),
            Spot::Local(address) => warp.local[lane].store_bits(address, bytes, value),
            Spot::Peer(place) => self.peer(place.rank)?.store_bits(u64::from(place.address), bytes, value),
            Spot::Global(address) => {
                let found = self.memory.find(address, bytes, last)?;
                self.memory.store(found, bytes, value);
                Ok(())
            }
        }
    }

    pub(super) fn load(&mut self, warp: &mut Warp, access: &Access, mask: u32) -> Ran<()> {
        let addresses = addresses(warp, access.address, mask)?;
        let (bytes, count) = (u32::from(access.bytes), u32::from(access.count));
        self.counters.request(Direction::Load, access.space, &addresses, mask, bytes * count);
        let agent = self.race_warp(warp);
        let mut last = None;
        let mut values = [[0; LANES]; 4];
        for lane in lanes_of(mask) {
            let whole = at_lane(self.spot(access.space, addresses[lane]), lane)?;
            at_lane(self.aligned(whole, bytes * count), lane)?;
            if let (Some(race), Some(range)) =
                (&mut self.cluster.race, range(self.rank, whole, bytes * count))
            {
                at_lane(race.read(agent, range, warp.pc, access.order), lane)?;
            }
            for i in 0..count {
                let part = whole.offset(u64::from(i * bytes));
                let value = at_lane(self.read(warp, lane, part, bytes, &mut last), lane)?;
                let extended = if access.signed { sign_extend(value, bytes, access.register) } else { value };
                values[i as usize][lane] = extended;
            }
        }
        for (slot, value) in access.slots.iter().zip(&values).take(count as usize) {
            put(warp, *slot, access.register == 64, mask, value);
        }
        Ok(())
    }

    pub(super) fn load_param(&mut self, warp: &mut Warp, access: &Access, mask: u32) -> Ran<()> {
        let (bytes, count) = (usize::from(access.bytes), usize::from(access.count));
        let start = usize::try_from(access.address.offset).unwrap_or(usize::MAX);
        let data = start.checked_add(bytes * count).and_then(|end| self.params.get(start..end));
        let Some(data) = data else {
            let (address, bytes) = (i64::from(access.address.offset) as u64, (bytes * count) as u32);
            let nearest = format!("there are {} bytes", self.params.len());
            return stop(FaultKind::OutOfBounds { space: MemorySpace::Param, address, bytes, nearest }, None);
        };
        for (slot, part) in access.slots.iter().zip(data.chunks_exact(bytes)) {
            let mut raw = [0; 8];
            raw[..bytes].copy_from_slice(part);
            let value = u64::from_le_bytes(raw);
            let value = if access.signed { sign_extend(value, bytes as u32, access.register) } else { value };
            put(warp, *slot, access.register == 64, mask, &[value; LANES]);
        }
        Ok(())
    }

    pub(super) fn store(&mut self, warp: &mut Warp, access: &Access, mask: u32) -> Ran<()> {
        let addresses = addresses(warp, access.address, mask)?;
        let (bytes, count) = (u32::from(access.bytes), u32::from(access.count));
        self.counters.request(Direction::Store, access.space, &addresses, mask, bytes * count);
        let mut values = [[0; LANES]; 4];
        for (slot, value) in access.slots.iter().zip(&mut values).take(count as usize) {
            *value = get(warp, *slot, access.register == 64, mask)?;
        }
        if self.cluster.race.is_some() && !access.order.strong() {
            self.agreement(access, &addresses, &values, mask)?;
        }
        let agent = self.race_warp(warp);
        let mut last = None;
        self.cluster.effects += 1;
        for lane in lanes_of(mask) {
            let whole = at_lane(self.spot(access.space, addresses[lane]), lane)?;
            at_lane(self.aligned(whole, bytes * count), lane)?;
            if let (Some(race), Some(range)) =
                (&mut self.cluster.race, range(self.rank, whole, bytes * count))
            {
                at_lane(race.write(agent, range, warp.pc, access.order), lane)?;
            }
            for i in 0..count {
                let part = whole.offset(u64::from(i * bytes));
                at_lane(self.write(warp, lane, part, bytes, values[i as usize][lane], &mut last), lane)?;
            }
        }
        Ok(())
    }

    /// Checks that lanes that store to one place store one value.
    fn agreement(
        &self,
        access: &Access,
        addresses: &[u64; LANES],
        values: &[[u64; LANES]; 4],
        mask: u32,
    ) -> Ran<()> {
        let (mut shared, mut global) = (0, 0);
        for lane in lanes_of(mask) {
            match spot(access.space, addresses[lane]) {
                Spot::Shared(_) | Spot::Peer(_) => shared |= 1 << lane,
                Spot::Global(_) => global |= 1 << lane,
                Spot::Local(_) => {}
            }
        }
        let (bytes, count) = (u32::from(access.bytes), u32::from(access.count));
        for (space, lanes) in [(MemorySpace::Shared, shared), (MemorySpace::Global, global)] {
            if let Err((kind, lane)) = lanes_agree(space, addresses, values, bytes, count, lanes) {
                return stop(kind, Some(lane));
            }
        }
        Ok(())
    }

    pub(super) fn atomic(&mut self, warp: &mut Warp, atomic: &Atomic, mask: u32) -> Ran<()> {
        let addresses = addresses(warp, atomic.address, mask)?;
        let wide = atomic.scalar.bits() == 64;
        let b = get(warp, atomic.b, wide, mask)?;
        let c = if atomic.c == NONE { b } else { get(warp, atomic.c, wide, mask)? };
        let bytes = atomic.scalar.bytes();
        self.counters.request(Direction::Store, atomic.space, &addresses, mask, bytes);
        let mut old = [0; LANES];
        self.cluster.effects += 1;
        let memory = self.memory;
        let _others_wait = memory.exclusive();
        let agent = self.race_warp(warp);
        let mut last = None;
        // Lanes act one after the other, in their order: one of the orders the hardware may choose.
        for lane in lanes_of(mask) {
            let at = at_lane(self.spot(atomic.space, addresses[lane]), lane)?;
            at_lane(self.aligned(at, bytes), lane)?;
            if let (Some(race), Some(range)) = (&mut self.cluster.race, range(self.rank, at, bytes)) {
                at_lane(race.atomic(agent, range, warp.pc, atomic.order), lane)?;
            }
            old[lane] = at_lane(self.read(warp, lane, at, bytes, &mut last), lane)?;
            let new = combine(atomic.op, atomic.scalar, old[lane], b[lane], c[lane]);
            at_lane(self.write(warp, lane, at, bytes, new, &mut last), lane)?;
        }
        put(warp, atomic.d, wide, mask, &old);
        Ok(())
    }

    pub(super) fn copy_async(
        &mut self,
        warp: &mut Warp,
        (to, from): (Address, Address),
        bytes: u8,
        source_bytes: Slot,
        mask: u32,
    ) -> Ran<()> {
        let targets = addresses(warp, to, mask)?;
        let sources = addresses(warp, from, mask)?;
        let sizes = if source_bytes == NONE {
            [u32::from(bytes); LANES]
        } else {
            *warp.narrow(source_bytes, mask)?
        };
        let reading = bits2(&sizes, &sizes, |size, _| size > 0) & mask;
        let read = lanes_of(reading).map(|lane| u64::from(sizes[lane])).sum();
        self.counters.global(Direction::Load, &sources, reading, read);
        let written = u64::from(mask.count_ones() * u32::from(bytes));
        self.counters.shared(&targets, mask, u32::from(bytes), written);
        let agent = self.race_warp(warp);
        let mut last = None;
        for lane in lanes_of(mask) {
            let size = sizes[lane];
            if size > u32::from(bytes) {
                let text = format!("the source size {size} is larger than the copy, {bytes} bytes");
                return stop(FaultKind::Unmodelled(text), Some(lane));
            }
            if sources[lane] & u64::from(bytes - 1) != 0 {
                let (space, address) = (MemorySpace::Global, sources[lane]);
                return stop(FaultKind::Misaligned { space, address, bytes: u32::from(bytes) }, Some(lane));
            }
            if size > 0 {
                at_lane(self.source(sources[lane], size, &mut last, &mut [0; 16]), lane)?;
            }
            if let Some(race) = &mut self.cluster.race {
                let region = Region::of(self.rank);
                let to = Range { region, start: targets[lane], bytes: u64::from(bytes) };
                let from = Range { region: Region::Global, start: sources[lane], bytes: u64::from(size) };
                let copy = (agent, lane, warp.groups[lane]);
                at_lane(race.copy(copy, to, from, warp.pc), lane)?;
            }
            at_lane(self.shared.begin_copy(targets[lane], u32::from(bytes)), lane)?;
            warp.state.copies += 1;
            warp.copies.push(PendingCopy {
                number: warp.state.copies,
                lane: lane as u8,
                bytes,
                source_bytes: size as u8,
                group: warp.groups[lane],
                to: targets[lane],
                from: sources[lane],
            });
        }
        if self.eager {
            self.land(warp, mask, |_| true)?;
        }
        Ok(())
    }

    /// Reads the bytes of a copy, up to 16; the address is aligned for the whole copy.
    #[inline(always)]
    fn source(
        &self,
        address: u64,
        size: u32,
        last: &mut Option<Found>,
        data: &mut [u8; 16],
    ) -> Result<(), FaultKind> {
        let unwritten =
            || FaultKind::UninitialisedMemory { space: MemorySpace::Global, address, bytes: size };
        if matches!(size, 4 | 8 | 16) {
            let found = self.memory.find(address, size, last)?;
            if self.memory.load_words(found, &mut data[..size as usize]) || self.lenient {
                return Ok(());
            }
            return Err(unwritten());
        }
        for at in 0..size {
            let found = self.memory.find(address + u64::from(at), 1, last)?;
            match self.memory.load(found, 1) {
                Some(value) => data[at as usize] = value as u8,
                None if self.lenient => {}
                None => return Err(unwritten()),
            }
        }
        Ok(())
    }

    /// Lets the copies of these lanes land whose group `ready` accepts: the latest moment PTX allows.
    pub(super) fn land(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        ready: impl Fn(&PendingCopy) -> bool,
    ) -> Ran<()> {
        let copies = std::mem::take(&mut warp.copies);
        let mut last = None;
        for copy in copies {
            if mask >> copy.lane & 1 == 0 || !ready(&copy) {
                warp.copies.push(copy);
                continue;
            }
            let mut data = [0; 16];
            let read = self.source(copy.from, u32::from(copy.source_bytes), &mut last, &mut data);
            at_lane(read, usize::from(copy.lane))?;
            self.shared.end_copy(copy.to, &data[..usize::from(copy.bytes)]);
        }
        Ok(())
    }

    pub(super) fn load_matrix(
        &mut self,
        warp: &mut Warp,
        address: Address,
        (count, transposed, generic): (u8, bool, bool),
        slots: &[Slot; 4],
    ) -> Ran<()> {
        // Rows of matrix i come from lanes 8 i to 8 i + 7; the other lanes' addresses do not count.
        let used = u32::MAX >> (32 - 8 * u32::from(count));
        let mut addresses = addresses(warp, address, used)?;
        if generic {
            for lane in lanes_of(used) {
                let Spot::Shared(inside) = spot(Space::Generic, addresses[lane]) else {
                    let text = "the generic address of ldmatrix does not point to shared memory".to_owned();
                    return stop(FaultKind::Unmodelled(text), Some(lane));
                };
                addresses[lane] = inside;
            }
        }
        self.counters.shared(&addresses, used, 16, 128 * u64::from(count));
        let (agent, region) = (self.race_warp(warp), Region::of(self.rank));
        for (matrix, slot) in slots.iter().enumerate().take(usize::from(count)) {
            let mut rows = [[0_u8; 16]; 8];
            for (row, data) in rows.iter_mut().enumerate() {
                let lane = matrix * 8 + row;
                if let Some(race) = &mut self.cluster.race {
                    let row = Range { region, start: addresses[lane], bytes: 16 };
                    at_lane(race.read(agent, row, warp.pc, Order::default()), lane)?;
                }
                at_lane(self.shared.load_into(addresses[lane], data), lane)?;
            }
            let value = if transposed { columns_of_matrix(&rows) } else { rows_of_matrix(&rows) };
            warp.set_narrow(*slot, u32::MAX, &value);
        }
        Ok(())
    }
}

/// A matrix of 8x8 halves as lanes hold it: lane `4 g + t` has elements `2 t` and `2 t + 1` of row `g`.
#[inline(always)]
fn rows_of_matrix(rows: &[[u8; 16]; 8]) -> [u32; LANES] {
    let mut value = [0; LANES];
    for (words, row) in value.chunks_exact_mut(4).zip(rows) {
        for (word, bytes) in words.iter_mut().zip(row.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
    value
}

/// The same of the transposed matrix: lane `4 g + t` has elements of column `g`, of rows `2 t` and `2 t + 1`.
#[inline(always)]
fn columns_of_matrix(rows: &[[u8; 16]; 8]) -> [u32; LANES] {
    let mut value = [0; LANES];
    for (t, pair) in rows.chunks_exact(2).enumerate() {
        let half =
            |row: usize, g: usize| u32::from(u16::from_le_bytes([pair[row][2 * g], pair[row][2 * g + 1]]));
        let words: [u32; 8] = std::array::from_fn(|g| half(0, g) | half(1, g) << 16);
        for (g, word) in words.into_iter().enumerate() {
            value[4 * g + t] = word;
        }
    }
    value
}

/// Writes lanes, zero-extended, to a register of either file.
fn put(warp: &mut Warp, slot: Slot, wide: bool, mask: u32, value: &[u64; LANES]) {
    match (slot, wide) {
        (NONE, _) => {}
        (_, true) => warp.set_wide(slot, mask, value),
        (_, false) => warp.set_narrow(slot, mask, &value.map(|x| x as u32)),
    }
}

/// Reads lanes, zero-extended, from a register of either file.
pub(super) fn get(warp: &Warp, slot: Slot, wide: bool, mask: u32) -> Ran<[u64; LANES]> {
    if wide { warp.wide(slot, mask).copied() } else { Ok(warp.narrow(slot, mask)?.map(u64::from)) }
}

pub(super) fn combine(op: AtomOp, scalar: Scalar, old: u64, b: u64, c: u64) -> u64 {
    let mask = u64::MAX >> (64 - scalar.bits());
    let signed = |x: u64| if scalar.bits() == 32 { i64::from(x as u32 as i32) } else { x as i64 };
    let ordered = |less: bool| match (op, less) {
        (AtomOp::Min, true) | (AtomOp::Max, false) => old,
        _ => b,
    };
    match op {
        AtomOp::Add if scalar == Scalar::F32 => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits())
        }
        AtomOp::Add if scalar == Scalar::F64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        AtomOp::Add => old.wrapping_add(b) & mask,
        AtomOp::Min | AtomOp::Max if scalar.is_signed() => ordered(signed(old) < signed(b)),
        AtomOp::Min | AtomOp::Max => ordered(old < b),
        AtomOp::And => old & b,
        AtomOp::Or => old | b,
        AtomOp::Xor => old ^ b,
        AtomOp::Exchange => b,
        AtomOp::CompareSwap => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomOp::Increment => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Decrement => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}
