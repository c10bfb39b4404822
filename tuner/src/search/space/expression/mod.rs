//! Constraints as expressions: `block_m * head_dim * 2 <= limit.shared_bytes and order in ["row", "column"]`.
//!
//! Numbers (`+ - * / // %`, `min`, `max`), comparisons, `and`/`or`/`not`, text and `in [..]`. `/` divides exactly,
//! `//` rounds down and `%` takes the sign of the divisor. Names are axes; `limit.NAME` is a number of the device.
//! Every error knows its place.

mod evaluate;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range};

pub(crate) use evaluate::Operand;

/// Where something stands in the text of an expression, in bytes.
pub(crate) type Span = Range<usize>;

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpressionError {
    /// The piece at fault; empty at the end of the text.
    pub(crate) span: Span,
    /// What was expected and what is there.
    pub(crate) message: String,
}

impl ExpressionError {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExpressionError {}

/// An operation on two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

/// The smallest or the largest of some values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extreme {
    Min,
    Max,
}

/// A node with its place.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    span: Span,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Int(i64),
    Real(f64),
    Text(String),
    Bool(bool),
    /// An axis by its number.
    Axis(usize),
    Negate(Box<Node>),
    Not(Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Extreme(Extreme, Vec<Node>),
    In(Box<Node>, Vec<Node>),
}

/// A parsed expression whose names are resolved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression {
    root: Node,
}

impl Expression {
    /// Parses a text. `axes` gives the number of an axis by its name, `limits` the value of a limit, or what to say
    /// about an unknown one.
    ///
    /// # Errors
    /// The first place that does not fit the language or names nothing known.
    pub(crate) fn parse(
        text: &str,
        axes: impl Fn(&str) -> Result<usize, String>,
        limits: impl Fn(&str) -> Result<f64, String>,
    ) -> Result<Self, ExpressionError> {
        let root = parser::parse(text, &axes, &limits)?;
        Ok(Self { root })
    }

    /// Returns the highest number of an axis it needs; `None` if it needs none.
    pub(crate) fn last_axis(&self) -> Option<usize> {
        fn last(node: &Node) -> Option<usize> {
            match &node.kind {
                Kind::Int(_) | Kind::Real(_) | Kind::Text(_) | Kind::Bool(_) => None,
                Kind::Axis(axis) => Some(*axis),
                Kind::Negate(inner) | Kind::Not(inner) => last(inner),
                Kind::Binary(_, left, right) => last(left).max(last(right)),
                Kind::Extreme(_, nodes) => nodes.iter().filter_map(last).max(),
                Kind::In(needle, nodes) => nodes.iter().filter_map(last).max().max(last(needle)),
            }
        }
        last(&self.root)
    }

    /// Says whether the expression holds for these values, given by the number of their axis.
    ///
    /// # Errors
    /// When an operation does not suit its values, or the whole is neither true nor false.
    pub(crate) fn holds<'v>(&'v self, axes: &impl Fn(usize) -> Operand<'v>) -> Result<bool, ExpressionError> {
        evaluate::truth(&self.root, axes)
    }
}
