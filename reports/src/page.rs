//! Writes the report: figures, CSV and one HTML page that needs nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use askama::Template;

use crate::best::{TimeBasis, best_settings, positive};
use crate::figures::{self, Figure, mask_block};
use crate::format::{count, percent, plural, significant, time, time_range};
use crate::problem;
use crate::read::Run;
use crate::record::{Record, Status};
use crate::scene::palette::{Color, GRID, HATCH, INK, MUTED, PAPER};
use crate::scene::render::{self, DrawError};
use crate::table::write_csv;

/// What a report wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFiles {
    /// The page: one file that opens anywhere, without a network.
    pub html: PathBuf,
    /// Every record as CSV.
    pub csv: PathBuf,
    /// The figures that were drawn.
    pub figures: Vec<FigureFiles>,
    /// Titles of figures that were not drawn, each with one sentence saying why.
    pub left_out: Vec<(String, String)>,
}

/// The two files of a figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureFiles {
    /// What it shows, in a few words.
    pub title: String,
    /// Pixels.
    pub png: PathBuf,
    /// Vectors.
    pub svg: PathBuf,
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The system refused.
    #[error("{path}: cannot write: {source}; check permissions and free space, or give another folder")]
    Io {
        /// What was being written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A figure could not be drawn.
    #[error("{path}: cannot draw: {source}")]
    Draw {
        /// The file.
        path: PathBuf,
        /// What the drawing backend said.
        source: DrawError,
    },
    /// The CSV could not be written.
    #[error("{path}: cannot write: {source}; check permissions and free space, or give another folder")]
    Csv {
        /// The file.
        path: PathBuf,
        /// What the CSV writer said.
        source: csv::Error,
    },
    /// The page could not be filled in.
    #[error("{path}: cannot fill in the page: {source}")]
    Page {
        /// The file.
        path: PathBuf,
        /// What the template said.
        source: askama::Error,
    },
}

/// Failure reasons listed on the page at most.
const MAX_FAILURE_ROWS: usize = 60;

/// Writes `report.html`, `records.csv` and `figures/*.png|svg` into the folder, which is made if need be.
///
/// Files of an earlier report are replaced; those of a figure that is no longer drawn are removed. The page has the
/// figures inside and loads nothing.
pub fn write_report(run: &Run, out: &Path) -> Result<ReportFiles, ReportError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Io { path, source }
    };
    let folder = out.join("figures");
    fs::create_dir_all(&folder).map_err(io(&folder))?;

    let csv = out.join("records.csv");
    let file = File::create(&csv).map_err(io(&csv))?;
    write_csv(&run.records, BufWriter::new(file))
        .map_err(|source| ReportError::Csv { path: csv.clone(), source })?;

    let mut files = Vec::new();
    let mut left_out = Vec::new();
    let mut shown = Vec::new();
    for Figure { name, title, caption, picture } in figures::all(&run.records) {
        let (png, svg) = (folder.join(name).with_extension("png"), folder.join(name).with_extension("svg"));
        match picture {
            Ok(scene) => {
                let draw = |path: &Path| {
                    let path = path.to_owned();
                    move |source| ReportError::Draw { path, source }
                };
                let text = render::svg(&scene).map_err(draw(&svg))?;
                fs::write(&svg, &text).map_err(io(&svg))?;
                render::png(&scene, &png).map_err(draw(&png))?;
                shown.push(ShownFigure { title, caption, svg: Some(text), why_not: String::new() });
                files.push(FigureFiles { title: title.to_owned(), png, svg });
            }
            Err(why_not) => {
                for stale in [png, svg].iter().filter(|path| path.exists()) {
                    fs::remove_file(stale).map_err(io(stale))?;
                }
                left_out.push((title.to_owned(), why_not.clone()));
                shown.push(ShownFigure { title, caption, svg: None, why_not });
            }
        }
    }

    let html = out.join("report.html");
    let page =
        page(run, shown).render().map_err(|source| ReportError::Page { path: html.clone(), source })?;
    fs::write(&html, page).map_err(io(&html))?;
    Ok(ReportFiles { html, csv, figures: files, left_out })
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    device: &'a str,
    input: &'a str,
    summary: String,
    warnings: Vec<String>,
    basis: &'static str,
    best: Vec<BestRow>,
    figures: Vec<ShownFigure>,
    failures: Vec<FailureRow>,
    more_failures: usize,
    facts: Vec<(&'static str, String)>,
    scheme_css: String,
}

struct ShownFigure {
    title: &'static str,
    caption: String,
    svg: Option<String>,
    why_not: String,
}

struct BestRow {
    starts_group: bool,
    problem: String,
    policy: String,
    density: String,
    mask_block: String,
    tile: String,
    time: String,
    interval: String,
    mask_time: String,
    dense: String,
    speedup: String,
    sparsity_error: String,
    kernel_error: String,
    ties: String,
}

struct FailureRow {
    status: &'static str,
    reason: String,
    trials: usize,
}

fn page(run: &Run, figures: Vec<ShownFigure>) -> Page<'_> {
    let mut warnings = run.header.warnings.clone();
    if run.torn {
        warnings.push(
            "The run was stopped in the middle of writing a trial; that last line is left out. `--resume` takes it up \
             again."
                .to_owned(),
        );
    }
    let (failures, more_failures) = failures(&run.records);
    let basis = if best_settings(&run.records).iter().all(|s| s.basis == TimeBasis::Total) {
        "the time a user waits: building the mask plus attention"
    } else {
        "building the mask plus attention, or attention alone where a mask’s time is missing"
    };
    Page {
        device: &run.header.identity.device,
        input: &run.header.identity.input,
        summary: summary(run),
        warnings,
        basis,
        best: best_rows(&run.records),
        figures,
        failures,
        more_failures,
        facts: facts(run),
        scheme_css: scheme_css(),
    }
}

