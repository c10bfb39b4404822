//! Spaces as TOML files.
//!
//! ```toml
//! name = "hopper sparse"
//! [axes]
//! block_m = [64, 128, 192]
//! block_n = [64, 128]
//! [defaults]
//! block_m = 128
//! [limits]
//! shared_bytes = 232448
//! [[constraints]]
//! when = "(block_m + 2 * block_n) * 128 * 2 <= limit.shared_bytes"
//! reason = "tiles do not fit in shared memory"
//! ```

use std::{borrow::Cow, fs, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Axis, SpaceError, SpaceSpec, Value,
    spec::{Constraint, Place},
};

/// Largest file read.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a space.
///
/// # Errors
/// One error with file, line and column, and what was expected there. Constraints are parsed when points are
/// enumerated.
pub(crate) fn read(path: &Path) -> Result<SpaceSpec, SpaceError> {
    let unreadable = |source| SpaceError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    let name = path.display().to_string();
    if bytes > MAX_BYTES {
        let message = format!("expected a file of at most {MAX_BYTES} bytes, got {bytes}");
        return Err(SpaceError::Invalid { place: name, message });
    }
    parse(&fs::read_to_string(path).map_err(unreadable)?, &name)
}

/// Parses the text of a file called `file`.
///
/// # Errors
/// As [`read`].
pub(crate) fn parse(text: &str, file: &str) -> Result<SpaceSpec, SpaceError> {
    let source = Source { text, file };
    let document = DeTable::parse(text).map_err(|error| {
        // The library's message alone: its own rendering repeats the place over several lines.
        source.invalid(error.span().unwrap_or(0..0), error.message().trim().replace('\n', ": "))
    })?;
    let document = document.get_ref();
    source.only(document, &["name", "axes", "defaults", "limits", "constraints"])?;

    let mut spec = SpaceSpec { name: file.to_owned(), ..SpaceSpec::default() };
    if let Some(name) = document.get("name") {
        spec.name = source.text(name)?.to_owned();
    }
    let Some(axes) = document.get("axes") else {
        return Err(
            source.invalid(0..0, "expected a table [axes] with a list of values for each axis, got none")
        );
    };
    // Keys come sorted; the order of the file is the order of the axes.
    let mut axes: Vec<_> = source.table(axes)?.iter().collect();
    axes.sort_by_key(|(name, _)| name.span().start);
    for (name, values) in axes {
        spec.axes.push(source.axis(name, values)?);
    }
    if spec.axes.is_empty() {
        return Err(source.invalid(0..0, "expected at least one axis under [axes], got none"));
    }
    for (name, value) in source.entries(document, "defaults")? {
        let Some(axis) = spec.axes.iter().find(|axis| axis.name == *name.get_ref()) else {
            let known: Vec<&str> = spec.axes.iter().map(|axis| axis.name.as_str()).collect();
            let message = format!("expected an axis ({}), got '{}'", known.join(", "), name.get_ref());
            return Err(source.invalid(name.span(), message));
        };
        let default = source.value(value)?;
        if axis.position(&default).is_none() {
            let known: Vec<String> = axis.values.iter().map(Value::to_string).collect();
            let message =
                format!("expected a value of '{}' ({}), got {default}", axis.name, known.join(", "));
            return Err(source.invalid(value.span(), message));
        }
        spec.defaults.insert(axis.name.clone(), default);
    }
    for (name, value) in source.entries(document, "limits")? {
        let Some(limit) = source.value(value)?.number() else {
            return Err(source.expected(value, "a number"));
        };
        spec.limits.insert(name.get_ref().to_string(), limit);
    }
    if let Some(constraints) = document.get("constraints") {
        let DeValue::Array(items) = constraints.get_ref() else {
            return Err(source.expected(constraints, "[[constraints]] with `when` and `reason`"));
        };
        for item in items.iter() {
            spec.constraints.push(source.constraint(item)?);
        }
    }
    Ok(spec)
}

/// A key and its value, each with its place.
type Entry<'v, 't> = (&'v Spanned<Cow<'t, str>>, &'v Spanned<DeValue<'t>>);

struct Source<'t> {
    text: &'t str,
    file: &'t str,
}

