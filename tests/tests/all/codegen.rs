//! Device code from source to PTX: every shipped instance on every default architecture, and what goes wrong.
//!
//! Needs a device toolchain and ptxas: where one is missing these tests fail and say what to do, because a check
//! that did not run has not passed. What is compiled stays in the cache that the program and the emulator's tests use, so
//! only changes cost time.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::OnceLock};

use nabla_host::codegen::{
    BuildError, Built, CUDA_TOOL_MISSING, Compiler, CudaTool, DEFAULT_ARCHS, KernelCache, KernelUnit,
    LaunchBounds, Sources, Toolchain, VariantRecord, assemble,
    cache::cache_dir,
    instances::{Arch, INSTANCES, Instance, Kernel},
    listing, open, variant_id,
};
use nabla_host::{
    Dtype, Problem,
    backend::{EmulatorOptions, emulator_backend},
    variant::MaskBlock,
};

fn toolchain() -> Toolchain {
    Toolchain::find().unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the compiler of the shipped kernels.
fn compiler() -> Compiler {
    let compiler = Compiler::with_sources(toolchain(), &cache_dir(None), Sources::built_in()).unwrap();
    assert!(compiler.ptxas().is_some(), "ptxas {CUDA_TOOL_MISSING}");
    compiler
}

/// Lists the default architectures an instance is for.
fn archs(instance: &Instance) -> impl Iterator<Item = &'static str> {
    DEFAULT_ARCHS.into_iter().filter(|arch| instance.kernel.arch().builds_for(arch).is_ok())
}

/// Builds every instance for every architecture it is for, in the order of the list; once for all tests.
fn all_built(compiler: &Compiler) -> &'static [Built] {
    static BUILT: OnceLock<Vec<Built>> = OnceLock::new();
    BUILT.get_or_init(|| build_all(compiler))
}

fn build_all(compiler: &Compiler) -> Vec<Built> {
    let requests: Vec<(KernelUnit, String)> = INSTANCES
        .iter()
        .flat_map(|instance| archs(instance).map(|arch| (KernelUnit::of(instance).unwrap(), arch.to_owned())))
        .collect();
    let results = compiler.build_many(&requests, 0, |_, _| {});
    let errors: Vec<String> = results.iter().filter_map(|r| Some(r.as_ref().err()?.to_string())).collect();
    assert!(errors.is_empty(), "{} of {} do not build:\n{}", errors.len(), results.len(), errors.join("\n"));
    results.into_iter().map(Result::unwrap).collect()
}

#[test]
fn every_instance_builds_and_keeps_its_promises() {
    let compiler = compiler();
    let built = all_built(&compiler);
    let mut variants = built.iter();
    for instance in INSTANCES {
        for (arch, variant) in archs(instance).zip(variants.by_ref()) {
            assert_eq!(variant.arch, arch);
            let name = format!("{} for {}", variant.id, variant.arch);
            assert_eq!(variant.id, variant_id(instance));
            let bounds = format!(
                ".maxntid {},1,1\n.minnctapersm {}\n",
                instance.threads(),
                instance.min_blocks_per_sm()
            );
            assert!(variant.ptx.contains(&bounds), "{name}: no launch bounds");
            let c = &instance.constants;
            let cluster = format!(".reqnctapercluster {},1,1\n", c.cluster);
            assert_eq!(variant.ptx.contains(&cluster), c.cluster > 1, "{name}: {cluster}");
            assert_eq!(variant.ptx.contains(".multicast::cluster"), c.cluster > 1, "{name}: multicast");
            assert_eq!(variant.ptx.contains("bar.arrive"), c.ping_pong, "{name}: turns");
            assert!(variant.ptx.contains(&format!(".entry {}(", instance.entry())), "{name}: no entry");
            assert!(variant.ptx.contains(&format!(".target {}", variant.arch)), "{name}: another target");
            assert!(!listing::uses_local_memory(&variant.ptx), "{name}: local memory");
            // Lines of the sources, by paths that are the same on every machine.
            assert!(variant.ptx.contains("\t.loc\t"), "{name}: no source lines");
            let files = variant.ptx.lines().filter(|line| line.trim_start().starts_with(".file"));
            let paths: Vec<_> = files.filter_map(|line| line.split('"').nth(1)).collect();
            assert!(paths.contains(&"kernels-gpu/src/entry.rs"), "{name}: {paths:?}");
            assert!(!paths.iter().any(|path| path.starts_with('/')), "{name}: {paths:?}");
            assert_eq!(variant.warnings, "", "{name}: the compiler warns");
            let resources = variant.resources.as_ref().unwrap();
            assert_eq!(resources.faults(), [""; 0], "{name}");
            let registers = resources.registers * instance.threads() * instance.min_blocks_per_sm();
            assert!(resources.registers > 0 && registers <= 65_536, "{name}: {registers} registers a block");

            let opcodes = listing::ptx_opcodes(&variant.ptx);
            let has = |prefix: &str| opcodes.keys().any(|opcode| opcode.starts_with(prefix));
            let expected: &[&str] = match instance.kernel {
                Kernel::AttentionSparse | Kernel::AttentionDense => {
                    &["mma.sync.aligned.m16n8k16", "ldmatrix.sync", "cp.async", "ex2.approx"]
                }
                Kernel::HopperSparse | Kernel::HopperDense => &[
                    "wgmma.mma_async.sync.aligned.m64n",
                    "cp.async.bulk.tensor.3d",
                    "mbarrier.try_wait",
                    "ex2.approx",
                ],
                _ => &[],
            };
            for instruction in expected {
                assert!(has(instruction), "{name}: no {instruction}");
            }
            let splits =
                instance.kernel.arch() == Arch::Sm90a && instance.constants.register_split().is_some();
            assert_eq!(has("setmaxnreg.inc") && has("setmaxnreg.dec"), splits, "{name}: setmaxnreg");
            // The oracle is to be no copy of what it checks.
            assert!(instance.kernel != Kernel::AttentionPlain || !has("mma"), "{name}: tensor cores");
        }
    }

    assert!(variants.next().is_none());
    insta::assert_snapshot!("shared_memory", shared_memory(built));
    registers_are_as_recorded(&compiler, built);
}

