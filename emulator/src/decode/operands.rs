//! Registers, constants and modifiers of one function as its instructions are decoded.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::scope::{Scope, Symbols};
use crate::ast::{Instruction, Number, Operand, OperandKind};
use crate::diagnostic::{Error, Span};
use crate::program::{Address, Constant, NONE, Place, Slot, Special};
use crate::scalar::{Scalar, Space};

pub(super) type Decoded<T> = Result<T, Error>;

/// The three register files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Narrow,
    Wide,
    Predicate,
}

impl File {
    pub(super) fn of(scalar: Scalar) -> Self {
        match scalar.bits() {
            1 => Self::Predicate,
            64 => Self::Wide,
            _ => Self::Narrow,
        }
    }

    pub(super) fn place(self, slot: Slot) -> Place {
        match self {
            Self::Narrow => Place::Narrow(slot),
            Self::Wide => Place::Wide(slot),
            Self::Predicate => Place::Predicate(slot),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub(super) slot: Slot,
    pub(super) scalar: Scalar,
}

/// What a name that is no register stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Symbol {
    /// Index of a module variable in the global space.
    Global(u32),
    /// Offset in the shared window.
    Shared(u32),
    /// An array behind the shared variables of whichever function names it.
    Dynamic,
    Local(u32),
    /// Offset among the kernel's parameters.
    Param(u32),
    /// A parameter of a call.
    CallParam,
}

/// Names of one function: registers in nested scopes, variables, and the slots given out so far.
pub(super) struct Names<'t> {
    scopes: Vec<Scope<'t>>,
    pub(super) symbols: Symbols<'t>,
    /// Slots given out in each file.
    sizes: [Cell<usize>; 3],
    /// Slots that are promised: registers that are declared, named or not, and the others.
    promised: [u64; 3],
    constants: HashMap<(u8, Constant), Slot>,
    specials: HashMap<(u8, Special), Slot>,
}

impl<'t> Names<'t> {
    pub(super) fn new(module: Rc<HashMap<&'t str, Symbol>>) -> Self {
        Self {
            scopes: Vec::new(),
            symbols: Symbols::new(module),
            sizes: Default::default(),
            promised: [0; 3],
            constants: HashMap::new(),
            specials: HashMap::new(),
        }
    }

    pub(super) fn enter(&mut self) {
        self.scopes.push(Scope::default());
    }

    pub(super) fn leave(&mut self) {
        self.scopes.pop();
    }

    pub(super) fn sizes(&self) -> [usize; 3] {
        self.sizes.each_ref().map(Cell::get)
    }

    pub(super) fn constants(&self) -> Vec<(Place, Constant)> {
        let files = [File::Narrow, File::Wide, File::Predicate];
        self.constants
            .iter()
            .map(|((file, constant), slot)| (files[usize::from(*file)].place(*slot), *constant))
            .collect()
    }

    pub(super) fn specials(&self) -> Vec<(Place, Special)> {
        let files = [File::Narrow, File::Wide, File::Predicate];
        self.specials
            .iter()
            .map(|((file, special), slot)| (files[usize::from(*file)].place(*slot), *special))
            .collect()
    }

    /// Makes sure that so many slots more can be given out.
    fn promise(&mut self, file: File, count: u64, span: Span) -> Decoded<()> {
        let promised = &mut self.promised[file as usize];
        *promised = promised.saturating_add(count);
        // One number is kept for `NONE`.
        if *promised > u64::from(NONE) {
            return Err(Error::new(
                span,
                "more than 65535 registers and constants of one width in a function",
            ));
        }
        Ok(())
    }

    /// Gives out a slot that was promised.
    fn slot(&self, file: File) -> Slot {
        let size = &self.sizes[file as usize];
        size.set(size.get() + 1);
        (size.get() - 1) as Slot
    }

    fn fresh(&mut self, file: File, span: Span) -> Decoded<Slot> {
        self.promise(file, 1, span)?;
        Ok(self.slot(file))
    }

    /// Declares a register, or `count` of them with numbers behind the name.
    pub(super) fn declare(
        &mut self,
        name: &'t str,
        count: Option<u64>,
        scalar: Scalar,
        span: Span,
    ) -> Decoded<()> {
        self.promise(File::of(scalar), count.unwrap_or(1), span)?;
        let Some(scope) = self.scopes.last_mut() else {
            return Err(Error::new(span, "a register outside a body"));
        };
        if scope.declare(name, count, scalar) {
            return Ok(());
        }
        Err(Error::new(span, format!("`{name}` is declared twice")))
    }

