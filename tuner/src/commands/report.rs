//! `nabla report`: plots and the HTML page of a recorded run.

use std::{io::Write, path::Path};

use nabla_reports::{read_run, write_report};

use crate::{cli::ReportArgs, failure::Failure};

/// Draws the report of a run and prints the paths of what it wrote.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let run = read_run(&args.run)?;
    if run.torn {
        anstream::eprintln!(
            "warning: the last line of the log is torn (the run was cut short); it is left out"
        );
    }
    let folder = args.run.parent().filter(|_| args.run.is_file()).unwrap_or(&args.run);
    write(&run, args.out.as_deref().unwrap_or(folder))
}

/// Writes a report into a folder and prints the paths of what it wrote.
pub(crate) fn write(run: &nabla_reports::Run, folder: &Path) -> Result<(), Failure> {
    let files = write_report(run, folder)?;
    let mut out = anstream::stdout().lock();
    for figure in &files.figures {
        writeln!(out, "{}", figure.png.display())?;
    }
    for (title, reason) in &files.left_out {
        anstream::eprintln!("left out: {title}: {reason}");
    }
    writeln!(out, "{}\n{}", files.csv.display(), files.html.display())?;
    Ok(())
}
