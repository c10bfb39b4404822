//! The emulator as a device: the PTX that GPUs run, on this machine, with every access checked.
//!
//! Owns nothing of PTX: that is the emulator crate's. Times are not modelled and read as NaN.

use std::{cell::RefCell, path::PathBuf, rc::Rc, str::FromStr};

use nabla_emulator::{
    Completion, DevicePtr, LaunchConfig, Module, Numerics, Options, OutOfBounds, Param, Swizzle,
    TensorElement, TensorMap, launch_with,
};
use nabla_kernels_gpu::{config, panels};

use super::{
    BackendError, DeviceIdentity, KernelBackend, LaunchCounts,
    device::{
        Arguments, Code, Device, DeviceBackend, DeviceError, Limits, MAP_BYTES, MappedTensor, Memory, Version,
    },
};
use crate::ParseError;

/// Name of this backend.
const NAME: &str = "emulator";
/// Of the GPU it stands for: few, so that blocks of threads which go on to more work have some on small problems.
const MULTIPROCESSORS: u32 = 2;

/// A GPU architecture whose PTX is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmulatedArch {
    /// Ampere.
    Sm80,
    /// Hopper.
    Sm90a,
}

impl EmulatedArch {
    /// Returns the name, such as `sm_90a`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm90a => "sm_90a",
        }
    }

    fn numerics(self) -> Numerics {
        match self {
            Self::Sm80 => Numerics::Ampere,
            Self::Sm90a => Numerics::Hopper,
        }
    }

    fn limits(self) -> Limits {
        let (capability, kib) = match self {
            Self::Sm80 => (Version { major: 8, minor: 0 }, 163),
            Self::Sm90a => (Version { major: 9, minor: 0 }, 227),
        };
        Limits {
            name: format!("the emulator of {}", self.name()),
            capability,
            shared_bytes_per_block: kib << 10,
            multiprocessors: MULTIPROCESSORS,
        }
    }
}

impl FromStr for EmulatedArch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "sm_80" => Ok(Self::Sm80),
            "sm_90a" => Ok(Self::Sm90a),
            _ => Err(ParseError::new("sm_80 or sm_90a", text)),
        }
    }
}

/// How the emulator is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatorOptions {
    /// The architecture to run kernels of.
    pub arch: EmulatedArch,
    /// Folder of compiled kernels; `None` takes the user's.
    pub kernel_cache: Option<PathBuf>,
    /// Whether asynchronous work completes at once, and not at the latest moment.
    pub eager: bool,
    /// Whether data races are looked for.
    pub races: bool,
    /// Whether matrix products are summed as tensor cores of the architecture do, and not in the fastest way.
    pub chip_numerics: bool,
    /// Seed of the order in which warps take turns and asynchronous work completes; `None` takes the order of the warps'
    /// numbers.
    pub schedule_seed: Option<u64>,
    /// Warp-instructions after which a launch counts as one that does not end; `None` takes the emulator's own budget.
    pub instruction_budget: Option<u64>,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            arch: EmulatedArch::Sm80,
            kernel_cache: None,
            eager: false,
            races: true,
            chip_numerics: false,
            instruction_budget: None,
            schedule_seed: None,
        }
    }
}

/// Makes an emulated device.
///
/// # Errors
/// When the folder of kernels cannot be used.
pub fn emulator_backend(options: &EmulatorOptions) -> Result<Box<dyn KernelBackend>, BackendError> {
    let device = EmulatedGpu::new(options);
    let name = device.limits.name.clone();
    match device.into_backend(name, options) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(error) => Err(error.during(NAME, "starting the emulator")),
    }
}

