/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface of the nodes below /dev/dmashare: dma-bufs of a chosen kind of
 * memory and of a chosen shape, on any kernel.
 *
 * One node for each kind of memory, so that udev can grant each one apart:
 *
 *	/dev/dmashare/system		pages from the page allocator: ALLOC
 *	/dev/dmashare/contiguous	one run of pages: ALLOC
 *	/dev/dmashare/memfd		pinned pages of memfds: WRAP
 *
 * INFO and QUERY work on every node; the other request fails with ENOTTY.
 *
 * This header is the only source of the interface: the structures of the Rust
 * crate are generated from it. The layout is the same for 32-bit and 64-bit
 * programs.
 *
 * Structures can grow at their end. Each begins with its size in bytes, set by
 * the caller to sizeof(). A shorter structure than the module's is extended with
 * zeroes; a longer one is accepted if all bytes that the module does not know are
 * zero, else E2BIG. A size below that of the first version (DMASHARE_*_SIZE_V0)
 * is EINVAL. Reserved fields, and flags not defined here, must be zero, else
 * EINVAL.
 *
 * ALLOC and WRAP return the new fd. A request that fails changes nothing, with
 * one exception, described at DMASHARE_IOCTL_WRAP.
 */
#ifndef _UAPI_DMASHARE_H
#define _UAPI_DMASHARE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Unused in Documentation/userspace-api/ioctl/ioctl-number.rst, as of Linux 7.3. */
#define DMASHARE_IOCTL_TYPE 0xDA

/* Most ranges in one DMASHARE_IOCTL_WRAP. */
#define DMASHARE_MAX_RANGES 1024

/* Kinds of memory: @memory of &struct dmashare_info and &struct dmashare_query. */
#define DMASHARE_MEMORY_SYSTEM 1
#define DMASHARE_MEMORY_CONTIGUOUS 2
#define DMASHARE_MEMORY_MEMFD 3

/* Flags of &struct dmashare_alloc. */

/* Below 4 GiB of physical memory, for devices with 32-bit DMA addresses. */
#define DMASHARE_ALLOC_BELOW_4G 0x1
/*
 * Write-combined CPU mappings, in user space and in the kernel: fast sequential
 * writes, slow reads. On x86 only; elsewhere INFO does not report
 * DMASHARE_FEATURE_WRITE_COMBINED and the flag is EINVAL.
 */
#define DMASHARE_ALLOC_WRITE_COMBINED 0x2

/**
 * struct dmashare_alloc - argument of DMASHARE_IOCTL_ALLOC
 * @size: in: sizeof(struct dmashare_alloc)
 * @fd_flags: in: flags of the new fd: O_CLOEXEC, and O_RDONLY, O_WRONLY or O_RDWR
 * @length: in: bytes, more than zero; rounded up to whole pages.
 *	lseek(fd, 0, SEEK_END) returns the result
 * @max_chunk: in: most bytes in one entry of the scatter list: the page size,
 *	or the page size times a power of two; or zero, for entries of up to 2 MiB,
 *	as long as are free. Entries are not merged with their neighbours, so that
 *	the page size gives one entry a page. A device with a smaller maximum
 *	segment size gets shorter entries. Must be zero for contiguous memory
 * @flags: in: DMASHARE_ALLOC_*
 * @reserved: in: zero
 */
struct dmashare_alloc {
	__u32 size;
	__u32 fd_flags;
	__u64 length;
	__u64 max_chunk;
	__u32 flags;
	__u32 reserved;
};

#define DMASHARE_ALLOC_SIZE_V0 32

/**
 * struct dmashare_range - part of a memfd
 * @memfd: fd of a memfd with F_SEAL_SHRINK, without F_SEAL_WRITE and
 *	F_SEAL_FUTURE_WRITE
 * @reserved: zero
 * @offset: first byte, a multiple of the page size
 * @length: bytes, more than zero, a multiple of the page size
 */
struct dmashare_range {
	__s32 memfd;
	__u32 reserved;
	__u64 offset;
	__u64 length;
};

