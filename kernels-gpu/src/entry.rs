//! What a device compilation exports: the one kernel that `nabla_kernel` names, with the constants of `NABLA_*`.
//!
//! Parameters are plain scalars and pointers to global memory, in the order written here. `T` below is the 16-bit
//! storage type of the constants; `bh` is batch size times heads.

#![no_std]
#![feature(abi_ptx, asm_experimental_arch)]

use nabla_kernels_gpu::{
    config::{Config, Constants, Dtype, Work},
    instances::{Instance, Kernel},
    ptx,
};

nabla_kernels_gpu::dynamic_shared!();

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
            slack: number(option_env!("NABLA_SLACK"), default.slack),
            polynomials: number(option_env!("NABLA_POLYNOMIALS"), default.polynomials),
            work: Work::from_code(number(option_env!("NABLA_WORK"), default.work.code())),
            value_stages: number(option_env!("NABLA_VALUE_STAGES"), default.value_stages),
            ping_pong: number(option_env!("NABLA_PING_PONG"), default.ping_pong as u32) != 0,
            pairs: number(option_env!("NABLA_PAIRS"), default.pairs as u32) != 0,
            cluster: number(option_env!("NABLA_CLUSTER"), default.cluster),
        }
    };
}

/// What is compiled must be something the host would launch.
const _: () = {
    let instance = Instance { kernel: KERNEL, constants: Chosen::CONSTANTS };
    if let Err(reason) = instance.check() {
        panic!("{}", reason);
    }
};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    ptx::trap()
}

/// Attention over the lists of a block mask, by tensor cores or plainly.
///
/// - `q`, `out`: T `[bh, seqlen_q, D]`; `k`, `v`: T `[bh, seqlen_k, D]`, in block order; `lse`: f32 `[bh, seqlen_q]`,
///   natural logarithm
/// - `q_starts` `[q_blocks + 1]`, `kv_starts` `[kv_blocks + 1]`: first tokens of blocks, in tokens
/// - `kv_num_blocks` `[bh, q_blocks]`, `kv_indices` `[bh, q_blocks, max_blocks]`
///
/// An empty list gives output 0 and lse -inf.
#[allow(dead_code, unused_imports, reason = "one of three entry points is compiled")]
#[cfg(any(
    nabla_kernel = "attention_sparse",
    nabla_kernel = "attention_dense",
    nabla_kernel = "attention_plain"
))]
mod chosen {
    use super::*;
    use nabla_kernels_gpu::kernels::{
        attention::{self, Head, QueryTile},
        plain,
        walk::{Everything, Lists},
    };

    const C: Constants = Chosen::CONSTANTS;

