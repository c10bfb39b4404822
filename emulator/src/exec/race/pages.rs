//! Marks of the global memory that one CTA touched.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::marks::{Mark, Slots};

/// Granules of a page.
pub(super) const PAGE: u64 = 64;

/// Marks of sixteen bytes: mostly one reader or one writer.
pub(super) type GlobalCell = Slots<Mark, 2>;

/// Spreads page numbers; nobody chooses them to collide.
#[derive(Default)]
pub(super) struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        // The golden ratio: neighbours end up far apart, in the upper bits too.
        let product = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

pub(super) type PageMap<T> = HashMap<u64, T, BuildHasherDefault<PageHasher>>;

#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Where the cells of each page start.
    starts: PageMap<usize>,
    cells: Vec<GlobalCell>,
    /// The page of the last access and where it starts.
    last: Option<(u64, usize)>,
}

impl Pages {
    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.cells.clear();
        self.last = None;
    }

    #[inline]
    pub(super) fn cell(&mut self, granule: u64) -> &mut GlobalCell {
        let (page, at) = (granule / PAGE, (granule % PAGE) as usize);
        let start = match self.last {
            Some((last, start)) if last == page => start,
            _ => self.find(page),
        };
        &mut self.cells[start + at]
    }

    fn find(&mut self, page: u64) -> usize {
        let cells = &mut self.cells;
        let start = *self.starts.entry(page).or_insert_with(|| {
            let start = cells.len();
            cells.resize_with(start + PAGE as usize, GlobalCell::default);
            start
        });
        self.last = Some((page, start));
        start
    }

    /// Pages in the order of their addresses, each with its cells.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &[GlobalCell])> {
        let mut pages: Vec<(u64, usize)> = self.starts.iter().map(|(page, start)| (*page, *start)).collect();
        pages.sort_unstable();
        pages.into_iter().map(|(page, start)| (page, &self.cells[start..start + PAGE as usize]))
    }
}
