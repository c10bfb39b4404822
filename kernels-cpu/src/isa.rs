//! Instruction sets, chosen at run time.

use crate::ArgumentError;

/// Names the instruction set a kernel body is compiled for, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, whatever the compiler makes of it.
    Portable,
    /// AVX2 with FMA and F16C (Haswell, Zen and later).
    Avx2,
    /// AVX-512 F/BW/DQ/VL.
    Avx512,
    /// AVX-512 with `vdpbf16ps` for bf16 inputs (Cooper Lake, Zen 4 and later).
    Avx512Bf16,
}

impl Isa {
    /// Every instruction set, weakest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// Returns the strongest instruction set this CPU has.
    pub fn detect() -> Isa {
        *Isa::ALL.iter().rfind(|isa| isa.is_available()).unwrap_or(&Isa::Portable)
    }

    /// Returns every instruction set this CPU has, weakest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Says whether this CPU has the instruction set.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match self {
                Isa::Portable => true,
                Isa::Avx2 => avx2,
                Isa::Avx512 => avx512,
                Isa::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Portable
        }
    }

    /// Returns the stable name used in variant ids and records.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }

    /// Returns the instruction set, or an error when this CPU lacks it.
    pub fn require(self) -> Result<Isa, ArgumentError> {
        if self.is_available() { Ok(self) } else { Err(ArgumentError::MissingIsa(self.name())) }
    }
}