    /// Attends each query block to its listed key blocks.
    ///
    /// Grid: x = q_blocks times the tiles of the longest query block, y = bh.
    ///
    /// # Safety
    /// Buffers have the shapes above and are aligned to 16 bytes, listed blocks exist, starts ascend strictly to the
    /// sequence length.
    #[cfg(nabla_kernel = "attention_sparse")]
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
        // SAFETY: the caller's.
        unsafe {
            let queries = rows(q_starts, block, tile * C.block_m, C.block_m);
            if queries.rows == 0 {
                return;
            }
            let head = Head::of(Head { q, k, v, out, lse }, ptx::block_y(), seqlen_q, seqlen_k, C.head_dim);
            let keys = list(kv_starts, kv_num_blocks, kv_indices, q_blocks, max_blocks, block);
            attention::forward::<Chosen>(head, queries, keys, softmax_scale);
        }
    }

    /// Attends all queries to all keys; lists are not read.
    ///
    /// Grid: x = tiles of the queries, y = bh.
    ///
    /// # Safety
    /// Tensors have the shapes above and are aligned to 16 bytes.
    #[cfg(nabla_kernel = "attention_dense")]
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_attention_dense(
        q: *const u16, k: *const u16, v: *const u16, out: *mut u16, lse: *mut f32,
        _q_starts: *const u32, _kv_starts: *const u32, _kv_num_blocks: *const i32, _kv_indices: *const i32,
        _q_blocks: u32, _kv_blocks: u32, _max_blocks: u32, seqlen_q: u32, seqlen_k: u32, softmax_scale: f32,
    ) {
        let first = ptx::block_x() * C.block_m;
        if first >= seqlen_q {
            return;
        }
        // SAFETY: the caller's.
        unsafe {
            let head = Head::of(Head { q, k, v, out, lse }, ptx::block_y(), seqlen_q, seqlen_k, C.head_dim);
            let queries = QueryTile { first, rows: (seqlen_q - first).min(C.block_m) };
            attention::forward::<Chosen>(head, queries, Everything::new(seqlen_k), softmax_scale);
        }
    }

    /// Attends each query block to its listed key blocks, as the formula says.
    ///
    /// Grid: x = q_blocks, y = bh.
    ///
    /// # Safety
    /// As for `nabla_attention_sparse`.
    #[cfg(nabla_kernel = "attention_plain")]
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_attention_plain(
        q: *const u16, k: *const u16, v: *const u16, out: *mut u16, lse: *mut f32,
        q_starts: *const u32, kv_starts: *const u32, kv_num_blocks: *const i32, kv_indices: *const i32,
        q_blocks: u32, _kv_blocks: u32, max_blocks: u32, seqlen_q: u32, seqlen_k: u32, softmax_scale: f32,
    ) {
        let block = ptx::block_x();
        // SAFETY: the caller's.
        unsafe {
            let queries = rows(q_starts, block, 0, u32::MAX);
            let head = Head::of(Head { q, k, v, out, lse }, ptx::block_y(), seqlen_q, seqlen_k, C.head_dim);
            let keys = || list(kv_starts, kv_num_blocks, kv_indices, q_blocks, max_blocks, block);
            plain::forward::<Chosen, Lists>(head, queries, keys, softmax_scale);
        }
    }

    /// Returns the rows of a query block from `skip` on, `most` at most.
    ///
    /// # Safety
    /// The block exists.
    #[inline(always)]
    unsafe fn rows(starts: *const u32, block: u32, skip: u32, most: u32) -> QueryTile {
        // SAFETY: the caller's.
        let (first, end) = unsafe { (*starts.add(block as usize) + skip, *starts.add(block as usize + 1)) };
        QueryTile { first, rows: end.saturating_sub(first).min(most) }
    }

    /// Returns the key blocks of a query block.
    ///
    /// # Safety
    /// As for `nabla_attention_sparse`; the block exists.
    #[inline(always)]
    unsafe fn list(
        starts: *const u32,
        counts: *const i32,
        indices: *const i32,
        q_blocks: u32,
        max_blocks: u32,
        block: u32,
    ) -> Lists {
        let row = ptx::block_y() as usize * q_blocks as usize + block as usize;
        // SAFETY: the caller's.
        unsafe { Lists::new(starts, indices.add(row * max_blocks as usize), *counts.add(row) as u32) }
    }

    pub(super) const KERNEL: Kernel = if cfg!(nabla_kernel = "attention_sparse") {
        Kernel::AttentionSparse
    } else if cfg!(nabla_kernel = "attention_dense") {
        Kernel::AttentionDense
    } else {
        Kernel::AttentionPlain
    };
}

