use std::{collections::BTreeSet, vec::Vec};

use super::*;

fn constants(consumers: u32, producer: bool, stages: u32) -> Constants {
    let warps = (consumers + u32::from(producer)) * GROUP_WARPS;
    Constants { block_m: consumers * GROUP_ROWS, warps, stages, ..Constants::DEFAULT }
}

#[test]
fn registers_given_never_exceed_those_launched_with() {
    for consumers in 1..=MAX_CONSUMERS {
        for ctas_per_sm in 1..=2 {
            let c = Constants { ctas_per_sm, ..constants(consumers, true, 2) };
            let Some(split) = c.register_split() else {
                assert_eq!((consumers, ctas_per_sm), (1, 1), "only one block of 256 threads needs no split");
                continue;
            };
            let launched = 65_536 / (c.threads() * ctas_per_sm) / 8 * 8;
            assert!(split.producer + consumers * split.consumer <= launched * (consumers + 1), "{split:?}");
            // Giving makes fewer, taking makes more; both in eights, from 24 to 256.
            assert!(split.producer <= launched && launched <= split.consumer, "{split:?} of {launched}");
            assert!(split.producer >= 24 && split.consumer <= 256);
            assert!(split.producer.is_multiple_of(8) && split.consumer.is_multiple_of(8), "{split:?}");
        }
    }
    assert_eq!(constants(1, false, 2).register_split(), None);
    let two = constants(2, true, 2).register_split();
    assert_eq!(two, Some(RegisterSplit { producer: 40, consumer: 232 }));
}

#[test]
fn nothing_in_shared_memory_overlaps() {
    for consumers in 1..=MAX_CONSUMERS {
        for (stages, value_stages) in [(2, 2), (3, 3), (5, 4), (3, 2)] {
            let c = Constants { value_stages, ..constants(consumers, true, stages) };
            let map = SharedMap::of(&c);
            let mut places: Vec<(u32, u32)> = Vec::new();
            places.extend((0..consumers).map(|i| (map.queries(i), c.query_tile().bytes())));
            places.extend((0..consumers).map(|i| (map.queries_there(i), WORD)));
            for slot in 0..stages {
                places.push((map.keys(slot), c.key_tile().bytes()));
                let words = [map.keys_there(slot), map.keys_used(slot), map.note(slot)];
                places.extend(words.map(|at| (at, WORD)));
            }
            for slot in 0..value_stages {
                places.push((map.values(slot), c.key_tile().bytes()));
                places.extend([map.values_there(slot), map.values_used(slot)].map(|at| (at, WORD)));
            }
            places.sort_unstable();
            let mut end = 0;
            for (at, bytes) in places {
                assert_eq!(at, end, "a gap or an overlap");
                assert!(at.is_multiple_of(bytes.min(TILE_ALIGNMENT)));
                end = at + bytes;
            }
            assert_eq!(end, map.bytes());
        }
    }
}

#[test]
fn a_note_says_what_it_was_made_of() {
    let nothing = Part { keys: 0, wanted: 0 };
    let note = Note::from_bits(Note::new([Part { keys: 128, wanted: 0b101 }, nothing]).bits());
    assert_eq!((note.keys(), note.wanted(), note.is_end()), (128, 0b101, false));
    let pair = Note::new([Part { keys: 64, wanted: 0b001 }, Part { keys: 3, wanted: 0b110 }]);
    assert_eq!(
        [0, 1, 2].map(|consumer| [0, 1].map(|part| pair.keys_for(part, consumer))),
        [[64, 0], [0, 3], [0, 3]]
    );
    assert_eq!((pair.keys(), pair.wanted()), (64, 0b111));
    // A tile that only another block of threads wants is no end.
    assert!(!Note::new([Part { keys: 1, wanted: 0 }, nothing]).is_end() && Note::END.is_end());
}

#[test]
fn turns_change_parity_once_around() {
    let mut turn = Turn::FIRST;
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push((turn.slot, turn.parity));
        turn = turn.next(3);
    }
    assert_eq!(seen, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 0)]);
}

#[test]
fn boxes_are_what_the_hardware_takes() {
    for head_dim in [64, 96, 128] {
        for rows in [64, 128] {
            let tile = Tile { rows, head_dim };
            let map = TensorMap::of(tile);
            let [columns, box_rows, heads] = map.box_elements;
            // The innermost extent is at most the swizzle's, each extent at most 256.
            assert_eq!(columns * 2, map.swizzle.bytes());
            assert!(box_rows <= 256 && heads == 1);
            assert_eq!(columns * box_rows * 2, tile.panel_bytes());
        }
    }
    let distinct: BTreeSet<u32> = [64, 96, 128].map(|d| Tile { rows: 64, head_dim: d }.panels()).into();
    assert_eq!(distinct, [1, 2, 3].into());
}

#[test]
fn rings_of_keys_and_values_go_round_apart() {
    let c = Constants { value_stages: 2, ..constants(2, true, 3) };
    let mut turns = Turns::FIRST;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (keys, values) = (turns.keys(), turns.values(&c));
        seen.push((keys.slot, keys.parity, values.slot, values.parity));
        turns = turns.next(&c);
    }
    assert_eq!(seen, [(0, 0, 0, 0), (1, 0, 1, 0), (2, 0, 0, 1), (0, 1, 1, 1)]);
}

#[test]
fn what_is_shared_has_its_parts() {
    let one = constants(2, true, 2);
    assert_eq!((one.lists(), one.parts(), one.walk_step()), (2, 1, 64));
    let cluster = Constants { cluster: 2, ..one };
    assert_eq!((cluster.lists(), cluster.parts(), cluster.walk_step()), (4, 2, 64));
    let pairs = Constants { block_n: 128, pairs: true, ..one };
    assert_eq!((pairs.lists(), pairs.parts(), pairs.walk_step()), (2, 2, 64));
    assert_eq!(Constants { cluster: 2, ..pairs }.key_box(), Tile { rows: 64, head_dim: 128 });
}
