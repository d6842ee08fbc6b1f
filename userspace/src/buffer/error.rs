//! What can go wrong with a buffer.

use rustix::io::Errno;

use super::{Access, Rows};

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
    /// An access beyond the end of the mapping.
    #[error("{len} bytes at offset {offset} do not fit a mapping of {size} bytes")]
    Range {
        /// The first byte asked for.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The size of the mapping in bytes.
        size: u64,
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

/// What to do where errno alone does not say it.
fn advice(operation: &str, errno: Errno) -> &'static str {
    match (operation, errno) {
        ("mmap", Errno::ACCESS) => "; the handle was not opened for this access: map it for less",
        ("mmap", Errno::PERM) => "; it is sealed against writing: map it for reading",
        ("mmap", Errno::NOMEM) => "; free memory or raise RLIMIT_AS or vm.max_map_count",
        (_, Errno::MFILE) => "; close handles or raise RLIMIT_NOFILE",
        _ => "",
    }
}
