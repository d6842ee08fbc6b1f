//! How a frame gets to another process.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// How a frame gets to another process, and what is done with it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Its fd, and nobody looks at it: a GPU or a screen would.
    Fd,
    /// Its fd, and the consumer reads every byte where it lies, by a mapping that
    /// it keeps for as long as the same memory comes.
    FdRead,
    /// Its fd, and the consumer maps it anew each time to read every byte.
    FdMap,
    /// Copied into shared memory, and read there.
    Memcpy,
    /// write(2) and read(2) of a UNIX socket.
    Socket,
    /// write(2) and read(2) of a pipe.
    Pipe,
}

impl Way {
    /// The one that others are compared with first.
    pub(crate) const ALL: [Way; 6] = [
        Way::Fd,
        Way::FdRead,
        Way::FdMap,
        Way::Memcpy,
        Way::Socket,
        Way::Pipe,
    ];

    /// The bytes that are read from memory or written to it for a frame: a copy
    /// does both.
    pub(crate) fn traffic(self, bytes: u64) -> f64 {
        let passes = match self {
            Way::Fd => 0,
            // The consumer reads it.
            Way::FdRead | Way::FdMap => 1,
            // The producer copies it; the consumer reads it.
            Way::Memcpy => 3,
            // Into the kernel and out of it; the consumer reads it.
            Way::Socket | Way::Pipe => 5,
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        {
            (bytes * passes) as f64
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Fd => "fd, untouched",
            Way::FdRead => "fd, read",
            Way::FdMap => "fd, mapped anew",
            Way::Memcpy => "memcpy, read",
            Way::Socket => "socket, read",
            Way::Pipe => "pipe, read",
        })
    }
}
