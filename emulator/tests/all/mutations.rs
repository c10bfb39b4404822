//! What the mutation engine does to each synchronisation instruction, and that the rest of the text stays as it was.

use nabla_emulator::{Module, Mutant, MutationKind, mutants};

fn kernel(body: &str) -> String {
    format!(
        "
.version 8.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 data)
{{
    .reg .pred %p<8>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<16>;
{body}
    ret;
}}
"
    )
}

fn of(body: &str) -> Vec<Mutant> {
    mutants(&kernel(body), "k").unwrap_or_else(|error| panic!("{error}"))
}

/// Every mutant of one line: its changed line and what is said of it.
#[track_caller]
fn check(line: &str, expected: &[(MutationKind, &str, &str)]) {
    let text = kernel(line);
    let accepted = Module::parse("original.ptx", &text).map(|_| ());
    let (head, tail) = text.split_once(line).expect("the text holds the line");
    let got: Vec<(MutationKind, String, String)> = of(line)
        .into_iter()
        .map(|mutant| {
            assert_eq!(mutant.text, line.split_whitespace().collect::<Vec<_>>().join(" "));
            let ptx = mutant.ptx();
            let parsed = Module::parse("mutant.ptx", &ptx).map(|_| ());
            assert!(accepted.is_err() || parsed.is_ok(), "the mutant is no PTX: {parsed:?}");
            let changed = ptx.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
            (mutant.kind, mutant.change, changed.expect("the rest stays as it was").to_owned())
        })
        .collect();
    let expected: Vec<(MutationKind, String, String)> =
        expected.iter().map(|(kind, words, text)| (*kind, (*words).to_owned(), (*text).to_owned())).collect();
    assert_eq!(got, expected, "{line}");
}

use MutationKind as K;

#[test]
fn barriers_are_dropped_and_named_ones_renumbered() {
    check("bar.sync 0;", &[(K::DropBarrier, "dropped", "")]);
    check("@!%p1 bar.sync 0;", &[(K::DropBarrier, "dropped", "")]);
    check(
        "bar.sync 3, 128;",
        &[
            (K::DropBarrier, "dropped", ""),
            (K::RenumberBarrier, "barrier 4 instead of 3", "bar.sync 4, 128;"),
        ],
    );
    check(
        "barrier.cta.arrive.aligned 15, 64;",
        &[
            (K::DropBarrier, "dropped", ""),
            (K::RenumberBarrier, "barrier 0 instead of 15", "barrier.cta.arrive.aligned 0, 64;"),
        ],
    );
    check(
        "barrier.sync %r1, 128;",
        &[
            (K::DropBarrier, "dropped", ""),
            (K::RenumberBarrier, "barrier 15 instead of %r1", "barrier.sync 15, 128;"),
        ],
    );
    check("bar.warp.sync 0xffffffff;", &[(K::DropWarpBarrier, "dropped", "")]);
    let own = "each thread reduces its own value alone";
    check("bar.red.popc.u32 %r1, 0, %p1;", &[(K::DropBarrier, own, "selp.b32 %r1, 1, 0, %p1;")]);
    check("bar.red.popc.u32 %r1, 0, !%p1;", &[(K::DropBarrier, own, "selp.b32 %r1, 0, 1, %p1;")]);
    check("bar.red.and.pred %p2, 0, %p1;", &[(K::DropBarrier, own, "mov.pred %p2, %p1;")]);
    check("@%p3 bar.red.or.pred %p2, 0, !%p1;", &[(K::DropBarrier, own, "@%p3 not.pred %p2, %p1;")]);
}

#[test]
fn a_renumbered_barrier_prefers_a_number_in_use() {
    let found = of("bar.sync 1, 64;\nbar.arrive 2, 64;");
    let changes: Vec<&str> =
        found.iter().filter(|m| m.kind == K::RenumberBarrier).map(|m| m.change.as_str()).collect();
    assert_eq!(changes, ["barrier 2 instead of 1", "barrier 1 instead of 2"]);
}

