// SPDX-License-Identifier: GPL-2.0
/*
 * dmashare: dma-bufs for any program, by ioctls on the nodes in /dev/dmashare.
 *
 * This file is the nodes and the module. Below it, exporter.c makes the buffers,
 * of memory from memory.c (contiguous.c, write_combined.c) or memfd.c (pin.c), and
 * cpu_access.c keeps the CPU and the devices from overwriting each other. quota.c
 * limits buffers, debugfs.c lists them, node.c opens nodes. udmabuf.c, heap_node.c
 * and heap.c offer buffers under other names.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/build_bug.h>
#include <linux/dma-buf.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "dmashare.h"

static bool standard_nodes;
module_param(standard_nodes, bool, 0444);
MODULE_PARM_DESC(standard_nodes,
		 "Offer /dev/udmabuf and /dev/dma_heap/system where the kernel does not. Default N.");

static bool heap;
module_param(heap, bool, 0444);
MODULE_PARM_DESC(heap,
		 "Add a heap dmashare to the kernel's dma_heap framework (since 7.2); the module can then not be unloaded. Default N.");

/* DMASHARE_NODE_*: what was added to the kernel; set at load. */
static u32 dmashare_nodes;

/* One layout for all callers, or compat_ptr_ioctl() would be wrong. */
static_assert(sizeof(struct dmashare_alloc) == DMASHARE_ALLOC_SIZE_V0);
static_assert(offsetof(struct dmashare_alloc, length) == 8);
static_assert(offsetof(struct dmashare_alloc, flags) == 24);
static_assert(sizeof(struct dmashare_range) == 24);
static_assert(sizeof(struct dmashare_wrap) == DMASHARE_WRAP_SIZE_V0);
static_assert(offsetof(struct dmashare_wrap, count) == 16);
static_assert(sizeof(struct dmashare_query) == DMASHARE_QUERY_SIZE_V0);
static_assert(offsetof(struct dmashare_query, chunks) == 24);
static_assert(sizeof(struct dmashare_info) == DMASHARE_INFO_SIZE_V0);
static_assert(offsetof(struct dmashare_info, buffer_max) == 24);

static const struct dmashare_exporter dmashare_exporter = {
	.name = KBUILD_MODNAME,
};

/**
 * struct dmashare_node - one of the module's own nodes
 * @kind: memory of its buffers
 * @features: DMASHARE_FEATURE_*
 * @misc: its device
 */
struct dmashare_node {
	enum dmashare_kind kind;
	u64 features;
	struct miscdevice misc;
};

/*
 * Copy an argument in. @known is its size in this module, @first that of its first
 * version. Return: bytes that the caller has, or an error.
 */
static long dmashare_read(void *to, size_t known, size_t first, const void __user *arg)
{
	u32 size;
	int ret;

	if (get_user(size, (const u32 __user *)arg))
		return -EFAULT;
	if (size < first)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;

	ret = copy_struct_from_user(to, known, arg, size);
	if (ret)
		return ret;
	return size;
}

/* Copy an answer out; where that fails halfway, the argument is as it was. */
static long dmashare_write(void __user *arg, const void *answer, const void *before,
			   size_t size)
{
	if (!copy_to_user(arg, answer, size))
		return 0;

	/* What could be written before can be again; the rest never was. */
	if (copy_to_user(arg, before, size))
		pr_debug("argument partly writable\n");
	return -EFAULT;
}

static bool dmashare_fd_flags_are_good(u32 flags)
{
	return !(flags & ~(O_CLOEXEC | O_ACCMODE)) && (flags & O_ACCMODE) != O_ACCMODE;
}

static bool dmashare_alloc_is_good(const struct dmashare_node *node,
				   const struct dmashare_alloc *alloc)
{
	u32 flags = 0;

	if (node->features & DMASHARE_FEATURE_BELOW_4G)
		flags |= DMASHARE_ALLOC_BELOW_4G;
	if (node->features & DMASHARE_FEATURE_WRITE_COMBINED)
		flags |= DMASHARE_ALLOC_WRITE_COMBINED;

	if (!alloc->length || alloc->flags & ~flags || alloc->reserved ||
	    !dmashare_fd_flags_are_good(alloc->fd_flags))
		return false;
	if (!alloc->max_chunk)
		return true;

	/* is_power_of_2() takes a long, which is not enough on 32 bits. */
	return node->features & DMASHARE_FEATURE_MAX_CHUNK &&
	       alloc->max_chunk >= PAGE_SIZE && !(alloc->max_chunk & (alloc->max_chunk - 1));
}

static long dmashare_ioctl_alloc(const struct dmashare_node *node,
				 struct dmashare_file_account *file, void __user *arg)
{
	struct dmashare_request request = { };
	struct dmashare_alloc alloc;
	long ret;

