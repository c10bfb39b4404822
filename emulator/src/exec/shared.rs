//! Memory of one CTA, or of one warp's threads: bytes, and for each byte whether it was written or is about to be.

use crate::fault::{FaultKind, MemorySpace};

const WRITTEN: u8 = 1;
/// A `cp.async` to this byte was issued and has not been waited for.
const IN_FLIGHT: u8 = 2;

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

    #[cold]
    fn not_written(&self, address: u64, bytes: u32) -> FaultKind {
        let range = address as usize..address as usize + bytes as usize;
        if self.state[range].iter().any(|state| state & IN_FLIGHT != 0) {
            return FaultKind::CopyInFlight { address, bytes, write: false };
        }
        FaultKind::UninitialisedMemory { space: self.space(), address, bytes }
    }

    /// Loads `N` bytes.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, address: u64) -> Result<[u8; N], FaultKind> {
        let at = self.check(address, N as u32)?;
        let mut value = [0; N];
        let mut state = [0; N];
        value.copy_from_slice(&self.bytes[at..at + N]);
        state.copy_from_slice(&self.state[at..at + N]);
        if state == [WRITTEN; N] { Ok(value) } else { Err(self.not_written(address, N as u32)) }
    }

    /// Stores `N` bytes.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, address: u64, value: [u8; N]) -> Result<(), FaultKind> {
        let at = self.check(address, N as u32)?;
        if self.state[at..at + N].iter().any(|state| state & IN_FLIGHT != 0) {
            return Err(FaultKind::CopyInFlight { address, bytes: N as u32, write: true });
        }
        self.bytes[at..at + N].copy_from_slice(&value);
        self.state[at..at + N].fill(WRITTEN);
        Ok(())
    }

    /// Marks the destination of an asynchronous copy.
    pub(crate) fn begin_copy(&mut self, address: u64, bytes: u32) -> Result<(), FaultKind> {
        let at = self.check(address, bytes)?;
        let state = &mut self.state[at..at + bytes as usize];
        if state.iter().any(|state| state & IN_FLIGHT != 0) {
            return Err(FaultKind::CopyInFlight { address, bytes, write: true });
        }
        state.fill(IN_FLIGHT);
        Ok(())
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
