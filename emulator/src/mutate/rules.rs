//! Which changes each synchronisation instruction gets.

use super::barriers::{Barriers, COUNT, fixed_number, number_at};
use super::site::Site;
use super::{Change, MutationKind};
use crate::ast::OperandKind;

/// Largest count of an `mbarrier` (PTX ISA, `mbarrier.init`).
const MAX_COUNT: u64 = (1 << 20) - 1;

/// All changes of one instruction; none if it synchronises nothing.
pub(super) fn changes(site: &Site<'_>, barriers: &Barriers) -> Vec<Change> {
    let first = site.instruction.modifiers.first().map_or("", |(name, _)| *name);
    match (site.instruction.root, first) {
        ("bar", ".warp") => vec![site.drop(MutationKind::DropWarpBarrier)],
        ("barrier", ".cluster") => cluster_barrier(site),
        ("bar" | "barrier", _) => barrier(site, barriers),
        ("cp", ".async") => copy(site),
        ("fence" | "membar", _) => fence(site, first),
        ("mbarrier", ".init") => init(site),
        ("mbarrier", ".arrive" | ".arrive_drop") => arrive(site),
        ("mbarrier", ".expect_tx") => {
            let mut changes = vec![site.drop(MutationKind::DropExpect)];
            changes.extend(halve(site));
            changes
        }
        ("mbarrier", ".complete_tx") => vec![site.drop(MutationKind::DropComplete)],
        ("mbarrier", ".test_wait" | ".try_wait") => wait(site),
        ("wgmma", ".fence") => vec![site.drop(MutationKind::DropFence)],
        ("wgmma", ".commit_group") => vec![site.drop(MutationKind::DropCommit)],
        ("wgmma", ".wait_group") => wait_group(site),
        ("griddepcontrol", ".wait") => vec![site.drop(MutationKind::DropGridWait)],
        ("ld" | "st" | "atom" | "red", _) => relax(site),
        _ => Vec::new(),
    }
}

fn cluster_barrier(site: &Site<'_>) -> Vec<Change> {
    let mut changes = vec![site.drop(MutationKind::DropClusterBarrier)];
    if site.has(".arrive") && !site.has(".relaxed") {
        // Without a word the arrival releases.
        let (old, new) =
            if site.has(".release") { (".release", ".relaxed") } else { (".arrive", ".arrive.relaxed") };
        changes.extend(site.set_modifier(MutationKind::RelaxOrder, "arrives without releasing", old, new));
    }
    changes
}

fn barrier(site: &Site<'_>, barriers: &Barriers) -> Vec<Change> {
    let mut changes = Vec::new();
    if site.has(".red") {
        changes.extend(own_value(site));
    } else {
        changes.push(site.drop(MutationKind::DropBarrier));
    }
    // All threads meet at barrier 0 in one instruction: another number there would be as good.
    let at = number_at(site.instruction);
    let named = fixed_number(site.instruction) != Some(0) || site.operand(at + 1).is_some() && at == 0;
    if named {
        changes.extend(renumber(site, at, barriers));
    }
    changes
}

/// A reduction over the thread alone.
fn own_value(site: &Site<'_>) -> Option<Change> {
    let d = site.register(0)?;
    let last = site.instruction.operands.last()?;
    let (negated, p) = match last.kind {
        OperandKind::Not(p) => (true, p),
        OperandKind::Name(p) => (false, p),
        _ => return None,
    };
    let with = match (site.has(".popc"), negated) {
        (true, false) => format!("selp.b32 {d}, 1, 0, {p};"),
        (true, true) => format!("selp.b32 {d}, 0, 1, {p};"),
        (false, false) => format!("mov.pred {d}, {p};"),
        (false, true) => format!("not.pred {d}, {p};"),
    };
    Some(site.replace(MutationKind::DropBarrier, "each thread reduces its own value alone", with))
}

fn renumber(site: &Site<'_>, at: usize, barriers: &Barriers) -> Option<Change> {
    let old = site.operand_text(at)?;
    let new = site.number(at).map_or(COUNT as u64 - 1, |own| barriers.other(own));
    let words = format!("barrier {new} instead of {old}");
    site.set_operand(MutationKind::RenumberBarrier, words, at, new.to_string())
}

fn copy(site: &Site<'_>) -> Vec<Change> {
    if site.has(".commit_group") {
        vec![site.drop(MutationKind::DropCommit)]
    } else if site.has(".wait_all") {
        vec![site.drop(MutationKind::DropWait)]
    } else if site.has(".wait_group") {
        let mut changes = wait_group(site);
        if site.has(".bulk") && !site.has(".read") {
            let words = "waits until the sources are read, not until the data is there";
            let kind = MutationKind::WaitForReads;
            changes.extend(site.set_modifier(kind, words, ".wait_group", ".wait_group.read"));
        }
        changes
    } else if site.has(".mbarrier") && site.has(".arrive") {
        vec![site.drop(MutationKind::DropArrive)]
    } else {
        Vec::new()
    }
}

