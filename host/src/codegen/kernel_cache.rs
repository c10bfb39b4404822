//! A folder of prebuilt kernels, for machines that have a GPU and no Rust.
//!
//! ```text
//! manifest.json          who made it, from what, and one record for each variant
//! ptx/ARCH/ID.ptx        the variants, which a driver compiles for the GPU it finds
//! cubin/ARCH/ID.cubin    machine code of some of them, for GPUs of exactly that architecture
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Built, ptxas::Resources};

/// Name of the list of contents.
pub const MANIFEST: &str = "manifest.json";

/// The layout of the folder that this program writes and reads.
const FORMAT: u32 = 1;

/// What is known of a built variant besides its PTX.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantRecord {
    /// The variant.
    pub id: String,
    /// Architecture it was built for.
    pub arch: String,
    /// Symbol to launch.
    pub entry: String,
    /// Constants it was built with.
    pub constants: Vec<(String, u32)>,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a launch in bytes.
    pub shared_bytes: u32,
    /// blake3 of the PTX.
    pub ptx_hash: String,
    /// blake3 of the machine code that a folder of prebuilt kernels holds beside the PTX; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cubin_hash: Option<String>,
    /// Release of the assembler that told the resources; none where there was no assembler.
    pub ptxas: Option<String>,
    /// What it takes of a multiprocessor.
    pub resources: Option<Resources>,
    /// Seconds rustc took.
    pub seconds: f64,
    /// Seconds the assembler took for its verdict; 0 where there was none.
    #[serde(default)]
    pub ptxas_seconds: f64,
    /// Warnings of the compiler.
    pub warnings: String,
}

/// The list of contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Version of the program that wrote it.
    pub nabla: String,
    /// Version line of the device compiler.
    pub toolchain: String,
    /// Hash of the device sources.
    pub sources: String,
    /// The variants, sorted by architecture and id.
    pub variants: Vec<VariantRecord>,
}

/// A folder of prebuilt kernels.
#[derive(Debug, Clone)]
pub struct KernelCache {
    folder: PathBuf,
    manifest: Manifest,
}

/// A folder of prebuilt kernels that cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum KernelCacheError {
    /// A file is missing, cannot be read or cannot be written.
    #[error("prebuilt kernels: cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// The list of contents is not one.
    #[error("prebuilt kernels: {} is broken: {reason}; make the folder again with `nabla kernels build --out`", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder fits another program.
    #[error(
        "prebuilt kernels: {} was made from device sources {got}, this program has {expected}; make the folder again with `nabla kernels build --out`",
        path.display()
    )]
    OtherSources {
        /// The list of contents.
        path: PathBuf,
        /// Hash of this program's sources.
        expected: String,
        /// Hash it has.
        got: String,
    },
    /// The folder has no such variant.
    #[error(
        "prebuilt kernels: {} has no {id} for {arch}; add it with `nabla kernels build --out` on a machine with Rust",
        folder.display()
    )]
    NoVariant {
        /// The folder.
        folder: PathBuf,
        /// The variant.
        id: String,
        /// Architecture.
        arch: String,
    },
}

/// Opens a folder of prebuilt kernels that fits device sources of the given hash.
///
/// # Errors
/// When there is no readable manifest of this format, or it was made from other sources.
pub fn open(folder: &Path, sources: &str) -> Result<KernelCache, KernelCacheError> {
    let path = folder.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| KernelCacheError::Io {
        action: "read",
        path: path.clone(),
        error,
    })?;
    let broken = |reason: String| KernelCacheError::Broken { path: path.clone(), reason };
    // The format first: a later one may have other fields.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        got => return Err(broken(format!("expected format {FORMAT}, got {got:?}"))),
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
    if manifest.sources != sources {
        let (expected, got) = (sources.to_owned(), manifest.sources);
        return Err(KernelCacheError::OtherSources { path, expected, got });
    }
    Ok(KernelCache { folder: folder.to_owned(), manifest })
}

