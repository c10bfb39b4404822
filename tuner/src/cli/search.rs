//! Options of `nabla tune` that touch no device.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

/// Looking at spaces and comparing strategies.
#[derive(Debug, Clone, Args)]
pub(crate) struct SearchArgs {
    /// Compare strategies on finished measurements of a whole space instead of a device: a Kernel Tuner cache file, a T4
    /// file (both also .gz), or the folder or records.jsonl of a run.
    #[arg(long, value_name = "FILE", conflicts_with = "print_space")]
    pub(crate) replay: Option<PathBuf>,
    /// Evaluations of each repeat of a replay [default: one in 25 of the points, at least 50].
    #[arg(long, value_name = "N", requires = "replay", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget: Option<u32>,
    /// Repeats of a replay, each with a seed of its own.
    #[arg(
        long, value_name = "R", requires = "replay", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub(crate) repeats: u32,
    /// Print axes, constraints, points and default of a space: a built-in one by its name, or a TOML file [default: list
    /// the built-in ones].
    #[arg(long, value_name = "NAME|FILE.toml", num_args = 0..=1, default_missing_value = "")]
    pub(crate) print_space: Option<String>,
    /// Give a number to constraints that say limit.NAME.
    #[arg(long = "limit", value_name = "NAME=NUMBER,..", value_delimiter = ',', requires = "print_space")]
    pub(crate) limits: Vec<Setting>,
    /// Keep one value of an axis.
    #[arg(long = "fix", value_name = "AXIS=VALUE,..", value_delimiter = ',', requires = "print_space")]
    pub(crate) fixed: Vec<Setting>,
}

/// A name and what it is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
                Ok(Self { name: name.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err("expected NAME=VALUE".to_owned()),
        }
    }
}
