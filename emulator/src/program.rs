//! Decoded kernels: registers are numbered slots, constants and special registers are slots too, branches are indices.

use crate::diagnostic::Span;
use crate::hopper::Hopper;
pub(crate) use crate::kernel::{Constant, Kernel, Parameter, Place, Special};
use crate::scalar::{Scalar, Space};

/// Index into one of a warp's three register files: 32-bit (which holds the narrower registers), 64-bit, predicates.
pub(crate) type Slot = u16;

/// The destination `_`, and the absence of an optional slot.
pub(crate) const NONE: Slot = Slot::MAX;

/// One instruction.
#[derive(Clone, Debug)]
pub(crate) struct Instr {
    pub(crate) op: Op,
    /// Predicate slot, or [`NONE`].
    pub(crate) guard: Slot,
    pub(crate) negated: bool,
    pub(crate) sync: Sync,
    pub(crate) span: Span,
    /// File number and line of the `.loc` before it; zero without.
    pub(crate) location: (u32, u32),
}

/// Which lanes must stand together before the instruction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Free,
    /// All lanes of the warp that have not exited.
    Aligned,
    /// Those of the membership mask in this slot.
    Members(Slot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int2 {
    Add,
    Sub,
    Mul,
    MulHighU,
    MulHighS,
    DivU,
    DivS,
    RemU,
    RemS,
    And,
    Or,
    Xor,
    Shl,
    ShrU,
    ShrS,
    MinU,
    MinS,
    MaxU,
    MaxS,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int1 {
    Not,
    Neg,
    Abs,
    Brev,
    Cnot,
}

/// Counts and positions: the result is 32 bits wide whatever the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Popc,
    Clz,
    FindU,
    FindS,
    FindShiftU,
    FindShiftS,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int3 {
    MadLow,
    BfeU,
    BfeS,
    Prmt,
    FunnelLeftWrap,
    FunnelRightWrap,
    FunnelLeftClamp,
    FunnelRightClamp,
    MadHighU,
    MadHighS,
    SadU,
    SadS,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float2 {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    /// NaN if either is.
    MinNan,
    MaxNan,
    CopySign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float1 {
    Neg,
    Abs,
    Rcp,
    Sqrt,
    Rsqrt,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    EqU,
    NeU,
    LtU,
    LeU,
    GtU,
    GeU,
    Num,
    Nan,
}

/// How `setp` reads its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareAs {
    U16,
    S16,
    U32,
    S32,
    F32 { ftz: bool },
    U64,
    S64,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
    /// Nearest, ties away from zero.
    Away,
}

/// A conversion of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convert {
    pub(crate) to: Scalar,
    /// Bits of the destination register, which a signed integer fills by its sign.
    pub(crate) register: u8,
    pub(crate) from: Scalar,
    pub(crate) rounding: Rounding,
    /// Round a float to a whole number in its own type.
    pub(crate) integral: bool,
    pub(crate) ftz: bool,
    pub(crate) saturate: bool,
    pub(crate) relu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

/// How an access is ordered among others (PTX ISA, "Memory Consistency Model").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) semantics: Semantics,
    /// Its scope is the device or the system.
    pub(crate) device: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Semantics {
    #[default]
    Weak,
    /// `.relaxed` and `.volatile`
    Relaxed,
    Acquire,
    Release,
    AcquireRelease,
}

impl Order {
    pub(crate) fn strong(self) -> bool {
        self.semantics != Semantics::Weak
    }

    pub(crate) fn acquires(self) -> bool {
        matches!(self.semantics, Semantics::Acquire | Semantics::AcquireRelease)
    }

    pub(crate) fn releases(self) -> bool {
        matches!(self.semantics, Semantics::Release | Semantics::AcquireRelease)
    }
}

/// An address: a slot, narrow or wide, and a byte offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) slot: Slot,
    pub(crate) wide: bool,
    pub(crate) offset: i32,
}

/// Registers of a vector access; element `i` is in `slots[i]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) space: Space,
    /// Bytes of one element.
    pub(crate) bytes: u8,
    pub(crate) count: u8,
    pub(crate) signed: bool,
    /// Bits of the registers, which may be wider than the elements.
    pub(crate) register: u8,
    pub(crate) slots: [Slot; 4],
    pub(crate) address: Address,
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Atomic {
    pub(crate) space: Space,
    pub(crate) op: AtomOp,
    pub(crate) scalar: Scalar,
    /// [`NONE`] for `red`.
    pub(crate) d: Slot,
    pub(crate) address: Address,
    pub(crate) b: Slot,
    pub(crate) c: Slot,
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SetPredicate {
    pub(crate) compare: Compare,
    pub(crate) read: CompareAs,
    pub(crate) p: Slot,
    /// The complement's destination or [`NONE`].
    pub(crate) q: Slot,
    pub(crate) a: Slot,
    pub(crate) b: Slot,
    pub(crate) logic: Logic,
    /// The predicate combined with the comparison, or [`NONE`].
    pub(crate) c: Slot,
    pub(crate) negated: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier {
    pub(crate) id: Slot,
    /// Thread count or [`NONE`] for all threads.
    pub(crate) threads: Slot,
    pub(crate) kind: BarrierKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    /// Destination in the narrow file, predicate, its complement.
    ReducePopc(Slot, Slot, bool),
    /// Destination predicate, source predicate, its complement, true for `.and`.
    ReduceLogic(Slot, Slot, bool, bool),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Mma {
    pub(crate) bf16: bool,
    pub(crate) d: [Slot; 4],
    pub(crate) a: [Slot; 4],
    pub(crate) b: [Slot; 2],
    pub(crate) c: [Slot; 4],
}

/// What an instruction does; slots are of the file its width says.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Nop,
    Mov32(Slot, Slot),
    Mov64(Slot, Slot),
    MovPred(Slot, Slot),
    /// `mov.b64 d, {..}`: destination, is it wide, parts, bits of a part, are the parts wide.
    Pack {
        d: Slot,
        wide: bool,
        parts: [Slot; 4],
        count: u8,
        bits: u8,
    },
    Unpack {
        a: Slot,
        wide: bool,
        parts: [Slot; 4],
        count: u8,
        bits: u8,
    },
    Clock {
        d: Slot,
        wide: bool,
    },
    Int32(Int2, Slot, Slot, Slot),
    Int64(Int2, Slot, Slot, Slot),
    /// 16-bit: operands sign- or zero-extended, the result cut.
    Int16(Int2, bool, Slot, Slot, Slot),
    Mad16(Slot, Slot, Slot, Slot),
    Unary32(Int1, Slot, Slot),
    Unary64(Int1, Slot, Slot),
    Unary16(Int1, Slot, Slot),
    Count {
        f: Count,
        wide: bool,
        d: Slot,
        a: Slot,
    },
    Ternary32(Int3, Slot, Slot, Slot, Slot),
    Ternary64(Int3, Slot, Slot, Slot, Slot),
    /// Field insert: d, a, b, position, length.
    Bfi32([Slot; 5]),
    Bfi64([Slot; 5]),
    Lop3 {
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        table: u8,
    },
    /// 16 x 16 -> 32, plus a 32-bit addend or [`NONE`].
    Widen16 {
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// 32 x 32 -> 64, plus a 64-bit addend or [`NONE`].
    Widen32 {
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Float32 {
        f: Float2,
        ftz: bool,
        sat: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Float64 {
        f: Float2,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    FloatUnary32 {
        f: Float1,
        ftz: bool,
        d: Slot,
        a: Slot,
    },
    FloatUnary64 {
        f: Float1,
        d: Slot,
        a: Slot,
    },
    Fma32 {
        ftz: bool,
        sat: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Fma64 {
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    SetPredicate(SetPredicate),
    Select32 {
        d: Slot,
        a: Slot,
        b: Slot,
        p: Slot,
    },
    Select64 {
        d: Slot,
        a: Slot,
        b: Slot,
        p: Slot,
    },
    LogicPred {
        f: Logic,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    NotPred(Slot, Slot),
    /// Integer conversions without saturation: cut to `bits`, then extend.
    Extend {
        d: Slot,
        to_wide: bool,
        a: Slot,
        from_wide: bool,
        bits: u8,
        signed: bool,
        cut: u8,
    },
    Convert {
        how: Convert,
        d: Slot,
        a: Slot,
    },
    /// Two f32 to a pair of 16-bit floats, `a` to the upper half.
    PackFloats {
        bf16: bool,
        rounding: Rounding,
        relu: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    LoadParam(Access),
    Load(Access),
    Store(Access),
    Atomic(Box<Atomic>),
    /// `membar`; true when its scope is the device or the system.
    Fence(bool),
    CopyAsync {
        to: Address,
        from: Address,
        bytes: u8,
        source_bytes: Slot,
    },
    CopyCommit,
    CopyWait(u32),
    CopyWaitAll,
    LoadMatrix {
        count: u8,
        transposed: bool,
        slots: [Slot; 4],
        address: Address,
        generic: bool,
    },
    Mma(Box<Mma>),
    Shuffle {
        f: Shuffle,
        d: Slot,
        p: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Vote {
        f: Vote,
        d: Slot,
        p: Slot,
        negated: bool,
    },
    MatchAny {
        d: Slot,
        a: Slot,
        wide: bool,
    },
    MatchAll {
        d: Slot,
        p: Slot,
        a: Slot,
        wide: bool,
    },
    Reduce {
        f: Int2,
        d: Slot,
        a: Slot,
    },
    ActiveMask(Slot),
    Barrier(Box<Barrier>),
    Branch(u32),
    BranchTable {
        index: Slot,
        table: u16,
    },
    Exit,
    Trap,
    Call(u16),
    /// Part of a call sequence that cannot be reached without the call.
    Unmodelled(&'static str),
    IsSpace {
        space: Space,
        p: Slot,
        a: Address,
    },
    Hopper(Box<Hopper>),
}
