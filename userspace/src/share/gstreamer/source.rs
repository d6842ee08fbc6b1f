//! The receiving role: what `unixfdsrc` is.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::command::{Command, Fault, Inbox, TURN, command};
use super::payload::{self, CAPS, Described, EOS, NEW_BUFFER, RELEASE_BUFFER};
use super::{Caps, GstreamerError, Stamp, place};
use crate::buffer::Buffer;
use crate::frame::Frame;
use crate::share::socket::peer_gone;
use crate::share::wait::until_ready_or_again;
use crate::share::{Address, Socket, SocketError, Transport, handles};

/// A connection to an `unixfdsink` that lends us its frames.
///
/// ```no_run
/// // Not run with the crate's tests: takes a running GStreamer, such as
/// // gst-launch-1.0 videotestsrc ! unixfdsink socket-path=/tmp/frames
/// use dmashare::buffer::Access;
/// use dmashare::share::gstreamer::Source;
///
/// let mut source = Source::connect("/tmp/frames")?;
/// while let Some(borrowed) = source.recv()? {
///     let mapping = borrowed.buffers[0].map(Access::Read)?;
///     println!("{:?} at {:?}", borrowed.frame, borrowed.stamp.pts);
/// } // The frame is released here, and its sender can use it again.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Source {
    link: Arc<Link>,
    inbox: Inbox,
    caps: Option<Caps>,
    /// Why nothing comes any more.
    ended: Option<GstreamerError>,
    /// Until when nothing is read, since no handle is left to receive any.
    rests: Option<Instant>,
    timeout: Option<Duration>,
}

/// The most bytes of releases that wait for a sink that reads none: those of
/// 4096 frames.
const MAX_UNSENT: usize = 4096 * 16;

/// How long a source rests after a frame whose handles did not fit the process.
const REST: Duration = Duration::from_millis(20);

/// What a [`Source`] tells.
#[derive(Debug)]
pub enum SourceEvent {
    /// The frames from here on are such.
    Caps(Caps),
    /// A frame.
    Frame(Borrowed),
    /// The stream has ended.
    End,
}

/// A frame of an `unixfdsink`, lent until this is dropped.
///
/// Its sender may write to it again afterwards: who keeps one of the buffers
/// keeps memory that changes.
#[derive(Debug)]
pub struct Borrowed {
    /// What it is, and where it lies in the buffers.
    pub frame: Frame,
    /// Its memory: memfds or dma-bufs. Nobody vouches for a memfd's size that
    /// is not sealed ([`Buffer::map`] refuses it); GStreamer's own are.
    pub buffers: Vec<Buffer>,
    /// When it is to be shown.
    pub stamp: Stamp,
    _lease: Lease,
}

/// Releases the buffer of this id on drop.
#[derive(Debug)]
struct Lease {
    link: Arc<Link>,
    id: u64,
}

/// The connection, which the frames share.
#[derive(Debug)]
struct Link {
    socket: Socket,
    unsent: Mutex<Unsent>,
}

/// Releases that the peer takes later: it may wait for us to read.
#[derive(Debug, Default)]
struct Unsent {
    bytes: VecDeque<u8>,
    /// Whether there were too many: the peer reads none.
    overflown: bool,
}

impl Source {
    /// Connects to an `unixfdsink`: to its `socket-path`, or to an abstract name
    /// where its `socket-type` is `abstract`.
    ///
    /// # Errors
    /// [`GstreamerError::Socket`]: `ENOENT` or `ECONNREFUSED` where none
    /// listens.
    pub fn connect(address: impl Into<Address>) -> Result<Source, GstreamerError> {
        let socket = Socket::connect_with(address, Transport::Stream)?;
        Ok(Source::new(socket))
    }

    /// Connects within so long. The source has this
    /// [timeout](Self::set_timeout) from then on.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and [`SocketError::Timeout`].
    pub fn connect_timeout(
        address: impl Into<Address>,
        timeout: Duration,
    ) -> Result<Source, GstreamerError> {
        let socket = Socket::connect_timeout(address, Transport::Stream, timeout)?;
        let mut source = Source::new(socket);
        source.timeout = Some(timeout);
        Ok(source)
    }

