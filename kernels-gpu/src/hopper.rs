//! What attention on compute capability 9.0a knows before a launch: its warpgroups, its shared memory, its tensor maps.
//!
//! Owns the derivations from [`Constants`] that device code and host share. `panels` owns the layout within a tile.

use crate::{
    config::Constants,
    panels::{Swizzle, TILE_ALIGNMENT, Tile},
};

/// Query rows of a warpgroup: the height of a `wgmma`.
pub const GROUP_ROWS: u32 = 64;
/// Warps of a warpgroup.
pub const GROUP_WARPS: u32 = 4;
/// Most warpgroups that compute.
pub const MAX_CONSUMERS: u32 = 3;
/// Most key tiles in shared memory, and most value tiles.
pub const MAX_STAGES: u32 = 8;
/// Most blocks of threads that share what they load.
pub const MAX_CLUSTER: u32 = 2;
/// Most lists that one producer walks: one for each lane of four.
pub const MAX_LISTS: u32 = 4;
/// Most parts of a key tile that are copied, or wanted, by themselves.
pub const MAX_PARTS: u32 = 2;
/// Bytes of a barrier in shared memory, and of what the producer says of a stage.
const WORD: u32 = 8;
/// Registers a thread can have.
const MAX_REGISTERS: u32 = 255;
/// Registers of a multiprocessor.
const MULTIPROCESSOR_REGISTERS: u32 = 65_536;
/// Unit in which warps give registers to each other.
const REGISTER_UNIT: u32 = 8;
/// Most registers a consumer is given: what is left is enough for a producer.
const MAX_CONSUMER_REGISTERS: u32 = 240;
/// Registers of a consumer besides its tiles, and where it goes on to more work: with fewer, ptxas 13.5 spills most of the
/// variants that were tried, with these one of 55 (`docs/kernel-notes.md`).
const OTHER_REGISTERS: u32 = 40;
const PERSISTENT_REGISTERS: u32 = 16;
/// Fewest registers the producer works with.
const MIN_PRODUCER_REGISTERS: u32 = 40;

/// Registers of a thread after warpgroups have given some to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterSplit {
    /// Of the producer's warpgroup.
    pub producer: u32,
    /// Of each other warpgroup.
    pub consumer: u32,
}

impl Constants {
    /// Returns how many warpgroups compute; each has 64 query rows.
    pub const fn consumers(&self) -> u32 {
        self.block_m / GROUP_ROWS
    }

    /// Says whether a warpgroup of its own starts the copies; else the first warp of the one that computes does.
    pub const fn has_producer(&self) -> bool {
        self.warps > self.consumers() * GROUP_WARPS
    }

    /// Returns how many query tiles share what is loaded: those of all blocks of threads of a cluster.
    pub const fn lists(&self) -> u32 {
        self.consumers() * self.cluster
    }

    /// Returns the parts of a key tile, of as many keys each: the blocks of a pair, or what each block of threads of a
    /// cluster copies.
    pub const fn parts(&self) -> u32 {
        if self.pairs || self.cluster > 1 { MAX_PARTS } else { 1 }
    }

    /// Returns the keys that are walked at a time.
    pub const fn walk_step(&self) -> u32 {
        if self.pairs { self.block_n / MAX_PARTS } else { self.block_n }
    }

