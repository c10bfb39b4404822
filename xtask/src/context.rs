//! What every step is given: where the workspace is, how strict to be, and where test counts add up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::tally::Tally;

/// The workspace and the state that steps hand on to later ones.
pub(crate) struct Context {
    /// The folder with the workspace manifest.
    pub(crate) root: PathBuf,
    /// Whether a step that cannot run is a failure rather than skipped.
    pub(crate) strict: bool,
    /// Tests counted so far.
    pub(crate) tally: RefCell<Tally>,
    /// What the set-up could not provide, by name, with the reason. The steps that need it are skipped.
    pub(crate) missing: RefCell<BTreeMap<&'static str, String>>,
}

impl Context {
    /// Describes the workspace that this program was built in.
    pub(crate) fn of_this_workspace(strict: bool) -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().unwrap_or(package).to_owned();
        Self { root, strict, tally: RefCell::default(), missing: RefCell::default() }
    }

    /// Names the folder that tools are installed into: local to the project, and gone with `cargo clean`.
    pub(crate) fn tools_dir(&self) -> PathBuf {
        self.root.join("target").join("tools")
    }
}