    /// Takes a connected socket from elsewhere.
    ///
    /// # Errors
    /// [`SocketError::WrongSocket`] for what is no UNIX stream.
    ///
    /// ```
    /// use std::os::unix::net::{UnixDatagram, UnixStream};
    /// use dmashare::share::gstreamer::Source;
    /// let (here, _there) = UnixStream::pair()?;
    /// assert!(Source::from_fd(here.into()).is_ok());
    /// assert!(Source::from_fd(UnixDatagram::unbound()?.into()).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Source, GstreamerError> {
        let socket = Socket::from_fd(fd)?;
        match socket.transport() {
            Transport::Stream => Ok(Source::new(socket)),
            Transport::Packet => {
                let name = crate::buffer::describe(socket.as_fd());
                Err(SocketError::WrongSocket(name).into())
            }
        }
    }

    fn new(socket: Socket) -> Source {
        Source {
            link: Arc::new(Link {
                socket,
                unsent: Mutex::default(),
            }),
            inbox: Inbox::default(),
            caps: None,
            ended: None,
            rests: None,
            timeout: None,
        }
    }

    /// How long [`recv`](Self::recv) and [`event`](Self::event) wait; `None`, as
    /// at first, is for ever.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    /// use dmashare::share::SocketError;
    /// use dmashare::share::gstreamer::{GstreamerError, Source};
    /// let (here, _there) = UnixStream::pair()?;
    /// let mut source = Source::from_fd(here.into())?;
    /// source.set_timeout(Some(Duration::from_millis(10)));
    /// let nothing = source.recv().unwrap_err();
    /// assert!(matches!(nothing, GstreamerError::Socket(SocketError::Timeout { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// How long a command may take from its first byte to its last, at first 5
    /// seconds; `None` is for ever. Then the connection ends with
    /// [`SocketError::Broken`], as for
    /// [`Socket::set_message_time`](crate::share::Socket::set_message_time).
    pub fn set_message_time(&mut self, limit: Option<Duration>) {
        self.inbox.set_limit(limit);
    }

    /// What the frames are, once that was told.
    pub fn caps(&self) -> Option<&Caps> {
        self.caps.as_ref()
    }

    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// Those of [`event`](Self::event).
    pub fn recv(&mut self) -> Result<Option<Borrowed>, GstreamerError> {
        let begun = Instant::now();
        loop {
            match self.event_since(begun)? {
                SourceEvent::Frame(frame) => return Ok(Some(frame)),
                SourceEvent::End => return Ok(None),
                SourceEvent::Caps(_) => {}
            }
        }
    }

    /// The next that the sink says: new caps, a frame, or the end. Commands of
    /// other types are passed over.
    ///
    /// # Errors
    /// What is wrong with what came: see [`GstreamerError`] for which of them
    /// leave the connection usable. A frame that is refused is released. A
    /// [`SocketError::Timeout`] loses nothing, also in the middle of a command.
    /// After [`SocketError::Control`], where the process has no handle left, the
    /// next call rests for 20 ms first.
    pub fn event(&mut self) -> Result<SourceEvent, GstreamerError> {
        self.event_since(Instant::now())
    }

    fn event_since(&mut self, begun: Instant) -> Result<SourceEvent, GstreamerError> {
        let mut passed_over = 0;
        loop {
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
            if self.link.unsent().overflown {
                return Err(self.end(GstreamerError::Unread(MAX_UNSENT)));
            }
            self.rest(begun)?;
            let left = self
                .timeout
                .map(|limit| limit.saturating_sub(begun.elapsed()));
            let Source { link, inbox, .. } = self;
            let socket = link.socket.as_fd();
            let came = until_ready_or_again("recvmsg", socket, PollFlags::IN, left, |again| {
                link.flush();
                let came = inbox.step(socket);
                again.within = inbox.look_again();
                match came {
                    Err(Fault::Os(errno)) => Err(errno),
                    Err(Fault::Ended(error)) => Ok(Err(error)),
                    Ok(command) => Ok(Ok(command)),
                }
            });
            let command = match came {
                Ok(Ok(command)) => command,
                Ok(Err(error)) => return Err(self.end(error)),
                Err(SocketError::Timeout { operation, .. }) => {
                    let after = self.timeout.unwrap_or_default();
                    return Err(SocketError::Timeout { operation, after }.into());
                }
                Err(error) => match peer_gone(error) {
                    gone @ SocketError::Closed => return Err(self.end(gone.into())),
                    other => return Err(other.into()),
                },
            };
            if let Some(event) = self.understand(command)? {
                return Ok(event);
            }
            // A peer that only sends what is ignored has no more time than a
            // silent one; yet what is there already is found without waiting.
            passed_over += 1;
            if left == Some(Duration::ZERO) && passed_over >= TURN {
                let (operation, after) = ("recvmsg", self.timeout.unwrap_or_default());
                return Err(SocketError::Timeout { operation, after }.into());
            }
        }
    }

    /// Rests where a frame has just been lost: its sender has the next one ready
    /// as soon as it is released.
    fn rest(&mut self, begun: Instant) -> Result<(), GstreamerError> {
        let Some(rest) = self.rests.map(|until| until.duration_since(Instant::now())) else {
            return Ok(());
        };
        let left = self
            .timeout
            .map(|limit| limit.saturating_sub(begun.elapsed()));
        if let Some(left) = left.filter(|left| *left < rest) {
            std::thread::sleep(left);
            let (operation, after) = ("recvmsg", self.timeout.unwrap_or_default());
            return Err(SocketError::Timeout { operation, after }.into());
        }
        std::thread::sleep(rest);
        self.rests = None;
        Ok(())
    }

    fn understand(&mut self, command: Command) -> Result<Option<SourceEvent>, GstreamerError> {
        match command.kind {
            CAPS => self.take_caps(&command),
            NEW_BUFFER => self.borrow(command).map(|b| Some(SourceEvent::Frame(b))),
            EOS => Ok(Some(SourceEvent::End)),
            RELEASE_BUFFER => Err(self.end(GstreamerError::Command(RELEASE_BUFFER))),
            _ => Ok(None),
        }
    }

    fn take_caps(&mut self, command: &Command) -> Result<Option<SourceEvent>, GstreamerError> {
        // What they were holds no more, whatever these are.
        self.caps = None;
        let short = GstreamerError::Short {
            command: CAPS,
            length: command.payload.len(),
        };
        let text = command.payload.strip_suffix(&[0]).ok_or(short)?;
        let text = String::from_utf8_lossy(text);
        // What a sink says that has none yet.
        if text == "NULL" {
            return Ok(None);
        }
        let caps: Caps = text.parse()?;
        self.caps = Some(caps.clone());
        Ok(Some(SourceEvent::Caps(caps)))
    }

    fn borrow(&mut self, command: Command) -> Result<Borrowed, GstreamerError> {
        let short = GstreamerError::Short {
            command: NEW_BUFFER,
            length: command.payload.len(),
        };
        // First of all, so that it is released however this ends.
        let lease = Lease {
            link: Arc::clone(&self.link),
            id: payload::id_of(&command.payload).ok_or(short)?,
        };
        let described = Described::read(&command.payload)?;
        let buffers = command.buffers(described.memories.len());
        if matches!(buffers, Err(SocketError::Control)) {
            self.rests = Some(Instant::now() + REST);
        }
        let buffers = buffers?;
        let caps = self.caps.as_ref().ok_or(GstreamerError::NoCaps)?;
        Ok(Borrowed {
            frame: place::frame(caps, &described, &buffers)?,
            buffers,
            stamp: described.stamp,
            _lease: lease,
        })
    }

    /// Ends the connection, and tells the peer.
    fn end(&mut self, error: GstreamerError) -> GstreamerError {
        self.inbox = Inbox::default();
        self.ended = Some(error.clone());
        // Where this fails, the peer is gone.
        let _ = shutdown(&self.link.socket, Shutdown::Both);
        error
    }
}

