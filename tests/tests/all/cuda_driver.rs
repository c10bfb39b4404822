//! The cuda backend against drivers that only pretend: each failure a user may meet, in one message.
//!
//! No kernel runs here, so nothing is said about results: that is for the emulator and real devices. The kernels are
//! prebuilt folders with empty bodies, so no device compiler is needed either.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nabla_host::codegen::{
    DEVICE_RUSTC, MANIFEST, Sources,
    instances::{INSTANCES, Instance, Kernel},
    variant_id,
};
use nabla_tests::{nabla, root};
use tempfile::TempDir;

const HEAD_DIM: u32 = 64;
const PROBLEM: [&str; 2] = ["--generate", "video:1,16,16,2,64,bf16"];

/// Stands for the machine code of a kernel.
const MACHINE_CODE: &[u8] = b"\x7fELF, or the start of one";

/// A machine with a pretended driver and a folder of prebuilt kernels.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// Compiles the driver with the failures that `macros` choose.
    ///
    /// A C compiler is needed; there is no other way to make a library of that name and calling convention.
    fn with_driver(macros: &[&str]) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let library = machine.path("libcuda.so");
        let mut command = Command::new(&compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
        command.args(macros.iter().map(|name| format!("-D{name}")));
        let output = command.arg(root().join("tests/fixtures/pretend_driver.c")).output().unwrap_or_else(|e| {
            panic!("expected a C compiler, `{compiler}` cannot be run ({e}): install gcc or clang, or name one by CC")
        });
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        fs::copy(&library, machine.path("libcuda.so.1")).unwrap();
        machine
    }

    /// A machine whose driver library is none.
    fn without_driver() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        // Found before that of a real driver, and of no use.
        for name in ["libcuda.so", "libcuda.so.1"] {
            fs::write(machine.path(name), "no library").unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a folder of prebuilt kernels for sm_80, whose PTX names `target`.
    fn with_kernels(self, kernels: &[Instance], target: &str) -> Self {
        self.with_kernels_for("sm_80", kernels, target)
    }

    /// Writes a folder of prebuilt kernels for an architecture, whose PTX names `target`.
    fn with_kernels_for(self, arch: &str, kernels: &[Instance], target: &str) -> Self {
        let folder = self.path("kernels");
        let records: Vec<String> = kernels
            .iter()
            .map(|instance| {
                let (id, entry) = (variant_id(instance), instance.entry());
                let ptx = format!(
                    ".version 8.0\n.target {target}\n.address_size 64\n.visible .entry {entry}({}) {{ ret; }}\n",
                    parameters(instance.kernel)
                );
                fs::create_dir_all(folder.join("ptx").join(arch)).unwrap();
                fs::write(folder.join(format!("ptx/{arch}/{id}.ptx")), &ptx).unwrap();
                format!(
                    r#"{{"id":"{id}","arch":"{arch}","entry":"{entry}","constants":[],"threads":{},"shared_bytes":{},
                        "ptx_hash":"{}","ptxas":null,"resources":null,"seconds":0.0,"warnings":""}}"#,
                    instance.threads(),
                    instance.shared_bytes(),
                    blake3::hash(ptx.as_bytes())
                )
            })
            .collect();
        fs::create_dir_all(&folder).unwrap();
        let manifest = format!(
            r#"{{"format":1,"nabla":"0","toolchain":"none","sources":"{}","variants":[{}]}}"#,
            Sources::built_in().hash(),
            records.join(",")
        );
        fs::write(folder.join(MANIFEST), manifest).unwrap();
        self
    }

    /// Adds machine code, all of it the same, to the folder of prebuilt kernels.
    fn with_machine_code(self, arch: &str) -> Self {
        let path = self.path("kernels").join(MANIFEST);
        let mut manifest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let cubins = self.path(&format!("kernels/cubin/{arch}"));
        fs::create_dir_all(&cubins).unwrap();
        for variant in manifest["variants"].as_array_mut().unwrap() {
            variant["cubin_hash"] = blake3::hash(MACHINE_CODE).to_hex().to_string().into();
            let id = variant["id"].as_str().unwrap();
            fs::write(cubins.join(format!("{id}.cubin")), MACHINE_CODE).unwrap();
        }
        fs::write(&path, manifest.to_string()).unwrap();
        self
    }

    /// Runs dense attention and returns what the driver was given, each image as ELF or PTX, and the log.
    #[track_caller]
    fn loads(&self) -> (Vec<String>, String) {
        let log = self.path("loads");
        let args = [&["run", "--backend", "cuda", "--policy", "dense"], &PROBLEM[..]].concat();
        let mut command = self.command(&args);
        let output = command.env("PRETEND_DRIVER_LOG", &log).env("NABLA_LOG", "debug").output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        let loads = fs::read_to_string(&log).unwrap_or_default();
        fs::remove_file(&log).unwrap();
        (loads.lines().map(str::to_owned).collect(), String::from_utf8(told).unwrap())
    }

    /// Runs the program on this machine, which has no device compiler.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = nabla();
        command
            .args(args)
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("NABLA_KERNEL_CACHE", self.path("kernels"))
            .env(DEVICE_RUSTC, self.path("no-rustc"));
        command
    }

    /// Runs dense attention on the device and returns the one message it must end with.
    #[track_caller]
    fn fails(&self, code: i32) -> String {
        self.fails_with(&[&["run", "--backend", "cuda", "--policy", "dense"], &PROBLEM[..]].concat(), code)
    }

    #[track_caller]
    fn fails_with(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(!message.contains("panicked"), "{message}");
        assert_eq!(message.matches("error:").count(), 1, "one message expected: {message}");
        message
    }

    fn info(&self) -> String {
        let output = self.run(&["info", "--backend", "cpu", "--threads", "1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Declares what a kernel takes: this is what the backend's launches are held against.
fn parameters(kernel: Kernel) -> String {
    let (pointers, sizes, factors, maps) = match kernel {
        Kernel::AttentionSparse | Kernel::AttentionDense | Kernel::AttentionPlain => (9, 5, 1, 0),
        // Tensor maps and the order of work; with it go two sizes more.
        Kernel::HopperSparse | Kernel::HopperDense => (9, 5, 1, 4),
        Kernel::ReorderPool => (5, 3, 0, 0),
        Kernel::Select => (7, 3, 2, 0),
    };
    const POINTER: &str = ".u64 .ptr .align 1";
    let types = [POINTER; 9][..pointers].iter().chain(&[".u32"; 5][..sizes]);
    let types = types.chain(&[".f32"; 2][..factors]).chain(&[POINTER; 4][..maps]);
    let types = types.chain(if maps > 0 { &[".u32"; 2][..] } else { &[] });
    types.enumerate().map(|(i, t)| format!("\n\t.param {t} p{i}")).collect::<Vec<_>>().join(",")
}

/// Lists the instances for the problem of these tests that an sm_80 runs, and one that is in no list.
fn instances() -> Vec<Instance> {
    let mut all = instances_for("sm_80");
    all.push(Instance::attention(
        Kernel::AttentionDense,
        [64, 32, HEAD_DIM, 2],
        INSTANCES[0].constants.dtype,
    ));
    all
}

/// Lists the instances for the problem of these tests that an architecture runs.
fn instances_for(arch: &str) -> Vec<Instance> {
    // The first of the list is in bf16, as the tests' inputs are.
    let dtype = INSTANCES[0].constants.dtype;
    assert_eq!(dtype.name(), "bf16");
    let fits = |i: &&Instance| {
        i.constants.head_dim == HEAD_DIM
            && i.constants.dtype == dtype
            && i.kernel.arch().builds_for(arch).is_ok()
    };
    INSTANCES.iter().filter(fits).copied().collect()
}

/// Lists all but the token reorder.
fn instances_without_reorder() -> Vec<Instance> {
    instances().into_iter().filter(|i| i.kernel != Kernel::ReorderPool).collect()
}

#[track_caller]
fn assert_says(message: &str, facts: &[&str]) {
    for fact in facts {
        assert!(message.contains(fact), "'{fact}' is missing in: {message}");
    }
}

#[test]
fn no_driver() {
    let machine = Machine::without_driver();
    let facts = ["no NVIDIA driver", "libcuda.so.1", "--backend cpu"];
    assert_says(&machine.fails(4), &facts);
    assert_says(&machine.info(), &facts);
}

#[test]
fn a_driver_that_is_too_old() {
    let machine = Machine::with_driver(&["VERSION=11040"]);
    let facts = ["too old", "CUDA 12.0 or later", "CUDA 11.4", "update"];
    assert_says(&machine.fails(4), &facts);
    assert_says(&machine.info(), &facts);
}

#[test]
fn a_driver_that_lacks_a_function() {
    let machine = Machine::with_driver(&["WITHOUT_EVENT_SYNCHRONIZE"]);
    assert_says(&machine.fails(4), &["lacks the function cuEventSynchronize", "reinstall"]);
}

#[test]
fn a_driver_without_a_device() {
    let machine = Machine::with_driver(&["DEVICES=0"]);
    let facts = ["no CUDA device", "CUDA_ERROR_NO_DEVICE (100)", "CUDA_VISIBLE_DEVICES"];
    assert_says(&machine.fails(4), &facts);
    let info = machine.info();
    assert_says(&info, &facts);
    assert_says(&info, &["driver     for CUDA 12.4"]);
}

#[test]
fn a_device_number_that_is_none() {
    let machine = Machine::with_driver(&["DEVICES=2"]);
    let args = ["run", "--backend", "cuda", "--device", "2", "--policy", "dense"];
    assert_says(&machine.fails_with(&args, 4), &["below 2", "got 2"]);
}

#[test]
fn a_device_that_is_too_old() {
    let machine = Machine::with_driver(&["CAPABILITY=75"]);
    let facts = ["compute capability 7.5", "need 8.0 or later"];
    assert_says(&machine.fails(4), &facts);
    assert_says(&machine.info(), &["Pretended GPU, sm_75", "cannot be used", facts[0]]);
}

#[test]
fn info_lists_every_device() {
    let info = Machine::with_driver(&["DEVICES=2"]).info();
    assert_says(
        &info,
        &["device 0   Pretended GPU, sm_80, 108 multiprocessors, 1.0 GiB", "device 1   Pretended"],
    );
}

#[test]
fn too_little_memory() {
    let machine = Machine::with_driver(&["FREE_BYTES=(1<<20)"]).with_kernels(&instances(), "sm_80");
    let args = ["run", "--backend", "cuda", "--policy", "dense", "--generate", "video:4,32,32,2,64,bf16"];
    let message = machine.fails_with(&args, 4);
    // 4096 tokens, 2 heads, 64 elements of 2 bytes, and two guard zones of 256 bytes.
    assert_says(&message, &["out of device memory", "queries needs 1.0 MiB", "KiB of 1.0 GiB are free"]);
}

#[test]
fn no_kernel_and_no_compiler() {
    let machine = Machine::with_driver(&[]);
    assert_says(&machine.fails(7), &["expected a Rust toolchain", "no-rustc", "cargo xtask setup"]);
}

#[test]
fn a_folder_of_kernels_that_lacks_one() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances_without_reorder(), "sm_80");
    assert_says(&machine.fails(7), &["no reorder_sm80_d64_bf16", "for sm_80", "nabla kernels build"]);
}

#[test]
fn a_kernel_for_another_architecture() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_90a");
    let facts = ["compiled for sm_90a", "Pretended GPU of compute capability 8.0", "--arch sm_80"];
    assert_says(&machine.fails(4), &facts);
}

