//! NVIDIA's assembler and disassembler, if they are there.
//!
//! Neither is needed to make PTX: `ptxas` tells what a variant costs before a GPU does, `nvdisasm` shows what it
//! became. Owns where to look; `cargo xtask setup` puts both into `target/tools/cuda/bin`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// One of NVIDIA's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaTool {
    /// Where it is.
    pub program: PathBuf,
    /// Its release, such as `V13.5.37`.
    pub version: String,
}

impl CudaTool {
    /// Finds the assembler of PTX.
    pub fn ptxas() -> Option<Self> {
        Self::find_in("ptxas", &folders())
    }

    /// Finds the disassembler of what `ptxas` makes.
    pub fn nvdisasm() -> Option<Self> {
        Self::find_in("nvdisasm", &folders())
    }

    /// Finds a program in the first folder whose copy runs.
    fn find_in(name: &str, folders: &[PathBuf]) -> Option<Self> {
        let file = format!("{name}{}", env::consts::EXE_SUFFIX);
        folders.iter().map(|folder| folder.join(&file)).find_map(|program| {
            let version = version_of(&program)?;
            Some(Self { program, version })
        })
    }
}

/// Says what to do when a tool is not there.
pub const MISSING: &str =
    "not found in a CUDA toolkit (CUDA_HOME, PATH) or target/tools; run `cargo xtask setup`";

/// Lists the folders to look in: a toolkit of the user's choice, the path, the usual place, the project's own.
fn folders() -> Vec<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let mut folders: Vec<PathBuf> = homes.map(|home| Path::new(&home).join("bin")).collect();
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders.push("/usr/local/cuda/bin".into());
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/cuda/bin"));
    folders
}

/// Asks a program for its release; `None` when it is not there or does not run.
fn version_of(program: &Path) -> Option<String> {
    if !program.is_file() {
        return None;
    }
    let output = Command::new(program).arg("--version").output().ok()?;
    output.status.success().then(|| release(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads `V13.5.37` from the lines the programs print about themselves.
fn release(said: &str) -> String {
    let word = said.split([' ', ',', '\n']).find(|word| {
        word.strip_prefix('V').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    word.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_what_the_program_says() {
        let said = "ptxas: NVIDIA (R) Ptx optimizing assembler\nBuilt on Mon_Oct_12_19:25:48_PDT_2026\n\
                    Cuda compilation tools, release 13.5, V13.5.37\nBuild cuda_13.5.r13.5/compiler.39125733_0\n";
        assert_eq!(release(said), "V13.5.37");
        assert_eq!(release("Verbose nonsense"), "unknown");
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_that_does_not_run_is_passed_over() {
        use std::{fs, os::unix::fs::PermissionsExt as _};
        let root = tempfile::tempdir().unwrap();
        let folders = ["broken", "good"].map(|name| root.path().join(name));
        for (folder, script) in folders.iter().zip(["exit 1", "echo V1.2.3"]) {
            fs::create_dir_all(folder).unwrap();
            let path = folder.join("ptxas");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let found = CudaTool::find_in("ptxas", &folders).unwrap();
        assert_eq!((found.program, found.version.as_str()), (folders[1].join("ptxas"), "V1.2.3"));
        assert_eq!(CudaTool::find_in("nvdisasm", &folders), None);
    }
}
