//! Records in; CSV, plots and a one-file HTML report out.
//!
//! This crate owns the stored form of a trial and everything drawn from it. It never touches a device and
//! depends on no other crate of the workspace: whoever has a `records.jsonl` can report on it anywhere.

pub mod record;

pub use record::{Identity, Line, Protocol, Record, RunHeader, SCHEMA_VERSION, Status};
