//! Device buffers between guard zones: what a kernel writes past an end shows.
//!
//! A device that refuses accesses outside a buffer by itself ([`Device::GUARD_BYTES`] of 0) gets no zones.

use std::rc::Rc;

use super::{
    Device, Memory,
    error::{DeviceError, Side},
};

/// What guard zones hold: NaN as f32, f16 and bf16, so that reading past an end shows too, and as an index far out
/// of every range. Not a single repeated byte, so that no fill of ours makes it by chance.
const GUARD: [u8; 2] = 0x7fe5u16.to_le_bytes();
/// A buffer on the device.
#[derive(Debug)]
pub(super) struct Buffer<D: Device> {
    memory: D::Memory,
    bytes: usize,
    name: &'static str,
}

impl<D: Device> Buffer<D> {
    /// Takes memory for `bytes` bytes, poisoned, between two guard zones.
    pub(super) fn new(device: &Rc<D>, name: &'static str, bytes: usize) -> Result<Self, DeviceError> {
        let memory = D::allocate(device, bytes + 2 * D::GUARD_BYTES, name)?;
        if D::GUARD_BYTES > 0 {
            let zone = guard_zone(D::GUARD_BYTES);
            memory.write(0, &zone)?;
            // Right behind the last byte: one element too many is seen.
            memory.write(D::GUARD_BYTES + bytes, &zone)?;
        }
        let buffer = Self { memory, bytes, name };
        buffer.poison()?;
        Ok(buffer)
    }

    /// Takes memory for some numbers and copies them there.
    pub(super) fn of(device: &Rc<D>, name: &'static str, data: &[u8]) -> Result<Self, DeviceError> {
        let buffer = Self::new(device, name, data.len())?;
        buffer.memory.write(D::GUARD_BYTES, data)?;
        Ok(buffer)
    }

    /// Returns the device address of the first byte.
    pub(super) fn address(&self) -> u64 {
        self.memory.address(D::GUARD_BYTES)
    }

    /// Returns the size in bytes, guard zones apart.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Fills the buffer with NaN, -1 as an integer.
    pub(super) fn poison(&self) -> Result<(), DeviceError> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.memory.poison(D::GUARD_BYTES, self.bytes)
    }

    /// Copies the first elements to the host once all work before is done.
    pub(super) fn read<T: bytemuck::Pod>(&self, elements: usize) -> Result<Vec<T>, DeviceError> {
        let mut data = vec![T::zeroed(); elements];
        if elements > 0 {
            self.memory.read(D::GUARD_BYTES, bytemuck::cast_slice_mut(&mut data))?;
        }
        Ok(data)
    }

    /// Checks that `kernel` has written nothing past the ends.
    pub(super) fn check_guards(&self, kernel: &str) -> Result<(), DeviceError> {
        if D::GUARD_BYTES == 0 {
            return Ok(());
        }
        for (side, offset) in [(Side::Before, 0), (Side::After, D::GUARD_BYTES + self.bytes)] {
            let mut zone = vec![0; D::GUARD_BYTES];
            self.memory.read(offset, &mut zone)?;
            if let Some(damage) = damage(&zone, side) {
                // Put right again: the next kernel is not to be blamed for it.
                self.memory.write(offset, &guard_zone(D::GUARD_BYTES))?;
                return Err(DeviceError::Overrun {
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

fn guard_zone(bytes: usize) -> Vec<u8> {
    GUARD.iter().copied().cycle().take(bytes).collect()
}

/// How a guard zone was overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Damage {
    bytes: usize,
    /// Bytes between the buffer and the nearest of them.
    distance: usize,
}

fn damage(zone: &[u8], side: Side) -> Option<Damage> {
    let whole = guard_zone(zone.len());
    let wrong: Vec<usize> = (0..zone.len()).filter(|&i| zone[i] != whole[i]).collect();
    let distance = match side {
        Side::Before => zone.len() - 1 - wrong.last()?,
        Side::After => *wrong.first()?,
    };
    Some(Damage { bytes: wrong.len(), distance })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    const BYTES: usize = 256;

    #[test]
    fn a_guard_is_no_number_and_no_index() {
        let zone = guard_zone(BYTES);
        let word = u16::from_le_bytes([zone[0], zone[1]]);
        assert!(f16::from_bits(word).is_nan() && bf16::from_bits(word).is_nan());
        let wide = u32::from_le_bytes([zone[0], zone[1], zone[2], zone[3]]);
        assert!(f32::from_bits(wide).is_nan() && wide > 1 << 30);
    }

    #[test]
    fn a_whole_guard_is_no_damage() {
        assert_eq!(damage(&guard_zone(BYTES), Side::Before), None);
        assert_eq!(damage(&guard_zone(BYTES), Side::After), None);
    }

    #[test]
    fn damage_is_measured_from_the_buffer() {
        let mut zone = guard_zone(BYTES);
        zone[4] = 0;
        zone[9] = 0;
        assert_eq!(damage(&zone, Side::After), Some(Damage { bytes: 2, distance: 4 }));
        assert_eq!(damage(&zone, Side::Before), Some(Damage { bytes: 2, distance: BYTES - 10 }));
        let mut last = guard_zone(BYTES);
        last[BYTES - 1] ^= 1;
        assert_eq!(damage(&last, Side::Before), Some(Damage { bytes: 1, distance: 0 }));
    }
}
