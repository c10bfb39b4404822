//! A device as the backend wants it, with times of kernels by events and a cold second-level cache.

use std::rc::Rc;

use super::{
    super::{
        LaunchCounts,
        device::{Arguments, Code, Device, DeviceError, Limits, MAP_BYTES, MappedTensor, Memory},
    },
    driver::{Context, DeviceFacts, DeviceMemory, Driver, Event, Function},
};

/// One NVIDIA GPU.
#[derive(Debug)]
pub(super) struct Gpu {
    context: Rc<Context>,
    limits: Limits,
    start: Event,
    end: Event,
    /// Twice the second-level cache: filling it leaves nothing else there.
    evicted_by: DeviceMemory,
    evicted_bytes: usize,
}

impl Gpu {
    /// Makes the device ready, with events and the memory that evicts its cache.
    pub(super) fn new(driver: &'static Driver, facts: DeviceFacts) -> Result<Self, DeviceError> {
        let evicted_bytes = 2 * facts.l2_bytes;
        let context = Context::new(driver, facts.ordinal)?;
        let limits = Limits {
            name: facts.name,
            capability: facts.capability,
            shared_bytes_per_block: facts.shared_bytes_per_block,
            multiprocessors: facts.multiprocessors,
        };
        Ok(Self {
            limits,
            start: Event::new(&context)?,
            end: Event::new(&context)?,
            // A driver refuses to allocate nothing.
            evicted_by: context.allocate(evicted_bytes.max(1), "what evicts the second-level cache")?,
            evicted_bytes,
            context,
        })
    }
}

impl Device for Gpu {
    const BACKEND: &'static str = super::NAME;
    /// Keeps a buffer's start aligned as the driver's allocations are.
    const GUARD_BYTES: usize = 256;
    type Memory = DeviceMemory;
    type Function = Function;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn allocate(device: &Rc<Self>, bytes: usize, what: &str) -> Result<DeviceMemory, DeviceError> {
        device.context.allocate(bytes, what)
    }

    fn load(device: &Rc<Self>, code: Code<'_>) -> Result<Function, DeviceError> {
        Function::load(&device.context, code)
    }

    fn launch(&self, function: &Function, grid: [u32; 3], arguments: &Arguments) -> Result<(), DeviceError> {
        function.launch(grid, arguments)
    }

    fn tensor_map(&self, tensor: &MappedTensor) -> Result<[u8; MAP_BYTES], DeviceError> {
        self.context.tensor_map(tensor)
    }

    /// Evicts the second-level cache first. The fill also keeps the device busy while the host queues the rest, so
    /// that the launch itself is not timed.
    fn time_us(&self, work: impl FnOnce() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        if self.evicted_bytes > 0 {
            self.evicted_by.fill(0, self.evicted_bytes, 0)?;
        }
        self.start.record()?;
        work()?;
        self.end.record()?;
        self.end.wait_us_since(&self.start)
    }

    fn take_counts(&self) -> Vec<LaunchCounts> {
        Vec::new()
    }
}

/// A byte that makes NaN of every float type, -1 of every integer.
const POISON: u8 = 0xff;

impl Memory for DeviceMemory {
    fn address(&self, offset: usize) -> u64 {
        DeviceMemory::address(self, offset)
    }

    fn write(&self, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        DeviceMemory::write(self, offset, from)
    }

    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        DeviceMemory::read(self, offset, to)
    }

    fn poison(&self, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        self.fill(offset, bytes, POISON)
    }
}
