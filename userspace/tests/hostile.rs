//! What a hostile peer can send, over a real socket of either transport: each
//! message is refused for what is wrong with it, leaves no handle open, and
//! leaves the connection usable, or broken where nothing tells any more where a
//! message begins.
//!
//! The tests run one after the other in one thread, since each counts the
//! handles of the process, and one of them fills its table.

mod common;
#[path = "common/table.rs"]
mod table;

use std::cell::Cell;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use common::{handles, lingering_socket, settled};
use dmashare::Errno;
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Seals};
use dmashare::share::codec::{self, CodecError, Contents};
use dmashare::share::{
    Breakage, Draft, Fourcc, Frame, FrameError, Listener, Message, Plane, Socket, SocketError,
    Transport,
};
use libtest_mimic::{Arguments, Completion, Trial};
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, send, sendmsg, shutdown,
    sockopt,
};
use table::TableLimit;

const BOTH: &[Transport] = &[Transport::Packet, Transport::Stream];
const PACKET: &[Transport] = &[Transport::Packet];
const STREAM: &[Transport] = &[Transport::Stream];

/// The tests by name, and on which transports they run.
macro_rules! tests {
    ($($transports:ident: $($name:ident),+;)+) => {
        &[$($((stringify!($name), $transports, $name)),+),+]
    };
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests: &[(&str, &[Transport], Test)] = tests! {
        BOTH: a_good_message_passes, any_number_of_parts, forged_counts, another_version,
            random_bytes, mutated_messages, no_handle, fewer_handles_than_announced,
            more_handles_than_announced, more_handles_than_a_message_can_say, a_full_table,
            handles_that_are_no_buffers, an_unsealed_memfd, huge_pages,
            a_memfd_smaller_than_claimed, forged_sizes, sizes_that_overflow, sequences,
            another_shape, silence, an_inherited_socket, a_peer_that_left,
            a_peer_that_left_without_reading, a_peer_that_does_not_read,
            received_handles_close_on_exec, lingering_socket_does_not_delay_receive,
            many_handles_that_are_no_buffers, accept_rests_while_table_is_full;
        PACKET: short_and_long_messages, an_empty_message, message_behind_empty_one_arrives;
        STREAM: a_header_that_cannot_be_trusted, one_byte_at_a_time, messages_in_one_piece,
            handles_in_the_middle, a_full_table_in_the_middle, a_timeout_in_the_middle,
            a_peer_that_left_at_every_byte, a_sender_that_gave_up,
            half_messages_hold_few_handles, half_message_with_own_socket_ends,
            half_message_breaks_connection_in_time;
    };
    let trials = tests.iter().flat_map(|&(name, transports, test)| {
        transports.iter().map(move |&transport| {
            let name = format!("{transport:?}::{name}").to_lowercase();
            Trial::test(name, move || {
                nothing_left_open(|| test(&Peer::new(transport)));
                Ok(())
            })
        })
    });
    // Not every kernel has such bytes.
    let out_of_band = Trial::ignorable_test("stream::bytes_out_of_band", || {
        Ok(nothing_left_open(bytes_out_of_band))
    });
    let mut trials: Vec<_> = trials.chain([out_of_band]).collect();
    #[cfg(feature = "tokio")]
    trials.extend(BOTH.iter().flat_map(|&transport| {
        let tests: [(&str, TaskTest); 2] = [
            (
                "lingering_socket_does_not_delay_task",
                tasks::lingering_socket_does_not_delay_task,
            ),
            (
                "accept_rests_while_table_is_full",
                tasks::accept_rests_while_table_is_full,
            ),
        ];
        tests.map(|(name, test)| {
            let name = format!("tokio::{transport:?}::{name}").to_lowercase();
            Trial::test(name, move || {
                nothing_left_open(|| test(transport));
                Ok(())
            })
        })
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn nothing_left_open<T>(test: impl FnOnce() -> T) -> T {
    let before = handles();
    let ended = test();
    assert_eq!(settled(&before), before, "handles left open");
    ended
}

type Test = fn(&Peer);
#[cfg(feature = "tokio")]
type TaskTest = fn(Transport);

/// The victim, and the other end of its connection in hostile hands.
struct Peer {
    victim: Socket,
    hostile: OwnedFd,
    transport: Transport,
    /// The number of the message that is due.
    due: Cell<u64>,
}

impl Peer {
    fn new(transport: Transport) -> Peer {
        let (mut victim, hostile) = Socket::pair_with(transport).unwrap();
        // A test that waits for ever is worse than one that fails.
        victim.set_timeout(Some(Duration::from_secs(5)));
        let hostile = hostile.as_fd().try_clone_to_owned().unwrap();
        Peer {
            victim,
            hostile,
            transport,
            due: Cell::new(0),
        }
    }

    /// The message that is due, with this frame and handles without a claim.
    fn message(&self, frame: &Frame, handles: usize) -> Vec<u8> {
        self.message_of(&vec![0; handles], std::slice::from_ref(frame), &[])
    }

    fn message_of(&self, sizes: &[u64], frames: &[Frame], payload: &[u8]) -> Vec<u8> {
        codec::encode(&Contents {
            sequence: self.due.get(),
            sizes: sizes.into(),
            frames: frames.into(),
            payload,
        })
        .unwrap()
    }

    /// Sends any bytes with any handles.
    fn send(&self, message: &[u8], handles: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !handles.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(handles)));
        }
        let parts = [IoSlice::new(message)];
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.hostile, &parts, &mut control, flags).unwrap();
        assert_eq!(sent, message.len());
    }

    /// What the victim makes of what was sent; a message that it could read is
    /// counted.
    fn received(&self) -> Result<Message, SocketError> {
        let received = self.victim.recv_message();
        let uncounted = matches!(
            received,
            Err(SocketError::Codec(_)
                | SocketError::Broken(_)
                | SocketError::Sequence { .. }
                | SocketError::Closed
                | SocketError::Timeout { .. }
                | SocketError::Truncated(_))
        );
        self.due.set(self.due.get() + u64::from(!uncounted));
        received
    }

    /// What the victim says of these bytes and handles.
    fn refused(&self, message: &[u8], handles: &[BorrowedFd<'_>]) -> SocketError {
        self.send(message, handles);
        self.received().unwrap_err()
    }

    /// The connection still carries a frame.
    fn still_works(&self) {
        let (frame, buffer) = good();
        self.send(&self.message(&frame, 1), &[buffer.fd().unwrap()]);
        let received = self.received().unwrap();
        assert_eq!((received.frames, received.buffers.len()), (vec![frame], 1));
    }

    /// Ends what the hostile side sends, with every handle of it that is left.
    fn hang_up(&self) {
        shutdown(&self.hostile, Shutdown::Write).unwrap();
    }
}

/// A frame of one page, and a buffer that holds it.
fn good() -> (Frame, Buffer) {
    let frame = Frame::packed(32, 32, Fourcc::XRGB8888).unwrap();
    let buffer = Memfd::new().allocate(&Request::new(4096)).unwrap();
    (frame, buffer)
}

fn no_handle(peer: &Peer) {
    let (frame, _) = good();
    let error = peer.refused(&peer.message(&frame, 1), &[]);
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
    frame.planes = (0..count).map(|buffer| Plane { buffer, ..plane }).collect();
    frame
}

fn fewer_handles_than_announced(peer: &Peer) {
    let (_, buffer) = good();
    let message = peer.message(&frame_in(3), 3);
    let error = peer.refused(&message, &[buffer.fd().unwrap(), buffer.fd().unwrap()]);
    let expected = SocketError::Handles {
        announced: 3,
        delivered: 2,
    };
    assert_eq!(error, expected);
    peer.still_works();
}

fn handles_that_are_no_buffers(peer: &Peer) {
    let (frame, _) = good();
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
        match peer.refused(&peer.message(&frame, 1), &[stranger]) {
            SocketError::Buffer {
                handle: 0,
                source: BufferError::NotABuffer { what, .. },
            } => assert_eq!(what, name),
            other => panic!("{name}: {other}"),
        }
    }
    // The good one before it is closed, too.
    let (_, buffer) = good();
    let message = peer.message(&frame_in(2), 2);
    let error = peer.refused(&message, &[buffer.fd().unwrap(), null.as_fd()]);
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
    for flags in [MemfdFlags::ALLOW_SEALING, MemfdFlags::empty()] {
        let memfd = memfd_create("unsealed", MemfdFlags::CLOEXEC | flags).unwrap();
        ftruncate(&memfd, 4096).unwrap();
        peer.send(&peer.message(&frame, 1), &[memfd.as_fd()]);
        let buffers = peer.received().unwrap().buffers;
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
    for sealing in [MemfdFlags::ALLOW_SEALING, MemfdFlags::empty()] {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | sealing;
        let memfd = memfd_create("huge", flags).unwrap();
        let page = rustix::fs::fstat(&memfd).unwrap().st_blksize;
        ftruncate(&memfd, page.try_into().unwrap()).unwrap();
        if !sealing.is_empty() {
            fcntl_add_seals(&memfd, Seals::SHRINK | Seals::GROW).unwrap();
        }
        peer.send(&peer.message(&frame, 1), &[memfd.as_fd()]);
        let buffers = peer.received().unwrap().buffers;
        assert_eq!(buffers[0].kind(), Kind::HugeTlb);
        let error = buffers[0].map(Access::Read).unwrap_err();
        assert!(matches!(error, BufferError::HugeTlb { .. }), "{error}");
    }
    peer.still_works();
}

fn in_frame(source: FrameError) -> SocketError {
    SocketError::Frame { frame: 0, source }
}

fn a_memfd_smaller_than_claimed(peer: &Peer) {
    let frame = Frame::packed(512, 512, Fourcc::XRGB8888).unwrap();
    let (_, small) = good();
    let error = peer.refused(&peer.message(&frame, 1), &[small.fd().unwrap()]);
    let expected = FrameError::Size {
        plane: 0,
        end: 512 * 512 * 4,
        size: 4096,
    };
    assert_eq!(error, in_frame(expected));

    let empty = memfd_create("empty", MemfdFlags::CLOEXEC).unwrap();
    let error = peer.refused(&peer.message(&frame, 1), &[empty.as_fd()]);
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
        let message = peer.message(&frame, 1);
        peer.refused(&message, &[buffer.fd().unwrap()])
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
            matches!(
                error,
                SocketError::Frame {
                    source: FrameError::Size { .. },
                    ..
                }
            ),
            "{error}"
        );
    }
    // A plane without a stride, of which any number of rows would fit.
    let mut frame = frame_in(2);
    frame.planes[1].buffer = 0;
    frame.planes[1].stride = 0;
    let error = peer.refused(&peer.message(&frame, 1), &[buffer.fd().unwrap()]);
    let stride = in_frame(FrameError::Stride {
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
            matches!(
                error,
                SocketError::Frame {
                    source: FrameError::Stride { .. },
                    ..
                }
            ),
            "{error}"
        );
    }
    for change in [|f: &mut Frame| f.width = 0, |f: &mut Frame| f.height = 0] {
        let error = at_32_bits(change);
        assert!(
            matches!(
                error,
                SocketError::Frame {
                    source: FrameError::Empty(..),
                    ..
                }
            ),
            "{error}"
        );
    }
    peer.still_works();
}

