// SPDX-License-Identifier: GPL-2.0
/*
 * Deadlocks of module loads: an init function requests a module, and modprobe
 * ends up waiting for the load that waits for this modprobe. The kernel detects
 * the wait that would complete such a cycle and fails it with -EDEADLK. All
 * other waits continue, also after a signal, and are visible in the debugfs file
 * "pending", in the kernel log and as trace events.
 *
 * The modules are copies of test_dedup under other names. The kernel runs the
 * system's modprobe through a script that logs its PID and gives it a root
 * directory with these modules and a configuration of its own.
 *
 * A kernel without CONFIG_MODULE_DEDUP_RUST does not detect deadlocks. One test
 * shows that a load hangs there; all others are skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "dedup_common.h"
#include "kselftest_harness.h"

#define MODPROBE	"/proc/sys/kernel/modprobe"
#define TRACEFS		"/sys/kernel/tracing"
#define TRACE		TRACEFS "/trace"
#define TRACE_ENABLE	TRACEFS "/events/module_dedup/enable"
/* Only with CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS. */
#define DUPS_TRACE	"/sys/module/module/parameters/enable_dups_trace"

/* Name of this program in the kernel's messages. */
#define SELF		"deadlock"
#define DEADLOCK	"deadlock detected, failing the wait with -EDEADLK"
#define LONG_WAIT	" has been waiting for "

/* Time limit for helpers to exit once a test is over. */
#define EXIT_LIMIT_S	30
/* Time limit for processes that load many modules. */
#define MANY_LIMIT_S	800
/* Between the messages about a long wait, which come after 30 s and after 90 s. */
#define LONG_WAIT_S	62
/* A load that takes longer hangs. */
#define HANG_S		5

#define NR_LETTERS	3
#define NR_CHAIN	50
#define NR_LOADERS	64
#define NR_NESTED	8
#define NR_WAITERS	4

/* What request_module() returns if modprobe exits with that code. */
#define EXITED(code)	((code) << 8)

/* A copy of test_dedup under another name. */
struct test_module {
	char name[8];
	char path[PATH_MAX];
	struct image image;
};

/* A root directory for modprobe, with modules, configuration, logs and programs. */
struct root {
	char dir[64];
	char old_modprobe[PATH_MAX];
	struct test_module modules[NR_LETTERS + NR_CHAIN];
	struct test_module *wa, *wb, *wc;	/* the first modules */
	struct test_module *chain;		/* the others, named w0, w1, ... */
	int nr_modules;
	unsigned long deadlocks;		/* the counter at the last configure() */
};

static void root_path(char path[PATH_MAX], const struct root *root, const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", root->dir, name);
}

/*
 * Logs in the root directory: each line is a word and a number
 */

/* Adds a line with one write(2). Exits on failure. */
static void log_number(const struct root *root, const char *log, const char *word, int number)
{
	char path[PATH_MAX], line[80];
	int fd, len = snprintf(line, sizeof(line), "%s %d\n", word, number);

	root_path(path, root, log);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || write(fd, line, len) != len)
		_exit(255);
	close(fd);
}

/*
 * Returns the number in the nth line that begins with @word, or in the last such
 * line if @nth is 0. Returns -1 if there is none.
 */
static int nth_number(const struct root *root, const char *log, const char *word, int nth)
{
	char path[PATH_MAX], *text, *rest, *line;
	int number = -1, count = 0;
	size_t len = strlen(word);

	root_path(path, root, log);
	text = read_text(path, SIZE_MAX);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		if (!strncmp(line, word, len) && line[len] == ' ' && (!nth || ++count == nth))
			number = atoi(line + len);
	free(text);
	return number;
}

/* Returns the PID of the nth modprobe since configure(), or -1. */
static pid_t nth_helper(const struct root *root, int nth)
{
	return nth_number(root, "helpers", "modprobe", nth);
}

static pid_t last_helper(const struct root *root)
{
	return nth_helper(root, 0);
}

/* Returns the result of the last load by run_loader(). */
static int last_result(const struct root *root, const char *how)
{
	return nth_number(root, "results", how, 0);
}

/*
 * Loads by this program, which install commands of modprobe run as
 * DIR/load HOW NAME [ARGS]
 */

static bool is_loader(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');

	return slash && !strcmp(slash, "/load") && (argc == 3 || argc == 4);
}

static void *load_in_thread(void *load)
{
	return (void *)(long)do_load(load);
}

/*
 * Loads a module and logs the result. HOW is "init" for init_module(2). Otherwise
 * it is finit_module(2): "finit", by another thread ("thread"), or once the
 * parent has exited ("orphan").
 */
static int run_loader(char **argv)
{
	const char *how = argv[1], *name = argv[2];
	char path[PATH_MAX], file[80];
	struct load load = { .path = path, .args = argv[3] ?: "" };
	struct image image;
	struct root root;
	pthread_t thread;
	void *result;
	int err;

	/* argv[0] is a link in the root directory. */
	snprintf(root.dir, sizeof(root.dir), "%s", argv[0]);
	*strrchr(root.dir, '/') = '\0';
	snprintf(file, sizeof(file), "modules/%s.ko", name);
	root_path(path, &root, file);
	log_number(&root, "helpers", how, getpid());

	if (!strcmp(how, "init")) {
		image = read_image(path);
		load = (struct load){ .image = &image, .args = load.args };
	}
	while (!strcmp(how, "orphan") && getppid() != 1)
		usleep(1000);
	if (!strcmp(how, "thread")) {
		if (pthread_create(&thread, NULL, load_in_thread, &load) ||
		    pthread_join(thread, &result))
			return 255;
		err = (long)result;
	} else {
		err = do_load(&load);
	}
	log_number(&root, "results", how, err);
	return err;
}

/*
 * The root directory
 */

static void write_root_file(const struct root *root, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	root_path(path, root, name);
	f = fopen(path, "we");
	if (!f || fputs(text, f) < 0 || fclose(f))
		die("%s: %s\n", path, strerror(errno));
}

/* Replaces the configuration of modprobe and empties the logs. */
static __printf(2, 3) void configure(struct root *root, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	if (vsnprintf(text, sizeof(text), format, args) >= (int)sizeof(text))
		die("the configuration is too long\n");
	va_end(args);
	write_root_file(root, "modprobe.d/deadlock.conf", text);
	write_root_file(root, "helpers", "");
	write_root_file(root, "results", "");
	if (has_dedup())
		root->deadlocks = read_dedup_counter(DEADLOCKS);
}

