//! The race checker on a compiled attention kernel (cp.async, ldmatrix, mma): clean as it is, and not without any one of
//! its waits, commits and barriers.

use crate::common::bytes;
use nabla_emulator::{
    Completion, Fault, FaultKind, LaunchConfig, Memory, Module, Options, Param, launch_with,
};

const PTX: &str = include_str!("../fixtures/attention_sparse_d64.ptx");
const D: usize = 64;
const BLOCK: usize = 64;
const HEADS: usize = 2;

/// Runs the kernel on `blocks` query blocks, each of which sees all key blocks; the values are all one half.
fn run(ptx: &str, blocks: usize, options: &Options) -> Result<(), Box<Fault>> {
    let seqlen = blocks * BLOCK;
    let module = Module::parse("attention.ptx", ptx).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let starts: Vec<u32> = (0..=blocks).map(|block| (block * BLOCK) as u32).collect();
    let counts = vec![blocks as u32; HEADS * blocks];
    let indices: Vec<u32> = (0..HEADS * blocks).flat_map(|_| 0..blocks as u32).collect();
    let half = [0, 0x3f].repeat(HEADS * seqlen * D);
    let mut params: Vec<Param> = (0..3).map(|_| Param::Ptr(memory.alloc_from(&half))).collect();
    params.push(Param::Ptr(memory.alloc(half.len() as u64)));
    params.push(Param::Ptr(memory.alloc((HEADS * seqlen * 4) as u64)));
    for list in [&starts, &starts, &counts, &indices] {
        params.push(Param::Ptr(memory.alloc_from(&bytes(list))));
    }
    params.extend([blocks, blocks, blocks, seqlen, seqlen].map(|size| Param::U32(size as u32)));
    params.push(Param::F32(0.125));
    let grid = [blocks as u32, HEADS as u32, 1];
    let config =
        LaunchConfig { grid, block: [128, 1, 1], dynamic_shared_bytes: 40960, ..LaunchConfig::default() };
    launch_with(&module, "nabla_attention_sparse", config, &params, &mut memory, options)
        .map(|_| ())
        .map_err(Box::new)
}

fn options(completion: Completion, schedule_seed: Option<u64>) -> Options {
    Options { completion, schedule_seed, races: true, ..Options::default() }
}

#[test]
fn the_kernel_has_no_race_under_any_schedule() {
    for seed in std::iter::once(None).chain((0..20).map(Some)) {
        for completion in [Completion::Late, Completion::Eager] {
            if let Err(fault) = run(PTX, 3, &options(completion, seed)) {
                panic!("{completion:?}, {seed:?}: {fault}");
            }
        }
    }
}

/// Copies land at once, so that only the order of things can tell: each removal must be a race, or make a warp that comes
/// first read what nobody has written.
#[test]
fn every_removed_synchronisation_is_a_race() {
    let lines: Vec<&str> = PTX.lines().collect();
    let syncs = ["cp.async.wait_group", "bar.sync", "cp.async.commit_group"];
    let at: Vec<usize> =
        (0..lines.len()).filter(|line| syncs.iter().any(|sync| lines[*line].contains(sync))).collect();
    assert!(at.len() >= 5, "the fixture synchronises");
    for line in at {
        let mut mutant = lines.clone();
        mutant[line] = "";
        for seed in [None, Some(1), Some(2)] {
            let outcome = run(&mutant.join("\n"), 6, &options(Completion::Eager, seed));
            let fault = outcome.expect_err(&format!("without line {}: {}", line + 1, lines[line]));
            let raced = matches!(fault.kind, FaultKind::Race(_) | FaultKind::UninitialisedMemory { .. });
            assert!(raced, "line {}: {fault}", line + 1);
        }
    }
}
