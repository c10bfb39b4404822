//! Inputs made up from a seed, of any size: smooth like the features of a video, so that masks mean something.
//!
//! Channel c of head h is a sum of plane waves over the token grid plus a little noise,
//!
//! ```text
//! F_c(p) = sqrt(2/WAVES) sum_j cos(2 pi kappa_cj . (t/T, h/H, w/W) + phase_cj)      kappa_cj ~ N(0, sigma_h²)
//! k_c    = a F_c + n noise,   q_c = gain_h (a F_c + n noise'),   v_c = a G_c + n noise''
//! ```
//!
//! Random waves are random Fourier features (Rahimi, Recht 2007): `q . k` of two tokens approaches a Gaussian of
//! their distance, at most `gain_h a² D`. Attention is thus concentrated near each token the way it is after RoPE,
//! with a width per axis and a sharpness that differ from head to head. Wave lengths are shares of the grid, so
//! that the density of a mask hardly depends on the resolution.

use std::{f32::consts::TAU, fmt, str::FromStr};

use half::{bf16, f16};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    Dtype, Grid, ParseError,
    tensor::{Qkv, Tensor, TensorData},
};

/// Most bytes of q, k and v together: what inputs from files are limited to as well.
const MAX_BYTES: u64 = crate::io::DEFAULT_MAX_BYTES;

/// Waves per channel: enough that no channel is a plain stripe pattern.
const WAVES: usize = 4;

/// Share of a channel's variance that is noise of single tokens; it averages out when blocks are pooled.
const NOISE_SHARE: f32 = 0.3;

/// Widths of attention: standard deviation of a head's wave numbers, in waves per extent of the grid.
const SIGMA_TIME: (f32, f32) = (0.2, 0.8);
/// See [`SIGMA_TIME`].
const SIGMA_SPACE: (f32, f32) = (0.4, 1.0);

/// Score (after the usual 1/sqrt(D)) of a token with itself, noise left out: how sharp a head attends.
const PEAK_SCORE: (f32, f32) = (2.5, 4.5);

/// Highest peak score that may be asked for: beyond it a token attends to itself alone.
const MAX_PEAK: u16 = 1000;

/// Sizes of inputs to be made up, written `video:T,H,W,heads,D`, then if wanted `,dtype` (default bf16) and
/// `,peak=SCORE` (default 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GenerateSpec {
    /// Token grid.
    pub grid: Grid,
    /// Heads H.
    pub heads: usize,
    /// Elements per token and head, D.
    pub head_dim: usize,
    /// Type the numbers are rounded to.
    pub dtype: Dtype,
    /// Score of a token with itself in the head that attends most sharply; the flattest has 5/9 of it. Higher is
    /// sparser. `None` is 4.5, as on the bundled clip. With 7, thresholds of 0.4, 0.7 and 0.9 keep about 4, 19 and 51 %
    /// of the blocks of 21 x 45 x 80 tokens, much as the method's paper reports of a trained model at 0.4 and 0.7.
    pub peak: Option<u16>,
}

impl GenerateSpec {
    /// Returns the scores between which the heads' peaks lie.
    fn peaks(&self) -> (f32, f32) {
        let (low, high) = PEAK_SCORE;
        self.peak.map_or((low, high), |peak| (f32::from(peak) * low / high, f32::from(peak)))
    }
}

impl fmt::Display for GenerateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "video:{},{},{},{}", self.grid, self.heads, self.head_dim, self.dtype)?;
        self.peak.map_or(Ok(()), |peak| write!(f, ",peak={peak}"))
    }
}

