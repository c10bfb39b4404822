//! Runs our kernels for `bench/peers/peers.py`: one JSON request a line on stdin, one JSON answer a line on stdout.
//!
//! Inputs stay loaded between requests and only the kernel is timed, so that a comparison does not measure the
//! start of a process or the reading of a file. Tensors are raw little-endian numbers, in block order.

use std::{
    fs,
    io::{BufRead, Write, stdin, stdout},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use nabla_kernels_cpu::{
    AttentionArgs, BlockLists, Element, Executor, Isa, Pattern, Shape, Tile, attention_forward,
    mask::{SelectArgs, expand_lists, pool_blocks, select_blocks},
};
use serde::{Deserialize, Serialize};

/// What the other side may ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// Reads q, k and v, one after the other in one file, each `[batch_heads, seqlen, head_dim]`.
    Load { path: PathBuf, dtype: String, batch_heads: usize, seqlen: usize, head_dim: usize },
    /// Builds the mask that keeps the share `mass`, from pooling to lists.
    Mask { mass: f32, block: usize },
    /// Runs attention over everything.
    Dense { block_m: usize, block_n: usize },
    /// Runs attention over the blocks of the last mask.
    Sparse { block_m: usize, block_n: usize },
    /// Writes the last attention output: f32 `[batch_heads, seqlen, head_dim]`.
    WriteOutput { path: PathBuf },
    /// Writes the last mask: i32 `kv_num_blocks`, then i32 `kv_indices` of `max_blocks` entries a row.
    WriteMask { path: PathBuf },
}

/// What it gets.
#[derive(Debug, Default, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Time of the kernels alone.
    time_us: f64,
    isa: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    density: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_blocks: Option<usize>,
}

/// The operations on loaded tensors of one element type.
trait Session {
    fn mask(&mut self, executor: &Executor, mass: f32, block: usize) -> Result<Answer>;
    fn attention(&mut self, executor: &Executor, tile: Tile, sparse: bool) -> Result<Answer>;
    fn output(&self) -> &[f32];
    fn lists(&self) -> Result<&Lists>;
}

#[derive(Default)]
struct Lists {
    starts: Vec<u32>,
    bitmap: Vec<u64>,
    kv_num_blocks: Vec<i32>,
    kv_indices: Vec<i32>,
    max_blocks: usize,
}

struct Tensors<T> {
    shape: Shape,
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    pooled_q: Vec<f32>,
    pooled_k: Vec<f32>,
    lists: Option<Lists>,
    out: Vec<f32>,
    lse: Vec<f32>,
}

impl<T: Element> Tensors<T> {
    fn load(path: &Path, shape: Shape) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let len = shape.batch_heads * shape.seqlen_q * shape.head_dim;
        let size = len * size_of::<T>();
        ensure!(
            len > 0 && bytes.len() == 3 * size,
            "{}: expected {} bytes, got {}",
            path.display(),
            3 * size,
            bytes.len()
        );
        let tensor = |i: usize| {
            let mut values = vec![T::from_f32(0.0); len];
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes[i * size..(i + 1) * size]);
            values
        };
        Ok(Self {
            shape,
            q: tensor(0),
            k: tensor(1),
            v: tensor(2),
            pooled_q: Vec::new(),
            pooled_k: Vec::new(),
            lists: None,
            out: vec![0.0; len],
            lse: vec![0.0; shape.batch_heads * shape.seqlen_q],
        })
    }

    fn softmax_scale(&self) -> f32 {
        (self.shape.head_dim as f32).sqrt().recip()
    }
}

impl<T: Element> Session for Tensors<T> {
    fn mask(&mut self, executor: &Executor, mass: f32, block: usize) -> Result<Answer> {
        let Shape { batch_heads, seqlen_q: seqlen, head_dim, .. } = self.shape;
        ensure!(block > 0, "a block has at least one token");
        let starts: Vec<u32> = (0..seqlen).step_by(block).chain([seqlen]).map(|token| token as u32).collect();
        let blocks = starts.len() - 1;
        // Room is kept between calls, as a model that builds a mask every step would.
        let mut lists = self.lists.take().unwrap_or_default();
        self.pooled_q.resize(batch_heads * blocks * head_dim, 0.0);
        self.pooled_k.resize(batch_heads * blocks * head_dim, 0.0);
        lists.bitmap.resize(batch_heads * blocks * blocks.div_ceil(64), 0);
        lists.kv_num_blocks.resize(batch_heads * blocks, 0);

        let start = Instant::now();
        pool_blocks(executor, &self.q, head_dim, &starts, &mut self.pooled_q)?;
        pool_blocks(executor, &self.k, head_dim, &starts, &mut self.pooled_k)?;
        let args = SelectArgs {
            batch_heads,
            head_dim,
            pooled_q: &self.pooled_q,
            pooled_k: &self.pooled_k,
            softmax_scale: self.softmax_scale(),
            mass: Some(mass),
            always: None,
            allowed: None,
        };
        select_blocks(executor, &args, &mut lists.bitmap, &mut lists.kv_num_blocks)?;
        lists.max_blocks = lists.kv_num_blocks.iter().copied().max().unwrap_or(0).max(1) as usize;
        lists.kv_indices.resize(batch_heads * blocks * lists.max_blocks, 0);
        expand_lists(executor, &lists.bitmap, blocks.div_ceil(64), lists.max_blocks, &mut lists.kv_indices)?;
        let time_us = start.elapsed().as_secs_f64() * 1e6;

        let kept: f64 = lists.kv_num_blocks.iter().map(|&count| f64::from(count)).sum();
        let density = Some(kept / (batch_heads * blocks * blocks) as f64);
        let max_blocks = Some(lists.max_blocks);
        lists.starts = starts;
        self.lists = Some(lists);
        Ok(Answer { time_us, density, max_blocks, ..Answer::default() })
    }

