// SPDX-License-Identifier: GPL-2.0
/*
 * A long time of everything at once: loads of thirty modules from files, from
 * compressed files, from memory and by modprobe, with arguments, with init
 * functions that fail, with modules that need each other; unloads; tasks that are
 * killed; readers of all files; CPUs that come and go; little memory.
 *
 * What each call returns is known afterwards only as far as it is clean. What has
 * to be right in the end: nothing is in flight, every load that began is counted
 * once, and every module can be loaded and unloaded.
 *
 * Needs XFS on a RAM disk.
 *
 * Usage: soak_dedup FOLDER OF THE TEST MODULES [SECONDS [SEED]]
 */
#include <dirent.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include "dedup_common.h"

#define NR_MODULES	30
#define NR_WORKERS	12
#define FAIL_ARGS	"init_result=-61"	/* ENODATA, which nothing else returns */

static struct {
	char name[MODULE_NAME_MAX + 1];
	struct image image;
	char *ko, *zst;
} modules[NR_MODULES];

static char dir[64] = "/tmp/soak_dedup.XXXXXX";
static int *stop_flag;
static unsigned long *calls;	/* how many of each kind */

enum operation {
	FROM_FILE, COMPRESSED, FROM_MEMORY, BY_MODPROBE, UNLOAD, NR_OPERATIONS,
	/* What else is counted. */
	UNLOAD_USED = NR_OPERATIONS, FAILING_INIT, KILL, PLUG_CPU, READ_FILE,
	FILL_MEMORY, NR_COUNTED
};

static const char * const operation_names[NR_COUNTED] = {
	"finit_module", "finit_module, compressed", "init_module", "modprobe", "delete_module",
	"delete_module of a module in use", "an init function failed", "a call was killed",
	"a CPU went and came", "file read", "memory filled",
};

static void count(enum operation operation)
{
	__atomic_add_fetch(&calls[operation], 1, __ATOMIC_RELAXED);
}

static bool is_over(void)
{
	return __atomic_load_n(stop_flag, __ATOMIC_RELAXED);
}

static void run(const char *format, ...)
{
	char command[PATH_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command))
		ksft_exit_fail_msg("failed: %s\n", command);
}

/* Whether a module needs a symbol of the one before it. */
static bool is_user(int module)
{
	return module % 2;
}

/*
 * A folder that modprobe can work with. Every other module needs the one before it, and
 * each asks for another one, which modprobe loads before: module N for N / 2.
 */
static void make_modules(const char *from)
{
	char path[PATH_MAX], lib[PATH_MAX], xfs[PATH_MAX];
	struct image image, user_image;
	struct utsname uts;
	FILE *conf;
	int i;

	snprintf(path, sizeof(path), "%s/" MODULE_NAME ".ko", from);
	image = read_image(path);
	snprintf(path, sizeof(path), "%s/" USER_NAME ".ko", from);
	user_image = read_image(path);
	uname(&uts);
	if (!mkdtemp(dir))
		ksft_exit_fail_msg("%s: %s\n", dir, strerror(errno));
	snprintf(lib, sizeof(lib), "%s/lib/modules/%s", dir, uts.release);
	run("mkdir -p %s %s/conf && ln -s . %s/usr", lib, dir, dir);
	/* Where it is remembered what compressed files hold. */
	snprintf(xfs, sizeof(xfs), "%s/xfs", dir);
	if (!mount_xfs(xfs))
		ksft_exit_skip("needs XFS on /dev/ram0, and mkfs.xfs\n");
	snprintf(path, sizeof(path), "%s/conf/soak.conf", dir);
	conf = fopen(path, "w");
	if (!conf)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	for (i = 0; i < NR_MODULES; i++) {
		const struct image *original = is_user(i) ? &user_image : &image;
		struct image frame, copy = copy_image(original, original->len);
		char *file;

		snprintf(modules[i].name, sizeof(modules[i].name), "soak%02d", i);
		replace_string(&copy, ".gnu.linkonce.this_module",
			       is_user(i) ? USER_NAME : MODULE_NAME, modules[i].name);
		if (is_user(i))
			replace_string(&copy, ".strtab", EXPORTED, modules[i - 1].name);
		else
			set_symbol(&copy, modules[i].name);
		modules[i].image = copy;
		frame = compress(&copy);
		modules[i].zst = write_image_to(xfs, &frame);
		free(frame.bytes);
		file = write_image(&copy);
		if (asprintf(&modules[i].ko, "%s/%s.ko", lib, modules[i].name) < 0)
			ksft_exit_fail_msg("no memory\n");
		run("mv %s %s", file, modules[i].ko);
		free(file);
		if (i)
			fprintf(conf, "softdep soak%02d pre: soak%02d\n", i, i / 2);
	}
	fclose(conf);
	free(image.bytes);
	free(user_image.bytes);
	run("depmod -b %s 2>/dev/null", dir);
}