static void add_module(struct root *root, const struct image *image, const char *name)
{
	struct test_module *module = &root->modules[root->nr_modules++];
	char path[PATH_MAX], file[80];

	snprintf(module->name, sizeof(module->name), "%s", name);
	unload_leftover(module->name);
	module->image = copy_image(image, image->len);
	set_name(image, &module->image, module->name);
	set_symbol(&module->image, module->name);

	snprintf(file, sizeof(file), "modules/%s.ko", module->name);
	root_path(path, root, file);
	memcpy(module->path, path, sizeof(path));
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	overwrite(path, &module->image);
}

static void add_modules(struct root *root, int nr_chain)
{
	struct image image = read_module(MODULE_NAME);
	char name[8];
	int i;

	for (i = 0; i < NR_LETTERS + nr_chain; i++) {
		if (i < NR_LETTERS)
			snprintf(name, sizeof(name), "w%c", 'a' + i);
		else
			snprintf(name, sizeof(name), "w%d", i - NR_LETTERS);
		add_module(root, &image, name);
	}
	free_image(&image);
	root->wa = &root->modules[0];
	root->wb = &root->modules[1];
	root->wc = &root->modules[2];
	root->chain = &root->modules[NR_LETTERS];
}

/*
 * Makes a root directory with wa, wb, wc and @nr_chain other modules, and makes
 * the kernel run modprobe on it.
 *
 * The directory is a tmpfs, because stat(2) and the kernel report different
 * devices for a file of an overlay. Newer versions of modprobe search usr/lib.
 */
static void make_root(struct root *root, int nr_chain)
{
	char exe[PATH_MAX], path[PATH_MAX], text[512], *old;
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	int err;

	snprintf(root->dir, sizeof(root->dir), "/tmp/deadlock.XXXXXX");
	if (len < 0 || !mkdtemp(root->dir) || mount("tmpfs", root->dir, "tmpfs", 0, NULL))
		die("%s: %s\n", root->dir, strerror(errno));
	run_command("cd %s && mkdir -p modprobe.d lib/modules/$(uname -r)", root->dir);
	run_command("cd %s && ln -s . usr && ln -s lib/modules/$(uname -r) modules", root->dir);
	exe[len] = '\0';
	root_path(path, root, "load");
	if (symlink(exe, path))
		die("%s: %s\n", path, strerror(errno));
	add_modules(root, nr_chain);
	run_command("depmod -b %s 2>/dev/null", root->dir);
	configure(root, "%s", "");

	snprintf(text, sizeof(text),
		 "#!/bin/sh\n"
		 "echo modprobe $$ >>%s/helpers\n"
		 "exec modprobe -d %s -C %s/modprobe.d \"$@\"\n",
		 root->dir, root->dir, root->dir);
	write_root_file(root, "modprobe", text);
	root_path(path, root, "modprobe");
	old = read_text(MODPROBE, SIZE_MAX);
	snprintf(root->old_modprobe, sizeof(root->old_modprobe), "%s", old);
	free(old);
	err = chmod(path, 0755) ? errno : write_to(MODPROBE, path);
	if (err)
		die("%s: %s\n", MODPROBE, strerror(err));
}

/* Returns whether a process has not exited. It need not be a child. */
static bool is_running(pid_t pid)
{
	char path[64], exe[PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return readlink(path, exe, sizeof(exe)) >= 0;
}

/* Returns the PID of a modprobe or loader that has not exited, or 0. */
static pid_t find_running_helper(const struct root *root)
{
	char path[PATH_MAX], *text, *rest, *line;
	pid_t pid, found = 0;

	root_path(path, root, "helpers");
	text = read_text(path, SIZE_MAX);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		/* A loader in a PID namespace of its own has logged 1. */
		if (sscanf(line, "%*s %d", &pid) == 1 && pid > 1 && is_running(pid))
			found = pid;
	free(text);
	return found;
}

/*
 * Waits until all helpers have exited and no load is pending, and unloads the
 * modules. Kills helpers that hang. Returns false if something did hang.
 */
static bool clean_up(const struct root *root)
{
	double limit = now() + EXIT_LIMIT_S;
	pid_t pid, killed = 0;
	bool ok = true;
	int i;

	while ((pid = find_running_helper(root)) || !is_idle()) {
		if (now() > limit && pid) {
			if (pid != killed)
				ksft_print_msg("helper %d hangs\n", pid);
			kill(pid, SIGKILL);
			killed = pid;
			ok = false;
		} else if (now() > limit + EXIT_LIMIT_S) {
			ksft_print_msg("a load is still pending\n");
			ok = false;
			break;
		}
		usleep(1000);
	}
	for (i = 0; i < root->nr_modules; i++)
		must_unload(root->modules[i].name);
	return ok;
}

/* Undoes make_root(), also after an aborted test. Returns the result of clean_up(). */
static bool remove_root(const struct root *root)
{
	bool ok;

	write_to(MODPROBE, root->old_modprobe);
	ok = clean_up(root);
	if (umount(root->dir) || rmdir(root->dir))
		die("%s: %s\n", root->dir, strerror(errno));
	return ok;
}

/*
 * Loads
 */

static struct load from_file(const struct test_module *module, const char *args)
{
	return (struct load){ .path = module->path, .args = args };
}

static struct load from_memory(const struct test_module *module, const char *args)
{
	return (struct load){ .image = &module->image, .args = args };
}

/* Returns n if the first n of wa, wb, wc are live and the rest are not loaded, else -1. */
static int count_live(const struct root *root)
{
	int i, n = 0;

	while (n < NR_LETTERS && is_live(root->modules[n].name))
		n++;
	for (i = n; i < NR_LETTERS; i++)
		if (is_loaded(root->modules[i].name))
			return -1;
	return n;
}

/* Returns how many deadlocks the kernel has detected since configure(). */
static unsigned long count_deadlocks(const struct root *root)
{
	return read_dedup_counter(DEADLOCKS) - root->deadlocks;
}

/* Returns what request_module() returned to the init function of a module. */
static int result_of_request(const struct test_module *module)
{
	char path[PATH_MAX], *text;
	int result;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/request_result", module->name);
	if (access(path, F_OK))
		return -ENOENT;
	text = read_text(path, SIZE_MAX);
	result = atoi(text);
	free(text);
	return result;
}

/*
 * Checks that a load by a new process succeeds, how many modules it leaves live,
 * and how many deadlocks the kernel detects.
 */
static void check_load(struct __test_metadata *_metadata, const struct root *root,
		       struct load load, int nr_live, unsigned long nr_deadlocks)
{
	struct caller caller = start_load(&load);

	EXPECT_EQ(0, reap(&caller));
	EXPECT_EQ(nr_live, count_live(root));
	EXPECT_EQ(nr_deadlocks, count_deadlocks(root));
}

static void park_path(char path[PATH_MAX], const struct test_module *module)
{
	snprintf(path, PATH_MAX, "/sys/module/%s/parameters/park", module->name);
}

/* Waits until modprobe loads a module with park=1. */
static void wait_until_parked(const struct test_module *module)
{
	char path[PATH_MAX];

	park_path(path, module);
	wait_until(!access(path, F_OK), "%s could not be parked\n", module->name);
}

/* Releases a parked module. Returns 0 or an errno. */
static int unpark(const struct test_module *module)
{
	char path[PATH_MAX];

	park_path(path, module);
	return write_to(path, "0");
}

/* Stores what the kernel shows for the file of a module: device and inode. */
static void file_text(char text[80], const struct test_module *module)
{
	struct stat st;

	if (stat(module->path, &st))
		die("%s: %s\n", module->path, strerror(errno));
	snprintf(text, 80, "%u:%u:%llu", major(st.st_dev), minor(st.st_dev),
		 (unsigned long long)st.st_ino);
}

/*
 * Cycles: one wait fails, and all modules become live
 */

FIXTURE(cycle)
{
	struct root root;
};

FIXTURE_SETUP(cycle)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	make_root(&self->root, 0);
}

