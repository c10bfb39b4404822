//! One axis of a space.

use super::Value;

/// A name and the values it takes, all different.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// Name, as constraints and records call it.
    pub(crate) name: String,
    /// Values in the order given.
    pub(crate) values: Vec<Value>,
}

impl Axis {
    /// Makes an axis.
    pub(crate) fn new<V: Into<Value>>(name: &str, values: impl IntoIterator<Item = V>) -> Self {
        Self { name: name.to_owned(), values: values.into_iter().map(Into::into).collect() }
    }

    /// Returns the place of a value.
    pub(crate) fn position(&self, value: &Value) -> Option<usize> {
        self.values.iter().position(|known| known.same(value))
    }

    /// Says whether its values are numbers: then near values are likely to act alike.
    pub(crate) fn is_ordered(&self) -> bool {
        self.values.iter().all(|value| value.number().is_some())
    }

    /// Returns for each value its rank by size; the place where it stands, for values without a size.
    pub(crate) fn ranks(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        if self.is_ordered() {
            order.sort_by(|&a, &b| self.values[a].order(&self.values[b]));
        }
        let mut ranks = vec![0; order.len()];
        for (rank, place) in order.into_iter().enumerate() {
            ranks[place] = rank;
        }
        ranks
    }
}
