//! A-B-B-A blocks: pairs that a drift cannot tell apart.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Bench, Clocks, Item, MOST_MARKED, Sample, Series};
use crate::{
    failure::Failure,
    stats::{Finding, LOOKS, Margin, Quad, Verdict, blocks_at, estimate, findings, log_ratios, noise_floor},
};

/// Several things, each to be compared with the same one.
#[derive(Debug)]
pub(crate) struct Pairing {
    /// What all are compared with.
    base: Item,
    rivals: Vec<Rival>,
    base_series: Series,
}

#[derive(Debug)]
struct Rival {
    item: Item,
    /// Blocks in the order taken, each with whether one of its samples is marked.
    blocks: Vec<(Quad, bool)>,
    series: Series,
    finding: Option<Finding>,
}

/// What one comparison came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Paired {
    /// What was compared.
    pub(crate) item: Item,
    /// What was found; `None` where it failed, or had too few blocks.
    pub(crate) finding: Option<Finding>,
    /// Its samples.
    pub(crate) series: Series,
    /// Whether marked blocks had to count, since there were too many of them.
    pub(crate) contended: bool,
}

impl Rival {
    /// Returns the blocks that count: the unmarked ones, or all where too many are marked.
    fn counting(&self) -> (Vec<Quad>, bool) {
        let marked = self.blocks.iter().filter(|(_, marked)| *marked).count();
        let contended = marked as f64 > MOST_MARKED * self.blocks.len() as f64;
        let counts = |block: &&(Quad, bool)| contended || !block.1;
        (self.blocks.iter().filter(counts).map(|(quad, _)| *quad).collect(), contended)
    }

    /// Says whether it needs another block to have `blocks` that count. Marked blocks are taken again, as many as would
    /// make it contended and no more.
    fn wants(&self, blocks: usize) -> bool {
        if self.series.failed.is_some() || self.blocks.len() as f64 >= blocks as f64 / (1.0 - MOST_MARKED) {
            return false;
        }
        self.blocks.iter().filter(|(_, marked)| !marked).count() < blocks
    }
}

impl Pairing {
    pub(crate) fn new(base: Item, rivals: &[Item]) -> Self {
        let rival = |&item| Rival { item, blocks: Vec::new(), series: Series::default(), finding: None };
        Self { base, rivals: rivals.iter().map(rival).collect(), base_series: Series::default() }
    }

    /// Compares a thing with itself and returns the noise floor: how far from 1 the ratio may seem to be.
    pub(crate) fn floor(
        item: Item,
        bench: &mut dyn Bench,
        clocks: &mut Clocks,
        seed: u64,
    ) -> Result<Option<f64>, Failure> {
        let mut pairing = Self::new(item, &[item]);
        while pairing.rivals[0].wants(blocks_at(0)) && pairing.base_series.failed.is_none() {
            pairing.block(0, bench, clocks)?;
        }
        let (blocks, _) = pairing.rivals[0].counting();
        Ok(estimate(&log_ratios(&blocks), seed).map(|found| noise_floor(&found)))
    }

    /// Takes blocks until every verdict is clear, at most as many as the last look allows. Rivals take turns, in an order
    /// drawn afresh, so that drift and spells of load fall on all alike.
    pub(crate) fn run(
        mut self,
        bench: &mut dyn Bench,
        margin: Margin,
        clocks: &mut Clocks,
        rng: &mut ChaCha8Rng,
        seed: u64,
    ) -> Result<(Vec<Paired>, Series), Failure> {
        for look in 0..LOOKS {
            let unclear = |rival: &Rival| rival.finding.is_none_or(|f| f.verdict == Verdict::Ambiguous);
            loop {
                let mut turns: Vec<usize> = (0..self.rivals.len())
                    .filter(|&r| unclear(&self.rivals[r]) && self.rivals[r].wants(blocks_at(look)))
                    .collect();
                if turns.is_empty() || self.base_series.failed.is_some() {
                    break;
                }
                turns.shuffle(rng);
                for rival in turns {
                    self.block(rival, bench, clocks)?;
                }
            }
            self.judge(margin, seed);
            if !self.rivals.iter().any(|r| unclear(r) && r.series.failed.is_none()) {
                break;
            }
        }
        let paired = self.rivals.into_iter().map(|rival| Paired {
            item: rival.item,
            contended: rival.counting().1,
            finding: rival.finding.filter(|_| rival.series.failed.is_none()),
            series: rival.series,
        });
        Ok((paired.collect(), self.base_series))
    }

    fn judge(&mut self, margin: Margin, seed: u64) {
        let counting: Vec<Vec<Quad>> = self.rivals.iter().map(|rival| rival.counting().0).collect();
        let family: Vec<&[Quad]> = counting.iter().map(Vec::as_slice).collect();
        for (rival, finding) in self.rivals.iter_mut().zip(findings(&family, margin, seed)) {
            rival.finding = finding;
        }
    }

    fn block(&mut self, rival: usize, bench: &mut dyn Bench, clocks: &mut Clocks) -> Result<(), Failure> {
        let (a, b) = (self.base, self.rivals[rival].item);
        let results = bench.round(&[a, b, b, a])?;
        let rival = &mut self.rivals[rival];
        let samples: Vec<Sample> = results.iter().filter_map(|r| r.as_ref().ok().copied()).collect();
        for (index, result) in results.into_iter().enumerate() {
            let of_base = index == 0 || index == 3;
            let series = if of_base { &mut self.base_series } else { &mut rival.series };
            series.push(result, clocks);
        }
        if let [first, second, third, fourth] = samples[..] {
            let quad = Quad { a: [first.time_us, fourth.time_us], b: [second.time_us, third.time_us] };
            rival.blocks.push((quad, samples.iter().any(|sample| clocks.marks(sample))));
        }
        Ok(())
    }
}