/// Attention on compute capability 9.0a.
///
/// Parameters are those of the portable attention, and then `q_map`, `k_map`, `v_map`: tensor maps of `q`, `k`, `v` as
/// `Instance::tensor_maps` describes them, in global memory, aligned to 64 bytes. `q`, `k` and `v` are not read.
///
/// Blocks of threads that go on to more work read of `groups` and `heads` what their grid does not say: x and y of
/// `Instance::grid`. `order`, `[groups / cluster * heads]`, is a permutation of what clusters take, head after head; read if
/// the work is listed.
#[allow(dead_code, unused_imports, reason = "one of two entry points is compiled")]
#[cfg(any(nabla_kernel = "hopper_sparse", nabla_kernel = "hopper_dense"))]
mod chosen {
    use super::*;
    use nabla_kernels_gpu::hopper::GROUP_ROWS;
    use nabla_kernels_gpu::kernels::{
        attention::QueryTile,
        hopper::{self, Job, Maps, Place, Places, Results, Task},
        union::{AllKeys, Union, list_of_lane},
    };

    const C: Constants = Chosen::CONSTANTS;

    /// Attends each query block to its listed key blocks; lists ascend.
    ///
    /// Grid: x = query tiles by consumers, in whole clusters, y = bh, unless blocks of threads go on to more work. There are as
    /// many query tiles as query blocks times the tiles of 64 rows of the longest.
    ///
    /// # Safety
    /// Buffers have the shapes above and are aligned to 16 bytes, listed blocks exist, starts ascend strictly to the
    /// sequence length; tensor maps are as described.
    #[cfg(nabla_kernel = "hopper_sparse")]
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_hopper_sparse(
        _q: *const u16, _k: *const u16, _v: *const u16, out: *mut u16, lse: *mut f32,
        q_starts: *const u32, kv_starts: *const u32, kv_num_blocks: *const i32, kv_indices: *const i32,
        q_blocks: u32, _kv_blocks: u32, max_blocks: u32, seqlen_q: u32, _seqlen_k: u32, softmax_scale: f32,
        q_map: *const u8, k_map: *const u8, v_map: *const u8, order: *const u32, groups: u32, heads: u32,
    ) {
        let groups = if C.work.is_persistent() { groups } else { ptx::blocks_x() };
        // Tiles of a query block: there are at least so many, and where groups are rounded up, some have no rows. At least
        // 1: division by zero would call a panic, which the device has no linker to find.
        let tiles = (groups * C.consumers() / q_blocks.max(1)).max(1);
        let job = Job { maps: Maps { q: q_map, k: k_map, v: v_map }, results: Results { out, lse }, seqlen_q, softmax_scale };
        let lists = Lists { q_starts, kv_starts, kv_num_blocks, kv_indices, q_blocks, max_blocks, tiles };
        // SAFETY: the caller's.
        unsafe { hopper::forward::<Chosen, _>(job, lists, Places { order, groups, heads }) }
    }

    /// Attends all queries to all keys; lists are not read.
    ///
    /// Grid: x = `block_m` queries each, in whole clusters, y = bh, unless blocks of threads go on to more work.
    ///
    /// # Safety
    /// Tensors have the shapes above and are aligned to 16 bytes; tensor maps are as described.
    #[cfg(nabla_kernel = "hopper_dense")]
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_hopper_dense(
        _q: *const u16, _k: *const u16, _v: *const u16, out: *mut u16, lse: *mut f32,
        _q_starts: *const u32, _kv_starts: *const u32, _kv_num_blocks: *const i32, _kv_indices: *const i32,
        _q_blocks: u32, _kv_blocks: u32, _max_blocks: u32, seqlen_q: u32, seqlen_k: u32, softmax_scale: f32,
        q_map: *const u8, k_map: *const u8, v_map: *const u8, order: *const u32, groups: u32, heads: u32,
    ) {
        let job = Job { maps: Maps { q: q_map, k: k_map, v: v_map }, results: Results { out, lse }, seqlen_q, softmax_scale };
        // SAFETY: the caller's.
        unsafe {
            hopper::forward::<Chosen, _>(job, Everything { seqlen_q, seqlen_k }, Places { order, groups, heads });
        }
    }

