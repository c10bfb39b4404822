//! Memory of one CTA, or of one warp's threads: bytes, and for each byte whether it was written or is about to be.

use crate::fault::{FaultKind, MemorySpace};

const WRITTEN: u8 = 1;
/// A `cp.async` to this byte was issued and has not been waited for.
const IN_FLIGHT: u8 = 2;
/// A bulk copy or `st.async` to this byte was issued, and the phase of its mbarrier has not ended.
const BULK: u8 = 4;
/// Part of an mbarrier object.
const OBJECT: u8 = 8;
/// A bulk copy still has to read this byte.
const SOURCE: u8 = 16;

#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    state: Vec<u8>,
    space: Option<MemorySpace>,
}

impl Scratch {
    /// Makes it `bytes` long and unwritten, keeping the allocation.
    pub(crate) fn reset(&mut self, bytes: usize, space: MemorySpace) {
        self.bytes.resize(bytes, 0);
        self.state.clear();
        self.state.resize(bytes, 0);
        self.space = Some(space);
    }

    fn space(&self) -> MemorySpace {
        self.space.unwrap_or(MemorySpace::Shared)
    }

    #[inline(always)]
    fn check(&self, address: u64, bytes: u32) -> Result<usize, FaultKind> {
        let fits =
            address <= self.bytes.len() as u64 && self.bytes.len() as u64 - address >= u64::from(bytes);
        if fits && address & u64::from(bytes - 1) == 0 {
            return Ok(address as usize);
        }
        Err(self.refuse(address, bytes, fits))
    }

    #[cold]
    fn refuse(&self, address: u64, bytes: u32, fits: bool) -> FaultKind {
        let space = self.space();
        if fits {
            return FaultKind::Misaligned { space, address, bytes };
        }
        let nearest = format!("there are {} bytes", self.bytes.len());
        FaultKind::OutOfBounds { space, address, bytes, nearest }
    }

    /// Why bytes cannot be read, if they cannot.
    #[cold]
    fn refuse_read(&self, address: u64, bytes: u32) -> Option<FaultKind> {
        let all = self.states(address, bytes).fold(0, |all, state| all | state);
        if all & (IN_FLIGHT | BULK | OBJECT) != 0 {
            return Some(Self::taken(all, address, bytes, false));
        }
        let written = self.states(address, bytes).all(|state| state & WRITTEN != 0);
        (!written).then(|| FaultKind::UninitialisedMemory { space: self.space(), address, bytes })
    }

    /// Why bytes cannot be written: something asynchronous still works on them.
    #[cold]
    fn refuse_write(&self, address: u64, bytes: u32) -> FaultKind {
        let all = self.states(address, bytes).fold(0, |all, state| all | state);
        Self::taken(all, address, bytes, true)
    }

    fn states(&self, address: u64, bytes: u32) -> impl Iterator<Item = u8> {
        self.state[address as usize..address as usize + bytes as usize].iter().copied()
    }

    fn taken(all: u8, address: u64, bytes: u32, write: bool) -> FaultKind {
        if all & OBJECT != 0 {
            return FaultKind::BarrierObject { address, bytes, write };
        }
        if all & IN_FLIGHT != 0 {
            return FaultKind::CopyInFlight { address, bytes, write };
        }
        FaultKind::BulkInFlight { address, bytes, write, source: all & BULK == 0 }
    }

