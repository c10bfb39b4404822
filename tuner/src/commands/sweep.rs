//! `nabla sweep`: every configuration verified and timed, recorded, and drawn.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use comfy_table::{Cell, CellAlignment, Table, presets};
use nabla_host::{Policy, backend::Backend, provenance, tensor::Qkv};
use nabla_reports::{
    Identity, Protocol, RECORDS_FILE, Record, Run, RunHeader, SCHEMA_VERSION, Status, best_settings,
    read_run, write_csv,
};

use super::{report, started_with};
use crate::{
    cli::{BackendName, Command, DeviceArgs, SweepArgs},
    failure::{Failure, Kind},
    input,
    lock::DeviceLock,
    machine::machine_of,
    output,
    store::Store,
    sweep::{Config, Context, Ends, Length, Progress, Ran, Space, now, work},
    worker::policy_files,
};

/// Runs or continues a sweep, then prints the best settings and the paths of what it wrote.
pub(crate) fn run(args: SweepArgs) -> Result<(), Failure> {
    match args.resume.clone() {
        None => sweep(&args, std::env::args().collect(), None),
        Some(folder) => {
            let header = read_run(&folder)?.header;
            let started = started_with(&header, &folder, "sweep", |command| match command {
                Command::Sweep(args) if args.resume.is_none() => Some(args),
                _ => None,
            })?;
            // How long is no setting of the run.
            let started = SweepArgs { budget_seconds: args.budget_seconds, ..started };
            sweep(&started, header.command.clone(), Some(&folder))
        }
    }
}

fn sweep(args: &SweepArgs, command: Vec<String>, resume: Option<&Path>) -> Result<(), Failure> {
    let started = Instant::now();
    if args.device.backend == BackendName::Emulator {
        let message = "the emulator has no time to sweep over: nabla check --backend emulator checks every kernel on it";
        return Err(Failure::new(Kind::Usage, message));
    }
    let qkv = input::load(&args.input)?;
    let backend = input::backend(&args.device)?;
    let device = backend.device();
    let _lock = DeviceLock::take(device.backend, &device.name, args.device.device)?;
    let space = Space::new(args, &qkv.problem(), &*backend)?;
    let identity = identity(args, &*backend, &qkv, &space);
    let (folder, mut store, done) = match resume {
        Some(folder) => {
            let (store, run) = Store::resume(folder, &identity)?;
            (folder.to_owned(), store, run.records)
        }
        None => {
            let folder = args.out.clone().unwrap_or_else(default_folder);
            let store = Store::create(&folder, &header(args, command, &identity, &*backend))?;
            (folder, store, Vec::new())
        }
    };
    if !done.is_empty() {
        anstream::eprintln!("{} finished rows in {}; continuing", done.len(), folder.display());
    }

    let context = Context { backend: &*backend, identity: &identity, space: &space, rounds: args.rounds };
    let until = args.budget_seconds.map(|seconds| started + Duration::from_secs(u64::from(seconds)));
    let left = measure(args, context, &qkv, &done, until, (&mut store, &folder))?;

    let run = read_run(&folder)?;
    print_best(&run.records)?;
    let failed =
        run.records.iter().filter(|r| matches!(r.status, Status::Incorrect | Status::LaunchError)).count();
    let ineligible = run.records.iter().filter(|r| r.status == Status::Ineligible).count();
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{} rows: {} measured, {ineligible} ineligible, {failed} failed; {:.0} s",
        run.records.len(),
        run.records.len() - ineligible - failed,
        started.elapsed().as_secs_f64()
    )?;
    drop(out);
    finish(args, &run, &folder)?;
    if left > 0 {
        anstream::println!(
            "bounded: {} of {} configurations; nabla sweep --resume {} goes on",
            run.records.len(),
            run.records.len() + left,
            folder.display()
        );
    }
    let with = |status| run.records.iter().filter(|r| r.status == status).count();
    let what = match (with(Status::Incorrect), with(Status::LaunchError)) {
        (0, 0) => return Ok(()),
        (0, _) => Kind::Device,
        _ => Kind::Incorrect,
    };
    Err(Failure::new(what, format!("{failed} configurations failed; their rows say why")))
}

