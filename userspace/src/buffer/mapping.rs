//! A buffer's memory, visible to the CPU.

use std::ffi::c_void;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::handle::{clone_fd, os};
use super::{Buffer, BufferError, Guard, Kind};

/// What the CPU does with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes, and does not read.
    Write,
    /// It does both.
    ReadWrite,
}

impl Access {
    /// Whether reading is part of it.
    pub fn reads(self) -> bool {
        self != Access::Write
    }

    /// Whether writing is part of it.
    pub fn writes(self) -> bool {
        self != Access::Read
    }

    /// Whether all of `asked` is part of it.
    ///
    /// ```
    /// use dmashare::buffer::Access;
    /// assert!(Access::ReadWrite.covers(Access::Write));
    /// assert!(!Access::Read.covers(Access::ReadWrite));
    /// ```
    pub fn covers(self, asked: Access) -> bool {
        self == Access::ReadWrite || self == asked
    }

    /// `Ok` where all of `asked` is part of it.
    pub(super) fn grant(self, asked: Access) -> Result<(), BufferError> {
        match self.covers(asked) {
            true => Ok(()),
            false => Err(BufferError::Access {
                asked,
                granted: self,
            }),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "reading",
            Access::Write => "writing",
            Access::ReadWrite => "reading and writing",
        })
    }
}

/// A buffer's memory, mapped into this process; unmapped on drop.
///
/// It outlives the [`Buffer`] it was made from. Its bytes are reached through
/// a [`Guard`], which [`access`](Self::access) opens.
#[derive(Debug)]
pub struct Mapping {
    memory: NonNull<c_void>,
    size: usize,
    access: Access,
    /// Who is to be told of accesses: a handle of the dma-buf. Other memory is
    /// coherent for everyone who maps it.
    exporter: Option<OwnedFd>,
}

// SAFETY: the memory belongs to no thread, and is reached through `&mut self`.
unsafe impl Send for Mapping {}
// SAFETY: a `&Mapping` gives its size and its address, never its bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(buffer: &Buffer, access: Access) -> Result<Mapping, BufferError> {
        // What Rust reaches through a pointer ends where an isize does, which
        // on 32 bits is less than what mmap(2) gives.
        let size = isize::try_from(buffer.size()).map_err(|_| BufferError::AddressSpace {
            name: buffer.name(),
            size: buffer.size(),
        })?;
        let size = size.cast_unsigned();
        // mmap(2) wants the handle open for reading whatever is asked, and no
        // CPU has write-only pages; Write is kept apart for the guards.
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write | Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let exporter = match buffer.kind() {
            Kind::DmaBuf => Some(clone_fd(buffer.as_fd())?),
            Kind::Memfd(_) | Kind::Shm | Kind::HugeTlb => None,
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches
        // no memory that exists.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                size,
                protection,
                MapFlags::SHARED,
                buffer,
                0,
            )
        }
        .map_err(os("mmap", buffer.as_fd()))?;
        Ok(Mapping {
            memory: NonNull::new(memory).expect("mmap without MAP_FIXED never maps address 0"),
            size,
            access,
            exporter,
        })
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    /// What it was mapped for.
    pub fn mapped_for(&self) -> Access {
        self.access
    }

    /// Where it lies, for a C API. Accesses through it belong into a guard's
    /// lifetime, and are the caller's responsibility.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr().cast()
    }

    /// Begins an access of the CPU; the guard ends it on drop.
    ///
    /// A dma-buf is told so by `DMA_BUF_IOCTL_SYNC` (linux/dma-buf.h): its
    /// exporter makes what devices wrote visible here, and waits for them where
    /// it has fences. For other memory the guard does nothing, so that the same
    /// code serves both.
    ///
    /// # Errors
    /// [`BufferError::Access`] where the buffer was not mapped for this, and
    /// [`BufferError::Os`] where the exporter refuses.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::{Access, BufferError};
    /// let buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// let mut mapping = buffer.map(Access::Read)?;
    /// assert!(matches!(mapping.access(Access::Write), Err(BufferError::Access { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn access(&mut self, access: Access) -> Result<Guard<'_>, BufferError> {
        self.access.grant(access)?;
        Guard::start(self, access)
    }

    /// The size as pointers count it.
    pub(super) fn bytes(&self) -> usize {
        self.size
    }

    pub(super) fn exporter(&self) -> Option<&OwnedFd> {
        self.exporter.as_ref()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this size; guards and slices borrow self.
        let unmapped = unsafe { munmap(self.memory.as_ptr(), self.size) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
