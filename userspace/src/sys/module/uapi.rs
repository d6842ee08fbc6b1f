//! Made from `kmod/dmashare_uapi.h`; do not edit. Change that, and run
//! `DMASHARE_UPDATE=1 cargo test -p dmashare-tests --test host_uapi`.
//!
//! Interface of the nodes below /dev/dmashare: dma-bufs of a chosen kind of
//! memory and of a chosen shape, on any kernel.
//!
//! One node for each kind of memory, so that udev can grant each one apart:
//!
//! * /dev/dmashare/system: pages from the page allocator: ALLOC
//! * /dev/dmashare/contiguous: one run of pages: ALLOC
//! * /dev/dmashare/memfd: pinned pages of memfds: WRAP
//!
//! INFO and QUERY work on every node; the other request fails with ENOTTY.
//!
//! This header is the only source of the interface: the structures of the Rust
//! crate are generated from it. The layout is the same for 32-bit and 64-bit
//! programs.
//!
//! Structures can grow at their end. Each begins with its size in bytes, set by
//! the caller to sizeof(). A shorter structure than the module's is extended with
//! zeroes; a longer one is accepted if all bytes that the module does not know are
//! zero, else E2BIG. A size below that of the first version (DMASHARE_*_SIZE_V0)
//! is EINVAL. Reserved fields, and flags not defined here, must be zero, else
//! EINVAL.
//!
//! ALLOC and WRAP return the new fd. A request that fails changes nothing, with
//! one exception, described at `IOCTL_WRAP`.

#![allow(dead_code, reason = "it is all of the header, used here or not")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the type of an ioctl was checked to have 8 bits"
)]

#[cfg(test)]
use std::mem::offset_of;

use rustix::ioctl::{Opcode, opcode};

/// Unused in Documentation/userspace-api/ioctl/ioctl-number.rst, as of Linux 7.3.
pub(crate) const IOCTL_TYPE: u32 = 0xDA;

/// Most ranges in one `IOCTL_WRAP`.
pub(crate) const MAX_RANGES: u32 = 1024;

// Kinds of memory: `memory` of `Info` and `Query`.
pub(crate) const MEMORY_SYSTEM: u32 = 1;
pub(crate) const MEMORY_CONTIGUOUS: u32 = 2;
pub(crate) const MEMORY_MEMFD: u32 = 3;

// Flags of `Alloc`.

/// Below 4 GiB of physical memory, for devices with 32-bit DMA addresses.
pub(crate) const ALLOC_BELOW_4G: u32 = 0x1;

/// Write-combined CPU mappings, in user space and in the kernel: fast sequential
/// writes, slow reads. On x86 only; elsewhere INFO does not report
/// `FEATURE_WRITE_COMBINED` and the flag is EINVAL.
pub(crate) const ALLOC_WRITE_COMBINED: u32 = 0x2;

/// Argument of `IOCTL_ALLOC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alloc {
    /// In: sizeof(struct dmashare_alloc).
    pub(crate) size: u32,
    /// In: flags of the new fd: O_CLOEXEC, and O_RDONLY, O_WRONLY or O_RDWR.
    pub(crate) fd_flags: u32,
    /// In: bytes, more than zero; rounded up to whole pages. lseek(fd, 0,
    /// SEEK_END) returns the result.
    pub(crate) length: u64,
    /// In: most bytes in one entry of the scatter list: the page size, or the
    /// page size times a power of two; or zero, for entries of up to 2 MiB, as
    /// long as are free. Entries are not merged with their neighbours, so that
    /// the page size gives one entry a page. A device with a smaller maximum
    /// segment size gets shorter entries. Must be zero for contiguous memory.
    pub(crate) max_chunk: u64,
    /// In: `ALLOC_*`.
    pub(crate) flags: u32,
    /// In: zero.
    pub(crate) reserved: u32,
}

/// Bytes of the first version of `Alloc`.
pub(crate) const ALLOC_SIZE_V0: u32 = 32;

/// Part of a memfd.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range {
    /// Fd of a memfd with F_SEAL_SHRINK, without F_SEAL_WRITE and
    /// F_SEAL_FUTURE_WRITE.
    pub(crate) memfd: i32,
    /// Zero.
    pub(crate) reserved: u32,
    /// First byte, a multiple of the page size.
    pub(crate) offset: u64,
    /// Bytes, more than zero, a multiple of the page size.
    pub(crate) length: u64,
}

