//! What the kernel says of a fence.

use std::time::Duration;

use rustix::io::Errno;

use crate::sys::sync_file;

/// How it stands with a fence.
///
/// ```
/// use dmashare::fence::Status;
/// assert!(!Status::Pending.is_over());
/// assert!(Status::Failed(dmashare::Errno::NODEV).is_over());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The job goes on, or has not begun.
    Pending,
    /// The job is done.
    Signaled,
    /// The job was given up, and this is why.
    Failed(Errno),
}

impl Status {
    /// Whether nothing is left to wait for.
    pub fn is_over(self) -> bool {
        self != Status::Pending
    }

    /// From the kernel's number: 1, 0, or an errno below 0.
    pub(super) fn from_raw(status: i32) -> Status {
        match status {
            0 => Status::Pending,
            1.. => Status::Signaled,
            errno @ -4095..0 => Status::Failed(Errno::from_raw_os_error(-errno)),
            // No errno: it failed, and why is not known.
            ..-4095 => Status::Failed(Errno::IO),
        }
    }

    /// That of two together: over when both are, and failed if one did.
    fn and(self, other: Status) -> Status {
        match (self, other) {
            (Status::Pending, _) | (_, Status::Pending) => Status::Pending,
            (Status::Failed(errno), _) | (_, Status::Failed(errno)) => Status::Failed(errno),
            (Status::Signaled, Status::Signaled) => Status::Signaled,
        }
    }
}

/// What a [`Fence`](super::Fence) is made of: `SYNC_IOC_FILE_INFO`.
///
/// ```no_run
/// // Not run: needs a fence.
/// # fn f(fence: &dmashare::fence::Fence) -> Result<(), dmashare::fence::FenceError> {
/// for point in fence.info()?.fences {
///     println!("{} of {}: {:?}", point.timeline, point.driver, point.status);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceInfo {
    /// The name given to [`merge`](super::Fence::merge), or one that the kernel
    /// made up of its driver and timeline. Whoever passed it may have named it.
    pub name: String,
    /// That of all its fences together.
    pub status: Status,
    /// Each of them.
    pub fences: Vec<PointInfo>,
}

/// One driver's fence: a point on one of its timelines.
///
/// After it has signalled, Linux 7 no longer tells whose it was: its driver and
/// timeline are then `detached-driver` and `signaled-timeline`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PointInfo {
    /// The driver's name.
    pub driver: String,
    /// The timeline's, as the driver calls it.
    pub timeline: String,
    /// How it stands.
    pub status: Status,
    /// When it signalled, on CLOCK_MONOTONIC; see [`now`](super::now()).
    pub signaled_at: Option<Duration>,
}

impl PointInfo {
    fn from_raw(raw: &sync_file::FenceInfo) -> PointInfo {
        let status = Status::from_raw(raw.status);
        PointInfo {
            driver: text(&raw.driver_name),
            timeline: text(&raw.obj_name),
            status,
            signaled_at: status
                .is_over()
                .then(|| Duration::from_nanos(raw.timestamp_ns)),
        }
    }
}

impl FenceInfo {
    pub(super) fn from_raw(whole: &sync_file::FileInfo, points: &[sync_file::FenceInfo]) -> Self {
        let fences: Vec<PointInfo> = points.iter().map(PointInfo::from_raw).collect();
        // Not the kernel's own word for the whole, which is "failed" where one
        // failed and others are pending.
        let all = fences.iter().map(|point| point.status);
        FenceInfo {
            name: text(&whole.name),
            status: all
                .reduce(Status::and)
                .unwrap_or(Status::from_raw(whole.status)),
            fences,
        }
    }
}

/// A name up to its NUL; all of it, where there is none.
pub(super) fn text(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number() {
        assert_eq!(Status::from_raw(0), Status::Pending);
        assert_eq!(Status::from_raw(1), Status::Signaled);
        assert_eq!(Status::from_raw(-62), Status::Failed(Errno::TIME));
        // Numbers that no errno has: not a panic.
        for odd in [i32::MIN, -4096, -100_000] {
            assert!(matches!(Status::from_raw(odd), Status::Failed(_)), "{odd}");
        }
    }

    #[test]
    fn the_whole_is_over_when_all_are() {
        let (pending, signaled) = (Status::Pending, Status::Signaled);
        let failed = Status::Failed(Errno::IO);
        for (one, other, both) in [
            (signaled, signaled, signaled),
            (signaled, pending, pending),
            (failed, pending, pending),
            (pending, failed, pending),
            (failed, signaled, failed),
            (signaled, failed, failed),
        ] {
            assert_eq!(one.and(other), both, "{one:?} {other:?}");
        }
    }

    #[test]
    fn names_end_at_a_nul() {
        assert_eq!(text(b"vgem\0\0junk"), "vgem");
        assert_eq!(text(b"\0"), "");
        assert_eq!(text(b"no end"), "no end");
        assert_eq!(text(b"\xff\0"), "\u{fffd}");
    }
}