FIXTURE_TEARDOWN_PARENT(cycle)
{
	EXPECT_TRUE(remove_root(&self->root));
}

/*
 * A module that requests itself is live within a second. A busy system may delay
 * one load, but not all of them.
 */
TEST_F_TIMEOUT(cycle, request_of_itself, TEST_LIMIT_S)
{
	struct load load = from_file(self->root.wa, "request=req_wa");
	int i, tries = is_quick() ? 1 : 5;
	double took = DEADLINE_S;

	for (i = 0; i < tries && took > 1; i++) {
		struct caller caller;
		double start;

		configure(&self->root, "alias req_wa wa\n");
		start = now();
		caller = start_load(&load);
		EXPECT_EQ(0, reap(&caller));
		took = now() - start;
		TH_LOG("the load took %.3f s", took);
		EXPECT_EQ(1, count_live(&self->root));
		EXPECT_EQ(EXITED(1), result_of_request(self->root.wa));
		EXPECT_EQ(1, count_deadlocks(&self->root));
		ASSERT_TRUE(clean_up(&self->root));
	}
	if (!is_quick())
		EXPECT_GT(1, took);
}

/* One message shows the cycle. */
TEST_F_TIMEOUT(cycle, logged, TEST_LIMIT_S)
{
	struct load load = from_file(self->root.wa, "request=req_wa");
	int log = open_log(), detailed_log = open_log();
	char message[512], file[80];
	struct caller caller;
	pid_t helper;

	configure(&self->root, "alias req_wa wa\n");
	caller = start_load(&load);
	EXPECT_EQ(0, reap(&caller));
	helper = last_helper(&self->root);
	file_text(file, self->root.wa);
	snprintf(message, sizeof(message),
		 DEADLOCK "; modprobe[%d] waits for file %s of " SELF "[%d]; "
		 SELF "[%d], which loads module wa, waits for request req_wa of its helper %d\n",
		 helper, file, caller.pid, caller.pid, helper);
	EXPECT_EQ(1, count_in_log(log, "deadlock detected"));
	EXPECT_EQ(1, count_in_log(detailed_log, message))
		TH_LOG("no message: %s", message);
}

static const char two_modules[] =
	"alias req_wa wa\n"
	"alias req_wb wb\n"
	"options wa request=req_wb\n"
	"options wb request=req_wa\n";

TEST_F_TIMEOUT(cycle, two_modules, TEST_LIMIT_S)
{
	configure(&self->root, "%s", two_modules);
	check_load(_metadata, &self->root, from_file(self->root.wa, "request=req_wb"), 2, 1);
	EXPECT_EQ(0, result_of_request(self->root.wa));
	EXPECT_EQ(EXITED(1), result_of_request(self->root.wb));
}

/* Both loads are pending before either module requests the other one. */
TEST_F_TIMEOUT(cycle, two_loads, TEST_LIMIT_S)
{
	struct load loads[] = {
		from_file(self->root.wa, "request=req_wb park=1"),
		from_file(self->root.wb, "request=req_wa park=1"),
	};
	struct owner a, b;

	configure(&self->root, "%s", two_modules);
	a = park_owner(&loads[0], self->root.wa->name);
	b = park_owner(&loads[1], self->root.wb->name);
	release_owner(&a);
	release_owner(&b);
	EXPECT_EQ(0, reap(&a.caller));
	EXPECT_EQ(0, reap(&b.caller));
	EXPECT_EQ(2, count_live(&self->root));
	EXPECT_EQ(1, count_deadlocks(&self->root));
}

/* Each of two processes loads both modules, in opposite order. */
TEST_F_TIMEOUT(cycle, two_racing_processes, TEST_LIMIT_S)
{
	struct load loads[] = {
		from_file(self->root.wa, "request=req_wb"),
		from_file(self->root.wb, "request=req_wa"),
	};
	int round, i, j, nr_rounds = is_quick() ? 3 : 10;
	struct caller callers[2];

	for (round = 0; round < nr_rounds && !_metadata->exit_code; round++) {
		configure(&self->root, "%s", two_modules);
		for (i = 0; i < 2; i++) {
			callers[i] = fork_caller();
			if (callers[i].pid)
				continue;
			*callers[i].result = 0;
			for (j = 0; j < 2; j++) {
				int err = do_load(&loads[i ^ j]);

				if (err && err != EEXIST)
					*callers[i].result = err;
			}
			_exit(0);
		}
		EXPECT_EQ(0, reap_all(callers, 2, 1, 0));
		EXPECT_EQ(2, count_live(&self->root));
		EXPECT_TRUE(clean_up(&self->root));
	}
}

TEST_F_TIMEOUT(cycle, three_modules, TEST_LIMIT_S)
{
	configure(&self->root,
		  "alias req_wa wa\n"
		  "alias req_wb wb\n"
		  "alias req_wc wc\n"
		  "options wb request=req_wc\n"
		  "options wc request=req_wa\n");
	check_load(_metadata, &self->root, from_file(self->root.wa, "request=req_wb"), 3, 1);
	EXPECT_EQ(0, result_of_request(self->root.wa));
	EXPECT_EQ(0, result_of_request(self->root.wb));
	EXPECT_EQ(EXITED(1), result_of_request(self->root.wc));
}

