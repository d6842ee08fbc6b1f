//! A buffer that is a file, read and written by calls instead of a mapping.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Stat, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2, retry_on_intr};

use super::handle::{Handle, os};
use super::{Buffer, BufferError, Kind, Seals};

/// `RWF_NOAPPEND` of `linux/fs.h`, from Linux 6.9 on.
const NOAPPEND: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x20);

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
    /// It writes at `offset` and stays within [`size`](Self::size), whatever
    /// flags the open file description has. A peer that was sent the handle
    /// shares that description, and can set `O_APPEND` on it (fcntl(2)), with
    /// which pwrite(2) appends. From Linux 6.9 on the kernel is told not to
    /// (`RWF_NOAPPEND`). Before, a file that is not sealed against growing
    /// ([`Seals::GROW`]) is opened anew for each call, through `/proc`, for a
    /// description of its own; where that fails nothing is written.
    ///
    /// A file that was made smaller meanwhile, and is not sealed against it,
    /// grows back to what is written.
    ///
    /// # Errors
    /// [`BufferError::Range`] beyond the size, and nothing was written;
    /// [`BufferError::NotAFile`] as for [`read_at`](Self::read_at);
    /// [`BufferError::Os`]: `EPERM` where it is sealed against writing or, when
    /// it would have to grow, against that, or on a kernel before 6.9 was set to
    /// append; `EINVAL` for huge pages, which are only written by a mapping.
    /// [`BufferError::Reopen`] where a kernel before 6.9 cannot open it anew.
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
        match retry_on_intr(|| pwritev2(file, &[IoSlice::new(from)], offset, NOAPPEND)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_before_6_9(offset, from),
            written => written.map_err(os("pwritev2", file)),
        }
    }

    /// The kernel knows no `RWF_NOAPPEND`.
    fn write_before_6_9(&self, offset: u64, from: &[u8]) -> Result<usize, BufferError> {
        let file = self.file()?;
        // What cannot grow has nothing appended. The seals were read when the
        // handle was examined, and stay for good.
        if matches!(self.kind(), Kind::Memfd(seals) if seals.contains(Seals::GROW)) {
            return retry_on_intr(|| pwrite(file, from, offset)).map_err(os("pwrite", file));
        }
        let own = reopen(file).map_err(|source| BufferError::Reopen {
            name: self.name(),
            source,
        })?;
        retry_on_intr(|| pwrite(&own, from, offset)).map_err(os("pwrite", file))
    }

    fn file(&self) -> Result<BorrowedFd<'_>, BufferError> {
        match (self.handle(), self.kind()) {
            (Handle::Fd(_), Kind::Memfd(_) | Kind::Shm | Kind::HugeTlb) => self.fd(),
            _ => Err(BufferError::NotAFile { name: self.name() }),
        }
    }
}

/// A description of this file that nobody else has.
///
/// The caller has seen that the handle is open for writing.
fn reopen(file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let own = retry_on_intr(|| open(path.as_str(), flags, Mode::empty()))?;
    let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
    // What is mounted on /proc may be anything.
    match identity(fstat(&own)?) == identity(fstat(file)?) {
        true => Ok(own),
        false => Err(Errno::STALE),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn unsealed() -> Buffer {
        let fd = memfd_create("append", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, 4096).unwrap();
        Buffer::from_fd(fd).unwrap()
    }

    fn append(buffer: &Buffer) {
        let fd = buffer.fd().unwrap();
        let flags = rustix::fs::fcntl_getfl(fd).unwrap();
        rustix::fs::fcntl_setfl(fd, flags | OFlags::APPEND).unwrap();
    }

    fn bytes(buffer: &Buffer) -> (i64, [u8; 4]) {
        let mut read = [0; 4];
        buffer.read_at(8, &mut read).unwrap();
        (fstat(buffer.fd().unwrap()).unwrap().st_size, read)
    }

    /// Both ways, on whatever kernel this is.
    #[test]
    fn append_flag_changes_no_write() {
        for write in [Buffer::write_at, Buffer::write_before_6_9] {
            let buffer = unsealed();
            append(&buffer);
            assert_eq!(write(&buffer, 8, b"word"), Ok(4));
            assert_eq!(bytes(&buffer), (4096, *b"word"));
        }
    }

    #[test]
    fn sealed_file_before_6_9_refuses_append() {
        let mut buffer = unsealed();
        buffer.seal(Seals::GROW).unwrap();
        assert_eq!(buffer.write_before_6_9(8, b"word"), Ok(4));
        append(&buffer);
        let refused = buffer.write_before_6_9(8, b"more");
        assert!(
            matches!(
                refused,
                Err(BufferError::Os {
                    source: Errno::PERM,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(bytes(&buffer), (4096, *b"word"));
    }
}
