//! One direction of a device: which frames it has, and which it is to have.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Zeroable;
use rustix::io::{Errno, retry_on_intr};

use super::device::{Inner, text};
use super::{Device, Direction, Format, PixelFormat, Sizes, V4l2Error, Wanted};
use crate::frame::{Fourcc, Frame, LINEAR, Plane};
use crate::import::words;
use crate::sys::v4l2::{self, FormatDescription, FrameSize, StreamParameters};

/// No driver has more of anything; a broken one may never end its list.
const MOST: u32 = 1024;

/// The queue of a device in one direction.
///
/// Its format is the device's, whichever program set it: set it before
/// [`stream`](Self::stream), after which nobody can change it.
///
/// ```no_run
/// // Not run: needs a camera.
/// use dmashare::frame::Fourcc;
/// use dmashare::import::v4l2::{Device, Wanted};
/// let camera = Device::open("/dev/video0")?.capture()?;
/// for offer in camera.formats()? {
///     println!("{}: {}", offer.pixel_format, offer.description);
/// }
/// camera.set_format(&Wanted::new(640, 480, Fourcc::new(*b"YUYV")))?;
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone)]
pub struct Queue {
    pub(super) device: Arc<Inner>,
    pub(super) direction: Direction,
    /// `V4L2_BUF_TYPE_*`
    pub(super) kind: u32,
}

/// A format that a queue offers.
///
/// ```no_run
/// // Not run: needs a camera.
/// # use dmashare::import::v4l2::Device;
/// let offers = Device::open("/dev/video0")?.capture()?.formats()?;
/// let shared = offers.iter().filter(|offer| offer.fourcc.is_some());
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// V4L2's code.
    pub pixel_format: PixelFormat,
    /// What DRM calls it; `None` where it has no name for it, as for what is
    /// compressed.
    pub fourcc: Option<Fourcc>,
    /// What the driver calls it, for people.
    pub description: String,
    /// Whether it is compressed, such as JPEG.
    pub compressed: bool,
    /// Whether the hardware does not have it, and something converts.
    pub emulated: bool,
}

/// How long a frame takes: a fraction of a second.
///
/// ```
/// use std::time::Duration;
/// use dmashare::import::v4l2::Interval;
/// let tv = Interval { numerator: 1001, denominator: 30000 };
/// assert_eq!(tv.duration(), Some(Duration::from_nanos(33_366_666)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    /// Seconds, times the denominator.
    pub numerator: u32,
    /// Parts of a second.
    pub denominator: u32,
}

impl Interval {
    /// The same as a time, rounded down; `None` where the denominator is 0.
    pub fn duration(self) -> Option<Duration> {
        let nanos = u64::from(self.numerator) * 1_000_000_000;
        Some(Duration::from_nanos(
            nanos.checked_div(self.denominator.into())?,
        ))
    }
}

impl Queue {
    pub(super) fn new(device: Arc<Inner>, direction: Direction, kind: u32) -> Queue {
        Queue {
            device,
            direction,
            kind,
        }
    }

    /// The device that it is of.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let camera = Device::open("/dev/video0")?;
    /// assert_eq!(camera.capture()?.device().path(), camera.path());
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn device(&self) -> Device {
        Device(Arc::clone(&self.device))
    }

    /// Whether frames are captured or put out.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether a frame can lie in several buffers.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let webcam = Device::find("uvcvideo", "")?.capture()?;
    /// assert!(!webcam.is_multiplanar());
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn is_multiplanar(&self) -> bool {
        super::format::is_multiplanar(self.kind)
    }

