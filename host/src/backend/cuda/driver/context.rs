//! A device made ready, and its memory.

use std::{
    cell::{Cell, OnceCell, RefCell},
    ffi::c_int,
    ptr,
    rc::Rc,
};

use super::{
    super::super::device::{DeviceError, code},
    CUdevice, CUdeviceptr, Driver, Functions, STREAM,
};

/// A device made ready for this thread.
#[derive(Debug)]
pub(in super::super) struct Context {
    pub(super) driver: &'static Driver,
    device: CUdevice,
    /// The kernel launched last: errors come to light later, in whichever call is next.
    pub(super) launched: RefCell<Option<String>>,
    /// Whether it was told that the driver refuses machine code.
    pub(super) told_refusal: Cell<bool>,
    /// Why nothing can run any more.
    lost: OnceCell<String>,
    /// Makes the type stay on its thread, where the context is current.
    _on_this_thread: std::marker::PhantomData<*const ()>,
}

impl Context {
    /// Takes the device's primary context and makes it current on this thread.
    pub(in super::super) fn new(driver: &'static Driver, ordinal: usize) -> Result<Rc<Self>, DeviceError> {
        let device = driver.device_handle(ordinal as c_int)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame; the device is the driver's.
        let result = unsafe { (driver.functions.cuDevicePrimaryCtxRetain)(&mut handle, device) };
        driver.check("cuDevicePrimaryCtxRetain", result)?;
        let context = Self {
            driver,
            device,
            launched: RefCell::default(),
            told_refusal: Cell::default(),
            lost: OnceCell::new(),
            _on_this_thread: std::marker::PhantomData,
        };
        // SAFETY: the handle was retained a moment ago and is released by `drop` alone.
        context.call("cuCtxSetCurrent", |f| unsafe { (f.cuCtxSetCurrent)(handle) })?;
        Ok(Rc::new(context))
    }

    /// Calls the driver. Once the context is lost every call reports the first cause and does nothing.
    pub(super) fn call(
        &self,
        call: &'static str,
        function: impl FnOnce(&Functions) -> c_int,
    ) -> Result<(), DeviceError> {
        match self.result_of(call, function)? {
            code::SUCCESS => Ok(()),
            other => Err(DeviceError::Call { call, code: self.driver.describe(other) }),
        }
    }

    /// Calls the driver and returns its result, unless that is one a context does not survive.
    pub(super) fn result_of(
        &self,
        call: &'static str,
        function: impl FnOnce(&Functions) -> c_int,
    ) -> Result<c_int, DeviceError> {
        if let Some(cause) = self.lost.get() {
            return Err(DeviceError::Lost { cause: cause.clone() });
        }
        let result = function(&self.driver.functions);
        if !code::is_sticky(result) {
            return Ok(result);
        }
        let code = self.driver.describe(result);
        let cause = match &*self.launched.borrow() {
            Some(kernel) => format!("{kernel} ended with {code}, seen by {call}"),
            None => format!("{call} failed with {code}"),
        };
        Err(DeviceError::Lost { cause: self.lost.get_or_init(|| cause).clone() })
    }

    /// Takes device memory for `what`; its contents are arbitrary.
    pub(in super::super) fn allocate(
        self: &Rc<Self>,
        bytes: usize,
        what: &str,
    ) -> Result<DeviceMemory, DeviceError> {
        let mut address = 0;
        // SAFETY: the pointer is to an address of this frame; `DeviceMemory` frees it.
        let result = self.result_of("cuMemAlloc", |f| unsafe { (f.cuMemAlloc_v2)(&mut address, bytes) })?;
        match result {
            code::SUCCESS => Ok(DeviceMemory { context: Rc::clone(self), address, bytes }),
            code::OUT_OF_MEMORY => {
                let (mut free, mut total) = (0, 0);
                // SAFETY: the pointers are to integers of this frame.
                self.call("cuMemGetInfo", |f| unsafe { (f.cuMemGetInfo_v2)(&mut free, &mut total) })?;
                Err(DeviceError::OutOfMemory { what: what.to_owned(), needed: bytes, free, total })
            }
            other => Err(DeviceError::Call { call: "cuMemAlloc", code: self.driver.describe(other) }),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `new`; whatever was made in it holds an `Rc` of it and so is gone.
        // A failure leaves nothing to be done.
        let _ = unsafe { (self.driver.functions.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

/// Device memory, freed when dropped.
#[derive(Debug)]
pub(in super::super) struct DeviceMemory {
    context: Rc<Context>,
    address: CUdeviceptr,
    bytes: usize,
}

impl DeviceMemory {
    /// Returns the device address of a byte.
    pub(in super::super) fn address(&self, offset: usize) -> u64 {
        self.address + offset as u64
    }

    /// Copies to the device and waits.
    ///
    /// # Panics
    /// When the range lies outside the memory.
    pub(in super::super) fn write(&self, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        self.assert_range(offset, from.len());
        let to = self.address(offset);
        // SAFETY: the device range was checked above; the driver is done with `from` when it returns.
        self.context
            .call("cuMemcpyHtoD", |f| unsafe { (f.cuMemcpyHtoD_v2)(to, from.as_ptr().cast(), from.len()) })
    }

    /// Copies from the device once all work before is done.
    ///
    /// # Panics
    /// When the range lies outside the memory.
    pub(in super::super) fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        self.assert_range(offset, to.len());
        let from = self.address(offset);
        // SAFETY: the device range was checked above; `to` is written before the driver returns.
        self.context
            .call("cuMemcpyDtoH", |f| unsafe { (f.cuMemcpyDtoH_v2)(to.as_mut_ptr().cast(), from, to.len()) })
    }

    /// Sets bytes, in order with kernels and without waiting.
    ///
    /// # Panics
    /// When the range lies outside the memory.
    pub(in super::super) fn fill(&self, offset: usize, bytes: usize, value: u8) -> Result<(), DeviceError> {
        self.assert_range(offset, bytes);
        let to = self.address(offset);
        // SAFETY: the device range was checked above.
        self.context.call("cuMemsetD8Async", |f| unsafe { (f.cuMemsetD8Async)(to, value, bytes, STREAM) })
    }

    fn assert_range(&self, offset: usize, bytes: usize) {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "bytes {offset}.. of {}, {bytes} wanted",
            self.bytes
        );
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `Context::allocate` and freed here alone. In a lost context this does nothing.
        let _ = self.context.call("cuMemFree", |f| unsafe { (f.cuMemFree_v2)(self.address) });
    }
}
