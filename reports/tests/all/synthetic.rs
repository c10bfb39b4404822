//! Records of a sweep that never was: plausible costs, seeded noise, failures of every kind.

use nabla_reports::{Identity, Protocol, Record, Run, RunHeader, SCHEMA_VERSION, Status};

/// What a synthetic sweep covers.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    pub(crate) grids: Vec<[u64; 3]>,
    pub(crate) thresholds: Vec<f64>,
    pub(crate) mask_blocks: Vec<u64>,
    pub(crate) tiles: Vec<(u64, u64)>,
}

impl Default for Sweep {
    fn default() -> Self {
        let sides = [32, 64, 128];
        Self {
            grids: vec![[4, 32, 32], [8, 32, 32], [16, 32, 32]],
            thresholds: vec![0.4, 0.5, 0.6, 0.7, 0.9],
            mask_blocks: vec![32, 64, 128],
            tiles: sides.iter().flat_map(|m| sides.iter().map(move |n| (*m, *n))).collect(),
        }
    }
}

/// A small generator (SplitMix64): the same records on every machine.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// Returns a number in [-1, 1).
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

impl Sweep {
    /// Makes the run.
    pub(crate) fn run(&self) -> Run {
        Run {
            header: header(),
            records: self.records(),
            comparisons: Vec::new(),
            torn: false,
            whole_bytes: 0,
            path: "nabla-runs/example/records.jsonl".into(),
        }
    }

    /// Makes the records, in the order a sweep would write them.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut noise = Noise(7);
        let mut records = Vec::new();
        for &grid in &self.grids {
            for &threshold in &self.thresholds {
                for &block in &self.mask_blocks {
                    for &tile in &self.tiles {
                        records.push(trial(grid, threshold, block, tile, &mut noise));
                    }
                }
            }
        }
        records
    }
}

