//! Element types of queries, keys and values.

use half::{bf16, f16};

use crate::simd::Storage;

/// A storage type of Q, K and V. Arithmetic accumulates in f32 whatever the storage.
pub trait Element: bytemuck::Pod + Send + Sync + Storage {
    /// Widens to f32; exact for every element type.
    fn to_f32(self) -> f32;
    /// Rounds an f32 to the nearest representable value.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}
