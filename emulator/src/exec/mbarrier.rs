//! mbarrier objects (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier").
//!
//! An object counts arrivals and bytes of its current phase; when none are left the next phase starts. The objects lie
//! beside the shared memory, whose bytes only know that an object is there.

use super::access::addresses;
use super::asynchronous::{Block, SharedPlace, Work};
use super::events::{Event, Phase};
use super::hopper::Next;
use super::lanes::{LANES, lanes_of};
use super::race::Clock;
use super::step::Machine;
use super::warp::{Ran, Warp, at_lane, stop};
use crate::fault::FaultKind;
use crate::hopper::{Arrive, BarrierWait, Site};
use crate::program::{NONE, Slot};

/// Most arrivals, and most bytes, of a phase.
const MOST: u32 = (1 << 20) - 1;
/// Marks a state that an arrival returned; phase and pending count lie below.
const TOKEN: u64 = 0xb;

#[derive(Clone, Debug)]
pub(crate) struct Mbarrier {
    /// Tells it from an earlier one at its place.
    pub(super) object: u64,
    /// Arrivals of the next phase.
    expected: u32,
    pub(crate) pending: u32,
    pub(crate) bytes: i64,
    /// Phases that have ended.
    pub(crate) phase: u64,
    /// Ranges that became readable or will when the phase ends.
    landed: Vec<(u32, u32)>,
    /// Bytes that arrived in phases nobody has seen the end of.
    unobserved: u64,
}

fn misuse<T>(text: String) -> Result<T, FaultKind> {
    Err(FaultKind::Mbarrier(text))
}

impl Mbarrier {
    fn token(&self) -> u64 {
        TOKEN << 60 | (self.phase & ((1 << 40) - 1)) << 20 | u64::from(self.pending)
    }

    /// In words, for reports of who waits for what.
    pub(crate) fn describe(&self) -> String {
        format!(
            "phase {} (parity {}) still needs {} arrivals and {} bytes",
            self.phase,
            self.phase & 1,
            self.pending,
            self.bytes
        )
    }

    /// Bytes whose arrival no wait has seen.
    pub(crate) fn unseen(&self) -> u64 {
        self.unobserved + self.landed.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>()
    }
}

