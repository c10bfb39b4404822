//! What a space is, before its points are counted.

use std::{collections::BTreeMap, fmt, rc::Rc};

use super::{Axis, Value};

/// Numbers of a device that constraints may name as `limit.NAME`: bytes of shared memory, threads of a block.
pub(crate) type Limits = BTreeMap<String, f64>;

/// What a point must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constraint {
    /// An expression that holds for the points wanted; see the language in [`super::expression`].
    pub(crate) when: String,
    /// What to say of the points it takes away.
    pub(crate) reason: String,
    /// Where it is written.
    pub(crate) place: Place,
}

impl Constraint {
    /// Makes a constraint of the program itself.
    pub(crate) fn new(when: &str, reason: &str) -> Self {
        let place = Place::BuiltIn(format!("constraint \"{when}\""));
        Self { when: when.to_owned(), reason: reason.to_owned(), place }
    }
}

/// Where an expression is written, so that errors can point at it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// In the program; the text names it.
    BuiltIn(String),
    /// In a file.
    File {
        /// Name of the file, as given.
        file: String,
        /// Line of the first character of the expression, from 1.
        line: usize,
        /// Its column in characters, from 1.
        column: usize,
        /// Whether the text of the file and the expression agree character by character, so that a place in the
        /// expression is a place in the file.
        verbatim: bool,
    },
}

impl Place {
    /// Names the place of a byte of the expression.
    pub(crate) fn at(&self, expression: &str, byte: usize) -> String {
        match self {
            Self::BuiltIn(name) => format!("{name}, column {}", characters(expression, byte) + 1),
            Self::File { file, line, column, verbatim } => {
                let inside = if *verbatim { characters(expression, byte) } else { 0 };
                format!("{file}:{line}:{}", column + inside)
            }
        }
    }
}

fn characters(text: &str, byte: usize) -> usize {
    text.char_indices().take_while(|(at, _)| *at < byte).count()
}

/// A test that no expression states: why a point will not do. Its texts are counted, so they should not name the
/// point.
pub(crate) type Check = Rc<dyn Fn(&[&Value]) -> Result<(), String>>;

/// Axes, constraints and defaults.
#[derive(Clone, Default)]
pub(crate) struct SpaceSpec {
    /// What people call it.
    pub(crate) name: String,
    /// Axes; later ones change fastest in the order of points.
    pub(crate) axes: Vec<Axis>,
    /// What points must satisfy.
    pub(crate) constraints: Vec<Constraint>,
    /// Further tests, of whole points, values in the order of the axes.
    pub(crate) checks: Vec<Check>,
    /// Default value by axis; the first value where there is none.
    pub(crate) defaults: BTreeMap<String, Value>,
    /// Limits to assume where the device says nothing.
    pub(crate) limits: Limits,
}

impl SpaceSpec {
    /// Keeps one value of an axis, given by its text.
    ///
    /// # Errors
    /// A sentence when there is no such axis or it has no such value.
    pub(crate) fn fix(&mut self, axis: &str, value: &str) -> Result<(), String> {
        let Some(found) = self.axes.iter_mut().find(|known| known.name == axis) else {
            let known: Vec<&str> = self.axes.iter().map(|axis| axis.name.as_str()).collect();
            return Err(format!(
                "{axis}: expected an axis of '{}' ({}), got '{axis}'",
                self.name,
                known.join(", ")
            ));
        };
        if !found.values.iter().any(|known| known.to_string() == value) {
            let known: Vec<String> = found.values.iter().map(Value::to_string).collect();
            return Err(format!("{axis}: expected one of {}, got '{value}'", known.join(", ")));
        }
        found.values.retain(|known| known.to_string() == value);
        Ok(())
    }
}

impl fmt::Debug for SpaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceSpec")
            .field("name", &self.name)
            .field("axes", &self.axes)
            .field("constraints", &self.constraints)
            .field("checks", &self.checks.len())
            .field("defaults", &self.defaults)
            .field("limits", &self.limits)
            .finish()
    }
}
