//! Calls of the device compiler: what those of the device crate's library and of its entry points have in common.

use std::{env, path::Path, process::Command};

use super::{TARGET, core_library::CoreLibrary, toolchain::Toolchain};

/// Options of every compilation for the device.
const COMMON: [&str; 11] = [
    "--edition=2024",
    "-Copt-level=3",
    "-Cpanic=abort",
    "-Ccodegen-units=1",
    "-Cembed-bitcode=yes",
    // Arrays of registers are indexed by loop counters: what is not unrolled ends up in local memory.
    "-Cllvm-args=--unroll-threshold=100000",
    "-Zunstable-options",
    // Reports of the emulator and profilers name source lines; code and the time to make it stay the same.
    "-Cdebuginfo=line-directives-only",
    "--cfg=nabla_device",
    "--color=never",
    "--error-format=human",
];

/// One of the two crates that make a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `lib.rs`: kernels generic over their constants. Parsed and checked once, not for each variant.
    Library,
    /// `entry.rs`: one kernel with one variant's constants. Little more than what makes code is left to do.
    Entry,
}

impl Part {
    /// Returns the root file.
    pub(super) fn root(self) -> &'static str {
        match self {
            Part::Library => "lib.rs",
            Part::Entry => "entry.rs",
        }
    }

    fn own_options(self) -> &'static [&'static str] {
        match self {
            Part::Library => &["--crate-name=nabla_kernels_gpu", "--crate-type=rlib"],
            Part::Entry => &["--crate-name=nabla_kernel", "--crate-type=cdylib", "-Clto=fat"],
        }
    }

    /// Lists the options of this part's compilations, for the keys of what they make.
    pub(super) fn options(self) -> impl Iterator<Item = &'static str> {
        COMMON.iter().chain(self.own_options()).copied()
    }

    /// Prepares a call, all but where its output goes.
    pub(super) fn rustc(
        self,
        toolchain: &Toolchain,
        source_folder: &Path,
        arch: &str,
        core: &CoreLibrary,
    ) -> Command {
        let mut command = Command::new(&toolchain.rustc);
        // Variables of the user's shell are no constants of this variant.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("NABLA_") {
                command.env_remove(name);
            }
        }
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .args(self.options())
            .arg(format!("--target={TARGET}"))
            .arg(format!("-Ctarget-cpu={arch}"))
            // Messages name the sources, not the cache they are compiled in.
            .arg(format!("--remap-path-prefix={}=kernels-gpu/src", source_folder.display()))
            .arg(format!("--extern=noprelude:core={}", core.core.display()))
            .arg(format!("--extern=noprelude:compiler_builtins={}", core.compiler_builtins.display()))
            .arg("-L")
            .arg(&core.folder)
            .arg(source_folder.join(self.root()));
        command
    }
}
