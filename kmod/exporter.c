// SPDX-License-Identifier: GPL-2.0
/*
 * The exporter: what a dma-buf can do, whatever its memory is.
 * See Documentation/driver-api/dma-buf.rst for the rules it keeps.
 */

#include <linux/cred.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/iosys-map.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "dmashare.h"

static int dmashare_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct dmashare_attachment *attachment;

	attachment = kzalloc_obj(*attachment, GFP_KERNEL);
	if (!attachment)
		return -ENOMEM;

	attachment->dev = attach->dev;
	INIT_LIST_HEAD(&attachment->mappings);
	attach->priv = attachment;

	mutex_lock(&buffer->lock);
	list_add_tail(&attachment->node, &buffer->attachments);
	mutex_unlock(&buffer->lock);

	return 0;
}

/*
 * Fill a scatter list with the buffer's chunks, none merged with its neighbour,
 * but cut where the device takes only shorter segments.
 */
static int dmashare_fill_table(struct sg_table *table, struct sg_table *chunks,
			       unsigned int max_segment)
{
	struct scatterlist *chunk, *sg;
	unsigned int i, done, count = 0;
	int ret;

	/* A device may say UINT_MAX: segments end where pages do. */
	max_segment = max_t(unsigned int, max_segment & PAGE_MASK, PAGE_SIZE);

	for_each_sgtable_sg(chunks, chunk, i)
		count += DIV_ROUND_UP_ULL(chunk->length, max_segment);

	ret = sg_alloc_table(table, count, GFP_KERNEL);
	if (ret)
		return ret;

	sg = table->sgl;
	for_each_sgtable_sg(chunks, chunk, i) {
		for (done = 0; done < chunk->length; done += sg->length, sg = sg_next(sg))
			sg_set_page(sg, sg_page(chunk) + (done >> PAGE_SHIFT),
				    min(chunk->length - done, max_segment), 0);
	}

	return 0;
}

static struct dmashare_mapping *dmashare_mapping_new(struct dmashare_buffer *buffer,
						     struct device *dev)
{
	struct dmashare_mapping *mapping;
	int ret;

	mapping = kzalloc_obj(*mapping, GFP_KERNEL);
	if (!mapping)
		return ERR_PTR(-ENOMEM);

	/* What is bounced, as in confidential guests, has a limit of its own. */
	ret = dmashare_fill_table(&mapping->sgt, &buffer->memory.chunks,
				  min_t(size_t, dma_get_max_seg_size(dev),
					dma_max_mapping_size(dev)));
	if (ret) {
		kfree(mapping);
		return ERR_PTR(ret);
	}

	return mapping;
}

static void dmashare_mapping_free(struct dmashare_mapping *mapping)
{
	if (!mapping)
		return;

	sg_free_table(&mapping->sgt);
	kfree(mapping);
}

static void dmashare_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct dmashare_attachment *attachment = attach->priv;

	mutex_lock(&buffer->lock);
	list_del(&attachment->node);
	mutex_unlock(&buffer->lock);

	dmashare_mapping_free(attachment->spare);
	kfree(attachment);
}

/*
 * A table for each mapping, not for each attachment: an importer may map one
 * attachment twice. But who maps again and again, as for each frame, gets the
 * one that was made before.
 */
static struct sg_table *dmashare_map_dma_buf(struct dma_buf_attachment *attach,
					     enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = attach->dmabuf->priv;
	struct dmashare_attachment *attachment = attach->priv;
	struct dmashare_mapping *mapping;
	int ret;

	mutex_lock(&buffer->lock);
	mapping = attachment->spare;
	attachment->spare = NULL;
	mutex_unlock(&buffer->lock);

	if (!mapping) {
		mapping = dmashare_mapping_new(buffer, attach->dev);
		if (IS_ERR(mapping))
			return ERR_CAST(mapping);
	}
	mapping->dir = dir;

	/* Under the lock, so that a CPU access sees all of a mapping or none. */
	mutex_lock(&buffer->lock);
	ret = dma_map_sgtable(attach->dev, &mapping->sgt, dir, 0);
	if (!ret)
		list_add(&mapping->node, &attachment->mappings);
	mutex_unlock(&buffer->lock);
	if (ret) {
		dmashare_mapping_free(mapping);
		return ERR_PTR(ret);
	}

	return &mapping->sgt;
}

