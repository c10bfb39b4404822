//! PTX text to tokens. A word takes dots and `::` with it, so that `ld.shared::cta.b32` and `%tid.x` are one token.

use crate::diagnostic::{Error, Span};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'t> {
    /// Opcode, register, label, directive: starts with a letter or one of `_ $ % .`
    Word(&'t str),
    /// Integer, already in two's complement bits; a minus sign is a token of its own.
    Integer(u64),
    /// `0f` and eight hexadecimal digits.
    Single(u32),
    /// `0d` and sixteen hexadecimal digits, or a decimal fraction.
    Double(u64),
    Text(&'t str),
    Punctuation(char),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Integer(value) => write!(f, "the number {value}"),
            Self::Single(bits) => write!(f, "the number {:e}", f32::from_bits(*bits)),
            Self::Double(bits) => write!(f, "the number {:e}", f64::from_bits(*bits)),
            Self::Text(text) => write!(f, "the string \"{text}\""),
            Self::Punctuation(mark) => write!(f, "`{mark}`"),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

pub(crate) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn span(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.at as u32 }
    }

    fn skip_blank(&mut self) -> Result<(), Error> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\r' | b'\n', _) => self.at += 1,
                (b'/', b'/') => {
                    self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
                }
                (b'/', b'*') => match self.text[self.at..].find("*/") {
                    Some(length) => self.at += length + 2,
                    None => {
                        let start = self.at;
                        return Err(Error::new(
                            Span { start: start as u32, end: start as u32 + 2 },
                            "this comment has no end `*/`",
                        ));
                    }
                },
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn next(&mut self) -> Result<(Token<'t>, Span), Error> {
        self.skip_blank()?;
        let start = self.at;
        let first = self.peek(0);
        let token = match first {
            _ if start >= self.text.len() => Token::End,
            b'0'..=b'9' => self.number()?,
            b'"' => {
                let rest = &self.text[start + 1..];
                let Some(length) = rest.find('"') else {
                    let span = Span { start: start as u32, end: start as u32 + 1 };
                    return Err(Error::new(span, "this string has no closing quote"));
                };
                self.at += length + 2;
                Token::Text(&rest[..length])
            }
            _ if is_word(first) => {
                while is_word(self.peek(0)) || (self.peek(0) == b':' && self.peek(1) == b':') {
                    self.at += if self.peek(0) == b':' { 2 } else { 1 };
                }
                Token::Word(&self.text[start..self.at])
            }
            b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b',' | b';' | b':' | b'@' | b'!'
            | b'|' | b'+' | b'-' | b'=' => {
                self.at += 1;
                Token::Punctuation(char::from(first))
            }
            _ => {
                let mark = self.text[start..].chars().next().unwrap_or('\u{fffd}');
                let span = Span { start: start as u32, end: (start + mark.len_utf8()) as u32 };
                return Err(Error::new(span, format!("the character {mark:?} has no meaning in PTX")));
            }
        };
        Ok((token, self.span(start)))
    }

    fn number(&mut self) -> Result<Token<'t>, Error> {
        let start = self.at;
        let hexadecimal = self.text[start..].starts_with("0x");
        let mut fraction = false;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'.' {
            fraction |= self.peek(0) == b'.';
            self.at += 1;
            // The sign of a decimal exponent, `1.5e-3`: not in `0f3e-1`, which has no exponent.
            let exponent = matches!(self.text.as_bytes()[self.at - 1], b'e' | b'E');
            if exponent && fraction && !hexadecimal && matches!(self.peek(0), b'+' | b'-') {
                self.at += 1;
            }
        }
        let text = &self.text[start..self.at];
        let lower = text.to_ascii_lowercase();
        let bad = || Error::new(self.span(start), format!("`{text}` is not a number PTX knows"));
        let exact = |digits: &str, length: usize| {
            let value = u64::from_str_radix(digits, 16).map_err(|_| bad())?;
            if digits.len() == length { Ok(value) } else { Err(bad()) }
        };
        if let Some(digits) = lower.strip_prefix("0f") {
            return exact(digits, 8).map(|bits| Token::Single(bits as u32));
        }
        if let Some(digits) = lower.strip_prefix("0d") {
            return exact(digits, 16).map(Token::Double);
        }
        if lower.contains('.') {
            return lower.parse().map(|value: f64| Token::Double(value.to_bits())).map_err(|_| bad());
        }
        let unsigned = lower.strip_suffix('u').unwrap_or(&lower);
        let (digits, radix) = match unsigned {
            _ if unsigned.starts_with("0x") => (&unsigned[2..], 16),
            _ if unsigned.starts_with("0b") => (&unsigned[2..], 2),
            _ if unsigned.len() > 1 && unsigned.starts_with('0') => (&unsigned[1..], 8),
            _ => (unsigned, 10),
        };
        u64::from_str_radix(digits, radix).map(Token::Integer).map_err(|_| bad())
    }
}
