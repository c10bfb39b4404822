//! The driver binding: the one place that calls the CUDA driver, and the one that needs `unsafe`.
//!
//! The library is loaded at run time, so that a program without CUDA starts. All functions are looked up at once: a
//! driver that lacks one is an error before the first call. Results are kept as plain numbers, since a driver newer
//! than the binding returns codes that its enumeration does not have. Handles are neither `Send` nor `Sync`: the
//! context is current on the thread that made it and used there alone.

use std::{
    cell::{OnceCell, RefCell},
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr,
    rc::Rc,
    sync::OnceLock,
};

use cudarc::driver::sys;
use sys::{CUcontext, CUdevice, CUdevice_attribute as Attribute, CUdeviceptr, CUevent, CUfunction, CUmodule};
use sys::{CUfunction_attribute as FunctionAttribute, CUjit_option as JitOption, CUstream};

use super::{
    error::{CudaError, Version, code},
    launch::Arguments,
};

/// The first driver whose compiler reads the PTX of sm_90a, and which has every function named below.
const OLDEST_DRIVER: Version = Version { major: 12, minor: 0 };
/// Dynamic shared memory that every kernel may use without asking.
const SHARED_BYTES_WITHOUT_ASKING: u32 = 48 * 1024;
/// Room for what the driver's compiler says.
const LOG_BYTES: usize = 16 * 1024;
/// The stream of all work: the default one, so that copies, fills and kernels run in the order they are given.
const STREAM: CUstream = ptr::null_mut();

#[cfg(not(windows))]
const LIBRARY: &str = "libcuda.so.1";
#[cfg(windows)]
const LIBRARY: &str = "nvcuda.dll";

/// Declares the table of driver functions and how it is filled.
macro_rules! functions {
    ($($name:ident($($argument:ty),*);)*) => {
        #[expect(non_snake_case, reason = "the driver's own names")]
        #[derive(Debug)]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Functions {
            /// Looks every function up.
            fn load() -> Result<Self, CudaError> {
                // SAFETY: loading runs the initialisers of the NVIDIA driver, which the user installed for this.
                if !unsafe { sys::is_culib_present() } {
                    return Err(CudaError::NoDriver { library: LIBRARY });
                }
                // SAFETY: as above; it was found a moment ago, so this does not panic.
                let library = unsafe { sys::culib() };
                Ok(Self { $($name: {
                    let symbol = concat!(stringify!($name), "\0").as_bytes();
                    // SAFETY: the type is the prototype of this function in `cuda.h` since CUDA 12.0, with its
                    // enumerated result as the integer it is.
                    *unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> c_int>(symbol) }
                        .map_err(|_| CudaError::MissingFunction { symbol: stringify!($name), need: OLDEST_DRIVER })?
                },)* })
            }
        }
    };
}

functions! {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuGetErrorName(c_int, *mut *const c_char);
    cuGetErrorString(c_int, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, CUdevice);
    cuDeviceGetAttribute(*mut c_int, Attribute, CUdevice);
    cuDeviceTotalMem_v2(*mut usize, CUdevice);
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    cuDevicePrimaryCtxRelease_v2(CUdevice);
    cuCtxSetCurrent(CUcontext);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut CUdeviceptr, usize);
    cuMemFree_v2(CUdeviceptr);
    cuMemcpyHtoD_v2(CUdeviceptr, *const c_void, usize);
    cuMemcpyDtoH_v2(*mut c_void, CUdeviceptr, usize);
    cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
    cuModuleLoadDataEx(*mut CUmodule, *const c_void, c_uint, *mut JitOption, *mut *mut c_void);
    cuModuleUnload(CUmodule);
    cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    cuFuncGetAttribute(*mut c_int, FunctionAttribute, CUfunction);
    cuFuncSetAttribute(CUfunction, FunctionAttribute, c_int);
    cuLaunchKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void,
        *mut *mut c_void
    );
    cuEventCreate(*mut CUevent, c_uint);
    cuEventRecord(CUevent, CUstream);
    cuEventSynchronize(CUevent);
    cuEventElapsedTime(*mut f32, CUevent, CUevent);
    cuEventDestroy_v2(CUevent);
}

