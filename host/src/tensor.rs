//! Tensors in memory: Q, K and V of one problem.
//!
//! Owns the numbers and their shapes; where they come from is [`crate::io`] and [`crate::generate`].

use std::ops::Range;

use half::{bf16, f16};

use crate::{Dtype, Grid, ParseError, Problem};

/// Numbers of one tensor, in the type they are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// IEEE single precision.
    F32(Vec<f32>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

/// Runs one expression on the vector of whichever type the data has.
macro_rules! for_each_type {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            TensorData::F32($values) => $body,
            TensorData::F16($values) => $body,
            TensorData::Bf16($values) => $body,
        }
    };
}

impl TensorData {
    /// Makes `len` zeros.
    pub fn zeros(dtype: Dtype, len: usize) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(vec![0.0; len]),
            Dtype::F16 => Self::F16(vec![f16::ZERO; len]),
            Dtype::Bf16 => Self::Bf16(vec![bf16::ZERO; len]),
        }
    }

    /// Rounds single-precision numbers to nearest even in `dtype`.
    pub fn from_f32(values: &[f32], dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(values.to_vec()),
            Dtype::F16 => Self::F16(values.iter().map(|&x| f16::from_f32(x)).collect()),
            Dtype::Bf16 => Self::Bf16(values.iter().map(|&x| bf16::from_f32(x)).collect()),
        }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        for_each_type!(self, values => values.len())
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the type of the elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }

    /// Returns the elements as they lie in memory.
    pub fn bytes(&self) -> &[u8] {
        for_each_type!(self, values => bytemuck::cast_slice(values))
    }

    /// Returns the elements as they lie in memory, to be filled; every bit pattern is a number of each type.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        for_each_type!(self, values => bytemuck::cast_slice_mut(values))
    }

    /// Returns a range of elements as single precision, which holds every value of each type exactly.
    pub fn iter_f32(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = f32> + '_ {
        range.map(|i| match self {
            Self::F32(values) => values[i],
            Self::F16(values) => values[i].to_f32(),
            Self::Bf16(values) => values[i].to_f32(),
        })
    }

    /// Copies all elements to single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        self.iter_f32(0..self.len()).collect()
    }

    /// Rounds the elements to another type.
    pub fn cast(&self, dtype: Dtype) -> Self {
        if dtype == self.dtype() { self.clone() } else { Self::from_f32(&self.to_f32(), dtype) }
    }

    /// Joins ranges of the elements in the order given.
    fn gather(&self, ranges: impl Iterator<Item = Range<usize>>) -> Self {
        match self {
            Self::F32(values) => Self::F32(ranges.flat_map(|r| values[r].iter().copied()).collect()),
            Self::F16(values) => Self::F16(ranges.flat_map(|r| values[r].iter().copied()).collect()),
            Self::Bf16(values) => Self::Bf16(ranges.flat_map(|r| values[r].iter().copied()).collect()),
        }
    }
}

/// A tensor of shape `[B,H,S,D]`, last index fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Batch, heads, tokens, head dimension.
    pub shape: [usize; 4],
    /// B*H*S*D numbers.
    pub data: TensorData,
}

impl Tensor {
    /// Rounds the tensor to another type.
    pub fn cast(&self, dtype: Dtype) -> Self {
        Self { shape: self.shape, data: self.data.cast(dtype) }
    }

    /// Keeps the first `tokens` tokens of every head; `tokens` is at most S.
    fn cut_tokens(&self, tokens: usize) -> Self {
        let [batch, heads, seqlen, d] = self.shape;
        let ranges = (0..batch * heads).map(|head| head * seqlen * d..(head * seqlen + tokens) * d);
        Self { shape: [batch, heads, tokens, d], data: self.data.gather(ranges) }
    }
}

/// The inputs of one attention problem, tokens in raster order if they have a grid.
///
/// Q is `[B,H,Sq,D]`; K and V are `[B,H,Sk,D]`; all three have one type. With a grid Sq = Sk = T*H*W.
#[derive(Debug, Clone, PartialEq)]
pub struct Qkv {
    /// Queries.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
    /// Token grid, if the tokens are those of a video.
    pub grid: Option<Grid>,
    /// Factor on the scores; `None` is the usual 1/sqrt(D).
    pub softmax_scale: Option<f32>,
    /// Where the numbers come from: a path or the specification they were generated from.
    pub source: String,
}

impl Qkv {
    /// Returns the sizes and types of these inputs.
    pub fn problem(&self) -> Problem {
        let [batch, heads, seqlen_q, head_dim] = self.q.shape;
        Problem {
            batch,
            heads,
            seqlen_q,
            seqlen_k: self.k.shape[2],
            head_dim,
            dtype: self.q.data.dtype(),
            softmax_scale: self.softmax_scale.unwrap_or(Problem::default_scale(head_dim)),
            grid: self.grid,
        }
    }

    /// Keeps the first `frames` frames of a video.
    ///
    /// # Errors
    /// When the tokens have no grid, or `frames` is 0 or more than the grid has.
    pub fn cut_frames(&self, frames: usize) -> Result<Self, ParseError> {
        let Some(grid) = self.grid else {
            return Err(ParseError::new(
                "a video (T,H,W in the file's metadata or --grid) to cut frames from",
                "a plain sequence",
            ));
        };
        if !(1..=grid.t).contains(&frames) {
            return Err(ParseError::new(format!("1 to {} frames", grid.t), frames.to_string()));
        }
        let grid = Grid { t: frames, ..grid };
        let cut = |tensor: &Tensor| tensor.cut_tokens(grid.tokens());
        Ok(Self {
            q: cut(&self.q),
            k: cut(&self.k),
            v: cut(&self.v),
            softmax_scale: self.softmax_scale,
            grid: Some(grid),
            source: self.source.clone(),
        })
    }

