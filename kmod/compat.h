/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The differences between the kernels that the module builds for, 6.1 to 7.3
 * (docs/src/kernels.md says which of them CI tests).
 * Every #if on the kernel's version or architecture is in this file.
 */
#ifndef DMASHARE_COMPAT_H
#define DMASHARE_COMPAT_H

#include <linux/device/class.h>
#include <linux/dma-heap.h>
#include <linux/err.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/hugetlb.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/version.h>

/*
 * The name of a namespace is a string since 6.13. Before, it was made one by
 * the macro, so that a quoted name compiles but asks for another namespace.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define DMASHARE_IMPORT_DMA_BUF MODULE_IMPORT_NS("DMA_BUF")
#else
#define DMASHARE_IMPORT_DMA_BUF MODULE_IMPORT_NS(DMA_BUF)
#endif

/* vm_flags may only be changed through functions since 6.3. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* Newer than 6.1, but in some stable kernels too: the version does not tell. */
#ifndef kzalloc_obj
#define kzalloc_obj(obj, gfp) kzalloc(sizeof(obj), gfp)
#endif

/* A class was told its module until 6.4. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define dmashare_class_create(name) class_create(name)
#else
#define dmashare_class_create(name) class_create(THIS_MODULE, name)
#endif

/* The device was not const until 6.2. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define DMASHARE_DEVNODE_CONST const
#else
#define DMASHARE_DEVNODE_CONST
#endif

/* The largest order of the page allocator, itself included. */
#ifdef MAX_PAGE_ORDER
#define DMASHARE_MAX_ORDER MAX_PAGE_ORDER
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define DMASHARE_MAX_ORDER MAX_ORDER
#else
#define DMASHARE_MAX_ORDER (MAX_ORDER - 1)
#endif

/* What alloc_contig_range() is told beside the range. */
#ifdef ACR_FLAGS_NONE
#define DMASHARE_CONTIG_FLAGS ACR_FLAGS_NONE
#else
#define DMASHARE_CONTIG_FLAGS MIGRATE_MOVABLE
#endif

/*
 * On x86, all mappings of a page must agree on how it is cached, the kernel's
 * own included. Elsewhere a write-combined mapping looks behind the caches, where
 * the zeroes are not yet, and nothing that modules may call puts them there.
 */
#ifdef CONFIG_X86
#include <asm/set_memory.h>
#define DMASHARE_CAN_WRITE_COMBINE DMASHARE_ALLOC_WRITE_COMBINED
#else
#define DMASHARE_CAN_WRITE_COMBINE 0
static inline int set_memory_wc(unsigned long addr, int numpages)
{
	return -EOPNOTSUPP;
}

static inline int set_memory_wb(unsigned long addr, int numpages)
{
	return 0;
}
#endif

/* A kernel that cannot make room has no call for it. */
#ifdef CONFIG_CONTIG_ALLOC
#define dmashare_alloc_contig_range(start, end, gfp) \
	alloc_contig_range(start, end, DMASHARE_CONTIG_FLAGS, gfp)
#else
#define dmashare_alloc_contig_range(start, end, gfp) \
	((void)(start), (void)(end), (void)(gfp), -EOPNOTSUPP)
#endif

/* Since 7.2, the handing out of a dma-buf's fd can be traced. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
#define dmashare_fd_install(dmabuf, fd) dma_buf_fd_install(dmabuf, fd)
#else
#define dmashare_fd_install(dmabuf, fd) fd_install(fd, (dmabuf)->file)
#endif

/* What a heap's allocate() is given, since 6.12. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define DMASHARE_HEAP_FD_FLAGS u32
#define DMASHARE_HEAP_FLAGS u64
#else
#define DMASHARE_HEAP_FD_FLAGS unsigned long
#define DMASHARE_HEAP_FLAGS unsigned long
#endif

/* Since 7.2, a module may add a heap to the kernel's framework for them. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0) && IS_ENABLED(CONFIG_DMABUF_HEAPS)
#define DMASHARE_CAN_ADD_HEAP true
#define DMASHARE_IMPORT_DMA_BUF_HEAP MODULE_IMPORT_NS("DMA_BUF_HEAP")
#define dmashare_dma_heap_add(info) dma_heap_add(info)
#else
#define DMASHARE_CAN_ADD_HEAP false
#define DMASHARE_IMPORT_DMA_BUF_HEAP static_assert(true)
#define dmashare_dma_heap_add(info) ((void)(info), (struct dma_heap *)NULL)
#endif

/* A kernel without hugetlbfs has no file of it. */
#ifdef CONFIG_HUGETLBFS
#define dmashare_hugetlb_seals(inode) (HUGETLBFS_I(inode)->seals)
#else
#define dmashare_hugetlb_seals(inode) ((void)(inode), -EBADFD)
#endif

