//! The clocks and the shadow memory alone: proxies, queues, clusters, and random histories against a checker that
//! forgets nothing.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{Launch, Op, RESTING_SLOTS, Race, Range, Region};
use crate::fault::FaultKind;
use crate::program::{Order, Semantics};

const PLAIN: Order = Order { semantics: Semantics::Weak, device: false };
const RELAXED: Order = Order { semantics: Semantics::Relaxed, device: false };

fn shared(start: u64, bytes: u64) -> Range {
    Range { region: Region::Shared(0), start, bytes }
}

const TILE: Range = Range { region: Region::Shared(0), start: 32, bytes: 64 };

fn race() -> Race {
    Race::new(1, 4, 1024)
}

fn meet(race: &mut Race, warps: &[usize]) {
    let mut clock = super::Clock::default();
    for warp in warps {
        clock.join(&race.release(*warp));
    }
    for warp in warps {
        race.acquire(*warp, &clock);
    }
}

fn kind<T>(result: Result<T, FaultKind>) -> &'static str {
    match result {
        Ok(_) => "clean",
        Err(FaultKind::Race(_)) => "race",
        Err(FaultKind::MissingProxyFence(_)) => "no proxy fence",
        Err(_) => "something else",
    }
}

#[test]
fn an_asynchronous_read_of_stored_bytes_needs_a_proxy_fence_behind_the_stores() {
    // Who fences: nobody, the issuer before or behind the store, the storing warp before it meets the issuer.
    for (fence, expected) in
        [("none", "no proxy fence"), ("before", "no proxy fence"), ("behind", "clean"), ("writer", "clean")]
    {
        let mut race = race();
        if fence == "before" {
            race.fence_proxy_async(0);
        }
        assert_eq!(kind(race.write(0, shared(40, 4), 1, PLAIN)), "clean");
        if fence == "writer" {
            race.fence_proxy_async(0);
        }
        meet(&mut race, &[0, 1]);
        if fence == "behind" {
            race.fence_proxy_async(1);
        }
        assert_eq!(kind(race.issue_async(1, None, &[TILE], &[], 2)), expected, "{fence}");
    }
    // A fence covers no store behind it, and without a barrier the fence is not what is missing.
    let mut race = race();
    assert_eq!(kind(race.write(0, shared(32, 4), 1, PLAIN)), "clean");
    race.fence_proxy_async(0);
    assert_eq!(kind(race.write(0, shared(36, 4), 1, PLAIN)), "clean");
    assert_eq!(kind(race.issue_async(0, None, &[shared(32, 4)], &[], 2)), "clean");
    assert_eq!(kind(race.issue_async(0, None, &[shared(36, 4)], &[], 2)), "no proxy fence");
    assert_eq!(kind(race.issue_async(1, None, &[shared(32, 4)], &[], 2)), "race");
}

#[test]
fn an_asynchronous_write_over_bytes_that_were_read_needs_a_barrier_and_no_fence() {
    for (barrier, expected) in [(false, "race"), (true, "clean")] {
        let mut race = race();
        assert_eq!(kind(race.read(2, shared(32, 16), 1, PLAIN)), "clean");
        if barrier {
            meet(&mut race, &[2, 3]);
        }
        assert_eq!(kind(race.issue_async(3, None, &[], &[TILE], 2)), expected);
    }
}

#[test]
fn an_asynchronous_operation_is_over_for_those_who_waited_for_its_end() {
    let mut race = race();
    let op = race.issue_async(0, None, &[], &[TILE], 1).expect("nothing was there");
    assert_eq!(kind(race.read(0, shared(32, 4), 2, PLAIN)), "race", "not even the issuer");
    let clock = race.complete(op);
    race.acquire(1, &clock);
    assert_eq!(kind(race.read(1, shared(32, 4), 2, PLAIN)), "clean");
    assert_eq!(kind(race.read(2, shared(32, 4), 2, PLAIN)), "race");
    // What was written by an operation may be read by another without a fence.
    assert_eq!(kind(race.issue_async(1, Some(0), &[TILE], &[], 3)), "clean");
    assert_eq!(kind(race.write(1, shared(64, 4), 4, PLAIN)), "race", "the second one still reads");
}

#[test]
fn operations_of_a_queue_end_in_order_and_others_do_not() {
    for (queue, expected) in [(Some(1), "clean"), (None, "race")] {
        let mut race = race();
        let first = race.issue_async(0, queue, &[shared(0, 16)], &[], 1).expect("clean");
        let second = race.issue_async(0, queue, &[shared(16, 16)], &[], 1).expect("clean");
        let clock = race.complete(second);
        race.acquire(0, &clock);
        assert_eq!(kind(race.write(0, shared(16, 16), 2, PLAIN)), "clean");
        assert_eq!(kind(race.write(0, shared(0, 16), 2, PLAIN)), expected);
        let _ = race.complete(first);
    }
}

