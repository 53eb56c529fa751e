// SPDX-License-Identifier: GPL-2.0
/*
 * Many finit_module(2) calls for one file at once: one load, one result.
 *
 * The owner of the load is held while the others arrive, see dedup_common.h.
 *
 * Usage: finit_dedup [FOLDER OF test_dedup.ko]
 */
#include "dedup_common.h"

#define MAX_CALLERS	255

/* The file that everybody loads. */
static struct load plain = { .args = "" };
/* The same, held by its init function: whoever waits for it makes the same call. */
static struct load parked;

static int rounds = 20;

/* The other processes of a test: all callers but the owner. */
static struct caller waiters[MAX_CALLERS];

struct stats {
	unsigned long loaded, becoming, load;
};

static struct stats read_stats(void)
{
	return (struct stats){
		.loaded = read_counter("modcount"),
		.becoming = read_counter("failed_becoming"),
		.load = read_counter("failed_load_modules"),
	};
}

/* Starts n processes that wait for the parked owner; returns when all do. */
static void start_waiters(int n, const struct load *load)
{
	int i;

	for (i = 0; i < n; i++)
		waiters[i] = start_load(load);
	for (i = 0; i < n; i++)
		wait_until(has_arrived(waiters[i].pid, SYS_finit_module, 'S'),
			   "%d of %d did not arrive\n", n - i, n);
}

/* How many of the waiters first, first + step, ... end other than with want. */
static int count_others(int n, int first, int step, int want)
{
	int i, others = 0;

	for (i = first; i < n; i += step) {
		int got = finish(&waiters[i]);

		if (got != want && !others++)
			ksft_print_msg("waiter %d ended with %d, not %d\n", i, got, want);
	}
	return others;
}

/* All n callers succeed, and the module is loaded once. */
static void test_one_load(int n)
{
	struct stats before, after;
	bool ok = true;
	int round;

	for (round = 0; ok && round < rounds; round++) {
		struct owner o;

		before = read_stats();
		o = park_by_init(&parked, MODULE_NAME);
		start_waiters(n - 1, &parked);
		ok &= !is_live(MODULE_NAME);
		ok &= finish_owner(&o) == 0;
		ok &= count_others(n - 1, 0, 1, 0) == 0;
		after = read_stats();
		ok &= is_live(MODULE_NAME);
		ok &= after.loaded == before.loaded + 1;
		ok &= after.becoming == before.becoming;
		ok &= after.load == before.load;
		must_unload(MODULE_NAME);
	}
	if (!ok)
		ksft_print_msg("round %d: loaded +%lu, failed becoming +%lu, failed load +%lu\n",
			       round, after.loaded - before.loaded,
			       after.becoming - before.becoming, after.load - before.load);
	ksft_test_result(ok, "%d callers, %d rounds: one load, all succeed\n", n, rounds);
}

/* What the owner's init function returned is what everybody gets. */
static void test_failing_init(int n)
{
	struct load fails = with_args(plain, "park=1 init_result=-67");
	struct owner o = park_by_init(&fails, MODULE_NAME);
	bool ok;

	start_waiters(n - 1, &fails);
	ok = finish_owner(&o) == ENOLINK;
	ok &= count_others(n - 1, 0, 1, ENOLINK) == 0;
	ok &= !is_loaded(MODULE_NAME);
	ksft_test_result(ok, "%d callers, init fails: all get its errno\n", n);
}

/* Every second waiter gets a signal while the owner is parked, and leaves. */
static void test_signal(int n, int sig, int want, const char *name)
{
	struct owner o = park_by_init(&parked, MODULE_NAME);
	bool ok;
	int i;

	start_waiters(n - 1, &parked);
	for (i = 0; i < n - 1; i += 2)
		kill(waiters[i].pid, sig);
	/* The owner is not released before they have left. */
	ok = count_others(n - 1, 0, 2, want) == 0;
	ok &= !is_live(MODULE_NAME);
	ok &= finish_owner(&o) == 0;
	ok &= count_others(n - 1, 1, 2, 0) == 0;
	ok &= is_live(MODULE_NAME);
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "%d callers, every second waiter gets %s: it leaves, others succeed\n",
			 n, name);
}

/* The owner is killed while parked: nobody waits for ever, and all agree. */
static void test_killed_owner(int n)
{
	struct owner o = park_by_init(&parked, MODULE_NAME);
	bool ok;

	start_waiters(n - 1, &parked);
	kill(o.caller.pid, SIGKILL);
	/* Its init function is interrupted, and returns that. */
	ok = count_others(n - 1, 0, 1, EINTR) == 0;
	ok &= finish(&o.caller) == KILLED;
	ok &= !is_loaded(MODULE_NAME);
	/* And the file can be loaded again. */
	ok &= do_load(&plain) == 0;
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "%d callers, owner killed: all others get its error\n", n);
}

/* Who comes after the load is over is told so, and not that it succeeded. */
static void test_late(void)
{
	bool ok = do_load(&plain) == 0;

	ok &= do_load(&plain) == EEXIST;
	must_unload(MODULE_NAME);
	ok &= do_load(&plain) == 0;
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "late caller gets EEXIST; after unload it loads\n");
}

int main(int argc, char **argv)
{
	static const int callers[] = { 2, 8, 64, MAX_CALLERS };
	char ko[PATH_MAX];
	struct image image;
	unsigned int i;
	char *path;

	ksft_print_header();
	need_root_and_stats();
	if (is_quick())
		rounds = 2;
	module_path(ko, argv, MODULE_NAME);
	image = read_image(ko);
	path = write_image(&image);
	plain.path = path;
	parked = with_args(plain, "park=1");
	must_unload(MODULE_NAME);

	ksft_set_plan(ARRAY_SIZE(callers) + 6);
	for (i = 0; i < ARRAY_SIZE(callers); i++)
		test_one_load(callers[i]);
	test_failing_init(8);
	test_failing_init(MAX_CALLERS);
	test_signal(64, SIGKILL, KILLED, "SIGKILL");
	test_signal(64, SIGUSR1, EINTR, "a caught signal");
	test_killed_owner(64);
	test_late();

	unlink(path);
	ksft_finished();
}
