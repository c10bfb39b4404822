//! Element types of queries, keys and values.

use half::{bf16, f16};

use crate::attention::{self, AttentionArgs};
use crate::executor::Executor;
use crate::mask;
use crate::simd::Storage;

/// A storage type of Q, K and V. Arithmetic accumulates in f32 whatever the storage.
pub trait Element: bytemuck::Pod + Send + Sync + Storage {
    /// Widens to f32; exact for every element type.
    fn to_f32(self) -> f32;
    /// Rounds an f32 to the nearest representable value.
    fn from_f32(value: f32) -> Self;
    /// Runs a launch whose arguments have been checked. As a function of each type and not of any, it is compiled with this
    /// crate and at its level of optimisation, not with every crate that calls it.
    #[doc(hidden)]
    fn launch(executor: &Executor, args: &AttentionArgs<'_, Self>, out: &mut [f32], lse: &mut [f32]);
    /// Averages blocks whose sizes have been checked; compiled here as [`Element::launch`].
    #[doc(hidden)]
    fn pool(executor: &Executor, x: &[Self], head_dim: usize, starts: &[u32], pooled: &mut [f32]);
}

/// What is compiled for each type.
macro_rules! compiled_here {
    () => {
        fn launch(executor: &Executor, args: &AttentionArgs<'_, Self>, out: &mut [f32], lse: &mut [f32]) {
            attention::launch::launch(executor, args, out, lse);
        }
        fn pool(executor: &Executor, x: &[Self], head_dim: usize, starts: &[u32], pooled: &mut [f32]) {
            mask::pool::pool(executor, x, head_dim, starts, pooled);
        }
    };
}

impl Element for f32 {
    compiled_here!();
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
    compiled_here!();
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
    compiled_here!();
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}
