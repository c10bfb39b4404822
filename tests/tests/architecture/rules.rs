//! The rules: `FOLDERS` is the whole picture of who imports whom; the rest are functions over (path, text).
//!
//! Rules for folders that do not exist yet hold from the day they appear.

use std::collections::BTreeMap;
use std::fmt;

use crate::code::{code_of, test_lines};

/// What one folder with a crate may import, and what its sources may not name.
pub(crate) struct Folder {
    pub(crate) name: &'static str,
    /// The workspace crates it may depend on, by folder.
    imports: &'static [&'static str],
    /// Crates from outside it may not depend on, with what to do instead; a trailing `*` stands for any ending.
    foreign: &'static [(&'static str, &'static str)],
    /// Words its code may not contain, in any case, with what to do instead.
    words: &'static [(&'static str, &'static str)],
    prints: bool,
}

const COMMAND_LINE: &str = "command lines are parsed in tuner: take the values as arguments";
const CSV: &str = "CSV is written by reports: return the record";
const PLOTS: &str = "pictures are drawn by reports: return the record";
const DRIVER: &str = "the CUDA driver is bound in host alone: go through its Backend";
const CUDA_ON_CPU: &str = "kernels-cpu knows attention and nothing of CUDA: move it to host or kernels-gpu";

#[rustfmt::skip]
pub(crate) const FOLDERS: &[Folder] = &[
    Folder { name: "kernels-gpu", imports: &[], prints: false, words: &[],
        foreign: &[("*", "device code may use `core` alone: write it here, or compute it in host")] },
    Folder { name: "kernels-cpu", imports: &[], prints: false,
        words: &[("cuda", CUDA_ON_CPU), ("ptx", CUDA_ON_CPU), ("nvidia", CUDA_ON_CPU)],
        foreign: &[("clap*", COMMAND_LINE), ("csv*", CSV), ("plotters*", PLOTS), ("cudarc", DRIVER)] },
    Folder { name: "emulator", imports: &[], prints: false,
        words: &[("attention", "the emulator knows PTX and nothing of attention: move it to host or tests")],
        foreign: &[("clap*", COMMAND_LINE), ("csv*", CSV), ("plotters*", PLOTS), ("cudarc", DRIVER)] },
    Folder { name: "host", imports: &["kernels-gpu", "kernels-cpu", "emulator"], prints: false, words: &[],
        foreign: &[("clap*", COMMAND_LINE), ("csv*", CSV), ("plotters*", PLOTS)] },
    Folder { name: "reports", imports: &[], prints: false, words: &[],
        foreign: &[("clap*", COMMAND_LINE), ("cudarc", DRIVER), ("nvml*", DRIVER)] },
    Folder { name: "tuner", imports: &["host", "reports"], prints: true, words: &[],
        foreign: &[("cudarc", DRIVER), ("csv*", CSV), ("plotters*", PLOTS)] },
    Folder { name: "bench", imports: &["host", "kernels-gpu", "kernels-cpu", "emulator"], prints: true, words: &[],
        foreign: &[("cudarc", DRIVER)] },
    Folder { name: "xtask", imports: &[], prints: true, words: &[], foreign: &[("cudarc", DRIVER)] },
    Folder { name: "tests", prints: true, words: &[], foreign: &[],
        imports: &["kernels-gpu", "kernels-cpu", "emulator", "host", "reports", "tuner"] },
];

const PRINTING: &[&str] = &["println!", "print!", "eprintln!", "eprint!", "dbg!", "stdout()", "stderr()"];
pub(crate) const LONGEST_FILE: usize = 600;

/// One broken rule.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) rule: String,
    pub(crate) remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, remedy } = self;
        write!(f, "{path}:{line}: {rule}\n    what to do: {remedy}")
    }
}

/// The names of the workspace: what a dependency in a manifest and a path in a source refer to.
pub(crate) struct Names {
    /// Folder by package name.
    pub(crate) folders: BTreeMap<String, String>,
    /// `[workspace.dependencies]`, which members inherit from.
    inherited: toml::Table,
}

impl Names {
    /// Reads the root manifest and those of the members, given as (folder, text).
    pub(crate) fn read<'a>(root: &str, members: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let root = parse_manifest("Cargo.toml", root);
        let inherited =
            root.get("workspace").and_then(|w| w.get("dependencies")).and_then(toml::Value::as_table);
        let folders = members.into_iter().map(|(folder, text)| {
            let manifest = parse_manifest(folder, text);
            let name = manifest.get("package").and_then(|package| package.get("name"));
            let name =
                name.and_then(toml::Value::as_str).unwrap_or_else(|| panic!("{folder}: no package name"));
            (name.to_owned(), folder.to_owned())
        });
        Self { folders: folders.collect(), inherited: inherited.cloned().unwrap_or_default() }
    }

    /// Names the package behind the key of a dependency, which may be a local name for it.
    fn package_of(&self, key: &str, dependency: &toml::Value) -> String {
        let renamed =
            |value: &toml::Value| value.get("package").and_then(toml::Value::as_str).map(str::to_owned);
        let inherits = dependency.get("workspace").and_then(toml::Value::as_bool) == Some(true);
        let source = if inherits { self.inherited.get(key) } else { Some(dependency) };
        source.and_then(renamed).unwrap_or_else(|| key.to_owned())
    }
}

