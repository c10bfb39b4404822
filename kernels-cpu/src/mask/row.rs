//! One row of the map: softmax, then the blocks that hold the mass, without a sort.
//!
//! The rule is: sort the probabilities ascending (stable), keep those whose cumulative sum reaches `1 - mass`. So
//! the dropped blocks are the longest ascending prefix whose sum stays below `1 - mass`, and only the blocks around
//! its end need an order. Bisection over the encodings of the (non-negative) probabilities closes in on that end:
//!
//! ```text
//!   0 ......... low ......... high ......... 1
//!   all dropped  |  candidates  |   all kept
//! ```
//!
//! Few candidates, or equal ones, are then sorted and walked. Nothing is normalised: the probabilities are
//! `exp(score - max)`, the bound is `(1 - mass) * total`.

use crate::simd::{Job, Simd};

/// Candidates that are cheaper to sort than to halve once more.
const SORTED_CANDIDATES: usize = 32;
/// Vectors summed in f32 lanes before the sum moves to f64: four chains of eight, so at most 10 roundings of 2^-24
/// touch an element and the error of a sum is below 6e-7 of it for any number of blocks.
const VECTORS_PER_SUM: usize = 32;

/// Selects the blocks of one row.
pub(super) struct RowKernel<'a> {
    /// Scores, `bits.len() * 64` at most, whole vectors; overwritten.
    pub(super) scores: &'a mut [f32],
    /// Key blocks; scores past them are ignored.
    pub(super) blocks: usize,
    /// Share of the row to keep, 0..=1.
    pub(super) mass: f64,
    /// Blocks that take part in the softmax; `None` is all.
    pub(super) allowed: Option<&'a [u64]>,
    /// The selection; bits of blocks that are not allowed or past the last are arbitrary.
    pub(super) bits: &'a mut [u64],
    /// Room kept between rows.
    pub(super) candidates: &'a mut Vec<u64>,
}

impl Job for RowKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { scores, blocks, mass, allowed, bits, candidates } = self;
        assert!(scores.len().is_multiple_of(S::LANES) && scores.len() <= bits.len() * 64);
        scores[blocks..].fill(f32::NEG_INFINITY);
        if let Some(allowed) = allowed {
            for (j, score) in scores[..blocks].iter_mut().enumerate() {
                if allowed[j / 64] >> (j % 64) & 1 == 0 {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        // SAFETY: `scores` is whole vectors; the instruction set is the caller's.
        unsafe {
            let numbers = exp_minus_max::<S>(scores);
            let probabilities = &*scores;
            // Scores are at most the maximum, so this is the sum of all.
            let (total, _) = below::<S>(probabilities, f32::INFINITY);
            let bound = (1.0 - mass) * total;
            // A row with a NaN has no order: keep it whole, so that attention shows the NaN.
            if bound <= 0.0 || !numbers {
                bits.fill(u64::MAX);
                return;
            }
            let cut = Cut::find::<S>(probabilities, blocks, bound, candidates);
            cut.write::<S>(probabilities, bits);
        }
    }
}

/// Replaces scores by `exp(score - max)`, and says whether all of them are numbers.
///
/// A weight rounds by 2 units for every 1 of `max - score`, and by one more: next to 1 that is below 1e-7.
///
/// # Safety
/// `scores` is whole vectors, and the instruction set of `S` is present.
#[inline(always)]
unsafe fn exp_minus_max<S: Simd>(scores: &mut [f32]) -> bool {
    // SAFETY: steps of LANES through whole vectors, of which none has more than 16.
    unsafe {
        let mut max = S::splat(f32::NEG_INFINITY);
        for at in scores.chunks_exact(S::LANES) {
            max = S::max(max, S::load(at.as_ptr()));
        }
        let mut lanes = [f32::NEG_INFINITY; 16];
        S::store(lanes.as_mut_ptr(), max);
        let max = S::splat(lanes.into_iter().fold(f32::NEG_INFINITY, f32::max));

        let log2_e = S::splat(std::f32::consts::LOG2_E);
        // One NaN makes a sum NaN.
        let mut sum = S::splat(0.0);
        for at in scores.chunks_exact_mut(S::LANES) {
            let p = S::exp2(S::mul(S::sub(S::load(at.as_ptr()), max), log2_e));
            sum = S::add(sum, p);
            S::store(at.as_mut_ptr(), p);
        }
        !S::any_ne(sum, sum)
    }
}

/// Returns the sum and the number of the elements below `pivot`.
///
/// # Safety
/// `row` is whole vectors, and the instruction set of `S` is present.
#[inline(always)]
unsafe fn below<S: Simd>(row: &[f32], pivot: f32) -> (f64, usize) {
    // SAFETY: steps of LANES through whole vectors.
    unsafe {
        let (limit, one) = (S::splat(pivot), S::splat(1.0));
        let (mut total, mut count) = (0.0, S::splat(0.0));
        for part in row.chunks(VECTORS_PER_SUM * S::LANES) {
            let mut sums = [S::splat(0.0); 4];
            let mut counts = [S::splat(0.0); 4];
            let mut groups = part.chunks_exact(4 * S::LANES);
            for group in &mut groups {
                for i in 0..4 {
                    let x = S::load(group.as_ptr().add(i * S::LANES));
                    sums[i] = S::add(sums[i], S::where_lt(x, limit, x));
                    counts[i] = S::add(counts[i], S::where_lt(x, limit, one));
                }
            }
            for at in groups.remainder().chunks_exact(S::LANES) {
                let x = S::load(at.as_ptr());
                sums[0] = S::add(sums[0], S::where_lt(x, limit, x));
                counts[0] = S::add(counts[0], S::where_lt(x, limit, one));
            }
            total += S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
            count = S::add(count, S::add(S::add(counts[0], counts[1]), S::add(counts[2], counts[3])));
        }
        (total, S::sum(count) as usize)
    }
}

/// Where a row is cut: everything from `low` on is kept, except `dropped`.
struct Cut<'a> {
    low: f32,
    /// Dropped blocks that are not below `low`: the index in the low half of each word.
    dropped: &'a [u64],
}

