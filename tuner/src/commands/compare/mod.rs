//! `nabla compare`: whether a change made anything slower, decided on this machine and now.
//!
//! Two builds take turns, pair by pair; no stored time takes part. Only what is slower and slower again in fresh processes
//! is a failure; what is faster has to be so twice as well.

mod duel;
mod side;

use std::{io::Write, path::Path, time::Duration};

use comfy_table::{Table, presets};
use nabla_reports::{Comparison, Protocol, RunHeader, SCHEMA_VERSION};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use self::{
    duel::{BASE, Duel, HEAD},
    side::Side,
};
use crate::{
    cli::{BackendName, CompareArgs},
    failure::{Failure, Kind},
    lock::DeviceLock,
    measure::{Bench, Clocks, On, Paired, Pairing},
    output,
    stats::{Finding, Margin, Verdict},
    store::Store,
    sweep::now,
    tune::{comparison_row, name_of, targets},
    worker::{Hello, Isolated, Limits, Target, watch_for_interrupts},
};

/// Time to load a problem, compute its reference and compile a kernel in.
const VERIFY: Duration = Duration::from_secs(600);

/// What one problem came to.
#[derive(Debug, Clone, Serialize)]
struct Compared {
    /// Name of the problem.
    problem: String,
    /// Noise floor of base against itself, as a ratio's distance from 1.
    noise_floor: f64,
    /// The comparison, and the repetition in fresh processes where the first found a difference.
    comparisons: Vec<Comparison>,
    /// Whether too many samples were taken while something else used the machine.
    contended: bool,
    /// Why there is no verdict, if there is none.
    failed: Option<String>,
    /// Whether it is head's output that is wrong or missing.
    head_failed: bool,
}

impl Compared {
    /// Says whether head is slower, and again when asked afresh.
    fn is_slower(&self) -> bool {
        self.is_twice(nabla_reports::record::Verdict::Slower)
    }

    fn is_twice(&self, verdict: nabla_reports::record::Verdict) -> bool {
        self.comparisons.len() > 1 && self.comparisons.iter().all(|line| line.verdict == verdict)
    }

    /// Says whether they differ, and again when asked afresh.
    fn differs(&self) -> bool {
        self.is_slower() || self.is_twice(nabla_reports::record::Verdict::Faster)
    }
}

/// Compares, or measures how often a thing seems to differ from itself.
pub(crate) fn run(args: &CompareArgs) -> Result<(), Failure> {
    watch_for_interrupts()?;
    if args.device.backend == BackendName::Emulator {
        return Err(Failure::new(Kind::Usage, "the emulator has no time to compare"));
    }
    let base = Side::find(&args.base, args)?;
    if let Some(times) = args.aa {
        return against_itself(args, &base, times);
    }
    let head = Side::find(args.head.as_deref().unwrap_or(&args.base), args)?;
    let (hello, compared) = compared(args, &base, &head, args.input.seed)?;
    write(args, &hello, &compared)?;
    print(&base, &head, &compared)?;
    let names = |pick: fn(&Compared) -> bool| -> Vec<&str> {
        compared.iter().filter(|c| pick(c)).map(|c| c.problem.as_str()).collect()
    };
    let (failed, slower) = (names(|c| c.head_failed), names(Compared::is_slower));
    if !failed.is_empty() {
        let message = format!("{} fails on {}", head.name, failed.join(", "));
        return Err(Failure::new(Kind::Incorrect, message));
    }
    if !slower.is_empty() {
        let message = format!("{} is slower than {} on {}", head.name, base.name, slower.join(", "));
        return Err(Failure::new(Kind::Slower, message));
    }
    Ok(())
}

