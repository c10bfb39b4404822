//! From what the run-off found to the configurations worth confirming.

use crate::stats::{Finding, Verdict};

/// One of the run-off, with what decides between equals.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finalist {
    /// Its number.
    pub(crate) number: usize,
    /// What was found against the default.
    pub(crate) finding: Option<Finding>,
    /// Its kernel error.
    pub(crate) error: f64,
    /// What it takes of the device, in any unit: fewer is better.
    pub(crate) resources: u64,
}

/// Returns the finalists proven faster than the default, the one to use first.
///
/// The fastest leads; one whose interval reaches the fastest's estimate is tied with it, and ties go to the lower error,
/// then to fewer resources, then to the lower number. What is not proven is not returned: the default stays.
pub(crate) fn ranked(finalists: &[Finalist]) -> Vec<usize> {
    let mut proven: Vec<(&Finalist, Finding)> = finalists
        .iter()
        .filter_map(|finalist| Some((finalist, finalist.finding?)))
        .filter(|(_, finding)| finding.verdict == Verdict::Faster)
        .collect();
    proven.sort_by(|(_, a), (_, b)| a.estimate.centre.total_cmp(&b.estimate.centre));
    let Some((_, fastest)) = proven.first().copied() else { return Vec::new() };
    let ties =
        proven.iter().take_while(|(_, finding)| finding.estimate.low <= fastest.estimate.centre).count();
    proven[..ties].sort_by(|(a, _), (b, _)| {
        // Errors that differ by rounding alone decide nothing.
        let coarse = |error: f64| if error > 0.0 { (error.log2() * 4.0).round() } else { f64::NEG_INFINITY };
        (coarse(a.error).total_cmp(&coarse(b.error)))
            .then(a.resources.cmp(&b.resources))
            .then(a.number.cmp(&b.number))
    });
    proven.into_iter().map(|(finalist, _)| finalist.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Estimate;

    fn finalist(number: usize, centre: f64, verdict: Verdict, error: f64, resources: u64) -> Finalist {
        let estimate = Estimate { centre, low: centre - 0.01, high: centre + 0.01 };
        let finding = Finding { pairs: 32, estimate, p_value: 0.0, margin: 0.01, verdict };
        Finalist { number, finding: Some(finding), error, resources }
    }

    #[test]
    fn what_is_not_proven_is_never_chosen() {
        let rest = [
            finalist(1, -0.5, Verdict::Ambiguous, 0.0, 0),
            finalist(2, -0.005, Verdict::Same, 0.0, 0),
            finalist(3, 0.2, Verdict::Slower, 0.0, 0),
            Finalist { number: 4, finding: None, error: 0.0, resources: 0 },
        ];
        assert!(ranked(&rest).is_empty());
    }

    #[test]
    fn ties_go_to_the_lower_error_then_to_fewer_resources() {
        let faster =
            |number, centre, error, resources| finalist(number, centre, Verdict::Faster, error, resources);
        assert_eq!(ranked(&[faster(1, -0.1, 1e-3, 8), faster(2, -0.3, 1e-3, 8)]), [2, 1]);
        assert_eq!(ranked(&[faster(1, -0.3, 1e-3, 8), faster(2, -0.295, 1e-5, 8)]), [2, 1]);
        assert_eq!(ranked(&[faster(1, -0.3, 1e-3, 8), faster(2, -0.295, 1.01e-3, 4)]), [2, 1]);
        assert_eq!(ranked(&[faster(1, -0.295, 1e-3, 8), faster(2, -0.3, 1e-3, 8)]), [1, 2]);
    }
}
