//! Loading vectors from the element types of tensors.

use half::{bf16, f16};

use super::Simd;

/// An element type that kernels load; outside this crate it cannot be named, which seals `Element`.
pub trait Storage: bytemuck::Pod {
    /// Whether two of them make a word for [`Simd::dot`].
    const PAIRS: bool;

    /// Loads and widens a vector.
    ///
    /// # Safety
    /// The CPU has the instruction set, and `p` points to `S::LANES` elements.
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
}

macro_rules! storage {
    ($($element:ty: $load:ident, pairs $pairs:literal;)*) => {$(
        impl Storage for $element {
            const PAIRS: bool = $pairs;
            #[inline(always)]
            unsafe fn load<S: Simd>(p: *const Self) -> S::V {
                // SAFETY: as the trait demands; `f16` and `bf16` are transparent u16.
                unsafe { S::$load(p.cast()) }
            }
        }
    )*};
}

storage! {
    f32: load, pairs false;
    f16: load_f16, pairs false;
    bf16: load_bf16, pairs true;
}
