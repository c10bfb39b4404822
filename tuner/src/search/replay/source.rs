//! Files of finished measurements: which kind one is, and what is wrong with it.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use nabla_reports::ReadError;
use serde_json::Value as Json;

use super::{Recording, kernel_tuner, records, t4};
use crate::search::space::Value;

/// Most bytes of text a file may hold, unpacked.
const MAX_BYTES: u64 = 1 << 30;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}; expected a Kernel Tuner cache file, a T4 file or records.jsonl", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is none of the formats, or not a whole one.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what is there.
        message: String,
    },
    /// It is a run of this program that cannot be read.
    #[error(transparent)]
    Records(#[from] ReadError),
}

/// Reads the recordings of a file: one of Kernel Tuner's cache or a T4 file, either packed by gzip, or one for each
/// problem and policy of a run of this program (its folder or `records.jsonl`).
///
/// # Errors
/// When it cannot be read, is of no known format, or holds nothing to search.
pub(crate) fn read(path: &Path) -> Result<Vec<Recording>, ReplayError> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "jsonl") {
        let run = nabla_reports::read_run(path)?;
        return records::recordings(&run.records).map_err(|message| format_error(path, message));
    }
    let bytes = unpacked(path)?;
    let found: Kind = serde_json::from_slice(&bytes).map_err(|error| {
        format_error(path, format!("expected the JSON of a Kernel Tuner cache or T4 file, got {error}"))
    })?;
    let recording = match (found.cache, found.results) {
        (Some(_), _) => kernel_tuner::parse(&bytes),
        (None, Some(_)) => t4::parse(&bytes, &stem(path)),
        (None, None) => {
            Err("expected the key `cache` (Kernel Tuner) or `results` (T4), got neither".to_owned())
        }
    };
    recording.map(|recording| vec![recording]).map_err(|message| format_error(path, message))
}

/// The keys that tell formats apart; their contents are skipped.
#[derive(serde::Deserialize)]
struct Kind {
    cache: Option<serde::de::IgnoredAny>,
    results: Option<serde::de::IgnoredAny>,
}

fn format_error(path: &Path, message: String) -> ReplayError {
    ReplayError::Format { path: path.to_owned(), message }
}

/// Returns the name of a file without its endings.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Reads a file, unpacking it if it starts as gzip does.
fn unpacked(path: &Path) -> Result<Vec<u8>, ReplayError> {
    let unreadable = |source| ReplayError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut magic = Vec::new();
    reader.by_ref().take(2).read_to_end(&mut magic).map_err(unreadable)?;
    let whole = magic.as_slice().chain(reader);
    let mut bytes = Vec::new();
    let read = if magic == [0x1f, 0x8b] {
        MultiGzDecoder::new(whole).take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        whole.take(MAX_BYTES + 1).read_to_end(&mut bytes)
    };
    read.map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format_error(path, format!("expected at most {MAX_BYTES} bytes unpacked, got more")));
    }
    Ok(bytes)
}

/// Returns the value of a tuning parameter.
pub(super) fn value(json: &Json) -> Result<Value, String> {
    match json {
        Json::Bool(value) => Ok(Value::Bool(*value)),
        Json::String(text) => Ok(Value::Text(text.clone())),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Value::Int(value)),
            (None, Some(value)) => Ok(Value::Real(value)),
            (None, None) => Err(format!("expected a number that fits 64 bits, got {number}")),
        },
        other => {
            Err(format!("expected a number, a text, true or false as value of a parameter, got {other}"))
        }
    }
}
