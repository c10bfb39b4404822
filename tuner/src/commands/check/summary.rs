//! The table a person reads: one row a kernel, then every failure and every reason to skip.

use std::{collections::BTreeMap, io::Write};

use comfy_table::{CellAlignment, Table, presets};
use nabla_host::check::{Outcome, Verdict};

use super::Suite;
use crate::{failure::Failure, output};

#[derive(Default)]
struct Row {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Largest share of its budget that a kernel error took, with the error.
    worst: Option<(f64, f64)>,
    seconds: f64,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        match outcome.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
        self.seconds += outcome.seconds;
        if let Some(accuracy) = &outcome.accuracy {
            let share = accuracy.kernel.rel_rmse / accuracy.budget.rel_rmse;
            if self.worst.is_none_or(|(worst, _)| share > worst) {
                self.worst = Some((share, accuracy.kernel.rel_rmse));
            }
        }
    }
}

/// Prints all suites to stdout.
pub(super) fn print(suites: &[Suite]) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    for suite in suites {
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        suite.outcomes.iter().for_each(|outcome| rows.entry(&outcome.subject).or_default().add(outcome));
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "kernel",
            "passed",
            "failed",
            "skipped",
            "worst error",
            "of its budget",
            "seconds",
        ]);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        for (subject, row) in rows {
            table.add_row([
                subject.to_owned(),
                row.passed.to_string(),
                row.failed.to_string(),
                row.skipped.to_string(),
                row.worst.map_or(String::new(), |(_, error)| output::error(error)),
                row.worst.map_or(String::new(), |(share, _)| output::percent(share)),
                format!("{:.2}", row.seconds),
            ]);
        }
        let [passed, failed, skipped] = suite.counts();
        writeln!(out, "{} on {}\n{}", suite.name, suite.device, table.trim_fmt())?;
        writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped in {:.1} s\n", suite.seconds)?;
    }
    for suite in suites {
        let mut skipped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Outcome { subject, case, verdict, .. } in &suite.outcomes {
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed(reason) => {
                    writeln!(out, "FAILED {}: {subject} on {case}: {reason}", suite.name)?;
                }
                Verdict::Skipped(reason) => skipped.entry(reason).or_default().push(subject),
            }
        }
        for (reason, subjects) in skipped {
            let others = match subjects.len() {
                1 => String::new(),
                n => format!(" and {} others", n - 1),
            };
            writeln!(out, "skipped {}: {}{others}: {reason}", suite.name, subjects[0])?;
        }
    }
    Ok(())
}
