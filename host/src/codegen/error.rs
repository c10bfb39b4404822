//! What can go wrong between a kernel's source and its PTX.

use std::io;

use super::{
    CoreLibraryError, KernelCacheError, LaunchBoundsError, PtxasError, SourcesError, ToolchainError,
    cache::CacheError,
};

/// A variant that could not be made, or may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// No place to keep what is built.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No `core` for the device.
    #[error(transparent)]
    CoreLibrary(#[from] CoreLibraryError),
    /// No sources.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// A folder of prebuilt kernels that cannot be used.
    #[error(transparent)]
    Prebuilt(#[from] KernelCacheError),
    /// Not an architecture.
    #[error("expected an architecture such as sm_80 or sm_90a, got `{arch}`")]
    UnknownArch {
        /// What was given.
        arch: String,
    },
    /// Constants that contradict each other or a limit.
    #[error("{id} cannot be built: {reason}")]
    Ineligible {
        /// The variant.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The compiler rejected what all kernels share.
    #[error("the device crate does not compile for {arch}:\n{message}")]
    Library {
        /// Architecture.
        arch: String,
        /// The compiler's own words.
        message: String,
    },
    /// The compiler rejected the source with these constants.
    #[error("{id} does not compile for {arch}:\n{message}")]
    Compile {
        /// The variant.
        id: String,
        /// Architecture.
        arch: String,
        /// The compiler's own words.
        message: String,
    },
    /// The compiler did not start, or left nothing to read.
    #[error("{id}: cannot {action}: {error}")]
    Io {
        /// The variant.
        id: String,
        /// What was tried.
        action: String,
        /// Why it failed.
        error: io::Error,
    },
    /// The PTX has no place for launch bounds.
    #[error("{id} for {arch}: {error}")]
    LaunchBounds {
        /// The variant.
        id: String,
        /// Architecture.
        arch: String,
        /// What is wrong with the PTX.
        error: LaunchBoundsError,
    },
    /// The assembler refused the PTX.
    #[error("{id}: {error}")]
    Ptxas {
        /// The variant.
        id: String,
        /// What it said.
        error: PtxasError,
    },
    /// The variant compiles, but not to what its source claims.
    #[error(
        "{id} for {arch} is rejected: {}; take smaller tiles, fewer stages or more warps",
        faults.join("; ")
    )]
    Rejected {
        /// The variant.
        id: String,
        /// Architecture.
        arch: String,
        /// Spills, local memory, messages of the assembler.
        faults: Vec<String>,
    },
}
