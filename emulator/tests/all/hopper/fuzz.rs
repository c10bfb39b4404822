//! No sm_90a text makes the crate panic or hang.

use super::kernel;
use nabla_emulator::{Completion, LaunchConfig, Memory, Module, Options, Param, launch_with};
use proptest::prelude::*;

/// A text with something of everything, to be damaged.
fn seed() -> String {
    kernel(
        "
    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [smem+32760], 2;
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    mapa.shared::cluster.u32 %r5, %r0, 1;
    mov.b16 %rs1, 3;
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+32760], 272;
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [smem], [%rd0], 256, [smem+32760];
    @%p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [smem+1024], [%rd0, {%r0, -1}], [smem+32760], %rs1;
    @%p0 st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r5], %r5, [%r5+64];
    mbarrier.arrive.shared.b64 %rd9, [smem+32760], 1;
    mbarrier.pending_count.b64 %r9, %rd9;
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [smem+32760], 0;
    @!%p1 bra WAIT;
    mov.b64 %rd10, 4611686293305294848;
    setmaxnreg.dec.sync.aligned.u32 40;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r100, %r101, %r102, %r103}, %rd10, %rd10, 0, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    fence.proxy.async.shared::cta;
    elect.sync %r7|%p3, -1;
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r0], {%r0};
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd0, {0, 0}], [smem];
    cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%rd1], [smem], 64;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    cp.async.ca.shared.global [%r0], [%rd0], 4;
    cp.async.mbarrier.arrive.noinc.shared.b64 [smem+32760];
    ld.shared::cluster.b32 %r8, [%r5];
    mbarrier.inval.shared.b64 [smem+32760];
    st.global.b32 [%rd2], %r100;",
    )
}

/// Parses and, if that succeeds, runs; faults and errors are fine, panics and endless runs are not.
fn survive(text: &str, eager: bool) {
    let Ok(module) = Module::parse("fuzz.ptx", text) else { return };
    let entries: Vec<String> = module.entries().map(str::to_owned).collect();
    for entry in entries {
        let mut memory = Memory::new();
        let buffer = memory.alloc_from(&[0; 4096]);
        let map = nabla_emulator::TensorMap::rows(nabla_emulator::TensorElement::F32, buffer, 8, 32, [8, 32]);
        let map = super::place(&mut memory, &map);
        let count = module.params(&entry).map_or(0, |params| params.len());
        let params = vec![Param::Ptr(map); count];
        let config = LaunchConfig {
            grid: [4, 1, 1],
            block: [128, 1, 1],
            cluster: [2, 1, 1],
            dynamic_shared_bytes: 64,
        };
        let completion = if eager { Completion::Eager } else { Completion::Late };
        let base = super::options(completion, 1);
        // In half of the texts.
        let races = text.len().is_multiple_of(2);
        let options = Options { races, allow_uninitialised: true, instruction_budget: 50_000, ..base };
        // The outcome does not matter here.
        let _ = launch_with(&module, &entry, config, &params, &mut memory, &options);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Damages the text: bytes changed, lines deleted or moved, digits put in.
    #[test]
    fn damaged_texts_neither_panic_nor_hang(
        damage in prop::collection::vec((0_usize..6000, 0_usize..100, 0_usize..100, 0_u8..5, 32_u8..127), 0..6),
        eager in any::<bool>(),
    ) {
        let mut text = seed();
        for (at, from, to, kind, byte) in damage {
            let at = at % text.len();
            if kind < 2 && text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                let put = if kind == 0 { char::from(byte) } else { char::from(b'0' + byte % 10) };
                text.replace_range(at..at + 1, &put.to_string());
                continue;
            }
            let mut lines: Vec<&str> = text.lines().collect();
            let (from, to) = (from % lines.len(), to % lines.len());
            match kind {
                2 => drop(lines.remove(from)),
                3 => lines.swap(from, to),
                _ => lines.insert(to, lines[from]),
            }
            text = lines.join("\n");
        }
        survive(&text, eager);
    }

    /// Keeps any half of the instructions.
    #[test]
    fn any_part_of_the_text_runs_or_faults(
        keep in prop::collection::vec(any::<bool>(), 64),
        eager in any::<bool>(),
    ) {
        let text = seed();
        let (head, body) = text.split_once("[smem+32760], 2;").unwrap_or((&text, ""));
        let kept: Vec<&str> = body
            .lines()
            .zip(keep.iter().cycle())
            .filter(|(line, keep)| **keep || line.contains("WAIT") || line.contains("ret") || line.starts_with('}'))
            .map(|(line, _)| line)
            .collect();
        survive(&format!("{head}[smem+32760], 2;\n{}\n", kept.join("\n")), eager);
    }
}

#[test]
fn the_undamaged_text_parses() {
    Module::parse("seed.ptx", &seed()).unwrap_or_else(|error| panic!("{error}"));
}
