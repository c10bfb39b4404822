//! The box of a tensor copy: which bytes of global memory belong to which bytes of shared memory.
//!
//! Shared memory holds the box densely, dimension 0 innermost; swizzling moves its 16-byte chunks by their address.
//! (PTX ISA, "Tensors"; CUDA driver API, `cuTensorMapEncodeTiled`.)

use crate::fault::FaultKind;
use crate::tensor_map::{OutOfBounds, TensorMap};

/// Bytes of the largest shared memory.
const MOST: u32 = 228 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Tile {
    pub(crate) map: TensorMap,
    /// Coordinates of the box's first element.
    pub(crate) origin: Vec<i32>,
}

/// A row of the box: elements next to each other in shared memory.
pub(crate) struct Row {
    /// Offset in the box.
    pub(crate) offset: u32,
    /// Global address of the first element inside the tensor.
    pub(crate) address: u64,
    /// Elements inside the tensor: first, and one past the last.
    pub(crate) inside: (u32, u32),
}

impl Tile {
    /// Elements the box has along a dimension in shared memory.
    fn length(&self, dimension: usize) -> u32 {
        // Copies have no stride along the innermost dimension.
        let stride = if dimension == 0 { 1 } else { self.map.element_strides[dimension] };
        self.map.box_sizes[dimension].div_ceil(stride)
    }

    pub(crate) fn row_bytes(&self) -> u32 {
        self.length(0) * self.map.element.bytes()
    }

    /// Bytes in shared memory; the largest number for boxes that no memory holds.
    pub(crate) fn bytes(&self) -> u32 {
        let rows = (1..self.map.sizes.len()).map(|dimension| self.length(dimension));
        rows.fold(self.row_bytes(), u32::saturating_mul)
    }

    /// Refuses what is not modelled.
    pub(crate) fn check(&self) -> Result<(), FaultKind> {
        if self.bytes() > MOST {
            return Err(FaultKind::TensorMap(format!(
                "the box has {} bytes, which no shared memory holds: make it smaller",
                self.bytes()
            )));
        }
        if let Some(span) = self.map.swizzle.span()
            && self.row_bytes() != span
        {
            return Err(FaultKind::Unmodelled(format!(
                "rows of {} bytes swizzled by {span}: only rows as wide as the swizzle's span are modelled",
                self.row_bytes()
            )));
        }
        Ok(())
    }

    /// Calls `each` for every row of the box.
    pub(crate) fn rows(&self, mut each: impl FnMut(Row) -> Result<(), FaultKind>) -> Result<(), FaultKind> {
        let (rank, row_bytes) = (self.map.sizes.len(), self.row_bytes());
        let first = i64::from(self.origin[0]);
        let width = i64::from(self.length(0));
        // Elements i with 0 <= first + i < size.
        let low = (-first).clamp(0, width);
        let high = (self.map.sizes[0] as i64 - first).clamp(0, width);
        let rows = self.bytes() / row_bytes;
        for number in 0..rows {
            let (mut rest, mut address, mut within) = (number, self.map.address.address(), low < high);
            for dimension in 1..rank {
                let length = self.length(dimension);
                let index = i64::from(self.origin[dimension])
                    + i64::from(rest % length) * i64::from(self.map.element_strides[dimension]);
                rest /= length;
                within &= index >= 0 && (index as u64) < self.map.sizes[dimension];
                let stride = self.map.strides[dimension - 1];
                address = address.wrapping_add((index as u64).wrapping_mul(stride));
            }
            let start = (first + low) as u64;
            address = address.wrapping_add(start.wrapping_mul(u64::from(self.map.element.bytes())));
            let inside = if within { (low as u32, high as u32) } else { (0, 0) };
            each(Row { offset: number * row_bytes, address, inside })?;
        }
        Ok(())
    }

    /// Fills a row with what stands for elements outside the tensor.
    pub(crate) fn fill(&self, row: &mut [u8]) {
        match self.map.out_of_bounds {
            OutOfBounds::Zero => row.fill(0),
            OutOfBounds::Nan => {
                let bytes = self.map.element.bytes() as usize;
                let nan = self.map.element.nan().to_le_bytes();
                row.chunks_exact_mut(bytes).for_each(|element| element.copy_from_slice(&nan[..bytes]));
            }
        }
    }
}
