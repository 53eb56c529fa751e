// SPDX-License-Identifier: GPL-2.0
/*
 * A module that does nothing.
 */
#include <linux/init.h>
#include <linux/module.h>

static int __init storm_init(void)
{
	return 0;
}

static void __exit storm_exit(void)
{
}

module_init(storm_init);
module_exit(storm_exit);

MODULE_DESCRIPTION("Target of a storm of loads");
MODULE_LICENSE("GPL");
