//! Which of a CTA's barriers a kernel uses.

use super::Step;
use super::site::{has, number};
use crate::ast::Instruction;

/// Barriers of a CTA are numbered 0 to 15 (PTX ISA, `bar`).
pub(super) const COUNT: usize = 16;

/// The uses of each barrier in one kernel.
pub(super) struct Barriers {
    /// Instructions by the number they show.
    users: [u32; COUNT],
    /// An instruction takes its number from a register, or a function is called that may use any.
    unknown: bool,
}

impl Barriers {
    pub(super) fn of(steps: &[Step<'_>]) -> Self {
        let mut barriers = Self { users: [0; COUNT], unknown: false };
        for step in steps {
            let Step::Instruction(instruction) = step else { continue };
            barriers.unknown |= instruction.root == "call";
            if is_barrier(instruction) {
                match fixed_number(instruction).and_then(|number| barriers.users.get_mut(number as usize)) {
                    Some(users) => *users += 1,
                    None => barriers.unknown = true,
                }
            }
        }
        barriers
    }

    /// Another number: one in use elsewhere is the worse mistake, since it wakes others.
    pub(super) fn other(&self, own: u64) -> u64 {
        let used = (0..COUNT as u64).find(|number| *number != own && self.users[*number as usize] > 0);
        used.unwrap_or((own.wrapping_add(1)) % COUNT as u64)
    }

    /// True if one instruction alone uses `old`, and none `new`.
    pub(super) fn is_renaming(&self, old: u64, new: u64) -> bool {
        let users = |number: u64| self.users.get(number as usize).copied();
        !self.unknown && users(old) == Some(1) && users(new) == Some(0)
    }
}

/// The operand that holds a barrier's number: behind the destination of a reduction.
pub(super) fn number_at(instruction: &Instruction<'_>) -> usize {
    usize::from(has(instruction, ".red"))
}

/// True for the barriers of a CTA, whatever is done there.
pub(super) fn is_barrier(instruction: &Instruction<'_>) -> bool {
    matches!(instruction.root, "bar" | "barrier")
        && !has(instruction, ".warp")
        && !has(instruction, ".cluster")
}

/// The number of a barrier instruction where the text shows it.
pub(super) fn fixed_number(instruction: &Instruction<'_>) -> Option<u64> {
    instruction.operands.get(number_at(instruction)).and_then(number)
}
