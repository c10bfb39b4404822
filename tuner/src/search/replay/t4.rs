//! The T4 results format of auto-tuners (<https://github.com/odgaard/TuningSchema>, results schema 1.0.0).
//!
//! `results` holds an object for each configuration: `configuration`, `times`, `invalidity`, `correctness`, and the
//! `measurements` of its `objectives`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Recording, source::value};
use crate::search::strategy::Outcome;

/// Version of the schema written, and the newest read with certainty.
pub(super) const SCHEMA_VERSION: &str = "1.0.0";

/// A whole file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct File {
    /// Facts about all results; free in form.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, Json>,
    /// One for each configuration.
    pub(crate) results: Vec<Entry>,
    /// Version of the schema.
    #[serde(default)]
    pub(crate) schema_version: String,
}

/// One configuration and what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When it ended.
    #[serde(default)]
    pub(crate) timestamp: String,
    /// Value of each parameter, in their order.
    pub(crate) configuration: serde_json::Map<String, Json>,
    /// How long its stages took.
    pub(crate) times: Json,
    /// `correct`, or what went wrong: `timeout`, `compile`, `runtime`, `correctness`, `constraints`.
    pub(crate) invalidity: String,
    /// 1 for a right result, 0 for a wrong one.
    pub(crate) correctness: f64,
    /// What was measured.
    #[serde(default)]
    pub(crate) measurements: Vec<Measurement>,
    /// Names of the measurements that are tuned for.
    #[serde(default)]
    pub(crate) objectives: Vec<String>,
}

/// A named number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// Name.
    pub(crate) name: String,
    /// Number, or the name of a failure.
    pub(crate) value: Json,
    /// Unit; empty where nobody said.
    #[serde(default)]
    pub(crate) unit: String,
}

/// The objective costs are taken from.
pub(super) const OBJECTIVE: &str = "time";

/// Parses a T4 file called `name`.
pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Recording, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| format!("expected a T4 file: {error}"))?;
    let Some(first) = file.results.first() else {
        return Err("expected at least one entry under `results`, got none".to_owned());
    };
    let mut names: Vec<String> = first.configuration.keys().cloned().collect();
    names.sort();
    let mut rows = Vec::with_capacity(file.results.len());
    for (index, entry) in file.results.iter().enumerate() {
        let missing =
            |name: &str| format!("expected '{name}' in the configuration of result {index}, got none");
        let get = |name: &String| value(entry.configuration.get(name).ok_or_else(|| missing(name))?);
        let values = names.iter().map(get).collect::<Result<_, String>>()?;
        if let Some(other) = entry.objectives.first().filter(|objective| *objective != OBJECTIVE) {
            return Err(format!("expected the objective '{OBJECTIVE}' in result {index}, got '{other}'"));
        }
        let time = entry.measurements.iter().find(|measurement| measurement.name == OBJECTIVE);
        let time = time.and_then(|measurement| measurement.value.as_f64());
        let outcome = match (entry.invalidity.as_str(), time) {
            ("correct", Some(time)) => Outcome::Cost(time),
            ("correct", None) => {
                return Err(format!(
                    "expected a number as measurement '{OBJECTIVE}' of result {index}, got none"
                ));
            }
            _ => Outcome::Failed,
        };
        rows.push((values, outcome));
    }
    Recording::new(name.to_owned(), &names, rows)
}