/* Becomes modprobe, in the folder that main() changed to. */
static void become_modprobe(const char *name)
{
	execlp("modprobe", "modprobe", "-q", "-d", dir, "-C", "conf", name, NULL);
	_exit(127);
}

static int do_operation(enum operation operation, int module)
{
	static const char * const args[] = { "", "tag=1", "tag=2", FAIL_ARGS };
	struct load load = { .args = args[rand() % ARRAY_SIZE(args)] };

	switch (operation) {
	case FROM_FILE:
		load.path = modules[module].ko;
		return do_load(&load);
	case COMPRESSED:
		load.path = modules[module].zst;
		load.flags = MODULE_INIT_COMPRESSED_FILE;
		return do_load(&load);
	case FROM_MEMORY:
		load.image = &modules[module].image;
		return do_load(&load);
	case BY_MODPROBE:
		become_modprobe(modules[module].name);
		__builtin_unreachable();
	default:
		return unload_module(modules[module].name);
	}
}

/* What a call may end with, whatever the others do. */
static bool is_clean(int err)
{
	switch (err) {
	case 0:
	case EEXIST:
	case EBUSY:
	case EINTR:
	case ENODATA:
	case ENOENT:		/* delete_module: there is none; or what it needs is not */
	case EWOULDBLOCK:	/* delete_module: in use */
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
		enum operation operation = rand() % NR_OPERATIONS;
		/* Few of them at a time, so that they meet. */
		int module = (time(NULL) / 2 * 7 + rand() % 4) % NR_MODULES;
		bool is_killed = rand() % 10 == 0;
		unsigned int delay = rand() % 3000;
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
				count(FAILING_INIT);
			_exit(is_clean(err) ? 0 : err);
		}
		if (is_killed) {
			usleep(delay);
			kill(pid, SIGKILL);
		}
		if (waitpid(pid, &status, 0) != pid)
			_exit(1);
		if (WIFSIGNALED(status) && is_killed)
			count(KILL);
		/* modprobe says 1 for anything, and has no memory for a message. */
		if (WIFEXITED(status) && WEXITSTATUS(status) && operation != BY_MODPROBE) {
			printf("# %s of %s: %s\n", operation_names[operation],
			       modules[module].name, strerror(WEXITSTATUS(status)));
			fflush(stdout);
			_exit(1);
		}
	}
}

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
				count(READ_FILE);
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
					count(PLUG_CPU);
			}
			usleep(100000);
		}
}

/* Takes most of the memory that there is, and gives it back, again and again. */
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
		count(FILL_MEMORY);
		munmap(bytes, len);
		usleep(500000);
	}
}

/*
 * If memory runs out, it is for those who use it for nothing: the kernel ends them,
 * and others take their place.
 */
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

static pid_t start(void (*what)(unsigned int seed), unsigned int seed)
{
	pid_t pid = fork();

	if (pid < 0)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	what(seed);
	_exit(0);
}

/* Waits for the end, or for a worker that gives up. */
static bool all_work(const pid_t *workers, int seconds)
{
	double end = now() + seconds;
	siginfo_t info;
	int i;

	while (now() < end) {
		for (i = 0; i < NR_WORKERS; i++) {
			info.si_pid = 0;
			waitid(P_PID, workers[i], &info, WEXITED | WNOHANG | WNOWAIT);
			if (info.si_pid)
				return false;
		}
		usleep(100000);
	}
	return true;
}

