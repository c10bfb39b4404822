//! Whole tuning runs on a planted device.

use std::{collections::BTreeMap, path::Path};

use nabla_host::{
    Dtype, Problem,
    parameters::{ParameterAxis, ParameterSpace, Parameters, Value},
    profile::{Device, Standing},
};
use nabla_reports::{
    Identity, Protocol, RECORDS_FILE, Record, RunHeader, SCHEMA_VERSION, Stage, Status, read_run,
};

use super::{Earlier, Journal, Settings, Subject, Tuned, Tuner, View, problem::config_in};
use crate::{
    failure::Failure,
    measure::{
        Bench, Failed, Item, On, Race, Timed, Verified,
        fake::{Fake, Fault},
    },
    stats::simulated::Noise,
    store::Store,
    worker::{Errors, Opened, Target},
};

const CONFIGS: usize = 40;

fn opened() -> Opened {
    let axis = |name: &str, values: &[usize]| ParameterAxis {
        name: name.into(),
        values: values.iter().map(|&v| v.into()).collect(),
    };
    let axes =
        vec![axis("block_m", &[16, 32, 48, 64, 96]), axis("block_n", &[8, 16, 24, 32, 40, 48, 56, 64])];
    let space = ParameterSpace::of_axes(axes, |_| Ok(()));
    let default = Parameters::default().with("block_m", 64usize).with("block_n", 64usize);
    assert_eq!(space.configurations.len(), CONFIGS);
    Opened {
        problem: Problem {
            batch: 1,
            heads: 2,
            seqlen_q: 1024,
            seqlen_k: 1024,
            head_dim: 64,
            dtype: Dtype::F32,
            softmax_scale: 0.125,
            grid: None,
        },
        space,
        default,
        density: 0.3,
        pairs: 1 << 20,
        overlap: 0.5,
        expected_seconds: None,
    }
}

/// Number of the default among the configurations.
fn default_number(opened: &Opened) -> usize {
    opened.space.configurations.iter().position(|config| *config == opened.default).unwrap()
}

fn identity() -> Identity {
    let text = || "test".to_owned();
    Identity {
        backend: "cpu".into(),
        device: text(),
        driver: None,
        isa: text(),
        threads: Some(2),
        platform: text(),
        toolchain: text(),
        source_hash: text(),
        git_commit: text(),
        input: text(),
        input_hash: text(),
        space_hash: text(),
        policy_files: Vec::new(),
        seed: 0,
    }
}

fn header() -> RunHeader {
    RunHeader {
        schema: SCHEMA_VERSION,
        nabla_version: "0".into(),
        identity: identity(),
        started: String::new(),
        command: Vec::new(),
        protocol: Protocol { warmup: 0, rounds: 0, description: String::new() },
        warnings: Vec::new(),
        machine: None,
    }
}

fn settings(strategy: &str, evaluations: usize, seed: u64) -> Settings {
    Settings {
        strategy: strategy.into(),
        share: 1.0,
        evaluations: Some(evaluations),
        budget: None,
        batch: 4,
        race: Race { rounds: 12 },
        seed,
        jobs: 1,
    }
}

struct Ran {
    tuned: Option<Tuned>,
    records: Vec<Record>,
    comparisons: usize,
}

fn tune(fake: &mut Fake, settings: &Settings, earlier: &Earlier) -> Ran {
    tune_in(tempfile::tempdir().unwrap().path(), fake, settings, earlier).unwrap()
}

fn tune_in(
    folder: &Path,
    bench: &mut dyn Bench,
    settings: &Settings,
    earlier: &Earlier,
) -> Result<Ran, Failure> {
    tune_problem(folder, bench, settings, earlier, &opened())
}

