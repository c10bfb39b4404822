//! Global memory: allocations with unmapped guard zones between them, and a bit for every byte that was written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::decode::Global;
use crate::fault::{FaultKind, MemorySpace};

/// Address of the first allocation: high, so that a forgotten base or a 32-bit address never lands in one.
const FIRST: u64 = 0x7000_0000_0000;
/// Alignment of allocations, that of `cudaMalloc`.
const ALIGN: u64 = 256;
/// Least distance between two allocations; an index off by less than this is caught.
const GUARD: u64 = 1 << 16;

/// Bytes that one word of the shadow speaks of.
const SHADOWED: usize = 32;

/// An address in global memory, as a kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevicePtr(u64);

impl DevicePtr {
    /// Wraps an address that came from a kernel.
    pub fn from_address(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address.
    pub fn address(self) -> u64 {
        self.0
    }

    /// Moves the pointer by bytes.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// Refuses an access of the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at {address:#x} do not lie in one allocation: {nearest}")]
pub struct MemoryError {
    /// First byte of the access.
    pub address: u64,
    /// Bytes of the access.
    pub bytes: u64,
    /// The nearest allocation, in words.
    pub nearest: String,
}

#[derive(Debug)]
struct Allocation {
    base: u64,
    bytes: u64,
    words: Vec<AtomicU32>,
    /// One bit for each byte, [`SHADOWED`] a word.
    written: Vec<AtomicU32>,
}

impl Allocation {
    fn new(base: u64, bytes: u64) -> Self {
        let words = bytes.div_ceil(4) as usize;
        let zeros = |count: usize| std::iter::repeat_with(|| AtomicU32::new(0)).take(count).collect();
        Self { base, bytes, words: zeros(words), written: zeros(words.div_ceil(8)) }
    }

    /// Marks bytes of one word; `mask` has four bits.
    fn mark(&self, word: usize, mask: u32) {
        let bits = mask << (word % 8 * 4);
        let shadow = &self.written[word / 8];
        if shadow.load(Relaxed) & bits != bits {
            shadow.fetch_or(bits, Relaxed);
        }
    }

    /// Says whether bytes from a word on were written, none beyond the word's shadow.
    fn is_written(&self, word: usize, mask: u32) -> bool {
        let bits = mask << (word % 8 * 4);
        self.written[word / 8].load(Relaxed) & bits == bits
    }
}

/// The device's global memory: what the host allocates, writes and reads, and what kernels work on.
#[derive(Debug, Default)]
pub struct Memory {
    /// In order of their bases.
    allocations: Vec<Allocation>,
    /// Bytes of addresses given out so far, guard zones included; those of freed allocations stay taken.
    taken: u64,
    /// Variables of modules launched so far, by module number.
    globals: HashMap<u64, Vec<u64>>,
    /// Held by read-modify-write operations, so that they are atomic among each other at every width.
    atomics: Mutex<()>,
}

/// Where an access lies: allocation and byte offset in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    allocation: usize,
    offset: usize,
}

impl Memory {
    /// Makes an empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates bytes, aligned to 256 and uninitialised: a kernel that reads them before anything wrote them faults.
    /// At least 64 KiB of unmapped addresses lie between two allocations.
    pub fn alloc(&mut self, bytes: u64) -> DevicePtr {
        let base = FIRST + self.taken;
        self.taken = (self.taken + bytes + GUARD).next_multiple_of(ALIGN);
        self.allocations.push(Allocation::new(base, bytes));
        DevicePtr(base)
    }

    /// Allocates and writes in one step.
    pub fn alloc_from(&mut self, bytes: &[u8]) -> DevicePtr {
        let ptr = self.alloc(bytes.len() as u64);
        if let Some(last) = self.allocations.last() {
            copy_in(last, 0, bytes);
        }
        ptr
    }

    /// Writes bytes to an allocation.
    pub fn write(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), MemoryError> {
        let found = self.host(to, bytes.len() as u64)?;
        copy_in(&self.allocations[found.allocation], found.offset, bytes);
        Ok(())
    }

    /// Reads bytes of an allocation; those never written read as zero, see [`Memory::unwritten`].
    pub fn read(&self, from: DevicePtr, bytes: u64) -> Result<Vec<u8>, MemoryError> {
        let found = self.host(from, bytes)?;
        let allocation = &self.allocations[found.allocation];
        let range = found.offset..found.offset + bytes as usize;
        Ok(range.map(|at| allocation.words[at / 4].load(Relaxed).to_le_bytes()[at % 4]).collect())
    }

    /// Counts the bytes of a range that neither the host nor a kernel has written.
    pub fn unwritten(&self, from: DevicePtr, bytes: u64) -> Result<u64, MemoryError> {
        let found = self.host(from, bytes)?;
        let allocation = &self.allocations[found.allocation];
        let range = found.offset..found.offset + bytes as usize;
        Ok(range.filter(|at| !allocation.is_written(at / 4, 1 << (at % 4))).count() as u64)
    }

