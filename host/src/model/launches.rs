//! Launches that tell the units of a kernel apart: small, whole tiles, and one held out.
//!
//! Owns which launches; a backend runs and counts them.

use std::sync::Arc;

use nabla_kernels_gpu::{
    hopper::GROUP_ROWS,
    instances::{Arch, Instance, Kernel},
};

use super::{
    fit::{Fit, FitError, Sample, fit},
    predict::SELECT_KEYS,
    work::Extent,
};
use crate::{
    BlockMask, Dtype, ParseError,
    backend::{BackendError, KernelBackend, KernelWorkspace, Orders, Pattern, SelectionRule},
    codegen::variant_id,
    tensor::{Qkv, Tensor, TensorData},
    variant::MaskBlock,
};

/// Key tiles of the launches: more than any ring has stages.
const FEW: usize = 16;
const MORE: usize = 24;
const MOST: usize = 40;
/// Share of the attention that selections keep.
const MASS: f64 = 0.8;

/// Why a kernel has no counts to model it by.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It is none of those that are modelled.
    #[error("expected attention on tensor cores or a selection, got {0}: it has no model")]
    NotModelled(String),
    /// A launch failed.
    #[error(transparent)]
    Launch(#[from] BackendError),
    /// The backend counts nothing.
    #[error("expected a backend that counts what a launch executes, `{0}` counts nothing: use the emulator")]
    NothingCounted(&'static str),
    /// The counts do not tell units apart.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The problem of a launch is impossible.
    #[error(transparent)]
    Problem(#[from] ParseError),
}

/// Runs an instance on a few small problems and solves for the costs of its units.
///
/// # Errors
/// When a launch fails, or the instance is of a kernel without a model.
pub fn measure(backend: &dyn KernelBackend, instance: &Instance) -> Result<Fit, ModelError> {
    let runs = |lists: [(usize, Lists); 3]| -> Result<[Sample; 3], ModelError> {
        let [a, b, c] = lists.map(|(tiles, lists)| attention(backend, instance, tiles, lists));
        Ok([a?, b?, c?])
    };
    match instance.kernel {
        Kernel::HopperSparse if instance.constants.lists() > 1 => {
            let [few, more, apart] = runs([(FEW, Lists::Full), (MORE, Lists::Full), (MORE, Lists::Apart)])?;
            let held_out = attention(backend, instance, MOST, Lists::Apart)?;
            Ok(fit(&[few, more, apart], &held_out)?)
        }
        Kernel::AttentionSparse | Kernel::AttentionDense | Kernel::HopperSparse | Kernel::HopperDense => {
            let [few, more, held_out] = runs([(FEW, Lists::Full), (MORE, Lists::Full), (MOST, Lists::Full)])?;
            Ok(fit(&[few, more], &held_out)?)
        }
        Kernel::Select => {
            let [one, two, held_out] = [1, 2, 3].map(|chunks| selection(backend, instance, chunks));
            Ok(fit(&[one?, two?], &held_out?)?)
        }
        Kernel::AttentionPlain | Kernel::ReorderPool => Err(ModelError::NotModelled(variant_id(instance))),
    }
}

/// What the query blocks of a block of threads attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// Each to all keys.
    Full,
    /// Each to keys that none of its neighbours attends to.
    Apart,
}

/// Runs attention of two blocks of threads, or clusters, on `tiles` key tiles.
fn attention(
    backend: &dyn KernelBackend,
    instance: &Instance,
    tiles: usize,
    lists: Lists,
) -> Result<Sample, ModelError> {
    const BLOCKS: usize = 2;
    let c = &instance.constants;
    let (shared_by, rows) = match instance.kernel.arch() {
        Arch::Sm80 => (1, c.block_m as usize),
        Arch::Sm90a => (c.lists() as usize, GROUP_ROWS as usize),
    };
    let query_tiles = BLOCKS * shared_by;
    let block = MaskBlock { q_block: rows, kv_block: c.block_n as usize };
    let qkv = tensors(instance, query_tiles * rows, tiles * block.kv_block);
    let orders = Arc::new(Orders::new(&qkv.problem(), block)?);
    let pattern = if instance.kernel.is_sparse() {
        let keep = |_, i: usize, j: usize| lists == Lists::Full || (i + j).is_multiple_of(shared_by);
        let mask = BlockMask::from_fn(1, Arc::clone(orders.q.layout()), Arc::clone(orders.kv.layout()), keep);
        Pattern::Mask(Arc::new(mask))
    } else {
        Pattern::Dense
    };
    let wanted = if lists == Lists::Full { query_tiles * tiles } else { BLOCKS * tiles };
    // Each block of threads of a cluster has all that the cluster loads.
    let blocks = BLOCKS * c.cluster as usize;
    let extent = Extent { blocks: blocks as f64, loads: (blocks * tiles) as f64, tiles: wanted as f64 };
    let mut workspace = backend.open(Arc::new(qkv), orders)?;
    counted(backend, instance, extent, &mut *workspace, |workspace| {
        workspace.attention_of(instance, &pattern).map(|_| ())
    })
}

/// Runs the selection of two blocks of threads from `chunks` tiles of keys.
fn selection(backend: &dyn KernelBackend, instance: &Instance, chunks: usize) -> Result<Sample, ModelError> {
    const BLOCKS: usize = 2;
    let c = &instance.constants;
    // Every token is a block: what the means are of does not matter here.
    let qkv = tensors(instance, BLOCKS * c.block_m as usize, chunks * SELECT_KEYS);
    let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(1))?);
    let tiles = (BLOCKS * chunks) as f64;
    let extent = Extent { blocks: BLOCKS as f64, loads: tiles, tiles };
    let mut workspace = backend.open(Arc::new(qkv), orders)?;
    let rule = SelectionRule { mass: Some(MASS), ..SelectionRule::default() };
    counted(backend, instance, extent, &mut *workspace, |workspace| {
        workspace.select_of(instance, &rule).map(|_| ())
    })
}