fn wait_group(site: &Site<'_>) -> Vec<Change> {
    let mut changes = vec![site.drop(MutationKind::DropWait)];
    if let Some(count) = site.number(0)
        && let Some(more) = count.checked_add(1)
    {
        let words = format!("leaves {more} groups under way instead of {count}");
        changes.extend(site.set_operand(MutationKind::RaiseWait, words, 0, more.to_string()));
    }
    changes
}

fn fence(site: &Site<'_>, first: &str) -> Vec<Change> {
    let mut changes = vec![site.drop(MutationKind::DropFence)];
    // Fences of proxies and of `mbarrier.init` have one scope or none.
    let scoped = match site.instruction.root {
        "membar" => first != ".proxy",
        _ => {
            matches!(first, ".sc" | ".acq_rel" | ".acquire" | ".release")
                && !site.instruction.modifiers.iter().any(|(name, _)| name.starts_with(".sync_restrict"))
        }
    };
    for scope in [".cluster", ".gpu", ".gl", ".sys"] {
        if scoped && site.has(scope) {
            let words = format!("orders for the CTA alone instead of `{scope}`");
            changes.extend(site.set_modifier(MutationKind::NarrowFence, words, scope, ".cta"));
        }
    }
    changes
}

fn init(site: &Site<'_>) -> Vec<Change> {
    let mut changes = vec![site.drop(MutationKind::DropInit)];
    let kind = MutationKind::MiscountInit;
    let Some(count) = site.number(1) else {
        let more = "counts one arrival more".to_owned();
        changes.extend(site.set_computed(kind, more, 1, "add.s32", 1));
        let fewer = "counts one arrival fewer".to_owned();
        changes.extend(site.set_computed(kind, fewer, 1, "sub.s32", 1));
        return changes;
    };
    for other in [count.saturating_add(1), count.saturating_sub(1)] {
        if (1..=MAX_COUNT).contains(&other) {
            let words = format!("counts {other} arrivals instead of {count}");
            changes.extend(site.set_operand(kind, words, 1, other.to_string()));
        }
    }
    changes
}

fn arrive(site: &Site<'_>) -> Vec<Change> {
    let dropped = match site.register(0) {
        // Later instructions may read the state.
        Some(state) => {
            site.replace(MutationKind::DropArrive, "dropped, the state is 0", format!("mov.b64 {state}, 0;"))
        }
        None => site.drop(MutationKind::DropArrive),
    };
    let mut changes = vec![dropped];
    if site.has(".expect_tx") {
        if let Some(address) = site.address() {
            let words = "arrives without expecting bytes";
            changes.extend(site.without(MutationKind::DropExpect, words, ".expect_tx", address + 1));
        }
        changes.extend(halve(site));
    }
    changes
}

/// Half of the bytes that stand behind the address.
fn halve(site: &Site<'_>) -> Option<Change> {
    let at = site.address()? + 1;
    let kind = MutationKind::HalveExpect;
    match site.number(at) {
        Some(0) => None,
        Some(bytes) => {
            let words = format!("expects {} bytes instead of {bytes}", bytes / 2);
            site.set_operand(kind, words, at, (bytes / 2).to_string())
        }
        None => site.set_computed(kind, "expects half of the bytes".to_owned(), at, "shr.u32", 1),
    }
}

fn wait(site: &Site<'_>) -> Vec<Change> {
    let Some(p) = site.register(0) else { return Vec::new() };
    let mut changes =
        vec![site.replace(MutationKind::SkipWait, "always through", format!("mov.pred {p}, 1;"))];
    if site.has(".parity") {
        let kind = MutationKind::SwapParity;
        changes.extend(match site.number(2) {
            Some(parity) => {
                let other = parity & 1 ^ 1;
                let words = format!("waits for parity {other} instead of {parity}");
                site.set_operand(kind, words, 2, other.to_string())
            }
            None => site.set_computed(kind, "waits for the other parity".to_owned(), 2, "xor.b32", 1),
        });
    }
    changes
}

fn relax(site: &Site<'_>) -> Vec<Change> {
    [".acquire", ".release", ".acq_rel"]
        .into_iter()
        .filter_map(|order| {
            let words = format!("relaxed instead of `{order}`");
            site.set_modifier(MutationKind::RelaxOrder, words, order, ".relaxed")
        })
        .collect()
}