/* The modprobe that waits descends from the kernel's modprobe. */
TEST_F_TIMEOUT(cycle, through_shell, TEST_LIMIT_S)
{
	configure(&self->root, "install via_sh sh -c '%s/modprobe wa; exit 0'\n", self->root.dir);
	check_load(_metadata, &self->root, from_file(self->root.wa, "request=via_sh"), 1, 1);
	EXPECT_EQ(0, result_of_request(self->root.wa));
}

TEST_F_TIMEOUT(cycle, modprobe_in_init_module, TEST_LIMIT_S)
{
	configure(&self->root, "alias req_wa wa\n");
	check_load(_metadata, &self->root, from_memory(self->root.wa, "request=req_wa"), 1, 1);
	EXPECT_EQ(EXITED(1), result_of_request(self->root.wa));
}

/* The second request is a duplicate of the first one and waits for it. */
TEST_F_TIMEOUT(cycle, duplicate_request, TEST_LIMIT_S)
{
	if (access(DUPS_TRACE, F_OK))
		SKIP(return, "needs CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS");
	configure(&self->root,
		  "alias reqx wb\n"
		  "options wb request=reqx\n");
	check_load(_metadata, &self->root, from_file(self->root.wa, "request=reqx"), 2, 1);
	EXPECT_EQ(0, result_of_request(self->root.wa));
	EXPECT_EQ(-EDEADLK, result_of_request(self->root.wb));
}

/* The init function of wa requests an install command that loads wa. */
FIXTURE(nested_load)
{
	struct root root;
};

FIXTURE_VARIANT(nested_load)
{
	bool from_memory;	/* the outer load */
	const char *prefix;	/* of the install command */
	const char *how;	/* see run_loader() */
};

FIXTURE_VARIANT_ADD(nested_load, init_in_finit) { .how = "init" };
FIXTURE_VARIANT_ADD(nested_load, init_in_init) { .from_memory = true, .how = "init" };
FIXTURE_VARIANT_ADD(nested_load, finit_in_init) { .from_memory = true, .how = "finit" };
FIXTURE_VARIANT_ADD(nested_load, pid_namespace) { .prefix = "unshare -p -f", .how = "finit" };
FIXTURE_VARIANT_ADD(nested_load, thread) { .how = "thread" };

FIXTURE_SETUP(nested_load)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	make_root(&self->root, 0);
}

FIXTURE_TEARDOWN_PARENT(nested_load)
{
	EXPECT_TRUE(remove_root(&self->root));
}

TEST_F_TIMEOUT(nested_load, edeadlk, TEST_LIMIT_S)
{
	static const char args[] = "request=via_load";
	struct load load = variant->from_memory ? from_memory(self->root.wa, args) :
						  from_file(self->root.wa, args);

	configure(&self->root, "install via_load %s %s/load %s wa\n", variant->prefix ?: "",
		  self->root.dir, variant->how);
	check_load(_metadata, &self->root, load, 1, 1);
	EXPECT_EQ(EXITED(1), result_of_request(self->root.wa));
	EXPECT_EQ(EDEADLK, last_result(&self->root, variant->how));
}

/*
 * Killed processes: the others finish, and all modules can be loaded again
 */

FIXTURE(killed)
{
	struct root root;
};

FIXTURE_SETUP(killed)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	make_root(&self->root, 0);
}

FIXTURE_TEARDOWN_PARENT(killed)
{
	EXPECT_TRUE(remove_root(&self->root));
}

static const char parked_wb[] =
	"alias req_wb wb\n"
	"alias also_wb wb\n"
	"options wb park=1\n";

/* Starts a load of wa; returns when its helper is held in the init function of wb. */
static struct caller start_parked(struct root *root, pid_t *helper)
{
	struct load load = from_file(root->wa, "request=req_wb");
	struct caller caller;

	configure(root, "%s", parked_wb);
	caller = start_load(&load);
	wait_until_parked(root->wb);
	*helper = last_helper(root);
	return caller;
}

static void check_load_again(struct __test_metadata *_metadata, struct root *root)
{
	EXPECT_TRUE(clean_up(root));
	configure(root, "alias req_wb wb\n");
	check_load(_metadata, root, from_file(root->wa, "request=req_wb"), 2, 0);
	EXPECT_EQ(0, result_of_request(root->wa));
}

TEST_F_TIMEOUT(killed, helper, TEST_LIMIT_S)
{
	pid_t helper;
	struct caller caller = start_parked(&self->root, &helper);

	kill(helper, SIGKILL);
	EXPECT_EQ(0, reap(&caller));
	EXPECT_EQ(1, count_live(&self->root));
	EXPECT_EQ(SIGKILL, result_of_request(self->root.wa));
	EXPECT_EQ(0, count_deadlocks(&self->root));
	check_load_again(_metadata, &self->root);
}

TEST_F_TIMEOUT(killed, load_that_waits_for_helper, TEST_LIMIT_S)
{
	pid_t helper;
	struct caller caller = start_parked(&self->root, &helper);

	kill(caller.pid, SIGKILL);
	EXPECT_EQ(KILLED, reap(&caller));
	EXPECT_TRUE(is_loaded(self->root.wb->name));
	EXPECT_FALSE(is_live(self->root.wb->name));
	EXPECT_EQ(0, unpark(self->root.wb));
	EXPECT_EQ(0, count_deadlocks(&self->root));
	check_load_again(_metadata, &self->root);
}

TEST_F_TIMEOUT(killed, helper_that_waits_for_helper, TEST_LIMIT_S)
{
	struct load load = from_file(self->root.wc, "request=also_wb");
	pid_t helper, second;
	struct caller first = start_parked(&self->root, &helper);
	struct caller other = start_load(&load);

	wait_until((second = last_helper(&self->root)) != helper &&
		   has_arrived(second, SYS_finit_module, 'S'), "the helper of wc does not wait\n");
	kill(second, SIGKILL);
	EXPECT_EQ(0, reap(&other));
	EXPECT_TRUE(is_live(self->root.wc->name));
	EXPECT_EQ(SIGKILL, result_of_request(self->root.wc));
	EXPECT_EQ(0, unpark(self->root.wb));
	EXPECT_EQ(0, reap(&first));
	EXPECT_EQ(3, count_live(&self->root));
	EXPECT_EQ(0, result_of_request(self->root.wa));
	EXPECT_EQ(0, count_deadlocks(&self->root));
	check_load_again(_metadata, &self->root);
}

/*
 * Kills one process of a cycle at a random time. Waits for both helpers first,
 * because clean_up() misses a helper that has not logged its PID.
 */