#[test]
fn cluster_barriers_are_dropped_and_relaxed() {
    let relaxed = "arrives without releasing";
    check(
        "barrier.cluster.arrive.release.aligned;",
        &[
            (K::DropClusterBarrier, "dropped", ""),
            (K::RelaxOrder, relaxed, "barrier.cluster.arrive.relaxed.aligned;"),
        ],
    );
    check(
        "barrier.cluster.arrive;",
        &[
            (K::DropClusterBarrier, "dropped", ""),
            (K::RelaxOrder, relaxed, "barrier.cluster.arrive.relaxed;"),
        ],
    );
    check("barrier.cluster.arrive.relaxed;", &[(K::DropClusterBarrier, "dropped", "")]);
    check("barrier.cluster.wait.acquire.aligned;", &[(K::DropClusterBarrier, "dropped", "")]);
}

#[test]
fn groups_lose_their_commits_and_waits() {
    for line in ["cp.async.commit_group;", "cp.async.bulk.commit_group;", "wgmma.commit_group.sync.aligned;"]
    {
        check(line, &[(K::DropCommit, "dropped", "")]);
    }
    check("cp.async.wait_all;", &[(K::DropWait, "dropped", "")]);
    check(
        "cp.async.wait_group 1;",
        &[
            (K::DropWait, "dropped", ""),
            (K::RaiseWait, "leaves 2 groups under way instead of 1", "cp.async.wait_group 2;"),
        ],
    );
    let more = "leaves 1 groups under way instead of 0";
    check(
        "wgmma.wait_group.sync.aligned 0;",
        &[(K::DropWait, "dropped", ""), (K::RaiseWait, more, "wgmma.wait_group.sync.aligned 1;")],
    );
    check(
        "cp.async.bulk.wait_group 0;",
        &[
            (K::DropWait, "dropped", ""),
            (K::RaiseWait, more, "cp.async.bulk.wait_group 1;"),
            (
                K::WaitForReads,
                "waits until the sources are read, not until the data is there",
                "cp.async.bulk.wait_group.read 0;",
            ),
        ],
    );
    check(
        "cp.async.bulk.wait_group.read 0;",
        &[(K::DropWait, "dropped", ""), (K::RaiseWait, more, "cp.async.bulk.wait_group.read 1;")],
    );
    check("cp.async.mbarrier.arrive.noinc.shared.b64 [%r1];", &[(K::DropArrive, "dropped", "")]);
}

#[test]
fn fences_are_dropped_and_those_of_wide_scope_narrowed() {
    for line in [
        "fence.proxy.async;",
        "fence.proxy.async.shared::cta;",
        "fence.mbarrier_init.release.cluster;",
        "fence.acq_rel.cta;",
        "membar.cta;",
        "wgmma.fence.sync.aligned;",
    ] {
        check(line, &[(K::DropFence, "dropped", "")]);
    }
    check(
        "fence.acq_rel.gpu;",
        &[
            (K::DropFence, "dropped", ""),
            (K::NarrowFence, "orders for the CTA alone instead of `.gpu`", "fence.acq_rel.cta;"),
        ],
    );
    check(
        "membar.gl;",
        &[
            (K::DropFence, "dropped", ""),
            (K::NarrowFence, "orders for the CTA alone instead of `.gl`", "membar.cta;"),
        ],
    );
}

#[test]
fn orders_of_accesses_are_relaxed() {
    check(
        "ld.acquire.gpu.global.b32 %r1, [%rd1];",
        &[(K::RelaxOrder, "relaxed instead of `.acquire`", "ld.relaxed.gpu.global.b32 %r1, [%rd1];")],
    );
    check(
        "atom.acq_rel.gpu.global.add.u32 %r1, [%rd1], 1;",
        &[(
            K::RelaxOrder,
            "relaxed instead of `.acq_rel`",
            "atom.relaxed.gpu.global.add.u32 %r1, [%rd1], 1;",
        )],
    );
    check("st.global.b32 [%rd1], %r1;", &[]);
    check("griddepcontrol.wait;", &[(K::DropGridWait, "dropped", "")]);
}

