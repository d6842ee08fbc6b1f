//! A connection that carries frames and the handles of their buffers.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recvmsg, sendmsg, socket_with, socketpair, sockopt,
};

use super::codec::{self, CodecError, MAX_HANDLES};
use super::wait::{os, until_ready};
use super::{Frame, SocketError};
use crate::buffer::{Buffer, describe, examine};

/// One end of a connection that carries frames: a UNIX socket of type
/// `SOCK_SEQPACKET`, which keeps messages apart and in order.
///
/// What a peer sends is hostile until it is checked: [`recv`](Self::recv) gives
/// a frame only when it is written as [`codec`] says, brought just
/// the handles it announced, each of them is a buffer, and every plane lies
/// inside of its buffer by the size that the kernel tells.
///
/// How far a plane reaches is known exactly for linear 32-bit RGB (XR24, AR24,
/// XB24, AB24). Other formats are taken for `height` rows of `stride` bytes in
/// each plane, so NV12 and its like need larger buffers than they fill; other
/// modifiers are bounded roughly only. See [`Frame::check`].
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::share::{Fourcc, Frame, Socket};
/// let (a, b) = Socket::pair()?;
/// let frame = Frame::packed(2, 2, Fourcc::XRGB8888)?;
/// let buffer = Memfd::new().allocate(&Request::new(16))?;
/// a.send(&frame, &[&buffer])?;
/// let (received, buffers) = b.recv()?;
/// assert_eq!(received, frame);
/// assert_eq!(buffers[0].size(), buffer.size());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    timeout: Option<Duration>,
}

