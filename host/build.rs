//! Records what the kernels were built from: a hash of their sources and the compiler's version.

use std::{fs, path::Path, process::Command};

fn hash_folder(hasher: &mut blake3::Hasher, folder: &Path) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            hash_folder(hasher, &path);
        } else if path.extension().is_some_and(|e| e == "rs") {
            hasher.update(path.file_name().map(|n| n.as_encoded_bytes()).unwrap_or_default());
            hasher.update(&fs::read(&path).unwrap_or_default());
        }
    }
}

fn main() {
    let sources = Path::new("../kernels-cpu/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut hasher = blake3::Hasher::new();
    hash_folder(&mut hasher, sources);
    println!("cargo::rustc-env=NABLA_SOURCE_HASH={}", &hasher.finalize().to_hex()[..16]);

    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=NABLA_TOOLCHAIN={}", version.trim());
}
