//! The producer: one warp that walks the keys, writes a note of each tile, and starts its copies.

use super::{Job, Place, Ring};
use crate::{
    config::{Config, MAX_SIDE},
    hopper::{MAX_PARTS, Note, Part, Turn, Turns},
    kernels::union::SharedWalk,
    panels::Tile,
    ptx::{self, hopper},
};

/// A walk and the place in the ring where its next tile goes.
pub(super) struct Producer<C, W> {
    ring: Ring<C>,
    job: Job,
    place: Place,
    walk: W,
    turns: Turns,
}

/// Where the parts of a tile begin.
type Parts = [u32; MAX_PARTS as usize];

/// Before all tokens: what is copied from there is zeros.
const NOWHERE: u32 = -(MAX_SIDE as i32) as u32;

impl<C: Config, W: SharedWalk> Producer<C, W> {
    #[inline(always)]
    pub(super) fn new(ring: Ring<C>, job: Job, place: Place, walk: W, turns: Turns) -> Self {
        Self { ring, job, place, walk, turns }
    }

    /// Fills slots until there are no more tiles; returns where the next walk starts.
    ///
    /// The keys of a tile go before the values of the one before: in this order consumers need them.
    ///
    /// # Safety
    /// All lanes of one warp come here, with barriers made.
    #[inline(always)]
    pub(super) unsafe fn run(mut self) -> Turns {
        let c = const { C::CONSTANTS };
        // SAFETY: the caller's.
        unsafe {
            let mut turns = self.turns;
            // The tile whose values are due, if any.
            let (mut due, mut parts, mut values) = (0, [0; MAX_PARTS as usize], turns.values(&c));
            loop {
                // A number the compiler does not know: it would write the first tile out before the loop.
                due = ptx::opaque(due);
                let next = self.fill_keys::<false>(turns.keys());
                if due != 0 {
                    self.fill_values::<false>(values, parts);
                }
                let Some(found) = next else { break };
                (due, parts, values) = (1, found, turns.values(&c));
                turns = turns.next(&c);
            }
            if c.work.is_persistent() {
                // The end is a slot like any, with nothing in it.
                self.ring.wait_for_room_for_values(turns.values(&c));
                if hopper::elect() {
                    hopper::arrive(self.ring.values_there(turns.values(&c)));
                }
                turns = turns.next(&c);
            }
            turns
        }
    }

    /// Puts the next tile into the next slot, keys and values, or the end; returns whether it was a tile.
    ///
    /// # Safety
    /// As for [`Producer::run`]; not again after the end.
    #[inline(always)]
    unsafe fn fill<const FRESH: bool>(&mut self) -> bool {
        let c = const { C::CONSTANTS };
        // SAFETY: the caller's.
        unsafe {
            let Some(parts) = self.fill_keys::<FRESH>(self.turns.keys()) else { return false };
            self.fill_values::<FRESH>(self.turns.values(&c), parts);
        }
        self.turns = self.turns.next(&c);
        true
    }

    /// Waits for room for keys and puts the next tile's there, with its note; or the end. Returns where the parts of the
    /// tile begin. Slots that are `FRESH`, in the first time around, have room.
    ///
    /// # Safety
    /// As for [`Producer::run`]; not again after the end.
    #[inline(always)]
    unsafe fn fill_keys<const FRESH: bool>(&mut self, turn: Turn) -> Option<Parts> {
        let c = const { C::CONSTANTS };
        let ring = self.ring;
        // SAFETY: the caller's; tiles lie within the keys, and there is room for what is copied.
        unsafe {
            let (parts, note) = self.next_tile();
            let one = hopper::elect();
            if !FRESH {
                ring.wait_for_room_for_keys(turn);
            }
            if note.is_end() {
                if one {
                    ring.write_note(turn, Note::END);
                    hopper::arrive(ring.keys_there(turn));
                }
                return None;
            }
            if one {
                ring.write_note(turn, note);
                self.copy(ring.keys(turn), self.job.maps.k, parts, ring.keys_there(turn));
            }
            Some(parts)
        }
    }

    /// Waits for room for values and puts those of a tile there.
    ///
    /// # Safety
    /// As for [`Producer::run`], with the parts of a tile.
    #[inline(always)]
    unsafe fn fill_values<const FRESH: bool>(&self, turn: Turn, parts: Parts) {
        let ring = self.ring;
        // SAFETY: the caller's.
        unsafe {
            let one = hopper::elect();
            if !FRESH {
                ring.wait_for_room_for_values(turn);
            }
            if one {
                self.copy(ring.values(turn), self.job.maps.v, parts, ring.values_there(turn));
            }
        }
    }

    /// Takes the next tile from the walk: where its parts begin, and what this block's consumers need to know.
    ///
    /// # Safety
    /// As for [`Producer::run`].
    #[inline(always)]
    unsafe fn next_tile(&mut self) -> (Parts, Note) {
        let c = const { C::CONSTANTS };
        let mine =
            |wanted: u32| wanted >> (self.place.rank::<C>() * c.consumers()) & ((1 << c.consumers()) - 1);
        // SAFETY: the caller's.
        unsafe {
            let first = self.walk.next(c.walk_step());
            let told = Part { keys: first.tile.keys, wanted: mine(first.wanted) };
            if !c.pairs {
                let parts = [first.tile.first, first.tile.first + c.key_box().rows];
                return (parts, Note::new([told, Part { keys: 0, wanted: 0 }]));
            }
            let second = self.walk.next(c.walk_step());
            let nothing = second.tile.keys == 0;
            let parts = [first.tile.first, if nothing { NOWHERE } else { second.tile.first }];
            let wanted = if nothing { 0 } else { mine(second.wanted) };
            (parts, Note::new([told, Part { keys: second.tile.keys, wanted }]))
        }
    }

