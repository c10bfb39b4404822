//! Noise as machines have it: correlated in time, with spikes and drift.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A machine's noise, in natural logarithms of time.
#[derive(Debug, Clone)]
pub(crate) struct Noise {
    /// Where it is drawn from.
    pub(crate) rng: ChaCha8Rng,
    /// Standard deviation of the correlated part.
    pub(crate) slow: f64,
    /// Correlation of the slow part from one launch to the next.
    pub(crate) memory: f64,
    /// Standard deviation of what changes from launch to launch.
    pub(crate) fast: f64,
    /// Chance of a spike, which adds 5 to 50 %.
    pub(crate) spikes: f64,
    /// Drift a launch.
    pub(crate) drift: f64,
    /// The slow part now.
    pub(crate) state: f64,
    /// Launches so far.
    pub(crate) launches: f64,
}

impl Noise {
    /// A shared machine on an ordinary day: 1 % slow noise, 0.5 % fast, a spike every fifty launches, and a drift of some
    /// per cent an hour.
    pub(crate) fn ordinary(seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            rng,
            slow: 0.01,
            memory: 0.9,
            fast: 0.005,
            spikes: 0.02,
            drift: 2e-5,
            state: 0.0,
            launches: 0.0,
        }
    }

    /// A machine without noise.
    pub(crate) fn none(seed: u64) -> Self {
        Self { slow: 0.0, fast: 0.0, spikes: 0.0, drift: 0.0, ..Self::ordinary(seed) }
    }

    /// Returns what the next launch's time is multiplied by.
    pub(crate) fn factor(&mut self) -> f64 {
        let normal = |rng: &mut ChaCha8Rng| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let innovation = self.slow * (1.0 - self.memory * self.memory).sqrt();
        self.state = self.memory * self.state + innovation * normal(&mut self.rng);
        self.launches += 1.0;
        let fast = self.fast * normal(&mut self.rng);
        let spike = match self.rng.random_bool(self.spikes) {
            true => self.rng.random_range(0.05f64..0.5).ln_1p(),
            false => 0.0,
        };
        (self.state + fast + spike + self.drift * self.launches).exp()
    }
}
