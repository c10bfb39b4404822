//! Clusters: ranks, shared memory of other CTAs, barriers, multicast; and what the report of each misuse says.

use super::{bytes, cluster, fault, kernel, launch_in, modes, options, run, says, threads, wait, words};
use nabla_emulator::{Completion, LaunchConfig, Memory, Module, Param, TensorElement, TensorMap, launch};

/// Moves the output to this CTA's part of `threads` words.
fn own_part(threads: u32) -> String {
    format!(
        "
    mov.u32 %r1, %cluster_ctarank;
    mov.u32 %r2, %cluster_nctarank;
    mad.lo.s32 %r3, %r1, {threads}, %r0;
    mad.wide.u32 %rd2, %r3, 4, %rd1;
    setp.eq.u32 %p0, %r0, 0;"
    )
}

const MEET: &str = "
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;";

#[test]
fn special_registers_tell_the_place_in_the_cluster() {
    let body = "
    mov.u32 %r1, %cluster_ctarank;
    mov.u32 %r2, %cluster_nctarank;
    mov.u32 %r3, %cluster_ctaid.x;
    mov.u32 %r4, %cluster_ctaid.y;
    mov.u32 %r5, %cluster_nctaid.y;
    mov.u32 %r6, %clusterid.x;
    mov.u32 %r7, %nclusterid.x;
    mov.pred %p1, %is_explicit_cluster;
    selp.b32 %r8, 1, 0, %p1;
    mov.u32 %r9, %ctaid.x;
    mov.u32 %r10, %ctaid.y;
    mad.lo.s32 %r9, %r10, 8, %r9;
    mad.wide.u32 %rd2, %r9, 32, %rd1;
    st.global.v4.b32 [%rd2], {%r1, %r2, %r3, %r4};
    st.global.v4.b32 [%rd2+16], {%r5, %r6, %r7, %r8};";
    let module = Module::parse("test.ptx", &kernel(body)).unwrap();
    let mut memory = Memory::new();
    let out = memory.alloc(32 * 32);
    let params = [Param::Ptr(out), Param::Ptr(out)];
    let config = LaunchConfig { grid: [8, 4, 1], block: [1; 3], cluster: [2, 4, 1], dynamic_shared_bytes: 0 };
    launch(&module, "k", config, &params, &mut memory).unwrap();
    let found = words(&memory.read(out, 32 * 32).unwrap());
    for (at, part) in found.chunks_exact(8).enumerate() {
        let (x, y) = (at as u32 % 8, at as u32 / 8);
        assert_eq!(part, [x % 2 + 2 * (y % 4), 8, x % 2, y % 4, 4, x / 2, 4, 1]);
    }
}

#[test]
fn ctas_read_write_and_count_in_each_others_memory() {
    // Each CTA stores to the next one, adds to a counter of CTA 0, and reads from the one before, generically too.
    let body = format!(
        "{}
    mad.lo.s32 %r4, %r0, 4, 64;
    add.s32 %r5, %r1, 1;
    rem.u32 %r5, %r5, %r2;
    setp.eq.u32 %p0, %r0, 0;
    @%p0 st.shared.b32 [smem], 0;
    {MEET}
    mapa.shared::cluster.u32 %r6, %r4, %r5;
    getctarank.shared::cluster.u32 %r7, %r6;
    mad.lo.s32 %r8, %r1, 1000, %r0;
    st.shared::cluster.b32 [%r6], %r8;
    mov.b32 %r9, smem;
    mapa.shared::cluster.u32 %r9, %r9, 0;
    atom.shared::cluster.add.u32 %r10, [%r9], 1;
    {MEET}
    ld.shared.b32 %r11, [%r4];
    cvt.u64.u32 %rd5, %r4;
    cvta.shared.u64 %rd5, %rd5;
    mapa.u64 %rd6, %rd5, %r5;
    isspacep.shared::cta %p1, %rd6;
    isspacep.shared::cluster %p2, %rd6;
    isspacep.shared::cta %p3, %rd5;
    selp.b32 %r12, 100000, 0, %p1;
    selp.b32 %r13, 200000, 0, %p2;
    selp.b32 %r14, 400000, 0, %p3;
    ld.b32 %r15, [%rd6];
    ld.shared::cluster.b32 %r16, [%r9];
    {MEET}
    sub.s32 %r11, %r15, %r11;
    add.s32 %r11, %r11, %r12;
    add.s32 %r11, %r11, %r13;
    add.s32 %r11, %r11, %r14;
    add.s32 %r11, %r11, %r16;
    mad.lo.s32 %r11, %r7, 1000000, %r11;
    st.global.b32 [%rd2], %r11;",
        own_part(32)
    );
    let out = run(&body, cluster(4, 32), &[0], 128);
    for (at, found) in out.iter().enumerate() {
        let rank = at as u32 / 32;
        // What the next CTA holds came from here, what is here came from the one before.
        let difference = 1000 * rank as i64 - 1000 * i64::from((rank + 3) % 4);
        let expected = difference + 600_000 + 128 + 1_000_000 * i64::from((rank + 1) % 4);
        assert_eq!(i64::from(*found as i32), expected, "{at}");
    }
}

