//! `nabla tune`: spaces and strategies.

pub(crate) mod print;
pub(crate) mod replay;

use crate::{
    cli::TuneArgs,
    failure::{Failure, Kind},
};

/// Prints a space or replays measurements, whichever is asked for.
pub(crate) fn run(args: &TuneArgs) -> Result<(), Failure> {
    match (&args.search.replay, &args.search.print_space) {
        (Some(file), _) => replay::run(&replay::Replay {
            file,
            strategies: &args.strategy,
            budget: args.search.budget.map(|budget| budget as usize),
            repeats: args.search.repeats as usize,
            seed: args.seed,
            out: args.out.as_deref(),
        }),
        (None, Some(space)) => print::run(space, &args.search.limits, &args.search.fixed),
        (None, None) => {
            let message = "expected --replay FILE or --print-space [NAME|FILE.toml], got neither";
            Err(Failure::new(Kind::Usage, message))
        }
    }
}
