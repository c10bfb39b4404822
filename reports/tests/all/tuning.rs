//! Lines that tuning writes, and files from before it.

use std::collections::BTreeMap;

use nabla_reports::{Comparison, Line, Record, Run, Stage, Tuning, Verdict, read_run};

use crate::synthetic;

fn read(lines: &[Line]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    std::fs::write(folder.path().join("records.jsonl"), text).unwrap();
    read_run(folder.path()).unwrap()
}

fn header() -> Line {
    Line::Header(Box::new(synthetic::header()))
}

fn trial(evaluation: u64, stage: Stage) -> Record {
    let tuning = Tuning {
        strategy: "bayes".into(),
        evaluation,
        stage,
        config: BTreeMap::from([("block_m".into(), 64.into()), ("order".into(), "reverse".into())]),
        rejected_samples: 2,
        contended: false,
    };
    Record { tuning: Some(tuning), ..synthetic::Sweep::default().records().remove(0) }
}

fn comparison() -> Comparison {
    Comparison {
        backend: "cpu".into(),
        device: synthetic::DEVICE.into(),
        dtype: "f32".into(),
        batch: 1,
        heads: 2,
        seqlen: 4096,
        head_dim: 64,
        grid: Some([4, 32, 32]),
        policy: "nabla-0.7".into(),
        q_block: 64,
        kv_block: 64,
        a: "default".into(),
        b: "tuned".into(),
        pairs: 30,
        ratio: 0.9,
        ratio_low: 0.88,
        ratio_high: 0.92,
        p_value: 1e-6,
        margin: 0.01,
        verdict: Verdict::Faster,
        stage: "final".into(),
    }
}

#[test]
fn a_line_from_before_tuning_is_a_trial_without_it() {
    let line = serde_json::to_string(&Line::Trial(Box::new(synthetic::Sweep::default().records().remove(0))))
        .unwrap();
    assert!(!line.contains("tuning"), "{line}");
    let Line::Trial(record) = serde_json::from_str(&line).unwrap() else { panic!("a trial") };
    assert_eq!(record.tuning, None);
}

#[test]
fn evaluations_of_one_configuration_are_all_kept_and_comparisons_stand_apart() {
    let trials = [trial(1, Stage::Search), trial(2, Stage::Search), trial(2, Stage::Runoff)];
    let mut lines = vec![header()];
    lines.extend(trials.iter().map(|r| Line::Trial(Box::new(r.clone()))));
    lines.push(Line::Comparison(Box::new(comparison())));
    let run = read(&lines);
    assert_eq!(run.records, trials);
    assert_eq!(run.comparisons, [comparison()]);
}

#[test]
fn what_tuning_writes_keeps_its_names() {
    let lines = [Line::Trial(Box::new(trial(3, Stage::Runoff))), Line::Comparison(Box::new(comparison()))];
    let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    let tuning = r#""tuning":{"strategy":"bayes","evaluation":3,"stage":"runoff","config":{"block_m":64,"order":"reverse"},"rejected_samples":2,"contended":false}"#;
    assert!(text[0].contains(tuning), "{}", text[0]);
    insta::assert_snapshot!(text[1]);
}
