//! The steps of each chore, in the order in which they run: what only needs the sources, then what needs them
//! compiled, then what is about the dependencies and the text.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::browser;
use crate::command::{cargo_in, output_of, run, run_reading};
use crate::context::Context;
use crate::device::{self, NVDISASM, PTXAS};
use crate::runner::{Outcome, Step};
use crate::tools::{CARGO_DENY, TYPOS, Tool};

const SET_UP: Step =
    Step { name: "setup", what: "install what the checks and device code need", run: set_up };

/// `cargo xtask setup`
pub(crate) const SETUP: &[Step] = &[SET_UP];

/// `cargo xtask test`
pub(crate) const TEST: &[Step] = &[
    SET_UP,
    Step { name: "fmt", what: "cargo fmt --all --check", run: fmt },
    Step { name: "clippy", what: "cargo clippy, every target, warnings are errors", run: clippy },
    Step { name: "test", what: "cargo test, doc tests included", run: test },
    Step { name: "doc", what: "cargo doc, warnings are errors", run: doc },
    Step { name: "deny", what: "licences, bans and sources of the dependencies", run: deny },
    Step { name: "typos", what: "spelling", run: typos },
];

/// `cargo xtask audit`
pub(crate) const AUDIT: &[Step] =
    &[SET_UP, Step { name: "advisories", what: "known faults of the dependencies", run: advisories }];

/// What the deny step needs besides its tool: the sources of every dependency, those for other platforms included.
const DEPENDENCIES: &str = "dependencies";

/// What compiling kernels for a GPU needs besides the pinned toolchain.
const DEVICE_TOOLCHAIN: &str = "device toolchain";

/// What the tests of the HTML page need; without it they count themselves as skipped.
const BROWSER: &str = "browser";

/// Names the folder of compiled kernels.
const KERNEL_CACHE: &str = "NABLA_KERNEL_CACHE";

fn set_up(context: &Context) -> Outcome {
    for component in ["fmt", "clippy"] {
        if output_of(cargo_in(&context.root).args([component, "--version"])).is_none() {
            return Outcome::Failed(format!(
                "`cargo {component}` is missing; install it with `rustup component add rustfmt clippy`"
            ));
        }
    }
    let mut missing = context.missing.borrow_mut();
    // No step of its own needs these: the tests of code generation say what is missing.
    if let Err(error) = device::install_toolchain(context) {
        missing.insert(DEVICE_TOOLCHAIN, format!("a device toolchain could not be installed: {error:#}"));
    }
    for program in [&PTXAS, &NVDISASM] {
        if let Err(error) = program.install(context) {
            missing.insert(program.program, format!("{} could not be installed: {error:#}", program.program));
        }
    }
    if let Err(error) = browser::install() {
        missing.insert(BROWSER, format!("the page of a report cannot be tested in a browser: {error:#}"));
    }
    for tool in [&CARGO_DENY, &TYPOS] {
        if let Err(error) = tool.install(context) {
            let Tool { program, version, .. } = tool;
            missing.insert(program, format!("{program} {version} could not be installed: {error:#}"));
        }
    }
    if let Err(error) = run(cargo_in(&context.root).args(["fetch", "--locked"])) {
        missing.insert(DEPENDENCIES, format!("the dependencies could not be fetched: {error:#}"));
    }
    missing.values().for_each(|reason| println!("SKIPPED: {reason}"));
    if context.strict && !missing.is_empty() {
        let reasons = missing.values().cloned().collect::<Vec<_>>().join("; ");
        return Outcome::Failed(format!(
            "{reasons} (a failure for setup and audit, and for test with CI=true or --strict)"
        ));
    }
    Outcome::Passed
}

fn fmt(context: &Context) -> Outcome {
    outcome(run(cargo_in(&context.root).args(["fmt", "--all", "--check"])), "`cargo fmt --all` puts it right")
}

fn clippy(context: &Context) -> Outcome {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    outcome(run(cargo_in(&context.root).args(arguments)), "each warning above is to be put right")
}

fn test(context: &Context) -> Outcome {
    let mut tally = context.tally.borrow_mut();
    // All binaries run even if one fails: one run shows every failing test.
    let mut command = cargo_in(&context.root);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    // Built with the tests of its own package; the tests of the whole would else build it again.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| context.root.join("target"), Into::into);
    let program = target.join("debug").join(format!("nabla{}", std::env::consts::EXE_SUFFIX));
    command.env("NABLA_TEST_PROGRAM", program);
    // Compiled once for all tests, and none of it is left in the cache of who runs them.
    if std::env::var_os(KERNEL_CACHE).is_none() {
        command.env(KERNEL_CACHE, target.join("kernel-cache"));
    }
    let result = run_reading(&mut command, |line| tally.add_line(line));
    if result.is_ok() && tally.is_empty() {
        return Outcome::Failed("cargo test reported no test that ran".to_owned());
    }
    outcome(result, "the failing tests are listed above, after each `failures:`")
}

fn doc(context: &Context) -> Outcome {
    let mut command = cargo_in(&context.root);
    command.args(["doc", "--no-deps", "--workspace", "--locked"]);
    outcome(run(command.env("RUSTDOCFLAGS", "-D warnings")), "each warning above is to be put right")
}

fn deny(context: &Context) -> Outcome {
    if let Some(reason) = context.missing.borrow().get(DEPENDENCIES) {
        return Outcome::Skipped(reason.clone());
    }
    with_tool(&CARGO_DENY, context, |program| {
        let arguments = ["--locked", "--offline", "check", "bans", "licenses", "sources"];
        let result = run(Command::new(program).current_dir(&context.root).args(arguments));
        outcome(result, "deny.toml says what is allowed")
    })
}

fn typos(context: &Context) -> Outcome {
    with_tool(&TYPOS, context, |program| {
        let result = run(Command::new(program).current_dir(&context.root));
        outcome(result, "correct the words above, or name them in typos.toml if they are right")
    })
}

fn advisories(context: &Context) -> Outcome {
    with_tool(&CARGO_DENY, context, |program| {
        let arguments = ["--locked", "check", "advisories"];
        let result = run(Command::new(program).current_dir(&context.root).args(arguments));
        outcome(
            result,
            "each advisory above is to be resolved; without one, the database could not be downloaded",
        )
    })
}

/// Runs `check` with the tool's path; a tool that could not be installed makes it a skipped step.
fn with_tool(tool: &Tool, context: &Context, check: impl FnOnce(PathBuf) -> Outcome) -> Outcome {
    match tool.find(context) {
        Some(program) => check(program),
        None => {
            let missing = context.missing.borrow();
            let reason = missing.get(tool.program).map_or("run `cargo xtask setup`", String::as_str);
            Outcome::Skipped(reason.to_owned())
        }
    }
}

fn outcome(result: Result<()>, remedy: &str) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}; {remedy}")),
    }
}
