// SPDX-License-Identifier: GPL-2.0
/*
 * Bounds on the memory that buffers hold. A dma-buf outlives the process that
 * made it, and the OOM killer does not see it in anyone's resident set: only
 * its exporter can keep it from eating the system.
 */

#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "compat.h"
#include "dmashare.h"

static unsigned int max_buffer_mb = 256;
module_param(max_buffer_mb, uint, 0644);
MODULE_PARM_DESC(max_buffer_mb, "Most MiB in one buffer. Default 256.");

static unsigned int max_file_mb = 512;
module_param(max_file_mb, uint, 0644);
MODULE_PARM_DESC(max_file_mb,
		 "Most MiB in live buffers of one open file. Default 512.");

static unsigned int max_total_mb;
module_param(max_total_mb, uint, 0644);
MODULE_PARM_DESC(max_total_mb,
		 "Most MiB in all live buffers. Left out at load: half of the memory.");

/**
 * struct dmashare_quota - what one open file of /dev/dmashare holds
 * @ref: one for the open file and one for each of its live buffers, which can
 *	outlive the file
 * @used: bytes in its live buffers, under dmashare_quota_lock
 */
struct dmashare_quota {
	struct kref ref;
	u64 used;
};

static DEFINE_SPINLOCK(dmashare_quota_lock);
/* All live buffers' bytes, and how many they are; under dmashare_quota_lock. */
static u64 dmashare_total_used;
static u64 dmashare_total_buffers;

/**
 * dmashare_quota_init - fit the limit of all buffers to this machine's memory
 */
void __init dmashare_quota_init(void)
{
	if (!max_total_mb)
		max_total_mb = totalram_pages() / (SZ_1M >> PAGE_SHIFT) / 2;
}

/**
 * dmashare_quota_open - begin the account of an open file
 *
 * Return: the account, for dmashare_quota_close(), or NULL without memory.
 */
struct dmashare_quota *dmashare_quota_open(void)
{
	struct dmashare_quota *quota = kzalloc_obj(*quota, GFP_KERNEL_ACCOUNT);

	if (quota)
		kref_init(&quota->ref);
	return quota;
}

static void dmashare_quota_free(struct kref *ref)
{
	kfree(container_of(ref, struct dmashare_quota, ref));
}

/**
 * dmashare_quota_close - the open file is gone
 * @quota: its account, which stays until its last buffer is gone too
 */
void dmashare_quota_close(struct dmashare_quota *quota)
{
	kref_put(&quota->ref, dmashare_quota_free);
}

/**
 * dmashare_quota_file_open - &file_operations.open of a node that allocates
 * @inode: the node
 * @file: its open file, whose private data becomes its account
 *
 * Return: 0 or -ENOMEM.
 */
int dmashare_quota_file_open(struct inode *inode, struct file *file)
{
	struct dmashare_quota *quota = dmashare_quota_open();

	if (!quota)
		return -ENOMEM;

	file->private_data = quota;
	return 0;
}

/**
 * dmashare_quota_file_release - &file_operations.release of such a node
 * @inode: the node
 * @file: its open file
 *
 * Return: 0.
 */
int dmashare_quota_file_release(struct inode *inode, struct file *file)
{
	dmashare_quota_close(file->private_data);
	return 0;
}

static u64 dmashare_mb(const unsigned int *limit)
{
	/* Root may write the parameter at any time. */
	return (u64)READ_ONCE(*limit) << 20;
}

static bool dmashare_fits(u64 used, u64 size, u64 limit)
{
	/* A limit may have been lowered below what is used. */
	return used <= limit && size <= limit - used;
}

/**
 * dmashare_quota_charge - account for a buffer before its memory is taken
 * @quota: account of the open file that asks
 * @size: bytes
 *
 * Return: 0, and dmashare_quota_uncharge() is owed; or -E2BIG.
 */
int dmashare_quota_charge(struct dmashare_quota *quota, u64 size)
{
	int ret = -E2BIG;

	if (size > dmashare_mb(&max_buffer_mb))
		return ret;

	spin_lock(&dmashare_quota_lock);
	if (dmashare_fits(quota->used, size, dmashare_mb(&max_file_mb)) &&
	    dmashare_fits(dmashare_total_used, size, dmashare_mb(&max_total_mb))) {
		quota->used += size;
		dmashare_total_used += size;
		dmashare_total_buffers++;
		kref_get(&quota->ref);
		ret = 0;
	}
	spin_unlock(&dmashare_quota_lock);

	return ret;
}

/**
 * dmashare_quota_uncharge - a buffer's memory was given back
 * @quota: account it was charged to
 * @size: bytes it was charged with
 */
void dmashare_quota_uncharge(struct dmashare_quota *quota, u64 size)
{
	spin_lock(&dmashare_quota_lock);
	quota->used -= size;
	dmashare_total_used -= size;
	dmashare_total_buffers--;
	spin_unlock(&dmashare_quota_lock);

	kref_put(&quota->ref, dmashare_quota_free);
}

/**
 * dmashare_quota_info - tell the limits and what is used of them
 * @quota: account of the open file that asks, or NULL
 * @info: where to
 */
void dmashare_quota_info(struct dmashare_quota *quota, struct dmashare_info *info)
{
	info->max_buffer = dmashare_mb(&max_buffer_mb);
	info->file_max = dmashare_mb(&max_file_mb);
	info->total_max = dmashare_mb(&max_total_mb);

	spin_lock(&dmashare_quota_lock);
	info->file_used = quota ? quota->used : 0;
	info->total_used = dmashare_total_used;
	info->buffers = dmashare_total_buffers;
	spin_unlock(&dmashare_quota_lock);
}