fn a_good_message_passes(peer: &Peer) {
    let (frame, buffer) = good();
    peer.send(&peer.message(&frame, 1), &[buffer.fd().unwrap()]);
    let (received, buffers) = peer.victim.recv().unwrap();
    assert_eq!(received, frame);
    assert_eq!(buffers[0].kind(), buffer.kind());
    assert_eq!(buffers[0].size(), 4096);
}

/// From nothing at all to the most of everything; one more is refused, and
/// nothing of it is sent.
fn any_number_of_parts(peer: &Peer) {
    let (frame, buffer) = good();
    let here = Socket::from_fd(peer.hostile.try_clone().unwrap()).unwrap();
    let payload: Vec<u8> = (0..=codec::MAX_PAYLOAD)
        .map(|at| at.to_le_bytes()[0])
        .collect();
    let frames = vec![frame; codec::MAX_FRAMES + 1];
    let pass = |frames: &[Frame], buffers: usize, payload: &[u8]| {
        let buffers = (0..buffers).map(|_| &buffer);
        let draft = Draft::new()
            .frames(frames)
            .buffers(buffers)
            .payload(payload);
        // Larger than the socket takes at once, in a stream.
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| here.send_message(&draft));
            let received = peer.victim.recv_message();
            sent.join().unwrap().map(|()| received.unwrap())
        })
    };
    let refuse = |frames: &[Frame], buffers: usize, payload: &[u8]| {
        let buffers = (0..buffers).map(|_| &buffer);
        let draft = Draft::new()
            .frames(frames)
            .buffers(buffers)
            .payload(payload);
        here.send_message(&draft).unwrap_err()
    };
    let most = (codec::MAX_FRAMES, codec::MAX_HANDLES, codec::MAX_PAYLOAD);
    for (f, b, p) in [
        (0, 0, 0),
        (0, 1, 0),
        (1, 2, 3),
        (0, 253, 0),
        (0, 0, 1 << 16),
        most,
    ] {
        let message = pass(&frames[..f], b, &payload[..p]).unwrap();
        assert_eq!(message.frames, frames[..f]);
        assert_eq!(message.buffers.len(), b);
        assert_eq!(message.payload, payload[..p]);
    }
    let too_many = CodecError::Handles(254);
    let refused = refuse(&[], 254, &[]);
    assert_eq!(refused, SocketError::Unsendable(too_many));
    let message = refused.to_string();
    assert!(
        message.starts_with("the message cannot be sent: 254 handles"),
        "{message}"
    );
    let too_many = CodecError::Frames(frames.len());
    assert_eq!(refuse(&frames, 1, &[]), SocketError::Unsendable(too_many));
    let too_long = CodecError::Payload(payload.len());
    assert_eq!(refuse(&[], 0, &payload), SocketError::Unsendable(too_long));
    assert_eq!(pass(&[], 0, b"on").unwrap().payload, b"on");
}

