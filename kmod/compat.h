/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between the kernels that the module builds for, 6.1 to 7.3
 * (docs/src/kernels.md lists those that CI tests). Every #if on the kernel's
 * version or architecture is in this file and in pin.c.
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
#define DMASHARE_CAN_WRITE_COMBINE DMASHARE_FEATURE_WRITE_COMBINED
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

static inline int set_pages_array_wc(struct page **pages, int numpages)
{
	return -EOPNOTSUPP;
}

static inline int set_pages_array_wb(struct page **pages, int numpages)
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

/* A kernel without hugetlbfs has no file of it, and so none with these seals. */
#ifdef CONFIG_HUGETLBFS
#define dmashare_hugetlb_seals(inode) (HUGETLBFS_I(inode)->seals)
#else
#define dmashare_hugetlb_seals(inode) ((void)(inode), 0U)
#endif

/* Reads the references to a module while it is being loaded; see node.c. */
#ifdef CONFIG_MODULE_UNLOAD
#define dmashare_module_refcount(module) module_refcount(module)
#else
#define dmashare_module_refcount(module) ((void)(module), 1)
#endif

/* Removed in 6.18: pages of one run need not have neighbouring struct pages. */
static inline struct page *dmashare_nth_page(struct page *page, unsigned long n)
{
	return pfn_to_page(page_to_pfn(page) + n);
}

#endif /* DMASHARE_COMPAT_H */