    pub(super) fn register(&self, name: &str) -> Option<Register> {
        let slot = |scalar| self.slot(File::of(scalar));
        self.scopes.iter().rev().find_map(|scope| scope.register(name, slot))
    }

    pub(super) fn constant(&mut self, file: File, value: Constant, span: Span) -> Decoded<Slot> {
        if let Some(slot) = self.constants.get(&(file as u8, value)) {
            return Ok(*slot);
        }
        let slot = self.fresh(file, span)?;
        self.constants.insert((file as u8, value), slot);
        Ok(slot)
    }

    fn special(&mut self, file: File, value: Special, span: Span) -> Decoded<Slot> {
        if let Some(slot) = self.specials.get(&(file as u8, value)) {
            return Ok(*slot);
        }
        let slot = self.fresh(file, span)?;
        self.specials.insert((file as u8, value), slot);
        Ok(slot)
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |text: &str| match text {
        ".x" => Some(0),
        ".y" => Some(1),
        ".z" => Some(2),
        _ => None,
    };
    if let Some((base, _)) = name.split_once('.') {
        let axis = axis(&name[base.len()..])?;
        return match base {
            "%tid" => Some(Special::Tid(axis)),
            "%ntid" => Some(Special::Ntid(axis)),
            "%ctaid" => Some(Special::Ctaid(axis)),
            "%nctaid" => Some(Special::Nctaid(axis)),
            "%clusterid" => Some(Special::ClusterId(axis)),
            "%nclusterid" => Some(Special::ClusterCount(axis)),
            "%cluster_ctaid" => Some(Special::ClusterCtaid(axis)),
            "%cluster_nctaid" => Some(Special::ClusterNctaid(axis)),
            _ => None,
        };
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::WarpCount,
        "%lanemask_eq" => Special::LaneMask(0),
        "%lanemask_le" => Special::LaneMask(1),
        "%lanemask_lt" => Special::LaneMask(2),
        "%lanemask_ge" => Special::LaneMask(3),
        "%lanemask_gt" => Special::LaneMask(4),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%smid" | "%gridid" => Special::Zero,
        "%nsmid" => Special::One,
        "%cluster_ctarank" => Special::ClusterRank,
        "%cluster_nctarank" => Special::ClusterSize,
        "%is_explicit_cluster" => Special::ExplicitCluster,
        _ => return None,
    })
}

/// One instruction while it is decoded: modifiers and operands are taken one by one, and what is left over is an error.
pub(super) struct Reader<'a, 't> {
    pub(super) names: &'a mut Names<'t>,
    pub(super) instruction: &'a Instruction<'t>,
    taken: Vec<bool>,
    next: usize,
    /// Narrow registers named so far.
    pub(super) touched: RefCell<Vec<Slot>>,
}

impl<'a, 't> Reader<'a, 't> {
    pub(super) fn new(names: &'a mut Names<'t>, instruction: &'a Instruction<'t>) -> Self {
        let taken = vec![false; instruction.modifiers.len()];
        Self { names, instruction, taken, next: 0, touched: RefCell::default() }
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Decoded<T> {
        Err(Error::new(self.instruction.opcode, message))
    }

    /// Takes a modifier if it is there.
    pub(super) fn accept(&mut self, modifier: &str) -> bool {
        let found = self
            .instruction
            .modifiers
            .iter()
            .zip(&self.taken)
            .position(|(m, taken)| m.0 == modifier && !taken);
        found.inspect(|at| self.taken[*at] = true).is_some()
    }

    pub(super) fn require(&mut self, modifier: &str) -> Decoded<()> {
        if self.accept(modifier) {
            Ok(())
        } else {
            self.error(format!("`{}` needs `{modifier}`", self.instruction.root))
        }
    }

    /// Takes the first modifier that `read` understands.
    pub(super) fn find<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        for (at, (modifier, _)) in self.instruction.modifiers.iter().enumerate() {
            if !self.taken[at]
                && let Some(value) = read(modifier)
            {
                self.taken[at] = true;
                return Some(value);
            }
        }
        None
    }

