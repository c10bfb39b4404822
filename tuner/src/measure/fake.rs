//! A device with planted times, noise, drift, jumps of the clock and failures.

use std::collections::BTreeMap;

use nabla_host::{conditions::Conditions, parameters::Parameters};
use nabla_reports::Status;

use super::{Bench, Failed, Item, On, Sample, Verified};
use crate::{failure::Failure, stats::simulated::Noise, worker::Errors};

/// What is wrong with a candidate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// Its output is wrong.
    Incorrect,
    /// Its output is wrong on another input.
    IncorrectElsewhere,
    /// It fails when timed for the n-th time.
    Fails(usize, Status),
}

/// The planted device.
#[derive(Debug)]
pub(crate) struct Fake {
    /// True time of each candidate in microseconds.
    pub(crate) times_us: Vec<f64>,
    /// Faults by candidate.
    pub(crate) faults: BTreeMap<usize, Fault>,
    /// Noise of every launch.
    pub(crate) noise: Noise,
    /// The clock by launch: share of the nominal one.
    pub(crate) clock: fn(usize) -> f64,
    /// Whether another process is on the device, by launch.
    pub(crate) busy: fn(usize) -> bool,
    /// Launches so far.
    pub(crate) launches: usize,
    /// Launches of each candidate.
    pub(crate) counts: BTreeMap<usize, usize>,
    /// How often it was made anew.
    pub(crate) renewed: usize,
}

impl Fake {
    pub(crate) fn new(times_us: &[f64], noise: Noise) -> Self {
        Self {
            times_us: times_us.to_vec(),
            faults: BTreeMap::new(),
            noise,
            clock: |_| 1.0,
            busy: |_| false,
            launches: 0,
            counts: BTreeMap::new(),
            renewed: 0,
        }
    }

    fn launch(&mut self, item: Item) -> Result<Sample, Failed> {
        self.launches += 1;
        let base = match item {
            Item::Candidate(number) => {
                let count = self.counts.entry(number).or_default();
                *count += 1;
                if let Some(Fault::Fails(at, status)) = self.faults.get(&number)
                    && *count >= *at
                {
                    return Err(Failed { status: *status, reason: "planted".into() });
                }
                self.times_us[number]
            }
            Item::Dense => 10_000.0,
            Item::Mask => 100.0,
            Item::Reorder => 50.0,
        };
        let clock = (self.clock)(self.launches);
        let conditions = Conditions {
            clock_mhz: Some(2000.0 * clock),
            waited_us: Some(0.0),
            others: u32::from((self.busy)(self.launches)),
        };
        Ok(Sample { time_us: base * self.noise.factor() / clock, conditions })
    }
}

impl Bench for Fake {
    fn verify(
        &mut self,
        number: usize,
        _: &Parameters,
        on: On,
    ) -> Result<Result<Verified, (Failed, Option<Errors>)>, Failure> {
        let wrong = match self.faults.get(&number) {
            Some(Fault::Incorrect) => true,
            Some(Fault::IncorrectElsewhere) => on == On::OtherInput,
            _ => false,
        };
        if wrong {
            let failed = Failed { status: Status::Incorrect, reason: "planted".into() };
            return Ok(Err((failed, None)));
        }
        Ok(Ok(Verified { variant: format!("fake_{number}"), errors: Errors::default() }))
    }

    fn round(&mut self, order: &[Item]) -> Result<Vec<Result<Sample, Failed>>, Failure> {
        Ok(order.iter().map(|&item| self.launch(item)).collect())
    }

    fn renew(&mut self) -> Result<(), Failure> {
        self.renewed += 1;
        Ok(())
    }
}
