//! A failing configuration is a row with its reason, never the end of the sweep.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nabla_host::{
    BlockMask, Policy, Problem,
    backend::{
        AttentionOutput, Backend, BackendError, CpuBackend, CpuOptions, DeviceIdentity, Orders, Pattern,
        Workspace,
    },
    generate::{GenerateSpec, generate_video},
    parameters::{ParameterSpace, Parameters},
    reference::RowSample,
    tensor::Qkv,
    variant::{Eligibility, MaskBlock, TileConfig, Variant},
};
use nabla_reports::{Identity, Record, Status};

use super::{Config, Context, Ends, Length, Progress, Ran, Space};

const FAILS_TO_LAUNCH: TileConfig = TileConfig { block_m: 32, block_n: 64 };
const COMPUTES_WRONGLY: TileConfig = TileConfig { block_m: 64, block_n: 64 };
const LEAVES_A_ROW: TileConfig = TileConfig { block_m: 64, block_n: 32 };
const SOUND: TileConfig = TileConfig { block_m: 32, block_n: 32 };
const GIVES_OUT_WHILE_TIMED: TileConfig = TileConfig { block_m: 32, block_n: 128 };
const LOSES_THE_DEVICE: TileConfig = TileConfig { block_m: 64, block_n: 128 };
const LOSES_IT_WHILE_TIMED: TileConfig = TileConfig { block_m: 64, block_n: 256 };
const CANNOT_RUN: TileConfig = TileConfig { block_m: 128, block_n: 64 };

/// Its mask cannot be built.
/// Mass of the policy whose mask cannot be built.
const NO_MASK: f64 = 0.25;

/// The CPU backend with faults planted in some tiles.
struct Faulty(CpuBackend);

struct FaultyWorkspace<'a> {
    inner: Box<dyn Workspace + 'a>,
    launched: Option<TileConfig>,
    launches_left: usize,
    lost: bool,
}

impl Backend for Faulty {
    fn device(&self) -> &DeviceIdentity {
        self.0.device()
    }
    fn tiles(&self, problem: &Problem) -> Vec<TileConfig> {
        self.0.tiles(problem)
    }
    fn default_tile(&self, problem: &Problem, block: Option<MaskBlock>) -> TileConfig {
        self.0.default_tile(problem, block)
    }
    fn variant(&self, problem: &Problem, block: Option<MaskBlock>, tile: TileConfig) -> Eligibility {
        self.0.variant(problem, block, tile)
    }
    fn space(&self, problem: &Problem, block: Option<MaskBlock>) -> ParameterSpace {
        self.0.space(problem, block)
    }
    fn default_parameters(&self, problem: &Problem, block: Option<MaskBlock>) -> Parameters {
        self.0.default_parameters(problem, block)
    }
    fn configured(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        parameters: &Parameters,
    ) -> Eligibility {
        self.0.configured(problem, block, parameters)
    }
    fn load(&self, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Box<dyn Workspace + '_>, BackendError> {
        Ok(Box::new(FaultyWorkspace {
            inner: self.0.load(qkv, orders)?,
            launched: None,
            launches_left: 2,
            lost: false,
        }))
    }
}

impl Workspace for FaultyWorkspace<'_> {
    fn orders(&self) -> &Arc<Orders> {
        self.inner.orders()
    }
    fn time_reorder(&mut self) -> Result<f64, BackendError> {
        self.inner.time_reorder()
    }
    fn build_mask(&mut self, policy: &Policy) -> Result<(Arc<BlockMask>, f64), BackendError> {
        if policy.mass() == Some(NO_MASK) {
            return Err(BackendError::Launch { what: "mask building".into(), reason: "planted".into() });
        }
        self.inner.build_mask(policy)
    }
    fn attention(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, BackendError> {
        self.lost |= variant.tile == LOSES_THE_DEVICE
            || variant.tile == LOSES_IT_WHILE_TIMED && self.launches_left == 0;
        if variant.tile == LOSES_IT_WHILE_TIMED {
            self.launches_left = self.launches_left.saturating_sub(1);
        }
        if self.lost {
            return Err(BackendError::Lost { what: variant.id.to_string(), reason: "planted loss".into() });
        }
        let gives_out = variant.tile == GIVES_OUT_WHILE_TIMED && self.launches_left == 0;
        if variant.tile == GIVES_OUT_WHILE_TIMED {
            self.launches_left = self.launches_left.saturating_sub(1);
        }
        if variant.tile == FAILS_TO_LAUNCH || gives_out {
            return Err(BackendError::Launch { what: variant.id.to_string(), reason: "planted".into() });
        }
        self.launched = Some(variant.tile);
        self.inner.attention(variant, pattern)
    }
    fn poison(&mut self) -> Result<(), BackendError> {
        self.inner.poison()
    }
    fn output(&mut self) -> Result<AttentionOutput, BackendError> {
        let mut output = self.inner.output()?;
        match self.launched {
            Some(COMPUTES_WRONGLY) => output.out[1000] += 1.0,
            Some(LEAVES_A_ROW) => output.out[640..656].fill(f32::NAN),
            _ => {}
        }
        Ok(output)
    }
}

