//! Handles and nothing else: what a textbook program in C sends and takes.
//!
//! A plain message is one byte, which means nothing, and with it the handles in
//! one `SCM_RIGHTS` (unix(7)). It passes any connected UNIX socket: a stream,
//! `SOCK_SEQPACKET`, or datagrams. Nothing is said about what the handles are;
//! [`Buffer::from_fd`](crate::buffer::Buffer::from_fd) examines them.
//!
//! ```
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//! use dmashare::alloc::{Allocate, Memfd, Request};
//! use dmashare::buffer::Buffer;
//! use dmashare::share::plain;
//!
//! let (here, there) = UnixStream::pair()?;
//! let buffer = Memfd::new().allocate(&Request::new(4096))?;
//! plain::send(&here, &[buffer.fd()?], None)?;
//!
//! let mut handles = plain::recv(&there, None)?;
//! let received = Buffer::from_fd(handles.remove(0))?;
//! assert_eq!(received.size(), 4096);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{SocketType, sockopt};

use super::SocketError;
use super::closing::{Closing, forget_linger};
use super::codec::{CodecError, MAX_HANDLES};
use super::handles::{self, Received};
use super::incoming::ended;
use super::socket::peer_gone;
use super::wait::{os, until_ready};

/// Sends handles with one byte, 0. `timeout` is how long to wait for the peer
/// to take it; `None` is for ever.
///
/// # Errors
/// [`SocketError::Unsendable`] for more than 253 handles, [`SocketError::Closed`],
/// [`SocketError::Timeout`], [`SocketError::Os`]: nothing was sent.
pub fn send(
    socket: impl AsFd,
    handles: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> Result<(), SocketError> {
    let socket = socket.as_fd();
    if handles.len() > MAX_HANDLES {
        return Err(SocketError::Unsendable(CodecError::Handles(handles.len())));
    }
    let sent = until_ready("sendmsg", socket, PollFlags::OUT, timeout, || {
        handles::send(socket, &[0], handles)
    });
    sent.map(drop).map_err(peer_gone)
}

/// Receives the handles of one message, of any number up to 253, none included;
/// the byte that comes with them can have any value. Each closes on exec.
/// `timeout` is how long to wait for it; `None` is for ever.
///
/// Closing a handle that is no memory can wait: for the server of its file, or
/// for a socket's peer. Sockets come without their `SO_LINGER`, but who sent one
/// can set it again; close such handles where waiting does no harm.
///
/// A socket with the option `SO_PASSPIDFD` (Linux 6.5) gets one more handle with
/// each message, that nothing here gives out or closes: leave that unset.
///
/// # Errors
/// All that came is closed: [`SocketError::Control`] where handles got lost,
/// [`SocketError::Plain`] for a datagram of another length than one byte,
/// [`SocketError::Closed`], [`SocketError::Timeout`], [`SocketError::Os`].
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use dmashare::share::{SocketError, plain};
/// let (here, there) = UnixStream::pair()?;
/// drop(there);
/// assert_eq!(plain::recv(&here, None).unwrap_err(), SocketError::Closed);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn recv(socket: impl AsFd, timeout: Option<Duration>) -> Result<Vec<OwnedFd>, SocketError> {
    let socket = socket.as_fd();
    let mut byte = [0];
    let received = until_ready("recvmsg", socket, PollFlags::IN, timeout, || {
        handles::receive(socket, &mut byte)
    });
    let Received { len, handles, lost } = received.map_err(peer_gone)?;
    if len == 0 && handles.is_empty() {
        let kind = sockopt::socket_type(socket).map_err(os("getsockopt(SO_TYPE)", socket))?;
        let ended = match kind {
            SocketType::STREAM => true,
            SocketType::DGRAM => false,
            _ => ended(socket).map_err(os("poll", socket))?,
        };
        if ended {
            return Err(SocketError::Closed);
        }
    }
    if len != 1 {
        return Err(discard(handles, SocketError::Plain(len)));
    }
    match lost {
        true => Err(discard(handles, SocketError::Control)),
        false => {
            // Whoever closes them does not wait for the peer.
            handles.iter().for_each(forget_linger);
            Ok(handles)
        }
    }
}

/// Closes handles without waiting for it.
fn discard(handles: Vec<OwnedFd>, error: SocketError) -> SocketError {
    let closing = Closing::default();
    handles.into_iter().for_each(|fd| closing.close(fd));
    error
}
