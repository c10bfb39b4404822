//! From the syntax tree to decoded kernels: names resolved, constants folded, every modifier accounted for.

mod arithmetic;
mod convert;
mod hopper;
mod mbarrier;
mod memory;
mod operands;
mod scope;
mod warp;
mod wgmma;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::ast::{Ast, Function, Initial, Instruction, Number, OperandKind, Statement, Variable};
use crate::diagnostic::{Error, Span};
use crate::hopper::Hopper;
use crate::program::{Instr, Kernel, NONE, Op, Parameter, Slot, Sync};
use crate::scalar::{Scalar, Space};
pub(crate) use convert::{LOCAL_BASE, SHARED_BASE, WINDOW};
use operands::{Decoded, Names, Reader, Symbol};

/// Most bytes of a variable: what a GPU could hold, and what this machine should be asked for.
const MAX_VARIABLE: u64 = 1 << 31;

/// Most bytes of a module's global variables together: a launch makes room for all of them.
const MAX_GLOBALS: u64 = 1 << 28;

/// A `.global` or `.const` variable of the module.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    pub(crate) bytes: u64,
    /// Shorter than `bytes` when the rest is zero.
    pub(crate) init: Vec<u8>,
    /// Places in it that hold the address of another variable: offset, index, addend.
    pub(crate) addresses: Vec<(usize, usize, i64)>,
}

/// Everything a module holds once it is decoded.
#[derive(Debug, Default)]
pub(crate) struct Decoding {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) globals: Vec<Global>,
}

fn bytes(variable: &Variable<'_>) -> Decoded<u64> {
    let bytes = u64::from(variable.scalar.bytes()).saturating_mul(variable.count.unwrap_or(0));
    if bytes > MAX_VARIABLE {
        return Err(Error::new(variable.span, format!("`{}` is larger than 2 GiB", variable.name)));
    }
    Ok(bytes)
}

fn initial(variable: &Variable<'_>) -> Vec<u8> {
    let width = variable.scalar.bytes() as usize;
    let mut bytes = Vec::with_capacity(variable.values.len() * width);
    for value in &variable.values {
        let Initial::Number(number) = *value else {
            // `addresses` fills it in once every variable has its number.
            bytes.extend_from_slice(&[0; 8][..width]);
            continue;
        };
        let bits = match (number, variable.scalar) {
            (Number::Integer(bits), _) | (Number::Double(bits), Scalar::F64 | Scalar::B64) => bits,
            (Number::Double(bits), _) => u64::from((f64::from_bits(bits) as f32).to_bits()),
            (Number::Single(bits), _) => u64::from(bits),
        };
        bytes.extend_from_slice(&bits.to_le_bytes()[..width]);
    }
    bytes
}

fn addresses(variable: &Variable<'_>, layout: &Layout<'_>) -> Decoded<Vec<(usize, usize, i64)>> {
    let width = variable.scalar.bytes() as usize;
    let mut found = Vec::new();
    for (at, value) in variable.values.iter().enumerate() {
        let Initial::Address(name, offset, span) = *value else { continue };
        match layout.symbols.get(name) {
            Some(Symbol::Global(index)) if width == 8 => found.push((at * width, *index as usize, offset)),
            Some(Symbol::Global(_)) => {
                return Err(Error::new(span, "an address takes an element of 64 bits"));
            }
            _ => return Err(Error::new(span, format!("`{name}` is no global variable of this module"))),
        }
    }
    Ok(found)
}

fn place(end: &mut u32, variable: &Variable<'_>) -> Decoded<u32> {
    let offset = u64::from(*end).next_multiple_of(u64::from(variable.align));
    let new_end = offset + bytes(variable)?;
    *end = u32::try_from(new_end).map_err(|_| {
        Error::new(variable.span, format!("`{}` no longer fits 32-bit addresses", variable.name))
    })?;
    Ok(offset as u32)
}

/// Where module variables lie.
struct Layout<'t> {
    symbols: Rc<HashMap<&'t str, Symbol>>,
    shared_end: u32,
    /// Largest alignment of the arrays whose size the launch gives.
    dynamic_align: u32,
}

