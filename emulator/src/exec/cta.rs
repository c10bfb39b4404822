//! A CTA: its warps take turns, its sixteen barriers hold and release them.

use super::cluster::{Outcome, of_warp};
use super::lanes::{LANES, lanes_of};
use super::race::{Clock, Launch};
use super::shared::Scratch;
use super::step::{Machine, Turn, run};
use super::warp::{Status, Stop, Warp};
use crate::fault::{FaultKind, MemorySpace};
use crate::launch::Numerics;
use crate::memory::Memory;
use crate::program::{Barrier, BarrierKind, Constant, Kernel, NONE, Place, Special};
use crate::report::Counters;

/// What all CTAs of a launch share.
#[derive(Clone, Copy)]
pub(crate) struct Grid<'l> {
    pub(crate) kernel: &'l Kernel,
    pub(crate) memory: &'l Memory,
    pub(crate) params: &'l [u8],
    /// Addresses of the module's variables.
    pub(crate) globals: &'l [u64],
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared: u32,
    pub(crate) eager: bool,
    pub(crate) lenient: bool,
    pub(crate) numerics: Numerics,
    /// Where CTAs that look for races leave what they did.
    pub(crate) races: Option<&'l Launch>,
    /// For turns of random order and length.
    pub(crate) schedule_seed: Option<u64>,
    /// CTAs of a cluster.
    pub(crate) cluster: [u32; 3],
    pub(crate) explicit_cluster: bool,
    /// For the order of asynchronous completion, and for `elect.sync`.
    pub(crate) seed: u64,
}

/// A fault before the launch gives it names: what, where in the code, which warp and thread.
#[derive(Debug)]
pub(crate) struct CtaFault {
    pub(crate) kind: FaultKind,
    pub(crate) pc: Option<u32>,
    pub(crate) warp: Option<u32>,
    /// Number of the thread in its CTA.
    pub(crate) thread: Option<u32>,
    /// For divergence and deadlock: warp, lanes, instruction, reason.
    pub(crate) waiting: Vec<(u32, u32, u32, String)>,
}

#[derive(Clone, Debug, Default)]
struct Hold {
    /// Threads that arrived, by warps of 32.
    arrived: u32,
    /// Threads it was given, when it was.
    expected: Option<u32>,
    waiting: Vec<usize>,
    /// Of a reduction: threads for which the predicate held, threads that took part.
    yes: u32,
    taking_part: u32,
    /// What the warps that arrived did before.
    clock: Clock,
    /// The same of the last time it opened.
    last: Clock,
}

/// The state of a CTA, reused from one to the next.
pub(crate) struct Cta<'l> {
    grid: Grid<'l>,
    pub(super) machine: Machine<'l>,
    pub(super) warps: Vec<Warp>,
    holds: Vec<Hold>,
    pub(super) coordinates: [u32; 3],
}

impl<'l> Cta<'l> {
    pub(crate) fn new(grid: Grid<'l>, rank: u32) -> Self {
        let kernel = grid.kernel;
        let threads: u32 = grid.block.iter().product();
        let machine = Machine {
            kernel,
            memory: grid.memory,
            params: grid.params,
            shared: Scratch::default(),
            counters: Counters::default(),
            executed: vec![0; kernel.code.len()],
            eager: grid.eager,
            lenient: grid.lenient,
            numerics: grid.numerics,
            cluster: Box::default(),
            rank,
            first_warp: (rank * threads.div_ceil(32)) as usize,
            threads,
            entry_registers: kernel.entry_registers(),
        };
        let warps = (0..threads.div_ceil(32)).map(|_| Warp::new(kernel.files)).collect();
        Self { grid, machine, warps, holds: vec![Hold::default(); 16], coordinates: [0; 3] }
    }

    /// What all CTAs run so far counted together.
    pub(crate) fn into_counts(self) -> (Counters, Vec<u64>) {
        (self.machine.counters, self.machine.executed)
    }

    /// Have all warps exited?
    pub(super) fn is_done(&self) -> bool {
        self.warps.iter().all(|warp| warp.status == Status::Done)
    }

