//! The outcomes as JSON, for scripts; `docs/check.md` says what each field is.

use nabla_host::{
    check::{Outcome, Verdict},
    provenance,
};
use serde_json::{Value, json};

use super::Suite;
use crate::failure::{Failure, Kind};

/// Version of the layout.
pub(super) const SCHEMA: u32 = 1;

/// Writes all suites.
pub(super) fn text(suites: &[Suite]) -> Result<String, Failure> {
    let suites: Vec<Value> = suites.iter().map(suite).collect();
    let all = json!({
        "schema": SCHEMA,
        "nabla": env!("CARGO_PKG_VERSION"),
        "commit": env!("NABLA_GIT_COMMIT"),
        "sources": provenance::SOURCE_HASH,
        "suites": suites,
    });
    serde_json::to_string_pretty(&all).map(|text| text + "\n").map_err(|e| Failure::new(Kind::Output, e))
}

fn suite(suite: &Suite) -> Value {
    let [passed, failed, skipped] = suite.counts();
    json!({
        "name": suite.name,
        "backend": suite.backend,
        "device": suite.device,
        "driver": suite.driver,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "seconds": suite.seconds,
        "checks": suite.outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

/// A number, or null where it is not finite: JSON has no word for those.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

fn outcome(outcome: &Outcome) -> Value {
    let (status, reason) = match &outcome.verdict {
        Verdict::Passed => ("passed", None),
        Verdict::Failed(reason) => ("failed", Some(reason)),
        Verdict::Skipped(reason) => ("skipped", Some(reason)),
    };
    let errors = outcome.accuracy.as_ref().map(|accuracy| {
        json!({
            "kernel_rel_rmse": number(accuracy.kernel.rel_rmse),
            "kernel_rel_rmse_budget": number(accuracy.budget.rel_rmse),
            "lse_max_abs": number(accuracy.lse_max_abs),
            "lse_max_abs_budget": number(accuracy.budget.lse_max_abs),
        })
    });
    json!({
        "kernel": outcome.subject,
        "case": outcome.case,
        "status": status,
        "reason": reason,
        "errors": errors,
        "counts": outcome.counts,
        "seconds": outcome.seconds,
    })
}