impl<'t> Source<'t> {
    /// Returns line and column, from 1, columns in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(byte)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn invalid(&self, span: Range<usize>, message: impl Into<String>) -> SpaceError {
        let (line, column) = self.position(span.start);
        SpaceError::Invalid { place: format!("{}:{line}:{column}", self.file), message: message.into() }
    }

    fn expected(&self, value: &Spanned<DeValue<'_>>, what: &str) -> SpaceError {
        let got = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.invalid(value.span(), format!("expected {what}, got {got}"))
    }

    /// Refuses keys that mean nothing: a misspelt one must not be silently ignored.
    fn only(&self, table: &DeTable<'_>, known: &[&str]) -> Result<(), SpaceError> {
        match table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => {
                let message = format!("expected one of {}, got '{}'", known.join(", "), key.get_ref());
                Err(self.invalid(key.span(), message))
            }
        }
    }

    fn text<'v>(&self, value: &'v Spanned<DeValue<'t>>) -> Result<&'v str, SpaceError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.expected(value, "a text")),
        }
    }

    fn table<'v>(&self, value: &'v Spanned<DeValue<'t>>) -> Result<&'v DeTable<'t>, SpaceError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.expected(value, "a table")),
        }
    }

    /// Returns the entries of a table that may be missing.
    fn entries<'v>(&self, document: &'v DeTable<'t>, name: &str) -> Result<Vec<Entry<'v, 't>>, SpaceError> {
        match document.get(name) {
            None => Ok(Vec::new()),
            Some(table) => Ok(self.table(table)?.iter().collect()),
        }
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Result<Value, SpaceError> {
        let what = "a number, a text, true or false";
        match value.get_ref() {
            DeValue::String(text) => Ok(Value::Text(text.to_string())),
            DeValue::Boolean(value) => Ok(Value::Bool(*value)),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).map(Value::Int).map_err(|_| {
                    self.invalid(value.span(), format!("expected a number that fits 64 bits, got {number}"))
                })
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(real) if f64::is_finite(real) => Ok(Value::Real(real)),
                _ => Err(self.invalid(value.span(), format!("expected a finite number, got {number}"))),
            },
            _ => Err(self.expected(value, what)),
        }
    }

    fn axis(&self, name: &Spanned<Cow<'t, str>>, values: &Spanned<DeValue<'t>>) -> Result<Axis, SpaceError> {
        let named = name.get_ref();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let reserved = ["and", "or", "not", "in", "min", "max", "true", "false", "limit"];
        let starts = named.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if !starts || !named.chars().all(word) || reserved.contains(&named.as_ref()) {
            let message = format!(
                "expected a name of letters, digits and _ that is no word of constraints, got '{named}'"
            );
            return Err(self.invalid(name.span(), message));
        }
        let DeValue::Array(items) = values.get_ref() else {
            return Err(self.expected(values, &format!("the list of values of '{named}'")));
        };
        let mut axis = Axis { name: named.to_string(), values: Vec::new() };
        for item in items.iter() {
            let value = self.value(item)?;
            if axis.position(&value).is_some() {
                return Err(self.invalid(item.span(), format!("expected each value once, got {value} again")));
            }
            axis.values.push(value);
        }
        if axis.values.is_empty() {
            return Err(
                self.invalid(values.span(), format!("expected at least one value of '{named}', got none"))
            );
        }
        Ok(axis)
    }

    fn constraint(&self, item: &Spanned<DeValue<'t>>) -> Result<Constraint, SpaceError> {
        let table = self.table(item)?;
        self.only(table, &["when", "reason"])?;
        let get = |key: &str| {
            let missing =
                || self.invalid(item.span(), format!("expected `{key}` in this constraint, got none"));
            table.get(key).ok_or_else(missing)
        };
        let (when, reason) = (get("when")?, get("reason")?);
        let (text, span) = (self.text(when)?, when.span());
        // The value with its quotes; escapes and line breaks make the file and the text differ.
        let written = self.text.get(span.clone()).unwrap_or_default();
        let verbatim = !text.contains('\n') && written.len() == text.len() + 2;
        let start = span.start + usize::from(verbatim);
        let (line, column) = self.position(start);
        let place = Place::File { file: self.file.to_owned(), line, column, verbatim };
        Ok(Constraint { when: text.to_owned(), reason: self.text(reason)?.to_owned(), place })
    }
}
