//! Matrix descriptors of `wgmma`: where the 16-byte chunks of a matrix lie in shared memory.
//!
//! (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout": strides, matrix descriptor, canonical layouts.)
//! A chunk holds 8 elements of 16 bits that follow each other along the major dimension.

use crate::tensor_map::Swizzle;

/// Addresses in a descriptor have 18 bits.
const WRAP: u32 = (1 << 18) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    start: u32,
    /// Leading and stride dimension byte offsets.
    leading: u32,
    stride: u32,
    /// Phase of the swizzle's pattern at its start.
    base: u32,
    swizzle: Swizzle,
}

impl Descriptor {
    pub(crate) fn decode(bits: u64) -> Result<Self, String> {
        let field = |at: u32| ((bits >> at & 0x3fff) as u32) << 4;
        let reserved =
            0x3fc0_0000_0000_0000 | 0x30_0000_0000_0000 | 1 << 46 | 1 << 47 | 1 << 48 | 3 << 30 | 3 << 14;
        if bits & reserved != 0 {
            return Err(format!(
                "the matrix descriptor {bits:#018x} has reserved bits set ({:#x}): mask each field before it is shifted \
                 to its place",
                bits & reserved
            ));
        }
        Ok(Self {
            start: field(0),
            leading: field(16),
            stride: field(32),
            base: (bits >> 49 & 7) as u32,
            swizzle: match bits >> 62 {
                0 => Swizzle::None,
                1 => Swizzle::B128,
                2 => Swizzle::B64,
                _ => Swizzle::B32,
            },
        })
    }

    #[inline]
    fn at(&self, offset: u32) -> u32 {
        let plain = self.start.wrapping_add(offset) & WRAP;
        let phase = self.base << 7;
        // The pattern starts where the base offset says, not at a multiple of its size.
        self.swizzle.apply(plain.wrapping_sub(phase)).wrapping_add(phase) & WRAP
    }

    /// Address of elements `8 chunk ..` along k of row `row` of a K-major matrix; rows count along M or N.
    #[inline]
    pub(crate) fn k_major(&self, row: u32, chunk: u32) -> u32 {
        let (group, within) = (row / 8, row % 8);
        self.at(match self.swizzle.span() {
            None => group * self.stride + within * 16 + chunk * self.leading,
            Some(span) => group * self.stride + within * span + chunk * 16,
        })
    }

    /// Address of elements `8 chunk ..` along M or N of row `k` of an MN-major matrix.
    #[inline]
    pub(crate) fn mn_major(&self, k: u32, chunk: u32) -> u32 {
        let (group, within) = (k / 8, k % 8);
        self.at(match self.swizzle.span() {
            None => group * self.leading + within * 16 + chunk * self.stride,
            Some(span) => {
                let chunks = span / 16;
                group * self.stride + within * span + chunk % chunks * 16 + chunk / chunks * self.leading
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(start: u64, leading: u64, stride: u64, base: u64, mode: u64) -> Descriptor {
        let bits = start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | base << 49 | mode << 62;
        Descriptor::decode(bits).unwrap()
    }

    #[test]
    fn a_pattern_may_start_between_its_boundaries() {
        // Rows of 128 bytes from 0x180: with base offset 3 the pattern starts there, so that row r flips by r.
        let from_start = descriptor(0x180, 0, 1024, 3, 1);
        for row in 0..8 {
            assert_eq!(from_start.k_major(row, 0), 0x180 + 128 * row + 16 * row);
        }
        // Without it the address alone tells: row 0 lies in line 3.
        let by_address = descriptor(0x180, 0, 1024, 0, 1);
        assert_eq!(by_address.k_major(0, 0), 0x180 + 16 * 3);
        assert_eq!(by_address.k_major(5, 1), 0x180 + 128 * 5 + 16);
    }

    #[test]
    fn addresses_wrap_at_18_bits() {
        let high = descriptor((1 << 18) - 128, 0x3_fff0, 256, 0, 0);
        assert_eq!(high.k_major(8, 0), 128);
        assert_eq!(high.k_major(0, 1), (1 << 18) - 144);
        assert_eq!(high.mn_major(0, 1), 128);
    }

    #[test]
    fn reserved_bits_are_refused() {
        for bit in [14, 15, 30, 31, 46, 47, 48, 52, 53, 54, 60, 61] {
            let text = Descriptor::decode(1 << bit).unwrap_err();
            assert!(text.contains("reserved bits set"), "{bit}");
        }
        for bit in [0, 13, 16, 29, 32, 45, 49, 51, 62, 63] {
            assert!(Descriptor::decode(1 << bit).is_ok(), "{bit}");
        }
    }
}
