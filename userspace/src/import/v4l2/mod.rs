//! Frames of cameras and other video devices, through V4L2.
//!
//! A [`Device`] is an open video node. It has a [`Queue`] for what it captures,
//! one for what it puts out, or both. A queue has a [`Format`], whose sizes and
//! strides are the driver's, and becomes a [`Stream`]: slots, each with the
//! buffers of one frame, that go to the driver and come back one by one, with a
//! time stamp. The buffers are dma-bufs from anywhere
//! ([`Queue::stream`]), or the driver's own, exported ([`Queue::export`]).
//!
//! ```no_run
//! // Not run: needs a camera.
//! use std::time::Duration;
//! use dmashare::alloc::{Request, allocate};
//! use dmashare::frame::Fourcc;
//! use dmashare::import::v4l2::{Device, Wanted};
//!
//! let camera = Device::find("vivid", "platform:vivid-000")?.capture()?;
//! let format = camera.set_format(&Wanted::new(640, 360, Fourcc::XRGB8888))?;
//! let request = Request::new(format.sizes[0]).for_device();
//! let buffers = (0..3).map(|_| Ok(vec![allocate(&request)?.buffer]));
//! let buffers = buffers.collect::<Result<Vec<_>, dmashare::alloc::AllocError>>()?;
//!
//! let patience = Some(Duration::from_secs(1));
//! let mut stream = camera.stream(buffers)?;
//! for slot in 0..stream.slots() {
//!     stream.queue(slot, patience)?;
//! }
//! stream.start()?;
//! for _ in 0..100 {
//!     let filled = stream.dequeue(patience)?;
//!     println!("frame {} at {:?}: {:?}", filled.sequence, filled.time, filled.frame);
//!     // stream.buffers(filled.slot) go to a GPU, a screen, another process here.
//!     stream.queue(filled.slot, patience)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Waiting
//! V4L2 knows no fences. [`Stream::queue`] waits for those of the buffers, with
//! a timeout, before the driver gets them; and a buffer that comes back is done,
//! with nothing to wait for. So its time is that of the process: whoever gets it
//! next is told by a message, not by a fence.
//!
//! # A source that is lost or changed
//! A camera whose cable is pulled goes on giving frames, of noise or of one
//! colour. Where the driver tells of it (V4L2_EVENT_SOURCE_CHANGE) a [`Stream`]
//! does: [`Stream::dequeue`] gives [`V4l2Error::SourceChanged`] once for each
//! change, before any later frame, with the state of the input, and goes on when
//! it is called again. [`Device::input`] tells the state at any time, and
//! [`Device::detect_timings`] what a digital source has now. Webcams have no such
//! events, and no signal to lose.
//!
//! # Where it copies
//! Nowhere: the driver writes and reads the buffers where they lie. vivid, which
//! is no hardware, does so with the CPU.
//!
//! # Who takes which memory
//! Hardware behind an IOMMU, and drivers that work with the CPU (vivid), take
//! every dma-buf. Hardware without one takes memory in one piece only
//! ([`V4l2Error::Scattered`]). That is found out by trying alone:
//! [`Queue::takes_scattered`] does so.
//!
//! # Where a frame lies
//! A format of several planes lies in one buffer, its planes one after the other
//! (V4L2's NV12), or each plane in a buffer of its own (V4L2's NV12M): ask with
//! [`Wanted::buffers`]. A frame begins with its buffers: the driver cannot be
//! told of an offset. But it can tell one of its own, where it writes a header
//! before the picture (`data_offset`); [`Filled::frame`] has it.
//!
//! # Sources
//! The kernel's [Video for Linux API][v4l2], with the [streaming of
//! dma-bufs][dmabuf] and the [formats][pixfmt]; `linux/videodev2.h` and
//! `drm_fourcc.h`; for what a driver answers, the kernel's `videobuf2-core.c`,
//! `videobuf2-v4l2.c` and `videobuf2-dma-contig.c`.
//!
//! [v4l2]: https://docs.kernel.org/userspace-api/media/v4l/v4l2.html
//! [dmabuf]: https://docs.kernel.org/userspace-api/media/v4l/dmabuf.html
//! [pixfmt]: https://docs.kernel.org/userspace-api/media/v4l/pixfmt.html

mod control;
mod device;
mod error;
mod filled;
mod format;
mod pixel_format;
mod queue;
mod signal;
mod size;
mod stream;
mod taker;

pub use control::Control;
pub use device::{Capabilities, Device, Direction};
pub use error::V4l2Error;
pub use filled::{Clock, Field, Filled};
pub use format::{Format, Range, Wanted, YuvEncoding};
pub use pixel_format::PixelFormat;
pub use queue::{Interval, Offer, Queue};
pub use signal::{Input, InputStatus, Timings};
pub use size::Sizes;
pub use stream::Stream;
