//! System V shared memory: shmget(2).

use std::fmt;
use std::path::Path;

use rustix::fs::{Mode, stat};
use rustix::io::Errno;

use super::{AllocError, Allocate, Limit, Owner, Request, Way};
use crate::buffer::{Buffer, BufferError};
use crate::sys::sysv;

/// A key, by which processes that know of each other by nothing else find the
/// same segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(i32);

impl Key {
    /// The key of a file and a number of the project's choice, as ftok(3) of
    /// the GNU C library makes it: bytes of the file's inode, of its device, and
    /// the number. It is the same for every program, but two files can have the
    /// same.
    ///
    /// # Errors
    /// [`AllocError::Os`] where there is no such file, and
    /// [`AllocError::PrivateKey`] where its numbers make the key 0.
    ///
    /// ```
    /// use dmashare::alloc::Key;
    /// let key = Key::of_path("/proc", b'd')?;
    /// assert!(key.to_string().starts_with("0x64"));
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn of_path(path: impl AsRef<Path>, project: u8) -> Result<Key, AllocError> {
        let path = path.as_ref();
        let stat = stat(path).map_err(|source| AllocError::Os {
            operation: "stat",
            name: path.display().to_string(),
            source,
            help: "a key is made of a file that exists".to_owned(),
        })?;
        let [inode, inode_high, ..] = stat.st_ino.to_le_bytes();
        let [device, ..] = stat.st_dev.to_le_bytes();
        let key = i32::from_le_bytes([inode, inode_high, device, project]);
        Key::new(key).ok_or_else(|| AllocError::PrivateKey {
            path: path.display().to_string(),
        })
    }

    /// This key; `None` for 0, which is `IPC_PRIVATE` and finds nothing.
    ///
    /// ```
    /// use dmashare::alloc::Key;
    /// assert!(Key::new(0).is_none());
    /// ```
    pub fn new(key: i32) -> Option<Key> {
        (key != sysv::PRIVATE).then_some(Key(key))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0) // as ipcs(1) shows it
    }
}

/// Allocates System V segments: shared memory that programs of any age find by
/// a key or an id.
///
/// A segment has no file descriptor, so no socket passes it and no device
/// imports it, and no name. Its size is fixed. The whole size counts against
/// the memory that the kernel may promise at once (`vm.overcommit_memory`).
///
/// [`allocate`](Allocate::allocate) gives one without a key, which is removed as
/// soon as it is attached: it goes with the last process that has it attached,
/// however that ends. Others attach it meanwhile by its id,
/// [`Buffer::segment`]; only who is killed between those calls leaves it behind.
///
/// # Other users
/// Any user can be the first to use a key, and can then give the segment to
/// another one by `IPC_SET`, keeping every right to it as its creator. So
/// [`open`](Self::open) checks the owner and the creator, on the segment that it
/// has attached: both must be the effective user of this process or root, unless
/// [`open_owned`](Self::open_owned) names another [`Owner`]. Who else may read
/// and write it, [`Buffer::ownership`] tells.
///
/// ```
/// use dmashare::alloc::{Allocate, Request, SysV};
/// use dmashare::buffer::{Buffer, Kind};
/// let buffer = SysV::new().allocate(&Request::new(4096))?;
/// assert_eq!(buffer.kind(), Kind::SysV);
/// let id = buffer.segment().expect("a segment has an id");
/// assert_eq!(Buffer::from_segment(id)?.size(), 4096); // another process, as a rule
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SysV;

impl SysV {
    /// Needs nothing but a kernel with `CONFIG_SYSVIPC`.
    pub fn new() -> SysV {
        SysV
    }

    /// Makes a segment of this key, which must have none. It stays until
    /// [`remove`](Self::remove), whoever lives or dies.
    ///
    /// # Errors
    /// [`AllocError::Os`]: `EEXIST` where there is one; and those of
    /// [`Allocate::allocate`].
    ///
    /// ```
    /// use dmashare::alloc::{Key, Mode, Request, SysV};
    /// let key = Key::new(i32::from_be_bytes(*b"doc1")).expect("not 0");
    /// let mode = Mode::RUSR | Mode::WUSR;
    /// let buffer = SysV::create(key, &Request::new(4096), mode)?;
    /// let again = SysV::open(key)?; // in another process, as a rule
    /// assert_eq!(again.segment(), buffer.segment());
    /// SysV::remove(key)?; // the memory lives on
    /// assert!(SysV::open(key).is_err());
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn create(key: Key, request: &Request, mode: Mode) -> Result<Buffer, AllocError> {
        let id = get(key.0, request, mode)?;
        // A key that leads to nothing usable is not to stay.
        attach(id, key.0).inspect_err(|_| {
            let _ = sysv::remove(id);
        })
    }

