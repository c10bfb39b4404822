//! Compiles variants: rustc alone, launch bounds, the assembler's verdict; each kept in the cache.

use std::{
    fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Instant,
};

use nabla_kernels_gpu::instances::Instance;
use rayon::prelude::*;

use super::{
    BuildError, KernelUnit, Sources, Toolchain, VariantRecord,
    cache::{Cache, Key},
    cuda_tools::CudaTool,
    device_library::DeviceLibrary,
    kernel_cache::ptx_hash,
    ptxas,
    rustc::Part,
    unit::check_arch,
};

/// A built variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// What is known of it: id, architecture, resources, seconds it took; its fields are this type's, too.
    pub record: VariantRecord,
    /// The PTX, with launch bounds.
    pub ptx: String,
    /// Where it is kept.
    pub ptx_path: PathBuf,
    /// Whether it was there already.
    pub cached: bool,
    /// The machine code that the assembler makes of the PTX (an ELF image), where it was asked for: see
    /// [`Compiler::with_machine_code`]. A folder of prebuilt kernels reads it on request.
    pub cubin: Option<Vec<u8>>,
}

impl Built {
    pub(super) fn new(record: VariantRecord, ptx: String, ptx_path: PathBuf, cached: bool) -> Self {
        Self { record, ptx, ptx_path, cached, cubin: None }
    }
}

impl Deref for Built {
    type Target = VariantRecord;

    fn deref(&self) -> &VariantRecord {
        &self.record
    }
}

/// Compiles kernels of one device crate with one toolchain into one cache. May be shared between threads.
#[derive(Debug)]
pub struct Compiler {
    toolchain: Toolchain,
    cache: Cache,
    sources: Sources,
    /// Where the cache has the sources.
    source_folder: PathBuf,
    ptxas: Option<CudaTool>,
    /// Libraries by architecture, looked up once.
    libraries: Mutex<Vec<(String, DeviceLibrary)>>,
}

impl Compiler {
    /// Sets up a compiler of the device crate in a folder.
    ///
    /// # Errors
    /// When the folder is no crate or the cache cannot be used.
    pub fn new(
        toolchain: Toolchain,
        cache_dir: &Path,
        kernels_source_dir: &Path,
    ) -> Result<Self, BuildError> {
        Self::with_sources(toolchain, cache_dir, Sources::read(kernels_source_dir)?)
    }

    /// Sets up a compiler of given sources.
    ///
    /// # Errors
    /// When the cache cannot be used.
    pub fn with_sources(
        toolchain: Toolchain,
        cache_dir: &Path,
        sources: Sources,
    ) -> Result<Self, BuildError> {
        let cache = Cache::open(cache_dir)?;
        let source_folder = sources.put_into(&cache)?;
        let (ptxas, libraries) = (CudaTool::ptxas(), Mutex::default());
        Ok(Self { toolchain, cache, sources, source_folder, ptxas, libraries })
    }

    /// Returns the toolchain.
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// Returns the sources.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Returns the assembler, if there is one.
    pub fn ptxas(&self) -> Option<&CudaTool> {
        self.ptxas.as_ref()
    }

    /// Returns the cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Builds what all variants of an architecture share (`core`, the device crate's library) unless it is there; the
    /// first variant would otherwise take that time.
    ///
    /// # Errors
    /// When the architecture is none, cargo fails, or the device crate does not compile.
    pub fn prepare(&self, arch: &str) -> Result<(), BuildError> {
        self.library(arch).map(drop)
    }

    /// Builds an instance of this project's kernels for an architecture such as `sm_80`, or takes it from the cache.
    ///
    /// # Errors
    /// When its constants do not go together, and as [`Compiler::build_unit`].
    pub fn build(&self, instance: &Instance, arch: &str) -> Result<Built, BuildError> {
        self.build_unit(&KernelUnit::of(instance)?, arch)
    }