#[test]
fn a_multicast_brings_the_same_to_each_cta_and_tells_each() {
    let mut memory = Memory::new();
    let data: Vec<u32> = (0..32 * 32).collect();
    let tensor = memory.alloc_from(&bytes(&data));
    let map = TensorMap::rows(TensorElement::U32, tensor, 32, 32, [4, 32]);
    // CTA r loads rows 4 r of the box of all CTAs in the mask 0b1011; CTA 2 gets nothing.
    let body = format!(
        "{}
    @%p0 mbarrier.init.shared::cta.b64 [smem+16384], 1;
    @%p0 fence.mbarrier_init.release.cluster;
    {MEET}
    setp.ne.u32 %p1, %r1, 2;
    and.pred %p2, %p0, %p1;
    @%p2 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+16384], 1536;
    mov.b16 %rs1, 11;
    mul.lo.s32 %r4, %r1, 4;
    mul.lo.s32 %r5, %r1, 512;
    setp.lt.u32 %p3, %r1, 3;
    and.pred %p2, %p0, %p3;
    @%p2 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r5], [%rd0, {{0, %r4}}], [smem+16384], %rs1;
    mov.b32 %r6, -1;
    setp.eq.u32 %p4, %r1, 2;
    @%p4 bra DONE;{}
    mad.lo.s32 %r7, %r0, 48, 0;
    ld.shared.b32 %r6, [%r7];
DONE:
    st.global.b32 [%rd2], %r6;
    {MEET}",
        own_part(32),
        wait("smem+16384", "0", "LOADED")
    );
    for options in modes() {
        let (at, out) = (super::place(&mut memory, &map), memory.alloc(4 * 128));
        let params = [Param::Ptr(at), Param::Ptr(out)];
        launch_in(&mut memory, &kernel(&body), cluster(4, 32), &params, &options).unwrap();
        let found = words(&memory.read(out, 4 * 128).unwrap());
        for (at, found) in found.iter().enumerate() {
            let (cta, place) = (at / 32, at as u32 % 32 * 48);
            // 128-byte swizzle: rows of 32 words, chunks of four.
            let (row, column) = (place / 128, place % 128 / 4);
            let expected = if cta == 2 { u32::MAX } else { row * 32 + (column ^ (row % 8 * 4)) };
            assert_eq!(*found, expected, "{at}");
        }
    }
}

#[test]
fn asynchronous_stores_and_reductions_tell_the_receiver() {
    // Each CTA sends its thread numbers to the next one, and adds one to its counter.
    let body = format!(
        "{}
    @%p0 mbarrier.init.shared::cta.b64 [smem+16384], 1;
    fence.mbarrier_init.release.cluster;
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+16384], 384;
    st.shared.b32 [smem], 0;
    {MEET}
    add.s32 %r5, %r1, 1;
    rem.u32 %r5, %r5, %r2;
    mad.lo.s32 %r4, %r0, 8, 64;
    mapa.shared::cluster.u32 %r6, %r4, %r5;
    mov.b32 %r7, smem;
    mapa.shared::cluster.u32 %r7, %r7, %r5;
    add.s32 %r8, %r0, 1000;
    st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%r6], {{%r0, %r8}}, [%r7+16384];
    red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r7], 1, [%r7+16384];{}
    ld.shared.v2.b32 {{%r9, %r10}}, [%r4];
    ld.shared.b32 %r11, [smem];
    add.s32 %r9, %r9, %r10;
    mad.lo.s32 %r9, %r11, 10000, %r9;
    st.global.b32 [%rd2], %r9;
    {MEET}",
        own_part(32),
        wait("smem+16384", "0", "LOADED")
    );
    let expected: Vec<u32> = (0..64).map(|at| 2 * (at % 32) + 1000 + 320_000).collect();
    assert_eq!(run(&body, cluster(2, 32), &[0], 64), expected);
}