    /// Query blocks with their lists.
    #[derive(Clone, Copy)]
    struct Lists {
        q_starts: *const u32,
        kv_starts: *const u32,
        kv_num_blocks: *const i32,
        kv_indices: *const i32,
        q_blocks: u32,
        max_blocks: u32,
        /// Query tiles of a block.
        tiles: u32,
    }

    impl Lists {
        /// Returns the query block of a consumer, and which tile of it.
        #[inline(always)]
        fn block(&self, place: Place, consumer: u32) -> (u32, u32) {
            let tile = place.group * C.consumers() + consumer;
            (tile / self.tiles, tile % self.tiles)
        }
    }

    impl Task for Lists {
        type Walk = Union<Chosen>;

        #[inline(always)]
        unsafe fn queries(&self, place: Place, consumer: u32) -> QueryTile {
            let (block, tile) = self.block(place, consumer);
            // SAFETY: the block exists.
            if block < self.q_blocks {
                unsafe { rows(self.q_starts, block, tile * GROUP_ROWS) }
            } else {
                NO_ROWS
            }
        }

        #[inline(always)]
        unsafe fn walk(&self, place: Place) -> Union<Chosen> {
            // A cluster's lists are those of its groups, side by side.
            let place = place.of_cluster::<Chosen>();
            let consumer = list_of_lane(C, ptx::thread() % 32);
            let (block, _) = self.block(place, consumer);
            // SAFETY: as for the entry point; only blocks that exist have rows.
            unsafe {
                let (mut indices, mut count) = (self.kv_indices, 0);
                if self.queries(place, consumer).rows != 0 {
                    let row = place.bh as usize * self.q_blocks as usize + block as usize;
                    indices = self.kv_indices.add(row * self.max_blocks as usize);
                    count = *self.kv_num_blocks.add(row) as u32;
                }
                Union::new(self.kv_starts, indices, count)
            }
        }
    }

    /// All queries and all keys.
    #[derive(Clone, Copy)]
    struct Everything {
        seqlen_q: u32,
        seqlen_k: u32,
    }

    impl Task for Everything {
        type Walk = AllKeys;

        #[inline(always)]
        unsafe fn queries(&self, place: Place, consumer: u32) -> QueryTile {
            let first = place.group * C.block_m + consumer * GROUP_ROWS;
            QueryTile { first, rows: self.seqlen_q.saturating_sub(first).min(GROUP_ROWS) }
        }

        #[inline(always)]
        unsafe fn walk(&self, place: Place) -> AllKeys {
            let place = place.of_cluster::<Chosen>();
            let mut wanted = 0;
            for consumer in 0..C.lists() {
                // SAFETY: reads nothing.
                wanted |= u32::from(unsafe { self.queries(place, consumer) }.rows != 0) << consumer;
            }
            AllKeys::new(self.seqlen_k, wanted)
        }
    }

    const NO_ROWS: QueryTile = QueryTile { first: 0, rows: 0 };

    /// Returns the rows of a query block from `skip` on, those of one tile at most.
    ///
    /// # Safety
    /// The block exists.
    #[inline(always)]
    unsafe fn rows(starts: *const u32, block: u32, skip: u32) -> QueryTile {
        // SAFETY: the caller's.
        let (first, end) = unsafe { (*starts.add(block as usize) + skip, *starts.add(block as usize + 1)) };
        QueryTile { first, rows: end.saturating_sub(first).min(GROUP_ROWS) }
    }

    pub(super) const KERNEL: Kernel =
        if cfg!(nabla_kernel = "hopper_sparse") { Kernel::HopperSparse } else { Kernel::HopperDense };
}

#[cfg(nabla_kernel = "reorder_pool")]
mod chosen {
    use super::*;
    use nabla_kernels_gpu::kernels::reorder_pool::{Tensors, reorder_pool};

    pub(super) const KERNEL: Kernel = Kernel::ReorderPool;

