// SPDX-License-Identifier: GPL-2.0
/*
 * Long-term pins of memfd pages: allocated if they are missing, and moved out of
 * memory that must stay movable.
 */

#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/hugetlb.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "compat.h"
#include "dmashare.h"

/*
 * Most references to one folio, whoever holds them. A pin of a small one counts
 * 1024 times: that many pins are some 16,000. Far below the 2^31 at which the kernel
 * warns, and refuses pins to everybody.
 */
#define DMASHARE_MAX_REFS (16384 * 1024)

/**
 * dmashare_is_hugetlb - whether a file consists of huge pages set aside
 * @inode: inode of the file
 */
bool dmashare_is_hugetlb(struct inode *inode)
{
	return inode->i_sb->s_magic == HUGETLBFS_MAGIC;
}

static bool dmashare_is_pinned_too_often(struct page *page)
{
	return folio_ref_count(page_folio(page)) > DMASHARE_MAX_REFS;
}

/* memfd_pin_folios() since 6.11. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)

void dmashare_unpin(struct page *page, size_t length)
{
	while (length) {
		struct folio *folio = page_folio(page);
		unsigned long index = page_to_pfn(page) - folio_pfn(folio);
		size_t part = min(length, folio_size(folio) - (index << PAGE_SHIFT));

		/* Its lock is taken only where it is needed. */
		if (!folio_test_dirty(folio))
			set_page_dirty_lock(&folio->page);
		length -= part;
		page = dmashare_nth_page(page, part >> PAGE_SHIFT);
		unpin_folio(folio);
		cond_resched();
	}
}

static long dmashare_pin_folios(struct file *memfd, u64 start, unsigned long count,
				struct folio **folios, struct dmashare_pin *pins)
{
	u64 left = (u64)count << PAGE_SHIFT;
	pgoff_t offset;
	long found, i;

	found = memfd_pin_folios(memfd, start, start + left - 1, folios, count, &offset);
	for (i = 0; i < found; i++) {
		size_t length = min_t(u64, folio_size(folios[i]) - offset, left);

		pins[i].page = folio_page(folios[i], offset >> PAGE_SHIFT);
		pins[i].length = length;
		left -= length;
		/* Only the first may begin in the middle of its folio. */
		offset = 0;
	}
	if (found >= 0 && left) {
		unpin_folios(folios, found);
		return -EINVAL;
	}
	return found;
}

/* Whether all huge pages around these bytes are there; under the inode's lock. */
static bool dmashare_is_populated(struct file *memfd, u64 start, u64 length)
{
	unsigned long unit = huge_page_size(hstate_file(memfd));
	u64 at;

	for (at = start & ~(u64)(unit - 1); at < start + length; at += unit) {
		struct folio *folio = filemap_get_folio(memfd->f_mapping, at >> PAGE_SHIFT);

		if (IS_ERR(folio))
			return false;
		folio_put(folio);
	}
	return true;
}

/* Allocate the huge pages around these bytes that are not there yet. */
static long dmashare_populate(struct file *memfd, u64 start, u64 length)
{
	u64 from = start & ~(u64)(huge_page_size(hstate_file(memfd)) - 1);
	long ret = vfs_fallocate(memfd, FALLOC_FL_KEEP_SIZE, from, start - from + length);

	/* Any signal ends it. Nothing has happened yet: the call can begin anew. */
	if (ret == -EINTR && !fatal_signal_pending(current))
		return -ERESTARTNOINTR;
	return ret;
}

/*
 * Lock the inode with all pages there that memfd_pin_folios() would not allocate by the
 * rules: a huge page that nobody set aside it would take from those who did.
 */
static long dmashare_lock_populated(struct file *memfd, u64 start, u64 length)
{
	struct inode *inode = file_inode(memfd);
	unsigned int tries;
	long ret;

	/* A hole can be punched between the allocation and the lock; not for ever. */
	for (tries = 0; tries < 16; tries++) {
		/* It may be held for long, by a write(2) whose source does not come. */
		if (down_read_killable(&inode->i_rwsem))
			return -EINTR;
		if (!dmashare_is_hugetlb(inode) || dmashare_is_populated(memfd, start, length))
			return 0;
		inode_unlock_shared(inode);

		ret = dmashare_populate(memfd, start, length);
		if (ret)
			return ret;
	}
	return -ENOSPC;
}

/* Under the lock that is taken to add a seal: F_SEAL_WRITE comes before or is EBUSY. */
static long dmashare_pin_checked(struct file *memfd, u64 start, unsigned long count,
				 struct dmashare_pin *pins, int (*check)(struct file *memfd))
{
	struct folio **folios;
	long ret;

