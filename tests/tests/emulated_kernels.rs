//! Every listed kernel instance, executed: the shipped PTX on the emulator, held against float64.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::Arc;

use half::{bf16, f16};
use nabla_emulator::{
    Completion, DevicePtr, LaunchConfig, Memory, Module, Options, OutOfBounds, Param, Swizzle, TensorElement,
    TensorMap, launch_with,
};
use nabla_host::{
    BlockMask, Dtype, Grid, Policy,
    backend::{AttentionOutput, Backend, Isa, Orders},
    codegen::{
        DEFAULT_ARCHS, KernelStore,
        instances::{INSTANCES, Instance, Kernel, Sizes},
        variant_id,
    },
    reference::{Arithmetic, OrderedMask, RowSample, attention},
    tensor::{Qkv, TensorData},
    variant::{MaskBlock, Rounding},
    verify::{Oracle, verify},
};
use nabla_tests::{cpu, generated};

/// A device: memory, and kernels run on it.
struct Device {
    memory: Memory,
    store: KernelStore,
    options: Options,
}

impl Device {
    fn new() -> Self {
        let store = KernelStore::open(None).unwrap_or_else(|e| panic!("{e}"));
        Self { memory: Memory::new(), store, options: Options::default() }
    }

    fn upload(&mut self, bytes: &[u8]) -> DevicePtr {
        self.memory.alloc_from(bytes)
    }

    fn words(&mut self, words: &[u32]) -> DevicePtr {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.upload(&bytes)
    }

    fn run(&mut self, instance: &Instance, sizes: &Sizes, params: &[Param]) {
        let id = variant_id(instance);
        let arch = DEFAULT_ARCHS.into_iter().find(|arch| instance.kernel.arch().builds_for(arch).is_ok());
        let built = self.store.get(instance, arch.unwrap()).unwrap_or_else(|e| panic!("{id}: {e}\n{e:?}"));
        let module = Module::parse(&id, &built.ptx).unwrap_or_else(|e| panic!("{id}: {e}\n{e:?}"));
        let config = LaunchConfig {
            grid: instance.grid(sizes),
            block: [instance.threads(), 1, 1],
            dynamic_shared_bytes: instance.shared_bytes(),
            ..LaunchConfig::default()
        };
        launch_with(&module, instance.entry(), config, params, &mut self.memory, &self.options)
            .unwrap_or_else(|e| panic!("{id}: {e}\n{e:?}"));
    }

    /// Reads a buffer that a kernel must have written in full.
    fn fetch(&self, from: DevicePtr, bytes: usize, what: &str) -> Vec<u8> {
        assert_eq!(self.memory.unwritten(from, bytes as u64).unwrap(), 0, "{what}: bytes were never written");
        self.memory.read(from, bytes as u64).unwrap()
    }
}

fn in_block_order(qkv: &Qkv, data: &TensorData, source: &[u32]) -> Vec<u8> {
    let row = qkv.problem().head_dim * 2;
    let mut ordered = Vec::with_capacity(data.bytes().len());
    for head in data.bytes().chunks_exact(source.len() * row) {
        for &token in source {
            ordered.extend_from_slice(&head[token as usize * row..][..row]);
        }
    }
    ordered
}

fn widen(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let bits = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        Dtype::Bf16 => bits.map(|b| bf16::from_bits(b).to_f32()).collect(),
        _ => bits.map(|b| f16::from_bits(b).to_f32()).collect(),
    }
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn dtype_of(instance: &Instance) -> Dtype {
    instance.constants.dtype.name().parse().unwrap()
}

/// Runs an attention instance on a mask (`None`: dense) and holds it against float64.
fn check_attention(instance: &Instance, qkv: &Qkv, orders: &Orders, mask: Option<&BlockMask>) {
    check_attention_on(Device::new(), instance, qkv, qkv.problem().softmax_scale, orders, mask);
}

