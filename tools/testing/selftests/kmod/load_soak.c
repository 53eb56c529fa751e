// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once for a long time: loads of thirty modules from files, from
 * compressed files, from memory and by modprobe, with arguments, with init
 * functions that fail, and of modules that use each other; unloads; tasks that are
 * killed; readers of all debugfs files; CPUs that go offline; little memory.
 *
 * The result of a single call cannot be predicted; it must only be one that the
 * call can have. At the end, no load may be pending, each load must have been
 * counted once, and each module must be loadable.
 *
 * The soak runs once, in the first test. All tests judge what it has done.
 *
 * Environment, besides that of dedup_common.h:
 *   DEDUP_SECONDS  length of the soak
 *   DEDUP_SEED     seed of the random numbers
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "dedup_common.h"
#include "kselftest_harness.h"

#define NR_MODULES	30
#define NR_WORKERS	12
/* ENODATA, which nothing else returns */
#define FAIL_ARGS	"init_result=-61"
/* Longer than any soak: the harness must not end it. */
#define SOAK_LIMIT_S	(7 * 24 * 3600)
#define FOLDER		"/tmp/load_soak"

static struct {
	char name[MODULE_NAME_MAX + 1];
	struct image image;
	char path[PATH_MAX], compressed_path[PATH_MAX];
} modules[NR_MODULES];

enum event {
	/* Operations of workers */
	FINIT, FINIT_COMPRESSED, INIT, MODPROBE, UNLOAD,
	NR_OPERATIONS,
	/* What else is counted */
	UNLOAD_USED = NR_OPERATIONS, INIT_FAILED, KILL, CPU_OFFLINE, FILE_READ, MEMORY_FILLED,
	NR_EVENTS
};

static const char * const event_names[NR_EVENTS] = {
	[FINIT] = "finit_module",
	[FINIT_COMPRESSED] = "finit_module of a compressed file",
	[INIT] = "init_module",
	[MODPROBE] = "modprobe",
	[UNLOAD] = "delete_module",
	[UNLOAD_USED] = "delete_module of a module in use",
	[INIT_FAILED] = "failure of an init function",
	[KILL] = "kill of a call",
	[CPU_OFFLINE] = "CPU offline and online",
	[FILE_READ] = "read of a file",
	[MEMORY_FILLED] = "fill of the memory",
};

/* The soak: shared by the tests and by the processes of the soak. */
static struct {
	bool has_begun, is_complete;
	unsigned int seed;
	struct counters before;
	bool has_stopped_early;		/* because a worker has given up */
	int nr_failed_workers;
	int is_over;
	unsigned long events[NR_EVENTS];
} *soak;

static void count(enum event event)
{
	__atomic_add_fetch(&soak->events[event], 1, __ATOMIC_RELAXED);
}

static bool is_over(void)
{
	return __atomic_load_n(&soak->is_over, __ATOMIC_RELAXED);
}

/*
 * Modules
 */

/* Whether a module uses a symbol of the one before it. */
static bool is_user(int module)
{
	return module % 2;
}

static void set_module_name(char name[MODULE_NAME_MAX + 1], int module)
{
	snprintf(name, MODULE_NAME_MAX + 1, "soak%02d", module);
}

static void make_modules(void)
{
	struct image image = read_module(MODULE_NAME), user_image = read_module(USER_NAME);
	int i;

	for (i = 0; i < NR_MODULES; i++) {
		const struct image *original = is_user(i) ? &user_image : &image;
		struct image frame, copy = copy_image(original, original->len);

		set_module_name(modules[i].name, i);
		replace_string(&copy, ".gnu.linkonce.this_module",
			       is_user(i) ? USER_NAME : MODULE_NAME, modules[i].name);
		if (is_user(i))
			replace_string(&copy, ".strtab", EXPORTED, modules[i - 1].name);
		else
			set_symbol(&copy, modules[i].name);
		frame = compress(&copy);
		modules[i].image = copy;
		write_image(modules[i].path, &copy);
		write_image(modules[i].compressed_path, &frame);
		free_image(&frame);
	}
	free_image(&image);
	free_image(&user_image);
}

