//! The driver binding: the one place that calls the CUDA driver, and the one that needs `unsafe`.
//!
//! The library is loaded at run time, so that a program without CUDA starts. All functions are looked up at once: a
//! driver that lacks one is an error before the first call. Results are kept as plain numbers, since a driver newer
//! than the binding returns codes that its enumeration does not have. Handles are neither `Send` nor `Sync`: the
//! context is current on the thread that made it and used there alone.

mod context;
mod event;
mod function;
mod tensor_map;

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    ptr,
    sync::OnceLock,
};

use cudarc::driver::sys;
use sys::{CUcontext, CUdevice, CUdevice_attribute as Attribute, CUdeviceptr, CUevent, CUfunction, CUmodule};
use sys::{CUfunction_attribute as FunctionAttribute, CUjit_option as JitOption, CUstream};
use sys::{
    CUtensorMap as TensorMap, CUtensorMapDataType as TensorElement, CUtensorMapFloatOOBfill as TensorFill,
    CUtensorMapInterleave as TensorInterleave, CUtensorMapL2promotion as TensorPromotion,
    CUtensorMapSwizzle as TensorSwizzle,
};

pub(super) use self::{
    context::{Context, DeviceMemory},
    event::Event,
    function::Function,
};
use super::super::device::{DeviceError, Version, code};

/// The first driver whose compiler reads the PTX of sm_90a, and which has every function named below.
const OLDEST_DRIVER: Version = Version { major: 12, minor: 0 };
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
            fn load() -> Result<Self, DeviceError> {
                // SAFETY: loading runs the initialisers of the NVIDIA driver, which the user installed for this.
                if !unsafe { sys::is_culib_present() } {
                    return Err(DeviceError::NoDriver { library: LIBRARY });
                }
                // SAFETY: as above; it was found a moment ago, so this does not panic.
                let library = unsafe { sys::culib() };
                Ok(Self { $($name: {
                    let symbol = concat!(stringify!($name), "\0").as_bytes();
                    // SAFETY: the type is the prototype of this function in `cuda.h` since CUDA 12.0, with its
                    // enumerated result as the integer it is.
                    *unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> c_int>(symbol) }
                        .map_err(|_| DeviceError::MissingFunction { symbol: stringify!($name), need: OLDEST_DRIVER })?
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
    cuTensorMapEncodeTiled(
        *mut TensorMap, TensorElement, c_uint, *mut c_void, *const u64, *const u64, *const c_uint, *const c_uint,
        TensorInterleave, TensorSwizzle, TensorPromotion, TensorFill
    );
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
    pub(super) fn get() -> Result<&'static Self, DeviceError> {
        static DRIVER: OnceLock<Result<Driver, DeviceError>> = OnceLock::new();
        DRIVER.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, DeviceError> {
        // An old driver lacks functions as well; its version is the better message.
        if let Some(have) = version_alone()?.filter(|have| *have < OLDEST_DRIVER) {
            return Err(DeviceError::DriverTooOld { need: OLDEST_DRIVER, have });
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
    pub(super) fn devices(&self) -> Result<Vec<DeviceFacts>, DeviceError> {
        let f = &self.functions;
        // SAFETY: the only flag there is is 0; further calls do nothing.
        let result = unsafe { (f.cuInit)(0) };
        if result != code::SUCCESS {
            return Err(DeviceError::NoDevice { reason: self.describe(result) });
        }
        let mut count = 0;
        // SAFETY: the pointer is to an integer of this frame.
        self.check("cuDeviceGetCount", unsafe { (f.cuDeviceGetCount)(&mut count) })?;
        if count == 0 {
            return Err(DeviceError::NoDevice { reason: self.describe(code::NO_DEVICE) });
        }
        (0..count).map(|ordinal| self.device(ordinal)).collect()
    }

    fn device(&self, ordinal: c_int) -> Result<DeviceFacts, DeviceError> {
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

    fn device_handle(&self, ordinal: c_int) -> Result<CUdevice, DeviceError> {
        let mut handle = 0;
        // SAFETY: the pointer is to a handle of this frame; a number that is no device is an error code.
        let result = unsafe { (self.functions.cuDeviceGet)(&mut handle, ordinal) };
        self.check("cuDeviceGet", result).map(|()| handle)
    }

    fn check(&self, call: &'static str, result: c_int) -> Result<(), DeviceError> {
        match result {
            code::SUCCESS => Ok(()),
            other => Err(DeviceError::Call { call, code: self.describe(other) }),
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
fn version_alone() -> Result<Option<Version>, DeviceError> {
    // SAFETY: as in `Functions::load`.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver { library: LIBRARY });
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
