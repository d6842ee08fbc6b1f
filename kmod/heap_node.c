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

/* Return: the dma-buf and, in @data, its fd, which is not installed yet. */
static struct dma_buf *dmashare_heap_node_alloc(struct dmashare_quota *quota,
						struct dma_heap_allocation_data *data)
{
	struct dmashare_terms terms = {
		.quota = quota,
		.exporter = "system",
		.name = "",
	};
	struct dma_buf *dmabuf;
	int fd;

	if (data->fd || data->fd_flags & ~DMA_HEAP_VALID_FD_FLAGS ||
	    data->heap_flags & ~DMA_HEAP_VALID_HEAP_FLAGS || !PAGE_ALIGN(data->len))
		return ERR_PTR(-EINVAL);

	terms.fd_flags = data->fd_flags & O_ACCMODE;
	dmabuf = dmashare_export(&terms, data->len, 0, 0);
	if (IS_ERR(dmabuf))
		/* It has no limits of its own: too much is more than there is. */
		return PTR_ERR(dmabuf) == -E2BIG ? ERR_PTR(-ENOMEM) : dmabuf;

	fd = get_unused_fd_flags(data->fd_flags & O_CLOEXEC);
	if (fd < 0) {
		dma_buf_put(dmabuf);
		return ERR_PTR(fd);
	}

	data->fd = fd;
	return dmabuf;
}

/*
 * Of the command only its number counts, and what it says of the argument: of a
 * shorter one the rest is zero, and of a longer one it is ignored.
 */
static long dmashare_heap_node_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dma_heap_allocation_data data = { };
	size_t size = min_t(size_t, _IOC_SIZE(cmd), sizeof(data));
	struct dma_buf *dmabuf;

	if (_IOC_NR(cmd) != _IOC_NR(DMA_HEAP_IOCTL_ALLOC))
		return -EINVAL;

	if (cmd & IOC_IN && copy_from_user(&data, (void __user *)arg, size))
		return -EFAULT;

	dmabuf = dmashare_heap_node_alloc(file->private_data, &data);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	if (cmd & IOC_OUT && copy_to_user((void __user *)arg, &data, size)) {
		put_unused_fd(data.fd);
		dma_buf_put(dmabuf);
		return -EFAULT;
	}

	dmashare_fd_install(dmabuf, data.fd);
	return 0;
}

static const struct file_operations dmashare_heap_fops = {
	.owner = THIS_MODULE,
	.open = dmashare_quota_file_open,
	.release = dmashare_quota_file_release,
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
