//! What this machine has of CUDA, told without using it.

use super::{
    Bytes, DeviceError, NAME,
    driver::{DeviceFacts, Driver},
};
use crate::backend::BackendError;

/// The CUDA driver and its devices, or why there is none.
#[derive(Debug)]
pub struct CudaStatus {
    /// Newest CUDA version the driver serves, where there is a driver that will do.
    pub driver: Option<String>,
    /// The devices, at least one.
    pub devices: Result<Vec<CudaDevice>, BackendError>,
}

/// One CUDA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Its number, counted from 0 within CUDA_VISIBLE_DEVICES.
    pub ordinal: usize,
    /// Model name.
    pub name: String,
    /// Architecture, such as `sm_90`.
    pub architecture: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Device memory and second-level cache, readable.
    pub memory: String,
    /// Why the kernels cannot run on it; `None` if they can.
    pub unusable: Option<String>,
}

/// Looks for the driver and its devices.
pub fn cuda_status() -> CudaStatus {
    let driver = Driver::get();
    let devices = driver.clone().and_then(Driver::devices);
    CudaStatus {
        driver: driver.ok().map(|driver| driver.version().to_string()),
        devices: devices
            .map(|devices| devices.iter().map(CudaDevice::of).collect())
            .map_err(|error: DeviceError| error.during(NAME, "looking for CUDA devices")),
    }
}

impl CudaDevice {
    fn of(facts: &DeviceFacts) -> Self {
        Self {
            ordinal: facts.ordinal,
            name: facts.name.clone(),
            architecture: super::architecture(facts.capability),
            multiprocessors: facts.multiprocessors,
            memory: format!("{}, second-level cache {}", Bytes(facts.memory_bytes), Bytes(facts.l2_bytes)),
            unusable: super::check_capability(facts).err().map(|error| error.to_string()),
        }
    }
}
