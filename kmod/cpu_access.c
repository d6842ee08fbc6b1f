// SPDX-License-Identifier: GPL-2.0
/*
 * Turns of the CPU and of the devices.
 *
 * Between the begin and the end of a write access, memory that a device sees
 * through a bounce buffer, or past the CPU's caches, holds data that exist nowhere
 * else. CPU accesses of several processes may overlap (uapi/linux/dma-buf.h): while
 * any of them writes, nothing may be copied or invalidated over these data,
 * whatever the others begin, end, map or unmap. So
 *
 * - a begin hands all mappings to the CPU, unless a write access is open: then
 *   this was done when the first of them began;
 * - the end of a write access hands its data to the devices at once; what the end
 *   of a read access would invalidate waits for the last write access;
 * - a mapping that is made or removed is synced by the same rules, apart from
 *   its making and removing;
 * - a mapping for a device that writes is made for both directions. Else what the
 *   CPU wrote could not be handed over, and what the bounce buffer had before would
 *   come back.
 *
 * A write access belongs to the address space that began it. If that is gone, so
 * is the access: a process killed between begin and end blocks nothing.
 */

#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/highmem.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "compat.h"
#include "dmashare.h"

/**
 * struct dmashare_writer - open write accesses of one address space
 * @node: in &dmashare_buffer.writers
 * @mm: the address space, or NULL for threads of the kernel
 * @accesses: number of accesses begun and not ended
 */
struct dmashare_writer {
	struct list_head node;
	struct mm_struct *mm;
	unsigned long accesses;
};

static void dmashare_writer_free(struct dmashare_writer *writer)
{
	list_del(&writer->node);
	if (writer->mm)
		mmdrop(writer->mm);
	kfree(writer);
}

/* Whether a write access is open, in an address space that still exists. */
static bool dmashare_is_written(struct dmashare_buffer *buffer)
{
	struct dmashare_writer *writer, *next;

	list_for_each_entry_safe(writer, next, &buffer->writers, node) {
		if (writer->mm && !atomic_read(&writer->mm->mm_users))
			dmashare_writer_free(writer);
	}

	return !list_empty(&buffer->writers);
}

/* Return: the open write accesses of the caller, or NULL. */
static struct dmashare_writer *dmashare_writer_of_caller(struct dmashare_buffer *buffer)
{
	struct dmashare_writer *writer;

	list_for_each_entry(writer, &buffer->writers, node) {
		if (writer->mm == current->mm)
			return writer;
	}

	return NULL;
}

/* Open a write access of the caller. Return: @spare if it was not needed. */
static struct dmashare_writer *dmashare_writer_begin(struct dmashare_buffer *buffer,
						     struct dmashare_writer *spare)
{
	struct dmashare_writer *writer = dmashare_writer_of_caller(buffer);

	if (writer) {
		writer->accesses++;
		return spare;
	}

	spare->mm = current->mm;
	if (spare->mm)
		mmgrab(spare->mm);
	spare->accesses = 1;
	list_add_tail(&spare->node, &buffer->writers);
	return NULL;
}

static void dmashare_writer_end(struct dmashare_buffer *buffer)
{
	struct dmashare_writer *writer = dmashare_writer_of_caller(buffer);

	if (writer && !--writer->accesses)
		dmashare_writer_free(writer);
}

/**
 * dmashare_writers_free - forget all open write accesses
 * @buffer: buffer that is about to be freed
 */
void dmashare_writers_free(struct dmashare_buffer *buffer)
{
	struct dmashare_writer *writer, *next;

	list_for_each_entry_safe(writer, next, &buffer->writers, node)
		dmashare_writer_free(writer);
}

static void dmashare_sync_all_for_cpu(struct dmashare_buffer *buffer)
{
	struct dmashare_attachment *attachment;
	struct dmashare_mapping *mapping;

	/*
	 * In the direction of the mapping, whatever the CPU is about to do: what it
	 * does not write must be what the devices left, since all of the buffer goes
	 * back to them.
	 */
	list_for_each_entry(attachment, &buffer->attachments, node)
		list_for_each_entry(mapping, &attachment->mappings, node)
			dma_sync_sgtable_for_cpu(attachment->dev, &mapping->sgt,
						 mapping->dir);
}

static void dmashare_sync_all_for_device(struct dmashare_buffer *buffer,
					 enum dma_data_direction access, bool written)
{
	struct dmashare_attachment *attachment;
	struct dmashare_mapping *mapping;

