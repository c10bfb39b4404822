//! Starting a program and saying what went wrong, in words that can be pasted into a shell.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// Prepares to start cargo in `folder`: the cargo that started this program, so that the toolchain is the same.
pub(crate) fn cargo_in(folder: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder);
    // What is kept for the next compilation costs time in this one, and a fresh machine has no next one.
    if std::env::var_os("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Starts `command` with this terminal and waits for it.
///
/// Errors: the command line, and that it could not be started or its exit status.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| could_not_start(command))?;
    succeeded(command, status)
}

/// Starts `command`, passes each line of its standard output on, and gives it to `on_line` without the line break.
///
/// Errors: as [`run`], and a standard output that cannot be read or written.
pub(crate) fn run_reading(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| could_not_start(command))?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut terminal = std::io::stdout().lock();
        let mut line = Vec::new();
        // Bytes, not `lines()`: a test may print what is not UTF-8.
        while output.read_until(b'\n', &mut line)? > 0 {
            terminal.write_all(&line)?;
            terminal.flush()?;
            on_line(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    let status = child.wait()?;
    succeeded(command, status)
}

/// Returns the standard output of `command`, or nothing when it cannot be started or fails.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` ended with {status}", line_of(command));
    }
    Ok(())
}

fn could_not_start(command: &Command) -> String {
    format!("`{}` could not be started", line_of(command))
}

/// Writes a command as it would be typed: the program without its folder.
pub(crate) fn line_of(command: &Command) -> String {
    let program = command.get_program();
    let program = Path::new(program).file_name().unwrap_or(program);
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cargo(arguments: &[&str]) -> Command {
        let mut command = cargo_in(Path::new("."));
        command.args(arguments).stderr(Stdio::null());
        command
    }

    #[test]
    fn lines_are_read_and_a_success_is_one() {
        let mut lines = Vec::new();
        run_reading(&mut cargo(&["--version"]), |line| lines.push(line.to_owned())).expect("cargo runs");
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("cargo "), "{lines:?}");
    }

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let message = run(&mut cargo(&["no-such-subcommand"])).expect_err("it fails").to_string();
        assert!(message.contains("no-such-subcommand` ended with exit status"), "{message}");
        assert!(message.starts_with("`cargo"), "{message}");
        assert_eq!(output_of(&mut cargo(&["no-such-subcommand"])), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_said_to_be() {
        let message = run(&mut Command::new("nabla-no-such-program")).expect_err("it fails").to_string();
        assert_eq!(message, "`nabla-no-such-program` could not be started");
    }
}
