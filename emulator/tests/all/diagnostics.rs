//! Errors in PTX texts: what they say, and where they point. Also: no text makes the crate panic or hang.

use crate::common::{bytes, lanes};
use nabla_emulator::{LaunchConfig, Memory, Module, Options, Param, launch_with};
use proptest::prelude::*;

/// Everything an error says about one line in a body.
fn error(line: &str) -> String {
    let text = lanes(&format!("    {line}"));
    let error = Module::parse("bad.ptx", &text).expect_err(line);
    assert_eq!(error.text.trim(), line, "the error shows its line");
    assert_eq!(text.lines().nth(error.line as usize - 1), Some(error.text.as_str()));
    format!("{}: {}", error.column, error.message)
}

#[test]
fn errors_point_at_what_is_wrong() {
    let lines = [
        "frobnicate.b32 %r1, %r2;",
        "add.s32.fast %r1, %r2, %r3;",
        "add.rz.f32 %r1, %r2, %r3;",
        "add.s32 %r1, %r2;",
        "add.s32 %r1, %r2, %r3, %r4;",
        "add.s32 %r1, %rd2, %r3;",
        "add.s32 %r1, %undeclared, %r3;",
        "add.f16 %rs1, %rs2, %rs3;",
        "mov.b16 %rs1, 70000;",
        "ld.global.b32 %r1, %rd2;",
        "ld.global.b32 %r1, [%r2];",
        "ld.tex.b32 %r1, [%rd2];",
        "setp.equ.s32 %p1, %r1, %r2;",
        "cvt.s32.f32 %r1, %r2;",
        "cp.async.cg.shared.global [%r1], [%rd2], 8;",
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1,%r2}, {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r1,%r2};",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2}, [%r3];",
        "@%r1 bra L;",
        "bra NOWHERE;",
        "add.s32 %r1 %r2, %r3;",
        "add.s32 %r1, #2, %r3;",
        "mov.b32 %r1, 0f3F8000;",
        ".frob 12;",
    ];
    let report: Vec<String> = lines.iter().map(|line| format!("{line}\n    {}", error(line))).collect();
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn errors_outside_functions_have_places_too() {
    let cases = [
        ("garbage", 1, 1),
        (".version 8.0\n.target sm_80\n.visible .entry k(.param .u64 a", 3, 32),
        (".version 8.0\n/* no end", 2, 1),
        (".visible .entry k() { .reg .b32 %r<99999999>; }", 1, 33),
        (".shared .align 3 .b8 x[4];", 1, 16),
        (".visible .entry k() {\n  .reg .b32 %r1;\n  .reg .b32 %r1;\n}", 3, 13),
    ];
    for (text, line, column) in cases {
        let error = Module::parse("bad.ptx", text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{error}");
    }
}

/// A text with something of everything, to be damaged.
fn seed() -> String {
    lanes(
        "
    .shared .align 16 .b8 tile[512];
    mov.u32 %r10, tile;
    mad.lo.s32 %r11, %r0, 16, %r10;
    mad.wide.u32 %rd5, %r0, 4, %rd0;
    cp.async.ca.shared.global [%r11], [%rd2], 4;
    cp.async.commit_group;
    cp.async.wait_group 0;
    st.shared.v4.b32 [%r11], {%r0, %r0, %r0, %r0};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2,%r3,%r4}, [%r11];
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r20,%r21,%r22,%r23}, {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r1,%r2,%r3,%r4};
    shfl.sync.bfly.b32 %r5, %r20, 1, 0x1f, 0xffffffff;
    setp.lt.u32 %p0, %r0, 7;
    @!%p0 bra NEXT;
    ex2.approx.ftz.f32 %r5, %r5;
NEXT:
    cvt.rn.bf16x2.f32 %r6, %r5, %r20;
    atom.global.add.u32 %r7, [%rd1], 0x3;
    st.global.b32 [%rd3], %r6;",
    )
}

/// Parses and, if that succeeds, runs; faults and errors are fine, panics and endless runs are not.
fn survive(text: &str) {
    let Ok(module) = Module::parse("fuzz.ptx", text) else { return };
    let entries: Vec<String> = module.entries().map(str::to_owned).collect();
    for entry in entries {
        let mut memory = Memory::new();
        let buffer = memory.alloc_from(&bytes(&[0; 64]));
        let count = module.params(&entry).map_or(0, |params| params.len());
        let params = vec![Param::Ptr(buffer); count];
        let config =
            LaunchConfig { grid: [2, 1, 1], block: [40, 1, 1], dynamic_shared_bytes: 64, cluster: [1; 3] };
        let options = Options { instruction_budget: 50_000, ..Options::default() };
        // The outcome does not matter here.
        let _ = launch_with(&module, &entry, config, &params, &mut memory, &options);
    }
}

#[test]
fn the_undamaged_text_runs() {
    let module = Module::parse("seed.ptx", &seed()).unwrap();
    let mut memory = Memory::new();
    let buffer = Param::Ptr(memory.alloc_from(&[0; 256]));
    let config = LaunchConfig { block: [32, 1, 1], ..LaunchConfig::default() };
    launch_with(&module, "k", config, &[buffer.clone(), buffer], &mut memory, &Options::default())
        .unwrap_or_else(|fault| panic!("{fault}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Damages the text: bytes changed, ranges deleted, ranges copied elsewhere.
    #[test]
    fn damaged_texts_neither_panic_nor_hang(
        damage in prop::collection::vec((0_usize..2000, 0_usize..2000, 0_usize..40, 0_u8..4, 32_u8..127), 1..6)
    ) {
        let mut text = seed().into_bytes();
        for (from, to, length, kind, byte) in damage {
            let (from, to) = (from % text.len(), to % text.len());
            let end = (from + length).min(text.len());
            match kind {
                0 => text[from] = byte,
                1 => drop(text.drain(from..end)),
                2 => {
                    let part = text[from..end].to_vec();
                    text.splice(to..to, part);
                }
                _ => text.insert(from, b'0' + byte % 10),
            }
        }
        survive(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn any_text_is_an_error_at_worst(text in "\\PC{0,200}") {
        survive(&text);
    }
}
