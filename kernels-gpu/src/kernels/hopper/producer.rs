//! The producer: one warp that walks the keys, writes a note of each tile, and starts its copies.

use super::{Job, Ring};
use crate::{
    config::Config,
    hopper::{Note, Turn},
    kernels::union::SharedWalk,
    panels::Tile,
    ptx::{self, hopper},
};

/// A walk and the place in the ring where its next tile goes.
pub(super) struct Producer<C, W> {
    ring: Ring<C>,
    job: Job,
    bh: u32,
    walk: W,
    turn: Turn,
}

impl<C: Config, W: SharedWalk> Producer<C, W> {
    #[inline(always)]
    pub(super) fn new(ring: Ring<C>, job: Job, bh: u32, walk: W, turn: Turn) -> Self {
        Self { ring, job, bh, walk, turn }
    }

    /// Fills slots until there are no more tiles; returns where the next walk starts.
    ///
    /// # Safety
    /// All lanes of one warp come here, with barriers made.
    #[inline(always)]
    pub(super) unsafe fn run(mut self) -> Turn {
        // SAFETY: the caller's.
        unsafe { while self.fill::<false>() {} }
        self.turn
    }

    /// Waits for room in the next slot and puts the next tile there, or the end; returns whether it was a tile. Slots that
    /// are `FRESH`, in the first time around, have room.
    ///
    /// # Safety
    /// As for [`Producer::run`]; not again after the end.
    #[inline(always)]
    unsafe fn fill<const FRESH: bool>(&mut self) -> bool {
        let c = const { C::CONSTANTS };
        let (ring, turn) = (self.ring, self.turn);
        // SAFETY: the caller's; tiles lie within the keys, and there is room for what is copied.
        unsafe {
            let next = self.walk.next(c.block_n);
            let at = [0, next.tile.first, self.bh];
            let one = hopper::elect();
            if !FRESH {
                ring.wait_for_room_for_keys(turn);
            }
            if next.tile.keys == 0 {
                if one {
                    ring.write_note(turn, Note::END);
                    hopper::arrive(ring.keys_there(turn));
                }
                if c.work.is_persistent() {
                    // The end is a slot like any, with nothing in it.
                    ring.wait_for_room_for_values(turn);
                    if one {
                        hopper::arrive(ring.values_there(turn));
                    }
                    self.turn = turn.next(c.stages);
                }
                return false;
            }
            if one {
                ring.write_note(turn, Note::new(next.tile.keys, next.wanted));
                copy_tile(c.key_tile(), ring.keys(turn), self.job.maps.k, at, ring.keys_there(turn));
            }
            if !FRESH {
                ring.wait_for_room_for_values(turn);
            }
            if one {
                copy_tile(c.key_tile(), ring.values(turn), self.job.maps.v, at, ring.values_there(turn));
            }
        }
        self.turn = turn.next(c.stages);
        true
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
