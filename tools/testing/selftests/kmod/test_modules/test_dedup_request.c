// SPDX-License-Identifier: GPL-2.0
/*
 * Lets a process call request_module() and see what it returns. Unlike the
 * threads of test_kmod, processes can be killed, and need not all be started
 * at once.
 */
#include <linux/fs.h>
#include <linux/kmod.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "test_dedup.h"

/* More than any name of a module has. */
#define NAME_LIMIT	128

static long test_dedup_request_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	char *name;
	long ret;

	name = strndup_user((const char __user *)arg, NAME_LIMIT);
	if (IS_ERR(name))
		return PTR_ERR(name);

	switch (cmd) {
	case TEST_DEDUP_REQUEST:
		ret = request_module("%s", name);
		break;
	case TEST_DEDUP_REQUEST_NOWAIT:
		ret = request_module_nowait("%s", name);
		break;
	default:
		ret = -ENOTTY;
	}
	kfree(name);
	return ret;
}

static const struct file_operations test_dedup_request_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = test_dedup_request_ioctl,
};

static struct miscdevice test_dedup_request_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "test_dedup_request",
	.fops = &test_dedup_request_fops,
};
module_misc_device(test_dedup_request_dev);

MODULE_DESCRIPTION("request_module() for the module load deduplication selftests");
MODULE_LICENSE("GPL");
