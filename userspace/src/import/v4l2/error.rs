//! What can go wrong between a frame and a video device.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::{Direction, InputStatus, PixelFormat};
use crate::buffer::BufferError;
use crate::fence::FenceError;
use crate::frame::{Fourcc, FrameError};
use crate::import::HandleError;

/// Why a video device could not be opened, or could not take or give a frame.
///
/// A device is named by its node, driver and place, as in
/// `/dev/video0 (vivid, platform:vivid-000)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum V4l2Error {
    /// The node does not open.
    #[error("{}: {source}{}", path.display(), open_advice(source))]
    Open {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No device has this driver and place.
    #[error(
        "no video device {wanted}; there is: {}; load the driver with modprobe, or name another",
        if found.is_empty() { "none under /dev".to_owned() } else { found.join(", ") }
    )]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// The devices that are there, and why one did not open.
        found: Vec<String>,
    },
    /// An ioctl failed.
    #[error("{device}: {operation} failed: {source}{}", advice(operation, source))]
    Ioctl {
        /// The ioctl, without its `VIDIOC_`.
        operation: &'static str,
        /// The device.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The source of a camera was lost, came back, or has other timings. The
    /// stream goes on: frames that come from now on are of what there is.
    #[error(
        "{device}: the source changed: {}; {}",
        signal(*status),
        match resolution {
            true => "stop, detect its timings, and make a stream of its new format",
            false => "look at its cable, or dequeue again to go on",
        }
    )]
    SourceChanged {
        /// The device.
        device: String,
        /// The signal of the input now.
        status: InputStatus,
        /// Whether the resolution may be another.
        resolution: bool,
    },
    /// The device has no such queue of pictures.
    #[error("{device} does not {wanted} pictures by streaming: it has {has}; name another node")]
    Direction {
        /// The device.
        device: String,
        /// What was asked for.
        wanted: Direction,
        /// The capabilities that it has.
        has: String,
    },
    /// The device does not offer this format.
    #[error(
        "{device} does not {direction} format {fourcc}{}; it offers {}", in_buffers(*buffers),
        if offered.is_empty() { "none that DRM has a name for".to_owned() } else { offered.join(", ") }
    )]
    Format {
        /// The device.
        device: String,
        /// The queue.
        direction: Direction,
        /// The format, as DRM calls it.
        fourcc: Fourcc,
        /// In how many buffers it was to lie, if that was said.
        buffers: Option<usize>,
        /// The formats it offers instead, as DRM calls them.
        offered: Vec<String>,
    },
    /// The device's format is none that a [`Frame`](crate::frame::Frame) can
    /// describe.
    #[error("{device} has format {format}, which is no frame: {why}; set another")]
    NoFrame {
        /// The device.
        device: String,
        /// V4L2's code.
        format: PixelFormat,
        /// What is wrong with it.
        why: String,
    },
    /// The device takes the format, but not this frame of it.
    #[error("{device} does not take {frame}: its {what} would be {made}; share the frame so")]
    Differs {
        /// The device.
        device: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What differs: modifier, width, height, stride, offset or number of
        /// buffers.
        what: String,
        /// What the device would have.
        made: String,
    },
    /// A program streams from this queue.
    #[error(
        "{device}: {operation}: the queue is in use, by another program or another stream of this \
         one; end that first"
    )]
    Busy {
        /// The ioctl, without its `VIDIOC_`.
        operation: &'static str,
        /// The device.
        device: String,
    },
    /// The queue does not take others' dma-bufs, or has none of its own.
    #[error("{device} has no {memory} buffers{}", memory_advice(memory))]
    Memory {
        /// The device.
        device: String,
        /// `DMABUF` or `MMAP`.
        memory: &'static str,
    },
    /// The driver has fewer slots than are asked for.
    #[error("{device} has {given} slots for buffers where {wanted} were asked for; take so many")]
    Slots {
        /// The device.
        device: String,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        given: u32,
    },
    /// There is no such slot, or it is not the caller's now.
    #[error("{device}: slot {slot} {problem}")]
    Slot {
        /// The device.
        device: String,
        /// The slot, from 0.
        slot: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A slot has not as many buffers as a frame has.
    #[error("{device}: slot {slot} has {given} buffers, but a frame lies in {wanted}")]
    Buffers {
        /// The device.
        device: String,
        /// The slot, from 0.
        slot: usize,
        /// How many it has.
        given: usize,
        /// In how many the format has a frame.
        wanted: usize,
    },
    /// Two planes would be written over each other.
    #[error(
        "{device}: buffers {} and {} of slot {slot} are one dma-buf, and both would begin with it; \
         give each plane its own, or take a format that lies in one buffer", pair.0, pair.1
    )]
    Same {
        /// The device.
        device: String,
        /// The slot, from 0.
        slot: usize,
        /// Which of its buffers.
        pair: (usize, usize),
    },
    /// A buffer has no room for what the device puts there.
    #[error("{device}: {name} has {size} bytes, but the device needs {needed}; allocate as many")]
    Small {
        /// The device.
        device: String,
        /// The buffer, as the kernel names it.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// What the format needs, in bytes.
        needed: u64,
    },
    /// The buffer is none that any device imports.
    #[error("this buffer cannot be queued: {0}")]
    Handle(#[from] HandleError),
    /// The kernel would not say what a buffer is.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// The device could not map the buffer, though it is large enough.
    #[error(
        "{device} does not take {name}: QBUF failed: {source}; the device takes contiguous memory \
         only, and this lies scattered (or its exporter lets no driver map it): allocate \
         contiguous memory, or take the device's own buffers"
    )]
    Scattered {
        /// The device.
        device: String,
        /// The buffer, as the kernel names it.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The fences of a buffer could not be waited for.
    #[error("{device}: waiting for a buffer before it is queued: {source}")]
    Fence {
        /// The device.
        device: String,
        /// What was waited for, and how it ended.
        source: FenceError,
    },
    /// Nothing will come: no slot is with the driver, or it was not started.
    #[error("{device}: {problem}, so no frame will come")]
    Idle {
        /// The device.
        device: String,
        /// What is missing.
        problem: &'static str,
    },
    /// No frame came in time.
    #[error("{device}: no frame has come in {after:?}; wait longer, or look at its signal")]
    Timeout {
        /// The device.
        device: String,
        /// How long was waited.
        after: Duration,
    },
    /// The device has no such control, or it takes no such value.
    #[error("{device}: control {control}: {problem}")]
    Control {
        /// The device.
        device: String,
        /// Its name, or its id where it has none.
        control: String,
        /// What is wrong.
        problem: String,
    },
    /// The description of a frame is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn in_buffers(buffers: Option<usize>) -> String {
    buffers.map_or(String::new(), |count| format!(" in {count} buffers"))
}

