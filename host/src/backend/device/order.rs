//! In which order blocks of threads that go on to more work take it: what takes longest first.
//!
//! Then the work that is left at the end is short, and no multiprocessor is idle for long while the others finish.

use crate::BlockMask;

/// Lists all groups of query tiles, head after head, those that read most key blocks first; among equals in the order of
/// heads and groups, so that blocks of threads side by side read the same keys. A group is `shared_by` query tiles, of
/// which every query block has `tiles`.
pub(super) fn longest_first(mask: &BlockMask, [groups, tiles, shared_by]: [usize; 3]) -> Vec<u32> {
    let (heads, q_blocks) = (mask.batch_heads(), mask.q_layout().blocks());
    // The union of the lists of a group, counted: the last group that each key block was seen in.
    let mut seen = vec![usize::MAX; mask.kv_layout().blocks()];
    let mut lengths = Vec::with_capacity(heads * groups);
    for index in 0..heads * groups {
        let first_tile = index % groups * shared_by;
        let mut length = 0;
        for block in (first_tile / tiles..=(first_tile + shared_by - 1) / tiles).filter(|&b| b < q_blocks) {
            for &kv_block in mask.row(index / groups, block) {
                length += usize::from(std::mem::replace(&mut seen[kv_block as usize], index) != index);
            }
        }
        lengths.push(length);
    }
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index as usize]));
    order
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Dtype, Problem, backend::Orders, variant::MaskBlock};

    /// A mask of 5 query blocks and 6 key blocks, one head: lists as given.
    fn mask(heads: usize, keeps: impl Fn(usize, usize, usize) -> bool) -> BlockMask {
        let problem = Problem {
            batch: 1,
            heads,
            seqlen_q: 5 * 64,
            seqlen_k: 6 * 64,
            head_dim: 64,
            dtype: Dtype::Bf16,
            softmax_scale: 1.0,
            grid: None,
        };
        let orders = Orders::new(&problem, MaskBlock::square(64)).unwrap();
        BlockMask::from_fn(heads, Arc::clone(orders.q.layout()), Arc::clone(orders.kv.layout()), keeps)
    }

    #[test]
    fn long_unions_come_first_and_equals_keep_their_order() {
        // Rows of 1, 2, 3, 0, 2 blocks: the first two share none, 2 and 3 have 3 in all, 4 is alone.
        let rows: [&[usize]; 5] = [&[5], &[0, 1], &[1, 2, 3], &[], &[0, 5]];
        let mask = mask(1, |_, i, j| rows[i].contains(&j));
        assert_eq!(longest_first(&mask, [5, 1, 1]), [2, 1, 4, 0, 3]);
        assert_eq!(longest_first(&mask, [3, 1, 2]), [0, 1, 2]);
        // Shared blocks count once: 3 in the first group, 3 in the second.
        assert_eq!(longest_first(&mask, [2, 1, 3]), [0, 1]);
    }

    #[test]
    fn tiles_of_one_query_block_have_its_length_and_heads_come_after_each_other() {
        let mask = mask(2, |head, i, j| j <= i + head);
        // Two tiles a block, one to a group: of head 1 each block has one more.
        let order = longest_first(&mask, [10, 2, 1]);
        assert_eq!(order[..6], [18, 19, 8, 9, 16, 17]);
        let mut all = order;
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<u32>>());
    }
}