    /// The formats that it offers, in the driver's order.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let offers = Device::open("/dev/video0")?.capture()?.formats()?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn formats(&self) -> Result<Vec<Offer>, V4l2Error> {
        let mut offers = Vec::new();
        for index in 0..MOST {
            let mut found = FormatDescription::zeroed();
            (found.index, found.kind) = (index, self.kind);
            match retry_on_intr(|| v4l2::enumerate_formats(self.device.node(), &mut found)) {
                Ok(()) => {}
                Err(Errno::INVAL) => break,
                Err(errno) => return Err(self.device.failed("ENUM_FMT", errno)),
            }
            let pixel_format = PixelFormat(found.pixelformat);
            offers.push(Offer {
                pixel_format,
                fourcc: pixel_format.fourcc(),
                description: text(&found.description),
                compressed: found.flags & v4l2::FMT_COMPRESSED != 0,
                emulated: found.flags & v4l2::FMT_EMULATED != 0,
            });
        }
        Ok(offers)
    }

    /// The sizes that it has a format in.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::{Device, PixelFormat};
    /// let camera = Device::open("/dev/video0")?.capture()?;
    /// println!("{:?}", camera.sizes(PixelFormat::new(*b"YUYV"))?);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn sizes(&self, format: PixelFormat) -> Result<Sizes, V4l2Error> {
        let mut discrete = Vec::new();
        for index in 0..MOST {
            let mut found = FrameSize::zeroed();
            (found.index, found.pixel_format) = (index, format.0);
            match retry_on_intr(|| v4l2::enumerate_sizes(self.device.node(), &mut found)) {
                Ok(()) => {}
                // A driver need not list them.
                Err(Errno::INVAL | Errno::NOTTY | Errno::NODATA) => break,
                Err(errno) => return Err(self.device.failed("ENUM_FRAMESIZES", errno)),
            }
            let [a, b, c, d, e, f] = found.size;
            match found.kind {
                v4l2::SIZE_DISCRETE => discrete.push((a, b)),
                // There is one of these, and nothing else.
                _ => {
                    return Ok(Sizes::Stepwise {
                        width: a..=b,
                        height: d..=e,
                        step: (c, f),
                    });
                }
            }
        }
        Ok(match discrete.is_empty() {
            true => Sizes::Unknown,
            false => Sizes::Discrete(discrete),
        })
    }

    /// The format that it has now.
    ///
    /// # Errors
    /// [`V4l2Error::NoFrame`] where it is compressed, or otherwise no frame,
    /// and [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let format = Device::open("/dev/video0")?.capture()?.format()?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn format(&self) -> Result<Format, V4l2Error> {
        self.read(&self.raw_format()?)
    }

    pub(super) fn raw_format(&self) -> Result<v4l2::Format, V4l2Error> {
        let mut raw = v4l2::Format::new(self.kind);
        self.device
            .call("G_FMT", |node| v4l2::get_format(node, &mut raw))?;
        Ok(raw)
    }

    /// Sets the format as near to what is wanted as the driver can, and tells
    /// what that is: size and stride can be others. [`set_frame`](Self::set_frame)
    /// takes nothing else.
    ///
    /// # Errors
    /// [`V4l2Error::Format`] where it does not offer the format so,
    /// [`V4l2Error::Busy`] while it streams, [`V4l2Error::NoFrame`], and
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::frame::Fourcc;
    /// # use dmashare::import::v4l2::{Device, Wanted};
    /// let camera = Device::open("/dev/video0")?.capture()?;
    /// let wanted = Wanted::new(640, 480, Fourcc::XRGB8888).stride(4096);
    /// let format = camera.set_format(&wanted)?;
    /// println!("{} bytes a row", format.frame.planes[0].stride);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn set_format(&self, wanted: &Wanted) -> Result<Format, V4l2Error> {
        let mut raw = wanted.raw(self.kind, self.offered(wanted)?);
        self.device
            .call("S_FMT", |node| v4l2::set_format(node, &mut raw))?;
        self.made(wanted, &raw)
    }

    /// What [`set_format`](Self::set_format) would make of this. Nothing is set,
    /// and it can stream meanwhile.
    ///
    /// # Errors
    /// As [`set_format`](Self::set_format), but for [`V4l2Error::Busy`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::frame::Fourcc;
    /// # use dmashare::import::v4l2::{Device, Wanted};
    /// let camera = Device::open("/dev/video0")?.capture()?;
    /// let largest = camera.try_format(&Wanted::new(u32::MAX, u32::MAX, Fourcc::XRGB8888))?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn try_format(&self, wanted: &Wanted) -> Result<Format, V4l2Error> {
        self.try_offered(wanted, self.offered(wanted)?)
    }

    /// The same, of a format that it is known to offer.
    pub(super) fn try_offered(
        &self,
        wanted: &Wanted,
        format: PixelFormat,
    ) -> Result<Format, V4l2Error> {
        let mut raw = wanted.raw(self.kind, format);
        self.device
            .call("TRY_FMT", |node| v4l2::try_format(node, &mut raw))?;
        self.made(wanted, &raw)
    }

    /// Sets the format to this very frame: its size, format, strides and
    /// offsets, and its buffers.
    ///
    /// # Errors
    /// [`V4l2Error::Differs`] says which of these the driver would have
    /// otherwise; those of a frame that cannot be, and those of
    /// [`set_format`](Self::set_format). The format is then another.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::frame::{Fourcc, Frame};
    /// # use dmashare::import::v4l2::Device;
    /// let camera = Device::open("/dev/video0")?.capture()?;
    /// // As the GPU needs it.
    /// let frame = Frame::aligned(640, 480, Fourcc::XRGB8888, 256)?;
    /// camera.set_frame(&frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_frame(&self, frame: &Frame) -> Result<Format, V4l2Error> {
        let differs = |what: String, made: String| V4l2Error::Differs {
            device: self.device.to_string(),
            frame: words(frame),
            what,
            made,
        };
        let of_planes = frame.planes.iter().map(|plane| plane.buffer);
        let buffers = usize::from(of_planes.max().unwrap_or(0)) + 1;
        // Whatever the buffers' sizes are: this finds what can be no frame.
        frame.check(&vec![u64::MAX; buffers])?;
        if frame.modifier != LINEAR {
            return Err(differs("modifier".into(), "linear".into()));
        }
        let wanted = Wanted::new(frame.width, frame.height, frame.fourcc)
            .stride(frame.planes[0].stride)
            .buffers(buffers);
        let format = self.set_format(&wanted)?;
        match difference(frame, &format.frame) {
            Some((what, made)) => Err(differs(what, made.to_string())),
            None => Ok(format),
        }
    }

    /// How long a frame takes; `None` where the driver does not say.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// println!("{:?}", Device::open("/dev/video0")?.capture()?.interval()?);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn interval(&self) -> Result<Option<Interval>, V4l2Error> {
        let mut parameters = StreamParameters::new(self.kind);
        match retry_on_intr(|| v4l2::get_parameters(self.device.node(), &mut parameters)) {
            Ok(()) => Ok(interval(&parameters)),
            Err(Errno::NOTTY) => Ok(None),
            Err(errno) => Err(self.device.failed("G_PARM", errno)),
        }
    }

    /// Sets how long a frame takes as near as the driver can, and tells what
    /// that is; `None` where it cannot be set.
    ///
    /// # Errors
    /// [`V4l2Error::Busy`] while it streams, and [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::{Device, Interval};
    /// let camera = Device::open("/dev/video0")?.capture()?;
    /// camera.set_interval(Interval { numerator: 1, denominator: 30 })?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn set_interval(&self, wanted: Interval) -> Result<Option<Interval>, V4l2Error> {
        let mut parameters = StreamParameters::new(self.kind);
        parameters.numerator = wanted.numerator;
        parameters.denominator = wanted.denominator;
        match retry_on_intr(|| v4l2::set_parameters(self.device.node(), &mut parameters)) {
            Ok(()) => Ok(interval(&parameters)),
            Err(Errno::NOTTY) => Ok(None),
            Err(errno) => Err(self.device.failed("S_PARM", errno)),
        }
    }

    /// The code by which it offers what is wanted, the preferred one.
    fn offered(&self, wanted: &Wanted) -> Result<PixelFormat, V4l2Error> {
        let offers = self.formats()?;
        let suits = |format: &PixelFormat| match wanted.buffers {
            Some(buffers) => format.buffers() == Some(buffers),
            None => true,
        };
        PixelFormat::of(wanted.fourcc)
            .filter(suits)
            .find(|format| offers.iter().any(|offer| offer.pixel_format == *format))
            .ok_or_else(|| self.not_offered(wanted, &offers))
    }

    fn not_offered(&self, wanted: &Wanted, offers: &[Offer]) -> V4l2Error {
        let mut offered = Vec::new();
        for offer in offers {
            let name = match (offer.fourcc, offer.pixel_format.buffers()) {
                (Some(fourcc), Some(1)) => fourcc.to_string(),
                (Some(fourcc), Some(buffers)) => format!("{fourcc} in {buffers} buffers"),
                _ => continue,
            };
            if !offered.contains(&name) {
                offered.push(name);
            }
        }
        V4l2Error::Format {
            device: self.device.to_string(),
            direction: self.direction,
            fourcc: wanted.fourcc,
            buffers: wanted.buffers,
            offered,
        }
    }

    /// The format that a driver made of what was wanted, if it is of the kind:
    /// one that does not know it takes one that it knows.
    fn made(&self, wanted: &Wanted, raw: &v4l2::Format) -> Result<Format, V4l2Error> {
        let format = self.read(raw)?;
        let same_buffers = wanted
            .buffers
            .is_none_or(|count| count == format.sizes.len());
        match format.frame.fourcc == wanted.fourcc && same_buffers {
            true => Ok(format),
            false => Err(self.not_offered(wanted, &self.formats()?)),
        }
    }

    fn read(&self, raw: &v4l2::Format) -> Result<Format, V4l2Error> {
        Format::read(self.kind, raw).map_err(|(format, why)| V4l2Error::NoFrame {
            device: self.device.to_string(),
            format,
            why,
        })
    }
}

