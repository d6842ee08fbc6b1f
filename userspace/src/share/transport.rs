//! The kinds of socket that carry messages.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// The kind of UNIX socket that carries the messages.
///
/// Both ends have the same; a connection between different ones is refused by
/// the kernel (`EPROTOTYPE`).
///
/// ```
/// use dmashare::share::{Socket, Transport};
/// let (here, _there) = Socket::pair_with(Transport::Stream)?;
/// assert_eq!(here.transport(), Transport::Stream);
/// # Ok::<(), dmashare::share::SocketError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `SOCK_SEQPACKET`: the kernel keeps messages apart and whole. The better
    /// choice wherever the peer can have it.
    #[default]
    Packet,
    /// `SOCK_STREAM`: what every language and every proxy can speak. A message
    /// can come in pieces, and a peer can die between two of them.
    Stream,
}

impl Transport {
    pub(super) fn socket_type(self) -> SocketType {
        match self {
            Transport::Packet => SocketType::SEQPACKET,
            Transport::Stream => SocketType::STREAM,
        }
    }

    /// A new socket of this kind.
    pub(super) fn socket(self, flags: SocketFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | SocketFlags::CLOEXEC;
        socket_with(AddressFamily::UNIX, self.socket_type(), flags, None)
    }

    /// The kind of this handle, if it is one of these.
    pub(super) fn of(fd: impl AsFd) -> Option<Transport> {
        let fd = fd.as_fd();
        if sockopt::socket_domain(fd) != Ok(AddressFamily::UNIX) {
            return None;
        }
        match sockopt::socket_type(fd) {
            Ok(SocketType::SEQPACKET) => Some(Transport::Packet),
            Ok(SocketType::STREAM) => Some(Transport::Stream),
            _ => None,
        }
    }
}
