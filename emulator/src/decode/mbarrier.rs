//! `mbarrier` and `cp.async.mbarrier.arrive`.

use super::hopper::{scope, shared_space, site};
use super::operands::{Decoded, Reader};
use crate::ast::OperandKind;
use crate::hopper::{Arrive, BarrierWait, Hopper, Site};
use crate::program::NONE;
use crate::scalar::{Scalar, Space};

pub(super) fn decode(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    let Some(&(what, _)) = r.instruction.modifiers.first() else {
        return r.error("`mbarrier` needs an operation such as `.init`");
    };
    r.require(what)?;
    match what {
        ".init" => {
            let at = local(r)?;
            Ok(Hopper::BarrierInit { at, count: r.source(Scalar::U32)? })
        }
        ".inval" => Ok(Hopper::BarrierInvalidate(local(r)?)),
        ".arrive" | ".arrive_drop" => arrive(r, what == ".arrive_drop"),
        ".expect_tx" | ".complete_tx" => {
            r.accept(".relaxed");
            scope(r);
            let space = shared_space(r);
            r.require(".b64")?;
            let at = site(r, space)?;
            let bytes = r.source(Scalar::U32)?;
            Ok(if what == ".expect_tx" {
                Hopper::ExpectBytes { at, bytes }
            } else {
                Hopper::CompleteBytes { at, bytes }
            })
        }
        ".test_wait" | ".try_wait" => wait(r, what == ".try_wait"),
        ".pending_count" => {
            r.require(".b64")?;
            Ok(Hopper::PendingCount { d: r.destination(Scalar::B32)?, state: r.source(Scalar::B64)? })
        }
        _ => r.error(format!("`mbarrier{what}` is not modelled")),
    }
}

/// `[address]` of an operation that works on barriers of the own CTA only.
fn local(r: &mut Reader<'_, '_>) -> Decoded<Site> {
    let space = shared_space(r);
    if space == Space::Cluster {
        return r.error("this operation works on barriers of the own CTA, `.shared::cta`, only");
    }
    r.require(".b64")?;
    site(r, space)
}

fn arrive(r: &mut Reader<'_, '_>, drop: bool) -> Decoded<Hopper> {
    let no_complete = r.accept(".noComplete");
    let expects = !no_complete && r.accept(".expect_tx");
    let relaxed = r.accept(".relaxed");
    r.accept(".release");
    scope(r);
    let space = shared_space(r);
    r.require(".b64")?;
    // `[address]` first: the form without a state.
    let bare = matches!(
        r.instruction.operands.first().map(|operand| &operand.kind),
        Some(OperandKind::Address(..) | OperandKind::Absolute(_))
    );
    let state = if bare {
        NONE
    } else {
        let operand = r.operand()?;
        r.destination_or_sink(operand, Scalar::B64)?
    };
    if space == Space::Cluster && state != NONE {
        return r.error("a barrier in `.shared::cluster` returns no state: write `_`");
    }
    if no_complete && state == NONE {
        return r.error("`.noComplete` returns a state: it needs a register of 64 bits");
    }
    let at = site(r, space)?;
    let (mut count, mut expect) = (NONE, NONE);
    if expects {
        expect = r.source(Scalar::U32)?;
    } else if no_complete || r.left() > 0 {
        count = r.source(Scalar::U32)?;
    }
    Ok(Hopper::Arrive(Arrive { at, state, count, expect, drop, no_complete, release: !relaxed }))
}

fn wait(r: &mut Reader<'_, '_>, blocks: bool) -> Decoded<Hopper> {
    let parity = r.accept(".parity");
    let relaxed = r.accept(".relaxed");
    r.accept(".acquire");
    scope(r);
    let space = shared_space(r);
    if space == Space::Cluster {
        return r.error("a thread waits on barriers of its own CTA, `.shared::cta`, only");
    }
    r.require(".b64")?;
    let p = r.destination(Scalar::Pred)?;
    let at = site(r, space)?;
    let phase = r.source(if parity { Scalar::U32 } else { Scalar::B64 })?;
    if blocks && r.left() > 0 {
        // The longest time to wait, which is not modelled.
        r.source(Scalar::U32)?;
    }
    Ok(Hopper::Wait(BarrierWait { at, p, phase, parity, blocks, acquire: !relaxed }))
}

/// `cp.async.mbarrier.arrive`
pub(super) fn copy_arrive(r: &mut Reader<'_, '_>) -> Decoded<Hopper> {
    for modifier in [".async", ".mbarrier", ".arrive"] {
        r.require(modifier)?;
    }
    let no_increment = r.accept(".noinc");
    Ok(Hopper::CopyArrive { at: local(r)?, no_increment })
}