#[test]
fn a_kernel_that_the_driver_refuses() {
    let machine = Machine::with_driver(&["REFUSE_PTX"]).with_kernels(&instances(), "sm_80");
    assert_says(
        &machine.fails(4),
        &["refused reorder_sm80_d64_bf16", "CUDA_ERROR_INVALID_PTX (218)", "line 7"],
    );
}

#[test]
fn machine_code_is_loaded_where_it_is_the_devices_own() {
    for (driver, arch, loaded) in [
        ("CAPABILITY=80", "sm_80", "ELF"),
        // Later ones of the same family might run it; their driver makes better of the PTX.
        ("CAPABILITY=86", "sm_80", "PTX"),
        ("CAPABILITY=90", "sm_90a", "ELF"),
        ("CAPABILITY=90", "sm_80", "PTX"),
    ] {
        let machine = Machine::with_driver(&[driver])
            .with_kernels_for(arch, &instances_for(arch), arch)
            .with_machine_code(arch);
        let (loads, told) = machine.loads();
        assert!(!loads.is_empty() && loads.iter().all(|load| load == loaded), "{driver} {arch}: {loads:?}");
        let said = if loaded == "ELF" { "loaded as machine code" } else { "compiled from PTX" };
        assert_says(&told, &[said]);
    }
}

