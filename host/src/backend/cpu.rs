//! The embedded default: kernels-cpu on the threads of this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use half::{bf16, f16};
use nabla_kernels_cpu as kernels;
use nabla_kernels_cpu::{AttentionArgs, BlockLists, Element, Executor, Isa, Shape, Tile};

use super::{AttentionOutput, Backend, BackendError, DeviceIdentity, Orders, Pattern, Peaks, Workspace};
use crate::{
    BlockMask, Dtype, Policy, Problem,
    parameters::{BLOCK_M, BLOCK_N, ParameterAxis, ParameterSpace, Parameters, Value},
    tensor::Qkv,
    token_order::HeadTables,
    variant::{Eligibility, Ineligible, MaskBlock, TileConfig, Variant, VariantId},
};

/// Tile extents a sweep tries on a CPU: a tile's scores must stay in the first-level cache beside a slice of K or V.
const SWEPT_BLOCK_M: [usize; 3] = [32, 64, 128];
const SWEPT_BLOCK_N: [usize; 4] = [32, 64, 128, 256];

/// Tile extents tuning tries besides: where caches are larger, or key blocks are merged.
const FINE_BLOCK_M: [usize; 8] = [16, 32, 48, 64, 96, 128, 192, 256];
const FINE_BLOCK_N: [usize; 10] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512];
/// Name of the instruction set among the parameters.
const ISA: &str = "isa";
/// Name of the number of threads among the parameters.
const THREADS: &str = "threads";

/// How the CPU backend is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads; `None` takes every core this process may use.
    pub threads: Option<usize>,
    /// Instruction set; `None` takes the strongest this CPU has.
    pub isa: Option<Isa>,
    /// Keeps each thread on one core.
    pub pin: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { threads: None, isa: None, pin: true }
    }
}

/// The CPU of this machine.
#[derive(Debug)]
pub struct CpuBackend {
    executor: Executor,
    device: DeviceIdentity,
    options: CpuOptions,
    /// Threads for other configurations than the default, started when the first variant asks for them.
    others: Mutex<HashMap<(usize, Isa), Arc<Executor>>>,
}

impl CpuBackend {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the CPU lacks the instruction set or the threads cannot be started.
    pub fn new(options: CpuOptions) -> Result<Self, BackendError> {
        let threads = options
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        let executor = Executor::new(threads, options.isa.unwrap_or_else(Isa::detect), options.pin)
            .map_err(|e| BackendError::Unavailable { backend: "cpu", reason: e.to_string() })?;
        let device = DeviceIdentity {
            backend: "cpu",
            name: cpu_model(),
            driver: None,
            isa: executor.isa().name().to_owned(),
            threads: Some(threads),
        };
        Ok(Self { executor, device, options, others: Mutex::default() })
    }

    /// Returns the instruction set and the number of threads that parameters ask for.
    fn resources(&self, parameters: &Parameters) -> Result<(usize, Isa), Ineligible> {
        let refuse = |reason: String| Err(Ineligible { reason });
        let unknown =
            parameters.0.keys().find(|name| ![BLOCK_M, BLOCK_N, ISA, THREADS].contains(&name.as_str()));
        if let Some(name) = unknown {
            return refuse(format!(
                "the CPU has the parameters block_m, block_n, isa and threads, not {name}"
            ));
        }
        let isa = match parameters.get(ISA) {
            None => self.executor.isa(),
            Some(value) => match Isa::available().into_iter().find(|isa| isa.name() == value.to_string()) {
                Some(isa) => isa,
                None => return refuse(format!("this CPU has no instruction set {value}")),
            },
        };
        let threads = match parameters.get(THREADS) {
            None => self.executor.threads(),
            Some(value) => match parameters.count(THREADS) {
                Some(threads @ 1..=1024) => threads,
                _ => return refuse(format!("threads: expected 1 to 1024, got {value}")),
            },
        };
        Ok((threads, isa))
    }

