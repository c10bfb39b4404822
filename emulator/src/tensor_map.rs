//! Tensor maps: the host's description of a tensor and of the box that one bulk copy moves, packed in 128 bytes.
//!
//! The limits are those of `cuTensorMapEncodeTiled` (CUDA driver API, tensor map object management). The bytes are this
//! crate's own: NVIDIA's encoding is opaque. A magic number and a checksum tell a map from anything else, so that a
//! kernel that is handed garbage is told so. What copies do with a map is in `exec/tile.rs`.

use crate::memory::DevicePtr;

/// Bytes of an encoded map.
pub(crate) const MAP_BYTES: usize = 128;
/// Alignment of a map in memory.
pub(crate) const MAP_ALIGN: u64 = 64;
const MAGIC: u64 = 0x6e61_626c_615f_746d;

/// Type of a tensor's elements, as `CUtensorMapDataType` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorElement {
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

const ELEMENTS: [TensorElement; 10] = [
    TensorElement::U8,
    TensorElement::U16,
    TensorElement::U32,
    TensorElement::I32,
    TensorElement::U64,
    TensorElement::I64,
    TensorElement::F16,
    TensorElement::Bf16,
    TensorElement::F32,
    TensorElement::F64,
];

impl TensorElement {
    /// Returns the size in bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Bits of the NaN that fills what lies outside the tensor.
    pub(crate) fn nan(self) -> u64 {
        match self {
            Self::F16 => 0x7fff,
            Self::Bf16 => 0x7fff,
            Self::F32 => 0x7fff_ffff,
            _ => 0x7fff_ffff_ffff_ffff,
        }
    }
}

/// How 16-byte chunks are permuted in shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// Not at all.
    #[default]
    None,
    /// Within spans of 32 bytes, repeating after 256.
    B32,
    /// Within spans of 64 bytes, repeating after 512.
    B64,
    /// Within spans of 128 bytes, repeating after 1024.
    B128,
}

impl Swizzle {
    /// Bytes of a span; `None` without swizzling.
    pub(crate) fn span(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::B32 => Some(32),
            Self::B64 => Some(64),
            Self::B128 => Some(128),
        }
    }

    /// Moves an address of shared memory: address bits 7 and up are added without carry to bits 4 and up.
    #[inline]
    pub(crate) fn apply(self, address: u32) -> u32 {
        let mask = match self {
            Self::None => return address,
            Self::B32 => 1,
            Self::B64 => 3,
            Self::B128 => 7,
        };
        address ^ (address >> 7 & mask) << 4
    }
}

/// What a copy writes for elements outside the tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutOfBounds {
    /// Zeros.
    #[default]
    Zero,
    /// NaN, for elements that are floats.
    Nan,
}

/// Describes a tensor in global memory and the box that a copy moves. Dimension 0 is the innermost.
///
/// ```
/// use nabla_emulator::{Memory, Param, TensorElement, TensorMap};
///
/// let mut memory = Memory::new();
/// let tensor = memory.alloc_from(&[0; 2048 * 64 * 2]);
/// // 2048 rows of 64 elements, copied 128 rows at a time.
/// let map = TensorMap::rows(TensorElement::Bf16, tensor, 2048, 64, [128, 64]);
/// let param = Param::Ptr(memory.alloc_from(&map.encode()?));
/// # let _ = param;
/// # Ok::<(), nabla_emulator::TensorMapError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Type of the elements.
    pub element: TensorElement,
    /// First element; a multiple of 16 bytes.
    pub address: DevicePtr,
    /// Elements along each of 1 to 5 dimensions.
    pub sizes: Vec<u64>,
    /// Bytes from one index to the next, for dimensions 1 and up: one fewer than `sizes`. Multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of the box along each dimension, 1 to 256.
    pub box_sizes: Vec<u32>,
    /// Every how many elements of the box are moved, 1 to 8 for each dimension.
    pub element_strides: Vec<u32>,
    /// Permutation in shared memory.
    pub swizzle: Swizzle,
    /// Fill outside the tensor.
    pub out_of_bounds: OutOfBounds,
}

/// Says which limit a tensor map breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(String);

