//! The Rust toolchain that device code is compiled with.
//!
//! Any rustc has the NVPTX backend; what is rare is its `core` for that target, so a toolchain counts only with the
//! matching library sources beside it. Owns where to look. Does not install anything: `cargo xtask setup` does.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Library sources below the prefix of a toolchain.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// The variable that names the compiler of a toolchain in a place that is not searched.
pub const DEVICE_RUSTC: &str = "NABLA_DEVICE_RUSTC";

/// The toolchain the workspace is pinned to.
const PINNED: &str = include_str!("../../../rust-toolchain.toml");

/// The oldest compiler that understands the device sources: what the workspace itself asks for.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// A compiler, its cargo, and the library sources that belong to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo that goes with it.
    pub cargo: PathBuf,
    /// Sources of `core`, in a folder named `library`.
    pub library: PathBuf,
    /// First line of `rustc --version --verbose`.
    pub version: String,
    /// All of `rustc --version --verbose`: two compilers that differ in it may generate different code.
    pub identity: String,
}

/// No place has a usable toolchain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a Rust toolchain with its library sources, for the device code; looked at{}\nrun `rustup component add rust-src` or `cargo xtask setup`, or name a rustc by {DEVICE_RUSTC}",
    Looked(looked)
)]
pub struct ToolchainError {
    /// Each place with what it lacks.
    pub looked: Vec<(PathBuf, String)>,
}

struct Looked<'a>(&'a [(PathBuf, String)]);

impl fmt::Display for Looked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" no place: neither rustup's folder nor /usr is there");
        }
        self.0.iter().try_for_each(|(place, reason)| write!(f, "\n  {}: {reason}", place.display()))
    }
}

/// Where toolchains may be.
#[derive(Debug, Clone)]
pub struct Places {
    /// A compiler named by the user; nothing else is looked at then.
    pub rustc: Option<PathBuf>,
    /// rustup's folder of toolchains.
    pub rustup_toolchains: Option<PathBuf>,
    /// Prefixes of other installations, such as `/usr`.
    pub prefixes: Vec<PathBuf>,
}

impl Places {
    /// Reads the environment.
    pub fn from_environment() -> Self {
        let rustup = env::var_os("RUSTUP_HOME").map(PathBuf::from);
        let rustup = rustup.or_else(|| env::home_dir().map(|home| home.join(".rustup")));
        Self {
            rustc: env::var_os(DEVICE_RUSTC).filter(|value| !value.is_empty()).map(PathBuf::from),
            rustup_toolchains: rustup.map(|home| home.join("toolchains")),
            prefixes: vec!["/usr".into(), "/usr/local".into()],
        }
    }

    /// Lists the prefixes to look at, best first: the pinned toolchain, rustup's others from the newest, the rest.
    fn candidates(&self) -> Vec<PathBuf> {
        let mut rustup: Vec<PathBuf> = self
            .rustup_toolchains
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir())
            .collect();
        let pinned = pinned_channel().map(|channel| format!("{channel}-"));
        let rank = |path: &PathBuf| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let is_pinned = pinned.as_ref().is_some_and(|channel| name.starts_with(channel.as_str()));
            (!is_pinned, std::cmp::Reverse(version_numbers(&name)), name)
        };
        rustup.sort_by_key(rank);
        rustup.extend(self.prefixes.iter().filter(|prefix| prefix.join("bin/rustc").exists()).cloned());
        rustup
    }
}

impl Toolchain {
    /// Finds a device toolchain: the one named by the environment, else rustup's, else the system's.
    ///
    /// # Errors
    /// Every place looked at with what it lacks.
    pub fn find() -> Result<Self, ToolchainError> {
        Self::find_in(&Places::from_environment())
    }

    /// Finds a device toolchain among given places.
    ///
    /// # Errors
    /// Every place looked at with what it lacks.
    pub fn find_in(places: &Places) -> Result<Self, ToolchainError> {
        let mut looked = Vec::new();
        if let Some(rustc) = &places.rustc {
            return Self::of_rustc(rustc)
                .map_err(|reason| ToolchainError { looked: vec![(rustc.clone(), reason)] });
        }
        for prefix in places.candidates() {
            match Self::at_prefix(&prefix) {
                Ok(toolchain) => return Ok(toolchain),
                Err(reason) => looked.push((prefix, reason)),
            }
        }
        Err(ToolchainError { looked })
    }

    /// Describes the toolchain of a compiler, wherever its sysroot is.
    fn of_rustc(rustc: &Path) -> Result<Self, String> {
        let sysroot = said_by(rustc, &["--print", "sysroot"]).map_err(|e| cannot_run(&e))?;
        let library = Path::new(sysroot.trim()).join(LIBRARY);
        let cargo = rustc.with_file_name(format!("cargo{}", env::consts::EXE_SUFFIX));
        Self::checked(rustc.to_owned(), cargo, library)
    }

    fn at_prefix(prefix: &Path) -> Result<Self, String> {
        let program = |name: &str| prefix.join(format!("bin/{name}{}", env::consts::EXE_SUFFIX));
        Self::checked(program("rustc"), program("cargo"), prefix.join(LIBRARY))
    }

