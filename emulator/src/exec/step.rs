//! The interpreter's loop: one warp, one instruction after the other, all lanes at once.

use super::asynchronous::{Block, ClusterState};
use super::collective::shuffle;
use super::hopper::Next;
use super::lanes::{LANES, bits2, map1, map3};
use super::rare::rare;
use super::shared::Scratch;
use super::warp::{Path, Ran, Warp, stop};
use super::{convert, float, integer, mma};
use crate::fault::FaultKind;
use crate::launch::Numerics;
use crate::memory::Memory;
use crate::program::{
    Barrier, CompareAs, Instr, Int2, Int3, Kernel, Logic, NONE, Op, SetPredicate, Slot, Sync,
};
use crate::report::Counters;

/// What one CTA's warps work on.
pub(crate) struct Machine<'l> {
    pub(crate) kernel: &'l Kernel,
    pub(crate) memory: &'l Memory,
    pub(crate) params: &'l [u8],
    pub(crate) shared: Scratch,
    pub(crate) counters: Counters,
    /// Times each instruction was executed by a warp.
    pub(crate) executed: Vec<u64>,
    /// Copies land when they are issued.
    pub(crate) eager: bool,
    /// Unwritten registers and memory read as whatever is there.
    pub(crate) lenient: bool,
    pub(crate) numerics: Numerics,
    /// What the CTAs of its cluster share, during a turn.
    pub(crate) cluster: Box<ClusterState>,
    /// Of the CTA in its cluster.
    pub(crate) rank: u32,
    /// Number of its first warp among those of the cluster.
    pub(crate) first_warp: usize,
    pub(crate) threads: u32,
    /// Registers of a thread when the kernel starts, if they are known.
    pub(crate) entry_registers: Option<u32>,
}

/// Why a warp gave its turn back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn<'l> {
    /// It used up its steps.
    Over,
    Barrier(&'l Barrier),
    /// It asked for something that has not happened, and goes on to ask again.
    Poll,
    /// It cannot go on before what its state tells has happened.
    Blocked,
    ClusterArrival,
    Done,
}

/// Runs a warp on this machine's vector instructions.
pub(crate) fn run<'l>(machine: &mut Machine<'l>, warp: &mut Warp, steps: u32) -> Ran<Turn<'l>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the two features that `run_avx2` is compiled for were just detected.
        return unsafe { run_avx2(machine, warp, steps) };
    }
    run_body(machine, warp, steps)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<'l>(machine: &mut Machine<'l>, warp: &mut Warp, steps: u32) -> Ran<Turn<'l>> {
    run_body(machine, warp, steps)
}

