//! Where tiles lie in shared memory when tensor copies write and `wgmma` reads them: panels of swizzled rows.
//!
//! A tile is `rows x head_dim` 16-bit elements, cut by columns into panels as wide as the swizzle: 128 bytes where
//! `head_dim` is a multiple of 64, else 64 bytes. A panel is one box of a tensor copy: its rows follow each other
//! without padding, and the 16-byte chunks of each are permuted.
//!
//! ```text
//!             panel 0 (64 columns)            panel 1                128-byte swizzle, in a panel:
//!   row 0     0 1 2 3 4 5 6 7                 0 1 2 3 ...            chunk ^ row % 8
//!   row 1     1 0 3 2 5 4 7 6                 1 0 3 2 ...            64-byte swizzle:
//!   ...                                                              chunk ^ row / 2 % 4
//! ```
//! Both are the hardware's pattern, a function of the address alone: bits 4.. are changed by bits 7.. of it. Therefore
//! tiles start at multiples of 1024 bytes.
//!
//! Sources: PTX ISA, "Tensors: Swizzling modes"; "Shared Memory Matrix Layout" with "Canonical Layouts" and "Matrix
//! Descriptor Format" of `wgmma`.

use crate::layout::{CHUNK_BYTES, CHUNK_ELEMENTS};

/// Alignment of a tile: where every swizzle starts anew.
pub const TILE_ALIGNMENT: u32 = 1024;
/// Depth of one `wgmma` of 16-bit elements.
pub const STEP: u32 = 16;
/// Rows of the unit that descriptors count strides in.
const GROUP_ROWS: u32 = 8;

/// How the chunks of a row are permuted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// Within 128 bytes (`CU_TENSOR_MAP_SWIZZLE_128B`).
    Bytes128,
    /// Within 64 bytes (`CU_TENSOR_MAP_SWIZZLE_64B`).
    Bytes64,
}

impl Swizzle {
    /// Returns the bytes it permutes, which are those of a panel's row.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Bytes128 => 128,
            Self::Bytes64 => 64,
        }
    }

    /// Returns its number in a matrix descriptor.
    const fn code(self) -> u64 {
        match self {
            Self::Bytes128 => 1,
            Self::Bytes64 => 2,
        }
    }

    /// Returns where the byte is stored that would be at `offset` without it, both from an aligned tile's start.
    #[inline(always)]
    pub const fn apply(self, offset: u32) -> u32 {
        offset ^ (offset >> 3 & (self.bytes() - CHUNK_BYTES))
    }
}

/// The shape of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Tokens; a multiple of 8.
    pub rows: u32,
    /// Elements of a token; a multiple of 32.
    pub head_dim: u32,
}

impl Tile {
    /// Returns the swizzle of tiles with this head dimension.
    pub const fn swizzle(self) -> Swizzle {
        if self.head_dim.is_multiple_of(64) { Swizzle::Bytes128 } else { Swizzle::Bytes64 }
    }

    /// Returns the columns of a panel.
    pub const fn panel_columns(self) -> u32 {
        self.swizzle().bytes() / 2
    }

    /// Returns the panels of a tile.
    pub const fn panels(self) -> u32 {
        self.head_dim / self.panel_columns()
    }

    /// Returns the bytes of a panel.
    pub const fn panel_bytes(self) -> u32 {
        self.rows * self.swizzle().bytes()
    }

    /// Returns the bytes of a tile.
    pub const fn bytes(self) -> u32 {
        self.rows * self.head_dim * 2
    }

    /// Returns the byte offset of a chunk of eight elements: `chunk` of the whole row, not of a panel.
    #[inline(always)]
    pub const fn chunk_offset(self, row: u32, chunk: u32) -> u32 {
        let chunks = self.panel_columns() / CHUNK_ELEMENTS;
        let in_panel = row * self.swizzle().bytes() + chunk % chunks * CHUNK_BYTES;
        chunk / chunks * self.panel_bytes() + self.swizzle().apply(in_panel)
    }

    /// Returns the upper half of the descriptors of a tile: swizzle, and the stride between groups of eight tokens.
    #[inline(always)]
    const fn descriptor_high(self) -> u32 {
        let stride = GROUP_ROWS * self.swizzle().bytes();
        ((self.swizzle().code() << 62 | ((stride >> 4) as u64) << 32) >> 32) as u32
    }

    /// Returns the descriptor of the operand whose depth is the head dimension, for one k-step: Q or K of the scores.
    ///
    /// K-major: the leading offset has no meaning and is 1. `address` is the tile's, in the shared window.
    #[inline(always)]
    pub const fn by_columns(self, address: u32, step: u32) -> u64 {
        let steps = self.panel_columns() / STEP;
        let at = step / steps * self.panel_bytes() + step % steps * (2 * STEP);
        descriptor(address, at, 1, self.descriptor_high())
    }

    /// Returns the descriptor of the operand whose depth is the tokens, for one k-step: V of the output.
    ///
    /// MN-major: the leading offset is that between panels.
    #[inline(always)]
    pub const fn by_rows(self, address: u32, step: u32) -> u64 {
        let at = step * STEP * self.swizzle().bytes();
        descriptor(address, at, self.panel_bytes() >> 4, self.descriptor_high())
    }
}

/// Puts a descriptor together, of what is `at` bytes into a tile; base offset 0, tiles being aligned.
///
/// The distance is added last: a tile's descriptors are one number and constants.
#[inline(always)]
const fn descriptor(address: u32, at: u32, leading: u32, high: u32) -> u64 {
    // Addresses of shared memory end far below 2^18: no mask, and no carry into the next field.
    ((high as u64) << 32 | (leading << 16 | address >> 4) as u64) + (at >> 4) as u64
}

#[cfg(test)]
mod tests;