fn open_advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "; plug the device in, or load its driver with modprobe",
        Some(Errno::ACCESS) => "; add yourself to group video or run as root",
        Some(Errno::BUSY) => "; another program has it: end that first",
        _ => "",
    }
}

fn memory_advice(memory: &str) -> &'static str {
    match memory {
        "DMABUF" => ": it takes its own memory only; export that, and share it",
        _ => ": give it dma-bufs",
    }
}

/// A status in words.
fn signal(status: InputStatus) -> String {
    let names: Vec<String> = status
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase().replace('_', " "))
        .collect();
    match names.is_empty() {
        true => "there is a signal".to_owned(),
        false => names.join(", "),
    }
}

fn advice(operation: &str, error: &io::Error) -> &'static str {
    match (operation, Errno::from_io_error(error)) {
        (QUERYCAP, Some(Errno::NOTTY)) => "; it is no video device",
        (_, Some(Errno::NOTTY)) => "; this driver has no such call",
        (EXPBUF, Some(Errno::INVAL)) => "; this driver exports no buffers: give it dma-bufs",
        (STREAMON, Some(Errno::INVAL | Errno::NOLINK)) => {
            "; queue more buffers first, or look at its input"
        }
        (STREAMON, Some(Errno::PIPE)) => "; its parts have other formats: link and set them first",
        (DQBUF, Some(Errno::IO)) => "; the signal is lost, or the device is broken: stop and start",
        (DQBUF, Some(Errno::PIPE)) => "; that was the last frame",
        ("QUERY_DV_TIMINGS", Some(Errno::NOLINK)) => "; there is no signal: look at the cable",
        ("QUERY_DV_TIMINGS", Some(Errno::NOLCK)) => "; the signal is not stable: try again",
        ("QUERY_DV_TIMINGS", Some(Errno::RANGE)) => "; the device takes no such signal",
        (_, Some(Errno::NODATA)) => "; this input has no such thing: see Device::inputs",
        (_, Some(Errno::NODEV)) => "; it was unplugged",
        (_, Some(Errno::NOMEM)) => "; free memory, or take fewer or smaller buffers",
        _ => "",
    }
}

pub(super) const QUERYCAP: &str = "QUERYCAP";
pub(super) const EXPBUF: &str = "EXPBUF";
pub(super) const STREAMON: &str = "STREAMON";
pub(super) const DQBUF: &str = "DQBUF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_ioctl_device_and_errno_and_says_what_to_do() {
        let error = V4l2Error::Ioctl {
            operation: EXPBUF,
            device: "/dev/video0 (vivid, platform:vivid-000)".into(),
            source: Errno::INVAL.into(),
        };
        let error = error.to_string();
        for part in ["EXPBUF", "platform:vivid-000", "os error 22", "exports no"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_format_that_is_not_offered_says_what_is() {
        let error = V4l2Error::Format {
            device: "/dev/video0 (vivid, platform:vivid-000)".into(),
            direction: Direction::Capture,
            fourcc: Fourcc::new(*b"NV12"),
            buffers: Some(2),
            offered: vec!["XR24".into(), "YUYV".into()],
        };
        assert_eq!(
            error.to_string(),
            "/dev/video0 (vivid, platform:vivid-000) does not capture format NV12 in 2 buffers; \
             it offers XR24, YUYV"
        );
    }
}
