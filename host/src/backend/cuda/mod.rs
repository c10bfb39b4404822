//! NVIDIA GPUs: our PTX, launched through the CUDA driver.
//!
//! Owns devices, their memory, launches and their times. Does not compile: PTX comes from [`crate::codegen`], or
//! from a folder of kernels that it filled elsewhere. Everything here builds, and a program with it starts, where
//! there is nothing of CUDA: the driver is loaded when it is asked for.
//!
//! ```text
//! driver     the driver's functions, and owners of what they hand out: the only `unsafe` code
//! gpu        a device as the rest of the backend wants it, with times by events
//! status     what there is, for `nabla info`
//! ```

mod driver;
mod gpu;
mod status;

use std::path::PathBuf;

pub use status::{CudaDevice, CudaStatus, cuda_status};

use self::{
    driver::{DeviceFacts, Driver},
    gpu::Gpu,
};
use super::{
    BackendError, DeviceIdentity, KernelBackend,
    device::{Bytes, DeviceBackend, DeviceError, Version},
};

/// Name of this backend.
const NAME: &str = "cuda";
/// The oldest devices with the instructions of the kernels: bf16 tensor cores and asynchronous copies.
const OLDEST_DEVICE: Version = Version { major: 8, minor: 0 };

/// How the CUDA backend is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Number of the device.
    pub device: usize,
    /// Folder of compiled kernels; `None` takes the user's.
    pub kernel_cache: Option<PathBuf>,
}

/// Makes a device ready.
///
/// # Errors
/// [`BackendError::Unavailable`] when there is no driver, an old one, or no such device; another when the device
/// cannot be used.
pub fn cuda_backend(options: &CudaOptions) -> Result<Box<dyn KernelBackend>, BackendError> {
    match start(options) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(error) => Err(error.during(NAME, "starting the cuda backend")),
    }
}

fn start(options: &CudaOptions) -> Result<DeviceBackend<Gpu>, DeviceError> {
    let driver = Driver::get()?;
    let devices = driver.devices()?;
    let count = devices.len();
    let facts = devices
        .into_iter()
        .nth(options.device)
        .ok_or(DeviceError::NoSuchDevice { wanted: options.device, count })?;
    check_capability(&facts)?;
    let identity = DeviceIdentity {
        backend: NAME,
        name: facts.name.clone(),
        driver: Some(driver.version().to_string()),
        isa: architecture(facts.capability),
        threads: None,
    };
    DeviceBackend::new(Gpu::new(driver, facts)?, identity, options.kernel_cache.as_deref())
}

/// Names the architecture of a compute capability.
fn architecture(capability: Version) -> String {
    format!("sm_{}{}", capability.major, capability.minor)
}

fn check_capability(facts: &DeviceFacts) -> Result<(), DeviceError> {
    if facts.capability >= OLDEST_DEVICE {
        return Ok(());
    }
    Err(DeviceError::DeviceTooOld { name: facts.name.clone(), need: OLDEST_DEVICE, have: facts.capability })
}
