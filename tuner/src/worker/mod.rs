//! Measuring in another process, so that a kernel that hangs or crashes costs one row and never the run.
//!
//! ```text
//! protocol  JSON lines: requests down, replies up
//! save      its results as a file
//! serve     the worker: answers requests with a backend of this process
//! process   the other end of the pipes: starts, asks with a deadline, kills
//! isolated  a bench over workers: finds whose fault a loss was, and goes on with a new one
//! limits    what a worker may take of the machine
//! ```
//!
//! The parent holds no device: whatever breaks one breaks a worker.

mod isolated;
mod limits;
mod process;
mod protocol;
mod save;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use isolated::{Isolated, Limits};
pub(crate) use limits::{confine, die_with_parent};
pub(crate) use process::{Gone, Start, Worker, interrupted, watch_for_interrupts};
pub(crate) use protocol::{Build, Errors, Hello, Opened, Reply, Request, Target, config_of, policy_files};
pub(crate) use serve::{Inputs, serve};
