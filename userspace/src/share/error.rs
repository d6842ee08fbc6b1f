//! What can go wrong between two processes.

use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::codec::CodecError;
use super::{Address, FrameError, Peer, Policy};
use crate::buffer::BufferError;

/// Why a message did not pass.
///
/// Handles that came with a refused message are closed. After
/// [`Codec`](Self::Codec), [`Sequence`](Self::Sequence),
/// [`Control`](Self::Control), [`Held`](Self::Held),
/// [`Misplaced`](Self::Misplaced),
/// [`Handles`](Self::Handles), [`Buffer`](Self::Buffer), [`Size`](Self::Size),
/// [`Frame`](Self::Frame), [`Shape`](Self::Shape) and
/// [`Timeout`](Self::Timeout) of a receiver the connection can be used on:
/// a message is taken from it whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A system call failed.
    #[error("{name}: {operation}: {source}{}", advice(operation, *source))]
    Os {
        /// The system call.
        operation: &'static str,
        /// The socket's address, or the kernel's name for it.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
    /// Another process listens at this address.
    #[error("{0}: another process listens there; end it, or choose another address")]
    InUse(Address),
    /// Something that is no socket has this path; it is left alone.
    #[error("{0:?}: this is no socket, so it is left alone; choose another path")]
    NotASocket(PathBuf),
    /// Another user left a socket at this path; it is left alone.
    #[error(
        "{path:?}: nobody listens at this socket, but user {uid} left it there, so it is left \
         alone; remove it, or choose another path"
    )]
    Foreign {
        /// The path.
        path: PathBuf,
        /// The user who owns the socket.
        uid: u32,
    },
    /// The handle is not a socket that carries messages.
    #[error(
        "{0} is no UNIX socket of type SOCK_SEQPACKET or SOCK_STREAM; \
         make one by Socket::pair or connect"
    )]
    WrongSocket(String),
    /// The peer is gone.
    #[error("the peer has closed the connection")]
    Closed,
    /// The peer went in the middle of a message.
    #[error("the peer went after {0} bytes of a message")]
    Truncated(usize),
    /// The peer took, or sent, nothing in time.
    #[error("{operation}: nothing happened within {after:?}")]
    Timeout {
        /// What was waited for.
        operation: &'static str,
        /// How long, as set by `set_timeout`.
        after: Duration,
    },
    /// Nothing tells any more where a message begins: connect anew.
    #[error("the connection is broken: {0}; connect anew")]
    Broken(Breakage),
    /// The peer is none that the policy allows.
    #[error("{peer} is refused, expected {policy}")]
    Refused {
        /// Who it is.
        peer: Peer,
        /// Who may.
        policy: Policy,
    },
    /// The message is not written as [`codec`](super::codec) says.
    #[error("the message cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// A message of ours that would be more than one is, or describe what is not
    /// there. Nothing of it was sent.
    #[error("the message cannot be sent: {0}")]
    Unsendable(CodecError),
    /// The message came before, or one before it did not come.
    #[error("message {found} came where {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u64,
        /// The number of this message.
        found: u64,
    },
    /// Handles were lost: more than a message has, or more than this process
    /// may open.
    #[error(
        "the kernel could not deliver all handles of a message (MSG_CTRUNC): close handles or \
         raise RLIMIT_NOFILE"
    )]
    Control,
    /// A message came in pieces, with more handles than are held for one that is
    /// not whole; they are closed.
    #[error(
        "a message came in pieces with {held} handles, and at most {most} are held until it is \
         whole: send less at once, or use Transport::Packet"
    )]
    Held {
        /// How many handles came.
        held: usize,
        /// How many are held.
        most: usize,
    },
    /// Handles came in the middle of a message.
    #[error("handles came in the middle of a message, not with its first byte")]
    Misplaced,
    /// The message announces another number of handles than it brought.
    #[error("the message announces {announced} handles, but brought {delivered}")]
    Handles {
        /// What the message says.
        announced: usize,
        /// What the kernel delivered.
        delivered: usize,
    },
    /// One of the handles is no buffer.
    #[error("handle {handle} of the message: {source}")]
    Buffer {
        /// Which of the handles, from 0.
        handle: usize,
        /// What is wrong with it.
        source: BufferError,
    },
    /// One of the buffers is smaller than the message says.
    #[error("handle {handle} of the message: a buffer of {size} bytes that should have {claimed}")]
    Size {
        /// Which of the handles, from 0.
        handle: usize,
        /// What the message says, in bytes.
        claimed: u64,
        /// What the kernel says.
        size: u64,
    },
    /// A frame cannot be, or does not fit its buffers.
    #[error("frame {frame} of the message does not fit its buffers: {source}")]
    Frame {
        /// Which of the frames, from 0.
        frame: usize,
        /// What is wrong with it.
        source: FrameError,
    },
    /// A message came that is not just one frame; its buffers are closed.
    #[error(
        "a message of {frames} frames, {buffers} buffers and {payload} bytes came where one \
         frame was due; receive such by recv_message"
    )]
    Shape {
        /// How many frames it described.
        frames: usize,
        /// How many buffers it brought.
        buffers: usize,
        /// The bytes of its payload.
        payload: usize,
    },
    /// A datagram that is longer than the one byte of a plain message.
    #[error("a datagram of {0} bytes where a single one was due")]
    Plain(usize),
}