/**
 * struct dmashare_wrap - argument of DMASHARE_IOCTL_WRAP
 * @size: in: sizeof(struct dmashare_wrap)
 * @fd_flags: in: as in &struct dmashare_alloc
 * @ranges: in: address of an array of &struct dmashare_range; the buffer
 *	consists of these ranges, in this order
 * @count: in: number of ranges, 1 to DMASHARE_MAX_RANGES
 * @flags: in: zero
 */
struct dmashare_wrap {
	__u32 size;
	__u32 fd_flags;
	__u64 ranges;
	__u32 count;
	__u32 flags;
};

#define DMASHARE_WRAP_SIZE_V0 24

/**
 * struct dmashare_query - argument of DMASHARE_IOCTL_QUERY
 * @size: in: sizeof(struct dmashare_query)
 * @fd: in: a dma-buf of this module, made through any of its nodes
 * @length: out: bytes
 * @memory: out: DMASHARE_MEMORY_*
 * @flags: out: DMASHARE_ALLOC_* that it was allocated with
 * @chunks: out: entries of its scatter list, before any is cut for a device.
 *	Adjacent pages of one memfd range are one entry
 * @reserved: out: zero
 */
struct dmashare_query {
	__u32 size;
	__s32 fd;
	__u64 length;
	__u32 memory;
	__u32 flags;
	__u32 chunks;
	__u32 reserved;
};

#define DMASHARE_QUERY_SIZE_V0 32

/* Features of a node: @features of &struct dmashare_info. */

/* DMASHARE_IOCTL_ALLOC */
#define DMASHARE_FEATURE_ALLOC 0x1
/* DMASHARE_IOCTL_WRAP */
#define DMASHARE_FEATURE_WRAP 0x2
/* @max_chunk of &struct dmashare_alloc */
#define DMASHARE_FEATURE_MAX_CHUNK 0x4
/* DMASHARE_ALLOC_BELOW_4G */
#define DMASHARE_FEATURE_BELOW_4G 0x8
/* DMASHARE_ALLOC_WRITE_COMBINED */
#define DMASHARE_FEATURE_WRITE_COMBINED 0x10

/* Nodes that the module added to this kernel: @nodes of &struct dmashare_info. */

/* /dev/udmabuf */
#define DMASHARE_NODE_UDMABUF 0x1
/* /dev/dma_heap/system */
#define DMASHARE_NODE_DMA_HEAP 0x2
/* The heap "dmashare" of the kernel's dma_heap framework */
#define DMASHARE_NODE_HEAP 0x4

/**
 * struct dmashare_info - argument of DMASHARE_IOCTL_INFO
 * @size: in: sizeof(struct dmashare_info)
 * @memory: out: DMASHARE_MEMORY_* of this node
 * @features: out: DMASHARE_FEATURE_* of this node
 * @nodes: out: DMASHARE_NODE_* that the module added to this kernel
 * @reserved: out: zero
 * @buffer_max: out: most bytes in one buffer, now
 * @file_used: out: bytes in live buffers made through this open file
 * @file_max: out: most bytes in them, now
 * @user_used: out: bytes in live buffers made by the caller's user
 * @user_max: out: most bytes in them, now
 * @total_used: out: bytes in all live buffers, /dev/udmabuf's apart
 * @total_max: out: most bytes in them, now
 * @buffers: out: number of live buffers, /dev/udmabuf's apart
 */
struct dmashare_info {
	__u32 size;
	__u32 memory;
	__u64 features;
	__u32 nodes;
	__u32 reserved;
	__u64 buffer_max;
	__u64 file_used;
	__u64 file_max;
	__u64 user_used;
	__u64 user_max;
	__u64 total_used;
	__u64 total_max;
	__u64 buffers;
};

#define DMASHARE_INFO_SIZE_V0 88

/**
 * DMASHARE_IOCTL_INFO - report features of this node, and the limits
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL, E2BIG: @size, as described at the head of this file.
 * * EFAULT: the argument is not memory of the caller.
 */
