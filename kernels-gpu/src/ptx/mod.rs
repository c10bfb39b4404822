//! The instructions Rust has no words for, one small function each: the only inline assembly of the crate.
//!
//! Section names are those of the PTX ISA. Addresses of shared memory are 32-bit and in the shared window. Functions
//! are safe where every operand value is: arithmetic, and reading a special register. Operations of a whole warp
//! (`.sync`, `.aligned`) are unsafe: all 32 lanes must reach them together.

use core::arch::{asm, nvptx};

use crate::{config::Dtype, softmax::Math};

pub mod hopper;
pub mod wgmma;

/// Declares dynamic shared memory, once in the crate that exports the kernel: a declaration stays where it is compiled.
#[macro_export]
macro_rules! dynamic_shared {
    () => {
        // Alignment 1024: what any swizzled layout wants of its base.
        core::arch::global_asm!(".extern .shared .align 1024 .b8 dynamic_shared[];");
    };
}

/// Returns the address of dynamic shared memory ("State Spaces: Shared State Space", `.extern .shared`).
#[inline(always)]
pub fn shared_base() -> u32 {
    let address: u32;
    // SAFETY: reads the address of the symbol that `dynamic_shared!` declares.
    unsafe { asm!("mov.u32 {}, dynamic_shared;", out(reg32) address, options(pure, nomem, nostack)) };
    address
}

/// Returns the thread's number in its block ("Special Registers: %tid").
#[inline(always)]
pub fn thread() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_thread_idx_x() as u32 }
}

/// Returns the block's number along x ("Special Registers: %ctaid").
#[inline(always)]
pub fn block_x() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_block_idx_x() as u32 }
}

/// Returns the block's number along y ("Special Registers: %ctaid").
#[inline(always)]
pub fn block_y() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_block_idx_y() as u32 }
}

/// Returns the number of blocks along x ("Special Registers: %nctaid").
#[inline(always)]
pub fn blocks_x() -> u32 {
    // SAFETY: reads a special register.
    unsafe { nvptx::_grid_dim_x() as u32 }
}

