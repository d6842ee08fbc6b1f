//! What has come of the next message of a stream: its bytes so far, and its
//! handles.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::SocketError;
use super::handles::{Received, receive};
use crate::buffer::Buffer;

/// Remembered from one receiving call to the next.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// Those of the message are the first `filled` ones.
    pub(super) bytes: Vec<u8>,
    filled: usize,
    parcel: Parcel,
}

/// The handles of one message, and what befell them.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) handles: Vec<OwnedFd>,
    pub(super) lost: bool,
    /// Whether some came that should not have: with another byte than the first.
    pub(super) misplaced: bool,
}

/// Why no more came.
pub(super) enum Stop {
    /// There is nothing to read, or the system call failed.
    Os(Errno),
    /// The peer is gone.
    Gone(SocketError),
}

impl Arrival {
    /// Up to which byte of the message to read next, where its header of so many
    /// bytes is not whole.
    ///
    /// One call reads beyond bytes without handles up to bytes with some, and
    /// does not say where they began. So the first byte is read alone.
    pub(super) fn before(&self, header: usize) -> Option<usize> {
        match self.filled {
            0 => Some(1),
            filled => (filled < header).then_some(header),
        }
    }

    /// The handles, if all bytes up to `end` have come. The next message begins.
    pub(super) fn whole(&mut self, end: usize) -> Option<Parcel> {
        (self.filled == end).then(|| {
            self.filled = 0;
            std::mem::take(&mut self.parcel)
        })
    }

    /// Reads once, not beyond `end`.
    pub(super) fn read(&mut self, socket: BorrowedFd<'_>, end: usize) -> Result<(), Stop> {
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let into = &mut self.bytes[self.filled..end];
        let Received { len, handles, lost } = receive(socket, into).map_err(Stop::Os)?;
        if len == 0 {
            self.give_up();
            return Err(Stop::Gone(match std::mem::take(&mut self.filled) {
                0 => SocketError::Closed,
                came => SocketError::Truncated(came),
            }));
        }
        self.parcel.lost |= lost;
        if self.filled == 0 {
            self.parcel.handles = handles;
        } else {
            self.parcel.misplaced |= !handles.is_empty();
        }
        self.filled += len;
        Ok(())
    }

    /// Closes what came of a message that will never be whole.
    pub(super) fn give_up(&mut self) {
        self.parcel = Parcel::default();
    }
}

impl Parcel {
    /// The handles as buffers, one by one, if they are as many as were announced
    /// and came as they should.
    pub(super) fn buffers(
        self,
        announced: usize,
    ) -> Result<impl Iterator<Item = Result<Buffer, SocketError>>, SocketError> {
        if self.misplaced {
            return Err(SocketError::Misplaced);
        }
        if self.lost {
            return Err(SocketError::Control);
        }
        let delivered = self.handles.len();
        if announced != delivered {
            return Err(SocketError::Handles {
                announced,
                delivered,
            });
        }
        Ok(self.handles.into_iter().enumerate().map(|(handle, fd)| {
            let buffer = Buffer::examined(fd);
            buffer.map_err(|source| SocketError::Buffer { handle, source })
        }))
    }
}
