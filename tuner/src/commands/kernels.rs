//! `nabla kernels`: which device kernels there are, their compilation, and what became of one.

use std::{
    io::{IsTerminal as _, Write},
    time::Instant,
};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, emulator_backend},
    check::{Verdict, run_usual_case},
    codegen::{
        Built, CUDA_TOOL_MISSING, CudaTool, DEFAULT_ARCHS, KernelCache, KernelStore, KernelUnit, assemble,
        instances::{INSTANCES, Instance, space::SPACES},
        listing, occupancy, variant_id,
    },
};

use super::model;
use crate::{
    cli::{KernelsBuildArgs, KernelsCommand, KernelsInspectArgs, KernelsListArgs},
    failure::{Failure, Kind},
};

/// The space of the instances that are tested and shipped.
const DEFAULT_SPACE: &str = "default";

/// Runs one of the commands about kernels.
pub(crate) fn run(command: &KernelsCommand) -> Result<(), Failure> {
    match command {
        KernelsCommand::List(args) => list(args),
        KernelsCommand::Build(args) => build(args),
        KernelsCommand::Inspect(args) => inspect(args),
    }
}

/// Returns the instances of a named space.
fn space(name: &str) -> Result<Vec<Instance>, Failure> {
    if name == DEFAULT_SPACE {
        return Ok(INSTANCES.to_vec());
    }
    let found = SPACES.iter().find(|(known, _)| *known == name);
    found.map(|(_, axes)| axes.instances().collect()).ok_or_else(|| {
        let names: Vec<&str> = SPACES.iter().map(|(known, _)| *known).collect();
        let message = format!("unknown space '{name}': expected {DEFAULT_SPACE}, {}", names.join(", "));
        Failure::new(Kind::Usage, message)
    })
}