    /// Returns the threads to run on; `None` for the backend's own.
    fn other_executor(&self, (threads, isa): (usize, Isa)) -> Result<Option<Arc<Executor>>, BackendError> {
        if (threads, isa) == (self.executor.threads(), self.executor.isa()) {
            return Ok(None);
        }
        // A panic elsewhere leaves a list of thread pools as good as it was.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(executor) = others.get(&(threads, isa)) {
            return Ok(Some(Arc::clone(executor)));
        }
        let executor = Executor::new(threads, isa, self.options.pin)
            .map_err(|e| BackendError::Unavailable { backend: "cpu", reason: e.to_string() })?;
        let executor = Arc::new(executor);
        others.insert((threads, isa), Arc::clone(&executor));
        Ok(Some(executor))
    }

    /// Instruction sets worth trying: those of this CPU that differ on the problem and are not hopeless.
    fn isas(&self, dtype: Dtype) -> Vec<Isa> {
        if self.options.isa.is_some() {
            return vec![self.executor.isa()];
        }
        let own = self.executor.isa();
        // Without bf16 inputs its dot products do nothing, and what is left is plain AVX-512.
        let twin = |isa: &Isa| *isa == Isa::Avx512 && own == Isa::Avx512Bf16 && dtype != Dtype::Bf16;
        let mut isas = Isa::available();
        isas.retain(|isa| (*isa != Isa::Portable || own == Isa::Portable) && !twin(isa));
        isas
    }

    /// Returns what can be varied on problems of an element type; of the points, those run whose tile fits the problem.
    pub fn axes(&self, dtype: Dtype) -> Vec<ParameterAxis> {
        let axis = |name: &str, values: Vec<Value>| ParameterAxis { name: name.to_owned(), values };
        let all = self.executor.threads();
        let threads = match self.options.threads {
            // On cores that share their multipliers, half the threads may do as much.
            None if all.is_multiple_of(2) => vec![all / 2, all],
            _ => vec![all],
        };
        let isas = self.isas(dtype);
        vec![
            axis(BLOCK_M, FINE_BLOCK_M.map(Value::from).to_vec()),
            axis(BLOCK_N, FINE_BLOCK_N.map(Value::from).to_vec()),
            axis(ISA, isas.into_iter().map(|isa| isa.name().into()).collect()),
            axis(THREADS, threads.into_iter().map(Value::from).collect()),
        ]
    }

    /// Measures what all threads together can do: 10⁹ FLOP/s of f32 multiply-adds, and of bf16 dot products where
    /// this CPU has them. Takes about a tenth of a second.
    pub fn measure_peaks_gflops(&self) -> (f64, Option<f64>) {
        (kernels::peak::fma_peak_gflops(&self.executor), kernels::peak::bf16_dot_peak_gflops(&self.executor))
    }
}

/// Returns the model name the operating system gives, or the architecture where it gives none.
fn cpu_model() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}

fn launch_error(what: &str) -> impl Fn(kernels::ArgumentError) -> BackendError + '_ {
    move |e| BackendError::Launch { what: what.to_owned(), reason: e.to_string() }
}

