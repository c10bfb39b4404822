//! `nabla tune` on a device: problems one after another, each in worker processes.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use comfy_table::{Cell, CellAlignment, Table, presets};
use nabla_host::{
    Policy,
    parameters::Parameters,
    profile::{Device, Profile, Shape, Standing},
    provenance,
};
use nabla_reports::{
    Identity, Machine, Protocol, RECORDS_FILE, Record, Run, RunHeader, SCHEMA_VERSION, Stage, read_run,
    write_csv,
};

use crate::{
    cli::{BackendName, Command, DeviceArgs, TuneArgs},
    commands::{started_with, worker},
    failure::{Failure, Kind},
    lock::DeviceLock,
    output,
    store::Store,
    sweep::now,
    tune::{Builder, Earlier, Journal, Settings, Subject, Tuned, Tuner, View, name_of, standing, targets},
    worker::{Hello, Isolated, Limits, Opened, Target, Worker, watch_for_interrupts},
};

/// Name of the profile in a run folder.
const PROFILE: &str = "profile.json";
/// Time to load a problem, compute its reference and compile a kernel in.
const VERIFY: Duration = Duration::from_secs(600);

/// Tunes, or goes on with a run that was cut short.
pub(crate) fn run(args: TuneArgs) -> Result<(), Failure> {
    watch_for_interrupts()?;
    match args.resume.clone() {
        None => tune(&args, std::env::args().collect(), None),
        Some(folder) => {
            let header = read_run(&folder)?.header;
            let started = started_with(&header, &folder, "tuning run", |command| match command {
                Command::Tune(args) if args.resume.is_none() => Some(*args),
                _ => None,
            })?;
            tune(&started, header.command.clone(), Some(&folder))
        }
    }
}

fn tune(args: &TuneArgs, command: Vec<String>, resume: Option<&Path>) -> Result<(), Failure> {
    let started = Instant::now();
    if args.device.backend == BackendName::Emulator {
        let message =
            "the emulator has no time to tune by: nabla check --backend emulator checks every kernel on it";
        return Err(Failure::new(Kind::Usage, message));
    }
    let of = (&args.input, &args.device, args.errors);
    let mut start = worker::start(None, of, 0)?;
    start.arguments.extend(args.memory_mib.map(|mib| format!("--memory-mib={mib}").into()));
    // Who measures is asked first: the input is read and the device started in a worker alone.
    let mut first = Worker::start(&start)?;
    let hello = first.hello().clone();
    let _lock = DeviceLock::take(&hello.backend, &hello.device, args.device.device)?;
    // Of a run that goes on, the header is written already.
    let (machine, looked_us) = match resume {
        None => first.machine(VERIFY)?,
        Some(_) => (None, 0.0),
    };
    drop(first);
    let policies = args.policies.all()?;
    let targets = targets(&args.problems, &policies, &hello.problem)?;
    let settings = Settings::new(args, targets.len())?;
    let identity = identity(args, &hello, (&policies, &targets), &settings);
    let (folder, mut store, done) = open_log(args, command, (&identity, machine), &settings, resume)?;
    let mut journal = Journal::open(&folder)?;
    let profile_path = folder.join(PROFILE);
    let mut profile = if profile_path.is_file() { Profile::read(&profile_path)? } else { Profile::default() };
    let known = args.profile.as_deref().map(Profile::read).transpose()?.unwrap_or_default();
    let device = Device {
        backend: hello.backend.clone(),
        model: hello.device.clone(),
        architecture: hello.isa.clone(),
        threads: hello.threads,
    };

    let view = View::new(args.json, targets.len());
    let compiles = hello.backend != "cpu";
    let builder = compiles.then(|| Builder::new(start.clone(), args.jobs));
    let mut tuner =
        Tuner { settings: &settings, store: &mut store, journal: &mut journal, view: &view, builder };
    let limits =
        Limits { verify: VERIFY, launch: Duration::from_secs(u64::from(args.problems.launch_timeout)) };
    let mut bench: Option<Isolated> = None;
    let mut results: Vec<(Target, Opened, Tuned)> = Vec::new();
    let mut untunable = 0;
    for target in &targets {
        if is_finished(&done, target, &hello) {
            view.skip(target);
            continue;
        }
        let bench = match &mut bench {
            Some(bench) => {
                bench.reopen(target.clone())?;
                bench
            }
            empty => empty.insert(Isolated::open(start.clone(), limits, target.clone())?),
        };
        let opened = bench.opened().clone();
        let subject = Subject {
            identity: &identity,
            target,
            policy: target.policy.parse()?,
            opened: &opened,
            strategy: &settings.strategy,
        };
        let earlier = Earlier { searched: searched(&done, target, &opened) };
        let seeds = nearest(&known, &device, target, &opened);
        let tuned = tuner.tune(bench, subject, &device, &seeds, &earlier).map_err(|failure| {
            if failure.is_interruption() {
                failure.hint(format!("go on with nabla tune --resume {}", folder.display()))
            } else {
                failure
            }
        })?;
        match tuned {
            Some(tuned) => {
                profile.put(tuned.entry.clone());
                profile.write(&profile_path)?;
                tuner.finish(&tuned)?;
                view.tuned(&tuned);
                results.push((target.clone(), opened, tuned));
            }
            None => untunable += 1,
        }
    }
    journal.remove();
    let seconds = started.elapsed().as_secs_f64();
    let (work_us, lost) = bench.as_ref().map_or((0.0, 0), |b| (b.work_us(), b.lost_workers()));
    let overhead = (1.0 - (looked_us + work_us) / 1e6 / seconds).max(0.0);
    view.done(seconds, overhead, lost);
    let run = read_run(&folder)?;
    if !args.json {
        print(&results, &run, seconds, overhead, lost)?;
    }
    finish(args, &folder, &run)?;
    match untunable {
        0 => Ok(()),
        n => Err(Failure::new(
            Kind::Incorrect,
            format!("the default configuration fails on {n} problems; their rows say why"),
        )),
    }
}

