//! POSIX shared memory: shm_open(3).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{
    self, FallocateFlags, FileType, Mode, OFlags, Stat, fallocate, fstat, ftruncate, statvfs,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::shm;

use super::{AllocError, Allocate, Limit, Owner, Request, Way};
use crate::buffer::Buffer;

const FOLDER: &str = "/dev/shm";

/// The longest name a file can have, in bytes.
const NAME_MAX: usize = 255;

/// How often a name is looked at again; see [`Posix::open_when_sized`].
const PAUSE: Duration = Duration::from_millis(1);

/// How much is set aside in a call, in bytes.
const PART: u64 = 64 << 20;

/// Flags of every open in this folder, where any user can plant a link, a FIFO
/// or a file with a lease: none is followed, and none makes the call wait.
const SHARED_FOLDER: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Allocates POSIX shared memory: files in `/dev/shm`, which other programs
/// open by a name they agree on, in any language.
///
/// It takes no seals, so that whoever opens it can make it smaller under the
/// others: it is [`Kind::Shm`](crate::buffer::Kind::Shm), and only
/// `map_shrinkable` maps it. A memfd is safer wherever a socket can pass it.
///
/// Its pages are set aside when it is made (fallocate(2)), so that there is an
/// error then, and no SIGBUS later, where `/dev/shm` or the memory has no room for
/// it. [`Request::unreserved`] takes them as they are touched.
///
/// [`allocate`](Allocate::allocate) gives memory without a name: it has one for
/// the moment between two calls, that nobody knows.
///
/// # Other users
/// Any user can be the first to use a name in `/dev/shm`. What is promised of
/// [`open`](Self::open) and its like:
/// - A symbolic link is refused (`ELOOP`). A FIFO, a socket and a file with a
///   lease do not make the call wait.
/// - The type, the owner and the number of names are checked on the object that
///   was opened. Its owner must be the effective user of this process or root,
///   unless [`open_owned`](Self::open_owned) names another [`Owner`]. A file of
///   several names (hard links) is refused, since its owner need not have made
///   this one.
/// - Nothing is promised of the content: whoever may write to the object can
///   change it at any time.
///
/// ```
/// use dmashare::alloc::{Mode, Posix, Request};
/// use dmashare::buffer::Access;
/// let name = format!("dmashare-doc-{}", std::process::id());
/// let mode = Mode::RUSR | Mode::WUSR;
/// let buffer = Posix::create(&name, &Request::new(4096), mode)?;
/// buffer.map_shrinkable(Access::Write)?.access(Access::Write)?.fill(7)?;
///
/// let again = Posix::open(&name)?; // in another process, as a rule
/// Posix::unlink(&name)?; // the memory lives on
/// let mut byte = [0];
/// let mut mapping = again.map_shrinkable(Access::Read)?;
/// mapping.access(Access::Read)?.read_at(4095, &mut byte)?;
/// assert_eq!(byte, [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Posix;

impl Posix {
    /// Needs nothing but `/dev/shm`.
    pub fn new() -> Posix {
        Posix
    }

    /// Makes memory of this name, which must not exist. It stays until
    /// [`unlink`](Self::unlink), whoever lives or dies.
    ///
    /// As with every file, the process's umask takes from `mode`.
    ///
    /// # Errors
    /// [`AllocError::Os`]: `EEXIST` where there is one; and those of
    /// [`Allocate::allocate`].
    pub fn create(name: &str, request: &Request, mode: Mode) -> Result<Buffer, AllocError> {
        request.fits(Way::Posix)?;
        let name = file_name(name)?;
        let size = size(request)?;
        let fd = make(name, mode)?;
        // A name that leads to nothing is not to stay.
        sized(fd, name, size, request).inspect_err(|_| {
            let _ = shm::unlink(name);
        })
    }

    /// Opens the memory of this name, which belongs to this process's effective
    /// user or to root; for reading alone where that is all one may.
    ///
    /// # Errors
    /// [`AllocError::Os`] where it cannot be opened: `ELOOP` for a link.
    /// [`AllocError::Owner`] and [`AllocError::Linked`] where it can be another
    /// user's, and [`AllocError::Buffer`] for what is no memory, or has no size
    /// yet.
    ///
    /// ```
    /// use dmashare::alloc::Posix;
    /// let error = Posix::open("/no such memory").unwrap_err();
    /// assert!(error.to_string().starts_with("/dev/shm/no such memory: shm_open: No such"));
    /// ```
    pub fn open(name: &str) -> Result<Buffer, AllocError> {
        Posix::open_owned(name, Owner::default())
    }

