//! A connection that carries messages and the handles of their buffers.

use std::borrow::Borrow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::{Errno, FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, connect, shutdown, socketpair, sockopt};

use super::incoming::{Fault, Incoming};
use super::outgoing::{Outgoing, Sending};
use super::wait::{Again, os, until_ready, until_ready_or_again};
use super::{
    Address, Breakage, Draft, Frame, Message, Peer, Policy, Process, ProcessError, SocketError,
    Transport,
};
use crate::buffer::{Buffer, describe};
use crate::sys;

/// How long to wait before asking again whether a listener has room: nothing
/// tells when.
pub(super) const CONNECT_WAIT: Duration = Duration::from_millis(2);

/// One end of a connection that carries frames, buffers and bytes: a UNIX
/// socket of type `SOCK_SEQPACKET`, or of `SOCK_STREAM`.
///
/// What a peer sends is hostile until it is checked:
/// [`recv_message`](Self::recv_message) gives a message only when it is written
/// as [`codec`](super::codec) says, comes in its turn, brought just the handles
/// it announced, each of them is a buffer of the size that is claimed for it,
/// and every plane lies inside of its buffer by the size that the kernel tells.
/// How exactly that is known of a format, [`Frame::check`] says.
///
/// Threads can share one: a message is sent or received by one of them as a
/// whole, and while one waits to receive, another can send.
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
    transport: Transport,
    timeout: Option<Duration>,
    incoming: Box<Mutex<Incoming>>,
    outgoing: Mutex<Outgoing>,
    /// Whose turn it is to send: a message that waits in its middle keeps it.
    turn: Mutex<()>,
}

impl Socket {
    /// Two ends of a new connection, for a child process or a thread.
    ///
    /// # Errors
    /// [`SocketError::Os`].
    pub fn pair() -> Result<(Socket, Socket), SocketError> {
        Socket::pair_with(Transport::default())
    }

    /// Two ends of a new connection of this kind.
    ///
    /// # Errors
    /// [`SocketError::Os`].
    pub fn pair_with(transport: Transport) -> Result<(Socket, Socket), SocketError> {
        const NAME: &str = "a pair of UNIX sockets";
        let kind = transport.socket_type();
        let (a, b) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(named("socketpair", NAME))?;
        let new = |fd| Socket::new(fd, transport).map_err(named("setsockopt", NAME));
        Ok((new(a)?, new(b)?))
    }

    /// Connects to a [`Listener`](super::Listener), and waits while its queue is
    /// full: see [`connect_timeout`](Self::connect_timeout).
    ///
    /// Any user can be the first to listen at an abstract name, or at a path in
    /// a folder that is open to all. [`check_peer`](Self::check_peer) tells one
    /// from another: call it before anything is sent.
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
    pub fn connect(address: impl Into<Address>) -> Result<Socket, SocketError> {
        Socket::connect_with(address, Transport::default())
    }

    /// Connects to a [`Listener`](super::Listener) of this kind.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and `EPROTOTYPE` where it is of
    /// another kind.
    pub fn connect_with(
        address: impl Into<Address>,
        transport: Transport,
    ) -> Result<Socket, SocketError> {
        Socket::connect_flags(&address.into(), transport, SocketFlags::empty())
    }

