//! A warp: registers, the paths its lanes stand on, and its asynchronous copies.

use super::asynchronous::WarpState;
use super::lanes::{LANES, Lanes};
use super::shared::Scratch;
use crate::fault::FaultKind;
use crate::program::{Instr, NONE, Slot, Sync};

/// Why a warp stopped; the lane is the one to blame, if one is.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) kind: FaultKind,
    pub(crate) lane: Option<usize>,
}

pub(crate) type Ran<T> = Result<T, Box<Stop>>;

#[cold]
pub(crate) fn stop<T>(kind: FaultKind, lane: Option<usize>) -> Ran<T> {
    Err(Box::new(Stop { kind, lane }))
}

/// Names the lane an access failed for.
pub(crate) fn at_lane<T>(result: Result<T, FaultKind>, lane: usize) -> Ran<T> {
    match result {
        Ok(value) => Ok(value),
        Err(kind) => stop(kind, Some(lane)),
    }
}

/// Lanes that stand at another instruction than the running ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    /// It waits at a `.sync` operation for lanes of other paths.
    pub(crate) parked: bool,
}

/// What a warp does between its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ready,
    /// At the barrier of this number, which it reached at this instruction.
    AtBarrier(u32, u32),
    /// At this instruction, until what its state tells has happened.
    Blocked(u32),
    Done,
}

/// A `cp.async` that has not landed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingCopy {
    pub(crate) lane: u8,
    pub(crate) bytes: u8,
    /// Bytes read; the rest is zero.
    pub(crate) source_bytes: u8,
    pub(crate) group: u32,
    pub(crate) to: u64,
    pub(crate) from: u64,
    /// How many copies the warp had issued with it.
    pub(crate) number: u64,
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) id: u32,
    pub(crate) status: Status,
    pub(crate) live: u32,
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) others: Vec<Path>,
    /// Steps left for which the running path is not left for a lower one, and steps since the last such grant.
    stint: u32,
    diverged: u32,
    pub(crate) narrow: Vec<Lanes<u32>>,
    pub(crate) wide: Vec<Lanes<u64>>,
    pub(crate) predicates: Vec<u32>,
    /// For each register the lanes that were written.
    pub(crate) narrow_set: Vec<u32>,
    pub(crate) wide_set: Vec<u32>,
    pub(crate) predicates_set: Vec<u32>,
    pub(crate) copies: Vec<PendingCopy>,
    /// Groups each lane has committed.
    pub(crate) groups: [u32; LANES],
    pub(crate) local: Vec<Scratch>,
    pub(crate) state: WarpState,
}

/// After this many steps on split paths another path gets its turn, whatever its place: it may be the one that ends a
/// loop the first is spinning in.
const STINT: u32 = 4096;

impl Warp {
    pub(crate) fn new(files: [usize; 3]) -> Self {
        Self {
            id: 0,
            status: Status::Ready,
            live: 0,
            pc: 0,
            mask: 0,
            others: Vec::new(),
            stint: 0,
            diverged: 0,
            narrow: vec![Lanes([0; LANES]); files[0]],
            wide: vec![Lanes([0; LANES]); files[1]],
            predicates: vec![0; files[2]],
            narrow_set: vec![0; files[0]],
            wide_set: vec![0; files[1]],
            predicates_set: vec![0; files[2]],
            copies: Vec::new(),
            groups: [0; LANES],
            local: Vec::new(),
            state: WarpState::default(),
        }
    }

    /// Puts the warp at the start of the kernel with these lanes; registers count as unwritten unless `lenient`.
    pub(crate) fn restart(&mut self, id: u32, live: u32, lenient: bool) {
        (self.id, self.status, self.live, self.pc, self.mask) = (id, Status::Ready, live, 0, live);
        (self.stint, self.diverged, self.groups) = (0, 0, [0; LANES]);
        self.others.clear();
        self.copies.clear();
        let set = if lenient { u32::MAX } else { 0 };
        for file in [&mut self.narrow_set, &mut self.wide_set, &mut self.predicates_set] {
            file.fill(set);
        }
    }

    #[inline(always)]
    pub(crate) fn narrow(&self, slot: Slot, mask: u32) -> Ran<&[u32; LANES]> {
        let missing = mask & !self.narrow_set[usize::from(slot)];
        if missing != 0 {
            return stop(FaultKind::UninitialisedRegister, Some(missing.trailing_zeros() as usize));
        }
        Ok(&self.narrow[usize::from(slot)].0)
    }

    #[inline(always)]
    pub(crate) fn wide(&self, slot: Slot, mask: u32) -> Ran<&[u64; LANES]> {
        let missing = mask & !self.wide_set[usize::from(slot)];
        if missing != 0 {
            return stop(FaultKind::UninitialisedRegister, Some(missing.trailing_zeros() as usize));
        }
        Ok(&self.wide[usize::from(slot)].0)
    }

    #[inline(always)]
    pub(crate) fn predicate(&self, slot: Slot, mask: u32) -> Ran<u32> {
        let missing = mask & !self.predicates_set[usize::from(slot)];
        if missing != 0 {
            return stop(FaultKind::UninitialisedRegister, Some(missing.trailing_zeros() as usize));
        }
        Ok(self.predicates[usize::from(slot)])
    }

