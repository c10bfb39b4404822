//! Execution: one cluster at a time, the warps of its CTAs in turns, their lanes together.

mod access;
mod asynchronous;
mod bulk;
mod cluster;
mod collective;
mod complete;
mod convert;
mod cta;
mod descriptor;
mod events;
mod float;
mod hopper;
mod integer;
mod lanes;
mod mbarrier;
mod mma;
mod product;
mod shared;
mod step;
mod tile;
mod warp;
mod warpgroup;
mod wgmma;

pub(crate) use cluster::Cluster;
pub(crate) use cta::{CtaFault, Grid};
