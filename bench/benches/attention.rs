//! Attention forward: dense and block-sparse, f32 and bf16, against the measured arithmetic peak.
//!
//! `cargo bench -p nabla-bench --bench attention` prints time and FLOP/s of every case; elements of the
//! throughput are FLOPs (4 * heads * head_dim * kept query-key pairs), so "Gelem/s" reads as GFLOP/s.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use nabla_kernels_cpu::{
    AttentionArgs, BlockLists, Element, Executor, Isa, Pattern, Shape, Tile, attention_forward,
    bf16_dot_peak_gflops, fma_peak_gflops,
};

const HEADS: usize = 2;
const SEQLEN: usize = 4096;
const BLOCK: usize = 64;
const BLOCKS: usize = SEQLEN / BLOCK;
const TILE: Tile = Tile { block_m: 64, block_n: 128 };

/// Block lists that keep one block in `one_in`, scattered.
struct Lists {
    starts: Vec<u32>,
    counts: Vec<i32>,
    indices: Vec<i32>,
}

impl Lists {
    fn new(one_in: usize) -> Self {
        let (mut counts, mut indices) = (vec![], vec![]);
        for row in 0..HEADS * BLOCKS {
            let mut list: Vec<i32> =
                (0..BLOCKS).filter(|j| (j + row) % one_in == 0).map(|j| j as i32).collect();
            counts.push(list.len() as i32);
            list.resize(BLOCKS, 0);
            indices.extend(list);
        }
        Self { starts: (0..=BLOCKS).map(|b| (b * BLOCK) as u32).collect(), counts, indices }
    }

    fn pattern(&self) -> Pattern<'_> {
        Pattern::Blocks(BlockLists {
            q_starts: &self.starts,
            kv_starts: &self.starts,
            kv_num_blocks: &self.counts,
            kv_indices: &self.indices,
            max_blocks: BLOCKS,
        })
    }

    /// Query-key pairs of all heads.
    fn pairs(&self) -> u64 {
        self.counts.iter().map(|&n| n as u64).sum::<u64>() * (BLOCK * BLOCK) as u64
    }
}

/// Seeded values in [-1.7, 1.7), about unit variance (Knuth's MMIX generator).
fn tensor<T: Element>(head_dim: usize, mut state: u64) -> Vec<T> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        T::from_f32(((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 1.7)
    };
    (0..HEADS * SEQLEN * head_dim).map(|_| next()).collect()
}

fn forward<T: Element>(c: &mut Criterion, executor: &Executor, dtype: &str, head_dim: usize) {
    let (q, k, v) = (tensor::<T>(head_dim, 1), tensor::<T>(head_dim, 2), tensor::<T>(head_dim, 3));
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![0.0; HEADS * SEQLEN];
    let sparse = Lists::new(5);
    let dense_pairs = (HEADS * SEQLEN * SEQLEN) as u64;
    let mut group = c.benchmark_group(format!("attention_forward/{dtype}/d{head_dim}"));
    group.sample_size(10);
    for (name, pattern, pairs) in
        [("dense", Pattern::Dense, dense_pairs), ("one_block_in_5", sparse.pattern(), sparse.pairs())]
    {
        let args = AttentionArgs {
            shape: Shape { batch_heads: HEADS, seqlen_q: SEQLEN, seqlen_k: SEQLEN, head_dim },
            q: &q,
            k: &k,
            v: &v,
            softmax_scale: 1.0 / (head_dim as f32).sqrt(),
            pattern,
            tile: TILE,
        };
        group.throughput(Throughput::Elements(4 * head_dim as u64 * pairs));
        group.bench_function(BenchmarkId::new(name, SEQLEN), |b| {
            b.iter(|| attention_forward(executor, &args, &mut out, &mut lse).expect("arguments fit"));
        });
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let executor =
        Executor::new(threads, Isa::detect(), true).expect("the detected instruction set is there");
    let dot = bf16_dot_peak_gflops(&executor).map_or("none".into(), |g| format!("{g:.0} GFLOP/s"));
    eprintln!(
        "peak of {threads} threads, {}: f32 FMA {:.0} GFLOP/s, bf16 dot products {dot}",
        executor.isa().name(),
        fma_peak_gflops(&executor),
    );
    for head_dim in [64, 128] {
        forward::<f32>(c, &executor, "f32", head_dim);
        forward::<bf16>(c, &executor, "bf16", head_dim);
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
