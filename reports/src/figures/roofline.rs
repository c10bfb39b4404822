//! Roofline: are kernels held back by arithmetic or by memory?
//!
//! The work of a launch is 4·D·(kept query-key pairs). The bytes are the fewest a fused kernel can move, from
//! device memory and back: e·B·H·S·D for each of q, k, v and the output, e being the bytes of an element (2 in 16
//! bits, where this is 2·B·H·S·D·4), and 4 bytes for each count and each index of the block lists. What is read
//! again because a cache did not hold it is not counted, so that a point lies right of where a profiler puts it.

use crate::best::{BestSetting, best_settings, median, positive, timed_sparse};
use crate::figures::throughput::dense_flops;
use crate::figures::{Figure, nothing_timed, setting, thin_out};
use crate::format::{plural, round, significant};
use crate::problem;
use crate::record::{Machine, Record};
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::Marker;
use crate::scene::palette::{INK, MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Plotted, Scene, cell};

/// One kernel on one problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: String,
    /// FLOP per byte.
    pub(crate) intensity: f64,
    /// 10¹² FLOP/s.
    pub(crate) tflops: f64,
}

/// The kernels on one problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Best setting of each policy.
    pub(crate) sparse: Vec<Point>,
    pub(crate) dense: Option<Point>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Roofline {
    pub(crate) series: Vec<Series>,
    pub(crate) other_problems: usize,
    /// Peaks by element type, of those shown, in 10¹² FLOP/s.
    pub(crate) peaks: Vec<(String, f64)>,
    /// In 10⁹ byte/s.
    pub(crate) bandwidth: Option<f64>,
    pub(crate) source: String,
}

const MAX_PROBLEMS: usize = 6;

/// Returns the bytes of an element.
fn element_bytes(dtype: &str) -> f64 {
    if dtype == "f32" { 4.0 } else { 2.0 }
}

/// Returns the fewest bytes a launch moves; see the top of this file.
pub(crate) fn bytes(record: &Record) -> f64 {
    let size = |n: u64| n as f64;
    let heads = size(record.batch) * size(record.heads);
    let tensors = element_bytes(&record.dtype) * heads * size(record.seqlen) * size(record.head_dim) * 4.0;
    let blocks = |block: u64| if block == 0 { 0.0 } else { size(record.seqlen.div_ceil(block)) };
    let (q_blocks, kv_blocks) = (blocks(record.q_block), blocks(record.kv_block));
    tensors + 4.0 * heads * (q_blocks + q_blocks * kv_blocks * record.density.unwrap_or(1.0))
}

fn sparse_point(best: &BestSetting<'_>) -> Option<Point> {
    let record = best.record;
    let tflops = positive(record.tflops_executed)?;
    let flops = tflops * positive(record.time_us_median)? * 1e6;
    let name = format!("{} · {}", record.policy, setting(record));
    Some(Point { name, intensity: flops / bytes(record), tflops })
}

fn dense_point(records: &[&Record]) -> Option<Point> {
    let us = median(records.iter().filter_map(|r| positive(r.dense_us_median)))?;
    let flops = dense_flops(records[0]);
    let dense = Record { q_block: 0, kv_block: 0, samples_us: vec![], ..records[0].clone() };
    Some(Point { name: "dense".to_owned(), intensity: flops / bytes(&dense), tflops: flops / us / 1e6 })
}

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record], machine: &Machine) -> Result<Roofline, String> {
    let groups = problem::grouped(timed_sparse(records));
    if groups.is_empty() {
        return Err(nothing_timed());
    }
    let best = best_settings(records);
    let problems: Vec<_> = groups.keys().cloned().collect();
    let mut all: Vec<_> = problem::names(&problems)
        .into_iter()
        .zip(groups)
        .map(|(name, (problem, records))| {
            let own = best.iter().filter(|b| b.problem == problem);
            let series =
                Series { name, sparse: own.filter_map(sparse_point).collect(), dense: dense_point(&records) };
            (problem.dtype, series)
        })
        .filter(|(_, series)| !series.sparse.is_empty())
        .collect();
    let found = all.len();
    if found == 0 {
        return Err("No timed trial has a rate of executed work.".to_owned());
    }
    thin_out(&mut all, MAX_PROBLEMS);
    let mut types: Vec<_> = all.iter().map(|(dtype, _)| dtype.clone()).collect();
    types.sort();
    types.dedup();
    let peaks = types.into_iter().filter_map(|dtype| {
        let peak = positive(machine.peak_tflops.get(&dtype).copied())?;
        Some((dtype, peak))
    });
    Ok(Roofline {
        other_problems: found - all.len(),
        peaks: peaks.collect(),
        series: all.into_iter().map(|(_, series)| series).collect(),
        bandwidth: positive(machine.bandwidth_gb_per_s),
        source: machine.peak_source.clone(),
    })
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record], machine: &Machine) -> Figure {
    let data = data(records, machine);
    let mut caption = "Bytes are the fewest a fused kernel can move: q, k, v and the output once, in their element type, and \
                       the block lists. "
        .to_owned();
    if let Ok(data) = &data {
        caption.push_str(match (data.peaks.is_empty(), data.bandwidth) {
            (false, Some(_)) => {
                "Look at the distance to the roof: under its slope memory is the limit, under its flat part arithmetic."
            }
            (false, None) => {
                "The records name a peak but no bandwidth: the roof has no slope. Look at the distance to the line."
            }
            (true, Some(_)) => {
                "The records name a bandwidth but no peak: the roof has no flat part. Look at the distance to the slope."
            }
            (true, None) => {
                "The records name neither peak nor bandwidth of the device, so no roof is drawn: compare the kernels with \
                 each other only."
            }
        });
        if data.other_problems > 0 {
            let others = plural(data.other_problems, "problem is", "problems are");
            caption.push_str(&format!(" {others} not drawn."));
        }
    }
    Figure {
        name: "roofline",
        title: "Roofline",
        caption,
        picture: data.and_then(|data| draw(&data).ok_or_else(nothing_timed)),
    }
}