	folios = kvmalloc_array(count, sizeof(*folios), DMASHARE_GFP_ACCOUNT);
	if (!folios)
		return -ENOMEM;

	ret = dmashare_lock_populated(memfd, start, (u64)count << PAGE_SHIFT);
	if (ret)
		goto free_folios;

	ret = check(memfd);
	if (!ret)
		ret = dmashare_pin_folios(memfd, start, count, folios, pins);
	inode_unlock_shared(file_inode(memfd));

free_folios:
	kvfree(folios);
	return ret;
}

#else

void dmashare_unpin(struct page *page, size_t length)
{
	while (length) {
		size_t part = min_t(size_t, length, DMASHARE_STEP);

		unpin_user_page_range_dirty_lock(page, part >> PAGE_SHIFT, true);
		page = dmashare_nth_page(page, part >> PAGE_SHIFT);
		length -= part;
		cond_resched();
	}
}

/*
 * Pins are only made of pages that are mapped: so they are, for a moment. Another
 * thread may map something else at the same place meanwhile, which shows in the
 * pages.
 */
static long dmashare_pin_mapped(struct file *memfd, unsigned long address,
				unsigned long count, struct page **pages)
{
	unsigned long done = 0, i;
	long ret = 0;

	while (done < count) {
		ret = pin_user_pages_fast(address + (done << PAGE_SHIFT), count - done,
					  FOLL_WRITE | FOLL_LONGTERM, pages + done);
		if (ret <= 0)
			break;
		done += ret;
	}

	for (i = 0; ret > 0 && i < done; i++) {
		if (page_folio(pages[i])->mapping != memfd->f_mapping)
			ret = -EINVAL;
	}
	if (ret > 0)
		return count;

	unpin_user_pages(pages, done);
	if (fatal_signal_pending(current))
		return -EINTR;
	/* A page that cannot be had is a bad address, to a mapping. */
	return ret == -EFAULT ? -ENOSPC : ret ?: -EINVAL;
}

/* A writable shared mapping keeps F_SEAL_WRITE away until the pins do. */
static long dmashare_pin_checked(struct file *memfd, u64 start, unsigned long count,
				 struct dmashare_pin *pins, int (*check)(struct file *memfd))
{
	unsigned long unit = PAGE_SIZE, address, length, skip, i;
	struct page **pages;
	long ret;

	ret = check(memfd);
	if (ret)
		return ret;

	pages = kvmalloc_array(count, sizeof(*pages), DMASHARE_GFP_ACCOUNT);
	if (!pages)
		return -ENOMEM;

	/* Huge pages are mapped whole. */
	if (dmashare_is_hugetlb(file_inode(memfd)))
		unit = huge_page_size(hstate_file(memfd));
	skip = start & (unit - 1);
	length = ALIGN(skip + (count << PAGE_SHIFT), unit);

	address = vm_mmap(memfd, 0, length, PROT_READ | PROT_WRITE, MAP_SHARED, start - skip);
	if (IS_ERR_VALUE(address)) {
		ret = address;
		/* Huge pages are set aside when they are mapped. */
		if (ret == -ENOMEM && dmashare_is_hugetlb(file_inode(memfd)))
			ret = -ENOSPC;
		/* RLIMIT_MEMLOCK, after mlockall(MCL_FUTURE). */
		if (ret == -EAGAIN)
			ret = -ENOMEM;
		goto free_pages;
	}

	ret = dmashare_pin_mapped(memfd, address + skip, count, pages);
	vm_munmap(address, length);

	for (i = 0; ret > 0 && i < count; i++) {
		pins[i].page = pages[i];
		pins[i].length = PAGE_SIZE;
	}

free_pages:
	kvfree(pages);
	return ret;
}

#endif

/**
 * dmashare_pin_pages - pin whole pages of a memfd
 * @memfd: file of shmem or hugetlbfs
 * @start: offset of the first page, in bytes
 * @count: number of pages, which lie in the file
 * @pins: room for @count runs
 * @check: called while no F_SEAL_WRITE can be added between it and the pins
 *
 * Return: number of runs, in order, for dmashare_unpin(), one or several that
 * follow each other at a time; -EMLINK where a page is pinned too often; an error
 * of @check; or another.
 */
long dmashare_pin_pages(struct file *memfd, u64 start, unsigned long count,
			struct dmashare_pin *pins, int (*check)(struct file *memfd))
{
	long found, i;

	found = dmashare_pin_checked(memfd, start, count, pins, check);
	for (i = 0; i < found; i++) {
		if (dmashare_is_pinned_too_often(pins[i].page))
			break;
	}
	if (found < 0 || i == found)
		return found;

	while (found--)
		dmashare_unpin(pins[found].page, pins[found].length);
	return -EMLINK;
}