/**
 * struct dmashare_pin - a run of pages of a memfd that is held in place
 * @page: the first of them
 * @length: bytes
 */
struct dmashare_pin {
	struct page *page;
	unsigned int length;
};

/*
 * dmashare_pin_pages - hold whole pages of a memfd in place
 * @memfd: a file of shmem or hugetlbfs
 * @start: where they begin
 * @count: how many pages; they lie in the file
 * @pins: room for @count runs
 *
 * Pages that are not there yet are allocated, or were by dmashare_populate().
 * Return: how many runs they are, in order, each of them to be given to
 * dmashare_unpin(); or an error.
 *
 * dmashare_populate - allocate huge pages that are not there yet, where pinning
 *	does not; outside of the inode's lock
 * @memfd: as above
 * @start: where the pages begin
 * @size: bytes, which lie in the file
 *
 * dmashare_unpin - let pages go, and mark them as written to: a device, or a
 *	mapping of the buffer, may have done so without a fault
 * @page: the first of them
 * @length: bytes; runs that follow each other may be given as one
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
static inline long dmashare_pin_pages(struct file *memfd, loff_t start,
				      unsigned long count,
				      struct dmashare_pin *pins)
{
	u64 left = (u64)count << PAGE_SHIFT;
	struct folio **folios;
	pgoff_t offset;
	long found, i;

	folios = kvmalloc_array(count, sizeof(*folios), GFP_KERNEL);
	if (!folios)
		return -ENOMEM;

	found = memfd_pin_folios(memfd, start, start + left - 1, folios, count,
				 &offset);
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
		found = -EINVAL;
	}

	kvfree(folios);
	return found;
}

static inline int dmashare_populate(struct file *memfd, u64 start, u64 size)
{
	return 0;
}

static inline void dmashare_unpin(struct page *page, unsigned int length)
{
	while (length) {
		struct folio *folio = page_folio(page);
		unsigned long index = page_to_pfn(page) - folio_pfn(folio);
		unsigned int part = min_t(size_t, length,
					  folio_size(folio) - (index << PAGE_SHIFT));

		/* Its lock is taken only where it is needed. */
		if (!folio_test_dirty(folio))
			set_page_dirty_lock(&folio->page);
		length -= part;
		page = pfn_to_page(page_to_pfn(page) + (part >> PAGE_SHIFT));
		unpin_folio(folio);
		cond_resched();
	}
}
#else
static inline void dmashare_unpin(struct page *page, unsigned int length)
{
	for (; length; length -= PAGE_SIZE) {
		struct page *next = pfn_to_page(page_to_pfn(page) + 1);

		if (!PageDirty(page))
			set_page_dirty_lock(page);
		put_page(page);
		page = next;
		cond_resched();
	}
}

static inline int dmashare_populate(struct file *memfd, u64 start, u64 size)
{
	u64 from;

	if (file_inode(memfd)->i_sb->s_magic != HUGETLBFS_MAGIC)
		return 0;

	from = round_down(start, huge_page_size(hstate_file(memfd)));
	return vfs_fallocate(memfd, FALLOC_FL_KEEP_SIZE, from, start - from + size);
}

static inline struct page *dmashare_memfd_page(struct file *memfd, pgoff_t index)
{
	struct address_space *mapping = memfd->f_mapping;
	unsigned int order = 0;
	struct page *page;

	if (file_inode(memfd)->i_sb->s_magic != HUGETLBFS_MAGIC)
		return shmem_read_mapping_page(mapping, index);

	/* Its page cache counted huge pages until 6.7. */
	if (LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0))
		order = huge_page_order(hstate_file(memfd));
	page = find_get_page(mapping, index >> order);
	if (!page)
		return ERR_PTR(-EINVAL);

	/* The reference is to the whole of it, whichever page holds it. */
	return nth_page(page, index & ((1UL << order) - 1));
}

static inline long dmashare_pin_pages(struct file *memfd, loff_t start,
				      unsigned long count,
				      struct dmashare_pin *pins)
{
	pgoff_t index = start >> PAGE_SHIFT;
	struct page *page;
	long found;

	for (found = 0; found < count; found++) {
		if (fatal_signal_pending(current)) {
			page = ERR_PTR(-EINTR);
			goto unpin;
		}

		page = dmashare_memfd_page(memfd, index + found);
		if (IS_ERR(page))
			goto unpin;

		pins[found].page = page;
		pins[found].length = PAGE_SIZE;
		cond_resched();
	}

	return found;

unpin:
	while (found--)
		dmashare_unpin(pins[found].page, PAGE_SIZE);
	return PTR_ERR(page);
}
#endif

#endif /* DMASHARE_COMPAT_H */
