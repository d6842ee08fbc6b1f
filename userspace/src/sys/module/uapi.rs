//! Made from `kmod/dmashare_uapi.h`; do not edit. Change that, and run
//! `DMASHARE_UPDATE=1 cargo test -p dmashare-tests --test host_uapi`.
//!
//! The interface of /dev/dmashare: dma-bufs of the shape that the caller asks
//! for, on any kernel.
//!
//! It is the one source of the interface: the Rust crate's structures are made
//! from it. Every structure has the same layout for 32-bit and 64-bit programs;
//! fields called reserved, and flags that are not named here, must be zero. A
//! call that fails changes nothing and leaves its argument as it was.

#![allow(dead_code, reason = "it is all of the header, used here or not")]

#[cfg(test)]
use std::mem::offset_of;

use rustix::ioctl::{Opcode, opcode};

/// What this header describes. `IOCTL_INFO`, and
/// /sys/module/dmashare/version, tell what the loaded module speaks: the same
/// interface, and maybe more, where its number is not lower.
pub(crate) const API_VERSION: u32 = 2;

/// Bytes of a buffer's name, with the zero byte at its end.
pub(crate) const NAME_LEN: u32 = 32;

/// Most ranges in one `IOCTL_WRAP`.
pub(crate) const MAX_RANGES: u32 = 1024;

// Flags of `Alloc`.

/// One run of pages without a gap, for devices that cannot gather pages.
pub(crate) const ALLOC_CONTIGUOUS: u32 = 0x1;

/// Below 4 GiB of the machine's memory, for devices with 32 address lines.
pub(crate) const ALLOC_BELOW_4G: u32 = 0x2;

/// Mapped write-combined by the CPU, in user space and in the kernel: quick to
/// fill from one end to the other, slow to read. On x86 only: elsewhere it is not
/// in `alloc_flags` of `Info`, and EINVAL.
pub(crate) const ALLOC_WRITE_COMBINED: u32 = 0x4;

/// Argument of `IOCTL_ALLOC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alloc {
    /// In: bytes wanted, more than zero; the buffer has this rounded up to
    /// whole pages, and lseek(fd, 0, SEEK_END) tells how many that are.
    pub(crate) size: u64,
    /// In: the most bytes in one entry of the scatter list: a page's size or
    /// that times a power of two; or zero, which leaves it to the module and
    /// gives chunks as large as can be had without waiting. Neighbours are not
    /// merged, so that a page's size gives one entry a page. An importer's
    /// device that takes shorter segments yet gets shorter ones. Must be zero
    /// for contiguous memory.
    pub(crate) max_chunk: u64,
    /// In: `ALLOC_CONTIGUOUS` and so on.
    pub(crate) flags: u32,
    /// Out: how many entries the scatter list has.
    pub(crate) chunks: u32,
    /// Out: the dma-buf, opened O_RDWR | O_CLOEXEC; the caller closes it.
    pub(crate) fd: i32,
    /// In: must be zero.
    pub(crate) reserved0: u32,
    /// In: what the kernel calls the buffer (DMA_BUF_SET_NAME), ended by a zero
    /// byte; an empty one leaves it without a name.
    pub(crate) name: [u8; NAME_LEN as usize],
    /// In: must be zero.
    pub(crate) reserved: [u64; 2],
}

/// A part of a memfd.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range {
    /// A memfd, with F_SEAL_SHRINK and neither F_SEAL_WRITE nor
    /// F_SEAL_FUTURE_WRITE.
    pub(crate) memfd: i32,
    /// Must be zero.
    pub(crate) reserved: u32,
    /// Where it begins, in bytes: whole pages.
    pub(crate) offset: u64,
    /// Bytes, more than zero: whole pages.
    pub(crate) size: u64,
}

/// Argument of `IOCTL_WRAP`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wrap {
    /// In: address of an array of `Range`; the buffer is made of them in this
    /// order.
    pub(crate) ranges: u64,
    /// In: how many, 1 to `MAX_RANGES`.
    pub(crate) count: u32,
    /// In: must be zero.
    pub(crate) flags: u32,
    /// Out: how many entries the scatter list has; pages of one range that
    /// follow each other in memory are one.
    pub(crate) chunks: u32,
    /// Out: as in `Alloc`.
    pub(crate) fd: i32,
    /// In: as in `Alloc`.
    pub(crate) name: [u8; NAME_LEN as usize],
    /// In: must be zero.
    pub(crate) reserved: [u64; 2],
}

