//! What a device compilation exports: the one kernel that `nabla_kernel` names, with the constants of `NABLA_*`.
//!
//! Parameters are plain scalars and pointers to global memory, in the order written here. `T` below is the 16-bit
//! storage type of the constants; `bh` is batch size times heads.

use crate::{
    config::{Config, Constants, Dtype},
    ptx,
};

/// Reads a decimal number, at compile time; without a value, the default.
const fn number(text: Option<&str>, default: u32) -> u32 {
    let Some(text) = text else { return default };
    let digits = text.as_bytes();
    assert!(!digits.is_empty(), "a NABLA_ variable is empty");
    let (mut value, mut i) = (0, 0);
    while i < digits.len() {
        assert!(digits[i].is_ascii_digit(), "a NABLA_ variable is not a decimal number");
        value = value * 10 + (digits[i] - b'0') as u32;
        i += 1;
    }
    value
}

/// The constants of this compilation: `Instance::env`, read back.
struct Chosen;

impl Config for Chosen {
    const CONSTANTS: Constants = {
        let default = Constants::DEFAULT;
        Constants {
            block_m: number(option_env!("NABLA_BLOCK_M"), default.block_m),
            block_n: number(option_env!("NABLA_BLOCK_N"), default.block_n),
            head_dim: number(option_env!("NABLA_HEAD_DIM"), default.head_dim),
            stages: number(option_env!("NABLA_STAGES"), default.stages),
            dtype: Dtype::from_code(number(option_env!("NABLA_DTYPE"), default.dtype.code())),
            warps: number(option_env!("NABLA_WARPS"), default.warps),
            max_kv_blocks: number(option_env!("NABLA_MAX_KV_BLOCKS"), default.max_kv_blocks),
            ctas_per_sm: number(option_env!("NABLA_CTAS_PER_SM"), default.ctas_per_sm),
        }
    };
}

/// What is compiled must be something the host would launch.
const _: () = {
    let instance = crate::instances::Instance { kernel: KERNEL, constants: Chosen::CONSTANTS };
    if let Err(reason) = instance.check() {
        panic!("{}", reason);
    }
};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    ptx::trap()
}

#[cfg(nabla_kernel = "attention_sparse")]
mod chosen {
    use super::*;
    use crate::kernels::{
        attention::{Head, QueryTile, forward},
        walk::Lists,
    };

    pub(super) const KERNEL: crate::instances::Kernel = crate::instances::Kernel::AttentionSparse;

    /// Attends each query block to its listed key blocks.
    ///
    /// Grid: x = q_blocks times the tiles of the longest query block, y = bh.
    /// - `q`, `out`: T `[bh, seqlen_q, D]`; `k`, `v`: T `[bh, seqlen_k, D]`, in block order; `lse`: f32
    ///   `[bh, seqlen_q]`, natural logarithm
    /// - `q_starts` `[q_blocks + 1]`, `kv_starts` `[kv_blocks + 1]`: first tokens of blocks, in tokens
    /// - `kv_num_blocks` `[bh, q_blocks]`, `kv_indices` `[bh, q_blocks, max_blocks]`
    ///
    /// An empty list gives output 0 and lse -inf.
    ///
    /// # Safety
    /// Buffers have these shapes and are aligned to 16 bytes, listed blocks exist, starts ascend to the sequence length.
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_attention_sparse(
        q: *const u16, k: *const u16, v: *const u16, out: *mut u16, lse: *mut f32,
        q_starts: *const u32, kv_starts: *const u32, kv_num_blocks: *const i32, kv_indices: *const i32,
        q_blocks: u32, _kv_blocks: u32, max_blocks: u32, seqlen_q: u32, seqlen_k: u32, softmax_scale: f32,
    ) {
        // At least 1: division by zero would call a panic, which the device has no linker to find.
        let tiles = (ptx::blocks_x() / q_blocks.max(1)).max(1);
        let (block, tile) = (ptx::block_x() / tiles, ptx::block_x() % tiles);
        let bh = ptx::block_y();
        // SAFETY: the caller's.
        unsafe {
            let first = *q_starts.add(block as usize) + tile * Chosen::CONSTANTS.block_m;
            let end = *q_starts.add(block as usize + 1);
            if first >= end {
                return;
            }
            let list = bh as usize * q_blocks as usize + block as usize;
            let count = *kv_num_blocks.add(list) as u32;
            let indices = kv_indices.add(list * max_blocks as usize);
            let rows = (end - first).min(Chosen::CONSTANTS.block_m);
            forward::<Chosen>(
                Head::of(Head { q, k, v, out, lse }, bh, seqlen_q, seqlen_k, Chosen::CONSTANTS.head_dim),
                QueryTile { first, rows },
                Lists::new(kv_starts, indices, count),
                softmax_scale,
            );
        }
    }
}

use chosen::KERNEL;
