//! Tests of the crate from outside, as one program.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files has failed")]

mod assets;
mod collection;
mod images;
mod read;
mod report;
mod synthetic;
mod synthetic_tuning;
mod tables;
mod text;
mod tuning;