TEST_F_TIMEOUT(killed, any_process_of_cycle, TEST_LIMIT_S)
{
	struct load load = from_file(self->root.wa, "request=req_wb");
	int round, nr_killed = 0, nr_rounds = is_quick() ? 6 : 24;
	unsigned int seed = 1;

	for (round = 0; round < nr_rounds && !_metadata->exit_code; round++) {
		pid_t first, second, victim;
		struct caller caller;
		int result;

		configure(&self->root, "%s", two_modules);
		caller = start_load(&load);
		wait_until((first = nth_helper(&self->root, 1)) > 0, "there is no helper\n");
		wait_until((second = nth_helper(&self->root, 2)) > 0,
			   "there is no second helper\n");
		usleep(rand_r(&seed) % 100000);
		victim = round % 3 == 0 ? caller.pid : round % 3 == 1 ? first : second;
		kill(victim, SIGKILL);
		result = reap(&caller);
		if (victim == caller.pid && result == KILLED)
			nr_killed++;
		else
			EXPECT_EQ(0, result);
		EXPECT_TRUE(clean_up(&self->root));
	}
	TH_LOG("%d of %d loads were killed before their end", nr_killed, nr_rounds / 3);
	check_load_again(_metadata, &self->root);
}

/*
 * Other signals, to a load that waits for a load that is held
 */

FIXTURE(signal)
{
	struct image image;
	char paths[2][PATH_MAX];
	struct load load;		/* of the waiter */
	struct owner owner;
	struct counters before;
};

FIXTURE_VARIANT(signal)
{
	bool from_memory, same_file;
	int result;			/* of the waiter, if no signal ends its wait */
};

FIXTURE_VARIANT_ADD(signal, same_file) { .same_file = true, .result = 0 };
FIXTURE_VARIANT_ADD(signal, other_file) { .result = EEXIST };
FIXTURE_VARIANT_ADD(signal, memory) { .from_memory = true, .result = EEXIST };

FIXTURE_SETUP(signal)
{
	struct load load = { .args = "park=1" };

	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	unload_leftover(MODULE_NAME);
	use_own_tmp();
	self->image = read_module(MODULE_NAME);
	load.path = write_image(self->paths[0], &self->image);
	self->load.args = load.args;
	if (variant->from_memory)
		self->load.image = &self->image;
	else if (variant->same_file)
		self->load.path = load.path;
	else
		self->load.path = write_image(self->paths[1], &self->image);
	self->before = read_counters();
	self->owner = park_owner(&load, MODULE_NAME);
}

FIXTURE_TEARDOWN_PARENT(signal)
{
	unload_leftover(MODULE_NAME);
}

/* Checks that a waiter whose wait was interrupted waits again, and gets its result. */
static void check_restarted(struct __test_metadata *_metadata, FIXTURE_DATA(signal) * self,
			    const FIXTURE_VARIANT(signal) * variant, const struct caller *waiter)
{
	struct counters change;

	wait_until(has_arrived(waiter->pid, load_syscall(&self->load), 'S'),
		   "the load does not wait again\n");
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&self->owner));
	EXPECT_EQ(variant->result, reap(waiter));
	change = counters_since(&self->before);
	EXPECT_TRUE(is_live(MODULE_NAME));
	EXPECT_EQ(1, change.mod[MODCOUNT]);
	EXPECT_NE(0, change.dedup[WAITS_INTERRUPTED]);
	/* Another wait follows each interrupted one. */
	EXPECT_EQ(change.dedup[WAITS_INTERRUPTED] + 1, change.dedup[WAITS]);
	EXPECT_EQ(change.dedup[WAITS_INTERRUPTED], change.dedup[ABORTED]);
}

TEST_F_TIMEOUT(signal, stop_and_continue, TEST_LIMIT_S)
{
	struct caller waiter = start_waiter(&self->load);

	kill(waiter.pid, SIGSTOP);
	/* A stopped task may be in no system call: arm64 restarts it before. */
	wait_until(has_state(waiter.pid, 'T'), "the load does not stop\n");
	kill(waiter.pid, SIGCONT);
	check_restarted(_metadata, self, variant, &waiter);
}

/* strace -p does this. */
TEST_F_TIMEOUT(signal, trace_and_detach, TEST_LIMIT_S)
{
	struct caller waiter = start_waiter(&self->load);
	int status;

	ASSERT_EQ(0, ptrace(PTRACE_ATTACH, waiter.pid, NULL, NULL));
	wait_until(waitpid(waiter.pid, &status, WNOHANG) == waiter.pid,
		   "the load does not stop\n");
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, waiter.pid, NULL, NULL));
	check_restarted(_metadata, self, variant, &waiter);
}

TEST_F_TIMEOUT(signal, handler_with_restart, TEST_LIMIT_S)
{
	struct caller waiter = start_waiter(&self->load);

	kill(waiter.pid, SIGUSR2);
	wait_until(read_dedup_counter(WAITS_INTERRUPTED) != self->before.dedup[WAITS_INTERRUPTED],
		   "the signal does not interrupt the wait\n");
	check_restarted(_metadata, self, variant, &waiter);
}

/* The system call returns while the owner is still held. */
TEST_F_TIMEOUT(signal, handler_without_restart, TEST_LIMIT_S)
{
	struct caller waiter = start_waiter(&self->load);
	struct counters change;

	kill(waiter.pid, SIGUSR1);
	EXPECT_EQ(EINTR, reap(&waiter));
	EXPECT_FALSE(is_live(MODULE_NAME));
	EXPECT_EQ(0, reap_owner(&self->owner));
	change = counters_since(&self->before);
	EXPECT_TRUE(is_live(MODULE_NAME));
	EXPECT_EQ(1, change.mod[MODCOUNT]);
	EXPECT_EQ(1, change.dedup[WAITS]);
	EXPECT_EQ(1, change.dedup[WAITS_INTERRUPTED]);
	EXPECT_EQ(1, change.dedup[ABORTED]);
}

/*
 * Waits that are not part of a cycle
 */

FIXTURE(wait)
{
	struct root root;
};

FIXTURE_SETUP(wait)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	make_root(&self->root, 2);
}

FIXTURE_TEARDOWN_PARENT(wait)
{
	EXPECT_TRUE(remove_root(&self->root));
}

/*
 * A helper does not wait for a background process whose parent has exited. So
 * that process can wait for the load that waits for the helper, and succeeds.
 */