    #[inline(always)]
    pub(crate) fn set_narrow(&mut self, slot: Slot, mask: u32, value: &[u32; LANES]) {
        let slot = usize::from(slot);
        let register = &mut self.narrow[slot].0;
        if mask == u32::MAX {
            *register = *value;
        } else {
            for lane in 0..LANES {
                register[lane] = if mask >> lane & 1 == 1 { value[lane] } else { register[lane] };
            }
        }
        self.narrow_set[slot] |= mask;
    }

    #[inline(always)]
    pub(crate) fn set_wide(&mut self, slot: Slot, mask: u32, value: &[u64; LANES]) {
        let slot = usize::from(slot);
        let register = &mut self.wide[slot].0;
        if mask == u32::MAX {
            *register = *value;
        } else {
            for lane in 0..LANES {
                register[lane] = if mask >> lane & 1 == 1 { value[lane] } else { register[lane] };
            }
        }
        self.wide_set[slot] |= mask;
    }

    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, slot: Slot, mask: u32, value: u32) {
        let slot = usize::from(slot);
        self.predicates[slot] = self.predicates[slot] & !mask | value & mask;
        self.predicates_set[slot] |= mask;
    }

    /// Lanes of `mask` that execute an instruction.
    #[inline(always)]
    pub(crate) fn guarded(&self, instr: &Instr, mask: u32) -> Ran<u32> {
        if instr.guard == NONE {
            return Ok(mask);
        }
        let value = self.predicate(instr.guard, mask)?;
        Ok(mask & if instr.negated { !value } else { value })
    }

    /// Joins paths that stand at the running one's instruction and goes over to a path that lags behind, so that split
    /// lanes meet again where their ways join.
    pub(crate) fn choose(&mut self) {
        let pc = self.pc;
        let mut joined = 0;
        self.others.retain(|path| {
            let same = path.pc == pc;
            joined |= if same { path.mask } else { 0 };
            !same
        });
        self.mask |= joined;
        self.diverged += 1;
        if self.diverged > STINT {
            self.diverged = 0;
            if let Some(at) = self.others.iter().position(|path| !path.parked) {
                // The oldest goes first, and the running one to the end: each gets its turn.
                let path = self.others.remove(at);
                self.others.push(Path { pc: self.pc, mask: self.mask, parked: false });
                (self.pc, self.mask, self.stint) = (path.pc, path.mask, STINT);
                return;
            }
        }
        if self.stint > 0 {
            self.stint -= 1;
            return;
        }
        let runnable = self.others.iter().enumerate().filter(|(_, path)| !path.parked);
        if let Some((at, path)) = runnable.min_by_key(|(_, path)| path.pc)
            && path.pc < self.pc
        {
            let path = *path;
            self.others[at] = Path { pc: self.pc, mask: self.mask, parked: false };
            (self.pc, self.mask) = (path.pc, path.mask);
        }
    }

    /// Leaves a path that waits for something asynchronous, if there is another that can run; false if there is none.
    pub(crate) fn rotate(&mut self) -> bool {
        let Some(at) = self.others.iter().position(|path| !path.parked) else { return false };
        let path = self.others.remove(at);
        self.others.push(Path { pc: self.pc, mask: self.mask, parked: false });
        (self.pc, self.mask, self.stint) = (path.pc, path.mask, STINT);
        true
    }

    /// Goes on with another path after the running one parked or ended; false when every path is parked for good.
    pub(crate) fn resume(&mut self, code: &[Instr]) -> Ran<bool> {
        let runnable = self.others.iter().enumerate().filter(|(_, path)| !path.parked);
        let mut found = runnable.min_by_key(|(_, path)| path.pc).map(|(at, _)| at);
        if found.is_none() {
            for (at, path) in self.others.iter().enumerate() {
                // Lanes may have exited since it parked.
                if self.group(&code[path.pc as usize], path.mask)?.is_some() {
                    found = Some(at);
                    break;
                }
            }
        }
        let Some(at) = found else { return Ok(false) };
        let path = self.others.swap_remove(at);
        (self.pc, self.mask) = (path.pc, path.mask);
        Ok(true)
    }

    /// Of the lanes that stand at a `.sync` operation, those that may execute it together now.
    pub(crate) fn group(&self, instr: &Instr, mask: u32) -> Ran<Option<u32>> {
        let slot = match instr.sync {
            Sync::Free => return Ok(Some(mask)),
            Sync::Aligned => return Ok((mask == self.live).then_some(mask)),
            Sync::Members(slot) => slot,
        };
        let members = self.narrow(slot, mask)?;
        let mut rest = mask;
        while rest != 0 {
            let wanted = members[rest.trailing_zeros() as usize];
            let same = (0..LANES).filter(|lane| rest >> lane & 1 == 1 && members[*lane] == wanted);
            let same = same.fold(0, |lanes, lane| lanes | 1_u32 << lane);
            let outside = same & !wanted;
            if outside != 0 {
                let text = format!(
                    "a lane executes this with the member mask {wanted:#010x}, which does not name it"
                );
                return stop(FaultKind::MemberMask(text), Some(outside.trailing_zeros() as usize));
            }
            if wanted & self.live & !same == 0 {
                return Ok(Some(same));
            }
            rest &= !same;
        }
        Ok(None)
    }
}
