//! Where key tiles come from when several query tiles share them: the union of their lists, or all keys.
//!
//! A whole warp walks: lane `l` keeps the list of query tile `l % 4`, so that the next key block of the union is the
//! least over four lanes, and a vote says who wants it. Each block is named once if the lists ascend; if they do not,
//! all is still right, but blocks are named again.

use super::{
    lanes::quad_min,
    walk::{KeyTile, Run},
};
use crate::{
    config::{Config, Constants},
    hopper::MAX_LISTS,
    ptx,
};

/// A tile, and a bit for each query tile that wants it.
#[derive(Clone, Copy)]
pub struct WantedTile {
    pub tile: KeyTile,
    pub wanted: u32,
}

/// A source of key tiles of at most `step` keys, the same in all lanes of the warp that walks.
pub trait SharedWalk {
    /// Whether a query tile that wanted one tile may not want a later one.
    const SKIPS: bool;

    /// Returns the next tile; after the last, tiles of 0 keys.
    ///
    /// # Safety
    /// All lanes of the warp come here; what the walk was made of is still there.
    unsafe fn next(&mut self, step: u32) -> WantedTile;
}

/// All keys, wanted by all query tiles that have rows: dense attention.
pub struct AllKeys {
    run: Run,
    wanted: u32,
}

impl AllKeys {
    #[inline(always)]
    pub fn new(seqlen: u32, wanted: u32) -> Self {
        Self { run: Run::new(0, seqlen), wanted }
    }
}

impl SharedWalk for AllKeys {
    const SKIPS: bool = false;

    #[inline(always)]
    unsafe fn next(&mut self, step: u32) -> WantedTile {
        WantedTile { tile: self.run.take(step), wanted: self.wanted }
    }
}

/// Returns which query tile's list a lane keeps.
#[inline(always)]
pub fn list_of_lane(c: Constants, lane: u32) -> u32 {
    // Lanes too many keep the last list once more: that changes no minimum.
    (lane % MAX_LISTS).min(c.lists() - 1)
}

/// The union of the lists of the query tiles that share what is loaded: those of a block of threads, or of a cluster.
///
/// Bounds are read a block ahead, list entries two: loads that depend on each other would otherwise stand in a row
/// before each copy.
pub struct Union<C> {
    starts: *const u32,
    /// The lane's list from its first entry not read yet, and how many those are.
    unread: *const i32,
    left: u32,
    /// The lane's next blocks; [`NONE`] past the end.
    entry: u32,
    following: u32,
    upcoming: Run,
    upcoming_wanted: u32,
    current: Run,
    wanted: u32,
    constants: core::marker::PhantomData<C>,
}

/// No block: greater than all.
const NONE: u32 = u32::MAX;

impl<C: Config> Union<C> {
    /// # Safety
    /// All lanes of the warp come here, each with the list that [`list_of_lane`] says: `indices[..count]` are blocks,
    /// `starts[b]..starts[b + 1]` their keys, at least one.
    #[inline(always)]
    pub unsafe fn new(starts: *const u32, indices: *const i32, count: u32) -> Self {
        let mut union = Self {
            starts,
            unread: indices,
            left: count,
            entry: NONE,
            following: NONE,
            upcoming: Run::EMPTY,
            upcoming_wanted: 0,
            current: Run::EMPTY,
            wanted: 0,
            constants: core::marker::PhantomData,
        };
        // SAFETY: the caller's.
        unsafe {
            union.entry = union.read();
            union.following = union.read();
            union.advance();
            union.advance();
        }
        union
    }

    /// Reads the lane's next entry.
    ///
    /// # Safety
    /// As for [`Union::new`].
    #[inline(always)]
    unsafe fn read(&mut self) -> u32 {
        if self.left == 0 {
            return NONE;
        }
        // SAFETY: `left` entries are unread.
        unsafe {
            let entry = *self.unread as u32;
            self.unread = self.unread.add(1);
            self.left -= 1;
            entry
        }
    }

    /// Moves everything a block further.
    ///
    /// # Safety
    /// As for [`Union::new`].
    #[inline(always)]
    unsafe fn advance(&mut self) {
        let lists = const { C::CONSTANTS.lists() };
        (self.current, self.wanted) = (self.upcoming, self.upcoming_wanted);
        self.upcoming = Run::EMPTY;
        // SAFETY: entries are blocks; `block` is the same in all lanes.
        unsafe {
            let (block, wanted) = if lists == 1 {
                (self.entry, 1)
            } else {
                let block = quad_min(self.entry);
                (block, ptx::ballot(self.entry == block) & ((1 << lists) - 1))
            };
            if block == NONE {
                return;
            }
            let bounds = self.starts.add(block as usize);
            self.upcoming = Run::new(*bounds, *bounds.add(1));
            self.upcoming_wanted = wanted;
            if self.entry == block {
                self.entry = self.following;
                self.following = self.read();
            }
        }
    }
}

impl<C: Config> SharedWalk for Union<C> {
    // Nobody lists what nobody wants.
    const SKIPS: bool = C::CONSTANTS.lists() > 1;

    #[inline(always)]
    unsafe fn next(&mut self, step: u32) -> WantedTile {
        let (tile, wanted) = (self.current.take(step), self.wanted);
        if self.current.is_empty() {
            // SAFETY: the lists outlive the walk.
            unsafe { self.advance() };
        }
        WantedTile { tile, wanted }
    }
}
