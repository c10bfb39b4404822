use std::collections::BTreeSet;

use super::*;

const TILES: [Tile; 6] = [
    Tile { rows: 64, head_dim: 64 },
    Tile { rows: 64, head_dim: 96 },
    Tile { rows: 64, head_dim: 128 },
    Tile { rows: 128, head_dim: 64 },
    Tile { rows: 128, head_dim: 96 },
    Tile { rows: 128, head_dim: 128 },
];
/// Where a tile may lie: not at 0, so that a lost address shows.
const ADDRESS: u32 = 5 * TILE_ALIGNMENT;

/// The fields of a descriptor, in bytes, by the table in "Matrix Descriptor Format".
struct Fields {
    address: u32,
    leading: u32,
    stride: u32,
    base_offset: u32,
    swizzle: u32,
}

fn fields(descriptor: u64) -> Fields {
    let bytes = |low: u32| ((descriptor >> low) as u32 & 0x3fff) << 4;
    Fields {
        address: bytes(0),
        leading: bytes(16),
        stride: bytes(32),
        base_offset: (descriptor >> 49) as u32 & 7,
        swizzle: (descriptor >> 62) as u32,
    }
}

/// The swizzle of a mode as the canonical layouts give it, `Swizzle<B, 4, 3>` on byte addresses.
fn swizzled(address: u32, bits: u32) -> u32 {
    address ^ ((address >> 7 & ((1 << bits) - 1)) << 4)
}

/// The address of element (row, k) of a 16-deep K-major operand: `((8,m),(T,2k)):((8T,SBO),(1,T))`, rows of 8T.
fn k_major(descriptor: u64, row: u32, k: u32) -> u32 {
    let f = fields(descriptor);
    let bits = 4 - f.swizzle;
    let width = 16 << bits;
    swizzled(f.address + row % 8 * width + row / 8 * f.stride + k * 2, bits)
}

/// The address of element (column, k) of a 16-deep MN-major operand: `((T,8,m),(8,k)):((1,T,LBO),(8T,SBO))`.
fn mn_major(descriptor: u64, column: u32, k: u32) -> u32 {
    let f = fields(descriptor);
    let bits = 4 - f.swizzle;
    let width = 16 << bits;
    let columns = width / 2;
    let linear =
        f.address + column % columns * 2 + column / columns * f.leading + k % 8 * width + k / 8 * f.stride;
    swizzled(linear, bits)
}

/// Where a tensor copy of box {panel columns, rows} puts an element, each panel one box.
fn copied(tile: Tile, row: u32, column: u32) -> u32 {
    let bits = if tile.swizzle() == Swizzle::Bytes128 { 3 } else { 2 };
    let panel = column / tile.panel_columns();
    let start = ADDRESS + panel * tile.panel_bytes();
    swizzled(start + (row * tile.panel_columns() + column % tile.panel_columns()) * 2, bits)
}

#[test]
fn a_tile_is_stored_without_gap_or_overlap() {
    for tile in TILES {
        let chunks = tile.head_dim / CHUNK_ELEMENTS;
        let places: BTreeSet<u32> = (0..tile.rows)
            .flat_map(|row| (0..chunks).map(move |chunk| tile.chunk_offset(row, chunk)))
            .collect();
        let expected: BTreeSet<u32> = (0..tile.rows * chunks).map(|i| i * CHUNK_BYTES).collect();
        assert_eq!(places, expected, "{tile:?}");
        assert_eq!(tile.bytes(), tile.panels() * tile.panel_bytes());
        assert_eq!(tile.bytes() % TILE_ALIGNMENT, 0, "{tile:?}: the next tile is not aligned");
        assert_eq!(tile.panel_bytes() % TILE_ALIGNMENT, 0, "{tile:?}: the next panel is not aligned");
    }
}

#[test]
fn chunks_lie_where_tensor_copies_put_them() {
    for tile in TILES {
        for row in 0..tile.rows {
            for column in 0..tile.head_dim {
                let chunk = tile.chunk_offset(row, column / CHUNK_ELEMENTS);
                assert_eq!(
                    ADDRESS + chunk + column % CHUNK_ELEMENTS * 2,
                    copied(tile, row, column),
                    "{tile:?}"
                );
            }
        }
    }
}

#[test]
fn queries_and_keys_are_read_where_they_were_copied_to() {
    for tile in TILES {
        for step in 0..tile.head_dim / STEP {
            let descriptor = tile.by_columns(ADDRESS, step);
            for row in 0..tile.rows {
                for k in 0..STEP {
                    let column = step * STEP + k;
                    assert_eq!(
                        k_major(descriptor, row, k),
                        copied(tile, row, column),
                        "{tile:?} {row} {column}"
                    );
                }
            }
        }
    }
}

#[test]
fn values_are_read_where_they_were_copied_to() {
    for tile in TILES {
        for step in 0..tile.rows / STEP {
            let descriptor = tile.by_rows(ADDRESS, step);
            for column in 0..tile.head_dim {
                for k in 0..STEP {
                    let row = step * STEP + k;
                    assert_eq!(
                        mn_major(descriptor, column, k),
                        copied(tile, row, column),
                        "{tile:?} {row} {column}"
                    );
                }
            }
        }
    }
}

#[test]
fn descriptors_have_the_fields_of_the_isa() {
    let tile = Tile { rows: 64, head_dim: 128 };
    let f = fields(tile.by_rows(ADDRESS, 1));
    assert_eq!((f.address, f.leading, f.stride), (ADDRESS + 16 * 128, 64 * 128, 1024));
    assert_eq!((f.base_offset, f.swizzle), (0, 1));
    let tile = Tile { rows: 64, head_dim: 96 };
    let f = fields(tile.by_columns(ADDRESS, 3));
    assert_eq!((f.address, f.leading, f.stride), (ADDRESS + 64 * 64 + 32, 16, 512));
    assert_eq!((f.base_offset, f.swizzle), (0, 2));
    // Bits that mean nothing are 0.
    for tile in TILES {
        let all = tile.by_rows(ADDRESS, 0) | tile.by_columns(ADDRESS, 0);
        assert_eq!(all & !(3 << 62 | 0x3fff << 32 | 0x3fff << 16 | 0x3fff), 0, "{tile:?}");
    }
}

#[test]
fn accumulators_are_written_without_bank_conflicts() {
    // A store of 4 bytes by a warp: row lane / 4, columns 2 (lane % 4) of one chunk.
    for tile in TILES {
        for chunk in 0..tile.head_dim / CHUNK_ELEMENTS {
            let banks: BTreeSet<u32> =
                (0..32).map(|lane| (tile.chunk_offset(lane / 4, chunk) + lane % 4 * 4) / 4 % 32).collect();
            assert_eq!(banks.len(), 32, "{tile:?}, chunk {chunk}");
        }
    }
}

#[test]
fn rows_are_read_back_with_few_bank_conflicts() {
    // A load of 16 bytes, eight lanes at a time: consecutive chunks of consecutive rows. Where a row is 12 chunks, the
    // eight lie in two panels of four, over the same banks.
    for tile in TILES {
        let chunks = tile.head_dim / CHUNK_ELEMENTS;
        for first in (0..64 * chunks).step_by(8) {
            let groups: BTreeSet<u32> = (first..first + 8)
                .map(|i| tile.chunk_offset(i / chunks, i % chunks) / CHUNK_BYTES % 8)
                .collect();
            let expected = if tile.head_dim == 96 { 4 } else { 8 };
            assert!(groups.len() >= expected, "{tile:?}, from {first}");
        }
    }
}