fn parse_manifest(path: &str, text: &str) -> toml::Table {
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Checks one file, a manifest or a source, by its path from the root of the workspace and its text.
pub(crate) fn check(path: &str, text: &str, names: &Names) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut report = |line, rule: String, remedy: &str| {
        violations.push(Violation { path: path.to_owned(), line, rule, remedy: remedy.to_owned() });
    };
    let (top, inside) = path.split_once('/').unwrap_or(("", path));
    let folder = FOLDERS.iter().find(|folder| folder.name == top);
    if inside == "Cargo.toml" && !top.is_empty() {
        match folder {
            Some(folder) => check_manifest(folder, text, names, &mut report),
            None => {
                report(1, format!("the folder `{top}` has no import rules"), "add it to FOLDERS in this test")
            }
        }
    }
    if path.ends_with(".rs") {
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            let rule = format!("a file has at most {LONGEST_FILE} lines, this one has {lines}");
            report(LONGEST_FILE + 1, rule, "one noun a file: move one of them to a file of its own");
        }
        if let Some(folder) = folder {
            check_source(folder, inside, text, names, &mut report);
        }
    }
    violations
}

fn check_manifest(folder: &Folder, text: &str, names: &Names, report: &mut impl FnMut(usize, String, &str)) {
    let manifest = parse_manifest(folder.name, text);
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let platforms =
        targets.into_iter().flat_map(|targets| targets.values()).filter_map(toml::Value::as_table);
    for table in std::iter::once(&manifest).chain(platforms) {
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let Some(dependencies) = table.get(kind).and_then(toml::Value::as_table) else { continue };
            for (key, dependency) in dependencies {
                let line = line_of(text, key);
                let package = names.package_of(key, dependency);
                if let Some(imported) = names.folders.get(&package) {
                    if !folder.imports.contains(&imported.as_str()) {
                        report(line, import_rule(folder, imported), REMEDY_IMPORT);
                    }
                } else if let Some((_, remedy)) = folder.foreign.iter().find(|(name, _)| matches(name, &package))
                    // What only tests use is never part of the crate.
                    && kind != "dev-dependencies"
                {
                    report(line, format!("{} never depends on `{package}`", folder.name), remedy);
                }
            }
        }
    }
}

const REMEDY_IMPORT: &str = "hand the value over from a crate that may import both, or move the code there";

fn import_rule(folder: &Folder, imported: &str) -> String {
    let allowed = if folder.imports.is_empty() { "nothing".to_owned() } else { folder.imports.join(", ") };
    format!("of this workspace {} imports {allowed}: not `{imported}`", folder.name)
}

/// Compares a package name with a pattern that may end in `*`.
fn matches(pattern: &str, package: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == package, |start| package.starts_with(start))
}

/// Finds the line of a manifest that a dependency is declared on.
fn line_of(manifest: &str, key: &str) -> usize {
    let declares = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '=', '.', '"']))
            || line.starts_with('[') && line.trim_end().ends_with(&format!("dependencies.{key}]"))
    };
    manifest.lines().position(declares).map_or(1, |index| index + 1)
}

fn check_source(
    folder: &Folder,
    inside: &str,
    text: &str,
    names: &Names,
    report: &mut impl FnMut(usize, String, &str),
) {
    let code = code_of(text);
    let in_src = inside.starts_with("src/") && !inside.ends_with("tests.rs") && !inside.contains("/tests/");
    let tests = test_lines(&code);
    for (index, line) in code.lines().enumerate() {
        let at = index + 1;
        for (package, imported) in &names.folders {
            let is_own = imported == folder.name;
            if !is_own
                && has_word(line, &package.replace('-', "_"))
                && !folder.imports.contains(&imported.as_str())
            {
                report(at, import_rule(folder, imported), REMEDY_IMPORT);
            }
        }
        let lower = line.to_lowercase();
        for (word, remedy) in folder.words.iter().filter(|(word, _)| lower.contains(word)) {
            report(at, format!("the code of {} names `{word}`", folder.name), remedy);
        }
        if !is_driver_module(folder, inside) && has_word(line, "cudarc") {
            let remedy = "keep the binding in host's module `cuda` and give its callers a type of our own";
            report(at, "the CUDA driver binding is private to one module".to_owned(), remedy);
        }
        if !in_src || tests.contains(&index) {
            continue;
        }
        if let Some(call) = PRINTING.iter().find(|call| !folder.prints && prints(line, call)) {
            let remedy = "return the text or an error: tuner alone talks to people";
            report(at, format!("{} never prints: `{call}`", folder.name), remedy);
        }
        if folder.name == "kernels-gpu" && (line.contains("std::") || has_word(line, "alloc")) {
            let remedy = "use `core`, or move it to host";
            report(at, "device code may use `core` alone".to_owned(), remedy);
        }
        if folder.name == "tuner"
            && inside.starts_with("src/search")
            && line.to_lowercase().contains("backend")
        {
            let remedy = "give the strategy a closure `evaluate(config) -> outcome`";
            report(at, "search strategies never see a backend".to_owned(), remedy);
        }
    }
    if folder.name == "kernels-gpu" && inside == "src/lib.rs" && !code.contains("no_std") {
        report(1, "device code is `no_std`".to_owned(), "start the file with `#![no_std]`");
    }
}

/// Tells whether a source belongs to the one module that may name the driver binding.
fn is_driver_module(folder: &Folder, inside: &str) -> bool {
    folder.name == "host" && inside.split('/').any(|part| part == "cuda" || part == "cuda.rs")
}

/// Finds `word` as a whole identifier.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

/// Finds a printing call that is not the end of a longer name, as `print!` is of `eprint!`.
fn prints(line: &str, call: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(call).any(|(start, _)| !line[..start].ends_with(is_part))
}