static void dmashare_unmap_dma_buf(struct dma_buf_attachment *attach,
				   struct sg_table *sgt,
				   enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = attach->dmabuf->priv;
	struct dmashare_attachment *attachment = attach->priv;
	struct dmashare_mapping *mapping =
		container_of(sgt, struct dmashare_mapping, sgt);

	mutex_lock(&buffer->lock);
	list_del(&mapping->node);
	dma_unmap_sgtable(attach->dev, sgt, dir, 0);
	if (!attachment->spare) {
		attachment->spare = mapping;
		mapping = NULL;
	}
	mutex_unlock(&buffer->lock);

	dmashare_mapping_free(mapping);
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

/* Hand the buffer to the CPU, or back to all devices that have it mapped. */
static void dmashare_sync(struct dmashare_buffer *buffer, enum dma_data_direction dir,
			  void (*sync)(struct device *dev, struct sg_table *sgt,
				       enum dma_data_direction dir))
{
	struct dmashare_attachment *attachment;
	struct dmashare_mapping *mapping;

	list_for_each_entry(attachment, &buffer->attachments, node)
		list_for_each_entry(mapping, &attachment->mappings, node)
			sync(attachment->dev, &mapping->sgt,
			     dmashare_sync_dir(mapping, dir));
}

static int dmashare_begin_cpu_access(struct dma_buf *dmabuf,
				     enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	long ret;

	/* The core waits for the devices, too, but only after this. */
	ret = dma_resv_wait_timeout(dmabuf->resv,
				    dma_resv_usage_rw(dir != DMA_FROM_DEVICE),
				    true, MAX_SCHEDULE_TIMEOUT);
	if (ret < 0)
		return ret;

	/*
	 * Whatever the CPU is about to do: the part that it does not write must be
	 * what the devices left, since all of it goes back to them.
	 */
	mutex_lock(&buffer->lock);
	if (buffer->vaddr)
		invalidate_kernel_vmap_range(buffer->vaddr, buffer->memory.size);
	dmashare_sync(buffer, DMA_BIDIRECTIONAL, dma_sync_sgtable_for_cpu);
	mutex_unlock(&buffer->lock);

	return 0;
}

static int dmashare_end_cpu_access(struct dma_buf *dmabuf,
				   enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = dmabuf->priv;

	mutex_lock(&buffer->lock);
	if (buffer->vaddr)
		flush_kernel_vmap_range(buffer->vaddr, buffer->memory.size);
	dmashare_sync(buffer, dir, dma_sync_sgtable_for_device);
	mutex_unlock(&buffer->lock);

	return 0;
}

static pgprot_t dmashare_pgprot(const struct dmashare_buffer *buffer, pgprot_t cached)
{
	return buffer->memory.write_combined ? pgprot_writecombine(cached) : cached;
}

/*
 * Mapped whole and at once, as page frames: no fault handler, no reference to a
 * page that could be kept past the buffer's end. The core has checked that the
 * range lies in the buffer, and the mapping's file keeps the buffer alive.
 */
static int dmashare_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	unsigned long addr = vma->vm_start;
	unsigned long skip = vma->vm_pgoff << PAGE_SHIFT;
	struct scatterlist *sg;
	unsigned int i;
	int ret;

	/* A private copy would be no sharing. VM_SHARED is not set of a read-only fd. */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;

	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYEXEC);

	vma->vm_page_prot = dmashare_pgprot(buffer, vma->vm_page_prot);

	for_each_sgtable_sg(&buffer->memory.chunks, sg, i) {
		unsigned long length;

		if (skip >= sg->length) {
			skip -= sg->length;
			continue;
		}

		length = min(sg->length - skip, vma->vm_end - addr);
		ret = remap_pfn_range(vma, addr,
				      page_to_pfn(sg_page(sg)) + (skip >> PAGE_SHIFT),
				      length, vma->vm_page_prot);
		if (ret)
			return ret;

		skip = 0;
		addr += length;
		if (addr == vma->vm_end)
			break;
	}

	return 0;
}

