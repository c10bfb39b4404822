//! `wgmma` against the PTX ISA: fragments of the accumulator and of A in registers, layouts of A and B in shared memory,
//! scales, order with `fence`, `commit_group` and `wait_group` (section "Asynchronous Warpgroup Level Matrix Instructions").

use super::hopper::{Setup, fault, fill, run};

/// Swizzle of shared memory by its span in bytes, none as 0; the bits of it in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    span: u32,
    /// Elements of one row or column along M or N lie together, rather than along K.
    mn_major: bool,
    leading: u32,
    stride: u32,
}

impl Layout {
    fn mode(self) -> u64 {
        match self.span {
            0 => 0,
            128 => 1,
            64 => 2,
            _ => 3,
        }
    }

    /// Bits 4 and up are added without carry to bits 7 and up, as many as the span has 16-byte chunks.
    fn swizzle(self, address: u32) -> u32 {
        let chunks = if self.span == 0 { 1 } else { self.span / 16 };
        address ^ (address >> 7 & (chunks - 1)) << 4
    }

    /// Byte address of a 16-bit element of a matrix that starts at `base`: the canonical layouts in units of 16 bytes.
    fn address(self, base: u32, mn: u32, k: u32) -> u32 {
        let offset = match (self.mn_major, self.span) {
            // Core matrices of 8 rows of 16 bytes; the leading offset goes along K, the stride along M or N.
            (false, 0) => mn / 8 * self.stride + mn % 8 * 16 + k / 8 * self.leading + k % 8 * 2,
            // Rows of a span each; the leading offset is not used.
            (false, span) => mn / 8 * self.stride + mn % 8 * span + k * 2,
            // Core matrices of 8 columns of 16 bytes; leading along K, stride along M or N.
            (true, 0) => mn / 8 * self.stride + mn % 8 * 2 + k % 8 * 16 + k / 8 * self.leading,
            // Columns of a span each; leading to the next span along M or N, stride to the next 8 columns along K.
            (true, span) => {
                let wide = span / 2;
                mn / wide * self.leading + mn % wide * 2 + k % 8 * span + k / 8 * self.stride
            }
        };
        self.swizzle(base + offset)
    }

    /// Instructions that leave the descriptor of the matrix at byte `base` of shared memory in a register.
    fn descriptor(self, register: &str, base: u32) -> String {
        let rest = u64::from(self.leading / 16) << 16 | u64::from(self.stride / 16) << 32 | self.mode() << 62;
        format!(
            "
    add.s32 %r20, %r1, {base};
    and.b32 %r20, %r20, 0x3ffff;
    shr.u32 %r20, %r20, 4;
    cvt.u64.u32 {register}, %r20;
    or.b64 {register}, {register}, {rest};"
        )
    }
}

fn a(row: u32, k: u32) -> i32 {
    ((row * 7 + k * 3 + row / 8) % 15) as i32 - 7
}

fn b(k: u32, column: u32) -> i32 {
    ((k * 5 + column * 11 + column / 8) % 13) as i32 - 6
}

fn c(row: u32, column: u32) -> i32 {
    (row * 3) as i32 - column as i32
}

fn encode(x: i32, kind: &str) -> u16 {
    if kind == "bf16" {
        return ((x as f32).to_bits() >> 16) as u16;
    }
    match x.unsigned_abs() {
        0 => 0,
        n => ((u32::from(x < 0) << 15) | ((15 + n.ilog2()) << 10) | ((n << (10 - n.ilog2())) & 0x3ff)) as u16,
    }
}