    /// Builds a kernel, or takes it from the cache.
    ///
    /// # Errors
    /// When it is not for this architecture, does not compile, or the assembler refuses it or reports spills, local memory or lost performance
    /// that the unit does not allow.
    pub fn build_unit(&self, unit: &KernelUnit, arch: &str) -> Result<Built, BuildError> {
        unit.check()?;
        check_arch(arch)?;
        unit.builds_for(arch)?;
        let name = format!("{}-{}", unit.id, &self.key(unit, arch)[..16]);
        let folder = self.cache.path(&["kernels", arch]);
        let (ptx_path, record_path) =
            (folder.join(format!("{name}.ptx")), folder.join(format!("{name}.json")));
        let (mut record, ptx, cached) = match self.cached(&ptx_path, &record_path) {
            Some((record, ptx)) => (record, ptx, true),
            None => {
                let (record, ptx) = self.compile(unit, arch)?;
                (record, ptx, false)
            }
        };
        let release = self.ptxas.as_ref().map(|ptxas| &ptxas.version);
        let unassembled = release.is_some() && record.ptxas.as_ref() != release;
        if unassembled {
            self.assemble(&mut record, &ptx)?;
        }
        if unassembled || !cached {
            self.cache.write(&ptx_path, ptx.as_bytes())?;
            // The record last: where there is one, its PTX is there, too.
            let text =
                serde_json::to_vec(&record).map_err(|e| io_error(unit, "write its record", e.into()))?;
            self.cache.write(&record_path, &text)?;
        }
        let faults = record.resources.as_ref().map(|resources| resources.faults()).unwrap_or_default();
        if !faults.is_empty() && !unit.slow_allowed {
            return Err(BuildError::Rejected { id: unit.id.clone(), arch: arch.to_owned(), faults });
        }
        Ok(Built::new(record, ptx, ptx_path, cached))
    }

    /// Builds many kernels, `jobs` at once (0: one for each core), and tells of each as it is done, from any thread
    /// and in any order. Results are in the order asked for.
    pub fn build_many(
        &self,
        requests: &[(KernelUnit, String)],
        jobs: usize,
        on_done: impl Fn(usize, &Result<Built, BuildError>) + Sync,
    ) -> Vec<Result<Built, BuildError>> {
        let build = |(index, (unit, arch)): (usize, &(KernelUnit, String))| {
            let result = self.build_unit(unit, arch);
            on_done(index, &result);
            result
        };
        match rayon::ThreadPoolBuilder::new().num_threads(jobs).build() {
            Ok(pool) => pool.install(|| requests.par_iter().enumerate().map(build).collect()),
            // A system without threads to spare still builds.
            Err(_) => requests.iter().enumerate().map(build).collect(),
        }
    }

    /// Adds the machine code of each variant, several at once; without an assembler nothing is added.
    ///
    /// # Errors
    /// When the assembler refuses a variant or does not run.
    pub fn with_machine_code(&self, built: Vec<Built>) -> Result<Vec<Built>, BuildError> {
        let Some(ptxas) = &self.ptxas else { return Ok(built) };
        let assembled = |built: Built| match ptxas::assemble(ptxas, &built.ptx, &built.arch) {
            Ok((_, cubin)) => Ok(Built { cubin: Some(cubin), ..built }),
            Err(error) => Err(BuildError::Ptxas { id: built.id.clone(), error }),
        };
        built.into_par_iter().map(assembled).collect()
    }

    /// Names a variant by everything that decides its PTX.
    fn key(&self, unit: &KernelUnit, arch: &str) -> String {
        let KernelUnit { id, kernel, entry, constants, bounds, shared_bytes, .. } = unit;
        let mut key = Key::new("kernel").with(self.sources.hash()).with(&self.toolchain.identity).with(arch);
        for option in Part::Library.options().chain(Part::Entry.options()) {
            key = key.with(option);
        }
        for part in [id, kernel, entry] {
            key = key.with(part);
        }
        for (name, value) in constants {
            key = key.with(name).with(value.to_le_bytes());
        }
        for number in [bounds.threads, bounds.min_blocks_per_sm, *shared_bytes] {
            key = key.with(number.to_le_bytes());
        }
        key.finish()
    }

