//! Mutants of a kernel: its text with one synchronisation instruction dropped or weakened. A checker that lets a mutant
//! pass as clean cannot see that kind of bug.
//!
//! Owns the choice of instructions and the edits of the text, which apart from them stays byte for byte the same. Does not
//! run anything, and knows instructions by their names alone, so that it serves kernels for targets the emulator cannot
//! run.

mod barriers;
mod equivalence;
mod rules;
mod site;

use std::borrow::Cow;
use std::sync::Arc;

use crate::ast::{Instruction, Statement};
use crate::diagnostic::{Diagnostic, Error, Source, Span};
use crate::lexer::{Lexer, Token};
use crate::parser::parse;
use barriers::Barriers;
use site::Site;

/// One kernel text in which one synchronisation instruction was dropped or weakened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mutant {
    /// Line of the instruction in the PTX text, counted from 1; lines have the same numbers in the mutant.
    pub line: u32,
    /// Column of its opcode in characters, counted from 1: a line may hold several instructions.
    pub column: u32,
    /// The instruction as it was, guard included, blanks made one space.
    pub text: String,
    /// What was done to it, in words.
    pub change: String,
    /// What was done to it, for counting.
    pub kind: MutationKind,
    equivalence: Option<&'static str>,
    /// Shared: thousands of mutants of a long text take little more room than the text.
    original: Arc<str>,
    edits: Vec<Edit>,
}

/// A range of the text and what stands there instead.
type Edit = (Span, Cow<'static, str>);

impl Mutant {
    /// Makes the whole text with the change.
    pub fn ptx(&self) -> String {
        apply(&self.original, &self.edits)
    }

    /// Says why the mutant behaves as the original, where the text alone proves it; a checker cannot be asked to find such
    /// a mutant. `None` proves nothing.
    pub fn equivalence_hint(&self) -> Option<&str> {
        self.equivalence
    }
}

/// Names the kinds of mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MutationKind {
    /// `bar.sync`, `bar.arrive`, `barrier.sync`, `barrier.arrive` dropped; of `bar.red` each thread's own value is left.
    DropBarrier,
    /// A barrier of threads under another number.
    RenumberBarrier,
    /// `bar.warp.sync` dropped.
    DropWarpBarrier,
    /// `barrier.cluster.arrive` or `barrier.cluster.wait` dropped.
    DropClusterBarrier,
    /// A `commit_group` of `cp.async`, `cp.async.bulk` or `wgmma` dropped.
    DropCommit,
    /// A `wait_group` or `wait_all` of them dropped.
    DropWait,
    /// A `wait_group` that leaves one more group under way.
    RaiseWait,
    /// `cp.async.bulk.wait_group` that waits for the reads of the source alone.
    WaitForReads,
    /// `fence`, `membar` or `wgmma.fence` dropped.
    DropFence,
    /// A fence of the device or the system that orders for the CTA alone.
    NarrowFence,
    /// An acquire or release made relaxed.
    RelaxOrder,
    /// `mbarrier.init` dropped.
    DropInit,
    /// `mbarrier.init` with a count that is off by one.
    MiscountInit,
    /// An arrival at an `mbarrier` dropped.
    DropArrive,
    /// `mbarrier.expect_tx` dropped, or taken from an arrival that stays.
    DropExpect,
    /// Half of the expected bytes.
    HalveExpect,
    /// `mbarrier.complete_tx` dropped.
    DropComplete,
    /// `mbarrier.test_wait` or `try_wait` that is always through.
    SkipWait,
    /// A wait for the other parity of an `mbarrier`.
    SwapParity,
    /// `griddepcontrol.wait` dropped.
    DropGridWait,
}

/// What a rule does to an instruction.
struct Change {
    kind: MutationKind,
    words: String,
    /// Replaced ranges of the text, in order.
    edits: Vec<Edit>,
}

/// A place in a kernel's flow.
enum Step<'t> {
    /// Control may come here from elsewhere.
    Label,
    Instruction(&'t Instruction<'t>),
}

