// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of memfds, held in place for as long as a buffer is made of them.
 */

#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include "compat.h"
#include "dmashare.h"

/* It must keep its pages, and writing to it must stay allowed: devices do. */
#define DMASHARE_SEALS_WANTED F_SEAL_SHRINK
#define DMASHARE_SEALS_DENIED (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/*
 * Whether it is a file that can have seals. The kernel's own test, and
 * fcntl(F_GET_SEALS), are not for modules: the file systems tell. A file of tmpfs
 * that is no memfd cannot have F_SEAL_SHRINK.
 */
static bool dmashare_is_memfd(struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return S_ISREG(inode->i_mode) &&
	       (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC);
}

static unsigned int dmashare_seals(struct inode *inode)
{
	if (inode->i_sb->s_magic == TMPFS_MAGIC)
		return SHMEM_I(inode)->seals;

	return dmashare_hugetlb_seals(inode);
}

/**
 * dmashare_ranges_size - add up the sizes of ranges
 * @ranges: some ranges
 * @count: how many
 * @size: set to their bytes
 *
 * Return: 0; -EINVAL where one is not whole pages, or empty, or there are none;
 * -E2BIG where one of them, or all, are more than can be counted.
 */
int dmashare_ranges_size(const struct dmashare_range *ranges, u32 count, size_t *size)
{
	u64 end, total = 0;
	u32 i;

	if (!count)
		return -EINVAL;

	for (i = 0; i < count; i++) {
		const struct dmashare_range *range = &ranges[i];

		if (!range->size || !PAGE_ALIGNED(range->size) ||
		    !PAGE_ALIGNED(range->offset) ||
		    check_add_overflow(range->offset, range->size, &end) ||
		    end > LLONG_MAX)
			return -EINVAL;
		if (range->size > UINT_MAX || check_add_overflow(total, range->size, &total))
			return -E2BIG;
	}
	if (total > min_t(u64, SIZE_MAX, (u64)INT_MAX << PAGE_SHIFT))
		return -E2BIG;

	*size = total;
	return 0;
}

static int dmashare_check_memfd(struct file *memfd, const struct dmashare_range *range)
{
	struct inode *inode = file_inode(memfd);
	unsigned int seals = dmashare_seals(inode);

	if ((seals & DMASHARE_SEALS_WANTED) != DMASHARE_SEALS_WANTED ||
	    (seals & DMASHARE_SEALS_DENIED))
		return -EINVAL;

	/* dmashare_ranges_size() has seen that it does not overflow. */
	if (range->offset + range->size > i_size_read(inode))
		return -EINVAL;

	/* The buffer can be written to: who may not write gets no way around it. */
	return memfd->f_mode & FMODE_WRITE ? 0 : -EACCES;
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

static long dmashare_pin_range(const struct dmashare_range *range,
			       struct dmashare_pin *pins)
{
	struct file *memfd = fget(range->memfd);
	struct inode *inode;
	long ret;

	if (!memfd)
		return -EBADF;

	/* Before the lock: other file systems may hold it for long. */
	inode = file_inode(memfd);
	ret = -EBADFD;
	if (!dmashare_is_memfd(inode))
		goto put_memfd;

	ret = dmashare_check_memfd(memfd, range);
	if (!ret)
		ret = dmashare_populate(memfd, range->offset, range->size);
	if (ret)
		goto put_memfd;

	/*
	 * Once more, under the lock that is taken to add a seal: who adds
	 * F_SEAL_WRITE after us finds the pages pinned.
	 */
	inode_lock_shared(inode);
	ret = dmashare_check_memfd(memfd, range);
	if (!ret)
		ret = dmashare_pin_pages(memfd, range->offset,
					 range->size >> PAGE_SHIFT, pins);
	inode_unlock_shared(inode);

	/* Not over the end of a range: the next may have pinned the same folio. */
	if (ret > 0)
		ret = dmashare_merge(pins, ret);

put_memfd:
	fput(memfd);
	return ret;
}

/**
 * dmashare_memory_wrap - hold ranges of memfds in place
 * @memory: where to tell of their pages; all zero
 * @ranges: ranges that dmashare_ranges_size() found good
 * @count: how many
 *
 * Return: 0, and dmashare_memory_free() is owed; or an error as of
 * DMASHARE_IOCTL_WRAP.
 */
int dmashare_memory_wrap(struct dmashare_memory *memory,
			 const struct dmashare_range *ranges, u32 count)
{
	struct dmashare_pin *pins;
	struct scatterlist *sg;
	unsigned int i, found = 0;
	long ret;

	ret = dmashare_ranges_size(ranges, count, &memory->size);
	if (ret)
		return ret;

	memory->kind = DMASHARE_MEMFD;
	pins = kvmalloc_array(memory->size >> PAGE_SHIFT, sizeof(*pins),
			      GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!pins)
		return -ENOMEM;

	for (i = 0; i < count; i++) {
		ret = dmashare_pin_range(&ranges[i], pins + found);
		if (ret < 0)
			goto unpin;
		found += ret;
	}

	ret = sg_alloc_table(&memory->chunks, found, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (ret)
		goto unpin;

	for_each_sgtable_sg(&memory->chunks, sg, i)
		sg_set_page(sg, pins[i].page, pins[i].length, 0);

	kvfree(pins);
	return 0;

unpin:
	while (found--)
		dmashare_unpin(pins[found].page, pins[found].length);
	kvfree(pins);
	return ret;
}

/**
 * dmashare_memory_unwrap - let the pages of memfds go
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
