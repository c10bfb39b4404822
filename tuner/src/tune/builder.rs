//! Kernels compiled ahead of their measurement, in a process of their own.

use std::time::Duration;

use nabla_host::parameters::Parameters;
use nabla_reports::Status;

use crate::{
    failure::Failure,
    measure::Failed,
    worker::{Build, Gone, Reply, Request, Start, Target, Worker},
};

/// A compilation that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A worker that builds and never launches.
#[derive(Debug)]
pub(crate) struct Builder {
    start: Start,
    jobs: usize,
    worker: Option<Worker>,
    open: Option<Target>,
    /// What became of the request's kernels so far; `None` while it is built.
    results: Vec<Option<Result<(), Failed>>>,
}

impl Builder {
    pub(crate) fn new(start: Start, jobs: usize) -> Self {
        Self { start, jobs, worker: None, open: None, results: Vec::new() }
    }

    /// Starts to build; what [`Builder::wait`] has not been asked for before is forgotten.
    pub(crate) fn begin(&mut self, target: &Target, configs: &[Parameters]) -> Result<(), Failure> {
        self.results = vec![None; configs.len()];
        // Replies to an earlier request would be taken for those to this one.
        let stale = self.open.as_ref() != Some(target);
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start(&self.start)?,
        };
        let mut ask = || -> Result<(), Gone> {
            if stale {
                worker.ask(&Request::Open { target: target.clone() })?;
                worker.reply(PATIENCE)?;
            }
            worker.ask(&Request::Build { configs: configs.to_vec(), jobs: self.jobs })
        };
        match ask() {
            Ok(()) => {
                self.open = Some(target.clone());
                self.worker = Some(worker);
            }
            Err(Gone::Interrupted) => return Err(Failure::interrupted()),
            Err(gone) => self.lose(&gone),
        }
        Ok(())
    }

    /// Waits until one of the kernels is built, while others still are.
    pub(crate) fn wait(&mut self, index: usize) -> Result<Result<(), Failed>, Failure> {
        loop {
            if let Some(Some(result)) = self.results.get(index) {
                return Ok(result.clone());
            }
            let Some(worker) = &mut self.worker else {
                // Without a builder the worker that measures builds for itself.
                return Ok(Ok(()));
            };
            match worker.reply(PATIENCE) {
                Ok(Reply::Built(Build { index, failed })) => {
                    let result = failed.map_or(Ok(()), |(status, reason)| Err(Failed { status, reason }));
                    if let Some(slot) = self.results.get_mut(index) {
                        *slot = Some(result);
                    }
                }
                Ok(other) => self.lose(&Gone::Nonsense(format!("{other:?}"))),
                Err(Gone::Interrupted) => return Err(Failure::interrupted()),
                Err(gone) => self.lose(&gone),
            }
        }
    }

    /// Gives the worker up. What was being built counts as failed where that is why: the rest is built by whoever needs it.
    fn lose(&mut self, gone: &Gone) {
        tracing::warn!(%gone, "the worker that builds was lost");
        self.worker = None;
        self.open = None;
        if matches!(gone, Gone::Timeout(_)) {
            for slot in self.results.iter_mut().filter(|slot| slot.is_none()) {
                let reason = format!("its compilation {gone}");
                *slot = Some(Err(Failed { status: Status::CompileError, reason }));
            }
        }
    }
}
