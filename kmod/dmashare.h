/* SPDX-License-Identifier: GPL-2.0 */
/* Declarations shared by the module's files, from the lowest layer up. */
#ifndef DMASHARE_H
#define DMASHARE_H

#include <linux/gfp.h>
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
struct module;

/* Bytes between two looks at signals, where work on a buffer takes long. */
#define DMASHARE_STEP (4 << 20)

/*
 * For tables and the like: charged to the caller, who decides how many they are, and
 * an error where they do not fit, rather than the end of a process.
 */
#define DMASHARE_GFP_ACCOUNT \
	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* quota.c: limits on the memory held by buffers */
struct dmashare_file_account;
struct dmashare_user;

/**
 * struct dmashare_charge - what one buffer is charged to
 * @pool: bytes and number of all buffers of this kind
 * @file: account of the open file, or NULL
 * @users: accounts of the user and of the owner of its user namespace, or NULL
 * @bytes: bytes charged to each of them
 */
struct dmashare_charge {
	struct dmashare_pool *pool;
	struct dmashare_file_account *file;
	struct dmashare_user *users[2];
	u64 bytes;
};

/* Buffers of the module's own nodes and heaps; buffers of its /dev/udmabuf. */
extern struct dmashare_pool dmashare_own_pool, dmashare_udmabuf_pool;

void dmashare_quota_init(void);
struct dmashare_file_account *dmashare_file_account_new(void);
void dmashare_file_account_put(struct dmashare_file_account *account);
int dmashare_quota_charge(struct dmashare_charge *charge, struct dmashare_pool *pool,
			  struct dmashare_file_account *file, u64 bytes);
void dmashare_quota_uncharge(struct dmashare_charge *charge);
void dmashare_quota_info(struct dmashare_pool *pool, struct dmashare_file_account *file,
			 struct dmashare_info *info);

/**
 * enum dmashare_kind - source of a buffer's memory, and so the way to free it
 * @DMASHARE_SYSTEM: blocks of the page allocator
 * @DMASHARE_CONTIGUOUS: one run of single pages, or one block
 * @DMASHARE_MEMFD: pinned pages of memfds
 */
enum dmashare_kind {
	DMASHARE_SYSTEM = DMASHARE_MEMORY_SYSTEM,
	DMASHARE_CONTIGUOUS = DMASHARE_MEMORY_CONTIGUOUS,
	DMASHARE_MEMFD = DMASHARE_MEMORY_MEMFD,
};

/**
 * struct dmashare_memory - pages of a buffer
 * @chunks: scatter list of the buffer, in its order; entries are not merged
 * @blocks: of DMASHARE_SYSTEM: compound pages as allocated, linked by their lru.
 *	A block may be several entries of @chunks
 * @size: bytes
 * @kind: source of the pages
 * @flags: DMASHARE_ALLOC_*
 */
struct dmashare_memory {
	struct sg_table chunks;
	struct list_head blocks;
	size_t size;
	enum dmashare_kind kind;
	u32 flags;
};

/**
 * struct dmashare_shape - requested form of memory
 * @size: bytes, whole pages
 * @kind: DMASHARE_SYSTEM or DMASHARE_CONTIGUOUS
 * @max_chunk: as in &struct dmashare_alloc
 * @flags: as in &struct dmashare_alloc
 */
struct dmashare_shape {
	u64 size;
	enum dmashare_kind kind;
	u64 max_chunk;
	u32 flags;
};

/* contiguous.c: one run of pages */
struct page *dmashare_alloc_run(unsigned long count, const struct dmashare_shape *shape);
void dmashare_free_run(struct page *page, unsigned long count);

/* write_combined.c: CPU cache mode of pages */
int dmashare_set_write_combined(struct dmashare_memory *memory);
int dmashare_set_cached(struct dmashare_memory *memory);

/* memory.c: allocated pages */
int dmashare_memory_alloc(struct dmashare_memory *memory,
			  const struct dmashare_shape *shape);
void dmashare_memory_free(struct dmashare_memory *memory);

/**
 * struct dmashare_pin - run of pages of a memfd, pinned
 * @page: the first of them
 * @length: bytes
 */
struct dmashare_pin {
	struct page *page;
	size_t length;
};

/* pin.c: long-term pins, as each kernel makes them */
bool dmashare_is_hugetlb(struct inode *inode);
long dmashare_pin_pages(struct file *memfd, u64 start, unsigned long count,
			struct dmashare_pin *pins, int (*check)(struct file *memfd));
void dmashare_unpin(struct page *page, size_t length);

/* memfd.c: pages of memfds */
int dmashare_ranges_size(const struct dmashare_range *ranges, u32 count, u64 *size);
int dmashare_ranges_check(const struct dmashare_range *ranges, u32 count);
int dmashare_memory_wrap(struct dmashare_memory *memory,
			 const struct dmashare_range *ranges, u32 count);
void dmashare_memory_unwrap(struct dmashare_memory *memory);

