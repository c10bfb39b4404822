//! Memory instructions against the PTX ISA: widths and vectors, atomics and reductions, `cp.async`, address spaces.

use crate::common::{kernel, lanes, run_with};
use nabla_emulator::{Completion, Options};

/// One thread with the input in `%rd0` and the output in `%rd1`.
fn one(body: &str, input: &[u32], output: usize) -> Vec<u32> {
    let head =
        "    .shared .align 16 .b8 pad[64];\n    ld.param.b64 %rd0, [in];\n    ld.param.b64 %rd1, [out];\n";
    run_with(&kernel(&format!("{head}{body}")), 1, 0, input, output, &Options::default())
        .unwrap_or_else(|fault| panic!("{body}: {fault}"))
        .0
}

/// A loaded value fills a wider register by the sign of its type; a store takes the low bits.
#[test]
fn loads_and_stores_of_every_width() {
    let input = [0x8391_a2f4, 0xf607_1829];
    let memory = u64::from(input[0]) | u64::from(input[1]) << 32;
    for (kind, bytes, signed) in [
        ("b8", 1, false),
        ("u8", 1, false),
        ("s8", 1, true),
        ("b16", 2, false),
        ("u16", 2, false),
        ("s16", 2, true),
        ("b32", 4, false),
        ("u32", 4, false),
        ("s32", 4, true),
        ("f32", 4, false),
        ("b64", 8, false),
        ("s64", 8, true),
    ] {
        for offset in (0..8).step_by(bytes) {
            let cut = 64 - 8 * bytes as u32;
            let raw = memory >> (8 * offset) << cut;
            let expected = if signed { (raw as i64 >> cut) as u64 } else { raw >> cut };
            if kind != "f32" {
                let body =
                    format!("    ld.global.{kind} %rd5, [%rd0+{offset}];\n    st.global.b64 [%rd1], %rd5;");
                let out = one(&body, &input, 2);
                let got = u64::from(out[0]) | u64::from(out[1]) << 32;
                assert_eq!(got, expected, "{kind} at {offset} to 64 bits");
            }
            if bytes <= 4 {
                let body =
                    format!("    ld.global.{kind} %r5, [%rd0+{offset}];\n    st.global.b32 [%rd1], %r5;");
                assert_eq!(one(&body, &input, 1)[0], expected as u32, "{kind} at {offset} to 32 bits");
            }
            if bytes <= 2 {
                let body =
                    format!("    ld.global.{kind} %rs5, [%rd0+{offset}];\n    st.global.b16 [%rd1], %rs5;");
                assert_eq!(
                    one(&body, &input, 1)[0],
                    expected as u32 & 0xffff,
                    "{kind} at {offset} to 16 bits"
                );
            }
        }
        if bytes < 8 {
            let body = format!(
                "    ld.global.b64 %rd5, [%rd0];\n    st.global.{} [%rd1+8], %rd5;",
                kind.replace(['f', 's'], "b")
            );
            let out = one(&body, &input, 4);
            let mask = u32::MAX >> (32 - 8 * bytes);
            assert_eq!(out, [0, 0, input[0] & mask, 0], "a store of {kind}");
        }
    }
}

#[test]
fn vectors_keep_their_order_in_every_space() {
    let input: Vec<u32> = (1..=4).map(|x| x * 0x1111_1111).collect();
    for (load, store) in [
        ("ld.global.v4.b32 {%r1,%r2,%r3,%r4}, [%rd0];", "st.shared.v4.b32 [pad], {%r1,%r2,%r3,%r4};"),
        ("ld.global.v2.b64 {%rd5,%rd6}, [%rd0];", "st.shared.v2.b64 [pad], {%rd5,%rd6};"),
        (
            "ld.global.v2.u32 {%r1,%r2}, [%rd0];\n ld.v2.b32 {%r3,%r4}, [%rd0+8];",
            "st.shared.v2.b32 [pad], {%r1,%r2};\n st.shared.v2.b32 [pad+8], {%r3,%r4};",
        ),
    ] {
        let body = format!(
            "    {load}\n    {store}\n    ld.shared.v4.b32 {{%r10,%r11,%r12,%r13}}, [pad];\n    st.global.v4.b32 [%rd1], {{%r10,%r11,%r12,%r13}};"
        );
        assert_eq!(one(&body, &input, 4), input, "{load}");
    }
    let bytes =
        "    ld.global.v4.u8 {%r1,%r2,%r3,%r4}, [%rd0];\n    st.global.v4.b32 [%rd1], {%r1,%r2,%r3,%r4};";
    assert_eq!(one(bytes, &[0x8403_0201], 4), [1, 2, 3, 0x84]);
    let halves = "    ld.global.v2.s16 {%r1,%r2}, [%rd0];\n    st.global.v2.b32 [%rd1], {%r1,%r2};";
    assert_eq!(one(halves, &[0x8000_7fff], 2), [0x7fff, 0xffff_8000]);
}

