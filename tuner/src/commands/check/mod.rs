//! `nabla check`: every kernel on a catalogue of problems, held against float64.

mod json;
mod junit;
mod mutants;
mod summary;

use std::{fs, io::IsTerminal as _, path::Path, time::Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nabla_host::{
    backend::{CudaOptions, EmulatedArch, EmulatorOptions, KernelBackend, cuda_backend, emulator_backend},
    check::{Outcome, Verdict, check_against, check_kernels, check_tiles},
    codegen::instances::INSTANCES,
};

use crate::{
    cli::{CheckArgs, CheckBackend, CompletionName, NumericsName},
    failure::{Failure, Kind},
    input,
};

/// One device, in one manner of running, with what came of every check on it.
#[derive(Debug)]
struct Suite {
    /// Name of the backend.
    backend: &'static str,
    /// Model name.
    device: String,
    /// Driver version, for a GPU.
    driver: Option<String>,
    /// What tells it from the other suites of the run, such as `emulator sm_80 late`.
    name: String,
    outcomes: Vec<Outcome>,
    seconds: f64,
}

impl Suite {
    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| is(&outcome.verdict)).count()
    }

    /// Passed, failed, skipped.
    fn counts(&self) -> [usize; 3] {
        [
            self.count(|v| *v == Verdict::Passed),
            self.count(|v| matches!(v, Verdict::Failed(_))),
            self.count(|v| matches!(v, Verdict::Skipped(_))),
        ]
    }
}

/// Checks, prints a table, and writes the files asked for.
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    if args.mutants {
        return mutants::run(args);
    }
    let suites = suites(args)?;
    let [passed, failed, skipped] = suites.iter().fold([0; 3], |sum, suite| {
        let counts = suite.counts();
        [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]]
    });
    if passed + failed + skipped == 0 {
        let filters = args.filter.join(", ");
        return Err(Failure::new(
            Kind::Usage,
            format!("no check matches --filter {filters}; nabla kernels list shows the names of kernels"),
        ));
    }
    summary::print(&suites)?;
    if let Some(path) = &args.json {
        write(path, &json::text(&suites)?)?;
    }
    if let Some(path) = &args.junit {
        write(path, &junit::text(&suites))?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Incorrect,
        format!("{failed} of {} checks failed; their reasons are above", passed + failed),
    ))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|e| Failure::write(path, &e))?;
    anstream::println!("{}", path.display());
    Ok(())
}

fn suites(args: &CheckArgs) -> Result<Vec<Suite>, Failure> {
    if args.against.is_some() {
        return against(args);
    }
    match args.backend {
        CheckBackend::Cpu => {
            let backend = input::cpu_backend(&args.cpu())?;
            let name = format!("cpu {}", nabla_host::backend::Backend::device(&backend).isa);
            let suite = suite(args, name, &backend, |filter, sink| check_tiles(&backend, filter, sink))?;
            Ok(vec![suite])
        }
        CheckBackend::Cuda => {
            let options = CudaOptions { device: args.device, kernel_cache: args.kernel_cache.clone() };
            Ok(vec![kernels(args, "cuda".to_owned(), &*cuda_backend(&options)?)?])
        }
        CheckBackend::Emulator => {
            let mut suites = Vec::new();
            for &arch in &args.arch {
                for &completion in &args.completion {
                    suites.push(emulated(args, arch, completion)?);
                }
            }
            Ok(suites)
        }
    }
}