fn check_attention_on(
    mut device: Device,
    instance: &Instance,
    qkv: &Qkv,
    softmax_scale: f32,
    orders: &Orders,
    mask: Option<&BlockMask>,
) {
    let problem = qkv.problem();
    let q = in_block_order(qkv, &qkv.q.data, orders.q.source());
    let k = in_block_order(qkv, &qkv.k.data, orders.kv.source());
    let v = in_block_order(qkv, &qkv.v.data, orders.kv.source());
    let rows = problem.batch_heads() * problem.seqlen_q;
    let [q, k, v] = [q, k, v].map(|bytes| device.upload(&bytes));
    let out = device.memory.alloc((rows * problem.head_dim * 2) as u64);
    let lse = device.memory.alloc((rows * 4) as u64);
    let (q_layout, kv_layout) = (orders.q.layout(), orders.kv.layout());
    let starts = [device.words(q_layout.starts()), device.words(kv_layout.starts())];
    let as_words = |values: &[i32]| values.iter().map(|&x| x as u32).collect::<Vec<u32>>();
    let lists =
        mask.map_or([Vec::new(), Vec::new()], |m| [as_words(m.kv_num_blocks()), as_words(m.kv_indices())]);
    let lists = lists.map(|words| device.words(&words));
    let mut params = vec![
        Param::Ptr(q),
        Param::Ptr(k),
        Param::Ptr(v),
        Param::Ptr(out),
        Param::Ptr(lse),
        Param::Ptr(starts[0]),
        Param::Ptr(starts[1]),
        Param::Ptr(lists[0]),
        Param::Ptr(lists[1]),
        Param::U32(q_layout.blocks() as u32),
        Param::U32(kv_layout.blocks() as u32),
        Param::U32(mask.map_or(0, BlockMask::max_blocks) as u32),
        Param::U32(problem.seqlen_q as u32),
        Param::U32(problem.seqlen_k as u32),
        Param::F32(softmax_scale),
    ];
    if let Some(maps) = instance.tensor_maps() {
        let tensors = [(q, problem.seqlen_q), (k, problem.seqlen_k), (v, problem.seqlen_k)];
        for (map, (address, tokens)) in maps.iter().zip(tensors) {
            let (row, tokens) = (problem.head_dim as u64 * 2, tokens as u64);
            let map = TensorMap {
                element: match problem.dtype {
                    Dtype::Bf16 => TensorElement::Bf16,
                    _ => TensorElement::F16,
                },
                address,
                sizes: vec![problem.head_dim as u64, tokens, problem.batch_heads() as u64],
                strides: vec![row, row * tokens],
                box_sizes: map.box_elements.to_vec(),
                element_strides: vec![1; 3],
                swizzle: match map.swizzle.bytes() {
                    128 => Swizzle::B128,
                    _ => Swizzle::B64,
                },
                out_of_bounds: OutOfBounds::Zero,
            };
            params.push(Param::Ptr(device.upload(&map.encode().unwrap())));
        }
    }
    let sizes = Sizes {
        batch_heads: problem.batch_heads() as u32,
        seqlen_q: problem.seqlen_q as u32,
        q_blocks: q_layout.blocks() as u32,
        q_block: q_layout.block() as u32,
    };
    device.run(instance, &sizes, &params);
    let id = variant_id(instance);
    let output = AttentionOutput {
        out: widen(&device.fetch(out, rows * problem.head_dim * 2, &id), problem.dtype),
        lse: f32s(&device.fetch(lse, rows * 4, &id)),
    };
    let ordered = mask.map(|mask| OrderedMask { mask, q_order: &orders.q, kv_order: &orders.kv });
    let sample = Arc::new(RowSample::all(problem.seqlen_q));
    let oracle = Oracle::new(qkv, softmax_scale, ordered, &sample);
    let dense = attention(qkv, softmax_scale, None, &sample, Arithmetic::Float64);
    // The plain kernel keeps its probabilities in float32.
    let probabilities = if instance.kernel == Kernel::AttentionPlain { Dtype::F32 } else { problem.dtype };
    let rounding = Rounding { probabilities, output: problem.dtype };
    let (_, verdict) = verify(&output, &orders.q, &oracle, &dense, rounding);
    assert_eq!(verdict, Ok(()), "{id}");
}

