//! `nabla report`: figures and page of recorded runs, a summary of them, or two runs compared.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use nabla_reports::{Collection, Run, compare_runs, markdown, one_line, read_masks, read_run, write_report};

use crate::{
    cli::ReportArgs,
    failure::{Failure, Kind},
    search::replay::export_t4,
};

/// Draws, summarises or compares runs.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    if args.compare && args.runs.len() != 2 {
        let message = format!("--compare takes two runs, the old one first; got {}", args.runs.len());
        return Err(Failure::new(Kind::Usage, message));
    }
    let prints = args.compare || args.markdown || args.one_line;
    if !prints && args.runs.len() > 1 && args.out.is_none() {
        let message = "a report of several runs belongs to none of their folders; name one with --out DIR";
        return Err(Failure::new(Kind::Usage, message));
    }
    let runs: Vec<Run> = args.runs.iter().map(|path| read_run(path)).collect::<Result<_, _>>()?;
    for run in runs.iter().filter(|run| run.torn) {
        anstream::eprintln!(
            "warning: {}: the last line of the log is torn (the run was cut short); it is left out",
            run.path.display()
        );
    }
    if prints {
        let text = match (&runs[..], args.compare) {
            ([first, second], true) => {
                let comparison = compare_runs(first, second);
                if args.one_line { comparison.one_line() } else { comparison.markdown() }
            }
            _ => {
                let all = Collection::new(runs);
                if args.one_line { one_line(&all) } else { markdown(&all) }
            }
        };
        writeln!(anstream::stdout().lock(), "{}", text.trim_end())?;
        return Ok(());
    }
    if let Some(path) = &args.t4 {
        return match &runs[..] {
            [run] => write_t4(run, path),
            _ => {
                let message = format!("--t4 takes one run, got {}", runs.len());
                Err(Failure::new(Kind::Usage, message))
            }
        };
    }
    let first = &args.runs[0];
    let folder = first.parent().filter(|_| first.is_file()).unwrap_or(first);
    let mut all = Collection::new(runs);
    if let Some(path) = &args.mask {
        all.masks = read_masks(path).map_err(|error| Failure::new(Kind::Input, error.to_string()))?;
    }
    write_all(&all, args.out.as_deref().unwrap_or(folder))
}

/// Writes the report of one run into a folder and prints the paths of what it wrote.
pub(crate) fn write(run: &Run, folder: &Path) -> Result<(), Failure> {
    write_all(&Collection::new(vec![run.clone()]), folder)
}

fn write_all(all: &Collection, folder: &Path) -> Result<(), Failure> {
    let files = write_report(all, folder)?;
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
