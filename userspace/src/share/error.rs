//! What can go wrong between two processes.

use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::FrameError;
use super::codec::CodecError;
use crate::buffer::BufferError;

/// Why a frame did not pass.
///
/// Handles that came with a refused message are closed. After
/// [`Codec`](Self::Codec), [`Control`](Self::Control),
/// [`Handles`](Self::Handles), [`Buffer`](Self::Buffer) and
/// [`Frame`](Self::Frame) the connection can be used on: a message is received
/// whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A system call failed.
    #[error("{name}: {operation}: {source}{}", advice(operation, *source))]
    Os {
        /// The system call.
        operation: &'static str,
        /// The socket's path, or the kernel's name for it.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
    /// Another process listens at this path.
    #[error("{0:?}: another process listens there; end it, or choose another path")]
    InUse(PathBuf),
    /// Something that is no socket has this path; it is left alone.
    #[error("{0:?}: this is no socket, so it is left alone; choose another path")]
    NotASocket(PathBuf),
    /// The handle is not a socket that keeps messages apart.
    #[error("{0} is no UNIX socket of type SOCK_SEQPACKET; make one by Socket::pair or connect")]
    NotSeqpacket(String),
    /// The peer is gone.
    #[error("the peer has closed the connection")]
    Closed,
    /// The peer took, or sent, nothing in time.
    #[error("{operation}: nothing happened within {after:?}")]
    Timeout {
        /// What was waited for.
        operation: &'static str,
        /// How long, as set by `set_timeout`.
        after: Duration,
    },
    /// The message is not written as [`codec`](super::codec) says.
    #[error("the message is no frame: {0}")]
    Codec(#[from] CodecError),
    /// Handles were lost: more than a frame has, or more than this process may
    /// open.
    #[error(
        "the kernel could not deliver all handles of a message (MSG_CTRUNC): it brought more \
         than a frame has, or this process is at RLIMIT_NOFILE"
    )]
    Control,
    /// The message announces another number of handles than it brought.
    #[error("the message announces {announced} handles, but brought {delivered}")]
    Handles {
        /// What the message says.
        announced: usize,
        /// What the kernel delivered.
        delivered: usize,
    },
    /// One of the handles is no buffer.
    #[error("handle {handle} of the frame: {source}")]
    Buffer {
        /// Which of the handles, from 0.
        handle: usize,
        /// What is wrong with it.
        source: BufferError,
    },
    /// The frame cannot be, or does not fit its buffers.
    #[error("the frame does not fit its buffers: {0}")]
    Frame(#[from] FrameError),
}

/// What to do where errno alone does not say it.
fn advice(operation: &str, errno: Errno) -> &'static str {
    match (operation, errno) {
        ("connect", Errno::NOENT | Errno::CONNREFUSED) => "; start the process that listens there",
        ("flock", Errno::WOULDBLOCK) => {
            "; another process keeps this folder locked: use a folder of your own"
        }
        ("connect" | "bind", Errno::ACCESS) => "; you may not use this path",
        (_, Errno::NAMETOOLONG) => "; a socket's path has at most 107 bytes",
        (_, Errno::MFILE) => "; close handles or raise RLIMIT_NOFILE",
        (_, Errno::TOOMANYREFS) => "; the peer must receive before more handles can be sent",
        _ => "",
    }
}
