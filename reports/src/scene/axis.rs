//! Axes: a range of values, how it maps to a length, and its ticks.

use super::font;

/// Size of tick labels.
pub(crate) const TICK_SIZE: f64 = 12.0;

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    pub(crate) title: String,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) log: bool,
    /// Values with their labels, ascending.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Makes a linear axis from `low` to `high` with ticks at round values.
    pub(crate) fn linear(title: &str, low: f64, high: f64, label: impl Fn(f64) -> String) -> Self {
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        let ticks = round_ticks(low, high, 6).into_iter().map(|v| (v, label(v))).collect();
        Self { title: title.to_owned(), low, high, log: false, ticks }
    }

    /// Makes a logarithmic axis that holds the values with some room, ticks at 1, 2, 5 of each decade or sparser.
    ///
    /// Values must be positive and finite; `None` if there are none.
    pub(crate) fn log(
        title: &str,
        values: impl IntoIterator<Item = f64>,
        label: impl Fn(f64) -> String,
    ) -> Option<Self> {
        let (low, high) = padded_log_range(values)?;
        let ticks = log_ticks(low, high).into_iter().map(|v| (v, label(v))).collect();
        Some(Self { title: title.to_owned(), low, high, log: true, ticks })
    }

    /// Makes a logarithmic axis with a tick at each of the values.
    pub(crate) fn log_at(title: &str, values: &[f64], label: impl Fn(f64) -> String) -> Option<Self> {
        let mut axis = Self::log(title, values.iter().copied(), &label)?;
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.dedup();
        axis.ticks = values.into_iter().map(|v| (v, label(v))).collect();
        Some(axis)
    }

    /// Returns where a value lies: 0 at the low end, 1 at the high end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Returns the ticks with their places along a horizontal `length`; labels that would touch the one before are
    /// empty.
    pub(crate) fn horizontal_ticks(&self, length: f64) -> Vec<(f64, &str)> {
        const GAP: f64 = 10.0;
        let mut free_from = f64::NEG_INFINITY;
        let mut label = |place: f64, text| {
            let half = font::width(text, TICK_SIZE, false) / 2.0;
            if place - half < free_from {
                return "";
            }
            free_from = place + half + GAP;
            text
        };
        self.ticks
            .iter()
            .map(|(v, text)| (self.place(*v) * length, label(self.place(*v) * length, text)))
            .collect()
    }

    /// Returns the ticks with their places along a vertical `length`, from its low end; labels closer than a line are
    /// empty.
    pub(crate) fn vertical_ticks(&self, length: f64) -> Vec<(f64, &str)> {
        let mut free_from = f64::NEG_INFINITY;
        let mut label = |place: f64, text| {
            if place < free_from {
                return "";
            }
            free_from = place + TICK_SIZE * 1.4;
            text
        };
        self.ticks
            .iter()
            .map(|(v, text)| (self.place(*v) * length, label(self.place(*v) * length, text)))
            .collect()
    }
}

/// Returns the range of the values, widened so that no mark touches the frame.
fn padded_log_range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in values {
        debug_assert!(value > 0.0 && value.is_finite(), "{value} on a logarithmic axis");
        low = low.min(value);
        high = high.max(value);
    }
    if low > high {
        return None;
    }
    // A single value gets a factor of 1.5 on either side.
    let room = if high > low * 1.02 { (high / low).powf(0.07) } else { 1.5 };
    Some((low / room, high * room))
}

/// Returns round values within a range, about `wanted` of them.
fn round_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let raw = (high - low) / wanted as f64;
    let decade = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|s| *s >= raw * 0.999);
    let step = step.unwrap_or(10.0 * decade);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    // Dividing by the inverse keeps 0.3 from becoming 0.30000000000000004.
    (first..=last)
        .map(|i| if step < 1.0 { i as f64 / (1.0 / step).round() } else { i as f64 * step })
        .collect()
}

/// Returns ticks for a logarithmic range: all of 1 to 9 on a short one, then 1, 2, 5, then decades.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let mantissas: &[f64] = match decades {
        d if d < 0.35 => {
            return round_ticks(low, high, 5).into_iter().filter(|v| (low..=high).contains(v)).collect();
        }
        d if d < 1.0 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        d if d < 3.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    // A label per decade is readable up to eight or so.
    let stride = (decades / 8.0).ceil().max(1.0) as i32;
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last)
        .filter(|e| e.rem_euclid(stride) == 0)
        .flat_map(|e| mantissas.iter().map(move |m| decimal(*m, e)))
        .filter(|v| (low..=high).contains(v))
        .collect()
}

/// Returns m·10^e, correctly rounded.
fn decimal(mantissa: f64, exponent: i32) -> f64 {
    format!("{mantissa}e{exponent}").parse().unwrap_or(mantissa * 10f64.powi(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(round_ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(round_ticks(0.35, 0.95, 6), [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]);
        assert_eq!(round_ticks(3.0, 47.0, 5), [10.0, 20.0, 30.0, 40.0]);
    }

    #[test]
    fn every_log_range_gets_two_to_twelve_ticks_inside() {
        for start in [1e-9, 3e-4, 0.7, 1.0, 1.1, 9.5, 1234.0] {
            for factor in [1.05, 1.3, 2.0, 4.0, 9.0, 30.0, 1e3, 1e6, 1e12, 1e20] {
                let ticks = log_ticks(start, start * factor);
                assert!((2..=12).contains(&ticks.len()), "{start} x {factor}: {ticks:?}");
                assert!(
                    ticks.iter().all(|v| (start..=start * factor).contains(v)),
                    "{start} x {factor}: {ticks:?}"
                );
            }
        }
    }

    #[test]
    fn an_axis_holds_its_values_with_room() {
        for values in [vec![3.0], vec![1.0, 1000.0], vec![5.0, 5.01]] {
            let axis = Axis::log("t", values.iter().copied(), |v| v.to_string()).unwrap();
            for value in values {
                assert!((0.01..=0.99).contains(&axis.place(value)), "{value} at {}", axis.place(value));
            }
        }
        assert_eq!(Axis::log("t", [], |v| v.to_string()), None);
    }

    #[test]
    fn labels_that_would_touch_are_left_out() {
        let axis = Axis::log_at("t", &[1000.0, 1010.0, 8000.0], |v| v.to_string()).unwrap();
        let labels: Vec<_> = axis.horizontal_ticks(300.0).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["1000", "", "8000"]);
    }
}
