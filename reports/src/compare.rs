//! Two runs against each other: what became faster, what slower, and what the samples do not tell.
//!
//! The runs were made at different times. Their ratio holds whatever changed between them, the clock of the device
//! included; an interval is therefore taken as wide as both medians allow, and not as the 95 % of a paired test.

use std::collections::HashMap;

use crate::best::{BestSetting, TimeInterval, best_settings, timed_sparse};
use crate::figures::setting;
use crate::format::{plural, time};
use crate::problem;
use crate::read::Run;
use crate::record::{Record, Verdict};
use crate::summary::table;

/// Ratios this near to one do not matter.
const MARGIN: f64 = 0.01;

/// One ratio of times, of the second run over the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The problem.
    pub problem: String,
    /// The mask policy.
    pub policy: String,
    /// The setting: of the second run, and of the first where it differs.
    pub setting: String,
    /// Median time in the first run, in microseconds.
    pub before_us: f64,
    /// Median time in the second run, in microseconds.
    pub after_us: f64,
    /// Their ratio, with the least and the most that both intervals allow.
    pub ratio: [f64; 3],
    /// What it comes to.
    pub verdict: Verdict,
}

/// What changed between two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunComparison {
    /// What stands in the way of comparing, such as two devices.
    pub warnings: Vec<String>,
    /// Best setting against best setting for each problem and policy of both.
    pub best: Vec<Change>,
    /// Each trial of both, of the same kernel on the same problem.
    pub trials: Vec<Change>,
    /// Timed trials that only the first has, and only the second.
    pub unmatched: [usize; 2],
    /// The two runs, for people.
    pub names: [String; 2],
}

/// Compares the second run with the first.
pub fn compare_runs(first: &Run, second: &Run) -> RunComparison {
    let names = [first, second].map(|run| format!("{} ({})", run.path.display(), run.header.started));
    let (mut best, mut trials) = (Vec::new(), Vec::new());
    let after = best_settings(&second.records);
    for (before, name) in named(best_settings(&first.records)) {
        let same = |other: &&BestSetting<'_>| {
            other.record.policy == before.record.policy
                && key_of_problem(other.record) == key_of_problem(before.record)
        };
        let Some(other) = after.iter().find(same).filter(|other| other.basis == before.basis) else {
            continue;
        };
        let (old, new) = (setting(before.record), setting(other.record));
        let setting = if old == new { new } else { format!("{new} (was {old})") };
        best.push(change((name, before.record, setting), before.time, other.time));
    }
    let mut others: HashMap<String, &Record> = timed_sparse(&second.records).map(|r| (key(r), r)).collect();
    let mut only_first = 0;
    for record in timed_sparse(&first.records) {
        let times = others
            .remove(&key(record))
            .and_then(|other| Some((TimeInterval::attention(record)?, TimeInterval::attention(other)?)));
        match times {
            Some((a, b)) => {
                let name = format!("{} tokens", crate::format::count(record.seqlen));
                trials.push(change((name, record, setting(record)), a, b));
            }
            None => only_first += 1,
        }
    }
    RunComparison {
        warnings: warnings(first, second),
        best,
        trials,
        unmatched: [only_first, others.len()],
        names,
    }
}

fn named(best: Vec<BestSetting<'_>>) -> Vec<(BestSetting<'_>, String)> {
    let problems: Vec<_> = best.iter().map(|b| b.problem.clone()).collect();
    let names = problem::names(&problems);
    best.into_iter().zip(names).collect()
}

/// Returns what makes a problem the same in two runs; where it ran is for [`warnings`] to say.
fn key_of_problem(record: &Record) -> impl PartialEq {
    (record.seqlen, record.batch, record.heads, record.head_dim, record.dtype.clone(), record.grid)
}

fn key(record: &Record) -> String {
    let config =
        record.tuning.as_ref().map(|t| format!("{}{}", t.stage.name(), t.config_text())).unwrap_or_default();
    let bare = Record {
        tuning: None,
        samples_us: vec![],
        dense_samples_us: vec![],
        mask_samples_us: vec![],
        ..record.clone()
    };
    format!("{}|{config}", bare.key())
}

fn change((problem, record, setting): (String, &Record, String), a: TimeInterval, b: TimeInterval) -> Change {
    let ratio = [b.low_us / a.high_us, b.median_us / a.median_us, b.high_us / a.low_us];
    let verdict = match ratio {
        [_, _, high] if high < 1.0 - MARGIN => Verdict::Faster,
        [low, ..] if low > 1.0 + MARGIN => Verdict::Slower,
        [low, _, high] if low >= 1.0 - MARGIN && high <= 1.0 + MARGIN => Verdict::Same,
        _ => Verdict::Ambiguous,
    };
    let policy = record.policy.clone();
    Change { problem, policy, setting, before_us: a.median_us, after_us: b.median_us, ratio, verdict }
}

