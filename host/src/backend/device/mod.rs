//! Everything that is the same whatever runs our PTX: buffers, kernels, launches of the operator's steps.
//!
//! A [`Device`] is the little that differs: memory, loading, launching, time. [`DeviceBackend`] makes a
//! [`crate::backend::Backend`] of one. Does not know the CUDA driver, nor the emulator.
//!
//! ```text
//! arguments  kernel arguments and the parameters a kernel's PTX declares
//! error      each failure in one message
//! buffer     memory with what is known of its contents; guard zones where the device has none of its own
//! choice     from a problem and a tile to the instances that could compute it
//! order      in which blocks of threads that go on to more work take it
//! parameters from named parameters to an instance
//! kernels    from an instance to a function on the device
//! workspace  tensors of a problem, and the kernels run on them
//! instances  one listed instance at a time, for checks
//! ```

mod arguments;
mod buffer;
mod choice;
mod error;
mod instances;
mod kernels;
mod order;
mod parameters;
mod workspace;

use std::{cell::RefCell, collections::HashMap, fmt, path::Path, rc::Rc, sync::Arc};

use nabla_kernels_gpu::{
    config::{self, Constants},
    hopper::TensorMap,
    instances::Instance,
};

pub(super) use self::{
    arguments::Arguments,
    error::{Bytes, DeviceError, Version, code},
};
use self::{
    choice::{Preference, attention_candidates, device_dtype},
    kernels::Kernels,
    workspace::DeviceWorkspace,
};
use super::{
    Backend, BackendError, DeviceIdentity, InstanceCode, KernelBackend, KernelWorkspace, LaunchCounts,
    NotBuilt, Orders, Pattern, Peaks, Workspace,
};
use crate::{
    Dtype, Problem,
    codegen::variant_id,
    model::{Machine, MaskLoad, cost},
    parameters::{ParameterSpace, Parameters},
    tensor::Qkv,
    variant::{Eligibility, Ineligible, MaskBlock, TileConfig, Variant, VariantId},
};

/// What a kernel needs of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    /// Model name, for messages.
    pub(super) name: String,
    /// Compute capability.
    pub(super) capability: Version,
    /// Dynamic shared memory a block may ask for.
    pub(super) shared_bytes_per_block: u32,
    /// Streaming multiprocessors.
    pub(super) multiprocessors: u32,
}

/// A compiled kernel, ready to be loaded.
#[derive(Debug, Clone)]
pub(super) struct Code<'a> {
    /// Stable name of the variant.
    pub(super) id: &'a str,
    /// PTX.
    pub(super) ptx: &'a str,
    /// Machine code of that PTX for exactly this device's architecture, where there is some: a driver need not compile.
    pub(super) cubin: Option<&'a [u8]>,
    /// Symbol of the entry.
    pub(super) entry: &'a str,
    /// Bytes of each parameter, as the PTX declares them.
    pub(super) parameters: Vec<usize>,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
}

/// Bytes of a tensor map; in device memory it is aligned to 64.
pub(super) const MAP_BYTES: usize = 128;

/// A dense tensor `[batch_heads, tokens, head_dim]` of 16-bit numbers, and how boxes of it are copied. Coordinates past an
/// end read as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MappedTensor {
    /// Device address of the first element, a multiple of 16.
    pub(super) address: u64,
    /// Elements along each dimension, from the innermost.
    pub(super) elements: [u64; 3],
    /// Type of the elements.
    pub(super) dtype: config::Dtype,
    /// Box and swizzle.
    pub(super) map: TensorMap,
}

impl MappedTensor {
    /// Returns the bytes between neighbours along the second and third dimension.
    pub(super) fn strides(&self) -> [u64; 2] {
        let row = self.elements[0] * 2;
        [row, row * self.elements[1]]
    }
}

/// Something that runs PTX.
///
/// Handles stay on the thread that made them. Work is done in the order in which it is queued.
pub(super) trait Device: fmt::Debug + Sized {
    /// Name of the backend.
    const BACKEND: &'static str;
    /// Bytes of the guard zones to be put around a buffer: 0 where accesses outside a buffer fail by themselves.
    const GUARD_BYTES: usize;
    /// Whether it runs machine code; where not, none is read.
    const TAKES_MACHINE_CODE: bool;
    /// Memory on the device, freed when dropped.
    type Memory: Memory;
    /// A loaded kernel.
    type Function: fmt::Debug;

    /// Returns what kernels need of it.
    fn limits(&self) -> &Limits;

    /// Takes memory for `what`; what it holds is arbitrary.
    fn allocate(device: &Rc<Self>, bytes: usize, what: &str) -> Result<Self::Memory, DeviceError>;

