// SPDX-License-Identifier: GPL-2.0
/*
 * The heap "dmashare" of the kernel's dma_heap framework, where a module may add
 * one.
 */

#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/err.h>
#include <linux/module.h>

#include "compat.h"
#include "dmashare.h"

static const struct dmashare_exporter dmashare_heap_exporter = {
	.name = "dmashare",
};

static struct dma_buf *dmashare_heap_allocate(struct dma_heap *heap, unsigned long len,
					      DMASHARE_HEAP_FD_FLAGS fd_flags,
					      DMASHARE_HEAP_FLAGS heap_flags)
{
	/* The framework does not pass the open file: the user's limit applies. */
	struct dmashare_request request = {
		.exporter = &dmashare_heap_exporter,
		.pool = &dmashare_own_pool,
		.fd_flags = fd_flags,
		.shape = { .kind = DMASHARE_SYSTEM, .size = len },
	};

	return dmashare_export(&request);
}

static const struct dma_heap_ops dmashare_heap_ops = {
	.allocate = dmashare_heap_allocate,
};

/**
 * dmashare_heap_init - add the heap, for as long as the kernel runs
 *
 * The framework cannot remove a heap, so that the module stays, too. It is live at
 * once: nothing that can fail may follow.
 *
 * Not to be called where DMASHARE_CAN_ADD_HEAP is false. Return: 0, or an error.
 */
int __init dmashare_heap_init(void)
{
	struct dma_heap_export_info info = {
		.name = "dmashare",
		.ops = &dmashare_heap_ops,
	};
	struct dma_heap *heap;

	__module_get(THIS_MODULE);
	heap = dmashare_dma_heap_add(&info);
	if (IS_ERR(heap)) {
		module_put(THIS_MODULE);
		return PTR_ERR(heap);
	}
	return 0;
}
