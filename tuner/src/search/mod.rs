//! Searching a space of configurations for the cheapest: spaces, strategies, and replays of finished measurements.
//!
//! Owns no device, no clock and no file but those of [`space::file`] and [`replay`]: whoever can say what a point
//! costs can tune anything with it.

pub(crate) mod replay;
pub(crate) mod space;
pub(crate) mod strategy;
