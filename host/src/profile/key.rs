//! What an entry is for.

use serde::{Deserialize, Serialize};

use crate::{BlockMask, Dtype, Problem, backend::DeviceIdentity, variant::MaskBlock};

/// Upper ends of the density buckets but the last.
const DENSITIES: [f64; 6] = [0.05, 0.1, 0.2, 0.35, 0.5, 0.75];
/// Upper ends of the overlap buckets but the last.
const OVERLAPS: [f64; 2] = [1.0 / 3.0, 2.0 / 3.0];

/// Where a configuration was tuned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `cpu` or `cuda`.
    pub backend: String,
    /// Model name.
    pub model: String,
    /// Instruction set or architecture.
    pub architecture: String,
    /// Threads of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
}

impl Device {
    /// Makes it from what a backend says of itself.
    pub fn of(device: &DeviceIdentity) -> Self {
        Self {
            backend: device.backend.to_owned(),
            model: device.name.clone(),
            architecture: device.isa.clone(),
            threads: device.threads.map(|n| n as u64),
        }
    }
}

/// A problem as profiles see it, with its numbers as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Element type.
    pub dtype: Dtype,
    /// Elements per token and head.
    pub head_dim: u64,
    /// Queries per mask block; 0 for dense.
    pub q_block: u64,
    /// Keys per mask block; 0 for dense.
    pub kv_block: u64,
    /// Tokens per head.
    pub seqlen: u64,
    /// Kept blocks over all blocks; 1 for dense.
    pub density: f64,
    /// What neighbouring rows of the mask have in common, [`BlockMask::neighbour_overlap`]; 1 for dense.
    pub overlap: f64,
}

impl Shape {
    /// Describes a problem and its mask; `None` for dense.
    pub fn of(problem: &Problem, mask: Option<(MaskBlock, &BlockMask)>) -> Self {
        let block = mask.map_or(MaskBlock { q_block: 0, kv_block: 0 }, |(block, _)| block);
        Self {
            dtype: problem.dtype,
            head_dim: problem.head_dim as u64,
            q_block: block.q_block as u64,
            kv_block: block.kv_block as u64,
            seqlen: problem.seqlen_q as u64,
            density: mask.map_or(1.0, |(_, mask)| mask.density()),
            overlap: mask.map_or(1.0, |(_, mask)| mask.neighbour_overlap()),
        }
    }

    /// Returns the key of the shape on a device.
    pub fn key(&self, device: &Device) -> Key {
        let bucket = |value: f64, ends: &[f64]| ends.iter().take_while(|end| value > **end).count() as u64;
        Key {
            device: device.clone(),
            dtype: self.dtype.name().to_owned(),
            head_dim: self.head_dim,
            q_block: self.q_block,
            kv_block: self.kv_block,
            seqlen_bucket: u64::from(self.seqlen.max(1).ilog2()),
            density_bucket: bucket(self.density, &DENSITIES),
            overlap_bucket: bucket(self.overlap, &OVERLAPS),
        }
    }
}

/// What must agree for an entry to be exact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Where.
    pub device: Device,
    /// Element type.
    pub dtype: String,
    /// Elements per token and head.
    pub head_dim: u64,
    /// Queries per mask block; 0 for dense.
    pub q_block: u64,
    /// Keys per mask block; 0 for dense.
    pub kv_block: u64,
    /// Tokens per head from 2^n and below 2^(n + 1).
    pub seqlen_bucket: u64,
    /// Density up to 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1: their numbers from 0.
    pub density_bucket: u64,
    /// Overlap up to a third, two thirds, 1: their numbers from 0.
    pub overlap_bucket: u64,
}

impl Key {
    /// Says whether two keys differ in their device alone.
    pub(super) fn same_shape(&self, other: &Self) -> bool {
        Self { device: other.device.clone(), ..self.clone() } == *other
    }

    /// Says whether a kernel for one may run on the other at all: type, head dimension and mask block agree.
    pub(super) fn same_kind(&self, other: &Self) -> bool {
        (&self.dtype, self.head_dim, self.q_block, self.kv_block)
            == (&other.dtype, other.head_dim, other.q_block, other.kv_block)
    }
}
