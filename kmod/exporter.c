// SPDX-License-Identifier: GPL-2.0
/*
 * The exporter: buffers of ordinary pages and what a dma-buf can do with them.
 * See Documentation/driver-api/dma-buf.rst for the rules it keeps.
 */

#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/iosys-map.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "dmashare.h"

/*
 * Fail, rather than kill a process or fill the log, when memory is short: how
 * much is asked for is the user's choice.
 */
#define DMASHARE_GFP_QUIET (__GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/**
 * struct dmashare_buffer - the memory behind one dma-buf
 * @quota: whom it is charged to
 * @pages: each page on its own, zeroed when allocated
 * @count: how many pages
 * @lock: protects @mappings and @vaddr
 * @mappings: every live struct dmashare_mapping
 * @vaddr: where the kernel sees the buffer in one piece, or NULL
 */
struct dmashare_buffer {
	struct dmashare_quota *quota;
	struct page **pages;
	unsigned int count;
	/* Inside the reservation lock, which the core holds in some callbacks. */
	struct mutex lock;
	struct list_head mappings;
	void *vaddr;
};

/**
 * struct dmashare_mapping - the buffer as one device sees it
 * @node: in &dmashare_buffer.mappings
 * @dev: the device
 * @dir: the transfers that it asked for
 * @sgt: its scatter list; the importer's handle of the mapping
 */
struct dmashare_mapping {
	struct list_head node;
	struct device *dev;
	enum dma_data_direction dir;
	struct sg_table sgt;
};

static size_t dmashare_size(const struct dmashare_buffer *buffer)
{
	return (size_t)buffer->count << PAGE_SHIFT;
}

/*
 * A table for each mapping, not for each attachment: an importer may map one
 * attachment twice, and devices differ in how long a segment they take.
 */
static struct sg_table *dmashare_map_dma_buf(struct dma_buf_attachment *attach,
					     enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = attach->dmabuf->priv;
	struct dmashare_mapping *mapping;
	int ret;

	mapping = kzalloc_obj(*mapping, GFP_KERNEL);
	if (!mapping)
		return ERR_PTR(-ENOMEM);

	mapping->dev = attach->dev;
	mapping->dir = dir;

	ret = sg_alloc_table_from_pages_segment(&mapping->sgt, buffer->pages,
						buffer->count, 0,
						dmashare_size(buffer),
						dma_get_max_seg_size(attach->dev),
						GFP_KERNEL);
	if (ret)
		goto free_mapping;

	/* Under the lock, so that a CPU access sees all of a mapping or none. */
	mutex_lock(&buffer->lock);
	ret = dma_map_sgtable(mapping->dev, &mapping->sgt, dir, 0);
	if (!ret)
		list_add(&mapping->node, &buffer->mappings);
	mutex_unlock(&buffer->lock);
	if (ret)
		goto free_table;

	return &mapping->sgt;

free_table:
	sg_free_table(&mapping->sgt);
free_mapping:
	kfree(mapping);
	return ERR_PTR(ret);
}

static void dmashare_unmap_dma_buf(struct dma_buf_attachment *attach,
				   struct sg_table *sgt,
				   enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = attach->dmabuf->priv;
	struct dmashare_mapping *mapping =
		container_of(sgt, struct dmashare_mapping, sgt);

	mutex_lock(&buffer->lock);
	list_del(&mapping->node);
	dma_unmap_sgtable(mapping->dev, sgt, dir, 0);
	mutex_unlock(&buffer->lock);

	sg_free_table(sgt);
	kfree(mapping);
}

/*
 * A mapping made for one direction may only be synced in that direction. One
 * made for both follows the CPU's access: handing a buffer that the CPU only
 * read back to the device must not undo what the device wrote meanwhile, as a
 * bounce buffer would.
 */
static enum dma_data_direction
dmashare_sync_dir(const struct dmashare_mapping *mapping,
		  enum dma_data_direction access)
{
	return mapping->dir == DMA_BIDIRECTIONAL ? access : mapping->dir;
}

static int dmashare_begin_cpu_access(struct dma_buf *dmabuf,
				     enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct dmashare_mapping *mapping;

	mutex_lock(&buffer->lock);
	if (buffer->vaddr)
		invalidate_kernel_vmap_range(buffer->vaddr, dmashare_size(buffer));
	list_for_each_entry(mapping, &buffer->mappings, node)
		dma_sync_sgtable_for_cpu(mapping->dev, &mapping->sgt,
					 dmashare_sync_dir(mapping, dir));
	mutex_unlock(&buffer->lock);

	return 0;
}

static int dmashare_end_cpu_access(struct dma_buf *dmabuf,
				   enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct dmashare_mapping *mapping;

	mutex_lock(&buffer->lock);
	if (buffer->vaddr)
		flush_kernel_vmap_range(buffer->vaddr, dmashare_size(buffer));
	list_for_each_entry(mapping, &buffer->mappings, node)
		dma_sync_sgtable_for_device(mapping->dev, &mapping->sgt,
					    dmashare_sync_dir(mapping, dir));
	mutex_unlock(&buffer->lock);

	return 0;
}

/*
 * Mapped whole and at once, as page frames: no fault handler, no reference to a
 * page that could be kept past the buffer's end. The core has checked that the
 * range lies in the buffer, and the mapping's file keeps the buffer alive.
 */
