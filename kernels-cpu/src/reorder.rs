//! Token reorder: raster order to block order and back.

use crate::{ArgumentError, Executor, queue};

/// Bytes a thread copies at a time: some 10 us.
const BYTES_PER_ITEM: usize = 128 * 1024;

/// Gathers tokens: `out[bh, i, :] = x[bh, source[bh, i], :]` for tensors `[batch_heads, seqlen, row]`.
///
/// `source` is `[seqlen]`, for all heads, or `[batch_heads, seqlen]`; with permutations this is the reorder, with their
/// inverses the way back. `E` is any plain element, so one function serves every dtype. Runs of consecutive tokens, such
/// as the rows of an 8x8 patch, are copied at once.
///
/// # Errors
/// When a slice does not fit the sizes or an index points outside; nothing is written then.
pub fn gather_tokens<E: bytemuck::Pod + Send + Sync>(
    executor: &Executor,
    x: &[E],
    row: usize,
    seqlen: usize,
    source: &[u32],
    out: &mut [E],
) -> Result<(), ArgumentError> {
    for (name, size) in [("row", row), ("seqlen", seqlen)] {
        if size == 0 {
            return Err(ArgumentError::Value {
                name,
                got: "0".into(),
                requirement: "at least 1 is needed".into(),
            });
        }
    }
    if !x.len().is_multiple_of(seqlen * row) {
        let expected = x.len().div_ceil(seqlen * row) * seqlen * row;
        return Err(ArgumentError::Length { name: "x", expected, got: x.len() });
    }
    if out.len() != x.len() {
        return Err(ArgumentError::Length { name: "out", expected: x.len(), got: out.len() });
    }
    if source.len() != seqlen && source.len() * row != x.len() {
        let requirement =
            format!("{seqlen} for all heads, or as many for each of {}", x.len() / (seqlen * row));
        return Err(ArgumentError::Value { name: "source", got: source.len().to_string(), requirement });
    }
    let largest = source.iter().copied().max().unwrap_or(0);
    if largest as usize >= seqlen {
        return Err(ArgumentError::Value {
            name: "source",
            got: largest.to_string(),
            requirement: format!("indices lie below the {seqlen} tokens"),
        });
    }

    let tokens = (BYTES_PER_ITEM / (row * size_of::<E>()).max(1)).clamp(1, seqlen);
    // One table comes round for every head.
    let tables = source.chunks_exact(seqlen).cycle();
    let heads = out.chunks_mut(seqlen * row).zip(x.chunks(seqlen * row)).zip(tables);
    let items = heads.flat_map(|((out, x), source)| {
        out.chunks_mut(tokens * row).zip(source.chunks(tokens)).map(move |(out, source)| (out, source, x))
    });
    queue::for_each(
        executor,
        items,
        || (),
        |(), (mut out, source, x)| {
            for run in source.chunk_by(|a, b| a.wrapping_add(1) == *b) {
                let (to, rest) = out.split_at_mut(run.len() * row);
                to.copy_from_slice(&x[run[0] as usize * row..][..to.len()]);
                out = rest;
            }
        },
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;

    fn executor(threads: usize) -> Executor {
        Executor::new(threads, Isa::Portable, false).unwrap()
    }

    fn gather<E: bytemuck::Pod + Send + Sync>(x: &[E], row: usize, source: &[u32]) -> Vec<E> {
        let mut out = vec![E::zeroed(); x.len()];
        gather_tokens(&executor(2), x, row, source.len(), source, &mut out).unwrap();
        out
    }

    fn inverse(source: &[u32]) -> Vec<u32> {
        let mut inverse = vec![0; source.len()];
        source.iter().enumerate().for_each(|(i, &s)| inverse[s as usize] = i as u32);
        inverse
    }

    proptest! {
        #[test]
        fn the_inverse_leads_back(
            (source, heads, row) in (1..400usize, 1..4usize, 1..9usize)
                .prop_flat_map(|(n, h, r)| (Just((0..n as u32).collect::<Vec<_>>()).prop_shuffle(), Just(h), Just(r)))
        ) {
            let x: Vec<u32> = (0..(heads * source.len() * row) as u32).collect();
            let there = gather(&x, row, &source);
            for (i, token) in there.chunks(row).enumerate() {
                let (head, i) = (i / source.len(), i % source.len());
                prop_assert_eq!(token[0] as usize, (head * source.len() + source[i] as usize) * row);
            }
            prop_assert_eq!(gather(&there, row, &inverse(&source)), x);
        }
    }

    #[test]
    fn patches_and_repeated_tokens_are_gathered() {
        // 8x8 patches of a 2x16x24 grid, enough tokens for several items.
        let row = 512;
        let source: Vec<u32> = (0..768u32)
            .map(|i| {
                let (t, patch, y, x) = (i / 384, i / 64 % 6, i / 8 % 8, i % 8);
                (t * 16 + patch / 3 * 8 + y) * 24 + patch % 3 * 8 + x
            })
            .collect();
        let x: Vec<u16> = (0..768 * row).map(|i| (i % 65_521) as u16).collect();
        let there = gather(&x, row, &source);
        assert!(there.chunks(row).zip(&source).all(|(token, &s)| *token == x[s as usize * row..][..row]));
        assert_eq!(gather(&there, row, &inverse(&source)), x);
        assert_eq!(gather(&[5u8, 6, 7], 1, &[2, 2, 0]), [7, 7, 5]);
        assert_eq!(gather(&[bf16::ONE], 1, &[0]), [bf16::ONE]);
    }

    #[test]
    fn an_index_outside_is_refused_before_anything_is_written() {
        let mut out = [9u32; 6];
        let error = gather_tokens(&executor(1), &[1, 2, 3, 4, 5, 6], 2, 3, &[0, 1, 3], &mut out).unwrap_err();
        assert_eq!(error.to_string(), "source = 3: indices lie below the 3 tokens");
        assert_eq!(out, [9; 6]);
        assert!(gather_tokens(&executor(1), &[1, 2, 3, 4, 5, 6], 2, 3, &[0, 1, u32::MAX], &mut out).is_err());
    }

    #[test]
    fn each_head_has_the_order_of_its_own_table() {
        let x: Vec<u16> = (0..3 * 4 * 2).collect();
        let tables = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]];
        let mut out = vec![0; x.len()];
        gather_tokens(&executor(2), &x, 2, 4, tables.as_flattened(), &mut out).unwrap();
        for (head, table) in tables.iter().enumerate() {
            for (i, &token) in table.iter().enumerate() {
                let (to, from) = ((head * 4 + i) * 2, (head * 4 + token as usize) * 2);
                assert_eq!(out[to..to + 2], x[from..from + 2], "head {head}, place {i}");
            }
        }
        let error = gather_tokens(&executor(1), &x, 2, 4, &[0; 8], &mut out).unwrap_err().to_string();
        assert_eq!(error, "source = 8: 4 for all heads, or as many for each of 3");
    }

    #[test]
    fn the_argument_that_does_not_fit_is_named() {
        let call = |x: usize, row: usize, source: &[u32], out: usize| {
            let (x, mut out) = (vec![0u32; x], vec![0; out]);
            let error = gather_tokens(&executor(1), &x, row, source.len(), source, &mut out);
            error.unwrap_err().to_string()
        };
        assert_eq!(call(7, 2, &[0, 1], 7), "x: expected 8 elements, got 7");
        assert_eq!(call(8, 2, &[0, 1], 7), "out: expected 8 elements, got 7");
        assert!(call(8, 0, &[0, 1], 8).starts_with("row = 0"));
        assert!(call(8, 2, &[], 8).starts_with("seqlen = 0"));
    }
}
