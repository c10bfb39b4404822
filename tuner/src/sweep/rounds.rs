//! Interleaved, randomised rounds: every item once a round, in an order drawn afresh, so that drift cancels.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// What came of one item: its samples in the order taken, and the error that ended them early, if one did.
pub(crate) type Series<E> = (Vec<f64>, Option<E>);

/// Calls `measure(item)` for each of `items` items once a round, for at most so many rounds: each is started if
/// `goes_on(rounds before it)`. An item that fails is not measured again; the others go on.
pub(crate) fn interleave<E>(
    items: usize,
    rounds: u32,
    seed: u64,
    goes_on: impl Fn(u32) -> bool,
    mut measure: impl FnMut(usize) -> Result<f64, E>,
) -> Vec<Series<E>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut series: Vec<Series<E>> =
        (0..items).map(|_| (Vec::with_capacity(rounds as usize), None)).collect();
    let mut order: Vec<usize> = (0..items).collect();
    for _ in (0..rounds).take_while(|&before| goes_on(before)) {
        order.shuffle(&mut rng);
        for &item in &order {
            let (samples, failure) = &mut series[item];
            if failure.is_none() {
                match measure(item) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => *failure = Some(error),
                }
            }
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_measured_once_a_round_in_changing_order() {
        let mut calls = Vec::new();
        let series = interleave(
            5,
            4,
            7,
            |_| true,
            |item| {
                calls.push(item);
                Ok::<_, ()>(item as f64)
            },
        );
        assert!(series.iter().enumerate().all(|(item, s)| s == &(vec![item as f64; 4], None)));
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
            interleave(
                6,
                3,
                seed,
                |_| true,
                |item| {
                    calls.push(item);
                    Ok::<_, ()>(0.0)
                },
            );
            calls
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn no_round_is_begun_that_is_not_to_go_on() {
        let series = interleave(2, 5, 0, |before| before < 3, |item| Ok::<_, ()>(item as f64));
        assert!(series.iter().all(|(samples, _)| samples.len() == 3), "{series:?}");
    }

    #[test]
    fn an_item_that_fails_is_left_alone_and_the_others_go_on() {
        let mut calls = [0; 3];
        let series = interleave(
            3,
            5,
            0,
            |_| true,
            |item| {
                calls[item] += 1;
                if item == 1 && calls[1] == 3 { Err("gave out") } else { Ok(1.0) }
            },
        );
        assert_eq!(calls, [5, 3, 5]);
        assert_eq!(series[0], (vec![1.0; 5], None));
        assert_eq!(series[1], (vec![1.0; 2], Some("gave out")));
    }
}
