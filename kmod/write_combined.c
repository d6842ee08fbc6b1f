// SPDX-License-Identifier: GPL-2.0
/*
 * CPU cache mode of a buffer's pages: write-combined and back.
 *
 * On x86 all mappings of a page must agree on its mode, the kernel's direct map
 * included. Large blocks are changed as a whole, which keeps the large entries of
 * the direct map; what is smaller is collected, so that caches and TLBs are
 * flushed once for many pages.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/sched/signal.h>

#include "compat.h"
#include "dmashare.h"

/* Pages changed at once. */
#define DMASHARE_BATCH (DMASHARE_STEP >> PAGE_SHIFT)

/*
 * Pages collected for one change. Not allocated, since the way back must not fail
 * for want of memory; and changes are serialised by the architecture anyway.
 */
static struct page *dmashare_pages[DMASHARE_BATCH];
static DEFINE_MUTEX(dmashare_pages_lock);

/**
 * struct dmashare_batch - change of mode under way
 * @count: number of pages in dmashare_pages
 * @write_combined: the new mode
 */
struct dmashare_batch {
	unsigned int count;
	bool write_combined;
};

static int dmashare_batch_flush(struct dmashare_batch *batch)
{
	int ret;

	if (!batch->count)
		return 0;

	if (batch->write_combined)
		ret = set_pages_array_wc(dmashare_pages, batch->count);
	else
		ret = set_pages_array_wb(dmashare_pages, batch->count);
	batch->count = 0;
	return ret;
}

static int dmashare_set_block(struct page *page, unsigned long count, bool write_combined)
{
	unsigned long address = (unsigned long)page_address(page);

	return write_combined ? set_memory_wc(address, count) : set_memory_wb(address, count);
}

/* Change a run of pages; a killed caller is let go on the way to a new buffer only. */
static int dmashare_batch_add(struct dmashare_batch *batch, struct page *page,
			      unsigned long count)
{
	int ret = 0;

	for (; count && !ret; cond_resched()) {
		unsigned long part = min_t(unsigned long, count, DMASHARE_BATCH);

		if (batch->write_combined && fatal_signal_pending(current))
			return -EINTR;

		if (part << PAGE_SHIFT >= PMD_SIZE) {
			ret = dmashare_set_block(page, part, batch->write_combined);
		} else {
			part = 1;
			dmashare_pages[batch->count++] = page;
			if (batch->count == DMASHARE_BATCH)
				ret = dmashare_batch_flush(batch);
		}
		page = dmashare_nth_page(page, part);
		count -= part;
	}
	return ret;
}

static int dmashare_set_mode(struct dmashare_memory *memory, bool write_combined)
{
	struct dmashare_batch batch = { .write_combined = write_combined };
	struct page *page;
	int ret = 0;

	mutex_lock(&dmashare_pages_lock);
	if (memory->kind == DMASHARE_CONTIGUOUS) {
		ret = dmashare_batch_add(&batch, sg_page(memory->chunks.sgl),
					 memory->size >> PAGE_SHIFT);
	} else {
		list_for_each_entry(page, &memory->blocks, lru) {
			ret = dmashare_batch_add(&batch, page, 1UL << compound_order(page));
			if (ret)
				break;
		}
	}
	if (!ret)
		ret = dmashare_batch_flush(&batch);

	mutex_unlock(&dmashare_pages_lock);
	return ret;
}

/**
 * dmashare_set_cached - make pages cached again, before they are freed
 * @memory: pages that are write-combined, all or some
 *
 * Return: 0; or an error, and the pages must not be freed: others would use them
 * write-combined, and mapped in two modes.
 */
int dmashare_set_cached(struct dmashare_memory *memory)
{
	int ret = dmashare_set_mode(memory, false);

	if (ret)
		pr_warn("%zu bytes are lost: they cannot be made cached again (%d)\n",
			memory->size, ret);
	return ret;
}

/**
 * dmashare_set_write_combined - make pages write-combined
 * @memory: cached pages
 *
 * Return: 0; -ENOMEM; or -EINTR when killed meanwhile. On an error some may be
 * write-combined.
 */
int dmashare_set_write_combined(struct dmashare_memory *memory)
{
	int ret = dmashare_set_mode(memory, true);

	return ret && ret != -EINTR ? -ENOMEM : ret;
}
