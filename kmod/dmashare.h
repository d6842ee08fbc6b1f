/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the module know of each other, low to high. */
#ifndef DMASHARE_H
#define DMASHARE_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/uidgid.h>

#include "dmashare_uapi.h"

struct dma_buf;
struct file;
struct inode;

/* quota.c: how much memory may be held */
struct dmashare_quota;

void dmashare_quota_init(void);
struct dmashare_quota *dmashare_quota_open(void);
void dmashare_quota_close(struct dmashare_quota *quota);
int dmashare_quota_file_open(struct inode *inode, struct file *file);
int dmashare_quota_file_release(struct inode *inode, struct file *file);
int dmashare_quota_charge(struct dmashare_quota *quota, u64 size);
void dmashare_quota_uncharge(struct dmashare_quota *quota, u64 size);
void dmashare_quota_info(struct dmashare_quota *quota, struct dmashare_info *info);

/**
 * enum dmashare_kind - where memory comes from, and so how it goes back
 * @DMASHARE_SCATTERED: each chunk from the page allocator, whole
 * @DMASHARE_CONTIGUOUS: one chunk, of single pages
 * @DMASHARE_MEMFD: pinned pages of memfds
 */
enum dmashare_kind {
	DMASHARE_SCATTERED,
	DMASHARE_CONTIGUOUS,
	DMASHARE_MEMFD,
};

/**
 * struct dmashare_memory - the pages of a buffer
 * @chunks: runs of pages, an entry each, in the buffer's order
 * @size: bytes in all
 * @kind: where they come from
 * @write_combined: how the CPU maps them
 */
struct dmashare_memory {
	struct sg_table chunks;
	size_t size;
	enum dmashare_kind kind;
	bool write_combined;
};

/* memory.c: pages from the kernel, in the shape that was asked for */

/**
 * struct dmashare_shape - what memory is to be like
 * @size: bytes, whole pages
 * @max_chunk: as in &struct dmashare_alloc
 * @flags: as in &struct dmashare_alloc
 */
struct dmashare_shape {
	size_t size;
	u64 max_chunk;
	u32 flags;
};

int dmashare_memory_alloc(struct dmashare_memory *memory,
			  const struct dmashare_shape *shape);
void dmashare_memory_free(struct dmashare_memory *memory);

/* memfd.c: pages of memfds */
int dmashare_ranges_size(const struct dmashare_range *ranges, u32 count, size_t *size);
int dmashare_memory_wrap(struct dmashare_memory *memory,
			 const struct dmashare_range *ranges, u32 count);
void dmashare_memory_unwrap(struct dmashare_memory *memory);

/**
 * struct dmashare_buffer - what is behind one dma-buf
 * @quota: whom it is charged to
 * @memory: its pages
 * @lock: protects @attachments, what is in them, and @vaddr
 * @attachments: every live struct dmashare_attachment
 * @vaddr: where the kernel sees the buffer in one piece, or NULL
 * @dmabuf: the dma-buf
 * @inode: number of its inode, which may be gone before the buffer is
 * @node: in the list of debugfs.c
 * @pid: process that made it
 * @uid: and its user
 * @comm: and its name
 */
struct dmashare_buffer {
	struct dmashare_quota *quota;
	struct dmashare_memory memory;
	/* Inside the reservation lock, which the core holds in some callbacks. */
	struct mutex lock;
	struct list_head attachments;
	void *vaddr;
	struct dma_buf *dmabuf;
	u64 inode;
	struct list_head node;
	pid_t pid;
	kuid_t uid;
	char comm[TASK_COMM_LEN];
};

/**
 * struct dmashare_attachment - a device that imported the buffer
 * @node: in &dmashare_buffer.attachments
 * @dev: the device
 * @mappings: every live struct dmashare_mapping
 * @spare: one that is not live, for the next to be made, or NULL
 */
struct dmashare_attachment {
	struct list_head node;
	struct device *dev;
	struct list_head mappings;
	struct dmashare_mapping *spare;
};

/**
 * struct dmashare_mapping - the buffer as one device sees it
 * @node: in &dmashare_attachment.mappings
 * @dir: the transfers that were asked for
 * @sgt: its scatter list; the importer's handle of the mapping
 */
struct dmashare_mapping {
	struct list_head node;
	enum dma_data_direction dir;
	struct sg_table sgt;
};

/* debugfs.c: who holds what */
void dmashare_debugfs_init(void);
void dmashare_debugfs_exit(void);
void dmashare_debugfs_add(struct dmashare_buffer *buffer);
void dmashare_debugfs_remove(struct dmashare_buffer *buffer);

/* exporter.c: the buffers */

/**
 * struct dmashare_terms - on which terms a buffer is exported
 * @quota: account that it is charged to
 * @exporter: what the kernel calls the exporter
 * @name: what the kernel is to call the buffer, or an empty string
 * @fd_flags: O_RDWR and the like
 */
struct dmashare_terms {
	struct dmashare_quota *quota;
	const char *exporter;
	const char *name;
	int fd_flags;
};

struct dma_buf *dmashare_export(const struct dmashare_terms *terms, u64 size,
				u64 max_chunk, u32 flags);
struct dma_buf *dmashare_export_memfd(const struct dmashare_terms *terms,
				      const struct dmashare_range *ranges, u32 count);
u32 dmashare_chunks(struct dma_buf *dmabuf);

/* udmabuf.c, heap_node.c: the standard nodes, where the kernel has none */
int dmashare_udmabuf_init(void);
void dmashare_udmabuf_exit(void);
int dmashare_heap_node_init(void);
void dmashare_heap_node_exit(void);

/* heap.c: a heap of the kernel's framework */
int dmashare_heap_init(void);

#endif /* DMASHARE_H */
