//! The device crate but for its entry points: compiled once for each state of the sources, toolchain and architecture.
//!
//! Kernels are generic over their constants, so that this holds no machine code of theirs: it spares variants the reading
//! and checking of the sources, which takes longer than making code.

use std::path::{Path, PathBuf};

use super::{
    BuildError, Sources, cache::Cache, cache::Key, core_library::CoreLibrary, rustc::Part,
    toolchain::Toolchain,
};

/// What an entry point is compiled against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceLibrary {
    pub(super) core: CoreLibrary,
    pub(super) folder: PathBuf,
    pub(super) rlib: PathBuf,
}

impl DeviceLibrary {
    /// Returns the library from the cache, compiled first if it is not there: less than a second.
    ///
    /// # Errors
    /// When `core` cannot be built, or the sources do not compile.
    pub(super) fn find_or_build(
        toolchain: &Toolchain,
        sources: &Sources,
        source_folder: &Path,
        arch: &str,
        cache: &Cache,
    ) -> Result<Self, BuildError> {
        let core = CoreLibrary::find_or_build(toolchain, arch, cache)?;
        let key = Key::new("library").with(sources.hash()).with(&toolchain.identity).with(arch);
        let key = Part::Library.options().fold(key, Key::with).finish();
        let failed = |message: String| BuildError::Library { arch: arch.to_owned(), message };
        let folder = cache.folder(&["libraries", &format!("{arch}-{key}")], |draft| {
            let output = Part::Library
                .rustc(toolchain, source_folder, arch, &core)
                .arg("-o")
                .arg(draft.join(FILE))
                .current_dir(draft)
                .output()
                .map_err(|error| failed(format!("cannot run {}: {error}", toolchain.rustc.display())))?;
            match output.status.success() {
                true => Ok(()),
                false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            }
        })?;
        let rlib = folder.join(FILE);
        Ok(Self { core, folder, rlib })
    }
}

const FILE: &str = "libnabla_kernels_gpu.rlib";
