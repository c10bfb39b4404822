//! Launches: parameters laid out, limits checked, CTAs run in parallel, counts added up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::exec::{Cluster, CtaFault, Grid, Launch};
use crate::fault::{Fault, FaultKind, Waiting};
use crate::hopper::Hopper;
use crate::memory::{DevicePtr, Memory};
use crate::module::Module;
use crate::program::{Kernel, Op};
use crate::report::{Counters, Report};
use crate::scalar::Scalar;

/// Says how many threads run and how much shared memory they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// CTAs along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a CTA along x, y, z.
    pub block: [u32; 3],
    /// Bytes behind the kernel's static shared memory.
    pub dynamic_shared_bytes: u32,
    /// CTAs of a cluster along x, y, z; they divide the grid. All ones: no clusters, unless the kernel requires them
    /// (`.reqnctapercluster`).
    pub cluster: [u32; 3],
}

impl Default for LaunchConfig {
    /// One CTA of one thread, no dynamic shared memory, no clusters.
    fn default() -> Self {
        Self { grid: [1; 3], block: [1; 3], dynamic_shared_bytes: 0, cluster: [1; 3] }
    }
}

/// Holds one kernel argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// A pointer to global memory, 8 bytes.
    Ptr(DevicePtr),
    /// A 32-bit unsigned integer.
    U32(u32),
    /// A 32-bit signed integer.
    I32(i32),
    /// A 64-bit unsigned integer.
    U64(u64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
    /// Raw bytes, for any other parameter.
    Bytes(Vec<u8>),
}

impl Param {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Ptr(ptr) => ptr.address().to_le_bytes().to_vec(),
            Self::U32(value) => value.to_le_bytes().to_vec(),
            Self::I32(value) => value.to_le_bytes().to_vec(),
            Self::U64(value) => value.to_le_bytes().to_vec(),
            Self::F32(value) => value.to_le_bytes().to_vec(),
            Self::F64(value) => value.to_le_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// When asynchronous work (copies, bulk copies, `wgmma`) completes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// At the latest moment PTX allows: `cp.async` and `wgmma` at the wait that covers them, bulk copies one by one in
    /// an order that the seed chooses when no warp can go on without them. A missing wait shows.
    #[default]
    Late,
    /// At once: a buffer that is overwritten while others still read it shows.
    Eager,
}

/// How the sums of matrix products are rounded. Products of 16-bit floats are exact in every choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// By fused multiply-adds of f32 in order of k, the accumulator last: fast, and no device's.
    #[default]
    Fast,
    /// Bit by bit as sm_80 to sm_89: eight products and the accumulator at a time, cut off 24 bits behind the largest
    /// exponent.
    Ampere,
    /// Bit by bit as sm_90, `mma` and `wgmma` alike: sixteen products at a time, cut off after 25 bits.
    Hopper,
}

/// Chooses what a launch checks and how long it may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When asynchronous work completes.
    pub completion: Completion,
    /// Chooses among the orders in which asynchronous work may complete, and which lane `elect.sync` elects (the lowest
    /// with seed 0). The same seeds give the same run. Whose turn it is, is [`Options::schedule_seed`]'s affair.
    pub seed: u64,
    /// Lets kernels read registers and memory nobody has written (as zero or old data) instead of faulting. Shared memory
    /// is checked always.
    pub allow_uninitialised: bool,
    /// Warp-instructions after which the launch is stopped; rounded up to whole turns of some 16 thousand.
    pub instruction_budget: u64,
    /// How matrix products are summed.
    pub numerics: Numerics,
    /// Looks for data races, see `docs/emulator.md`.
    pub races: bool,
    /// Gives the warps of a cluster turns of random order and length, from this seed. Without it they take turns in the order
    /// of their numbers.
    pub schedule_seed: Option<u64>,
}