/*
 * Makes a root folder for modprobe. Besides the modules that use others, each module
 * depends softly on another one: module N on N / 2.
 */
static void make_modprobe_folder(void)
{
	struct utsname uts;
	FILE *conf;
	int i;

	uname(&uts);
	run_command("mkdir -p %s/lib/modules/%s %s/conf && ln -s . %s/usr", FOLDER, uts.release,
		    FOLDER, FOLDER);
	for (i = 0; i < NR_MODULES; i++)
		run_command("ln %s %s/lib/modules/%s/%s.ko", modules[i].path, FOLDER, uts.release,
			    modules[i].name);
	conf = fopen(FOLDER "/conf/soak.conf", "w");
	if (!conf)
		die("%s: %s\n", FOLDER, strerror(errno));
	for (i = 1; i < NR_MODULES; i++)
		fprintf(conf, "softdep %s pre: %s\n", modules[i].name, modules[i / 2].name);
	fclose(conf);
	run_command("depmod -b %s 2>/dev/null", FOLDER);
}

/*
 * Workers
 */

static int do_operation(enum event operation, int module)
{
	static const char * const args[] = { "", "tag=1", "tag=2", FAIL_ARGS };
	struct load load = { .args = args[rand() % ARRAY_SIZE(args)] };

	switch (operation) {
	case FINIT:
		load.path = modules[module].path;
		return do_load(&load);
	case FINIT_COMPRESSED:
		load.path = modules[module].compressed_path;
		load.flags = MODULE_INIT_COMPRESSED_FILE;
		return do_load(&load);
	case INIT:
		load.image = &modules[module].image;
		return do_load(&load);
	case MODPROBE:
		execlp("modprobe", "modprobe", "-q", "-d", FOLDER, "-C", FOLDER "/conf",
		       modules[module].name, NULL);
		_exit(127);
	default:
		return unload_module(modules[module].name);
	}
}

/* Whether a call can end like that, whatever the others do. */
static bool is_possible(int err)
{
	switch (err) {
	case 0:
	case EEXIST:
	case EBUSY:
	case EINTR:
	case ENODATA:
	case ENOENT:		/* no such module to unload, or no such symbol */
	case EWOULDBLOCK:	/* the module to unload is in use */
	case ENOMEM:
		return true;
	}
	return false;
}

/* Each operation has a process of its own, which may be killed at any time. */
static void work(unsigned int seed)
{
	srand(seed);
	while (!is_over()) {
		enum event operation = rand() % NR_OPERATIONS;
		/* Few modules at a time, so that loads meet. */
		int module = (time(NULL) / 2 * 7 + rand() % 4) % NR_MODULES;
		bool is_killed = rand() % 10 == 0;
		unsigned int delay = rand() % 30000;
		int status;
		pid_t pid;

		count(operation);
		pid = fork();
		if (pid < 0)
			continue;	/* no memory */
		if (!pid) {
			int err = do_operation(operation, module);

			if (err == EWOULDBLOCK)
				count(UNLOAD_USED);
			if (err == ENODATA)
				count(INIT_FAILED);
			_exit(is_possible(err) ? 0 : err);
		}
		if (is_killed) {
			usleep(delay);
			kill(pid, SIGKILL);
		}
		if (waitpid(pid, &status, 0) != pid)
			_exit(1);
		if (WIFSIGNALED(status) && is_killed)
			count(KILL);
		/* modprobe exits with 1 for any reason, and prints none without memory. */
		if (WIFEXITED(status) && WEXITSTATUS(status) && operation != MODPROBE) {
			printf("# %s of %s: %s\n", event_names[operation], modules[module].name,
			       strerror(WEXITSTATUS(status)));
			fflush(stdout);
			_exit(1);
		}
	}
}

/*
 * Disturbances
 */