fn warnings(first: &Run, second: &Run) -> Vec<String> {
    let (a, b) = (&first.header.identity, &second.header.identity);
    let mut warnings = Vec::new();
    if (&a.device, &a.backend) != (&b.device, &b.backend) {
        warnings.push(format!(
            "The runs were made on different devices, {} ({}) and {} ({}): their ratio says nothing about a change of code.",
            a.device, a.backend, b.device, b.backend
        ));
    }
    let facts = [
        ("input", &a.input_hash, &b.input_hash),
        ("toolchain", &a.toolchain, &b.toolchain),
        ("kernel sources", &a.source_hash, &b.source_hash),
        ("commit", &a.git_commit, &b.git_commit),
    ];
    warnings.extend(
        facts
            .into_iter()
            .filter(|(_, a, b)| a != b)
            .map(|(what, a, b)| format!("Another {what}: {a}, then {b}.")),
    );
    if a.threads != b.threads {
        warnings.push("Another number of threads.".to_owned());
    }
    warnings.push(
        "The runs were not interleaved: drift of the device's clock is part of every ratio.".to_owned(),
    );
    warnings
}

impl RunComparison {
    /// Returns the geometric mean of the ratios of best settings, `None` if nothing can be compared.
    pub fn mean_ratio(&self) -> Option<f64> {
        let sum: f64 = self.best.iter().map(|change| change.ratio[1].ln()).sum();
        (!self.best.is_empty()).then(|| (sum / self.best.len() as f64).exp())
    }

    fn verdicts(changes: &[Change]) -> String {
        let parts = [Verdict::Faster, Verdict::Same, Verdict::Slower, Verdict::Ambiguous].map(|verdict| {
            let n = changes.iter().filter(|change| change.verdict == verdict).count();
            format!("{n} {}", verdict.name())
        });
        parts.join(", ")
    }

    /// Returns one line: the mean ratio and the verdicts.
    pub fn one_line(&self) -> String {
        match self.mean_ratio() {
            Some(ratio) => format!(
                "nabla: time of best settings {ratio:.3}x of before ({}); trials: {}",
                Self::verdicts(&self.best),
                Self::verdicts(&self.trials)
            ),
            None => "nabla: the runs share no timed problem and policy".to_owned(),
        }
    }

    /// Returns the comparison as Markdown, for a pull request or a terminal.
    pub fn markdown(&self) -> String {
        let mut text = format!("### nabla: {} against {}\n\n", self.names[1], self.names[0]);
        for warning in &self.warnings {
            text.push_str(&format!("> {}\n", crate::summary::escaped(warning)));
        }
        text.push('\n');
        let Some(mean) = self.mean_ratio() else {
            text.push_str("The runs share no timed problem and policy.\n");
            return text;
        };
        text.push_str(&format!(
            "Best settings: **{mean:.3}x** the time of before (geometric mean of {}): {}.\n\n",
            plural(self.best.len(), "ratio", "ratios"),
            Self::verdicts(&self.best)
        ));
        text.push_str(&table(
            &["problem", "policy", "setting", ">before", ">after", ">ratio", ">from", ">to", "verdict"],
            self.best.iter().map(row),
        ));
        text.push_str(&format!(
            "\nThe same kernel on the same problem, attention alone: {}, {} only before, {} only after.\n",
            Self::verdicts(&self.trials),
            self.unmatched[0],
            self.unmatched[1]
        ));
        let mut changed: Vec<&Change> = self.trials.iter().filter(|c| c.verdict == Verdict::Slower).collect();
        changed.sort_by(|a, b| b.ratio[1].total_cmp(&a.ratio[1]));
        if !changed.is_empty() {
            text.push_str("\nSlowed most:\n\n");
            text.push_str(&table(
                &["problem", "policy", "setting", ">before", ">after", ">ratio", ">from", ">to", "verdict"],
                changed.into_iter().take(5).map(row),
            ));
        }
        text
    }
}

fn row(change: &Change) -> Vec<String> {
    let [low, middle, high] = change.ratio.map(|ratio| format!("{ratio:.3}"));
    vec![
        change.problem.clone(),
        change.policy.clone(),
        change.setting.clone(),
        time(change.before_us),
        time(change.after_us),
        middle,
        low,
        high,
        change.verdict.name().to_owned(),
    ]
}