fn short_and_long_messages(peer: &Peer) {
    let (frame, buffer) = good();
    let mut message = peer.message(&frame, 1);
    let length = message.len();
    message.resize(codec::MAX_LENGTH + 1, 0);
    let announced = u32::try_from(length).unwrap();
    let lengths = [1, 7, 31, 32, length - 1, length + 1, codec::MAX_LENGTH];
    for len in lengths.into_iter().chain([codec::MAX_LENGTH + 1]) {
        let error = peer.refused(&message[..len], &[buffer.fd().unwrap()]);
        let expected = match len {
            0..codec::HEADER => CodecError::Short(len),
            codec::HEADER..=codec::MAX_LENGTH => CodecError::Cut {
                announced,
                bytes: len,
            },
            _ => CodecError::Long(len),
        };
        assert_eq!(error, SocketError::Codec(expected));
    }
    peer.still_works();
}

/// Of a message whose length is sound, also a stream takes just that.
fn forged_counts(peer: &Peer) {
    let (frame, buffer) = good();
    // Handles, payload, frames: one more than there are.
    for (at, parts) in [(6, 136), (12, 129), (16, 216)] {
        let mut message = peer.message(&frame, 1);
        message[at] += 1;
        let error = peer.refused(&message, &[buffer.fd().unwrap()]);
        let expected = CodecError::Parts { length: 128, parts };
        assert_eq!(error, SocketError::Codec(expected));
    }
    peer.still_works();
}

