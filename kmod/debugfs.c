// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/dmashare/buffers: every live buffer, who made it, and the
 * devices that imported it; then the totals.
 */

#include <linux/cred.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/string_helpers.h>

#include "compat.h"
#include "dmashare.h"

static LIST_HEAD(dmashare_buffers);
/* Outside of &dmashare_buffer.lock. */
static DEFINE_MUTEX(dmashare_buffers_lock);
static struct dentry *dmashare_dir;

/**
 * dmashare_debugfs_add - show a buffer from now on
 * @buffer: it, exported
 */
void dmashare_debugfs_add(struct dmashare_buffer *buffer)
{
	mutex_lock(&dmashare_buffers_lock);
	list_add_tail(&buffer->node, &dmashare_buffers);
	mutex_unlock(&dmashare_buffers_lock);
}

/**
 * dmashare_debugfs_remove - show a buffer no more
 * @buffer: one that was added
 */
void dmashare_debugfs_remove(struct dmashare_buffer *buffer)
{
	mutex_lock(&dmashare_buffers_lock);
	list_del(&buffer->node);
	mutex_unlock(&dmashare_buffers_lock);
}

static const char *dmashare_kind_name(enum dmashare_kind kind)
{
	switch (kind) {
	case DMASHARE_SYSTEM:
		return "system";
	case DMASHARE_CONTIGUOUS:
		return "contiguous";
	case DMASHARE_MEMFD:
		return "memfd";
	}
	return "?";
}

/* Beside its pages: the structure and the list of chunks. */
static size_t dmashare_overhead(const struct dmashare_buffer *buffer)
{
	return sizeof(*buffer) +
	       buffer->memory.chunks.orig_nents * sizeof(struct scatterlist);
}

static void dmashare_show_attachment(struct seq_file *seq,
				     const struct dmashare_attachment *attachment)
{
	struct device *dev = attachment->dev;
	const struct list_head *node;
	unsigned int mappings = 0;

	list_for_each(node, &attachment->mappings)
		mappings++;
	seq_printf(seq, "\tattached %s driver %s mappings %u\n", dev_name(dev),
		   dev_driver_string(dev), mappings);
}

static void dmashare_show_buffer(struct seq_file *seq, struct dmashare_buffer *buffer)
{
	struct dmashare_attachment *attachment;
	struct dma_buf *dmabuf = buffer->dmabuf;
	const struct dmashare_memory *memory = &buffer->memory;

	seq_printf(seq, "%llu\t%zu\t%u\t%s\t%s\t%zu\t%s\t%d\t%u\t",
		   buffer->inode, memory->size,
		   memory->chunks.orig_nents, dmashare_kind_name(memory->kind),
		   memory->flags & DMASHARE_ALLOC_WRITE_COMBINED ? "write-combined" : "cached",
		   dmashare_overhead(buffer), dmabuf->exp_name, buffer->pid,
		   from_kuid_munged(current_user_ns(), buffer->uid));
	/* A process calls itself, and its buffers, what it likes. */
	seq_escape_str(seq, buffer->comm, ESCAPE_ANY_NP, NULL);
	seq_putc(seq, '\t');
	spin_lock(&dmabuf->name_lock);
	seq_escape_str(seq, dmabuf->name ?: "", ESCAPE_ANY_NP, NULL);
	spin_unlock(&dmabuf->name_lock);
	seq_putc(seq, '\n');

	mutex_lock(&buffer->lock);
	list_for_each_entry(attachment, &buffer->attachments, node)
		dmashare_show_attachment(seq, attachment);
	mutex_unlock(&buffer->lock);
}

static int dmashare_buffers_show(struct seq_file *seq, void *unused)
{
	struct dmashare_info info = { };
	struct dmashare_buffer *buffer;

	seq_puts(seq, "inode\tbytes\tchunks\tmemory\tcpu\toverhead\texporter\tpid\tuid\tcomm\tname\n");

	mutex_lock(&dmashare_buffers_lock);
	list_for_each_entry(buffer, &dmashare_buffers, node)
		dmashare_show_buffer(seq, buffer);
	mutex_unlock(&dmashare_buffers_lock);

	dmashare_quota_info(&dmashare_own_pool, NULL, &info);
	seq_printf(seq, "total %llu buffers, %llu bytes of at most %llu\n", info.buffers,
		   info.total_used, info.total_max);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(dmashare_buffers);

/**
 * dmashare_debugfs_init - make the file; without debugfs there is none
 */
void __init dmashare_debugfs_init(void)
{
	dmashare_dir = debugfs_create_dir("dmashare", NULL);
	debugfs_create_file("buffers", 0400, dmashare_dir, NULL, &dmashare_buffers_fops);
}

/**
 * dmashare_debugfs_exit - remove the file, after its last reader
 */
void dmashare_debugfs_exit(void)
{
	debugfs_remove(dmashare_dir);
}
