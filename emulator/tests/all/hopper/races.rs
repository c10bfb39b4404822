//! Races of asynchronous operations: each planted bug is reported, whatever the seed and the mode, and its mended form
//! is clean in all of them.

use super::{Shape, bytes, cluster, options, run_bytes, threads, wait};
use nabla_emulator::{Completion, Options};

/// Seeds a verdict is tried with, in each mode.
const SEEDS: u64 = 50;

const MEET: &str = "
    barrier.cluster.arrive.release;
    barrier.cluster.wait.acquire;";

fn every(completion: Completion) -> impl Iterator<Item = Options> {
    (0..SEEDS).map(move |seed| Options { races: true, ..options(completion, seed) })
}

fn outcome(body: &str, shape: Shape, options: &Options) -> Result<(), String> {
    let input: Vec<u32> = (0..1024).collect();
    run_bytes(body, shape, &bytes(&input), 4096, options).map(|_| ())
}

#[track_caller]
fn is_clean(body: &str, shape: Shape) {
    for options in every(Completion::Late).chain(every(Completion::Eager)) {
        if let Err(fault) = outcome(body, shape, &options) {
            panic!("{:?}, seed {}: {fault}\n{body}", options.completion, options.seed);
        }
    }
}

/// Every run ends in a fault; in the plain order with eager completion, where all data is there, it says this.
#[track_caller]
fn is_reported(body: &str, shape: Shape, says: &str) {
    for options in every(Completion::Late).chain(every(Completion::Eager)) {
        let Err(fault) = outcome(body, shape, &options) else {
            panic!("{:?}, seed {}: no fault\n{body}", options.completion, options.seed);
        };
        if options.completion == Completion::Eager && options.seed == 0 {
            assert!(fault.contains(says), "no `{says}` in:\n{fault}");
        }
    }
}

const NO_PROXY_FENCE: &str =
    "a fence.proxy.async between the write and the asynchronous operation is missing";
const FENCE: &str = "fence.proxy.async.shared::cta;";

/// Two barriers of these counts at 16384 and 16392, and the first 256 bytes written as far as both proxies know.
fn start(first: u32, second: u32) -> String {
    format!(
        "
    mov.b32 %r1, smem;
    mad.lo.s32 %r2, %r0, 4, %r1;
    and.b32 %r3, %r0, 31;
    shr.u32 %r4, %r0, 5;
    mad.lo.s32 %r5, %r3, 4, %r1;
    setp.eq.u32 %p0, %r0, 0;
    setp.eq.u32 %p1, %r3, 0;
    setp.eq.u32 %p2, %r4, 0;
    st.shared.b32 [%r2], %r0;
    @%p0 mbarrier.init.shared::cta.b64 [smem+16384], {first};
    @%p0 mbarrier.init.shared::cta.b64 [smem+16392], {second};
    fence.mbarrier_init.release.cluster;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    mov.b32 %r10, 0;"
    )
}

#[test]
fn wgmma_on_stored_operands_needs_a_proxy_fence() {
    // A (64 x 16) and B (8 x 16) at 0, without swizzling.
    let body = |before: &str, behind: &str| {
        format!(
            "
    mov.b32 %r1, smem;
    mad.lo.s32 %r2, %r0, 16, %r1;
    st.shared.v4.b32 [%r2], {{%r0, %r0, %r0, %r0}};
    {before}
    bar.sync 0;
    {behind}
    mov.b64 %rd10, {};
    setp.eq.u32 %p1, %r0, 1000;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%r100, %r101, %r102, %r103}}, %rd10, %rd10, %p1, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;",
            16_u64 << 32 | 8 << 16
        )
    };
    is_clean(&body(FENCE, ""), threads(128));
    is_clean(&body("", FENCE), threads(128));
    is_reported(&body("", ""), threads(128), NO_PROXY_FENCE);
    // A store behind the fence, and no barrier.
    is_reported(&body("", "").replace("bar.sync 0;", FENCE), threads(128), "race on");
}

