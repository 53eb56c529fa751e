// SPDX-License-Identifier: GPL-2.0
/*
 * Waits that would never end: modules whose init functions request what leads
 * modprobe back to them. The wait that would close the circle is refused, all
 * else goes on, and who waits for whom can be seen.
 *
 * The modules are copies of test_dedup under other names. modprobe is that of the
 * machine, with a folder of its own for modules and configuration. It keeps a
 * list of the processes that it was.
 *
 * What hangs is killed when the time of its test is over, and fails the test. On
 * a kernel that does not refuse such waits, that one hangs is all that is shown.
 *
 * Needs module.dedup=full, which is the default where there is that parameter.
 *
 * Usage: waits_dedup [FOLDER OF test_dedup.ko]
 */
#include <pthread.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

#include "dedup_common.h"

#define MODPROBE	"/proc/sys/kernel/modprobe"
#define TRACEFS		"/sys/kernel/tracing"
#define TRACE		TRACEFS "/trace"
#define EVENTS		TRACEFS "/events/module_dedup/"
#define DUPS		"/sys/module/module/parameters/enable_dups_trace"
#define SELF		"waits_dedup"
#define REFUSAL		"a wait without end is refused"

#define NR_TESTS	25
/* How long the processes of a test may take, in seconds. */
#define TEST_LIMIT	30
/* The same for those that have the most of them. */
#define MANY_LIMIT	800
/* When a wait has been in the log, and is not yet again. */
#define LONG_S		62
/* How long to look at what hangs. */
#define HANG_S		5
#define CHAIN		50
#define NR_LOADERS	64
#define DEPTH		8
#define NR_WAITERS	4

/* Stands for the result of a caller that had to be killed. */
#define HANGS		(INT_MAX - 1)
/* What request_module() returns if modprobe ends with that code. */
#define EXITED(code)	((code) << 8)

/* A copy of test_dedup under another name, where modprobe finds it. */
struct module {
	char name[8];
	char path[PATH_MAX];
	struct image image;
};

static struct module letters[3], chain[CHAIN];
static struct module * const wa = &letters[0], * const wb = &letters[1], * const wc = &letters[2];

/* Holds the modules, what modprobe reads and writes, and the programs. */
static char dir[64] = "/tmp/waits_dedup.XXXXXX";
static bool has_dedup;

static void in_dir(char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", dir, name);
}

static __printf(2, 3) void write_file(const char *name, const char *format, ...)
{
	char path[PATH_MAX];
	va_list args;
	FILE *f;

	in_dir(path, name);
	f = fopen(path, "we");
	if (!f)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	va_start(args, format);
	vfprintf(f, format, args);
	va_end(args);
	if (fclose(f))
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
}

/* Adds a line in one piece. Processes that nobody waits for call this. */
static void add_line(const char *name, const char *text, int number)
{
	char path[PATH_MAX], line[80];
	int fd, len = snprintf(line, sizeof(line), "%s %d\n", text, number);

	in_dir(path, name);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || write(fd, line, len) != len)
		_exit(255);
	close(fd);
}

/* The number in the nth line that begins with that word, or the last if nth is 0; or -1. */
static int nth_number(const char *name, const char *word, int nth)
{
	char path[PATH_MAX], *text, *rest, *line;
	int number = -1, count = 0;
	size_t len = strlen(word);

	in_dir(path, name);
	text = read_text(path, SIZE_MAX);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		if (!strncmp(line, word, len) && line[len] == ' ' && (!nth || ++count == nth))
			number = atoi(line + len);
	free(text);
	return number;
}

static int last_number(const char *name, const char *word)
{
	return nth_number(name, word, 0);
}

#define configure(...)	write_file("modprobe.d/waits.conf", __VA_ARGS__)

/*
 * Programs that modprobe starts: loads with a known result
 */

static void *load_in_thread(void *load)
{
	return (void *)(long)do_load(load);
}

/* Whether modprobe has called this program: load HOW NAME [ARGS]. */
static bool is_helper(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');

	return slash && !strcmp(slash, "/load") && (argc == 3 || argc == 4);
}

static int be_helper(char **argv)
{
	const char *how = argv[1], *name = argv[2];
	char path[PATH_MAX], file[80];
	struct load load = { .path = path, .args = argv[3] ?: "" };
	struct image image;
	pthread_t thread;
	void *result;
	int err;

	/* It is called by a link in that folder. */
	snprintf(dir, sizeof(dir), "%s", argv[0]);
	*strrchr(dir, '/') = '\0';
	snprintf(file, sizeof(file), "modules/%s.ko", name);
	in_dir(path, file);
	add_line("helpers", how, getpid());

	if (!strcmp(how, "init")) {
		image = read_image(path);
		load = (struct load){ .image = &image, .args = load.args };
	}
	/* Not a helper's any more once its parent has ended. */
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
	add_line("results", how, err);
	return err;
}

/*
 * One test
 */

static double deadline;
static unsigned long circles_before;

