//! One problem's tensors on the device, and the kernels run on them.

use std::{rc::Rc, sync::Arc};

use half::{bf16, f16};
use nabla_kernels_gpu::instances::{Instance, Kernel, Sizes};

use super::{
    CudaBackend, attention_instance, device_dtype, driver::Context, error::CudaError, kernels::LoadedKernel,
    launch::Arguments, memory::Buffer,
};
use crate::{
    BlockMask, Dtype, Policy, Problem,
    backend::{AttentionOutput, BackendError, Orders, Pattern, Workspace},
    tensor::{Qkv, Tensor},
    token_order::TokenOrder,
    variant::Variant,
};

const REORDER: &str = "token reorder";
const MASK: &str = "mask building";
/// Stands for "no threshold" in the selection: no cumulative sum of probabilities gets there.
const NO_THRESHOLD: f32 = 2.0;
/// Rows of the pooled map that the selection gives a block of threads, most first: fewer leave each more room.
const SELECT_ROWS: [u32; 4] = [8, 4, 2, 1];

/// A token order on the device.
#[derive(Debug)]
struct Cut {
    source: Buffer,
    starts: Buffer,
    blocks: u32,
    tokens: u32,
}

impl Cut {
    fn load(context: &Rc<Context>, order: &TokenOrder) -> Result<Self, CudaError> {
        Ok(Self {
            source: Buffer::of(context, "token order", bytemuck::cast_slice(order.source()))?,
            starts: Buffer::of(context, "block starts", bytemuck::cast_slice(order.layout().starts()))?,
            blocks: size("blocks", order.layout().blocks())?,
            tokens: size("tokens", order.layout().tokens())?,
        })
    }
}

/// One tensor: as it was given, in block order, and the mean of each block.
#[derive(Debug)]
struct Tokens {
    raster: Buffer,
    ordered: Buffer,
    pooled: Buffer,
}

impl Tokens {
    fn load(
        context: &Rc<Context>,
        name: &'static str,
        tensor: &Tensor,
        order: &TokenOrder,
    ) -> Result<Self, CudaError> {
        let [batch, heads, _, d] = tensor.shape;
        let bytes = tensor.data.bytes();
        Ok(Self {
            raster: Buffer::of(context, name, bytes)?,
            ordered: Buffer::new(context, name, bytes.len())?,
            pooled: Buffer::new(context, "block means", batch * heads * order.layout().blocks() * d * 4)?,
        })
    }
}

/// The lists of a mask on the device.
#[derive(Debug)]
struct Lists {
    /// Kept, so that no other mask can have its address.
    mask: Arc<BlockMask>,
    counts: Buffer,
    indices: Buffer,
    max_blocks: u32,
}

/// What the way back to raster order needs.
#[derive(Debug)]
struct Back {
    inverse: Buffer,
    raster_out: Buffer,
    pooled: Buffer,
}

/// Where the selection writes.
#[derive(Debug)]
struct Selection {
    bitmap: Buffer,
    counts: Buffer,
    indices: Buffer,
}

/// One problem's tensors on a device, in block order.
#[derive(Debug)]
pub(super) struct CudaWorkspace<'b> {
    backend: &'b CudaBackend,
    problem: Problem,
    orders: Arc<Orders>,
    batch_heads: u32,
    q_cut: Cut,
    kv_cut: Cut,
    q: Tokens,
    k: Tokens,
    v: Tokens,
    out: Buffer,
    lse: Buffer,
    lists: Option<Lists>,
    selection: Option<Selection>,
    back: Option<Back>,
}

/// Converts a size to the kernels' type.
fn size(what: &str, value: usize) -> Result<u32, CudaError> {
    u32::try_from(value).map_err(|_| {
        CudaError::Kernel(format!("expected at most {} {what}, got {value}: use a smaller problem", u32::MAX))
    })
}

impl<'b> CudaWorkspace<'b> {
    /// Uploads the tensors once and reorders them.
    pub(super) fn load(backend: &'b CudaBackend, qkv: &Qkv, orders: Arc<Orders>) -> Result<Self, CudaError> {
        let context = &backend.context;
        let problem = qkv.problem();
        let rows = problem.batch_heads() * problem.seqlen_q;
        let workspace = Self {
            backend,
            problem,
            batch_heads: size("heads", problem.batch_heads())?,
            q_cut: Cut::load(context, &orders.q)?,
            kv_cut: Cut::load(context, &orders.kv)?,
            q: Tokens::load(context, "queries", &qkv.q, &orders.q)?,
            k: Tokens::load(context, "keys", &qkv.k, &orders.kv)?,
            v: Tokens::load(context, "values", &qkv.v, &orders.kv)?,
            out: Buffer::new(context, "out", rows * problem.head_dim * problem.dtype.size_bytes())?,
            lse: Buffer::new(context, "lse", rows * 4)?,
            lists: None,
            selection: None,
            back: None,
            orders,
        };
        let kernel = workspace.reorder_kernel()?;
        for (tokens, cut) in workspace.inputs() {
            workspace.reorder(&kernel, tokens, cut)?;
        }
        workspace.check_inputs(&kernel)?;
        Ok(workspace)
    }

