//! Runs of this program as recordings: one for each problem and policy.

use std::collections::BTreeMap;

use nabla_reports::{Record, Status};

use super::Recording;
use crate::search::{space::Value, strategy::Outcome};

/// A column of a record.
type Column = (&'static str, fn(&Record) -> i64);

/// Columns that say how a problem was run; those that vary are the axes.
const CONFIGURATION: &[Column] = &[
    ("q_block", |r| r.q_block as i64),
    ("kv_block", |r| r.kv_block as i64),
    ("block_m", |r| r.block_m as i64),
    ("block_n", |r| r.block_n as i64),
];

/// Names what was run, apart from how.
fn problem(record: &Record) -> String {
    let grid = record.grid.map(|[t, h, w]| format!(" grid {t}x{h}x{w}")).unwrap_or_default();
    format!(
        "{} on {} ({}), {} b{} h{} s{} d{}{grid}",
        record.policy,
        record.device,
        record.backend,
        record.dtype,
        record.batch,
        record.heads,
        record.seqlen,
        record.head_dim
    )
}

/// Returns the names of the columns that vary.
pub(super) fn axes(records: &[&Record]) -> Vec<&'static Column> {
    let varies = |column: &&Column| records.windows(2).any(|pair| column.1(pair[0]) != column.1(pair[1]));
    CONFIGURATION.iter().filter(varies).collect()
}

/// Groups records into recordings; problems run in one way only are left out.
///
/// What is ineligible is no point: nothing was launched. What was wrong or gave out is one that failed.
pub(super) fn recordings(records: &[Record]) -> Result<Vec<Recording>, String> {
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.status != Status::Ineligible) {
        groups.entry(problem(record)).or_default().push(record);
    }
    let mut recordings = Vec::new();
    for (name, records) in groups {
        let axes = axes(&records);
        if axes.is_empty() {
            continue;
        }
        let names: Vec<String> = axes.iter().map(|(name, _)| (*name).to_owned()).collect();
        let rows = records.iter().map(|record| {
            let values = axes.iter().map(|(_, value)| Value::Int(value(record))).collect();
            let cost = record.time_us_median.filter(|_| record.status == Status::Ok);
            (values, cost.map_or(Outcome::Failed, Outcome::Cost))
        });
        // A problem of which everything failed has no optimum to search for.
        recordings.extend(Recording::new(name, &names, rows.collect()));
    }
    if recordings.is_empty() {
        return Err("expected a problem that was run in more than one way, got none; sweep tiles or blocks"
            .to_owned());
    }
    Ok(recordings)
}
