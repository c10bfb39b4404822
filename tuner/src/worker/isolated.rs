//! A bench over worker processes: a loss costs the one at fault its row, and the rest goes on in a new process.
//!
//! Whose fault a loss is, is not always whose turn it was: a kernel that writes where it must not may break the next one.
//! So the one in flight is tried alone in a fresh worker. If it passes there, each that ran before it is tried, followed by
//! that one; the first that loses its worker is at fault. Where none does, the loss was a coincidence and is forgiven once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use nabla_host::parameters::Parameters;
use nabla_reports::Status;

use super::{
    process::{Gone, Start, Worker, interrupted},
    protocol::{Errors, Hello, Opened, Reply, Request, Target},
};
use crate::{
    failure::{Failure, Kind},
    measure::{Bench, Failed, Item, On, Sample, Timed, Verified},
};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Loading a problem, and verifying a candidate with its float64 reference and its compilation.
    pub(crate) verify: Duration,
    /// One timed launch.
    pub(crate) launch: Duration,
}

/// Unexplained losses of one candidate that are forgiven.
const FORGIVEN: u32 = 1;
/// Launches of a candidate that is tried alone.
const TRIALS: usize = 3;

/// One problem, measured in workers.
#[derive(Debug)]
pub(crate) struct Isolated {
    start: Start,
    limits: Limits,
    target: Target,
    hello: Hello,
    opened: Opened,
    worker: Option<Worker>,
    /// Configurations of the candidates that are right.
    verified: BTreeMap<usize, Parameters>,
    /// Candidates the current worker knows.
    known: BTreeSet<usize>,
    /// Candidates that nothing is asked of any more, and why.
    dead: BTreeMap<usize, Failed>,
    unexplained: BTreeMap<Item, u32>,
    work_us: f64,
    lost_workers: u32,
}

/// What ended a round early, or what a try alone came to.
enum Loss {
    Gone(Gone),
    /// The device is gone for the process; it said so itself.
    Device(String),
}

/// What a round gave until its end, or until the worker was lost.
type Attempt = (Vec<Timed>, Option<Loss>);

impl Loss {
    fn failed(&self) -> Failed {
        match self {
            Loss::Gone(gone @ Gone::Timeout(_)) => {
                Failed { status: Status::Timeout, reason: format!("the launch {gone}") }
            }
            Loss::Gone(gone) => Failed { status: Status::Crashed, reason: format!("the launch {gone}") },
            Loss::Device(reason) => Failed { status: Status::LaunchError, reason: reason.clone() },
        }
    }
}

impl Isolated {
    /// Starts a worker and opens a problem.
    ///
    /// # Errors
    /// When the worker cannot start, or refuses the problem.
    pub(crate) fn open(start: Start, limits: Limits, target: Target) -> Result<Self, Failure> {
        let mut worker = Worker::start(&start)?;
        let (opened, work_us) = open(&mut worker, &target, limits)?;
        Ok(Self {
            hello: worker.hello().clone(),
            worker: Some(worker),
            start,
            limits,
            target,
            opened,
            verified: BTreeMap::new(),
            known: BTreeSet::new(),
            dead: BTreeMap::new(),
            unexplained: BTreeMap::new(),
            work_us,
            lost_workers: 0,
        })
    }