    /// Connects within so long: who listens, and does not accept, has others
    /// wait once its queue is full, for ever without a limit. The socket has
    /// this [timeout](Self::set_timeout) from then on.
    ///
    /// # Errors
    /// Those of [`connect_with`](Self::connect_with), and
    /// [`SocketError::Timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmashare::share::{Address, Listener, Socket, SocketError, Transport};
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("frames");
    /// let _accepts_nobody = Listener::bind(&path)?;
    /// let mut queue = Vec::new();
    /// let full = loop {
    ///     match Socket::connect_timeout(&path, Transport::Packet, Duration::from_millis(10)) {
    ///         Ok(socket) => queue.push(socket),
    ///         Err(error) => break error,
    ///     }
    /// };
    /// assert!(matches!(full, SocketError::Timeout { operation: "connect", .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect_timeout(
        address: impl Into<Address>,
        transport: Transport,
        timeout: Duration,
    ) -> Result<Socket, SocketError> {
        let address = address.into();
        let begun = Instant::now();
        loop {
            match Socket::connect_flags(&address, transport, SocketFlags::NONBLOCK) {
                Err(SocketError::Os {
                    operation: operation @ "connect",
                    source: Errno::AGAIN,
                    ..
                }) if begun.elapsed() >= timeout => {
                    let after = timeout;
                    return Err(SocketError::Timeout { operation, after });
                }
                Err(SocketError::Os {
                    operation: "connect",
                    source: Errno::AGAIN,
                    ..
                }) => std::thread::sleep(CONNECT_WAIT),
                connected => {
                    let mut socket = connected?;
                    socket.timeout = Some(timeout);
                    return Ok(socket);
                }
            }
        }
    }

    pub(super) fn connect_flags(
        address: &Address,
        transport: Transport,
        flags: SocketFlags,
    ) -> Result<Socket, SocketError> {
        let name = address.to_string();
        let kernel = address.to_kernel().map_err(named("connect", &name))?;
        let fd = transport.socket(flags).map_err(named("socket", &name))?;
        // An interrupted connect(2) on a UNIX socket has not begun.
        retry_on_intr(|| connect(&fd, &kernel)).map_err(named("connect", &name))?;
        Socket::new(fd, transport).map_err(named("setsockopt", &name))
    }

    /// Takes a connected socket from elsewhere: inherited, or from an event
    /// loop. It is made to close on exec, and to take no handle of the sender's
    /// process with each message (`SO_PASSPIDFD`).
    ///
    /// # Errors
    /// [`SocketError::WrongSocket`] where it is another kind of handle.
    ///
    /// ```
    /// use std::os::unix::net::{UnixDatagram, UnixStream};
    /// use dmashare::share::{Socket, SocketError, Transport};
    /// let (stream, _other) = UnixStream::pair()?;
    /// assert_eq!(Socket::from_fd(stream.into())?.transport(), Transport::Stream);
    /// let refused = Socket::from_fd(UnixDatagram::unbound()?.into());
    /// assert!(matches!(refused, Err(SocketError::WrongSocket(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Socket, SocketError> {
        let Some(transport) = Transport::of(&fd) else {
            return Err(SocketError::WrongSocket(describe(fd.as_fd())));
        };
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(os("fcntl(F_SETFD)", fd.as_fd()))?;
        let name = describe(fd.as_fd());
        sys::socket::refuse_pidfds(fd.as_fd()).map_err(named("setsockopt", &name))?;
        Socket::new(fd, transport).map_err(named("setsockopt", &name))
    }

    pub(super) fn new(fd: OwnedFd, transport: Transport) -> Result<Socket, Errno> {
        if transport == Transport::Stream {
            // Or else a byte that is sent by MSG_OOB lies in the queue for
            // ever: poll(2) finds it, and recvmsg(2) does not.
            sockopt::set_socket_oobinline(&fd, true)?;
        }
        Ok(Socket {
            fd,
            transport,
            timeout: None,
            incoming: Box::default(),
            outgoing: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    /// What kind of socket it is.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Gives the handle away, and forgets what came of a message that is not
    /// whole yet.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// How long [`send`](Self::send) and [`recv`](Self::recv) and their like
    /// wait for the peer; `None`, as at first, is for ever. A thread that sends
    /// waits for others that do before its time begins.
    ///
    /// It bounds the waiting for the socket. Received handles do not add to it:
    /// a file on FUSE or on a network is found out without its server, and what
    /// is no memory is closed by threads of this crate, sockets without their
    /// `SO_LINGER`. A connection of which more than 253 handles could not be
    /// closed yet is broken ([`Breakage::Closing`]).
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

    /// How long a message may take from its first byte to its last, at first 5
    /// seconds; `None` is for ever. Then the connection is broken, and the peer
    /// is told that it is closed ([`Breakage::Unfinished`]).
    ///
    /// Only in a stream can a message come in pieces. The time begins when a
    /// receiving call has found a piece and nothing more; it is looked at by
    /// receiving calls, also by one that waits, and says nothing of the time
    /// before a message ([`set_timeout`](Self::set_timeout)).
    ///
    /// ```
    /// use std::io::Write;
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    /// use dmashare::share::{Breakage, Socket, SocketError};
    /// let (here, mut there) = UnixStream::pair()?;
    /// let mut here = Socket::from_fd(here.into())?;
    /// here.set_message_time(Some(Duration::from_millis(10)));
    /// there.write_all(b"D")?;
    /// let broken = here.recv().unwrap_err();
    /// assert!(matches!(broken, SocketError::Broken(Breakage::Unfinished { came: 1, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_message_time(&mut self, limit: Option<Duration>) {
        lock(&self.incoming).set_limit(limit);
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// [`SocketError::Os`] where the socket is not connected.
    ///
    /// ```
    /// use dmashare::share::Socket;
    /// let (here, _there) = Socket::pair()?;
    /// println!("connected with {}", here.peer()?);
    /// # Ok::<(), dmashare::share::SocketError>(())
    /// ```
    pub fn peer(&self) -> Result<Peer, SocketError> {
        let credentials = sys::socket::peer_credentials(self.as_fd())
            .map_err(os("getsockopt(SO_PEERCRED)", self.as_fd()))?;
        Ok(Peer {
            pid: u32::try_from(credentials.pid).ok().filter(|pid| *pid > 0),
            uid: credentials.uid,
            gid: credentials.gid,
        })
    }

    /// The process at the other end, to be watched or to take handles from.
    ///
    /// The kernel gives it by `SO_PEERPIDFD` since Linux 6.5. Before, it is
    /// found by its pid, as by [`Process::of`], and that can be another process
    /// if the peer has ended meanwhile.
    ///
    /// # Errors
    /// [`ProcessError`]: `ESRCH` where it has ended; newer kernels give it all the
    /// same, and [`Process::take`] says so then.
    ///
    /// ```
    /// use dmashare::share::Socket;
    /// let (here, _there) = Socket::pair()?;
    /// assert_eq!(here.peer_process()?.pid(), std::process::id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peer_process(&self) -> Result<Process, ProcessError> {
        let peer = self.peer()?;
        match sys::socket::peer_pidfd(self.as_fd()) {
            Ok(pidfd) => Process::from_peer(&peer, pidfd),
            Err(Errno::NOPROTOOPT) => Process::of(&peer),
            // What 6.5 and later have for a process that has ended.
            Err(Errno::INVAL | Errno::NODATA) => Err(ProcessError::Os {
                operation: "getsockopt(SO_PEERPIDFD)",
                pid: peer.pid.unwrap_or(0),
                source: Errno::SRCH,
            }),
            Err(errno) => Err(os("getsockopt(SO_PEERPIDFD)", self.as_fd())(errno).into()),
        }
    }

    /// Checks that the peer is one that the policy allows: the process that
    /// connected, or that called listen(2), as the kernel noted it then.
    ///
    /// # Errors
    /// [`SocketError::Refused`] where it is not, and those of
    /// [`peer`](Self::peer).
    ///
    /// ```
    /// use dmashare::share::{Policy, Socket, SocketError};
    /// let (here, _there) = Socket::pair()?;
    /// here.check_peer(&Policy::same_user())?;
    /// let stranger = here.check_peer(&Policy::pid(1));
    /// assert!(matches!(stranger, Err(SocketError::Refused { .. })));
    /// # Ok::<(), SocketError>(())
    /// ```
    pub fn check_peer(&self, policy: &Policy) -> Result<(), SocketError> {
        let peer = self.peer()?;
        match policy.allows(&peer) {
            true => Ok(()),
            false => Err(SocketError::Refused {
                peer,
                policy: policy.clone(),
            }),
        }
    }

    /// Sends a frame with the handles of its buffers, in the order in which
    /// [`Plane::buffer`](super::Plane::buffer) counts them: a message of one
    /// frame without a payload.
    ///
    /// # Errors
    /// Those of [`send_message`](Self::send_message).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::share::{Fourcc, Frame, Socket, SocketError};
    /// let (here, there) = Socket::pair()?;
    /// let frame = Frame::packed(64, 64, Fourcc::XRGB8888)?;
    /// let small = Memfd::new().allocate(&Request::new(4096))?;
    /// let refused = here.send(&frame, &[&small]);
    /// assert!(matches!(refused, Err(SocketError::Frame { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send(&self, frame: &Frame, buffers: &[impl Borrow<Buffer>]) -> Result<(), SocketError> {
        let buffers = buffers.iter().map(Borrow::borrow);
        let frames = std::slice::from_ref(frame);
        self.send_message(&Draft::new().frames(frames).buffers(buffers))
    }

    /// Sends a message.
    ///
    /// The receiver gets handles of its own: those of the sender can be closed
    /// afterwards.
    ///
    /// # Errors
    /// [`SocketError::Unsendable`], [`SocketError::Buffer`] and
    /// [`SocketError::Frame`] for what a receiver would refuse, and nothing was
    /// sent; [`SocketError::Closed`] and [`SocketError::Os`].
    /// [`SocketError::Timeout`]: where nothing of the message was sent, it can
    /// be sent again; in the middle of a message in a stream, and after any
    /// other error there, every later call ends with [`SocketError::Broken`].
    pub fn send_message(&self, draft: &Draft<'_>) -> Result<(), SocketError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sending = Sending::new(self, draft)?;
        let (socket, timeout) = (self.as_fd(), self.timeout);
        let sent = until_ready("sendmsg", socket, PollFlags::OUT, timeout, || {
            sending.step()
        });
        sent.map_err(peer_gone)
    }

    /// Receives a frame and its buffers.
    ///
    /// # Errors
    /// [`SocketError::Shape`] where a message comes that is anything else: with
    /// another number of frames, or a payload. It is gone then, with its
    /// buffers, and the connection can be used on; who expects such receives by
    /// [`recv_message`](Self::recv_message). And those of that.
    ///
    /// ```
    /// use dmashare::share::{Draft, Socket, SocketError};
    /// let (here, there) = Socket::pair()?;
    /// there.send_message(&Draft::new().payload(b"no picture"))?;
    /// let refused = here.recv().unwrap_err();
    /// assert_eq!(refused, SocketError::Shape { frames: 0, buffers: 0, payload: 10 });
    /// # Ok::<(), SocketError>(())
    /// ```
    pub fn recv(&self) -> Result<(Frame, Vec<Buffer>), SocketError> {
        one_frame(self.recv_message()?)
    }

    /// Receives a message.
    ///
    /// Every handle is examined before it is given out: its kind and size are
    /// the kernel's word, not the peer's. What cannot be safely mapped is
    /// refused by [`Buffer::map`].
    ///
    /// # Errors
    /// [`SocketError::Closed`] where the peer is gone,
    /// [`SocketError::Truncated`] where it went in the middle of a message, and
    /// the message's fault where it is none of ours; see [`SocketError`] for
    /// which of them leave the connection usable. [`SocketError::Timeout`]
    /// loses nothing, also in the middle of a message: the next call goes on.
    ///
    /// ```
    /// use dmashare::share::{Socket, SocketError};
    /// let (here, there) = Socket::pair()?;
    /// drop(there);
    /// assert_eq!(here.recv_message().unwrap_err(), SocketError::Closed);
    /// # Ok::<(), SocketError>(())
    /// ```
    pub fn recv_message(&self) -> Result<Message, SocketError> {
        let (socket, timeout) = (self.as_fd(), self.timeout);
        let received = until_ready_or_again("recvmsg", socket, PollFlags::IN, timeout, |again| {
            let received = self.step_recv();
            *again = self.again();
            received
        });
        received.map_err(peer_gone)?
    }

    /// Receives what is there: a message or its fault, or `EAGAIN` where it is
    /// not all there yet.
    pub(super) fn step_recv(&self) -> Result<Result<Message, SocketError>, Errno> {
        // Not held while waiting, so that each thread's timeout is its own.
        let mut incoming = lock(&self.incoming);
        if let Some(
            broken @ (Breakage::Header(_) | Breakage::Unfinished { .. } | Breakage::Closing(_)),
        ) = &self.outgoing().broken
        {
            return Ok(Err(SocketError::Broken(broken.clone())));
        }
        let received = match self.transport {
            Transport::Packet => incoming.packet(self.as_fd()),
            Transport::Stream => incoming.stream(self.as_fd()),
        };
        match received {
            Ok(message) => Ok(Ok(message)),
            Err(Fault::Refused(error)) => Ok(Err(error)),
            Err(Fault::Os(errno)) => Err(errno),
            Err(Fault::Broken(broken)) => {
                incoming.give_up();
                self.outgoing().broken = Some(broken.clone());
                // So that the peer finds out. Where this fails it is gone.
                let _ = shutdown(&self.fd, Shutdown::Both);
                Ok(Err(SocketError::Broken(broken)))
            }
        }
    }

    /// When to receive again what is not there yet.
    pub(super) fn again(&self) -> Again {
        lock(&self.incoming).again()
    }

    pub(super) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        lock(&self.outgoing)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What these guard is right between any two statements that could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The frame of a message that is just one frame.
pub(super) fn one_frame(message: Message) -> Result<(Frame, Vec<Buffer>), SocketError> {
    let Message {
        mut frames,
        buffers,
        payload,
    } = message;
    match frames.pop() {
        Some(frame) if frames.is_empty() && payload.is_empty() => Ok((frame, buffers)),
        last => Err(SocketError::Shape {
            frames: frames.len() + usize::from(last.is_some()),
            buffers: buffers.len(),
            payload: payload.len(),
        }),
    }
}

pub(super) fn named(operation: &'static str, name: &str) -> impl FnOnce(Errno) -> SocketError {
    move |source| SocketError::Os {
        operation,
        name: name.to_owned(),
        source,
    }
}

/// The kernel's several words for a peer that is gone.
pub(super) fn peer_gone(error: SocketError) -> SocketError {
    match error {
        SocketError::Os {
            source: Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN,
            ..
        } => SocketError::Closed,
        other => other,
    }
}
