//! Any tensors of a safetensors file, such as masks and maps.

use std::{collections::BTreeMap, fs, path::Path};

use half::{bf16, f16};

use super::{
    InputError, InputFault,
    safetensors::{Raw, broken, tensors},
};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Its extents, the last fastest; their product is the number of `numbers`.
    pub shape: Vec<usize>,
    /// Its numbers; `true` is 1.
    pub numbers: Vec<f64>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredFile {
    /// What its writer says of it.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors.
    pub tensors: Vec<StoredTensor>,
}

impl StoredFile {
    /// Returns a tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Returns the names of all tensors, for a message.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.join(", ")
    }
}

/// Reads every tensor of a safetensors file of at most `max_bytes`: floats, integers and booleans.
///
/// # Errors
/// When the file cannot be read, is none, or holds numbers of another type.
pub fn read_tensors(path: &Path, max_bytes: u64) -> Result<StoredFile, InputError> {
    let fault = |fault: InputFault| InputError::new(path, fault);
    let size = fs::metadata(path).map_err(|error| InputError::new(path, error))?.len();
    if size > max_bytes {
        return Err(fault(broken(format!("at most {max_bytes} bytes"), size.to_string(), "cut it")));
    }
    let bytes = fs::read(path).map_err(|error| InputError::new(path, error))?;
    let (metadata, raw) = tensors(&bytes).map_err(fault)?;
    let tensors = raw.into_iter().map(|raw| stored(raw).map_err(fault)).collect::<Result<_, _>>()?;
    Ok(StoredFile { metadata, tensors })
}

fn stored(raw: Raw<'_>) -> Result<StoredTensor, InputFault> {
    let numbers: Vec<f64> = match raw.dtype.as_str() {
        "F64" => each(raw.bytes, f64::from_le_bytes),
        "F32" => each(raw.bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
        "F16" => each(raw.bytes, |bytes| f16::from_le_bytes(bytes).to_f64()),
        "BF16" => each(raw.bytes, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        "I64" => each(raw.bytes, |bytes| i64::from_le_bytes(bytes) as f64),
        "I32" => each(raw.bytes, |bytes| f64::from(i32::from_le_bytes(bytes))),
        "U8" | "BOOL" => each(raw.bytes, |[byte]: [u8; 1]| f64::from(byte)),
        other => {
            let expected = format!("F64, F32, F16, BF16, I64, I32, U8 or BOOL as type of {}", raw.name);
            return Err(broken(expected, other, "convert it"));
        }
    };
    let shape: Option<Vec<usize>> = raw.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let count = shape
        .as_ref()
        .and_then(|shape| shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)));
    match shape {
        Some(shape) if count == Some(numbers.len()) => Ok(StoredTensor { name: raw.name, shape, numbers }),
        _ => {
            let expected = format!("as many numbers in {} as its shape says, {:?}", raw.name, raw.shape);
            Err(broken(expected, numbers.len().to_string(), "write it again"))
        }
    }
}

/// Reads numbers of so many bytes; bytes that are none are left out.
fn each<const BYTES: usize>(bytes: &[u8], number: impl Fn([u8; BYTES]) -> f64) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks::<BYTES>();
    numbers.iter().map(|bytes| number(*bytes)).collect()
}
