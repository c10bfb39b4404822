//! `nabla profile`: looks into profiles and merges them.

use std::{io::Write, path::Path, sync::Arc};

use comfy_table::{Table, presets};
use nabla_host::{
    Policy,
    backend::{Backend, Orders, Workspace},
    parameters::Parameters,
    profile::{Device, Level, Profile, Shape, Standing},
    variant::MaskBlock,
};
use serde_json::json;

use crate::{
    cli::{ProfileCommand, ProfileLookupArgs},
    failure::Failure,
    input, output,
    tune::standing,
};

/// Runs one of the commands.
pub(crate) fn run(command: &ProfileCommand) -> Result<(), Failure> {
    match command {
        ProfileCommand::Lookup(args) => lookup(args),
        ProfileCommand::Show { file } => show(&Profile::read(file)?),
        ProfileCommand::Merge { files, out } => {
            let mut merged = Profile::default();
            for file in files {
                merged.merge(Profile::read(file)?);
            }
            merged.write(out)?;
            anstream::println!("{} entries in {}", merged.entries.len(), out.display());
            Ok(())
        }
    }
}

/// What a profile says to use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Advice {
    /// The configuration.
    pub(crate) config: Parameters,
    /// How well the profile fits; [`Level::Default`] also where its entry cannot run here.
    pub(crate) level: Level,
    /// Whether it is proven where it was tuned, and by how much.
    pub(crate) standing: Option<String>,
    /// What to tell the user.
    pub(crate) warning: Option<String>,
}

/// Asks a profile what to use on a problem; the default where it knows nothing that runs.
pub(crate) fn advise(
    profile: &Profile,
    backend: &dyn Backend,
    shape: &Shape,
    (problem, block): (&nabla_host::Problem, Option<MaskBlock>),
) -> Advice {
    let found = profile.lookup(&Device::of(backend.device()), shape);
    let default = |warning: Option<String>| Advice {
        config: backend.default_parameters(problem, block),
        level: Level::Default,
        standing: None,
        warning,
    };
    let Some(entry) = found.entry else { return default(found.warning()) };
    match backend.configured(problem, block, &entry.config) {
        Ok(_) => Advice {
            config: entry.config.clone(),
            level: found.level,
            standing: Some(standing(&entry.margin)),
            warning: found.warning(),
        },
        Err(ineligible) => default(Some(format!(
            "the profile's {} cannot run on this problem ({ineligible}): taking the default",
            entry.config
        ))),
    }
}

/// Reads a profile and asks it about a loaded problem and policy.
pub(crate) fn advise_on(
    file: &Path,
    backend: &dyn Backend,
    workspace: &mut dyn Workspace,
    (problem, policy, block): (&nabla_host::Problem, &Policy, MaskBlock),
) -> Result<Advice, Failure> {
    let profile = Profile::read(file)?;
    let mask = match policy.is_dense() {
        true => None,
        false => Some(workspace.build_mask(policy)?.0),
    };
    let shape = Shape::of(problem, mask.as_deref().map(|mask| (block, mask)));
    Ok(advise(&profile, backend, &shape, (problem, mask.as_ref().map(|_| block))))
}

fn lookup(args: &ProfileLookupArgs) -> Result<(), Failure> {
    let qkv = input::load(&args.input)?;
    let backend = input::backend(&args.device)?;
    let problem = qkv.problem();
    let block = MaskBlock::square(args.mask.block);
    let orders = Arc::new(Orders::arranged(&problem, block, &args.mask.policy.arrangement(&problem)?)?);
    let mut workspace = backend.load(qkv, orders)?;
    let of = (&problem, &args.mask.policy, block);
    let advice = advise_on(&args.file, &*backend, &mut *workspace, of)?;
    if args.json {
        anstream::println!(
            "{}",
            json!({"config": advice.config, "level": advice.level, "standing": advice.standing, "warning": advice.warning})
        );
        return Ok(());
    }
    if let Some(warning) = &advice.warning {
        anstream::eprintln!("warning: {warning}");
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "configuration  {}", advice.config)?;
    writeln!(out, "match          {}", advice.level.name())?;
    if let Some(standing) = &advice.standing {
        writeln!(out, "standing       {standing}")?;
    }
    Ok(())
}

fn show(profile: &Profile) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "device",
        "dtype",
        "D",
        "block",
        "tokens",
        "density",
        "overlap",
        "configuration",
        "standing",
        "found by",
    ]);
    for entry in &profile.entries {
        let shape = &entry.shape;
        let block = if shape.q_block == 0 { "dense".to_owned() } else { shape.q_block.to_string() };
        table.add_row([
            format!("{} {}", entry.key.device.backend, entry.key.device.model),
            shape.dtype.to_string(),
            shape.head_dim.to_string(),
            block,
            shape.seqlen.to_string(),
            output::percent(shape.density),
            format!("{:.2}", shape.overlap),
            entry.config.to_string(),
            standing(&entry.margin),
            format!("{}, {} of {}", entry.found.strategy, entry.found.evaluations, entry.found.space),
        ]);
    }
    let proven = profile.entries.iter().filter(|e| e.margin.standing == Standing::Proven).count();
    let mut out = anstream::stdout().lock();
    writeln!(out, "{table}")?;
    writeln!(out, "{} entries, {proven} proven faster than the default", profile.entries.len())?;
    Ok(())
}
