// SPDX-License-Identifier: GPL-2.0
/*
 * Loads of a module that is pending, live or going: each gets the documented
 * result, and a duplicate allocates nothing of the size of the module.
 *
 * The owner of a load is held while other loads arrive, see dedup_common.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "dedup_common.h"
#include "kselftest_harness.h"
#include "dedup_expect.h"

#define OTHER_NAME	"test_dedup_request"
#define NR_WAITERS	8

/* test_dedup */
static struct image image;

/* The file or memory that a load reads. */
enum source {
	FILE_A,
	FILE_B,
	OWN_FILES,	/* one for each waiter */
	MEMORY,
};

static char paths[OWN_FILES + NR_WAITERS][PATH_MAX];

static struct load load_from(enum source source, int waiter, const char *args)
{
	int file = source == OWN_FILES ? OWN_FILES + waiter : (int)source;

	if (source == MEMORY)
		return (struct load){ .image = &image, .args = args };
	return (struct load){ .path = paths[file], .args = args };
}

static void unload_all(void)
{
	unload_leftover(USER_NAME);
	unload_leftover(MODULE_NAME);
	unload_leftover(OTHER_NAME);
}

/* For FIXTURE_SETUP(). FIXTURE_TEARDOWN_PARENT() calls unload_all() only. */
static void set_up(void)
{
	unsigned int i;

	unload_all();
	use_own_tmp();
	image = read_module(MODULE_NAME);
	for (i = 0; i < ARRAY_SIZE(paths); i++)
		write_image(paths[i], &image);
}

/* Returns the counters of a load that succeeds while n waiters for it are duplicates. */
static struct counters duplicate_counters(enum source waiters, int n)
{
	struct counters counters = {
		.mod[MODCOUNT] = 1,
		.dedup[BYTES_SAVED] = n * image.len,
	};

	switch (waiters) {
	case FILE_A:
	case FILE_B:
		counters.dedup[SAME_FILE] = n;
		break;
	case OWN_FILES:
		counters.dedup[SAME_NAME] = n;
		break;
	case MEMORY:
		counters.dedup[FROM_MEMORY] = n;
		break;
	}
	return counters;
}

/*
 * Waiters
 */

static void start_waiters_from(struct caller waiters[NR_WAITERS], enum source source,
			       const char *args)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++) {
		struct load load = load_from(source, i, args);

		waiters[i] = start_waiter(&load);
	}
}

/*
 * Waits until one of n waiters has become the owner and is held in turn, and
 * the others wait for it. Releases it.
 */
static void release_new_owner(struct __test_metadata *_metadata, const struct owner *owner,
			      const struct caller *waiters, int n)
{
	/* The old owner's module is gone by the time its waiters wait again. */
	wait_until((count_waiters() == n - 1 && !access(owner->park, F_OK)) ||
		   has_ended(waiters[0].pid), "no waiter became the owner\n");
	EXPECT_EQ(n - 1, count_waiters());
	EXPECT_TRUE(is_loaded(MODULE_NAME));
	EXPECT_FALSE(is_live(MODULE_NAME));
	release_owner(owner);
}

/* Reaps n waiters: one of them has loaded the module, and the others get @want. */
static void expect_new_owner(struct __test_metadata *_metadata, const struct caller *waiters,
			     int n, int want)
{
	int i, owners = 0;

	for (i = 0; i < n; i++) {
		int result = reap(&waiters[i]);

		if (!result)
			owners++;
		else
			EXPECT_EQ(want, result);
	}
	EXPECT_EQ(want ? 1 : n, owners);
}

/* Waiters for one file share the result of the one that becomes the owner. */
static int result_of_others(enum source source)
{
	return source == FILE_A || source == FILE_B ? 0 : EEXIST;
}

/*
 * Waiters for a load that is held by its init function
 */

FIXTURE(pending)
{
	struct caller waiters[NR_WAITERS];
	struct counters before;
	bool is_same_load;
};

FIXTURE_VARIANT(pending)
{
	enum source owner, waiters;
};

FIXTURE_VARIANT_ADD(pending, file_a_file_a) { FILE_A, FILE_A };
FIXTURE_VARIANT_ADD(pending, file_a_file_b) { FILE_A, FILE_B };
FIXTURE_VARIANT_ADD(pending, file_a_own_files) { FILE_A, OWN_FILES };
FIXTURE_VARIANT_ADD(pending, file_a_memory) { FILE_A, MEMORY };
FIXTURE_VARIANT_ADD(pending, file_b_file_a) { FILE_B, FILE_A };
FIXTURE_VARIANT_ADD(pending, file_b_file_b) { FILE_B, FILE_B };
FIXTURE_VARIANT_ADD(pending, file_b_own_files) { FILE_B, OWN_FILES };
FIXTURE_VARIANT_ADD(pending, file_b_memory) { FILE_B, MEMORY };
FIXTURE_VARIANT_ADD(pending, memory_file_a) { MEMORY, FILE_A };
FIXTURE_VARIANT_ADD(pending, memory_file_b) { MEMORY, FILE_B };
FIXTURE_VARIANT_ADD(pending, memory_own_files) { MEMORY, OWN_FILES };
FIXTURE_VARIANT_ADD(pending, memory_memory) { MEMORY, MEMORY };

FIXTURE_SETUP(pending)
{
	set_up();
	self->before = read_counters();
	self->is_same_load = variant->owner == variant->waiters && variant->owner != MEMORY;
}

FIXTURE_TEARDOWN_PARENT(pending)
{
	unload_all();
}

/* Returns the counters of n waiters, none of which loads the module. */
static struct counters waiter_counters(enum source waiters, bool is_same_load, int n)
{
	struct counters counters = duplicate_counters(waiters, n);

	/* The first waiter for a file that is not the owner's waits for the name. */
	if (counters.dedup[SAME_FILE] && !is_same_load) {
		counters.dedup[SAME_FILE]--;
		counters.dedup[SAME_NAME]++;
	}
	return counters;
}

TEST_F_TIMEOUT(pending, owner_succeeds, TEST_LIMIT_S)
{
	struct counters want = waiter_counters(variant->waiters, self->is_same_load, NR_WAITERS);
	struct load load = load_from(variant->owner, 0, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);

	start_waiters_from(self->waiters, variant->waiters, "park=1");
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(self->waiters, NR_WAITERS, 1, self->is_same_load ? 0 : EEXIST));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &self->before, &want);
}

TEST_F_TIMEOUT(pending, owner_fails, TEST_LIMIT_S)
{
	struct counters want = waiter_counters(variant->waiters, self->is_same_load, NR_WAITERS);
	struct load load = load_from(variant->owner, 0, "park=1 init_result=-19");
	struct owner owner = park_owner(&load, MODULE_NAME);

	start_waiters_from(self->waiters, variant->waiters, load.args);
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(ENODEV, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(self->waiters, NR_WAITERS, 1, self->is_same_load ? ENODEV : EBUSY));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
	want.mod[MODCOUNT] = 0;
	expect_counters(_metadata, &self->before, &want);
}

