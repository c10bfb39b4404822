//! `nabla tune --replay`: strategies compared on finished measurements.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

use comfy_table::{CellAlignment, Table, presets};
use nabla_reports::{ReplayPlot, ReplaySeries, write_replay};

use crate::{
    failure::{Failure, Kind},
    search::{
        replay::{self, Curve, Recording},
        strategy,
    },
};

/// What to replay.
pub(crate) struct Replay<'a> {
    /// File or folder of measurements.
    pub(crate) file: &'a Path,
    /// Names of strategies.
    pub(crate) strategies: &'a [String],
    /// Evaluations of a repeat; by default by the size of the space.
    pub(crate) budget: Option<usize>,
    /// Repeats of each strategy.
    pub(crate) repeats: usize,
    /// Seed of the first repeat.
    pub(crate) seed: u64,
    /// Folder for CSV files and plots.
    pub(crate) out: Option<&'a Path>,
}

/// Shares of a space at which the fraction of the optimum is printed.
const SHARES: [f64; 2] = [0.01, 0.02];

/// Replays every recording of the file with every strategy, prints the comparison and the paths of what it wrote.
pub(crate) fn run(args: &Replay<'_>) -> Result<(), Failure> {
    for name in args.strategies {
        if let Some(unknown) = strategy::unknown(name) {
            return Err(Failure::new(Kind::Usage, format!("--strategy: {unknown}")));
        }
    }
    let recordings = replay::read(args.file)?;
    for (number, recording) in recordings.iter().enumerate() {
        let points = recording.space.len();
        let budget = args.budget.unwrap_or_else(|| (points / 25).max(50)).min(points);
        let mut curves = Vec::new();
        for name in args.strategies {
            curves.push((name.as_str(), curve(recording, name, budget, args)?));
        }
        print(recording, &curves)?;
        if let Some(folder) = args.out {
            let stem =
                if recordings.len() == 1 { "replay".to_owned() } else { format!("replay-{}", number + 1) };
            write(folder, &stem, recording, curves)?;
        }
    }
    Ok(())
}

/// Runs all repeats of a strategy, on as many threads as there are cores: repeats know nothing of each other.
fn curve(recording: &Recording, name: &str, budget: usize, args: &Replay<'_>) -> Result<Curve, Failure> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(args.repeats).max(1);
    let seeds: Vec<u64> = (0..args.repeats as u64).map(|n| args.seed.wrapping_add(n)).collect();
    let some = |seeds: &[u64]| {
        let runs = seeds.iter().map(|&seed| replay::simulate(recording, name, budget, seed));
        runs.collect::<Result<Vec<Vec<f64>>, _>>()
    };
    let runs = thread::scope(|scope| {
        let workers: Vec<_> =
            seeds.chunks(seeds.len().div_ceil(threads)).map(|seeds| scope.spawn(|| some(seeds))).collect();
        let mut runs = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(found) => runs.extend(found.map_err(|error| Failure::new(Kind::Usage, error))?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Failure>(runs)
    })?;
    Ok(Curve::new(&runs))
}

fn print(recording: &Recording, curves: &[(&str, Curve)]) -> Result<(), Failure> {
    let points = recording.space.len();
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{}: {points} points, {:.1} % of them failed",
        recording.name,
        recording.failed_share() * 100.0
    )?;
    if let Some((point, _)) = recording.optimum() {
        writeln!(out, "optimum: {}", recording.space.describe(point))?;
    }
    if let Some(default) = recording.default {
        writeln!(
            out,
            "each search starts from the default, as tuning does: {}, at {:.3} of the optimum",
            recording.space.describe(default),
            recording.fraction(default)
        )?;
    }
    let marks = Curve::MARKS.map(|mark| format!("to {:.0} %", mark * 100.0));
    let shares = SHARES.map(|share| format!("at {:.0} % of points", share * 100.0));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let head =
        ["strategy".to_owned()].into_iter().chain(marks).chain(shares).chain(["at the end".to_owned()]);
    table.set_header(head);
    let evaluations = |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for (name, curve) in curves {
        let marks = (0..Curve::MARKS.len()).map(|mark| evaluations(curve.median_evaluations(mark)));
        let at = |evaluations: usize| {
            let [low, median, high] = curve.at(evaluations);
            format!("{median:.3} [{low:.3}, {high:.3}]")
        };
        // What lies beyond the budget was not run.
        let share = |share: &f64| {
            let evaluations = (points as f64 * share) as usize;
            if (1..=curve.quartiles.len()).contains(&evaluations) { at(evaluations) } else { "-".to_owned() }
        };
        let row = [(*name).to_owned()].into_iter().chain(marks).chain(SHARES.iter().map(share));
        table.add_row(row.chain([at(curve.quartiles.len())]));
    }
    let exact = Curve::MARKS.map(|mark| recording.random_median(mark).to_string());
    table.add_row(["drawn evenly, exact".to_owned()].into_iter().chain(exact));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    let (repeats, budget) =
        curves.first().map_or((0, 0), |(_, curve)| (curve.repeats, curve.quartiles.len()));
    writeln!(
        out,
        "Evaluations until half of {repeats} repeats reached a fraction of the optimum; median fraction [quartiles]; {budget} evaluations each."
    )?;
    Ok(())
}

fn write(
    folder: &Path,
    stem: &str,
    recording: &Recording,
    curves: Vec<(&str, Curve)>,
) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::write(folder, &error))?;
    let csv: PathBuf = folder.join(stem).with_extension("csv");
    let mut text =
        "recording,strategy,evaluations,points,repeats,fraction_q1,fraction_median,fraction_q3\n".to_owned();
    let quoted = format!("\"{}\"", recording.name.replace('"', "\"\""));
    for (name, curve) in &curves {
        for (at, [low, median, high]) in curve.quartiles.iter().enumerate() {
            text += &format!(
                "{quoted},{name},{},{},{},{low},{median},{high}\n",
                at + 1,
                recording.space.len(),
                curve.repeats
            );
        }
    }
    fs::write(&csv, text).map_err(|error| Failure::write(&csv, &error))?;
    let series = curves.into_iter().map(|(name, curve)| ReplaySeries {
        name: name.to_owned(),
        quartiles: curve.quartiles,
        repeats: curve.repeats,
    });
    let plot = ReplayPlot {
        recording: recording.name.clone(),
        points: recording.space.len(),
        series: series.collect(),
    };
    let files = write_replay(&plot, folder, stem)?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}\n{}\n{}", csv.display(), files.png.display(), files.svg.display())?;
    Ok(())
}
