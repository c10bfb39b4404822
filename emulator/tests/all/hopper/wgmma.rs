//! `wgmma`: layouts of the operands, shapes, scales, and the rules of registers in flight.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use super::{bytes, fault, modes, options, run_bytes, says, threads, values, wait, words};
use nabla_emulator::Completion;

/// Bits of a value as bf16, or as f16 for values of few bits.
fn narrow(x: f32, bf16: bool) -> u16 {
    if bf16 || x == 0.0 {
        return (x.to_bits() >> 16) as u16;
    }
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    (bits >> 16 & 0x8000) as u16 | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
}

/// How an operand lies in shared memory: span of the swizzle in bytes (16 for none) and whether k runs fastest.
#[derive(Clone, Copy, Debug)]
struct Layout {
    span: u32,
    k_major: bool,
}

/// An operand of `size` rows (along M or N) and `k` columns at an address: its bytes, and the descriptor of each k step.
struct Operand {
    image: Vec<u8>,
    descriptors: Vec<u64>,
}

/// Lays a matrix out by the canonical layouts of the PTX ISA. `value(row, k)` gives the elements.
fn lay_out(
    layout: Layout,
    at: u32,
    size: u32,
    k: u32,
    bf16: bool,
    value: impl Fn(u32, u32) -> f32,
) -> Operand {
    let Layout { span, k_major } = layout;
    let bytes_of = |bytes: u32| u64::from(bytes >> 4 & 0x3fff);
    let mode: u64 = match span {
        16 => 0,
        128 => 1,
        64 => 2,
        _ => 3,
    };
    // Elements along the major dimension in one span, and bytes from one such group to the next, chosen by hand.
    let per_span = span / 2;
    let major = if k_major { k } else { size };
    let minor = if k_major { size } else { k };
    let atom = span * 8;
    let mut image = vec![0; (major.next_multiple_of(per_span) * minor.next_multiple_of(8) * 2) as usize];
    // Atoms of 8 rows by one span: first those that follow along the minor dimension, then the major one.
    let minor_step = atom;
    let major_step = atom * minor.div_ceil(8);
    for row in 0..size {
        for column in 0..k {
            let (fast, slow) = if k_major { (column, row) } else { (row, column) };
            let in_atom = slow % 8 * span + fast % per_span * 2;
            let plain = slow / 8 * minor_step + fast / per_span * major_step + in_atom;
            let line = (at + plain) / 128 % 8;
            let flips = match span {
                128 => line,
                64 => line & 3,
                32 => line & 1,
                _ => 0,
            };
            let place = ((at + plain) ^ flips << 4) - at;
            let bits = narrow(value(row, column), bf16).to_le_bytes();
            image[place as usize..place as usize + 2].copy_from_slice(&bits);
        }
    }
    let descriptors = (0..k / 16)
        .map(|step| {
            let (start, leading, stride) = match (k_major, span) {
                // Without swizzle chunks along k are whole atoms apart.
                (true, 16) => (2 * step * major_step, major_step, minor_step),
                (true, _) => {
                    let fast = step * 16;
                    (fast / per_span * major_step + fast % per_span * 2, 0, minor_step)
                }
                (false, 16) => (2 * step * minor_step, minor_step, major_step),
                (false, _) => (2 * step * minor_step, major_step, minor_step),
            };
            bytes_of(at + start) | bytes_of(leading) << 16 | bytes_of(stride) << 32 | mode << 62
        })
        .collect();
    Operand { image, descriptors }
}

const LAYOUTS: [Layout; 8] = [
    Layout { span: 16, k_major: true },
    Layout { span: 32, k_major: true },
    Layout { span: 64, k_major: true },
    Layout { span: 128, k_major: true },
    Layout { span: 16, k_major: false },
    Layout { span: 32, k_major: false },
    Layout { span: 64, k_major: false },
    Layout { span: 128, k_major: false },
];

#[derive(Clone, Copy)]
struct Case {
    n: u32,
    k: u32,
    bf16: bool,
    half: bool,
    a: Option<Layout>,
    b: Layout,
    scales: (i32, i32),
    /// Add to what is in the accumulators (row + column / 8) instead of starting from zero.
    accumulate: bool,
}

const PLAIN: Case = Case {
    n: 64,
    k: 64,
    bf16: true,
    half: false,
    a: Some(Layout { span: 128, k_major: true }),
    b: Layout { span: 128, k_major: true },
    scales: (1, 1),
    accumulate: false,
};

