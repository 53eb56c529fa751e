// SPDX-License-Identifier: GPL-2.0
/*
 * Loads and requests for which the kernel finds no memory, or cannot access the
 * memory of the caller.
 *
 * A test repeats a call and injects one fault into each: at the first chance to
 * fail, at the second, and so on, until a call ends before its fault. Each call
 * must end and leave nothing behind. It may fail for lack of what the loader
 * needs, but not for lack of what deduplication allocates.
 *
 * The stack that the kernel logs with a fault tells these apart: the innermost
 * function that belongs to one of them decides. Comparing with the number of
 * faults under module.dedup=none would not work, because the loads differ.
 *
 * An allocation with __GFP_NOWARN fails without a stack. In deduplication these
 * are the copies of the arguments, which C makes as well.
 *
 * An owner needs waiters, so it is held where that is possible: a load from
 * memory by a missing page of the image, a load from a file by a symbol of
 * another module, whose init function is held, and a request by the lack of a
 * slot for modprobe. An owner that fails before has no waiters.
 *
 * Needs fault injection (failslab, fail_page_alloc, fail_usercopy) and
 * module.dedup=full.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "dedup_request.h"
#include "kselftest_harness.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define FAULTS		"/sys/kernel/debug/"
#define CACHES		"/sys/kernel/slab/"
#define NR_WAITERS	8
/* MAX_KMOD_CONCURRENT */
#define NR_SLOTS	50
/* MAX_KMOD_ALL_BUSY_TIMEOUT */
#define SLOT_TIMEOUT_S	5
/* Several times the number of chances to fail that any call has. */
#define MAX_NTH		5000
/* Deduplication allocates within the first chances and within the last. */
#define NR_FIRST	32
#define NR_LAST		24
/* With DEDUP_QUICK, each of so many chances is tried, then ever fewer. */
#define NR_QUICK	16
/* A chance that only some calls have may be missed so often. */
#define MAX_ROUNDS	5
#define MAX_PLACES	16
/* KSYM_NAME_LEN and an offset */
#define PLACE_LEN	544

/* The reason why a call did not get what it needed. */
enum client {
	NOBODY,		/* the call ended before its fault */
	UNKNOWN,	/* the kernel logged no stack */
	LOADER,		/* or any other code that deduplication did not add */
	ARGUMENTS,	/* the copy of the arguments from user space */
	DEDUP_ITSELF,
	NR_CLIENTS
};

static const char * const client_names[NR_CLIENTS] = {
	"nowhere", "somewhere", "in the loader", "in the arguments", "in deduplication",
};

/* The nth chance to fail is taken. */
struct fault {
	unsigned int nth;
	bool is_near_end;
	enum client client;
	char place[PLACE_LEN];	/* in deduplication: function+offset */
};

/* A setting of fault injection and its value before the test. */
static const struct {
	const char *path, *value;
} settings[] = {
	/* Each fault consumes one of these. */
	{ FAULTS "failslab/times", "1000000000" },
	{ FAULTS "fail_page_alloc/times", "1000000000" },
	{ FAULTS "fail_usercopy/times", "1000000000" },
	/* Also fail allocations that may sleep, and those of single pages. */
	{ FAULTS "failslab/ignore-gfp-wait", "N" },
	{ FAULTS "failslab/cache-filter", "Y" },
	{ FAULTS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ FAULTS "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ FAULTS "fail_page_alloc/min-order", "0" },
	/* Log stacks. */
	{ FAULTS "failslab/verbose", "2" },
	{ FAULTS "fail_page_alloc/verbose", "2" },
	{ FAULTS "fail_usercopy/verbose", "2" },
	/* A load that fails waits for RCU, more than once. */
	{ "/sys/kernel/rcu_expedited", "1" },
};

struct old_setting {
	char value[32];
};

/* What the process that makes a call reports. */
struct report {
	bool was_hit;
	unsigned int nr_remaining;	/* chances that were still to come before the fault */
	int userfaultfd;
};

/* A request whose helper is held occupies one of the slots for modprobe. */
struct slot {
	char name[32];
	struct caller caller;
	int fifo;
};

/* One run of a test, shared with the processes that make its calls. */
struct run {
	/* Makes a call with a fault, checks its result, and cleans up. */
	void (*attempt)(struct __test_metadata *_metadata, struct run *run, struct fault *fault);
	struct old_setting old_settings[ARRAY_SIZE(settings)];
	struct image image, user_image;
	char path[PATH_MAX], user_path[PATH_MAX], compressed_path[PATH_MAX];
	struct load load, compressed;
	struct helper helper;
	struct slot slots[NR_SLOTS];
	int nr_slots;			/* taken */
	int log;
	struct report report;
	unsigned int hits[NR_CLIENTS];
	char places[MAX_PLACES][PLACE_LEN];
	unsigned int nr_places;
	unsigned int nr_awaited;	/* calls with a fault that others waited for */
	unsigned int nr_failures;	/* of these */
};

/*
 * Faults
 */

/*
 * Selects the slab caches whose allocations may fail: all but those of debugging.
 * The latter make allocations of their own now and then, at another chance of
 * each call, and nothing depends on them.
 */
static void select_caches(const char *value)
{
	static const char * const others[] = { "kmemleak", "debug_objects" };
	DIR *dir = opendir(CACHES);
	struct dirent *entry;
	char path[PATH_MAX];
	unsigned int i;
	int err;

	if (!dir)
		die("%s: %s\n", CACHES, strerror(errno));
	while ((entry = readdir(dir))) {
		for (i = 0; i < ARRAY_SIZE(others); i++)
			if (!strncmp(entry->d_name, others[i], strlen(others[i])))
				break;
		if (i < ARRAY_SIZE(others) || entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), CACHES "%s/failslab", entry->d_name);
		err = write_to(path, value);
		/* The cache may be gone. */
		if (err && err != ENOENT)
			die("%s: %s\n", path, strerror(err));
	}
	closedir(dir);
}

