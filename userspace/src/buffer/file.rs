//! A buffer that is a file, read and written by calls instead of a mapping.

use std::os::fd::BorrowedFd;

use rustix::io::{pread, pwrite, retry_on_intr};

use super::handle::{Handle, os};
use super::{Buffer, BufferError, Kind};

impl Buffer {
    /// Copies from a memfd or a file on tmpfs by pread(2), and says how many
    /// bytes it got: fewer where the file ends meanwhile, 0 at its end.
    ///
    /// For a peer's memory that is not sealed it is the way without risk: who
    /// makes the file smaller under a mapping ends this process by SIGBUS, and
    /// here makes the count smaller. It costs a call, where a mapping costs
    /// none.
    ///
    /// # Errors
    /// [`BufferError::NotAFile`] for a dma-buf and for System V segments, which
    /// can only be mapped; [`BufferError::Os`], such as `EBADF` for a handle
    /// that is not open for reading.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// let buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// buffer.write_at(4, b"word")?;
    /// let mut bytes = [0; 8];
    /// assert_eq!(buffer.read_at(0, &mut bytes)?, 8);
    /// assert_eq!(&bytes, b"\0\0\0\0word");
    /// assert_eq!(buffer.read_at(4095, &mut bytes)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, BufferError> {
        let file = self.file()?;
        retry_on_intr(|| pread(file, &mut *into, offset)).map_err(os("pread", file))
    }

    /// Copies to a memfd or a file on tmpfs by pwrite(2), and says how many
    /// bytes it took.
    ///
    /// It stays within [`size`](Self::size). A file that was made smaller
    /// meanwhile, and is not sealed against it, grows back to what is written.
    ///
    /// # Errors
    /// [`BufferError::Range`] beyond the size, and nothing was written;
    /// [`BufferError::NotAFile`] as for [`read_at`](Self::read_at);
    /// [`BufferError::Os`]: `EPERM` where it is sealed against writing or, when
    /// it would have to grow, against that; `EINVAL` for huge pages, which are
    /// only written by a mapping.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::BufferError;
    /// let buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// assert_eq!(buffer.write_at(0, b"some")?, 4);
    /// assert!(matches!(buffer.write_at(4093, b"more"), Err(BufferError::Range { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<usize, BufferError> {
        let file = self.file()?;
        let (len, size) = (from.len() as u64, self.size());
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(BufferError::Range { offset, len, size });
        }
        retry_on_intr(|| pwrite(file, from, offset)).map_err(os("pwrite", file))
    }

    fn file(&self) -> Result<BorrowedFd<'_>, BufferError> {
        match (self.handle(), self.kind()) {
            (Handle::Fd(_), Kind::Memfd(_) | Kind::Shm | Kind::HugeTlb) => self.fd(),
            _ => Err(BufferError::NotAFile { name: self.name() }),
        }
    }
}
