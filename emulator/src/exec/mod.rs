//! Execution: one CTA at a time, its warps in turns, their lanes together.

mod access;
mod collective;
mod convert;
mod cta;
mod float;
mod integer;
mod lanes;
mod mma;
mod race;
mod schedule;
mod shared;
mod step;
pub(crate) mod tensor_core;
mod traffic;
mod warp;

pub(crate) use cta::{Cta, CtaFault, Grid};
pub(crate) use race::Launch;
