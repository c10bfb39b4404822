//! Runs steps in order, prints each one's name and time, and stops at the first that fails.

use std::time::{Duration, Instant};

use crate::context::Context;

/// How a step ended.
pub(crate) enum Outcome {
    Passed,
    /// It could not run here; the reason.
    Skipped(String),
    /// What was wrong.
    Failed(String),
}

/// One thing to check.
pub(crate) struct Step {
    /// One word.
    pub(crate) name: &'static str,
    /// What it does, in a few words.
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Context) -> Outcome,
}

/// Runs `steps` up to the first failure, prints a table of them all, and tells whether none failed.
///
/// A skipped step is a failure where the context is strict.
pub(crate) fn run(steps: &[Step], context: &Context) -> bool {
    let start = Instant::now();
    let mut rows = Vec::new();
    let (mut passed, mut skipped) = (0, 0);
    let mut failure = None;
    for (index, step) in steps.iter().enumerate() {
        if failure.is_some() {
            rows.push(format!("  {:<10} not run", step.name));
            continue;
        }
        println!("\n==> [{}/{}] {}: {}", index + 1, steps.len(), step.name, step.what);
        let step_start = Instant::now();
        let outcome = judged((step.run)(context), context.strict);
        let time = in_seconds(step_start.elapsed());
        let (result, detail) = match outcome {
            Outcome::Passed => {
                passed += 1;
                ("ok", String::new())
            }
            Outcome::Skipped(reason) => {
                skipped += 1;
                ("SKIPPED", format!("  {reason}"))
            }
            Outcome::Failed(reason) => {
                failure = Some((step.name, reason));
                // The reason is said once, at the very end, where it is looked for.
                ("FAILED", String::new())
            }
        };
        println!("    {}: {result} in {time}", step.name);
        rows.push(format!("  {:<10} {result:<8} {time:>9}{detail}", step.name));
    }

    println!("\nSteps:");
    rows.iter().for_each(|row| println!("{row}"));
    let not_run = steps.len() - passed - skipped - usize::from(failure.is_some());
    println!(
        "{passed} of {} steps passed, {} failed, {skipped} SKIPPED, {not_run} not run, in {}",
        steps.len(),
        usize::from(failure.is_some()),
        in_seconds(start.elapsed()),
    );
    if let Some((name, reason)) = &failure {
        eprintln!("error: step `{name}` failed: {reason}");
    }
    failure.is_none()
}

/// Turns a skipped step into a failed one where nothing may be skipped.
fn judged(outcome: Outcome, strict: bool) -> Outcome {
    match outcome {
        Outcome::Skipped(reason) if strict => {
            Outcome::Failed(format!("{reason} (with CI=true or --strict a step that cannot run has failed)"))
        }
        other => other,
    }
}

fn in_seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn context(strict: bool) -> Context {
        Context { root: PathBuf::new(), strict, tally: Default::default(), missing: Default::default() }
    }

    const PASSES: Step = Step { name: "passes", what: "counts", run: counts_itself };
    const SKIPS: Step =
        Step { name: "skips", what: "cannot run", run: |_| Outcome::Skipped("no network".into()) };
    const FAILS: Step = Step { name: "fails", what: "always", run: |_| Outcome::Failed("broken".into()) };

    fn counts_itself(context: &Context) -> Outcome {
        context.tally.borrow_mut().passed += 1;
        Outcome::Passed
    }

    #[test]
    fn nothing_runs_after_a_failure() {
        let context = context(false);
        assert!(!run(&[PASSES, FAILS, PASSES, PASSES], &context));
        assert_eq!(context.tally.borrow().passed, 1);
    }

    #[test]
    fn a_skipped_step_lets_the_rest_run() {
        let context = context(false);
        assert!(run(&[SKIPS, PASSES], &context));
        assert_eq!(context.tally.borrow().passed, 1);
    }

    #[test]
    fn a_skipped_step_fails_where_strict() {
        let context = context(true);
        assert!(!run(&[PASSES, SKIPS, PASSES], &context));
        assert_eq!(context.tally.borrow().passed, 1);
    }
}
