//! `cargo xtask campaign`: packs a folder that measures everything on a machine with neither Rust nor these sources.
//!
//! ```text
//! nabla-campaign/run.sh          starts the campaign, again after a cut
//! nabla-campaign/manifest.json   commit, backend, files
//! nabla-campaign/nabla           the program, stripped
//! nabla-campaign/kernels/        prebuilt kernels (not for the CPU's backend), with machine code for GPUs of those architectures
//! nabla-campaign/python/         the campaign (standard library) and its peers (torch)
//! ```
//! Owns what goes into the folder. What is measured, and in which order, is bench/campaign's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo_in, output_of, run};
use crate::context::Context;
use crate::device::make_executable;

/// What a folder may take, so that it travels anywhere.
const MOST_BYTES: u64 = 60_000_000;

/// Architectures whose kernels are packed: PTX of Ampere runs on everything since, Hopper has kernels of its own.
const ARCHS: &str = "sm_80,sm_90a";

/// Where the measurements run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Cuda,
    Cpu,
    Emulator,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
            Self::Emulator => "emulator",
        }
    }
}

/// Options of the chore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    /// Folder to write, replaced if it is one of these already.
    pub(crate) out: PathBuf,
    pub(crate) backend: Backend,
    /// Whether tiny inputs shall test the way rather than measure.
    pub(crate) smoke: bool,
    /// Architectures to pack kernels for.
    pub(crate) archs: String,
    /// A program to pack instead of building one.
    pub(crate) program: Option<PathBuf>,
}

impl Default for Campaign {
    fn default() -> Self {
        Self {
            out: PathBuf::from("target/nabla-campaign"),
            backend: Backend::Cuda,
            smoke: false,
            archs: ARCHS.to_owned(),
            program: None,
        }
    }
}

impl Campaign {
    /// Reads the options after the chore's name.
    ///
    /// Errors: a sentence that names what was not understood.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut campaign = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("expected a value after `{argument}`"));
            match argument.as_str() {
                "--smoke" => campaign.smoke = true,
                "--out" => campaign.out = value()?.into(),
                "--arch" => campaign.archs = value()?,
                "--program" => campaign.program = Some(value()?.into()),
                "--backend" => {
                    let name = value()?;
                    let known = [Backend::Cuda, Backend::Cpu, Backend::Emulator];
                    campaign.backend = known
                        .into_iter()
                        .find(|known| known.name() == name)
                        .ok_or_else(|| format!("expected the backend cuda, cpu or emulator, got `{name}`"))?;
                }
                other => return Err(format!("unknown option `{other}` of campaign")),
            }
        }
        Ok(campaign)
    }

    /// Packs the folder and says what to do with it.
    ///
    /// Errors: what could not be built or written, or that the folder is larger than it may be.
    pub(crate) fn pack(&self, context: &Context) -> Result<()> {
        let out = context.root.join(&self.out);
        clear(&out)?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => built_program(context)?,
        };
        strip(&program, &out.join("nabla"))?;
        if self.backend != Backend::Cpu {
            let mut build = Command::new(&program);
            build.args(["kernels", "build", "--arch", &self.archs]);
            // The emulator executes PTX.
            build.args((self.backend == Backend::Emulator).then_some("--no-cubin"));
            run(build.arg("--out").arg(out.join("kernels")))?;
        }
        let python = out.join("python");
        fs::create_dir_all(&python)?;
        for (folder, only) in [("bench/campaign", None), ("bench/peers", Some("torch_side.py"))] {
            copy_python(&context.root.join(folder), only, &python)?;
        }
        let script = out.join("run.sh");
        fs::write(&script, RUN)?;
        make_executable(&script)?;
        fs::write(out.join(MANIFEST), self.manifest(&commit(context), &files_below(&out, &out)?))?;

        let bytes: u64 = files_below(&out, &out)?.iter().map(|(_, bytes)| bytes).sum();
        if bytes > MOST_BYTES {
            bail!(
                "{} takes {:.1} MB, at most {} MB are allowed: pack fewer architectures (--arch)",
                out.display(),
                bytes as f64 / 1e6,
                MOST_BYTES / 1_000_000
            );
        }
        println!("{}: {:.1} MB for the {} backend", out.display(), bytes as f64 / 1e6, self.backend.name());
        println!("copy it to the machine and start `./run.sh`; docs/campaign.md says what it does");
        Ok(())
    }

    /// Says what the folder is, for the campaign and for people.
    fn manifest(&self, commit: &str, files: &[(String, u64)]) -> String {
        let (backend, smoke) = (self.backend.name(), self.smoke);
        let identity = format!("{commit} {backend}{}", if smoke { " smoke" } else { "" });
        let files: Vec<String> = files
            .iter()
            .filter(|(name, _)| !name.starts_with("kernels/ptx") && !name.starts_with("kernels/cubin"))
            .map(|(name, bytes)| format!("    {{\"name\": \"{}\", \"bytes\": {bytes}}}", escaped(name)))
            .collect();
        format!(
            "{{\n  \"schema\": 1,\n  \"identity\": \"{}\",\n  \"commit\": \"{}\",\n  \"backend\": \"{backend}\",\n  \
             \"smoke\": {smoke},\n  \"archs\": \"{}\",\n  \"files\": [\n{}\n  ]\n}}\n",
            escaped(&identity),
            escaped(commit),
            escaped(&self.archs),
            files.join(",\n")
        )
    }
}

