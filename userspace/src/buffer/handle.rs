//! A buffer's handle, and what the kernel says it is.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, FsWord, StatxFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::segment::{self, Segment};
use super::{Access, BufferError, Mapping};
use crate::sys::dma_buf;
use crate::text::printable;

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
    /// A file on hugetlbfs, such as a memfd made with `MFD_HUGETLB`, or a System
    /// V segment made with `SHM_HUGETLB`.
    ///
    /// [`Seals::SHRINK`] does not make it safe: with `FALLOC_FL_PUNCH_HOLE`
    /// (fallocate(2)) any holder can give its pages back, and what was reserved
    /// for them. There may be none for the next access, and it ends in SIGBUS.
    HugeTlb,
    /// A System V segment (shmget(2)). Its size is fixed, and it has no file
    /// descriptor: other processes find it by its key or id.
    SysV,
}

impl Kind {
    /// Whether nobody can make the buffer smaller any more, or take the memory
    /// from under it.
    ///
    /// ```
    /// use dmashare::buffer::{Kind, Seals};
    /// assert!(Kind::DmaBuf.is_fixed());
    /// assert!(Kind::SysV.is_fixed());
    /// assert!(Kind::Memfd(Seals::SHRINK | Seals::GROW).is_fixed());
    /// assert!(!Kind::Memfd(Seals::GROW).is_fixed());
    /// assert!(!Kind::Shm.is_fixed());
    /// assert!(!Kind::HugeTlb.is_fixed());
    /// ```
    pub fn is_fixed(self) -> bool {
        match self {
            Kind::DmaBuf | Kind::SysV => true,
            Kind::Memfd(seals) => seals.contains(Seals::SHRINK),
            Kind::Shm | Kind::HugeTlb => false,
        }
    }
}

/// The users who can change who may use a buffer, and its permissions.
///
/// It tells who may open the memory from now on. A process that opened, attached
/// or was sent it before is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ownership {
    /// The user who owns it.
    pub uid: u32,
    /// The user who made a System V segment, and keeps all rights of an owner
    /// where it is given to another one (`shm_perm.cuid` of shmctl(2)). For any
    /// other buffer it is the owner.
    pub creator: u32,
    /// The permissions: the bits of chmod(2).
    pub mode: u32,
}

impl Ownership {
    /// Returns whether this user both owns and made it, and nobody else has any
    /// right. Root always has.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// // A memfd has mode 0777: its handle decides, and not its mode.
    /// let ownership = Memfd::new().allocate(&Request::new(1))?.ownership()?;
    /// assert!(!ownership.is_only(ownership.uid));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_only(&self, uid: u32) -> bool {
        (self.uid, self.creator, self.mode & 0o077) == (uid, uid, 0)
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
/// let again = Buffer::from_fd(buffer.try_clone()?.into_fd()?)?;
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
    handle: Handle,
    size: u64,
    kind: Kind,
}

