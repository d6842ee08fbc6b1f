//! What can go wrong with GStreamer at the other end.

use std::time::Duration;

use super::{CapsError, MAX_PAYLOAD};
use crate::buffer::Kind;
use crate::frame::{Fourcc, FrameError, MAX_PLANES};
use crate::share::SocketError;

/// Why a frame did not pass.
///
/// Handles that came with what was refused are closed, and the buffer is
/// released, so that its sender can use it again. After
/// [`Length`](Self::Length), [`Command`](Self::Command),
/// [`Unread`](Self::Unread), what the socket says of
/// a peer that is gone, and [`SocketError::Broken`], the connection has ended; after all else it can be
/// used on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GstreamerError {
    /// The socket, or the handles that came over it.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The caps are none of frames that this crate knows.
    #[error(transparent)]
    Caps(#[from] CapsError),
    /// A command is longer than any that means something: the connection is
    /// closed, as nothing tells where the next one begins.
    #[error(
        "the peer announced a command of {0} bytes, and one has at most {MAX_PAYLOAD}; \
         is that a unixfdsink or unixfdsrc?"
    )]
    Length(u32),
    /// A command that only the other role sends: the connection is closed.
    #[error(
        "the peer sent a command of type {0}, which is for its side to receive: connect a source \
         with a sink"
    )]
    Command(u32),
    /// A command ends before all that it should say.
    #[error("a command of type {command} with {length} bytes ends too early")]
    Short {
        /// Its type.
        command: u32,
        /// The bytes that follow its header.
        length: usize,
    },
    /// The description of the picture's layout cannot be read.
    #[error("the buffer's GstVideoMeta cannot be used: {0}")]
    Meta(&'static str),
    /// A buffer came before its caps.
    #[error("a buffer came before caps that say what it is")]
    NoCaps,
    /// A buffer without memory.
    #[error("a buffer of no memory: there is no picture in it")]
    Empty,
    /// What was announced as a dma-buf is none.
    #[error("memory {memory} should be a dma-buf, and the kernel says it is {kind:?}")]
    NotDmaBuf {
        /// Which of the buffer's memories, from 0.
        memory: usize,
        /// What it is.
        kind: Kind,
    },
    /// A memory reaches beyond its handle's.
    #[error(
        "memory {memory} should have {size} bytes from byte {offset} on, but its handle has {found}"
    )]
    Range {
        /// Which of the buffer's memories, from 0.
        memory: usize,
        /// From which byte of the handle on.
        offset: u64,
        /// How many bytes.
        size: u64,
        /// How many bytes the handle has, by the kernel's word.
        found: u64,
    },
    /// A plane lies in none of the memories.
    #[error("plane {plane} begins at byte {offset} of a buffer that has {size}")]
    Plane {
        /// Which plane, from 0.
        plane: usize,
        /// Where it begins, in all memories one after the other.
        offset: u64,
        /// The bytes of all memories.
        size: u64,
    },
    /// The frame cannot be, or does not fit its memory.
    #[error("the frame does not fit its memory: {0}")]
    Frame(#[from] FrameError),
    /// The frame is not what the caps say.
    #[error(
        "a frame of {}x{} {} does not suit the sink's caps, {caps}; tell them by set_caps first",
        .frame.0, .frame.1, .frame.2
    )]
    Mismatch {
        /// Width, height and format of the frame.
        frame: (u32, u32, Fourcc),
        /// What the caps are.
        caps: String,
    },
    /// More buffers than a frame has planes, or none.
    #[error("a frame in {0} buffers; it has 1 to {MAX_PLANES}")]
    Buffers(usize),
    /// GStreamer takes dma-bufs, or other memory, but not both in one frame.
    #[error("buffer {buffer} is {kind:?}, and others are not: a frame is all dma-bufs, or none")]
    Mixed {
        /// Which of the buffers, from 0.
        buffer: usize,
        /// What it is.
        kind: Kind,
    },
    /// The buffer is lent still.
    #[error("buffer {0} is lent still; wait until it is free")]
    Lent(u64),
    /// The peer leaves unread that its buffers are released: the connection is
    /// closed.
    #[error("the peer left {0} bytes of releases unread: is that an unixfdsink?")]
    Unread(usize),
    /// A client left more unread than it may, and others need the room: it is
    /// disconnected.
    #[error("the client left {0} bytes unread; it must read what is sent to it")]
    Behind(usize),
    /// A client held a buffer for longer than its lease: it is disconnected.
    #[error("the client held buffer {id} for {after:?}; raise Sink::set_lease where it may")]
    Lease {
        /// The buffer.
        id: u64,
        /// The lease.
        after: Duration,
    },
    /// A client held buffers while all were lent and another client had fewer: it
    /// is disconnected.
    #[error("the client held {0} buffers while none was free; lend from a larger pool")]
    Starved(usize),
    /// The caller let the client go, by [`Sink::let_go`](super::Sink::let_go).
    #[error("the client was let go")]
    LetGo,
    /// A client released what it does not have: it is disconnected.
    #[error("the peer released buffer {0}, which it does not have")]
    NotLent(u64),
}
