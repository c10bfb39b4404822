//! Clusters against the PTX ISA: ranks, `mapa`, distributed shared memory, the cluster barrier, remote `mbarrier`s,
//! multicast copies.

use super::hopper::{Setup, fault, run, run_with, wait};
use nabla_emulator::{
    DevicePtr, LaunchConfig, Memory, Module, Options, Param, Swizzle, TensorElement, TensorMap, launch,
};

/// Thread 0 of each CTA stores a value as a word of its CTA.
fn store(value: &str) -> String {
    format!(
        "
    mov.u32 %r50, %ctaid.x;
    mad.wide.u32 %rd50, %r50, 4, %rd1;
    setp.eq.u32 %p14, %r0, 0;
    @%p14 st.global.b32 [%rd50], {value};"
    )
}

const BARRIER: &str = "
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;";

fn setup(ctas: u32, cluster: u32) -> Setup<'static> {
    Setup { ctas, cluster, output: ctas as usize, ..Setup::default() }
}

#[test]
fn special_registers_name_cta_and_cluster() {
    for (ctas, cluster) in [(8, 4), (8, 2), (6, 1), (8, 8)] {
        type Expected = fn(u32, u32, u32) -> u32;
        let registers: [(&str, Expected); 9] = [
            ("%cluster_ctarank", |cta, cluster, _| cta % cluster),
            ("%cluster_ctaid.x", |cta, cluster, _| cta % cluster),
            ("%cluster_ctaid.y", |_, _, _| 0),
            ("%cluster_nctarank", |_, cluster, _| cluster),
            ("%cluster_nctaid.x", |_, cluster, _| cluster),
            ("%clusterid.x", |cta, cluster, _| cta / cluster),
            ("%nclusterid.x", |_, cluster, ctas| ctas / cluster),
            ("%ctaid.x", |cta, _, _| cta),
            ("%nctaid.x", |_, _, ctas| ctas),
        ];
        for (name, expected) in registers {
            let out = run(&format!("    mov.u32 %r10, {name};{}", store("%r10")), &setup(ctas, cluster));
            let expected: Vec<u32> = (0..ctas).map(|cta| expected(cta, cluster, ctas)).collect();
            assert_eq!(out, expected, "{name} of {ctas} in clusters of {cluster}");
        }
    }
}

/// Each CTA writes its number to its own memory and reads that of the next by a mapped address.
#[test]
fn mapped_addresses_lead_to_other_ctas() {
    let head = format!(
        "
    mov.u32 %r10, %cluster_ctarank;
    mov.u32 %r11, %ctaid.x;
    add.s32 %r12, %r10, 1;
    mov.u32 %r13, %cluster_nctarank;
    rem.u32 %r12, %r12, %r13;
    add.s32 %r14, %r11, 100;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 st.shared.b32 [%r1+16], %r14;{BARRIER}"
    );
    let loads = [
        "    mapa.shared::cluster.u32 %r15, %r1, %r12;\n    ld.shared::cluster.b32 %r16, [%r15+16];",
        "    cvt.u64.u32 %rd20, %r1;\n    cvta.shared.u64 %rd20, %rd20;\n    mapa.u64 %rd21, %rd20, %r12;\n    ld.b32 %r16, [%rd21+16];",
    ];
    for load in loads {
        let body = format!("{head}\n{load}{BARRIER}{}", store("%r16"));
        for cluster in [1, 2, 4, 8] {
            let out = run(&body, &setup(8, cluster));
            let next = |cta: u32| cta / cluster * cluster + (cta + 1) % cluster;
            assert_eq!(
                out,
                (0..8).map(|cta| 100 + next(cta)).collect::<Vec<u32>>(),
                "clusters of {cluster}\n{load}"
            );
        }
    }
    // Written from afar.
    let body = format!(
        "{head}
    mapa.shared::cluster.u32 %r15, %r1, %r12;
    @%p1 st.shared::cluster.b32 [%r15+20], %r14;{BARRIER}
    ld.shared.b32 %r16, [%r1+20];{}",
        store("%r16")
    );
    let out = run(&body, &setup(8, 4));
    assert_eq!(out, (0..8).map(|cta| 100 + cta / 4 * 4 + (cta + 3) % 4).collect::<Vec<u32>>());
}

