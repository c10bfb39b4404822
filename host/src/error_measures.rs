//! How far one tensor is from another.

/// Distances of `x` from the reference `y`, over every element given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorMeasures {
    /// sum |x - y| / sum |y|.
    pub rel_l1: f64,
    /// Root of the mean square of x - y.
    pub rmse: f64,
    /// Root of sum (x - y)² / sum y².
    pub rel_rmse: f64,
    /// max |x - y|.
    pub max_abs: f64,
    /// Cosine of the angle between x and y as vectors.
    pub cosine: f64,
}

impl ErrorMeasures {
    /// Measures pairs `(x, y)`; a NaN or infinity in `x` makes the measures NaN or infinite, never small.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut n = 0u64;
        let (mut l1, mut y_l1, mut sq, mut xx, mut yy, mut xy, mut max_abs) =
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for (x, y) in pairs {
            let diff: f64 = x - y;
            n += 1;
            l1 += diff.abs();
            y_l1 += y.abs();
            sq += diff * diff;
            xx += x * x;
            yy += y * y;
            xy += x * y;
            // `f64::max` would drop a NaN.
            if diff.abs() > max_abs || diff.is_nan() {
                max_abs = diff.abs();
            }
        }
        // Two tensors of zeros agree; a difference from a zero reference is infinitely wrong.
        let ratio = |num: f64, den: f64| if num == 0.0 && den == 0.0 { 0.0 } else { num / den };
        let norms = (xx * yy).sqrt();
        Self {
            rel_l1: ratio(l1, y_l1),
            rmse: ratio(sq, n as f64).sqrt(),
            rel_rmse: ratio(sq, yy).sqrt(),
            max_abs,
            cosine: if xx == 0.0 && yy == 0.0 { 1.0 } else { ratio(xy, norms) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_of_a_small_example() {
        let m = ErrorMeasures::of([(1.0, 1.0), (2.0, 4.0)]);
        assert_eq!((m.rel_l1, m.max_abs), (2.0 / 5.0, 2.0));
        assert!((m.rmse - 2f64.sqrt()).abs() < 1e-15);
        assert!((m.rel_rmse - (4.0f64 / 17.0).sqrt()).abs() < 1e-15);
        assert!((m.cosine - 9.0 / (5.0f64 * 17.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn a_nan_is_never_small() {
        let m = ErrorMeasures::of([(f64::NAN, 1.0), (1.0, 1.0)]);
        assert!(m.rel_rmse.is_nan() && m.max_abs.is_nan() && m.rel_l1.is_nan());
    }

    #[test]
    fn equal_tensors_have_no_error() {
        let m = ErrorMeasures::of([(0.0, 0.0), (0.0, 0.0)]);
        assert_eq!((m.rel_l1, m.rel_rmse, m.cosine), (0.0, 0.0, 1.0));
    }
}