impl FromStr for GenerateSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const FORM: &str = "video:T,H,W,heads,D[,dtype][,peak=SCORE], for example video:5,40,80,2,128 or video:5,40,80,2,128,bf16,peak=7";
        let error = || ParseError::new(FORM, text);
        let mut fields: Vec<&str> =
            text.strip_prefix("video:").ok_or_else(error)?.split(',').map(str::trim).collect();
        let peak = match fields.last().and_then(|last| last.strip_prefix("peak=")) {
            None => None,
            Some(score) => {
                fields.pop();
                let peak = score.parse().ok().filter(|peak| (1..=MAX_PEAK).contains(peak));
                Some(peak.ok_or_else(|| {
                    ParseError::new(format!("a whole peak score from 1 to {MAX_PEAK}"), score)
                })?)
            }
        };
        let (sizes, dtype) = match fields[..] {
            [.., dtype] if fields.len() == 6 => (&fields[..5], dtype.parse()?),
            _ => (&fields[..], Dtype::Bf16),
        };
        let sizes: Vec<usize> =
            sizes.iter().map(|s| s.parse().map_err(|_| error())).collect::<Result<_, _>>()?;
        let [t, h, w, heads, head_dim] = sizes[..] else { return Err(error()) };
        let grid = Grid::new(t, h, w)?;
        let bytes = [grid.tokens(), heads, head_dim]
            .iter()
            .try_fold(3 * dtype.size_bytes() as u64, |n, &x| n.checked_mul(x as u64));
        match bytes {
            Some(0) => Err(ParseError::new(format!("{FORM}, heads and D each at least 1"), text)),
            Some(bytes) if bytes <= MAX_BYTES => Ok(Self { grid, heads, head_dim, dtype, peak }),
            _ => {
                Err(ParseError::new(format!("q, k and v of at most {} GiB together", MAX_BYTES >> 30), text))
            }
        }
    }
}

/// Makes up q, k and v `[1,heads,T*H*W,D]` in raster order; the same spec and seed give the same numbers on any
/// number of threads.
pub fn generate_video(spec: &GenerateSpec, seed: u64) -> Qkv {
    match spec.dtype {
        Dtype::F32 => generate(spec, seed, |x| x, TensorData::F32),
        Dtype::F16 => generate(spec, seed, f16::from_f32, TensorData::F16),
        Dtype::Bf16 => generate(spec, seed, bf16::from_f32, TensorData::Bf16),
    }
}

fn generate<T: Copy + Default + Send + Sync>(
    spec: &GenerateSpec,
    seed: u64,
    round: impl Fn(f32) -> T + Sync,
    wrap: impl Fn(Vec<T>) -> TensorData,
) -> Qkv {
    let GenerateSpec { grid, heads, head_dim: d, .. } = *spec;
    let shape = [1, heads, grid.tokens(), d];
    let row = grid.w * d;
    let [mut q, mut k, mut v] = [(); 3].map(|()| vec![T::default(); shape.iter().product()]);
    for head in 0..heads {
        let features = Head::new(spec, seed, head);
        let of_head = head * grid.tokens() * d..(head + 1) * grid.tokens() * d;
        let rows = q[of_head.clone()]
            .par_chunks_exact_mut(row)
            .zip(k[of_head.clone()].par_chunks_exact_mut(row))
            .zip(v[of_head].par_chunks_exact_mut(row));
        rows.enumerate().for_each_init(
            || [vec![0f32; row], vec![0f32; row]],
            |[shared, values], (i, ((q, k), v))| {
                let (frame, line) = (i / grid.h, i % grid.h);
                features.shared.fill_row(grid, frame, line, shared);
                features.values.fill_row(grid, frame, line, values);
                // Every row has its own stretch of random numbers, whichever thread makes it.
                let mut noise = rng(seed, 1 + head as u64, i as u64);
                let n = NOISE_SHARE.sqrt();
                for (((shared, value), q), (k, v)) in
                    shared.iter().zip(&*values).zip(q).zip(k.iter_mut().zip(v))
                {
                    *q = round(features.gain * (shared + n * unit_noise(&mut noise)));
                    *k = round(shared + n * unit_noise(&mut noise));
                    *v = round(value + n * unit_noise(&mut noise));
                }
            },
        );
    }
    let tensor = |values| Tensor { shape, data: wrap(values) };
    Qkv {
        q: tensor(q),
        k: tensor(k),
        v: tensor(v),
        grid: Some(grid),
        softmax_scale: None,
        source: format!("{spec} seed {seed}"),
    }
}