impl TensorMap {
    /// Describes a dense row-major matrix and a box of `[rows, columns]` of it: swizzled by 128 bytes if the box is that
    /// wide, else by 64, 32 or not at all.
    pub fn rows(element: TensorElement, address: DevicePtr, rows: u64, columns: u64, tile: [u32; 2]) -> Self {
        let bytes = u64::from(element.bytes());
        let swizzle = match tile[1] * element.bytes() {
            128 => Swizzle::B128,
            64 => Swizzle::B64,
            32 => Swizzle::B32,
            _ => Swizzle::None,
        };
        Self {
            element,
            address,
            sizes: vec![columns, rows],
            strides: vec![columns * bytes],
            box_sizes: vec![tile[1], tile[0]],
            element_strides: vec![1, 1],
            swizzle,
            out_of_bounds: OutOfBounds::Zero,
        }
    }

    fn check(&self) -> Result<(), String> {
        let rank = self.sizes.len();
        if !(1..=5).contains(&rank) {
            return Err(format!("a tensor has 1 to 5 dimensions, not {rank}"));
        }
        let lengths = [self.strides.len() + 1, self.box_sizes.len(), self.element_strides.len()];
        if lengths.iter().any(|length| *length != rank) {
            return Err(format!(
                "{rank} sizes need {} strides, {rank} box sizes and {rank} element strides",
                rank - 1
            ));
        }
        if !self.address.address().is_multiple_of(16) {
            return Err(format!(
                "the tensor starts at {:#x}, which is no multiple of 16",
                self.address.address()
            ));
        }
        for (at, size) in self.sizes.iter().enumerate() {
            if *size == 0 || *size > 1 << 32 {
                return Err(format!("size {at} is {size}; it must be 1 to 2^32"));
            }
        }
        for (at, stride) in self.strides.iter().enumerate() {
            if !stride.is_multiple_of(16) || *stride >= 1 << 40 {
                return Err(format!(
                    "the stride of dimension {} is {stride} bytes; it must be a multiple of 16 below 2^40: pad the rows",
                    at + 1
                ));
            }
        }
        for (at, size) in self.box_sizes.iter().enumerate() {
            if !(1..=256).contains(size) {
                return Err(format!("box size {at} is {size}; it must be 1 to 256: split the box"));
            }
        }
        for (at, stride) in self.element_strides.iter().enumerate() {
            if !(1..=8).contains(stride) {
                return Err(format!("element stride {at} is {stride}; it must be 1 to 8"));
            }
        }
        let inner = self.box_sizes[0] * self.element.bytes();
        if !inner.is_multiple_of(16) {
            return Err(format!("the box is {inner} bytes wide; it must be a multiple of 16"));
        }
        if let Some(span) = self.swizzle.span()
            && inner > span
        {
            return Err(format!(
                "the box is {inner} bytes wide; swizzling by {span} bytes takes at most {span}: split the box"
            ));
        }
        if self.out_of_bounds == OutOfBounds::Nan && !self.element.is_float() {
            return Err(format!("{:?} has no NaN to fill with", self.element));
        }
        Ok(())
    }

