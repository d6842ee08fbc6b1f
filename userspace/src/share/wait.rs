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
    let call = |_: &mut Again| call();
    until_ready_or_again(operation, fd, ready, timeout, call)
}

/// When to repeat a call whose socket is not ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Again {
    /// At the latest after so long.
    pub(super) within: Option<Duration>,
    /// After so long whatever poll(2) says: the socket is ready all the time.
    pub(super) sleep: Option<Duration>,
}

/// The same, where the call can say when it is to be repeated, whatever becomes
/// of the socket.
pub(super) fn until_ready_or_again<T>(
    operation: &'static str,
    fd: BorrowedFd<'_>,
    ready: PollFlags,
    timeout: Option<Duration>,
    mut call: impl FnMut(&mut Again) -> Result<T, Errno>,
) -> Result<T, SocketError> {
    // The clock is asked by who waits: most calls need not.
    let mut begun = None;
    loop {
        let mut again = Again::default();
        match call(&mut again) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let begun: Instant = *begun.get_or_insert_with(Instant::now);
                let left = timeout.map(|limit| limit.saturating_sub(begun.elapsed()));
                if left == Some(Duration::ZERO) {
                    let after = timeout.unwrap_or_default();
                    return Err(SocketError::Timeout { operation, after });
                }
                let left = left.into_iter().chain(again.within).min();
                if let Some(sleep) = again.sleep {
                    let left = left.into_iter().chain([sleep]).min();
                    std::thread::sleep(left.unwrap_or(sleep));
                    continue;
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