/// A buffer is stored to global memory twice; what stands between.
fn epilogue(fence: &str, wait: &str, barrier: &str) -> String {
    format!(
        "
    mov.b32 %r1, smem;
    mad.lo.s32 %r2, %r0, 4, %r1;
    setp.eq.u32 %p0, %r0, 0;
    mov.b32 %r3, 0;
AGAIN:
    st.shared.b32 [%r2], %r3;
    {fence}
    bar.sync 0;
    @%p0 cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 256;
    cp.async.bulk.commit_group;
    add.s64 %rd1, %rd1, 256;
    {wait}
    {barrier}
    add.s32 %r3, %r3, 1;
    setp.lt.u32 %p1, %r3, 2;
    @%p1 bra AGAIN;
    cp.async.bulk.wait_group 0;"
    )
}

#[test]
fn a_bulk_store_of_stored_bytes_needs_a_proxy_fence() {
    let (wait, barrier) = ("cp.async.bulk.wait_group.read 0;", "bar.sync 0;");
    is_clean(&epilogue(FENCE, wait, barrier), threads(64));
    is_clean(&epilogue("fence.proxy.async;", "cp.async.bulk.wait_group 0;", barrier), threads(64));
    is_reported(&epilogue("", wait, barrier), threads(64), NO_PROXY_FENCE);
}

#[test]
fn a_buffer_is_used_again_when_its_bulk_store_has_read_it() {
    let (wait, barrier) = ("cp.async.bulk.wait_group.read 0;", "bar.sync 0;");
    let early = "write against an earlier asynchronous read";
    is_reported(&epilogue(FENCE, "", barrier), threads(64), early);
    is_reported(&epilogue(FENCE, "cp.async.bulk.wait_group.read 1;", barrier), threads(64), early);
    // The other warp does not know that the first has waited.
    is_reported(&epilogue(FENCE, wait, ""), threads(64), early);
}

/// Where a bulk store leaves its result, a store of the same thread follows.
#[test]
fn the_result_of_a_bulk_store_is_there_behind_a_wait_without_read() {
    let body = |wait: &str| {
        format!(
            "{}
    @!%p0 bra DONE;
    cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 128;
    cp.async.bulk.commit_group;
    {wait}
    st.global.b32 [%rd1], 1;
DONE:",
            start(1, 1)
        )
    };
    is_clean(&body("cp.async.bulk.wait_group 0;"), threads(64));
    is_reported(
        &body("cp.async.bulk.wait_group.read 0;"),
        threads(64),
        "write against an earlier asynchronous write",
    );
}

/// A ring of `stages` of 128 bytes: warp 1 loads, warp 0 reads, six times.
struct Ring {
    stages: u32,
    /// Stage that the reader takes is this one further.
    skew: u32,
    /// The loader waits until its stage was given back.
    waits: bool,
    /// The reader waits until its stage was filled.
    reads_behind: bool,
    /// The stage is given back behind the read.
    gives_behind: bool,
}

const RING: Ring = Ring { stages: 2, skew: 0, waits: true, reads_behind: true, gives_behind: true };

impl Ring {
    fn body(&self) -> String {
        let Self { stages, skew, .. } = *self;
        let advance = format!(
            "
    add.s32 %r10, %r10, 1;
    setp.lt.u32 %p3, %r10, 6;
    rem.u32 %r11, %r10, {stages};
    div.u32 %r12, %r10, {stages};
    and.b32 %r12, %r12, 1;"
        );
        // Barriers of stage s: full at 16384 + 16 s, empty 8 behind it.
        let mut text = start(1, 1);
        text = text.replace(
            "    fence.mbarrier_init",
            "    @%p0 mbarrier.init.shared::cta.b64 [smem+16400], 1;
    @%p0 mbarrier.init.shared::cta.b64 [smem+16408], 1;
    fence.mbarrier_init",
        );
        text += "
    mov.b32 %r11, 0;
    mov.b32 %r12, 0;
    @%p2 bra READ;
    @!%p1 bra DONE;
LOAD:
    mad.lo.s32 %r13, %r11, 16, 16384;
    xor.b32 %r14, %r12, 1;";
        if self.waits {
            text += &wait("%r13+8", "%r14", "EMPTY");
        }
        text += "
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r13], 128;
    mad.lo.s32 %r15, %r11, 128, %r1;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r15], [%rd0], 128, [%r13];";
        text += &advance;
        text += &format!(
            "
    @%p3 bra LOAD;
    bra DONE;
READ:
    mad.lo.s32 %r13, %r11, 16, 16384;
    add.s32 %r15, %r11, {skew};
    rem.u32 %r15, %r15, {stages};
    mad.lo.s32 %r15, %r15, 128, %r5;"
        );
        let filled = wait("%r13", "%r12", "FULL");
        let read = "
    ld.shared.b32 %r16, [%r15];";
        let give = "
    @%p1 mbarrier.arrive.shared::cta.b64 _, [%r13+8];";
        text += &match (self.reads_behind, self.gives_behind) {
            (true, true) => format!("{filled}{read}{give}"),
            (true, false) => format!("{filled}{give}{read}"),
            (false, _) => format!("{read}{filled}{give}"),
        };
        text += &advance;
        text + "
    @%p3 bra READ;
