//! Mutants of the shipped code: each wait, fence, barrier, commit and arrival dropped or weakened in turn. A checker that
//! lets one pass as clean cannot see that kind of bug.

use std::{cell::RefCell, time::Instant};

use nabla_emulator::{MutationKind, mutants};
use nabla_kernels_gpu::instances::Instance;

use super::{CheckError, Outcome, Verdict, check_kernels, usual_case};
use crate::{
    backend::{BackendError, KernelBackend},
    codegen::variant_id,
};

/// What became of one mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MutantResult {
    /// It was reported, in these words: a fault, or an output that is wrong.
    Reported(String),
    /// It cannot be told from the original, for this reason.
    Equivalent(String),
    /// It passed as clean, because the emulator does not model what it breaks, for this reason.
    NotModelled(&'static str),
    /// It passed as clean.
    Missed,
}

/// One mutant of one kernel.
#[derive(Debug, Clone)]
pub struct MutantOutcome {
    /// Kernel instance.
    pub subject: String,
    /// Architecture of the code.
    pub arch: String,
    /// Line of the instruction in the PTX.
    pub line: u32,
    /// The instruction as it was.
    pub text: String,
    /// What was done to it.
    pub change: String,
    /// What became of it.
    pub result: MutantResult,
    /// Seconds until that was known.
    pub seconds: f64,
}

/// Plants every mutant of an instance's code, one at a time, and runs each on `backends` in their order until one reports
/// it. The original has to be clean on all of them, else that is the error. `progress` is told of each as it is done; what
/// passed as clean may find its explanation only in the result.
///
/// # Errors
/// When a backend gives out, or the original is not clean.
pub fn check_mutants(
    backends: &[&dyn KernelBackend],
    instance: &Instance,
    progress: &mut dyn FnMut(&MutantOutcome),
) -> Result<Vec<MutantOutcome>, CheckError> {
    let subject = variant_id(instance);
    let Some(first) = backends.first() else { return Ok(Vec::new()) };
    let code = first.code(instance)?;
    if let Some(reason) = report(backends, instance)? {
        return Err(CheckError::NotClean { kernel: subject, reason });
    }
    let planted = mutants(&code.ptx, instance.entry()).map_err(|error| BackendError::Launch {
        what: format!("planting mutants in {subject}"),
        reason: error.to_string(),
    })?;
    let mut outcomes = Vec::with_capacity(planted.len());
    for mutant in planted {
        let started = Instant::now();
        let ptx = mutant.ptx();
        let result = match mutant.equivalence_hint() {
            Some(reason) => MutantResult::Equivalent(reason.to_owned()),
            None => match run(backends, instance, &ptx)? {
                Some(reason) => MutantResult::Reported(reason),
                None => explained(instance, mutant.kind, &mutant.text),
            },
        };
        let outcome = MutantOutcome {
            subject: subject.clone(),
            arch: code.arch.clone(),
            line: mutant.line,
            text: mutant.text,
            change: mutant.change,
            result,
            seconds: started.elapsed().as_secs_f64(),
        };
        progress(&outcome);
        outcomes.push(outcome);
    }
    excuse_fences(&mut outcomes);
    excuse_last_release(&mut outcomes);
    backends.iter().try_for_each(|backend| backend.substitute(instance, &code.ptx))?;
    Ok(outcomes)
}

/// Says why a mutant may pass; see "What it does not model" in `docs/emulator.md`.
fn explained(instance: &Instance, kind: MutationKind, text: &str) -> MutantResult {
    match kind {
        MutationKind::DropWarpBarrier => {
            MutantResult::NotModelled("lanes of a warp run together and are one for the race checker")
        }
        MutationKind::RenumberBarrier if instance.groups_that_meet() == 1 => MutantResult::Equivalent(
            "one group of warps alone meets at named barriers: it does so under any number".to_owned(),
        ),
        // Turns are the only barriers behind a predicate. They say when products start, and order no memory.
        MutationKind::RenumberBarrier if instance.constants.ping_pong && text.starts_with('@') => {
            MutantResult::Equivalent(
                "warpgroups that take turns meet there instead, each with its products: turns order no memory"
                    .to_owned(),
            )
        }
        _ => MutantResult::Missed,
    }
}

