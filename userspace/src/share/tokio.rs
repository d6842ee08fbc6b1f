//! The same connections for tasks of tokio: nothing blocks a thread.
//!
//! What is sent and refused is that of [`Socket`] and [`Listener`]; only the
//! waiting differs. Timeouts are the runtime's: `tokio::time::timeout`.
//!
//! ```
//! use dmashare::alloc::{Allocate, Memfd, Request};
//! use dmashare::share::tokio::{AsyncListener, AsyncSocket};
//! use dmashare::share::{Draft, Listener, Transport};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let name = format!("@dmashare async doc {}", std::process::id());
//! let listener = AsyncListener::new(Listener::bind(&name)?)?;
//! let here = AsyncSocket::connect(&name, Transport::Packet).await?;
//! let there = listener.accept().await?;
//!
//! let buffer = Memfd::new().allocate(&Request::new(4096))?;
//! here.send_message(&Draft::new().buffers([&buffer])).await?;
//! assert_eq!(there.recv_message().await?.buffers[0].size(), 4096);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Borrow;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::sync::Mutex;
use ::tokio::time::{sleep, timeout};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::listener::{FULL, REST, is_full};
use super::outgoing::Sending;
use super::socket::{CONNECT_WAIT, one_frame, peer_gone};
use super::wait::os;
use super::{
    Address, Draft, Frame, Listener, Message, Peer, Policy, Process, ProcessError, Socket,
    SocketError, Transport,
};
use crate::buffer::Buffer;

/// A [`Socket`] in a runtime of tokio.
///
/// Tasks can share one: a message is sent or received by one of them as a
/// whole, and while one waits to receive, another can send.
///
/// Nothing that a peer sends blocks a thread of the runtime: what is no memory
/// is closed by threads of this crate (see [`Socket::set_timeout`]).
///
/// Memory that you received you close yourself, by dropping its
/// [`Buffer`], and that takes no time, nor does dropping
/// this socket: UNIX sockets do not linger.
#[derive(Debug)]
pub struct AsyncSocket {
    fd: AsyncFd<Source<Socket>>,
    /// Whose turn it is to send.
    turn: Mutex<()>,
}

impl AsyncSocket {
    /// Takes a socket into the runtime. A timeout that was set means nothing
    /// any more; the [time of a message](Socket::set_message_time) does.
    ///
    /// # Errors
    /// [`SocketError::Os`] where the runtime cannot watch it.
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O or time.
    pub fn new(socket: Socket) -> Result<AsyncSocket, SocketError> {
        // Here, and not when a peer has us look at the clock.
        drop(sleep(Duration::ZERO));
        Ok(AsyncSocket {
            fd: watch(socket)?,
            turn: Mutex::new(()),
        })
    }

    /// Connects to a listener. Where the listener's queue is full, nothing tells
    /// when there is room but asking again.
    ///
    /// # Errors
    /// Those of [`Socket::connect_with`].
    ///
    /// # Panics
    /// As for [`new`](Self::new).
    pub async fn connect(
        address: impl Into<Address>,
        transport: Transport,
    ) -> Result<AsyncSocket, SocketError> {
        let address = address.into();
        loop {
            match Socket::connect_flags(&address, transport, SocketFlags::NONBLOCK) {
                Err(SocketError::Os {
                    operation: "connect",
                    source: Errno::AGAIN,
                    ..
                }) => sleep(CONNECT_WAIT).await,
                connected => return AsyncSocket::new(connected?),
            }
        }
    }

    /// What kind of socket it is.
    pub fn transport(&self) -> Transport {
        self.socket().transport()
    }

    /// Who is at the other end, as by [`Socket::peer`].
    ///
    /// # Errors
    /// Those of [`Socket::peer`].
    pub fn peer(&self) -> Result<Peer, SocketError> {
        self.socket().peer()
    }

    /// The process at the other end, as by [`Socket::peer_process`].
    ///
    /// # Errors
    /// Those of [`Socket::peer_process`].
    pub fn peer_process(&self) -> Result<Process, ProcessError> {
        self.socket().peer_process()
    }

    /// Whether the peer is one that the policy allows, as by
    /// [`Socket::check_peer`].
    ///
    /// # Errors
    /// Those of [`Socket::check_peer`].
    pub fn check_peer(&self, policy: &Policy) -> Result<(), SocketError> {
        self.socket().check_peer(policy)
    }

    /// Not for others: a message sent through it would not wait for one of ours
    /// that is on its way.
    fn socket(&self) -> &Socket {
        &self.fd.get_ref().0
    }

