//! Reads masks as `nabla mask --out` writes them, for drawing.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use crate::masks::MaskPicture;

/// A file that holds no masks to draw.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: expected a mask file of `nabla mask --out` (a safetensors file with `mask`, u8 [B,H,Q,K]), got {got}"
)]
pub struct MaskFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub got: String,
}

/// Returns a picture for each head of the file, named by batch and head.
pub fn read_masks(path: &Path) -> Result<Vec<MaskPicture>, MaskFileError> {
    let fault = |got: String| MaskFileError { path: path.to_owned(), got };
    let bytes = std::fs::read(path).map_err(|e| fault(format!("a file that cannot be read: {e}")))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fault(format!("something else: {e}")))?;
    let mask = file.tensor("mask").map_err(|_| fault("a file without a tensor `mask`".to_owned()))?;
    let &[batch, heads, q_blocks, kv_blocks] = mask.shape() else {
        return Err(fault(format!("a `mask` of shape {:?}", mask.shape())));
    };
    if mask.dtype() != Dtype::U8 {
        return Err(fault(format!("a `mask` of type {:?}", mask.dtype())));
    }
    if batch * heads * q_blocks * kv_blocks == 0 {
        return Err(fault("a `mask` without any block".to_owned()));
    }
    let picture = |(n, cells): (usize, &[u8])| {
        let kept: Vec<bool> = cells.iter().map(|cell| *cell != 0).collect();
        let density = kept.iter().filter(|kept| **kept).count() as f64 / kept.len() as f64;
        let title = match batch {
            1 => format!("head {n}"),
            _ => format!("batch {} head {}", n / heads, n % heads),
        };
        MaskPicture { title, q_blocks, kv_blocks, density, kept }
    };
    Ok(mask.data().chunks_exact(q_blocks * kv_blocks).enumerate().map(picture).collect())
}
