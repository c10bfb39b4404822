//! A cluster: its CTAs run together in one worker, their warps in turns; asynchronous work completes when no warp can go
//! on without it. A CTA without a cluster is a cluster of one.

use super::asynchronous::{Block, ClusterState, Pending, Work};
use super::cta::{Cta, CtaFault, Grid};
use super::race::{Place, Race};
use super::schedule::Schedule;
use super::warp::{Status, Stop};
use crate::fault::FaultKind;
use crate::report::Counters;

/// Rounds in which every warp merely polled before that counts as a deadlock: loops that give up after some tries end
/// well before.
const POLLS: u32 = 100_000;
/// Rounds after which something pending completes although warps go on: a loop that polls memory must see its end.
const PATIENCE: u32 = 4096;

/// A store whose source may be gone before it is read.
const UNREAD: &str = "the CTA exits while this copy still reads its shared memory: cp.async.bulk.commit_group and \
                      cp.async.bulk.wait_group.read 0 must come before the exit, in the thread that issued it";

/// What a turn of a warp brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something that may let other warps go on.
    Progress,
    /// Instructions that no other warp can notice.
    Private,
    /// Nothing: it waits or asks again.
    Poll,
}

/// A fault and the CTA it happened in.
pub(crate) type ClusterFault = ([u32; 3], CtaFault);

/// The CTAs of a cluster, reused from one to the next.
pub(crate) struct Cluster<'l> {
    ctas: Vec<Cta<'l>>,
    /// Between turns; during one the CTA's machine holds it.
    state: Box<ClusterState>,
    grid: Grid<'l>,
}

impl<'l> Cluster<'l> {
    pub(crate) fn new(grid: Grid<'l>) -> Self {
        let size: u32 = grid.cluster.iter().product();
        let ctas: Vec<Cta<'l>> = (0..size).map(|rank| Cta::new(grid, rank)).collect();
        let mut state: Box<ClusterState> = Box::default();
        if grid.races.is_some() {
            let warps = ctas.first().map_or(0, |cta| cta.warps.len());
            state.race = Some(Box::new(Race::new(ctas.len(), warps, 0)));
        }
        Self { ctas, state, grid }
    }

    /// What all clusters run so far counted together.
    pub(crate) fn into_counts(self) -> (Counters, Vec<u64>) {
        let mut parts = self.ctas.into_iter().map(Cta::into_counts);
        let (mut counters, mut executed) = parts.next().unwrap_or_default();
        for (other, times) in parts {
            counters.add(&other);
            executed.iter_mut().zip(times).for_each(|(all, part)| *all += part);
        }
        (counters, executed)
    }

    /// Lends the shared state to a CTA, or takes it back.
    fn exchange(&mut self, rank: usize) {
        let machine = &mut self.ctas[rank].machine;
        // The memory lies with the state between turns and with the machine during one.
        let lent = self.state.ranks.len() > rank;
        if lent {
            std::mem::swap(&mut machine.shared, &mut self.state.ranks[rank].memory);
        }
        std::mem::swap(&mut machine.cluster, &mut self.state);
        if !lent && self.state.ranks.len() > rank {
            std::mem::swap(&mut machine.shared, &mut self.state.ranks[rank].memory);
        }
    }

    /// Runs the cluster whose first CTA is `first` to its end; `spend` is told of steps and says whether to go on.
    pub(crate) fn run(
        &mut self,
        first: [u32; 3],
        number: u64,
        spend: impl Fn(u64) -> Result<(), FaultKind>,
    ) -> Result<(), ClusterFault> {
        self.state.restart(self.ctas.len(), self.grid.seed, number);
        let shape = self.grid.cluster;
        let [x, y, _] = shape;
        if let Some(race) = &mut self.state.race {
            race.restart(self.grid.shared_bytes(), Place { first, shape });
        }
        for rank in 0..self.ctas.len() {
            let at = rank as u32;
            let offset = [at % x, at / x % y, at / x / y];
            self.ctas[rank].start(std::array::from_fn(|axis| first[axis] + offset[axis]));
            let machine = &mut self.ctas[rank].machine;
            std::mem::swap(&mut machine.shared, &mut self.state.ranks[rank].memory);
        }
        let warps = self.ctas.first().map_or(1, |cta| cta.warps.len());
        let all = warps * self.ctas.len();
        let mut schedule = Schedule::new(self.grid.schedule_seed, number, all);
        let (mut polls, mut rounds) = (0, 0_u32);
        loop {
            let (mut progress, mut private, mut poll) = (false, false, false);
            schedule.shuffle();
            for place in 0..all {
                let (at, length) = schedule.turn(place);
                let (rank, warp) = (at / warps, at % warps);
                if !self.runnable(rank, warp) {
                    continue;
                }
                match self.turn(rank, warp, length, &spend)? {
                    Outcome::Progress => progress = true,
                    Outcome::Private => private = true,
                    Outcome::Poll => poll = true,
                }
            }
            if self.ctas.iter().all(Cta::is_done) {
                return self.finish(number);
            }
            rounds = rounds.wrapping_add(1);
            if progress && !rounds.is_multiple_of(PATIENCE) {
                polls = 0;
            } else if !self.state.pending.is_empty() {
                self.complete_one()?;
            } else if progress {
                polls = 0;
            } else if poll && !private {
                polls += 1;
                if polls > POLLS {
                    return Err(self.deadlock());
                }
            } else if !private {
                return Err(self.deadlock());
            }
        }
    }

