//! The feasible points of a space, numbered.

use super::{Axis, Value};

/// A feasible point: its place in the order of the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PointId(u32);

impl PointId {
    /// Returns the place, from 0.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many points a constraint took away before any other had a chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// What is said of them.
    pub(crate) reason: String,
    /// Points of the full product.
    pub(crate) points: u64,
}

/// What counts as near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbourhood {
    /// Points that differ on one axis.
    Hamming,
    /// Points that differ on one axis with no feasible value between; every other value where values have no order.
    Adjacent,
}

/// The place of a point in the full product of the axes.
#[derive(Debug, Clone)]
pub(super) struct Rank {
    /// Points between two values of each axis.
    strides: Vec<u64>,
    points: u64,
}

impl Rank {
    /// Returns `None` when the product does not fit.
    pub(super) fn new(axes: &[Axis]) -> Option<Self> {
        let mut strides = vec![1; axes.len()];
        let mut points = 1u64;
        for (stride, axis) in strides.iter_mut().zip(axes).rev() {
            *stride = points;
            points = points.checked_mul(axis.values.len() as u64)?;
        }
        Some(Self { strides, points })
    }

    fn of(&self, coordinates: &[u16]) -> u64 {
        coordinates.iter().zip(&self.strides).map(|(&at, stride)| u64::from(at) * stride).sum()
    }
}

/// A space: its axes and its feasible points in the order of their axes, the last axis fastest.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    name: String,
    axes: Vec<Axis>,
    rank: Rank,
    /// Places of the values, a row of axes a point.
    coordinates: Vec<u16>,
    /// Rank of each point in the product, ascending.
    ranks: Vec<u64>,
    default: Vec<u16>,
    pruned: Vec<Pruned>,
    /// Per axis, places of values by size, and the rank of each place.
    by_size: Vec<(Vec<u16>, Vec<usize>)>,
}

impl Space {
    pub(super) fn new(
        name: String,
        axes: Vec<Axis>,
        rank: Rank,
        coordinates: Vec<u16>,
        default: Vec<u16>,
        pruned: Vec<Pruned>,
    ) -> Self {
        let width = axes.len().max(1);
        let ranks = coordinates.chunks_exact(width).map(|row| rank.of(row)).collect();
        let by_size = axes
            .iter()
            .map(|axis| {
                let ranks = axis.ranks();
                let mut places: Vec<u16> = (0..axis.values.len() as u16).collect();
                places.sort_by_key(|&place| ranks[place as usize]);
                (places, ranks)
            })
            .collect();
        Self { name, axes, rank, coordinates, ranks, default, pruned, by_size }
    }

    /// Makes a space of listed points, as finished measurements have them: each row holds a value for each name.
    ///
    /// The values of an axis are those that occur, by size. Returns the space and the point of each row; rows that
    /// are the same point share it. `None` when there is no row, a row has another length, or the product of the
    /// axes does not fit.
    pub(crate) fn from_rows(
        name: &str,
        names: &[String],
        rows: &[Vec<Value>],
    ) -> Option<(Self, Vec<PointId>)> {
        if rows.is_empty() || names.is_empty() || rows.iter().any(|row| row.len() != names.len()) {
            return None;
        }
        let mut axes: Vec<Axis> =
            names.iter().map(|name| Axis { name: name.clone(), values: Vec::new() }).collect();
        for (column, axis) in axes.iter_mut().enumerate() {
            for row in rows {
                if axis.position(&row[column]).is_none() {
                    axis.values.push(row[column].clone());
                }
            }
            axis.values.sort_by(Value::order);
        }
        if axes.iter().any(|axis| axis.values.len() > u16::MAX as usize) {
            return None;
        }
        let rank = Rank::new(&axes)?;
        let place = |(axis, value): (&Axis, &Value)| axis.position(value).map(|place| place as u16);
        let located: Vec<Vec<u16>> = rows
            .iter()
            .map(|row| axes.iter().zip(row).map(place).collect::<Option<Vec<u16>>>())
            .collect::<Option<_>>()?;
        let mut unique = located.clone();
        unique.sort_unstable();
        unique.dedup();
        let absent = rank.points - unique.len() as u64;
        let pruned = vec![Pruned { reason: "not measured".to_owned(), points: absent }];
        let default = unique.first()?.clone();
        let space = Self::new(name.to_owned(), axes, rank, unique.concat(), default, pruned);
        let points = located.iter().map(|row| space.locate(row)).collect::<Option<_>>()?;
        Some((space, points))
    }

