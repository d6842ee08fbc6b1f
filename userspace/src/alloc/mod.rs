//! Ways to get a buffer, and the probe that picks one.
//!
//! One file a way, each a type with [`Allocate`]: [`Memfd`], [`Posix`], [`SysV`],
//! [`DmaHeap`], [`Udmabuf`], [`Module`], [`Dumb`]. Name a type to say which one
//! you want; use [`allocate`] to take the first that can do what you ask on this
//! system, and [`probe`](probe()) to see which those are. What others find by a
//! name or a key, [`Posix`] and [`SysV`], it takes only by its type.
//!
//! ```
//! use dmashare::alloc::{Request, Way, allocate};
//! let allocation = allocate(&Request::new(4096).named("picture"))?;
//! assert_eq!(allocation.way, Way::Memfd);
//! assert!(allocation.buffer.size() >= 4096);
//! # Ok::<(), dmashare::alloc::AllocError>(())
//! ```

mod choose;
mod dma_heap;
mod dumb;
mod error;
mod feature;
mod huge;
mod limit;
mod memfd;
mod module;
pub(crate) mod node;
mod offer;
mod owner;
mod piece;
mod posix;
mod probe;
mod request;
mod sysv;
mod udmabuf;

use std::fmt;

pub use choose::{Allocation, allocate};
pub use dma_heap::DmaHeap;
pub use dumb::Dumb;
pub use error::AllocError;
pub use feature::Feature;
pub use huge::{HugePages, HugePool};
pub use limit::Limit;
pub use memfd::Memfd;
pub use module::{
    AllocFlags, Module, ModuleBuffer, ModuleFeatures, ModuleInfo, ModuleMemory, Nodes,
};
pub use offer::Offer;
pub use owner::Owner;
pub use piece::Piece;
pub use posix::Posix;
pub use probe::{Probe, Row, probe};
pub use request::{MAX_NAME, Request, Usage};
pub use sysv::{Key, SysV};
pub use udmabuf::Udmabuf;

/// Who may read and write what has a name or a key: the bits of chmod(2).
pub use rustix::fs::Mode;

use crate::buffer::Buffer;

/// A way to allocate buffers.
///
/// Every buffer is zeroed and a whole number of pages long. Its size is one that
/// nobody can make smaller ([`Kind::is_fixed`](crate::buffer::Kind::is_fixed)),
/// but for POSIX shared memory, which has no means for that, and huge pages.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// fn two(way: &dyn Allocate) -> Result<u64, dmashare::alloc::AllocError> {
///     let request = Request::new(100);
///     Ok(way.allocate(&request)?.size() + way.allocate(&request)?.size())
/// }
/// assert_eq!(two(&Memfd::new())?, 2 * rustix::param::page_size() as u64);
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
pub trait Allocate: fmt::Debug + Send + Sync {
    /// Which way this is.
    fn way(&self) -> Way;

    /// A new buffer of at least this size.
    ///
    /// # Errors
    /// [`AllocError::Empty`], [`AllocError::TooLarge`], [`AllocError::Name`],
    /// [`AllocError::NotForDevices`] and [`AllocError::Cannot`] before the kernel
    /// was asked for memory, [`AllocError::Os`] with its answer.
    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError>;
}

/// The ways to allocate, for a choice at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// A memfd: for CPUs only; see [`Memfd`].
    Memfd,
    /// POSIX shared memory: for CPUs only; see [`Posix`].
    Posix,
    /// A System V segment: for CPUs only; see [`SysV`].
    SysV,
    /// The heap `system` of `/dev/dma_heap`; see [`DmaHeap`].
    DmaHeap,
    /// `/dev/udmabuf`; see [`Udmabuf`].
    Udmabuf,
    /// The nodes below `/dev/dmashare` of our own kernel module; see [`Module`].
    Module,
    /// A dumb buffer of the first DRM card that has them; see [`Dumb`].
    Dumb,
}

impl Way {
    /// All of them, in the order in which [`allocate`] asks.
    pub const ALL: [Way; 7] = [
        Way::Memfd,
        Way::Posix,
        Way::SysV,
        Way::DmaHeap,
        Way::Udmabuf,
        Way::Module,
        Way::Dumb,
    ];

    /// Opens what this way needs.
    ///
    /// # Errors
    /// [`AllocError::Os`] where the device cannot be opened, with what would
    /// help.
    ///
    /// ```
    /// use dmashare::alloc::Way;
    /// assert_eq!(Way::Memfd.open()?.way(), Way::Memfd);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn open(self) -> Result<Box<dyn Allocate>, AllocError> {
        Ok(match self {
            Way::Memfd => Box::new(Memfd::new()),
            Way::Posix => Box::new(Posix::new()),
            Way::SysV => Box::new(SysV::new()),
            Way::DmaHeap => Box::new(DmaHeap::open(DmaHeap::SYSTEM)?),
            Way::Udmabuf => Box::new(Udmabuf::open()?),
            Way::Module => Box::new(Module::open()?),
            Way::Dumb => Box::new(Dumb::open_first()?),
        })
    }

    /// Whether its buffers are dma-bufs, which devices can import.
    ///
    /// ```
    /// use dmashare::alloc::Way;
    /// assert!(!Way::Memfd.for_devices() && Way::DmaHeap.for_devices());
    /// ```
    pub fn for_devices(self) -> bool {
        !matches!(self, Way::Memfd | Way::Posix | Way::SysV)
    }

    /// Its name, as programs and tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Memfd => "memfd",
            Way::Posix => "posix",
            Way::SysV => "sysv",
            Way::DmaHeap => "dma_heap",
            Way::Udmabuf => "udmabuf",
            Way::Module => "module",
            Way::Dumb => "dumb",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
