//! The program starts. That this package has a test of the program makes `cargo test --workspace` build it, for the
//! tests of `tests/` to run.

use std::process::Command;

#[test]
fn the_program_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_nabla")).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("cannot start the program: {error}"));
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), concat!("nabla ", env!("CARGO_PKG_VERSION")));
}
