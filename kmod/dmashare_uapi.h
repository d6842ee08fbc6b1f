/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The interface of /dev/dmashare: dma-bufs of the shape that the caller asks
 * for, on any kernel.
 *
 * It is the one source of the interface: the Rust crate's structures are made
 * from it. Every structure has the same layout for 32-bit and 64-bit programs;
 * fields called reserved, and flags that are not named here, must be zero. A
 * call that fails changes nothing and leaves its argument as it was.
 */
#ifndef _UAPI_DMASHARE_H
#define _UAPI_DMASHARE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * What this header describes. DMASHARE_IOCTL_INFO, and
 * /sys/module/dmashare/version, tell what the loaded module speaks: the same
 * interface, and maybe more, where its number is not lower.
 */
#define DMASHARE_API_VERSION 2

/* Bytes of a buffer's name, with the zero byte at its end. */
#define DMASHARE_NAME_LEN 32

/* Most ranges in one DMASHARE_IOCTL_WRAP. */
#define DMASHARE_MAX_RANGES 1024

/* Flags of &struct dmashare_alloc. */

/* One run of pages without a gap, for devices that cannot gather pages. */
#define DMASHARE_ALLOC_CONTIGUOUS 0x1
/* Below 4 GiB of the machine's memory, for devices with 32 address lines. */
#define DMASHARE_ALLOC_BELOW_4G 0x2
/*
 * Mapped write-combined by the CPU, in user space and in the kernel: quick to
 * fill from one end to the other, slow to read. On x86 only: elsewhere it is not
 * in @alloc_flags of &struct dmashare_info, and EINVAL.
 */
#define DMASHARE_ALLOC_WRITE_COMBINED 0x4

/**
 * struct dmashare_alloc - argument of DMASHARE_IOCTL_ALLOC
 * @size: in: bytes wanted, more than zero; the buffer has this rounded up to
 *	whole pages, and lseek(fd, 0, SEEK_END) tells how many that are
 * @max_chunk: in: the most bytes in one entry of the scatter list: a page's
 *	size or that times a power of two; or zero, which leaves it to the module
 *	and gives chunks as large as can be had without waiting. Neighbours are
 *	not merged, so that a page's size gives one entry a page. An importer's
 *	device that takes shorter segments yet gets shorter ones. Must be zero for
 *	contiguous memory.
 * @flags: in: DMASHARE_ALLOC_CONTIGUOUS and so on
 * @chunks: out: how many entries the scatter list has
 * @fd: out: the dma-buf, opened O_RDWR | O_CLOEXEC; the caller closes it
 * @reserved0: in: must be zero
 * @name: in: what the kernel calls the buffer (DMA_BUF_SET_NAME), ended by a
 *	zero byte; an empty one leaves it without a name
 * @reserved: in: must be zero
 */
struct dmashare_alloc {
	__u64 size;
	__u64 max_chunk;
	__u32 flags;
	__u32 chunks;
	__s32 fd;
	__u32 reserved0;
	__u8 name[DMASHARE_NAME_LEN];
	__u64 reserved[2];
};

/**
 * struct dmashare_range - a part of a memfd
 * @memfd: a memfd, with F_SEAL_SHRINK and neither F_SEAL_WRITE nor
 *	F_SEAL_FUTURE_WRITE
 * @reserved: must be zero
 * @offset: where it begins, in bytes: whole pages
 * @size: bytes, more than zero: whole pages
 */
struct dmashare_range {
	__s32 memfd;
	__u32 reserved;
	__u64 offset;
	__u64 size;
};

/**
 * struct dmashare_wrap - argument of DMASHARE_IOCTL_WRAP
 * @ranges: in: address of an array of &struct dmashare_range; the buffer is
 *	made of them in this order
 * @count: in: how many, 1 to DMASHARE_MAX_RANGES
 * @flags: in: must be zero
 * @chunks: out: how many entries the scatter list has; pages of one range that
 *	follow each other in memory are one
 * @fd: out: as in &struct dmashare_alloc
 * @name: in: as in &struct dmashare_alloc
 * @reserved: in: must be zero
 */
struct dmashare_wrap {
	__u64 ranges;
	__u32 count;
	__u32 flags;
	__u32 chunks;
	__s32 fd;
	__u8 name[DMASHARE_NAME_LEN];
	__u64 reserved[2];
};

