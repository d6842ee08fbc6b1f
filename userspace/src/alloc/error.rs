//! What can go wrong with an allocation.

use std::fmt::Write as _;

use rustix::io::Errno;

use super::{Feature, HugePages, Owner, Way};
use crate::buffer::BufferError;

/// Why there is no buffer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// 0 bytes were asked for.
    #[error("a buffer of 0 bytes cannot be; ask for 1 or more")]
    Empty,
    /// More was asked for than there is, or than one is allowed.
    #[error("{size} bytes are more than {of}, {limit} bytes; ask for less, or raise that")]
    TooLarge {
        /// What was asked for, in bytes.
        size: u64,
        /// The most that could be, in bytes.
        limit: u64,
        /// Whose limit it is.
        of: &'static str,
    },
    /// The kernel does not take this name.
    #[error("{name:?} cannot name a buffer: it has {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The object of this name or key belongs to another user than expected.
    #[error(
        "{name} belongs to user {uid}, expected {expected}: any user can be the first to use a \
         name or a key; remove it, or choose another"
    )]
    Owner {
        /// The object.
        name: String,
        /// The user that it belongs to, or that made it.
        uid: u32,
        /// The users that it may belong to.
        expected: Owner,
    },
    /// The file of this name has other names, too.
    #[error(
        "{name} has several names (hard links), and its owner need not have made this one; \
         remove it, or choose another name"
    )]
    Linked {
        /// The file.
        name: String,
    },
    /// Something else than a shared memory object has this name.
    #[error("{name} is {what}, not a shared memory object; remove it, or choose another name")]
    NotAnObject {
        /// The file.
        name: String,
        /// Its type.
        what: &'static str,
    },
    /// A buffer for a device was asked of a way that has none.
    #[error("no device can import what {0} allocates; ask dma_heap, udmabuf or module")]
    NotForDevices(Way),
    /// Something was asked for that this way never has.
    #[error("{way} cannot give {what}: {why}")]
    Cannot {
        /// The way.
        way: Way,
        /// What was asked for.
        what: Feature,
        /// Why it cannot, and what would help.
        why: String,
    },
    /// The kernel has not set so many huge pages aside.
    #[error("{needed} huge pages of {size} are needed: {}", size.advice(*needed, *free))]
    NoHugePages {
        /// Their size.
        size: HugePages,
        /// How many are needed.
        needed: u64,
        /// How many there are to take; `None` where the kernel has none of this
        /// size at all.
        free: Option<u64>,
    },
    /// A driver lays rows out in its own way.
    #[error(
        "{card} gives rows a stride of {theirs} bytes, but the frame has {ours}; \
         describe the frame with that stride, or ask another way"
    )]
    Stride {
        /// The device node.
        card: String,
        /// The stride of the frame, in bytes.
        ours: u32,
        /// The stride of the driver, in bytes.
        theirs: u32,
    },
    /// The CPU was to use it, but its exporter lets it be mapped by no one.
    #[error(
        "{name} cannot be mapped for the CPU, its driver refuses: {source}; \
         ask another way, or without CPU_READ and CPU_WRITE"
    )]
    Unmappable {
        /// The buffer.
        name: String,
        /// What it said.
        source: BufferError,
    },
    /// A buffer was to be made of too many pieces.
    #[error("{count} pieces are more than {of}, {limit}; use fewer, or raise that")]
    TooMany {
        /// How many pieces.
        count: usize,
        /// How many there can be.
        limit: usize,
        /// Whose limit it is.
        of: &'static str,
    },
    /// A file whose numbers make the key that is none.
    #[error("{path} gives the key 0, which is IPC_PRIVATE; take another project number or file")]
    PrivateKey {
        /// The file.
        path: String,
    },
    /// The kernel refused.
    #[error("{name}: {operation}: {source}{}{help}", if help.is_empty() { "" } else { "; " })]
    Os {
        /// The call that failed.
        operation: &'static str,
        /// The device node or file, or the name of the buffer.
        name: String,
        /// What the kernel said.
        source: Errno,
        /// What would help, where this crate knows.
        help: String,
    },
    /// The loaded kernel module is older than this crate, or another.
    #[error("{node}: the loaded module does not support {what}; load a newer module")]
    ModuleLacks {
        /// The device node.
        node: &'static str,
        /// The request or feature, as `kmod/dmashare_uapi.h` calls it.
        what: &'static str,
    },
    /// The buffer is not what it should be.
    #[error("the buffer cannot be used: {0}")]
    Buffer(#[from] BufferError),
    /// No way could do what was asked.
    #[error("no way to allocate can do this here:{}", list(.0))]
    NoWay(Vec<(Way, AllocError)>),
}

fn list(passed_over: &[(Way, AllocError)]) -> String {
    passed_over
        .iter()
        .fold(String::new(), |mut lines, (way, reason)| {
            let _ = write!(lines, "\n  {way}: {reason}");
            lines
        })
}