#[test]
fn counts_of_an_mbarrier_are_off_by_one() {
    check(
        "mbarrier.init.shared::cta.b64 [%r1], 2;",
        &[
            (K::DropInit, "dropped", ""),
            (K::MiscountInit, "counts 3 arrivals instead of 2", "mbarrier.init.shared::cta.b64 [%r1], 3;"),
            (K::MiscountInit, "counts 1 arrivals instead of 2", "mbarrier.init.shared::cta.b64 [%r1], 1;"),
        ],
    );
    // A count of zero is no `mbarrier`.
    check(
        "@%p1 mbarrier.init.shared.b64 [%r1], 1;",
        &[
            (K::DropInit, "dropped", ""),
            (K::MiscountInit, "counts 2 arrivals instead of 1", "@%p1 mbarrier.init.shared.b64 [%r1], 2;"),
        ],
    );
    let scope = "{ .reg .b32 %mutated; ";
    check(
        "@%p1 mbarrier.init.shared.b64 [%r1], %r2;",
        &[
            (K::DropInit, "dropped", ""),
            (
                K::MiscountInit,
                "counts one arrival more",
                &format!(
                    "{scope}add.s32 %mutated, %r2, 1; @%p1 mbarrier.init.shared.b64 [%r1], %mutated; }}"
                ),
            ),
            (
                K::MiscountInit,
                "counts one arrival fewer",
                &format!(
                    "{scope}sub.s32 %mutated, %r2, 1; @%p1 mbarrier.init.shared.b64 [%r1], %mutated; }}"
                ),
            ),
        ],
    );
}

#[test]
fn arrivals_are_dropped_and_lose_their_bytes() {
    check("mbarrier.arrive.shared.b64 _, [%r1];", &[(K::DropArrive, "dropped", "")]);
    check(
        "@%p1 mbarrier.arrive.shared::cta.b64 %rd1, [%r1+8], 4;",
        &[(K::DropArrive, "dropped, the state is 0", "@%p1 mov.b64 %rd1, 0;")],
    );
    check(
        "mbarrier.arrive.expect_tx.shared::cta.b64 %rd1, [%r1], 4096;",
        &[
            (K::DropArrive, "dropped, the state is 0", "mov.b64 %rd1, 0;"),
            (
                K::DropExpect,
                "arrives without expecting bytes",
                "mbarrier.arrive.shared::cta.b64 %rd1, [%r1];",
            ),
            (
                K::HalveExpect,
                "expects 2048 bytes instead of 4096",
                "mbarrier.arrive.expect_tx.shared::cta.b64 %rd1, [%r1], 2048;",
            ),
        ],
    );
    check(
        "mbarrier.arrive.release.cluster.expect_tx.shared::cluster.b64 _, [%r1], %r2;",
        &[
            (K::DropArrive, "dropped", ""),
            (
                K::DropExpect,
                "arrives without expecting bytes",
                "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1];",
            ),
            (
                K::HalveExpect,
                "expects half of the bytes",
                "{ .reg .b32 %mutated; shr.u32 %mutated, %r2, 1; \
                 mbarrier.arrive.release.cluster.expect_tx.shared::cluster.b64 _, [%r1], %mutated; }",
            ),
        ],
    );
    check(
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], 128;",
        &[
            (K::DropExpect, "dropped", ""),
            (
                K::HalveExpect,
                "expects 64 bytes instead of 128",
                "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], 64;",
            ),
        ],
    );
    check("mbarrier.complete_tx.shared.b64 [%r1], 128;", &[(K::DropComplete, "dropped", "")]);
    check("mbarrier.inval.shared.b64 [%r1];", &[]);
}

#[test]
fn waits_for_an_mbarrier_pass_or_take_the_other_parity() {
    check(
        "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 0;",
        &[
            (K::SkipWait, "always through", "mov.pred %p1, 1;"),
            (
                K::SwapParity,
                "waits for parity 1 instead of 0",
                "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 1;",
            ),
        ],
    );
    check(
        "@%p2 mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], %r2, 1000;",
        &[
            (K::SkipWait, "always through", "@%p2 mov.pred %p1, 1;"),
            (
                K::SwapParity,
                "waits for the other parity",
                "{ .reg .b32 %mutated; xor.b32 %mutated, %r2, 1; \
                 @%p2 mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], %mutated, 1000; }",
            ),
        ],
    );
    check(
        "mbarrier.test_wait.shared.b64 %p1, [%r1], %rd1;",
        &[(K::SkipWait, "always through", "mov.pred %p1, 1;")],
    );
}