    /// Says whether what is shared between warpgroups and between blocks of threads goes together, `sparse` attention or
    /// dense.
    ///
    /// # Errors
    /// What is not met, as a sentence.
    pub const fn check_sharing(&self, sparse: bool) -> Result<(), &'static str> {
        let Self { stages, value_stages, .. } = *self;
        // With more, room for values would never be waited for: the keys of the next tile are, first.
        if value_stages < 2 || value_stages > stages || value_stages + 1 < stages {
            return Err("value tiles are as many as key tiles or one less, and 2 at least");
        }
        if value_stages != stages && !self.has_producer() {
            return Err(
                "a warpgroup that loads for itself fills keys and values of a stage at once: there are as many \
                        of each",
            );
        }
        if self.ping_pong && self.consumers() == 1 {
            return Err("turns are taken by two or three warpgroups that compute");
        }
        if self.pairs && !sparse {
            return Err("dense attention has no lists whose blocks could be paired");
        }
        if self.pairs && self.block_n != 2 * GROUP_ROWS {
            return Err("a pair is two key blocks of 64 keys or less: block_n is 128");
        }
        if self.cluster == 0 || self.cluster > MAX_CLUSTER {
            return Err("a cluster is 1 or 2 blocks of threads");
        }
        if self.cluster > 1 && (!self.has_producer() || self.lists() > MAX_LISTS) {
            return Err("a cluster has producers, and 4 warpgroups that compute at most");
        }
        Ok(())
    }

    /// Returns the registers that warpgroups give to each other, if there is a producer and it gains anything.
    pub const fn register_split(&self) -> Option<RegisterSplit> {
        let threads = self.threads() * self.ctas_per_sm;
        let launched = MULTIPROCESSOR_REGISTERS / threads / REGISTER_UNIT * REGISTER_UNIT;
        if !self.has_producer() || launched > MAX_REGISTERS {
            return None;
        }
        let all = launched * (self.consumers() + 1);
        let mut consumer = (all - MIN_PRODUCER_REGISTERS) / self.consumers() / REGISTER_UNIT * REGISTER_UNIT;
        if consumer > MAX_CONSUMER_REGISTERS {
            consumer = MAX_CONSUMER_REGISTERS;
        }
        // No more than it was launched with: the producer only gives.
        let rest = all - consumer * self.consumers();
        let producer = if rest < launched { rest } else { launched };
        Some(RegisterSplit { producer, consumer })
    }

    /// Returns the registers of a thread that computes: the division's, or those it is launched with.
    pub const fn consumer_registers(&self) -> u32 {
        let launched =
            MULTIPROCESSOR_REGISTERS / (self.threads() * self.ctas_per_sm) / REGISTER_UNIT * REGISTER_UNIT;
        match self.register_split() {
            Some(split) => split.consumer,
            None if launched > MAX_REGISTERS => MAX_REGISTERS,
            None => launched,
        }
    }

    /// Returns the registers that a thread which computes cannot do without: output, scores, the weights of the tile
    /// before, and what else is alive.
    pub const fn needed_registers(&self) -> u32 {
        let further = if self.work.is_persistent() { PERSISTENT_REGISTERS } else { 0 };
        self.head_dim / 2 + self.block_n / 2 + self.block_n / 4 + OTHER_REGISTERS + further
    }

    /// Returns the shape of the query tile of a warpgroup.
    pub const fn query_tile(&self) -> Tile {
        Tile { rows: GROUP_ROWS, head_dim: self.head_dim }
    }

    /// Returns the shape of a key tile, which is that of a value tile.
    pub const fn key_tile(&self) -> Tile {
        Tile { rows: self.block_n, head_dim: self.head_dim }
    }

    /// Returns the shape of a part of a key tile.
    pub const fn key_box(&self) -> Tile {
        Tile { rows: self.block_n / self.parts(), head_dim: self.head_dim }
    }
}

/// Where things lie in shared memory, in bytes from its start, which is aligned to [`TILE_ALIGNMENT`].
///
/// ```text
///   Q of each warpgroup │ K of each stage │ V of each stage │ barriers │ notes
/// ```
/// Barriers: for each warpgroup, its queries are there; for each stage, keys are there, values are there, keys are
/// used, values are used. A note is what the producer says of a stage of keys. There may be a stage of values less than of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMap {
    consumers: u32,
    stages: u32,
    value_stages: u32,
    query_bytes: u32,
    key_bytes: u32,
}

impl SharedMap {
    /// Lays out the shared memory of attention with these constants.
    pub const fn of(c: &Constants) -> Self {
        Self {
            consumers: c.consumers(),
            stages: c.stages,
            value_stages: c.value_stages,
            query_bytes: c.query_tile().bytes(),
            key_bytes: c.key_tile().bytes(),
        }
    }

    /// Returns the query tile of a warpgroup.
    #[inline(always)]
    pub const fn queries(self, consumer: u32) -> u32 {
        consumer * self.query_bytes
    }

    /// Returns the key tile of a stage.
    #[inline(always)]
    pub const fn keys(self, slot: u32) -> u32 {
        self.queries(self.consumers) + slot * self.key_bytes
    }

    /// Returns the value tile of a stage.
    #[inline(always)]
    pub const fn values(self, slot: u32) -> u32 {
        self.keys(self.stages) + slot * self.key_bytes
    }

    /// Returns the barrier of a warpgroup's queries.
    #[inline(always)]
    pub const fn queries_there(self, consumer: u32) -> u32 {
        self.values(self.value_stages) + consumer * WORD
    }

    /// Returns the barrier of a stage's keys, there once they have landed.
    #[inline(always)]
    pub const fn keys_there(self, slot: u32) -> u32 {
        self.queries_there(self.consumers) + slot * WORD
    }

    /// Returns the barrier of a stage's values, there once they have landed.
    #[inline(always)]
    pub const fn values_there(self, slot: u32) -> u32 {
        self.keys_there(self.stages) + slot * WORD
    }

    /// Returns the barrier of a stage's keys, used once all warps have left them.
    #[inline(always)]
    pub const fn keys_used(self, slot: u32) -> u32 {
        self.values_there(self.value_stages) + slot * WORD
    }

