//! What a person sees while a sweep runs.

use std::{cell::RefCell, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use nabla_host::{Policy, Problem};
use nabla_reports::{Record, Status};

use super::space::Config;
use crate::output;

/// A bar on a terminal; one line per group elsewhere. Everything goes to stderr.
///
/// Progress counts work, not trials, so that the remaining time is honest when lengths differ.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    total: f64,
    done: f64,
    group: f64,
    samples: u64,
    rows: usize,
    failed: usize,
    best: String,
}

/// Resolution of the bar.
const STEPS: u64 = 100_000;
/// Share of a group's time that verification takes, roughly: the rest is timing.
const VERIFYING: f64 = 0.4;

/// Estimates the work of a group: pairs of tokens times configurations.
pub(crate) fn work(policy: &Policy, tokens: usize, configs: usize) -> f64 {
    let density = policy.mass().unwrap_or(1.0).max(0.1);
    (tokens as f64).powi(2) * configs as f64 * density
}

impl Progress {
    /// Starts a bar over `total` units of [`work`].
    pub(crate) fn new(total: f64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(STEPS) };
        if let Ok(style) =
            ProgressStyle::with_template("[{elapsed}] {bar:30} {percent:>3} %  ETA {eta}  {msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, plain, state: RefCell::new(State { total: total.max(1.0), ..State::default() }) }
    }

    /// Starts a group of so many units of work.
    pub(crate) fn start_group(&self, work: f64) {
        let mut state = self.state.borrow_mut();
        state.group = work;
        state.samples = 0;
    }

    /// Tells that a configuration is being verified.
    pub(crate) fn verifying(&self, problem: &Problem, policy: &Policy, config: &Config) {
        let best = &self.state.borrow().best;
        let block = config.block.map(|b| format!(" block {}", b.q_block)).unwrap_or_default();
        self.bar.set_message(format!("{} {policy}{block} tile {}  {best}", problem.seqlen_q, config.tile));
    }

    /// Tells that a sample of `all` in the group is about to be taken.
    pub(crate) fn timing(&self, all: u64) {
        let mut state = self.state.borrow_mut();
        state.samples += 1;
        let share = VERIFYING + (1.0 - VERIFYING) * state.samples as f64 / all.max(1) as f64;
        let position = (state.done + state.group * share) / state.total;
        self.bar.set_position((position * STEPS as f64) as u64);
    }

    /// Ends a group and shows its best setting.
    pub(crate) fn finish_group(&self, problem: &Problem, policy: &Policy, records: &[Record]) {
        let mut state = self.state.borrow_mut();
        state.done += state.group;
        state.rows += records.len();
        state.failed +=
            records.iter().filter(|r| !matches!(r.status, Status::Ok | Status::Ineligible)).count();
        let best = records
            .iter()
            .filter(|r| r.status == Status::Ok)
            .min_by(|a, b| f64::total_cmp(&time(a), &time(b)));
        state.best = best.map_or_else(
            || "best: none yet".to_owned(),
            |r| {
                let block = if r.q_block > 0 { format!("block {} ", r.q_block) } else { String::new() };
                format!(
                    "best: {block}tile {}x{} {} ({:.2}x dense)",
                    r.block_m,
                    r.block_n,
                    output::time(time(r)),
                    r.speedup_vs_dense.unwrap_or(f64::NAN)
                )
            },
        );
        let failures = match state.failed {
            0 => String::new(),
            n => format!("  {n} failed"),
        };
        self.bar.set_position((state.done / state.total * STEPS as f64) as u64);
        self.bar.set_message(format!("{}{failures}", state.best));
        if self.plain {
            let share = state.done / state.total;
            anstream::eprintln!(
                "{:>4.0} %  S={} {policy}: {} rows, {}{failures}",
                share * 100.0,
                problem.seqlen_q,
                records.len(),
                state.best
            );
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn time(record: &Record) -> f64 {
    record.time_us_median.unwrap_or(f64::INFINITY)
}
