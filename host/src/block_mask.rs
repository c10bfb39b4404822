//! Which key blocks each query block attends to, in FlexAttention's format.

use std::sync::Arc;

use crate::token_order::BlockLayout;

/// A block mask: for every head and query block an ascending list of key blocks.
///
/// Row `(b, h, i)` keeps `kv_num_blocks[(b * heads + h) * q_blocks + i]` key blocks, listed in ascending order at
/// `kv_indices[((b * heads + h) * q_blocks + i) * max_blocks ..]`. Entries past the count are 0 and mean nothing.
/// Every listed block is a full block in FlexAttention's sense: all pairs of its tokens are computed. Blocks may
/// be ragged (see [`BlockLayout`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMask {
    batch_heads: usize,
    q_layout: Arc<BlockLayout>,
    kv_layout: Arc<BlockLayout>,
    kv_num_blocks: Vec<i32>,
    kv_indices: Vec<i32>,
    max_blocks: usize,
}

/// Lists that are no block mask: says which row and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a block mask: {0}")]
pub struct BlockMaskError(String);

impl BlockMask {
    /// Makes a mask from its lists.
    ///
    /// `kv_num_blocks` is `[batch_heads, q_blocks]`, `kv_indices` is `[batch_heads, q_blocks, max_blocks]`.
    ///
    /// # Errors
    /// When sizes disagree, a count exceeds `max_blocks`, or a list is not strictly ascending within the key
    /// blocks.
    pub fn new(
        batch_heads: usize,
        q_layout: Arc<BlockLayout>,
        kv_layout: Arc<BlockLayout>,
        kv_num_blocks: Vec<i32>,
        kv_indices: Vec<i32>,
        max_blocks: usize,
    ) -> Result<Self, BlockMaskError> {
        let rows = batch_heads * q_layout.blocks();
        if kv_num_blocks.len() != rows || kv_indices.len() != rows * max_blocks {
            return Err(BlockMaskError(format!(
                "expected {rows} counts and {rows} x {max_blocks} indices, got {} and {}",
                kv_num_blocks.len(),
                kv_indices.len()
            )));
        }
        for (row, &count) in kv_num_blocks.iter().enumerate() {
            if count < 0 || count as usize > max_blocks {
                return Err(BlockMaskError(format!(
                    "row {row} counts {count} blocks of at most {max_blocks}"
                )));
            }
            let list = &kv_indices[row * max_blocks..][..count as usize];
            let in_range = list.iter().all(|&b| b >= 0 && (b as usize) < kv_layout.blocks());
            if !in_range || !list.is_sorted_by(|a, b| a < b) {
                return Err(BlockMaskError(format!(
                    "row {row} must list key blocks 0..{} in strictly ascending order, got {list:?}",
                    kv_layout.blocks()
                )));
            }
        }
        Ok(Self { batch_heads, q_layout, kv_layout, kv_num_blocks, kv_indices, max_blocks })
    }

    /// Makes a mask that keeps every block for which `keep(head, query block, key block)` holds.
    pub fn from_fn(
        batch_heads: usize,
        q_layout: Arc<BlockLayout>,
        kv_layout: Arc<BlockLayout>,
        keep: impl Fn(usize, usize, usize) -> bool,
    ) -> Self {
        let lists: Vec<Vec<i32>> = (0..batch_heads * q_layout.blocks())
            .map(|row| {
                let (head, i) = (row / q_layout.blocks(), row % q_layout.blocks());
                (0..kv_layout.blocks()).filter(|&j| keep(head, i, j)).map(|j| j as i32).collect()
            })
            .collect();
        let max_blocks = lists.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut kv_indices = vec![0; lists.len() * max_blocks];
        for (slots, list) in kv_indices.chunks_exact_mut(max_blocks).zip(&lists) {
            slots[..list.len()].copy_from_slice(list);
        }
        let kv_num_blocks = lists.iter().map(|list| list.len() as i32).collect();
        Self { batch_heads, q_layout, kv_layout, kv_num_blocks, kv_indices, max_blocks }
    }

    /// Returns how much neighbouring rows have in common: the mean over neighbours of a head of |both| / |either|, 1 for
    /// rows alike or a single row, 0 for rows without a common block. Kernels that load the union of several rows' blocks
    /// gain by it.
    pub fn neighbour_overlap(&self) -> f64 {
        let rows = self.q_layout.blocks();
        let list = |row: usize| &self.kv_indices[row * self.max_blocks..][..self.kv_num_blocks[row] as usize];
        let (mut sum, mut pairs) = (0.0, 0u64);
        for head in 0..self.batch_heads {
            for row in head * rows + 1..(head + 1) * rows {
                let (a, b) = (list(row - 1), list(row));
                let both = a.iter().filter(|block| b.binary_search(block).is_ok()).count();
                let either = a.len() + b.len() - both;
                sum += if either == 0 { 1.0 } else { both as f64 / either as f64 };
                pairs += 1;
            }
        }
        if pairs == 0 { 1.0 } else { sum / pairs as f64 }
    }

