//! Backends whose kernels are the listed instances, each of which can be run by itself: what a check needs.

use std::{collections::BTreeMap, sync::Arc};

use nabla_kernels_gpu::instances::Instance;

use super::{Backend, BackendError, Orders, Pattern, Workspace};
use crate::{tensor::Qkv, variant::Ineligible};

/// A backend that runs instances of the device kernels.
pub trait KernelBackend: Backend {
    /// Says whether there is anything to get kernels from: a prebuilt folder, or a compiler for device code.
    ///
    /// # Errors
    /// [`BackendError::Build`] when there is neither.
    fn kernels_ready(&self) -> Result<(), BackendError>;

    /// Says whether the device has what an instance needs.
    ///
    /// # Errors
    /// What it has not.
    fn fits(&self, instance: &Instance) -> Result<(), Ineligible>;

    /// Returns the code of an instance as the device would run it, and the architecture it is for.
    ///
    /// # Errors
    /// When it cannot be had.
    fn code(&self, instance: &Instance) -> Result<InstanceCode, BackendError>;

    /// Runs other code in the place of an instance's from now on. Its entry and parameters have to be the same.
    ///
    /// # Errors
    /// When the device refuses it.
    fn substitute(&self, instance: &Instance, ptx: &str) -> Result<(), BackendError>;

    /// Puts tensors on the device as [`Backend::load`] does.
    ///
    /// # Errors
    /// Those of [`Backend::load`].
    fn open(&self, qkv: Arc<Qkv>, orders: Arc<Orders>)
    -> Result<Box<dyn KernelWorkspace + '_>, BackendError>;
}

/// Tensors on a device, and any instance of a kernel run on them.
pub trait KernelWorkspace: Workspace {
    /// Computes attention with one instance into the output buffers and returns microseconds.
    ///
    /// # Errors
    /// When it is not an instance of a kernel for the pattern, or the launch fails.
    fn attention_of(&mut self, instance: &Instance, pattern: &Pattern) -> Result<f64, BackendError>;

    /// Reorders and pools queries and keys with one instance and fetches what it wrote.
    ///
    /// # Errors
    /// When it is not an instance of that kernel, or the launch fails.
    fn reorder_of(&mut self, instance: &Instance) -> Result<Reordered, BackendError>;

    /// Selects blocks from the pooled queries and keys with one instance and fetches what it wrote.
    ///
    /// # Errors
    /// When it is not an instance of that kernel, or the launch fails.
    fn select_of(&mut self, instance: &Instance, rule: &SelectionRule<'_>) -> Result<Selected, BackendError>;

    /// Hands over what the launches since the last call counted, in their order; empty on a device that counts nothing.
    fn take_counts(&mut self) -> Vec<LaunchCounts>;
}

/// A compiled instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceCode {
    /// PTX.
    pub ptx: String,
    /// Architecture it was compiled for, such as `sm_80`.
    pub arch: String,
}

/// What one launch executed. Counts, not times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchCounts {
    /// Name of the variant.
    pub variant: String,
    /// Counts by name.
    pub counts: BTreeMap<String, u64>,
}

/// Tokens in block order, and the mean of each block.
#[derive(Debug, Clone, PartialEq)]
pub struct Reordered {
    /// Queries in the storage type, `[batch_heads, seqlen_q, head_dim]`.
    pub q: Vec<u8>,
    /// Means of query blocks, `[batch_heads, q_blocks, head_dim]`.
    pub pooled_q: Vec<f32>,
    /// Keys in the storage type, `[batch_heads, seqlen_k, head_dim]`.
    pub k: Vec<u8>,
    /// Means of key blocks, `[batch_heads, kv_blocks, head_dim]`.
    pub pooled_k: Vec<f32>,
}

/// Which blocks a selection keeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct SelectionRule<'a> {
    /// Share of the pooled attention to keep; `None` selects nothing by threshold.
    pub mass: Option<f64>,
    /// Blocks kept in any case: a bit each, `[q_blocks, ceil(kv_blocks / 64)]`.
    pub always: Option<&'a [u64]>,
    /// Blocks that may be kept at all, the same layout; `None` is every block. The threshold is over them alone, as for the
    /// documents of packed sequences: not what a policy's intersection is.
    pub allowed: Option<&'a [u64]>,
}

/// What a selection wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// A bit for each block, `[batch_heads, q_blocks, ceil(kv_blocks / 64)]`.
    pub bitmap: Vec<u64>,
    /// Blocks of each row, `[batch_heads, q_blocks]`.
    pub counts: Vec<i32>,
    /// Lists, `[batch_heads, q_blocks, kv_blocks]`; -1 where nothing was written.
    pub indices: Vec<i32>,
    /// What it took, pooling included where a threshold is asked for.
    pub time_us: f64,
}