static void read_all(unsigned int seed)
{
	while (!is_over()) {
		DIR *folder = opendir(STATS_DIR);
		struct dirent *entry;
		char path[PATH_MAX];

		while (folder && (entry = readdir(folder))) {
			char buf[997];
			int fd;

			snprintf(path, sizeof(path), STATS_DIR "%s", entry->d_name);
			fd = entry->d_type == DT_REG ? open(path, O_RDONLY | O_CLOEXEC) : -1;
			while (fd >= 0 && read(fd, buf, sizeof(buf)) > 0)
				;
			if (fd >= 0) {
				count(FILE_READ);
				close(fd);
			}
		}
		if (folder)
			closedir(folder);
		usleep(20000);
	}
}

static void plug_cpus(unsigned int seed)
{
	int cpu, cpus = sysconf(_SC_NPROCESSORS_CONF);
	char path[PATH_MAX];

	while (!is_over())
		for (cpu = 1; cpu < cpus; cpu++) {
			snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
			if (!write_to(path, "0")) {
				usleep(100000);
				if (!write_to(path, "1"))
					count(CPU_OFFLINE);
			}
			usleep(100000);
		}
}

/* Takes most of the available memory and returns it, again and again. */
static void fill_memory(void)
{
	size_t page = getpagesize();

	while (!is_over()) {
		size_t i, len = sysconf(_SC_AVPHYS_PAGES) * page / 10 * 8;
		char *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (bytes == MAP_FAILED)
			continue;
		for (i = 0; i < len && !is_over(); i += page)
			bytes[i] = 1;
		count(MEMORY_FILLED);
		munmap(bytes, len);
		usleep(500000);
	}
}

/* Out of memory, the kernel kills processes that fill the memory. Start them again. */
static void use_memory(unsigned int seed)
{
	while (!is_over()) {
		pid_t pid = fork();

		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (!write_to("/proc/self/oom_score_adj", "1000"))
				fill_memory();
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
		usleep(100000);
	}
}

/*
 * The soak
 */

static pid_t start(void (*function)(unsigned int seed), unsigned int seed)
{
	pid_t pid = fork_child();

	if (pid)
		return pid;
	function(seed);
	_exit(0);
}

/* Must increase, or the soak has missed what it is for. */
static const enum dedup_counter varied_counters[] = {
	PERFORMED, SAME_FILE, SAME_NAME, ALREADY_LOADED, FROM_MEMORY, ABORTED, WAITS,
	WAITS_INTERRUPTED,
};

static bool has_variety(void)
{
	struct counters change = counters_since(&soak->before);
	bool has = true;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(varied_counters); i++)
		has &= change.dedup[varied_counters[i]] > 0;
	for (i = 0; i < NR_EVENTS; i++)
		has &= soak->events[i] > 0;
	return has;
}

/*
 * Waits for a time, or longer until there was some of everything, or until a worker
 * gives up. Returns whether none did.
 */
static bool all_work(const pid_t *workers, int seconds)
{
	double end = now() + seconds;
	int i;

	while (now() < end || (now() < end + DEADLINE_S && !has_variety())) {
		for (i = 0; i < NR_WORKERS; i++)
			if (has_ended(workers[i]))
				return false;
		usleep(100000);
	}
	return true;
}

static void run_soak(int seconds)
{
	static void (*const disturbances[])(unsigned int seed) = {
		read_all, read_all, plug_cpus, use_memory, use_memory,
	};
	pid_t workers[NR_WORKERS], others[ARRAY_SIZE(disturbances)];
	unsigned int i;
	int status;

	for (i = 0; i < NR_WORKERS; i++)
		workers[i] = start(work, soak->seed + i);
	for (i = 0; i < ARRAY_SIZE(others); i++)
		others[i] = start(disturbances[i], 0);
	soak->has_stopped_early = !all_work(workers, seconds);
	__atomic_store_n(&soak->is_over, 1, __ATOMIC_RELAXED);
	for (i = 0; i < NR_WORKERS; i++) {
		wait_until(waitpid(workers[i], &status, WNOHANG), "a worker hangs\n");
		soak->nr_failed_workers += status != 0;
	}
	for (i = 0; i < ARRAY_SIZE(others); i++)
		wait_until(waitpid(others[i], &status, WNOHANG), "process %d hangs\n", others[i]);
	for (i = 0; i < NR_EVENTS; i++)
		ksft_print_msg("%s: %lu times\n", event_names[i], soak->events[i]);
}