fn table(header: &[&str], right: impl Fn(usize) -> bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        if right(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn list(args: &KernelsListArgs) -> Result<(), Failure> {
    let mut table = table(&["id", "kernel", "threads", "shared bytes", "archs"], |i| i == 2 || i == 3);
    let instances = space(&args.space)?;
    for instance in &instances {
        table.add_row([
            variant_id(instance),
            instance.kernel.name().to_owned(),
            instance.threads().to_string(),
            instance.shared_bytes().to_string(),
            // Kernels for the portable instruction set run on every later architecture, too.
            DEFAULT_ARCHS.into_iter().filter(|arch| builds_for(instance, arch)).collect::<Vec<_>>().join(" "),
        ]);
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(out, "{} kernels", instances.len())?;
    Ok(())
}

fn builds_for(instance: &Instance, arch: &str) -> bool {
    instance.kernel.arch().builds_for(arch).is_ok()
}

fn build(args: &KernelsBuildArgs) -> Result<(), Failure> {
    let units = space(&args.space)?.iter().map(KernelUnit::of).collect::<Result<Vec<_>, _>>()?;
    let store = KernelStore::open(args.cache.kernel_cache.as_deref())?;
    let compiler = store.compiler()?;
    anstream::eprintln!("toolchain  {}", compiler.toolchain().version);
    match compiler.ptxas() {
        Some(ptxas) => anstream::eprintln!("ptxas      {}", ptxas.version),
        None => anstream::eprintln!("ptxas      {CUDA_TOOL_MISSING}; registers and spills are not checked"),
    }
    for arch in &args.arch {
        let start = Instant::now();
        compiler.prepare(arch)?;
        anstream::eprintln!("core       {arch}, {:.1} s", start.elapsed().as_secs_f64());
    }
    let (mut requests, mut skipped) = (Vec::<(KernelUnit, String)>::new(), Vec::new());
    for arch in &args.arch {
        for unit in &units {
            match unit.builds_for(arch) {
                Ok(()) => requests.push((unit.clone(), arch.clone())),
                Err(reason) => skipped.push(reason),
            }
        }
    }
    // What only one architecture has is no failure when all are asked for; what nothing was built for is.
    skipped.iter().for_each(|reason| anstream::eprintln!("skipped    {reason}"));

    let bar = progress_bar(requests.len());
    let start = Instant::now();
    let results = compiler.build_many(&requests, args.jobs.unwrap_or(0) as usize, |index, _| {
        bar.set_message(requests[index].0.id.clone());
        bar.inc(1);
    });
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let mut table = table(
        &["id", "arch", "registers", "static smem", "dynamic smem", "spills", "rustc s", "ptxas s", ""],
        |i| (2..8).contains(&i),
    );
    let (mut built, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(variant) => {
                table.add_row(row(&variant));
                built.push(variant);
            }
            Err(error) => failures.push(error),
        }
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", table.trim_fmt())?;
    let new: Vec<&Built> = built.iter().filter(|v| !v.cached).collect();
    write!(out, "{} built in {seconds:.1} s, {} of them cached", built.len(), built.len() - new.len())?;
    if !new.is_empty() {
        let times = |seconds: fn(&Built) -> f64| {
            let (sum, slowest) = new
                .iter()
                .fold((0f64, 0f64), |(sum, max), built| (sum + seconds(built), max.max(seconds(built))));
            format!("{:.2} s on average, {slowest:.2} s at most", sum / new.len() as f64)
        };
        write!(out, "; new ones took rustc {}, ptxas {}", times(|b| b.seconds), times(|b| b.ptxas_seconds))?;
    }
    writeln!(out)?;
    if let Some(folder) = &args.out {
        // What a driver would compile at the first launch, compiled now.
        let built = if args.no_cubin { built } else { compiler.with_machine_code(built)? };
        let with = built.iter().filter_map(|variant| Some(variant.cubin.as_ref()?.len()));
        let (count, bytes) = with.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        writeln!(out, "machine code of {count} of {}, {:.1} MB", built.len(), bytes as f64 / 1e6)?;
        KernelCache::write(folder, &compiler.toolchain().version, compiler.sources().hash(), &built)
            .map_err(|error| Failure::new(Kind::Output, error))?;
        writeln!(out, "{}", folder.display())?;
    }
    match failures.as_slice() {
        [] => Ok(()),
        failures => {
            let list: Vec<String> = failures.iter().map(ToString::to_string).collect();
            let message =
                format!("{} of {} kernels failed:\n{}", failures.len(), requests.len(), list.join("\n"));
            Err(Failure::new(Kind::Build, message))
        }
    }
}

fn row(variant: &Built) -> Vec<String> {
    let known = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let resources = variant.resources.as_ref();
    vec![
        variant.id.clone(),
        variant.arch.clone(),
        known(resources.map(|r| r.registers.to_string())),
        known(resources.map(|r| r.shared_bytes.to_string())),
        variant.shared_bytes.to_string(),
        known(resources.map(|r| (r.spill_stores + r.spill_loads).to_string())),
        format!("{:.2}", variant.seconds),
        format!("{:.2}", variant.ptxas_seconds),
        if variant.cached { "cached".to_owned() } else { String::new() },
    ]
}

fn progress_bar(length: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {bar:40} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn inspect(args: &KernelsInspectArgs) -> Result<(), Failure> {
    let instance = find(&args.id)?;
    let unit = KernelUnit::of(&instance)?;
    let store = KernelStore::open(args.cache.kernel_cache.as_deref())?;
    let built = store.get_unit(&unit, &args.arch)?;
    let mut out = anstream::stdout().lock();
    if args.ptx {
        write!(out, "{}", built.ptx)?;
        return Ok(());
    }
    let sass = disassembled(&built);
    if args.model {
        let arch = args.arch.parse::<EmulatedArch>().map_err(|error| Failure::new(Kind::Usage, error))?;
        let options = (arch, args.cache.kernel_cache.clone());
        let sass = sass.as_deref().ok();
        return model::run(&mut out, &instance, &built, sass, options, args.json);
    }
    if args.sass {
        let sass = sass.map_err(|reason| Failure::new(Kind::Device, reason))?;
        write!(out, "{sass}")?;
        return Ok(());
    }

    writeln!(out, "id         {}", built.id)?;
    writeln!(out, "arch       {}", built.arch)?;
    writeln!(out, "entry      {}", built.entry)?;
    let constants: Vec<String> =
        built.constants.iter().map(|(name, value)| format!("{name}={value}")).collect();
    writeln!(out, "constants  {}", constants.join(" "))?;
    writeln!(out, "ptx        {}", built.ptx_path.display())?;
    let how = if built.cached { "cached, built in" } else { "built in" };
    writeln!(out, "compiled   {how} {:.2} s, assembled in {:.2} s", built.seconds, built.ptxas_seconds)?;
    writeln!(out, "threads    {}", built.threads)?;
    writeln!(out, "shared     {} bytes dynamic", built.shared_bytes)?;
    match &built.resources {
        Some(r) => {
            writeln!(out, "registers  {}", r.registers)?;
            writeln!(out, "static     {} bytes shared, {} bytes constant", r.shared_bytes, r.constant_bytes)?;
            writeln!(
                out,
                "local      {} bytes stack, {} bytes spill stores, {} bytes spill loads",
                r.stack_bytes, r.spill_stores, r.spill_loads
            )?;
            r.messages.iter().try_for_each(|message| writeln!(out, "ptxas      {message}"))?;
            for sm in occupancy::GPUS {
                let held = sm.occupancy(built.threads, r.registers, r.shared_bytes + built.shared_bytes);
                writeln!(
                    out,
                    "{:<10} {} blocks, {} of {} warps per multiprocessor, limited by {}",
                    sm.gpu,
                    held.blocks,
                    held.warps,
                    sm.threads / 32,
                    held.limited_by
                )?;
            }
        }
        None => writeln!(out, "registers  ptxas {CUDA_TOOL_MISSING}")?,
    }
    writeln!(out)?;
    writeln!(out, "PTX instructions")?;
    write_counts(&mut out, listing::ptx_opcodes(&built.ptx))?;
    writeln!(out)?;
    writeln!(out, "machine instructions")?;
    match sass {
        Ok(sass) => write_counts(&mut out, listing::sass_opcodes(&sass))?,
        Err(reason) => writeln!(out, "  {reason}")?,
    }
    writeln!(out)?;
    executed(&mut out, args, &instance)
}

/// Prints what one launch executes, counted by the emulator.
fn executed(out: &mut impl Write, args: &KernelsInspectArgs, instance: &Instance) -> Result<(), Failure> {
    let arch = match args.arch.parse::<EmulatedArch>() {
        Ok(arch) => arch,
        Err(error) => {
            writeln!(out, "executed   not on the emulator: {error}")?;
            return Ok(());
        }
    };
    let kernel_cache = args.cache.kernel_cache.clone();
    let backend = emulator_backend(&EmulatorOptions { arch, kernel_cache, ..EmulatorOptions::default() })?;
    let Some(outcome) = run_usual_case(&*backend, instance)? else {
        writeln!(out, "executed   no case of the catalogue is for this kernel")?;
        return Ok(());
    };
    writeln!(out, "executed on the case `{}`, counted by the emulator: no times", outcome.case)?;
    if let Verdict::Failed(reason) | Verdict::Skipped(reason) = &outcome.verdict {
        writeln!(out, "  {reason}")?;
    }
    for (name, count) in outcome.counts.iter().filter(|(_, count)| **count > 0) {
        writeln!(out, "  {count:>10}  {name}")?;
    }
    Ok(())
}

/// Finds an instance by its id: those shipped, then every point of every space.
fn find(id: &str) -> Result<Instance, Failure> {
    let spaces = SPACES.iter().flat_map(|(_, axes)| axes.instances());
    let found = INSTANCES.iter().copied().chain(spaces).find(|instance| variant_id(instance) == id);
    let unknown = || {
        Failure::new(Kind::Usage, format!("no kernel has the id '{id}'; `nabla kernels list` has them all"))
    };
    found.ok_or_else(unknown)
}

/// Returns the machine code as text, or why there is none.
fn disassembled(built: &Built) -> Result<String, String> {
    let missing = |tool: &str| format!("{tool} {CUDA_TOOL_MISSING}");
    let ptxas = CudaTool::ptxas().ok_or_else(|| missing("ptxas"))?;
    let nvdisasm = CudaTool::nvdisasm().ok_or_else(|| missing("nvdisasm"))?;
    let (_, cubin) = assemble(&ptxas, &built.ptx, &built.arch).map_err(|error| error.to_string())?;
    listing::disassemble(&nvdisasm, &cubin).map_err(|error| error.to_string())
}

/// Prints the most frequent opcodes, longest counts first.
fn write_counts(
    out: &mut impl Write,
    opcodes: std::collections::BTreeMap<String, usize>,
) -> std::io::Result<()> {
    const SHOWN: usize = 24;
    let total: usize = opcodes.values().sum();
    let mut counts: Vec<(String, usize)> = opcodes.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (opcode, count) in counts.iter().take(SHOWN) {
        writeln!(out, "  {count:>6}  {opcode}")?;
    }
    let rest: usize = counts.iter().skip(SHOWN).map(|(_, count)| count).sum();
    if rest > 0 {
        writeln!(out, "  {rest:>6}  others ({} opcodes)", counts.len() - SHOWN)?;
    }
    writeln!(out, "  {total:>6}  in all")
}
