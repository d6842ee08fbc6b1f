//! Waiting by poll(2): for a fence, and for a buffer's.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::FenceError;
use crate::buffer::{Access, Buffer, Kind, describe};

/// Waits until a buffer can be accessed so: for reading until devices have
/// written it, for writing until they have also read it. Without a `timeout`,
/// for as long as it takes.
///
/// It is the poll(2) of a dma-buf. Other memory has no fences, and is always
/// ready, so that the same code serves both. An event loop can poll
/// [`Buffer::fd`] itself: `POLLIN` for reading, `POLLOUT` for writing.
///
/// That it is ready does not say that the devices succeeded: see the
/// [module](super#a-fence-that-failed). Nor does it replace the guard, which
/// also makes what they wrote visible to the CPU.
///
/// # Errors
/// [`FenceError::Timeout`], and [`FenceError::Os`].
///
/// ```
/// use std::time::Duration;
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::buffer::Access;
/// let buffer = Memfd::new().allocate(&Request::new(4096))?;
/// dmashare::fence::ready(&buffer, Access::Write, Some(Duration::ZERO))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn ready(buffer: &Buffer, access: Access, timeout: Option<Duration>) -> Result<(), FenceError> {
    if buffer.kind() != Kind::DmaBuf {
        return Ok(());
    }
    let events = match access.writes() {
        true => PollFlags::OUT,
        false => PollFlags::IN,
    };
    wait(buffer.fd()?, events, timeout)
}

/// The time of CLOCK_MONOTONIC, as deadlines and
/// [`signaled_at`](super::PointInfo::signaled_at) count it.
///
/// ```
/// use dmashare::fence::now;
/// let before = now();
/// assert!(now() >= before);
/// ```
pub fn now() -> Duration {
    clock_gettime(ClockId::Monotonic)
        .try_into()
        .expect("CLOCK_MONOTONIC counts from the start of the machine")
}

/// Waits for one of these events, interrupted or not, and for no longer than
/// `timeout` in all.
pub(super) fn wait(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    timeout: Option<Duration>,
) -> Result<(), FenceError> {
    let begun = Instant::now();
    loop {
        let left = timeout.map(|limit| limit.saturating_sub(begun.elapsed()));
        // What does not fit a timespec is as good as for ever.
        let wait = left.and_then(|left| left.try_into().ok());
        let mut fds = [PollFd::from_borrowed_fd(fd, events)];
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) if fds[0].revents().intersects(events) => return Ok(()),
            // Neither ready nor silent: its driver is broken, and would have us
            // spin.
            Ok(1..) => return Err(os("poll", fd)(Errno::IO)),
            Ok(0) | Err(Errno::INTR) if left == Some(Duration::ZERO) => {
                return Err(FenceError::Timeout {
                    name: describe(fd),
                    after: timeout.unwrap_or_default(),
                });
            }
            Ok(0) | Err(Errno::INTR) => {}
            Err(errno) => return Err(os("poll", fd)(errno)),
        }
    }
}

/// Turns an errno into an error that names what failed, and on what.
pub(super) fn os(operation: &'static str, fd: BorrowedFd<'_>) -> impl FnOnce(Errno) -> FenceError {
    move |source| FenceError::Os {
        operation,
        name: describe(fd),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_timeout_is_neither_early_nor_late() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        for millis in [0, 1, 150] {
            let limit = Duration::from_millis(millis);
            let begun = Instant::now();
            let waited = wait(reader.as_fd(), PollFlags::IN, Some(limit));
            assert!(
                matches!(waited, Err(FenceError::Timeout { after, .. }) if after == limit),
                "{waited:?}"
            );
            assert!(begun.elapsed() >= limit);
            assert!(begun.elapsed() < limit + Duration::from_secs(5));
        }
        rustix::io::write(&writer, b"!").unwrap();
        for limit in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            wait(reader.as_fd(), PollFlags::IN, limit).unwrap();
        }
    }

    /// A pipe that hangs up is an event that was not asked for.
    #[test]
    fn what_is_neither_ready_nor_silent_is_an_error() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        let waited = wait(reader.as_fd(), PollFlags::IN, None);
        let source = Errno::IO;
        assert!(
            matches!(waited, Err(FenceError::Os { source: found, .. }) if found == source),
            "{waited:?}"
        );
    }
}
