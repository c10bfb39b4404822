//! Reads `records.jsonl` back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::error::Category;

use crate::record::{Comparison, Line, Record, RunHeader, SCHEMA_VERSION};

/// Name of the file of records in a run folder.
pub const RECORDS_FILE: &str = "records.jsonl";

/// Longest line accepted. A trial with 100,000 samples stays below 4 MiB; what is longer is no line of records.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A run as read: its header and its trials.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The first line.
    pub header: RunHeader,
    /// The trials in the order written. Of two with the same [`Record::key`] the later one counts: it takes the
    /// place of the earlier.
    pub records: Vec<Record>,
    /// The comparisons in the order written.
    pub comparisons: Vec<Comparison>,
    /// Whether the file ends in an unfinished line, which is left out of `records`: the writer was stopped in the
    /// middle of it.
    pub torn: bool,
    /// Bytes of the file up to the end of the last whole line: truncate to this length before appending.
    pub whole_bytes: u64,
    /// The file that was read.
    pub path: PathBuf,
}

/// Why a run could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there.
    #[error(
        "{path}: no such file; expected a run folder with {RECORDS_FILE} in it, or that file itself. \
         Make one with `nabla sweep`, or check the path"
    )]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: cannot read: {source}; check permissions and the disk")]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No whole line.
    #[error(
        "{path}: empty; expected a header line and a line per trial. The run was stopped before it began: \
         delete the folder and sweep again"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Something else than records.
    #[error(
        "{path}: not a file of records: expected JSON lines that start with {{\"line\":\"header\", got {found}. \
         Give the folder that `nabla sweep` wrote"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The first bytes, made printable.
        found: String,
    },
    /// Another version of the format.
    #[error(
        "{path}: line format {found}, expected {SCHEMA_VERSION}; read it with the version of nabla that wrote it \
         ({written_by}), or sweep again"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u64,
        /// Program version in its header.
        written_by: String,
    },
    /// A line that cannot be understood, not the last.
    #[error("{path}:{line}: expected {expected}, got {got}. {fix}")]
    BrokenLine {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: u64,
        /// What should stand there.
        expected: &'static str,
        /// What is wrong with it.
        got: String,
        /// What to do.
        fix: &'static str,
    },
}

/// Reads a run from its folder, or from the file of records itself.
///
/// The first line is the header, each other one a trial or a comparison. A last line that is unfinished (without a newline, or not
/// JSON) is left out and flagged in [`Run::torn`]: that is what a killed writer leaves. Any other line that cannot
/// be understood is an error with its number.
pub fn read_run(path: &Path) -> Result<Run, ReadError> {
    let path = if path.is_dir() { path.join(RECORDS_FILE) } else { path.to_owned() };
    let file = File::open(&path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => ReadError::Missing { path: path.clone() },
        _ => ReadError::Io { path: path.clone(), source },
    })?;
    let mut lines = Lines { reader: BufReader::new(file), path: &path, number: 0 };

    let first = lines.next()?.ok_or_else(|| ReadError::Empty { path: path.clone() })?;
    let header = parse_header(&path, &first)?;
    let mut run = Run {
        header,
        records: Vec::new(),
        comparisons: Vec::new(),
        torn: false,
        whole_bytes: first.len() as u64,
        path: path.clone(),
    };

    let mut place = HashMap::new();
    let mut ahead = lines.next()?;
    while let Some(line) = ahead {
        let number = lines.number;
        ahead = lines.next()?;
        let is_last = ahead.is_none();
        if is_last && !line.ends_with(b"\n") {
            run.torn = true;
            break;
        }
        match serde_json::from_slice::<Line>(line.trim_ascii_end()) {
            Ok(Line::Trial(record)) => {
                run.whole_bytes += line.len() as u64;
                let next = run.records.len();
                match *place.entry(record.key()).or_insert(next) {
                    seen if seen < next => run.records[seen] = *record,
                    _ => run.records.push(*record),
                }
            }
            Ok(Line::Comparison(comparison)) => {
                run.whole_bytes += line.len() as u64;
                run.comparisons.push(*comparison);
            }
            Ok(Line::Header(_)) => {
                let (path, got) = (path.clone(), "a second header".to_owned());
                let fix = "Two runs were put into one file: give each a folder of its own";
                return Err(ReadError::BrokenLine { path, line: number, expected: "a trial", got, fix });
            }
            Err(error) if is_last && error.classify() != Category::Data => run.torn = true,
            Err(error) => return Err(broken_trial(&path, number, reason(&error))),
        }
    }
    Ok(run)
}

fn broken_trial(path: &Path, line: u64, got: String) -> ReadError {
    let fix = "Delete that line to report on the others";
    ReadError::BrokenLine { path: path.to_owned(), line, expected: "a trial", got, fix }
}

/// Returns the parser's reason without its own line number, which counts from the start of each line.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let bare = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if error.line() == 0 { bare } else { format!("{bare} (column {})", error.column()) }
}

/// What every version of the header has.
#[derive(Deserialize)]
struct AnyHeader {
    line: String,
    schema: u64,
    #[serde(default)]
    nabla_version: String,
}

fn parse_header(path: &Path, line: &[u8]) -> Result<RunHeader, ReadError> {
    let foreign = || ReadError::Foreign { path: path.to_owned(), found: printable(line) };
    let any = match serde_json::from_slice::<AnyHeader>(line) {
        Ok(any) if any.line == "header" => any,
        // A header that a killed writer did not finish: nothing was recorded behind it.
        Err(error)
            if error.is_eof() && !line.ends_with(b"\n") && line.starts_with(b"{\"line\":\"header\"") =>
        {
            return Err(ReadError::Empty { path: path.to_owned() });
        }
        _ => return Err(foreign()),
    };
    if any.schema != u64::from(SCHEMA_VERSION) {
        let written_by =
            if any.nabla_version.is_empty() { "version unknown".to_owned() } else { any.nabla_version };
        return Err(ReadError::Schema { path: path.to_owned(), found: any.schema, written_by });
    }
    match serde_json::from_slice::<Line>(line) {
        Ok(Line::Header(_)) if !line.ends_with(b"\n") => Err(ReadError::Empty { path: path.to_owned() }),
        Ok(Line::Header(header)) => Ok(*header),
        Ok(Line::Trial(_) | Line::Comparison(_)) => Err(foreign()),
        Err(error) => {
            let fix = "The header was edited or written by another program: sweep again";
            let (path, got) = (path.to_owned(), reason(&error));
            Err(ReadError::BrokenLine { path, line: 1, expected: "a header", got, fix })
        }
    }
}

/// Returns the start of a line so that any terminal can show it.
fn printable(line: &[u8]) -> String {
    let start = String::from_utf8_lossy(&line[..line.len().min(40)]);
    format!("{:?}", start.trim_end())
}

/// The lines of a file with their newlines; remembers the number of the last one returned.
struct Lines<'a> {
    reader: BufReader<File>,
    path: &'a Path,
    number: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let read = read.map_err(|source| ReadError::Io { path: self.path.to_owned(), source })?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if read as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            return Err(if self.number == 1 {
                ReadError::Foreign { path: self.path.to_owned(), found: printable(&line) }
            } else {
                broken_trial(self.path, self.number, format!("a line of over {MAX_LINE_BYTES} bytes"))
            });
        }
        Ok(Some(line))
    }
}
