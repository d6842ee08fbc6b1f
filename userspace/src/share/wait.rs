//! Waiting for a socket, at most so long.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::SocketError;
use crate::buffer::describe;

/// Repeats a call until it gives something other than "interrupted" or "not
/// now", waiting in between, and for no longer than `timeout` in all.
///
/// `call` must not block.
pub(super) fn until_ready<T>(
    operation: &'static str,
    fd: BorrowedFd<'_>,
    ready: PollFlags,
    timeout: Option<Duration>,
    mut call: impl FnMut() -> Result<T, Errno>,
) -> Result<T, SocketError> {
    // The clock is asked by who waits: most calls need not.
    let mut begun = None;
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let begun: Instant = *begun.get_or_insert_with(Instant::now);
                let left = timeout.map(|limit| limit.saturating_sub(begun.elapsed()));
                if left == Some(Duration::ZERO) {
                    let after = timeout.unwrap_or_default();
                    return Err(SocketError::Timeout { operation, after });
                }
                // What does not fit a timespec is as good as for ever.
                let left = left.and_then(|left| left.try_into().ok());
                match poll(&mut [PollFd::from_borrowed_fd(fd, ready)], left.as_ref()) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(os("poll", fd)(errno)),
                }
            }
            Err(errno) => return Err(os(operation, fd)(errno)),
            Ok(value) => return Ok(value),
        }
    }
}

/// Turns an errno into an error that names what failed, and on what.
pub(super) fn os(operation: &'static str, fd: BorrowedFd<'_>) -> impl FnOnce(Errno) -> SocketError {
    move |source| SocketError::Os {
        operation,
        name: describe(fd),
        source,
    }
}
