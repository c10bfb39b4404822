//! Selection on one case, held against the sorted cumulative sum of the definition in float64.
//!
//! A selection may differ only where rounding decides: a row is wrong when a block it drops or keeps is further from
//! the threshold than the roundings of its sums, or than those of two probabilities that tie.

use super::Verdict;
use crate::{
    Dtype,
    backend::{Selected, SelectionRule},
};

/// Sizes of a pooled map and the pooled tokens it is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) batch_heads: usize,
    pub(super) q_blocks: usize,
    pub(super) kv_blocks: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
    /// `[batch_heads, q_blocks, head_dim]`
    pub(super) pooled_q: &'a [f32],
    /// `[batch_heads, kv_blocks, head_dim]`
    pub(super) pooled_k: &'a [f32],
}

fn bit(bits: &[u64], words: usize, row: usize, j: usize) -> bool {
    bits[row * words + j / 64] >> (j % 64) & 1 == 1
}

impl Map<'_> {
    /// Computes the logits of a row and a bound on what float32 makes of each.
    fn logits(&self, head: usize, i: usize) -> (Vec<f64>, f64) {
        let d = self.head_dim;
        let q = &self.pooled_q[(head * self.q_blocks + i) * d..][..d];
        let mut error = 0f64;
        let logits = (0..self.kv_blocks)
            .map(|j| {
                let k = &self.pooled_k[(head * self.kv_blocks + j) * d..][..d];
                let terms = q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
                // Of a sum of fused multiply-adds, a rounding per term. Tensor cores add eight terms and a sum at a time:
                // each is cut off 24 bits behind the largest, which is a rounding each, and the result to 24 bits, which
                // is two (as for A100 in arXiv 2511.10909; H100 cuts off less). Of the parts that terms are split into,
                // sums of small ones add a 2^-8 of that, five times, and parts left out half a rounding.
                // A few for the sum of both, the factor and the difference to the maximum.
                let of_groups = d as f64 * 11.0 / 8.0 * (1.0 + 5.0 / 256.0);
                let roundings = (of_groups + 8.0) * Dtype::F32.unit_roundoff();
                error = error.max(size * f64::from(self.scale) * roundings);
                sum * f64::from(self.scale)
            })
            .collect();
        (logits, error)
    }

    /// Applies the threshold to a row.
    fn threshold(&self, head: usize, i: usize, mass: f64, allowed: &dyn Fn(usize) -> bool) -> Threshold {
        let (logits, logit_error) = self.logits(head, i);
        let mut order: Vec<usize> = (0..self.kv_blocks).filter(|&j| allowed(j)).collect();
        let largest = order.iter().map(|&j| logits[j]).fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        // Ascending, equal ones by block number; the stable sort keeps that order.
        order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
        let total: f64 = order.iter().map(|&j| p[j]).sum();
        let bound = (1.0 - f64::from(mass as f32)) * total;
        // Relative: of an exponential whose argument is off by twice the logit's bound, and of a few float32 roundings
        // (the approximate exponential is within two of them).
        let relative = 2.0 * logit_error + 16.0 * Dtype::F32.unit_roundoff();
        let mut kept = vec![Some(false); self.kv_blocks];
        let mut sum = 0.0;
        let mut first = None;
        for (place, &j) in order.iter().enumerate() {
            sum += p[j];
            let is_last = place + 1 == order.len();
            let decided = is_last || (sum - bound).abs() > relative * total;
            kept[j] = decided.then_some(is_last || sum > bound);
            if is_last || sum > bound {
                first.get_or_insert(p[j]);
            }
        }
        // Of blocks that float32 cannot tell from the first that is kept, either may be dropped in the other's place.
        for &j in &order {
            if first.is_some_and(|first| (p[j] - first).abs() <= relative * first) {
                kept[j] = None;
            }
        }
        Threshold { kept, p, bound, band: relative * total }
    }
}