/// Policies of one length, each with the configurations still to be measured.
type Groups = Vec<(Policy, Vec<Config>)>;

/// Runs every group that has rows missing, each for its share of the time that is left; returns how many configurations were
/// not reached.
fn measure(
    args: &SweepArgs,
    context: Context<'_>,
    qkv: &Arc<Qkv>,
    done: &[Record],
    until: Option<Instant>,
    (store, folder): (&mut Store, &Path),
) -> Result<usize, Failure> {
    let space = context.space;
    let frame_tokens = qkv.grid.map_or(qkv.problem().seqlen_q, |g| g.h * g.w);
    let tokens = |frames: Option<usize>| frames.map_or(frame_tokens, |n| n * frame_tokens);
    let open: Vec<(Option<usize>, Groups)> = space
        .lengths
        .iter()
        .map(|&frames| {
            let groups = space
                .policies
                .iter()
                .map(|policy| (policy.clone(), missing(space, policy, tokens(frames), done)));
            (frames, groups.filter(|(_, configs)| !configs.is_empty()).collect::<Groups>())
        })
        .collect();
    let all = open
        .iter()
        .flat_map(|(frames, groups)| groups.iter().map(|(p, c)| work(p, tokens(*frames), c.len())));
    let mut work_left: f64 = all.sum();
    let progress = Progress::new(work_left);
    let (mut measured, mut unreached) = (0, 0);
    for (frames, groups) in open.into_iter().filter(|(_, groups)| !groups.is_empty()) {
        let cut = match frames {
            Some(n) => Arc::new(qkv.cut_frames(n)?),
            None => Arc::clone(qkv),
        };
        let problem = cut.problem();
        let sample = input::error_sample(&problem, args.errors.error_rows, args.input.seed)?;
        let mut length = Length::new(context, cut, sample)?;
        length.adopt_baseline(done);
        for (policy, mut configs) in groups {
            let group = work(&policy, tokens(frames), configs.len());
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // The first runs however late it is: a call that measures nothing would never get on.
            if measured > 0 && left.is_some_and(|left| left.is_zero()) {
                unreached += configs.len();
                continue;
            }
            // At most all of it: the sum of what is left may be off by rounding.
            let share = |left: Duration| left.mul_f64((group / work_left).min(1.0));
            let ends = until.zip(left);
            let ends = ends.map(|(sweep, left)| Ends { group: Instant::now() + share(left), sweep });
            work_left -= group;
            if until.is_some() {
                // Stable: what is most likely to be used comes first.
                let backend = context.backend;
                configs.sort_by_key(|config| config.tile != backend.default_tile(&problem, config.block));
            }
            progress.start_group(group);
            let Ran { records, lost } = length.run(&policy, &configs, ends, &progress);
            measured += records.len();
            unreached += configs.len().saturating_sub(records.len());
            for record in &records {
                store.push(record)?;
            }
            progress.finish_group(&problem, &policy, &records);
            if let Some(reason) = lost {
                progress.finish();
                return Err(Failure::new(
                    Kind::Device,
                    format!(
                        "{reason}; every row finished before is kept: continue with nabla sweep --resume {}",
                        folder.display()
                    ),
                ));
            }
        }
    }
    progress.finish();
    Ok(unreached)
}

/// Returns the configurations of a group that no record covers yet.
fn missing(space: &Space, policy: &Policy, tokens: usize, done: &[Record]) -> Vec<Config> {
    let name = policy.to_string();
    let covered = |config: &Config| {
        done.iter().any(|r| {
            r.policy == name
                && r.seqlen == tokens as u64
                && r.q_block == config.block.map_or(0, |b| b.q_block as u64)
                && r.block_m == config.tile.block_m as u64
                && r.block_n == config.tile.block_n as u64
        })
    };
    space.configs(policy).into_iter().filter(|config| !covered(config)).collect()
}

