//! `wgmma` (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions"): issue, groups, waits, and
//! what registers may be touched when. The numbers are made in `product.rs`.
//!
//! Each warp computes its own 16 of the 64 rows, at its own wait: the latest moment, and the one at which that warp may
//! first look.

use super::descriptor::Descriptor;
use super::events::Event;
use super::product::{
    Product, SideA, TileD, halves_of_tile, multiply, singles_of_tile, tile_of_halves, tile_of_singles,
};
use super::step::Machine;
use super::tensor_core::Model;
use super::warp::{Ran, Warp, stop};
use super::warpgroup::Step;
use crate::fault::FaultKind;
use crate::hopper::{Hopper, MatrixA, Wgmma};
use crate::program::{Kernel, NONE, Op, Slot};

/// Accumulators of a `wgmma` that has not been waited for.
const ACCUMULATOR: u8 = 1;
/// Matrix A of one.
const OPERAND: u8 = 2;
/// Accessed by another instruction since the last fence, or never fenced.
const TOUCHED: u8 = 4;
/// In place of a shape: matrix A of a `wgmma` since the last fence.
const AS_OPERAND: u16 = u16::MAX;

/// One that has not been waited for.
#[derive(Clone, Debug)]
struct InFlight {
    operation: u64,
    pc: u32,
    group: u32,
    /// Addresses of the 16-byte chunks: A's, when it lies in shared memory, then B's.
    chunks: Vec<u32>,
    accumulate: bool,
    /// The result is in the registers already.
    done: bool,
}

/// The `wgmma` of a warp that are in flight, and what happened to their registers. Slots are of the 32-bit file.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pending: Vec<InFlight>,
    /// Groups committed.
    groups: u32,
    flags: Vec<u8>,
    /// Shape of the `wgmma` that used a register since the last fence, or zero.
    shapes: Vec<u16>,
    fenced: bool,
}

