use std::vec::Vec;

use super::*;

pub(crate) struct Exact;

impl Math for Exact {
    fn exp2(x: f32) -> f32 {
        x.exp2()
    }
    fn log2(x: f32) -> f32 {
        x.log2()
    }
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    fn at_least(x: f32, least: f32) -> f32 {
        if x.is_nan() { x } else { x.max(least) }
    }
}

/// Weights corrected always, and only where they would grow beyond 2^8.
const SLACKS: [f32; 2] = [0.0, 8.0];

/// Returns the weighted mean of `values` and the log-sum-exp, tile by tile.
fn online(tiles: &[&[f32]], values: &[f32], scale: f32, slack: f32) -> (f32, f32) {
    let mut row = OnlineRow::EMPTY;
    let mut accumulated = 0.0;
    let mut values = values.iter();
    let scale_log2 = scale * core::f32::consts::LOG2_E;
    for tile in tiles {
        let max = tile.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = row.raise::<Exact>(max, scale_log2, slack);
        accumulated *= step.correction;
        for (&score, value) in tile.iter().zip(&mut values) {
            let weight = step.weight::<Exact>(score);
            row.sum += weight;
            accumulated += weight * value;
        }
    }
    let (factor, lse) = OnlineRow::finish::<Exact>(row.max, row.sum, scale_log2);
    (accumulated * factor, lse)
}

/// The same in float64, all at once.
fn direct(scores: &[f32], values: &[f32], scale: f32) -> (f64, f64) {
    let scaled: Vec<f64> = scores.iter().map(|&s| f64::from(s) * f64::from(scale)).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scaled.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mean = weights.iter().zip(values).map(|(w, &v)| w * f64::from(v)).sum::<f64>() / sum;
    (mean, max + sum.ln())
}

#[track_caller]
fn check(tiles: &[&[f32]], scale: f32) {
    let scores: Vec<f32> = tiles.concat();
    let values: Vec<f32> = (0..scores.len()).map(|i| (i as f32 * 0.7).sin() + 1.5).collect();
    let (mean64, lse64) = direct(&scores, &values, scale);
    for slack in SLACKS {
        let (mean, lse) = online(tiles, &values, scale, slack);
        assert!((f64::from(mean) - mean64).abs() < 1e-5 * mean64.abs(), "{mean} instead of {mean64}");
        assert!((f64::from(lse) - lse64).abs() < 1e-5 * lse64.abs().max(1.0), "{lse} instead of {lse64}");
    }
}

#[test]
fn one_tile_is_softmax() {
    check(&[&[0.5, -1.0, 3.0, 2.5]], 0.125);
}

#[test]
fn a_rising_maximum_corrects_what_came_before() {
    check(&[&[0.0, 1.0], &[20.0, 3.0], &[40.0, -4.0]], 0.3);
}

#[test]
fn a_falling_maximum_leaves_it() {
    check(&[&[40.0, 39.0], &[20.0], &[-90.0]], 1.0);
}

#[test]
fn masked_scores_weigh_nothing() {
    let minus = f32::NEG_INFINITY;
    check(&[&[1.0, minus], &[2.0, minus, minus]], 0.5);
    // Also before the first score.
    check(&[&[minus, minus], &[minus], &[1.0, 2.0]], 0.5);
}

#[test]
fn large_scores_do_not_overflow() {
    check(&[&[3.0e4, 2.9999e4], &[3.0001e4]], 1.0);
}

#[test]
fn the_least_scale_weighs_all_alike() {
    for slack in SLACKS {
        let scores = [5.0, f32::NEG_INFINITY, -7.0];
        let (mean, lse) = online(&[&scores], &[1.0, 100.0, 3.0], f32::MIN_POSITIVE, slack);
        assert_eq!(mean, 2.0);
        assert!((lse - 2f32.ln()).abs() < 1e-6);
    }
}

#[test]
fn an_empty_row_is_zero_and_minus_infinity() {
    for slack in SLACKS {
        assert_eq!(online(&[], &[], 1.0, slack), (0.0, f32::NEG_INFINITY));
        assert_eq!(online(&[&[f32::NEG_INFINITY; 3]], &[1.0; 3], 1.0, slack), (0.0, f32::NEG_INFINITY));
    }
}

#[test]
fn a_nan_stays_visible() {
    for slack in SLACKS {
        let (mean, lse) = online(&[&[1.0, f32::NAN], &[2.0]], &[1.0; 3], 1.0, slack);
        assert!(mean.is_nan() && lse.is_nan());
    }
}

#[test]
fn with_slack_small_rises_correct_nothing_and_large_ones_do() {
    let mut row = OnlineRow::EMPTY;
    let mut raise = |max: f32| row.raise::<Exact>(max, 1.0, 8.0);
    assert_eq!(raise(f32::NEG_INFINITY).correction, 0.0, "nothing was accumulated yet");
    assert_eq!(raise(-3.0).correction, 0.0, "the first score, whatever it is");
    let step = raise(5.0);
    assert_eq!(
        (step.correction, step.weight::<Exact>(5.0)),
        (1.0, 256.0),
        "grown by 8 powers of two, no more"
    );
    assert_eq!(raise(f32::NEG_INFINITY).correction, 1.0);
    // Relative to -3 still.
    let step = raise(5.5);
    assert_eq!((step.correction, step.weight::<Exact>(5.5)), (2f32.powf(-8.5), 1.0));
    assert_eq!(row.max, 5.5);
}

#[test]
fn weights_without_the_special_function_unit_are_the_same() {
    let mut row = OnlineRow::EMPTY;
    let step = row.raise::<Exact>(2.0, 0.7, 0.0);
    for score in [2.0, 1.5, -3.0, -40.0, -170.0] {
        let (ours, right) = (step.weight_polynomial::<Exact>(score), step.weight::<Exact>(score));
        assert!((ours - right).abs() <= 2.5e-7 * right, "{score}: {ours} instead of {right}");
    }
    assert_eq!(step.weight_polynomial::<Exact>(f32::NEG_INFINITY), 0.0);
}
