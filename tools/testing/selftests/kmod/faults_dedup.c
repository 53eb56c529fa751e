// SPDX-License-Identifier: GPL-2.0
/*
 * Loads and requests for which the kernel finds no memory, or cannot reach that
 * of the caller: once at the first place where that can happen, once at the
 * second, and so on, until a call is through before its turn comes.
 *
 * Each of them ends, and leaves nothing behind. It may fail for what the loader
 * needs, but not for what deduplication allocates. The stack that the kernel
 * logs of each failure says which of these it was: the innermost function is
 * looked for that belongs to either. To count the failures of a kernel with
 * module.dedup=none, and to subtract, would need both to do the same in all
 * else, which they do not.
 *
 * What has __GFP_NOWARN fails without a word. In deduplication, that is only the
 * copy of the arguments; without it, C makes its own.
 *
 * The owner of a load is held where it can be held: one from memory while it
 * copies the image, in a page that is not there yet; one from a file while it
 * waits for a symbol of another module, which is held by its init function; a
 * request while it waits for one of the slots for modprobe. An owner that fails
 * before that has nobody who waits for it.
 *
 * Needs a kernel with fault injection (failslab, fail_page_alloc,
 * fail_usercopy), and module.dedup=full.
 *
 * Usage: faults_dedup [FOLDER OF THE TEST MODULES]
 */
#include <dirent.h>

#include "dedup_request.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define FAULTS		"/sys/kernel/debug/"
#define CACHES		"/sys/kernel/slab/"
#define NR_WAITERS	8
/* MAX_KMOD_CONCURRENT */
#define NR_SLOTS	50
/* MAX_KMOD_ALL_BUSY_TIMEOUT */
#define SLOT_TIMEOUT_S	5
/* Several times as many chances to fail as any call has. */
#define MAX_NTH		5000
/* How many of the last of them are taken where deduplication is to have one. */
#define LAST_TRIED	24
/* Where compressed files are remembered, by what they are on. */
#define XFS		"/tmp/xfs"
/* More than there are up to the last one in deduplication, but for the last in a request. */
#define NTH_OF_DEDUP	32
#define MAX_ROUNDS	5
/* Where there is little time, all up to this are tried nevertheless. */
#define NTH_TRIED	12

static struct image image, user_image;
static char *file, *user_file, *compressed_file;

/*
 * Faults
 */

/* More faults than there are, of which each kind counts its own down. */
#define MANY_FAULTS	"1000000000"

static struct setting {
	const char *path, *value;
	char *old;
} settings[] = {
	{ FAULTS "failslab/times", MANY_FAULTS },
	{ FAULTS "fail_page_alloc/times", MANY_FAULTS },
	{ FAULTS "fail_usercopy/times", MANY_FAULTS },
	/* So that allocations fail that may sleep, and those of single pages. */
	{ FAULTS "failslab/ignore-gfp-wait", "N" },
	{ FAULTS "failslab/cache-filter", "Y" },
	{ FAULTS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ FAULTS "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ FAULTS "fail_page_alloc/min-order", "0" },
	/* The stacks are looked at. */
	{ FAULTS "failslab/verbose", "2" },
	{ FAULTS "fail_page_alloc/verbose", "2" },
	{ FAULTS "fail_usercopy/verbose", "2" },
	/* A load that fails waits for RCU, more than once. */
	{ "/sys/kernel/rcu_expedited", "1" },
};

/*
 * All allocations may fail but those that debugging makes of its own, for each of the
 * others or now and then: these fail in vain, and in every call at another place.
 */
static void select_caches(const char *value)
{
	static const char * const not_selected[] = { "kmemleak", "debug_objects" };
	DIR *dir = opendir(CACHES);
	struct dirent *entry;
	char path[PATH_MAX];
	unsigned int i;

	if (!dir)
		ksft_exit_skip("there is no " CACHES "\n");
	while ((entry = readdir(dir))) {
		for (i = 0; i < ARRAY_SIZE(not_selected); i++)
			if (!strncmp(entry->d_name, not_selected[i], strlen(not_selected[i])))
				break;
		if (i < ARRAY_SIZE(not_selected) || entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), CACHES "%s/failslab", entry->d_name);
		if (write_to(path, value) && errno != ENOENT)
			ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	}
	closedir(dir);
}

