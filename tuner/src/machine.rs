//! What a device can do and how it is set, as the header of a run has it.

use nabla_host::{backend::Backend, conditions};
use nabla_reports::Machine;

/// Asks a backend, whose device is number `ordinal`, for its peaks and clocks; `None` where it knows neither. Measuring the
/// peaks of a CPU takes some tenths of a second.
pub(crate) fn machine_of(backend: &dyn Backend, ordinal: usize) -> Option<Machine> {
    let peaks = backend.peaks();
    let clocks = conditions::clocks(backend.device(), ordinal);
    let known = !peaks.tflops.is_empty() || peaks.memory_gb_per_s.is_some() || clocks.is_some();
    known.then(|| Machine {
        peak_tflops: peaks.tflops.iter().map(|(dtype, tflops)| (dtype.to_string(), *tflops)).collect(),
        bandwidth_gb_per_s: peaks.memory_gb_per_s,
        peak_source: peaks.source.to_owned(),
        clocks,
    })
}
