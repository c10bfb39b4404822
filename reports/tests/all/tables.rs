//! What goes to the CSV file and to the best-settings table.

use nabla_reports::{BestSetting, Record, TimeBasis, best_settings, write_csv};

use crate::synthetic;

fn csv(records: &[Record]) -> String {
    let mut out = Vec::new();
    write_csv(records, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The columns other programs rely on.
const CONTRACT: &str = "status,reason,backend,device,variant,dtype,batch,heads,seqlen,head_dim,grid,policy,threshold,\
    q_block,kv_block,block_m,block_n,density,time_us_median,time_us_ci_low,time_us_ci_high,samples,mask_us_median,\
    total_us_median,dense_us_median,speedup_vs_dense,speedup_total_vs_dense,tflops_executed,tflops_dense_equivalent,\
    kernel_rel_rmse,kernel_max_abs,sparsity_rel_l1,sparsity_rel_rmse,sparsity_cosine,seed,input_hash,source_hash,\
    toolchain,git_commit,timestamp";

#[test]
fn csv_starts_with_the_forty_agreed_columns() {
    let header = csv(&[]);
    assert_eq!(CONTRACT.split(',').count(), 40);
    assert!(header.starts_with(&format!("{CONTRACT},")), "{header}");
    insta::assert_snapshot!(header);
}

#[test]
fn csv_rows_are_cells_under_their_names_and_survive_hostile_text() {
    let mut records = synthetic::Sweep::default().records();
    records.truncate(9);
    records[0].reason = "a \"quoted\", reason\nover two lines".into();
    let text = csv(&records);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), records.len());
    let cell = |row: usize, name: &str| rows[row][names.iter().position(|n| n == name).unwrap()].to_owned();
    assert_eq!(cell(0, "reason"), records[0].reason);
    assert_eq!(cell(0, "grid"), "4x32x32");
    assert_eq!(cell(0, "samples"), "3");
    assert_eq!(cell(0, "time_us_median").parse().ok(), records[0].time_us_median);
    // Ineligible trials were not measured.
    assert_eq!(records[6].status, nabla_reports::Status::Ineligible);
    assert_eq!((cell(6, "time_us_median"), cell(6, "density")), (String::new(), String::new()));
}

fn line(setting: &BestSetting<'_>) -> String {
    let record = setting.record;
    format!(
        "S {:>5} {}: mask {:>3} tile {:>3}x{:<3} {:>8.0} us [{:.0}, {:.0}] by {}, {:.2} times dense, tied with {} of {}\n",
        setting.problem.seqlen,
        record.policy,
        record.q_block,
        record.block_m,
        record.block_n,
        setting.time.median_us,
        setting.time.low_us,
        setting.time.high_us,
        setting.basis.name(),
        setting.speedup().unwrap(),
        setting.ties,
        setting.candidates - 1,
    )
}

#[test]
fn best_settings_of_the_synthetic_sweep() {
    let records = synthetic::Sweep::default().records();
    insta::assert_snapshot!(best_settings(&records).iter().map(line).collect::<String>());
}

/// Returns trials of one problem and policy that differ in their times: attention, half an interval, mask.
fn trials(times: &[(f64, f64, f64)]) -> Vec<Record> {
    let template = synthetic::Sweep::default().records().remove(0);
    let trial = |(n, &(time, half, mask)): (usize, &(f64, f64, f64))| Record {
        block_n: 16 * (n as u64 + 1),
        time_us_median: Some(time),
        time_us_ci_low: Some(time - half),
        time_us_ci_high: Some(time + half),
        mask_us_median: Some(mask),
        total_us_median: Some(time + mask),
        ..template.clone()
    };
    times.iter().enumerate().map(trial).collect()
}

#[test]
fn the_winner_has_the_least_time_a_user_waits() {
    let records = trials(&[(100.0, 1.0, 50.0), (110.0, 1.0, 10.0)]);
    let [best] = &best_settings(&records)[..] else { panic!("one group") };
    assert_eq!((best.basis, best.time.median_us, best.record.block_n), (TimeBasis::Total, 120.0, 32));
}

#[test]
fn without_a_mask_time_a_group_is_compared_by_attention() {
    let mut records = trials(&[(100.0, 1.0, 50.0), (110.0, 1.0, 10.0)]);
    records[0].mask_us_median = None;
    records[0].total_us_median = None;
    let [best] = &best_settings(&records)[..] else { panic!("one group") };
    assert_eq!((best.basis, best.time.median_us, best.record.block_n), (TimeBasis::Attention, 100.0, 16));
}

#[test]
fn ties_are_those_whose_interval_overlaps_the_winners() {
    // [95, 105] is met by [104, 108] and by the wide [90, 150], not by [105.5, 106.5].
    let records = trials(&[(100.0, 5.0, 1.0), (106.0, 2.0, 1.0), (120.0, 30.0, 1.0), (106.0, 0.5, 1.0)]);
    let [best] = &best_settings(&records)[..] else { panic!("one group") };
    assert_eq!((best.ties, best.candidates), (2, 4));
}

#[test]
fn equal_times_go_to_the_lower_error() {
    let mut records = trials(&[(100.0, 1.0, 1.0), (100.0, 1.0, 1.0)]);
    records[0].sparsity_rel_rmse = Some(0.2);
    records[1].sparsity_rel_rmse = Some(0.1);
    assert_eq!(best_settings(&records)[0].record.block_n, 32);
}

#[test]
fn failed_and_dense_trials_never_win() {
    let mut records = trials(&[(100.0, 1.0, 1.0), (10.0, 1.0, 1.0), (20.0, 1.0, 1.0)]);
    records[1].status = nabla_reports::Status::Incorrect;
    records[2].policy = "dense".into();
    let best = best_settings(&records);
    assert_eq!((best.len(), best[0].record.block_n, best[0].candidates), (1, 16, 1));
}

#[test]
fn settings_are_sorted_by_length_then_threshold_and_problems_kept_apart() {
    let mut records = synthetic::Sweep::default().records();
    records.reverse();
    let mut other = records.clone();
    for record in &mut other {
        record.dtype = "bf16".into();
    }
    records.extend(other);
    let best = best_settings(&records);
    assert_eq!(best.len(), 2 * 3 * 5);
    let keys: Vec<_> = best.iter().map(|b| (b.problem.seqlen, b.record.threshold.unwrap())).collect();
    assert!(keys.is_sorted());
}
