//! Recursive descent from tokens to the syntax tree.

mod operands;

use crate::ast::{
    Ast, Function, Guard, Initial, Instruction, Limits, Number, Registers, Statement, Variable,
};
use crate::diagnostic::{Error, Span};
use crate::lexer::{Lexer, Token};
use crate::scalar::{Scalar, Space};

/// Blocks in blocks beyond this depth are no program but an attack on the stack.
const MAX_DEPTH: u32 = 32;

type Parsed<T> = Result<T, Error>;

struct Parser<'t> {
    lexer: Lexer<'t>,
    token: Token<'t>,
    span: Span,
    /// Of the token before, for the end of a node.
    last: Span,
}

/// Parses a whole module.
pub(crate) fn parse(text: &str) -> Parsed<Ast<'_>> {
    if u32::try_from(text.len()).is_err() {
        return Err(Error::new(Span::default(), "the text is longer than 4 GiB"));
    }
    let mut lexer = Lexer::new(text);
    let (token, span) = lexer.next()?;
    Parser { lexer, token, span, last: span }.module()
}

impl<'t> Parser<'t> {
    fn bump(&mut self) -> Parsed<Token<'t>> {
        let (token, span) = self.lexer.next()?;
        self.last = std::mem::replace(&mut self.span, span);
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        Err(Error::new(self.span, format!("expected {what}, found {}", self.token)))
    }

    fn accept(&mut self, mark: char) -> Parsed<bool> {
        let found = self.token == Token::Punctuation(mark);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn expect(&mut self, mark: char) -> Parsed<()> {
        if self.accept(mark)? { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    fn accept_word(&mut self, word: &str) -> Parsed<bool> {
        let found = self.token == Token::Word(word);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn word(&mut self, what: &str) -> Parsed<&'t str> {
        match self.token {
            Token::Word(word) => {
                self.bump()?;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    fn integer(&mut self, what: &str) -> Parsed<u64> {
        match self.token {
            Token::Integer(value) => {
                self.bump()?;
                Ok(value)
            }
            _ => self.expected(what),
        }
    }

    fn small(&mut self, what: &str) -> Parsed<u32> {
        let span = self.span;
        let value = self.integer(what)?;
        u32::try_from(value).map_err(|_| Error::new(span, format!("{what} {value} does not fit 32 bits")))
    }

    fn module(mut self) -> Parsed<Ast<'t>> {
        let mut ast = Ast::default();
        loop {
            match self.token {
                Token::End => return Ok(ast),
                Token::Word(".version") => {
                    self.bump()?;
                    // `8.0` reads as a fraction.
                    self.bump()?;
                }
                Token::Word(".target") => {
                    self.bump()?;
                    ast.target = self.word("a target such as `sm_80`")?;
                    while self.accept(',')? {
                        self.word("a target option")?;
                    }
                }
                Token::Word(".address_size") => {
                    self.bump()?;
                    let span = self.span;
                    if self.integer("32 or 64")? != 64 {
                        return Err(Error::new(span, "only 64-bit addresses are modelled"));
                    }
                }
                Token::Word(".file") => {
                    self.bump()?;
                    let number = self.integer("a file number")?;
                    let Token::Text(path) = self.bump()? else { return self.expected("a file name") };
                    ast.files.push((number, path));
                    while self.accept(',')? {
                        self.integer("a time stamp or a size")?;
                    }
                }
                Token::Word(".section") => self.section()?,
                Token::Word(".pragma" | ".alias") => self.skip_statement()?,
                Token::Punctuation(';') => {
                    self.bump()?;
                }
                _ => self.declaration(&mut ast)?,
            }
        }
    }

    /// Debug sections are data for debuggers; their extent is all that matters here.
    fn section(&mut self) -> Parsed<()> {
        self.bump()?;
        self.word("a section name")?;
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.bump()? {
                Token::Punctuation('{') => depth += 1,
                Token::Punctuation('}') => depth -= 1,
                Token::End => return self.expected("`}` at the end of the section"),
                _ => {}
            }
        }
        Ok(())
    }

    fn skip_statement(&mut self) -> Parsed<()> {
        while self.token != Token::Punctuation(';') {
            if self.bump()? == Token::End {
                return self.expected("`;`");
            }
        }
        self.expect(';')
    }

    fn declaration(&mut self, ast: &mut Ast<'t>) -> Parsed<()> {
        let mut external = false;
        while let Token::Word(".visible" | ".extern" | ".weak" | ".common") = self.token {
            external |= self.token == Token::Word(".extern");
            self.bump()?;
        }
        match self.token {
            Token::Word(".entry" | ".func") => {
                let function = self.function()?;
                ast.functions.push(function);
                Ok(())
            }
            Token::Word(word) if Space::parse(word).is_some() => {
                let mut variables = Vec::new();
                self.variables(external, &mut variables)?;
                ast.variables.append(&mut variables);
                Ok(())
            }
            _ => self.expected("a module-level directive such as `.entry`, `.func`, `.global` or `.shared`"),
        }
    }

    fn function(&mut self) -> Parsed<Function<'t>> {
        let entry = self.word("`.entry` or `.func`")? == ".entry";
        if !entry && self.accept('(')? {
            self.params()?;
        }
        let span = self.span;
        let name = self.word("the function's name")?;
        let params = if self.accept('(')? { self.params()? } else { Vec::new() };
        let mut function = Function {
            name,
            span,
            entry,
            params,
            max_threads: None,
            required_threads: None,
            limits: Limits::default(),
            body: None,
        };
        loop {
            match self.token {
                Token::Word(".maxntid") => {
                    self.bump()?;
                    function.max_threads = Some(self.triple()?);
                }
                Token::Word(".reqntid") => {
                    self.bump()?;
                    function.required_threads = Some(self.triple()?);
                }
                Token::Word(".reqnctapercluster") => {
                    self.bump()?;
                    function.limits.cluster = Some(self.triple()?);
                }
                Token::Word(".explicitcluster") => {
                    self.bump()?;
                    function.limits.explicit_cluster = true;
                }
                Token::Word(".maxclusterrank") => {
                    self.bump()?;
                    function.limits.max_cluster_rank = Some(self.small("a count of CTAs")?);
                }
                Token::Word(".maxnreg") => {
                    self.bump()?;
                    function.limits.max_registers = Some(self.small("a count of registers")?);
                }
                Token::Word(".minnctapersm") => {
                    self.bump()?;
                    function.limits.min_ctas = Some(self.small("a count of CTAs")?);
                }
                Token::Word(".maxnctapersm") => {
                    self.bump()?;
                    self.integer("a count")?;
                }
                Token::Word(".noreturn") => {
                    self.bump()?;
                }
                Token::Word(".pragma") => self.skip_statement()?,
                Token::Punctuation(';') => {
                    self.bump()?;
                    return Ok(function);
                }
                Token::Punctuation('{') => {
                    self.bump()?;
                    function.body = Some(self.block(0)?);
                    return Ok(function);
                }
                _ => return self.expected("a performance directive, `;` or the function's body"),
            }
        }
    }

    fn triple(&mut self) -> Parsed<[u32; 3]> {
        let mut sizes = [self.small("a thread count")?, 1, 1];
        for size in &mut sizes[1..] {
            if self.accept(',')? {
                *size = self.small("a thread count")?;
            }
        }
        Ok(sizes)
    }

    fn params(&mut self) -> Parsed<Vec<Variable<'t>>> {
        let mut params = Vec::new();
        while !self.accept(')')? {
            params.push(self.variable(Space::Param, false, true)?);
            if self.token != Token::Punctuation(')') {
                self.expect(',')?;
            }
        }
        Ok(params)
    }

    fn variables(&mut self, external: bool, out: &mut Vec<Variable<'t>>) -> Parsed<()> {
        let space = Space::parse(self.word("a state space")?).unwrap_or(Space::Generic);
        out.push(self.variable(space, external, false)?);
        while self.accept(',')? {
            let (scalar, align) = (out[0].scalar, out[0].align);
            let variable = self.declarator(space, external, scalar, align)?;
            out.push(variable);
        }
        self.expect(';')
    }

    /// `.param .u64 .ptr .align 1 name` or `.shared .align 16 .b8 name[1024]`, the space of a variable already taken.
    fn variable(&mut self, space: Space, external: bool, with_space: bool) -> Parsed<Variable<'t>> {
        if with_space && !self.accept_word(".param")? && !self.accept_word(".reg")? {
            return self.expected("`.param`");
        }
        let mut align = None;
        let mut scalar = None;
        loop {
            match self.token {
                Token::Word(".align") => {
                    self.bump()?;
                    let span = self.span;
                    let value = self.small("an alignment")?;
                    if !value.is_power_of_two() || value > 1 << 16 {
                        return Err(Error::new(
                            span,
                            format!("alignment {value} is not a power of two up to 65536"),
                        ));
                    }
                    // The alignment behind `.ptr` is that of the pointee.
                    align = align.or(scalar.is_none().then_some(value));
                }
                Token::Word(".ptr" | ".global" | ".shared" | ".local" | ".const") => {
                    self.bump()?;
                }
                Token::Word(word) if scalar.is_none() && Scalar::parse(word).is_some() => {
                    scalar = Scalar::parse(word);
                    self.bump()?;
                }
                _ => break,
            }
        }
        let Some(scalar) = scalar else { return self.expected("a type such as `.b32`") };
        let align = align.unwrap_or(scalar.bytes().max(1));
        self.declarator(space, external, scalar, align)
    }

    fn declarator(
        &mut self,
        space: Space,
        external: bool,
        scalar: Scalar,
        align: u32,
    ) -> Parsed<Variable<'t>> {
        let span = self.span;
        let name = self.word("a name")?;
        let mut count = Some(1);
        while self.accept('[')? {
            if self.accept(']')? {
                count = None;
                continue;
            }
            let size = self.integer("an array size")?;
            count = count.map(|count: u64| count.saturating_mul(size));
            self.expect(']')?;
        }
        let mut values = Vec::new();
        if self.accept('=')? {
            if self.accept('{')? {
                while !self.accept('}')? {
                    values.push(self.initial()?);
                    if self.token != Token::Punctuation('}') {
                        self.expect(',')?;
                    }
                }
            } else {
                values.push(self.initial()?);
            }
        }
        Ok(Variable { name, span, space, external, scalar, align, count, values })
    }

    fn initial(&mut self) -> Parsed<Initial<'t>> {
        if !matches!(self.token, Token::Word(_)) {
            return Ok(Initial::Number(self.number()?));
        }
        // A generic address of the global space is the address itself.
        let generic = self.accept_word("generic")?;
        if generic {
            self.expect('(')?;
        }
        let span = self.span;
        let name = self.word("a variable")?;
        if generic {
            self.expect(')')?;
        }
        let offset = self.offset()?.unwrap_or(0);
        Ok(Initial::Address(name, offset, span))
    }

    fn number(&mut self) -> Parsed<Number> {
        let negative = self.accept('-')?;
        let number = match self.token {
            Token::Integer(value) => Number::Integer(if negative { value.wrapping_neg() } else { value }),
            Token::Single(bits) => Number::Single(bits ^ u32::from(negative) << 31),
            Token::Double(bits) => Number::Double(bits ^ u64::from(negative) << 63),
            _ => return self.expected("a number"),
        };
        self.bump()?;
        Ok(number)
    }

    fn block(&mut self, depth: u32) -> Parsed<Vec<Statement<'t>>> {
        if depth > MAX_DEPTH {
            return Err(Error::new(self.span, format!("blocks nest deeper than {MAX_DEPTH}")));
        }
        let mut statements = Vec::new();
        loop {
            match self.token {
                Token::Punctuation('}') => {
                    self.bump()?;
                    return Ok(statements);
                }
                Token::Punctuation('{') => {
                    self.bump()?;
                    statements.push(Statement::Block(self.block(depth + 1)?));
                }
                Token::Punctuation(';') => {
                    self.bump()?;
                }
                Token::Punctuation('@') => {
                    self.bump()?;
                    let negated = self.accept('!')?;
                    let span = self.span;
                    let name = self.word("a predicate")?;
                    let instruction = self.instruction(Some(Guard { name, negated, span }))?;
                    statements.push(Statement::Instruction(instruction));
                }
                Token::Word(".reg") => statements.push(Statement::Registers(self.registers()?)),
                Token::Word(".loc") => statements.push(self.location()?),
                Token::Word(".pragma" | ".callprototype") => self.skip_statement()?,
                Token::Word(".branchtargets") => {
                    self.bump()?;
                    let mut labels = Vec::new();
                    loop {
                        let span = self.span;
                        labels.push((self.word("a label")?, span));
                        if !self.accept(',')? {
                            break;
                        }
                    }
                    self.expect(';')?;
                    statements.push(Statement::BranchTargets(labels));
                }
                Token::Word(word) if word.starts_with('.') && Space::parse(word).is_some() => {
                    let mut variables = Vec::new();
                    self.variables(false, &mut variables)?;
                    statements.extend(variables.into_iter().map(Statement::Variable));
                }
                Token::Word(word) if word.starts_with('.') => {
                    return self.expected("a statement (this directive is not known here)");
                }
                Token::Word(_) => {
                    let statement = self.label_or_instruction()?;
                    statements.push(statement);
                }
                _ => return self.expected("a statement or `}`"),
            }
        }
    }

    fn location(&mut self) -> Parsed<Statement<'t>> {
        self.bump()?;
        let file = self.integer("a file number")?;
        let line = self.small("a line")?;
        self.small("a column")?;
        if self.accept(',')? {
            // `function_name label, inlined_at file line column`
            self.word("`function_name`")?;
            self.word("a label")?;
            if self.accept('+')? {
                self.integer("an offset")?;
            }
            self.expect(',')?;
            self.word("`inlined_at`")?;
            for what in ["a file number", "a line", "a column"] {
                self.integer(what)?;
            }
        }
        Ok(Statement::Location(file, line))
    }

    fn registers(&mut self) -> Parsed<Registers<'t>> {
        self.bump()?;
        let Some(scalar) = (match self.token {
            Token::Word(word) => Scalar::parse(word),
            _ => None,
        }) else {
            return self.expected("a register type such as `.b32`");
        };
        self.bump()?;
        let mut names = Vec::new();
        loop {
            let span = self.span;
            let name = self.word("a register name")?;
            let count = if self.accept('<')? {
                let count = self.integer("a register count")?;
                self.expect('>')?;
                Some(count)
            } else {
                None
            };
            names.push((name, count, span));
            if !self.accept(',')? {
                break;
            }
        }
        self.expect(';')?;
        Ok(Registers { scalar, names })
    }

    fn label_or_instruction(&mut self) -> Parsed<Statement<'t>> {
        let span = self.span;
        let word = self.word("an opcode or a label")?;
        if self.accept(':')? {
            return Ok(Statement::Label(word, span));
        }
        Ok(Statement::Instruction(self.operands(None, word, span)?))
    }

    fn instruction(&mut self, guard: Option<Guard<'t>>) -> Parsed<Instruction<'t>> {
        let span = self.span;
        let word = self.word("an opcode")?;
        self.operands(guard, word, span)
    }

    fn operands(&mut self, guard: Option<Guard<'t>>, word: &'t str, opcode: Span) -> Parsed<Instruction<'t>> {
        let mut dots: Vec<usize> = word.match_indices('.').map(|(at, _)| at).collect();
        dots.push(word.len());
        let root = &word[..dots[0]];
        let modifiers = dots
            .windows(2)
            .map(|pair| {
                let start = opcode.start + pair[0] as u32;
                (&word[pair[0]..pair[1]], Span { start, end: opcode.start + pair[1] as u32 })
            })
            .collect();
        let mut operands = Vec::new();
        while self.token != Token::Punctuation(';') {
            operands.push(self.operand()?);
            if self.token != Token::Punctuation(';') && !self.accept(',')? {
                return self.expected("`,` or `;`");
            }
        }
        self.expect(';')?;
        Ok(Instruction { guard, root, modifiers, operands, opcode, span: opcode.to(self.last) })
    }
}
