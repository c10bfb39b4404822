//! The spaces built into the program: what each backend can vary.
//!
//! Owns no value that a backend or kernel crate owns: the axes of the CPU are its backend's, those of device kernels are those of
//! [`nabla_host::codegen::instances::space`], and whether a point will do is asked of [`Instance::check`].

use std::{collections::BTreeMap, rc::Rc};

use nabla_host::{
    Dtype,
    backend::{CpuBackend, CpuOptions},
    codegen::instances::{
        Arch, Instance,
        space::{Axes, Point, SPACES},
    },
    parameters::{ParameterAxis, Value as OwnValue},
};

use crate::failure::Failure;
use crate::search::space::{Axis, Constraint, SpaceSpec, Value};

/// Returns every built-in space.
///
/// # Errors
/// When the CPU backend cannot start.
pub(crate) fn all() -> Result<Vec<SpaceSpec>, Failure> {
    Ok([cpu()?].into_iter().chain(SPACES.iter().map(|(name, axes)| gpu(name, *axes))).collect())
}

/// Returns what the CPU backend can vary on this machine. The mask block is part of the problem.
///
/// `limit.q_block` are the tokens of a mask block. The axes are the backend's own; the constraints are those of its tile
/// check.
pub(crate) fn cpu() -> Result<SpaceSpec, Failure> {
    let backend = CpuBackend::new(CpuOptions { threads: None, isa: None, pin: false })?;
    let own = |value: &OwnValue| match value {
        OwnValue::Int(number) => Value::Int(*number),
        OwnValue::Text(text) => Value::Text(text.clone()),
    };
    // bf16 has every instruction set there is.
    let axes = backend.axes(Dtype::Bf16);
    let last = |axis: &ParameterAxis| axis.values.last().map(|value| (axis.name.clone(), own(value)));
    let tile = ["block_m", "block_n"].map(|name| (name.to_owned(), Value::Int(64)));
    let resources = axes.iter().filter(|axis| !axis.name.starts_with("block")).filter_map(last);
    Ok(SpaceSpec {
        name: "cpu".to_owned(),
        defaults: tile.into_iter().chain(resources).collect(),
        axes: axes.iter().map(|axis| Axis::new(&axis.name, axis.values.iter().map(own))).collect(),
        constraints: vec![
            Constraint::new("block_m % 16 == 0", "a tile has whole vectors of query rows"),
            Constraint::new(
                "block_m <= (limit.q_block + 15) // 16 * 16",
                "a tile never spans two query blocks of the mask",
            ),
            Constraint::new(
                "block_m <= (limit.q_block + 7) // 8 * 8 or isa in ['avx512', 'avx512bf16']",
                "a tile never spans two query blocks of the mask",
            ),
        ],
        limits: BTreeMap::from([("q_block".to_owned(), 64.0)]),
        ..SpaceSpec::default()
    })
}

/// Returns a space of device kernels. A problem fixes its `head_dim` and `dtype`.
pub(crate) fn gpu(name: &str, axes: Axes) -> SpaceSpec {
    // No `..`: an axis that is added has to be added here, too.
    let Axes {
        kernels,
        block_m,
        block_n,
        head_dim,
        stages,
        dtype,
        ctas_per_sm,
        producer,
        slack,
        polynomials,
        work,
        less_values,
        ping_pong,
        pairs,
        cluster,
    } = axes;
    let hopper = kernels.iter().all(|kernel| kernel.arch() == Arch::Sm90a);
    let numbers = |name: &str, values: &[u32]| Axis::new(name, values.iter().map(|&value| i64::from(value)));
    let texts = |name: &str, values: Vec<&str>| Axis::new(name, values);
    SpaceSpec {
        name: name.to_owned(),
        axes: vec![
            texts("kernel", kernels.iter().map(|kernel| kernel.name()).collect()),
            numbers("block_m", block_m),
            numbers("block_n", block_n),
            numbers("head_dim", head_dim),
            numbers("stages", stages),
            texts("dtype", dtype.iter().map(|dtype| dtype.name()).collect()),
            numbers("ctas_per_sm", ctas_per_sm),
            Axis::new("producer", producer.iter().map(|&producer| Value::Bool(producer))),
            numbers("slack", slack),
            numbers("polynomials", polynomials),
            Axis::new("work", work.iter().map(|work| i64::from(work.code()))),
            numbers("less_values", less_values),
            Axis::new("ping_pong", ping_pong.iter().map(|&takes| Value::Bool(takes))),
            Axis::new("pairs", pairs.iter().map(|&pairs| Value::Bool(pairs))),
            numbers("cluster", cluster),
        ],
        checks: vec![Rc::new(move |values| match instance(&axes, values) {
            Some(instance) => instance.check().map_err(str::to_owned),
            None => Err("it is no kernel".to_owned()),
        })],
        // What a device takes unless told otherwise: on Hopper two query tiles that share what a warpgroup loads for them.
        defaults: BTreeMap::from([
            ("block_m".to_owned(), Value::Int(if hopper { 128 } else { 64 })),
            ("block_n".to_owned(), Value::Int(64)),
            ("head_dim".to_owned(), Value::Int(128)),
            ("producer".to_owned(), Value::Bool(hopper)),
            ("less_values".to_owned(), Value::Int(0)),
        ]),
        ..SpaceSpec::default()
    }
}

