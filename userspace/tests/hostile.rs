//! What a hostile peer can send, over a real socket: each message is refused
//! for what is wrong with it, leaves no handle open, and leaves the connection
//! usable.
//!
//! The tests run one after the other in one thread, since each counts the
//! handles of the process, and one of them fills its table.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use dmashare::Errno;
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Seals};
use dmashare::share::codec::{self, CodecError};
use dmashare::share::{Fourcc, Frame, FrameError, Socket, SocketError};
use libtest_mimic::{Arguments, Trial};
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests: &[(&str, Test)] = &[
        ("a_good_message_passes", a_good_message_passes),
        ("short_and_long_messages", short_and_long_messages),
        ("another_version", another_version),
        ("random_bytes", random_bytes),
        ("no_handle", no_handle),
        ("fewer_handles_than_announced", fewer_handles_than_announced),
        ("more_handles_than_announced", more_handles_than_announced),
        (
            "more_handles_than_a_frame_has",
            more_handles_than_a_frame_has,
        ),
        ("a_full_table", a_full_table),
        ("handles_that_are_no_buffers", handles_that_are_no_buffers),
        ("an_unsealed_memfd", an_unsealed_memfd),
        ("huge_pages", huge_pages),
        ("a_memfd_smaller_than_claimed", a_memfd_smaller_than_claimed),
        ("sizes_that_overflow", sizes_that_overflow),
        ("an_empty_message", an_empty_message),
        ("silence", silence),
        ("a_peer_that_left", a_peer_that_left),
        (
            "a_peer_that_left_without_reading",
            a_peer_that_left_without_reading,
        ),
        ("a_peer_that_does_not_read", a_peer_that_does_not_read),
        (
            "received_handles_close_on_exec",
            received_handles_close_on_exec,
        ),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            let before = handles();
            test(&Peer::new());
            assert_eq!(handles(), before, "handles left open");
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

type Test = fn(&Peer);

/// The victim, and the other end of its connection in hostile hands.
struct Peer {
    victim: Socket,
    hostile: OwnedFd,
}

impl Peer {
    fn new() -> Peer {
        let (mut victim, hostile) = Socket::pair().unwrap();
        // A test that waits for ever is worse than one that fails.
        victim.set_timeout(Some(Duration::from_secs(5)));
        let hostile = hostile.as_fd().try_clone_to_owned().unwrap();
        Peer { victim, hostile }
    }

    /// Sends any bytes with any handles.
    fn send(&self, message: &[u8], handles: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !handles.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(handles)));
        }
        let parts = [IoSlice::new(message)];
        let sent = sendmsg(&self.hostile, &parts, &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, message.len());
    }

    /// What the victim says of these bytes and handles.
    fn refused(&self, message: &[u8], handles: &[BorrowedFd<'_>]) -> SocketError {
        self.send(message, handles);
        self.victim.recv().unwrap_err()
    }

    /// The connection still carries a frame.
    fn still_works(&self) {
        let (frame, buffer) = good();
        let message = codec::encode(&frame, 1).unwrap();
        self.send(&message, &[buffer.as_fd()]);
        let (received, buffers) = self.victim.recv().unwrap();
        assert_eq!((received, buffers.len()), (frame, 1));
    }
}

/// A frame of one page, and a buffer that holds it.
fn good() -> (Frame, Buffer) {
    let frame = Frame::packed(32, 32, Fourcc::XRGB8888).unwrap();
    let buffer = Memfd::new().allocate(&Request::new(4096)).unwrap();
    (frame, buffer)
}

/// The open handles of this process by number and target, but the one that
/// reads them.
fn handles() -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().unwrap(), target))
        })
        .filter(|(_, target)| !target.ends_with("fd"))
        .collect();
    found.sort();
    found
}