static void begin(void)
{
	write_file("helpers", "%s", "");
	write_file("results", "%s", "");
	deadline = now() + TEST_LIMIT;
	if (has_dedup)
		circles_before = read_dedup("circles_refused");
}

static bool has_refused(unsigned long circles)
{
	return is_result("circles refused", read_dedup("circles_refused") - circles_before,
			 circles);
}

/* Whether a process has not ended, be it waited for or not. */
static bool is_running(pid_t pid)
{
	char path[64], exe[PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return readlink(path, exe, sizeof(exe)) >= 0;
}

/* Like finish(), for one that may hang. */
static int end_of(const struct caller *c)
{
	while (is_running(c->pid)) {
		if (now() > deadline) {
			kill(c->pid, SIGKILL);
			finish(c);
			return HANGS;
		}
		usleep(1000);
	}
	return finish(c);
}

/* Some process that modprobe was or started, if there is one that has not ended. */
static pid_t running_helper(void)
{
	char path[PATH_MAX], *text, *rest, *line;
	pid_t pid, found = 0;

	in_dir(path, "helpers");
	text = read_text(path, SIZE_MAX);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		/* 1 is one that cannot see its number here. */
		if (sscanf(line, "%*s %d", &pid) == 1 && pid > 1 && is_running(pid))
			found = pid;
	free(text);
	return found;
}

static bool is_anything_pending(void)
{
	return has_dedup && !file_says(PENDING, "");
}

/* Waits for the helpers, and unloads: true if all ended by itself and nothing is left. */
static bool clean_up(void)
{
	pid_t pid, killed = 0;
	bool ok = true;
	int i;

	while ((pid = running_helper()) || is_anything_pending()) {
		if (now() > deadline && pid > 0) {
			if (pid != killed)
				ksft_print_msg("helper %d hangs\n", pid);
			kill(pid, SIGKILL);
			killed = pid;
			ok = false;
		} else if (now() > deadline + TEST_LIMIT) {
			ksft_print_msg("something is still pending\n");
			ok = false;
			break;
		}
		usleep(1000);
	}
	for (i = 0; i < ARRAY_SIZE(letters); i++)
		must_unload(letters[i].name);
	for (i = 0; i < CHAIN && is_loaded(chain[i].name); i++)
		must_unload(chain[i].name);
	return ok;
}

static struct load from_file(const struct module *module, const char *args)
{
	return (struct load){ .path = module->path, .args = args };
}

static struct load from_memory(const struct module *module, const char *args)
{
	return (struct load){ .image = &module->image, .args = args };
}

/* Whether wa, and the letters up to n, are live, and the others not there. */
static bool are_live(int n)
{
	int i, wrong = 0;

	for (i = 0; i < ARRAY_SIZE(letters); i++)
		wrong += i < n ? !is_live(letters[i].name) : is_loaded(letters[i].name);
	return is_result("modules that should be live, or should not", wrong, 0);
}

/* What the request of a module's init function returned. */
static int result_of(const struct module *module)
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

static bool got(const struct module *module, int want)
{
	return is_result(module->name, result_of(module), want);
}

/* A module that waits in its init function. */
static void park_path(char path[PATH_MAX], const struct module *module)
{
	snprintf(path, PATH_MAX, "/sys/module/%s/parameters/park", module->name);
}

static void wait_until_parked(const struct module *module)
{
	char path[PATH_MAX];

	park_path(path, module);
	wait_until(!access(path, F_OK), "%s could not be parked\n", module->name);
}

static bool unpark(const struct module *module)
{
	char path[PATH_MAX];

	park_path(path, module);
	return is_result(module->name, write_to(path, "0"), 0);
}

/* The file of a module as the kernel names it. */
static const char *file_of(const struct module *module)
{
	static char text[80];
	struct stat st;

	if (stat(module->path, &st))
		ksft_exit_fail_msg("%s: %s\n", module->path, strerror(errno));
	snprintf(text, sizeof(text), "%u:%u:%lu", major(st.st_dev), minor(st.st_dev), st.st_ino);
	return text;
}

/*
 * Circles
 */

/* One process loads; so many modules are live then, and so many waits were refused. */
static bool load_alone(struct load load, int live, unsigned long circles)
{
	struct caller c = start_load(&load);
	bool ok = is_result("the load", end_of(&c), 0);

	ok &= are_live(live);
	return ok & has_refused(circles);
}

/* Loads a module that asks for itself, and looks for what the log has to say. */
static double load_self(bool *ok, bool *is_logged)
{
	int log = open_log(), detailed_log = open_log();
	struct load load = from_file(wa, "request=req_wa");
	char message[512];
	double start, took;
	struct caller c;
	int pid;

	begin();
	configure("alias req_wa wa\n");
	start = now();
	c = start_load(&load);
	*ok &= is_result("the load", end_of(&c), 0);
	took = now() - start;
	*ok &= are_live(1) && got(wa, EXITED(1)) && has_refused(1);
	pid = last_number("helpers", "modprobe");
	snprintf(message, sizeof(message),
		 REFUSAL "; modprobe[%d] waits for file %s of " SELF "[%d]; "
		 SELF "[%d], which loads module wa, waits for request req_wa of its helper %d\n",
		 pid, file_of(wa), c.pid, c.pid, pid);
	*is_logged &= is_result("messages", count_in_log(log, REFUSAL), 1);
	*is_logged &= is_result(message, count_in_log(detailed_log, message), 1);
	*ok &= clean_up();
	close(log);
	close(detailed_log);
	return took;
}

/* It takes longer where something else runs as well, but not each time. */
static void test_self(void)
{
	int i, tries = is_quick() ? 1 : 5;
	bool ok = true, is_logged = true;
	double took = DEADLINE_S;

	for (i = 0; i < tries && took > 1; i++) {
		took = load_self(&ok, &is_logged);
		ksft_print_msg("the load took %.3f s\n", took);
	}
	ksft_test_result(ok && (is_quick() || took < 1),
			 "a module asks for itself: it is live within 1 s\n");
	ksft_test_result(is_logged, "the log says once who would have waited for whom\n");
}

static const char two[] =
	"alias req_wa wa\n"
	"alias req_wb wb\n"
	"options wa request=req_wb\n"
	"options wb request=req_wa\n";

/* Both are owners before either of them goes on. */
static void test_two_at_once(void)
{
	struct load loads[] = {
		from_file(wa, "request=req_wb park=1"), from_file(wb, "request=req_wa park=1"),
	};
	struct owner a, b;
	bool ok;

	begin();
	configure("%s", two);
	a = park_by_init(&loads[0], wa->name);
	b = park_by_init(&loads[1], wb->name);
	release_owner(&a);
	release_owner(&b);
	ok = is_result("wa", end_of(&a.caller), 0);
	ok &= is_result("wb", end_of(&b.caller), 0);
	ok &= are_live(2) && has_refused(1);
	ok &= clean_up();
	ksft_test_result(ok, "two modules, whose loads wait for each other, ask for each other\n");
}

/* Two processes load both, in turn, whoever comes first. */
static void test_two_racing(void)
{
	struct load loads[] = { from_file(wa, "request=req_wb"), from_file(wb, "request=req_wa") };
	int round, i, j, n = is_quick() ? 3 : 10;
	struct caller callers[2];
	bool ok = true;

	for (round = 0; round < n && ok; round++) {
		begin();
		configure("%s", two);
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
		for (i = 0; i < 2; i++)
			ok &= is_result("a caller", end_of(&callers[i]), 0);
		ok &= are_live(2);
		ok &= clean_up();
	}
	ksft_test_result(ok, "two processes load two such modules at once, %d times\n", n);
}

static void test_circles(void)
{
	bool ok;

	test_self();

	begin();
	configure("%s", two);
	ok = load_alone(from_file(wa, "request=req_wb"), 2, 1) && got(wa, 0) && got(wb, EXITED(1));
	ok &= clean_up();
	ksft_test_result(ok, "two modules ask for each other\n");
	test_two_at_once();
	test_two_racing();

	begin();
	configure("alias req_wa wa\n"
		  "alias req_wb wb\n"
		  "alias req_wc wc\n"
		  "options wb request=req_wc\n"
		  "options wc request=req_wa\n");
	ok = load_alone(from_file(wa, "request=req_wb"), 3, 1);
	ok &= got(wa, 0) && got(wb, 0) && got(wc, EXITED(1));
	ok &= clean_up();
	ksft_test_result(ok, "three modules ask for each other\n");

	begin();
	configure("install via_sh sh -c '%s/modprobe wa; exit 0'\n", dir);
	ok = load_alone(from_file(wa, "request=via_sh"), 1, 1) && got(wa, 0);
	ok &= clean_up();
	ksft_test_result(ok, "a module asks for itself, through a shell\n");
}

/* wa leads back to itself by this program, which is told that it would wait for ever. */
static void test_program(const char *what, struct load load, const char *prefix, const char *how)
{
	bool ok;

	begin();
	configure("install via_load %s %s/load %s wa\n", prefix, dir, how);
	ok = load_alone(load, 1, 1) && got(wa, EXITED(1));
	ok &= is_result("the inner load", last_number("results", how), EDEADLK);
	ok &= clean_up();
	ksft_test_result(ok, "%s: EDEADLK\n", what);
}

static void test_programs(void)
{
	struct load file = from_file(wa, "request=via_load");
	struct load memory = from_memory(wa, "request=via_load");
	bool ok;

	test_program("init_module within finit_module", file, "", "init");
	test_program("init_module within init_module", memory, "", "init");
	test_program("finit_module within init_module", memory, "", "finit");
	begin();
	configure("alias req_wa wa\n");
	ok = load_alone(from_memory(wa, "request=req_wa"), 1, 1) && got(wa, EXITED(1));
	ok &= clean_up();
	ksft_test_result(ok, "modprobe within init_module is refused\n");

	test_program("a load from another PID namespace", file, "unshare --pid --fork", "finit");
	test_program("a load from a thread", file, "", "thread");
}

/* What a helper requests would wait for the request that it is the helper of. */
static void test_request(void)
{
	bool ok;

	if (access(DUPS, F_OK)) {
		ksft_test_result_skip("needs CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS\n");
		return;
	}
	begin();
	configure("alias reqx wb\n"
		  "options wb request=reqx\n");
	ok = load_alone(from_file(wa, "request=reqx"), 2, 1) && got(wa, 0) && got(wb, -EDEADLK);
	ok &= clean_up();
	ksft_test_result(ok, "a request that would wait for itself: EDEADLK\n");
}

/*
 * Tasks that end
 */

static const char parked[] =
	"alias req_wb wb\n"
	"alias also_wb wb\n"
	"options wb park=1\n";

/* Starts a load of wa; returns when its helper is held while it loads wb. */
static struct caller start_parked(pid_t *helper)
{
	struct load load = from_file(wa, "request=req_wb");
	struct caller c;

	begin();
	configure("%s", parked);
	c = start_load(&load);
	wait_until_parked(wb);
	*helper = last_number("helpers", "modprobe");
	return c;
}

/* Whether nothing is left, and what was loaded can be loaded again. */
static bool works_again(void)
{
	bool ok = clean_up();

	begin();
	configure("alias req_wb wb\n");
	ok &= load_alone(from_file(wa, "request=req_wb"), 2, 0) && got(wa, 0);
	return ok & clean_up();
}

static void test_killed(void)
{
	struct load load = from_file(wc, "request=also_wb");
	struct caller c, other;
	pid_t helper, other_helper;
	bool ok;

	c = start_parked(&helper);
	kill(helper, SIGKILL);
	ok = is_result("the load", end_of(&c), 0);
	ok &= are_live(1) && got(wa, SIGKILL) && has_refused(0);
	ksft_test_result(ok & works_again(), "a helper is killed: the load goes on\n");

	c = start_parked(&helper);
	kill(c.pid, SIGKILL);
	ok = is_result("the load", end_of(&c), KILLED);
	ok &= is_loaded(wb->name) && !is_live(wb->name);
	ok &= unpark(wb) && has_refused(0);
	ksft_test_result(ok & works_again(), "a load is killed that waits for a helper\n");

	/* One helper waits for another one. */
	c = start_parked(&helper);
	other = start_load(&load);
	wait_until((other_helper = last_number("helpers", "modprobe")) != helper &&
		   has_arrived(other_helper, SYS_finit_module, 'S'),
		   "the helper of wc did not arrive\n");
	kill(other_helper, SIGKILL);
	ok = is_result("wc", end_of(&other), 0) && is_live(wc->name) && got(wc, SIGKILL);
	ok &= unpark(wb) && is_result("wa", end_of(&c), 0);
	ok &= are_live(3) && got(wa, 0) && has_refused(0);
	ksft_test_result(ok & works_again(), "a helper is killed that waits for another one\n");
}

/*
 * Anything is killed at any time of a circle. That no helper is still to come is
 * known once both are there.
 */
static void test_killed_anywhere(void)
{
	int round, killed = 0, n = is_quick() ? 6 : 24;
	struct load load = from_file(wa, "request=req_wb");
	unsigned int seed = 1;
	bool ok = true;

	for (round = 0; round < n && ok; round++) {
		pid_t first, second, victim;
		struct caller c;
		int result;

		begin();
		configure("%s", two);
		c = start_load(&load);
		wait_until((first = nth_number("helpers", "modprobe", 1)) > 0,
			   "there is no helper\n");
		wait_until((second = nth_number("helpers", "modprobe", 2)) > 0,
			   "there is no second helper\n");
		/* Not to wait for anything: to meet different moments. */
		usleep(rand_r(&seed) % 100000);
		victim = round % 3 == 0 ? c.pid : round % 3 == 1 ? first : second;
		kill(victim, SIGKILL);
		result = end_of(&c);
		if (victim == c.pid && result == KILLED)
			killed++;
		else
			ok &= is_result("the load", result, 0);
		ok &= clean_up();
	}
	ksft_print_msg("%d of %d loads were killed in time\n", killed, n / 3);
	ksft_test_result(ok & works_again(), "%d circles, and something is killed: all end\n", n);
}

/* What a helper leaves behind is nobody's: what waits for it waits for no helper. */
static void test_orphan(void)
{
	static const char args[] = "request=via_orphan";
	struct load load = from_file(wa, args);
	char path[PATH_MAX];
	struct caller c;
	pid_t orphan;
	bool ok;
	int fifo;

	begin();
	in_dir(path, "fifo");
	fifo = mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (fifo < 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	configure("install via_orphan (setsid %s/load orphan wa %s &); read line <%s\n", dir, args,
		  path);
	c = start_load(&load);
	wait_until((orphan = last_number("helpers", "orphan")) > 0 &&
		   (has_arrived(orphan, SYS_finit_module, 'S') || !is_running(orphan)),
		   "the orphan did not arrive\n");
	ok = is_running(orphan) && !is_live(wa->name) && has_refused(0);
	if (write(fifo, "\n", 1) != 1)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	ok &= is_result("the load", end_of(&c), 0) && are_live(1) && got(wa, 0);
	ok &= clean_up() && is_result("the orphan", last_number("results", "orphan"), 0);
	ok &= has_refused(0);
	close(fifo);
	unlink(path);
	ksft_test_result(ok, "a load whose parent is gone waits, and gets the result\n");
}

/*
 * No circles
 */

/* What the processes of a test meet at. */
static pthread_barrier_t *new_barrier(unsigned int count)
{
	pthread_barrier_t *barrier = mmap(NULL, sizeof(*barrier), PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_t attr;

	if (barrier == MAP_FAILED || pthread_barrierattr_init(&attr) ||
	    pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||
	    pthread_barrier_init(barrier, &attr, count))
		ksft_exit_fail_msg("there is no barrier\n");
	return barrier;
}

/* Loads the chain from its beginning on; returns how many loads were refused. */
static int load_in_order(int n)
{
	int i, others = 0;

	for (i = 0; i < n; i++) {
		struct load load = from_file(&chain[i], "");
		int err = do_load(&load);

		others += err && err != EEXIST;
	}
	return others;
}

/* Loads one that asks for the one before it, as that does in turn: up to the first, or for ever. */
static int load_asking(int n, bool is_ring)
{
	char args[32] = "";
	struct load load = from_file(&chain[n - 1], args);
	int err;

	if (n > 1 || is_ring)
		snprintf(args, sizeof(args), "request=%s", chain[(n + DEPTH - 2) % DEPTH].name);
	err = do_load(&load);
	return err && err != EEXIST;
}

static int load_nested(int n)
{
	return load_asking(n, false);
}

static int load_in_ring(int n)
{
	return load_asking(n, true);
}

/* Processes that load chains of random length, again and again. */
struct loaders {
	struct caller callers[NR_LOADERS];
	pthread_barrier_t *barrier;
	int n;
};

static struct loaders start_loaders(int n, int nr_rounds, int length, int (*load_chain)(int n))
{
	struct loaders loaders = { .barrier = new_barrier(n), .n = n };
	int i, m, round;

	deadline = now() + MANY_LIMIT;
	for (i = 0; i < n; i++) {
		struct caller *c = &loaders.callers[i];
		unsigned int seed = i;

		*c = fork_caller();
		if (c->pid)
			continue;
		*c->result = 0;
		for (round = 0; round < nr_rounds; round++) {
			pthread_barrier_wait(loaders.barrier);
			*c->result += load_chain(1 + rand_r(&seed) % length);
			pthread_barrier_wait(loaders.barrier);
			/* The last round is left to look at. */
			for (m = i; m < length && round < nr_rounds - 1; m += n)
				unload_module(chain[m].name);
		}
		_exit(0);
	}
	return loaders;
}

/* How many of their loads were refused. */
static int end_of_loaders(const struct loaders *loaders)
{
	int i, others = 0;

	for (i = 0; i < loaders->n; i++)
		others += end_of(&loaders->callers[i]);
	munmap(loaders->barrier, sizeof(*loaders->barrier));
	return others;
}

/*
 * Waiters for a load that is held, and one for a request, if that can be: there
 * is to be one message about either.
 */
struct long_wait {
	struct caller owner, waiters[NR_WAITERS], request;
	int logs[3];
	bool has_dups;
	double start;
};

static struct long_wait start_long_wait(void)
{
	struct load load = from_file(wa, "request=req_wb");
	struct load to_request = from_file(wc, "request=req_wb");
	struct long_wait w = { .has_dups = !access(DUPS, F_OK) };
	pid_t helper;
	int i;

	for (i = 0; i < ARRAY_SIZE(w.logs); i++)
		w.logs[i] = open_log();
	w.owner = start_parked(&helper);
	for (i = 0; i < NR_WAITERS; i++)
		w.waiters[i] = start_waiter(&load);
	if (w.has_dups)
		w.request = start_load(&to_request);
	w.start = now();
	return w;
}

/* Waits until there would be a second message, and ends the wait. */
static bool end_long_wait(const struct long_wait *w)
{
	char message[256];
	bool ok;
	int i;

	wait_until(now() > w->start + LONG_S, "there is no end\n");
	ok = is_result("messages", count_in_log(w->logs[0], " wait for that\n"), 1 + w->has_dups);
	snprintf(message, sizeof(message),
		 " waits for file %s of " SELF "[%d], which loads module wa, for ", file_of(wa),
		 w->owner.pid);
	ok &= is_result(message, count_in_log(w->logs[1], message), 1);
	snprintf(message, sizeof(message),
		 SELF "[%d] waits for request req_wb of " SELF "[%d], which loads module wa, for ",
		 w->request.pid, w->owner.pid);
	ok &= is_result(message, count_in_log(w->logs[2], message), w->has_dups);
	for (i = 0; i < ARRAY_SIZE(w->logs); i++)
		close(w->logs[i]);

	ok &= unpark(wb) && is_result("the load", end_of(&w->owner), 0);
	for (i = 0; i < NR_WAITERS; i++)
		ok &= is_result("a waiter", end_of(&w->waiters[i]), 0);
	if (w->has_dups)
		ok &= is_result("the request", end_of(&w->request), 0);
	return ok & are_live(w->has_dups ? 3 : 2);
}

/* It takes a minute to see a long wait; others load meanwhile. */
static void test_many(void)
{
	int rounds = is_quick() ? 5 : 100;
	struct loaders loaders;
	struct long_wait wait;
	bool ok, waited;

	begin();
	configure("%s", "");
	if (!is_quick())
		wait = start_long_wait();
	loaders = start_loaders(NR_LOADERS, rounds, CHAIN, load_in_order);
	if (!is_quick())
		waited = end_long_wait(&wait);
	ok = is_result("refused", end_of_loaders(&loaders), 0);
	ok &= has_refused(0) && is_live(chain[0].name);
	ok &= clean_up();
	ksft_test_result(ok, "%d processes load chains of up to %d modules, %d times: no EDEADLK\n",
			 NR_LOADERS, CHAIN, rounds);
	if (is_quick())
		ksft_test_result_skip("a minute is too long for DEDUP_QUICK\n");
	else
		ksft_test_result(waited,
				 "a wait of more than 30 s is in the log once in a minute\n");
}

/* A ring is broken once, whoever comes first. */
static void test_nested(bool is_ring)
{
	int i, failed = 0, rounds = is_quick() ? 1 : 3;
	char options[DEPTH * 32] = "";
	struct loaders loaders;
	bool ok;

	for (i = !is_ring; i < DEPTH; i++)
		sprintf(options + strlen(options), "options %s request=%s\n", chain[i].name,
			chain[(i + DEPTH - 1) % DEPTH].name);
	begin();
	configure("%s", options);
	loaders = start_loaders(DEPTH, rounds, DEPTH, is_ring ? load_in_ring : load_nested);
	ok = is_result("refused", end_of_loaders(&loaders), 0);
	ok &= has_refused(is_ring ? rounds : 0);
	for (i = 0; i < DEPTH && is_loaded(chain[i].name); i++)
		failed += !is_live(chain[i].name) || result_of(&chain[i]);
	ok &= i > (is_ring ? DEPTH - 1 : 0) && is_result("failed", failed, is_ring);
	ok &= clean_up();
	ksft_test_result(ok, "%d processes load modules that ask for others, %s, %d times\n", DEPTH,
			 is_ring ? "in a ring: all end" : "in a row: no EDEADLK", rounds);
}

/*
 * What can be seen
 */

/* Whether there is one block of a waiter, with these lines after the first and before the last. */
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
 * wa waits for a helper, whose wb waits for another one, whose wc is held. Others
 * wait for wa, for wc from a helper of their own, and for the request of wa.
 */
static void test_pending(void)
{
	struct load load = from_file(wa, "request=req_wb"), same = load;
	struct load to_wc = from_file(&chain[0], "request=also_wc");
	struct load to_request = from_file(&chain[1], "request=req_wb");
	struct caller a, waiter, other, request;
	pid_t helper, inner, third;
	bool ok, has_dups = !access(DUPS, F_OK);
	char *text;

	begin();
	configure("alias req_wb wb\n"
		  "alias req_wc wc\n"
		  "alias also_wc wc\n"
		  "options wb request=req_wc\n"
		  "options wc park=1\n");
	a = start_load(&load);
	wait_until_parked(wc);
	helper = nth_number("helpers", "modprobe", 1);
	inner = nth_number("helpers", "modprobe", 2);
	waiter = start_waiter(&same);
	other = start_load(&to_wc);
	wait_until((third = last_number("helpers", "modprobe")) != inner &&
		   has_arrived(third, SYS_finit_module, 'S'), "no helper waits for wc\n");
	if (has_dups) {
		request = start_load(&to_request);
		wait_until(has_arrived(request.pid, SYS_finit_module, 'D'),
			   "nobody waits for the request\n");
	}

	text = read_text(PENDING, SIZE_MAX);
	ok = has_block(text, SELF, a.pid, "waits_for\trequest req_wb\nhelper\t%d\n", helper);
	ok &= has_block(text, "modprobe", helper,
			"waits_for\trequest req_wc\nhelper\t%d\nruns_in_helper\t%d\n", inner,
			helper);
	ok &= has_block(text, SELF, waiter.pid, "waits_for\tfile %s\nowner\t" SELF "[%d]\n",
			file_of(wa), a.pid);
	ok &= has_block(text, SELF, other.pid, "waits_for\trequest also_wc\nhelper\t%d\n", third);
	ok &= has_block(text, "modprobe", third,
			"waits_for\tfile %s\nowner\tmodprobe[%d]\nruns_in_helper\t%d\n",
			file_of(wc), inner, third);
	if (has_dups)
		ok &= has_block(text, SELF, request.pid,
				"waits_for\trequest req_wb\nowner\t" SELF "[%d]\n", a.pid);
	if (!ok)
		ksft_print_msg("%s:\n%s", PENDING, text);
	free(text);

	ok &= unpark(wc);
	ok &= is_result("wa", end_of(&a), 0) && is_result("the waiter", end_of(&waiter), 0);
	ok &= is_result("the other", end_of(&other), 0);
	if (has_dups)
		ok &= is_result("the request", end_of(&request), 0);
	ok &= are_live(3) && has_refused(0);
	ok &= clean_up();
	ksft_test_result(ok, "pending says who waits for whom\n");
}

/* Whether one line of the trace is that event of that task; what follows goes to *rest. */
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

static void trace_events(const char *on)
{
	static const char * const names[] = { "wait", "done", "refused" };
	int i, err;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), EVENTS "module_dedup_%s/enable", names[i]);
		err = write_to(path, on);
		if (err)
			ksft_exit_fail_msg("%s: %s\n", path, strerror(err));
	}
}

