//! Device kernels of NABLA block-sparse attention, and everything about them that is known before a launch.
//!
//! One source tree, compiled two ways:
//! - for the host, as an ordinary crate: [`config`], [`hopper`], [`instances`], [`layout`], [`panels`] and [`softmax`]
//!   are pure and tested there, and the host derives grid, threads and shared memory from the same functions the kernels use;
//! - for a GPU (`--cfg nabla_device`), once as a library that adds `kernels`, generic over their constants; and for each
//!   variant (`--cfg nabla_kernel="..."`) the crate `entry`, to PTX: it exports the one chosen kernel with the constants of
//!   one [`instances::Instance`], read from `NABLA_*` variables at compile time.
//!
//! Kernels use `core` alone. Inline assembly lives in `ptx` and nowhere else.
#![no_std]
#![cfg_attr(nabla_device, feature(abi_ptx, asm_experimental_arch, stdarch_nvptx))]

#[cfg(test)]
extern crate std;

pub mod config;
pub mod exponential;
pub mod hopper;
pub mod instances;
pub mod layout;
pub mod panels;
pub mod softmax;

// What kernels are made of, for the device alone.
#[cfg(nabla_device)]
pub mod kernels;
#[cfg(nabla_device)]
pub mod ptx;

// A crate of its own, compiled for each variant against this one; named here for rustfmt, which else would not find it.
#[cfg(any())]
mod entry;
