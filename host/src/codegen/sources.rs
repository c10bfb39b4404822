//! The device sources: those this program was built with, or a folder of them.
//!
//! The program carries its own copy, so that it compiles kernels wherever it is installed and the sources always fit
//! the host side of the same crate.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    cache::{Cache, CacheError, Key},
    rustc::Part,
};

include!(concat!(env!("OUT_DIR"), "/device_sources.rs"));

/// Rust files by their path from the crate's `src`, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    files: Vec<(String, String)>,
    hash: String,
}

/// A folder that is no device crate's `src`.
#[derive(Debug, thiserror::Error)]
#[error("device sources: expected a folder with lib.rs and entry.rs, got {}: {error}", folder.display())]
pub struct SourcesError {
    folder: PathBuf,
    error: io::Error,
}

impl Sources {
    /// Returns the sources that this program was built with.
    pub fn built_in() -> Self {
        Self::of(DEVICE_SOURCES.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect())
    }

    /// Reads the sources of a crate from its folder, with or without `src` at its end.
    ///
    /// # Errors
    /// When there is no `lib.rs` or `entry.rs`, or a file cannot be read.
    pub fn read(folder: &Path) -> Result<Self, SourcesError> {
        let src = folder.join("src");
        let src = if src.is_dir() { src } else { folder.to_owned() };
        let failed = |error| SourcesError { folder: folder.to_owned(), error };
        let mut files = Vec::new();
        collect(&src, "", &mut files).map_err(failed)?;
        let holds = |part: Part| files.iter().any(|(path, _)| path == part.root());
        if !(holds(Part::Library) && holds(Part::Entry)) {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        Ok(Self::of(files))
    }

    fn of(mut files: Vec<(String, String)>) -> Self {
        files.sort();
        let key = files.iter().fold(Key::new("sources"), |key, (path, text)| key.with(path).with(text));
        Self { hash: key.finish(), files }
    }

    /// Returns a hash of all paths and contents: 32 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Writes the sources into the cache and returns the root file's folder: what is compiled is what was hashed,
    /// also while somebody edits the originals.
    pub(super) fn put_into(&self, cache: &Cache) -> Result<PathBuf, CacheError> {
        cache.folder(&["sources", &self.hash], |draft| {
            self.files.iter().try_for_each(|(path, text)| cache.write(&draft.join(path), text.as_bytes()))
        })
    }
}

/// Collects the Rust files below a folder.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else if path.ends_with(".rs") {
            files.push((path, fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_names_and_contents() {
        let root = tempfile::tempdir().unwrap();
        let hash = |files: &[(&str, &str)]| {
            let src = root.path().join("src");
            let _ = fs::remove_dir_all(&src);
            for (path, text) in files {
                let path = src.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Sources::read(root.path()).unwrap().hash().to_owned()
        };
        let first = hash(&[("lib.rs", "a"), ("entry.rs", ""), ("m/n.rs", "b"), ("notes.txt", "x")]);
        assert_eq!(first, hash(&[("m/n.rs", "b"), ("entry.rs", ""), ("lib.rs", "a")]));
        assert_ne!(first, hash(&[("lib.rs", "a"), ("entry.rs", ""), ("m/n.rs", "c")]));
        assert_ne!(first, hash(&[("lib.rs", "a"), ("entry.rs", ""), ("m/o.rs", "b")]));
    }

    #[test]
    fn sources_are_laid_out_in_the_cache_as_they_were() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let files = [("lib.rs", "mod m;"), ("entry.rs", ""), ("m/mod.rs", "")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        let sources = Sources::of(files.to_vec());
        let folder = sources.put_into(&cache).unwrap();
        assert_eq!(Sources::read(&folder).unwrap(), sources);
    }

    #[test]
    fn a_folder_without_a_crate_is_told() {
        let root = tempfile::tempdir().unwrap();
        let message = Sources::read(root.path()).unwrap_err().to_string();
        assert!(message.contains("lib.rs"), "{message}");
    }
}
