//! A GPU's clock and who else computes on it, by NVML: part of every driver, and loaded when it is asked for.

use nvml_wrapper::{Nvml, enum_wrappers::device::Clock};

use super::Conditions;

/// Watches one GPU; nothing where there is no NVML, or none that knows the device.
#[derive(Debug)]
pub(super) struct GpuWatch {
    nvml: Option<(Nvml, u32)>,
    /// Processes of this measurement on it.
    own: u32,
    others: u32,
}

impl GpuWatch {
    pub(super) fn new(name: &str, ordinal: usize, peers: u32) -> Self {
        Self { nvml: find(name, ordinal), own: peers + 1, others: 0 }
    }

    /// Counts the processes that compute on the device besides those of this measurement. By number, not by name: inside a
    /// container NVML tells the names processes have outside.
    pub(super) fn count_others(&mut self) {
        let processes = self.nvml.as_ref().and_then(|(nvml, index)| {
            nvml.device_by_index(*index).ok()?.running_compute_processes_count().ok()
        });
        self.others = processes.unwrap_or(0).saturating_sub(self.own);
    }

    pub(super) fn after(&self) -> Conditions {
        let clock = self
            .nvml
            .as_ref()
            .and_then(|(nvml, index)| nvml.device_by_index(*index).ok()?.clock_info(Clock::SM).ok());
        Conditions { clock_mhz: clock.map(f64::from), waited_us: None, others: self.others }
    }
}

/// Returns the identity that a device has for good.
pub(super) fn uuid(name: &str, ordinal: usize) -> Option<String> {
    let (nvml, index) = find(name, ordinal)?;
    nvml.device_by_index(index).ok()?.uuid().ok()
}

/// Describes the clocks of a device: now, at most, and its power limit.
pub(super) fn clocks(name: &str, ordinal: usize) -> Option<String> {
    let (nvml, index) = find(name, ordinal)?;
    let device = nvml.device_by_index(index).ok()?;
    let mhz = |of: Clock| device.clock_info(of).ok();
    let mut text = format!("multiprocessors {} MHz", mhz(Clock::SM)?);
    if let Ok(most) = device.max_clock_info(Clock::SM) {
        text += &format!(" of at most {most} MHz");
    }
    if let Some(memory) = mhz(Clock::Memory) {
        text += &format!(", memory {memory} MHz");
    }
    if let Ok(milliwatts) = device.enforced_power_limit() {
        text += &format!(", power limit {:.0} W", f64::from(milliwatts) / 1e3);
    }
    Some(text + ", before the run")
}

/// Finds the number NVML has for a device of the driver. The driver's order is its own: a device of another name is not
/// the one that is measured, and wrong readings are worse than none.
fn find(name: &str, ordinal: usize) -> Option<(Nvml, u32)> {
    let nvml = Nvml::init().ok()?;
    let index = match std::env::var("CUDA_VISIBLE_DEVICES").ok().filter(|list| !list.is_empty()) {
        Some(list) => {
            let entry = list.split(',').nth(ordinal)?.trim().to_owned();
            match entry.parse::<u32>() {
                Ok(index) => index,
                Err(_) => nvml.device_by_uuid(entry.as_str()).ok()?.index().ok()?,
            }
        }
        None => u32::try_from(ordinal).ok()?,
    };
    let fits = nvml.device_by_index(index).ok()?.name().ok()? == name;
    fits.then_some((nvml, index))
}
