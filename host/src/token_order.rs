//! Token order: raster order to block order and back. Blocks are patches (fractal flattening), or runs of tokens that each
//! head sorts by an order of the grid's axes.

use std::{fmt, str::FromStr, sync::Arc};

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

/// An order of a grid's axes, from the slowest to the fastest, that tokens are sorted by: of `hwt`, tokens of one place
/// stand side by side, frame after frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AxisOrder {
    /// Frames, rows, columns: raster order.
    Thw,
    /// Frames, columns, rows.
    Twh,
    /// Rows, frames, columns.
    Htw,
    /// Rows, columns, frames.
    Hwt,
    /// Columns, frames, rows.
    Wth,
    /// Columns, rows, frames.
    Wht,
}

impl AxisOrder {
    /// All six.
    pub const ALL: [Self; 6] = [Self::Thw, Self::Twh, Self::Htw, Self::Hwt, Self::Wth, Self::Wht];

    /// Returns its name: the axes' letters from the slowest to the fastest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thw => "thw",
            Self::Twh => "twh",
            Self::Htw => "htw",
            Self::Hwt => "hwt",
            Self::Wth => "wth",
            Self::Wht => "wht",
        }
    }

    /// Returns the axes from the slowest to the fastest: 0 frames, 1 rows, 2 columns.
    const fn axes(self) -> [usize; 3] {
        match self {
            Self::Thw => [0, 1, 2],
            Self::Twh => [0, 2, 1],
            Self::Htw => [1, 0, 2],
            Self::Hwt => [1, 2, 0],
            Self::Wth => [2, 0, 1],
            Self::Wht => [2, 1, 0],
        }
    }

    /// Lists the raster indices of a grid's tokens in this order.
    fn sorted(self, grid: Grid) -> impl Iterator<Item = u32> {
        let extents = [grid.t, grid.h, grid.w];
        let strides = [grid.h * grid.w, grid.w, 1];
        let [slow, middle, fast] = self.axes();
        (0..extents[slow]).flat_map(move |i| {
            (0..extents[middle]).flat_map(move |j| {
                let row = i * strides[slow] + j * strides[middle];
                (0..extents[fast]).map(move |k| (row + k * strides[fast]) as u32)
            })
        })
    }
}

impl fmt::Display for AxisOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AxisOrder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.into_iter().find(|order| order.name() == text);
        found.ok_or_else(|| ParseError::new("an order of axes: thw, twh, htw, hwt, wth or wht", text))
    }
}

/// What decides the order of tokens and where blocks end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrangement {
    /// Blocks are patches of one frame; those of a plain sequence, runs of its tokens as they stand.
    Patches,
    /// Blocks are runs of a grid's tokens, sorted by an order of axes: one for all heads, or one for each of
    /// `batch * heads`. See [`Arrangement::sorted`].
    Sorted(Vec<AxisOrder>),
}

impl Arrangement {
    /// Sorts the tokens of each head by an order of axes; one is enough where all heads have the same.
    pub fn sorted(of_heads: Vec<AxisOrder>) -> Self {
        Self::Sorted(one_if_alike(of_heads))
    }

