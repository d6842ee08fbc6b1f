// SPDX-License-Identifier: GPL-2.0
/*
 * Pages for a buffer: as scattered or as contiguous as it was asked for, zeroed,
 * and charged to the memory cgroup of the caller.
 */

#include <linux/highmem.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/sched/signal.h>

#include "compat.h"
#include "dmashare.h"

/*
 * Fail, rather than kill a process or fill the log, when memory is short: how
 * much is asked for is the user's choice. And not from high memory, which
 * set_memory_wc() does not know.
 */
#define DMASHARE_GFP \
	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* 2 MiB: what one entry of a page table, or of an IOMMU's, can map at once. */
#define DMASHARE_DEFAULT_ORDER (21 - PAGE_SHIFT)

static gfp_t dmashare_gfp(const struct dmashare_shape *shape)
{
	return DMASHARE_GFP |
	       (shape->flags & DMASHARE_ALLOC_BELOW_4G ? GFP_DMA32 : 0);
}

/*
 * The largest chunk that can be had at once, of this order at most. Only single
 * pages are worth waiting for.
 */
static struct page *dmashare_alloc_chunk(gfp_t gfp, unsigned int order)
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

/* Whole, where it was allocated whole; else page by page. */
static void dmashare_free_chunk(struct page *page, size_t length)
{
	unsigned int order = compound_order(page);
	unsigned long pfn = page_to_pfn(page);
	unsigned long end = pfn + (length >> PAGE_SHIFT);

	if (length == PAGE_SIZE << order) {
		__free_pages(page, order);
		return;
	}

	for (; pfn < end; pfn++) {
		__free_page(pfn_to_page(pfn));
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

static int dmashare_alloc_scattered(struct dmashare_memory *memory,
				    const struct dmashare_shape *shape)
{
	unsigned long left = shape->size >> PAGE_SHIFT;
	unsigned int order = DMASHARE_DEFAULT_ORDER;
	unsigned int count = 0;
	struct page *page, *next;
	struct scatterlist *sg;
	LIST_HEAD(chunks);
	int ret;

	if (shape->max_chunk)
		order = ilog2(shape->max_chunk) - PAGE_SHIFT;
	order = min_t(unsigned int, order, DMASHARE_MAX_ORDER);

	while (left) {
		/* A big buffer takes a while: let a killed caller go. */
		ret = -EINTR;
		if (fatal_signal_pending(current))
			goto free_chunks;

		ret = -ENOMEM;
		order = min_t(unsigned int, order, ilog2(left));
		page = dmashare_alloc_chunk(dmashare_gfp(shape), order);
		if (!page)
			goto free_chunks;

		/* What was not to be had is not asked for again. */
		order = compound_order(page);
		left -= 1UL << order;
		list_add_tail(&page->lru, &chunks);
		count++;
		if (!dmashare_is_in_reach(page, PAGE_SIZE << order, shape))
			goto free_chunks;
		cond_resched();
	}

	ret = sg_alloc_table(&memory->chunks, count, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (ret)
		goto free_chunks;

	sg = memory->chunks.sgl;
	list_for_each_entry_safe(page, next, &chunks, lru) {
		list_del(&page->lru);
		sg_set_page(sg, page, PAGE_SIZE << compound_order(page), 0);
		sg = sg_next(sg);
	}

	return 0;

free_chunks:
	list_for_each_entry_safe(page, next, &chunks, lru) {
		list_del(&page->lru);
		dmashare_free_chunk(page, PAGE_SIZE << compound_order(page));
	}
	return ret;
}

/*
 * Whether alloc_contig_range() could give these pages: all of this zone, and
 * free; or, with @movable, maybe used by someone whose page can be moved. @bad is
 * set to one that is not. It only guesses: nothing is locked.
 */
static bool dmashare_could_be_run(struct zone *zone, unsigned long pfn,
				  unsigned long count, bool movable,
				  unsigned long *bad)
{
	unsigned long end = pfn + count;

	while (pfn < end) {
		struct page *page = pfn_to_online_page(pfn);

		*bad = pfn;
		if (!page || page_zone(page) != zone || PageReserved(page))
			return false;

		if (PageBuddy(page)) {
			/* The first of a free block, whose order this is. */
			pfn += 1UL << min_t(unsigned long, page_private(page),
					    DMASHARE_MAX_ORDER);
		} else if (movable && (PageLRU(page) || PageHuge(page) ||
				       !page_count(page))) {
			pfn++;
		} else {
			return false;
		}
		cond_resched();
	}

	return true;
}

static struct page *dmashare_find_run(struct zone *zone, unsigned long count,
				      const struct dmashare_shape *shape, bool movable)
{
	unsigned long pfn = ALIGN(zone->zone_start_pfn, pageblock_nr_pages);
	unsigned long end = zone_end_pfn(zone);
	gfp_t gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;
	unsigned long bad;

	if (shape->flags & DMASHARE_ALLOC_BELOW_4G)
		end = min_t(u64, end, BIT_ULL(32) >> PAGE_SHIFT);

	while (pfn < end && count <= end - pfn) {
		if (fatal_signal_pending(current))
			return NULL;

		if (!dmashare_could_be_run(zone, pfn, count, movable, &bad))
			pfn = ALIGN(bad + 1, pageblock_nr_pages);
		else if (dmashare_alloc_contig_range(pfn, pfn + count, gfp))
			/* Someone was quicker, or does not let it be moved. */
			pfn += pageblock_nr_pages;
		else
			return pfn_to_page(pfn);
		cond_resched();
	}

	return NULL;
}

/*
 * What alloc_contig_pages() does, which modules may call on newer kernels only.
 * High zones first, to leave the lower ones to those who need them; and what
 * is free before what must be moved.
 */
static struct page *dmashare_alloc_range(unsigned long count,
					 const struct dmashare_shape *shape)
{
	struct page *page;
	unsigned long pfn, end;
	int movable, nid, z;

	for (movable = 0; movable <= 1; movable++) {
		for_each_online_node(nid) {
			for (z = MAX_NR_ZONES - 1; z >= 0; z--) {
				struct zone *zone = &NODE_DATA(nid)->node_zones[z];

				/* Not for memory that is held for long; nor high. */
				if (z == ZONE_MOVABLE || is_highmem_idx(z) ||
				    !populated_zone(zone))
					continue;

				page = dmashare_find_run(zone, count, shape, movable);
				if (page)
					goto found;
			}
		}
	}

	return NULL;

found:
	pfn = page_to_pfn(page);
	for (end = pfn + count; pfn < end; pfn++) {
		clear_highpage(pfn_to_page(pfn));
		cond_resched();
	}
	return page;
}

/* From the page allocator, and so charged: the rest of a block goes back. */
static struct page *dmashare_alloc_block(unsigned long count, unsigned int order,
					 gfp_t gfp)
{
	unsigned long rest = (1UL << order) - count;
	struct page *page;

	if (!rest)
		return alloc_pages(gfp | __GFP_COMP, order);

	page = alloc_pages(gfp, order);
	if (page) {
		split_page(page, order);
		for (; rest; rest--)
			__free_page(page + count + rest - 1);
	}
	return page;
}

static int dmashare_alloc_contiguous(struct dmashare_memory *memory,
				     const struct dmashare_shape *shape)
{
	unsigned long count = shape->size >> PAGE_SHIFT;
	unsigned int order = order_base_2(count);
	struct page *page;
	int ret = -ENOMEM;

	/*
	 * No second try by a range where a block was refused: it may have been the
	 * memory cgroup that refused, which nobody asks about ranges.
	 */
	if (order <= DMASHARE_MAX_ORDER)
		page = dmashare_alloc_block(count, order, dmashare_gfp(shape));
	else
		page = dmashare_alloc_range(count, shape);
	if (!page)
		return fatal_signal_pending(current) ? -EINTR : -ENOMEM;

	if (dmashare_is_in_reach(page, shape->size, shape))
		ret = sg_alloc_table(&memory->chunks, 1, GFP_KERNEL_ACCOUNT);
	if (ret) {
		dmashare_free_chunk(page, shape->size);
		return ret;
	}

	sg_set_page(memory->chunks.sgl, page, shape->size, 0);
	return 0;
}

static unsigned long dmashare_chunk_address(struct scatterlist *sg)
{
	return (unsigned long)page_address(sg_page(sg));
}

/*
 * The way back cannot fail: the kernel's mapping was split into pages where that
 * was needed on the way there.
 */
static void dmashare_set_cached(struct dmashare_memory *memory, unsigned int chunks)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(memory->chunks.sgl, sg, chunks, i)
		set_memory_wb(dmashare_chunk_address(sg), sg->length >> PAGE_SHIFT);
}

static int dmashare_set_write_combined(struct dmashare_memory *memory)
{
	struct scatterlist *sg;
	unsigned int i;
	int ret;

	for_each_sgtable_sg(&memory->chunks, sg, i) {
		ret = set_memory_wc(dmashare_chunk_address(sg), sg->length >> PAGE_SHIFT);
		if (ret) {
			/* A part of this one may have changed, too. */
			dmashare_set_cached(memory, i + 1);
			return -ENOMEM;
		}
	}

	memory->write_combined = true;
	return 0;
}

static void dmashare_free_memory(struct dmashare_memory *memory)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sgtable_sg(&memory->chunks, sg, i) {
		dmashare_free_chunk(sg_page(sg), sg->length);
		cond_resched();
	}
	sg_free_table(&memory->chunks);
}

/**
 * dmashare_memory_alloc - take zeroed pages
 * @memory: where to tell of them; all zero
 * @shape: what they are to be like
 *
 * Return: 0, and dmashare_memory_free() is owed; or -ENOMEM, or -EINTR when
 * killed meanwhile.
 */
int dmashare_memory_alloc(struct dmashare_memory *memory,
			  const struct dmashare_shape *shape)
{
	int ret;

	memory->size = shape->size;
	if (shape->flags & DMASHARE_ALLOC_CONTIGUOUS) {
		memory->kind = DMASHARE_CONTIGUOUS;
		ret = dmashare_alloc_contiguous(memory, shape);
	} else {
		memory->kind = DMASHARE_SCATTERED;
		ret = dmashare_alloc_scattered(memory, shape);
	}
	if (ret)
		return ret;

	if (shape->flags & DMASHARE_ALLOC_WRITE_COMBINED) {
		ret = dmashare_set_write_combined(memory);
		if (ret)
			dmashare_free_memory(memory);
	}

	return ret;
}

/**
 * dmashare_memory_free - give pages back, wherever they came from
 * @memory: what dmashare_memory_alloc() or dmashare_memory_wrap() made
 */
void dmashare_memory_free(struct dmashare_memory *memory)
{
	if (memory->kind == DMASHARE_MEMFD) {
		dmashare_memory_unwrap(memory);
		return;
	}

	if (memory->write_combined)
		dmashare_set_cached(memory, memory->chunks.orig_nents);
	dmashare_free_memory(memory);
}