    fn inputs(&self) -> [(&Tokens, &Cut); 3] {
        [(&self.q, &self.q_cut), (&self.k, &self.kv_cut), (&self.v, &self.kv_cut)]
    }

    fn check_inputs(&self, kernel: &LoadedKernel) -> Result<(), CudaError> {
        self.inputs().into_iter().try_for_each(|(tokens, _)| {
            tokens.ordered.check_guards(kernel.id())?;
            tokens.pooled.check_guards(kernel.id())
        })
    }

    fn reorder_kernel(&self) -> Result<Rc<LoadedKernel>, CudaError> {
        let dtype = device_dtype(self.problem.dtype).map_err(|e| CudaError::Kernel(e.reason))?;
        let head_dim = size("elements per token", self.problem.head_dim)?;
        self.backend.kernels.get(&Instance::tokens(Kernel::ReorderPool, head_dim, dtype))
    }

    /// Queues the reorder and pooling of one tensor.
    fn reorder(&self, kernel: &LoadedKernel, tokens: &Tokens, cut: &Cut) -> Result<(), CudaError> {
        self.gather(kernel, [&tokens.raster, &cut.source, &tokens.ordered, &tokens.pooled], cut)
    }

    /// Queues a gather of tokens with the mean of each block of `cut`.
    fn gather(
        &self,
        kernel: &LoadedKernel,
        [x, source, ordered, pooled]: [&Buffer; 4],
        cut: &Cut,
    ) -> Result<(), CudaError> {
        let arguments = Arguments::default()
            .pointer(x.address())
            .pointer(source.address())
            .pointer(cut.starts.address())
            .pointer(ordered.address())
            .pointer(pooled.address())
            .u32(cut.blocks)
            .u32(cut.tokens);
        kernel.launch(&self.sizes(cut, self.orders.q.layout().block())?, &arguments)
    }

    fn sizes(&self, cut: &Cut, block: usize) -> Result<Sizes, CudaError> {
        Ok(Sizes {
            batch_heads: self.batch_heads,
            seqlen_q: cut.tokens,
            q_blocks: cut.blocks,
            q_block: size("tokens per block", block)?,
        })
    }

    fn back(&mut self) -> Result<(), CudaError> {
        if self.back.is_none() {
            let context = &self.backend.context;
            let inverse = self.orders.q.inverse();
            self.back = Some(Back {
                inverse: Buffer::of(context, "inverse token order", bytemuck::cast_slice(&inverse))?,
                raster_out: Buffer::new(context, "out in raster order", self.out.len())?,
                pooled: Buffer::new(context, "block means of out", self.q.pooled.len())?,
            });
        }
        Ok(())
    }

    fn reorder_us(&mut self) -> Result<f64, CudaError> {
        self.back()?;
        let kernel = self.reorder_kernel()?;
        let time_us = self.backend.timer.time_us(|| {
            for (tokens, cut) in self.inputs() {
                self.reorder(&kernel, tokens, cut)?;
            }
            match &self.back {
                // The way back is a gather too; its means over runs of raster tokens are by-products nobody reads.
                Some(Back { inverse, raster_out, pooled }) => {
                    self.gather(&kernel, [&self.out, inverse, raster_out, pooled], &self.q_cut)
                }
                None => Ok(()),
            }
        })?;
        self.check_inputs(&kernel)?;
        if let Some(back) = &self.back {
            back.raster_out.check_guards(kernel.id())?;
            back.pooled.check_guards(kernel.id())?;
        }
        Ok(time_us)
    }

    /// Finds the selection kernel with room for a row of the pooled map.
    fn select_kernel(&self) -> Result<Rc<LoadedKernel>, CudaError> {
        let head_dim = size("elements per token", self.problem.head_dim)?;
        let listed = super::INSTANCES
            .iter()
            .filter(|i| {
                i.kernel == Kernel::Select
                    && i.constants.head_dim == head_dim
                    && i.constants.max_kv_blocks >= self.kv_cut.blocks
            })
            .min_by_key(|i| i.constants.max_kv_blocks);
        let made = || {
            let room = self.kv_cut.blocks.checked_next_multiple_of(64)?;
            SELECT_ROWS
                .into_iter()
                .map(|rows| Instance::select(rows, room, head_dim))
                .find(|i| i.check().is_ok())
        };
        let Some(instance) = listed.copied().or_else(made) else {
            return Err(CudaError::Kernel(format!(
                "no selection kernel holds a row of {} key blocks in shared memory: use a larger mask block",
                self.kv_cut.blocks
            )));
        };
        self.backend.kernels.get(&instance)
    }

