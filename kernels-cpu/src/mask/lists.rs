//! Lists of kept blocks from bitmaps.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{check_len, check_multiple, check_positive};
use crate::{ArgumentError, Executor, queue};

/// List entries a thread takes at a time, at least one row: some 10 us of writing.
const ENTRIES_PER_ITEM: usize = 16 * 1024;

/// Expands a bitmap into ascending lists: `kv_indices` is `[rows, max_blocks]`, unused entries become 0.
///
/// `bitmap` is `[rows, words_per_row]`, block `j` being bit `j % 64` of word `j / 64`.
///
/// # Errors
/// When a row has more than `max_blocks` bits (`kv_indices` then holds unspecified values) or a slice does not fit
/// the sizes.
pub fn expand_lists(
    executor: &Executor,
    bitmap: &[u64],
    words_per_row: usize,
    max_blocks: usize,
    kv_indices: &mut [i32],
) -> Result<(), ArgumentError> {
    check_positive("words_per_row", words_per_row)?;
    check_positive("max_blocks", max_blocks)?;
    let rows = check_multiple("bitmap", bitmap.len(), words_per_row)?;
    check_len("kv_indices", kv_indices.len(), rows * max_blocks)?;

    let longest = AtomicUsize::new(0);
    let per_item = (ENTRIES_PER_ITEM / max_blocks).max(1);
    let items = kv_indices.chunks_mut(per_item * max_blocks).zip(bitmap.chunks(per_item * words_per_row));
    queue::for_each(
        executor,
        items,
        || (),
        |(), (lists, bitmap)| {
            for (list, bits) in lists.chunks_exact_mut(max_blocks).zip(bitmap.chunks_exact(words_per_row)) {
                let count = bits.iter().map(|word| word.count_ones() as usize).sum();
                longest.fetch_max(count, Ordering::Relaxed);
                if count <= max_blocks {
                    expand_row(bits, list);
                }
            }
        },
    );
    let longest = longest.into_inner();
    if longest > max_blocks {
        return Err(ArgumentError::Value {
            name: "max_blocks",
            got: max_blocks.to_string(),
            requirement: format!("the longest row of the bitmap has {longest} blocks"),
        });
    }
    Ok(())
}

fn expand_row(bits: &[u64], list: &mut [i32]) {
    let mut rest = list.iter_mut();
    for (w, &word) in bits.iter().enumerate() {
        let mut word = word;
        while word != 0 {
            if let Some(entry) = rest.next() {
                *entry = (w * 64) as i32 + word.trailing_zeros() as i32;
            }
            word &= word - 1;
        }
    }
    rest.for_each(|entry| *entry = 0);
}
