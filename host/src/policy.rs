//! Mask policies, by the strings of the published code.

use std::{fmt, str::FromStr};

use crate::{Grid, ParseError, token_order::BlockLayout};

/// A Sliding Tile Attention window on the grid of blocks: keeps |dt| <= t/2, |dh| <= h/2, |dw| <= w/2 with
/// integer division and no clamping at the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StaWindow {
    /// Extent over frames.
    pub t: usize,
    /// Extent over block rows.
    pub h: usize,
    /// Extent over block columns.
    pub w: usize,
}

impl StaWindow {
    fn keeps(self, grid: Grid, query: usize, key: usize) -> bool {
        let place = |block: usize| (block / (grid.h * grid.w), block / grid.w % grid.h, block % grid.w);
        let ((qt, qh, qw), (kt, kh, kw)) = (place(query), place(key));
        qt.abs_diff(kt) <= self.t / 2 && qh.abs_diff(kh) <= self.h / 2 && qw.abs_diff(kw) <= self.w / 2
    }
}

/// Decides which key blocks each query block attends to.
///
/// Strings: `dense`, `nabla-0.7` (keep the probability mass 0.7 of the pooled map, arXiv 2507.13546),
/// `sta-11-3-3` (a window of 11 frames, 3 block rows, 3 block columns, arXiv 2502.04507), and the union
/// `nabla-0.6_sta-11-3-3`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// Every block.
    Dense,
    /// Blocks chosen by the pooled attention map and a static window, at least one of them present.
    Sparse {
        /// Share of each row's pooled attention to keep, 0..=1: higher is denser.
        mass: Option<f64>,
        /// Window of blocks kept in any case.
        window: Option<StaWindow>,
    },
}

/// A policy that does not fit the problem it is used on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy '{policy}' needs {needs}, got {got}")]
pub struct PolicyError {
    policy: String,
    needs: &'static str,
    got: String,
}

impl Policy {
    /// Makes the plain NABLA policy that keeps the probability mass `mass`.
    pub fn nabla(mass: f64) -> Self {
        Policy::Sparse { mass: Some(mass), window: None }
    }

    /// Returns the share of pooled attention the policy keeps, if it has such a threshold.
    pub fn mass(&self) -> Option<f64> {
        match self {
            Policy::Dense => None,
            Policy::Sparse { mass, .. } => *mass,
        }
    }

    /// Returns the blocks the policy keeps whatever the data: bit `j % 64` of word `i * words + j / 64` for query
    /// block `i` and key block `j`, `words = ceil(kv_blocks / 64)`; `None` when it has no static part.
    ///
    /// # Errors
    /// When the policy has a window but the tokens have no grid, or queries and keys are cut differently.
    pub fn static_bitmap(&self, q: &BlockLayout, kv: &BlockLayout) -> Result<Option<Vec<u64>>, PolicyError> {
        let Policy::Sparse { window: Some(window), .. } = self else { return Ok(None) };
        let error = |needs, got: String| PolicyError { policy: self.to_string(), needs, got };
        let grid = match (q.block_grid(), kv.block_grid()) {
            (Some(a), Some(b)) if a == b => a,
            (Some(a), Some(b)) => {
                return Err(error(
                    "queries and keys cut into the same blocks",
                    format!("{a} and {b} blocks"),
                ));
            }
            _ => {
                return Err(error(
                    "a token grid (T,H,W in the file's metadata or --grid)",
                    "a plain sequence".to_owned(),
                ));
            }
        };
        let words = kv.blocks().div_ceil(64);
        let mut bits = vec![0u64; q.blocks() * words];
        for (i, row) in bits.chunks_exact_mut(words).enumerate() {
            for j in (0..kv.blocks()).filter(|&j| window.keeps(grid, i, j)) {
                row[j / 64] |= 1 << (j % 64);
            }
        }
        Ok(Some(bits))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Dense => f.write_str("dense"),
            Policy::Sparse { mass, window } => {
                if let Some(mass) = mass {
                    write!(f, "nabla-{mass}")?;
                }
                if let Some(StaWindow { t, h, w }) = window {
                    let join = if mass.is_some() { "_" } else { "" };
                    write!(f, "{join}sta-{t}-{h}-{w}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Policy {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let error = || {
            ParseError::new(
                "a policy: dense, nabla-MASS with MASS in 0..=1, sta-T-H-W, or both joined by '_' \
                 (for example nabla-0.7, sta-11-3-3, nabla-0.6_sta-11-3-3)",
                s,
            )
        };
        if s == "dense" {
            return Ok(Policy::Dense);
        }
        let (mut mass, mut window) = (None, None);
        for part in s.split('_') {
            if let Some(value) = part.strip_prefix("nabla-") {
                let value: f64 = value.parse().map_err(|_| error())?;
                if mass.is_some() || !(0.0..=1.0).contains(&value) {
                    return Err(error());
                }
                mass = Some(value);
            } else if let Some(extents) = part.strip_prefix("sta-") {
                let extents: Vec<usize> =
                    extents.split('-').map(|e| e.parse().map_err(|_| error())).collect::<Result<_, _>>()?;
                let [t, h, w] = extents[..] else { return Err(error()) };
                if window.is_some() || [t, h, w].contains(&0) {
                    return Err(error());
                }
                window = Some(StaWindow { t, h, w });
            } else {
                return Err(error());
            }
        }
        Ok(Policy::Sparse { mass, window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_order::TokenOrder;

    #[test]
    fn published_strings_read_as_they_are_written() {
        for text in ["dense", "nabla-0.7", "sta-11-3-3", "nabla-0.6_sta-11-3-3"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_policies_are_refused() {
        for text in [
            "",
            "nabla",
            "nabla-",
            "nabla-1.1",
            "nabla--0.1",
            "nabla-NaN",
            "sta-3-3",
            "sta-0-3-3",
            "sta-3-3-3-3",
            "nabla-0.5_nabla-0.6",
            "topk-5",
            "dense_sta-3-3-3",
            "sta-99999999999999999999-1-1",
        ] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_is_not_clamped_at_the_edges() {
        let order = TokenOrder::fractal(Grid { t: 1, h: 8, w: 32 }, 64).unwrap();
        let policy: Policy = "sta-1-1-3".parse().unwrap();
        let bits = policy.static_bitmap(order.layout(), order.layout()).unwrap().unwrap();
        assert_eq!(bits, [0b0011, 0b0111, 0b1110, 0b1100]);
    }

    #[test]
    fn a_window_without_a_grid_says_what_to_do() {
        let order = TokenOrder::linear(256, 64).unwrap();
        let policy: Policy = "sta-1-1-3".parse().unwrap();
        let message = policy.static_bitmap(order.layout(), order.layout()).unwrap_err().to_string();
        assert!(message.contains("--grid"), "{message}");
    }
}