	ret = dmashare_read(&alloc, sizeof(alloc), DMASHARE_ALLOC_SIZE_V0, arg);
	if (ret < 0)
		return ret;
	if (!dmashare_alloc_is_good(node, &alloc))
		return -EINVAL;

	request.exporter = &dmashare_exporter;
	request.pool = &dmashare_own_pool;
	request.file = file;
	request.fd_flags = alloc.fd_flags;
	request.shape.kind = node->kind;
	request.shape.size = alloc.length;
	request.shape.max_chunk = alloc.max_chunk;
	request.shape.flags = alloc.flags;
	return dmashare_export_fd(&request, NULL, NULL);
}

static long dmashare_ioctl_wrap(struct dmashare_file_account *file, void __user *arg)
{
	struct dmashare_request request = { };
	struct dmashare_range *ranges;
	struct dmashare_wrap wrap;
	long ret;
	u32 i;

	ret = dmashare_read(&wrap, sizeof(wrap), DMASHARE_WRAP_SIZE_V0, arg);
	if (ret < 0)
		return ret;
	if (!wrap.count || wrap.count > DMASHARE_MAX_RANGES || wrap.flags ||
	    !dmashare_fd_flags_are_good(wrap.fd_flags))
		return -EINVAL;

	ranges = memdup_user(u64_to_user_ptr(wrap.ranges), wrap.count * sizeof(*ranges));
	if (IS_ERR(ranges))
		return PTR_ERR(ranges);

	ret = -EINVAL;
	for (i = 0; i < wrap.count; i++) {
		if (ranges[i].reserved)
			goto free_ranges;
	}

	request.exporter = &dmashare_exporter;
	request.pool = &dmashare_own_pool;
	request.file = file;
	request.fd_flags = wrap.fd_flags;
	request.ranges = ranges;
	request.count = wrap.count;
	ret = dmashare_export_fd(&request, NULL, NULL);

free_ranges:
	kfree(ranges);
	return ret;
}

static long dmashare_ioctl_query(void __user *arg)
{
	struct dmashare_query query, before;
	const struct dmashare_buffer *buffer;
	struct dma_buf *dmabuf;
	long size;

	size = dmashare_read(&query, sizeof(query), DMASHARE_QUERY_SIZE_V0, arg);
	if (size < 0)
		return size;
	if (query.reserved)
		return -EINVAL;
	before = query;

	dmabuf = dma_buf_get(query.fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	buffer = dmashare_buffer_of(dmabuf);
	if (buffer) {
		query.length = buffer->memory.size;
		query.memory = buffer->memory.kind;
		query.flags = buffer->memory.flags;
		query.chunks = buffer->memory.chunks.orig_nents;
	}
	dma_buf_put(dmabuf);
	if (!buffer)
		return -EINVAL;

	return dmashare_write(arg, &query, &before, min_t(size_t, size, sizeof(query)));
}

static long dmashare_ioctl_info(const struct dmashare_node *node,
				struct dmashare_file_account *file, void __user *arg)
{
	struct dmashare_info info, before;
	long size;

	size = dmashare_read(&info, sizeof(info), DMASHARE_INFO_SIZE_V0, arg);
	if (size < 0)
		return size;
	if (info.reserved)
		return -EINVAL;
	before = info;

	info.memory = node->kind;
	info.features = node->features;
	info.nodes = dmashare_nodes;
	dmashare_quota_info(&dmashare_own_pool, file, &info);
	return dmashare_write(arg, &info, &before, min_t(size_t, size, sizeof(info)));
}

static long dmashare_ioctl(const struct dmashare_node *node, struct file *file,
			   unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case DMASHARE_IOCTL_INFO:
		return dmashare_ioctl_info(node, file->private_data, (void __user *)arg);
	case DMASHARE_IOCTL_QUERY:
		return dmashare_ioctl_query((void __user *)arg);
	case DMASHARE_IOCTL_ALLOC:
		if (!(node->features & DMASHARE_FEATURE_ALLOC))
			return -ENOTTY;
		return dmashare_ioctl_alloc(node, file->private_data, (void __user *)arg);
	case DMASHARE_IOCTL_WRAP:
		if (!(node->features & DMASHARE_FEATURE_WRAP))
			return -ENOTTY;
		return dmashare_ioctl_wrap(file->private_data, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

/* One node a kind of memory: the right to each is given apart. */
#define DMASHARE_NODE(_name, _kind, _features) \
	static long dmashare_##_name##_ioctl(struct file *file, unsigned int cmd, \
					     unsigned long arg); \
	static const struct file_operations dmashare_##_name##_fops = { \
		.owner = THIS_MODULE, \
		.open = dmashare_node_open, \
		.release = dmashare_node_release, \
		.unlocked_ioctl = dmashare_##_name##_ioctl, \
		.compat_ioctl = compat_ptr_ioctl, \
	}; \
	static struct dmashare_node dmashare_##_name = { \
		.kind = _kind, \
		.features = _features, \
		.misc = { \
			.minor = MISC_DYNAMIC_MINOR, \
			.name = "dmashare-" #_name, \
			.nodename = "dmashare/" #_name, \
			.fops = &dmashare_##_name##_fops, \
			.mode = 0600, \
		}, \
	}; \
	static long dmashare_##_name##_ioctl(struct file *file, unsigned int cmd, \
					     unsigned long arg) \
	{ \
		return dmashare_ioctl(&dmashare_##_name, file, cmd, arg); \
	}

DMASHARE_NODE(system, DMASHARE_SYSTEM,
	      DMASHARE_FEATURE_ALLOC | DMASHARE_FEATURE_MAX_CHUNK |
	      DMASHARE_FEATURE_BELOW_4G | DMASHARE_CAN_WRITE_COMBINE)
DMASHARE_NODE(contiguous, DMASHARE_CONTIGUOUS,
	      DMASHARE_FEATURE_ALLOC | DMASHARE_FEATURE_BELOW_4G |
	      DMASHARE_CAN_WRITE_COMBINE)
DMASHARE_NODE(memfd, DMASHARE_MEMFD, DMASHARE_FEATURE_WRAP)

static struct dmashare_node *const dmashare_own_nodes[] = {
	&dmashare_system, &dmashare_contiguous, &dmashare_memfd,
};

static void dmashare_remove_own_nodes(unsigned int count)
{
	while (count--)
		misc_deregister(&dmashare_own_nodes[count]->misc);
}

static int __init dmashare_add_own_nodes(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(dmashare_own_nodes); i++) {
		ret = misc_register(&dmashare_own_nodes[i]->misc);
		if (ret) {
			dmashare_remove_own_nodes(i);
			return ret;
		}
	}
	return 0;
}