    /// Loads `N` bytes.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, address: u64) -> Result<[u8; N], FaultKind> {
        let mut value = [0; N];
        self.load_into(address, &mut value)?;
        Ok(value)
    }

    /// Loads `N` bytes to where they are wanted: sixteen on their way through a `Result` cost more than the load.
    #[inline(always)]
    pub(crate) fn load_into<const N: usize>(&self, address: u64, to: &mut [u8; N]) -> Result<(), FaultKind> {
        let at = self.check(address, N as u32)?;
        let mut state = [0; N];
        to.copy_from_slice(&self.bytes[at..at + N]);
        state.copy_from_slice(&self.state[at..at + N]);
        if state == [WRITTEN; N] {
            return Ok(());
        }
        self.refuse_read(address, N as u32).map_or(Ok(()), Err)
    }

    /// Stores `N` bytes.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, address: u64, value: [u8; N]) -> Result<(), FaultKind> {
        let at = self.check(address, N as u32)?;
        if self.state[at..at + N].iter().any(|state| state & !WRITTEN != 0) {
            return Err(self.refuse_write(address, N as u32));
        }
        self.bytes[at..at + N].copy_from_slice(&value);
        self.state[at..at + N].fill(WRITTEN);
        Ok(())
    }

    /// Marks the destination of an asynchronous copy.
    pub(crate) fn begin_copy(&mut self, address: u64, bytes: u32) -> Result<(), FaultKind> {
        let at = self.check(address, bytes)?;
        if self.states(address, bytes).any(|state| state & !WRITTEN != 0) {
            return Err(self.refuse_write(address, bytes));
        }
        self.state[at..at + bytes as usize].fill(IN_FLIGHT);
        Ok(())
    }

    /// Checks that a range of any length lies inside.
    fn range(&self, address: u32, bytes: u32) -> Result<std::ops::Range<usize>, FaultKind> {
        let (at, end) = (address as usize, address as usize + bytes as usize);
        if end <= self.bytes.len() {
            return Ok(at..end);
        }
        Err(self.refuse(u64::from(address), bytes, false))
    }

    /// Marks the destination of a bulk copy.
    pub(crate) fn begin_bulk(&mut self, address: u32, bytes: u32) -> Result<(), FaultKind> {
        let range = self.range(address, bytes)?;
        if self.state[range.clone()].iter().fold(0, |all, state| all | state) & !WRITTEN != 0 {
            return Err(self.refuse_write(u64::from(address), bytes));
        }
        self.state[range].fill(BULK);
        Ok(())
    }

    /// Lets data of a bulk copy land; it stays unreadable until [`Scratch::settle`].
    pub(crate) fn land(&mut self, address: u32, data: &[u8]) {
        self.bytes[address as usize..address as usize + data.len()].copy_from_slice(data);
    }

    /// Makes what bulk copies brought readable.
    pub(crate) fn settle(&mut self, address: u32, bytes: u32) {
        self.state[address as usize..(address + bytes) as usize].fill(WRITTEN);
    }

    /// Checks that a range can be read.
    pub(crate) fn readable(&self, address: u32, bytes: u32) -> Result<(), FaultKind> {
        self.range(address, bytes)?;
        self.refuse_read(u64::from(address), bytes).map_or(Ok(()), Err)
    }

    /// Marks bytes that a bulk copy is going to read; of those that are never written the copy must make no use.
    pub(crate) fn begin_source(&mut self, address: u32, bytes: u32) -> Result<(), FaultKind> {
        self.range(address, bytes)?;
        match self.refuse_read(u64::from(address), bytes) {
            None | Some(FaultKind::UninitialisedMemory { .. }) => {
                self.mark_source(address, bytes);
                Ok(())
            }
            Some(fault) => Err(fault),
        }
    }

    /// Forgets the marks of [`Scratch::begin_source`].
    pub(crate) fn end_source(&mut self, address: u32, bytes: u32) {
        self.state[address as usize..(address + bytes) as usize]
            .iter_mut()
            .for_each(|state| *state &= !SOURCE);
    }

    /// Sets the marks again for a second copy that reads the same bytes.
    pub(crate) fn mark_source(&mut self, address: u32, bytes: u32) {
        self.state[address as usize..(address + bytes) as usize]
            .iter_mut()
            .for_each(|state| *state |= SOURCE);
    }

    /// The bytes of a checked range, whatever their state.
    pub(crate) fn raw(&self, address: u32, bytes: u32) -> &[u8] {
        &self.bytes[address as usize..(address + bytes) as usize]
    }

    /// Takes eight bytes for an mbarrier.
    pub(crate) fn begin_object(&mut self, address: u32) -> Result<(), FaultKind> {
        let at = self.check(u64::from(address), 8)?;
        if self.states(u64::from(address), 8).any(|state| state & !WRITTEN != 0) {
            return Err(self.refuse_write(u64::from(address), 8));
        }
        self.state[at..at + 8].fill(OBJECT);
        Ok(())
    }

    /// Gives the bytes of an mbarrier back; they count as unwritten.
    pub(crate) fn end_object(&mut self, address: u32) {
        self.state[address as usize..address as usize + 8].fill(0);
    }

    /// Lets the data of an asynchronous copy land; [`Scratch::begin_copy`] has checked the range.
    pub(crate) fn end_copy(&mut self, address: u64, data: &[u8]) {
        let at = address as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.state[at..at + data.len()].fill(WRITTEN);
    }

    /// Loads 1, 2, 4 or 8 bytes, zero-extended.
    #[inline(always)]
    pub(crate) fn load_bits(&self, address: u64, bytes: u32) -> Result<u64, FaultKind> {
        Ok(match bytes {
            1 => u64::from(self.load::<1>(address)?[0]),
            2 => u64::from(u16::from_le_bytes(self.load(address)?)),
            4 => u64::from(u32::from_le_bytes(self.load(address)?)),
            _ => u64::from_le_bytes(self.load(address)?),
        })
    }

    /// Stores 1, 2, 4 or 8 bytes.
    #[inline(always)]
    pub(crate) fn store_bits(&mut self, address: u64, bytes: u32, value: u64) -> Result<(), FaultKind> {
        match bytes {
            1 => self.store(address, [value as u8]),
            2 => self.store(address, (value as u16).to_le_bytes()),
            4 => self.store(address, (value as u32).to_le_bytes()),
            _ => self.store(address, value.to_le_bytes()),
        }
    }
}