    fn checked(rustc: PathBuf, cargo: PathBuf, library: PathBuf) -> Result<Self, String> {
        if !library.join("core/src/lib.rs").is_file() {
            return Err(format!("no library sources ({LIBRARY}; rustup calls them rust-src)"));
        }
        for program in [&rustc, &cargo] {
            if !program.is_file() {
                return Err(format!("no {}", program.display()));
            }
        }
        let identity = said_by(&rustc, &["--version", "--verbose"]).map_err(|e| cannot_run(&e))?;
        let version = identity.lines().next().unwrap_or_default().to_owned();
        let found = version.strip_prefix("rustc ").map(version_numbers).unwrap_or_default();
        if found < version_numbers(OLDEST) {
            return Err(format!("expected rustc {OLDEST} or newer, got `{version}`"));
        }
        Ok(Self { rustc, cargo, library, version, identity })
    }
}

/// Reads the pinned channel.
fn pinned_channel() -> Option<&'static str> {
    let line = PINNED.lines().find_map(|line| line.trim().strip_prefix("channel"))?;
    Some(line.trim_start_matches([' ', '=']).trim().trim_matches('"'))
}

/// Reads the numbers a version starts with: `1.96.0-nightly` is `[1, 96, 0]`; what is no version has none.
fn version_numbers(text: &str) -> Vec<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

fn said_by(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("{} ({message})", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cannot_run(error: &io::Error) -> String {
    format!("its rustc does not run: {error}")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Makes a folder that looks like a toolchain whose compiler says `version`.
    fn install(prefix: &Path, version: &str, with_library: bool) {
        let program = |name: &str, script: &str| {
            let path = prefix.join("bin").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let sysroot = prefix.display();
        program("rustc", &format!("[ $1 = --print ] && echo {sysroot} || echo 'rustc {version} (0 2026)'"));
        program("cargo", "true");
        if with_library {
            let core = prefix.join(LIBRARY).join("core/src");
            fs::create_dir_all(&core).unwrap();
            fs::write(core.join("lib.rs"), "").unwrap();
        }
    }

    fn places(root: &Path) -> Places {
        let rustup_toolchains = Some(root.join("toolchains"));
        Places { rustc: None, rustup_toolchains, prefixes: vec![root.join("usr")] }
    }

    fn found(places: &Places) -> PathBuf {
        Toolchain::find_in(places).unwrap().rustc.parent().unwrap().parent().unwrap().to_owned()
    }

    #[test]
    fn the_pinned_toolchain_comes_first_then_the_newest_then_the_system() {
        let root = tempfile::tempdir().unwrap();
        let (root, places) = (root.path(), places(root.path()));
        let pinned = root.join(format!("toolchains/{}-x86_64", pinned_channel().unwrap()));
        install(&root.join("usr"), "1.96.0", true);
        assert_eq!(found(&places), root.join("usr"));
        install(&root.join("toolchains/1.97.0-x86_64"), "1.97.0", true);
        install(&root.join("toolchains/1.100.0-x86_64"), "1.100.0", true);
        assert_eq!(found(&places), root.join("toolchains/1.100.0-x86_64"));
        install(&pinned, "1.95.0", false);
        assert_eq!(found(&places), root.join("toolchains/1.100.0-x86_64"));
        install(&pinned, "1.95.0", true);
        assert_eq!(found(&places), pinned);
    }

    #[test]
    fn a_named_compiler_is_the_only_one_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let mut places = places(root.path());
        install(&root.path().join("usr"), "1.96.0", true);
        install(&root.path().join("odd"), "1.99.0", true);
        places.rustc = Some(root.path().join("odd/bin/rustc"));
        let toolchain = Toolchain::find_in(&places).unwrap();
        assert_eq!(toolchain.version, "rustc 1.99.0 (0 2026)");
        assert_eq!(toolchain.library, root.path().join("odd").join(LIBRARY));
        places.rustc = Some(root.path().join("nowhere/rustc"));
        let message = Toolchain::find_in(&places).unwrap_err().to_string();
        assert!(message.contains("nowhere/rustc: its rustc does not run"), "{message}");
    }

    #[test]
    fn a_failure_lists_every_place_and_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("toolchains/stable-x86_64"), "1.96.0", false);
        install(&root.path().join("usr"), "1.63.0", true);
        let message = Toolchain::find_in(&places(root.path())).unwrap_err().to_string();
        for part in [
            "toolchains/stable-x86_64: no library sources",
            "usr: expected rustc 1.95 or newer, got `rustc 1.63.0",
            "rustup component add rust-src",
            "cargo xtask setup",
            DEVICE_RUSTC,
        ] {
            assert!(message.contains(part), "{part} is missing in\n{message}");
        }
        let nowhere = Places { rustc: None, rustup_toolchains: None, prefixes: vec![] };
        let message = Toolchain::find_in(&nowhere).unwrap_err().to_string();
        assert!(message.contains("no place"), "{message}");
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version_numbers("1.100.0-x") > version_numbers("1.99.1"));
        assert!(version_numbers("nightly-x86_64").is_empty());
        assert_eq!(pinned_channel().unwrap().split('.').count(), 3);
    }
}
