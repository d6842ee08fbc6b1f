// SPDX-License-Identifier: GPL-2.0
/* A module that faults when it is loaded, to see whether anyone notices. */

#include <linux/compiler.h>
#include <linux/module.h>

static int __init oops_init(void)
{
	WRITE_ONCE(*(volatile int *)NULL, 1);
	return 0;
}
module_init(oops_init);

MODULE_DESCRIPTION("faults on purpose");
MODULE_LICENSE("GPL");
