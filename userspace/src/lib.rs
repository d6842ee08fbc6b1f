//! Share a buffer by its handle, not by copying it: between processes, and
//! between processes and devices.
//!
//! A producer allocates a buffer, writes a picture into it, and passes the
//! handle with a description of the picture to a consumer, who never sees a
//! copy: it maps the same memory, or hands it to a GPU or a display.
//!
//! ```
//! use dmashare::alloc::{Request, allocate};
//! use dmashare::buffer::Access;
//! use dmashare::share::{Fourcc, Frame, Socket};
//!
//! let (to_consumer, from_producer) = Socket::pair()?;
//!
//! // The producer. For a device to import it, ask `for_device()`.
//! let frame = Frame::packed(64, 32, Fourcc::XRGB8888)?;
//! let request = Request::new(frame.size_of_buffer(0)?).named("picture");
//! let buffer = allocate(&request)?.buffer;
//! let mut mapping = buffer.map(Access::Write)?;
//! let mut guard = mapping.access(Access::Write)?;
//! guard.write_rows(frame.rows(0)?, &[0x80; 64 * 32 * 4])?;
//! guard.finish()?;
//! to_consumer.send(&frame, &[&buffer])?;
//!
//! // The consumer, in another process as a rule.
//! let (frame, buffers) = from_producer.recv()?;
//! let mut mapping = buffers[0].map(Access::Read)?;
//! let mut picture = vec![0; 64 * 32 * 4];
//! mapping.access(Access::Read)?.read_rows(frame.rows(0)?, &mut picture)?;
//! assert!(picture.iter().all(|byte| *byte == 0x80));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From low to high, and a module uses only those above it:
//! - [`buffer`]: what a shared buffer is, its mapping, and the guard that every
//!   access of the CPU lives in; sealed memory, which needs none. Feature
//!   `vm-memory` lends a mapping to programs around the crate of that name.
//! - [`frame`]: what picture lies in it: size, format, planes.
//! - [`fence`]: when devices are done with a dma-buf.
//! - [`alloc`]: the ways to allocate one, and the probe that tells which of
//!   them work here.
//! - [`share`]: passing buffers, frames and bytes in messages, to a peer who is
//!   believed nothing. Feature `tokio` has the same for tasks.
//! - [`negotiate`]: what each taker of a buffer can take, and what suits them all.
//! - `import`: handing a frame to a device, one feature a device API: `drm`,
//!   `egl`, `gbm`, `v4l2`, `vulkan`. Without features the crate needs no C
//!   library but libc; with them it loads the library of that API at run time.
//!
//! Errors say which operation failed, on what, with which errno, and what to
//! do about it.

#[cfg(any(
    feature = "drm",
    feature = "egl",
    feature = "gbm",
    feature = "v4l2",
    feature = "vulkan"
))]
pub mod import;

pub mod alloc;
pub mod buffer;
pub mod fence;
pub mod frame;
pub mod negotiate;
pub mod share;
mod sys;
mod text;

/// The number of a kernel error, errno(3), as the errors of this crate carry it.
///
/// ```
/// use dmashare::alloc::{AllocError, DmaHeap};
/// let error = DmaHeap::open("no such heap").unwrap_err();
/// assert!(matches!(error, AllocError::Os { source: dmashare::Errno::NOENT, .. }));
/// ```
pub use rustix::io::Errno;