// What the module added to this kernel, in `nodes` of `Info`.

/// /dev/udmabuf is the module's.
pub(crate) const NODE_UDMABUF: u32 = 0x1;

/// /dev/dma_heap/system is the module's.
pub(crate) const NODE_DMA_HEAP: u32 = 0x2;

/// The kernel's dma_heap framework has a heap "dmashare", the module's.
pub(crate) const NODE_HEAP: u32 = 0x4;

/// Argument of `IOCTL_INFO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Info {
    /// Out: `API_VERSION` of the module.
    pub(crate) version: u32,
    /// Out: the flags that `IOCTL_ALLOC` takes.
    pub(crate) alloc_flags: u32,
    /// Out: `NODE_UDMABUF` and so on.
    pub(crate) nodes: u32,
    /// Out: zero.
    pub(crate) reserved0: u32,
    /// Out: most bytes in one buffer, now.
    pub(crate) max_buffer: u64,
    /// Out: bytes in live buffers that were made through this open file.
    pub(crate) file_used: u64,
    /// Out: most bytes in them, now.
    pub(crate) file_max: u64,
    /// Out: bytes in all live buffers.
    pub(crate) total_used: u64,
    /// Out: most bytes in them, now.
    pub(crate) total_max: u64,
    /// Out: how many live buffers there are.
    pub(crate) buffers: u64,
    /// Out: zero.
    pub(crate) reserved: [u64; 3],
}

/// Allocate zeroed memory and export it as a dma-buf.
///
/// The memory is charged to the caller's memory cgroup, but for contiguous runs
/// longer than the kernel's page allocator has (4 MiB on x86-64), which no cgroup
/// can count. It lives until the last fd, mapping and importer let go of it, which
/// may be long after the caller's end.
///
/// Return: 0, or -1 with errno:
///
/// * EINVAL: `size` is zero, `max_chunk` is no power of two of pages or does not
///   go with `flags`, a flag is unknown, `name` has no end, or something reserved
///   is not zero.
/// * E2BIG: one of the limits in /sys/module/dmashare/parameters does not allow
///   it: max_buffer_mb for one buffer, max_file_mb for all live buffers that were
///   made through this open file, max_total_mb for all live buffers. Or it is
///   more than the module can count: 4 GiB for a contiguous buffer, 2^31 - 1
///   pages for another.
/// * ENOMEM: the system or the memory cgroup has not that much to give, or no
///   free run of that length; no other process is killed to make room.
/// * EMFILE: the caller has no free file descriptor.
/// * EINTR: the caller was killed meanwhile.
/// * EFAULT: the argument is not the caller's memory.
pub(crate) const IOCTL_ALLOC: Opcode = opcode::read_write::<Alloc>(b'D', 0x01);

/// Export memory of memfds as a dma-buf, without a copy.
///
/// The pages are pinned and stay charged to whom they were charged; what is not
/// there yet is allocated. While the buffer lives, F_SEAL_WRITE cannot be added
/// (EBUSY). A hole that is punched takes the pages from the memfd, not from the
/// buffer.
///
/// Return: 0, or -1 with errno:
///
/// * EINVAL: no range, too many, one that is not whole pages, is empty or goes
///   beyond its memfd's end; a memfd without F_SEAL_SHRINK or with F_SEAL_WRITE
///   or F_SEAL_FUTURE_WRITE; `name` has no end; `flags` or something reserved is
///   not zero.
/// * EBADF: a memfd is no open file.
/// * EBADFD: a memfd is no file of the memory file systems.
/// * EACCES: a memfd is not open for writing.
/// * ENOSPC, EIO: the memfd's pages cannot be had, for want of huge pages or of
///   commit limit, or because of a failing memory.
/// * E2BIG, ENOMEM, EMFILE, EINTR, EFAULT: as for `IOCTL_ALLOC`, `ranges`
///   included; and E2BIG for a range of 4 GiB or more.
pub(crate) const IOCTL_WRAP: Opcode = opcode::read_write::<Wrap>(b'D', 0x02);

/// What the module speaks, and what is left of its limits.
///
/// Return: 0, or -1 with errno EFAULT: the argument is not the caller's memory.
pub(crate) const IOCTL_INFO: Opcode = opcode::read::<Info>(b'D', 0x03);

