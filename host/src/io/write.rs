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

#[cfg(test)]
mod tests {
    use ::safetensors::SafeTensors;
    use proptest::prelude::*;

    use super::*;

    fn tensor<'a>(name: &'a str, shape: &'a [usize], element: Element, bytes: &'a [u8]) -> NamedTensor<'a> {
        NamedTensor { name, shape, element, bytes }
    }

    fn metadata() -> BTreeMap<String, String> {
        [("grid", "1,2,3"), ("order", "raster t,h,w")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn the_format_s_own_reader_finds_every_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.safetensors");
        let bytes: Vec<u8> = (0..48).collect();
        let tensors = [
            tensor("mask", &[5], Element::U8, &bytes[..5]),
            tensor("kv_indices", &[2, 2], Element::I32, &bytes[..16]),
            tensor("count", &[], Element::I64, &bytes[..8]),
            tensor("density", &[3, 2], Element::F64, &bytes),
            tensor("lse", &[1, 3], Element::F32, &bytes[..12]),
            tensor("half", &[3], Element::F16, &bytes[..6]),
            tensor("out", &[3], Element::Bf16, &bytes[6..12]),
            tensor("nothing", &[0, 7], Element::F32, &[]),
        ];
        write_safetensors(&path, &tensors, &metadata()).unwrap();
        let file = fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.len(), tensors.len());
        for written in tensors {
            let view = read.tensor(written.name).unwrap();
            assert_eq!(view.dtype().to_string(), written.element.safetensors_name());
            assert_eq!((view.shape(), view.data()), (written.shape, written.bytes));
            let address = view.data().as_ptr() as usize - file.as_ptr() as usize;
            assert_eq!(address % written.element.size_bytes(), 0, "'{}' is aligned", written.name);
        }
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().clone().unwrap().into_iter().collect::<BTreeMap<_, _>>(), metadata());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.safetensors");
        fs::write(&path, "old").unwrap();
        let short = tensor("out", &[2, 3], Element::F32, &[0; 23]);
        let fits = tensor("out", &[1], Element::U8, &[7]);
        let reserved = tensor("__metadata__", &[1], Element::U8, &[7]);
        let huge = tensor("out", &[usize::MAX, 2], Element::U8, &[7]);
        for tensors in [&[short][..], &[fits, fits], &[reserved], &[huge]] {
            let error = write_safetensors(&path, tensors, &metadata()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("out.safetensors");
        fs::create_dir(&occupied).unwrap();
        assert!(write_safetensors(&occupied, &[], &metadata()).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let missing = folder.path().join("no/such/folder/out.safetensors");
        assert_eq!(
            write_safetensors(&missing, &[], &metadata()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(
            write_safetensors(Path::new("/"), &[], &metadata()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    proptest! {
        // Every case waits for the disk twice.
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_names_and_sizes_survive(names in prop::collection::btree_map(".{0,12}", 0usize..40, 0..6)) {
            prop_assume!(!names.contains_key("__metadata__"));
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            let bytes: Vec<u8> = (0..40).collect();
            let shapes: Vec<[usize; 1]> = names.values().map(|&n| [n]).collect();
            let tensors: Vec<_> = names.iter().zip(&shapes)
                .map(|((name, &n), shape)| tensor(name, shape, Element::U8, &bytes[..n]))
                .collect();
            write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
            let file = fs::read(&path).unwrap();
            let read = SafeTensors::deserialize(&file).unwrap();
            prop_assert_eq!(read.len(), names.len());
            for (name, &n) in &names {
                prop_assert_eq!(read.tensor(name).unwrap().data(), &bytes[..n]);
            }
            let reversed: Vec<_> = tensors.into_iter().rev().collect();
            write_safetensors(&path, &reversed, &BTreeMap::new()).unwrap();
            prop_assert_eq!(fs::read(&path).unwrap(), file, "the order given does not matter");
        }
    }
}