static void change_settings(struct old_setting *old)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		char *value = read_text(settings[i].path, SIZE_MAX);
		int err = write_to(settings[i].path, settings[i].value);

		if (err)
			die("%s: %s\n", settings[i].path, strerror(err));
		snprintf(old[i].value, sizeof(old[i].value), "%s", value);
		free(value);
	}
	select_caches("1");
}

static void restore_settings(const struct old_setting *old)
{
	unsigned int i;

	select_caches("0");
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		write_to(settings[i].path, old[i].value);
}

/*
 * Parts of the names of functions. The first one that matches counts. Functions
 * that C and Rust call of each other begin with module_dedup_; what the Rust
 * compiler emits contains the name of the crate. If copy_args() is inlined one day,
 * its failures count as those of deduplication, and tests fail.
 */
static const struct {
	const char *part;
	enum client client;
} functions[] = {
	{ " load_module+", LOADER },
	{ " module_init_from_", LOADER },
	{ " module_dedup_modprobe+", LOADER },
	{ "5image9copy_args", ARGUMENTS },
	{ " module_dedup_", DEDUP_ITSELF },
	{ " module_check_duplicate+", DEDUP_ITSELF },
	{ " module_patient_check_exists+", DEDUP_ITSELF },
	{ "10dedup_main", DEDUP_ITSELF },
};

static void skip_log(int log)
{
	if (lseek(log, 0, SEEK_END) < 0)
		die("/dev/kmsg: %s\n", strerror(errno));
}

/* Finds out which part of the kernel the fault was in, from the stack in the log. */
static void find_client(int log, struct fault *fault)
{
	bool is_in_stack = false;
	char record[8192];
	unsigned int i;
	ssize_t len;

	fault->client = UNKNOWN;
	while ((len = read(log, record, sizeof(record) - 1)) > 0) {
		record[len] = '\0';
		if (strstr(record, "FAULT_INJECTION: forcing a failure")) {
			is_in_stack = true;
			fault->client = LOADER;
		}
		/* The unwinder marks what it is not sure of. */
		if (!is_in_stack || strstr(record, " ? "))
			continue;
		for (i = 0; i < ARRAY_SIZE(functions); i++) {
			if (strstr(record, functions[i].part)) {
				fault->client = functions[i].client;
				if (sscanf(record, "%*[^;];%543s", fault->place) != 1)
					die("/dev/kmsg: %s\n", record);
				return;
			}
		}
	}
	if (len < 0 && errno != EAGAIN)
		die("/dev/kmsg: %s\n", strerror(errno));
}

/*
 * Calls
 */

/* The arguments of a system call. */
struct call {
	long nr;
	long args[3];
	void *held_page;	/* is missing, and holds the call */
};

