//! What is seen of a tuning run: a live line or plain lines for people on stderr, events for scripts on stdout.

use std::{cell::RefCell, collections::BTreeMap, io::IsTerminal, io::Write, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use nabla_reports::{Comparison, Record, Stage, Status};
use serde_json::{Value, json};

use super::{Subject, Tuned};
use crate::{output, worker::Target};

/// Shows a run.
pub(crate) struct View {
    json: bool,
    bar: ProgressBar,
    plain: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    problems: usize,
    problem: usize,
    name: String,
    best: Option<(f64, String)>,
    failures: BTreeMap<&'static str, u64>,
}

/// Names a problem for people.
pub(crate) fn name_of(target: &Target, seqlen: usize) -> String {
    let block = target.block.map(|block| format!(" block {block}")).unwrap_or_default();
    format!("S={seqlen} {}{block}", target.policy)
}

impl View {
    /// Starts the view of a run over so many problems.
    pub(crate) fn new(json: bool, problems: usize) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain || json { ProgressBar::hidden() } else { ProgressBar::new(1) };
        let template = "[{elapsed}] {prefix} {bar:20} {pos}/{len}  {per_sec}  ETA {eta}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { json, bar, plain, state: RefCell::new(State { problems, ..State::default() }) }
    }

    /// Prints an event; a reader that has gone away is noticed when results are written.
    fn event(&self, event: &Value) {
        if self.json {
            let _ = writeln!(std::io::stdout().lock(), "{event}");
        }
    }

    /// Tells that a problem is skipped, since an earlier part of the run finished it.
    pub(crate) fn skip(&self, target: &Target) {
        self.state.borrow_mut().problem += 1;
        self.event(&json!({"event": "skipped", "target": target}));
    }

    /// Starts a problem.
    pub(super) fn start(&self, subject: &Subject<'_>, space: usize, evaluations: usize) {
        let mut state = self.state.borrow_mut();
        state.problem += 1;
        state.name = subject.name();
        state.best = None;
        state.failures.clear();
        self.bar.set_prefix(format!("{}/{} {}", state.problem, state.problems, state.name));
        self.bar.reset();
        self.bar.set_length(evaluations as u64);
        self.event(&json!({
            "event": "problem",
            "target": subject.target,
            "seqlen": subject.opened.problem.seqlen_q,
            "density": subject.opened.density,
            "overlap": subject.opened.overlap,
            "space": space,
            "refused": subject.opened.space.refused,
            "evaluations": evaluations,
            "strategy": subject.strategy,
        }));
    }

    /// Tells of a trial.
    pub(super) fn trial(&self, row: &Record) {
        let Some(tuning) = &row.tuning else { return };
        let mut state = self.state.borrow_mut();
        if row.status != Status::Ok {
            *state.failures.entry(row.status.name()).or_default() += 1;
            tracing::info!(status = row.status.name(), reason = %row.reason, config = %tuning.config_text(), "failed");
        }
        if tuning.stage == Stage::Search {
            self.bar.inc(1);
            if let Some(time) = row.time_us_median
                && state.best.as_ref().is_none_or(|(best, _)| time < *best)
            {
                state.best = Some((time, tuning.config_text()));
            }
        }
        let failures: Vec<String> = state.failures.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let best = state.best.as_ref().map(|(time, config)| format!("best {} {config}", output::time(*time)));
        self.bar
            .set_message([best.unwrap_or_default(), failures.join(", ")].join("  ").trim_end().to_owned());
        self.event(&json!({
            "event": "trial",
            "stage": tuning.stage,
            "evaluation": tuning.evaluation,
            "config": tuning.config,
            "status": row.status.name(),
            "reason": row.reason,
            "variant": row.variant,
            "time_us": row.time_us_median,
            "samples": row.samples_us.len(),
            "rejected_samples": tuning.rejected_samples,
            "contended": tuning.contended,
        }));
    }

    /// Tells of the noise floor.
    pub(super) fn floor(&self, floor: f64) {
        self.bar.set_message(format!("run-off; noise {}", output::percent(floor)));
        self.event(&json!({"event": "noise", "floor": floor}));
    }

    /// Tells of a comparison.
    pub(super) fn comparison(&self, line: &Comparison) {
        self.event(&json!({"event": "comparison", "comparison": line}));
    }

    /// Tells that a problem cannot be tuned, since its default does not work.
    pub(super) fn no_default(&self, subject: &Subject<'_>, reason: &str) {
        let name = subject.name();
        self.bar.suspend(|| anstream::eprintln!("{name}: the default configuration does not work: {reason}"));
        self.event(&json!({"event": "no_default", "target": subject.target, "reason": reason}));
    }

    /// Tells what a problem came to.
    pub(crate) fn tuned(&self, tuned: &Tuned) {
        let state = self.state.borrow();
        if self.plain && !self.json {
            let margin = &tuned.entry.margin;
            anstream::eprintln!(
                "{}/{} {}: {} ({}; {} tried)",
                state.problem,
                state.problems,
                state.name,
                tuned.entry.config,
                standing(margin),
                tuned.entry.found.evaluations
            );
        }
        self.event(&json!({
            "event": "tuned",
            "entry": tuned.entry,
            "noise_floor": tuned.floor,
            "failures": tuned.failures,
            "times_us": {"default": tuned.times_us[0], "chosen": tuned.times_us[1]},
        }));
    }

    /// Ends the view; `overhead` is the share of time that was spent on neither loading, building, verifying nor timing.
    pub(crate) fn done(&self, seconds: f64, overhead: f64, lost_workers: u32) {
        self.bar.finish_and_clear();
        self.event(&json!({
            "event": "done",
            "seconds": seconds,
            "overhead": overhead,
            "lost_workers": lost_workers,
        }));
    }
}

/// Says how a choice stands against the default.
pub(crate) fn standing(margin: &nabla_host::profile::Margin) -> String {
    use nabla_host::profile::Standing;
    match margin.standing {
        Standing::Tied => "the default; nothing was proven faster".to_owned(),
        Standing::Proven => format!(
            "{} less time than the default, 95 % interval {} to {}",
            output::percent(1.0 - margin.ratio),
            output::percent(1.0 - margin.ratio_high),
            output::percent(1.0 - margin.ratio_low)
        ),
    }
}
