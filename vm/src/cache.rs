//! The folder that keeps what took long to make.
//!
//! What it keeps are *artefacts*: folders named by a kind and a key
//! (`kernel/7.2.13+deb14-amd64`) that are made once, whole or not at all. Two
//! runs at once share: the second waits for the first. A run that was killed
//! leaves nothing that a later one would take for good.
//!
//! ```
//! use dmashare_vm::cache::{Cache, Error};
//! # let folder = std::env::temp_dir().join(format!("cache-doc-{}", std::process::id()));
//! let cache = Cache::at(&folder)?;
//! let greeting = cache.artefact("greeting", "en", 1024, |folder| -> Result<(), Error> {
//!     // Runs only where the artefact is missing or damaged.
//!     std::fs::write(folder.join("hello"), "Hello").map_err(Error::io("write", folder))
//! })?;
//! assert_eq!(std::fs::read_to_string(greeting.join("hello")).unwrap(), "Hello");
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), Error>(())
//! ```

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock, flock, statvfs};
use serde::{Deserialize, Serialize};

use crate::digest::{self, Item};
use crate::progress::{note, size};

/// Marks an artefact that is whole; holds what [`Stamp`] says.
const STAMP: &str = ".complete";
/// A folder in an artefact for passing work: not part of what is checked.
pub(crate) const SCRATCH: &str = "scratch";
/// What a folder in the making is called, after its key.
pub(crate) const MAKING: &str = ".making";
/// Kinds whose every run fills the folder under one lock, which has the kind's
/// name: they are no artefacts.
const FILLED: [&str; 3] = ["apt", "debs", "plans"];
/// What stat(2) counts blocks in, whatever the file system's are.
pub(crate) const BLOCK: u64 = 512;
/// Below this, a failure is put down to the full disk.
const NEARLY_FULL: u64 = 1 << 20;
/// What the kernel says then, ENOSPC.
const NO_SPACE: &str = "No space left on device";
/// What to do about it.
const NO_SPACE_ADVICE: &str =
    "free some space or set DMASHARE_VM_CACHE to a folder on another disk";

/// Why the cache cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no place for the folder.
    #[error(
        "no cache folder: none of DMASHARE_VM_CACHE, XDG_CACHE_HOME and HOME is set; set DMASHARE_VM_CACHE to a folder"
    )]
    NoFolder,
    /// The folder's name cannot be written into apt's configuration.
    #[error(
        "{}: a cache folder's name must be UTF-8 without quotes or line ends; set DMASHARE_VM_CACHE to another folder", .0.display()
    )]
    Name(PathBuf),
    /// The cache, or a folder that it is in, belongs to somebody else.
    #[error(
        "{}: belongs to user {owner}, who could replace what is run from the cache {}; set DMASHARE_VM_CACHE to a folder of your own", .path.display(), .cache.display()
    )]
    NotOurs {
        /// The cache.
        cache: PathBuf,
        /// What belongs to another.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write to the cache, or replace it.
    #[error(
        "{}: other users may write here (mode {mode:04o}), and could replace what is run from the cache {}; run `chmod go-w {}`, or set DMASHARE_VM_CACHE to a folder of your own", .path.display(), .cache.display(), .path.display()
    )]
    OpenToOthers {
        /// The cache.
        cache: PathBuf,
        /// What they may write to.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A folder of the cache is a link.
    #[error(
        "{}: is a link, and nothing in a cache is found through one; remove it, or set DMASHARE_VM_CACHE to the folder that the cache is to be in", .0.display()
    )]
    Link(PathBuf),
    /// The kernel refused an operation on a file or folder.
    #[error("{}: cannot {operation}: {source}", .path.display())]
    Io {
        /// What was tried, a verb: `write`, `rename`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk is full, or would be.
    #[error(
        "{}: {what} needs about {} and {} is free; {NO_SPACE_ADVICE}",
        .folder.display(), size(*.need), size(*.free)
    )]
    NoSpace {
        /// The cache's folder.
        folder: PathBuf,
        /// What was to be made.
        what: String,
        /// Bytes it takes, estimated.
        need: u64,
        /// Bytes that are free to this user.
        free: u64,
    },
}

impl Error {
    /// Gives an [`io::Error`] the operation and the path, for `map_err`.
    pub fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}

/// The cache folder, open.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// What one artefact takes on the disk: a row of [`Cache::sizes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// The kind: `kernel`, `root`, `debs`.
    pub kind: String,
    /// The key within the kind.
    pub key: String,
    /// Bytes that its files take on the disk: fewer than they are long where they
    /// have holes, as a guest's memory has.
    pub bytes: u64,
    /// When it was last made or asked for.
    pub last_used: SystemTime,
}

/// A lock that other processes see, until it is dropped (or its process ends).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// How many files an artefact has, how many bytes are in them, and a digest of all of
/// it. Files cut short or deleted are seen at once. What is in them is read anew where
/// the kernel's word on them is another than when it was read last, and after a boot of
/// the host: 4,500 files of a kernel take some 20 ms to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    files: u64,
    bytes: u64,
    /// [`digest::of_contents`]; none where an earlier version made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// [`digest::of_metadata`] of when it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<String>,
}