    /// Can a warp go on? Wakes those whose wait is over.
    fn runnable(&mut self, rank: usize, at: usize) -> bool {
        let warp = &mut self.ctas[rank].warps[at];
        let Status::Blocked(_) = warp.status else { return warp.status == Status::Ready };
        let Some((block, _)) = warp.state.block else { return false };
        let waits = match block {
            Block::Mbarrier { address, object, phase } => {
                let found = self.state.ranks[rank].barriers.get(&address);
                found.is_some_and(|found| (found.object, found.phase) == (object, phase))
            }
            Block::Bulk { .. } => self.state.bulk_pending(rank as u32, warp.id, &warp.state, block),
            Block::Cluster { phase } => self.state.phase == phase,
            Block::Registers { needed } => self.state.ranks[rank].pool < needed,
        };
        if !waits {
            warp.status = Status::Ready;
        }
        !waits
    }

    fn turn(
        &mut self,
        rank: usize,
        warp: usize,
        length: u32,
        spend: &impl Fn(u64) -> Result<(), FaultKind>,
    ) -> Result<Outcome, ClusterFault> {
        self.exchange(rank);
        let result = self.ctas[rank].turn(warp, length, spend);
        self.exchange(rank);
        let outcome = result.map_err(|fault| self.at(rank, fault))?;
        // The cluster's barrier may open by an arrival or by an exit.
        let warp = &self.ctas[rank].warps[warp];
        if warp.status == Status::Done || warp.state.cluster_lanes != 0 {
            self.open_barrier();
        }
        if self.ctas[rank].is_done() && !self.state.ranks[rank].exited {
            self.leave(rank)?;
        }
        Ok(outcome)
    }

    fn at(&self, rank: usize, fault: CtaFault) -> ClusterFault {
        (self.ctas[rank].coordinates, fault)
    }

    /// Ends the phase of the cluster's barrier when all threads that have not exited arrived.
    fn open_barrier(&mut self) {
        let phase = self.state.phase;
        let mut arrived = false;
        for warp in self.ctas.iter().flat_map(|cta| &cta.warps) {
            let here = warp.state.cluster_arrived(phase);
            if warp.status != Status::Done && warp.live & !here != 0 {
                return;
            }
            arrived |= here != 0;
        }
        if arrived {
            self.state.phase += 1;
        }
    }

    /// What a CTA must have settled when its last warp exits: from now on its shared memory may belong to another CTA.
    fn leave(&mut self, rank: usize) -> Result<(), ClusterFault> {
        let own = rank as u32;
        let touches = |pending: &&Pending| match &pending.work {
            Work::Load { ranks, .. } => ranks >> own & 1 == 1,
            Work::Store { from, data, .. } => from.rank == own && data.is_none(),
            Work::Copy { from, to, .. } => from.rank == own || to.rank == own,
            Work::Write { to, .. } => to.rank == own,
            Work::Arrival { at, .. } => at.rank == own,
        };
        let warps = self.ctas[rank].warps.len();
        if let Some((warp, lane, pc)) = self.state.ordering.unread(rank * warps..(rank + 1) * warps) {
            // Known when races are looked for, and then whether or not the copy has read by now.
            let warp = (warp % warps) as u32;
            let fault = CtaFault {
                kind: FaultKind::Bulk(UNREAD.to_owned()),
                pc: Some(pc),
                warp: Some(warp),
                thread: Some(warp * 32 + lane as u32),
                waiting: Vec::new(),
            };
            return Err(self.at(rank, fault));
        }
        if let Some(pending) = self.state.pending.iter().find(touches).cloned() {
            let text = match &pending.work {
                Work::Store { .. } => UNREAD,
                _ => {
                    "the CTA exits while this operation still works on its shared memory or on an mbarrier in it: wait \
                     for it before the exit (in a cluster, all CTAs wait for each other with barrier.cluster)"
                }
            };
            let fault = self.blame(&pending, FaultKind::Bulk(text.to_owned()));
            return Err(fault);
        }
        if let Some((address, found)) =
            self.state.ranks[rank].barriers.iter().find(|(_, barrier)| barrier.unseen() > 0)
        {
            let text = format!(
                "the CTA exits and nobody has waited for {} bytes that bulk copies brought under the mbarrier at shared \
                 address {address:#x}: wait for its phase before the exit",
                found.unseen()
            );
            let fault = CtaFault {
                kind: FaultKind::Bulk(text),
                pc: None,
                warp: None,
                thread: None,
                waiting: Vec::new(),
            };
            return Err(self.at(rank, fault));
        }
        self.state.ranks[rank].exited = true;
        Ok(())
    }

