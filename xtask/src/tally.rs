//! Test counts, read from the `test result:` lines that cargo test prints, one for each test binary.

use std::fmt;

/// How many tests passed, failed and did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Ignored by an attribute: they did not run, and so did not pass.
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds the counts of one line of test output; a line that is not a `test result:` adds nothing.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                // `measured` are benchmarks; `filtered out` were not asked for.
                _ => {}
            }
        }
    }

    /// Tells whether any test ran.
    pub(crate) fn is_empty(self) -> bool {
        self.passed + self.failed == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.add_line(line));
        tally
    }

    #[test]
    fn binaries_add_up() {
        let tally = tally_of(&[
            "running 12 tests",
            "test mask::tests::rows_are_never_empty ... ok",
            "test result: ok. 11 passed; 0 failed; 1 ignored; 2 measured; 0 filtered out; finished in 0.04s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
        ]);
        assert_eq!(tally, Tally { passed: 13, failed: 3, skipped: 1 });
        assert_eq!(tally.to_string(), "13 passed, 3 failed, 1 skipped");
        assert!(!tally.is_empty());
    }

    #[test]
    fn other_lines_count_nothing() {
        let tally = tally_of(&["", "5 passed", "  test result: ok. 5 passed; 0 failed", "test result: "]);
        assert_eq!(tally, Tally::default());
        assert!(tally.is_empty());
    }

    #[test]
    fn only_skipped_tests_are_no_run() {
        assert!(tally_of(&["test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured"]).is_empty());
    }
}
