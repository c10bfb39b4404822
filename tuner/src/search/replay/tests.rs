use std::{collections::HashSet, fs, io::Write as _, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::search::strategy::{DEFAULT, names};

/// A cache file of 6 x 5 x 2 configurations, its best at (32, 2, 1), those with 80 failing.
fn cache() -> Json {
    let mut cache = serde_json::Map::new();
    for x in [16, 32, 48, 64, 80, 128] {
        for y in [1, 2, 4, 8, 16] {
            for shared in [0, 1] {
                let time = 1.0 + (f64::from(x) / 32.0).log2().powi(2) + (f64::from(y) / 2.0).log2().powi(2);
                let time = time + if shared == 0 { 0.5 } else { 0.0 };
                let time = if x == 80 { json!("RuntimeFailedConfig") } else { json!(time) };
                let entry = json!({ "x": x, "y": y, "shared": shared, "time": time, "times": [1.0] });
                cache.insert(format!("{x},{y},{shared}"), entry);
            }
        }
    }
    json!({
        "device_name": "device", "kernel_name": "kernel", "problem_size": [4096],
        "tune_params_keys": ["x", "y", "shared"], "objective": "time", "cache": cache
    })
}

/// The same as a T4 file.
fn t4_file() -> Json {
    let results: Vec<Json> = cache()["cache"]
        .as_object()
        .into_iter()
        .flat_map(|cache| cache.values())
        .map(|entry| {
            let correct = entry["time"].is_number();
            json!({
                "timestamp": "2024-01-01T00:00:00Z",
                "configuration": { "x": entry["x"], "y": entry["y"], "shared": entry["shared"] },
                "times": { "compilation": 1.0, "framework": 0.0, "search_algorithm": 0.0, "validation": 0.0, "runtimes": [1.0] },
                "invalidity": if correct { "correct" } else { "runtime" },
                "correctness": if correct { 1 } else { 0 },
                "measurements": [{ "name": "time", "value": entry["time"], "unit": "ms" }],
                "objectives": ["time"]
            })
        })
        .collect();
    json!({ "metadata": { "timeunit": "milliseconds" }, "results": results, "schema_version": "1.0.0" })
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap_or_else(|e| panic!("{e}"));
    (folder, path)
}

fn one(name: &str, bytes: &[u8]) -> Recording {
    let (_folder, path) = file(name, bytes);
    let mut recordings = read(&path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(recordings.len(), 1);
    recordings.remove(0)
}

fn refused(bytes: &[u8]) -> String {
    let (_folder, path) = file("bad.json", bytes);
    let error = read(&path).map(|found| found.len()).expect_err("an error");
    error.to_string().replace(&path.display().to_string(), "bad.json")
}

/// Points as values with costs.
fn costs(recording: &Recording) -> Vec<(i64, i64, i64, Option<f64>)> {
    let number = |point: PointId, axis: &str| {
        let found = recording.space.values(point).find(|(name, _)| *name == axis);
        found.and_then(|(_, value)| value.number()).unwrap_or(f64::NAN) as i64
    };
    let row = |point: PointId| {
        let outcome = cost(&recording.outcomes[point.index()]);
        (number(point, "x"), number(point, "y"), number(point, "shared"), outcome)
    };
    let mut rows: Vec<_> = recording.space.ids().map(row).collect();
    rows.sort_by_key(|&(x, y, shared, _)| (x, y, shared));
    rows
}

#[test]
fn both_formats_plain_and_packed_hold_the_same() {
    let (cache, t4) = (cache().to_string(), t4_file().to_string());
    let packed = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_else(|e| panic!("{e}"))
    };
    let plain = one("cache.json", cache.as_bytes());
    assert_eq!(plain.name, "kernel on device");
    let rows = costs(&plain);
    assert_eq!(rows.len(), 60);
    assert_eq!(rows.iter().filter(|row| row.3.is_none()).count(), 10);
    let best = rows.iter().filter_map(|&(x, y, shared, cost)| Some((cost?, x, y, shared)));
    assert_eq!(best.min_by(|a, b| a.0.total_cmp(&b.0)), Some((1.0, 32, 2, 1)));
    assert_eq!(costs(&one("t4.json", t4.as_bytes())), rows);
    assert_eq!(costs(&one("cache.json.gz", &packed(&cache))), rows);
    assert_eq!(costs(&one("t4.json.gz", &packed(&t4))), rows);
}

#[test]
fn a_file_that_cannot_be_replayed_gets_one_error() {
    let edited = |edit: fn(&mut Json)| {
        let mut file = cache();
        edit(&mut file);
        refused(file.to_string().as_bytes())
    };
    let edited_t4 = |edit: fn(&mut Json)| {
        let mut file = t4_file();
        edit(&mut file);
        refused(file.to_string().as_bytes())
    };
    let expected = "bad.json: expected the key `cache` (Kernel Tuner) or `results` (T4), got neither";
    assert_eq!(refused(b"{}"), expected);
    let cut = refused(&cache().to_string().as_bytes()[..200]);
    assert!(
        cut.starts_with("bad.json: expected the JSON of a Kernel Tuner cache or T4 file, got EOF"),
        "{cut}"
    );
    assert_eq!(
        edited(|file| file["objective"] = json!("GFLOP/s")),
        "bad.json: expected the objective 'time', got 'GFLOP/s'"
    );
    assert_eq!(
        edited(|file| file["tune_params_keys"] = json!(["x", "z"])),
        "bad.json: expected 'z' in the entry '128,1,0', got none"
    );
    assert_eq!(
        edited(|file| file["cache"]["16,1,0"]["x"] = json!([1])),
        "bad.json: expected a number, a text, true or false as value of a parameter, got [1]"
    );
    assert_eq!(
        edited(|file| file["cache"] = json!({})),
        "bad.json: expected at least one configuration with 3 values, got none"
    );
    assert_eq!(
        edited(
            |file| file["cache"] = json!({ "k": { "x": 1, "y": 1, "shared": 0, "time": "InvalidConfig" } })
        ),
        "bad.json: expected at least one configuration with a time, got 1 without"
    );
    assert_eq!(
        edited_t4(|file| file["results"] = json!([])),
        "bad.json: expected at least one entry under `results`, got none"
    );
    assert_eq!(
        edited_t4(|file| file["results"][3]["measurements"] = json!([])),
        "bad.json: expected a number as measurement 'time' of result 3, got none"
    );
    let packed = refused(&[0x1f, 0x8b, 0, 0]);
    assert!(packed.starts_with("bad.json: cannot read: "), "{packed}");
}

#[test]
fn every_strategy_finds_the_optimum_of_a_replay_in_the_end() {
    let recording = one("cache.json", cache().to_string().as_bytes());
    for (name, _) in names() {
        let fractions = simulate(&recording, name, 1000, 3).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fractions.len(), 60, "{name}");
        assert_eq!(fractions.last(), Some(&1.0), "{name}");
        assert!(fractions.is_sorted(), "{name}: what was found stays found");
        let short = simulate(&recording, name, 7, 3).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(short.len(), 7, "{name}");
    }
}

