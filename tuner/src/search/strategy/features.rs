//! Points as numbers that a model can learn from.

use crate::search::space::{Axis, PointId, Space, Value};

/// The features of every point, a row a point.
#[derive(Debug)]
pub(super) struct Features {
    width: usize,
    rows: Vec<f32>,
}

impl Features {
    /// An axis of numbers becomes its rank by size, from 0 to 1, and a switch for powers of two, which devices often
    /// treat apart; any other axis becomes one switch for each value. Axes with one value say nothing and become
    /// nothing.
    pub(super) fn new(space: &Space) -> Self {
        let mut columns: Vec<Vec<f32>> = Vec::new();
        for (index, axis) in space.axes().iter().enumerate() {
            let values = axis.values.len();
            if values < 2 {
                continue;
            }
            let place = |point: PointId| usize::from(space.coordinates(point)[index]);
            if axis.is_ordered() || values == 2 {
                let scale = 1.0 / (values - 1) as f32;
                columns.push(space.ids().map(|point| space.size_rank(point, index) as f32 * scale).collect());
            } else {
                for value in 0..values {
                    columns.push(space.ids().map(|point| f32::from(place(point) == value)).collect());
                }
            }
            if let Some(powers) = powers_of_two(axis) {
                columns.push(space.ids().map(|point| f32::from(powers[place(point)])).collect());
            }
        }
        let width = columns.len();
        let mut rows = Vec::with_capacity(width * space.len());
        for point in 0..space.len() {
            rows.extend(columns.iter().map(|column| column[point]));
        }
        Self { width, rows }
    }

    /// Returns the number of features of a point.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Returns the features of a point.
    pub(super) fn of(&self, point: PointId) -> &[f32] {
        &self.rows[point.index() * self.width..][..self.width]
    }
}

/// Says which values are powers of two, if some are and some are not.
fn powers_of_two(axis: &Axis) -> Option<Vec<bool>> {
    let power = |value: &Value| match value {
        Value::Int(value) if *value > 0 => Some(value.count_ones() == 1),
        _ => None,
    };
    let powers: Vec<bool> = axis.values.iter().map(power).collect::<Option<_>>()?;
    (powers.contains(&true) && powers.contains(&false)).then_some(powers)
}