/// Argument of `IOCTL_WRAP`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wrap {
    /// In: sizeof(struct dmashare_wrap).
    pub(crate) size: u32,
    /// In: as in `Alloc`.
    pub(crate) fd_flags: u32,
    /// In: address of an array of `Range`; the buffer consists of these ranges,
    /// in this order.
    pub(crate) ranges: u64,
    /// In: number of ranges, 1 to `MAX_RANGES`.
    pub(crate) count: u32,
    /// In: zero.
    pub(crate) flags: u32,
}

/// Bytes of the first version of `Wrap`.
pub(crate) const WRAP_SIZE_V0: u32 = 24;

/// Argument of `IOCTL_QUERY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Query {
    /// In: sizeof(struct dmashare_query).
    pub(crate) size: u32,
    /// In: a dma-buf of this module, made through any of its nodes.
    pub(crate) fd: i32,
    /// Out: bytes.
    pub(crate) length: u64,
    /// Out: `MEMORY_*`.
    pub(crate) memory: u32,
    /// Out: `ALLOC_*` that it was allocated with.
    pub(crate) flags: u32,
    /// Out: entries of its scatter list, before any is cut for a device.
    /// Adjacent pages of one memfd range are one entry.
    pub(crate) chunks: u32,
    /// Out: zero.
    pub(crate) reserved: u32,
}

/// Bytes of the first version of `Query`.
pub(crate) const QUERY_SIZE_V0: u32 = 32;

// Features of a node: `features` of `Info`.

/// `IOCTL_ALLOC`
pub(crate) const FEATURE_ALLOC: u32 = 0x1;

/// `IOCTL_WRAP`
pub(crate) const FEATURE_WRAP: u32 = 0x2;

/// `max_chunk` of `Alloc`
pub(crate) const FEATURE_MAX_CHUNK: u32 = 0x4;

/// `ALLOC_BELOW_4G`
pub(crate) const FEATURE_BELOW_4G: u32 = 0x8;

/// `ALLOC_WRITE_COMBINED`
pub(crate) const FEATURE_WRITE_COMBINED: u32 = 0x10;

// Nodes that the module added to this kernel: `nodes` of `Info`.

/// /dev/udmabuf
pub(crate) const NODE_UDMABUF: u32 = 0x1;

/// /dev/dma_heap/system
pub(crate) const NODE_DMA_HEAP: u32 = 0x2;

/// The heap "dmashare" of the kernel's dma_heap framework
pub(crate) const NODE_HEAP: u32 = 0x4;

/// Argument of `IOCTL_INFO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Info {
    /// In: sizeof(struct dmashare_info).
    pub(crate) size: u32,
    /// Out: `MEMORY_*` of this node.
    pub(crate) memory: u32,
    /// Out: `FEATURE_*` of this node.
    pub(crate) features: u64,
    /// Out: `NODE_*` that the module added to this kernel.
    pub(crate) nodes: u32,
    /// Out: zero.
    pub(crate) reserved: u32,
    /// Out: most bytes in one buffer, now.
    pub(crate) buffer_max: u64,
    /// Out: bytes in live buffers made through this open file.
    pub(crate) file_used: u64,
    /// Out: most bytes in them, now.
    pub(crate) file_max: u64,
    /// Out: bytes in live buffers made by the caller's user.
    pub(crate) user_used: u64,
    /// Out: most bytes in them, now.
    pub(crate) user_max: u64,
    /// Out: bytes in all live buffers, /dev/udmabuf's apart.
    pub(crate) total_used: u64,
    /// Out: most bytes in them, now.
    pub(crate) total_max: u64,
    /// Out: number of live buffers, /dev/udmabuf's apart.
    pub(crate) buffers: u64,
}

/// Bytes of the first version of `Info`.
pub(crate) const INFO_SIZE_V0: u32 = 88;

/// Report features of this node, and the limits.
///
/// Return: 0, or -1 with errno:
///
/// * EINVAL, E2BIG: `size`, as described at the head of this file.
/// * EFAULT: the argument is not memory of the caller.
pub(crate) const IOCTL_INFO: Opcode = opcode::none(IOCTL_TYPE as u8, 0x00);

