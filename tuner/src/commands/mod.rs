//! The commands, one a file.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod info;
pub(crate) mod kernels;
pub(crate) mod mask;
mod model;
pub(crate) mod policies;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sweep;
pub(crate) mod tune;
pub(crate) mod worker;