const MANIFEST: &str = "manifest.json";

/// What starts a campaign: the machine's own python, nothing else.
const RUN: &str = "\
#!/bin/sh
# Measures everything on this machine; run it again to go on after a cut. Options: ./run.sh --help
exec \"${PYTHON:-python3}\" \"$(dirname \"$0\")/python/campaign.py\" \"$@\"
";

/// Makes the folder empty; one that holds something else is left alone.
fn clear(out: &Path) -> Result<()> {
    if out.exists() {
        let is_empty = fs::read_dir(out)?.next().is_none();
        if !is_empty && !out.join(MANIFEST).is_file() {
            bail!("{} is there and is no packed campaign: give another --out", out.display());
        }
        fs::remove_dir_all(out)?;
    }
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))
}

/// Builds the program for release and returns where it is.
fn built_program(context: &Context) -> Result<PathBuf> {
    run(cargo_in(&context.root).args(["build", "--release", "--locked", "--package", "nabla-tuner"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| context.root.join("target"), Into::into);
    Ok(target.join("release").join(format!("nabla{}", std::env::consts::EXE_SUFFIX)))
}

/// Copies a program without its debugging information, which is most of it.
fn strip(program: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").arg("-o").arg(to).arg(program))
        .context("the program cannot be stripped; `strip` comes with binutils")
}

/// Copies the Python files of a folder, tests apart.
fn copy_python(from: &Path, only: Option<&str>, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_wanted = only.map_or(name.ends_with(".py") && !name.starts_with("test_"), |only| name == only);
        if is_wanted {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// Lists the files below a folder with their sizes, by their paths from `root`, sorted.
fn files_below(folder: &Path, root: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path, root)?);
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, fs::metadata(&path)?.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Names the commit, and says so where files differ from it.
fn commit(context: &Context) -> String {
    let git = |arguments: &[&str]| {
        output_of(Command::new("git").current_dir(&context.root).args(arguments)).map(|s| s.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|s| !s.is_empty());
    if changed { format!("{commit} with changes") } else { commit }
}

/// Escapes a text for JSON.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => vec![' '],
            c => vec![c],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Campaign, String> {
        Campaign::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_understood() {
        let usual = parsed("").expect("no option is needed");
        assert_eq!((usual.backend, usual.smoke, usual.archs.as_str()), (Backend::Cuda, false, ARCHS));
        let given =
            parsed("--backend cpu --smoke --out there --program p --arch sm_90a").expect("all of them");
        let expected = Campaign {
            out: "there".into(),
            backend: Backend::Cpu,
            smoke: true,
            archs: "sm_90a".into(),
            program: Some("p".into()),
        };
        assert_eq!(given, expected);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, culprit) in
            [("--fast", "`--fast`"), ("--backend gpu", "`gpu`"), ("--out", "after `--out`")]
        {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(culprit), "{line}: {message}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("nabla-xtask-{}-foreign", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        fs::write(folder.join("thesis.txt"), "mine").expect("a writable folder");
        let message = clear(&folder).expect_err("it is not ours").to_string();
        assert!(message.contains("no packed campaign"), "{message}");
        assert!(folder.join("thesis.txt").is_file());
        fs::remove_dir_all(folder).expect("it is ours");
    }

    #[test]
    fn the_manifest_holds_any_name() {
        let text = parsed("--smoke").expect("an option").manifest("0123 \"x\"", &[("a\\b".to_owned(), 7)]);
        assert!(text.contains(r#""identity": "0123 \"x\" cuda smoke""#), "{text}");
        assert!(text.contains(r#"{"name": "a\\b", "bytes": 7}"#), "{text}");
    }
}