static void prepare_faults(void)
{
	unsigned int i;

	if (access(FAIL_NTH, F_OK))
		ksft_exit_skip("needs CONFIG_FAULT_INJECTION\n");
	select_caches("1");
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (access(settings[i].path, F_OK))
			ksft_exit_skip("there is no %s\n", settings[i].path);
	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		settings[i].old = read_text(settings[i].path, SIZE_MAX);
		if (write_to(settings[i].path, settings[i].value))
			ksft_exit_fail_msg("%s cannot be set\n", settings[i].path);
	}
}

/* Whether there were faults of each kind, also of those that are not logged. */
static void test_kinds(void)
{
	static const char * const kinds[] = { "failslab", "fail_page_alloc", "fail_usercopy" };
	char path[PATH_MAX];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		char *left;

		snprintf(path, sizeof(path), FAULTS "%s/times", kinds[i]);
		left = read_text(path, SIZE_MAX);
		ksft_test_result(atoi(left) > 0 && atoi(left) < atoi(MANY_FAULTS),
				 "%s: %d faults\n", kinds[i], atoi(MANY_FAULTS) - atoi(left));
		free(left);
	}
}

static void restore_settings(void)
{
	unsigned int i;

	select_caches("0");
	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		write_to(settings[i].path, settings[i].old);
		free(settings[i].old);
	}
}

/* For whom the kernel did not find what it needed. */
enum client {
	NOBODY,		/* the call was through before that */
	UNKNOWN,	/* nothing was logged */
	LOADER,		/* or whatever else C does in such a call */
	ARGUMENTS,	/* the copy of the arguments from user space */
	DEDUP_ITSELF,
	NR_CLIENTS,
};

static const char * const client_names[] = {
	"nowhere", "unknown", "in the loader", "in the arguments", "in deduplication",
};

/* The nth chance to fail is taken. */
struct fault {
	unsigned int nth;
	enum client client;
	char place[256];	/* in deduplication: a function, and an offset into it */
};

/*
 * What the functions of a client have in their names. What C and Rust call of
 * each other begins with module_dedup_; what Rust compiles has the name of the
 * crate in it. The first that fits counts. If copy_args() is inlined one day, its
 * failures count as those of deduplication, and the test says so.
 */
static const struct {
	const char *part;
	enum client client;
} functions[] = {
	{ " load_module+", LOADER },
	{ " init_module_from_", LOADER },
	{ " module_dedup_modprobe+", LOADER },
	{ "5image9copy_args", ARGUMENTS },
	{ " module_dedup_", DEDUP_ITSELF },
	{ " module_patient_check_exists+", DEDUP_ITSELF },
	{ "_5dedup", DEDUP_ITSELF },
};

static int kernel_log;

static void forget_log(void)
{
	if (lseek(kernel_log, 0, SEEK_END) < 0)
		ksft_exit_fail_msg("/dev/kmsg: %s\n", strerror(errno));
}

/* For whom the fault was, by the stack in the log. */
static void find_client(struct fault *fault)
{
	bool is_in_stack = false;
	char record[8192];
	unsigned int i;
	ssize_t len;

	fault->client = UNKNOWN;
	while ((len = read(kernel_log, record, sizeof(record) - 1)) > 0) {
		record[len] = '\0';
		if (strstr(record, "FAULT_INJECTION: forcing a failure")) {
			is_in_stack = true;
			fault->client = LOADER;
		}
		/* What the unwinder is not sure of is marked. */
		if (!is_in_stack || strstr(record, " ? "))
			continue;
		for (i = 0; i < ARRAY_SIZE(functions); i++) {
			if (strstr(record, functions[i].part)) {
				fault->client = functions[i].client;
				if (sscanf(record, "%*[^;];%255s", fault->place) != 1)
					ksft_exit_fail_msg("/dev/kmsg: %s\n", record);
				return;
			}
		}
	}
	if (len < 0 && errno != EAGAIN)
		ksft_exit_fail_msg("/dev/kmsg: %s\n", strerror(errno));
}

