// SPDX-License-Identifier: GPL-2.0
/*
 * The exporter: what a dma-buf can do, whatever its memory is.
 * See Documentation/driver-api/dma-buf.rst for the rules it keeps.
 */

#include <linux/cred.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/iosys-map.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/personality.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "dmashare.h"

static int dmashare_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct dmashare_attachment *attachment;

	attachment = kzalloc_obj(*attachment, DMASHARE_GFP_ACCOUNT);
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

static void dmashare_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct dmashare_buffer *buffer = dmabuf->priv;
	struct dmashare_attachment *attachment = attach->priv;

	mutex_lock(&buffer->lock);
	list_del(&attachment->node);
	mutex_unlock(&buffer->lock);

	/* The importer may still use the tables: they are leaked, not freed. */
	if (WARN(!list_empty(&attachment->mappings),
		 "%s detached from a dma-buf that it has mapped\n", dev_name(attach->dev)))
		list_del(&attachment->mappings);
	kfree(attachment);
}

/* Longest segment, in bytes, that a device takes of this memory. */
static size_t dmashare_max_segment(struct device *dev, const struct dmashare_memory *memory)
{
	/* Bounce buffers, as in confidential guests, have a limit of their own. */
	size_t most = dma_max_mapping_size(dev);

	/*
	 * 64 KiB is assumed of a driver that never set a limit. For memory that is
	 * scattered anyway that is safe. But drivers that need one entry (armada, and
	 * omapdrm before 6.2 without a DMM) never set it either.
	 */
	if (memory->kind != DMASHARE_CONTIGUOUS ||
	    (dev->dma_parms && dev->dma_parms->max_segment_size))
		most = min_t(size_t, most, dma_get_max_seg_size(dev));

	/* It may be UINT_MAX: segments end where pages do. */
	return max_t(size_t, most & PAGE_MASK, PAGE_SIZE);
}

/* Length of the next segment: a device may not take one across its boundary. */
static unsigned int dmashare_segment(const struct scatterlist *chunk, unsigned int done,
				     size_t max_segment, unsigned long boundary)
{
	u64 start = sg_phys((struct scatterlist *)chunk) + done;
	u64 room = (u64)boundary - (start & boundary);
	u64 length = min_t(u64, chunk->length - done, max_segment);

	/* @room is one less than what is left, so that no boundary fits, too. */
	return min_t(u64, length - 1, room) + 1;
}

/*
 * Fill a scatter list with the buffer's chunks, none merged with its neighbour,
 * but cut where the device takes only shorter segments. It is charged to the
 * process that imports.
 */
static int dmashare_fill_table(struct sg_table *table, struct dmashare_memory *memory,
			       struct device *dev)
{
	size_t max_segment = dmashare_max_segment(dev, memory);
	unsigned long boundary = dma_get_seg_boundary(dev) | ~PAGE_MASK;
	struct scatterlist *chunk, *sg;
	unsigned int i, done, count = 0;
	int ret;

	for_each_sgtable_sg(&memory->chunks, chunk, i)
		for (done = 0; done < chunk->length; count++)
			done += dmashare_segment(chunk, done, max_segment, boundary);

	ret = sg_alloc_table(table, count, DMASHARE_GFP_ACCOUNT);
	if (ret)
		return ret;

	sg = table->sgl;
	for_each_sgtable_sg(&memory->chunks, chunk, i) {
		for (done = 0; done < chunk->length; done += sg->length, sg = sg_next(sg))
			sg_set_page(sg, dmashare_nth_page(sg_page(chunk), done >> PAGE_SHIFT),
				    dmashare_segment(chunk, done, max_segment, boundary), 0);
	}

	return 0;
}

/* A table for each mapping: an importer may map one attachment twice. */
static struct sg_table *dmashare_map_dma_buf(struct dma_buf_attachment *attach,
					     enum dma_data_direction dir)
{
	struct dmashare_buffer *buffer = attach->dmabuf->priv;
	struct dmashare_mapping *mapping;
	int ret;

	mapping = kzalloc_obj(*mapping, DMASHARE_GFP_ACCOUNT);
	if (!mapping)
		return ERR_PTR(-ENOMEM);

	ret = dmashare_fill_table(&mapping->sgt, &buffer->memory, attach->dev);
	if (ret)
		goto free_mapping;