TEST_F_TIMEOUT(wait, orphan, TEST_LIMIT_S)
{
	static const char args[] = "request=via_orphan";
	struct load load = from_file(self->root.wa, args);
	char path[PATH_MAX];
	struct caller caller;
	pid_t orphan;
	int fifo;

	root_path(path, &self->root, "fifo");
	fifo = mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fifo);
	configure(&self->root,
		  "install via_orphan (setsid %s/load orphan wa %s &); read line <%s\n",
		  self->root.dir, args, path);
	caller = start_load(&load);
	wait_until((orphan = nth_number(&self->root, "helpers", "orphan", 0)) > 0 &&
		   (has_arrived(orphan, SYS_finit_module, 'S') || !is_running(orphan)),
		   "the orphan does not wait\n");
	EXPECT_TRUE(is_running(orphan));
	EXPECT_FALSE(is_live(self->root.wa->name));
	EXPECT_EQ(0, count_deadlocks(&self->root));
	EXPECT_EQ(1, write(fifo, "\n", 1));
	EXPECT_EQ(0, reap(&caller));
	EXPECT_EQ(1, count_live(&self->root));
	EXPECT_EQ(0, result_of_request(self->root.wa));
	EXPECT_TRUE(clean_up(&self->root));
	EXPECT_EQ(0, last_result(&self->root, "orphan"));
	EXPECT_EQ(0, count_deadlocks(&self->root));
	close(fifo);
}

/*
 * Returns whether PENDING has one block of a waiter, with these lines after the
 * first and before the last one.
 */
static __printf(4, 5) bool has_block(const char *text, const char *comm, pid_t pid,
				     const char *format, ...)
{
	char block[512];
	const char *at;
	va_list args;
	int len, more = 0;

	len = snprintf(block, sizeof(block), "waiter\t%s[%d]\n", comm, pid);
	at = strstr(text, block);
	if (at && strstr(at + 1, block))
		at = NULL;
	va_start(args, format);
	vsnprintf(block + len, sizeof(block) - len, format, args);
	va_end(args);
	if (at && !strncmp(at, block, strlen(block)) &&
	    sscanf(at + strlen(block), "age_ms\t%*u%n", &more) == 0 &&
	    more && !strncmp(at + strlen(block) + more, "\n\n", 2))
		return true;
	ksft_print_msg("there is no block: %s\n", block);
	return false;
}

/*
 * PENDING shows each waiter. The load of wa waits for a helper that loads wb,
 * which waits for a helper that loads wc, which is held. Other loads wait for the
 * load of wa, for a helper that waits for the load of wc, and for the request of
 * wa.
 */
TEST_F_TIMEOUT(wait, pending_file, TEST_LIMIT_S)
{
	struct root *root = &self->root;
	struct load load = from_file(root->wa, "request=req_wb");
	struct load requests_wc = from_file(&root->chain[0], "request=also_wc");
	struct load requests_wb = from_file(&root->chain[1], "request=req_wb");
	bool ok, has_dups = !access(DUPS_TRACE, F_OK);
	struct caller a, waiter, other, request;
	char *text, wa_file[80], wc_file[80];
	pid_t helper, inner, third;

	configure(root,
		  "alias req_wb wb\n"
		  "alias req_wc wc\n"
		  "alias also_wc wc\n"
		  "options wb request=req_wc\n"
		  "options wc park=1\n");
	a = start_load(&load);
	wait_until_parked(root->wc);
	helper = nth_helper(root, 1);
	inner = nth_helper(root, 2);
	waiter = start_waiter(&load);
	other = start_load(&requests_wc);
	wait_until((third = last_helper(root)) != inner &&
		   has_arrived(third, SYS_finit_module, 'S'), "no helper waits for wc\n");
	if (has_dups) {
		request = start_load(&requests_wb);
		wait_until(has_arrived(request.pid, SYS_finit_module, 'D'),
			   "no load waits for the request\n");
	}

	text = read_text(PENDING, SIZE_MAX);
	file_text(wa_file, root->wa);
	file_text(wc_file, root->wc);
	ok = has_block(text, SELF, a.pid, "blocked_on\trequest req_wb\nhelper\t%d\n", helper);
	ok &= has_block(text, "modprobe", helper,
			"blocked_on\trequest req_wc\nhelper\t%d\nin_helper\t%d\n", inner,
			helper);
	ok &= has_block(text, SELF, waiter.pid, "blocked_on\tfile %s\nowner\t" SELF "[%d]\n",
			wa_file, a.pid);
	ok &= has_block(text, SELF, other.pid, "blocked_on\trequest also_wc\nhelper\t%d\n", third);
	ok &= has_block(text, "modprobe", third,
			"blocked_on\tfile %s\nowner\tmodprobe[%d]\nin_helper\t%d\n",
			wc_file, inner, third);
	if (has_dups)
		ok &= has_block(text, SELF, request.pid,
				"blocked_on\trequest req_wb\nowner\t" SELF "[%d]\n", a.pid);
	EXPECT_TRUE(ok)
		TH_LOG("%s:\n%s", PENDING, text);
	free(text);

	EXPECT_EQ(0, unpark(root->wc));
	EXPECT_EQ(0, reap(&a));
	EXPECT_EQ(0, reap(&waiter));
	EXPECT_EQ(0, reap(&other));
	if (has_dups)
		EXPECT_EQ(0, reap(&request));
	EXPECT_EQ(3, count_live(root));
	EXPECT_EQ(0, count_deadlocks(root));
}

FIXTURE(trace)
{
	struct root root;
};

FIXTURE_SETUP(trace)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	mkdir(TRACEFS, 0700);
	if (access(TRACE, F_OK) && mount("tracefs", TRACEFS, "tracefs", 0, NULL))
		SKIP(return, "needs tracefs");
	make_root(&self->root, 0);
	ASSERT_EQ(0, truncate(TRACE, 0));
	ASSERT_EQ(0, write_to(TRACE_ENABLE, "1"));
}

FIXTURE_TEARDOWN_PARENT(trace)
{
	EXPECT_EQ(0, write_to(TRACE_ENABLE, "0"));
	EXPECT_TRUE(remove_root(&self->root));
}

/*
 * Returns whether one line of the trace shows that event of that task. The event
 * ends the line, unless @rest is not NULL: then *rest is what follows.
 */
static __printf(4, 5) bool has_event(const char *trace, pid_t pid, const char **rest,
				     const char *format, ...)
{
	char event[512], task[32], *text = strdup(trace), *lines = text, *line, *at;
	const char *found = NULL;
	int count = 0;
	va_list args;

	va_start(args, format);
	vsnprintf(event, sizeof(event), format, args);
	va_end(args);
	snprintf(task, sizeof(task), "-%d ", pid);
	while (text && (line = strsep(&lines, "\n"))) {
		at = strstr(line, event);
		if (!at || !strstr(line, task))
			continue;
		found = trace + (at - text) + strlen(event);
		count++;
	}
	free(text);
	if (rest)
		*rest = found ?: "";
	if (count == 1 && (rest || *found == '\n'))
		return true;
	ksft_print_msg("task %d, %d times: %s\n", pid, count, event);
	return false;
}