/**
 * struct dmashare_exporter - properties of a node's buffers
 * @name: name of the exporter, in fdinfo
 * @sync_begins_first: DMA_BUF_SYNC_END is EINVAL before the first DMA_BUF_SYNC_START,
 *	as in the kernel's udmabuf
 * @maps_as_heap: mmap(2) may be MAP_PRIVATE, where the range is one chunk, and
 *	MADV_DOFORK is refused, as in the kernel's system heap
 */
struct dmashare_exporter {
	const char *name;
	bool sync_begins_first;
	bool maps_as_heap;
};

/**
 * struct dmashare_buffer - private data of one dma-buf
 * @exporter: properties by the node that made it
 * @charge: accounts that it is charged to
 * @memory: its pages
 * @lock: protects @attachments, their mappings, @writers, @was_begun and @vaddr
 * @attachments: every live struct dmashare_attachment
 * @writers: processes with an open CPU write access; see cpu_access.c
 * @was_begun: a CPU access was begun, ever
 * @vaddr: kernel mapping of the buffer, or NULL
 * @dmabuf: the dma-buf
 * @inode: number of its inode, which may be gone before the buffer is
 * @node: in the list of debugfs.c
 * @pid: process that made it
 * @uid: user of that process
 * @comm: name of that process
 */
struct dmashare_buffer {
	const struct dmashare_exporter *exporter;
	struct dmashare_charge charge;
	struct dmashare_memory memory;
	/* Inside the reservation lock, which the core holds in some callbacks. */
	struct mutex lock;
	struct list_head attachments;
	struct list_head writers;
	bool was_begun;
	void *vaddr;
	struct dma_buf *dmabuf;
	u64 inode;
	struct list_head node;
	pid_t pid;
	kuid_t uid;
	char comm[TASK_COMM_LEN];
};

/**
 * struct dmashare_attachment - device that imported the buffer
 * @node: in &dmashare_buffer.attachments
 * @dev: the device
 * @mappings: every live struct dmashare_mapping
 */
struct dmashare_attachment {
	struct list_head node;
	struct device *dev;
	struct list_head mappings;
};

/**
 * struct dmashare_mapping - buffer mapped for a device
 * @node: in &dmashare_attachment.mappings
 * @dir: direction that it is mapped for, DMA_TO_DEVICE or DMA_BIDIRECTIONAL
 * @sgt: its scatter list, which the importer holds
 */
struct dmashare_mapping {
	struct list_head node;
	enum dma_data_direction dir;
	struct sg_table sgt;
};

/* cpu_access.c: turns of the CPU and of the devices */
int dmashare_cpu_begin(struct dmashare_buffer *buffer, enum dma_data_direction dir);
int dmashare_cpu_end(struct dmashare_buffer *buffer, enum dma_data_direction dir);
void dmashare_mapping_add(struct dmashare_buffer *buffer,
			  struct dmashare_attachment *attachment,
			  struct dmashare_mapping *mapping);
void dmashare_mapping_remove(struct dmashare_buffer *buffer,
			     struct dmashare_attachment *attachment,
			     struct dmashare_mapping *mapping);
void dmashare_writers_free(struct dmashare_buffer *buffer);

/* debugfs.c: list of all buffers */
void dmashare_debugfs_init(void);
void dmashare_debugfs_exit(void);
void dmashare_debugfs_add(struct dmashare_buffer *buffer);
void dmashare_debugfs_remove(struct dmashare_buffer *buffer);

/* exporter.c: the buffers */

/**
 * struct dmashare_request - buffer to be made
 * @exporter: properties of the buffer
 * @pool: pool that it is charged to
 * @file: account of the open file, or NULL
 * @fd_flags: access mode and O_CLOEXEC of its fd
 * @shape: memory to allocate, if @ranges is NULL
 * @ranges: parts of memfds to wrap, or NULL
 * @count: number of @ranges
 */
struct dmashare_request {
	const struct dmashare_exporter *exporter;
	struct dmashare_pool *pool;
	struct dmashare_file_account *file;
	unsigned int fd_flags;
	struct dmashare_shape shape;
	const struct dmashare_range *ranges;
	u32 count;
};

struct dma_buf *dmashare_export(const struct dmashare_request *request);
int dmashare_export_fd(const struct dmashare_request *request,
		       int (*reply)(void *context, int fd), void *context);
struct dmashare_buffer *dmashare_buffer_of(struct dma_buf *dmabuf);

/* node.c: open files of all nodes */
int dmashare_node_open(struct inode *inode, struct file *file);
int dmashare_node_release(struct inode *inode, struct file *file);
void dmashare_nodes_start(void);
void dmashare_nodes_drain(struct module *module);

/* udmabuf.c, heap_node.c: the standard nodes, where the kernel has none */
int dmashare_udmabuf_init(void);
void dmashare_udmabuf_exit(void);
int dmashare_heap_node_init(void);
void dmashare_heap_node_exit(void);

/* heap.c: a heap of the kernel's framework */
int dmashare_heap_init(void);

#endif /* DMASHARE_H */
