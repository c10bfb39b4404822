//! From named parameters to an instance and back: every constant that instances of a problem differ in is a parameter.

use std::collections::BTreeMap;

use nabla_kernels_gpu::instances::{Arch, INSTANCES, Instance, Kernel};

use super::choice::{attention_candidates, axes_of, device_dtype, tiles};
use crate::{
    Problem,
    parameters::{ParameterSpace, Parameters, Value},
    variant::{Ineligible, MaskBlock},
};

/// Which source: portable or Hopper's.
const KERNEL: &str = "kernel";
/// Constants that the problem decides, or that attention does not read.
const NOT_TUNED: [&str; 3] = ["NABLA_HEAD_DIM", "NABLA_DTYPE", "NABLA_MAX_KV_BLOCKS"];

/// Returns the parameters of an instance.
pub(super) fn parameters_of(instance: &Instance) -> Parameters {
    let constants = instance.env().into_iter().filter(|(name, _)| !NOT_TUNED.contains(name));
    let named = constants.map(|(name, value)| {
        let name = name.strip_prefix("NABLA_").unwrap_or(name).to_ascii_lowercase();
        (name, i64::from(value))
    });
    named.fold(Parameters::default().with(KERNEL, instance.kernel.name()), |mut parameters, (name, value)| {
        parameters.0.insert(name, Value::Int(value));
        parameters
    })
}

/// Lists the instances of attention that fit a problem and a device with these instruction sets that `fits` speaks for:
/// the points of the axes and what is listed besides; and counts what does not fit, by reason.
pub(super) fn instances(
    problem: &Problem,
    block: Option<MaskBlock>,
    instruction_sets: &[Arch],
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> (Vec<Instance>, BTreeMap<String, u64>) {
    instances_with(problem, block, &Parameters::default(), instruction_sets, fits)
}

/// Lists those of [`instances`] that have the given parameters; spaces have tens of thousands of points, which are not all
/// looked at.
fn instances_with(
    problem: &Problem,
    block: Option<MaskBlock>,
    parameters: &Parameters,
    instruction_sets: &[Arch],
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> (Vec<Instance>, BTreeMap<String, u64>) {
    let dtype = device_dtype(problem.dtype).ok();
    let has_all = |instance: &Instance| {
        if parameters.0.is_empty() {
            return true;
        }
        let of = parameters_of(instance);
        parameters.0.iter().all(|(name, value)| of.get(name) == Some(value))
    };
    // An axis that is no parameter, or under another name, is left to the parameters of the instance.
    let keep = |axis: &str, value: i64| match axis {
        "head_dim" => usize::try_from(value).is_ok_and(|value| value == problem.head_dim),
        "dtype" => dtype.is_some_and(|dtype| i64::from(dtype.code()) == value),
        _ => match parameters.get(axis) {
            Some(Value::Int(wanted)) => *wanted == value,
            _ => true,
        },
    };
    let of_the_problem = |instance: &Instance| {
        let constants = instance.constants;
        matches!(
            instance.kernel,
            Kernel::AttentionSparse | Kernel::AttentionDense | Kernel::HopperSparse | Kernel::HopperDense
        ) && instance.kernel.is_sparse() == block.is_some()
            && Some(constants.dtype) == dtype
            && constants.head_dim as usize == problem.head_dim
    };
    // A head dimension that is no point of the axes still has what a tile alone leads to.
    let of_tiles = tiles(problem, instruction_sets)
        .into_iter()
        .filter_map(|tile| attention_candidates(problem, block, tile, instruction_sets).ok())
        .flatten();
    let points = instruction_sets.iter().flat_map(|&arch| axes_of(arch).instances_where(keep));
    let all = points.chain(INSTANCES.iter().copied()).chain(of_tiles);
    let mut found: Vec<Instance> =
        all.filter(|instance| of_the_problem(instance) && has_all(instance)).collect();
    found.sort_unstable();
    found.dedup();
    let mut refused = BTreeMap::new();
    found.retain(|instance| match check(instance, block).and_then(|()| fits(instance)) {
        Ok(()) => true,
        Err(Ineligible { reason }) => {
            *refused.entry(reason).or_default() += 1;
            false
        }
    });
    (found, refused)
}

fn check(instance: &Instance, block: Option<MaskBlock>) -> Result<(), Ineligible> {
    let refuse = |reason: String| Err(Ineligible { reason });
    if let Err(reason) = instance.check() {
        return refuse(reason.to_owned());
    }
    let rows = instance.query_rows() as usize;
    match block {
        Some(block)
            if rows > block.q_block
                || !block.q_block.is_multiple_of(rows) && instance.tensor_maps().is_some() =>
        {
            refuse(format!(
                "query tiles of {rows} rows do not fill the mask's query block of {}",
                block.q_block
            ))
        }
        _ => Ok(()),
    }
}

/// Finds the first instance with all the given parameters.
pub(super) fn instance_of(
    problem: &Problem,
    block: Option<MaskBlock>,
    parameters: &Parameters,
    instruction_sets: &[Arch],
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> Result<Instance, Ineligible> {
    let (found, _) = instances_with(problem, block, parameters, instruction_sets, fits);
    found.first().copied().ok_or_else(|| Ineligible {
        reason: format!(
            "no kernel for this problem and device has {parameters}; `nabla tune --print-space` lists them"
        ),
    })
}

/// Returns the space of a problem.
pub(super) fn space(
    problem: &Problem,
    block: Option<MaskBlock>,
    instruction_sets: &[Arch],
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> ParameterSpace {
    let (found, refused) = instances(problem, block, instruction_sets, fits);
    ParameterSpace::of_configurations(found.iter().map(parameters_of).collect(), refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, variant::TileConfig};

    fn problem() -> Problem {
        Problem {
            batch: 1,
            heads: 2,
            seqlen_q: 512,
            seqlen_k: 512,
            head_dim: 64,
            dtype: Dtype::Bf16,
            softmax_scale: 0.125,
            grid: None,
        }
    }

    /// What a Hopper GPU runs, its own first.
    const HOPPER: [Arch; 2] = [Arch::Sm90a, Arch::Sm80];

    #[test]
    fn every_configuration_leads_back_to_its_instance() {
        for block in [None, Some(MaskBlock::square(64))] {
            let (portable, _) = instances(&problem(), block, &[Arch::Sm80], |_| Ok(()));
            let (found, _) = instances(&problem(), block, &HOPPER, |_| Ok(()));
            assert!(portable.len() > 20 && found.len() > portable.len() + 200, "{}", found.len());
            for instance in found.into_iter().step_by(7) {
                let again = instance_of(&problem(), block, &parameters_of(&instance), &HOPPER, |_| Ok(()));
                assert_eq!(again, Ok(instance));
            }
        }
    }

    #[test]
    fn a_stranger_is_refused() {
        let block = Some(MaskBlock::square(64));
        let tile = TileConfig { block_m: 64, block_n: 64 };
        let strange = Parameters::of_tile(tile).with("stages", 17usize);
        let refused = instance_of(&problem(), block, &strange, &HOPPER, |_| Ok(())).unwrap_err();
        assert!(refused.reason.contains("stages=17"), "{refused}");
    }

    #[test]
    fn what_a_device_lacks_is_counted_by_reason() {
        let none = |_: &Instance| Err(Ineligible { reason: "too little of everything".into() });
        let space = space(&problem(), None, &[Arch::Sm80], none);
        assert!(space.configurations.is_empty() && space.refused["too little of everything"] > 20);
    }
}