static struct call file_call(const struct load *load)
{
	int fd = open(load->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s\n", load->path, strerror(errno));
	return (struct call){
		.nr = SYS_finit_module,
		.args = { fd, (long)load->args, load->flags },
	};
}

static struct call memory_call(const struct image *image, const char *args)
{
	return (struct call){
		.nr = SYS_init_module,
		.args = { (long)image->bytes, image->len, (long)args },
	};
}

static void close_call(const struct call *call)
{
	if (call->nr != SYS_init_module)
		close(call->args[0]);
}

/*
 * Starts a process that makes a call, in which the nth chance to fail is taken, or
 * none if nth is 0. Its result is that of the call, or -errno.
 */
static struct caller start_call(struct run *run, const struct call *call,
				unsigned int nth)
{
	struct caller caller = fork_caller();
	struct report *report = &run->report;
	char text[16];
	long result;
	int fd;

	if (caller.pid)
		return caller;
	fd = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	if (call->held_page)
		report->userfaultfd = hold_page(call->held_page);
	if (fd < 0 || report->userfaultfd < 0)
		_exit(1);
	/* Written to here, so that it is not paged in after the call. */
	*caller.result = 0;
	errno = 0;
	if (nth && write(fd, text, snprintf(text, sizeof(text), "%u", nth)) < 0)
		_exit(1);
	result = syscall(call->nr, call->args[0], call->args[1], call->args[2]);
	if (result < 0)
		result = -errno;
	/* This read(2) fails if it is the next chance: the call was not hit then. */
	if (nth) {
		ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

		report->nr_remaining = len > 0 ? strtoul(text, NULL, 10) : 0;
		report->was_hit = len > 0 && !report->nr_remaining;
		pwrite(fd, "0", 1, 0);
	}
	*caller.result = result;
	_exit(0);
}

/* Returns once a call waits or has ended; true if it waits. */
static bool is_waiting(const struct caller *caller, const struct call *call)
{
	char state = call->nr == SYS_ioctl ? 'D' : 'S';

	wait_until(has_arrived(caller->pid, call->nr, state) || has_ended(caller->pid),
		   "process %d did not arrive\n", caller->pid);
	return !has_ended(caller->pid);
}

/* Starts the one call of an attempt that has a fault. */
static struct caller start_faulty_call(struct run *run, const struct call *call,
				       const struct fault *fault)
{
	run->report = (struct report){ };
	skip_log(run->log);
	return start_call(run, call, fault->nth);
}

/* Waits for its end. Returns its result, and stores which part of the kernel failed. */
static int reap_faulty_call(struct run *run, const struct caller *caller,
			    struct fault *fault)
{
	int result = reap(caller);

	fault->client = NOBODY;
	if (run->report.was_hit)
		find_client(run->log, fault);
	return result;
}

/* Starts waiters that make one of two calls in turn. */
static void start_waiting_calls(struct run *run, struct caller callers[NR_WAITERS],
				const struct call *even, const struct call *odd)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++) {
		const struct call *call = i % 2 ? odd : even;

		callers[i] = start_call(run, call, 0);
		is_waiting(&callers[i], call);
	}
}

/*
 * Checks
 */

/*
 * A load fails with ENOMEM or EFAULT for what the loader needs, and with EFAULT
 * if its arguments cannot be read.
 */
static bool may_fail(const struct fault *fault, int result)
{
	switch (fault->client) {
	case LOADER:
	case UNKNOWN:
		return result == -ENOMEM || result == -EFAULT;
	case ARGUMENTS:
		return result == -EFAULT;
	default:
		return false;
	}
}

static void expect_result(struct __test_metadata *_metadata, int want, int result,
			  const struct fault *fault)
{
	if (!may_fail(fault, result))
		EXPECT_EQ(want, result);
}

/* Only the requests that hold slots are pending, each with its helper. */
static void expect_nothing_behind(struct __test_metadata *_metadata,
				  struct run *run)
{
	char *text = read_text(PENDING, SIZE_MAX), *rest = text, *line;
	int loads = 0, requests = 0, waiters = 0;

	while ((line = strsep(&rest, "\n"))) {
		loads += !strncmp(line, "file\t", 5) || !strncmp(line, "module\t", 7);
		requests += !strncmp(line, "request\t", 8);
		waiters += !strncmp(line, "waiter\t", 7);
	}
	free(text);
	EXPECT_EQ(0, loads);
	EXPECT_EQ(run->nr_slots, requests);
	EXPECT_EQ(run->nr_slots, waiters);
	EXPECT_FALSE(is_loaded(MODULE_NAME));
	EXPECT_FALSE(is_loaded(USER_NAME));
}

/* A load without a fault succeeds. */
static void expect_loadable(struct __test_metadata *_metadata, struct run *run)
{
	EXPECT_EQ(0, do_load(&run->load));
	EXPECT_TRUE(is_live(MODULE_NAME));
	must_unload(MODULE_NAME);
}

/*
 * Loads of a module that is neither live nor pending
 */

static void attempt_first(struct __test_metadata *_metadata, struct run *run,
			  struct fault *fault, struct call call)
{
	struct caller caller = start_faulty_call(run, &call, fault);
	int result = reap_faulty_call(run, &caller, fault);

	expect_result(_metadata, 0, result, fault);
	EXPECT_EQ(!result, is_live(MODULE_NAME));
	must_unload(MODULE_NAME);
	close_call(&call);
	if (result && !is_quick())
		expect_loadable(_metadata, run);
}

static void finit_module(struct __test_metadata *_metadata, struct run *run,
			 struct fault *fault)
{
	struct load load = with_args(run->load, "tag=1");

	attempt_first(_metadata, run, fault, file_call(&load));
}

static void init_module(struct __test_metadata *_metadata, struct run *run,
			struct fault *fault)
{
	attempt_first(_metadata, run, fault, memory_call(&run->image, "tag=1"));
}

