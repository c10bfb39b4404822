//! Whose turn it is: in the order of their numbers, or at random from a seed.

/// Warp-instructions of one turn.
const TURN: u32 = 1 << 14;

/// Turns of the warps of a cluster.
pub(super) struct Schedule {
    order: Vec<usize>,
    /// State of the generator; `None` keeps the order and the full length.
    state: Option<u64>,
}

impl Schedule {
    /// Each cluster has turns of its own, whatever CPU thread runs it.
    pub(super) fn new(seed: Option<u64>, cluster: u64, warps: usize) -> Self {
        let state = seed.map(|seed| seed ^ (cluster + 1).wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self { order: (0..warps).collect(), state }
    }

    /// The next random number (splitmix64).
    fn next(&mut self) -> Option<u64> {
        let state = self.state.as_mut()?;
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(x ^ x >> 31)
    }

    /// Starts a round.
    pub(super) fn shuffle(&mut self) {
        for last in (1..self.order.len()).rev() {
            let Some(random) = self.next() else { return };
            self.order.swap(last, (random % (last as u64 + 1)) as usize);
        }
    }

    /// The warp in this place of the round, and how many instructions it may execute.
    pub(super) fn turn(&mut self, place: usize) -> (usize, u32) {
        // Short turns in one round in two or so, long ones too: both find things.
        let length = self.next().map_or(TURN, |random| 1 + (random >> 32) as u32 % (1 << (random % 11)));
        (self.order[place], length)
    }
}
