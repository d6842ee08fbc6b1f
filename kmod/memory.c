// SPDX-License-Identifier: GPL-2.0
/*
 * Allocated pages of a buffer: as scattered or as contiguous as requested, zeroed,
 * charged to the memory cgroup of the caller, and of nodes that its cpuset allows.
 */

#include <linux/list.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "compat.h"
#include "dmashare.h"

/*
 * Fail, rather than kill a process or fill the log, when memory is short: the
 * size is the user's choice. And not from high memory, which has no kernel mapping
 * whose cache mode could be changed.
 */
#define DMASHARE_GFP \
	(GFP_USER | __GFP_ACCOUNT | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* 2 MiB: what one entry of a page table, or of an IOMMU's, can map at once. */
#define DMASHARE_DEFAULT_ORDER (21 - PAGE_SHIFT)

/*
 * The largest block that is free, of this order at most. Only single pages are
 * worth waiting for.
 */
static struct page *dmashare_alloc_block(gfp_t gfp, unsigned int order)
{
	struct page *page;

	for (; order; order--) {
		page = alloc_pages((gfp & ~(__GFP_RECLAIM | __GFP_RETRY_MAYFAIL)) |
				   __GFP_NORETRY | __GFP_COMP, order);
		if (page)
			return page;
	}

	return alloc_page(gfp);
}

static size_t dmashare_block_size(struct page *block)
{
	return PAGE_SIZE << compound_order(block);
}

static void dmashare_free_blocks(struct dmashare_memory *memory)
{
	struct page *block, *next;

	list_for_each_entry_safe(block, next, &memory->blocks, lru) {
		list_del(&block->lru);
		__free_pages(block, compound_order(block));
		cond_resched();
	}
}

/* BELOW_4G is the name of a zone, which not every machine has. */
static bool dmashare_is_in_reach(struct page *page, size_t length,
				 const struct dmashare_shape *shape)
{
	return !(shape->flags & DMASHARE_ALLOC_BELOW_4G) ||
	       page_to_phys(page) + length <= BIT_ULL(32);
}

static int dmashare_alloc_blocks(struct dmashare_memory *memory,
				 const struct dmashare_shape *shape)
{
	unsigned long left = shape->size >> PAGE_SHIFT;
	unsigned int order = DMASHARE_DEFAULT_ORDER;
	gfp_t gfp = DMASHARE_GFP;

	if (shape->flags & DMASHARE_ALLOC_BELOW_4G)
		gfp |= GFP_DMA32;

	/*
	 * The mode of large blocks is changed at once, and without splitting the
	 * kernel's direct map: their entries are cut, not they.
	 */
	if (shape->max_chunk && !(shape->flags & DMASHARE_ALLOC_WRITE_COMBINED))
		order = ilog2(shape->max_chunk) - PAGE_SHIFT;
	order = min_t(unsigned int, order, DMASHARE_MAX_ORDER);

	while (left) {
		struct page *block;

		/* A big buffer takes a while: let a killed caller go. */
		if (fatal_signal_pending(current))
			return -EINTR;

		order = min_t(unsigned int, order, ilog2(left));
		block = dmashare_alloc_block(gfp, order);
		if (!block)
			return -ENOMEM;
		list_add_tail(&block->lru, &memory->blocks);
		if (!dmashare_is_in_reach(block, dmashare_block_size(block), shape))
			return -ENOMEM;

		/* What was not free is not asked for again. */
		order = compound_order(block);
		left -= 1UL << order;
		cond_resched();
	}

	return 0;
}

/* An entry a block, or several where a block is longer than an entry may be. */
static int dmashare_list_blocks(struct dmashare_memory *memory, u64 max_chunk)
{
	struct scatterlist *sg;
	unsigned int count = 0;
	struct page *block;
	int ret;

	list_for_each_entry(block, &memory->blocks, lru) {
		size_t length = dmashare_block_size(block);

		count += max_chunk && max_chunk < length ? length >> ilog2(max_chunk) : 1;
	}

	ret = sg_alloc_table(&memory->chunks, count, DMASHARE_GFP_ACCOUNT);
	if (ret)
		return ret;

	sg = memory->chunks.sgl;
	list_for_each_entry(block, &memory->blocks, lru) {
		size_t length = dmashare_block_size(block);
		size_t part = max_chunk ? min_t(u64, max_chunk, length) : length;
		size_t done;

		for (done = 0; done < length; done += part, sg = sg_next(sg))
			sg_set_page(sg, dmashare_nth_page(block, done >> PAGE_SHIFT),
				    part, 0);
	}

	return 0;
}

static int dmashare_alloc_system(struct dmashare_memory *memory,
				 const struct dmashare_shape *shape)
{
	int ret = dmashare_alloc_blocks(memory, shape);

	if (!ret)
		ret = dmashare_list_blocks(memory, shape->max_chunk);
	if (ret)
		dmashare_free_blocks(memory);
	return ret;
}

static int dmashare_alloc_contiguous(struct dmashare_memory *memory,
				     const struct dmashare_shape *shape)
{
	unsigned long count = shape->size >> PAGE_SHIFT;
	struct page *page;
	int ret = -ENOMEM;

	page = dmashare_alloc_run(count, shape);
	if (!page)
		return fatal_signal_pending(current) ? -EINTR : -ENOMEM;

	if (dmashare_is_in_reach(page, shape->size, shape))
		ret = sg_alloc_table(&memory->chunks, 1, DMASHARE_GFP_ACCOUNT);
	if (ret) {
		dmashare_free_run(page, count);
		return ret;
	}

	sg_set_page(memory->chunks.sgl, page, shape->size, 0);
	return 0;
}

/**
 * dmashare_memory_free - free pages, wherever they came from
 * @memory: what dmashare_memory_alloc() or dmashare_memory_wrap() made
 */
void dmashare_memory_free(struct dmashare_memory *memory)
{
	if (memory->kind == DMASHARE_MEMFD) {
		dmashare_memory_unwrap(memory);
		return;
	}

	/* If that fails the pages are leaked on purpose; it has said so. */
	if (!(memory->flags & DMASHARE_ALLOC_WRITE_COMBINED) || !dmashare_set_cached(memory)) {
		if (memory->kind == DMASHARE_CONTIGUOUS)
			dmashare_free_run(sg_page(memory->chunks.sgl),
					  memory->size >> PAGE_SHIFT);
		else
			dmashare_free_blocks(memory);
	}
	sg_free_table(&memory->chunks);
}

/**
 * dmashare_memory_alloc - allocate zeroed pages
 * @memory: to be filled in; all zero
 * @shape: requested form; its size is whole pages
 *
 * Return: 0, and dmashare_memory_free() is owed; -ENOMEM; or -EINTR when killed
 * meanwhile.
 */
int dmashare_memory_alloc(struct dmashare_memory *memory,
			  const struct dmashare_shape *shape)
{
	int ret;

	INIT_LIST_HEAD(&memory->blocks);
	memory->size = shape->size;
	memory->kind = shape->kind;
	memory->flags = shape->flags;

	if (shape->kind == DMASHARE_CONTIGUOUS)
		ret = dmashare_alloc_contiguous(memory, shape);
	else
		ret = dmashare_alloc_system(memory, shape);

	if (!ret && shape->flags & DMASHARE_ALLOC_WRITE_COMBINED) {
		ret = dmashare_set_write_combined(memory);
		if (ret)
			dmashare_memory_free(memory);
	}

	return ret;
}
