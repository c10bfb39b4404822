//! Several runs as one set of records, kept apart by device: times of two devices never meet in a figure.
//!
//! Owns which runs may be read together and what a reader has to be told about that. It reads no file.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::format::{count, plural};
use crate::masks::MaskPicture;
use crate::read::Run;
use crate::record::{Comparison, Machine, Record, RunHeader, Status};

/// Where records came from: a run without its records.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The header of the run.
    pub header: RunHeader,
    /// The file it was read from.
    pub path: PathBuf,
    /// Whether its last line was cut short.
    pub torn: bool,
    /// Trials it holds.
    pub trials: usize,
    /// Comparisons it holds.
    pub comparisons: usize,
    /// Samples its trials threw away.
    pub rejected_samples: u64,
}

/// What one device did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceRecords {
    /// `cpu`, `cuda` or `emulator`.
    pub backend: String,
    /// Device model name.
    pub device: String,
    /// What the device can do, as far as its runs say.
    pub machine: Machine,
    /// Its trials.
    pub records: Vec<Record>,
    /// Its comparisons.
    pub comparisons: Vec<Comparison>,
    /// The line at the foot of its figures: device, commit, toolchain.
    pub foot: String,
}

/// Everything a report is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collection {
    /// The runs, in the order given.
    pub sources: Vec<Source>,
    /// Their records by device; never empty if there is a run.
    pub devices: Vec<DeviceRecords>,
    /// Masks to draw beside the records.
    pub masks: Vec<MaskPicture>,
    /// Trials left out because a later run has the same.
    pub replaced: usize,
}

impl Collection {
    /// Puts runs together.
    ///
    /// Of trials with the same [`Record::key`] on one device, on one input, that of the run started last counts.
    pub fn new(runs: Vec<Run>) -> Self {
        let mut all = Self::default();
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by(|&a, &b| runs[a].header.started.cmp(&runs[b].header.started));
        let mut runs: Vec<_> = runs.into_iter().map(Some).collect();
        all.sources = runs.iter().flatten().map(Source::of).collect();
        let mut places: HashMap<String, (usize, usize)> = HashMap::new();
        let several = runs.len() > 1;
        for run in order.into_iter().filter_map(|n| runs[n].take()) {
            let Run { header, records, comparisons, .. } = run;
            let identity = &header.identity;
            let own = all.device(&identity.backend, &identity.device);
            all.devices[own].take_machine(&header);
            for record in records {
                let device = all.device(&record.backend, &record.device);
                let to = &mut all.devices[device].records;
                if several {
                    let key = format!("{}|{}|{}|{}", device, record.input_hash, record.seed, record.key());
                    if let Some(&(_, at)) = places.get(&key) {
                        to[at] = record;
                        all.replaced += 1;
                        continue;
                    }
                    places.insert(key, (device, to.len()));
                }
                to.push(record);
            }
            for comparison in comparisons {
                let device = all.device(&comparison.backend, &comparison.device);
                let to = &mut all.devices[device].comparisons;
                // The same file given twice.
                if !several || !to.contains(&comparison) {
                    to.push(comparison);
                }
            }
        }
        // A run on a device whose trials all name another device, or a run that recorded nothing.
        if all.devices.len() > 1 {
            all.devices.retain(|d| !d.records.is_empty() || !d.comparisons.is_empty());
        }
        all.devices.sort_by(|a, b| (&a.device, &a.backend).cmp(&(&b.device, &b.backend)));
        for device in &mut all.devices {
            device.foot = foot(device, &all.sources);
        }
        all
    }

    fn device(&mut self, backend: &str, device: &str) -> usize {
        let same = |d: &DeviceRecords| d.backend == backend && d.device == device;
        self.devices.iter().position(same).unwrap_or_else(|| {
            let (backend, device) = (backend.to_owned(), device.to_owned());
            self.devices.push(DeviceRecords { backend, device, ..DeviceRecords::default() });
            self.devices.len() - 1
        })
    }