    /// As [`open`](Self::open), of memory that belongs to `owner`.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    ///
    /// ```
    /// use dmashare::alloc::{AllocError, Mode, Owner, Posix, Request};
    /// let name = format!("dmashare-doc-owned-{}", std::process::id());
    /// let _mine = Posix::create(&name, &Request::new(1), Mode::RUSR | Mode::WUSR)?;
    /// let other = Owner::User(rustix::process::geteuid().as_raw() + 1);
    /// let refused = Posix::open_owned(&name, other);
    /// let opened = Posix::open_owned(&name, Owner::Anyone);
    /// Posix::unlink(&name)?;
    /// assert!(matches!(refused, Err(AllocError::Owner { .. })));
    /// assert!(opened.is_ok());
    /// # Ok::<(), AllocError>(())
    /// ```
    pub fn open_owned(name: &str, owner: Owner) -> Result<Buffer, AllocError> {
        let name = file_name(name)?;
        Ok(Buffer::from_fd(open(name, owner)?)?)
    }

    /// As [`open`](Self::open), but waits while it has no size: a maker makes
    /// the name first, and sets the size in a second call.
    ///
    /// It looks again every millisecond. inotify(7) would tell at once, but
    /// takes one of the few instances a user has, and a wait that is over after
    /// a call or two is not worth one.
    ///
    /// # Errors
    /// [`AllocError::Os`] with `ETIMEDOUT` where it got no size in time, and
    /// those of [`open`](Self::open). What can have no size, such as a FIFO, is
    /// not waited for.
    pub fn open_when_sized(name: &str, timeout: Duration) -> Result<Buffer, AllocError> {
        let name = file_name(name)?;
        let fd = open(name, Owner::default())?;
        let started = Instant::now();
        while fstat(&fd).map_err(os("fstat", name))?.st_size == 0 {
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(os("wait for its size", name)(Errno::TIMEDOUT));
            }
            std::thread::sleep(left.min(PAUSE));
        }
        Ok(Buffer::from_fd(fd)?)
    }

    /// Takes the name from this memory, which lives on for those who have it
    /// open.
    ///
    /// # Errors
    /// [`AllocError::Os`].
    pub fn unlink(name: &str) -> Result<(), AllocError> {
        let name = file_name(name)?;
        shm::unlink(name).map_err(os("shm_unlink", name))
    }
}

impl Allocate for Posix {
    fn way(&self) -> Way {
        Way::Posix
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        request.fits(Way::Posix)?;
        let size = size(request)?;
        // What /proc/PID/maps shows. The number cannot be guessed, so that
        // nobody can be there first.
        let label = request.name.replace('/', "_");
        let number = RandomState::new().build_hasher().finish();
        let name = format!("{label}.{}.{number:016x}", std::process::id());
        let fd = make(&name, Mode::RUSR | Mode::WUSR)?;
        shm::unlink(&name).map_err(os("shm_unlink", &name))?;
        sized(fd, &name, size, request)
    }
}

/// The size of what is asked for, if there is room for it now.
fn size(request: &Request) -> Result<u64, AllocError> {
    let size = match request.unreserved {
        true => request.whole_pages()?,
        // All of it is taken at once.
        false => request.pages_at_hand()?,
    };
    room()?.admits(size)?;
    Ok(size)
}

/// The most that a buffer can have now. Someone else may take the room meanwhile.
pub(super) fn room() -> Result<Limit, AllocError> {
    let stat = statvfs(FOLDER).map_err(|source| AllocError::Os {
        operation: "statvfs",
        name: FOLDER.to_owned(),
        source,
        help: help("statvfs", source).to_owned(),
    })?;
    // A tmpfs mounted with size=0 is bounded by memory alone.
    let unbounded = stat.f_blocks == 0;
    Ok(Limit {
        bytes: match unbounded {
            true => super::request::LARGEST.bytes,
            false => stat.f_bavail.saturating_mul(stat.f_frsize),
        },
        of: "the room left in /dev/shm",
    })
}

/// Gives a new file its pages, and then its size: whoever waits for that finds
/// all of it.
fn sized(fd: OwnedFd, name: &str, size: u64, request: &Request) -> Result<Buffer, AllocError> {
    let mut at = 0;
    while !request.unreserved && at < size {
        // In parts: a signal undoes one.
        let len = PART.min(size - at);
        retry_on_intr(|| fallocate(&fd, FallocateFlags::KEEP_SIZE, at, len))
            .map_err(os("fallocate", name))?;
        at += len;
    }
    ftruncate(&fd, size).map_err(os("ftruncate", name))?;
    Ok(Buffer::from_fd(fd)?)
}

