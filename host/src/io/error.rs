//! What can be wrong with an input file, each with one message: what was expected, what was got, what to do.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::Grid;

/// An input that cannot be read: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct InputError {
    /// The file or folder as it was named.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: InputFault,
}

impl InputError {
    pub(crate) fn new(path: &Path, fault: impl Into<InputFault>) -> Self {
        Self { path: path.to_owned(), fault: fault.into() }
    }
}

/// What is wrong with an input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputFault {
    /// Nothing has this name.
    #[error("no such file; check the path")]
    NotFound,
    /// The file may not be read.
    #[error("no permission to read it; change its mode or owner")]
    Denied,
    /// A device, pipe or socket.
    #[error("expected a regular file, got a {0}; copy its content to a file first")]
    NotAFile(&'static str),
    /// The operating system failed to read it.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// No bytes at all.
    #[error("expected tensors q, k, v, got an empty file; write it again")]
    Empty,
    /// Neither safetensors nor npz nor npy.
    #[error(
        "expected a safetensors file, an .npz archive or a folder with q.npy, k.npy, v.npy, got {got}; convert it to one of these"
    )]
    UnknownFormat {
        /// The first bytes, or the kind of file they tell of.
        got: String,
    },
    /// The container contradicts itself or ends early.
    #[error("broken {format}: expected {expected}, got {got}; {help}")]
    Broken {
        /// The format it should have, or the part of a file that should have one.
        format: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// A tensor of the three is not there.
    #[error("expected tensors q, k, v, got no '{tensor}' ({}); rename or add it", Names(found))]
    MissingTensor {
        /// The one that is missing.
        tensor: &'static str,
        /// The tensors that are there.
        found: Vec<String>,
    },
    /// Numbers of a type that is not read.
    #[error("tensor '{tensor}': expected {expected}, got {got}; {help}")]
    Unsupported {
        /// Which tensor.
        tensor: &'static str,
        /// What is read.
        expected: &'static str,
        /// What the file holds.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// Not four (or three) extents of at least 1.
    #[error(
        "tensor '{tensor}': expected shape [B,H,S,D] (or [H,S,D] for one batch), every extent at least 1, got {shape:?}; reshape or transpose it"
    )]
    Shape {
        /// Which tensor.
        tensor: &'static str,
        /// Its extents as declared.
        shape: Vec<u64>,
    },
    /// Two tensors do not belong together.
    #[error(
        "expected '{a}' and '{b}' to agree in {what}, got {a_is} and {b_is}; write both for the same problem"
    )]
    Disagree {
        /// One tensor.
        a: &'static str,
        /// The other.
        b: &'static str,
        /// What must be the same.
        what: &'static str,
        /// What one has.
        a_is: String,
        /// What the other has.
        b_is: String,
    },
    /// More than the limit, or than memory can address.
    #[error("expected q, k and v of at most {limit} bytes together, got {got}; {help}")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
        /// The size declared.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// More tokens than indices of 32 bits can tell apart.
    #[error("tensor '{tensor}': expected at most 4294967295 tokens, got {seqlen}; cut it to fewer frames")]
    TooManyTokens {
        /// Which tensor.
        tensor: &'static str,
        /// Its tokens.
        seqlen: usize,
    },
    /// A NaN or an infinity.
    #[error(
        "tensor '{tensor}': expected finite numbers, got {value}{narrowed} at [b,h,s,d] = {index:?} (element {position}); attention over it is undefined, repair what wrote it"
    )]
    NotFinite {
        /// Which tensor.
        tensor: &'static str,
        /// NaN, inf or -inf.
        value: f32,
        /// Empty, or that the file has float64, of which large numbers become infinite.
        narrowed: &'static str,
        /// The first place it stands at.
        index: [usize; 4],
        /// The same place, counted in elements from the start.
        position: usize,
    },
    /// The grid has not as many tokens as the tensors.
    #[error("expected a grid of {seqlen} tokens as tensor '{tensor}' has, got {grid} ({origin}) = {} tokens; give the right one by --grid T,H,W", grid.tokens())]
    Grid {
        /// The tensor whose tokens were counted.
        tensor: &'static str,
        /// Its tokens.
        seqlen: usize,
        /// The grid.
        grid: Grid,
        /// Where the grid stood.
        origin: &'static str,
    },
    /// A metadata entry this project reads, with a value it cannot use.
    #[error("metadata '{key}': expected {expected}, got '{got}'; {help}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        got: String,
        /// What to do.
        help: &'static str,
    },
}

impl From<io::Error> for InputFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error),
        }
    }
}

/// Shows a list of names, and of a long one the first few: a hostile file may hold millions.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("there are none at all");
        }
        f.write_str("there are ")?;
        for (i, name) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}'{}'", if i == 0 { "" } else { ", " }, excerpt(name))?;
        }
        if self.0.len() > SHOWN { write!(f, " and {} more", self.0.len() - SHOWN) } else { Ok(()) }
    }
}

/// Shortens text from a file to what a message can carry, with control characters escaped.
pub(crate) fn excerpt(text: &str) -> String {
    excerpt_of(text, 60)
}

/// Shortens text to a number of characters of its own.
pub(crate) fn excerpt_of(text: &str, shown: usize) -> String {
    let mut short = String::new();
    for c in text.chars().take(shown) {
        if c.is_control() { short.extend(c.escape_default()) } else { short.push(c) }
    }
    if text.chars().nth(shown).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_errors_say_what_to_do() {
        let message = |kind| InputError::new(Path::new("a.safetensors"), io::Error::from(kind)).to_string();
        assert_eq!(message(io::ErrorKind::NotFound), "a.safetensors: no such file; check the path");
        let denied = "a.safetensors: no permission to read it; change its mode or owner";
        assert_eq!(message(io::ErrorKind::PermissionDenied), denied);
        assert!(message(io::ErrorKind::TimedOut).contains("cannot be read"));
    }

    #[test]
    fn hostile_names_are_shortened_and_escaped() {
        let found = vec!["\u{1b}[31m".to_owned(), "x".repeat(1000)];
        let message = InputFault::MissingTensor { tensor: "q", found }.to_string();
        assert!(message.len() < 250 && !message.contains('\u{1b}'), "{message}");
        let many = InputFault::MissingTensor { tensor: "q", found: vec!["k".into(); 1000] }.to_string();
        assert!(many.contains("and 992 more"), "{many}");
    }
}