	/* Both ways, or a CPU write could not be handed over: see cpu_access.c. */
	mapping->dir = dir == DMA_TO_DEVICE ? DMA_TO_DEVICE : DMA_BIDIRECTIONAL;
	ret = dma_map_sgtable(attach->dev, &mapping->sgt, mapping->dir,
			      DMA_ATTR_SKIP_CPU_SYNC);
	if (ret)
		goto free_table;

	dmashare_mapping_add(buffer, attach->priv, mapping);
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
	struct dmashare_mapping *mapping =
		container_of(sgt, struct dmashare_mapping, sgt);

	/* In the direction of the mapping, whatever the importer says now. */
	dmashare_mapping_remove(attach->dmabuf->priv, attach->priv, mapping);
	dma_unmap_sgtable(attach->dev, sgt, mapping->dir, DMA_ATTR_SKIP_CPU_SYNC);
	sg_free_table(sgt);
	kfree(mapping);
}

static int dmashare_begin_cpu_access(struct dma_buf *dmabuf,
				     enum dma_data_direction dir)
{
	return dmashare_cpu_begin(dmabuf->priv, dir);
}

static int dmashare_end_cpu_access(struct dma_buf *dmabuf,
				   enum dma_data_direction dir)
{
	return dmashare_cpu_end(dmabuf->priv, dir);
}

static pgprot_t dmashare_pgprot(const struct dmashare_buffer *buffer, pgprot_t cached)
{
	if (buffer->memory.flags & DMASHARE_ALLOC_WRITE_COMBINED)
		return pgprot_writecombine(cached);
	return cached;
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
	unsigned long skip = vma->vm_pgoff;
	struct scatterlist *sg;
	unsigned int i;
	int ret;

	/* A private copy would be no sharing. VM_SHARED is not set of a read-only fd. */
	if (!(vma->vm_flags & VM_MAYSHARE) && !buffer->exporter->maps_as_heap)
		return -EINVAL;

	/* Never executable; where the personality added it to PROT_READ, it is left out. */
	if (vma->vm_flags & VM_EXEC &&
	    !(vma->vm_flags & VM_READ && current->personality & READ_IMPLIES_EXEC))
		return -EPERM;
	vm_flags_clear(vma, VM_EXEC | VM_MAYEXEC);

	vma->vm_page_prot = dmashare_pgprot(buffer, vm_get_page_prot(vma->vm_flags));

	for_each_sgtable_sg(&buffer->memory.chunks, sg, i) {
		unsigned long pages = sg->length >> PAGE_SHIFT;
		unsigned long length;

		if (skip >= pages) {
			skip -= pages;
			continue;
		}

		length = min((pages - skip) << PAGE_SHIFT, vma->vm_end - addr);
		ret = remap_pfn_range(vma, addr, page_to_pfn(sg_page(sg)) + skip,
				      length, vma->vm_page_prot);
		if (ret)
			return ret;

		skip = 0;
		addr += length;
		if (addr == vma->vm_end)
			break;
	}

	/* It is memory, no device's registers: MADV_DONTFORK may be undone. */
	if (!buffer->exporter->maps_as_heap)
		vm_flags_clear(vma, VM_IO);
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
			       DMASHARE_GFP_ACCOUNT);
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
	dmashare_memory_free(&buffer->memory);
	dmashare_quota_uncharge(&buffer->charge);
	mutex_destroy(&buffer->lock);
	kfree(buffer);
}