impl Default for Options {
    /// Late completion, all checks, a budget of 10^12 warp-instructions, fast numerics.
    fn default() -> Self {
        Self {
            completion: Completion::Late,
            seed: 0,
            allow_uninitialised: false,
            instruction_budget: 1_000_000_000_000,
            numerics: Numerics::Fast,
            races: false,
            schedule_seed: None,
        }
    }
}

/// Runs a kernel with all checks on.
#[expect(clippy::result_large_err, reason = "made at most once for a launch")]
pub fn launch(
    module: &Module,
    entry: &str,
    config: LaunchConfig,
    params: &[Param],
    memory: &mut Memory,
) -> Result<Report, Fault> {
    launch_with(module, entry, config, params, memory, &Options::default())
}

#[expect(clippy::result_large_err, reason = "made at most once for a launch")]
/// Runs a kernel. Of several faults the one of the lowest CTA is reported, whatever the number of CPU threads.
pub fn launch_with(
    module: &Module,
    entry: &str,
    config: LaunchConfig,
    params: &[Param],
    memory: &mut Memory,
    options: &Options,
) -> Result<Report, Fault> {
    let refuse = |text: String| Fault {
        kind: FaultKind::Launch(text),
        kernel: entry.to_owned(),
        place: None,
        cta: None,
        warp: None,
        thread: None,
    };
    let Some(kernel) = module.kernel(entry) else {
        let known: Vec<&str> = module.entries().collect();
        return Err(refuse(format!("the module has no kernel of this name, only {known:?}")));
    };
    let cluster = cluster_shape(kernel, &config).map_err(refuse)?;
    let config = LaunchConfig { cluster, ..config };
    check(kernel, config, &module.target).map_err(refuse)?;
    let params = lay_out(kernel, params).map_err(refuse)?;
    let globals = memory.globals(module.id, &module.decoding.globals);
    let races = options.races.then(Launch::new);
    let grid = Grid {
        kernel,
        memory,
        params: &params,
        globals: &globals,
        grid: config.grid,
        block: config.block,
        dynamic_shared: config.dynamic_shared_bytes,
        eager: options.completion == Completion::Eager,
        lenient: options.allow_uninitialised,
        numerics: options.numerics,
        races: races.as_ref(),
        schedule_seed: options.schedule_seed,
        cluster,
        explicit_cluster: kernel.limits.explicit_cluster
            || kernel.limits.cluster.is_some()
            || cluster != [1; 3],
        seed: options.seed,
    };
    let (fault, counters, executed) = run(grid, options.instruction_budget);
    match fault {
        Some((cta, fault)) => Err(name(module, kernel, config.block, cta, fault)),
        None => Ok(report(module, kernel, counters, &executed)),
    }
}

/// The cluster shape that launch and kernel agree on.
fn cluster_shape(kernel: &Kernel, config: &LaunchConfig) -> Result<[u32; 3], String> {
    let given = config.cluster;
    let shape = match kernel.limits.cluster {
        Some(required) if given != [1; 3] && given != required => {
            return Err(format!(
                "the kernel requires clusters of {required:?} CTAs (.reqnctapercluster), not {given:?}"
            ));
        }
        Some(required) => required,
        None if kernel.limits.explicit_cluster && given == [1; 3] => {
            return Err("the kernel needs a cluster shape (.explicitcluster): set `cluster`".to_owned());
        }
        None => given,
    };
    let size = shape.iter().fold(1_u64, |all, size| all.saturating_mul(u64::from(*size)));
    if size == 0 || size > 16 {
        return Err(format!("a cluster has 1 to 16 CTAs, not {size} ({shape:?})"));
    }
    if let Some(most) = kernel.limits.max_cluster_rank
        && size > u64::from(most)
    {
        return Err(format!("the kernel allows clusters of {most} CTAs (.maxclusterrank), not {size}"));
    }
    if config.grid.iter().zip(shape).any(|(ctas, part)| !ctas.is_multiple_of(part)) {
        return Err(format!("the grid {:?} is no multiple of the cluster {shape:?}", config.grid));
    }
    Ok(shape)
}