/// A loaded driver of a version that will do.
#[derive(Debug)]
pub(super) struct Driver {
    functions: Functions,
    version: Version,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceFacts {
    pub(super) ordinal: usize,
    pub(super) name: String,
    pub(super) capability: Version,
    pub(super) memory_bytes: usize,
    pub(super) l2_bytes: usize,
    pub(super) multiprocessors: u32,
    /// Dynamic shared memory a block may ask for.
    pub(super) shared_bytes_per_block: u32,
}

impl Driver {
    /// Loads the driver, once per process.
    pub(super) fn get() -> Result<&'static Self, CudaError> {
        static DRIVER: OnceLock<Result<Driver, CudaError>> = OnceLock::new();
        DRIVER.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, CudaError> {
        // An old driver lacks functions as well; its version is the better message.
        if let Some(have) = version_alone()?.filter(|have| *have < OLDEST_DRIVER) {
            return Err(CudaError::DriverTooOld { need: OLDEST_DRIVER, have });
        }
        let functions = Functions::load()?;
        let mut number = 0;
        // SAFETY: the pointer is to an integer of this frame; this call is allowed before `cuInit`.
        let result = unsafe { (functions.cuDriverGetVersion)(&mut number) };
        let driver = Self { functions, version: Version::from_driver(number) };
        driver.check("cuDriverGetVersion", result)?;
        Ok(driver)
    }

    /// Returns the newest CUDA version the driver serves.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Starts the driver and lists the devices it shows, at least one.
    pub(super) fn devices(&self) -> Result<Vec<DeviceFacts>, CudaError> {
        let f = &self.functions;
        // SAFETY: the only flag there is is 0; further calls do nothing.
        let result = unsafe { (f.cuInit)(0) };
        if result != code::SUCCESS {
            return Err(CudaError::NoDevice { reason: self.describe(result) });
        }
        let mut count = 0;
        // SAFETY: the pointer is to an integer of this frame.
        self.check("cuDeviceGetCount", unsafe { (f.cuDeviceGetCount)(&mut count) })?;
        if count == 0 {
            return Err(CudaError::NoDevice { reason: self.describe(code::NO_DEVICE) });
        }
        (0..count).map(|ordinal| self.device(ordinal)).collect()
    }

    fn device(&self, ordinal: c_int) -> Result<DeviceFacts, CudaError> {
        let f = &self.functions;
        let handle = self.device_handle(ordinal)?;
        let mut name = [0u8; 256];
        // SAFETY: the driver writes at most the length given, its terminating 0 included.
        let result = unsafe { (f.cuDeviceGetName)(name.as_mut_ptr().cast(), name.len() as c_int, handle) };
        self.check("cuDeviceGetName", result)?;
        let mut memory_bytes = 0;
        // SAFETY: the pointer is to an integer of this frame, the handle is the driver's.
        let result = unsafe { (f.cuDeviceTotalMem_v2)(&mut memory_bytes, handle) };
        self.check("cuDeviceTotalMem", result)?;
        let attribute = |attribute: Attribute| {
            let mut value = 0;
            // SAFETY: as above.
            let result = unsafe { (f.cuDeviceGetAttribute)(&mut value, attribute, handle) };
            self.check("cuDeviceGetAttribute", result).map(|()| value)
        };
        Ok(DeviceFacts {
            ordinal: ordinal as usize,
            name: text_until_nul(&name),
            capability: Version {
                major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            },
            memory_bytes,
            l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.max(0) as usize,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(0) as u32,
            shared_bytes_per_block: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?
            .max(0) as u32,
        })
    }

    fn device_handle(&self, ordinal: c_int) -> Result<CUdevice, CudaError> {
        let mut handle = 0;
        // SAFETY: the pointer is to a handle of this frame; a number that is no device is an error code.
        let result = unsafe { (self.functions.cuDeviceGet)(&mut handle, ordinal) };
        self.check("cuDeviceGet", result).map(|()| handle)
    }

