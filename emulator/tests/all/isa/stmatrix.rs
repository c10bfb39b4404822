//! `stmatrix` against the PTX ISA: it undoes `ldmatrix`.

use super::hopper::{Setup, dump, run};

#[test]
fn fragments_go_to_the_rows_of_their_lanes() {
    for (count, kind) in [(1_u32, "x1"), (2, "x2"), (4, "x4")] {
        for trans in ["", ".trans"] {
            let registers: Vec<String> = (0..count).map(|at| format!("%r{}", 30 + at)).collect();
            // Register i of lane l holds the halves 1000 i + 2 l and 1000 i + 2 l + 1.
            let mut body = String::from("    mad.lo.s32 %r10, %r0, 131074, 65536;\n");
            for (at, register) in registers.iter().enumerate() {
                body += &format!("    add.s32 {register}, %r10, {};\n", at * 1000 * 65537);
            }
            body += &format!(
                "
    // Everything is written once, so that rows in between can be read.
    mov.b32 %r40, -1;
    mov.b32 %r11, 0;
CLEAR:
    mad.lo.s32 %r12, %r11, 32, %r0;
    mad.lo.s32 %r12, %r12, 4, %r1;
    st.shared.b32 [%r12], %r40;
    add.s32 %r11, %r11, 1;
    setp.lt.u32 %p1, %r11, 16;
    @%p1 bra CLEAR;
    bar.sync 0;
    // Rows in an order of their own: lane l to row 11 l + 5 modulo 128.
    mad.lo.s32 %r13, %r0, 11, 5;
    and.b32 %r13, %r13, 127;
    mad.lo.s32 %r13, %r13, 16, %r1;
    setp.lt.u32 %p2, %r0, {};
    selp.b32 %r13, %r13, 0x7ffffff0, %p2;
    stmatrix.sync.aligned.m8n8.{kind}{trans}.shared.b16 [%r13], {{{}}};",
                8 * count,
                registers.join(", ")
            );
            let out = run(&(body + &dump(512)), &Setup { output: 512, ..Setup::default() });
            let mut expected = vec![0xffff_u32; 1024];
            for matrix in 0..count {
                for lane in 0..32 {
                    for half in 0..2 {
                        let (major, minor) = (lane / 4, lane % 4 * 2 + half);
                        let (row, column) = if trans.is_empty() { (major, minor) } else { (minor, major) };
                        let line = (11 * (8 * matrix + row) + 5) % 128;
                        expected[(8 * line + column) as usize] = 1000 * matrix + 2 * lane + half;
                    }
                }
            }
            let expected: Vec<u32> = expected.chunks_exact(2).map(|pair| pair[0] | pair[1] << 16).collect();
            assert_eq!(out, expected, "{kind}{trans}");
        }
    }
}
