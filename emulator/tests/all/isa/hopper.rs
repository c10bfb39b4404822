//! Runs small kernels for sm_90a: one buffer in, one out, a tensor map, dynamic shared memory, clusters.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use nabla_emulator::{
    Completion, DevicePtr, Fault, LaunchConfig, Memory, Module, Options, Param, TensorMap, launch_with,
};

/// What surrounds a body: its launch, its input, how many words it may write.
pub(crate) struct Setup<'m> {
    pub(crate) threads: u32,
    pub(crate) ctas: u32,
    pub(crate) cluster: u32,
    pub(crate) shared: u32,
    pub(crate) input: Vec<u32>,
    pub(crate) output: usize,
    /// Makes a tensor map over the input or, if `map_output`, over the output.
    pub(crate) map: Option<&'m dyn Fn(DevicePtr) -> TensorMap>,
    pub(crate) map_output: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            threads: 32,
            ctas: 1,
            cluster: 1,
            shared: 32768,
            input: vec![0],
            output: 1,
            map: None,
            map_output: false,
        }
    }
}

/// A kernel around a body: the thread in `%r0`, the start of dynamic shared memory (1024-aligned) in `%r1`, input, output
/// and tensor map in `%rd0`, `%rd1`, `%rd2`. Free: `%r10..`, `%rd10..`, `%p1..`, `%f0..` (32 bits).
pub(crate) fn text(body: &str) -> String {
    format!(
        "
.version 8.4
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out, .param .u64 map)
{{
    .reg .pred %p<16>;
    .reg .b16 %rs<16>;
    .reg .b32 %r<64>;
    .reg .b32 %f<256>;
    .reg .b64 %rd<64>;
    ld.param.b64 %rd0, [in];
    ld.param.b64 %rd1, [out];
    ld.param.b64 %rd2, [map];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, smem;
{body}
    ret;
}}
"
    )
}

/// Runs a body; the output starts as `0xeeeeeeee` in each word.
pub(crate) fn run_with(body: &str, setup: &Setup<'_>, options: &Options) -> Result<Vec<u32>, Box<Fault>> {
    let ptx = text(body);
    let module = Module::parse("test.ptx", &ptx).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let input = memory.alloc_from(&bytes(&setup.input));
    let output = memory.alloc_from(&bytes(&vec![0xeeee_eeee; setup.output]));
    let encoded = setup.map.map_or([0; 128], |map| {
        let map = map(if setup.map_output { output } else { input });
        map.encode().unwrap_or_else(|error| panic!("{error}"))
    });
    let map = memory.alloc_from(&encoded);
    let config = LaunchConfig {
        grid: [setup.ctas, 1, 1],
        block: [setup.threads, 1, 1],
        dynamic_shared_bytes: setup.shared,
        cluster: [setup.cluster, 1, 1],
    };
    let params = [Param::Ptr(input), Param::Ptr(output), Param::Ptr(map)];
    launch_with(&module, "k", config, &params, &mut memory, options).map_err(Box::new)?;
    let out = memory.read(output, setup.output as u64 * 4).unwrap();
    Ok(out.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}

/// Runs a body with completion as late as can be, in several orders, and at once: the result must be one.
#[track_caller]
pub(crate) fn run(body: &str, setup: &Setup<'_>) -> Vec<u32> {
    let one = |completion, seed| {
        let options =
            Options { completion, seed, races: true, instruction_budget: 50_000_000, ..Options::default() };
        run_with(body, setup, &options)
            .unwrap_or_else(|fault| panic!("{completion:?}, seed {seed}: {fault}\n{body}"))
    };
    let out = one(Completion::Late, 0);
    for (completion, seed) in [(Completion::Late, 1), (Completion::Late, 2), (Completion::Eager, 0)] {
        assert_eq!(one(completion, seed), out, "{completion:?}, seed {seed} differs\n{body}");
    }
    out
}

/// Checks that a body ends in a fault that says this.
#[track_caller]
pub(crate) fn fault(body: &str, setup: &Setup<'_>, says: &str) {
    let options = Options { instruction_budget: 5_000_000, ..Options::default() };
    match run_with(body, setup, &options) {
        Ok(_) => panic!("no fault:\n{body}"),
        Err(fault) => {
            let text = fault.to_string();
            assert!(text.contains(says), "no `{says}` in:\n{text}");
        }
    }
}

/// Waits until the phase of this parity of the barrier at this address is over. `label` is the body's own.
pub(crate) fn wait(label: &str, address: &str, parity: &str) -> String {
    format!(
        "
{label}:
    mbarrier.try_wait.parity.shared::cta.b64 %p15, [{address}], {parity};
    @!%p15 bra {label};"
    )
}

/// Copies the input to shared memory, word by word, all threads together, and makes it visible to asynchronous readers.
pub(crate) fn fill(words: usize) -> String {
    format!(
        "
    mov.u32 %r60, %ntid.x;
    mov.b32 %r61, %r0;
FILL:
    setp.ge.u32 %p15, %r61, {words};
    @%p15 bra FILLED;
    mad.wide.u32 %rd60, %r61, 4, %rd0;
    ld.global.b32 %r62, [%rd60];
    mad.lo.s32 %r63, %r61, 4, %r1;
    st.shared.b32 [%r63], %r62;
    add.s32 %r61, %r61, %r60;
    bra FILL;
FILLED:
    fence.proxy.async;
    bar.sync 0;"
    )
}

/// Copies shared memory to the output, word by word, once every thread has come.
pub(crate) fn dump(words: usize) -> String {
    format!(
        "
    bar.sync 0;
    mov.u32 %r60, %ntid.x;
    mov.b32 %r61, %r0;
DUMP:
    setp.ge.u32 %p15, %r61, {words};
    @%p15 bra DUMPED;
    mad.lo.s32 %r63, %r61, 4, %r1;
    ld.shared.b32 %r62, [%r63];
    mad.wide.u32 %rd60, %r61, 4, %rd1;
    st.global.b32 [%rd60], %r62;
    add.s32 %r61, %r61, %r60;
    bra DUMP;
DUMPED:"
    )
}
