//! What a hostile GStreamer can do at the other end: each command is refused for
//! what is wrong with it, what it brought is closed, and the connection is usable
//! or closed.
//!
//! The tests run one after the other in one thread, since each counts the
//! handles of the process, and one of them fills its table.

mod common;
#[path = "common/table.rs"]
mod table;

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{handles, lingering_socket, settled};
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, Buffer, BufferError, Kind};
use dmashare::share::gstreamer::{
    Caps, CapsError, GstreamerError, MAX_CLIENTS, MAX_PAYLOAD, Sink, SinkEvent, Source,
    SourceEvent, Stamp,
};
use dmashare::share::{Fourcc, Frame, FrameError, Listener, Policy, SocketError, Transport};
use libtest_mimic::{Arguments, Trial};
use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use table::TableLimit;
use tempfile::TempDir;

const NEW_BUFFER: u32 = 0;
const RELEASE: u32 = 1;
const CAPS: u32 = 2;
const EOS: u32 = 3;

/// Long enough for any machine; a test that waits for ever is worse than one
/// that fails.
const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(50);

/// The tests by name.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), $name as fn())),+] };
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests: &[(&str, fn())] = tests! {
        a_good_stream, caps_that_are_none, a_buffer_before_its_caps, handles_that_are_no_buffers,
        another_number_of_handles, a_full_table, forged_numbers, cut_payloads, a_payload_too_long,
        commands_of_the_other_role, commands_to_come, byte_by_byte, handles_in_the_middle,
        a_sink_that_leaves_at_every_byte, silence, noise, releases_that_are_not_read,
        a_source_that_is_dropped, an_unsealed_memfd, random_bytes,
        a_client_that_releases_what_it_has_not, a_client_that_releases_twice,
        a_client_that_speaks_as_a_sink, a_client_that_leaves, a_client_that_does_not_read,
        a_client_that_only_makes_noise, strangers, a_crowd, visitors_without_end, a_frame_that_is_none,
        a_buffer_that_is_lent, half_commands_hold_few_handles, half_command_ends_connection,
        lingering_sockets_delay_nobody, source_rests_while_table_is_full,
        unread_releases_are_bounded, sink_serves_clients_while_table_is_full,
        holder_is_let_go_after_lease, last_frame_has_no_lease, peer_is_let_go_when_asked,
        client_holds_bounded_frames, commands_without_end_are_bounded,
        in_flight_handles_cost_no_honest_client, honest_client_gets_frames_among_hostile,
    };
    let trials = tests.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            let before = handles();
            test();
            assert_eq!(settled(&before), before, "handles left open");
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn frame() -> Frame {
    Frame::packed(32, 32, Fourcc::XRGB8888).unwrap()
}

fn caps() -> Caps {
    Caps::of(&frame()).unwrap()
}

fn memfd() -> Buffer {
    Memfd::new().allocate(&Request::new(4096)).unwrap()
}

fn command(kind: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&kind.to_ne_bytes()[..], &length.to_ne_bytes(), payload].concat()
}

/// A buffer with these memories (size, offset), said to be of this type.
fn buffer(id: u64, kind: u8, memories: &[(u64, u64)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for word in [id, 1_000_000, u64::MAX, u64::MAX, u64::MAX, u64::MAX] {
        payload.extend(word.to_ne_bytes());
    }
    payload.extend(0u32.to_ne_bytes());
    payload.extend([kind, u8::try_from(memories.len()).unwrap(), 0, 0]);
    for (size, offset) in memories {
        payload.extend(size.to_ne_bytes());
        payload.extend(offset.to_ne_bytes());
    }
    payload
}

fn send(socket: &UnixStream, bytes: &[u8], handles: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !handles.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(handles)));
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    assert_eq!(sent, Ok(bytes.len()));
}

/// Our source, and a sink in hostile hands.
struct Hostile {
    source: Source,
    sink: UnixStream,
}

impl Hostile {
    fn new() -> Hostile {
        let (here, sink) = UnixStream::pair().unwrap();
        sink.set_read_timeout(Some(LONG)).unwrap();
        let mut source = Source::from_fd(here.into()).unwrap();
        source.set_timeout(Some(LONG));
        Hostile { source, sink }
    }

    /// One that has told its caps.
    fn with_caps() -> Hostile {
        let mut hostile = Hostile::new();
        hostile.send(CAPS, format!("{}\0", caps()).as_bytes());
        let told = hostile.source.event().unwrap();
        assert!(matches!(told, SourceEvent::Caps(told) if told == caps()));
        hostile
    }

    fn send(&self, kind: u32, payload: &[u8]) {
        send(&self.sink, &command(kind, payload), &[]);
    }

    fn lend(&self, payload: &[u8], handles: &[BorrowedFd<'_>]) {
        send(&self.sink, &command(NEW_BUFFER, payload), handles);
    }

    fn refused(&mut self) -> GstreamerError {
        self.source.event().unwrap_err()
    }

    /// The id that the source releases next.
    fn released(&mut self) -> u64 {
        let mut bytes = [0; 16];
        self.sink.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes[..8], command(RELEASE, &[0; 8])[..8]);
        u64::from_ne_bytes(bytes[8..].try_into().unwrap())
    }

