//! One problem: search, run-off against the default, the winner measured afresh.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use nabla_host::{
    parameters::{Parameters, Value},
    profile::{Device, Entry, Found, Margin as Standing, Shape, Standing as Claim},
};
use nabla_reports::{Comparison, Record, Stage, Status};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Builder, Journal, Settings, View,
    row::{Besides, Subject, Trial},
};
use crate::{
    failure::Failure,
    measure::{Bench, Clocks, Failed, Finalist, Item, On, Paired, Pairing, Series, Verified, ranked},
    search::{
        space::{PointId, Space, Value as SpaceValue},
        strategy::{Outcome, Setup, build},
    },
    stats::{Finding, Margin, Verdict},
    store::Store,
    sweep::now,
    worker::Errors,
};

/// Configurations that meet the default in the run-off.
const FINALISTS: usize = 4;
/// Proven ones that are measured afresh before the default is taken.
const CONFIRMED: usize = 2;
/// Rounds of what stands beside the trials: dense attention, mask building, reorder.
const BESIDES: usize = 7;

/// What tunes problems, one after another.
pub(crate) struct Tuner<'a> {
    /// How hard.
    pub(crate) settings: &'a Settings,
    /// Where trials go.
    pub(crate) store: &'a mut Store,
    /// Where rounds of the race in flight go.
    pub(crate) journal: &'a mut Journal,
    /// Who watches.
    pub(crate) view: &'a View,
    /// What compiles ahead, where kernels are compiled.
    pub(crate) builder: Option<Builder>,
}

/// What a run that was cut short left of a problem.
#[derive(Debug, Clone, Default)]
pub(crate) struct Earlier {
    /// Trials of its search.
    pub(crate) searched: Vec<Record>,
}

/// What a problem came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tuned {
    /// The entry of the profile.
    pub(crate) entry: Entry,
    /// Noise floor of the session, as a ratio's distance from 1.
    pub(crate) floor: f64,
    /// Configurations that failed, by status.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Median times in microseconds, of the default and the chosen, in the last stage.
    pub(crate) times_us: [Option<f64>; 2],
    /// Comparisons made.
    pub(crate) comparisons: Vec<Comparison>,
    /// The rows of the last stage, the chosen one first. Whoever keeps the entry writes them after it: they say that the
    /// problem is finished.
    pub(crate) last_rows: Vec<Record>,
}

/// A configuration that was tried.
struct Candidate {
    evaluation: u64,
    verified: Result<Verified, (Failed, Option<Errors>)>,
    time_us: Option<f64>,
}

/// The state of one problem.
struct Run<'a, 'b> {
    tuner: &'a mut Tuner<'b>,
    bench: &'a mut dyn Bench,
    subject: Subject<'a>,
    configs: Vec<Parameters>,
    default: usize,
    clocks: Clocks,
    rng: ChaCha8Rng,
    besides: Besides,
    tried: BTreeMap<usize, Candidate>,
    /// Those the bench has verified: what an earlier part of the run recorded, it does not know.
    ready: BTreeSet<usize>,
    failures: BTreeMap<&'static str, u64>,
}

fn search_value(value: &Value) -> SpaceValue {
    match value {
        Value::Int(value) => SpaceValue::Int(*value),
        Value::Text(value) => SpaceValue::Text(value.clone()),
    }
}

/// A space, the point of each configuration, and the number of each point's configuration.
type Numbered = (Arc<Space>, Vec<PointId>, HashMap<PointId, usize>);

/// Makes the space of listed configurations.
fn space_of(configs: &[Parameters]) -> Option<Numbered> {
    let names: Vec<String> = configs.first()?.0.keys().cloned().collect();
    let rows: Vec<Vec<SpaceValue>> =
        configs.iter().map(|config| config.0.values().map(search_value).collect()).collect();
    let (space, points) = Space::from_rows("device", &names, &rows)?;
    let index = points.iter().enumerate().map(|(index, point)| (*point, index)).collect();
    Some((Arc::new(space), points, index))
}

