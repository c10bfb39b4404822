//! From counts of launches to the costs of their units: linear, and solved exactly.

use std::collections::BTreeMap;

use super::work::{Extent, UnitCosts, Work};

/// Counts of a launch by name, and how often its units ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Units.
    pub extent: Extent,
    /// What the emulator counted.
    pub counts: BTreeMap<String, u64>,
}

/// Costs of units, and how well they explain a launch that had no part in finding them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The costs.
    pub costs: UnitCosts,
    /// Largest difference between the launch held out and its prediction, as a share of the count.
    pub residual: f64,
}

/// Launches from which costs cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// They do not vary what has to be told apart.
    #[error(
        "expected launches that differ in blocks, loads and tiles, got ones of which one follows from the others"
    )]
    Dependent,
    /// A count is not there.
    #[error("expected a count of `{0}` in every launch, found none")]
    Missing(&'static str),
}

/// The counts that costs are made of.
const COUNTS: [&str; 13] = [
    "warp_instructions",
    "kind_move",
    "kind_param",
    "kind_special",
    "kind_float32",
    "mma_operations",
    "wgmma_flops",
    "shared_wavefronts",
    "shared_conflicts",
    "shared_bytes",
    "sectors",
    "bulk_bytes",
    "multicast_bytes",
];

/// Solves for the costs of units from as many launches as there are kinds of units, and tries them on another.
///
/// Two launches tell blocks and tiles apart; three tell loads, too.
///
/// # Errors
/// When the launches do not differ as they must, or counts are missing.
pub fn fit<const N: usize>(samples: &[Sample; N], held_out: &Sample) -> Result<Fit, FitError> {
    let units = |extent: &Extent| match N {
        2 => vec![extent.blocks, extent.tiles],
        _ => vec![extent.blocks, extent.tiles, extent.loads],
    };
    let mut of_unit = vec![[0.0; COUNTS.len()]; 3];
    let mut residual = 0f64;
    for (i, name) in COUNTS.into_iter().enumerate() {
        let rows = samples.iter().map(|sample| Ok((units(&sample.extent), count(sample, name)?)));
        let solved = solve(rows.collect::<Result<Vec<_>, FitError>>()?).ok_or(FitError::Dependent)?;
        let predicted: f64 = units(&held_out.extent).iter().zip(&solved).map(|(n, cost)| n * cost).sum();
        let counted = count(held_out, name)?;
        residual = residual.max((predicted - counted).abs() / counted.abs().max(1.0));
        for (unit, cost) in of_unit.iter_mut().zip(&solved) {
            unit[i] = *cost;
        }
    }
    let [block, tile, load] = [0, 1, 2].map(|unit| work(&of_unit[unit]));
    Ok(Fit { costs: UnitCosts { block, load, tile }, residual })
}

fn count(sample: &Sample, name: &'static str) -> Result<f64, FitError> {
    let one = |name: &'static str| {
        sample.counts.get(name).map(|count| *count as f64).ok_or(FitError::Missing(name))
    };
    match name {
        "sectors" => Ok(one("global_load_sectors")? + one("global_store_sectors")?),
        "bulk_bytes" => Ok(one("bulk_load_bytes")? + one("bulk_store_bytes")?),
        "multicast_bytes" => one("bulk_multicast_bytes"),
        name => one(name),
    }
}

/// Solves a system of as many equations as unknowns (Gauss and Jordan, with the largest pivot); `None` if it has no one
/// solution.
fn solve(mut rows: Vec<(Vec<f64>, f64)>) -> Option<Vec<f64>> {
    let n = rows.len();
    for column in 0..n {
        let largest =
            (column..n).max_by(|&a, &b| rows[a].0[column].abs().total_cmp(&rows[b].0[column].abs()))?;
        rows.swap(column, largest);
        let (pivot, right) = rows[column].clone();
        if pivot[column].abs() < 1e-9 {
            return None;
        }
        for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row.0[column] / pivot[column];
            debug_assert_ne!(i, column);
            row.0.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
            row.1 -= factor * right;
        }
    }
    Some(rows.iter().enumerate().map(|(i, (row, right))| right / row[i]).collect())
}

/// Makes demands of the counts of one unit, in the order of [`COUNTS`].
fn work(counts: &[f64; COUNTS.len()]) -> Work {
    let [
        all,
        moves,
        params,
        special,
        fp32,
        flops,
        wgmma_flops,
        wavefronts,
        conflicts,
        bytes,
        sectors,
        bulk,
        multicast,
    ] = *counts;
    // Bytes of requests are in the wavefronts already, 128 in each that is no conflict; what is beyond those is what
    // `wgmma` reads. It is counted for each of four warps; the hardware reads B once for all: an instruction of
    // m64nNk16 does 2048 N operations and has 32 N bytes of B.
    let asynchronous = (bytes - 3.0 * wgmma_flops / 64.0 - 128.0 * (wavefronts - conflicts)).max(0.0);
    Work {
        tensor_flops: flops,
        special: 32.0 * special,
        fp32: 32.0 * fp32,
        // The assembler renames registers instead of moving them, and parameters are operands.
        instructions: all - moves - params,
        // Bulk copies write it besides, in each block of threads that they go to.
        shared_bytes: 128.0 * wavefronts + asynchronous + bulk + multicast,
        l2_bytes: 32.0 * sectors + bulk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(blocks: f64, tiles: f64, loads: f64) -> Sample {
        let counts = COUNTS
            .into_iter()
            .filter(|name| !["sectors", "bulk_bytes", "multicast_bytes"].contains(name))
            .chain(["global_load_sectors", "global_store_sectors", "bulk_load_bytes", "bulk_store_bytes"])
            .chain(["bulk_multicast_bytes"])
            .map(|name| (name.to_owned(), (7.0 * blocks + 30.0 * tiles + 11.0 * loads) as u64));
        Sample { extent: Extent { blocks, loads, tiles }, counts: counts.collect() }
    }

    #[test]
    fn costs_of_linear_counts_are_found_exactly() {
        let launches = [sample(2.0, 32.0, 16.0), sample(2.0, 64.0, 32.0), sample(2.0, 32.0, 32.0)];
        let found = fit(&launches, &sample(3.0, 50.0, 40.0)).unwrap();
        assert!(found.residual < 1e-9, "{}", found.residual);
        let close = |is: f64, should: f64| assert!((is - should).abs() < 1e-6, "{is} {should}");
        close(found.costs.block.tensor_flops, 7.0);
        close(found.costs.tile.special, 32.0 * 30.0);
        // Loads and stores count.
        close(found.costs.load.l2_bytes, 33.0 * 22.0);
    }

    #[test]
    fn launches_that_do_not_differ_tell_nothing() {
        let launches = [sample(2.0, 32.0, 16.0), sample(4.0, 64.0, 32.0)];
        assert_eq!(fit(&launches, &launches[0]), Err(FitError::Dependent));
        let mut poor = sample(2.0, 48.0, 16.0);
        poor.counts.remove("kind_special");
        assert_eq!(fit(&[launches[0].clone(), poor], &launches[0]), Err(FitError::Missing("kind_special")));
    }
}
