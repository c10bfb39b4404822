//! Threads that run the kernels.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{ArgumentError, Isa};

/// Owns the threads of the CPU kernels and the instruction set they use.
///
/// Threads start once and stay: a launch costs microseconds. With `pin`, thread `i` stays on the `i`-th core
/// this process may use, so that timings do not jump when the scheduler moves a thread.
#[derive(Debug)]
pub struct Executor {
    pool: ThreadPool,
    isa: Isa,
}

impl Executor {
    /// Starts `threads` threads (at least 1) that run kernels compiled for `isa`.
    ///
    /// # Errors
    /// When this CPU lacks `isa`, `threads` is 0, or the operating system refuses the threads.
    pub fn new(threads: usize, isa: Isa, pin: bool) -> Result<Self, ArgumentError> {
        if threads == 0 {
            return Err(ArgumentError::Value {
                name: "threads",
                got: "0".into(),
                requirement: "at least one thread is needed".into(),
            });
        }
        let isa = isa.require()?;
        let cores = if pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("nabla-cpu-{i}"))
            .start_handler(move |i| {
                if let Some(core) = (threads <= cores.len()).then(|| cores.get(i)).flatten() {
                    core_affinity::set_for_current(*core);
                }
            })
            .build()
            .map_err(|e| ArgumentError::Threads { threads, reason: e.to_string() })?;
        Ok(Self { pool, isa })
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Returns the instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs `job` on every thread at once and returns when all are done; `job` gets the thread's index.
    pub fn run<F: Fn(usize) + Sync>(&self, job: F) {
        self.pool.broadcast(|context| job(context.index()));
    }
}
