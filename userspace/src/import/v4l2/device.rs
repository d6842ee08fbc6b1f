//! An open video node, and what it says that it can.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::io::{Errno, retry_on_intr};

use super::error::QUERYCAP;
use super::{Queue, V4l2Error};
use crate::alloc::node;
use crate::negotiate::Taker;
use crate::sys::v4l2;

const DIRECTORY: &str = "/dev";

bitflags::bitflags! {
    /// What a node can, of all that V4L2 has: `V4L2_CAP_*`.
    ///
    /// ```
    /// use dmashare::import::v4l2::Capabilities;
    /// let camera = Capabilities::CAPTURE | Capabilities::STREAMING;
    /// assert!(camera.contains(Capabilities::STREAMING));
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// It captures, into one buffer a frame.
        const CAPTURE = 0x1;
        /// It puts out, from one buffer a frame.
        const OUTPUT = 0x2;
        /// It captures by the multi-planar API: a frame can lie in several
        /// buffers.
        const CAPTURE_MPLANE = 0x1000;
        /// It puts out by the multi-planar API.
        const OUTPUT_MPLANE = 0x2000;
        /// It makes captured pictures of those put out, by the multi-planar
        /// API: a scaler, an encoder, a decoder.
        const M2M_MPLANE = 0x4000;
        /// The same, from one buffer a frame into one.
        const M2M = 0x8000;
        /// read(2) and write(2) of frames, which copy.
        const READ_WRITE = 0x0100_0000;
        /// Queues of buffers, which all of this module needs.
        const STREAMING = 0x0400_0000;
    }
}

/// From the device, or to it.
///
/// ```
/// use dmashare::import::v4l2::Direction;
/// assert_eq!(Direction::Output.to_string(), "put out");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device writes frames: a camera.
    Capture,
    /// The device reads frames.
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Capture => "capture",
            Direction::Output => "put out",
        })
    }
}

/// An open node of a video device, such as /dev/video0.
///
/// Opening takes nothing: any number of programs can have it open, and one at a
/// time streams from each of its queues. Queues and streams keep it open.
///
/// ```no_run
/// // Not run: needs a video device.
/// use dmashare::import::v4l2::Device;
/// for node in Device::nodes()? {
///     println!("{}", Device::open(&node)?); // /dev/video0 (vivid, platform:vivid-000)
/// }
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone)]
pub struct Device(pub(super) Arc<Inner>);

/// What queues and streams hold on to.
pub(super) struct Inner {
    file: File,
    path: PathBuf,
    driver: String,
    card: String,
    bus_info: String,
    capabilities: Capabilities,
    /// Whether a stream of this file has the queue, which the kernel would let
    /// another of the same file take away: of capture and of output.
    pub(super) streaming: [AtomicBool; 2],
}

impl Device {
    /// The video nodes that are there, in order.
    ///
    /// # Errors
    /// [`V4l2Error::Open`] where /dev cannot be read.
    ///
    /// ```
    /// use dmashare::import::v4l2::Device;
    /// for node in Device::nodes()? {
    ///     assert!(node.starts_with("/dev"));
    /// }
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn nodes() -> Result<Vec<PathBuf>, V4l2Error> {
        node::numbered(DIRECTORY, "video").map_err(|source| V4l2Error::Open {
            path: DIRECTORY.into(),
            source,
        })
    }

