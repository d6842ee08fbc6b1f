//! An fd sent and received over a socket pair, by one thread, and closed.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::Buffer;
use dmashare::frame::{Fourcc, Frame};
use dmashare::share::{Socket, plain};
use passfd::FdPassingExt;
use sendfd::{RecvWithFd, SendWithFd};

use crate::{Op, raw};

fn buffer() -> Buffer {
    Memfd::new().allocate(&Request::new(4096)).expect("a memfd")
}

pub(crate) fn ops(ops: &mut Vec<Op>) {
    one_byte(ops, "fd with a byte");
    described(ops, "fd with a description, examined");
}

/// What any program takes: a byte, and the fd.
fn one_byte(ops: &mut Vec<Op>, what: &'static str) {
    let (passed, [a, b]) = (buffer(), raw::pair(libc::SOCK_STREAM));
    ops.push(Op::new(what, "raw calls", move || {
        raw::send(a, &[0], passed.fd().expect("an fd").as_raw_fd());
        raw::close(raw::recv(b, &mut [0]));
    }));
    let (passed, (a, b)) = (buffer(), UnixStream::pair().expect("sockets"));
    ops.push(Op::new(what, "dmashare", move || {
        plain::send(a.as_fd(), &[passed.fd().expect("an fd")], None).expect("sent");
        drop(plain::recv(b.as_fd(), None).expect("received"));
    }));
    let (passed, (a, b)) = (buffer(), UnixStream::pair().expect("sockets"));
    ops.push(Op::new(what, "sendfd", move || {
        let fds = [passed.fd().expect("an fd").as_raw_fd()];
        a.send_with_fd(&[0], &fds).expect("sent");
        let (mut byte, mut came) = ([0], [0]);
        b.recv_with_fd(&mut byte, &mut came).expect("received");
        raw::close(came[0]);
    }));
    let (passed, (a, b)) = (buffer(), UnixStream::pair().expect("sockets"));
    ops.push(Op::new(what, "passfd", move || {
        a.send_fd(passed.fd().expect("an fd").as_raw_fd())
            .expect("sent");
        let came = b.recv_fd().expect("received");
        // SAFETY: it just came, and nobody else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(came) });
    }));
}

/// What a careful program does: a message that says what the fd holds, and a
/// look at what it is and how large before it is used.
fn described(ops: &mut Vec<Op>, what: &'static str) {
    let (passed, [a, b]) = (buffer(), raw::pair(libc::SOCK_SEQPACKET));
    ops.push(Op::new(what, "raw calls", move || {
        raw::send(a, &[0; 128], passed.fd().expect("an fd").as_raw_fd());
        let fd = raw::recv(b, &mut [0; 128]);
        assert!(raw::examine(fd) >= 4096);
        raw::close(fd);
    }));
    let (passed, (a, b)) = (buffer(), Socket::pair().expect("sockets"));
    let frame = Frame::packed(32, 32, Fourcc::XRGB8888).expect("a frame");
    ops.push(Op::new(what, "dmashare", move || {
        a.send(&frame, &[&passed]).expect("sent");
        drop(b.recv().expect("received"));
    }));
}
