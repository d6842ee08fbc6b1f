//! Until another process has something to say.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use super::super::DemoError;

/// Whether one of these can be read, or has come to its end, within this time;
/// for ever where there is no limit.
pub(super) fn any_readable(
    these: &[&dyn AsFd],
    within: Option<Duration>,
) -> Result<bool, DemoError> {
    let fds = these
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
    let mut fds: Vec<PollFd<'_>> = fds.collect();
    let within = within.and_then(|within| within.try_into().ok());
    let ready = retry_on_intr(|| poll(&mut fds, within.as_ref())).map_err(io::Error::from)?;
    Ok(ready > 0)
}

/// Whether it can be read now.
pub(super) fn is_readable(this: &dyn AsFd) -> Result<bool, DemoError> {
    any_readable(&[this], Some(Duration::ZERO))
}
