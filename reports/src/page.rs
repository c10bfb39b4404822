//! Fills in the page: what was measured, the figures, the records to look through, and where all of it came from.

use std::collections::BTreeMap;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::best::{TimeBasis, best_settings, positive};
use crate::collection::{Collection, Source};
use crate::embed::{Embedded, embed};
use crate::figures::mask_block;
use crate::format::{count, percent, plural, significant, time, time_range};
use crate::problem;
use crate::record::{Record, Status};
use crate::scene::palette::{Color, GRID, HATCH, INK, MUTED, PAPER};

/// Failure reasons listed on the page at most.
const MAX_FAILURE_ROWS: usize = 60;
/// Best settings listed on the page at most.
const MAX_BEST_ROWS: usize = 300;

/// The chart library: a committed copy of its npm package, see MANIFEST.toml beside it.
const CHART_SCRIPT: &str = include_str!("../assets/uplot/uPlot.iife.min.js");
const CHART_STYLE: &str = include_str!("../assets/uplot/uPlot.min.css");
const CHART_LICENCE: &str = include_str!("../assets/uplot/LICENSE");
/// What filters, sorts and draws the records.
const SCRIPT: &str = concat!(
    include_str!("../assets/page/data.js"),
    include_str!("../assets/page/chart.js"),
    include_str!("../assets/page/table.js"),
    include_str!("../assets/page/main.js")
);
const STYLE: &str = include_str!("../assets/page/page.css");

/// The figures of one device.
pub(crate) struct DeviceFigures {
    /// Name of the device, where there are several.
    pub(crate) name: Option<String>,
    pub(crate) figures: Vec<ShownFigure>,
}

/// One figure on the page.
pub(crate) struct ShownFigure {
    pub(crate) title: &'static str,
    pub(crate) caption: String,
    pub(crate) svg: Option<String>,
    pub(crate) why_not: String,
    /// Stem of its files.
    pub(crate) file: &'static str,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    inputs: Vec<String>,
    summary: String,
    warnings: Vec<String>,
    basis: &'static str,
    best: Vec<BestRow>,
    more_best: usize,
    sections: Vec<DeviceFigures>,
    failures: Vec<FailureRow>,
    more_failures: usize,
    runs: Vec<RunFacts>,
    data: Embedded,
    rows: usize,
    scheme_css: String,
    style: &'static str,
    chart_style: &'static str,
    chart_script: &'static str,
    chart_licence: &'static str,
    script: &'a str,
    script_hashes: String,
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

/// Returns the page.
pub(crate) fn render(all: &Collection, sections: Vec<DeviceFigures>) -> Result<String, askama::Error> {
    let (failures, more_failures) = failures(all.records());
    let (mut best, basis) = (Vec::new(), basis(all));
    for device in &all.devices {
        let mut own = best_rows(&device.records);
        if all.devices.len() > 1 {
            own.iter_mut().for_each(|row| row.problem.push_str(&format!(" · {}", device.device)));
        }
        best.extend(own);
    }
    let more_best = best.len().saturating_sub(MAX_BEST_ROWS);
    best.truncate(MAX_BEST_ROWS);
    let names: Vec<_> = all.devices.iter().map(|d| d.device.as_str()).collect();
    let mut inputs: Vec<String> = all.sources.iter().map(|s| s.header.identity.input.clone()).collect();
    inputs.sort();
    inputs.dedup();
    let page = Page {
        title: names.join(" and "),
        inputs,
        summary: summary(all),
        warnings: all.warnings(),
        basis,
        best,
        more_best,
        sections,
        failures,
        more_failures,
        runs: all.sources.iter().map(facts).collect(),
        data: embed(all.records()),
        rows: all.records().count(),
        scheme_css: scheme_css(),
        style: STYLE,
        chart_style: CHART_STYLE,
        chart_script: CHART_SCRIPT,
        chart_licence: CHART_LICENCE.trim(),
        script: SCRIPT,
        script_hashes: [CHART_SCRIPT, SCRIPT].map(policy_hash).join(" "),
    };
    page.render()
}

/// Returns what a content security policy calls a script: only these two run, whatever a record holds.
fn policy_hash(script: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(script)))
}