/* The core counts: called for the first vmap and for the last vunmap only. */
static int dmashare_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	unsigned int count = 0;
	struct sg_page_iter iter;
	struct page **pages;
	void *vaddr;

	pages = kvmalloc_array(buffer->memory.size >> PAGE_SHIFT, sizeof(*pages),
			       GFP_KERNEL);
	if (!pages)
		return -ENOMEM;

	for_each_sgtable_page(&buffer->memory.chunks, &iter, 0)
		pages[count++] = sg_page_iter_page(&iter);

	vaddr = vmap(pages, count, VM_MAP, dmashare_pgprot(buffer, PAGE_KERNEL));
	kvfree(pages);
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

static void dmashare_buffer_free(struct dmashare_buffer *buffer)
{
	struct dmashare_quota *quota = buffer->quota;
	size_t size = buffer->memory.size;

	dmashare_memory_free(&buffer->memory);
	mutex_destroy(&buffer->lock);
	kfree(buffer);
	dmashare_quota_uncharge(quota, size);
}

static void dmashare_release(struct dma_buf *dmabuf)
{
	struct dmashare_buffer *buffer = dmabuf->priv;

	dmashare_debugfs_remove(buffer);
	dmashare_buffer_free(buffer);
}

static const struct dma_buf_ops dmashare_ops = {
	.attach = dmashare_attach,
	.detach = dmashare_detach,
	.map_dma_buf = dmashare_map_dma_buf,
	.unmap_dma_buf = dmashare_unmap_dma_buf,
	.begin_cpu_access = dmashare_begin_cpu_access,
	.end_cpu_access = dmashare_end_cpu_access,
	.mmap = dmashare_mmap,
	.vmap = dmashare_vmap,
	.vunmap = dmashare_vunmap,
	.release = dmashare_release,
};

/* A buffer without memory yet, charged for this many bytes. */
static struct dmashare_buffer *dmashare_buffer_new(struct dmashare_quota *quota, size_t size)
{
	struct dmashare_buffer *buffer;
	int ret;

	buffer = kzalloc_obj(*buffer, GFP_KERNEL_ACCOUNT);
	if (!buffer)
		return ERR_PTR(-ENOMEM);

	ret = dmashare_quota_charge(quota, size);
	if (ret) {
		kfree(buffer);
		return ERR_PTR(ret);
	}

	buffer->quota = quota;
	mutex_init(&buffer->lock);
	INIT_LIST_HEAD(&buffer->attachments);
	buffer->pid = task_tgid_nr(current);
	buffer->uid = current_uid();
	get_task_comm(buffer->comm, current);

	return buffer;
}

/* The way back from dmashare_buffer_new(). */
static void dmashare_buffer_drop(struct dmashare_buffer *buffer, size_t size)
{
	mutex_destroy(&buffer->lock);
	dmashare_quota_uncharge(buffer->quota, size);
	kfree(buffer);
}