    /// Reads bytes of an allocation, `unwritten` in the place of each that neither the host nor a kernel has written.
    pub fn read_or(&self, from: DevicePtr, bytes: u64, unwritten: u8) -> Result<Vec<u8>, MemoryError> {
        let mut data = self.read(from, bytes)?;
        let found = self.host(from, bytes)?;
        let allocation = &self.allocations[found.allocation];
        for (at, byte) in (found.offset..).zip(&mut data) {
            if !allocation.is_written(at / 4, 1 << (at % 4)) {
                *byte = unwritten;
            }
        }
        Ok(data)
    }

    /// Makes bytes unwritten again: a kernel that reads them before anything has written them faults.
    pub fn forget(&mut self, at: DevicePtr, bytes: u64) -> Result<(), MemoryError> {
        let found = self.host(at, bytes)?;
        let allocation = &self.allocations[found.allocation];
        // A shadow word has a bit for each of 32 bytes; only the first and the last are shared with what lies around.
        let end = found.offset + bytes as usize;
        let mut at = found.offset;
        while at < end {
            let next = end.min((at / SHADOWED + 1) * SHADOWED);
            let bits = u32::MAX >> (SHADOWED - (next - at)) << (at % SHADOWED);
            allocation.written[at / SHADOWED].fetch_and(!bits, Relaxed);
            at = next;
        }
        Ok(())
    }

    /// Gives an allocation back. Its addresses are not used again, so that a later access to them faults. A pointer that
    /// is not the start of an allocation does nothing.
    pub fn free(&mut self, start: DevicePtr) {
        self.allocations.retain(|allocation| allocation.base != start.0);
    }

    fn host(&self, at: DevicePtr, bytes: u64) -> Result<Found, MemoryError> {
        let refuse = || MemoryError { address: at.0, bytes, nearest: self.nearest(at.0) };
        self.locate(at.0, bytes).ok_or_else(refuse)
    }

    #[inline]
    fn locate(&self, address: u64, bytes: u64) -> Option<Found> {
        let at = self.allocations.partition_point(|allocation| allocation.base <= address).checked_sub(1)?;
        let offset = address - self.allocations[at].base;
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.allocations[at].bytes);
        fits.then_some(Found { allocation: at, offset: offset as usize })
    }

    /// Describes the allocation nearest below an address.
    fn nearest(&self, address: u64) -> String {
        let before = self.allocations.partition_point(|allocation| allocation.base <= address);
        let Some(at) = before.checked_sub(1) else { return "it lies below every allocation".to_owned() };
        let Allocation { base, bytes, .. } = &self.allocations[at];
        let offset = address - base;
        format!("it lies {offset} bytes into allocation {at}, which has {bytes} (base {base:#x})")
    }

    /// Finds an access of a kernel: inside one allocation and aligned to its size.
    #[inline]
    pub(crate) fn find(
        &self,
        address: u64,
        bytes: u32,
        last: &mut Option<Found>,
    ) -> Result<Found, FaultKind> {
        if address & u64::from(bytes - 1) != 0 {
            return Err(FaultKind::Misaligned { space: MemorySpace::Global, address, bytes });
        }
        // Lanes mostly stay in the allocation of the lane before.
        if let Some(found) = last {
            let allocation = &self.allocations[found.allocation];
            let offset = address.wrapping_sub(allocation.base);
            if offset < allocation.bytes && allocation.bytes - offset >= u64::from(bytes) {
                found.offset = offset as usize;
                return Ok(*found);
            }
        }
        let found = self.locate(address, u64::from(bytes)).ok_or_else(|| FaultKind::OutOfBounds {
            space: MemorySpace::Global,
            address,
            bytes,
            nearest: self.nearest(address),
        })?;
        *last = Some(found);
        Ok(found)
    }

    /// Loads 1, 2, 4 or 8 bytes, zero-extended; `None` when some of them were never written.
    #[inline]
    pub(crate) fn load(&self, found: Found, bytes: u32) -> Option<u64> {
        let allocation = &self.allocations[found.allocation];
        let word = found.offset / 4;
        let low = allocation.words[word].load(Relaxed);
        if bytes >= 4 {
            let written =
                allocation.is_written(word, 15) && (bytes == 4 || allocation.is_written(word + 1, 15));
            let high = if bytes == 8 { allocation.words[word + 1].load(Relaxed) } else { 0 };
            return written.then_some(u64::from(low) | u64::from(high) << 32);
        }
        let byte = found.offset % 4;
        let mask = (1_u32 << bytes) - 1;
        let value = low >> (byte * 8) & (u32::MAX >> (32 - 8 * bytes));
        allocation.is_written(word, mask << byte).then_some(u64::from(value))
    }

    /// Loads whole words, up to four; false when some of their bytes were never written.
    #[inline]
    pub(crate) fn load_words(&self, found: Found, out: &mut [u8]) -> bool {
        let allocation = &self.allocations[found.allocation];
        // An aligned access lies in one shadow word.
        if let (Ok(out), true) = (<&mut [u8; 16]>::try_from(&mut *out), found.offset.is_multiple_of(16)) {
            let word = found.offset / 4;
            for (part, cell) in out.chunks_exact_mut(4).zip(&allocation.words[word..word + 4]) {
                part.copy_from_slice(&cell.load(Relaxed).to_le_bytes());
            }
            return allocation.is_written(word, 0xffff);
        }
        let mut written = true;
        for (at, part) in out.chunks_exact_mut(4).enumerate() {
            let word = found.offset / 4 + at;
            written &= allocation.is_written(word, 15);
            part.copy_from_slice(&allocation.words[word].load(Relaxed).to_le_bytes());
        }
        written
    }