/// A row of the map with its threshold.
struct Threshold {
    /// Whether each block is kept: `None` where rounding decides.
    kept: Vec<Option<bool>>,
    /// Probabilities, not normalised.
    p: Vec<f64>,
    /// What the dropped ones may sum to.
    bound: f64,
    /// How far rounding may move that.
    band: f64,
}

impl Threshold {
    /// Checks that what is dropped sums to no more than the threshold, and that nothing more could have been dropped.
    fn check(&self, list: &[i32], allowed: &dyn Fn(usize) -> bool) -> Result<(), String> {
        let listed = |j: usize| list.contains(&(j as i32));
        let all = || (0..self.p.len()).filter(|&j| allowed(j));
        let dropped: f64 = all().filter(|&j| !listed(j)).map(|j| self.p[j]).sum();
        let least = all().filter(|&j| listed(j)).map(|j| self.p[j]).fold(f64::INFINITY, f64::min);
        if dropped > self.bound + self.band {
            return Err(format!(
                "it drops {dropped:.6e} of the row's mass, {:.6e} at most may go",
                self.bound
            ));
        }
        let one_left = all().filter(|&j| listed(j)).count() == 1;
        if !one_left && dropped + least < self.bound - self.band {
            return Err(format!(
                "it drops {dropped:.6e} of the row's mass and could drop {least:.6e} more: {:.6e} may go",
                self.bound
            ));
        }
        Ok(())
    }
}

/// Judges what a selection wrote.
pub(super) fn judge(map: &Map<'_>, rule: &SelectionRule<'_>, got: &Selected) -> Verdict {
    rows(map, rule, got).into()
}

