//! `nabla run`: attention once, with its time and both errors.

use std::{collections::BTreeMap, io::Write, path::Path, sync::Arc};

use nabla_host::{
    BlockMask, Problem,
    backend::{AttentionOutput, Backend, BackendError, Orders, Pattern},
    cost,
    io::{Element, NamedTensor, write_safetensors},
    reference::{Arithmetic, OrderedMask, attention},
    tensor::Qkv,
    token_order::TokenOrder,
    variant::{MaskBlock, TileConfig, Variant},
    verify::{Accuracy, Oracle, verify},
};

use super::profile::advise_on;
use crate::{
    cli::RunArgs,
    failure::{Failure, Kind},
    input, output,
    stats::median,
};

/// Runs attention, writes the output, and prints time, density and errors.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let qkv = input::load(&args.input)?;
    let backend = input::backend(&args.device)?;
    let problem = qkv.problem();
    let (policy, block) = (&args.mask.policy, MaskBlock::square(args.mask.block));
    let orders = Arc::new(Orders::arranged(&problem, block, &policy.arrangement(&problem)?)?);
    let mut workspace = backend.load(Arc::clone(&qkv), Arc::clone(&orders))?;

    let (pattern, mask_us) = match policy.is_dense() {
        true => (Pattern::Dense, 0.0),
        false => {
            let mut times = Vec::new();
            let (mut mask, us) = workspace.build_mask(policy)?;
            times.push(us);
            for _ in 1..args.repeat {
                let (again, us) = workspace.build_mask(policy)?;
                times.push(us);
                mask = again;
            }
            (Pattern::Mask(mask), median(&times).map_or(f64::NAN, |m| m.median))
        }
    };
    let block = pattern.mask().map(|_| orders.mask_block());
    let variant = match &args.profile {
        None => variant(args, &*backend, &problem, block)?,
        Some(file) => {
            let of = (&problem, policy, orders.mask_block());
            let advice = advise_on(file, &*backend, &mut *workspace, of)?;
            if let Some(warning) = advice.warning {
                anstream::eprintln!("warning: {warning}");
            }
            backend.configured(&problem, block, &advice.config).map_err(BackendError::from)?
        }
    };

    workspace.poison()?;
    let first_us = workspace.attention(&variant, &pattern)?;
    let result = workspace.output()?;
    let mut times = vec![];
    // A device without time is asked once.
    let repeat = if first_us.is_nan() { 0 } else { args.repeat };
    for _ in 0..repeat {
        times.push(workspace.attention(&variant, &pattern)?);
    }
    drop(workspace);
    let time_us = median(&times).map_or(first_us, |m| m.median);

    let (accuracy, verdict) = check(args, &qkv, &orders, &pattern, &variant, &result)?;
    if let Some(path) = &args.out {
        let result = to_input_order(&problem, &orders.q, &result);
        write_output(path, args, &variant, &problem, &result)?;
    }
    print(args, &qkv, &*backend, &variant, pattern.mask(), [time_us, mask_us], &accuracy)?;
    verdict.map_err(|reason| Failure::new(Kind::Incorrect, format!("{} is incorrect: {reason}", variant.id)))
}

fn variant(
    args: &RunArgs,
    backend: &dyn Backend,
    problem: &Problem,
    block: Option<MaskBlock>,
) -> Result<Variant, Failure> {
    let default = backend.default_tile(problem, block);
    let tile = TileConfig {
        block_m: args.block_m.unwrap_or(default.block_m),
        block_n: args.block_n.unwrap_or(default.block_n),
    };
    backend.variant(problem, block, tile).map_err(|ineligible| {
        Failure::new(Kind::Usage, format!("tile {tile} cannot run on this problem: {ineligible}"))
    })
}

fn check(
    args: &RunArgs,
    qkv: &Qkv,
    orders: &Orders,
    pattern: &Pattern,
    variant: &Variant,
    result: &AttentionOutput,
) -> Result<(Accuracy, Result<(), String>), Failure> {
    let problem = qkv.problem();
    let sample = input::error_sample(&problem, args.errors.error_rows, args.input.seed)?;
    let scale = problem.softmax_scale;
    let ordered = pattern.mask().map(|mask| OrderedMask { mask, q_order: &orders.q, kv_order: &orders.kv });
    let oracle = Oracle::new(qkv, scale, ordered, &sample);
    let dense = match ordered {
        None => oracle.reference().clone(),
        Some(_) => attention(qkv, scale, None, &sample, Arithmetic::Float64),
    };
    Ok(verify(result, &orders.q, &oracle, &dense, variant.rounding()))
}