fn draw(data: &Roofline) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 250.0;
    let points = || data.series.iter().flat_map(|s| s.sparse.iter().chain(&s.dense));
    // Where the slope meets the highest peak is part of the picture, unless that is far away.
    let ridge = data.bandwidth.zip(data.peaks.iter().map(|p| p.1).reduce(f64::max)).map(|(b, p)| p * 1e3 / b);
    let lowest = points().map(|p| p.intensity).fold(f64::INFINITY, f64::min);
    let x_values = points().map(|p| p.intensity).chain(ridge.map(|r| r.max(lowest / 30.0)));
    let x = Axis::log("arithmetic intensity (FLOP per byte)", x_values, round)?;
    let slope_at = |x: f64| data.bandwidth.map(|b| b * x / 1e3);
    let y_values = points().map(|p| p.tflops).chain(data.peaks.iter().map(|p| p.1));
    let y_values: Vec<_> = match (slope_at(lowest), data.peaks.is_empty()) {
        (Some(rate), true) => y_values.chain([rate]).collect(),
        // Without a roof the points alone would fill the picture with their noise.
        (None, true) => y_values.flat_map(|rate| [rate / 1.6, rate * 1.6]).collect(),
        _ => y_values.collect(),
    };
    let y = Axis::log("TFLOP/s", y_values, round)?;

    let mut entries = Vec::new();
    for (dtype, peak) in &data.peaks {
        entries.push((Swatch::Line(INK, None), format!("{dtype} peak, {} TFLOP/s", significant(*peak))));
    }
    if let Some(bandwidth) = data.bandwidth {
        entries
            .push((Swatch::Line(INK, Some((7.0, 4.0))), format!("memory, {} GB/s", significant(bandwidth))));
    }
    if entries.is_empty() {
        entries.push((Swatch::Heading, "roof not known".to_owned()));
    } else if !data.source.is_empty() {
        entries.push((Swatch::Heading, format!("roof: {}", data.source)));
    }
    entries.push((Swatch::Heading, "best setting of each policy".to_owned()));
    for (n, one) in data.series.iter().enumerate() {
        entries.push((Swatch::Solid(Marker::series(n), series(n)), one.name.clone()));
    }
    entries.push((Swatch::Hollow(Marker::Circle, MUTED), "dense attention".to_owned()));

    let plot_height = legend::height(entries.len()).max(380.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let top = scene.heading("Roofline", "Attention alone, executed work. Logarithmic scales.");
    scene.height = top + plot_height + BOTTOM_ROOM;
    scene.plotted = plotted(data);
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);
    draw_roof(&mut scene, &plot, data);
    for (n, one) in data.series.iter().enumerate() {
        if let Some(dense) = &one.dense {
            Marker::series(n).hollow(&mut scene, plot.point(dense.intensity, dense.tflops), 6.0, series(n));
        }
        for point in &one.sparse {
            Marker::series(n).solid(&mut scene, plot.point(point.intensity, point.tflops), 4.5, series(n));
        }
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

fn draw_roof(scene: &mut Scene, plot: &Plot, data: &Roofline) {
    let (low, high) = (plot.x.low, plot.x.high);
    for (_, peak) in &data.peaks {
        // A peak is out of reach left of where the slope meets it.
        let from = data.bandwidth.map_or(low, |b| (peak * 1e3 / b).clamp(low, high));
        scene.line(vec![plot.point(from, *peak), plot.point(high, *peak)], 2.0, INK);
    }
    if let Some(bandwidth) = data.bandwidth {
        let top = data.peaks.iter().map(|p| p.1).reduce(f64::max).unwrap_or(plot.y.high).min(plot.y.high);
        let at = |rate: f64| rate * 1e3 / bandwidth;
        let (from, to) = (at(plot.y.low).max(low), at(top).min(high));
        if from < to {
            let ends = [from, to].map(|x| plot.point(x, bandwidth * x / 1e3));
            scene.dashed(ends.to_vec(), 2.0, INK, (7.0, 4.0));
        }
    }
}

fn plotted(data: &Roofline) -> Plotted {
    let mut rows = Plotted::new(["problem", "kernel", "flop_per_byte", "tflops"]);
    for one in &data.series {
        for point in one.sparse.iter().chain(&one.dense) {
            rows.row([one.name.clone(), point.name.clone(), cell(point.intensity), cell(point.tflops)]);
        }
    }
    for (dtype, peak) in &data.peaks {
        rows.row(["device".into(), format!("{dtype} peak"), String::new(), cell(*peak)]);
    }
    if let Some(bandwidth) = data.bandwidth {
        rows.row(["device".into(), "memory, at 1 FLOP per byte".into(), cell(1.0), cell(bandwidth / 1e3)]);
    }
    rows
}

fn describe(data: &Roofline) -> String {
    let all: Vec<_> = data
        .series
        .iter()
        .filter_map(|one| {
            let best = one.sparse.iter().max_by(|a, b| a.tflops.total_cmp(&b.tflops))?;
            Some(format!(
                "{}: up to {} TFLOP/s at {} FLOP per byte",
                one.name,
                significant(best.tflops),
                significant(best.intensity)
            ))
        })
        .collect();
    format!("Rate against arithmetic intensity. {}.", all.join("; "))
}
