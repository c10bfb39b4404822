//! Tests over all crates, in one program: long ones run beside each other, and there is one to link. What compares times is apart.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod broken_inputs;
mod cli;
mod codegen;
mod cuda_driver;
mod emulated_kernels;
mod field_commands;
mod known_answers;
mod model;
mod properties;
mod resume;
mod selection;
mod sorted_heads;