fn check(kernel: &Kernel, config: LaunchConfig, target: &str) -> Result<(), String> {
    let product =
        |sizes: [u32; 3]| sizes.iter().fold(1_u64, |all, size| all.saturating_mul(u64::from(*size)));
    let threads = product(config.block);
    if threads == 0 || threads > 1024 {
        return Err(format!("a CTA has 1 to 1024 threads, not {threads}"));
    }
    if product(config.grid) == 0
        || config.grid[0] > i32::MAX as u32
        || config.grid[1..].iter().any(|n| *n > 65535)
    {
        return Err(format!("the grid {:?} has an axis of zero or of too many CTAs", config.grid));
    }
    if let Some(most) = kernel.max_threads
        && threads > product(most)
    {
        return Err(format!("the kernel allows {} threads (.maxntid), not {threads}", product(most)));
    }
    if let Some(required) = kernel.required_threads
        && config.block != required
    {
        return Err(format!(
            "the kernel requires CTAs of {required:?} threads (.reqntid), not {:?}",
            config.block
        ));
    }
    // Shared memory one CTA can opt in to, by compute capability.
    let limit = match target {
        "sm_75" => 64,
        "sm_70" | "sm_72" => 96,
        "sm_86" | "sm_89" => 99,
        "sm_80" | "sm_87" => 163,
        _ => 227,
    } * 1024;
    let shared =
        u64::from(kernel.dynamic_shared.max(kernel.static_shared)) + u64::from(config.dynamic_shared_bytes);
    if shared > limit {
        return Err(format!("{shared} bytes of shared memory are more than the {limit} of {target}"));
    }
    Ok(())
}

fn lay_out(kernel: &Kernel, params: &[Param]) -> Result<Vec<u8>, String> {
    if params.len() != kernel.params.len() {
        return Err(format!("the kernel takes {} parameters, not {}", kernel.params.len(), params.len()));
    }
    let mut bytes = vec![0; kernel.param_bytes as usize];
    for (index, (declared, given)) in kernel.params.iter().zip(params).enumerate() {
        let data = given.bytes();
        if data.len() != declared.bytes as usize {
            let (name, size) = (&declared.name, declared.bytes);
            return Err(format!(
                "parameter {index}, `{name}`, has {size} bytes, {given:?} has {}",
                data.len()
            ));
        }
        let float = matches!(declared.scalar, Scalar::F32 | Scalar::F64);
        if matches!(given, Param::U32(_) | Param::I32(_) | Param::U64(_) | Param::Ptr(_)) && float {
            return Err(format!("parameter {index}, `{}`, is a float, not {given:?}", declared.name));
        }
        let start = declared.offset as usize;
        bytes[start..start + data.len()].copy_from_slice(&data);
    }
    Ok(bytes)
}

type Outcome = (Option<([u32; 3], CtaFault)>, Counters, Vec<u64>);

