//! What can go wrong with a device, its driver or a kernel on it, each in one message: what was expected, what was got, what to do.

use std::fmt;

use crate::backend::BackendError;

/// A version or compute capability as `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::backend) struct Version {
    pub(in crate::backend) major: i32,
    pub(in crate::backend) minor: i32,
}

impl Version {
    /// Reads the driver's form, `1000 * major + 10 * minor`.
    pub(in crate::backend) fn from_driver(number: i32) -> Self {
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A failure of a driver, a device or a kernel on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::backend) enum DeviceError {
    #[error(
        "no NVIDIA driver: {library} could not be loaded; install the driver, add its folder to the library path, or \
         use --backend cpu"
    )]
    NoDriver { library: &'static str },
    #[error(
        "the NVIDIA driver is too old: expected one for CUDA {need} or later, got one for CUDA {have}; update the \
         driver, or use --backend cpu"
    )]
    DriverTooOld { need: Version, have: Version },
    #[error(
        "the NVIDIA driver lacks the function {symbol}, which every driver for CUDA {need} or later has; update or \
         reinstall the driver, or use --backend cpu"
    )]
    MissingFunction { symbol: &'static str, need: Version },
    #[error(
        "the driver is there but shows no CUDA device ({reason}); check nvidia-smi and CUDA_VISIBLE_DEVICES, or use \
         --backend cpu"
    )]
    NoDevice { reason: String },
    #[error("expected a device number below {count}, the number of devices here, got {wanted}")]
    NoSuchDevice { wanted: usize, count: usize },
    #[error(
        "{name} has compute capability {have}; the kernels need {need} or later: choose another --device, or use \
         --backend cpu"
    )]
    DeviceTooOld { name: String, need: Version, have: Version },
    #[error(
        "out of device memory: {what} needs {}, {} of {} are free; use fewer heads or frames, or end what else runs \
         on the device", Bytes(*.needed), Bytes(*.free), Bytes(*.total)
    )]
    OutOfMemory { what: String, needed: usize, free: usize, total: usize },
    #[error(
        "{kernel} is compiled for {target}, which {device} of compute capability {have} cannot run; build it for \
         {expected} (nabla kernels build --arch {expected})"
    )]
    WrongArchitecture {
        kernel: String,
        target: String,
        device: String,
        have: Version,
        expected: &'static str,
    },
    #[error("the driver refused {kernel} ({code}); its compiler says: {log}")]
    Refused { kernel: String, code: String, log: String },
    #[error(
        "{kernel} wrote past its output: {bytes} guard bytes {side} '{buffer}' are overwritten, the nearest {distance} \
         bytes away; the kernel is wrong"
    )]
    Overrun { kernel: String, buffer: &'static str, side: Side, bytes: usize, distance: usize },
    #[error(
        "the device context is lost since {cause}; nothing more can run on it in this process: start anew, without \
         the kernel that failed"
    )]
    Lost { cause: String },
    /// What the emulator found.
    #[error("{0}")]
    Fault(String),
    #[error("{call} failed with {code}")]
    Call { call: &'static str, code: String },
    #[error("{0}")]
    Kernel(String),
    #[error("{0}")]
    Build(String),
}

impl DeviceError {
    /// Makes it the backend's error of the work that met it.
    pub(in crate::backend) fn during(self, backend: &'static str, what: &str) -> BackendError {
        let what = what.to_owned();
        match self {
            Self::NoDriver { .. }
            | Self::DriverTooOld { .. }
            | Self::MissingFunction { .. }
            | Self::NoDevice { .. }
            | Self::NoSuchDevice { .. }
            | Self::DeviceTooOld { .. } => BackendError::Unavailable { backend, reason: self.to_string() },
            Self::Build(reason) => BackendError::Build { what, reason },
            Self::Lost { .. } => BackendError::Lost { what, reason: self.to_string() },
            other => BackendError::Launch { what, reason: other.to_string() },
        }
    }
}

/// Which end of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Side {
    Before,
    After,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Before => "before",
            Side::After => "after",
        })
    }
}

/// Prints a number of bytes in the largest unit that keeps it at least 1.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Bytes(pub(in crate::backend) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, "B");
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            (value, unit) = (value / 1024.0, larger);
        }
        if unit == "B" { write!(f, "{value} B") } else { write!(f, "{value:.1} {unit}") }
    }
}

/// Result codes that callers tell apart (CUDA Driver API, `CUresult`).
pub(in crate::backend) mod code {
    pub(in crate::backend) const SUCCESS: i32 = 0;
    pub(in crate::backend) const OUT_OF_MEMORY: i32 = 2;
    pub(in crate::backend) const NO_DEVICE: i32 = 100;
    pub(in crate::backend) const NO_BINARY_FOR_GPU: i32 = 209;
    pub(in crate::backend) const UNSUPPORTED_PTX_VERSION: i32 = 222;

    /// Results after which a context refuses all further work: the process has to start anew.
    ///
    /// Not every result of the 700s is one: 701 (too many resources for a launch), 704 and 705 (peer access), 708
    /// (context in use), 712 and 713 (host memory) and 720 (cooperative launch) leave the context as it was.
    pub(in crate::backend) fn is_sticky(code: i32) -> bool {
        const ECC_UNCORRECTABLE: i32 = 214;
        matches!(code, ECC_UNCORRECTABLE | 700 | 702 | 709 | 710 | 714..=719 | 721)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_versions_read_as_they_are_printed() {
        assert_eq!(Version::from_driver(11040).to_string(), "11.4");
        assert_eq!(Version::from_driver(12080).to_string(), "12.8");
        assert!(Version::from_driver(11080) < Version::from_driver(12000));
    }

    #[test]
    fn an_illegal_address_kills_a_context_and_a_refused_launch_does_not() {
        for code in [214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719] {
            assert!(code::is_sticky(code), "{code}");
        }
        for code in [0, 1, 2, 100, 209, 218, 222, 701, 704, 705, 708, 712, 713, 720] {
            assert!(!code::is_sticky(code), "{code}");
        }
    }

    #[test]
    fn sizes_are_told_in_readable_units() {
        let texts: Vec<String> =
            [0, 1023, 1024, 5 << 20, 3 << 29].into_iter().map(|n| Bytes(n).to_string()).collect();
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "1.5 GiB"]);
    }

    #[test]
    fn a_missing_device_is_unavailable_and_a_failed_launch_is_not() {
        let unavailable = DeviceError::NoDevice { reason: "none".into() }.during("cuda", "x");
        assert!(matches!(unavailable, BackendError::Unavailable { backend: "cuda", .. }), "{unavailable}");
        let launch =
            DeviceError::Lost { cause: "kernel k ended with 700".into() }.during("cuda", "mask building");
        assert!(
            launch.to_string().starts_with("mask building failed: the device context is lost"),
            "{launch}"
        );
    }
}