/// Lists threads and shared memory of every instance: these follow from the sources, whatever compiles them.
fn shared_memory(built: &[Built]) -> String {
    let mut text = String::new();
    let mut listed = "";
    for variant in built {
        // Once, not for each architecture.
        if variant.id == listed {
            continue;
        }
        listed = &variant.id;
        let fixed = variant.resources.as_ref().unwrap().shared_bytes;
        let (id, threads, dynamic) = (&variant.id, variant.threads, variant.shared_bytes);
        writeln!(text, "{id:<40} {threads:>4} threads, {dynamic:>6} bytes dynamic, {fixed} static").unwrap();
    }
    text
}

/// Compares registers with those recorded for this compiler and assembler.
///
/// Register allocation changes with each minor version of rustc and release of ptxas, so there is a snapshot for each
/// pair that somebody accepted. With another pair the limits asserted above still hold; accept its snapshot to hold
/// that pair to its numbers, too.
fn registers_are_as_recorded(compiler: &Compiler, built: &[Built]) {
    let minor = |version: &str| version.split('.').take(2).collect::<Vec<_>>().join(".");
    let rustc = minor(compiler.toolchain().version.split_whitespace().nth(1).unwrap());
    let ptxas = minor(compiler.ptxas().unwrap().version.trim_start_matches('V'));
    let name = format!("registers_rustc_{rustc}_ptxas_{ptxas}");
    let mut registers = BTreeMap::<&str, Vec<String>>::new();
    for variant in built {
        let count = variant.resources.as_ref().unwrap().registers;
        registers.entry(&variant.id).or_default().push(format!("{count:>3} on {}", variant.arch));
    }
    let lines = registers.iter().map(|(id, counts)| format!("{id:<40} {}\n", counts.join(", ")));
    let accepted =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/all/snapshots/all__codegen__{name}.snap"));
    if accepted.is_file() || std::env::var_os("INSTA_UPDATE").is_some() {
        insta::assert_snapshot!(name, lines.collect::<String>());
    } else {
        println!("no registers recorded for rustc {rustc} and ptxas {ptxas}: run with INSTA_UPDATE=always");
    }
}

/// Lists the lines of machine code on which something is.
fn lines_with(sass: &str, what: &str) -> Vec<usize> {
    sass.lines().enumerate().filter(|(_, line)| line.contains(what)).map(|(number, _)| number).collect()
}

#[test]
fn machine_code_for_hopper_copies_boxes_and_keeps_products_in_flight() {
    let compiler = compiler();
    let nvdisasm = CudaTool::nvdisasm().unwrap_or_else(|| panic!("nvdisasm {CUDA_TOOL_MISSING}"));
    let hopper: Vec<(&Instance, &Built)> = INSTANCES
        .iter()
        .filter(|instance| instance.kernel.arch() == Arch::Sm90a)
        .filter_map(|instance| {
            Some((instance, all_built(&compiler).iter().find(|built| built.id == variant_id(instance))?))
        })
        .collect();
    let listed = INSTANCES.iter().filter(|instance| instance.kernel.arch() == Arch::Sm90a).count();
    assert_eq!(hopper.len(), listed);
    // Each is assembled and disassembled again, which takes most of a second.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in hopper.chunks(hopper.len().div_ceil(threads)) {
            scope.spawn(|| {
                part.iter().for_each(|(instance, built)| {
                    machine_code_is_as_planned(&compiler, &nvdisasm, instance, built);
                })
            });
        }
    });
}

