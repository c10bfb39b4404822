//! Scalar types and state spaces of PTX.

/// A fundamental type as an instruction names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scalar {
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
    Pred,
}

impl Scalar {
    /// Reads `.u32` and its like.
    pub(crate) fn parse(modifier: &str) -> Option<Self> {
        Some(match modifier {
            ".b8" => Self::B8,
            ".b16" => Self::B16,
            ".b32" => Self::B32,
            ".b64" => Self::B64,
            ".u8" => Self::U8,
            ".u16" => Self::U16,
            ".u32" => Self::U32,
            ".u64" => Self::U64,
            ".s8" => Self::S8,
            ".s16" => Self::S16,
            ".s32" => Self::S32,
            ".s64" => Self::S64,
            ".f16" => Self::F16,
            ".bf16" => Self::Bf16,
            ".f16x2" => Self::F16x2,
            ".bf16x2" => Self::Bf16x2,
            ".f32" => Self::F32,
            ".f64" => Self::F64,
            ".pred" => Self::Pred,
            _ => return None,
        })
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::B8 | Self::U8 | Self::S8 => 8,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 16,
            Self::B32 | Self::U32 | Self::S32 | Self::F32 | Self::F16x2 | Self::Bf16x2 => 32,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 64,
        }
    }

    /// Size in memory; a predicate has none.
    pub(crate) fn bytes(self) -> u32 {
        self.bits() / 8
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// True for the types `.f16`, `.bf16`, their pairs, `.f32` and `.f64`.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F16x2 | Self::Bf16x2 | Self::F32 | Self::F64)
    }
}

/// A state space, or none (generic addressing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    /// Shared memory of any CTA of the cluster.
    Cluster,
    Local,
    Param,
}

impl Space {
    /// Reads `.global` and its like; `.const` lives with the global variables.
    pub(crate) fn parse(modifier: &str) -> Option<Self> {
        Some(match modifier {
            ".global" | ".const" => Self::Global,
            ".shared" | ".shared::cta" => Self::Shared,
            ".shared::cluster" => Self::Cluster,
            ".local" => Self::Local,
            ".param" | ".param::entry" | ".param::func" => Self::Param,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Cluster => "shared::cluster",
            Self::Local => "local",
            Self::Param => "param",
        }
    }
}