static bool is_duration(const char *text)
{
	char *end;
	long us = strtol(text, &end, 10);

	return is_result("us waited", us > 0 && us < DEADLINE_S * 1000000L && *end == '\n', 1);
}

static void test_trace(void)
{
	static const char name[] = "kind=module name=wa dev=0:0 ino=0 ";
	struct load load = from_file(wa, "park=1"), memory = from_memory(wa, "");
	struct load self = from_file(wa, "request=req_wa");
	struct caller same, other, signalled, circle;
	char *text, file[128], owner_text[64];
	const char *rest;
	struct owner owner;
	struct stat st;
	bool ok;

	mkdir(TRACEFS, 0700);
	if (access(TRACE, F_OK) && mount("tracefs", TRACEFS, "tracefs", 0, NULL)) {
		ksft_test_result_skip("there is no tracefs\n");
		return;
	}
	begin();
	configure("alias req_wa wa\n");
	if (truncate(TRACE, 0))
		ksft_exit_fail_msg("%s: %s\n", TRACE, strerror(errno));
	trace_events("1");
	owner = park_by_init(&load, wa->name);
	same = start_waiter(&load);
	other = start_waiter(&memory);
	signalled = start_waiter(&load);
	kill(signalled.pid, SIGUSR1);
	ok = is_result("with a signal", end_of(&signalled), EINTR);
	release_owner(&owner);
	ok &= is_result("the owner", end_of(&owner.caller), 0);
	ok &= is_result("the same", end_of(&same), 0);
	ok &= is_result("from memory", end_of(&other), EEXIST);
	ok &= is_result("late", do_load(&load), EEXIST);
	must_unload(wa->name);
	circle = start_load(&self);
	ok &= is_result("the circle", end_of(&circle), 0);
	trace_events("0");
	text = read_text(TRACE, SIZE_MAX);

	if (stat(wa->path, &st))
		ksft_exit_fail_msg("%s: %s\n", wa->path, strerror(errno));
	snprintf(file, sizeof(file), "kind=file name= dev=%u:%u ino=%lu ", major(st.st_dev),
		 minor(st.st_dev), st.st_ino);
	snprintf(owner_text, sizeof(owner_text), "owner=" SELF "[%d]", owner.caller.pid);
	ok &= has_event(text, same.pid, NULL, "module_dedup_wait: %s%s", file, owner_text);
	ok &= has_event(text, same.pid, &rest, "module_dedup_done: %s%s result=0 waited_us=", file,
			owner_text) && is_duration(rest);
	ok &= has_event(text, signalled.pid, &rest, "module_dedup_done: %s%s result=%d waited_us=",
			file, owner_text, -EINTR) && is_duration(rest);
	ok &= has_event(text, other.pid, NULL, "module_dedup_wait: %s%s", name, owner_text);
	ok &= has_event(text, other.pid, &rest, "module_dedup_done: %s%s result=0 waited_us=", name,
			owner_text) && is_duration(rest);
	ok &= has_event(text, other.pid, NULL, "module_dedup_refused: %sreason=pending error=%d",
			name, -EEXIST);
	ok &= has_event(text, getpid(), NULL, "module_dedup_refused: %sreason=late error=%d", name,
			-EEXIST);
	ok &= has_event(text, last_number("helpers", "modprobe"), NULL,
			"module_dedup_refused: %sreason=circle error=%d", file, -EDEADLK);
	if (!ok)
		ksft_print_msg("%s:\n%s", TRACE, text);
	free(text);
	ok &= clean_up();
	ksft_test_result(ok, "tracepoints tell of waits and refusals\n");
}