#[test]
fn slots_are_used_again_and_only_after_a_rest() {
    let mut race = race();
    let mut ops: Vec<Op> = Vec::new();
    for _ in 0..3 * RESTING_SLOTS {
        let op = race.issue_async(0, None, &[], &[TILE], 1).expect("the one before was waited for");
        let clock = race.complete(op);
        race.acquire(0, &clock);
        ops.push(op);
    }
    let again = ops.iter().position(|op| op.time == 2).expect("slots are used again");
    assert!(again > RESTING_SLOTS);
    assert!(ops.iter().all(|op| usize::from(op.agent) <= race.first_slot() + RESTING_SLOTS));
}

#[test]
fn what_cp_async_wrote_counts_as_stored() {
    let source = Range { region: Region::Global, start: 0, bytes: 16 };
    for (fence, expected) in [(false, "no proxy fence"), (true, "clean")] {
        let mut race = race();
        assert_eq!(kind(race.copy((0, 0, 0), shared(32, 16), source, 1)), "clean");
        let mut barrier = race.copies_clock(0);
        barrier.join(&race.release(0));
        race.acquire(1, &barrier);
        assert_eq!(kind(race.read(1, shared(32, 16), 2, PLAIN)), "clean");
        if fence {
            race.fence_proxy_async(1);
        }
        assert_eq!(kind(race.issue_async(1, None, &[TILE], &[], 2)), expected);
    }
}

#[test]
fn the_ctas_of_a_cluster_have_one_set_of_clocks_and_a_memory_each() {
    let mut race = Race::new(2, 2, 256);
    let remote = Range { region: Region::Shared(1), start: 16, bytes: 4 };
    assert_eq!(kind(race.write(0, shared(16, 4), 1, PLAIN)), "clean");
    // Warp 1 of CTA 1 has number 3.
    assert_eq!(kind(race.write(3, remote, 1, PLAIN)), "clean");
    meet(&mut race, &[1, 3]);
    assert_eq!(kind(race.write(1, remote, 2, PLAIN)), "clean");
    assert_eq!(kind(race.read(2, remote, 3, PLAIN)), "race");
    race.restart(256, race.place);
    assert_eq!(kind(race.read(2, remote, 3, PLAIN)), "clean");
}

#[test]
fn an_access_over_several_granules_is_checked_in_all() {
    let mut race = race();
    assert_eq!(kind(race.write(0, shared(99, 1), 1, PLAIN)), "clean");
    assert_eq!(kind(race.read(1, shared(80, 19), 1, PLAIN)), "clean");
    let Err(FaultKind::Race(found)) = race.read(1, shared(40, 100), 1, PLAIN) else { panic!("no race") };
    assert_eq!((found.address, found.bytes, found.earlier.warp), (99, 1, Some(0)));
}

/// One CTA writes and releases, the other acquires and reads; who ends first does not matter.
#[test]
fn ctas_are_ordered_by_a_release_and_an_acquire_whichever_ends_first() {
    let global = |start| Range { region: Region::Global, start, bytes: 4 };
    let flag = |semantics| Order { semantics, device: true };
    for (release, acquire, expected) in [
        (Semantics::Release, Semantics::Acquire, "clean"),
        (Semantics::Relaxed, Semantics::Acquire, "race"),
        (Semantics::Release, Semantics::Relaxed, "race"),
    ] {
        for writer_first in [false, true] {
            let (mut writer, mut reader) = (race(), race());
            assert_eq!(kind(writer.write(0, global(16), 1, PLAIN)), "clean");
            assert_eq!(kind(writer.write(0, global(0), 2, flag(release))), "clean");
            assert_eq!(kind(reader.read(0, global(0), 3, flag(acquire))), "clean");
            assert_eq!(kind(reader.read(0, global(16), 4, PLAIN)), "clean");
            let launch = Launch::new();
            let order = if writer_first { [&writer, &reader] } else { [&reader, &writer] };
            assert!(order[0].finish(&launch, 0, [2, 1, 1]).is_ok());
            assert_eq!(kind(order[1].finish(&launch, 1, [2, 1, 1]).map_err(|clash| clash.kind)), expected);
        }
    }
}

const WARPS: usize = 3;
const BYTES: u64 = 24;

#[derive(Clone, Debug)]
enum Event {
    Access {
        warp: usize,
        start: u64,
        bytes: u64,
        write: bool,
        strong: bool,
    },
    Async {
        warp: usize,
        start: u64,
        bytes: u64,
        write: bool,
    },
    /// The oldest operation in flight ends and the warp waits for it.
    Complete {
        warp: usize,
    },
    Fence {
        warp: usize,
    },
    Meet {
        warps: [usize; 2],
    },
}

