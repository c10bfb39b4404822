//! A static performance model: what a launch needs of each part of a GPU, and the time that part takes at its published
//! rate.
//!
//! ```text
//! constants of a kernel ─ analytic ─┐                       machine: rates, clock
//!                                   ├─► costs of a block, a ─┬─► seconds of each part ─► limiter
//! counts of three launches ── fit ──┘   load and a tile      │
//!                                          problem, mask ────┘
//! ```
//! Owns predictions, not measurements: a launch takes at least as long as its slowest part. What it leaves out is
//! [`LEFT_OUT`]. `launches` asks a backend to run launches; all else is arithmetic.

mod analytic;
mod fit;
mod launches;
mod machine;
mod predict;
mod work;

pub use analytic::analytic;
pub use fit::{Fit, FitError, Sample, fit};
pub use launches::{ModelError, measure};
pub use machine::{MACHINES, Machine};
pub use predict::{LEFT_OUT, MaskLoad, Part, Prediction, clocks, cost, extent, predict};
pub use work::{Extent, UnitCosts, Work};

#[cfg(test)]
mod tests;
