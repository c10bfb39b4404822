//! Tests of the crate from outside, as one program: each further one would be linked with the whole crate again.

mod approximations;
mod block_sparse;
mod block_sparse_races;
mod common;
mod counters;
mod diagnostics;
mod faults;
mod hopper;
mod instructions;
mod isa;
mod lanes;
mod mutations;
mod numerics;
mod races;
