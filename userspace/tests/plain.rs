//! Handles with one byte, as textbook programs pass them: how many, over which
//! sockets, and what is refused.
//!
//! The tests run one after the other in one thread, since each counts the
//! handles of the process, and one of them fills its table.

mod common;
#[path = "common/table.rs"]
mod table;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use common::{handles, lingering_socket, settled};
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::Buffer;
use dmashare::share::codec::CodecError;
use dmashare::share::{SocketError, plain};
use libtest_mimic::{Arguments, Trial};
use rustix::cmsg_space;
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair, sockopt,
};
use table::TableLimit;

/// Long enough for any machine; a test that waits for ever is worse than one
/// that fails.
const WAIT: Option<Duration> = Some(Duration::from_secs(5));
const SHORT: Option<Duration> = Some(Duration::from_millis(20));

type Test = fn(&OwnedFd, OwnedFd);

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let all: &[(&str, Test)] = &[
        ("any_number_of_handles", any_number_of_handles),
        (
            "more_than_a_message_can_bring",
            more_than_a_message_can_bring,
        ),
        ("a_full_table", a_full_table),
        ("credentials_take_no_room", credentials_take_no_room),
        ("silence", silence),
        ("a_full_queue", a_full_queue),
        (
            "received_sockets_do_not_linger",
            received_sockets_do_not_linger,
        ),
    ];
    let connected: &[(&str, Test)] = &[("a_peer_that_left", a_peer_that_left)];
    let whole: &[(&str, Test)] = &[
        ("an_empty_message", an_empty_message),
        ("a_long_message", a_long_message),
        (
            "lingering_socket_does_not_delay_refusal",
            lingering_socket_does_not_delay_refusal,
        ),
    ];
    let packet: &[(&str, Test)] = &[(
        "message_behind_empty_one_arrives",
        message_behind_empty_one_arrives,
    )];
    let stream: &[(&str, Test)] = &[("byte_by_byte", byte_by_byte)];
    let mut trials = Vec::new();
    for (name, kind, sets) in [
        ("stream", SocketType::STREAM, [all, connected, stream]),
        (
            "packet",
            SocketType::SEQPACKET,
            [all, connected, &[whole, packet].concat()],
        ),
        ("datagram", SocketType::DGRAM, [all, whole, &[]]),
    ] {
        trials.extend(sets.into_iter().flatten().map(|&(test, run)| {
            Trial::test(format!("{name}::{test}"), move || {
                let before = handles();
                let flags = SocketFlags::CLOEXEC;
                let (here, there) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
                run(&here, there);
                drop(here);
                assert_eq!(settled(&before), before, "handles left open");
                Ok(())
            })
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn buffer() -> Buffer {
    Memfd::new().allocate(&Request::new(4096)).unwrap()
}

/// Sends what this crate does not.
fn send_raw(socket: impl AsFd, bytes: &[u8], handles: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(handles)));
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    assert_eq!(sent.unwrap(), bytes.len());
}

/// The two ends still pass a handle.
fn still_works(here: &OwnedFd, there: &OwnedFd) {
    let buffer = buffer();
    plain::send(there, &[buffer.fd().unwrap()], WAIT).unwrap();
    let handle = plain::recv(here, WAIT).unwrap().remove(0);
    assert_eq!(Buffer::from_fd(handle).unwrap().size(), 4096);
}

fn any_number_of_handles(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    for count in [0, 1, 2, 252, 253] {
        plain::send(&there, &vec![buffer.fd().unwrap(); count], WAIT).unwrap();
        let received = plain::recv(here, WAIT).unwrap();
        assert_eq!(received.len(), count);
        for handle in received {
            assert!(fcntl_getfd(&handle).unwrap().contains(FdFlags::CLOEXEC));
            assert_eq!(Buffer::from_fd(handle).unwrap().size(), 4096);
        }
    }
}

fn more_than_a_message_can_bring(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    let refused = plain::send(&there, &[buffer.fd().unwrap(); 254], WAIT);
    let expected = SocketError::Unsendable(CodecError::Handles(254));
    assert_eq!(refused.unwrap_err(), expected);
    // Nothing of it was sent.
    let silent = plain::recv(here, Some(Duration::ZERO));
    assert!(matches!(silent, Err(SocketError::Timeout { .. })));
    still_works(here, &there);
}

/// The kernel delivers some handles, or none, and says so by MSG_CTRUNC.
fn a_full_table(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    for room in 0..3 {
        plain::send(&there, &[buffer.fd().unwrap(); 3], WAIT).unwrap();
        let before = handles();
        let full = TableLimit::leave(room);
        let received = plain::recv(here, WAIT);
        drop(full);
        assert_eq!(
            received.unwrap_err(),
            SocketError::Control,
            "room for {room}"
        );
        assert_eq!(settled(&before), before, "room for {room}");
    }
    still_works(here, &there);
}

fn credentials_take_no_room(here: &OwnedFd, there: OwnedFd) {
    sockopt::set_socket_passcred(here, true).unwrap();
    let buffer = buffer();
    plain::send(&there, &[buffer.fd().unwrap(); 253], WAIT).unwrap();
    assert_eq!(plain::recv(here, WAIT).unwrap().len(), 253);
}

fn silence(here: &OwnedFd, there: OwnedFd) {
    let operation = "recvmsg";
    let after = Duration::from_millis(20);
    let expected = SocketError::Timeout { operation, after };
    assert_eq!(plain::recv(here, SHORT).unwrap_err(), expected);
    still_works(here, &there);
}

/// One who does not receive is not waited for; what was sent before comes.
fn a_full_queue(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    let send = || plain::send(&there, &[buffer.fd().unwrap()], SHORT);
    let sent = (0..100_000).take_while(|_| send().is_ok()).count();
    let error = send().unwrap_err();
    assert!(matches!(error, SocketError::Timeout { .. }), "{error}");
    for _ in 0..sent {
        assert_eq!(plain::recv(here, WAIT).unwrap().len(), 1);
    }
    let silent = plain::recv(here, Some(Duration::ZERO));
    assert!(matches!(silent, Err(SocketError::Timeout { .. })));
}

/// What it sent before comes; then the end, and again.
fn a_peer_that_left(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    plain::send(&there, &[buffer.fd().unwrap()], WAIT).unwrap();
    drop(there);
    assert_eq!(plain::recv(here, WAIT).unwrap().len(), 1);
    for _ in 0..2 {
        assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Closed);
    }
    let refused = plain::send(here, &[buffer.fd().unwrap()], WAIT);
    assert_eq!(refused.unwrap_err(), SocketError::Closed);
}

/// A message without a byte is none of these, whatever it brings, and not the
/// end of the connection.
fn an_empty_message(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    send_raw(&there, &[], &[buffer.fd().unwrap(); 2]);
    assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Plain(0));
    rustix::net::send(&there, &[], SendFlags::NOSIGNAL).unwrap();
    assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Plain(0));
    still_works(here, &there);
}

