//! The sending role: what `unixfdsink` is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::command::{Command, Fault, Inbox, TURN, command};
use super::payload::{self, CAPS, EOS, NEW_BUFFER, RELEASE_BUFFER};
use super::{Caps, GstreamerError, Stamp, place};
use crate::buffer::Buffer;
use crate::frame::{Frame, MAX_PLANES};
use crate::share::listener::is_full;
use crate::share::socket::peer_gone;
use crate::share::wait::os;
use crate::share::{Address, Listener, Peer, Socket, SocketError, Transport, handles};
use crate::sys;

/// How many clients a [`Sink`] has at most; others wait until one leaves.
pub const MAX_CLIENTS: usize = 64;

/// How long a client may leave too much unread, at first.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a client may hold a frame, at first.
const LEASE: Duration = Duration::from_secs(10);

/// How many frames a client may hold, at first.
const MAX_FRAMES: usize = 64;

/// The memory that what a client leaves unread may take, at first.
const MAX_UNREAD: usize = 1 << 17;

/// How long a client may hold a frame before others come first.
const PROMPT: Duration = Duration::from_millis(100);

/// How long no client is accepted where no handle is left for one.
const REST: Duration = Duration::from_millis(100);

/// The memory that a command takes at least in a socket.
const COMMAND: usize = 768;

/// How many numbers of buffers are remembered to be told from a pool's.
const MAX_KNOWN: usize = 1024;

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
/// # Clients that do harm
/// Nothing waits for a client. One that holds as many frames as it may
/// ([`set_max_frames`](Self::set_max_frames)), or leaves too much unread
/// ([`set_max_unread`](Self::set_max_unread)), does not get the next frame. It is
/// let go
/// - where it leaves too much unread for a second
///   ([`set_patience`](Self::set_patience)),
/// - where it holds a frame for 10 seconds after a later one was lent
///   ([`set_lease`](Self::set_lease)),
/// - first of all that leave something unread, where this user has no room for
///   more handles on their way (`ETOOMANYREFS` of unix(7)). That this does not
///   happen, all clients together leave at most a quarter of `RLIMIT_NOFILE`
///   handles unread, each as many as another or 4. A client that is let go and
///   stays has the kernel keep its own.
///
/// Numbers of buffers that come again are taken for a pool. Where several
/// clients share it, one of them holds at most half of it, or 2; those that have
/// released nothing yet, or still hold a frame 100 ms after they got a later
/// one, get frames only while others hold less than half of it; and while all
/// of it is lent for more than 100 ms, those go that hold the most, if another
/// client holds less. So an honest client, that keeps no more than the frame it
/// shows, gets its frames from a pool of 8, whatever the others do. A
/// client that connects again and again after it was let go is the caller's to
/// keep out: by the listener's [`Policy`](crate::share::Policy).
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
    /// Those of the lent ones that a client that was let go may still read.
    seen: BTreeSet<u64>,
    /// The numbers of all buffers.
    known: BTreeSet<u64>,
    /// When the last frame was lent.
    last: Instant,
    /// Until when no client is accepted, since no handle is left for one.
    rests: Option<Instant>,
    max_frames: usize,
    max_unread: usize,
    lease: Option<Duration>,
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
    /// Nobody is lent this buffer any more, but a client that was let go may
    /// still read it: lend another one in its place, under the same number if you
    /// like. To write to it shows that client a torn picture, and harms no other.
    Replace(u64),
    /// No client can be accepted, as the process or the machine has no handle or
    /// memory left. This is told once until one can; who connects waits.
    Full(SocketError),
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
    /// The buffers that it holds, and since when.
    holds: BTreeMap<u64, Hold>,
    /// Whether it has released any.
    released: bool,
    /// How many handles it may have left unread.
    unread_handles: usize,
    /// What it has to get before anything else: the rest of a command.
    rest: VecDeque<u8>,
    /// Since when it takes nothing.
    stalled: Option<Instant>,
}

/// A frame that a client holds.
#[derive(Clone, Copy, Debug)]
struct Hold {
    since: Instant,
    /// Since when there is a later frame.
    passed: Option<Instant>,
    /// Since when this client has a later frame.
    followed: Option<Instant>,
}

/// The most that a client may leave unread.
#[derive(Clone, Copy)]
struct Most {
    bytes: usize,
    handles: usize,
}