impl Socket {
    /// Two ends of a new connection, for a child process or a thread.
    ///
    /// # Errors
    /// [`SocketError::Os`].
    pub fn pair() -> Result<(Socket, Socket), SocketError> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(named("socketpair", "a pair of UNIX sockets"))?;
        Ok((Socket::new(a), Socket::new(b)))
    }

    /// Connects to a [`Listener`](super::Listener).
    ///
    /// # Errors
    /// [`SocketError::Os`]: `ENOENT` or `ECONNREFUSED` where nobody listens.
    ///
    /// ```
    /// use dmashare::share::{Listener, Socket};
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("frames");
    /// assert!(Socket::connect(&path).is_err());
    /// let listener = Listener::bind(&path)?;
    /// let here = Socket::connect(&path)?;
    /// let there = listener.accept()?;
    /// # drop((here, there));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(path: impl AsRef<Path>) -> Result<Socket, SocketError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let address = SocketAddrUnix::new(path).map_err(named("connect", &name))?;
        let fd = new_socket(SocketFlags::empty()).map_err(named("socket", &name))?;
        // An interrupted connect(2) on a UNIX socket has not begun.
        rustix::io::retry_on_intr(|| connect(&fd, &address)).map_err(named("connect", &name))?;
        Ok(Socket::new(fd))
    }

    /// Takes a connected socket from elsewhere: inherited, or from an event
    /// loop. It is made to close on exec.
    ///
    /// # Errors
    /// [`SocketError::NotSeqpacket`] where it is another kind of handle.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use dmashare::share::{Socket, SocketError};
    /// let stream = UnixStream::pair()?.0;
    /// let refused = Socket::from_fd(stream.into());
    /// assert!(matches!(refused, Err(SocketError::NotSeqpacket(_))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Socket, SocketError> {
        let unix = sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX);
        if !unix || sockopt::socket_type(&fd) != Ok(SocketType::SEQPACKET) {
            return Err(SocketError::NotSeqpacket(describe(fd.as_fd())));
        }
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(os("fcntl(F_SETFD)", fd.as_fd()))?;
        Ok(Socket::new(fd))
    }

    pub(super) fn new(fd: OwnedFd) -> Socket {
        Socket { fd, timeout: None }
    }

    /// How long [`send`](Self::send) and [`recv`](Self::recv) wait for the
    /// peer; `None`, as at first, is for ever.
    ///
    /// It bounds the waiting for the socket, not what a received handle can do:
    /// asking the kernel what a file on FUSE or on a network is, and closing
    /// it, waits for whoever serves that file, and a hostile peer can be the
    /// one. Receive in a process or thread that can be given up where that
    /// matters.
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmashare::share::{Socket, SocketError};
    /// let (mut here, _there) = Socket::pair()?;
    /// here.set_timeout(Some(Duration::from_millis(10)));
    /// assert!(matches!(here.recv(), Err(SocketError::Timeout { .. })));
    /// # Ok::<(), SocketError>(())
    /// ```
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Sends a frame with the handles of its buffers, in the order in which
    /// [`Plane::buffer`](super::Plane::buffer) counts them.
    ///
    /// The receiver gets handles of its own: these can be closed afterwards.
    ///
    /// # Errors
    /// [`SocketError::Codec`], [`SocketError::Buffer`] and
    /// [`SocketError::Frame`] for what a receiver would refuse, and nothing was
    /// sent; [`SocketError::Closed`], [`SocketError::Timeout`],
    /// [`SocketError::Os`].
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::share::{Fourcc, Frame, Socket, SocketError};
    /// let (here, there) = Socket::pair()?;
    /// let frame = Frame::packed(64, 64, Fourcc::XRGB8888)?;
    /// let small = Memfd::new().allocate(&Request::new(4096))?;
    /// let refused = here.send(&frame, &[&small]);
    /// assert!(matches!(refused, Err(SocketError::Frame(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send(&self, frame: &Frame, handles: &[impl AsFd]) -> Result<(), SocketError> {
        let message = codec::encode(frame, handles.len())?;
        let handles: Vec<BorrowedFd<'_>> = handles.iter().map(AsFd::as_fd).collect();
        let mut sizes = Vec::with_capacity(handles.len());
        for (handle, fd) in handles.iter().enumerate() {
            let (_, size) =
                examine(*fd).map_err(|source| SocketError::Buffer { handle, source })?;
            sizes.push(size);
        }
        frame.check(&sizes)?;

        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(
            control.push(SendAncillaryMessage::ScmRights(&handles)),
            "the codec lets no more handles pass than there is space for"
        );
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, self.timeout.is_some());
        let sent = until_ready(
            "sendmsg",
            self.as_fd(),
            PollFlags::OUT,
            self.timeout,
            || sendmsg(&self.fd, &[IoSlice::new(&message)], &mut control, flags),
        );
        // A SOCK_SEQPACKET socket takes a message whole or not at all.
        sent.map(|_| ()).map_err(peer_gone)
    }

    /// Receives a frame and its buffers.
    ///
    /// Every handle is examined before it is given out: its kind and size are
    /// the kernel's word, not the peer's. What cannot be safely mapped is
    /// refused by [`Buffer::map`].
    ///
    /// # Errors
    /// [`SocketError::Closed`] where the peer is gone,
    /// [`SocketError::Timeout`], and the message's fault where it is none of
    /// ours; see [`SocketError`] for which of them leave the connection usable.
    ///
    /// ```
    /// use dmashare::share::{Socket, SocketError};
    /// let (here, there) = Socket::pair()?;
    /// drop(there);
    /// assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
    /// # Ok::<(), SocketError>(())
    /// ```
    pub fn recv(&self) -> Result<(Frame, Vec<Buffer>), SocketError> {
        let mut message = [0; codec::SIZE];
        let (len, handles, flags) = self.recv_raw(&mut message)?;
        if len == 0 && handles.is_empty() && self.hung_up()? {
            return Err(SocketError::Closed);
        }
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(SocketError::Control);
        }
        let message = message.get(..len).ok_or(CodecError::Length(len))?;
        let (frame, announced) = codec::decode(message)?;
        if announced != handles.len() {
            return Err(SocketError::Handles {
                announced,
                delivered: handles.len(),
            });
        }
        let mut buffers = Vec::with_capacity(handles.len());
        for (handle, fd) in handles.into_iter().enumerate() {
            let buffer = Buffer::from_fd(fd);
            buffers.push(buffer.map_err(|source| SocketError::Buffer { handle, source })?);
        }
        let sizes: Vec<u64> = buffers.iter().map(Buffer::size).collect();
        frame.check(&sizes)?;
        Ok((frame, buffers))
    }

    /// One message as it came: its length, its handles, its flags.
    fn recv_raw(
        &self,
        message: &mut [u8],
    ) -> Result<(usize, Vec<OwnedFd>, ReturnFlags), SocketError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // TRUNC gives the length that was sent, not the length that fits.
        let mut flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        flags.set(RecvFlags::DONTWAIT, self.timeout.is_some());
        let received = until_ready("recvmsg", self.as_fd(), PollFlags::IN, self.timeout, || {
            let mut receive = || {
                let mut parts = [IoSliceMut::new(&mut *message)];
                recvmsg(&self.fd, &mut parts, &mut control, flags)
            };
            match receive() {
                // A peer that leaves without reading all that we sent has the
                // kernel say so once, ahead of what the peer sent before.
                Err(Errno::CONNRESET) => receive(),
                received => received,
            }
        })
        .map_err(peer_gone)?;
        // All of them before anything is judged: whatever is not given out is
        // closed on drop. There can be more than was asked for, since the
        // kernel fills the space up to its alignment.
        let handles = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(handles) => Some(handles),
                _ => None,
            })
            .flatten()
            .collect();
        Ok((received.bytes, handles, received.flags))
    }

    /// Whether nothing came because nobody is there: an empty message looks
    /// the same.
    fn hung_up(&self) -> Result<bool, SocketError> {
        let now = Timespec::default();
        let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)))
            .map_err(os("poll", self.as_fd()))?;
        let gone = PollFlags::RDHUP | PollFlags::HUP;
        Ok(fds[0].revents().intersects(gone))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket of the kind that carries frames.
pub(super) fn new_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

pub(super) fn named(operation: &'static str, name: &str) -> impl FnOnce(Errno) -> SocketError {
    move |source| SocketError::Os {
        operation,
        name: name.to_owned(),
        source,
    }
}

/// The kernel's several words for a peer that is gone.
fn peer_gone(error: SocketError) -> SocketError {
    match error {
        SocketError::Os {
            source: Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN,
            ..
        } => SocketError::Closed,
        other => other,
    }
}