    /// Gives a warp its turn of so many instructions; `spend` is told of steps and says whether to go on.
    pub(super) fn turn(
        &mut self,
        at: usize,
        length: u32,
        spend: impl Fn(u64) -> Result<(), FaultKind>,
    ) -> Result<Outcome, CtaFault> {
        let before: u64 = self.machine.counters.thread_instructions;
        let effects = self.machine.cluster.effects;
        let turn = run(&mut self.machine, &mut self.warps[at], length);
        // Steps of a warp whose lanes are all switched off execute nothing but still take time.
        let steps = (self.machine.counters.thread_instructions - before) / LANES as u64;
        let mut steps = steps.max(1);
        let quiet = self.machine.cluster.effects == effects;
        let mut outcome = if quiet { Outcome::Private } else { Outcome::Progress };
        match turn {
            Err(stop) => return Err(self.fault(at, *stop)),
            Ok(Turn::Over) => {
                steps = u64::from(length);
                // A short turn may end between two tries of a loop that waits.
                if quiet && self.warps[at].state.block.is_some() {
                    outcome = Outcome::Poll;
                }
            }
            Ok(Turn::Poll) if quiet => outcome = Outcome::Poll,
            Ok(Turn::Poll) => {}
            Ok(Turn::Blocked) => {
                let pc = self.warps[at].pc;
                self.warps[at].status = Status::Blocked(pc);
                outcome = Outcome::Progress;
            }
            Ok(Turn::ClusterArrival) => outcome = Outcome::Progress,
            Ok(Turn::Done) => {
                self.warps[at].status = Status::Done;
                (0..16).for_each(|id| self.release(id));
                outcome = Outcome::Progress;
            }
            Ok(Turn::Barrier(barrier)) => {
                self.arrive(at, barrier).map_err(|kind| self.fault(at, of_warp(kind)))?;
                outcome = Outcome::Progress;
            }
        }
        spend(steps).map_err(|kind| self.fault(at, of_warp(kind)))?;
        Ok(outcome)
    }

    /// Puts all warps at the start of the kernel.
    pub(super) fn start(&mut self, cta: [u32; 3]) {
        self.coordinates = cta;
        self.machine.counters.ctas += 1;
        let Grid { kernel, block, lenient, .. } = self.grid;
        self.machine.shared.reset(self.grid.shared_bytes(), MemorySpace::Shared);
        self.holds.fill(Hold::default());
        let threads: u32 = block.iter().product();
        for at in 0..self.warps.len() {
            let warp = &mut self.warps[at];
            let first = at as u32 * 32;
            let live = u32::MAX >> (32 - (threads - first).min(32));
            warp.restart(at as u32, live, lenient);
            warp.state.restart(if kernel.touched.is_empty() { 0 } else { kernel.files[0] });
            // A kernel without local variables can still name local addresses.
            warp.local.resize_with(LANES, Scratch::default);
            for local in &mut warp.local {
                local.reset(kernel.local_bytes as usize, MemorySpace::Local);
            }
            for (place, constant) in &kernel.constants {
                let value = match constant {
                    Constant::Bits(bits) => *bits,
                    Constant::Global(index, offset) => {
                        self.grid.globals[*index as usize].wrapping_add(*offset as u64)
                    }
                };
                fill(warp, *place, &[value; LANES]);
            }
            for (place, special) in &kernel.specials {
                let value = std::array::from_fn(|lane| self.grid.special(*special, cta, first, lane as u32));
                fill(warp, *place, &value);
            }
        }
    }