    /// Returns the name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the axes.
    pub(crate) fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Returns the number of feasible points, at least 1.
    pub(crate) fn len(&self) -> usize {
        self.ranks.len()
    }

    /// Returns the number of points of the full product.
    pub(crate) fn product(&self) -> u64 {
        self.rank.points
    }

    /// Returns what took points away, in the order of the constraints; those that took none included.
    pub(crate) fn pruned(&self) -> &[Pruned] {
        &self.pruned
    }

    /// Returns every feasible point in order.
    pub(crate) fn ids(&self) -> impl ExactSizeIterator<Item = PointId> + use<> {
        (0..self.ranks.len() as u32).map(PointId)
    }

    /// Returns the place of each axis' value.
    pub(crate) fn coordinates(&self, point: PointId) -> &[u16] {
        &self.coordinates[point.index() * self.axes.len()..][..self.axes.len()]
    }

    /// Returns the names and values of a point.
    pub(crate) fn values(&self, point: PointId) -> impl Iterator<Item = (&str, &Value)> {
        let places = self.coordinates(point).iter();
        self.axes.iter().zip(places).map(|(axis, &place)| (axis.name.as_str(), &axis.values[place as usize]))
    }

    /// Names a point: `block_m=64 block_n=128`.
    pub(crate) fn describe(&self, point: PointId) -> String {
        let values: Vec<String> = self.values(point).map(|(name, value)| format!("{name}={value}")).collect();
        values.join(" ")
    }

    /// Finds a point by the places of its values.
    pub(crate) fn locate(&self, coordinates: &[u16]) -> Option<PointId> {
        let rank = self.rank.of(coordinates);
        self.ranks.binary_search(&rank).ok().map(|place| PointId(place as u32))
    }

    /// Finds a point by its values, one for each axis in any order.
    pub(crate) fn find<'v>(&self, values: impl IntoIterator<Item = (&'v str, &'v Value)>) -> Option<PointId> {
        let mut coordinates = vec![None; self.axes.len()];
        for (name, value) in values {
            let axis = self.axes.iter().position(|axis| axis.name == name)?;
            coordinates[axis] = Some(self.axes[axis].position(value)? as u16);
        }
        self.locate(&coordinates.into_iter().collect::<Option<Vec<u16>>>()?)
    }

    /// Returns the point of the defaults; `None` when a constraint takes it away.
    pub(crate) fn default_point(&self) -> Option<PointId> {
        self.find(self.default_values())
    }

    /// Returns the defaults by name, feasible or not.
    pub(crate) fn default_values(&self) -> impl Iterator<Item = (&str, &Value)> {
        let places = self.default.iter();
        self.axes.iter().zip(places).map(|(axis, &place)| (axis.name.as_str(), &axis.values[place as usize]))
    }

    /// Returns the rank by size of a point's value on an axis, from 0.
    pub(crate) fn size_rank(&self, point: PointId, axis: usize) -> usize {
        self.by_size[axis].1[self.coordinates(point)[axis] as usize]
    }

    /// Puts the feasible neighbours of a point into `found`, axis by axis, smaller values first.
    pub(crate) fn neighbours(&self, point: PointId, near: Neighbourhood, found: &mut Vec<PointId>) {
        found.clear();
        let coordinates = self.coordinates(point);
        let rank = self.ranks[point.index()];
        for (axis, &here) in coordinates.iter().enumerate() {
            let stride = self.rank.strides[axis];
            let base = rank - u64::from(here) * stride;
            let at = |place: &u16| {
                let there = self.ranks.binary_search(&(base + u64::from(*place) * stride)).ok();
                there.map(|index| PointId(index as u32))
            };
            let (places, ranks) = &self.by_size[axis];
            let (smaller, larger) = places.split_at(ranks[here as usize]);
            let larger = &larger[1..];
            if near == Neighbourhood::Adjacent && self.axes[axis].is_ordered() {
                found.extend(smaller.iter().rev().find_map(at));
                found.extend(larger.iter().find_map(at));
            } else {
                found.extend(smaller.iter().chain(larger).filter_map(at));
            }
        }
    }
}
