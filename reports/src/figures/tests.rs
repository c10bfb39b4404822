use super::*;
use crate::masks::MaskPicture;
use crate::record::Status;
use crate::synthetic::Sweep;

/// Draws every figure the records call for.
fn all(records: &[Record]) -> Vec<Figure> {
    let device = DeviceRecords { records: records.to_vec(), ..DeviceRecords::default() };
    called_for(&device).into_iter().map(|draw| draw(&device)).collect()
}

/// Draws every figure of a tuning run on a device with a roof, and those of masks.
fn tuned() -> Vec<Figure> {
    let run = crate::synthetic_tuning::run();
    let device = DeviceRecords {
        machine: run.header.machine.clone().unwrap_or_default(),
        records: run.records,
        comparisons: run.comparisons,
        ..DeviceRecords::default()
    };
    let mut figures: Vec<Figure> = called_for(&device).into_iter().map(|draw| draw(&device)).collect();
    let mask = |(n, q, kv): (usize, usize, usize)| MaskPicture {
        title: format!("head {n}"),
        q_blocks: q,
        kv_blocks: kv,
        density: 0.25,
        kept: (0..q * kv).map(|i| i % 4 == n % 4).collect(),
    };
    figures.push(block_masks(&[(0, 64, 64), (1, 64, 64), (2, 1, 1), (3, 300, 4), (4, 3, 500)].map(mask)));
    figures
}

fn sweeps() -> Vec<(&'static str, Vec<Record>)> {
    let usual = Sweep::default();
    let one_length = Sweep { grids: vec![[4, 32, 32]], ..usual.clone() };
    let one_mask_block = Sweep { mask_blocks: vec![64], thresholds: vec![0.7], ..usual.clone() };
    let one_tile = Sweep { tiles: vec![(64, 64)], ..usual.clone() };
    let many = Sweep {
        grids: (1..=12).map(|t| [t * 3, 24, 40]).collect(),
        thresholds: (1..=12).map(|t| f64::from(t) * 0.08).collect(),
        tiles: [16, 32, 64, 128].iter().flat_map(|m| [16, 32, 64, 96, 128, 256].map(|n| (*m, n))).collect(),
        ..usual.clone()
    };
    let mut hostile = usual.records();
    for (n, record) in hostile.iter_mut().enumerate() {
        record.policy = format!("<b>{}</b>-{}", "a very long policy name ".repeat(9), n % 7);
        record.device = "device ".repeat(90) + &(n % 2).to_string();
    }
    vec![
        ("usual", usual.run().records),
        ("one length", one_length.records()),
        ("one mask block", one_mask_block.records()),
        ("one tile", one_tile.records()),
        ("many", many.records()),
        ("hostile names", hostile),
    ]
}

