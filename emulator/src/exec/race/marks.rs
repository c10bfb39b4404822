//! Who touched the sixteen bytes of a granule, and whether the next access may follow.

use super::clock::Agent;

/// Bytes that one set of marks describes.
pub(super) const GRANULE: u64 = 16;

/// Kinds of an access; the instruction's number lies above them in [`Mark::code`].
pub(super) const WRITE: u32 = 1;
/// `.volatile`, `.relaxed`, `.acquire`, `.release` and atomics.
pub(super) const STRONG: u32 = 1 << 1;
/// By an asynchronous operation of the async proxy.
pub(super) const ASYNC: u32 = 1 << 2;
/// By a `cp.async`.
pub(super) const COPY: u32 = 1 << 3;
/// The warp had acquired something of another CTA.
pub(super) const AFTER: u32 = 1 << 4;
/// Strong towards other CTAs too.
pub(super) const DEVICE: u32 = 1 << 5;
pub(super) const KINDS: u32 = (1 << PC_SHIFT) - 1;
pub(super) const PC_SHIFT: u32 = 6;

/// An access to some bytes of a granule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) time: u32,
    /// Instruction and kinds.
    pub(super) code: u32,
    pub(super) agent: Agent,
    /// One bit for each byte; a mark without bytes is free.
    pub(super) mask: u16,
}

impl Mark {
    #[inline(always)]
    pub(super) fn is(&self, kind: u32) -> bool {
        self.code & kind != 0
    }
}

/// Things with byte masks: some inline, the rest, which is rare, behind a pointer.
#[derive(Clone, Debug)]
pub(super) struct Slots<T, const N: usize> {
    inline: [T; N],
    #[expect(clippy::box_collection, reason = "a pointer of one word: most granules need none")]
    more: Option<Box<Vec<T>>>,
}

/// Something that may be free.
pub(super) trait Masked: Copy + Default {
    fn mask(&self) -> u16;
}

impl Masked for Mark {
    fn mask(&self) -> u16 {
        self.mask
    }
}

impl<T: Masked, const N: usize> Default for Slots<T, N> {
    fn default() -> Self {
        Self { inline: [T::default(); N], more: None }
    }
}

impl<T: Masked, const N: usize> Slots<T, N> {
    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.inline.iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }

    #[inline(always)]
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.inline.iter_mut().chain(self.more.iter_mut().flat_map(|more| more.iter_mut()))
    }

    pub(super) fn add(&mut self, new: T) {
        if let Some(free) = self.iter_mut().find(|slot| slot.mask() == 0) {
            *free = new;
            return;
        }
        self.more.get_or_insert_default().push(new);
    }
}

impl<const N: usize> Slots<Mark, N> {
    /// Records an access unless it conflicts with an earlier one, which comes back. `before` says which earlier marks
    /// happen before it.
    ///
    /// A mark is dropped once a later access stands for it: whatever would conflict with the dropped one, and is not
    /// ordered behind it, conflicts with the later one too.
    #[inline(always)]
    pub(super) fn touch(&mut self, new: Mark, before: impl Fn(&Mark) -> bool) -> Result<(), Mark> {
        let kinds = new.code & KINDS;
        let repeatable = kinds & WRITE == 0 || kinds & (ASYNC | COPY) == 0;
        if repeatable {
            for mark in &self.inline {
                // Nobody can have come between two accesses of one epoch: he would have been ordered behind the first.
                let same =
                    mark.agent == new.agent && mark.time == new.time && mark.mask & new.mask == new.mask;
                if same && (mark.code & KINDS == kinds || mark.code & KINDS == kinds | WRITE) {
                    return Ok(());
                }
            }
        }
        self.touch_slowly(new, before)
    }

    fn touch_slowly(&mut self, new: Mark, before: impl Fn(&Mark) -> bool) -> Result<(), Mark> {
        let mut merged = false;
        for mark in self.iter_mut() {
            let overlap = mark.mask & new.mask;
            if overlap != 0 {
                let conflict = (mark.is(WRITE) || new.is(WRITE)) && !(mark.is(STRONG) && new.is(STRONG));
                if !before(mark) {
                    if conflict {
                        return Err(Mark { mask: overlap, ..*mark });
                    }
                } else {
                    // An access that may meet more others does not stand for one that may meet fewer.
                    let stands = (new.is(WRITE) || !mark.is(WRITE))
                        && new.code & !mark.code & (STRONG | DEVICE | AFTER) == 0;
                    if stands {
                        mark.mask &= !overlap;
                    }
                }
            }
            if mark.mask != 0 && mark.code == new.code && mark.agent == new.agent && mark.time == new.time {
                mark.mask |= new.mask;
                merged = true;
            }
        }
        if !merged {
            self.add(new);
        }
        Ok(())
    }
}
