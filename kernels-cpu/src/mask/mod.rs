//! Mask building: block mean pooling, pooled map, threshold selection, list building.
//!
//! The order of the steps is [`pool_blocks`] for queries and keys, [`select_blocks`], [`expand_lists`]. The
//! pooled map itself never exists as a whole: a thread holds some rows of it at a time, and the bitmap is the
//! only output that grows with the square of the number of blocks.
//!
//! ```text
//! pooled_q, pooled_k -> panels of pooled_k          (map)
//!                       rows of scores              (map: 24 rows a tile, GEMM)
//!                       rows of exp(score - max)    (row: softmax)
//!                       rows of bits                (row: threshold, no sort)
//! bits               -> lists                       (lists)
//! ```

mod lists;
mod map;
pub(crate) mod pool;
mod row;
mod select;
#[cfg(test)]
mod tests;

pub use lists::expand_lists;
pub use pool::pool_blocks;
pub use select::{SelectArgs, select_blocks};

use crate::ArgumentError;

/// Checks the number of elements of the argument `name`.
fn check_len(name: &'static str, got: usize, expected: usize) -> Result<(), ArgumentError> {
    if got == expected { Ok(()) } else { Err(ArgumentError::Length { name, expected, got }) }
}

/// Checks that the argument `name` is at least 1.
fn check_positive(name: &'static str, got: usize) -> Result<(), ArgumentError> {
    if got > 0 {
        return Ok(());
    }
    Err(ArgumentError::Value { name, got: "0".into(), requirement: "at least 1 is needed".into() })
}

/// Returns how often `unit` elements fit into the argument `name`, which must be a whole number of times, at least
/// once.
fn check_multiple(name: &'static str, got: usize, unit: usize) -> Result<usize, ArgumentError> {
    if got > 0 && got.is_multiple_of(unit) {
        return Ok(got / unit);
    }
    Err(ArgumentError::Length { name, expected: got.div_ceil(unit).max(1) * unit, got })
}