fn tune_problem(
    folder: &Path,
    bench: &mut dyn Bench,
    settings: &Settings,
    earlier: &Earlier,
    opened: &Opened,
) -> Result<Ran, Failure> {
    let mut store = match folder.join(RECORDS_FILE).exists() {
        true => Store::resume(folder, &identity())?.0,
        false => Store::create(folder, &header())?,
    };
    let view = View::new(true, 1);
    let target = Target { frames: None, policy: "nabla-0.5".into(), block: Some(64) };
    let identity = identity();
    let subject = Subject {
        identity: &identity,
        target: &target,
        policy: target.policy.parse().unwrap(),
        opened,
        strategy: &settings.strategy,
    };
    let device =
        Device { backend: "cpu".into(), model: "test".into(), architecture: "any".into(), threads: Some(2) };
    let mut journal = Journal::open(folder)?;
    let mut tuner = Tuner { settings, store: &mut store, journal: &mut journal, view: &view, builder: None };
    let tuned = tuner.tune(bench, subject, &device, &[], earlier)?;
    tuned.iter().try_for_each(|tuned| tuner.finish(tuned))?;
    let run = read_run(folder)?;
    Ok(Ran { tuned, records: run.records, comparisons: run.comparisons.len() })
}

/// True times: the default 1,000 µs, the others around it, scattered by a hash of their number.
fn planted(seed: u64, spread: f64) -> Vec<f64> {
    let default = default_number(&opened());
    (0..CONFIGS as u64)
        .map(|number| {
            let mixed =
                (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
            let unit = (mixed >> 40) as f64 / f64::from(1u32 << 24);
            if number as usize == default { 1000.0 } else { 1000.0 * (1.0 + spread * (unit - 0.35)) }
        })
        .collect()
}

fn number_of(parameters: &Parameters) -> usize {
    opened().space.configurations.iter().position(|config| config == parameters).unwrap()
}

/// A chosen configuration that is not proven is the default, and a proven one is truly faster.
#[test]
fn what_is_chosen_is_never_worse_than_the_default() {
    let default = opened().default;
    let mut proven = 0;
    for seed in 0..24 {
        // From nothing to gain at all to much to gain, on every kind of machine.
        let spread = [0.0, 0.02, 0.1, 0.6][seed as usize % 4];
        let noise = match seed % 3 {
            0 => Noise::none(seed),
            1 => Noise::ordinary(seed),
            _ => Noise { fast: 0.04, spikes: 0.05, ..Noise::ordinary(seed) },
        };
        let times = planted(seed, spread);
        let tuned = tune(&mut Fake::new(&times, noise), &settings("default", 20, seed), &Earlier::default());
        let entry = tuned.tuned.unwrap().entry;
        match entry.margin.standing {
            Standing::Tied => assert_eq!(entry.config, default, "seed {seed}"),
            Standing::Proven => {
                proven += 1;
                let truth = times[number_of(&entry.config)];
                assert!(
                    truth < 1000.0 && entry.margin.ratio_high < 1.0,
                    "seed {seed}: {truth} {:?}",
                    entry.margin
                );
            }
        }
    }
    assert!(proven >= 6, "{proven} of 24: nothing is ever found");
}

#[test]
fn every_point_tried_is_a_row_and_the_winner_is_measured_afresh() {
    let times = planted(3, 0.6);
    let mut fake = Fake::new(&times, Noise::ordinary(3));
    let ran = tune(&mut fake, &settings("exhaustive", CONFIGS, 3), &Earlier::default());
    let tuned = ran.tuned.unwrap();
    let best = (0..CONFIGS).min_by(|a, b| times[*a].total_cmp(&times[*b])).unwrap();
    let chosen = times[number_of(&tuned.entry.config)];
    assert!(chosen <= times[best] * 1.03, "{chosen} for {}", times[best]);
    let stage = |stage| ran.records.iter().filter(move |r| r.tuning.as_ref().unwrap().stage == stage);
    assert_eq!(stage(Stage::Search).count(), CONFIGS);
    assert_eq!(stage(Stage::Runoff).count(), 5);
    assert_eq!(stage(Stage::Final).count(), 2);
    let numbers: Vec<u64> = stage(Stage::Search).map(|r| r.tuning.as_ref().unwrap().evaluation).collect();
    assert_eq!(
        numbers.iter().copied().collect::<std::collections::BTreeSet<_>>(),
        (1..=CONFIGS as u64).collect()
    );
    assert_eq!((ran.comparisons, fake.renewed), (tuned.comparisons.len(), 1));
    assert_eq!(ran.comparisons, 5);
    assert!(stage(Stage::Final).all(|r| r.dense_us_median.is_some() && r.mask_us_median.is_some()));
}

#[test]
fn failures_cost_their_rows() {
    let mut fake = Fake::new(&planted(1, 0.5), Noise::none(1));
    let default = default_number(&opened());
    let [wrong, slow, crash] = [1, 2, 3].map(|i| (default + i) % CONFIGS);
    fake.faults = BTreeMap::from([
        (wrong, Fault::Incorrect),
        (slow, Fault::Fails(2, Status::Timeout)),
        (crash, Fault::Fails(1, Status::Crashed)),
    ]);
    let ran = tune(&mut fake, &settings("exhaustive", CONFIGS, 1), &Earlier::default());
    let of = |number: usize| {
        let config = &opened().space.configurations[number];
        ran.records.iter().find(|r| config_in(r).as_ref() == Some(config)).unwrap().clone()
    };
    for (number, status) in [(wrong, Status::Incorrect), (slow, Status::Timeout), (crash, Status::Crashed)] {
        let row = of(number);
        assert_eq!((row.status, row.reason.as_str(), row.time_us_median), (status, "planted", None));
    }
    let tuned = ran.tuned.unwrap();
    assert!(![wrong, slow, crash].contains(&number_of(&tuned.entry.config)));
    assert_eq!(tuned.failures, BTreeMap::from([("incorrect", 1), ("timeout", 1), ("crashed", 1)]));
}

#[test]
fn what_is_wrong_on_another_input_does_not_win() {
    let mut fake = Fake::new(&planted(1, 0.5), Noise::none(1));
    let honest = tune(&mut fake, &settings("exhaustive", CONFIGS, 1), &Earlier::default()).tuned.unwrap();
    let fastest = number_of(&honest.entry.config);
    let mut fake = Fake::new(&planted(1, 0.5), Noise::none(1));
    fake.faults.insert(fastest, Fault::IncorrectElsewhere);
    let ran = tune(&mut fake, &settings("exhaustive", CONFIGS, 1), &Earlier::default());
    let tuned = ran.tuned.unwrap();
    assert_ne!(number_of(&tuned.entry.config), fastest);
    let row = ran.records.iter().find(|r| r.status == Status::Incorrect).unwrap();
    assert_eq!(row.tuning.as_ref().unwrap().stage, Stage::Runoff);
}

#[test]
fn a_default_that_fails_leaves_a_row_and_no_entry() {
    let mut fake = Fake::new(&planted(1, 0.5), Noise::none(1));
    fake.faults.insert(default_number(&opened()), Fault::Incorrect);
    let ran = tune(&mut fake, &settings("random", 10, 1), &Earlier::default());
    assert_eq!((ran.tuned, ran.records.len()), (None, 1));
    assert_eq!(ran.records[0].status, Status::Incorrect);
}

#[test]
fn a_continued_run_measures_nothing_twice_and_comes_to_the_same() {
    let times = planted(5, 0.6);
    let settings = settings("default", 24, 5);
    let mut whole = Fake::new(&times, Noise::none(5));
    let first = tune(&mut whole, &settings, &Earlier::default());
    let search: Vec<Record> =
        first.records.iter().filter(|r| r.tuning.as_ref().unwrap().stage == Stage::Search).cloned().collect();
    // Cut in the middle of a batch.
    let kept = search[..13].to_vec();
    let mut rest = Fake::new(&times, Noise::none(5));
    let second = tune(&mut rest, &settings, &Earlier { searched: kept.clone() });
    let again: Vec<Option<Parameters>> = second
        .records
        .iter()
        .filter(|r| r.tuning.as_ref().unwrap().stage == Stage::Search)
        .map(config_in)
        .collect();
    assert_eq!(again.len(), 24 - 13);
    assert!(kept.iter().all(|record| !again.contains(&config_in(record))));
    let configs = |ran: &Ran| ran.tuned.as_ref().map(|tuned| tuned.entry.config.clone());
    assert_eq!(configs(&first), configs(&second));
}

/// A bench that is killed after so many rounds.
struct Killed {
    inner: Fake,
    rounds: usize,
}

impl Bench for Killed {
    fn verify(
        &mut self,
        number: usize,
        parameters: &Parameters,
        on: On,
    ) -> Result<Result<Verified, (Failed, Option<Errors>)>, Failure> {
        self.inner.verify(number, parameters, on)
    }

    fn round(&mut self, order: &[Item]) -> Result<Vec<Timed>, Failure> {
        self.rounds = self.rounds.checked_sub(1).ok_or_else(Failure::interrupted)?;
        self.inner.round(order)
    }

    fn renew(&mut self) -> Result<(), Failure> {
        self.inner.renew()
    }
}

#[test]
fn a_race_that_was_killed_goes_on_where_it_was() {
    let times = planted(3, 0.2);
    let settings = settings("exhaustive", CONFIGS, 3);
    let settings = Settings { batch: 8, ..settings };
    let whole_folder = tempfile::tempdir().unwrap();
    let mut whole = Fake::new(&times, Noise::none(3));
    let first = tune_in(whole_folder.path(), &mut whole, &settings, &Earlier::default()).unwrap();

    // Before the search: 7 rounds of what stands beside it, 16 blocks of the noise floor.
    let before = 7 + 16;
    let folder = tempfile::tempdir().unwrap();
    let mut killed = Killed { inner: Fake::new(&times, Noise::none(3)), rounds: before + 5 };
    assert!(tune_in(folder.path(), &mut killed, &settings, &Earlier::default()).is_err());
    let mut rest = Fake::new(&times, Noise::none(3));
    let second = tune_in(folder.path(), &mut rest, &settings, &Earlier::default()).unwrap();
    let in_race = killed.inner.launches - before * 4;
    assert!(in_race >= 8 * 3, "{in_race}");
    assert_eq!(rest.launches, whole.launches - in_race, "the rounds before the kill are not run again");
    assert_eq!(second.records.len(), first.records.len());
}

#[test]
fn what_a_model_expects_is_tried_first() {
    let opened = Opened {
        expected_seconds: Some((0..CONFIGS).map(|n| (n % 2 == 0).then_some(1.0 + n as f64)).collect()),
        ..opened()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut fake = Fake::new(&planted(1, 0.2), Noise::none(1));
    let settings = settings("exhaustive", 9, 1);
    let ran = tune_problem(folder.path(), &mut fake, &settings, &Earlier::default(), &opened).unwrap();
    let tried = ran.records.iter().filter(|r| r.tuning.as_ref().unwrap().stage == Stage::Search);
    let tried: Vec<Parameters> = tried.filter_map(config_in).collect();
    let cheapest = (0..16).step_by(2).map(|n| opened.space.configurations[n].clone());
    let expected: Vec<Parameters> = [opened.default.clone()].into_iter().chain(cheapest).collect();
    assert_eq!(tried, expected, "the default, then the cheapest");
}

#[test]
fn configurations_survive_their_records() {
    let ran = tune(
        &mut Fake::new(&planted(0, 0.1), Noise::none(0)),
        &settings("random", 4, 0),
        &Earlier::default(),
    );
    let config = config_in(&ran.records[0]).unwrap();
    assert_eq!(config, opened().default, "the default is tried first");
    assert!(matches!(config.get("block_m"), Some(Value::Int(64))));
}
