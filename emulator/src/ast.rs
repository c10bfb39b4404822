//! The syntax tree of a PTX module: names are still text, nothing is resolved.

use crate::diagnostic::Span;
use crate::scalar::{Scalar, Space};

#[derive(Debug, Default)]
pub(crate) struct Ast<'t> {
    pub(crate) target: &'t str,
    pub(crate) variables: Vec<Variable<'t>>,
    pub(crate) functions: Vec<Function<'t>>,
    /// `.file` numbers and paths, for `.loc`.
    pub(crate) files: Vec<(u64, &'t str)>,
}

/// A variable of any state space: at module level, in a function, or a parameter.
#[derive(Debug)]
pub(crate) struct Variable<'t> {
    pub(crate) name: &'t str,
    pub(crate) span: Span,
    pub(crate) space: Space,
    pub(crate) external: bool,
    pub(crate) scalar: Scalar,
    pub(crate) align: u32,
    /// Elements; `None` for `name[]`, whose size the launch gives.
    pub(crate) count: Option<u64>,
    pub(crate) values: Vec<Initial<'t>>,
}

/// One element of an initialiser.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Initial<'t> {
    Number(Number),
    /// `variable` or `generic(variable)`, with an offset.
    Address(&'t str, i64, Span),
}

#[derive(Debug)]
pub(crate) struct Function<'t> {
    pub(crate) name: &'t str,
    pub(crate) span: Span,
    pub(crate) entry: bool,
    pub(crate) params: Vec<Variable<'t>>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) limits: Limits,
    pub(crate) body: Option<Vec<Statement<'t>>>,
}

/// What performance and cluster directives say of a kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// `.reqnctapercluster`
    pub(crate) cluster: Option<[u32; 3]>,
    /// `.explicitcluster`
    pub(crate) explicit_cluster: bool,
    /// `.maxclusterrank`
    pub(crate) max_cluster_rank: Option<u32>,
    /// `.maxnreg`
    pub(crate) max_registers: Option<u32>,
    /// `.minnctapersm`
    pub(crate) min_ctas: Option<u32>,
}

#[derive(Debug)]
pub(crate) enum Statement<'t> {
    Label(&'t str, Span),
    Registers(Registers<'t>),
    Variable(Variable<'t>),
    Instruction(Instruction<'t>),
    Block(Vec<Statement<'t>>),
    /// File and line of a `.loc`.
    Location(u64, u32),
    /// `.branchtargets a, b;` belongs to the label before it.
    BranchTargets(Vec<(&'t str, Span)>),
}

/// `.reg .b32 %r<4>;` or `.reg .pred p, q;`
#[derive(Debug)]
pub(crate) struct Registers<'t> {
    pub(crate) scalar: Scalar,
    pub(crate) names: Vec<(&'t str, Option<u64>, Span)>,
}

#[derive(Debug)]
pub(crate) struct Instruction<'t> {
    pub(crate) guard: Option<Guard<'t>>,
    /// `add` of `add.s32`
    pub(crate) root: &'t str,
    /// `.s32` of `add.s32`, each with its place.
    pub(crate) modifiers: Vec<(&'t str, Span)>,
    pub(crate) operands: Vec<Operand<'t>>,
    /// Of the opcode.
    pub(crate) opcode: Span,
    /// From the opcode to the semicolon.
    pub(crate) span: Span,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard<'t> {
    pub(crate) name: &'t str,
    pub(crate) negated: bool,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Two's complement; true when written with a minus sign.
    Integer(u64),
    Single(u32),
    Double(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Operand<'t> {
    pub(crate) span: Span,
    pub(crate) kind: OperandKind<'t>,
}

#[derive(Clone, Debug)]
pub(crate) enum OperandKind<'t> {
    /// Register, special register, variable, label or `_`.
    Name(&'t str),
    /// `!%p1`
    Not(&'t str),
    Number(Number),
    /// `variable+8` outside brackets.
    Sum(&'t str, i64),
    /// `[name+offset]`
    Address(&'t str, i64),
    /// `[1024]`
    Absolute(u64),
    /// `[map, {a, b}]`: an address and coordinates.
    Tensor(Box<Operand<'t>>, Vec<Operand<'t>>),
    /// `{a, b}`
    Vector(Vec<Operand<'t>>),
    /// `p|q`
    Pair(Box<Operand<'t>>, Box<Operand<'t>>),
    /// `(a, b)` of a call.
    Group,
}