/*
 * Calls
 */

/* A system call that is ready to be made. */
struct call {
	long nr;
	long args[3];
	void *held_page;	/* not there, and what the call waits for */
};

/* What the process that makes the call tells us. */
static struct {
	bool was_hit;
	unsigned int left;	/* of the chances that were to pass before the fault */
	int userfaultfd;
} *shared;

static struct call load_file(const char *path, const char *args, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	return (struct call){ .nr = SYS_finit_module, .args = { fd, (long)args, flags } };
}

static struct call load_memory(const struct image *from, const char *args)
{
	return (struct call){
		.nr = SYS_init_module,
		.args = { (long)from->bytes, from->len, (long)args },
	};
}

static void end_call(const struct call *call)
{
	if (call->nr != SYS_init_module)
		close(call->args[0]);
}

/*
 * Starts a process that makes a call, in which the nth chance to fail is taken, or
 * none if nth is 0. Its result is what the call returns, or -errno.
 */
static struct caller start_call(const struct call *call, unsigned int nth)
{
	struct caller c = fork_caller();
	char text[16];
	long result;
	int fd;

	if (c.pid)
		return c;
	fd = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	if (call->held_page)
		shared->userfaultfd = hold_page(call->held_page);
	if (fd < 0 || shared->userfaultfd < 0)
		_exit(1);
	/* What is written to after the call is not to be paged in then. */
	*c.result = 0;
	errno = 0;
	if (nth && write(fd, text, snprintf(text, sizeof(text), "%u", nth)) < 0)
		_exit(1);
	result = syscall(call->nr, call->args[0], call->args[1], call->args[2]);
	if (result < 0)
		result = -errno;
	/* This can fail itself, if it is the next chance. */
	if (nth) {
		ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

		shared->left = len > 0 ? strtoul(text, NULL, 10) : 0;
		shared->was_hit = len > 0 && !shared->left;
		pwrite(fd, "0", 1, 0);
	}
	*c.result = result;
	_exit(0);
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = { };

