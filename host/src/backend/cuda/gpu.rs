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
    const TAKES_MACHINE_CODE: bool = true;
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
    /// that the launch itself is not timed. What is short is timed several times, each time with a cold cache.
    fn time_us(&self, work: impl Fn() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        mean_if_short(|| {
            if self.evicted_bytes > 0 {
                self.evicted_by.fill(0, self.evicted_bytes, 0)?;
            }
            self.start.record()?;
            work()?;
            self.end.record()?;
            self.end.wait_us_since(&self.start)
        })
    }

    fn take_counts(&self) -> Vec<LaunchCounts> {
        Vec::new()
    }
}

/// Below this many microseconds the half of one that events resolve is too much.
const SHORT_US: f64 = 20.0;
/// How often something short is timed.
const SHORT_REPEATS: u32 = 16;

/// Times something once, or, where that is short, several times more and returns their mean. The first does not count then:
/// it decides.
fn mean_if_short(mut time_us: impl FnMut() -> Result<f64, DeviceError>) -> Result<f64, DeviceError> {
    let once = time_us()?;
    if once >= SHORT_US {
        return Ok(once);
    }
    let mut sum = 0.0;
    for _ in 0..SHORT_REPEATS {
        sum += time_us()?;
    }
    Ok(sum / f64::from(SHORT_REPEATS))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_means_of_many_and_long_ones_are_taken_once() {
        let mut calls = 0;
        let mut timed = |of: fn(u32) -> f64| {
            calls = 0;
            let time = mean_if_short(|| {
                calls += 1;
                Ok(of(calls))
            });
            (time.unwrap(), calls)
        };
        assert_eq!(timed(|_| 25.0), (25.0, 1));
        // The half microseconds of events average out; the first, which decided, is not among them.
        assert_eq!(timed(|call| if call == 1 { 19.0 } else { 7.0 + f64::from(call % 2) / 2.0 }), (7.25, 17));
        assert!(mean_if_short(|| Err(DeviceError::Kernel("gone".into()))).is_err());
    }
}
