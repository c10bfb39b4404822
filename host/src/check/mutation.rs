//! Mutants of the shipped code: each wait, fence, barrier, commit and arrival dropped or weakened in turn. A checker that
//! lets one pass as clean cannot see that kind of bug.

use std::time::Instant;

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
/// it. The original has to be clean on all of them, else that is the error.
///
/// # Errors
/// When a backend gives out, or the original is not clean.
pub fn check_mutants(
    backends: &[&dyn KernelBackend],
    instance: &Instance,
    sink: &mut dyn FnMut(MutantOutcome),
) -> Result<(), CheckError> {
    let subject = variant_id(instance);
    let Some(first) = backends.first() else { return Ok(()) };
    let code = first.code(instance)?;
    if let Some(reason) = report(backends, instance)? {
        return Err(CheckError::NotClean { kernel: subject, reason });
    }
    let planted = mutants(&code.ptx, instance.entry()).map_err(|error| BackendError::Launch {
        what: format!("planting mutants in {subject}"),
        reason: error.to_string(),
    })?;
    for mutant in planted {
        let started = Instant::now();
        let ptx = mutant.ptx();
        let result = match mutant.equivalence_hint() {
            Some(reason) => MutantResult::Equivalent(reason.to_owned()),
            None => match run(backends, instance, &ptx)? {
                Some(reason) => MutantResult::Reported(reason),
                None => not_modelled(mutant.kind).map_or(MutantResult::Missed, MutantResult::NotModelled),
            },
        };
        sink(MutantOutcome {
            subject: subject.clone(),
            arch: code.arch.clone(),
            line: mutant.line,
            text: mutant.text,
            change: mutant.change,
            result,
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    backends.iter().try_for_each(|backend| backend.substitute(instance, &code.ptx))?;
    Ok(())
}

/// Says why a kind of mutant may pass; see "What it does not model" in `docs/emulator.md`.
fn not_modelled(kind: MutationKind) -> Option<&'static str> {
    match kind {
        MutationKind::DropWarpBarrier => {
            Some("lanes of a warp run together and are one for the race checker")
        }
        _ => None,
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
    let wanted = |_: &str, case: &str| case == usual || MORE_CASES.iter().any(|more| case.starts_with(more));
    let mut reason = None;
    for backend in backends {
        let filter = |subject: &str, case: &str| wanted(subject, case);
        let checked = check_kernels(*backend, &[*instance], &filter, &mut |outcome: Outcome| {
            if let Verdict::Failed(found) = outcome.verdict {
                reason.get_or_insert(found);
            }
        });
        match checked {
            Ok(()) => {}
            // Loading tensors launches kernels, too.
            Err(CheckError::Device(BackendError::Launch { reason: found, .. })) => {
                reason.get_or_insert(found);
            }
            Err(error) => return Err(error),
        }
        if reason.is_some() {
            break;
        }
    }
    Ok(reason)
}

/// Cases beside the usual one: rings of tiles that go round, lists of one block, tiles of single rows, negated queries.
const MORE_CASES: [&str; 4] = ["many-tiles", "corners", "one-token", "negative-scale"];