/* An owner that is killed shares nothing: one waiter loads the module. */
TEST_F_TIMEOUT(pending, owner_killed, TEST_LIMIT_S)
{
	struct counters want = duplicate_counters(variant->waiters, NR_WAITERS - 1);
	struct load load = load_from(variant->owner, 0, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);

	start_waiters_from(self->waiters, variant->waiters, "park=1");
	EXPECT_FALSE(is_live(MODULE_NAME));
	kill(owner.caller.pid, SIGKILL);
	EXPECT_EQ(KILLED, reap(&owner.caller));
	release_new_owner(_metadata, &owner, self->waiters, NR_WAITERS);
	expect_new_owner(_metadata, self->waiters, NR_WAITERS, result_of_others(variant->waiters));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &self->before, &want);
}

/*
 * Signals to every second waiter
 */

struct signalled {
	struct caller waiters[NR_WAITERS];
	enum source source;		/* of the waiters */
	int result;			/* of those that wait until the end */
	struct owner owner;
	struct counters before;
};

FIXTURE(signal)
{
	struct signalled signalled;
};

FIXTURE_VARIANT(signal)
{
	enum source waiters;
	const char *args;
	int result;
};

FIXTURE_VARIANT_ADD(signal, same_file) { FILE_A, "park=1 tag=1", 0 };
FIXTURE_VARIANT_ADD(signal, other_args) { FILE_A, "park=1 tag=2", EEXIST };
FIXTURE_VARIANT_ADD(signal, own_files) { OWN_FILES, "park=1 tag=1", EEXIST };
FIXTURE_VARIANT_ADD(signal, memory) { MEMORY, "park=1 tag=1", EEXIST };

FIXTURE_SETUP(signal)
{
	struct signalled *signalled = &self->signalled;
	struct load load;

	set_up();
	signalled->source = variant->waiters;
	signalled->result = variant->result;
	signalled->before = read_counters();
	load = load_from(FILE_A, 0, "park=1 tag=1");
	signalled->owner = park_owner(&load, MODULE_NAME);
	start_waiters_from(signalled->waiters, variant->waiters, variant->args);
}

FIXTURE_TEARDOWN_PARENT(signal)
{
	unload_all();
}

/* Releases the owner, reaps the waiters from @first on, and checks the counters of n duplicates. */
static void finish_signalled(struct __test_metadata *_metadata, const struct signalled *signalled,
			     int first, int step, int n)
{
	struct counters want = duplicate_counters(signalled->source, n);

	/* The same file with other arguments */
	if (signalled->source == FILE_A && signalled->result) {
		want.dedup[SAME_NAME] = want.dedup[SAME_FILE];
		want.dedup[SAME_FILE] = 0;
	}
	want.dedup[ABORTED] = NR_WAITERS / 2;
	EXPECT_TRUE(is_loaded(MODULE_NAME));
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&signalled->owner));
	EXPECT_EQ(0, reap_all(signalled->waiters + first, NR_WAITERS - first, step,
			      signalled->result));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &signalled->before, &want);
}

/* Waiters that get a signal return, while the owner is still held. */
static void end_waiters(struct __test_metadata *_metadata, const struct signalled *signalled,
			int sig, int want)
{
	int i;

	for (i = 0; i < NR_WAITERS; i += 2)
		kill(signalled->waiters[i].pid, sig);
	EXPECT_EQ(0, reap_all(signalled->waiters, NR_WAITERS, 2, want));
	finish_signalled(_metadata, signalled, 1, 2, NR_WAITERS / 2);
}

TEST_F_TIMEOUT(signal, kills, TEST_LIMIT_S)
{
	end_waiters(_metadata, &self->signalled, SIGKILL, KILLED);
}

TEST_F_TIMEOUT(signal, handled, TEST_LIMIT_S)
{
	end_waiters(_metadata, &self->signalled, SIGUSR1, EINTR);
}

/* Waiters that are interrupted wait again: user space does not notice it. */
static void restart_waiters(struct __test_metadata *_metadata, const struct signalled *signalled,
			    void (*interrupt)(pid_t pid))
{
	long syscall_nr = signalled->source == MEMORY ? SYS_init_module : SYS_finit_module;
	int i;

	for (i = 0; i < NR_WAITERS; i += 2) {
		unsigned long interrupted = read_dedup_counter(WAITS_INTERRUPTED);
		pid_t pid = signalled->waiters[i].pid;

		interrupt(pid);
		wait_until(read_dedup_counter(WAITS_INTERRUPTED) > interrupted,
			   "a waiter was not interrupted\n");
		wait_until(has_ended(pid) || has_arrived(pid, syscall_nr, 'S'),
			   "a waiter did not wait again\n");
		EXPECT_FALSE(has_ended(pid));
		EXPECT_EQ(interrupted + 1, read_dedup_counter(WAITS_INTERRUPTED));
	}
	finish_signalled(_metadata, signalled, 0, 1, NR_WAITERS);
}

static void call_handler(pid_t pid)
{
	kill(pid, SIGUSR2);
}

TEST_F_TIMEOUT(signal, handled_with_restart, TEST_LIMIT_S)
{
	restart_waiters(_metadata, &self->signalled, call_handler);
}

static void stop_and_continue(pid_t pid)
{
	kill(pid, SIGSTOP);
	wait_until(has_state(pid, 'T'), "a waiter did not stop\n");
	kill(pid, SIGCONT);
}

TEST_F_TIMEOUT(signal, stops, TEST_LIMIT_S)
{
	restart_waiters(_metadata, &self->signalled, stop_and_continue);
}

static void trace(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
		die("ptrace: %s\n", strerror(errno));
	wait_until(waitpid(pid, &status, WNOHANG) == pid, "a waiter was not traced\n");
	if (!WIFSTOPPED(status) || ptrace(PTRACE_DETACH, pid, NULL, NULL))
		die("a waiter ended when it was traced\n");
}

TEST_F_TIMEOUT(signal, traced, TEST_LIMIT_S)
{
	restart_waiters(_metadata, &self->signalled, trace);
}

#define CGROUPS		"/tmp/cgroups"
#define FROZEN		CGROUPS "/dup_loads"

static bool is_frozen(void)
{
	char *text = read_text(FROZEN "/cgroup.events", SIZE_MAX);
	bool frozen = strstr(text, "frozen 1");

	free(text);
	return frozen;
}

static void freeze_and_thaw(pid_t pid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	if (write_to(FROZEN "/cgroup.procs", number) || write_to(FROZEN "/cgroup.freeze", "1"))
		die("a waiter could not be frozen\n");
	wait_until(is_frozen(), "a waiter did not freeze\n");
	if (write_to(FROZEN "/cgroup.freeze", "0") || write_to(CGROUPS "/cgroup.procs", number))
		die("a waiter could not be thawed\n");
}