fn basis(all: &Collection) -> &'static str {
    let total = |records: &[Record]| best_settings(records).iter().all(|s| s.basis == TimeBasis::Total);
    if all.devices.iter().all(|d| total(&d.records)) {
        "the time a user waits: building the mask plus attention"
    } else {
        "building the mask plus attention, or attention alone where a mask’s time is missing"
    }
}

fn summary(all: &Collection) -> String {
    let by_status: Vec<_> =
        by_status(all.records()).into_iter().map(|(s, n)| format!("{} {s}", count(n))).collect();
    let trials = plural(all.records().count(), "trial", "trials");
    let list = if by_status.is_empty() { String::new() } else { format!(" ({})", by_status.join(", ")) };
    let started = all.sources.iter().map(|s| s.header.started.as_str());
    let (first, last) = (started.clone().min().unwrap_or(NONE), started.max().unwrap_or(NONE));
    match all.sources.len() {
        1 => format!("{trials}{list}, started {first}."),
        n => format!("{trials}{list} of {}, started {first} to {last}.", plural(n, "run", "runs")),
    }
}

fn by_status<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<(&'static str, u64)> {
    let mut counts = Status::ALL.map(|status| (status, 0));
    for record in records {
        counts.iter_mut().filter(|(status, _)| *status == record.status).for_each(|(_, n)| *n += 1);
    }
    counts.into_iter().filter(|(_, n)| *n > 0).map(|(status, n)| (status.name(), n)).collect()
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

fn failures<'a>(records: impl Iterator<Item = &'a Record>) -> (Vec<FailureRow>, usize) {
    let mut groups: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
    for record in records.filter(|r| r.status != Status::Ok) {
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

/// The provenance of one run.
struct RunFacts {
    name: String,
    facts: Vec<(&'static str, String)>,
}

fn facts(source: &Source) -> RunFacts {
    let Source { header, path, torn, trials, comparisons, rejected_samples } = source;
    let identity = &header.identity;
    let absent = || NONE.to_owned();
    let machine = header.machine.clone().unwrap_or_default();
    let peaks: Vec<_> = machine
        .peak_tflops
        .iter()
        .map(|(dtype, peak)| format!("{dtype} {} TFLOP/s", significant(*peak)))
        .collect();
    let peak_source = match machine.peak_source.as_str() {
        "" => String::new(),
        source => format!(" ({source})"),
    };
    let facts = vec![
        ("Device", identity.device.clone()),
        ("Backend", identity.backend.clone()),
        ("Instruction set", identity.isa.clone()),
        ("Driver", identity.driver.clone().unwrap_or_else(absent)),
        ("Clocks", machine.clocks.unwrap_or_else(|| "not recorded".to_owned())),
        ("Peak", if peaks.is_empty() { "not recorded".into() } else { peaks.join(", ") + &peak_source }),
        (
            "Bandwidth",
            machine
                .bandwidth_gb_per_s
                .map_or_else(|| "not recorded".into(), |b| format!("{} GB/s", significant(b))),
        ),
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
        ("Protocol", header.protocol.description.clone()),
        ("Warm-up launches", count(header.protocol.warmup)),
        ("Rounds", count(header.protocol.rounds)),
        ("Trials", count(*trials as u64)),
        ("Comparisons", count(*comparisons as u64)),
        ("Rejected samples", count(*rejected_samples)),
        ("Last line torn", if *torn { "yes".to_owned() } else { "no".to_owned() }),
        ("Warnings", if header.warnings.is_empty() { "none".to_owned() } else { header.warnings.join(" ") }),
        ("Records", path.display().to_string()),
        ("Line format", header.schema.to_string()),
    ];
    RunFacts { name: format!("{}, {} on {}", path.display(), header.started, identity.device), facts }
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
