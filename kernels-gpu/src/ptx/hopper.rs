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

/// Arrives at a barrier of another block of threads of the cluster ("mbarrier.arrive", `.shared::cluster`).
///
/// # Safety
/// As for [`arrive`]; `barrier` is in the cluster's window, and its block of threads still runs.
#[inline(always)]
pub unsafe fn arrive_in_cluster(barrier: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [{}];", in(reg32) barrier, options(nostack));
    }
}

/// Returns where something in this block's shared memory is in that of the block of `rank`, in the cluster's window
/// ("mapa").
#[inline(always)]
pub fn in_block(rank: u32, address: u32) -> u32 {
    let there: u32;
    // SAFETY: computes an address.
    unsafe {
        asm!("mapa.shared::cluster.u32 {}, {}, {};", out(reg32) there, in(reg32) address, in(reg32) rank,
            options(pure, nomem, nostack));
    }
    there
}

/// Returns the block's number in its cluster ("Special Registers: %cluster_ctarank").
#[inline(always)]
pub fn rank() -> u32 {
    let rank: u32;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %cluster_ctarank;", out(reg32) rank, options(pure, nomem, nostack)) };
    rank
}

/// Waits for all threads of the cluster and orders their memory accesses ("barrier.cluster").
///
/// # Safety
/// All threads of all blocks of the cluster come here, whole warps together.
#[inline(always)]
pub unsafe fn cluster_barrier() {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;",
            options(nostack)
        );
    }
}

/// Waits for the end of a phase as [`wait`], and acquires what was released to it in all blocks of the cluster
/// ("mbarrier.try_wait", `.acquire.cluster`).
///
/// # Safety
/// As for [`wait`].
#[inline(always)]
pub unsafe fn wait_for_cluster(barrier: u32, parity: u32) {
    loop {
        let done: u32;
        // SAFETY: the caller's; as in `wait`.
        unsafe {
            asm!("{{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [{}], {}; selp.b32 {}, 1, 0, p; }}",
                in(reg32) barrier, in(reg32) parity, out(reg32) done, options(nostack));
        }
        if done != 0 {
            return;
        }
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

/// Starts copying a box as [`copy_box`], to the same place in all blocks of threads whose ranks have a bit in `ranks`; its
/// bytes count on the barrier at the same place of each ("cp.async.bulk.tensor", `.multicast::cluster`).
///
/// # Safety
/// As for [`copy_box`], in each of these blocks.
#[inline(always)]
pub unsafe fn copy_box_to(ranks: u16, to: u32, map: *const u8, at: [u32; 3], barrier: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [{}], [{}, {{{}, {}, {}}}], [{}], {};",
            in(reg32) to, in(reg64) map, in(reg32) at[0], in(reg32) at[1], in(reg32) at[2], in(reg32) barrier,
            in(reg16) ranks, options(nostack));
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

/// Waits for a turn: for `threads` threads that come to `barrier`, here or at [`pass_turn`], if `when` is not 0 ("bar",
/// `bar.sync`).
///
/// A predicate and no branch: products may be under way, and around those the assembler wants to see one path.
///
/// # Safety
/// `barrier` is 1 to 15; all lanes of the warp come here with the same numbers.
#[inline(always)]
pub unsafe fn wait_for_turn(when: u32, barrier: u32, threads: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {}, 0; @p bar.sync {}, {}; }}",
            in(reg32) when, in(reg32) barrier, in(reg32) threads, options(nostack));
    }
}

/// Passes a turn on: comes to `barrier`, and does not wait ("bar", `bar.arrive`).
///
/// # Safety
/// As for [`wait_for_turn`].
#[inline(always)]
pub unsafe fn pass_turn(when: u32, barrier: u32, threads: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {}, 0; @p bar.arrive {}, {}; }}",
            in(reg32) when, in(reg32) barrier, in(reg32) threads, options(nostack));
    }
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