impl Cache {
    /// Opens the user's cache: `$DMASHARE_VM_CACHE`, else
    /// `$XDG_CACHE_HOME/dmashare-vm`, else `~/.cache/dmashare-vm`
    /// (the XDG base directory specification: a relative path does not count).
    ///
    /// # Errors
    /// [`Error::NoFolder`], or what [`Cache::at`] gives.
    ///
    /// ```
    /// // `cargo test` has a HOME; the folder is made by the first call.
    /// let cache = dmashare_vm::cache::Cache::open()?;
    /// assert!(cache.folder().is_dir());
    /// # Ok::<(), dmashare_vm::cache::Error>(())
    /// ```
    pub fn open() -> Result<Self, Error> {
        let from = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = from("DMASHARE_VM_CACHE")
            .or_else(|| {
                from("XDG_CACHE_HOME")
                    .filter(|path| path.is_absolute())
                    .map(|path| path.join("dmashare-vm"))
            })
            .or_else(|| from("HOME").map(|path| path.join(".cache/dmashare-vm")))
            .ok_or(Error::NoFolder)?;
        Self::at(folder)
    }

    /// Opens a cache in `folder`, making it where it is missing (for its owner alone),
    /// and removes what killed runs left half-made.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder cannot be made or written to,
    /// [`Error::Name`] for a name that apt could not be told. [`Error::NotOurs`],
    /// [`Error::OpenToOthers`] and [`Error::Link`] where another user could have put
    /// something there, or could replace it.
    pub fn at(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = std::path::absolute(folder.as_ref()).map_err(Error::io("find", folder))?;
        let name = folder.to_str().ok_or_else(|| Error::Name(folder.clone()))?;
        if name.contains(['"', '\n', '\r']) {
            return Err(Error::Name(folder));
        }
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&folder);
        made.map_err(Error::io("make the folder", &folder))?;
        // Without links in it, one of which could point elsewhere in a moment.
        let folder = folder.canonicalize().map_err(Error::io("find", &folder))?;
        guard(&folder)?;
        let locks = folder.join("locks");
        fs::create_dir_all(&locks).map_err(Error::io("make the folder", &locks))?;
        let cache = Self { folder };
        cache.sweep();
        Ok(cache)
    }

    /// The folder, absolute.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the lock called `name`, waiting for another process that has it.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// ```
    /// # let folder = std::env::temp_dir().join(format!("lock-doc-{}", std::process::id()));
    /// let cache = dmashare_vm::cache::Cache::at(&folder)?;
    /// let lock = cache.lock("snapshots")?;
    /// // ... what no other run may do at the same time ...
    /// drop(lock);
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok::<(), dmashare_vm::cache::Error>(())
    /// ```
    pub fn lock(&self, name: &str) -> Result<Lock, Error> {
        // Most are held for moments: say something only where it takes long.
        for _ in 0..10 {
            if let Some(lock) = self.try_lock(name)? {
                return Ok(lock);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        note(&format!("waiting for another run that holds {name}"));
        let (path, file) = self.lock_file(name)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("lock", path)(errno.into())),
            }
        }
    }

    /// The folder of the artefact `kind`/`key`; `make` fills it where it is
    /// missing or damaged. `need` is how many bytes making takes, about: told
    /// when the disk has less, before anything is written.
    ///
    /// `make` gets an empty folder, which becomes the artefact when `make`
    /// returns `Ok` and is removed when it does not.
    ///
    /// # Errors
    /// What `make` gives, [`Error::NoSpace`] and [`Error::Io`].
    pub fn artefact<E>(
        &self,
        kind: &str,
        key: &str,
        need: u64,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E>
    where
        E: From<Error> + std::fmt::Display,
    {
        let what = format!("{kind} {key}");
        let folder = self.folder.join(kind).join(key);
        let _lock = self.lock(&format!("{kind}.{key}"))?;
        match self.check(&folder) {
            Check::Whole => {
                touch(&folder);
                return Ok(folder);
            }
            Check::Missing => {}
            Check::Damaged => {
                note(&format!("{} is damaged: making it anew", folder.display()));
            }
        }
        remove(&folder)?;

        let making = self.folder.join(kind).join(format!("{key}{MAKING}"));
        remove(&making)?;
        self.room_for(&what, need)?;
        fs::create_dir_all(&making).map_err(Error::io("make the folder", &making))?;
        let made = make(&making).and_then(|()| {
            self.seal(&making)?;
            fs::rename(&making, &folder).map_err(Error::io("rename", &making))?;
            Ok(())
        });
        if let Err(error) = made {
            // Asked before the removal, which frees what filled the disk.
            let error = self.explain(&what, need, error);
            remove(&making)?;
            return Err(error);
        }
        Ok(folder)
    }

    /// The folder of the artefact `kind`/`key`, where it is there and whole: to
    /// ask for it is to use it.
    pub(crate) fn whole(&self, kind: &str, key: &str) -> Option<PathBuf> {
        let folder = self.folder.join(kind).join(key);
        let Check::Whole = self.check(&folder) else {
            return None;
        };
        touch(&folder);
        Some(folder)
    }

    /// Removes the artefact `kind`/`key`; a missing one is fine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn remove(&self, kind: &str, key: &str) -> Result<(), Error> {
        let _lock = self.lock(&format!("{kind}.{key}"))?;
        remove(&self.folder.join(kind).join(key))
    }

    /// Fails where the disk has less than `need` bytes for `what`.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn room_for(&self, what: &str, need: u64) -> Result<(), Error> {
        let free = self.free()?;
        if free >= need {
            return Ok(());
        }
        Err(Error::NoSpace {
            folder: self.folder.clone(),
            what: what.to_owned(),
            need,
            free,
        })
    }

    /// What is in the cache and what it takes, in order of kind and key.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// ```
    /// # let folder = std::env::temp_dir().join(format!("sizes-doc-{}", std::process::id()));
    /// let cache = dmashare_vm::cache::Cache::at(&folder)?;
    /// for entry in cache.sizes()? {
    ///     println!("{}/{}: {} bytes", entry.kind, entry.key, entry.bytes);
    /// }
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok::<(), dmashare_vm::cache::Error>(())
    /// ```
    pub fn sizes(&self) -> Result<Vec<Size>, Error> {
        let mut sizes = Vec::new();
        for kind in entries(&self.folder)? {
            for (key, path) in entries(&self.folder.join(&kind.0))? {
                // Another run may have removed it by now.
                if fs::symlink_metadata(&path).is_err() {
                    continue;
                }
                sizes.push(Size {
                    kind: kind.0.clone(),
                    key,
                    bytes: self.size_of(&path),
                    last_used: last_used(&path),
                });
            }
        }
        sizes.sort_by(|a, b| (&a.kind, &a.key).cmp(&(&b.kind, &b.key)));
        Ok(sizes)
    }

    /// Bytes that all files in `folder` take on the disk, with passing work; 0
    /// where there is none.
    pub(crate) fn size_of(&self, folder: &Path) -> u64 {
        let on_disk = |folder: &Path| measure(folder).map_or(0, |found| found.on_disk);
        on_disk(folder) + on_disk(&folder.join(SCRATCH))
    }

    /// Removes the artefact `kind`/`key`, or says that it is in use: made now,
    /// worked in, or a disk of a running guest.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// ```
    /// # use dmashare_vm::cache::{Cache, Error};
    /// # let folder = std::env::temp_dir().join(format!("discard-doc-{}", std::process::id()));
    /// let cache = Cache::at(&folder)?;
    /// let made = cache.artefact("kind", "key", 1, |_| Ok::<(), Error>(()))?;
    /// assert!(cache.discard("kind", "key")?);
    /// assert!(!made.exists());
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn discard(&self, kind: &str, key: &str) -> Result<bool, Error> {
        // Its maker holds the lock of what it is to be.
        let made = key.strip_suffix(MAKING).unwrap_or(key);
        let ours = match FILLED.contains(&kind) {
            true => kind.to_owned(),
            false => format!("{kind}.{made}"),
        };
        // Whoever works in one holds a lock with its key, too.
        let mut locks = Vec::new();
        let theirs = entries(&self.folder.join("locks"))?
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with(&format!(".{made}")) && *name != ours);
        for name in std::iter::once(ours.clone()).chain(theirs) {
            let Some(lock) = self.try_lock(&name)? else {
                return Ok(false);
            };
            locks.push(lock);
        }
        let path = self.folder.join(kind).join(key);
        for (_, file) in entries(&path)? {
            if is_disk_of_guest(&file)? {
                return Ok(false);
            }
        }
        remove(&path)?;
        Ok(true)
    }

    /// Puts an error down to the full disk where that is what it is; `what`
    /// takes about `need` bytes.
    pub(crate) fn explain<E>(&self, what: &str, need: u64, error: E) -> E
    where
        E: From<Error> + std::fmt::Display,
    {
        let Ok(free) = self.free() else {
            return error;
        };
        let text = error.to_string();
        // Programs say it in the words of strerror(3), or not at all. Where there
        // is room for it here, they speak of another disk.
        let said = text.contains(NO_SPACE) && free < need;
        if !(said || free < NEARLY_FULL) || text.contains(NO_SPACE_ADVICE) {
            return error;
        }
        Error::NoSpace {
            folder: self.folder.clone(),
            what: what.to_owned(),
            need,
            free,
        }
        .into()
    }

    fn free(&self) -> Result<u64, Error> {
        free(&self.folder)
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), Error> {
        let path = self.folder.join("locks").join(name);
        let file = File::options()
            .create(true)
            .append(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Ok((path, file))
    }

    fn try_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        let (path, file) = self.lock_file(name)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::io("lock", path)(errno.into())),
        }
    }

    /// Whether an artefact is as it was made.
    fn check(&self, folder: &Path) -> Check {
        match fs::symlink_metadata(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Check::Missing,
            Ok(stat) if stat.is_dir() => {}
            _ => return Check::Damaged,
        }
        let stamp: Option<Stamp> = open_plain(&folder.join(STAMP))
            .ok()
            .and_then(|file| serde_json::from_reader(io::BufReader::new(file)).ok());
        let (Some(stamp), Ok(found)) = (stamp, measure(folder)) else {
            return Check::Damaged;
        };
        if (stamp.files, stamp.bytes) != (found.files, found.bytes) {
            return Check::Damaged;
        }
        let seen = digest::of_metadata(&digest::host_boot(), &found.items);
        if stamp.digest.is_some() && stamp.seen.as_ref() == Some(&seen) {
            return Check::Whole;
        }
        let Ok(digest) = digest::of_contents(folder, &found.items) else {
            return Check::Damaged;
        };
        if stamp.digest.is_some_and(|known| known != digest) {
            return Check::Damaged;
        }
        // Where it cannot be written, it is read again the next time.
        let _ = self.stamp(folder, &found, digest, seen);
        Check::Whole
    }

    /// Writes the stamp of a folder that is whole.
    fn seal(&self, folder: &Path) -> Result<(), Error> {
        let found = measure(folder)?;
        let digest =
            digest::of_contents(folder, &found.items).map_err(Error::io("read", folder))?;
        let seen = digest::of_metadata(&digest::host_boot(), &found.items);
        self.stamp(folder, &found, digest, seen)
    }

    fn stamp(
        &self,
        folder: &Path,
        found: &Found,
        digest: String,
        seen: String,
    ) -> Result<(), Error> {
        let stamp = Stamp {
            files: found.files,
            bytes: found.bytes,
            digest: Some(digest),
            seen: Some(seen),
        };
        let path = folder.join(STAMP);
        let write = || {
            // Not in the folder: another run may be counting its files now.
            let mut file = tempfile::NamedTempFile::new_in(self.folder.join("locks"))?;
            serde_json::to_writer(&mut file, &stamp)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        write().map(drop).map_err(Error::io("write", &path))
    }

    /// Removes what is half-made and in no one's hands, as far as it can be: what
    /// stays (another user's, or one that a program is still writing to) is in
    /// nobody's way until it is to be made, which says what is wrong with it.
    fn sweep(&self) {
        for (kind, path) in entries(&self.folder).unwrap_or_default() {
            for (name, path) in entries(&path).unwrap_or_default() {
                match name.strip_suffix(MAKING) {
                    Some(key) => self.sweep_one(&format!("{kind}.{key}"), &path),
                    // What is behind a link is not the cache's.
                    None if path.is_symlink() => {}
                    None => self.sweep_scratch(&name, &path.join(SCRATCH)),
                }
            }
        }
    }

    /// The same of work in the artefact `key`, which is under a lock `WORK.KEY`.
    /// What else is there has no such lock, and is for all that work.
    fn sweep_scratch(&self, key: &str, scratch: &Path) {
        for (work, path) in entries(scratch).unwrap_or_default() {
            let lock = format!("{work}.{key}");
            if self.folder.join("locks").join(&lock).exists() {
                self.sweep_one(&lock, &path);
            }
        }
    }

    fn sweep_one(&self, lock: &str, path: &Path) {
        if let Ok(Some(_lock)) = self.try_lock(lock) {
            let _ = remove(path);
        }
    }
}

