//! Outputs and masks as safetensors files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::json;

use super::Element;

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct NamedTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its extents, last index fastest; none for a single number.
    pub shape: &'a [usize],
    /// Type of its elements.
    pub element: Element,
    /// Its elements, little-endian.
    pub bytes: &'a [u8],
}

/// Writes a safetensors file; the same tensors and metadata give the same bytes.
///
/// The file appears whole or not at all: it is written beside `path` under another name, flushed to the disk and
/// renamed. A file that stood there is replaced.
///
/// # Errors
/// When a tensor's bytes do not fit its type and shape or a name stands twice or is `__metadata__`
/// ([`io::ErrorKind::InvalidInput`]), or when the file cannot be written.
pub fn write_safetensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let header = header(tensors, metadata)?;
    let partial = partial_name(path)?;
    let result = write_all(&partial, &header, tensors).and_then(|()| fs::rename(&partial, path));
    if result.is_err() {
        // What failed is worth telling; that its remains could not be removed is not.
        let _ = fs::remove_file(&partial);
    }
    result
}

fn write_all(path: &Path, header: &[u8], tensors: &[NamedTensor<'_>]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create_new(path)?);
    file.write_all(header)?;
    for tensor in layout(tensors) {
        file.write_all(tensor.bytes)?;
    }
    file.into_inner()?.sync_all()
}

/// Orders tensors as they are laid out: wide elements first, so that each is aligned to its element.
fn layout<'a, 't>(tensors: &'t [NamedTensor<'a>]) -> Vec<&'t NamedTensor<'a>> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|tensor| (std::cmp::Reverse(tensor.element.size_bytes()), tensor.name));
    order
}

/// Returns header length and header, padded to 8 bytes so that the data is aligned.
fn header(tensors: &[NamedTensor<'_>], metadata: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let mut position = 0;
    for NamedTensor { name, shape, element, bytes } in layout(tensors) {
        let needed = shape.iter().try_fold(element.size_bytes(), |n, &x| n.checked_mul(x));
        if needed != Some(bytes.len()) {
            let kind = element.safetensors_name();
            return Err(invalid(format!(
                "tensor '{name}' of {kind} {shape:?} does not have {} bytes",
                bytes.len()
            )));
        }
        let end = position + bytes.len();
        let entry =
            json!({"dtype": element.safetensors_name(), "shape": shape, "data_offsets": [position, end]});
        if *name == "__metadata__" || entries.insert((*name).into(), entry).is_some() {
            return Err(invalid(format!("tensor name '{name}' stands twice or is reserved")));
        }
        position = end;
    }
    let mut json = serde_json::to_vec(&entries)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

/// Makes a name in the folder of `path` that no other writer uses.
fn partial_name(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".{}.{}.partial", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(partial))
}