    /// Checks the limits and packs the map. Put the bytes at a multiple of 64 in global memory.
    pub fn encode(&self) -> Result<[u8; 128], TensorMapError> {
        self.check().map_err(TensorMapError)?;
        let mut bytes = [0; MAP_BYTES];
        let mut put = |at: usize, value: u64, count: usize| {
            bytes[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
        };
        put(0, MAGIC, 8);
        put(8, self.address.address(), 8);
        let element = ELEMENTS.iter().position(|element| *element == self.element).unwrap_or(0);
        put(16, self.sizes.len() as u64, 1);
        put(17, element as u64, 1);
        put(18, self.swizzle as u64, 1);
        put(19, self.out_of_bounds as u64, 1);
        for (at, stride) in self.element_strides.iter().enumerate() {
            put(20 + at, u64::from(*stride), 1);
        }
        for (at, size) in self.sizes.iter().enumerate() {
            put(32 + 8 * at, *size, 8);
        }
        for (at, stride) in self.strides.iter().enumerate() {
            put(72 + 8 * at, *stride, 8);
        }
        for (at, size) in self.box_sizes.iter().enumerate() {
            // 256 does not fit a byte.
            put(104 + at, u64::from(*size - 1), 1);
        }
        let sum = checksum(&bytes);
        bytes[120..].copy_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }

    /// Unpacks a map; `None` for bytes that [`TensorMap::encode`] did not make.
    pub(crate) fn decode(bytes: &[u8; MAP_BYTES]) -> Option<Self> {
        let get = |at: usize, count: usize| {
            let mut value = [0; 8];
            value[..count].copy_from_slice(&bytes[at..at + count]);
            u64::from_le_bytes(value)
        };
        if get(0, 8) != MAGIC || get(120, 8) != checksum(bytes) {
            return None;
        }
        let rank = get(16, 1) as usize;
        let map = Self {
            element: *ELEMENTS.get(get(17, 1) as usize)?,
            address: DevicePtr::from_address(get(8, 8)),
            sizes: (0..rank.min(5)).map(|at| get(32 + 8 * at, 8)).collect(),
            strides: (0..rank.clamp(1, 5) - 1).map(|at| get(72 + 8 * at, 8)).collect(),
            box_sizes: (0..rank.min(5)).map(|at| get(104 + at, 1) as u32 + 1).collect(),
            element_strides: (0..rank.min(5)).map(|at| get(20 + at, 1) as u32).collect(),
            swizzle: match get(18, 1) {
                0 => Swizzle::None,
                1 => Swizzle::B32,
                2 => Swizzle::B64,
                _ => Swizzle::B128,
            },
            out_of_bounds: if get(19, 1) == 0 { OutOfBounds::Zero } else { OutOfBounds::Nan },
        };
        map.check().is_ok().then_some(map)
    }
}

/// FNV-1a over everything before the sum.
fn checksum(bytes: &[u8; MAP_BYTES]) -> u64 {
    bytes[..120]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap::rows(TensorElement::Bf16, DevicePtr::from_address(0x1000), 100, 64, [32, 64])
    }

    #[test]
    fn a_map_survives_its_encoding() {
        let five = TensorMap {
            element: TensorElement::F32,
            address: DevicePtr::from_address(0x7000_0000_0010),
            sizes: vec![9, 1 << 32, 3, 4, 5],
            strides: vec![48, 16, 32, (1 << 40) - 16],
            box_sizes: vec![8, 256, 1, 2, 3],
            element_strides: vec![1, 8, 2, 3, 4],
            swizzle: Swizzle::B32,
            out_of_bounds: OutOfBounds::Nan,
        };
        for map in [map(), five] {
            assert_eq!(TensorMap::decode(&map.encode().unwrap()), Some(map));
        }
    }

    #[test]
    fn a_damaged_map_is_none() {
        let bytes = map().encode().unwrap();
        for at in 0..MAP_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 4;
            assert_eq!(TensorMap::decode(&damaged), None, "byte {at}");
        }
        assert_eq!(TensorMap::decode(&[0; MAP_BYTES]), None);
    }

    #[test]
    fn each_limit_is_checked() {
        type Change = fn(&mut TensorMap);
        let cases: [(Change, &str); 11] = [
            (|map| map.sizes.clear(), "1 to 5 dimensions"),
            (|map| map.strides.clear(), "need 1 strides"),
            (|map| map.address = DevicePtr::from_address(8), "no multiple of 16"),
            (|map| map.sizes[1] = 0, "size 1 is 0"),
            (|map| map.strides[0] = 120, "the stride of dimension 1 is 120"),
            (|map| map.strides[0] = 1 << 40, "below 2^40"),
            (|map| map.box_sizes[1] = 257, "box size 1 is 257"),
            (|map| map.element_strides[0] = 9, "element stride 0 is 9"),
            (|map| map.box_sizes[0] = 12, "24 bytes wide; it must be a multiple of 16"),
            (|map| map.swizzle = Swizzle::B64, "at most 64"),
            (|map| (map.element, map.out_of_bounds) = (TensorElement::U16, OutOfBounds::Nan), "no NaN"),
        ];
        for (change, says) in cases {
            let mut map = map();
            change(&mut map);
            let error = map.encode().unwrap_err().to_string();
            assert!(error.contains(says), "no `{says}` in `{error}`");
        }
    }
}
