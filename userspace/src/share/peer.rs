//! Who is at the other end.

use std::fmt;

/// Who is at the other end of a connection, as the kernel noted it when the
/// connection was made (`SO_PEERCRED` of unix(7)).
///
/// It is the process that connected, or that listened. One that got the socket
/// from it since, by fork(2) or by being passed it, is not seen; nor is it told
/// here when the process ends and its pid is given to another one. A
/// [`Process`](super::Process) is bound to the process itself.
///
/// ```
/// use dmashare::share::Socket;
/// let (here, _there) = Socket::pair()?;
/// assert_eq!(here.peer()?.pid, Some(std::process::id()));
/// # Ok::<(), dmashare::share::SocketError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The process; `None` where it cannot be seen from our PID namespace.
    pub pid: Option<u32>,
    /// Its effective user; 65534 where it has none in our user namespace.
    pub uid: u32,
    /// Its effective group. The kernel tells no supplementary ones here.
    pub gid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => write!(f, "a process of another PID namespace")?,
        }
        write!(f, " (user {}, group {})", self.uid, self.gid)
    }
}
