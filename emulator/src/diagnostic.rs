//! What is wrong with a PTX text, and where: file, line, column and the line itself.

use std::fmt;

/// Reports one error in a PTX text: lexical, grammatical, or an opcode, modifier or operand outside the subset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// Name given to [`crate::Module::parse`], usually a path.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// The text of that line.
    pub text: String,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        write!(f, "  | {}", self.text.trim_end())
    }
}

/// A half-open range of bytes in the PTX text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn to(self, end: Self) -> Self {
        Self { start: self.start, end: end.end }
    }
}

/// An error that knows its bytes but not yet its file; [`Source::diagnose`] completes it.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) span: Span,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}

/// A PTX text with the start of each of its lines.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    starts: Vec<u32>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at as u32 + 1)).collect();
        Self { name: name.to_owned(), text: text.to_owned(), starts }
    }

    /// Line of a byte, from 1; unlike the column it costs little in a text of one long line.
    pub(crate) fn line_of(&self, byte: u32) -> u32 {
        self.starts.partition_point(|start| *start <= byte).max(1) as u32
    }

    /// Line and column of a byte, both from 1.
    pub(crate) fn position(&self, byte: u32) -> (u32, u32) {
        let line = self.line_of(byte);
        let start = self.starts[line as usize - 1] as usize;
        let head = self.text.get(start..byte as usize).unwrap_or("");
        (line, head.chars().count() as u32 + 1)
    }

    /// Text of a line, counted from 1, without its newline.
    pub(crate) fn line(&self, line: u32) -> &str {
        let start = self.starts[line as usize - 1] as usize;
        self.text[start..].lines().next().unwrap_or("")
    }

    pub(crate) fn diagnose(&self, error: &Error) -> Diagnostic {
        let (line, column) = self.position(error.span.start);
        let text = self.line(line).to_owned();
        Diagnostic { file: self.name.clone(), line, column, text, message: error.message.clone() }
    }
}
