//! Interleaved rounds in which what cannot win leaves early.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Bench, Clocks, Item, Series, Timed};
use crate::{failure::Failure, stats::Median};

/// Rounds before anything may leave for being slow.
const FIRST_CUT: usize = 3;
/// By then, whatever takes longer than this many times the best is out.
const FAR: f64 = 1.5;
/// Rounds from which an interval above the best's is enough.
const SECOND_CUT: usize = 10;
/// An interval this narrow, relative to the median or in microseconds, needs no more samples.
const NARROW: f64 = 0.01;
const NARROW_US: f64 = 0.5;
/// Time spent on one thing that has to do, in microseconds.
const ENOUGH_US: f64 = 5e6;

/// How long a race may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Race {
    /// Most rounds.
    pub(crate) rounds: usize,
}

/// One that races.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Racer {
    /// What is timed.
    pub(crate) item: Item,
    /// Its samples.
    pub(crate) series: Series,
    /// Whether it was out before the end, for being too slow or failing.
    pub(crate) out: bool,
}

/// Keeps the rounds of a race until it is over.
pub(crate) trait Rounds {
    /// Returns what the race's next round gave before a kill, for each item of the order; `None` where it was not run.
    fn earlier(&mut self, order: &[Item]) -> Option<Vec<Timed>>;

    /// Keeps a round that was run.
    fn keep(&mut self, order: &[Item], results: &[Timed]) -> Result<(), Failure>;
}

impl Race {
    /// Times items against each other: each live one once a round, in an order drawn afresh.
    ///
    /// After three rounds what takes more than 1.5 times the best is out; after ten what a 95 % bound excludes. One whose
    /// interval is narrow, or that has had its time, is done; the race ends when all are, or after the most rounds.
    pub(crate) fn run(
        self,
        bench: &mut dyn Bench,
        items: &[Item],
        rounds: &mut dyn Rounds,
        clocks: &mut Clocks,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Racer>, Failure> {
        let mut racers: Vec<Racer> =
            items.iter().map(|&item| Racer { item, series: Series::default(), out: false }).collect();
        let mut live: Vec<usize> = (0..racers.len()).collect();
        for round in 1..=self.rounds {
            live.shuffle(rng);
            let order: Vec<Item> = live.iter().map(|&racer| racers[racer].item).collect();
            let results = match rounds.earlier(&order) {
                Some(results) => results,
                None => {
                    let results = bench.round(&order)?;
                    rounds.keep(&order, &results)?;
                    results
                }
            };
            for (&racer, result) in live.iter().zip(results) {
                racers[racer].series.push(result, clocks);
            }
            live.retain(|&racer| {
                racers[racer].out |= racers[racer].series.failed.is_some();
                !racers[racer].out
            });
            cut(round, &mut live, &mut racers, clocks);
            if live.is_empty() {
                break;
            }
        }
        Ok(racers)
    }
}

/// Takes those out that cannot win, and those that need no more samples.
fn cut(round: usize, live: &mut Vec<usize>, racers: &mut [Racer], clocks: &Clocks) {
    if round < FIRST_CUT {
        return;
    }
    // The best of all, also of those that are done.
    let of = |racer: &Racer| racer.series.best_known(clocks);
    let times: Vec<Option<Median>> = racers.iter().map(of).collect();
    let sound = || times.iter().zip(racers.iter()).filter(|(_, r)| r.series.failed.is_none());
    let Some(best) = sound().filter_map(|(time, _)| *time).min_by(|a, b| a.median.total_cmp(&b.median))
    else {
        return;
    };
    live.retain(|&racer| {
        let Some(time) = times[racer] else { return true };
        let far = time.median > FAR * best.median;
        let excluded = round >= SECOND_CUT && time.ci_low > best.ci_high;
        racers[racer].out = far || excluded;
        let width = time.ci_high - time.ci_low;
        let narrow = round >= SECOND_CUT && (width <= NARROW * time.median || width <= NARROW_US);
        let enough = racers[racer].series.samples.iter().map(|s| s.time_us).sum::<f64>() >= ENOUGH_US;
        !(far || excluded || narrow || enough)
    });
}