/* The next load of the file is recognised by its bytes, if they could be recorded. */
static void finit_module_compressed(struct __test_metadata *_metadata,
				    struct run *run, struct fault *fault)
{
	struct load load = with_args(run->compressed, "tag=1");
	struct call call = file_call(&load);
	struct caller caller = start_faulty_call(run, &call, fault);
	int result = reap_faulty_call(run, &caller, fault);
	unsigned long already_loaded = read_dedup_counter(ALREADY_LOADED);
	bool is_recorded;

	expect_result(_metadata, 0, result, fault);
	EXPECT_EQ(!result, is_live(MODULE_NAME));
	if (!result) {
		EXPECT_EQ(EEXIST, do_load(&run->compressed));
		already_loaded = read_dedup_counter(ALREADY_LOADED) - already_loaded;
		is_recorded = fault->client != DEDUP_ITSELF;
		/* Near the end, the record is all that deduplication allocates. */
		if (is_recorded || fault->is_near_end)
			EXPECT_EQ(is_recorded, already_loaded);
	}
	must_unload(MODULE_NAME);
	close_call(&call);
	if (result && !is_quick())
		expect_loadable(_metadata, run);
}

/*
 * Loads of a module that is live
 */

static void attempt_live(struct __test_metadata *_metadata, struct run *run,
			 struct fault *fault, const struct load *first, struct call call)
{
	struct caller caller;

	EXPECT_EQ(0, do_load(first));
	caller = start_faulty_call(run, &call, fault);
	expect_result(_metadata, -EEXIST, reap_faulty_call(run, &caller, fault), fault);
	EXPECT_TRUE(is_live(MODULE_NAME));
	must_unload(MODULE_NAME);
	close_call(&call);
}

static void finit_module_live(struct __test_metadata *_metadata, struct run *run,
			      struct fault *fault)
{
	attempt_live(_metadata, run, fault, &run->load, file_call(&run->load));
}

static void init_module_live(struct __test_metadata *_metadata, struct run *run,
			     struct fault *fault)
{
	attempt_live(_metadata, run, fault, &run->load, memory_call(&run->image, ""));
}

/* The module came from a plain file: only the loader can tell the name. */
static void finit_module_compressed_live(struct __test_metadata *_metadata,
					 struct run *run, struct fault *fault)
{
	attempt_live(_metadata, run, fault, &run->load, file_call(&run->compressed));
}

/* The module came from the same bytes. Without memory to tell, the loader decides. */
static void finit_module_same_bytes(struct __test_metadata *_metadata,
				    struct run *run, struct fault *fault)
{
	unsigned long already_loaded = read_dedup_counter(ALREADY_LOADED);

	attempt_live(_metadata, run, fault, &run->compressed, file_call(&run->compressed));
	if (fault->client == NOBODY)
		EXPECT_EQ(already_loaded + 1, read_dedup_counter(ALREADY_LOADED));
}

/*
 * Owners
 */

static void count_awaited(struct run *run, bool has_waiters, int result)
{
	run->nr_awaited += has_waiters;
	run->nr_failures += has_waiters && result;
}

/* The result of a load that has waited for another load of the same name. */
static int result_by_name(int owner)
{
	return owner ? -EBUSY : -EEXIST;
}

/*
 * A load from a file waits for a symbol. Waiters for the same file get its result,
 * waiters for its name get what follows from it. Without memory to own the file,
 * all wait for the name.
 */
static void finit_module_owner(struct __test_metadata *_metadata, struct run *run,
			       struct fault *fault)
{
	struct load exporter = with_args(run->load, "park=1");
	struct load user = { .path = run->user_path, .args = "" };
	struct call file = file_call(&user), memory = memory_call(&run->user_image, "");
	struct owner held = park_owner(&exporter, MODULE_NAME);
	struct caller waiters[NR_WAITERS], owner;
	bool has_waiters;
	int i, result;

	owner = start_faulty_call(run, &file, fault);
	has_waiters = is_waiting(&owner, &file);
	if (has_waiters)
		start_waiting_calls(run, waiters, &file, &memory);
	EXPECT_EQ(0, reap_owner(&held));
	result = reap_faulty_call(run, &owner, fault);
	count_awaited(run, has_waiters, result);
	expect_result(_metadata, 0, result, fault);
	for (i = 0; has_waiters && i < NR_WAITERS; i++) {
		int got = reap(&waiters[i]), by_name = result_by_name(result);

		if (fault->client != DEDUP_ITSELF || got != by_name)
			EXPECT_EQ(i % 2 ? by_name : result, got);
	}
	EXPECT_EQ(!result, is_live(USER_NAME));
	must_unload(USER_NAME);
	must_unload(MODULE_NAME);
	close_call(&file);
}

