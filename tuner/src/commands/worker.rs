//! `nabla worker`: measures for another process of this program.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    cli::{DeviceArgs, ErrorArgs, InputArgs, WorkerArgs},
    failure::{Failure, Kind},
    input,
    worker::{Inputs, Start, confine, die_with_parent, serve},
};

/// Serves until stdin ends.
pub(crate) fn run(args: &WorkerArgs) -> Result<(), Failure> {
    die_with_parent();
    let qkv = input::load(&args.input)?;
    let backend = input::backend(&args.device)?;
    // A driver takes what it takes; what a problem adds is bounded.
    if backend.device().backend == "cpu" {
        confine(args.memory_mib)?;
    }
    let inputs = Inputs {
        qkv,
        error_rows: args.errors.error_rows,
        seed: args.input.seed,
        ordinal: args.device.device,
        peers: args.peers,
    };
    serve(&*backend, &inputs, io::stdin().lock(), io::stdout())
}

/// Says how to start a worker with the same input and device.
pub(crate) fn start(
    program: Option<&Path>,
    (input, device, errors): (&InputArgs, &DeviceArgs, ErrorArgs),
    peers: u32,
) -> Result<Start, Failure> {
    let program = match program {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()
            .map_err(|e| Failure::new(Kind::Device, format!("cannot find this program's own file: {e}")))?,
    };
    let mut arguments: Vec<OsString> = vec!["worker".into()];
    let mut option = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            // One word: a value may start with a dash.
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            arguments.push(word);
        }
    };
    let text = |value: Option<String>| value.map(OsString::from);
    option("input", input.input.clone().map(PathBuf::into_os_string));
    option("generate", text(input.generate.as_ref().map(ToString::to_string)));
    option("grid", text(input.grid.map(|grid| grid.to_string())));
    option("dtype", text(input.dtype.map(|dtype| dtype.to_string())));
    option("seed", text(Some(input.seed.to_string())));
    let name =
        |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| value().map(|v| v.get_name().to_owned());
    option("backend", text(name(&|| device.backend.to_possible_value())));
    option("device", text(Some(device.device.to_string())));
    option("kernel-cache", device.kernel_cache.clone().map(PathBuf::into_os_string));
    option("threads", text(device.threads.map(|n| n.to_string())));
    option("isa", text(device.isa.and_then(|isa| name(&|| isa.to_possible_value()))));
    option("error-rows", text(errors.error_rows.map(|n| n.to_string())));
    option("peers", text((peers > 0).then(|| peers.to_string())));
    if device.no_pin {
        arguments.push("--no-pin".into());
    }
    Ok(Start { program, arguments, environment: Vec::new(), patience: Duration::from_secs(120) })
}