    fn attention(&mut self, executor: &Executor, tile: Tile, sparse: bool) -> Result<Answer> {
        let pattern = match (&self.lists, sparse) {
            (_, false) => Pattern::Dense,
            (None, true) => bail!("there is no mask yet: ask for one first"),
            (Some(lists), true) => Pattern::Blocks(BlockLists {
                q_starts: &lists.starts,
                kv_starts: &lists.starts,
                kv_num_blocks: &lists.kv_num_blocks,
                kv_indices: &lists.kv_indices,
                max_blocks: lists.max_blocks,
            }),
        };
        let softmax_scale = self.softmax_scale();
        let (q, k, v) = (&self.q[..], &self.k[..], &self.v[..]);
        let args = AttentionArgs { shape: self.shape, q, k, v, softmax_scale, pattern, tile };
        let start = Instant::now();
        attention_forward(executor, &args, &mut self.out, &mut self.lse)?;
        Ok(Answer { time_us: start.elapsed().as_secs_f64() * 1e6, ..Answer::default() })
    }

    fn output(&self) -> &[f32] {
        &self.out
    }

    fn lists(&self) -> Result<&Lists> {
        self.lists.as_ref().context("there is no mask yet: ask for one first")
    }
}

fn load(path: &Path, dtype: &str, shape: Shape) -> Result<Box<dyn Session>> {
    Ok(match dtype {
        "f32" => Box::new(Tensors::<f32>::load(path, shape)?),
        "f16" => Box::new(Tensors::<f16>::load(path, shape)?),
        "bf16" => Box::new(Tensors::<bf16>::load(path, shape)?),
        other => bail!("dtype '{other}': f32, f16 and bf16 are supported"),
    })
}

fn answer(executor: &Executor, session: &mut Option<Box<dyn Session>>, line: &str) -> Result<Answer> {
    let request = serde_json::from_str(line).with_context(|| format!("cannot understand {line}"))?;
    if let Request::Load { path, dtype, batch_heads, seqlen, head_dim } = request {
        let shape = Shape { batch_heads, seqlen_q: seqlen, seqlen_k: seqlen, head_dim };
        *session = Some(load(&path, &dtype, shape)?);
        return Ok(Answer::default());
    }
    let session = session.as_mut().context("nothing is loaded yet")?;
    match request {
        Request::Load { .. } => Ok(Answer::default()),
        Request::Mask { mass, block } => session.mask(executor, mass, block),
        Request::Dense { block_m, block_n } => session.attention(executor, Tile { block_m, block_n }, false),
        Request::Sparse { block_m, block_n } => session.attention(executor, Tile { block_m, block_n }, true),
        Request::WriteOutput { path } => {
            fs::write(&path, bytemuck::cast_slice(session.output()))?;
            Ok(Answer::default())
        }
        Request::WriteMask { path } => {
            let lists = session.lists()?;
            fs::write(&path, bytemuck::cast_slice(&[&lists.kv_num_blocks[..], &lists.kv_indices].concat()))?;
            Ok(Answer { max_blocks: Some(lists.max_blocks), ..Answer::default() })
        }
    }
}

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).context("usage: peer_server THREADS")?;
    let threads = threads.parse().with_context(|| format!("'{threads}' is not a number of threads"))?;
    let executor = Executor::new(threads, Isa::detect(), true)?;
    let mut session = None;
    for line in stdin().lock().lines() {
        let result = answer(&executor, &mut session, &line?);
        let mut answer =
            result.unwrap_or_else(|e| Answer { error: Some(format!("{e:#}")), ..Answer::default() });
        answer.isa = executor.isa().name();
        writeln!(stdout(), "{}", serde_json::to_string(&answer)?)?;
        stdout().flush()?;
    }
    Ok(())
}