/* Export a buffer that has its memory; on an error it is gone. */
static struct dma_buf *dmashare_buffer_export(struct dmashare_buffer *buffer,
					      const struct dmashare_terms *terms)
{
	DEFINE_DMA_BUF_EXPORT_INFO(exp_info);
	struct dma_buf *dmabuf;
	char *name = NULL;

	if (terms->name[0]) {
		name = kstrdup(terms->name, GFP_KERNEL_ACCOUNT);
		if (!name) {
			dmashare_buffer_free(buffer);
			return ERR_PTR(-ENOMEM);
		}
	}

	exp_info.exp_name = terms->exporter;
	exp_info.ops = &dmashare_ops;
	exp_info.size = buffer->memory.size;
	exp_info.flags = terms->fd_flags;
	exp_info.priv = buffer;

	dmabuf = dma_buf_export(&exp_info);
	if (IS_ERR(dmabuf)) {
		kfree(name);
		dmashare_buffer_free(buffer);
		return dmabuf;
	}

	/* As DMA_BUF_SET_NAME does; the core frees it. */
	spin_lock(&dmabuf->name_lock);
	dmabuf->name = name;
	spin_unlock(&dmabuf->name_lock);

	buffer->dmabuf = dmabuf;
	buffer->inode = file_inode(dmabuf->file)->i_ino;
	dmashare_debugfs_add(buffer);
	return dmabuf;
}

/**
 * dmashare_export - allocate a buffer and export it
 * @terms: on which terms
 * @size: bytes, more than zero; rounded up to whole pages
 * @max_chunk: as in &struct dmashare_alloc, and checked
 * @flags: as in &struct dmashare_alloc, and checked
 *
 * Return: a dma-buf with one reference, for the caller to install or to put; or
 * -E2BIG over a limit, -ENOMEM without memory, -EINTR when killed meanwhile.
 */
struct dma_buf *dmashare_export(const struct dmashare_terms *terms, u64 size,
				u64 max_chunk, u32 flags)
{
	struct dmashare_shape shape = { .max_chunk = max_chunk, .flags = flags };
	struct dmashare_buffer *buffer;
	u64 most;
	int ret;

	/*
	 * Whatever the limits that root has set: else the rounding, size_t on 32
	 * bits, the count of pages or the length of a chunk would overflow.
	 */
	most = flags & DMASHARE_ALLOC_CONTIGUOUS ? UINT_MAX : (u64)INT_MAX << PAGE_SHIFT;
	if (size > min_t(u64, SIZE_MAX, most) - PAGE_SIZE + 1)
		return ERR_PTR(-E2BIG);
	shape.size = PAGE_ALIGN(size);

	buffer = dmashare_buffer_new(terms->quota, shape.size);
	if (IS_ERR(buffer))
		return ERR_CAST(buffer);

	ret = dmashare_memory_alloc(&buffer->memory, &shape);
	if (ret) {
		dmashare_buffer_drop(buffer, shape.size);
		return ERR_PTR(ret);
	}

	return dmashare_buffer_export(buffer, terms);
}

/**
 * dmashare_export_memfd - export ranges of memfds as one buffer
 * @terms: on which terms
 * @ranges: the ranges
 * @count: how many
 *
 * Return: a dma-buf with one reference, for the caller to install or to put; or
 * an error as of DMASHARE_IOCTL_WRAP.
 */
struct dma_buf *dmashare_export_memfd(const struct dmashare_terms *terms,
				      const struct dmashare_range *ranges, u32 count)
{
	struct dmashare_buffer *buffer;
	size_t size;
	int ret;

	ret = dmashare_ranges_size(ranges, count, &size);
	if (ret)
		return ERR_PTR(ret);

	buffer = dmashare_buffer_new(terms->quota, size);
	if (IS_ERR(buffer))
		return ERR_CAST(buffer);

	ret = dmashare_memory_wrap(&buffer->memory, ranges, count);
	if (ret) {
		dmashare_buffer_drop(buffer, size);
		return ERR_PTR(ret);
	}

	return dmashare_buffer_export(buffer, terms);
}

/**
 * dmashare_chunks - how many pieces a buffer's memory is in
 * @dmabuf: one of this exporter's
 */
u32 dmashare_chunks(struct dma_buf *dmabuf)
{
	const struct dmashare_buffer *buffer = dmabuf->priv;

	return buffer->memory.chunks.orig_nents;
}