/// Bytes that are free to this user on the disk of `folder`.
fn free(folder: &Path) -> Result<u64, Error> {
    let stat = statvfs(folder)
        .map_err(|errno| Error::io("ask the free space of", folder)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether the disk of `folder` is full.
pub(crate) fn is_full(folder: &Path) -> bool {
    free(folder).is_ok_and(|free| free < NEARLY_FULL)
}

/// Whether a running QEMU has `file` as a disk: it holds a record lock on each
/// as long as it lives (its option `locking=auto`).
fn is_disk_of_guest(file: &Path) -> Result<bool, Error> {
    if file
        .extension()
        .is_none_or(|extension| extension != "erofs")
    {
        return Ok(false);
    }
    let mut options = File::options();
    let options = options.read(true).write(true);
    let open = options.custom_flags(libc::O_NOFOLLOW).open(file);
    let open = open.map_err(Error::io("open", file))?;
    match fcntl_lock(&open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(true),
        Err(errno) => Err(Error::io("lock", file)(errno.into())),
    }
}

/// Notes that an artefact is of use. Of no harm where it fails: it only seems
/// older.
fn touch(folder: &Path) {
    let mut options = File::options();
    let options = options.write(true).custom_flags(libc::O_NOFOLLOW);
    let stamp = options.open(folder.join(STAMP));
    let _ = stamp.and_then(|stamp| stamp.set_modified(SystemTime::now()));
}

pub(crate) fn last_used(path: &Path) -> SystemTime {
    let stamp = fs::symlink_metadata(path.join(STAMP)).and_then(|stat| stat.modified());
    stamp.unwrap_or_else(|_| {
        // Not when it was written: a package has that time from the mirror.
        let changed = fs::symlink_metadata(path).map_or(0, |stat| stat.ctime());
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(changed).unwrap_or(0))
    })
}

/// What is under a path.
#[derive(Default)]
struct Found {
    files: u64,
    bytes: u64,
    /// In the order of their paths.
    items: Vec<Item>,
    /// In bytes, in which the disk has them, holes left out.
    on_disk: u64,
}

impl Found {
    fn add(&mut self, path: PathBuf, stat: fs::Metadata) {
        self.files += 1;
        self.bytes += stat.len();
        self.on_disk += stat.blocks() * BLOCK;
        self.items.push(Item { path, stat });
    }
}

enum Check {
    Whole,
    Missing,
    Damaged,
}

/// Opens a regular file to read, and follows no link to it.
fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path)
}

