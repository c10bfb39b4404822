//! Token order: raster order to block order (fractal flattening) and back.

use std::sync::Arc;

use crate::{Grid, ParseError};

/// Mask block sizes a video grid can be cut into, with the patch (rows, columns) each one is.
pub const PATCHES: [(usize, (usize, usize)); 3] = [(32, (4, 8)), (64, (8, 8)), (128, (8, 16))];

/// Where the blocks of a token sequence in block order begin and end.
///
/// The tokens of a block are contiguous; block `b` spans tokens `starts[b]..starts[b + 1]`. Blocks at the right
/// and lower edge of a frame are ragged when the patch does not divide the grid, so lengths differ anywhere in
/// the sequence; nothing is padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockLayout {
    block: usize,
    starts: Vec<u32>,
    block_grid: Option<Grid>,
}

impl BlockLayout {
    /// Cuts a plain sequence of `seqlen` tokens into blocks of `block`; the last one may be ragged.
    ///
    /// # Errors
    /// When `seqlen` or `block` is 0, or `seqlen` does not fit `u32`.
    pub fn linear(seqlen: usize, block: usize) -> Result<Self, ParseError> {
        if block == 0 || seqlen == 0 || u32::try_from(seqlen).is_err() {
            return Err(ParseError::new(
                "a sequence of 1 to 4294967295 tokens in blocks of at least 1",
                format!("{seqlen} tokens in blocks of {block}"),
            ));
        }
        let starts = (0..seqlen).step_by(block).chain([seqlen]).map(|s| s as u32).collect();
        Ok(Self { block, starts, block_grid: None })
    }

    /// Returns the nominal tokens per block; no block is longer.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Returns the first token of every block and the end: `blocks + 1` entries.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.starts[self.blocks()] as usize
    }

    /// Returns the tokens of one block.
    pub fn range(&self, block: usize) -> std::ops::Range<usize> {
        self.starts[block] as usize..self.starts[block + 1] as usize
    }

    /// Returns the grid of blocks (frames, block rows, block columns) of a video; `None` for a plain sequence.
    pub fn block_grid(&self) -> Option<Grid> {
        self.block_grid
    }
}

/// A permutation of tokens from raster order to block order, with the blocks it makes contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOrder {
    source: Vec<u32>,
    layout: Arc<BlockLayout>,
}

impl TokenOrder {
    /// Orders the tokens of a video so that each block is one patch of one frame.
    ///
    /// Blocks run frame by frame, patch row by patch row, and tokens within a patch row by row: the published
    /// `b t (h 8) (w 8) c -> b t (h w) (8 8) c` for 64-token blocks, extended to 32 (4x8) and 128 (8x16) tokens
    /// and to grids the patch does not divide, whose edge blocks hold the tokens that exist.
    ///
    /// # Errors
    /// When `block` is not 32, 64 or 128.
    pub fn fractal(grid: Grid, block: usize) -> Result<Self, ParseError> {
        let Some((_, (patch_h, patch_w))) = PATCHES.into_iter().find(|(size, _)| *size == block) else {
            return Err(ParseError::new("a video mask block of 32, 64 or 128 tokens", block.to_string()));
        };
        let block_grid = Grid { t: grid.t, h: grid.h.div_ceil(patch_h), w: grid.w.div_ceil(patch_w) };
        let mut source = Vec::with_capacity(grid.tokens());
        let mut starts = Vec::with_capacity(block_grid.tokens() + 1);
        for t in 0..grid.t {
            for block_h in 0..block_grid.h {
                for block_w in 0..block_grid.w {
                    starts.push(source.len() as u32);
                    for h in block_h * patch_h..grid.h.min((block_h + 1) * patch_h) {
                        for w in block_w * patch_w..grid.w.min((block_w + 1) * patch_w) {
                            source.push(((t * grid.h + h) * grid.w + w) as u32);
                        }
                    }
                }
            }
        }
        starts.push(source.len() as u32);
        let layout = BlockLayout { block, starts, block_grid: Some(block_grid) };
        Ok(Self { source, layout: Arc::new(layout) })
    }

    /// Keeps a plain sequence as it is, in blocks of `block` tokens.
    ///
    /// # Errors
    /// When `seqlen` or `block` is 0, or `seqlen` does not fit `u32`.
    pub fn linear(seqlen: usize, block: usize) -> Result<Self, ParseError> {
        let layout = BlockLayout::linear(seqlen, block)?;
        Ok(Self { source: (0..seqlen as u32).collect(), layout: Arc::new(layout) })
    }

    /// Orders the tokens of a problem: by patches if it has a grid, else as they stand.
    ///
    /// # Errors
    /// When the block size does not suit the grid or sequence.
    pub fn new(grid: Option<Grid>, seqlen: usize, block: usize) -> Result<Self, ParseError> {
        match grid {
            Some(grid) => Self::fractal(grid, block),
            None => Self::linear(seqlen, block),
        }
    }

    /// Returns for each position in block order the raster index of its token.
    pub fn source(&self) -> &[u32] {
        &self.source
    }

    /// Returns for each raster index the position of its token in block order.
    pub fn inverse(&self) -> Vec<u32> {
        let mut inverse = vec![0; self.source.len()];
        for (position, &raster) in self.source.iter().enumerate() {
            inverse[raster as usize] = position as u32;
        }
        inverse
    }

    /// Returns the blocks this order makes contiguous.
    pub fn layout(&self) -> &Arc<BlockLayout> {
        &self.layout
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fractal_order_of_8_by_16_is_two_patches() {
        let order = TokenOrder::fractal(Grid { t: 1, h: 8, w: 16 }, 64).unwrap();
        assert_eq!(order.source()[..9], [0, 1, 2, 3, 4, 5, 6, 7, 16]);
        assert_eq!(order.source()[64..66], [8, 9]);
        assert_eq!(order.layout().starts(), [0, 64, 128]);
    }

    #[test]
    fn edge_blocks_hold_the_tokens_that_exist() {
        let order = TokenOrder::fractal(Grid { t: 2, h: 9, w: 10 }, 64).unwrap();
        assert_eq!(order.layout().starts(), [0, 64, 80, 88, 90, 154, 170, 178, 180]);
        assert_eq!(order.layout().block_grid(), Some(Grid { t: 2, h: 2, w: 2 }));
    }

    #[test]
    fn other_block_sizes_are_refused_by_name() {
        let message = TokenOrder::fractal(Grid { t: 1, h: 8, w: 8 }, 48).unwrap_err().to_string();
        assert!(message.contains("32, 64 or 128") && message.contains("48"), "{message}");
    }

    proptest! {
        #[test]
        fn reorder_is_a_bijection_for_any_grid(
            t in 1usize..5, h in 1usize..40, w in 1usize..40, block in prop::sample::select(vec![32usize, 64, 128])
        ) {
            let order = TokenOrder::fractal(Grid { t, h, w }, block).unwrap();
            let inverse = order.inverse();
            for (position, &raster) in order.source().iter().enumerate() {
                prop_assert_eq!(inverse[raster as usize] as usize, position);
            }
            let mut seen = order.source().to_vec();
            seen.sort_unstable();
            prop_assert!(seen.iter().enumerate().all(|(i, &s)| i == s as usize));
            let layout = order.layout();
            prop_assert_eq!(layout.tokens(), t * h * w);
            for b in 0..layout.blocks() {
                prop_assert!((1..=block).contains(&layout.range(b).len()));
            }
        }
    }
}
