//! What three declared tensors amount to, decided before any number is read or memory taken.

use rayon::prelude::*;

use super::{Element, InputFault, ReadOptions};
use crate::{
    Dtype, Grid,
    tensor::{Qkv, Tensor, TensorData},
};

/// The tensors every input holds, in the order they are checked.
const NAMES: [&str; 3] = ["q", "k", "v"];

/// Calls a function for each of q, k and v, with its place and name, until one fails.
pub(super) fn for_each_tensor<T, E>(
    mut make: impl FnMut(usize, &'static str) -> Result<T, E>,
) -> Result<[T; 3], E> {
    Ok([make(0, NAMES[0])?, make(1, NAMES[1])?, make(2, NAMES[2])?])
}

/// One tensor as its file declares it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub(super) element: Element,
    pub(super) shape: Vec<u64>,
}

impl Declared {
    /// Returns the bytes the declaration asks for; `None` when memory cannot address them.
    pub(super) fn bytes(&self) -> Option<u64> {
        let product =
            self.shape.iter().try_fold(self.element.size_bytes() as u64, |n, &x| n.checked_mul(x))?;
        usize::try_from(product).ok().and(Some(product))
    }
}

/// A grid and the place it was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenGrid {
    pub(super) grid: Grid,
    pub(super) origin: &'static str,
}

/// Shapes that make a problem: the tensors may be read.
#[derive(Debug)]
pub(super) struct Plan {
    shapes: [[usize; 4]; 3],
    grid: Option<Grid>,
    narrowed: [bool; 3],
}

impl Plan {
    pub(super) fn new(
        tensors: &[Declared; 3],
        file_grid: Option<Grid>,
        options: &ReadOptions,
    ) -> Result<Self, InputFault> {
        let mut shapes = [[0; 4]; 3];
        let mut total = 0u64;
        for ((tensor, declared), shape) in NAMES.into_iter().zip(tensors).zip(&mut shapes) {
            *shape = four_extents(tensor, &declared.shape)?;
            total =
                declared.bytes().and_then(|b| b.checked_add(total)).ok_or_else(|| InputFault::TooLarge {
                    limit: options.max_bytes,
                    got: format!("'{tensor}' of shape {:?}, more than memory can address", declared.shape),
                    help: "its shape is surely wrong, write it again",
                })?;
        }
        if total > options.max_bytes {
            return Err(InputFault::TooLarge {
                limit: options.max_bytes,
                got: format!("{total}"),
                help: "cut it to fewer heads or frames",
            });
        }
        let (q, k, v) = (0, 1, 2);
        let agree = |a: usize, b: usize, what, a_is: String, b_is: String| {
            if a_is == b_is {
                Ok(())
            } else {
                Err(InputFault::Disagree { a: NAMES[a], b: NAMES[b], what, a_is, b_is })
            }
        };
        let dtype = |i: usize| tensors[i].element.input_dtype().map_or("integers", Dtype::name).to_owned();
        let extent = |i: usize, axis: usize| shapes[i][axis].to_string();
        for other in [k, v] {
            agree(q, other, "type", dtype(q), dtype(other))?;
            for (axis, what) in [(0, "batch B"), (1, "heads H"), (3, "head dimension D")] {
                agree(q, other, what, extent(q, axis), extent(other, axis))?;
            }
        }
        agree(k, v, "tokens S", extent(k, 2), extent(v, 2))?;
        for (tensor, shape) in NAMES.into_iter().zip(shapes) {
            if u32::try_from(shape[2]).is_err() {
                return Err(InputFault::TooManyTokens { tensor, seqlen: shape[2] });
            }
        }
        let given = match (options.grid, file_grid) {
            (Some(grid), _) => Some(GivenGrid { grid, origin: "given by --grid" }),
            (None, Some(grid)) => Some(GivenGrid { grid, origin: "from the metadata" }),
            (None, None) => None,
        };
        if let Some(GivenGrid { grid, origin }) = given {
            for (tensor, shape) in NAMES.into_iter().zip(shapes) {
                if shape[2] != grid.tokens() {
                    return Err(InputFault::Grid { tensor, seqlen: shape[2], grid, origin });
                }
            }
        }
        let narrowed = tensors.each_ref().map(|declared| declared.element == Element::F64);
        Ok(Self { shapes, grid: given.map(|g| g.grid), narrowed })
    }

    /// Returns the number of elements of the `i`-th tensor.
    pub(super) fn len(&self, i: usize) -> usize {
        self.shapes[i].iter().product()
    }

