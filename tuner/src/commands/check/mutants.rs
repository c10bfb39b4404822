//! `nabla check --mutants`: whether the emulator reports every weakened synchronisation of the shipped code.

use std::{collections::BTreeMap, io::Write, time::Instant};

use comfy_table::{CellAlignment, Table, presets};
use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, KernelBackend, emulator_backend},
    check::{MutantOutcome, MutantResult, check_mutants},
    codegen::{instances::INSTANCES, variant_id},
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

/// Runs one architecture; returns the kernels that it cannot run, with the reason.
fn planted(
    args: &CheckArgs,
    arch: EmulatedArch,
    outcomes: &mut Vec<MutantOutcome>,
) -> Result<Vec<(String, String)>, Failure> {
    let kernel_cache = args.kernel_cache.clone();
    let options = EmulatorOptions {
        arch,
        kernel_cache,
        instruction_budget: Some(BUDGET),
        ..EmulatorOptions::default()
    };
    // Late completion shows missing waits, eager completion what is overwritten too early, other orders of the warps what
    // needs one of them to be ahead.
    let make =
        |eager, schedule_seed| emulator_backend(&EmulatorOptions { eager, schedule_seed, ..options.clone() });
    let late = make(false, None)?;
    let others = [make(true, None)?, make(false, Some(1))?, make(true, Some(2))?, make(false, Some(3))?];
    late.kernels_ready()?;
    let bar = super::spinner(&format!("mutants {}", arch.name()));
    let mut skipped = Vec::new();
    for instance in INSTANCES {
        let name = format!("{} {}", variant_id(instance), arch.name());
        if !args.filter.is_empty() && !args.filter.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        if let Err(ineligible) = late.fits(instance) {
            skipped.push((name, ineligible.reason));
            continue;
        }
        let mut backends: Vec<&dyn KernelBackend> = vec![&*late];
        backends.extend(others.iter().map(|backend| &**backend));
        outcomes.extend(check_mutants(&backends, instance, &mut |outcome| {
            bar.set_message(format!("{name} line {}", outcome.line));
            bar.inc(1);
        })?);
    }
    bar.finish_and_clear();
    Ok(skipped)
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

fn print(outcomes: &[MutantOutcome], seconds: f64) -> Result<(), Failure> {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for outcome in outcomes {
        let row = rows.entry((&outcome.arch, &outcome.subject)).or_default();
        row.planted += 1;
        row.seconds += outcome.seconds;
        match outcome.result {
            MutantResult::Reported(_) => row.reported += 1,
            MutantResult::Equivalent(_) => row.equivalent += 1,
            MutantResult::NotModelled(_) => row.not_modelled += 1,
            MutantResult::Missed => row.missed += 1,
        }
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