DONE:"
    }
}

#[test]
fn a_ring_is_clean_with_one_stage_and_with_two() {
    is_clean(&RING.body(), threads(64));
    is_clean(&Ring { stages: 1, ..RING }.body(), threads(64));
}

#[test]
fn a_load_into_a_stage_that_was_not_given_back_is_reported() {
    is_reported(&Ring { waits: false, ..RING }.body(), threads(64), "race on");
    is_reported(&Ring { waits: false, stages: 1, ..RING }.body(), threads(64), "race on");
}

#[test]
fn a_read_before_the_wait_for_its_stage_is_reported() {
    is_reported(&Ring { reads_behind: false, ..RING }.body(), threads(64), "asynchronous write");
}

#[test]
fn a_stage_given_back_before_it_was_read_is_reported() {
    is_reported(&Ring { gives_behind: false, ..RING }.body(), threads(64), "asynchronous write");
}

#[test]
fn a_stage_that_is_one_off_is_reported() {
    is_reported(&Ring { skew: 1, ..RING }.body(), threads(64), "asynchronous write");
}

/// CTA 0 loads for both CTAs of its cluster, three times; `counts` of the barrier of CTA 0 that gives the stage back, and
/// which CTAs arrive there.
fn multicast(count: u32, arrives: &str) -> String {
    let text = start(1, count);
    let mut text = format!(
        "{text}{MEET}
    mov.u32 %r6, %cluster_ctarank;
    setp.eq.u32 %p4, %r6, 0;
    mov.b32 %r7, 16392;
    mapa.shared::cluster.u32 %r7, %r7, 0;
    mov.b16 %rs0, 3;
    @%p2 bra READ;
    and.pred %p5, %p4, %p1;
    @!%p5 bra DONE;
LOAD:
    and.b32 %r12, %r10, 1;
    xor.b32 %r12, %r12, 1;"
    );
    text += &wait("smem+16392", "%r12", "EMPTY");
    text += "
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [smem], [%rd0], 128, [smem+16384], %rs0;
    add.s32 %r10, %r10, 1;
    setp.lt.u32 %p3, %r10, 3;
    @%p3 bra LOAD;
    bra DONE;
READ:
    and.b32 %r12, %r10, 1;
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+16384], 128;";
    text += &wait("smem+16384", "%r12", "FULL");
    text += &format!(
        "
    ld.shared.b32 %r16, [%r5];
    {arrives}
    add.s32 %r10, %r10, 1;
    setp.lt.u32 %p3, %r10, 3;
    @%p3 bra READ;
DONE:{MEET}"
    );
    text
}

#[test]
fn a_multicast_waits_for_the_readers_of_every_cta() {
    let arrive = "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r7];";
    let all = format!("@%p1 {arrive}");
    let own = format!("and.pred %p6, %p1, %p4;\n    @%p6 {arrive}");
    is_clean(&multicast(2, &all), cluster(2, 64));
    is_reported(&multicast(1, &own), cluster(2, 64), "asynchronous write");
}

