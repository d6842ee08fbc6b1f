//! What came back with a slot: the frame in it, and when it was.

use std::time::Duration;

use crate::frame::Frame;
use crate::sys::v4l2;

/// Which rows of a picture a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// All: it is progressive.
    None,
    /// Every second, from the first on.
    Top,
    /// Every second, from the second on.
    Bottom,
    /// All, of two moments: the rows of the one between those of the other.
    Interlaced,
    /// All, of two moments: the rows of the one after those of the other.
    Sequential,
    /// Top and bottom by turns, each a frame.
    Alternate,
    /// Another order, `V4L2_FIELD_*`.
    Other(u32),
}

impl Field {
    pub(super) fn new(raw: u32) -> Field {
        match raw {
            1 => Field::None,
            2 => Field::Top,
            3 => Field::Bottom,
            4 | 8 | 9 => Field::Interlaced,
            5 | 6 => Field::Sequential,
            7 => Field::Alternate,
            other => Field::Other(other),
        }
    }
}

/// The clock of a time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// CLOCK_MONOTONIC: compare with [`fence::now`](crate::fence::now).
    Monotonic,
    /// None: it is what the frame was given when it was put in, as with a
    /// decoder.
    Copied,
    /// One that the driver does not tell.
    Unknown,
}

/// A frame that the driver is done with: filled by a camera, or put out.
///
/// ```
/// use dmashare::import::v4l2::{Clock, Filled};
/// fn late(filled: &Filled) -> Option<std::time::Duration> {
///     let now = dmashare::fence::now();
///     (filled.clock == Clock::Monotonic).then(|| now.saturating_sub(filled.time))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filled {
    /// Which slot came back: its buffers are the caller's until it is queued
    /// again.
    pub slot: usize,
    /// The frame in them, where the driver put it.
    pub frame: Frame,
    /// How many bytes it wrote into each buffer, or read: up to its end,
    /// whatever lies before the frame included.
    pub bytes: Vec<u32>,
    /// The number of the frame; one that is left out was lost.
    pub sequence: u32,
    /// When it was taken, on [`clock`](Self::clock), in microseconds at best.
    pub time: Duration,
    /// The clock of that.
    pub clock: Clock,
    /// Whether the time is that of its first row and not of its last.
    pub at_start: bool,
    /// Which rows it has.
    pub field: Field,
    /// Whether the driver says that its content is damaged.
    pub damaged: bool,
    /// Whether it is the last before a decoder has nothing more, or a format
    /// changes.
    pub last: bool,
}

impl Filled {
    /// What the kernel says of a slot and its buffers, where the format has
    /// this frame.
    pub(super) fn new(frame: &Frame, buffer: &v4l2::Buffer, planes: &[v4l2::Plane]) -> Filled {
        let mut frame = frame.clone();
        for plane in &mut frame.planes {
            if let Some(found) = planes.get(usize::from(plane.buffer)) {
                plane.offset = plane.offset.saturating_add(found.data_offset);
            }
        }
        Filled {
            slot: buffer.index as usize,
            frame,
            bytes: planes.iter().map(|plane| plane.bytesused).collect(),
            sequence: buffer.sequence,
            time: time(buffer.timestamp),
            clock: match buffer.flags & v4l2::BUF_CLOCK_MASK {
                v4l2::BUF_CLOCK_MONOTONIC => Clock::Monotonic,
                v4l2::BUF_CLOCK_COPY => Clock::Copied,
                _ => Clock::Unknown,
            },
            at_start: buffer.flags & v4l2::BUF_STAMP_MASK == v4l2::BUF_STAMP_START,
            field: Field::new(buffer.field),
            damaged: buffer.flags & v4l2::BUF_ERROR != 0,
            last: buffer.flags & v4l2::BUF_LAST != 0,
        }
    }
}

/// A time stamp that is before its clock's start is none.
fn time(stamp: v4l2::Time) -> Duration {
    let seconds = u64::try_from(stamp.seconds).unwrap_or(0);
    let micros = u64::try_from(stamp.microseconds).unwrap_or(0);
    Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::frame::Fourcc;

    #[test]
    fn what_the_driver_put_before_a_plane_is_in_the_frame() {
        let mut frame = Frame::packed(8, 4, Fourcc::new(*b"NV16")).unwrap();
        frame.planes[1].buffer = 1;
        frame.planes[1].offset = 0;
        let mut buffer = v4l2::Buffer::new(9, v4l2::Memory::DmaBuf, 2);
        buffer.flags = v4l2::BUF_CLOCK_MONOTONIC | v4l2::BUF_STAMP_START | v4l2::BUF_ERROR;
        (buffer.field, buffer.sequence) = (1, 7);
        buffer.timestamp = v4l2::Time {
            seconds: 3,
            microseconds: 500_000,
        };
        let mut planes = [v4l2::Plane::zeroed(); 2];
        (planes[0].data_offset, planes[0].bytesused) = (128, 160);
        planes[1].bytesused = 32;

        let filled = Filled::new(&frame, &buffer, &planes);
        assert_eq!(filled.frame.planes[0].offset, 128);
        assert_eq!(filled.frame.planes[1].offset, 0);
        assert_eq!(filled.bytes, [160, 32]);
        assert_eq!((filled.slot, filled.sequence), (2, 7));
        assert_eq!(filled.time, Duration::from_millis(3500));
        assert_eq!((filled.clock, filled.at_start), (Clock::Monotonic, true));
        assert_eq!(
            (filled.field, filled.damaged, filled.last),
            (Field::None, true, false)
        );
    }

    #[test]
    fn no_time_is_none() {
        let before = v4l2::Time {
            seconds: -1,
            microseconds: -1,
        };
        assert_eq!(time(before), Duration::ZERO);
    }
}