TEST_F_TIMEOUT(signal, frozen, TEST_LIMIT_S)
{
	if (mkdir(CGROUPS, 0700) || mount("none", CGROUPS, "cgroup2", 0, NULL))
		SKIP(return, "needs cgroup v2");
	ASSERT_TRUE(!mkdir(FROZEN, 0700) || errno == EEXIST);
	restart_waiters(_metadata, &self->signalled, freeze_and_thaw);
	EXPECT_EQ(0, rmdir(FROZEN));
}

/*
 * Results that an init function returns by itself, also those that end waits
 */

FIXTURE(init_result)
{
	struct caller waiters[NR_WAITERS];
	struct counters before;
};

FIXTURE_VARIANT(init_result)
{
	const char *args;
	int result;
};

FIXTURE_VARIANT_ADD(init_result, eintr) { "park=1 init_result=-4", EINTR };
FIXTURE_VARIANT_ADD(init_result, enomem) { "park=1 init_result=-12", ENOMEM };
FIXTURE_VARIANT_ADD(init_result, edeadlk) { "park=1 init_result=-35", EDEADLK };

FIXTURE_SETUP(init_result)
{
	set_up();
	self->before = read_counters();
}

FIXTURE_TEARDOWN_PARENT(init_result)
{
	unload_all();
}

TEST_F_TIMEOUT(init_result, shared, TEST_LIMIT_S)
{
	struct counters want = duplicate_counters(FILE_A, NR_WAITERS);
	struct load load = load_from(FILE_A, 0, variant->args);
	struct owner owner = park_owner(&load, MODULE_NAME);

	start_waiters_from(self->waiters, FILE_A, variant->args);
	EXPECT_EQ(variant->result, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(self->waiters, NR_WAITERS, 1, variant->result));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
	want.mod[MODCOUNT] = 0;
	expect_counters(_metadata, &self->before, &want);
}

/*
 * Owners that a signal ends while they resolve a symbol of a module that is
 * still coming. The loader returns EBUSY then.
 */

struct resolving {
	struct owner provider;		/* of the symbol */
	struct caller owner, waiters[NR_WAITERS];
	enum source source;		/* of the waiters */
	size_t len;
	struct counters before;
};

FIXTURE(resolving)
{
	struct resolving resolving;
};

FIXTURE_VARIANT(resolving)
{
	enum source owner, waiters;
};

FIXTURE_VARIANT_ADD(resolving, file_a_file_a) { FILE_A, FILE_A };
FIXTURE_VARIANT_ADD(resolving, file_a_file_b) { FILE_A, FILE_B };
FIXTURE_VARIANT_ADD(resolving, file_a_memory) { FILE_A, MEMORY };
FIXTURE_VARIANT_ADD(resolving, memory_file_b) { MEMORY, FILE_B };
FIXTURE_VARIANT_ADD(resolving, memory_memory) { MEMORY, MEMORY };

FIXTURE_SETUP(resolving)
{
	const enum source sources[] = { variant->owner, variant->waiters };
	struct resolving *resolving = &self->resolving;
	struct image user = read_module(USER_NAME);
	char user_paths[2][PATH_MAX];
	struct load loads[2], provider;
	unsigned int i;

	set_up();
	for (i = 0; i < ARRAY_SIZE(user_paths); i++)
		write_image(user_paths[i], &user);
	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		loads[i] = (struct load){ .image = &user, .args = "" };
		if (sources[i] != MEMORY)
			loads[i].path = user_paths[sources[i]];
	}
	resolving->source = variant->waiters;
	resolving->len = user.len;
	resolving->before = read_counters();
	provider = load_from(MEMORY, 0, "park=1");
	resolving->provider = park_owner(&provider, MODULE_NAME);
	resolving->owner = start_waiter(&loads[0]);
	start_waiters(resolving->waiters, NR_WAITERS, &loads[1]);
}

FIXTURE_TEARDOWN_PARENT(resolving)
{
	unload_all();
}

static void end_owner(struct __test_metadata *_metadata, const struct resolving *resolving,
		      int sig, int result)
{
	struct counters want = duplicate_counters(resolving->source, NR_WAITERS - 1);

	EXPECT_EQ(NR_WAITERS, count_waiters());
	kill(resolving->owner.pid, sig);
	EXPECT_EQ(result, reap(&resolving->owner));
	wait_until(count_waiters() == NR_WAITERS - 1 || has_ended(resolving->waiters[0].pid),
		   "no waiter became the owner\n");
	EXPECT_EQ(NR_WAITERS - 1, count_waiters());
	EXPECT_EQ(0, reap_owner(&resolving->provider));
	expect_new_owner(_metadata, resolving->waiters, NR_WAITERS,
			 result_of_others(resolving->source));
	EXPECT_TRUE(is_live(USER_NAME));
	want.mod[MODCOUNT] = 2;
	want.mod[FAILED_LOAD_MODULES] = 1;
	/* The image, and the module that was made of it. */
	want.mod[INVALID_MOD_BYTES] = 2 * resolving->len;
	want.dedup[BYTES_SAVED] = (NR_WAITERS - 1) * resolving->len;
	expect_counters(_metadata, &resolving->before, &want);
}

TEST_F_TIMEOUT(resolving, owner_killed, TEST_LIMIT_S)
{
	end_owner(_metadata, &self->resolving, SIGKILL, KILLED);
}

TEST_F_TIMEOUT(resolving, owner_interrupted, TEST_LIMIT_S)
{
	end_owner(_metadata, &self->resolving, SIGUSR1, EBUSY);
}

/*
 * Single loads, and owners of a file that wait for its name
 */

FIXTURE(load)
{
	struct counters before;
};

FIXTURE_SETUP(load)
{
	set_up();
	self->before = read_counters();
}

FIXTURE_TEARDOWN_PARENT(load)
{
	unload_all();
}

/* The owner of the file ends while it waits, and one waiter takes its place. */
static void end_file_owner(struct __test_metadata *_metadata, int sig, int result)
{
	struct load named = load_from(FILE_B, 0, "park=1"), load = load_from(FILE_A, 0, "");
	struct counters before = read_counters();
	struct owner owner = park_owner(&named, MODULE_NAME);
	struct counters want = {
		.mod[MODCOUNT] = 1,
		.dedup[SAME_FILE] = 1,
		.dedup[SAME_NAME] = 1,
		.dedup[ABORTED] = 1,
		.dedup[BYTES_SAVED] = 2 * image.len,
	};
	struct caller file_owner = start_waiter(&load), waiters[2];

	start_waiters(waiters, 2, &load);
	EXPECT_EQ(3, count_waiters());
	kill(file_owner.pid, sig);
	EXPECT_EQ(result, reap(&file_owner));
	wait_until(count_waiters() == 2 || has_ended(waiters[0].pid),
		   "the others do not wait\n");
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(waiters, 2, 1, EEXIST));
	expect_counters(_metadata, &before, &want);
}

