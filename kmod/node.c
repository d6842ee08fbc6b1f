// SPDX-License-Identifier: GPL-2.0
/*
 * Open files of the module's nodes: each has an account, and none can be opened
 * before the module is known to stay.
 *
 * A node is visible from the moment it is registered, while the load can still
 * fail at a later one. If it fails then, the kernel frees the module whoever uses
 * it: a file that was opened meanwhile would be left with operations that no
 * longer exist. So until all nodes are registered every open is refused, and a
 * failed load waits until the refused ones have left the module.
 */

#include <linux/compiler.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/module.h>

#include "compat.h"
#include "dmashare.h"

static bool dmashare_nodes_started;

/**
 * dmashare_node_open - &file_operations.open of every node
 * @inode: inode of the node
 * @file: open file; its private data becomes its account
 *
 * Return: 0, -ENXIO while the module is being loaded, or -ENOMEM.
 */
int dmashare_node_open(struct inode *inode, struct file *file)
{
	struct dmashare_file_account *account;

	if (!READ_ONCE(dmashare_nodes_started))
		return -ENXIO;

	account = dmashare_file_account_new();
	if (!account)
		return -ENOMEM;

	file->private_data = account;
	return 0;
}

/**
 * dmashare_node_release - &file_operations.release of every node
 * @inode: inode of the node
 * @file: open file
 *
 * Return: 0.
 */
int dmashare_node_release(struct inode *inode, struct file *file)
{
	dmashare_file_account_put(file->private_data);
	return 0;
}

/**
 * dmashare_nodes_start - allow the nodes to be opened: the load cannot fail now
 */
void __init dmashare_nodes_start(void)
{
	WRITE_ONCE(dmashare_nodes_started, true);
}

/**
 * dmashare_nodes_drain - wait for refused opens to leave a module being freed
 * @module: this module, whose load failed and whose nodes are gone
 */
void __init dmashare_nodes_drain(struct module *module)
{
	/* The load itself holds one reference. */
	while (dmashare_module_refcount(module) > 1)
		msleep(20);
}