impl Tuner<'_> {
    /// Tunes one problem; `None` where the default itself does not work, so that there is nothing to compare with.
    pub(crate) fn tune(
        &mut self,
        bench: &mut dyn Bench,
        subject: Subject<'_>,
        device: &Device,
        seeds: &[Parameters],
        earlier: &Earlier,
    ) -> Result<Option<Tuned>, Failure> {
        let mut configs = subject.opened.space.configurations.clone();
        let default_config = &subject.opened.default;
        let default = match configs.iter().position(|config| config == default_config) {
            Some(at) => at,
            None => {
                configs.push(default_config.clone());
                configs.len() - 1
            }
        };
        let rng = ChaCha8Rng::seed_from_u64(self.settings.seed ^ 0x7475_6e65);
        let mut run = Run {
            tuner: self,
            bench,
            subject,
            configs,
            default,
            clocks: Clocks::default(),
            rng,
            besides: Besides::default(),
            tried: BTreeMap::new(),
            ready: BTreeSet::new(),
            failures: BTreeMap::new(),
        };
        run.whole(device, seeds, earlier)
    }
}

impl Tuner<'_> {
    /// Writes the last rows of a problem, once its entry is kept.
    pub(crate) fn finish(&mut self, tuned: &Tuned) -> Result<(), Failure> {
        for row in &tuned.last_rows {
            self.store.push(row)?;
            self.view.trial(row);
        }
        Ok(())
    }
}

impl Run<'_, '_> {
    fn whole(
        &mut self,
        device: &Device,
        seeds: &[Parameters],
        earlier: &Earlier,
    ) -> Result<Option<Tuned>, Failure> {
        let seed = self.tuner.settings.seed;
        let base = Item::Candidate(self.default);
        let config = self.configs[self.default].clone();
        let verified = match self.bench.verify(self.default, &config, On::Input)? {
            Ok(verified) => verified,
            Err((failed, errors)) => {
                let series = Series::default();
                self.record(self.default, 1, Stage::Search, Err((&failed, errors.as_ref())), &series)?;
                self.tuner.view.no_default(&self.subject, &failed.reason);
                return Ok(None);
            }
        };
        self.ready.insert(self.default);
        self.take_besides(base)?;
        let before = Pairing::floor(base, self.bench, &mut self.clocks, seed)?;
        let evaluations = self.search(seeds, earlier)?;
        let finalists = self.finalists()?;
        // What an earlier part of the run recorded of the default lacks its errors.
        let unasked = Candidate { evaluation: 0, verified: Ok(verified.clone()), time_us: None };
        self.tried.entry(self.default).or_insert(unasked).verified = Ok(verified);
        let after = Pairing::floor(base, self.bench, &mut self.clocks, seed)?;
        let floor = before.into_iter().chain(after).fold(0.0, f64::max);
        self.tuner.view.floor(floor);
        let margin = Margin::from_noise(floor);

        let rivals: Vec<Item> = finalists.iter().map(|&number| Item::Candidate(number)).collect();
        let pairing = Pairing::new(base, &rivals);
        let (paired, base_series) = pairing.run(self.bench, margin, &mut self.clocks, &mut self.rng, seed)?;
        let mut comparisons = Vec::new();
        self.keep(&paired, &base_series, &mut comparisons)?;
        let standings: Vec<Finalist> = paired.iter().filter_map(|paired| self.finalist(paired)).collect();
        let mut chosen: Option<(usize, Finding)> = None;
        let mut last = vec![(self.default, base_series)];
        for number in ranked(&standings).into_iter().take(CONFIRMED) {
            // In a fresh process, with nothing left of the search.
            self.bench.renew()?;
            let pairing = Pairing::new(base, &[Item::Candidate(number)]);
            let (paired, base_series) =
                pairing.run(self.bench, margin, &mut self.clocks, &mut self.rng, seed ^ 1)?;
            let Some(confirmed) = paired.into_iter().next() else { continue };
            let Some(finding) = confirmed.finding else { continue };
            self.compare(number, &finding, Stage::Final, &mut comparisons)?;
            if finding.verdict == Verdict::Faster {
                chosen = Some((number, finding));
                last = vec![(number, confirmed.series), (self.default, base_series)];
                break;
            }
        }
        let median = |series: &Series| series.best_known(&self.clocks).map(|m| m.median);
        let times_us = [last.last(), last.first()].map(|of| of.and_then(|(_, series)| median(series)));
        let last_rows = last.iter().filter_map(|(number, series)| self.row(*number, Stage::Final, series));
        let last_rows = last_rows.collect();
        let entry = self.entry(device, chosen, evaluations);
        let failures = std::mem::take(&mut self.failures);
        Ok(Some(Tuned { entry, floor, failures, times_us, comparisons, last_rows }))
    }

