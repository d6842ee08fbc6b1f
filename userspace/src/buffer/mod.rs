//! What a shared buffer is.
//!
//! - A [`Buffer`] owns the handle: a file descriptor, or the id of a System V
//!   segment, whose [`Kind`] and size the kernel was asked for.
//! - A [`Mapping`] makes its memory visible to the CPU. Someone else may write
//!   to it at any time, so it never gives a safe `&[u8]`.
//! - A [`Guard`] is one CPU access to it: reads and writes are methods of the
//!   guard, and a dma-buf is told when the access begins and when it ends.
//! - [`Sealed`] memory is written by nobody any more, and is a plain `&[u8]`.
//!
//! ```
//! use dmashare::alloc::{Allocate, Memfd, Request};
//! use dmashare::buffer::Access;
//!
//! let buffer = Memfd::new().allocate(&Request::new(4096))?;
//! let mut mapping = buffer.map(Access::ReadWrite)?;
//!
//! let mut guard = mapping.access(Access::Write)?;
//! guard.write_at(100, b"hello")?;
//! guard.finish()?;
//!
//! let mut word = [0; 5];
//! mapping.access(Access::Read)?.read_at(100, &mut word)?;
//! assert_eq!(&word, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The accessors live on the guard alone, so an access outside of one does not
//! compile:
//!
//! ```compile_fail,E0599
//! # use dmashare::buffer::Mapping;
//! fn peek(mapping: &mut Mapping) {
//!     let _ = mapping.read_at(0, &mut [0; 4]); // no such method on a Mapping
//! }
//! ```

pub(crate) mod copy;
mod dma_buf;
mod error;
mod file;
mod guard;
mod handle;
mod mapping;
mod memory;
mod region;
mod rows;
mod sealed;
mod segment;
mod view;

pub use dma_buf::DmaBufInfo;
pub use error::BufferError;
pub use guard::Guard;
pub(crate) use handle::describe;
pub use handle::{Buffer, Kind, Ownership, Seals};
pub use mapping::{Access, Mapping};
pub use rows::Rows;
pub use sealed::Sealed;
pub use view::Atomic;