/* Returns whether the line ends with a plausible number of microseconds. */
static bool is_duration(const char *text)
{
	char *end;
	long us = strtol(text, &end, 10);

	return us > 0 && us < DEADLINE_S * 1000000L && *end == '\n';
}

/* A wait has two events. A rejected load has one, which shows the reason. */
TEST_F_TIMEOUT(trace, events, TEST_LIMIT_S)
{
	static const char name[] = "kind=module name=wa dev=0:0 ino=0 ";
	struct root *root = &self->root;
	struct load load = from_file(root->wa, "park=1"), memory = from_memory(root->wa, "");
	struct load cycle = from_file(root->wa, "request=req_wa");
	char *text, file[128], owner_text[64];
	struct caller same, other, signalled, caller;
	struct owner owner;
	const char *rest;
	struct stat st;
	bool ok;

	configure(root, "alias req_wa wa\n");
	owner = park_owner(&load, root->wa->name);
	same = start_waiter(&load);
	other = start_waiter(&memory);
	signalled = start_waiter(&load);
	kill(signalled.pid, SIGUSR1);
	EXPECT_EQ(EINTR, reap(&signalled));
	EXPECT_EQ(0, reap_owner(&owner));
	EXPECT_EQ(0, reap(&same));
	EXPECT_EQ(EEXIST, reap(&other));
	EXPECT_EQ(EEXIST, do_load(&load));
	must_unload(root->wa->name);
	caller = start_load(&cycle);
	EXPECT_EQ(0, reap(&caller));
	text = read_text(TRACE, SIZE_MAX);

	ASSERT_EQ(0, stat(root->wa->path, &st));
	snprintf(file, sizeof(file), "kind=file name= dev=%u:%u ino=%llu ", major(st.st_dev),
		 minor(st.st_dev), (unsigned long long)st.st_ino);
	snprintf(owner_text, sizeof(owner_text), "owner=" SELF "[%d]", owner.caller.pid);
	ok = has_event(text, same.pid, NULL, "module_dedup_wait_begin: %s%s", file, owner_text);
	ok &= has_event(text, same.pid, &rest,
			"module_dedup_wait_end: %s%s result=0 waited_us=", file, owner_text) &&
	      is_duration(rest);
	ok &= has_event(text, signalled.pid, &rest,
			"module_dedup_wait_end: %s%s result=%d waited_us=", file, owner_text,
			-EINTR) &&
	      is_duration(rest);
	ok &= has_event(text, other.pid, NULL, "module_dedup_wait_begin: %s%s", name, owner_text);
	ok &= has_event(text, other.pid, &rest,
			"module_dedup_wait_end: %s%s result=0 waited_us=", name, owner_text) &&
	      is_duration(rest);
	ok &= has_event(text, other.pid, NULL, "module_dedup_pending: %serror=%d", name, -EEXIST);
	ok &= has_event(text, getpid(), NULL, "module_dedup_already_loaded: %serror=%d", name,
			-EEXIST);
	ok &= has_event(text, last_helper(root), NULL, "module_dedup_deadlock: %serror=%d", file,
			-EDEADLK);
	EXPECT_TRUE(ok)
		TH_LOG("%s:\n%s", TRACE, text);
	free(text);
}

/*
 * Many processes load the same modules
 */

FIXTURE(chain)
{
	struct root root;
};

FIXTURE_SETUP(chain)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	make_root(&self->root, NR_CHAIN);
}

FIXTURE_TEARDOWN_PARENT(chain)
{
	EXPECT_TRUE(remove_root(&self->root));
}

static pthread_barrier_t *new_barrier(unsigned int count)
{
	pthread_barrier_t *barrier = alloc_shared(sizeof(*barrier));
	pthread_barrierattr_t attr;

	if (pthread_barrierattr_init(&attr) ||
	    pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||
	    pthread_barrier_init(barrier, &attr, count))
		die("there is no barrier\n");
	return barrier;
}

/* Loads the first n modules of the chain. Returns how many loads failed. */
static int load_in_order(const struct root *root, int n)
{
	int i, failed = 0;

	for (i = 0; i < n; i++) {
		struct load load = from_file(&root->chain[i], "");
		int err = do_load(&load);

		failed += err && err != EEXIST;
	}
	return failed;
}

/*
 * Loads the nth module, whose init function requests the module before it, and so
 * on down to the first one. In a ring, the first one requests the last one.
 */
static int load_nested(const struct root *root, int n, bool is_ring)
{
	char args[32] = "";
	struct load load = from_file(&root->chain[n - 1], args);
	int err;

	if (n > 1 || is_ring)
		snprintf(args, sizeof(args), "request=%s",
			 root->chain[(n + NR_NESTED - 2) % NR_NESTED].name);
	err = do_load(&load);
	return err && err != EEXIST;
}

static int load_in_row(const struct root *root, int n)
{
	return load_nested(root, n, false);
}

static int load_in_ring(const struct root *root, int n)
{
	return load_nested(root, n, true);
}

/* Starts n processes that load at the same time, each a chain of random length. */
static void start_loaders(const struct root *root, struct caller *callers, int n, int nr_rounds,
			  int length, int (*load_chain)(const struct root *root, int n))
{
	pthread_barrier_t *barrier = new_barrier(n);
	int i, m, round;

	for (i = 0; i < n; i++) {
		unsigned int seed = i;

		callers[i] = fork_caller();
		if (callers[i].pid)
			continue;
		*callers[i].result = 0;
		for (round = 0; round < nr_rounds; round++) {
			pthread_barrier_wait(barrier);
			*callers[i].result += load_chain(root, 1 + rand_r(&seed) % length);
			pthread_barrier_wait(barrier);
			/* What the last round has loaded is for the test to check. */
			for (m = i; m < length && round < nr_rounds - 1; m += n)
				unload_module(root->chain[m].name);
		}
		_exit(0);
	}
}

/* Returns how many loads failed. */
static int reap_loaders(const struct caller *callers, int n)
{
	double limit = now() + MANY_LIMIT_S;
	int i, failed = 0;

	for (i = 0; i < n; i++) {
		wait_until_within(limit - now(), has_ended(callers[i].pid),
				  "process %d hangs\n", callers[i].pid);
		failed += reap(&callers[i]);
	}
	return failed;
}