impl AsFd for Source {
    /// The socket, to be waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.socket.as_fd()
    }
}

impl Drop for Source {
    /// Frames that are still held are the peer's to use again from now on: it
    /// would otherwise send on to someone who does not read, and wait.
    fn drop(&mut self) {
        self.link.flush();
        let _ = shutdown(&self.link.socket, Shutdown::Both);
    }
}

impl Link {
    fn unsent(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is to be sent, as far as the peer takes it now.
    fn flush(&self) {
        let unsent = &mut *self.unsent();
        while !unsent.bytes.is_empty() {
            match handles::send(self.socket.as_fd(), unsent.bytes.as_slices().0, &[]) {
                Ok(sent) => drop(unsent.bytes.drain(..sent)),
                Err(Errno::AGAIN) => {
                    unsent.overflown = unsent.bytes.len() > MAX_UNSENT;
                    break;
                }
                // Nobody waits for them any more.
                Err(_) => unsent.bytes.clear(),
            }
        }
        if unsent.overflown {
            unsent.bytes = VecDeque::new();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let bytes = command(RELEASE_BUFFER, &self.id.to_ne_bytes());
        let mut unsent = self.link.unsent();
        if !unsent.overflown {
            unsent.bytes.extend(bytes);
            drop(unsent);
            self.link.flush();
        }
    }
}