/// Old value and new value of each operation on each type, by `atom` in three spaces and by `red`.
#[test]
fn atomic_operations_return_the_old_value() {
    type Op = fn(u64, u64, u64) -> u64;
    let forms: [(&str, Op); 22] = [
        ("add.u32", |a, b, _| u64::from((a as u32).wrapping_add(b as u32))),
        ("add.s32", |a, b, _| u64::from((a as u32).wrapping_add(b as u32))),
        ("add.u64", |a, b, _| a.wrapping_add(b)),
        ("add.f32", |a, b, _| u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits())),
        ("add.f64", |a, b, _| (f64::from_bits(a) + f64::from_bits(b)).to_bits()),
        ("min.u32", |a, b, _| a.min(b)),
        ("max.u32", |a, b, _| a.max(b)),
        ("min.s32", |a, b, _| u64::from((a as i32).min(b as i32) as u32)),
        ("max.s32", |a, b, _| u64::from((a as i32).max(b as i32) as u32)),
        ("min.u64", |a, b, _| a.min(b)),
        ("max.s64", |a, b, _| (a as i64).max(b as i64) as u64),
        ("and.b32", |a, b, _| a & b),
        ("or.b32", |a, b, _| a | b),
        ("xor.b32", |a, b, _| a ^ b),
        ("and.b64", |a, b, _| a & b),
        ("xor.b64", |a, b, _| a ^ b),
        ("exch.b32", |_, b, _| b),
        ("exch.b64", |_, b, _| b),
        ("cas.b32", |a, b, c| if a == b { c } else { a }),
        ("cas.b64", |a, b, c| if a == b { c } else { a }),
        ("inc.u32", |a, b, _| if a >= b { 0 } else { a + 1 }),
        ("dec.u32", |a, b, _| if a == 0 || a > b { b } else { a - 1 }),
    ];
    let narrow = [0, 1, 5, 6, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    let wide = [0, 1, 1 << 40, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX];
    for (name, op) in forms {
        let is_wide = name.ends_with("64");
        let values: Vec<u64> = match name {
            "add.f32" => [0.0_f32, 1.5, -2.25, 1e20].map(|x| u64::from(x.to_bits())).to_vec(),
            "add.f64" => [0.0_f64, 1.5, -2.25, 1e200].map(f64::to_bits).to_vec(),
            _ if is_wide => wide.to_vec(),
            _ => narrow.to_vec(),
        };
        let (r, bits) = if is_wide { ("%rd", 64) } else { ("%r", 32) };
        for a in &values {
            for b in &values {
                let c = 77;
                let operands =
                    if name.starts_with("cas") { format!("{r}11, {r}12") } else { format!("{r}11") };
                for (kind, space, address) in [
                    ("atom", ".global", "%rd1"),
                    ("atom.relaxed.gpu", ".global", "%rd1"),
                    ("atom", "", "%rd1"),
                    ("atom", ".shared", "pad"),
                    ("red", ".global", "%rd1"),
                    ("red.release.gpu", "", "%rd1"),
                ] {
                    if kind.starts_with("red") && (name.starts_with("cas") || name.starts_with("exch")) {
                        continue;
                    }
                    let destination =
                        if kind.starts_with("red") { String::new() } else { format!("{r}13, ") };
                    let at = if space == ".shared" { "st.shared.b64 [pad]" } else { "st.global.b64 [%rd1]" };
                    let back = if space == ".shared" {
                        format!("ld.shared.b{bits} {r}14, [pad]")
                    } else {
                        format!("ld.global.b{bits} {r}14, [%rd1]")
                    };
                    let body = format!(
                        "    ld.global.b64 %rd5, [%rd0];\n    {at}, %rd5;\n    ld.global.b{bits} {r}11, [%rd0+8];
    ld.global.b{bits} {r}12, [%rd0+16];\n    mov.b{bits} {r}13, 0;\n    {kind}{space}.{name} {destination}[{address}], {operands};
    {back};\n    mov.b64 %rd20, 0;\n    st.global.b64 [%rd1], %rd20;\n    st.global.b64 [%rd1+8], %rd20;
    st.global.b{bits} [%rd1], {r}13;\n    st.global.b{bits} [%rd1+8], {r}14;"
                    );
                    let words = |x: u64| [x as u32, (x >> 32) as u32];
                    let input: Vec<u32> = [*a, *b, c].into_iter().flat_map(words).collect();
                    let out = one(&body, &input, 4);
                    let pair = |at: usize| u64::from(out[at]) | u64::from(out[at + 1]) << 32;
                    let old = if kind.starts_with("red") { 0 } else { *a };
                    assert_eq!(
                        (pair(0), pair(2)),
                        (old, op(*a, *b, c)),
                        "{kind}{space}.{name} {a:#x} {b:#x}"
                    );
                }
            }
        }
    }
}