#[test]
fn copies_between_ctas_and_remote_arrivals() {
    // CTA 0 copies a line to CTA 1 and arrives at its barrier, whose thread adds one.
    let body = format!(
        "{}
    @%p0 mbarrier.init.shared::cta.b64 [smem+16384], 32;
    fence.mbarrier_init.release.cluster;
    @%p0 mbarrier.expect_tx.shared::cta.b64 [smem+16384], 256;
    st.shared.b64 [smem+512], 0;
    mad.lo.s32 %r4, %r0, 4, 1024;
    st.shared.b32 [%r4], %r0;
    st.shared.b32 [%r4+1024], 5;
    fence.proxy.async.shared::cta;
    {MEET}
    mov.b32 %r5, smem;
    mapa.shared::cluster.u32 %r5, %r5, 1;
    setp.eq.u32 %p1, %r1, 0;
    and.pred %p2, %p0, %p1;
    @%p2 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r5+8192], [smem+1024], 128, [%r5+16384];
    @%p2 cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32 [%r5+2048], [smem+1024], 128, [%r5+16384];
    @%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r5+16384];
    mov.b32 %r6, 0;
    @%p1 bra DONE;{}
    ld.shared.b32 %r6, [%r4+7168];
    ld.shared.b32 %r7, [%r4+1024];
    mad.lo.s32 %r6, %r7, 100, %r6;
DONE:
    st.global.b32 [%rd2], %r6;
    {MEET}",
        own_part(32),
        wait("smem+16384", "0", "LOADED")
    );
    let out = run(&body, cluster(2, 32), &[0], 64);
    assert_eq!(out[..32], [0; 32]);
    assert_eq!(out[32..], (0..32).map(|i| i + 100 * (i + 5)).collect::<Vec<u32>>());
}

#[test]
fn the_barrier_does_not_wait_for_exited_threads() {
    let body = format!(
        "
    mov.u32 %r1, %cluster_ctarank;
    setp.eq.u32 %p1, %r1, 1;
    @%p1 exit;
    {MEET}
    st.global.b32 [%rd2], 1;"
    );
    assert_eq!(run(&body, cluster(2, 64), &[0], 64), [1; 64]);
}

#[test]
fn lanes_may_meet_the_cluster_on_different_paths() {
    let body = "
    and.b32 %r1, %r0, 1;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra EVEN;
    barrier.cluster.arrive.release;
    barrier.cluster.wait.acquire;
    st.relaxed.cluster.global.b32 [%rd2], 1;
    bra DONE;
EVEN:
    barrier.cluster.arrive.relaxed;
    barrier.cluster.wait;
    st.relaxed.cluster.global.b32 [%rd2], 2;
DONE:";
    assert_eq!(run(body, cluster(2, 4), &[0], 4), [2, 1, 2, 1]);
}

#[test]
fn misuse_is_a_fault_that_says_what_to_do() {
    let mapped = "    mov.b32 %r4, smem;\n    mapa.shared::cluster.u32 %r5, %r4, 1;";
    let two = cluster(2, 32);
    let cases = [
        (format!("{mapped}\n    st.shared::cluster.b32 [%r5], 1;"), "may not have started yet: let all CTAs"),
        (
            format!("{MEET}\n{mapped}\n    ld.shared::cluster.b32 %r6, [%r5];\n{MEET}"),
            "that were never written",
        ),
        (
            "    mov.b32 %r4, smem;\n    mapa.shared::cluster.u32 %r5, %r4, 2;".to_owned(),
            "2 CTAs, none with rank 2",
        ),
        (format!("{mapped}\n    st.shared.b32 [%r5], 1;"), "out-of-bounds"),
        ("    barrier.cluster.wait.aligned;".to_owned(), "without barrier.cluster.arrive before it"),
        (
            "    barrier.cluster.arrive.aligned;\n    barrier.cluster.arrive.aligned;".to_owned(),
            "arrive twice without barrier.cluster.wait",
        ),
        (
            format!(
                "    mov.u32 %r1, %cluster_ctarank;\n    setp.eq.u32 %p1, %r1, 1;{MEET}\n    @%p1 exit;\n    \
                 bar.sync 0;\n{mapped}\nLOOP:\n    st.shared::cluster.b32 [%r5], 1;\n    bra LOOP;"
            ),
            "the CTA with rank 1 has exited, and its shared memory with it",
        ),
        (
            format!("{MEET}\n{mapped}\n    mbarrier.init.shared.b64 [%r5], 1;"),
            "it is an address of `.shared::cluster`",
        ),
        (
            format!(
                "    setp.eq.u32 %p0, %r0, 0;\n    @%p0 mbarrier.init.shared.b64 [smem], 1;{MEET}\n{mapped}\n    @%p0 \
                 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [smem+64], [%rd0], 64, [%r5];\n{MEET}"
            ),
            "both must lie in one CTA",
        ),
    ];
    for (body, text) in cases {
        says(&fault(&body, two), &[text, "test.ptx:"]);
    }
    says(&fault(&format!("{mapped}\n"), threads(1)), &["launch the kernel with a cluster"]);
}