fn elapsed_us(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

impl Backend for CpuBackend {
    fn device(&self) -> &DeviceIdentity {
        &self.device
    }

    fn peaks(&self) -> Peaks {
        let (f32_gflops, bf16_gflops) = self.measure_peaks_gflops();
        // What has no dot products of its own is multiplied as f32.
        let bf16_gflops = bf16_gflops.unwrap_or(f32_gflops);
        let gflops = [(Dtype::F32, f32_gflops), (Dtype::F16, f32_gflops), (Dtype::Bf16, bf16_gflops)];
        Peaks {
            tflops: gflops.map(|(dtype, gflops)| (dtype, gflops / 1e3)).to_vec(),
            memory_gb_per_s: Some(kernels::peak::copy_bandwidth_gb_per_s(&self.executor)),
            source: "measured before the run",
        }
    }

    fn tiles(&self, _: &Problem) -> Vec<TileConfig> {
        SWEPT_BLOCK_M
            .into_iter()
            .flat_map(|block_m| SWEPT_BLOCK_N.into_iter().map(move |block_n| TileConfig { block_m, block_n }))
            .collect()
    }

    fn default_tile(&self, _: &Problem, block: Option<MaskBlock>) -> TileConfig {
        TileConfig { block_m: block.map_or(64, |b| b.q_block.min(64)), block_n: 64 }
    }

    fn variant(&self, problem: &Problem, block: Option<MaskBlock>, tile: TileConfig) -> Eligibility {
        self.configured(problem, block, &Parameters::of_tile(tile))
    }

    fn space(&self, problem: &Problem, block: Option<MaskBlock>) -> ParameterSpace {
        ParameterSpace::of_axes(self.axes(problem.dtype), |parameters| {
            self.configured(problem, block, parameters).map(|_| ()).map_err(|ineligible| ineligible.reason)
        })
    }

    fn default_parameters(&self, problem: &Problem, block: Option<MaskBlock>) -> Parameters {
        Parameters::of_tile(self.default_tile(problem, block))
            .with(ISA, self.executor.isa().name())
            .with(THREADS, self.executor.threads())
    }

    fn configured(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        parameters: &Parameters,
    ) -> Eligibility {
        let (threads, isa) = self.resources(parameters)?;
        let Some(tile) = parameters.tile() else {
            let reason = format!("expected a tile, block_m and block_n, got {parameters}");
            return Err(Ineligible { reason });
        };
        kernels::check_tile(
            Tile { block_m: tile.block_m, block_n: tile.block_n },
            block.map(|b| b.q_block),
            block.map(|b| b.kv_block),
            problem.head_dim,
            isa,
        )
        .map_err(|e| Ineligible { reason: e.to_string() })?;
        let id = format!(
            "{}_cpu_{}_m{}_n{}_d{}_{}_t{threads}",
            if block.is_some() { "bsfwd" } else { "densefwd" },
            isa.name(),
            tile.block_m,
            tile.block_n,
            problem.head_dim,
            problem.dtype,
        );
        // Only the bf16 dot product needs probabilities in bf16; every other path widens V instead.
        let dot = isa == Isa::Avx512Bf16 && problem.dtype == Dtype::Bf16;
        let probabilities = if dot { Dtype::Bf16 } else { Dtype::F32 };
        let parameters = parameters.clone();
        Ok(Variant { id: VariantId(id), tile, parameters, probabilities, output: Dtype::F32 })
    }

    fn load(&self, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Box<dyn Workspace + '_>, BackendError> {
        Ok(match qkv.problem().dtype {
            Dtype::F32 => Box::new(CpuWorkspace::<f32>::load(self, qkv, orders)?),
            Dtype::F16 => Box::new(CpuWorkspace::<f16>::load(self, qkv, orders)?),
            Dtype::Bf16 => Box::new(CpuWorkspace::<bf16>::load(self, qkv, orders)?),
        })
    }
}

/// Gathers the tokens of each head by its table.
fn gather<E: bytemuck::Pod + Send + Sync>(
    executor: &Executor,
    from: &[E],
    row: usize,
    by: &HeadTables,
    to: &mut [E],
) -> Result<(), BackendError> {
    kernels::reorder::gather_tokens(executor, from, row, by.tokens(), by.all(), to)
        .map_err(launch_error("token reorder"))
}

struct CpuWorkspace<'e, T> {
    backend: &'e CpuBackend,
    executor: &'e Executor,
    problem: Problem,
    orders: Arc<Orders>,
    raster: Arc<Qkv>,
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    out: Vec<f32>,
    lse: Vec<f32>,
}

impl<'e, T: Element> CpuWorkspace<'e, T> {
    fn load(backend: &'e CpuBackend, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Self, BackendError> {
        let problem = qkv.problem();
        let rows = problem.batch_heads() * problem.seqlen_q;
        let blank = |n: usize| vec![<T as bytemuck::Zeroable>::zeroed(); n];
        let mut workspace = Self {
            backend,
            executor: &backend.executor,
            problem,
            orders,
            q: blank(qkv.q.data.len()),
            k: blank(qkv.k.data.len()),
            v: blank(qkv.v.data.len()),
            raster: qkv,
            out: vec![f32::NAN; rows * problem.head_dim],
            lse: vec![f32::NAN; rows],
        };
        workspace.reorder_inputs()?;
        Ok(workspace)
    }

    fn reorder_inputs(&mut self) -> Result<(), BackendError> {
        let (q_order, kv_order) = (self.orders.q.tables(), self.orders.kv.tables());
        let Qkv { q, k, v, .. } = &*self.raster;
        for (from, order, to) in
            [(q, q_order, &mut self.q), (k, kv_order, &mut self.k), (v, kv_order, &mut self.v)]
        {
            let from: &[T] = bytemuck::cast_slice(from.data.bytes());
            gather(self.executor, from, self.problem.head_dim, order, to)?;
        }
        Ok(())
    }
}