fn to_input_order(problem: &Problem, order: &TokenOrder, result: &AttentionOutput) -> AttentionOutput {
    let (tokens, d) = (problem.seqlen_q, problem.head_dim);
    let mut out = vec![0f32; result.out.len()];
    let mut lse = vec![0f32; result.lse.len()];
    for head in 0..problem.batch_heads() {
        for (position, &raster) in order.source(head).iter().enumerate() {
            let (from, to) = (head * tokens + position, head * tokens + raster as usize);
            out[to * d..][..d].copy_from_slice(&result.out[from * d..][..d]);
            lse[to] = result.lse[from];
        }
    }
    AttentionOutput { out, lse }
}

/// Writes out and lse in the token order of the input.
fn write_output(
    path: &Path,
    args: &RunArgs,
    variant: &Variant,
    problem: &Problem,
    result: &AttentionOutput,
) -> Result<(), Failure> {
    let metadata = BTreeMap::from([
        ("policy".to_owned(), args.mask.policy.to_string()),
        ("variant".to_owned(), variant.id.to_string()),
        ("order".to_owned(), "as the input".to_owned()),
    ]);
    let Problem { batch, heads, seqlen_q, head_dim, .. } = *problem;
    let (out, lse) = (bytemuck::cast_slice(&result.out), bytemuck::cast_slice(&result.lse));
    let element = Element::F32;
    let tensors = [
        NamedTensor { name: "out", shape: &[batch, heads, seqlen_q, head_dim], element, bytes: out },
        NamedTensor { name: "lse", shape: &[batch, heads, seqlen_q], element, bytes: lse },
    ];
    write_safetensors(path, &tensors, &metadata).map_err(|e| Failure::write(path, &e))
}

fn print(
    args: &RunArgs,
    qkv: &Qkv,
    backend: &dyn Backend,
    variant: &Variant,
    mask: Option<&BlockMask>,
    [time_us, mask_us]: [f64; 2],
    accuracy: &Accuracy,
) -> Result<(), Failure> {
    let problem = qkv.problem();
    let executed = cost::attention_flops(cost::pairs(&problem, mask), problem.head_dim);
    let equivalent = cost::attention_flops(cost::dense_pairs(&problem), problem.head_dim);
    let density = mask.map_or(1.0, BlockMask::density);
    let mut out = anstream::stdout().lock();
    writeln!(out, "input            {}", qkv.source)?;
    writeln!(
        out,
        "problem          B{} H{} S{} D{} {}{}",
        problem.batch,
        problem.heads,
        problem.seqlen_q,
        problem.head_dim,
        problem.dtype,
        problem.grid.map(|g| format!(" grid {g}")).unwrap_or_default()
    )?;
    writeln!(out, "device           {}", backend.device().name)?;
    writeln!(out, "variant          {}", variant.id)?;
    writeln!(out, "policy           {}, mask blocks of {} tokens", args.mask.policy, args.mask.block)?;
    writeln!(out, "density          {} of all blocks kept", output::percent(density))?;
    if time_us.is_nan() {
        writeln!(out, "attention        {}", output::time(time_us))?;
    } else {
        writeln!(out, "attention        {} (median of {})", output::time(time_us), args.repeat)?;
        writeln!(out, "mask building    {}", output::time(mask_us))?;
        writeln!(
            out,
            "executed         {:.3} TFLOP/s ({:.3} dense-equivalent)",
            cost::tflops(executed, time_us),
            cost::tflops(equivalent, time_us)
        )?;
    }
    writeln!(
        out,
        "kernel error     {} relative RMSE against float64 on the same mask (budget {}), lse {}",
        output::error(accuracy.kernel.rel_rmse),
        output::error(accuracy.budget.rel_rmse),
        output::error(accuracy.lse_max_abs)
    )?;
    writeln!(
        out,
        "sparsity error   {} relative L1, {} relative RMSE, cosine {:.6} against dense float64",
        output::error(accuracy.sparsity.rel_l1),
        output::error(accuracy.sparsity.rel_rmse),
        accuracy.sparsity.cosine
    )?;
    if accuracy.rows < problem.seqlen_q {
        writeln!(
            out,
            "errors on        {} sampled of {} query rows per head",
            accuracy.rows, problem.seqlen_q
        )?;
    }
    if let Some(peak) = peak_memory_mib() {
        writeln!(out, "peak memory      {peak} MiB")?;
    }
    if let Some(path) = &args.out {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// Returns the most memory this process held, where the operating system tells.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}
