// SPDX-License-Identifier: GPL-2.0
/*
 * dmashare: dma-bufs for any program, by an ioctl on /dev/dmashare.
 *
 * This file is the device and the module; exporter.c makes the buffers and
 * quota.c bounds them.
 */

#include <linux/build_bug.h>
#include <linux/dma-buf.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/stringify.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "dmashare.h"
#include "dmashare_uapi.h"

/* One layout for all callers, or compat_ptr_ioctl() would be wrong. */
static_assert(sizeof(struct dmashare_alloc) == 32);
static_assert(offsetof(struct dmashare_alloc, fd) == 12);
static_assert(offsetof(struct dmashare_alloc, reserved) == 16);

static long dmashare_ioctl_alloc(struct dmashare_quota *quota,
				 struct dmashare_alloc __user *arg)
{
	struct dmashare_alloc alloc;
	struct dma_buf *dmabuf;
	int fd, ret;

	if (copy_from_user(&alloc, arg, sizeof(alloc)))
		return -EFAULT;
	if (!alloc.size || alloc.flags || alloc.reserved[0] || alloc.reserved[1])
		return -EINVAL;

	dmabuf = dmashare_export(quota, alloc.size);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		ret = fd;
		goto put_dmabuf;
	}

	if (put_user(fd, &arg->fd)) {
		ret = -EFAULT;
		goto put_fd;
	}

	/*
	 * Last, since it cannot be undone: from here on another thread of the
	 * caller may use the fd, or have closed it.
	 */
	fd_install(fd, dmabuf->file);
	return 0;

put_fd:
	put_unused_fd(fd);
put_dmabuf:
	dma_buf_put(dmabuf);
	return ret;
}

static long dmashare_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case DMASHARE_IOCTL_ALLOC:
		return dmashare_ioctl_alloc(file->private_data, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static int dmashare_open(struct inode *inode, struct file *file)
{
	struct dmashare_quota *quota = dmashare_quota_open();

	if (!quota)
		return -ENOMEM;

	file->private_data = quota;
	return 0;
}

static int dmashare_release(struct inode *inode, struct file *file)
{
	dmashare_quota_close(file->private_data);
	return 0;
}

static const struct file_operations dmashare_fops = {
	.owner = THIS_MODULE,
	.open = dmashare_open,
	.release = dmashare_release,
	.unlocked_ioctl = dmashare_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice dmashare_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmashare",
	.fops = &dmashare_fops,
	.mode = 0600,
};

static int __init dmashare_init(void)
{
	dmashare_quota_init();
	return misc_register(&dmashare_device);
}

/*
 * Not called while the device is open or a buffer is alive: each of them holds
 * a reference to the module.
 */
static void __exit dmashare_exit(void)
{
	misc_deregister(&dmashare_device);
}

module_init(dmashare_init);
module_exit(dmashare_exit);

MODULE_AUTHOR("The dmashare authors");
MODULE_DESCRIPTION("Exports zeroed, bounded memory as dma-bufs");
MODULE_LICENSE("GPL");
MODULE_VERSION(__stringify(DMASHARE_API_VERSION));
DMASHARE_IMPORT_DMA_BUF;