    /// Goes on to another problem in the same worker.
    pub(crate) fn reopen(&mut self, target: Target) -> Result<(), Failure> {
        self.target = target;
        self.verified.clear();
        self.known.clear();
        self.dead.clear();
        self.unexplained.clear();
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start(&self.start)?,
        };
        let (opened, work_us) = open(&mut worker, &self.target, self.limits)?;
        self.opened = opened;
        self.work_us += work_us;
        self.worker = Some(worker);
        Ok(())
    }

    /// Returns who measures.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Returns the problem.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Returns the microseconds that workers have spent loading, verifying, and launching with the conditions of each launch.
    pub(crate) fn work_us(&self) -> f64 {
        self.work_us
    }

    /// Returns how many workers were lost.
    pub(crate) fn lost_workers(&self) -> u32 {
        self.lost_workers
    }

    /// Returns a worker with the problem open that knows all of `candidates`.
    fn worker(&mut self, candidates: &[usize]) -> Result<Result<&mut Worker, Loss>, Failure> {
        if self.worker.is_none() {
            let mut worker = Worker::start(&self.start)?;
            let (_, work_us) = open(&mut worker, &self.target, self.limits)?;
            self.work_us += work_us;
            self.known.clear();
            self.worker = Some(worker);
        }
        let Some(worker) = &mut self.worker else {
            return Err(Failure::new(Kind::Device, "a worker that was started is not there"));
        };
        for number in candidates {
            let Some(config) = self.verified.get(number).filter(|_| !self.known.contains(number)) else {
                continue;
            };
            let request = Request::Prepare { number: *number, config: config.clone() };
            match worker.ask(&request).and_then(|()| worker.reply(self.limits.verify)) {
                Ok(_) => {
                    self.known.insert(*number);
                }
                Err(gone) => return Ok(Err(Loss::Gone(gone))),
            }
        }
        Ok(Ok(worker))
    }

    fn drop_worker(&mut self) {
        self.worker = None;
        self.known.clear();
    }

    /// Times items in the given order until all are done or the worker is lost.
    fn attempt(&mut self, order: &[Item]) -> Result<Attempt, Failure> {
        let candidates: Vec<usize> = order.iter().filter_map(|item| candidate(*item)).collect();
        let patience = self.limits.launch;
        let mut results = Vec::with_capacity(order.len());
        let mut work_us = 0.0;
        let worker = match self.worker(&candidates)? {
            Ok(worker) => worker,
            Err(loss) => return Ok((results, Some(loss))),
        };
        let request = Request::Round { order: order.iter().map(|&item| item.into()).collect() };
        let mut loss = worker.ask(&request).err().map(Loss::Gone);
        while loss.is_none() && results.len() < order.len() {
            match worker.reply(patience) {
                Ok(Reply::Sample { time_us, conditions, work_us: spent_us }) => {
                    // Another build's worker may not say.
                    work_us += spent_us.max(time_us);
                    results.push(Ok(Sample { time_us, conditions }));
                }
                Ok(Reply::Failed { lost: true, reason, .. }) => loss = Some(Loss::Device(reason)),
                Ok(Reply::Failed { status, reason, .. }) => results.push(Err(Failed { status, reason })),
                Ok(other) => loss = Some(Loss::Gone(Gone::Nonsense(format!("{other:?}")))),
                Err(gone) => loss = Some(Loss::Gone(gone)),
            }
        }
        self.work_us += work_us;
        if loss.is_some() {
            self.drop_worker();
            self.lost_workers += 1;
        }
        match loss {
            Some(Loss::Gone(Gone::Interrupted)) => Err(Failure::interrupted()),
            loss => Ok((results, loss)),
        }
    }

    /// Tries an item in a fresh worker, alone, or followed by the one that was in flight when another was lost.
    fn alone(&mut self, item: Item, then: Option<Item>) -> Result<Option<Loss>, Failure> {
        self.drop_worker();
        let order: Vec<Item> = [item; TRIALS].into_iter().chain(then).collect();
        let (_, loss) = self.attempt(&order)?;
        Ok(loss)
    }

    /// Finds whose fault a loss was: the one in flight, or one that ran before it.
    fn culprit(
        &mut self,
        in_flight: Item,
        before: &[Item],
        loss: Loss,
    ) -> Result<Option<(Item, Failed)>, Failure> {
        if let Some(again) = self.alone(in_flight, None)? {
            return Ok(Some((in_flight, again.failed())));
        }
        let mut tried = BTreeSet::from([in_flight]);
        for &item in before.iter().rev() {
            if tried.insert(item)
                && let Some(loss) = self.alone(item, Some(in_flight))?
            {
                return Ok(Some((item, loss.failed())));
            }
        }
        let count = self.unexplained.entry(in_flight).or_default();
        *count += 1;
        Ok((*count > FORGIVEN).then(|| (in_flight, loss.failed())))
    }

    fn ask_to_verify(
        &mut self,
        number: usize,
        parameters: &Parameters,
        on: On,
    ) -> Result<Result<Reply, Loss>, Failure> {
        let patience = self.limits.verify;
        let worker = match self.worker(&[])? {
            Ok(worker) => worker,
            Err(loss) => return Ok(Err(loss)),
        };
        let request = Request::Verify { number, config: parameters.clone(), on };
        let loss = match worker.ask(&request).and_then(|()| worker.reply(patience)) {
            Ok(Reply::Failed { lost: true, reason, .. }) => Loss::Device(reason),
            Ok(reply) => return Ok(Ok(reply)),
            Err(Gone::Interrupted) => return Err(Failure::interrupted()),
            Err(gone) => Loss::Gone(gone),
        };
        self.drop_worker();
        self.lost_workers += 1;
        Ok(Err(loss))
    }
}