    /// Brings tokens into block order and averages each block.
    ///
    /// Grid: x = blocks, y = bh.
    /// - `x`, `ordered`: T `[bh, seqlen, D]`, the first in raster order; `pooled`: f32 `[bh, blocks, D]`
    /// - `source` `[seqlen]` or `[bh, seqlen]`: which token of a head of `x` is next in its block order; heads are
    ///   `source_stride` entries apart, 0 where all have the same
    /// - `starts` `[blocks + 1]`: first tokens of blocks, in tokens
    ///
    /// # Safety
    /// Buffers have these shapes and are aligned to 16 bytes, `source` holds tokens, starts ascend strictly to `seqlen`.
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_reorder_pool(
        x: *const u16, source: *const u32, starts: *const u32, ordered: *mut u16, pooled: *mut f32,
        blocks: u32, seqlen: u32, source_stride: u32,
    ) {
        let (block, bh) = (ptx::block_x(), ptx::block_y() as usize);
        let source_head = bh * source_stride as usize;
        let token = bh * seqlen as usize * Chosen::CONSTANTS.head_dim as usize;
        let mean = bh * blocks as usize * Chosen::CONSTANTS.head_dim as usize;
        // SAFETY: the caller's.
        unsafe {
            let (first, end) = (*starts.add(block as usize), *starts.add(block as usize + 1));
            let (x, source) = (x.add(token), source.add(source_head));
            let tensors = Tensors { x, source, ordered: ordered.add(token), pooled: pooled.add(mean) };
            reorder_pool::<Chosen>(tensors, block, first, end);
        }
    }
}

#[cfg(nabla_kernel = "select")]
mod chosen {
    use super::*;
    use nabla_kernels_gpu::kernels::select::{Inputs, Outputs, Rule, select};

    pub(super) const KERNEL: Kernel = Kernel::Select;

    /// Selects the key blocks of each query block.
    ///
    /// Grid: x = groups of `block_m` query blocks, y = bh. `words` is `ceil(kv_blocks / 64)`.
    /// - `pooled_q` `[bh, q_blocks, D]`, `pooled_k` `[bh, kv_blocks, D]`: f32
    /// - `always`, `allowed`: bitmaps `[q_blocks, words]` for all heads, or null
    /// - `bitmap` `[bh, q_blocks, words]`, `counts` `[bh, q_blocks]`, `indices` `[bh, q_blocks, max]`
    /// - `keep_from`: 1 - the share of a row to keep; above 1.5 only `always` and `allowed` select
    ///
    /// # Safety
    /// Buffers have these shapes and are aligned to 16 bytes.
    #[unsafe(no_mangle)]
    #[rustfmt::skip]
    pub unsafe extern "ptx-kernel" fn nabla_select(
        pooled_q: *const f32, pooled_k: *const f32, always: *const u64, allowed: *const u64,
        bitmap: *mut u64, counts: *mut i32, indices: *mut i32,
        q_blocks: u32, kv_blocks: u32, max: u32, scale: f32, keep_from: f32,
    ) {
        const C: Constants = Chosen::CONSTANTS;
        // Shared memory holds no longer row.
        if kv_blocks > C.max_kv_blocks {
            ptx::trap();
        }
        let bh = ptx::block_y() as usize;
        let row = bh * q_blocks as usize;
        // SAFETY: the caller's.
        unsafe {
            let inputs = Inputs {
                pooled_q: pooled_q.add(row * C.head_dim as usize),
                pooled_k: pooled_k.add(bh * kv_blocks as usize * C.head_dim as usize),
                always,
                allowed,
            };
            let outputs = Outputs {
                bitmap: bitmap.add(row * kv_blocks.div_ceil(64) as usize),
                counts: counts.add(row),
                indices: indices.add(row * max as usize),
            };
            let rule = Rule { q_blocks, kv_blocks, max, scale, keep_from };
            select::<Chosen>(inputs, outputs, rule, ptx::block_x() * C.block_m);
        }
    }
}

use chosen::KERNEL;
