//! When devices are done with a buffer: fences.
//!
//! A device works on after the call that set it to work has returned. The
//! kernel keeps, with each dma-buf, a [fence] for each such job, and signals it
//! when the job is done. Most of the time nobody sees them: a driver waits for
//! those of others (implicit synchronisation), and so does a
//! [`Guard`](crate::buffer::Guard) on making. This module is for who wants to
//! wait himself, or to pass on what there is to wait for (explicit
//! synchronisation, as Vulkan and Wayland have it).
//!
//! - [`ready`] waits for a buffer's fences.
//! - A [`Fence`] is a handle of one or several, a sync_file. [`Fence::export`]
//!   takes a snapshot of those of a buffer, [`Fence::import_into`] adds one to a
//!   buffer, [`Fence::merge`] makes one of two, whichever drivers they are of.
//! - [`support`] tells which of it the kernel has.
//!
//! ```no_run
//! // Not run: needs a dma-buf.
//! use std::time::Duration;
//! use dmashare::buffer::{Access, Buffer};
//! use dmashare::fence::Fence;
//!
//! fn pass_on(drawn: &Buffer, shown: &Buffer) -> Result<(), dmashare::fence::FenceError> {
//!     // Whoever reads the picture is to wait for who draws it.
//!     let drawing = Fence::export(drawn, Access::Read)?;
//!     // The screen reads from `shown` in turn: both must be over.
//!     let both = drawing.merge(&Fence::export(shown, Access::Write)?, "both")?;
//!     both.wait(Some(Duration::from_secs(1)))
//! }
//! ```
//!
//! Memory that is no dma-buf has no fences, so the same code serves both:
//!
//! ```
//! use std::time::Duration;
//! use dmashare::alloc::{Request, allocate};
//! use dmashare::buffer::Access;
//! use dmashare::fence::{Fence, FenceError, ready};
//!
//! let memfd = allocate(&Request::new(4096))?.buffer;
//! ready(&memfd, Access::Read, Some(Duration::ZERO))?;
//! assert!(matches!(Fence::export(&memfd, Access::Read), Err(FenceError::Buffer(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A fence that failed
//! It is signalled all the same, with an error, and neither poll(2) nor a
//! driver that waits tells the two apart: what lies in the buffer is then
//! undefined. [`Fence::wait`] and [`Fence::status`] do tell. But the kernel
//! leaves out fences that have signalled, failed or not, when it exports and
//! when it merges. So a job's error is seen by who had its fence before it
//! failed, and by nobody who asks the buffer later.
//!
//! # Sources
//! `linux/dma-buf.h` and `linux/sync_file.h`; the kernel's
//! [Buffer Sharing and Synchronization][fence], and the sources of what is said
//! of errors, `dma_resv_get_fences` and `__dma_fence_unwrap_merge`.
//!
//! [fence]: https://docs.kernel.org/driver-api/dma-buf.html#dma-fences

mod error;
mod file;
mod info;
mod poll;
mod support;

pub use error::FenceError;
pub use file::{Fence, MAX_NAME};
pub use info::{FenceInfo, PointInfo, Status};
pub use poll::{now, ready};
pub use support::{Support, support};