    /// Rounds all three tensors to another type.
    pub fn cast(&self, dtype: Dtype) -> Self {
        Self {
            q: self.q.cast(dtype),
            k: self.k.cast(dtype),
            v: self.v.cast(dtype),
            softmax_scale: self.softmax_scale,
            grid: self.grid,
            source: self.source.clone(),
        }
    }

    /// Hashes type, shapes and numbers (not grid or source) with BLAKE3; returns 64 hexadecimal digits.
    pub fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.q.data.dtype().name().as_bytes());
        for tensor in [&self.q, &self.k, &self.v] {
            for extent in tensor.shape {
                hasher.update(&(extent as u64).to_le_bytes());
            }
            hasher.update(tensor.data.bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Returns the first 16 digits of [`Self::content_hash`], enough to tell inputs apart in records.
    pub fn short_hash(&self) -> String {
        self.content_hash()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counting(grid: Grid, heads: usize, d: usize) -> Qkv {
        let shape = [1, heads, grid.tokens(), d];
        let tensor = |offset: usize| Tensor {
            shape,
            data: TensorData::F32((0..shape.iter().product()).map(|i| (offset + i) as f32).collect()),
        };
        Qkv {
            q: tensor(0),
            k: tensor(1),
            v: tensor(2),
            grid: Some(grid),
            softmax_scale: None,
            source: "counting".into(),
        }
    }

    #[test]
    fn the_problem_has_the_sizes_of_the_tensors() {
        let grid = Grid { t: 2, h: 3, w: 4 };
        let problem = counting(grid, 5, 16).problem();
        let sizes = (problem.batch, problem.heads, problem.seqlen_q, problem.seqlen_k, problem.head_dim);
        assert_eq!(sizes, (1, 5, 24, 24, 16));
        assert_eq!((problem.dtype, problem.softmax_scale, problem.grid), (Dtype::F32, 0.25, Some(grid)));
    }

    #[test]
    fn cutting_frames_keeps_the_first_tokens_of_every_head() {
        let whole = counting(Grid { t: 3, h: 2, w: 1 }, 2, 1);
        let cut = whole.cut_frames(1).unwrap();
        assert_eq!(cut.grid, Some(Grid { t: 1, h: 2, w: 1 }));
        assert_eq!(cut.q.shape, [1, 2, 2, 1]);
        assert_eq!(cut.q.data, TensorData::F32(vec![0.0, 1.0, 6.0, 7.0]));
        assert_eq!(cut.v.data, TensorData::F32(vec![2.0, 3.0, 8.0, 9.0]));
        assert_eq!(whole.cut_frames(3).unwrap(), whole);
    }

    #[test]
    fn frames_that_are_not_there_are_refused() {
        let whole = counting(Grid { t: 3, h: 2, w: 1 }, 1, 1);
        for frames in [0, 4, usize::MAX] {
            let message = whole.cut_frames(frames).unwrap_err().to_string();
            assert!(message.contains("1 to 3 frames"), "{message}");
        }
        let plain = Qkv { grid: None, ..whole };
        assert!(plain.cut_frames(1).unwrap_err().to_string().contains("--grid"));
    }

    #[test]
    fn the_hash_sees_type_shape_and_every_number() {
        let base = counting(Grid { t: 1, h: 2, w: 2 }, 2, 2);
        let mut shape = base.clone();
        for tensor in [&mut shape.q, &mut shape.k, &mut shape.v] {
            tensor.shape = [2, 1, 4, 2];
        }
        let mut number = base.clone();
        number.v.data =
            TensorData::F32(number.v.data.iter_f32(0..16).map(|x| if x == 9.0 { -9.0 } else { x }).collect());
        let renamed = Qkv { source: "elsewhere".into(), ..base.clone() };
        assert_eq!(base.short_hash(), renamed.short_hash());
        assert_eq!(base.short_hash().len(), 16);
        let mut hashes =
            [&base, &shape, &number, &base.cast(Dtype::F16), &base.cast(Dtype::Bf16)].map(Qkv::content_hash);
        hashes.sort();
        assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "{hashes:?}");
    }

    proptest! {
        #[test]
        fn casting_rounds_once_and_widening_is_exact(values in prop::collection::vec(-60000f32..60000.0, 1..50)) {
            for (dtype, ulp) in [(Dtype::F16, 2f32.powi(-11)), (Dtype::Bf16, 2f32.powi(-8)), (Dtype::F32, 0.0)] {
                let narrow = TensorData::from_f32(&values, dtype);
                prop_assert_eq!(narrow.bytes().len(), values.len() * dtype.size_bytes());
                for (x, y) in values.iter().zip(narrow.iter_f32(0..values.len())) {
                    prop_assert!((x - y).abs() <= ulp * x.abs() + 2f32.powi(-25), "{x} {y}");
                }
                prop_assert_eq!(narrow.cast(Dtype::F32).cast(dtype), narrow);
            }
        }
    }
}
