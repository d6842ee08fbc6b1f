//! Commands over a stream: what came of the one that is on its way, and sending.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::GstreamerError;
use crate::buffer::Buffer;
use crate::share::SocketError;
use crate::share::handles::{self, Received};
use crate::share::wait::until_ready;

/// The most bytes that may follow the header of a command. Caps have some
/// hundred, a buffer with metas some thousand.
pub const MAX_PAYLOAD: u32 = 1 << 18;

/// How many commands are read before others, or who waits, have their turn.
pub(super) const TURN: usize = 64;

/// Type and length.
const HEADER: usize = 8;

/// A command that came, with its handles.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) kind: u32,
    pub(super) payload: Vec<u8>,
    parcel: Parcel,
}

/// The handles of one command, and what befell them.
#[derive(Debug, Default)]
struct Parcel {
    handles: Vec<OwnedFd>,
    lost: bool,
    /// Whether some came with another byte than the first.
    misplaced: bool,
}

impl Command {
    /// Its handles, as buffers, of which it announced so many.
    pub(super) fn buffers(self, announced: usize) -> Result<Vec<Buffer>, SocketError> {
        let Parcel {
            handles,
            lost,
            misplaced,
        } = self.parcel;
        if misplaced {
            return Err(SocketError::Misplaced);
        }
        if lost {
            return Err(SocketError::Control);
        }
        let delivered = handles.len();
        if announced != delivered {
            return Err(SocketError::Handles {
                announced,
                delivered,
            });
        }
        let examined = handles.into_iter().enumerate().map(|(handle, fd)| {
            let buffer = Buffer::examined(fd);
            buffer.map_err(|source| SocketError::Buffer { handle, source })
        });
        examined.collect()
    }
}

/// What is remembered from one receiving call to the next.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
    parcel: Parcel,
}

/// Why no command came.
pub(super) enum Fault {
    /// There is nothing to read, or the system call failed.
    Os(Errno),
    /// The connection has ended.
    Ended(GstreamerError),
}

impl Inbox {
    /// Reads on, up to the end of a command or of what is there.
    pub(super) fn step(&mut self, socket: BorrowedFd<'_>) -> Result<Command, Fault> {
        loop {
            let end = self.wanted()?;
            if self.filled == end {
                self.filled = 0;
                let bytes = std::mem::take(&mut self.bytes);
                return Ok(Command {
                    kind: word(&bytes, 0),
                    payload: bytes[HEADER..end].to_vec(),
                    parcel: std::mem::take(&mut self.parcel),
                });
            }
            self.bytes.resize(end, 0);
            let into = &mut self.bytes[self.filled..];
            let Received { len, handles, lost } =
                handles::receive(socket, into).map_err(Fault::Os)?;
            if len == 0 {
                self.parcel = Parcel::default();
                let came = std::mem::take(&mut self.filled);
                return Err(Fault::Ended(GstreamerError::Socket(match came {
                    0 => SocketError::Closed,
                    came => SocketError::Truncated(came),
                })));
            }
            self.parcel.lost |= lost;
            if self.filled == 0 {
                self.parcel.handles = handles;
            } else {
                self.parcel.misplaced |= !handles.is_empty();
            }
            self.filled += len;
        }
    }

    /// Up to which byte to read next: the first alone, since one call reads
    /// beyond bytes without handles up to bytes with some, and does not say
    /// where they began.
    fn wanted(&self) -> Result<usize, Fault> {
        match self.filled {
            0 => Ok(1),
            1..HEADER => Ok(HEADER),
            _ => {
                let length = word(&self.bytes, 4);
                match usize::try_from(length) {
                    Ok(fits) if length <= MAX_PAYLOAD => Ok(HEADER + fits),
                    _ => Err(Fault::Ended(GstreamerError::Length(length))),
                }
            }
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

/// Sends all of it, until so much time has passed since `begun`.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    handles: &[BorrowedFd<'_>],
    begun: Instant,
    patience: Duration,
) -> Result<(), SocketError> {
    let mut sent = 0;
    let left = patience.saturating_sub(begun.elapsed());
    until_ready("sendmsg", socket, PollFlags::OUT, Some(left), || {
        while sent < bytes.len() {
            let handles = if sent == 0 { handles } else { &[] };
            sent += handles::send(socket, &bytes[sent..], handles)?;
        }
        Ok(())
    })
    .map_err(crate::share::socket::peer_gone)
}
