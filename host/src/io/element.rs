//! Number types as files name them.

use std::io::{self, Read};

use crate::{Dtype, tensor::TensorData};

/// A number type of a file: those that are read as inputs and those that outputs and masks are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE double precision; inputs are narrowed to single precision when read.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned byte.
    U8,
}

impl Element {
    const ALL: [Self; 7] = [Self::F64, Self::F32, Self::F16, Self::Bf16, Self::I64, Self::I32, Self::U8];

    /// Returns the size of one element in bytes.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// Returns the name that stands in a safetensors header.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::U8 => "U8",
        }
    }

    pub(crate) fn from_safetensors_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|element| element.safetensors_name() == name)
    }

    /// Returns the type such numbers have in memory once read; `None` for integers.
    pub(crate) fn input_dtype(self) -> Option<Dtype> {
        match self {
            Self::F64 | Self::F32 => Some(Dtype::F32),
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::Bf16),
            Self::I64 | Self::I32 | Self::U8 => None,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

/// Reads `len` little-endian floats, whose number has been checked against the size of their file.
pub(crate) fn read_floats(from: &mut impl Read, element: Element, len: usize) -> io::Result<TensorData> {
    let Some(dtype) = element.input_dtype() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "integers are no inputs"));
    };
    let mut data = TensorData::zeros(dtype, len);
    if element == Element::F64 {
        let mut doubles = vec![0f64; len.min(1 << 16)];
        let mut narrow = Vec::with_capacity(len);
        while narrow.len() < len {
            let chunk = doubles.len().min(len - narrow.len());
            from.read_exact(bytemuck::cast_slice_mut(&mut doubles[..chunk]))?;
            narrow.extend(doubles[..chunk].iter().map(|&x| x as f32));
        }
        data = TensorData::F32(narrow);
    } else {
        from.read_exact(data.bytes_mut())?;
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_narrowed_across_chunk_borders() {
        let doubles: Vec<f64> = (0..70_000).map(|i| i as f64 / 3.0).collect();
        let mut bytes: &[u8] = bytemuck::cast_slice(&doubles);
        let TensorData::F32(read) = read_floats(&mut bytes, Element::F64, doubles.len()).unwrap() else {
            panic!("doubles become single precision");
        };
        assert!(doubles.iter().zip(&read).all(|(&x, &y)| x as f32 == y));
    }

    #[test]
    fn floats_that_end_early_are_an_error() {
        let error = read_floats(&mut [0u8; 7].as_slice(), Element::F32, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn every_type_reads_as_it_is_named() {
        for element in Element::ALL {
            assert_eq!(Element::from_safetensors_name(element.safetensors_name()), Some(element));
        }
        assert_eq!(Element::from_safetensors_name("F8_E4M3"), None);
    }
}