    fn entry(&self, device: &Device, chosen: Option<(usize, Finding)>, evaluations: u64) -> Entry {
        let opened = self.subject.opened;
        let block = self.subject.target.block.unwrap_or(0) as u64;
        let shape = Shape {
            dtype: opened.problem.dtype,
            head_dim: opened.problem.head_dim as u64,
            q_block: block,
            kv_block: block,
            seqlen: opened.problem.seqlen_q as u64,
            density: opened.density,
            overlap: opened.overlap,
        };
        let margin = chosen.map_or(Standing::DEFAULT, |(_, finding)| {
            let [ratio, ratio_low, ratio_high] = finding.ratio();
            Standing { standing: Claim::Proven, ratio, ratio_low, ratio_high, pairs: finding.pairs }
        });
        let number = chosen.map_or(self.default, |(number, _)| number);
        Entry {
            key: shape.key(device),
            shape,
            config: self.configs[number].clone(),
            margin,
            found: Found {
                strategy: self.subject.strategy.to_owned(),
                evaluations,
                space: self.configs.len() as u64,
                seed: self.tuner.settings.seed,
                when: now(),
                sources: self.subject.identity.source_hash.clone(),
                toolchain: self.subject.identity.toolchain.clone(),
            },
        }
    }

    /// Times what stands beside every trial, among launches of the default.
    fn take_besides(&mut self, base: Item) -> Result<(), Failure> {
        let mut order = vec![base, Item::Dense, Item::Reorder];
        if self.subject.target.block.is_some() {
            order.push(Item::Mask);
        }
        for _ in 0..BESIDES {
            for (item, result) in order.iter().zip(self.bench.round(&order)?) {
                let samples = match item {
                    Item::Dense => &mut self.besides.dense_us,
                    Item::Mask => &mut self.besides.mask_us,
                    Item::Reorder => &mut self.besides.reorder_us,
                    Item::Candidate(_) => continue,
                };
                samples.extend(result.ok().map(|sample| sample.time_us));
            }
        }
        Ok(())
    }

    /// Asks the strategy, and tells it what became of its points; returns how many there were.
    fn search(&mut self, seeds: &[Parameters], earlier: &Earlier) -> Result<u64, Failure> {
        let Some((space, points, index)) = space_of(&self.configs) else { return Ok(0) };
        let settings = self.tuner.settings;
        let budget = settings.evaluations(self.configs.len());
        let of_seed = |seed: &Parameters| self.configs.iter().position(|config| config == seed);
        let first = [self.default].into_iter().chain(seeds.iter().filter_map(of_seed));
        let setup = Setup {
            budget: Some(budget),
            seeds: first.map(|number| points[number]).collect(),
            prior: self.prior(&points),
            ..Setup::new(space, settings.seed)
        };
        let mut strategy = build(&settings.strategy, setup)
            .map_err(|error| Failure::new(crate::failure::Kind::Usage, error))?;
        self.tuner.view.start(&self.subject, self.configs.len(), budget);
        let known: HashMap<Parameters, &Record> =
            earlier.searched.iter().filter_map(|record| Some((config_in(record)?, record))).collect();
        let started = Instant::now();
        let mut told = 0;
        while told < budget {
            if settings.budget.is_some_and(|budget| started.elapsed() >= budget) {
                break;
            }
            let asked = strategy.ask(settings.batch.min(budget - told));
            if asked.is_empty() {
                break;
            }
            let numbers: Vec<usize> = asked.iter().filter_map(|point| index.get(point).copied()).collect();
            self.evaluate(&numbers, told as u64, &known)?;
            for (&point, number) in asked.iter().zip(&numbers) {
                let time = self.tried.get(number).and_then(|candidate| candidate.time_us);
                strategy.tell(point, time.map_or(Outcome::Failed, Outcome::Cost));
            }
            told += asked.len();
        }
        Ok(told as u64)
    }

    /// Returns what a model expects of each point, in the order of the space.
    fn prior(&self, points: &[PointId]) -> Option<Arc<[f64]>> {
        let expected = self.subject.opened.expected_seconds.as_ref()?;
        let mut prior = vec![f64::NAN; points.len()];
        for (point, seconds) in points.iter().zip(expected) {
            prior[point.index()] = seconds.unwrap_or(f64::NAN);
        }
        Some(prior.into())
    }