/*
 * Tests
 */

FIXTURE(soak)
{
};

FIXTURE_SETUP(soak)
{
	const char *text = getenv("DEDUP_SECONDS");
	int seconds = text ? atoi(text) : is_quick() ? 10 : 60;

	use_own_tmp();
	make_modules();
	if (!soak->has_begun) {
		soak->has_begun = true;
		soak->before = read_counters();
		ksft_print_msg("DEDUP_SECONDS=%d DEDUP_SEED=%u\n", seconds, soak->seed);
		make_modprobe_folder();
		run_soak(seconds);
		soak->is_complete = true;
	}
	ASSERT_TRUE(soak->is_complete)
		TH_LOG("the soak has failed, see the first test");
}

FIXTURE_TEARDOWN_PARENT(soak)
{
	char name[MODULE_NAME_MAX + 1];
	int i;

	/* Users come after what they use. */
	for (i = NR_MODULES - 1; i >= 0; i--) {
		set_module_name(name, i);
		unload_leftover(name);
	}
}

/* No worker has seen a result that a call cannot have, and none hangs. */
TEST_F_TIMEOUT(soak, workers_succeed, SOAK_LIMIT_S)
{
	EXPECT_FALSE(soak->has_stopped_early);
	EXPECT_EQ(0, soak->nr_failed_workers);
}

/* Everything that should happen has happened. */
TEST_F_TIMEOUT(soak, variety, SOAK_LIMIT_S)
{
	struct counters change = counters_since(&soak->before);
	unsigned int i;

	for (i = 0; i < NR_EVENTS; i++) {
		EXPECT_LT(0, soak->events[i])
			TH_LOG("no %s", event_names[i]);
	}
	for (i = 0; i < ARRAY_SIZE(varied_counters); i++) {
		enum dedup_counter counter = varied_counters[i];

		EXPECT_LT(0, change.dedup[counter])
			TH_LOG("%s has not increased", dedup_counter_names[counter]);
	}
}

/* The kernel completes the loads of tasks that were killed. */
TEST_F_TIMEOUT(soak, nothing_pending, SOAK_LIMIT_S)
{
	wait_until(is_idle(), "loads are pending forever\n");
	EXPECT_TRUE(is_idle());
}

/* Each load that has begun has one end. */
TEST_F_TIMEOUT(soak, counters, SOAK_LIMIT_S)
{
	static const enum dedup_counter ends[] = {
		PERFORMED, SAME_FILE, SAME_NAME, ALREADY_LOADED, FROM_MEMORY, ABORTED,
	};
	struct counters counters;
	unsigned long sum = 0;
	unsigned int i;

	wait_until(is_idle(), "loads are pending forever\n");
	counters = read_counters();
	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		ksft_print_msg("%s: %lu\n", dedup_counter_names[ends[i]], counters.dedup[ends[i]]);
		sum += counters.dedup[ends[i]];
	}
	EXPECT_EQ(counters.dedup[LOADS], sum);
}

TEST_F_TIMEOUT(soak, modules_loadable, SOAK_LIMIT_S)
{
	int i;

	for (i = 0; i < NR_MODULES; i++) {
		struct load load = { .path = modules[i].path, .args = "" };

		EXPECT_EQ(0, do_load(&load))
			TH_LOG("%s", modules[i].name);
		EXPECT_TRUE(is_live(modules[i].name));
	}
	for (i = NR_MODULES - 1; i >= 0; i--)
		must_unload(modules[i].name);
}

int main(int argc, char **argv)
{
	const char *seed = getenv("DEDUP_SEED");

	need_stats();
	need_dedup();
	soak = alloc_shared(sizeof(*soak));
	soak->seed = seed ? strtoul(seed, NULL, 0) : time(NULL);
	return test_harness_run(argc, argv);
}