/* The image is followed by a page that is missing, behind all that is looked at. */
static struct call held_call(const struct image *image)
{
	size_t page = sysconf(_SC_PAGESIZE), len = (image->len + page - 1) / page * page;
	char *bytes = mmap(NULL, len + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (bytes == MAP_FAILED)
		die("mmap: %s\n", strerror(errno));
	memcpy(bytes, image->bytes, image->len);
	return (struct call){
		.nr = SYS_init_module,
		.args = { (long)bytes, len + page, (long)"" },
		.held_page = bytes + len,
	};
}

/*
 * A load from memory is held while it copies the image, before its module is in the
 * list. If it fails there, or if the name could not be claimed, the others go on as
 * without it: one succeeds, the others find the module live. If it fails later, all
 * of them fail.
 */
static void init_module_owner(struct __test_metadata *_metadata, struct run *run,
			      struct fault *fault)
{
	struct call held = held_call(&run->image), memory = memory_call(&run->image, "");
	struct call file = file_call(&run->load);
	struct caller waiters[NR_WAITERS], owner = start_faulty_call(run, &held, fault);
	bool has_waiters = is_waiting(&owner, &held), is_untracked;
	int i, result, successes, busy = 0;
	double begun = now();
	bool is_slow;

	if (has_waiters) {
		start_waiting_calls(run, waiters, &memory, &file);
		release_page(owner.pid, run->report.userfaultfd, held.held_page);
	}
	result = reap_faulty_call(run, &owner, fault);
	/* After 5 s, a waiter goes on if the module has not joined the list. */
	is_slow = now() - begun > 4;
	count_awaited(run, has_waiters, result);
	successes = !result;
	is_untracked = fault->client == DEDUP_ITSELF;
	if (!is_untracked || result != -EEXIST)
		expect_result(_metadata, 0, result, fault);
	for (i = 0; has_waiters && i < NR_WAITERS; i++) {
		int got = reap(&waiters[i]);

		successes += !got;
		busy += got == -EBUSY;
		if (got && got != -EBUSY)
			EXPECT_EQ(-EEXIST, got);
	}
	if (busy) {
		if (!is_slow)
			EXPECT_EQ(NR_WAITERS, busy);
		EXPECT_NE(0, result);
		EXPECT_FALSE(is_untracked);
	} else if (successes != NR_WAITERS / 2) {
		/* The loads of the file would share one success. */
		EXPECT_EQ(!result || has_waiters, successes);
	}
	EXPECT_EQ(!!successes, is_live(MODULE_NAME));
	must_unload(MODULE_NAME);
	munmap((void *)held.args[0], held.args[1]);
	close_call(&file);
}

/*
 * Waiters
 */

static void attempt_wait(struct __test_metadata *_metadata, struct run *run,
			 struct fault *fault, struct call call, int want)
{
	struct load load = with_args(run->load, "park=1");
	struct owner owner = park_owner(&load, MODULE_NAME);
	struct caller caller = start_faulty_call(run, &call, fault);
	int result;

	is_waiting(&caller, &call);
	EXPECT_TRUE(is_loaded(MODULE_NAME));
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&owner));
	result = reap_faulty_call(run, &caller, fault);
	/* Arguments that could not be copied are not those of the owner. */
	if (result == -EEXIST && (fault->client == ARGUMENTS || fault->client == UNKNOWN))
		want = -EEXIST;
	expect_result(_metadata, want, result, fault);
	EXPECT_TRUE(is_live(MODULE_NAME));
	must_unload(MODULE_NAME);
	close_call(&call);
}

static void finit_module_waiter(struct __test_metadata *_metadata, struct run *run,
				struct fault *fault)
{
	struct load load = with_args(run->load, "park=1");

	attempt_wait(_metadata, run, fault, file_call(&load), 0);
}

static void finit_module_other_args(struct __test_metadata *_metadata,
				    struct run *run, struct fault *fault)
{
	struct load load = with_args(run->load, "tag=2");

	attempt_wait(_metadata, run, fault, file_call(&load), -EEXIST);
}

static void finit_module_compressed_waiter(struct __test_metadata *_metadata,
					   struct run *run, struct fault *fault)
{
	attempt_wait(_metadata, run, fault, file_call(&run->compressed), -EEXIST);
}

static void init_module_waiter(struct __test_metadata *_metadata, struct run *run,
			       struct fault *fault)
{
	attempt_wait(_metadata, run, fault, memory_call(&run->image, "park=1"), -EEXIST);
}

/*
 * Requests
 */

/* Makes a new name: the kernel replays a success for a while. */
static void make_name(char name[32])
{
	static int number;

	snprintf(name, 32, "fault_%d_%d", getpid(), number++);
}

static struct call request_call(const char *name)
{
	int fd = open(REQUEST_DEVICE, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(REQUEST_DEVICE ": %s\n", strerror(errno));
	return (struct call){
		.nr = SYS_ioctl,
		.args = { fd, TEST_DEDUP_REQUEST, (long)name },
	};
}

static void request_module(struct __test_metadata *_metadata, struct run *run,
			   struct fault *fault)
{
	struct caller caller;
	struct call call;
	char name[32];
	int result;