/// Starts one of 2^64 x 2^32 independent stretches of random numbers.
fn rng(seed: u64, stream: u64, stretch: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    // In words of 32 bits; a row uses fewer than 2^36 of the 2^68 there are.
    rng.set_word_pos(u128::from(stretch) << 36);
    rng
}

/// Draws evenly from an interval with mean 0 and variance 1.
fn unit_noise(rng: &mut ChaCha8Rng) -> f32 {
    const HALF_WIDTH: f32 = 1.732_050_8;
    // The upper 24 bits fit a float's significand exactly.
    ((rng.next_u32() >> 8) as f32 * 2f32.powi(-23) - 1.0) * HALF_WIDTH
}

/// What tells one head from another.
struct Head {
    shared: Waves,
    values: Waves,
    gain: f32,
}

impl Head {
    fn new(spec: &GenerateSpec, seed: u64, head: usize) -> Self {
        let GenerateSpec { grid, head_dim: d, .. } = *spec;
        let mut rng = rng(seed, 0, head as u64);
        let mut between = |(low, high): (f32, f32)| low + (high - low) * rng.random::<f32>();
        let sigma = [between(SIGMA_TIME), between(SIGMA_SPACE), between(SIGMA_SPACE)];
        let gain = between(spec.peaks()) / (d as f32).sqrt() / (1.0 - NOISE_SHARE);
        let shared = Waves::new(grid, d, sigma, &mut rng);
        let values = Waves::new(grid, d, sigma, &mut rng);
        Self { shared, values, gain }
    }
}

/// Plane waves of every channel. Arrays are `[WAVES][D]`, the table over columns `[W][WAVES][D]`.
struct Waves {
    d: usize,
    kappa_t: Vec<f32>,
    kappa_h: Vec<f32>,
    phase: Vec<f32>,
    columns: Vec<(f32, f32)>,
}

impl Waves {
    fn new(grid: Grid, d: usize, sigma: [f32; 3], rng: &mut ChaCha8Rng) -> Self {
        let mut wave_numbers =
            |sigma: f32| -> Vec<f32> { (0..WAVES * d).map(|_| sigma * normal(rng)).collect() };
        let [kappa_t, kappa_h, kappa_w] = sigma.map(&mut wave_numbers);
        let phase = (0..WAVES * d).map(|_| TAU * rng.random::<f32>()).collect();
        let columns = (0..grid.w)
            .flat_map(|w| kappa_w.iter().map(move |kappa| (TAU * kappa * w as f32 / grid.w as f32).sin_cos()))
            .map(|(sin, cos)| (cos, sin))
            .collect();
        Self { d, kappa_t, kappa_h, phase, columns }
    }

    /// Sums the waves along one line of one frame into `[W][D]`.
    ///
    /// A wave is the real part of a product, exp(i (phase + t and h part)) exp(i w part): the first factor is
    /// computed once a line, the second once a head.
    fn fill_row(&self, grid: Grid, frame: usize, line: usize, to: &mut [f32]) {
        let (t, h) = (frame as f32 / grid.t as f32, line as f32 / grid.h as f32);
        let amplitude = ((1.0 - NOISE_SHARE) * 2.0 / WAVES as f32).sqrt();
        let line_factor: Vec<(f32, f32)> = (0..WAVES * self.d)
            .map(|i| {
                let (sin, cos) =
                    (TAU * (self.kappa_t[i] * t + self.kappa_h[i] * h) + self.phase[i]).sin_cos();
                (amplitude * cos, amplitude * sin)
            })
            .collect();
        for (token, columns) in to.chunks_exact_mut(self.d).zip(self.columns.chunks_exact(WAVES * self.d)) {
            token.fill(0.0);
            for (line, column) in line_factor.chunks_exact(self.d).zip(columns.chunks_exact(self.d)) {
                for ((x, line), column) in token.iter_mut().zip(line).zip(column) {
                    *x += line.0 * column.0 - line.1 * column.1;
                }
            }
        }
    }
}

