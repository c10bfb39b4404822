//! NVIDIA GPUs: PTX from kernels-gpu, launched through the CUDA driver.
//!
//! Owns devices, device memory, launches and their times. Does not compile: PTX comes from [`crate::codegen`], or
//! from a folder of kernels that it filled elsewhere. Everything here builds, and a program with it starts, where
//! there is nothing of CUDA: the driver is loaded when it is asked for.
//!
//! ```text
//! driver     the driver's functions, and owners of what they hand out: the only `unsafe` code
//! error      each failure in one message
//! launch     kernel arguments and parameters
//! memory     buffers between guard zones
//! timing     events, with a cold second-level cache
//! kernels    from an instance to a function on the device
//! workspace  tensors of a problem, and the kernels run on them
//! ```

mod driver;
mod error;
mod kernels;
mod launch;
mod memory;
mod status;
mod timing;
mod workspace;

use std::{path::PathBuf, rc::Rc, sync::Arc};

use nabla_kernels_gpu::{
    config::{self, Constants},
    instances::{INSTANCES, Instance, Kernel, space::Axes},
};

pub use status::{CudaDevice, CudaStatus, cuda_status};

use self::{
    driver::{Context, DeviceFacts, Driver},
    error::{CudaError, Version},
    kernels::Kernels,
    timing::Timer,
    workspace::CudaWorkspace,
};
use super::{Backend, BackendError, DeviceIdentity, Orders, Workspace};
use crate::{
    Dtype, Problem,
    codegen::variant_id,
    tensor::Qkv,
    variant::{Eligibility, Ineligible, MaskBlock, TileConfig, Variant, VariantId},
};

/// Name of this backend.
const NAME: &str = "cuda";
/// The oldest devices with the instructions of the kernels: bf16 tensor cores and asynchronous copies.
const OLDEST_DEVICE: Version = Version { major: 8, minor: 0 };

/// How the CUDA backend is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Number of the device.
    pub device: usize,
    /// Folder of compiled kernels; `None` takes the user's.
    pub kernel_cache: Option<PathBuf>,
}

/// One NVIDIA GPU.
#[derive(Debug)]
pub struct CudaBackend {
    context: Rc<Context>,
    kernels: Kernels,
    timer: Timer,
    device: DeviceIdentity,
}

impl CudaBackend {
    /// Makes a device ready.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when there is no driver, an old one, or no such device; another when the device
    /// cannot be used.
    pub fn new(options: &CudaOptions) -> Result<Self, BackendError> {
        Self::start(options).map_err(|error| error.during("starting the cuda backend"))
    }

    /// Says whether there is anything to get kernels from: a prebuilt folder, or a compiler for device code.
    ///
    /// # Errors
    /// [`BackendError::Build`] when there is neither.
    pub fn kernels_ready(&self) -> Result<(), BackendError> {
        self.kernels.ready().map_err(|error| error.during("finding kernels"))
    }

    fn start(options: &CudaOptions) -> Result<Self, CudaError> {
        let driver = Driver::get()?;
        let devices = driver.devices()?;
        let count = devices.len();
        let facts = devices
            .into_iter()
            .nth(options.device)
            .ok_or(CudaError::NoSuchDevice { wanted: options.device, count })?;
        check_capability(&facts)?;
        let device = DeviceIdentity {
            backend: NAME,
            name: facts.name.clone(),
            driver: Some(driver.version().to_string()),
            isa: architecture(facts.capability),
            threads: None,
        };
        let context = Context::new(driver, facts)?;
        Ok(Self {
            kernels: Kernels::open(&context, options.kernel_cache.as_deref())?,
            timer: Timer::new(&context)?,
            context,
            device,
        })
    }
}

/// Names the architecture of a compute capability.
fn architecture(capability: Version) -> String {
    format!("sm_{}{}", capability.major, capability.minor)
}

fn check_capability(facts: &DeviceFacts) -> Result<(), CudaError> {
    if facts.capability >= OLDEST_DEVICE {
        return Ok(());
    }
    Err(CudaError::DeviceTooOld { name: facts.name.clone(), need: OLDEST_DEVICE, have: facts.capability })
}

