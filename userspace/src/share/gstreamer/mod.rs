//! Frames to and from GStreamer: the protocol of its elements `unixfdsink` and
//! `unixfdsrc` (GStreamer 1.24 and later), in both roles.
//!
//! - A [`Sink`] is what `unixfdsink` is: it listens, and lends frames to whoever
//!   connects, such as `gst-launch-1.0 unixfdsrc socket-path=PATH ! …`.
//! - A [`Source`] is what `unixfdsrc` is: it connects to an `unixfdsink` and
//!   borrows its frames, each until it is dropped.
//! - [`Caps`] say what the frames are, in GStreamer's words.
//!
//! Nothing is copied: the memory is that of memfds or dma-bufs, whose handles
//! pass over a UNIX socket. Nothing that comes from there is believed: what a
//! handle is and how large, the kernel says; every offset, stride and product is
//! checked in `u64`; a message has a bound; and what comes with a message that
//! is refused is closed.
//!
//! ```
//! use dmashare::alloc::{Allocate, Memfd, Request};
//! use dmashare::share::gstreamer::{Caps, Sink, SinkEvent, Source, Stamp};
//! use dmashare::share::{Fourcc, Frame};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("frames");
//!
//! let frame = Frame::packed(64, 32, Fourcc::XRGB8888)?;
//! let buffer = Memfd::new().allocate(&Request::new(frame.size_of_buffer(0)?))?;
//! let mut sink = Sink::bind(&path, &Caps::of(&frame)?)?;
//!
//! let mut source = Source::connect(&path)?; // or `unixfdsrc socket-path=…`
//! sink.send(7, &frame, &[&buffer], &Stamp::now())?;
//! let borrowed = source.recv()?.expect("this stream has not ended");
//! assert_eq!(borrowed.frame, frame);
//!
//! drop(borrowed);
//! assert!(matches!(sink.event()?, SinkEvent::Connected(_)));
//! assert!(matches!(sink.event()?, SinkEvent::Free(7)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The format
//! Over a `SOCK_STREAM` socket go commands in the byte order of the machine: a
//! `u32` type, a `u32` with the length of what follows, and that.
//!
//! | type | from | what follows |
//! | --- | --- | --- |
//! | 0, a buffer | sink | `u64` id, pts, dts, duration, offset, offset end; `u32` flags; `u8` 1 for dma-bufs, else 0; `u8` count of memories; `u16` count of metas; of each memory `u64` size and offset; the metas. Its handles come with the first byte, one a memory. |
//! | 1, a release | source | `u64` id of the buffer |
//! | 2, caps | sink | the caps as text, with a NUL at the end |
//! | 3, the end | sink | nothing |
//!
//! Other types are ignored. A meta is, in little endian, a `u32` with its whole
//! length, a `u32` with the length of its name, the name with a NUL, a `u8`
//! version, and its content. Only `GstVideoMeta` matters here, where strides and
//! offsets are: `i32` flags and format, `u32` width, height and count of planes,
//! of each plane a `u64` offset, then of each an `i32` stride, and alignments.
//!
//! # Sources
//! `gst-plugins-bad/gst/unixfd/gstunixfd.c`, `gstunixfdsink.c` and
//! `gstunixfdsrc.c` of [GStreamer](https://gitlab.freedesktop.org/gstreamer/gstreamer);
//! `gst_meta_serialize` of its `gstmeta.c`, `video_meta_serialize` of
//! `gstvideometa.c`, `fill_planes` of `video-info.c` for layouts that are not
//! told, and `video-info-dma.c` for `drm-format`.

mod caps;
mod command;
mod error;
mod format;
mod payload;
mod place;
mod sink;
mod source;
mod stamp;
#[cfg(test)]
mod tests;

pub use caps::{Caps, CapsError};
pub use command::MAX_PAYLOAD;
pub use error::GstreamerError;
pub use sink::{MAX_CLIENTS, Sink, SinkEvent};
pub use source::{Borrowed, Source, SourceEvent};
pub use stamp::Stamp;
