// SPDX-License-Identifier: GPL-2.0
/*
 * Many request_module() calls for one module at once: one modprobe, one result,
 * and nobody else has to wait.
 *
 * What stands in for modprobe is held while the others arrive, see
 * dedup_request.h.
 *
 * The last test makes the kernel warn, as the parameter enable_dups_trace says:
 * the run is to expect that.
 *
 * Usage: autoload_dedup [FOLDER OF THE TEST MODULES]
 */
#include "dedup_request.h"

/* There are 50 slots for modprobe. */
#define MANY		60
#define FEW		8
#define TRACE		"/sys/module/module/parameters/enable_dups_trace"

static void start_waiting_requests(const char *name, struct caller *callers, int n)
{
	int i;

	callers[0] = start_first_request(name);
	for (i = 1; i < n; i++)
		callers[i] = start_waiting_request(name);
}

/* How many of the callers end otherwise than with want. */
static int count_others(const struct caller *callers, int n, int want)
{
	int i, others = 0;

	for (i = 0; i < n; i++) {
		int got = finish(&callers[i]);

		if (got != want && !others++)
			ksft_print_msg("request %d ended with %d, not %d\n", i, got, want);
	}
	return others;
}

/* Many who wait for a slow module do not keep others from theirs. */
static void test_other_module(void)
{
	struct caller callers[MANY];
	int fifo = hold_helpers("slow");
	int result;
	bool ok;

	start_waiting_requests("slow", callers, MANY);
	/* The slow one is still held when this is over. */
	result = request("other", TEST_DEDUP_REQUEST);
	ksft_print_msg("the other request ended with %d\n", result);
	ok = !result && helper_calls("other") == 1;
	release_helper(fifo, 0);
	ok &= count_others(callers, MANY, 0) == 0;
	ok &= helper_calls("slow") == 1;
	unhold_helpers("slow", fifo);
	ksft_test_result(ok, "%d requests for a slow module, one for another: it is not delayed\n",
			 MANY);
}

/* What modprobe ends with is what everybody gets. */
static void test_converge(const char *name, char code)
{
	struct caller callers[FEW];
	int fifo = hold_helpers(name), log = open_log();
	char message[128];
	bool ok;

	start_waiting_requests(name, callers, FEW);
	release_helper(fifo, code);
	ok = count_others(callers, FEW, code << 8) == 0;
	ok &= helper_calls(name) == 1;
	unhold_helpers(name, fifo);
	ksft_test_result(ok, "%d requests, one modprobe, all get its result %d\n", FEW, code);

	snprintf(message, sizeof(message), DUP_MESSAGE "%s\n", name);
	ksft_test_result(count_in_log(log, message) == FEW - 1,
			 "each of the %d duplicates is in the log\n", FEW - 1);
	close(log);
}

static void test_again_after_failure(void)
{
	int fifo = hold_helpers("again");
	bool ok;

	release_helper(fifo, 1);
	ok = request("again", TEST_DEDUP_REQUEST) == 1 << 8;
	release_helper(fifo, 0);
	ok &= request("again", TEST_DEDUP_REQUEST) == 0;
	ok &= helper_calls("again") == 2;
	unhold_helpers("again", fifo);
	ksft_test_result(ok, "a request after one that failed calls modprobe again\n");
}

static void test_again_after_unload(char **argv)
{
	struct image image;
	char ko[PATH_MAX];
	bool ok;

	module_path(ko, argv, MODULE_NAME);
	image = read_image(ko);
	let_helper_load(MODULE_NAME, &image);
	must_unload(MODULE_NAME);
	ok = request(MODULE_NAME, TEST_DEDUP_REQUEST) == 0;
	ok &= is_loaded(MODULE_NAME);
	must_unload(MODULE_NAME);
	ok &= request(MODULE_NAME, TEST_DEDUP_REQUEST) == 0;
	ok &= is_loaded(MODULE_NAME);
	must_unload(MODULE_NAME);
	let_helper_not_load(MODULE_NAME);
	free(image.bytes);
	ksft_test_result(ok, "a request after the module was unloaded loads it again\n");
}

/* Who is killed leaves while the helper is still held; the others stay. */
static void test_killed_waiter(void)
{
	struct caller callers[FEW];
	int fifo = hold_helpers("killed");
	bool ok;

	start_waiting_requests("killed", callers, FEW);
	kill(callers[FEW - 1].pid, SIGKILL);
	ok = finish(&callers[FEW - 1]) == KILLED;
	release_helper(fifo, 0);
	ok &= count_others(callers, FEW - 1, 0) == 0;
	unhold_helpers("killed", fifo);
	ksft_test_result(ok, "a waiter that is killed leaves, the others get the result\n");
}

/* A duplicate with nowait is told that all is well, and waits for nobody. */
static void test_nowait_duplicate(void)
{
	int fifo = hold_helpers("nowait_duplicate");
	struct caller first;
	bool ok;

	first = start_first_request("nowait_duplicate");
	ok = request("nowait_duplicate", TEST_DEDUP_REQUEST_NOWAIT) == 0;
	release_helper(fifo, 1);
	ok &= finish(&first) == 1 << 8;
	ok &= helper_calls("nowait_duplicate") == 1;
	unhold_helpers("nowait_duplicate", fifo);
	ksft_test_result(ok, "a duplicate with nowait returns at once\n");
}

/* It has no result that others could wait for. */
static void test_nowait_first(void)
{
	int fifo = hold_helpers("nowait_first");
	struct caller second;
	bool ok;

	ok = request("nowait_first", TEST_DEDUP_REQUEST_NOWAIT) == 0;
	wait_until(helper_calls("nowait_first") == 1, "the helper was not called\n");
	second = start_waiting_request("nowait_first");
	wait_until(helper_calls("nowait_first") == 2, "the helper was not called again\n");
	release_helper(fifo, 1);
	release_helper(fifo, 1);
	ok &= finish(&second) == 1 << 8;
	unhold_helpers("nowait_first", fifo);
	ksft_test_result(ok, "a request with nowait is none to wait for\n");
}

static void test_trace(void)
{
	int fifo, log = open_log();
	struct caller callers[2];
	struct stat st;
	bool ok;

	ok = !stat(TRACE, &st) && (st.st_mode & 07777) == 0644 && file_says(TRACE, "N\n");
	ok &= write_to(TRACE, "N") == 0;
	ok &= write_to(TRACE, "Y") == 0 && file_says(TRACE, "Y\n");
	ok &= write_to(TRACE, "N") == EROFS && file_says(TRACE, "Y\n");
	ksft_test_result(ok, "enable_dups_trace can be switched on, and not off again\n");

	fifo = hold_helpers("trace");
	start_waiting_requests("trace", callers, 2);
	release_helper(fifo, 0);
	ok = count_others(callers, 2, 0) == 0;
	unhold_helpers("trace", fifo);
	ok &= count_in_log(log, "WARNING:") == 1;
	ksft_test_result(ok, "with it, a duplicate is a warning\n");
	close(log);
}

int main(int argc, char **argv)
{
	if (is_helper(argc, argv))
		return be_helper(argv);

	ksft_print_header();
	need_root_and_stats();
	if (access(TRACE, F_OK))
		ksft_exit_skip("needs CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS\n");
	setup_requests(argv);

	ksft_set_plan(12);
	test_other_module();
	test_converge("succeeds", 0);
	test_converge("fails", 3);
	test_again_after_failure();
	test_again_after_unload(argv);
	test_killed_waiter();
	test_nowait_duplicate();
	test_nowait_first();
	test_trace();

	cleanup_requests();
	ksft_finished();
}