TEST_F_TIMEOUT(load, file_owner_killed, TEST_LIMIT_S)
{
	end_file_owner(_metadata, SIGKILL, KILLED);
}

TEST_F_TIMEOUT(load, file_owner_interrupted, TEST_LIMIT_S)
{
	end_file_owner(_metadata, SIGUSR1, EINTR);
}

/* Whether a load of that name is pending. */
static bool is_pending(const char *name)
{
	char *text = read_text(PENDING, SIZE_MAX), line[80];
	bool found;

	snprintf(line, sizeof(line), "module\t%s\n", name);
	found = strstr(text, line);
	free(text);
	return found;
}

/*
 * The module is live, but its load continues: it waits for asynchronous work. A
 * load of the same file waits for the result, other loads do not wait.
 */
TEST_F_TIMEOUT(load, owner_with_live_module, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 park_live=1");
	struct load others[] = { load_from(FILE_B, 0, ""), load_from(MEMORY, 0, "") };
	struct counters want = {
		.mod[MODCOUNT] = 1,
		.dedup[SAME_FILE] = 1,
		.dedup[ALREADY_LOADED] = 1,
		.dedup[FROM_MEMORY] = 1,
		.dedup[BYTES_SAVED] = 3 * image.len,
	};
	struct owner owner = park_owner(&load, MODULE_NAME);
	unsigned long waits;
	struct caller same;
	unsigned int i;

	wait_until(is_live(MODULE_NAME) && !is_pending(MODULE_NAME),
		   "the module does not become live\n");
	waits = read_dedup_counter(WAITS);
	for (i = 0; i < ARRAY_SIZE(others); i++)
		EXPECT_EQ(EEXIST, do_load(&others[i]));
	EXPECT_EQ(waits, read_dedup_counter(WAITS));
	same = start_waiter(&load);
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap(&same));
	expect_counters(_metadata, &self->before, &want);
}

/*
 * Arguments and flags
 */

static bool has_tag(const char *expected)
{
	return is_loaded(MODULE_NAME) && file_says(PARAMETERS "tag", expected);
}

/*
 * The owner shares nothing with waiters that have other arguments or flags, here
 * with tag=2. One of them loads the module for all of them.
 */
static void load_other_after(struct __test_metadata *_metadata, const char *owner_args, int result,
			     const struct load *load)
{
	struct counters want = duplicate_counters(FILE_A, NR_WAITERS - 1);
	struct load first = load_from(FILE_A, 0, owner_args);
	struct counters before = read_counters();
	struct owner owner = park_owner(&first, MODULE_NAME);
	struct caller waiters[NR_WAITERS];

	start_waiters(waiters, NR_WAITERS, load);
	if (result == KILLED)
		kill(owner.caller.pid, SIGKILL);
	else
		release_owner(&owner);
	EXPECT_EQ(result, reap(&owner.caller));
	release_new_owner(_metadata, &owner, waiters, NR_WAITERS);
	EXPECT_EQ(0, reap_all(waiters, NR_WAITERS, 1, 0));
	EXPECT_TRUE(has_tag("2\n"));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &before, &want);
}

/* The module is live as the owner wanted it, with tag=1. */
static void load_other_beside(struct __test_metadata *_metadata, const struct load *load)
{
	struct counters want = duplicate_counters(OWN_FILES, NR_WAITERS);
	struct load first = load_from(FILE_A, 0, "park=1 tag=1");
	struct counters before = read_counters();
	struct owner owner = park_owner(&first, MODULE_NAME);
	struct caller waiters[NR_WAITERS];

	start_waiters(waiters, NR_WAITERS, load);
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(waiters, NR_WAITERS, 1, EEXIST));
	EXPECT_TRUE(has_tag("1\n"));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &before, &want);
}

TEST_F_TIMEOUT(load, other_args_owner_fails, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 tag=2");

	load_other_after(_metadata, "park=1 tag=1 init_result=-22", EINVAL, &load);
}

TEST_F_TIMEOUT(load, other_args_owner_killed, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 tag=2");

	load_other_after(_metadata, "park=1 tag=1", KILLED, &load);
}

TEST_F_TIMEOUT(load, other_args_owner_succeeds, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 tag=2");

	load_other_beside(_metadata, &load);
}

TEST_F_TIMEOUT(load, other_flags_owner_fails, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 tag=2 init_result=0");

	load.flags = MODULE_INIT_IGNORE_MODVERSIONS;
	load_other_after(_metadata, "park=1 tag=1 init_result=-22", EINVAL, &load);
}

TEST_F_TIMEOUT(load, other_flags_owner_killed, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 tag=2");

	load.flags = MODULE_INIT_IGNORE_MODVERSIONS;
	load_other_after(_metadata, "park=1 tag=2", KILLED, &load);
}

TEST_F_TIMEOUT(load, other_flags_owner_succeeds, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, "park=1 tag=1");

	load.flags = MODULE_INIT_IGNORE_MODVERSIONS;
	load_other_beside(_metadata, &load);
}

#define LARGE		(4UL << 20)

/* Returns arguments that are too long to be copied. */
static char *new_long_args(void)
{
	struct image args = new_image(2 * LARGE);

	memset(args.bytes, ' ', args.len - 1);
	return args.bytes;
}

TEST_F_TIMEOUT(load, long_args, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, new_long_args());

	EXPECT_EQ(ENOMEM, do_load(&load));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
}

/* Arguments that cannot be copied differ from any others. */
TEST_F_TIMEOUT(load, long_args_owner_succeeds, TEST_LIMIT_S)
{
	struct load load = load_from(FILE_A, 0, new_long_args());

	load_other_beside(_metadata, &load);
}

/* A load with a bad pointer to its arguments fails at once and affects no other load. */
TEST_F_TIMEOUT(load, bad_args, TEST_LIMIT_S)
{
	static const enum source sources[] = { FILE_A, FILE_B, MEMORY };
	static const char * const pointers[] = { NULL, (const char *)8, (const char *)~0xfffUL };
	struct counters want = duplicate_counters(FILE_A, 1);
	struct load load = load_from(FILE_A, 0, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);
	struct caller waiter = start_waiter(&load);
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		for (j = 0; j < ARRAY_SIZE(pointers); j++) {
			struct load bad = load_from(sources[i], 0, pointers[j]);

			EXPECT_EQ(EFAULT, do_load(&bad));
		}
	}
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(1, count_waiters());
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap(&waiter));
	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		struct load bad = load_from(sources[i], 0, NULL);

		EXPECT_EQ(EFAULT, do_load(&bad));
	}
	expect_counters(_metadata, &self->before, &want);
}

/*
 * Images in memory that change while they are loaded
 */

/* Multiples of the size of any page. */
#define HELD_PAGE	(64UL << 10)
#define MOVED_MODULE	(128UL << 10)
#define MOVED_SECTIONS	(192UL << 10)
#define CHANGING_LEN	(256UL << 10)

