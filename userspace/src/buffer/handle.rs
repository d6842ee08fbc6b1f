//! A buffer's handle, and what the kernel says it is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, FsWord};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::{Access, BufferError, Mapping};
use crate::sys::dma_buf;

/// The seals of a memfd: `F_SEAL_*` of fcntl(2).
pub use rustix::fs::SealFlags as Seals;

/// `HUGETLBFS_MAGIC` of `linux/magic.h`. Where a word has 32 bits, the highest
/// of them is its sign.
const HUGETLBFS: FsWord = 0x9584_58f6_u32 as FsWord;

/// What kind of memory a handle stands for, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A dma-buf: devices can import it, its size is fixed, and CPU accesses
    /// are announced to its exporter.
    DmaBuf,
    /// A memfd that was made with `MFD_ALLOW_SEALING`, and the seals it has.
    ///
    /// A seal fixes its size, but sets no memory aside: a page gets some when
    /// it is first touched, by whoever does. Where the kernel is told not to
    /// overcommit (`vm.overcommit_memory` 2, see proc_sys_vm(5)) and none is
    /// left, that one gets SIGBUS, as if the file had ended there.
    Memfd(Seals),
    /// A file on tmpfs that takes no seals: POSIX shared memory, or a memfd
    /// made without `MFD_ALLOW_SEALING`. The two look the same.
    Shm,
    /// A file on hugetlbfs, such as a memfd made with `MFD_HUGETLB`.
    ///
    /// [`Seals::SHRINK`] does not make it safe: with `FALLOC_FL_PUNCH_HOLE`
    /// (fallocate(2)) any holder can give its pages back, and what was reserved
    /// for them. There may be none for the next access, and it ends in SIGBUS.
    HugeTlb,
}

impl Kind {
    /// Whether nobody can make the buffer smaller any more, or take the memory
    /// from under it.
    ///
    /// ```
    /// use dmashare::buffer::{Kind, Seals};
    /// assert!(Kind::DmaBuf.is_fixed());
    /// assert!(Kind::Memfd(Seals::SHRINK | Seals::GROW).is_fixed());
    /// assert!(!Kind::Memfd(Seals::GROW).is_fixed());
    /// assert!(!Kind::Shm.is_fixed());
    /// assert!(!Kind::HugeTlb.is_fixed());
    /// ```
    pub fn is_fixed(self) -> bool {
        match self {
            Kind::DmaBuf => true,
            Kind::Memfd(seals) => seals.contains(Seals::SHRINK),
            Kind::Shm | Kind::HugeTlb => false,
        }
    }
}

/// A buffer in memory that can be shared: its handle, its size and its kind.
///
/// The handle closes on exec and, on drop, for good; the memory lives as long
/// as anyone holds a handle or a mapping of it.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::buffer::{Buffer, BufferError, Kind};
///
/// let buffer = Memfd::new().allocate(&Request::new(4096))?;
/// let again = Buffer::from_fd(buffer.try_clone()?.into_fd())?;
/// assert_eq!(again.size(), buffer.size());
/// assert!(matches!(again.kind(), Kind::Memfd(_)));
///
/// let pipe = std::io::pipe()?.0;
/// let refused = Buffer::from_fd(pipe.into());
/// assert!(matches!(refused, Err(BufferError::NotABuffer { what: "a pipe", .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Buffer {
    fd: OwnedFd,
    size: u64,
    kind: Kind,
}