/// Explains a last `barrier.cluster.arrive` that passed without releasing: behind it shared memory only has to be there. Only
/// where the check shows that it works: another one of the same kernel has to be missed when it does not release.
fn excuse_last_release(outcomes: &mut [MutantOutcome]) {
    let weakened = |outcome: &MutantOutcome| {
        outcome.text.contains("barrier.cluster.arrive") && outcome.change.contains("without releasing")
    };
    let works = outcomes
        .iter()
        .any(|outcome| weakened(outcome) && matches!(outcome.result, MutantResult::Reported(_)));
    let last = outcomes.iter_mut().filter(|outcome| weakened(outcome)).max_by_key(|outcome| outcome.line);
    if let Some(outcome) = last.filter(|outcome| works && outcome.result == MutantResult::Missed) {
        outcome.result = MutantResult::Equivalent(
            "nothing is read behind the last barrier of the cluster: it keeps shared memory until all are done"
                .to_owned(),
        );
    }
}

/// Explains dropped `wgmma.fence` that passed. Whether an access lies between a fence and a `wgmma` is checked for each
/// register, so one that passes had all its registers fenced before. Only where the check shows that it works: another
/// fence of the same kernel has to be missed when it is dropped.
fn excuse_fences(outcomes: &mut [MutantOutcome]) {
    let is_fence = |outcome: &MutantOutcome| outcome.text.contains("wgmma.fence");
    let works = outcomes
        .iter()
        .any(|outcome| is_fence(outcome) && matches!(outcome.result, MutantResult::Reported(_)));
    for outcome in outcomes.iter_mut().filter(|outcome| works && is_fence(outcome)) {
        if outcome.result == MutantResult::Missed {
            outcome.result = MutantResult::Equivalent(
                "an earlier wgmma.fence covers all its registers, and nothing touched them since".to_owned(),
            );
        }
    }
}

/// Runs other code for an instance; the words of whatever reports it.
fn run(
    backends: &[&dyn KernelBackend],
    instance: &Instance,
    ptx: &str,
) -> Result<Option<String>, CheckError> {
    for backend in backends {
        match backend.substitute(instance, ptx) {
            Ok(()) => {}
            Err(BackendError::Launch { reason, .. }) => return Ok(Some(reason)),
            Err(error) => return Err(error.into()),
        }
    }
    report(backends, instance)
}

/// Runs an instance on its usual case and on those that fill and empty its buffers otherwise.
fn report(backends: &[&dyn KernelBackend], instance: &Instance) -> Result<Option<String>, CheckError> {
    let usual = usual_case(instance);
    let wanted = |case: &str| case == usual || MORE_CASES.iter().any(|more| case.starts_with(more));
    let reason = RefCell::new(None);
    for backend in backends {
        // The first report is enough.
        let filter = |_: &str, case: &str| wanted(case) && reason.borrow().is_none();
        let checked = check_kernels(*backend, &[*instance], &filter, &mut |outcome: Outcome| {
            if let Verdict::Failed(found) = outcome.verdict {
                reason.borrow_mut().get_or_insert(found);
            }
        });
        match checked {
            Ok(()) => {}
            // Loading tensors launches kernels, too.
            Err(CheckError::Device(BackendError::Launch { reason: found, .. })) => {
                reason.borrow_mut().get_or_insert(found);
            }
            Err(error) => return Err(error),
        }
        if reason.borrow().is_some() {
            break;
        }
    }
    Ok(reason.into_inner())
}

/// Cases beside the usual one: rings of tiles that go round, consumers that skip whole rounds, lists of one block, tiles
/// of single rows, negated queries; maps of many blocks.
const MORE_CASES: [&str; 6] =
    ["many-tiles", "far-apart", "corners", "one-token", "negative-scale", "many-blocks mass 0.8"];
