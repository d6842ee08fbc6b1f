// SPDX-License-Identifier: GPL-2.0
/*
 * dmashare: dma-bufs for any program, by ioctls on /dev/dmashare.
 *
 * This file is the device and the module. Below it, exporter.c makes the
 * buffers, of memory from memory.c or memfd.c; quota.c bounds them and debugfs.c
 * shows them. udmabuf.c, heap_node.c and heap.c offer them by other names.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/build_bug.h>
#include <linux/dma-buf.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/stringify.h>
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

#define DMASHARE_ALLOC_FLAGS \
	(DMASHARE_ALLOC_CONTIGUOUS | DMASHARE_ALLOC_BELOW_4G | DMASHARE_CAN_WRITE_COMBINE)

/* DMASHARE_NODE_*: what was added to the kernel; set at load. */
static u32 dmashare_nodes;

/* One layout for all callers, or compat_ptr_ioctl() would be wrong. */
static_assert(sizeof(struct dmashare_alloc) == 80);
static_assert(offsetof(struct dmashare_alloc, fd) == 24);
static_assert(offsetof(struct dmashare_alloc, name) == 32);
static_assert(sizeof(struct dmashare_range) == 24);
static_assert(sizeof(struct dmashare_wrap) == 72);
static_assert(offsetof(struct dmashare_wrap, fd) == 20);
static_assert(offsetof(struct dmashare_wrap, name) == 24);
static_assert(sizeof(struct dmashare_info) == 88);

static bool dmashare_name_is_good(const __u8 *name)
{
	return strnlen(name, DMASHARE_NAME_LEN) < DMASHARE_NAME_LEN;
}

/*
 * Give the caller an fd of the dma-buf, whose reference it takes, and its
 * argument, in which @fd and @chunks are.
 */
static long dmashare_answer(struct dma_buf *dmabuf, void __user *arg, void *answer,
			    size_t size, __s32 *fd, __u32 *chunks)
{
	int ret;

	ret = get_unused_fd_flags(O_CLOEXEC);
	if (ret < 0)
		goto put_dmabuf;

	*fd = ret;
	*chunks = dmashare_chunks(dmabuf);
	if (copy_to_user(arg, answer, size)) {
		ret = -EFAULT;
		goto put_fd;
	}

	/*
	 * Last, since it cannot be undone: from here on another thread of the
	 * caller may use the fd, or have closed it.
	 */
	dmashare_fd_install(dmabuf, *fd);
	return 0;

put_fd:
	put_unused_fd(*fd);
put_dmabuf:
	dma_buf_put(dmabuf);
	return ret;
}

static struct dmashare_terms dmashare_terms_of(struct dmashare_quota *quota, const __u8 *name)
{
	return (struct dmashare_terms){
		.quota = quota,
		.exporter = KBUILD_MODNAME,
		.name = name,
		.fd_flags = O_RDWR,
	};
}

static bool dmashare_shape_is_good(const struct dmashare_alloc *alloc)
{
	if (!alloc->max_chunk)
		return true;

	return is_power_of_2(alloc->max_chunk) && alloc->max_chunk >= PAGE_SIZE &&
	       !(alloc->flags & DMASHARE_ALLOC_CONTIGUOUS);
}

static long dmashare_ioctl_alloc(struct dmashare_quota *quota, void __user *arg)
{
	struct dmashare_terms terms;
	struct dmashare_alloc alloc;
	struct dma_buf *dmabuf;

	if (copy_from_user(&alloc, arg, sizeof(alloc)))
		return -EFAULT;
	if (!alloc.size || alloc.flags & ~DMASHARE_ALLOC_FLAGS || alloc.reserved0 ||
	    alloc.reserved[0] || alloc.reserved[1] ||
	    !dmashare_shape_is_good(&alloc) || !dmashare_name_is_good(alloc.name))
		return -EINVAL;

	terms = dmashare_terms_of(quota, alloc.name);
	dmabuf = dmashare_export(&terms, alloc.size, alloc.max_chunk, alloc.flags);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	return dmashare_answer(dmabuf, arg, &alloc, sizeof(alloc), &alloc.fd, &alloc.chunks);
}