/*
 * Kernels that do not refuse
 */

static void test_hang(void)
{
	struct load load = from_file(wa, "request=req_wa");
	struct caller c;
	double start;
	pid_t pid;
	bool ok;
	int i;

	begin();
	configure("alias req_wa wa\n");
	start = now();
	c = start_load(&load);
	wait_until(now() > start + HANG_S, "there is no end\n");
	pid = last_number("helpers", "modprobe");
	ok = is_running(c.pid) && pid > 0 && has_arrived(pid, SYS_finit_module, 'S');
	if (pid > 0)
		kill(pid, SIGKILL);
	ok &= is_result("the load", end_of(&c), 0) && are_live(1) && got(wa, SIGKILL);
	ok &= clean_up();
	ksft_test_result(ok,
			 "on this kernel a module that asks for itself hangs: still waiting after %d s, killed\n",
			 HANG_S);
	for (i = 1; i < NR_TESTS; i++)
		ksft_test_result_skip("needs CONFIG_MODULE_DEDUP_RUST\n");
}

/*
 * The folder
 */

static void make_dir(const char *name)
{
	char path[PATH_MAX];

	in_dir(path, name);
	if (mkdir(path, 0755))
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
}

static void make_link(const char *to, const char *name)
{
	char path[PATH_MAX];

	in_dir(path, name);
	if (symlink(to, path))
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
}

