//! Spaces: axes with their values, constraints between them, and the points that satisfy all of those.
//!
//! A [`SpaceSpec`] says what a space is; [`SpaceSpec::enumerate`] makes the [`Space`] whose points are numbered.
//! Owns no measurement and no strategy.

mod axis;
mod enumerate;
mod error;
mod expression;
pub(crate) mod file;
mod points;
mod spec;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use axis::Axis;
pub(crate) use error::SpaceError;
pub(crate) use points::{Neighbourhood, PointId, Pruned, Space};
pub(crate) use spec::{Constraint, Limits, SpaceSpec};
pub(crate) use value::Value;