static long dmashare_ioctl_wrap(struct dmashare_quota *quota, void __user *arg)
{
	struct dmashare_range *ranges;
	struct dmashare_terms terms;
	struct dmashare_wrap wrap;
	struct dma_buf *dmabuf;
	u32 i;

	if (copy_from_user(&wrap, arg, sizeof(wrap)))
		return -EFAULT;
	if (!wrap.count || wrap.count > DMASHARE_MAX_RANGES || wrap.flags ||
	    wrap.reserved[0] || wrap.reserved[1] || !dmashare_name_is_good(wrap.name))
		return -EINVAL;

	ranges = memdup_user(u64_to_user_ptr(wrap.ranges), wrap.count * sizeof(*ranges));
	if (IS_ERR(ranges))
		return PTR_ERR(ranges);

	terms = dmashare_terms_of(quota, wrap.name);
	dmabuf = ERR_PTR(-EINVAL);
	for (i = 0; i < wrap.count; i++) {
		if (ranges[i].reserved)
			goto free_ranges;
	}
	dmabuf = dmashare_export_memfd(&terms, ranges, wrap.count);

free_ranges:
	kfree(ranges);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	return dmashare_answer(dmabuf, arg, &wrap, sizeof(wrap), &wrap.fd, &wrap.chunks);
}

static long dmashare_ioctl_info(struct dmashare_quota *quota, void __user *arg)
{
	struct dmashare_info info = {
		.version = DMASHARE_API_VERSION,
		.alloc_flags = DMASHARE_ALLOC_FLAGS,
		.nodes = dmashare_nodes,
	};

	dmashare_quota_info(quota, &info);
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long dmashare_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case DMASHARE_IOCTL_ALLOC:
		return dmashare_ioctl_alloc(file->private_data, (void __user *)arg);
	case DMASHARE_IOCTL_WRAP:
		return dmashare_ioctl_wrap(file->private_data, (void __user *)arg);
	case DMASHARE_IOCTL_INFO:
		return dmashare_ioctl_info(file->private_data, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations dmashare_fops = {
	.owner = THIS_MODULE,
	.open = dmashare_quota_file_open,
	.release = dmashare_quota_file_release,
	.unlocked_ioctl = dmashare_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice dmashare_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmashare",
	.fops = &dmashare_fops,
	.mode = 0600,
};

static void dmashare_remove_nodes(void)
{
	if (dmashare_nodes & DMASHARE_NODE_DMA_HEAP)
		dmashare_heap_node_exit();
	if (dmashare_nodes & DMASHARE_NODE_UDMABUF)
		dmashare_udmabuf_exit();
	dmashare_nodes = 0;
}

/* What the kernel was built with is not offered again. */
static int __init dmashare_add_nodes(void)
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
			dmashare_remove_nodes();
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
	dmashare_debugfs_init();

	if (standard_nodes) {
		ret = dmashare_add_nodes();
		if (ret)
			goto remove_debugfs;
	}

	ret = misc_register(&dmashare_device);
	if (ret)
		goto remove_nodes;

	/* Last, since it cannot be undone. */
	if (heap) {
		ret = dmashare_heap_init();
		if (ret)
			goto deregister;
		dmashare_nodes |= DMASHARE_NODE_HEAP;
	}

	return 0;

deregister:
	misc_deregister(&dmashare_device);
remove_nodes:
	dmashare_remove_nodes();
remove_debugfs:
	dmashare_debugfs_exit();
	return ret;
}

/*
 * Not called while a node is open or a buffer is alive: each of them holds a
 * reference to the module.
 */
static void __exit dmashare_exit(void)
{
	misc_deregister(&dmashare_device);
	dmashare_remove_nodes();
	dmashare_debugfs_exit();
}

module_init(dmashare_init);
module_exit(dmashare_exit);

MODULE_AUTHOR("The dmashare authors");
MODULE_DESCRIPTION("Exports zeroed, bounded memory and memfds as dma-bufs");
MODULE_LICENSE("GPL");
MODULE_VERSION(__stringify(DMASHARE_API_VERSION));
DMASHARE_IMPORT_DMA_BUF;
DMASHARE_IMPORT_DMA_BUF_HEAP;