#[test]
fn a_store_to_another_cta_needs_the_barrier_of_the_cluster() {
    let body = |barrier: &str| {
        format!(
            "{}{MEET}
    mov.u32 %r6, %cluster_ctarank;
    xor.b32 %r7, %r6, 1;
    mapa.shared::cluster.u32 %r8, %r2, %r7;
    setp.eq.u32 %p4, %r6, 0;
    @%p4 st.shared::cluster.b32 [%r8], 7;
    {barrier}
    @!%p4 ld.shared.b32 %r9, [%r2];{MEET}",
            start(1, 1)
        )
    };
    is_clean(&body(MEET), cluster(2, 64));
    is_clean(
        &body(
            "fence.acq_rel.cluster;\n    barrier.cluster.arrive.relaxed;\n    barrier.cluster.wait.acquire;",
        ),
        cluster(2, 64),
    );
    let advice = "a barrier that both CTAs take part in (barrier.cluster, or an mbarrier) is missing";
    is_reported(&body("bar.sync 0;"), cluster(2, 64), advice);
    is_reported(
        &body("barrier.cluster.arrive.relaxed;\n    barrier.cluster.wait.acquire;"),
        cluster(2, 64),
        advice,
    );
}

/// Warp 0 copies with `cp.async` and arrives, copies once more, and warp 1 reads at an offset.
fn copies(arrive: &str, offset: u32) -> String {
    let mut text = start(32, 1);
    text += &format!(
        "
    @!%p2 bra READ;
    cvt.u64.u32 %rd3, %r0;
    mad.lo.s64 %rd4, %rd3, 4, %rd0;
    cp.async.ca.shared.global [%r5], [%rd4], 4;
    {arrive}
    cp.async.ca.shared.global [%r5+128], [%rd4], 4;
    cp.async.wait_all;
    bra DONE;
READ:{}
    ld.shared.b32 %r6, [%r5+{offset}];
DONE:",
        wait("smem+16384", "0", "FULL")
    );
    text
}

#[test]
fn copies_reach_others_by_the_arrival_that_tracks_them() {
    let tracks = "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [smem+16384];";
    is_clean(&copies(tracks, 0), threads(64));
    let untracked = copies("mbarrier.arrive.shared::cta.b64 _, [smem+16384];", 0);
    is_reported(&untracked, threads(64), "write by cp.async");
    // The second copy comes behind the arrival.
    is_reported(&copies(tracks, 128), threads(64), "write by cp.async");
}

/// Warp 0 writes and arrives, warp 1 waits and reads.
#[test]
fn a_relaxed_arrival_hands_over_what_lies_before_a_fence() {
    let body = |arrive: &str, wait_more: &str| {
        format!(
            "{}
    @!%p2 bra READ;
    st.shared.b32 [%r5], 7;
    {arrive} _, [smem+16384];
    bra DONE;
READ:
    mbarrier.try_wait.parity{wait_more}.shared::cta.b64 %p15, [smem+16384], 0;
    @!%p15 bra READ;
    ld.shared.b32 %r6, [%r5];
DONE:",
            start(32, 1)
        )
    };
    let relaxed = "mbarrier.arrive.relaxed.cluster.shared::cta.b64";
    is_clean(&body("mbarrier.arrive.shared::cta.b64", ""), threads(64));
    is_clean(&body(&format!("fence.acq_rel.cta;\n    {relaxed}"), ""), threads(64));
    let advice = "a barrier (bar.sync) that both warps take part in, or an mbarrier, is missing";
    is_reported(&body(relaxed, ""), threads(64), advice);
    is_reported(&body("mbarrier.arrive.shared::cta.b64", ".relaxed.cluster"), threads(64), advice);
}

