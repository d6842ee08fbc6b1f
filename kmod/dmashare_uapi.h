/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The interface of /dev/dmashare: dma-bufs for any program, on kernels that
 * offer neither /dev/udmabuf nor /dev/dma_heap.
 */
#ifndef _UAPI_DMASHARE_H
#define _UAPI_DMASHARE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * What this header describes. The loaded module says what it speaks in
 * /sys/module/dmashare/version.
 */
#define DMASHARE_API_VERSION 1

/**
 * struct dmashare_alloc - argument of DMASHARE_IOCTL_ALLOC
 * @size: in: bytes wanted, more than zero; the buffer has this rounded up to
 *	whole pages, and lseek(fd, 0, SEEK_END) tells how many that are
 * @flags: in: must be zero
 * @fd: out: the dma-buf, opened O_RDWR | O_CLOEXEC; the caller closes it. Left
 *	as it was when the call fails.
 * @reserved: in: must be zero
 *
 * The layout is the same for 32-bit and 64-bit programs.
 */
struct dmashare_alloc {
	__u64 size;
	__u32 flags;
	__s32 fd;
	__u64 reserved[2];
};

/**
 * DMASHARE_IOCTL_ALLOC - allocate zeroed memory and export it as a dma-buf
 *
 * The memory is ordinary pages, not contiguous for a device without an IOMMU.
 * It is charged to the caller's memory cgroup and lives until the last fd,
 * mapping and importer let go of it, which may be long after the caller's end.
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL: @size is zero, or @flags or @reserved is not.
 * * E2BIG: one of the limits in /sys/module/dmashare/parameters does not allow
 *   it: max_buffer_mb for one buffer, max_file_mb for all live buffers that were
 *   allocated through this open file, max_total_mb for all live buffers. Or it
 *   is more than 2^32 - 1 pages.
 * * ENOMEM: the system or the memory cgroup has not that much to give; no other
 *   process is killed to make room.
 * * EMFILE: the caller has no free file descriptor.
 * * EINTR: the caller was killed meanwhile.
 * * EFAULT: the argument is not the caller's memory.
 */
#define DMASHARE_IOCTL_ALLOC _IOWR('D', 0x01, struct dmashare_alloc)

#endif /* _UAPI_DMASHARE_H */