    fn selection(&mut self) -> Result<(), CudaError> {
        if self.selection.is_none() {
            let context = &self.backend.context;
            let rows = self.batch_heads as usize * self.q_cut.blocks as usize;
            let kv_blocks = self.kv_cut.blocks as usize;
            self.selection = Some(Selection {
                bitmap: Buffer::new(context, "mask bitmap", rows * kv_blocks.div_ceil(64) * 8)?,
                counts: Buffer::new(context, "block counts", rows * 4)?,
                indices: Buffer::new(context, "block lists", rows * kv_blocks * 4)?,
            });
        }
        Ok(())
    }

    /// Selects blocks on the device and fetches counts and lists of `kv_blocks` entries a row.
    fn select(
        &mut self,
        mass: Option<f64>,
        always: Option<&[u64]>,
    ) -> Result<(Vec<i32>, Vec<i32>, f64), CudaError> {
        self.selection()?;
        let always = always
            .map(|bits| Buffer::of(&self.backend.context, "static window", bytemuck::cast_slice(bits)))
            .transpose()?;
        let (reorder, select) = (self.reorder_kernel()?, self.select_kernel()?);
        let Some(Selection { bitmap, counts, indices }) = &self.selection else {
            return Err(CudaError::Kernel("the selection has no memory".to_owned()));
        };
        for buffer in [bitmap, counts, indices] {
            buffer.poison()?;
        }
        let keep_from = mass.map_or(NO_THRESHOLD, |mass| (1.0 - f64::from(mass as f32)) as f32);
        let arguments = Arguments::default()
            .pointer(self.q.pooled.address())
            .pointer(self.k.pooled.address())
            .pointer(always.as_ref().map_or(0, Buffer::address))
            .pointer(0)
            .pointer(bitmap.address())
            .pointer(counts.address())
            .pointer(indices.address())
            .u32(self.q_cut.blocks)
            .u32(self.kv_cut.blocks)
            .u32(self.kv_cut.blocks)
            .f32(self.problem.softmax_scale)
            .f32(keep_from);
        let sizes = self.sizes(&self.q_cut, self.orders.q.layout().block())?;
        let time_us = self.backend.timer.time_us(|| {
            if mass.is_some() {
                // Pooling is part of the reorder on this device.
                self.reorder(&reorder, &self.q, &self.q_cut)?;
                self.reorder(&reorder, &self.k, &self.kv_cut)?;
            }
            select.launch(&sizes, &arguments)
        })?;
        self.check_inputs(&reorder)?;
        for buffer in [bitmap, counts, indices] {
            buffer.check_guards(select.id())?;
        }
        Ok((counts.read(counts.len() / 4)?, indices.read(indices.len() / 4)?, time_us))
    }

    /// Puts the lists of a mask on the device unless they are there.
    fn upload(&mut self, mask: &Arc<BlockMask>) -> Result<(), CudaError> {
        if self.lists.as_ref().is_some_and(|lists| Arc::ptr_eq(&lists.mask, mask)) {
            return Ok(());
        }
        let expected = [self.batch_heads as usize, self.q_cut.blocks as usize, self.kv_cut.blocks as usize];
        let got = [mask.batch_heads(), mask.q_layout().blocks(), mask.kv_layout().blocks()];
        if expected != got {
            return Err(CudaError::Kernel(format!(
                "expected a mask of {expected:?} heads, query blocks and key blocks, got {got:?}"
            )));
        }
        // The old lists go first: both together may not fit.
        self.lists = None;
        let context = &self.backend.context;
        self.lists = Some(Lists {
            counts: Buffer::of(context, "block counts", bytemuck::cast_slice(mask.kv_num_blocks()))?,
            indices: Buffer::of(context, "block lists", bytemuck::cast_slice(mask.kv_indices()))?,
            max_blocks: size("blocks per list", mask.max_blocks())?,
            mask: Arc::clone(mask),
        });
        Ok(())
    }

