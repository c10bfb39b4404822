//! Many runs of a strategy in one curve.

/// Quartiles over repeats of the fraction of the optimum, by number of evaluations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// First quartile, median and third quartile after each evaluation.
    pub(crate) quartiles: Vec<[f64; 3]>,
    /// Repeats it is made of.
    pub(crate) repeats: usize,
    /// First evaluation at which each repeat reached each of [`Curve::MARKS`].
    reached: Vec<[Option<usize>; 3]>,
}

impl Curve {
    /// Fractions of the optimum that are reported.
    pub(crate) const MARKS: [f64; 3] = [0.90, 0.95, 0.99];

    /// Sums up runs, each the fraction after every evaluation. A run that ended early stays where it was.
    pub(crate) fn new(runs: &[Vec<f64>]) -> Self {
        let length = runs.iter().map(Vec::len).max().unwrap_or(0);
        let quartiles = (0..length)
            .map(|at| {
                let mut values: Vec<f64> =
                    runs.iter().map(|run| run.get(at).or(run.last()).copied().unwrap_or(0.0)).collect();
                values.sort_by(f64::total_cmp);
                [0.25, 0.5, 0.75].map(|share| quantile(&values, share))
            })
            .collect();
        let first = |run: &Vec<f64>, mark: f64| run.iter().position(|&f| f >= mark).map(|at| at + 1);
        let reached = runs.iter().map(|run| Self::MARKS.map(|mark| first(run, mark))).collect();
        Self { quartiles, repeats: runs.len(), reached }
    }

    /// Returns the number of evaluations within which half of the repeats reached the n-th mark; `None` if they did
    /// not.
    pub(crate) fn median_evaluations(&self, mark: usize) -> Option<usize> {
        let mut all: Vec<usize> = self.reached.iter().map(|r| r[mark].unwrap_or(usize::MAX)).collect();
        all.sort_unstable();
        let half = all.len().div_ceil(2).checked_sub(1)?;
        Some(all[half]).filter(|&evaluations| evaluations < usize::MAX)
    }

    /// Returns the quartiles after so many evaluations, counted from 1; the last ones beyond the end.
    pub(crate) fn at(&self, evaluations: usize) -> [f64; 3] {
        let at = evaluations.min(self.quartiles.len());
        at.checked_sub(1).map_or([0.0; 3], |at| self.quartiles[at])
    }
}

/// Returns a quantile of sorted values, between neighbours where it falls between.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}