    pub(super) fn scalar(&mut self) -> Decoded<Scalar> {
        match self.find(Scalar::parse) {
            Some(scalar) => Ok(scalar),
            None => self.error(format!("`{}` needs a type such as `.b32`", self.instruction.root)),
        }
    }

    /// The type as it stands, left for an error to point at when it does not suit.
    pub(super) fn unsupported<T>(&self, scalar: Scalar) -> Decoded<T> {
        let named = |m: &&(&str, Span)| Scalar::parse(m.0) == Some(scalar);
        let (text, span) =
            self.instruction.modifiers.iter().find(named).copied().unwrap_or(("", self.instruction.opcode));
        Err(Error::new(span, format!("`{}` with the type `{text}` is not modelled", self.instruction.root)))
    }

    pub(super) fn left(&self) -> usize {
        self.instruction.operands.len() - self.next
    }

    pub(super) fn operand(&mut self) -> Decoded<&'a Operand<'t>> {
        let Some(operand) = self.instruction.operands.get(self.next) else {
            let count = self.instruction.operands.len();
            let root = self.instruction.root;
            return self.error(format!("`{root}` needs more than {count} operands"));
        };
        self.next += 1;
        Ok(operand)
    }

    pub(super) fn finish(&self) -> Decoded<()> {
        let root = self.instruction.root;
        if let Some(at) = self.taken.iter().position(|taken| !taken) {
            let (text, span) = self.instruction.modifiers[at];
            return Err(Error::new(span, format!("the modifier `{text}` of `{root}` is not modelled")));
        }
        match self.instruction.operands.get(self.next) {
            Some(extra) => Err(Error::new(extra.span, format!("`{root}` takes {} operands", self.next))),
            None => Ok(()),
        }
    }

    fn check(&self, found: Register, file: File, bits: u32, at: &Operand<'t>, exact: bool) -> Decoded<Slot> {
        let width = found.scalar.bits();
        let fits = if exact { width == bits } else { width >= bits };
        if File::of(found.scalar) == file && fits {
            if file == File::Narrow {
                self.touched.borrow_mut().push(found.slot);
            }
            return Ok(found.slot);
        }
        let wanted = if bits == 1 { "a predicate".to_owned() } else { format!("a register of {bits} bits") };
        let is = if width == 1 { "a predicate".to_owned() } else { format!("{width} bits wide") };
        Err(Error::new(at.span, format!("`{}` takes {wanted} here, this one is {is}", self.instruction.root)))
    }

    fn unknown<T>(&self, name: &str, span: Span) -> Decoded<T> {
        Err(Error::new(span, format!("`{name}` is not declared")))
    }

    /// A destination register of exactly this type's width; `_` where the instruction allows it.
    pub(super) fn destination(&mut self, scalar: Scalar) -> Decoded<Slot> {
        let operand = self.operand()?;
        self.destination_at(operand, scalar)
    }

    pub(super) fn destination_at(&self, operand: &Operand<'t>, scalar: Scalar) -> Decoded<Slot> {
        let OperandKind::Name(name) = operand.kind else {
            return Err(Error::new(operand.span, "expected a destination register"));
        };
        match self.names.register(name) {
            Some(found) => self.check(found, File::of(scalar), scalar.bits(), operand, true),
            None => self.unknown(name, operand.span),
        }
    }

    /// A register or `_`.
    pub(super) fn destination_or_sink(&self, operand: &Operand<'t>, scalar: Scalar) -> Decoded<Slot> {
        match operand.kind {
            OperandKind::Name("_") => Ok(NONE),
            _ => self.destination_at(operand, scalar),
        }
    }

    /// Destinations `p|q`, either of which may be `_`; `p` alone leaves the second empty.
    pub(super) fn predicate_pair(&mut self) -> Decoded<(Slot, Slot)> {
        let operand = self.operand()?;
        match &operand.kind {
            OperandKind::Pair(p, q) => {
                Ok((self.destination_or_sink(p, Scalar::Pred)?, self.destination_or_sink(q, Scalar::Pred)?))
            }
            _ => Ok((self.destination_or_sink(operand, Scalar::Pred)?, NONE)),
        }
    }