#[test]
fn the_exact_median_of_random_search_is_what_random_search_needs() {
    let recording = one("cache.json", cache().to_string().as_bytes());
    for mark in 0..Curve::MARKS.len() {
        let exact = recording.random_median(Curve::MARKS[mark]) as f64;
        let runs: Vec<Vec<f64>> = (0..4001)
            .map(|seed| simulate(&recording, "random", 60, seed).unwrap_or_else(|e| panic!("{e}")))
            .collect();
        let drawn = Curve::new(&runs).median_evaluations(mark).unwrap_or(usize::MAX) as f64;
        assert!((drawn - exact).abs() <= 2.0, "{drawn} drawn, {exact} computed");
    }
}

#[test]
fn a_curve_has_the_quartiles_of_its_runs() {
    let runs =
        vec![vec![0.0, 0.5, 0.96], vec![0.2, 0.96, 1.0], vec![0.4, 0.4], vec![0.8, 0.9, 0.92], vec![1.0; 3]];
    let curve = Curve::new(&runs);
    assert_eq!(curve.quartiles, [[0.2, 0.4, 0.8], [0.5, 0.9, 0.96], [0.92, 0.96, 1.0]]);
    assert_eq!(curve.at(2), [0.5, 0.9, 0.96]);
    assert_eq!(curve.at(99), [0.92, 0.96, 1.0]);
    assert_eq!([0, 1, 2].map(|mark| curve.median_evaluations(mark)), [Some(2), Some(3), None]);
}

