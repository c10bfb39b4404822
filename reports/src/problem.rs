//! What trials must share for their times to be comparable.

use std::collections::BTreeMap;

use crate::format::count;
use crate::record::Record;

/// The problem of a trial: sizes, element type and where it ran. Times are compared only within one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// Tokens per head.
    pub seqlen: u64,
    /// Batch size.
    pub batch: u64,
    /// Heads.
    pub heads: u64,
    /// Elements per token and head.
    pub head_dim: u64,
    /// `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Frames, rows, columns of the token grid, if a video.
    pub grid: Option<[u64; 3]>,
    /// `cpu`, `cuda` or `emulator`.
    pub backend: String,
    /// Device model name.
    pub device: String,
    /// Hash of the input tensors: what a threshold keeps depends on them.
    pub input_hash: String,
}

impl Problem {
    /// Returns the problem of a record.
    pub fn of(record: &Record) -> Self {
        Self {
            seqlen: record.seqlen,
            batch: record.batch,
            heads: record.heads,
            head_dim: record.head_dim,
            dtype: record.dtype.clone(),
            grid: record.grid,
            backend: record.backend.clone(),
            device: record.device.clone(),
            input_hash: record.input_hash.clone(),
        }
    }

    /// Returns the same problem without its length, and without the grid and input that go with a length: trials of
    /// one family differ in sequence length alone.
    pub(crate) fn family(&self) -> Self {
        Self { seqlen: 0, grid: None, input_hash: String::new(), ..self.clone() }
    }

    fn parts(&self) -> [(String, String); 8] {
        let grid = self.grid.map(|[t, h, w]| format!("grid {t}×{h}×{w}")).unwrap_or_default();
        [
            (self.batch.to_string(), format!("batch {}", self.batch)),
            (self.heads.to_string(), format!("{} heads", self.heads)),
            (self.head_dim.to_string(), format!("D {}", self.head_dim)),
            (self.dtype.clone(), self.dtype.clone()),
            (grid.clone(), grid),
            (self.backend.clone(), self.backend.clone()),
            (self.device.clone(), self.device.clone()),
            (self.input_hash.clone(), format!("input {}", self.input_hash)),
        ]
    }
}

/// Returns a short name for each of the problems: what they share is left out.
///
/// The length is always named, then whatever tells problems of the same length apart or varies on its own. A grid
/// that the length implies is not repeated.
pub(crate) fn names(problems: &[Problem]) -> Vec<String> {
    let parts: Vec<_> = problems.iter().map(Problem::parts).collect();
    let says_more = |column: usize| {
        let mut seen: BTreeMap<u64, &str> = BTreeMap::new();
        problems.iter().zip(&parts).any(|(problem, parts)| {
            // A grid says more only where another grid has the same length.
            let among = if column == GRID_COLUMN { problem.seqlen } else { 0 };
            *seen.entry(among).or_insert(&parts[column].0) != parts[column].0
        })
    };
    let shown: Vec<usize> = (0..8).filter(|&column| says_more(column)).collect();
    problems
        .iter()
        .zip(&parts)
        .map(|(problem, parts)| {
            let mut name = format!("{} tokens", count(problem.seqlen));
            for &column in &shown {
                if !parts[column].1.is_empty() {
                    name.push_str(" · ");
                    name.push_str(&parts[column].1);
                }
            }
            name
        })
        .collect()
}

const GRID_COLUMN: usize = 4;

/// Returns the records of each problem, shortest problem first.
pub(crate) fn grouped<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> BTreeMap<Problem, Vec<&'a Record>> {
    // Records of one problem tend to stand together: a copy of its names for each of them would be most of the work.
    let mut groups: BTreeMap<Problem, Vec<&Record>> = BTreeMap::new();
    let mut run: Vec<&Record> = Vec::new();
    let mut flush = |run: &mut Vec<&'a Record>| {
        if let Some(first) = run.first() {
            groups.entry(Problem::of(first)).or_default().append(run);
        }
    };
    for record in records {
        if run.last().is_some_and(|last| !same_problem(last, record)) {
            flush(&mut run);
        }
        run.push(record);
    }
    flush(&mut run);
    groups
}

fn same_problem(a: &Record, b: &Record) -> bool {
    let sizes = |r: &Record| (r.seqlen, r.batch, r.heads, r.head_dim, r.grid);
    sizes(a) == sizes(b)
        && (&a.dtype, &a.backend, &a.device, &a.input_hash)
            == (&b.dtype, &b.backend, &b.device, &b.input_hash)
}
