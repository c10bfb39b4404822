//! What the machine was doing while a sample was taken: its clock, and whether something else used it.
//!
//! Owns reading, not judging: what a slow clock or a wait means for a sample is decided where samples are used. Nothing
//! here fails: what a machine does not tell is `None`.
//!
//! ```text
//! cpu   a calibrated spin for the clock, the kernel's accounting for time spent waiting for a core
//! gpu   NVML, loaded at run time
//! ```

mod cpu;
mod gpu;

use serde::{Deserialize, Serialize};

use crate::backend::DeviceIdentity;

/// What went on during one sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// The clock right after it, in MHz; for a CPU that of the core that queues the work, by a spin, and comparable only
    /// with itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_mhz: Option<f64>,
    /// Time that threads of this process were ready to run and had no core, or `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_us: Option<f64>,
    /// Other processes on the device.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Reads the conditions of samples.
#[derive(Debug)]
pub struct Watch(Kind);

#[derive(Debug)]
enum Kind {
    Cpu(cpu::CpuWatch),
    // A table of functions, much larger than the other.
    Gpu(Box<gpu::GpuWatch>),
}

impl Watch {
    /// Starts to watch the device of a backend, number `ordinal` for a GPU, which `peers` processes of the same measurement
    /// use besides this one.
    pub fn new(device: &DeviceIdentity, ordinal: usize, peers: u32) -> Self {
        match device.backend {
            "cuda" => Self(Kind::Gpu(Box::new(gpu::GpuWatch::new(&device.name, ordinal, peers)))),
            _ => Self(Kind::Cpu(cpu::CpuWatch::new())),
        }
    }

    /// Looks around before a series of samples: for threads that have started, for processes on the device.
    pub fn look_around(&mut self) {
        match &mut self.0 {
            Kind::Cpu(watch) => watch.find_threads(),
            Kind::Gpu(watch) => watch.count_others(),
        }
    }

    /// Is to be called right before a sample.
    pub fn before(&mut self) {
        if let Kind::Cpu(watch) = &mut self.0 {
            watch.before();
        }
    }

    /// Returns the conditions of the sample since [`Watch::before`].
    pub fn after(&mut self) -> Conditions {
        match &mut self.0 {
            Kind::Cpu(watch) => watch.after(),
            Kind::Gpu(watch) => watch.after(),
        }
    }
}

/// Returns what tells a GPU, number `ordinal` of its driver, from every other of the machine: its identity by NVML, else
/// its name and number.
pub fn device_key(name: &str, ordinal: usize) -> String {
    gpu::uuid(name, ordinal).unwrap_or_else(|| format!("{name} {ordinal}"))
}

/// Describes the clocks of a device now, number `ordinal` for a GPU, and what bounds them, for people.
pub fn clocks(device: &DeviceIdentity, ordinal: usize) -> Option<String> {
    match device.backend {
        "cpu" => Some(cpu::clock()),
        "cuda" => gpu::clocks(&device.name, ordinal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_on_the_cpu_has_a_clock() {
        let device = DeviceIdentity {
            backend: "cpu",
            name: "any".into(),
            driver: None,
            isa: "any".into(),
            threads: Some(1),
        };
        let mut watch = Watch::new(&device, 0, 0);
        watch.look_around();
        watch.before();
        let conditions = watch.after();
        assert!(conditions.clock_mhz.is_some_and(|mhz| mhz > 10.0 && mhz < 20_000.0), "{conditions:?}");
        assert_eq!(conditions.others, 0);
        if cfg!(target_os = "linux") && std::path::Path::new("/proc/self/schedstat").exists() {
            assert!(conditions.waited_us.is_some_and(|us| us >= 0.0), "{conditions:?}");
        }
    }

    #[test]
    fn a_device_that_tells_nothing_is_no_error() {
        let device = DeviceIdentity {
            backend: "cuda",
            name: "no such device".into(),
            driver: None,
            isa: "sm_90".into(),
            threads: None,
        };
        let mut watch = Watch::new(&device, 0, 0);
        watch.look_around();
        watch.before();
        assert_eq!(watch.after(), Conditions::default());
    }
}