	return !waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

/* Waits until a call waits for others, or has ended; returns whether it waits. */
static bool is_waiting(const struct caller *c, long nr)
{
	char state = nr == SYS_ioctl ? 'D' : 'S';

	wait_until(has_arrived(c->pid, nr, state) || has_ended(c->pid),
		   "process %d did not arrive\n", c->pid);
	return !has_ended(c->pid);
}

/* Starts the one call of an attempt that a fault is for. */
static struct caller start_faulty_call(const struct call *call, struct fault *fault)
{
	shared->was_hit = false;
	forget_log();
	return start_call(call, fault->nth);
}

/* Waits for its end: its result, and what failed. */
static int finish_faulty_call(const struct caller *c, struct fault *fault)
{
	int result = finish(c);

	fault->client = NOBODY;
	if (shared->was_hit)
		find_client(fault);
	return result;
}

/*
 * Checks
 */

/*
 * Whether a call may end like that. What the loader does not get fails the load
 * for lack of memory, or for a bad address; arguments that cannot be read fail it
 * for the latter.
 */
static bool is_clean(int got, int want, enum client client)
{
	if ((client == LOADER || client == UNKNOWN) && got == -ENOMEM)
		return true;
	if (client != DEDUP_ITSELF && client != NOBODY && got == -EFAULT)
		return true;
	return is_result("the call", got, want);
}

/* Requests that are held, and are in flight all the time: each with a helper. */
static int nr_held;

static bool nothing_is_left(void)
{
	char *text = read_text(PENDING, SIZE_MAX), *copy = strdup(text), *rest = copy, *line;
	int requests = 0, helpers = 0;
	bool ok = true;

	while ((line = strsep(&rest, "\n"))) {
		requests += !strncmp(line, "request\t", 8);
		helpers += !strncmp(line, "waits_for\t", 10);
		ok &= strncmp(line, "file\t", 5) && strncmp(line, "module\t", 7);
	}
	ok &= requests == nr_held && helpers == nr_held;
	if (!ok)
		ksft_print_msg("%d requests are held, and this is pending:\n%s", nr_held, text);
	free(text);
	free(copy);
	if (is_loaded(MODULE_NAME) || is_loaded(USER_NAME)) {
		ksft_print_msg("a module is still there\n");
		ok = false;
	}
	return ok;
}

static bool can_be_loaded(void)
{
	struct load load = { .path = file, .args = "" };
	bool ok = is_result("an undisturbed load", -do_load(&load), 0);

	must_unload(MODULE_NAME);
	return ok;
}

/* The places in deduplication that faults were at. */
static struct {
	char *places[16];
	unsigned int len;
} seen;

static void see(const char *place)
{
	unsigned int i;

	for (i = 0; i < seen.len; i++)
		if (!strcmp(seen.places[i], place))
			return;
	if (seen.len == ARRAY_SIZE(seen.places))
		ksft_exit_fail_msg("far more places in deduplication than there are\n");
	seen.places[seen.len++] = strdup(place);
	ksft_print_msg("in deduplication: %s\n", place);
}

static void forget_seen(void)
{
	while (seen.len)
		free(seen.places[--seen.len]);
}

static unsigned int next_nth(unsigned int nth, bool all_places_seen)
{
	if (is_quick() && nth >= (all_places_seen ? NTH_TRIED : NTH_OF_DEDUP))
		nth += nth / 2;
	return nth + 1;
}

/* Whether all went well with a call, and so many places in deduplication had a fault. */
static void tell(const char *name, bool ok, const unsigned int hits[NR_CLIENTS],
		 unsigned int places)
{
	ksft_print_msg("%u faults in deduplication, %u in the arguments, %u unknown\n",
		       hits[DEDUP_ITSELF], hits[ARGUMENTS], hits[UNKNOWN]);
	ksft_test_result(ok, "%s: only what the loader needs fails it, and does so cleanly\n",
			 name);
	ksft_test_result(seen.len >= places, "%s: %u places in deduplication had a fault\n",
			 name, places);
	forget_seen();
}

/*
 * Makes a call again and again, with a fault each, until it is through before that.
 * The faults are to be at so many places in deduplication, or nothing was said
 * about it.
 *
 * A new page for a cache is one more chance to fail, which comes in some calls only,
 * and without a word. So an unknown fault is tried again, and what was missed even so
 * is looked for in another round.
 *
 * Where there is little time, ever fewer faults are tried once all these places
 * were seen: what follows is mostly C's.
 */
static void test_faults(const char *name, bool (*attempt)(struct fault *fault),
			unsigned int places)
{
	unsigned int hits[NR_CLIENTS] = { }, last = 0, calls = 0, round;
	double begun = now();
	bool ok = true;

	for (round = 0; ok && round < MAX_ROUNDS && (!round || seen.len < places); round++) {
		struct fault fault = { .nth = 1 };
		unsigned int unknown = 0;

		do {
			ok = fault.nth < MAX_NTH && attempt(&fault) && nothing_is_left();
			calls++;
			hits[fault.client]++;
			if (fault.client == DEDUP_ITSELF)
				see(fault.place);
			if (!ok)
				ksft_print_msg("that was fault %u, %s\n", fault.nth,
					       client_names[fault.client]);
			if (fault.client == UNKNOWN && seen.len < places && unknown++ < 2)
				continue;
			unknown = 0;
			if (fault.nth > last)
				last = fault.nth;
			fault.nth = next_nth(fault.nth, seen.len >= places);
		} while (ok && fault.client != NOBODY && (!round || fault.nth <= NTH_OF_DEDUP));
	}
	ok &= can_be_loaded();
	ksft_print_msg("%s: %u calls, %u chances to fail, %.1f s\n", name, calls,
		       last ? last - 1 : 0, now() - begun);
	tell(name, ok, hits, places);
}

/*
 * The same from the last chance to fail backwards, for what deduplication allocates when
 * a load is over.
 */
static void test_last_faults(const char *name, bool (*attempt)(struct fault *fault),
			     unsigned int places)
{
	unsigned int hits[NR_CLIENTS] = { }, round, back;
	bool ok = true;

	for (round = 0; ok && round < MAX_ROUNDS && (!round || seen.len < places); round++) {
		struct fault fault = { .nth = MAX_NTH };
		unsigned int chances;

		ok = attempt(&fault) && nothing_is_left();
		/* The next one would have been the first that is not there. */
		chances = MAX_NTH - shared->left;
		for (back = 0; ok && back < LAST_TRIED && back < chances; back++) {
			fault.nth = chances - back;
			ok = attempt(&fault) && nothing_is_left();
			hits[fault.client]++;
			if (fault.client == DEDUP_ITSELF)
				see(fault.place);
			if (!ok)
				ksft_print_msg("that was fault %u of %u, %s\n", fault.nth, chances,
					       client_names[fault.client]);
		}
	}
	ok &= can_be_loaded();
	tell(name, ok, hits, places);
}

/*
 * Alone
 */

static bool attempt_load(struct call call, struct fault *fault)
{
	struct caller c = start_faulty_call(&call, fault);
	int got = finish_faulty_call(&c, fault);
	bool ok = is_clean(got, 0, fault->client) && is_live(MODULE_NAME) == !got;

	must_unload(MODULE_NAME);
	end_call(&call);
	if (got && !is_quick())
		ok &= can_be_loaded();
	return ok;
}

static bool file_alone(struct fault *fault)
{
	return attempt_load(load_file(file, "tag=1", 0), fault);
}

static bool compressed_alone(struct fault *fault)
{
	return attempt_load(load_file(compressed_file, "tag=1", MODULE_INIT_COMPRESSED_FILE),
			    fault);
}

/* Whether the file was remembered is to be seen only by what a later load costs. */
static bool remembered(struct fault *fault)
{
	struct load late = { .path = compressed_file, .args = "",
			     .flags = MODULE_INIT_COMPRESSED_FILE };
	struct call call = load_file(compressed_file, "tag=1", MODULE_INIT_COMPRESSED_FILE);
	struct caller c = start_faulty_call(&call, fault);
	int got = finish_faulty_call(&c, fault);
	bool ok = is_clean(got, 0, fault->client) && is_live(MODULE_NAME) == !got;
	unsigned long saved = read_dedup("late");

	if (!got) {
		ok &= is_result("a late load", do_load(&late), EEXIST);
		saved = read_dedup("late") - saved;
		ok &= is_result("late loads that cost nothing", saved,
				fault->client != DEDUP_ITSELF);
	}
	must_unload(MODULE_NAME);
	end_call(&call);
	return ok;
}

static bool memory_alone(struct fault *fault)
{
	return attempt_load(load_memory(&image, "tag=1"), fault);
}

/* A load of a module that is live finds that out, or fails for what it needs for that. */
static bool attempt_late(struct call call, struct fault *fault)
{
	struct load load = { .path = file, .args = "" };
	bool ok = is_result("first load", -do_load(&load), 0);
	struct caller c = start_faulty_call(&call, fault);

	ok &= is_clean(finish_faulty_call(&c, fault), -EEXIST, fault->client);
	ok &= is_live(MODULE_NAME);
	must_unload(MODULE_NAME);
	end_call(&call);
	return ok;
}

static bool file_late(struct fault *fault)
{
	return attempt_late(load_file(file, "", 0), fault);
}

static bool compressed_late(struct fault *fault)
{
	return attempt_late(load_file(compressed_file, "", MODULE_INIT_COMPRESSED_FILE), fault);
}

static bool memory_late(struct fault *fault)
{
	return attempt_late(load_memory(&image, ""), fault);
}

/*
 * Owners
 */

/* Calls with a fault that others waited for, and those of them that failed. */
static struct {
	unsigned int calls, failures;
} waited_for;

static void see_waiters(bool has_waiters, int result)
{
	waited_for.calls += has_waiters;
	waited_for.failures += has_waiters && result;
}

static void test_owner(const char *name, bool (*attempt)(struct fault *fault),
		       unsigned int places)
{
	memset(&waited_for, 0, sizeof(waited_for));
	test_faults(name, attempt, places);
	ksft_test_result(waited_for.failures && waited_for.failures < waited_for.calls,
			 "%s: others waited for %u calls, of which %u failed\n", name,
			 waited_for.calls, waited_for.failures);
}

/* Starts waiters, of two kinds in turn. */
static void start_waiters(struct caller waiters[NR_WAITERS], const struct call *even,
			  const struct call *odd)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++) {
		const struct call *call = i % 2 ? odd : even;

		waiters[i] = start_call(call, 0);
		is_waiting(&waiters[i], call->nr);
	}
}

