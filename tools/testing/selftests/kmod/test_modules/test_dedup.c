// SPDX-License-Identifier: GPL-2.0
/*
 * A module whose load ends as its parameter says.
 */
#include <linux/init.h>
#include <linux/module.h>

static int init_result;
module_param(init_result, int, 0444);
MODULE_PARM_DESC(init_result, "What the init function returns (default 0)");

static int __init test_dedup_init(void)
{
	return init_result;
}

static void __exit test_dedup_exit(void)
{
}

module_init(test_dedup_init);
module_exit(test_dedup_exit);

MODULE_DESCRIPTION("Target of the module load deduplication selftests");
MODULE_LICENSE("GPL");
