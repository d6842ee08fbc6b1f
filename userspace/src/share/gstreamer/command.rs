//! Commands over a stream: reassembles those that come, and writes others.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;

use super::GstreamerError;
use crate::buffer::Buffer;
use crate::share::SocketError;
use crate::share::arrival::{Arrival, Parcel, Stop};

/// The most bytes that may follow the header of a command. Caps have some
/// hundred, a buffer with metas some thousand.
pub const MAX_PAYLOAD: u32 = 1 << 18;

/// How many commands are read before others, or who waits, have their turn.
pub(super) const TURN: usize = 64;

/// The most handles that are held for a command that is not whole: GStreamer's
/// buffers have at most so many memories (`GST_BUFFER_MEM_MAX`).
const MOST_HELD: usize = 16;

/// Type and length.
const HEADER: usize = 8;

/// A command that came, with its handles.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) kind: u32,
    pub(super) payload: Vec<u8>,
    parcel: Parcel,
}

impl Command {
    /// Its handles, as buffers, of which it announced so many.
    pub(super) fn buffers(self, announced: usize) -> Result<Vec<Buffer>, SocketError> {
        self.parcel.buffers(announced)
    }
}

/// What is remembered from one receiving call to the next.
#[derive(Debug)]
pub(super) struct Inbox(Arrival);

/// Why no command came.
pub(super) enum Fault {
    /// There is nothing to read, or the system call failed.
    Os(Errno),
    /// The connection has ended.
    Ended(GstreamerError),
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Fault {
        match stop {
            Stop::Os(errno) => Fault::Os(errno),
            Stop::Gone(error) => Fault::Ended(GstreamerError::Socket(error)),
            Stop::Broken(breakage) => Fault::Ended(SocketError::Broken(breakage).into()),
        }
    }
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox(Arrival::holding(MOST_HELD))
    }
}

impl Inbox {
    /// How long a command may take from its first byte to its last.
    pub(super) fn set_limit(&mut self, limit: Option<Duration>) {
        self.0.limit = limit;
    }

    /// When to look at the time of a command that has begun.
    pub(super) fn look_again(&self) -> Option<Duration> {
        self.0.look_again()
    }

    /// Reads on, up to the end of a command or of what is there.
    pub(super) fn step(&mut self, socket: BorrowedFd<'_>) -> Result<Command, Fault> {
        loop {
            let end = self.wanted()?;
            if let Some(parcel) = self.0.whole(end) {
                let bytes = std::mem::take(&mut self.0.bytes);
                return Ok(Command {
                    kind: word(&bytes, 0),
                    payload: bytes[HEADER..end].to_vec(),
                    parcel,
                });
            }
            self.0.read(socket, end)?;
        }
    }

    /// Up to which byte to read next.
    fn wanted(&self) -> Result<usize, Fault> {
        if let Some(end) = self.0.before(HEADER) {
            return Ok(end);
        }
        let length = word(&self.0.bytes, 4);
        match usize::try_from(length) {
            Ok(fits) if length <= MAX_PAYLOAD => Ok(HEADER + fits),
            _ => Err(Fault::Ended(GstreamerError::Length(length))),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_ne_bytes(word)
}

/// A command as it is sent.
pub(super) fn command(kind: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("all that is sent here is short");
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(payload);
    bytes
}