#[inline(always)]
fn run_body<'l>(machine: &mut Machine<'l>, warp: &mut Warp, steps: u32) -> Ran<Turn<'l>> {
    let kernel = machine.kernel;
    for _ in 0..steps {
        if !warp.others.is_empty() {
            warp.choose();
        }
        let instr = &kernel.code[warp.pc as usize];
        let mut mask = warp.guarded(instr, warp.mask)?;
        if mask == 0 {
            warp.pc += 1;
            continue;
        }
        if instr.sync != Sync::Free {
            match assemble(warp, instr, mask)? {
                Some(group) => mask = group,
                None if warp.resume(&kernel.code)? => continue,
                None => return stop(FaultKind::Divergence(Vec::new()), None),
            }
        }
        if let Some(slots) = kernel.touched.get(warp.pc as usize) {
            warp.state.flight.touch(kernel, slots)?;
        }
        machine.executed[warp.pc as usize] += 1;
        machine.counters.thread_instructions += u64::from(mask.count_ones());
        match &instr.op {
            Op::Branch(target) => {
                split(warp, mask, *target);
                continue;
            }
            Op::BranchTable { index, table } => {
                branch_table(warp, kernel, *index, *table, mask)?;
                continue;
            }
            Op::Exit => {
                warp.live &= !mask;
                warp.mask &= !mask;
                machine.counters.unwaited_copies +=
                    warp.copies.iter().filter(|copy| mask >> copy.lane & 1 == 1).count() as u64;
                if warp.mask != 0 {
                    warp.pc += 1;
                } else if warp.others.is_empty() {
                    machine.leave(warp)?;
                    return Ok(Turn::Done);
                } else if !warp.resume(&kernel.code)? {
                    return stop(FaultKind::Divergence(Vec::new()), None);
                }
                continue;
            }
            Op::Barrier(barrier) => {
                machine.counters.barriers += 1;
                return Ok(Turn::Barrier(barrier));
            }
            Op::Hopper(op) => match machine.hopper(warp, op, mask)? {
                Next::Go => {
                    // What it waited for is over; waits for mbarriers say so themselves.
                    if !matches!(warp.state.block, None | Some((Block::Mbarrier { .. }, _))) {
                        warp.state.block = None;
                    }
                }
                Next::Poll => {
                    warp.pc += 1;
                    warp.rotate();
                    return Ok(Turn::Poll);
                }
                Next::Wait(block) => {
                    // It is executed again, and counted then.
                    machine.executed[warp.pc as usize] -= 1;
                    machine.counters.thread_instructions -= u64::from(mask.count_ones());
                    let here = warp.pc;
                    warp.state.block = Some((block, here));
                    return Ok(if warp.rotate() { Turn::Poll } else { Turn::Blocked });
                }
                Next::ClusterArrival => {
                    warp.pc += 1;
                    return Ok(Turn::ClusterArrival);
                }
            },
            op => execute(machine, warp, op, mask)?,
        }
        warp.pc += 1;
    }
    Ok(Turn::Over)
}

/// Finds the lanes that execute a `.sync` operation now; the rest waits on a path of its own.
#[inline(always)]
fn assemble(warp: &mut Warp, instr: &Instr, mask: u32) -> Ran<Option<u32>> {
    if instr.sync == Sync::Aligned && mask == warp.live {
        return Ok(Some(mask));
    }
    let pc = warp.pc;
    let passing = warp.mask & !mask;
    let group = warp.group(instr, mask)?;
    let waiting = mask & !group.unwrap_or(0);
    if passing != 0 {
        warp.others.push(Path { pc: pc + 1, mask: passing, parked: false });
    }
    if waiting != 0 {
        warp.others.push(Path { pc, mask: waiting, parked: true });
    }
    warp.mask = group.unwrap_or(0);
    Ok(group)
}

fn split(warp: &mut Warp, taken: u32, target: u32) {
    let falling = warp.mask & !taken;
    if falling != 0 {
        warp.others.push(Path { pc: warp.pc + 1, mask: falling, parked: false });
        warp.mask = taken;
    }
    warp.pc = target;
}

fn branch_table(warp: &mut Warp, kernel: &Kernel, index: Slot, table: u16, mask: u32) -> Ran<()> {
    let choices = *warp.narrow(index, mask)?;
    let targets = &kernel.tables[usize::from(table)];
    let falling = warp.mask & !mask;
    if falling != 0 {
        warp.others.push(Path { pc: warp.pc + 1, mask: falling, parked: false });
    }
    let mut rest = mask;
    while rest != 0 {
        let lane = rest.trailing_zeros() as usize;
        let same = (0..LANES).filter(|at| rest >> at & 1 == 1 && choices[*at] == choices[lane]);
        let same = same.fold(0, |lanes, at| lanes | 1_u32 << at);
        let Some(pc) = targets.get(choices[lane] as usize).copied() else {
            let text =
                format!("the index {} lies outside a table of {} targets", choices[lane], targets.len());
            return stop(FaultKind::Unmodelled(text), Some(lane));
        };
        rest &= !same;
        if rest == 0 {
            (warp.pc, warp.mask) = (pc, same);
        } else {
            warp.others.push(Path { pc, mask: same, parked: false });
        }
    }
    Ok(())
}