/// Draws from the standard normal distribution (Box-Muller).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (TAU * rng.random::<f32>()).cos()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{io, token_order::TokenOrder};

    fn spec(text: &str) -> GenerateSpec {
        text.parse().unwrap()
    }

    /// Computes by the definition, in float64, which share of 64-token blocks each threshold keeps.
    fn densities(qkv: &Qkv, masses: &[f64]) -> Vec<f64> {
        let problem = qkv.problem();
        let (s, d) = (problem.seqlen_q, problem.head_dim);
        let order = TokenOrder::new(qkv.grid, s, 64).unwrap();
        let blocks = order.layout().blocks();
        let pool = |tensor: &Tensor, head: usize| -> Vec<Vec<f64>> {
            (0..blocks)
                .map(|b| {
                    let tokens = &order.source(0)[order.layout().range(b)];
                    let mut mean = vec![0.0; d];
                    for &token in tokens {
                        let at = (head * s + token as usize) * d;
                        tensor.data.iter_f32(at..at + d).zip(&mut mean).for_each(|(x, m)| *m += f64::from(x));
                    }
                    mean.iter().map(|m| m / tokens.len() as f64).collect()
                })
                .collect()
        };
        let mut kept = vec![0usize; masses.len()];
        for head in 0..problem.heads {
            let (q, k) = (pool(&qkv.q, head), pool(&qkv.k, head));
            for q in &q {
                let score =
                    |k: &Vec<f64>| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt();
                let mut row: Vec<f64> = k.iter().map(|k| score(k).exp()).collect();
                row.sort_by(f64::total_cmp);
                let sum: f64 = row.iter().sum();
                for (kept, mass) in kept.iter_mut().zip(masses) {
                    let mut cumulative = 0.0;
                    *kept += row
                        .iter()
                        .filter(|&&p| {
                            cumulative += p / sum;
                            cumulative >= 1.0 - mass
                        })
                        .count();
                }
            }
        }
        kept.iter().map(|&kept| kept as f64 / (problem.heads * blocks * blocks) as f64).collect()
    }

    #[test]
    fn a_specification_reads_as_it_is_written() {
        assert_eq!(spec("video:5,40,80,2,128").to_string(), "video:5,40,80,2,128,bf16");
        assert_eq!(spec("video:1,2,3,4,5,f32").dtype, Dtype::F32);
        assert_eq!(spec(&spec("video:1,2,3,4,5,f16").to_string()), spec("video:1,2,3,4,5,f16"));
        for text in ["video:1,2,3,4,5,f16,peak=20", "video:1,2,3,4,5,bf16,peak=1000"] {
            assert_eq!(spec(text).to_string(), text);
        }
        assert_eq!(spec("video:1,2,3,4,5,peak=7"), spec("video:1,2,3,4,5,bf16,peak=7"));
    }

    #[test]
    fn bad_specifications_say_what_is_expected() {
        for (bad, expected) in [
            ("", "video:T,H,W,heads,D"),
            ("video", "video:T,H,W,heads,D"),
            ("video:4,32,32", "video:T,H,W,heads,D"),
            ("video:4,32,32,2,64,bf16,1", "video:T,H,W,heads,D"),
            ("video:4,32,-32,2,64", "video:T,H,W,heads,D"),
            ("video:4,32,32,0,64", "at least 1"),
            ("video:4,32,32,2,0", "at least 1"),
            ("video:0,32,32,2,64", "T,H,W"),
            ("video:4,32,32,2,64,f8", "f32, f16, bf16"),
            ("video:4,32,32,2,64,peak=0", "1 to 1000"),
            ("video:4,32,32,2,64,peak=1001", "1 to 1000"),
            ("video:4,32,32,2,64,peak=2.5", "whole peak score"),
            ("video:4,32,32,2,64,peak=20,bf16", "video:T,H,W,heads,D"),
            ("video:65536,65536,1,1,1", "4294967295"),
            ("video:1,1,99999999999999999999,1,1", "video:T,H,W,heads,D"),
            ("video:1000,1000,1000,40,128", "32 GiB"),
            ("video:1,1,1,18446744073709551615,18446744073709551615", "32 GiB"),
        ] {
            let message = bad.parse::<GenerateSpec>().unwrap_err().to_string();
            assert!(message.contains(expected), "{bad}: {message}");
        }
    }

    #[test]
    fn numbers_do_not_depend_on_the_number_of_threads() {
        let spec = spec("video:3,9,10,3,24");
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| generate_video(&spec, 7))
        };
        assert_eq!(on(1), on(5));
        assert_ne!(on(1).content_hash(), generate_video(&spec, 8).content_hash());
    }

    #[test]
    fn types_differ_by_rounding_only() {
        let wide = generate_video(&spec("video:2,8,8,2,16,f32"), 3);
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let narrow = generate_video(&GenerateSpec { dtype, ..spec("video:2,8,8,2,16") }, 3);
            assert_eq!(wide.cast(dtype).content_hash(), narrow.content_hash());
        }
    }

    #[test]
    fn features_are_smooth_of_unit_variance_and_differ_by_head() {
        let qkv = generate_video(&spec("video:4,32,32,2,64,f32"), 1);
        let (s, d) = (4096, 64);
        for tensor in [&qkv.k, &qkv.v] {
            let values = tensor.data.to_f32();
            let product = |lag: usize| {
                let pairs = values.iter().zip(&values[lag..]);
                pairs.map(|(a, b)| f64::from(a * b)).sum::<f64>() / (values.len() - lag) as f64
            };
            let variance = product(0);
            assert!((0.9..1.1).contains(&variance), "{variance}");
            assert!(product(d) > 0.6 * variance, "neighbours are alike: {}", product(d));
            assert!(
                product(16 * d) < 0.5 * product(d),
                "tokens half a line apart are less so: {}",
                product(16 * d)
            );
            assert!(product(s * d).abs() < 0.2, "heads are not: {}", product(s * d));
        }
    }

    #[test]
    fn masks_are_as_concentrated_as_those_of_a_real_clip() {
        let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/bbb_t4h32w32_n2d64.safetensors");
        let clip = io::read_qkv(&clip, &io::ReadOptions::default()).unwrap();
        let masses = [0.3, 0.5, 0.7, 0.9];
        let mut rows = vec![("clip".to_owned(), densities(&clip, &masses))];
        for size in ["4,32,32,4,64", "5,40,80,4,128", "6,45,26,4,128", "12,16,16,4,32"] {
            let qkv = generate_video(&spec(&format!("video:{size}")), 1);
            rows.push((size.to_owned(), densities(&qkv, &masses)));
        }
        for (name, density) in &rows {
            println!("{name}: {density:.3?}");
            assert!((0.1..0.3).contains(&density[1]), "{name} at 0.5: {density:?}");
            assert!((0.5..0.9).contains(&density[3]), "{name} at 0.9: {density:?}");
            assert!(density.is_sorted(), "{name}: {density:?}");
        }
    }

    #[test]
    fn a_peak_sets_how_sparse_masks_are_and_leaves_keys_and_values_alone() {
        let masses = [0.4, 0.7, 0.9];
        let flat = generate_video(&spec("video:6,45,80,4,128"), 1);
        let sharp = generate_video(&spec("video:6,45,80,4,128,bf16,peak=7"), 1);
        assert_eq!((&flat.k, &flat.v), (&sharp.k, &sharp.v));
        let density = densities(&sharp, &masses);
        println!("{density:.3?}");
        assert!((0.02..0.08).contains(&density[0]), "{density:?}");
        assert!((0.1..0.3).contains(&density[1]), "{density:?}");
        assert!((0.35..0.65).contains(&density[2]), "{density:?}");
    }
}