#[derive(Debug)]
pub(super) enum Handle {
    Fd(OwnedFd),
    Segment(Arc<Segment>),
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
        let buffer = Buffer::examined(fd).map_err(|(error, _fd)| error)?;
        let fd = buffer.fd()?;
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(os("fcntl(F_SETFD)", fd))?;
        Ok(buffer)
    }

    /// Takes a handle that closes on exec already, after asking the kernel what
    /// it is.
    pub(crate) fn examined(fd: OwnedFd) -> Result<Buffer, (BufferError, OwnedFd)> {
        match examine(fd.as_fd()) {
            Ok((kind, size)) => Ok(Buffer::new(fd, kind, size)),
            Err(error) => Err((error, fd)),
        }
    }

    /// Takes a handle that this crate has just made, closing on exec, of this
    /// kind and size, so that nobody needs to be asked.
    pub(crate) fn new(fd: OwnedFd, kind: Kind, size: u64) -> Buffer {
        Buffer {
            handle: Handle::Fd(fd),
            size,
            kind,
        }
    }

    /// Takes a System V segment, by its id (shmget(2)).
    ///
    /// It stays attached for as long as this buffer lives, so that its memory
    /// stays too, even where the segment is removed meanwhile.
    ///
    /// # Errors
    /// [`BufferError::Os`]: `EINVAL` where there is no such segment, `EACCES`
    /// where this process may not read it.
    ///
    /// ```
    /// use dmashare::buffer::{Buffer, BufferError};
    /// let refused = Buffer::from_segment(-1);
    /// assert!(matches!(refused, Err(BufferError::Os { operation: "shmat", .. })));
    /// ```
    pub fn from_segment(id: i32) -> Result<Buffer, BufferError> {
        let segment = Segment::open(id)?;
        Ok(Buffer {
            size: segment.size(),
            kind: match segment.lies_in_huge_pages() {
                true => Kind::HugeTlb,
                false => Kind::SysV,
            },
            handle: Handle::Segment(Arc::new(segment)),
        })
    }

    /// The file descriptor, to be passed or imported.
    ///
    /// # Errors
    /// [`BufferError::NoFd`] for a System V segment.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// let buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// let stat = rustix::fs::fstat(buffer.fd()?)?;
    /// assert_eq!(stat.st_size, 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fd(&self) -> Result<BorrowedFd<'_>, BufferError> {
        match &self.handle {
            Handle::Fd(fd) => Ok(fd.as_fd()),
            Handle::Segment(_) => Err(BufferError::NoFd { name: self.name() }),
        }
    }

    /// The id of a System V segment; `None` for all that has a file descriptor.
    pub fn segment(&self) -> Option<i32> {
        match &self.handle {
            Handle::Fd(_) => None,
            Handle::Segment(segment) => Some(segment.id()),
        }
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

    /// The users who can change who may use this memory, and its permissions
    /// now: by fstat(2), or `IPC_STAT`.
    ///
    /// # Errors
    /// [`BufferError::Os`] where the system call fails.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Request, SysV};
    /// let buffer = SysV::new().allocate(&Request::new(4096))?;
    /// let ownership = buffer.ownership()?;
    /// assert!(ownership.is_only(rustix::process::geteuid().as_raw()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "IPC_STAT")]
    #[doc(alias = "fstat")]
    pub fn ownership(&self) -> Result<Ownership, BufferError> {
        match &self.handle {
            Handle::Fd(fd) => {
                let stat = fs::fstat(fd).map_err(os("fstat", fd.as_fd()))?;
                Ok(Ownership {
                    uid: stat.st_uid,
                    creator: stat.st_uid,
                    mode: stat.st_mode & 0o777,
                })
            }
            Handle::Segment(segment) => segment.ownership(),
        }
    }

    /// The name the kernel gives it: `/dmabuf:NAME`, `/memfd:NAME` or a path;
    /// `System V segment ID` for one of those.
    pub fn name(&self) -> String {
        match &self.handle {
            Handle::Fd(fd) => describe(fd.as_fd()),
            Handle::Segment(segment) => segment::name(segment.id()),
        }
    }

    /// Gives the file descriptor away.
    ///
    /// # Errors
    /// [`BufferError::NoFd`] for a System V segment.
    pub fn into_fd(self) -> Result<OwnedFd, BufferError> {
        match self.handle {
            Handle::Fd(fd) => Ok(fd),
            Handle::Segment(_) => Err(BufferError::NoFd { name: self.name() }),
        }
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
        let handle = match &self.handle {
            Handle::Fd(fd) => Handle::Fd(clone_fd(fd.as_fd())?),
            Handle::Segment(segment) => Handle::Segment(Arc::clone(segment)),
        };
        Ok(Buffer { handle, ..*self })
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
    /// [`BufferError::NoFd`] for a System V segment.
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
        let fd = self.fd()?;
        fs::fcntl_add_seals(fd, seals).map_err(os("fcntl(F_ADD_SEALS)", fd))?;
        (self.kind, self.size) = examine(fd)?;
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
        self.map_part(0..self.size, access)
    }

    /// Maps a part of the buffer: the bytes of this range, which need not begin
    /// or end with a page. Offsets in the mapping count from its start.
    ///
    /// # Errors
    /// [`BufferError::Part`] for what is no part of the buffer, and those of
    /// [`map`](Self::map).
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::Access;
    /// let buffer = Memfd::new().allocate(&Request::new(1 << 20))?;
    /// let mut part = buffer.map_part(5000..5004, Access::Write)?;
    /// part.access(Access::Write)?.write_at(0, b"part")?;
    /// assert_eq!(part.size(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_part(&self, part: Range<u64>, access: Access) -> Result<Mapping, BufferError> {
        match self.kind {
            Kind::HugeTlb => Err(BufferError::HugeTlb { name: self.name() }),
            kind if !kind.is_fixed() => Err(BufferError::Shrinkable { name: self.name() }),
            _ => Mapping::new(self, self.size, part, access),
        }
    }

    /// Maps the whole buffer even where another holder can make it smaller, or
    /// take its pages away.
    ///
    /// One who does ends this process: an access beyond the end of a file is
    /// answered with SIGBUS (mmap(2)). Use it for peers that you trust, and
    /// [`read_at`](Self::read_at) for others.
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
        Mapping::new(self, self.size, 0..self.size, access)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Asks the kernel what this handle is, and how many bytes it has.
///
/// Its holder's word counts for nothing here, nor does a name in /proc.
pub(super) fn examine(fd: BorrowedFd<'_>) -> Result<(Kind, u64), BufferError> {
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
    // Seals first: only files in memory have them. Of the others only a dma-buf
    // can be meant, whose inode has no type. To ask for the file system of one
    // that has would wait for its server, on FUSE or a network.
    let seals = seals(fd)?;
    let what = match seals {
        Some(_) => "memory",
        None => what(fd)?,
    };
    let system = match (seals, what) {
        (Some(_), _) | (None, NAMELESS) => fs::fstatfs(fd).map_err(os("fstatfs", fd))?.f_type,
        (None, _) => 0,
    };
    match seals {
        Some(_) if system == HUGETLBFS => Ok(Kind::HugeTlb),
        // What tmpfs says of every file that was not made for sealing.
        Some(Seals::SEAL) => Ok(Kind::Shm),
        Some(seals) => Ok(Kind::Memfd(seals)),
        None if system == dma_buf::MAGIC => Ok(Kind::DmaBuf),
        None => Err(BufferError::NotABuffer {
            name: describe(fd),
            what,
        }),
    }
}

/// The seals that a handle has now; `None` where there can be none.
pub(super) fn seals(fd: BorrowedFd<'_>) -> Result<Option<Seals>, BufferError> {
    match fs::fcntl_get_seals(fd) {
        Ok(seals) => Ok(Some(seals)),
        Err(Errno::INVAL) => Ok(None),
        Err(errno) => Err(os("fcntl(F_GET_SEALS)", fd)(errno)),
    }
}

/// A handle without a file: a dma-buf, an eventfd and their like.
const NAMELESS: &str = "some other handle";

/// The type of a file as the kernel has it, without asking its server.
fn what(fd: BorrowedFd<'_>) -> Result<&'static str, BufferError> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = fs::statx(fd, "", flags, StatxFlags::TYPE).map_err(os("statx", fd))?;
    Ok(match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => "a plain file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => NAMELESS,
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
            printable(name.strip_suffix(" (deleted)").unwrap_or(&name))
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
