//! From a spec to its feasible points.

use std::collections::BTreeMap;

use super::{
    Axis, Limits, Pruned, Space, SpaceError, SpaceSpec, Value,
    expression::{Expression, ExpressionError, Operand},
    points::Rank,
    spec::{Check, Constraint},
};

/// Most feasible points: 48 MiB of a space with ten axes.
const MAX_POINTS: u64 = 2_000_000;
/// Most partial points looked at: some seconds.
const MAX_STEPS: u64 = 50_000_000;
/// Most values of an axis.
const MAX_VALUES: usize = u16::MAX as usize;

/// A constraint ready to be evaluated.
struct Ready<'s> {
    constraint: &'s Constraint,
    expression: Expression,
}

impl SpaceSpec {
    /// Finds every point that satisfies the constraints; those given as `limits` count before the spec's own.
    ///
    /// Axes are bound in their order, and a constraint is evaluated as soon as its last axis is bound, so what it
    /// takes away is never visited.
    ///
    /// # Errors
    /// When a constraint is wrong, there are too many points, or none.
    pub(crate) fn enumerate(&self, limits: &Limits) -> Result<Space, SpaceError> {
        let rank = Rank::new(&self.axes).ok_or_else(|| self.too_large("points in all", u64::MAX))?;
        if self.axes.iter().any(|axis| axis.values.len() > MAX_VALUES) {
            return Err(self.too_large("values on one axis", MAX_VALUES as u64));
        }
        let ready = self.ready(limits)?;
        let mut by_depth: Vec<Vec<usize>> = vec![Vec::new(); self.axes.len() + 1];
        for (index, constraint) in ready.iter().enumerate() {
            by_depth[constraint.expression.last_axis().map_or(0, |axis| axis + 1)].push(index);
        }
        let mut walk = Walk {
            spec: self,
            ready: &ready,
            by_depth: &by_depth,
            checks: &self.checks,
            below: below(&self.axes),
            bound: Vec::with_capacity(self.axes.len()),
            coordinates: Vec::new(),
            found: 0,
            steps: 0,
            pruned: vec![0; ready.len()],
            checked: BTreeMap::new(),
        };
        walk.descend()?;
        let Walk { coordinates, pruned, checked, .. } = walk;
        let by_constraint = ready
            .iter()
            .zip(pruned)
            .map(|(ready, points)| Pruned { reason: ready.constraint.reason.clone(), points });
        let by_check = checked.into_iter().map(|(reason, points)| Pruned { reason, points });
        let pruned: Vec<Pruned> = by_constraint.chain(by_check).collect();
        if coordinates.is_empty() {
            let lost = pruned.iter().filter(|p| p.points > 0);
            let reasons: Vec<String> = lost.map(|p| format!("{} ({} points)", p.reason, p.points)).collect();
            let reasons =
                if reasons.is_empty() { "an axis has no value".to_owned() } else { reasons.join("; ") };
            return Err(SpaceError::Empty { name: self.name.clone(), reasons });
        }
        let default: Vec<u16> = self
            .axes
            .iter()
            .map(|axis| {
                self.defaults.get(&axis.name).and_then(|value| axis.position(value)).unwrap_or(0) as u16
            })
            .collect();
        Ok(Space::new(self.name.clone(), self.axes.clone(), rank, coordinates, default, pruned))
    }

    fn too_large(&self, what: &'static str, most: u64) -> SpaceError {
        SpaceError::TooLarge { name: self.name.clone(), what, most }
    }

    fn ready(&self, limits: &Limits) -> Result<Vec<Ready<'_>>, SpaceError> {
        let axis = |name: &str| {
            self.axes.iter().position(|axis| axis.name == name).ok_or_else(|| {
                let known: Vec<&str> = self.axes.iter().map(|axis| axis.name.as_str()).collect();
                format!("expected an axis ({}) or limit.NAME, got '{name}'", known.join(", "))
            })
        };
        let limit = |name: &str| {
            limits.get(name).or_else(|| self.limits.get(name)).copied().ok_or_else(|| {
                let known: Vec<&str> = limits.keys().chain(self.limits.keys()).map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!(
                    "the limit '{name}' has no value (known: {known}); give it under [limits] or with --limit"
                )
            })
        };
        self.constraints
            .iter()
            .map(|constraint| {
                let expression = Expression::parse(&constraint.when, axis, limit);
                let expression = expression.map_err(|error| invalid(constraint, &error, ""))?;
                Ok(Ready { constraint, expression })
            })
            .collect()
    }
}

fn invalid(constraint: &Constraint, error: &ExpressionError, point: &str) -> SpaceError {
    let place = constraint.place.at(&constraint.when, error.span.start);
    SpaceError::Invalid { place, message: format!("{error}{point}") }
}

/// Returns for each number of bound axes how many points they leave open.
fn below(axes: &[Axis]) -> Vec<u64> {
    let mut below = vec![1u64; axes.len() + 1];
    for (depth, axis) in axes.iter().enumerate().rev() {
        below[depth] = below[depth + 1] * axis.values.len() as u64;
    }
    below
}

struct Walk<'s> {
    spec: &'s SpaceSpec,
    ready: &'s [Ready<'s>],
    by_depth: &'s [Vec<usize>],
    checks: &'s [Check],
    below: Vec<u64>,
    bound: Vec<u16>,
    coordinates: Vec<u16>,
    found: u64,
    steps: u64,
    pruned: Vec<u64>,
    checked: BTreeMap<String, u64>,
}

impl Walk<'_> {
    fn value(&self, axis: usize) -> &Value {
        &self.spec.axes[axis].values[self.bound[axis] as usize]
    }

    /// Looks at the point bound so far, then at everything below it.
    fn descend(&mut self) -> Result<(), SpaceError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(self.spec.too_large("partial points to look at", MAX_STEPS));
        }
        let depth = self.bound.len();
        for &index in &self.by_depth[depth] {
            let ready = &self.ready[index];
            let holds = ready.expression.holds(&|axis| match self.value(axis) {
                Value::Int(value) => Operand::Int(*value),
                Value::Real(value) => Operand::Real(*value),
                Value::Text(text) => Operand::Text(text),
                Value::Bool(value) => Operand::Bool(*value),
            });
            if !holds.map_err(|error| invalid(ready.constraint, &error, &self.point()))? {
                self.pruned[index] += self.below[depth];
                return Ok(());
            }
        }
        if depth == self.spec.axes.len() {
            return self.keep();
        }
        for value in 0..self.spec.axes[depth].values.len() {
            self.bound.push(value as u16);
            self.descend()?;
            self.bound.pop();
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), SpaceError> {
        if !self.checks.is_empty() {
            let values: Vec<&Value> = (0..self.bound.len()).map(|axis| self.value(axis)).collect();
            if let Some(reason) = self.checks.iter().find_map(|check| check(&values).err()) {
                *self.checked.entry(reason).or_default() += 1;
                return Ok(());
            }
        }
        self.found += 1;
        if self.found > MAX_POINTS {
            return Err(self.spec.too_large("feasible points", MAX_POINTS));
        }
        self.coordinates.extend_from_slice(&self.bound);
        Ok(())
    }

    fn point(&self) -> String {
        if self.bound.is_empty() {
            return String::new();
        }
        let bound =
            (0..self.bound.len()).map(|axis| format!("{}={}", self.spec.axes[axis].name, self.value(axis)));
        format!(" (at {})", bound.collect::<Vec<_>>().join(" "))
    }
}
