//! What can go wrong with a buffer.

use rustix::io::Errno;

use super::{Access, Rows, Seals};

/// Why a buffer could not be examined, mapped or accessed.
///
/// Each names the object as the kernel does (`/dmabuf:NAME`, `/memfd:NAME`),
/// where one is concerned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BufferError {
    /// A system call on the handle failed.
    #[error("{name}: {operation} failed: {source}{}", advice(operation, *source))]
    Os {
        /// The system call.
        operation: &'static str,
        /// The object, as the kernel names it.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The handle is no shared memory at all.
    #[error("{name} is {what}, not a buffer; share a dma-buf, a memfd or a file on tmpfs")]
    NotABuffer {
        /// The object, as the kernel names it.
        name: String,
        /// What it is instead.
        what: &'static str,
    },
    /// A System V segment has no file descriptor.
    #[error(
        "{name} has no file descriptor, so no socket passes it and no device imports it; \
         tell its key or id, or share another kind of buffer"
    )]
    NoFd {
        /// The segment.
        name: String,
    },
    /// Only a dma-buf has this.
    #[error(
        "{name} is no dma-buf: no device works on it, and it has neither fences nor an exporter"
    )]
    NotADmaBuf {
        /// The object, as the kernel names it.
        name: String,
    },
    /// Only a memfd or a file on tmpfs is read and written by system calls.
    #[error("{name} is no file that could be read or written; map it")]
    NotAFile {
        /// The object, as the kernel names it.
        name: String,
    },
    /// A kernel before 6.9 writes only through an open file of its own here:
    /// those that share this one could have it append.
    #[error(
        "{name}: opening it anew to write failed: {source}; mount /proc and allow this user to \
         write the file, seal it with F_SEAL_GROW, map it, or use Linux 6.9 or later"
    )]
    Reopen {
        /// The object, as the kernel names it.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
    /// Someone can still write to this memory, or make it smaller.
    #[error(
        "{name} is not sealed: it lacks {}; seal it (only a memfd can be), or read it through a guard",
        names(*missing)
    )]
    NotSealed {
        /// The object, as the kernel names it.
        name: String,
        /// The seals that it lacks.
        missing: Seals,
    },
    /// A dma-buf does not take this name.
    #[error("{name:?} cannot name a dma-buf: it has {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The kernel told something of a dma-buf that makes no sense.
    #[error("{name}: its fdinfo has a line that is not understood: {line:?}")]
    FdInfo {
        /// The object, as the kernel names it.
        name: String,
        /// The line.
        line: String,
    },
    /// The buffer has no bytes.
    #[error("{name} has a size of 0 bytes; set its size before it is shared")]
    Empty {
        /// The object, as the kernel names it.
        name: String,
    },
    /// Whoever else holds this buffer can make it smaller, and an access beyond
    /// its end is answered with SIGBUS.
    #[error(
        "{name} is not sealed against shrinking, so that its other holders could end this \
         process by SIGBUS; seal it with F_SEAL_SHRINK, or map it by map_shrinkable if you trust them"
    )]
    Shrinkable {
        /// The object, as the kernel names it.
        name: String,
    },
    /// Whoever else holds this buffer can give its huge pages back, whatever
    /// its seals, and an access that finds none left is answered with SIGBUS.
    #[error(
        "{name} lies in huge pages, so that its other holders could end this process by SIGBUS, \
         whatever its seals; share ordinary pages, or map it by map_shrinkable if you trust them"
    )]
    HugeTlb {
        /// The object, as the kernel names it.
        name: String,
    },
    /// The buffer does not fit this process's address space.
    #[error("{name}: {size} bytes do not fit the address space; share smaller buffers")]
    AddressSpace {
        /// The object, as the kernel names it.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A part to map that is empty, or does not lie within its buffer.
    #[error("{name}: {len} bytes at offset {offset} are no part of its {size} bytes")]
    Part {
        /// The object, as the kernel names it.
        name: String,
        /// The first byte asked for.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The size of the buffer in bytes.
        size: u64,
    },
    /// An access beyond the end of the mapping, or of the buffer.
    #[error("{len} bytes at offset {offset} do not fit {size} bytes")]
    Range {
        /// The first byte asked for.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The size in bytes.
        size: u64,
    },
    /// An atomic that does not lie where the CPU can access it in one piece.
    #[error(
        "offset {offset} lies on no multiple of {align} bytes in memory, as an atomic of this size must"
    )]
    Alignment {
        /// Its offset in the mapping.
        offset: u64,
        /// What its address must be a multiple of.
        align: usize,
    },
    /// These rows overlap each other, or end beyond what a `u64` can say.
    #[error("{} rows of {} bytes with a stride of {} are no picture", .0.count, .0.row, .0.stride)]
    Rows(Rows),
    /// The caller's memory has not the size of the rows.
    #[error("the rows take {rows} bytes, but the memory given has {memory}")]
    RowsMemory {
        /// The bytes of all rows.
        rows: u64,
        /// The bytes of the caller's memory.
        memory: usize,
    },
    /// More was asked for than the mapping or the guard was made for.
    #[error("{asked} is not part of {granted}; map the buffer, and open the guard, for it")]
    Access {
        /// What the call needs.
        asked: Access,
        /// What there is.
        granted: Access,
    },
}

/// Seals as fcntl(2) names them.
fn names(seals: Seals) -> String {
    let mut names = String::new();
    for (name, _) in seals.iter_names() {
        let and = if names.is_empty() { "" } else { " and " };
        names.extend([and, "F_SEAL_", name]);
    }
    names
}

/// What to do where errno alone does not say it.
fn advice(operation: &str, errno: Errno) -> &'static str {
    match (operation, errno) {
        ("mmap", Errno::ACCESS) => "; the handle was not opened for this access: map it for less",
        ("mmap", Errno::PERM) => "; it is sealed against writing: map it for reading",
        ("mmap", Errno::NOMEM) => "; free memory or raise RLIMIT_AS or vm.max_map_count",
        ("madvise", Errno::FAULT | Errno::NOMEM) => {
            "; there is no huge page left for this process: raise vm.nr_hugepages, or \
             hugetlb.*.max of its cgroup, or share ordinary pages"
        }
        ("madvise", Errno::INVAL) => {
            "; huge pages are mapped as sealed from Linux 5.14 on: share ordinary pages"
        }
        (_, Errno::MFILE) => "; close handles or raise RLIMIT_NOFILE",
        _ => "",
    }
}