/// Registers `%r{first}` and up as a list.
fn list(first: u32, count: u32) -> String {
    let names: Vec<String> = (first..first + count).map(|at| format!("%r{at}")).collect();
    format!("{{{}}}", names.join(", "))
}

/// Accumulators start at `%r100`, fragments of A at `%r40`.
fn product(case: &Case, a: &str, b: &str, scale_d: &str) -> String {
    let count = case.n / if case.half { 4 } else { 2 };
    let types = match (case.half, case.bf16) {
        (true, _) => "f16.f16.f16",
        (false, true) => "f32.bf16.bf16",
        (false, false) => "f32.f16.f16",
    };
    let (x, y) = case.scales;
    let a_major = case.a.map_or(String::new(), |layout| format!(", {}", u32::from(!layout.k_major)));
    format!(
        "    wgmma.mma_async.sync.aligned.m64n{}k16.{types} {}, {a}, {b}, {scale_d}, {x}, {y}{a_major}, {};\n",
        case.n,
        list(100, count),
        u32::from(!case.b.k_major)
    )
}

/// Runs a case; the result as `[row][column]`.
fn multiply(case: &Case) -> (Vec<f32>, Vec<f32>) {
    let (n, k) = (case.n as usize, case.k as usize);
    let (a, b) = (values(1, 64 * k), values(2, n * k));
    let at_b = 16 * 1024;
    let a_of = |row: u32, column: u32| a[row as usize * k + column as usize];
    let b_of = |row: u32, column: u32| b[row as usize * k + column as usize];
    let mut image = vec![0; 40 * 1024];
    let mut put =
        |at: u32, bytes: &[u8]| image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    let first = case.a.map(|layout| lay_out(layout, 0, 64, case.k, case.bf16, a_of));
    let second = lay_out(case.b, at_b, case.n, case.k, case.bf16, b_of);
    put(at_b, &second.image);
    match &first {
        Some(first) => put(0, &first.image),
        // Rows of A as they are, for the fragments.
        None => {
            let plain: Vec<u8> = a.iter().flat_map(|x| narrow(*x, case.bf16).to_le_bytes()).collect();
            put(0, &plain);
        }
    }
    let count = case.n / if case.half { 4 } else { 2 };
    let mut body = String::from(
        "
    .shared .align 1024 .b8 more[16384];
    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [more+16376], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [more+16376], 40960;
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [smem], [%rd0], 40960, [more+16376];
    shr.u32 %r1, %r0, 5;
    and.b32 %r2, %r0, 31;
    shr.u32 %r3, %r2, 2;
    mad.lo.s32 %r3, %r1, 16, %r3;
    and.b32 %r4, %r2, 3;
    shl.b32 %r4, %r4, 1;",
    );
    body += &wait("more+16376", "0", "LOADED");
    // Accumulators: (row + column) / 8, or zero where they do not count.
    for register in 0..count {
        let half = u32::from(case.half);
        let (block, within) =
            if case.half { (register / 2, register % 2 * 2) } else { (register / 4, register % 4) };
        let row = within / 2 * 8;
        for part in 0..=half {
            let column = 8 * block + if case.half { part } else { within % 2 };
            body += &format!(
                "
    add.s32 %r10, %r3, {row};
    add.s32 %r11, %r4, {column};
    add.s32 %r10, %r10, %r11;
    cvt.rn.f32.u32 %r10, %r10;
    mul.f32 %r{}, %r10, 0f3E000000;",
                if case.half { 12 + part } else { 100 + register }
            );
        }
        if case.half {
            body += &format!("\n    cvt.rn.f16x2.f32 %r{}, %r13, %r12;", 100 + register);
        }
    }
    body += "\n    wgmma.fence.sync.aligned;\n";
    for step in 0..case.k / 16 {
        let b = format!("%rd{}", 20 + step);
        let mut setup = format!("    mov.b64 {b}, {};\n", second.descriptors[step as usize]);
        let a = match &first {
            Some(first) => {
                setup += &format!("    mov.b64 %rd{}, {};\n", 10 + step, first.descriptors[step as usize]);
                format!("%rd{}", 10 + step)
            }
            None => {
                // Registers i of lane 4 g + t: row 16 w + g + 8 (i % 2), columns 2 t + 8 (i / 2).
                for i in 0..4 {
                    setup += &format!(
                        "    add.s32 %r10, %r3, {};
    mad.lo.s32 %r10, %r10, {}, %r4;
    shl.b32 %r10, %r10, 1;
    ld.shared.b32 %r{}, [%r10+{}];\n",
                        i % 2 * 8,
                        case.k,
                        40 + 4 * step + i,
                        (16 * step + 8 * (i / 2)) * 2
                    );
                }
                setup += "    wgmma.fence.sync.aligned;\n";
                list(40 + 4 * step, 4)
            }
        };
        let scale_d = if step == 0 && !case.accumulate { "%p3" } else { "%p4" };
        setup += "    setp.ne.u32 %p3, %r0, %r0;\n    setp.eq.u32 %p4, %r0, %r0;\n";
        body += &setup;
        body += &product(case, &a, &b, scale_d);
    }
    body += "
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;\n";
    body += &format!("    mad.wide.u32 %rd2, %r0, {}, %rd1;\n", 4 * count);
    for register in 0..count {
        body += &format!("    st.global.b32 [%rd2+{}], %r{};\n", 4 * register, 100 + register);
    }
    let mut results = Vec::new();
    for options in modes() {
        let (out, report) = run_bytes(&body, threads(128), &image, 128 * 4 * count as usize, &options)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(report.counters.wgmma, u64::from(case.k / 16));
        assert_eq!(report.counters.wgmma_flops, 2 * 64 * u64::from(case.n * case.k));
        results.push(words(&out));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the modes differ");
    let registers = results.pop().unwrap();
    let mut got = vec![f32::NAN; 64 * n];
    for (at, bits) in registers.iter().enumerate() {
        let (thread, register) = (at / count as usize, at % count as usize);
        let (warp, g, t) = (thread / 32, thread % 32 / 4, thread % 4);
        if case.half {
            let (row, column) = (16 * warp + g + register % 2 * 8, register / 2 * 8 + 2 * t);
            for part in 0..2 {
                got[row * n + column + part] = wide(*bits >> (16 * part));
            }
        } else {
            let (row, column) =
                (16 * warp + g + register % 4 / 2 * 8, register / 4 * 8 + 2 * t + register % 2);
            got[row * n + column] = f32::from_bits(*bits);
        }
    }
    let sign = (case.scales.0 * case.scales.1) as f32;
    let mut expected = vec![0.0; 64 * n];
    for row in 0..64 {
        for column in 0..n {
            let sum: f32 = (0..k).map(|i| a[row * k + i] * b[column * k + i]).sum();
            let start = if case.accumulate { (row + column) as f32 / 8.0 } else { 0.0 };
            expected[row * n + column] = start + sign * sum;
        }
    }
    (got, expected)
}

/// An f16 of a normal value or zero.
fn wide(bits: u32) -> f32 {
    let magnitude = bits & 0x7fff;
    let value = if magnitude == 0 { 0.0 } else { f32::from_bits((magnitude << 13) + ((127 - 15) << 23)) };
    if bits & 0x8000 == 0 { value } else { -value }
}

#[track_caller]
fn agrees(case: &Case) {
    let (got, expected) = multiply(case);
    for (at, (x, y)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(x, y, "row {}, column {}", at / case.n as usize, at % case.n as usize);
    }
}

#[test]
fn every_layout_of_both_operands() {
    for a in LAYOUTS {
        for b in [LAYOUTS[3], LAYOUTS[6]] {
            agrees(&Case { a: Some(a), b, ..PLAIN });
        }
    }
    for b in LAYOUTS {
        agrees(&Case { b, n: 128, ..PLAIN });
    }
}

#[test]
fn every_width() {
    for n in (8..=256).step_by(8) {
        let k = if n > 192 { 32 } else { 64 };
        agrees(&Case { n, k, b: LAYOUTS[2], a: Some(LAYOUTS[2]), ..PLAIN });
    }
}

#[test]
fn a_from_registers_and_f16() {
    for (bf16, b) in [(true, LAYOUTS[3]), (true, LAYOUTS[7]), (false, LAYOUTS[3])] {
        agrees(&Case { a: None, bf16, b, ..PLAIN });
    }
    agrees(&Case { bf16: false, n: 96, ..PLAIN });
}

#[test]
fn scales_and_accumulators() {
    for scales in [(1, 1), (-1, 1), (1, -1), (-1, -1)] {
        agrees(&Case { scales, accumulate: true, ..PLAIN });
    }
}

#[test]
fn accumulators_of_f16_are_rounded_after_each_step() {
    for accumulate in [false, true] {
        let case = Case { half: true, bf16: false, k: 16, accumulate, ..PLAIN };
        let (got, expected) = multiply(&case);
        for (x, y) in got.iter().zip(&expected) {
            assert!((x - y).abs() <= y.abs() * 2.0_f32.powi(-11), "{x} {y}");
        }
    }
}

/// Shared memory holds zeros; `%rd10` describes them.
fn zeros(body: &str) -> String {
    format!(
        "
    mov.u32 %r1, %r0;
FILL:
    shl.b32 %r2, %r1, 2;
    st.shared.b32 [%r2], 0;
    add.s32 %r1, %r1, 128;
    setp.lt.u32 %p1, %r1, 4096;
    @%p1 bra FILL;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    mov.b64 %rd10, {};
    setp.eq.u32 %p4, %r0, %r0;
    setp.ne.u32 %p3, %r0, %r0;
    mov.b32 %r40, 0;
    mov.b32 %r41, 0;
    mov.b32 %r42, 0;
    mov.b32 %r43, 0;
    mov.b32 %r100, 0;
    mov.b32 %r101, 0;
    mov.b32 %r102, 0;
    mov.b32 %r103, 0;
{body}",
        1_u64 << 62 | 64 << 32 | 1 << 16
    )
}

const FENCE: &str = "    wgmma.fence.sync.aligned;\n";
const COMMIT: &str = "    wgmma.commit_group.sync.aligned;\n";
const WAIT: &str = "    wgmma.wait_group.sync.aligned 0;\n";
const SMALL: &str = "    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r100, %r101, %r102, %r103}, %rd10, %rd10, %p4, 1, 1, 0, 0;\n";
const SMALL_RS: &str = "    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r100, %r101, %r102, %r103}, {%r40, %r41, %r42, %r43}, %rd10, %p4, 1, 1, 0;\n";

#[test]
fn registers_in_flight_are_out_of_bounds() {
    let body = |parts: &[&str]| zeros(&parts.concat());
    let fine = [FENCE, SMALL, SMALL, COMMIT, SMALL, COMMIT, WAIT, "    add.f32 %r5, %r100, %r101;\n"];
    run_bytes(&body(&fine), threads(128), &[0; 64], 4, &options(Completion::Late, 0)).unwrap();
    let early = [FENCE, SMALL, COMMIT, "    add.f32 %r5, %r100, %r100;\n", WAIT];
    for completion in [Completion::Late, Completion::Eager] {
        let result = run_bytes(&body(&early), threads(128), &[0; 64], 4, &options(completion, 0));
        says(
            &result.unwrap_err(),
            &["a register that the wgmma of line", "still uses: wait with wgmma.wait_group", "add.f32"],
        );
    }
    let says_of = |parts: &[&str], text: &str| says(&fault(&body(parts), threads(128)), &[text]);
    says_of(&[FENCE, SMALL, COMMIT, "    mov.b32 %r100, 0;\n", WAIT], "still uses");
    says_of(&[FENCE, SMALL, "    mov.b32 %r5, %r103;\n", COMMIT, WAIT], "still uses");
    says_of(&[FENCE, SMALL_RS, COMMIT, "    mov.b32 %r41, 0;\n", WAIT], "still uses");
    // A wait for all but the last group, and one without a commit, cover nothing here.
    let one = "    wgmma.wait_group.sync.aligned 1;\n";
    says_of(&[FENCE, SMALL, COMMIT, one, "    mov.b32 %r5, %r103;\n", WAIT], "still uses");
    // The second group still adds to what the first has made.
    says_of(&[FENCE, SMALL, COMMIT, SMALL, COMMIT, one, "    mov.b32 %r5, %r103;\n", WAIT], "still uses");
    says_of(&[FENCE, SMALL, WAIT, "    mov.b32 %r5, %r103;\n"], "still uses");
    says_of(&[FENCE, SMALL, COMMIT], "exits while wgmma of lines");
}

#[test]
fn fences_are_asked_for() {
    let says_of = |parts: &[&str], text: &str| says(&fault(&zeros(&parts.concat()), threads(128)), &[text]);
    says_of(&[SMALL, COMMIT, WAIT], "wgmma before the first wgmma.fence");
    says_of(
        &[FENCE, SMALL, COMMIT, WAIT, "    mov.b32 %r101, 0;\n", SMALL, COMMIT, WAIT],
        "accumulator 1 was accessed after the last wgmma.fence",
    );
    says_of(
        &[FENCE, "    mov.b32 %r42, 0;\n", SMALL_RS, COMMIT, WAIT],
        "register 2 of matrix A was accessed after the last wgmma.fence",
    );
    let other = SMALL.replace("m64n8k16", "m64n16k16").replace("%r103}", "%r103, %r40, %r41, %r42, %r43}");
    says_of(&[FENCE, SMALL, COMMIT, &other, COMMIT, WAIT], "of another shape since the last wgmma.fence");
    let swapped = SMALL_RS
        .replace("{%r40, %r41, %r42, %r43}", "{%r104, %r105, %r106, %r107}")
        .replace("{%r100, %r101, %r102, %r103}", "{%r40, %r41, %r42, %r43}")
        .replace("{%r104, %r105, %r106, %r107}", "{%r100, %r101, %r102, %r103}");
    says_of(
        &[FENCE, SMALL, COMMIT, &swapped, COMMIT, WAIT],
        "register 0 of matrix A is an accumulator in flight",
    );
    says_of(&[FENCE, SMALL_RS, COMMIT, &swapped, COMMIT, WAIT], "is matrix A of a wgmma in flight");
    // With waits and fences between them all of these are fine.
    let fine = [FENCE, SMALL_RS, COMMIT, WAIT, FENCE, &swapped, COMMIT, WAIT, FENCE, &other, COMMIT, WAIT];
    run_bytes(&zeros(&fine.concat()), threads(128), &[0; 64], 4, &options(Completion::Late, 0)).unwrap();
}

#[test]
fn the_warps_of_a_warpgroup_must_agree() {
    let says_of = |body: &str, count: u32, text: &str| says(&fault(&zeros(body), threads(count)), &[text]);
    let all = [FENCE, SMALL, COMMIT, WAIT].concat();
    says_of(&all, 96, "needs a whole warpgroup, 4 warps of 32 threads; the CTA has 96 threads");
    let shifted = format!(
        "    shr.u32 %r5, %r0, 6;\n    cvt.u64.u32 %rd5, %r5;\n    add.s64 %rd10, %rd10, %rd5;\n{all}"
    );
    says_of(&shifted, 128, "execute this wgmma with different operands");
    let skipped = format!(
        "    setp.ge.u32 %p2, %r0, 96;\n    @%p2 bra SKIP;\n{all}    bra DONE;\nSKIP:\n{FENCE}DONE:\n"
    );
    says_of(&skipped, 128, "another warp of this warpgroup executed line");
    let absent = format!("    setp.ge.u32 %p2, %r0, 96;\n    @%p2 exit;\n{all}");
    says_of(&absent, 128, "the warp exits, but other warps of its warpgroup executed line");
    let reserved = format!("    or.b64 %rd10, %rd10, 0x8000;\n{all}");
    says_of(&reserved, 128, "has reserved bits set (0x8000)");
    let lanes = format!("    cvt.u64.u32 %rd5, %r0;\n    add.s64 %rd10, %rd10, %rd5;\n{all}");
    says_of(&lanes, 128, "the lanes of a warp hold different matrix descriptors");
}

#[test]
fn operands_must_be_there_and_stay() {
    // 32 KiB are zeroed in part only.
    let far = format!("    add.s64 %rd10, %rd10, 1536;\n{FENCE}{SMALL}{COMMIT}{WAIT}");
    says(&fault(&zeros(&far), threads(128)), &["never written", "wgmma.mma_async"]);
    let copy = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
    let flying = format!(
        "    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [smem+20480], 1;
    fence.mbarrier_init.release.cluster;
    @%p0 {copy} [smem], [%rd0], 64, [smem+20480];
    bar.sync 0;
{FENCE}{SMALL}{COMMIT}{WAIT}"
    );
    says(
        &fault(&zeros(&flying), threads(128)),
        &["while a bulk copy to them is in flight", "wgmma.mma_async"],
    );
    let overtaken = format!(
        "    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [smem+20480], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
{FENCE}{SMALL}{COMMIT}
    @%p0 {copy} [smem], [%rd0], 64, [smem+20480];
{WAIT}"
    );
    says(
        &fault(&zeros(&overtaken), threads(128)),
        &["an operand of the wgmma of line", "changed before the wait"],
    );
}

#[test]
fn unwritten_accumulators_count_only_where_they_are_read() {
    let fresh = SMALL.replace("{%r100, %r101, %r102, %r103}", "{%r200, %r201, %r202, %r203}");
    let body = |scale: &str| zeros(&[FENCE, &fresh.replace("%p4", scale), COMMIT, WAIT].concat());
    says(&fault(&body("%p4"), threads(128)), &["register that was never written"]);
    for scale in ["%p3", "0", "!%p4"] {
        run_bytes(&body(scale), threads(128), &bytes(&[0]), 4, &options(Completion::Late, 0)).unwrap();
    }
}
