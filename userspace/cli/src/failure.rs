//! How a command ends that could not do what was asked.

use std::io;
use std::process::ExitCode;

use dmashare::alloc::AllocError;

/// Why, in a line for standard error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked cannot be: exit status 2.
    Usage(String),
    /// It could be, but was not: exit status 1.
    Failed(String),
    /// Whoever reads our output has read enough: no failure of ours.
    Enough,
}

impl Failure {
    pub(crate) fn usage(line: impl Into<String>) -> Failure {
        Failure::Usage(line.into())
    }

    pub(crate) fn failed(line: impl Into<String>) -> Failure {
        Failure::Failed(line.into())
    }

    /// Of an allocation: what can never be is wrong usage.
    pub(crate) fn alloc(error: AllocError) -> Failure {
        match error {
            AllocError::Empty
            | AllocError::TooLarge { .. }
            | AllocError::Name { .. }
            | AllocError::Cannot { .. }
            | AllocError::PrivateKey { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        }
    }

    /// Of a write to standard output.
    pub(crate) fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Enough,
            _ => Failure::Failed(format!("cannot write: {error}")),
        }
    }

    /// What there is to say.
    pub(crate) fn line(&self) -> Option<&str> {
        match self {
            Failure::Usage(line) | Failure::Failed(line) => Some(line),
            Failure::Enough => None,
        }
    }

    pub(crate) fn status(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Failed(_) => ExitCode::FAILURE,
            Failure::Enough => ExitCode::SUCCESS,
        }
    }
}

/// Whatever the library or the system says: the command failed.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.to_string())
    }
}