/// Makes every mutant of one kernel of a PTX text, in the order of the text. An error is one of the grammar, or the lack of
/// a kernel of this name. Of instructions the emulator does not know only the names need to be right.
///
/// What counts as synchronisation: barriers, fences, commits and waits of asynchronous groups, all of `mbarrier` but
/// `inval`, orders of loads, stores and atomics, waits for another grid. `setmaxnreg` and hints are speed, not order.
pub fn mutants(ptx: &str, kernel: &str) -> Result<Vec<Mutant>, Diagnostic> {
    let source = Source::new("PTX", ptx);
    find(&source, kernel).map_err(|error| source.diagnose(&error))
}

fn find(source: &Source, kernel: &str) -> Result<Vec<Mutant>, Error> {
    let text = source.text.as_str();
    let ast = parse(text)?;
    let entries = || ast.functions.iter().filter(|function| function.entry);
    let body = entries().find(|function| function.name == kernel).and_then(|function| function.body.as_ref());
    let Some(body) = body else {
        let known: Vec<&str> = entries().map(|function| function.name).collect();
        let message = format!("expected a kernel `{kernel}` with a body, found the kernels {known:?}");
        return Err(Error::new(Span::default(), message));
    };
    let guards = guard_marks(text)?;
    let mut steps = Vec::new();
    flatten(body, &mut steps);
    let barriers = Barriers::of(&steps);
    let original: Arc<str> = Arc::from(text);
    let mut mutants = Vec::new();
    let mut places = Places { source, last: 0, found: (1, 1) };
    for (at, step) in steps.iter().enumerate() {
        let Step::Instruction(instruction) = step else { continue };
        let site = Site::new(text, instruction, &guards);
        for change in rules::changes(&site, &barriers) {
            let (line, column) = places.of(instruction.opcode.start);
            mutants.push(Mutant {
                line,
                column,
                text: site.original(),
                kind: change.kind,
                equivalence: equivalence::hint(&steps, at, &change, &barriers),
                change: change.words,
                original: Arc::clone(&original),
                edits: change.edits,
            });
        }
    }
    Ok(mutants)
}

/// Finds lines and columns of ascending bytes, in one walk over the text even if it is a single line.
struct Places<'s> {
    source: &'s Source,
    last: u32,
    found: (u32, u32),
}

impl Places<'_> {
    fn of(&mut self, byte: u32) -> (u32, u32) {
        let between = &self.source.text[self.last as usize..byte as usize];
        self.found = if between.contains('\n') {
            self.source.position(byte)
        } else {
            (self.found.0, self.found.1 + between.chars().count() as u32)
        };
        self.last = byte;
        self.found
    }
}

/// Where the guards' `@` stand; a comment's is none.
fn guard_marks(text: &str) -> Result<Vec<u32>, Error> {
    let mut lexer = Lexer::new(text);
    let mut marks = Vec::new();
    loop {
        match lexer.next()? {
            (Token::End, _) => return Ok(marks),
            (Token::Punctuation('@'), span) => marks.push(span.start),
            _ => {}
        }
    }
}

fn flatten<'t>(statements: &'t [Statement<'t>], out: &mut Vec<Step<'t>>) {
    for statement in statements {
        match statement {
            Statement::Block(inner) => flatten(inner, out),
            Statement::Label(..) => out.push(Step::Label),
            Statement::Instruction(instruction) => out.push(Step::Instruction(instruction)),
            _ => {}
        }
    }
}

fn apply(text: &str, edits: &[Edit]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for (span, with) in edits {
        out.push_str(&text[at..span.start as usize]);
        out.push_str(with);
        // Every line behind an instruction of several lines keeps its number.
        let removed = &text[span.start as usize..span.end as usize];
        out.extend(removed.chars().filter(|c| *c == '\n'));
        at = span.end as usize;
    }
    out.push_str(&text[at..]);
    out
}
