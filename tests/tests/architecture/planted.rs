//! Shows each rule firing on a planted violation, and staying quiet beside one.

use crate::rules::{FOLDERS, LONGEST_FILE, Names, check};

const ROOT: &str = r#"
    [workspace.dependencies]
    nabla-host = { path = "host" }
    kernels = { package = "nabla-kernels-cpu", path = "kernels-cpu" }
    csv = "1"
"#;

fn names() -> Names {
    let manifests: Vec<(&str, String)> = FOLDERS
        .iter()
        .map(|folder| (folder.name, format!("[package]\nname = \"nabla-{}\"\n", folder.name)))
        .collect();
    Names::read(ROOT, manifests.iter().map(|(folder, text)| (*folder, text.as_str())))
}

/// Asserts that `text` at `path` breaks one rule, on `line`, whose text contains `rule`.
#[track_caller]
fn fires(path: &str, text: &str, line: usize, rule: &str) {
    let violations = check(path, text, &names());
    let [violation] = violations.as_slice() else { panic!("expected one violation, got {violations:?}") };
    assert_eq!((violation.path.as_str(), violation.line), (path, line), "{violation}");
    assert!(violation.rule.contains(rule), "{violation}");
    assert!(!violation.remedy.is_empty(), "{violation}");
}

#[track_caller]
fn is_clean(path: &str, text: &str) {
    let violations = check(path, text, &names());
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn an_import_against_the_direction_is_found_in_a_manifest() {
    for (folder, imported) in [
        ("kernels-gpu", "kernels-cpu"),
        ("kernels-cpu", "host"),
        ("emulator", "kernels-gpu"),
        ("host", "tuner"),
        ("host", "reports"),
        ("reports", "host"),
        ("tuner", "kernels-cpu"),
        ("bench", "tuner"),
        ("xtask", "host"),
    ] {
        for kind in
            ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"]
        {
            let path = format!("{folder}/Cargo.toml");
            fires(&path, &format!("[{kind}]\nnabla-{imported} = {{}}\n"), 2, &format!("not `{imported}`"));
        }
    }
}

#[test]
fn an_import_is_found_under_another_name() {
    fires("reports/Cargo.toml", "\n[dependencies]\nh = { package = \"nabla-host\" }", 3, "not `host`");
    fires("tuner/Cargo.toml", "[dependencies]\nkernels.workspace = true", 2, "not `kernels-cpu`");
    fires("reports/Cargo.toml", "[dependencies.nabla-host]\npath = \"../host\"", 1, "not `host`");
}

#[test]
fn imports_along_the_direction_are_clean() {
    is_clean(
        "host/Cargo.toml",
        "[dependencies]\nkernels.workspace = true\nnabla-emulator = {}\nserde = \"1\"",
    );
    is_clean(
        "tuner/Cargo.toml",
        "[dependencies]\nnabla-host.workspace = true\nnabla-reports = {}\nclap = \"4\"",
    );
    is_clean("tests/Cargo.toml", "[dev-dependencies]\nnabla-tuner = {}\nnabla-kernels-gpu = {}\ncsv = \"1\"");
    is_clean("host/Cargo.toml", "[dev-dependencies]\ncsv = \"1\"");
    is_clean("host/src/lib.rs", "use nabla_kernels_cpu::attention;");
}

#[test]
fn a_crate_of_another_trade_is_found() {
    fires("host/Cargo.toml", "[dependencies]\nclap_complete = \"4\"", 2, "never depends on `clap_complete`");
    fires("host/Cargo.toml", "[dependencies]\nserde = \"1\"\ncsv.workspace = true", 3, "depends on `csv`");
    fires("host/Cargo.toml", "[build-dependencies]\nplotters = \"1\"", 2, "depends on `plotters`");
    fires("reports/Cargo.toml", "[dependencies]\ncudarc = \"0.19\"", 2, "depends on `cudarc`");
    fires("tuner/Cargo.toml", "[dependencies]\ncsv = \"1\"", 2, "depends on `csv`");
    fires("kernels-gpu/Cargo.toml", "[dependencies]\nhalf = \"2\"", 2, "depends on `half`");
}

#[test]
fn a_folder_without_rules_is_found() {
    fires("cluster/Cargo.toml", "[package]\nname = \"nabla-cluster\"", 1, "`cluster` has no import rules");
    is_clean("Cargo.toml", ROOT);
}

#[test]
fn an_import_against_the_direction_is_found_in_a_source() {
    fires("reports/src/lib.rs", "use std::fs;\nuse nabla_host::Problem;\n", 2, "not `host`");
    fires("kernels-cpu/src/a.rs", "fn f() -> nabla_host::Problem { g() }", 1, "not `host`");
    fires("tuner/src/main.rs", "pub use nabla_kernels_cpu as k;", 1, "not `kernels-cpu`");
    is_clean("reports/src/lib.rs", "//! Not [`nabla_host::Problem`].\nlet nabla_hostess = \"nabla_host\";");
}

#[test]
fn cuda_on_the_cpu_and_attention_in_the_emulator_are_found() {
    fires("kernels-cpu/src/a.rs", "fn like_Cuda() {}", 1, "names `cuda`");
    fires("emulator/src/a.rs", "\nstruct AttentionState;", 2, "names `attention`");
}

#[test]
fn printing_is_found_where_it_is_code() {
    for call in ["println!(\"a\")", "eprint!(\"a\")", "dbg!(a)", "std::io::stdout().lock()"] {
        for folder in ["host", "kernels-cpu", "reports"] {
            fires(&format!("{folder}/src/a.rs"), &format!("fn f() {{\n    {call};\n}}"), 2, "never prints");
        }
        is_clean("tuner/src/main.rs", call);
        is_clean("host/build.rs", call);
        is_clean("host/src/mask/tests.rs", call);
    }
    is_clean(
        "host/src/a.rs",
        "// println!\n/* a /* b */ dbg!(c) */ let a = r#\"print!\"#; let b = '\"'; my_print!();",
    );
    is_clean("host/src/a.rs", "#[cfg(test)]\nmod tests {\n    fn f() {\n        println!();\n    }\n}");
    fires(
        "host/src/a.rs",
        "#[cfg(test)]\nmod tests {\n}\nfn f<'a>(a: &'a str) { print!() }",
        4,
        "never prints",
    );
}

#[test]
fn the_driver_binding_is_found_outside_its_module() {
    fires("host/src/backend/cpu.rs", "use cudarc::driver;", 1, "private to one module");
    fires("tuner/src/main.rs", "use cudarc::driver;", 1, "private to one module");
    is_clean("host/src/backend/cuda/driver.rs", "use cudarc::driver;");
    is_clean("host/src/cuda.rs", "use cudarc::driver;");
}

#[test]
fn device_code_that_needs_more_than_core_is_found() {
    fires("kernels-gpu/src/a.rs", "use std::vec::Vec;", 1, "`core` alone");
    fires("kernels-gpu/src/a.rs", "extern crate alloc;", 1, "`core` alone");
    fires("kernels-gpu/src/lib.rs", "pub mod a;", 1, "`no_std`");
    is_clean("kernels-gpu/src/lib.rs", "#![no_std]\n#[cfg(test)]\nmod tests {\n    use std::vec::Vec;\n}");
}

#[test]
fn a_strategy_that_sees_a_backend_is_found() {
    fires("tuner/src/search/gp.rs", "use nabla_host::Backend;", 1, "never see a backend");
    is_clean("tuner/src/sweep.rs", "use nabla_host::Backend;");
}

#[test]
fn a_file_that_is_too_long_is_found() {
    fires("xtask/src/a.rs", &"\n".repeat(LONGEST_FILE + 1), LONGEST_FILE + 1, "at most 600 lines");
    is_clean("xtask/src/a.rs", &"\n".repeat(LONGEST_FILE));
}