/// Refuses a cache that is not this user's own: programs of it are run on the host, and
/// its files are removed.
fn guard(cache: &Path) -> Result<(), Error> {
    // A user of another user namespace, as the host's root can be in a container.
    const OVERFLOW: u32 = 65534;
    let us = rustix::process::geteuid().as_raw();
    let look = |path: &Path| fs::symlink_metadata(path).map_err(Error::io("look at", path));
    let not_ours = |path: &Path, stat: &fs::Metadata| Error::NotOurs {
        cache: cache.to_owned(),
        path: path.to_owned(),
        owner: stat.uid(),
    };
    let open_to_others = |path: &Path, stat: &fs::Metadata| Error::OpenToOthers {
        cache: cache.to_owned(),
        path: path.to_owned(),
        mode: stat.mode() & 0o7777,
    };
    let own = |path: &Path, stat: &fs::Metadata| match stat.uid() == us {
        false => Err(not_ours(path, stat)),
        true if stat.mode() & 0o022 != 0 => Err(open_to_others(path, stat)),
        true => Ok(()),
    };
    let folder = look(cache)?;
    own(cache, &folder)?;
    for above in cache.ancestors().skip(1) {
        let stat = look(above)?;
        if ![0, us, OVERFLOW].contains(&stat.uid()) {
            return Err(not_ours(above, &stat));
        }
        // In a folder like /tmp nobody else may rename what is ours.
        if stat.mode() & 0o1002 == 0o002 {
            return Err(open_to_others(above, &stat));
        }
    }
    // Where nobody else gets in, it does not matter what they could do there.
    let closed = folder.mode() & 0o011 == 0;
    for (_, kind) in entries(cache)? {
        let stat = match look(&kind) {
            // Another run may have removed it by now.
            Err(_) if !kind.is_symlink() && !kind.exists() => continue,
            stat => stat?,
        };
        if stat.is_symlink() {
            return Err(Error::Link(kind));
        }
        if stat.uid() != us || !closed {
            own(&kind, &stat)?;
        }
    }
    Ok(())
}