    /// Stores 1, 2, 4 or 8 bytes.
    #[inline]
    pub(crate) fn store(&self, found: Found, bytes: u32, value: u64) {
        let allocation = &self.allocations[found.allocation];
        let word = found.offset / 4;
        if bytes >= 4 {
            allocation.words[word].store(value as u32, Relaxed);
            allocation.mark(word, 15);
            if bytes == 8 {
                allocation.words[word + 1].store((value >> 32) as u32, Relaxed);
                allocation.mark(word + 1, 15);
            }
            return;
        }
        let byte = found.offset % 4;
        let mask = (u32::MAX >> (32 - 8 * bytes)) << (byte * 8);
        let bits = (value as u32) << (byte * 8) & mask;
        // Another CTA may write the other bytes of this word at the same time.
        let cell = &allocation.words[word];
        let mut old = cell.load(Relaxed);
        while let Err(now) = cell.compare_exchange_weak(old, old & !mask | bits, Relaxed, Relaxed) {
            old = now;
        }
        allocation.mark(word, ((1_u32 << bytes) - 1) << byte);
    }

    /// Reads bytes at any address for a bulk copy; false when some of them were never written.
    pub(crate) fn read_bulk(&self, address: u64, out: &mut [u8]) -> Result<bool, FaultKind> {
        let found = self.bulk(address, out.len())?;
        let allocation = &self.allocations[found.allocation];
        let (mut at, mut written) = (found.offset, true);
        if at.is_multiple_of(4) && out.len().is_multiple_of(4) {
            return Ok(self.load_words(found, out));
        }
        for byte in out {
            written &= allocation.is_written(at / 4, 1 << (at % 4));
            *byte = allocation.words[at / 4].load(Relaxed).to_le_bytes()[at % 4];
            at += 1;
        }
        Ok(written)
    }

    /// Writes bytes at any address for a bulk copy.
    pub(crate) fn write_bulk(&self, address: u64, data: &[u8]) -> Result<(), FaultKind> {
        let found = self.bulk(address, data.len())?;
        let words = found.offset.is_multiple_of(4) && data.len().is_multiple_of(4);
        let step = if words { 4 } else { 1 };
        for (at, part) in data.chunks_exact(step).enumerate() {
            let mut raw = [0; 8];
            raw[..step].copy_from_slice(part);
            let place = Found { offset: found.offset + at * step, ..found };
            self.store(place, step as u32, u64::from_le_bytes(raw));
        }
        Ok(())
    }

    /// Finds the range of a bulk copy.
    pub(crate) fn bulk(&self, address: u64, bytes: usize) -> Result<Found, FaultKind> {
        self.locate(address, bytes as u64).ok_or_else(|| FaultKind::OutOfBounds {
            space: MemorySpace::Global,
            address,
            bytes: bytes as u32,
            nearest: self.nearest(address),
        })
    }

    /// Excludes other read-modify-write operations while it lives.
    pub(crate) fn exclusive(&self) -> MutexGuard<'_, ()> {
        self.atomics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places a module's variables at its first launch and returns their addresses; they keep their values afterwards.
    pub(crate) fn globals(&mut self, module: u64, variables: &[Global]) -> Vec<u64> {
        if let Some(addresses) = self.globals.get(&module) {
            return addresses.clone();
        }
        let addresses: Vec<u64> =
            variables.iter().map(|variable| self.alloc(variable.bytes).address()).collect();
        let first = self.allocations.len() - variables.len();
        for (variable, allocation) in variables.iter().zip(&self.allocations[first..]) {
            let mut bytes = variable.init.clone();
            for (at, index, offset) in &variable.addresses {
                let address = addresses[*index].wrapping_add(*offset as u64);
                bytes[*at..*at + 8].copy_from_slice(&address.to_le_bytes());
            }
            copy_in(allocation, 0, &bytes);
            // The rest is zero, and counts as written.
            allocation.written.iter().for_each(|bits| bits.store(u32::MAX, Relaxed));
        }
        self.globals.insert(module, addresses.clone());
        addresses
    }
}

fn copy_in(allocation: &Allocation, offset: usize, bytes: &[u8]) {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        if at.is_multiple_of(4) && rest.len() >= 4 {
            let word = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            allocation.words[at / 4].store(word, Relaxed);
            allocation.mark(at / 4, 15);
            (at, rest) = (at + 4, &rest[4..]);
            continue;
        }
        let cell = &allocation.words[at / 4];
        let mut word = cell.load(Relaxed).to_le_bytes();
        word[at % 4] = rest[0];
        cell.store(u32::from_le_bytes(word), Relaxed);
        allocation.mark(at / 4, 1 << (at % 4));
        (at, rest) = (at + 1, &rest[1..]);
    }
}