fn interval(parameters: &StreamParameters) -> Option<Interval> {
    let said = parameters.capability & v4l2::CAP_TIME_PER_FRAME != 0;
    (said && parameters.denominator != 0).then_some(Interval {
        numerator: parameters.numerator,
        denominator: parameters.denominator,
    })
}

/// What of a frame is otherwise in the driver's, and how.
fn difference(frame: &Frame, made: &Frame) -> Option<(String, u32)> {
    if frame.width != made.width {
        return Some(("width".into(), made.width));
    }
    if frame.height != made.height {
        return Some(("height".into(), made.height));
    }
    type Part = (&'static str, fn(&Plane) -> u32);
    let parts: [Part; 3] = [
        ("stride", |plane| plane.stride),
        ("offset", |plane| plane.offset),
        ("buffer", |plane| plane.buffer.into()),
    ];
    for (at, (ours, theirs)) in frame.planes.iter().zip(&made.planes).enumerate() {
        for (name, part) in parts {
            if part(ours) != part(theirs) {
                return Some((format!("{name} of plane {at}"), part(theirs)));
            }
        }
    }
    None
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Capture => write!(f, "capture of {}", self.device),
            Direction::Output => write!(f, "output of {}", self.device),
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let frame = Frame::packed(64, 32, Fourcc::new(*b"NV12")).unwrap();
        assert_eq!(difference(&frame, &frame), None);
        let other = |change: fn(&mut Frame)| {
            let mut made = frame.clone();
            change(&mut made);
            difference(&frame, &made)
        };
        let named = |what: &str, made| Some((what.to_owned(), made));
        assert_eq!(other(|made| made.width = 48), named("width", 48));
        assert_eq!(other(|made| made.height = 16), named("height", 16));
        assert_eq!(
            other(|made| made.planes[0].stride = 128),
            named("stride of plane 0", 128)
        );
        assert_eq!(
            other(|made| made.planes[1].offset = 4096),
            named("offset of plane 1", 4096)
        );
        assert_eq!(
            other(|made| made.planes[1].buffer = 1),
            named("buffer of plane 1", 1)
        );
    }

    #[test]
    fn an_interval_without_parts_is_none() {
        let interval = |numerator, denominator| Interval {
            numerator,
            denominator,
        };
        assert_eq!(interval(1, 0).duration(), None);
        assert_eq!(interval(1, 25).duration(), Some(Duration::from_millis(40)));
        let all = interval(u32::MAX, 1).duration();
        assert_eq!(all, Some(Duration::from_secs(u32::MAX.into())));
    }
}
