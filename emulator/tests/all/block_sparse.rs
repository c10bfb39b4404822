//! A compiled block-sparse attention kernel (cp.async, ldmatrix, mma) against float64, and with its synchronisation
//! removed piece by piece.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use crate::common::{bytes, words};
use nabla_emulator::{Completion, Fault, LaunchConfig, Memory, Module, Options, Param, launch_with};

const PTX: &str = include_str!("../fixtures/attention_sparse_d64.ptx");
const D: usize = 64;
const BLOCK: usize = 64;
const BLOCKS: usize = 6;
const HEADS: usize = 2;

/// Deterministic bf16 values in about -2..2.
fn tensor(seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = (state >> 40) as f32 / (1 << 22) as f32 - 2.0;
        f32::from_bits(x.to_bits() & 0xffff_0000)
    };
    (0..HEADS * BLOCKS * BLOCK * D).map(|_| next()).collect()
}

fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

/// Query block `b` sees the key blocks of these numbers.
fn kept(block: usize) -> Vec<usize> {
    (0..BLOCKS).filter(|key| (block + key * key) % 3 != 1 || *key == block).collect()
}

/// Relative RMS error of the output, and the largest error of the log-sum-exp.
fn run(ptx: &str, completion: Completion) -> Result<(f64, f64), Box<Fault>> {
    let (q, k, v) = (tensor(1), tensor(2), tensor(3));
    let seqlen = BLOCKS * BLOCK;
    let module = Module::parse("attention.ptx", ptx).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let starts: Vec<u32> = (0..=BLOCKS).map(|block| (block * BLOCK) as u32).collect();
    let (mut counts, mut indices) = (Vec::new(), Vec::new());
    for _ in 0..HEADS {
        for block in 0..BLOCKS {
            let mut list: Vec<u32> = kept(block).iter().map(|key| *key as u32).collect();
            counts.push(list.len() as u32);
            list.resize(BLOCKS, u32::MAX);
            indices.extend(list);
        }
    }
    let inputs = [&q, &k, &v].map(|tensor| Param::Ptr(memory.alloc_from(&bf16(tensor))));
    let (out, lse) = (memory.alloc((q.len() * 2) as u64), memory.alloc((HEADS * seqlen * 4) as u64));
    let lists = [&starts, &starts, &counts, &indices].map(|list| Param::Ptr(memory.alloc_from(&bytes(list))));
    let sizes = [BLOCKS, BLOCKS, BLOCKS, seqlen, seqlen].map(|size| Param::U32(size as u32));
    let scale = 0.125_f32;
    let mut params = inputs.to_vec();
    params.extend([Param::Ptr(out), Param::Ptr(lse)]);
    params.extend(lists);
    params.extend(sizes);
    params.push(Param::F32(scale));
    let config = LaunchConfig {
        grid: [BLOCKS as u32, HEADS as u32, 1],
        block: [128, 1, 1],
        dynamic_shared_bytes: 40960,
        ..LaunchConfig::default()
    };
    let options = Options { completion, ..Options::default() };
    launch_with(&module, "nabla_attention_sparse", config, &params, &mut memory, &options)
        .map_err(Box::new)?;
    let got = memory.read(out, (q.len() * 2) as u64).unwrap();
    let got_lse = words(&memory.read(lse, (HEADS * seqlen * 4) as u64).unwrap());
    let (mut error, mut norm, mut lse_error) = (0.0, 0.0, 0.0_f64);
    for row in 0..HEADS * seqlen {
        let head = row / seqlen * seqlen;
        let keys: Vec<usize> =
            kept(row % seqlen / BLOCK).iter().flat_map(|b| b * BLOCK..(b + 1) * BLOCK).collect();
        let dot = |key: usize| -> f64 {
            (0..D).map(|d| f64::from(q[row * D + d]) * f64::from(k[(head + key) * D + d])).sum::<f64>()
                * f64::from(scale)
        };
        let scores: Vec<f64> = keys.iter().map(|key| dot(*key)).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        lse_error = lse_error.max((f64::from(f32::from_bits(got_lse[row])) - top - total.ln()).abs());
        for d in 0..D {
            let exact: f64 = keys
                .iter()
                .zip(&weights)
                .map(|(key, w)| w / total * f64::from(v[(head + key) * D + d]))
                .sum();
            let at = (row * D + d) * 2;
            let bits = u32::from(u16::from_le_bytes([got[at], got[at + 1]])) << 16;
            error += (f64::from(f32::from_bits(bits)) - exact).powi(2);
            norm += exact.powi(2);
        }
    }
    Ok(((error / norm).sqrt(), lse_error))
}

/// Rounding P and the output to bf16, of 2^-9 relative error each, bounds the error; the log-sum-exp stays in f32.
fn is_right((rms, lse): (f64, f64)) -> bool {
    rms < 2.0 * 2.0_f64.powi(-9) && lse < 1e-4
}

#[test]
fn the_kernel_agrees_with_float64() {
    for completion in [Completion::Late, Completion::Eager] {
        let errors = run(PTX, completion).unwrap_or_else(|fault| panic!("{fault}"));
        assert!(is_right(errors), "{completion:?}: {errors:?}");
    }
}

/// Each wait, commit and barrier of the text is taken out in turn. Late or eager completion must show it, by a fault or
/// by a wrong result.
#[test]
fn every_removed_synchronisation_shows() {
    let lines: Vec<&str> = PTX.lines().collect();
    let syncs = ["cp.async.wait_group", "bar.sync", "cp.async.commit_group"];
    let at: Vec<usize> =
        (0..lines.len()).filter(|line| syncs.iter().any(|sync| lines[*line].contains(sync))).collect();
    assert!(at.len() >= 5, "the fixture synchronises");
    let mut missed = Vec::new();
    for line in at {
        let mut mutant = lines.clone();
        mutant[line] = "";
        let mutant = mutant.join("\n");
        let clean = |completion| run(&mutant, completion).is_ok_and(is_right);
        if clean(Completion::Late) && clean(Completion::Eager) {
            missed.push(format!("line {}: {}", line + 1, lines[line].trim()));
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}