impl EmulatedGpu {
    fn new(options: &EmulatorOptions) -> Self {
        let usual = Options::default();
        let run = Options {
            completion: if options.eager { Completion::Eager } else { Completion::Late },
            races: options.races,
            numerics: if options.chip_numerics { options.arch.numerics() } else { Numerics::Fast },
            seed: options.schedule_seed.unwrap_or(0),
            schedule_seed: options.schedule_seed,
            instruction_budget: options.instruction_budget.unwrap_or(usual.instruction_budget),
            ..usual
        };
        Self {
            memory: RefCell::default(),
            limits: options.arch.limits(),
            options: run,
            counts: RefCell::default(),
        }
    }

    fn into_backend(
        self,
        name: String,
        options: &EmulatorOptions,
    ) -> Result<DeviceBackend<Self>, DeviceError> {
        let isa = options.arch.name().to_owned();
        let identity = DeviceIdentity { backend: NAME, name, driver: None, isa, threads: None };
        DeviceBackend::new(self, identity, options.kernel_cache.as_deref())
    }
}

#[derive(Debug)]
struct EmulatedGpu {
    memory: RefCell<nabla_emulator::Memory>,
    limits: Limits,
    options: Options,
    counts: RefCell<Vec<LaunchCounts>>,
}

#[derive(Debug)]
struct EmulatedMemory {
    device: Rc<EmulatedGpu>,
    start: DevicePtr,
}

/// A decoded kernel.
#[derive(Debug)]
struct EmulatedFunction {
    id: String,
    entry: String,
    module: Module,
    parameters: Vec<usize>,
    threads: u32,
    shared_bytes: u32,
}

impl Device for EmulatedGpu {
    const BACKEND: &'static str = NAME;
    /// Allocations lie far apart: an access outside one is a fault that names the instruction.
    const GUARD_BYTES: usize = 0;
    /// It executes PTX.
    const TAKES_MACHINE_CODE: bool = false;
    type Memory = EmulatedMemory;
    type Function = EmulatedFunction;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn allocate(device: &Rc<Self>, bytes: usize, _: &str) -> Result<EmulatedMemory, DeviceError> {
        let start = device.memory.borrow_mut().alloc(bytes as u64);
        Ok(EmulatedMemory { device: Rc::clone(device), start })
    }

    fn load(_: &Rc<Self>, code: Code<'_>) -> Result<EmulatedFunction, DeviceError> {
        let Code { id, ptx, entry, parameters, threads, shared_bytes, cubin: _ } = code;
        let module = Module::parse(id, ptx).map_err(|error| DeviceError::Fault(error.to_string()))?;
        Ok(EmulatedFunction {
            id: id.to_owned(),
            entry: entry.to_owned(),
            module,
            parameters,
            threads,
            shared_bytes,
        })
    }

    fn launch(
        &self,
        function: &EmulatedFunction,
        grid: [u32; 3],
        arguments: &Arguments,
    ) -> Result<(), DeviceError> {
        arguments.check(&function.id, &function.parameters)?;
        let config = LaunchConfig {
            grid,
            block: [function.threads, 1, 1],
            dynamic_shared_bytes: function.shared_bytes,
            ..LaunchConfig::default()
        };
        let params: Vec<Param> = arguments.contents().map(Param::Bytes).collect();
        let memory = &mut *self.memory.borrow_mut();
        let report = launch_with(&function.module, &function.entry, config, &params, memory, &self.options)
            .map_err(|fault| DeviceError::Fault(fault.to_string()))?;
        let counts = report.rows().into_iter().collect();
        self.counts.borrow_mut().push(LaunchCounts { variant: function.id.clone(), counts });
        Ok(())
    }

    fn tensor_map(&self, tensor: &MappedTensor) -> Result<[u8; MAP_BYTES], DeviceError> {
        let element = match tensor.dtype {
            config::Dtype::Bf16 => TensorElement::Bf16,
            config::Dtype::F16 => TensorElement::F16,
        };
        let swizzle = match tensor.map.swizzle {
            panels::Swizzle::Bytes64 => Swizzle::B64,
            panels::Swizzle::Bytes128 => Swizzle::B128,
        };
        TensorMap {
            element,
            address: DevicePtr::from_address(tensor.address),
            sizes: tensor.elements.to_vec(),
            strides: tensor.strides().to_vec(),
            box_sizes: tensor.map.box_elements.to_vec(),
            element_strides: vec![1; 3],
            swizzle,
            out_of_bounds: OutOfBounds::Zero,
        }
        .encode()
        .map_err(|error| DeviceError::Kernel(error.to_string()))
    }

