//! Times of kernels by events, with a cold second-level cache.

use std::rc::Rc;

use super::{
    driver::{Context, Event},
    error::CudaError,
    memory::Buffer,
};

/// Takes times on one device.
#[derive(Debug)]
pub(super) struct Timer {
    start: Event,
    end: Event,
    /// Twice the second-level cache: filling it leaves nothing else there.
    evicted_by: Buffer,
}

impl Timer {
    /// Makes the events and the memory that evicts the cache.
    pub(super) fn new(context: &Rc<Context>) -> Result<Self, CudaError> {
        let bytes = 2 * context.facts().l2_bytes;
        Ok(Self {
            start: Event::new(context)?,
            end: Event::new(context)?,
            evicted_by: Buffer::new(context, "what evicts the second-level cache", bytes)?,
        })
    }

    /// Evicts the second-level cache, then returns the microseconds the device takes for what `work` queues.
    ///
    /// The fill also keeps the device busy while the host queues the rest, so that the launch itself is not timed.
    pub(super) fn time_us(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        self.evicted_by.fill(0)?;
        self.start.record()?;
        work()?;
        self.end.record()?;
        self.end.wait_us_since(&self.start)
    }
}
