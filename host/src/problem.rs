//! What is computed: sizes and types, never data.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Storage type of Q, K and V; accumulation is f32 whatever the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// Returns the name used in options, records and variant ids.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Returns the size of one element in bytes.
    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// Returns the unit roundoff: half the distance between 1 and the next representable value.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            Dtype::F32 => 2f64.powi(-24),
            Dtype::F16 => 2f64.powi(-11),
            Dtype::Bf16 => 2f64.powi(-8),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that does not name what it should; says what was expected and got.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got '{got}'")]
pub struct ParseError {
    /// The accepted form.
    pub expected: String,
    /// The text given.
    pub got: String,
}

impl ParseError {
    /// Makes an error from the accepted form and the text given.
    pub fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into() }
    }
}

impl FromStr for Dtype {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        match s {
            "f32" => Ok(Dtype::F32),
            "f16" => Ok(Dtype::F16),
            "bf16" => Ok(Dtype::Bf16),
            _ => Err(ParseError::new("one of f32, f16, bf16", s)),
        }
    }
}

/// Frames, rows and columns of a video's token grid. Raster order runs columns fastest, frames slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// Frames.
    pub t: usize,
    /// Rows of tokens in a frame.
    pub h: usize,
    /// Columns of tokens in a frame.
    pub w: usize,
}

impl Grid {
    /// Makes a grid; every extent must be at least 1 and the number of tokens must fit `u32`.
    ///
    /// # Errors
    /// When an extent is 0 or there are too many tokens.
    pub fn new(t: usize, h: usize, w: usize) -> Result<Self, ParseError> {
        let tokens = t.checked_mul(h).and_then(|x| x.checked_mul(w));
        match tokens {
            Some(n) if n > 0 && u32::try_from(n).is_ok() => Ok(Self { t, h, w }),
            _ => Err(ParseError::new(
                "a grid of T,H,W tokens, each at least 1, at most 4294967295 in all",
                format!("{t},{h},{w}"),
            )),
        }
    }

    /// Returns the number of tokens.
    pub fn tokens(self) -> usize {
        self.t * self.h * self.w
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.t, self.h, self.w)
    }
}

impl FromStr for Grid {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("a grid as T,H,W, for example 4,32,32", s);
        let extents: Vec<usize> =
            s.split(',').map(|part| part.trim().parse().map_err(|_| error())).collect::<Result<_, _>>()?;
        match extents[..] {
            [t, h, w] => Grid::new(t, h, w),
            _ => Err(error()),
        }
    }
}

/// Sizes and types of one attention problem.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Batch size B.
    pub batch: usize,
    /// Heads H.
    pub heads: usize,
    /// Query tokens per head.
    pub seqlen_q: usize,
    /// Key tokens per head.
    pub seqlen_k: usize,
    /// Elements per token and head, D.
    pub head_dim: usize,
    /// Storage type of Q, K and V.
    pub dtype: Dtype,
    /// Factor on the scores before the softmax; 1/sqrt(D) unless said otherwise.
    pub softmax_scale: f32,
    /// Token grid, if the tokens are those of a video; its tokens are then both seqlen_q and seqlen_k.
    pub grid: Option<Grid>,
}

impl Problem {
    /// Returns batch times heads.
    pub fn batch_heads(&self) -> usize {
        self.batch * self.heads
    }

    /// Returns the usual score factor 1/sqrt(D).
    pub fn default_scale(head_dim: usize) -> f32 {
        1.0 / (head_dim as f32).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_reads_as_it_is_written() {
        let grid: Grid = "4,32,32".parse().unwrap();
        assert_eq!(grid, Grid { t: 4, h: 32, w: 32 });
        assert_eq!(grid.to_string(), "4,32,32");
    }

    #[test]
    fn bad_grids_say_what_is_expected() {
        for bad in ["", "4,32", "4,32,32,1", "0,8,8", "a,b,c", "65536,65536,1"] {
            let message = bad.parse::<Grid>().unwrap_err().to_string();
            assert!(message.contains("T,H,W"), "{bad}: {message}");
        }
    }
}
