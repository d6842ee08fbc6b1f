//! When a frame is to be shown.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// When a frame is to be shown, and its place in the stream: what GStreamer
/// knows of a buffer beside its memory. `None` is what it does not know.
///
/// Times are those of `CLOCK_MONOTONIC` (clock_gettime(2)), the same in all
/// processes of a machine; GStreamer turns them into times of its pipeline.
///
/// ```
/// use std::time::Duration;
/// use dmashare::share::gstreamer::Stamp;
/// let now = Stamp::now();
/// let later = Stamp { duration: Some(Duration::from_millis(40)), ..Stamp::now() };
/// assert!(later.pts >= now.pts);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When it is to be shown (`pts`), at most 584 years from the clock's start.
    pub pts: Option<Duration>,
    /// When it is to be decoded (`dts`): of no use for a picture as such.
    pub dts: Option<Duration>,
    /// For how long it is to be shown.
    pub duration: Option<Duration>,
    /// Its number in the stream, from where it came: a camera's sequence number.
    pub offset: Option<u64>,
    /// The number of the frame after it.
    pub offset_end: Option<u64>,
    /// `GstBufferFlags`: 0x40 (`DISCONT`) for the first frame after a gap.
    pub flags: u32,
}

impl Stamp {
    /// To be shown now.
    pub fn now() -> Stamp {
        let now = clock_gettime(ClockId::Monotonic);
        // Neither is negative: it counts from when the machine was started.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
        Stamp {
            pts: Some(Duration::new(seconds, nanoseconds)),
            ..Stamp::default()
        }
    }
}
