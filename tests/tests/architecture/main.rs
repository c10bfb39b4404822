//! The import rules of the workspace, checked on its manifests and sources: data goes one way, and so do imports.
//!
//! Each violation says where, which rule, what to do. The rules themselves are in `rules.rs`.

mod code;
mod planted;
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rules::{Names, Violation, check};

/// Collects (path from the root, text) of every manifest and source under `folder`, sorted.
fn sources(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                sources(root, &path, found);
            }
        } else if name == "Cargo.toml" || name.ends_with(".rs") {
            let relative = path.strip_prefix(root).expect("below the root");
            let relative =
                relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{relative}: {error}"));
            found.insert(relative, text);
        }
    }
}

#[test]
fn the_workspace_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace folder");
    let mut files = BTreeMap::new();
    sources(root, root, &mut files);
    let members =
        files.iter().filter_map(|(path, text)| Some((path.strip_suffix("/Cargo.toml")?, text.as_str())));
    let names = Names::read(&files["Cargo.toml"], members);
    // Guards against a walk that finds nothing and so finds nothing wrong.
    for folder in ["bench", "host", "kernels-cpu", "reports", "tests", "tuner", "xtask"] {
        assert!(names.folders.values().any(|found| found == folder), "no manifest found in {folder}");
        assert!(
            files.keys().any(|path| path.starts_with(&format!("{folder}/")) && path.ends_with(".rs")),
            "{folder}"
        );
    }
    let violations: Vec<_> = files.iter().flat_map(|(path, text)| check(path, text, &names)).collect();
    let list = violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("\n");
    assert!(violations.is_empty(), "{} rules are broken:\n{list}", violations.len());
}