    pub(super) fn source(&mut self, scalar: Scalar) -> Decoded<Slot> {
        let operand = self.operand()?;
        self.source_at(operand, scalar)
    }

    pub(super) fn source_at(&mut self, operand: &Operand<'t>, scalar: Scalar) -> Decoded<Slot> {
        let file = File::of(scalar);
        match &operand.kind {
            OperandKind::Name(name) => {
                if let Some(found) = self.names.register(name) {
                    return self.check(found, file, scalar.bits(), operand, true);
                }
                if let Some(value) = special(name) {
                    if (file == File::Predicate) != (value == Special::ExplicitCluster) {
                        let text = "of the special registers `%is_explicit_cluster` alone is a predicate";
                        return Err(Error::new(operand.span, text));
                    }
                    return self.names.special(file, value, operand.span);
                }
                self.symbol(name, 0, file, operand.span)
            }
            OperandKind::Sum(name, offset) => self.symbol(name, *offset, file, operand.span),
            OperandKind::Number(number) => {
                let bits = immediate(*number, scalar, operand.span)?;
                self.names.constant(file, Constant::Bits(bits), operand.span)
            }
            _ => Err(Error::new(operand.span, "expected a register or a number")),
        }
    }

    fn symbol(&mut self, name: &str, offset: i64, file: File, span: Span) -> Decoded<Slot> {
        let value = match self.names.symbols.get(name) {
            Some(Symbol::Global(index)) if file == File::Wide => Constant::Global(*index, offset),
            Some(Symbol::Global(_)) => {
                return Err(Error::new(span, "the address of a global variable takes 64 bits"));
            }
            Some(Symbol::Shared(at) | Symbol::Local(at)) => {
                let sum = i64::from(*at).wrapping_add(offset) as u64;
                Constant::Bits(if file == File::Narrow { sum & 0xffff_ffff } else { sum })
            }
            Some(Symbol::Dynamic) => {
                return Err(Error::new(span, "dynamic shared memory has no place outside a function"));
            }
            Some(Symbol::Param(_) | Symbol::CallParam) => {
                return Err(Error::new(
                    span,
                    "the address of a parameter is not modelled: read it with `ld.param`",
                ));
            }
            None => return self.unknown(name, span),
        };
        self.names.constant(file, value, span)
    }

    /// A predicate source, perhaps `!p`.
    pub(super) fn predicate(&mut self) -> Decoded<(Slot, bool)> {
        let operand = self.operand()?;
        match operand.kind {
            OperandKind::Not(name) => match self.names.register(name) {
                Some(found) => Ok((self.check(found, File::Predicate, 1, operand, true)?, true)),
                None => self.unknown(name, operand.span),
            },
            _ => Ok((self.source_at(operand, Scalar::Pred)?, false)),
        }
    }

    /// A source or destination that may be wider than the instruction's type, as loads, stores and `cvt` allow:
    /// the slot and the bits of the register.
    pub(super) fn relaxed(
        &mut self,
        operand: &Operand<'t>,
        scalar: Scalar,
        source: bool,
    ) -> Decoded<(Slot, u32)> {
        if let OperandKind::Name(name) = operand.kind {
            if name == "_" && !source {
                return Ok((NONE, scalar.bits()));
            }
            if let Some(found) = self.names.register(name) {
                let file = File::of(found.scalar);
                let slot = self.check(found, file, scalar.bits(), operand, false)?;
                if file == File::Predicate {
                    return Err(Error::new(operand.span, "a predicate has no place here"));
                }
                return Ok((slot, found.scalar.bits()));
            }
            if !source {
                return self.unknown(name, operand.span);
            }
        }
        if !source {
            return Err(Error::new(operand.span, "expected a destination register"));
        }
        Ok((self.source_at(operand, scalar)?, scalar.bits()))
    }

    /// `[register+offset]`, `[variable+offset]` or `[number]`; a parameter's address is not one of these.
    pub(super) fn address(&mut self, space: Space) -> Decoded<Address> {
        let operand = self.operand()?;
        self.address_at(operand, space)
    }