    /// Arrives at a barrier and starts the copies of a tile, a panel of a part each; in a cluster those of the part that is
    /// this block's, for all blocks.
    ///
    /// # Safety
    /// One thread's: there is room for the tile everywhere, `barrier` is its own, and the map one of its tensor.
    #[inline(always)]
    unsafe fn copy(&self, to: u32, map: *const u8, parts: Parts, barrier: u32) {
        let c = const { C::CONSTANTS };
        let (tile, part) = (c.key_tile(), c.key_box());
        // SAFETY: the caller's. Copies count all bytes of a box, also of what lies outside the tensor.
        unsafe {
            hopper::arrive_expecting(barrier, tile.bytes());
            for panel in 0..tile.panels() {
                let (column, to) = (panel * tile.panel_columns(), to + panel * tile.panel_bytes());
                if c.cluster > 1 {
                    let rank = self.place.rank::<C>();
                    let first = if rank == 0 { parts[0] } else { parts[1] };
                    let from = [column, first, self.place.bh];
                    hopper::copy_box_to(0b11, to + rank * part.panel_bytes(), map, from, barrier);
                } else {
                    for i in 0..c.parts() {
                        let from = [column, parts[i as usize], self.place.bh];
                        hopper::copy_box(to + i * part.panel_bytes(), map, from, barrier);
                    }
                }
            }
        }
    }
}

/// Arrives at a barrier and starts the copies of a tile, a panel each; `at` is its first element.
///
/// # Safety
/// One thread's: there is room for the tile, `barrier` is its own, and the map one of its tensor.
#[inline(always)]
pub(super) unsafe fn copy_tile(tile: Tile, to: u32, map: *const u8, at: [u32; 3], barrier: u32) {
    // SAFETY: the caller's. Copies count all bytes of a box, also of what lies outside the tensor.
    unsafe {
        hopper::arrive_expecting(barrier, tile.bytes());
        for panel in 0..tile.panels() {
            let from = [at[0] + panel * tile.panel_columns(), at[1], at[2]];
            hopper::copy_box(to + panel * tile.panel_bytes(), map, from, barrier);
        }
    }
}

/// Who fills the ring, as a consumer sees it.
pub(super) trait Feeder {
    /// Fills all slots, before the first tile is used.
    ///
    /// # Safety
    /// All threads of the consumer come here, with barriers made.
    unsafe fn start(&mut self);

    /// Fills the slot that was left an iteration ago, if any.
    ///
    /// # Safety
    /// As for [`Feeder::start`].
    unsafe fn refill(&mut self);

    /// Tells that this warp has left a slot: keys and values, in the order of tiles.
    fn slot_is_left(&mut self);
}

/// The producer is another warpgroup's.
pub(super) struct Separate;

impl Feeder for Separate {
    #[inline(always)]
    unsafe fn start(&mut self) {}

    #[inline(always)]
    unsafe fn refill(&mut self) {}

    #[inline(always)]
    fn slot_is_left(&mut self) {}
}

/// The producer is the first warp of the only consumer.
///
/// It waits for the other warps to leave a slot, too, so it fills that an iteration later: they have left it then.
pub(super) struct Inline<C, W> {
    /// Whether this is that warp, and there are tiles left.
    active: bool,
    /// Whether there is a slot to fill.
    due: bool,
    producer: Producer<C, W>,
}

impl<C: Config, W: SharedWalk> Inline<C, W> {
    #[inline(always)]
    pub(super) fn new(is_first_warp: bool, producer: Producer<C, W>) -> Self {
        Self { active: is_first_warp, due: false, producer }
    }

    /// Fills the next slot, unless the end has been told.
    ///
    /// # Safety
    /// As for [`Producer::run`], if this is the first warp.
    #[inline(always)]
    unsafe fn fill<const FRESH: bool>(&mut self) {
        if self.active {
            // SAFETY: the caller's.
            self.active = unsafe { self.producer.fill::<FRESH>() };
        }
    }
}

impl<C: Config, W: SharedWalk> Feeder for Inline<C, W> {
    #[inline(always)]
    unsafe fn start(&mut self) {
        let mut slot = 0;
        // Not unrolled: once is enough in the code.
        while slot < ptx::opaque(const { C::CONSTANTS.stages }) {
            // SAFETY: the caller's.
            unsafe { self.fill::<true>() };
            slot += 1;
        }
    }

    #[inline(always)]
    unsafe fn refill(&mut self) {
        if self.due {
            // SAFETY: the caller's.
            unsafe { self.fill::<false>() };
        }
    }

    #[inline(always)]
    fn slot_is_left(&mut self) {
        self.due = true;
    }
}