/// What became of a frame on its way to a client.
enum Delivery {
    Taken,
    Skipped,
    /// The user has too many handles on their way.
    NoRoom,
    Failed(GstreamerError),
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
            seen: BTreeSet::new(),
            known: BTreeSet::new(),
            last: Instant::now(),
            rests: None,
            max_frames: MAX_FRAMES,
            max_unread: MAX_UNREAD,
            lease: Some(LEASE),
            events: VecDeque::new(),
            timeout: None,
            patience: PATIENCE,
        })
    }

    /// How long [`event`](Self::event) waits; `None`, as at first, is for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// How long a client may leave too much unread before it is let go: at first
    /// a second. It gets no frames meanwhile, and nothing waits for it.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How long a client may hold a frame before it is let go, at first 10
    /// seconds; `None` is for ever. The frame is then the caller's again, as
    /// [`SinkEvent::Replace`].
    ///
    /// The time begins when a later frame is lent, or, where no buffer of a pool
    /// is free, with the frame: GStreamer keeps the last one that it showed. A
    /// pipeline that is paused holds its frames, and is let go.
    pub fn set_lease(&mut self, lease: Option<Duration>) {
        self.lease = lease;
    }

    /// How many frames a client may hold, at first 64. It does not get others.
    pub fn set_max_frames(&mut self, count: usize) {
        self.max_frames = count;
    }

    /// How much a client may leave unread before it gets no more frames, at first
    /// 128 KiB: the memory of the kernel that it takes (`SIOCOUTQ` of unix(7)),
    /// about 1 KiB a frame.
    pub fn set_max_unread(&mut self, bytes: usize) {
        self.max_unread = bytes;
    }

    /// Lets all clients of a peer go, as [`SinkEvent::Connected`] told it; how
    /// many these were. What they held comes as [`SinkEvent::Replace`].
    ///
    /// ```
    /// use dmashare::share::gstreamer::{Caps, GstreamerError, Sink, SinkEvent, Source};
    /// use dmashare::share::{Fourcc, Frame};
    /// let caps = Caps::of(&Frame::packed(8, 2, Fourcc::ARGB8888)?)?;
    /// let name = format!("@dmashare doc let go {}", std::process::id());
    /// let mut sink = Sink::bind(&name, &caps)?;
    /// let _source = Source::connect(&name)?;
    /// let SinkEvent::Connected(peer) = sink.event()? else { panic!() };
    /// assert_eq!(sink.let_go(&peer), 1);
    /// let gone = sink.event()?;
    /// assert!(matches!(gone, SinkEvent::Gone { reason: GstreamerError::LetGo, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn let_go(&mut self, peer: &Peer) -> usize {
        let before = self.clients.len();
        while let Some(at) = self.clients.iter().position(|client| client.peer == *peer) {
            self.close(at, GstreamerError::LetGo);
        }
        before - self.clients.len()
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
        self.tell_all(&bytes);
    }

    /// Tells that the stream has ended. Those who listen may leave then.
    pub fn end(&mut self) {
        self.tell_all(&command(EOS, &[]));
    }

    /// Lends a frame to all clients that may have one more; how many these are.
    /// Without any it is free at once. Nothing is waited for.
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
    /// has no handle; [`SocketError::Os`] where the listener fails. Nothing was
    /// sent then. What is wrong with a client is an event.
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
        if self.known.len() >= MAX_KNOWN {
            self.known = self.lent.keys().copied().collect();
        }
        self.known.insert(id);
        self.last = Instant::now();
        Ok(self.lend(id, &bytes, &handles))
    }

    /// Waits for the next that happens.
    ///
    /// # Errors
    /// [`SocketError::Timeout`], and [`SocketError::Os`] where the listener
    /// fails. What clients do wrong is an event.
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
        let listens = self.has_room() && self.rests.is_none();
        let listener = listens.then(|| self.listener.as_fd());
        let mut fds: Vec<_> = clients
            .chain(listener)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        for (fd, client) in fds.iter_mut().zip(&self.clients) {
            if !client.rest.is_empty() {
                let both = PollFlags::IN | PollFlags::OUT;
                *fd = PollFd::from_borrowed_fd(client.socket.as_fd(), both);
            }
        }
        let left = self.deadlines().chain(left).min();
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
                Err(reason) => self.close(at, reason),
            }
        }
        self.close_late();
        self.close_greedy();
        if self.rests.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        while self.has_room() {
            match self.listener.step_accept() {
                Err(errno) if is_full(errno) => {
                    let error = os("accept", self.listener.as_fd())(errno);
                    if self.rests.is_none() {
                        self.events.push_back(SinkEvent::Full(error));
                    }
                    self.rests = Some(Instant::now() + REST);
                    return Ok(());
                }
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
        self.rests = None;
        Ok(())
    }

    /// When to look again, whatever the clients do.
    fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let now = Instant::now();
        // Not before it is over.
        let left = move |since: Instant, limit: Duration| {
            limit.saturating_sub(now - since) + Duration::from_millis(1)
        };
        let rest = self.rests.map(|until| until.saturating_duration_since(now));
        let starved = self.is_exhausted() && self.last.elapsed() < PROMPT;
        let starved = starved.then(|| left(self.last, PROMPT));
        let clients = self.clients.iter().flat_map(move |client| {
            let due = client.holds.values().filter_map(|hold| self.due(hold));
            let lease = due.min().and_then(|due| Some(left(due, self.lease?)));
            let oldest = client.oldest().filter(|since| since.elapsed() < PROMPT);
            let prompt = oldest.map(|since| left(since, PROMPT));
            let stalled = client.stalled.map(|since| left(since, self.patience));
            [client.inbox.look_again(), lease, prompt, stalled]
        });
        clients.chain([rest, starved]).flatten()
    }

    /// When the lease of a frame begins.
    fn due(&self, hold: &Hold) -> Option<Instant> {
        hold.passed
            .or_else(|| self.is_exhausted().then_some(hold.since))
    }

    /// Lets those go that hold a frame, or leave too much unread, for too long.
    fn close_late(&mut self) {
        let mut at = 0;
        while at < self.clients.len() {
            let max_unread = self.max_unread;
            let client = &mut self.clients[at];
            client.flush();
            if client.rest.is_empty() && client.unread() < max_unread {
                client.stalled = None;
            }
            let client = &self.clients[at];
            let late = client.holds.iter().find_map(|(&id, hold)| {
                let (due, after) = (self.due(hold)?, self.lease?);
                (due.elapsed() >= after).then_some(GstreamerError::Lease { id, after })
            });
            let after = self.patience;
            let stalled = client.stalled.filter(|since| since.elapsed() >= after);
            let stalled = stalled.map(|_| {
                let operation = "sendmsg";
                SocketError::Timeout { operation, after }.into()
            });
            match late.or(stalled) {
                Some(reason) => self.close(at, reason),
                None => at += 1,
            }
        }
    }

    /// Whether all buffers are lent of what looks like a pool.
    fn is_exhausted(&self) -> bool {
        self.known.len() > 1 && self.lent.len() >= self.known.len()
    }

    /// Lets those go that hold the most, where no buffer has been free for a
    /// while and others hold less.
    fn close_greedy(&mut self) {
        while self.is_exhausted() && self.last.elapsed() >= PROMPT {
            let fewest = self.clients.iter().map(|client| client.holds.len()).min();
            let greedy = self.clients.iter().enumerate().filter(|(_, client)| {
                let oldest = client.oldest();
                oldest.is_some_and(|oldest| oldest.elapsed() >= PROMPT)
                    && Some(client.holds.len()) > fewest
            });
            let worst = greedy.max_by_key(|(_, client)| {
                let oldest = client.oldest().map(|oldest| oldest.elapsed());
                (client.holds.len(), oldest)
            });
            let Some((at, client)) = worst else {
                return;
            };
            let held = client.holds.len();
            self.close(at, GstreamerError::Starved(held));
        }
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
                    return Err(peer_gone(error).into());
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
                    Some(_) => self.released(id),
                    None => return Err(GstreamerError::NotLent(id)),
                }
                self.clients[at].released = true;
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
                self.events.push_back(match self.seen.remove(&id) {
                    true => SinkEvent::Replace(id),
                    false => SinkEvent::Free(id),
                });
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
        let mut client = Client {
            socket,
            peer,
            inbox: Inbox::default(),
            holds: BTreeMap::new(),
            released: false,
            unread_handles: 0,
            rest: caps_command(&self.caps).into(),
            stalled: None,
        };
        client.flush();
        self.clients.push(client);
    }

    /// Closes the connection, and takes back what the client held.
    fn close(&mut self, at: usize, reason: GstreamerError) {
        let Client { holds, peer, .. } = self.clients.remove(at);
        // Those that are gone, or broke the rules, read nothing that matters.
        let lives = matches!(
            reason,
            GstreamerError::Lease { .. }
                | GstreamerError::Starved(_)
                | GstreamerError::Behind(_)
                | GstreamerError::LetGo
                | GstreamerError::Socket(SocketError::Timeout { .. })
        );
        let peer = Some(peer);
        self.events.push_back(SinkEvent::Gone { peer, reason });
        for id in holds.into_keys() {
            if lives {
                self.seen.insert(id);
            }
            self.released(id);
        }
    }

    /// Has all clients get a command, as soon as they take it. Those that leave
    /// too many of them are let go.
    fn tell_all(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < self.clients.len() {
            let client = &mut self.clients[at];
            client.rest.extend(bytes);
            client.flush();
            match client.rest.len() {
                unread if unread > self.max_unread => {
                    self.close(at, GstreamerError::Behind(unread));
                }
                _ => at += 1,
            }
        }
    }

    /// Sends a frame to the clients that may have it, and gives their number.
    fn lend(&mut self, id: u64, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> usize {
        // Held by this call, until all have it.
        self.lent.insert(id, 1);
        let now = Instant::now();
        for client in &mut self.clients {
            for hold in client.holds.values_mut() {
                hold.passed.get_or_insert(now);
            }
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4;
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let most = Most {
            bytes: self.max_unread,
            handles: (files / self.clients.len().max(1)).max(MAX_PLANES),
        };
        let mut at = 0;
        while at < self.clients.len() {
            let delivery = match self.may_have(at) {
                true => self.clients[at].deliver(bytes, handles, most),
                false => Delivery::Skipped,
            };
            match delivery {
                Delivery::Taken => {
                    self.clients[at].hold(id);
                    *self.lent.entry(id).or_default() += 1;
                    at += 1;
                }
                Delivery::Skipped => at += 1,
                Delivery::Failed(reason) => self.close(at, reason),
                Delivery::NoRoom => match self.furthest_behind() {
                    Some((worst, unread)) => {
                        self.close(worst, GstreamerError::Behind(unread));
                        at -= usize::from(worst < at);
                    }
                    // Others of this user fill it: no client is at fault.
                    None => at += 1,
                },
            }
        }
        let holders = self.lent.get(&id).map_or(0, |holders| holders - 1);
        self.released(id);
        holders
    }

    /// Whether a client may hold one frame more.
    fn may_have(&self, at: usize) -> bool {
        let client = &self.clients[at];
        let share = (self.known.len() / 2).max(2);
        // This frame is among the lent ones.
        let others = self.lent.len() - 1 - client.holds.len();
        client.holds.len() < self.max_frames
            && (self.clients.len() == 1
                || client.holds.len() < share
                    && (others < share || client.released && client.is_prompt()))
    }

    /// The client that leaves the most unread, if any leaves more than a frame.
    fn furthest_behind(&self) -> Option<(usize, usize)> {
        let clients = self.clients.iter().enumerate();
        clients
            .filter(|(_, client)| client.unread_handles > MAX_PLANES)
            .map(|(at, client)| (at, client.unread()))
            .max_by_key(|(_, unread)| *unread)
    }
}

impl Client {
    /// Gives it a frame.
    fn hold(&mut self, id: u64) {
        let since = Instant::now();
        for hold in self.holds.values_mut() {
            hold.followed.get_or_insert(since);
        }
        let hold = Hold {
            since,
            passed: None,
            followed: None,
        };
        self.holds.insert(id, hold);
    }

    /// Since when it holds the frame that it has held the longest.
    fn oldest(&self) -> Option<Instant> {
        self.holds.values().map(|hold| hold.since).min()
    }

    /// Whether it releases a frame soon after it gets another one.
    fn is_prompt(&self) -> bool {
        let mut followed = self.holds.values().filter_map(|hold| hold.followed);
        followed.all(|since| since.elapsed() < PROMPT)
    }

    /// The memory of what it has not read.
    fn unread(&self) -> usize {
        // What fails here fails as it is sent to, too.
        sys::socket::unread(self.socket.as_fd()).unwrap_or(0)
    }

    /// Sends what is to be sent first, as far as the client takes it.
    fn flush(&mut self) {
        while !self.rest.is_empty() {
            match handles::send(self.socket.as_fd(), self.rest.as_slices().0, &[]) {
                Ok(sent) => drop(self.rest.drain(..sent)),
                Err(Errno::AGAIN) => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return;
                }
                // What ails it is found by reading from it.
                Err(_) => self.rest.clear(),
            }
        }
    }

    /// Sends a frame, if the client takes it at once.
    fn deliver(&mut self, bytes: &[u8], handles: &[BorrowedFd<'_>], most: Most) -> Delivery {
        self.flush();
        let unread = self.unread();
        let frames = unread.div_ceil(COMMAND);
        let unread_handles = self.unread_handles.min(frames * handles.len());
        self.unread_handles = unread_handles;
        if !self.rest.is_empty()
            || unread >= most.bytes
            || unread_handles + handles.len() > most.handles
        {
            self.stalled.get_or_insert_with(Instant::now);
            return Delivery::Skipped;
        }
        match handles::send(self.socket.as_fd(), bytes, handles) {
            Ok(sent) => {
                self.rest.extend(&bytes[sent..]);
                self.unread_handles += handles.len();
                self.stalled = None;
                Delivery::Taken
            }
            Err(Errno::AGAIN) => {
                self.stalled.get_or_insert_with(Instant::now);
                Delivery::Skipped
            }
            Err(Errno::TOOMANYREFS) => Delivery::NoRoom,
            Err(errno) => {
                let error = os("sendmsg", self.socket.as_fd())(errno);
                Delivery::Failed(peer_gone(error).into())
            }
        }
    }
}

fn caps_command(caps: &Caps) -> Vec<u8> {
    let mut text = caps.to_string().into_bytes();
    text.push(0);
    command(CAPS, &text)
}
