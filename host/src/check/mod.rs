//! Accuracy checks of every kernel over a catalogue of problems: one check, whatever device runs the kernel.
//!
//! ```text
//! catalogue  problems and masks
//! against    the same PTX on two devices: whether what they write agrees
//! attention  output and lse of one case against float64, within the derived budget
//! reorder    every token in its place, every mean
//! selection  every list against the definition of the threshold
//! mutation   whether the emulator reports every weakened synchronisation of the shipped code
//! ```
//! Owns what is right; launches nothing itself but asks a backend to. A check is one subject, a kernel instance or a CPU
//! tile, on one case.

mod against;
mod attention;
mod catalogue;
mod mutation;
mod reorder;
mod selection;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use nabla_kernels_gpu::{
    config,
    instances::{Instance, Kernel},
};

pub use self::against::check_against;
pub use self::mutation::{MutantOutcome, MutantResult, check_mutants};
use self::{
    attention::AttentionCase,
    catalogue::{ATTENTION, Case, REORDER, SELECTION},
};
use crate::{
    Dtype, ParseError, Policy,
    backend::{Backend, BackendError, KernelBackend, KernelWorkspace, Orders, Reordered, SelectionRule},
    codegen::variant_id,
    variant::{MaskBlock, Rounding},
    verify::Accuracy,
};

/// Mask blocks a sparse kernel is tried on, in tokens.
const BLOCKS: [usize; 3] = [32, 64, 128];
/// The mask block of cases that do not depend on it.
const USUAL_BLOCK: usize = 64;
/// Ragged blocks, and rows that are full, scattered and empty.
const USUAL_CASE: &str = "ragged-grid";
/// The same for the plain kernel: all its rows are scattered.
const SMALL_CASE: &str = "flat";
/// Stands for the case of an instance that the device cannot run.
const NO_CASE: &str = "every case";
/// Most query-key pairs of a head that the plain kernel is tried on.
const MOST_PLAIN_PAIRS: usize = 160 * 160;
/// Shares of the pooled attention that selections are tried with, the ends included.
const MASSES: [f64; 5] = [0.0, 0.3, 0.8, 0.95, 1.0];

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Passed,
    /// What is wrong.
    Failed(String),
    /// Why it could not run here.
    Skipped(String),
}

impl Verdict {
    /// Takes an error of a launch as a failure of its kernel, unless the device gave out with it.
    fn of(error: BackendError) -> Result<Self, BackendError> {
        match error {
            lost @ BackendError::Lost { .. } => Err(lost),
            error => Ok(Self::Failed(error.to_string())),
        }
    }
}

impl From<Result<(), String>> for Verdict {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// One subject on one case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Kernel instance or CPU variant.
    pub subject: String,
    /// Name of the case, with what it was varied by.
    pub case: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Errors of an attention kernel whose launch worked.
    pub accuracy: Option<Accuracy>,
    /// What the launch executed, where the device counts.
    pub counts: BTreeMap<String, u64>,
    /// Seconds the check took, its share of the set-up apart.
    pub seconds: f64,
}

/// Which checks run: given a subject and a case.
pub type Filter<'a> = &'a dyn Fn(&str, &str) -> bool;

/// Takes outcomes as they come.
pub type Sink<'a> = &'a mut dyn FnMut(Outcome);

/// Why checking stopped before its end: the device gave out, or a case is none.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nothing more runs on the device.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// Code that mutants are to be made of is not clean itself.
    #[error("{kernel} is not clean, so its mutants say nothing: {reason}")]
    NotClean {
        /// Kernel instance.
        kernel: String,
        /// What was reported.
        reason: String,
    },
    /// The catalogue holds an impossible problem.
    #[error("a case of the catalogue is impossible: {0}")]
    Case(#[from] ParseError),
}

/// Checks instances of the device kernels; [`nabla_kernels_gpu::instances::INSTANCES`] are all that are shipped.
///
/// # Errors
/// When the device gives out. A kernel that fails is an outcome, not an error.
pub fn check_kernels(
    backend: &dyn KernelBackend,
    instances: &[Instance],
    filter: Filter<'_>,
    sink: Sink<'_>,
) -> Result<(), CheckError> {
    let mut runnable = Vec::new();
    for instance in instances {
        match backend.fits(instance) {
            Ok(()) => runnable.push(*instance),
            Err(ineligible) if filter(&variant_id(instance), NO_CASE) => sink(Outcome {
                subject: variant_id(instance),
                case: NO_CASE.to_owned(),
                verdict: Verdict::Skipped(ineligible.reason),
                accuracy: None,
                counts: BTreeMap::new(),
                seconds: 0.0,
            }),
            Err(_) => {}
        }
    }
    let mut run = Run { backend, instances: &runnable, filter, sink };
    for case in ATTENTION {
        run.attention(case)?;
    }
    for case in REORDER {
        run.reorder(case)?;
    }
    for case in SELECTION {
        run.selection(case)?;
    }
    Ok(())
}