/// Executes everything that only moves data.
#[inline(always)]
fn execute(machine: &mut Machine<'_>, warp: &mut Warp, op: &Op, mask: u32) -> Ran<()> {
    macro_rules! narrow {
        ($d:expr, $value:expr) => {{
            let value = $value;
            warp.set_narrow($d, mask, &value);
        }};
    }
    macro_rules! wide {
        ($d:expr, $value:expr) => {{
            let value = $value;
            warp.set_wide($d, mask, &value);
        }};
    }
    macro_rules! n {
        ($slot:expr) => {
            warp.narrow($slot, mask)?
        };
    }
    macro_rules! w {
        ($slot:expr) => {
            warp.wide($slot, mask)?
        };
    }
    match *op {
        Op::Nop => {}
        // Moving an unwritten register is no use of it: compilers do so for values that do not matter.
        Op::Mov32(d, a) => {
            let value = warp.narrow[usize::from(a)].0;
            let set = warp.narrow_set[usize::from(a)];
            warp.set_narrow(d, mask, &value);
            warp.narrow_set[usize::from(d)] &= set | !mask;
        }
        Op::Mov64(d, a) => {
            let value = warp.wide[usize::from(a)].0;
            let set = warp.wide_set[usize::from(a)];
            warp.set_wide(d, mask, &value);
            warp.wide_set[usize::from(d)] &= set | !mask;
        }
        Op::MovPred(d, a) => {
            let value = warp.predicate(a, mask)?;
            warp.set_predicate(d, mask, value);
        }
        Op::Int32(f, d, a, b) => narrow!(d, integer::two32(f, n!(a), n!(b))),
        Op::Int64(f @ (Int2::Shl | Int2::ShrU | Int2::ShrS), d, a, b) => {
            wide!(d, integer::shift64(f, w!(a), n!(b)));
        }
        Op::Int64(f, d, a, b) => wide!(d, integer::two64(f, w!(a), w!(b))),
        Op::Int16(f, signed, d, a, b) => {
            let extend = |x: &[u32; LANES]| map1(x, |x| if signed { x as u16 as i16 as u32 } else { x });
            let shift = matches!(f, Int2::Shl | Int2::ShrU | Int2::ShrS);
            let b = if shift { *n!(b) } else { extend(n!(b)) };
            // The upper half of a product of 16 bits ends at bit 31.
            let (f, down) = match f {
                Int2::MulHighU | Int2::MulHighS => (Int2::Mul, 16),
                other => (other, 0),
            };
            narrow!(d, map1(&integer::two32(f, &extend(n!(a)), &b), |x| (x >> down) & 0xffff));
        }
        Op::Float32 { f, ftz, sat, d, a, b } => narrow!(d, float::two32(f, ftz, sat, n!(a), n!(b))),
        Op::Fma32 { ftz, sat, d, a, b, c } => narrow!(d, float::fma32(ftz, sat, n!(a), n!(b), n!(c))),
        Op::FloatUnary32 { f, ftz, d, a } => narrow!(d, float::one32(f, ftz, n!(a))),
        Op::Fma64 { d, a, b, c } => wide!(
            d,
            map3(w!(a), w!(b), w!(c), |x, y, z| {
                f64::from_bits(x).mul_add(f64::from_bits(y), f64::from_bits(z)).to_bits()
            })
        ),
        Op::Ternary32(f, d, a, b, c) => narrow!(d, integer::three32(f, n!(a), n!(b), n!(c))),
        Op::Ternary64(f @ (Int3::BfeU | Int3::BfeS), d, a, b, c) => {
            wide!(d, integer::extract64(f == Int3::BfeS, w!(a), n!(b), n!(c)));
        }
        Op::Ternary64(f, d, a, b, c) => wide!(d, integer::mad64(f, w!(a), w!(b), w!(c))),
        Op::Widen32 { signed, d, a, b, c } => {
            let zero = [0; LANES];
            let (a, b) = (n!(a), n!(b));
            let c = if c == NONE { &zero } else { w!(c) };
            let product = if signed {
                map3(a, b, c, |x, y, z| {
                    (i64::from(x as i32) * i64::from(y as i32)).wrapping_add(z as i64) as u64
                })
            } else {
                map3(a, b, c, |x, y, z| (u64::from(x) * u64::from(y)).wrapping_add(z))
            };
            wide!(d, product);
        }
        Op::SetPredicate(set) => set_predicate(warp, set, mask)?,
        Op::Select32 { d, a, b, p } => {
            let chosen = warp.predicate(p, mask)?;
            let (sa, sb) = (warp.narrow_set[usize::from(a)], warp.narrow_set[usize::from(b)]);
            let set = sa & chosen | sb & !chosen;
            let (a, b) = (&warp.narrow[usize::from(a)].0, &warp.narrow[usize::from(b)].0);
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = if chosen >> lane & 1 == 1 { a[lane] } else { b[lane] };
            }
            warp.set_narrow(d, mask, &out);
            warp.narrow_set[usize::from(d)] &= set | !mask;
        }
        Op::Select64 { d, a, b, p } => {
            let chosen = warp.predicate(p, mask)?;
            let (sa, sb) = (warp.wide_set[usize::from(a)], warp.wide_set[usize::from(b)]);
            let set = sa & chosen | sb & !chosen;
            let (a, b) = (&warp.wide[usize::from(a)].0, &warp.wide[usize::from(b)].0);
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = if chosen >> lane & 1 == 1 { a[lane] } else { b[lane] };
            }
            warp.set_wide(d, mask, &out);
            warp.wide_set[usize::from(d)] &= set | !mask;
        }
        Op::PackFloats { bf16, rounding, relu, d, a, b } => {
            let one = |x: &[u32; LANES]| map1(x, |x| convert::pack_one(bf16, rounding, relu, x));
            let (high, low) = (one(n!(a)), one(n!(b)));
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = high[lane] << 16 | low[lane];
            }
            narrow!(d, out);
        }
        Op::LogicPred { f, d, a, b } => {
            let (a, b) = (warp.predicate(a, mask)?, warp.predicate(b, mask)?);
            warp.set_predicate(d, mask, logic(f, a, b));
        }
        Op::NotPred(d, a) => {
            let value = !warp.predicate(a, mask)?;
            warp.set_predicate(d, mask, value);
        }
        Op::Mma(ref op) => {
            machine.counters.mma += 1;
            let fragments = mma::Fragments {
                a: [n!(op.a[0]), n!(op.a[1]), n!(op.a[2]), n!(op.a[3])],
                b: [n!(op.b[0]), n!(op.b[1])],
                c: [n!(op.c[0]), n!(op.c[1]), n!(op.c[2]), n!(op.c[3])],
            };
            let result = mma::mma(op, &fragments, machine.numerics);
            for (d, value) in op.d.iter().zip(&result) {
                warp.set_narrow(*d, mask, value);
            }
        }
        Op::LoadMatrix { count, transposed, ref slots, address, generic } => {
            machine.counters.ldmatrix += 1;
            machine.load_matrix(warp, address, (count, transposed, generic), slots)?;
        }
        Op::Shuffle { f, d, p, a, b, c } => shuffle(warp, f, d, p, [a, b, c], mask)?,
        Op::Load(ref access) => machine.load(warp, access, mask)?,
        Op::Store(ref access) => machine.store(warp, access, mask)?,
        Op::CopyAsync { to, from, bytes, source_bytes } => {
            machine.copy_async(warp, (to, from), bytes, source_bytes, mask)?;
        }
        Op::CopyCommit => {
            for lane in 0..LANES {
                warp.groups[lane] += mask >> lane & 1;
            }
        }
        Op::CopyWait(count) => {
            let groups = warp.groups;
            let agent = machine.race_warp(warp);
            if let Some(race) = &mut machine.cluster.race {
                race.wait_copies(agent, mask, |lane| groups[lane].saturating_sub(count));
            }
            machine
                .land(warp, mask, |copy| copy.group < groups[usize::from(copy.lane)].saturating_sub(count))?;
        }
        Op::CopyWaitAll => {
            let agent = machine.race_warp(warp);
            if let Some(race) = &mut machine.cluster.race {
                race.wait_copies(agent, mask, |_| u32::MAX);
            }
            machine.land(warp, mask, |_| true)?;
        }
        Op::Extend { d, to_wide, a, from_wide, bits, signed, cut } => {
            let (shift, keep) = (64 - u32::from(bits), u64::MAX >> (64 - u32::from(cut)));
            let one = |x: u64| {
                let high = x << shift;
                (if signed { (high as i64 >> shift) as u64 } else { high >> shift }) & keep
            };
            match (from_wide, to_wide) {
                (false, true) => wide!(d, map1(n!(a), |x| one(u64::from(x)))),
                (false, false) => narrow!(d, map1(n!(a), |x| one(u64::from(x)) as u32)),
                (true, true) => wide!(d, map1(w!(a), one)),
                (true, false) => narrow!(d, map1(w!(a), |x| one(x) as u32)),
            }
        }
        _ => return rare(machine, warp, op, mask),
    }
    Ok(())
}