TEST_F_TIMEOUT(chain, no_edeadlk, MANY_LIMIT_S + TEST_LIMIT_S)
{
	struct caller loaders[NR_LOADERS];
	int nr_rounds = is_quick() ? 5 : 100;

	start_loaders(&self->root, loaders, NR_LOADERS, nr_rounds, NR_CHAIN, load_in_order);
	EXPECT_EQ(0, reap_loaders(loaders, NR_LOADERS));
	EXPECT_EQ(0, count_deadlocks(&self->root));
	EXPECT_TRUE(is_live(self->root.chain[0].name));
}

static void check_nested(struct __test_metadata *_metadata, struct root *root, bool is_ring)
{
	int i, failed = 0, nr_rounds = is_quick() ? 1 : 3;
	char options[NR_NESTED * 32] = "";
	struct caller loaders[NR_NESTED];

	for (i = !is_ring; i < NR_NESTED; i++)
		sprintf(options + strlen(options), "options %s request=%s\n", root->chain[i].name,
			root->chain[(i + NR_NESTED - 1) % NR_NESTED].name);
	configure(root, "%s", options);
	start_loaders(root, loaders, NR_NESTED, nr_rounds, NR_NESTED,
		      is_ring ? load_in_ring : load_in_row);
	EXPECT_EQ(0, reap_loaders(loaders, NR_NESTED));
	EXPECT_EQ(is_ring ? nr_rounds : 0, count_deadlocks(root));
	for (i = 0; i < NR_NESTED && is_loaded(root->chain[i].name); i++)
		failed += !is_live(root->chain[i].name) || result_of_request(&root->chain[i]);
	EXPECT_LE(is_ring ? NR_NESTED : 1, i);
	EXPECT_EQ(is_ring, failed);
}

TEST_F_TIMEOUT(chain, nested_in_row, MANY_LIMIT_S + TEST_LIMIT_S)
{
	check_nested(_metadata, &self->root, false);
}

/* In each round, one wait fails, and one request with it. All modules become live. */
TEST_F_TIMEOUT(chain, nested_in_ring, MANY_LIMIT_S + TEST_LIMIT_S)
{
	check_nested(_metadata, &self->root, true);
}

/*
 * A load is held for a minute while others wait for its file and for its request,
 * and while other modules are loaded. The log shows the owner once for the file
 * and once for the request.
 */
TEST_F_TIMEOUT(chain, long_wait, MANY_LIMIT_S + TEST_LIMIT_S)
{
	struct load load = from_file(self->root.wa, "request=req_wb");
	struct load requests_wb = from_file(self->root.wc, "request=req_wb");
	struct caller owner, waiters[NR_WAITERS], request, loaders[NR_LOADERS];
	int log, count_log, file_log, request_log;
	bool has_dups = !access(DUPS_TRACE, F_OK);
	char message[256], file[80];
	pid_t helper;

	if (is_quick())
		SKIP(return, "a minute is too long for DEDUP_QUICK");
	log = open_log();
	count_log = open_log();
	file_log = open_log();
	request_log = open_log();
	owner = start_parked(&self->root, &helper);
	start_waiters(waiters, NR_WAITERS, &load);
	if (has_dups)
		request = start_load(&requests_wb);
	start_loaders(&self->root, loaders, NR_LOADERS, 5, NR_CHAIN, load_in_order);
	sleep(LONG_WAIT_S);

	EXPECT_EQ(1 + has_dups, count_in_log(log, LONG_WAIT));
	snprintf(message, sizeof(message), " s; %d waiters\n", NR_WAITERS);
	EXPECT_EQ(1, count_in_log(count_log, message));
	file_text(file, self->root.wa);
	snprintf(message, sizeof(message),
		 LONG_WAIT "file %s of " SELF "[%d], which loads module wa, for ", file,
		 owner.pid);
	EXPECT_EQ(1, count_in_log(file_log, message))
		TH_LOG("no message: %s", message);
	snprintf(message, sizeof(message),
		 SELF "[%d]%srequest req_wb of " SELF "[%d], which loads module wa, for ",
		 has_dups ? request.pid : 0, LONG_WAIT, owner.pid);
	EXPECT_EQ(has_dups, count_in_log(request_log, message))
		TH_LOG("no message: %s", message);

	EXPECT_EQ(0, unpark(self->root.wb));
	EXPECT_EQ(0, reap(&owner));
	EXPECT_EQ(0, reap_all(waiters, NR_WAITERS, 1, 0));
	if (has_dups)
		EXPECT_EQ(0, reap(&request));
	EXPECT_EQ(has_dups ? 3 : 2, count_live(&self->root));
	EXPECT_EQ(0, reap_loaders(loaders, NR_LOADERS));
	EXPECT_EQ(0, count_deadlocks(&self->root));
}

/*
 * A kernel that detects no deadlocks
 */

FIXTURE(no_detection)
{
	struct root root;
};

FIXTURE_SETUP(no_detection)
{
	if (has_dedup())
		SKIP(return, "needs a kernel without CONFIG_MODULE_DEDUP_RUST");
	make_root(&self->root, 0);
}

FIXTURE_TEARDOWN_PARENT(no_detection)
{
	EXPECT_TRUE(remove_root(&self->root));
}

/* A module that requests itself hangs until its helper is killed. */
TEST_F_TIMEOUT(no_detection, request_of_itself, TEST_LIMIT_S)
{
	struct load load = from_file(self->root.wa, "request=req_wa");
	struct caller caller;
	pid_t helper;

	configure(&self->root, "alias req_wa wa\n");
	caller = start_load(&load);
	sleep(HANG_S);
	helper = last_helper(&self->root);
	EXPECT_TRUE(is_running(caller.pid));
	ASSERT_LT(0, helper);
	EXPECT_TRUE(has_arrived(helper, SYS_finit_module, 'S'));
	kill(helper, SIGKILL);
	EXPECT_EQ(0, reap(&caller));
	EXPECT_EQ(1, count_live(&self->root));
	EXPECT_EQ(SIGKILL, result_of_request(self->root.wa));
}

int main(int argc, char **argv)
{
	if (is_loader(argc, argv))
		return run_loader(argv);

	need_stats();
	need_mode("full");
	/* As the kernel sets it for helpers. */
	setenv("PATH", "/sbin:/bin:/usr/sbin:/usr/bin", true);
	if (system("modprobe --version >/dev/null 2>&1 && depmod --version >/dev/null 2>&1")) {
		ksft_print_header();
		ksft_exit_skip("needs modprobe and depmod\n");
	}
	return test_harness_run(argc, argv);
}