struct changing {
	struct image image;
	char *name;
};

/*
 * Moves the name behind a page that is missing. That holds a load after it has
 * peeked the name, and before it copies the name with the whole image.
 */
static struct changing new_changing(const char *symbol)
{
	struct changing new = { .image.len = CHANGING_LEN };
	struct elf_shdr *module;

	if (image.len > HELD_PAGE)
		die("the module is too large\n");
	new.image.bytes = alloc_shared(CHANGING_LEN);
	memcpy(new.image.bytes, image.bytes, image.len);
	set_symbol(&new.image, symbol);
	module = find_section(&new.image, ".gnu.linkonce.this_module");
	memcpy(new.image.bytes + MOVED_MODULE, new.image.bytes + module->sh_offset,
	       module->sh_size);
	module->sh_offset = MOVED_MODULE;
	new.name = find_name(&new.image);
	return new;
}

static struct caller start_held(const struct changing *changing, const char *args)
{
	struct load load = { .image = &changing->image, .args = args };

	return start_held_load(&load, changing->image.bytes + HELD_PAGE);
}

static void release_held(const struct caller *caller, const struct changing *changing)
{
	release_held_load(caller, changing->image.bytes + HELD_PAGE);
}

/* A load of such an image, and two waiters for its name. */
struct held {
	struct changing changing;
	struct caller owner, waiters[2];
	enum source source;		/* of the waiters */
	struct owner new_owner;		/* one of them, later */
	struct counters before;
};

FIXTURE(changing)
{
	struct held held;
};

FIXTURE_VARIANT(changing)
{
	enum source waiters;
};

FIXTURE_VARIANT_ADD(changing, own_files) { OWN_FILES };
FIXTURE_VARIANT_ADD(changing, memory) { MEMORY };

FIXTURE_SETUP(changing)
{
	struct held *held = &self->held;
	struct elf_hdr *hdr;
	unsigned int i;
	char *bytes;

	set_up();
	held->changing = new_changing("changing_symbol");
	bytes = held->changing.image.bytes;
	hdr = (struct elf_hdr *)bytes;
	memcpy(bytes + MOVED_SECTIONS, bytes + hdr->e_shoff, hdr->e_shnum * hdr->e_shentsize);
	hdr->e_shoff = MOVED_SECTIONS;

	held->source = variant->waiters;
	held->before = read_counters();
	held->owner = start_held(&held->changing, "");
	for (i = 0; i < ARRAY_SIZE(held->waiters); i++) {
		struct load load = load_from(variant->waiters, i, "park=1");

		held->waiters[i] = start_waiter(&load);
	}
	snprintf(held->new_owner.park, sizeof(held->new_owner.park), PARAMETERS "park");
}

FIXTURE_TEARDOWN_PARENT(changing)
{
	unload_all();
}

/* One waiter loads the module, and the other one waits for it. */
static void expect_new_name_owner(struct __test_metadata *_metadata, const struct held *held,
				  struct counters *want)
{
	release_new_owner(_metadata, &held->new_owner, held->waiters, 2);
	expect_new_owner(_metadata, held->waiters, 2, EEXIST);
	EXPECT_TRUE(is_live(MODULE_NAME));
	EXPECT_TRUE(is_idle());
	want->mod[MODCOUNT]++;
	want->dedup[held->source == MEMORY ? FROM_MEMORY : SAME_NAME] = 1;
	want->dedup[BYTES_SAVED] = image.len;
	expect_counters(_metadata, &held->before, want);
}

/* The owner turns out to load another module. */
TEST_F_TIMEOUT(changing, owner_renamed, TEST_LIMIT_S)
{
	struct counters want = { .mod[MODCOUNT] = 1 };
	struct held *held = &self->held;

	put_name(held->changing.name, OTHER_NAME);
	release_held(&held->owner, &held->changing);
	EXPECT_EQ(0, reap(&held->owner));
	EXPECT_TRUE(is_live(OTHER_NAME));
	expect_new_name_owner(_metadata, held, &want);
}

/* An image that is not a module says nothing about other images of the name. */
TEST_F_TIMEOUT(changing, owner_fails_early, TEST_LIMIT_S)
{
	struct counters want = {
		.mod[FAILED_BECOMING] = 1,
		.mod[INVALID_BECOMING_BYTES] = CHANGING_LEN,
	};
	struct held *held = &self->held;

	memset(held->changing.image.bytes + MOVED_SECTIONS, 0, CHANGING_LEN - MOVED_SECTIONS);
	release_held(&held->owner, &held->changing);
	EXPECT_EQ(ENOEXEC, reap(&held->owner));
	expect_new_name_owner(_metadata, held, &want);
}

TEST_F_TIMEOUT(changing, owner_killed, TEST_LIMIT_S)
{
	struct counters want = {
		.mod[FAILED_KREADS] = 1,
		.mod[INVALID_KREAD_BYTES] = CHANGING_LEN,
	};
	struct held *held = &self->held;

	kill(held->owner.pid, SIGKILL);
	EXPECT_EQ(KILLED, reap(&held->owner));
	expect_new_name_owner(_metadata, held, &want);
}

/* Waiters continue after a few seconds if a load does not join the module list. */
TEST_F_TIMEOUT(changing, owner_stuck, TEST_LIMIT_S)
{
	struct held *held = &self->held;
	struct counters change;

	wait_until(!access(held->new_owner.park, F_OK), "no waiter loads the module\n");
	wait_until(!count_waiters(), "a waiter still waits for the owner\n");
	EXPECT_FALSE(has_ended(held->owner.pid));
	release_owner(&held->new_owner);
	expect_new_owner(_metadata, held->waiters, 2, EEXIST);
	EXPECT_TRUE(is_live(MODULE_NAME));
	release_held(&held->owner, &held->changing);
	EXPECT_EQ(EEXIST, reap(&held->owner));
	EXPECT_TRUE(is_idle());
	/* One of the loader's two checks for duplicates finds the other waiter. */
	change = counters_since(&held->before);
	EXPECT_EQ(1, change.mod[MODCOUNT]);
	EXPECT_EQ(2, change.mod[FAILED_BECOMING] + change.mod[FAILED_LOAD_MODULES]);
	EXPECT_EQ(3, change.dedup[PERFORMED]);
	EXPECT_EQ(2, change.dedup[UNTRACKED]);
	EXPECT_EQ(0, change.dedup[BYTES_SAVED]);
}

/*
 * Loads of one image that the loader rejects. The owner is held while it copies
 * the image; the others wait for its name, and share its error without a copy.
 */
static void expect_shared_error(struct __test_metadata *_metadata, char *path,
				struct counters *want)
{
	struct changing changing = new_changing("changing_symbol");
	/* Reading the held page would provide it. */
	struct changing same = new_changing("changing_symbol");
	struct load load = { .path = path, .image = &same.image, .args = "" };
	struct counters before;
	struct caller owner, waiters[NR_WAITERS];

