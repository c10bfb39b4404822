//! Where things lie: tiles in shared memory, matrix fragments in registers.
//!
//! A tile is `rows x head_dim` 16-bit elements, cut into chunks of 16 bytes, the unit of `cp.async` and of a row of
//! `ldmatrix`. Rows follow each other without padding; the chunks of a row are permuted by [`swizzle`]:
//!
//! ```text
//!          chunk 0 1 2 3 4 5 6 7        (head_dim 64: a row is all 32 banks)
//!   row 0        0 1 2 3 4 5 6 7
//!   row 1        1 0 3 2 5 4 7 6        the eight rows of an 8x8 matrix at one chunk
//!   row 2        2 3 0 1 6 7 4 5        lie in eight different groups of four banks
//!   ...
//! ```
//!
//! Fragment functions say which element of a matrix a lane holds, by the tables of the PTX ISA, "Matrix Fragments for
//! mma.m16n8k16 with floating point type" and "ldmatrix".

/// Bytes of a chunk.
pub const CHUNK_BYTES: u32 = 16;
/// 16-bit elements of a chunk.
pub const CHUNK_ELEMENTS: u32 = 8;
/// Rows after which [`swizzle`] repeats.
pub const SWIZZLE_PERIOD: u32 = 8;

/// Returns the bits of a chunk's number that [`swizzle`] may change; `chunks` per row, a multiple of 4.
const fn swizzled_bits(chunks: u32) -> u32 {
    if chunks.is_multiple_of(8) { 7 } else { 3 }
}

/// Returns the place of `chunk` within its row; `chunks` per row, a multiple of 4.
///
/// A permutation of each row, and free of bank conflicts for `ldmatrix`.
#[inline(always)]
pub const fn swizzle(chunks: u32, row: u32, chunk: u32) -> u32 {
    if chunks.is_multiple_of(8) {
        // A row starts at bank 0: eight rows need eight different chunks.
        chunk ^ (row & 7)
    } else {
        // Rows start at banks 0 and 16 in turn: two of eight rows share a chunk, and XOR below 4 stays in the row.
        chunk ^ (row >> 1 & 3)
    }
}

/// Moves the address of chunk 0 or 1 of a row by an even number of chunks.
///
/// A lane works its first address out once: rows are aligned to the swizzled bits, so that the swizzle of all further
/// chunks of the row is one exclusive or, and what lies above those bits an offset the load instruction holds itself.
#[inline(always)]
pub const fn advance(chunks: u32, address: u32, by: u32) -> u32 {
    let swizzled = by & swizzled_bits(chunks);
    (address ^ (swizzled * CHUNK_BYTES)) + (by - swizzled) * CHUNK_BYTES
}

/// Returns the byte offset of a chunk in a tile of `chunks` chunks a row.
#[inline(always)]
pub const fn tile_offset(chunks: u32, row: u32, chunk: u32) -> u32 {
    (row * chunks + swizzle(chunks, row, chunk)) * CHUNK_BYTES
}

/// Returns row and chunk a lane addresses to load a 16x16 tile as the A operand, or, transposed, as the B operand.
///
/// Matrices 0..4 of `ldmatrix.x4` are the quadrants (top left, bottom left, top right, bottom right): as A that is
/// a0..a3; with `.trans`, of a tile `k x n`, it is b0, b1 of the left eight columns, then of the right.
#[inline(always)]
pub const fn ldmatrix_columns_last(lane: u32) -> (u32, u32) {
    (lane % 16, lane / 16)
}

/// Returns row and chunk a lane addresses to load a 16x16 tile `n x k` as two B operands, without `.trans`.
///
/// Matrices 0..4 of `ldmatrix.x4` are (top left, top right, bottom left, bottom right): b0, b1 of the upper eight rows,
/// then of the lower.
#[inline(always)]
pub const fn ldmatrix_rows_last(lane: u32) -> (u32, u32) {
    (lane / 16 * 8 + lane % 8, lane / 8 % 2)
}

/// Returns row and column of the accumulator of `mma.m16n8k16` that `lane` holds in register `i` of 4.
#[inline(always)]
pub const fn accumulator_element(lane: u32, i: u32) -> (u32, u32) {
    (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2)
}

/// Returns row and column of A (16x16) that `lane` holds in half `half` of register `i` of 4.
#[inline(always)]
pub const fn a_element(lane: u32, i: u32, half: u32) -> (u32, u32) {
    (lane / 4 + i % 2 * 8, lane % 4 * 2 + half + i / 2 * 8)
}

/// Returns row and column of B (16x8) that `lane` holds in half `half` of register `i` of 2.
#[inline(always)]
pub const fn b_element(lane: u32, i: u32, half: u32) -> (u32, u32) {
    (lane % 4 * 2 + half + i * 8, lane / 4)
}

#[cfg(test)]
mod tests;
