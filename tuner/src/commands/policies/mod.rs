//! `nabla policies`: every mask policy there is, and what each costs in accuracy.

mod quality;

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use nabla_host::policy::{Entry, registry};
use serde_json::{Value, json};

use crate::{
    cli::PoliciesArgs,
    failure::{Failure, Kind},
};

/// Lists policies, explains one, or compares them on an input.
pub(crate) fn run(args: &PoliciesArgs) -> Result<(), Failure> {
    if args.quality {
        return quality::run(args);
    }
    let wanted: Vec<&Entry> =
        registry().iter().filter(|entry| args.name.as_ref().is_none_or(|name| entry.name == name)).collect();
    if wanted.is_empty() {
        let known: Vec<&str> = registry().iter().map(|entry| entry.name).collect();
        let name = args.name.as_deref().unwrap_or_default();
        let message = format!("expected the name of a policy ({}), got '{name}'", known.join(", "));
        return Err(Failure::new(Kind::Usage, message));
    }
    let mut out = anstream::stdout().lock();
    if args.json {
        let all: Vec<Value> = wanted.iter().map(|entry| value(entry)).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&all).map_err(|e| Failure::new(Kind::Output, e))?)?;
        return Ok(());
    }
    if let (Some(_), [entry]) = (&args.name, &wanted[..]) {
        let Entry { usage, arguments, keeps, source, example, .. } = entry;
        writeln!(
            out,
            "{usage}\n\nkeeps      {keeps}\narguments  {arguments}\nsource     {source}\nexample    {example}"
        )?;
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["policy", "keeps", "source"]);
    for entry in wanted {
        table.add_row([entry.usage, entry.keeps, entry.source]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(
        out,
        "\ndense keeps every block; A_B keeps what either keeps, A@B what both do, @ binding tighter."
    )?;
    Ok(())
}

fn value(entry: &Entry) -> Value {
    json!({
        "name": entry.name,
        "usage": entry.usage,
        "arguments": entry.arguments,
        "keeps": entry.keeps,
        "source": entry.source,
        "example": entry.example,
    })
}
