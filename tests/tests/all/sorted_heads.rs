//! Heads that sort their tokens by orders of their own: attention in raster order, from the policy to the output, against a
//! softmax over pairs of tokens that knows neither blocks nor orders; and the program's files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use nabla_host::{
    Dtype, Grid, Policy,
    backend::{Backend, EmulatedArch, EmulatorOptions, Isa, Orders, Pattern, emulator_backend},
    io::{Element, NamedTensor, write_safetensors},
    reference::{OrderedMask, RowSample},
    tensor::Qkv,
    variant::MaskBlock,
    verify::{Oracle, verify},
};
use nabla_tests::{cpu, generated, nabla};
use safetensors::SafeTensors;

/// 330 tokens: of 64 in a block, the last has 10.
const GRID: Grid = Grid { t: 5, h: 6, w: 11 };
const TOKENS: usize = 330;
const BLOCK: usize = 64;
const BLOCKS: usize = 6;
const AXES: [&str; 2] = ["hwt", "wth"];

/// Whether a head keeps a pair of blocks.
fn keeps(head: usize, i: usize, j: usize) -> bool {
    i == j || (3 * i + 5 * j + head).is_multiple_of(4)
}

/// Writes the map and a policy for each head; returns the policy of both.
fn policy_in(folder: &Path) -> String {
    let cell = |n: usize| u8::from(keeps(n / (BLOCKS * BLOCKS), n / BLOCKS % BLOCKS, n % BLOCKS));
    let cells: Vec<u8> = (0..2 * BLOCKS * BLOCKS).map(cell).collect();
    let shape = &[2, BLOCKS, BLOCKS];
    let mask = NamedTensor { name: "mask", shape, element: Element::U8, bytes: &cells };
    let map = folder.join("map.safetensors");
    write_safetensors(&map, &[mask], &Default::default()).unwrap();
    let policies = AXES.map(|axes| format!("paro-{axes}:{}", map.display()));
    let list = folder.join("heads.json");
    fs::write(&list, serde_json::to_string(&policies).unwrap()).unwrap();
    format!("heads:{}", list.display())
}

/// The tokens of a head by their raster index, sorted by their coordinates.
fn sorted(axes: &str) -> Vec<usize> {
    let coordinate = |token: usize, axis: char| match axis {
        't' => token / (GRID.h * GRID.w),
        'h' => token / GRID.w % GRID.h,
        _ => token % GRID.w,
    };
    let mut tokens: Vec<usize> = (0..TOKENS).collect();
    tokens.sort_by_key(|&token| axes.chars().map(|axis| coordinate(token, axis)).collect::<Vec<_>>());
    tokens
}

/// Attention over the kept pairs of tokens in float64, `[heads, tokens, d]` in raster order.
fn expected(qkv: &Qkv) -> Vec<f64> {
    let d = qkv.problem().head_dim;
    let scale = f64::from(qkv.problem().softmax_scale);
    let [q, k, v] = [&qkv.q, &qkv.k, &qkv.v].map(|tensor| tensor.data.to_f32());
    let row = |x: &[f32], head: usize, token: usize| -> Vec<f64> {
        x[(head * TOKENS + token) * d..][..d].iter().map(|&x| f64::from(x)).collect()
    };
    let mut out = Vec::new();
    for (head, axes) in AXES.into_iter().enumerate() {
        let mut block = vec![0; TOKENS];
        sorted(axes).iter().enumerate().for_each(|(place, &token)| block[token] = place / BLOCK);
        for i in 0..TOKENS {
            let query = row(&q, head, i);
            let mut sums = vec![0.0; d];
            let mut total = 0.0;
            for j in (0..TOKENS).filter(|&j| keeps(head, block[i], block[j])) {
                let score: f64 = query.iter().zip(row(&k, head, j)).map(|(a, b)| a * b).sum();
                let weight = (score * scale).exp();
                total += weight;
                sums.iter_mut().zip(row(&v, head, j)).for_each(|(sum, v)| *sum += weight * v);
            }
            out.extend(sums.iter().map(|sum| sum / total));
        }
    }
    out
}

/// Relative root mean square of the difference.
fn difference(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let squares = got.iter().zip(expected).map(|(&a, &b)| ((f64::from(a) - b).powi(2), b * b));
    let (error, size) = squares.fold((0.0, 0.0), |(error, size), (e, s)| (error + e, size + s));
    (error / size).sqrt()
}