fn a_good_message_passes(peer: &Peer) {
    let (frame, buffer) = good();
    let message = codec::encode(&frame, 1).unwrap();
    peer.send(&message, &[buffer.as_fd()]);
    let (received, buffers) = peer.victim.recv().unwrap();
    assert_eq!(received, frame);
    assert_eq!(buffers[0].kind(), buffer.kind());
    assert_eq!(buffers[0].size(), 4096);
}

fn short_and_long_messages(peer: &Peer) {
    let (frame, buffer) = good();
    let mut message = codec::encode(&frame, 1).unwrap().to_vec();
    message.resize(100_000, 0);
    for len in [1, 7, codec::SIZE - 1, codec::SIZE + 1, 100_000] {
        let error = peer.refused(&message[..len], &[buffer.as_fd()]);
        assert_eq!(error, SocketError::Codec(CodecError::Length(len)));
    }
    peer.still_works();
}

fn another_version(peer: &Peer) {
    let (frame, buffer) = good();
    let mut message = codec::encode(&frame, 1).unwrap();
    message[4] = 2;
    let error = peer.refused(&message, &[buffer.as_fd()]);
    assert_eq!(error, SocketError::Codec(CodecError::Version(2)));
    peer.still_works();
}

/// Bytes of no meaning, from a generator with a fixed seed.
fn random_bytes(peer: &Peer) {
    let (frame, buffer) = good();
    let good = codec::encode(&frame, 1).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..2000 {
        // Half of them are good but for two bytes, to come further.
        let mut message = good;
        if round % 2 == 0 {
            message.fill_with(|| random().to_le_bytes()[0]);
        }
        for _ in 0..2 {
            let at = random() % codec::SIZE as u64;
            message[usize::try_from(at).unwrap()] = random().to_le_bytes()[3];
        }
        peer.send(&message, &[buffer.as_fd()]);
        if let Ok((frame, buffers)) = peer.victim.recv() {
            // Then it is a frame that fits what came with it.
            frame.check(&[buffers[0].size()]).unwrap();
            assert_eq!(codec::encode(&frame, 1).unwrap(), message);
        }
    }
    peer.still_works();
}

fn no_handle(peer: &Peer) {
    let (frame, _) = good();
    let error = peer.refused(&codec::encode(&frame, 1).unwrap(), &[]);
    let expected = SocketError::Handles {
        announced: 1,
        delivered: 0,
    };
    assert_eq!(error, expected);
    peer.still_works();
}

/// A frame with a plane in each of `count` buffers.
fn frame_in(count: u8) -> Frame {
    let (mut frame, _) = good();
    let plane = frame.planes[0];
    frame.planes = (0..count)
        .map(|buffer| dmashare::share::Plane { buffer, ..plane })
        .collect();
    frame
}

fn fewer_handles_than_announced(peer: &Peer) {
    let (_, buffer) = good();
    let message = codec::encode(&frame_in(3), 3).unwrap();
    let error = peer.refused(&message, &[buffer.as_fd(), buffer.as_fd()]);
    let expected = SocketError::Handles {
        announced: 3,
        delivered: 2,
    };
    assert_eq!(error, expected);
    peer.still_works();
}

fn more_handles_than_announced(peer: &Peer) {
    let (frame, buffer) = good();
    let message = codec::encode(&frame, 1).unwrap();
    for delivered in 2..=codec::MAX_HANDLES {
        let error = peer.refused(&message, &vec![buffer.as_fd(); delivered]);
        let expected = SocketError::Handles {
            announced: 1,
            delivered,
        };
        assert_eq!(error, expected);
    }
    peer.still_works();
}

/// Whatever the kernel delivers of them, and it can be more than there is
/// nominally space for, is closed again.
fn more_handles_than_a_frame_has(peer: &Peer) {
    let (_, buffer) = good();
    let message = codec::encode(&frame_in(4), 4).unwrap();
    for sent in [5, 6, 7, 100, 253] {
        let error = peer.refused(&message, &vec![buffer.as_fd(); sent]);
        let refused = matches!(
            error,
            SocketError::Control | SocketError::Handles { announced: 4, .. }
        );
        assert!(refused, "{sent} handles: {error}");
    }
    peer.still_works();
}

