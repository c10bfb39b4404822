//! Texts that are long, or that ask for much in a few bytes.

use nabla_emulator::{LaunchConfig, Memory, Module, Options, Param, launch_with, mutants};

use crate::bounds::{End, MIB, alone, bounded, survive};
use crate::common::kernel;

/// Texts of some MiB that grow in one direction each.
#[test]
fn long_texts_take_time_in_proportion() {
    let _alone = alone();
    const LONG: usize = 4 * MIB;
    let times = |part: &str| part.repeat(LONG / part.len());
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let entry = ".entry k() {";
    let half = LONG / 2;
    let cases: Vec<(&str, String)> = vec![
        ("digits", times("1")),
        ("digits of an array size", format!(".global .b8 a[{}];", times("1"))),
        ("hexadecimal digits", format!("0x{}", times("f"))),
        ("a decimal fraction", format!("1.{}", times("1e"))),
        ("a word", times("a")),
        ("a register with a long number", kernel(&format!("mov.b32 %r{}, 0;", times("1")))),
        ("modifiers", kernel(&format!("ld{} %r1, [%rd0];", times(".ca")))),
        ("words that end in colons", times("a::")),
        ("open braces", format!("{entry}{}", times("{"))),
        ("pairs of braces", format!("{entry}{}}}", times("{}"))),
        ("parentheses", kernel(&format!("call {}", times("(")))),
        ("open vectors", kernel(&format!("mov.b64 {}", times("{")))),
        ("a vector", kernel(&format!("mov.b64 %rd1, {{{}%r1}};", times("%r1,")))),
        ("operands", kernel(&format!("add.s32 {}%r1;", times("%r1,")))),
        ("a comment", times("/")),
        ("an open comment", format!("/*{}", times("*"))),
        ("comments", times("/**/")),
        ("an open string", format!(".file 1 \"{}", times("a"))),
        ("a section", format!(".section .debug {{ {}", times("{"))),
        ("a pragma", format!(".pragma {}", times("a "))),
        (
            "parameters",
            format!(".entry k({}.param .b32 z) {{}}", lines(LONG / 16, &|i| format!(".param .b32 p{i:05},"))),
        ),
        ("huge parameters", format!(".entry k({}.param .b32 z) {{}}", times(".param .b8 p[2000000000],"))),
        (
            "registers one by one",
            format!("{entry} .reg .b32 {}z; }}", lines(LONG / 8, &|i| format!("r{i:06},"))),
        ),
        ("blocks of registers", format!("{entry}{}}}", times("{.reg .b32 %r<60000>;}"))),
        ("kernels of registers", times(".entry k(){.reg .b32 %r<65000>;}")),
        ("kernels", times(".entry k(){}")),
        (
            "kernels beside variables",
            lines(half / 20, &|i| format!(".global .b8 a{i:05};")) + &".entry k(){}".repeat(half / 12),
        ),
        (
            "kernels beside dynamic arrays",
            lines(half / 32, &|i| format!(".extern .shared .b8 a{i:05}[];"))
                + &".entry k(){}".repeat(half / 12),
        ),
        ("variables", lines(LONG / 20, &|i| format!(".global .b8 a{i:05};"))),
        ("large variables", lines(LONG / 32, &|i| format!(".global .b8 a{i:05}[2147483648];"))),
        ("large shared variables", lines(20, &|i| format!(".shared .b8 a{i}[2147483647];")) + entry + "}"),
        ("an initialiser", format!(".global .b8 a[] = {{{}1}};", times("1,"))),
        ("addresses", format!(".global .b64 a[] = {{{}a}};", times("a,"))),
        ("labels", format!("{entry}{}}}", lines(LONG / 10, &|i| format!("L{i:06}: ")))),
        (
            "branches in a circle",
            format!(
                "{entry}{}L000000: bra L000001; L{:06}: bra L000000; }}",
                lines(LONG / 24, &|i| format!("L{:06}: bra L{:06}; ", i + 1, i + 2)),
                LONG / 24 + 1
            ),
        ),
        ("branches to one label", format!("{entry} L: {} }}", times("bra L; "))),
        (
            "tables of one list",
            kernel(&format!(
                "T: .branchtargets {}L; L: {}",
                "L,".repeat(half / 2),
                "brx.idx %r0, T;\n".repeat(60_000)
            )),
        ),
        ("lists of targets", kernel(&format!("L: {}", times("T: .branchtargets L, L;")))),
        ("places", format!("{entry}{}}}", times(".loc 1 2 3 "))),
        ("files", times(".file 1 \"a\" ")),
        ("numbers that do not fit", kernel(&times("mov.b32 %r1, 18446744073709551615; "))),
        ("numbers all different", kernel(&lines(LONG / 20, &|i| format!("mov.b32 %r1, {i};\n")))),
        ("calls", kernel(&times("call f; "))),
        ("instructions", kernel(&times("add.s32 %r1, %r1, 1; "))),
        ("guards", kernel(&times("@"))),
        ("semicolons", kernel(&times(";"))),
        ("functions", times(".func f();")),
        ("blanks", times(" \n\t\r")),
        ("errors in a long line", format!("{} $", times(" "))),
    ];
    for (what, text) in &cases {
        survive(what, text);
    }
}

