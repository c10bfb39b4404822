//! Numbers and tokens by chance, the same in every run.

/// A small generator of numbers (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Values at the edges of every width and format.
pub(crate) fn wide(dice: &mut Dice) -> u64 {
    const EDGES: &[u64] = &[
        0,
        1,
        2,
        31,
        32,
        33,
        63,
        64,
        127,
        128,
        255,
        256,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0080_0000,
        0x7f7f_ffff,
        0x7ff0_0000_0000_0000,
        0xfff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0x57f8_0000_0000_0000,
        0x5800_0000_0000_0001,
        0x7fef_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        0x7fff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x3ff0_0000_0000_0000,
    ];
    match dice.below(4) {
        0 => dice.next(),
        // Exponents of every size.
        1 => (dice.next() & 0x800f_ffff_ffff_ffff) | (dice.next() & 0x7ff) << 52,
        _ => EDGES[dice.below(EDGES.len())],
    }
}

pub(crate) fn word(dice: &mut Dice) -> u32 {
    wide(dice) as u32
}