    fn arrive(&mut self, at: usize, barrier: &Barrier) -> Result<(), FaultKind> {
        let misuse = |text: String| Err(FaultKind::BarrierMisuse(text));
        let warp = &self.warps[at];
        let live = warp.live;
        let one = |slot| {
            let values = warp.narrow(slot, live).map_err(|stop| stop.kind)?;
            let mut lanes = lanes_of(live).map(|lane| values[lane]);
            let first = lanes.next().unwrap_or(0);
            if lanes.all(|value| value == first) {
                Ok(first)
            } else {
                misuse("the lanes of a warp name different barriers or thread counts".to_owned()).map(|()| 0)
            }
        };
        let id = one(barrier.id)?;
        if id > 15 {
            return misuse(format!("barrier {id} does not exist: a CTA has barriers 0 to 15"));
        }
        let threads = if barrier.threads == NONE { None } else { Some(one(barrier.threads)?) };
        if let Some(threads) = threads
            && (threads == 0 || !threads.is_multiple_of(32))
        {
            return misuse(format!(
                "barrier {id} is given {threads} threads, which is no positive multiple of 32"
            ));
        }
        let (yes, part) = match barrier.kind {
            BarrierKind::ReducePopc(_, p, negated) | BarrierKind::ReduceLogic(_, p, negated, _) => {
                let value = warp.predicate(p, live).map_err(|stop| stop.kind)?;
                ((live & if negated { !value } else { value }).count_ones(), live.count_ones())
            }
            _ => (0, 0),
        };
        let hold = &mut self.holds[id as usize];
        if hold.arrived > 0 && hold.expected != threads {
            let text =
                |threads: Option<u32>| threads.map_or("all threads".to_owned(), |n| format!("{n} threads"));
            let (first, now) = (text(hold.expected), text(threads));
            return misuse(format!("barrier {id} was entered for {first} and now for {now}"));
        }
        if let Some(race) = &mut self.machine.cluster.race {
            let clock = race.release(self.machine.first_warp + at);
            if !clock.is_after(&hold.last) {
                return misuse(format!(
                    "nothing orders this warp behind the last time that barrier {id} opened: warps of then and of now may meet \
                     at it; give each group of warps a barrier of its own"
                ));
            }
            hold.clock.join(&clock);
        }
        hold.expected = threads;
        hold.arrived += 32;
        (hold.yes, hold.taking_part) = (hold.yes + yes, hold.taking_part + part);
        if barrier.kind == BarrierKind::Arrive {
            self.warps[at].pc += 1;
        } else {
            hold.waiting.push(at);
            self.machine.counters.barrier_waits += 1;
            let pc = self.warps[at].pc;
            self.warps[at].status = Status::AtBarrier(id, pc);
        }
        if let Some(expected) = threads
            && self.holds[id as usize].arrived > expected
        {
            return misuse(format!("more than the {expected} threads that barrier {id} was given arrived"));
        }
        self.release(id as usize);
        Ok(())
    }

    /// Opens a barrier whose last warp has come; without a count it waits for the warps that have not exited.
    fn release(&mut self, id: usize) {
        let hold = &self.holds[id];
        if hold.arrived == 0 {
            return;
        }
        let living = self.warps.iter().filter(|warp| warp.status != Status::Done).count() as u32 * 32;
        if hold.arrived < hold.expected.unwrap_or(living) {
            return;
        }
        let mut hold = std::mem::take(&mut self.holds[id]);
        self.holds[id].last = std::mem::take(&mut hold.clock);
        let opened = &self.holds[id].last;
        for at in hold.waiting {
            let warp = &mut self.warps[at];
            let live = warp.live;
            if let crate::program::Op::Barrier(barrier) = &self.grid.kernel.code[warp.pc as usize].op {
                match barrier.kind {
                    BarrierKind::ReducePopc(d, ..) => warp.set_narrow(d, live, &[hold.yes; LANES]),
                    BarrierKind::ReduceLogic(d, _, _, and) => {
                        let holds = if and { hold.yes == hold.taking_part } else { hold.yes > 0 };
                        warp.set_predicate(d, live, if holds { u32::MAX } else { 0 });
                    }
                    BarrierKind::Sync | BarrierKind::Arrive => {}
                }
            }
            warp.pc += 1;
            warp.status = Status::Ready;
            if let Some(race) = &mut self.machine.cluster.race {
                race.acquire(self.machine.first_warp + at, opened);
            }
        }
    }