fn run<'l>(grid: Grid<'l>, budget: u64) -> Outcome {
    let shape = grid.cluster;
    let [x, y, z]: [u64; 3] = std::array::from_fn(|axis| u64::from(grid.grid[axis] / shape[axis]));
    let spent = AtomicU64::new(0);
    // Clusters above the lowest fault need not run: theirs would not be reported.
    let lowest = AtomicU64::new(u64::MAX);
    let fault = Mutex::new(None);
    let start = || Cluster::new(grid);
    let one = |mut cluster: Cluster<'l>, index: u64| -> Cluster<'l> {
        if index > lowest.load(Relaxed) {
            return cluster;
        }
        let spend = |steps: u64| {
            if spent.fetch_add(steps, Relaxed) + steps > budget {
                Err(FaultKind::Budget(budget))
            } else {
                Ok(())
            }
        };
        let at = [index % x, index / x % y, index / x / y];
        let first = std::array::from_fn(|axis| at[axis] as u32 * shape[axis]);
        if let Err(found) = cluster.run(first, index, spend) {
            let mut kept = fault.lock().unwrap_or_else(PoisonError::into_inner);
            if index < lowest.load(Relaxed) {
                lowest.store(index, Relaxed);
                *kept = Some(found);
            }
        }
        cluster
    };
    let add = |mut sum: (Counters, Vec<u64>), (counters, executed): (Counters, Vec<u64>)| {
        sum.0.add(&counters);
        if sum.1.is_empty() {
            sum.1 = executed;
        } else {
            sum.1.iter_mut().zip(executed).for_each(|(all, part)| *all += part);
        }
        sum
    };
    let (counters, executed) = (0..x * y * z)
        .into_par_iter()
        .fold(start, one)
        .map(Cluster::into_counts)
        .reduce(|| (Counters::default(), Vec::new()), add);
    let fault = fault.into_inner().unwrap_or_else(PoisonError::into_inner);
    (fault, counters, executed)
}

fn name(module: &Module, kernel: &Kernel, block: [u32; 3], cta: [u32; 3], fault: CtaFault) -> Fault {
    let waiting = |(warp, lanes, pc, reason): (u32, u32, u32, String)| Waiting {
        warp,
        lanes,
        reason,
        place: module.place(&kernel.code[pc as usize]),
    };
    let waiting: Vec<Waiting> = fault.waiting.into_iter().map(waiting).collect();
    let kind = match fault.kind {
        FaultKind::Divergence(_) => FaultKind::Divergence(waiting),
        FaultKind::Deadlock(_) => FaultKind::Deadlock(waiting),
        FaultKind::Race(mut race) => {
            race.earlier.place = kernel.code.get(race.earlier.pc as usize).map(|instr| module.place(instr));
            FaultKind::Race(race)
        }
        FaultKind::MissingProxyFence(mut race) => {
            race.earlier.place = kernel.code.get(race.earlier.pc as usize).map(|instr| module.place(instr));
            FaultKind::MissingProxyFence(race)
        }
        other => other,
    };
    Fault {
        kind,
        kernel: kernel.name.clone(),
        place: fault.pc.and_then(|pc| kernel.code.get(pc as usize)).map(|instr| module.place(instr)),
        cta: Some(cta),
        warp: fault.warp,
        thread: fault
            .thread
            .map(|thread| [thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]]),
    }
}

/// What was executed without an effect here that it has on a GPU.
fn notes(kernel: &Kernel, executed: &[u64]) -> Vec<String> {
    let ran = |wanted: fn(&Hopper) -> bool| {
        kernel
            .code
            .iter()
            .zip(executed)
            .any(|(instr, count)| *count > 0 && matches!(&instr.op, Op::Hopper(op) if wanted(op)))
    };
    let mut notes = Vec::new();
    if ran(|op| matches!(op, Hopper::GridControl)) {
        let text = "griddepcontrol has no effect here: launches run one after the other";
        notes.push(text.to_owned());
    }
    if kernel.entry_registers().is_none() && ran(|op| matches!(op, Hopper::SetRegisters { .. })) {
        let text = "setmaxnreg is ignored by the assembler, which does not know the registers at entry: give the kernel \
                    .maxntid, .reqntid or .maxnreg";
        notes.push(text.to_owned());
    }
    notes
}

fn report(module: &Module, kernel: &Kernel, counters: Counters, executed: &[u64]) -> Report {
    let mut report = Report { counters, ..Report::default() };
    for (instr, count) in kernel.code.iter().zip(executed) {
        report.warp_instructions += count;
        if *count > 0 {
            report.tally(module.opcode(instr), *count);
        }
        report.by_line.push((module.source.line_of(instr.span.start), *count));
    }
    report.notes = notes(kernel, executed);
    // The exit behind the last instruction is the emulator's own.
    report.by_line.pop();
    report
}
