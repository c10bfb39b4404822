//! Mask building and token reorder, next to plainly reading or copying the same memory.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use nabla_kernels_cpu::{
    Element, Executor, Isa,
    mask::{SelectArgs, expand_lists, pool_blocks, select_blocks},
    reorder::gather_tokens,
};

const BLOCK: usize = 64;

fn executor() -> Executor {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Executor::new(threads, Isa::detect(), true).expect("the detected instruction set is there")
}

/// Makes tokens that resemble their neighbours, as those of a video do.
fn smooth<T: Element>(heads: usize, seqlen: usize, dim: usize, phase: f32) -> Vec<T> {
    let wave = |i: usize| {
        let (head, token, c) = (i / dim / seqlen, i / dim % seqlen, i % dim);
        let slow = (token as f32 * 1e-3 * (1 + c % 13) as f32 + (c * (head + 1)) as f32 + phase).sin();
        slow + 0.5 * ((i as f32) * 12.9898).sin()
    };
    (0..heads * seqlen * dim).map(|i| T::from_f32(wave(i))).collect()
}

/// Everything mask building reads and writes, allocated once.
struct Masks<T> {
    heads: usize,
    dim: usize,
    starts: Vec<u32>,
    q: Vec<T>,
    k: Vec<T>,
    pooled_q: Vec<f32>,
    pooled_k: Vec<f32>,
    bitmap: Vec<u64>,
    counts: Vec<i32>,
    lists: Vec<i32>,
}

impl<T: Element> Masks<T> {
    fn new(heads: usize, seqlen: usize, dim: usize) -> Self {
        let blocks = seqlen / BLOCK;
        Self {
            heads,
            dim,
            starts: (0..=blocks).map(|b| (b * BLOCK) as u32).collect(),
            q: smooth(heads, seqlen, dim, 0.0),
            k: smooth(heads, seqlen, dim, 0.3),
            pooled_q: vec![0.0; heads * blocks * dim],
            pooled_k: vec![0.0; heads * blocks * dim],
            bitmap: vec![0; heads * blocks * blocks.div_ceil(64)],
            counts: vec![0; heads * blocks],
            lists: Vec::new(),
        }
    }

    fn pool(&mut self, executor: &Executor) {
        pool_blocks(executor, &self.q, self.dim, &self.starts, &mut self.pooled_q).expect("sizes fit");
        pool_blocks(executor, &self.k, self.dim, &self.starts, &mut self.pooled_k).expect("sizes fit");
    }

    fn select(&mut self, executor: &Executor) {
        let args = SelectArgs {
            batch_heads: self.heads,
            head_dim: self.dim,
            pooled_q: &self.pooled_q,
            pooled_k: &self.pooled_k,
            softmax_scale: (self.dim as f32).sqrt().recip(),
            mass: Some(0.5),
            always: None,
            allowed: None,
        };
        select_blocks(executor, &args, &mut self.bitmap, &mut self.counts).expect("sizes fit");
    }

    fn expand(&mut self, executor: &Executor) {
        let max = self.counts.iter().copied().max().unwrap_or(0).max(1) as usize;
        self.lists.resize(self.counts.len() * max, 0);
        let words = (self.starts.len() - 1).div_ceil(64);
        expand_lists(executor, &self.bitmap, words, max, &mut self.lists).expect("sizes fit");
    }
}

/// Reads memory at the speed it comes: one word of each cache line, all threads.
fn read_all<T: Element>(executor: &Executor, tensors: [&[T]; 2]) {
    executor.run(|thread| {
        for tensor in tensors {
            let words: &[u64] = bytemuck::cast_slice(tensor);
            let share = words.len().div_ceil(executor.threads());
            let part = words.chunks(share).nth(thread).unwrap_or_default();
            black_box(part.iter().step_by(8).fold(0, |sum: u64, &word| sum.wrapping_add(word)));
        }
    });
}

fn building<T: Element>(c: &mut Criterion, name: &str) {
    let executor = executor();
    let mut group = c.benchmark_group(format!("mask_h2_s16000_d128_{name}"));
    let mut masks = Masks::<T>::new(2, 16_000, 128);
    group.throughput(Throughput::Bytes(2 * size_of_val(&masks.q[..]) as u64));
    group.bench_function("read_q_and_k", |b| b.iter(|| read_all(&executor, [&masks.q, &masks.k])));
    group.bench_function("pool", |b| b.iter(|| masks.pool(&executor)));
    group.bench_function("select", |b| b.iter(|| masks.select(&executor)));
    group.bench_function("lists", |b| b.iter(|| masks.expand(&executor)));
    group.bench_function("all", |b| {
        b.iter(|| {
            masks.pool(&executor);
            masks.select(&executor);
            masks.expand(&executor);
        })
    });
    group.finish();
}

fn many_blocks(c: &mut Criterion) {
    let executor = executor();
    let mut group = c.benchmark_group("mask_many_blocks");
    for blocks in [1000, 3660] {
        let mut masks = Masks::<bf16>::new(2, blocks * BLOCK, 128);
        masks.pool(&executor);
        group.throughput(Throughput::Elements((2 * blocks * blocks) as u64));
        group.bench_function(BenchmarkId::new("select", blocks), |b| b.iter(|| masks.select(&executor)));
        group.bench_function(BenchmarkId::new("lists", blocks), |b| b.iter(|| masks.expand(&executor)));
    }
    group.finish();
}

fn reorder(c: &mut Criterion) {
    let executor = executor();
    let (heads, seqlen, dim) = (2, 16 * 32 * 32, 128);
    let x: Vec<bf16> = smooth(heads, seqlen, dim, 0.0);
    let mut out = x.clone();
    // 8x8 patches of frames of 32x32 tokens.
    let source: Vec<u32> = (0..seqlen as u32)
        .map(|i| (i / 1024 * 32 + i / 256 % 4 * 8 + i / 8 % 8) * 32 + i / 64 % 4 * 8 + i % 8)
        .collect();
    let mut group = c.benchmark_group("reorder_h2_s16384_d128_bf16");
    group.throughput(Throughput::Bytes(2 * size_of_val(&x[..]) as u64));
    group.bench_function("gather_tokens", |b| {
        b.iter(|| gather_tokens(&executor, &x, dim, source.len(), &source, &mut out).expect("sizes fit"))
    });
    group.bench_function("memcpy_one_thread", |b| b.iter(|| out.copy_from_slice(black_box(&x))));
    group.finish();
}

fn benches(c: &mut Criterion) {
    building::<f32>(c, "f32");
    building::<bf16>(c, "bf16");
    many_blocks(c);
    reorder(c);
}

criterion_group! {
    name = mask;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(mask);
