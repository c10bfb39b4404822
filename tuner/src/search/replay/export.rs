//! Runs of this program as T4 files.

use std::collections::BTreeMap;

use nabla_reports::{Record, Run, Status};
use serde_json::{Map, Value as Json, json};

use super::{
    records,
    t4::{Entry, File, Measurement, OBJECTIVE, SCHEMA_VERSION},
};
use crate::search::space::Value;

/// A column of the problem.
type Column = (&'static str, fn(&Record) -> Json);

/// Columns that say what was run; those that vary within a run become parameters, too, so that entries stay apart.
const PROBLEM: &[Column] = &[
    ("dtype", |r| json!(r.dtype)),
    ("batch", |r| json!(r.batch)),
    ("heads", |r| json!(r.heads)),
    ("seqlen", |r| json!(r.seqlen)),
    ("head_dim", |r| json!(r.head_dim)),
    ("policy", |r| json!(r.policy)),
];

/// Makes the T4 file of a run: an entry for each record, times in milliseconds as the format's public files have them.
///
/// Stages that this program does not time apart are 0 there, and named under `not_recorded` in the metadata: readers add
/// them up, so the keys must be there.
pub(crate) fn t4(run: &Run) -> File {
    let records: Vec<&Record> = run.records.iter().collect();
    let varies = |column: &&Column| records.windows(2).any(|pair| column.1(pair[0]) != column.1(pair[1]));
    let (varying, fixed): (Vec<&Column>, Vec<&Column>) = PROBLEM.iter().partition(varies);
    let axes = records::axes(&records);
    let configuration = |record: &Record| -> Map<String, Json> {
        let problem = varying.iter().map(|(name, value)| ((*name).to_owned(), value(record)));
        let values = records::values(record, &axes).into_iter().map(|value| match value {
            Value::Int(value) => json!(value),
            Value::Real(value) => json!(value),
            Value::Bool(value) => json!(value),
            Value::Text(value) => json!(value),
        });
        problem.chain(axes.iter().cloned().zip(values)).collect()
    };
    let identity = &run.header.identity;
    let mut metadata = BTreeMap::from([
        ("timeunit".to_owned(), json!("milliseconds")),
        ("not_recorded".to_owned(), json!(["compilation", "framework", "search_algorithm", "validation"])),
        ("device_name".to_owned(), json!(identity.device)),
        ("isa".to_owned(), json!(identity.isa)),
        ("input".to_owned(), json!(identity.input)),
        ("source_hash".to_owned(), json!(identity.source_hash)),
        ("nabla_version".to_owned(), json!(run.header.nabla_version)),
    ]);
    if let Some(first) = records.first() {
        let problem: Map<String, Json> =
            fixed.iter().map(|(name, value)| ((*name).to_owned(), value(first))).collect();
        metadata.insert("problem".to_owned(), Json::Object(problem));
    }
    let results = records.iter().map(|record| entry(record, configuration(record))).collect();
    File { metadata, results, schema_version: SCHEMA_VERSION.to_owned() }
}

fn entry(record: &Record, configuration: Map<String, Json>) -> Entry {
    let milliseconds = |us: &f64| us / 1e3;
    let mut times = json!({ "compilation": 0, "framework": 0, "search_algorithm": 0, "validation": 0 });
    if !record.samples_us.is_empty() {
        times["runtimes"] = record.samples_us.iter().map(milliseconds).collect();
    }
    let value = record.time_us_median.as_ref().map(milliseconds);
    let invalidity = match record.status {
        // Ranked by its time, which there is none of.
        Status::Ok if value.is_none() => "runtime",
        Status::Ok => "correct",
        Status::Incorrect => "correctness",
        Status::Ineligible => "constraints",
        Status::CompileError | Status::Rejected => "compile",
        Status::Timeout => "timeout",
        // What was timed on a busy machine has no time either.
        Status::LaunchError | Status::Crashed | Status::Contended => "runtime",
    };
    Entry {
        timestamp: record.timestamp.clone(),
        configuration,
        times,
        invalidity: invalidity.to_owned(),
        correctness: if invalidity == "correct" { 1.0 } else { 0.0 },
        measurements: vec![Measurement {
            name: OBJECTIVE.to_owned(),
            value: value.map_or_else(|| json!(record.status.name()), |value| json!(value)),
            unit: "ms".to_owned(),
        }],
        objectives: vec![OBJECTIVE.to_owned()],
    }
}
