//! Masks, outputs and lse of the published implementation on the bundled clip.

use std::sync::Arc;

use nabla_host::{
    Dtype, Policy,
    backend::{
        AttentionOutput, Backend, EmulatedArch, EmulatorOptions, Isa, Orders, Pattern, emulator_backend,
    },
    reference::{Arithmetic, OrderedMask, RowSample, attention},
    variant::{MaskBlock, TileConfig},
};
use nabla_tests::{clip, cpu, data};
use safetensors::SafeTensors;

/// Rows of `out` the golden file holds: tokens 3, 11, 19, ... in fractal order.
const FIRST_ROW: usize = 3;
const ROW_STEP: usize = 8;

struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        Self(std::fs::read(data("bbb_t4h32w32_n2d64.golden.safetensors")).unwrap())
    }

    fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().iter().map(|name| name.to_string()).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// Cumulative pooled probability of every block of a row, ascending, in float64.
fn cumulative(row: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
    let mut sums = vec![0.0; row.len()];
    let mut sum = 0.0;
    for j in order {
        sum += row[j];
        sums[j] = sum;
    }
    sums
}

/// Pooled map of one head in float64: softmax rows over key blocks.
fn pooled_map(head: usize) -> Vec<Vec<f64>> {
    let qkv = clip();
    let problem = qkv.problem();
    let orders = Orders::new(&problem, MaskBlock::square(64)).unwrap();
    let d = problem.head_dim;
    let pool = |data: &nabla_host::tensor::TensorData| -> Vec<Vec<f64>> {
        let values = data.to_f32();
        let layout = orders.q.layout();
        (0..layout.blocks())
            .map(|block| {
                let tokens = &orders.q.source(0)[layout.range(block)];
                (0..d)
                    .map(|c| {
                        let at = |&t: &u32| f64::from(values[(head * problem.seqlen_q + t as usize) * d + c]);
                        tokens.iter().map(at).sum::<f64>() / tokens.len() as f64
                    })
                    .collect()
            })
            .collect()
    };
    let (q, k) = (pool(&qkv.q.data), pool(&qkv.k.data));
    q.iter()
        .map(|row| {
            let dot =
                |key: &Vec<f64>| row.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt();
            let scores: Vec<f64> = k.iter().map(dot).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            scores.iter().map(|s| (s - max).exp() / sum).collect()
        })
        .collect()
}

#[test]
fn masks_agree_except_where_the_cumulative_sum_is_within_rounding_of_the_threshold() {
    let golden = Golden::read();
    let maps = [pooled_map(0), pooled_map(1)];
    let names: Vec<String> =
        golden.names().iter().filter_map(|n| n.strip_suffix(".mask").map(str::to_owned)).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    let mut backends: Vec<(String, Box<dyn Backend>)> = Vec::new();
    for isa in Isa::available() {
        backends.push((format!("{isa:?}"), Box::new(cpu(isa))));
    }
    // The device's kernels, on this machine, with sums as tensor cores make them.
    for arch in [EmulatedArch::Sm80, EmulatedArch::Sm90a] {
        let options = EmulatorOptions { arch, chip_numerics: true, ..EmulatorOptions::default() };
        backends.push((format!("{arch:?}"), emulator_backend(&options).unwrap()));
    }
    for (device, backend) in &backends {
        let qkv = clip();
        let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap());
        let mut workspace = backend.load(qkv, orders).unwrap();
        for name in &names {
            let policy: Policy = name.parse().unwrap();
            let ours = workspace.build_mask(&policy).unwrap().0.to_bytes();
            let theirs = golden.bytes(&format!("{name}.mask"));
            assert_eq!(ours.len(), theirs.len());
            for (cell, (a, b)) in ours.iter().zip(&theirs).enumerate().filter(|(_, (a, b))| a != b) {
                let (head, i, j) = (cell / 4096, cell / 64 % 64, cell % 64);
                let threshold =
                    1.0 - policy.mass().unwrap_or_else(|| panic!("{name}: a static mask differs"));
                let sum = cumulative(&maps[head][i])[j];
                // 64 float32 additions of values up to 1.
                assert!(
                    (sum - threshold).abs() < 64.0 * Dtype::F32.unit_roundoff(),
                    "{name} {device}: head {head} row {i} block {j}: ours {a}, theirs {b}, cumulative sum {sum}"
                );
            }
        }
    }
}

