//! The sending role: what `unixfdsink` is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::command::{Command, Fault, Inbox, TURN, command, send};
use super::payload::{self, CAPS, EOS, NEW_BUFFER, RELEASE_BUFFER};
use super::{Caps, GstreamerError, Stamp, place};
use crate::buffer::Buffer;
use crate::frame::Frame;
use crate::share::wait::os;
use crate::share::{Address, Listener, Peer, Socket, SocketError, Transport};

/// How many clients a [`Sink`] has at most; others wait until one leaves.
pub const MAX_CLIENTS: usize = 64;

/// How long a client may leave what is sent to it unread, at first.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many events may wait for the caller before no new client is accepted:
/// those who come and go could fill the memory.
const MAX_UNHEARD: usize = 1024;

/// Lends frames to every `unixfdsrc` that connects.
///
/// A frame is lent by a number of the caller's, such as its place in a pool. It
/// can be written to again when all clients have released it, or are gone; the
/// sink tells so by [`SinkEvent::Free`], once for each [`send`](Self::send).
///
/// Nothing runs by itself: clients are accepted, and what they say is heard, in
/// [`send`](Self::send) and [`event`](Self::event). Events wait until they are
/// asked for; while a thousand wait, nobody new is accepted.
///
/// ```no_run
/// // Not run with the crate's tests: takes a running GStreamer, such as
/// // gst-launch-1.0 unixfdsrc socket-path=/tmp/frames ! videoconvert ! autovideosink
/// use dmashare::alloc::{Request, allocate};
/// use dmashare::share::gstreamer::{Caps, Sink, SinkEvent, Stamp};
/// use dmashare::share::{Fourcc, Frame};
///
/// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
/// let request = Request::new(frame.size_of_buffer(0)?).for_device();
/// let pool = [allocate(&request)?.buffer, allocate(&request)?.buffer];
/// let mut free = vec![0, 1];
///
/// let mut sink = Sink::bind("/tmp/frames", &Caps::of(&frame)?.framerate(30, 1))?;
/// for _ in 0..300 {
///     let id = loop {
///         match free.pop() {
///             Some(id) => break id,
///             None => if let SinkEvent::Free(id) = sink.event()? { free.push(id) },
///         }
///     };
///     // Draw into pool[id as usize], and:
///     sink.send(id, &frame, &[&pool[id as usize]], &Stamp::now())?;
/// }
/// sink.end();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sink {
    listener: Listener,
    caps: Caps,
    clients: Vec<Client>,
    /// By how many clients each buffer that is lent is still held.
    lent: BTreeMap<u64, usize>,
    events: VecDeque<SinkEvent>,
    timeout: Option<Duration>,
    patience: Duration,
}

/// What a [`Sink`] tells.
#[derive(Debug)]
pub enum SinkEvent {
    /// A client has connected.
    Connected(Peer),
    /// Nobody holds this buffer any more.
    Free(u64),
    /// A client is gone, or was let go, or may not connect; what it held is
    /// free.
    Gone {
        /// Who it was; `None` where the kernel would not tell.
        peer: Option<Peer>,
        /// Why.
        reason: GstreamerError,
    },
}

#[derive(Debug)]
struct Client {
    socket: Socket,
    peer: Peer,
    inbox: Inbox,
    /// The buffers that it holds.
    holds: BTreeSet<u64>,
}