    /// A frame passes still.
    fn still_works(&mut self) {
        let memfd = memfd();
        self.lend(&buffer(77, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
        let borrowed = self.source.recv().unwrap().unwrap();
        assert_eq!(borrowed.frame, frame());
        drop(borrowed);
        assert_eq!(self.released(), 77);
    }

    /// Nothing passes any more, and the sink finds out.
    fn has_ended(&mut self, why: &GstreamerError) {
        assert_eq!(self.source.event().unwrap_err(), *why);
        assert_eq!(self.sink.read(&mut [0; 64]).unwrap(), 0);
    }
}

fn a_good_stream() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    memfd.write_at(5, b"here").unwrap();
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    hostile.send(EOS, &[]);
    let borrowed = hostile.source.recv().unwrap().unwrap();
    assert_eq!(borrowed.stamp.pts, Some(Duration::from_millis(1)));
    assert_eq!(borrowed.stamp.dts, None);
    let mut bytes = [0; 4];
    borrowed.buffers[0].read_at(5, &mut bytes).unwrap();
    assert_eq!(&bytes, b"here");
    assert!(hostile.source.recv().unwrap().is_none());
    // Who keeps the buffers keeps no lease.
    let kept = { borrowed }.buffers;
    assert_eq!(hostile.released(), 9);
    drop(kept);
}

fn caps_that_are_none() {
    let mut hostile = Hostile::with_caps();
    let cases: [&[u8]; 3] = [b"", b"video/x-raw", b"video/x-raw\0 "];
    for text in cases {
        hostile.send(CAPS, text);
        let short = GstreamerError::Short {
            command: CAPS,
            length: text.len(),
        };
        assert_eq!(hostile.refused(), short);
    }
    hostile.send(CAPS, b"audio/x-raw, rate=(int)4\0");
    let error = hostile.refused();
    assert!(matches!(
        error,
        GstreamerError::Caps(CapsError::NotVideo(_))
    ));
    hostile.send(CAPS, b"\xff\xfe=\0");
    assert!(matches!(hostile.refused(), GstreamerError::Caps(_)));
    // Those before hold no more; none at all is no error.
    hostile.send(CAPS, b"NULL\0");
    let memfd = memfd();
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    assert_eq!(hostile.refused(), GstreamerError::NoCaps);
    assert_eq!(hostile.released(), 9);
    hostile.send(CAPS, format!("{}\0", caps()).as_bytes());
    hostile.still_works();
}

fn a_buffer_before_its_caps() {
    let mut hostile = Hostile::new();
    let memfd = memfd();
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    assert_eq!(hostile.refused(), GstreamerError::NoCaps);
    assert_eq!(hostile.released(), 9);
}

fn handles_that_are_no_buffers() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for stranger in [
        pipe.as_fd(),
        null.as_fd(),
        hostile.sink.try_clone().unwrap().as_fd(),
    ] {
        hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[stranger]);
        match hostile.refused() {
            GstreamerError::Socket(SocketError::Buffer {
                handle: 0,
                source: BufferError::NotABuffer { .. },
            }) => {}
            other => panic!("{other}"),
        }
        assert_eq!(hostile.released(), 9);
    }
    // A memfd that is said to be a dma-buf.
    hostile.lend(&buffer(9, 1, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    assert!(matches!(
        hostile.refused(),
        GstreamerError::NotDmaBuf { memory: 0, .. }
    ));
    assert_eq!(hostile.released(), 9);
    hostile.still_works();
}

fn another_number_of_handles() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    let fd = memfd.fd().unwrap();
    let of = |count: usize| vec![(4096 / count as u64, 0); count];
    for (announced, delivered) in [(1, 0), (1, 2), (2, 1), (4, 253)] {
        hostile.lend(&buffer(9, 0, &of(announced)), &vec![fd; delivered]);
        let expected = SocketError::Handles {
            announced,
            delivered,
        };
        assert_eq!(hostile.refused(), GstreamerError::Socket(expected));
        assert_eq!(hostile.released(), 9);
    }
    hostile.lend(&buffer(9, 0, &[]), &[]);
    assert_eq!(hostile.refused(), GstreamerError::Empty);
    assert_eq!(hostile.released(), 9);
    // Of commands that have none they are closed.
    send(&hostile.sink, &command(EOS, &[]), &[fd, fd]);
    assert!(hostile.source.recv().unwrap().is_none());
    send(&hostile.sink, &command(99, b"later"), &[fd]);
    hostile.still_works();
}

fn a_full_table() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    let fd = memfd.fd().unwrap();
    let limit = TableLimit::leave(1);
    hostile.lend(&buffer(9, 0, &[(2048, 0), (2048, 2048)]), &[fd, fd]);
    let error = hostile.refused();
    drop(limit);
    assert_eq!(error, GstreamerError::Socket(SocketError::Control));
    assert_eq!(hostile.released(), 9);
    hostile.still_works();
}

fn forged_numbers() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    for memory in [
        (4097, 0),
        (4096, 1),
        (u64::MAX, 1),
        (1, u64::MAX),
        (0, 4097),
    ] {
        hostile.lend(&buffer(9, 0, &[memory]), &[memfd.fd().unwrap()]);
        let error = hostile.refused();
        assert!(
            matches!(error, GstreamerError::Range { memory: 0, .. }),
            "{error}"
        );
        assert_eq!(hostile.released(), 9);
    }
    hostile.lend(&buffer(9, 0, &[(4095, 1)]), &[memfd.fd().unwrap()]);
    let error = hostile.refused();
    assert!(
        matches!(error, GstreamerError::Frame(FrameError::Size { .. })),
        "{error}"
    );
    assert_eq!(hostile.released(), 9);
    // More pixels than there is memory in any machine.
    let large = "video/x-raw, format=BGRx, width=2147483647, height=2147483647\0";
    hostile.send(CAPS, large.as_bytes());
    assert!(matches!(hostile.source.event(), Ok(SourceEvent::Caps(_))));
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    assert!(matches!(
        hostile.refused(),
        GstreamerError::Caps(CapsError::Frame(_))
    ));
    assert_eq!(hostile.released(), 9);
}