/// Counts what is under `path`, but for the stamp and the scratch folder.
fn measure(path: &Path) -> Result<Found, Error> {
    let mut total = Found::default();
    let stat = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    if !stat.is_dir() {
        total.add(PathBuf::new(), stat);
        return Ok(total);
    }
    let mut open = vec![path.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).map_err(Error::io("read", &next))? {
            let entry = entry.map_err(Error::io("read", &next))?;
            let aside = || entry.file_name() == STAMP || entry.file_name() == SCRATCH;
            if next == path && aside() {
                continue;
            }
            // Looked at by its name in the open folder: the kernel need not find
            // the way there again, which takes twice as long.
            let kind = entry.file_type().map_err(Error::io("look at", &next))?;
            if kind.is_dir() {
                open.push(entry.path());
                continue;
            }
            let stat = entry.metadata().map_err(Error::io("look at", &next))?;
            let whole = entry.path();
            let below = whole
                .strip_prefix(path)
                .map_or_else(|_| whole.clone(), Path::to_path_buf);
            total.add(below, stat);
        }
    }
    total.items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(total)
}

/// The folders and files in `folder`, none where it is missing, a file or a link.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    if folder.is_symlink() {
        return Ok(Vec::new());
    }
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    list.map(|entry| {
        let entry = entry.map_err(Error::io("read", folder))?;
        Ok((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ))
    })
    .collect()
}

/// Removes a folder or file with all that is in it; a missing one is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The folder that a file is in, or is to be in: here, where it has a name only.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let whole = write_with(path, std::convert::identity, |file| file.write_all(content));
    whole.map_err(Error::io("write", path))
}