/// Makes one trial by a cost model: work per kept pair, overhead per tile, worse with tiles that fit caches badly.
fn trial(grid: [u64; 3], threshold: f64, block: u64, (m, n): (u64, u64), noise: &mut Noise) -> Record {
    let (seqlen, heads, head_dim) = (grid.iter().product::<u64>(), 2, 64);
    let flops = |pairs: f64| 4.0 * heads as f64 * head_dim as f64 * pairs;
    let pairs = (seqlen * seqlen) as f64;
    let dense_us = flops(pairs) / 0.35e6 * (1.0 + 0.004 * noise.next());
    // Coarser blocks keep more for the same threshold; long sequences are sparser.
    let density =
        (threshold.powf(1.6) * (block as f64 / 64.0).powf(0.18) * (4096.0 / seqlen as f64).powf(0.12))
            .min(0.97);
    let tiles = density * pairs / (m * n) as f64 * heads as f64;
    let misfit = 1.0 + 0.09 * (m as f64 / 64.0).log2().abs() + 0.06 * (n as f64 / 64.0).log2().abs();
    let time = (flops(density * pairs) / 0.37e6 * misfit + tiles * 0.11) * (1.0 + 0.012 * noise.next());
    let mask =
        22.0 + (seqlen / block).pow(2) as f64 * heads as f64 * 0.004 + seqlen as f64 * heads as f64 * 0.012;
    let scatter = time * 0.006 * (1.0 + noise.next().abs());
    let error =
        0.42 * (1.0 - threshold).powf(1.3) * (block as f64 / 64.0).powf(0.35) * (1.0 + 0.03 * noise.next());
    let status = if block < m && block == 32 && m == 128 {
        Status::Ineligible
    } else if (m, n, block) == (128, 32, 64) {
        Status::Incorrect
    } else if (m, n, block, seqlen) == (32, 128, 128, 8192) {
        Status::LaunchError
    } else {
        Status::Ok
    };
    let reason = match status {
        Status::Ok => String::new(),
        Status::Incorrect => "relative RMSE 3.1e-3 exceeds the budget 4.0e-7".to_owned(),
        Status::Ineligible => format!("BLOCK_M {m} is no divisor of q_block {block}"),
        _ => "worker ended with signal 9".to_owned(),
    };
    let timed = |value: f64| (status == Status::Ok).then_some(value);
    let checked = |value: f64| (!matches!(status, Status::Ineligible | Status::LaunchError)).then_some(value);
    let total = time + mask;
    Record {
        status,
        reason,
        backend: "cpu".into(),
        device: DEVICE.into(),
        variant: format!("bsfwd_cpu_avx512_m{m}_n{n}_d{head_dim}_f32_t2"),
        dtype: "f32".into(),
        batch: 1,
        heads,
        seqlen,
        head_dim,
        grid: Some(grid),
        policy: format!("nabla-{threshold}"),
        threshold: Some(threshold),
        q_block: block,
        kv_block: block,
        block_m: m,
        block_n: n,
        density: (status != Status::Ineligible).then_some(density),
        time_us_median: timed(time),
        time_us_ci_low: timed(time - scatter),
        time_us_ci_high: timed(time + scatter * 1.3),
        samples_us: if status == Status::Ok { vec![time - scatter, time, time + scatter] } else { vec![] },
        mask_us_median: timed(mask),
        total_us_median: timed(total),
        dense_us_median: timed(dense_us),
        speedup_vs_dense: timed(dense_us / time),
        speedup_total_vs_dense: timed(dense_us / total),
        tflops_executed: timed(flops(density * pairs) / time / 1e6),
        tflops_dense_equivalent: timed(flops(pairs) / time / 1e6),
        kernel_rel_rmse: checked(if status == Status::Incorrect {
            3.1e-3
        } else {
            1.1e-7 * (1.0 + 0.2 * noise.next())
        }),
        kernel_max_abs: checked(4.0e-7),
        sparsity_rel_l1: checked(error * 0.8),
        sparsity_rel_rmse: checked(error),
        sparsity_cosine: checked(1.0 - error * error / 2.0),
        seed: 1,
        input_hash: "5f0c9a".into(),
        source_hash: "77ab01".into(),
        toolchain: "rustc 1.95.0".into(),
        git_commit: "0123456".into(),
        timestamp: "2026-01-02T03:04:05Z".into(),
        threads: Some(2),
        reorder_us_median: timed(90.0),
        kernel_rel_rmse_budget: checked(4.0e-7),
        lse_max_abs: checked(2.0e-6),
        error_rows: checked(0.0).map(|_| 1024),
        dense_samples_us: timed(dense_us).into_iter().collect(),
        mask_samples_us: timed(mask).into_iter().collect(),
        tuning: None,
    }
}

/// Name of the device that never was.
pub(crate) const DEVICE: &str = "Example CPU @ 3.0 GHz";

/// Makes the header.
pub(crate) fn header() -> RunHeader {
    RunHeader {
        schema: SCHEMA_VERSION,
        nabla_version: "0.1.0".into(),
        identity: Identity {
            backend: "cpu".into(),
            device: DEVICE.into(),
            driver: None,
            isa: "avx512".into(),
            threads: Some(2),
            platform: "linux x86_64".into(),
            toolchain: "rustc 1.95.0".into(),
            source_hash: "77ab01".into(),
            git_commit: "0123456".into(),
            input: "synthetic records: 2 heads, head size 64, 4,096 to 16,384 tokens".into(),
            input_hash: "5f0c9a".into(),
            space_hash: "c0ffee".into(),
            policy_files: Vec::new(),
            seed: 1,
        },
        started: "2026-01-02T03:00:00Z".into(),
        command: vec!["nabla".into(), "sweep".into()],
        protocol: Protocol {
            warmup: 1,
            rounds: 7,
            description: "Each round times every setting once in a fresh random order; an interval is the \
                          distribution-free 95 % interval of the median."
                .into(),
        },
        warnings: vec!["These numbers come from a cost model, not from a machine.".into()],
        machine: None,
    }
}