fn a_long_message(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    send_raw(&there, b"hello", &[buffer.fd().unwrap(); 2]);
    assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Plain(5));
    still_works(here, &there);
}

/// The peer is gone, and what it sent behind the empty packet is there still.
fn message_behind_empty_one_arrives(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    rustix::net::send(&there, &[], SendFlags::NOSIGNAL).unwrap();
    plain::send(&there, &[buffer.fd().unwrap()], WAIT).unwrap();
    drop(there);
    assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Plain(0));
    assert_eq!(plain::recv(here, WAIT).unwrap().len(), 1);
    assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Closed);
}

/// close(2) of a socket with unsent bytes can wait for its peer (`SO_LINGER`).
fn lingering_socket_does_not_delay_refusal(here: &OwnedFd, there: OwnedFd) {
    let (socket, _unread) = lingering_socket(Duration::from_secs(3));
    send_raw(&there, b"hello", &[socket.as_fd()]);
    drop(socket);
    let begun = std::time::Instant::now();
    assert_eq!(plain::recv(here, WAIT).unwrap_err(), SocketError::Plain(5));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

fn received_sockets_do_not_linger(here: &OwnedFd, there: OwnedFd) {
    let (socket, _unread) = lingering_socket(Duration::from_secs(3));
    plain::send(&there, &[socket.as_fd()], WAIT).unwrap();
    drop(socket);
    let received = plain::recv(here, WAIT).unwrap();
    let begun = std::time::Instant::now();
    drop(received);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// A stream has no messages: each of its bytes is one, of any value, and the
/// handles come with the first of those they were sent with.
fn byte_by_byte(here: &OwnedFd, there: OwnedFd) {
    let buffer = buffer();
    send_raw(&there, b"two", &[buffer.fd().unwrap(); 2]);
    for expected in [2, 0, 0] {
        assert_eq!(plain::recv(here, WAIT).unwrap().len(), expected);
    }
    still_works(here, &there);
}
