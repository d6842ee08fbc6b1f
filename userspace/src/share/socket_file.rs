//! Socket files in folders that other users can change.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with,
};

use super::SocketError;
use super::socket::named;

/// The longest name in a folder, so that it can be bound by the folder's fd.
const NAME_MAX: usize = 80;

/// How long to wait for processes of this user that replace the same socket.
/// Each takes some system calls.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// How often the name may be found taken, and then free, before this is taken
/// for someone's intent.
const ATTEMPTS: u32 = 100;

/// The socket file of a listener, in the folder that was opened for it.
#[derive(Debug)]
pub(super) struct SocketFile {
    folder: Folder,
    name: OsString,
    /// Of the socket file. Its inode is not used again while the socket lives.
    identity: (u64, u64),
}

/// An open folder; its path may lead elsewhere by now.
#[derive(Debug)]
struct Folder(OwnedFd);

impl SocketFile {
    /// Binds a socket to a path. A socket of this user's at which nobody listens
    /// is replaced.
    pub(super) fn bind(fd: &OwnedFd, path: &Path) -> Result<SocketFile, SocketError> {
        let shown = path.display().to_string();
        let failed = |operation| named(operation, &shown);
        let (folder, name) = split(path).map_err(failed("bind"))?;
        let folder = Folder::open(&folder)?;
        match folder.bind(fd, &name) {
            Err(Errno::ADDRINUSE) => replace(fd, &folder, &name, path)?,
            bound => bound.map_err(failed("bind"))?,
        }
        // Whoever may change this folder can have put something else there by
        // now, and remove it as well: its removal in this folder harms no other.
        let stat = folder.stat(&name).map_err(failed("fstatat"))?;
        match is_socket(&stat) {
            true => Ok(SocketFile {
                folder,
                name,
                identity: identity(&stat),
            }),
            false => Err(failed("bind")(Errno::STALE)),
        }
    }

    /// Removes the socket file, if it is still there: someone may have put
    /// another one there.
    pub(super) fn remove(&self) {
        let found = self.folder.stat(&self.name);
        if found.is_ok_and(|stat| identity(&stat) == self.identity) {
            let _ = self.folder.unlink(&self.name);
        }
    }
}

/// The folder of a path, and the name in it.
fn split(path: &Path) -> Result<(PathBuf, OsString), Errno> {
    let path = path.as_os_str().as_bytes();
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        None => (&b"."[..], path),
        Some(0) => (&b"/"[..], &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
    };
    match name {
        b"" | b"." | b".." => Err(Errno::INVAL),
        name if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
        name => Ok((
            OsString::from_vec(folder.to_owned()).into(),
            OsString::from_vec(name.to_owned()),
        )),
    }
}

/// Binds to a name that is taken, if nobody listens there any more.
fn replace(fd: &OwnedFd, folder: &Folder, name: &OsStr, path: &Path) -> Result<(), SocketError> {
    let shown = path.display().to_string();
    let failed = |operation| named(operation, &shown);
    // Between finding that nobody listens and removing it, another process could
    // do the same, and lose its path to us.
    let _lock = Lock::take(folder, name).map_err(failed("flock"))?;
    for _ in 0..ATTEMPTS {
        if folder.is_dead(name, path)? {
            match folder.unlink(name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("unlinkat")(errno)),
            }
        }
        match folder.bind(fd, name) {
            Err(Errno::ADDRINUSE) => {}
            bound => return bound.map_err(failed("bind")),
        }
    }
    Err(failed("bind")(Errno::STALE))
}

impl Folder {
    fn open(path: &Path) -> Result<Folder, SocketError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(path, flags, Mode::empty());
        folder
            .map(Folder)
            .map_err(named("open", &path.display().to_string()))
    }

    /// The address of a name in this folder, wherever its path leads by now:
    /// neither bind(2) nor connect(2) takes a folder's fd.
    fn address(&self, name: &OsStr) -> Result<SocketAddrUnix, Errno> {
        let fd = self.0.as_raw_fd();
        let mut path = format!("/proc/thread-self/fd/{fd}/").into_bytes();
        path.extend_from_slice(name.as_bytes());
        SocketAddrUnix::new(path)
    }

    fn bind(&self, fd: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        bind(fd, &self.address(name)?)
    }

    /// Returns whether the name is a socket of this user's at which nobody
    /// listens; not where there is nothing.
    fn is_dead(&self, name: &OsStr, path: &Path) -> Result<bool, SocketError> {
        let shown = path.display().to_string();
        let failed = |operation| named(operation, &shown);
        let stat = match self.stat(name) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat.map_err(failed("fstatat"))?,
        };
        if !is_socket(&stat) {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        // Of a type that nobody here has: the kernel refuses it for that, before
        // it troubles whoever listens, and also where one is bound and does not
        // listen yet.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let probe = probe.map_err(failed("socket"))?;
        let address = self.address(name).map_err(failed("connect"))?;
        match connect(&probe, &address) {
            Err(Errno::CONNREFUSED) if is_ours(&stat) => Ok(true),
            Err(Errno::CONNREFUSED) => Err(SocketError::Foreign {
                path: path.to_owned(),
                uid: stat.st_uid,
            }),
            Err(Errno::NOENT) => Ok(false),
            // EPROTOTYPE as a rule; also where we may not connect.
            _ => Err(SocketError::InUse(path.into())),
        }
    }

    fn stat(&self, name: &OsStr) -> Result<Stat, Errno> {
        fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn unlink(&self, name: &OsStr) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name, AtFlags::empty())
    }
}

/// A lock that only processes of this user can hold: a file that nobody else may
/// open. It is removed with the lock.
struct Lock<'f> {
    folder: &'f Folder,
    name: OsString,
    /// Locked until it is closed.
    _file: OwnedFd,
}

impl<'f> Lock<'f> {
    /// Waits for the lock; `None` where there can be none, as where another user
    /// has made a file of its name.
    fn take(folder: &'f Folder, of: &OsStr) -> Result<Option<Lock<'f>>, Errno> {
        let name = OsString::from_vec([b".", of.as_bytes(), b".lock"].concat());
        let flags = OFlags::CREATE
            | OFlags::RDWR
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let begun = Instant::now();
        loop {
            let Ok(file) = fs::openat(&folder.0, &name, flags, Mode::RUSR | Mode::WUSR) else {
                return Ok(None);
            };
            let stat = fs::fstat(&file)?;
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !regular || !is_ours(&stat) || stat.st_mode & 0o077 != 0 {
                return Ok(None);
            }
            match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had the lock before has removed its file.
                Ok(()) => match folder.stat(&name) {
                    Ok(found) if identity(&found) == identity(&stat) => {
                        return Ok(Some(Lock {
                            folder,
                            name,
                            _file: file,
                        }));
                    }
                    _ => continue,
                },
                Err(Errno::INTR) => {}
                // Nothing tells when a lock is free but asking for it.
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = self.folder.unlink(&self.name);
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

/// Returns whether it belongs to the user whom new files of this process get.
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_last_slash() {
        for (path, folder, name) in [
            ("frames", ".", "frames"),
            ("/frames", "/", "frames"),
            ("/run/x/frames", "/run/x", "frames"),
            ("x//frames", "x/", "frames"),
        ] {
            let expected = (PathBuf::from(folder), OsString::from(name));
            assert_eq!(split(Path::new(path)), Ok(expected));
        }
        for path in ["", "/", "x/", "x/.", ".."] {
            assert_eq!(split(Path::new(path)), Err(Errno::INVAL), "{path}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        assert_eq!(split(Path::new(&long)), Err(Errno::NAMETOOLONG));
    }
}