    /// Returns every record, device by device.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.devices.iter().flat_map(|d| &d.records)
    }

    /// Returns what a reader has to know before any number.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.devices.len() > 1 {
            let names: Vec<_> =
                self.devices.iter().map(|d| format!("{} ({})", d.device, d.backend)).collect();
            warnings.push(format!(
                "This report holds {} devices: {}. Each has figures of its own; do not compare times across them.",
                self.devices.len(),
                names.join(", ")
            ));
        }
        let mut said: BTreeMap<&str, usize> = BTreeMap::new();
        for text in self.sources.iter().flat_map(|s| &s.header.warnings) {
            *said.entry(text).or_default() += 1;
        }
        let runs = self.sources.len();
        warnings.extend(said.into_iter().map(|(text, n)| match n == runs {
            true => text.to_owned(),
            false => format!("{text} ({n} of {runs} runs)"),
        }));
        if self.devices.iter().any(|d| d.backend == "emulator") {
            warnings.push(
                "Emulated records count instructions on a CPU: their times say nothing about a GPU."
                    .to_owned(),
            );
        }
        for (what, values) in self.differences() {
            warnings.push(format!("The runs differ in {what}: {}.", values.join(", ")));
        }
        if self.replaced > 0 {
            let trials = plural(self.replaced, "trial is", "trials are");
            warnings.push(format!("{trials} in several runs; the run started last counts."));
        }
        let contended = self.records().filter(|r| is_contended(r)).count();
        if contended > 0 {
            warnings.push(format!(
                "{} timed while something else used the device; their times are kept out of the figures.",
                plural(contended, "trial was", "trials were")
            ));
        }
        let torn = self.sources.iter().filter(|s| s.torn).count();
        if torn > 0 {
            let runs =
                if runs == 1 { "The run was".to_owned() } else { plural(torn, "run was", "runs were") };
            warnings.push(format!(
                "{runs} stopped in the middle of writing a trial; that last line is left out. `--resume` takes it up again."
            ));
        }
        warnings
    }

    /// Returns what changed between the runs of one device though it changes their times.
    fn differences(&self) -> Vec<(&'static str, Vec<String>)> {
        type Fact = (&'static str, fn(&RunHeader) -> String);
        const FACTS: [Fact; 5] = [
            ("input", |h| format!("{} [{}]", h.identity.input, h.identity.input_hash)),
            ("kernel sources", |h| h.identity.source_hash.clone()),
            ("toolchain", |h| h.identity.toolchain.clone()),
            ("driver", |h| h.identity.driver.clone().unwrap_or_else(|| "none".to_owned())),
            ("threads", |h| h.identity.threads.map_or_else(|| "unknown".to_owned(), count)),
        ];
        let mut found = Vec::new();
        for (what, fact) in FACTS {
            let mut by_device: BTreeMap<_, Vec<String>> = BTreeMap::new();
            for Source { header, .. } in &self.sources {
                let values =
                    by_device.entry((&header.identity.backend, &header.identity.device)).or_default();
                let value = fact(header);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            found.extend(by_device.into_values().filter(|v| v.len() > 1).map(|values| (what, values)));
        }
        found
    }
}

impl Source {
    fn of(run: &Run) -> Self {
        let rejected = run.records.iter().filter_map(|r| Some(r.tuning.as_ref()?.rejected_samples));
        Self {
            header: run.header.clone(),
            path: run.path.clone(),
            torn: run.torn,
            trials: run.records.len(),
            comparisons: run.comparisons.len(),
            rejected_samples: rejected.sum(),
        }
    }
}

impl DeviceRecords {
    /// Takes over what a run's header knows of the device; a later run's word replaces an earlier one's.
    fn take_machine(&mut self, header: &RunHeader) {
        let Some(machine) = &header.machine else { return };
        self.machine.peak_tflops.extend(machine.peak_tflops.clone());
        if !machine.peak_source.is_empty() {
            self.machine.peak_source.clone_from(&machine.peak_source);
        }
        self.machine.bandwidth_gb_per_s = machine.bandwidth_gb_per_s.or(self.machine.bandwidth_gb_per_s);
        if machine.clocks.is_some() {
            self.machine.clocks.clone_from(&machine.clocks);
        }
    }
}

/// Returns whether something else used the device while a trial was timed.
pub(crate) fn is_contended(record: &Record) -> bool {
    record.status == Status::Contended || record.tuning.as_ref().is_some_and(|t| t.contended)
}

/// Returns the line at the foot of a device's figures.
fn foot(device: &DeviceRecords, sources: &[Source]) -> String {
    let own: Vec<&RunHeader> = sources
        .iter()
        .map(|s| &s.header)
        .filter(|h| h.identity.backend == device.backend && h.identity.device == device.device)
        .collect();
    let all = |fact: fn(&RunHeader) -> &str| {
        let mut values: Vec<_> = own.iter().map(|h| fact(h)).collect();
        values.sort_unstable();
        values.dedup();
        match values[..] {
            [] => String::new(),
            [one] => one.to_owned(),
            [first, ..] => format!("{first} and {} more", values.len() - 1),
        }
    };
    let mut foot = format!("{} ({})", device.device, device.backend);
    let driver = all(|h| h.identity.driver.as_deref().unwrap_or_default());
    for (name, value) in [
        ("driver ", driver),
        ("", all(|h| &h.identity.toolchain)),
        ("commit ", all(|h| &h.identity.git_commit)),
        ("", all(|h| h.started.split('T').next().unwrap_or_default())),
    ] {
        if !value.is_empty() {
            foot.push_str(&format!(" · {name}{value}"));
        }
    }
    foot
}