	list_for_each_entry(attachment, &buffer->attachments, node) {
		list_for_each_entry(mapping, &attachment->mappings, node) {
			enum dma_data_direction dir = mapping->dir;

			/*
			 * What the CPU only read must not undo what the device wrote
			 * meanwhile. A mapping to read from has but one direction.
			 */
			if (dir == DMA_BIDIRECTIONAL)
				dir = access;
			/* It invalidates on some architectures, arm among them. */
			if (dir == DMA_FROM_DEVICE && written)
				continue;
			dma_sync_sgtable_for_device(attachment->dev, &mapping->sgt, dir);
		}
	}
}

/**
 * dmashare_cpu_begin - &dma_buf_ops.begin_cpu_access
 * @buffer: buffer that the CPU is about to access
 * @dir: DMA_FROM_DEVICE to read, DMA_TO_DEVICE to write, or both
 *
 * Return: 0; -ENOMEM; or -ERESTARTSYS while waiting for the devices' fences.
 */
int dmashare_cpu_begin(struct dmashare_buffer *buffer, enum dma_data_direction dir)
{
	struct dma_resv *resv = buffer->dmabuf->resv;
	bool writes = dir != DMA_FROM_DEVICE;
	struct dmashare_writer *spare = NULL;
	long ret;

	if (writes) {
		spare = kzalloc_obj(*spare, DMASHARE_GFP_ACCOUNT);
		if (!spare)
			return -ENOMEM;
	}

	/*
	 * The core waits for the devices, too, but only after this; if a signal ends
	 * that wait, an access that was begun here has no end. So it is begun last, with
	 * nothing left to wait for.
	 */
	for (;;) {
		ret = dma_resv_wait_timeout(resv, dma_resv_usage_rw(writes), true,
					    MAX_SCHEDULE_TIMEOUT);
		if (ret < 0) {
			kfree(spare);
			return ret;
		}

		mutex_lock(&buffer->lock);
		buffer->was_begun = true;
		if (!dmashare_is_written(buffer)) {
			if (buffer->vaddr)
				invalidate_kernel_vmap_range(buffer->vaddr,
							     buffer->memory.size);
			dmashare_sync_all_for_cpu(buffer);
		}
		if (dma_resv_test_signaled(resv, dma_resv_usage_rw(writes)))
			break;
		mutex_unlock(&buffer->lock);
	}

	if (writes)
		spare = dmashare_writer_begin(buffer, spare);
	mutex_unlock(&buffer->lock);

	kfree(spare);
	return 0;
}

/**
 * dmashare_cpu_end - &dma_buf_ops.end_cpu_access
 * @buffer: buffer that the CPU accessed
 * @dir: as given to dmashare_cpu_begin()
 *
 * The end of a write access that nobody has open hands nothing to the devices:
 * it would undo what they wrote.
 *
 * Return: 0; or -EINVAL where the exporter demands a begin and there was none.
 */
int dmashare_cpu_end(struct dmashare_buffer *buffer, enum dma_data_direction dir)
{
	bool written;
	int ret = 0;

	mutex_lock(&buffer->lock);
	if (buffer->exporter->sync_begins_first && !buffer->was_begun) {
		ret = -EINVAL;
		goto unlock;
	}

	written = dmashare_is_written(buffer);
	if (dir != DMA_FROM_DEVICE) {
		if (!written)
			dir = DMA_FROM_DEVICE;
		dmashare_writer_end(buffer);
		written = !list_empty(&buffer->writers);
	}

	if (buffer->vaddr)
		flush_kernel_vmap_range(buffer->vaddr, buffer->memory.size);
	dmashare_sync_all_for_device(buffer, dir, written);
unlock:
	mutex_unlock(&buffer->lock);
	return ret;
}

/**
 * dmashare_mapping_add - hand a new mapping to its device
 * @buffer: the buffer
 * @attachment: the device
 * @mapping: its mapping, made with DMA_ATTR_SKIP_CPU_SYNC
 */
void dmashare_mapping_add(struct dmashare_buffer *buffer,
			  struct dmashare_attachment *attachment,
			  struct dmashare_mapping *mapping)
{
	mutex_lock(&buffer->lock);
	list_add(&mapping->node, &attachment->mappings);
	dma_sync_sgtable_for_device(attachment->dev, &mapping->sgt, mapping->dir);
	mutex_unlock(&buffer->lock);
}

/**
 * dmashare_mapping_remove - take a mapping from its device
 * @buffer: the buffer
 * @attachment: the device
 * @mapping: its mapping, to be unmapped with DMA_ATTR_SKIP_CPU_SYNC
 */
void dmashare_mapping_remove(struct dmashare_buffer *buffer,
			     struct dmashare_attachment *attachment,
			     struct dmashare_mapping *mapping)
{
	mutex_lock(&buffer->lock);
	list_del(&mapping->node);
	if (!dmashare_is_written(buffer))
		dma_sync_sgtable_for_cpu(attachment->dev, &mapping->sgt, mapping->dir);
	mutex_unlock(&buffer->lock);
}
