//! From a problem to the best that is known.

use serde::{Deserialize, Serialize};

use super::{Device, Entry, Key, Profile, Shape};

/// How well an entry fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// This device and this kind of problem.
    Exact,
    /// This kind of problem, on another device of the same architecture.
    SameArchitecture,
    /// The nearest length, density and overlap on this architecture.
    NearestShape,
    /// Nothing fits: the backend's default.
    Default,
}

impl Level {
    /// Returns the words for it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Exact => "exact",
            Level::SameArchitecture => "same architecture",
            Level::NearestShape => "nearest shape",
            Level::Default => "default",
        }
    }
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match<'a> {
    /// How well it fits.
    pub level: Level,
    /// The entry; `None` at [`Level::Default`].
    pub entry: Option<&'a Entry>,
}

impl Match<'_> {
    /// Says what a user has to know, if anything.
    pub fn warning(&self) -> Option<String> {
        let entry = self.entry;
        match (self.level, entry) {
            (Level::Exact, _) => None,
            (Level::SameArchitecture, Some(entry)) => {
                Some(format!("tuned on {}, not on this device", entry.key.device.model))
            }
            (Level::NearestShape, Some(entry)) => Some(format!(
                "tuned on {} tokens at density {:.2}: nothing nearer is known, and nothing is proven here",
                entry.shape.seqlen, entry.shape.density
            )),
            _ => Some("nothing in the profile fits this problem and device: taking the default".to_owned()),
        }
    }
}

/// Says whether an entry's key will do.
type Fits<'a> = &'a dyn Fn(&Key) -> bool;

/// Distance in shape: factors of two in length, densities by factors of two, overlap by its whole range.
fn distance(a: &Shape, b: &Shape) -> f64 {
    let log = |x: f64| x.max(1e-3).log2();
    log(a.seqlen as f64 / b.seqlen.max(1) as f64).abs()
        + (log(a.density) - log(b.density)).abs()
        + (a.overlap - b.overlap).abs()
}

impl Profile {
    /// Finds the best entry for a problem on a device.
    pub fn lookup(&self, device: &Device, shape: &Shape) -> Match<'_> {
        let key = shape.key(device);
        let nearest = |fits: Fits<'_>| {
            let fitting = self.entries.iter().filter(|entry| fits(&entry.key));
            fitting.min_by(|a, b| distance(&a.shape, shape).total_cmp(&distance(&b.shape, shape)))
        };
        let related =
            |k: &Key| (&k.device.backend, &k.device.architecture) == (&device.backend, &device.architecture);
        let levels: [(Level, Fits<'_>); 4] = [
            (Level::Exact, &|k| *k == key),
            (Level::SameArchitecture, &|k| related(k) && k.same_shape(&key)),
            // Another shape of this very device tells more than one of its relatives.
            (Level::NearestShape, &|k| k.device == *device && k.same_kind(&key)),
            (Level::NearestShape, &|k| related(k) && k.same_kind(&key)),
        ];
        let found = levels
            .into_iter()
            .find_map(|(level, fits)| nearest(fits).map(|entry| Match { level, entry: Some(entry) }));
        found.unwrap_or(Match { level: Level::Default, entry: None })
    }
}