fn cut_payloads() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    let whole = buffer(9, 0, &[(4096, 0)]);
    for length in 0..whole.len() {
        hostile.lend(&whole[..length], &[memfd.fd().unwrap()]);
        let short = GstreamerError::Short {
            command: NEW_BUFFER,
            length,
        };
        assert_eq!(hostile.refused(), short);
        // Where it is known which.
        if length >= 8 {
            assert_eq!(hostile.released(), 9);
        }
    }
    // As many metas as can be said, and none there.
    let mut metas = whole;
    metas[54..56].fill(0xff);
    hostile.lend(&metas, &[memfd.fd().unwrap()]);
    assert!(matches!(hostile.refused(), GstreamerError::Meta(_)));
    assert_eq!(hostile.released(), 9);
    hostile.still_works();
}

fn a_payload_too_long() {
    let mut hostile = Hostile::with_caps();
    let most = usize::try_from(MAX_PAYLOAD).unwrap();
    let (sink, noise) = (hostile.sink.try_clone().unwrap(), vec![1; most]);
    let writer = std::thread::spawn(move || send(&sink, &command(99, &noise), &[]));
    hostile.source.set_timeout(Some(SHORT));
    while !writer.is_finished() {
        // It is passed over.
        assert!(is_timeout(&hostile.refused()));
    }
    writer.join().unwrap();
    let mut long = 99u32.to_ne_bytes().to_vec();
    long.extend((MAX_PAYLOAD + 1).to_ne_bytes());
    let memfd = memfd();
    send(&hostile.sink, &long, &[memfd.fd().unwrap()]);
    let error = hostile.refused();
    assert_eq!(error, GstreamerError::Length(MAX_PAYLOAD + 1));
    hostile.has_ended(&error);
}

fn commands_of_the_other_role() {
    let mut hostile = Hostile::with_caps();
    hostile.send(RELEASE, &[0; 8]);
    let error = hostile.refused();
    assert_eq!(error, GstreamerError::Command(RELEASE));
    hostile.has_ended(&error);
}

fn commands_to_come() {
    let mut hostile = Hostile::with_caps();
    for kind in [4, 99, u32::MAX] {
        hostile.send(kind, b"what this means, nobody knows yet");
    }
    hostile.still_works();
}

fn byte_by_byte() {
    let mut hostile = Hostile::with_caps();
    hostile.source.set_timeout(Some(Duration::from_millis(1)));
    let memfd = memfd();
    let bytes = command(NEW_BUFFER, &buffer(9, 0, &[(4096, 0)]));
    for (at, byte) in bytes.iter().enumerate() {
        let fd = memfd.fd().unwrap();
        let handles = if at == 0 { vec![fd] } else { vec![] };
        send(&hostile.sink, &[*byte], &handles);
        if at + 1 < bytes.len() {
            let error = hostile.refused();
            assert!(is_timeout(&error), "byte {at}: {error}");
        }
    }
    assert_eq!(hostile.source.recv().unwrap().unwrap().frame, frame());
    assert_eq!(hostile.released(), 9);
}

fn is_timeout(error: &GstreamerError) -> bool {
    matches!(error, GstreamerError::Socket(SocketError::Timeout { .. }))
}

fn handles_in_the_middle() {
    let memfd = memfd();
    let bytes = command(NEW_BUFFER, &buffer(9, 0, &[(4096, 0)]));
    for at in [1, 7, 8, 9, bytes.len() - 1] {
        let mut hostile = Hostile::with_caps();
        send(&hostile.sink, &bytes[..at], &[]);
        send(&hostile.sink, &bytes[at..], &[memfd.fd().unwrap()]);
        let error = hostile.refused();
        assert_eq!(
            error,
            GstreamerError::Socket(SocketError::Misplaced),
            "{at}"
        );
        assert_eq!(hostile.released(), 9);
        hostile.still_works();
    }
}

fn a_sink_that_leaves_at_every_byte() {
    let memfd = memfd();
    let bytes = command(NEW_BUFFER, &buffer(9, 0, &[(4096, 0)]));
    for at in 0..bytes.len() {
        let mut hostile = Hostile::with_caps();
        if at > 0 {
            send(&hostile.sink, &bytes[..at], &[memfd.fd().unwrap()]);
        }
        hostile.sink = UnixStream::pair().unwrap().0;
        let expected = match at {
            0 => SocketError::Closed,
            at => SocketError::Truncated(at),
        };
        let expected = GstreamerError::Socket(expected);
        assert_eq!(hostile.refused(), expected);
        assert_eq!(hostile.refused(), expected);
    }
}

fn silence() {
    let mut hostile = Hostile::with_caps();
    hostile.source.set_timeout(Some(SHORT));
    let begun = Instant::now();
    assert!(is_timeout(&hostile.source.recv().unwrap_err()));
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < LONG);
    hostile.still_works();
}

/// What is passed over does not keep anyone waiting for ever.
fn noise() {
    let mut hostile = Hostile::with_caps();
    hostile.source.set_timeout(Some(SHORT));
    let mut sink = hostile.sink.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let noise = command(99, b"noise");
        while sink.write_all(&noise).is_ok() {}
    });
    let begun = Instant::now();
    assert!(is_timeout(&hostile.source.recv().unwrap_err()));
    assert!(begun.elapsed() < LONG);
    drop(hostile);
    writer.join().unwrap();
}

