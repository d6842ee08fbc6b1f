/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* DMA_BUF_IOCTL_SYNC, which wants to be called again where it is interrupted. */
#ifndef SYNC_H
#define SYNC_H

#include "peer.h"

#include <linux/dma-buf.h>
#include <sys/ioctl.h>

static inline void sync_access(int fd, unsigned long long flags)
{
	struct dma_buf_sync sync = { .flags = flags };
	int done;

	do {
		done = ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync);
	} while (done < 0 && (errno == EINTR || errno == EAGAIN));
	if (done < 0)
		fail("DMA_BUF_IOCTL_SYNC");
}

#endif
