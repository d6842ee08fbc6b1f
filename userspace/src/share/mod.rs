//! Passing buffers: messages, how they are written, and the socket that carries
//! them and the handles.
//!
//! - [`Frame`] describes a picture in buffers: plain data.
//! - A [`Message`] holds frames, the buffers they lie in, and bytes of the user.
//! - [`codec`] is its form on the wire, documented byte by byte.
//! - [`Socket`] passes messages and the handles of their buffers to another
//!   process, and believes nothing that comes from there; a [`Listener`] waits
//!   for such a process at an [`Address`], and a [`Policy`] says which may come.
//! - [`plain`] passes handles alone, as a textbook program in C does.
//! - [`gstreamer`] lends frames to GStreamer's `unixfdsrc`, and borrows those of
//!   its `unixfdsink`.
//! - `tokio` (feature `tokio`) is the same for asynchronous tasks.
//! - [`Process`] takes a handle from a process that does not pass it.
//!
//! ```
//! use dmashare::alloc::{Request, allocate};
//! use dmashare::buffer::Access;
//! use dmashare::share::{Draft, Fourcc, Frame, Socket};
//!
//! let (producer, consumer) = Socket::pair()?; // or Listener::bind, Socket::connect
//!
//! let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
//! let made = allocate(&Request::new(frame.size_of_buffer(0)?))?;
//! producer.send(&frame, &[&made.buffer])?;
//!
//! let (frame, buffers) = consumer.recv()?;
//! let mapping = buffers[0].map(Access::Read)?;
//! assert!(mapping.size() >= frame.size_of_buffer(0)?);
//!
//! // The other way: bytes of no form.
//! consumer.send_message(&Draft::new().payload(b"shown"))?;
//! assert_eq!(producer.recv_message()?.payload, b"shown");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod arrival;
mod closing;
pub mod codec;
mod error;
pub mod gstreamer;
mod handles;
mod incoming;
mod listener;
mod message;
mod outgoing;
mod peer;
pub mod plain;
mod policy;
mod process;
mod socket;
mod socket_file;
#[cfg(feature = "tokio")]
pub mod tokio;
mod transport;
mod wait;

pub use address::Address;
pub use error::{Breakage, SocketError};
pub use listener::Listener;
pub use message::{Draft, Message};
pub use peer::Peer;
pub use policy::Policy;
pub use process::{Process, ProcessError};
pub use socket::Socket;
pub use transport::Transport;

pub use crate::frame::{Fourcc, Frame, FrameError, INVALID, LINEAR, MAX_PLANES, Plane};
