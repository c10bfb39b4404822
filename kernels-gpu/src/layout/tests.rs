use std::{collections::BTreeSet, vec::Vec};

use super::*;

/// Chunks per row of head dimensions 32, 64, 96 and 128.
const WIDTHS: [u32; 4] = [4, 8, 12, 16];
const ROWS: u32 = 128;

/// The groups of four banks that an access of 16 bytes touches: one of eight.
fn bank_group(offset: u32) -> u32 {
    offset / CHUNK_BYTES % 8
}

#[test]
fn a_tile_is_stored_without_gap_or_overlap() {
    for chunks in WIDTHS {
        let places: BTreeSet<u32> =
            (0..ROWS).flat_map(|row| (0..chunks).map(move |chunk| tile_offset(chunks, row, chunk))).collect();
        let expected: BTreeSet<u32> = (0..ROWS * chunks).map(|i| i * CHUNK_BYTES).collect();
        assert_eq!(places, expected, "{chunks} chunks a row");
    }
}

#[test]
fn a_row_keeps_its_chunks() {
    for chunks in WIDTHS {
        for row in 0..ROWS {
            for chunk in 0..chunks {
                assert!(swizzle(chunks, row, chunk) < chunks, "{chunks} chunks, row {row}, chunk {chunk}");
            }
        }
    }
}

#[test]
fn the_eight_rows_of_a_matrix_lie_in_different_banks() {
    for chunks in WIDTHS {
        for first in (0..ROWS).step_by(8) {
            for chunk in 0..chunks {
                let groups: BTreeSet<u32> =
                    (first..first + 8).map(|row| bank_group(tile_offset(chunks, row, chunk))).collect();
                assert_eq!(groups.len(), 8, "{chunks} chunks, rows from {first}, chunk {chunk}");
            }
        }
    }
}

#[test]
fn consecutive_chunks_are_written_to_different_banks() {
    // Eight lanes of `cp.async` write eight consecutive chunks; a row of 12 makes them cross into the next row.
    for chunks in [8, 16] {
        for first in (0..ROWS * chunks).step_by(8) {
            let groups: BTreeSet<u32> =
                (first..first + 8).map(|i| bank_group(tile_offset(chunks, i / chunks, i % chunks))).collect();
            assert_eq!(groups.len(), 8, "{chunks} chunks, from {first}");
        }
    }
}

#[test]
fn the_swizzle_repeats_after_its_period() {
    for chunks in WIDTHS {
        for row in 0..ROWS {
            for chunk in 0..chunks {
                assert_eq!(swizzle(chunks, row + SWIZZLE_PERIOD, chunk), swizzle(chunks, row, chunk));
                // Whole groups of swizzled chunks further is as far in shared memory.
                let group = if chunks % 8 == 0 { 8 } else { 4 };
                let first = swizzle(chunks, row, chunk % group);
                assert_eq!(swizzle(chunks, row, chunk), first + chunk / group * group);
            }
        }
    }
}

#[test]
fn advancing_an_address_is_addressing_the_chunk() {
    // Any base that dynamic shared memory and the slots in it have.
    for base in [0, 1024, 64 * 192] {
        for chunks in WIDTHS {
            for row in 0..ROWS {
                for chunk in 0..chunks {
                    let first = base + tile_offset(chunks, row, chunk % 2);
                    let moved = advance(chunks, first, chunk - chunk % 2);
                    assert_eq!(moved, base + tile_offset(chunks, row, chunk), "{chunks}, {row}, {chunk}");
                }
            }
        }
    }
}

/// The four matrices `ldmatrix.x4` loads: row `lane % 8` of matrix `lane / 8` is where `address` points the lane;
/// afterwards a lane holds elements `2 (lane % 4)` and the next of row `lane / 4`, or of that column if transposed.
/// Returns (row, column) of the tile for [lane][matrix][half].
fn ldmatrix(address: impl Fn(u32) -> (u32, u32), transposed: bool) -> Vec<[[(u32, u32); 2]; 4]> {
    let element = |matrix: u32, row: u32, column: u32| {
        let (tile_row, chunk) = address(matrix * 8 + row);
        (tile_row, chunk * CHUNK_ELEMENTS + column)
    };
    (0..32)
        .map(|lane: u32| {
            [0, 1, 2, 3].map(|matrix| {
                [0, 1].map(|half| {
                    let (row, column) = (lane / 4, lane % 4 * 2 + half);
                    if transposed { element(matrix, column, row) } else { element(matrix, row, column) }
                })
            })
        })
        .collect()
}