/// Names one case of an instance's kernel that has work for every part of it.
fn usual_case(instance: &Instance) -> String {
    match instance.kernel {
        Kernel::AttentionDense | Kernel::HopperDense => format!("{USUAL_CASE} dense"),
        Kernel::AttentionPlain => format!("{SMALL_CASE} block {USUAL_BLOCK}"),
        Kernel::AttentionSparse | Kernel::HopperSparse => {
            format!("{USUAL_CASE} block {}", USUAL_BLOCK.max(instance.query_rows() as usize))
        }
        Kernel::ReorderPool => USUAL_CASE.to_owned(),
        Kernel::Select => "video mass 0.8".to_owned(),
    }
}

/// Runs an instance on one case that has work for every part of it, to count what it executes.
///
/// # Errors
/// When the device gives out.
pub fn run_usual_case(
    backend: &dyn KernelBackend,
    instance: &Instance,
) -> Result<Option<Outcome>, CheckError> {
    let case = usual_case(instance);
    let mut found = None;
    check_kernels(backend, &[*instance], &|_, name| name == case, &mut |outcome| found = Some(outcome))?;
    Ok(found)
}

/// Checks every tile of a backend that has tiles instead of listed instances, in each dtype it takes.
///
/// # Errors
/// When the backend gives out.
pub fn check_tiles(backend: &dyn Backend, filter: Filter<'_>, sink: Sink<'_>) -> Result<(), CheckError> {
    for case in ATTENTION {
        for (head_dim, dtype) in
            [64, 96, 128].into_iter().flat_map(|d| [Dtype::F32, Dtype::Bf16, Dtype::F16].map(|t| (d, t)))
        {
            for block in blocks_of(case) {
                tiles_on(backend, case, (head_dim, dtype), block, filter, sink)?;
            }
        }
    }
    Ok(())
}

fn tiles_on(
    backend: &dyn Backend,
    case: &Case,
    (head_dim, dtype): (usize, Dtype),
    block: Option<MaskBlock>,
    filter: Filter<'_>,
    sink: Sink<'_>,
) -> Result<(), CheckError> {
    let problem = case.qkv(head_dim, dtype).problem();
    let name = case_name(case, block);
    let eligible =
        backend.tiles(&problem).into_iter().filter_map(|tile| backend.variant(&problem, block, tile).ok());
    let variants: Vec<_> = eligible.filter(|variant| filter(&variant.id.0, &name)).collect();
    if variants.is_empty() {
        return Ok(());
    }
    let made = AttentionCase::get(case, head_dim, dtype, block)?;
    let mut workspace = backend.load(Arc::clone(&made.qkv), Arc::clone(&made.orders))?;
    for variant in variants {
        let started = Instant::now();
        let (verdict, accuracy) =
            made.check(&mut *workspace, variant.rounding(), |w, pattern| w.attention(&variant, pattern))?;
        let seconds = started.elapsed().as_secs_f64();
        let (subject, case, counts) = (variant.id.0, name.clone(), BTreeMap::new());
        sink(Outcome { subject, case, verdict, accuracy, counts, seconds });
    }
    Ok(())
}

/// Mask blocks of a case, `None` for dense.
fn blocks_of(case: &Case) -> impl Iterator<Item = Option<MaskBlock>> {
    let sparse = BLOCKS.into_iter().filter(|&block| case.all_blocks || block == USUAL_BLOCK);
    case.dense.then_some(None).into_iter().chain(sparse.map(|block| Some(MaskBlock::square(block))))
}

fn case_name(case: &Case, block: Option<MaskBlock>) -> String {
    match block {
        None => format!("{} dense", case.name),
        Some(block) => format!("{} block {}", case.name, block.q_block),
    }
}

