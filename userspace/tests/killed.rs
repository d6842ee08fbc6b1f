//! Real processes that are killed by SIGKILL while messages pass: the other
//! side gets whole messages or a clear end, and nothing of the dead remains.
//!
//! This program runs itself as the peers. How many of them are killed says
//! `DMASHARE_ROUNDS`; 1000 where it says nothing.

mod common;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::handles;
use dmashare::Errno;
use dmashare::alloc::{Allocate, Memfd, Posix, Request, SysV};
use dmashare::buffer::{Access, Buffer, BufferError};
use dmashare::share::codec::{self, Contents};
use dmashare::share::{Draft, Fourcc, Frame, Message, Socket, SocketError, Transport};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::cmsg_space;
use rustix::io::ioctl_fionread;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Signal, getpid, kill_process};

/// What a process that is run as a peer does: its role, and a number.
const ROLE: &str = "DMASHARE_TEST_ROLE";

/// The payload of the message that ends behind each of its bytes.
const SHORT: usize = 18;

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let mut arguments = Arguments::from_args();
    // The handles and the mappings of the process are counted.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for transport in [Transport::Packet, Transport::Stream] {
        let name = |test| format!("{transport:?}::{test}").to_lowercase();
        trials.push(Trial::test(name("at_a_random_point"), move || {
            nothing_remains(|| at_a_random_point(transport))
        }));
    }
    trials.push(Trial::test("stream::behind_every_byte", || {
        nothing_remains(behind_every_byte)
    }));
    trials.push(Trial::test("stream::with_a_full_queue", || {
        nothing_remains(with_a_full_queue)
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs a test, and compares what the system holds before and after.
fn nothing_remains(test: impl FnOnce()) -> Result<(), Failed> {
    let (open, mapped, named) = (handles(), mappings(), named());
    test();
    assert_eq!(handles(), open, "handles left open");
    assert_eq!(mappings(), mapped, "mappings left");
    // Other programs have names, too, but theirs come and go.
    let begun = Instant::now();
    loop {
        let left: Vec<_> = self::named().difference(&named).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The mappings of shared memory that this process has.
fn mappings() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|p| p.ends_with('s'));
    maps.lines().filter(is_shared).map(str::to_owned).collect()
}

/// The shared memory that has a name in the system: System V segments and the
/// files of POSIX shared memory.
fn named() -> BTreeSet<String> {
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let segments = segments.lines().skip(1);
    // The key and the id, without what changes with every use.
    let segment = |line: &str| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut named: BTreeSet<_> = segments.map(segment).collect();
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten() {
        named.extend(entry.map(|entry| entry.path().display().to_string()));
    }
    named
}

/// A peer process that has its buffers, and our end of the connection with it.
///
/// It says so by an empty message: one that dies between making a segment and
/// removing it, which takes two calls, leaves it behind.
fn spawn(role: &str, transport: Transport) -> (Child, Socket) {
    let (mut ours, theirs) = Socket::pair_with(transport).unwrap();
    ours.set_timeout(Some(Duration::from_secs(20)));
    let child = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, role)
        .stdin(Stdio::from(theirs.as_fd().try_clone_to_owned().unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // As long as it is open here, the peer's end does not end the connection.
    drop(theirs);
    assert!(ours.recv_message().unwrap().payload.is_empty());
    (child, ours)
}

fn rounds() -> usize {
    match std::env::var("DMASHARE_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("DMASHARE_ROUNDS is a number"),
        Err(_) => 1000,
    }
}

/// Numbers below another that look random, the same ones in each run.
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

fn spin(duration: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Waits for a peer, which a signal has ended.
fn killed(mut child: Child) {
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
}

fn at_a_random_point(transport: Transport) {
    let mut random = random();
    let (mut passed, mut cut) = (0, 0);
    // Each transport has half of them.
    for round in 0..rounds().div_ceil(2) {
        let sends = round % 2 == 0;
        let (mut child, ours) = spawn(if sends { "send" } else { "receive" }, transport);
        let message = Parts::new(2000);
        let exchange = || match sends {
            true => ours.recv_message().map(|message| look(&message)),
            false => ours.send_message(&message.draft()).map(|()| true),
        };
        for _ in 0..random(4) {
            assert!(exchange().unwrap(), "the segment of a living peer is gone");
            passed += 1;
        }
        spin(Duration::from_micros(random(200)));
        child.kill().unwrap();
        // What it sent before its end comes whole, and then the end.
        let error = loop {
            match exchange() {
                Ok(_) => passed += 1,
                Err(error) => break error,
            }
        };
        match error {
            SocketError::Closed => {}
            SocketError::Truncated(_) if transport == Transport::Stream && sends => cut += 1,
            other => panic!("round {round}: {other}"),
        }
        killed(child);
    }
    eprintln!("{transport:?}: {passed} messages passed, {cut} were cut by the peer's end");
}

/// Peers that die while their message waits for room in the queue: what of it is
/// there is the middle of a message, and its handles are closed.
fn with_a_full_queue() {
    let mut random = random();
    let (mut passed, mut cut) = (0, 0);
    for round in 0..rounds().div_ceil(10) {
        let (mut child, ours) = spawn("send long", Transport::Stream);
        for _ in 0..random(4) {
            assert!(look(&ours.recv_message().unwrap()));
            passed += 1;
        }
        // Every other one is killed while the queue fills.
        match round % 2 {
            0 => until_it_is_full(&ours),
            _ => spin(Duration::from_micros(random(1000))),
        }
        child.kill().unwrap();
        killed(child);
        let error = loop {
            match ours.recv_message() {
                Ok(message) => {
                    look(&message);
                    passed += 1;
                }
                Err(error) => break error,
            }
        };
        match error {
            SocketError::Closed => {}
            SocketError::Truncated(came) => {
                assert!((1..codec::MAX_LENGTH).contains(&came));
                cut += 1;
                assert_eq!(ours.recv_message().unwrap_err(), SocketError::Closed);
            }
            other => panic!("{other}"),
        }
    }
    eprintln!("a full queue: {passed} messages passed, {cut} were cut by the peer's end");
    assert!(cut > 0, "no peer died in the middle of a message");
}

/// Waits until no more comes into the queue.
fn until_it_is_full(socket: &Socket) {
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let now = ioctl_fionread(socket).unwrap();
        if now > 0 && now == before {
            return;
        }
        before = now;
    }
}

/// A peer that dies behind each byte of a message.
fn behind_every_byte() {
    let message = Parts::new(SHORT).bytes();
    for k in 0..message.len() {
        let (child, ours) = spawn(&k.to_string(), Transport::Stream);
        let error = ours.recv_message().unwrap_err();
        match k {
            0 => assert_eq!(error, SocketError::Closed),
            _ => assert_eq!(error, SocketError::Truncated(k)),
        }
        assert_eq!(ours.recv_message().unwrap_err(), SocketError::Closed);
        killed(child);
    }
}

/// A message with what can be shared without a device: a memfd, a POSIX object,
/// and a System V segment, which goes by its id in the payload.
struct Parts {
    frames: Vec<Frame>,
    buffers: Vec<Buffer>,
    /// Its memory lasts as long as it is attached.
    _segment: Buffer,
    payload: Vec<u8>,
}

impl Parts {
    fn new(payload: usize) -> Parts {
        let request = Request::new(4096);
        let segment = SysV::new().allocate(&request).unwrap();
        let id = segment.segment().expect("a segment has an id");
        let mut bytes = vec![7; payload];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        Parts {
            frames: vec![Frame::packed(32, 32, Fourcc::XRGB8888).unwrap()],
            buffers: vec![
                Memfd::new().allocate(&request).unwrap(),
                Posix::new().allocate(&Request::new(8192)).unwrap(),
            ],
            _segment: segment,
            payload: bytes,
        }
    }

    fn draft(&self) -> Draft<'_> {
        let draft = Draft::new().frames(&self.frames).buffers(&self.buffers);
        draft.payload(&self.payload)
    }

    /// As the message behind that of a peer's beginning.
    fn bytes(&self) -> Vec<u8> {
        codec::encode(&Contents {
            sequence: 1,
            sizes: self.buffers.iter().map(Buffer::size).collect(),
            frames: self.frames.as_slice().into(),
            payload: &self.payload,
        })
        .unwrap()
    }
}

/// Maps and reads what came: whether the segment was still there.
fn look(message: &Message) -> bool {
    for buffer in &message.buffers {
        read_last_byte(buffer);
    }
    let id = message.payload.first_chunk().unwrap();
    match Buffer::from_segment(i32::from_le_bytes(*id)) {
        Ok(segment) => {
            read_last_byte(&segment);
            true
        }
        // It went with the one that sent it, and attached it alone.
        Err(BufferError::Os {
            source: Errno::INVAL | Errno::IDRM,
            ..
        }) => false,
        Err(other) => panic!("{other}"),
    }
}

fn read_last_byte(buffer: &Buffer) {
    let mapping = match buffer.map(Access::Read) {
        Err(BufferError::Shrinkable { .. }) => buffer.map_shrinkable(Access::Read),
        mapping => mapping,
    };
    let mut mapping = mapping.unwrap();
    let guard = mapping.access(Access::Read).unwrap();
    guard.read_at(buffer.size() - 1, &mut [0]).unwrap();
}

/// The peer, until it is killed.
fn play(role: &str) {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let message = Parts::new(match role {
        "send long" => codec::MAX_PAYLOAD,
        "send" | "receive" => 2000,
        _ => SHORT,
    });
    let socket = Socket::from_fd(stdin).unwrap();
    socket.send_message(&Draft::new()).unwrap();
    let Ok(k) = role.parse::<usize>() else {
        loop {
            match role {
                "receive" => assert!(look(&socket.recv_message().unwrap())),
                _ => socket.send_message(&message.draft()).unwrap(),
            }
        }
    };
    let bytes = message.bytes();
    // Not by the library, which sends whole messages alone.
    if k > 0 {
        let handles = message.buffers.iter().map(|buffer| buffer.fd().unwrap());
        let handles: Vec<_> = handles.collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
        let parts = [IoSlice::new(&bytes[..k])];
        sendmsg(&socket, &parts, &mut control, SendFlags::empty()).unwrap();
    }
    kill_process(getpid(), Signal::KILL).unwrap();
}
