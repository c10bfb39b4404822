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

use super::vector::{Kernel, Vector};

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

impl Kernel for RowKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { scores, blocks, mass, allowed, bits, candidates } = self;
        assert!(scores.len().is_multiple_of(V::LANES) && scores.len() <= bits.len() * 64);
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
            exp_minus_max::<V>(scores);
            let probabilities = &*scores;
            // Scores are at most the maximum, so this is the sum of all.
            let (total, _) = below::<V>(probabilities, f32::INFINITY);
            let bound = (1.0 - mass) * total;
            // A row with a score that is not finite has no order: keep it whole, so that attention shows the NaN.
            if bound <= 0.0 || !total.is_finite() {
                bits.fill(u64::MAX);
                return;
            }
            let cut = Cut::find::<V>(probabilities, blocks, bound, candidates);
            cut.write::<V>(probabilities, bits);
        }
    }
}

/// Replaces scores by `exp(score - max)`, accurate to some units in the last place; below exp(-87) it is 0.
///
/// # Safety
/// `scores` is whole vectors, and the instruction set of `V` is present.
#[inline(always)]
unsafe fn exp_minus_max<V: Vector>(scores: &mut [f32]) {
    // ln(2)^k / k!: at |f| <= 1/2 the next term is below 6e-9.
    const COEFFICIENTS: [f32; 8] = {
        let mut c = [1.0; 8];
        let mut exact = 1.0;
        let mut k = 1;
        while k < 8 {
            exact *= std::f64::consts::LN_2 / k as f64;
            c[k] = exact as f32;
            k += 1;
        }
        c
    };
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LOG2_E_REST: f32 = (std::f64::consts::LOG2_E - LOG2_E as f64) as f32;
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // exp(-87) is the last power of e that is a normal number.
    const LOWEST: f32 = -87.0;

    // SAFETY: steps of LANES through whole vectors.
    unsafe {
        let mut max = V::splat(f32::NEG_INFINITY);
        for at in scores.chunks_exact(V::LANES) {
            max = V::max(max, V::load(at.as_ptr()));
        }
        let mut lanes = [f32::NEG_INFINITY; 16];
        V::store(max, lanes.as_mut_ptr());
        let max = V::splat(lanes.into_iter().fold(f32::NEG_INFINITY, f32::max));

        for at in scores.chunks_exact_mut(V::LANES) {
            let difference = V::sub(V::load(at.as_ptr()), max);
            // `max` keeps a NaN of its second operand.
            let d = V::max(V::splat(LOWEST), difference);
            let shifted = V::mul_add(d, V::splat(LOG2_E), V::splat(ROUND));
            let n = V::sub(shifted, V::splat(ROUND));
            // d * log2(e) - n with the product unrounded, where the instruction set can.
            let f = V::mul_add(d, V::splat(LOG2_E), V::sub(V::splat(0.0), n));
            let f = V::mul_add(d, V::splat(LOG2_E_REST), f);
            let mut p = V::splat(COEFFICIENTS[7]);
            for k in (0..7).rev() {
                p = V::mul_add(p, f, V::splat(COEFFICIENTS[k]));
            }
            let p = V::mul(p, V::pow2_of_low_bits(shifted));
            let p = V::sub(p, V::where_lt(difference, V::splat(LOWEST), p));
            V::store(p, at.as_mut_ptr());
        }
    }
}

/// Returns the sum and the number of the elements below `pivot`.
///
/// # Safety
/// `row` is whole vectors, and the instruction set of `V` is present.
#[inline(always)]
unsafe fn below<V: Vector>(row: &[f32], pivot: f32) -> (f64, usize) {
    // SAFETY: steps of LANES through whole vectors.
    unsafe {
        let (limit, one) = (V::splat(pivot), V::splat(1.0));
        let (mut total, mut count) = (0.0, V::splat(0.0));
        for part in row.chunks(VECTORS_PER_SUM * V::LANES) {
            let mut sums = [V::splat(0.0); 4];
            let mut counts = [V::splat(0.0); 4];
            let mut groups = part.chunks_exact(4 * V::LANES);
            for group in &mut groups {
                for i in 0..4 {
                    let x = V::load(group.as_ptr().add(i * V::LANES));
                    sums[i] = V::add(sums[i], V::where_lt(x, limit, x));
                    counts[i] = V::add(counts[i], V::where_lt(x, limit, one));
                }
            }
            for at in groups.remainder().chunks_exact(V::LANES) {
                let x = V::load(at.as_ptr());
                sums[0] = V::add(sums[0], V::where_lt(x, limit, x));
                counts[0] = V::add(counts[0], V::where_lt(x, limit, one));
            }
            total += V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
            count = V::add(count, V::add(V::add(counts[0], counts[1]), V::add(counts[2], counts[3])));
        }
        (total, V::sum(count) as usize)
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
    /// `row` is whole vectors, and the instruction set of `V` is present.
    #[inline(always)]
    unsafe fn find<V: Vector>(row: &[f32], blocks: usize, bound: f64, candidates: &'a mut Vec<u64>) -> Self {
        // Elements below bound / blocks cannot sum to the bound: a first `low`, a little less for rounding.
        let mut low = ((bound / blocks as f64 * (1.0 - 1e-5)) as f32).to_bits();
        let mut high = 1f32.to_bits() + 1;
        // SAFETY: as for this function.
        unsafe {
            let (mut sum_low, mut count_low) = below::<V>(row, f32::from_bits(low));
            let mut count_high = row.len();
            while high - low > 1 && count_high - count_low > SORTED_CANDIDATES {
                let middle = low + (high - low) / 2;
                let (sum, count) = below::<V>(row, f32::from_bits(middle));
                if sum < bound {
                    (low, sum_low, count_low) = (middle, sum, count);
                } else {
                    (high, count_high) = (middle, count);
                }
            }

            candidates.clear();
            let (from, to) = (V::splat(f32::from_bits(low)), V::splat(f32::from_bits(high)));
            for (v, at) in row.chunks_exact(V::LANES).enumerate() {
                let x = V::load(at.as_ptr());
                let mut lanes = V::lt(x, to) & !V::lt(x, from);
                while lanes != 0 {
                    let j = v * V::LANES + lanes.trailing_zeros() as usize;
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
    /// `row` is whole vectors and at most `bits.len() * 64` long; the instruction set of `V` is present.
    #[inline(always)]
    unsafe fn write<V: Vector>(self, row: &[f32], bits: &mut [u64]) {
        bits.fill(0);
        // SAFETY: steps of LANES through whole vectors.
        let limit = unsafe { V::splat(self.low) };
        for (word, part) in bits.iter_mut().zip(row.chunks(64)) {
            for (v, at) in part.chunks_exact(V::LANES).enumerate() {
                // SAFETY: as above.
                let less = unsafe { V::lt(V::load(at.as_ptr()), limit) };
                let kept = !u64::from(less) & (u64::MAX >> (64 - V::LANES));
                *word |= kept << (v * V::LANES);
            }
        }
        for &block in self.dropped {
            let j = block as u32 as usize;
            bits[j / 64] &= !(1 << (j % 64));
        }
    }
}