#[test]
fn no_two_texts_overlap_and_none_is_cut_off() {
    let mut seen = 0;
    let mut sets: Vec<_> = sweeps().into_iter().map(|(name, records)| (name, all(&records))).collect();
    sets.push(("tuned", tuned()));
    for (name, figures) in sets {
        for figure in figures {
            let Ok(scene) = figure.picture else { continue };
            let texts: Vec<_> = scene.texts().filter(|t| !t.content.is_empty()).collect();
            assert!(texts.len() >= 8, "{name}: {} has hardly any text", figure.name);
            for (i, text) in texts.iter().enumerate() {
                let [left, top, right, bottom] = text.bounds();
                assert!(
                    left >= 0.0 && top >= 0.0 && right <= scene.width && bottom <= scene.height,
                    "{name}: {}: {:?} is cut off at {:?}",
                    figure.name,
                    text.content,
                    text.bounds()
                );
                for other in &texts[..i] {
                    let [l, t, r, b] = other.bounds();
                    let apart = left >= r || l >= right || top >= b || t >= bottom;
                    assert!(
                        apart,
                        "{name}: {}: {:?} overlaps {:?}",
                        figure.name, text.content, other.content
                    );
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 500);
}

#[test]
fn figures_without_data_say_why() {
    let reasons = |records: &[Record]| -> Vec<String> {
        all(records)
            .into_iter()
            .filter_map(|f| f.picture.err().map(|why| format!("{}: {why}", f.name)))
            .collect()
    };
    assert_eq!(reasons(&Sweep::default().records()), Vec::<String>::new());
    let one_length = Sweep { grids: vec![[4, 32, 32]], ..Sweep::default() };
    assert_eq!(
        reasons(&one_length.records()),
        [
            "latency_over_seqlen: All timed trials have one sequence length, 4,096 tokens.",
            "tflops_over_seqlen: All timed trials have one sequence length, 4,096 tokens."
        ]
    );
    let one_tile = Sweep { tiles: vec![(64, 64)], ..Sweep::default() };
    assert_eq!(
        reasons(&one_tile.records()),
        [
            "tile_heatmap: At most one tile was timed for each mask block, so there is nothing to compare.",
            "tiles_by_problem: One tile alone was timed, so there is nothing to compare."
        ]
    );
    let mut failed = one_length.records();
    for record in &mut failed {
        record.status = Status::LaunchError;
    }
    for records in [vec![], failed] {
        let reasons = reasons(&records);
        assert_eq!(reasons.len(), 10);
        let untimed =
            reasons.iter().filter(|why| why.ends_with("No trial on a sparse mask was verified and timed."));
        // Parts of a time need more than a time, and say so.
        assert_eq!(untimed.count(), 9, "{reasons:?}");
    }
    let mut exact = one_length.records();
    for record in &mut exact {
        record.sparsity_rel_rmse = Some(0.0);
        record.density = None;
    }
    let names: Vec<_> =
        reasons(&exact).into_iter().map(|why| why.split(':').next().unwrap_or("").to_owned()).collect();
    let expected = [
        "speedup_over_sparsity",
        "latency_over_seqlen",
        "tflops_over_seqlen",
        "error_over_threshold",
        "pareto_front",
    ];
    assert_eq!(names, expected);
}

#[test]
fn speedup_series_hold_the_best_of_each_policy_and_the_rest_as_dots() {
    let records = Sweep::default().records();
    let series = speedup::data(&records).unwrap();
    let names: Vec<_> = series.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["4,096 tokens", "8,192 tokens", "16,384 tokens"]);
    let timed = records.iter().filter(|r| r.status == Status::Ok).count();
    let shown: usize = series.iter().map(|s| s.best.len() + s.others.len()).sum();
    assert_eq!(shown, timed);
    for series in &series {
        assert_eq!(series.best.len(), 5);
        assert!(series.best.windows(2).all(|pair| pair[0].sparsity < pair[1].sparsity));
        for point in &series.best {
            let total = point.total.unwrap();
            assert!(total.middle < point.attention.middle);
            for speedup in [total, point.attention] {
                assert!(speedup.low <= speedup.middle && speedup.middle <= speedup.high);
            }
        }
    }
}

#[test]
fn a_speedup_above_the_ideal_is_remarked_on() {
    let mut records = Sweep::default().records();
    let remark = "owe that to more than sparsity";
    assert!(!speedup::figure(&records).caption.contains(remark));
    for record in &mut records {
        record.dense_us_median = record.dense_us_median.map(|us| us * 1.3);
    }
    assert!(speedup::figure(&records).caption.contains(remark));
}

#[test]
fn speedup_is_the_ratio_of_the_measured_times() {
    let mut record = Sweep::default().records().remove(0);
    record.dense_us_median = Some(1000.0);
    record.time_us_median = Some(200.0);
    record.time_us_ci_low = Some(160.0);
    record.time_us_ci_high = Some(250.0);
    record.total_us_median = Some(250.0);
    record.density = Some(0.25);
    let [series] = &speedup::data(&[record]).unwrap()[..] else { panic!("one series") };
    let [point] = &series.best[..] else { panic!("one point") };
    assert_eq!(point.sparsity, 0.75);
    assert_eq!((point.attention.low, point.attention.middle, point.attention.high), (4.0, 5.0, 6.25));
    // The interval of the total is that of attention moved by the mask's 50 µs.
    let total = point.total.unwrap();
    assert_eq!((total.low, total.middle, total.high), (1000.0 / 300.0, 4.0, 1000.0 / 210.0));
}

#[test]
fn latency_lines_run_over_every_length_densest_policy_first() {
    let data = latency::data(&Sweep::default().records()).unwrap();
    assert_eq!(data.family, "batch 1, 2 heads, D 64, f32");
    assert!(data.total);
    assert_eq!(data.other_families, 0);
    let names: Vec<_> = data.policies.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["nabla-0.9", "nabla-0.7", "nabla-0.6", "nabla-0.5", "nabla-0.4"]);
    for series in &data.policies {
        let lengths: Vec<_> = series.points.iter().map(|(s, _)| *s).collect();
        assert_eq!(lengths, [4096, 8192, 16384]);
    }
    let dense: Vec<_> = data.dense.iter().map(|(s, _)| *s).collect();
    assert_eq!(dense, [4096, 8192, 16384]);
}

#[test]
fn latency_shows_one_family_and_counts_the_others() {
    let mut records = Sweep::default().records();
    let mut more = Sweep { grids: vec![[4, 32, 32], [8, 32, 32]], ..Sweep::default() }.records();
    for record in &mut more {
        record.heads = 8;
    }
    records.extend(more);
    let data = latency::data(&records).unwrap();
    assert_eq!((data.family.as_str(), data.other_families), ("batch 1, 2 heads, D 64, f32", 1));
    let caption = latency::figure(&records).caption;
    assert!(caption.contains("1 other combination of heads"), "{caption}");
}

#[test]
fn errors_are_grouped_by_mask_block_and_reach_from_smallest_to_largest() {
    let mut records = Sweep::default().records();
    records[0].threshold = None;
    let data = error::data(&records).unwrap();
    let names: Vec<_> = data.sparsity.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["mask block 32", "mask block 64", "mask block 128"]);
    assert_eq!(data.left_out, 1);
    for point in data.sparsity.iter().flat_map(|s| &s.points).chain(&data.kernel) {
        assert!(point.low <= point.median && point.median <= point.high);
        assert!(point.low < point.high);
    }
    assert_eq!(data.kernel.len(), 5);
    assert!(error::figure(&records).caption.contains("1 trial is not shown"));
}