    fn check(&self, call: &'static str, result: c_int) -> Result<(), CudaError> {
        match result {
            code::SUCCESS => Ok(()),
            other => Err(CudaError::Call { call, code: self.describe(other) }),
        }
    }

    /// Returns name, number and meaning of a result.
    fn describe(&self, result: c_int) -> String {
        let text = |get: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = ptr::null();
            // SAFETY: the driver stores a pointer to a string of its own that lives as long as it does, or null.
            unsafe {
                if get(result, &mut text) != code::SUCCESS || text.is_null() {
                    return None;
                }
                Some(CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (text(self.functions.cuGetErrorName), text(self.functions.cuGetErrorString)) {
            (Some(name), Some(meaning)) => format!("{name} ({result}): {meaning}"),
            (Some(name), None) => format!("{name} ({result})"),
            _ => format!("result {result}, which this driver has no name for"),
        }
    }
}

/// Asks the driver for its version by that one function alone; `None` where it has not even that.
fn version_alone() -> Result<Option<Version>, CudaError> {
    // SAFETY: as in `Functions::load`.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver { library: LIBRARY });
    }
    // SAFETY: as in `Functions::load`: the library was found a moment ago, and this is the function's prototype.
    let get = unsafe {
        sys::culib()
            .get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion\0")
            .map(|symbol| *symbol)
    };
    let mut number = 0;
    // SAFETY: the pointer is to an integer of this frame.
    let found = get.is_ok_and(|get| unsafe { get(&mut number) } == code::SUCCESS);
    Ok(found.then(|| Version::from_driver(number)))
}

fn text_until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

/// A device made ready for this thread.
#[derive(Debug)]
pub(super) struct Context {
    driver: &'static Driver,
    device: CUdevice,
    facts: DeviceFacts,
    /// The kernel launched last: errors come to light later, in whichever call is next.
    launched: RefCell<Option<String>>,
    /// Why nothing can run any more.
    lost: OnceCell<String>,
    /// Makes the type stay on its thread, where the context is current.
    _on_this_thread: std::marker::PhantomData<*const ()>,
}

impl Context {
    /// Takes the device's primary context and makes it current on this thread.
    pub(super) fn new(driver: &'static Driver, facts: DeviceFacts) -> Result<Rc<Self>, CudaError> {
        let device = driver.device_handle(facts.ordinal as c_int)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame; the device is the driver's.
        let result = unsafe { (driver.functions.cuDevicePrimaryCtxRetain)(&mut handle, device) };
        driver.check("cuDevicePrimaryCtxRetain", result)?;
        let context = Self {
            driver,
            device,
            facts,
            launched: RefCell::default(),
            lost: OnceCell::new(),
            _on_this_thread: std::marker::PhantomData,
        };
        // SAFETY: the handle was retained a moment ago and is released by `drop` alone.
        context.call("cuCtxSetCurrent", |f| unsafe { (f.cuCtxSetCurrent)(handle) })?;
        Ok(Rc::new(context))
    }

    /// Returns what the device is.
    pub(super) fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    /// Calls the driver. Once the context is lost every call reports the first cause and does nothing.
    fn call(&self, call: &'static str, function: impl FnOnce(&Functions) -> c_int) -> Result<(), CudaError> {
        match self.result_of(call, function)? {
            code::SUCCESS => Ok(()),
            other => Err(CudaError::Call { call, code: self.driver.describe(other) }),
        }
    }