	spoil_string(&changing.image, ".modinfo", "vermagic=");
	spoil_string(&same.image, ".modinfo", "vermagic=");
	if (path)
		write_image(path, &same.image);
	before = read_counters();
	owner = start_held(&changing, "");
	start_waiters(waiters, NR_WAITERS, &load);
	release_held(&owner, &changing);
	EXPECT_EQ(ENOEXEC, reap(&owner));
	EXPECT_EQ(0, reap_all(waiters, NR_WAITERS, 1, ENOEXEC));
	EXPECT_TRUE(is_idle());
	want->mod[FAILED_BECOMING] = 1;
	want->mod[INVALID_BECOMING_BYTES] = CHANGING_LEN;
	want->dedup[BYTES_SAVED] = NR_WAITERS * CHANGING_LEN;
	expect_counters(_metadata, &before, want);
}

TEST_F_TIMEOUT(load, bad_image_in_memory, TEST_LIMIT_S)
{
	struct counters want = { .dedup[FROM_MEMORY] = NR_WAITERS };

	expect_shared_error(_metadata, NULL, &want);
}

TEST_F_TIMEOUT(load, bad_image_in_file, TEST_LIMIT_S)
{
	struct counters want = { .dedup[SAME_NAME] = 1, .dedup[SAME_FILE] = NR_WAITERS - 1 };
	char path[PATH_MAX];

	expect_shared_error(_metadata, path, &want);
}

/* Waiters return when the module is live, though its owner waits for asynchronous work. */
TEST_F_TIMEOUT(load, waiters_until_live, TEST_LIMIT_S)
{
	struct load loads[] = { load_from(FILE_A, 0, ""), load_from(MEMORY, 0, "") };
	struct changing changing = new_changing("changing_symbol");
	struct owner owner = { .park = PARAMETERS "park" };
	struct caller waiters[ARRAY_SIZE(loads)];
	struct counters want = {
		.mod[MODCOUNT] = 1,
		.dedup[SAME_NAME] = 1,
		.dedup[FROM_MEMORY] = 1,
		.dedup[BYTES_SAVED] = 2 * image.len,
	};
	unsigned int i;

	owner.caller = start_held(&changing, "park=1 park_live=1");
	for (i = 0; i < ARRAY_SIZE(loads); i++)
		waiters[i] = start_waiter(&loads[i]);
	release_held(&owner.caller, &changing);
	EXPECT_EQ(0, reap_all(waiters, ARRAY_SIZE(waiters), 1, EEXIST));
	EXPECT_TRUE(is_live(MODULE_NAME));
	EXPECT_FALSE(has_ended(owner.caller.pid));
	EXPECT_EQ(0, reap_owner(&owner));
	expect_counters(_metadata, &self->before, &want);
}

/* Neither load keeps its old name while it waits for the new one. */
TEST_F_TIMEOUT(load, swapped_names, TEST_LIMIT_S)
{
	struct changing one = new_changing("one_symbol"), other = new_changing("other_symbol");
	struct counters want = { .mod[MODCOUNT] = 2 };
	struct caller owners[2];

	put_name(other.name, OTHER_NAME);
	owners[0] = start_held(&one, "");
	owners[1] = start_held(&other, "");
	put_name(one.name, OTHER_NAME);
	put_name(other.name, MODULE_NAME);
	release_held(&owners[0], &one);
	wait_until(count_waiters() == 1, "the first load does not wait for its new name\n");
	release_held(&owners[1], &other);
	EXPECT_EQ(0, reap(&owners[1]));
	EXPECT_EQ(0, reap(&owners[0]));
	EXPECT_TRUE(is_live(MODULE_NAME));
	EXPECT_TRUE(is_live(OTHER_NAME));
	expect_counters(_metadata, &self->before, &want);
}

/*
 * Duplicates of a live module
 */

static int nr_duplicates(void)
{
	return is_quick() ? 100 : 1000;
}

FIXTURE(live)
{
	struct load first;
};

FIXTURE_VARIANT(live)
{
	enum source first, duplicates;
};

FIXTURE_VARIANT_ADD(live, file_a_file_a) { FILE_A, FILE_A };
FIXTURE_VARIANT_ADD(live, file_a_file_b) { FILE_A, FILE_B };
FIXTURE_VARIANT_ADD(live, file_a_memory) { FILE_A, MEMORY };
FIXTURE_VARIANT_ADD(live, memory_file_a) { MEMORY, FILE_A };
FIXTURE_VARIANT_ADD(live, memory_memory) { MEMORY, MEMORY };

FIXTURE_SETUP(live)
{
	set_up();
	self->first = load_from(variant->first, 0, "");
}

FIXTURE_TEARDOWN_PARENT(live)
{
	unload_all();
}

TEST_F_TIMEOUT(live, duplicates, TEST_LIMIT_S)
{
	struct load duplicate = load_from(variant->duplicates, 0, "");

	load_duplicates(_metadata, &self->first, &duplicate, image.len, nr_duplicates());
}

/* Memory that could never be allocated does not count as saved. */
TEST_F_TIMEOUT(load, more_than_memory, TEST_LIMIT_S)
{
	struct image too_long = { .bytes = image.bytes, .len = LONG_MAX };
	struct load duplicate = { .image = &too_long, .args = "" };
	struct load first = load_from(FILE_A, 0, "");

	load_duplicates(_metadata, &first, &duplicate, 0, nr_duplicates());
}

/* Duplicates may meet each other. None of them failed: the module is live. */
TEST_F_TIMEOUT(load, at_once, TEST_LIMIT_S)
{
	static const enum source sources[] = { FILE_A, FILE_B, MEMORY };
	int i, err, rounds = is_quick() ? 10 : 100;
	struct load first = load_from(FILE_A, 0, "");
	struct counters before, change;
	struct caller callers[64];
	char *stats, *stats_after;

	ASSERT_EQ(0, do_load(&first));
	stats = read_text(STATS, SIZE_MAX);
	before = read_counters();
	for (i = 0; i < (int)ARRAY_SIZE(callers); i++) {
		struct load load = load_from(sources[i % ARRAY_SIZE(sources)], 0, "");

		callers[i] = fork_caller();
		if (callers[i].pid)
			continue;
		do
			err = do_load(&load);
		while (err == EEXIST && --rounds);
		*callers[i].result = err;
		_exit(0);
	}
	EXPECT_EQ(0, reap_all(callers, ARRAY_SIZE(callers), 1, EEXIST));
	change = counters_since(&before);
	EXPECT_EQ(rounds * ARRAY_SIZE(callers), change.dedup[LOADS]);
	EXPECT_EQ(rounds * ARRAY_SIZE(callers) * image.len, change.dedup[BYTES_SAVED]);
	EXPECT_EQ(0, change.dedup[PERFORMED]);
	EXPECT_EQ(0, change.dedup[ABORTED]);
	stats_after = read_text(STATS, SIZE_MAX);
	EXPECT_STREQ(stats, stats_after);
	free(stats);
	free(stats_after);
}