#[test]
fn policies_of_one_kind_make_one_series() {
    let mut record = Sweep::default().records().remove(0);
    let mut family = |policy: &str, threshold| {
        record.policy = policy.to_owned();
        record.threshold = threshold;
        policy_family(&record)
    };
    assert_eq!(family("nabla-0.7", Some(0.7)), "nabla");
    assert_eq!(family("nabla-0.70", Some(0.7)), "nabla");
    assert_eq!(family("nabla-0.6_sta-11-3-3", Some(0.6)), "nabla + sta-11-3-3");
    assert_eq!(family("sta-11-3-3", None), "sta-11-3-3");
}

#[test]
fn tile_cells_are_relative_to_the_best_and_tell_failures_apart() {
    let mut records = Sweep::default().records();
    let lone = |r: &Record| (r.q_block, r.block_m, r.block_n) == (128, 128, 128);
    records.retain(|r| !lone(r));
    let panels = tiles::data(&records).unwrap();
    let blocks: Vec<_> = panels.iter().map(|p| (p.q_block, p.kv_block, p.groups)).collect();
    assert_eq!(blocks, [(32, 32, 15), (64, 64, 15), (128, 128, 15)]);
    for panel in &panels {
        assert_eq!((&panel.rows[..], &panel.columns[..]), (&[32, 64, 128][..], &[32, 64, 128][..]));
        // The model's best tile is 64 x 64; noise may cost it a per cent in the median.
        let tiles::Cell::Timed(best) = panel.cells[1][1] else { panic!("64 x 64 was timed") };
        assert!((1.0..1.01).contains(&best), "{best}");
        let worse =
            panel.cells.iter().flatten().filter(|c| matches!(c, tiles::Cell::Timed(r) if *r < 1.0)).count();
        assert_eq!(worse, 0);
    }
    assert_eq!(panels[0].cells[2], [tiles::Cell::Ineligible; 3]);
    assert_eq!(panels[1].cells[2][0], tiles::Cell::Failed);
    assert_eq!(panels[2].cells[2][2], tiles::Cell::Absent);
}

