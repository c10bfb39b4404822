//! How the program fails: one message, one documented exit code.

use std::{fmt, io, path::Path, process::ExitCode};

use nabla_host::{
    ParseError, backend::BackendError, check::CheckError, codegen::BuildError, io::InputError,
    policy::PolicyError, profile::ProfileError,
};
use nabla_reports::{MaskPictureError, ReadError, ReportError};
use owo_colors::OwoColorize;

use crate::search::{replay::ReplayError, space::SpaceError};

/// What went wrong, by exit code. Bad usage is 2, given by the argument parser itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Options that fit each other but not this problem (exit code 2).
    Usage = 2,
    /// An input file, policy or record file cannot be used (exit code 3).
    Input = 3,
    /// The device is missing or gave out (exit code 4).
    Device = 4,
    /// A kernel's output missed its error budget (exit code 5).
    Incorrect = 5,
    /// A result could not be written (exit code 6).
    Output = 6,
    /// A device kernel could not be built (exit code 7).
    Build = 7,
    /// Something is slower than it was, and again when asked afresh (exit code 8).
    Slower = 8,
    /// Ctrl-C; what is finished is kept (exit code 130).
    Interrupted = 130,
}

/// One failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    broken_pipe: bool,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), broken_pipe: false }
    }

    /// Makes the failure of another process of this program from its exit code.
    pub(crate) fn of_code(code: u8, message: impl fmt::Display) -> Self {
        let kinds = [Kind::Usage, Kind::Input, Kind::Device, Kind::Incorrect, Kind::Output, Kind::Build];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == code);
        Self::new(kind.unwrap_or(Kind::Device), message)
    }

    /// Tells that Ctrl-C was pressed.
    pub(crate) fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted; what is finished is kept")
    }

    /// Says whether it is an interruption.
    pub(crate) fn is_interruption(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.message = format!("{}: {hint}", self.message);
        self
    }

    /// Tells of a result that could not be written.
    pub(crate) fn write(path: &Path, error: &io::Error) -> Self {
        Self::new(Kind::Output, format!("cannot write {}: {error}", path.display()))
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// Returns the exit code as a number.
    pub(crate) fn code(&self) -> u8 {
        self.kind as u8
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Returns the coloured word before a message.
pub(crate) fn label() -> impl fmt::Display {
    format!("{}", "error:".red().bold())
}

impl From<io::Error> for Failure {
    /// Only writing to stdout fails without a path.
    fn from(error: io::Error) -> Self {
        let broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self { kind: Kind::Output, message: format!("cannot write to stdout: {error}"), broken_pipe }
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::new(Kind::Input, error)
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let kind = match error {
            ProfileError::Io { action: "write", .. } => Kind::Output,
            _ => Kind::Input,
        };
        Self::new(kind, error)
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::new(Kind::Input, error)
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::new(Kind::Usage, error)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Policy(error) => error.into(),
            error @ BackendError::Build { .. } => Self::new(Kind::Build, error),
            BackendError::Ineligible(error) => Self::new(Kind::Usage, error),
            other => Self::new(Kind::Device, other),
        }
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Device(error) => error.into(),
            CheckError::Case(error) => error.into(),
            error @ CheckError::NotClean { .. } => Self::new(Kind::Incorrect, error),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let kind = match error {
            BuildError::UnknownArch { .. } => Kind::Usage,
            BuildError::Prebuilt(_) | BuildError::Sources(_) => Kind::Input,
            BuildError::Cache(_) => Kind::Output,
            _ => Kind::Build,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(Kind::Input, error)
    }
}

impl From<SpaceError> for Failure {
    fn from(error: SpaceError) -> Self {
        Self::new(Kind::Input, error)
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        Self::new(Kind::Input, error)
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        Self::new(Kind::Output, error)
    }
}

impl From<MaskPictureError> for Failure {
    fn from(error: MaskPictureError) -> Self {
        let kind = match error {
            MaskPictureError::NotPng { .. } => Kind::Usage,
            _ => Kind::Output,
        };
        Self::new(kind, error)
    }
}