/// Every lane's turn happens once: the old values of an increment are all different.
#[test]
fn atomics_of_many_lanes_exclude_each_other() {
    let text = lanes(
        "    atom.global.add.u32 %r2, [%rd1], 1;\n    mad.wide.u32 %rd5, %r2, 4, %rd1;\n    atom.global.add.u32 %r3, [%rd5+4], 5;",
    );
    let (out, _) =
        run_with(&text, 96, 0, &[0; 96], 97, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(out[0], 96);
    assert_eq!(out[1..], [5; 96]);
}

/// `cp.async` fills the rest of its size with zeros, from a source of any length down to none.
#[test]
fn asynchronous_copies_fill_with_zeros() {
    for completion in [Completion::Late, Completion::Eager] {
        for (form, size) in [("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)] {
            for source in 0..=size {
                let body = format!(
                    "    .shared .align 16 .b8 pad[64];\n    ld.param.b64 %rd0, [in];\n    ld.param.b64 %rd1, [out];
    st.shared.v4.b32 [pad], {{-1, -1, -1, -1}};\n    mov.b32 %r5, {source};
    cp.async.{form}.shared.global [pad], [%rd0], {size}, %r5;\n    cp.async.wait_all;
    ld.shared.v4.b32 {{%r1,%r2,%r3,%r4}}, [pad];\n    st.global.v4.b32 [%rd1], {{%r1,%r2,%r3,%r4}};"
                );
                let body = body
                    .replace("{-1, -1, -1, -1}", "{%r9, %r9, %r9, %r9}")
                    .replace("    st.shared.v4", "    mov.b32 %r9, -1;\n    st.shared.v4");
                let input = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
                let options = Options { completion, ..Options::default() };
                let (out, _) =
                    run_with(&kernel(&body), 1, 0, &input, 4, &options).unwrap_or_else(|f| panic!("{f}"));
                let bytes: Vec<u8> = out.iter().flat_map(|word| word.to_le_bytes()).collect();
                let expected: Vec<u8> = (0..16_u8)
                    .map(|at| match usize::from(at) {
                        at if at >= size => 0xff,
                        at if at < source => at as u8 + 1,
                        _ => 0,
                    })
                    .collect();
                assert_eq!(bytes, expected, "{form} {size} from {source}");
            }
        }
    }
}

/// A wait for all but N groups covers everything older, in the order of the commits, and each thread's own copies alone.
#[test]
fn waits_cover_the_oldest_groups() {
    let run = |wait: &str, read: u32| {
        let text = lanes(&format!(
            "
    .shared .align 16 .b8 pad[1024];
    mov.u32 %r10, pad;
    mad.lo.s32 %r10, %r0, 4, %r10;
    cp.async.ca.shared.global [%r10], [%rd2], 4;
    cp.async.ca.shared.global [%r10+256], [%rd2], 4;
    cp.async.commit_group;
    cp.async.commit_group;
    cp.async.ca.shared.global [%r10+512], [%rd2], 4;
    cp.async.commit_group;
    cp.async.ca.shared.global [%r10+768], [%rd2], 4;
    {wait}
    ld.shared.b32 %r1, [%r10+{}];
    st.global.b32 [%rd3], %r1;
    cp.async.wait_all;",
            256 * read
        ));
        let input: Vec<u32> = (100..164).collect();
        run_with(&text, 64, 0, &input, 64, &Options::default()).map(|(out, _)| assert_eq!(out, input)).is_ok()
    };
    // The groups: copies 0 and 1, nothing, copy 2, and copy 3 in none.
    let cases = [
        ("cp.async.wait_group 3;", [false, false, false, false]),
        ("cp.async.wait_group 2;", [true, true, false, false]),
        ("cp.async.wait_group 1;", [true, true, false, false]),
        ("cp.async.wait_group 0;", [true, true, true, false]),
        ("cp.async.wait_all;", [true; 4]),
        ("cp.async.commit_group; cp.async.wait_group 1;", [true, true, true, false]),
        ("cp.async.commit_group; cp.async.wait_group 0;", [true; 4]),
        ("", [false; 4]),
    ];
    for (wait, landed) in cases {
        for (copy, landed) in landed.into_iter().enumerate() {
            assert_eq!(run(wait, copy as u32), landed, "copy {copy} after `{wait}`");
        }
    }
}

/// A generic address of each space is found there, and is told apart by `isspacep`.
#[test]
fn generic_addresses_name_their_space() {
    let body = "
    .local .align 8 .b8 depot[16];
    mov.u32 %r1, pad;
    cvt.u64.u32 %rd5, %r1;
    cvta.shared.u64 %rd6, %rd5;
    mov.b64 %rd7, depot;
    cvta.local.u64 %rd8, %rd7;
    cvta.global.u64 %rd9, %rd1;
    mov.b32 %r2, 11;
    st.b32 [%rd6+4], %r2;
    ld.shared.b32 %r3, [pad+4];
    mov.b32 %r2, 22;
    st.local.b32 [%rd7+8], %r2;
    ld.b32 %r4, [%rd8+8];
    cvta.to.shared.u64 %rd10, %rd6;
    sub.s64 %rd10, %rd10, %rd5;
    cvta.to.local.u64 %rd11, %rd8;
    sub.s64 %rd11, %rd11, %rd7;
    st.b32 [%rd9], %r3;
    st.global.b32 [%rd1+4], %r4;
    st.global.b64 [%rd1+8], %rd10;
    st.global.b64 [%rd1+16], %rd11;
    isspacep.shared %p1, %rd6;
    isspacep.local %p2, %rd8;
    isspacep.global %p3, %rd9;
    isspacep.shared %p4, %rd9;
    isspacep.global %p5, %rd6;
    isspacep.local %p6, %rd6;
    selp.b32 %r5, 1, 0, %p1;
    selp.b32 %r6, 2, 0, %p2;
    selp.b32 %r7, 4, 0, %p3;
    selp.b32 %r8, 8, 0, %p4;
    selp.b32 %r9, 16, 0, %p5;
    selp.b32 %r10, 32, 0, %p6;
    add.s32 %r5, %r5, %r6;
    add.s32 %r5, %r5, %r7;
    add.s32 %r5, %r5, %r8;
    add.s32 %r5, %r5, %r9;
    add.s32 %r5, %r5, %r10;
    st.global.b32 [%rd1+24], %r5;";
    assert_eq!(one(body, &[0], 7), [11, 22, 0, 0, 0, 0, 7]);
}