	make_name(name);
	call = request_call(name);
	caller = start_faulty_call(run, &call, fault);
	result = reap_faulty_call(run, &caller, fault);
	expect_result(_metadata, 0, result, fault);
	EXPECT_EQ(!result, helper_calls(&run->helper, name));
	close_call(&call);
}

static void take_slots(struct run *run, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		struct slot *slot = &run->slots[i];

		make_name(slot->name);
		slot->fifo = hold_helpers(&run->helper, slot->name);
		slot->caller = start_request(slot->name, TEST_DEDUP_REQUEST);
	}
	for (i = 0; i < n; i++)
		wait_until(helper_calls(&run->helper, run->slots[i].name) == 1,
			   "%d of %d slots could not be taken\n", n - i, n);
	run->nr_slots += n;
}

/* Frees the first n slots. */
static void free_slots(struct run *run, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		struct slot *slot = &run->slots[i];
		int result;

		release_helper(slot->fifo, 0);
		result = reap(&slot->caller);
		if (result)
			die("the request for slot %d returned %d\n", i, result);
		unhold_helpers(&run->helper, slot->name, slot->fifo);
	}
	run->nr_slots -= n;
}

/*
 * All slots are taken, and the owner waits for one while the others arrive. They get
 * its result, unless it has no memory or gets no slot: one of them is the next owner.
 * If it could not be tracked, one of them needs a slot as well. If they arrived so
 * slowly that the owner gave up, nothing is said about the fault.
 */
static void request_module_owner(struct __test_metadata *_metadata, struct run *run,
				 struct fault *fault)
{
	struct caller waiters[NR_WAITERS], owner;
	bool has_waiters, has_timed_out;
	double start = now();
	int i, result, shared, calls;
	struct call call;
	char name[32];

	make_name(name);
	call = request_call(name);
	owner = start_faulty_call(run, &call, fault);
	has_waiters = is_waiting(&owner, &call);
	if (has_waiters)
		start_waiting_calls(run, waiters, &call, &call);
	has_timed_out = now() - start > SLOT_TIMEOUT_S - 1;
	free_slots(run, 2);
	result = reap_faulty_call(run, &owner, fault);
	count_awaited(run, has_waiters, result);
	if (!has_timed_out || result != -ETIME)
		expect_result(_metadata, 0, result, fault);
	shared = has_waiters && (result == -ENOMEM || result == -ETIME) ? 0 : result;
	for (i = 0; has_waiters && i < NR_WAITERS; i++)
		EXPECT_EQ(shared, reap(&waiters[i]));
	calls = helper_calls(&run->helper, name);
	if (fault->client != DEDUP_ITSELF || calls != 2)
		EXPECT_EQ(!shared, calls);
	close_call(&call);
	take_slots(run, 2);
}

static void request_module_waiter(struct __test_metadata *_metadata, struct run *run,
				  struct fault *fault)
{
	struct caller owner, caller;
	struct call call;
	char name[32];
	int fifo;

	make_name(name);
	fifo = hold_helpers(&run->helper, name);
	owner = start_first_request(&run->helper, name);
	call = request_call(name);
	caller = start_faulty_call(run, &call, fault);
	is_waiting(&caller, &call);
	release_helper(fifo, 0);
	EXPECT_EQ(0, reap(&owner));
	expect_result(_metadata, 0, reap_faulty_call(run, &caller, fault), fault);
	EXPECT_EQ(1, helper_calls(&run->helper, name));
	unhold_helpers(&run->helper, name, fifo);
	close_call(&call);
}

/*
 * Tests
 */

FIXTURE(faults)
{
	struct run run;
};

FIXTURE_VARIANT(faults)
{
	void (*attempt)(struct __test_metadata *_metadata, struct run *run, struct fault *fault);
	/*
	 * Deduplication fails at this many places at least. A read of user memory
	 * counts as one, however often it is called.
	 */
	unsigned int nr_places;
	bool is_owner, is_request;
	int nr_slots;	/* to take before */
};

FIXTURE_VARIANT_ADD(faults, finit_module) { .attempt = finit_module, .nr_places = 2 };

FIXTURE_VARIANT_ADD(faults, finit_module_compressed)
{
	.attempt = finit_module_compressed, .nr_places = 3
};

FIXTURE_VARIANT_ADD(faults, init_module) { .attempt = init_module, .nr_places = 2 };
FIXTURE_VARIANT_ADD(faults, finit_module_live) { .attempt = finit_module_live, .nr_places = 2 };

FIXTURE_VARIANT_ADD(faults, finit_module_compressed_live)
{
	.attempt = finit_module_compressed_live, .nr_places = 2
};

FIXTURE_VARIANT_ADD(faults, finit_module_same_bytes)
{
	.attempt = finit_module_same_bytes, .nr_places = 3
};

