//! A tuning run that never was: three strategies on the cost model of the synthetic sweep, then comparisons.

use std::collections::BTreeMap;

use nabla_reports::{Comparison, Machine, Record, Run, Stage, Status, Tuning, Verdict};

use super::synthetic::{Noise, Sweep, header};

/// Name of the GPU that never was.
pub(crate) const GPU: &str = "Example GPU 80GB";

/// Makes a tuning run on a GPU with a known roof.
pub(crate) fn run() -> Run {
    let mut run =
        Sweep { grids: vec![[16, 32, 32], [32, 32, 32]], thresholds: vec![0.5, 0.7], ..Sweep::default() }
            .run();
    let mut noise = Noise(11);
    let mut records = Vec::new();
    for seed in 1..=3 {
        for strategy in ["random", "evolution", "bayes"] {
            records.extend(search(&run.records, strategy, seed, &mut noise));
        }
    }
    run.records = records.into_iter().map(on_gpu).collect();
    run.comparisons = comparisons(&run.records);
    run.header = header();
    run.header.identity.device = GPU.into();
    run.header.identity.backend = "cuda".into();
    run.header.identity.driver = Some("580.10".into());
    run.header.identity.isa = "sm_90a".into();
    run.header.identity.threads = None;
    run.header.machine = Some(Machine {
        peak_tflops: BTreeMap::from([("bf16".to_owned(), 989.0)]),
        bandwidth_gb_per_s: Some(3350.0),
        peak_source: "data sheet".into(),
        clocks: Some("SM 1755 MHz locked, memory 2619 MHz".into()),
    });
    run.path = "nabla-runs/tuning/records.jsonl".into();
    run
}

/// Makes the evaluations of one strategy: a good one draws from ever fewer, better candidates.
fn search(all: &[Record], strategy: &str, seed: u64, noise: &mut Noise) -> Vec<Record> {
    let mut records = Vec::new();
    let problem = |r: &Record| (r.seqlen, r.policy.clone());
    for group in all.chunk_by(|a, b| problem(a) == problem(b)) {
        let mut order: Vec<&Record> = group.iter().collect();
        order.sort_by(|a, b| a.total_us_median.unwrap_or(1e12).total_cmp(&b.total_us_median.unwrap_or(1e12)));
        for evaluation in 1..=40u64 {
            let focus = match strategy {
                "random" => 1.0,
                "evolution" => 1.0 / (1.0 + evaluation as f64 / 12.0),
                _ => 1.0 / (1.0 + evaluation as f64 / 5.0),
            };
            let pick = (noise.next().abs() * focus * (order.len() - 1) as f64) as usize;
            let mut record = order[pick].clone();
            let stages = 2 + (noise.next().abs() * 3.0) as u64;
            let factor = 1.0 + 0.03 * (stages as f64 - 3.0).abs();
            for time in [
                &mut record.time_us_median,
                &mut record.time_us_ci_low,
                &mut record.time_us_ci_high,
                &mut record.total_us_median,
            ] {
                *time = time.map(|us| us * factor);
            }
            record.seed = seed;
            let contended = evaluation == 17 && seed == 2;
            let config = BTreeMap::from([
                ("block_m".to_owned(), record.block_m.into()),
                ("block_n".to_owned(), record.block_n.into()),
                ("mask_block".to_owned(), record.q_block.into()),
                (
                    "order".to_owned(),
                    if pick.is_multiple_of(2) { "longest first" } else { "as listed" }.into(),
                ),
                ("stages".to_owned(), stages.into()),
            ]);
            let rejected_samples = u64::from(contended) * 3;
            if record.status == Status::LaunchError {
                record.status = Status::CompileError;
                record.reason = "ptxas: 300 registers".into();
            }
            record.tuning = Some(Tuning {
                strategy: strategy.into(),
                evaluation,
                stage: Stage::Search,
                config,
                rejected_samples,
                contended,
            });
            records.push(record);
        }
    }
    records
}

/// Turns a trial of the CPU into one a GPU might have had: a thousand times as fast.
fn on_gpu(mut record: Record) -> Record {
    record.device = GPU.into();
    record.backend = "cuda".into();
    record.dtype = "bf16".into();
    record.variant = record.variant.replace("cpu_avx512", "sm90").replace("f32_t2", "bf16");
    record.threads = None;
    for time in [
        &mut record.time_us_median,
        &mut record.time_us_ci_low,
        &mut record.time_us_ci_high,
        &mut record.total_us_median,
        &mut record.mask_us_median,
        &mut record.dense_us_median,
        &mut record.reorder_us_median,
    ] {
        *time = time.map(|us| us / 1000.0);
    }
    for rate in [&mut record.tflops_executed, &mut record.tflops_dense_equivalent] {
        *rate = rate.map(|rate| rate * 1000.0);
    }
    record
}

fn comparisons(records: &[Record]) -> Vec<Comparison> {
    let template = &records[0];
    let compare =
        |(seqlen, policy, b, ratio, half, verdict): (u64, &str, &str, f64, f64, Verdict)| Comparison {
            backend: template.backend.clone(),
            device: template.device.clone(),
            dtype: template.dtype.clone(),
            batch: 1,
            heads: 2,
            seqlen,
            head_dim: 64,
            grid: Some([seqlen / 1024, 32, 32]),
            policy: policy.into(),
            q_block: 64,
            kv_block: 64,
            a: "bsfwd_sm90_m64_n64_d64_bf16_s2_w4_c4".into(),
            b: b.into(),
            pairs: 30,
            ratio,
            ratio_low: ratio - half,
            ratio_high: ratio + half,
            p_value: if verdict == Verdict::Ambiguous { 0.2 } else { 1e-6 },
            margin: 0.01,
            verdict,
            stage: "final".into(),
        };
    [
        (16_384, "nabla-0.5", "bsfwd_sm90_m128_n64_d64_bf16_s3_w3", 0.871, 0.012, Verdict::Faster),
        (16_384, "nabla-0.7", "bsfwd_sm90_m128_n64_d64_bf16_s3_w3", 0.902, 0.006, Verdict::Faster),
        (32_768, "nabla-0.5", "bsfwd_sm90_m128_n128_d64_bf16_s2_w3", 1.001, 0.004, Verdict::Same),
        (32_768, "nabla-0.7", "bsfwd_sm90_m128_n128_d64_bf16_s2_w3", 0.985, 0.022, Verdict::Ambiguous),
        (32_768, "dense", "bsfwd_sm90_m128_n128_d64_bf16_s2_w3", 1.064, 0.009, Verdict::Slower),
    ]
    .map(compare)
    .to_vec()
}