/// A sink that does not read waits for nobody but itself.
fn releases_that_are_not_read() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    const MANY: u64 = 2000;
    let begun = Instant::now();
    for id in 0..MANY {
        hostile.lend(&buffer(id, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
        drop(hostile.source.recv().unwrap());
    }
    assert!(begun.elapsed() < LONG);
    // When it reads, it finds them all, in their order.
    for id in 0..MANY {
        if id % 100 == 0 {
            hostile.source.set_timeout(Some(Duration::ZERO));
            assert!(is_timeout(&hostile.refused()));
        }
        assert_eq!(hostile.released(), id);
    }
}

fn a_source_that_is_dropped() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    let borrowed = hostile.source.recv().unwrap().unwrap();
    let Hostile { source, mut sink } = hostile;
    drop(source);
    // Who sends on is told, instead of waiting for nobody.
    assert_eq!(sink.read(&mut [0; 16]).unwrap(), 0);
    assert!(sink.write_all(&command(EOS, &[])).is_err());
    // It is a handle of ours, and good.
    assert!(borrowed.buffers[0].map(Access::Read).is_ok());
}

fn an_unsealed_memfd() {
    let mut hostile = Hostile::with_caps();
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let unsealed = rustix::fs::memfd_create("unsealed", flags).unwrap();
    rustix::fs::ftruncate(&unsealed, 4096).unwrap();
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[unsealed.as_fd()]);
    let borrowed = hostile.source.recv().unwrap().unwrap();
    assert_eq!(borrowed.buffers[0].kind(), Kind::Shm);
    // The sink could make it smaller under a mapping.
    let refused = borrowed.buffers[0].map(Access::Read);
    assert!(matches!(refused, Err(BufferError::Shrinkable { .. })));
}

/// Whatever comes: an end, and no handle left.
fn random_bytes() {
    let memfd = memfd();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..500 {
        let mut hostile = Hostile::with_caps();
        hostile.source.set_timeout(Some(Duration::ZERO));
        let mut bytes = command(NEW_BUFFER, &buffer(9, 0, &[(4096, 0)]));
        bytes.extend(command(CAPS, format!("{}\0", caps()).as_bytes()));
        for _ in 0..1 + next() % 4 {
            let at = usize::try_from(next()).unwrap() % bytes.len();
            bytes[at] = next().to_le_bytes()[0];
        }
        send(&hostile.sink, &bytes, &[memfd.fd().unwrap()]);
        for _ in 0..4 {
            if let Ok(SourceEvent::Frame(borrowed)) = hostile.source.event() {
                let sizes: Vec<u64> = borrowed.buffers.iter().map(Buffer::size).collect();
                assert_eq!(borrowed.frame.check(&sizes), Ok(()));
            }
        }
    }
}

/// Our sink, and where it listens.
struct Victim {
    sink: Sink,
    folder: TempDir,
}

impl Victim {
    fn new() -> Victim {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::bind(folder.path().join("s"), &caps()).unwrap();
        sink.set_timeout(Some(LONG));
        Victim { sink, folder }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("s")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// A client, or none where the queue of those who wait is full.
    fn connect_now(&self) -> Option<UnixStream> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        let address = SocketAddrUnix::new(self.folder.path().join("s")).unwrap();
        let connected = rustix::net::connect(&socket, &address);
        connected.is_ok().then(|| socket.into())
    }

    /// A client that has heard the caps.
    fn client(&mut self) -> UnixStream {
        let mut stream = self.connect();
        assert!(matches!(self.event(), SinkEvent::Connected(_)));
        let expected = command(CAPS, format!("{}\0", caps()).as_bytes());
        let mut found = vec![0; expected.len()];
        stream.read_exact(&mut found).unwrap();
        assert_eq!(found, expected);
        stream
    }

    fn lend(&mut self, id: u64) -> usize {
        let memfd = memfd();
        self.sink
            .send(id, &frame(), &[&memfd], &Stamp::now())
            .unwrap()
    }

    fn event(&mut self) -> SinkEvent {
        self.sink.event().unwrap()
    }

    /// One client is gone, for this reason, and then this buffer is free.
    fn lets_go(&mut self, id: u64) -> GstreamerError {
        let SinkEvent::Gone { peer, reason } = self.event() else {
            panic!("nobody is gone");
        };
        assert_eq!(peer.and_then(|peer| peer.pid), Some(std::process::id()));
        assert!(matches!(self.event(), SinkEvent::Free(free) if free == id));
        assert!(!self.sink.is_lent(id));
        reason
    }

    /// Others can come, and borrow.
    fn still_works(&mut self) {
        let clients = self.sink.clients();
        let client = self.client();
        assert_eq!(self.lend(1000), clients + 1);
        assert!(self.sink.is_lent(1000));
        drop(client);
        if clients == 0 {
            let closed = GstreamerError::Socket(SocketError::Closed);
            assert_eq!(self.lets_go(1000), closed);
        }
    }
}

fn a_client_that_releases_what_it_has_not() {
    let mut victim = Victim::new();
    let client = victim.client();
    victim.lend(3);
    send(&client, &command(RELEASE, &4u64.to_ne_bytes()), &[]);
    assert_eq!(victim.lets_go(3), GstreamerError::NotLent(4));
    victim.still_works();
}

