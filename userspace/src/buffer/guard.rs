//! One CPU access to a mapping.

use rustix::io::Errno;
use std::os::fd::AsFd;

use super::handle::os;
use super::{Access, BufferError, Mapping, Rows, copy};
use crate::sys::dma_buf::{self, SyncFlags};

/// One CPU access to a [`Mapping`]: begun when it is made, ended when it is
/// dropped, also by a panic.
///
/// Its methods copy. Bytes that someone else writes at the same moment come
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
        self.access.grant(Access::Read)?;
        let from = self.range(offset, into.len() as u64)?;
        // SAFETY: `range` found these bytes inside of the mapping, and every
        // mapping can be read.
        unsafe { copy::load(from, into) };
        Ok(())
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
        self.access.grant(Access::Write)?;
        let into = self.range(offset, from.len() as u64)?;
        // SAFETY: `range` found these bytes inside of the mapping, and the
        // guard is for writing, which the mapping then is too.
        unsafe { copy::store(from, into) };
        Ok(())
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
        self.access.grant(Access::Write)?;
        // SAFETY: the whole mapping, and as in `write_at`.
        unsafe { copy::fill(self.mapping.as_ptr(), self.mapping.bytes(), byte) };
        Ok(())
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
        self.access.grant(Access::Read)?;
        let row = self.rows(rows, into.len())?;
        for (at, into) in rows.starts().zip(into.chunks_exact_mut(row)) {
            self.read_at(at, into)?;
        }
        Ok(())
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
        self.access.grant(Access::Write)?;
        let row = self.rows(rows, from.len())?;
        for (at, from) in rows.starts().zip(from.chunks_exact(row)) {
            self.write_at(at, from)?;
        }
        Ok(())
    }

    /// The memory itself, without a copy.
    ///
    /// # Safety
    /// While the slice lives nobody may write to this memory: no other mapping
    /// of it in this process, no other process that holds a handle, and no
    /// device. Nor may anyone make it smaller. The guard must be for reading.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let guard = mapping.access(Access::Read)?;
    /// // SAFETY: this process holds the only handle, and the only mapping.
    /// let bytes = unsafe { guard.as_slice() };
    /// assert_eq!(bytes.len(), 4096);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_slice(&self) -> &[u8] {
        debug_assert!(self.access.reads());
        // SAFETY: mapped for as long as self borrows the mapping; the caller
        // vouches for everyone else.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr(), self.mapping.bytes()) }
    }

    /// The memory itself, to be written without a copy.
    ///
    /// # Safety
    /// While the slice lives nobody else may read from or write to this memory,
    /// as in [`as_slice`](Self::as_slice). The guard must be for writing; for a
    /// guard that is not for reading too, the bytes read are stale.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// // SAFETY: this process holds the only handle, and the only mapping.
    /// let bytes = unsafe { guard.as_mut_slice() };
    /// bytes[..2].copy_from_slice(b"ok");
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        debug_assert!(self.access.writes());
        // SAFETY: as above, and mapped for writing since the guard is for it.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.as_ptr(), self.mapping.bytes()) }
    }

    /// Where these bytes lie, if they lie inside of the mapping.
    fn range(&self, offset: u64, len: u64) -> Result<*mut u8, BufferError> {
        let size = self.mapping.size();
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        match usize::try_from(offset) {
            // SAFETY: not beyond the end of the mapping.
            Ok(offset) if inside => Ok(unsafe { self.mapping.as_ptr().add(offset) }),
            _ => Err(BufferError::Range { offset, len, size }),
        }
    }

    /// The bytes of a row, if all rows lie inside of the mapping and hold just
    /// what `memory` bytes hold. At least 1, so that one can divide by it.
    fn rows(&self, rows: Rows, memory: usize) -> Result<usize, BufferError> {
        let end = rows.end()?;
        if rows.bytes() != memory as u64 {
            return Err(BufferError::RowsMemory {
                rows: rows.bytes(),
                memory,
            });
        }
        self.range(rows.offset, end - rows.offset)?;
        Ok(rows.row.max(1) as usize)
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
    let mut flags = phase;
    flags.set(SyncFlags::READ, access.reads());
    flags.set(SyncFlags::WRITE, access.writes());
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