FIXTURE_VARIANT_ADD(faults, init_module_live) { .attempt = init_module_live, .nr_places = 2 };

FIXTURE_VARIANT_ADD(faults, finit_module_owner)
{
	.attempt = finit_module_owner, .nr_places = 2, .is_owner = true
};

FIXTURE_VARIANT_ADD(faults, init_module_owner)
{
	.attempt = init_module_owner, .nr_places = 2, .is_owner = true
};

FIXTURE_VARIANT_ADD(faults, finit_module_waiter) { .attempt = finit_module_waiter, .nr_places = 2 };

FIXTURE_VARIANT_ADD(faults, finit_module_other_args)
{
	.attempt = finit_module_other_args, .nr_places = 2
};

FIXTURE_VARIANT_ADD(faults, finit_module_compressed_waiter)
{
	.attempt = finit_module_compressed_waiter, .nr_places = 3
};

FIXTURE_VARIANT_ADD(faults, init_module_waiter) { .attempt = init_module_waiter, .nr_places = 3 };

FIXTURE_VARIANT_ADD(faults, request_module)
{
	.attempt = request_module, .nr_places = 3, .is_request = true
};

FIXTURE_VARIANT_ADD(faults, request_module_owner)
{
	.attempt = request_module_owner, .nr_places = 3, .is_request = true, .is_owner = true,
	.nr_slots = NR_SLOTS
};

FIXTURE_VARIANT_ADD(faults, request_module_waiter)
{
	.attempt = request_module_waiter, .nr_places = 2, .is_request = true
};

/* Without the settings: those come last, because only tear_down() restores them. */
static void set_up(struct run *run)
{
	struct image frame;

	unload_leftover(USER_NAME);
	unload_leftover(MODULE_NAME);
	run->image = read_module(MODULE_NAME);
	run->user_image = read_module(USER_NAME);
	frame = compress(&run->image);
	run->load.path = write_image(run->path, &run->image);
	run->load.args = "";
	run->compressed = with_flags(run->load, MODULE_INIT_COMPRESSED_FILE);
	run->compressed.path = write_image(run->compressed_path, &frame);
	write_image(run->user_path, &run->user_image);
	free_image(&frame);
	run->log = open_log();
}

static void tear_down(struct run *run)
{
	restore_settings(run->old_settings);
	unlink(run->path);
	unlink(run->compressed_path);
	unlink(run->user_path);
	unload_leftover(USER_NAME);
	unload_leftover(MODULE_NAME);
}

FIXTURE_SETUP(faults)
{
	set_up(&self->run);
	self->run.attempt = variant->attempt;
	if (variant->is_request) {
		install_helper(&self->run.helper);
		take_slots(&self->run, variant->nr_slots);
	}
	change_settings(self->run.old_settings);
}

FIXTURE_TEARDOWN_PARENT(faults)
{
	if (variant->is_request)
		remove_helper(&self->run.helper);
	tear_down(&self->run);
}

static void remember_place(struct run *run, const char *place)
{
	unsigned int i;

	for (i = 0; i < run->nr_places; i++)
		if (!strcmp(run->places[i], place))
			return;
	if (run->nr_places == MAX_PLACES)
		die("far more places in deduplication than expected\n");
	snprintf(run->places[run->nr_places++], PLACE_LEN, "%s", place);
	ksft_print_msg("in deduplication: %s\n", place);
}

/* Makes one attempt. Returns whether all has gone well so far. */
static bool try_fault(struct __test_metadata *_metadata, struct run *run, struct fault *fault)
{
	run->attempt(_metadata, run, fault);
	expect_nothing_behind(_metadata, run);
	run->hits[fault->client]++;
	if (fault->client == DEDUP_ITSELF)
		remember_place(run, fault->place);
	if (!_metadata->exit_code)
		return true;
	TH_LOG("fault %u was %s %s", fault->nth, client_names[fault->client], fault->place);
	return false;
}

/* Checks what a series of attempts leaves behind. */
static void finish_attempts(struct __test_metadata *_metadata, struct run *run)
{
	free_slots(run, run->nr_slots);
	expect_nothing_behind(_metadata, run);
	expect_loadable(_metadata, run);
	TH_LOG("%u faults in deduplication, %u in the arguments, %u in the loader, %u unknown",
	       run->hits[DEDUP_ITSELF], run->hits[ARGUMENTS], run->hits[LOADER],
	       run->hits[UNKNOWN]);
}

/* Only what the loader needs makes a call fail, and each call leaves nothing behind. */
TEST_F_TIMEOUT(faults, every_fault, TEST_LIMIT_S)
{
	struct run *run = &self->run;
	unsigned int nth = 1;
	struct fault fault;

	do {
		ASSERT_GT(MAX_NTH, nth);
		fault = (struct fault){ .nth = nth };
		if (!try_fault(_metadata, run, &fault))
			break;
		nth += 1 + (is_quick() && nth >= NR_QUICK ? nth / 2 : 0);
	} while (fault.client != NOBODY);

	/* Some owners have failed while others waited, and some have not. */
	if (variant->is_owner) {
		EXPECT_LT(0, run->nr_failures);
		EXPECT_LT(run->nr_failures, run->nr_awaited);
	}
	finish_attempts(_metadata, run);
}

