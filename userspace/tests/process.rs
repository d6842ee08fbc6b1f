//! Handles taken from another process: what is found there, what is not, and
//! what one may not take.
//!
//! This program runs itself as that process. The tests run one after the other
//! in one thread, since each counts the handles of the process.

#[path = "common/child.rs"]
mod child;
mod common;

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::Child;
use std::time::Duration;

use common::handles;
use dmashare::Errno;
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, BufferError};
use dmashare::share::{Address, Draft, Listener, Process, ProcessError, Socket, SocketError};
use libtest_mimic::{Arguments, Completion, Trial};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_getfd};

fn main() {
    match child::role() {
        None => {}
        Some((role, name)) if role == "hold" => return hold(&name),
        Some((_, pid)) => return take_from_another_user(pid.parse().unwrap()),
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests: &[(&str, Test)] = &[
        ("a_buffer_of_a_child", a_buffer_of_a_child),
        ("what_is_no_buffer", what_is_no_buffer),
        ("a_number_without_a_handle", a_number_without_a_handle),
        ("a_process_that_has_ended", a_process_that_has_ended),
        ("a_process_of_another_user", a_process_of_another_user),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || {
            let before = handles();
            let ended = test();
            assert_eq!(handles(), before, "handles left open");
            Ok(ended)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

type Test = fn() -> Completion;

/// A process that holds a buffer and a pipe, and our end of a connection to it.
struct Held {
    child: Child,
    socket: Socket,
    /// The numbers that the buffer and the pipe have there.
    numbers: [i32; 2],
}

impl Held {
    fn new() -> Held {
        let name = format!("dmashare test process {}", std::process::id());
        let mut listener = Listener::bind(Address::abstract_name(&name)).unwrap();
        listener.set_timeout(Some(Duration::from_secs(20)));
        let child = child::run("hold", &name);
        let mut socket = listener.accept().unwrap();
        socket.set_timeout(Some(Duration::from_secs(20)));
        let said = socket.recv_message().unwrap().payload;
        let number = |at: usize| i32::from_le_bytes(*said[at..].first_chunk().unwrap());
        Held {
            child,
            socket,
            numbers: [number(0), number(4)],
        }
    }

    /// Ends the process. The kernel has its entry until we have waited.
    fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The process that is taken from.
fn hold(name: &str) {
    let buffer = Memfd::new().allocate(&Request::new(4096)).unwrap();
    let mut mapping = buffer.map(Access::Write).unwrap();
    let mut guard = mapping.access(Access::Write).unwrap();
    guard.write_at(0, b"of the child").unwrap();
    guard.finish().unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let numbers = [buffer.fd().unwrap().as_raw_fd(), pipe.as_raw_fd()];
    let said = numbers.map(i32::to_le_bytes).concat();
    let socket = Socket::connect(Address::abstract_name(name)).unwrap();
    socket.send_message(&Draft::new().payload(&said)).unwrap();
    // Until it is killed, or the test is.
    assert_eq!(socket.recv_message().unwrap_err(), SocketError::Closed);
}

/// Whether an error is this one of the kernel.
fn is_os(error: &ProcessError, expected: Errno) -> bool {
    matches!(error, ProcessError::Os { source, .. } if *source == expected)
}

fn a_buffer_of_a_child() -> Completion {
    let held = Held::new();
    let peer = held.socket.peer().unwrap();
    assert_eq!(peer.pid, Some(held.child.id()));
    for process in [
        held.socket.peer_process().unwrap(),
        Process::of(&peer).unwrap(),
        Process::open(held.child.id()).unwrap(),
    ] {
        assert_eq!(process.pid(), held.child.id());
        let taken = process.take(held.numbers[0]).unwrap();
        assert!(
            fcntl_getfd(taken.fd().unwrap())
                .unwrap()
                .contains(FdFlags::CLOEXEC)
        );
        let mut said = [0; 12];
        let mut mapping = taken.map(Access::Read).unwrap();
        mapping
            .access(Access::Read)
            .unwrap()
            .read_at(0, &mut said)
            .unwrap();
        assert_eq!(&said, b"of the child");
    }
    held.end();
    Completion::Completed
}

fn what_is_no_buffer() -> Completion {
    let held = Held::new();
    let pipe = held.numbers[1];
    let process = Process::open(held.child.id()).unwrap();
    match process.take(pipe).unwrap_err() {
        ProcessError::Buffer {
            pid,
            number,
            source: BufferError::NotABuffer { what, .. },
        } => assert_eq!((pid, number, what), (held.child.id(), pipe, "a pipe")),
        other => panic!("{other}"),
    }
    held.end();
    Completion::Completed
}

fn a_number_without_a_handle() -> Completion {
    let held = Held::new();
    let process = Process::open(held.child.id()).unwrap();
    for number in [-1, i32::MIN, 1000, i32::MAX] {
        let error = process.take(number).unwrap_err();
        assert!(is_os(&error, Errno::BADF), "{number}: {error}");
        assert!(
            error
                .to_string()
                .ends_with("; it has no handle of this number")
        );
    }
    held.end();
    Completion::Completed
}

/// Its pidfd says so, and is not that of another one with its pid.
fn a_process_that_has_ended() -> Completion {
    let held = Held::new();
    let (pid, [number, _]) = (held.child.id(), held.numbers);
    let process = Process::open(pid).unwrap();
    let ended = || {
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut fds, Some(&Default::default())).unwrap() == 1
    };
    assert!(!ended());
    held.end();
    assert!(ended());
    let error = process.take(number).unwrap_err();
    assert!(is_os(&error, Errno::SRCH), "{error}");
    assert!(error.to_string().ends_with("; it has ended"), "{error}");
    assert_eq!(process.pid(), pid);
    // Pids are given out in turn, so that no other one has it yet.
    let error = Process::open(pid).unwrap_err();
    assert!(is_os(&error, Errno::SRCH), "{error}");
    Completion::Completed
}

/// Root may trace everyone, so that the one who tries is none.
fn a_process_of_another_user() -> Completion {
    if rustix::process::geteuid().is_root() {
        let held = Held::new();
        let verdict = child::verdict(child::run("take", &held.child.id().to_string()));
        held.end();
        return verdict;
    }
    match std::fs::metadata("/proc/1").map(|init| init.uid()) {
        Ok(uid) if uid != rustix::process::geteuid().as_raw() => {
            child::verdict(child::run("take", "1"))
        }
        Ok(_) => Completion::ignored_with("process 1 is of this user, too: run the test as root"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Completion::ignored_with("/proc shows no process of another user: run the test as root")
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the one who tries finds.
fn take_from_another_user(pid: u32) {
    if rustix::process::geteuid().is_root() {
        child::become_nobody();
    }
    let error = Process::open(pid).unwrap().take(0).unwrap_err();
    assert!(is_os(&error, Errno::PERM), "{error}");
    assert!(error.to_string().contains("the right to trace"), "{error}");
}
