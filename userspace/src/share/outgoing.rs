//! The sending half of a connection.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::codec::{self, CodecError, Contents, MAX_HANDLES};
use super::{Breakage, Draft, Socket, SocketError, handles};

/// What is remembered from one sending call to the next.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The number of the next message.
    pub(super) next: u64,
    /// Why nothing can be sent any more.
    pub(super) broken: Option<Breakage>,
}

/// A message that is being sent. Dropped in its middle, it breaks the sending
/// half: the peer could not tell where the next one begins.
pub(super) struct Sending<'m> {
    socket: &'m Socket,
    bytes: Vec<u8>,
    handles: Vec<BorrowedFd<'m>>,
    sent: usize,
}

impl<'m> Sending<'m> {
    /// Writes the message, and sends nothing yet. One at a time.
    pub(super) fn new(socket: &'m Socket, draft: &Draft<'m>) -> Result<Sending<'m>, SocketError> {
        let sequence = {
            let outgoing = socket.outgoing();
            match &outgoing.broken {
                Some(broken) => return Err(SocketError::Broken(broken.clone())),
                None => outgoing.next,
            }
        };
        if draft.buffers.len() > MAX_HANDLES {
            let count = draft.buffers.len();
            return Err(SocketError::Unsendable(CodecError::Handles(count)));
        }
        let mut handles = Vec::with_capacity(draft.buffers.len());
        let mut sizes = Vec::with_capacity(draft.buffers.len());
        for (handle, buffer) in draft.buffers.iter().enumerate() {
            let fd = buffer.fd();
            handles.push(fd.map_err(|source| SocketError::Buffer { handle, source })?);
            sizes.push(buffer.size());
        }
        // The counts first: a frame without its handle is the codec's to tell.
        let bytes = codec::encode(&Contents {
            sequence,
            sizes: sizes.as_slice().into(),
            frames: draft.frames.into(),
            payload: draft.payload,
        })
        .map_err(SocketError::Unsendable)?;
        for (frame, described) in draft.frames.iter().enumerate() {
            let checked = described.check(&sizes);
            checked.map_err(|source| SocketError::Frame { frame, source })?;
        }
        Ok(Sending {
            socket,
            bytes,
            handles,
            sent: 0,
        })
    }

    /// Sends as much as the socket takes: all of it, or `EAGAIN`.
    pub(super) fn step(&mut self) -> Result<(), Errno> {
        while self.sent < self.bytes.len() {
            let handles = if self.sent == 0 { &*self.handles } else { &[] };
            let rest = &self.bytes[self.sent..];
            self.sent += handles::send(self.socket.as_fd(), rest, handles)?;
        }
        self.socket.outgoing().next += 1;
        Ok(())
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let (sent, length) = (self.sent, self.bytes.len());
        if sent > 0 && sent < length {
            let mut outgoing = self.socket.outgoing();
            let broken = Breakage::Sending { sent, length };
            outgoing.broken.get_or_insert(broken);
            // The peer finds an end in the middle of a message, and need not
            // wait for the rest of it. Where this fails it is gone already.
            let _ = shutdown(self.socket, Shutdown::Write);
        }
    }
}
