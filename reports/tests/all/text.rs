//! Reports in text: a summary for a pull request, one line, two runs compared.

use nabla_reports::{Collection, Run, Verdict, compare_runs, markdown, one_line, read_masks};

use crate::{synthetic, synthetic_tuning};

fn small() -> Run {
    synthetic::Sweep { grids: vec![[4, 32, 32]], thresholds: vec![0.5, 0.7], ..synthetic::Sweep::default() }
        .run()
}

/// Makes the run of later, every time multiplied.
fn scaled(factor: f64) -> Run {
    let mut run = small();
    run.path = "nabla-runs/later/records.jsonl".into();
    run.header.identity.git_commit = "89abcde".into();
    for record in &mut run.records {
        for time in [
            &mut record.time_us_median,
            &mut record.time_us_ci_low,
            &mut record.time_us_ci_high,
            &mut record.total_us_median,
            &mut record.mask_us_median,
        ] {
            *time = time.map(|us| us * factor);
        }
    }
    run
}

#[test]
fn summaries_of_runs() {
    let one = Collection::new(vec![small()]);
    let two = Collection::new(vec![small(), synthetic_tuning::run()]);
    insta::assert_snapshot!(format!("{}\n{}\n\n{}", one_line(&one), one_line(&two), markdown(&two)));
}

#[test]
fn a_comparison_of_two_runs() {
    let comparison = compare_runs(&small(), &scaled(0.9));
    insta::assert_snapshot!(format!("{}\n\n{}", comparison.one_line(), comparison.markdown()));
}

#[test]
fn verdicts_follow_from_what_both_intervals_allow() {
    let verdicts = |factor| {
        let comparison = compare_runs(&small(), &scaled(factor));
        assert_eq!(comparison.unmatched, [0, 0]);
        let mut all: Vec<_> = comparison.trials.iter().map(|t| t.verdict).collect();
        all.dedup();
        all
    };
    assert_eq!(verdicts(0.8), [Verdict::Faster]);
    assert_eq!(verdicts(1.25), [Verdict::Slower]);
    // Intervals of over a per cent decide nothing at 1.
    assert_eq!(verdicts(1.0), [Verdict::Ambiguous]);
    let mut sharp = [small(), small()];
    for record in sharp.iter_mut().flat_map(|run| &mut run.records) {
        record.time_us_ci_low = record.time_us_median;
        record.time_us_ci_high = record.time_us_median;
    }
    let same = compare_runs(&sharp[0], &sharp[1]);
    assert!(same.trials.iter().all(|t| t.verdict == Verdict::Same && t.ratio == [1.0; 3]));
    assert_eq!(same.mean_ratio(), Some(1.0));
}

#[test]
fn runs_of_two_devices_are_compared_under_a_warning() {
    let comparison = compare_runs(&small(), &synthetic_tuning::run());
    assert!(comparison.warnings[0].starts_with("The runs were made on different devices"));
    assert!(comparison.best.is_empty(), "f32 and bf16 share no problem");
    assert_eq!(comparison.one_line(), "nabla: the runs share no timed problem and policy");
}

#[test]
fn hostile_text_stays_in_its_cell() {
    let mut run = small();
    run.header.warnings = vec!["<img src=x>|\n# heading".into()];
    for record in &mut run.records {
        record.policy = format!("a|b<c>\n{}", record.policy);
    }
    let text = markdown(&Collection::new(vec![run]));
    assert!(text.contains("a\\|b&lt;c> nabla-0.5") && !text.contains("<img"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("# ")), "{text}");
}

#[test]
fn a_file_that_holds_no_masks_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let message = read_masks(&path).unwrap_err().to_string();
        assert!(message.contains("expected a mask file of `nabla mask --out`"), "{message}");
        message.split("got ").nth(1).unwrap_or_default().to_owned()
    };
    let tensor = |name: &str, dtype: &str, shape: &str, bytes: usize| {
        let header =
            format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(vec![1; bytes]);
        file
    };
    assert!(error(b"not at all").starts_with("something else"));
    assert_eq!(error(&tensor("q", "U8", "[1,1,2,2]", 4)), "a file without a tensor `mask`");
    assert_eq!(error(&tensor("mask", "U8", "[2,2]", 4)), "a `mask` of shape [2, 2]");
    assert_eq!(error(&tensor("mask", "I8", "[1,1,2,2]", 4)), "a `mask` of type I8");
    assert_eq!(error(&tensor("mask", "U8", "[1,1,2,0]", 0)), "a `mask` without any block");
    std::fs::write(&path, tensor("mask", "U8", "[1,2,2,3]", 12)).unwrap();
    let masks = read_masks(&path).unwrap();
    let facts: Vec<_> =
        masks.iter().map(|m| (m.title.as_str(), m.q_blocks, m.kv_blocks, m.density)).collect();
    assert_eq!(facts, [("head 0", 2, 3, 1.0), ("head 1", 2, 3, 1.0)]);
}