/// Returns `x`, and does not let the compiler know: a loop to it stays a loop ("mov").
#[inline(always)]
pub fn opaque(x: u32) -> u32 {
    let y: u32;
    // SAFETY: registers only.
    unsafe { asm!("mov.u32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack)) };
    y
}

/// Returns once `x`, a number that is not negative, is known in all lanes: what it depends on is computed before what
/// follows.
///
/// A wait for asynchronous work orders nothing but that work, so the assembler places it as early as it can. A branch on
/// the number holds it back; a vote, so that the branch is known to be the warp's ("vote.sync", "trap").
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn settle(x: f32) {
    // SAFETY: the caller's; a negative number is a mistake that ends the kernel, NaN passes.
    unsafe {
        asm!("{{ .reg .pred p; setp.lt.f32 p, {}, 0f00000000; vote.sync.any.pred p, p, 0xffffffff; @p trap; }}",
            in(reg32) x, options(nostack));
    }
}

/// Ends the kernel with an error the driver reports ("Miscellaneous Instructions: trap").
#[inline(always)]
pub fn trap() -> ! {
    // SAFETY: does not return; the whole launch fails.
    unsafe { nvptx::trap() }
}

/// Waits for all threads of the block and orders their shared memory accesses ("bar.sync", barrier 0).
///
/// # Safety
/// All threads of the block come here.
#[inline(always)]
pub unsafe fn barrier() {
    // The intrinsic and not assembly: LLVM knows that it must not be duplicated.
    // SAFETY: the caller's.
    unsafe { nvptx::_syncthreads() }
}

/// Waits for all lanes of the warp and orders their memory accesses ("bar.warp.sync").
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn warp_barrier() {
    // SAFETY: the caller's.
    unsafe { asm!("bar.warp.sync 0xffffffff;", options(nostack)) }
}

/// Starts copying 16 bytes past the registers; of those past `bytes` none is read, zero is written ("cp.async").
///
/// # Safety
/// `to` is 16 bytes of shared memory, `from` 16 bytes of global memory unless `bytes` is 0, both aligned to 16. Nobody
/// touches `to` before a wait and a barrier.
#[inline(always)]
pub unsafe fn copy_async_16(to: u32, from: *const u8, bytes: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("cp.async.cg.shared.global [{}], [{}], 16, {};",
            in(reg32) to, in(reg64) from, in(reg32) bytes, options(nostack));
    }
}

/// Closes a group of this thread's copies ("cp.async.commit_group").
#[inline(always)]
pub fn copy_commit() {
    // SAFETY: changes nothing but the numbering of copies.
    unsafe { asm!("cp.async.commit_group;", options(nostack)) }
}

/// Waits until at most `pending` of this thread's groups, the youngest, are still under way ("cp.async.wait_group").
///
/// `pending` is a constant after inlining; at most [`crate::config::MAX_STAGES`].
#[inline(always)]
pub fn copy_wait(pending: u32) {
    // SAFETY: waits; the operand must be a literal.
    unsafe {
        match pending {
            0 => asm!("cp.async.wait_group 0;", options(nostack)),
            1 => asm!("cp.async.wait_group 1;", options(nostack)),
            2 => asm!("cp.async.wait_group 2;", options(nostack)),
            _ => asm!("cp.async.wait_group 3;", options(nostack)),
        }
    }
}

/// Loads four 8x8 matrices of 16-bit elements; lanes 8i..8i+8 address the rows of matrix i ("ldmatrix").
///
/// # Safety
/// `row` is 16 bytes of shared memory, aligned to 16; all lanes come here.
#[inline(always)]
pub unsafe fn ldmatrix(row: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: the caller's.
    unsafe {
        asm!("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) row, options(readonly, nostack));
    }
    [a, b, c, d]
}

/// Loads four 8x8 matrices as [`ldmatrix`] and transposes each ("ldmatrix", `.trans`).
///
/// # Safety
/// As for [`ldmatrix`].
#[inline(always)]
pub unsafe fn ldmatrix_transposed(row: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: the caller's.
    unsafe {
        asm!("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) row, options(readonly, nostack));
    }
    [a, b, c, d]
}

/// `c += a b` for a 16x16, b 16x8, c 16x8 in f32, one fragment a lane ("mma", `.m16n8k16`; fragments:
/// [`crate::layout`]).
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn mma(dtype: Dtype, c: &mut [f32; 4], a: &[u32; 4], b: [u32; 2]) {
    macro_rules! mma {
        ($types:literal) => {
            asm!(
                concat!("mma.sync.aligned.m16n8k16.row.col.", $types, " {{{0}, {1}, {2}, {3}}}, ",
                    "{{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};"),
                inout(reg32) c[0], inout(reg32) c[1], inout(reg32) c[2], inout(reg32) c[3],
                in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3],
                in(reg32) b[0], in(reg32) b[1], options(pure, nomem, nostack))
        };
    }
    // SAFETY: the caller's; registers only.
    unsafe {
        match dtype {
            Dtype::Bf16 => mma!("f32.bf16.bf16.f32"),
            Dtype::F16 => mma!("f32.f16.f16.f32"),
        }
    }
}

/// Rounds two numbers to 16 bits, the first in the low half ("cvt", `.rn.bf16x2.f32` and `.rn.f16x2.f32`).
#[inline(always)]
pub fn pack(dtype: Dtype, low: f32, high: f32) -> u32 {
    let pair: u32;
    // SAFETY: registers only. The instruction names the high half first.
    unsafe {
        match dtype {
            Dtype::Bf16 => {
                asm!("cvt.rn.bf16x2.f32 {}, {}, {};",
                    out(reg32) pair, in(reg32) high, in(reg32) low, options(pure, nomem, nostack))
            }
            Dtype::F16 => {
                asm!("cvt.rn.f16x2.f32 {}, {}, {};",
                    out(reg32) pair, in(reg32) high, in(reg32) low, options(pure, nomem, nostack))
            }
        }
    }
    pair
}

/// Widens the two halves of a pair, low half first ("cvt", `.f32.f16`; bf16 is the upper half of an f32).
#[inline(always)]
pub fn unpack(dtype: Dtype, pair: u32) -> [f32; 2] {
    match dtype {
        Dtype::Bf16 => [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)],
        Dtype::F16 => [half_to_f32(pair as u16), half_to_f32((pair >> 16) as u16)],
    }
}

/// Widens one element of 16 bits.
#[inline(always)]
pub fn widen(dtype: Dtype, bits: u16) -> f32 {
    match dtype {
        Dtype::Bf16 => f32::from_bits(u32::from(bits) << 16),
        Dtype::F16 => half_to_f32(bits),
    }
}

#[inline(always)]
fn half_to_f32(bits: u16) -> f32 {
    let x: f32;
    // SAFETY: registers only.
    unsafe { asm!("cvt.f32.f16 {}, {};", out(reg32) x, in(reg16) bits, options(pure, nomem, nostack)) };
    x
}

/// Returns the value of the lane whose number differs in the bits of `MASK` ("shfl.sync", `.bfly`).
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn shuffle_xor<const MASK: u32>(x: u32) -> u32 {
    let other: u32;
    // SAFETY: the caller's. Clamp 0x1f: segments are whole warps.
    unsafe {
        asm!("shfl.sync.bfly.b32 {}, {}, {}, 0x1f, 0xffffffff;",
            out(reg32) other, in(reg32) x, const MASK, options(nomem, nostack));
    }
    other
}

/// Returns the value of lane 0, which is then known to be the same in all lanes ("shfl.sync", `.idx`).
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn uniform(x: u32) -> u32 {
    let first: u32;
    // SAFETY: the caller's. Clamp 0x1f: segments are whole warps.
    unsafe {
        asm!("shfl.sync.idx.b32 {}, {}, 0, 0x1f, 0xffffffff;",
            out(reg32) first, in(reg32) x, options(nomem, nostack));
    }
    first
}

/// Returns a bit per lane, set where `condition` is true ("vote.sync", `.ballot`).
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn ballot(condition: bool) -> u32 {
    let lanes: u32;
    // SAFETY: the caller's.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {}, 0; vote.sync.ballot.b32 {}, p, 0xffffffff; }}",
            in(reg32) u32::from(condition), out(reg32) lanes, options(nomem, nostack));
    }
    lanes
}