    fn attention_us(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, CudaError> {
        let block = pattern.mask().map(|_| self.orders.mask_block());
        let instance = attention_instance(&self.problem, block, variant.tile)
            .map_err(|ineligible| CudaError::Kernel(ineligible.reason))?;
        let kernel = self.backend.kernels.get(&instance)?;
        let (counts, indices, max_blocks) = match pattern {
            Pattern::Dense => (0, 0, 0),
            Pattern::Mask(mask) => {
                self.upload(mask)?;
                match &self.lists {
                    Some(lists) => (lists.counts.address(), lists.indices.address(), lists.max_blocks),
                    None => (0, 0, 0),
                }
            }
        };
        let arguments = Arguments::default()
            .pointer(self.q.ordered.address())
            .pointer(self.k.ordered.address())
            .pointer(self.v.ordered.address())
            .pointer(self.out.address())
            .pointer(self.lse.address())
            .pointer(self.q_cut.starts.address())
            .pointer(self.kv_cut.starts.address())
            .pointer(counts)
            .pointer(indices)
            .u32(self.q_cut.blocks)
            .u32(self.kv_cut.blocks)
            .u32(max_blocks)
            .u32(self.q_cut.tokens)
            .u32(self.kv_cut.tokens)
            .f32(self.problem.softmax_scale);
        let sizes = self.sizes(&self.q_cut, self.orders.q.layout().block())?;
        let time_us = self.backend.timer.time_us(|| kernel.launch(&sizes, &arguments))?;
        self.out.check_guards(kernel.id())?;
        self.lse.check_guards(kernel.id())?;
        Ok(time_us)
    }

    fn fetch(&self) -> Result<AttentionOutput, CudaError> {
        let lse = self.lse.read(self.lse.len() / 4)?;
        let out = match self.problem.dtype {
            Dtype::Bf16 => self.out.read::<bf16>(self.out.len() / 2)?.into_iter().map(bf16::to_f32).collect(),
            Dtype::F16 => self.out.read::<f16>(self.out.len() / 2)?.into_iter().map(f16::to_f32).collect(),
            Dtype::F32 => self.out.read(self.out.len() / 4)?,
        };
        Ok(AttentionOutput { out, lse })
    }
}

/// Keeps the first `max_blocks` entries of rows of `width`, what is past a row's count being 0.
fn trim(counts: &[i32], indices: &[i32], width: usize, max_blocks: usize) -> Vec<i32> {
    let mut lists = vec![0; counts.len() * max_blocks];
    for ((to, from), &count) in
        lists.chunks_exact_mut(max_blocks).zip(indices.chunks_exact(width)).zip(counts)
    {
        let count = (count.max(0) as usize).min(max_blocks).min(width);
        to[..count].copy_from_slice(&from[..count]);
    }
    lists
}

impl Workspace for CudaWorkspace<'_> {
    fn orders(&self) -> &Arc<Orders> {
        &self.orders
    }

    fn time_reorder(&mut self) -> Result<f64, BackendError> {
        self.reorder_us().map_err(|error| error.during(REORDER))
    }

    fn build_mask(&mut self, policy: &Policy) -> Result<(Arc<BlockMask>, f64), BackendError> {
        let orders = Arc::clone(&self.orders);
        let (q_layout, kv_layout) = (orders.q.layout(), orders.kv.layout());
        let (heads, kv_blocks) = (self.problem.batch_heads(), kv_layout.blocks());
        if *policy == Policy::Dense {
            let mask = BlockMask::from_fn(heads, q_layout.clone(), kv_layout.clone(), |_, _, _| true);
            return Ok((Arc::new(mask), 0.0));
        }
        // A static window is known before the tensors are: not part of the time.
        let always = policy.static_bitmap(q_layout, kv_layout)?;
        let (counts, indices, time_us) =
            self.select(policy.mass(), always.as_deref()).map_err(|error| error.during(MASK))?;
        let longest = counts.iter().copied().max().unwrap_or(0).clamp(1, kv_blocks as i32) as usize;
        let lists = trim(&counts, &indices, kv_blocks, longest);
        let mask = BlockMask::new(heads, q_layout.clone(), kv_layout.clone(), counts, lists, longest)
            .map_err(|e| BackendError::Launch { what: MASK.to_owned(), reason: e.to_string() })?;
        Ok((Arc::new(mask), time_us))
    }

    fn attention(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, BackendError> {
        self.attention_us(variant, pattern).map_err(|error| error.during(&variant.id.0))
    }

    fn poison(&mut self) -> Result<(), BackendError> {
        self.out
            .poison()
            .and_then(|()| self.lse.poison())
            .map_err(|error| error.during("poisoning the output"))
    }

    fn output(&mut self) -> Result<AttentionOutput, BackendError> {
        self.fetch().map_err(|error| error.during("fetching the output"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_trimmed_to_the_longest_row() {
        let indices = [1, 2, -1, -1, 0, -1, -1, -1, -1, -1, -1, -1];
        assert_eq!(trim(&[2, 1, 0], &indices, 4, 2), [1, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn a_count_no_row_can_have_is_left_to_the_check_of_the_mask() {
        assert_eq!(trim(&[-1, 9], &[7, 7, 0, 1], 2, 2), [0, 0, 0, 1]);
    }
}