#define DMASHARE_IOCTL_INFO _IO(DMASHARE_IOCTL_TYPE, 0x00)

/**
 * DMASHARE_IOCTL_ALLOC - allocate zeroed memory and export it as a dma-buf
 *
 * The memory is charged to the caller's memory cgroup, with one exception:
 * contiguous runs longer than the page allocator supports (4 MiB on x86-64),
 * which a module cannot charge. It comes from NUMA nodes that the caller's cpuset
 * allows. It is freed with the last fd, mapping and importer, possibly long after
 * the caller's exit.
 *
 * Return: the fd of the dma-buf, or -1 with errno:
 *
 * * EINVAL: @length is zero, @max_chunk is not the page size times a power of two
 *   or not allowed here, a flag or a reserved field is not valid.
 * * EFBIG: one buffer of this length is not allowed (max_buffer_mb in
 *   /sys/module/dmashare/parameters), or is more than 4 GiB of contiguous memory
 *   or 2^31 - 1 pages of other memory.
 * * EDQUOT: max_file_mb, max_user_mb or max_total_mb does not allow it now.
 * * ENOMEM: the system or the memory cgroup does not have that much memory, or
 *   no free run of that length; no process is killed to make room.
 * * EMFILE: the caller has no free file descriptor.
 * * EINTR: the caller was killed.
 * * E2BIG, EFAULT: as for DMASHARE_IOCTL_INFO.
 */
#define DMASHARE_IOCTL_ALLOC _IO(DMASHARE_IOCTL_TYPE, 0x01)

/**
 * DMASHARE_IOCTL_WRAP - export memory of memfds as a dma-buf, without a copy
 *
 * The pages are pinned and stay charged as they were. Pages that the memfd does
 * not have yet are allocated. While the memfd has one of these pages, F_SEAL_WRITE
 * cannot be added (EBUSY).
 *
 * A hole punched into the memfd (fallocate(2)) removes whole pages from the
 * memfd; the buffer keeps them. A hole that covers only a part of a huge page
 * zeroes that part in both.
 *
 * All arguments are checked before the first page is allocated. If memory runs
 * out after that, a page is pinned too often, or the caller is killed, then pages
 * allocated so far stay in the memfd.
 *
 * Return: the fd of the dma-buf, or -1 with errno:
 *
 * * EINVAL: no range, too many, one that is not whole pages, is empty or exceeds
 *   its memfd's size; a memfd without F_SEAL_SHRINK or with F_SEAL_WRITE or
 *   F_SEAL_FUTURE_WRITE; a flag or a reserved field is not valid.
 * * EBADF: a memfd is not an open file.
 * * EBADFD: a memfd is not a file of tmpfs or hugetlbfs.
 * * EACCES: a memfd is not open for writing.
 * * EMLINK: a page would be pinned too often (more than about 16,000 times).
 * * ENOSPC, EIO: the memfd's pages cannot be allocated or read: no free huge
 *   pages, or a hardware memory error.
 * * EFBIG: as for DMASHARE_IOCTL_ALLOC, or a range of 4 GiB or more.
 * * ENOMEM: memory ran out. Missing pages are allocated as by a write(2) to the
 *   memfd, for which the OOM killer may make room.
 * * EDQUOT, EMFILE, EINTR, E2BIG, EFAULT: as for DMASHARE_IOCTL_ALLOC, @ranges
 *   included.
 */
#define DMASHARE_IOCTL_WRAP _IO(DMASHARE_IOCTL_TYPE, 0x02)

/**
 * DMASHARE_IOCTL_QUERY - describe a dma-buf of this module
 *
 * Return: 0, or -1 with errno:
 *
 * * EBADF: @fd is not an open file.
 * * EINVAL: @fd is not a dma-buf of this module; a reserved field is not zero.
 * * E2BIG, EFAULT: as for DMASHARE_IOCTL_INFO.
 */
#define DMASHARE_IOCTL_QUERY _IO(DMASHARE_IOCTL_TYPE, 0x03)

#endif /* _UAPI_DMASHARE_H */
