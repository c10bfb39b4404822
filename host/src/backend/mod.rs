//! Where kernels run.
//!
//! A [`Backend`] turns tiles into variants and loads problems; a [`Workspace`] holds one problem's tensors on the
//! device in block order and launches kernels on them. Times are those of the device, in microseconds, without
//! transfers between host and device.

mod cpu;
mod cuda;
mod device;
mod emulator;
mod kernel_backend;

use std::sync::Arc;

pub use cpu::{CpuBackend, CpuOptions};
pub use cuda::{CudaDevice, CudaOptions, CudaStatus, cuda_backend, cuda_status};
pub use emulator::{EmulatedArch, EmulatorOptions, emulator_backend};
pub use kernel_backend::{
    InstanceCode, KernelBackend, KernelWorkspace, LaunchCounts, Reordered, Selected, SelectionRule,
};
pub use nabla_kernels_cpu::Isa;

use crate::{
    BlockMask, Dtype, Policy, Problem,
    parameters::{ParameterSpace, Parameters},
    policy::PolicyError,
    tensor::Qkv,
    token_order::{Arrangement, TokenOrder},
    variant::{Eligibility, Ineligible, MaskBlock, TileConfig, Variant},
};

/// What a backend runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// `cpu`, `cuda` or `emulator`.
    pub backend: &'static str,
    /// Model name.
    pub name: String,
    /// Driver version, for a GPU.
    pub driver: Option<String>,
    /// Instruction set or architecture.
    pub isa: String,
    /// Threads, for a CPU.
    pub threads: Option<usize>,
}

/// A launch or set-up that did not work.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The kernel refused its arguments or failed.
    #[error("{what} failed: {reason}")]
    Launch {
        /// What was launched.
        what: String,
        /// What the kernel or driver said.
        reason: String,
    },
    /// The device gave out for good: nothing more runs on it in this process.
    #[error("{what} failed: {reason}")]
    Lost {
        /// What was launched.
        what: String,
        /// What the device said, and what to do.
        reason: String,
    },
    /// There is no kernel for it: not prebuilt, and not to be built here.
    #[error("{what} failed: {reason}")]
    Build {
        /// What was to be launched.
        what: String,
        /// What the code generator said.
        reason: String,
    },
    /// The device is not there or cannot be used.
    #[error("no usable {backend} device: {reason}")]
    Unavailable {
        /// Name of the backend.
        backend: &'static str,
        /// What is missing and what to do.
        reason: String,
    },
    /// The policy does not fit the problem.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The backend has no kernel for problems of this kind.
    #[error(transparent)]
    Ineligible(#[from] Ineligible),
}

/// Why a kernel was not built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBuilt {
    /// Whether it compiles and is turned down for what it takes of the device: spills, local memory, lost speed.
    pub rejected: bool,
    /// What the code generator said.
    pub reason: String,
}

/// How the tokens of queries and keys are cut into mask blocks.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Order of the queries.
    pub q: TokenOrder,
    /// Order of keys and values.
    pub kv: TokenOrder,
}

impl Orders {
    /// Orders the tokens of a problem for a mask block: by patches if it has a grid, else as they stand.
    ///
    /// # Errors
    /// When the mask block does not suit the grid or sequence.
    pub fn new(problem: &Problem, block: MaskBlock) -> Result<Self, crate::ParseError> {
        Self::arranged(problem, block, &Arrangement::Patches)
    }

    /// Orders the tokens of a problem for a mask block as a policy [asks for](Policy::arrangement).
    ///
    /// # Errors
    /// When the mask block does not suit the grid or sequence, or tokens without a grid are to be sorted.
    pub fn arranged(
        problem: &Problem,
        block: MaskBlock,
        arrangement: &Arrangement,
    ) -> Result<Self, crate::ParseError> {
        let of = |seqlen, block| TokenOrder::arranged(problem.grid, seqlen, block, arrangement);
        Ok(Self { q: of(problem.seqlen_q, block.q_block)?, kv: of(problem.seqlen_k, block.kv_block)? })
    }

    /// Returns the mask block.
    pub fn mask_block(&self) -> MaskBlock {
        MaskBlock { q_block: self.q.layout().block(), kv_block: self.kv.layout().block() }
    }
}

/// What a launch computes: everything, or the blocks of a mask.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Every query attends to every key.
    Dense,
    /// Only the blocks the mask keeps.
    Mask(Arc<BlockMask>),
}

impl Pattern {
    /// Returns the mask, if there is one.
    pub fn mask(&self) -> Option<&BlockMask> {
        match self {
            Pattern::Dense => None,
            Pattern::Mask(mask) => Some(mask),
        }
    }
}

