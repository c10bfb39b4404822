//! A decoded kernel: its code and all that a launch must know of it.

use crate::program::{Instr, Slot};
use crate::scalar::Scalar;

/// One kernel, ready to run.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) code: Vec<Instr>,
    /// Sizes of the register files: 32-bit, 64-bit, predicates.
    pub(crate) files: [usize; 3],
    /// Slots with the same value in all lanes of all warps.
    pub(crate) constants: Vec<(Place, Constant)>,
    /// Slots that hold special registers.
    pub(crate) specials: Vec<(Place, Special)>,
    pub(crate) params: Vec<Parameter>,
    pub(crate) param_bytes: u32,
    pub(crate) static_shared: u32,
    /// Offset of the launch's dynamic shared memory.
    pub(crate) dynamic_shared: u32,
    pub(crate) local_bytes: u32,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    /// Targets of the `brx.idx` instructions.
    pub(crate) tables: Vec<Vec<u32>>,
    pub(crate) limits: crate::ast::Limits,
    /// For each instruction the registers it names that some `wgmma` uses; empty in kernels without `wgmma`.
    pub(crate) touched: Vec<Box<[Slot]>>,
    /// For each instruction its line, for faults that tell of another instruction.
    pub(crate) lines: Vec<u32>,
    /// Names of functions that `call` instructions name.
    pub(crate) callees: Vec<String>,
}

impl Kernel {
    /// Registers of a thread at the start, where a directive fixes them: what the assembler sizes `setmaxnreg` by.
    pub(crate) fn entry_registers(&self) -> Option<u32> {
        if let Some(count) = self.limits.max_registers {
            return Some(count);
        }
        let threads: u32 = self.required_threads.or(self.max_threads)?.iter().product();
        let ctas = self.limits.min_ctas.unwrap_or(1);
        // 64 Ki registers of a multiprocessor, given out by eights.
        Some((65536 / threads.saturating_mul(ctas).max(1)).min(256) / 8 * 8)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    /// The declared type, as written.
    pub(crate) scalar: Scalar,
}

/// A slot and the file it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Narrow(Slot),
    Wide(Slot),
    Predicate(Slot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Bits(u64),
    /// Address of a module variable, known when the launch has placed it, plus an offset.
    Global(u32, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    WarpCount,
    /// eq, le, lt, ge, gt
    LaneMask(u8),
    DynamicShared,
    TotalShared,
    /// `%smid`, `%gridid`, ...: one processor, one grid.
    Zero,
    One,
    ClusterId(u8),
    ClusterCount(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterRank,
    ClusterSize,
    ExplicitCluster,
}