/// Says whether an attention kernel is tried on a case with a mask block (`None`: dense).
fn is_for(instance: &Instance, case: &Case, block: Option<MaskBlock>) -> bool {
    match (instance.kernel, block) {
        (Kernel::AttentionDense | Kernel::HopperDense, None) => true,
        // It has no tiles: what is longer says nothing new about it.
        (Kernel::AttentionPlain, Some(block)) => {
            block.q_block == USUAL_BLOCK && case.pairs() <= MOST_PLAIN_PAIRS
        }
        // A tile never spans two query blocks.
        (Kernel::AttentionSparse | Kernel::HopperSparse, Some(block)) => {
            instance.query_rows() as usize <= block.q_block
        }
        _ => false,
    }
}

fn host_dtype(dtype: config::Dtype) -> Dtype {
    match dtype {
        config::Dtype::Bf16 => Dtype::Bf16,
        config::Dtype::F16 => Dtype::F16,
    }
}

/// What an attention kernel rounds: the plain one keeps its probabilities in float32.
fn rounding(instance: &Instance) -> Rounding {
    let output = host_dtype(instance.constants.dtype);
    let probabilities = if instance.kernel == Kernel::AttentionPlain { Dtype::F32 } else { output };
    Rounding { probabilities, output }
}

/// Checks of instances on one device.
struct Run<'a> {
    backend: &'a dyn KernelBackend,
    instances: &'a [Instance],
    filter: Filter<'a>,
    sink: Sink<'a>,
}

impl Run<'_> {
    /// Lists the instances that any of some cases is for.
    fn instances(&self, cases: &[&str], fits: impl Fn(&Instance) -> bool) -> Vec<Instance> {
        let wanted = |instance: &&Instance| {
            fits(instance) && cases.iter().any(|case| (self.filter)(&variant_id(instance), case))
        };
        self.instances.iter().filter(wanted).copied().collect()
    }

    /// Runs one instance and hands the outcome over.
    fn one(
        &mut self,
        instance: &Instance,
        case: &str,
        workspace: &mut dyn KernelWorkspace,
        check: impl FnOnce(&mut dyn KernelWorkspace) -> Result<(Verdict, Option<Accuracy>), BackendError>,
    ) -> Result<(), BackendError> {
        let subject = variant_id(instance);
        workspace.take_counts();
        let started = Instant::now();
        let (verdict, accuracy) = check(workspace)?;
        let seconds = started.elapsed().as_secs_f64();
        let mut counts = BTreeMap::new();
        for launch in workspace.take_counts().into_iter().filter(|launch| launch.variant == subject) {
            for (name, count) in launch.counts {
                *counts.entry(name).or_default() += count;
            }
        }
        (self.sink)(Outcome { subject, case: case.to_owned(), verdict, accuracy, counts, seconds });
        Ok(())
    }

    fn attention(&mut self, case: &Case) -> Result<(), CheckError> {
        for block in blocks_of(case) {
            let name = case_name(case, block);
            let fits = |instance: &Instance| is_for(instance, case, block);
            let mut kinds: BTreeMap<_, Vec<Instance>> = BTreeMap::new();
            for instance in self.instances(&[&name], fits) {
                kinds
                    .entry((instance.constants.head_dim, instance.constants.dtype))
                    .or_default()
                    .push(instance);
            }
            for ((head_dim, dtype), instances) in kinds {
                let made = AttentionCase::get(case, head_dim as usize, host_dtype(dtype), block)?;
                let mut workspace = self.backend.open(Arc::clone(&made.qkv), Arc::clone(&made.orders))?;
                for instance in instances {
                    self.one(&instance, &name, &mut *workspace, |workspace| {
                        made.check(workspace, rounding(&instance), |w, pattern| {
                            w.attention_of(&instance, pattern)
                        })
                    })?;
                }
            }
        }
        Ok(())
    }

    fn reorder(&mut self, case: &Case) -> Result<(), CheckError> {
        for instance in self.instances(&[case.name], |instance| instance.kernel == Kernel::ReorderPool) {
            let constants = instance.constants;
            let (qkv, orders) =
                reorder::inputs(case, constants.head_dim as usize, host_dtype(constants.dtype))?;
            let mut workspace = self.backend.open(Arc::new(qkv.clone()), Arc::new(orders.clone()))?;
            self.one(&instance, case.name, &mut *workspace, |workspace| {
                let verdict = match workspace.reorder_of(&instance) {
                    Ok(reordered) => reorder::judge(&qkv, &orders, &reordered),
                    Err(error) => Verdict::of(error)?,
                };
                Ok((verdict, None))
            })?;
        }
        Ok(())
    }

    fn selection(&mut self, case: &Case) -> Result<(), CheckError> {
        let (_, orders) = reorder::inputs(case, USUAL_BLOCK, Dtype::Bf16)?;
        let rules = Rules::new(&orders)?;
        let all: Vec<(String, SelectionRule<'_>)> = rules.named(case.name).collect();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        for instance in self.instances(&names, |instance| instance.kernel == Kernel::Select) {
            let (qkv, orders) = reorder::inputs(case, instance.constants.head_dim as usize, Dtype::Bf16)?;
            let (scale, qkv) = (qkv.problem().softmax_scale, Arc::new(qkv));
            let mut workspace = self.backend.open(qkv, Arc::new(orders.clone()))?;
            let pool =
                Instance::tokens(Kernel::ReorderPool, instance.constants.head_dim, config::Dtype::Bf16);
            let means = workspace.reorder_of(&pool)?;
            for (name, rule) in all.iter().filter(|(name, _)| (self.filter)(&variant_id(&instance), name)) {
                let blocks = [orders.q.layout().blocks(), orders.kv.layout().blocks()];
                self.one(&instance, name, &mut *workspace, |workspace| {
                    Ok((selected(workspace, &instance, rule, &means, blocks, scale)?, None))
                })?;
            }
        }
        Ok(())
    }
}

