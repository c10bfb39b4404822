//! What trials must share for their times to be comparable.

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
        }
    }

    /// Returns the same problem without its length (and the grid that makes the length): trials of one family
    /// differ in sequence length alone.
    pub(crate) fn family(&self) -> Self {
        Self { seqlen: 0, grid: None, ..self.clone() }
    }

    fn parts(&self) -> [(String, String); 7] {
        let grid = self.grid.map(|[t, h, w]| format!("grid {t}×{h}×{w}")).unwrap_or_default();
        [
            (self.batch.to_string(), format!("batch {}", self.batch)),
            (self.heads.to_string(), format!("{} heads", self.heads)),
            (self.head_dim.to_string(), format!("D {}", self.head_dim)),
            (self.dtype.clone(), self.dtype.clone()),
            (grid.clone(), grid),
            (self.backend.clone(), self.backend.clone()),
            (self.device.clone(), self.device.clone()),
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
        (0..problems.len()).any(|i| {
            (0..i).any(|j| {
                parts[i][column].0 != parts[j][column].0
                    && (column != GRID_COLUMN || problems[i].seqlen == problems[j].seqlen)
            })
        })
    };
    let shown: Vec<usize> = (0..7).filter(|&column| says_more(column)).collect();
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

/// Returns the distinct problems among the records, shortest first.
pub(crate) fn distinct<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Problem> {
    let mut problems: Vec<_> = records.into_iter().map(Problem::of).collect();
    problems.sort();
    problems.dedup();
    problems
}
