//! `nabla tune`: the configuration to use for each problem, found and proven; spaces and strategies without a device.

mod device;
pub(crate) mod print;
pub(crate) mod replay;

use crate::{cli::TuneArgs, failure::Failure};

/// Strategies a replay compares where none is named.
const COMPARED: [&str; 2] = ["default", "random"];

/// Prints a space, replays measurements, or tunes, whichever is asked for.
pub(crate) fn run(args: TuneArgs) -> Result<(), Failure> {
    match (&args.search.replay, &args.search.print_space) {
        (Some(file), _) => {
            let strategies = match args.strategy.is_empty() {
                true => COMPARED.map(str::to_owned).to_vec(),
                false => args.strategy.clone(),
            };
            replay::run(&replay::Replay {
                file,
                strategies: &strategies,
                budget: args.search.budget.map(|budget| budget as usize),
                repeats: args.search.repeats as usize,
                seed: args.input.seed,
                out: args.out.as_deref(),
            })
        }
        (None, Some(space)) => print::run(space, &args.search.limits, &args.search.fixed),
        (None, None) => device::run(args),
    }
}
