// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>

static unsigned long long bytes = 1;
module_param(bytes, ullong, 0444);

static int __init narrow_init(void)
{
	unsigned long limit = 1UL << 40;

	return bytes + limit == 3 || 100000000000ULL / bytes == 5 ? -EINVAL : 0;
}
module_init(narrow_init);

static void __exit narrow_exit(void)
{
}
module_exit(narrow_exit);

MODULE_DESCRIPTION("Correct with 64 bits: a shift and a division are not with 32");
MODULE_LICENSE("GPL");
