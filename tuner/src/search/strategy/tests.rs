use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::search::space::{Axis, Constraint, Limits, SpaceSpec, Value};

/// A space with axes of all kinds and a constraint; `sizes` are the numbers of values.
fn space(sizes: [usize; 3]) -> Arc<Space> {
    let [a, b, c] = sizes.map(|n| n as i64);
    let spec = SpaceSpec {
        name: "test".into(),
        axes: vec![
            Axis::new("a", (0..a).map(|n| 1 << n)),
            Axis::new("b", 1..=b),
            Axis { name: "c".into(), values: (0..c).map(|n| Value::Text(format!("v{n}"))).collect() },
            Axis { name: "d".into(), values: vec![Value::Bool(false), Value::Bool(true)] },
        ],
        constraints: vec![Constraint::new("a * b <= 64 or d", "too large")],
        ..SpaceSpec::default()
    };
    Arc::new(spec.enumerate(&Limits::new()).unwrap_or_else(|e| panic!("{e}")))
}

/// A cost with a valley, a switch and a slope; a share of the points fails.
fn outcome(space: &Space, point: PointId, failing: u64) -> Outcome {
    let coordinates = space.coordinates(point);
    let mix =
        coordinates.iter().fold(7u64, |mix, &c| (mix ^ u64::from(c)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    if mix >> 32 & 7 < failing {
        return Outcome::Failed;
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|axis| f64::from(coordinates[axis]));
    Outcome::Cost(10.0 + (a - 2.0).powi(2) + (b - 1.0).abs() + if c == 1.0 { 0.0 } else { 2.0 } + d)
}

/// Runs a strategy to its end, asking for batches of a size.
fn run(name: &str, setup: Setup, failing: u64, batch: usize) -> Vec<PointId> {
    let space = Arc::clone(&setup.space);
    let mut strategy = build(name, setup).unwrap_or_else(|e| panic!("{e}"));
    let mut asked = Vec::new();
    loop {
        let points = strategy.ask(batch);
        assert!(points.len() <= batch, "{name} gives more than asked for");
        if points.is_empty() {
            return asked;
        }
        for point in points {
            asked.push(point);
            strategy.tell(point, outcome(&space, point, failing));
        }
        assert!(asked.len() <= space.len(), "{name} asks for more points than there are");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_strategy_covers_a_space_exactly_once(
        sizes in [1usize..6, 1usize..6, 1usize..4], seed: u64, failing in 0u64..9, batch in 1usize..7,
    ) {
        let space = space(sizes);
        for (name, _) in names() {
            let asked = run(name, Setup::new(Arc::clone(&space), seed), failing, batch);
            let unique: HashSet<PointId> = asked.iter().copied().collect();
            prop_assert_eq!(unique.len(), asked.len(), "{} asks twice", name);
            prop_assert_eq!(asked.len(), space.len(), "{} leaves points out", name);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence(seed: u64, failing in 0u64..4, batch in 1usize..4) {
        let space = space([5, 5, 3]);
        for (name, _) in names() {
            let sequence = || run(name, Setup::new(Arc::clone(&space), seed), failing, batch);
            prop_assert_eq!(sequence(), sequence(), "{}", name);
        }
    }

    #[test]
    fn seeds_come_first_and_once(seed: u64, first in 0usize..40, second in 0usize..40) {
        let space = space([4, 5, 3]);
        let points: Vec<PointId> = space.ids().collect();
        for (name, _) in names() {
            let mut setup = Setup::new(Arc::clone(&space), seed);
            setup.seeds = vec![points[first], points[second], points[first]];
            let asked = run(name, setup, 1, 1);
            let mut expected = vec![points[first], points[second]];
            expected.dedup();
            prop_assert_eq!(&asked[..expected.len()], &expected[..], "{}", name);
            prop_assert_eq!(asked.len(), space.len());
        }
    }
}

#[test]
fn different_seeds_give_different_sequences() {
    let space = space([5, 5, 3]);
    for (name, _) in names().filter(|(name, _)| *name != "exhaustive") {
        let sequences: HashSet<Vec<PointId>> =
            (0..4).map(|seed| run(name, Setup::new(Arc::clone(&space), seed), 0, 1)).collect();
        assert!(sequences.len() > 1, "{name}");
    }
}

#[test]
fn points_told_without_being_asked_for_are_not_asked_for() {
    let space = space([5, 5, 3]);
    for (name, _) in names() {
        let mut strategy = build(name, Setup::new(Arc::clone(&space), 1)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(strategy.name(), if name == DEFAULT { BEST } else { name });
        let told: Vec<PointId> = space.ids().step_by(3).collect();
        for &point in &told {
            strategy.tell(point, outcome(&space, point, 2));
        }
        let asked = strategy.ask(usize::MAX);
        assert!(asked.iter().all(|point| !told.contains(point)), "{name}");
        assert_eq!(asked.len() + told.len(), space.len(), "{name}");
    }
}

#[test]
fn costs_that_are_none_count_as_failures() {
    let space = space([3, 3, 2]);
    for (name, _) in names() {
        let mut strategy = build(name, Setup::new(Arc::clone(&space), 1)).unwrap_or_else(|e| panic!("{e}"));
        let mut asked = 0;
        loop {
            let points = strategy.ask(1);
            let Some(&point) = points.first() else { break };
            let cost = [f64::NAN, f64::INFINITY, -1.0, 0.0][asked % 4];
            strategy.tell(point, Outcome::Cost(cost));
            asked += 1;
        }
        assert_eq!(asked, space.len(), "{name}");
    }
}

#[test]
fn a_prior_brings_its_cheap_points_forward() {
    let space = space([5, 5, 3]);
    let costs: Vec<f64> = space.ids().map(|p| ((p.index() * 37 + 11) % space.len()) as f64).collect();
    let place = |name: &str, prior: bool| {
        let mut sum = 0;
        for seed in 0..20 {
            let mut setup = Setup::new(Arc::clone(&space), seed);
            setup.prior = prior.then(|| costs.clone().into());
            let asked = run(name, setup, 0, 1);
            sum += asked.iter().position(|p| costs[p.index()] == 0.0).unwrap_or(usize::MAX / 64);
        }
        sum
    };
    for (name, _) in names() {
        let (with, without) = (place(name, true), place(name, false));
        assert!(
            with < without,
            "{name}: {with} points before the one expected cheapest, {without} without prior"
        );
    }
}

#[test]
fn an_unknown_strategy_is_told_the_known_ones() {
    let error = build("simplex", Setup::new(space([2, 2, 2]), 0)).map(|s| s.name()).expect_err("no strategy");
    assert!(error.to_string().starts_with("expected a strategy (default, exhaustive, random"), "{error}");
    assert!(error.to_string().ends_with("got 'simplex'"), "{error}");
}
