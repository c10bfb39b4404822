//! The figures of a report. Each module prepares plain data from records, then draws it; the two are apart so that
//! what a figure says can be tested without looking at it.

mod block_masks;
mod convergence;
mod effects;
mod error;
mod forest;
mod latency;
mod pareto;
mod parts;
pub(crate) mod quality;
pub(crate) mod replay;
mod roofline;
mod speedup;
mod throughput;
mod tile_grid;
mod tiles;

use crate::collection::DeviceRecords;
use crate::record::Record;
#[cfg(test)]
use crate::scene::Plotted;
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

/// Stems of the files of every figure there is.
pub(crate) const NAMES: [&str; 13] = [
    "speedup_over_sparsity",
    "latency_over_seqlen",
    "tflops_over_seqlen",
    "time_parts",
    "error_over_threshold",
    "pareto_front",
    "tile_heatmap",
    "tiles_by_problem",
    "main_effects",
    "roofline",
    "tuning_convergence",
    "comparisons",
    "block_masks",
];

/// Draws one figure of what a device did.
pub(crate) type Draw = fn(&DeviceRecords) -> Figure;

/// Returns every figure that a device's records call for, in the order a page shows them.
///
/// Figures of searches and comparisons are only called for where there are any; all others always, so that a page says
/// why one is missing.
pub(crate) fn called_for(device: &DeviceRecords) -> Vec<Draw> {
    let mut all: Vec<Draw> = vec![
        |d| speedup::figure(&d.records),
        |d| latency::figure(&d.records),
        |d| throughput::figure(&d.records, &d.machine),
        |d| parts::figure(&d.records),
        |d| error::figure(&d.records),
        |d| pareto::figure(&d.records),
        |d| tiles::figure(&d.records),
        |d| tile_grid::figure(&d.records),
        |d| effects::figure(&d.records),
        |d| roofline::figure(&d.records, &d.machine),
    ];
    if device.records.iter().any(|r| r.tuning.is_some()) {
        all.push(|d| convergence::figure(&d.records));
    }
    if !device.comparisons.is_empty() {
        all.push(|d| forest::figure(&d.comparisons));
    }
    all
}

/// Draws block masks, which belong to an input rather than a device.
pub(crate) use block_masks::figure as block_masks;

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

/// Keeps at most `most` of the values: the first, the last and those evenly between.
fn thin_out<T>(values: &mut Vec<T>, most: usize) {
    let found = values.len();
    if found > most {
        let keep: Vec<_> = (0..most).map(|i| i * (found - 1) / (most - 1).max(1)).collect();
        let mut n = 0..;
        values.retain(|_| n.next().is_some_and(|n| keep.contains(&n)));
    }
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