fn mask_for(orders: &Orders, heads: usize, keep: impl Fn(usize, usize, usize) -> bool) -> BlockMask {
    BlockMask::from_fn(heads, Arc::clone(orders.q.layout()), Arc::clone(orders.kv.layout()), keep)
}

fn attention_problem(instance: &Instance, grid: Grid, seed: u64) -> Arc<Qkv> {
    generated(grid, 2, instance.constants.head_dim as usize, dtype_of(instance), seed)
}

fn listed(kernel: Kernel) -> impl Iterator<Item = &'static Instance> {
    INSTANCES.iter().filter(move |i| i.kernel == kernel)
}

/// Mask blocks a sparse instance can run on.
fn mask_blocks(instance: &Instance) -> impl Iterator<Item = usize> {
    let rows = instance.query_rows() as usize;
    [32, 64, 128].into_iter().filter(move |&block| rows <= block)
}

/// Whole, every other, one and no key block in turn, so that neighbours share some, and some have none.
fn mixed_mask(orders: &Orders) -> BlockMask {
    mask_for(orders, 2, |head, i, j| match i % 3 {
        0 => true,
        1 => (i + j + head) % 2 == 0,
        _ => head == 1 && j == i,
    })
}

#[test]
fn sparse_attention_on_ragged_grids_with_empty_and_full_rows() {
    for instance in listed(Kernel::AttentionSparse) {
        for block in mask_blocks(instance) {
            // 8 divides neither 12 nor 19: edge blocks are ragged.
            let qkv = attention_problem(instance, Grid { t: 1, h: 12, w: 19 }, 1);
            let orders = Orders::new(&qkv.problem(), MaskBlock::square(block)).unwrap();
            check_attention(instance, &qkv, &orders, Some(&mixed_mask(&orders)));
        }
    }
}

#[test]
fn sparse_attention_on_hopper_on_ragged_grids_with_empty_and_full_rows() {
    for instance in listed(Kernel::HopperSparse) {
        for block in mask_blocks(instance) {
            // 8 divides neither 20 nor 35: edge blocks are ragged, and there are more tiles than slots.
            let qkv = attention_problem(instance, Grid { t: 1, h: 20, w: 35 }, 6);
            let orders = Orders::new(&qkv.problem(), MaskBlock::square(block)).unwrap();
            check_attention(instance, &qkv, &orders, Some(&mixed_mask(&orders)));
        }
    }
}

#[test]
fn dense_attention_on_hopper_on_lengths_no_tile_divides() {
    for instance in listed(Kernel::HopperDense) {
        let qkv = attention_problem(instance, Grid { t: 1, h: 19, w: 23 }, 7);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        check_attention(instance, &qkv, &orders, None);
    }
}

#[test]
fn hopper_kernels_do_not_depend_on_when_asynchronous_work_completes() {
    let options = [
        Options { completion: Completion::Eager, ..Options::default() },
        Options { seed: 1, ..Options::default() },
        Options { seed: 2, ..Options::default() },
    ];
    // One that loads for itself, and one whose consumers want different tiles.
    for warps in [4, 16] {
        let mut instances = listed(Kernel::HopperSparse).filter(|i| i.constants.warps == warps);
        let instance = instances.next().unwrap();
        let qkv = attention_problem(instance, Grid { t: 1, h: 20, w: 35 }, 8);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        for options in options {
            let device = Device { options, ..Device::new() };
            let scale = qkv.problem().softmax_scale;
            check_attention_on(device, instance, &qkv, scale, &orders, Some(&mixed_mask(&orders)));
        }
    }
}