impl Flight {
    pub(crate) fn restart(&mut self, registers: usize) {
        self.pending.clear();
        (self.groups, self.fenced) = (0, false);
        self.flags.clear();
        self.flags.resize(registers, TOUCHED);
        self.shapes.clear();
        self.shapes.resize(registers, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Lines of those in flight.
    pub(crate) fn lines(&self, kernel: &Kernel) -> String {
        let lines = self.pending.iter().map(|pending| line(kernel, pending.pc).to_string());
        lines.collect::<Vec<_>>().join(", ")
    }

    /// An instruction other than `wgmma` names these registers.
    #[inline(always)]
    pub(crate) fn touch(&mut self, kernel: &Kernel, slots: &[Slot]) -> Ran<()> {
        for slot in slots {
            let flags = &mut self.flags[usize::from(*slot)];
            if *flags & (ACCUMULATOR | OPERAND) != 0 {
                return self.refuse(kernel, *slot);
            }
            *flags |= TOUCHED;
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self, kernel: &Kernel, slot: Slot) -> Ran<()> {
        let uses = |pending: &&InFlight| {
            let op = product(kernel, pending.pc);
            op.is_some_and(|op| {
                op.d.contains(&slot) || matches!(op.a, MatrixA::Registers(a) if a.contains(&slot))
            })
        };
        let at = self.pending.iter().find(uses).map_or(0, |pending| line(kernel, pending.pc));
        let text = format!(
            "access to a register that the wgmma of line {at} still uses: wait with wgmma.wait_group first (and commit \
             the group before that)"
        );
        stop(FaultKind::Warpgroup(text), None)
    }

    fn mark(&mut self, op: &Wgmma) {
        for slot in &op.d {
            self.flags[usize::from(*slot)] |= ACCUMULATOR;
        }
        if let MatrixA::Registers(a) = op.a {
            for slot in a {
                self.flags[usize::from(slot)] |= OPERAND;
            }
        }
    }
}

fn line(kernel: &Kernel, pc: u32) -> u32 {
    kernel.lines.get(pc as usize).copied().unwrap_or(0)
}

fn product(kernel: &Kernel, pc: u32) -> Option<&Wgmma> {
    match &kernel.code.get(pc as usize)?.op {
        Op::Hopper(op) => match &**op {
            Hopper::Wgmma(op) => Some(op),
            _ => None,
        },
        _ => None,
    }
}

fn fault<T>(text: String) -> Ran<T> {
    stop(FaultKind::Warpgroup(text), None)
}

impl Machine<'_> {
    fn step(&mut self, warp: &Warp) -> Ran<()> {
        self.whole(warp)?;
        self.together(warp, Step { pc: warp.pc, a: 0, b: 0, accumulate: false })
    }

    pub(super) fn wgmma_fence(&mut self, warp: &mut Warp) -> Ran<()> {
        self.step(warp)?;
        let flight = &mut warp.state.flight;
        flight.fenced = true;
        flight.flags.iter_mut().for_each(|flags| *flags &= !TOUCHED);
        // Accumulators in flight keep their shape: the fence orders accesses that are over.
        for (shape, flags) in flight.shapes.iter_mut().zip(&flight.flags) {
            if flags & (ACCUMULATOR | OPERAND) == 0 {
                *shape = 0;
            }
        }
        Ok(())
    }

    pub(super) fn wgmma_commit(&mut self, warp: &mut Warp) -> Ran<()> {
        self.step(warp)?;
        warp.state.flight.groups += 1;
        Ok(())
    }

    pub(super) fn wgmma_wait(&mut self, warp: &mut Warp, groups: u32) -> Ran<()> {
        self.step(warp)?;
        let ready = warp.state.flight.groups.saturating_sub(groups);
        let pending = std::mem::take(&mut warp.state.flight.pending);
        let (over, left): (Vec<_>, Vec<_>) = pending.into_iter().partition(|one| one.group < ready);
        self.compute(warp, &over)?;
        let kernel = self.kernel;
        let flight = &mut warp.state.flight;
        for one in &over {
            let Some(op) = product(kernel, one.pc) else { continue };
            for slot in &op.d {
                flight.flags[usize::from(*slot)] &= !ACCUMULATOR;
            }
            if let MatrixA::Registers(a) = op.a {
                a.iter().for_each(|slot| flight.flags[usize::from(*slot)] &= !OPERAND);
            }
        }
        left.iter().filter_map(|one| product(kernel, one.pc)).for_each(|op| flight.mark(op));
        flight.pending = left;
        let operations: Vec<u64> = over.iter().map(|one| one.operation).collect();
        self.tell(Event::WgmmaWait { agent: self.agent(warp, u32::MAX), operations: &operations })
    }

    /// A descriptor, the same in all lanes.
    fn descriptor(&self, warp: &Warp, slot: Slot) -> Ran<(u64, Descriptor)> {
        let values = warp.wide(slot, u32::MAX)?;
        if values.iter().any(|value| *value != values[0]) {
            return fault("the lanes of a warp hold different matrix descriptors".to_owned());
        }
        match Descriptor::decode(values[0]) {
            Ok(found) => Ok((values[0], found)),
            Err(text) => fault(text),
        }
    }

    pub(super) fn wgmma(&mut self, warp: &mut Warp, op: &Wgmma) -> Ran<()> {
        self.whole(warp)?;
        let accumulates = warp.predicate(op.scale_d, u32::MAX)?;
        if accumulates != 0 && accumulates != u32::MAX {
            return fault("the lanes of a warp hold different values of scale-d".to_owned());
        }
        let accumulate = (accumulates != 0) != op.scale_d_negated;
        let mut chunks = Vec::with_capacity(32 + 2 * op.n as usize);
        // PTX does not say which warp reads which rows of A: for the order of accesses each reads them all.
        let mut others = Vec::new();
        let (mut a_bits, mut a_registers) = (0, [NONE; 4]);
        match op.a {
            MatrixA::Shared(slot, m_major) => {
                let (bits, descriptor) = self.descriptor(warp, slot)?;
                a_bits = bits;
                let first = warp.id % 4 * 16;
                let chunk = |first: u32, i: u32| {
                    if m_major {
                        descriptor.mn_major(i / 2, first / 8 + i % 2)
                    } else {
                        descriptor.k_major(first + i / 2, i % 2)
                    }
                };
                chunks.extend((0..32).map(|i| chunk(first, i)));
                if self.cluster.race.is_some() {
                    let rows = (0..64).step_by(16).filter(|other| *other != first);
                    others.extend(
                        rows.flat_map(|other| (0..32).map(move |i| (other, i)))
                            .map(|(other, i)| chunk(other, i)),
                    );
                }
            }
            MatrixA::Registers(slots) => a_registers = slots,
        }
        let (b_bits, descriptor) = self.descriptor(warp, op.b)?;
        for i in 0..2 * op.n {
            chunks.push(if op.b_transposed {
                descriptor.mn_major(i % 16, i / 16)
            } else {
                descriptor.k_major(i / 2, i % 2)
            });
        }
        self.together(warp, Step { pc: warp.pc, a: a_bits, b: b_bits, accumulate })?;
        self.check_registers(warp, op, accumulate, a_registers)?;
        for address in &chunks {
            // What must be there by now: the hardware may read it at once.
            if let Err(kind) = self.shared.load::<16>(u64::from(*address)) {
                return stop(kind, None);
            }
        }
        let operation = self.cluster.operation();
        self.cluster.effects += 1;
        self.counters.shared_bytes += 16 * chunks.len() as u64;
        let multiplications = 16 * 16 * u64::from(op.n);
        let agent = self.agent(warp, u32::MAX);
        others.extend_from_slice(&chunks);
        self.tell(Event::WgmmaIssue { agent, operation, chunks: &others, multiplications })?;
        let group = warp.state.flight.groups;
        let one = InFlight { operation, pc: warp.pc, group, chunks, accumulate, done: self.eager };
        if self.eager {
            self.compute(warp, &[InFlight { done: false, ..one.clone() }])?;
        }
        let flight = &mut warp.state.flight;
        flight.mark(op);
        for slot in &op.d {
            flight.shapes[usize::from(*slot)] = op.shape();
            warp.narrow_set[usize::from(*slot)] = u32::MAX;
        }
        a_registers.iter().filter(|slot| **slot != NONE).for_each(|slot| {
            flight.shapes[usize::from(*slot)] = AS_OPERAND;
        });
        flight.pending.push(one);
        Ok(())
    }

    /// The rules of `wgmma.fence`, of registers in flight, and of unwritten ones.
    fn check_registers(&self, warp: &Warp, op: &Wgmma, accumulate: bool, a: [Slot; 4]) -> Ran<()> {
        let flight = &warp.state.flight;
        if !flight.fenced {
            return fault("wgmma before the first wgmma.fence: put one before it".to_owned());
        }
        let advice = "put a wgmma.fence between that access and this wgmma";
        for (at, slot) in op.d.iter().enumerate() {
            let (flags, shape) = (flight.flags[usize::from(*slot)], flight.shapes[usize::from(*slot)]);
            if flags & TOUCHED != 0 {
                return fault(format!("accumulator {at} was accessed after the last wgmma.fence: {advice}"));
            }
            if flags & OPERAND != 0 {
                return fault(format!(
                    "accumulator {at} is matrix A of a wgmma in flight (lines {}): wait for it with wgmma.wait_group",
                    flight.lines(self.kernel)
                ));
            }
            if shape != 0 && shape != op.shape() {
                return fault(format!(
                    "accumulator {at} was used by a wgmma of another shape since the last wgmma.fence: wait for that one \
                     and {advice}"
                ));
            }
            if accumulate {
                warp.narrow(*slot, u32::MAX)?;
            }
        }
        for (at, slot) in a.iter().enumerate().filter(|(_, slot)| **slot != NONE) {
            let (flags, shape) = (flight.flags[usize::from(*slot)], flight.shapes[usize::from(*slot)]);
            if flags & ACCUMULATOR != 0 {
                return fault(format!(
                    "register {at} of matrix A is an accumulator in flight (lines {}): wait with wgmma.wait_group first",
                    flight.lines(self.kernel)
                ));
            }
            if flags & TOUCHED != 0 || shape != 0 && shape != AS_OPERAND {
                return fault(format!(
                    "register {at} of matrix A was accessed after the last wgmma.fence: {advice}"
                ));
            }
            warp.narrow(*slot, u32::MAX)?;
        }
        Ok(())
    }

    /// Computes a run of `wgmma` in order; results stay in a tile while the accumulators are the same.
    fn compute(&mut self, warp: &mut Warp, run: &[InFlight]) -> Ran<()> {
        let kernel = self.kernel;
        let mut tile: Option<(&Wgmma, TileD)> = None;
        let mut data = Vec::new();
        for one in run.iter().filter(|one| !one.done) {
            let Some(op) = product(kernel, one.pc) else { continue };
            self.operands(one, &mut data)?;
            let mut d = match tile.take() {
                Some((before, d)) if before.d == op.d && before.half == op.half => d,
                other => {
                    if let Some((before, d)) = other {
                        put_tile(warp, before, &d);
                    }
                    let register = |at: usize| &warp.narrow[usize::from(op.d[at])].0;
                    if op.half { tile_of_halves(op.n, register) } else { tile_of_singles(op.n, register) }
                }
            };
            let (a, b) = match op.a {
                MatrixA::Registers(slots) => {
                    (SideA::Registers(slots.map(|slot| &warp.narrow[usize::from(slot)].0)), &data[..])
                }
                MatrixA::Shared(_, true) => (SideA::Columns(&data[..32]), &data[32..]),
                MatrixA::Shared(_, false) => (SideA::Rows(&data[..32]), &data[32..]),
            };
            let product = Product {
                model: Model::of(self.numerics),
                bf16: op.bf16,
                negative: op.negative,
                accumulate: one.accumulate,
                a,
                b,
                b_transposed: op.b_transposed,
            };
            multiply(&product, &mut d);
            if op.half {
                // Each result is rounded to f16 before the next one is added.
                put_tile(warp, op, &d);
            } else {
                tile = Some((op, d));
            }
        }
        if let Some((op, d)) = tile {
            put_tile(warp, op, &d);
        }
        Ok(())
    }

    /// Reads what a `wgmma` multiplies, now that it completes.
    fn operands(&self, one: &InFlight, data: &mut Vec<[u8; 16]>) -> Ran<()> {
        data.clear();
        for address in &one.chunks {
            match self.shared.load::<16>(u64::from(*address)) {
                Ok(chunk) => data.push(chunk),
                Err(kind) => {
                    return fault(format!(
                        "an operand of the wgmma of line {} changed before the wait: {kind}; keep what it reads until \
                         wgmma.wait_group",
                        line(self.kernel, one.pc)
                    ));
                }
            }
        }
        Ok(())
    }
}

fn put_tile(warp: &mut Warp, op: &Wgmma, d: &TileD) {
    let put = |at: usize, value: &[u32; super::lanes::LANES]| warp.set_narrow(op.d[at], u32::MAX, value);
    if op.half {
        halves_of_tile(d, put);
    } else {
        singles_of_tile(d, put);
    }
}
