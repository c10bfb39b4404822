//! The one error of this crate: an argument that cannot be computed with.

/// Reports an argument whose size or value a kernel cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A slice has the wrong number of elements.
    #[error("{name}: expected {expected} elements, got {got}")]
    Length {
        /// Name of the argument.
        name: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// A value lies outside what the kernel supports.
    #[error("{name} = {got}: {requirement}")]
    Value {
        /// Name of the argument.
        name: &'static str,
        /// Value given.
        got: String,
        /// What it has to satisfy.
        requirement: String,
    },
    /// The instruction set was asked for but this CPU lacks it.
    #[error("this CPU has no {0}; `nabla info` lists what it has")]
    MissingIsa(&'static str),
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the operating system said.
        reason: String,
    },
}