static void make_module(struct module *module, const struct image *image, const char *format, int n)
{
	char file[80];

	module->image = copy_image(image, image->len);
	snprintf(module->name, sizeof(module->name), format, n);
	set_name(image, &module->image, module->name);
	set_symbol(&module->image, module->name);

	snprintf(file, sizeof(file), "modules/%s.ko", module->name);
	in_dir(module->path, file);
	close(open(module->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	overwrite(module->path, &module->image);
}

/*
 * Helpers see the folder, as they run where this program does. It is a file system
 * of its own: to the kernel, the files of an overlay are on another device than
 * stat(2) has it. Newer versions of modprobe look in usr/lib.
 */
static void make_dirs(void)
{
	struct utsname name;
	char modules[sizeof(name.release) + 16], exe[PATH_MAX];
	ssize_t len;

	if (uname(&name) || !mkdtemp(dir) || mount("tmpfs", dir, "tmpfs", 0, NULL))
		ksft_exit_fail_msg("%s: %s\n", dir, strerror(errno));
	snprintf(modules, sizeof(modules), "lib/modules/%s", name.release);
	make_dir("modprobe.d");
	make_dir("lib");
	make_dir("lib/modules");
	make_dir(modules);
	make_link(".", "usr");
	make_link(modules, "modules");
	len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (len < 0)
		ksft_exit_fail_msg("/proc/self/exe: %s\n", strerror(errno));
	exe[len] = '\0';
	make_link(exe, "load");
}

static char *setup(char **argv)
{
	char path[PATH_MAX], *old_modprobe;
	struct image image;
	int i, err;

	/* As the kernel has it for helpers. */
	setenv("PATH", "/sbin:/bin:/usr/sbin:/usr/bin", true);
	if (system("modprobe --version >/dev/null 2>&1 && depmod --version >/dev/null 2>&1"))
		ksft_exit_skip("needs modprobe and depmod\n");
	module_path(path, argv, MODULE_NAME);
	image = read_image(path);
	make_dirs();
	for (i = 0; i < ARRAY_SIZE(letters); i++)
		make_module(&letters[i], &image, "w%c", 'a' + i);
	for (i = 0; i < CHAIN; i++)
		make_module(&chain[i], &image, "w%d", i);
	free(image.bytes);
	snprintf(path, sizeof(path), "depmod -b %s 2>/dev/null", dir);
	if (system(path))
		ksft_exit_fail_msg("%s: failed\n", path);

	write_file("modprobe",
		   "#!/bin/sh\n"
		   "echo modprobe $$ >>%s/helpers\n"
		   "exec modprobe -d %s -C %s/modprobe.d \"$@\"\n", dir, dir, dir);
	in_dir(path, "modprobe");
	old_modprobe = read_text(MODPROBE, SIZE_MAX);
	err = chmod(path, 0755) ? errno : write_to(MODPROBE, path);
	if (err)
		ksft_exit_fail_msg("%s: %s\n", MODPROBE, strerror(err));
	return old_modprobe;
}

int main(int argc, char **argv)
{
	char *old_modprobe;

	if (is_helper(argc, argv))
		return be_helper(argv);

	ksft_print_header();
	need_root_and_stats();
	has_dedup = !access(DEDUP_MODE, F_OK);
	if (has_dedup && !file_says(DEDUP_MODE, "full\n"))
		ksft_exit_skip("needs module.dedup=full\n");
	old_modprobe = setup(argv);

	ksft_set_plan(NR_TESTS);
	if (has_dedup) {
		test_circles();
		test_programs();
		test_request();
		test_killed();
		test_killed_anywhere();
		test_orphan();
		test_pending();
		test_trace();
		test_nested(false);
		test_nested(true);
		test_many();
	} else {
		test_hang();
	}

	write_to(MODPROBE, old_modprobe);
	free(old_modprobe);
	if (umount(dir) || rmdir(dir))
		ksft_exit_fail_msg("%s: %s\n", dir, strerror(errno));
	ksft_finished();
}