/// Compares a thing with itself many times.
fn against_itself(args: &CompareArgs, base: &Side, times: u32) -> Result<(), Failure> {
    let mut counts = [0u32; 4];
    let (mut confirmed, mut comparisons, mut contended) = (0, 0, 0);
    for time in 0..times {
        let (_, compared) = compared(args, base, base, args.input.seed ^ u64::from(time) << 32)?;
        for compared in &compared {
            let Some(first) = compared.comparisons.first() else { continue };
            comparisons += 1;
            contended += u32::from(compared.contended);
            counts[first.verdict as usize] += 1;
            confirmed += u32::from(compared.differs());
            anstream::eprintln!(
                "{}/{times} {}: {} {:.4} [{:.4}, {:.4}], margin {}",
                time + 1,
                compared.problem,
                first.verdict.name(),
                first.ratio,
                first.ratio_low,
                first.ratio_high,
                output::percent(first.margin)
            );
        }
    }
    let [faster, slower, same, ambiguous] = counts;
    anstream::println!(
        "{comparisons} comparisons of {} with itself: {same} same, {ambiguous} ambiguous, {faster} faster, {slower} slower; \
         {confirmed} false alarms ({contended} while something else used the machine)",
        base.name
    );
    Ok(())
}

fn compared(
    args: &CompareArgs,
    base: &Side,
    head: &Side,
    seed: u64,
) -> Result<(Hello, Vec<Compared>), Failure> {
    let limits =
        Limits { verify: VERIFY, launch: Duration::from_secs(u64::from(args.problems.launch_timeout)) };
    let probe = crate::worker::Worker::start(&base.start)?;
    let hello = probe.hello().clone();
    drop(probe);
    let _lock = DeviceLock::take(&hello.backend, &hello.device, args.device.device)?;
    let targets = targets(&args.problems, &args.policies, &hello.problem)?;
    let mut duel: Option<Duel> = None;
    let mut all = Vec::new();
    for target in &targets {
        let duel = match &mut duel {
            Some(duel) => {
                duel.base.reopen(target.clone())?;
                duel.head.reopen(target.clone())?;
                duel
            }
            empty => {
                let open = |side: &Side| Isolated::open(side.start.clone(), limits, target.clone());
                let duel = Duel { base: open(base)?, head: open(head)? };
                alike(&duel)?;
                empty.insert(duel)
            }
        };
        all.push(problem(duel, target, seed)?);
    }
    Ok((hello, all))
}

/// Refuses two that do not measure the same thing.
fn alike(duel: &Duel) -> Result<(), Failure> {
    let (a, b) = (duel.base.hello(), duel.head.hello());
    for (what, a, b) in [
        ("device", &a.device, &b.device),
        ("backend", &a.backend, &b.backend),
        ("hash of the input", &a.input_hash, &b.input_hash),
    ] {
        if a != b {
            let message = format!("the two cannot be compared: expected the same {what}, got {a} and {b}");
            return Err(Failure::new(Kind::Input, message));
        }
    }
    Ok(())
}

fn problem(duel: &mut Duel, target: &Target, seed: u64) -> Result<Compared, Failure> {
    let opened = duel.base.opened().clone();
    let mut compared = Compared {
        problem: name_of(target, opened.problem.seqlen_q),
        noise_floor: 0.0,
        comparisons: Vec::new(),
        contended: false,
        failed: None,
        head_failed: false,
    };
    let configs = [opened.default.clone(), duel.head.opened().default.clone()];
    let mut variants = Vec::new();
    for (number, (config, name)) in configs.iter().zip(["base", "head"]).enumerate() {
        match duel.verify(number, config, On::Input)? {
            Ok(verified) => variants.push(verified.variant),
            Err((failed, _)) => {
                compared.failed = Some(format!("{name}: {}: {}", failed.status.name(), failed.reason));
                compared.head_failed = number == 1;
                return Ok(compared);
            }
        }
    }
    let (mut clocks, mut rng) = (Clocks::default(), ChaCha8Rng::seed_from_u64(seed));
    let floor = Pairing::floor(BASE, duel, &mut clocks, seed)?.unwrap_or(0.0);
    compared.noise_floor = floor;
    let margin = Margin::from_noise(floor);
    for stage in ["compare", "confirm"] {
        let (paired, _) = Pairing::new(BASE, &[HEAD]).run(duel, margin, &mut clocks, &mut rng, seed)?;
        let Some(Paired { finding: Some(finding), contended, .. }) = paired.first() else {
            let why = paired.first().and_then(|p| p.series.failed.as_ref());
            let why = why.map_or("too few samples".to_owned(), |failed| failed.reason.clone());
            compared.failed = Some(format!("head: {why}"));
            compared.head_failed = true;
            return Ok(compared);
        };
        compared.contended |= contended;
        compared.comparisons.push(line(duel, target, &variants, finding, stage));
        if !matches!(finding.verdict, Verdict::Slower | Verdict::Faster) {
            break;
        }
        // A difference may be that of two processes, by where their memory came to lie: once more, with nothing left of them.
        duel.renew()?;
    }
    Ok(compared)
}