#[test]
fn the_reference_agrees_with_the_published_outputs() {
    let golden = Golden::read();
    let qkv = clip();
    let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap());
    let backend = cpu(Isa::detect());
    let mut workspace = backend.load(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
    let sample = Arc::new(RowSample::all(4096));
    for name in ["dense", "nabla-0.4", "nabla-0.6_sta-11-3-3"] {
        let (mask, _) = workspace.build_mask(&name.parse().unwrap()).unwrap();
        let ordered = OrderedMask { mask: &mask, q_order: &orders.q, kv_order: &orders.kv };
        let exact = attention(&qkv, 0.125, Some(ordered), &sample, Arithmetic::Float64);
        let result = AttentionOutput {
            out: in_block_order(&exact.out, &orders, 64),
            lse: in_block_order(&exact.lse, &orders, 1),
        };
        compare(&golden, name, &result, 0.0);
    }
}

#[test]
fn kernels_agree_with_the_published_outputs() {
    let golden = Golden::read();
    for isa in Isa::available() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let backend = cpu(isa);
            let qkv = Arc::new(clip().cast(dtype));
            let problem = qkv.problem();
            let orders = Arc::new(Orders::new(&problem, MaskBlock::square(64)).unwrap());
            let mut workspace = backend.load(qkv, Arc::clone(&orders)).unwrap();
            for name in ["dense", "nabla-0.4", "nabla-0.6_sta-11-3-3"] {
                let policy: Policy = name.parse().unwrap();
                let (pattern, block) = match policy {
                    policy if policy.is_dense() => (Pattern::Dense, None),
                    _ => (Pattern::Mask(workspace.build_mask(&policy).unwrap().0), Some(orders.mask_block())),
                };
                let tile = TileConfig { block_m: 64, block_n: 64 };
                let variant = backend.variant(&problem, block, tile).unwrap();
                workspace.poison().unwrap();
                workspace.attention(&variant, &pattern).unwrap();
                // Probabilities in bf16 are off by one part in 512 at most; a row averages them.
                let rounded = if variant.probabilities == Dtype::Bf16 { 2f64.powi(-9) } else { 0.0 };
                compare(&golden, name, &workspace.output().unwrap(), rounded);
            }
        }
    }
}

fn in_block_order(raster: &[f64], orders: &Orders, row: usize) -> Vec<f32> {
    let tokens = orders.q.tables().tokens();
    let mut ordered = Vec::with_capacity(raster.len());
    for (n, head) in raster.chunks_exact(tokens * row).enumerate() {
        for &token in orders.q.source(n) {
            ordered.extend(head[token as usize * row..][..row].iter().map(|&x| x as f32));
        }
    }
    ordered
}

/// Outputs and lse must agree to float32 rounding: of the published float32 computation, of its result, and of
/// rounded probabilities where a kernel has them.
fn compare(golden: &Golden, name: &str, ours: &AttentionOutput, rounded: f64) {
    let u = Dtype::F32.unit_roundoff();
    let out = golden.floats(&format!("{name}.out"));
    let lse = golden.floats(&format!("{name}.lse"));
    assert_eq!((out.len(), lse.len()), (2 * 512 * 64, 2 * 4096), "{name}");
    // A score is a sum of 64 products of size up to |lse|; its rounding moves a probability by as much.
    let largest_lse = lse.iter().fold(0f32, |m, x| m.max(x.abs()));
    let score_error = 8.0 * u * f64::from(largest_lse);
    let largest_out = out.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (head, rows) in out.chunks_exact(512 * 64).enumerate() {
        for (i, want) in rows.chunks_exact(64).enumerate() {
            let token = FIRST_ROW + i * ROW_STEP;
            let got = &ours.out[(head * 4096 + token) * 64..][..64];
            for (x, y) in got.iter().zip(want) {
                let diff = f64::from((x - y).abs());
                let bound = (2.0 * score_error + rounded + 4.0 * u) * f64::from(largest_out);
                assert!(diff <= bound, "{name} head {head} token {token}: {x} against {y}, bound {bound}");
            }
        }
    }
    for (row, (x, y)) in ours.lse.iter().zip(&lse).enumerate() {
        let diff = f64::from((x - y).abs());
        assert!(diff <= score_error, "{name} lse row {row}: {x} against {y}, bound {score_error}");
    }
}
