//! Rounds of the race in flight, so that a kill at any time loses one of them and no more.
//!
//! A race becomes rows when it is over. Until then each of its rounds is a line of a file beside the log; a run that goes
//! on takes the rounds of the race that it was killed in from there. What is on its way to the disk survives a kill of the
//! process, so nothing is synced: after a loss of power the race is run again.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use nabla_host::parameters::Parameters;
use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    measure::{Failed, Item, Rounds, Sample, Timed},
};

/// Name of the file in a run folder.
const FILE: &str = "race.jsonl";

/// One round, as a line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Round {
    /// Which problem.
    problem: String,
    results: Vec<Entry>,
}

/// What a round gave for one configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    config: Parameters,
    #[serde(flatten)]
    timed: EntryResult,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EntryResult {
    Sample(Sample),
    Failed(Failed),
}

/// The file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// What an earlier part of the run left, oldest first.
    earlier: VecDeque<Round>,
}

impl Journal {
    /// Opens the journal of a run folder, with what a run that was cut short left there.
    ///
    /// # Errors
    /// When the file cannot be read or made.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let cannot = |error: io::Error| Failure::write(&path, &error);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(cannot(error)),
        };
        // A line that a kill tore is no round.
        let earlier = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(cannot)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(cannot)?;
        Ok(Self { file, earlier, path })
    }

    /// Returns the rounds of a problem's next race, which is one of `configs` by number.
    pub(crate) fn race<'a>(&'a mut self, problem: String, configs: &'a [Parameters]) -> Race<'a> {
        Race { journal: self, problem, configs }
    }

    /// Forgets all rounds: their race has become rows.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        self.earlier.clear();
        self.file.set_len(0).map_err(|error| Failure::write(&self.path, &error))
    }

    /// Removes the file of a run that is finished.
    pub(crate) fn remove(self) {
        // Whoever resumes a finished run finds nothing in it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The rounds of one race.
pub(crate) struct Race<'a> {
    journal: &'a mut Journal,
    problem: String,
    configs: &'a [Parameters],
}

impl Race<'_> {
    fn config(&self, item: Item) -> Option<&Parameters> {
        match item {
            Item::Candidate(number) => self.configs.get(number),
            _ => None,
        }
    }
}

impl Rounds for Race<'_> {
    fn earlier(&mut self, order: &[Item]) -> Option<Vec<Timed>> {
        let round = self.journal.earlier.front().filter(|round| round.problem == self.problem);
        let of = |item: &Item| {
            let config = self.config(*item)?;
            // Rows that a kill came between have left the race: a round may know more than is asked for.
            let entry = round?.results.iter().find(|entry| entry.config == *config)?;
            Some(match &entry.timed {
                EntryResult::Sample(sample) => Ok(*sample),
                EntryResult::Failed(failed) => Err(failed.clone()),
            })
        };
        let found: Option<Vec<Timed>> = order.iter().map(of).collect();
        match &found {
            Some(_) => drop(self.journal.earlier.pop_front()),
            // Another race: what is left is of no use to any.
            None => self.journal.earlier.clear(),
        }
        found
    }

    fn keep(&mut self, order: &[Item], results: &[Timed]) -> Result<(), Failure> {
        let entries = order.iter().zip(results).filter_map(|(item, timed)| {
            let timed = match timed {
                Ok(sample) => EntryResult::Sample(*sample),
                Err(failed) => EntryResult::Failed(failed.clone()),
            };
            Some(Entry { config: self.config(*item)?.clone(), timed })
        });
        let round = Round { problem: self.problem.clone(), results: entries.collect() };
        let mut line = serde_json::to_vec(&round).unwrap_or_default();
        line.push(b'\n');
        self.journal.file.write_all(&line).map_err(|error| Failure::write(&self.journal.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use nabla_host::conditions::Conditions;
    use nabla_reports::Status;

    use super::*;

    fn configs() -> Vec<Parameters> {
        [16usize, 32, 64].iter().map(|&m| Parameters::default().with("block_m", m)).collect()
    }

    fn sample(time_us: f64) -> Timed {
        Ok(Sample { time_us, conditions: Conditions { clock_mhz: Some(2e3), waited_us: None, others: 0 } })
    }

    const ALL: [Item; 3] = [Item::Candidate(0), Item::Candidate(1), Item::Candidate(2)];

    #[test]
    fn a_killed_race_finds_its_rounds_in_whatever_order_it_asks() {
        let (folder, configs) = (tempfile::tempdir().unwrap(), configs());
        let failed = Failed { status: Status::Timeout, reason: "hung".into() };
        let rounds =
            [[sample(1.0), sample(2.5), Err(failed.clone())], [sample(1.5), sample(2.0), sample(3.0)]];
        let mut journal = Journal::open(folder.path()).unwrap();
        for round in &rounds {
            journal.race("p".into(), &configs).keep(&ALL, round).unwrap();
        }
        drop(journal);
        let path = folder.path().join(FILE);
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"{\"problem\":\"p\",\"res");
        std::fs::write(&path, torn).unwrap();

        let mut journal = Journal::open(folder.path()).unwrap();
        let mut race = journal.race("p".into(), &configs);
        assert_eq!(race.earlier(&[ALL[2], ALL[0]]), Some(vec![Err(failed), sample(1.0)]));
        assert_eq!(race.earlier(&[ALL[1]]), Some(vec![sample(2.0)]));
        assert_eq!(race.earlier(&[ALL[1]]), None);
        // The torn line is gone: the next one stands by itself.
        race.keep(&ALL[..1], &[sample(9.0)]).unwrap();
        assert_eq!(Journal::open(folder.path()).unwrap().earlier.len(), 3);
    }

    #[test]
    fn rounds_of_another_race_are_not_taken() {
        let (folder, configs) = (tempfile::tempdir().unwrap(), configs());
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.race("p".into(), &configs).keep(&ALL[..2], &[sample(1.0), sample(2.0)]).unwrap();
        let reopened = || Journal::open(folder.path()).unwrap();
        assert_eq!(reopened().race("q".into(), &configs).earlier(&ALL[..1]), None);
        assert_eq!(reopened().race("p".into(), &configs).earlier(&ALL), None);
        assert_eq!(reopened().race("p".into(), &configs).earlier(&ALL[..1]), Some(vec![sample(1.0)]));
        journal.clear().unwrap();
        assert_eq!(reopened().race("p".into(), &configs).earlier(&ALL[..1]), None);
    }
}
