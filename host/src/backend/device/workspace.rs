//! One problem's tensors on the device, and the kernels run on them.

use std::{rc::Rc, sync::Arc};

use half::{bf16, f16};
use nabla_kernels_gpu::{
    config::Work,
    instances::{Instance, Kernel, Sizes},
};

use super::{
    Device, DeviceBackend, MAP_BYTES, MappedTensor,
    arguments::Arguments,
    buffer::Buffer,
    choice::{device_dtype, select_instance},
    error::DeviceError,
    kernels::LoadedKernel,
    order::longest_first,
};
use crate::{
    BlockMask, Dtype, Policy, Problem,
    backend::{
        AttentionOutput, BackendError, LaunchCounts, Orders, Pattern, Reordered, Selected, SelectionRule,
        Workspace,
    },
    tensor::{Qkv, Tensor},
    token_order::TokenOrder,
    variant::Variant,
};

const REORDER: &str = "token reorder";
const MASK: &str = "mask building";
/// Stands for "no threshold" in the selection: no cumulative sum of probabilities gets there.
const NO_THRESHOLD: f32 = 2.0;

/// A token order on the device.
#[derive(Debug)]
struct Cut<D: Device> {
    source: Buffer<D>,
    /// Entries of `source` from one head's to the next one's; 0 where all heads have the same.
    source_stride: u32,
    starts: Buffer<D>,
    blocks: u32,
    tokens: u32,
}

impl<D: Device> Cut<D> {
    fn load(device: &Rc<D>, order: &TokenOrder, batch_heads: usize) -> Result<Self, DeviceError> {
        let tables = order.tables();
        let source_stride = match tables.count() {
            1 => 0,
            count if count == batch_heads => tables.tokens(),
            count => {
                return Err(DeviceError::Kernel(format!(
                    "expected an order of tokens for all heads or for each of {batch_heads}, got {count}"
                )));
            }
        };
        Ok(Self {
            source: Buffer::of(device, "token order", bytemuck::cast_slice(tables.all()))?,
            source_stride: size("tokens", source_stride)?,
            starts: Buffer::of(device, "block starts", bytemuck::cast_slice(order.layout().starts()))?,
            blocks: size("blocks", order.layout().blocks())?,
            tokens: size("tokens", order.layout().tokens())?,
        })
    }
}

/// One tensor: as it was given, in block order, and the mean of each block.
#[derive(Debug)]
struct Tokens<D: Device> {
    raster: Buffer<D>,
    ordered: Buffer<D>,
    pooled: Buffer<D>,
}

impl<D: Device> Tokens<D> {
    fn load(
        device: &Rc<D>,
        name: &'static str,
        tensor: &Tensor,
        order: &TokenOrder,
    ) -> Result<Self, DeviceError> {
        let [batch, heads, _, d] = tensor.shape;
        let bytes = tensor.data.bytes();
        Ok(Self {
            raster: Buffer::of(device, name, bytes)?,
            ordered: Buffer::new(device, name, bytes.len())?,
            pooled: Buffer::new(device, "block means", batch * heads * order.layout().blocks() * d * 4)?,
        })
    }
}

/// The lists of a mask on the device.
#[derive(Debug)]
struct Lists<D: Device> {
    /// Kept, so that no other mask can have its address.
    mask: Arc<BlockMask>,
    counts: Buffer<D>,
    indices: Buffer<D>,
    max_blocks: u32,
    /// The order of work for so many consumers.
    order: Option<(u32, Buffer<D>)>,
}

/// What the way back to raster order needs.
#[derive(Debug)]
struct Back<D: Device> {
    inverse: Buffer<D>,
    raster_out: Buffer<D>,
    pooled: Buffer<D>,
}

/// Where the selection writes.
#[derive(Debug)]
struct Selection<D: Device> {
    bitmap: Buffer<D>,
    counts: Buffer<D>,
    indices: Buffer<D>,
}

