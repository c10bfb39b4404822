//! Why there is no space.

use std::path::PathBuf;

/// Why a space cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpaceError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}; expected a TOML file with [axes]", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{place}: {message}")]
    Invalid {
        /// FILE:LINE:COLUMN, or the constraint of a built-in space.
        place: String,
        /// What was expected and what is there.
        message: String,
    },
    /// Too many points to number.
    #[error(
        "the space '{name}' has more than {most} {what}; expected fewer: add constraints, put axes that constraints \
         use first, or take values away"
    )]
    TooLarge {
        /// Name of the space.
        name: String,
        /// What is counted.
        what: &'static str,
        /// The bound.
        most: u64,
    },
    /// Nothing satisfies the constraints.
    #[error("the space '{name}' has no feasible point: {reasons}")]
    Empty {
        /// Name of the space.
        name: String,
        /// What took the points away.
        reasons: String,
    },
}
