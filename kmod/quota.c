// SPDX-License-Identifier: GPL-2.0
/*
 * Limits on the memory that buffers hold. A dma-buf outlives the process that
 * made it, and the OOM killer does not see it in anyone's resident set: only
 * its exporter can keep it from using up the system.
 *
 * A buffer is charged to the pool of its node, to the open file that it was made
 * through, and to the user that made it. A user namespace gives its owner many
 * more users: a buffer made in one is charged to the owner, too, unless that is
 * root, as for containers of the system.
 */

#include <linux/cred.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "compat.h"
#include "dmashare.h"

static unsigned int max_buffer_mb = 256;
module_param(max_buffer_mb, uint, 0644);
MODULE_PARM_DESC(max_buffer_mb, "Most MiB in one buffer. Default 256.");

static unsigned int max_file_mb = 512;
module_param(max_file_mb, uint, 0644);
MODULE_PARM_DESC(max_file_mb,
		 "Most MiB in live buffers of one open file. Default 512.");

static unsigned int max_user_mb;
module_param(max_user_mb, uint, 0644);
MODULE_PARM_DESC(max_user_mb,
		 "Most MiB in live buffers of one user. Left out at load: three quarters of max_total_mb.");

static unsigned int max_total_mb;
module_param(max_total_mb, uint, 0644);
MODULE_PARM_DESC(max_total_mb,
		 "Most MiB in all live buffers but those of /dev/udmabuf. Left out at load: half of the memory.");

static unsigned int max_udmabuf_mb;
module_param(max_udmabuf_mb, uint, 0644);
MODULE_PARM_DESC(max_udmabuf_mb,
		 "Most MiB in all live buffers of the module's /dev/udmabuf. Left out at load: an eighth of the memory.");

/**
 * struct dmashare_pool - buffers that share a limit
 * @limit: parameter with the most MiB of all of them
 * @used: bytes in them
 * @buffers: how many there are
 * @users: every struct dmashare_user with a buffer among them
 */
struct dmashare_pool {
	const unsigned int *limit;
	u64 used;
	u64 buffers;
	struct list_head users;
};

struct dmashare_pool dmashare_own_pool = {
	.limit = &max_total_mb,
	.users = LIST_HEAD_INIT(dmashare_own_pool.users),
};

struct dmashare_pool dmashare_udmabuf_pool = {
	.limit = &max_udmabuf_mb,
	.users = LIST_HEAD_INIT(dmashare_udmabuf_pool.users),
};

/**
 * struct dmashare_file_account - buffers made through one open file
 * @ref: one for the open file and one for each of its live buffers, which can
 *	outlive the file
 * @used: bytes in them
 */
struct dmashare_file_account {
	struct kref ref;
	u64 used;
};

/**
 * struct dmashare_user - buffers made by one user
 * @node: in &dmashare_pool.users
 * @uid: the user, in the initial namespace's numbers
 * @used: bytes in them
 * @buffers: how many there are; without any, the account is freed
 */
struct dmashare_user {
	struct list_head node;
	kuid_t uid;
	u64 used;
	u64 buffers;
};

/* Protects all numbers above, and the lists of users. */
static DEFINE_MUTEX(dmashare_quota_lock);

/**
 * dmashare_quota_init - derive the limits that were not given from the memory
 */
void __init dmashare_quota_init(void)
{
	unsigned int memory_mb = totalram_pages() / (SZ_1M >> PAGE_SHIFT);

	if (!max_total_mb)
		max_total_mb = memory_mb / 2;
	if (!max_user_mb)
		max_user_mb = max_total_mb - max_total_mb / 4;
	if (!max_udmabuf_mb)
		max_udmabuf_mb = memory_mb / 8;
}

/**
 * dmashare_file_account_new - account for an open file
 *
 * Return: the account, for dmashare_file_account_put(), or NULL without memory.
 */
struct dmashare_file_account *dmashare_file_account_new(void)
{
	struct dmashare_file_account *account = kzalloc_obj(*account, DMASHARE_GFP_ACCOUNT);

	if (account)
		kref_init(&account->ref);
	return account;
}

static void dmashare_file_account_free(struct kref *ref)
{
	kfree(container_of(ref, struct dmashare_file_account, ref));
}

/**
 * dmashare_file_account_put - drop a reference to an account
 * @account: the account, which lives until its last buffer is gone, or NULL
 */
void dmashare_file_account_put(struct dmashare_file_account *account)
{
	if (account)
		kref_put(&account->ref, dmashare_file_account_free);
}

static u64 dmashare_mb(const unsigned int *limit)
{
	/* Root may write the parameter at any time. */
	return (u64)READ_ONCE(*limit) << 20;
}

static bool dmashare_fits(u64 used, u64 bytes, u64 limit)
{
	/* A limit may have been lowered below what is used. */
	return used <= limit && bytes <= limit - used;
}

static struct dmashare_user *dmashare_user_find(struct dmashare_pool *pool, kuid_t uid)
{
	struct dmashare_user *user;

	list_for_each_entry(user, &pool->users, node) {
		if (uid_eq(user->uid, uid))
			return user;
	}
	return NULL;
}

/* Return: the account of a user, or else @spare, which becomes it and is set to NULL. */
static struct dmashare_user *dmashare_user_get(struct dmashare_pool *pool, kuid_t uid,
					       struct dmashare_user **spare)
{
	struct dmashare_user *user = dmashare_user_find(pool, uid);

	if (user)
		return user;

	user = *spare;
	*spare = NULL;
	user->uid = uid;
	list_add(&user->node, &pool->users);
	return user;
}