impl Machine<'_> {
    /// The object at a place.
    pub(super) fn mbarrier(&mut self, at: SharedPlace) -> Result<&mut Mbarrier, FaultKind> {
        let SharedPlace { rank, address } = at;
        self.peer(rank)?;
        let of = self.of_rank(rank);
        match self.cluster.ranks[rank as usize].barriers.get_mut(&address) {
            Some(found) => Ok(found),
            None if !address.is_multiple_of(8) => {
                misuse(format!("an mbarrier lies at a multiple of 8, not at shared address {address:#x}"))
            }
            None => misuse(format!(
                "there is no mbarrier at shared address {address:#x}{of}: initialise it with mbarrier.init, and let the \
                 other threads wait at a barrier until that is done"
            )),
        }
    }

    /// Names a CTA in clusters of more than one.
    fn of_rank(&self, rank: u32) -> String {
        if self.cluster.ranks.len() > 1 { format!(" of the CTA with rank {rank}") } else { String::new() }
    }

    /// Ends the phase if nothing is left of it.
    fn settle(&mut self, at: SharedPlace) -> Result<(), FaultKind> {
        self.cluster.effects += 1;
        let found = self.mbarrier(at)?;
        if found.pending > 0 || found.bytes != 0 {
            return Ok(());
        }
        found.phase += 1;
        found.pending = found.expected;
        let landed = std::mem::take(&mut found.landed);
        found.unobserved += landed.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
        let memory = self.peer(at.rank)?;
        for (address, bytes) in landed {
            memory.settle(address, bytes);
        }
        Ok(())
    }

    fn arrive_at(
        &mut self,
        at: SharedPlace,
        count: u32,
        drop: bool,
        no_complete: bool,
    ) -> Result<u64, FaultKind> {
        let found = self.mbarrier(at)?;
        if count == 0 || count > MOST {
            return misuse(format!("an arrival counts 1 to {MOST}, not {count}"));
        }
        if count > found.pending {
            return misuse(format!(
                "{count} more arrivals at the mbarrier at shared address {:#x}, of which phase {} expects only {}: more \
                 threads arrive than mbarrier.init was given, or one arrives twice without waiting",
                at.address, found.phase, found.pending
            ));
        }
        let token = found.token();
        found.pending -= count;
        if drop {
            found.expected = found.expected.saturating_sub(count);
        }
        if no_complete && found.pending == 0 {
            return misuse(format!(
                "mbarrier.arrive.noComplete is the last arrival of phase {} at shared address {:#x}: use the form \
                 without .noComplete",
                found.phase, at.address
            ));
        }
        self.settle(at)?;
        Ok(token)
    }

    pub(super) fn expect_bytes(&mut self, at: SharedPlace, bytes: i64) -> Result<(), FaultKind> {
        let found = self.mbarrier(at)?;
        found.bytes += bytes;
        if found.bytes.unsigned_abs() > u64::from(MOST) {
            return misuse(format!(
                "the mbarrier at shared address {:#x} is to track {} bytes; it can track {MOST}: split the copy over \
                 several mbarriers, and expect exactly the bytes that are copied",
                at.address, found.bytes
            ));
        }
        self.settle(at)
    }

    /// Data of an operation has landed at `address` of the barrier's CTA; it can be read when the phase ends.
    pub(super) fn complete_bytes(
        &mut self,
        at: SharedPlace,
        (address, bytes): (u32, u32),
        operation: u64,
        settles: bool,
    ) -> Result<(), FaultKind> {
        let found = self.mbarrier(at)?;
        let number = found.phase;
        if settles {
            found.landed.push((address, bytes));
        }
        let phase = Phase { rank: at.rank, address: at.address, number };
        self.event(Event::Complete { operation, phase })?;
        self.expect_bytes(at, -i64::from(bytes))
    }

    /// The arrival that `cp.async.mbarrier.arrive` promised.
    pub(super) fn copies_arrived(&mut self, at: SharedPlace, clock: &Clock) -> Result<(), FaultKind> {
        let number = self.mbarrier(at)?.phase;
        let phase = Phase { rank: at.rank, address: at.address, number };
        self.event(Event::CopiesArrive { phase, clock })?;
        self.arrive_at(at, 1, false, false).map(|_| ())
    }

    /// Addresses of a site for these lanes, as places in the cluster.
    pub(super) fn places(&self, warp: &Warp, site: Site, mask: u32) -> Ran<[SharedPlace; LANES]> {
        let raw = addresses(warp, site.address, mask)?;
        let mut out = [SharedPlace { rank: 0, address: 0 }; LANES];
        for lane in lanes_of(mask) {
            out[lane] = at_lane(self.place(site.space, raw[lane]), lane)?;
        }
        Ok(out)
    }

    /// As [`Machine::places`], for operations on the own CTA only.
    fn own_places(&self, warp: &Warp, site: Site, mask: u32) -> Ran<[SharedPlace; LANES]> {
        let places = self.places(warp, site, mask)?;
        if let Some(lane) = lanes_of(mask).find(|lane| places[*lane].rank != self.rank) {
            let text =
                "this operation works on mbarriers of the own CTA, and the address is that of another one";
            return stop(FaultKind::Mbarrier(text.to_owned()), Some(lane));
        }
        Ok(places)
    }

    /// Tells that the lanes work on these mbarriers, each once.
    fn use_barriers(&mut self, warp: &Warp, places: &[SharedPlace; LANES], mask: u32) -> Ran<()> {
        if self.cluster.race.is_none() {
            return Ok(());
        }
        let mut last = None;
        for lane in lanes_of(mask) {
            let SharedPlace { rank, address } = places[lane];
            if last != Some(places[lane]) {
                last = Some(places[lane]);
                let agent = self.agent(warp, 1 << lane);
                at_lane(self.event(Event::BarrierUse { agent, rank, address }), lane)?;
            }
        }
        Ok(())
    }

    pub(super) fn barrier_init(&mut self, warp: &Warp, at: Site, count: Slot, mask: u32) -> Ran<()> {
        let places = self.own_places(warp, at, mask)?;
        let counts = *warp.narrow(count, mask)?;
        for lane in lanes_of(mask) {
            let (address, count) = (places[lane].address, counts[lane]);
            let fault = |text: String| stop(FaultKind::Mbarrier(text), Some(lane));
            if count == 0 || count > MOST {
                return fault(format!("an mbarrier expects 1 to {MOST} arrivals, not {count}"));
            }
            if let Some(old) = self.cluster.ranks[self.rank as usize].barriers.get(&address) {
                return fault(format!(
                    "mbarrier.init where an mbarrier lives already (shared address {address:#x}, phase {}): let one thread \
                     initialise it, and end it with mbarrier.inval before it starts anew",
                    old.phase
                ));
            }
            at_lane(self.shared.begin_object(address), lane)?;
            let new = Mbarrier {
                object: self.cluster.operation(),
                expected: count,
                pending: count,
                bytes: 0,
                phase: 0,
                landed: Vec::new(),
                unobserved: 0,
            };
            self.cluster.ranks[self.rank as usize].barriers.insert(address, new);
            let agent = self.agent(warp, 1 << lane);
            at_lane(self.event(Event::BarrierStart { agent, rank: self.rank, address }), lane)?;
        }
        Ok(())
    }

    pub(super) fn barrier_invalidate(&mut self, warp: &Warp, at: Site, mask: u32) -> Ran<()> {
        let places = self.own_places(warp, at, mask)?;
        for lane in lanes_of(mask) {
            let place = places[lane];
            let found = at_lane(self.mbarrier(place).cloned(), lane)?;
            let busy = self.cluster.pending.iter().any(|pending| match &pending.work {
                Work::Load { ranks, barrier, .. } => {
                    ranks >> place.rank & 1 == 1 && *barrier == place.address
                }
                Work::Copy { to, barrier, .. } | Work::Write { to, barrier, .. } => {
                    to.rank == place.rank && *barrier == place.address
                }
                Work::Arrival { at, .. } => *at == place,
                Work::Store { .. } => false,
            });
            if busy || found.bytes != 0 || found.pending != found.expected {
                let text = format!(
                    "mbarrier.inval of the mbarrier at shared address {:#x} while it is in use ({}): wait for the end of \
                     its phase first",
                    place.address,
                    found.describe()
                );
                return stop(FaultKind::Mbarrier(text), Some(lane));
            }
            self.cluster.ranks[self.rank as usize].barriers.remove(&place.address);
            self.shared.end_object(place.address);
            let agent = self.agent(warp, 1 << lane);
            at_lane(self.event(Event::BarrierEnd { agent, rank: self.rank, address: place.address }), lane)?;
        }
        Ok(())
    }

    pub(super) fn barrier_arrive(&mut self, warp: &mut Warp, op: &Arrive, mask: u32) -> Ran<()> {
        let places = self.places(warp, op.at, mask)?;
        let counts = if op.count == NONE { [1; LANES] } else { *warp.narrow(op.count, mask)? };
        let bytes = if op.expect == NONE { None } else { Some(*warp.narrow(op.expect, mask)?) };
        let mut tokens = [0; LANES];
        self.use_barriers(warp, &places, mask)?;
        let agent = self.agent(warp, mask);
        at_lane(self.event(Event::Release { agent, release: op.release }), mask.trailing_zeros() as usize)?;
        for lane in lanes_of(mask) {
            let at = places[lane];
            if at.rank != self.rank && op.state != NONE {
                let text = "an mbarrier of another CTA returns no state: write `_` for it".to_owned();
                return stop(FaultKind::Mbarrier(text), Some(lane));
            }
            let number = at_lane(self.mbarrier(at), lane)?.phase;
            if let Some(bytes) = bytes {
                // Both happen at once: the phase cannot end in between, since this arrival is still to come.
                at_lane(self.expect_bytes(at, i64::from(bytes[lane])), lane)?;
            }
            let phase = Phase { rank: at.rank, address: at.address, number };
            at_lane(self.event(Event::Arrive { phase }), lane)?;
            tokens[lane] = at_lane(self.arrive_at(at, counts[lane], op.drop, op.no_complete), lane)?;
        }
        if op.state != NONE {
            warp.set_wide(op.state, mask, &tokens);
        }
        Ok(())
    }

    pub(super) fn barrier_bytes(
        &mut self,
        warp: &Warp,
        at: Site,
        bytes: Slot,
        sign: i64,
        mask: u32,
    ) -> Ran<()> {
        let places = self.places(warp, at, mask)?;
        let bytes = *warp.narrow(bytes, mask)?;
        self.use_barriers(warp, &places, mask)?;
        for lane in lanes_of(mask) {
            at_lane(self.expect_bytes(places[lane], sign * i64::from(bytes[lane])), lane)?;
        }
        Ok(())
    }

    /// The phase a lane asks for, if it has not ended.
    fn unfinished(
        &mut self,
        at: SharedPlace,
        op: &BarrierWait,
        asked: u64,
    ) -> Result<Option<Block>, FaultKind> {
        let Mbarrier { object, phase, .. } = *self.mbarrier(at)?;
        let block = Block::Mbarrier { address: at.address, object, phase };
        if op.parity {
            if asked > 1 {
                return misuse(format!("the parity of a phase is 0 or 1, not {asked}: mask it with 1"));
            }
            return Ok((phase & 1 == asked).then_some(block));
        }
        if asked >> 60 != TOKEN {
            return misuse("this is no state that an mbarrier.arrive returned".to_owned());
        }
        let of = asked >> 20 & ((1 << 40) - 1);
        if of > phase || of + 1 < phase {
            return misuse(format!(
                "the state is of phase {of} and the mbarrier at shared address {:#x} is in phase {phase}: a state serves \
                 for its own phase and the one after it",
                at.address
            ));
        }
        Ok((of == phase).then_some(block))
    }

    pub(super) fn barrier_wait(&mut self, warp: &mut Warp, op: &BarrierWait, mask: u32) -> Ran<Next> {
        let places = self.own_places(warp, op.at, mask)?;
        let asked = super::access::get(warp, op.phase, !op.parity, mask)?;
        self.use_barriers(warp, &places, mask)?;
        let (mut done, mut waits) = (0, None);
        let mut last = None;
        for lane in lanes_of(mask) {
            // Mostly all lanes ask the same.
            let found = match last {
                Some((at, phase, found)) if at == places[lane] && phase == asked[lane] => found,
                _ => at_lane(self.unfinished(places[lane], op, asked[lane]), lane)?,
            };
            last = Some((places[lane], asked[lane], found));
            match found {
                Some(block) => {
                    waits.get_or_insert(block);
                }
                None => done |= 1 << lane,
            }
        }
        let here = warp.pc;
        // A wait for the same phase as this one, begun earlier.
        let before = match (waits, warp.state.block) {
            (
                Some(Block::Mbarrier { object, phase, .. }),
                Some((Block::Mbarrier { object: same, phase: since, .. }, place)),
            ) if (place, same) == (here, object)
                && phase.checked_sub(since).is_some_and(|passed| passed.is_multiple_of(2)) =>
            {
                Some(since)
            }
            _ => None,
        };
        if let (Some(Block::Mbarrier { address, phase, .. }), Some(since)) = (waits, before)
            && phase > since
        {
            return stop(
                FaultKind::Mbarrier(format!(
                    "lapped: the warp waits for phase {since} of the mbarrier at shared address {address:#x}, which has \
                     meanwhile ended phases {since} to {}: its parity is the same again. Let the barrier wait for this \
                     warp before it goes on, for example by an arrival after this wait",
                    phase - 1
                )),
                Some(mask.trailing_zeros() as usize),
            );
        }
        for lane in lanes_of(done) {
            let at = places[lane];
            let first = lanes_of(done & ((1 << lane) - 1)).all(|other| places[other] != at);
            if first {
                let same =
                    lanes_of(done).filter(|other| places[*other] == at).fold(0, |m, other| m | 1 << other);
                let found = at_lane(self.mbarrier(at), lane)?;
                found.unobserved = 0;
                // The phase before the first has always ended, and nothing happened in it.
                let Some(number) = found.phase.checked_sub(1) else { continue };
                let phase = Phase { rank: at.rank, address: at.address, number };
                let agent = self.agent(warp, same);
                at_lane(self.event(Event::Observe { agent, phase, acquire: op.acquire }), lane)?;
            }
        }
        let Some(block) = waits else {
            (warp.state.block, warp.state.expired) = (None, None);
            warp.set_predicate(op.p, mask, u32::MAX);
            return Ok(Next::Go);
        };
        warp.state.block = Some((block, here));
        if done != 0 || !op.blocks {
            warp.set_predicate(op.p, mask, done);
            return Ok(if done == 0 { Next::Poll } else { Next::Go });
        }
        if !self.eager && warp.state.expired != Some((block, here)) {
            // A wait may return without success when its time is over: code that does not ask again shows.
            warp.state.expired = Some((block, here));
            warp.set_predicate(op.p, mask, 0);
            return Ok(Next::Go);
        }
        Ok(Next::Wait(block))
    }

    pub(super) fn pending_count(&self, warp: &mut Warp, d: Slot, state: Slot, mask: u32) -> Ran<()> {
        let states = *warp.wide(state, mask)?;
        let mut out = [0; LANES];
        for lane in lanes_of(mask) {
            if states[lane] >> 60 != TOKEN {
                let text = "this is no state that an mbarrier.arrive returned".to_owned();
                return stop(FaultKind::Mbarrier(text), Some(lane));
            }
            out[lane] = (states[lane] & u64::from(MOST)) as u32;
        }
        warp.set_narrow(d, mask, &out);
        Ok(())
    }

    pub(super) fn copy_arrive(
        &mut self,
        warp: &mut Warp,
        at: Site,
        no_increment: bool,
        mask: u32,
    ) -> Ran<()> {
        let places = self.own_places(warp, at, mask)?;
        self.use_barriers(warp, &places, mask)?;
        let number = self.race_warp(warp);
        let clock = self.cluster.race.as_mut().map_or_else(Clock::default, |race| race.copies_clock(number));
        for lane in lanes_of(mask) {
            let found = at_lane(self.mbarrier(places[lane]), lane)?;
            if !no_increment {
                found.pending += 1;
                if found.pending > MOST {
                    let text = format!("an mbarrier expects at most {MOST} arrivals");
                    return stop(FaultKind::Mbarrier(text), Some(lane));
                }
            }
            let work = Work::Arrival { at: places[lane], copies: warp.state.copies, clock: clock.clone() };
            let waits = warp.copies.iter().any(|copy| usize::from(copy.lane) == lane);
            if waits {
                self.enqueue(warp, lane, work);
            } else {
                at_lane(self.copies_arrived(places[lane], &clock), lane)?;
            }
        }
        Ok(())
    }
}