/// A cost over a large space with the shape tile sizes give: valleys on each axis, products of axes, a cliff.
fn synthetic(shift: u32, knee: u32) -> Recording {
    let mut rows = Vec::new();
    for (m, n, stages, warps) in (0..6u32)
        .flat_map(|m| (0..6u32).map(move |n| (m, n)))
        .flat_map(|(m, n)| (0..5u32).map(move |s| (m, n, s)))
        .flat_map(|(m, n, s)| (0..4u32).map(move |w| (m, n, s, w)))
    {
        for unroll in [1i64, 2, 3, 4, 6, 8] {
            let (tile, bytes) =
                (f64::from(1 << m) * f64::from(1 << n), f64::from((1 << n) * (stages + 1) + (1 << m)));
            let valley = |at: u32, best: u32| (f64::from(at) - f64::from(best)).powi(2);
            let cost = 1.0
                + 0.2 * valley(m + n, 6 + shift)
                + 0.1 * valley(warps, (m + shift) / 2)
                + 0.3 / f64::from(stages + 1)
                + if bytes > f64::from(knee) { 2.0 } else { 0.0 }
                + 0.05 * (unroll - 4).abs() as f64
                + 1.0 / tile;
            let values = vec![
                Value::Int(16 << m),
                Value::Int(16 << n),
                Value::Int(i64::from(stages) + 1),
                Value::Int(1 << warps),
                Value::Int(unroll),
            ];
            let outcome = if bytes > 2.0 * f64::from(knee) { Outcome::Failed } else { Outcome::Cost(cost) };
            rows.push((values, outcome));
        }
    }
    let names = ["m", "n", "stages", "warps", "unroll"].map(str::to_owned);
    Recording::new("synthetic".into(), &names, rows).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_default_reaches_95_percent_within_2_percent_of_synthetic_spaces() {
    for (shift, knee) in [(0, 40), (1, 60), (2, 90)] {
        let recording = synthetic(shift, knee);
        let runs: Vec<Vec<f64>> = (0..25)
            .map(|seed| simulate(&recording, DEFAULT, 100, seed).unwrap_or_else(|e| panic!("{e}")))
            .collect();
        let needed = Curve::new(&runs).median_evaluations(1).unwrap_or(usize::MAX);
        let most = recording.space.len() / 50;
        let random = recording.random_median(0.95);
        assert!(needed <= most, "{needed} evaluations of at most {most}; random needs {random}");
    }
}

/// Reads a file of `data/replay`.
fn kept(name: &str) -> Vec<Recording> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/replay")).join(name);
    read(&path).unwrap_or_else(|e| panic!("{e}"))
}

fn public(name: &str) -> Recording {
    kept(name).remove(0)
}

#[test]
fn a_tenth_of_the_recorded_cpu_space_is_enough_to_come_within_2_percent_of_its_winner() {
    let recordings = kept("cpu_epyc_2_cores.jsonl");
    assert_eq!(recordings.len(), 2, "one for each policy");
    for recording in recordings {
        assert_eq!(recording.space.len(), 200);
        let default = recording.default.unwrap_or_else(|| panic!("the run tried its default first"));
        assert!(recording.fraction(default) < 0.97, "the default leaves something to find");
        let at_the_end = |strategy: &str| {
            let runs: Vec<Vec<f64>> = (0..50)
                .map(|seed| simulate(&recording, strategy, 20, seed).unwrap_or_else(|e| panic!("{e}")))
                .collect();
            Curve::new(&runs).at(20)
        };
        let ([low, median, _], [_, random, _]) = (at_the_end(DEFAULT), at_the_end("random"));
        assert!(low >= 0.98 && median > random + 0.02, "{low} {median}, at random {random}");
    }
}

