//! What several tests look at.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

/// The open handles of this process by number and target, but the one that
/// reads them.
pub(crate) fn handles() -> Vec<(String, PathBuf)> {
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

/// The open handles once they are these, or after a second: what a hostile peer
/// sent can be closed on another thread.
#[allow(dead_code, reason = "not every test receives what is hostile")]
pub(crate) fn settled(expected: &[(String, PathBuf)]) -> Vec<(String, PathBuf)> {
    for _ in 0..500 {
        let now = handles();
        if now == expected {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    handles()
}

/// A TCP socket with unsent bytes, whose close(2) waits for so long, and the
/// other end, which reads none of them.
#[allow(dead_code, reason = "not every test receives what is hostile")]
pub(crate) fn lingering_socket(linger: std::time::Duration) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (unread, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 1 << 16]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&socket, Some(linger)).unwrap();
    (socket, unread)
}
