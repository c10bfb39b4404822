//! Where key tiles come from: the lists of a block mask, or all keys.

/// Keys `first..first + keys`; `keys` 0 means that there are no more.
#[derive(Clone, Copy)]
pub struct KeyTile {
    pub first: u32,
    pub keys: u32,
}

/// A source of key tiles of at most `step` keys.
pub trait KeyWalk {
    /// Returns the next tile; after the last, tiles of 0 keys.
    ///
    /// # Safety
    /// What the walk was made of is still there.
    unsafe fn next(&mut self, step: u32) -> KeyTile;
}

/// Keys of a run that are still to come.
#[derive(Clone, Copy)]
pub struct Run {
    at: u32,
    end: u32,
}

impl Run {
    /// No keys.
    pub const EMPTY: Self = Self { at: 0, end: 0 };

    /// Makes the run of keys `at..end`.
    #[inline(always)]
    pub fn new(at: u32, end: u32) -> Self {
        Self { at, end }
    }

    /// Says whether all keys have been taken.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// Takes a tile from the front.
    #[inline(always)]
    pub fn take(&mut self, step: u32) -> KeyTile {
        let keys = (self.end - self.at).min(step);
        let tile = KeyTile { first: self.at, keys };
        self.at += keys;
        tile
    }
}

/// All keys: dense attention.
pub struct Everything(Run);

impl Everything {
    #[inline(always)]
    pub fn new(seqlen: u32) -> Self {
        Self(Run::new(0, seqlen))
    }
}

impl KeyWalk for Everything {
    #[inline(always)]
    unsafe fn next(&mut self, step: u32) -> KeyTile {
        self.0.take(step)
    }
}

/// The listed key blocks of one query block, each in tiles of its own.
///
/// Bounds are read a block ahead, list entries two: three dependent loads (entry, bounds, keys) would otherwise stand
/// in a row before each copy.
pub struct Lists {
    starts: *const u32,
    /// The list from its first entry not read yet, and how many those are.
    unread: *const i32,
    left: u32,
    /// The last entry read, whose bounds are next; [`NONE`] past the end.
    entry: u32,
    upcoming: Run,
    current: Run,
}

/// No block.
const NONE: u32 = u32::MAX;

impl Lists {
    /// # Safety
    /// `indices[..count]` are blocks, `starts[b]..starts[b + 1]` their keys, at least one.
    #[inline(always)]
    pub unsafe fn new(starts: *const u32, indices: *const i32, count: u32) -> Self {
        let mut lists = Self {
            starts,
            unread: indices,
            left: count,
            entry: NONE,
            upcoming: Run::EMPTY,
            current: Run::EMPTY,
        };
        // SAFETY: the caller's.
        unsafe {
            lists.advance();
            lists.advance();
            lists.advance();
        }
        lists
    }

    /// Moves everything a block further.
    ///
    /// # Safety
    /// As for [`Lists::new`].
    #[inline(always)]
    unsafe fn advance(&mut self) {
        self.current = self.upcoming;
        self.upcoming = Run::EMPTY;
        // SAFETY: entries are blocks, and `left` of them are unread.
        unsafe {
            if self.entry != NONE {
                let bounds = self.starts.add(self.entry as usize);
                self.upcoming = Run::new(*bounds, *bounds.add(1));
            }
            self.entry = NONE;
            if self.left != 0 {
                self.entry = *self.unread as u32;
                self.unread = self.unread.add(1);
                self.left -= 1;
            }
        }
    }
}

impl KeyWalk for Lists {
    #[inline(always)]
    unsafe fn next(&mut self, step: u32) -> KeyTile {
        let tile = self.current.take(step);
        if self.current.is_empty() {
            // SAFETY: the lists outlive the walk.
            unsafe { self.advance() };
        }
        tile
    }
}