fn a_client_that_releases_twice() {
    let mut victim = Victim::new();
    let client = victim.client();
    victim.lend(3);
    victim.lend(4);
    for _ in 0..2 {
        send(&client, &command(RELEASE, &3u64.to_ne_bytes()), &[]);
    }
    assert!(matches!(victim.event(), SinkEvent::Free(3)));
    assert_eq!(victim.lets_go(4), GstreamerError::NotLent(3));
    victim.still_works();
}

fn a_client_that_speaks_as_a_sink() {
    let memfd = memfd();
    for kind in [NEW_BUFFER, CAPS] {
        let mut victim = Victim::new();
        let client = victim.client();
        victim.lend(3);
        send(&client, &command(kind, &[0; 64]), &[memfd.fd().unwrap()]);
        assert_eq!(victim.lets_go(3), GstreamerError::Command(kind));
        let client = victim.client();
        victim.lend(3);
        send(&client, &command(RELEASE, &[0; 7]), &[]);
        let short = GstreamerError::Short {
            command: RELEASE,
            length: 7,
        };
        assert_eq!(victim.lets_go(3), short);
        let client = victim.client();
        victim.lend(3);
        send(&client, &[0xff; 8], &[memfd.fd().unwrap()]);
        assert_eq!(victim.lets_go(3), GstreamerError::Length(u32::MAX));
        victim.still_works();
    }
}

fn a_client_that_leaves() {
    let mut victim = Victim::new();
    let (first, second) = (victim.client(), victim.client());
    assert_eq!(victim.lend(3), 2);
    drop(first);
    let SinkEvent::Gone { reason, .. } = victim.event() else {
        panic!("nobody is gone");
    };
    assert_eq!(reason, GstreamerError::Socket(SocketError::Closed));
    // The other holds it still.
    assert!(victim.sink.is_lent(3));
    send(&second, &command(RELEASE, &3u64.to_ne_bytes())[..10], &[]);
    drop(second);
    let reason = victim.lets_go(3);
    // One that leaves unread what was sent to it is a reset, not an end.
    let gone = [SocketError::Truncated(10), SocketError::Closed].map(GstreamerError::Socket);
    assert!(gone.contains(&reason), "{reason}");
    victim.still_works();
}