fn another_version(peer: &Peer) {
    let (frame, buffer) = good();
    let mut message = peer.message(&frame, 1);
    message[4] = 1;
    let error = peer.refused(&message, &[buffer.fd().unwrap()]);
    let version = CodecError::Version(1);
    match peer.transport {
        Transport::Packet => {
            assert_eq!(error, SocketError::Codec(version));
            peer.still_works();
        }
        Transport::Stream => assert_eq!(error, SocketError::Broken(Breakage::Header(version))),
    }
}

/// A generator with a fixed seed.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    }
}

fn random_bytes(peer: &Peer) {
    let (_, buffer) = good();
    let mut random = random();
    for _ in 0..1000 {
        // A stream is broken by the first.
        let peer = Peer::new(peer.transport);
        let bytes: Vec<u8> = (0..1 + random(300))
            .map(|_| random(256).to_le_bytes()[0])
            .collect();
        peer.send(&bytes, &[buffer.fd().unwrap()]);
        peer.hang_up();
        assert!(peer.received().is_err());
    }
}

/// Good messages but for two bytes, with a handle more or less: they come
/// further. The sender then hangs up, so that a stream need not wait for what a
/// forged length promises.
fn mutated_messages(peer: &Peer) {
    let (_, buffer) = good();
    let mut random = random();
    let mut passed = 0;
    for _ in 0..3000 {
        let peer = Peer::new(peer.transport);
        let good = peer.message_of(&[4096, 4096], &[frame_in(2), frame_in(1)], b"payload");
        let mut message = good.clone();
        for _ in 0..2 {
            message[random(good.len())] = random(256).to_le_bytes()[0];
        }
        let handles = [2, 2, 2, 0, 1, 3][random(6)];
        peer.send(&message, &vec![buffer.fd().unwrap(); handles]);
        peer.hang_up();
        if let Ok(received) = peer.received() {
            // Then it is one that fits what came with it.
            for frame in &received.frames {
                frame.check(&[4096, 4096]).unwrap();
            }
            assert_eq!(peer.message_again(&received, &message), message);
            passed += 1;
        }
        let ended = peer.received().unwrap_err();
        let ended = matches!(ended, SocketError::Closed | SocketError::Broken(_))
            || matches!(ended, SocketError::Truncated(_));
        assert!(ended);
    }
    assert!((10..2900).contains(&passed), "{passed}");
}

impl Peer {
    /// The bytes of a message that was received, with the claims of `bytes`.
    fn message_again(&self, message: &Message, bytes: &[u8]) -> Vec<u8> {
        let sizes = codec::decode(bytes).unwrap().sizes;
        codec::encode(&Contents {
            sequence: 0,
            sizes,
            frames: message.frames.as_slice().into(),
            payload: &message.payload,
        })
        .unwrap()
    }
}

fn more_handles_than_announced(peer: &Peer) {
    let (frame, buffer) = good();
    for delivered in [2, 3, 4, 5, 100, 253] {
        let message = peer.message(&frame, 1);
        let error = peer.refused(&message, &vec![buffer.fd().unwrap(); delivered]);
        let expected = SocketError::Handles {
            announced: 1,
            delivered,
        };
        assert_eq!(error, expected);
    }
    peer.still_works();
}

/// The kernel passes no more than a message can bring.
fn more_handles_than_a_message_can_say(peer: &Peer) {
    let (_, buffer) = good();
    let handles = vec![buffer.fd().unwrap(); 254];
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(254))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
    let message = peer.message_of(&[0; 253], &[], &[]);
    let parts = [IoSlice::new(&message)];
    let refused = sendmsg(&peer.hostile, &parts, &mut control, SendFlags::empty());
    assert_eq!(refused.unwrap_err(), Errno::INVAL);
    peer.still_works();
}

/// Who had the socket before may have asked for more than handles: credentials
/// take none of their room, and a handle of the sender's process does not come.
fn an_inherited_socket(peer: &Peer) {
    let (_, buffer) = good();
    let mut inherited = Peer::new(peer.transport);
    sockopt::set_socket_passcred(&inherited.victim, true).unwrap();
    pass_pidfds(inherited.victim.as_fd());
    inherited.victim = Socket::from_fd(inherited.victim.into_fd()).unwrap();
    inherited.victim.set_timeout(Some(Duration::from_secs(5)));
    let message = inherited.message_of(&[4096; 253], &[], &[]);
    inherited.send(&message, &[buffer.fd().unwrap(); 253]);
    assert_eq!(inherited.received().unwrap().buffers.len(), 253);
    inherited.still_works();
}

/// `SO_PASSPIDFD`, where the kernel has it: since Linux 6.5.
fn pass_pidfds(socket: BorrowedFd<'_>) {
    const SO_PASSPIDFD: libc::c_int = 76;
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads the 4 bytes of `on`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const on).cast(),
            4,
        )
    };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOPROTOOPT));
    }
}

/// At the limit of open handles the kernel delivers some of them, or none, and
/// says so by MSG_CTRUNC.
fn a_full_table(peer: &Peer) {
    let (_, buffer) = good();
    for room in 0..3 {
        peer.send(&peer.message(&frame_in(3), 3), &[buffer.fd().unwrap(); 3]);
        let before = handles();
        let full = TableLimit::leave(room);
        let received = peer.received();
        drop(full);
        let error = received.unwrap_err();
        assert_eq!(error, SocketError::Control, "room for {room}");
        assert_eq!(settled(&before), before, "room for {room}");
    }
    peer.still_works();
}