static int dmashare_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct page **page = buffer->pages + vma->vm_pgoff;
	unsigned long addr;
	int ret;

	/* A private copy would be no sharing. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYEXEC);

	for (addr = vma->vm_start; addr < vma->vm_end; addr += PAGE_SIZE) {
		ret = remap_pfn_range(vma, addr, page_to_pfn(*page++), PAGE_SIZE,
				      vma->vm_page_prot);
		if (ret)
			return ret;
	}

	return 0;
}

/* The core counts: called for the first vmap and for the last vunmap only. */
static int dmashare_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	void *vaddr = vmap(buffer->pages, buffer->count, VM_MAP, PAGE_KERNEL);

	if (!vaddr)
		return -ENOMEM;

	mutex_lock(&buffer->lock);
	buffer->vaddr = vaddr;
	mutex_unlock(&buffer->lock);

	iosys_map_set_vaddr(map, vaddr);
	return 0;
}

static void dmashare_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct dmashare_buffer *buffer = dmabuf->priv;

	mutex_lock(&buffer->lock);
	buffer->vaddr = NULL;
	mutex_unlock(&buffer->lock);

	vunmap(map->vaddr);
	iosys_map_clear(map);
}

static void dmashare_free_pages(struct dmashare_buffer *buffer)
{
	while (buffer->count) {
		__free_page(buffer->pages[--buffer->count]);
		cond_resched();
	}
	kvfree(buffer->pages);
}

static void dmashare_buffer_free(struct dmashare_buffer *buffer)
{
	struct dmashare_quota *quota = buffer->quota;
	size_t size = dmashare_size(buffer);

	dmashare_free_pages(buffer);
	mutex_destroy(&buffer->lock);
	kfree(buffer);
	dmashare_quota_uncharge(quota, size);
}

static void dmashare_release(struct dma_buf *dmabuf)
{
	dmashare_buffer_free(dmabuf->priv);
}

static const struct dma_buf_ops dmashare_ops = {
	.map_dma_buf = dmashare_map_dma_buf,
	.unmap_dma_buf = dmashare_unmap_dma_buf,
	.begin_cpu_access = dmashare_begin_cpu_access,
	.end_cpu_access = dmashare_end_cpu_access,
	.mmap = dmashare_mmap,
	.vmap = dmashare_vmap,
	.vunmap = dmashare_vunmap,
	.release = dmashare_release,
};

static int dmashare_alloc_pages(struct dmashare_buffer *buffer, size_t count)
{
	struct page *page;
	int ret;

	buffer->pages = kvcalloc(count, sizeof(*buffer->pages),
				 GFP_KERNEL_ACCOUNT | DMASHARE_GFP_QUIET);
	if (!buffer->pages)
		return -ENOMEM;

	while (buffer->count < count) {
		/* A big buffer takes a while: let a killed caller go. */
		ret = -EINTR;
		if (fatal_signal_pending(current))
			goto free_pages;

		ret = -ENOMEM;
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO | DMASHARE_GFP_QUIET);
		if (!page)
			goto free_pages;

		buffer->pages[buffer->count++] = page;
		cond_resched();
	}

	return 0;

free_pages:
	dmashare_free_pages(buffer);
	return ret;
}

static struct dmashare_buffer *dmashare_buffer_alloc(struct dmashare_quota *quota,
						     size_t size)
{
	struct dmashare_buffer *buffer;
	int ret;

	buffer = kzalloc_obj(*buffer, GFP_KERNEL_ACCOUNT);
	if (!buffer)
		return ERR_PTR(-ENOMEM);

	buffer->quota = quota;
	mutex_init(&buffer->lock);
	INIT_LIST_HEAD(&buffer->mappings);

	ret = dmashare_quota_charge(quota, size);
	if (ret)
		goto free_buffer;

	ret = dmashare_alloc_pages(buffer, size >> PAGE_SHIFT);
	if (ret)
		goto uncharge;

	return buffer;

uncharge:
	dmashare_quota_uncharge(quota, size);
free_buffer:
	mutex_destroy(&buffer->lock);
	kfree(buffer);
	return ERR_PTR(ret);
}

/**
 * dmashare_export - allocate a buffer and export it
 * @quota: account of the open file that asks
 * @size: bytes, more than zero; rounded up to whole pages
 *
 * Return: a dma-buf with one reference, for the caller to install or to put; or
 * -E2BIG over a limit, -ENOMEM without memory, -EINTR when killed meanwhile.
 */
struct dma_buf *dmashare_export(struct dmashare_quota *quota, u64 size)
{
	DEFINE_DMA_BUF_EXPORT_INFO(exp_info);
	struct dmashare_buffer *buffer;
	struct dma_buf *dmabuf;

	/*
	 * Whatever the limits that root has set: else the rounding, size_t on
	 * 32 bits or the count of pages would overflow.
	 */
	if (size > min_t(u64, SIZE_MAX - PAGE_SIZE, (u64)UINT_MAX << PAGE_SHIFT))
		return ERR_PTR(-E2BIG);

	buffer = dmashare_buffer_alloc(quota, PAGE_ALIGN(size));
	if (IS_ERR(buffer))
		return ERR_CAST(buffer);

	exp_info.ops = &dmashare_ops;
	exp_info.size = dmashare_size(buffer);
	exp_info.flags = O_RDWR;
	exp_info.priv = buffer;

	dmabuf = dma_buf_export(&exp_info);
	if (IS_ERR(dmabuf))
		dmashare_buffer_free(buffer);

	return dmabuf;
}