fn summary(run: &Run) -> String {
    let by_status: Vec<_> =
        by_status(&run.records).into_iter().map(|(s, n)| format!("{} {s}", count(n))).collect();
    let trials = plural(run.records.len(), "trial", "trials");
    let list = if by_status.is_empty() { String::new() } else { format!(" ({})", by_status.join(", ")) };
    format!("{trials}{list}, started {}.", run.header.started)
}

fn by_status(records: &[Record]) -> Vec<(&'static str, u64)> {
    Status::ALL
        .into_iter()
        .map(|status| (status.name(), records.iter().filter(|r| r.status == status).count() as u64))
        .filter(|(_, n)| *n > 0)
        .collect()
}

/// The sign for what was not measured.
const NONE: &str = "–";

fn or_none(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), text)
}

fn best_rows(records: &[Record]) -> Vec<BestRow> {
    let best = best_settings(records);
    let problems: Vec<_> = best.iter().map(|setting| setting.problem.clone()).collect();
    let names = problem::names(&problems);
    let rows = best.iter().zip(names).enumerate().map(|(n, (setting, problem))| {
        let record = setting.record;
        let mask_us = (setting.basis == TimeBasis::Total)
            .then(|| positive(record.time_us_median).map(|attention| setting.time.median_us - attention))
            .flatten();
        BestRow {
            starts_group: n > 0 && best[n - 1].problem.seqlen != setting.problem.seqlen,
            problem,
            policy: record.policy.clone(),
            density: or_none(record.density, percent),
            mask_block: mask_block(record.q_block, record.kv_block),
            tile: format!("{} × {}", record.block_m, record.block_n),
            time: time(setting.time.median_us),
            interval: time_range(setting.time.low_us, setting.time.high_us),
            mask_time: or_none(mask_us, time),
            dense: or_none(setting.dense_us, time),
            speedup: or_none(setting.speedup(), |s| format!("{s:.2}×")),
            sparsity_error: or_none(record.sparsity_rel_rmse, significant),
            kernel_error: or_none(record.kernel_rel_rmse, significant),
            ties: format!("{} of {}", setting.ties, setting.candidates - 1),
        }
    });
    rows.collect()
}

fn failures(records: &[Record]) -> (Vec<FailureRow>, usize) {
    let mut groups: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
    for record in records.iter().filter(|r| r.status != Status::Ok) {
        *groups.entry((record.status.name(), &record.reason)).or_default() += 1;
    }
    let mut rows: Vec<_> = groups
        .into_iter()
        .map(|((status, reason), trials)| FailureRow { status, reason: reason.to_owned(), trials })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.trials));
    let more = rows.len().saturating_sub(MAX_FAILURE_ROWS);
    rows.truncate(MAX_FAILURE_ROWS);
    (rows, more)
}

fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let header = &run.header;
    let identity = &header.identity;
    let absent = || NONE.to_owned();
    let statuses: Vec<_> =
        by_status(&run.records).into_iter().map(|(s, n)| format!("{s} {}", count(n))).collect();
    vec![
        ("Device", identity.device.clone()),
        ("Backend", identity.backend.clone()),
        ("Instruction set", identity.isa.clone()),
        ("Driver", identity.driver.clone().unwrap_or_else(absent)),
        ("Threads", identity.threads.map_or_else(absent, count)),
        ("Platform", identity.platform.clone()),
        ("Toolchain", identity.toolchain.clone()),
        ("Input", identity.input.clone()),
        ("Input hash", identity.input_hash.clone()),
        ("Kernel sources hash", identity.source_hash.clone()),
        ("Search space hash", identity.space_hash.clone()),
        ("Seed", identity.seed.to_string()),
        ("Commit", identity.git_commit.clone()),
        ("nabla version", header.nabla_version.clone()),
        ("Command", header.command.join(" ")),
        ("Started", header.started.clone()),
        ("Last trial ended", run.records.iter().map(|r| r.timestamp.clone()).max().unwrap_or_else(absent)),
        ("Protocol", header.protocol.description.clone()),
        ("Warm-up launches", count(header.protocol.warmup)),
        ("Rounds", count(header.protocol.rounds)),
        ("Trials by status", if statuses.is_empty() { absent() } else { statuses.join(", ") }),
        ("Last line torn", if run.torn { "yes".to_owned() } else { "no".to_owned() }),
        ("Records", run.path.display().to_string()),
        ("Line format", header.schema.to_string()),
    ]
}

/// Returns rules that give the neutral colours inside the pictures the values of the page's scheme.
fn scheme_css() -> String {
    let neutrals = [(INK, "ink"), (MUTED, "muted"), (GRID, "grid"), (HATCH, "hatch"), (PAPER, "paper")];
    let rule = |(Color(r, g, b), name): (Color, &str)| {
        let hex = format!("#{r:02X}{g:02X}{b:02X}");
        format!(
            "svg [fill=\"{hex}\"] {{ fill: var(--{name}); }}\nsvg [stroke=\"{hex}\"] {{ stroke: var(--{name}); }}"
        )
    };
    neutrals.map(rule).join("\n")
}