fn rows(map: &Map<'_>, rule: &SelectionRule<'_>, got: &Selected) -> Result<(), String> {
    let Map { batch_heads, q_blocks, kv_blocks, .. } = *map;
    let words = kv_blocks.div_ceil(64);
    for (row, &count) in got.counts.iter().enumerate().take(batch_heads * q_blocks) {
        let (head, i) = (row / q_blocks, row % q_blocks);
        let place = format!("head {head}, query block {i}");
        let allowed = |j: usize| rule.allowed.is_none_or(|bits| bit(bits, words, i, j));
        let always = |j: usize| rule.always.is_some_and(|bits| bit(bits, words, i, j));
        let threshold = rule.mass.map(|mass| map.threshold(head, i, mass, &allowed));
        let list = usize::try_from(count)
            .ok()
            .filter(|&count| count <= kv_blocks)
            .map(|count| &got.indices[row * kv_blocks..][..count])
            .ok_or_else(|| format!("{place}: expected a count of 0 to {kv_blocks}, got {count}"))?;
        if !list.is_sorted_by(|a, b| a < b) {
            return Err(format!("{place}: expected a strictly ascending list, got {list:?}"));
        }
        let set: Vec<i32> =
            (0..kv_blocks).filter(|&j| bit(&got.bitmap, words, row, j)).map(|j| j as i32).collect();
        if set != list {
            return Err(format!("{place}: the bitmap says {set:?}, the list {list:?}"));
        }
        if (kv_blocks..words * 64).any(|j| bit(&got.bitmap, words, row, j)) {
            return Err(format!("{place}: a bit past the last of {kv_blocks} blocks is set"));
        }
        for j in 0..kv_blocks {
            let expected = if !allowed(j) {
                Some(false)
            } else if always(j) {
                Some(true)
            } else {
                threshold.as_ref().map_or(Some(false), |threshold| threshold.kept[j])
            };
            let is = list.contains(&(j as i32));
            if expected.is_some_and(|expected| expected != is) {
                let (what, not) = if is { ("keeps", "drops") } else { ("drops", "keeps") };
                return Err(format!("{place}: it {what} key block {j}, which the definition {not}"));
            }
        }
        // A window adds blocks whose mass the threshold had dropped: only without one do the sums say something.
        if rule.always.is_none()
            && let Some(threshold) = threshold
        {
            threshold.check(list, &allowed).map_err(|reason| format!("{place}: {reason}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: [f32; 4] = [0.0, 1.0, 3.0, 2.0];

    /// Probabilities 0.032, 0.087, 0.644, 0.237: mass 0.8 keeps blocks 2 and 3.
    fn map() -> Map<'static> {
        Map {
            batch_heads: 1,
            q_blocks: 1,
            kv_blocks: 4,
            head_dim: 1,
            scale: 1.0,
            pooled_q: &[1.0],
            pooled_k: &K,
        }
    }

    fn selected(list: &[i32]) -> Selected {
        let mut indices = list.to_vec();
        indices.resize(4, -1);
        let bitmap = vec![list.iter().map(|j| 1 << j).sum()];
        Selected { bitmap, counts: vec![list.len() as i32], indices, time_us: 0.0 }
    }

    fn judged(rule: SelectionRule<'_>, list: &[i32]) -> Verdict {
        judge(&map(), &rule, &selected(list))
    }

    #[test]
    fn the_definition_by_hand() {
        let mass = |mass| SelectionRule { mass: Some(mass), ..SelectionRule::default() };
        assert_eq!(judged(mass(0.8), &[2, 3]), Verdict::Passed);
        assert_eq!(judged(mass(0.6), &[2]), Verdict::Passed);
        assert_eq!(judged(mass(0.9), &[1, 2, 3]), Verdict::Passed);
        assert_eq!(judged(mass(0.0), &[2]), Verdict::Passed);
        for wrong in [&[2][..], &[1, 2, 3], &[1, 2], &[3], &[]] {
            assert!(matches!(judged(mass(0.8), wrong), Verdict::Failed(_)), "{wrong:?}");
        }
    }

    #[test]
    fn windows_and_documents_are_kept_and_cut() {
        let rule = SelectionRule { mass: Some(0.8), always: Some(&[0b0001]), allowed: None };
        assert_eq!(judged(rule, &[0, 2, 3]), Verdict::Passed);
        assert!(matches!(judged(rule, &[2, 3]), Verdict::Failed(_)));
        // Without block 2 the largest is 3, with 0.665 of what is left.
        let rule = SelectionRule { mass: Some(0.5), always: Some(&[0b0100]), allowed: Some(&[0b1011]) };
        assert_eq!(judged(rule, &[3]), Verdict::Passed);
        assert!(matches!(judged(rule, &[2, 3]), Verdict::Failed(_)));
    }

    #[test]
    fn lists_that_do_not_fit_their_bitmap_fail() {
        let rule = SelectionRule { mass: Some(0.8), ..SelectionRule::default() };
        let mut got = selected(&[2, 3]);
        got.bitmap[0] |= 1;
        assert!(matches!(judge(&map(), &rule, &got), Verdict::Failed(reason) if reason.contains("bitmap")));
        let mut got = selected(&[2, 3]);
        got.counts[0] = -1;
        assert!(matches!(judge(&map(), &rule, &got), Verdict::Failed(reason) if reason.contains("count")));
        let mut got = selected(&[3, 2]);
        got.bitmap[0] = 0b1100;
        assert!(
            matches!(judge(&map(), &rule, &got), Verdict::Failed(reason) if reason.contains("ascending"))
        );
    }

    #[test]
    fn a_tie_may_fall_either_way() {
        let map = Map { pooled_k: &[1.0, 1.0, 1.0, 1.0], ..map() };
        let rule = SelectionRule { mass: Some(0.3), ..SelectionRule::default() };
        for list in [&[2, 3][..], &[0, 1], &[1, 3]] {
            assert_eq!(judge(&map, &rule, &selected(list)), Verdict::Passed, "{list:?}");
        }
        for list in [&[3][..], &[1, 2, 3], &[]] {
            assert!(matches!(judge(&map, &rule, &selected(list)), Verdict::Failed(_)), "{list:?}");
        }
    }
}