impl KernelCache {
    /// Writes variants, with their machine code where they have it, and their manifest into a folder; variants that are
    /// there from the same compiler and sources stay in it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(
        folder: &Path,
        toolchain: &str,
        sources: &str,
        built: &[Built],
    ) -> Result<Self, KernelCacheError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| KernelCacheError::Io { action: "write", path, error }
        };
        let mut variants = match open(folder, sources) {
            Ok(there) if there.manifest.toolchain == toolchain => there.manifest.variants,
            _ => Vec::new(),
        };
        for built in built {
            let (arch, id) = (&built.record.arch, &built.record.id);
            let cubin = built.cubin.as_deref().map(|cubin| (cubin_path(folder, arch, id), cubin));
            let ptx = (ptx_path(folder, arch, id), built.ptx.as_bytes());
            for (path, content) in [ptx].into_iter().chain(cubin) {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(failed(parent))?;
                }
                fs::write(&path, content).map_err(failed(&path))?;
            }
            variants.retain(|v| (&v.arch, &v.id) != (arch, id));
            let cubin_hash = built.cubin.as_deref().map(hash);
            variants.push(VariantRecord { cubin_hash, ..built.record.clone() });
        }
        variants.sort_by(|a, b| (&a.arch, &a.id).cmp(&(&b.arch, &b.id)));
        let manifest = Manifest {
            format: FORMAT,
            nabla: env!("CARGO_PKG_VERSION").to_owned(),
            toolchain: toolchain.to_owned(),
            sources: sources.to_owned(),
            variants,
        };
        // Last, and by a rename: a folder with a manifest is whole.
        let (path, draft) = (folder.join(MANIFEST), folder.join("manifest.json.new"));
        let text =
            serde_json::to_string_pretty(&manifest).map_err(io::Error::other).map_err(failed(&path))?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(failed(&path))?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Returns the list of contents.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Says whether a variant is listed.
    pub fn has(&self, id: &str, arch: &str) -> bool {
        self.manifest.variants.iter().any(|v| v.id == id && v.arch == arch)
    }

    /// Reads a variant.
    ///
    /// # Errors
    /// When it is not there, or its file is not what the manifest says.
    pub fn get(&self, id: &str, arch: &str) -> Result<Built, KernelCacheError> {
        let record =
            self.manifest.variants.iter().find(|v| v.id == id && v.arch == arch).ok_or_else(|| {
                KernelCacheError::NoVariant {
                    folder: self.folder.clone(),
                    id: id.to_owned(),
                    arch: arch.to_owned(),
                }
            })?;
        let path = ptx_path(&self.folder, arch, id);
        let ptx = fs::read_to_string(&path).map_err(|error| KernelCacheError::Io {
            action: "read",
            path: path.clone(),
            error,
        })?;
        if ptx_hash(&ptx) != record.ptx_hash {
            return Err(differs(path));
        }
        Ok(Built::new(record.clone(), ptx, path, true))
    }

    /// Reads the machine code of a variant; none where the folder has none.
    ///
    /// # Errors
    /// When it cannot be read, or is not what the manifest says.
    pub fn machine_code(&self, id: &str, arch: &str) -> Result<Option<Vec<u8>>, KernelCacheError> {
        let record = self.manifest.variants.iter().find(|v| v.id == id && v.arch == arch);
        let Some(expected) = record.and_then(|record| record.cubin_hash.as_ref()) else { return Ok(None) };
        let path = cubin_path(&self.folder, arch, id);
        let cubin = fs::read(&path).map_err(|error| KernelCacheError::Io {
            action: "read",
            path: path.clone(),
            error,
        })?;
        if hash(&cubin) == *expected { Ok(Some(cubin)) } else { Err(differs(path)) }
    }
}

fn differs(path: PathBuf) -> KernelCacheError {
    KernelCacheError::Broken { path, reason: "it differs from what the manifest says".to_owned() }
}

fn cubin_path(folder: &Path, arch: &str, id: &str) -> PathBuf {
    folder.join("cubin").join(arch).join(format!("{id}.cubin"))
}

fn ptx_path(folder: &Path, arch: &str, id: &str) -> PathBuf {
    folder.join("ptx").join(arch).join(format!("{id}.ptx"))
}