/// Runs a policy from its text to the output, brings that to raster order and judges it.
fn assert_right(backend: &dyn Backend, qkv: &Arc<Qkv>, policy: &str, bound: f64) {
    let policy: Policy = policy.parse().unwrap();
    let problem = qkv.problem();
    let (block, d) = (MaskBlock::square(BLOCK), problem.head_dim);
    let orders = Orders::arranged(&problem, block, &policy.arrangement(&problem).unwrap()).unwrap();
    let mut workspace = backend.load(Arc::clone(qkv), Arc::new(orders)).unwrap();
    let (mask, _) = workspace.build_mask(&policy).unwrap();
    let parameters = backend.default_parameters(&problem, Some(block));
    let variant = backend.configured(&problem, Some(block), &parameters).unwrap();
    let pattern = Pattern::Mask(Arc::clone(&mask));
    workspace.attention(&variant, &pattern).unwrap();
    // The way back writes where it may, and a second reorder makes what the first one did.
    workspace.time_reorder().unwrap();
    workspace.poison().unwrap();
    workspace.attention(&variant, &pattern).unwrap();
    let output = workspace.output().unwrap();
    let mut raster = vec![f32::NAN; output.out.len()];
    for (head, axes) in AXES.into_iter().enumerate() {
        for (place, token) in sorted(axes).into_iter().enumerate() {
            let from = &output.out[(head * TOKENS + place) * d..][..d];
            raster[(head * TOKENS + token) * d..][..d].copy_from_slice(from);
        }
    }
    let error = difference(&raster, &expected(qkv));
    assert!(error < bound, "{}: {error:.1e}", backend.device().name);

    // What every command judges its launches by knows the orders, too.
    let orders = workspace.orders();
    let ordered = OrderedMask { mask: &mask, q_order: &orders.q, kv_order: &orders.kv };
    let sample = Arc::new(RowSample::all(TOKENS));
    let oracle = Oracle::new(qkv, problem.softmax_scale, Some(ordered), &sample);
    let (_, verdict) = verify(&output, &orders.q, &oracle, oracle.reference(), variant.rounding());
    assert_eq!(verdict, Ok(()), "{}", backend.device().name);
}

#[test]
fn two_heads_of_two_orders_are_right_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let qkv = generated(GRID, 2, 64, Dtype::F32, 5);
    assert_right(&cpu(Isa::Portable), &qkv, &policy_in(folder.path()), 1e-6);
}

#[test]
fn two_heads_of_two_orders_are_right_on_the_emulator() {
    let folder = tempfile::tempdir().unwrap();
    let qkv = generated(GRID, 2, 64, Dtype::Bf16, 5);
    for arch in [EmulatedArch::Sm80, EmulatedArch::Sm90a] {
        let backend = emulator_backend(&EmulatorOptions { arch, ..EmulatorOptions::default() }).unwrap();
        // Probabilities and output are rounded to 8 bits.
        assert_right(&*backend, &qkv, &policy_in(folder.path()), 5e-3);
    }
}

fn floats(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Runs the program on the same problem.
fn program(command: &str, policy: &str, out: &Path, more: &[&str]) -> (bool, String) {
    let input = format!("video:{GRID},2,64,f32");
    let mut nabla = nabla();
    nabla.args([command, "--backend", "cpu", "--threads", "2", "--no-pin", "--generate", &input]);
    nabla.args(["--seed", "5", "--policy", policy, "--out"]).arg(out).args(more);
    let output = nabla.output().unwrap();
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    (output.status.success(), texts.concat())
}

#[test]
fn the_program_runs_exports_and_reads_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let policy = policy_in(folder.path());
    let qkv = generated(GRID, 2, 64, Dtype::F32, 5);
    let right = expected(&qkv);
    let (ran, text) = program("run", &policy, &file("out.safetensors"), &["--repeat", "1"]);
    assert!(ran, "{text}");
    let error = difference(&floats(&file("out.safetensors"), "out"), &right);
    assert!(error < 1e-6, "{error:.1e}");

    // What is exported says what its tokens are sorted by, and is the same policy when it is read again.
    let mask = file("mask.safetensors");
    let (ran, text) = program("mask", &policy, &mask, &[]);
    assert!(ran, "{text}");
    let bytes = fs::read(&mask).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata["sorted_by"], "hwt,wth");
    assert!(metadata["order"].contains("sorted by hwt,wth"), "{metadata:?}");
    let lists = format!("lists:{}", mask.display());
    let (ran, text) = program("run", &lists, &file("again.safetensors"), &["--repeat", "1"]);
    assert!(ran, "{text}");
    assert_eq!(
        floats(&file("again.safetensors"), "out"),
        floats(&file("out.safetensors"), "out"),
        "the order comes with the lists"
    );

    // What does not go together is one message.
    let mixed = format!("nabla-0.5_{policy}");
    let (ran, text) = program("run", &mixed, &file("none.safetensors"), &[]);
    assert!(!ran && text.contains("patches of one frame") && text.contains("sorted by"), "{text}");
    assert!(text.lines().count() == 1 && !file("none.safetensors").exists(), "{text}");
}
