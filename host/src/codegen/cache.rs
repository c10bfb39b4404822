//! The folder that compiled device code is kept in, addressed by content: what goes in decides the name.
//!
//! Several processes may use it at once. Everything is written under another name and renamed, so that what is seen
//! is whole; expensive work is done once behind a file lock. Nothing is ever changed in place or deleted.
//!
//! ```text
//! core/KEY/       core and compiler_builtins of a toolchain for an architecture
//! sources/HASH/   device sources as they were compiled
//! libraries/KEY/  what the kernels of these sources share, for an architecture
//! kernels/ARCH/   ID-KEY.ptx and ID-KEY.json, one variant each
//! tmp/            work in progress; what a killed process leaves here is safe to delete
//! ```

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// The variable that names the folder.
pub const KERNEL_CACHE: &str = "NABLA_KERNEL_CACHE";

/// Stands for the way variants are made; a change of it makes every cached one stale.
const PIPELINE: &str = "nabla codegen 3";

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A file or folder of the cache that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("kernel cache: cannot {action} {}: {error}; choose another folder by --kernel-cache or {KERNEL_CACHE}", path.display())]
pub struct CacheError {
    action: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl CacheError {
    fn of(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self { action, path: path.to_owned(), error }
    }
}

/// Chooses the cache folder: the one given, else `NABLA_KERNEL_CACHE`, else `nabla` in the user's cache folder, else
/// in the folder for temporary files.
pub fn cache_dir(given: Option<&Path>) -> PathBuf {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given
        .map(Path::to_owned)
        .or_else(|| variable(KERNEL_CACHE))
        .or_else(|| variable("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|dir| dir.join("nabla")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache/nabla")))
        .unwrap_or_else(|| env::temp_dir().join("nabla"))
}

impl Cache {
    /// Opens a cache folder and makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        fs::create_dir_all(root.join("tmp")).map_err(CacheError::of("create", root))?;
        // Child processes run in folders of their own.
        let root = std::path::absolute(root).map_err(CacheError::of("use", root))?;
        Ok(Self { root })
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names a file or folder of the cache.
    pub(super) fn path(&self, parts: &[&str]) -> PathBuf {
        parts.iter().fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Makes an empty folder that is gone when dropped.
    pub(super) fn scratch(&self) -> Result<TempDir, CacheError> {
        let folder = self.root.join("tmp");
        tempfile::tempdir_in(&folder).map_err(CacheError::of("write to", &folder))
    }

    /// Writes a file as a whole: a reader sees all of it or nothing.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), CacheError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(CacheError::of("create", folder))?;
        }
        let scratch = self.scratch()?;
        let draft = scratch.path().join("draft");
        fs::write(&draft, content).map_err(CacheError::of("write", path))?;
        fs::rename(&draft, path).map_err(CacheError::of("write", path))
    }

    /// Returns a folder of the cache, filled by `fill` if it is not there; of several processes one fills it.
    ///
    /// # Errors
    /// Those of `fill`, or of the file system.
    pub(super) fn folder<E: From<CacheError>>(
        &self,
        parts: &[&str],
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let path = self.path(parts);
        if path.is_dir() {
            return Ok(path);
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(CacheError::of("create", folder))?;
        }
        let lock_path = path.with_added_extension("lock");
        let lock = File::create(&lock_path).map_err(CacheError::of("write", &lock_path))?;
        // Held until `lock` is dropped, also by a process that dies.
        lock.lock().map_err(CacheError::of("lock", &lock_path))?;
        if !path.is_dir() {
            let scratch = self.scratch()?;
            let draft = scratch.path().join("draft");
            fs::create_dir(&draft).map_err(CacheError::of("create", &draft))?;
            fill(&draft)?;
            fs::rename(&draft, &path).map_err(CacheError::of("write", &path))?;
        }
        Ok(path)
    }
}

/// Hashes everything that decides what comes out of a compilation, and in which order the parts come.
#[derive(Clone)]
pub(super) struct Key(blake3::Hasher);

impl Key {
    pub(super) fn new(what: &str) -> Self {
        Self(blake3::Hasher::new()).with(PIPELINE).with(what)
    }

    /// Adds a part; its length goes first, so that `ab, c` and `a, bc` differ.
    pub(super) fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// Returns 32 hexadecimal digits.
    pub(super) fn finish(&self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    #[test]
    fn a_key_tells_parts_and_their_order_apart() {
        let key = |parts: &[&str]| parts.iter().fold(Key::new("test"), |key, part| key.with(part)).finish();
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        let different = [key(&["a", "b"]), key(&["b", "a"]), key(&["ab"]), key(&["ab", ""]), key(&[])];
        for (i, a) in different.iter().enumerate() {
            assert!(different[..i].iter().all(|b| a != b), "{different:?}");
        }
        assert_ne!(Key::new("test").finish(), Key::new("other").finish());
    }

    #[test]
    fn a_folder_is_filled_once_by_however_many_ask() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let filled = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Each has a handle of its own, as processes have.
                    let cache = Cache::open(root.path()).unwrap();
                    let folder = cache.folder::<CacheError>(&["core", "k"], |draft| {
                        filled.fetch_add(1, Ordering::SeqCst);
                        fs::write(draft.join("a"), "x").map_err(CacheError::of("write", draft))
                    });
                    assert_eq!(fs::read_to_string(folder.unwrap().join("a")).unwrap(), "x");
                });
            }
        });
        assert_eq!(filled.load(Ordering::SeqCst), 1);
        assert_eq!(fs::read_dir(cache.path(&["tmp"])).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_could_not_be_filled_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let failed = cache.folder::<CacheError>(&["core", "k"], |draft| {
            fs::write(draft.join("half"), "").unwrap();
            Err(CacheError::of("write", draft)(io::Error::other("disk full")))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        let folder = cache.folder::<CacheError>(&["core", "k"], |_| Ok(())).unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn the_folder_given_comes_first() {
        assert_eq!(cache_dir(Some(Path::new("here"))), Path::new("here"));
        assert!(cache_dir(None).is_absolute());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let message = Cache::open(&file).unwrap_err().to_string();
        assert!(message.contains("--kernel-cache") && message.contains("file"), "{message}");
    }
}