static void dmashare_remove_standard_nodes(void)
{
	if (dmashare_nodes & DMASHARE_NODE_DMA_HEAP)
		dmashare_heap_node_exit();
	if (dmashare_nodes & DMASHARE_NODE_UDMABUF)
		dmashare_udmabuf_exit();
	dmashare_nodes = 0;
}

/* Nodes that the kernel was built with are not added again. */
static int __init dmashare_add_standard_nodes(void)
{
	int ret;

	if (!IS_ENABLED(CONFIG_UDMABUF)) {
		ret = dmashare_udmabuf_init();
		if (ret)
			return ret;
		dmashare_nodes |= DMASHARE_NODE_UDMABUF;
	}

	if (!IS_ENABLED(CONFIG_DMABUF_HEAPS)) {
		ret = dmashare_heap_node_init();
		if (ret) {
			dmashare_remove_standard_nodes();
			return ret;
		}
		dmashare_nodes |= DMASHARE_NODE_DMA_HEAP;
	}

	return 0;
}

static int __init dmashare_init(void)
{
	int ret;

	if (heap && !DMASHARE_CAN_ADD_HEAP) {
		pr_err("heap=1: this kernel does not let a module add a heap\n");
		return -EOPNOTSUPP;
	}

	dmashare_quota_init();

	/* From here on nodes are visible; none can be opened yet, see node.c. */
	if (standard_nodes) {
		ret = dmashare_add_standard_nodes();
		if (ret)
			goto drain;
	}

	ret = dmashare_add_own_nodes();
	if (ret)
		goto remove_standard_nodes;

	/* Last, since it cannot be undone. */
	if (heap) {
		ret = dmashare_heap_init();
		if (ret)
			goto remove_own_nodes;
		dmashare_nodes |= DMASHARE_NODE_HEAP;
	}

	dmashare_debugfs_init();
	dmashare_nodes_start();
	return 0;

remove_own_nodes:
	dmashare_remove_own_nodes(ARRAY_SIZE(dmashare_own_nodes));
remove_standard_nodes:
	dmashare_remove_standard_nodes();
drain:
	dmashare_nodes_drain(THIS_MODULE);
	return ret;
}

/*
 * Not called while a node is open or a buffer is alive: each of them holds a
 * reference to the module.
 */
static void __exit dmashare_exit(void)
{
	dmashare_remove_own_nodes(ARRAY_SIZE(dmashare_own_nodes));
	dmashare_remove_standard_nodes();
	dmashare_debugfs_exit();
}

module_init(dmashare_init);
module_exit(dmashare_exit);

MODULE_AUTHOR("The dmashare authors");
MODULE_DESCRIPTION("Exports zeroed, bounded memory and memfds as dma-bufs");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
DMASHARE_IMPORT_DMA_BUF;
DMASHARE_IMPORT_DMA_BUF_HEAP;
