//! Registers and variables as they are declared: names, ranges, scopes.

use crate::common::{fault, kernel, run_with};
use nabla_emulator::{Module, Options};

fn is_error(body: &str) -> Option<String> {
    Module::parse("test.ptx", &kernel(body)).err().map(|error| error.message)
}

#[test]
fn a_register_is_declared_once_in_its_block() {
    for twice in [
        ".reg .b32 x; .reg .b64 x;",
        ".reg .b32 x<4>; .reg .b32 x<2>;",
        ".reg .b32 x2; .reg .b32 x<3>;",
        ".reg .b32 x<3>; .reg .b32 x2;",
        ".reg .b32 x<20>; .reg .b32 x1<5>;",
        ".reg .b32 x1<5>; .reg .b32 x<11>;",
        "{ .reg .pred q; .reg .b32 q; }",
    ] {
        let message = is_error(twice).unwrap_or_else(|| panic!("{twice} is accepted"));
        assert!(message.contains("declared twice"), "{twice}: {message}");
    }
    for once in [
        ".reg .b32 x3; .reg .b32 x<3>;",
        ".reg .b32 x<10>; .reg .b32 x1<5>;",
        ".reg .b32 x02; .reg .b32 x<3>;",
        ".reg .b32 x<0>; .reg .b32 x<1>;",
        ".reg .b32 x; { .reg .b64 x; } { .reg .b32 x<3>; }",
    ] {
        assert_eq!(is_error(once), None, "{once}");
    }
}

#[test]
fn a_range_declares_the_numbers_below_its_count() {
    assert_eq!(is_error(".reg .b32 x<100>; mov.b32 x0, 1; mov.b32 x99, 1;"), None);
    for beyond in ["x100", "x07", "x", "x-1", "y1"] {
        let message = is_error(&format!(".reg .b32 x<100>; mov.b32 {beyond}, 1;"));
        assert!(message.is_some(), "{beyond} is accepted");
    }
    // `%a1<5>` declares %a10 to %a14 and `%a<10>` %a0 to %a9: %a12 has 64 bits.
    assert_eq!(is_error(".reg .b32 %a<10>; .reg .b64 %a1<5>; mov.b64 %a12, 1; mov.b32 %a9, 1;"), None);
    assert!(is_error(".reg .b32 %a<10>; .reg .b64 %a1<5>; mov.b32 %a12, 1;").is_some());
}

/// A block's register hides that of the block around it, and leaves its value alone.
#[test]
fn blocks_are_scopes() {
    let text = kernel(
        "
    .reg .b32 x;
    ld.param.b64 %rd1, [out];
    mov.b32 x, 1;
    {
        .reg .b32 x;
        mov.b32 x, 2;
        st.global.b32 [%rd1], x;
        { .reg .b32 x<2>; mov.b32 x1, 4; mov.b32 x, 3; st.global.b32 [%rd1+12], x1; }
        st.global.b32 [%rd1+4], x;
    }
    st.global.b32 [%rd1+8], x;",
    );
    assert_eq!(run_with(&text, 1, 0, &[0], 4, &Options::default()).unwrap().0, [2, 3, 1, 4]);
}

/// Each function of a module has its own offset of the one dynamic array, behind its own variables.
#[test]
fn dynamic_shared_memory_lies_behind_each_kernels_own() {
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n.extern .shared .align 64 .b8 dyn[];\n";
    let one = |name: &str, own: &str| {
        format!(
            ".visible .entry {name}(.param .u64 in, .param .u64 out) {{ .reg .b32 %r<2>; .reg .b64 %rd<2>; {own}
             ld.param.b64 %rd1, [out]; mov.u32 %r1, dyn; st.global.b32 [%rd1], %r1; ret; }}\n"
        )
    };
    let other = one("other", ".shared .b8 own[1000];");
    for (own, expected) in [("", 0), (".shared .b8 own[1];", 64), (".shared .b8 own[65];", 128)] {
        let text = format!("{head}{other}{}", one("k", own));
        assert_eq!(run_with(&text, 1, 64, &[0], 1, &Options::default()).unwrap().0, [expected], "{own}");
    }
}

#[test]
fn a_kernel_without_local_variables_has_no_local_memory() {
    let text = fault("    mov.b32 %r1, 0;\n    ld.local.b32 %r2, [%r1];", 32, 0);
    assert!(text.contains("out-of-bounds") && text.contains("there are 0 bytes"), "{text}");
}

/// Elements without a value are zero, and may be read.
#[test]
fn the_rest_of_an_initialised_variable_is_zero() {
    let text = kernel("ld.param.b64 %rd1, [out]; ld.global.b32 %r1, [numbers+8]; st.global.b32 [%rd1], %r1;")
        .replace(".visible", ".global .align 4 .b32 numbers[3] = {1, 2};\n.visible");
    assert_eq!(run_with(&text, 1, 0, &[0], 1, &Options::default()).unwrap().0, [0]);
}
