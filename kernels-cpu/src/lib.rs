//! NABLA block-sparse attention for the CPU.
//!
//! This crate owns the fast CPU implementations of the operator: pooling, pooled map and block selection
//! ([`mask`]), token reorder ([`reorder`]) and the attention forward pass ([`attention`]). It knows slices
//! and offsets only: problems, policies, files and timing live in `nabla-host`.
//!
//! Everything here works on *block order*: the tokens of a block are contiguous, and block `b` of a
//! sequence spans tokens `starts[b]..starts[b + 1]`. Blocks may be ragged anywhere, not only at the end.

pub mod attention;
pub mod element;
pub mod error;
pub mod executor;
pub mod isa;
pub mod mask;
pub mod peak;
mod queue;
pub mod reorder;
mod simd;

pub use attention::{AttentionArgs, BlockLists, Pattern, Shape, Tile, attention_forward, check_tile};
pub use element::Element;
pub use error::ArgumentError;
pub use executor::Executor;
pub use isa::Isa;
pub use peak::{bf16_dot_peak_gflops, fma_peak_gflops};
