//! The ring of stages: who may touch which slot when.
//!
//! ```text
//!                      keys_there, values_there: one arrival, of the producer, and the bytes of the copy
//!   producer fills ──────────────────────────────────────────────────────────────────────────────────────► consumers
//!             ◄──────────────────────────────────────────────────────────────────────────────────── each warp leaves
//!                      keys_used, values_used: an arrival of every warp of every consumer, whether it wanted the tile
//! ```
//! In a cluster each block of threads has a ring, and each producer fills a part of every slot of all rings: a slot has
//! room when the consumers of all blocks have left theirs, so they arrive everywhere.
//!
//! Every consumer waits for every tile, also for the values of one it skips: its parities could otherwise name a phase
//! that is not over yet.

use core::marker::PhantomData;

use crate::{
    config::Config,
    hopper::{GROUP_WARPS, Note, SharedMap, Turn},
    ptx::{self, hopper},
};

/// The ring of a block of threads, at its place in shared memory.
pub(super) struct Ring<C> {
    shared: u32,
    /// The same place in the other block of threads of the cluster, if there is one.
    peer: u32,
    constants: PhantomData<C>,
}

impl<C> Clone for Ring<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Ring<C> {}

impl<C: Config> Ring<C> {
    const MAP: SharedMap = SharedMap::of(&C::CONSTANTS);

    /// Finds the ring.
    #[inline(always)]
    pub(super) fn new() -> Self {
        let shared = ptx::shared_base();
        let clustered = const { C::CONSTANTS.cluster > 1 };
        let peer = if clustered { hopper::in_block(hopper::rank() ^ 1, shared) } else { shared };
        Self { shared, peer, constants: PhantomData }
    }

    /// Makes all barriers; a barrier of the block, or cluster, must follow before anyone uses them.
    ///
    /// # Safety
    /// All lanes of one warp come here.
    #[inline(always)]
    pub(super) unsafe fn make_barriers(self) {
        let c = const { C::CONSTANTS };
        let warps = c.lists() * GROUP_WARPS;
        // SAFETY: barriers lie within `SharedMap::bytes`, and nobody has them yet.
        unsafe {
            if !hopper::elect() {
                return;
            }
            for consumer in 0..c.consumers() {
                hopper::barrier_init(self.queries_there(consumer), 1);
            }
            for slot in 0..c.stages {
                hopper::barrier_init(self.shared + Self::MAP.keys_there(slot), 1);
                hopper::barrier_init(self.shared + Self::MAP.keys_used(slot), warps);
            }
            for slot in 0..c.value_stages {
                hopper::barrier_init(self.shared + Self::MAP.values_there(slot), 1);
                hopper::barrier_init(self.shared + Self::MAP.values_used(slot), warps);
            }
            hopper::publish_barriers();
        }
    }

    /// Returns the address of a consumer's query tile.
    #[inline(always)]
    pub(super) fn queries(self, consumer: u32) -> u32 {
        self.shared + Self::MAP.queries(consumer)
    }

    /// Returns the barrier of a consumer's queries.
    #[inline(always)]
    pub(super) fn queries_there(self, consumer: u32) -> u32 {
        self.shared + Self::MAP.queries_there(consumer)
    }

    /// Returns the address of a key tile.
    #[inline(always)]
    pub(super) fn keys(self, turn: Turn) -> u32 {
        self.shared + Self::MAP.keys(turn.slot)
    }

    /// Returns the address of a value tile.
    #[inline(always)]
    pub(super) fn values(self, turn: Turn) -> u32 {
        self.shared + Self::MAP.values(turn.slot)
    }

    /// Returns the barrier on which a copy of keys counts.
    #[inline(always)]
    pub(super) fn keys_there(self, turn: Turn) -> u32 {
        self.shared + Self::MAP.keys_there(turn.slot)
    }

    /// Returns the barrier on which a copy of values counts.
    #[inline(always)]
    pub(super) fn values_there(self, turn: Turn) -> u32 {
        self.shared + Self::MAP.values_there(turn.slot)
    }

