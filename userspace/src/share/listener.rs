//! A path at which others can connect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{self, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, connect, listen};

use super::socket::{named, new_socket};
use super::wait::until_ready;
use super::{Socket, SocketError};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long to wait for others who bind in the same folder. Each takes some
/// system calls; who takes longer wants something else of the folder.
const BIND_WAIT: Duration = Duration::from_secs(1);

/// A path at which other processes can connect; removed on drop.
///
/// Who may connect is who may write to the path (unix(7)): put it into a folder
/// of your own, such as `$XDG_RUNTIME_DIR`.
///
/// ```
/// use dmashare::share::{Listener, Socket, SocketError};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("frames");
/// let listener = Listener::bind(&path)?;
/// assert!(matches!(Listener::bind(&path), Err(SocketError::InUse(_))));
/// drop(listener);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// The device and inode of what we made at `path`.
    made: (u64, u64),
    timeout: Option<Duration>,
}

impl Listener {
    /// Listens at a path. A socket that an ended process left there is
    /// replaced.
    ///
    /// Meanwhile the folder is locked by flock(2), which anyone can do who may
    /// read it.
    ///
    /// # Errors
    /// [`SocketError::InUse`] where another process listens there,
    /// [`SocketError::NotASocket`] where something else has this path, and
    /// [`SocketError::Os`]: of `flock`, `EWOULDBLOCK` where another process has
    /// kept the folder locked for a second.
    pub fn bind(path: impl AsRef<Path>) -> Result<Listener, SocketError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let address = SocketAddrUnix::new(path).map_err(named("bind", &name))?;
        // Waiting is poll's business, so that it can have an end.
        let fd = new_socket(SocketFlags::NONBLOCK).map_err(named("socket", &name))?;

        // Between finding that nobody listens and binding, another process
        // could do the same, and lose its path to us. Those who come this way
        // wait for each other at the folder.
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let folder_name = folder.display().to_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(folder, flags, Mode::empty()).map_err(named("open", &folder_name))?;
        lock(&folder).map_err(named("flock", &folder_name))?;

        remove_dead(path, &address)?;
        bind(&fd, &address).map_err(named("bind", &name))?;
        let made = fs::lstat(path).map_err(named("lstat", &name))?;
        let listener = Listener {
            fd,
            path: path.to_owned(),
            made: identity(&made),
            timeout: None,
        };
        listen(&listener.fd, BACKLOG).map_err(named("listen", &name))?;
        Ok(listener)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long [`accept`](Self::accept) waits; `None`, as at first, is for
    /// ever.
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmashare::share::{Listener, SocketError};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("frames");
    /// let mut listener = Listener::bind(&path)?;
    /// listener.set_timeout(Some(Duration::from_millis(10)));
    /// assert!(matches!(listener.accept(), Err(SocketError::Timeout { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Waits for a process to connect.
    ///
    /// # Errors
    /// [`SocketError::Timeout`], and [`SocketError::Os`]: `EMFILE` where the
    /// process has no handle left.
    pub fn accept(&self) -> Result<Socket, SocketError> {
        let fd = until_ready("accept", self.as_fd(), PollFlags::IN, self.timeout, || {
            accept_with(&self.fd, SocketFlags::CLOEXEC)
        })?;
        Ok(Socket::new(fd))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only what we made: someone may have put another socket there.
        let ours = |stat: Stat| identity(&stat) == self.made;
        if fs::lstat(&self.path).is_ok_and(ours) {
            let _ = fs::unlink(&self.path);
        }
    }
}

/// Locks a folder against others who do so, until it is closed.
fn lock(folder: &OwnedFd) -> Result<(), Errno> {
    let begun = Instant::now();
    loop {
        match fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::INTR) => {}
            // Nothing tells when a lock is free but asking for it.
            Err(Errno::WOULDBLOCK) if begun.elapsed() < BIND_WAIT => {
                std::thread::sleep(Duration::from_millis(1));
            }
            locked => return locked,
        }
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Removes a socket at which nobody listens, and nothing else.
fn remove_dead(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let name = path.display().to_string();
    match fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(named("lstat", &name)(errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // It would wait at a listener whose queue is full.
    let probe = new_socket(SocketFlags::NONBLOCK).map_err(named("socket", &name))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::unlink(path).map_err(named("unlink", &name)),
        // Also where it is of another type, or we may not connect.
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}
