//! Runs of this program as recordings: one for each problem and policy.

use std::collections::BTreeMap;

use nabla_reports::{Record, Stage, Status};

use super::Recording;
use crate::search::{space::Value, strategy::Outcome};

/// Returns how a problem was run: what tuning chose, else the columns that a sweep varies.
fn configuration(record: &Record) -> BTreeMap<String, Value> {
    let columns = [
        ("q_block", record.q_block),
        ("kv_block", record.kv_block),
        ("block_m", record.block_m),
        ("block_n", record.block_n),
    ];
    let mut configuration: BTreeMap<String, Value> =
        columns.into_iter().map(|(name, value)| (name.to_owned(), Value::Int(value as i64))).collect();
    for (name, value) in record.tuning.iter().flat_map(|tuning| &tuning.config) {
        let value = match (value.as_i64(), value.as_str()) {
            (Some(number), _) => Value::Int(number),
            (_, Some(text)) => Value::Text(text.to_owned()),
            _ => Value::Text(value.to_string()),
        };
        configuration.insert(name.clone(), value);
    }
    configuration
}

/// Names what was run, apart from how.
fn problem(record: &Record) -> String {
    let grid = record.grid.map(|[t, h, w]| format!(" grid {t}x{h}x{w}")).unwrap_or_default();
    format!(
        "{} on {}, {} b{} h{} s{} d{}{grid}",
        record.policy,
        record.device,
        record.dtype,
        record.batch,
        record.heads,
        record.seqlen,
        record.head_dim
    )
}

/// Returns what varies over records, by name: parameters that all of them have and not all alike.
pub(super) fn axes(records: &[&Record]) -> Vec<String> {
    let configurations: Vec<BTreeMap<String, Value>> = records.iter().map(|r| configuration(r)).collect();
    let Some(first) = configurations.first() else { return Vec::new() };
    let varies = |name: &&String| {
        let everywhere = configurations.iter().all(|of| of.contains_key(*name));
        everywhere && configurations.iter().any(|of| of.get(*name) != first.get(*name))
    };
    first.keys().filter(varies).cloned().collect()
}

/// Returns a record's values of some axes.
pub(super) fn values(record: &Record, axes: &[String]) -> Vec<Value> {
    let configuration = configuration(record);
    axes.iter().filter_map(|name| configuration.get(name).cloned()).collect()
}

/// Groups records into recordings; problems run in one way only are left out.
///
/// What is ineligible is no point: nothing was launched. What was wrong or gave out is one that failed.
pub(super) fn recordings(records: &[Record]) -> Result<Vec<Recording>, String> {
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    // The run-off of a tuning run times again what its search has timed.
    let searched = |r: &&Record| r.tuning.as_ref().is_none_or(|tuning| tuning.stage == Stage::Search);
    for record in records.iter().filter(|r| r.status != Status::Ineligible).filter(searched) {
        groups.entry(problem(record)).or_default().push(record);
    }
    let mut recordings = Vec::new();
    for (name, records) in groups {
        let axes = axes(&records);
        if axes.is_empty() {
            continue;
        }
        let rows = records.iter().map(|record| {
            let cost = record.time_us_median.filter(|_| record.status == Status::Ok);
            (values(record, &axes), cost.map_or(Outcome::Failed, Outcome::Cost))
        });
        // A problem of which everything failed has no optimum to search for.
        let Ok(recording) = Recording::new(name, &axes, rows.collect()) else { continue };
        // Tuning tries the default first.
        let is_default = |r: &&&Record| r.tuning.as_ref().is_some_and(|tuning| tuning.evaluation == 1);
        let default = records.iter().find(is_default).map(|record| values(record, &axes));
        recordings.push(match default {
            Some(default) => recording.with_default(&axes, &default),
            None => recording,
        });
    }
    if recordings.is_empty() {
        return Err("expected a problem that was run in more than one way, got none; sweep tiles or blocks"
            .to_owned());
    }
    Ok(recordings)
}