    /// Joins the numbers with their shapes once all are known to be finite.
    pub(super) fn finish(self, data: [TensorData; 3], source: String) -> Result<Qkv, InputFault> {
        for (i, (data, shape)) in data.iter().zip(self.shapes).enumerate() {
            if let Some(position) = first_not_finite(data) {
                let [_, heads, seqlen, d] = shape;
                let index = [
                    position / (heads * seqlen * d),
                    position / (seqlen * d) % heads,
                    position / d % seqlen,
                    position % d,
                ];
                let value = data.iter_f32(position..position + 1).next().unwrap_or(f32::NAN);
                let narrowed = if self.narrowed[i] { " (float64 narrowed to float32)" } else { "" };
                return Err(InputFault::NotFinite { tensor: NAMES[i], value, narrowed, index, position });
            }
        }
        let [q, k, v] = data;
        let [q_shape, k_shape, v_shape] = self.shapes;
        Ok(Qkv {
            softmax_scale: None,
            q: Tensor { shape: q_shape, data: q },
            k: Tensor { shape: k_shape, data: k },
            v: Tensor { shape: v_shape, data: v },
            grid: self.grid,
            source,
        })
    }
}

fn four_extents(tensor: &'static str, shape: &[u64]) -> Result<[usize; 4], InputFault> {
    let fault = || InputFault::Shape { tensor, shape: shape.iter().copied().take(16).collect() };
    let extents = match *shape {
        [b, h, s, d] => [b, h, s, d],
        [h, s, d] => [1, h, s, d],
        _ => return Err(fault()),
    };
    if extents.contains(&0) {
        return Err(fault());
    }
    // An extent that does not fit usize cannot pass the check of the product that follows.
    Ok(extents.map(|extent| usize::try_from(extent).unwrap_or(usize::MAX)))
}

fn first_not_finite(data: &TensorData) -> Option<usize> {
    match data {
        TensorData::F32(values) => values.par_iter().position_first(|x| !x.is_finite()),
        TensorData::F16(values) => values.par_iter().position_first(|x| !x.is_finite()),
        TensorData::Bf16(values) => values.par_iter().position_first(|x| !x.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(element: Element, shape: &[u64]) -> Declared {
        Declared { element, shape: shape.to_vec() }
    }

    fn plan(shapes: [&[u64]; 3], grid: Option<&str>) -> Result<Plan, String> {
        let options = ReadOptions { grid: grid.map(|g| g.parse().unwrap()), ..ReadOptions::default() };
        Plan::new(&shapes.map(|s| declared(Element::F32, s)), None, &options).map_err(|e| e.to_string())
    }

    #[test]
    fn three_extents_are_one_batch() {
        let plan = plan([&[2, 6, 4], &[1, 2, 6, 4], &[2, 6, 4]], Some("1,2,3")).unwrap();
        assert_eq!(plan.shapes, [[1, 2, 6, 4]; 3]);
        assert_eq!(plan.grid, Some(Grid { t: 1, h: 2, w: 3 }));
    }

    #[test]
    fn queries_may_be_fewer_than_keys_but_not_on_a_grid() {
        let shapes: [&[u64]; 3] = [&[2, 3, 4], &[2, 6, 4], &[2, 6, 4]];
        assert!(plan(shapes, None).is_ok());
        let message = plan(shapes, Some("1,2,3")).unwrap_err();
        assert!(message.contains("a grid of 3 tokens as tensor 'q' has, got 1,2,3"), "{message}");
    }

    #[test]
    fn products_that_overflow_are_refused() {
        for huge in [[1 << 32, 1 << 31, 2, 1], [u64::MAX, 1, 1, 1], [1, 1, 1, u64::MAX / 2]] {
            let message = plan([&huge, &huge, &huge], None).unwrap_err();
            assert!(message.contains("more than memory can address"), "{message}");
        }
    }

    #[test]
    fn the_limit_counts_all_three() {
        let tensors = [(); 3].map(|()| declared(Element::F32, &[1, 1, 10, 10]));
        let options = |max_bytes| ReadOptions { max_bytes, ..ReadOptions::default() };
        assert!(Plan::new(&tensors, None, &options(1200)).is_ok());
        assert!(Plan::new(&tensors, None, &options(1199)).unwrap_err().to_string().contains("got 1200"));
    }

    #[test]
    fn the_first_bad_number_is_named_by_its_place() {
        let mut bad = vec![0f32; 2 * 3 * 4];
        (bad[17], bad[20]) = (f32::NEG_INFINITY, f32::NAN);
        let plan = plan([&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]], None).unwrap();
        let good = TensorData::zeros(Dtype::F32, 24);
        let message =
            plan.finish([good.clone(), TensorData::F32(bad), good], String::new()).unwrap_err().to_string();
        assert!(message.contains("'k'") && message.contains("-inf at [b,h,s,d] = [0, 1, 1, 1]"), "{message}");
    }
}
