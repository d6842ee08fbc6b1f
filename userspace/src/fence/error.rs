//! What can go wrong with a fence.

use std::time::Duration;

use rustix::io::Errno;

use crate::buffer::BufferError;

/// Why a fence could not be had, passed on or waited for.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::buffer::Access;
/// use dmashare::fence::Fence;
/// let memfd = Memfd::new().allocate(&Request::new(1))?;
/// let error = Fence::export(&memfd, Access::Read).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "/memfd:dmashare is no dma-buf: no device works on it, and it has neither fences nor an exporter"
/// );
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// A system call failed.
    #[error("{name}: {operation} failed: {source}{}", advice(*source))]
    Os {
        /// The system call.
        operation: &'static str,
        /// The fence or the buffer, as the kernel names it.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The buffer is none that has fences.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// The handle is no sync_file.
    #[error("{name} is no fence; pass a sync_file")]
    NotAFence {
        /// The object, as the kernel names it.
        name: String,
    },
    /// The device did not finish its job.
    #[error("{name} failed: {source}; what it was to write is undefined: have it written again")]
    Failed {
        /// The fence, or the buffer.
        name: String,
        /// The driver's word for why.
        source: Errno,
    },
    /// It did not signal in time.
    #[error("{name} has not signalled after {after:?}; wait longer, or give its job up")]
    Timeout {
        /// The fence, or the buffer.
        name: String,
        /// How long was waited.
        after: Duration,
    },
    /// The running kernel does not know this call.
    #[error("this kernel has no {what}; Linux {since} and later have it")]
    Unsupported {
        /// The call.
        what: &'static str,
        /// The first version with it.
        since: &'static str,
    },
    /// The kernel does not take this name.
    #[error("{name:?} cannot name a fence: it has {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More fences in one than anyone needs.
    #[error(
        "{name} holds {count} fences, and {limit} are the most that are looked at; wait for it without"
    )]
    TooMany {
        /// The fence.
        name: String,
        /// How many there are.
        count: u32,
        /// How many are looked at.
        limit: u32,
    },
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE => "; close handles or raise RLIMIT_NOFILE",
        Errno::NOMEM => "; free memory",
        _ => "",
    }
}
