//! What the integration tests share: the bundled clip, the program, small problems.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, OnceLock},
};

use nabla_host::{
    Dtype, Grid,
    backend::{CpuBackend, CpuOptions, Isa},
    generate::{GenerateSpec, generate_video},
    io::{ReadOptions, read_qkv},
    tensor::Qkv,
};

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns a file of the bundled data.
pub fn data(name: &str) -> PathBuf {
    root().join("data").join(name)
}

/// Reads the bundled clip.
///
/// # Panics
/// When it cannot be read: the tests have nothing to work on then.
pub fn clip() -> Arc<Qkv> {
    let path = data("bbb_t4h32w32_n2d64.safetensors");
    Arc::new(read_qkv(&path, &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}")))
}

/// Makes a small seeded problem.
///
/// # Panics
/// When the sizes are no valid problem.
pub fn generated(grid: Grid, heads: usize, head_dim: usize, dtype: Dtype, seed: u64) -> Arc<Qkv> {
    let spec: GenerateSpec =
        format!("video:{grid},{heads},{head_dim},{dtype}").parse().unwrap_or_else(|e| panic!("{e}"));
    Arc::new(generate_video(&spec, seed))
}

/// Starts a CPU backend on two threads.
///
/// # Panics
/// When the CPU lacks the instruction set.
pub fn cpu(isa: Isa) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: Some(2), isa: Some(isa), pin: false })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Names the program to test, where whoever runs the tests has built it: all of the workspace's tests at once build it with
/// other features of what it depends on than a build of its own, which would compile half of the workspace again.
const BUILT_PROGRAM: &str = "NABLA_TEST_PROGRAM";

/// Returns a command of the freshly built `nabla` program, to which a GPU of this machine is invisible: without
/// `--backend` it takes the CPU everywhere.
///
/// # Panics
/// When it does not build.
pub fn nabla() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        if let Some(program) = std::env::var_os(BUILT_PROGRAM) {
            return PathBuf::from(program);
        }
        // The program belongs to another package: cargo is asked to bring it up to date rather than guessed at.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "nabla-tuner", "--message-format", "json"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build.current_dir(root()).output().unwrap_or_else(|e| panic!("cannot run cargo: {e}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let messages = String::from_utf8_lossy(&output.stdout);
        let path = messages.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            (message["target"]["name"] == "nabla")
                .then(|| message["executable"].as_str().map(PathBuf::from))?
        });
        path.unwrap_or_else(|| panic!("cargo built no program named nabla"))
    });
    let mut command = Command::new(program);
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}