    /// Verifies and times configurations against each other and the best so far.
    fn evaluate(
        &mut self,
        numbers: &[usize],
        before: u64,
        known: &HashMap<Parameters, &Record>,
    ) -> Result<(), Failure> {
        let evaluation = |place: usize| before + place as u64 + 1;
        let mut fresh = Vec::new();
        for (place, &number) in numbers.iter().enumerate() {
            match known.get(&self.configs[number]) {
                Some(record) => self.recall(number, evaluation(place), record),
                None => fresh.push((place, number)),
            }
        }
        let configs: Vec<Parameters> =
            fresh.iter().map(|&(_, number)| self.configs[number].clone()).collect();
        if let Some(builder) = self.tuner.builder.as_mut().filter(|_| !configs.is_empty()) {
            builder.begin(self.subject.target, &configs)?;
        }
        let mut racing = Vec::new();
        for (i, &(place, number)) in fresh.iter().enumerate() {
            let built = match &mut self.tuner.builder {
                Some(builder) => builder.wait(i)?,
                None => Ok(()),
            };
            let verified = match built {
                Ok(()) => self.bench.verify(number, &configs[i], On::Input)?,
                Err(failed) => Err((failed, None)),
            };
            match &verified {
                Ok(_) => {
                    self.ready.insert(number);
                    racing.push(number);
                }
                Err((failed, errors)) => {
                    let failure = Err((failed, errors.as_ref()));
                    self.record(number, evaluation(place), Stage::Search, failure, &Series::default())?;
                }
            }
            let candidate = Candidate { evaluation: evaluation(place), verified, time_us: None };
            self.tried.insert(number, candidate);
        }
        if racing.is_empty() {
            return Ok(());
        }
        let mut items: Vec<Item> = racing.iter().map(|&number| Item::Candidate(number)).collect();
        if let Some(best) = self.best(1).first().copied().filter(|best| !racing.contains(best)) {
            let config = self.configs[best].clone();
            if self.ready.contains(&best) || self.bench.verify(best, &config, On::Input)?.is_ok() {
                self.ready.insert(best);
                items.push(Item::Candidate(best));
            }
        }
        let mut rounds = self.tuner.journal.race(self.subject.name(), &self.configs);
        let race = self.tuner.settings.race;
        let racers = race.run(self.bench, &items, &mut rounds, &mut self.clocks, &mut self.rng)?;
        for (number, racer) in racing.into_iter().zip(racers) {
            let Some(candidate) = self.tried.get_mut(&number) else { continue };
            let time = racer.series.best_known(&self.clocks).map(|m| m.median);
            candidate.time_us = time.filter(|_| racer.series.failed.is_none());
            let (evaluation, verified) = (candidate.evaluation, candidate.verified.clone());
            let verified = verified.as_ref().map_err(|(failed, errors)| (failed, errors.as_ref()));
            self.record(number, evaluation, Stage::Search, verified, &racer.series)?;
        }
        self.tuner.journal.clear()
    }

    /// Takes a trial from an earlier part of the run.
    fn recall(&mut self, number: usize, evaluation: u64, record: &Record) {
        let time_us = record.time_us_median.filter(|_| record.status == Status::Ok);
        let verified = match record.status {
            // Whoever gets into the run-off is verified again.
            Status::Ok => Ok(Verified { variant: record.variant.clone(), errors: Errors::default() }),
            status => {
                *self.failures.entry(status.name()).or_default() += 1;
                Err((Failed { status, reason: record.reason.clone() }, None))
            }
        };
        self.tried.insert(number, Candidate { evaluation, verified, time_us });
    }

    /// Returns the fastest so far, at most so many.
    fn best(&self, most: usize) -> Vec<usize> {
        let mut timed: Vec<(usize, f64)> =
            self.tried.iter().filter_map(|(number, candidate)| Some((*number, candidate.time_us?))).collect();
        timed.sort_by(|a, b| a.1.total_cmp(&b.1));
        timed.into_iter().take(most).map(|(number, _)| number).collect()
    }