fn words(halves: &[u16]) -> Vec<u32> {
    halves.chunks_exact(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect()
}

fn list(prefix: &str, first: u32, count: u32) -> String {
    (first..first + count).map(|at| format!("{prefix}{at}")).collect::<Vec<_>>().join(", ")
}

/// Row and column of accumulator register `i` of a thread.
fn place(thread: u32, i: u32) -> (u32, u32) {
    let (warp, lane) = (thread / 32, thread % 32);
    (16 * warp + lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2)
}

struct Case {
    n: u32,
    kind: &'static str,
    /// `None`: A in registers.
    a: Option<Layout>,
    b: Layout,
    /// Byte offsets of the two starts from where the layouts begin, for steps along K.
    step: u32,
    scale_d: bool,
    scales: (i32, i32),
}

/// Where B begins.
const B_BASE: u32 = 16384;

impl Case {
    fn check(&self) {
        let Self { n, kind, a: a_layout, b: b_layout, step, scale_d, scales } = *self;
        let mut halves = vec![0x7fc1_u16; 32768];
        let mut place_element = |address: u32, value: i32| halves[address as usize / 2] = encode(value, kind);
        for k in 0..16 {
            for row in 0..64 {
                if let Some(layout) = a_layout {
                    place_element(layout.address(step, row, k), a(row, k));
                }
            }
            for column in 0..n {
                place_element(b_layout.address(B_BASE + step, column, k), b(k, column));
            }
        }
        let registers = n / 2;
        let mut input = words(&halves);
        let base = input.len() as u32;
        // Behind shared memory: the accumulators, then A's fragments, each by register and thread.
        for i in 0..registers {
            input.extend((0..128).map(|thread| {
                let (row, column) = place(thread, i);
                (c(row, column) as f32).to_bits()
            }));
        }
        for i in 0..4 {
            input.extend((0..128).map(|thread| {
                let (warp, lane) = (thread / 32, thread % 32);
                let row = 16 * warp + lane / 4 + 8 * (i % 2);
                let k = 2 * (lane % 4) + 8 * (i / 2);
                u32::from(encode(a(row, k), kind)) | u32::from(encode(a(row, k + 1), kind)) << 16
            }));
        }
        let mut body = fill(base as usize);
        body += "\n    mad.wide.u32 %rd10, %r0, 4, %rd0;\n    mad.wide.u32 %rd11, %r0, 4, %rd1;\n";
        if scale_d {
            for i in 0..registers {
                body += &format!("    ld.global.b32 %f{i}, [%rd10+{}];\n", 4 * (base + 128 * i));
            }
        }
        let a_operand = match a_layout {
            Some(layout) => {
                body += &layout.descriptor("%rd12", step);
                "%rd12".to_owned()
            }
            None => {
                for i in 0..4 {
                    body += &format!(
                        "    ld.global.b32 %r{}, [%rd10+{}];\n",
                        30 + i,
                        4 * (base + 128 * (registers + i))
                    );
                }
                format!("{{{}}}", list("%r", 30, 4))
            }
        };
        body += &b_layout.descriptor("%rd13", B_BASE + step);
        let transposed = match a_layout {
            Some(layout) => format!("{}, {}", u32::from(layout.mn_major), u32::from(b_layout.mn_major)),
            None => u32::from(b_layout.mn_major).to_string(),
        };
        body += &format!(
            "
    setp.eq.u32 %p1, {}, 1;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{kind}.{kind} {{{}}}, {a_operand}, %rd13, %p1, {}, {}, {transposed};
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;\n",
            if scale_d { "%r2" } else { "%r3" },
            list("%f", 0, registers),
            scales.0,
            scales.1,
        );
        for i in 0..registers {
            body += &format!("    st.global.b32 [%rd11+{}], %f{i};\n", 512 * i);
        }
        let body = format!("    mov.b32 %r2, 1;\n    mov.b32 %r3, 0;\n{body}");
        let setup = Setup {
            threads: 128,
            shared: 65536,
            input,
            output: (128 * registers) as usize,
            ..Setup::default()
        };
        let out = run(&body, &setup);
        for thread in 0..128 {
            for i in 0..registers {
                let (row, column) = place(thread, i);
                let product: i32 = (0..16).map(|k| a(row, k) * b(k, column)).sum();
                let sum = product * scales.0 * scales.1 + if scale_d { c(row, column) } else { 0 };
                let got = f32::from_bits(out[(128 * i + thread) as usize]);
                assert_eq!(
                    got, sum as f32,
                    "n{n} {kind} A {a_layout:?} B {b_layout:?} step {step}: row {row}, column {column}"
                );
            }
        }
    }
}

const PLAIN: Layout = Layout { span: 0, mn_major: false, leading: 128, stride: 256 };

fn simple(n: u32) -> Case {
    Case { n, kind: "bf16", a: Some(PLAIN), b: PLAIN, step: 0, scale_d: true, scales: (1, 1) }
}

/// Any multiple of 8 up to 256.
#[test]
fn accumulators_of_every_width() {
    for n in (8..=256).step_by(8) {
        simple(n).check();
    }
}

#[test]
fn both_half_precision_types() {
    for kind in ["bf16", "f16"] {
        Case { kind, ..simple(32) }.check();
        Case { kind, a: None, ..simple(32) }.check();
    }
}

#[test]
fn a_in_registers_has_its_fragment() {
    for n in [8, 64, 136, 256] {
        Case { a: None, ..simple(n) }.check();
    }
}

/// Without scale-d the accumulator is not read: it may hold anything, even nothing.
#[test]
fn scales_of_the_operands() {
    for scales in [(1, 1), (1, -1), (-1, 1), (-1, -1)] {
        for scale_d in [false, true] {
            Case { scales, scale_d, ..simple(16) }.check();
            Case { scales, scale_d, a: None, ..simple(16) }.check();
        }
    }
}

/// Core matrices next to each other along K or along M, and far apart.
#[test]
fn unswizzled_layouts() {
    for (leading, stride) in [(128, 256), (1024, 128), (144, 1008), (4096, 144)] {
        for mn_major in [false, true] {
            let layout = Layout { span: 0, mn_major, leading, stride };
            for n in [8, 64] {
                if u64::from(n / 8 * stride + leading) < 16384 {
                    Case { a: Some(layout), b: layout, ..simple(n) }.check();
                }
            }
        }
    }
}

/// Rows of a span, eight to a pattern; the leading offset does not matter.
#[test]
fn swizzled_layouts_along_k() {
    for span in [32, 64, 128] {
        for (leading, stride) in [(16, 8 * span), (0, 16 * span), (4096, 8 * span)] {
            let layout = Layout { span, mn_major: false, leading, stride };
            for n in [8, 72] {
                Case { a: Some(layout), b: layout, ..simple(n) }.check();
                Case { a: None, b: layout, ..simple(n) }.check();
            }
        }
    }
}

/// The next 16 elements along K lie 32 bytes further in the same span: the pattern follows the address, not the start.
#[test]
fn steps_along_k_within_a_span() {
    for (span, steps) in [(64, 2), (128, 4)] {
        let layout = Layout { span, mn_major: false, leading: 16, stride: 8 * span };
        for step in 0..steps {
            Case { a: Some(layout), b: layout, step: 32 * step, ..simple(64) }.check();
        }
    }
}

/// Columns of a span; the leading offset goes to the next span along M or N, the stride to the next eight along K.
#[test]
fn swizzled_layouts_along_m_and_n() {
    for span in [32_u32, 64, 128] {
        let atom = 8 * span;
        // Two atoms along K for each along M, or all along M before the next along K.
        for (leading, stride) in [(2 * atom, atom), (atom, 4096)] {
            let layout = Layout { span, mn_major: true, leading, stride };
            for n in [span / 2, 64, 128] {
                if n / (span / 2) * leading + stride < 16384
                    && (stride >= n / (span / 2) * leading || stride == atom)
                {
                    Case { a: Some(layout), b: layout, ..simple(n) }.check();
                    Case { a: None, b: layout, ..simple(n) }.check();
                }
            }
        }
    }
}

#[test]
fn the_two_operands_have_layouts_of_their_own() {
    let along_k = |span: u32| Layout { span, mn_major: false, leading: 16, stride: 8 * span };
    let along_mn = |span: u32| Layout { span, mn_major: true, leading: 16 * span, stride: 8 * span };
    for (a, b) in [
        (along_k(128), along_mn(128)),
        (along_mn(128), along_k(128)),
        (along_k(64), along_mn(32)),
        (PLAIN, along_mn(64)),
        (along_mn(32), Layout { mn_major: true, ..PLAIN }),
    ] {
        Case { a: Some(a), b, ..simple(64) }.check();
    }
}

/// Products on one accumulator need no wait between them, and add up in order.
#[test]
fn products_accumulate_across_instructions() {
    let mut halves = vec![0_u16; 8192];
    for k in 0..16 {
        for row in 0..64 {
            halves[PLAIN.address(0, row, k) as usize / 2] = encode(a(row, k), "bf16");
        }
        for column in 0..8 {
            halves[PLAIN.address(8192, column, k) as usize / 2] = encode(b(k, column), "bf16");
        }
    }
    let input = words(&halves);
    let mut body = fill(input.len());
    body += &PLAIN.descriptor("%rd12", 0);
    body += &PLAIN.descriptor("%rd13", 8192);
    body += "
    mov.pred %p1, 0;
    mov.pred %p2, 1;
    wgmma.fence.sync.aligned;\n";
    let mma = |d: &str, p: &str| {
        format!(
            "    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{{d}}}, %rd12, %rd13, {p}, 1, 1, 0, 0;\n"
        )
    };
    let (first, second) = (list("%f", 0, 4), list("%f", 4, 4));
    body += &mma(&first, "%p1");
    body += &mma(&first, "%p2");
    body += "    wgmma.commit_group.sync.aligned;\n";
    body += &mma(&second, "%p1");
    body += "    wgmma.commit_group.sync.aligned;\n    wgmma.wait_group.sync.aligned 1;\n";
    // The first group is over, the second may be under way.
    body += "    add.f32 %f10, %f0, %f1;\n    wgmma.wait_group.sync.aligned 0;\n    mad.wide.u32 %rd11, %r0, 4, %rd1;\n";
    for i in 0..8 {
        body += &format!("    st.global.b32 [%rd11+{}], %f{i};\n", 512 * i);
    }
    let setup = Setup { threads: 128, input, output: 1024, ..Setup::default() };
    let out = run(&body, &setup);
    for thread in 0..128 {
        for i in 0..4 {
            let (row, column) = place(thread, i);
            let product: i32 = (0..16).map(|k| a(row, k) * b(k, column)).sum();
            let got = |register: u32| f32::from_bits(out[(128 * register + thread) as usize]);
            assert_eq!((got(i), got(4 + i)), (2.0 * product as f32, product as f32), "{row} {column}");
        }
    }
}

/// Registers belong to the tensor core until the wait that covers them.
#[test]
fn registers_in_flight_are_out_of_bounds() {
    let halves = vec![0_u16; 8192];
    let input = words(&halves);
    let mut head = fill(input.len());
    head += &PLAIN.descriptor("%rd12", 0);
    head += &PLAIN.descriptor("%rd13", 8192);
    for i in 0..4 {
        head += &format!("    mov.b32 %r{}, 0;\n    mov.b32 %f{i}, 0;\n", 30 + i);
    }
    head += "    mov.pred %p2, 1;\n    wgmma.fence.sync.aligned;\n";
    let smem = "    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0,%f1,%f2,%f3}, %rd12, %rd13, %p2, 1, 1, 0, 0;\n";
    let regs = "    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0,%f1,%f2,%f3}, {%r30,%r31,%r32,%r33}, %rd13, %p2, 1, 1, 0;\n";
    let commit = "    wgmma.commit_group.sync.aligned;\n";
    let wait = "    wgmma.wait_group.sync.aligned 0;\n";
    let setup = Setup { threads: 128, input, ..Setup::default() };
    let says = "wgmma of line";
    for (mma, use_of) in [
        (smem, "    add.f32 %f10, %f2, %f2;\n"),
        (smem, "    mov.b32 %f3, 0;\n"),
        (regs, "    mov.b32 %r31, 1;\n"),
    ] {
        fault(&format!("{head}{mma}{use_of}{commit}{wait}"), &setup, says);
        fault(&format!("{head}{mma}{commit}{use_of}{wait}"), &setup, says);
        let later = format!("{head}{mma}{commit}    wgmma.wait_group.sync.aligned 1;\n{use_of}{wait}");
        fault(&later, &setup, says);
        let fine = format!("{head}{mma}{commit}{wait}{use_of}");
        run(&fine, &setup);
    }
}