    /// Waits until all consumers have left the keys that were in the slot before, and its note.
    ///
    /// # Safety
    /// The producer's, before it fills the slot.
    #[inline(always)]
    pub(super) unsafe fn wait_for_room_for_keys(self, turn: Turn) {
        // The first time around, the phase before the first counts as over.
        // SAFETY: the caller's.
        unsafe { self.wait_for_room(Self::MAP.keys_used(turn.slot), turn) }
    }

    /// Waits until all consumers have left the values that were in the slot before.
    ///
    /// # Safety
    /// The producer's, before it fills the slot.
    #[inline(always)]
    pub(super) unsafe fn wait_for_room_for_values(self, turn: Turn) {
        // SAFETY: the caller's.
        unsafe { self.wait_for_room(Self::MAP.values_used(turn.slot), turn) }
    }

    /// Waits for the phase before this turn's.
    ///
    /// # Safety
    /// As for [`Ring::wait_for_room_for_keys`].
    #[inline(always)]
    unsafe fn wait_for_room(self, barrier: u32, turn: Turn) {
        // SAFETY: the caller's.
        unsafe {
            if const { C::CONSTANTS.cluster > 1 } {
                // Consumers of the other block read what this producer's copy will overwrite.
                hopper::wait_for_cluster(self.shared + barrier, turn.parity ^ 1);
            } else {
                hopper::wait(self.shared + barrier, turn.parity ^ 1);
            }
        }
    }

    /// Writes the note of a slot; released by the producer's arrival for its keys.
    ///
    /// # Safety
    /// One thread's, with room for keys.
    #[inline(always)]
    pub(super) unsafe fn write_note(self, turn: Turn, note: Note) {
        // SAFETY: the caller's.
        unsafe { ptx::store_shared_word(self.shared + Self::MAP.note(turn.slot), note.bits()) }
    }

    /// Waits until the keys and the note of a slot are there, and returns the note.
    ///
    /// # Safety
    /// A consumer's, once a turn.
    #[inline(always)]
    pub(super) unsafe fn wait_for_keys(self, turn: Turn) -> Note {
        // SAFETY: the caller's; the note was written before the arrival that this waits for.
        unsafe {
            hopper::wait(self.keys_there(turn), turn.parity);
            Note::from_bits(ptx::uniform(ptx::load_shared_word(self.shared + Self::MAP.note(turn.slot))))
        }
    }

    /// Waits until the values of a slot are there.
    ///
    /// # Safety
    /// A consumer's, once a turn.
    #[inline(always)]
    pub(super) unsafe fn wait_for_values(self, turn: Turn) {
        // SAFETY: the caller's.
        unsafe { hopper::wait(self.values_there(turn), turn.parity) }
    }

    /// Leaves the keys of a slot, and its note, for this warp.
    ///
    /// # Safety
    /// A consumer's, once a turn; all lanes of the warp come here, and nothing of it reads them any more.
    #[inline(always)]
    pub(super) unsafe fn leave_keys(self, turn: Turn) {
        // SAFETY: the caller's.
        unsafe { self.leave(Self::MAP.keys_used(turn.slot)) }
    }

    /// Leaves the values of a slot, for this warp.
    ///
    /// # Safety
    /// As for [`Ring::leave_keys`].
    #[inline(always)]
    pub(super) unsafe fn leave_values(self, turn: Turn) {
        // SAFETY: the caller's.
        unsafe { self.leave(Self::MAP.values_used(turn.slot)) }
    }

    /// Arrives once for the warp, after all its lanes, wherever a producer waits for it.
    ///
    /// # Safety
    /// All lanes of the warp come here; an arrival of the warp is due.
    #[inline(always)]
    unsafe fn leave(self, barrier: u32) {
        // SAFETY: the caller's.
        unsafe {
            ptx::warp_barrier();
            if hopper::elect() {
                hopper::arrive(self.shared + barrier);
                if const { C::CONSTANTS.cluster > 1 } {
                    hopper::arrive_in_cluster(self.peer + barrier);
                }
            }
        }
    }
}