/// Holds the machine code of one instance against what its constants plan.
fn machine_code_is_as_planned(compiler: &Compiler, nvdisasm: &CudaTool, instance: &Instance, built: &Built) {
    let (_, cubin) = assemble(compiler.ptxas().unwrap(), &built.ptx, &built.arch).unwrap();
    let sass = listing::disassemble(nvdisasm, &cubin).unwrap();
    let opcodes = listing::sass_opcodes(&sass);
    let count = |prefix: &str| -> usize {
        opcodes.iter().filter(|(opcode, _)| opcode.starts_with(prefix)).map(|(_, n)| n).sum()
    };
    let c = &instance.constants;
    // Boxes of queries, keys and values, for each panel.
    assert!(count("UTMALDG.3D") >= 3 * c.key_tile().panels() as usize, "{}: {opcodes:?}", built.id);
    // The scores; the output behind scores, and that of a tile which none follows.
    let steps = (c.head_dim / 16 + 2 * c.block_n / 16) as usize;
    // A group of no products is a product of its own kind in machine code.
    assert_eq!(count("HGMMA.") - count("HGMMA.64x8x16."), steps, "{}: {opcodes:?}", built.id);
    // Were products serialised, each would have a wait of its own: for scores, for output, for the last output.
    let waits = lines_with(&sass, "WARPGROUP.DEPBAR");
    assert_eq!(waits.len(), 3, "{}", built.id);
    // What the products leave time for is done before the output is waited for.
    let exponentials = lines_with(&sass, "MUFU.EX2");
    // The wait for scores leaves one product running; the assembler orders the parts of the loop as it likes.
    let scores = lines_with(&sass, "WARPGROUP.DEPBAR.LE gsb0, 0x1");
    assert_eq!(scores.len(), 1, "{}", built.id);
    let output = waits.iter().copied().find(|&line| line > scores[0]);
    let while_output_runs = scores[0]..output.unwrap_or(scores[0]);
    assert!(exponentials.iter().all(|line| while_output_runs.contains(line)), "{}", built.id);
    // 64 rows of `block_n` over 128 threads, less those by polynomials; and the correction of each of two rows.
    let expected = c.block_n / 2 * (8 - c.polynomials) / 8 + 2;
    assert_eq!(exponentials.len(), expected as usize, "{}", built.id);
    assert_eq!(count("LDL") + count("STL"), 0, "{}: local memory", built.id);
    assert_eq!(count("HMMA"), 0, "{}: products of single warps", built.id);
    // Each block of threads of a cluster copies its half of keys and of values to all.
    let multicast = opcodes.iter().filter(|(opcode, _)| opcode.contains("MULTICAST"));
    let panels = if c.cluster > 1 { 2 * c.key_tile().panels() as usize } else { 0 };
    assert_eq!(multicast.map(|(_, n)| n).sum::<usize>(), panels, "{}: {opcodes:?}", built.id);
    // The first turn, and one passed on for each tile.
    assert_eq!(count("BAR.ARV"), if c.ping_pong { 2 } else { 0 }, "{}: {opcodes:?}", built.id);
    let between = between_steps(&sass);
    assert_eq!(between, [""; 0], "{}: within a product", built.id);
    registers_are_split_as_planned(instance, &sass);
}

/// Lists what stands between the steps of one product but instructions of the uniform path, which make descriptors, and
/// moves: the assembler fills a slot or two with them, and would wait first if they were of what a product writes.
fn between_steps(sass: &str) -> Vec<&str> {
    let (mut between, mut since_step, mut within) = (Vec::new(), Vec::new(), false);
    for line in sass.lines() {
        let Some(opcode) = listing::sass_opcodes(line).into_keys().next() else { continue };
        if opcode.starts_with("HGMMA") {
            between.append(&mut since_step);
            // The last step of a product closes its group.
            within = !line.contains("gsb0");
        } else if within && !opcode.starts_with('U') && !is_move(&opcode, line) {
            since_step.push(line);
        }
    }
    between
}

