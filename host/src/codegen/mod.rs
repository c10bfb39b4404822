//! Device code on demand: from the Rust sources of a kernel and its constants to PTX, in a fraction of a second.
//!
//! [`Toolchain::find`] finds a compiler; a [`Compiler`] builds `core` and the device crate's library once
//! and then any [`KernelUnit`], several at
//! once, into a [`cache`]; [`KernelCache`] reads a folder of prebuilt PTX on a machine without Rust;
//! [`KernelStore`] is what a backend asks, whichever of the two it is. Owns no kernel and launches none.

pub mod cache;
mod compile;
mod core_library;
mod cuda_tools;
mod device_library;
mod error;
mod kernel_cache;
mod launch_bounds;
pub mod listing;
pub mod occupancy;
mod ptxas;
mod rustc;
mod sources;
mod store;
mod toolchain;
mod unit;

pub use compile::{Built, Compiler};
pub use core_library::CoreLibraryError;
pub use cuda_tools::{CudaTool, MISSING as CUDA_TOOL_MISSING};
pub use error::BuildError;
pub use kernel_cache::{KernelCache, KernelCacheError, MANIFEST, Manifest, VariantRecord, open};
pub use launch_bounds::{LaunchBounds, LaunchBoundsError};
pub use ptxas::{PtxasError, Resources, assemble};
pub use sources::{Sources, SourcesError};
pub use store::KernelStore;
pub use toolchain::{DEVICE_RUSTC, Places, Toolchain, ToolchainError};
pub use unit::{KernelUnit, variant_id};

/// The list of kernels and what the host must know of each.
pub use nabla_kernels_gpu::instances;

/// The target that rustc compiles device code for.
const TARGET: &str = "nvptx64-nvidia-cuda";

/// Architectures that kernels are built for when none is named: what the portable kernels need, and Hopper.
pub const DEFAULT_ARCHS: [&str; 2] = ["sm_80", "sm_90a"];
