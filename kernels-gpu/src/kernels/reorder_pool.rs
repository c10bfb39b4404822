//! Reorder of tokens, fused with the mean of each block: Q and K are read once for both.
//!
//! ```text
//! ordered[t] = x[source[t]]      pooled[b] = mean over t in block b of ordered[t]
//! ```
//! Memory: `x` and `ordered` are `[batch_heads, seqlen, D]` of 16-bit T, `pooled` is `[batch_heads, blocks, D]` f32.
//!
//! A block of threads moves one block of tokens; a thread moves 16 bytes of a token at a time and sums the eight
//! columns it sees.
//!
//! ```text
//!              chunk 0   1   2  ...  D/8-1
//!   token 0      t0     t1  t2               ─ 16-byte load ─► 16-byte store
//!   token 1      t8     ...                          └► += 8 sums in registers
//!   ...                                      then [token slots][D] f32 in shared memory ─► pooled[b][D]
//! ```
//! Sums are f32: a block has at most some hundred tokens, and a slot sums one in `reorder_tokens()` of them.

use crate::{config::Config, layout::CHUNK_ELEMENTS, ptx};

/// Sixteen bytes that load and store as one.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Chunk([u32; 4]);

/// What is read and written, at the first token and block of one head.
#[derive(Clone, Copy)]
pub struct Tensors {
    pub x: *const u16,
    pub source: *const u32,
    pub ordered: *mut u16,
    pub pooled: *mut f32,
}

/// Moves tokens `first..end` of the order, and writes their mean as that of `block`.
///
/// # Safety
/// `first < end <= seqlen`, `source` holds tokens, tensors are aligned to 16 bytes and `ordered` is not `x`; all threads
/// of the block call it with the same arguments, with the shared memory of `Instance::shared_bytes`.
#[inline(always)]
pub unsafe fn reorder_pool<C: Config>(tensors: Tensors, block: u32, first: u32, end: u32) {
    let c = const { C::CONSTANTS };
    let slots = c.reorder_tokens();
    let thread = ptx::thread();
    let (slot, chunk) = (thread / c.chunks(), thread % c.chunks());
    let shared = ptx::shared_base();
    // SAFETY: tokens are below seqlen (the caller's), chunks within a token; slots and columns lie within
    // `reorder_shared_bytes`; the barrier is reached by all threads.
    unsafe {
        // Threads that do not make up a whole token have nothing to move: 8 of 128 at D = 96.
        if slot < slots {
            let mut sums = [0.0f32; CHUNK_ELEMENTS as usize];
            let mut token = first + slot;
            while token < end {
                let from = *tensors.source.add(token as usize);
                let place = |token: u32| token as usize * c.chunks() as usize + chunk as usize;
                let value = *tensors.x.cast::<Chunk>().add(place(from));
                *tensors.ordered.cast::<Chunk>().add(place(token)) = value;
                for i in 0..4 {
                    let [low, high] = ptx::unpack(c.dtype, value.0[i]);
                    sums[2 * i] += low;
                    sums[2 * i + 1] += high;
                }
                token += slots;
            }
            for i in 0..CHUNK_ELEMENTS {
                let column = chunk * CHUNK_ELEMENTS + i;
                ptx::store_shared(shared + (slot * c.head_dim + column) * 4, sums[i as usize]);
            }
        }
        ptx::barrier();

        let mut column = thread;
        while column < c.head_dim {
            let mut sum = 0.0;
            for slot in 0..slots {
                sum += ptx::load_shared(shared + (slot * c.head_dim + column) * 4);
            }
            let mean = sum / (end - first) as f32;
            *tensors.pooled.add(block as usize * c.head_dim as usize + column as usize) = mean;
            column += c.threads();
        }
    }
}