/// At the limit of open handles the kernel delivers some of them, or none, and
/// says so by MSG_CTRUNC.
fn a_full_table(peer: &Peer) {
    let (_, buffer) = good();
    let message = codec::encode(&frame_in(3), 3).unwrap();
    let limit = getrlimit(Resource::Nofile);
    for room in 0..3 {
        peer.send(&message, &[buffer.as_fd(); 3]);
        let before = handles();
        let full = TableLimit::leave(room, limit);
        let received = peer.victim.recv();
        drop(full);
        let error = received.unwrap_err();
        assert_eq!(error, SocketError::Control, "room for {room}");
        assert_eq!(handles(), before, "room for {room}");
    }
    peer.still_works();
}

/// The limit of open handles, lowered while it lives.
struct TableLimit {
    limit: Rlimit,
    fill: Vec<OwnedFd>,
}

impl TableLimit {
    /// Room for just this many more.
    fn leave(room: usize, limit: Rlimit) -> TableLimit {
        // The limit is one on numbers, so the gaps below it are to be filled.
        let numbers = handles();
        let numbers = numbers.iter().map(|(number, _)| number.parse().unwrap());
        let highest: RawFd = numbers.max().unwrap();
        let mut fill: Vec<OwnedFd> = Vec::new();
        while fill.len() < room + 1 || fill[fill.len() - room - 1].as_raw_fd() < highest {
            fill.push(std::fs::File::open("/dev/null").unwrap().into());
        }
        let end = fill[fill.len() - 1].as_raw_fd() + 1;
        let lowered = Rlimit {
            current: Some(end.try_into().unwrap()),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        // Those opened last have the highest numbers, next to each other.
        fill.truncate(fill.len() - room);
        TableLimit { limit, fill }
    }
}

impl Drop for TableLimit {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.limit).unwrap();
        self.fill.clear();
    }
}

fn handles_that_are_no_buffers(peer: &Peer) {
    let (frame, _) = good();
    let message = codec::encode(&frame, 1).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let folder = std::fs::File::open("/").unwrap();
    // Not one on tmpfs, where files are memory.
    let plain = std::fs::File::open("/proc/self/status").unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let strangers = [
        (pipe.as_fd(), "a pipe"),
        (null.as_fd(), "a character device"),
        (folder.as_fd(), "a directory"),
        (plain.as_fd(), "a plain file"),
        (socket.as_fd(), "a socket"),
    ];
    for (stranger, name) in strangers {
        match peer.refused(&message, &[stranger]) {
            SocketError::Buffer {
                handle: 0,
                source: BufferError::NotABuffer { what, .. },
            } => assert_eq!(what, name),
            other => panic!("{name}: {other}"),
        }
    }
    // The good one before it is closed, too.
    let (_, buffer) = good();
    let message = codec::encode(&frame_in(2), 2).unwrap();
    let error = peer.refused(&message, &[buffer.as_fd(), null.as_fd()]);
    assert!(
        matches!(error, SocketError::Buffer { handle: 1, .. }),
        "{error}"
    );
    peer.still_works();
}

/// It passes, since there are uses for it, but is not mapped unless the
/// receiver says that the peer may end it by SIGBUS.
fn an_unsealed_memfd(peer: &Peer) {
    let (frame, _) = good();
    let message = codec::encode(&frame, 1).unwrap();
    for flags in [MemfdFlags::ALLOW_SEALING, MemfdFlags::empty()] {
        let memfd = memfd_create("unsealed", MemfdFlags::CLOEXEC | flags).unwrap();
        ftruncate(&memfd, 4096).unwrap();
        peer.send(&message, &[memfd.as_fd()]);
        let (_, buffers) = peer.victim.recv().unwrap();
        assert_eq!(
            buffers[0].kind() == Kind::Shm,
            flags.is_empty(),
            "{:?}",
            buffers[0].kind()
        );
        let error = buffers[0].map(Access::Read).unwrap_err();
        assert!(matches!(error, BufferError::Shrinkable { .. }), "{error}");
        let mut mapping = buffers[0].map_shrinkable(Access::Read).unwrap();
        let guard = mapping.access(Access::Read).unwrap();
        guard.read_at(4092, &mut [0; 4]).unwrap();
    }
}

