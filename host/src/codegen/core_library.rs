//! `core` and `compiler_builtins` for the device: compiled once for each toolchain and architecture.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{
    TARGET,
    cache::{Cache, CacheError, Key},
    toolchain::Toolchain,
};

/// The libraries wanted, as cargo names the crates.
const LIBRARIES: [&str; 2] = ["core", "compiler_builtins"];

const MANIFEST: &str = "\
[package]
name = \"device-core\"
version = \"0.0.0\"
edition = \"2021\"

[lib]
path = \"lib.rs\"

[workspace]
";

/// The two libraries in a folder that holds nothing else: two `core` in one would collide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CoreLibrary {
    pub(super) folder: PathBuf,
    pub(super) core: PathBuf,
    pub(super) compiler_builtins: PathBuf,
}

/// Libraries that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum CoreLibraryError {
    /// Cargo failed.
    #[error("cannot build `core` for {arch} with {toolchain}:\n{message}")]
    Cargo {
        /// Architecture.
        arch: String,
        /// Version of the compiler.
        toolchain: String,
        /// Cargo's own words.
        message: String,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl CoreLibrary {
    /// Returns the libraries from the cache, built first if they are not there: about half a minute, once.
    pub(super) fn find_or_build(
        toolchain: &Toolchain,
        arch: &str,
        cache: &Cache,
    ) -> Result<Self, CoreLibraryError> {
        let key = Key::new("core").with(&toolchain.identity).with(arch).finish();
        let failed = |message: String| CoreLibraryError::Cargo {
            arch: arch.to_owned(),
            toolchain: toolchain.version.clone(),
            message,
        };
        let folder = cache.folder(&["core", &format!("{arch}-{key}")], |draft| {
            let scratch = cache.scratch()?;
            build(toolchain, arch, scratch.path(), draft).map_err(failed)
        })?;
        let [core, compiler_builtins] = LIBRARIES.map(|name| folder.join(format!("lib{name}.rlib")));
        Ok(Self { folder, core, compiler_builtins })
    }
}

/// Lets cargo build an empty crate for the target, and copies the two libraries it needed into `out`.
fn build(toolchain: &Toolchain, arch: &str, scratch: &Path, out: &Path) -> Result<(), String> {
    let write = |name: &str, text: &str| fs::write(scratch.join(name), text);
    write("Cargo.toml", MANIFEST)
        .and_then(|()| write("lib.rs", "#![no_std]\n"))
        .map_err(|e| e.to_string())?;
    // The library sources bring what they depend on along, or cargo has it from before: the network is asked last.
    let mut output = run(toolchain, arch, scratch, true).map_err(|e| e.to_string())?;
    if !output.status.success() {
        output = run(toolchain, arch, scratch, false).map_err(|e| e.to_string())?;
    }
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let built = scratch.join("target").join(TARGET).join("release/deps");
    for name in LIBRARIES {
        let library = find_library(&built, name).map_err(|e| format!("{}: {e}", built.display()))?;
        fs::copy(&library, out.join(format!("lib{name}.rlib")))
            .map_err(|e| format!("cannot copy {}: {e}", library.display()))?;
    }
    Ok(())
}

fn run(toolchain: &Toolchain, arch: &str, scratch: &Path, offline: bool) -> io::Result<Output> {
    let mut command = Command::new(&toolchain.cargo);
    command.current_dir(scratch).args(["build", "--release", "-Zbuild-std=core", "--target", TARGET]);
    command.arg("--target-dir").arg(scratch.join("target"));
    if offline {
        command.arg("--offline");
    }
    // What a cargo around this process has set is meant for the host.
    for name in ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            // PTX names source lines, and is the same wherever the toolchain lies.
            format!(
                "-Ctarget-cpu={arch}\x1f--remap-path-prefix={}=library\x1f--remap-path-prefix={}=library",
                toolchain.library.display(),
                fs::canonicalize(&toolchain.library).unwrap_or_else(|_| toolchain.library.clone()).display(),
            ),
        )
        .output()
}

/// Finds `lib<name>-<hash>.rlib`.
fn find_library(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let prefix = format!("lib{name}-");
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        if file.starts_with(&prefix) && file.ends_with(".rlib") {
            return Ok(path);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("cargo made no {prefix}*.rlib")))
}