fn open_log(
    args: &TuneArgs,
    command: Vec<String>,
    (identity, machine): (&Identity, Option<Machine>),
    settings: &Settings,
    resume: Option<&Path>,
) -> Result<(PathBuf, Store, Vec<Record>), Failure> {
    if let Some(folder) = resume {
        let (store, run) = Store::resume(folder, identity)?;
        anstream::eprintln!("{} finished rows in {}; continuing", run.records.len(), folder.display());
        return Ok((folder.to_owned(), store, run.records));
    }
    let folder = args.out.clone().unwrap_or_else(|| {
        Path::new("nabla-runs").join(jiff::Timestamp::now().strftime("tune-%Y%m%d-%H%M%S").to_string())
    });
    let store = Store::create(&folder, &RunHeader { machine, ..header(args, command, identity, settings) })?;
    Ok((folder, store, Vec::new()))
}

/// Says whether an earlier part of the run finished a problem: its last stage is recorded.
fn is_finished(done: &[Record], target: &Target, hello: &Hello) -> bool {
    let tokens = hello.problem.grid.map_or(hello.problem.seqlen_q, |grid| {
        target.frames.map_or(hello.problem.seqlen_q, |frames| frames * grid.h * grid.w)
    });
    done.iter().any(|record| {
        record.seqlen == tokens as u64 && belongs(record, target) && stage(record) == Some(Stage::Final)
    })
}

fn belongs(record: &Record, target: &Target) -> bool {
    record.policy == target.policy && record.q_block == target.block.unwrap_or(0) as u64
}

fn stage(record: &Record) -> Option<Stage> {
    record.tuning.as_ref().map(|tuning| tuning.stage)
}

/// Returns the trials that an earlier part of the run made of a problem's search. One on a busy machine is made again.
fn searched(done: &[Record], target: &Target, opened: &Opened) -> Vec<Record> {
    let seqlen = opened.problem.seqlen_q as u64;
    let of_the_problem = |record: &&Record| {
        record.seqlen == seqlen
            && belongs(record, target)
            && stage(record) == Some(Stage::Search)
            && record.status != nabla_reports::Status::Contended
    };
    done.iter().filter(of_the_problem).cloned().collect()
}

/// Returns what the given profile has for a problem.
fn nearest(known: &Profile, device: &Device, target: &Target, opened: &Opened) -> Vec<Parameters> {
    let block = target.block.unwrap_or(0) as u64;
    let shape = Shape {
        dtype: opened.problem.dtype,
        head_dim: opened.problem.head_dim as u64,
        q_block: block,
        kv_block: block,
        seqlen: opened.problem.seqlen_q as u64,
        density: opened.density,
        overlap: opened.overlap,
    };
    known.lookup(device, &shape).entry.map(|entry| entry.config.clone()).into_iter().collect()
}

