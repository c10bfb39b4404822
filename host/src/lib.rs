//! Problems, block masks, references, error measures, tensors and backends of NABLA block-sparse attention.
//!
//! Data flows one way: a [`problem::Problem`] and its tensors, a mask policy, a [`block_mask::BlockMask`], a
//! variant of a kernel on a backend, a launch, a measurement. This crate never parses command lines, prints,
//! or writes records.

pub mod backend;
pub mod block_mask;
pub mod check;
pub mod codegen;
pub mod conditions;
pub mod cost;
pub mod error_measures;
pub mod generate;
pub mod io;
pub mod model;
pub mod parameters;
pub mod policy;
pub mod problem;
pub mod profile;
pub mod provenance;
pub mod reference;
pub mod tensor;
pub mod token_order;
pub mod variant;
pub mod verify;

pub use block_mask::BlockMask;
pub use policy::Policy;
pub use problem::{Dtype, Grid, ParseError, Problem};
