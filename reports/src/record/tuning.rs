//! What tuning adds to a trial: which strategy asked for it, when, and how cleanly it was timed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where in a tuning run a trial belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The strategy's own evaluation, of few samples.
    Search,
    /// The best of the search against each other, of more samples.
    Runoff,
    /// The winner against the default, as it is reported.
    Final,
}

impl Stage {
    /// Returns the name used in CSV and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Search => "search",
            Stage::Runoff => "runoff",
            Stage::Final => "final",
        }
    }
}

/// What tuning adds to a trial. Sweeps have none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Name of the search strategy.
    pub strategy: String,
    /// Which evaluation of the run this is, counted from 1.
    pub evaluation: u64,
    /// Where in the run it belongs.
    pub stage: Stage,
    /// The configuration by knob: what the strategy chose.
    pub config: BTreeMap<String, serde_json::Value>,
    /// Samples taken and thrown away: the machine was busy or its clock had moved.
    pub rejected_samples: u64,
    /// Whether something else used the device while this was timed; such a time is no result.
    pub contended: bool,
}

impl Tuning {
    /// Returns the configuration as one line, `knob=value` by knob.
    pub fn config_text(&self) -> String {
        let pairs = self.config.iter().map(|(knob, value)| format!("{knob}={}", value_text(value)));
        pairs.collect::<Vec<_>>().join(" ")
    }
}

/// Returns a knob's value without the quotes JSON puts around text.
pub(crate) fn value_text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
