//! What is wrong with the bytes of a message.

use super::{HEADER, MAX_FRAMES, MAX_HANDLES, MAX_LENGTH, MAX_PAYLOAD, VERSION};
use crate::share::MAX_PLANES;

/// Why bytes are no message, or a message cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Too few bytes to be a message.
    #[error("a message of {0} bytes; its header alone has {HEADER}")]
    Short(usize),
    /// More bytes than a message has.
    #[error("a message of {0} bytes; one has at most {MAX_LENGTH}")]
    Long(usize),
    /// The message does not begin as one of ours.
    #[error("a message that begins with {0:02x?} is not of this protocol")]
    Magic([u8; 4]),
    /// The message is of another version.
    #[error(
        "a message of version {0}; this side speaks version {VERSION}, so update the older one"
    )]
    Version(u16),
    /// A length that no message has.
    #[error("a message that says it has {0} bytes; one has {HEADER} to {MAX_LENGTH}")]
    Length(u32),
    /// The message has another length than it says.
    #[error("a message of {bytes} bytes that says it has {announced}")]
    Cut {
        /// What the message says.
        announced: u32,
        /// What came.
        bytes: usize,
    },
    /// The parts of the message do not make its length.
    #[error("a message of {length} bytes whose parts take {parts}")]
    Parts {
        /// The length of the message.
        length: usize,
        /// What its parts take, by their counts.
        parts: u64,
    },
    /// More handles than a message can bring.
    #[error("{0} handles; a message brings up to {MAX_HANDLES}, so send several")]
    Handles(usize),
    /// More frames than a message can describe.
    #[error("{0} frames; a message describes up to {MAX_FRAMES}, so send several")]
    Frames(usize),
    /// The payload is too long.
    #[error("a payload of {0} bytes; it has up to {MAX_PAYLOAD}, so share a buffer instead")]
    Payload(usize),
    /// The number that no message has.
    #[error("the sequence number 2^64 - 1 is that of no message")]
    LastSequence,
    /// No plane, or more than a frame has.
    #[error("frame {frame} has {planes} planes; a frame has 1 to {MAX_PLANES}")]
    Planes {
        /// Which frame, from 0.
        frame: usize,
        /// How many it has.
        planes: usize,
    },
    /// A byte that is to be 0 is not.
    #[error("byte {0} is not 0")]
    Reserved(usize),
    /// A plane lies in a handle that is not there.
    #[error("frame {frame}: plane {plane} lies in handle {buffer} of {count}")]
    Missing {
        /// Which frame, from 0.
        frame: usize,
        /// Which of its planes, from 0.
        plane: usize,
        /// The handle that it names, from 0.
        buffer: u8,
        /// How many handles there are.
        count: usize,
    },
}