/// Hashes PTX as records name it.
pub(super) fn ptx_hash(ptx: &str) -> String {
    hash(ptx.as_bytes())
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(id: &str, arch: &str) -> Built {
        let ptx = format!(".target {arch} // {id}");
        let record = VariantRecord {
            id: id.to_owned(),
            arch: arch.to_owned(),
            entry: "nabla_attention".into(),
            constants: vec![("NABLA_BLOCK_M".into(), 64)],
            threads: 128,
            shared_bytes: 49_152,
            ptx_hash: ptx_hash(&ptx),
            cubin_hash: None,
            ptxas: Some("V13.5.37".into()),
            resources: Some(Resources { registers: 170, ..Resources::default() }),
            seconds: 0.25,
            ptxas_seconds: 0.0,
            warnings: String::new(),
        };
        Built::new(record, ptx, PathBuf::new(), false)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let variants = [built("b", "sm_80"), built("a", "sm_90a"), built("a", "sm_80")];
        let written = KernelCache::write(folder.path(), "rustc 1.96.0", "cafe", &variants).unwrap();
        let read = open(folder.path(), "cafe").unwrap();
        assert_eq!(read.manifest(), written.manifest());
        let order: Vec<_> = read.manifest().variants.iter().map(|v| (&*v.arch, &*v.id)).collect();
        assert_eq!(order, [("sm_80", "a"), ("sm_80", "b"), ("sm_90a", "a")]);
        let got = read.get("b", "sm_80").unwrap();
        assert_eq!((&got.ptx, &got.record), (&variants[0].ptx, &variants[0].record));
        assert!(got.cached);
    }

    #[test]
    fn a_second_write_adds_unless_the_compiler_changed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |toolchain, id| {
            let cache = KernelCache::write(folder.path(), toolchain, "cafe", &[built(id, "sm_80")]).unwrap();
            cache.manifest().variants.iter().map(|v| v.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(write("rustc 1.96.0", "a"), ["a"]);
        assert_eq!(write("rustc 1.96.0", "b"), ["a", "b"]);
        assert_eq!(write("rustc 1.96.0", "b"), ["a", "b"]);
        assert_eq!(write("rustc 1.97.0", "c"), ["c"]);
    }

    #[test]
    fn machine_code_lies_beside_its_ptx_and_is_held_against_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let with = Built { cubin: Some(b"\x7fELF code".to_vec()), ..built("a", "sm_80") };
        let both = [with.clone(), built("b", "sm_80")];
        KernelCache::write(folder.path(), "rustc 1.96.0", "cafe", &both).unwrap();
        let cache = open(folder.path(), "cafe").unwrap();
        assert_eq!(cache.machine_code("a", "sm_80").unwrap(), with.cubin);
        assert_eq!(cache.machine_code("b", "sm_80").unwrap(), None);
        assert_eq!(cache.machine_code("a", "sm_90a").unwrap(), None);
        let path = cubin_path(folder.path(), "sm_80", "a");
        fs::write(&path, b"\x7fELF c0de").unwrap();
        let message = cache.machine_code("a", "sm_80").unwrap_err().to_string();
        assert!(message.contains("a.cubin is broken: it differs from"), "{message}");
        fs::remove_file(&path).unwrap();
        let message = cache.machine_code("a", "sm_80").unwrap_err().to_string();
        assert!(message.contains("cannot read") && message.contains("a.cubin"), "{message}");
        // Written again without, what is left of it counts no more.
        KernelCache::write(folder.path(), "rustc 1.96.0", "cafe", &[built("a", "sm_80")]).unwrap();
        assert_eq!(open(folder.path(), "cafe").unwrap().machine_code("a", "sm_80").unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let message = |sources: &str| open(folder, sources).unwrap_err().to_string();
        assert!(message("cafe").contains("cannot read"));
        KernelCache::write(folder, "rustc 1.96.0", "cafe", &[built("a", "sm_80")]).unwrap();
        assert!(message("beef").contains("sources cafe, this program has beef"));
        let cache = open(folder, "cafe").unwrap();
        assert!(cache.get("a", "sm_90a").unwrap_err().to_string().contains("no a for sm_90a"));
        fs::write(ptx_path(folder, "sm_80", "a"), "changed").unwrap();
        assert!(cache.get("a", "sm_80").unwrap_err().to_string().contains("differs"));
        for broken in ["{", "{}", "{\"format\":2}", "{\"format\":1}"] {
            fs::write(folder.join(MANIFEST), broken).unwrap();
            assert!(message("cafe").contains("is broken"), "{broken}");
        }
    }
}