#[test]
fn a_negative_scale_prefers_the_least_scores() {
    let kernels = [Kernel::AttentionSparse, Kernel::HopperSparse];
    for instance in kernels.map(|kernel| listed(kernel).next().unwrap()) {
        let qkv = attention_problem(instance, Grid { t: 1, h: 12, w: 19 }, 9);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        let (mask, scale) = (mixed_mask(&orders), -qkv.problem().softmax_scale);
        check_attention_on(Device::new(), instance, &qkv, scale, &orders, Some(&mask));
    }
}

#[test]
fn dense_attention_on_lengths_no_tile_divides() {
    for instance in listed(Kernel::AttentionDense) {
        let qkv = attention_problem(instance, Grid { t: 1, h: 11, w: 15 }, 2);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        check_attention(instance, &qkv, &orders, None);
    }
}

#[test]
fn plain_attention_is_right() {
    for instance in listed(Kernel::AttentionPlain) {
        let qkv = attention_problem(instance, Grid { t: 1, h: 9, w: 20 }, 3);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        let mask = mask_for(&orders, 2, |_, i, j| (i + j) % 2 == 0);
        check_attention(instance, &qkv, &orders, Some(&mask));
    }
}

#[test]
fn reorder_moves_every_token_and_averages_every_block() {
    for instance in listed(Kernel::ReorderPool) {
        let qkv = attention_problem(instance, Grid { t: 2, h: 13, w: 18 }, 4);
        let problem = qkv.problem();
        let orders = Orders::new(&problem, MaskBlock::square(64)).unwrap();
        let layout = orders.q.layout();
        let mut device = Device::new();
        let (tokens, blocks, d) = (problem.seqlen_q, layout.blocks(), problem.head_dim);
        let x = device.upload(qkv.k.data.bytes());
        let (source, starts) = (device.words(orders.q.source()), device.words(layout.starts()));
        let ordered = device.memory.alloc(qkv.k.data.bytes().len() as u64);
        let pooled = device.memory.alloc((2 * blocks * d * 4) as u64);
        let params = [
            Param::Ptr(x),
            Param::Ptr(source),
            Param::Ptr(starts),
            Param::Ptr(ordered),
            Param::Ptr(pooled),
            Param::U32(blocks as u32),
            Param::U32(tokens as u32),
        ];
        let sizes = Sizes { batch_heads: 2, seqlen_q: tokens as u32, q_blocks: blocks as u32, q_block: 64 };
        device.run(instance, &sizes, &params);
        let id = variant_id(instance);
        let expected = in_block_order(&qkv, &qkv.k.data, orders.q.source());
        assert!(device.fetch(ordered, expected.len(), &id) == expected, "{id}: tokens in the wrong place");
        let values = widen(&expected, problem.dtype);
        let means = f32s(&device.fetch(pooled, 2 * blocks * d * 4, &id));
        for (i, &mean) in means.iter().enumerate() {
            let (head, block, c) = (i / d / blocks, i / d % blocks, i % d);
            let range = layout.range(block);
            let column = range.clone().map(|t| f64::from(values[(head * tokens + t) * d + c]));
            let (sum, size) = column.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            // As many float32 roundings as there are tokens.
            let bound = size * Dtype::F32.unit_roundoff() + f64::MIN_POSITIVE;
            let exact = sum / range.len() as f64;
            assert!((f64::from(mean) - exact).abs() <= bound, "{id}: mean {i}: {mean} against {exact}");
        }
    }
}

