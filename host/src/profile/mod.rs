//! Profiles: which configuration to use where, as tuning found it.
//!
//! Owns the stored form, the lookup and the merge. Tunes nothing and times nothing.
//!
//! ```text
//! key      what an entry is for: device, type, head dimension, buckets of length, density and overlap
//! entry    the configuration, how sure it is, how it was found
//! lookup   from a problem to the best that is known, with the level of the match
//! ```

mod entry;
mod key;
mod lookup;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use entry::{Entry, Found, Margin, Standing};
pub use key::{Device, Key, Shape};
pub use lookup::{Level, Match};

/// Version of the form; others are refused.
pub const FORMAT: u32 = 1;

/// A file of entries, one for each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of the form, [`FORMAT`].
    pub format: u32,
    /// Entries, sorted by key.
    pub entries: Vec<Entry>,
}

/// A file that is no profile, or cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The system refused.
    #[error("cannot {action} the profile {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Something else stands in the file.
    #[error("{} is no profile: {reason}; expected what `nabla tune` writes", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Default for Profile {
    fn default() -> Self {
        Self { format: FORMAT, entries: Vec::new() }
    }
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// When there is none, or it is of another version.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = fs::read_to_string(path).map_err(|error| ProfileError::Io {
            action: "read",
            path: path.to_owned(),
            error,
        })?;
        let broken = |reason: String| ProfileError::Broken { path: path.to_owned(), reason };
        // The format first: a later one may have other fields.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(broken(format!("it has format {format}, this program reads {FORMAT}")));
            }
            None => return Err(broken("it has no format".to_owned())),
        }
        let profile: Self = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
        match profile.entries.iter().find_map(Entry::fault) {
            Some(fault) => Err(broken(fault)),
            None => Ok(profile),
        }
    }

    /// Writes it, by a rename: whoever reads meanwhile sees the old one or the new one whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ProfileError> {
        let failed = |error| ProfileError::Io { action: "write", path: path.to_owned(), error };
        let mut text = serde_json::to_string_pretty(self).map_err(io::Error::other).map_err(failed)?;
        text.push('\n');
        let draft = path.with_extension("json.new");
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, path)).map_err(failed)
    }

    /// Puts an entry in; one of the same key stays where it is the better founded.
    pub fn put(&mut self, entry: Entry) {
        match self.entries.binary_search_by(|there| there.key.cmp(&entry.key)) {
            Ok(at) if entry.outranks(&self.entries[at]) => self.entries[at] = entry,
            Ok(_) => {}
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Puts all entries of another profile in.
    pub fn merge(&mut self, other: Self) {
        other.entries.into_iter().for_each(|entry| self.put(entry));
    }
}
