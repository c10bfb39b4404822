//! Samples of one thing, and which of them count.

use super::{Failed, Sample};
use crate::stats::{Median, median};

/// A clock below this share of the session's median marks a sample.
const SLOW_CLOCK: f64 = 0.75;
/// Waiting for a core for more than this share of a sample marks it.
const WAITED: f64 = 0.02;
/// More marked samples than this share make a result contended.
pub(crate) const MOST_MARKED: f64 = 0.3;
/// Unmarked samples a contended result needs to be one at all.
const LEAST_CLEAN: usize = 3;

/// The clocks seen in a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clocks {
    /// Ascending.
    sorted: Vec<f64>,
}

impl Clocks {
    /// Takes note of a sample's clock.
    pub(crate) fn note(&mut self, sample: &Sample) {
        if let Some(mhz) = sample.conditions.clock_mhz.filter(|mhz| mhz.is_finite()) {
            let at = self.sorted.partition_point(|there| *there < mhz);
            self.sorted.insert(at, mhz);
        }
    }

    fn median(&self) -> Option<f64> {
        self.sorted.get(self.sorted.len() / 2).copied()
    }

    /// Says whether a sample was taken under bad conditions: the clock had fallen below three quarters of the session's
    /// median, its threads had waited for a core, or another process was on the device.
    pub(crate) fn marks(&self, sample: &Sample) -> bool {
        let conditions = &sample.conditions;
        let slow = match (conditions.clock_mhz, self.median()) {
            (Some(mhz), Some(median)) => mhz < SLOW_CLOCK * median,
            _ => false,
        };
        let waited = conditions.waited_us.is_some_and(|us| us > WAITED * sample.time_us);
        slow || waited || conditions.others > 0
    }
}

/// What was timed of one thing, in the order taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series {
    /// Every sample, marked ones included.
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more.
    pub(crate) failed: Option<Failed>,
}

/// The samples of a series that count.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    /// Times in microseconds, in the order taken.
    pub(crate) times_us: Vec<f64>,
    /// Samples left out.
    pub(crate) marked: usize,
    /// Whether so many are marked that the result is doubtful.
    pub(crate) contended: bool,
}

impl Kept {
    /// Returns the median of what counts; `None` where too little does to be a result.
    pub(crate) fn median(&self) -> Option<Median> {
        if self.contended && self.times_us.len() < LEAST_CLEAN { None } else { median(&self.times_us) }
    }
}

impl Series {
    /// Takes what a round gave.
    pub(crate) fn push(&mut self, result: Result<Sample, Failed>, clocks: &mut Clocks) {
        match result {
            Ok(sample) => {
                clocks.note(&sample);
                self.samples.push(sample);
            }
            Err(failed) => self.failed = Some(failed),
        }
    }

    /// Leaves marked samples out.
    pub(crate) fn kept(&self, clocks: &Clocks) -> Kept {
        let times_us: Vec<f64> =
            self.samples.iter().filter(|s| !clocks.marks(s)).map(|s| s.time_us).collect();
        let marked = self.samples.len() - times_us.len();
        Kept { times_us, marked, contended: marked as f64 > MOST_MARKED * self.samples.len() as f64 }
    }

    /// Returns the median to search and race by: that of the samples that count, or of all where too few do. On a machine
    /// that is never quiet a search by doubtful times is better than none.
    pub(crate) fn best_known(&self, clocks: &Clocks) -> Option<Median> {
        self.kept(clocks).median().or_else(|| median(&self.times_us()))
    }

    /// Returns every time, marked ones included.
    pub(crate) fn times_us(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.time_us).collect()
    }
}

#[cfg(test)]
mod tests {
    use nabla_host::conditions::Conditions;

    use super::*;

    fn sample(time_us: f64, mhz: f64, waited_us: f64, others: u32) -> Sample {
        let conditions = Conditions { clock_mhz: Some(mhz), waited_us: Some(waited_us), others };
        Sample { time_us, conditions }
    }

    fn kept(samples: &[Sample]) -> Kept {
        let (mut clocks, mut series) = (Clocks::default(), Series::default());
        samples.iter().for_each(|sample| series.push(Ok(*sample), &mut clocks));
        series.kept(&clocks)
    }

    #[test]
    fn bad_conditions_leave_a_sample_out_and_not_away() {
        let good = sample(100.0, 2000.0, 0.0, 0);
        for bad in
            [sample(150.0, 1400.0, 0.0, 0), sample(150.0, 2000.0, 4.0, 0), sample(150.0, 2000.0, 0.0, 1)]
        {
            let found = kept(&[good, good, bad, good, good]);
            assert_eq!((found.times_us.len(), found.marked, found.contended), (4, 1, false), "{bad:?}");
            assert_eq!(found.median().map(|m| m.median), Some(100.0));
        }
        // A clock of 80 % and a wait of 1 % are within what machines do.
        assert_eq!(kept(&[good, good, sample(101.0, 1600.0, 1.0, 0)]).marked, 0);
    }

    #[test]
    fn too_many_marks_make_a_result_contended_and_hardly_any_clean_sample_none() {
        let (good, bad) = (sample(100.0, 2000.0, 0.0, 0), sample(150.0, 2000.0, 50.0, 0));
        let some = kept(&[good, bad, good, bad, good]);
        assert!(some.contended && some.median().is_some());
        let hardly = kept(&[good, bad, bad, bad, good]);
        assert!(hardly.contended && hardly.median().is_none());
        let series = Series { samples: vec![good, bad, bad], failed: None };
        assert_eq!(series.best_known(&Clocks::default()).map(|m| m.median), Some(150.0));
    }

    #[test]
    fn a_machine_that_tells_nothing_marks_nothing() {
        let silent = Sample { time_us: 1.0, conditions: Conditions::default() };
        assert_eq!(kept(&[silent; 4]).marked, 0);
    }
}