fn identity() -> Identity {
    Identity {
        backend: "cpu".into(),
        device: "test".into(),
        driver: None,
        isa: "any".into(),
        threads: Some(2),
        platform: "test".into(),
        toolchain: "test".into(),
        source_hash: "0".into(),
        git_commit: "0".into(),
        input: "generated".into(),
        input_hash: "0".into(),
        space_hash: "0".into(),
        policy_files: Vec::new(),
        seed: 0,
    }
}

fn sweep(policy: Policy) -> Vec<Record> {
    let tiles =
        vec![FAILS_TO_LAUNCH, COMPUTES_WRONGLY, LEAVES_A_ROW, SOUND, CANNOT_RUN, GIVES_OUT_WHILE_TIMED];
    let ran = sweep_over(policy, tiles);
    assert_eq!(ran.lost, None);
    ran.records
}

fn sweep_over(policy: Policy, tiles: Vec<TileConfig>) -> Ran {
    sweep_until(None, policy, tiles)
}

fn sweep_until(ends: Option<Ends>, policy: Policy, tiles: Vec<TileConfig>) -> Ran {
    let backend = Faulty(CpuBackend::new(CpuOptions { threads: Some(2), isa: None, pin: false }).unwrap());
    let block = MaskBlock::square(64);
    let space = Space { lengths: vec![None], policies: vec![policy.clone()], blocks: vec![block], tiles };
    let identity = identity();
    let context = Context { backend: &backend, identity: &identity, space: &space, rounds: 7 };
    let qkv = Arc::new(generate_video(&"video:1,16,32,2,32".parse::<GenerateSpec>().unwrap(), 0));
    let sample = Arc::new(RowSample::all(512));
    let mut length = Length::new(context, qkv, sample).unwrap();
    let configs: Vec<Config> = space.configs(&policy);
    length.run(&policy, &configs, ends, &Progress::new(1.0))
}

#[test]
fn a_group_without_time_measures_one_configuration_in_three_rounds() {
    let tiles = vec![FAILS_TO_LAUNCH, SOUND, COMPUTES_WRONGLY];
    let (now, far) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
    let until = |group, sweep| sweep_until(Some(Ends { group, sweep }), Policy::nabla(0.5), tiles.clone());
    let ran = until(now, far);
    let statuses: Vec<Status> = ran.records.iter().map(|r| r.status).collect();
    // What fails takes no place of what works; what comes after has no record, so that a continued run tries it.
    assert_eq!(statuses, [Status::LaunchError, Status::Ok]);
    assert_eq!(ran.records[1].samples_us.len(), 3);
    // One where the sweep itself has to end.
    assert_eq!(until(now, now).records[1].samples_us.len(), 1);
    // With time enough all are tried, in all rounds.
    let ran = until(far, far);
    assert_eq!((ran.records.len(), ran.records[1].samples_us.len()), (3, 7));
}

#[test]
fn every_kind_of_failure_is_a_row_with_its_reason() {
    let records = sweep(Policy::nabla(0.5));
    let of = |tile: TileConfig| {
        let found =
            records.iter().find(|r| (r.block_m, r.block_n) == (tile.block_m as u64, tile.block_n as u64));
        found.unwrap_or_else(|| panic!("no row for {tile}"))
    };
    assert_eq!(records.len(), 6);
    for (tile, status, words) in [
        (FAILS_TO_LAUNCH, Status::LaunchError, "planted"),
        (COMPUTES_WRONGLY, Status::Incorrect, "exceeds its budget"),
        (LEAVES_A_ROW, Status::Incorrect, "never written"),
        (CANNOT_RUN, Status::Ineligible, "128"),
        (GIVES_OUT_WHILE_TIMED, Status::LaunchError, "planted"),
    ] {
        let row = of(tile);
        assert_eq!(row.status, status, "{tile}");
        assert!(row.reason.contains(words), "{tile}: {}", row.reason);
        // What is wrong has no time; the samples taken before it gave out are kept.
        assert_eq!(row.samples_us.len(), if tile == GIVES_OUT_WHILE_TIMED { 1 } else { 0 }, "{tile}");
        assert!(row.time_us_median.is_none() && row.speedup_vs_dense.is_none(), "{tile}");
    }
    let sound = of(SOUND);
    assert_eq!((sound.status, sound.reason.as_str()), (Status::Ok, ""));
    assert_eq!((sound.samples_us.len(), sound.mask_samples_us.len()), (7, 7));
    assert!(sound.kernel_rel_rmse.unwrap() <= sound.kernel_rel_rmse_budget.unwrap());
}

