//! Comparisons on simulated machines: how often they claim what is not, and miss what is.

use super::{
    Margin, Quad, Verdict, blocks_at, estimate, findings, log_ratios, noise_floor, sequential::LOOKS,
    simulated::Noise,
};

fn quads(noise: &mut Noise, slowdown: f64, blocks: usize) -> Vec<Quad> {
    let block = |_| {
        let [a, b, c, d] = std::array::from_fn(|_| 1000.0 * noise.factor());
        Quad { a: [a, d], b: [b * slowdown, c * slowdown] }
    };
    (0..blocks).map(block).collect()
}

/// A whole comparison: noise floor first, then looks until the verdict is clear.
fn compared(mut noise: Noise, slowdown: f64, seed: u64) -> Verdict {
    let of_itself = quads(&mut noise, 1.0, blocks_at(0));
    let margin = Margin::from_noise(noise_floor(&estimate(&log_ratios(&of_itself), seed).unwrap()));
    let mut blocks = Vec::new();
    let mut last = Verdict::Ambiguous;
    for look in 0..LOOKS {
        let missing = blocks_at(look) - blocks.len();
        blocks.extend(quads(&mut noise, slowdown, missing));
        last = findings(&[&blocks], margin, seed)[0].unwrap().verdict;
        if last != Verdict::Ambiguous {
            break;
        }
    }
    last
}

/// Machines of every kind: steady, ordinary, drifting, spiky, correlated.
fn machine(seed: u64) -> Noise {
    let ordinary = Noise::ordinary(seed);
    match seed % 5 {
        0 => Noise { slow: 0.002, fast: 0.002, ..ordinary },
        1 => ordinary,
        2 => Noise { drift: 2e-4, ..ordinary },
        3 => Noise { spikes: 0.05, ..ordinary },
        _ => Noise { memory: 0.98, slow: 0.02, ..ordinary },
    }
}

#[test]
fn a_thing_is_hardly_ever_found_to_differ_from_itself() {
    let false_alarms: Vec<u64> = (0..200)
        .filter(|&seed| matches!(compared(machine(seed), 1.0, seed), Verdict::Faster | Verdict::Slower))
        .collect();
    assert!(false_alarms.len() <= 2, "{} of 200: {false_alarms:?}", false_alarms.len());
}

#[test]
fn a_slow_down_of_three_per_cent_is_found() {
    let missed: Vec<u64> =
        (0..200).filter(|&seed| compared(machine(seed), 1.03, seed) != Verdict::Slower).collect();
    assert!(missed.len() <= 10, "{} of 200: {missed:?}", missed.len());
}

#[test]
fn a_speed_up_is_found_and_never_called_the_opposite() {
    let verdicts: Vec<Verdict> = (0..40).map(|seed| compared(machine(seed), 0.96, seed)).collect();
    assert!(verdicts.iter().filter(|v| **v == Verdict::Faster).count() >= 38, "{verdicts:?}");
    assert!(!verdicts.contains(&Verdict::Slower));
}

#[test]
fn an_interval_covers_the_truth_about_as_often_as_it_says() {
    let covered = (0..300).filter(|&seed| {
        let blocks = quads(&mut machine(seed + 1000), 1.02, blocks_at(0));
        let found = estimate(&log_ratios(&blocks), seed).unwrap();
        (found.low..=found.high).contains(&1.02f64.ln())
    });
    let share = covered.count() as f64 / 300.0;
    assert!((0.90..=0.995).contains(&share), "{share}");
}

#[test]
fn a_difference_below_the_margin_is_the_same() {
    let verdicts: Vec<Verdict> =
        (0..20).map(|seed| compared(Noise { drift: 0.0, ..machine(seed * 5) }, 1.002, seed)).collect();
    assert!(verdicts.iter().filter(|v| **v == Verdict::Same).count() >= 18, "{verdicts:?}");
}
