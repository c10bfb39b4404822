//! `nabla check --mutants`: whether the emulator reports every weakened synchronisation of the shipped code.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use comfy_table::{CellAlignment, Table, presets};
use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, KernelBackend, emulator_backend},
    check::{MutantOutcome, MutantResult, check_mutants},
    codegen::{
        instances::{INSTANCES, Instance},
        variant_id,
    },
};
use serde_json::{Value, json};

use crate::{
    cli::{CheckArgs, CheckBackend},
    failure::{Failure, Kind},
};

/// Warp-instructions after which a mutant counts as one that does not end; the cases take a hundredth of it.
const BUDGET: u64 = 30_000_000;

/// Plants mutants in every kernel that the options name and prints what became of them.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    if args.backend != CheckBackend::Emulator {
        let message = "mutants run on the emulator alone: leave --backend out, or give --backend emulator";
        return Err(Failure::new(Kind::Usage, message));
    }
    let started = Instant::now();
    let mut outcomes = Vec::new();
    let mut skipped = Vec::new();
    for &arch in &args.arch {
        skipped.extend(planted(args, arch, &mut outcomes)?);
    }
    if outcomes.is_empty() && skipped.is_empty() {
        let filters = args.filter.join(", ");
        let message = format!("no kernel matches --filter {filters}; nabla kernels list shows their names");
        return Err(Failure::new(Kind::Usage, message));
    }
    print(&outcomes, started.elapsed().as_secs_f64())?;
    let mut out = anstream::stdout().lock();
    for (name, reason) in &skipped {
        writeln!(out, "skipped {name}: {reason}")?;
    }
    drop(out);
    if let Some(path) = &args.json {
        let all = json!({ "schema": super::json::SCHEMA, "mutants": outcomes.iter().map(value).collect::<Vec<_>>() });
        let text = serde_json::to_string_pretty(&all).map_err(|e| Failure::new(Kind::Output, e))?;
        super::write(path, &(text + "\n"))?;
    }
    let missed = outcomes.iter().filter(|outcome| outcome.result == MutantResult::Missed).count();
    if missed == 0 {
        return Ok(());
    }
    let message = format!("{missed} of {} mutants passed as clean; they are listed above", outcomes.len());
    Err(Failure::new(Kind::Incorrect, message))
}

/// Runs one architecture, several kernels at once; returns the kernels that it cannot run, with the reason.
fn planted(
    args: &CheckArgs,
    arch: EmulatedArch,
    outcomes: &mut Vec<MutantOutcome>,
) -> Result<Vec<(String, String)>, Failure> {
    let name = |instance: &Instance| format!("{} {}", variant_id(instance), arch.name());
    let wanted = |instance: &&Instance| {
        args.filter.is_empty() || args.filter.iter().any(|filter| name(instance).contains(filter.as_str()))
    };
    let instances: Vec<&Instance> = INSTANCES.iter().filter(wanted).collect();
    let bar = super::spinner(&format!("mutants {}", arch.name()));
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(instances.len());
    let work = || -> Result<Vec<(usize, Planted)>, Failure> {
        let backends = backends(args, arch)?;
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Relaxed);
            let Some(instance) = instances.get(at) else { return Ok(done) };
            if let Err(ineligible) = backends[0].fits(instance) {
                done.push((at, Planted::Skipped(ineligible.reason)));
                continue;
            }
            let all: Vec<&dyn KernelBackend> = backends.iter().map(|backend| &**backend).collect();
            let planted = check_mutants(&all, instance, &mut |outcome| {
                bar.set_message(format!("{} line {}", name(instance), outcome.line));
                bar.inc(1);
            })?;
            // The table comes when all are done, which takes long: who ends it before keeps these.
            let mut row = Row::default();
            planted.iter().for_each(|outcome| row.add(outcome));
            let Row { planted: all, reported, missed, seconds, .. } = row;
            bar.suspend(|| {
                anstream::eprintln!(
                    "{}: {all} planted, {reported} reported, {missed} missed in {seconds:.0} s",
                    name(instance)
                );
            });
            done.push((at, Planted::Done(planted)));
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    bar.finish_and_clear();
    let mut all = Vec::new();
    for result in results {
        let ended =
            result.map_err(|_| Failure::new(Kind::Device, "a thread that ran mutants ended early"))?;
        all.extend(ended?);
    }
    all.sort_by_key(|(at, _)| *at);
    let mut skipped = Vec::new();
    for (at, planted) in all {
        match planted {
            Planted::Done(planted) => outcomes.extend(planted),
            Planted::Skipped(reason) => skipped.push((name(instances[at]), reason)),
        }
    }
    Ok(skipped)
}

