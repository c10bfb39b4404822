//! Text to tokens.

use super::{ExpressionError, Span};

/// A token without its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Real(f64),
    Text(String),
    /// A name, dots included: `block_m`, `limit.threads`.
    Name(String),
    /// An operator, a bracket or a comma.
    Symbol(&'static str),
    End,
}

impl Token {
    /// Returns what a message calls it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Int(value) => format!("the number {value}"),
            Self::Real(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Name(name) => format!("'{name}'"),
            Self::Symbol(symbol) => format!("'{symbol}'"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Longer ones first: `<=` is not `<` and then `=`.
const SYMBOLS: &[&str] =
    &["<=", ">=", "==", "!=", "//", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ","];

/// Longest expression in bytes: a chain of operations is a tree as deep as the chain is long.
const MAX_LENGTH: usize = 4096;

/// Splits a text into tokens; the last is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Span)>, ExpressionError> {
    if text.len() > MAX_LENGTH {
        let message =
            format!("expected at most {MAX_LENGTH} bytes, got {}; make it several constraints", text.len());
        return Err(ExpressionError::new(0..text.len(), message));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = if first.is_ascii_digit() {
            number(rest, at)?
        } else if first == '"' || first == '\'' {
            quoted(rest, first, at)?
        } else if first.is_alphabetic() || first == '_' {
            let length =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Token::Symbol(symbol), symbol.len())
        } else {
            let hint = match first {
                '=' => "; equality is '=='",
                '&' => "; write 'and'",
                '|' => "; write 'or'",
                '!' => "; write 'not' or '!='",
                _ => "",
            };
            let message = format!("expected a name, a number, a text or an operator, got '{first}'{hint}");
            return Err(ExpressionError::new(at..at + first.len_utf8(), message));
        };
        tokens.push((token, at..at + length));
        at += length;
    }
    tokens.push((Token::End, text.len()..text.len()));
    Ok(tokens)
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), ExpressionError> {
    let digits = |from: usize| {
        rest[from..].find(|c: char| !(c.is_ascii_digit() || c == '_')).map_or(rest.len(), |n| from + n)
    };
    let mut length = digits(0);
    let mut real = false;
    if rest[length..].starts_with('.') && rest[length + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        real = true;
        length = digits(length + 1);
    }
    if rest[length..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
        if rest[length + 1 + sign..].starts_with(|c: char| c.is_ascii_digit()) {
            real = true;
            length = digits(length + 1 + sign);
        }
    }
    let text = rest[..length].replace('_', "");
    let token = if real {
        text.parse().ok().filter(|value: &f64| value.is_finite()).map(Token::Real)
    } else {
        text.parse().ok().map(Token::Int)
    };
    let too_large = || {
        let message = format!("expected a number that fits 64 bits, got {text}");
        ExpressionError::new(at..at + length, message)
    };
    Ok((token.ok_or_else(too_large)?, length))
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<(Token, usize), ExpressionError> {
    match rest[1..].find(quote) {
        Some(length) => Ok((Token::Text(rest[1..=length].to_owned()), length + 2)),
        None => {
            let message = format!("expected the closing {quote} of a text, got the end");
            Err(ExpressionError::new(at..at + rest.len(), message))
        }
    }
}
