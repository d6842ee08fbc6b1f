//! The source behind a camera: its inputs, whether they have a signal, and the
//! timings of a digital one.

use bytemuck::Zeroable;
use rustix::io::{Errno, retry_on_intr};

use super::device::{Inner, text};
use super::{Device, V4l2Error};
use crate::sys::v4l2;

bitflags::bitflags! {
    /// Problems of an input's signal, `V4L2_IN_ST_*`; empty where there are none,
    /// or the driver does not look.
    ///
    /// ```
    /// use dmashare::import::v4l2::InputStatus;
    /// assert!(InputStatus::NO_SIGNAL.is_lost());
    /// assert!(!InputStatus::NO_COLOR.is_lost() && !InputStatus::empty().is_lost());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct InputStatus: u32 {
        /// The device at the input is off.
        const NO_POWER = 0x1;
        /// There is no signal.
        const NO_SIGNAL = 0x2;
        /// The signal has no colour.
        const NO_COLOR = 0x4;
        /// Analogue: the rows are not locked to.
        const NO_H_LOCK = 0x100;
        /// Analogue: the colour is switched off.
        const COLOR_KILL = 0x200;
        /// Analogue: the pictures are not locked to.
        const NO_V_LOCK = 0x400;
        /// Analogue: the standard is not known.
        const NO_STD_LOCK = 0x800;
        /// Digital: the signal is not locked to.
        const NO_SYNC = 0x1_0000;
        /// Digital: the equaliser is not locked.
        const NO_EQU = 0x2_0000;
        /// Digital: there is no carrier.
        const NO_CARRIER = 0x4_0000;
        /// The signal is protected by Macrovision.
        const MACROVISION = 0x100_0000;
        /// The signal is scrambled, and not for this device.
        const NO_ACCESS = 0x200_0000;
        /// The signal has the timing of a video recorder.
        const VTR = 0x400_0000;
        /// What later kernels may add.
        const _ = !0;
    }
}

impl InputStatus {
    /// Whether frames of it show nothing of the source.
    pub fn is_lost(self) -> bool {
        self.intersects(
            InputStatus::NO_POWER
                | InputStatus::NO_SIGNAL
                | InputStatus::NO_H_LOCK
                | InputStatus::NO_V_LOCK
                | InputStatus::NO_STD_LOCK
                | InputStatus::NO_SYNC
                | InputStatus::NO_CARRIER
                | InputStatus::NO_ACCESS,
        )
    }
}

/// An input of a camera, as ENUMINPUT gives it.
///
/// ```no_run
/// // Not run: needs a camera.
/// use dmashare::import::v4l2::Device;
/// let input = Device::open("/dev/video0")?.input()?;
/// println!("{} {:?}", input.name, input.status); // HDMI InputStatus(NO_SIGNAL)
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Input {
    /// Its number, for [`Device::set_input`].
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its signal. Only of the [current](Device::input) input every driver tells.
    pub status: InputStatus,
    /// Whether it has digital [timings](Device::timings).
    pub has_timings: bool,
}

/// The timings of a digital signal, as HDMI has them (`struct v4l2_bt_timings`).
///
/// ```no_run
/// // Not run: needs an HDMI receiver.
/// use dmashare::import::v4l2::Device;
/// let device = Device::open("/dev/video0")?;
/// let timings = device.detect_timings()?;
/// println!("{}x{}", timings.width(), timings.height());
/// device.set_timings(&timings)?; // then set the format, and make a stream
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings(v4l2::DvTimings);

impl Timings {
    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.0.width
    }

    /// Rows of a picture.
    pub fn height(&self) -> u32 {
        self.0.height
    }

    /// Whether a picture comes in two fields.
    pub fn is_interlaced(&self) -> bool {
        self.0.interlaced != 0
    }

    /// Pixels a second, blanking included, in Hz.
    pub fn pixel_clock(&self) -> u64 {
        self.0.pixel_clock()
    }
}

/// A change of the source that a stream was told of (V4L2_EVENT_SOURCE_CHANGE).
pub(super) struct Change {
    pub(super) resolution: bool,
}

