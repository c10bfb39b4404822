//! A bit for each head, query block and key block.

/// Which blocks are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    q_blocks: usize,
    kv_blocks: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Bits {
    /// Makes bits that are all clear.
    pub(super) fn new(heads: usize, q_blocks: usize, kv_blocks: usize) -> Self {
        let words = kv_blocks.div_ceil(64);
        Self { q_blocks, kv_blocks, words, bits: vec![0; heads * q_blocks * words] }
    }

    fn row_start(&self, head: usize, i: usize) -> usize {
        (head * self.q_blocks + i) * self.words
    }

    /// Keeps a block.
    pub fn set(&mut self, head: usize, i: usize, j: usize) {
        let at = self.row_start(head, i) + j / 64;
        self.bits[at] |= 1 << (j % 64);
    }

    /// Says whether a block is kept.
    pub fn get(&self, head: usize, i: usize, j: usize) -> bool {
        self.bits[self.row_start(head, i) + j / 64] >> (j % 64) & 1 == 1
    }

    /// Keeps every block of a row.
    pub fn set_row(&mut self, head: usize, i: usize) {
        (0..self.kv_blocks).for_each(|j| self.set(head, i, j));
    }

    /// Keeps the blocks of every head for which `keep(query block, key block)` holds.
    pub(super) fn set_where(&mut self, keep: impl Fn(usize, usize) -> bool) {
        let of_head = self.q_blocks * self.words;
        if of_head == 0 {
            return;
        }
        let (first, rest) = self.bits.split_at_mut(of_head);
        for (i, row) in first.chunks_exact_mut(self.words).enumerate() {
            for j in (0..self.kv_blocks).filter(|&j| keep(i, j)) {
                row[j / 64] |= 1 << (j % 64);
            }
        }
        rest.chunks_exact_mut(of_head).for_each(|head| head.copy_from_slice(first));
    }

    /// Takes the bits of one head from others of the same size.
    pub(super) fn copy_head(&mut self, from: &Self, head: usize) {
        let range = self.row_start(head, 0)..self.row_start(head + 1, 0);
        self.bits[range.clone()].copy_from_slice(&from.bits[range]);
    }

    /// Keeps what either keeps.
    pub(super) fn unite(&mut self, other: &Self) {
        self.bits.iter_mut().zip(&other.bits).for_each(|(own, other)| *own |= other);
    }

    /// Keeps what both keep.
    pub(super) fn intersect(&mut self, other: &Self) {
        self.bits.iter_mut().zip(&other.bits).for_each(|(own, other)| *own &= other);
    }

    /// Returns the words, row by row.
    pub(super) fn into_words(self) -> Vec<u64> {
        self.bits
    }
}
