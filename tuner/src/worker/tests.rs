//! Faults planted in real worker processes: this test program plays the worker of itself.

use std::{
    ffi::OsString,
    fs,
    io::{stdin, stdout},
    path::Path,
    sync::Arc,
    time::Duration,
};

use nabla_host::{
    BlockMask, Policy, Problem,
    backend::{
        AttentionOutput, Backend, BackendError, CpuBackend, CpuOptions, DeviceIdentity, NotBuilt, Orders,
        Pattern, Workspace,
    },
    generate::{GenerateSpec, generate_video},
    parameters::{ParameterSpace, Parameters},
    tensor::Qkv,
    variant::{Eligibility, MaskBlock, TileConfig, Variant},
};
use nabla_reports::Status;

use super::{
    Build, Inputs, Isolated, Limits, Reply, Request, Start, Target, Worker, confine, die_with_parent, serve,
};
use crate::measure::{Bench, Item, On};

/// Says that this process is a worker, and where faults leave a note that they have struck.
const PLAYS: &str = "NABLA_TEST_WORKER";

const SOUND: TileConfig = TileConfig { block_m: 32, block_n: 32 };
/// Never comes back from its third launch.
const HANGS: TileConfig = TileConfig { block_m: 32, block_n: 64 };
/// Ends the process at its third launch, as an access outside all memory does.
const CRASHES: TileConfig = TileConfig { block_m: 32, block_n: 128 };
/// Wrong in one element by little.
const SUBTLY_WRONG: TileConfig = TileConfig { block_m: 64, block_n: 32 };
/// Wrong at every second launch.
const FLICKERS: TileConfig = TileConfig { block_m: 64, block_n: 64 };
/// Breaks the process at its third launch; the next launch of anything ends it, as a write where others read does.
const POISONS: TileConfig = TileConfig { block_m: 64, block_n: 128 };
/// Takes more memory than a worker may.
const GREEDY: TileConfig = TileConfig { block_m: 16, block_n: 32 };
/// The device gives out under it and stays so.
const STICKY: TileConfig = TileConfig { block_m: 16, block_n: 64 };
/// Ends the process once in a run, by coincidence.
const UNLUCKY: TileConfig = TileConfig { block_m: 16, block_n: 128 };
/// Hangs while it is verified.
const HANGS_AT_ONCE: TileConfig = TileConfig { block_m: 48, block_n: 32 };

/// Wrong where the last block of keys is not full.
const WRONG_AT_THE_END: TileConfig = TileConfig { block_m: 48, block_n: 64 };

struct Faulty {
    cpu: CpuBackend,
    notes: std::path::PathBuf,
}

struct FaultyWorkspace<'a> {
    inner: Box<dyn Workspace + 'a>,
    notes: &'a Path,
    launches: std::collections::BTreeMap<TileConfig, usize>,
    last: Option<TileConfig>,
    broken: bool,
    lost: bool,
}

