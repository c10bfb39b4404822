//! Races and pairs on a planted device.

use nabla_reports::Status;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Clocks, Item, Paired, Pairing, Race, Rounds, Timed,
    fake::{Fake, Fault},
    race::Racer,
};
use crate::failure::Failure;
use crate::stats::{Margin, Verdict, simulated::Noise};

/// Keeps nothing.
struct Forgetful;

impl Rounds for Forgetful {
    fn earlier(&mut self, _: &[Item]) -> Option<Vec<Timed>> {
        None
    }

    fn keep(&mut self, _: &[Item], _: &[Timed]) -> Result<(), Failure> {
        Ok(())
    }
}

fn candidates(n: usize) -> Vec<Item> {
    (0..n).map(Item::Candidate).collect()
}

fn race(fake: &mut Fake, rounds: usize) -> Vec<Racer> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let items = candidates(fake.times_us.len());
    Race { rounds }.run(fake, &items, &mut Forgetful, &mut Clocks::default(), &mut rng).unwrap()
}

fn runoff(fake: &mut Fake, floor: f64) -> Vec<Paired> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let rivals = candidates(fake.times_us.len());
    let margin = Margin::from_noise(floor);
    Pairing::new(Item::Candidate(0), &rivals[1..])
        .run(fake, margin, &mut Clocks::default(), &mut rng, 5)
        .unwrap()
        .0
}

#[test]
fn what_is_far_behind_leaves_after_three_rounds_and_what_is_slower_after_ten() {
    let mut fake = Fake::new(&[1000.0, 1600.0, 1200.0, 1002.0], Noise::ordinary(3));
    let racers = race(&mut fake, 40);
    assert_eq!(racers[1].series.samples.len(), 3);
    assert!(racers[1].out && racers[2].out && !racers[0].out);
    assert!((10..20).contains(&racers[2].series.samples.len()), "{}", racers[2].series.samples.len());
    assert!(racers[0].series.samples.len() >= 10);
}

#[test]
fn a_quiet_machine_needs_ten_rounds() {
    let mut fake = Fake::new(&[1000.0, 1001.0], Noise::none(0));
    assert!(race(&mut fake, 40).iter().all(|racer| racer.series.samples.len() == 10));
}

#[test]
fn long_launches_are_stopped_by_their_time() {
    let mut fake = Fake::new(&[2e6, 2.1e6], Noise::ordinary(0));
    assert!(race(&mut fake, 40).iter().all(|racer| racer.series.samples.len() == 3));
}

#[test]
fn one_that_fails_costs_itself() {
    let mut fake = Fake::new(&[1000.0, 900.0], Noise::none(0));
    fake.faults.insert(1, Fault::Fails(5, Status::Timeout));
    let racers = race(&mut fake, 20);
    assert_eq!(racers[1].series.samples.len(), 4);
    assert_eq!(racers[1].series.failed.as_ref().map(|f| f.status), Some(Status::Timeout));
    assert_eq!((racers[0].series.samples.len(), racers[0].out), (10, false));
}

#[test]
fn a_clock_that_jumps_marks_samples_and_does_not_change_who_wins() {
    let mut fake = Fake::new(&[1000.0, 950.0], Noise::ordinary(9));
    // Every fifth launch the clock has fallen by half.
    fake.clock = |launch| if launch % 5 == 0 { 0.5 } else { 1.0 };
    let (mut clocks, mut rng) = (Clocks::default(), ChaCha8Rng::seed_from_u64(2));
    let items = candidates(2);
    let racers = Race { rounds: 30 }.run(&mut fake, &items, &mut Forgetful, &mut clocks, &mut rng).unwrap();
    for (racer, truth) in racers.iter().zip([1000.0, 950.0]) {
        let kept = racer.series.kept(&clocks);
        assert!(kept.marked > 0 && !kept.contended, "{kept:?}");
        let median = kept.median().unwrap().median;
        assert!((median / truth - 1.0).abs() < 0.03, "{median} for {truth}");
    }
}

#[test]
fn a_busy_device_makes_results_contended() {
    let mut fake = Fake::new(&[1000.0, 800.0], Noise::ordinary(2));
    fake.busy = |launch| launch % 2 == 0;
    let mut clocks = Clocks::default();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let racers =
        Race { rounds: 12 }.run(&mut fake, &candidates(2), &mut Forgetful, &mut clocks, &mut rng).unwrap();
    assert!(racers.iter().any(|racer| racer.series.kept(&clocks).contended));
    let paired = runoff(&mut fake, 0.0);
    assert!(paired[0].contended);
}

#[test]
fn the_run_off_finds_what_is_faster_slower_and_the_same() {
    let mut fake = Fake::new(&[1000.0, 940.0, 1050.0, 1001.0], Noise::ordinary(4));
    let verdicts: Vec<Verdict> =
        runoff(&mut fake, 0.002).iter().map(|p| p.finding.unwrap().verdict).collect();
    assert_eq!(verdicts, [Verdict::Faster, Verdict::Slower, Verdict::Same]);
}

#[test]
fn an_unclear_verdict_doubles_the_pairs_twice() {
    let noisy = Noise { fast: 0.05, ..Noise::ordinary(4) };
    let mut fake = Fake::new(&[1000.0, 1000.0], noisy);
    let finding = runoff(&mut fake, 0.0)[0].finding.unwrap();
    assert_eq!((finding.verdict, finding.pairs), (Verdict::Ambiguous, 128));
    let mut quiet = Fake::new(&[1000.0, 900.0], Noise::none(0));
    assert_eq!(runoff(&mut quiet, 0.0)[0].finding.unwrap().pairs, 32);
}

#[test]
fn one_that_gives_out_in_the_run_off_has_no_verdict() {
    let mut fake = Fake::new(&[1000.0, 900.0, 950.0], Noise::none(0));
    fake.faults.insert(1, Fault::Fails(9, Status::Crashed));
    let paired = runoff(&mut fake, 0.0);
    assert_eq!(paired[0].finding, None);
    assert_eq!(paired[0].series.failed.as_ref().map(|f| f.status), Some(Status::Crashed));
    assert_eq!(paired[1].finding.unwrap().verdict, Verdict::Faster);
}

#[test]
fn the_noise_floor_follows_the_noise() {
    let floor = |noise: Noise| {
        let mut fake = Fake::new(&[1000.0], noise);
        let item = Item::Candidate(0);
        Pairing::floor(item, &mut fake, &mut Clocks::default(), 1).unwrap().unwrap()
    };
    assert!(floor(Noise::none(0)) < 1e-9);
    let ordinary = floor(Noise::ordinary(1));
    let noisy = floor(Noise { fast: 0.05, ..Noise::ordinary(1) });
    assert!(ordinary > 0.0005 && ordinary < 0.02, "{ordinary}");
    assert!(noisy > ordinary, "{noisy} {ordinary}");
}
