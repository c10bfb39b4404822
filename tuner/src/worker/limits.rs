//! What a worker may take of the machine. The one place that asks the operating system for it.

use std::process::Command;

use crate::failure::{Failure, Kind};

/// Share of the memory available that a worker may take, where nobody says: the rest keeps the machine alive.
const SHARE: f64 = 0.9;

/// Bounds the memory this process may take from now on; `None` takes a share of what is available.
///
/// Beyond it an allocation fails and the process ends, where the system would otherwise end some process, perhaps another.
#[cfg(target_os = "linux")]
pub(crate) fn confine(memory_mib: Option<u64>) -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let Some(bytes) = memory_mib.map(|mib| mib << 20).or_else(share_of_available) else { return Ok(()) };
    // Private writable memory, and not addresses: drivers and thread pools reserve those without using them.
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, limit).map_err(|error| {
        Failure::new(Kind::Device, format!("cannot bound the memory of a worker to {bytes} bytes: {error}"))
    })
}

/// Bounds nothing where the system has no such bound.
#[cfg(not(target_os = "linux"))]
pub(crate) fn confine(_: Option<u64>) -> Result<(), Failure> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn share_of_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib * 1024.0 * SHARE) as u64)
}

/// Lets this process die with the one that started it, however that ends: a kernel that hangs must not outlive a kill.
#[cfg(target_os = "linux")]
pub(crate) fn die_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal};
    // Where it is refused, the end of the pipe still ends a worker between two kernels.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// A closed pipe has to do where the system has no such signal.
#[cfg(not(target_os = "linux"))]
pub(crate) fn die_with_parent() {}

/// Puts a worker in a group of its own: a Ctrl-C of the terminal is for the program, which ends its workers itself.
#[cfg(unix)]
pub(crate) fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Groups are a thing of Unix.
#[cfg(not(unix))]
pub(crate) fn own_group(_: &mut Command) {}