    /// Opens a video device by its node.
    ///
    /// # Errors
    /// [`V4l2Error::Open`], and [`V4l2Error::Ioctl`] where it is no video
    /// device.
    ///
    /// ```
    /// use dmashare::import::v4l2::{Device, V4l2Error};
    /// let error = Device::open("/dev/video999").unwrap_err();
    /// assert!(matches!(error, V4l2Error::Open { .. }));
    /// let error = Device::open("/dev/null").unwrap_err();
    /// assert!(matches!(error, V4l2Error::Ioctl { operation: "QUERYCAP", .. }));
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Device, V4l2Error> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        // Otherwise DQBUF waits, and for ever where a driver has lost its
        // signal.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        options.read(true).write(true).custom_flags(nonblock);
        let file = options.open(path).map_err(|source| V4l2Error::Open {
            path: path.to_owned(),
            source,
        })?;
        let capability =
            retry_on_intr(|| v4l2::capability(file.as_fd())).map_err(|errno| V4l2Error::Ioctl {
                operation: QUERYCAP,
                device: path.display().to_string(),
                source: errno.into(),
            })?;
        let bits = match capability.capabilities & v4l2::CAP_DEVICE_CAPS {
            0 => capability.capabilities,
            _ => capability.device_caps,
        };
        Ok(Device(Arc::new(Inner {
            file,
            path: path.to_owned(),
            driver: text(&capability.driver),
            card: text(&capability.card),
            bus_info: text(&capability.bus_info),
            capabilities: Capabilities::from_bits_truncate(bits),
            streaming: Default::default(),
        })))
    }

    /// Opens the first device with this driver, such as `vivid` or `uvcvideo`,
    /// whose bus or card is called `place`, such as `platform:vivid-000`; any
    /// place where that is empty.
    ///
    /// # Errors
    /// [`V4l2Error::NoDevice`] with the devices that are there instead, and why
    /// any did not open.
    ///
    /// ```
    /// use dmashare::import::v4l2::{Device, V4l2Error};
    /// let error = Device::find("no-such-driver", "").unwrap_err();
    /// assert!(matches!(error, V4l2Error::NoDevice { .. }));
    /// ```
    pub fn find(driver: &str, place: &str) -> Result<Device, V4l2Error> {
        Device::find_with(driver, place, Capabilities::empty())
    }

    /// As [`find`](Self::find), the first that also can all of this: a driver
    /// mostly has several nodes at a place.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    ///
    /// ```no_run
    /// // Not run: needs a video device.
    /// use dmashare::import::v4l2::{Capabilities, Device};
    /// let screen = Device::find_with("vivid", "platform:vivid-003", Capabilities::OUTPUT)?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn find_with(
        driver: &str,
        place: &str,
        capabilities: Capabilities,
    ) -> Result<Device, V4l2Error> {
        let mut found = Vec::new();
        for node in Device::nodes()? {
            match Device::open(&node) {
                Ok(device) => {
                    let there =
                        place.is_empty() || [device.bus_info(), device.card()].contains(&place);
                    let can = device.capabilities().contains(capabilities);
                    if device.driver() == driver && there && can {
                        return Ok(device);
                    }
                    found.push(format!("{device}, {}", words(device.capabilities())));
                }
                Err(error) => found.push(error.to_string()),
            }
        }
        let mut wanted = format!("with the driver {driver}");
        if !place.is_empty() {
            wanted += &format!(" at {place}");
        }
        if !capabilities.is_empty() {
            wanted += &format!(" and {}", words(capabilities));
        }
        Err(V4l2Error::NoDevice { wanted, found })
    }

    /// The name of its driver, as VIDIOC_QUERYCAP gives it.
    ///
    /// ```no_run
    /// // Not run: needs a video device.
    /// # use dmashare::import::v4l2::Device;
    /// assert_eq!(Device::find("vivid", "")?.driver(), "vivid");
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// The name of the product, such as `Logitech Webcam C920`.
    pub fn card(&self) -> &str {
        &self.0.card
    }

    /// Where it is plugged in, such as `usb-0000:00:14.0-1` or
    /// `platform:vivid-000`.
    pub fn bus_info(&self) -> &str {
        &self.0.bus_info
    }

    /// The node it was opened by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What this node can.
    ///
    /// ```no_run
    /// // Not run: needs a video device.
    /// # use dmashare::import::v4l2::{Capabilities, Device};
    /// let camera = Device::open("/dev/video0")?;
    /// assert!(camera.capabilities().contains(Capabilities::STREAMING));
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    /// Its queue of captured frames.
    ///
    /// # Errors
    /// [`V4l2Error::Direction`] where it has none that streams.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let formats = Device::open("/dev/video0")?.capture()?.formats()?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn capture(&self) -> Result<Queue, V4l2Error> {
        self.queue(Direction::Capture)
    }

    /// Its queue of frames to put out.
    ///
    /// # Errors
    /// [`V4l2Error::Direction`] where it has none that streams.
    ///
    /// ```no_run
    /// // Not run: needs a video output.
    /// # use dmashare::import::v4l2::Device;
    /// let formats = Device::open("/dev/video1")?.output()?.formats()?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn output(&self) -> Result<Queue, V4l2Error> {
        self.queue(Direction::Output)
    }

    /// Its queue in one direction.
    ///
    /// # Errors
    /// As [`capture`](Self::capture) and [`output`](Self::output).
    ///
    /// ```
    /// use dmashare::import::v4l2::{Device, Direction, Queue, V4l2Error};
    /// fn of(device: &Device, direction: Direction) -> Result<Queue, V4l2Error> {
    ///     device.queue(direction)
    /// }
    /// ```
    pub fn queue(&self, direction: Direction) -> Result<Queue, V4l2Error> {
        let kind = match direction {
            Direction::Capture => capture_kind(self.0.capabilities),
            Direction::Output => output_kind(self.0.capabilities),
        };
        match kind {
            Some(kind) if self.0.capabilities.contains(Capabilities::STREAMING) => {
                Ok(Queue::new(Arc::clone(&self.0), direction, kind))
            }
            _ => Err(V4l2Error::Direction {
                device: self.to_string(),
                wanted: direction,
                has: words(self.0.capabilities),
            }),
        }
    }

    /// What its queue of captured frames can take, or that of frames to put out
    /// where it captures none: see [`Queue::taker`].
    ///
    /// # Errors
    /// [`V4l2Error::Direction`] where it has neither, and those of
    /// [`Queue::taker`].
    ///
    /// ```no_run
    /// // Not run: needs a video device.
    /// # use dmashare::import::v4l2::Device;
    /// println!("{:?}", Device::open("/dev/video0")?.taker()?);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn taker(&self) -> Result<Taker, V4l2Error> {
        match self.capture() {
            Err(V4l2Error::Direction { .. }) => self.output()?.taker(),
            queue => queue?.taker(),
        }
    }

    /// Chooses the input that it captures from, from 0: the first is mostly the
    /// camera itself.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`] where there is no such input, and
    /// [`V4l2Error::Busy`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// Device::open("/dev/video0")?.set_input(0)?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn set_input(&self, input: u32) -> Result<(), V4l2Error> {
        let mut input = input;
        self.0
            .call("S_INPUT", |node| v4l2::set_input(node, &mut input))
    }

    /// Chooses the output that it puts frames out to, from 0.
    ///
    /// # Errors
    /// As [`set_input`](Self::set_input).
    ///
    /// ```no_run
    /// // Not run: needs a video output.
    /// # use dmashare::import::v4l2::Device;
    /// Device::open("/dev/video1")?.set_output(0)?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn set_output(&self, output: u32) -> Result<(), V4l2Error> {
        let mut output = output;
        self.0
            .call("S_OUTPUT", |node| v4l2::set_output(node, &mut output))
    }
}