#[test]
fn machine_code_that_the_driver_refuses_is_compiled_from_ptx_and_told_once() {
    let machine =
        Machine::with_driver(&["REFUSE_ELF"]).with_kernels(&instances(), "sm_80").with_machine_code("sm_80");
    let (loads, told) = machine.loads();
    assert!(loads.len() >= 4, "two kernels at least: {loads:?}");
    assert!(loads.chunks(2).all(|pair| pair == ["ELF", "PTX"]), "{loads:?}");
    assert_eq!(told.matches("refused machine code").count(), 1, "{told}");
    assert_says(&told, &["CUDA_ERROR_NO_BINARY_FOR_GPU (209)", "never written"]);
}

#[test]
fn machine_code_that_is_damaged_is_an_error() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_80").with_machine_code("sm_80");
    for cubin in fs::read_dir(machine.path("kernels/cubin/sm_80")).unwrap() {
        fs::write(cubin.unwrap().path(), "rotten").unwrap();
    }
    assert_says(
        &machine.fails(7),
        &[".cubin is broken: it differs from what the manifest says", "kernels build"],
    );
}

#[test]
fn float32_inputs() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_80");
    let args = ["run", "--backend", "cuda", "--policy", "dense", "--generate", "video:1,16,16,2,64,f32"];
    assert_says(&machine.fails_with(&args, 2), &["tensor cores take bf16 or f16", "--dtype bf16"]);
}