/// What came of one kernel.
enum Planted {
    Done(Vec<MutantOutcome>),
    Skipped(String),
}

/// Makes the devices a mutant runs on until one reports it: late completion shows missing waits, eager completion what is
/// overwritten too early, other orders of the warps what needs one of them to be ahead.
fn backends(args: &CheckArgs, arch: EmulatedArch) -> Result<Vec<Box<dyn KernelBackend>>, Failure> {
    let ways = [(false, None), (true, None), (false, Some(1)), (true, Some(2)), (false, Some(3))];
    let make = |(eager, schedule_seed)| {
        let kernel_cache = args.kernel_cache.clone();
        let instruction_budget = Some(BUDGET);
        let usual = EmulatorOptions::default();
        emulator_backend(&EmulatorOptions {
            arch,
            kernel_cache,
            eager,
            instruction_budget,
            schedule_seed,
            ..usual
        })
    };
    let backends = ways.into_iter().map(make).collect::<Result<Vec<_>, _>>()?;
    backends[0].kernels_ready()?;
    Ok(backends)
}

#[derive(Default)]
struct Row {
    planted: usize,
    reported: usize,
    equivalent: usize,
    not_modelled: usize,
    missed: usize,
    seconds: f64,
}

impl Row {
    fn add(&mut self, outcome: &MutantOutcome) {
        self.planted += 1;
        self.seconds += outcome.seconds;
        match outcome.result {
            MutantResult::Reported(_) => self.reported += 1,
            MutantResult::Equivalent(_) => self.equivalent += 1,
            MutantResult::NotModelled(_) => self.not_modelled += 1,
            MutantResult::Missed => self.missed += 1,
        }
    }
}

fn print(outcomes: &[MutantOutcome], seconds: f64) -> Result<(), Failure> {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for outcome in outcomes {
        rows.entry((&outcome.arch, &outcome.subject)).or_default().add(outcome);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "arch",
        "kernel",
        "planted",
        "reported",
        "no bug",
        "not modelled",
        "missed",
        "seconds",
    ]);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for ((arch, subject), row) in rows {
        table.add_row([
            arch.to_owned(),
            subject.to_owned(),
            row.planted.to_string(),
            row.reported.to_string(),
            row.equivalent.to_string(),
            row.not_modelled.to_string(),
            row.missed.to_string(),
            format!("{:.1}", row.seconds),
        ]);
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", table.trim_fmt())?;
    let count = |is: fn(&MutantResult) -> bool| outcomes.iter().filter(|o| is(&o.result)).count();
    writeln!(
        out,
        "{} mutants: {} reported, {} no bug, {} not modelled, {} missed in {seconds:.1} s\n",
        outcomes.len(),
        count(|r| matches!(r, MutantResult::Reported(_))),
        count(|r| matches!(r, MutantResult::Equivalent(_))),
        count(|r| matches!(r, MutantResult::NotModelled(_))),
        count(|r| *r == MutantResult::Missed)
    )?;
    for MutantOutcome { subject, arch, line, text, change, result, .. } in outcomes {
        let (word, reason) = match result {
            MutantResult::Reported(_) => continue,
            MutantResult::Equivalent(reason) => ("no bug", reason.as_str()),
            MutantResult::NotModelled(reason) => ("not modelled", *reason),
            MutantResult::Missed => ("MISSED", ""),
        };
        let told = format!("{word} {arch} {subject} line {line}: {text}: {change}");
        let told = if reason.is_empty() { told } else { format!("{told}: {reason}") };
        writeln!(out, "{told}")?;
    }
    Ok(())
}

fn value(outcome: &MutantOutcome) -> Value {
    let (status, reason) = match &outcome.result {
        MutantResult::Reported(reason) => ("reported", Some(reason.as_str())),
        MutantResult::Equivalent(reason) => ("no_bug", Some(reason.as_str())),
        MutantResult::NotModelled(reason) => ("not_modelled", Some(*reason)),
        MutantResult::Missed => ("missed", None),
    };
    json!({
        "kernel": outcome.subject,
        "arch": outcome.arch,
        "line": outcome.line,
        "text": outcome.text,
        "change": outcome.change,
        "status": status,
        "reason": reason,
        "seconds": outcome.seconds,
    })
}