fn identity(args: &SweepArgs, backend: &dyn Backend, qkv: &Qkv, space: &Space) -> Identity {
    let device = backend.device();
    Identity {
        backend: device.backend.to_owned(),
        device: device.name.clone(),
        driver: device.driver.clone(),
        isa: device.isa.clone(),
        threads: device.threads.map(|t| t as u64),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        toolchain: provenance::TOOLCHAIN.to_owned(),
        source_hash: provenance::SOURCE_HASH.to_owned(),
        git_commit: env!("NABLA_GIT_COMMIT").to_owned(),
        input: qkv.source.clone(),
        input_hash: qkv.short_hash(),
        space_hash: space.hash(args),
        policy_files: policy_files(&space.policies),
        seed: args.input.seed,
    }
}

fn header(args: &SweepArgs, command: Vec<String>, identity: &Identity, backend: &dyn Backend) -> RunHeader {
    let mut warnings = Vec::new();
    if backend.device().backend == "cpu" {
        warnings.push("measured on the CPU; no GPU took part".to_owned());
    }
    let DeviceArgs { no_pin, .. } = args.device;
    if no_pin {
        warnings.push("threads were not pinned to cores".to_owned());
    }
    let timing = match backend.device().backend {
        "cuda" => "Times are between events on the device, its second-level cache evicted before each",
        _ => "Times are wall clock, caches warm",
    };
    RunHeader {
        schema: SCHEMA_VERSION,
        nabla_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity: identity.clone(),
        started: now(),
        command,
        protocol: Protocol {
            warmup: 1,
            rounds: u64::from(args.rounds),
            description: format!(
                "Every configuration is verified once against float64, then timed once a round together with the dense \
                 baseline and mask building, in an order drawn afresh each round. {timing}; intervals are \
                 distribution-free 95 % intervals of the median.{}",
                if args.budget_seconds.is_some() {
                    " Rounds are fewer where the time given ran out."
                } else {
                    ""
                }
            ),
        },
        warnings,
        machine: machine_of(backend, args.device.device),
    }
}

fn default_folder() -> PathBuf {
    Path::new("nabla-runs").join(jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string())
}

fn finish(args: &SweepArgs, run: &Run, folder: &Path) -> Result<(), Failure> {
    anstream::println!("{}", folder.join(RECORDS_FILE).display());
    if args.no_report {
        let path = folder.join("records.csv");
        let file = File::create(&path).map_err(|e| Failure::write(&path, &e))?;
        write_csv(&run.records, BufWriter::new(file)).map_err(|e| Failure::write(&path, &e.into()))?;
        anstream::println!("{}", path.display());
        return Ok(());
    }
    report::write(run, folder)
}

/// Prints the best setting of each length and threshold.
fn print_best(records: &[Record]) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "seqlen",
        "policy",
        "block",
        "tile",
        "density",
        "attention",
        "mask",
        "speedup",
        "with mask",
        "sparsity error",
        "ties",
    ]);
    for best in best_settings(records) {
        let r = best.record;
        let cell =
            |text: Option<String>| Cell::new(text.unwrap_or_default()).set_alignment(CellAlignment::Right);
        table.add_row([
            cell(Some(r.seqlen.to_string())),
            Cell::new(&r.policy),
            cell(Some(r.q_block.to_string())),
            cell(Some(format!("{}x{}", r.block_m, r.block_n))),
            cell(r.density.map(output::percent)),
            cell(r.time_us_median.map(output::time)),
            cell(r.mask_us_median.map(output::time)),
            cell(r.speedup_vs_dense.map(|s| format!("{s:.2}x"))),
            cell(r.speedup_total_vs_dense.map(|s| format!("{s:.2}x"))),
            cell(r.sparsity_rel_l1.map(output::percent)),
            cell(Some(best.ties.to_string())),
        ]);
    }
    writeln!(anstream::stdout().lock(), "{table}")?;
    Ok(())
}
