// SPDX-License-Identifier: GPL-2.0
/*
 * A module that needs a symbol of test_dedup: while that is held in its init
 * function, the load of this one waits for it, in the list but not formed yet.
 */
#include <linux/init.h>
#include <linux/module.h>

#include "test_dedup.h"

static int __init test_dedup_user_init(void)
{
	return test_dedup_symbol();
}

static void __exit test_dedup_user_exit(void)
{
}

module_init(test_dedup_user_init);
module_exit(test_dedup_user_exit);

MODULE_DESCRIPTION("User of a symbol of test_dedup");
MODULE_LICENSE("GPL");