fn line(duel: &Duel, target: &Target, variants: &[String], finding: &Finding, stage: &str) -> Comparison {
    let hello = duel.base.hello();
    let side = |number: usize| variants.get(number).map_or("", String::as_str);
    let (a, b) = (format!("base {}", side(0)), format!("head {}", side(1)));
    let problem = &duel.base.opened().problem;
    comparison_row((&hello.backend, &hello.device), (problem, target), (&a, &b), finding, stage)
}

#[derive(Serialize)]
struct Report<'a> {
    base: &'a str,
    head: &'a str,
    problems: &'a [Compared],
    slower: usize,
}

fn write(args: &CompareArgs, hello: &Hello, compared: &[Compared]) -> Result<(), Failure> {
    if let Some(path) = &args.json {
        let report = Report {
            base: &args.base,
            head: args.head.as_deref().unwrap_or_default(),
            problems: compared,
            slower: compared.iter().filter(|c| c.is_slower()).count(),
        };
        let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
        text.push('\n');
        std::fs::write(path, text).map_err(|e| Failure::write(path, &e))?;
    }
    if let Some(folder) = &args.out {
        log(folder, args, hello, compared)?;
    }
    Ok(())
}

fn log(folder: &Path, args: &CompareArgs, hello: &Hello, compared: &[Compared]) -> Result<(), Failure> {
    let identity = hello.identity(String::new(), &args.policies, args.input.seed);
    let header = RunHeader {
        schema: SCHEMA_VERSION,
        nabla_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity,
        started: now(),
        command: std::env::args().collect(),
        protocol: Protocol {
            warmup: 2,
            rounds: 0,
            description: format!(
                "{} against {} in A-B-B-A blocks",
                args.head.as_deref().unwrap_or_default(),
                args.base
            ),
        },
        warnings: Vec::new(),
        machine: None,
    };
    let mut store = Store::create(folder, &header)?;
    compared.iter().flat_map(|c| &c.comparisons).try_for_each(|line| store.push_comparison(line))
}

fn print(base: &Side, head: &Side, compared: &[Compared]) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "problem",
        "head / base",
        "95 % interval",
        "p",
        "margin",
        "pairs",
        "verdict",
    ]);
    for compared in compared {
        if let Some(why) = &compared.failed {
            table.add_row([compared.problem.as_str(), "", "", "", "", "", why]);
        }
        for line in &compared.comparisons {
            let again = if line.stage == "confirm" { ", again in fresh processes" } else { "" };
            let contended = if compared.contended { " (the machine was busy)" } else { "" };
            table.add_row([
                compared.problem.clone(),
                format!("{:.3}", line.ratio),
                format!("{:.3} to {:.3}", line.ratio_low, line.ratio_high),
                format!("{:.2e}", line.p_value),
                output::percent(line.margin),
                line.pairs.to_string(),
                format!("{}{again}{contended}", line.verdict.name()),
            ]);
        }
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{table}")?;
    let slower = compared.iter().filter(|c| c.is_slower()).count();
    writeln!(out, "{} against {}: {} problems, {slower} slower", head.name, base.name, compared.len())?;
    Ok(())
}
