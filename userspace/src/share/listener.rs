//! An address at which others can connect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{self, Mode};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, bind, listen};

use super::socket::named;
use super::socket_file::SocketFile;
use super::wait::{os, until_ready_or_again};
use super::{Address, Policy, Socket, SocketError, Transport};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long a listener rests that cannot accept, before it tries again: the
/// connection stays in the queue, so poll(2) would not wait.
pub(super) const REST: Duration = Duration::from_millis(10);

/// How long a listener tries to accept where no handle is left.
pub(super) const FULL: Duration = Duration::from_secs(1);

/// Whether something is used up that is needed to accept, and can come back.
pub(super) fn is_full(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM
    )
}

/// An address at which other processes can connect. A path is removed on drop.
///
/// # Paths in folders of others
/// The folder of a path is opened once. The socket is made, replaced and removed
/// in this open folder, so that nobody can turn the path to another one in
/// between. Nothing is removed but sockets that belong to this process's
/// effective user: one at which nobody listens, and on drop the one that was
/// made.
///
/// No lock is taken that another user could hold. Of processes that replace the
/// same dead socket at once, one gets the path: they wait for each other at a
/// file `.NAME.lock` of mode 0600, which is removed then. Where another user has
/// made such a file there is no lock, and the last of them has the path.
///
/// `ss`(8) and getsockname(2) show the path as it was bound:
/// `/proc/thread-self/fd/FD/NAME`.
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
    /// The path that we made.
    made: Option<SocketFile>,
    policy: Policy,
    timeout: Option<Duration>,
}

impl Listener {
    /// Listens at an address. A socket that an ended process of this user left
    /// at a path is replaced.
    ///
    /// # Errors
    /// [`SocketError::InUse`] where another process listens there,
    /// [`SocketError::NotASocket`] where something else has this path,
    /// [`SocketError::Foreign`] where another user left a socket there, and
    /// [`SocketError::Os`]: `ENAMETOOLONG` also where the last part of a path
    /// has more than 80 bytes.
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
        match &listener.address {
            Address::Path(path) => {
                // The kernel gives a path the mode that its socket has.
                fs::fchmod(&listener.fd, Mode::from_raw_mode(mode & 0o777))
                    .map_err(named("fchmod", &name))?;
                listener.made = Some(SocketFile::bind(&listener.fd, path)?);
            }
            Address::Abstract(_) => {
                bind(&listener.fd, &kernel).map_err(|errno| match errno {
                    Errno::ADDRINUSE => SocketError::InUse(listener.address.clone()),
                    errno => named("bind", &name)(errno),
                })?;
            }
        }
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
    /// Where the process has no handle left, it rests and tries again for up to
    /// a second, or for the rest of the [timeout](Self::set_timeout): a loop
    /// around it does not spin. Who connects waits in the queue meanwhile.
    ///
    /// # Errors
    /// [`SocketError::Refused`] where one connected that the policy does not
    /// allow: its connection is closed, and others are accepted on.
    /// [`SocketError::Timeout`], and [`SocketError::Os`]: `EMFILE` where the
    /// process has no handle left, also after the rest.
    pub fn accept(&self) -> Result<Socket, SocketError> {
        let begun = Instant::now();
        let mut full: Option<Instant> = None;
        let (socket, ready) = (self.as_fd(), PollFlags::IN);
        let fd = until_ready_or_again("accept", socket, ready, self.timeout, |again| {
            let accepted = self.step_accept();
            let Err(errno) = accepted else {
                return accepted;
            };
            if is_full(errno) {
                let full = *full.get_or_insert_with(Instant::now);
                let in_time = self
                    .timeout
                    .is_none_or(|limit| begun.elapsed() + REST < limit);
                if in_time && full.elapsed() < FULL {
                    again.sleep = Some(REST);
                    return Err(Errno::AGAIN);
                }
            }
            Err(errno)
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
        if let Some(made) = &self.made {
            made.remove();
        }
    }
}
