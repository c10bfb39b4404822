//! Instructions against what the PTX ISA says of them.

mod cluster;
mod convert;
mod declarations;
mod elect;
mod float;
mod forms;
mod hopper;
mod integer;
mod mbarrier;
mod memory;
mod stmatrix;
mod tma;
mod warp;
mod wgmma;
