//! Who may connect, asked of real processes: of this user, and of another one.
//!
//! This program runs itself as those who connect.

#[path = "common/child.rs"]
mod child;

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::Duration;

use child::NOBODY;
use dmashare::Errno;
use dmashare::share::{Draft, Listener, Peer, Policy, Socket, SocketError, Transport};
use libtest_mimic::{Arguments, Completion, Trial};

/// Long enough for any machine; a test that waits for ever is worse than one
/// that fails.
const WAIT: Option<Duration> = Some(Duration::from_secs(20));

fn main() {
    if let Some((role, argument)) = child::role() {
        return play(&role, &argument);
    }
    let tests: &[(&str, Test)] = &[
        ("by_process", by_process),
        ("by_user", by_user),
        ("by_group", by_group),
        ("by_the_mode_of_a_path", by_the_mode_of_a_path),
    ];
    let trials = tests.iter().flat_map(|&(name, test)| {
        [Transport::Packet, Transport::Stream].map(|transport| {
            let name = format!("{transport:?}::{name}").to_lowercase();
            Trial::ignorable_test(name, move || Ok(test(transport)))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

type Test = fn(Transport) -> Completion;

/// Who connects: this user, or nobody.
#[derive(Clone, Copy, Debug)]
enum Who {
    Same,
    Nobody,
}

/// The one who connects. It asserts by itself what it finds.
fn play(role: &str, argument: &str) {
    if role == "become" {
        return child::become_nobody();
    }
    let [who, transport, address] = argument.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{argument}: who, transport and address are due");
    };
    if who == "Nobody" {
        child::become_nobody();
    }
    let transport = match transport {
        "Stream" => Transport::Stream,
        _ => Transport::Packet,
    };
    let mut connected = Socket::connect_with(address, transport);
    if let Ok(socket) = &mut connected {
        socket.set_timeout(WAIT);
    }
    match role {
        "allowed" => {
            let socket = connected.unwrap();
            assert_eq!(socket.recv_message().unwrap().payload, b"welcome");
            // It sees who listens as it is seen itself.
            let same = socket.check_peer(&Policy::same_user()).is_ok();
            assert_eq!(same, who == "Same");
        }
        "refused" => {
            let received = connected.unwrap().recv_message();
            assert_eq!(received.unwrap_err(), SocketError::Closed);
        }
        "kept-out" => {
            let error = connected.unwrap_err();
            assert!(is_os(&error, Errno::ACCESS), "{error}");
            assert!(error.to_string().ends_with("; you may not use this path"));
        }
        other => panic!("{other} is no role"),
    }
}

fn is_os(error: &SocketError, expected: Errno) -> bool {
    matches!(error, SocketError::Os { source, .. } if *source == expected)
}

fn listen(test: &str, transport: Transport) -> Listener {
    let name = format!("@dmashare {test} {transport:?} {}", std::process::id());
    let mut listener = Listener::bind_with(name, transport).unwrap();
    listener.set_timeout(WAIT);
    listener
}

fn run(role: &str, who: Who, listener: &Listener) -> Child {
    let (transport, address) = (listener.transport(), listener.address());
    child::run(role, &format!("{who:?} {transport:?} {address}"))
}

fn welcome(socket: &Socket) {
    let welcome = Draft::new().payload(b"welcome");
    socket.send_message(&welcome).unwrap();
}

fn ends_well(child: Child) {
    match child::verdict(child) {
        Completion::Completed => {}
        Completion::Ignored { reason } => panic!("{reason:?}"),
    }
}

fn is_allowed(who: Who, listener: &Listener) -> Peer {
    let child = run("allowed", who, listener);
    let socket = listener.accept().unwrap();
    let peer = socket.peer().unwrap();
    assert_eq!(peer.pid, Some(child.id()));
    welcome(&socket);
    ends_well(child);
    peer
}

fn is_refused(who: Who, listener: &Listener) -> SocketError {
    let child = run("refused", who, listener);
    let error = listener.accept().unwrap_err();
    match &error {
        SocketError::Refused { peer, .. } => assert_eq!(peer.pid, Some(child.id())),
        other => panic!("{other}"),
    }
    ends_well(child);
    error
}

/// Whether there can be a process of another user here at all.
fn nobody() -> Completion {
    child::verdict(child::run("become", "nobody"))
}

fn by_process(transport: Transport) -> Completion {
    let mut listener = listen("by_process", transport);
    let child = run("allowed", Who::Same, &listener);
    listener.set_policy(Policy::pid(child.id()));
    let socket = listener.accept().unwrap();
    welcome(&socket);
    ends_well(child);

    listener.set_policy(Policy::pid(std::process::id()));
    is_refused(Who::Same, &listener);
    listener.set_policy(Policy::anyone());
    is_allowed(Who::Same, &listener);
    Completion::Completed
}

fn by_user(transport: Transport) -> Completion {
    let mut listener = listen("by_user", transport);
    listener.set_policy(Policy::same_user());
    is_allowed(Who::Same, &listener);
    if let ignored @ Completion::Ignored { .. } = nobody() {
        return ignored;
    }
    let error = is_refused(Who::Nobody, &listener).to_string();
    assert!(
        error.contains("(user 65534, group 65534) is refused, expected user "),
        "{error}"
    );
    // One who is refused is no reason to refuse the next.
    is_allowed(Who::Same, &listener);

    listener.set_policy(Policy::uid(NOBODY));
    assert_eq!(is_allowed(Who::Nobody, &listener).uid, NOBODY);
    is_refused(Who::Same, &listener);
    listener.set_policy(Policy::uid(NOBODY).or(Policy::same_user()));
    is_allowed(Who::Nobody, &listener);
    is_allowed(Who::Same, &listener);
    Completion::Completed
}

fn by_group(transport: Transport) -> Completion {
    if let ignored @ Completion::Ignored { .. } = nobody() {
        return ignored;
    }
    let mut listener = listen("by_group", transport);
    listener.set_policy(Policy::gid(NOBODY));
    assert_eq!(is_allowed(Who::Nobody, &listener).gid, NOBODY);
    is_refused(Who::Same, &listener);
    Completion::Completed
}

/// The kernel keeps others out of a path before any policy is asked.
fn by_the_mode_of_a_path(transport: Transport) -> Completion {
    if let ignored @ Completion::Ignored { .. } = nobody() {
        return ignored;
    }
    let folder = tempfile::tempdir().unwrap();
    set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("frames");
    let mut listener = Listener::bind_mode(&path, transport, 0o600).unwrap();
    listener.set_timeout(WAIT);
    is_allowed(Who::Same, &listener);
    ends_well(run("kept-out", Who::Nobody, &listener));
    set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    is_allowed(Who::Nobody, &listener);
    Completion::Completed
}