impl Backend for Faulty {
    fn device(&self) -> &DeviceIdentity {
        self.cpu.device()
    }
    fn tiles(&self, problem: &Problem) -> Vec<TileConfig> {
        self.cpu.tiles(problem)
    }
    fn default_tile(&self, problem: &Problem, block: Option<MaskBlock>) -> TileConfig {
        self.cpu.default_tile(problem, block)
    }
    fn variant(&self, problem: &Problem, block: Option<MaskBlock>, tile: TileConfig) -> Eligibility {
        self.cpu.variant(problem, block, tile)
    }
    fn space(&self, problem: &Problem, block: Option<MaskBlock>) -> ParameterSpace {
        self.cpu.space(problem, block)
    }
    fn default_parameters(&self, problem: &Problem, block: Option<MaskBlock>) -> Parameters {
        self.cpu.default_parameters(problem, block)
    }
    fn configured(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        parameters: &Parameters,
    ) -> Eligibility {
        self.cpu.configured(problem, block, parameters)
    }
    fn prebuild(
        &self,
        _: &Problem,
        _: Option<MaskBlock>,
        variants: &[Variant],
        _: usize,
        on_done: &(dyn Fn(usize, Result<(), NotBuilt>) + Sync),
    ) {
        for (index, variant) in variants.iter().enumerate() {
            let not_built = |rejected| Err(NotBuilt { rejected, reason: "planted".into() });
            on_done(
                index,
                match variant.tile {
                    CRASHES => not_built(false),
                    HANGS => not_built(true),
                    _ => Ok(()),
                },
            );
        }
    }
    fn load(&self, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Box<dyn Workspace + '_>, BackendError> {
        Ok(Box::new(FaultyWorkspace {
            inner: self.cpu.load(qkv, orders)?,
            notes: &self.notes,
            launches: std::collections::BTreeMap::new(),
            last: None,
            broken: false,
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
        self.inner.build_mask(policy)
    }
    fn attention(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, BackendError> {
        if self.broken {
            eprintln!("fatal error: memory is corrupt");
            std::process::abort();
        }
        let count = self.launches.entry(variant.tile).or_default();
        *count += 1;
        match (variant.tile, *count) {
            (HANGS, 3..) | (HANGS_AT_ONCE, _) => std::thread::sleep(Duration::from_secs(3600)),
            (CRASHES, 3..) => {
                eprintln!("fatal error: access to address 0x0");
                // As a backtrace does: what matters stands far before the end.
                (0..2000).for_each(|frame| eprintln!("{frame:4}: core::ops::function::FnOnce::call_once"));
                std::process::abort();
            }
            (POISONS, 3..) => self.broken = true,
            (GREEDY, _) => {
                let hoard: Vec<Vec<u8>> = (0..64).map(|_| vec![1u8; 64 << 20]).collect();
                std::hint::black_box(&hoard);
            }
            (STICKY, 3..) => self.lost = true,
            (UNLUCKY, 3) => {
                let note = self.notes.join("unlucky");
                if !note.exists() {
                    let _ = fs::write(note, "struck");
                    std::process::abort();
                }
            }
            _ => {}
        }
        if self.lost {
            return Err(BackendError::Lost { what: variant.id.to_string(), reason: "planted loss".into() });
        }
        self.last = Some(variant.tile);
        self.inner.attention(variant, pattern)
    }
    fn poison(&mut self) -> Result<(), BackendError> {
        self.inner.poison()
    }
    fn output(&mut self) -> Result<AttentionOutput, BackendError> {
        let mut output = self.inner.output()?;
        let count = self.last.and_then(|tile| self.launches.get(&tile)).copied().unwrap_or_default();
        match (self.last, count % 2) {
            (Some(SUBTLY_WRONG), _) => output.out[1000] += 0.05,
            (Some(WRONG_AT_THE_END), _) if !output.lse.len().is_multiple_of(64) => output.out[1000] += 0.05,
            // In the last bit: far inside every budget.
            (Some(FLICKERS), 0) => output.out[7] = f32::from_bits(output.out[7].to_bits() ^ 1),
            _ => {}
        }
        Ok(output)
    }
}

/// Not a test by itself: what the worker processes of the tests below run.
#[test]
fn plays_the_worker() {
    let Ok(notes) = std::env::var(PLAYS) else { return };
    die_with_parent();
    let cpu = CpuBackend::new(CpuOptions { threads: Some(2), isa: None, pin: false }).unwrap();
    confine(Some(1024)).unwrap();
    let qkv = Arc::new(generate_video(&"video:1,16,32,2,32".parse::<GenerateSpec>().unwrap(), 0));
    let backend = Faulty { cpu, notes: notes.into() };
    let inputs = Inputs { qkv, error_rows: None, seed: 0, ordinal: 0, peers: 0 };
    // The harness leaves its own line unfinished.
    println!();
    serve(&backend, &inputs, stdin().lock(), stdout()).unwrap();
    // The harness would print to the pipe that the program reads.
    std::process::exit(0);
}

fn start(notes: &Path) -> Start {
    let arguments = ["--exact", "worker::tests::plays_the_worker", "--nocapture", "--test-threads=1"];
    Start {
        program: std::env::current_exe().unwrap(),
        arguments: arguments.map(OsString::from).to_vec(),
        environment: vec![(PLAYS.to_owned(), notes.to_str().unwrap().to_owned())],
        patience: Duration::from_secs(60),
    }
}

fn target() -> Target {
    Target { frames: None, policy: "nabla-0.5".into(), block: Some(64) }
}

fn bench(notes: &Path) -> Isolated {
    let limits = Limits { verify: Duration::from_secs(20), launch: Duration::from_secs(3) };
    Isolated::open(start(notes), limits, target()).unwrap()
}

/// Verifies tiles under the numbers 0, 1, ... and returns the status of those that fail.
fn verified(bench: &mut Isolated, tiles: &[TileConfig]) -> Vec<Option<(Status, String)>> {
    let verify = |(number, tile): (usize, &TileConfig)| {
        let result = bench.verify(number, &Parameters::of_tile(*tile), On::Input).unwrap();
        result.err().map(|(failed, _)| (failed.status, failed.reason))
    };
    tiles.iter().enumerate().map(verify).collect()
}

/// Times all tiles over some rounds; returns how many samples each had and why it ended.
fn timed(
    bench: &mut Isolated,
    tiles: &[TileConfig],
    rounds: usize,
) -> Vec<(usize, Option<(Status, String)>)> {
    let items: Vec<Item> = (0..tiles.len()).map(Item::Candidate).collect();
    let mut found = vec![(0, None); tiles.len()];
    for _ in 0..rounds {
        for (found, result) in found.iter_mut().zip(bench.round(&items).unwrap()) {
            match result {
                Ok(sample) => {
                    assert!(sample.time_us > 0.0);
                    found.0 += 1;
                }
                Err(failed) => found.1 = Some((failed.status, failed.reason)),
            }
        }
    }
    found
}

/// One faulty tile between two sound ones: it alone pays.
fn costs_one_row(faulty: TileConfig, status: Status, words: &str) {
    let notes = tempfile::tempdir().unwrap();
    let mut bench = bench(notes.path());
    let other = TileConfig { block_m: 32, block_n: 256 };
    let tiles = [SOUND, faulty, other];
    assert_eq!(verified(&mut bench, &tiles), [None, None, None]);
    let found = timed(&mut bench, &tiles, 4);
    assert_eq!((found[0].0, &found[0].1), (4, &None));
    assert_eq!((found[2].0, &found[2].1), (4, &None));
    let (got, reason) = found[1].1.clone().unwrap();
    assert_eq!(got, status, "{reason}");
    assert!(reason.contains(words), "{reason}");
    assert!(bench.lost_workers() >= 2);
}

#[test]
fn a_kernel_that_hangs_costs_its_row_and_times_out() {
    costs_one_row(HANGS, Status::Timeout, "within 3 s");
}

#[test]
fn a_kernel_that_crashes_costs_its_row_and_says_how() {
    costs_one_row(CRASHES, Status::Crashed, "access to address 0x0");
}

#[test]
fn a_device_that_stays_broken_costs_the_row_that_broke_it() {
    costs_one_row(STICKY, Status::LaunchError, "planted loss");
}

#[test]
fn a_kernel_that_breaks_its_neighbour_is_found_out() {
    costs_one_row(POISONS, Status::Crashed, "memory is corrupt");
}

#[test]
fn a_loss_that_does_not_come_again_is_forgiven() {
    let notes = tempfile::tempdir().unwrap();
    let mut bench = bench(notes.path());
    let tiles = [SOUND, UNLUCKY];
    assert_eq!(verified(&mut bench, &tiles), [None, None]);
    assert_eq!(timed(&mut bench, &tiles, 3), [(3, None), (3, None)]);
    assert!(notes.path().join("unlucky").exists());
}

#[test]
fn what_is_wrong_on_another_input_alone_is_found_there() {
    let notes = tempfile::tempdir().unwrap();
    let mut bench = bench(notes.path());
    for (tile, right) in [(SOUND, true), (WRONG_AT_THE_END, false)] {
        let parameters = Parameters::of_tile(tile);
        assert!(bench.verify(0, &parameters, On::Input).unwrap().is_ok());
        match bench.verify(0, &parameters, On::OtherInput).unwrap() {
            Ok(_) => assert!(right, "{tile} passed"),
            Err((failed, errors)) => {
                assert!(!right && failed.status == Status::Incorrect, "{}", failed.reason);
                assert!(
                    failed.reason.contains("on 429 other tokens") && errors.is_some(),
                    "{}",
                    failed.reason
                );
            }
        }
        // The problem is still the one that was opened.
        assert_eq!(timed(&mut bench, &[tile], 2), [(2, None)]);
    }
}

#[test]
fn what_is_wrong_hangs_or_is_greedy_is_found_by_verification() {
    let notes = tempfile::tempdir().unwrap();
    let limits = Limits { verify: Duration::from_secs(6), launch: Duration::from_secs(3) };
    let mut bench = Isolated::open(start(notes.path()), limits, target()).unwrap();
    let found = verified(&mut bench, &[SUBTLY_WRONG, FLICKERS, HANGS_AT_ONCE, GREEDY, SOUND]);
    for (index, (status, words)) in [
        (Status::Incorrect, "exceeds its budget"),
        (Status::Incorrect, "two launches on the same inputs differ in 1 of"),
        (Status::Timeout, "did not end within 6 s"),
        (Status::Crashed, "memory allocation"),
    ]
    .into_iter()
    .enumerate()
    {
        let (got, reason) = found[index].clone().unwrap();
        assert_eq!(got, status, "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(found[4], None);
}

#[test]
fn a_renewed_bench_knows_what_was_verified() {
    let notes = tempfile::tempdir().unwrap();
    let mut bench = bench(notes.path());
    assert_eq!(verified(&mut bench, &[SOUND]), [None]);
    bench.renew().unwrap();
    let items = [Item::Candidate(0), Item::Dense, Item::Mask, Item::Reorder];
    assert!(bench.round(&items).unwrap().iter().all(Result::is_ok));
    assert_eq!(bench.lost_workers(), 0);
    assert!(bench.work_us() > 0.0);
}

#[test]
fn a_problem_that_is_none_is_refused_with_its_exit_code() {
    let notes = tempfile::tempdir().unwrap();
    let limits = Limits { verify: Duration::from_secs(20), launch: Duration::from_secs(3) };
    for (target, code, words) in [
        (Target { policy: "nabla-7".into(), ..target() }, 2, "expected nabla-MASS"),
        (Target { frames: Some(9), ..target() }, 2, "frames"),
    ] {
        let failure = Isolated::open(start(notes.path()), limits, target).unwrap_err();
        assert_eq!(failure.code(), code, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
    }
}

#[test]
fn kernels_are_built_ahead_and_each_failure_has_its_status() {
    let notes = tempfile::tempdir().unwrap();
    let mut worker = Worker::start(&start(notes.path())).unwrap();
    let patience = Duration::from_secs(20);
    worker.ask(&Request::Open { target: target() }).unwrap();
    assert!(matches!(worker.reply(patience), Ok(Reply::Opened { .. })));
    let nonsense = Parameters::of_tile(SOUND).with("warps", 4usize);
    let configs =
        vec![Parameters::of_tile(SOUND), nonsense, Parameters::of_tile(CRASHES), Parameters::of_tile(HANGS)];
    worker.ask(&Request::Build { configs, jobs: 1 }).unwrap();
    let mut statuses = [None; 4];
    for _ in 0..4 {
        let Ok(Reply::Built(Build { index, failed })) = worker.reply(patience) else { panic!("no build") };
        statuses[index] = failed.map(|(status, _)| status);
    }
    let expected = [None, Some(Status::Ineligible), Some(Status::CompileError), Some(Status::Rejected)];
    assert_eq!(statuses, expected);
}
