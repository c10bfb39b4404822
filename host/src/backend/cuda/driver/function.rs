//! Kernels: loaded as machine code or compiled by the driver, launched.

use std::{
    ffi::{CStr, CString, c_int, c_uint, c_void},
    ptr,
    rc::Rc,
};

use super::{
    super::super::device::{Arguments, Code, DeviceError, Version, code},
    CUfunction, CUmodule, Context, FunctionAttribute, JitOption, STREAM, text_until_nul,
};

/// Dynamic shared memory that every kernel may use without asking.
const SHARED_BYTES_WITHOUT_ASKING: u32 = 48 * 1024;
/// Room for what the driver's compiler says.
const LOG_BYTES: usize = 16 * 1024;
/// A kernel on the device.
#[derive(Debug)]
pub(in super::super) struct Function {
    context: Rc<Context>,
    module: CUmodule,
    function: CUfunction,
    name: String,
    /// Bytes of each parameter, as the PTX declares them.
    parameters: Vec<usize>,
    threads: u32,
    shared_bytes: u32,
}

impl Function {
    /// Loads machine code where there is some, else compiles PTX for the device, and finds the entry. Machine code that the
    /// driver refuses is told once, in the log, and compiled from its PTX.
    ///
    /// # Errors
    /// When the driver refuses the PTX (with what its compiler says) or the device has not that much shared memory.
    pub(in super::super) fn load(context: &Rc<Context>, code: Code<'_>) -> Result<Self, DeviceError> {
        let Code { id: name, ptx, cubin, entry, parameters, threads, shared_bytes } = code;
        let no_nul =
            |_| DeviceError::Kernel(format!("the PTX of {name} holds a NUL character: it is damaged"));
        let symbol = CString::new(entry).map_err(no_nul)?;
        let loaded = match cubin {
            Some(cubin) => load_machine_code(context, name, cubin)?,
            None => None,
        };
        let module = match loaded {
            Some(module) => module,
            None => compile(context, name, &CString::new(ptx).map_err(no_nul)?)?,
        };
        let mut loaded = Self {
            context: Rc::clone(context),
            module,
            function: ptr::null_mut(),
            name: name.to_owned(),
            parameters,
            threads,
            shared_bytes,
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
        loaded.check_threads()?;
        Ok(loaded)
    }

    /// Checks that a block may have that many threads with the registers the driver gave each.
    fn check_threads(&self) -> Result<(), DeviceError> {
        let (mut most, threads) = (0, self.threads);
        let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // SAFETY: the pointer is to an integer of this frame; the function lives as long as `self`.
        self.context.call("cuFuncGetAttribute", |f| unsafe {
            (f.cuFuncGetAttribute)(&mut most, attribute, self.function)
        })?;
        if u32::try_from(most).is_ok_and(|most| threads <= most) {
            return Ok(());
        }
        Err(DeviceError::Kernel(format!(
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
    pub(in super::super) fn launch(&self, grid: [u32; 3], arguments: &Arguments) -> Result<(), DeviceError> {
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
                    self.threads,
                    1,
                    1,
                    self.shared_bytes,
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

/// Loads machine code; none where the driver refuses it.
///
/// # Errors
/// When the context is lost.
fn load_machine_code(context: &Context, name: &str, cubin: &[u8]) -> Result<Option<CUmodule>, DeviceError> {
    let mut module = ptr::null_mut();
    let result = context.result_of("cuModuleLoadDataEx", |f| {
        // SAFETY: the driver reads an image by its own headers, which were held against a hash when it was read; there
        // are no options.
        unsafe {
            (f.cuModuleLoadDataEx)(&mut module, cubin.as_ptr().cast(), 0, ptr::null_mut(), ptr::null_mut())
        }
    })?;
    if result == code::SUCCESS {
        tracing::debug!(kernel = name, bytes = cubin.len(), "loaded as machine code");
        return Ok(Some(module));
    }
    if !context.told_refusal.replace(true) {
        let code = context.driver.describe(result);
        tracing::warn!(kernel = name, %code, "the driver refused machine code and compiles PTX instead; told once");
    }
    Ok(None)
}

/// Compiles PTX for the device.
///
/// # Errors
/// When the driver refuses it, with what its compiler says.
fn compile(context: &Context, name: &str, source: &CStr) -> Result<CUmodule, DeviceError> {
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
        return Err(DeviceError::Refused {
            kernel: name.to_owned(),
            code: context.driver.describe(result),
            log,
        });
    }
    tracing::debug!(kernel = name, "compiled from PTX by the driver");
    Ok(module)
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