impl Device {
    /// All inputs, in order.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`] for a device without inputs.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let inputs = Device::open("/dev/video0")?.inputs()?;
    /// let digital = inputs.iter().find(|input| input.has_timings);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn inputs(&self) -> Result<Vec<Input>, V4l2Error> {
        let mut inputs = Vec::new();
        loop {
            let number = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
            match self.0.input(number) {
                Ok(input) => inputs.push(input),
                Err(Errno::INVAL) if !inputs.is_empty() => return Ok(inputs),
                Err(errno) => return Err(self.0.failed("ENUMINPUT", errno)),
            }
        }
    }

    /// The input that it captures from, with the state of its signal now. Frames
    /// come also without a signal; [`Stream::dequeue`](super::Stream::dequeue)
    /// reports a change.
    ///
    /// # Errors
    /// As [`inputs`](Self::inputs).
    pub fn input(&self) -> Result<Input, V4l2Error> {
        self.0.current_input()
    }

    /// The timings that the current input is set to (G_DV_TIMINGS).
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`], as for an input without timings.
    ///
    /// ```no_run
    /// // Not run: needs an HDMI receiver.
    /// # use dmashare::import::v4l2::Device;
    /// let set = Device::open("/dev/video0")?.timings()?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn timings(&self) -> Result<Timings, V4l2Error> {
        let mut timings = v4l2::DvTimings::zeroed();
        self.0
            .call("G_DV_TIMINGS", |node| v4l2::get_timings(node, &mut timings))?;
        Ok(Timings(timings))
    }

    /// The timings that the source has now (QUERY_DV_TIMINGS), which need not be
    /// those that are set.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`]: `ENOLINK` without a signal, `ENOLCK` for one that is
    /// not stable, `ERANGE` for one that the device does not take.
    pub fn detect_timings(&self) -> Result<Timings, V4l2Error> {
        let timings = self.0.call("QUERY_DV_TIMINGS", v4l2::query_timings)?;
        Ok(Timings(timings))
    }

    /// Sets the timings of the current input, which can change its format.
    ///
    /// # Errors
    /// [`V4l2Error::Busy`] while there is a stream, and [`V4l2Error::Ioctl`].
    pub fn set_timings(&self, timings: &Timings) -> Result<(), V4l2Error> {
        let mut timings = timings.0;
        self.0
            .call("S_DV_TIMINGS", |node| v4l2::set_timings(node, &mut timings))
    }
}

impl Inner {
    fn input(&self, number: u32) -> Result<Input, Errno> {
        let mut input = v4l2::Input::zeroed();
        input.index = number;
        retry_on_intr(|| v4l2::enumerate_inputs(self.node(), &mut input))?;
        Ok(Input {
            number,
            name: text(&input.name),
            status: InputStatus::from_bits_retain(input.status),
            has_timings: input.capabilities & v4l2::IN_CAP_DV_TIMINGS != 0,
        })
    }

    pub(super) fn current_input(&self) -> Result<Input, V4l2Error> {
        let mut number = 0;
        self.call("G_INPUT", |node| v4l2::get_input(node, &mut number))?;
        let input = self.input(number);
        input.map_err(|errno| self.failed("ENUMINPUT", errno))
    }

    /// Has the kernel tell of changes of the source from now on; whether this
    /// driver does.
    pub(super) fn watch_source(&self) -> bool {
        // The current input is what a camera's change is of.
        let mut number = 0;
        if retry_on_intr(|| v4l2::get_input(self.node(), &mut number)).is_err() {
            return false;
        }
        let subscribed = retry_on_intr(|| v4l2::subscribe_source(self.node(), number));
        // One of before is of the past.
        while subscribed.is_ok() && matches!(self.source_change(), Ok(Some(_))) {}
        subscribed.is_ok()
    }

    /// A change of the source that was not told yet.
    pub(super) fn source_change(&self) -> Result<Option<Change>, V4l2Error> {
        match retry_on_intr(|| v4l2::dequeue_event(self.node())) {
            Ok(event) if event.kind == v4l2::EVENT_SOURCE_CHANGE => Ok(Some(Change {
                resolution: event.changes() & v4l2::SOURCE_RESOLUTION != 0,
            })),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("DQEVENT", errno)),
        }
    }
}
