//! The run's log: append-only JSON lines, each durable before the next trial starts.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use nabla_reports::{Comparison, Identity, Line, RECORDS_FILE, Record, Run, RunHeader, read_run};

use crate::failure::{Failure, Kind};

/// An open log.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    file: File,
}

impl Store {
    /// Starts a log with its header line in a folder that has none.
    pub(crate) fn create(folder: &Path, header: &RunHeader) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|e| Failure::write(folder, &e))?;
        let path = folder.join(RECORDS_FILE);
        let file =
            OpenOptions::new().append(true).create_new(true).open(&path).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => Failure::new(
                    Kind::Usage,
                    format!(
                        "{} holds a run already; continue it with --resume {}, or choose another --out",
                        folder.display(),
                        folder.display()
                    ),
                ),
                _ => Failure::write(&path, &e),
            })?;
        let mut store = Self { path, file };
        store.append(&Line::Header(Box::new(header.clone())))?;
        Ok(store)
    }

    /// Opens the log of a run that was cut short, dropping a torn last line.
    ///
    /// The run's identity must be `identity` but for the commit, which each record carries itself.
    pub(crate) fn resume(folder: &Path, identity: &Identity) -> Result<(Self, Run), Failure> {
        let run = read_run(folder)?;
        let theirs = Identity { git_commit: identity.git_commit.clone(), ..run.header.identity.clone() };
        if theirs != *identity {
            return Err(Failure::new(
                Kind::Input,
                format!(
                    "the run in {} was made by something else; expected the same identity, got\n{}\nstart a new run \
                     instead",
                    folder.display(),
                    differences(&theirs, identity)
                ),
            ));
        }
        let path = folder.join(RECORDS_FILE);
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| Failure::write(&path, &e))?;
        // A torn last line goes, or the next row would be glued to it.
        file.set_len(run.whole_bytes)
            .and_then(|()| file.sync_data())
            .map_err(|e| Failure::write(&path, &e))?;
        Ok((Self { path, file }, run))
    }

    /// Appends a trial and makes it durable.
    pub(crate) fn push(&mut self, record: &Record) -> Result<(), Failure> {
        self.append(&Line::Trial(Box::new(record.clone())))
    }

    /// Appends a comparison and makes it durable.
    pub(crate) fn push_comparison(&mut self, comparison: &Comparison) -> Result<(), Failure> {
        self.append(&Line::Comparison(Box::new(comparison.clone())))
    }

    fn append(&mut self, line: &Line) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let mut text = serde_json::to_vec(line)?;
            text.push(b'\n');
            // One write call: a kill leaves whole lines and at most one torn one at the end.
            (&self.file).write_all(&text)?;
            self.file.sync_data()
        };
        write().map_err(|e| Failure::write(&self.path, &e))
    }
}

fn differences(theirs: &Identity, ours: &Identity) -> String {
    let fields = |identity: &Identity| match serde_json::to_value(identity) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (theirs, ours) = (fields(theirs), fields(ours));
    // What is empty is not written.
    let shown =
        |value: Option<&serde_json::Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differing = names.into_iter().filter(|name| theirs.get(*name) != ours.get(*name));
    let lines: Vec<String> = differing
        .map(|name| {
            format!("  {name}: {} in the run, {} here", shown(theirs.get(name)), shown(ours.get(name)))
        })
        .collect();
    lines.join("\n")
}