    /// Loads a kernel.
    fn load(device: &Rc<Self>, code: Code<'_>) -> Result<Self::Function, DeviceError>;

    /// Queues a kernel; `grid` is in blocks.
    fn launch(
        &self,
        function: &Self::Function,
        grid: [u32; 3],
        arguments: &Arguments,
    ) -> Result<(), DeviceError>;

    /// Describes a tensor on the device to kernels that copy boxes of it.
    fn tensor_map(&self, tensor: &MappedTensor) -> Result<[u8; MAP_BYTES], DeviceError>;

    /// Returns the microseconds the device takes for what `work` queues, which may be asked to queue it several times; NaN
    /// where time is not modelled.
    fn time_us(&self, work: impl Fn() -> Result<(), DeviceError>) -> Result<f64, DeviceError>;

    /// Hands over what launches since the last call counted; nothing where nothing is counted.
    fn take_counts(&self) -> Vec<LaunchCounts>;
}

/// Memory of a device. Ranges lie within it: callers compute them from its size.
pub(super) trait Memory: fmt::Debug {
    /// Returns the device address of a byte.
    fn address(&self, offset: usize) -> u64;

    /// Copies to the device.
    fn write(&self, offset: usize, from: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the device once all work before is done.
    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), DeviceError>;

    /// Makes bytes read as all ones, which is NaN for every float type and -1 for every integer, until written.
    fn poison(&self, offset: usize, bytes: usize) -> Result<(), DeviceError>;
}

/// Why nothing is chosen among no candidates.
const NO_CANDIDATE: &str = "no kernel has this tile: choose another";

/// A backend over a device that runs PTX.
#[derive(Debug)]
pub(super) struct DeviceBackend<D: Device> {
    device: Rc<D>,
    kernels: Kernels<D>,
    identity: DeviceIdentity,
    /// Instances of the variants handed out.
    chosen: RefCell<HashMap<VariantId, Instance>>,
}

impl<D: Device> DeviceBackend<D> {
    /// Makes a backend of a device and a folder of kernels, `None` for the user's.
    pub(super) fn new(
        device: D,
        identity: DeviceIdentity,
        kernel_cache: Option<&Path>,
    ) -> Result<Self, DeviceError> {
        let device = Rc::new(device);
        Ok(Self {
            kernels: Kernels::open(&device, kernel_cache)?,
            device,
            identity,
            chosen: RefCell::default(),
        })
    }

    /// Returns the instance of a variant.
    fn instance(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        variant: &Variant,
    ) -> Result<Instance, Ineligible> {
        if let Some(instance) = self.chosen.borrow().get(&variant.id) {
            return Ok(*instance);
        }
        self.named(problem, block, &variant.parameters)
    }

    /// Finds the instance that parameters name; a tile alone leaves the rest to [`DeviceBackend::choose`].
    fn named(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        parameters: &Parameters,
    ) -> Result<Instance, Ineligible> {
        match parameters.tile() {
            Some(tile) if *parameters == Parameters::of_tile(tile) => self.choose(problem, block, tile),
            _ => parameters::instance_of(
                problem,
                block,
                parameters,
                self.kernels.instruction_sets(),
                |instance| self.fits(instance),
            ),
        }
    }

    /// Chooses the instance of attention with a tile: the first candidate that this device can run and that is to be had.
    fn choose(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        tile: TileConfig,
    ) -> Result<Instance, Ineligible> {
        let candidates = attention_candidates(problem, block, tile, self.kernels.instruction_sets())?;
        let mut refused = None;
        let mut runnable = candidates.into_iter().filter(|instance| match self.fits(instance) {
            Ok(()) => true,
            Err(ineligible) => {
                refused = Some(ineligible);
                false
            }
        });
        // A folder of prebuilt kernels may hold the portable ones alone. Where it holds none, loading says so.
        let first = runnable.next();
        let chosen = match first {
            Some(first) if !self.kernels.has(&first) => {
                let other = runnable.find(|instance| self.kernels.has(instance));
                Some(other.unwrap_or(first))
            }
            first => first,
        };
        chosen.ok_or_else(|| refused.unwrap_or_else(|| Ineligible { reason: NO_CANDIDATE.to_owned() }))
    }

    fn workspace(&self, qkv: &Arc<Qkv>, orders: Arc<Orders>) -> Result<DeviceWorkspace<'_, D>, BackendError> {
        device_dtype(qkv.problem().dtype)?;
        let during = |error: DeviceError| error.during(D::BACKEND, "loading the tensors");
        DeviceWorkspace::load(self, qkv, orders).map_err(during)
    }
}