#[test]
fn selection_keeps_the_blocks_the_cpu_keeps() {
    for instance in listed(Kernel::Select) {
        let d = instance.constants.head_dim as usize;
        let qkv = generated(Grid { t: 3, h: 20, w: 30 }, 2, d, Dtype::F32, 5);
        let problem = qkv.problem();
        let orders = Arc::new(Orders::new(&problem, MaskBlock::square(64)).unwrap());
        let layout = Arc::clone(orders.q.layout());
        let blocks = layout.blocks();
        let pooled = |data: &TensorData| {
            let values = data.to_f32();
            let mut means = Vec::new();
            for head in 0..2 {
                for block in 0..blocks {
                    let tokens = &orders.q.source()[layout.range(block)];
                    means.extend((0..d).map(|c| {
                        let at = |&t: &u32| f64::from(values[(head * problem.seqlen_q + t as usize) * d + c]);
                        (tokens.iter().map(at).sum::<f64>() / tokens.len() as f64) as f32
                    }));
                }
            }
            means
        };
        let backend = cpu(Isa::detect());
        let mut workspace = backend.load(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
        for name in ["nabla-0", "nabla-0.3", "nabla-0.8", "nabla-1", "sta-3-1-3", "nabla-0.4_sta-1-3-1"] {
            let policy: Policy = name.parse().unwrap();
            let mut device = Device::new();
            let [pooled_q, pooled_k] = [&qkv.q.data, &qkv.k.data]
                .map(|data| pooled(data).iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
            let (pooled_q, pooled_k) = (device.words(&pooled_q), device.words(&pooled_k));
            let words = blocks.div_ceil(64);
            let always = policy.static_bitmap(&layout, &layout).unwrap().map(|bits| {
                let bytes: Vec<u8> = bits.iter().flat_map(|word| word.to_le_bytes()).collect();
                device.upload(&bytes)
            });
            let null = DevicePtr::from_address(0);
            let bitmap = device.memory.alloc((2 * blocks * words * 8) as u64);
            let counts = device.memory.alloc((2 * blocks * 4) as u64);
            let indices = device.memory.alloc((2 * blocks * blocks * 4) as u64);
            let keep_from = policy.mass().map_or(2.0, |mass| 1.0 - mass as f32);
            let params = [
                Param::Ptr(pooled_q),
                Param::Ptr(pooled_k),
                Param::Ptr(always.unwrap_or(null)),
                Param::Ptr(null),
                Param::Ptr(bitmap),
                Param::Ptr(counts),
                Param::Ptr(indices),
                Param::U32(blocks as u32),
                Param::U32(blocks as u32),
                Param::U32(blocks as u32),
                Param::F32(problem.softmax_scale),
                Param::F32(keep_from),
            ];
            let sizes = Sizes {
                batch_heads: 2,
                seqlen_q: problem.seqlen_q as u32,
                q_blocks: blocks as u32,
                q_block: 64,
            };
            device.run(instance, &sizes, &params);
            let id = variant_id(instance);
            let (expected, _) = workspace.build_mask(&policy).unwrap();
            let counts = device.fetch(counts, 2 * blocks * 4, &id);
            let counts: Vec<usize> = counts
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
                .collect();
            let mut differing = 0;
            for (row, &count) in counts.iter().enumerate() {
                let at = indices.offset((row * blocks * 4) as u64);
                let list = device.fetch(at, count * 4, &id);
                let list: Vec<i32> =
                    list.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                assert!(list.is_sorted_by(|a, b| a < b), "{id} {name} row {row}: {list:?}");
                let words_at = bitmap.offset((row * words * 8) as u64);
                let bits = device.fetch(words_at, words * 8, &id);
                let set: Vec<i32> =
                    (0..blocks).filter(|j| bits[j / 8] >> (j % 8) & 1 == 1).map(|j| j as i32).collect();
                assert_eq!(set, list, "{id} {name} row {row}: bitmap and list");
                // A block whose cumulative sum is within rounding of the threshold may fall either way.
                let theirs = expected.row(row / blocks, row % blocks);
                differing += usize::from(list != theirs);
                assert!(
                    list.len().abs_diff(theirs.len()) <= 1,
                    "{id} {name} row {row}: {list:?} against {theirs:?}"
                );
            }
            assert!(
                differing * 50 <= counts.len(),
                "{id} {name}: {differing} of {} rows differ",
                counts.len()
            );
        }
    }
}