    /// Opens the segment of this key, which this process's effective user or
    /// root both owns and made; for reading alone where that is all one may.
    ///
    /// # Errors
    /// [`AllocError::Os`] where there is none, or with `EACCES` where it is not
    /// for this user, and [`AllocError::Owner`] where it is another user's.
    pub fn open(key: Key) -> Result<Buffer, AllocError> {
        SysV::open_owned(key, Owner::default())
    }

    /// As [`open`](Self::open), of a segment that `owner` owns and made.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    ///
    /// ```
    /// use dmashare::alloc::{AllocError, Key, Mode, Owner, Request, SysV};
    /// let key = Key::new(i32::from_be_bytes(*b"doc2")).expect("not 0");
    /// let _mine = SysV::create(key, &Request::new(1), Mode::RUSR | Mode::WUSR)?;
    /// let other = Owner::User(rustix::process::geteuid().as_raw() + 1);
    /// let refused = SysV::open_owned(key, other);
    /// SysV::remove(key)?;
    /// assert!(matches!(refused, Err(AllocError::Owner { .. })));
    /// # Ok::<(), AllocError>(())
    /// ```
    pub fn open_owned(key: Key, owner: Owner) -> Result<Buffer, AllocError> {
        let id = find(key)?;
        let name = || format!("System V key {key} (segment {id})");
        owned(attach(id, key.0)?, owner, name)
    }

    /// Opens the segment of this id, which `owner` owns and made. An id is that
    /// of a segment alone, where a key can be that of another one by now.
    ///
    /// # Errors
    /// [`AllocError::Buffer`] where there is none, or it is not for this user,
    /// and [`AllocError::Owner`] where it is another user's.
    pub fn open_id(id: i32, owner: Owner) -> Result<Buffer, AllocError> {
        let name = || format!("System V segment {id}");
        owned(Buffer::from_segment(id)?, owner, name)
    }

    /// Removes the segment of this key, whose memory lives on for those who
    /// have it attached.
    ///
    /// # Errors
    /// [`AllocError::Os`].
    pub fn remove(key: Key) -> Result<(), AllocError> {
        sysv::remove(find(key)?).map_err(os("shmctl(IPC_RMID)", key.0))
    }

    /// Removes the segment of this id, as [`remove`](Self::remove) does that of a
    /// key; ipcs(1) lists them.
    ///
    /// # Errors
    /// [`AllocError::Os`].
    ///
    /// ```
    /// use dmashare::alloc::{Key, Mode, Owner, Request, SysV};
    /// let key = Key::new(i32::from_be_bytes(*b"doc3")).expect("not 0");
    /// let buffer = SysV::create(key, &Request::new(1), Mode::RUSR | Mode::WUSR)?;
    /// let id = buffer.segment().expect("a segment has an id");
    /// SysV::open_id(id, Owner::this_user())?;
    /// SysV::remove_id(id)?;
    /// assert!(SysV::open(key).is_err());
    /// let error = SysV::remove_id(-1).unwrap_err().to_string();
    /// assert!(error.starts_with("System V segment -1: shmctl(IPC_RMID): "));
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn remove_id(id: i32) -> Result<(), AllocError> {
        let name = format!("System V segment {id}");
        sysv::remove(id).map_err(|source| failed("shmctl(IPC_RMID)", name, source, None))
    }
}

impl Allocate for SysV {
    fn way(&self) -> Way {
        Way::SysV
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        let id = get(sysv::PRIVATE, request, Mode::RUSR | Mode::WUSR)?;
        let buffer = attach(id, sysv::PRIVATE);
        // Attached or not: it is not to stay.
        let removed = sysv::remove(id).map_err(os("shmctl(IPC_RMID)", sysv::PRIVATE));
        let buffer = buffer?;
        removed?;
        Ok(buffer)
    }
}

