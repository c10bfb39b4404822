//! Instructions that inner loops do not have.

use super::collective::{match_all, match_any, reduce, vote};
use super::lanes::{LANES, bits2, map1, map3};
use super::step::Machine;
use super::warp::{Ran, Warp, stop};
use super::{convert, float, integer};
use crate::decode::{LOCAL_BASE, SHARED_BASE, WINDOW};
use crate::fault::FaultKind;
use crate::program::{NONE, Op};
use crate::scalar::Space;

/// Executes one.
pub(super) fn rare(machine: &mut Machine<'_>, warp: &mut Warp, op: &Op, mask: u32) -> Ran<()> {
    match *op {
        Op::Unary32(f, d, a) => {
            let value = integer::one32(f, warp.narrow(a, mask)?);
            warp.set_narrow(d, mask, &value);
        }
        Op::Mad16(d, a, b, c) => {
            let (a, b, c) = (warp.narrow(a, mask)?, warp.narrow(b, mask)?, warp.narrow(c, mask)?);
            let value = map3(a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z) & 0xffff);
            warp.set_narrow(d, mask, &value);
        }
        Op::Unary16(f, d, a) => {
            let extended = map1(warp.narrow(a, mask)?, |x| x as u16 as i16 as u32);
            let value = map1(&integer::one32(f, &extended), |x| x & 0xffff);
            warp.set_narrow(d, mask, &value);
        }
        Op::Unary64(f, d, a) => {
            let value = integer::one64(f, warp.wide(a, mask)?);
            warp.set_wide(d, mask, &value);
        }
        Op::Count { f, wide, d, a } => {
            let bits = if wide { 64 } else { 32 };
            let value = super::access::get(warp, a, wide, mask)?.map(|x| integer::count(f, x, bits));
            warp.set_narrow(d, mask, &value);
        }
        Op::Bfi32([d, a, b, position, length]) => {
            let (a, b) = (warp.narrow(a, mask)?, warp.narrow(b, mask)?);
            let (position, length) = (warp.narrow(position, mask)?, warp.narrow(length, mask)?);
            let one = |l: usize| {
                integer::insert(u64::from(a[l]), u64::from(b[l]), position[l], length[l], 32) as u32
            };
            let value = std::array::from_fn(one);
            warp.set_narrow(d, mask, &value);
        }
        Op::Bfi64([d, a, b, position, length]) => {
            let (a, b) = (warp.wide(a, mask)?, warp.wide(b, mask)?);
            let (position, length) = (warp.narrow(position, mask)?, warp.narrow(length, mask)?);
            let value = std::array::from_fn(|l| integer::insert(a[l], b[l], position[l], length[l], 64));
            warp.set_wide(d, mask, &value);
        }
        Op::Lop3 { d, a, b, c, table } => {
            let (a, b, c) = (warp.narrow(a, mask)?, warp.narrow(b, mask)?, warp.narrow(c, mask)?);
            let value = map3(a, b, c, |x, y, z| integer::lop3(x, y, z, table));
            warp.set_narrow(d, mask, &value);
        }
        Op::Widen16 { signed, d, a, b, c } => {
            let one = |x: u32| if signed { x as u16 as i16 as u32 } else { x };
            let (a, b) = (warp.narrow(a, mask)?, warp.narrow(b, mask)?);
            let c = if c == NONE { [0; LANES] } else { *warp.narrow(c, mask)? };
            let value = map3(a, b, &c, |x, y, z| one(x).wrapping_mul(one(y)).wrapping_add(z));
            warp.set_narrow(d, mask, &value);
        }
        Op::Float64 { f, d, a, b } => {
            let (a, b) = (warp.wide(a, mask)?, warp.wide(b, mask)?);
            let one = |l: usize| float::two64(f, f64::from_bits(a[l]), f64::from_bits(b[l])).to_bits();
            let value = std::array::from_fn(one);
            warp.set_wide(d, mask, &value);
        }
        Op::FloatUnary64 { f, d, a } => {
            let value = map1(warp.wide(a, mask)?, |x| float::one64(f, f64::from_bits(x)).to_bits());
            warp.set_wide(d, mask, &value);
        }
        Op::Convert { how, d, a } => {
            // Compilers hoist conversions above the test of whether their value matters: no use of it either.
            if how.from.bits() <= 32
                && let Some(value) = convert::common(how, &warp.narrow[usize::from(a)].0)
            {
                let set = warp.narrow_set[usize::from(a)];
                warp.set_narrow(d, mask, &value);
                warp.narrow_set[usize::from(d)] &= set | !mask;
                return Ok(());
            }
            let (source, set) = if how.from.bits() == 64 {
                (warp.wide[usize::from(a)].0, warp.wide_set[usize::from(a)])
            } else {
                (warp.narrow[usize::from(a)].0.map(u64::from), warp.narrow_set[usize::from(a)])
            };
            let value = map1(&source, |x| convert::convert(how, x));
            if how.to.bits() == 64 {
                warp.set_wide(d, mask, &value);
                warp.wide_set[usize::from(d)] &= set | !mask;
            } else {
                warp.set_narrow(d, mask, &value.map(|x| x as u32));
                warp.narrow_set[usize::from(d)] &= set | !mask;
            }
        }
        Op::Pack { d, wide, parts, count, bits } => {
            let (mut value, mut set) = ([0_u64; LANES], u32::MAX);
            for (at, part) in parts.iter().enumerate().take(usize::from(count)) {
                set &= warp.narrow_set[usize::from(*part)];
                for (lane, out) in value.iter_mut().enumerate() {
                    *out |= u64::from(warp.narrow[usize::from(*part)].0[lane]) << (at * usize::from(bits));
                }
            }
            // A half that does not matter may be unwritten: the whole counts as unwritten until it is used.
            if wide {
                warp.set_wide(d, mask, &value);
                warp.wide_set[usize::from(d)] &= set | !mask;
            } else {
                warp.set_narrow(d, mask, &value.map(|x| x as u32));
                warp.narrow_set[usize::from(d)] &= set | !mask;
            }
        }
        Op::Unpack { a, wide, parts, count, bits } => {
            let value = super::access::get(warp, a, wide, mask)?;
            let keep = u64::MAX >> (64 - u32::from(bits));
            for (at, part) in parts.iter().enumerate().take(usize::from(count)) {
                if *part != NONE {
                    let part_value = value.map(|x| (x >> (at * usize::from(bits)) & keep) as u32);
                    warp.set_narrow(*part, mask, &part_value);
                }
            }
        }
        Op::Clock { d, wide } => {
            let now = machine.counters.thread_instructions;
            if wide {
                warp.set_wide(d, mask, &[now; LANES]);
            } else {
                warp.set_narrow(d, mask, &[now as u32; LANES]);
            }
        }
        Op::LoadParam(ref access) => machine.load_param(warp, access, mask)?,
        Op::Atomic(ref atomic) => machine.atomic(warp, atomic, mask)?,
        Op::Fence(device) => {
            let agent = machine.race_warp(warp);
            if let Some(race) = &mut machine.cluster.race {
                race.fence(agent, device);
            }
        }
        Op::Vote { f, d, p, negated } => vote(warp, f, d, (p, negated), mask)?,
        Op::MatchAny { d, a, wide } => match_any(warp, d, a, wide, mask)?,
        Op::MatchAll { d, p, a, wide } => match_all(warp, [d, p, a], wide, mask)?,
        Op::Reduce { f, d, a } => reduce(warp, f, d, a, mask)?,
        Op::ActiveMask(d) => warp.set_narrow(d, mask, &[mask; LANES]),
        Op::IsSpace { space, p, a } => {
            let addresses = super::access::addresses(warp, a, mask)?;
            let cluster = |x: u64| x.wrapping_sub(SHARED_BASE) < WINDOW;
            let shared =
                |x: u64| machine.place(Space::Generic, x).is_ok_and(|place| place.rank == machine.rank);
            let local = |x: u64| x.wrapping_sub(LOCAL_BASE) < WINDOW;
            let inside = |x: u64| match space {
                Space::Shared => shared(x),
                Space::Cluster => cluster(x),
                Space::Local => local(x),
                _ => !cluster(x) && !local(x),
            };
            let value = bits2(&addresses, &addresses, |x, _| inside(x));
            warp.set_predicate(p, mask, value);
        }
        Op::Trap => return stop(FaultKind::Trap, Some(mask.trailing_zeros() as usize)),
        Op::Call(index) => {
            let name = &machine.kernel.callees[usize::from(index)];
            let text = format!(
                "the kernel calls `{name}`: calls are not modelled (in Rust kernels: mostly a panic)"
            );
            return stop(FaultKind::Unmodelled(text), Some(mask.trailing_zeros() as usize));
        }
        Op::Unmodelled(what) => {
            return stop(FaultKind::Unmodelled(format!("{what} is not modelled")), None);
        }
        // Everything else is in `execute` or in the loop.
        _ => return stop(FaultKind::Unmodelled("this instruction has no execution".to_owned()), None),
    }
    Ok(())
}