impl<'a> Cut<'a> {
    /// Finds the longest ascending prefix whose sum is below `bound`, 0 < `bound` <= total.
    ///
    /// # Safety
    /// `row` is whole vectors, and the instruction set of `S` is present.
    #[inline(always)]
    unsafe fn find<S: Simd>(row: &[f32], blocks: usize, bound: f64, candidates: &'a mut Vec<u64>) -> Self {
        // Elements below bound / blocks cannot sum to the bound: a first `low`, a little less for rounding.
        let mut low = ((bound / blocks as f64 * (1.0 - 1e-5)) as f32).to_bits();
        let mut high = 1f32.to_bits() + 1;
        // SAFETY: as for this function.
        unsafe {
            let (mut sum_low, mut count_low) = below::<S>(row, f32::from_bits(low));
            let mut count_high = row.len();
            while high - low > 1 && count_high - count_low > SORTED_CANDIDATES {
                let middle = low + (high - low) / 2;
                let (sum, count) = below::<S>(row, f32::from_bits(middle));
                if sum < bound {
                    (low, sum_low, count_low) = (middle, sum, count);
                } else {
                    (high, count_high) = (middle, count);
                }
            }

            candidates.clear();
            let (from, to) = (S::splat(f32::from_bits(low)), S::splat(f32::from_bits(high)));
            for (v, at) in row.chunks_exact(S::LANES).enumerate() {
                let x = S::load(at.as_ptr());
                let mut lanes = S::lt(x, to) & !S::lt(x, from);
                while lanes != 0 {
                    let j = v * S::LANES + lanes.trailing_zeros() as usize;
                    candidates.push(u64::from(row[j].to_bits()) << 32 | j as u64);
                    lanes &= lanes - 1;
                }
            }
            if high - low > 1 {
                // The index below the encoding makes the order that of a stable sort.
                candidates.sort_unstable();
            }
            let mut sum = sum_low;
            let mut dropped = candidates
                .iter()
                .take_while(|&&candidate| {
                    sum += f64::from(f32::from_bits((candidate >> 32) as u32));
                    sum < bound
                })
                .count();
            // The largest block stays, also when rounding leaves the sum of all below the bound.
            if high > 1f32.to_bits() {
                dropped = dropped.min(candidates.len() - 1);
            }
            Cut { low: f32::from_bits(low), dropped: &candidates[..dropped] }
        }
    }

    /// Writes the kept blocks of `row`; what is past its last vector is 0.
    ///
    /// # Safety
    /// `row` is whole vectors and at most `bits.len() * 64` long; the instruction set of `S` is present.
    #[inline(always)]
    unsafe fn write<S: Simd>(self, row: &[f32], bits: &mut [u64]) {
        bits.fill(0);
        // SAFETY: steps of LANES through whole vectors.
        let limit = unsafe { S::splat(self.low) };
        for (word, part) in bits.iter_mut().zip(row.chunks(64)) {
            for (v, at) in part.chunks_exact(S::LANES).enumerate() {
                // SAFETY: as above.
                let less = unsafe { S::lt(S::load(at.as_ptr()), limit) };
                let kept = !u64::from(less) & (u64::MAX >> (64 - S::LANES));
                *word |= kept << (v * S::LANES);
            }
        }
        for &block in self.dropped {
            let j = block as u32 as usize;
            bits[j / 64] &= !(1 << (j % 64));
        }
    }
}