/// Decodes all kernels of a module.
pub(crate) fn decode(ast: &Ast<'_>) -> Decoded<Decoding> {
    let target = ast.target;
    let mut decoding = Decoding::default();
    let (mut symbols, mut shared_end, mut dynamic_align, mut global_bytes) = (HashMap::new(), 0, 16, 0);
    for variable in &ast.variables {
        let symbol = match variable.space {
            Space::Shared if variable.external || variable.count.is_none() => {
                dynamic_align = variable.align.max(dynamic_align);
                Symbol::Dynamic
            }
            Space::Shared => Symbol::Shared(place(&mut shared_end, variable)?),
            Space::Global
                if !variable.external && (variable.count.is_some() || !variable.values.is_empty()) =>
            {
                let init = initial(variable);
                let bytes = bytes(variable)?.max(init.len() as u64);
                if variable.align > 256 {
                    return Err(Error::new(
                        variable.span,
                        "global variables are aligned to at most 256 bytes",
                    ));
                }
                global_bytes += bytes;
                if global_bytes > MAX_GLOBALS {
                    return Err(Error::new(
                        variable.span,
                        format!("with `{}` the global variables take more than 256 MiB", variable.name),
                    ));
                }
                decoding.globals.push(Global { bytes, init, addresses: Vec::new() });
                Symbol::Global(decoding.globals.len() as u32 - 1)
            }
            _ => {
                let text = format!(
                    "a module variable such as `{}` of the {} space is not modelled",
                    variable.name,
                    variable.space.name()
                );
                return Err(Error::new(variable.span, text));
            }
        };
        symbols.insert(variable.name, symbol);
    }
    let layout = Layout { symbols: Rc::new(symbols), shared_end, dynamic_align };
    for variable in &ast.variables {
        if let Some(Symbol::Global(index)) = layout.symbols.get(variable.name).copied() {
            decoding.globals[index as usize].addresses = addresses(variable, &layout)?;
        }
    }
    for function in &ast.functions {
        if function.entry
            && let Some(body) = &function.body
        {
            decoding.kernels.push(kernel(function, body, &layout, target)?);
        }
    }
    Ok(decoding)
}

fn kernel<'t>(
    function: &'t Function<'t>,
    body: &'t [Statement<'t>],
    layout: &Layout<'t>,
    target: &'t str,
) -> Decoded<Kernel> {
    let mut names = Names::new(Rc::clone(&layout.symbols));
    let mut param_bytes = 0;
    let mut params = Vec::new();
    for variable in &function.params {
        let offset = place(&mut param_bytes, variable)?;
        names.symbols.insert(variable.name, Symbol::Param(offset));
        let (name, bytes) = (variable.name.to_owned(), bytes(variable)? as u32);
        params.push(Parameter { name, offset, bytes, scalar: variable.scalar });
    }
    if param_bytes > 32764 {
        return Err(Error::new(
            function.span,
            format!("{param_bytes} bytes of parameters are more than 32764"),
        ));
    }
    let mut decoder = Decoder {
        names,
        shared_end: layout.shared_end,
        local_end: 0,
        code: Vec::new(),
        targets: Targets::default(),
        location: (0, 0),
        touched: Vec::new(),
        target,
    };
    // Offsets of the function's own shared and local variables come first: the dynamic array lies behind them all.
    decoder.variables(body)?;
    let Some(dynamic_shared) = decoder.shared_end.checked_next_multiple_of(layout.dynamic_align) else {
        return Err(Error::new(function.span, "the shared variables no longer fit 32-bit addresses"));
    };
    decoder.names.symbols.set_dynamic(dynamic_shared);
    decoder.block(body)?;
    let end = function.span;
    let exit =
        Instr { op: Op::Exit, guard: NONE, negated: false, sync: Sync::Free, span: end, location: (0, 0) };
    decoder.code.push(exit);
    let (tables, callees) = decoder.targets.resolve(&mut decoder.code)?;
    let touched = fragments(&decoder.code, decoder.touched);
    Ok(Kernel {
        name: function.name.to_owned(),
        files: decoder.names.sizes(),
        constants: decoder.names.constants(),
        specials: decoder.names.specials(),
        code: decoder.code,
        params,
        param_bytes,
        static_shared: decoder.shared_end,
        dynamic_shared,
        local_bytes: decoder.local_end,
        max_threads: function.max_threads,
        required_threads: function.required_threads,
        tables,
        limits: function.limits,
        touched,
        lines: Vec::new(),
        callees,
    })
}