    /// Calls the driver and returns its result, unless that is one a context does not survive.
    fn result_of(
        &self,
        call: &'static str,
        function: impl FnOnce(&Functions) -> c_int,
    ) -> Result<c_int, CudaError> {
        if let Some(cause) = self.lost.get() {
            return Err(CudaError::Lost { cause: cause.clone() });
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
        Err(CudaError::Lost { cause: self.lost.get_or_init(|| cause).clone() })
    }

    /// Takes device memory for `what`; its contents are arbitrary.
    pub(super) fn allocate(self: &Rc<Self>, bytes: usize, what: &str) -> Result<Memory, CudaError> {
        let mut address = 0;
        // SAFETY: the pointer is to an address of this frame; `Memory` frees it.
        let result = self.result_of("cuMemAlloc", |f| unsafe { (f.cuMemAlloc_v2)(&mut address, bytes) })?;
        match result {
            code::SUCCESS => Ok(Memory { context: Rc::clone(self), address, bytes }),
            code::OUT_OF_MEMORY => {
                let (mut free, mut total) = (0, 0);
                // SAFETY: the pointers are to integers of this frame.
                self.call("cuMemGetInfo", |f| unsafe { (f.cuMemGetInfo_v2)(&mut free, &mut total) })?;
                Err(CudaError::OutOfMemory { what: what.to_owned(), needed: bytes, free, total })
            }
            other => Err(CudaError::Call { call: "cuMemAlloc", code: self.driver.describe(other) }),
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
pub(super) struct Memory {
    context: Rc<Context>,
    address: CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// Returns the device address of a byte.
    pub(super) fn address(&self, offset: usize) -> u64 {
        self.address + offset as u64
    }

    /// Copies to the device and waits.
    ///
    /// # Panics
    /// When the range lies outside the memory.
    pub(super) fn write(&self, offset: usize, from: &[u8]) -> Result<(), CudaError> {
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
    pub(super) fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), CudaError> {
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
    pub(super) fn fill(&self, offset: usize, bytes: usize, value: u8) -> Result<(), CudaError> {
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

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `Context::allocate` and freed here alone. In a lost context this does nothing.
        let _ = self.context.call("cuMemFree", |f| unsafe { (f.cuMemFree_v2)(self.address) });
    }
}

/// A kernel on the device.
#[derive(Debug)]
pub(super) struct Function {
    context: Rc<Context>,
    module: CUmodule,
    function: CUfunction,
    name: String,
    /// Bytes of each parameter, as the PTX declares them.
    parameters: Vec<usize>,
}

impl Function {
    /// Compiles PTX for the device and finds its entry, which has `parameters` (bytes of each), runs in blocks of
    /// `threads` and uses `shared_bytes` of dynamic shared memory.
    ///
    /// # Errors
    /// When the driver refuses the PTX (with what its compiler says) or the device has not that much shared memory.
    pub(super) fn load(
        context: &Rc<Context>,
        name: &str,
        ptx: &str,
        entry: &str,
        parameters: Vec<usize>,
        [threads, shared_bytes]: [u32; 2],
    ) -> Result<Self, CudaError> {
        let no_nul = |_| CudaError::Kernel(format!("the PTX of {name} holds a NUL character: it is damaged"));
        let (source, symbol) = (CString::new(ptx).map_err(no_nul)?, CString::new(entry).map_err(no_nul)?);
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [
            JitOption::CU_JIT_ERROR_LOG_BUFFER,
            JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            JitOption::CU_JIT_LOG_VERBOSE,
        ];
        // Numbers travel in the pointers themselves.
        let number = ptr::without_provenance_mut::<c_void>;
        let mut values = [log.as_mut_ptr().cast::<c_void>(), number(LOG_BYTES), number(1)];
        let mut module = ptr::null_mut();
        let result = context.result_of("cuModuleLoadDataEx", |f| {
            // SAFETY: `source` ends in 0; there are as many values as options; the log is as long as is said.
            unsafe {
                (f.cuModuleLoadDataEx)(
                    &mut module,
                    source.as_ptr().cast(),
                    options.len() as c_uint,
                    options.as_mut_ptr(),
                    values.as_mut_ptr(),
                )
            }
        })?;
        if result != code::SUCCESS {
            let log = refusal(result, &text_until_nul(&log), context.driver.version);
            return Err(CudaError::Refused {
                kernel: name.to_owned(),
                code: context.driver.describe(result),
                log,
            });
        }
        let mut loaded = Self {
            context: Rc::clone(context),
            module,
            function: ptr::null_mut(),
            name: name.to_owned(),
            parameters,
        };
        let function = &mut loaded.function;
        // SAFETY: the module was loaded above; `symbol` ends in 0.
        context.call("cuModuleGetFunction", |f| unsafe {
            (f.cuModuleGetFunction)(function, module, symbol.as_ptr())
        })?;
        if shared_bytes > SHARED_BYTES_WITHOUT_ASKING {
            let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was found above; the driver refuses what the device has not.
            context.call("cuFuncSetAttribute", |f| unsafe {
                (f.cuFuncSetAttribute)(loaded.function, attribute, shared_bytes as c_int)
            })?;
        }
        loaded.check_threads(threads)?;
        Ok(loaded)
    }

    /// Checks that a block may have that many threads with the registers the driver gave each.
    fn check_threads(&self, threads: u32) -> Result<(), CudaError> {
        let mut most = 0;
        let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // SAFETY: the pointer is to an integer of this frame; the function lives as long as `self`.
        self.context.call("cuFuncGetAttribute", |f| unsafe {
            (f.cuFuncGetAttribute)(&mut most, attribute, self.function)
        })?;
        if u32::try_from(most).is_ok_and(|most| threads <= most) {
            return Ok(());
        }
        Err(CudaError::Kernel(format!(
            "{} needs {threads} threads a block, as the driver compiled it a block has at most {most}: its PTX lacks \
             launch bounds; build it again",
            self.name
        )))
    }

    /// Queues the kernel and returns at once.
    ///
    /// # Errors
    /// When the arguments are not those the kernel declares, or the driver refuses the launch. What happens on the
    /// device comes to light in a later call.
    pub(super) fn launch(
        &self,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        arguments: &Arguments,
    ) -> Result<(), CudaError> {
        arguments.check(&self.name, &self.parameters)?;
        *self.context.launched.borrow_mut() = Some(self.name.clone());
        let mut pointers = arguments.pointers();
        self.context.call("cuLaunchKernel", |f| {
            // SAFETY: the arguments are as many and as large as the kernel declares (checked above), so the driver
            // reads within them, and it is done with them when it returns.
            unsafe {
                (f.cuLaunchKernel)(
                    self.function,
                    grid[0],
                    grid[1],
                    grid[2],
                    threads,
                    1,
                    1,
                    shared_bytes,
                    STREAM,
                    pointers.as_mut_ptr(),
                    ptr::null_mut(),
                )
            }
        })
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // SAFETY: loaded by `load` and unloaded here alone; the driver waits for kernels that run.
        let _ = self.context.call("cuModuleUnload", |f| unsafe { (f.cuModuleUnload)(self.module) });
    }
}

/// Says why the driver's compiler refused PTX, where its log does not.
fn refusal(result: c_int, log: &str, driver: Version) -> String {
    match result {
        code::UNSUPPORTED_PTX_VERSION => {
            format!("the driver, for CUDA {driver}, is older than the PTX: update it {log}").trim().to_owned()
        }
        code::NO_BINARY_FOR_GPU => format!("the PTX is for another architecture {log}").trim().to_owned(),
        _ if log.is_empty() => "nothing".to_owned(),
        _ => log.to_owned(),
    }
}

/// A point in the device's work, with the time at which it was reached.
#[derive(Debug)]
pub(super) struct Event {
    context: Rc<Context>,
    event: CUevent,
}

impl Event {
    /// Makes an event that keeps time.
    pub(super) fn new(context: &Rc<Context>) -> Result<Self, CudaError> {
        const WITH_TIMING: c_uint = 0;
        let mut event = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame; `drop` destroys it.
        context.call("cuEventCreate", |f| unsafe { (f.cuEventCreate)(&mut event, WITH_TIMING) })?;
        Ok(Self { context: Rc::clone(context), event })
    }

    /// Marks the place behind all work queued so far.
    pub(super) fn record(&self) -> Result<(), CudaError> {
        // SAFETY: the event lives as long as `self`.
        self.context.call("cuEventRecord", |f| unsafe { (f.cuEventRecord)(self.event, STREAM) })
    }

    /// Waits until the device is there and returns the microseconds since `start`, to about half of one.
    pub(super) fn wait_us_since(&self, start: &Event) -> Result<f64, CudaError> {
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