    pub(super) fn address_at(&mut self, operand: &Operand<'t>, space: Space) -> Decoded<Address> {
        let span = operand.span;
        let offset = |value: i64| {
            i32::try_from(value)
                .map_err(|_| Error::new(span, format!("the offset {value} does not fit 32 bits")))
        };
        match operand.kind {
            OperandKind::Address(name, value) => match self.names.register(name) {
                Some(found) => {
                    let wide = found.scalar.bits() == 64;
                    let narrow_ok = matches!(space, Space::Shared | Space::Cluster | Space::Local);
                    if !(wide || narrow_ok && found.scalar.bits() == 32) {
                        return Err(Error::new(
                            span,
                            format!("`{name}` cannot hold a {} address", space.name()),
                        ));
                    }
                    if !wide {
                        self.touched.borrow_mut().push(found.slot);
                    }
                    Ok(Address { slot: found.slot, wide, offset: offset(value)? })
                }
                None => {
                    let matches = matches!(
                        (space, self.names.symbols.get(name)),
                        (_, None)
                            | (Space::Global, Some(Symbol::Global(_)))
                            | (Space::Shared | Space::Cluster, Some(Symbol::Shared(_)))
                            | (Space::Local, Some(Symbol::Local(_)))
                    );
                    if !matches {
                        return Err(Error::new(
                            span,
                            format!("`{name}` does not lie in the {} space", space.name()),
                        ));
                    }
                    let slot = self.symbol(name, value, File::Wide, span)?;
                    Ok(Address { slot, wide: true, offset: 0 })
                }
            },
            OperandKind::Absolute(value) => {
                let slot = self.names.constant(File::Wide, Constant::Bits(value), span)?;
                Ok(Address { slot, wide: true, offset: 0 })
            }
            _ => Err(Error::new(span, "expected an address in brackets")),
        }
    }

    /// A brace-enclosed list of exactly `count` registers; a list of one may do without braces.
    pub(super) fn vector(&mut self, count: &[usize]) -> Decoded<&'a [Operand<'t>]> {
        let operand = self.operand()?;
        let items = match &operand.kind {
            OperandKind::Vector(items) => items.as_slice(),
            _ => std::slice::from_ref(operand),
        };
        if count.contains(&items.len()) {
            return Ok(items);
        }
        Err(Error::new(operand.span, format!("expected {count:?} registers, found {}", items.len())))
    }

    pub(super) fn slots<const N: usize>(&mut self, scalar: Scalar, source: bool) -> Decoded<[Slot; N]> {
        let items = self.vector(&[N])?;
        let mut slots = [NONE; N];
        for (slot, item) in slots.iter_mut().zip(items) {
            *slot = if source { self.source_at(item, scalar)? } else { self.destination_at(item, scalar)? };
        }
        Ok(slots)
    }

    /// A number known here and now.
    pub(super) fn number(&mut self, what: &str) -> Decoded<u64> {
        let operand = self.operand()?;
        match operand.kind {
            OperandKind::Number(Number::Integer(value)) => Ok(value),
            _ => Err(Error::new(operand.span, format!("expected {what} as a number"))),
        }
    }
}

/// Bits of a number as an operand of this type.
fn immediate(number: Number, scalar: Scalar, span: Span) -> Decoded<u64> {
    let bits = match (number, scalar) {
        (Number::Single(bits), Scalar::F64) => f64::from(f32::from_bits(bits)).to_bits(),
        (Number::Single(bits), _) if scalar.bits() >= 32 => u64::from(bits),
        (Number::Double(bits), Scalar::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
        (Number::Double(bits), _) if scalar.bits() == 64 => bits,
        (Number::Integer(value), Scalar::Pred) => {
            return Ok(if value == 0 { 0 } else { u64::from(u32::MAX) });
        }
        // Sources of type `.f32` are written `0f...`; a bare integer there would be a value, not bits.
        (Number::Integer(_), Scalar::F32 | Scalar::F64) => {
            return Err(Error::new(span, "a floating-point operand is written `0f` or `0d` and its bits"));
        }
        (Number::Integer(value), _) => value,
        _ => return Err(Error::new(span, "this number does not suit the operand's type")),
    };
    let width = scalar.bits();
    if width == 64 {
        return Ok(bits);
    }
    let cut = bits & ((1 << width) - 1);
    let negative = bits as i64 >= -(1 << (width - 1)) && (bits as i64) < 0;
    if cut == bits || negative {
        return Ok(cut);
    }
    Err(Error::new(span, format!("the number {bits} does not fit {width} bits")))
}
