//! `nabla report`: plots and the HTML page of a recorded run.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use nabla_reports::{read_run, write_report};

use crate::{cli::ReportArgs, failure::Failure, search::replay::export_t4};

/// Draws the report of a run and prints the paths of what it wrote.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let run = read_run(&args.run)?;
    if run.torn {
        anstream::eprintln!(
            "warning: the last line of the log is torn (the run was cut short); it is left out"
        );
    }
    if let Some(path) = &args.t4 {
        return write_t4(&run, path);
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

/// Writes the records of a run in the T4 format and prints the path.
fn write_t4(run: &nabla_reports::Run, path: &Path) -> Result<(), Failure> {
    let file = File::create(path).map_err(|error| Failure::write(path, &error))?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, &export_t4(run))
        .map_err(|error| Failure::write(path, &error.into()))?;
    file.flush().map_err(|error| Failure::write(path, &error))?;
    writeln!(anstream::stdout().lock(), "{}", path.display())?;
    Ok(())
}