impl<T: Element> Workspace for CpuWorkspace<'_, T> {
    fn orders(&self) -> &Arc<Orders> {
        &self.orders
    }

    fn time_reorder(&mut self) -> Result<f64, BackendError> {
        let back = self.orders.q.inverse();
        let mut raster_out = vec![0f32; self.out.len()];
        let start = Instant::now();
        self.reorder_inputs()?;
        gather(self.executor, &self.out, self.problem.head_dim, &back, &mut raster_out)?;
        Ok(elapsed_us(start))
    }

    fn build_mask(&mut self, policy: &Policy) -> Result<(Arc<BlockMask>, f64), BackendError> {
        if !policy.is_for_kernels() {
            return Ok(policy.build_timed(&self.raster, &self.orders)?);
        }
        let (q_layout, kv_layout) = (self.orders.q.layout(), self.orders.kv.layout());
        let (heads, d) = (self.problem.batch_heads(), self.problem.head_dim);
        let (q_blocks, kv_blocks) = (q_layout.blocks(), kv_layout.blocks());
        let failed = launch_error("mask building");
        // A static window is known before the tensors are: not part of the time.
        let always = policy.static_bitmap(&self.orders)?;
        let words = kv_blocks.div_ceil(64);
        let mut pooled_q = vec![0f32; heads * q_blocks * d];
        let mut pooled_k = vec![0f32; heads * kv_blocks * d];
        let mut bitmap = vec![0u64; heads * q_blocks * words];
        let mut counts = vec![0i32; heads * q_blocks];

        let start = Instant::now();
        if policy.mass().is_some() {
            kernels::mask::pool_blocks(self.executor, &self.q, d, q_layout.starts(), &mut pooled_q)
                .map_err(&failed)?;
            kernels::mask::pool_blocks(self.executor, &self.k, d, kv_layout.starts(), &mut pooled_k)
                .map_err(&failed)?;
        }
        let args = kernels::mask::SelectArgs {
            batch_heads: heads,
            head_dim: d,
            pooled_q: &pooled_q,
            pooled_k: &pooled_k,
            softmax_scale: self.problem.softmax_scale,
            mass: policy.mass().map(|mass| mass as f32),
            always: always.as_deref(),
            allowed: None,
        };
        kernels::mask::select_blocks(self.executor, &args, &mut bitmap, &mut counts).map_err(&failed)?;
        let max_blocks = counts.iter().copied().max().unwrap_or(0).max(1) as usize;
        let mut indices = vec![0i32; counts.len() * max_blocks];
        kernels::mask::expand_lists(self.executor, &bitmap, words, max_blocks, &mut indices)
            .map_err(&failed)?;
        let time_us = elapsed_us(start);

        let mask = BlockMask::new(heads, q_layout.clone(), kv_layout.clone(), counts, indices, max_blocks)
            .map_err(|e| BackendError::Launch { what: "mask building".into(), reason: e.to_string() })?;
        Ok((Arc::new(mask), time_us))
    }

    fn attention(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, BackendError> {
        let pattern = match pattern {
            Pattern::Dense => kernels::Pattern::Dense,
            Pattern::Mask(mask) => kernels::Pattern::Blocks(BlockLists {
                q_starts: mask.q_layout().starts(),
                kv_starts: mask.kv_layout().starts(),
                kv_num_blocks: mask.kv_num_blocks(),
                kv_indices: mask.kv_indices(),
                max_blocks: mask.max_blocks(),
            }),
        };
        let args = AttentionArgs {
            shape: Shape {
                batch_heads: self.problem.batch_heads(),
                seqlen_q: self.problem.seqlen_q,
                seqlen_k: self.problem.seqlen_k,
                head_dim: self.problem.head_dim,
            },
            q: &self.q,
            k: &self.k,
            v: &self.v,
            softmax_scale: self.problem.softmax_scale,
            pattern,
            tile: Tile { block_m: variant.tile.block_m, block_n: variant.tile.block_n },
        };
        let resources = self.backend.resources(&variant.parameters)?;
        let other = self.backend.other_executor(resources)?;
        let executor = other.as_deref().unwrap_or(self.executor);
        let start = Instant::now();
        kernels::attention_forward(executor, &args, &mut self.out, &mut self.lse)
            .map_err(launch_error(&variant.id.0))?;
        Ok(elapsed_us(start))
    }

    fn poison(&mut self) -> Result<(), BackendError> {
        self.out.fill(f32::NAN);
        self.lse.fill(f32::NAN);
        Ok(())
    }

    fn output(&mut self) -> Result<AttentionOutput, BackendError> {
        Ok(AttentionOutput { out: self.out.clone(), lse: self.lse.clone() })
    }
}
