// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of memfds, pinned for as long as a buffer consists of them.
 */

#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include "compat.h"
#include "dmashare.h"

/* It must keep its pages, and writing to it must stay allowed: devices write. */
#define DMASHARE_SEALS_WANTED F_SEAL_SHRINK
#define DMASHARE_SEALS_DENIED (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/*
 * Whether it is a file that can have seals. The kernel's own test, and
 * fcntl(F_GET_SEALS), are not for modules: the file systems tell. A file of tmpfs
 * that is no memfd cannot have F_SEAL_SHRINK.
 */
static bool dmashare_is_memfd(struct inode *inode)
{
	return S_ISREG(inode->i_mode) &&
	       (inode->i_sb->s_magic == TMPFS_MAGIC || dmashare_is_hugetlb(inode));
}

static unsigned int dmashare_seals(struct inode *inode)
{
	if (inode->i_sb->s_magic == TMPFS_MAGIC)
		return SHMEM_I(inode)->seals;

	return dmashare_hugetlb_seals(inode);
}

/**
 * dmashare_ranges_size - add up the lengths of ranges
 * @ranges: some ranges
 * @count: number of them
 * @size: set to their bytes
 *
 * What else must hold of a range depends on its memfd, and is checked with it.
 *
 * Return: 0; -EINVAL where one is not whole pages, or all of them are empty;
 * -EFBIG where one of them, or all, are more than can be counted.
 */
int dmashare_ranges_size(const struct dmashare_range *ranges, u32 count, u64 *size)
{
	u64 total = 0;
	u32 i;

	for (i = 0; i < count; i++) {
		if ((ranges[i].length | ranges[i].offset) & ~PAGE_MASK)
			return -EINVAL;
		/* 1024 of these do not overflow. */
		total += min_t(u64, ranges[i].length, BIT_ULL(48));
	}
	if (!total)
		return -EINVAL;

	for (i = 0; i < count; i++) {
		if (ranges[i].length > UINT_MAX)
			return -EFBIG;
	}
	if (total > min_t(u64, SIZE_MAX, (u64)INT_MAX << PAGE_SHIFT))
		return -EFBIG;

	*size = total;
	return 0;
}

static int dmashare_check_seals(struct file *memfd)
{
	unsigned int seals = dmashare_seals(file_inode(memfd));

	if ((seals & DMASHARE_SEALS_WANTED) != DMASHARE_SEALS_WANTED ||
	    (seals & DMASHARE_SEALS_DENIED))
		return -EINVAL;
	return 0;
}

/* Return: the memfd of a range, for fput(), or an error. */
static struct file *dmashare_open_range(const struct dmashare_range *range)
{
	struct file *memfd = fget(range->memfd);
	u64 end;
	int ret;

	if (!memfd)
		return ERR_PTR(-EBADF);

	ret = -EBADFD;
	if (!dmashare_is_memfd(file_inode(memfd)))
		goto put_memfd;

	/* Sealed against shrinking, it keeps its size. */
	ret = dmashare_check_seals(memfd);
	if (ret)
		goto put_memfd;
	ret = -EINVAL;
	if (!range->length || check_add_overflow(range->offset, range->length, &end) ||
	    end > i_size_read(file_inode(memfd)))
		goto put_memfd;

	/* The buffer can be written to: an fd for reading gets no way around that. */
	ret = -EACCES;
	if (!(memfd->f_mode & FMODE_WRITE))
		goto put_memfd;

	return memfd;

put_memfd:
	fput(memfd);
	return ERR_PTR(ret);
}

static void dmashare_unpin_all(struct dmashare_pin *pins, unsigned int count)
{
	while (count--)
		dmashare_unpin(pins[count].page, pins[count].length);
}

/* Pages that follow each other are one run; there is room for the others. */
static unsigned int dmashare_merge(struct dmashare_pin *pins, unsigned int count)
{
	unsigned int i, last = 0;

	for (i = 1; i < count; i++) {
		unsigned long end = page_to_pfn(pins[last].page) +
				    (pins[last].length >> PAGE_SHIFT);

		if (page_to_pfn(pins[i].page) == end)
			pins[last].length += pins[i].length;
		else
			pins[++last] = pins[i];
	}

	return last + 1;
}

/*
 * Pin a range, in steps, so that a killed caller is let go. No folio lies across
 * the end of a step: it would be pinned twice, and as one run unpinned once.
 */
static long dmashare_pin_range(struct file *memfd, const struct dmashare_range *range,
			       struct dmashare_pin *pins)
{
	u64 step = max_t(u64, DMASHARE_STEP, PMD_SIZE);
	u64 at = range->offset, end = at + range->length;
	unsigned int found = 0;

