// SPDX-License-Identifier: GPL-2.0
/*
 * One run of pages: a block of the page allocator where it has one that long,
 * otherwise a range that the kernel clears by moving other pages away.
 */

#include <linux/cpuset.h>
#include <linux/highmem.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/sched/signal.h>
#include <linux/topology.h>

#include "compat.h"
#include "dmashare.h"

/* As for other memory, but never charged: see DMASHARE_IOCTL_ALLOC. */
#define DMASHARE_RUN_GFP (GFP_USER | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/*
 * Moving pages away fails where one of them is in use, and while it is tried, the
 * caches of the LRU lists are off on all processors. So that many ranges are tried in
 * one call. alloc_contig_pages(), which modules may call since 7.0, would try all that
 * there are, and goes on when the caller was killed.
 */
#define DMASHARE_MAX_MOVES 16

static bool dmashare_run_allowed(int nid)
{
	return node_isset(nid, cpuset_current_mems_allowed);
}

/*
 * Whether alloc_contig_range() could give these pages: all of this zone, and
 * free; or, with @movable, in use by someone whose page can be moved. @bad is set
 * to one that is not. It only guesses: nothing is locked.
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
		} else if (movable && (PageLRU(page) || !page_count(page))) {
			pfn++;
		} else {
			return false;
		}
		cond_resched();
	}

	return true;
}

static struct page *dmashare_find_in_zone(struct zone *zone, unsigned long count,
					  const struct dmashare_shape *shape, bool movable,
					  unsigned int *tries)
{
	unsigned long pfn = ALIGN(zone->zone_start_pfn, pageblock_nr_pages);
	unsigned long step = movable ? ALIGN(count, pageblock_nr_pages) : pageblock_nr_pages;
	unsigned long end = zone_end_pfn(zone);
	unsigned long bad;

	if (shape->flags & DMASHARE_ALLOC_BELOW_4G)
		end = min_t(u64, end, BIT_ULL(32) >> PAGE_SHIFT);

	while (pfn < end && count <= end - pfn && *tries) {
		if (fatal_signal_pending(current))
			return NULL;

		if (!dmashare_could_be_run(zone, pfn, count, movable, &bad)) {
			pfn = ALIGN(bad + 1, pageblock_nr_pages);
		} else if (dmashare_alloc_contig_range(pfn, pfn + count, DMASHARE_RUN_GFP)) {
			/* Somebody was quicker, or does not let it be moved. */
			pfn += step;
			--*tries;
		} else {
			return pfn_to_page(pfn);
		}
		cond_resched();
	}

	return NULL;
}

/* High zones first, to leave the lower ones to devices that need them. */
static struct page *dmashare_find_on_node(int nid, unsigned long count,
					  const struct dmashare_shape *shape, bool movable,
					  unsigned int *tries)
{
	struct page *page;
	int z;

	for (z = MAX_NR_ZONES - 1; z >= 0; z--) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[z];

		/* Not for memory that is held for long; nor high. */
		if (z == ZONE_MOVABLE || is_highmem_idx(z) || !populated_zone(zone))
			continue;

		page = dmashare_find_in_zone(zone, count, shape, movable, tries);
		if (page)
			return page;
	}
	return NULL;
}

/* Ranges that are free before ranges that have to be made free; this node first. */
static struct page *dmashare_find_run(unsigned long count, const struct dmashare_shape *shape)
{
	int movable, nid, near = numa_mem_id();

	for (movable = 0; movable <= 1; movable++) {
		unsigned int tries = DMASHARE_MAX_MOVES;
		struct page *page = NULL;

		if (dmashare_run_allowed(near))
			page = dmashare_find_on_node(near, count, shape, movable, &tries);

		for_each_online_node(nid) {
			if (page)
				return page;
			if (nid != near && dmashare_run_allowed(nid))
				page = dmashare_find_on_node(nid, count, shape, movable,
							     &tries);
		}
		if (page)
			return page;
	}

	return NULL;
}

/* Longer than the page allocator has; not charged, and not zeroed by it. */
static struct page *dmashare_alloc_range(unsigned long count,
					 const struct dmashare_shape *shape)
{
	struct page *page = dmashare_find_run(count, shape);
	unsigned long i;

	if (!page)
		return NULL;

	for (i = 0; i < count; i++) {
		/* A killed caller gets nothing: it need not be zeroed. */
		if (fatal_signal_pending(current)) {
			dmashare_free_run(page, count);
			return NULL;
		}
		clear_highpage(dmashare_nth_page(page, i));
		cond_resched();
	}
	return page;
}

/* From the page allocator, and so charged: the rest of a block goes back. */
static struct page *dmashare_alloc_block(unsigned long count, unsigned int order,
					 const struct dmashare_shape *shape)
{
	gfp_t gfp = DMASHARE_RUN_GFP | __GFP_ACCOUNT | __GFP_ZERO;
	unsigned long rest = (1UL << order) - count;
	struct page *page;

	if (shape->flags & DMASHARE_ALLOC_BELOW_4G)
		gfp |= GFP_DMA32;

	page = alloc_pages(gfp, order);
	if (page) {
		split_page(page, order);
		for (; rest; rest--)
			__free_page(page + count + rest - 1);
	}
	return page;
}

/**
 * dmashare_alloc_run - allocate one run of zeroed pages
 * @count: number of pages
 * @shape: requested form; its flags are looked at
 *
 * Return: the first page, for dmashare_free_run(), or NULL.
 */
struct page *dmashare_alloc_run(unsigned long count, const struct dmashare_shape *shape)
{
	unsigned int order = order_base_2(count);

	/*
	 * No second try by a range where a block was refused: it may have been the
	 * memory cgroup that refused, which nobody asks about ranges.
	 */
	if (order <= DMASHARE_MAX_ORDER)
		return dmashare_alloc_block(count, order, shape);
	return dmashare_alloc_range(count, shape);
}

/**
 * dmashare_free_run - free a run of pages
 * @page: the first
 * @count: number of pages
 */
void dmashare_free_run(struct page *page, unsigned long count)
{
	unsigned long i;

	for (i = 0; i < count; i++) {
		__free_page(dmashare_nth_page(page, i));
		cond_resched();
	}
}