    /// Verifies the best afresh, and on another input of a ragged length; what fails now is out, with a row that says so.
    fn finalists(&mut self) -> Result<Vec<usize>, Failure> {
        let mut finalists = self.best(FINALISTS + 1);
        finalists.retain(|&number| number != self.default);
        finalists.truncate(FINALISTS);
        let mut sound = Vec::new();
        for number in finalists {
            let config = self.configs[number].clone();
            let mut verified = self.bench.verify(number, &config, On::Input)?;
            if verified.is_ok()
                && let Err(elsewhere) = self.bench.verify(number, &config, On::OtherInput)?
            {
                verified = Err(elsewhere);
            }
            let Some(candidate) = self.tried.get_mut(&number) else { continue };
            candidate.verified = verified;
            let evaluation = candidate.evaluation;
            match candidate.verified.clone() {
                Ok(_) => sound.push(number),
                Err((failed, errors)) => {
                    let failure = Err((&failed, errors.as_ref()));
                    self.record(number, evaluation, Stage::Runoff, failure, &Series::default())?;
                }
            }
        }
        Ok(sound)
    }

    fn finalist(&self, paired: &Paired) -> Option<Finalist> {
        let Item::Candidate(number) = paired.item else { return None };
        let verified = self.tried.get(&number)?.verified.as_ref().ok()?;
        let config = &self.configs[number];
        let count = |name: &str| config.count(name).unwrap_or(1) as u64;
        Some(Finalist {
            number,
            finding: paired.finding,
            error: verified.errors.accuracy().kernel.rel_rmse,
            // Threads of a CPU, and what a tile keeps at hand.
            resources: count("threads")
                * count("stages")
                * count("block_n")
                * (count("block_m") + count("block_n")),
        })
    }

    /// Writes rows and comparisons of the run-off.
    fn keep(
        &mut self,
        paired: &[Paired],
        base: &Series,
        comparisons: &mut Vec<Comparison>,
    ) -> Result<(), Failure> {
        let rivals = paired.iter().filter_map(|paired| match paired.item {
            Item::Candidate(number) => Some((number, &paired.series, paired.finding)),
            _ => None,
        });
        for (number, series, finding) in [(self.default, base, None)].into_iter().chain(rivals) {
            if let Some(row) = self.row(number, Stage::Runoff, series) {
                self.push(&row)?;
            }
            if let Some(finding) = finding {
                self.compare(number, &finding, Stage::Runoff, comparisons)?;
            }
        }
        Ok(())
    }

    /// Writes what was found of one against the default.
    fn compare(
        &mut self,
        number: usize,
        finding: &Finding,
        stage: Stage,
        comparisons: &mut Vec<Comparison>,
    ) -> Result<(), Failure> {
        let line = {
            let variant = |number: usize| {
                let verified = self.tried.get(&number).and_then(|c| c.verified.as_ref().ok());
                verified.map_or("unknown", |verified| &verified.variant)
            };
            self.subject.comparison(variant(self.default), variant(number), finding, stage.name())
        };
        self.tuner.store.push_comparison(&line)?;
        self.tuner.view.comparison(&line);
        comparisons.push(line);
        Ok(())
    }

    /// Makes the row of one that was tried and is right.
    fn row(&self, number: usize, stage: Stage, series: &Series) -> Option<Record> {
        let candidate = self.tried.get(&number)?;
        let verified = Ok(candidate.verified.as_ref().ok()?);
        let (config, evaluation) = (&self.configs[number], candidate.evaluation);
        let trial = Trial { config, evaluation, stage, verified, series };
        Some(self.subject.row(trial, &self.clocks, &self.besides))
    }

    fn push(&mut self, row: &Record) -> Result<(), Failure> {
        if row.status != Status::Ok {
            *self.failures.entry(row.status.name()).or_default() += 1;
        }
        self.tuner.store.push(row)?;
        self.tuner.view.trial(row);
        Ok(())
    }

    fn record(
        &mut self,
        number: usize,
        evaluation: u64,
        stage: Stage,
        verified: Result<&Verified, (&Failed, Option<&Errors>)>,
        series: &Series,
    ) -> Result<(), Failure> {
        let config = &self.configs[number];
        let trial = Trial { config, evaluation, stage, verified, series };
        let row = self.subject.row(trial, &self.clocks, &self.besides);
        self.push(&row)
    }
}

/// Returns the configuration of a tuned record.
pub(super) fn config_in(record: &Record) -> Option<Parameters> {
    let config = &record.tuning.as_ref()?.config;
    let value = |value: &serde_json::Value| serde_json::from_value::<Value>(value.clone()).ok();
    let values = config.iter().map(|(name, v)| Some((name.clone(), value(v)?)));
    values.collect::<Option<BTreeMap<_, _>>>().map(Parameters)
}
