//! What is committed from elsewhere is what it says it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

#[derive(serde::Deserialize)]
struct Manifest {
    package: String,
    version: String,
    licence: String,
    sha256: BTreeMap<String, String>,
}

#[test]
fn the_chart_library_is_the_one_its_manifest_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/uplot");
    let text = fs::read_to_string(folder.join("MANIFEST.toml")).unwrap();
    let manifest: Manifest = toml::from_str(&text).unwrap();
    assert_eq!((manifest.package.as_str(), manifest.licence.as_str()), ("uplot", "MIT"));
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| name != "MANIFEST.toml");
    files.sort();
    let named: Vec<_> = manifest.sha256.keys().cloned().collect();
    let mut named = named;
    named.sort();
    assert_eq!(files, named, "every file has a hash");
    for (name, hash) in &manifest.sha256 {
        let bytes = fs::read(folder.join(name)).unwrap();
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&found, hash, "{name}");
    }
    let script = fs::read_to_string(folder.join("uPlot.iife.min.js")).unwrap();
    assert!(script.contains(&format!("(v{})", manifest.version)));
}