    fn time_us(&self, work: impl Fn() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        work().map(|()| f64::NAN)
    }

    fn take_counts(&self) -> Vec<LaunchCounts> {
        self.counts.take()
    }
}

fn fault(error: &nabla_emulator::MemoryError) -> DeviceError {
    DeviceError::Fault(error.to_string())
}

impl Memory for EmulatedMemory {
    fn address(&self, offset: usize) -> u64 {
        self.start.offset(offset as u64).address()
    }

    fn write(&self, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        let to = self.start.offset(offset as u64);
        self.device.memory.borrow_mut().write(to, from).map_err(|e| fault(&e))
    }

    /// Bytes that nothing has written read as poison.
    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        let from = self.start.offset(offset as u64);
        let bytes = self.device.memory.borrow().read_or(from, to.len() as u64, 0xff);
        to.copy_from_slice(&bytes.map_err(|e| fault(&e))?);
        Ok(())
    }

    /// A kernel that reads them faults, unlike on a GPU; the host reads all ones.
    fn poison(&self, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        let at = self.start.offset(offset as u64);
        self.device.memory.borrow_mut().forget(at, bytes as u64).map_err(|e| fault(&e))
    }
}

impl Drop for EmulatedMemory {
    fn drop(&mut self) {
        self.device.memory.borrow_mut().free(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BlockMask, Dtype, Problem,
        backend::{Backend as _, Pattern},
        token_order::BlockLayout,
    };

    fn named(name: &str) -> DeviceBackend<EmulatedGpu> {
        let folder = std::env::temp_dir().join("nabla-no-kernels");
        let options = EmulatorOptions {
            arch: EmulatedArch::Sm90a,
            kernel_cache: Some(folder),
            ..EmulatorOptions::default()
        };
        EmulatedGpu::new(&options).into_backend(name.to_owned(), &options).unwrap()
    }

    #[test]
    fn a_known_gpu_has_peaks_and_an_expectation_of_every_kernel() {
        let problem = Problem {
            batch: 1,
            heads: 8,
            seqlen_q: 8192,
            seqlen_k: 8192,
            head_dim: 128,
            dtype: Dtype::Bf16,
            softmax_scale: 0.1,
            grid: None,
        };
        let layout = std::sync::Arc::new(BlockLayout::linear(8192, 64).unwrap());
        let mask = BlockMask::from_fn(8, layout.clone(), layout, |_, i, j| (i + j) % 4 == 0);
        let pattern = Pattern::Mask(std::sync::Arc::new(mask));
        let known = named("NVIDIA H100 80GB HBM3");
        let space = known.space(&problem, Some(crate::variant::MaskBlock::square(64))).configurations;
        assert!(space.len() > 10, "{}", space.len());
        let expected = known.expected_seconds(&problem, &pattern, &space).unwrap();
        assert_eq!(expected.len(), space.len());
        let finite: Vec<f64> = expected.into_iter().filter(|seconds| seconds.is_finite()).collect();
        assert!(finite.len() * 10 >= space.len() * 9, "{} of {}", finite.len(), space.len());
        let (least, most) = finite.iter().fold((f64::INFINITY, 0f64), |(l, m), s| (l.min(*s), m.max(*s)));
        assert!(least > 1e-6 && most < 1e-1 && most > 1.1 * least, "{least} {most}");
        assert_eq!(known.peaks().tflops.len(), 2);

        let unknown = named("another GPU");
        assert_eq!(unknown.expected_seconds(&problem, &pattern, &space), None);
        assert_eq!(unknown.peaks(), crate::backend::Peaks::default());
    }
}
