//! Reading runs back: what a killed writer leaves is taken, anything else broken is one clear error.

use std::fs;
use std::path::Path;

use nabla_reports::{Line, Record, Run, read_run};

use crate::synthetic;

/// Returns the lines of a small run, each with its newline.
fn lines() -> Vec<String> {
    let header = Line::Header(Box::new(synthetic::header()));
    let trials = records().into_iter().map(|record| Line::Trial(Box::new(record)));
    std::iter::once(header).chain(trials).map(|line| serde_json::to_string(&line).unwrap() + "\n").collect()
}

fn records() -> Vec<Record> {
    let sweep =
        synthetic::Sweep { grids: vec![[4, 32, 32]], thresholds: vec![0.7], ..synthetic::Sweep::default() };
    sweep.records()
}

/// Reads a run folder that holds these bytes. Paths in messages are cut to the file's name.
fn read(bytes: impl AsRef<[u8]>) -> Result<Run, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("records.jsonl"), bytes).unwrap();
    read_run(folder.path())
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn a_run_comes_back_as_written_from_its_folder_or_its_file() {
    let text = lines().concat();
    let run = read(&text).unwrap();
    assert_eq!(run.header, synthetic::header());
    assert_eq!(run.records, records());
    assert!(!run.torn);
    assert_eq!(run.whole_bytes, text.len() as u64);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("elsewhere.jsonl");
    fs::write(&file, &text).unwrap();
    let by_file = read_run(&file).unwrap();
    assert_eq!((by_file.records, by_file.path), (run.records, file));
}

#[test]
fn a_file_cut_at_any_byte_of_its_last_line_keeps_the_others() {
    let lines = lines();
    let whole: String = lines[..lines.len() - 1].concat();
    let last = &lines[lines.len() - 1];
    for cut in (1..last.len()).step_by(7).chain([last.len() - 1]) {
        let run = read(whole.clone() + &last[..cut]).unwrap();
        assert!(run.torn, "cut at {cut}");
        assert_eq!(run.records.len(), lines.len() - 2, "cut at {cut}");
        assert_eq!(run.whole_bytes, whole.len() as u64, "cut at {cut}");
    }
}

#[test]
fn a_last_line_that_is_not_json_counts_as_torn() {
    for junk in ["{\"line\":\"tri\n", "\0\0\0\0\n", "\n", "\u{fffd}"] {
        let run = read(lines().concat() + junk).unwrap();
        assert!(run.torn, "{junk:?}");
        assert_eq!(run.records.len(), records().len());
    }
}

#[test]
fn of_two_trials_with_one_key_the_later_counts() {
    let mut again = records()[1].clone();
    again.time_us_median = Some(1.0);
    let line = serde_json::to_string(&Line::Trial(Box::new(again.clone()))).unwrap();
    let run = read(lines().concat() + &line + "\n").unwrap();
    assert_eq!(run.records.len(), records().len());
    assert_eq!(run.records[1], again);
}

#[test]
fn trials_of_other_problems_have_other_keys() {
    let record = records().remove(0);
    let change: [fn(&mut Record); 5] = [
        |r| r.heads += 1,
        |r| r.batch += 1,
        |r| r.head_dim += 1,
        |r| r.seqlen += 1,
        |r| r.dtype = "bf16".into(),
    ];
    for change in change {
        let mut other = record.clone();
        change(&mut other);
        assert_ne!(other.key(), record.key());
    }
}

#[test]
fn a_header_alone_is_a_run_without_trials() {
    let run = read(&lines()[0]).unwrap();
    assert!(run.records.is_empty() && !run.torn);
}

#[test]
fn each_broken_file_has_one_clear_error() {
    let good = lines();
    let mut broken = good.clone();
    broken[2] = "{\"line\":\"trial\",\"sta\n".into();
    let mut missing_field = good.clone();
    missing_field[3] = missing_field[3].replace("\"q_block\":", "\"qblock\":");
    let mut last_missing_field = good.clone();
    let last = last_missing_field.last_mut().unwrap();
    *last = last.replace("\"q_block\":", "\"qblock\":");
    let mut unknown_status = good.clone();
    unknown_status[1] = unknown_status[1].replace("\"status\":\"ok\"", "\"status\":\"fine\"");
    let two_runs = good.concat() + &good.concat();
    let future = good[0].replace("\"schema\":1", "\"schema\":7").replace("\"protocol\"", "\"procedure\"");
    let no_device = good[0].replace("\"device\":", "\"dev\":");

    let cases: [(&str, Vec<u8>); 12] = [
        ("empty", vec![]),
        ("header torn", good[0].as_bytes()[..60].to_vec()),
        ("header without newline", good[0].trim_end().into()),
        ("csv", b"status,reason,backend\nok,,cpu\n".to_vec()),
        ("binary", vec![0x89, b'P', b'N', b'G', 0, 1, 2, 0xff]),
        ("trial first", good[1].clone().into()),
        ("future schema", future.into()),
        ("header without device", no_device.into()),
        ("broken line", broken.concat().into()),
        ("missing field", missing_field.concat().into()),
        ("missing field in the last line", last_missing_field.concat().into()),
        ("two runs", two_runs.into()),
    ];
    let mut messages = String::new();
    for (name, bytes) in cases {
        messages.push_str(&format!("{name}: {}\n", read(bytes).unwrap_err()));
    }
    messages.push_str(&format!("unknown status: {}\n", read(unknown_status.concat()).unwrap_err()));
    messages.push_str(&format!("missing: {}\n", read_run(Path::new("nowhere/run")).unwrap_err()));
    let folder = tempfile::tempdir().unwrap();
    let missing = read_run(folder.path()).unwrap_err().to_string();
    messages.push_str(&missing.replace(&folder.path().display().to_string(), "folder without records: run"));
    insta::assert_snapshot!(messages);
}
