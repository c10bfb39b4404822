//! Rate over sequence length: how much of the device's arithmetic does attention use?

use std::collections::BTreeMap;

use crate::best::{best_settings, median, positive, timed_sparse};
use crate::figures::latency::{dash, family_name, largest_family};
use crate::figures::{Figure, nothing_timed, thin_out};
use crate::format::{count, plural, round, significant};
use crate::problem;
use crate::record::{Machine, Record};
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::Marker;
use crate::scene::palette::{INK, MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Plotted, Scene, cell};

/// Rates over sequence length of one policy, in 10¹² FLOP/s of executed work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(u64, f64)>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Throughput {
    pub(crate) family: String,
    pub(crate) dense: Vec<(u64, f64)>,
    /// Policies, the densest first.
    pub(crate) policies: Vec<Series>,
    /// Highest rate of the device for this element type, if known.
    pub(crate) peak: Option<f64>,
    pub(crate) other_families: usize,
    pub(crate) other_policies: usize,
}

/// Policies drawn at most.
const MAX_POLICIES: usize = 12;

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record], machine: &Machine) -> Result<Throughput, String> {
    let best = best_settings(records);
    let (family, settings, other_families) = largest_family(best)?;
    let mut dense = BTreeMap::new();
    for (problem, records) in problem::grouped(timed_sparse(records)) {
        if problem.family() == family
            && let Some(us) = median(records.iter().filter_map(|r| positive(r.dense_us_median)))
        {
            dense.insert(problem.seqlen, dense_flops(records[0]) / us / 1e6);
        }
    }
    let mut policies: Vec<(f64, Series)> = Vec::new();
    for setting in &settings {
        let record = setting.record;
        let Some(rate) = positive(record.tflops_executed) else { continue };
        let threshold = record.threshold.unwrap_or(f64::NEG_INFINITY);
        let point = (setting.problem.seqlen, rate);
        match policies.iter_mut().find(|(_, series)| series.name == record.policy) {
            Some((_, series)) => match series.points.last_mut() {
                Some(last) if last.0 == point.0 => last.1 = last.1.max(point.1),
                _ => series.points.push(point),
            },
            None => policies.push((threshold, Series { name: record.policy.clone(), points: vec![point] })),
        }
    }
    if policies.is_empty() {
        return Err("No timed trial has a rate of executed work.".to_owned());
    }
    policies.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    let found = policies.len();
    thin_out(&mut policies, MAX_POLICIES);
    Ok(Throughput {
        peak: positive(machine.peak_tflops.get(&family.dtype).copied()),
        family: family_name(&family),
        dense: dense.into_iter().collect(),
        other_policies: found - policies.len(),
        policies: policies.into_iter().map(|(_, series)| series).collect(),
        other_families,
    })
}

/// Returns the FLOPs of dense attention on a record's problem: 4·B·H·D·S².
pub(super) fn dense_flops(record: &Record) -> f64 {
    let size = |n: u64| n as f64;
    4.0 * size(record.batch) * size(record.heads) * size(record.head_dim) * size(record.seqlen).powi(2)
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record], machine: &Machine) -> Figure {
    let data = data(records, machine);
    let mut caption =
        "Look at how far a sparse line stays below that of dense attention: the difference is what skipping \
                       blocks costs in the rate of the work that is left. Counted is executed work, \
                       4·D·(kept query-key pairs), never the skipped."
            .to_owned();
    if let Ok(Throughput { other_families, other_policies, family, .. }) = &data {
        if *other_families > 0 {
            caption.push_str(&format!(
                " Shown is {family}; {} of heads, size and type are in the table.",
                plural(*other_families, "other combination", "other combinations")
            ));
        }
        if *other_policies > 0 {
            caption
                .push_str(&format!(" {} not drawn.", plural(*other_policies, "policy is", "policies are")));
        }
    }
    Figure {
        name: "tflops_over_seqlen",
        title: "TFLOPS over sequence length",
        caption,
        picture: data.and_then(|data| draw(&data).ok_or_else(nothing_timed)),
    }
}

fn draw(data: &Throughput) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 220.0;
    let points = || data.policies.iter().flat_map(|s| &s.points).chain(&data.dense);
    let lengths: Vec<f64> = points().map(|(s, _)| *s as f64).collect();
    let x = Axis::log_at("sequence length (tokens)", &lengths, |v| count(v as u64))?;
    let highest = points().map(|(_, rate)| *rate).chain(data.peak).fold(0.0, f64::max);
    let y =
        Axis::linear(
            "executed TFLOP/s",
            0.0,
            highest * 1.06,
            |v| if v == 0.0 { "0".into() } else { round(v) },
        );

    let mut entries = Vec::new();
    if let Some(peak) = data.peak {
        entries.push((Swatch::Line(MUTED, Some((7.0, 4.0))), format!("peak, {}", significant(peak))));
    }
    if !data.dense.is_empty() {
        entries.push((Swatch::LineMarked(Marker::Circle, INK, None), "dense attention".to_owned()));
    }
    for (n, policy) in data.policies.iter().enumerate() {
        entries.push((Swatch::LineMarked(Marker::series(n), series(n), dash(n)), policy.name.clone()));
    }
    let plot_height = legend::height(entries.len()).max(360.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let top = scene.heading(
        "TFLOPS over sequence length",
        &format!("Attention of the best setting of each policy; {}. 10¹² FLOP/s.", data.family),
    );
    scene.height = top + plot_height + BOTTOM_ROOM;
    scene.plotted = plotted(data);
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);
    if let Some(peak) = data.peak {
        let y = plot.y_at(peak);
        scene.dashed(vec![(plot.at.0, y), (plot.at.0 + width, y)], 1.5, MUTED, (7.0, 4.0));
    }
    let at = |&(s, rate): &(u64, f64)| plot.point(s as f64, rate);
    let mut line = |points: &[(u64, f64)], marker: Marker, color, dash| {
        let places: Vec<_> = points.iter().map(at).collect();
        match dash {
            None => scene.line(places.clone(), 2.0, color),
            Some(dash) => scene.dashed(places.clone(), 2.0, color, dash),
        }
        places.into_iter().for_each(|place| marker.solid(&mut scene, place, 4.5, color));
    };
    line(&data.dense, Marker::Circle, INK, None);
    for (n, policy) in data.policies.iter().enumerate() {
        line(&policy.points, Marker::series(n), series(n), dash(n));
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

fn plotted(data: &Throughput) -> Plotted {
    let mut rows = Plotted::new(["series", "seqlen", "tflops_executed", "peak_tflops"]);
    let dense = std::iter::once(("dense attention", &data.dense));
    for (name, points) in dense.chain(data.policies.iter().map(|s| (s.name.as_str(), &s.points))) {
        for &(seqlen, rate) in points {
            rows.row([name.to_owned(), seqlen.to_string(), cell(rate), cell(data.peak)]);
        }
    }
    rows
}

fn describe(data: &Throughput) -> String {
    let lines: Vec<_> = data
        .policies
        .iter()
        .filter_map(|s| {
            let (seqlen, rate) = s.points.last()?;
            Some(format!("{}: {} at {} tokens", s.name, significant(*rate), count(*seqlen)))
        })
        .collect();
    format!("Executed TFLOP/s against sequence length. {}.", lines.join("; "))
}