#[test]
fn the_default_reaches_95_percent_within_2_percent_of_a_public_space_and_random_search_needs_thrice_that() {
    let recording = public("convolution_milo_A4000.json.gz");
    assert_eq!(recording.space.len(), 4362);
    let most = recording.space.len() / 50;
    let runs: Vec<Vec<f64>> = (0..50)
        .map(|seed| simulate(&recording, DEFAULT, most, seed).unwrap_or_else(|e| panic!("{e}")))
        .collect();
    let needed = Curve::new(&runs).median_evaluations(1);
    assert!(needed.is_some_and(|needed| needed <= most), "{needed:?} evaluations of at most {most}");
    assert!(recording.random_median(0.95) >= 3 * most);
}

#[test]
fn published_files_pass_the_schema_check_and_agree() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/replay/convolution_milo_A4000_T4_200.json.gz");
    let mut text = String::new();
    let file = fs::File::open(path).unwrap_or_else(|e| panic!("{e}"));
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text)
        .unwrap_or_else(|e| panic!("{e}"));
    check_schema(&serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}")));
    // The same measurements in both formats.
    let (t4, whole) =
        (public("convolution_milo_A4000_T4_200.json.gz"), public("convolution_milo_A4000.json.gz"));
    assert_eq!(t4.space.len(), 200);
    assert_eq!(t4.failed_share(), 0.05);
    for point in t4.space.ids() {
        let there = whole
            .space
            .find(t4.space.values(point))
            .unwrap_or_else(|| panic!("{}", t4.space.describe(point)));
        assert_eq!(cost(&t4.outcomes[point.index()]), cost(&whole.outcomes[there.index()]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_folder, path) = file("any.json", &bytes);
        prop_assert!(read(&path).is_err());
    }
}

#[test]
fn a_run_of_this_program_is_a_recording_and_a_t4_file_that_holds_the_same() {
    let mut records = Vec::new();
    for (policy, scale) in [("dense", 3.0), ("nabla-0.7", 1.0)] {
        for block_m in [32u64, 64, 128] {
            for block_n in [64u64, 128] {
                records.push(record(policy, block_m, block_n, scale * (block_m + block_n) as f64));
            }
        }
    }
    records[7].status = nabla_reports::Status::Incorrect;
    records[7].time_us_median = None;
    records[8].status = nabla_reports::Status::Ineligible;
    records[8].time_us_median = None;
    let found = records::recordings(&records).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found.len(), 2, "one for each policy");
    let sparse =
        found.iter().find(|r| r.name.starts_with("nabla-0.7")).unwrap_or_else(|| panic!("no recording"));
    assert_eq!(sparse.space.len(), 5, "what is ineligible is no point");
    assert_eq!(sparse.failed_share(), 0.2);
    let axes: Vec<&str> = sparse.space.axes().iter().map(|axis| axis.name.as_str()).collect();
    assert_eq!(axes, ["block_m", "block_n"]);

    let run = nabla_reports::Run {
        header: header(),
        records,
        comparisons: Vec::new(),
        torn: false,
        whole_bytes: 0,
        path: PathBuf::from("records.jsonl"),
    };
    let text = serde_json::to_string(&export_t4(&run)).unwrap_or_else(|e| panic!("{e}"));
    let file: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}"));
    check_schema(&file);
    let kinds: HashSet<&str> =
        file["results"].as_array().into_iter().flatten().filter_map(|r| r["invalidity"].as_str()).collect();
    assert_eq!(kinds, HashSet::from(["correct", "correctness", "constraints"]));
    assert_eq!(
        file["results"][0]["configuration"],
        json!({ "policy": "dense", "block_m": 32, "block_n": 64 })
    );
    assert_eq!(file["results"][0]["measurements"][0]["value"], json!(0.288), "milliseconds");
    let back = one("exported.json", text.as_bytes());
    assert_eq!(back.space.len(), 12);
    assert_eq!(cost(&back.outcomes[0]).map(|ms| (ms * 1e3).round()), Some(288.0));
}

