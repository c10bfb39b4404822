//! What a launch needs of each part of a GPU, and how often its units run.

use std::ops::{Add, Mul};

/// Demands on the parts of a GPU. All linear: those of a launch are the sum of those of its units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations of matrix products.
    pub tensor_flops: f64,
    /// Special functions, one a lane.
    pub special: f64,
    /// f32 operations, one a lane.
    pub fp32: f64,
    /// Instructions of warps.
    pub instructions: f64,
    /// Bytes that the banks of shared memory deliver or take: 128 for each wavefront, so that conflicts count.
    pub shared_bytes: f64,
    /// Bytes to and from the L2 cache.
    pub l2_bytes: f64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tensor_flops: self.tensor_flops + other.tensor_flops,
            special: self.special + other.special,
            fp32: self.fp32 + other.fp32,
            instructions: self.instructions + other.instructions,
            shared_bytes: self.shared_bytes + other.shared_bytes,
            l2_bytes: self.l2_bytes + other.l2_bytes,
        }
    }
}

impl Mul<f64> for Work {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self {
            tensor_flops: self.tensor_flops * times,
            special: self.special * times,
            fp32: self.fp32 * times,
            instructions: self.instructions * times,
            shared_bytes: self.shared_bytes * times,
            l2_bytes: self.l2_bytes * times,
        }
    }
}

/// How often the units of a launch run. Numbers, not integers: a mask of a density has an average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Extent {
    /// Blocks of threads.
    pub blocks: f64,
    /// Key tiles that blocks load. Several query tiles of a block share one.
    pub loads: f64,
    /// Products of a query tile with a key tile; for the selection, of its rows with 256 key blocks.
    pub tiles: f64,
}

/// What one of each unit needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UnitCosts {
    /// Of a block of threads, whatever its lists.
    pub block: Work,
    /// Of the load of a key tile, where several query tiles may share it; else it is part of `tile`.
    pub load: Work,
    /// Of a query tile and a key tile.
    pub tile: Work,
}

impl UnitCosts {
    /// Adds up a launch.
    pub fn total(&self, extent: &Extent) -> Work {
        self.block * extent.blocks + self.load * extent.loads + self.tile * extent.tiles
    }
}
