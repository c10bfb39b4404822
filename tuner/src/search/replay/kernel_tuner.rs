//! Kernel Tuner's cache files (<https://github.com/KernelTuner/kernel_tuner>, schema of the cache 1.0.0 and later).
//!
//! `tune_params_keys` names the parameters; `cache` holds an object for each configuration, whose `time` is the mean
//! in milliseconds or the name of a failure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{Recording, source::value};
use crate::search::strategy::Outcome;

#[derive(Deserialize)]
struct Cache {
    device_name: Option<String>,
    kernel_name: Option<String>,
    tune_params_keys: Vec<String>,
    objective: Option<String>,
    cache: BTreeMap<String, BTreeMap<String, Json>>,
}

/// The objective costs are taken from; others may be better when higher.
const OBJECTIVE: &str = "time";

/// Parses a cache file.
pub(super) fn parse(bytes: &[u8]) -> Result<Recording, String> {
    let file: Cache = serde_json::from_slice(bytes)
        .map_err(|error| format!("expected a Kernel Tuner cache file: {error}"))?;
    if let Some(objective) = file.objective.filter(|objective| objective != OBJECTIVE) {
        return Err(format!("expected the objective '{OBJECTIVE}', got '{objective}'"));
    }
    let mut rows = Vec::with_capacity(file.cache.len());
    for (key, entry) in &file.cache {
        let get = |name: &str| {
            entry.get(name).ok_or_else(|| format!("expected '{name}' in the entry '{key}', got none"))
        };
        let values =
            file.tune_params_keys.iter().map(|name| value(get(name)?)).collect::<Result<_, String>>()?;
        let outcome = match get(OBJECTIVE)? {
            Json::Number(number) => number.as_f64().map_or(Outcome::Failed, Outcome::Cost),
            Json::String(_) => Outcome::Failed,
            other => {
                return Err(format!(
                    "expected a number or a failure as '{OBJECTIVE}' of the entry '{key}', got {other}"
                ));
            }
        };
        rows.push((values, outcome));
    }
    let words: Vec<String> = file.kernel_name.into_iter().chain(file.device_name).collect();
    Recording::new(words.join(" on "), &file.tune_params_keys, rows)
}