fn a_client_that_does_not_read() {
    let mut victim = Victim::new();
    victim.sink.set_patience(SHORT);
    victim.sink.set_max_unread(20_000);
    let _deaf = victim.client();
    let begun = Instant::now();
    let mut id = 0;
    // Until it has left too much unread: it does not get the next one.
    while victim.lend(id) == 1 {
        id += 1;
        assert!(id < 64, "its bound of frames comes first");
    }
    assert!(id > 4, "{id}");
    assert!(begun.elapsed() < SHORT, "a send waits");
    assert!(matches!(victim.event(), SinkEvent::Free(free) if free == id));
    let SinkEvent::Gone { reason, .. } = victim.event() else {
        panic!("nobody is gone");
    };
    assert!(is_timeout(&reason), "{reason}");
    assert!(begun.elapsed() < LONG);
    // Each once.
    let mut free: Vec<u64> = (0..id)
        .map(|_| match victim.event() {
            SinkEvent::Replace(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    free.sort_unstable();
    assert!(free.into_iter().eq(0..id));
    victim.still_works();
}

fn a_client_that_only_makes_noise() {
    let mut victim = Victim::new();
    victim.sink.set_timeout(Some(SHORT));
    let mut client = victim.client();
    let writer = std::thread::spawn(move || {
        let noise = command(99, b"noise");
        while client.write_all(&noise).is_ok() {}
    });
    let begun = Instant::now();
    assert!(is_timeout(&victim.sink.event().unwrap_err()));
    // Nor does it keep others from what they want.
    victim.sink.set_timeout(Some(LONG));
    let other = victim.client();
    assert_eq!(victim.lend(3), 2);
    assert!(begun.elapsed() < LONG);
    drop((victim, other));
    writer.join().unwrap();
}

fn strangers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut listener = Listener::bind_with(&path, Transport::Stream).unwrap();
    listener.set_policy(Policy::pid(1));
    let mut sink = Sink::new(listener, &caps()).unwrap();
    let mut stranger = UnixStream::connect(&path).unwrap();
    let SinkEvent::Gone { peer, reason } = sink.event().unwrap() else {
        panic!("it was let in");
    };
    assert_eq!(peer.and_then(|peer| peer.pid), Some(std::process::id()));
    let refused = matches!(reason, GstreamerError::Socket(SocketError::Refused { .. }));
    assert!(refused, "{reason}");
    assert_eq!(stranger.read(&mut [0; 64]).unwrap(), 0);
}

/// Those who are too many wait.
fn a_crowd() {
    let mut victim = Victim::new();
    let mut crowd: Vec<UnixStream> = (0..MAX_CLIENTS).map(|_| victim.client()).collect();
    let _late = victim.connect();
    victim.sink.set_timeout(Some(SHORT));
    assert!(is_timeout(&victim.sink.event().unwrap_err()));
    assert_eq!(victim.sink.clients(), MAX_CLIENTS);
    drop(crowd.pop());
    assert!(matches!(victim.event(), SinkEvent::Gone { .. }));
    assert!(matches!(victim.event(), SinkEvent::Connected(_)));
}

/// Those who come and go fill no memory, though nobody asks for them.
fn visitors_without_end() {
    let mut victim = Victim::new();
    let memfd = memfd();
    let mut refused = 0;
    for _ in 0..200 {
        // As many as the listener has wait.
        let visitors: Vec<_> = (0..8).map(|_| victim.connect_now()).collect();
        refused += visitors.iter().filter(|visitor| visitor.is_none()).count();
        drop(visitors);
        for _ in 0..2 {
            let _ = victim.sink.send(3, &frame(), &[&memfd], &Stamp::default());
        }
    }
    assert!(refused > 0, "the sink accepts on and on");
    victim.sink.set_timeout(Some(SHORT));
    let events = std::iter::from_fn(|| victim.sink.event().ok()).count();
    assert!(events > 1024, "{events}");
    victim.sink.set_timeout(Some(LONG));
    victim.still_works();
}

fn a_frame_that_is_none() {
    let mut victim = Victim::new();
    let mut client = victim.client();
    let memfd = memfd();
    let mut refused = |frame: &Frame, buffers: &[&Buffer]| {
        let sent = victim.sink.send(1, frame, buffers, &Stamp::default());
        sent.unwrap_err()
    };
    let mut long = frame();
    long.planes[0].offset = 1;
    let error = refused(&long, &[&memfd]);
    assert!(matches!(
        error,
        GstreamerError::Frame(FrameError::Size { .. })
    ));
    assert_eq!(refused(&frame(), &[]), GstreamerError::Buffers(0));
    let segment = dmashare::alloc::SysV::new()
        .allocate(&Request::new(4096))
        .unwrap();
    let error = refused(&frame(), &[&segment]);
    let no_handle = matches!(
        error,
        GstreamerError::Socket(SocketError::Buffer { handle: 0, .. })
    );
    assert!(no_handle, "{error}");
    let other = Frame::packed(16, 16, Fourcc::XRGB8888).unwrap();
    assert!(matches!(
        refused(&other, &[&memfd]),
        GstreamerError::Mismatch { .. }
    ));
    // Of all that nothing was sent.
    victim.sink.set_caps(&Caps::of(&other).unwrap());
    assert_eq!(
        victim.sink.send(1, &other, &[&memfd], &Stamp::default()),
        Ok(1)
    );
    let mut kind = [0; 4];
    client.read_exact(&mut kind).unwrap();
    assert_eq!(u32::from_ne_bytes(kind), CAPS);
}

fn a_buffer_that_is_lent() {
    let mut victim = Victim::new();
    let client = victim.client();
    victim.lend(3);
    let memfd = memfd();
    let again = |victim: &mut Victim| victim.sink.send(3, &frame(), &[&memfd], &Stamp::default());
    assert_eq!(again(&mut victim), Err(GstreamerError::Lent(3)));
    send(&client, &command(RELEASE, &3u64.to_ne_bytes()), &[]);
    // It has come back, though nobody has asked.
    assert_eq!(again(&mut victim), Ok(1));
    assert!(matches!(victim.event(), SinkEvent::Free(3)));
}

/// One byte with as many handles as one call can: to the source, and to the sink.
fn half_commands_hold_few_handles() {
    let memfd = memfd();
    let many = [memfd.fd().unwrap(); 253];
    let mut hostile = Hostile::with_caps();
    hostile.source.set_timeout(Some(SHORT));
    let mut victim = Victim::new();
    victim.sink.set_timeout(Some(SHORT));
    let client = victim.client();
    let before = handles().len();
    send(&hostile.sink, &[0], &many);
    assert!(is_timeout(&hostile.refused()));
    send(&client, &[0], &many);
    assert!(is_timeout(&victim.sink.event().unwrap_err()));
    let held = handles().len() - before;
    assert!(held <= 2 * 16, "{held} handles are held");
    // Its own end of the connection is not held, either.
    let mut hostile = Hostile::with_caps();
    send(&hostile.sink, &[0], &[hostile.sink.as_fd()]);
    hostile.sink = UnixStream::pair().unwrap().0;
    let truncated = GstreamerError::Socket(SocketError::Truncated(1));
    assert_eq!(hostile.refused(), truncated);
}

/// A command that is never whole ends the connection, at both ends.
fn half_command_ends_connection() {
    let mut hostile = Hostile::with_caps();
    hostile.source.set_message_time(Some(SHORT));
    send(&hostile.sink, &[0], &[]);
    let error = hostile.refused();
    let unfinished = matches!(error, GstreamerError::Socket(SocketError::Broken(_)));
    assert!(unfinished, "{error}");
    hostile.has_ended(&error);
    // Without any setting, and while nothing else happens.
    let mut victim = Victim::new();
    victim.sink.set_timeout(Some(2 * LONG));
    victim.sink.set_lease(None);
    let client = victim.client();
    victim.lend(3);
    send(&client, &[1], &[]);
    let reason = victim.lets_go(3);
    let unfinished = matches!(reason, GstreamerError::Socket(SocketError::Broken(_)));
    assert!(unfinished, "{reason}");
}

/// Neither at the source nor at the sink; the bytes are those of any command.
fn lingering_sockets_delay_nobody() {
    let begun = Instant::now();
    let mut hostile = Hostile::with_caps();
    let (socket, _unread) = lingering_socket(Duration::from_secs(3));
    hostile.lend(&buffer(9, 0, &[(4096, 0)]), &[socket.as_fd()]);
    drop(socket);
    let error = hostile.refused();
    let refused = matches!(error, GstreamerError::Socket(SocketError::Buffer { .. }));
    assert!(refused, "{error}");
    assert_eq!(hostile.released(), 9);
    let mut victim = Victim::new();
    let client = victim.client();
    victim.lend(3);
    let (socket, _unread) = lingering_socket(Duration::from_secs(3));
    send(
        &client,
        &command(RELEASE, &3u64.to_ne_bytes()),
        &[socket.as_fd()],
    );
    drop(socket);
    assert!(matches!(victim.event(), SinkEvent::Free(3)));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// A sink that lends at once what is released has it lost at a measured pace.
fn source_rests_while_table_is_full() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    hostile.source.set_timeout(Some(Duration::from_millis(100)));
    for id in 0..100 {
        hostile.lend(&buffer(id, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
    }
    let limit = TableLimit::leave(0);
    let begun = Instant::now();
    let mut lost = 0;
    while begun.elapsed() < Duration::from_millis(450) {
        match hostile.source.event() {
            Err(GstreamerError::Socket(SocketError::Control)) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    drop(limit);
    assert!((2..50).contains(&lost), "{lost} frames are lost");
    // Its timeout holds, too.
    hostile.source.set_timeout(Some(Duration::ZERO));
    assert!(is_timeout(&hostile.refused()));
    hostile.source.set_timeout(Some(LONG));
    assert!(hostile.source.recv().unwrap().is_some());
}

/// A sink that lends on and on, and reads no release.
fn unread_releases_are_bounded() {
    let mut hostile = Hostile::with_caps();
    let memfd = memfd();
    let begun = Instant::now();
    let mut passed = 0;
    let error = loop {
        hostile.lend(&buffer(passed, 0, &[(4096, 0)]), &[memfd.fd().unwrap()]);
        match hostile.source.recv() {
            Ok(frame) => drop(frame),
            Err(error) => break error,
        }
        passed += 1;
        assert!(passed < 20_000, "the backlog has no bound");
    };
    assert_eq!(error, GstreamerError::Unread(64 << 10));
    assert!(passed > 4000, "{passed}");
    assert!(begun.elapsed() < 2 * LONG);
    // What is there still can be read, and then the connection is at its end.
    let mut rest = Vec::new();
    let _ = hostile.sink.read_to_end(&mut rest);
    assert!(!rest.is_empty());
    assert_eq!(hostile.refused(), error);
}

/// One client is connected, and another waits where no handle is left.
fn sink_serves_clients_while_table_is_full() {
    let mut victim = Victim::new();
    let client = victim.client();
    let late = victim.connect();
    let memfd = memfd();
    let limit = TableLimit::leave(0);
    let begun = Instant::now();
    let sent = victim.sink.send(3, &frame(), &[&memfd], &Stamp::now());
    let told = victim.sink.event();
    send(&client, &command(RELEASE, &3u64.to_ne_bytes()), &[]);
    let free = victim.sink.event();
    victim.sink.set_timeout(Some(Duration::from_millis(150)));
    let mut rounds = Vec::new();
    while begun.elapsed() < Duration::from_millis(450) {
        rounds.push(victim.sink.event());
    }
    drop(limit);
    assert_eq!(sent, Ok(1));
    assert!(
        matches!(told, Ok(SinkEvent::Full(SocketError::Os { .. }))),
        "{told:?}"
    );
    assert!(matches!(free, Ok(SinkEvent::Free(3))), "{free:?}");
    assert!(rounds.len() <= 4, "{} rounds", rounds.len());
    for round in rounds {
        assert!(is_timeout(&round.unwrap_err()));
    }
    victim.sink.set_timeout(Some(LONG));
    assert!(matches!(victim.event(), SinkEvent::Connected(_)));
    drop(late);
}

/// One that reads all, and releases nothing.
fn holder_is_let_go_after_lease() {
    let mut victim = Victim::new();
    victim.sink.set_lease(Some(SHORT));
    let _holder = victim.client();
    victim.lend(0);
    victim.lend(1);
    let begun = Instant::now();
    let SinkEvent::Gone { reason, .. } = victim.event() else {
        panic!("nobody is gone");
    };
    let expected = GstreamerError::Lease {
        id: 0,
        after: SHORT,
    };
    assert_eq!(reason, expected);
    assert!(begun.elapsed() < LONG);
    assert!(matches!(victim.event(), SinkEvent::Replace(0)));
    assert!(matches!(victim.event(), SinkEvent::Replace(1)));
    victim.still_works();
}

/// What a screen shows is held until there is something else to show.
fn last_frame_has_no_lease() {
    let mut victim = Victim::new();
    victim.sink.set_lease(Some(SHORT));
    victim.sink.set_timeout(Some(4 * SHORT));
    let client = victim.client();
    victim.lend(0);
    victim.lend(1);
    send(&client, &command(RELEASE, &0u64.to_ne_bytes()), &[]);
    assert!(matches!(victim.event(), SinkEvent::Free(0)));
    assert!(is_timeout(&victim.sink.event().unwrap_err()));
    assert_eq!(victim.lend(0), 1);
    send(&client, &command(RELEASE, &1u64.to_ne_bytes()), &[]);
    assert!(matches!(victim.event(), SinkEvent::Free(1)));
}

fn peer_is_let_go_when_asked() {
    let mut victim = Victim::new();
    let mut stream = victim.connect();
    let SinkEvent::Connected(peer) = victim.event() else {
        panic!("nobody is connected");
    };
    victim.lend(3);
    let other = dmashare::share::Peer {
        uid: !peer.uid,
        ..peer
    };
    assert_eq!(victim.sink.let_go(&other), 0);
    assert_eq!(victim.sink.let_go(&peer), 1);
    let SinkEvent::Gone { reason, .. } = victim.event() else {
        panic!("nobody is gone");
    };
    assert_eq!(reason, GstreamerError::LetGo);
    assert!(matches!(victim.event(), SinkEvent::Replace(3)));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    victim.still_works();
}

fn client_holds_bounded_frames() {
    let mut victim = Victim::new();
    victim.sink.set_max_frames(2);
    let client = victim.client();
    assert_eq!([0, 1, 2].map(|id| victim.lend(id)), [1, 1, 0]);
    assert!(matches!(victim.event(), SinkEvent::Free(2)));
    send(&client, &command(RELEASE, &0u64.to_ne_bytes()), &[]);
    assert!(matches!(victim.event(), SinkEvent::Free(0)));
    assert_eq!([2, 0].map(|id| victim.lend(id)), [1, 0]);
}

/// Also of what is no frame a client leaves only so much unread.
fn commands_without_end_are_bounded() {
    let mut victim = Victim::new();
    let _deaf = victim.client();
    let begun = Instant::now();
    let mut told = 0;
    while victim.sink.clients() > 0 {
        victim.sink.set_caps(&caps());
        told += 1;
        assert!(told < 10_000, "they are kept without bound");
    }
    assert!(begun.elapsed() < LONG);
    let SinkEvent::Gone { reason, .. } = victim.event() else {
        panic!("nobody is gone");
    };
    assert!(matches!(reason, GstreamerError::Behind(_)), "{reason}");
}

/// The kernel bounds the handles that a user has on their way: what some leave
/// unread is not to cost another one that reads.
fn in_flight_handles_cost_no_honest_client() {
    // The bound is the soft limit, and none for a user who may do anything: of
    // whom this thread is none.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let lowered = rustix::process::Rlimit {
        current: Some(200),
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, lowered).unwrap();
    let attack = std::thread::spawn(|| {
        const NOBODY: libc::c_long = 65534;
        // SAFETY: three numbers; the system call is about this thread alone.
        unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        let name = format!("@dmashare in flight {}", std::process::id());
        let mut sink = Sink::bind(&name, &caps()).unwrap();
        sink.set_lease(None);
        sink.set_timeout(Some(LONG));
        let deaf: Vec<Source> = (0..8).map(|_| Source::connect(&name).unwrap()).collect();
        let mut honest = Source::connect_timeout(&name, LONG).unwrap();
        let memfd = memfd();
        for id in 0..100 {
            let lent = sink.send(id, &frame(), &[&memfd], &Stamp::now()).unwrap();
            assert!(lent > 0, "frame {id}");
            drop(honest.recv().unwrap().unwrap());
        }
        sink.set_timeout(Some(Duration::ZERO));
        let events = std::iter::from_fn(|| sink.event().ok());
        let gone: Vec<_> = events
            .filter_map(|event| match event {
                SinkEvent::Gone { reason, .. } => Some(reason),
                _ => None,
            })
            .collect();
        drop(deaf);
        (gone, sink.clients())
    });
    let ended = attack.join();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let (gone, clients) = ended.unwrap();
    // Those that read nothing, at most.
    assert!(gone.iter().all(is_timeout), "{gone:?}");
    assert_eq!(gone.len() + clients, 9);
}

/// Ten that read nothing, ten that release nothing, and eleven that come one
/// after the other and hold on: to one that keeps the frame it shows.
fn honest_client_gets_frames_among_hostile() {
    const POOL: u64 = 8;
    const TICKS: u32 = 150;
    const TICK: Duration = Duration::from_millis(20);
    let mut victim = Victim::new();
    let path = victim.folder.path().join("s");
    let mut deaf: Vec<UnixStream> = (0..10).map(|_| victim.connect()).collect();
    victim.sink.set_timeout(Some(Duration::ZERO));
    let _ = victim.sink.event();
    let mut holders: Vec<Source> = Vec::new();
    let mut held = Vec::new();
    let mut honest = Source::connect(&path).unwrap();
    let honest = std::thread::spawn(move || {
        let mut frames = 0;
        let mut shown = None;
        while let Ok(Some(frame)) = honest.recv() {
            frames += 1;
            drop(shown.replace(frame));
        }
        frames
    });
    let memfds: Vec<Buffer> = (0..POOL).map(|_| memfd()).collect();
    let mut free: Vec<u64> = (0..POOL).collect();
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    for tick in 0..TICKS {
        if (holders.len() < 10 || tick % 10 == 0 && holders.len() < 21)
            && let Some(stream) = victim.connect_now()
        {
            stream.set_nonblocking(false).unwrap();
            let mut source = Source::from_fd(stream.into()).unwrap();
            source.set_timeout(Some(Duration::ZERO));
            holders.push(source);
        }
        for source in &mut holders {
            if let Ok(SourceEvent::Frame(frame)) = source.event() {
                held.push(frame);
            }
        }
        let next = begun + TICK * tick;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            victim.sink.set_timeout(Some(left));
            match victim.sink.event() {
                Ok(SinkEvent::Free(id) | SinkEvent::Replace(id)) => free.push(id),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if let Some(id) = free.pop() {
            let memfd = &memfds[usize::try_from(id).unwrap()];
            let sending = Instant::now();
            let sent = victim.sink.send(id, &frame(), &[memfd], &Stamp::now());
            longest = longest.max(sending.elapsed());
            sent.unwrap();
        }
    }
    assert_eq!(holders.len(), 21);
    drop(victim);
    let frames = honest.join().unwrap();
    deaf.clear();
    assert!(frames >= TICKS * 9 / 10, "{frames} of {TICKS} frames");
    assert!(
        longest < Duration::from_millis(250),
        "a send took {longest:?}"
    );
}
