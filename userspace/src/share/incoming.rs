//! The receiving half of a connection: what came of the message that is on its
//! way, and what is made of it.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::codec::{self, CodecError, HEADER, MAX_LENGTH};
use super::handles::{Received, receive};
use super::{Message, SocketError};
use crate::buffer::Buffer;

/// What is remembered from one receiving call to the next.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The number of the message that is due.
    due: u64,
    /// The bytes of a message; of a stream, `filled` of them came so far.
    bytes: Vec<u8>,
    filled: usize,
    parcel: Parcel,
}

/// The handles of one message, and what befell them.
#[derive(Debug, Default)]
struct Parcel {
    handles: Vec<OwnedFd>,
    lost: bool,
    /// Whether some came that should not have: with another byte than the first.
    misplaced: bool,
}

/// Why no message came.
pub(super) enum Fault {
    /// There is nothing to read, or the system call failed.
    Os(Errno),
    /// The stream has no next message.
    Broken(CodecError),
    /// Only this message is refused, or the peer is gone.
    Refused(SocketError),
}

impl From<SocketError> for Fault {
    fn from(error: SocketError) -> Fault {
        Fault::Refused(error)
    }
}

impl Incoming {
    /// Reads a message from a `SOCK_SEQPACKET` socket, or finds none there.
    pub(super) fn packet(&mut self, socket: BorrowedFd<'_>) -> Result<Message, Fault> {
        // The kernel gives memory to what is written alone.
        self.bytes.resize(MAX_LENGTH, 0);
        let Received { len, handles, lost } =
            receive(socket, &mut self.bytes).map_err(Fault::Os)?;
        if len == 0 && handles.is_empty() && hung_up(socket).map_err(Fault::Os)? {
            return Err(SocketError::Closed.into());
        }
        let parcel = Parcel {
            handles,
            lost,
            misplaced: false,
        };
        let bytes = self.bytes.get(..len);
        let bytes = bytes.ok_or(SocketError::Codec(CodecError::Long(len)))?;
        Ok(judge(bytes, parcel, &mut self.due)?)
    }

    /// Reads on in a `SOCK_STREAM` socket, up to the end of a message or of
    /// what is there.
    pub(super) fn stream(&mut self, socket: BorrowedFd<'_>) -> Result<Message, Fault> {
        loop {
            let end = self.wanted().map_err(Fault::Broken)?;
            if self.filled == end {
                self.filled = 0;
                let parcel = std::mem::take(&mut self.parcel);
                return Ok(judge(&self.bytes[..end], parcel, &mut self.due)?);
            }
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            let into = &mut self.bytes[self.filled..end];
            let Received { len, handles, lost } = receive(socket, into).map_err(Fault::Os)?;
            if len == 0 {
                self.parcel = Parcel::default();
                return Err(match std::mem::take(&mut self.filled) {
                    0 => SocketError::Closed.into(),
                    came => SocketError::Truncated(came).into(),
                });
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

    /// Up to which byte of the message to read next.
    ///
    /// One call reads beyond bytes without handles up to bytes with some, and
    /// does not say where they began. So the first byte is read alone.
    fn wanted(&self) -> Result<usize, CodecError> {
        match self.filled {
            0 => Ok(1),
            1..HEADER => Ok(HEADER),
            _ => match self.bytes.first_chunk() {
                Some(header) => codec::message_length(header),
                None => Ok(HEADER),
            },
        }
    }

    /// Closes what came of a message that will never be whole.
    pub(super) fn give_up(&mut self) {
        self.parcel = Parcel::default();
    }
}

/// Makes a message of bytes and handles, or closes them. A message that can be
/// read is counted, whatever else is wrong with it, as its sender counted it.
fn judge(bytes: &[u8], parcel: Parcel, due: &mut u64) -> Result<Message, SocketError> {
    let contents = codec::decode(bytes)?;
    let (expected, found) = (*due, contents.sequence);
    if found >= expected {
        // The codec lets no message have the last number.
        *due = found + 1;
    }
    if found != expected {
        return Err(SocketError::Sequence { expected, found });
    }
    if parcel.misplaced {
        return Err(SocketError::Misplaced);
    }
    if parcel.lost {
        return Err(SocketError::Control);
    }
    let (announced, delivered) = (contents.sizes.len(), parcel.handles.len());
    if announced != delivered {
        return Err(SocketError::Handles {
            announced,
            delivered,
        });
    }
    let mut buffers = Vec::with_capacity(delivered);
    for (handle, fd) in parcel.handles.into_iter().enumerate() {
        let buffer = Buffer::examined(fd);
        let buffer = buffer.map_err(|source| SocketError::Buffer { handle, source })?;
        let (claimed, size) = (contents.sizes[handle], buffer.size());
        if size < claimed {
            return Err(SocketError::Size {
                handle,
                claimed,
                size,
            });
        }
        buffers.push(buffer);
    }
    let sizes: Vec<u64> = buffers.iter().map(Buffer::size).collect();
    for (frame, described) in contents.frames.iter().enumerate() {
        let checked = described.check(&sizes);
        checked.map_err(|source| SocketError::Frame { frame, source })?;
    }
    Ok(Message {
        frames: contents.frames.into_owned(),
        buffers,
        payload: contents.payload.to_owned(),
    })
}

/// Whether nothing came because nobody is there: an empty datagram looks the
/// same.
pub(super) fn hung_up(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let now = Timespec::default();
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    retry_on_intr(|| poll(&mut fds, Some(&now)))?;
    let gone = PollFlags::RDHUP | PollFlags::HUP;
    Ok(fds[0].revents().intersects(gone))
}
