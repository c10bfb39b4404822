//! One instruction in its text, and the edits that rules make there.

use std::borrow::Cow;

use super::{Change, MutationKind};
use crate::ast::{Instruction, Number, Operand, OperandKind};
use crate::diagnostic::Span;

pub(super) struct Site<'t> {
    text: &'t str,
    pub(super) instruction: &'t Instruction<'t>,
    /// From the guard's `@`, if there is one, to the semicolon.
    whole: Span,
}

impl<'t> Site<'t> {
    /// `guards` are the places of every `@` in the text, ascending.
    pub(super) fn new(text: &'t str, instruction: &'t Instruction<'t>, guards: &[u32]) -> Self {
        let start = instruction.guard.and_then(|guard| {
            let after = guards.partition_point(|mark| *mark < guard.span.start);
            guards[..after].last().copied()
        });
        let start = start.unwrap_or(instruction.span.start);
        Self { text, instruction, whole: Span { start, end: instruction.span.end } }
    }

    /// The instruction as it stands, with single spaces.
    pub(super) fn original(&self) -> String {
        let words: Vec<&str> = self.slice(self.whole).split_whitespace().collect();
        words.join(" ")
    }

    fn slice(&self, span: Span) -> &'t str {
        &self.text[span.start as usize..span.end as usize]
    }

    pub(super) fn has(&self, modifier: &str) -> bool {
        has(self.instruction, modifier)
    }

    pub(super) fn operand(&self, at: usize) -> Option<&'t Operand<'t>> {
        self.instruction.operands.get(at)
    }

    /// The text of an operand.
    pub(super) fn operand_text(&self, at: usize) -> Option<&'t str> {
        Some(self.slice(self.operand(at)?.span))
    }

    pub(super) fn number(&self, at: usize) -> Option<u64> {
        number(self.operand(at)?)
    }

    /// The register that an operand names; `_` names none.
    pub(super) fn register(&self, at: usize) -> Option<&'t str> {
        match self.operand(at)?.kind {
            OperandKind::Name(name) if name != "_" => Some(name),
            _ => None,
        }
    }

    /// Index of the first operand in brackets.
    pub(super) fn address(&self) -> Option<usize> {
        let bracket = |operand: &Operand<'_>| {
            matches!(operand.kind, OperandKind::Address(..) | OperandKind::Absolute(_))
        };
        self.instruction.operands.iter().position(bracket)
    }

    /// Takes the instruction out, its guard with it.
    pub(super) fn drop(&self, kind: MutationKind) -> Change {
        Change { kind, words: "dropped".to_owned(), edits: vec![(self.whole, Cow::Borrowed(""))] }
    }

    /// Puts another instruction in its place, under the same guard.
    pub(super) fn replace(&self, kind: MutationKind, words: impl Into<String>, with: String) -> Change {
        Change { kind, words: words.into(), edits: vec![(self.instruction.span, with.into())] }
    }

    /// Puts the result of `opcode operand, number` in the place of an operand that is a register of 32 bits.
    pub(super) fn set_computed(
        &self,
        kind: MutationKind,
        words: String,
        at: usize,
        opcode: &str,
        number: u32,
    ) -> Option<Change> {
        let operand = self.register(at)?;
        // Its own scope keeps the name apart from the kernel's.
        let before = format!("{{ .reg .b32 %mutated; {opcode} %mutated, {operand}, {number}; ");
        let (start, end) = (self.whole.start, self.whole.end);
        let edits = vec![
            (Span { start, end: start }, before.into()),
            (self.operand(at)?.span, Cow::Borrowed("%mutated")),
            (Span { start: end, end }, Cow::Borrowed(" }")),
        ];
        Some(Change { kind, words, edits })
    }

    pub(super) fn set_operand(
        &self,
        kind: MutationKind,
        words: String,
        at: usize,
        with: String,
    ) -> Option<Change> {
        Some(Change { kind, words, edits: vec![(self.operand(at)?.span, with.into())] })
    }

    /// Puts another modifier, or none, in the place of one.
    pub(super) fn set_modifier(
        &self,
        kind: MutationKind,
        words: impl Into<String>,
        modifier: &str,
        with: &'static str,
    ) -> Option<Change> {
        let (_, span) = self.instruction.modifiers.iter().find(|(name, _)| *name == modifier)?;
        Some(Change { kind, words: words.into(), edits: vec![(*span, Cow::Borrowed(with))] })
    }

    /// Takes out a modifier and an operand with the comma before it.
    pub(super) fn without(
        &self,
        kind: MutationKind,
        words: &str,
        modifier: &str,
        operand: usize,
    ) -> Option<Change> {
        let mut change = self.set_modifier(kind, words, modifier, "")?;
        let start = self.operand(operand.checked_sub(1)?)?.span.end;
        let end = self.operand(operand)?.span.end;
        change.edits.push((Span { start, end }, Cow::Borrowed("")));
        Some(change)
    }
}

pub(super) fn has(instruction: &Instruction<'_>, modifier: &str) -> bool {
    instruction.modifiers.iter().any(|(name, _)| *name == modifier)
}

pub(super) fn number(operand: &Operand<'_>) -> Option<u64> {
    match operand.kind {
        OperandKind::Number(Number::Integer(value)) => Some(value),
        _ => None,
    }
}
