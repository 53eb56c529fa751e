// SPDX-License-Identifier: GPL-2.0
/*
 * Many finit_module(2) calls for one file at once: one load, one result.
 *
 * Who calls first owns the load. To hold it in the kernel for as long as a
 * test needs, its args string lies on a page that userfaultfd withholds: the
 * kernel reads the file, then wants the string, and stays there until the
 * page is handed over. Meanwhile the others arrive. A process has arrived
 * when it sleeps interruptibly inside finit_module(2). So no test depends on
 * how long anything takes; the time limits only turn a hang into a failure.
 *
 * Usage: finit_dedup [test_dedup.ko]
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest.h"

#define MODULE_NAME	"test_dedup"
#define STATS		"/sys/kernel/debug/modules/stats"

#define MAX_CALLERS	255
#define ROUNDS		20
/* Far more than anything here takes; a hang is reported after this long. */
#define DEADLINE_S	120

static char ko[PATH_MAX];
static long page_size;

/* The other processes of a test: all callers but the owner. */
static pid_t waiters[MAX_CALLERS];

struct stats {
	unsigned long loaded, becoming, load;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void read_stats(struct stats *s)
{
	char line[256];
	int found = 0;
	FILE *f = fopen(STATS, "r");

	if (!f)
		ksft_exit_fail_msg("%s: %s\n", STATS, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		found += sscanf(line, " Mods ever loaded %lu", &s->loaded) == 1;
		found += sscanf(line, " Mods failed on becoming %lu", &s->becoming) == 1;
		found += sscanf(line, " Mods failed on load %lu", &s->load) == 1;
	}
	fclose(f);
	if (found != 3)
		ksft_exit_fail_msg("%s: not all counters found\n", STATS);
}

static bool is_loaded(void)
{
	return !access("/sys/module/" MODULE_NAME, F_OK);
}

static void unload(void)
{
	if (syscall(SYS_delete_module, MODULE_NAME, O_NONBLOCK) && errno != ENOENT)
		ksft_exit_fail_msg("delete_module: %s\n", strerror(errno));
}

/* Calls finit_module(2) on a file description of its own: 0 or the errno. */
static int load_module(const char *args)
{
	int fd = open(ko, O_RDONLY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return errno;
	err = syscall(SYS_finit_module, fd, args, 0) ? errno : 0;
	close(fd);
	return err;
}

struct owner {
	pid_t pid;
	int parked;	/* read end: a byte comes when the owner is parked */
	int release;	/* write end: a byte lets it go on */
};

/* In the owner: what serves the page of its args string, and how. */
struct withheld {
	int uffd, parked, release;
	void *page;
	const void *content;
};

static void *serve_page(void *arg)
{
	struct withheld *w = arg;
	struct uffdio_copy copy = {
		.dst = (unsigned long)w->page,
		.src = (unsigned long)w->content,
		.len = page_size,
	};
	struct uffd_msg msg;
	char c = 0;

	if (read(w->uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	    msg.event == UFFD_EVENT_PAGEFAULT &&
	    write(w->parked, &c, 1) == 1 &&
	    read(w->release, &c, 1) == 1 &&
	    !ioctl(w->uffd, UFFDIO_COPY, &copy))
		return NULL;
	/* The main thread may be stuck in the fault: do not leave it there. */
	_exit(EPROTO);
}

/* The owner: loads with args that it is kept from reading. Never returns. */
static void own(const char *args, int parked, int release)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct withheld w = { .parked = parked, .release = release };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	pthread_t server;
	char *content;

	w.page = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	content = calloc(1, page_size);
	w.uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (w.page == MAP_FAILED || !content || w.uffd < 0)
		_exit(EOPNOTSUPP);
	strcpy(content, args);
	w.content = content;
	reg.range.start = (unsigned long)w.page;
	reg.range.len = page_size;
	if (ioctl(w.uffd, UFFDIO_API, &api) ||
	    ioctl(w.uffd, UFFDIO_REGISTER, &reg) ||
	    pthread_create(&server, NULL, serve_page, &w))
		_exit(EOPNOTSUPP);
	_exit(load_module(w.page));
}

/* Starts an owner and returns when it is parked inside finit_module(2). */
static struct owner start_owner(const char *args)
{
	int parked[2], release[2];
	struct owner o;
	char c;

	if (pipe(parked) || pipe(release))
		ksft_exit_fail_msg("pipe: %s\n", strerror(errno));
	o.pid = fork();
	if (o.pid < 0)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	if (!o.pid) {
		close(parked[0]);
		close(release[1]);
		own(args, parked[1], release[0]);
	}
	close(parked[1]);
	close(release[0]);
	if (read(parked[0], &c, 1) != 1)
		ksft_exit_fail_msg("the owner could not be parked\n");
	o.parked = parked[0];
	o.release = release[1];
	return o;
}

/* Exit code, or 256 + signal, of a child that ends before the deadline. */
static int reap(pid_t pid)
{
	double end = now() + DEADLINE_S;
	int status;
	pid_t ret;

	while (!(ret = waitpid(pid, &status, WNOHANG))) {
		if (now() > end)
			ksft_exit_fail_msg("process %d hangs\n", pid);
		usleep(1000);
	}
	if (ret != pid)
		ksft_exit_fail_msg("waitpid: %s\n", strerror(errno));
	return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int finish_owner(struct owner *o)
{
	char c = 0;
	int ret;

	/* A killed owner does not read any more: that is for reap() to say. */
	signal(SIGPIPE, SIG_IGN);
	if (write(o->release, &c, 1) != 1 && errno != EPIPE)
		ksft_exit_fail_msg("release: %s\n", strerror(errno));
	ret = reap(o->pid);
	close(o->parked);
	close(o->release);
	return ret;
}

static bool has_arrived(pid_t pid)
{
	char path[64], buf[512], state;
	long nr = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fscanf(f, "%ld", &nr) != 1)
		nr = -1;
	fclose(f);
	if (nr != SYS_finit_module)
		return false;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (!fgets(buf, sizeof(buf), f) ||
	    sscanf(strrchr(buf, ')') ?: "", ") %c", &state) != 1)
		state = '?';
	fclose(f);
	return state == 'S';
}

static void on_signal(int sig)
{
}

/* Starts n processes that wait for the parked owner; returns when all do. */
static void start_waiters(int n)
{
	/* No SA_RESTART: the call is to return. */
	struct sigaction sa = { .sa_handler = on_signal };
	double end = now() + DEADLINE_S;
	int i;

	for (i = 0; i < n; i++) {
		waiters[i] = fork();
		if (waiters[i] < 0)
			ksft_exit_fail_msg("fork: %s\n", strerror(errno));
		if (!waiters[i]) {
			sigaction(SIGUSR1, &sa, NULL);
			_exit(load_module(""));
		}
	}
	for (i = 0; i < n; i++) {
		while (!has_arrived(waiters[i])) {
			if (now() > end)
				ksft_exit_fail_msg("%d of %d did not arrive\n", n - i, n);
			usleep(1000);
		}
	}
}

/* How many of the waiters first, first + step, ... end other than with want. */
static int count_others(int n, int first, int step, int want)
{
	int i, others = 0;

	for (i = first; i < n; i += step) {
		int got = reap(waiters[i]);

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

	for (round = 0; ok && round < ROUNDS; round++) {
		struct owner o;

		read_stats(&before);
		o = start_owner("");
		start_waiters(n - 1);
		ok &= !is_loaded();
		ok &= finish_owner(&o) == 0;
		ok &= count_others(n - 1, 0, 1, 0) == 0;
		read_stats(&after);
		ok &= is_loaded();
		ok &= after.loaded == before.loaded + 1;
		ok &= after.becoming == before.becoming;
		ok &= after.load == before.load;
		unload();
	}
	if (!ok)
		ksft_print_msg("round %d: loaded +%lu, failed becoming +%lu, failed load +%lu\n",
			       round, after.loaded - before.loaded,
			       after.becoming - before.becoming, after.load - before.load);
	ksft_test_result(ok, "%d callers, %d rounds: one load, all succeed\n", n, ROUNDS);
}

/* What the owner's init function returned is what everybody gets. */
static void test_failing_init(int n)
{
	struct owner o = start_owner("init_result=-67");
	bool ok;

	start_waiters(n - 1);
	ok = finish_owner(&o) == ENOLINK;
	ok &= count_others(n - 1, 0, 1, ENOLINK) == 0;
	ok &= !is_loaded();
	ksft_test_result(ok, "%d callers, init fails: all get its errno\n", n);
}

/* Every second waiter gets a signal while the owner is parked, and leaves. */
static void test_signal(int n, int sig, int want, const char *name)
{
	struct owner o = start_owner("");
	bool ok;
	int i;

	start_waiters(n - 1);
	for (i = 0; i < n - 1; i += 2)
		kill(waiters[i], sig);
	/* The owner is not released before they have left. */
	ok = count_others(n - 1, 0, 2, want) == 0;
	ok &= !is_loaded();
	ok &= finish_owner(&o) == 0;
	ok &= count_others(n - 1, 1, 2, 0) == 0;
	ok &= is_loaded();
	unload();
	ksft_test_result(ok, "%d callers, every second waiter gets %s: it leaves, others succeed\n",
			 n, name);
}

/* The owner is killed while parked: nobody waits for ever, and all agree. */
static void test_killed_owner(int n)
{
	struct owner o = start_owner("");
	bool ok;

	start_waiters(n - 1);
	kill(o.pid, SIGKILL);
	/* The kernel can no longer read the args string. */
	ok = count_others(n - 1, 0, 1, EFAULT) == 0;
	ok &= finish_owner(&o) == 256 + SIGKILL;
	ok &= !is_loaded();
	/* And the file can be loaded again. */
	ok &= load_module("") == 0;
	unload();
	ksft_test_result(ok, "%d callers, owner killed: all others get its error\n", n);
}

/* Who comes after the load is over is told so, and not that it succeeded. */
static void test_late(void)
{
	bool ok = load_module("") == 0;

	ok &= load_module("") == EEXIST;
	unload();
	ok &= load_module("") == 0;
	unload();
	ksft_test_result(ok, "late caller gets EEXIST; after unload it loads\n");
}

/* The file system of the build may give every open an inode of its own. */
static void copy_module(const char *from)
{
	char buf[65536];
	ssize_t len;
	int in, out;

	strcpy(ko, "/tmp/" MODULE_NAME ".XXXXXX");
	in = open(from, O_RDONLY);
	if (in < 0)
		ksft_exit_skip("%s: %s\n", from, strerror(errno));
	out = mkstemp(ko);
	if (out < 0)
		ksft_exit_fail_msg("%s: %s\n", ko, strerror(errno));
	while ((len = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, len) != len)
			ksft_exit_fail_msg("%s: %s\n", ko, strerror(errno));
	if (len < 0)
		ksft_exit_fail_msg("%s: %s\n", from, strerror(errno));
	close(in);
	close(out);
}

int main(int argc, char **argv)
{
	static const int callers[] = { 2, 8, 64, MAX_CALLERS };
	char from[PATH_MAX];
	unsigned int i;
	int uffd;

	page_size = sysconf(_SC_PAGESIZE);
	ksft_print_header();
	if (geteuid())
		ksft_exit_skip("must be root\n");
	if (access(STATS, R_OK))
		ksft_exit_skip("needs CONFIG_MODULE_STATS and debugfs\n");
	if (argc > 1)
		snprintf(from, sizeof(from), "%s", argv[1]);
	else
		snprintf(from, sizeof(from), "%s/test_modules/" MODULE_NAME ".ko",
			 dirname(argv[0]));
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0)
		ksft_exit_skip("needs CONFIG_USERFAULTFD: %s\n", strerror(errno));
	close(uffd);
	copy_module(from);
	unload();

	ksft_set_plan(ARRAY_SIZE(callers) + 6);
	for (i = 0; i < ARRAY_SIZE(callers); i++)
		test_one_load(callers[i]);
	test_failing_init(8);
	test_failing_init(MAX_CALLERS);
	test_signal(64, SIGKILL, 256 + SIGKILL, "SIGKILL");
	test_signal(64, SIGUSR1, EINTR, "a caught signal");
	test_killed_owner(64);
	test_late();

	unlink(ko);
	ksft_finished();
}