static void dmashare_user_free_unused(struct dmashare_user *user)
{
	if (user && !user->buffers) {
		list_del(&user->node);
		kfree(user);
	}
}

/* Owner of the outermost user namespace around the caller; root if there is none. */
static kuid_t dmashare_namespace_owner(void)
{
	const struct user_namespace *ns = current_user_ns();
	kuid_t owner = GLOBAL_ROOT_UID;

	for (; ns->parent; ns = ns->parent)
		owner = ns->owner;
	return owner;
}

static void dmashare_users_get(struct dmashare_charge *charge, struct dmashare_user **spares)
{
	kuid_t uid = current_euid(), owner = dmashare_namespace_owner();

	charge->users[0] = dmashare_user_get(charge->pool, uid, &spares[0]);
	if (!uid_eq(owner, GLOBAL_ROOT_UID) && !uid_eq(owner, uid))
		charge->users[1] = dmashare_user_get(charge->pool, owner, &spares[1]);
}

/* Most bytes of one user. Of the udmabuf pool, which is small, it is a fixed part. */
static u64 dmashare_user_max(const struct dmashare_pool *pool)
{
	u64 limit = dmashare_mb(pool->limit);

	return pool == &dmashare_own_pool ? dmashare_mb(&max_user_mb) : limit - limit / 4;
}

static bool dmashare_charge_fits(const struct dmashare_charge *charge)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(charge->users); i++) {
		if (charge->users[i] &&
		    !dmashare_fits(charge->users[i]->used, charge->bytes,
				   dmashare_user_max(charge->pool)))
			return false;
	}

	return (!charge->file || dmashare_fits(charge->file->used, charge->bytes,
					       dmashare_mb(&max_file_mb))) &&
	       dmashare_fits(charge->pool->used, charge->bytes,
			     dmashare_mb(charge->pool->limit));
}

/* @sign is 1 to charge and -1 to uncharge. */
static void dmashare_charge_apply(const struct dmashare_charge *charge, int sign)
{
	s64 bytes = sign * (s64)charge->bytes;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(charge->users); i++) {
		if (charge->users[i]) {
			charge->users[i]->used += bytes;
			charge->users[i]->buffers += sign;
		}
	}
	if (charge->file)
		charge->file->used += bytes;
	charge->pool->used += bytes;
	charge->pool->buffers += sign;
}

static void dmashare_users_put(struct dmashare_charge *charge)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(charge->users); i++)
		dmashare_user_free_unused(charge->users[i]);
}

/**
 * dmashare_quota_charge - account for a buffer before its memory is taken
 * @charge: the charge; all zero
 * @pool: pool of its node
 * @file: account of the open file that it is made through, or NULL
 * @bytes: size of the buffer
 *
 * The user is the caller.
 *
 * Return: 0, and dmashare_quota_uncharge() is owed; -EFBIG if no buffer may be that
 * large; -EDQUOT over another limit; or -ENOMEM.
 */
int dmashare_quota_charge(struct dmashare_charge *charge, struct dmashare_pool *pool,
			  struct dmashare_file_account *file, u64 bytes)
{
	struct dmashare_user *spares[ARRAY_SIZE(charge->users)] = { };
	unsigned int i;
	int ret = 0;

	if (bytes > dmashare_mb(&max_buffer_mb))
		return -EFBIG;

	charge->pool = pool;
	charge->file = file;
	charge->bytes = bytes;

	/* Before the lock: a caller at the limit of its cgroup may take long. */
	for (i = 0; i < ARRAY_SIZE(spares); i++) {
		spares[i] = kzalloc_obj(*spares[i], DMASHARE_GFP_ACCOUNT);
		if (!spares[i])
			ret = -ENOMEM;
	}
	if (ret)
		goto free_spares;

	mutex_lock(&dmashare_quota_lock);
	dmashare_users_get(charge, spares);
	if (dmashare_charge_fits(charge)) {
		dmashare_charge_apply(charge, 1);
		if (file)
			kref_get(&file->ref);
	} else {
		dmashare_users_put(charge);
		ret = -EDQUOT;
	}
	mutex_unlock(&dmashare_quota_lock);

free_spares:
	for (i = 0; i < ARRAY_SIZE(spares); i++)
		kfree(spares[i]);
	return ret;
}

/**
 * dmashare_quota_uncharge - a buffer's memory was freed
 * @charge: what dmashare_quota_charge() filled in
 */
void dmashare_quota_uncharge(struct dmashare_charge *charge)
{
	mutex_lock(&dmashare_quota_lock);
	dmashare_charge_apply(charge, -1);
	dmashare_users_put(charge);
	mutex_unlock(&dmashare_quota_lock);

	dmashare_file_account_put(charge->file);
}

/**
 * dmashare_quota_info - report the limits and what is used of them
 * @pool: pool of the node
 * @file: account of the open file, or NULL
 * @info: to be filled in
 */
void dmashare_quota_info(struct dmashare_pool *pool, struct dmashare_file_account *file,
			 struct dmashare_info *info)
{
	struct dmashare_user *user;

	info->buffer_max = dmashare_mb(&max_buffer_mb);
	info->file_max = dmashare_mb(&max_file_mb);
	info->user_max = dmashare_user_max(pool);
	info->total_max = dmashare_mb(pool->limit);

	mutex_lock(&dmashare_quota_lock);
	user = dmashare_user_find(pool, current_euid());
	info->file_used = file ? file->used : 0;
	info->user_used = user ? user->used : 0;
	info->total_used = pool->used;
	info->buffers = pool->buffers;
	mutex_unlock(&dmashare_quota_lock);
}