/// Compares a device with the emulator of the architecture its kernels are for.
fn against(args: &CheckArgs) -> Result<Vec<Suite>, Failure> {
    let emulator = |arch, eager| {
        emulator_backend(&EmulatorOptions {
            arch,
            kernel_cache: args.kernel_cache.clone(),
            eager,
            // What the device sums on tensor cores, the emulator sums as they do.
            chip_numerics: true,
            ..EmulatorOptions::default()
        })
    };
    match args.backend {
        CheckBackend::Cpu => {
            let message = "the CPU's kernels are not PTX: expected --backend cuda or emulator with --against";
            Err(Failure::new(Kind::Usage, message))
        }
        CheckBackend::Cuda => {
            let options = CudaOptions { device: args.device, kernel_cache: args.kernel_cache.clone() };
            let device = cuda_backend(&options)?;
            let instance = INSTANCES.iter().find(|instance| device.fits(instance).is_ok());
            let Some(instance) = instance else {
                return Err(Failure::new(Kind::Device, "the device can run none of the kernels"));
            };
            let arch: EmulatedArch = device.code(instance)?.arch.parse()?;
            Ok(vec![compared(
                args,
                &format!("cuda against the emulator of {}", arch.name()),
                [&*device, &*emulator(arch, false)?],
            )?])
        }
        // Completing at once is another manner of running the same code: the results may not depend on it.
        CheckBackend::Emulator => {
            let archs = args.arch.iter().map(|&arch| {
                let name = format!("emulator of {} eager against late", arch.name());
                compared(args, &name, [&*emulator(arch, true)?, &*emulator(arch, false)?])
            });
            archs.collect()
        }
    }
}

fn compared(
    args: &CheckArgs,
    name: &str,
    [device, other]: [&dyn KernelBackend; 2],
) -> Result<Suite, Failure> {
    device.kernels_ready()?;
    suite(args, name.to_owned(), device, |filter, sink| check_against(device, other, INSTANCES, filter, sink))
}

fn emulated(args: &CheckArgs, arch: EmulatedArch, completion: CompletionName) -> Result<Suite, Failure> {
    let eager = completion == CompletionName::Eager;
    let mut options = EmulatorOptions {
        arch,
        kernel_cache: args.kernel_cache.clone(),
        eager,
        chip_numerics: args.numerics == NumericsName::Chip,
        ..EmulatorOptions::default()
    };
    let mut name = format!("emulator {} {}", arch.name(), if eager { "eager" } else { "late" });
    let mut whole: Option<Suite> = None;
    if args.seeds > 0 {
        name = format!("{name}, {} seeds", args.seeds);
    }
    let seeds = (1..=u64::from(args.seeds)).map(Some);
    for seed in if args.seeds > 0 { seeds.collect() } else { vec![None] } {
        options.schedule_seed = seed;
        let backend = emulator_backend(&options)?;
        backend.kernels_ready()?;
        let suite = kernels(args, name.clone(), &*backend)?;
        match &mut whole {
            None => whole = Some(suite),
            Some(whole) => {
                whole.outcomes.extend(suite.outcomes);
                whole.seconds += suite.seconds;
            }
        }
    }
    whole.ok_or_else(|| Failure::new(Kind::Usage, "expected at least one seed"))
}

fn kernels(args: &CheckArgs, name: String, backend: &dyn KernelBackend) -> Result<Suite, Failure> {
    suite(args, name, backend, |filter, sink| check_kernels(backend, INSTANCES, filter, sink))
}

/// Runs one suite with a bar on a terminal.
fn suite<B: nabla_host::backend::Backend + ?Sized>(
    args: &CheckArgs,
    name: String,
    backend: &B,
    check: impl FnOnce(
        &dyn Fn(&str, &str) -> bool,
        &mut dyn FnMut(Outcome),
    ) -> Result<(), nabla_host::check::CheckError>,
) -> Result<Suite, Failure> {
    let device = backend.device().clone();
    let bar = spinner(&name);
    let wanted = |subject: &str, case: &str| {
        args.filter.is_empty()
            || args.filter.iter().any(|filter| format!("{subject} on {case}").contains(filter.as_str()))
    };
    let started = Instant::now();
    let mut outcomes = Vec::new();
    check(&wanted, &mut |outcome| {
        bar.set_message(format!("{} on {}", outcome.subject, outcome.case));
        bar.inc(1);
        outcomes.push(outcome);
    })?;
    bar.finish_and_clear();
    Ok(Suite {
        backend: device.backend,
        device: device.name,
        driver: device.driver,
        name,
        outcomes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn spinner(name: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target).with_prefix(name.to_owned());
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {prefix}: {pos} checks  {msg}") {
        bar.set_style(style);
    }
    bar
}
