//! `nabla tune --print-space`: what a space holds, and what its constraints took away.

use std::{io::Write, path::Path};

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    cli::Setting,
    failure::{Failure, Kind},
    search::space::{Limits, Space, SpaceSpec, file},
    spaces,
};

/// Prints one space, or the list of those built in when `name` is empty.
pub(crate) fn run(name: &str, limits: &[Setting], fixed: &[Setting]) -> Result<(), Failure> {
    let limits = numbers(limits)?;
    if name.is_empty() {
        return list(&limits, fixed);
    }
    let built_in = spaces::all()?.into_iter().find(|spec| spec.name == name);
    let mut spec = match built_in {
        Some(spec) => spec,
        None if is_file(name) => file::read(Path::new(name))?,
        None => {
            let known: Vec<String> = spaces::all()?.into_iter().map(|spec| spec.name).collect();
            let message =
                format!("unknown space '{name}': expected {} or a file that ends in .toml", known.join(", "));
            return Err(Failure::new(Kind::Usage, message));
        }
    };
    fix(&mut spec, fixed)?;
    let space = spec.enumerate(&limits)?;
    print(&spec, &space, &limits)
}

fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "toml") || Path::new(name).is_file()
}

fn numbers(settings: &[Setting]) -> Result<Limits, Failure> {
    let number = |setting: &Setting| match setting.value.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((setting.name.clone(), value)),
        _ => {
            let message = format!("--limit {}: expected a number, got '{}'", setting.name, setting.value);
            Err(Failure::new(Kind::Usage, message))
        }
    };
    settings.iter().map(number).collect()
}

fn fix(spec: &mut SpaceSpec, fixed: &[Setting]) -> Result<(), Failure> {
    let usage = |message| Failure::new(Kind::Usage, format!("--fix {message}"));
    fixed.iter().try_for_each(|setting| spec.fix(&setting.name, &setting.value).map_err(usage))
}

fn list(limits: &Limits, fixed: &[Setting]) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["space", "axes", "points", "feasible"]);
    for mut spec in spaces::all()? {
        fix(&mut spec, fixed)?;
        let space = spec.enumerate(limits)?;
        let axes: Vec<&str> = space.axes().iter().map(|axis| axis.name.as_str()).collect();
        let (points, feasible) = (space.product().to_string(), space.len().to_string());
        table.add_row([space.name(), &axes.join(" "), &points, &feasible]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(anstream::stdout().lock(), "{}", table.trim_fmt())?;
    Ok(())
}

fn print(spec: &SpaceSpec, space: &Space, limits: &Limits) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", space.name())?;
    writeln!(out)?;
    let width = space.axes().iter().map(|axis| axis.name.len()).max().unwrap_or(0);
    for axis in space.axes() {
        let values: Vec<String> = axis.values.iter().map(ToString::to_string).collect();
        writeln!(out, "  {:<width$}  {}", axis.name, values.join(", "))?;
    }
    if !spec.constraints.is_empty() {
        writeln!(out)?;
        writeln!(out, "constraints")?;
    }
    for constraint in &spec.constraints {
        writeln!(out, "  {}", constraint.when)?;
    }
    let mut known = spec.limits.clone();
    known.extend(limits.clone());
    if !known.is_empty() {
        writeln!(out)?;
        writeln!(out, "limits")?;
    }
    for (name, value) in &known {
        writeln!(out, "  {name} = {value}")?;
    }
    writeln!(out)?;
    writeln!(out, "points    {}", space.product())?;
    writeln!(out, "feasible  {}", space.len())?;
    for pruned in space.pruned().iter().filter(|pruned| pruned.points > 0) {
        writeln!(out, "pruned    {}: {}", pruned.points, pruned.reason)?;
    }
    let default: Vec<String> =
        space.default_values().map(|(name, value)| format!("{name}={value}")).collect();
    let feasible = if space.default_point().is_some() { "" } else { " (not feasible)" };
    writeln!(out, "default   {}{feasible}", default.join(" "))?;
    Ok(())
}
