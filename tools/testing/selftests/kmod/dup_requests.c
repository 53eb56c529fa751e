// SPDX-License-Identifier: GPL-2.0
/*
 * Concurrent request_module() calls for one module: one modprobe, one result,
 * and no delay for other modules.
 *
 * The helper that runs instead of modprobe is held while the other requests
 * arrive, see dedup_request.h.
 *
 * The last tests set enable_dups_trace, which makes the kernel warn of each
 * duplicate. Run with panic_on_warn=0.
 */
#include <errno.h>
#include <sys/stat.h>

#include "dedup_request.h"
#include "kselftest_harness.h"

/* More than the 50 concurrent modprobe processes that the kernel allows. */
#define NR_MANY		60
#define NR_FEW		8
#define DUPS_TRACE	"/sys/module/module/parameters/enable_dups_trace"

/*
 * Makes a name that no other test uses, because the kernel replays a success for
 * a while. Returns what holds the helpers for it.
 */
static int install_held_helper(struct helper *helper, char name[32])
{
	snprintf(name, 32, "dup_requests_%d", getpid());
	install_helper(helper);
	return hold_helpers(helper, name);
}

FIXTURE(converge)
{
	struct helper helper;
	char name[32];
	int fifo;
};

FIXTURE_VARIANT(converge)
{
	char code;	/* exit code of the helper */
};

FIXTURE_VARIANT_ADD(converge, success) { .code = 0 };
FIXTURE_VARIANT_ADD(converge, failure) { .code = 3 };

FIXTURE_SETUP(converge)
{
	self->fifo = install_held_helper(&self->helper, self->name);
}

FIXTURE_TEARDOWN_PARENT(converge)
{
	remove_helper(&self->helper);
}

/* All requests get the result of the one helper. */
TEST_F_TIMEOUT(converge, one_result, TEST_LIMIT_S)
{
	struct caller callers[NR_FEW];

	start_requests(&self->helper, callers, NR_FEW, self->name);
	release_helper(self->fifo, variant->code);
	EXPECT_EQ(0, reap_all(callers, NR_FEW, 1, variant->code << 8));
	EXPECT_EQ(1, helper_calls(&self->helper, self->name));
}

/* Each duplicate is logged once. */
TEST_F_TIMEOUT(converge, logged, TEST_LIMIT_S)
{
	struct caller callers[NR_FEW];
	int log = open_log();
	char message[128];

	snprintf(message, sizeof(message), DUP_MESSAGE "%s\n", self->name);
	start_requests(&self->helper, callers, NR_FEW, self->name);
	release_helper(self->fifo, variant->code);
	EXPECT_EQ(0, reap_all(callers, NR_FEW, 1, variant->code << 8));
	EXPECT_EQ(NR_FEW - 1, count_in_log(log, message));
}

FIXTURE(request_module)
{
	struct helper helper;
};

FIXTURE_SETUP(request_module)
{
	struct image image = read_module(MODULE_NAME);

	unload_leftover(MODULE_NAME);
	install_helper(&self->helper);
	set_helper_module(&self->helper, MODULE_NAME, &image);
	free_image(&image);
}

FIXTURE_TEARDOWN_PARENT(request_module)
{
	remove_helper(&self->helper);
	unload_leftover(MODULE_NAME);
}

/* A success from before an unload is not replayed. */
TEST_F_TIMEOUT(request_module, again_after_unload, TEST_LIMIT_S)
{
	EXPECT_EQ(0, request(MODULE_NAME, TEST_DEDUP_REQUEST));
	EXPECT_TRUE(is_loaded(MODULE_NAME));
	must_unload(MODULE_NAME);
	EXPECT_EQ(0, request(MODULE_NAME, TEST_DEDUP_REQUEST));
	EXPECT_TRUE(is_loaded(MODULE_NAME));
}

FIXTURE(request)
{
	struct helper helper;
	char name[32];
	int fifo;
};

FIXTURE_SETUP(request)
{
	self->fifo = install_held_helper(&self->helper, self->name);
}

FIXTURE_TEARDOWN_PARENT(request)
{
	remove_helper(&self->helper);
}

/* Many requests that wait for a slow module do not delay another one. */
TEST_F_TIMEOUT(request, other_module, TEST_LIMIT_S)
{
	struct caller callers[NR_MANY];
	char other[sizeof(self->name) + 8];

	snprintf(other, sizeof(other), "%s_other", self->name);
	start_requests(&self->helper, callers, NR_MANY, self->name);
	/* All helpers for the slow module are still held. */
	EXPECT_EQ(0, request(other, TEST_DEDUP_REQUEST));
	EXPECT_EQ(1, helper_calls(&self->helper, other));
	release_helper(self->fifo, 0);
	EXPECT_EQ(0, reap_all(callers, NR_MANY, 1, 0));
	EXPECT_EQ(1, helper_calls(&self->helper, self->name));
}

