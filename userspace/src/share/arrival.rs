//! The next message of a stream as far as it has come: its bytes so far, and its
//! handles.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::closing::Closing;
use super::codec::MAX_HANDLES;
use super::handles::{Received, receive};
use super::{Breakage, SocketError};
use crate::buffer::Buffer;

/// The time that a message has from its first byte to its last, by default.
pub(super) const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// Remembered from one receiving call to the next.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Those of the message are the first `filled` ones.
    pub(super) bytes: Vec<u8>,
    filled: usize,
    parcel: Parcel,
    /// When the first byte was seen of a message that is not whole.
    begun: Option<Instant>,
    /// How long a message may take; `None` is for ever.
    pub(super) limit: Option<Duration>,
    /// The most handles that are held for a message that is not whole.
    most_held: usize,
    closing: Closing,
}

/// The handles of one message as buffers, and their faults.
///
/// Handles are examined as they come: only memory is held.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    buffers: Vec<Buffer>,
    /// How many handles came, those included that are closed already.
    delivered: usize,
    /// Why the buffers are closed already.
    fault: Option<SocketError>,
    lost: bool,
    /// Whether some came that should not have: with another byte than the first.
    misplaced: bool,
}

/// Why no more came.
pub(super) enum Stop {
    /// There is nothing to read, or the system call failed.
    Os(Errno),
    /// The peer is gone.
    Gone(SocketError),
    /// The connection is broken.
    Broken(Breakage),
}

impl Arrival {
    /// An arrival that holds so many handles for a message that is not whole.
    pub(super) fn holding(most_held: usize) -> Arrival {
        Arrival {
            bytes: Vec::new(),
            filled: 0,
            parcel: Parcel::default(),
            begun: None,
            limit: Some(MESSAGE_TIME),
            most_held,
            closing: Closing::default(),
        }
    }

    /// Whether the handles that came before could be closed: no more are taken
    /// where those of a whole message cannot.
    pub(super) fn check_closing(&mut self) -> Result<(), Stop> {
        match self.closing.count() {
            0..=MAX_HANDLES => Ok(()),
            open => {
                self.give_up();
                Err(Stop::Broken(Breakage::Closing(open)))
            }
        }
    }

    /// The handles of a message that came whole.
    pub(super) fn parcel(&self, handles: Vec<OwnedFd>, lost: bool) -> Parcel {
        Parcel::new(handles, lost, &self.closing)
    }

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
            self.begun = None;
            std::mem::take(&mut self.parcel)
        })
    }

    /// Whether nothing of the next message was read.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Reads once, not beyond `end`.
    pub(super) fn read(&mut self, socket: BorrowedFd<'_>, end: usize) -> Result<(), Stop> {
        self.check_closing()?;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let into = &mut self.bytes[self.filled..end];
        let Received { len, handles, lost } = match receive(socket, into) {
            Err(Errno::AGAIN) if self.filled > 0 => {
                self.parcel.hold(self.most_held);
                return Err(self.wait());
            }
            received => received.map_err(Stop::Os)?,
        };
        if len == 0 {
            let came = self.filled;
            self.give_up();
            return Err(Stop::Gone(match came {
                0 => SocketError::Closed,
                came => SocketError::Truncated(came),
            }));
        }
        if self.filled == 0 {
            self.parcel = self.parcel(handles, lost);
        } else {
            let misplaced = self.parcel(handles, lost);
            self.parcel.add_misplaced(&misplaced);
        }
        self.filled += len;
        Ok(())
    }

    /// Goes on waiting for a message that has begun, or not.
    pub(super) fn wait(&mut self) -> Stop {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        match self.limit {
            Some(after) if begun.elapsed() >= after => {
                let came = self.filled;
                self.give_up();
                Stop::Broken(Breakage::Unfinished { came, after })
            }
            _ => Stop::Os(Errno::AGAIN),
        }
    }

    /// When to look at the time again: when a message that has begun is late, and
    /// otherwise not for long, since another thread can come upon one meanwhile.
    pub(super) fn look_again(&self) -> Option<Duration> {
        let limit = self.limit?;
        Some(match self.begun {
            Some(begun) => limit.saturating_sub(begun.elapsed()),
            None => limit.max(MESSAGE_TIME),
        })
    }

    /// Closes what came of a message that will never be whole.
    pub(super) fn give_up(&mut self) {
        self.parcel = Parcel::default();
        self.filled = 0;
        self.begun = None;
    }

    /// Closes the handles at once where they are not as many as were announced.
    pub(super) fn expect(&mut self, announced: usize) {
        let delivered = self.parcel.delivered;
        if announced != delivered {
            self.parcel.refuse(SocketError::Handles {
                announced,
                delivered,
            });
        }
    }
}

impl Parcel {
    /// Examines the handles of a message. The first that is no buffer closes
    /// all of them.
    fn new(handles: Vec<OwnedFd>, lost: bool, closing: &Closing) -> Parcel {
        let mut parcel = Parcel {
            delivered: handles.len(),
            lost,
            ..Parcel::default()
        };
        if lost {
            parcel.refuse(SocketError::Control);
        }
        for (handle, fd) in handles.into_iter().enumerate() {
            match Buffer::examined(fd) {
                Ok(buffer) if parcel.fault.is_none() => parcel.buffers.push(buffer),
                // To close memory takes no time.
                Ok(_) => {}
                Err((source, fd)) => {
                    closing.close(fd);
                    parcel.refuse(SocketError::Buffer { handle, source });
                }
            }
        }
        parcel
    }

    fn add_misplaced(&mut self, more: &Parcel) {
        self.lost |= more.lost;
        self.misplaced |= more.delivered > 0;
        if self.misplaced || self.lost {
            self.buffers.clear();
        }
    }

    /// Closes the handles where there are more than are held for a message that
    /// is not whole.
    fn hold(&mut self, most: usize) {
        let held = self.buffers.len();
        if held > most {
            self.refuse(SocketError::Held { held, most });
        }
    }

    fn refuse(&mut self, fault: SocketError) {
        self.buffers.clear();
        self.fault.get_or_insert(fault);
    }

    /// The handles as buffers, if they are as many as were announced, came as
    /// they should, and are buffers.
    pub(super) fn buffers(self, announced: usize) -> Result<Vec<Buffer>, SocketError> {
        if self.misplaced {
            return Err(SocketError::Misplaced);
        }
        if self.lost {
            return Err(SocketError::Control);
        }
        let delivered = self.delivered;
        if announced != delivered {
            return Err(SocketError::Handles {
                announced,
                delivered,
            });
        }
        match self.fault {
            None => Ok(self.buffers),
            Some(fault) => Err(fault),
        }
    }
}
