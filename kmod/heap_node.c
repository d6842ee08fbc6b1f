// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/dma_heap/system for kernels without the dma_heap framework: the interface
 * of <linux/dma-heap.h>, with the answers that the kernel's own gives.
 */

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <uapi/linux/dma-heap.h>

#include "compat.h"
#include "dmashare.h"

static dev_t dmashare_heap_devt;
static struct cdev dmashare_heap_cdev;
static struct class *dmashare_heap_class;

static const struct dmashare_exporter dmashare_heap_exporter = {
	.name = "system",
	.maps_as_heap = true,
};

/**
 * struct dmashare_heap_reply - where the fd goes
 * @arg: argument of the caller
 * @size: bytes to copy to it, maybe none
 * @data: copy of it
 */
struct dmashare_heap_reply {
	void __user *arg;
	size_t size;
	struct dma_heap_allocation_data *data;
};

static int dmashare_heap_node_reply(void *context, int fd)
{
	struct dmashare_heap_reply *reply = context;

	reply->data->fd = fd;
	return copy_to_user(reply->arg, reply->data, reply->size) ? -EFAULT : 0;
}

static long dmashare_heap_node_alloc(struct dmashare_file_account *file,
				     struct dmashare_heap_reply *reply)
{
	const struct dma_heap_allocation_data *data = reply->data;
	struct dmashare_request request = {
		.exporter = &dmashare_heap_exporter,
		.pool = &dmashare_own_pool,
		.file = file,
		.fd_flags = data->fd_flags,
		.shape = { .kind = DMASHARE_SYSTEM, .size = data->len },
	};
	long ret;

	if (data->fd || data->fd_flags & ~DMA_HEAP_VALID_FD_FLAGS ||
	    data->heap_flags & ~DMA_HEAP_VALID_HEAP_FLAGS || !PAGE_ALIGN(data->len))
		return -EINVAL;

	ret = dmashare_export_fd(&request, dmashare_heap_node_reply, reply);
	if (ret >= 0)
		return 0;
	/* The kernel's heap has no limits: too much is more than there is. */
	return ret == -EFBIG || ret == -EDQUOT ? -ENOMEM : ret;
}

/*
 * As the framework does, look only at the number, size and direction of @cmd. All
 * bytes of a longer argument are copied, though none beyond the structure is used;
 * a shorter one is extended with zeroes.
 */
static long dmashare_heap_node_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	size_t size = _IOC_SIZE(cmd);
	struct dmashare_heap_reply reply = {
		.arg = (void __user *)arg,
		.size = cmd & IOC_OUT ? size : 0,
	};
	long ret = -EFAULT;

	if (_IOC_NR(cmd) != _IOC_NR(DMA_HEAP_IOCTL_ALLOC))
		return -EINVAL;

	reply.data = kzalloc(max(size, sizeof(*reply.data)), GFP_KERNEL_ACCOUNT);
	if (!reply.data)
		return -ENOMEM;

	if (!(cmd & IOC_IN) || !copy_from_user(reply.data, reply.arg, size))
		ret = dmashare_heap_node_alloc(file->private_data, &reply);

	kfree(reply.data);
	return ret;
}

/* As the framework does: pread(2) of the node is ESPIPE. */
static int dmashare_heap_node_open(struct inode *inode, struct file *file)
{
	int ret = dmashare_node_open(inode, file);

	return ret ?: nonseekable_open(inode, file);
}

static const struct file_operations dmashare_heap_fops = {
	.owner = THIS_MODULE,
	.open = dmashare_heap_node_open,
	.release = dmashare_node_release,
	.unlocked_ioctl = dmashare_heap_node_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static char *dmashare_heap_devnode(DMASHARE_DEVNODE_CONST struct device *dev, umode_t *mode)
{
	return kasprintf(GFP_KERNEL, "dma_heap/%s", dev_name(dev));
}

/**
 * dmashare_heap_node_init - offer /dev/dma_heap/system
 *
 * Return: 0, and dmashare_heap_node_exit() is owed; or an error.
 */
int __init dmashare_heap_node_init(void)
{
	struct device *dev;
	int ret;

	ret = alloc_chrdev_region(&dmashare_heap_devt, 0, 1, "dma_heap");
	if (ret)
		return ret;

	dmashare_heap_class = dmashare_class_create("dma_heap");
	if (IS_ERR(dmashare_heap_class)) {
		ret = PTR_ERR(dmashare_heap_class);
		goto unregister_region;
	}
	dmashare_heap_class->devnode = dmashare_heap_devnode;

	cdev_init(&dmashare_heap_cdev, &dmashare_heap_fops);
	dmashare_heap_cdev.owner = THIS_MODULE;
	ret = cdev_add(&dmashare_heap_cdev, dmashare_heap_devt, 1);
	if (ret)
		goto destroy_class;

	dev = device_create(dmashare_heap_class, NULL, dmashare_heap_devt, NULL, "system");
	if (IS_ERR(dev)) {
		ret = PTR_ERR(dev);
		goto delete_cdev;
	}

	return 0;

delete_cdev:
	cdev_del(&dmashare_heap_cdev);
destroy_class:
	class_destroy(dmashare_heap_class);
unregister_region:
	unregister_chrdev_region(dmashare_heap_devt, 1);
	return ret;
}

/**
 * dmashare_heap_node_exit - take /dev/dma_heap/system away
 */
void dmashare_heap_node_exit(void)
{
	device_destroy(dmashare_heap_class, dmashare_heap_devt);
	cdev_del(&dmashare_heap_cdev);
	class_destroy(dmashare_heap_class);
	unregister_chrdev_region(dmashare_heap_devt, 1);
}