#[test]
fn nothing_beats_a_setting_on_the_front_and_each_is_named() {
    let records = Sweep::default().records();
    let fronts = pareto::data(&records).unwrap();
    assert_eq!((fronts.panels.len(), fronts.other_problems), (3, 0));
    for panel in &fronts.panels {
        assert!(panel.front.len() >= 4);
        assert!(panel.front.windows(2).all(|p| p[0].error < p[1].error && p[0].time_us > p[1].time_us));
        for point in &panel.front {
            // Errors of one mask scatter by rounding; the model's scatter is 3 %.
            let beaten = panel.all.iter().any(|(e, t)| *e < point.error * 0.93 && *t < point.time_us);
            assert!(!beaten, "{point:?}");
            assert!(
                point.name.starts_with("nabla-") && point.name.contains(" · mask 32 · tile "),
                "{}",
                point.name
            );
        }
    }
}

#[test]
fn many_problems_are_thinned_to_four_with_both_ends() {
    let sweep = Sweep { grids: (1..=9).map(|t| [t, 32, 32]).collect(), ..Sweep::default() };
    let records = sweep.records();
    let fronts = pareto::data(&records).unwrap();
    let names: Vec<_> = fronts.panels.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["1,024 tokens", "3,072 tokens", "6,144 tokens", "9,216 tokens"]);
    assert!(pareto::figure(&records).caption.contains("5 problems are not drawn"));
}

#[test]
fn dots_are_thinned_evenly() {
    let thin = |n: usize, most| thinned(&(0..n).collect::<Vec<_>>(), most).copied().collect::<Vec<_>>();
    assert_eq!(thin(3, 5), [0, 1, 2]);
    assert_eq!(thin(10, 5), [0, 2, 4, 6, 8]);
    assert_eq!(thin(0, 5), Vec::<usize>::new());
}

#[test]
fn every_figure_that_is_drawn_has_a_name_known_and_its_numbers() {
    for figure in all(&Sweep::default().records()).into_iter().chain(tuned()) {
        assert!(NAMES.contains(&figure.name), "{}", figure.name);
        let scene = figure.picture.unwrap_or_else(|why| panic!("{}: {why}", figure.name));
        let Plotted { columns, rows } = scene.plotted;
        assert!(!rows.is_empty() && rows.iter().all(|row| row.len() == columns.len()), "{}", figure.name);
    }
}