fn logic(f: Logic, a: u32, b: u32) -> u32 {
    match f {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

#[inline(always)]
fn set_predicate(warp: &mut Warp, set: SetPredicate, mask: u32) -> Ran<()> {
    use float::compare;
    let how = set.compare;
    let value = match set.read {
        CompareAs::U32 => {
            bits2(warp.narrow(set.a, mask)?, warp.narrow(set.b, mask)?, |x, y| compare(how, x, y))
        }
        CompareAs::S32 => bits2(warp.narrow(set.a, mask)?, warp.narrow(set.b, mask)?, |x, y| {
            compare(how, x as i32, y as i32)
        }),
        CompareAs::U16 => bits2(warp.narrow(set.a, mask)?, warp.narrow(set.b, mask)?, |x, y| {
            compare(how, x as u16, y as u16)
        }),
        CompareAs::S16 => bits2(warp.narrow(set.a, mask)?, warp.narrow(set.b, mask)?, |x, y| {
            compare(how, x as u16 as i16, y as u16 as i16)
        }),
        CompareAs::F32 { ftz } => bits2(warp.narrow(set.a, mask)?, warp.narrow(set.b, mask)?, |x, y| {
            let read = |x: u32| f32::from_bits(if ftz { float::flush(x) } else { x });
            compare(how, read(x), read(y))
        }),
        CompareAs::U64 => bits2(warp.wide(set.a, mask)?, warp.wide(set.b, mask)?, |x, y| compare(how, x, y)),
        CompareAs::S64 => {
            bits2(warp.wide(set.a, mask)?, warp.wide(set.b, mask)?, |x, y| compare(how, x as i64, y as i64))
        }
        CompareAs::F64 => bits2(warp.wide(set.a, mask)?, warp.wide(set.b, mask)?, |x, y| {
            compare(how, f64::from_bits(x), f64::from_bits(y))
        }),
    };
    let with = if set.c == NONE {
        None
    } else {
        let c = warp.predicate(set.c, mask)?;
        Some(if set.negated { !c } else { c })
    };
    let joined = |value: u32| with.map_or(value, |c| logic(set.logic, value, c));
    if set.p != NONE {
        warp.set_predicate(set.p, mask, joined(value));
    }
    if set.q != NONE {
        warp.set_predicate(set.q, mask, joined(!value));
    }
    Ok(())
}