impl Buffer {
    /// Takes a handle from elsewhere, after asking the kernel what it is.
    ///
    /// The handle is made to close on exec.
    ///
    /// # Errors
    /// [`BufferError::NotABuffer`], [`BufferError::Empty`], and
    /// [`BufferError::Os`] where the kernel would not tell.
    ///
    /// ```
    /// # use dmashare::buffer::Buffer;
    /// let null = std::fs::File::open("/dev/null")?;
    /// assert!(Buffer::from_fd(null.into()).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Buffer, BufferError> {
        let (kind, size) = examine(fd.as_fd())?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(os("fcntl(F_SETFD)", fd.as_fd()))?;
        Ok(Buffer { fd, size, kind })
    }

    /// The size in bytes, as it was when the handle was examined.
    ///
    /// Where [`Kind::is_fixed`], it cannot have become smaller since.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What kind of memory it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name the kernel gives it: `/dmabuf:NAME` or `/memfd:NAME`.
    pub fn name(&self) -> String {
        describe(self.fd.as_fd())
    }

    /// Gives the handle away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// A second handle of the same memory.
    ///
    /// # Errors
    /// [`BufferError::Os`] where the process has no handle left (`EMFILE`).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// let buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// let second = buffer.try_clone()?;
    /// drop(buffer);
    /// assert_eq!(second.size(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_clone(&self) -> Result<Buffer, BufferError> {
        Ok(Buffer {
            fd: clone_fd(self.fd.as_fd())?,
            ..*self
        })
    }

    /// Adds seals to a memfd, and reads its seals and its size anew.
    ///
    /// A receiver can do so too: with [`Seals::SHRINK`] on, a memfd that came
    /// without it is safe to map.
    ///
    /// # Errors
    /// [`BufferError::Os`]: `EPERM` where the memfd is sealed against seals or
    /// the handle is not open for writing, `EINVAL` where this is no memfd,
    /// `EBUSY` where it is mapped for writing and [`Seals::WRITE`] was asked.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::{Access, Kind, Seals};
    /// let mut buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// buffer.seal(Seals::WRITE)?;
    /// assert!(buffer.map(Access::Write).is_err());
    /// assert!(buffer.map(Access::Read).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seal(&mut self, seals: Seals) -> Result<(), BufferError> {
        fs::fcntl_add_seals(&self.fd, seals).map_err(os("fcntl(F_ADD_SEALS)", self.fd.as_fd()))?;
        (self.kind, self.size) = examine(self.fd.as_fd())?;
        Ok(())
    }

    /// Maps the whole buffer.
    ///
    /// # Errors
    /// [`BufferError::Shrinkable`] and [`BufferError::HugeTlb`] where another
    /// holder could cut the memory away under the mapping;
    /// [`BufferError::Os`] where mmap(2) fails.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::Access;
    /// let buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// assert_eq!(buffer.map(Access::Read)?.size(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map(&self, access: Access) -> Result<Mapping, BufferError> {
        match self.kind {
            Kind::HugeTlb => Err(BufferError::HugeTlb { name: self.name() }),
            kind if !kind.is_fixed() => Err(BufferError::Shrinkable { name: self.name() }),
            _ => Mapping::new(self, access),
        }
    }

    /// Maps the whole buffer even where another holder can make it smaller, or
    /// take its pages away.
    ///
    /// One who does ends this process: an access beyond the end of a file is
    /// answered with SIGBUS (mmap(2)). Use it for peers that you trust.
    ///
    /// # Errors
    /// [`BufferError::Os`] where mmap(2) fails.
    ///
    /// ```
    /// use dmashare::buffer::{Access, Buffer, BufferError};
    /// let file = tempfile::tempfile_in("/dev/shm")?;
    /// file.set_len(4096)?;
    /// let buffer = Buffer::from_fd(file.into())?;
    /// assert!(matches!(buffer.map(Access::Read), Err(BufferError::Shrinkable { .. })));
    /// assert!(buffer.map_shrinkable(Access::Read).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_shrinkable(&self, access: Access) -> Result<Mapping, BufferError> {
        Mapping::new(self, access)
    }
}

impl AsFd for Buffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks the kernel what this handle is, and how many bytes it has.
///
/// Its holder's word counts for nothing here, nor does a name in /proc.
pub(crate) fn examine(fd: BorrowedFd<'_>) -> Result<(Kind, u64), BufferError> {
    let kind = kind(fd)?;
    // In this order: the size of a memfd that can still shrink says nothing,
    // so the seals that vouch for it are to be older than it.
    let stat = fs::fstat(fd).map_err(os("fstat", fd))?;
    match u64::try_from(stat.st_size) {
        Ok(size) if size > 0 => Ok((kind, size)),
        _ => Err(BufferError::Empty { name: describe(fd) }),
    }
}

fn kind(fd: BorrowedFd<'_>) -> Result<Kind, BufferError> {
    // Seals first: only files in memory have them, and who has none is not
    // asked over FUSE or a network to say so.
    let seals = match fs::fcntl_get_seals(fd) {
        Ok(seals) => Some(seals),
        Err(Errno::INVAL) => None,
        Err(errno) => return Err(os("fcntl(F_GET_SEALS)", fd)(errno)),
    };
    let system = fs::fstatfs(fd).map_err(os("fstatfs", fd))?.f_type;
    match seals {
        Some(_) if system == HUGETLBFS => Ok(Kind::HugeTlb),
        // What tmpfs says of every file that was not made for sealing.
        Some(Seals::SEAL) => Ok(Kind::Shm),
        Some(seals) => Ok(Kind::Memfd(seals)),
        None if system == dma_buf::MAGIC => Ok(Kind::DmaBuf),
        None => Err(BufferError::NotABuffer {
            name: describe(fd),
            what: what(fd)?,
        }),
    }
}

fn what(fd: BorrowedFd<'_>) -> Result<&'static str, BufferError> {
    let stat = fs::fstat(fd).map_err(os("fstat", fd))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "a plain file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "some other handle",
    })
}

/// A second handle, closed on exec.
pub(super) fn clone_fd(fd: BorrowedFd<'_>) -> Result<OwnedFd, BufferError> {
    fcntl_dupfd_cloexec(fd, 0).map_err(os("fcntl(F_DUPFD_CLOEXEC)", fd))
}

/// The kernel's name for what is behind a handle; for messages only.
pub(crate) fn describe(fd: BorrowedFd<'_>) -> String {
    let number = fd.as_raw_fd();
    match std::fs::read_link(format!("/proc/self/fd/{number}")) {
        Ok(name) => {
            let name = name.to_string_lossy();
            name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned()
        }
        Err(_) => format!("fd {number}"),
    }
}

/// Turns an errno into an error that names what failed, and on what.
pub(super) fn os(operation: &'static str, fd: BorrowedFd<'_>) -> impl FnOnce(Errno) -> BufferError {
    move |source| BufferError::Os {
        operation,
        name: describe(fd),
        source,
    }
}