/// Allocate zeroed memory and export it as a dma-buf.
///
/// The memory is charged to the caller's memory cgroup, with one exception:
/// contiguous runs longer than the page allocator supports (4 MiB on x86-64),
/// which a module cannot charge. It comes from NUMA nodes that the caller's cpuset
/// allows. It is freed with the last fd, mapping and importer, possibly long after
/// the caller's exit.
///
/// Return: the fd of the dma-buf, or -1 with errno:
///
/// * EINVAL: `length` is zero, `max_chunk` is not the page size times a power of two
///   or not allowed here, a flag or a reserved field is not valid.
/// * EFBIG: one buffer of this length is not allowed (max_buffer_mb in
///   /sys/module/dmashare/parameters), or is more than 4 GiB of contiguous memory
///   or 2^31 - 1 pages of other memory.
/// * EDQUOT: max_file_mb, max_user_mb or max_total_mb does not allow it now.
/// * ENOMEM: the system or the memory cgroup does not have that much memory, or
///   no free run of that length; no process is killed to make room.
/// * EMFILE: the caller has no free file descriptor.
/// * EINTR: the caller was killed.
/// * E2BIG, EFAULT: as for `IOCTL_INFO`.
pub(crate) const IOCTL_ALLOC: Opcode = opcode::none(IOCTL_TYPE as u8, 0x01);

/// Export memory of memfds as a dma-buf, without a copy.
///
/// The pages are pinned and stay charged as they were. Pages that the memfd does
/// not have yet are allocated. While the memfd has one of these pages, F_SEAL_WRITE
/// cannot be added (EBUSY).
///
/// A hole punched into the memfd (fallocate(2)) removes whole pages from the
/// memfd; the buffer keeps them. A hole that covers only a part of a huge page
/// zeroes that part in both.
///
/// All arguments are checked before the first page is allocated. If memory runs
/// out after that, a page is pinned too often, or the caller is killed, then pages
/// allocated so far stay in the memfd.
///
/// Return: the fd of the dma-buf, or -1 with errno:
///
/// * EINVAL: no range, too many, one that is not whole pages, is empty or exceeds
///   its memfd's size; a memfd without F_SEAL_SHRINK or with F_SEAL_WRITE or
///   F_SEAL_FUTURE_WRITE; a flag or a reserved field is not valid.
/// * EBADF: a memfd is not an open file.
/// * EBADFD: a memfd is not a file of tmpfs or hugetlbfs.
/// * EACCES: a memfd is not open for writing.
/// * EMLINK: a page would be pinned too often (more than about 16,000 times).
/// * ENOSPC, EIO: the memfd's pages cannot be allocated or read: no free huge
///   pages, or a hardware memory error.
/// * EFBIG: as for `IOCTL_ALLOC`, or a range of 4 GiB or more.
/// * ENOMEM: memory ran out. Missing pages are allocated as by a write(2) to the
///   memfd, for which the OOM killer may make room.
/// * EDQUOT, EMFILE, EINTR, E2BIG, EFAULT: as for `IOCTL_ALLOC`, `ranges`
///   included.
pub(crate) const IOCTL_WRAP: Opcode = opcode::none(IOCTL_TYPE as u8, 0x02);

/// Describe a dma-buf of this module.
///
/// Return: 0, or -1 with errno:
///
/// * EBADF: `fd` is not an open file.
/// * EINVAL: `fd` is not a dma-buf of this module; a reserved field is not zero.
/// * E2BIG, EFAULT: as for `IOCTL_INFO`.
pub(crate) const IOCTL_QUERY: Opcode = opcode::none(IOCTL_TYPE as u8, 0x03);

