//! `nabla kernels inspect --model`: what a kernel needs of each part of a GPU, and what that allows at best.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use nabla_host::{
    Dtype, Problem,
    backend::{EmulatedArch, EmulatorOptions, emulator_backend},
    codegen::{Built, instances::Instance, instances::Kernel, listing, variant_id},
    model::{
        Fit, LEFT_OUT, MACHINES, Machine, MaskLoad, ModelError, Part, Prediction, Work, analytic, clocks,
        measure, predict,
    },
    variant::MaskBlock,
};
use serde_json::{Value, json};

use crate::failure::{Failure, Kind};

/// Key tokens of a head that predictions are made for.
const SEQLENS: [usize; 4] = [8_192, 32_768, 119_040, 234_240];
/// Shares of the blocks that are kept, in per cent.
const DENSITIES: [u32; 6] = [10, 20, 40, 60, 80, 100];
/// Heads of the predictions: enough to fill every GPU.
const HEADS: usize = 32;
/// Clocks are those of parts that a multiprocessor has, memory and chain apart.
const CLOCKED: [Part; 6] = [Part::Tensor, Part::Special, Part::Fp32, Part::Issue, Part::Shared, Part::L2];

/// One prediction with what it is for.
struct Row {
    machine: Machine,
    seqlen: usize,
    density: u32,
    prediction: Prediction,
}

/// Prints the model of a built kernel; `sass` is its machine code where there is a disassembler.
pub(super) fn run(
    out: &mut impl Write,
    instance: &Instance,
    built: &Built,
    sass: Option<&str>,
    options: (EmulatedArch, Option<std::path::PathBuf>),
    as_json: bool,
) -> Result<(), Failure> {
    let (arch, kernel_cache) = options;
    let quick = EmulatorOptions { arch, kernel_cache, races: false, ..EmulatorOptions::default() };
    let backend = emulator_backend(&quick)?;
    let measured = measure(&*backend, instance).map_err(failure)?;
    let machines: Vec<Machine> =
        MACHINES.into_iter().filter(|machine| machine.arch == built.arch && machine.runs(instance)).collect();
    let rows: Vec<Row> =
        machines.iter().flat_map(|machine| predictions(instance, built, &measured, machine)).collect();
    let hot = sass.and_then(listing::hot_loop);
    if as_json {
        let text = serde_json::to_string_pretty(&to_json(instance, built, &measured, &rows, hot.as_ref()))
            .map_err(|error| Failure::new(Kind::Output, error))?;
        writeln!(out, "{text}")?;
        return Ok(());
    }
    write_text(out, instance, built, &measured, &machines, &rows)?;
    match hot {
        Some(hot) => {
            let total: usize = hot.values().sum();
            let families = listing::by_family(&hot);
            let mix: Vec<String> =
                families.iter().take(12).map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(out, "hot loop   {total} machine instructions, all branches: {}", mix.join(", "))?;
        }
        None => writeln!(out, "hot loop   not known: no disassembler, or no loop with matrix products")?,
    }
    writeln!(out)?;
    writeln!(out, "left out, so that launches take longer:")?;
    LEFT_OUT.iter().try_for_each(|what| writeln!(out, "  {what}"))?;
    Ok(())
}

fn failure(error: ModelError) -> Failure {
    match error {
        ModelError::NotModelled(_) => Failure::new(Kind::Usage, error),
        ModelError::Launch(error) => error.into(),
        error => Failure::new(Kind::Device, error),
    }
}

/// Counts the blocks of threads that a multiprocessor holds: by the assembler's registers, or as the kernel asks.
fn resident(instance: &Instance, built: &Built, machine: &Machine) -> u32 {
    let held = machine.limits().zip(built.resources.as_ref()).map(|(limits, resources)| {
        limits
            .occupancy(built.threads, resources.registers, resources.shared_bytes + built.shared_bytes)
            .blocks
    });
    held.unwrap_or_else(|| instance.min_blocks_per_sm()).max(1)
}

/// Returns the mask block of the predictions: 64 tokens where the kernel's tile fits it.
fn block(instance: &Instance) -> MaskBlock {
    match instance.kernel {
        Kernel::Select => MaskBlock::square(64),
        _ => MaskBlock {
            q_block: (instance.query_rows() as usize).max(64),
            kv_block: (instance.constants.block_n as usize).max(64),
        },
    }
}

fn predictions(instance: &Instance, built: &Built, measured: &Fit, machine: &Machine) -> Vec<Row> {
    let resident = resident(instance, built, machine);
    // Others do not depend on it, or hardly.
    let densities = if instance.kernel.is_sparse() { &DENSITIES[..] } else { &[100] };
    // A longer row has no room.
    let holds = |seqlen: usize| {
        instance.kernel != Kernel::Select
            || seqlen.div_ceil(block(instance).kv_block) <= instance.constants.max_kv_blocks as usize
    };
    SEQLENS
        .into_iter()
        .filter(|&seqlen| holds(seqlen))
        .flat_map(|seqlen| densities.iter().map(move |&density| (seqlen, density)))
        .map(|(seqlen, density)| {
            let head_dim = instance.constants.head_dim as usize;
            let problem = Problem {
                batch: 1,
                heads: HEADS,
                seqlen_q: seqlen,
                seqlen_k: seqlen,
                head_dim,
                dtype: Dtype::Bf16,
                softmax_scale: Problem::default_scale(head_dim),
                grid: None,
            };
            let load = MaskLoad::independent(block(instance), f64::from(density) / 100.0);
            let prediction = predict(&measured.costs, machine, instance, &problem, &load, resident);
            Row { machine: *machine, seqlen, density, prediction }
        })
        .collect()
}

fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn write_text(
    out: &mut impl Write,
    instance: &Instance,
    built: &Built,
    measured: &Fit,
    machines: &[Machine],
    rows: &[Row],
) -> Result<(), Failure> {
    writeln!(out, "id         {}", variant_id(instance))?;
    writeln!(out, "arch       {}", built.arch)?;
    writeln!(
        out,
        "counts     of the emulator; a launch held out is within {:.2} % of what its units add up to",
        100.0 * measured.residual
    )?;
    writeln!(out)?;
    writeln!(out, "clocks of a multiprocessor")?;
    let names = CLOCKED.map(Part::name);
    let header: Vec<&str> = ["gpu", "unit", "costs of"].into_iter().chain(names).collect();
    let mut units = table(&header, 3);
    for machine in machines {
        for (source, costs) in [("counts", Some(measured.costs)), ("constants", analytic(instance))] {
            let Some(costs) = costs else { continue };
            for (unit, work) in [("block", costs.block), ("load", costs.load), ("tile", costs.tile)] {
                if work == Work::default() {
                    continue;
                }
                let numbers =
                    clocks(&work, machine, instance.kernel.arch()).map(|x| format!("{:.0}", x.round() + 0.0));
                let labels = [machine.name, unit, source].map(str::to_owned);
                units.add_row(labels.into_iter().chain(numbers));
            }
        }
    }
    writeln!(out, "{}", units.trim_fmt())?;
    writeln!(out)?;
    writeln!(out, "predictions, {HEADS} heads: no launch takes less than its slowest part")?;
    for machine in machines {
        writeln!(
            out,
            "{}: {} blocks of threads per multiprocessor, peak {:.0} TFLOPS at {:.2} GHz",
            machine.name,
            resident(instance, built, machine),
            machine.peak_flops() / 1e12,
            machine.clock_hz / 1e9
        )?;
    }
    let parts = Part::ALL.map(Part::name);
    let header: Vec<&str> =
        ["gpu", "limiter", "tokens", "density %", "ms", "TFLOPS"].into_iter().chain(parts).collect();
    let mut predicted = table(&header, 2);
    for Row { machine, seqlen, density, prediction } in rows {
        let seconds = prediction.seconds();
        let labels = [
            machine.name.to_owned(),
            prediction.limiter().to_string(),
            seqlen.to_string(),
            density.to_string(),
            format!("{:.3}", 1e3 * seconds),
            format!("{:.0}", prediction.tflops()),
        ];
        // Parts as shares of the slowest.
        let shares = prediction.parts.map(|part| format!("{:.0} %", 100.0 * part / seconds));
        predicted.add_row(labels.into_iter().chain(shares));
    }
    writeln!(out, "{}", predicted.trim_fmt())?;
    writeln!(out)?;
    Ok(())
}

fn work_json(work: &Work) -> Value {
    json!({
        "tensor_flops": work.tensor_flops,
        "special": work.special,
        "fp32": work.fp32,
        "instructions": work.instructions,
        "shared_bytes": work.shared_bytes,
        "l2_bytes": work.l2_bytes,
    })
}

fn to_json(
    instance: &Instance,
    built: &Built,
    measured: &Fit,
    rows: &[Row],
    hot: Option<&std::collections::BTreeMap<String, usize>>,
) -> Value {
    let units = |costs: &nabla_host::model::UnitCosts| {
        json!({
            "block": work_json(&costs.block),
            "load": work_json(&costs.load),
            "tile": work_json(&costs.tile),
        })
    };
    let predictions: Vec<Value> = rows
        .iter()
        .map(|Row { machine, seqlen, density, prediction }| {
            let parts: serde_json::Map<String, Value> = Part::ALL
                .into_iter()
                .map(|part| (part.name().to_owned(), json!(prediction.seconds_of(part))))
                .collect();
            json!({
                "gpu": machine.name,
                "heads": HEADS,
                "seqlen": seqlen,
                "density": f64::from(*density) / 100.0,
                "seconds": prediction.seconds(),
                "tflops_executed": prediction.tflops(),
                "limiter": prediction.limiter().name(),
                "seconds_by_part": parts,
            })
        })
        .collect();
    json!({
        "id": variant_id(instance),
        "arch": built.arch,
        "residual": measured.residual,
        "costs_from_counts": units(&measured.costs),
        "costs_from_constants": analytic(instance).as_ref().map(units),
        "hot_loop": hot,
        "predictions": predictions,
        "left_out": LEFT_OUT,
    })
}
