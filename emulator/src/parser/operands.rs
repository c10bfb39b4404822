//! Operands of instructions.

use super::{Parsed, Parser};
use crate::ast::{Operand, OperandKind};
use crate::lexer::Token;

impl<'t> Parser<'t> {
    pub(super) fn operand(&mut self) -> Parsed<Operand<'t>> {
        let start = self.span;
        let kind = match self.token {
            Token::Punctuation('{') => OperandKind::Vector(self.coordinates()?),
            Token::Punctuation('[') => {
                self.bump()?;
                let kind = self.address()?;
                let address = Operand { span: start.to(self.last), kind };
                let coordinates = if self.accept(',')? { Some(self.coordinates()?) } else { None };
                self.expect(']')?;
                match coordinates {
                    Some(items) => OperandKind::Tensor(Box::new(address), items),
                    None => address.kind,
                }
            }
            Token::Punctuation('(') => {
                while self.token != Token::Punctuation(')') {
                    if self.bump()? == Token::End {
                        return self.expected("`)`");
                    }
                }
                self.bump()?;
                OperandKind::Group
            }
            _ => self.simple()?,
        };
        let first = Operand { span: start.to(self.last), kind };
        if !self.accept('|')? {
            return Ok(first);
        }
        let span = self.span;
        let second = Operand { span, kind: self.simple()? };
        let kind = OperandKind::Pair(Box::new(first), Box::new(second));
        Ok(Operand { span: start.to(self.last), kind })
    }

    /// `{a, b}`
    fn coordinates(&mut self) -> Parsed<Vec<Operand<'t>>> {
        self.expect('{')?;
        let mut items = Vec::new();
        while !self.accept('}')? {
            let span = self.span;
            let kind = self.simple()?;
            items.push(Operand { span, kind });
            if self.token != Token::Punctuation('}') {
                self.expect(',')?;
            }
        }
        Ok(items)
    }

    fn simple(&mut self) -> Parsed<OperandKind<'t>> {
        if self.accept('!')? {
            return Ok(OperandKind::Not(self.word("a predicate")?));
        }
        let Token::Word(name) = self.token else { return Ok(OperandKind::Number(self.number()?)) };
        self.bump()?;
        Ok(match self.offset()? {
            None => OperandKind::Name(name),
            Some(offset) => OperandKind::Sum(name, offset),
        })
    }

    pub(super) fn offset(&mut self) -> Parsed<Option<i64>> {
        let negative = if self.accept('+')? {
            self.accept('-')?
        } else if self.accept('-')? {
            true
        } else {
            return Ok(None);
        };
        let value = self.integer("an offset")? as i64;
        Ok(Some(if negative { value.wrapping_neg() } else { value }))
    }

    fn address(&mut self) -> Parsed<OperandKind<'t>> {
        if let Token::Integer(value) = self.token {
            self.bump()?;
            return Ok(OperandKind::Absolute(value));
        }
        let name = self.word("a register or a variable")?;
        let offset = self.offset()?.unwrap_or(0);
        Ok(OperandKind::Address(name, offset))
    }
}