/// Each of many barriers has its mutants, which share the text.
#[test]
fn mutants_of_a_long_text_take_time_and_memory_in_proportion() {
    let _alone = alone();
    for line in ["bar.sync 1, 64; ", "fence.acq_rel.gpu; ", "cp.async.wait_group 0; ", "@%p1 bar.sync %r1; "]
    {
        let count = 100_000;
        let text = kernel(&line.repeat(count));
        let found = bounded(line, 512, || mutants(&text, "k").map_or(0, |found| found.len()));
        assert_eq!(found, 2 * count, "{line}");
    }
}

/// Sizes that a text can ask for in a few bytes.
#[test]
fn large_requests_in_short_texts_are_refused_or_cheap() {
    let _alone = alone();
    let body = |text: &str| kernel(text);
    let refused = [
        body(".reg .b32 %x<4000000000>;"),
        body(".reg .b32 %x<18446744073709551615>;"),
        body(".reg .b32 %x<65000>; .reg .b32 %y<65000>;"),
        body(".local .b8 big[4000000000];"),
        body(".local .b8 big[600000];"),
        body(".shared .b8 big[2147483647]; .shared .b8 more[2147483647]; .shared .b8 last[2147483647];"),
        body(".shared .align 65536 .b8 big[2147483647]; .shared .b8 more[2147483646];"),
        ".global .b8 a[18446744073709551615];".to_owned(),
        ".global .b64 a[4611686018427387904];".to_owned(),
        ".global .b8 a[65536][65536][65536][65536][65536];".to_owned(),
        ".global .b8 a[2147483648]; .entry k() {}".to_owned(),
        ".global .b8 a[200000000]; .global .b8 b[200000000]; .entry k() {}".to_owned(),
        ".entry k(.param .b8 p[4294967295]) {}".to_owned(),
        ".entry k(.param .b8 p[2147483648], .param .b8 q[2147483648]) {}".to_owned(),
    ];
    for text in &refused {
        assert_eq!(survive("a large request", text), End::Refused, "{text}");
    }
    let served = [
        body(".reg .b32 %x<65000>; mov.b32 %x64999, 1;"),
        body(".reg .b64 %x<60000>; .reg .pred %q<60000>;"),
        ".extern .shared .align 65536 .b8 a[]; .entry k() {}".to_owned(),
    ];
    for text in &served {
        assert_ne!(survive("a cheap request", text), End::Refused, "{text}");
    }
}

/// A loop of barriers spends the launch's budget, however few lanes go round.
#[test]
fn endless_loops_end_whatever_they_wait_for() {
    let _alone = alone();
    for line in [
        "bar.sync 0;",
        "bar.warp.sync -1;",
        "@%p1 bar.sync 0;",
        "bar.red.popc.u32 %r1, 0, %p1;",
        "add.s32 %r1, %r1, 1;",
        "cp.async.commit_group;",
    ] {
        for threads in [1, 3, 32, 64] {
            let text = kernel(&format!("mov.b32 %r1, 0; setp.eq.b32 %p1, %r1, 1;\nL: {line}\nbra L;"));
            let module = Module::parse("loop.ptx", &text).unwrap_or_else(|error| panic!("{error}"));
            let mut memory = Memory::new();
            let buffer = memory.alloc_from(&[0; 64]);
            let config = LaunchConfig { grid: [1; 3], block: [threads, 1, 1], ..LaunchConfig::default() };
            let options = Options { instruction_budget: 100_000, ..Options::default() };
            let params = [Param::Ptr(buffer), Param::Ptr(buffer)];
            let fault = bounded(line, 64, || {
                launch_with(&module, "k", config, &params, &mut memory, &options).map_err(Box::new)
            });
            let fault = fault.expect_err("an endless loop").to_string();
            assert!(
                fault.contains("budget") || fault.contains("waits for"),
                "{line} with {threads}: {fault}"
            );
        }
    }
}