/// Each of the above as an expression in C, and what it is here: the test
/// `host_uapi` has a C compiler check them.
#[cfg(test)]
#[rustfmt::skip]
pub(crate) const LAYOUT: &[(&str, usize)] = &[
    ("DMASHARE_IOCTL_TYPE", IOCTL_TYPE as usize),
    ("DMASHARE_MAX_RANGES", MAX_RANGES as usize),
    ("DMASHARE_MEMORY_SYSTEM", MEMORY_SYSTEM as usize),
    ("DMASHARE_MEMORY_CONTIGUOUS", MEMORY_CONTIGUOUS as usize),
    ("DMASHARE_MEMORY_MEMFD", MEMORY_MEMFD as usize),
    ("DMASHARE_ALLOC_BELOW_4G", ALLOC_BELOW_4G as usize),
    ("DMASHARE_ALLOC_WRITE_COMBINED", ALLOC_WRITE_COMBINED as usize),
    ("sizeof(struct dmashare_alloc)", size_of::<Alloc>()),
    ("offsetof(struct dmashare_alloc, size)", offset_of!(Alloc, size)),
    ("offsetof(struct dmashare_alloc, fd_flags)", offset_of!(Alloc, fd_flags)),
    ("offsetof(struct dmashare_alloc, length)", offset_of!(Alloc, length)),
    ("offsetof(struct dmashare_alloc, max_chunk)", offset_of!(Alloc, max_chunk)),
    ("offsetof(struct dmashare_alloc, flags)", offset_of!(Alloc, flags)),
    ("offsetof(struct dmashare_alloc, reserved)", offset_of!(Alloc, reserved)),
    ("DMASHARE_ALLOC_SIZE_V0", ALLOC_SIZE_V0 as usize),
    ("sizeof(struct dmashare_range)", size_of::<Range>()),
    ("offsetof(struct dmashare_range, memfd)", offset_of!(Range, memfd)),
    ("offsetof(struct dmashare_range, reserved)", offset_of!(Range, reserved)),
    ("offsetof(struct dmashare_range, offset)", offset_of!(Range, offset)),
    ("offsetof(struct dmashare_range, length)", offset_of!(Range, length)),
    ("sizeof(struct dmashare_wrap)", size_of::<Wrap>()),
    ("offsetof(struct dmashare_wrap, size)", offset_of!(Wrap, size)),
    ("offsetof(struct dmashare_wrap, fd_flags)", offset_of!(Wrap, fd_flags)),
    ("offsetof(struct dmashare_wrap, ranges)", offset_of!(Wrap, ranges)),
    ("offsetof(struct dmashare_wrap, count)", offset_of!(Wrap, count)),
    ("offsetof(struct dmashare_wrap, flags)", offset_of!(Wrap, flags)),
    ("DMASHARE_WRAP_SIZE_V0", WRAP_SIZE_V0 as usize),
    ("sizeof(struct dmashare_query)", size_of::<Query>()),
    ("offsetof(struct dmashare_query, size)", offset_of!(Query, size)),
    ("offsetof(struct dmashare_query, fd)", offset_of!(Query, fd)),
    ("offsetof(struct dmashare_query, length)", offset_of!(Query, length)),
    ("offsetof(struct dmashare_query, memory)", offset_of!(Query, memory)),
    ("offsetof(struct dmashare_query, flags)", offset_of!(Query, flags)),
    ("offsetof(struct dmashare_query, chunks)", offset_of!(Query, chunks)),
    ("offsetof(struct dmashare_query, reserved)", offset_of!(Query, reserved)),
    ("DMASHARE_QUERY_SIZE_V0", QUERY_SIZE_V0 as usize),
    ("DMASHARE_FEATURE_ALLOC", FEATURE_ALLOC as usize),
    ("DMASHARE_FEATURE_WRAP", FEATURE_WRAP as usize),
    ("DMASHARE_FEATURE_MAX_CHUNK", FEATURE_MAX_CHUNK as usize),
    ("DMASHARE_FEATURE_BELOW_4G", FEATURE_BELOW_4G as usize),
    ("DMASHARE_FEATURE_WRITE_COMBINED", FEATURE_WRITE_COMBINED as usize),
    ("DMASHARE_NODE_UDMABUF", NODE_UDMABUF as usize),
    ("DMASHARE_NODE_DMA_HEAP", NODE_DMA_HEAP as usize),
    ("DMASHARE_NODE_HEAP", NODE_HEAP as usize),
    ("sizeof(struct dmashare_info)", size_of::<Info>()),
    ("offsetof(struct dmashare_info, size)", offset_of!(Info, size)),
    ("offsetof(struct dmashare_info, memory)", offset_of!(Info, memory)),
    ("offsetof(struct dmashare_info, features)", offset_of!(Info, features)),
    ("offsetof(struct dmashare_info, nodes)", offset_of!(Info, nodes)),
    ("offsetof(struct dmashare_info, reserved)", offset_of!(Info, reserved)),
    ("offsetof(struct dmashare_info, buffer_max)", offset_of!(Info, buffer_max)),
    ("offsetof(struct dmashare_info, file_used)", offset_of!(Info, file_used)),
    ("offsetof(struct dmashare_info, file_max)", offset_of!(Info, file_max)),
    ("offsetof(struct dmashare_info, user_used)", offset_of!(Info, user_used)),
    ("offsetof(struct dmashare_info, user_max)", offset_of!(Info, user_max)),
    ("offsetof(struct dmashare_info, total_used)", offset_of!(Info, total_used)),
    ("offsetof(struct dmashare_info, total_max)", offset_of!(Info, total_max)),
    ("offsetof(struct dmashare_info, buffers)", offset_of!(Info, buffers)),
    ("DMASHARE_INFO_SIZE_V0", INFO_SIZE_V0 as usize),
    ("DMASHARE_IOCTL_INFO", IOCTL_INFO as usize),
    ("DMASHARE_IOCTL_ALLOC", IOCTL_ALLOC as usize),
    ("DMASHARE_IOCTL_WRAP", IOCTL_WRAP as usize),
    ("DMASHARE_IOCTL_QUERY", IOCTL_QUERY as usize),
];
