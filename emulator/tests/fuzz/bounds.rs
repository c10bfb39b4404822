//! What a text may take: time, memory, and the steps of a launch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nabla_emulator::{LaunchConfig, Memory, Module, Options, Param, launch_with};

use crate::common::bytes;

/// Counts what is allocated now, and the most that was.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `at` came from `alloc` above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time for one text: a few hundredths of it are used where nothing is quadratic, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const MIB: usize = 1 << 20;

/// One case at a time, so that what is allocated is the case's own.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a step and checks its time and its memory, in MiB.
#[track_caller]
pub(crate) fn bounded<T>(what: &str, most: usize, step: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = Instant::now();
    let out = step();
    let (time, peak) = (start.elapsed(), PEAK.load(Relaxed).saturating_sub(before) / MIB);
    assert!(time < PATIENCE, "{what} took {time:?}");
    assert!(peak <= most, "{what} allocated {peak} MiB, {most} are enough");
    out
}

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Refused,
    Faulted,
    Ran,
}

/// Parses a text; launches every kernel of what parses, on small buffers and with few steps.
#[track_caller]
pub(crate) fn survive(what: &str, text: &str) -> End {
    survive_with(what, text, 40)
}

/// The same with a number of threads.
#[track_caller]
pub(crate) fn survive_with(what: &str, text: &str, threads: u32) -> End {
    // A syntax tree is larger than its text by a constant factor.
    let parsed = bounded(what, 16 + text.len() * 128 / MIB, || Module::parse("fuzz.ptx", text));
    let Ok(module) = parsed else { return End::Refused };
    let entries: Vec<String> = module.entries().take(3).map(str::to_owned).collect();
    let mut end = End::Ran;
    for entry in entries {
        let params: Vec<(String, u32)> = module.params(&entry).unwrap_or_default();
        let mut memory = Memory::new();
        let buffer = memory.alloc_from(&bytes(&[3; 256]));
        let params: Vec<Param> = params
            .iter()
            .map(|(_, size)| match size {
                8 => Param::Ptr(buffer),
                size => Param::Bytes(vec![1; *size as usize]),
            })
            .collect();
        let config = LaunchConfig {
            grid: [2, 1, 1],
            block: [threads, 1, 1],
            dynamic_shared_bytes: 256,
            ..LaunchConfig::default()
        };
        // In half of the texts.
        let races = text.len().is_multiple_of(2);
        let options = Options { instruction_budget: 50_000, races, ..Options::default() };
        let run = || launch_with(&module, &entry, config, &params, &mut memory, &options).map_err(Box::new);
        if let Err(fault) = bounded(what, 1024, run) {
            let _ = fault.to_string();
            end = End::Faulted;
        }
    }
    end
}