#[test]
fn an_address_knows_its_rank() {
    let body = format!(
        "
    mov.u32 %r10, %cluster_ctarank;
    xor.b32 %r10, %r10, 3;
    mapa.shared::cluster.u32 %r11, %r1, %r10;
    getctarank.shared::cluster.u32 %r12, %r11;
    getctarank.shared::cluster.u32 %r13, %r1;
    mad.lo.s32 %r12, %r12, 10, %r13;{}",
        store("%r12")
    );
    let out = run(&body, &setup(4, 4));
    assert_eq!(out, (0..4).map(|rank| (rank ^ 3) * 10 + rank).collect::<Vec<u32>>());
}

/// Atomics on another CTA's memory count every CTA.
#[test]
fn atomics_reach_other_ctas() {
    let body = format!(
        "
    mov.b32 %r10, 0;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 st.shared.b32 [%r1], %r10;{BARRIER}
    mapa.shared::cluster.u32 %r11, %r1, 0;
    atom.shared::cluster.add.u32 %r12, [%r11], 1;{BARRIER}
    ld.shared.b32 %r13, [%r1];{}",
        store("%r13")
    );
    assert_eq!(run(&body, &setup(4, 4)), [128, 0, 0, 0]);
}

/// The barrier has two halves; what was written before the arrival is there behind the wait, however many turns.
#[test]
fn the_cluster_barrier_orders_its_ctas() {
    let body = format!(
        "
    mov.u32 %r10, %cluster_ctarank;
    xor.b32 %r11, %r10, 1;
    mapa.shared::cluster.u32 %r12, %r1, %r11;
    mad.lo.s32 %r13, %r0, 4, %r12;
    mad.lo.s32 %r14, %r0, 4, %r1;
    mov.b32 %r15, 0;
    mov.b32 %r16, %r10;{BARRIER}
TURN:
    st.shared::cluster.b32 [%r13], %r16;
    barrier.cluster.arrive.aligned;
    add.s32 %r15, %r15, 1;
    barrier.cluster.wait.aligned;
    ld.shared.b32 %r17, [%r14];
    mad.lo.s32 %r16, %r17, 3, %r15;
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    setp.lt.u32 %p1, %r15, 7;
    @%p1 bra TURN;{}",
        store("%r16")
    );
    let (mut a, mut b) = (0_u32, 1_u32);
    for turn in 1..=7 {
        (a, b) = (b * 3 + turn, a * 3 + turn);
    }
    assert_eq!(run(&body, &setup(4, 2)), [a, b, a, b]);
    // A CTA that does not come is waited for without end.
    let body = "
    mov.u32 %r10, %cluster_ctarank;
    setp.eq.u32 %p1, %r10, 0;
    @%p1 barrier.cluster.arrive;
    @%p1 barrier.cluster.wait;
SPIN:
    @!%p1 bra SPIN;";
    fault(body, &setup(2, 2), "budget");
}

/// Arrivals from all CTAs at the barrier of the first, and from the first at those of all.
#[test]
fn barriers_take_arrivals_from_other_ctas() {
    let body = format!(
        "
    mov.u32 %r10, %cluster_ctarank;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r1], 128;
    @%p1 mbarrier.init.shared::cta.b64 [%r1+8], 1;
    fence.mbarrier_init.release.cluster;{BARRIER}
    // All threads of all CTAs write and arrive at CTA 0.
    mapa.shared::cluster.u32 %r11, %r1, 0;
    mad.lo.s32 %r12, %r10, 32, %r0;
    mad.lo.s32 %r13, %r12, 4, %r11;
    st.shared::cluster.b32 [%r13+64], %r12;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r11];
    setp.ne.u32 %p2, %r10, 0;
    mov.b32 %r20, 0;
    @%p2 bra OTHERS;
