//! A CPU's clock and who else wanted its cores.

use std::{fs, fs::File, hint::black_box, time::Instant};

use super::Conditions;

/// Dependent steps of one spin, some ten microseconds.
const STEPS: u32 = 8192;
/// Cycles of a step: a multiplication, and an exclusive or that no compiler can merge with the next (3 + 1 on x86-64
/// since 2008).
const CYCLES: f64 = 4.0;
/// Spins of a reading: the fastest counts, for any of them may be interrupted.
const SPINS: u32 = 2;

/// Watches the threads of this process.
#[derive(Debug)]
pub(super) struct CpuWatch {
    /// The kernel's accounting of each thread; empty where it keeps none.
    threads: Vec<File>,
    waited_ns: u64,
}

impl CpuWatch {
    pub(super) fn new() -> Self {
        let mut watch = Self { threads: Vec::new(), waited_ns: 0 };
        watch.find_threads();
        watch
    }

    /// Opens the accounting of every thread there is.
    pub(super) fn find_threads(&mut self) {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        self.threads = tasks.filter_map(|task| File::open(task.path().join("schedstat")).ok()).collect();
    }

    pub(super) fn before(&mut self) {
        self.waited_ns = self.waited();
    }

    pub(super) fn after(&self) -> Conditions {
        let waited = self.waited().saturating_sub(self.waited_ns);
        Conditions {
            clock_mhz: Some(clock_mhz()),
            waited_us: (!self.threads.is_empty()).then_some(waited as f64 / 1e3),
            others: 0,
        }
    }

    /// Sums the nanoseconds that threads have been ready to run without a core.
    fn waited(&self) -> u64 {
        self.threads.iter().filter_map(waited_of).sum()
    }
}

/// Reads the second number of `schedstat`: time spent on a run queue, in nanoseconds.
fn waited_of(file: &File) -> Option<u64> {
    let mut text = [0u8; 96];
    let length = read_start(file, &mut text).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(unix)]
fn read_start(file: &File, to: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, to, 0)
}

#[cfg(not(unix))]
fn read_start(_: &File, _: &mut [u8]) -> std::io::Result<usize> {
    Ok(0)
}

/// Describes the clock of the core this runs on.
pub(super) fn clock() -> String {
    // Awake first: a core that was idle starts slowly.
    let mhz = (0..64).map(|_| clock_mhz()).fold(0.0, f64::max);
    format!("{mhz:.0} MHz before the run, by timing dependent instructions")
}

/// Measures the clock of the core this runs on.
fn clock_mhz() -> f64 {
    let spin = |_| {
        let start = Instant::now();
        let mut x = black_box(1u64);
        for _ in 0..STEPS {
            x = x.wrapping_mul(6_364_136_223_846_793_005) ^ 1_442_695_040_888_963_407;
        }
        black_box(x);
        f64::from(STEPS) * CYCLES / (start.elapsed().as_secs_f64() * 1e6)
    };
    (0..SPINS).map(spin).fold(0.0, f64::max)
}