impl<D: Device> Backend for DeviceBackend<D> {
    fn device(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn peaks(&self) -> Peaks {
        let Some(machine) = Machine::of_device(&self.identity.name) else { return Peaks::default() };
        let tflops = machine.peak_flops() / 1e12;
        Peaks {
            tflops: vec![(Dtype::Bf16, tflops), (Dtype::F16, tflops)],
            memory_gb_per_s: Some(machine.memory_bytes_per_second / 1e9),
            source: "published",
        }
    }

    fn expected_seconds(
        &self,
        problem: &Problem,
        pattern: &Pattern,
        configurations: &[Parameters],
    ) -> Option<Vec<f64>> {
        let machine = Machine::of_device(&self.identity.name)?;
        let load = pattern.mask().map(MaskLoad::of);
        let block = load.map(|load| load.block);
        let expected = |parameters: &Parameters| {
            let instance = self.named(problem, block, parameters).ok()?;
            let load = load.unwrap_or_else(|| MaskLoad::dense(MaskBlock::square(64)));
            cost(problem, &load, &instance, &machine)
        };
        Some(configurations.iter().map(|parameters| expected(parameters).unwrap_or(f64::NAN)).collect())
    }

    fn tiles(&self, problem: &Problem) -> Vec<TileConfig> {
        choice::tiles(problem, self.kernels.instruction_sets())
    }

    fn default_tile(&self, problem: &Problem, block: Option<MaskBlock>) -> TileConfig {
        let sets = self.kernels.instruction_sets();
        let Preference { preferred, portable } = choice::default_tiles(block, sets);
        let to_be_had = |&tile: &TileConfig| {
            self.choose(problem, block, tile).is_ok_and(|instance| self.kernels.has(&instance))
        };
        preferred.filter(to_be_had).unwrap_or(portable)
    }

    fn variant(&self, problem: &Problem, block: Option<MaskBlock>, tile: TileConfig) -> Eligibility {
        self.configured(problem, block, &Parameters::of_tile(tile))
    }

    fn space(&self, problem: &Problem, block: Option<MaskBlock>) -> ParameterSpace {
        let sets = self.kernels.instruction_sets();
        let fits = |instance: &Instance| self.fits(instance).and_then(|()| self.kernels.offers(instance));
        parameters::space(problem, block, sets, fits)
    }

    fn default_parameters(&self, problem: &Problem, block: Option<MaskBlock>) -> Parameters {
        let tile = self.default_tile(problem, block);
        self.choose(problem, block, tile)
            .map_or_else(|_| Parameters::of_tile(tile), |instance| parameters::parameters_of(&instance))
    }

    fn configured(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        parameters: &Parameters,
    ) -> Eligibility {
        let instance = self.named(problem, block, parameters)?;
        let Constants { block_m, block_n, .. } = instance.constants;
        let id = VariantId(variant_id(&instance));
        self.chosen.borrow_mut().insert(id.clone(), instance);
        Ok(Variant {
            id,
            tile: TileConfig { block_m: block_m as usize, block_n: block_n as usize },
            parameters: parameters.clone(),
            probabilities: problem.dtype,
            output: problem.dtype,
        })
    }

    fn prebuild(
        &self,
        problem: &Problem,
        block: Option<MaskBlock>,
        variants: &[Variant],
        jobs: usize,
        on_done: &(dyn Fn(usize, Result<(), NotBuilt>) + Sync),
    ) {
        let instances: Vec<(usize, Instance)> = variants
            .iter()
            .enumerate()
            .filter_map(|(index, variant)| match self.instance(problem, block, variant) {
                Ok(instance) => Some((index, instance)),
                Err(Ineligible { reason }) => {
                    on_done(index, Err(NotBuilt { rejected: false, reason }));
                    None
                }
            })
            .collect();
        self.kernels.prebuild(&instances, jobs, on_done);
    }

    fn load(&self, qkv: Arc<Qkv>, orders: Arc<Orders>) -> Result<Box<dyn Workspace + '_>, BackendError> {
        Ok(Box::new(self.workspace(&qkv, orders)?))
    }
}

impl<D: Device> KernelBackend for DeviceBackend<D> {
    fn kernels_ready(&self) -> Result<(), BackendError> {
        self.kernels.ready().map_err(|error| error.during(D::BACKEND, "finding kernels"))
    }

    fn fits(&self, instance: &Instance) -> Result<(), Ineligible> {
        let (needed, limits) = (instance.shared_bytes(), self.device.limits());
        self.kernels.runs(instance)?;
        if needed <= limits.shared_bytes_per_block {
            return Ok(());
        }
        let Limits { name, shared_bytes_per_block: available, .. } = limits;
        let reason = format!("needs {needed} bytes of shared memory, {name} has {available} for a block");
        Err(Ineligible { reason })
    }

    fn code(&self, instance: &Instance) -> Result<InstanceCode, BackendError> {
        let built = self.kernels.built(instance).map_err(|error| error.during(D::BACKEND, "finding code"))?;
        Ok(InstanceCode { ptx: built.ptx.clone(), arch: built.arch.clone() })
    }

    fn substitute(&self, instance: &Instance, ptx: &str) -> Result<(), BackendError> {
        self.kernels.substitute(instance, ptx).map_err(|error| error.during(D::BACKEND, "loading other code"))
    }

    fn open(
        &self,
        qkv: Arc<Qkv>,
        orders: Arc<Orders>,
    ) -> Result<Box<dyn KernelWorkspace + '_>, BackendError> {
        Ok(Box::new(self.workspace(&qkv, orders)?))
    }
}