static void dmashare_release(struct dma_buf *dmabuf)
{
	struct dmashare_buffer *buffer = dmabuf->priv;

	dmashare_debugfs_remove(buffer);
	dmashare_writers_free(buffer);
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

static int dmashare_memory_make(struct dmashare_memory *memory,
				const struct dmashare_request *request)
{
	if (request->ranges)
		return dmashare_memory_wrap(memory, request->ranges, request->count);
	return dmashare_memory_alloc(memory, &request->shape);
}

static struct dmashare_buffer *dmashare_buffer_new(const struct dmashare_request *request)
{
	struct dmashare_buffer *buffer;
	u64 size = request->shape.size;
	int ret;

	if (request->ranges) {
		ret = dmashare_ranges_size(request->ranges, request->count, &size);
		if (ret)
			return ERR_PTR(ret);
	}

	buffer = kzalloc_obj(*buffer, DMASHARE_GFP_ACCOUNT);
	if (!buffer)
		return ERR_PTR(-ENOMEM);

	buffer->exporter = request->exporter;
	mutex_init(&buffer->lock);
	INIT_LIST_HEAD(&buffer->attachments);
	INIT_LIST_HEAD(&buffer->writers);
	buffer->pid = task_tgid_nr(current);
	buffer->uid = current_uid();
	get_task_comm(buffer->comm, current);

	ret = dmashare_quota_charge(&buffer->charge, request->pool, request->file, size);
	if (ret)
		goto free_buffer;

	ret = dmashare_memory_make(&buffer->memory, request);
	if (ret)
		goto uncharge;

	return buffer;

uncharge:
	dmashare_quota_uncharge(&buffer->charge);
free_buffer:
	mutex_destroy(&buffer->lock);
	kfree(buffer);
	return ERR_PTR(ret);
}

/**
 * dmashare_export - make a buffer and export it
 * @request: the buffer; @shape.size is more than zero, and rounded up here
 *
 * Return: a dma-buf with one reference, or an error as of DMASHARE_IOCTL_ALLOC
 * and DMASHARE_IOCTL_WRAP.
 */
struct dma_buf *dmashare_export(const struct dmashare_request *request)
{
	DEFINE_DMA_BUF_EXPORT_INFO(exp_info);
	struct dmashare_request rounded = *request;
	struct dmashare_buffer *buffer;
	struct dma_buf *dmabuf;
	u64 most;

	/*
	 * Whatever limits root has set: else the rounding, size_t on 32 bits, the
	 * number of pages or the length of an entry would overflow.
	 */
	most = request->shape.kind == DMASHARE_CONTIGUOUS ? UINT_MAX :
							    (u64)INT_MAX << PAGE_SHIFT;
	if (request->shape.size > min_t(u64, SIZE_MAX, most) - PAGE_SIZE + 1)
		return ERR_PTR(-EFBIG);
	rounded.shape.size = (request->shape.size + PAGE_SIZE - 1) & ~(u64)(PAGE_SIZE - 1);

	buffer = dmashare_buffer_new(&rounded);
	if (IS_ERR(buffer))
		return ERR_CAST(buffer);

	exp_info.exp_name = request->exporter->name;
	exp_info.ops = &dmashare_ops;
	exp_info.size = buffer->memory.size;
	exp_info.flags = request->fd_flags & O_ACCMODE;
	exp_info.priv = buffer;

	dmabuf = dma_buf_export(&exp_info);
	if (IS_ERR(dmabuf)) {
		dmashare_buffer_free(buffer);
		return dmabuf;
	}

	buffer->dmabuf = dmabuf;
	buffer->inode = file_inode(dmabuf->file)->i_ino;
	dmashare_debugfs_add(buffer);
	return dmabuf;
}

/**
 * dmashare_export_fd - make a buffer and give the caller an fd of it
 * @request: as for dmashare_export()
 * @reply: function that copies the fd to the caller, or NULL
 * @context: argument for @reply
 *
 * The fd is reserved first and installed last: until then nothing shows of a call
 * that fails, and from then on another thread may use or close the fd.
 *
 * Return: the fd; -EMFILE without a free one; or an error of dmashare_export() or
 * of @reply.
 */
int dmashare_export_fd(const struct dmashare_request *request,
		       int (*reply)(void *context, int fd), void *context)
{
	struct dma_buf *dmabuf;
	int fd, ret;

	fd = get_unused_fd_flags(request->fd_flags & O_CLOEXEC);
	if (fd < 0) {
		/* As in the kernel's udmabuf, a bad range is reported first. */
		ret = request->ranges ? dmashare_ranges_check(request->ranges, request->count) : 0;
		return ret ?: fd;
	}

	dmabuf = dmashare_export(request);
	if (IS_ERR(dmabuf)) {
		ret = PTR_ERR(dmabuf);
		goto put_fd;
	}

	ret = reply ? reply(context, fd) : 0;
	if (ret)
		goto put_dmabuf;

	dmashare_fd_install(dmabuf, fd);
	return fd;

put_dmabuf:
	dma_buf_put(dmabuf);
put_fd:
	put_unused_fd(fd);
	return ret;
}

/**
 * dmashare_buffer_of - private data of a dma-buf
 * @dmabuf: any dma-buf
 *
 * Return: the buffer, or NULL where another exporter made it.
 */
struct dmashare_buffer *dmashare_buffer_of(struct dma_buf *dmabuf)
{
	return dmabuf->ops == &dmashare_ops ? dmabuf->priv : NULL;
}