/* By what the processes have counted, and the kernel. */
static void test_happened(void)
{
	static const char * const counted[] = {
		"owned", "same_file", "same_name", "late", "from_memory", "left", "waits",
		"waits_interrupted",
	};
	bool ok = true;
	unsigned int i;

	for (i = 0; i < NR_COUNTED; i++) {
		ksft_print_msg("%s: %lu times\n", operation_names[i], calls[i]);
		ok &= calls[i] > 0;
	}
	for (i = 0; i < ARRAY_SIZE(counted); i++)
		ok &= read_dedup(counted[i]) > 0;
	ksft_test_result(ok, "everything happened that was to happen\n");
}

static void test_counters(void)
{
	static const char * const ends[] = {
		"owned", "same_file", "same_name", "late", "from_memory", "left",
	};
	unsigned long loads = read_dedup("loads"), sum = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		unsigned long count = read_dedup(ends[i]);

		ksft_print_msg("%s: %lu\n", ends[i], count);
		sum += count;
	}
	ksft_test_result(loads == sum, "%lu loads, %lu ends\n", loads, sum);
}

static void test_modules(void)
{
	bool ok = true;
	int i;

	/* Those that need another one are behind it. */
	for (i = NR_MODULES - 1; i >= 0; i--)
		must_unload(modules[i].name);
	for (i = 0; i < NR_MODULES; i++) {
		struct load load = { .path = modules[i].ko, .args = "" };
		int err = do_load(&load);

		if (err || !is_live(modules[i].name)) {
			ksft_print_msg("%s: %s\n", modules[i].name, strerror(err));
			ok = false;
		}
	}
	for (i = NR_MODULES - 1; i >= 0; i--)
		must_unload(modules[i].name);
	ksft_test_result(ok, "all modules can be loaded and unloaded\n");
}

int main(int argc, char **argv)
{
	int i, status, failed = 0, seconds = argc > 2 ? atoi(argv[2]) : 60;
	unsigned int seed = argc > 3 ? strtoul(argv[3], NULL, 0) : time(NULL);
	pid_t workers[NR_WORKERS], others[5];

	ksft_print_header();
	need_root_and_stats();
	if (argc < 2)
		ksft_exit_fail_msg("Usage: %s FOLDER [SECONDS [SEED]]\n", argv[0]);
	if (access(DEDUP, F_OK))
		ksft_exit_skip("needs CONFIG_MODULE_DEDUP_RUST\n");
	ksft_set_plan(5);
	ksft_print_msg("%d s, seed %u\n", seconds, seed);
	make_modules(argv[1]);
	if (chdir(dir))
		ksft_exit_fail_msg("%s: %s\n", dir, strerror(errno));
	stop_flag = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);
	if (stop_flag == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	calls = (unsigned long *)(stop_flag + 16);

	for (i = 0; i < NR_WORKERS; i++)
		workers[i] = start(work, seed + i);
	others[0] = start(read_all, 0);
	others[1] = start(read_all, 0);
	others[2] = start(plug_cpus, 0);
	others[3] = start(use_memory, 0);
	others[4] = start(use_memory, 0);

	ksft_test_result(all_work(workers, seconds), "nobody gave up in %d s\n", seconds);
	__atomic_store_n(stop_flag, 1, __ATOMIC_RELAXED);
	for (i = 0; i < NR_WORKERS; i++) {
		wait_until(waitpid(workers[i], &status, WNOHANG), "a worker hangs\n");
		failed += status != 0;
	}
	for (i = 0; i < (int)ARRAY_SIZE(others); i++)
		wait_until(waitpid(others[i], &status, WNOHANG), "process %d hangs\n", others[i]);
	test_happened();

	/* The kernel ends what it began for those who were killed. */
	wait_until(file_says(PENDING, ""), "loads are in flight for ever\n");
	ksft_test_result_pass("nothing is in flight\n");
	test_counters();
	test_modules();
	if (failed)
		ksft_exit_fail_msg("%d workers failed\n", failed);
	ksft_finished();
}