fn identity(
    args: &TuneArgs,
    hello: &Hello,
    (policies, targets): (&[Policy], &[Target]),
    settings: &Settings,
) -> Identity {
    let space = format!(
        "{} {} {:?} {:?} {} {:?}",
        serde_json::to_string(targets).unwrap_or_default(),
        settings.strategy,
        settings.share,
        settings.evaluations,
        settings.race.rounds,
        args.errors.error_rows
    );
    hello.identity(provenance::short_hash(space.as_bytes()), policies, args.input.seed)
}

fn header(args: &TuneArgs, command: Vec<String>, identity: &Identity, settings: &Settings) -> RunHeader {
    let mut warnings = Vec::new();
    if identity.backend == "cpu" {
        warnings.push("measured on the CPU; no GPU took part".to_owned());
    }
    let DeviceArgs { no_pin, .. } = args.device;
    if no_pin {
        warnings.push("threads were not pinned to cores".to_owned());
    }
    RunHeader {
        schema: SCHEMA_VERSION,
        nabla_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity: identity.clone(),
        started: now(),
        command,
        protocol: Protocol {
            warmup: 2,
            rounds: settings.race.rounds as u64,
            description: "Every configuration is verified in a process of its own, then races in interleaved rounds \
                          against others and the best so far; rounds are a most, for what cannot win leaves early. The \
                          best four meet the default in A-B-B-A blocks, the winner again in a fresh process. Samples \
                          taken while the clock was low or something else ran are kept and left out of medians."
                .to_owned(),
        },
        warnings,
        machine: None,
    }
}

fn print(
    results: &[(Target, Opened, Tuned)],
    run: &Run,
    seconds: f64,
    overhead: f64,
    lost: u32,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "problem",
        "density",
        "configuration",
        "time",
        "default",
        "against the default",
        "noise",
        "tried",
    ]);
    for (target, opened, tuned) in results {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let time = |us: Option<f64>| right(us.map(output::time).unwrap_or_default());
        let found = &tuned.entry.found;
        table.add_row([
            Cell::new(name_of(target, opened.problem.seqlen_q)),
            right(output::percent(opened.density)),
            Cell::new(&tuned.entry.config),
            time(tuned.times_us[1]),
            time(tuned.times_us[0]),
            Cell::new(standing(&tuned.entry.margin)),
            right(output::percent(tuned.floor)),
            right(format!("{} of {}", found.evaluations, found.space)),
        ]);
    }
    let proven = results.iter().filter(|(.., tuned)| tuned.entry.margin.standing == Standing::Proven).count();
    // A busy machine is no failure of a kernel; its rows are counted below.
    let failures = results.iter().flat_map(|(.., tuned)| &tuned.failures);
    let failed: u64 = failures.filter(|(name, _)| **name != "contended").map(|(_, count)| count).sum();
    let contended =
        run.records.iter().filter(|r| r.tuning.as_ref().is_some_and(|tuning| tuning.contended)).count();
    let mut out = anstream::stdout().lock();
    writeln!(out, "{table}")?;
    writeln!(
        out,
        "{} problems: {proven} with a configuration proven faster; {failed} failed trials, {lost} workers lost; {seconds:.0} s, \
         of which the tuner itself took {}",
        results.len(),
        output::percent(overhead)
    )?;
    if contended > 0 {
        writeln!(
            out,
            "{contended} of {} rows were measured while something else used the machine",
            run.records.len()
        )?;
    }
    Ok(())
}

fn finish(args: &TuneArgs, folder: &Path, run: &Run) -> Result<(), Failure> {
    let path = folder.join("records.csv");
    let file = std::fs::File::create(&path).map_err(|e| Failure::write(&path, &e))?;
    write_csv(&run.records, std::io::BufWriter::new(file)).map_err(|e| Failure::write(&path, &e.into()))?;
    if !args.json {
        for name in [RECORDS_FILE, "records.csv", PROFILE] {
            anstream::println!("{}", folder.join(name).display());
        }
    }
    Ok(())
}