W0:
    mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p3, [%r1], 0;
    @!%p3 bra W0;
    // Sum of what the others wrote, then a signal to each CTA by one lane.
    mov.b32 %r21, 0;
SUM:
    mad.lo.s32 %r22, %r21, 4, %r1;
    ld.shared.b32 %r23, [%r22+64];
    add.s32 %r20, %r20, %r23;
    add.s32 %r21, %r21, 1;
    setp.lt.u32 %p4, %r21, 128;
    @%p4 bra SUM;
    setp.lt.u32 %p5, %r0, 4;
    mapa.shared::cluster.u32 %r24, %r1, %r0;
    @%p5 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r24+8];
OTHERS:
W1:
    mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p3, [%r1+8], 0;
    @!%p3 bra W1;
    add.s32 %r20, %r20, 1;{BARRIER}{}",
        store("%r20")
    )
    // Lanes beyond the cluster map their own rank, whose address is never used.
    .replace(
        "mapa.shared::cluster.u32 %r24, %r1, %r0;",
        "and.b32 %r25, %r0, 3;\n    mapa.shared::cluster.u32 %r24, %r1, %r25;",
    );
    assert_eq!(run(&body, &setup(4, 4)), [127 * 64 + 1, 1, 1, 1]);
}

/// Each CTA of the mask gets the tile and the bytes, at the offsets that the issuing CTA names.
#[test]
fn multicast_copies_reach_the_ctas_of_their_mask() {
    let map = |address: DevicePtr| TensorMap {
        element: TensorElement::U32,
        address,
        sizes: vec![8, 16],
        strides: vec![32],
        box_sizes: vec![8, 4],
        element_strides: vec![1, 1],
        swizzle: Swizzle::None,
        out_of_bounds: Default::default(),
    };
    for mask in [0b1111_u32, 0b0101, 0b0010] {
        let body = format!(
            "
    mov.u32 %r10, %cluster_ctarank;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r1+1024], 1;
    fence.mbarrier_init.release.cluster;
    mov.b32 %r11, 7777;
    mad.lo.s32 %r12, %r0, 4, %r1;
    st.shared.b32 [%r12], %r11;
    fence.proxy.async;{BARRIER}
    mov.b32 %r13, {mask};
    shr.u32 %r14, %r13, %r10;
    and.b32 %r14, %r14, 1;
    setp.eq.u32 %p2, %r14, 1;
    and.pred %p3, %p1, %p2;
    @%p3 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1+1024], 128;
    // CTA 1 issues for all of them.
    setp.eq.u32 %p4, %r10, 1;
    and.pred %p4, %p4, %p1;
    cvt.u16.u32 %rs1, %r13;
    mov.b32 %r15, 0;
    mov.b32 %r16, 4;
    @%p4 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%rd2, {{%r15, %r16}}], [%r1+1024], %rs1;
    @!%p2 bra SKIP;{}
SKIP:
    ld.shared.b32 %r20, [%r12];
    mov.u32 %r21, %ctaid.x;
    mad.lo.s32 %r21, %r21, 32, %r0;
    mad.wide.u32 %rd20, %r21, 4, %rd1;
    st.global.b32 [%rd20], %r20;{BARRIER}",
            wait("W", "%r1+1024", "0")
        );
        let setup = Setup {
            ctas: 4,
            cluster: 4,
            input: (0..128).collect(),
            output: 128,
            map: Some(&map),
            ..Setup::default()
        };
        let out = run(&body, &setup);
        let expected = |i: u32| if mask >> (i / 32) & 1 == 1 { 32 + i % 32 } else { 7777 };
        assert_eq!(out, (0..128).map(expected).collect::<Vec<u32>>(), "mask {mask:#b}");
    }
}

