//! Runs small PTX texts over buffers.

#![allow(dead_code, clippy::allow_attributes, reason = "the fuzz program uses a part of this")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use nabla_emulator::{Fault, LaunchConfig, Memory, Module, Options, Param, Report, launch_with};

/// A kernel `k(in, out)` around a body, with registers of every kind declared.
pub(crate) fn kernel(body: &str) -> String {
    format!(
        "
.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .pred %p<8>;
    .reg .b16 %rs<16>;
    .reg .b32 %r<64>;
    .reg .b64 %rd<32>;
{body}
    ret;
}}
"
    )
}

pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Runs one CTA of `threads` on an input and an output buffer; the output starts out as zeros.
pub(crate) fn run_with(
    ptx: &str,
    threads: u32,
    shared: u32,
    input: &[u32],
    output: usize,
    options: &Options,
) -> Result<(Vec<u32>, Report), Box<Fault>> {
    let module = Module::parse("test.ptx", ptx).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let from = memory.alloc_from(&bytes(input));
    let to = memory.alloc_from(&vec![0; output * 4]);
    let config =
        LaunchConfig { block: [threads, 1, 1], dynamic_shared_bytes: shared, ..LaunchConfig::default() };
    let params = [Param::Ptr(from), Param::Ptr(to)];
    let report = launch_with(&module, "k", config, &params, &mut memory, options).map_err(Box::new)?;
    Ok((words(&memory.read(to, output as u64 * 4).unwrap()), report))
}

/// A body that starts with its thread in `%r0`, the buffers in `%rd0` and `%rd1`, both moved to the thread's word in
/// `%rd2` and `%rd3`.
pub(crate) fn lanes(body: &str) -> String {
    kernel(&format!(
        "
    mov.u32 %r0, %tid.x;
    ld.param.b64 %rd0, [in];
    ld.param.b64 %rd1, [out];
    mad.wide.u32 %rd2, %r0, 4, %rd0;
    mad.wide.u32 %rd3, %r0, 4, %rd1;
{body}"
    ))
}

/// Runs `lanes(body)` on one warp: lane `i` gets `input[i]` in `%r1` and its `%r2` comes back.
pub(crate) fn warp(body: &str, input: [u32; 32]) -> [u32; 32] {
    let text = lanes(&format!("    ld.global.b32 %r1, [%rd2];\n{body}\n    st.global.b32 [%rd3], %r2;"));
    let (out, _) =
        run_with(&text, 32, 0, &input, 32, &Options::default()).unwrap_or_else(|fault| panic!("{fault}"));
    out.try_into().unwrap()
}

/// The fault of a body that must have one.
pub(crate) fn fault(body: &str, threads: u32, shared: u32) -> String {
    let input: Vec<u32> = (0..threads).collect();
    match run_with(&lanes(body), threads, shared, &input, threads as usize, &Options::default()) {
        Ok(_) => panic!("no fault"),
        Err(fault) => fault.to_string(),
    }
}
