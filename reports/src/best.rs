//! Picks the best setting of each problem and policy: one copy for the terminal and the page.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::collection::is_contended;
use crate::problem::{self, Problem};
use crate::record::{Record, Stage, Status};

/// Which time settings were compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeBasis {
    /// Mask building plus attention: what a user waits for.
    Total,
    /// Attention alone, where mask building was not measured.
    Attention,
}

impl TimeBasis {
    /// Returns the words for a heading.
    pub fn name(self) -> &'static str {
        match self {
            TimeBasis::Total => "mask + attention",
            TimeBasis::Attention => "attention only",
        }
    }
}

/// A median time and its 95 % interval, in microseconds. Without a measured interval both ends are the median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeInterval {
    /// Median.
    pub median_us: f64,
    /// Lower end.
    pub low_us: f64,
    /// Upper end.
    pub high_us: f64,
}

impl TimeInterval {
    /// Returns the time of the attention launch, if it was measured.
    pub fn attention(record: &Record) -> Option<Self> {
        let median_us = positive(record.time_us_median)?;
        let low_us = positive(record.time_us_ci_low).unwrap_or(median_us).min(median_us);
        let high_us = positive(record.time_us_ci_high).unwrap_or(median_us).max(median_us);
        Some(Self { median_us, low_us, high_us })
    }

    /// Returns the time of mask building and attention, if both were measured.
    ///
    /// The interval is that of the attention launch moved by the mask's time: a mask is built by the same code
    /// whatever the tile, so its own scatter does not tell tiles apart.
    pub fn total(record: &Record) -> Option<Self> {
        let attention = Self::attention(record)?;
        let median_us = positive(record.total_us_median)
            .or_else(|| Some(attention.median_us + positive(record.mask_us_median)?))?;
        let moved = median_us - attention.median_us;
        Some(Self { median_us, low_us: attention.low_us + moved, high_us: attention.high_us + moved })
    }

    /// Returns the time by the given basis.
    pub fn by(basis: TimeBasis, record: &Record) -> Option<Self> {
        match basis {
            TimeBasis::Total => Self::total(record),
            TimeBasis::Attention => Self::attention(record),
        }
    }

    /// Returns whether the two intervals have a point in common: then neither is shown to be faster.
    pub fn overlaps(self, other: Self) -> bool {
        self.low_us <= other.high_us && other.low_us <= self.high_us
    }
}

/// The fastest setting for one problem and policy.
#[derive(Debug, Clone, PartialEq)]
pub struct BestSetting<'a> {
    /// What it is the fastest for.
    pub problem: Problem,
    /// The winner's record.
    pub record: &'a Record,
    /// What the settings were compared by.
    pub basis: TimeBasis,
    /// The winner's time by that basis.
    pub time: TimeInterval,
    /// How many other settings are tied with it: their 95 % interval overlaps the winner's.
    pub ties: usize,
    /// How many settings were compared, the winner included.
    pub candidates: usize,
    /// Median time of dense attention on the same problem, in microseconds.
    pub dense_us: Option<f64>,
}

impl BestSetting<'_> {
    /// Returns how many times faster than dense attention it is, by [`BestSetting::basis`].
    pub fn speedup(&self) -> Option<f64> {
        Some(self.dense_us? / self.time.median_us)
    }
}

/// Returns the fastest setting per policy and problem, sorted by sequence length, then threshold, then policy.
///
/// Candidates are the ok, timed, non-dense records; where a search went on to a later stage, those of the last stage
/// alone, as the few samples of its evaluations favour the lucky. They are compared by what a user waits for, mask building plus
/// attention; where any candidate of a group lacks that time, the whole group is compared by attention alone, and
/// [`BestSetting::basis`] says so. Equal medians go to the lower sparsity error.
pub fn best_settings(records: &[Record]) -> Vec<BestSetting<'_>> {
    let mut best: Vec<_> = by_policy(timed_sparse(records))
        .into_iter()
        .filter_map(|((problem, _), candidates)| pick(problem, &candidates))
        .collect();
    best.sort_by(|a, b| {
        let threshold = |setting: &BestSetting<'_>| setting.record.threshold.unwrap_or(f64::INFINITY);
        (a.problem.seqlen.cmp(&b.problem.seqlen))
            .then(threshold(a).total_cmp(&threshold(b)))
            .then_with(|| (&a.record.policy, &a.problem).cmp(&(&b.record.policy, &b.problem)))
    });
    best
}

/// Returns the records of each problem and policy.
pub(crate) fn by_policy<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> BTreeMap<(Problem, &'a str), Vec<&'a Record>> {
    let mut groups = BTreeMap::new();
    for (problem, records) in problem::grouped(records) {
        let mut policies: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in records {
            policies.entry(&record.policy).or_default().push(record);
        }
        groups.extend(policies.into_iter().map(|(policy, records)| ((problem.clone(), policy), records)));
    }
    groups
}

/// Returns the records that were verified and timed on a sparse mask, nothing else using the device.
pub(crate) fn timed_sparse(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|r| {
        r.status == Status::Ok
            && r.policy != "dense"
            && !is_contended(r)
            && TimeInterval::attention(r).is_some()
    })
}

/// Returns the time all of the records can be compared by.
pub(crate) fn common_basis<'a>(records: impl IntoIterator<Item = &'a Record>) -> TimeBasis {
    let all_have_total = records.into_iter().all(|r| TimeInterval::total(r).is_some());
    if all_have_total { TimeBasis::Total } else { TimeBasis::Attention }
}

fn pick<'a>(problem: Problem, candidates: &[&'a Record]) -> Option<BestSetting<'a>> {
    // A sweep's trials are as good as final ones.
    let stage = |r: &Record| r.tuning.as_ref().map_or(Stage::Final, |t| t.stage);
    let last = candidates.iter().map(|r| stage(r)).max()?;
    let candidates: Vec<&Record> = candidates.iter().copied().filter(|r| stage(r) == last).collect();
    let basis = common_basis(candidates.iter().copied());
    let timed: Vec<_> =
        candidates.iter().filter_map(|&r| TimeInterval::by(basis, r).map(|time| (r, time))).collect();
    let &(record, time) = timed.iter().min_by(|(a, a_time), (b, b_time)| {
        (a_time.median_us.total_cmp(&b_time.median_us))
            .then_with(|| by_error(a, b))
            .then_with(|| a.key().cmp(&b.key()))
    })?;
    let overlapping = timed.iter().filter(|(_, other)| time.overlaps(*other)).count();
    let dense_us = positive(record.dense_us_median)
        .or_else(|| median(candidates.iter().filter_map(|r| positive(r.dense_us_median))));
    // The winner overlaps itself.
    Some(BestSetting {
        problem,
        record,
        basis,
        time,
        ties: overlapping - 1,
        candidates: timed.len(),
        dense_us,
    })
}

fn by_error(a: &Record, b: &Record) -> Ordering {
    let error = |r: &Record| r.sparsity_rel_rmse.unwrap_or(f64::INFINITY);
    error(a).total_cmp(&error(b))
}

/// Returns the value if it is a finite number above zero: what a logarithmic axis and a ratio can hold.
pub(crate) fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite() && *v > 0.0)
}

/// Returns the median, the mean of the middle two for an even number, `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n.is_multiple_of(2) => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}
