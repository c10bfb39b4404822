//! Tensors in files: inputs are read and checked here, outputs and masks written.
//!
//! An input holds the tensors `q`, `k`, `v`, each `[B,H,S,D]` or `[H,S,D]` (one batch), last index fastest, all of
//! one type: f32, f16, bf16, or f64, which is narrowed to f32. Accepted are
//!
//! - safetensors files; metadata `grid` = `T,H,W` makes the tokens those of a video, in raster order;
//! - `.npz` archives with members `q.npy`, `k.npy`, `v.npy`, stored or deflated;
//! - folders with `q.npy`, `k.npy`, `v.npy`.
//!
//! The format is told by the first bytes, not by the name. Every size a file declares is checked against the
//! bytes that are there before memory is taken for it, and every number must be finite.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use memmap2::Mmap;

mod element;
mod error;
mod npy;
mod npz;
mod plan;
mod safetensors;
mod stored;
mod write;

pub use element::Element;
pub use error::{InputError, InputFault};
pub use stored::{StoredFile, StoredTensor, read_tensors};
pub use write::{NamedTensor, write_safetensors};

use self::error::excerpt;
use crate::{Grid, tensor::Qkv};

#[cfg(target_endian = "big")]
compile_error!("tensor files are little-endian and their bytes are used as they are");

/// Most bytes that q, k and v may have together unless said otherwise: 32 GiB, four times the longest common
/// model's 120k tokens x 32 heads x 128 in bf16.
pub(crate) const DEFAULT_MAX_BYTES: u64 = 32 << 30;

/// How to read an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// The token grid, in place of the one the file's metadata gives.
    pub grid: Option<Grid>,
    /// Most bytes that q, k and v may have together.
    pub max_bytes: u64,
}

impl Default for ReadOptions {
    /// No grid but the file's own, 32 GiB.
    fn default() -> Self {
        Self { grid: None, max_bytes: DEFAULT_MAX_BYTES }
    }
}

/// Reads q, k and v from a safetensors file, an `.npz` archive or a folder of `.npy` files.
///
/// # Errors
/// When the file is missing, unreadable, broken, too large, or its tensors make no attention problem.
pub fn read_qkv(path: &Path, options: &ReadOptions) -> Result<Qkv, InputError> {
    let file_type = fs::metadata(path).map_err(|e| InputError::new(path, e))?.file_type();
    if file_type.is_dir() {
        return npy::read_folder(path, options);
    }
    read_file(path, file_type, options).map_err(|fault| InputError::new(path, fault))
}

/// Reads q, k and v from the bytes of a whole safetensors file, such as one built into the program; messages
/// and the result call it `name`.
///
/// # Errors
/// When the bytes are no safetensors file or its tensors make no attention problem.
pub fn read_safetensors_bytes(bytes: &[u8], name: &str, options: &ReadOptions) -> Result<Qkv, InputError> {
    let qkv = if bytes.is_empty() {
        Err(InputFault::Empty)
    } else {
        safetensors::read(bytes, options, name.to_owned())
    };
    qkv.map_err(|fault| InputError::new(Path::new(name), fault))
}

fn read_file(path: &Path, file_type: fs::FileType, options: &ReadOptions) -> Result<Qkv, InputFault> {
    let mut file = open_regular(path, file_type)?;
    let mut first = Vec::with_capacity(16);
    Read::by_ref(&mut file).take(16).read_to_end(&mut first)?;
    let source = path.display().to_string();
    if first.is_empty() {
        Err(InputFault::Empty)
    } else if first.starts_with(npz::MAGIC) {
        npz::read(file, options, source)
    } else if first.starts_with(npy::MAGIC) {
        Err(InputFault::UnknownFormat { got: "a single .npy file, which holds one tensor".into() })
    } else if path.extension().is_some_and(|e| e == "safetensors") || safetensors::looks_alike(&first) {
        safetensors::read(&map(&file)?, options, source)
    } else {
        let start = String::from_utf8_lossy(&first);
        Err(InputFault::UnknownFormat { got: format!("a file that starts with '{}'", excerpt(&start)) })
    }
}

/// Opens a file that has an end and can be mapped; opening a pipe would wait for its writer.
fn open_regular(path: &Path, file_type: fs::FileType) -> Result<File, InputFault> {
    if file_type.is_file() { Ok(File::open(path)?) } else { Err(InputFault::NotAFile(kind_of(file_type))) }
}

#[cfg(unix)]
fn kind_of(file_type: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if file_type.is_dir() {
        "folder"
    } else if file_type.is_fifo() {
        "pipe"
    } else if file_type.is_socket() {
        "socket"
    } else {
        "device"
    }
}

#[cfg(not(unix))]
fn kind_of(file_type: fs::FileType) -> &'static str {
    if file_type.is_dir() { "folder" } else { "special file" }
}

/// Maps a whole file for reading.
fn map(file: &File) -> Result<Mmap, InputFault> {
    // SAFETY: the map is read-only, its bytes are copied out within this module and it is dropped before the
    // read returns. Every bit pattern is a valid u8. A process that shrinks the file meanwhile would end this one
    // by a signal: no program can map files and rule that out, and nothing but the copy is at stake.
    Ok(unsafe { Mmap::map(file) }?)
}
