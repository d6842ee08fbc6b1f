//! A buffer's memory, visible to the CPU.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use rustix::param::page_size;

use super::handle::{Handle, clone_fd, os, seals};
use super::memory::Memory;
use super::{Buffer, BufferError, Guard, Kind, Seals};
use crate::sys::dma_buf::SyncFlags;

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

    /// As the calls of a dma-buf have it.
    pub(crate) fn sync_flags(self) -> SyncFlags {
        let mut flags = SyncFlags::empty();
        flags.set(SyncFlags::READ, self.reads());
        flags.set(SyncFlags::WRITE, self.writes());
        flags
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
    memory: Memory,
    /// Where the part begins in that memory, which begins with a page.
    start: usize,
    size: usize,
    access: Access,
    /// Who is to be told of accesses: a handle of the dma-buf. Other memory is
    /// coherent for everyone who maps it.
    exporter: Option<OwnedFd>,
}

impl Mapping {
    /// Maps a part of a buffer that has `size` bytes.
    pub(super) fn new(
        buffer: &Buffer,
        size: u64,
        part: Range<u64>,
        access: Access,
    ) -> Result<Mapping, BufferError> {
        let (offset, len) = (part.start, part.end.saturating_sub(part.start));
        if len == 0 || part.end > size {
            return Err(BufferError::Part {
                name: buffer.name(),
                offset,
                len,
                size,
            });
        }
        let before = offset % page_size() as u64;
        let (memory, before) = match buffer.handle() {
            Handle::Fd(fd) => {
                let whole = pointable(buffer, before + len)?;
                (map(fd.as_fd(), offset - before, whole, access)?, before)
            }
            Handle::Segment(segment) => {
                let from = pointable(buffer, offset - before)?;
                let whole = pointable(buffer, before + len)?;
                let (memory, start) = segment.map(from, whole, access)?;
                (memory, start as u64 + before)
            }
        };
        let exporter = match buffer.kind() {
            Kind::DmaBuf => Some(clone_fd(buffer.fd()?)?),
            Kind::Memfd(_) | Kind::Shm | Kind::HugeTlb | Kind::SysV => None,
        };
        Ok(Mapping {
            memory,
            start: pointable(buffer, before)?,
            size: pointable(buffer, len)?,
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
        let base: NonNull<u8> = self.memory.base().cast();
        // SAFETY: the part begins inside of the memory.
        unsafe { base.add(self.start) }.as_ptr()
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

    /// Faults every page in for reading (`MADV_POPULATE_READ` of madvise(2)).
    ///
    /// The kernel answers with an errno where an access would end in a signal.
    pub(super) fn populate(&self) -> Result<(), Errno> {
        let base = self.memory.base().as_ptr();
        retry_on_intr(|| {
            // SAFETY: the range is mapped, up to the end of its last page, and
            // the advice changes no bytes.
            unsafe { madvise(base, self.start + self.size, Advice::LinuxPopulateRead) }
        })
    }

    pub(super) fn exporter(&self) -> Option<&OwnedFd> {
        self.exporter.as_ref()
    }
}

/// mmap(2) of whole pages.
fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, access: Access) -> Result<Memory, BufferError> {
    // mmap(2) wants the handle open for reading whatever is asked, and no CPU
    // has write-only pages; Write is kept apart for the guards.
    let protection = match access {
        Access::Read => ProtFlags::READ,
        Access::Write | Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    };
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice touches no
    // memory that exists.
    let mmap = |flags| unsafe { mmap(anywhere, len, protection, flags, fd, offset) };
    let memory = match mmap(MapFlags::SHARED) {
        // Before 6.7 a handle that is open for writing gives no shared mapping
        // of what is sealed against it, not even for reading. A private one
        // shows the same pages, since nobody can write them.
        Err(Errno::PERM) if access == Access::Read && sealed(fd) => mmap(MapFlags::PRIVATE),
        memory => memory,
    };
    let base = memory.map_err(os("mmap", fd))?;
    Ok(Memory::Mapped {
        base: NonNull::new(base).expect("mmap without MAP_FIXED never maps address 0"),
        len,
    })
}

fn sealed(fd: BorrowedFd<'_>) -> bool {
    matches!(seals(fd), Ok(Some(seals)) if seals.contains(Seals::WRITE))
}

/// A size or offset as pointers count it. What Rust reaches through one ends
/// where an isize does, which on 32 bits is less than what mmap(2) gives.
fn pointable(buffer: &Buffer, size: u64) -> Result<usize, BufferError> {
    isize::try_from(size)
        .map(isize::cast_unsigned)
        .map_err(|_| BufferError::AddressSpace {
            name: buffer.name(),
            size: buffer.size(),
        })
}
