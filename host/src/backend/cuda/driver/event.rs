//! Points in time of the device's work.

use std::{ffi::c_uint, ptr, rc::Rc};

use super::{super::super::device::DeviceError, CUevent, Context, STREAM};

/// A point in the device's work, with the time at which it was reached.
#[derive(Debug)]
pub(in super::super) struct Event {
    context: Rc<Context>,
    event: CUevent,
}

impl Event {
    /// Makes an event that keeps time.
    pub(in super::super) fn new(context: &Rc<Context>) -> Result<Self, DeviceError> {
        const WITH_TIMING: c_uint = 0;
        let mut event = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame; `drop` destroys it.
        context.call("cuEventCreate", |f| unsafe { (f.cuEventCreate)(&mut event, WITH_TIMING) })?;
        Ok(Self { context: Rc::clone(context), event })
    }

    /// Marks the place behind all work queued so far.
    pub(in super::super) fn record(&self) -> Result<(), DeviceError> {
        // SAFETY: the event lives as long as `self`.
        self.context.call("cuEventRecord", |f| unsafe { (f.cuEventRecord)(self.event, STREAM) })
    }

    /// Waits until the device is there and returns the microseconds since `start`, to about half of one.
    pub(in super::super) fn wait_us_since(&self, start: &Event) -> Result<f64, DeviceError> {
        let mut milliseconds = 0f32;
        // SAFETY: both events live; the pointer is to a number of this frame.
        self.context.call("cuEventSynchronize", |f| unsafe { (f.cuEventSynchronize)(self.event) })?;
        self.context.call("cuEventElapsedTime", |f| unsafe {
            // SAFETY: as above.
            (f.cuEventElapsedTime)(&mut milliseconds, start.event, self.event)
        })?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed here alone.
        let _ = self.context.call("cuEventDestroy", |f| unsafe { (f.cuEventDestroy_v2)(self.event) });
    }
}