    /// Returns the barrier of a stage's values, used once all warps have left them.
    #[inline(always)]
    pub const fn values_used(self, slot: u32) -> u32 {
        self.keys_used(self.stages) + slot * WORD
    }

    /// Returns the note of a stage.
    #[inline(always)]
    pub const fn note(self, slot: u32) -> u32 {
        self.values_used(self.value_stages) + slot * WORD
    }

    /// Returns all bytes.
    pub const fn bytes(self) -> u32 {
        self.note(self.stages)
    }
}

/// Keys of a part of a tile, and a bit for each warpgroup of the block of threads that wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How many keys, at most 128.
    pub keys: u32,
    /// Who wants them.
    pub wanted: u32,
}

/// What the producer says of a stage: how many keys each part of its tile has, and which warpgroups want them.
///
/// Bits 0-7 and 8-15 are the keys of the parts, bits 16-19 and 20-23 who wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note(u32);

impl Note {
    /// There are no more tiles.
    pub const END: Self = Self(0);

    /// Makes the note of a tile; the first part has keys, the second may have none.
    #[inline(always)]
    pub const fn new([first, second]: [Part; 2]) -> Self {
        Self(first.keys | second.keys << 8 | first.wanted << 16 | second.wanted << 20)
    }

    /// Reads a note from its bits.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns its bits.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Says that there are no more tiles.
    #[inline(always)]
    pub const fn is_end(self) -> bool {
        self.0 & 0xff == 0
    }

    /// Returns the keys of the first part.
    #[inline(always)]
    pub const fn keys(self) -> u32 {
        self.0 & 0xff
    }

    /// Returns how many keys of a part a warpgroup wants: all or none.
    #[inline(always)]
    pub const fn keys_for(self, part: u32, consumer: u32) -> u32 {
        if self.0 >> (16 + 4 * part + consumer) & 1 == 0 { 0 } else { self.0 >> (8 * part) & 0xff }
    }

    /// Says which warpgroups want a part of the tile at least, by a bit each.
    #[inline(always)]
    pub const fn wanted(self) -> u32 {
        (self.0 >> 16 | self.0 >> 20) & 0xf
    }
}

/// A place in the ring of stages, and the parity of the phase that its barriers are in there: they complete a phase
/// each time around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The stage.
    pub slot: u32,
    /// Parity of the current phase.
    pub parity: u32,
}

impl Turn {
    /// The first.
    pub const FIRST: Self = Self { slot: 0, parity: 0 };

    /// Returns the next in a ring of `stages`.
    #[inline(always)]
    pub const fn next(self, stages: u32) -> Self {
        if self.slot + 1 == stages {
            Self { slot: 0, parity: self.parity ^ 1 }
        } else {
            Self { slot: self.slot + 1, parity: self.parity }
        }
    }
}

/// A place in the ring of keys and that of the same tile in the ring of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    keys: Turn,
    values: Turn,
}

impl Turns {
    /// The first.
    pub const FIRST: Self = Self { keys: Turn::FIRST, values: Turn::FIRST };

    /// Returns the place of the keys.
    #[inline(always)]
    pub const fn keys(self) -> Turn {
        self.keys
    }

    /// Returns the place of the values: that of the keys where the rings are equally long, so that nobody has to keep both.
    #[inline(always)]
    pub const fn values(self, c: &Constants) -> Turn {
        if c.stages == c.value_stages { self.keys } else { self.values }
    }

    /// Returns the next.
    #[inline(always)]
    pub const fn next(self, c: &Constants) -> Self {
        Self { keys: self.keys.next(c.stages), values: self.values.next(c.value_stages) }
    }
}

/// A tensor that a kernel copies boxes of, as the host must describe it (`cuTensorMapEncodeTiled`).
///
/// The tensor is `[batch_heads, tokens, head_dim]` of the constants' 16-bit type, dense; dimensions are named from the
/// innermost: sizes {head_dim, tokens, batch_heads}, strides of the last two {`2 head_dim`, `2 head_dim tokens`} bytes,
/// element strides 1, no interleave, no out-of-bounds fill but zeros. Tokens past a head's end read as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMap {
    /// Elements of the box along each dimension, from the innermost.
    pub box_elements: [u32; 3],
    /// Permutation of what is copied.
    pub swizzle: Swizzle,
}

impl TensorMap {
    /// Describes copies of a tile: one box a panel.
    pub const fn of(tile: Tile) -> Self {
        Self { box_elements: [tile.panel_columns(), tile.rows, 1], swizzle: tile.swizzle() }
    }
}

const _: () = assert!(TILE_ALIGNMENT.is_multiple_of(WORD));

#[cfg(test)]
mod tests;