/// Sealed as it may be, its pages can be given back. The kernel reserves none
/// before it is mapped, so this needs none.
fn huge_pages(peer: &Peer) {
    let (frame, _) = good();
    let message = codec::encode(&frame, 1).unwrap();
    for sealing in [MemfdFlags::ALLOW_SEALING, MemfdFlags::empty()] {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | sealing;
        let memfd = memfd_create("huge", flags).unwrap();
        let page = rustix::fs::fstat(&memfd).unwrap().st_blksize;
        ftruncate(&memfd, page.try_into().unwrap()).unwrap();
        if !sealing.is_empty() {
            fcntl_add_seals(&memfd, Seals::SHRINK | Seals::GROW).unwrap();
        }
        peer.send(&message, &[memfd.as_fd()]);
        let (_, buffers) = peer.victim.recv().unwrap();
        assert_eq!(buffers[0].kind(), Kind::HugeTlb);
        let error = buffers[0].map(Access::Read).unwrap_err();
        assert!(matches!(error, BufferError::HugeTlb { .. }), "{error}");
    }
    peer.still_works();
}

fn a_memfd_smaller_than_claimed(peer: &Peer) {
    let frame = Frame::packed(512, 512, Fourcc::XRGB8888).unwrap();
    let message = codec::encode(&frame, 1).unwrap();
    let (_, small) = good();
    let error = peer.refused(&message, &[small.as_fd()]);
    let expected = FrameError::Size {
        plane: 0,
        end: 512 * 512 * 4,
        size: 4096,
    };
    assert_eq!(error, SocketError::Frame(expected));

    let empty = memfd_create("empty", MemfdFlags::CLOEXEC).unwrap();
    let error = peer.refused(&message, &[empty.as_fd()]);
    let empty = matches!(
        error,
        SocketError::Buffer {
            source: BufferError::Empty { .. },
            ..
        }
    );
    assert!(empty, "{error}");
    peer.still_works();
}

/// What would wrap around in 32 bits to something that fits.
fn sizes_that_overflow(peer: &Peer) {
    let (good, buffer) = good();
    let at_32_bits = |change: fn(&mut Frame)| {
        let mut frame = good.clone();
        change(&mut frame);
        let message = codec::encode(&frame, 1).unwrap();
        peer.refused(&message, &[buffer.as_fd()])
    };
    let too_large = [
        // stride * height = 2^32
        at_32_bits(|f| (f.planes[0].stride, f.height) = (1 << 27, 32)),
        at_32_bits(|f| (f.planes[0].stride, f.height) = (u32::MAX, u32::MAX)),
        // offset + size = 2^32
        at_32_bits(|f| f.planes[0].offset = u32::MAX - 4095),
        at_32_bits(|f| f.planes[0].offset = 1),
    ];
    for error in too_large {
        assert!(
            matches!(error, SocketError::Frame(FrameError::Size { .. })),
            "{error}"
        );
    }
    // A plane without a stride, of which any number of rows would fit.
    let mut frame = frame_in(2);
    frame.planes[1].buffer = 0;
    frame.planes[1].stride = 0;
    let error = peer.refused(&codec::encode(&frame, 1).unwrap(), &[buffer.as_fd()]);
    let stride = SocketError::Frame(FrameError::Stride {
        plane: 1,
        row: 1,
        stride: 0,
    });
    assert_eq!(error, stride);
    // width * 4 = 2^32, and a row that is longer than its stride
    for change in [
        |f: &mut Frame| f.width = 1 << 30,
        |f: &mut Frame| f.width = 33,
    ] {
        let error = at_32_bits(change);
        assert!(
            matches!(error, SocketError::Frame(FrameError::Stride { .. })),
            "{error}"
        );
    }
    for change in [|f: &mut Frame| f.width = 0, |f: &mut Frame| f.height = 0] {
        let error = at_32_bits(change);
        assert!(
            matches!(error, SocketError::Frame(FrameError::Empty(..))),
            "{error}"
        );
    }
    peer.still_works();
}

