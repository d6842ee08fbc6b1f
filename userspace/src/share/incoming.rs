//! The receiving half of a connection: what came of the message that is on its
//! way, and what is made of it.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::arrival::{Arrival, Parcel, Stop};
use super::codec::{self, CodecError, HEADER, MAX_LENGTH};
use super::handles::{Received, receive};
use super::{Message, SocketError};
use crate::buffer::Buffer;

/// What is remembered from one receiving call to the next.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The number of the message that is due.
    due: u64,
    arrival: Arrival,
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

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Fault {
        match stop {
            Stop::Os(errno) => Fault::Os(errno),
            Stop::Gone(error) => Fault::Refused(error),
        }
    }
}

impl Incoming {
    /// Reads a message from a `SOCK_SEQPACKET` socket, or finds none there.
    pub(super) fn packet(&mut self, socket: BorrowedFd<'_>) -> Result<Message, Fault> {
        // The kernel gives memory to what is written alone.
        let bytes = &mut self.arrival.bytes;
        bytes.resize(MAX_LENGTH, 0);
        let Received { len, handles, lost } = receive(socket, bytes).map_err(Fault::Os)?;
        if len == 0 && handles.is_empty() && hung_up(socket).map_err(Fault::Os)? {
            return Err(SocketError::Closed.into());
        }
        let parcel = Parcel {
            handles,
            lost,
            misplaced: false,
        };
        let bytes = bytes.get(..len);
        let bytes = bytes.ok_or(SocketError::Codec(CodecError::Long(len)))?;
        Ok(judge(bytes, parcel, &mut self.due)?)
    }

    /// Reads on in a `SOCK_STREAM` socket, up to the end of a message or of
    /// what is there.
    pub(super) fn stream(&mut self, socket: BorrowedFd<'_>) -> Result<Message, Fault> {
        loop {
            let end = self.wanted().map_err(Fault::Broken)?;
            if let Some(parcel) = self.arrival.whole(end) {
                return Ok(judge(&self.arrival.bytes[..end], parcel, &mut self.due)?);
            }
            self.arrival.read(socket, end)?;
        }
    }

    /// Up to which byte of the message to read next.
    fn wanted(&self) -> Result<usize, CodecError> {
        if let Some(end) = self.arrival.before(HEADER) {
            return Ok(end);
        }
        match self.arrival.bytes.first_chunk() {
            Some(header) => codec::message_length(header),
            None => Ok(HEADER),
        }
    }

    /// Closes what came of a message that will never be whole.
    pub(super) fn give_up(&mut self) {
        self.arrival.give_up();
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
    let mut buffers = Vec::with_capacity(contents.sizes.len());
    for (handle, buffer) in parcel.buffers(contents.sizes.len())?.enumerate() {
        let buffer = buffer?;
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
