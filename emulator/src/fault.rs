//! What went wrong while a kernel ran, and where: kernel, PTX line, source line, CTA, warp, thread.

use std::fmt;

/// Reports why a launch was refused or stopped.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// The instruction, unless the launch was refused before the first.
    pub place: Option<CodePlace>,
    /// CTA in which it happened.
    pub cta: Option<[u32; 3]>,
    /// Warp in that CTA.
    pub warp: Option<u32>,
    /// `%tid` of the thread, where one thread is to blame.
    pub thread: Option<[u32; 3]>,
}

/// An instruction in the PTX text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePlace {
    /// Name given to [`crate::Module::parse`].
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column, counted from 1.
    pub column: u32,
    /// The text of that line, trimmed.
    pub text: String,
    /// Source file and line, where the PTX has `.loc` directives.
    pub source: Option<(String, u32)>,
}

/// A path of a warp that waits: which lanes, and at which instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Warp in the CTA.
    pub warp: u32,
    /// Lanes, one bit each.
    pub lanes: u32,
    /// What they wait for, in words.
    pub reason: String,
    /// Where.
    pub place: CodePlace,
}

/// A memory of the device, as faults name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySpace {
    /// Device memory.
    Global,
    /// Shared memory of a CTA.
    Shared,
    /// Memory of one thread.
    Local,
    /// Kernel parameters.
    Param,
}

impl fmt::Display for MemorySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Param => "parameter",
        })
    }
}

/// The kinds of faults.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The launch does not suit the kernel: entry, parameters, threads, shared memory.
    Launch(String),
    /// An access outside every allocation.
    OutOfBounds {
        /// Which memory.
        space: MemorySpace,
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// The nearest allocation, in words.
        nearest: String,
    },
    /// An access whose address is not a multiple of its size.
    Misaligned {
        /// Which memory.
        space: MemorySpace,
        /// First byte of the access.
        address: u64,
        /// Bytes, and the alignment they need.
        bytes: u32,
    },
    /// A read of memory that nothing has written.
    UninitialisedMemory {
        /// Which memory.
        space: MemorySpace,
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
    },
    /// A use of a register that nothing has written.
    UninitialisedRegister,
    /// An access to shared memory that a `cp.async` still has to write.
    CopyInFlight {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// True when the access is a write.
        write: bool,
    },
    /// An access to shared memory that a bulk copy still has to write, or a write of bytes it still has to read.
    BulkInFlight {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// True when the access is a write.
        write: bool,
        /// True when the copy reads these bytes.
        source: bool,
    },
    /// An ordinary access, or data of a copy, to the bytes of an mbarrier.
    BarrierObject {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// True when the access is a write.
        write: bool,
    },
    /// An mbarrier used against its rules.
    Mbarrier(String),
    /// A bulk copy used against its rules.
    Bulk(String),
    /// Bytes that are no tensor map, or lie where none may lie.
    TensorMap(String),
    /// `wgmma` or `setmaxnreg` used against their rules: registers in flight, missing fences, warps that disagree.
    Warpgroup(String),
    /// CTAs of a cluster used against the rules: barriers, exited CTAs, ranks.
    Cluster(String),
    /// Lanes of a warp stand at different instructions and each needs the others.
    Divergence(Vec<Waiting>),
    /// No warp of the CTA can go on.
    Deadlock(Vec<Waiting>),
    /// A barrier used against its rules.
    BarrierMisuse(String),
    /// Members of a `.sync` operation that do not fit together.
    MemberMask(String),
    /// The kernel executed `trap`.
    Trap,
    /// The kernel reached something outside the subset, such as a call.
    Unmodelled(String),
    /// The launch executed more warp-instructions than its budget.
    Budget(u64),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch(text) => write!(f, "launch refused: {text}"),
            Self::OutOfBounds { space, address, bytes, nearest } => {
                write!(f, "out-of-bounds access of {bytes} bytes at {space} address {address:#x}: {nearest}")
            }
            Self::Misaligned { space, address, bytes } => {
                write!(
                    f,
                    "misaligned access at {space} address {address:#x}: {bytes} bytes need a multiple of {bytes}"
                )
            }
            Self::UninitialisedMemory { space, address, bytes } => {
                write!(f, "read of {bytes} bytes at {space} address {address:#x} that were never written")
            }
            Self::UninitialisedRegister => {
                f.write_str("use of a register that was never written on this path")
            }
            Self::CopyInFlight { address, bytes, write } => {
                let what = if *write { "write to" } else { "read of" };
                write!(
                    f,
                    "{what} {bytes} bytes at shared address {address:#x} while a cp.async to them is in flight: \
                     a cp.async.wait_group, or the barrier after it, is missing"
                )
            }
            Self::BulkInFlight { address, bytes, write, source } => {
                let what = if *write { "write to" } else { "read of" };
                write!(f, "{what} {bytes} bytes at shared address {address:#x} ")?;
                f.write_str(if *source {
                    "while a bulk copy still reads them: wait with cp.async.bulk.wait_group.read (in the thread that \
                     issued it, then a barrier) or for the copy's mbarrier first"
                } else {
                    "while a bulk copy to them is in flight: wait for the phase of the copy's mbarrier first, and let \
                     it expect the copy's bytes"
                })
            }
            Self::BarrierObject { address, bytes, write } => {
                let what = if *write { "write to" } else { "read of" };
                write!(
                    f,
                    "{what} {bytes} bytes at shared address {address:#x}, where an mbarrier lives: give it a place of its \
                     own, or end it with mbarrier.inval first"
                )
            }
            Self::Divergence(paths) => {
                f.write_str("the warp has diverged and each path waits for the others")?;
                paths.iter().try_for_each(|path| write!(f, "\n{path}"))
            }
            Self::Deadlock(warps) => {
                f.write_str("deadlock: no warp can go on")?;
                warps.iter().try_for_each(|warp| write!(f, "\n{warp}"))
            }
            Self::BarrierMisuse(text)
            | Self::MemberMask(text)
            | Self::Unmodelled(text)
            | Self::Mbarrier(text)
            | Self::Bulk(text)
            | Self::TensorMap(text)
            | Self::Warpgroup(text)
            | Self::Cluster(text) => f.write_str(text),
            Self::Trap => f.write_str("trap executed (in Rust kernels: a panic)"),
            Self::Budget(budget) => {
                write!(
                    f,
                    "more than {budget} warp-instructions: raise the budget if the kernel is meant to run longer"
                )
            }
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { warp, lanes, reason, place } = self;
        write!(f, "  warp {warp}, lanes {lanes:#010x}, {reason} at line {}: {}", place.line, place.text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel `{}`: {}", self.kernel, self.kind)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at {}:{}:{}: {}", place.file, place.line, place.column, place.text)?;
            if let Some((file, line)) = &place.source {
                write!(f, "\n  from {file}:{line}")?;
            }
        }
        if let Some([x, y, z]) = self.cta {
            write!(f, "\n  in CTA ({x}, {y}, {z})")?;
        }
        if let Some(warp) = self.warp {
            write!(f, ", warp {warp}")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        Ok(())
    }
}