/// The kernel gives it as 0 bytes, as it gives the end of the connection.
fn an_empty_message(peer: &Peer) {
    let (_, buffer) = good();
    let empty = SocketError::Codec(CodecError::Length(0));
    assert_eq!(peer.refused(&[], &[]), empty);
    assert_eq!(peer.refused(&[], &[buffer.as_fd()]), empty);
    peer.still_works();
}

fn silence(_: &Peer) {
    let (mut victim, _silent) = Socket::pair().unwrap();
    let after = Duration::from_millis(50);
    victim.set_timeout(Some(after));
    let begun = std::time::Instant::now();
    let operation = "recvmsg";
    let expected = SocketError::Timeout { operation, after };
    assert_eq!(victim.recv().unwrap_err(), expected);
    assert!(begun.elapsed() >= after);
}

fn a_peer_that_left(_: &Peer) {
    let (frame, buffer) = good();
    let (here, there) = Socket::pair().unwrap();
    drop(there);
    assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
    // EPIPE, and no SIGPIPE.
    assert_eq!(
        here.send(&frame, &[&buffer]).unwrap_err(),
        SocketError::Closed
    );

    // What it sent before it left arrives.
    let (here, there) = Socket::pair().unwrap();
    there.send(&frame, &[&buffer]).unwrap();
    drop(there);
    assert_eq!(here.recv().unwrap().0, frame);
    assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
}

/// Frames went both ways; the peer read none of ours. All of its own arrive
/// before the news that it is gone, which the kernel gives first.
fn a_peer_that_left_without_reading(_: &Peer) {
    let (frame, buffer) = good();
    for timeout in [None, Some(Duration::from_secs(5))] {
        for sent in 0..3 {
            let (mut here, there) = Socket::pair().unwrap();
            here.set_timeout(timeout);
            here.send(&frame, &[&buffer]).unwrap();
            for _ in 0..sent {
                there.send(&frame, &[&buffer]).unwrap();
            }
            drop(there);
            for _ in 0..sent {
                assert_eq!(here.recv().unwrap().0, frame);
            }
            assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
            assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
        }
    }
}

fn a_peer_that_does_not_read(_: &Peer) {
    let (frame, buffer) = good();
    let (mut here, _there) = Socket::pair().unwrap();
    here.set_timeout(Some(Duration::from_millis(20)));
    let error = (0..100_000)
        .find_map(|_| here.send(&frame, &[&buffer]).err())
        .unwrap();
    // The queue is full, or the user has too many handles in flight.
    let stopped = matches!(
        error,
        SocketError::Timeout { .. }
            | SocketError::Os {
                source: Errno::TOOMANYREFS,
                ..
            }
    );
    assert!(stopped, "{error}");
}

fn received_handles_close_on_exec(peer: &Peer) {
    let (frame, buffer) = good();
    peer.send(&codec::encode(&frame, 1).unwrap(), &[buffer.as_fd()]);
    let (_, buffers) = peer.victim.recv().unwrap();
    for fd in [peer.victim.as_fd(), buffers[0].as_fd()] {
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    // Seen from the other side of an exec: the child has none of them.
    let mut child = std::process::Command::new("/bin/ls");
    let seen = child.args(["-l", "/proc/self/fd"]).output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    std::io::stdout().flush().unwrap();
    assert!(!seen.contains("memfd:"), "{seen}");
}