#[test]
fn an_output_that_is_never_written() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_80");
    assert_says(&machine.fails(5), &["is incorrect", "never written", "head 0, token 0"]);
}

#[test]
fn a_hopper_device_runs_hopper_kernels_where_they_fit() {
    let machine = Machine::with_driver(&["CAPABILITY=90"]).with_kernels_for(
        "sm_90a",
        &instances_for("sm_90a"),
        "sm_90a",
    );
    assert_says(&machine.fails(5), &["dnfwd_sm90a_m128_n128_d64_bf16_s4_w12 is incorrect"]);
    let with = |options: &[&str]| {
        let run = ["run", "--backend", "cuda", "--policy", "dense"];
        machine.fails_with(&[&run[..], &PROBLEM[..], options].concat(), 5)
    };
    assert_says(&with(&["--block-m", "192", "--block-n", "64"]), &["dnfwd_sm90a_m192_n64_d64_bf16"]);
    // Tiles that no Hopper kernel has.
    assert_says(&with(&["--block-m", "128", "--block-n", "64"]), &["dnfwd_sm80_m128_n64_d64_bf16"]);
}

#[test]
fn a_hopper_device_with_portable_kernels_alone_runs_those() {
    let machine = Machine::with_driver(&["CAPABILITY=90"]).with_kernels(&instances(), "sm_80");
    assert_says(&machine.fails(5), &["dnfwd_sm80_m64_n64_d64_bf16", "is incorrect"]);
}

#[test]
fn a_mask_that_is_never_written() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_80");
    let args = [&["run", "--backend", "cuda", "--policy", "nabla-0.5"], &PROBLEM[..]].concat();
    assert_says(&machine.fails_with(&args, 4), &["mask building failed", "row 0 counts -1"]);
}

#[test]
fn a_kernel_that_writes_past_its_output() {
    let machine = Machine::with_driver(&["OVERRUN"]).with_kernels(&instances(), "sm_80");
    let facts = ["dnfwd_sm80_m64_n64_d64_bf16", "2 guard bytes before 'out'", "nearest 0 bytes away"];
    assert_says(&machine.fails(4), &facts);
}

