//! The nabla program.
fn main() {}
