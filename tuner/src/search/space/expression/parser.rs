//! Tokens to a tree, by recursive descent.
//!
//! Loosest first: `or`, `and`, `not`, comparisons and `in`, `+ -`, `* / // %`, unary minus.

use super::{
    Binary, ExpressionError, Extreme, Kind, Node, Span,
    lexer::{self, Token},
};

/// Deepest nesting: far beyond what anyone writes, and far from the end of the stack.
const MAX_DEPTH: usize = 64;

type AxisLookup<'l> = &'l dyn Fn(&str) -> Result<usize, String>;
type LimitLookup<'l> = &'l dyn Fn(&str) -> Result<f64, String>;

/// Parses a whole text.
pub(super) fn parse(
    text: &str,
    axes: AxisLookup<'_>,
    limits: LimitLookup<'_>,
) -> Result<Node, ExpressionError> {
    let mut parser = Parser { tokens: lexer::tokens(text)?, next: 0, depth: 0, axes, limits };
    let root = parser.or()?;
    match parser.peek() {
        Token::End => Ok(root),
        other => {
            Err(parser.unexpected(&format!("expected an operator or the end, got {}", other.describe())))
        }
    }
}

struct Parser<'l> {
    tokens: Vec<(Token, Span)>,
    next: usize,
    depth: usize,
    axes: AxisLookup<'l>,
    limits: LimitLookup<'l>,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn span(&self) -> Span {
        self.tokens[self.next].1.clone()
    }

    fn unexpected(&self, message: &str) -> ExpressionError {
        ExpressionError::new(self.span(), message)
    }

    /// Moves on; the end stays where it is.
    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn take(&mut self, symbol: &str) -> bool {
        let there = matches!(self.peek(), Token::Symbol(s) if *s == symbol);
        if there {
            self.advance();
        }
        there
    }

    fn take_word(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Token::Name(name) if name == word);
        if there {
            self.advance();
        }
        there
    }

    fn expect(&mut self, symbol: &str, after: &str) -> Result<(), ExpressionError> {
        if self.take(symbol) {
            return Ok(());
        }
        let got = self.peek().describe();
        Err(self.unexpected(&format!("expected '{symbol}' after {after}, got {got}")))
    }

    fn binary(operation: Binary, left: Node, right: Node) -> Node {
        let span = left.span.start..right.span.end;
        Node { span, kind: Kind::Binary(operation, Box::new(left), Box::new(right)) }
    }

    fn or(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.and()?;
        while self.take_word("or") {
            left = Self::binary(Binary::Or, left, self.and()?);
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.not()?;
        while self.take_word("and") {
            left = Self::binary(Binary::And, left, self.not()?);
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Node, ExpressionError> {
        let start = self.span().start;
        if !self.take_word("not") {
            return self.comparison();
        }
        let inner = self.nested(Self::not)?;
        Ok(Node { span: start..inner.span.end, kind: Kind::Not(Box::new(inner)) })
    }

    fn comparison(&mut self) -> Result<Node, ExpressionError> {
        let left = self.sum()?;
        if let Some(operation) = self.comparison_sign() {
            let right = self.sum()?;
            if self.comparison_sign().is_some() {
                self.next -= 1;
                return Err(self.unexpected("expected one comparison at a time; join two with 'and'"));
            }
            return Ok(Self::binary(operation, left, right));
        }
        let negated = matches!(self.peek(), Token::Name(name) if name == "not");
        if negated {
            self.advance();
        }
        if self.take_word("in") {
            let node = self.members(left)?;
            let span = node.span.clone();
            return Ok(if negated { Node { span, kind: Kind::Not(Box::new(node)) } } else { node });
        }
        if negated {
            let got = self.peek().describe();
            return Err(self.unexpected(&format!("expected 'in' after 'not', got {got}")));
        }
        Ok(left)
    }

    fn comparison_sign(&mut self) -> Option<Binary> {
        let Token::Symbol(symbol) = self.peek() else { return None };
        let operation = match *symbol {
            "<" => Binary::Less,
            "<=" => Binary::LessEqual,
            ">" => Binary::Greater,
            ">=" => Binary::GreaterEqual,
            "==" => Binary::Equal,
            "!=" => Binary::NotEqual,
            _ => return None,
        };
        self.advance();
        Some(operation)
    }

    /// The list after `in`.
    fn members(&mut self, needle: Node) -> Result<Node, ExpressionError> {
        self.expect("[", "'in'")?;
        let mut nodes = Vec::new();
        loop {
            if self.take("]") {
                break;
            }
            nodes.push(self.sum()?);
            if !self.take(",") {
                self.expect("]", "the values of 'in'")?;
                break;
            }
        }
        let span = needle.span.start..self.tokens[self.next - 1].1.end;
        Ok(Node { span, kind: Kind::In(Box::new(needle), nodes) })
    }

    fn sum(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.product()?;
        loop {
            let operation = match self.peek() {
                Token::Symbol("+") => Binary::Add,
                Token::Symbol("-") => Binary::Subtract,
                _ => return Ok(left),
            };
            self.advance();
            left = Self::binary(operation, left, self.product()?);
        }
    }

    fn product(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.unary()?;
        loop {
            let operation = match self.peek() {
                Token::Symbol("*") => Binary::Multiply,
                Token::Symbol("/") => Binary::Divide,
                Token::Symbol("//") => Binary::FloorDivide,
                Token::Symbol("%") => Binary::Remainder,
                _ => return Ok(left),
            };
            self.advance();
            left = Self::binary(operation, left, self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Node, ExpressionError> {
        let start = self.span().start;
        if !self.take("-") {
            return self.atom();
        }
        let inner = self.nested(Self::unary)?;
        Ok(Node { span: start..inner.span.end, kind: Kind::Negate(Box::new(inner)) })
    }

    fn nested(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Node, ExpressionError>,
    ) -> Result<Node, ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.unexpected(&format!("expected at most {MAX_DEPTH} levels of nesting")));
        }
        let node = parse(self);
        self.depth -= 1;
        node
    }

    fn atom(&mut self) -> Result<Node, ExpressionError> {
        let (token, span) = self.tokens[self.next].clone();
        let kind = match token {
            Token::Int(value) => Kind::Int(value),
            Token::Real(value) => Kind::Real(value),
            Token::Text(text) => Kind::Text(text),
            Token::Symbol("(") => {
                self.advance();
                let inner = self.nested(Self::or)?;
                self.expect(")", "what '(' opened")?;
                return Ok(inner);
            }
            Token::Name(name) => match name.as_str() {
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                "min" => return self.extreme(Extreme::Min, span),
                "max" => return self.extreme(Extreme::Max, span),
                "and" | "or" | "not" | "in" => return Err(self.no_operand()),
                _ => self.name(&name, &span)?,
            },
            Token::Symbol(_) | Token::End => return Err(self.no_operand()),
        };
        self.advance();
        Ok(Node { span, kind })
    }

    fn no_operand(&self) -> ExpressionError {
        let got = self.peek().describe();
        self.unexpected(&format!("expected a name, a number or a text, got {got}"))
    }

    fn name(&self, name: &str, span: &Span) -> Result<Kind, ExpressionError> {
        let at = |message: String| ExpressionError::new(span.clone(), message);
        match name.strip_prefix("limit.") {
            Some(limit) => {
                let value = (self.limits)(limit).map_err(at)?;
                // Limits are counts of bytes and threads: whole ones stay whole, so that `//` and `%` are exact.
                let whole = value.fract() == 0.0 && value.abs() < 9e15;
                Ok(if whole { Kind::Int(value as i64) } else { Kind::Real(value) })
            }
            None => (self.axes)(name).map(Kind::Axis).map_err(at),
        }
    }

    fn extreme(&mut self, extreme: Extreme, span: Span) -> Result<Node, ExpressionError> {
        let name = match extreme {
            Extreme::Min => "min",
            Extreme::Max => "max",
        };
        self.advance();
        self.expect("(", name)?;
        let mut nodes = vec![self.nested(Self::sum)?];
        while self.take(",") {
            nodes.push(self.nested(Self::sum)?);
        }
        self.expect(")", &format!("the values of {name}"))?;
        Ok(Node { span: span.start..self.tokens[self.next - 1].1.end, kind: Kind::Extreme(extreme, nodes) })
    }
}
