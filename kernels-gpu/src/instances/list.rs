//! The one list of instances that are built, tested and shipped.

use super::{Instance, Kernel};
use crate::config::{Dtype, Work};

pub(super) const fn sparse(shape: [u32; 4], dtype: Dtype) -> Instance {
    Instance::attention(Kernel::AttentionSparse, shape, dtype)
}

pub(super) const fn dense(shape: [u32; 4], dtype: Dtype) -> Instance {
    Instance::attention(Kernel::AttentionDense, shape, dtype)
}

pub(super) const fn hopper_sparse(shape: [u32; 4], dtype: Dtype) -> Instance {
    Instance::hopper(Kernel::HopperSparse, shape, dtype)
}

pub(super) const fn hopper_dense(shape: [u32; 4], dtype: Dtype) -> Instance {
    Instance::hopper(Kernel::HopperDense, shape, dtype)
}

/// The instances that are built, tested and shipped: one line each.
///
/// As many blocks per multiprocessor as registers allow without spilling: ptxas says how many those are.
#[rustfmt::skip]
pub const INSTANCES: &[Instance] = &[
    //       m   n    d  stages
    sparse([64, 64,  64, 2], Dtype::Bf16).with_ctas(4),
    sparse([64, 64,  96, 2], Dtype::Bf16).with_ctas(3),
    sparse([64, 64, 128, 2], Dtype::Bf16).with_ctas(3),
    sparse([64, 64,  64, 2], Dtype::F16).with_ctas(4),
    sparse([64, 64,  96, 2], Dtype::F16).with_ctas(3),
    sparse([64, 64, 128, 2], Dtype::F16).with_ctas(3),
    // All the registers there are, and deeper copies in flight.
    sparse([64, 64,  64, 2], Dtype::Bf16),
    sparse([64, 64, 128, 2], Dtype::Bf16),
    sparse([64, 64,  64, 3], Dtype::Bf16).with_ctas(4),
    sparse([64, 32, 128, 4], Dtype::Bf16).with_ctas(3),
    sparse([64, 128, 64, 2], Dtype::Bf16).with_ctas(3),
    // Mask blocks of 32 tokens.
    sparse([32, 32,  64, 3], Dtype::Bf16).with_ctas(8),
    sparse([32, 32,  96, 3], Dtype::Bf16).with_ctas(5),
    sparse([32, 32, 128, 3], Dtype::Bf16).with_ctas(4),
    // Mask blocks of 128 tokens.
    sparse([128, 64,  64, 2], Dtype::Bf16).with_ctas(2),
    sparse([128, 64,  96, 2], Dtype::Bf16),
    sparse([128, 64, 128, 2], Dtype::Bf16),
    sparse([128, 64, 128, 2], Dtype::F16),
    // Corrections and exponentials saved.
    sparse([64, 64,  64, 2], Dtype::Bf16).with_ctas(4).with_slack(8).with_polynomials(1),

    dense([64, 64,  64, 2], Dtype::Bf16).with_ctas(4),
    dense([128, 64, 64, 3], Dtype::Bf16).with_ctas(2),
    dense([128, 64, 96, 2], Dtype::Bf16),
    dense([64, 64, 128, 2], Dtype::Bf16).with_ctas(3),
    dense([128, 64, 128, 2], Dtype::Bf16),
    dense([128, 64, 128, 2], Dtype::F16),

    // Hopper: one warpgroup, several blocks of threads a multiprocessor.
    hopper_sparse([64, 64,  64, 3], Dtype::Bf16).without_producer().with_ctas(3),
    hopper_sparse([64, 64, 128, 3], Dtype::Bf16).without_producer().with_ctas(2),
    hopper_sparse([64, 64,  64, 3], Dtype::F16).without_producer().with_ctas(3),
    hopper_sparse([64, 64, 128, 3], Dtype::F16).without_producer().with_ctas(2),
    // A warpgroup that loads, one to three that compute.
    hopper_sparse([ 64, 64,  64, 6], Dtype::Bf16).with_ctas(2),
    hopper_sparse([128, 64,  64, 6], Dtype::Bf16),
    hopper_sparse([192, 64,  64, 6], Dtype::Bf16),
    hopper_sparse([128, 64,  96, 6], Dtype::Bf16),
    hopper_sparse([ 64, 64, 128, 3], Dtype::Bf16).with_ctas(2),
    hopper_sparse([128, 64, 128, 6], Dtype::Bf16),
    hopper_sparse([192, 64, 128, 5], Dtype::Bf16),
    hopper_sparse([ 64, 64,  64, 6], Dtype::F16).with_ctas(2),
    hopper_sparse([128, 64,  64, 6], Dtype::F16),
    hopper_sparse([192, 64,  64, 6], Dtype::F16),
    hopper_sparse([128, 64,  96, 6], Dtype::F16),
    hopper_sparse([ 64, 64, 128, 3], Dtype::F16).with_ctas(2),
    hopper_sparse([128, 64, 128, 6], Dtype::F16),
    hopper_sparse([192, 64, 128, 5], Dtype::F16),
    // Mask blocks of 128 keys.
    hopper_sparse([128, 128,  64, 4], Dtype::Bf16),
    hopper_sparse([128, 128, 128, 2], Dtype::Bf16),
    // Corrections and exponentials saved.
    hopper_sparse([ 64, 64,  64, 3], Dtype::Bf16).without_producer().with_ctas(3).with_slack(8),
    hopper_sparse([128, 64,  64, 6], Dtype::Bf16).with_polynomials(1),
    hopper_sparse([192, 64,  64, 6], Dtype::F16).with_slack(8).with_polynomials(2),
    hopper_sparse([128, 64, 128, 6], Dtype::Bf16).with_slack(8),
    // As many blocks of threads as run at once.
    hopper_sparse([128, 64,  64, 6], Dtype::Bf16).with_work(Work::Stride),
    hopper_sparse([192, 64,  64, 6], Dtype::Bf16).with_work(Work::Listed),
    hopper_sparse([128, 64, 128, 6], Dtype::Bf16).with_slack(8).with_work(Work::Listed),
    // Turns at the tensor cores, and a value tile less than key tiles.
    hopper_sparse([128, 64,  64, 6], Dtype::Bf16).with_ping_pong(true),
    hopper_sparse([192, 64,  64, 6], Dtype::F16).with_value_stages(5).with_ping_pong(true),
    hopper_sparse([192, 64, 128, 6], Dtype::Bf16).with_value_stages(5),
    // Two key blocks in a tile.
    hopper_sparse([ 64, 128,  64, 3], Dtype::Bf16).without_producer().with_ctas(2).with_pairs(true),
    hopper_sparse([128, 128,  64, 4], Dtype::Bf16).with_pairs(true).with_work(Work::Listed),
    hopper_sparse([128, 128, 128, 3], Dtype::Bf16).with_pairs(true).with_slack(8).with_ping_pong(true),
    // Two blocks of threads that share what they load.
    hopper_sparse([128, 64,  64, 6], Dtype::F16).with_cluster(2).with_ping_pong(true).with_work(Work::Listed),
    hopper_sparse([128, 64, 128, 6], Dtype::Bf16).with_cluster(2),
    hopper_sparse([ 64, 128, 128, 2], Dtype::Bf16).with_cluster(2).with_pairs(true),

    hopper_dense([128, 128,  64, 4], Dtype::Bf16),
    hopper_dense([192, 64,   64, 6], Dtype::Bf16),
    hopper_dense([128, 128,  96, 3], Dtype::Bf16),
    hopper_dense([128, 128, 128, 2], Dtype::Bf16),
    hopper_dense([128, 128,  64, 4], Dtype::F16),
    hopper_dense([128, 128, 128, 2], Dtype::F16),
    hopper_dense([128, 128,  64, 4], Dtype::Bf16).with_slack(8).with_polynomials(1),
    hopper_dense([128, 128, 128, 2], Dtype::Bf16).with_slack(8).with_work(Work::Stride),
    hopper_dense([128, 128, 128, 2], Dtype::Bf16).with_slack(8).with_ping_pong(true),
    hopper_dense([128, 128, 128, 2], Dtype::Bf16).with_slack(8).with_ping_pong(true).with_cluster(2),
    hopper_dense([128, 128, 128, 2], Dtype::F16).with_cluster(2).with_work(Work::Stride),

    Instance::tokens(Kernel::AttentionPlain,  64, Dtype::Bf16),
    Instance::tokens(Kernel::AttentionPlain,  96, Dtype::Bf16),
    Instance::tokens(Kernel::AttentionPlain, 128, Dtype::Bf16),
    Instance::tokens(Kernel::AttentionPlain,  64, Dtype::F16),
    Instance::tokens(Kernel::AttentionPlain,  96, Dtype::F16),
    Instance::tokens(Kernel::AttentionPlain, 128, Dtype::F16),

    Instance::tokens(Kernel::ReorderPool,  64, Dtype::Bf16),
    Instance::tokens(Kernel::ReorderPool,  96, Dtype::Bf16),
    Instance::tokens(Kernel::ReorderPool, 128, Dtype::Bf16),
    Instance::tokens(Kernel::ReorderPool, 128, Dtype::F16),

    //              rows  key blocks  d
    Instance::select(8, 2048,  64).with_ctas(2),
    Instance::select(8, 2048,  96).with_ctas(2),
    Instance::select(8, 2048, 128).with_ctas(2),
    // Six rows: two blocks of threads fit a multiprocessor, of which one reads keys while the other looks at its rows.
    Instance::select(6, 4096, 128).with_ctas(2),
    Instance::select(4, 8192, 128),
];
