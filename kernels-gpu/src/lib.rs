//! Device kernels of NABLA block-sparse attention, and everything about them that is known before a launch.
//!
//! One source tree, compiled two ways:
//! - for the host, as an ordinary crate: [`config`], [`hopper`], [`instances`], [`layout`], [`panels`] and [`softmax`]
//!   are pure and tested there, and the host derives grid, threads and shared memory from the same functions the kernels use;
//! - for a GPU (`--cfg nabla_device`, `--cfg nabla_kernel="..."`), to PTX: `entry` exports the one chosen kernel with
//!   the constants of one [`instances::Instance`], read from `NABLA_*` variables at compile time.
//!
//! Kernels use `core` alone. Inline assembly lives in `ptx` and nowhere else.
#![no_std]
#![cfg_attr(nabla_device, feature(abi_ptx, asm_experimental_arch, stdarch_nvptx))]

#[cfg(test)]
extern crate std;

pub mod config;
pub mod hopper;
pub mod instances;
pub mod layout;
pub mod panels;
pub mod softmax;

#[cfg(nabla_device)]
mod entry;
#[cfg(nabla_device)]
#[allow(dead_code, reason = "a compilation exports one kernel, which uses a part of what kernels share")]
mod kernels;
#[cfg(nabla_device)]
#[allow(dead_code, reason = "a compilation exports one kernel, which uses some of the instructions")]
mod ptx;