/* What the module added to this kernel, in @nodes of &struct dmashare_info. */

/* /dev/udmabuf is the module's. */
#define DMASHARE_NODE_UDMABUF 0x1
/* /dev/dma_heap/system is the module's. */
#define DMASHARE_NODE_DMA_HEAP 0x2
/* The kernel's dma_heap framework has a heap "dmashare", the module's. */
#define DMASHARE_NODE_HEAP 0x4

/**
 * struct dmashare_info - argument of DMASHARE_IOCTL_INFO
 * @version: out: DMASHARE_API_VERSION of the module
 * @alloc_flags: out: the flags that DMASHARE_IOCTL_ALLOC takes
 * @nodes: out: DMASHARE_NODE_UDMABUF and so on
 * @reserved0: out: zero
 * @max_buffer: out: most bytes in one buffer, now
 * @file_used: out: bytes in live buffers that were made through this open file
 * @file_max: out: most bytes in them, now
 * @total_used: out: bytes in all live buffers
 * @total_max: out: most bytes in them, now
 * @buffers: out: how many live buffers there are
 * @reserved: out: zero
 */
struct dmashare_info {
	__u32 version;
	__u32 alloc_flags;
	__u32 nodes;
	__u32 reserved0;
	__u64 max_buffer;
	__u64 file_used;
	__u64 file_max;
	__u64 total_used;
	__u64 total_max;
	__u64 buffers;
	__u64 reserved[3];
};

/**
 * DMASHARE_IOCTL_ALLOC - allocate zeroed memory and export it as a dma-buf
 *
 * The memory is charged to the caller's memory cgroup, but for contiguous runs
 * longer than the kernel's page allocator has (4 MiB on x86-64), which no cgroup
 * can count. It lives until the last fd, mapping and importer let go of it, which
 * may be long after the caller's end.
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL: @size is zero, @max_chunk is no power of two of pages or does not
 *   go with @flags, a flag is unknown, @name has no end, or something reserved
 *   is not zero.
 * * E2BIG: one of the limits in /sys/module/dmashare/parameters does not allow
 *   it: max_buffer_mb for one buffer, max_file_mb for all live buffers that were
 *   made through this open file, max_total_mb for all live buffers. Or it is
 *   more than the module can count: 4 GiB for a contiguous buffer, 2^31 - 1
 *   pages for another.
 * * ENOMEM: the system or the memory cgroup has not that much to give, or no
 *   free run of that length; no other process is killed to make room.
 * * EMFILE: the caller has no free file descriptor.
 * * EINTR: the caller was killed meanwhile.
 * * EFAULT: the argument is not the caller's memory.
 */
#define DMASHARE_IOCTL_ALLOC _IOWR('D', 0x01, struct dmashare_alloc)

/**
 * DMASHARE_IOCTL_WRAP - export memory of memfds as a dma-buf, without a copy
 *
 * The pages are pinned and stay charged to whom they were charged; what is not
 * there yet is allocated. While the buffer lives, F_SEAL_WRITE cannot be added
 * (EBUSY). A hole that is punched takes the pages from the memfd, not from the
 * buffer.
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL: no range, too many, one that is not whole pages, is empty or goes
 *   beyond its memfd's end; a memfd without F_SEAL_SHRINK or with F_SEAL_WRITE
 *   or F_SEAL_FUTURE_WRITE; @name has no end; @flags or something reserved is
 *   not zero.
 * * EBADF: a memfd is no open file.
 * * EBADFD: a memfd is no file of the memory file systems.
 * * EACCES: a memfd is not open for writing.
 * * ENOSPC, EIO: the memfd's pages cannot be had, for want of huge pages or of
 *   commit limit, or because of a failing memory.
 * * E2BIG, ENOMEM, EMFILE, EINTR, EFAULT: as for DMASHARE_IOCTL_ALLOC, @ranges
 *   included; and E2BIG for a range of 4 GiB or more.
 */
#define DMASHARE_IOCTL_WRAP _IOWR('D', 0x02, struct dmashare_wrap)

/**
 * DMASHARE_IOCTL_INFO - what the module speaks, and what is left of its limits
 *
 * Return: 0, or -1 with errno EFAULT: the argument is not the caller's memory.
 */
#define DMASHARE_IOCTL_INFO _IOR('D', 0x03, struct dmashare_info)

#endif /* _UAPI_DMASHARE_H */