/// Returns the type the kernels know a dtype by.
fn device_dtype(dtype: Dtype) -> Result<config::Dtype, Ineligible> {
    match dtype {
        Dtype::Bf16 => Ok(config::Dtype::Bf16),
        Dtype::F16 => Ok(config::Dtype::F16),
        Dtype::F32 => Err(Ineligible {
            reason:
                "tensor cores take bf16 or f16 inputs, these are f32: round them with --dtype bf16, or use \
                     --backend cpu"
                    .to_owned(),
        }),
    }
}

/// Finds the instance of attention with a tile: a listed one, else the defaults with that tile.
fn attention_instance(
    problem: &Problem,
    block: Option<MaskBlock>,
    tile: TileConfig,
) -> Result<Instance, Ineligible> {
    let dtype = device_dtype(problem.dtype)?;
    let kernel = if block.is_some() { Kernel::AttentionSparse } else { Kernel::AttentionDense };
    let refuse = |reason: String| Err(Ineligible { reason });
    let small = |size: usize| u32::try_from(size).ok();
    let (Some(block_m), Some(block_n), Some(head_dim)) =
        (small(tile.block_m), small(tile.block_n), small(problem.head_dim))
    else {
        return refuse(format!("tile {tile} or head dimension {} is out of all range", problem.head_dim));
    };
    if let Some(block) = block.filter(|block| tile.block_m > block.q_block) {
        return refuse(format!(
            "BLOCK_M must be at most the mask's query block of {}, got {block_m}: a tile never spans two query blocks",
            block.q_block
        ));
    }
    let listed = listed(kernel, problem)
        .find(|instance| instance.constants.block_m == block_m && instance.constants.block_n == block_n);
    let stages = Constants::DEFAULT.stages;
    let made = Instance::attention(kernel, [block_m, block_n, head_dim, stages], dtype);
    let instance = listed.copied().unwrap_or(made);
    match instance.check() {
        Ok(()) => Ok(instance),
        Err(reason) => refuse(format!("tile {tile}, head dimension {head_dim}: {reason}")),
    }
}

/// Lists the instances of a kernel that fit a problem.
fn listed(kernel: Kernel, problem: &Problem) -> impl Iterator<Item = &'static Instance> {
    let (dtype, head_dim) = (device_dtype(problem.dtype).ok(), problem.head_dim);
    INSTANCES.iter().filter(move |instance| {
        instance.kernel == kernel
            && Some(instance.constants.dtype) == dtype
            && instance.constants.head_dim as usize == head_dim
    })
}

impl Backend for CudaBackend {
    fn device(&self) -> &DeviceIdentity {
        &self.device
    }

    fn tiles(&self, problem: &Problem) -> Vec<TileConfig> {
        // Any point can be compiled: listed instances are the ones that tests build, not all there are.
        let tiles = Axes::ALL.block_m.iter().flat_map(|&block_m| {
            Axes::ALL
                .block_n
                .iter()
                .map(move |&block_n| TileConfig { block_m: block_m as usize, block_n: block_n as usize })
        });
        tiles.filter(|&tile| attention_instance(problem, None, tile).is_ok()).collect()
    }

    fn default_tile(&self, _: &Problem, block: Option<MaskBlock>) -> TileConfig {
        let default = Constants::DEFAULT;
        let block_m = default.block_m as usize;
        TileConfig {
            block_m: block.map_or(block_m, |block| block.q_block.min(block_m)),
            block_n: default.block_n as usize,
        }
    }

    fn variant(&self, problem: &Problem, block: Option<MaskBlock>, tile: TileConfig) -> Eligibility {
        let instance = attention_instance(problem, block, tile)?;
        let available = self.context.facts().shared_bytes_per_block;
        if instance.shared_bytes() > available {
            let reason = format!(
                "needs {} bytes of shared memory, {} has {available} for a block",
                instance.shared_bytes(),
                self.device.name
            );
            return Err(Ineligible { reason });
        }
        Ok(Variant {
            id: VariantId(variant_id(&instance)),
            tile,
            probabilities: problem.dtype,
            output: problem.dtype,
        })
    }

    fn load(&self, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Box<dyn Workspace + '_>, BackendError> {
        device_dtype(qkv.problem().dtype)?;
        let workspace = CudaWorkspace::load(self, &qkv, orders);
        Ok(Box::new(workspace.map_err(|error| error.during("loading the tensors"))?))
    }
}
