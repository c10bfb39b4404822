use std::vec::Vec;

use super::*;

struct Exact;

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
}

/// Returns the weighted mean of `values` and the log-sum-exp, tile by tile.
fn online(tiles: &[&[f32]], values: &[f32], scale: f32) -> (f32, f32) {
    let mut row = OnlineRow::EMPTY;
    let mut accumulated = 0.0;
    let mut values = values.iter();
    let scale_log2 = scale * core::f32::consts::LOG2_E;
    for tile in tiles {
        let max = tile.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = row.raise::<Exact>(max, scale_log2);
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
    let (mean, lse) = online(tiles, &values, scale);
    let (mean64, lse64) = direct(&scores, &values, scale);
    assert!((f64::from(mean) - mean64).abs() < 1e-5 * mean64.abs(), "{mean} instead of {mean64}");
    assert!((f64::from(lse) - lse64).abs() < 1e-5 * lse64.abs().max(1.0), "{lse} instead of {lse64}");
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
    let (mean, lse) = online(&[&[5.0, f32::NEG_INFINITY, -7.0]], &[1.0, 100.0, 3.0], f32::MIN_POSITIVE);
    assert_eq!(mean, 2.0);
    assert!((lse - 2f32.ln()).abs() < 1e-6);
}

#[test]
fn an_empty_row_is_zero_and_minus_infinity() {
    assert_eq!(online(&[], &[], 1.0), (0.0, f32::NEG_INFINITY));
    assert_eq!(online(&[&[f32::NEG_INFINITY; 3]], &[1.0; 3], 1.0), (0.0, f32::NEG_INFINITY));
}

#[test]
fn a_nan_stays_visible() {
    let (mean, lse) = online(&[&[1.0, f32::NAN], &[2.0]], &[1.0; 3], 1.0);
    assert!(mean.is_nan() && lse.is_nan());
}