/// Has `content` write a file whole or not at all: a new one, synced, then renamed.
/// `failed` makes an error of what the host's file system did not allow.
///
/// What is there and no regular file (`/dev/stdout`, a FIFO, a link) is written
/// into as it is: the rename would put a file in its place. So is a file that
/// cannot be replaced, though then it may end up half written.
pub(crate) fn write_with<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    content: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let there = fs::symlink_metadata(path).ok();
    if there.as_ref().is_some_and(|stat| !stat.is_file()) {
        return content(&mut open_there(path).map_err(failed)?);
    }
    // A name of its own: another run may be writing the same file now.
    let made = tempfile::Builder::new()
        // As any other file, and not as a secret; the umask takes its part.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder_of(path));
    let mut file = match made {
        Err(error) if there.is_some() && is_kept_in_place(&error) => {
            let mut file = open_there(path).map_err(&failed)?;
            content(&mut file)?;
            return file.sync_all().map_err(failed);
        }
        made => made.map_err(&failed)?,
    };
    // The file beneath, since errors of the temporary one name its path.
    content(file.as_file_mut())?;
    if let Some(there) = &there {
        let same = file.as_file().set_permissions(there.permissions());
        same.map_err(&failed)?;
    }
    // A full disk can show as late as this.
    file.as_file().sync_all().map_err(&failed)?;
    match file.persist(path) {
        Err(refused) if there.is_some() && is_kept_in_place(&refused.error) => {
            copy_into(refused.file.into_file(), path).map_err(failed)
        }
        Err(refused) => Err(failed(refused.error)),
        Ok(_) => Ok(()),
    }
}

/// Whether the folder lets a file be written that it does not let be replaced: it
/// is not ours to write in, or the file is a mount of its own.
fn is_kept_in_place(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    [PermissionDenied, ReadOnlyFilesystem, ResourceBusy].contains(&error.kind())
}

/// Opens what is there, emptied.
fn open_there(path: &Path) -> io::Result<File> {
    // Only a link to nothing has something to create. The kernel can refuse to
    // open others' FIFOs for who says that they may be created.
    let mut options = File::options();
    let options = options.write(true).truncate(true);
    options.create(!path.exists()).open(path)
}