    /// Reads a variant from the cache; what is damaged counts as not there.
    fn cached(&self, ptx_path: &Path, record_path: &Path) -> Option<(VariantRecord, String)> {
        let record: VariantRecord = serde_json::from_slice(&fs::read(record_path).ok()?).ok()?;
        let ptx = fs::read_to_string(ptx_path).ok()?;
        (ptx_hash(&ptx) == record.ptx_hash).then_some((record, ptx))
    }

    fn library(&self, arch: &str) -> Result<DeviceLibrary, BuildError> {
        check_arch(arch)?;
        // Held while building: other threads of this process want the same library.
        let mut libraries = self.libraries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, library)) = libraries.iter().find(|(known, _)| known == arch) {
            return Ok(library.clone());
        }
        let library = DeviceLibrary::find_or_build(
            &self.toolchain,
            &self.sources,
            &self.source_folder,
            arch,
            &self.cache,
        )?;
        libraries.push((arch.to_owned(), library.clone()));
        Ok(library)
    }

    fn compile(&self, unit: &KernelUnit, arch: &str) -> Result<(VariantRecord, String), BuildError> {
        let library = self.library(arch)?;
        let scratch = self.cache.scratch()?;
        let start = Instant::now();
        let output_path = scratch.path().join("kernel.ptx");
        let mut command = self.rustc(unit, arch, &library);
        command.arg(format!("--emit=asm={}", output_path.display())).current_dir(scratch.path());
        let output = command
            .output()
            .map_err(|error| io_error(unit, &format!("run {}", self.toolchain.rustc.display()), error))?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() {
            return Err(BuildError::Compile { id: unit.id.clone(), arch: arch.to_owned(), message });
        }
        let ptx = fs::read_to_string(&output_path)
            .map_err(|error| io_error(unit, "read what the compiler wrote", error))?;
        let ptx = unit.bounds.add_to(&ptx, &unit.entry).map_err(|error| BuildError::LaunchBounds {
            id: unit.id.clone(),
            arch: arch.to_owned(),
            error,
        })?;
        let record = VariantRecord {
            id: unit.id.clone(),
            arch: arch.to_owned(),
            entry: unit.entry.clone(),
            constants: unit.constants.clone(),
            threads: unit.bounds.threads,
            shared_bytes: unit.shared_bytes,
            ptx_hash: ptx_hash(&ptx),
            cubin_hash: None,
            ptxas: None,
            resources: None,
            seconds: start.elapsed().as_secs_f64(),
            ptxas_seconds: 0.0,
            warnings: message,
        };
        Ok((record, ptx))
    }

    /// Prepares the call of the compiler, all but where its output goes.
    fn rustc(&self, unit: &KernelUnit, arch: &str, library: &DeviceLibrary) -> Command {
        let mut command = Part::Entry.rustc(&self.toolchain, &self.source_folder, arch, &library.core);
        command
            .envs(unit.constants.iter().map(|(name, value)| (name, value.to_string())))
            .arg(format!("--cfg=nabla_kernel=\"{}\"", unit.kernel))
            .arg(format!("--extern=nabla_kernels_gpu={}", library.rlib.display()))
            .arg("-L")
            .arg(&library.folder);
        command
    }

    /// Adds the assembler's verdict to a record.
    fn assemble(&self, record: &mut VariantRecord, ptx: &str) -> Result<(), BuildError> {
        let Some(ptxas) = &self.ptxas else { return Ok(()) };
        let start = Instant::now();
        let (resources, _) = ptxas::assemble(ptxas, ptx, &record.arch)
            .map_err(|error| BuildError::Ptxas { id: record.id.clone(), error })?;
        record.ptxas_seconds = start.elapsed().as_secs_f64();
        record.resources = Some(resources);
        record.ptxas = Some(ptxas.version.clone());
        Ok(())
    }
}

fn io_error(unit: &KernelUnit, action: &str, error: io::Error) -> BuildError {
    BuildError::Io { id: unit.id.clone(), action: action.to_owned(), error }
}
