//! From named parameters to an instance and back: every constant that instances of a problem differ in is a parameter.

use std::collections::BTreeMap;

use nabla_kernels_gpu::instances::{INSTANCES, Instance, Kernel, space::Axes};

use super::choice::{attention_instance, device_dtype};
use crate::{
    Problem,
    parameters::{ParameterSpace, Parameters},
    variant::{Ineligible, MaskBlock, TileConfig},
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
        parameters.0.insert(name, crate::parameters::Value::Int(value));
        parameters
    })
}

/// Lists the instances of attention that fit a problem and a device that `fits` speaks for: the points of the axes and
/// what is listed besides; and counts what does not fit, by reason.
pub(super) fn instances(
    problem: &Problem,
    block: Option<MaskBlock>,
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> (Vec<Instance>, BTreeMap<String, u64>) {
    let dtype = device_dtype(problem.dtype).ok();
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
    let tiles = Axes::ALL.block_m.iter().flat_map(|&block_m| {
        let tile = move |&block_n: &u32| TileConfig { block_m: block_m as usize, block_n: block_n as usize };
        Axes::ALL.block_n.iter().map(tile)
    });
    let of_tiles = tiles.filter_map(|tile| attention_instance(problem, block, tile).ok());
    let all = Axes::ALL.instances().chain(INSTANCES.iter().copied()).chain(of_tiles);
    let mut found: Vec<Instance> = all.filter(of_the_problem).collect();
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
    match block {
        Some(block) if instance.query_rows() as usize > block.q_block => refuse(format!(
            "a query tile has at most the mask's query block of {} rows, not {}",
            block.q_block,
            instance.query_rows()
        )),
        _ => Ok(()),
    }
}

/// Finds the instance with all the given parameters. A tile alone is that of [`attention_instance`].
pub(super) fn instance_of(
    problem: &Problem,
    block: Option<MaskBlock>,
    parameters: &Parameters,
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> Result<Instance, Ineligible> {
    if let Some(tile) = parameters.tile()
        && *parameters == Parameters::of_tile(tile)
    {
        let instance = attention_instance(problem, block, tile)?;
        return fits(&instance).map(|()| instance);
    }
    let (found, _) = instances(problem, block, fits);
    let matches = |instance: &&Instance| {
        let of = parameters_of(instance);
        parameters.0.iter().all(|(name, value)| of.get(name) == Some(value))
    };
    found.iter().find(matches).copied().ok_or_else(|| Ineligible {
        reason: format!(
            "no kernel for this problem and device has {parameters}; `nabla tune --print-space` lists them"
        ),
    })
}

/// Returns the space of a problem.
pub(super) fn space(
    problem: &Problem,
    block: Option<MaskBlock>,
    fits: impl Fn(&Instance) -> Result<(), Ineligible>,
) -> ParameterSpace {
    let (found, refused) = instances(problem, block, fits);
    ParameterSpace::of_configurations(found.iter().map(parameters_of).collect(), refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

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

    #[test]
    fn every_configuration_leads_back_to_its_instance() {
        for block in [None, Some(MaskBlock::square(64))] {
            let (found, _) = instances(&problem(), block, |_| Ok(()));
            assert!(found.len() > 20, "{}", found.len());
            for instance in found {
                let again = instance_of(&problem(), block, &parameters_of(&instance), |_| Ok(()));
                assert_eq!(again, Ok(instance));
            }
        }
    }

    #[test]
    fn a_tile_alone_is_the_listed_instance_and_a_stranger_is_refused() {
        let block = Some(MaskBlock::square(64));
        let tile = TileConfig { block_m: 64, block_n: 64 };
        let found = instance_of(&problem(), block, &Parameters::of_tile(tile), |_| Ok(())).unwrap();
        assert_eq!(found, attention_instance(&problem(), block, tile).unwrap());
        let strange = Parameters::of_tile(tile).with("stages", 17usize);
        let refused = instance_of(&problem(), block, &strange, |_| Ok(())).unwrap_err();
        assert!(refused.reason.contains("stages=17"), "{refused}");
    }

    #[test]
    fn what_a_device_lacks_is_counted_by_reason() {
        let none = |_: &Instance| Err(Ineligible { reason: "too little of everything".into() });
        let space = space(&problem(), None, none);
        assert!(space.configurations.is_empty() && space.refused["too little of everything"] > 20);
    }
}