/// The most that a segment can have. What all of them may have together
/// (SHMALL), and their number (SHMMNI), show only when one is made.
pub(super) fn largest() -> Limit {
    let limit = |file: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let shmmax = limit("/proc/sys/kernel/shmmax").map(|bytes| Limit {
        bytes,
        of: "SHMMAX (/proc/sys/kernel/shmmax)",
    });
    let shmall = limit("/proc/sys/kernel/shmall").map(|pages| Limit {
        bytes: pages.saturating_mul(rustix::param::page_size() as u64),
        of: "SHMALL (/proc/sys/kernel/shmall)",
    });
    super::request::LARGEST.or(shmmax).or(shmall)
}

/// A new segment.
fn get(key: i32, request: &Request, mode: Mode) -> Result<i32, AllocError> {
    request.fits(Way::SysV)?;
    let size = request.whole_pages()?;
    largest().admits(size)?;
    let size = usize::try_from(size).map_err(|_| AllocError::TooLarge {
        size,
        limit: usize::MAX as u64,
        of: "the address space",
    })?;
    let mode = (mode & Mode::from_raw_mode(0o777)).as_raw_mode();
    let mut flags = mode.cast_signed() | sysv::CREATE | sysv::EXCLUSIVE;
    if let Some(pages) = request.huge_pages {
        pages.at_hand(size as u64)?;
        flags |= sysv::HUGETLB | (pages.log2() << sysv::HUGE_SHIFT).cast_signed();
    }
    sysv::get(key, size, flags).map_err(os("shmget", key))
}

/// Attaches the segment of a key, which the error names.
fn attach(id: i32, key: i32) -> Result<Buffer, AllocError> {
    Buffer::from_segment(id).map_err(|error| match error {
        BufferError::Os {
            operation, source, ..
        } => os(operation, key)(source),
        other => AllocError::Buffer(other),
    })
}

/// Refuses a segment that `owner` did not both make and keep: a creator who gave
/// it away has not lost any right to it.
fn owned(
    buffer: Buffer,
    owner: Owner,
    name: impl FnOnce() -> String,
) -> Result<Buffer, AllocError> {
    let ownership = buffer.ownership()?;
    let users = [ownership.uid, ownership.creator];
    match users.into_iter().find(|uid| !owner.allows(*uid)) {
        None => Ok(buffer),
        Some(uid) => Err(AllocError::Owner {
            name: name(),
            uid,
            expected: owner,
        }),
    }
}

/// The id of the segment of this key.
fn find(key: Key) -> Result<i32, AllocError> {
    sysv::get(key.0, 0, 0).map_err(os("shmget", key.0))
}

fn os(operation: &'static str, key: i32) -> impl FnOnce(Errno) -> AllocError {
    move |source| {
        let key = Key::new(key);
        let name = match key {
            Some(key) => format!("System V key {key}"),
            None => "a new System V segment".to_owned(),
        };
        failed(operation, name, source, key)
    }
}

fn failed(operation: &'static str, name: String, source: Errno, key: Option<Key>) -> AllocError {
    AllocError::Os {
        operation,
        name,
        source,
        help: match (source, key) {
            (Errno::EXIST, Some(key)) => format!(
                "open it; or, where it was left behind, remove it by SysV::remove \
                 or `ipcrm --shmem-key {key}`"
            ),
            (Errno::NOENT, _) => "its maker has to create it first".to_owned(),
            (Errno::ACCESS, _) if operation == "shmat" => {
                "its mode does not let this user attach it".to_owned()
            }
            (Errno::ACCESS | Errno::PERM, _) => "it belongs to another user; for huge pages, \
                 see /proc/sys/vm/hugetlb_shm_group"
                .to_owned(),
            (Errno::INVAL | Errno::IDRM, None) if operation == "shmctl(IPC_RMID)" => {
                "there is no segment of this id: `ipcs -m` lists them".to_owned()
            }
            (Errno::NOSPC, _) => "remove segments that were left behind (ipcs -m), \
                 or raise /proc/sys/kernel/shmmni or shmall"
                .to_owned(),
            (Errno::NOMEM, _) => "free memory, or ask for less".to_owned(),
            (Errno::NOSYS, _) => {
                "the kernel needs CONFIG_SYSVIPC, or a security policy (seccomp) forbids it"
                    .to_owned()
            }
            _ => String::new(),
        },
    }
}