    fn fault(&self, at: usize, stop: Stop) -> CtaFault {
        let warp = &self.warps[at];
        let mut waiting = Vec::new();
        if matches!(stop.kind, FaultKind::Divergence(_)) {
            for path in &warp.others {
                let reason = "waits for the warp's other lanes".to_owned();
                waiting.push((warp.id, path.mask, path.pc, reason));
            }
        }
        let pc = waiting.first().map_or(warp.pc, |first| first.2);
        let thread = stop.lane.map(|lane| warp.id * 32 + lane as u32);
        CtaFault { kind: stop.kind, pc: Some(pc), warp: Some(warp.id), thread, waiting }
    }

    /// What a warp at a barrier waits for, and where.
    pub(super) fn at_barrier(&self, at: usize) -> Option<(String, u32)> {
        let Status::AtBarrier(id, pc) = self.warps[at].status else { return None };
        let hold = &self.holds[id as usize];
        let wanted = hold.expected.map_or("all living threads".to_owned(), |n| format!("{n} threads"));
        Some((format!("waits at barrier {id} for {wanted}, {} arrived,", hold.arrived), pc))
    }
}

/// Writes a slot that no instruction writes.
fn fill(warp: &mut Warp, place: Place, value: &[u64; LANES]) {
    match place {
        Place::Narrow(slot) => warp.set_narrow(slot, u32::MAX, &value.map(|x| x as u32)),
        Place::Wide(slot) => warp.set_wide(slot, u32::MAX, value),
        Place::Predicate(slot) => warp.set_predicate(slot, u32::MAX, value[0] as u32),
    }
}

impl Grid<'_> {
    /// Shared memory of a CTA.
    pub(super) fn shared_bytes(&self) -> usize {
        let (kernel, dynamic) = (self.kernel, self.dynamic_shared);
        (if dynamic == 0 { kernel.static_shared } else { kernel.dynamic_shared + dynamic }) as usize
    }

    fn special(&self, special: Special, cta: [u32; 3], first: u32, lane: u32) -> u64 {
        let thread = first + lane;
        let [x, y, _] = self.block;
        let tid = [thread % x, thread / x % y, thread / x / y];
        u64::from(match special {
            Special::Tid(axis) => tid[usize::from(axis)],
            Special::Ntid(axis) => self.block[usize::from(axis)],
            Special::Ctaid(axis) => cta[usize::from(axis)],
            Special::Nctaid(axis) => self.grid[usize::from(axis)],
            Special::LaneId => lane,
            Special::WarpId => first / 32,
            Special::WarpCount => self.block.iter().product::<u32>().div_ceil(32),
            Special::LaneMask(0) => 1 << lane,
            Special::LaneMask(1) => u32::MAX >> (31 - lane),
            Special::LaneMask(2) => (1 << lane) - 1,
            Special::LaneMask(3) => u32::MAX << lane,
            Special::LaneMask(_) => !(u32::MAX >> (31 - lane)),
            Special::DynamicShared => self.dynamic_shared,
            Special::TotalShared => self.kernel.static_shared + self.dynamic_shared,
            Special::Zero => 0,
            Special::One => 1,
            Special::ClusterId(axis) => cta[usize::from(axis)] / self.cluster[usize::from(axis)],
            Special::ClusterCount(axis) => self.grid[usize::from(axis)] / self.cluster[usize::from(axis)],
            Special::ClusterCtaid(axis) => cta[usize::from(axis)] % self.cluster[usize::from(axis)],
            Special::ClusterNctaid(axis) => self.cluster[usize::from(axis)],
            Special::ClusterRank => {
                let [x, y, _] = self.cluster;
                let at: [u32; 3] = std::array::from_fn(|axis| cta[axis] % self.cluster[axis]);
                at[0] + x * (at[1] + y * at[2])
            }
            Special::ClusterSize => self.cluster.iter().product(),
            Special::ExplicitCluster => u32::from(self.explicit_cluster) * u32::MAX,
        })
    }
}
