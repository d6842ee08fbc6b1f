//! Passing handles: what a frame is, how its description travels, and the
//! socket that carries both.
//!
//! - [`Frame`] describes a picture in buffers: plain data.
//! - [`codec`] is its form on the wire, documented byte by byte.
//! - [`Socket`] passes a frame and the handles of its buffers to another
//!   process, and believes nothing that comes from there.
//!
//! ```
//! use dmashare::alloc::{Request, allocate};
//! use dmashare::buffer::Access;
//! use dmashare::share::{Fourcc, Frame, Socket};
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
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod codec;
mod error;
mod frame;
mod listener;
mod socket;
mod wait;

pub use error::SocketError;
pub use frame::{Fourcc, Frame, FrameError, INVALID, LINEAR, MAX_PLANES, Plane};
pub use listener::Listener;
pub use socket::Socket;