/// A claim that the kernel does not bear out.
fn forged_sizes(peer: &Peer) {
    let (frame, buffer) = good();
    for claimed in [4097, u64::from(u32::MAX) + 1, u64::MAX] {
        let message = peer.message_of(&[4096, claimed], std::slice::from_ref(&frame), &[]);
        let error = peer.refused(&message, &[buffer.fd().unwrap(); 2]);
        let expected = SocketError::Size {
            handle: 1,
            claimed,
            size: 4096,
        };
        assert_eq!(error, expected);
    }
    peer.still_works();
}

/// Repeats change nothing; a gap is refused once, and the count goes on behind
/// it; what cannot be read is not counted.
fn sequences(peer: &Peer) {
    let numbered = |sequence| {
        peer.due.set(sequence);
        peer.send(&peer.message_of(&[], &[], b"n"), &[]);
        peer.victim.recv_message().map(|message| message.payload)
    };
    let refused = |expected, found| Err(SocketError::Sequence { expected, found });
    let passed = Ok(b"n".to_vec());
    assert_eq!(numbered(0), passed);
    assert_eq!(numbered(0), refused(1, 0));
    assert_eq!(numbered(1), passed);
    assert_eq!(numbered(0), refused(2, 0));
    assert_eq!(numbered(5), refused(2, 5));
    assert_eq!(numbered(5), refused(6, 5));
    let mut unreadable = peer.message_of(&[], &[], b"n");
    unreadable[20] = 1;
    let error = peer.refused(&unreadable, &[]);
    assert_eq!(error, SocketError::Codec(CodecError::Reserved(20)));
    assert_eq!(numbered(6), passed);
    assert_eq!(numbered(u64::MAX - 1), refused(7, u64::MAX - 1));
    for sequence in [0, 7, u64::MAX - 1] {
        assert_eq!(numbered(sequence), refused(u64::MAX, sequence));
    }
}

fn another_shape(peer: &Peer) {
    let (frame, buffer) = good();
    let message = peer.message_of(&[0, 0], &[frame.clone(), frame.clone()], b"two");
    peer.send(&message, &[buffer.fd().unwrap(); 2]);
    let expected = SocketError::Shape {
        frames: 2,
        buffers: 2,
        payload: 3,
    };
    assert_eq!(peer.victim.recv().unwrap_err(), expected);
    peer.due.set(1);
    peer.still_works();
}

/// The kernel gives it as 0 bytes, as it gives the end of the connection.
fn an_empty_message(peer: &Peer) {
    let (_, buffer) = good();
    let empty = SocketError::Codec(CodecError::Short(0));
    assert_eq!(peer.refused(&[], &[]), empty);
    assert_eq!(peer.refused(&[], &[buffer.fd().unwrap()]), empty);
    peer.still_works();
}

fn silence(peer: &Peer) {
    let (mut victim, _silent) = Socket::pair_with(peer.transport).unwrap();
    let after = Duration::from_millis(50);
    victim.set_timeout(Some(after));
    let begun = Instant::now();
    let operation = "recvmsg";
    let expected = SocketError::Timeout { operation, after };
    assert_eq!(victim.recv().unwrap_err(), expected);
    assert!(begun.elapsed() >= after);
}

fn a_peer_that_left(peer: &Peer) {
    let (frame, buffer) = good();
    let (here, there) = Socket::pair_with(peer.transport).unwrap();
    drop(there);
    assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
    // EPIPE, and no SIGPIPE.
    assert_eq!(
        here.send(&frame, &[&buffer]).unwrap_err(),
        SocketError::Closed
    );

    // What it sent before it left arrives.
    let (here, there) = Socket::pair_with(peer.transport).unwrap();
    there.send(&frame, &[&buffer]).unwrap();
    drop(there);
    assert_eq!(here.recv().unwrap().0, frame);
    assert_eq!(here.recv().unwrap_err(), SocketError::Closed);
}

