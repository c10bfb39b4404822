//! Instructions of compute capability 9.0a but its matrix products: barriers in shared memory, tensor copies, proxies,
//! the division of registers between warpgroups.
//!
//! Section names are those of the PTX ISA. A barrier is an `mbarrier` object: 8 bytes of shared memory, aligned to 8.

use core::arch::asm;

use crate::{config::Config, hopper::RegisterSplit};

/// Makes a barrier that completes a phase after `arrivals` arrivals ("mbarrier.init").
///
/// # Safety
/// `barrier` is one's place; nobody uses it before [`publish_barriers`] and a barrier of the block.
#[inline(always)]
pub unsafe fn barrier_init(barrier: u32, arrivals: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mbarrier.init.shared::cta.b64 [{}], {};", in(reg32) barrier, in(reg32) arrivals, options(nostack));
    }
}

/// Orders this thread's [`barrier_init`]s before what others do after a barrier of the block ("membar/fence",
/// `fence.mbarrier_init`).
#[inline(always)]
pub fn publish_barriers() {
    // SAFETY: orders memory accesses.
    unsafe { asm!("fence.mbarrier_init.release.cluster;", options(nostack)) }
}

/// Arrives, and releases what this thread did before ("mbarrier.arrive").
///
/// # Safety
/// `barrier` was made, and one more arrival of this phase is due.
#[inline(always)]
pub unsafe fn arrive(barrier: u32) {
    // SAFETY: the caller's.
    unsafe { asm!("mbarrier.arrive.shared::cta.b64 _, [{}];", in(reg32) barrier, options(nostack)) }
}

/// Arrives, and lets the phase wait for `bytes` of copies as well ("mbarrier.arrive", `.expect_tx`).
///
/// # Safety
/// As for [`arrive`]; copies of exactly that many bytes complete on the barrier.
#[inline(always)]
pub unsafe fn arrive_expecting(barrier: u32, bytes: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{}], {};",
            in(reg32) barrier, in(reg32) bytes, options(nostack));
    }
}

/// Waits for the end of the phase of the given parity, the current or the previous one, and acquires what was released
/// to it ("mbarrier.try_wait", `.parity`).
///
/// # Safety
/// `barrier` was made, and the phase ends.
#[inline(always)]
pub unsafe fn wait(barrier: u32, parity: u32) {
    loop {
        let done: u32;
        // SAFETY: the caller's. A thread is suspended for a while, not for ever: hence the loop.
        unsafe {
            asm!("{{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [{}], {}; selp.b32 {}, 1, 0, p; }}",
                in(reg32) barrier, in(reg32) parity, out(reg32) done, options(nostack));
        }
        if done != 0 {
            return;
        }
    }
}

/// Starts copying a box of a tensor of three dimensions to shared memory; its bytes count on `barrier`
/// ("cp.async.bulk.tensor", `.3d`, `.tile`).
///
/// What of the box lies outside the tensor becomes zero, and counts.
///
/// # Safety
/// `map` is a tensor map in global memory, aligned to 64; `to` holds its box, aligned as its swizzle wants; nobody
/// touches that before the barrier's phase ends.
#[inline(always)]
pub unsafe fn copy_box(to: u32, map: *const u8, at: [u32; 3], barrier: u32) {
    // SAFETY: the caller's. A block that is launched without a cluster is one of its own.
    unsafe {
        asm!("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [{}], [{}, {{{}, {}, {}}}], [{}];",
            in(reg32) to, in(reg64) map, in(reg32) at[0], in(reg32) at[1], in(reg32) at[2], in(reg32) barrier,
            options(nostack));
    }
}

/// Starts fetching a tensor map into the descriptor cache ("prefetch", `.tensormap`).
///
/// # Safety
/// `map` is a tensor map in global memory, aligned to 64.
#[inline(always)]
pub unsafe fn prefetch_map(map: *const u8) {
    // SAFETY: the caller's.
    unsafe { asm!("prefetch.tensormap [{}];", in(reg64) map, options(nostack)) }
}

/// Orders this thread's ordinary accesses to shared memory before accesses of tensor cores and copy engines that
/// follow a synchronisation ("membar/fence", `fence.proxy.async`).
#[inline(always)]
pub fn proxy_fence() {
    // SAFETY: orders memory accesses.
    unsafe { asm!("fence.proxy.async.shared::cta;", options(nostack)) }
}

/// Returns true in one lane of the warp, always the same ("elect.sync").
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn elect() -> bool {
    let elected: u32;
    // SAFETY: the caller's.
    unsafe {
        asm!("{{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 {}, 1, 0, p; }}",
            out(reg32) elected, options(nomem, nostack));
    }
    elected != 0
}

/// Waits for the 128 threads that come to `barrier` and orders their memory accesses ("bar", `barrier.sync`).
///
/// # Safety
/// `barrier` is 1 to 15; all threads of one warpgroup and no others come here.
#[inline(always)]
pub unsafe fn warpgroup_barrier(barrier: u32) {
    // SAFETY: the caller's.
    unsafe { asm!("bar.sync {}, 128;", in(reg32) barrier, options(nostack)) }
}

/// Gives registers of this warp back, down to the producer's of the constants' split ("setmaxnreg", `.dec`).
///
/// # Safety
/// The constants have a split. All warps of the warpgroup come here, and have at least as many.
#[inline(always)]
pub unsafe fn release_registers<C: Config>() {
    // SAFETY: the caller's.
    unsafe { asm!("setmaxnreg.dec.sync.aligned.u32 {};", const split::<C>().producer, options(nostack)) }
}

/// Takes registers for this warp, up to a consumer's of the constants' split, once others have given them back
/// ("setmaxnreg", `.inc`).
///
/// # Safety
/// The constants have a split. All warps of the warpgroup come here, and have at most as many.
#[inline(always)]
pub unsafe fn acquire_registers<C: Config>() {
    // SAFETY: the caller's.
    unsafe { asm!("setmaxnreg.inc.sync.aligned.u32 {};", const split::<C>().consumer, options(nostack)) }
}

/// Returns the split of the constants; those without one are never asked for it, but compiled.
const fn split<C: Config>() -> RegisterSplit {
    match C::CONSTANTS.register_split() {
        Some(split) => split,
        None => RegisterSplit { producer: 24, consumer: 24 },
    }
}
