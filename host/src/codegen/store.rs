//! Where a backend gets its kernels from: prebuilt PTX if there is a folder of it, else the compiler.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nabla_kernels_gpu::instances::Instance;

use super::{
    BuildError, Built, Compiler, KernelCache, KernelUnit, MANIFEST, Sources, Toolchain, cache::cache_dir,
    kernel_cache, variant_id,
};

/// A source of kernels.
#[derive(Debug)]
pub struct KernelStore {
    folder: PathBuf,
    prebuilt: Option<KernelCache>,
    /// Set up when the first variant is not prebuilt: a machine without Rust may never need it.
    compiler: OnceLock<Compiler>,
}

impl KernelStore {
    /// Opens the given folder, or the default cache. A folder with a manifest is one of prebuilt kernels.
    ///
    /// # Errors
    /// When it has a manifest that cannot be used.
    pub fn open(folder: Option<&Path>) -> Result<Self, BuildError> {
        let folder = cache_dir(folder);
        let prebuilt = match folder.join(MANIFEST).is_file() {
            true => Some(kernel_cache::open(&folder, Sources::built_in().hash())?),
            false => None,
        };
        Ok(Self { folder, prebuilt, compiler: OnceLock::new() })
    }

    /// Returns an instance of this project's kernels: prebuilt, from the cache, or compiled now.
    ///
    /// # Errors
    /// When its constants do not go together, and as [`KernelStore::get_unit`].
    pub fn get(&self, instance: &Instance, arch: &str) -> Result<Built, BuildError> {
        self.get_unit(&KernelUnit::of(instance)?, arch)
    }

    /// Returns a kernel: prebuilt, from the cache, or compiled now.
    ///
    /// # Errors
    /// When it is not prebuilt and there is no toolchain, or it does not build.
    pub fn get_unit(&self, unit: &KernelUnit, arch: &str) -> Result<Built, BuildError> {
        let Some(prebuilt) = &self.prebuilt else { return self.compiler()?.build_unit(unit, arch) };
        match prebuilt.get(&unit.id, arch) {
            Ok(built) => Ok(built),
            // Without a compiler, what is missing in the folder is what the user has to know.
            Err(missing @ kernel_cache::KernelCacheError::NoVariant { .. }) => match self.compiler() {
                Ok(compiler) => compiler.build_unit(unit, arch),
                Err(_) => Err(missing.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Says whether [`KernelStore::get`] has something to get an instance from: it is prebuilt, or there is a compiler and
    /// the architecture is one of its kernel.
    pub fn has(&self, instance: &Instance, arch: &str) -> bool {
        let prebuilt = self.prebuilt.as_ref().is_some_and(|folder| folder.has(&variant_id(instance), arch));
        prebuilt || (instance.kernel.arch().builds_for(arch).is_ok() && self.compiler().is_ok())
    }

    /// Says whether an instance is one to try: of a folder of prebuilt kernels those that it holds, else any.
    pub fn offers(&self, instance: &Instance, arch: &str) -> bool {
        self.prebuilt.as_ref().is_none_or(|folder| folder.has(&variant_id(instance), arch))
    }

    /// Returns a kernel if it is in the folder of prebuilt ones.
    pub fn prebuilt(&self, unit: &KernelUnit, arch: &str) -> Option<Built> {
        self.prebuilt.as_ref()?.get(&unit.id, arch).ok()
    }

    /// Returns the machine code of a variant that is prebuilt with it, for GPUs of exactly that architecture.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn machine_code(&self, built: &Built) -> Result<Option<Vec<u8>>, BuildError> {
        let Some(prebuilt) = &self.prebuilt else { return Ok(None) };
        Ok(prebuilt.machine_code(&built.id, &built.arch)?)
    }

    /// Says whether there is anything to get kernels from: a prebuilt folder, or a compiler.
    ///
    /// # Errors
    /// When there is neither.
    pub fn ready(&self) -> Result<(), BuildError> {
        if self.prebuilt.is_some() { Ok(()) } else { self.compiler().map(|_| ()) }
    }

    /// Returns the compiler, found at the first call.
    ///
    /// # Errors
    /// When there is no toolchain or the cache cannot be used.
    pub fn compiler(&self) -> Result<&Compiler, BuildError> {
        if let Some(compiler) = self.compiler.get() {
            return Ok(compiler);
        }
        let compiler = Compiler::with_sources(Toolchain::find()?, &self.folder, Sources::built_in())?;
        Ok(self.compiler.get_or_init(|| compiler))
    }
}
