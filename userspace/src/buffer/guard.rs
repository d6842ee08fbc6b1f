//! One CPU access to a mapping.

use rustix::io::Errno;
use std::os::fd::AsFd;

use super::handle::os;
use super::region::Region;
use super::{Access, BufferError, Mapping, Rows};
use crate::sys::dma_buf::{self, SyncFlags};

/// One CPU access to a [`Mapping`]: begun when it is made, ended when it is
/// dropped, also by a panic.
///
/// Most of its methods copy. Bytes that someone else writes at the same moment come
/// out old, new or mixed, but the program stays sound.
#[must_use = "the access ends when the guard is dropped"]
#[derive(Debug)]
pub struct Guard<'m> {
    mapping: &'m mut Mapping,
    access: Access,
    ended: bool,
}

impl<'m> Guard<'m> {
    pub(super) fn start(mapping: &'m mut Mapping, access: Access) -> Result<Self, BufferError> {
        sync(mapping, access, SyncFlags::empty())?;
        Ok(Guard {
            mapping,
            access,
            ended: false,
        })
    }

    /// Ends the access, and says whether the exporter took that.
    ///
    /// A drop ends it just as well, but cannot report an error.
    ///
    /// # Errors
    /// [`BufferError::Os`]: what was written may not be visible to devices.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(64))?.map(Access::Write)?;
    /// let mut guard = mapping.access(Access::Write)?;
    /// guard.fill(0xff)?;
    /// guard.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(mut self) -> Result<(), BufferError> {
        self.end()
    }

    /// Copies the bytes from `offset` on into `into`.
    ///
    /// # Errors
    /// [`BufferError::Range`], and nothing was copied; [`BufferError::Access`]
    /// where the guard is not for reading.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let guard = mapping.access(Access::Read)?;
    /// let mut bytes = [1; 4];
    /// guard.read_at(0, &mut bytes)?;
    /// assert_eq!(bytes, [0; 4]);
    /// let beyond = guard.read_at(4093, &mut bytes);
    /// assert_eq!(beyond, Err(BufferError::Range { offset: 4093, len: 4, size: 4096 }));
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), BufferError> {
        self.region().read_at(offset, into)
    }

    /// Copies `from` to the bytes from `offset` on.
    ///
    /// # Errors
    /// [`BufferError::Range`], and nothing was copied; [`BufferError::Access`]
    /// where the guard is not for writing.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::Write)?;
    /// guard.write_at(4092, b"last")?;
    /// assert!(guard.write_at(u64::MAX, b"far").is_err());
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_at(&mut self, offset: u64, from: &[u8]) -> Result<(), BufferError> {
        self.region().write_at(offset, from)
    }

    /// Sets every byte of the mapping.
    ///
    /// # Errors
    /// [`BufferError::Access`] where the guard is not for writing.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.fill(7)?;
    /// let mut last = [0];
    /// guard.read_at(4095, &mut last)?;
    /// assert_eq!(last, [7]);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fill(&mut self, byte: u8) -> Result<(), BufferError> {
        self.region().fill(byte)
    }

    /// Copies a picture's rows into `into`, where they touch each other.
    ///
    /// # Errors
    /// [`BufferError::Range`], [`BufferError::Rows`], and
    /// [`BufferError::RowsMemory`] where `into` is not as long as the rows, and
    /// nothing was copied; [`BufferError::Access`] as in `read_at`.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, Rows};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(64))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.write_at(0, b"ab..cd..")?;
    /// let mut picture = [0; 4];
    /// guard.read_rows(Rows { offset: 0, stride: 4, row: 2, count: 2 }, &mut picture)?;
    /// assert_eq!(&picture, b"abcd");
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_rows(&self, rows: Rows, into: &mut [u8]) -> Result<(), BufferError> {
        self.region().read_rows(rows, into)
    }

    /// Copies a picture's rows from `from`, where they touch each other. What
    /// lies between the rows is left as it is.
    ///
    /// # Errors
    /// As [`read_rows`](Self::read_rows).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, Rows};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(64))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.fill(b'.')?;
    /// guard.write_rows(Rows { offset: 1, stride: 4, row: 2, count: 2 }, b"abcd")?;
    /// let mut memory = [0; 8];
    /// guard.read_at(0, &mut memory)?;
    /// assert_eq!(&memory, b".ab..cd.");
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_rows(&mut self, rows: Rows, from: &[u8]) -> Result<(), BufferError> {
        self.region().write_rows(rows, from)
    }

    /// The memory, for the views of it.
    pub(super) fn region(&self) -> Region<'_> {
        let (base, len) = (self.mapping.as_ptr(), self.mapping.bytes());
        // SAFETY: the mapping is borrowed as long as self is, was made for all
        // of `access` and, like every mapping, for reading; references to its
        // bytes come from here alone, and borrow self like the region does.
        unsafe { Region::new(base, len, self.access) }
    }

    fn end(&mut self) -> Result<(), BufferError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        sync(self.mapping, self.access, SyncFlags::END)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Nobody is left to hear of an error: that is what `finish` is for.
        let _ = self.end();
    }
}

fn sync(mapping: &Mapping, access: Access, phase: SyncFlags) -> Result<(), BufferError> {
    let Some(exporter) = mapping.exporter() else {
        return Ok(());
    };
    let flags = phase | access.sync_flags();
    loop {
        match dma_buf::sync(exporter.as_fd(), flags) {
            // "If interrupted, call again": a signal, or a device that the
            // exporter could not wait for yet.
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => {
                let operation = match phase.contains(SyncFlags::END) {
                    false => "DMA_BUF_IOCTL_SYNC(START)",
                    true => "DMA_BUF_IOCTL_SYNC(END)",
                };
                return result.map_err(os(operation, exporter.as_fd()));
            }
        }
    }
}