/// Each of the above as an expression in C, and what it is here: the test
/// `host_uapi` has a C compiler check them.
#[cfg(test)]
#[rustfmt::skip]
pub(crate) const LAYOUT: &[(&str, usize)] = &[
    ("DMASHARE_API_VERSION", API_VERSION as usize),
    ("DMASHARE_NAME_LEN", NAME_LEN as usize),
    ("DMASHARE_MAX_RANGES", MAX_RANGES as usize),
    ("DMASHARE_ALLOC_CONTIGUOUS", ALLOC_CONTIGUOUS as usize),
    ("DMASHARE_ALLOC_BELOW_4G", ALLOC_BELOW_4G as usize),
    ("DMASHARE_ALLOC_WRITE_COMBINED", ALLOC_WRITE_COMBINED as usize),
    ("sizeof(struct dmashare_alloc)", size_of::<Alloc>()),
    ("offsetof(struct dmashare_alloc, size)", offset_of!(Alloc, size)),
    ("offsetof(struct dmashare_alloc, max_chunk)", offset_of!(Alloc, max_chunk)),
    ("offsetof(struct dmashare_alloc, flags)", offset_of!(Alloc, flags)),
    ("offsetof(struct dmashare_alloc, chunks)", offset_of!(Alloc, chunks)),
    ("offsetof(struct dmashare_alloc, fd)", offset_of!(Alloc, fd)),
    ("offsetof(struct dmashare_alloc, reserved0)", offset_of!(Alloc, reserved0)),
    ("offsetof(struct dmashare_alloc, name)", offset_of!(Alloc, name)),
    ("offsetof(struct dmashare_alloc, reserved)", offset_of!(Alloc, reserved)),
    ("sizeof(struct dmashare_range)", size_of::<Range>()),
    ("offsetof(struct dmashare_range, memfd)", offset_of!(Range, memfd)),
    ("offsetof(struct dmashare_range, reserved)", offset_of!(Range, reserved)),
    ("offsetof(struct dmashare_range, offset)", offset_of!(Range, offset)),
    ("offsetof(struct dmashare_range, size)", offset_of!(Range, size)),
    ("sizeof(struct dmashare_wrap)", size_of::<Wrap>()),
    ("offsetof(struct dmashare_wrap, ranges)", offset_of!(Wrap, ranges)),
    ("offsetof(struct dmashare_wrap, count)", offset_of!(Wrap, count)),
    ("offsetof(struct dmashare_wrap, flags)", offset_of!(Wrap, flags)),
    ("offsetof(struct dmashare_wrap, chunks)", offset_of!(Wrap, chunks)),
    ("offsetof(struct dmashare_wrap, fd)", offset_of!(Wrap, fd)),
    ("offsetof(struct dmashare_wrap, name)", offset_of!(Wrap, name)),
    ("offsetof(struct dmashare_wrap, reserved)", offset_of!(Wrap, reserved)),
    ("DMASHARE_NODE_UDMABUF", NODE_UDMABUF as usize),
    ("DMASHARE_NODE_DMA_HEAP", NODE_DMA_HEAP as usize),
    ("DMASHARE_NODE_HEAP", NODE_HEAP as usize),
    ("sizeof(struct dmashare_info)", size_of::<Info>()),
    ("offsetof(struct dmashare_info, version)", offset_of!(Info, version)),
    ("offsetof(struct dmashare_info, alloc_flags)", offset_of!(Info, alloc_flags)),
    ("offsetof(struct dmashare_info, nodes)", offset_of!(Info, nodes)),
    ("offsetof(struct dmashare_info, reserved0)", offset_of!(Info, reserved0)),
    ("offsetof(struct dmashare_info, max_buffer)", offset_of!(Info, max_buffer)),
    ("offsetof(struct dmashare_info, file_used)", offset_of!(Info, file_used)),
    ("offsetof(struct dmashare_info, file_max)", offset_of!(Info, file_max)),
    ("offsetof(struct dmashare_info, total_used)", offset_of!(Info, total_used)),
    ("offsetof(struct dmashare_info, total_max)", offset_of!(Info, total_max)),
    ("offsetof(struct dmashare_info, buffers)", offset_of!(Info, buffers)),
    ("offsetof(struct dmashare_info, reserved)", offset_of!(Info, reserved)),
    ("DMASHARE_IOCTL_ALLOC", IOCTL_ALLOC as usize),
    ("DMASHARE_IOCTL_WRAP", IOCTL_WRAP as usize),
    ("DMASHARE_IOCTL_INFO", IOCTL_INFO as usize),
];