/// Labels met, and branches to labels perhaps not met yet.
#[derive(Default)]
struct Targets<'t> {
    labels: HashMap<&'t str, u32>,
    /// `.branchtargets` by the label before it.
    tables: HashMap<&'t str, Vec<(&'t str, Span)>>,
    branches: Vec<(usize, &'t str, Span)>,
    table_branches: Vec<(usize, &'t str, Span)>,
    callees: Vec<String>,
}

impl Targets<'_> {
    fn find(&self, label: &str, span: Span) -> Decoded<u32> {
        let missing = || Error::new(span, format!("the label `{label}` is nowhere in this function"));
        self.labels.get(label).copied().ok_or_else(missing)
    }

    fn resolve(&mut self, code: &mut [Instr]) -> Decoded<(Vec<Vec<u32>>, Vec<String>)> {
        for (at, label, span) in &self.branches {
            code[*at].op = Op::Branch(self.find(label, *span)?);
        }
        let mut tables = Vec::new();
        // Branches by one list share its table.
        let mut known = HashMap::new();
        for (at, label, span) in &self.table_branches {
            let Some(targets) = self.tables.get(label) else {
                return Err(Error::new(*span, format!("`{label}` has no `.branchtargets`")));
            };
            let table = match known.get(label) {
                Some(table) => *table,
                None => {
                    let targets: Decoded<Vec<u32>> =
                        targets.iter().map(|(name, span)| self.find(name, *span)).collect();
                    let table = u16::try_from(tables.len())
                        .map_err(|_| Error::new(*span, "more than 65535 branch tables in a function"))?;
                    tables.push(targets?);
                    known.insert(label, table);
                    table
                }
            };
            if let Op::BranchTable { table: slot, .. } = &mut code[*at].op {
                *slot = table;
            }
        }
        Ok((tables, std::mem::take(&mut self.callees)))
    }
}

struct Decoder<'t> {
    names: Names<'t>,
    shared_end: u32,
    local_end: u32,
    code: Vec<Instr>,
    targets: Targets<'t>,
    location: (u32, u32),
    /// For each instruction the narrow registers it names.
    touched: Vec<Vec<Slot>>,
    target: &'t str,
}

/// Of the registers each instruction names, those that some `wgmma` uses as accumulators or as matrix A; nothing for
/// `wgmma` itself, which has its own rules. Empty without a `wgmma`.
fn fragments(code: &[Instr], mut touched: Vec<Vec<Slot>>) -> Vec<Box<[Slot]>> {
    let product = |instr: &Instr| match &instr.op {
        Op::Hopper(op) => matches!(**op, Hopper::Wgmma(_)),
        _ => false,
    };
    let mut used = HashSet::new();
    for (instr, slots) in code.iter().zip(&mut touched) {
        if product(instr) {
            used.extend(std::mem::take(slots));
        }
    }
    if used.is_empty() {
        return Vec::new();
    }
    let mut kept = |slots: Vec<Slot>| -> Box<[Slot]> {
        let mut slots: Vec<Slot> = slots.into_iter().filter(|slot| used.contains(slot)).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.into()
    };
    touched.into_iter().map(&mut kept).collect()
}