/// Says whether an instruction moves a number and no more, or looks at one of the uniform path.
fn is_move(opcode: &str, line: &str) -> bool {
    opcode == "R2UR"
        || opcode.starts_with("MOV")
        || opcode.starts_with("IMAD.MOV")
        || opcode.starts_with("IMAD.U32") && line.contains(", RZ, RZ, ")
        || opcode.starts_with("ISETP") && line.contains(" UR")
}

/// Holds what warpgroups give and take, and the registers that the code names, against the plan.
fn registers_are_split_as_planned(instance: &Instance, sass: &str) {
    let id = variant_id(instance);
    let numbers = |opcode: &str, prefix: &str| -> Vec<u32> {
        let lines = sass.lines().filter(|line| line.contains(opcode));
        let hex = |line: &str| u32::from_str_radix(line.rsplit(prefix).next()?.split(' ').next()?, 16).ok();
        lines.filter_map(hex).collect()
    };
    let (given, taken) = (numbers("USETMAXREG.DEALLOC", "0x"), numbers("USETMAXREG.TRY_ALLOC", "0x"));
    let launched = 65_536 / (instance.threads() * instance.min_blocks_per_sm());
    let limit = match instance.constants.register_split() {
        None => {
            assert_eq!((given, taken), (vec![], vec![]), "{id}");
            launched.min(255)
        }
        Some(split) => {
            assert_eq!((given, taken), (vec![split.producer], vec![split.consumer]), "{id}");
            split.consumer
        }
    };
    let words = sass.split(|c: char| !c.is_ascii_alphanumeric());
    let most = words.filter_map(|word| word.strip_prefix('R')?.parse::<u32>().ok()).max();
    // Products alone take half of what there is.
    assert!(most.is_some_and(|most| (50..limit).contains(&most)), "{id}: {most:?} of {limit}");
}

#[test]
fn prebuilt_kernels_need_no_compiler() {
    let compiler = compiler();
    let built = compiler.build(&INSTANCES[0], "sm_80").unwrap();
    let with = compiler.with_machine_code(vec![built.clone()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sources = compiler.sources().hash();
    KernelCache::write(folder.path(), &compiler.toolchain().version, sources, &with).unwrap();
    let prebuilt = open(folder.path(), Sources::built_in().hash()).unwrap();
    assert_eq!(prebuilt.manifest().toolchain, compiler.toolchain().version);
    let read = prebuilt.get(&built.id, "sm_80").unwrap();
    let plain = VariantRecord { cubin_hash: None, ..read.record.clone() };
    assert_eq!((read.ptx, plain), (built.ptx, built.record));
    let cubin = prebuilt.machine_code(&read.record.id, "sm_80").unwrap().unwrap();
    assert!(cubin.starts_with(b"\x7fELF"), "{} bytes", cubin.len());

    // Of a space, what is in the folder is tried.
    let kernel_cache = Some(folder.path().to_owned());
    let backend = emulator_backend(&EmulatorOptions { kernel_cache, ..EmulatorOptions::default() }).unwrap();
    let problem = Problem {
        batch: 1,
        heads: 1,
        seqlen_q: 256,
        seqlen_k: 256,
        head_dim: INSTANCES[0].constants.head_dim as usize,
        dtype: Dtype::Bf16,
        softmax_scale: 0.125,
        grid: None,
    };
    let space = backend.space(&problem, Some(MaskBlock::square(64)));
    assert_eq!(space.configurations.len(), 1, "{:?}", space.refused);
    assert!(space.refused.keys().any(|reason| reason.contains("prebuilt")), "{:?}", space.refused);
}

/// A device crate of one small kernel, and a compiler of it.
struct Crate {
    folder: tempfile::TempDir,
}

impl Crate {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lib.rs"), "#![no_std]\npub const WORD_BYTES: usize = 4;\n").unwrap();
        fs::write(folder.path().join("entry.rs"), include_str!("../../../host/src/codegen/testdata/copy.rs"))
            .unwrap();
        Self { folder }
    }

    /// Sources apart, `core` from the cache of all these tests.
    fn compiler(&self) -> Compiler {
        Compiler::new(toolchain(), &cache_dir(None), self.folder.path()).unwrap()
    }

    /// Adds code to a file, so that the sources are new to the cache.
    fn add(&self, file: &str, code: &str) {
        let path = self.folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap() + code;
        fs::write(path, text).unwrap();
    }
}

fn copy(elements: u32) -> KernelUnit {
    KernelUnit {
        id: format!("copy_e{elements}"),
        kernel: "copy".into(),
        entry: "copy".into(),
        instructions: Arch::Sm80,
        constants: vec![("NABLA_ELEMENTS".into(), elements)],
        bounds: LaunchBounds { threads: 64, min_blocks_per_sm: 2, cluster: 1 },
        shared_bytes: 0,
        slow_allowed: false,
    }
}

#[test]
fn constants_reach_the_source_and_make_variants_of_their_own() {
    let krate = Crate::new();
    let compiler = krate.compiler();
    let stores = |elements| {
        let built = compiler.build_unit(&copy(elements), "sm_80").unwrap();
        assert!(built.ptx.contains(".maxntid 64,1,1\n.minnctapersm 2\n"), "{}", built.ptx);
        let opcodes = listing::ptx_opcodes(&built.ptx);
        opcodes.iter().filter(|(opcode, _)| opcode.starts_with("st.")).map(|(_, n)| n).sum::<usize>()
    };
    assert_eq!((stores(1), stores(3)), (1, 3));
}

#[test]
fn a_variant_is_built_once_and_again_when_its_file_is_damaged() {
    let krate = Crate::new();
    krate.add("entry.rs", &format!("// {:?}\n", std::time::SystemTime::now()));
    let first = krate.compiler().build_unit(&copy(2), "sm_80").unwrap();
    let second = krate.compiler().build_unit(&copy(2), "sm_80").unwrap();
    assert_eq!((first.cached, second.cached), (false, true));
    assert_eq!((&first.ptx, &first.record), (&second.ptx, &second.record));
    fs::write(&first.ptx_path, "half a fi").unwrap();
    let third = krate.compiler().build_unit(&copy(2), "sm_80").unwrap();
    assert_eq!((third.cached, third.ptx), (false, first.ptx));
}

#[test]
fn what_does_not_compile_is_told_in_the_compiler_s_words() {
    let krate = Crate::new();
    let error = krate.compiler().build_unit(&copy(0), "sm_80").unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, BuildError::Compile { .. }), "{message}");
    for part in [
        "copy_e0 does not compile for sm_80",
        "NABLA_ELEMENTS must be at least 1",
        "kernels-gpu/src/entry.rs",
    ] {
        assert!(message.contains(part), "{part} is missing in\n{message}");
    }
    let message = krate.compiler().build_unit(&copy(1), "sm_8").unwrap_err().to_string();
    assert!(message.contains("sm_8"), "{message}");
}