    /// Returns the names of the orders that tokens are sorted by, with commas between them; `None` if blocks are patches.
    pub fn sorted_by(&self) -> Option<String> {
        match self {
            Self::Patches => None,
            Self::Sorted(of_heads) => {
                Some(of_heads.iter().map(|order| order.name()).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Keeps one order where all heads have the same.
fn one_if_alike(mut of_heads: Vec<AxisOrder>) -> Vec<AxisOrder> {
    if of_heads.windows(2).all(|pair| pair[0] == pair[1]) {
        of_heads.truncate(1);
    }
    of_heads
}

impl fmt::Display for Arrangement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sorted_by() {
            None => f.write_str("blocks that are patches of one frame, or tokens as they stand"),
            Some(names) => write!(f, "blocks that are runs of tokens sorted by {names}"),
        }
    }
}

/// For each position the token that is taken there: one table for all heads, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadTables {
    tokens: usize,
    all: Vec<u32>,
}

impl HeadTables {
    /// Returns the entries of one table.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the number of tables: 1 for all heads, or batch times heads.
    pub fn count(&self) -> usize {
        self.all.len() / self.tokens
    }

    /// Returns every table, one after the other: `[count, tokens]`.
    pub fn all(&self) -> &[u32] {
        &self.all
    }

    /// Returns the table of a head.
    pub fn of(&self, head: usize) -> &[u32] {
        &self.all[head % self.count() * self.tokens..][..self.tokens]
    }

    /// Returns for each token the position at which it is taken.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let mut all = vec![0; self.all.len()];
        for (inverse, table) in all.chunks_exact_mut(self.tokens).zip(self.all.chunks_exact(self.tokens)) {
            for (position, &token) in table.iter().enumerate() {
                inverse[token as usize] = position as u32;
            }
        }
        Self { tokens: self.tokens, all }
    }
}

/// A permutation of each head's tokens from raster order to block order, with the blocks it makes contiguous: the same ends
/// for all heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOrder {
    source: HeadTables,
    layout: Arc<BlockLayout>,
    arrangement: Arrangement,
}

