//! A report in text: Markdown for a pull request, and one line.

use crate::best::{BestSetting, best_settings};
use crate::collection::{Collection, DeviceRecords};
use crate::figures::mask_block;
use crate::format::{count, percent, plural, significant, time, time_range};
use crate::problem;
use crate::record::Status;

/// Rows of a table at most: a comment is read, not searched.
const MAX_ROWS: usize = 40;

/// Returns the best settings of each device, warnings and provenance as Markdown.
pub fn markdown(all: &Collection) -> String {
    let mut text = String::new();
    for device in &all.devices {
        text.push_str(&format!("### nabla on {} ({})\n\n", escaped(&device.device), device.backend));
        text.push_str(&best_table(device));
        text.push('\n');
    }
    for warning in all.warnings() {
        text.push_str(&format!("> {}\n", escaped(&warning)));
    }
    let ok = all.records().filter(|r| r.status == Status::Ok).count();
    text.push_str(&format!(
        "\n{} of {} verified and timed.",
        count(ok as u64),
        plural(all.records().count(), "trial", "trials")
    ));
    let rejected: u64 = all.sources.iter().map(|s| s.rejected_samples).sum();
    if rejected > 0 {
        text.push_str(&format!(" {} samples rejected.", count(rejected)));
    }
    text.push('\n');
    for source in &all.sources {
        let identity = &source.header.identity;
        let clocks = source.header.machine.as_ref().and_then(|m| m.clocks.clone());
        let facts = [
            Some(identity.isa.clone()),
            identity.driver.as_ref().map(|driver| format!("driver {driver}")),
            clocks,
            Some(identity.toolchain.clone()),
            Some(format!("commit {}", identity.git_commit)),
            Some(format!("input {}", identity.input_hash)),
            Some(format!("seed {}", identity.seed)),
            Some(format!("{} rounds", source.header.protocol.rounds)),
            Some(source.header.started.clone()),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().map(|fact| escaped(&fact)).collect();
        text.push_str(&format!("\n<sub>{}</sub>\n", facts.join(" · ")));
    }
    text
}

fn best_table(device: &DeviceRecords) -> String {
    let best = best_settings(&device.records);
    if best.is_empty() {
        return "No trial on a sparse mask was verified and timed.\n".to_owned();
    }
    let problems: Vec<_> = best.iter().map(|b| b.problem.clone()).collect();
    let names = problem::names(&problems);
    let more = best.len().saturating_sub(MAX_ROWS);
    let rows = best.iter().zip(names).take(MAX_ROWS).map(|(b, name)| {
        let r = b.record;
        let number = |value: Option<f64>, text: fn(f64) -> String| value.map(text).unwrap_or_default();
        vec![
            name,
            r.policy.clone(),
            mask_block(r.q_block, r.kv_block),
            format!("{}×{}", r.block_m, r.block_n),
            number(r.density, percent),
            time(b.time.median_us),
            time_range(b.time.low_us, b.time.high_us),
            number(b.speedup(), |s| format!("{s:.2}×")),
            number(r.sparsity_rel_rmse, significant),
        ]
    });
    let heads = [
        "problem",
        "policy",
        ">mask block",
        ">tile",
        ">density",
        ">time",
        ">95 %",
        ">speedup",
        ">sparsity error",
    ];
    let mut text = table(&heads, rows);
    if more > 0 {
        text.push_str(&format!("\nand {more} more problems and policies.\n"));
    }
    text
}

/// Returns one line for a badge or a log: the highest speedup of each device with what it costs.
pub fn one_line(all: &Collection) -> String {
    let lines = all.devices.iter().map(|device| {
        let trials = plural(device.records.len(), "trial", "trials");
        let on = format!("{} ({})", device.device, device.backend);
        let best = best_settings(&device.records);
        let fastest = best.iter().filter_map(|b| Some((b.speedup()?, b))).max_by(|a, b| a.0.total_cmp(&b.0));
        match fastest {
            Some((speedup, BestSetting { record, .. })) => {
                let error = record
                    .sparsity_rel_rmse
                    .map(|e| format!(", error {}", significant(e)))
                    .unwrap_or_default();
                format!(
                    "{speedup:.2}x dense at {} tokens, {}{error} on {on}, {trials}",
                    count(record.seqlen),
                    record.policy
                )
            }
            None => format!("nothing compared with dense on {on}, {trials}"),
        }
    });
    format!("nabla: {}", lines.collect::<Vec<_>>().join("; "))
}

/// Returns a Markdown table; columns whose name starts with `>` stand to the right.
pub(crate) fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line =
        |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = line(&mut heads.iter().map(|head| head.trim_start_matches('>').to_owned()));
    text.push_str(&line(
        &mut heads.iter().map(|head| if head.starts_with('>') { "---:" } else { "---" }.to_owned()),
    ));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(|cell| escaped(cell))));
    }
    text
}

/// Returns a text that stays a text, and in its cell.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('|', "\\|")
        .replace(['\n', '\r'], " ")
        .replace('`', "'")
}
