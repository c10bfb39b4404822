//! The value of a tree.

use std::cmp::Ordering;

use super::{Binary, ExpressionError, Extreme, Kind, Node};

/// A value while it is computed with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operand<'v> {
    Int(i64),
    Real(f64),
    Text(&'v str),
    Bool(bool),
}

impl Operand<'_> {
    fn describe(self) -> String {
        match self {
            Self::Int(value) => format!("the number {value}"),
            Self::Real(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Bool(value) => value.to_string(),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(value as f64),
            Self::Real(value) => Some(value),
            Self::Text(_) | Self::Bool(_) => None,
        }
    }
}

/// Returns whether a condition holds.
pub(super) fn truth<'v>(
    node: &'v Node,
    axes: &impl Fn(usize) -> Operand<'v>,
) -> Result<bool, ExpressionError> {
    match evaluate(node, axes)? {
        Operand::Bool(value) => Ok(value),
        other => Err(error(node, format!("expected a condition, got {}", other.describe()))),
    }
}

fn error(node: &Node, message: String) -> ExpressionError {
    ExpressionError::new(node.span.clone(), message)
}

fn evaluate<'v>(
    node: &'v Node,
    axes: &impl Fn(usize) -> Operand<'v>,
) -> Result<Operand<'v>, ExpressionError> {
    Ok(match &node.kind {
        Kind::Int(value) => Operand::Int(*value),
        Kind::Real(value) => Operand::Real(*value),
        Kind::Text(text) => Operand::Text(text),
        Kind::Bool(value) => Operand::Bool(*value),
        Kind::Axis(axis) => axes(*axis),
        Kind::Not(inner) => Operand::Bool(!truth(inner, axes)?),
        Kind::Negate(inner) => match evaluate(inner, axes)? {
            Operand::Int(value) => Operand::Int(value.checked_neg().ok_or_else(|| overflow(node))?),
            Operand::Real(value) => Operand::Real(-value),
            other => return Err(no_number(inner, other)),
        },
        Kind::Binary(Binary::And, left, right) => Operand::Bool(truth(left, axes)? && truth(right, axes)?),
        Kind::Binary(Binary::Or, left, right) => Operand::Bool(truth(left, axes)? || truth(right, axes)?),
        Kind::Binary(operation, left, right) => {
            let operands = (evaluate(left, axes)?, evaluate(right, axes)?);
            match operation {
                Binary::Equal => Operand::Bool(equal(operands.0, operands.1)),
                Binary::NotEqual => Operand::Bool(!equal(operands.0, operands.1)),
                Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => {
                    let ordering = compare((left, operands.0), (right, operands.1))?;
                    Operand::Bool(match operation {
                        Binary::Less => ordering.is_lt(),
                        Binary::LessEqual => ordering.is_le(),
                        Binary::Greater => ordering.is_gt(),
                        _ => ordering.is_ge(),
                    })
                }
                _ => arithmetic(node, *operation, (left, operands.0), (right, operands.1))?,
            }
        }
        Kind::Extreme(extreme, nodes) => {
            let mut best = evaluate(&nodes[0], axes)?;
            for other in nodes {
                let value = evaluate(other, axes)?;
                let ordering = compare((other, value), (&nodes[0], best))?;
                let better = match extreme {
                    Extreme::Min => ordering.is_lt(),
                    Extreme::Max => ordering.is_gt(),
                };
                if better {
                    best = value;
                }
            }
            best
        }
        Kind::In(needle, nodes) => {
            let needle = evaluate(needle, axes)?;
            let mut found = false;
            for other in nodes {
                found |= equal(needle, evaluate(other, axes)?);
            }
            Operand::Bool(found)
        }
    })
}

fn overflow(node: &Node) -> ExpressionError {
    error(node, "expected a result that fits 64 bits".to_owned())
}

fn no_number(node: &Node, got: Operand<'_>) -> ExpressionError {
    error(node, format!("expected a number, got {}", got.describe()))
}

fn equal(left: Operand<'_>, right: Operand<'_>) -> bool {
    match (left, right) {
        (Operand::Int(a), Operand::Int(b)) => a == b,
        (a, b) => match (a.number(), b.number()) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

fn compare(
    (left, a): (&Node, Operand<'_>),
    (right, b): (&Node, Operand<'_>),
) -> Result<Ordering, ExpressionError> {
    if let (Operand::Int(a), Operand::Int(b)) = (a, b) {
        return Ok(a.cmp(&b));
    }
    let a = a.number().ok_or_else(|| no_number(left, a))?;
    let b = b.number().ok_or_else(|| no_number(right, b))?;
    Ok(a.total_cmp(&b))
}

fn arithmetic<'v>(
    node: &Node,
    operation: Binary,
    (left, a): (&Node, Operand<'_>),
    (right, b): (&Node, Operand<'_>),
) -> Result<Operand<'v>, ExpressionError> {
    let (x, y) =
        (a.number().ok_or_else(|| no_number(left, a))?, b.number().ok_or_else(|| no_number(right, b))?);
    let divides = matches!(operation, Binary::Divide | Binary::FloorDivide | Binary::Remainder);
    if divides && y == 0.0 {
        return Err(error(right, "expected a divisor other than 0".to_owned()));
    }
    if let (Operand::Int(a), Operand::Int(b)) = (a, b)
        && operation != Binary::Divide
    {
        let result = match operation {
            Binary::Add => a.checked_add(b),
            Binary::Subtract => a.checked_sub(b),
            Binary::Multiply => a.checked_mul(b),
            Binary::FloorDivide => floor_divide(a, b),
            _ => floor_divide(a, b).and_then(|quotient| a.checked_sub(quotient.checked_mul(b)?)),
        };
        return result.map(Operand::Int).ok_or_else(|| overflow(node));
    }
    let result = match operation {
        Binary::Add => x + y,
        Binary::Subtract => x - y,
        Binary::Multiply => x * y,
        Binary::Divide => x / y,
        Binary::FloorDivide => (x / y).floor(),
        _ => x - (x / y).floor() * y,
    };
    if result.is_finite() { Ok(Operand::Real(result)) } else { Err(overflow(node)) }
}

/// Divides and rounds towards minus infinity.
fn floor_divide(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    let inexact = a % b != 0;
    Some(if inexact && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}