    /// Completes one of the pending operations, which the seed chooses.
    fn complete_one(&mut self) -> Result<(), ClusterFault> {
        let index = self.state.choose(self.state.pending.len());
        let pending = self.state.pending[index].clone();
        let rank = pending.rank as usize;
        self.exchange(rank);
        let cta = &mut self.ctas[rank];
        let mut result = Ok(());
        if let Work::Arrival { copies, .. } = pending.work {
            let warp = &mut cta.warps[pending.warp as usize];
            result = cta
                .machine
                .land(warp, 1 << pending.lane, |copy| copy.number <= copies)
                .map_err(|stop| stop.kind);
        }
        let result = result.and_then(|()| cta.machine.complete(index));
        self.exchange(rank);
        result.map_err(|kind| self.blame(&pending, kind))
    }

    /// A fault of an operation, told at the instruction that issued it.
    fn blame(&self, pending: &Pending, kind: FaultKind) -> ClusterFault {
        let thread = pending.warp * 32 + u32::from(pending.lane);
        let fault = CtaFault {
            kind,
            pc: Some(pending.pc),
            warp: Some(pending.warp),
            thread: Some(thread),
            waiting: Vec::new(),
        };
        self.at(pending.rank as usize, fault)
    }

    /// Everything pending once all warps have exited: results on their way to global memory arrive. Then races with the
    /// clusters that ended before this one are looked for.
    fn finish(&mut self, number: u64) -> Result<(), ClusterFault> {
        while !self.state.pending.is_empty() {
            self.complete_one()?;
        }
        let (Some(race), Some(launch)) = (&self.state.race, self.grid.races) else { return Ok(()) };
        race.finish(launch, number as u32, self.grid.grid).map_err(|clash| {
            let fault = CtaFault {
                kind: clash.kind,
                pc: Some(clash.pc),
                warp: clash.warp,
                thread: None,
                waiting: Vec::new(),
            };
            self.at(clash.rank, fault)
        })
    }

    fn deadlock(&self) -> ClusterFault {
        let mut waiting = Vec::new();
        for (rank, cta) in self.ctas.iter().enumerate() {
            let of = if self.ctas.len() > 1 { format!("of CTA rank {rank} ") } else { String::new() };
            for (at, warp) in cta.warps.iter().enumerate() {
                let (reason, pc) = match (warp.status, warp.state.block) {
                    (Status::AtBarrier(..), _) => match cta.at_barrier(at) {
                        Some(found) => found,
                        None => continue,
                    },
                    (Status::Ready | Status::Blocked(_), Some((block, pc))) => (self.reason(rank, block), pc),
                    (Status::Ready | Status::Blocked(_), None) => ("polls".to_owned(), warp.pc),
                    (Status::Done, _) => continue,
                };
                waiting.push((warp.id, warp.live, pc, format!("{of}{reason}")));
            }
        }
        let fault =
            CtaFault { kind: FaultKind::Deadlock(Vec::new()), pc: None, warp: None, thread: None, waiting };
        self.at(0, fault)
    }

    fn reason(&self, rank: usize, block: Block) -> String {
        match block {
            Block::Mbarrier { address, phase, .. } => {
                let state = self.state.ranks[rank].barriers.get(&address);
                let state = state.map_or("which is gone".to_owned(), |found| found.describe());
                format!("waits for phase {phase} of the mbarrier at shared address {address:#x}: {state},")
            }
            Block::Bulk { .. } => "waits for bulk groups".to_owned(),
            Block::Cluster { phase } => {
                let warps = self.ctas.iter().flat_map(|cta| &cta.warps);
                let missing: u32 = warps
                    .filter(|warp| warp.status != Status::Done)
                    .map(|warp| (warp.live & !warp.state.cluster_arrived(self.state.phase)).count_ones())
                    .sum();
                format!("waits at barrier.cluster, phase {phase}, where {missing} threads have not arrived,")
            }
            Block::Registers { needed } => format!(
                "waits for {} registers per thread more, which setmaxnreg.dec of other warps must give back,",
                needed / 32
            ),
        }
    }
}

/// A stop with nobody to blame but the warp.
pub(crate) fn of_warp(kind: FaultKind) -> Stop {
    Stop { kind, lane: None }
}