fn candidate(item: Item) -> Option<usize> {
    match item {
        Item::Candidate(number) => Some(number),
        _ => None,
    }
}

/// Opens a problem and returns it with the microseconds that took.
fn open(worker: &mut Worker, target: &Target, limits: Limits) -> Result<(Opened, f64), Failure> {
    let request = Request::Open { target: target.clone() };
    match worker.ask(&request).and_then(|()| worker.reply(limits.verify)) {
        Ok(Reply::Opened { opened, work_us }) => Ok((*opened, work_us)),
        Ok(Reply::Refused { code, reason }) => Err(Failure::of_code(code, reason)),
        Ok(other) => Err(Failure::new(Kind::Device, format!("expected an opened problem, got {other:?}"))),
        Err(Gone::Interrupted) => Err(Failure::interrupted()),
        Err(gone) => Err(Failure::new(Kind::Device, format!("opening {} {gone}", target.policy))),
    }
}

impl Bench for Isolated {
    fn verify(
        &mut self,
        number: usize,
        parameters: &Parameters,
        on: On,
    ) -> Result<Result<Verified, (Failed, Option<Errors>)>, Failure> {
        let started = Instant::now();
        let mut answer = self.ask_to_verify(number, parameters, on)?;
        if answer.is_err() {
            // The worker may have been broken by another: alone in a fresh one it is its own fault.
            answer = self.ask_to_verify(number, parameters, on)?;
        }
        Ok(match answer {
            Ok(Reply::Verified { variant, errors, work_us }) => {
                self.work_us += work_us;
                self.verified.insert(number, parameters.clone());
                self.known.insert(number);
                Ok(Verified { variant, errors })
            }
            Ok(Reply::Failed { status, reason, errors, work_us, .. }) => {
                self.work_us += work_us;
                Err((Failed { status, reason }, errors))
            }
            Ok(other) => {
                let reason = format!("expected a verification, got {other:?}");
                Err((Failed { status: Status::Crashed, reason }, None))
            }
            Err(loss) => {
                self.work_us += started.elapsed().as_secs_f64() * 1e6;
                Err((loss.failed(), None))
            }
        })
    }

    fn round(&mut self, order: &[Item]) -> Result<Vec<Timed>, Failure> {
        let mut results: Vec<Option<Timed>> = vec![None; order.len()];
        loop {
            if interrupted() {
                return Err(Failure::interrupted());
            }
            for (result, item) in results.iter_mut().zip(order) {
                if let Some(failed) = candidate(*item).and_then(|number| self.dead.get(&number)) {
                    *result = Some(Err(failed.clone()));
                }
            }
            let open: Vec<usize> = (0..order.len()).filter(|&i| results[i].is_none()).collect();
            if open.is_empty() {
                return Ok(results.into_iter().flatten().collect());
            }
            let items: Vec<Item> = open.iter().map(|&i| order[i]).collect();
            let (done, loss) = self.attempt(&items)?;
            let finished = done.len();
            for (&i, result) in open.iter().zip(done) {
                results[i] = Some(result);
            }
            let Some(loss) = loss else { continue };
            // A worker lost before its first item was lost while it got ready: the first is the one in flight.
            let in_flight = items[finished.min(items.len() - 1)];
            tracing::warn!(?in_flight, "a worker was lost");
            match self.culprit(in_flight, &items[..finished], loss)? {
                Some((item, failed)) => match candidate(item) {
                    Some(number) => {
                        self.dead.insert(number, failed);
                    }
                    None => {
                        for (result, of) in results.iter_mut().zip(order) {
                            if *of == item {
                                *result = Some(Err(failed.clone()));
                            }
                        }
                    }
                },
                None => tracing::warn!(?in_flight, "the loss could not be repeated; going on"),
            }
        }
    }

    fn renew(&mut self) -> Result<(), Failure> {
        self.drop_worker();
        // A loss in the start itself shows in the next round, with its reason.
        self.worker(&[]).map(|_| ())
    }
}
