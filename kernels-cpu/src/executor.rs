//! Threads that run the kernels.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{ArgumentError, Isa};

/// Owns the threads of the CPU kernels and the instruction set they use.
///
/// Threads start once and stay: a launch costs microseconds. With `pin`, thread `i` stays on the `i`-th core
/// this process may use, so that timings do not jump when the scheduler moves a thread.
///
/// Working memory of finished launches is kept for the next ones until the executor is dropped: per thread a few
/// tiles, and packed keys and values of up to 256 MiB or one head, whichever is more.
#[derive(Debug)]
pub struct Executor {
    pool: ThreadPool,
    isa: Isa,
    /// Working memory of finished launches. Small launches would otherwise spend their time on page faults.
    buffers: Mutex<Vec<Buffer>>,
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
        Ok(Self { pool, isa, buffers: Mutex::default() })
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Returns the instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Lends working memory, and takes it back when the loan is dropped.
    pub(crate) fn borrow_buffer(&self) -> Loan<'_> {
        Loan { buffer: self.buffers().pop().unwrap_or_default(), executor: self }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Buffer>> {
        // A panic elsewhere leaves a list of buffers as good as it was.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `job` on every thread at once and returns when all are done; `job` gets the thread's index.
    pub fn run<F: Fn(usize) + Sync>(&self, job: F) {
        self.pool.broadcast(|context| job(context.index()));
    }
}

/// Words of a cache line.
const LINE: usize = 16;

/// Working memory that grows and is never shrunk.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// Returns `n` words of unspecified content; the first starts a cache line.
    pub(crate) fn words(&mut self, n: usize) -> &mut [f32] {
        if self.0.len() < n + LINE {
            // Not `resize`: old content is worth nothing, and fresh zeroed memory costs nothing until touched.
            self.0 = Vec::new();
            self.0 = vec![0.0; n + LINE];
        }
        let skip = self.0.as_ptr().align_offset(LINE * size_of::<f32>());
        &mut self.0[skip..][..n]
    }
}

/// A buffer on loan from an executor.
#[derive(Debug)]
pub(crate) struct Loan<'a> {
    buffer: Buffer,
    executor: &'a Executor,
}

impl Deref for Loan<'_> {
    type Target = Buffer;
    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut Buffer {
        &mut self.buffer
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.executor.buffers().push(std::mem::take(&mut self.buffer));
    }
}