/// Returns the plotted numbers of a figure as CSV, numbers to four digits: the last ones differ between machines.
fn numbers(figure: Figure, most: usize) -> String {
    let Plotted { columns, rows } = figure.picture.expect("a picture").plotted;
    let short = |cell: &String| match cell.parse::<f64>() {
        Ok(value) if value.fract() != 0.0 => format!("{value:.3e}"),
        _ => cell.clone(),
    };
    let lines = rows.iter().take(most).map(|row| row.iter().map(short).collect::<Vec<_>>().join(","));
    let more = rows.len().saturating_sub(most);
    let rest = if more > 0 { format!("and {more} more rows\n") } else { String::new() };
    format!("{}\n{}\n{rest}", columns.join(","), lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_plotted_numbers_of_every_figure() {
    let sweep = all(&Sweep::default().records());
    let tuned = tuned().into_iter().filter(|f| {
        ["roofline", "tflops_over_seqlen", "main_effects", "tuning_convergence", "comparisons", "block_masks"]
            .contains(&f.name)
    });
    let mut text = String::new();
    for (from, figure) in sweep.into_iter().map(|f| ("sweep", f)).chain(tuned.map(|f| ("tuning", f))) {
        let name = figure.name;
        text.push_str(&format!("# {from}: {name}\n{}\n", numbers(figure, 12)));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn parts_add_up_and_are_those_of_the_best_setting() {
    let records = Sweep::default().records();
    let (bars, left_out) = parts::data(&records).unwrap();
    assert_eq!((bars.len(), left_out), (15, 0));
    let best = crate::best::best_settings(&records);
    for (bar, best) in bars.iter().zip(&best) {
        assert_eq!(bar.policy, best.record.policy);
        assert!((bar.mask_us + bar.attention_us - best.time.median_us).abs() < 1e-6);
        assert_eq!(bar.reorder_us, Some(90.0));
    }
}

#[test]
fn bytes_of_a_dense_launch_are_four_tensors_and_of_a_sparse_one_its_lists_too() {
    let mut record = Sweep::default().records().remove(0);
    record.dtype = "bf16".into();
    (record.batch, record.heads, record.seqlen, record.head_dim) = (1, 2, 4096, 64);
    (record.q_block, record.kv_block, record.density) = (0, 0, Some(1.0));
    let tensors = 2.0 * 2.0 * 4096.0 * 64.0 * 4.0;
    assert_eq!(roofline::bytes(&record), tensors);
    (record.q_block, record.kv_block, record.density) = (64, 64, Some(0.25));
    assert_eq!(roofline::bytes(&record), tensors + 4.0 * 2.0 * (64.0 + 64.0 * 64.0 * 0.25));
    record.dtype = "f32".into();
    assert_eq!(roofline::bytes(&record), 2.0 * tensors + 4.0 * 2.0 * (64.0 + 1024.0));
}

#[test]
fn a_roofline_without_a_roof_says_so() {
    let records = Sweep::default().records();
    let caption = roofline::figure(&records, &Default::default()).caption;
    assert!(caption.contains("neither peak nor bandwidth"), "{caption}");
}

#[test]
fn the_knob_that_changes_time_explains_most() {
    let mut records = Sweep::default().records();
    records.retain(|r| r.status == Status::Ok);
    for record in &mut records {
        let time = if record.block_n == 128 { 200.0 } else { 100.0 + record.block_m as f64 / 100.0 };
        record.time_us_median = Some(time);
        record.mask_us_median = Some(0.5);
        record.total_us_median = Some(time + 0.5);
    }
    let data = effects::data(&records).unwrap();
    assert_eq!((data.knobs[0].name.as_str(), data.groups), ("BLOCK_N", 15));
    assert!(data.knobs[0].explained > 0.99);
    let levels: Vec<_> = data.knobs[0].levels.iter().map(|l| (l.name.as_str(), l.reachable > 1.9)).collect();
    assert_eq!(levels, [("32", false), ("64", false), ("128", true)]);
}

#[test]
fn best_so_far_never_rises_and_ends_at_the_best_of_all() {
    let records = crate::synthetic_tuning::run().records;
    let data = convergence::data(&records).unwrap();
    let names: Vec<_> = data.strategies.iter().map(|s| (s.name.as_str(), s.searches)).collect();
    // Two lengths, two policies, three seeds.
    assert_eq!(names, [("bayes", 12), ("evolution", 12), ("random", 12)]);
    for one in &data.strategies {
        assert!(
            one.steps.windows(2).all(|p| p[1].median <= p[0].median && p[1].evaluation > p[0].evaluation)
        );
        assert!(one.steps.iter().all(|s| 1.0 <= s.low && s.low <= s.median && s.median <= s.high));
        assert_eq!(one.steps.last().map(|s| s.evaluation), Some(40));
    }
    let ends =
        data.strategies.iter().filter_map(|s| s.steps.last()).map(|s| s.low).fold(f64::INFINITY, f64::min);
    assert_eq!(ends, 1.0);
}

#[test]
fn disturbed_trials_are_in_no_figure() {
    let mut records = Sweep::default().records();
    let before = speedup::data(&records).unwrap();
    let mut disturbed = records[5].clone();
    assert_eq!(disturbed.status, Status::Ok);
    disturbed.status = Status::Contended;
    disturbed.block_n = 512;
    disturbed.time_us_median = Some(0.001);
    disturbed.total_us_median = Some(0.002);
    records.push(disturbed);
    assert_eq!(speedup::data(&records).unwrap(), before);
}
