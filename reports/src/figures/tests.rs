use super::*;
use crate::record::Status;
use crate::synthetic::Sweep;

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
    for (name, records) in sweeps() {
        for figure in all(&records) {
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
        ["latency_over_seqlen: All timed trials have one sequence length, 4,096 tokens."]
    );
    let one_tile = Sweep { tiles: vec![(64, 64)], ..Sweep::default() };
    assert_eq!(
        reasons(&one_tile.records()),
        ["tile_heatmap: At most one tile was timed for each mask block, so there is nothing to compare."]
    );
    let mut failed = one_length.records();
    for record in &mut failed {
        record.status = Status::LaunchError;
    }
    for records in [vec![], failed] {
        let reasons = reasons(&records);
        assert_eq!(reasons.len(), 5);
        assert!(reasons.iter().all(|why| why.ends_with("No trial on a sparse mask was verified and timed.")));
    }
    let mut exact = one_length.records();
    for record in &mut exact {
        record.sparsity_rel_rmse = Some(0.0);
        record.density = None;
    }
    assert_eq!(reasons(&exact).len(), 4, "{:?}", reasons(&exact));
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