/// What broke a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breakage {
    /// The peer sent what does not tell its own length. Nothing can be received
    /// or sent any more, and the peer is told that the connection is closed.
    #[error("the peer sent something else than a message: {0}")]
    Header(CodecError),
    /// The peer began a message, and did not finish it in time. Nothing can be
    /// received or sent any more, and the peer is told that the connection is
    /// closed.
    #[error("{came} bytes of a message were read, and the rest did not come within {after:?}")]
    Unfinished {
        /// How much of it was read.
        came: usize,
        /// How long it may take, as set by `set_message_time`.
        after: Duration,
    },
    /// The peer sent handles that are no memory, and closing them waits for the
    /// peer, or for whoever serves their files. Nothing can be received or sent
    /// any more, and the peer is told that the connection is closed.
    #[error("{0} handles of the peer that are no memory could not be closed yet")]
    Closing(usize),
    /// We gave up sending in the middle of a message. Nothing can be sent any
    /// more, and the peer is told so; what it sends can still be received.
    #[error("{sent} bytes of a message of {length} were sent")]
    Sending {
        /// How much of it was sent.
        sent: usize,
        /// How much there is.
        length: usize,
    },
}

/// What to do where errno alone does not say it.
fn advice(operation: &str, errno: Errno) -> &'static str {
    match (operation, errno) {
        ("connect", Errno::NOENT | Errno::CONNREFUSED) => "; start the process that listens there",
        ("connect", Errno::PROTOTYPE) => "; the other side uses the other Transport",
        ("flock", Errno::WOULDBLOCK) => {
            "; another process of this user keeps it locked: end it, or choose another path"
        }
        // The folder itself was opened before, and the name is bound in it.
        ("bind", Errno::NOENT) => {
            "; the folder is gone, or /proc is not mounted: the name is bound by /proc/thread-self/fd"
        }
        ("bind", Errno::STALE) => "; another user changed this folder: use a folder of your own",
        ("connect" | "bind", Errno::ACCESS) => "; you may not use this path",
        ("connect" | "bind", Errno::INVAL) => "; an address needs a name",
        (_, Errno::NAMETOOLONG) => {
            "; the last part of a path has at most 80 bytes, and \
             a socket's address has at most 107 bytes"
        }
        ("sendmsg", Errno::MSGSIZE) => {
            "; send less at once, or raise the socket's SO_SNDBUF (net.core.wmem_default)"
        }
        (_, Errno::MFILE) => "; close handles or raise RLIMIT_NOFILE",
        (_, Errno::TOOMANYREFS) => "; the peer must receive before more handles can be sent",
        _ => "",
    }
}
