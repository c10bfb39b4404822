//! Kinds of instructions, told from their opcodes.

/// What sort of work an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// Arithmetic, logic, shifts and comparisons of integers and predicates; conversions of addresses.
    Integer,
    /// Arithmetic and comparisons of `.f32`.
    Float32,
    /// Arithmetic and comparisons of `.f64`.
    Float64,
    /// Arithmetic and comparisons of 16-bit floats.
    Float16,
    /// `ex2`, `lg2`, `sin`, `cos`, `tanh`, `rcp`, `sqrt`, `rsqrt`: the multi-function unit, in part with steps around it.
    Special,
    /// `cvt`.
    Convert,
    /// `mov` and `selp`.
    Move,
    /// `mma` and `wgmma.mma_async`.
    Matrix,
    /// Loads, stores and atomics of global memory and constants.
    Global,
    /// Those of shared memory, `ldmatrix` and `stmatrix`.
    Shared,
    /// Those of local memory.
    Local,
    /// Loads of parameters.
    Param,
    /// Loads, stores and atomics by generic address.
    Generic,
    /// Issue of asynchronous copies.
    Copy,
    /// Exchange among the lanes of a warp.
    Warp,
    /// Barriers, fences, and commits and waits of asynchronous work.
    Barrier,
    /// Branches, calls, returns and traps.
    Branch,
    /// Everything else.
    Other,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 18] = [
        Self::Integer,
        Self::Float32,
        Self::Float64,
        Self::Float16,
        Self::Special,
        Self::Convert,
        Self::Move,
        Self::Matrix,
        Self::Global,
        Self::Shared,
        Self::Local,
        Self::Param,
        Self::Generic,
        Self::Copy,
        Self::Warp,
        Self::Barrier,
        Self::Branch,
        Self::Other,
    ];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Float16 => "float16",
            Self::Special => "special",
            Self::Convert => "convert",
            Self::Move => "move",
            Self::Matrix => "matrix",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Param => "param",
            Self::Generic => "generic",
            Self::Copy => "copy",
            Self::Warp => "warp",
            Self::Barrier => "barrier",
            Self::Branch => "branch",
            Self::Other => "other",
        }
    }

    /// Tells the kind from an opcode with its modifiers.
    pub fn of(opcode: &str) -> Self {
        let root = opcode.split('.').next().unwrap_or(opcode);
        let has = |modifier: &str| opcode.split('.').skip(1).any(|part| part == modifier);
        let waits = ["commit_group", "wait_group", "wait_all", "mbarrier"];
        match root {
            "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rcp" | "sqrt" | "rsqrt" => Self::Special,
            "cvt" => Self::Convert,
            "mov" | "selp" => Self::Move,
            "mma" => Self::Matrix,
            "wgmma" if has("mma_async") => Self::Matrix,
            "ldmatrix" | "stmatrix" => Self::Shared,
            "ld" | "ldu" | "st" | "atom" | "red" => {
                let shared = ["shared", "shared::cta", "shared::cluster"];
                match () {
                    () if shared.into_iter().any(has) => Self::Shared,
                    () if has("global") || has("const") => Self::Global,
                    () if has("local") => Self::Local,
                    () if opcode.contains(".param") => Self::Param,
                    () => Self::Generic,
                }
            }
            // `cp.async.mbarrier.arrive` copies nothing; a bulk copy has `.mbarrier::complete_tx::bytes` instead.
            "cp" if waits.into_iter().any(has) => Self::Barrier,
            "cp" => Self::Copy,
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => Self::Warp,
            "bar" | "barrier" | "mbarrier" | "fence" | "membar" | "wgmma" | "griddepcontrol" => Self::Barrier,
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" => Self::Branch,
            "abs" | "add" | "and" | "bfe" | "bfi" | "bfind" | "bmsk" | "brev" | "clz" | "cnot"
            | "copysign" | "cvta" | "div" | "dp2a" | "dp4a" | "fma" | "fns" | "isspacep" | "lop3" | "mad"
            | "mapa" | "max" | "min" | "mul" | "neg" | "not" | "or" | "popc" | "prmt" | "rem" | "sad"
            | "set" | "setp" | "shf" | "shl" | "shr" | "slct" | "sub" | "testp" | "xor" => {
                Self::of_type(opcode)
            }
            _ => Self::Other,
        }
    }

    /// The kind of arithmetic by the last type named.
    fn of_type(opcode: &str) -> Self {
        let types = opcode.rsplit('.').find_map(|part| match part {
            "f32" | "f32x2" => Some(Self::Float32),
            "f64" => Some(Self::Float64),
            "f16" | "f16x2" | "bf16" | "bf16x2" => Some(Self::Float16),
            _ => None,
        });
        types.unwrap_or(Self::Integer)
    }
}

/// Floating-point operations of one execution of a matrix product, two for each product of its shape.
pub(crate) fn matrix_operations(opcode: &str) -> u64 {
    if Kind::of(opcode) != Kind::Matrix {
        return 0;
    }
    let shape = |part: &str| {
        let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some(2 * m.parse::<u64>().ok()? * n.parse::<u64>().ok()? * k.parse::<u64>().ok()?)
    };
    let all = opcode.split('.').find_map(shape).unwrap_or(0);
    // The four warps of a group execute one product together.
    if opcode.starts_with("wgmma") { all / 4 } else { all }
}

#[cfg(test)]
mod tests {
    use super::{Kind, matrix_operations};

    #[test]
    fn opcodes_have_kinds() {
        let cases = [
            ("add.s32", Kind::Integer),
            ("setp.ne.b64", Kind::Integer),
            ("setp.lt.ftz.f32", Kind::Float32),
            ("fma.rn.f32", Kind::Float32),
            ("mul.rn.f64", Kind::Float64),
            ("max.bf16x2", Kind::Float16),
            ("ex2.approx.ftz.f32", Kind::Special),
            ("cvt.rn.bf16x2.f32", Kind::Convert),
            ("cvta.to.global.u64", Kind::Integer),
            ("ld.global.nc.v4.f32", Kind::Global),
            ("st.shared::cta.b32", Kind::Shared),
            ("ld.param::entry.u64", Kind::Param),
            ("ld.u32", Kind::Generic),
            ("red.global.add.f32", Kind::Global),
            ("ldmatrix.sync.aligned.m8n8.x4.shared.b16", Kind::Shared),
            ("cp.async.cg.shared.global", Kind::Copy),
            ("cp.async.wait_group", Kind::Barrier),
            ("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes", Kind::Copy),
            ("cp.async.bulk.wait_group.read", Kind::Barrier),
            ("bar.sync", Kind::Barrier),
            ("bar.warp.sync", Kind::Barrier),
            ("wgmma.fence.sync.aligned", Kind::Barrier),
            ("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16", Kind::Matrix),
            ("bra.uni", Kind::Branch),
            ("shfl.sync.bfly.b32", Kind::Warp),
            ("nanosleep.u32", Kind::Other),
        ];
        for (opcode, kind) in cases {
            assert_eq!(Kind::of(opcode), kind, "{opcode}");
        }
        assert!(Kind::ALL.is_sorted());
    }

    #[test]
    fn matrix_products_count_two_operations_a_product() {
        assert_eq!(matrix_operations("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"), 4096);
        assert_eq!(matrix_operations("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32"), 2048);
        // 2 * 64 * 128 * 16 of four warps.
        assert_eq!(matrix_operations("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16"), 262_144 / 4);
        assert_eq!(matrix_operations("ldmatrix.sync.aligned.m8n8.x4.shared.b16"), 0);
    }
}
