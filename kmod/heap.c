// SPDX-License-Identifier: GPL-2.0
/*
 * The heap "dmashare" of the kernel's dma_heap framework, where that takes a
 * module's.
 */

#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/module.h>

#include "compat.h"
#include "dmashare.h"

static struct dma_buf *dmashare_heap_allocate(struct dma_heap *heap, unsigned long len,
					      DMASHARE_HEAP_FD_FLAGS fd_flags,
					      DMASHARE_HEAP_FLAGS heap_flags)
{
	/* The framework does not tell whose open file asks: each is its own. */
	struct dmashare_quota *quota = dmashare_quota_open();
	struct dmashare_terms terms = {
		.quota = quota,
		.exporter = "dmashare",
		.name = "",
		.fd_flags = fd_flags & O_ACCMODE,
	};
	struct dma_buf *dmabuf;

	if (!quota)
		return ERR_PTR(-ENOMEM);

	dmabuf = dmashare_export(&terms, len, 0, 0);
	dmashare_quota_close(quota);
	return dmabuf;
}

static const struct dma_heap_ops dmashare_heap_ops = {
	.allocate = dmashare_heap_allocate,
};

/**
 * dmashare_heap_init - add the heap, for as long as the kernel runs
 *
 * The framework has no way to take a heap away, so that the module stays, too.
 *
 * Not to be called where DMASHARE_CAN_ADD_HEAP is false. Return: 0, or an error.
 */
int __init dmashare_heap_init(void)
{
	struct dma_heap_export_info info = {
		.name = "dmashare",
		.ops = &dmashare_heap_ops,
	};
	struct dma_heap *heap = dmashare_dma_heap_add(&info);

	if (IS_ERR(heap))
		return PTR_ERR(heap);

	__module_get(THIS_MODULE);
	return 0;
}