/// A bulk copy from shared memory to that of another CTA signals the barrier there.
#[test]
fn bulk_copies_between_ctas() {
    let body = format!(
        "
    mov.u32 %r10, %cluster_ctarank;
    xor.b32 %r11, %r10, 1;
    setp.eq.u32 %p1, %r0, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r1+1024], 1;
    fence.mbarrier_init.release.cluster;
    mad.lo.s32 %r12, %r0, 4, %r1;
    mad.lo.s32 %r13, %r10, 1000, %r0;
    st.shared.b32 [%r12], %r13;
    fence.proxy.async;{BARRIER}
    mapa.shared::cluster.u32 %r14, %r1, %r11;
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1+1024], 128;
    add.s32 %r15, %r14, 256;
    add.s32 %r16, %r14, 1024;
    @%p1 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r15], [%r1], 128, [%r16];{}
    ld.shared.b32 %r20, [%r12+256];
    mov.u32 %r21, %ctaid.x;
    mad.lo.s32 %r21, %r21, 32, %r0;
    mad.wide.u32 %rd20, %r21, 4, %rd1;
    st.global.b32 [%rd20], %r20;{BARRIER}",
        wait("W", "%r1+1024", "0")
    );
    let out = run(&body, &Setup { ctas: 2, cluster: 2, output: 64, ..Setup::default() });
    assert_eq!(out, (0..64).map(|i| (1 - i / 32) * 1000 + i % 32).collect::<Vec<u32>>());
}

#[test]
fn a_rank_outside_the_cluster_has_no_memory() {
    let body = "
    mapa.shared::cluster.u32 %r10, %r1, 2;
    ld.shared::cluster.b32 %r11, [%r10];";
    fault(body, &setup(2, 2), "none with rank 2");
    // A grid that clusters do not divide is refused.
    assert!(run_with("", &setup(3, 2), &Options::default()).is_err());
}

/// Clusters and grids of two dimensions: ranks count along x first. The kernel may require the shape by itself.
#[test]
fn shapes_of_two_dimensions() {
    let body = "
    mov.u32 %r10, %cluster_ctarank;
    mov.u32 %r11, %cluster_ctaid.x;
    mov.u32 %r12, %cluster_ctaid.y;
    mov.u32 %r13, %clusterid.x;
    mov.u32 %r14, %clusterid.y;
    mov.u32 %r15, %cluster_nctaid.x;
    mov.u32 %r16, %cluster_nctaid.y;
    mov.u32 %r17, %ctaid.x;
    mov.u32 %r18, %ctaid.y;
    mov.u32 %r19, %nctaid.x;
    mad.lo.s32 %r20, %r18, %r19, %r17;
    mad.wide.u32 %rd10, %r20, 32, %rd1;
    st.global.v4.b32 [%rd10], {%r10, %r11, %r12, %r13};
    st.global.v2.b32 [%rd10+16], {%r14, %r15};
    st.global.b32 [%rd10+24], %r16;";
    for required in [false, true] {
        let mut text = super::hopper::text(body);
        if required {
            text = text.replace("\n{\n", "\n.reqnctapercluster 2, 3, 1\n{\n");
        }
        let module = Module::parse("test.ptx", &text).unwrap_or_else(|error| panic!("{error}"));
        let mut memory = Memory::new();
        let out = memory.alloc(24 * 32);
        let cluster = if required { [1; 3] } else { [2, 3, 1] };
        let config = LaunchConfig { grid: [4, 6, 1], cluster, ..LaunchConfig::default() };
        let params = [Param::Ptr(out), Param::Ptr(out), Param::Ptr(out)];
        launch(&module, "k", config, &params, &mut memory).unwrap_or_else(|fault| panic!("{fault}"));
        let bytes = memory.read(out, 24 * 32).unwrap();
        for (cta, record) in bytes.chunks_exact(32).enumerate() {
            let got: Vec<u32> =
                record[..28].chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
            let (x, y) = (cta as u32 % 4, cta as u32 / 4);
            let expected = [y % 3 * 2 + x % 2, x % 2, y % 3, x / 2, y / 3, 2, 3];
            assert_eq!(got, expected, "CTA {x}, {y}");
        }
    }
}