/// Inline assembly: several instructions on one line, scopes, comments with marks in them, guards far from their opcode.
#[test]
fn only_the_instruction_itself_changes() {
    let body = "    { .reg .pred %q; L: mbarrier.try_wait.parity.b64 %q, [%rd1], 1; @%q bra D; bra L; D: }
    @ /* @ ; */ ! // bar.sync 0;
      %p1
      bar.sync 1 ; // @%p0 bar.sync 2;
    /* bar.sync 3; */ .loc 1 2 3 bar.sync 0; bar.sync 0;";
    let text = kernel(body);
    let changed: Vec<String> = of(body)
        .into_iter()
        .map(|mutant| {
            let ptx = mutant.ptx();
            assert_eq!(ptx.lines().count(), text.lines().count(), "lines keep their numbers");
            let lines = ptx.lines().zip(text.lines()).filter(|(new, old)| new != old);
            let lines: Vec<String> = lines.map(|(new, old)| format!("- {old}\n+ {new}")).collect();
            let Mutant { line, column, text, change, .. } = mutant;
            format!("{line}:{column} {text} {change}\n{}", lines.join("\n"))
        })
        .collect();
    insta::assert_snapshot!(changed.join("\n"));
}

#[test]
fn equivalent_mutants_are_known_by_the_text_alone() {
    let hints = |body: &str| -> Vec<(String, Option<String>)> {
        of(body).iter().map(|m| (m.change.clone(), m.equivalence_hint().map(str::to_owned))).collect()
    };
    let said = |body: &str, at: usize| hints(body)[at].1.clone().unwrap_or_default();
    let twice = "cp.async.wait_group 0;\ncp.async.wait_group 1;";
    assert!(said(twice, 2).contains("directly before"), "the second is covered: {:?}", hints(twice));
    assert!(said(twice, 3).contains("directly before"));
    assert_eq!(hints(twice)[0].1, None, "the first waits for more");
    let stricter = "wgmma.wait_group.sync.aligned 1;\n@%p1 wgmma.wait_group.sync.aligned 0;";
    assert_eq!(hints(stricter)[0].1, None, "the second may not run");
    assert!(
        said("wgmma.wait_group.sync.aligned 1;\nwgmma.wait_group.sync.aligned 0;", 1)
            .contains("directly after")
    );
    for apart in [
        "cp.async.wait_group 0;\nL:\ncp.async.wait_group 0;",
        "cp.async.wait_group 0;\ncp.async.commit_group;\ncp.async.wait_group 0;",
        "cp.async.wait_group 0;\ncp.async.bulk.wait_group 0;",
        "cp.async.wait_group 0;\nadd.s32 %r1, %r1, 1;\ncp.async.wait_group 0;",
        "bar.sync 0;\nbar.sync 0;",
        "cp.async.bulk.wait_group.read 0;\ncp.async.bulk.wait_group 0;",
    ] {
        let last = hints(apart).into_iter().next_back().and_then(|(_, hint)| hint);
        assert_eq!(last, None, "{apart}");
    }
    assert!(said("cp.async.wait_all;\ncp.async.wait_group 0;", 1).contains("directly before"));
    assert!(said("fence.proxy.async;\nfence.proxy.async;", 0).contains("same fence"));
    assert_eq!(hints("fence.proxy.async;\nfence.acq_rel.cta;")[0].1, None);
    assert!(said("bar.sync 1, 64;", 1).contains("no other instruction"));
    assert_eq!(hints("bar.sync 1, 64;\nbar.arrive 1, 64;")[1].1, None);
    assert_eq!(hints("bar.sync 1, 64;\nbar.sync %r1, 64;")[1].1, None, "the register may hold 2");
}

#[test]
fn errors_name_the_kernels_there_are() {
    let error = mutants(&kernel(""), "other").expect_err("no such kernel");
    assert!(error.message.contains("`other`") && error.message.contains("[\"k\"]"), "{error}");
    assert_eq!(mutants("frob", "k").expect_err("no PTX").line, 1);
}

#[test]
fn the_sparse_kernel_has_these_mutants() {
    let text = include_str!("../fixtures/attention_sparse_d64.ptx");
    let found = mutants(text, "nabla_attention_sparse").unwrap_or_else(|error| panic!("{error}"));
    let list: Vec<String> = found
        .iter()
        .map(|mutant| {
            Module::parse("mutant.ptx", &mutant.ptx()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(mutant.ptx().lines().count(), text.lines().count(), "lines keep their numbers");
            format!("{} {}: {}", mutant.line, mutant.text, mutant.change)
        })
        .collect();
    insta::assert_snapshot!(list.join("\n"));
}
