//! What is new with sm_90a: small texts run over buffers here, and their tests by kind of instruction.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod bulk;
mod cluster;
mod fuzz;
mod mbarrier;
mod misc;
mod pipeline;
mod races;
mod wgmma;

use nabla_emulator::{
    Completion, DevicePtr, LaunchConfig, Memory, Module, Options, Param, Report, launch_with,
};

/// A kernel `k(in, out)` around a body, with registers of every kind declared, 32 KiB of shared memory at address 0 and
/// its thread in `%r0`, the buffers in `%rd0` and `%rd1`, and its word of the output in `%rd2`.
pub(crate) fn kernel(body: &str) -> String {
    format!(
        "
.version 8.6
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
.maxntid 512
{{
    .reg .pred %p<16>;
    .reg .b16 %rs<16>;
    .reg .b32 %r<400>;
    .reg .b64 %rd<64>;
    .shared .align 1024 .b8 smem[32768];
    mov.u32 %r0, %tid.x;
    ld.param.b64 %rd0, [in];
    ld.param.b64 %rd1, [out];
    mad.wide.u32 %rd2, %r0, 4, %rd1;
{body}
    ret;
}}
"
    )
}

/// A loop that waits for a parity of the mbarrier at a shared address.
pub(crate) fn wait(address: &str, parity: &str, label: &str) -> String {
    format!(
        "
{label}:
    mbarrier.try_wait.parity.shared::cta.b64 %p15, [{address}], {parity};
    @!%p15 bra {label};"
    )
}

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) ctas: u32,
    pub(crate) threads: u32,
    pub(crate) cluster: u32,
}

pub(crate) const fn threads(threads: u32) -> Shape {
    Shape { ctas: 1, threads, cluster: 1 }
}

pub(crate) const fn cluster(ctas: u32, threads: u32) -> Shape {
    Shape { ctas, threads, cluster: ctas }
}

/// With seed 0 warps take turns in the order of their numbers, with others at random.
pub(crate) fn options(completion: Completion, seed: u64) -> Options {
    let schedule_seed = (seed > 0).then_some(seed);
    Options { completion, seed, schedule_seed, instruction_budget: 20_000_000, ..Options::default() }
}

/// Both modes, late with several seeds; races are looked for.
pub(crate) fn modes() -> Vec<Options> {
    let late = (0..4).map(|seed| options(Completion::Late, seed));
    late.chain([options(Completion::Eager, 0)]).map(|options| Options { races: true, ..options }).collect()
}

pub(crate) fn launch_in(
    memory: &mut Memory,
    ptx: &str,
    shape: Shape,
    params: &[Param],
    options: &Options,
) -> Result<Report, String> {
    let module = Module::parse("test.ptx", ptx).unwrap_or_else(|error| panic!("{error}"));
    let config = LaunchConfig {
        grid: [shape.ctas, 1, 1],
        block: [shape.threads, 1, 1],
        cluster: [shape.cluster, 1, 1],
        ..LaunchConfig::default()
    };
    launch_with(&module, "k", config, params, memory, options).map_err(|fault| fault.to_string())
}

/// Runs a body; the output starts as zeros.
pub(crate) fn run_bytes(
    body: &str,
    shape: Shape,
    input: &[u8],
    output: usize,
    options: &Options,
) -> Result<(Vec<u8>, Report), String> {
    let mut memory = Memory::new();
    let from = memory.alloc_from(input);
    let to = memory.alloc_from(&vec![0; output]);
    let params = [Param::Ptr(from), Param::Ptr(to)];
    let report = launch_in(&mut memory, &kernel(body), shape, &params, options)?;
    Ok((memory.read(to, output as u64).unwrap(), report))
}

pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Runs a body on words in all modes, which must agree.
#[track_caller]
pub(crate) fn run(body: &str, shape: Shape, input: &[u32], output: usize) -> Vec<u32> {
    let mut results = Vec::new();
    for options in modes() {
        match run_bytes(body, shape, &bytes(input), output * 4, &options) {
            Ok((found, _)) => results.push(words(&found)),
            Err(fault) => panic!("{:?}: {fault}", options.completion),
        }
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the modes differ: {results:?}");
    results.pop().unwrap()
}

/// The fault of a body that must have one, with late completion.
#[track_caller]
pub(crate) fn fault(body: &str, shape: Shape) -> String {
    let input: Vec<u32> = (0..1024).collect();
    match run_bytes(body, shape, &bytes(&input), 4096, &options(Completion::Late, 0)) {
        Ok(_) => panic!("no fault"),
        Err(fault) => fault,
    }
}

#[track_caller]
pub(crate) fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

/// Puts a tensor map where a kernel can read it.
pub(crate) fn place(memory: &mut Memory, map: &nabla_emulator::TensorMap) -> DevicePtr {
    memory.alloc_from(&map.encode().unwrap())
}

/// Deterministic values of few bits: -8 to 7 eighths, whose products and sums are exact in f32.
pub(crate) fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 59) as i32 - 16) as f32 / 8.0
    };
    (0..count).map(|_| next()).collect()
}
