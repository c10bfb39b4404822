//! Mutants that the text alone proves equivalent to the original.

use super::barriers::{Barriers, fixed_number};
use super::site::{has, number};
use super::{Change, MutationKind, Step};
use crate::ast::Instruction;

/// The reason why a change of the instruction at this step changes nothing.
pub(super) fn hint(
    steps: &[Step<'_>],
    at: usize,
    change: &Change,
    barriers: &Barriers,
) -> Option<&'static str> {
    let Step::Instruction(own) = &steps[at] else { return None };
    match change.kind {
        MutationKind::DropWait | MutationKind::RaiseWait | MutationKind::WaitForReads => {
            let covers = |other: &Instruction<'_>| match (Wait::of(other), Wait::of(own)) {
                (Some(other), Some(own)) => other.covers(own),
                _ => false,
            };
            if neighbour(steps, at, false).is_some_and(covers) {
                return Some("the wait directly before it waits for at least as much");
            }
            neighbour(steps, at, true)
                .is_some_and(covers)
                .then_some("the wait directly after it waits for at least as much")
        }
        MutationKind::DropFence | MutationKind::NarrowFence => {
            let same = |other: &Instruction<'_>| {
                other.root == own.root
                    && other.operands.is_empty()
                    && own.operands.is_empty()
                    && other
                        .modifiers
                        .iter()
                        .map(|(name, _)| name)
                        .eq(own.modifiers.iter().map(|(name, _)| name))
            };
            if neighbour(steps, at, false).is_some_and(same) {
                return Some("the same fence stands directly before it");
            }
            neighbour(steps, at, true).is_some_and(same).then_some("the same fence stands directly after it")
        }
        MutationKind::RenumberBarrier => renumbering(own, change, barriers),
        _ => None,
    }
}

/// The instruction next to this one, if no way leads past either of them and whoever executes this one executes it too.
fn neighbour<'t>(steps: &[Step<'t>], at: usize, after: bool) -> Option<&'t Instruction<'t>> {
    let other = if after { steps.get(at + 1) } else { steps.get(at.checked_sub(1)?) };
    let (Step::Instruction(own), Some(Step::Instruction(other))) = (&steps[at], other) else { return None };
    let same = match (own.guard, other.guard) {
        (_, None) => true,
        (Some(own), Some(other)) => own.name == other.name && own.negated == other.negated,
        (None, Some(_)) => false,
    };
    same.then_some(*other)
}

/// A barrier that nothing else in the kernel uses may have any number that nothing else uses.
fn renumbering(own: &Instruction<'_>, change: &Change, barriers: &Barriers) -> Option<&'static str> {
    let new: u64 = change.edits.first()?.1.parse().ok()?;
    let renaming = barriers.is_renaming(fixed_number(own)?, new);
    renaming.then_some("no other instruction of the kernel uses either barrier")
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Copy,
    Bulk,
    Wgmma,
}

/// What a wait for groups guarantees.
#[derive(Clone, Copy)]
struct Wait {
    family: Family,
    /// Groups left under way; `None` for `wait_all`, which covers copies without a group too.
    left: Option<u64>,
    /// Waits for the sources alone.
    reads: bool,
}

impl Wait {
    fn of(instruction: &Instruction<'_>) -> Option<Self> {
        let bulk = has(instruction, ".bulk");
        let family = match instruction.root {
            "cp" if bulk => Family::Bulk,
            "cp" => Family::Copy,
            "wgmma" => Family::Wgmma,
            _ => return None,
        };
        let left = if has(instruction, ".wait_all") {
            None
        } else if has(instruction, ".wait_group") {
            Some(instruction.operands.first().and_then(number)?)
        } else {
            return None;
        };
        Some(Self { family, left, reads: has(instruction, ".read") })
    }

    fn covers(self, other: Self) -> bool {
        let enough = match (self.left, other.left) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own <= other,
        };
        self.family == other.family && enough && (!self.reads || other.reads)
    }
}
