//! Paths at which a listener can and cannot listen.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use dmashare::Errno;
use dmashare::share::{Address, Listener, Socket, SocketError, Transport};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};

/// Leaves a socket at a path, as a process does that was killed.
fn leave_socket(path: &Path) {
    let fd: OwnedFd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&fd, &SocketAddrUnix::new(path).unwrap()).unwrap();
}

#[test]
fn a_dead_socket_is_replaced_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    leave_socket(&path);
    let error = Socket::connect(&path).unwrap_err();
    assert!(
        matches!(
            error,
            SocketError::Os {
                source: Errno::CONNREFUSED,
                ..
            }
        ),
        "{error}"
    );

    let listener = Listener::bind(&path).unwrap();
    let connected = Socket::connect(&path).unwrap();
    let accepted = listener.accept().unwrap();
    drop(connected);
    assert_eq!(accepted.recv().unwrap_err(), SocketError::Closed);
    drop(listener);
    assert_eq!(
        path.symlink_metadata().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_live_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    let listener = Listener::bind(&path).unwrap();
    // Also where its queue is full, so that nobody can connect.
    let queue: Vec<Socket> = (0..4).map(|_| Socket::connect(&path).unwrap()).collect();
    for _ in 0..40 {
        assert_eq!(
            Listener::bind(&path).unwrap_err(),
            SocketError::InUse((&path).into())
        );
    }
    for _ in &queue {
        listener.accept().unwrap();
    }
    assert!(path.exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(
        Listener::bind(&path).unwrap_err(),
        SocketError::NotASocket(path.clone())
    );
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(
        Listener::bind(&link).unwrap_err(),
        SocketError::NotASocket(link)
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

/// A listener whose path went to another one leaves that alone.
#[test]
fn only_its_own_path_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    let first = Listener::bind(&path).unwrap();
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    let second = Listener::bind(&path).unwrap();
    drop(first);
    assert!(path.symlink_metadata().unwrap().file_type().is_socket());
    drop(second);
    assert!(!path.exists());
}

/// Many who find a dead socket at once: one of them gets its path.
#[test]
fn one_of_many_wins_a_dead_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    for _ in 0..200 {
        leave_socket(&path);
        let together = Barrier::new(4);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let bind = || {
                together.wait();
                Listener::bind(&path)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for error in lost.into_iter().map(Result::unwrap_err) {
            assert_eq!(error, SocketError::InUse((&path).into()));
        }
        Socket::connect(&path).unwrap();
    }
}

/// Whoever may read the folder may lock it, and keep it locked.
#[test]
fn locked_folder_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    let stranger = std::fs::File::open(folder.path()).unwrap();
    stranger.lock().unwrap();
    drop(Listener::bind(&path).unwrap());
    leave_socket(&path);
    drop(Listener::bind(&path).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Those of this user wait for each other, and not for ever.
#[test]
fn bind_waits_for_lock_of_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    let lock = || {
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.create(true).truncate(true).write(true);
        let file = file.open(folder.path().join(".frames.lock")).unwrap();
        file.lock().unwrap();
        file
    };
    leave_socket(&path);
    let other = lock();
    let error = Listener::bind(&path).unwrap_err();
    assert!(is_os(&error, Errno::WOULDBLOCK), "{error}");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(other);
        });
        Listener::bind(&path).unwrap();
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A name in the folder is bound by the folder's fd, which takes some bytes.
#[test]
fn longest_name_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let name = |len: usize| folder.path().join("x".repeat(len));
    let room = 107 - name(0).as_os_str().len();
    let listener = Listener::bind(name(room.min(80))).unwrap();
    Socket::connect(listener.address()).unwrap();
    let error = Listener::bind(Path::new(&"x".repeat(81))).unwrap_err();
    assert!(is_os(&error, Errno::NAMETOOLONG), "{error}");
}

#[test]
fn paths_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no folder/frames");
    let error = Listener::bind(&missing).unwrap_err();
    assert!(
        matches!(
            error,
            SocketError::Os {
                source: Errno::NOENT,
                ..
            }
        ),
        "{error}"
    );
    let long = folder.path().join("x".repeat(108));
    for error in [
        Listener::bind(&long).unwrap_err(),
        Socket::connect(&long).unwrap_err(),
    ] {
        assert!(
            error
                .to_string()
                .ends_with("a socket's address has at most 107 bytes"),
            "{error}"
        );
    }
    assert!(Socket::connect(&missing).is_err());
}

#[test]
fn waiting_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut listener = Listener::bind(folder.path().join("frames")).unwrap();
    let after = Duration::from_millis(30);
    listener.set_timeout(Some(after));
    let operation = "accept";
    let expected = SocketError::Timeout { operation, after };
    assert_eq!(listener.accept().unwrap_err(), expected);
}

fn is_os(error: &SocketError, expected: Errno) -> bool {
    matches!(error, SocketError::Os { source, .. } if *source == expected)
}

/// One listens under an abstract name at a time, and it is free as soon as that
/// ends. Any bytes make one.
#[test]
fn abstract_names() {
    let name = format!("dmashare test {}\0\u{7f}", std::process::id());
    let longest = format!("{name:x<107}");
    for name in [name, longest].map(Address::abstract_name) {
        for transport in [Transport::Packet, Transport::Stream, Transport::Packet] {
            let listener = Listener::bind_with(&name, transport).unwrap();
            let refused = Listener::bind_with(&name, transport).unwrap_err();
            assert_eq!(refused, SocketError::InUse(name.clone()));
            // A connection does not hold the name, the listener alone does.
            let here = Socket::connect_with(&name, transport).unwrap();
            let there = listener.accept().unwrap();
            drop(listener);
            assert_eq!(here.peer().unwrap(), there.peer().unwrap());
            let error = Socket::connect_with(&name, transport).unwrap_err();
            assert!(is_os(&error, Errno::CONNREFUSED), "{error}");
        }
    }
}

#[test]
fn abstract_names_that_cannot_be() {
    let empty = Address::abstract_name("");
    let long = Address::abstract_name([b'x'; 108]);
    for (address, errno, advice) in [
        (empty, Errno::INVAL, "an address needs a name"),
        (
            long,
            Errno::NAMETOOLONG,
            "a socket's address has at most 107 bytes",
        ),
    ] {
        for error in [
            Listener::bind(&address).unwrap_err(),
            Socket::connect(&address).unwrap_err(),
        ] {
            assert!(is_os(&error, errno), "{error}");
            assert!(error.to_string().ends_with(advice), "{error}");
        }
    }
}

/// Whoever looks whether a path is in use is no peer of who listens there.
#[test]
fn a_refused_bind_troubles_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for transport in [Transport::Packet, Transport::Stream] {
        let mut listener = Listener::bind_with(&path, transport).unwrap();
        listener.set_timeout(Some(Duration::from_millis(50)));
        for _ in 0..3 {
            assert!(matches!(Listener::bind(&path), Err(SocketError::InUse(_))));
        }
        let accepted = listener.accept();
        assert!(
            matches!(accepted, Err(SocketError::Timeout { .. })),
            "{accepted:?}"
        );
    }
}
