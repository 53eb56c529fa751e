// SPDX-License-Identifier: GPL-2.0
/*
 * A module whose load ends as its parameters say, and when they say.
 *
 * With park=1 the init function waits until 0 is written to
 * /sys/module/test_dedup/parameters/park. That file is there before the init
 * function is called and goes with the module, so a test that sees it knows
 * that the load is held, and nothing has to be cleaned up. Written 1 into later, it
 * holds the exit function in the same way.
 */
#include <linux/async.h>
#include <linux/init.h>
#include <linux/kmod.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "test_dedup.h"

/* Less than what the hung task detector of the test kernels allows. */
#define PARK_LIMIT	(100 * HZ)

static int init_result;
module_param(init_result, int, 0444);
MODULE_PARM_DESC(init_result, "What the init function returns (default 0)");

static int tag;
module_param(tag, int, 0444);
MODULE_PARM_DESC(tag, "Says whose arguments these are, and nothing else (default 0)");

static char *request;
module_param(request, charp, 0444);
MODULE_PARM_DESC(request, "What the init function asks for by request_module(), if anything");

static int request_result;
module_param(request_result, int, 0444);
MODULE_PARM_DESC(request_result, "What request_module() returned");

static bool park;
static DECLARE_WAIT_QUEUE_HEAD(unparked);

static bool park_live;
module_param(park_live, bool, 0444);
MODULE_PARM_DESC(park_live, "Hold the load when the module is live, not its init function (default 0)");

static int set_park(const char *val, const struct kernel_param *kp)
{
	int err = param_set_bool(val, kp);

	wake_up_all(&unparked);
	return err;
}

static const struct kernel_param_ops park_ops = {
	.set = set_park,
	.get = param_get_bool,
};
module_param_cb(park, &park_ops, &park, 0644);
MODULE_PARM_DESC(park, "Hold the init and exit functions until this is 0 (default 0)");

static int wait_while_parked(void)
{
	long left = wait_event_killable_timeout(unparked, !READ_ONCE(park), PARK_LIMIT);

	if (left < 0)
		return -EINTR;
	return left ? 0 : -ETIMEDOUT;
}

int test_dedup_symbol(void)
{
	return init_result;
}
EXPORT_SYMBOL_GPL(test_dedup_symbol);

/* A load is not over before what was scheduled in it is, though the module is live. */
static void wait_asynchronously(void *data, async_cookie_t cookie)
{
	wait_while_parked();
}

static int __init test_dedup_init(void)
{
	int err = 0;

	if (park_live)
		async_schedule(wait_asynchronously, NULL);
	else
		err = wait_while_parked();
	if (err)
		return err;
	if (request)
		request_result = request_module("%s", request);
	return init_result;
}

static void __exit test_dedup_exit(void)
{
	wait_while_parked();
}

module_init(test_dedup_init);
module_exit(test_dedup_exit);

MODULE_DESCRIPTION("Target of the module load deduplication selftests");
MODULE_LICENSE("GPL");
MODULE_VERSION("1");