	if (dmashare_is_hugetlb(file_inode(memfd)))
		step = max_t(u64, step, huge_page_size(hstate_file(memfd)));

	while (at < end) {
		u64 part = min(end, (at & ~(step - 1)) + step) - at;
		long ret = -EINTR;

		if (!fatal_signal_pending(current))
			ret = dmashare_pin_pages(memfd, at, part >> PAGE_SHIFT, pins + found,
						 dmashare_check_seals);
		if (ret < 0) {
			dmashare_unpin_all(pins, found);
			return ret;
		}
		found += ret;
		at += part;
		cond_resched();
	}

	/* Not over the end of a range: the next may have pinned the same folio. */
	return dmashare_merge(pins, found);
}

static int dmashare_pin_ranges(struct dmashare_memory *memory, struct file **memfds,
			       const struct dmashare_range *ranges, u32 count)
{
	struct dmashare_pin *pins;
	struct scatterlist *sg;
	unsigned int i, found = 0;
	long ret;

	pins = kvmalloc_array(memory->size >> PAGE_SHIFT, sizeof(*pins),
			      DMASHARE_GFP_ACCOUNT);
	if (!pins)
		return -ENOMEM;

	for (i = 0; i < count; i++) {
		ret = dmashare_pin_range(memfds[i], &ranges[i], pins + found);
		if (ret < 0)
			goto unpin;
		found += ret;
	}

	ret = sg_alloc_table(&memory->chunks, found, DMASHARE_GFP_ACCOUNT);
	if (ret)
		goto unpin;

	for_each_sgtable_sg(&memory->chunks, sg, i)
		sg_set_page(sg, pins[i].page, pins[i].length, 0);

	kvfree(pins);
	return 0;

unpin:
	dmashare_unpin_all(pins, found);
	kvfree(pins);
	return ret;
}

static void dmashare_close_ranges(struct file **memfds, u32 count)
{
	while (count--)
		fput(memfds[count]);
	kvfree(memfds);
}

/* Return: the memfd of each range, for dmashare_close_ranges(), or an error. */
static struct file **dmashare_open_ranges(const struct dmashare_range *ranges, u32 count)
{
	struct file **memfds;
	u32 i;

	memfds = kvmalloc_array(count, sizeof(*memfds), DMASHARE_GFP_ACCOUNT);
	if (!memfds)
		return ERR_PTR(-ENOMEM);

	for (i = 0; i < count; i++) {
		struct file *memfd = dmashare_open_range(&ranges[i]);

		if (IS_ERR(memfd)) {
			dmashare_close_ranges(memfds, i);
			return ERR_CAST(memfd);
		}
		memfds[i] = memfd;
	}
	return memfds;
}

/**
 * dmashare_ranges_check - check ranges without pinning anything
 * @ranges: some ranges
 * @count: number of them
 *
 * Return: 0, or the error that dmashare_memory_wrap() would give for them.
 */
int dmashare_ranges_check(const struct dmashare_range *ranges, u32 count)
{
	struct file **memfds;
	u64 size;
	int ret;

	ret = dmashare_ranges_size(ranges, count, &size);
	if (ret)
		return ret;

	memfds = dmashare_open_ranges(ranges, count);
	if (IS_ERR(memfds))
		return PTR_ERR(memfds);

	dmashare_close_ranges(memfds, count);
	return 0;
}

/**
 * dmashare_memory_wrap - pin ranges of memfds
 * @memory: to be filled in; all zero
 * @ranges: ranges that dmashare_ranges_size() found good
 * @count: number of them
 *
 * All of them are checked before the first page is pinned, and so maybe allocated.
 *
 * Return: 0, and dmashare_memory_free() is owed; or an error as of
 * DMASHARE_IOCTL_WRAP.
 */
int dmashare_memory_wrap(struct dmashare_memory *memory,
			 const struct dmashare_range *ranges, u32 count)
{
	struct file **memfds;
	u64 size;
	int ret;

	ret = dmashare_ranges_size(ranges, count, &size);
	if (ret)
		return ret;
	memory->size = size;
	memory->kind = DMASHARE_MEMFD;

	memfds = dmashare_open_ranges(ranges, count);
	if (IS_ERR(memfds))
		return PTR_ERR(memfds);

	ret = dmashare_pin_ranges(memory, memfds, ranges, count);
	dmashare_close_ranges(memfds, count);
	return ret;
}

/**
 * dmashare_memory_unwrap - unpin the pages of memfds
 * @memory: what dmashare_memory_wrap() made
 */
void dmashare_memory_unwrap(struct dmashare_memory *memory)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sgtable_sg(&memory->chunks, sg, i)
		dmashare_unpin(sg_page(sg), sg->length);
	sg_free_table(&memory->chunks);
}