/// Output of a launch, fetched from the device, in the block order of the queries.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionOutput {
    /// `[batch_heads, seqlen_q, head_dim]`.
    pub out: Vec<f32>,
    /// Natural log of the sum of exponentials, `[batch_heads, seqlen_q]`.
    pub lse: Vec<f32>,
}

/// What a device can do at best, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Peaks {
    /// 10¹² FLOP/s of products, by the element type of the inputs.
    pub tflops: Vec<(Dtype, f64)>,
    /// 10⁹ byte/s from and to memory.
    pub memory_gb_per_s: Option<f64>,
    /// Where the numbers come from, for people.
    pub source: &'static str,
}

/// A device and its kernels.
pub trait Backend {
    /// Returns what this backend runs on.
    fn device(&self) -> &DeviceIdentity;

    /// Returns what the device can do; nothing where that is not known.
    fn peaks(&self) -> Peaks {
        Peaks::default()
    }

    /// Returns how long launches of configurations are expected to take, in seconds, by a model and before anything is
    /// compiled; not a number for one the model does not cover. `None` where there is no model of the device.
    fn expected_seconds(
        &self,
        problem: &Problem,
        pattern: &Pattern,
        configurations: &[Parameters],
    ) -> Option<Vec<f64>> {
        let _ = (problem, pattern, configurations);
        None
    }

    /// Lists the tiles worth trying on a problem; some may be ineligible for a given mask block.
    fn tiles(&self, problem: &Problem) -> Vec<TileConfig>;

    /// Returns the tile a user gets who chooses none.
    fn default_tile(&self, problem: &Problem, block: Option<MaskBlock>) -> TileConfig;

    /// Makes the variant of a tile for a problem and mask block (`None` for dense), or says why it cannot run.
    fn variant(&self, problem: &Problem, block: Option<MaskBlock>, tile: TileConfig) -> Eligibility;

    /// Lists what can be varied on a problem and mask block (`None` for dense), and the configurations that can run.
    fn space(&self, problem: &Problem, block: Option<MaskBlock>) -> ParameterSpace;

    /// Returns the configuration a user gets who chooses none.
    fn default_parameters(&self, problem: &Problem, block: Option<MaskBlock>) -> Parameters;

    /// Makes the variant of a configuration, or says why it cannot run. Parameters that are not given are the backend's
    /// choice.
    fn configured(&self, problem: &Problem, block: Option<MaskBlock>, parameters: &Parameters)
    -> Eligibility;

    /// Builds what the variants of a problem need ahead of their first launch, `jobs` at once (0: one for each core), and
    /// tells of each as it is done, from any thread and in any order. Backends that compile nothing tell at once.
    fn prebuild(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        variants: &[Variant],
        jobs: usize,
        on_done: &(dyn Fn(usize, Result<(), NotBuilt>) + Sync),
    ) {
        let _ = (problem, block, jobs);
        (0..variants.len()).for_each(|index| on_done(index, Ok(())));
    }

    /// Puts the tensors on the device and reorders them.
    ///
    /// # Errors
    /// When memory or the device gives out.
    fn load(&self, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Box<dyn Workspace + '_>, BackendError>;
}

/// One problem's tensors on a device, in block order.
pub trait Workspace {
    /// Returns how the tokens are cut.
    fn orders(&self) -> &Arc<Orders>;

    /// Reorders Q, K and V from raster order and a result back, as one pass of a model does; returns microseconds.
    ///
    /// # Errors
    /// When the launch fails.
    fn time_reorder(&mut self) -> Result<f64, BackendError>;

    /// Builds the block mask of a sparse policy: pooling, pooled map, selection, lists. Returns it with the
    /// microseconds it took.
    ///
    /// # Errors
    /// When the policy does not fit the problem or the launch fails.
    fn build_mask(&mut self, policy: &Policy) -> Result<(Arc<BlockMask>, f64), BackendError>;

    /// Computes attention into the output buffers and returns microseconds.
    ///
    /// # Errors
    /// When the launch fails.
    fn attention(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, BackendError>;

    /// Fills the output buffers with NaN, so that whatever a kernel does not write shows.
    ///
    /// # Errors
    /// When the device fails.
    fn poison(&mut self) -> Result<(), BackendError>;

    /// Fetches the output of the last launch.
    ///
    /// # Errors
    /// When the device fails.
    fn output(&mut self) -> Result<AttentionOutput, BackendError>;
}
