//! Records what the kernels were built from: a hash of their sources and the compiler's version. Puts the sources of
//! the device kernels into the crate, which compiles them when they are asked for.

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

/// Writes a table of (path, text) of the Rust files below a folder, for the crate to include.
fn embed_folder(table: &mut String, folder: &Path, prefix: &str) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            embed_folder(table, &path, &format!("{prefix}{name}/"));
        } else if name.ends_with(".rs") {
            let path = std::path::absolute(&path).unwrap_or(path);
            table.push_str(&format!("    ({:?}, include_str!({path:?})),\n", format!("{prefix}{name}")));
        }
    }
}

fn embed_device_sources() {
    let sources = Path::new("../kernels-gpu/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    let mut table = "/// Device sources by their path from the crate's `src`.\n\
                     const DEVICE_SOURCES: &[(&str, &str)] = &[\n"
        .to_owned();
    embed_folder(&mut table, sources, "");
    table.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    if let Err(error) = fs::write(Path::new(&out).join("device_sources.rs"), table) {
        println!("cargo::error=cannot write the table of device sources: {error}");
    }
}

fn main() {
    embed_device_sources();
    println!("cargo::rerun-if-changed=build.rs");
    let mut hasher = blake3::Hasher::new();
    for sources in ["../kernels-cpu/src", "../kernels-gpu/src"] {
        println!("cargo::rerun-if-changed={sources}");
        hash_folder(&mut hasher, Path::new(sources));
    }
    println!("cargo::rustc-env=NABLA_SOURCE_HASH={}", &hasher.finalize().to_hex()[..16]);

    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=NABLA_TOOLCHAIN={}", version.trim());
}
