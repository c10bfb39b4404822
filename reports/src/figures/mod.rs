//! The figures of a report. Each module prepares plain data from records, then draws it; the two are apart so that
//! what a figure says can be tested without looking at it.

mod error;
mod latency;
mod pareto;
pub(crate) mod replay;
mod speedup;
mod tiles;

use crate::record::Record;
use crate::scene::Scene;

/// A figure, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// Stem of its file names.
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) title: &'static str,
    /// What to look for in it.
    pub(crate) caption: String,
    /// The picture, or one sentence saying why the records hold nothing to show.
    pub(crate) picture: Result<Scene, String>,
}

/// Returns every figure in the order a page shows them.
pub(crate) fn all(records: &[Record]) -> Vec<Figure> {
    vec![
        speedup::figure(records),
        latency::figure(records),
        error::figure(records),
        tiles::figure(records),
        pareto::figure(records),
    ]
}

/// The sentence for records without one timed sparse trial.
fn nothing_timed() -> String {
    "No trial on a sparse mask was verified and timed.".to_owned()
}

/// Returns the tuned choice of a record in a few words: `mask 64 · tile 64×128`.
pub(crate) fn setting(record: &Record) -> String {
    format!(
        "mask {} · tile {}×{}",
        mask_block(record.q_block, record.kv_block),
        record.block_m,
        record.block_n
    )
}

/// Returns the name of a mask block: `64`, or `64×128` where the sides differ.
pub(crate) fn mask_block(q_block: u64, kv_block: u64) -> String {
    if q_block == kv_block { q_block.to_string() } else { format!("{q_block}×{kv_block}") }
}

/// Returns about `most` of the values, evenly from first to last, or all if they are fewer: faint dots show where the
/// rest lies, and thousands of them would only hide the marks.
fn thinned<T>(values: &[T], most: usize) -> impl Iterator<Item = &T> {
    values.iter().step_by(values.len().div_ceil(most).max(1))
}

/// Returns a policy without its threshold: `nabla`, `nabla + sta-11-3-3`.
fn policy_family(record: &Record) -> String {
    let parts = record.policy.split('_').map(|part| match part.rsplit_once('-') {
        Some((name, number)) if number.parse().ok() == record.threshold && record.threshold.is_some() => name,
        _ => part,
    });
    parts.collect::<Vec<_>>().join(" + ")
}

#[cfg(test)]
mod tests;