/*
 * Tries the first chances in turn, until a call is through or enough places have
 * been seen. A slab cache that needs a new page is one more chance, in some calls
 * only and without a stack: a fault at an unknown place is tried again.
 */
static bool try_first(struct __test_metadata *_metadata, struct run *run,
		      unsigned int nr_places)
{
	struct fault fault = { };
	unsigned int nth, tries;

	for (nth = 1; nth <= NR_FIRST && run->nr_places < nr_places; nth++) {
		for (tries = 0; tries < 3; tries++) {
			fault = (struct fault){ .nth = nth };
			if (!try_fault(_metadata, run, &fault))
				return false;
			if (fault.client != UNKNOWN)
				break;
		}
		if (fault.client == NOBODY)
			break;
	}
	return true;
}

/* Tries the last chances, from the end. */
static bool try_last(struct __test_metadata *_metadata, struct run *run, unsigned int nr_places)
{
	struct fault fault = { .nth = MAX_NTH };
	unsigned int i, nr_chances;

	if (!try_fault(_metadata, run, &fault))
		return false;
	nr_chances = MAX_NTH - run->report.nr_remaining;
	for (i = 0; i < NR_LAST && i < nr_chances && run->nr_places < nr_places; i++) {
		fault = (struct fault){ .nth = nr_chances - i, .is_near_end = true };
		if (!try_fault(_metadata, run, &fault))
			return false;
	}
	return true;
}

/* Faults hit deduplication itself, at as many places as are known. */
TEST_F_TIMEOUT(faults, dedup_faults, TEST_LIMIT_S)
{
	struct run *run = &self->run;
	int round;

	for (round = 0; round < MAX_ROUNDS && run->nr_places < variant->nr_places; round++)
		if (!try_first(_metadata, run, variant->nr_places) ||
		    !try_last(_metadata, run, variant->nr_places))
			break;
	EXPECT_LE(variant->nr_places, run->nr_places);
	finish_attempts(_metadata, run);
}

/*
 * Counters
 */

FIXTURE(counted)
{
	struct run run;
};

FIXTURE_SETUP(counted)
{
	set_up(&self->run);
	change_settings(self->run.old_settings);
}

FIXTURE_TEARDOWN_PARENT(counted)
{
	tear_down(&self->run);
}

/* A load that finds no memory to be tracked is counted. */
TEST_F_TIMEOUT(counted, untracked, TEST_LIMIT_S)
{
	unsigned long before = read_dedup_counter(UNTRACKED);
	struct fault fault = { };

	self->run.attempt = finit_module;
	do
		fault.nth++;
	while (try_fault(_metadata, &self->run, &fault) && fault.nth < NR_FIRST &&
	       read_dedup_counter(UNTRACKED) == before);
	EXPECT_EQ(before + 1, read_dedup_counter(UNTRACKED));
}

/* Returns how many faults of that kind are still to come. */
static long remaining_faults(const char *path)
{
	char *text = read_text(path, SIZE_MAX);
	long faults = strtol(text, NULL, 10);

	free(text);
	return faults;
}

/* A load has a chance to fail of that kind, with or without a stack. */
static void expect_fault(struct __test_metadata *_metadata, struct run *run, const char *path)
{
	long before = remaining_faults(path);
	struct fault fault = { };

	run->attempt = init_module;
	do
		fault.nth++;
	while (try_fault(_metadata, run, &fault) && fault.nth < MAX_NTH &&
	       fault.client != NOBODY && remaining_faults(path) == before);
	EXPECT_EQ(before - 1, remaining_faults(path));
}

TEST_F_TIMEOUT(counted, failslab, TEST_LIMIT_S)
{
	expect_fault(_metadata, &self->run, FAULTS "failslab/times");
}

TEST_F_TIMEOUT(counted, fail_page_alloc, TEST_LIMIT_S)
{
	expect_fault(_metadata, &self->run, FAULTS "fail_page_alloc/times");
}

TEST_F_TIMEOUT(counted, fail_usercopy, TEST_LIMIT_S)
{
	expect_fault(_metadata, &self->run, FAULTS "fail_usercopy/times");
}

int main(int argc, char **argv)
{
	unsigned int i;

	if (is_helper(argc, argv))
		return run_helper(argv);

	need_stats();
	need_dedup();
	need_mode("full");
	need_file(FAIL_NTH, "CONFIG_FAULT_INJECTION");
	need_file(CACHES, CACHES);
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		need_file(settings[i].path, settings[i].path);
	return test_harness_run(argc, argv);
}