fn capture_kind(has: Capabilities) -> Option<u32> {
    if has.intersects(Capabilities::CAPTURE_MPLANE | Capabilities::M2M_MPLANE) {
        Some(v4l2::VIDEO_CAPTURE_MPLANE)
    } else if has.intersects(Capabilities::CAPTURE | Capabilities::M2M) {
        Some(v4l2::VIDEO_CAPTURE)
    } else {
        None
    }
}

fn output_kind(has: Capabilities) -> Option<u32> {
    if has.intersects(Capabilities::OUTPUT_MPLANE | Capabilities::M2M_MPLANE) {
        Some(v4l2::VIDEO_OUTPUT_MPLANE)
    } else if has.intersects(Capabilities::OUTPUT | Capabilities::M2M) {
        Some(v4l2::VIDEO_OUTPUT)
    } else {
        None
    }
}

/// Capabilities, for messages.
fn words(capabilities: Capabilities) -> String {
    let names: Vec<String> = capabilities
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase().replace('_', " "))
        .collect();
    match names.is_empty() {
        true => "none of pictures".to_owned(),
        false => names.join(", "),
    }
}

/// A name that the driver gives, up to its NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    let word = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

impl Inner {
    pub(super) fn node(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// An ioctl, interrupted or not; its error with its name and the device's.
    pub(super) fn call<T>(
        &self,
        operation: &'static str,
        mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, V4l2Error> {
        retry_on_intr(|| call(self.node())).map_err(|errno| self.failed(operation, errno))
    }

    pub(super) fn failed(&self, operation: &'static str, errno: Errno) -> V4l2Error {
        match errno {
            Errno::BUSY => V4l2Error::Busy {
                operation,
                device: self.to_string(),
            },
            errno => V4l2Error::Ioctl {
                operation,
                device: self.to_string(),
                source: io::Error::from(errno),
            },
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            path,
            driver,
            bus_info,
            ..
        } = self;
        write!(f, "{} ({driver}, {bus_info})", path.display())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_that_of_the_api_which_the_node_speaks() {
        let kinds = |has| (capture_kind(has), output_kind(has));
        let cases = [
            (Capabilities::CAPTURE, (Some(1), None)),
            (Capabilities::OUTPUT, (None, Some(2))),
            (Capabilities::CAPTURE_MPLANE, (Some(9), None)),
            (Capabilities::OUTPUT_MPLANE, (None, Some(10))),
            (Capabilities::M2M, (Some(1), Some(2))),
            (Capabilities::M2M_MPLANE, (Some(9), Some(10))),
            (Capabilities::STREAMING, (None, None)),
        ];
        for (has, expected) in cases {
            assert_eq!(kinds(has), expected, "{has:?}");
        }
    }

    /// A node that is no file at all, and one that is no video device.
    #[test]
    fn names_end_where_the_driver_ended_them() {
        assert_eq!(text(b"vivid\0\0\0rest"), "vivid");
        assert_eq!(text(b"full"), "full");
        assert_eq!(text(b""), "");
    }
}