/// Returns the kernel of a point of [`gpu`], its values in the order of the axes; `None` for values of no such point.
pub(crate) fn instance(axes: &Axes, values: &[&Value]) -> Option<Instance> {
    let number = |at: usize| match values.get(at)? {
        Value::Int(value) => u32::try_from(*value).ok(),
        _ => None,
    };
    let text = |at: usize| match values.get(at)? {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    };
    let is = |at: usize, expected: &Value| values.get(at).is_some_and(|&value| value == expected);
    let kernel = axes.kernels.iter().copied().find(|kernel| text(0) == Some(kernel.name()))?;
    let dtype = axes.dtype.iter().copied().find(|dtype| text(5) == Some(dtype.name()))?;
    let point = Point {
        kernel,
        shape: [number(1)?, number(2)?, number(3)?, number(4)?],
        dtype,
        ctas_per_sm: number(6)?,
        producer: is(7, &Value::Bool(true)),
        slack: number(8)?,
        polynomials: number(9)?,
        work: axes.work.iter().copied().find(|work| number(10) == Some(work.code()))?,
        less_values: number(11)?,
        ping_pong: is(12, &Value::Bool(true)),
        pairs: is(13, &Value::Bool(true)),
        cluster: number(14)?,
    };
    Some(point.instance())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nabla_host::{Problem, backend::Backend as _, codegen::variant_id, variant::MaskBlock};

    use super::*;
    use crate::search::space::Limits;

    #[test]
    fn a_space_of_device_kernels_has_the_instances_of_its_axes() {
        for (name, axes) in SPACES {
            let space = gpu(name, *axes).enumerate(&Limits::new()).unwrap_or_else(|e| panic!("{e}"));
            let ids: HashSet<String> = space
                .ids()
                .map(|point| {
                    let values: Vec<&Value> = space.values(point).map(|(_, value)| value).collect();
                    variant_id(
                        &instance(axes, &values).unwrap_or_else(|| panic!("{}", space.describe(point))),
                    )
                })
                .collect();
            let expected: HashSet<String> = axes.instances().map(|instance| variant_id(&instance)).collect();
            assert_eq!(ids, expected, "{name}");
            assert_eq!(space.len(), expected.len(), "{name}");
            let pruned: u64 = space.pruned().iter().map(|pruned| pruned.points).sum();
            assert_eq!(space.len() as u64 + pruned, space.product(), "{name}");
            assert!(space.default_point().is_some(), "the default of {name} is feasible");
        }
    }

    #[test]
    fn the_cpu_space_is_what_the_cpu_backend_takes() {
        let options = CpuOptions { threads: None, isa: None, pin: false };
        let backend = CpuBackend::new(options).unwrap_or_else(|e| panic!("{e}"));
        let problem = Problem {
            batch: 1,
            heads: 1,
            seqlen_q: 1024,
            seqlen_k: 1024,
            head_dim: 64,
            dtype: Dtype::Bf16,
            softmax_scale: 0.125,
            grid: None,
        };
        let spec = cpu().unwrap_or_else(|e| panic!("{e}"));
        for q_block in [32usize, 64, 100, 128, 512] {
            let limits = Limits::from([("q_block".to_owned(), q_block as f64)]);
            let space = spec.enumerate(&limits).unwrap_or_else(|e| panic!("{e}"));
            let found: HashSet<String> = space.ids().map(|point| space.describe(point)).collect();
            let taken = backend.space(&problem, Some(MaskBlock::square(q_block)));
            let taken: HashSet<String> = taken.configurations.iter().map(ToString::to_string).collect();
            assert_eq!(found, taken, "mask blocks of {q_block}");
            assert_eq!(space.default_point().is_some(), q_block >= 64);
        }
        let default = backend.default_parameters(&problem, Some(MaskBlock::square(64)));
        let space = spec.enumerate(&Limits::new()).unwrap_or_else(|e| panic!("{e}"));
        let point = space.default_point().unwrap_or_else(|| panic!("a default"));
        assert_eq!(space.describe(point), default.to_string());
    }
}
