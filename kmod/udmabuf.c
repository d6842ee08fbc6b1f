// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/udmabuf for kernels without it: the interface of <linux/udmabuf.h>, with
 * the answers that the kernel's own gives.
 */

#include <linux/dma-buf.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/udmabuf.h>

#include "compat.h"
#include "dmashare.h"

/* Items of a list are ranges: the same layout. */
static_assert(sizeof(struct udmabuf_create_item) == sizeof(struct dmashare_range));
static_assert(offsetof(struct udmabuf_create_item, memfd) ==
	      offsetof(struct dmashare_range, memfd));
static_assert(offsetof(struct udmabuf_create_item, offset) ==
	      offsetof(struct dmashare_range, offset));
static_assert(offsetof(struct udmabuf_create_item, size) ==
	      offsetof(struct dmashare_range, length));

static const struct dmashare_exporter dmashare_udmabuf_exporter = {
	.name = "udmabuf",
	.sync_begins_first = true,
};

static long dmashare_udmabuf_create(struct dmashare_file_account *file, u32 flags,
				    const struct dmashare_range *ranges, u32 count)
{
	struct dmashare_request request = {
		.exporter = &dmashare_udmabuf_exporter,
		.pool = &dmashare_udmabuf_pool,
		.file = file,
		.fd_flags = O_RDWR | (flags & UDMABUF_FLAGS_CLOEXEC ? O_CLOEXEC : 0),
		.ranges = ranges,
		.count = count,
	};
	long ret = dmashare_export_fd(&request, NULL, NULL);

	/* As Linux 7.3: a page pinned too often is EINVAL, no free huge page ENOMEM. */
	switch (ret) {
	case -EBADF:
		return -EBADFD;
	case -EFBIG:
	case -EMLINK:
		return -EINVAL;
	case -EDQUOT:
	case -ENOSPC:
		return -ENOMEM;
	default:
		return ret;
	}
}

static long dmashare_udmabuf_one(struct dmashare_file_account *file, void __user *arg)
{
	struct dmashare_range range = { };
	struct udmabuf_create create;

	if (copy_from_user(&create, arg, sizeof(create)))
		return -EFAULT;

	range.memfd = create.memfd;
	range.offset = create.offset;
	range.length = create.size;
	return dmashare_udmabuf_create(file, create.flags, &range, 1);
}

static long dmashare_udmabuf_list(struct dmashare_file_account *file, void __user *arg)
{
	struct udmabuf_create_list head;
	struct dmashare_range *ranges;
	long ret;

	if (copy_from_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.count > DMASHARE_MAX_RANGES)
		return -EINVAL;

	ranges = memdup_user(arg + sizeof(head), head.count * sizeof(*ranges));
	if (IS_ERR(ranges))
		return PTR_ERR(ranges);

	ret = dmashare_udmabuf_create(file, head.flags, ranges, head.count);
	kfree(ranges);
	return ret;
}

static long dmashare_udmabuf_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case UDMABUF_CREATE:
		return dmashare_udmabuf_one(file->private_data, (void __user *)arg);
	case UDMABUF_CREATE_LIST:
		return dmashare_udmabuf_list(file->private_data, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations dmashare_udmabuf_fops = {
	.owner = THIS_MODULE,
	.open = dmashare_node_open,
	.release = dmashare_node_release,
	.unlocked_ioctl = dmashare_udmabuf_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice dmashare_udmabuf_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "udmabuf",
	.fops = &dmashare_udmabuf_fops,
};

/**
 * dmashare_udmabuf_init - offer /dev/udmabuf
 *
 * Return: 0, and dmashare_udmabuf_exit() is owed; or an error.
 */
int __init dmashare_udmabuf_init(void)
{
	return misc_register(&dmashare_udmabuf_device);
}

/**
 * dmashare_udmabuf_exit - take /dev/udmabuf away
 */
void dmashare_udmabuf_exit(void)
{
	misc_deregister(&dmashare_udmabuf_device);
}
