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
mod order;
mod product;
mod race;
mod rare;
mod schedule;
mod shared;
mod step;
pub(crate) mod tensor_core;
mod tile;
mod traffic;
mod warp;
mod warpgroup;
mod wgmma;

pub(crate) use cluster::Cluster;
pub(crate) use cta::{CtaFault, Grid};
pub(crate) use race::Launch;
