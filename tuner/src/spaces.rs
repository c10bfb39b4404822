//! The spaces built into the program: what each backend can vary.
//!
//! Owns no value that a kernel crate owns: the axes of device kernels are those of
//! [`nabla_host::codegen::instances::space`], and whether a point will do is asked of [`Instance::check`].

use std::{collections::BTreeMap, rc::Rc};

use nabla_host::codegen::instances::{
    Arch, Instance,
    space::{Axes, Point, SPACES},
};

use crate::search::space::{Axis, Constraint, SpaceSpec, Value};

/// Returns every built-in space.
pub(crate) fn all() -> Vec<SpaceSpec> {
    [cpu()].into_iter().chain(SPACES.iter().map(|(name, axes)| gpu(name, *axes))).collect()
}

/// Returns what the CPU backend can vary: its compute tile. The mask block is part of the problem.
///
/// `limit.lanes` are the words of a vector, `limit.q_block` the tokens of a mask block. Each list holds what the backend
/// offers a sweep and sizes between and beyond; the constraints are those of its tile check.
pub(crate) fn cpu() -> SpaceSpec {
    SpaceSpec {
        name: "cpu".to_owned(),
        axes: vec![
            Axis::new("block_m", [16i64, 32, 48, 64, 96, 128, 256]),
            Axis::new("block_n", [16i64, 32, 64, 96, 128, 192, 256, 384, 512, 1024]),
        ],
        constraints: vec![
            Constraint::new("block_m % limit.lanes == 0", "a tile has whole vectors of query rows"),
            Constraint::new(
                "block_m <= (limit.q_block + limit.lanes - 1) // limit.lanes * limit.lanes",
                "a tile never spans two query blocks of the mask",
            ),
        ],
        defaults: BTreeMap::from([
            ("block_m".to_owned(), Value::Int(64)),
            ("block_n".to_owned(), Value::Int(64)),
        ]),
        limits: BTreeMap::from([("lanes".to_owned(), 16.0), ("q_block".to_owned(), 64.0)]),
        ..SpaceSpec::default()
    }
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
    let kernel = axes.kernels.iter().copied().find(|kernel| text(0) == Some(kernel.name()))?;
    let dtype = axes.dtype.iter().copied().find(|dtype| text(5) == Some(dtype.name()))?;
    let point = Point {
        kernel,
        shape: [number(1)?, number(2)?, number(3)?, number(4)?],
        dtype,
        ctas_per_sm: number(6)?,
        producer: matches!(values.get(7)?, Value::Bool(true)),
        slack: number(8)?,
        polynomials: number(9)?,
        work: axes.work.iter().copied().find(|work| number(10) == Some(work.code()))?,
    };
    Some(point.instance())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nabla_host::{
        Dtype, Problem,
        backend::{Backend as _, CpuBackend, CpuOptions},
        codegen::variant_id,
        variant::{MaskBlock, TileConfig},
    };

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
        let options = CpuOptions { threads: Some(1), isa: None, pin: false };
        let backend = CpuBackend::new(options).unwrap_or_else(|e| panic!("{e}"));
        let problem = Problem {
            batch: 1,
            heads: 1,
            seqlen_q: 1024,
            seqlen_k: 1024,
            head_dim: 64,
            dtype: Dtype::F32,
            softmax_scale: 0.125,
            grid: None,
        };
        // The widest vectors need the most; what they take, narrower ones take.
        let lanes = if backend.device().isa.starts_with("avx512") { 16.0 } else { 8.0 };
        for q_block in [32usize, 64, 100, 128, 512] {
            let limits = Limits::from([("q_block".to_owned(), q_block as f64), ("lanes".to_owned(), lanes)]);
            let space = cpu().enumerate(&limits).unwrap_or_else(|e| panic!("{e}"));
            for block_m in cpu().axes[0].values.iter() {
                for block_n in cpu().axes[1].values.iter() {
                    let size = |value: &Value| value.number().unwrap_or(0.0) as usize;
                    let tile = TileConfig { block_m: size(block_m), block_n: size(block_n) };
                    let eligible = backend.variant(&problem, Some(MaskBlock::square(q_block)), tile).is_ok();
                    let found = space.find([("block_m", block_m), ("block_n", block_n)]).is_some();
                    assert_eq!(found, eligible, "{tile} with mask blocks of {q_block}");
                }
            }
        }
        let offered = backend.tiles(&problem);
        let space =
            cpu().enumerate(&Limits::from([("q_block".to_owned(), 512.0), ("lanes".to_owned(), lanes)]));
        let space = space.unwrap_or_else(|e| panic!("{e}"));
        for tile in offered {
            let (m, n) = (Value::Int(tile.block_m as i64), Value::Int(tile.block_n as i64));
            assert!(
                space.find([("block_m", &m), ("block_n", &n)]).is_some(),
                "{tile} of a sweep is in the space"
            );
        }
    }
}