impl TokenOrder {
    fn shared(source: Vec<u32>, layout: BlockLayout) -> Self {
        let source = HeadTables { tokens: source.len(), all: source };
        Self { source, layout: Arc::new(layout), arrangement: Arrangement::Patches }
    }

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
        Ok(Self::shared(source, BlockLayout { block, starts, block_grid: Some(block_grid) }))
    }

    /// Keeps a plain sequence as it is, in blocks of `block` tokens.
    ///
    /// # Errors
    /// When `seqlen` or `block` is 0, or `seqlen` does not fit `u32`.
    pub fn linear(seqlen: usize, block: usize) -> Result<Self, ParseError> {
        let layout = BlockLayout::linear(seqlen, block)?;
        Ok(Self::shared((0..seqlen as u32).collect(), layout))
    }

    /// Sorts the tokens of a video by an order of axes and cuts them into runs of `block`; the last one may be ragged.
    ///
    /// That is what PAROAttention does to each head, arXiv 2506.16054. `of_heads` holds one order for all heads, or one for
    /// each of `batch * heads`; blocks end at the same positions in all of them.
    ///
    /// # Errors
    /// When there is no order, or `block` is 0.
    pub fn sorted(grid: Grid, of_heads: &[AxisOrder], block: usize) -> Result<Self, ParseError> {
        if of_heads.is_empty() {
            return Err(ParseError::new("an order of axes for all heads or for each", "none"));
        }
        let tokens = grid.tokens();
        let layout = Arc::new(BlockLayout::linear(tokens, block)?);
        let of_heads = one_if_alike(of_heads.to_vec());
        let all = of_heads.iter().flat_map(|order| order.sorted(grid)).collect();
        Ok(Self { source: HeadTables { tokens, all }, layout, arrangement: Arrangement::Sorted(of_heads) })
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

    /// Orders the tokens of a problem as an arrangement says.
    ///
    /// # Errors
    /// When the block size does not suit the grid or sequence, or tokens without a grid are to be sorted.
    pub fn arranged(
        grid: Option<Grid>,
        seqlen: usize,
        block: usize,
        arrangement: &Arrangement,
    ) -> Result<Self, ParseError> {
        match (arrangement, grid) {
            (Arrangement::Patches, _) => Self::new(grid, seqlen, block),
            (Arrangement::Sorted(of_heads), Some(grid)) => Self::sorted(grid, of_heads, block),
            (Arrangement::Sorted(_), None) => {
                Err(ParseError::new(format!("a token grid for {arrangement}"), "a plain sequence"))
            }
        }
    }

    /// Returns for each position in a head's block order the raster index of its token.
    pub fn source(&self, head: usize) -> &[u32] {
        self.source.of(head)
    }

    /// Returns [`TokenOrder::source`] of all heads.
    pub fn tables(&self) -> &HeadTables {
        &self.source
    }

    /// Returns for each raster index the position of its token in a head's block order.
    pub fn inverse(&self) -> HeadTables {
        self.source.inverse()
    }

    /// Returns the blocks this order makes contiguous, in every head.
    pub fn layout(&self) -> &Arc<BlockLayout> {
        &self.layout
    }

    /// Returns what decides this order.
    pub fn arrangement(&self) -> &Arrangement {
        &self.arrangement
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fractal_order_of_8_by_16_is_two_patches() {
        let order = TokenOrder::fractal(Grid { t: 1, h: 8, w: 16 }, 64).unwrap();
        assert_eq!(order.source(0)[..9], [0, 1, 2, 3, 4, 5, 6, 7, 16]);
        assert_eq!(order.source(0)[64..66], [8, 9]);
        assert_eq!(order.layout().starts(), [0, 64, 128]);
    }

    #[test]
    fn edge_blocks_hold_the_tokens_that_exist() {
        let order = TokenOrder::fractal(Grid { t: 2, h: 9, w: 10 }, 64).unwrap();
        assert_eq!(order.layout().starts(), [0, 64, 80, 88, 90, 154, 170, 178, 180]);
        assert_eq!(order.layout().block_grid(), Some(Grid { t: 2, h: 2, w: 2 }));
    }

    #[test]
    fn each_head_sorts_its_tokens_by_its_order_of_axes() {
        // 2 frames of 2 rows of 3 columns:  0  1  2 |  6  7  8
        //                                   3  4  5 |  9 10 11
        let grid = Grid { t: 2, h: 2, w: 3 };
        let order = TokenOrder::sorted(grid, &AxisOrder::ALL, 5).unwrap();
        assert_eq!(order.layout().starts(), [0, 5, 10, 12]);
        assert_eq!(order.layout().block_grid(), None);
        let expected: [[u32; 12]; 6] = [
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11],
            [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11],
            [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11],
            [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11],
            [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11],
        ];
        let inverse = order.inverse();
        for (head, (expected, axes)) in expected.iter().zip(AxisOrder::ALL).enumerate() {
            assert_eq!(order.source(head), expected, "{axes}");
            for (position, &token) in expected.iter().enumerate() {
                assert_eq!(inverse.of(head)[token as usize] as usize, position, "{axes}");
            }
            assert_eq!(axes.name().parse::<AxisOrder>().unwrap(), axes);
        }
        assert_eq!((order.tables().count(), order.tables().tokens()), (6, 12));
    }

    #[test]
    fn heads_of_one_order_share_a_table() {
        let grid = Grid { t: 2, h: 2, w: 3 };
        let alike = TokenOrder::sorted(grid, &[AxisOrder::Hwt; 4], 5).unwrap();
        assert_eq!(alike, TokenOrder::sorted(grid, &[AxisOrder::Hwt], 5).unwrap());
        assert_eq!((alike.tables().count(), alike.source(3)), (1, alike.source(0)));
        assert!(TokenOrder::sorted(grid, &[], 5).is_err());
        let message = "tow".parse::<AxisOrder>().unwrap_err().to_string();
        assert!(message.contains("thw") && message.contains("tow"), "{message}");
        let sorted = Arrangement::sorted(vec![AxisOrder::Thw, AxisOrder::Wht]);
        let message = TokenOrder::arranged(None, 12, 5, &sorted).unwrap_err().to_string();
        assert!(message.contains("token grid") && message.contains("thw,wht"), "{message}");
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
            for (position, &raster) in order.source(0).iter().enumerate() {
                prop_assert_eq!(inverse.of(0)[raster as usize] as usize, position);
            }
            let mut seen = order.source(0).to_vec();
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