/*
 * Loads of a module whose exit function is held: the loader decides about them
 */

FIXTURE(going)
{
	struct caller unloader;
	struct counters before;
};

FIXTURE_SETUP(going)
{
	struct caller unloader;
	struct load load;

	set_up();
	load = load_from(FILE_A, 0, "");
	ASSERT_EQ(0, do_load(&load));
	ASSERT_EQ(0, write_to(PARAMETERS "park", "1"));
	unloader = fork_caller();
	if (!unloader.pid) {
		*unloader.result = unload_module(MODULE_NAME);
		_exit(0);
	}
	wait_until(has_arrived(unloader.pid, SYS_delete_module, 'D'),
		   "the module is not unloaded\n");
	self->unloader = unloader;
	self->before = read_counters();
}

FIXTURE_TEARDOWN_PARENT(going)
{
	unload_all();
}

static void finish_unload(struct __test_metadata *_metadata, const struct caller *unloader)
{
	ASSERT_EQ(0, write_to(PARAMETERS "park", "0"));
	ASSERT_EQ(0, reap(unloader));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
}

TEST_F_TIMEOUT(going, from_file_and_memory, TEST_LIMIT_S)
{
	struct load file = load_from(FILE_A, 0, ""), memory = load_from(MEMORY, 0, "");
	struct counters want = {
		.mod[FAILED_BECOMING] = 2,
		.mod[INVALID_BECOMING_BYTES] = 2 * image.len,
	};

	EXPECT_EQ(EBUSY, do_load(&file));
	EXPECT_EQ(EBUSY, do_load(&memory));
	expect_counters(_metadata, &self->before, &want);
	finish_unload(_metadata, &self->unloader);
}

/* The module is gone by the time the image has been copied. */
TEST_F_TIMEOUT(going, gone_after_copy, TEST_LIMIT_S)
{
	struct changing changing = new_changing("going_symbol");
	struct counters want = { .mod[MODCOUNT] = 1 };
	struct caller caller = start_held(&changing, "");

	EXPECT_FALSE(has_ended(caller.pid));
	finish_unload(_metadata, &self->unloader);
	release_held(&caller, &changing);
	EXPECT_EQ(0, reap(&caller));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &self->before, &want);
}

/* An owner that fails in this way shares nothing: its waiters try for themselves. */
TEST_F_TIMEOUT(going, waiters, TEST_LIMIT_S)
{
	struct changing changing = new_changing("going_symbol");
	struct load loads[] = { load_from(FILE_A, 0, ""), load_from(MEMORY, 0, "") };
	struct caller owner = start_held(&changing, ""), waiters[ARRAY_SIZE(loads)];
	struct counters want = {
		.mod[FAILED_BECOMING] = 3,
		.mod[INVALID_BECOMING_BYTES] = CHANGING_LEN + 2 * image.len,
	};
	unsigned int i;

	EXPECT_FALSE(has_ended(owner.pid));
	for (i = 0; i < ARRAY_SIZE(loads); i++)
		waiters[i] = start_waiter(&loads[i]);
	release_held(&owner, &changing);
	EXPECT_EQ(EBUSY, reap(&owner));
	EXPECT_EQ(0, reap_all(waiters, ARRAY_SIZE(waiters), 1, EBUSY));
	expect_counters(_metadata, &self->before, &want);
	finish_unload(_metadata, &self->unloader);
}

/*
 * Compressed files, which the kernel recognises by their bytes
 */

static struct load compressed_load(const char *path)
{
	return (struct load){
		.path = path,
		.args = "",
		.flags = MODULE_INIT_COMPRESSED_FILE,
	};
}

FIXTURE(compressed)
{
	char path[PATH_MAX], other_path[PATH_MAX];
	struct image frame;	/* what both files consist of */
	struct load load, other;
	struct counters before;
};

FIXTURE_SETUP(compressed)
{
	set_up();
	self->frame = compress(&image);
	self->load = compressed_load(write_image(self->path, &self->frame));
	self->other = compressed_load(write_image(self->other_path, &self->frame));
	self->before = read_counters();
}

FIXTURE_TEARDOWN_PARENT(compressed)
{
	unload_all();
}

TEST_F_TIMEOUT(compressed, duplicates, TEST_LIMIT_S)
{
	load_duplicates(_metadata, &self->load, &self->load, self->frame.len, nr_duplicates());
}

TEST_F_TIMEOUT(compressed, duplicates_in_other_file, TEST_LIMIT_S)
{
	load_duplicates(_metadata, &self->load, &self->other, self->frame.len, nr_duplicates());
}

TEST_F_TIMEOUT(compressed, duplicates_uncompressed, TEST_LIMIT_S)
{
	struct load file = load_from(FILE_A, 0, "");

	load_duplicates(_metadata, &self->load, &file, image.len, nr_duplicates());
}

TEST_F_TIMEOUT(compressed, duplicates_in_memory, TEST_LIMIT_S)
{
	struct load memory = load_from(MEMORY, 0, "");

	load_duplicates(_metadata, &self->load, &memory, image.len, nr_duplicates());
}

/* Bytes that the live module did not come from have to be decompressed. */
TEST_F_TIMEOUT(compressed, of_uncompressed_module, TEST_LIMIT_S)
{
	struct load file = load_from(FILE_A, 0, "");
	int i;

	ASSERT_EQ(0, do_load(&file));
	for (i = 0; i < 10; i++)
		EXPECT_EQ(EEXIST, do_load(&self->load));
	must_unload(MODULE_NAME);
	EXPECT_EQ(0, do_load(&self->load));
	EXPECT_TRUE(is_live(MODULE_NAME));
}

TEST_F_TIMEOUT(compressed, waiters, TEST_LIMIT_S)
{
	struct load load = with_args(self->load, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);
	struct counters want = duplicate_counters(FILE_A, NR_WAITERS);
	struct caller waiters[NR_WAITERS];

	start_waiters(waiters, NR_WAITERS, &load);
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(waiters, NR_WAITERS, 1, 0));
	want.dedup[BYTES_SAVED] = NR_WAITERS * self->frame.len;
	expect_counters(_metadata, &self->before, &want);
}

TEST_F_TIMEOUT(compressed, waiters_owner_killed, TEST_LIMIT_S)
{
	struct load load = with_args(self->load, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);
	struct counters want = duplicate_counters(FILE_A, NR_WAITERS - 1);
	struct caller waiters[NR_WAITERS];

	start_waiters(waiters, NR_WAITERS, &load);
	kill(owner.caller.pid, SIGKILL);
	EXPECT_EQ(KILLED, reap(&owner.caller));
	release_new_owner(_metadata, &owner, waiters, NR_WAITERS);
	EXPECT_EQ(0, reap_all(waiters, NR_WAITERS, 1, 0));
	want.dedup[BYTES_SAVED] = (NR_WAITERS - 1) * self->frame.len;
	expect_counters(_metadata, &self->before, &want);
}