impl<'t> Decoder<'t> {
    fn variables(&mut self, statements: &'t [Statement<'t>]) -> Decoded<()> {
        for statement in statements {
            match statement {
                Statement::Block(inner) => self.variables(inner)?,
                Statement::Variable(variable) => {
                    let symbol = match variable.space {
                        Space::Shared => Symbol::Shared(place(&mut self.shared_end, variable)?),
                        Space::Local => Symbol::Local(place(&mut self.local_end, variable)?),
                        Space::Param => Symbol::CallParam,
                        _ => {
                            return Err(Error::new(
                                variable.span,
                                "a variable of this space has no place in a function",
                            ));
                        }
                    };
                    if self.local_end > 512 << 10 {
                        return Err(Error::new(
                            variable.span,
                            "more than 512 KiB of local memory for a thread",
                        ));
                    }
                    self.names.symbols.insert(variable.name, symbol);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn block(&mut self, statements: &'t [Statement<'t>]) -> Decoded<()> {
        self.names.enter();
        let mut label = "";
        for statement in statements {
            match statement {
                Statement::Block(inner) => self.block(inner)?,
                Statement::Variable(_) => {}
                Statement::Registers(registers) => {
                    if !matches!(registers.scalar.bits(), 1 | 8 | 16 | 32 | 64) {
                        return Err(Error::new(
                            registers.names[0].2,
                            "registers of this type are not modelled",
                        ));
                    }
                    for (name, count, span) in &registers.names {
                        self.names.declare(name, *count, registers.scalar, *span)?;
                    }
                }
                Statement::Label(name, span) => {
                    label = name;
                    if self.targets.labels.insert(name, self.code.len() as u32).is_some() {
                        return Err(Error::new(
                            *span,
                            format!("the label `{name}` stands twice in this function"),
                        ));
                    }
                }
                Statement::BranchTargets(labels) => {
                    self.targets.tables.insert(label, labels.clone());
                }
                Statement::Location(file, line) => self.location = (*file as u32, *line),
                Statement::Instruction(instruction) => self.instruction(instruction)?,
            }
        }
        self.names.leave();
        Ok(())
    }

    fn instruction(&mut self, instruction: &'t Instruction<'t>) -> Decoded<()> {
        let (guard, negated) = match instruction.guard {
            None => (NONE, false),
            Some(guard) => match self.names.register(guard.name) {
                Some(found) if found.scalar == Scalar::Pred => (found.slot, guard.negated),
                _ => {
                    return Err(Error::new(guard.span, format!("`{}` is no declared predicate", guard.name)));
                }
            },
        };
        let (op, sync) = self.op(instruction)?;
        let (span, location) = (instruction.span, self.location);
        self.code.push(Instr { op, guard, negated, sync, span, location });
        Ok(())
    }

    fn op(&mut self, instruction: &'t Instruction<'t>) -> Decoded<(Op, Sync)> {
        let mut reader = Reader::new(&mut self.names, instruction);
        let at = self.code.len();
        let found = hopper::decode(&mut reader)?;
        if let Some(found) = found {
            hopper::check_target(&reader, self.target)?;
            reader.finish()?;
            self.touched.push(reader.touched.take());
            return Ok(found);
        }
        let op = match instruction.root {
            "bra" => {
                reader.accept(".uni");
                let operand = reader.operand()?;
                let OperandKind::Name(label) = operand.kind else {
                    return Err(Error::new(operand.span, "expected a label"));
                };
                self.targets.branches.push((at, label, operand.span));
                Op::Nop
            }
            "brx" => {
                reader.require(".idx")?;
                reader.accept(".uni");
                let index = reader.source(Scalar::U32)?;
                let operand = reader.operand()?;
                let OperandKind::Name(label) = operand.kind else {
                    return Err(Error::new(operand.span, "expected the label of a `.branchtargets` list"));
                };
                self.targets.table_branches.push((at, label, operand.span));
                Op::BranchTable { index, table: 0 }
            }
            "call" => {
                reader.accept(".uni");
                let mut name = "a function pointer";
                while reader.left() > 0 {
                    if let OperandKind::Name(found) = reader.operand()?.kind
                        && !found.starts_with('%')
                        && name.contains(' ')
                    {
                        name = found;
                    }
                }
                self.targets.callees.push(name.to_owned());
                let index = u16::try_from(self.targets.callees.len() - 1);
                Op::Call(index.map_err(|_| Error::new(instruction.opcode, "too many calls"))?)
            }
            "ret" | "exit" => {
                reader.accept(".uni");
                Op::Exit
            }
            "trap" | "brkpt" => Op::Trap,
            _ => {
                let found = arithmetic::decode(&mut reader)?.map(|op| (op, Sync::Free));
                let found = match found {
                    None => convert::decode(&mut reader)?.map(|op| (op, Sync::Free)),
                    found => found,
                };
                let found = match found {
                    None => memory::decode(&mut reader)?.map(|op| (op, Sync::Free)),
                    found => found,
                };
                let found = match found {
                    None => warp::decode(&mut reader)?,
                    found => found,
                };
                let Some(found) = found else {
                    return reader.error(format!("the opcode `{}` is not modelled", instruction.root));
                };
                reader.finish()?;
                self.touched.push(reader.touched.take());
                return Ok(found);
            }
        };
        reader.finish()?;
        self.touched.push(reader.touched.take());
        Ok((op, Sync::Free))
    }
}