/// Tile, status and reason of each row.
fn rows(ran: &Ran) -> Vec<(u64, u64, Status, &str)> {
    ran.records.iter().map(|r| (r.block_m, r.block_n, r.status, r.reason.as_str())).collect()
}

#[test]
fn a_device_lost_while_verifying_costs_the_row_at_fault_and_leaves_the_others_to_a_continued_run() {
    let ran = sweep_over(Policy::nabla(0.5), vec![SOUND, COMPUTES_WRONGLY, LOSES_THE_DEVICE, LEAVES_A_ROW]);
    assert!(ran.lost.as_deref().is_some_and(|reason| reason.contains("planted loss")));
    let rows = rows(&ran);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[0].0, rows[0].1, rows[0].2), (64, 64, Status::Incorrect));
    assert_eq!((rows[1].0, rows[1].1, rows[1].2), (64, 128, Status::LaunchError));
    assert!(rows[1].3.contains("planted loss"));
}

#[test]
fn a_device_lost_while_timing_costs_the_row_at_fault_and_leaves_the_others_to_a_continued_run() {
    let ran = sweep_over(Policy::nabla(0.5), vec![SOUND, LOSES_IT_WHILE_TIMED, FAILS_TO_LAUNCH]);
    assert!(ran.lost.is_some());
    let rows = rows(&ran);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[0].0, rows[0].1, rows[0].2), (64, 256, Status::LaunchError));
    assert!(rows[0].3.contains("planted loss"));
    assert_eq!((rows[1].0, rows[1].1, rows[1].2), (32, 64, Status::LaunchError));
    assert!(ran.records.iter().all(|r| r.samples_us.is_empty() && r.time_us_median.is_none()));
}

#[test]
fn a_mask_that_cannot_be_built_costs_its_rows_only() {
    let records = sweep(Policy::nabla(NO_MASK));
    assert_eq!(records.len(), 6);
    let (ineligible, failed): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|r| r.status == Status::Ineligible);
    assert_eq!((ineligible.len(), failed.len()), (1, 5));
    assert!(failed.iter().all(|r| r.status == Status::LaunchError && r.reason.contains("planted")));
    assert!(records.iter().all(|r| r.density.is_none()));
}

#[test]
fn the_fastest_sound_dense_tile_is_the_baseline() {
    let records = sweep(Policy::dense());
    let ok: Vec<&Record> = records.iter().filter(|r| r.status == Status::Ok).collect();
    assert_eq!(ok.len(), 2, "dense runs at 128x64 as well");
    let best = ok.iter().filter_map(|r| r.time_us_median).fold(f64::INFINITY, f64::min);
    assert!(ok.iter().all(|r| r.dense_us_median == Some(best)));
    assert!(ok.iter().any(|r| r.speedup_vs_dense == Some(1.0)));
}

#[test]
fn policies_of_other_orders_have_workspaces_of_their_own() {
    use nabla_host::io::{Element, NamedTensor, write_safetensors};
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map.safetensors");
    let cells: Vec<u8> = (0..64).map(|n| u8::from(n / 8 == n % 8)).collect();
    let mask = NamedTensor { name: "mask", shape: &[1, 8, 8], element: Element::U8, bytes: &cells };
    write_safetensors(&map, &[mask], &Default::default()).unwrap();
    let paro = |axes: &str| format!("paro-{axes}:{}", map.display()).parse::<Policy>().unwrap();
    let policies = [Policy::dense(), Policy::nabla(0.5), paro("thw"), paro("wht"), Policy::nabla(0.25 + 0.5)];

    let backend = CpuBackend::new(CpuOptions { threads: Some(2), isa: None, pin: false }).unwrap();
    let block = MaskBlock::square(64);
    let space =
        Space { lengths: vec![None], policies: policies.to_vec(), blocks: vec![block], tiles: vec![SOUND] };
    let identity = identity();
    let context = Context { backend: &backend, identity: &identity, space: &space, rounds: 7 };
    let qkv = Arc::new(generate_video(&"video:2,16,16,2,32".parse::<GenerateSpec>().unwrap(), 0));
    let mut length = Length::new(context, qkv, Arc::new(RowSample::all(512))).unwrap();
    let mut errors = Vec::new();
    for (policy, workspaces) in policies.iter().zip([1, 1, 2, 2, 2]) {
        let ran = length.run(policy, &space.configs(policy), None, &Progress::new(1.0));
        let [record] = ran.records.as_slice() else { panic!("{policy}: {:?}", ran.records) };
        assert_eq!((record.status, record.reason.as_str()), (Status::Ok, ""), "{policy}");
        assert_eq!(length.workspaces.len(), workspaces, "{policy}");
        assert!(policy.is_dense() || record.reorder_us_median.is_some(), "{policy}");
        errors.push(record.sparsity_rel_rmse.unwrap());
    }
    // The same blocks, but of other tokens.
    assert!((errors[2] - errors[3]).abs() > 1e-3, "{errors:?}");
}
