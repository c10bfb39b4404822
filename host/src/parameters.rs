//! Named parameters of a kernel: what a tuner varies, whatever the backend.
//!
//! Owns names, values and lists of what goes together. Does not know what a name means: that is the backend's.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::variant::TileConfig;

/// Query rows of a tile, for every backend.
pub const BLOCK_M: &str = "block_m";
/// Keys of a tile, for every backend.
pub const BLOCK_N: &str = "block_n";

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Int(i64),
    /// A name.
    Text(String),
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// One configuration: a value for each name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(pub BTreeMap<String, Value>);

impl Parameters {
    /// Makes the parameters every backend has of a tile.
    pub fn of_tile(tile: TileConfig) -> Self {
        Self::default().with(BLOCK_M, tile.block_m).with(BLOCK_N, tile.block_n)
    }

    /// Adds a value, or replaces it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Returns a value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns a value that is a count.
    pub fn count(&self, name: &str) -> Option<usize> {
        match self.get(name) {
            Some(Value::Int(value)) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Returns the tile, if there is one.
    pub fn tile(&self) -> Option<TileConfig> {
        Some(TileConfig { block_m: self.count(BLOCK_M)?, block_n: self.count(BLOCK_N)? })
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}

/// A parameter and the values it takes, in their natural order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterAxis {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Vec<Value>,
}

/// What can be varied on a problem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterSpace {
    /// Parameters and their values.
    pub axes: Vec<ParameterAxis>,
    /// The configurations that can run, in the order of the axes, the last fastest.
    pub configurations: Vec<Parameters>,
    /// How many points of the axes cannot, by reason.
    pub refused: BTreeMap<String, u64>,
}

impl ParameterSpace {
    /// Goes through every point of some axes and keeps those that `check` accepts.
    pub fn of_axes(axes: Vec<ParameterAxis>, check: impl Fn(&Parameters) -> Result<(), String>) -> Self {
        let mut space = Self { axes, ..Self::default() };
        let points: usize = space.axes.iter().map(|axis| axis.values.len()).product();
        for point in 0..points {
            let mut rest = point;
            let mut parameters = Parameters::default();
            for axis in space.axes.iter().rev() {
                parameters.0.insert(axis.name.clone(), axis.values[rest % axis.values.len()].clone());
                rest /= axis.values.len();
            }
            match check(&parameters) {
                Ok(()) => space.configurations.push(parameters),
                Err(reason) => *space.refused.entry(reason).or_default() += 1,
            }
        }
        space
    }

    /// Makes the space of given configurations, with the values that occur as axes.
    pub fn of_configurations(configurations: Vec<Parameters>, refused: BTreeMap<String, u64>) -> Self {
        let mut values: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for (name, value) in configurations.iter().flat_map(|parameters| &parameters.0) {
            values.entry(name).or_default().push(value);
        }
        let axis = |(name, mut values): (&str, Vec<&Value>)| {
            values.sort();
            values.dedup();
            ParameterAxis { name: name.to_owned(), values: values.into_iter().cloned().collect() }
        };
        Self { axes: values.into_iter().map(axis).collect(), configurations, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(name: &str, values: &[usize]) -> ParameterAxis {
        ParameterAxis { name: name.into(), values: values.iter().map(|&v| v.into()).collect() }
    }

    #[test]
    fn points_come_in_the_order_of_the_axes_and_what_is_refused_is_counted() {
        let axes = vec![axis(BLOCK_M, &[32, 64]), axis(BLOCK_N, &[32, 64, 128])];
        let space = ParameterSpace::of_axes(axes, |p| match p.tile() {
            Some(TileConfig { block_m: 64, block_n: 128 }) => Err("too large".into()),
            _ => Ok(()),
        });
        let tiles: Vec<String> = space.configurations.iter().map(Parameters::to_string).collect();
        assert_eq!(tiles[..2], ["block_m=32 block_n=32", "block_m=32 block_n=64"]);
        assert_eq!((tiles.len(), space.refused["too large"]), (5, 1));
        let again = ParameterSpace::of_configurations(space.configurations.clone(), space.refused.clone());
        assert_eq!(again, space);
    }

    #[test]
    fn parameters_read_as_they_are_written() {
        let parameters = Parameters::of_tile(TileConfig { block_m: 64, block_n: 32 }).with("isa", "avx2");
        let text = serde_json::to_string(&parameters).unwrap();
        assert_eq!(text, r#"{"block_m":64,"block_n":32,"isa":"avx2"}"#);
        assert_eq!(serde_json::from_str::<Parameters>(&text).unwrap(), parameters);
    }
}