    /// Sends a frame with the handles of its buffers.
    ///
    /// # Errors
    /// Those of [`send_message`](Self::send_message).
    pub async fn send(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<(), SocketError> {
        let buffers = buffers.iter().map(Borrow::borrow);
        let frames = std::slice::from_ref(frame);
        let draft = Draft::new().frames(frames).buffers(buffers);
        self.send_message(&draft).await
    }

    /// Sends a message.
    ///
    /// Dropped before anything was sent, it was never sent. In a stream it can
    /// be dropped in the middle of the message: every later call ends with
    /// [`SocketError::Broken`] then.
    ///
    /// # Errors
    /// Those of [`Socket::send_message`], but no timeout.
    pub async fn send_message(&self, draft: &Draft<'_>) -> Result<(), SocketError> {
        let _turn = self.turn.lock().await;
        let mut sending = Sending::new(self.socket(), draft)?;
        ready(&self.fd, Interest::WRITABLE, "sendmsg", || sending.step()).await
    }

    /// Receives a frame and its buffers. It can be dropped at any time, and
    /// loses nothing.
    ///
    /// # Errors
    /// Those of [`Socket::recv`], but no timeout.
    pub async fn recv(&self) -> Result<(Frame, Vec<Buffer>), SocketError> {
        one_frame(self.recv_message().await?)
    }

    /// Receives a message. It can be dropped at any time, and loses nothing:
    /// what came of a message is kept for the next call.
    ///
    /// # Errors
    /// Those of [`Socket::recv_message`], but no timeout.
    pub async fn recv_message(&self) -> Result<Message, SocketError> {
        loop {
            let within = self.socket().again().within;
            let came = match within {
                None => self.fd.readable().await.map(Some),
                // Then a message that has begun may be too late.
                Some(within) => timeout(within, self.fd.readable()).await.ok().transpose(),
            };
            let came = match came {
                Ok(None) => interrupted(|| self.socket().step_recv()),
                Ok(Some(mut guard)) => {
                    match guard.try_io(|_| would_block(|| self.socket().step_recv())) {
                        Ok(came) => came.unwrap_or_else(|error| Err(errno(&error))),
                        Err(_) => continue,
                    }
                }
                Err(error) => Err(errno(&error)),
            };
            match came {
                Ok(message) => return message,
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(peer_gone(os("recvmsg", self.as_fd())(errno))),
            }
        }
    }
}

impl AsFd for AsyncSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

/// A [`Listener`] in a runtime of tokio.
#[derive(Debug)]
pub struct AsyncListener {
    fd: AsyncFd<Source<Listener>>,
}

impl AsyncListener {
    /// Takes a listener into the runtime. A timeout that was set means nothing
    /// any more.
    ///
    /// # Errors
    /// [`SocketError::Os`] where the runtime cannot watch it.
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O or time.
    pub fn new(listener: Listener) -> Result<AsyncListener, SocketError> {
        drop(sleep(Duration::ZERO));
        let fd = watch(listener)?;
        Ok(AsyncListener { fd })
    }

    /// The listener, for what needs no waiting.
    pub fn listener(&self) -> &Listener {
        &self.fd.get_ref().0
    }

    /// Waits for a process to connect, and rests as [`Listener::accept`] does
    /// where no handle is left. It can be dropped at any time, and loses nothing.
    ///
    /// # Errors
    /// Those of [`Listener::accept`], but no timeout.
    pub async fn accept(&self) -> Result<AsyncSocket, SocketError> {
        let mut full: Option<Instant> = None;
        loop {
            let step = || self.listener().step_accept();
            match ready(&self.fd, Interest::READABLE, "accept", step).await {
                Err(SocketError::Os { source, .. })
                    if is_full(source) && full.is_none_or(|full| full.elapsed() < FULL) =>
                {
                    full.get_or_insert_with(Instant::now);
                    sleep(REST).await;
                }
                accepted => return AsyncSocket::new(self.listener().admit(accepted?)?),
            }
        }
    }
}

/// What tokio asks for; its users see a [`BorrowedFd`].
#[derive(Debug)]
struct Source<T>(T);

impl<T: AsFd> AsRawFd for Source<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watch<T: AsFd>(source: T) -> Result<AsyncFd<Source<T>>, SocketError> {
    // SAFETY: the source owns its handle, and nothing closes it before the
    // `AsyncFd` gives the source back.
    unsafe { AsyncFd::register(Source(source)) }.map_err(|refused| {
        let (source, error) = refused.into_parts();
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        os("epoll_ctl", source.0.as_fd())(errno)
    })
}

/// Repeats a call until it gives something other than "interrupted" or "not
/// now", waiting in between.
async fn ready<S: AsFd, T>(
    fd: &AsyncFd<Source<S>>,
    interest: Interest,
    operation: &'static str,
    mut call: impl FnMut() -> Result<T, Errno>,
) -> Result<T, SocketError> {
    let called = fd.async_io(interest, |_| would_block(&mut call)).await;
    let called = called.unwrap_or_else(|error| Err(errno(&error)));
    called.map_err(|errno| peer_gone(os(operation, fd.get_ref().0.as_fd())(errno)))
}

/// "Not now" as tokio has it.
fn would_block<T>(call: impl FnMut() -> Result<T, Errno>) -> io::Result<Result<T, Errno>> {
    match interrupted(call) {
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        called => Ok(called),
    }
}

/// Repeats a call while it is interrupted.
fn interrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            called => return called,
        }
    }
}

/// An error of the runtime: where it has none of the kernel's, it is shutting
/// down.
fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::CANCELED)
}