/// Loads a number from shared memory ("ld", `.shared.f32`).
///
/// # Safety
/// `address` is 4 bytes of shared memory, aligned to 4, written before the last barrier or by this thread.
#[inline(always)]
pub unsafe fn load_shared(address: u32) -> f32 {
    let x: f32;
    // SAFETY: the caller's.
    unsafe {
        asm!("ld.shared.f32 {}, [{}];", out(reg32) x, in(reg32) address, options(readonly, nostack));
    }
    x
}

/// Loads a word from shared memory ("ld", `.shared.u32`).
///
/// # Safety
/// As for [`load_shared`].
#[inline(always)]
pub unsafe fn load_shared_word(address: u32) -> u32 {
    let x: u32;
    // SAFETY: the caller's.
    unsafe {
        asm!("ld.shared.u32 {}, [{}];", out(reg32) x, in(reg32) address, options(readonly, nostack));
    }
    x
}

/// Loads four words from shared memory ("ld", `.shared.v4.u32`).
///
/// # Safety
/// As for [`load_shared`], of 16 bytes aligned to 16.
#[inline(always)]
pub unsafe fn load_shared_words(address: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: the caller's.
    unsafe {
        asm!("ld.shared.v4.u32 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) address, options(readonly, nostack));
    }
    [a, b, c, d]
}

/// Stores a word to shared memory ("st", `.shared.u32`).
///
/// # Safety
/// As for [`store_shared`].
#[inline(always)]
pub unsafe fn store_shared_word(address: u32, x: u32) {
    // SAFETY: the caller's.
    unsafe { asm!("st.shared.u32 [{}], {};", in(reg32) address, in(reg32) x, options(nostack)) }
}

/// Stores four words to shared memory ("st", `.shared.v4.u32`).
///
/// # Safety
/// As for [`store_shared`], of 16 bytes aligned to 16.
#[inline(always)]
pub unsafe fn store_shared_words(address: u32, x: [u32; 4]) {
    // SAFETY: the caller's.
    unsafe {
        asm!("st.shared.v4.u32 [{}], {{{}, {}, {}, {}}};",
            in(reg32) address, in(reg32) x[0], in(reg32) x[1], in(reg32) x[2], in(reg32) x[3], options(nostack));
    }
}

/// Loads four numbers from shared memory ("ld", `.shared.v4.f32`).
///
/// # Safety
/// As for [`load_shared`], of 16 bytes aligned to 16.
#[inline(always)]
pub unsafe fn load_shared_4(address: u32) -> [f32; 4] {
    let (a, b, c, d): (f32, f32, f32, f32);
    // SAFETY: the caller's.
    unsafe {
        asm!("ld.shared.v4.f32 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) address, options(readonly, nostack));
    }
    [a, b, c, d]
}

/// Stores a number to shared memory ("st", `.shared.f32`).
///
/// # Safety
/// `address` is 4 bytes of shared memory, aligned to 4, that no other thread touches before the next barrier.
#[inline(always)]
pub unsafe fn store_shared(address: u32, x: f32) {
    // SAFETY: the caller's.
    unsafe { asm!("st.shared.f32 [{}], {};", in(reg32) address, in(reg32) x, options(nostack)) }
}

/// The arithmetic of the special function unit.
pub struct Device;

impl Math for Device {
    /// 2^x, 2 ulp, subnormal results are 0 ("ex2", `.approx.ftz.f32`).
    #[inline(always)]
    fn exp2(x: f32) -> f32 {
        let y: f32;
        // SAFETY: registers only.
        unsafe {
            asm!("ex2.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack))
        };
        y
    }

    /// log2(x), absolute error 2^-22 near 1, else relative ("lg2", `.approx.ftz.f32`).
    #[inline(always)]
    fn log2(x: f32) -> f32 {
        let y: f32;
        // SAFETY: registers only.
        unsafe {
            asm!("lg2.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack))
        };
        y
    }

    /// The larger of two numbers, NaN if one of them is ("max", `.NaN.f32`).
    #[inline(always)]
    fn at_least(x: f32, least: f32) -> f32 {
        let y: f32;
        // SAFETY: registers only.
        unsafe {
            asm!("max.NaN.f32 {}, {}, {};", out(reg32) y, in(reg32) x, in(reg32) least, options(pure, nomem, nostack));
        }
        y
    }

    /// a * b + c, rounded once ("fma", `.rn.f32`); rustc never contracts by itself.
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        let y: f32;
        // SAFETY: registers only.
        unsafe {
            asm!("fma.rn.f32 {}, {}, {}, {};",
                out(reg32) y, in(reg32) a, in(reg32) b, in(reg32) c, options(pure, nomem, nostack));
        }
        y
    }
}