/// The rules that selections are tried with on one case: masses, a window, documents, and all of them together.
struct Rules {
    window: Option<Vec<u64>>,
    documents: Vec<u64>,
}

impl Rules {
    fn new(orders: &Orders) -> Result<Self, ParseError> {
        let (q, kv) = (orders.q.layout(), orders.kv.layout());
        // A plain sequence has no window.
        let window = STA.parse::<Policy>()?.static_bitmap(orders).ok().flatten();
        Ok(Self { window, documents: documents(q.blocks(), kv.blocks()) })
    }

    fn named(&self, case: &str) -> impl Iterator<Item = (String, SelectionRule<'_>)> {
        let masses = MASSES.into_iter().map(Some).chain([None]);
        let cuts = [(false, false), (true, false), (false, true), (true, true)];
        let all = masses.flat_map(move |mass| cuts.map(|(windowed, cut)| (mass, windowed, cut)));
        all.filter(|(_, windowed, _)| !windowed || self.window.is_some()).map(move |(mass, windowed, cut)| {
            let rule = SelectionRule {
                mass,
                always: self.window.as_deref().filter(|_| windowed),
                allowed: cut.then_some(self.documents.as_slice()),
            };
            let mass = mass.map_or("no mass".to_owned(), |mass| format!("mass {mass}"));
            let (window, cut) = (if windowed { " window" } else { "" }, if cut { " documents" } else { "" });
            (format!("{case} {mass}{window}{cut}"), rule)
        })
    }
}

/// The window of the selection's cases: wider in time than in space, so that rows differ.
const STA: &str = "sta-3-1-3";

/// Two documents that share no token: blocks of one see those of the same alone. Where there is a single block, all is
/// one document.
fn documents(q_blocks: usize, kv_blocks: usize) -> Vec<u64> {
    let words = kv_blocks.div_ceil(64);
    let mut bits = vec![0; q_blocks * words];
    for i in 0..q_blocks {
        for j in (0..kv_blocks).filter(|j| (2 * i >= q_blocks) == (2 * j >= kv_blocks)) {
            bits[i * words + j / 64] |= 1 << (j % 64);
        }
    }
    bits
}

/// Selects from means that the device made, and judges against those same means.
fn selected(
    workspace: &mut dyn KernelWorkspace,
    instance: &Instance,
    rule: &SelectionRule<'_>,
    means: &Reordered,
    [q_blocks, kv_blocks]: [usize; 2],
    scale: f32,
) -> Result<Verdict, BackendError> {
    match workspace.select_of(instance, rule) {
        Err(error) => Verdict::of(error),
        Ok(got) => {
            let map = selection::Map {
                batch_heads: got.counts.len() / q_blocks,
                q_blocks,
                kv_blocks,
                head_dim: instance.constants.head_dim as usize,
                scale,
                pooled_q: &means.pooled_q,
                pooled_k: &means.pooled_k,
            };
            Ok(selection::judge(&map, rule, &got))
        }
    }
}