/// Makes one head's tensors. What the numbers are decides no branch of attention, but how many passes a selection takes:
/// they are spread as those of many dimensions are.
fn tensors(instance: &Instance, seqlen_q: usize, seqlen_k: usize) -> Qkv {
    let (d, dtype) = (instance.constants.head_dim as usize, dtype_of(instance));
    let tensor = |seqlen: usize, seed: u32| {
        let mut state = seed;
        let numbers: Vec<f32> = (0..seqlen * d)
            .map(|_| {
                // A linear congruence (Numerical Recipes); its upper bits are good enough.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        Tensor { shape: [1, 1, seqlen, d], data: TensorData::from_f32(&numbers, dtype) }
    };
    Qkv {
        q: tensor(seqlen_q, 1),
        k: tensor(seqlen_k, 2),
        v: tensor(seqlen_k, 3),
        grid: None,
        softmax_scale: None,
        source: "launches of the model".to_owned(),
    }
}

fn dtype_of(instance: &Instance) -> Dtype {
    match instance.constants.dtype {
        nabla_kernels_gpu::config::Dtype::Bf16 => Dtype::Bf16,
        nabla_kernels_gpu::config::Dtype::F16 => Dtype::F16,
    }
}

/// Runs a launch and takes what it counted.
fn counted(
    backend: &dyn KernelBackend,
    instance: &Instance,
    extent: Extent,
    workspace: &mut dyn KernelWorkspace,
    launch: impl FnOnce(&mut dyn KernelWorkspace) -> Result<(), BackendError>,
) -> Result<Sample, ModelError> {
    workspace.take_counts();
    launch(workspace)?;
    let id = variant_id(instance);
    let counts = workspace.take_counts().into_iter().find(|launch| launch.variant == id);
    let counts = counts.ok_or(ModelError::NothingCounted(backend.device().backend))?.counts;
    Ok(Sample { extent, counts })
}