/// Frames went both ways; the peer read none of ours. All of its own arrive
/// before the news that it is gone, which the kernel gives first.
fn a_peer_that_left_without_reading(peer: &Peer) {
    let (frame, buffer) = good();
    for timeout in [None, Some(Duration::from_secs(5))] {
        for sent in 0..3 {
            let (mut here, there) = Socket::pair_with(peer.transport).unwrap();
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

fn a_peer_that_does_not_read(peer: &Peer) {
    let (frame, buffer) = good();
    let (mut here, _there) = Socket::pair_with(peer.transport).unwrap();
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
    peer.send(&peer.message(&frame, 1), &[buffer.fd().unwrap()]);
    let buffers = peer.received().unwrap().buffers;
    for fd in [peer.victim.as_fd(), buffers[0].fd().unwrap()] {
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

/// Nothing tells where the next message begins, so there is none: not even one
/// that is good.
fn a_header_that_cannot_be_trusted(peer: &Peer) {
    let (frame, buffer) = good();
    let forged = [
        (0, b'X', CodecError::Magic(*b"XMSF")),
        (4, 3, CodecError::Version(3)),
        (8, 31, CodecError::Length(31)),
        (11, 1, CodecError::Length((1 << 24) + 128)),
    ];
    for (at, byte, fault) in forged {
        let mut peer = Peer::new(peer.transport);
        let good = peer.message(&frame, 1);
        let mut message = good.clone();
        message[at] = byte;
        peer.send(&message, &[buffer.fd().unwrap()]);
        peer.send(&good, &[buffer.fd().unwrap()]);
        let broken = SocketError::Broken(Breakage::Header(fault));
        for _ in 0..3 {
            assert_eq!(peer.received().unwrap_err(), broken);
        }
        let error = peer.victim.send(&frame, &[&buffer]).unwrap_err();
        assert_eq!(error, broken);
        // The other side finds out.
        let hostile = peer.hostile.try_clone().unwrap();
        let mut other = Socket::from_fd(hostile).unwrap();
        other.set_timeout(Some(Duration::from_secs(5)));
        assert_eq!(other.recv().unwrap_err(), SocketError::Closed);
        peer.victim.set_timeout(None);
        assert_eq!(peer.victim.recv().unwrap_err(), broken);
    }
}

fn one_byte_at_a_time(peer: &Peer) {
    let (frame, buffer) = good();
    for _ in 0..2 {
        let message = peer.message_of(&[4096], std::slice::from_ref(&frame), b"slowly");
        let victim = &peer.victim;
        let received = std::thread::scope(|scope| {
            let receiving = scope.spawn(|| victim.recv_message());
            peer.send(&message[..1], &[buffer.fd().unwrap()]);
            for byte in &message[1..] {
                std::thread::yield_now();
                peer.send(std::slice::from_ref(byte), &[]);
            }
            receiving.join().unwrap().unwrap()
        });
        assert_eq!(received.buffers.len(), 1);
        assert_eq!(received.payload, b"slowly");
        peer.due.set(peer.due.get() + 1);
    }
}

/// The first has handles, those behind it have none: one call of the sender.
fn messages_in_one_piece(peer: &Peer) {
    let (frame, buffer) = good();
    let mut messages = peer.message(&frame, 1);
    for sequence in 1..4 {
        peer.due.set(sequence);
        messages.extend(peer.message_of(&[], &[], &[b'p'; 100]));
    }
    peer.send(&messages, &[buffer.fd().unwrap()]);
    assert_eq!(peer.victim.recv().unwrap().0, frame);
    for _ in 1..4 {
        assert_eq!(peer.victim.recv_message().unwrap().payload, [b'p'; 100]);
    }
    peer.due.set(4);
    peer.still_works();
}

/// With any byte but the first, and also where the first brought none.
fn handles_in_the_middle(peer: &Peer) {
    let (frame, buffer) = good();
    let handle = [buffer.fd().unwrap()];
    let length = peer.message(&frame, 1).len();
    for first in [&handle[..], &[]] {
        for at in 1..length {
            let message = peer.message(&frame, 1);
            peer.send(&message[..at], first);
            peer.send(&message[at..], &handle);
            assert_eq!(peer.received().unwrap_err(), SocketError::Misplaced);
        }
    }
    peer.still_works();
}

fn a_full_table_in_the_middle(peer: &Peer) {
    let (_, buffer) = good();
    let mut peer = Peer::new(peer.transport);
    peer.victim.set_timeout(Some(Duration::from_millis(50)));
    let message = peer.message_of(&[4096], &[frame_in(1)], b"more");
    peer.send(&message[..50], &[buffer.fd().unwrap()]);
    assert!(timed_out(&peer.victim.recv_message()));
    peer.send(&message[50..], &[buffer.fd().unwrap()]);
    let full = TableLimit::leave(0);
    let received = peer.received();
    drop(full);
    assert_eq!(received.unwrap_err(), SocketError::Control);
    peer.still_works();
}

fn timed_out(received: &Result<Message, SocketError>) -> bool {
    matches!(received, Err(SocketError::Timeout { .. }))
}

/// Wherever the time ends: the next call goes on.
fn a_timeout_in_the_middle(peer: &Peer) {
    let (frame, buffer) = good();
    let mut peer = Peer::new(peer.transport);
    peer.victim.set_timeout(Some(Duration::from_millis(1)));
    for at in (1..128).step_by(9) {
        let message = peer.message(&frame, 1);
        peer.send(&message[..at], &[buffer.fd().unwrap()]);
        assert!(timed_out(&peer.received()));
        assert!(timed_out(&peer.received()));
        peer.send(&message[at..], &[]);
        let received = peer.received().unwrap();
        assert_eq!((received.frames.len(), received.buffers.len()), (1, 1));
    }
    // What came of the last one is closed with the socket.
    peer.send(&peer.message(&frame, 1)[..40], &[buffer.fd().unwrap()]);
    assert!(timed_out(&peer.received()));
}

fn a_peer_that_left_at_every_byte(peer: &Peer) {
    let (frame, buffer) = good();
    let message = peer.message_of(&[4096], &[frame], b"last words");
    for k in 0..message.len() {
        let Peer {
            victim, hostile, ..
        } = {
            let peer = Peer::new(peer.transport);
            if k > 0 {
                peer.send(&message[..k], &[buffer.fd().unwrap()]);
            }
            peer
        };
        drop(hostile);
        if k > 0 {
            assert_eq!(
                victim.recv_message().unwrap_err(),
                SocketError::Truncated(k)
            );
        }
        assert_eq!(victim.recv_message().unwrap_err(), SocketError::Closed);
        assert_eq!(victim.recv_message().unwrap_err(), SocketError::Closed);
    }
}

/// Out of time in the middle of a message: nothing can be sent behind it, and
/// the peer is told. What the peer sends still comes.
fn a_sender_that_gave_up(peer: &Peer) {
    let (mut here, mut there) = Socket::pair_with(peer.transport).unwrap();
    here.set_timeout(Some(Duration::from_millis(20)));
    there.set_timeout(Some(Duration::from_secs(5)));
    let payload = vec![1; codec::MAX_PAYLOAD];
    let draft = Draft::new().payload(&payload);
    let whole = (0..1000).take_while(|_| here.send_message(&draft).is_ok());
    let whole = whole.count();
    let sending = |error| matches!(error, SocketError::Broken(Breakage::Sending { .. }));
    assert!(sending(here.send_message(&draft).unwrap_err()));
    there.send_message(&Draft::new().payload(b"back")).unwrap();
    assert_eq!(here.recv_message().unwrap().payload, b"back");
    for _ in 0..whole {
        assert_eq!(there.recv_message().unwrap().payload, payload);
    }
    let error = there.recv_message().unwrap_err();
    assert!(matches!(error, SocketError::Truncated(_)), "{error}");
    assert!(sending(here.send_message(&draft).unwrap_err()));
}

/// The peer's own socket must not decide how long a refusal takes: it holds
/// unsent bytes, and close(2) would wait for them (`SO_LINGER`).
fn lingering_socket_does_not_delay_receive(peer: &Peer) {
    let (frame, _) = good();
    let (socket, _unread) = lingering_socket(Duration::from_secs(3));
    peer.send(&peer.message(&frame, 1), &[socket.as_fd()]);
    drop(socket);
    let begun = Instant::now();
    let error = peer.received().unwrap_err();
    let refused = matches!(error, SocketError::Buffer { handle: 0, .. });
    assert!(refused, "{error}");
    peer.still_works();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// As many as a message can bring, again and again: each is closed.
fn many_handles_that_are_no_buffers(peer: &Peer) {
    let (pipe, _writer) = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let begun = Instant::now();
    let before = handles();
    for stranger in [pipe.as_fd(), null.as_fd()] {
        let message = peer.message_of(&[0; 253], &[], &[]);
        let error = peer.refused(&message, &[stranger; 253]);
        let refused = matches!(error, SocketError::Buffer { handle: 0, .. });
        assert!(refused, "{error}");
        assert_eq!(settled(&before), before);
    }
    peer.still_works();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// With no handle left a connection stays in the queue, so the listener is
/// ready all the time.
fn accept_rests_while_table_is_full(peer: &Peer) {
    let name = format!(
        "@dmashare hostile {:?} {}",
        peer.transport,
        std::process::id()
    );
    let mut listener = Listener::bind_with(&name, peer.transport).unwrap();
    let _waits = Socket::connect_with(&name, peer.transport).unwrap();
    listener.set_timeout(Some(Duration::from_millis(100)));
    let full = TableLimit::leave(0);
    let begun = Instant::now();
    let mut errors = Vec::new();
    while begun.elapsed() < Duration::from_millis(450) {
        errors.push(listener.accept().unwrap_err());
    }
    let took = begun.elapsed();
    drop(full);
    assert!(errors.len() <= 5, "{} errors in {took:?}", errors.len());
    assert!(took < Duration::from_secs(2), "{took:?}");
    for error in errors {
        let full = matches!(
            error,
            SocketError::Os {
                source: Errno::MFILE,
                ..
            }
        );
        assert!(full, "{error}");
    }
    // As soon as there is room, the connection is accepted.
    listener.set_timeout(None);
    let full = TableLimit::leave(0);
    let freed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(full);
    });
    listener.accept().unwrap();
    freed.join().unwrap();
}

/// The peer is gone, and what it sent behind the empty packet is there still.
fn message_behind_empty_one_arrives(peer: &Peer) {
    let (frame, buffer) = good();
    let peer = Peer::new(peer.transport);
    for _ in 0..2 {
        peer.send(&[], &[]);
    }
    peer.send(&peer.message(&frame, 1), &[buffer.fd().unwrap()]);
    peer.hang_up();
    let empty = SocketError::Codec(CodecError::Short(0));
    assert_eq!(peer.received().unwrap_err(), empty);
    assert_eq!(peer.received().unwrap_err(), empty);
    assert_eq!(peer.received().unwrap().frames, [frame]);
    assert_eq!(peer.received().unwrap_err(), SocketError::Closed);
}

/// Four peers that send one byte each, with as many handles as one call can.
fn half_messages_hold_few_handles(peer: &Peer) {
    let (_, buffer) = good();
    let before = handles().len();
    let mut peers: Vec<Peer> = (0..4).map(|_| Peer::new(peer.transport)).collect();
    let ends = handles().len() - before;
    for peer in &mut peers {
        peer.victim.set_timeout(Some(Duration::from_millis(10)));
        let message = peer.message_of(&[4096; 253], &[], &[]);
        peer.send(&message[..1], &[buffer.fd().unwrap(); 253]);
        assert!(timed_out(&peer.received()));
    }
    let held = handles().len() - before - ends;
    assert!(
        held <= 4 * 64,
        "{held} handles are held for four half messages"
    );
    // Also where the header is there.
    let other = Peer::new(peer.transport);
    let message = other.message_of(&[4096; 253], &[], b"payload");
    other.send(&message[..40], &[buffer.fd().unwrap(); 253]);
    let victim = &other.victim;
    std::thread::scope(|scope| {
        let received = scope.spawn(|| victim.recv_message());
        std::thread::sleep(Duration::from_millis(50));
        let held = handles().len() - before - ends;
        assert!(
            held <= 5 * 64 + 4,
            "{held} handles are held for five half messages"
        );
        // The whole message passes once it is there.
        other.send(&message[40..], &[]);
        assert_eq!(received.join().unwrap().unwrap().buffers.len(), 253);
    });
}

/// The peer's end of the connection travels in the message: while it is held
/// here, the peer's end stays open, and the connection never ends.
fn half_message_with_own_socket_ends(peer: &Peer) {
    let Peer {
        victim, hostile, ..
    } = {
        let peer = Peer::new(peer.transport);
        let message = peer.message_of(&[4096], &[], &[]);
        peer.send(&message[..1], &[peer.hostile.as_fd()]);
        peer
    };
    drop(hostile);
    let begun = Instant::now();
    let error = victim.recv_message().unwrap_err();
    assert_eq!(error, SocketError::Truncated(1));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Without any setting.
fn half_message_breaks_connection_in_time(peer: &Peer) {
    let (_, buffer) = good();
    let (mut victim, hostile) = Socket::pair_with(peer.transport).unwrap();
    // Beyond the default, so that a test that fails ends.
    victim.set_timeout(Some(Duration::from_secs(12)));
    let peer = Peer {
        victim,
        hostile: hostile.into_fd(),
        transport: peer.transport,
        due: Cell::new(0),
    };
    let message = peer.message_of(&[4096], &[], &[]);
    peer.send(&message[..33], &[buffer.fd().unwrap()]);
    let begun = Instant::now();
    let error = peer.received().unwrap_err();
    assert!(matches!(error, SocketError::Broken(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(11));
    assert_eq!(peer.received().unwrap_err(), error);
    // The peer is told.
    let other = Socket::from_fd(peer.hostile).unwrap();
    assert_eq!(other.recv_message().unwrap_err(), SocketError::Closed);
}

/// poll(2) would find such a byte for ever, and recvmsg(2) never.
fn bytes_out_of_band() -> Completion {
    let peer = Peer::new(Transport::Stream);
    let (frame, buffer) = good();
    match send(&peer.hostile, &[0], SendFlags::OOB) {
        Ok(_) => {}
        Err(errno @ Errno::OPNOTSUPP) => {
            let reason = "this kernel is older than 5.15 or has no CONFIG_AF_UNIX_OOB";
            return Completion::ignored_with(format!("send(MSG_OOB): {errno}: {reason}"));
        }
        Err(errno) => panic!("{errno}"),
    }
    peer.send(&peer.message(&frame, 1), &[buffer.fd().unwrap()]);
    let broken = peer.received().unwrap_err();
    assert!(matches!(broken, SocketError::Broken(_)), "{broken}");
    Completion::Completed
}

/// The same for tasks, here since these count the handles of the process, too.
#[cfg(feature = "tokio")]
mod tasks {
    use super::*;
    use dmashare::share::tokio::{AsyncListener, AsyncSocket};
    use tokio::time::timeout;

    fn run<T>(task: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ended = timeout(Duration::from_secs(10), task).await;
            ended.expect("it waits for ever")
        })
    }

    /// Another task of the same thread runs on.
    pub(super) fn lingering_socket_does_not_delay_task(transport: Transport) {
        let peer = Peer::new(transport);
        let (socket, _unread) = lingering_socket(Duration::from_secs(3));
        peer.send(&peer.message_of(&[0], &[], &[]), &[socket.as_fd()]);
        drop(socket);
        run(async {
            let victim = AsyncSocket::new(peer.victim).unwrap();
            let begun = Instant::now();
            let error = victim.recv_message().await.unwrap_err();
            let refused = matches!(error, SocketError::Buffer { handle: 0, .. });
            assert!(refused, "{error}");
            assert!(begun.elapsed() < Duration::from_secs(1));
        });
    }

    pub(super) fn accept_rests_while_table_is_full(transport: Transport) {
        let name = format!("@dmashare task {transport:?} {}", std::process::id());
        run(async {
            let listener = Listener::bind_with(&name, transport).unwrap();
            let listener = AsyncListener::new(listener).unwrap();
            let _waits = Socket::connect_with(&name, transport).unwrap();
            let full = TableLimit::leave(0);
            let begun = Instant::now();
            let mut errors = 0;
            while begun.elapsed() < Duration::from_millis(450) {
                let accepted = timeout(Duration::from_millis(100), listener.accept());
                errors += usize::from(accepted.await.is_ok_and(|accepted| accepted.is_err()));
            }
            assert!(errors <= 1, "{errors} errors");
            let error = listener.accept().await.unwrap_err();
            drop(full);
            let full = matches!(
                error,
                SocketError::Os {
                    source: Errno::MFILE,
                    ..
                }
            );
            assert!(full, "{error}");
            listener.accept().await.unwrap();
        });
    }
}