#[test]
fn the_schema_check_accepts_a_file_like_the_public_ones_and_refuses_broken_ones() {
    check_schema(&t4_file());
    for (key, bad) in [("invalidity", json!("unknown")), ("times", json!(3)), ("correctness", json!("yes"))] {
        let mut file = t4_file();
        file["results"][5][key] = bad;
        assert!(std::panic::catch_unwind(|| check_schema(&file)).is_err(), "{key}");
    }
}

/// Checks a file against the results schema 1.0.0 of T4: required keys, types, allowed words; and that it has what every
/// public file has besides.
fn check_schema(file: &Json) {
    let version = file["schema_version"].as_str().unwrap_or_default();
    let parts: Vec<&str> = version.split('.').collect();
    assert!(parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok()), "{version}");
    assert!(file["metadata"].is_object());
    let results = file["results"].as_array().expect("a list of results");
    assert!(!results.is_empty());
    let words = ["timeout", "compile", "runtime", "correctness", "constraints", "correct"];
    for result in results {
        assert!(result["timestamp"].is_string(), "{result}");
        assert!(result["configuration"].as_object().is_some_and(|c| !c.is_empty()), "{result}");
        assert!(result["times"].is_object(), "{result}");
        for stage in ["compilation", "framework", "search_algorithm", "validation"] {
            assert!(result["times"][stage].is_number(), "{result}");
        }
        let runtimes = &result["times"]["runtimes"];
        assert!(
            runtimes.is_null() || runtimes.as_array().is_some_and(|r| r.iter().all(Json::is_number)),
            "{result}"
        );
        assert!(result["invalidity"].as_str().is_some_and(|word| words.contains(&word)), "{result}");
        assert!(result["correctness"].is_number(), "{result}");
        assert!(result["objectives"].as_array().is_some_and(|o| o.iter().all(Json::is_string)), "{result}");
        for measurement in result["measurements"].as_array().expect("a list of measurements") {
            assert!(measurement["name"].is_string() && measurement["unit"].is_string(), "{result}");
            let value = &measurement["value"];
            assert!(value.is_number() || value.is_string() || value.is_array(), "{result}");
        }
    }
}

fn record(policy: &str, block_m: u64, block_n: u64, us: f64) -> nabla_reports::Record {
    let columns = json!({
        "status": "ok", "reason": "", "backend": "cpu", "device": "device", "variant": format!("m{block_m}n{block_n}"),
        "dtype": "f32", "batch": 1, "heads": 2, "seqlen": 4096, "head_dim": 64, "grid": [4, 32, 32],
        "policy": policy, "q_block": 64, "kv_block": 64, "block_m": block_m, "block_n": block_n,
        "time_us_median": us, "samples_us": [us, us], "seed": 0, "input_hash": "", "source_hash": "", "toolchain": "",
        "git_commit": "", "timestamp": "2026-01-01T00:00:00Z", "dense_samples_us": [], "mask_samples_us": []
    });
    serde_json::from_value(columns).unwrap_or_else(|e| panic!("{e}"))
}

fn header() -> nabla_reports::RunHeader {
    let header = json!({
        "schema": nabla_reports::SCHEMA_VERSION, "nabla_version": "0", "started": "", "command": [], "warnings": [],
        "protocol": { "warmup": 1, "rounds": 2, "description": "" },
        "identity": {
            "backend": "cpu", "device": "device", "isa": "", "platform": "", "toolchain": "", "source_hash": "",
            "git_commit": "", "input": "", "input_hash": "", "space_hash": "", "seed": 0
        }
    });
    serde_json::from_value(header).unwrap_or_else(|e| panic!("{e}"))
}
