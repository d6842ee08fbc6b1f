//! An address at which others can connect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{self, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};

use super::socket::named;
use super::wait::{os, until_ready};
use super::{Address, Policy, Socket, SocketError, Transport};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long to wait for others who bind in the same folder. Each takes some
/// system calls; who takes longer wants something else of the folder.
const BIND_WAIT: Duration = Duration::from_secs(1);

/// An address at which other processes can connect. A path is removed on drop.
///
/// Who may connect to a path is who may write to it (unix(7)): put it into a
/// folder of your own, such as `$XDG_RUNTIME_DIR`, or say so by a
/// [mode](Self::bind_mode). To an abstract name anyone may connect. A
/// [`Policy`](Self::set_policy) is asked in both cases.
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
    address: Address,
    transport: Transport,
    /// The path that we made, with its device and inode.
    made: Option<(PathBuf, (u64, u64))>,
    policy: Policy,
    timeout: Option<Duration>,
}

impl Listener {
    /// Listens at an address. A socket that an ended process left at a path is
    /// replaced.
    ///
    /// Meanwhile the path's folder is locked by flock(2), which anyone can do
    /// who may read it.
    ///
    /// # Errors
    /// [`SocketError::InUse`] where another process listens there,
    /// [`SocketError::NotASocket`] where something else has this path, and
    /// [`SocketError::Os`]: of `flock`, `EWOULDBLOCK` where another process has
    /// kept the folder locked for a second.
    pub fn bind(address: impl Into<Address>) -> Result<Listener, SocketError> {
        Listener::bind_with(address, Transport::default())
    }

    /// Listens for connections of this kind.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    ///
    /// ```
    /// use dmashare::share::{Listener, Socket, Transport};
    /// let name = format!("@dmashare doc {}", std::process::id());
    /// let listener = Listener::bind_with(&name, Transport::Stream)?;
    /// assert!(Socket::connect_with(&name, Transport::Packet).is_err());
    /// assert!(Socket::connect_with(&name, Transport::Stream).is_ok());
    /// # Ok::<(), dmashare::share::SocketError>(())
    /// ```
    pub fn bind_with(
        address: impl Into<Address>,
        transport: Transport,
    ) -> Result<Listener, SocketError> {
        Listener::bind_mode(address, transport, 0o777)
    }

    /// Listens at a path of this mode (chmod(2)), less what umask(2) takes away.
    /// It has it from the start. Of an abstract name a mode means nothing.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    /// use dmashare::share::{Listener, Transport};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("frames");
    /// let listener = Listener::bind_mode(&path, Transport::Packet, 0o600)?;
    /// assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind_mode(
        address: impl Into<Address>,
        transport: Transport,
        mode: u32,
    ) -> Result<Listener, SocketError> {
        let address = address.into();
        let name = address.to_string();
        let kernel = address.to_kernel().map_err(named("bind", &name))?;
        // Waiting is poll's business, so that it can have an end.
        let fd = transport.socket(SocketFlags::NONBLOCK);
        let mut listener = Listener {
            fd: fd.map_err(named("socket", &name))?,
            address,
            transport,
            made: None,
            policy: Policy::anyone(),
            timeout: None,
        };
        let _locked = match listener.address.clone() {
            Address::Path(path) => {
                // The kernel gives a path the mode that its socket has.
                fs::fchmod(&listener.fd, Mode::from_raw_mode(mode & 0o777))
                    .map_err(named("fchmod", &name))?;
                let (made, folder) = bind_path(&listener.fd, &path, &kernel)?;
                listener.made = Some((path, made));
                Some(folder)
            }
            Address::Abstract(_) => {
                bind(&listener.fd, &kernel).map_err(|errno| match errno {
                    Errno::ADDRINUSE => SocketError::InUse(listener.address.clone()),
                    errno => named("bind", &name)(errno),
                })?;
                None
            }
        };
        listen(&listener.fd, BACKLOG).map_err(named("listen", &name))?;
        Ok(listener)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What kind of connections it takes.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Who may connect: at first, anyone.
    ///
    /// ```
    /// use dmashare::share::{Listener, Policy, Socket, SocketError};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("frames");
    /// let mut listener = Listener::bind(&path)?;
    /// listener.set_policy(Policy::pid(1));
    /// let here = Socket::connect(&path)?;
    /// assert!(matches!(listener.accept(), Err(SocketError::Refused { .. })));
    /// assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
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
    /// [`SocketError::Refused`] where one connected that the policy does not
    /// allow: its connection is closed, and others are accepted on.
    /// [`SocketError::Timeout`], and [`SocketError::Os`]: `EMFILE` where the
    /// process has no handle left.
    pub fn accept(&self) -> Result<Socket, SocketError> {
        let fd = until_ready("accept", self.as_fd(), PollFlags::IN, self.timeout, || {
            self.step_accept()
        })?;
        self.admit(fd)
    }

    /// Takes a connection that is there, or `EAGAIN`.
    pub(super) fn step_accept(&self) -> Result<OwnedFd, Errno> {
        accept_with(&self.fd, SocketFlags::CLOEXEC)
    }

    /// Makes a socket of a connection, if its peer may have one.
    pub(super) fn admit(&self, fd: OwnedFd) -> Result<Socket, SocketError> {
        let socket = Socket::new(fd, self.transport).map_err(os("setsockopt", self.as_fd()))?;
        socket.check_peer(&self.policy)?;
        Ok(socket)
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
        if let Some((path, made)) = &self.made
            && fs::lstat(path).is_ok_and(|stat| identity(&stat) == *made)
        {
            let _ = fs::unlink(path);
        }
    }
}

/// Binds to a path. Gives the identity of what it made there, and the folder,
/// which is locked until we listen: one who comes next finds us alive.
fn bind_path(
    fd: &OwnedFd,
    path: &Path,
    address: &SocketAddrUnix,
) -> Result<((u64, u64), OwnedFd), SocketError> {
    // Between finding that nobody listens and binding, another process could do
    // the same, and lose its path to us. Those who come this way wait for each
    // other at the folder.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let folder_name = folder.display().to_string();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = fs::open(folder, flags, Mode::empty()).map_err(named("open", &folder_name))?;
    lock(&folder).map_err(named("flock", &folder_name))?;

    let name = path.display().to_string();
    remove_dead(path, address)?;
    bind(fd, address).map_err(named("bind", &name))?;
    let made = fs::lstat(path).map_err(named("lstat", &name))?;
    Ok((identity(&made), folder))
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
    // Of a type that nobody here has: the kernel refuses it for that, before it
    // troubles whoever listens, and also where one is bound and does not listen
    // yet.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
    let probe = probe.map_err(named("socket", &name))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::unlink(path).map_err(named("unlink", &name)),
        // EPROTOTYPE as a rule; also where we may not connect.
        _ => Err(SocketError::InUse(path.into())),
    }
}
