//! What a run is: the header of `records.jsonl`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a run is: the first line of `records.jsonl`. Runs whose identities differ are never mixed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Line format, [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema: u32,
    /// Version of the program.
    pub nabla_version: String,
    /// What must agree for a run to be resumed.
    pub identity: Identity,
    /// When the run started, RFC 3339, UTC.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// How samples were taken.
    pub protocol: Protocol,
    /// Cautions for whoever reads the numbers, such as "no GPU".
    pub warnings: Vec<String>,
    /// What the device can do and how it was set, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// The facts that make two runs comparable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// `cpu`, `cuda` or `emulator`.
    pub backend: String,
    /// Device model name.
    pub device: String,
    /// Driver version, for a GPU.
    pub driver: Option<String>,
    /// Instruction set or GPU architecture.
    pub isa: String,
    /// Threads of the CPU backend.
    pub threads: Option<u64>,
    /// Operating system and architecture.
    pub platform: String,
    /// Compiler that built the kernels.
    pub toolchain: String,
    /// Hash of the kernel sources.
    pub source_hash: String,
    /// Commit the program was built from.
    pub git_commit: String,
    /// What the input is, for people.
    pub input: String,
    /// Hash of the input tensors.
    pub input_hash: String,
    /// Hash of the swept space.
    pub space_hash: String,
    /// Policies that a file decides, each with a hash of what the file says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_files: Vec<String>,
    /// Seed of inputs, order and sampling.
    pub seed: u64,
}

/// How samples were taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Untimed launches before the first round.
    pub warmup: u64,
    /// Interleaved rounds: samples per configuration.
    pub rounds: u64,
    /// One sentence: how rounds are made, what an interval is.
    pub description: String,
}

/// What a device can do and how it was set: the roof of a roofline, and what a reader needs to compare times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Highest rate by element type, in 10¹² FLOP/s: `{"bf16": 989.0}`.
    #[serde(default)]
    pub peak_tflops: BTreeMap<String, f64>,
    /// Highest memory bandwidth, in 10⁹ byte/s.
    #[serde(default)]
    pub bandwidth_gb_per_s: Option<f64>,
    /// Where both come from, such as `measured before the run` or `data sheet`.
    #[serde(default)]
    pub peak_source: String,
    /// The clocks during the run, for people.
    #[serde(default)]
    pub clocks: Option<String>,
}