#[test]
fn a_cta_that_misses_the_barrier_is_a_deadlock() {
    let body = "
    mov.u32 %r1, %cluster_ctarank;
    setp.eq.u32 %p1, %r1, 1;
    barrier.cluster.arrive.aligned;
    @%p1 bra OTHER;
    barrier.cluster.wait.aligned;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    bra DONE;
OTHER:
    bar.sync 1, 64;
DONE:";
    says(
        &fault(body, cluster(2, 32)),
        &[
            "deadlock",
            "of CTA rank 0 waits at barrier.cluster, phase 1, where 32 threads have not arrived",
            "of CTA rank 1 waits at barrier 1 for 64 threads, 32 arrived",
        ],
    );
}

#[test]
fn launches_that_do_not_suit_the_cluster_are_refused() {
    let refused = |directive: &str, grid: u32, shape: [u32; 3]| {
        let text = kernel("").replace(".maxntid 512", &format!(".maxntid 512\n{directive}"));
        let module = Module::parse("test.ptx", &text).unwrap();
        let mut memory = Memory::new();
        let ptr = Param::Ptr(memory.alloc(4));
        let config = LaunchConfig { grid: [grid, 1, 1], cluster: shape, ..LaunchConfig::default() };
        launch(&module, "k", config, &[ptr.clone(), ptr], &mut memory).map_err(|fault| fault.to_string())
    };
    assert!(refused(".reqnctapercluster 2", 4, [1; 3]).is_ok());
    assert!(refused(".explicitcluster\n.maxclusterrank 8", 4, [2, 1, 1]).is_ok());
    let says_of = |result: Result<_, String>, text: &str| says(&result.err().unwrap(), &[text]);
    says_of(refused(".reqnctapercluster 2, 1, 1", 4, [4, 1, 1]), "requires clusters of [2, 1, 1]");
    says_of(refused(".explicitcluster", 4, [1; 3]), "needs a cluster shape (.explicitcluster)");
    says_of(refused(".maxclusterrank 2", 4, [4, 1, 1]), "allows clusters of 2 CTAs");
    says_of(refused("", 3, [2, 1, 1]), "is no multiple of the cluster");
    says_of(refused("", 32, [32, 1, 1]), "a cluster has 1 to 16 CTAs, not 32");
}

#[test]
fn several_clusters_do_not_depend_on_the_threads_that_run_them() {
    let body = format!("{}{MEET}\n    st.global.b32 [%rd2], %r1;", own_part(32));
    let shape = super::Shape { ctas: 8, threads: 32, cluster: 2 };
    for options in [options(Completion::Late, 1), options(Completion::Eager, 1)] {
        let mut reports = Vec::new();
        for workers in [1, 3] {
            let mut memory = Memory::new();
            let ptr = Param::Ptr(memory.alloc(1024));
            let params = [ptr.clone(), ptr];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().unwrap();
            let run = || launch_in(&mut memory, &kernel(&body), shape, &params, &options).unwrap();
            reports.push(pool.install(run));
        }
        assert_eq!(reports[0], reports[1]);
        assert_eq!(reports[0].counters.ctas, 8);
        assert_eq!(reports[0].counters.cluster_arrivals, 8);
    }
}