/* What those get who waited for a load of the same name. */
static int result_by_name(int owner)
{
	return owner ? -EBUSY : -EEXIST;
}

/*
 * From a file. Who has the same gets the owner's result, whatever that is; who has
 * the name only, what follows from that. Where there was no memory to own the file,
 * nobody can wait for that, and all wait for the name.
 */
static bool file_owner(struct fault *fault)
{
	struct call same = load_file(user_file, "", 0), memory = load_memory(&user_image, "");
	struct load needed = { .path = file, .args = "park=1" };
	struct owner parked = park_by_init(&needed, MODULE_NAME);
	struct caller waiters[NR_WAITERS], owner = start_faulty_call(&same, fault);
	bool has_waiters = is_waiting(&owner, same.nr), ok;
	int i, got;

	if (has_waiters)
		start_waiters(waiters, &same, &memory);
	ok = is_result("the module with the symbol", -finish_owner(&parked), 0);
	got = finish_faulty_call(&owner, fault);
	see_waiters(has_waiters, got);
	ok &= is_clean(got, 0, fault->client);
	for (i = 0; has_waiters && i < NR_WAITERS; i++) {
		int result = finish(&waiters[i]), by_name = result_by_name(got);

		if (fault->client != DEDUP_ITSELF || result != by_name)
			ok &= is_result("a waiter", result, i % 2 ? by_name : got);
	}
	ok &= is_live(USER_NAME) == !got;
	must_unload(USER_NAME);
	must_unload(MODULE_NAME);
	end_call(&same);
	return ok;
}