/// Copies all of a file into one that is there.
fn copy_into(mut from: File, path: &Path) -> io::Result<()> {
    from.rewind()?;
    let mut to = open_there(path)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn scratch_cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache")).unwrap();
        (folder, cache)
    }

    fn make(cache: &Cache, text: &str) -> Result<PathBuf, Error> {
        cache.artefact("kind", "key", 1, |folder| {
            fs::write(folder.join("file"), text).map_err(Error::io("write", folder))
        })
    }

    #[test]
    fn an_artefact_is_made_once() {
        let (_folder, cache) = scratch_cache();
        make(&cache, "first").unwrap();
        let path = make(&cache, "second").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "first");
    }

    #[test]
    fn a_damaged_artefact_is_made_anew() {
        let (_folder, cache) = scratch_cache();
        let path = make(&cache, "first").unwrap();
        fs::write(path.join("file"), "fir").unwrap();
        make(&cache, "second").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "second");
        fs::remove_file(path.join("file")).unwrap();
        make(&cache, "third").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "third");
    }

    #[test]
    fn replaced_content_is_seen() {
        let (_folder, cache) = scratch_cache();
        let path = make(&cache, "first").unwrap();
        let file = path.join("file");
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        // As long as it was, and as old.
        fs::write(&file, "other").unwrap();
        let open = File::options().write(true).open(&file).unwrap();
        open.set_modified(before).unwrap();
        assert!(cache.whole("kind", "key").is_none());
        make(&cache, "third").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "third");
        // A mode is content, too: a program may be made setuid.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(cache.whole("kind", "key").is_none());
    }

    #[test]
    fn unchanged_artefact_is_not_read_again() {
        let (_folder, cache) = scratch_cache();
        let path = make(&cache, "first").unwrap();
        let stamp = || fs::read_to_string(path.join(STAMP)).unwrap();
        let first = stamp();
        assert!(cache.whole("kind", "key").is_some());
        assert_eq!(stamp(), first);
        // Touched, and the same: looked at once, and known again.
        fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(cache.whole("kind", "key").is_some());
        assert_ne!(stamp(), first);
        // One of an earlier version gets a digest.
        fs::write(path.join(STAMP), r#"{"files":1,"bytes":5}"#).unwrap();
        assert!(cache.whole("kind", "key").is_some());
        assert!(stamp().contains("digest"), "{}", stamp());
    }

    #[test]
    fn cache_of_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        Cache::at(&cache).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
        for (path, open, ours) in [(&*cache, 0o777, 0o755), (folder.path(), 0o777, 0o755)] {
            mode(path, open).unwrap();
            let error = Cache::at(&cache).unwrap_err();
            assert!(matches!(error, Error::OpenToOthers { .. }), "{error}");
            assert!(error.to_string().contains("chmod go-w"), "{error}");
            mode(path, ours).unwrap();
        }
        let kind = cache.join("kernel");
        fs::create_dir(&kind).unwrap();
        mode(&kind, 0o777).unwrap();
        assert!(matches!(Cache::at(&cache), Err(Error::OpenToOthers { .. })));
        mode(&kind, 0o755).unwrap();
        Cache::at(&cache).unwrap();
        if rustix::process::geteuid().is_root() {
            for path in [&kind, &cache, folder.path()] {
                std::os::unix::fs::chown(path, Some(1234), None).unwrap();
                let error = Cache::at(&cache).unwrap_err();
                assert!(
                    error.to_string().contains("belongs to user 1234"),
                    "{error}"
                );
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
            }
        }
    }

    #[test]
    fn links_in_a_cache_are_not_followed() {
        let (folder, cache) = scratch_cache();
        let outside = folder.path().join("outside");
        fs::create_dir_all(outside.join("scratch/work")).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let link =
            |to: &str| std::os::unix::fs::symlink(&outside, cache.folder().join(to)).unwrap();
        fs::create_dir(cache.folder().join("kind")).unwrap();
        link("kind/key");
        link("kind/half.making");
        fs::write(cache.folder().join("locks/work.key"), "").unwrap();
        Cache::at(cache.folder()).unwrap();
        assert!(cache.whole("kind", "key").is_none());
        assert!(cache.discard("kind", "key").unwrap());
        assert!(outside.join("scratch/work").exists() && outside.join("file").exists());
        // Nor as a lock, or as a kind.
        link("locks/other");
        assert!(cache.lock("other").is_err());
        link("kernel");
        let error = Cache::at(cache.folder()).unwrap_err();
        assert!(matches!(error, Error::Link(_)), "{error}");
    }

    #[test]
    fn scratch_is_not_part_of_the_artefact() {
        let (_folder, cache) = scratch_cache();
        let path = make(&cache, "first").unwrap();
        fs::create_dir(path.join(SCRATCH)).unwrap();
        fs::write(path.join(SCRATCH).join("passing"), "x").unwrap();
        make(&cache, "second").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "first");
        let passing = File::create(path.join(SCRATCH).join("passing")).unwrap();
        passing.write_all_at(&[1; 1 << 20], 0).unwrap();
        passing.sync_all().unwrap();
        assert!(cache.size_of(&path) >= 1 << 20);
    }

    #[test]
    fn work_of_a_killed_run_is_swept_and_no_other() {
        let (_folder, cache) = scratch_cache();
        let scratch = make(&cache, "first").unwrap().join(SCRATCH);
        for work in ["kernel", "proc"] {
            fs::create_dir_all(scratch.join(work)).unwrap();
        }
        {
            let _held = cache.lock("kernel.key").unwrap();
            Cache::at(cache.folder()).unwrap();
            assert!(scratch.join("kernel").exists());
        }
        Cache::at(cache.folder()).unwrap();
        assert!(!scratch.join("kernel").exists());
        assert!(scratch.join("proc").exists());
    }

    #[test]
    fn a_failed_making_leaves_nothing() {
        let (_folder, cache) = scratch_cache();
        let failed = cache.artefact("kind", "key", 1, |folder| {
            fs::write(folder.join("half"), "x").unwrap();
            Err(Error::NoFolder)
        });
        assert!(matches!(failed, Err(Error::NoFolder)));
        assert_eq!(entries(&cache.folder().join("kind")).unwrap(), []);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_unless_it_is_in_the_making() {
        let (_folder, cache) = scratch_cache();
        let half = cache.folder().join("kind/key.making");
        fs::create_dir_all(&half).unwrap();
        {
            let _held = cache.lock("kind.key").unwrap();
            Cache::at(cache.folder()).unwrap();
            assert!(half.exists());
        }
        Cache::at(cache.folder()).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn what_cannot_be_swept_does_not_stop_a_command() {
        let (_folder, cache) = scratch_cache();
        let half = cache.folder().join("kind/key.making");
        fs::create_dir_all(&half).unwrap();
        // Its lock is not to be had: it is not even a file.
        fs::create_dir(cache.folder().join("locks/kind.key")).unwrap();
        Cache::at(cache.folder()).unwrap();
        assert!(half.exists());
    }

    #[test]
    fn two_makers_share_one_artefact() {
        let (_folder, cache) = scratch_cache();
        let made = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache.artefact("kind", "key", 1, |_| -> Result<(), Error> {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before").unwrap();
        let half = write_with(&path, std::convert::identity, |file| {
            file.write_all(b"half").unwrap();
            Err(io::Error::other("full"))
        });
        assert_eq!(half.unwrap_err().to_string(), "full");
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        write(&path, b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_regular_file_is_written_into_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Open for both, so that neither side waits for the other.
        let mut reader = File::options().read(true).write(true).open(&fifo).unwrap();
        let through_a_link = folder.path().join("link");
        std::os::unix::fs::symlink("fifo", &through_a_link).unwrap();
        for path in [&fifo, &through_a_link] {
            write(path, b"hello").unwrap();
            let mut said = [0; 5];
            io::Read::read_exact(&mut reader, &mut said).unwrap();
            assert_eq!(said, *b"hello", "{}", path.display());
        }
        // Nor is it taken away when nothing comes of it.
        write_with(&fifo, std::convert::identity, |_| {
            Err(io::Error::other("full"))
        })
        .unwrap_err();
        let is = |path: &Path| fs::symlink_metadata(path).unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&is(&fifo)));
        assert!(is(&through_a_link).is_symlink());
    }

    #[test]
    fn a_file_in_a_folder_that_is_not_ours_is_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "before, and longer").unwrap();
        let mode = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode));
        // To root it stays open, and the file is replaced.
        mode(0o555).unwrap();
        let written = write(&file, b"after");
        let made = write(&folder.path().join("new"), b"");
        mode(0o755).unwrap();
        written.unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "after");
        assert_eq!(made.is_err(), !rustix::process::geteuid().is_root());
    }

    #[test]
    fn a_file_that_is_a_mount_is_written_into() {
        use rustix::io::Errno;
        for errno in [Errno::BUSY, Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            assert!(is_kept_in_place(&errno.into()), "{errno}");
        }
        assert!(!is_kept_in_place(&Errno::NOSPC.into()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before, and longer").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(b"after").unwrap();
        copy_into(from, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn a_link_to_nothing_gives_what_it_links_to() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("file", &link).unwrap();
        for text in ["first, and longer", "second"] {
            write(&link, text.as_bytes()).unwrap();
            assert!(link.is_symlink());
            let file = folder.path().join("file");
            assert_eq!(fs::read_to_string(file).unwrap(), text);
        }
    }

    #[test]
    fn a_need_beyond_the_disk_is_refused_with_the_numbers() {
        let (_folder, cache) = scratch_cache();
        let error = cache.room_for("kernel 7.2", u64::MAX).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("kernel 7.2 needs about"), "{text}");
        assert!(text.contains("DMASHARE_VM_CACHE"), "{text}");
    }

    #[test]
    fn another_disk_that_is_full_is_not_taken_for_this_one() {
        let (_folder, cache) = scratch_cache();
        let failed = || Error::io("write", "/tmp/x")(rustix::io::Errno::NOSPC.into());
        let error = cache.explain("kernel 7.2", 1, failed()).to_string();
        assert!(error.starts_with("/tmp/x: cannot write: "), "{error}");
        let error = cache.explain("kernel 7.2", u64::MAX, failed());
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    }

    #[test]
    fn sizes_are_per_artefact_and_leave_holes_out() {
        let (_folder, cache) = scratch_cache();
        let make = || {
            let folder = cache.artefact("kind", "key", 1, |folder| {
                let file = File::create_new(folder.join("file")).unwrap();
                file.set_len(1 << 30).unwrap();
                file.write_all_at(&[1; 1 << 20], 1 << 20).unwrap();
                file.sync_all().map_err(Error::io("write", folder))
            });
            folder.unwrap().join("file")
        };
        let path = make();
        let sizes = cache.sizes().unwrap();
        let size = sizes.iter().find(|size| size.kind == "kind").unwrap();
        assert_eq!(size.key, "key");
        assert!((1 << 20..2 << 20).contains(&size.bytes), "{}", size.bytes);
        // Nothing but a hole is cut off, and it is seen all the same.
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(1 << 29).unwrap();
        assert!(cache.whole("kind", "key").is_none());
        assert_eq!(fs::metadata(make()).unwrap().len(), 1 << 30);
    }

    #[test]
    fn to_ask_for_an_artefact_is_to_use_it() {
        let (_folder, cache) = scratch_cache();
        let path = make(&cache, "12345").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let stamp = File::options().write(true).open(path.join(STAMP)).unwrap();
        stamp.set_modified(long_ago).unwrap();
        assert_eq!(last_used(&path), long_ago);
        make(&cache, "").unwrap();
        assert!(last_used(&path) > long_ago);
        stamp.set_modified(long_ago).unwrap();
        assert!(cache.whole("kind", "key").is_some());
        assert!(last_used(&path) > long_ago);
    }

    #[test]
    fn a_written_file_is_as_open_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let file = fs::metadata(folder.path().join(name)).unwrap();
            file.permissions().mode()
        };
        write(&folder.path().join("ours"), b"text").unwrap();
        fs::write(folder.path().join("any"), b"text").unwrap();
        assert_eq!(mode("ours"), mode("any"));
        let secret = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.path().join("ours"), secret).unwrap();
        write(&folder.path().join("ours"), b"more").unwrap();
        assert_eq!(mode("ours") & 0o777, 0o600);
    }

    #[test]
    fn what_is_in_use_is_not_discarded() {
        let (_folder, cache) = scratch_cache();
        let path = make(&cache, "first").unwrap();
        for held in ["kind.key", "work.key"] {
            let _held = cache.lock(held).unwrap();
            assert!(!cache.discard("kind", "key").unwrap(), "{held}");
        }
        assert!(path.exists());
        assert!(cache.discard("kind", "key").unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn what_another_run_makes_or_fills_is_not_discarded() {
        let (_folder, cache) = scratch_cache();
        for (held, kind, key) in [
            ("kind.key", "kind", "key.making"),
            ("debs", "debs", "partial"),
            ("apt", "apt", "lists"),
            ("plans", "plans", "kernel-7.2.json"),
        ] {
            let path = cache.folder().join(kind).join(key);
            fs::create_dir_all(&path).unwrap();
            {
                let _held = cache.lock(held).unwrap();
                assert!(!cache.discard(kind, key).unwrap(), "{held}");
            }
            assert!(path.exists());
            assert!(cache.discard(kind, key).unwrap());
            assert!(!path.exists());
        }
    }
}