#[test]
fn queries_load_as_the_a_operand() {
    let loaded = ldmatrix(ldmatrix_columns_last, false);
    for lane in 0..32 {
        for i in 0..4 {
            for half in 0..2 {
                assert_eq!(loaded[lane as usize][i as usize][half as usize], a_element(lane, i, half));
            }
        }
    }
}

#[test]
fn keys_load_as_two_b_operands() {
    // A tile of 16 keys x 16 dimensions; B is [dimension][key].
    let loaded = ldmatrix(ldmatrix_rows_last, false);
    for lane in 0..32 {
        for operand in 0..2 {
            for i in 0..2 {
                for half in 0..2 {
                    let (k, n) = b_element(lane, i, half);
                    let got = loaded[lane as usize][(2 * operand + i) as usize][half as usize];
                    assert_eq!(got, (8 * operand + n, k), "lane {lane}, operand {operand}, register {i}");
                }
            }
        }
    }
}

#[test]
fn values_load_transposed_as_two_b_operands() {
    // A tile of 16 keys x 16 dimensions; B is [key][dimension].
    let loaded = ldmatrix(ldmatrix_columns_last, true);
    for lane in 0..32 {
        for operand in 0..2 {
            for i in 0..2 {
                for half in 0..2 {
                    let (k, n) = b_element(lane, i, half);
                    let got = loaded[lane as usize][(2 * operand + i) as usize][half as usize];
                    assert_eq!(got, (k, 8 * operand + n), "lane {lane}, operand {operand}, register {i}");
                }
            }
        }
    }
}

#[test]
fn two_accumulators_are_an_a_operand() {
    // Scores of keys 0..8 and 8..16, packed in pairs: register 2j + i of A is registers 2i, 2i + 1 of fragment j.
    for lane in 0..32 {
        for fragment in 0..2 {
            for i in 0..4 {
                let (row, column) = accumulator_element(lane, i);
                let a = a_element(lane, 2 * fragment + i / 2, i % 2);
                assert_eq!(a, (row, 8 * fragment + column));
            }
        }
    }
}

#[test]
fn fragments_are_those_of_the_isa() {
    // Lines of the tables in "Matrix Fragments for mma.m16n8k16": lane 5 is group 1, thread 1 of it.
    assert_eq!([0, 1, 2, 3].map(|i| accumulator_element(5, i)), [(1, 2), (1, 3), (9, 2), (9, 3)]);
    let a: Vec<_> = (0..4).flat_map(|i| [a_element(5, i, 0), a_element(5, i, 1)]).collect();
    assert_eq!(a, [(1, 2), (1, 3), (9, 2), (9, 3), (1, 10), (1, 11), (9, 10), (9, 11)]);
    let b: Vec<_> = (0..2).flat_map(|i| [b_element(5, i, 0), b_element(5, i, 1)]).collect();
    assert_eq!(b, [(2, 1), (3, 1), (10, 1), (11, 1)]);
}

#[test]
fn fragments_cover_each_element_once() {
    let count = |elements: Vec<(u32, u32)>| {
        let distinct: BTreeSet<_> = elements.iter().copied().collect();
        assert_eq!(distinct.len(), elements.len());
        distinct.len()
    };
    let lanes = || 0..32;
    assert_eq!(count(lanes().flat_map(|l| (0..4).map(move |i| accumulator_element(l, i))).collect()), 128);
    assert_eq!(count(lanes().flat_map(|l| (0..8).map(move |i| a_element(l, i / 2, i % 2))).collect()), 256);
    assert_eq!(count(lanes().flat_map(|l| (0..4).map(move |i| b_element(l, i / 2, i % 2))).collect()), 128);
}
