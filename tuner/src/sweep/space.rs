//! What a sweep covers.

use nabla_host::{
    Policy, Problem,
    backend::{Backend, Orders},
    policy::PolicyError,
    token_order::Arrangement,
    variant::{MaskBlock, TileConfig},
};
use serde::Serialize;

use crate::{
    cli::SweepArgs,
    failure::{Failure, Kind},
};

/// The axes of a sweep. Trials are their product, in groups of one length and policy.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    /// Frames kept of the input, ascending; `None` is the whole of an input without a grid.
    pub(crate) lengths: Vec<Option<usize>>,
    /// Policies, `dense` first: its best tile is the baseline of the others.
    pub(crate) policies: Vec<Policy>,
    /// Mask blocks.
    pub(crate) blocks: Vec<MaskBlock>,
    /// Compute tiles.
    pub(crate) tiles: Vec<TileConfig>,
}

/// One configuration of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    /// Mask block; `None` for dense.
    pub(crate) block: Option<MaskBlock>,
    /// Compute tile.
    pub(crate) tile: TileConfig,
}

/// The stored form of a space, for its hash.
#[derive(Serialize)]
struct Stored {
    lengths: Vec<Option<usize>>,
    policies: Vec<String>,
    blocks: Vec<usize>,
    tiles: Vec<String>,
    rounds: u32,
    error_rows: Option<usize>,
}

impl Space {
    /// Makes the space the options describe.
    pub(crate) fn new(args: &SweepArgs, problem: &Problem, backend: &dyn Backend) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(Kind::Usage, message);
        let lengths = lengths(args.frames.as_deref(), problem).map_err(usage)?;
        let mut policies = vec![Policy::dense()];
        policies.extend(args.policies.all()?);
        let mut unique: Vec<Policy> = Vec::new();
        for policy in policies {
            if !unique.contains(&policy) {
                unique.push(policy);
            }
        }
        let extents = |given: &Option<Vec<usize>>, pick: fn(&TileConfig) -> usize| -> Vec<usize> {
            let mut values =
                given.clone().unwrap_or_else(|| backend.tiles(problem).iter().map(pick).collect());
            values.sort_unstable();
            values.dedup();
            values
        };
        let block_n = extents(&args.block_n, |t| t.block_n);
        let tiles: Vec<TileConfig> = extents(&args.block_m, |t| t.block_m)
            .into_iter()
            .flat_map(|block_m| block_n.iter().map(move |&block_n| TileConfig { block_m, block_n }))
            .collect();
        let mut blocks: Vec<MaskBlock> = args.blocks.iter().map(|&b| MaskBlock::square(b)).collect();
        blocks.sort_unstable();
        blocks.dedup();
        // What fits no length is told before anything runs.
        for &block in &blocks {
            for policy in unique.iter().filter(|policy| unique.len() == 1 || !policy.is_dense()) {
                let orders = Orders::arranged(problem, block, &policy.arrangement(problem)?)?;
                policy.check(problem.batch_heads(), &orders)?;
            }
        }
        if blocks.is_empty() || tiles.is_empty() {
            return Err(usage("the space is empty: give at least one mask block and one tile".into()));
        }
        Ok(Self { lengths, policies: unique, blocks, tiles })
    }

    /// Returns the order of tokens that the first policy with a mask is about; dense launches do in any.
    pub(crate) fn first_arrangement(&self, problem: &Problem) -> Result<Arrangement, PolicyError> {
        let first = self.policies.iter().find(|policy| !policy.is_dense());
        first.map_or(Ok(Arrangement::Patches), |policy| policy.arrangement(problem))
    }

    /// Returns the configurations of one policy.
    pub(crate) fn configs(&self, policy: &Policy) -> Vec<Config> {
        let blocks: Vec<Option<MaskBlock>> = match policy.is_dense() {
            true => vec![None],
            false => self.blocks.iter().copied().map(Some).collect(),
        };
        blocks
            .into_iter()
            .flat_map(|block| self.tiles.iter().map(move |&tile| Config { block, tile }))
            .collect()
    }

    /// Returns a hash of the axes and of what else a row depends on.
    pub(crate) fn hash(&self, args: &SweepArgs) -> String {
        let stored = Stored {
            lengths: self.lengths.clone(),
            policies: self.policies.iter().map(Policy::to_string).collect(),
            blocks: self.blocks.iter().map(|b| b.q_block).collect(),
            tiles: self.tiles.iter().map(TileConfig::to_string).collect(),
            rounds: args.rounds,
            error_rows: args.errors.error_rows,
        };
        nabla_host::provenance::short_hash(&serde_json::to_vec(&stored).unwrap_or_default())
    }
}

/// Returns the lengths to cut from an input, ascending; `None` is the whole of one without a grid.
pub(crate) fn lengths(frames: Option<&[usize]>, problem: &Problem) -> Result<Vec<Option<usize>>, String> {
    let Some(grid) = problem.grid else {
        return match frames {
            None => Ok(vec![None]),
            Some(_) => Err("--frames cuts a video, but this input has no grid; give --grid T,H,W".into()),
        };
    };
    let mut lengths: Vec<usize> = match frames {
        Some(frames) => frames.to_vec(),
        None => {
            let doubling = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < grid.t);
            // Beyond a few lengths the longest tell the most.
            let mut all: Vec<usize> = doubling.chain([grid.t]).collect();
            all.drain(..all.len().saturating_sub(4));
            all
        }
    };
    lengths.sort_unstable();
    lengths.dedup();
    match lengths.iter().find(|&&n| n == 0 || n > grid.t) {
        Some(n) => Err(format!("--frames: expected 1 to {} frames of this input, got {n}", grid.t)),
        None if lengths.is_empty() => Err("--frames: expected at least one number of frames".into()),
        None => Ok(lengths.into_iter().map(Some).collect()),
    }
}