/// One problem's tensors on a device, in block order.
#[derive(Debug)]
pub(super) struct DeviceWorkspace<'b, D: Device> {
    backend: &'b DeviceBackend<D>,
    problem: Problem,
    /// As it was given, for masks that are decided on the host.
    given: Arc<Qkv>,
    orders: Arc<Orders>,
    batch_heads: u32,
    q_cut: Cut<D>,
    kv_cut: Cut<D>,
    q: Tokens<D>,
    k: Tokens<D>,
    v: Tokens<D>,
    out: Buffer<D>,
    lse: Buffer<D>,
    lists: Option<Lists<D>>,
    selection: Option<Selection<D>>,
    back: Option<Back<D>>,
}

/// Converts a size to the kernels' type.
fn size(what: &str, value: usize) -> Result<u32, DeviceError> {
    u32::try_from(value).map_err(|_| {
        DeviceError::Kernel(format!(
            "expected at most {} {what}, got {value}: use a smaller problem",
            u32::MAX
        ))
    })
}

impl<'b, D: Device> DeviceWorkspace<'b, D> {
    /// Uploads the tensors once and reorders them.
    pub(super) fn load(
        backend: &'b DeviceBackend<D>,
        qkv: &Arc<Qkv>,
        orders: Arc<Orders>,
    ) -> Result<Self, DeviceError> {
        let device = &backend.device;
        let problem = qkv.problem();
        let rows = problem.batch_heads() * problem.seqlen_q;
        let workspace = Self {
            backend,
            problem,
            given: Arc::clone(qkv),
            batch_heads: size("heads", problem.batch_heads())?,
            q_cut: Cut::load(device, &orders.q, problem.batch_heads())?,
            kv_cut: Cut::load(device, &orders.kv, problem.batch_heads())?,
            q: Tokens::load(device, "queries", &qkv.q, &orders.q)?,
            k: Tokens::load(device, "keys", &qkv.k, &orders.kv)?,
            v: Tokens::load(device, "values", &qkv.v, &orders.kv)?,
            out: Buffer::new(device, "out", rows * problem.head_dim * problem.dtype.size_bytes())?,
            lse: Buffer::new(device, "lse", rows * 4)?,
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

    fn inputs(&self) -> [(&Tokens<D>, &Cut<D>); 3] {
        [(&self.q, &self.q_cut), (&self.k, &self.kv_cut), (&self.v, &self.kv_cut)]
    }

    fn check_inputs(&self, kernel: &LoadedKernel<D>) -> Result<(), DeviceError> {
        self.inputs().into_iter().try_for_each(|(tokens, _)| {
            tokens.ordered.check_guards(kernel.id())?;
            tokens.pooled.check_guards(kernel.id())
        })
    }

    fn reorder_kernel(&self) -> Result<Rc<LoadedKernel<D>>, DeviceError> {
        let dtype = device_dtype(self.problem.dtype).map_err(|e| DeviceError::Kernel(e.reason))?;
        let head_dim = size("elements per token", self.problem.head_dim)?;
        self.backend.kernels.get(&Instance::tokens(Kernel::ReorderPool, head_dim, dtype))
    }

    /// Queues the reorder and pooling of one tensor.
    fn reorder(&self, kernel: &LoadedKernel<D>, tokens: &Tokens<D>, cut: &Cut<D>) -> Result<(), DeviceError> {
        self.gather(kernel, [&tokens.raster, &cut.source, &tokens.ordered, &tokens.pooled], cut)
    }

    /// Queues a gather of tokens with the mean of each block of `cut`.
    fn gather(
        &self,
        kernel: &LoadedKernel<D>,
        [x, source, ordered, pooled]: [&Buffer<D>; 4],
        cut: &Cut<D>,
    ) -> Result<(), DeviceError> {
        let arguments = Arguments::default()
            .pointer(x.address())
            .pointer(source.address())
            .pointer(cut.starts.address())
            .pointer(ordered.address())
            .pointer(pooled.address())
            .u32(cut.blocks)
            .u32(cut.tokens)
            .u32(cut.source_stride);
        kernel.launch(&self.sizes(cut, self.orders.q.layout().block())?, &arguments)
    }

    fn sizes(&self, cut: &Cut<D>, block: usize) -> Result<Sizes, DeviceError> {
        Ok(Sizes {
            batch_heads: self.batch_heads,
            seqlen_q: cut.tokens,
            q_blocks: cut.blocks,
            q_block: size("tokens per block", block)?,
        })
    }

    fn back(&mut self) -> Result<(), DeviceError> {
        if self.back.is_none() {
            let device = &self.backend.device;
            let inverse = self.orders.q.inverse();
            self.back = Some(Back {
                inverse: Buffer::of(device, "inverse token order", bytemuck::cast_slice(inverse.all()))?,
                raster_out: Buffer::new(device, "out in raster order", self.out.len())?,
                pooled: Buffer::new(device, "block means of out", self.q.pooled.len())?,
            });
        }
        Ok(())
    }

    fn reorder_us(&mut self) -> Result<f64, DeviceError> {
        self.back()?;
        let kernel = self.reorder_kernel()?;
        let time_us = self.backend.device.time_us(|| {
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
    fn select_kernel(&self) -> Result<Rc<LoadedKernel<D>>, DeviceError> {
        let head_dim = size("elements per token", self.problem.head_dim)?;
        let Some(instance) = select_instance(head_dim, self.kv_cut.blocks) else {
            return Err(DeviceError::Kernel(format!(
                "no selection kernel holds a row of {} key blocks in shared memory: use a larger mask block",
                self.kv_cut.blocks
            )));
        };
        self.backend.kernels.get(&instance)
    }

    fn selection(&mut self) -> Result<(), DeviceError> {
        if self.selection.is_none() {
            let device = &self.backend.device;
            let rows = self.batch_heads as usize * self.q_cut.blocks as usize;
            let kv_blocks = self.kv_cut.blocks as usize;
            self.selection = Some(Selection {
                bitmap: Buffer::new(device, "mask bitmap", rows * kv_blocks.div_ceil(64) * 8)?,
                counts: Buffer::new(device, "block counts", rows * 4)?,
                indices: Buffer::new(device, "block lists", rows * kv_blocks * 4)?,
            });
        }
        Ok(())
    }

    /// Selects blocks on the device, with a given instance or the one that fits best, and fetches bitmap, counts and
    /// lists of `kv_blocks` entries a row.
    pub(super) fn select_with(
        &mut self,
        instance: Option<&Instance>,
        rule: &SelectionRule<'_>,
    ) -> Result<Selected, DeviceError> {
        self.selection()?;
        let upload = |name, bits: Option<&[u64]>| {
            bits.map(|bits| Buffer::of(&self.backend.device, name, bytemuck::cast_slice(bits))).transpose()
        };
        let always = upload("static window", rule.always)?;
        let allowed = upload("allowed blocks", rule.allowed)?;
        let reorder = self.reorder_kernel()?;
        let select = match instance {
            Some(instance) => self.backend.kernels.get(instance)?,
            None => self.select_kernel()?,
        };
        let Some(Selection { bitmap, counts, indices }) = &self.selection else {
            return Err(DeviceError::Kernel("the selection has no memory".to_owned()));
        };
        for buffer in [bitmap, counts, indices] {
            buffer.poison()?;
        }
        let keep_from = rule.mass.map_or(NO_THRESHOLD, |mass| (1.0 - f64::from(mass as f32)) as f32);
        let or_null = |buffer: &Option<Buffer<D>>| buffer.as_ref().map_or(0, Buffer::address);
        let arguments = Arguments::default()
            .pointer(self.q.pooled.address())
            .pointer(self.k.pooled.address())
            .pointer(or_null(&always))
            .pointer(or_null(&allowed))
            .pointer(bitmap.address())
            .pointer(counts.address())
            .pointer(indices.address())
            .u32(self.q_cut.blocks)
            .u32(self.kv_cut.blocks)
            .u32(self.kv_cut.blocks)
            .f32(self.problem.softmax_scale)
            .f32(keep_from);
        let sizes = self.sizes(&self.q_cut, self.orders.q.layout().block())?;
        let time_us = self.backend.device.time_us(|| {
            // A given instance is checked by itself, on the means that loading or the last reorder left.
            if rule.mass.is_some() && instance.is_none() {
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
        Ok(Selected {
            bitmap: bitmap.read(bitmap.len() / 8)?,
            counts: counts.read(counts.len() / 4)?,
            indices: indices.read(indices.len() / 4)?,
            time_us,
        })
    }

    /// Reorders and pools queries and keys with a given instance and fetches the result.
    pub(super) fn reordered(&mut self, instance: &Instance) -> Result<Reordered, DeviceError> {
        let kernel = self.backend.kernels.get(instance)?;
        for (tokens, cut) in [(&self.q, &self.q_cut), (&self.k, &self.kv_cut)] {
            tokens.ordered.poison()?;
            tokens.pooled.poison()?;
            self.reorder(&kernel, tokens, cut)?;
        }
        self.check_inputs(&kernel)?;
        let bytes = |tokens: &Tokens<D>| tokens.ordered.read::<u8>(tokens.ordered.len());
        let means = |tokens: &Tokens<D>| tokens.pooled.read::<f32>(tokens.pooled.len() / 4);
        Ok(Reordered {
            q: bytes(&self.q)?,
            pooled_q: means(&self.q)?,
            k: bytes(&self.k)?,
            pooled_k: means(&self.k)?,
        })
    }

    pub(super) fn counts(&self) -> Vec<LaunchCounts> {
        self.backend.device.take_counts()
    }

    /// Puts the lists of a mask on the device unless they are there.
    fn upload(&mut self, mask: &Arc<BlockMask>) -> Result<(), DeviceError> {
        if self.lists.as_ref().is_some_and(|lists| Arc::ptr_eq(&lists.mask, mask)) {
            return Ok(());
        }
        let expected = [self.batch_heads as usize, self.q_cut.blocks as usize, self.kv_cut.blocks as usize];
        let got = [mask.batch_heads(), mask.q_layout().blocks(), mask.kv_layout().blocks()];
        if expected != got {
            return Err(DeviceError::Kernel(format!(
                "expected a mask of {expected:?} heads, query blocks and key blocks, got {got:?}"
            )));
        }
        // The old lists go first: both together may not fit.
        self.lists = None;
        let device = &self.backend.device;
        self.lists = Some(Lists {
            counts: Buffer::of(device, "block counts", bytemuck::cast_slice(mask.kv_num_blocks()))?,
            indices: Buffer::of(device, "block lists", bytemuck::cast_slice(mask.kv_indices()))?,
            max_blocks: size("blocks per list", mask.max_blocks())?,
            order: None,
            mask: Arc::clone(mask),
        });
        Ok(())
    }

    fn attention_us(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, DeviceError> {
        let block = pattern.mask().map(|_| self.orders.mask_block());
        let instance = self
            .backend
            .instance(&self.problem, block, variant)
            .map_err(|ineligible| DeviceError::Kernel(ineligible.reason))?;
        self.launch_attention(&instance, pattern)
    }

    pub(super) fn launch_attention(
        &mut self,
        instance: &Instance,
        pattern: &Pattern,
    ) -> Result<f64, DeviceError> {
        let kernel = self.backend.kernels.get(instance)?;
        let maps = self.tensor_maps(instance)?;
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
        let arguments = match &maps {
            None => arguments,
            Some(maps) => {
                let [groups, heads, _] = instance.grid(&sizes);
                (0..3)
                    .fold(arguments, |arguments, tensor| {
                        arguments.pointer(maps.address() + (tensor * MAP_BYTES) as u64)
                    })
                    .pointer(self.work_order(instance, &sizes)?)
                    .u32(groups)
                    .u32(heads)
            }
        };
        let time_us = self.backend.device.time_us(|| kernel.launch(&sizes, &arguments))?;
        self.out.check_guards(kernel.id())?;
        self.lse.check_guards(kernel.id())?;
        Ok(time_us)
    }

    /// Returns the address of the order in which an instance takes its work, put on the device at the first call for a mask;
    /// 0 if it takes none.
    fn work_order(&mut self, instance: &Instance, sizes: &Sizes) -> Result<u64, DeviceError> {
        let (Work::Listed, Some(lists)) = (instance.constants.work, &mut self.lists) else { return Ok(0) };
        // A cluster takes its work together.
        let shared_by = instance.constants.lists();
        if lists.order.as_ref().is_none_or(|(known, _)| *known != shared_by) {
            let groups = (instance.grid(sizes)[0] / instance.constants.cluster) as usize;
            let tiles = sizes.q_block.div_ceil(instance.query_rows()) as usize;
            let order = longest_first(&lists.mask, [groups, tiles, shared_by as usize]);
            let buffer = Buffer::of(&self.backend.device, "order of work", bytemuck::cast_slice(&order))?;
            lists.order = Some((shared_by, buffer));
        }
        Ok(lists.order.as_ref().map_or(0, |(_, buffer)| buffer.address()))
    }

    /// Puts the maps of queries, keys and values on the device, for kernels that read them so.
    fn tensor_maps(&self, instance: &Instance) -> Result<Option<Buffer<D>>, DeviceError> {
        let Some(maps) = instance.tensor_maps() else { return Ok(None) };
        let mut bytes = Vec::with_capacity(3 * MAP_BYTES);
        let tensors = [(&self.q, &self.q_cut), (&self.k, &self.kv_cut), (&self.v, &self.kv_cut)];
        for ((tokens, cut), map) in tensors.into_iter().zip(maps) {
            let elements = [self.problem.head_dim as u64, u64::from(cut.tokens), u64::from(self.batch_heads)];
            let tensor = MappedTensor {
                address: tokens.ordered.address(),
                elements,
                dtype: instance.constants.dtype,
                map,
            };
            bytes.extend(self.backend.device.tensor_map(&tensor)?);
        }
        Buffer::of(&self.backend.device, "tensor maps", &bytes).map(Some)
    }

    fn fetch(&self) -> Result<AttentionOutput, DeviceError> {
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

impl<D: Device> Workspace for DeviceWorkspace<'_, D> {
    fn orders(&self) -> &Arc<Orders> {
        &self.orders
    }

    fn time_reorder(&mut self) -> Result<f64, BackendError> {
        self.reorder_us().map_err(|error| error.during(D::BACKEND, REORDER))
    }

    fn build_mask(&mut self, policy: &Policy) -> Result<(Arc<BlockMask>, f64), BackendError> {
        if !policy.is_for_kernels() {
            return Ok(policy.build_timed(&self.given, &self.orders)?);
        }
        let orders = Arc::clone(&self.orders);
        let (q_layout, kv_layout) = (orders.q.layout(), orders.kv.layout());
        let (heads, kv_blocks) = (self.problem.batch_heads(), kv_layout.blocks());
        // A static window is known before the tensors are: not part of the time.
        let always = policy.static_bitmap(&orders)?;
        let rule = SelectionRule { mass: policy.mass(), always: always.as_deref(), allowed: None };
        let Selected { counts, indices, time_us, .. } =
            self.select_with(None, &rule).map_err(|error| error.during(D::BACKEND, MASK))?;
        let longest = counts.iter().copied().max().unwrap_or(0).clamp(1, kv_blocks as i32) as usize;
        let lists = trim(&counts, &indices, kv_blocks, longest);
        let mask = BlockMask::new(heads, q_layout.clone(), kv_layout.clone(), counts, lists, longest)
            .map_err(|e| BackendError::Launch { what: MASK.to_owned(), reason: e.to_string() })?;
        Ok((Arc::new(mask), time_us))
    }

    fn attention(&mut self, variant: &Variant, pattern: &Pattern) -> Result<f64, BackendError> {
        self.attention_us(variant, pattern).map_err(|error| error.during(D::BACKEND, &variant.id.0))
    }

    fn poison(&mut self) -> Result<(), BackendError> {
        self.out
            .poison()
            .and_then(|()| self.lse.poison())
            .map_err(|error| error.during(D::BACKEND, "poisoning the output"))
    }

    fn output(&mut self) -> Result<AttentionOutput, BackendError> {
        self.fetch().map_err(|error| error.during(D::BACKEND, "fetching the output"))
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