/// A new file of this name.
fn make(name: &str, mode: Mode) -> Result<OwnedFd, AllocError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | SHARED_FOLDER;
    fs::open(path(name), flags, mode).map_err(os("shm_open", name))
}

/// The file of this name, if it can be one of `owner`'s objects.
fn open(name: &str, owner: Owner) -> Result<OwnedFd, AllocError> {
    let open = |access| fs::open(path(name), access | SHARED_FOLDER, Mode::empty());
    let fd = match open(OFlags::RDWR) {
        Err(Errno::ACCESS) => open(OFlags::RDONLY),
        opened => opened,
    }
    .map_err(os("shm_open", name))?;
    let stat = fstat(&fd).map_err(os("fstat", name))?;
    check(name, &stat, owner)?;
    Ok(fd)
}

/// Refuses what is no object of `owner`'s making.
fn check(name: &str, stat: &Stat, owner: Owner) -> Result<(), AllocError> {
    let name = path(name);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if !owner.allows(stat.st_uid) => Err(AllocError::Owner {
            name,
            uid: stat.st_uid,
            expected: owner,
        }),
        // Without fs.protected_hardlinks anyone can give a file of ours a name
        // more.
        FileType::RegularFile if owner != Owner::Anyone && stat.st_nlink > 1 => {
            Err(AllocError::Linked { name })
        }
        FileType::RegularFile => Ok(()),
        other => Err(AllocError::NotAnObject {
            name,
            what: match other {
                FileType::Fifo => "a FIFO",
                FileType::Directory => "a directory",
                FileType::Socket => "a socket",
                _ => "a device node",
            },
        }),
    }
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// The name as shm_open(3) wants it, without the slash it may begin with.
fn file_name(name: &str) -> Result<&str, AllocError> {
    let file = name.strip_prefix('/').unwrap_or(name);
    let problem = match file {
        "" | "." | ".." => "no name of a file",
        _ if file.contains('/') => "a slash that is not its first byte",
        _ if file.contains('\0') => "a NUL byte",
        _ if file.len() > NAME_MAX => "more than 255 bytes",
        _ => return Ok(file),
    };
    Err(AllocError::Name {
        name: name.to_owned(),
        problem,
    })
}

fn os(operation: &'static str, name: &str) -> impl FnOnce(Errno) -> AllocError {
    move |source| AllocError::Os {
        operation,
        name: path(name),
        source,
        help: help(operation, source).to_owned(),
    }
}

fn help(operation: &str, source: Errno) -> &'static str {
    match (operation, source) {
        ("shm_open", Errno::EXIST) => {
            "open it; or, where it was left behind, remove it by Posix::unlink"
        }
        ("shm_open", Errno::NOENT) => "its maker has to create it first; or mount tmpfs there",
        ("shm_open", Errno::LOOP) => {
            "a symbolic link has this name, and is not followed: whoever made it may want you to \
             use another file; remove it by Posix::unlink, or choose another name"
        }
        ("shm_open", Errno::NXIO | Errno::ISDIR) => {
            "a socket or a directory has this name: remove it, or choose another name"
        }
        ("shm_open", Errno::AGAIN) => {
            "its owner holds a lease on it (fcntl(2)): choose another name"
        }
        ("statvfs", Errno::NOENT) => "mount tmpfs there",
        ("shm_open" | "shm_unlink", Errno::ACCESS | Errno::PERM) => {
            "it belongs to another user, or the folder is not for everyone (mode 1777)"
        }
        ("wait for its size", _) => "its maker has not set one by ftruncate(2)",
        (_, Errno::NOSPC) => {
            "free memory, raise the size of that tmpfs, or take pages as they are touched \
             (Request::unreserved)"
        }
        (_, Errno::FBIG) => "raise RLIMIT_FSIZE, or ask for less",
        (_, Errno::MFILE) => "close handles or raise RLIMIT_NOFILE",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_shm_open() {
        let longest = "n".repeat(NAME_MAX);
        for (name, file) in [
            ("/a", "a"),
            ("a", "a"),
            ("...", "..."),
            (&longest, &longest),
        ] {
            assert_eq!(file_name(name), Ok(file));
        }
        let long = "n".repeat(NAME_MAX + 1);
        for name in ["", "/", "//a", "/.", "..", "a/b", "/a/", "a\0b", &long] {
            let refused = file_name(name);
            assert!(matches!(refused, Err(AllocError::Name { .. })), "{name:?}");
        }
    }
}
