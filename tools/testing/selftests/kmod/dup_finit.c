// SPDX-License-Identifier: GPL-2.0
/*
 * Concurrent finit_module(2) calls for one file: one load, one result.
 *
 * The owner of the load is held while the other callers arrive, see
 * dedup_common.h.
 */
#include <errno.h>

#include "dedup_common.h"
#include "kselftest_harness.h"

#define NR_MAX		255

FIXTURE(finit)
{
	char path[PATH_MAX];
	struct load load;			/* of that file, with park=1 */
	struct caller waiters[NR_MAX - 1];	/* all callers but the owner */
	int nr_waiters;
};

FIXTURE_VARIANT(finit)
{
	int nr_callers;
};

FIXTURE_VARIANT_ADD(finit, n2) { .nr_callers = 2 };
FIXTURE_VARIANT_ADD(finit, n8) { .nr_callers = 8 };
FIXTURE_VARIANT_ADD(finit, n64) { .nr_callers = 64 };
FIXTURE_VARIANT_ADD(finit, n255) { .nr_callers = NR_MAX };

FIXTURE_SETUP(finit)
{
	unload_leftover(MODULE_NAME);
	self->nr_waiters = variant->nr_callers - 1;
	self->load.path = write_module(self->path, MODULE_NAME);
	self->load.args = "park=1";
}

FIXTURE_TEARDOWN_PARENT(finit)
{
	unlink(self->path);
	unload_leftover(MODULE_NAME);
}

/* All callers succeed, and the module is loaded once. */
TEST_F_TIMEOUT(finit, one_load, TEST_LIMIT_S)
{
	int round, nr_rounds = is_quick() ? 2 : 20;

	for (round = 0; round < nr_rounds; round++) {
		struct counters before = read_counters(), change;
		struct owner owner = park_owner(&self->load, MODULE_NAME);

		start_waiters(self->waiters, self->nr_waiters, &self->load);
		EXPECT_FALSE(is_live(MODULE_NAME));
		EXPECT_EQ(0, reap_owner(&owner));
		EXPECT_EQ(0, reap_all(self->waiters, self->nr_waiters, 1, 0));
		change = counters_since(&before);
		EXPECT_TRUE(is_live(MODULE_NAME));
		EXPECT_EQ(1, change.mod[MODCOUNT]);
		EXPECT_EQ(0, change.mod[FAILED_BECOMING]);
		EXPECT_EQ(0, change.mod[FAILED_LOAD_MODULES]);
		must_unload(MODULE_NAME);
		if (_metadata->exit_code) {
			TH_LOG("in round %d of %d", round + 1, nr_rounds);
			break;
		}
	}
}

/* All callers get what the owner's init function returned. */
TEST_F_TIMEOUT(finit, init_fails, TEST_LIMIT_S)
{
	struct load fails = with_args(self->load, "park=1 init_result=-67");
	struct owner owner = park_owner(&fails, MODULE_NAME);

	start_waiters(self->waiters, self->nr_waiters, &fails);
	EXPECT_EQ(ENOLINK, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(self->waiters, self->nr_waiters, 1, ENOLINK));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
}

/* Every second waiter gets a signal and returns, while the owner is still held. */
static void interrupt_waiters(struct __test_metadata *_metadata, const struct load *load,
			      struct caller *waiters, int n, int sig, int want)
{
	struct owner owner = park_owner(load, MODULE_NAME);
	int i;

	start_waiters(waiters, n, load);
	for (i = 0; i < n; i += 2)
		kill(waiters[i].pid, sig);
	EXPECT_EQ(0, reap_all(waiters, n, 2, want));
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(waiters + 1, n - 1, 2, 0));
	EXPECT_TRUE(is_live(MODULE_NAME));
}

TEST_F_TIMEOUT(finit, waiters_killed, TEST_LIMIT_S)
{
	interrupt_waiters(_metadata, &self->load, self->waiters, self->nr_waiters, SIGKILL, KILLED);
}

TEST_F_TIMEOUT(finit, waiters_interrupted, TEST_LIMIT_S)
{
	interrupt_waiters(_metadata, &self->load, self->waiters, self->nr_waiters, SIGUSR1, EINTR);
}

/*
 * The owner is killed. With CONFIG_MODULE_DEDUP_RUST, that is not a result to
 * share: one waiter becomes the owner, and succeeds for the others. Otherwise,
 * all waiters get what the interrupted init function returned.
 */
TEST_F_TIMEOUT(finit, owner_killed, TEST_LIMIT_S)
{
	struct load unparked = with_args(self->load, "");
	struct owner owner = park_owner(&self->load, MODULE_NAME);
	int want = has_dedup() ? 0 : EINTR;

	start_waiters(self->waiters, self->nr_waiters, &self->load);
	kill(owner.caller.pid, SIGKILL);
	EXPECT_EQ(KILLED, reap(&owner.caller));
	if (has_dedup()) {
		/* All others must wait again before the new owner is released. */
		wait_until(!access(owner.park, F_OK) && count_waiters() == self->nr_waiters - 1,
			   "no waiter became the owner of the others\n");
		EXPECT_FALSE(is_live(MODULE_NAME));
		release_owner(&owner);
	}
	EXPECT_EQ(0, reap_all(self->waiters, self->nr_waiters, 1, want));
	EXPECT_EQ(has_dedup(), is_live(MODULE_NAME));
	EXPECT_EQ(has_dedup(), is_loaded(MODULE_NAME));
	must_unload(MODULE_NAME);
	/* The file can be loaded again. */
	EXPECT_EQ(0, do_load(&unparked));
}

FIXTURE(one_caller)
{
	char path[PATH_MAX];
	struct load load;
};

FIXTURE_SETUP(one_caller)
{
	unload_leftover(MODULE_NAME);
	self->load.path = write_module(self->path, MODULE_NAME);
	self->load.args = "";
}

FIXTURE_TEARDOWN_PARENT(one_caller)
{
	unlink(self->path);
	unload_leftover(MODULE_NAME);
}

/* A result is not shared with a call that begins after the load. */
TEST_F_TIMEOUT(one_caller, already_loaded, TEST_LIMIT_S)
{
	EXPECT_EQ(0, do_load(&self->load));
	EXPECT_EQ(EEXIST, do_load(&self->load));
	must_unload(MODULE_NAME);
	EXPECT_EQ(0, do_load(&self->load));
}

int main(int argc, char **argv)
{
	need_stats();
	return test_harness_run(argc, argv);
}
