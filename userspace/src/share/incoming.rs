//! The receiving half of a connection: reassembles and validates messages.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};

use super::arrival::{Arrival, Parcel, Stop};
use super::codec::{self, CodecError, HEADER, MAX_LENGTH};
use super::handles::{Received, peek, receive};
use super::wait::Again;
use super::{Breakage, Message, SocketError};
use crate::buffer::Buffer;

/// The most handles that are held for a message that is not whole: other
/// handles of a message stay in the socket until the whole message is there.
pub(super) const MOST_HELD: usize = 64;

/// How long to wait before looking again whether the rest of a message has come
/// that is left in the socket: poll(2) finds what is there.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What is remembered from one receiving call to the next.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The number of the message that is due.
    due: u64,
    arrival: Arrival,
    /// Whether the beginning of a message is left in the socket.
    left_there: bool,
}

/// Why no message came.
pub(super) enum Fault {
    /// There is nothing to read, or the system call failed.
    Os(Errno),
    /// The stream has no next message.
    Broken(Breakage),
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
            Stop::Broken(breakage) => Fault::Broken(breakage),
        }
    }
}

impl Default for Incoming {
    fn default() -> Incoming {
        Incoming {
            due: 0,
            arrival: Arrival::holding(MOST_HELD),
            left_there: false,
        }
    }
}

impl Incoming {
    /// Reads a message from a `SOCK_SEQPACKET` socket, or finds none there.
    pub(super) fn packet(&mut self, socket: BorrowedFd<'_>) -> Result<Message, Fault> {
        self.arrival.check_closing()?;
        // The kernel gives memory to what is written alone.
        let bytes = &mut self.arrival.bytes;
        bytes.resize(MAX_LENGTH, 0);
        let Received { len, handles, lost } = receive(socket, bytes).map_err(Fault::Os)?;
        if len == 0 && handles.is_empty() && ended(socket).map_err(Fault::Os)? {
            return Err(SocketError::Closed.into());
        }
        let parcel = self.arrival.parcel(handles, lost);
        let bytes = self.arrival.bytes.get(..len);
        let bytes = bytes.ok_or(SocketError::Codec(CodecError::Long(len)))?;
        Ok(judge(bytes, parcel, &mut self.due)?)
    }

    /// Reads on in a `SOCK_STREAM` socket, up to the end of a message or of
    /// what is there.
    pub(super) fn stream(&mut self, socket: BorrowedFd<'_>) -> Result<Message, Fault> {
        let mut announced = None;
        if self.arrival.is_empty() {
            announced = self.look(socket)?;
        }
        loop {
            let header = |fault| Fault::Broken(Breakage::Header(fault));
            let end = self.wanted().map_err(header)?;
            if let Some(parcel) = self.arrival.whole(end) {
                return Ok(judge(&self.arrival.bytes[..end], parcel, &mut self.due)?);
            }
            self.arrival.read(socket, end)?;
            if let Some(announced) = announced.take() {
                self.arrival.expect(announced);
            }
        }
    }

    /// Looks at the header of the next message without taking its handles: how
    /// many it announces, where it brings some. Where these are too many to be
    /// held, the message is left there until it is whole.
    fn look(&mut self, socket: BorrowedFd<'_>) -> Result<Option<usize>, Fault> {
        let mut header = [0; HEADER];
        self.left_there = false;
        let (there, with_handles) = peek(socket, &mut header).map_err(Fault::Os)?;
        if there < HEADER || !with_handles {
            return Ok(None);
        }
        let Ok(length) = codec::message_length(&header) else {
            return Ok(None);
        };
        let announced = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if announced > MOST_HELD
            && ioctl_fionread(socket).map_err(Fault::Os)? < length as u64
            && !hung_up(socket).map_err(Fault::Os)?
        {
            self.left_there = true;
            return Err(self.arrival.wait().into());
        }
        Ok(Some(announced))
    }

    /// When to look again for a message that has begun.
    pub(super) fn again(&self) -> Again {
        Again {
            within: self.arrival.look_again(),
            sleep: self.left_there.then_some(LOOK_AGAIN),
        }
    }

    /// How long a message may take.
    pub(super) fn set_limit(&mut self, limit: Option<Duration>) {
        self.arrival.limit = limit;
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
    let buffers = parcel.buffers(contents.sizes.len())?;
    for (handle, buffer) in buffers.iter().enumerate() {
        let (claimed, size) = (contents.sizes[handle], buffer.size());
        if size < claimed {
            return Err(SocketError::Size {
                handle,
                claimed,
                size,
            });
        }
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

/// Whether 0 bytes were the end of a `SOCK_SEQPACKET` connection: an empty
/// packet looks the same. Nothing comes behind the end, but empty packets alone
/// are as good as none.
pub(super) fn ended(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    // In this order: nothing is added once the peer has hung up.
    Ok(hung_up(socket)? && ioctl_fionread(socket)? == 0)
}

/// Whether the peer sends no more; what it sent can be there still.
fn hung_up(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let now = Timespec::default();
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    retry_on_intr(|| poll(&mut fds, Some(&now)))?;
    let gone = PollFlags::RDHUP | PollFlags::HUP;
    Ok(fds[0].revents().intersects(gone))
}