fn event() -> impl Strategy<Value = Event> {
    let (warp, start, bytes) = (0..WARPS, 0..BYTES - 4, prop_oneof![Just(1_u64), Just(2), Just(4)]);
    let place = (warp, start, bytes);
    prop_oneof![
        4 => (place.clone(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(|((warp, start, bytes), write, strong)| {
            Event::Access { warp, start, bytes, write, strong }
        }),
        2 => (place, any::<bool>()).prop_map(|((warp, start, bytes), write)| Event::Async { warp, start, bytes, write }),
        2 => (0..WARPS).prop_map(|warp| Event::Complete { warp }),
        2 => (0..WARPS).prop_map(|warp| Event::Fence { warp }),
        6 => (0..WARPS, 1..WARPS).prop_map(|(a, step)| Event::Meet { warps: [a, (a + step) % WARPS] }),
    ]
}

/// One access, with all that it comes after.
struct Past {
    warp: usize,
    bytes: std::ops::Range<u64>,
    write: bool,
    strong: bool,
    asynchronous: bool,
}

/// Keeps every access and, for each warp, the sets of those before it.
#[derive(Default)]
struct Oracle {
    past: Vec<Past>,
    generic: [HashSet<usize>; WARPS],
    visible: [HashSet<usize>; WARPS],
    /// For each access and byte those it comes after, directly or through others on the same byte.
    behind: HashSet<(usize, usize, u64)>,
    flying: Vec<usize>,
}

impl Oracle {
    fn direct(&self, earlier: usize, now: &Past) -> bool {
        let past = &self.past[earlier];
        let (generic, visible) =
            (self.generic[now.warp].contains(&earlier), self.visible[now.warp].contains(&earlier));
        match (now.asynchronous, past.asynchronous) {
            (_, true) => generic || visible,
            (true, false) if past.write => visible,
            _ => generic,
        }
    }

    /// Records an access; true when it conflicts.
    fn access(&mut self, now: Past) -> bool {
        let id = self.past.len();
        let mut conflict = false;
        for byte in now.bytes.clone() {
            let here: Vec<usize> = (0..id).filter(|at| self.past[*at].bytes.contains(&byte)).collect();
            for at in &here {
                let through = |middle: &usize| {
                    middle > at
                        && self.direct(*middle, &now)
                        && self.behind.contains(&(*middle, *at, byte))
                        && (self.past[*middle].write || !self.past[*at].write)
                };
                if self.direct(*at, &now) || here.iter().any(through) {
                    self.behind.insert((id, *at, byte));
                    continue;
                }
                let past = &self.past[*at];
                conflict |= (past.write || now.write) && !(past.strong && now.strong);
            }
        }
        if now.asynchronous {
            self.flying.push(id);
        } else {
            self.generic[now.warp].insert(id);
        }
        self.past.push(now);
        conflict
    }
}

fn replay(events: &[Event]) -> Result<(), TestCaseError> {
    let (mut race, mut oracle, mut ops) = (Race::new(1, WARPS, 64), Oracle::default(), Vec::new());
    for event in events {
        let (found, expected) = match *event {
            Event::Access { warp, start, bytes, write, strong } => {
                let (range, order) = (shared(start, bytes), if strong { RELAXED } else { PLAIN });
                let found =
                    if write { race.write(warp, range, 1, order) } else { race.read(warp, range, 2, order) };
                let bytes = start..start + bytes;
                (found.is_err(), oracle.access(Past { warp, bytes, write, strong, asynchronous: false }))
            }
            Event::Async { warp, start, bytes, write } => {
                let range = [shared(start, bytes)];
                let (reads, writes): (&[Range], &[Range]) = if write { (&[], &range) } else { (&range, &[]) };
                let issued = race.issue_async(warp, None, reads, writes, 3);
                let found = issued.is_err();
                ops.extend(issued);
                let bytes = start..start + bytes;
                (found, oracle.access(Past { warp, bytes, write, strong: false, asynchronous: true }))
            }
            Event::Complete { warp } => {
                if !ops.is_empty() {
                    let clock = race.complete(ops.remove(0));
                    race.acquire(warp, &clock);
                    let id = oracle.flying.remove(0);
                    oracle.generic[warp].insert(id);
                    oracle.visible[warp].insert(id);
                }
                (false, false)
            }
            Event::Fence { warp } => {
                race.fence_proxy_async(warp);
                let known = oracle.generic[warp].clone();
                oracle.visible[warp].extend(known);
                (false, false)
            }
            Event::Meet { warps: [a, b] } => {
                meet(&mut race, &[a, b]);
                for sets in [&mut oracle.generic, &mut oracle.visible] {
                    let both: HashSet<usize> = sets[a].union(&sets[b]).copied().collect();
                    (sets[a], sets[b]) = (both.clone(), both);
                }
                (false, false)
            }
        };
        prop_assert_eq!(found, expected, "{:?}", event);
        if found {
            break;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forgetting what a later access stands for loses nothing and adds nothing.
    #[test]
    fn random_histories_get_the_verdict_of_a_checker_that_forgets_nothing(
        events in prop::collection::vec(event(), 1..60)
    ) {
        replay(&events)?;
    }
}