/* An image in which there is a page that is not, behind what is looked at. */
static struct call load_held(void)
{
	size_t page = sysconf(_SC_PAGESIZE), len = (image.len + page - 1) / page * page;
	char *bytes = mmap(NULL, len + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (bytes == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	memcpy(bytes, image.bytes, image.len);
	return (struct call){
		.nr = SYS_init_module,
		.args = { (long)bytes, len + page, (long)"" },
		.held_page = bytes + len,
	};
}

/*
 * From memory. Where there was no memory to claim the name, or it could not be
 * peeked, nobody waits for this load, and another one is first: as without
 * deduplication, one of them succeeds, and the others find the module there. So it is
 * where the owner fails before its module is in the list; if it fails later, all do.
 */
static bool memory_owner(struct fault *fault)
{
	struct call call = load_held(), memory = load_memory(&image, "");
	struct call other = load_file(file, "", 0);
	struct caller waiters[NR_WAITERS], owner = start_faulty_call(&call, fault);
	bool has_waiters = is_waiting(&owner, call.nr), ok, is_own;
	int i, got, successes, busy = 0;

	if (has_waiters) {
		start_waiters(waiters, &memory, &other);
		release_page(owner.pid, shared->userfaultfd, call.held_page);
	}
	got = finish_faulty_call(&owner, fault);
	see_waiters(has_waiters, got);
	successes = !got;
	is_own = fault->client == DEDUP_ITSELF;
	ok = (is_own && got == -EEXIST) || is_clean(got, 0, fault->client);
	for (i = 0; has_waiters && i < NR_WAITERS; i++) {
		int result = finish(&waiters[i]);

		successes += !result;
		busy += result == -EBUSY;
		if (result && result != -EBUSY)
			ok &= is_result("a waiter", result, -EEXIST);
	}
	if (busy)
		ok &= is_result("waiters for what failed", busy, NR_WAITERS) && got && !is_own;
	/* Those from the file share a result. */
	else if (successes != NR_WAITERS / 2)
		ok &= is_result("loads that succeeded", successes, !got || has_waiters);
	ok &= is_live(MODULE_NAME) == !!successes;
	must_unload(MODULE_NAME);
	munmap((void *)call.args[0], call.args[1]);
	end_call(&other);
	return ok;
}

/*
 * Waiters
 */

static bool attempt_wait(struct call call, int want, struct fault *fault)
{
	struct load load = { .path = file, .args = "park=1" };
	struct owner owner = park_by_init(&load, MODULE_NAME);
	struct caller c = start_faulty_call(&call, fault);
	bool ok;
	int got;

	is_waiting(&c, call.nr);
	ok = is_loaded(MODULE_NAME) && !is_live(MODULE_NAME);
	ok &= is_result("the owner", -finish_owner(&owner), 0);
	got = finish_faulty_call(&c, fault);
	/* Arguments that could not be copied are others than those of the owner. */
	if (got == -EEXIST && (fault->client == ARGUMENTS || fault->client == UNKNOWN))
		want = -EEXIST;
	ok &= is_clean(got, want, fault->client);
	ok &= is_live(MODULE_NAME);
	must_unload(MODULE_NAME);
	end_call(&call);
	return ok;
}

static bool file_waiter(struct fault *fault)
{
	return attempt_wait(load_file(file, "park=1", 0), 0, fault);
}

static bool memory_waiter(struct fault *fault)
{
	return attempt_wait(load_memory(&image, "park=1"), -EEXIST, fault);
}

/*
 * Requests
 */

/* Another one than ever before: what has succeeded is not requested again for a while. */
static void make_name(char name[32])
{
	static int number;

	snprintf(name, 32, "fault_%d", number++);
}

static struct call request_call(const char *name)
{
	int fd = open(REQUEST_DEVICE, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		ksft_exit_fail_msg(REQUEST_DEVICE ": %s\n", strerror(errno));
	return (struct call){
		.nr = SYS_ioctl,
		.args = { fd, TEST_DEDUP_REQUEST, (long)name },
	};
}

static bool request_alone(struct fault *fault)
{
	struct caller c;
	struct call call;
	char name[32];
	int got;

	make_name(name);
	call = request_call(name);
	c = start_faulty_call(&call, fault);
	got = finish_faulty_call(&c, fault);
	end_call(&call);
	return is_clean(got, 0, fault->client) &&
	       is_result("calls of modprobe", helper_calls(name), !got);
}

/* A request whose helper is held, with one of the slots for modprobe. */
struct slot {
	char name[32];
	struct caller caller;
	int fifo;
};

/* Takes slots that nobody else has. */
static void take_slots(struct slot *to_take, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		make_name(to_take[i].name);
		to_take[i].fifo = hold_helpers(to_take[i].name);
		to_take[i].caller = start_request(to_take[i].name, TEST_DEDUP_REQUEST);
	}
	for (i = 0; i < n; i++)
		wait_until(helper_calls(to_take[i].name) == 1, "a slot could not be taken\n");
	nr_held += n;
}

static void leave_slots(struct slot *taken, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		release_helper(taken[i].fifo, 0);
		if (finish(&taken[i].caller))
			ksft_exit_fail_msg("a request for a slot failed\n");
		unhold_helpers(taken[i].name, taken[i].fifo);
	}
	nr_held -= n;
}

/* All that there are. */
static struct slot slots[NR_SLOTS];

/*
 * All slots are taken, and the owner waits for one, for SLOT_TIMEOUT_S at most, while
 * the others arrive. They get its result. Where there was no memory to be waited for,
 * there are two who need a slot. Where they were too late, nothing is said about faults.
 */
static bool request_owner(struct fault *fault)
{
	struct caller waiters[NR_WAITERS], owner;
	bool has_waiters, is_late, ok;
	double begun = now();
	struct call call;
	int i, got, calls;
	char name[32];

	make_name(name);
	call = request_call(name);
	owner = start_faulty_call(&call, fault);
	has_waiters = is_waiting(&owner, call.nr);
	if (has_waiters)
		start_waiters(waiters, &call, &call);
	is_late = now() - begun > SLOT_TIMEOUT_S - 1;
	leave_slots(slots, 2);
	got = finish_faulty_call(&owner, fault);
	see_waiters(has_waiters, got);
	ok = (is_late && got == -ETIME) || is_clean(got, 0, fault->client);
	for (i = 0; has_waiters && i < NR_WAITERS; i++)
		ok &= is_result("a waiter", finish(&waiters[i]), got);
	calls = helper_calls(name);
	if (fault->client != DEDUP_ITSELF || calls != 2)
		ok &= is_result("calls of modprobe", calls, !got);
	end_call(&call);
	take_slots(slots, 2);
	return ok;
}

static bool request_waiter(struct fault *fault)
{
	struct caller owner, c;
	struct call call;
	char name[32];
	int fifo;
	bool ok;

	make_name(name);
	fifo = hold_helpers(name);
	owner = start_first_request(name);
	call = request_call(name);
	c = start_faulty_call(&call, fault);
	is_waiting(&c, call.nr);
	release_helper(fifo, 0);
	ok = is_result("the owner", finish(&owner), 0);
	ok &= is_clean(finish_faulty_call(&c, fault), 0, fault->client);
	ok &= is_result("calls of modprobe", helper_calls(name), 1);
	unhold_helpers(name, fifo);
	end_call(&call);
	return ok;
}

static void test_requests(char **argv)
{
	setup_requests(argv);
	test_faults("request_module, alone", request_alone, 3);
	test_faults("request_module, waiter", request_waiter, 2);
	take_slots(slots, NR_SLOTS);
	test_owner("request_module, owner", request_owner, 3);
	leave_slots(slots, NR_SLOTS);
	cleanup_requests();
}

/* A read of user memory in peek.rs counts as one place, and fails at each of its calls. */
static void test_loads(void)
{
	unsigned long alone = read_dedup("alone");

	test_faults("finit_module, alone", file_alone, 2);
	ksft_test_result(read_dedup("alone") > alone, "a load that finds no memory is counted\n");
	test_faults("finit_module, compressed, alone", compressed_alone, 2);
	test_faults("init_module, alone", memory_alone, 2);
	test_faults("finit_module, late", file_late, 2);
	test_faults("finit_module, compressed, late", compressed_late, 2);
	test_faults("init_module, late", memory_late, 2);
	test_owner("finit_module, owner", file_owner, 2);
	test_owner("init_module, owner", memory_owner, 2);
	test_faults("finit_module, waiter", file_waiter, 2);
	test_faults("init_module, waiter", memory_waiter, 3);
}

/* On a file system by which a compressed file can be remembered. */
static void test_remembered(const struct image *frame)
{
	char *elsewhere = compressed_file;

	if (!mount_xfs(XFS)) {
		ksft_test_result_skip("needs XFS on /dev/ram0, and mkfs.xfs\n");
		ksft_test_result_skip("the same\n");
		return;
	}
	compressed_file = write_image_to(XFS, frame);
	test_last_faults("finit_module, compressed on XFS, remembered", remembered, 1);
	unlink(compressed_file);
	free(compressed_file);
	compressed_file = elsewhere;
	umount2(XFS, MNT_DETACH);
}

int main(int argc, char **argv)
{
	struct image frame;
	char path[PATH_MAX];

	if (is_helper(argc, argv))
		return be_helper(argv);

	ksft_print_header();
	need_root_and_stats();
	if (access(DEDUP, F_OK) || access(DEDUP_MODE, F_OK))
		ksft_exit_skip("needs CONFIG_MODULE_DEDUP_RUST\n");
	if (!file_says(DEDUP_MODE, "full\n"))
		ksft_exit_skip("needs module.dedup=full\n");
	prepare_faults();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	module_path(path, argv, MODULE_NAME);
	image = read_image(path);
	file = write_image(&image);
	frame = compress(&image);
	compressed_file = write_image(&frame);
	module_path(path, argv, USER_NAME);
	user_image = read_image(path);
	user_file = write_image(&user_image);
	must_unload(USER_NAME);
	must_unload(MODULE_NAME);
	kernel_log = open_log();

	ksft_set_plan(2 * 14 + 1 + 3 + 3);
	test_loads();
	test_remembered(&frame);
	test_requests(argv);
	test_kinds();
	restore_settings();
	unlink(file);
	unlink(compressed_file);
	unlink(user_file);
	ksft_finished();
}
