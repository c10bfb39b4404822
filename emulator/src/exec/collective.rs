//! Shuffles, votes, matches and reductions among lanes.

use super::access::get;
use super::integer::two32;
use super::lanes::{LANES, lanes_of};
use super::warp::{Ran, Warp, stop};
use crate::fault::FaultKind;
use crate::program::{Int2, NONE, Shuffle, Slot, Vote};

/// `shfl.sync`: each lane takes `a` of the lane that `b` and the segments and bounds in `c` lead to.
pub(super) fn shuffle(
    warp: &mut Warp,
    f: Shuffle,
    d: Slot,
    p: Slot,
    [a, b, c]: [Slot; 3],
    mask: u32,
) -> Ran<()> {
    let values = *warp.narrow(a, mask)?;
    let (b, c) = (*warp.narrow(b, mask)?, *warp.narrow(c, mask)?);
    let (mut out, mut valid) = (values, 0);
    for lane in lanes_of(mask) {
        let (at, step) = (lane as u32, b[lane] & 31);
        let (clamp, segment) = (c[lane] & 31, c[lane] >> 8 & 31);
        let first = at & segment;
        let bound = first | clamp & !segment;
        let (source, inside) = match f {
            Shuffle::Up => (at.wrapping_sub(step), at as i32 - step as i32 >= bound as i32),
            Shuffle::Down => (at + step, at + step <= bound),
            Shuffle::Butterfly => (at ^ step, at ^ step <= bound),
            Shuffle::Index => (first | step & !segment, first | step & !segment <= bound),
        };
        if !inside {
            continue;
        }
        if mask >> source & 1 == 0 {
            let text =
                format!("lane {lane} reads lane {source}, which does not take part: the value is undefined");
            return stop(FaultKind::MemberMask(text), Some(lane));
        }
        valid |= 1 << lane;
        out[lane] = values[source as usize];
    }
    if d != NONE {
        warp.set_narrow(d, mask, &out);
    }
    if p != NONE {
        warp.set_predicate(p, mask, valid);
    }
    Ok(())
}

/// `vote.sync`
pub(super) fn vote(warp: &mut Warp, f: Vote, d: Slot, (p, negated): (Slot, bool), mask: u32) -> Ran<()> {
    let value = warp.predicate(p, mask)?;
    let yes = mask & if negated { !value } else { value };
    let result = match f {
        Vote::All => yes == mask,
        Vote::Any => yes != 0,
        Vote::Uni => yes == mask || yes == 0,
        Vote::Ballot => {
            warp.set_narrow(d, mask, &[yes; LANES]);
            return Ok(());
        }
    };
    warp.set_predicate(d, mask, if result { u32::MAX } else { 0 });
    Ok(())
}

/// `match.any.sync`: for each lane the lanes that hold its value.
pub(super) fn match_any(warp: &mut Warp, d: Slot, a: Slot, wide: bool, mask: u32) -> Ran<()> {
    let values = get(warp, a, wide, mask)?;
    let mut out = [0; LANES];
    for lane in lanes_of(mask) {
        out[lane] =
            lanes_of(mask).filter(|other| values[*other] == values[lane]).fold(0, |m, other| m | 1 << other);
    }
    warp.set_narrow(d, mask, &out);
    Ok(())
}

/// `match.all.sync`: the member mask if all values agree, else zero.
pub(super) fn match_all(warp: &mut Warp, [d, p, a]: [Slot; 3], wide: bool, mask: u32) -> Ran<()> {
    let values = get(warp, a, wide, mask)?;
    let first = values[mask.trailing_zeros() as usize & 31];
    let agree = lanes_of(mask).all(|lane| values[lane] == first);
    if d != NONE {
        warp.set_narrow(d, mask, &[if agree { mask } else { 0 }; LANES]);
    }
    if p != NONE {
        warp.set_predicate(p, mask, if agree { u32::MAX } else { 0 });
    }
    Ok(())
}

/// `redux.sync`
pub(super) fn reduce(warp: &mut Warp, f: Int2, d: Slot, a: Slot, mask: u32) -> Ran<()> {
    let values = *warp.narrow(a, mask)?;
    let mut lanes = lanes_of(mask);
    let first = lanes.next().map_or(0, |lane| values[lane]);
    let result = lanes.fold(first, |sum, lane| two32(f, &[sum; LANES], &[values[lane]; LANES])[0]);
    warp.set_narrow(d, mask, &[result; LANES]);
    Ok(())
}
