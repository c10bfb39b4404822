//! Tests of the crate from outside, as one program.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files has failed")]

mod read;
mod report;
mod synthetic;
mod tables;
mod tuning;
