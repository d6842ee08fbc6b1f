//! What can go wrong with an allocation.

use std::fmt::Write as _;

use rustix::io::Errno;

use super::Way;
use crate::buffer::BufferError;

/// Why there is no buffer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// 0 bytes were asked for.
    #[error("a buffer of 0 bytes cannot be; ask for 1 or more")]
    Empty,
    /// More was asked for than there is, or than one is allowed.
    #[error("{size} bytes are more than {of}, {limit} bytes; ask for less, or raise that")]
    TooLarge {
        /// What was asked for, in bytes.
        size: u64,
        /// The most that could be, in bytes.
        limit: u64,
        /// Whose limit it is.
        of: &'static str,
    },
    /// The kernel does not take this name.
    #[error("{name:?} cannot name a buffer: it has {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A buffer for a device was asked of a way that has none.
    #[error("no device can import what {0} allocates; ask dma_heap, udmabuf or module")]
    NotForDevices(Way),
    /// The kernel refused.
    #[error("{name}: {operation}: {source}{}{help}", if help.is_empty() { "" } else { "; " })]
    Os {
        /// The call that failed.
        operation: &'static str,
        /// The device node or file, or the name of the buffer.
        name: String,
        /// What the kernel said.
        source: Errno,
        /// What would help, where this crate knows.
        help: String,
    },
    /// The new buffer is not what it should be.
    #[error("the new buffer cannot be used: {0}")]
    Buffer(#[from] BufferError),
    /// No way could do what was asked.
    #[error("no way to allocate can do this here:{}", list(.0))]
    NoWay(Vec<(Way, AllocError)>),
}

fn list(passed_over: &[(Way, AllocError)]) -> String {
    passed_over
        .iter()
        .fold(String::new(), |mut lines, (way, reason)| {
            let _ = write!(lines, "\n  {way}: {reason}");
            lines
        })
}