    /// Returns batch times heads.
    pub fn batch_heads(&self) -> usize {
        self.batch_heads
    }

    /// Returns how the queries are cut into blocks.
    pub fn q_layout(&self) -> &Arc<BlockLayout> {
        &self.q_layout
    }

    /// Returns how the keys are cut into blocks.
    pub fn kv_layout(&self) -> &Arc<BlockLayout> {
        &self.kv_layout
    }

    /// Returns the counts, `[batch_heads, q_blocks]`.
    pub fn kv_num_blocks(&self) -> &[i32] {
        &self.kv_num_blocks
    }

    /// Returns the lists, `[batch_heads, q_blocks, max_blocks]`.
    pub fn kv_indices(&self) -> &[i32] {
        &self.kv_indices
    }

    /// Returns the entries per row of the lists.
    pub fn max_blocks(&self) -> usize {
        self.max_blocks
    }

    /// Returns the key blocks of one row, ascending.
    pub fn row(&self, head: usize, q_block: usize) -> &[i32] {
        let row = head * self.q_layout.blocks() + q_block;
        &self.kv_indices[row * self.max_blocks..][..self.kv_num_blocks[row] as usize]
    }

    /// Returns the number of kept blocks of one head.
    pub fn kept_blocks(&self, head: usize) -> usize {
        let q_blocks = self.q_layout.blocks();
        self.kv_num_blocks[head * q_blocks..][..q_blocks].iter().map(|&n| n as usize).sum()
    }

    /// Returns kept blocks over all blocks of one head.
    pub fn head_density(&self, head: usize) -> f64 {
        self.kept_blocks(head) as f64 / (self.q_layout.blocks() * self.kv_layout.blocks()) as f64
    }

    /// Returns kept blocks over all blocks.
    pub fn density(&self) -> f64 {
        (0..self.batch_heads).map(|h| self.head_density(h)).sum::<f64>() / self.batch_heads as f64
    }

    /// Returns the number of query-key pairs computed, all heads together; ragged blocks count what they hold.
    pub fn kept_pairs(&self) -> u64 {
        let mut pairs = 0;
        for head in 0..self.batch_heads {
            for i in 0..self.q_layout.blocks() {
                let keys: usize =
                    self.row(head, i).iter().map(|&j| self.kv_layout.range(j as usize).len()).sum();
                pairs += self.q_layout.range(i).len() as u64 * keys as u64;
            }
        }
        pairs
    }

    /// Returns the mask as one byte per block, `[batch_heads, q_blocks, kv_blocks]`, 1 where kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (q_blocks, kv_blocks) = (self.q_layout.blocks(), self.kv_layout.blocks());
        let mut bytes = vec![0; self.batch_heads * q_blocks * kv_blocks];
        for (row, cells) in bytes.chunks_exact_mut(kv_blocks).enumerate() {
            for &j in self.row(row / q_blocks, row % q_blocks) {
                cells[j as usize] = 1;
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(tokens: usize) -> Arc<BlockLayout> {
        Arc::new(BlockLayout::linear(tokens, 64).unwrap())
    }

    #[test]
    fn counts_density_and_pairs_of_a_ragged_mask() {
        let mask = BlockMask::from_fn(1, layout(100), layout(200), |_, i, j| i == 0 || j == 3);
        assert_eq!(mask.kv_num_blocks(), [4, 1]);
        assert_eq!(mask.row(0, 1), [3]);
        assert_eq!(mask.density(), 5.0 / 8.0);
        assert_eq!(mask.kept_pairs(), 64 * 200 + 36 * 8);
        assert_eq!(mask.to_bytes(), [1, 1, 1, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn overlap_is_what_neighbours_share() {
        let overlap = |keep: fn(usize, usize) -> bool| {
            BlockMask::from_fn(2, layout(256), layout(256), |_, i, j| keep(i, j)).neighbour_overlap()
        };
        assert_eq!(overlap(|_, j| j < 2), 1.0);
        assert_eq!(overlap(|i, j| i == j), 0.0);
        // {0}, {0, 1}, {1, 2}, {2, 3}: a half, a third, a third.
        let staircase = overlap(|i, j| j == i || j + 1 == i);
        assert!((staircase - (1.0 / 2.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12, "{staircase}");
    }

    #[test]
    fn broken_lists_are_refused() {
        let make = |counts: Vec<i32>, indices: Vec<i32>, max| {
            BlockMask::new(1, layout(128), layout(128), counts, indices, max).unwrap_err().to_string()
        };
        assert!(make(vec![1], vec![0, 0], 1).contains("expected 2 counts"));
        assert!(make(vec![1, 2], vec![0, 1], 1).contains("row 1 counts 2"));
        assert!(make(vec![1, 2], vec![0, 0, 1, 0], 2).contains("ascending"));
        assert!(make(vec![1, 1], vec![0, 0, 2, 0], 2).contains("0..2"));
    }
}
