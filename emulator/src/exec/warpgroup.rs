//! What the four warps of a warpgroup must do alike: `wgmma` and `setmaxnreg`.

use std::collections::VecDeque;

use super::asynchronous::Block;
use super::hopper::Next;
use super::step::Machine;
use super::warp::{Ran, Warp, stop};
use crate::fault::FaultKind;

/// An instruction that the four warps execute in the same order: place, and descriptors where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) pc: u32,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) accumulate: bool,
}

/// The order of such instructions, from the first that some warp has not executed.
#[derive(Debug, Default)]
pub(crate) struct Warpgroup {
    steps: VecDeque<Step>,
    /// Number of the first in `steps`.
    first: u64,
    /// How many each warp has executed.
    executed: [u64; 4],
    /// Registers of a thread, for each warp; `None` before the first `setmaxnreg`.
    registers: [Option<u32>; 4],
}

impl Machine<'_> {
    /// Holds an instruction of a warp against what the others of its warpgroup executed.
    pub(super) fn together(&mut self, warp: &Warp, step: Step) -> Ran<()> {
        let group = warp.id as usize / 4;
        let groups = &mut self.cluster.ranks[self.rank as usize].warpgroups;
        if groups.len() <= group {
            groups.resize_with(group + 1, Warpgroup::default);
        }
        let found = &mut groups[group];
        let executed = &mut found.executed[warp.id as usize % 4];
        let at = (*executed - found.first) as usize;
        *executed += 1;
        match found.steps.get(at) {
            None => found.steps.push_back(step),
            Some(other) if *other == step => {}
            Some(other) => {
                let line = |pc: u32| self.kernel.lines.get(pc as usize).copied().unwrap_or(0);
                let text = if other.pc == step.pc {
                    format!(
                        "the warps of a warpgroup execute this wgmma with different operands: descriptors {:#x}, {:#x}, \
                         scale-d {}, and here {:#x}, {:#x}, {}; compute them from values that all four warps share",
                        other.a, other.b, other.accumulate, step.a, step.b, step.accumulate
                    )
                } else {
                    format!(
                        "another warp of this warpgroup executed line {} where this one executes line {}: the four warps \
                         must execute the same wgmma and setmaxnreg instructions in the same order",
                        line(other.pc),
                        line(step.pc)
                    )
                };
                return stop(FaultKind::Warpgroup(text), None);
            }
        }
        let least = found.executed.iter().min().copied().unwrap_or(0);
        while found.first < least {
            found.steps.pop_front();
            found.first += 1;
        }
        Ok(())
    }

    /// The warpgroup is whole.
    pub(super) fn whole(&self, warp: &Warp) -> Ran<()> {
        let needed = (warp.id / 4 + 1) * 128;
        if self.threads < needed || warp.live != u32::MAX {
            let text = format!(
                "this needs a whole warpgroup, 4 warps of 32 threads; the CTA has {} threads{}",
                self.threads,
                if warp.live == u32::MAX { "" } else { ", and some lanes of this warp have exited" }
            );
            return stop(FaultKind::Warpgroup(text), None);
        }
        Ok(())
    }

    /// When a warp exits.
    pub(super) fn leave(&self, warp: &Warp) -> Ran<()> {
        if !warp.state.flight.is_empty() {
            let text = format!(
                "the warp exits while wgmma of lines {} are in flight: wait with wgmma.wait_group 0",
                warp.state.flight.lines(self.kernel)
            );
            return stop(FaultKind::Warpgroup(text), None);
        }
        self.leave_warpgroup(warp)
    }

    /// All steps its warpgroup has executed must have been executed by it.
    fn leave_warpgroup(&self, warp: &Warp) -> Ran<()> {
        let groups = &self.cluster.ranks[self.rank as usize].warpgroups;
        let Some(found) = groups.get(warp.id as usize / 4) else { return Ok(()) };
        let at = (found.executed[warp.id as usize % 4] - found.first) as usize;
        let Some(next) = found.steps.get(at) else { return Ok(()) };
        let line = self.kernel.lines.get(next.pc as usize).copied().unwrap_or(0);
        let text = format!(
            "the warp exits, but other warps of its warpgroup executed line {line}, which it did not: all four must"
        );
        stop(FaultKind::Warpgroup(text), None)
    }

    /// `setmaxnreg`: registers of a thread are given back to, or taken from, the CTA's pool.
    pub(super) fn set_registers(&mut self, warp: &mut Warp, increase: bool, count: u32) -> Ran<Next> {
        self.whole(warp)?;
        // Without the count at entry the assembler ignores the instruction; the report says so.
        if let Some(entry) = self.entry_registers {
            let groups = &self.cluster.ranks[self.rank as usize].warpgroups;
            let known = groups.get(warp.id as usize / 4).and_then(|g| g.registers[warp.id as usize % 4]);
            let now = known.unwrap_or(entry);
            // The count at entry is the assembler's affair, which may have needed fewer.
            if known.is_some() && (increase && count < now || !increase && count > now) {
                let (what, way) = if increase { ("inc", "fewer") } else { ("dec", "more") };
                let text = format!(
                    "setmaxnreg.{what} to {count} registers, which are {way} than the {now} the warp has: use the other \
                     direction"
                );
                return stop(FaultKind::Warpgroup(text), None);
            }
            let needed = (i64::from(count) - i64::from(now)) * 32;
            let pool = self.cluster.ranks[self.rank as usize].pool;
            if needed > pool {
                return Ok(Next::Wait(Block::Registers { needed }));
            }
            self.cluster.ranks[self.rank as usize].pool -= needed;
            self.cluster.effects += 1;
        }
        self.together(warp, Step { pc: warp.pc, a: 0, b: 0, accumulate: false })?;
        let group = &mut self.cluster.ranks[self.rank as usize].warpgroups[warp.id as usize / 4];
        group.registers[warp.id as usize % 4] = Some(count);
        Ok(Next::Go)
    }
}