/* A failure is not replayed: the next request calls modprobe again. */
TEST_F_TIMEOUT(request, again_after_failure, TEST_LIMIT_S)
{
	release_helper(self->fifo, 1);
	EXPECT_EQ(1 << 8, request(self->name, TEST_DEDUP_REQUEST));
	release_helper(self->fifo, 0);
	EXPECT_EQ(0, request(self->name, TEST_DEDUP_REQUEST));
	EXPECT_EQ(2, helper_calls(&self->helper, self->name));
}

/* A killed request returns while the helper is still held; the others wait on. */
TEST_F_TIMEOUT(request, waiter_killed, TEST_LIMIT_S)
{
	struct caller callers[NR_FEW], *last = &callers[NR_FEW - 1];

	start_requests(&self->helper, callers, NR_FEW, self->name);
	kill(last->pid, SIGKILL);
	EXPECT_EQ(KILLED, reap(last));
	release_helper(self->fifo, 0);
	EXPECT_EQ(0, reap_all(callers, NR_FEW - 1, 1, 0));
}

/* The others do not share the end of a helper that is killed: one calls it again. */
TEST_F_TIMEOUT(request, helper_killed, TEST_LIMIT_S)
{
	struct caller callers[NR_FEW];

	start_requests(&self->helper, callers, NR_FEW, self->name);
	release_helper(self->fifo, -SIGKILL);
	EXPECT_EQ(SIGKILL, reap(&callers[0]));
	release_helper(self->fifo, 0);
	EXPECT_EQ(0, reap_all(callers + 1, NR_FEW - 1, 1, 0));
	EXPECT_EQ(2, helper_calls(&self->helper, self->name));
}

/* request_module_nowait() does not wait for a pending request, and returns 0. */
TEST_F_TIMEOUT(request, nowait_duplicate, TEST_LIMIT_S)
{
	struct caller first = start_first_request(&self->helper, self->name);

	EXPECT_EQ(0, request(self->name, TEST_DEDUP_REQUEST_NOWAIT));
	release_helper(self->fifo, 1);
	EXPECT_EQ(1 << 8, reap(&first));
	EXPECT_EQ(1, helper_calls(&self->helper, self->name));
}

/* It has no result to share: a later request calls modprobe itself. */
TEST_F_TIMEOUT(request, nowait_first, TEST_LIMIT_S)
{
	struct caller second;

	EXPECT_EQ(0, request(self->name, TEST_DEDUP_REQUEST_NOWAIT));
	wait_until(helper_calls(&self->helper, self->name) == 1, "the helper was not called\n");
	second = start_waiting_request(self->name);
	wait_until(helper_calls(&self->helper, self->name) == 2,
		   "the helper was not called again\n");
	release_helper(self->fifo, 1);
	release_helper(self->fifo, 1);
	EXPECT_EQ(1 << 8, reap(&second));
}

/* The switch cannot be reset, so this test and the next one come last. */
TEST_F_TIMEOUT(request, dups_trace_switch, TEST_LIMIT_S)
{
	struct stat st;

	ASSERT_EQ(0, stat(DUPS_TRACE, &st));
	EXPECT_EQ(0644, st.st_mode & 07777);
	EXPECT_TRUE(file_says(DUPS_TRACE, "N\n"));
	EXPECT_EQ(0, write_to(DUPS_TRACE, "N"));
	EXPECT_EQ(0, write_to(DUPS_TRACE, "Y"));
	EXPECT_TRUE(file_says(DUPS_TRACE, "Y\n"));
	EXPECT_EQ(EROFS, write_to(DUPS_TRACE, "N"));
	EXPECT_TRUE(file_says(DUPS_TRACE, "Y\n"));
}

TEST_F_TIMEOUT(request, dups_trace_warning, TEST_LIMIT_S)
{
	struct caller callers[2];
	int log = open_log();

	write_to(DUPS_TRACE, "Y");
	ASSERT_TRUE(file_says(DUPS_TRACE, "Y\n"));
	start_requests(&self->helper, callers, 2, self->name);
	release_helper(self->fifo, 0);
	EXPECT_EQ(0, reap_all(callers, 2, 1, 0));
	EXPECT_EQ(1, count_in_log(log, "WARNING:"));
}

int main(int argc, char **argv)
{
	if (is_helper(argc, argv))
		return run_helper(argv);

	need_stats();
	need_file(DUPS_TRACE, "CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS");
	return test_harness_run(argc, argv);
}