#[test]
fn a_fault_is_told_with_its_kernel() {
    let machine = Machine::with_driver(&["FAULT"]).with_kernels(&instances(), "sm_80");
    let facts =
        ["context is lost", "dnfwd_sm80_m64_n64_d64_bf16", "CUDA_ERROR_ILLEGAL_ADDRESS (700)", "start anew"];
    assert_says(&machine.fails(4), &facts);
}

#[test]
fn a_fault_ends_a_sweep_and_keeps_the_row_at_which_it_happened() {
    let machine = Machine::with_driver(&["FAULT"]).with_kernels(&instances(), "sm_80");
    let out = machine.path("run");
    let sizes =
        ["--blocks", "64", "--block-m", "64", "--block-n", "32,64", "--thresholds", "0.5", "--frames", "1"];
    let args = [
        &["sweep", "--backend", "cuda", "--no-report", "--out", out.to_str().unwrap()],
        &PROBLEM[..],
        &sizes,
    ]
    .concat();
    let message = machine.fails_with(&args, 4);
    assert_says(&message, &["context is lost", "dnfwd_sm80_m64_n32_d64_bf16", "nabla sweep --resume"]);
    // The other tile, and both on a mask, are left to a continued run.
    let rows = failed_rows(&out);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_says(
        &rows[0],
        &["launch_error", "lost since dnfwd_sm80_m64_n32_d64_bf16", "seen by cuEventRecord"],
    );
    // That one meets a dead context again and gets one row further.
    machine.fails_with(&["sweep", "--resume", out.to_str().unwrap()], 4);
    let rows = failed_rows(&out);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_says(&rows[1], &["launch_error", "lost since dnfwd_sm80_m64_n64_d64_bf16"]);
}

/// One instance on one case: the filter takes the names of both.
const ONE_CHECK: [&str; 5] =
    ["check", "--backend", "cuda", "--filter", "dnfwd_sm80_m64_n64_d64_bf16_s2_w4_c4 on one-token dense"];

#[test]
fn a_check_asks_the_device_the_same_as_the_emulator() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_80");
    let message = machine.fails_with(&ONE_CHECK, 5);
    assert_says(&message, &["1 of 1 checks failed"]);
    let printed = String::from_utf8(machine.run(&ONE_CHECK).stdout).unwrap();
    assert_says(&printed, &["cuda on Pretended GPU", "FAILED", "never written", "head 0, token 0"]);
}

#[test]
fn a_check_ends_with_the_device() {
    let machine = Machine::with_driver(&["FAULT"]).with_kernels(&instances(), "sm_80");
    assert_says(&machine.fails_with(&ONE_CHECK, 4), &["context is lost", "start anew"]);
    assert_says(&Machine::without_driver().fails_with(&ONE_CHECK, 4), &["no NVIDIA driver"]);
}

fn failed_rows(run: &Path) -> Vec<String> {
    let log = fs::read_to_string(run.join("records.jsonl")).unwrap();
    log.lines().filter(|line| line.contains("\"status\"")).map(str::to_owned).collect()
}

#[test]
fn auto_takes_the_cpu_where_there_is_no_device() {
    let args = [&["run", "--policy", "dense", "--repeat", "1"], &PROBLEM[..]].concat();
    for (machine, reason) in [
        (Machine::without_driver(), "no NVIDIA driver"),
        (Machine::with_driver(&["DEVICES=0"]), "no CUDA device"),
        (Machine::with_driver(&["CAPABILITY=75"]), "compute capability 7.5"),
        (Machine::with_driver(&[]), "cargo xtask setup"),
    ] {
        let output = machine.run(&args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert_says(&told, &["backend: cpu; ", reason]);
        assert_eq!(told.matches("backend: ").count(), 1, "{told}");
    }
}

#[test]
fn auto_takes_the_device_where_there_is_one_and_no_option_is_the_cpus() {
    let machine = Machine::with_driver(&[]).with_kernels(&instances(), "sm_80");
    let args = [&["run", "--policy", "dense", "--repeat", "1"], &PROBLEM[..]].concat();
    assert_says(&machine.fails_with(&args, 5), &["backend: cuda, Pretended GPU", "never written"]);
    let output = machine.run(&[&args[..], &["--threads", "1"]].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert_says(&told, &["backend: cpu; --threads"]);
}
