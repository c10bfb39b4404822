//! The command line: which chore, and how strict. By hand, because every check of a change starts by compiling this.

use crate::campaign::Campaign;
use crate::headline::Headline;

/// What `cargo xtask help` prints.
pub(crate) const HELP: &str = "\
Developer chores of this workspace.

Usage: cargo xtask <CHORE>

Chores:
  test     Set up, then check and test everything. Stops at the first step that fails:
           setup, fmt, clippy, test, doc, deny (licences, bans, sources), typos.
           The last line printed counts the tests: passed, failed, skipped (ignored).
  setup    Install what the checks need into target/tools/, and a Rust toolchain with library
           sources for device code (rustup's rust-src, else Debian's packages, as root),
           and Chromium for the tests of the HTML page (Debian's package, as root).
           Does nothing when all is there.
  audit    Check the dependencies against the advisory database, which it downloads.
  campaign Pack a folder that measures everything on a machine with an NVIDIA GPU, without Rust
           (docs/campaign.md). Options: --out DIR (default: target/nabla-campaign),
           --backend cuda|cpu|emulator (default: cuda), --smoke (tiny inputs, to test the way),
           --arch ARCH,.. (default: sm_80,sm_90a), --program FILE (default: build one).
  headline Put the table and picture of a results folder into README.md:
           cargo xtask headline results/GPU/DATE; --print prints the table instead.
  peers    Test that campaign from end to end next to PyTorch, on the CPU and the emulator: results
           have to agree and the report to hold them. Installs PyTorch (gigabytes) into
           target/peers/; PYTHON=/path/to/python takes one that has it, NABLA_TEST_PROGRAM=FILE a
           program that is built already.
  help     Print this text.

Option of test:
  --strict  Fail, rather than skip, a step whose tool cannot be installed (no network).
            Default: off, and on where CI=true is set.
";

/// One chore with its options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Everything that a change has to pass.
    Test {
        /// Whether a step that cannot run is a failure.
        strict: bool,
    },
    /// Only the tools; a missing one is always a failure here, so there is no strictness to choose.
    Setup,
    /// Only the advisories; as with the set-up, not being able to is a failure.
    Audit,
    /// The campaign next to PyTorch; here, too, not being able to is a failure.
    Peers,
    /// Pack the measuring of everything.
    Campaign(Campaign),
    /// Show a results folder in the README.
    Headline(Headline),
    /// The help text.
    Help,
}

impl Chore {
    /// Tells whether a step that cannot run is a failure for this chore.
    pub(crate) fn is_strict(&self) -> bool {
        match self {
            Chore::Test { strict } => *strict,
            Chore::Setup | Chore::Audit | Chore::Peers => true,
            Chore::Campaign(_) | Chore::Headline(_) | Chore::Help => false,
        }
    }
}

/// Parses the arguments after `cargo xtask`.
///
/// Errors: a sentence that names the first argument not understood.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Chore, String> {
    let mut arguments = arguments.peekable();
    // These have options of their own.
    match arguments.peek().map(String::as_str) {
        Some("campaign") => return Campaign::parse(arguments.skip(1)).map(Chore::Campaign),
        Some("headline") => return Headline::parse(arguments.skip(1)).map(Chore::Headline),
        _ => {}
    }
    let mut name = None;
    let mut strict = false;
    for argument in arguments {
        match argument.as_str() {
            "--strict" => strict = true,
            "-h" | "--help" => return Ok(Chore::Help),
            flag if flag.starts_with('-') => return Err(format!("unknown option `{flag}`")),
            chore if name.is_none() => name = Some(chore.to_owned()),
            extra => return Err(format!("expected one chore, got `{extra}` as well")),
        }
    }
    match name.as_deref() {
        Some("test") => Ok(Chore::Test { strict }),
        Some(chore) if strict => Err(format!("`--strict` goes with `test` only, not with `{chore}`")),
        Some("setup") => Ok(Chore::Setup),
        Some("audit") => Ok(Chore::Audit),
        Some("peers") => Ok(Chore::Peers),
        Some("help") => Ok(Chore::Help),
        Some(other) => Err(format!("unknown chore `{other}`")),
        None => Err("expected a chore: test, setup, audit, campaign, headline, peers or help".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Chore, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn chores_and_their_option_are_understood() {
        assert_eq!(parsed("test"), Ok(Chore::Test { strict: false }));
        assert_eq!(parsed("test --strict"), Ok(Chore::Test { strict: true }));
        assert_eq!(parsed("--strict test"), Ok(Chore::Test { strict: true }));
        assert_eq!(parsed("setup"), Ok(Chore::Setup));
        assert_eq!(parsed("audit"), Ok(Chore::Audit));
        assert_eq!(parsed("peers"), Ok(Chore::Peers));
        assert_eq!(parsed("help"), Ok(Chore::Help));
        assert_eq!(parsed("test --help"), Ok(Chore::Help));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, culprit) in [
            ("", "expected a chore"),
            ("tset", "`tset`"),
            ("test --fast", "`--fast`"),
            ("test setup", "`setup`"),
            ("setup --strict", "`setup`"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(culprit), "{line}: {message}");
        }
    }
}