/* The name in a compressed image is known after the image has been decompressed. */
TEST_F_TIMEOUT(compressed, waiter_in_other_file, TEST_LIMIT_S)
{
	struct load load = with_args(self->load, "park=1");
	struct load other = with_args(self->other, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);
	struct caller waiter = start_waiter(&other);

	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(EEXIST, reap(&waiter));
	EXPECT_TRUE(is_live(MODULE_NAME));
}

/*
 * Memory
 */

#define MAX_LOADERS	254

static unsigned long vmalloc_used(void)
{
	char *text = read_text("/proc/meminfo", SIZE_MAX), *line = strstr(text, "VmallocUsed:");
	unsigned long kib;

	if (!line || sscanf(line, "VmallocUsed: %lu kB", &kib) != 1)
		die("/proc/meminfo has no VmallocUsed\n");
	free(text);
	return kib << 10;
}

/* Whether a process waits in init_module(2). Records the memory that is used meanwhile. */
static bool has_arrived_watched(pid_t pid, unsigned long *peak)
{
	unsigned long used = vmalloc_used();

	if (used > *peak)
		*peak = used;
	return has_arrived(pid, SYS_init_module, 'S');
}

/*
 * Many loads of an image of 4 MB need memory for one of them. The processes
 * start before the owner, so that their own memory is not in the difference.
 */
TEST_F_TIMEOUT(load, peak_memory, TEST_LIMIT_S)
{
	int i, gate[2], n = is_quick() ? 32 : MAX_LOADERS;
	struct image large = copy_image(&image, LARGE);
	struct load owner_load = { .image = &large, .args = "park=1" };
	struct load load = { .image = &large, .args = "" };
	struct caller callers[MAX_LOADERS];
	unsigned long parked, peak = 0;
	struct owner owner;
	struct counters want = {
		.mod[MODCOUNT] = 1,
		.dedup[FROM_MEMORY] = n,
		.dedup[BYTES_SAVED] = n * LARGE,
	};

	ASSERT_EQ(0, pipe2(gate, O_CLOEXEC));
	for (i = 0; i < n; i++) {
		char c;

		callers[i] = fork_caller();
		if (callers[i].pid)
			continue;
		if (read(gate[0], &c, 1) != 1)
			_exit(1);
		*callers[i].result = do_load(&load);
		_exit(0);
	}
	owner = park_owner(&owner_load, MODULE_NAME);
	/* The owner has allocated the module and freed its copy of the image. */
	parked = vmalloc_used();
	ASSERT_EQ(n, write(gate[1], large.bytes, n));
	for (i = 0; i < n; i++)
		wait_until(has_arrived_watched(callers[i].pid, &peak),
			   "%d of %d loads did not arrive\n", n - i, n);
	EXPECT_LE(peak, parked + LARGE);
	TH_LOG("vmalloc: %lu KiB with the owner, %lu KiB with %d waiters", parked >> 10,
	       peak >> 10, n);
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap_all(callers, n, 1, EEXIST));
	expect_counters(_metadata, &self->before, &want);
}

/*
 * Loads that fail for other reasons. Deduplication peeks at the file or memory
 * first, but the errors are those of the loader.
 */

FIXTURE(bad_file)
{
	int log;
};

FIXTURE_VARIANT(bad_file)
{
	const char *path;	/* or NULL: that of a module */
	int mode, flags, result;
};

FIXTURE_VARIANT_ADD(bad_file, none) { "", O_RDONLY, 0, EBADF };
FIXTURE_VARIANT_ADD(bad_file, write_only) { NULL, O_WRONLY, 0, EBADF };
FIXTURE_VARIANT_ADD(bad_file, bad_flags) { NULL, O_RDONLY, 8, EINVAL };
FIXTURE_VARIANT_ADD(bad_file, folder) { "/tmp", O_RDONLY, 0, EINVAL };
FIXTURE_VARIANT_ADD(bad_file, device) { "/dev/null", O_RDONLY, 0, EINVAL };

FIXTURE_SETUP(bad_file)
{
	set_up();
	self->log = open_log();
}

/* The kernel must not complain about what user space passed to it. */
FIXTURE_TEARDOWN(bad_file)
{
	EXPECT_EQ(0, count_in_log(self->log, "not supported for file"));
	close(self->log);
}

TEST_F(bad_file, finit_module)
{
	int fd = open(variant->path ?: paths[FILE_A], variant->mode | O_CLOEXEC);
	int result = syscall(SYS_finit_module, fd, "", variant->flags) ? errno : 0;

	EXPECT_EQ(variant->result, result);
	EXPECT_FALSE(is_loaded(MODULE_NAME));
	if (fd >= 0)
		close(fd);
}

/* Nothing is read from a file that is not regular. */
TEST_F(load, pipe)
{
	int fds[2], unread = 0, log = open_log();

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(4096, write(fds[1], image.bytes, 4096));
	EXPECT_EQ(-1, syscall(SYS_finit_module, fds[0], "", 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, ioctl(fds[0], FIONREAD, &unread));
	EXPECT_EQ(4096, unread);
	EXPECT_EQ(0, count_in_log(log, "not supported for file"));
}

/* The file was opened before the process dropped CAP_SYS_MODULE. */
TEST_F_TIMEOUT(load, unprivileged, TEST_LIMIT_S)
{
	struct load memory = load_from(MEMORY, 0, "");
	int fd = open(paths[FILE_A], O_RDONLY | O_CLOEXEC);
	struct caller callers[2];

	start_unprivileged(callers, fd, &memory);
	EXPECT_EQ(0, reap_all(callers, 2, 1, EPERM));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
}

TEST_F(load, open_for_writing)
{
	struct load file = load_from(FILE_A, 0, "");
	int fd = open(file.path, O_RDWR | O_CLOEXEC);

	EXPECT_EQ(ETXTBSY, do_load(&file));
	close(fd);
	EXPECT_EQ(0, do_load(&file));
}

TEST_F(load, not_elf)
{
	struct image zeros = new_image(4096);
	struct load memory = { .image = &zeros, .args = "" };
	char path[PATH_MAX];
	struct load file = { .path = write_image(path, &zeros), .args = "" };

	EXPECT_EQ(ENOEXEC, do_load(&file));
	EXPECT_EQ(ENOEXEC, do_load(&memory));
}

TEST_F(load, unmapped)
{
	struct image unmapped = { .len = image.len };
	struct load load = { .image = &unmapped, .args = "" };

	EXPECT_EQ(EFAULT, do_load(&load));
}

/* Only root sees the mode. */
TEST(mode_parameter)
{
	struct stat st;

	ASSERT_EQ(0, stat(DEDUP_MODE, &st));
	EXPECT_EQ(S_IFREG | 0400, st.st_mode);
}

int main(int argc, char **argv)
{
	need_stats();
	need_dedup();
	need_mode("full");
	return test_harness_run(argc, argv);
}