impl Sink {
    /// Listens at an address, to be the `socket-path` of `unixfdsrc`, or its
    /// abstract name with `socket-type=abstract`.
    ///
    /// # Errors
    /// Those of [`Listener::bind`].
    ///
    /// ```
    /// use dmashare::share::gstreamer::{Caps, Sink, Source};
    /// use dmashare::share::{Fourcc, Frame};
    /// let caps = Caps::of(&Frame::packed(8, 2, Fourcc::ARGB8888)?)?;
    /// let name = format!("@dmashare doc gstreamer {}", std::process::id());
    /// let sink = Sink::bind(&name, &caps)?;
    /// assert!(Source::connect(&name).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind(address: impl Into<Address>, caps: &Caps) -> Result<Sink, GstreamerError> {
        Sink::new(Listener::bind_with(address, Transport::Stream)?, caps)
    }

    /// Takes a listener, which can have a policy and a mode.
    ///
    /// # Errors
    /// [`SocketError::WrongSocket`] for one of [`Transport::Packet`].
    ///
    /// ```
    /// use dmashare::share::gstreamer::{Caps, Sink};
    /// use dmashare::share::{Fourcc, Frame, Listener, Policy, Transport};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("frames");
    /// let caps = Caps::of(&Frame::packed(8, 2, Fourcc::ARGB8888)?)?;
    /// let mut listener = Listener::bind_mode(&path, Transport::Stream, 0o600)?;
    /// listener.set_policy(Policy::same_user());
    /// let sink = Sink::new(listener, &caps)?;
    /// # drop(sink);
    /// assert!(Sink::new(Listener::bind(&path)?, &caps).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(listener: Listener, caps: &Caps) -> Result<Sink, GstreamerError> {
        if listener.transport() != Transport::Stream {
            let name = listener.address().to_string();
            return Err(SocketError::WrongSocket(name).into());
        }
        Ok(Sink {
            listener,
            caps: caps.clone(),
            clients: Vec::new(),
            lent: BTreeMap::new(),
            events: VecDeque::new(),
            timeout: None,
            patience: PATIENCE,
        })
    }

    /// How long [`event`](Self::event) waits; `None`, as at first, is for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// How long the clients may leave what is sent to them unread, all of them
    /// together, before they are let go: at first a second.
    ///
    /// A socket holds some hundred frames. A client that is so far behind, or
    /// stopped, must not stop the others.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether someone holds this buffer.
    pub fn is_lent(&self, id: u64) -> bool {
        self.lent.contains_key(&id)
    }

    /// Tells what the frames are from here on.
    pub fn set_caps(&mut self, caps: &Caps) {
        self.caps = caps.clone();
        let bytes = caps_command(&self.caps);
        self.send_all(&bytes, &[], None);
    }

    /// Tells that the stream has ended. Those who listen may leave then.
    pub fn end(&mut self) {
        self.send_all(&command(EOS, &[]), &[], None);
    }

    /// Lends a frame to all clients; how many these are. Without any it is free
    /// at once.
    ///
    /// The buffers stay the caller's, who must not write to them before
    /// [`SinkEvent::Free`] tells so: GStreamer may be reading. To make them
    /// dma-bufs is for elements that hand them on to devices.
    ///
    /// A layout that is not that of [`Caps::frame`] is told with each frame.
    /// Before 1.28 `unixfdsrc` knows how to read that only when something in its
    /// process has used a `GstVideoMeta` before: it can miss it at first.
    ///
    /// # Errors
    /// [`GstreamerError::Lent`] where `id` is lent already;
    /// [`GstreamerError::Mismatch`], [`GstreamerError::Buffers`],
    /// [`GstreamerError::Mixed`], [`GstreamerError::Frame`] for a frame that
    /// cannot be sent so; [`SocketError::Buffer`] for a System V segment, which
    /// has no handle; [`SocketError::Os`] where no client can be accepted, as for
    /// [`event`](Self::event). Nothing was sent then. A client that does not take
    /// it is let go, which is no error of this call.
    pub fn send(
        &mut self,
        id: u64,
        frame: &Frame,
        buffers: &[&Buffer],
        stamp: &Stamp,
    ) -> Result<usize, GstreamerError> {
        // It may have come back meanwhile.
        self.listen()?;
        if self.is_lent(id) {
            return Err(GstreamerError::Lent(id));
        }
        let described = place::describe(id, &self.caps, frame, buffers, stamp)?;
        let mut handles = Vec::with_capacity(buffers.len());
        for (handle, buffer) in buffers.iter().enumerate() {
            let fd = buffer.fd();
            handles.push(fd.map_err(|source| SocketError::Buffer { handle, source })?);
        }
        let bytes = command(NEW_BUFFER, &described.write());
        let holders = self.send_all(&bytes, &handles, Some(id));
        match holders {
            0 => self.events.push_back(SinkEvent::Free(id)),
            _ => drop(self.lent.insert(id, holders)),
        }
        Ok(holders)
    }

    /// Waits for the next that happens.
    ///
    /// # Errors
    /// [`SocketError::Timeout`], and [`SocketError::Os`] where no client can be
    /// accepted: `EMFILE`. What clients do wrong is an event.
    pub fn event(&mut self) -> Result<SinkEvent, GstreamerError> {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.listen()?;
            if !self.events.is_empty() {
                continue;
            }
            let left = self
                .timeout
                .map(|limit| limit.saturating_sub(begun.elapsed()));
            if left == Some(Duration::ZERO) {
                let (operation, after) = ("poll", self.timeout.unwrap_or_default());
                return Err(SocketError::Timeout { operation, after }.into());
            }
            self.wait(left)?;
        }
    }

    /// Until a client connects, or says something, or leaves.
    fn wait(&self, left: Option<Duration>) -> Result<(), SocketError> {
        let clients = self.clients.iter().map(|client| client.socket.as_fd());
        let listener = self.has_room().then(|| self.listener.as_fd());
        let mut fds: Vec<_> = clients
            .chain(listener)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let unfinished = self
            .clients
            .iter()
            .filter_map(|client| client.inbox.look_again());
        let left = unfinished.chain(left).min();
        // What does not fit a timespec is as good as for ever.
        let left = left.and_then(|left| left.try_into().ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(os("poll", self.listener.as_fd())(errno)),
        }
    }

    /// Hears what is there to be heard, without waiting.
    fn listen(&mut self) -> Result<(), GstreamerError> {
        let mut at = 0;
        while at < self.clients.len() {
            match self.hear(at) {
                Ok(()) => at += 1,
                Err(reason) => self.let_go(at, reason),
            }
        }
        while self.has_room() {
            match self.listener.step_accept() {
                Ok(fd) => match self.admit(fd) {
                    Ok((socket, peer)) => self.greet(socket, peer),
                    Err(reason) => self.events.push_back(SinkEvent::Gone {
                        peer: match reason {
                            SocketError::Refused { peer, .. } => Some(peer),
                            _ => None,
                        },
                        reason: reason.into(),
                    }),
                },
                Err(Errno::AGAIN) => break,
                // Gone while it waited.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(os("accept", self.listener.as_fd())(errno).into()),
            }
        }
        Ok(())
    }

    /// What a client says; an error lets it go.
    fn hear(&mut self, at: usize) -> Result<(), GstreamerError> {
        for _ in 0..TURN {
            let client = &mut self.clients[at];
            match client.inbox.step(client.socket.as_fd()) {
                Err(Fault::Os(Errno::AGAIN)) => return Ok(()),
                Err(Fault::Os(Errno::INTR)) => {}
                Err(Fault::Os(errno)) => {
                    let error = os("recvmsg", client.socket.as_fd())(errno);
                    return Err(crate::share::socket::peer_gone(error).into());
                }
                Err(Fault::Ended(error)) => return Err(error),
                Ok(command) => self.obey(at, &command)?,
            }
        }
        Ok(())
    }

    fn obey(&mut self, at: usize, command: &Command) -> Result<(), GstreamerError> {
        match command.kind {
            RELEASE_BUFFER => {
                let short = GstreamerError::Short {
                    command: RELEASE_BUFFER,
                    length: command.payload.len(),
                };
                let id = payload::id_of(&command.payload).ok_or(short)?;
                match self.clients[at].holds.remove(&id) {
                    true => self.released(id),
                    false => return Err(GstreamerError::NotLent(id)),
                }
                Ok(())
            }
            kind @ (NEW_BUFFER | CAPS) => Err(GstreamerError::Command(kind)),
            _ => Ok(()),
        }
    }

    /// One client less holds it.
    fn released(&mut self, id: u64) {
        if let Some(holders) = self.lent.get_mut(&id) {
            *holders -= 1;
            if *holders == 0 {
                self.lent.remove(&id);
                self.events.push_back(SinkEvent::Free(id));
            }
        }
    }

    /// Whether one more client may come.
    fn has_room(&self) -> bool {
        self.clients.len() < MAX_CLIENTS && self.events.len() < MAX_UNHEARD
    }

    /// Whether the policy allows it, and who it is.
    fn admit(&self, fd: OwnedFd) -> Result<(Socket, Peer), SocketError> {
        let socket = self.listener.admit(fd)?;
        let peer = socket.peer()?;
        Ok((socket, peer))
    }

    fn greet(&mut self, socket: Socket, peer: Peer) {
        self.events.push_back(SinkEvent::Connected(peer));
        let bytes = caps_command(&self.caps);
        let greeted = send(socket.as_fd(), &bytes, &[], Instant::now(), self.patience);
        self.clients.push(Client {
            socket,
            peer,
            inbox: Inbox::default(),
            holds: BTreeSet::new(),
        });
        if let Err(reason) = greeted {
            self.let_go(self.clients.len() - 1, reason.into());
        }
    }

    /// Closes the connection, and takes back what the client held.
    fn let_go(&mut self, at: usize, reason: GstreamerError) {
        let Client { holds, peer, .. } = self.clients.remove(at);
        let peer = Some(peer);
        self.events.push_back(SinkEvent::Gone { peer, reason });
        for id in holds {
            self.released(id);
        }
    }

    /// Sends to all clients, lets those go that do not take it, and gives the
    /// number of the others, who hold the buffer of this id now.
    fn send_all(&mut self, bytes: &[u8], handles: &[BorrowedFd<'_>], id: Option<u64>) -> usize {
        let begun = Instant::now();
        let mut at = 0;
        while at < self.clients.len() {
            let client = &mut self.clients[at];
            match send(client.socket.as_fd(), bytes, handles, begun, self.patience) {
                Ok(()) => {
                    client.holds.extend(id);
                    at += 1;
                }
                Err(reason) => self.let_go(at, reason.into()),
            }
        }
        at
    }
}

fn caps_command(caps: &Caps) -> Vec<u8> {
    let mut text = caps.to_string().into_bytes();
    text.push(0);
    command(CAPS, &text)
}
