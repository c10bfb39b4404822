//! Device buffers between guard zones: what a kernel writes past an end shows.

use std::rc::Rc;

use super::{
    driver::{Context, Memory},
    error::{CudaError, Side},
};

/// Bytes of a guard zone; keeps a buffer's start aligned as the driver's allocations are.
const GUARD_BYTES: usize = 256;
/// What guard zones hold: NaN as f32, f16 and bf16, so that reading past an end shows too, and as an index far out
/// of every range. Not a single repeated byte, so that no fill of ours makes it by chance.
const GUARD: [u8; 2] = 0x7fe5u16.to_le_bytes();
/// A byte that makes NaN of every float type, -1 of every integer.
const POISON: u8 = 0xff;

/// A buffer on the device.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Memory,
    bytes: usize,
    name: &'static str,
}

impl Buffer {
    /// Takes memory for `bytes` bytes, poisoned, between two guard zones.
    pub(super) fn new(context: &Rc<Context>, name: &'static str, bytes: usize) -> Result<Self, CudaError> {
        let memory = context.allocate(bytes + 2 * GUARD_BYTES, name)?;
        let zone = guard_zone();
        memory.write(0, &zone)?;
        // Right behind the last byte: one element too many is seen.
        memory.write(GUARD_BYTES + bytes, &zone)?;
        let buffer = Self { memory, bytes, name };
        buffer.poison()?;
        Ok(buffer)
    }

    /// Takes memory for some numbers and copies them there.
    pub(super) fn of(context: &Rc<Context>, name: &'static str, data: &[u8]) -> Result<Self, CudaError> {
        let buffer = Self::new(context, name, data.len())?;
        buffer.memory.write(GUARD_BYTES, data)?;
        Ok(buffer)
    }

    /// Returns the device address of the first byte.
    pub(super) fn address(&self) -> u64 {
        self.memory.address(GUARD_BYTES)
    }

    /// Returns the size in bytes, guard zones apart.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Fills the buffer with NaN, -1 as an integer.
    pub(super) fn poison(&self) -> Result<(), CudaError> {
        self.fill(POISON)
    }

    /// Sets every byte, in order with kernels.
    pub(super) fn fill(&self, value: u8) -> Result<(), CudaError> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.memory.fill(GUARD_BYTES, self.bytes, value)
    }

    /// Copies the first elements to the host once all work before is done.
    pub(super) fn read<T: bytemuck::Pod>(&self, elements: usize) -> Result<Vec<T>, CudaError> {
        let mut data = vec![T::zeroed(); elements];
        if elements > 0 {
            self.memory.read(GUARD_BYTES, bytemuck::cast_slice_mut(&mut data))?;
        }
        Ok(data)
    }

    /// Checks that `kernel` has written nothing past the ends.
    pub(super) fn check_guards(&self, kernel: &str) -> Result<(), CudaError> {
        for (side, offset) in [(Side::Before, 0), (Side::After, GUARD_BYTES + self.bytes)] {
            let mut zone = [0; GUARD_BYTES];
            self.memory.read(offset, &mut zone)?;
            if let Some(damage) = damage(&zone, side) {
                // Put right again: the next kernel is not to be blamed for it.
                self.memory.write(offset, &guard_zone())?;
                return Err(CudaError::Overrun {
                    kernel: kernel.to_owned(),
                    buffer: self.name,
                    side,
                    bytes: damage.bytes,
                    distance: damage.distance,
                });
            }
        }
        Ok(())
    }
}

fn guard_zone() -> [u8; GUARD_BYTES] {
    std::array::from_fn(|i| GUARD[i % GUARD.len()])
}

/// How a guard zone was overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Damage {
    bytes: usize,
    /// Bytes between the buffer and the nearest of them.
    distance: usize,
}

fn damage(zone: &[u8; GUARD_BYTES], side: Side) -> Option<Damage> {
    let whole = guard_zone();
    let wrong: Vec<usize> = (0..GUARD_BYTES).filter(|&i| zone[i] != whole[i]).collect();
    let distance = match side {
        Side::Before => GUARD_BYTES - 1 - wrong.last()?,
        Side::After => *wrong.first()?,
    };
    Some(Damage { bytes: wrong.len(), distance })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn a_guard_is_no_number_and_no_index() {
        let zone = guard_zone();
        let word = u16::from_le_bytes([zone[0], zone[1]]);
        assert!(f16::from_bits(word).is_nan() && bf16::from_bits(word).is_nan());
        let wide = u32::from_le_bytes([zone[0], zone[1], zone[2], zone[3]]);
        assert!(f32::from_bits(wide).is_nan() && wide > 1 << 30);
        assert!(f32::from_bits(u32::from_ne_bytes([POISON; 4])).is_nan());
        assert!(f16::from_bits(0xffff).is_nan() && bf16::from_bits(0xffff).is_nan());
    }

    #[test]
    fn a_whole_guard_is_no_damage() {
        assert_eq!(damage(&guard_zone(), Side::Before), None);
        assert_eq!(damage(&guard_zone(), Side::After), None);
    }

    #[test]
    fn damage_is_measured_from_the_buffer() {
        let mut zone = guard_zone();
        zone[4] = 0;
        zone[9] = 0;
        assert_eq!(damage(&zone, Side::After), Some(Damage { bytes: 2, distance: 4 }));
        assert_eq!(damage(&zone, Side::Before), Some(Damage { bytes: 2, distance: GUARD_BYTES - 10 }));
        let mut last = guard_zone();
        last[GUARD_BYTES - 1] ^= 1;
        assert_eq!(damage(&last, Side::Before), Some(Damage { bytes: 1, distance: 0 }));
    }
}