#[test]
fn a_barrier_is_used_behind_its_initialisation_only() {
    let fence = "fence.mbarrier_init.release.cluster;";
    let load = |fence: &str, sync: &str| {
        format!(
            "
    mov.b32 %r1, smem;
    shr.u32 %r4, %r0, 5;
    setp.eq.u32 %p0, %r0, 0;
    setp.eq.u32 %p1, %r0, 32;
    @%p0 mbarrier.init.shared::cta.b64 [smem+16384], 1;
    {fence}
    {sync}
    @!%p1 bra DONE;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+16384], 128;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [smem], [%rd0], 128, [smem+16384];{}
DONE:",
            wait("smem+16384", "0", "FULL")
        )
    };
    is_clean(&load(fence, "bar.sync 0;"), threads(64));
    is_clean(&load(FENCE, "bar.sync 0;"), threads(64));
    is_reported(&load("", "bar.sync 0;"), threads(64), "a fence.mbarrier_init.release.cluster");
    // Without a barrier the use may come first, where there is no mbarrier, or race.
    is_reported(&load(fence, ""), threads(64), "race on 8 bytes");
    // The fence is for mbarriers alone.
    let init = "mad.lo.s32 %r4, %r3, 8, 16384;\n    @%p0 mbarrier.init.shared::cta.b64 [%r4], 1;";
    let stored = epilogue(&format!("{init}\n    {fence}"), "cp.async.bulk.wait_group.read 0;", "bar.sync 0;");
    let stored = stored.replace("[smem], 256", "[smem], 128");
    is_clean(&stored.replace(fence, FENCE), threads(32));
    is_reported(&stored, threads(32), NO_PROXY_FENCE);
}

/// `st.async` acts in the generic proxy: no fence before it, one between it and a bulk store.
#[test]
fn asynchronous_stores_need_a_proxy_fence_only_before_bulk_copies() {
    let body = |fence: &str, waits: bool| {
        format!(
            "{}{MEET}
    mov.u32 %r6, %cluster_ctarank;
    setp.eq.u32 %p4, %r6, 1;
    st.shared.b32 [%r2], 5;{MEET}
    mapa.shared::cluster.u32 %r7, %r2, 1;
    mov.b32 %r8, 16384;
    mapa.shared::cluster.u32 %r8, %r8, 1;
    @!%p4 st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r7], 7, [%r8];
    and.pred %p5, %p4, %p0;
    @!%p5 bra DONE;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+16384], 128;{}
    ld.shared.b32 %r9, [smem];
    {fence}
    cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 128;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
DONE:{MEET}",
            start(1, 1),
            if waits { wait("smem+16384", "0", "FULL") } else { String::new() }
        )
    };
    is_clean(&body(FENCE, true), cluster(2, 32));
    is_reported(&body("", true), cluster(2, 32), NO_PROXY_FENCE);
    is_reported(&body(FENCE, false), cluster(2, 32), "earlier write by st.async");
}

/// The data of a multicast is there for those who waited at the barrier of the CTA that it was written to.
#[test]
fn each_cta_waits_at_its_own_barrier_for_a_multicast() {
    let body = |who: &str| {
        format!(
            "{}
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+16384], 128;{MEET}
    mov.u32 %r6, %cluster_ctarank;
    setp.eq.u32 %p4, %r6, 0;
    and.pred %p5, %p4, %p0;
    mov.b16 %rs0, 3;
    @%p5 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [smem], [%rd0], 128, [smem+16384], %rs0;
    setp.{who}.u32 %p6, %r6, 0;
    @!%p6 bra MEET;{}
MEET:{MEET}
    ld.shared.b32 %r7, [%r5];
    ld.shared.b32 %r7, [%r5];{}{MEET}",
            start(1, 1),
            wait("smem+16384", "0", "FULL"),
            wait("smem+16384", "0", "LATE"),
        )
    };
    is_clean(&body("ge"), cluster(2, 64));
    is_reported(&body("eq"), cluster(2, 64), "asynchronous write of warp 0 in CTA (0, 0, 0)");
}

#[test]
fn a_cta_waits_for_its_bulk_stores_before_it_exits() {
    let body = |wait: &str| {
        format!(
            "{}
    @!%p0 bra DONE;
    cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 128;
    cp.async.bulk.commit_group;
    {wait}
DONE:",
            start(1, 1)
        )
    };
    is_clean(&body("cp.async.bulk.wait_group.read 0;"), threads(64));
    is_reported(&body(""), threads(64), "the CTA exits while this copy still reads its shared memory");
    is_reported(&body("cp.async.bulk.wait_group.read 1;"), threads(64), "the CTA exits while this copy");
}