#[test]
fn what_kernels_share_is_compiled_apart_and_its_faults_are_told() {
    let krate = Crate::new();
    krate.add("lib.rs", "pub const WORDS: usize = WORD_BYTES / 0;\n");
    // Twice: nothing half made stays in the cache.
    for _ in 0..2 {
        let error = krate.compiler().build_unit(&copy(1), "sm_80").unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, BuildError::Library { .. }), "{message}");
        for part in
            ["the device crate does not compile for sm_80", "WORD_BYTES / 0", "kernels-gpu/src/lib.rs"]
        {
            assert!(message.contains(part), "{part} is missing in\n{message}");
        }
    }
}

#[test]
fn an_entry_that_is_not_there_or_not_alone_is_told() {
    let krate = Crate::new();
    let missing = KernelUnit { entry: "paste".into(), ..copy(1) };
    let message = krate.compiler().build_unit(&missing, "sm_80").unwrap_err().to_string();
    assert!(message.contains("expected an entry `paste`, got copy"), "{message}");
    let accompanied = KernelUnit { kernel: "two_entries".into(), ..copy(1) };
    let message = krate.compiler().build_unit(&accompanied, "sm_80").unwrap_err().to_string();
    assert!(message.contains("expected one entry"), "{message}");
}

#[test]
fn local_memory_rejects_a_variant_unless_it_is_allowed() {
    let krate = Crate::new();
    let compiler = krate.compiler();
    assert!(compiler.ptxas().is_some(), "ptxas {CUDA_TOOL_MISSING}");
    let strict = KernelUnit { kernel: "local_memory".into(), entry: "reverse".into(), ..copy(64) };
    // Twice: the second time from the cache.
    for _ in 0..2 {
        let error = compiler.build_unit(&strict, "sm_80").unwrap_err();
        assert!(matches!(error, BuildError::Rejected { .. }), "{error}");
        assert!(error.to_string().contains("bytes of local memory"), "{error}");
    }
    let allowed = compiler.build_unit(&KernelUnit { slow_allowed: true, ..strict }, "sm_80").unwrap();
    assert!(allowed.cached && allowed.resources.as_ref().unwrap().stack_bytes >= 256);
    assert!(listing::uses_local_memory(&allowed.ptx));
}
