//! Interleaved, randomised rounds: every item once a round, in an order drawn afresh, so that drift cancels.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Calls `measure(item)` for each of `items` items once a round and returns each item's samples in the order taken.
///
/// # Errors
/// The first error of `measure` ends the rounds.
pub(crate) fn interleave<E>(
    items: usize,
    rounds: u32,
    seed: u64,
    mut measure: impl FnMut(usize) -> Result<f64, E>,
) -> Result<Vec<Vec<f64>>, E> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut samples = vec![Vec::with_capacity(rounds as usize); items];
    let mut order: Vec<usize> = (0..items).collect();
    for _ in 0..rounds {
        order.shuffle(&mut rng);
        for &item in &order {
            samples[item].push(measure(item)?);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_measured_once_a_round_in_changing_order() {
        let mut calls = Vec::new();
        let samples = interleave(5, 4, 7, |item| {
            calls.push(item);
            Ok::<_, ()>(item as f64)
        })
        .unwrap();
        assert!(samples.iter().enumerate().all(|(item, s)| s == &vec![item as f64; 4]));
        let rounds: Vec<&[usize]> = calls.chunks(5).collect();
        for round in &rounds {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(rounds.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_order_follows_the_seed() {
        let order = |seed| {
            let mut calls = Vec::new();
            interleave(6, 3, seed, |item| {
                calls.push(item);
                Ok::<_, ()>(0.0)
            })
            .unwrap();
            calls
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
