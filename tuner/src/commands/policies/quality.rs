//! Policies at equal density: what each loses against dense attention.

use std::{io::Write, path::Path, sync::Arc};

use comfy_table::{CellAlignment, Table, presets};
use nabla_host::{
    BlockMask, Policy,
    backend::Orders,
    error_measures::ErrorMeasures,
    reference::{Arithmetic, OrderedMask, Reference, attention},
    tensor::Qkv,
    variant::MaskBlock,
};
use nabla_reports::{QualityPlot, QualitySeries, write_quality};

use crate::{cli::PoliciesArgs, failure::Failure, input, output};

/// Name of the figure and its CSV.
const STEM: &str = "policy_quality";

/// A setting is left out where its density is further from the wanted one than this share of it.
const FARTHEST: f64 = 0.15;

/// A family of policies: its name and its settings.
struct Family {
    name: &'static str,
    settings: Vec<String>,
}

/// A setting that is nearest to a wanted density.
struct Chosen {
    family: &'static str,
    policy: String,
    wanted: f64,
    density: f64,
    error: ErrorMeasures,
}

/// Lists the settings that are tried.
fn families() -> Vec<Family> {
    let shares = |of: fn(f64) -> String| (1..50).map(|n| of(f64::from(n) / 50.0)).collect();
    let counts = |of: fn(usize) -> String| (1..33).map(of).collect();
    let windows = |name: &str| -> Vec<String> {
        let sides = [1, 3, 5, 7, 9, 11];
        let mut all = Vec::new();
        for t in sides {
            for side in sides {
                all.push(format!("{name}-{t}-{side}-{side}"));
            }
        }
        all
    };
    let family = |name, settings| Family { name, settings };
    vec![
        family("nabla", shares(|x| format!("nabla-{x}"))),
        family("vsa", shares(|x| format!("vsa-{x}"))),
        family("vmoba", shares(|x| format!("vmoba-{x}"))),
        family("xattn-8", shares(|x| format!("xattn-8-{x}"))),
        family("sparge", shares(|x| format!("sparge-{x}-0"))),
        family("sta", windows("sta")),
        family("stac", windows("stac")),
        family("radial", (1..25).map(|n| format!("radial-{}", f64::from(n) / 8.0)).collect()),
        family("svg-spatial", counts(|n| format!("svg-spatial-{n}"))),
        family("svg-temporal", counts(|n| format!("svg-temporal-{n}"))),
        family("vdit-diagonals", counts(|n| format!("vdit-diagonals-{n}"))),
        family("vdit-stripe", counts(|n| format!("vdit-stripe-{n}"))),
        family("nabla+sta", shares(|x| format!("nabla-{x}_sta-3-3-3"))),
    ]
}

/// Compares the families, prints the table and writes figure and CSV where asked to.
pub(super) fn run(args: &PoliciesArgs) -> Result<(), Failure> {
    let qkv = input::load(&args.input)?;
    let problem = qkv.problem();
    let orders = Orders::new(&problem, MaskBlock::square(args.block))?;
    let sample = input::error_sample(&problem, args.errors.error_rows, args.input.seed)?;
    let dense = attention(&qkv, problem.softmax_scale, None, &sample, Arithmetic::Float64);
    let mut all = Vec::new();
    for family in families() {
        let mut masks = Vec::new();
        for text in family.settings {
            let policy: Policy = text.parse()?;
            let mask = policy.build(&qkv, &orders)?;
            masks.push((text, mask.density(), mask));
        }
        let mut chosen: Vec<Chosen> = Vec::new();
        for &wanted in &args.densities {
            let nearest = masks.iter().min_by(|a, b| (a.1 - wanted).abs().total_cmp(&(b.1 - wanted).abs()));
            let Some((policy, density, mask)) = nearest else { continue };
            // What a family cannot come near to is no comparison at equal density.
            if (density - wanted).abs() > FARTHEST * wanted {
                continue;
            }
            let error = against(&qkv, &orders, mask, &dense);
            let (policy, density) = (policy.clone(), *density);
            chosen.push(Chosen { family: family.name, policy, wanted, density, error });
        }
        all.extend(chosen);
    }
    print(&all)?;
    match &args.out {
        Some(folder) => write(folder, &qkv.source, &all),
        None => Ok(()),
    }
}

/// Computes the sparsity error of a mask.
fn against(qkv: &Qkv, orders: &Orders, mask: &BlockMask, dense: &Reference) -> ErrorMeasures {
    let mask = OrderedMask { mask, q_order: &orders.q, kv_order: &orders.kv };
    let scale = qkv.problem().softmax_scale;
    let sparse = attention(qkv, scale, Some(mask), &Arc::clone(&dense.sample), Arithmetic::Float64);
    ErrorMeasures::of(sparse.out.iter().copied().zip(dense.out.iter().copied()))
}

fn print(all: &[Chosen]) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "policy",
        "wanted",
        "density",
        "relative L1",
        "relative RMSE",
        "cosine",
    ]);
    for one in all {
        table.add_row([
            one.policy.clone(),
            output::percent(one.wanted),
            output::percent(one.density),
            format!("{:.4}", one.error.rel_l1),
            format!("{:.4}", one.error.rel_rmse),
            format!("{:.4}", one.error.cosine),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    writeln!(anstream::stdout().lock(), "{}", table.trim_fmt())?;
    Ok(())
}

fn write(folder: &Path, source: &str, all: &[Chosen]) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::write(folder, &e))?;
    let mut text =
        "family,policy,density_wanted,density,sparsity_rel_l1,sparsity_rel_rmse,sparsity_cosine\n".to_owned();
    for Chosen { family, policy, wanted, density, error } in all {
        text += &format!(
            "{family},{policy},{wanted},{density},{},{},{}\n",
            error.rel_l1, error.rel_rmse, error.cosine
        );
    }
    let csv = folder.join(STEM).with_extension("csv");
    std::fs::write(&csv, text).map_err(|e| Failure::write(&csv, &e))?;
    let mut series: Vec<QualitySeries> = Vec::new();
    for one in all {
        let point = (one.density, one.error.rel_rmse);
        match series.last_mut().filter(|last| last.name == one.family) {
            Some(last) => last.points.push(point),
            None => series.push(QualitySeries { name: one.family.to_owned(), points: vec![point] }),
        }
    }
    let files = write_quality(&QualityPlot { input: source.to_owned(), series }, folder, STEM)?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}\n{}\n{}", csv.display(), files.png.display(), files.svg.display())?;
    Ok(())
}
