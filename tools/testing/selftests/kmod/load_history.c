// SPDX-License-Identifier: GPL-2.0
/*
 * Tasks that load, unload and request a few modules at random, and that send each
 * other signals. The program prints the start, the end and the result of each call,
 * for tools/testing/history/ to find an order of the calls that explains them. It
 * judges nothing itself.
 *
 * The calls are made in rounds. In each, up to sixteen tasks start together; when
 * all have ended, the modules are unloaded. So a round begins without any module,
 * and its calls are a history of its own.
 *
 * One counter in shared memory orders the starts and ends of all calls. The record of a
 * call is in shared memory, too, so that it outlives a task that is killed.
 *
 * Output: "round NUMBER", then one line for each call:
 *
 *	TASK START END RESULT SIGNAL MODULE CALL [FILE ARGUMENTS]
 *
 *   END	of a call that never returned: when its task was dead
 *   RESULT	0 or an errno; of a request, an exit status of modprobe or a negative
 *		errno; "-" if the call never returned
 *   SIGNAL	"s" if a handler without SA_RESTART ran during the call, or "-"
 *   CALL	finit, init, unload, request, or modprobe: a finit by the modprobe that
 *		the kernel has started; without a FILE, that modprobe has just failed
 *
 * Environment, besides that of dedup_common.h:
 *   DEDUP_CALLS  number of calls, at least
 *   DEDUP_SEED   seed of the random numbers
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "dedup_request.h"

#define NR_MODULES	3
#define NR_TASKS	16
/* Calls of a task in one round. More make a history that is slow to check. */
#define TASK_CALLS	12
/* Each request has at most one modprobe. The modules are unloaded at the end. */
#define MAX_CALLS	(NR_TASKS * TASK_CALLS * 2 + NR_MODULES)
/* The parent, and a modprobe, in place of the number of a task. */
#define PARENT		NR_TASKS
#define HELPER		(NR_TASKS + 1)
/* A round that takes longer never ends. */
#define ROUND_LIMIT_S	30
#define FOLDER		"/tmp/load_history.files"
#define SHARED_PATH	FOLDER "/shared"

enum kind { FINIT, INIT, UNLOAD, REQUEST, MODPROBE_LOAD };

static const char * const kind_names[] = {
	[FINIT] = "finit",
	[INIT] = "init",
	[UNLOAD] = "unload",
	[REQUEST] = "request",
	[MODPROBE_LOAD] = "modprobe",
};

/* A module has two files of the same bytes, a compressed one, and a broken one. */
enum file { A, B, COMPRESSED, BAD, NR_FILES, NO_FILE = NR_FILES };

static const char * const file_names[] = {
	[A] = "a.ko",
	[B] = "b.ko",
	[COMPRESSED] = "a.ko.zst",
	[BAD] = "bad.ko",
	[NO_FILE] = "",
};

/* The last ones make the init function return ENODATA, which nothing else returns. */
#define FAILING		2
static const char * const arguments[] = { "", "tag=1", "init_result=-61" };

struct call {
	unsigned int start;	/* 0: the task was killed before */
	unsigned int end;	/* 0: not yet */
	int result;
	unsigned char task, kind, module, file, args;
	bool is_killed, has_signal;
};

/* Shared by all tasks, and by modprobe through SHARED_PATH. */
static struct {
	unsigned int clock;
	unsigned int seed;
	unsigned int round;	/* 0: over; a modprobe that comes now is late */
	unsigned int nr_modprobes;
	unsigned int nr_calls;
	struct call calls[MAX_CALLS];
	pid_t pids[NR_TASKS];
} *shared;

static struct image images[NR_MODULES][NR_FILES];

/* Whether a handler without SA_RESTART has run. */
static bool has_signal;

static unsigned int tick(void)
{
	return __atomic_add_fetch(&shared->clock, 1, __ATOMIC_SEQ_CST);
}

static void module_name(char name[MODULE_NAME_MAX + 1], int module)
{
	snprintf(name, MODULE_NAME_MAX + 1, "hist%d", module);
}

static void file_path(char path[PATH_MAX], int module, enum file file)
{
	snprintf(path, PATH_MAX, FOLDER "/%d%s", module, file_names[file]);
}

static void map_shared(int flags)
{
	int fd = open(SHARED_PATH, O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd < 0 || ((flags & O_CREAT) && ftruncate(fd, sizeof(*shared))))
		die("%s: %s\n", SHARED_PATH, strerror(errno));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s\n", strerror(errno));
	close(fd);
}

/*
 * Calls
 */

static struct call *begin(struct call call)
{
	unsigned int i = __atomic_fetch_add(&shared->nr_calls, 1, __ATOMIC_SEQ_CST);

	shared->calls[i] = call;
	__atomic_store_n(&has_signal, false, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->calls[i].start, tick(), __ATOMIC_SEQ_CST);
	return &shared->calls[i];
}

static void end(struct call *call, int result)
{
	call->result = result;
	call->has_signal = __atomic_load_n(&has_signal, __ATOMIC_RELAXED);
	__atomic_store_n(&call->end, tick(), __ATOMIC_SEQ_CST);
}

static int load(const struct call *call)
{
	struct load load = { .args = arguments[call->args] };
	char path[PATH_MAX];

	if (call->kind == INIT) {
		load.image = &images[call->module][call->file];
	} else {
		file_path(path, call->module, call->file);
		load.path = path;
		load.flags = call->file == COMPRESSED ? MODULE_INIT_COMPRESSED_FILE : 0;
	}
	return do_load(&load);
}

static int request_of_round(int module)
{
	char name[MODULE_NAME_MAX + 1];
	int fd = open(REQUEST_DEVICE, O_RDONLY | O_CLOEXEC);
	int ret;

	/* With its number, modprobe knows whether the round is over. */
	snprintf(name, sizeof(name), "%d:%u", module, shared->round);
	ret = ioctl(fd, TEST_DEDUP_REQUEST, name);
	if (ret < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static void make_call(struct call call)
{
	struct call *record = begin(call);
	char name[MODULE_NAME_MAX + 1];
	int result;

	switch (call.kind) {
	case UNLOAD:
		module_name(name, call.module);
		result = unload_module(name);
		break;
	case REQUEST:
		result = request_of_round(call.module);
		break;
	default:
		result = load(&call);
	}
	end(record, result);
}

/* What the kernel runs for a request. It may outlive a request that is killed. */
static int run_modprobe(const char *name)
{
	struct call call = { .task = HELPER, .kind = MODPROBE_LOAD };
	unsigned int round, module;
	struct call *record;
	int result = EAGAIN;

	map_shared(0);
	if (sscanf(name, "%u:%u", &module, &round) != 2)
		return 255;
	call.module = module;
	__atomic_add_fetch(&shared->nr_modprobes, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&shared->round, __ATOMIC_SEQ_CST) == round) {
		record = begin(call);
		if (record->start % 4) {
			result = load(&call);
		} else {
			record->file = NO_FILE;
			result = ENOENT;
		}
		end(record, result);
	}
	__atomic_sub_fetch(&shared->nr_modprobes, 1, __ATOMIC_SEQ_CST);
	return result == EEXIST ? 0 : result;
}

/*
 * Tasks
 */

static void on_interrupt(int sig)
{
	__atomic_store_n(&has_signal, true, __ATOMIC_RELAXED);
}

static void send_signal(unsigned int *seed, int nr_tasks)
{
	/* The parent continues a task that has stopped. */
	static const int signals[] = {
		SIGUSR1, SIGUSR1, SIGUSR1, SIGUSR2, SIGUSR2, SIGSTOP, SIGSTOP, SIGKILL
	};
	pid_t pid = shared->pids[rand_r(seed) % nr_tasks];

	kill(pid, signals[rand_r(seed) % ARRAY_SIZE(signals)]);
}

static struct call draw_call(unsigned int *seed, int nr_modules)
{
	struct call call = { .module = rand_r(seed) % nr_modules, .file = NO_FILE };
	unsigned int n = rand_r(seed) % 100;

	if (n < 20) {
		call.kind = UNLOAD;
	} else if (n < 22) {
		call.kind = REQUEST;
	} else {
		call.kind = n < 75 ? FINIT : INIT;
		call.file = call.kind == INIT ? A : rand_r(seed) % BAD;
		call.args = rand_r(seed) % 8 ? rand_r(seed) % FAILING : FAILING;
		if (rand_r(seed) % 32 == 0)
			call.file = BAD;
	}
	return call;
}

static void run_task(int task, int nr_tasks, int nr_modules)
{
	/* A linear congruence like that of rand_r() must not see neighbours. */
	unsigned int seed = (shared->seed + shared->round * NR_TASKS + task) * 2654435761U;
	struct sigaction interrupt = { .sa_handler = on_interrupt };
	struct sigaction restart = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int i;

	sigaction(SIGUSR1, &interrupt, NULL);
	sigaction(SIGUSR2, &restart, NULL);
	for (i = 0; i < TASK_CALLS; i++) {
		struct call call = draw_call(&seed, nr_modules);

		call.task = task;
		if (rand_r(&seed) % 16 == 0)
			send_signal(&seed, nr_tasks);
		make_call(call);
	}
}

/*
 * Rounds
 */

/* Records that the call which a killed task was making has ended. */
static void end_killed(int task)
{
	unsigned int i;

	for (i = 0; i < shared->nr_calls; i++) {
		struct call *call = &shared->calls[i];

		if (call->task == task && call->start && !call->end) {
			call->is_killed = true;
			call->end = tick();
		}
	}
}

/* Returns false if the tasks do not end. */
static bool reap_tasks(int nr_tasks)
{
	int left = nr_tasks, task, status;
	pid_t pid;

	alarm(ROUND_LIMIT_S);
	while (left) {
		pid = waitpid(-1, &status, WUNTRACED);
		if (pid < 0)
			return false;
		if (WIFSTOPPED(status)) {
			kill(pid, SIGCONT);
			continue;
		}
		for (task = 0; shared->pids[task] != pid; task++)
			;
		if (WIFSIGNALED(status))
			end_killed(task);
		left--;
	}
	alarm(0);
	return true;
}

static void print_round(unsigned int round)
{
	unsigned int i;

	printf("round %u\n", round);
	for (i = 0; i < shared->nr_calls; i++) {
		const struct call *call = &shared->calls[i];
		char result[16] = "-";

		if (!call->start)
			continue;
		if (call->end && !call->is_killed)
			snprintf(result, sizeof(result), "%d", call->result);
		printf("%u %u %u %s %c hist%u %s", call->task, call->start, call->end, result,
		       call->has_signal ? 's' : '-', call->module, kind_names[call->kind]);
		if (call->file != NO_FILE)
			printf(" %s", file_names[call->file]);
		if (call->args)
			printf(" %s", arguments[call->args]);
		putchar('\n');
	}
}

/* Returns the number of calls. */
static unsigned int run_round(unsigned int round)
{
	unsigned int seed = shared->seed + round;
	int nr_tasks = 2 + rand_r(&seed) % (NR_TASKS - 1);
	int nr_modules = 1 + rand_r(&seed) % NR_MODULES;
	int gate[2], i;
	char c;

	memset(shared->calls, 0, shared->nr_calls * sizeof(*shared->calls));
	shared->nr_calls = 0;
	shared->clock = 0;
	shared->round = round;
	if (pipe2(gate, O_CLOEXEC))
		die("pipe: %s\n", strerror(errno));
	for (i = 0; i < nr_tasks; i++) {
		pid_t pid = fork_child();

		if (!pid) {
			close(gate[1]);
			if (read(gate[0], &c, 1))
				_exit(KSFT_FAIL);
			run_task(i, nr_tasks, nr_modules);
			_exit(0);
		}
		shared->pids[i] = pid;
	}
	close(gate[0]);
	/* The last end of the pipe: all tasks start. */
	close(gate[1]);
	if (!reap_tasks(nr_tasks)) {
		print_round(round);
		die("round %u does not end\n", round);
	}

	__atomic_store_n(&shared->round, 0, __ATOMIC_SEQ_CST);
	wait_until(!__atomic_load_n(&shared->nr_modprobes, __ATOMIC_SEQ_CST),
		   "a modprobe does not end\n");
	for (i = 0; i < nr_modules; i++)
		make_call((struct call){
			.task = PARENT, .kind = UNLOAD, .module = i, .file = NO_FILE });
	print_round(round);
	return shared->nr_calls;
}

/*
 * Modules
 */

/* Breaks the version of the kernel that a module is for. */
static void break_version(const struct image *image)
{
	struct elf_shdr *shdr = find_section(image, ".modinfo");
	char *vermagic = memmem(image->bytes + shdr->sh_offset, shdr->sh_size, "vermagic=", 9);

	if (!vermagic)
		die("the module has no vermagic\n");
	vermagic[9] = '?';
}

static void make_modules(void)
{
	struct image original = read_module(MODULE_NAME);
	char path[PATH_MAX], temporary[PATH_MAX], name[MODULE_NAME_MAX + 1];
	int i, file;

	for (i = 0; i < NR_MODULES; i++) {
		module_name(name, i);
		images[i][A] = copy_image(&original, original.len);
		set_name(&original, &images[i][A], name);
		set_symbol(&images[i][A], name);
		images[i][B] = images[i][A];
		images[i][COMPRESSED] = compress(&images[i][A]);
		images[i][BAD] = copy_image(&images[i][A], original.len);
		break_version(&images[i][BAD]);
		for (file = 0; file < NR_FILES; file++) {
			file_path(path, i, file);
			write_image_to(temporary, FOLDER, &images[i][file]);
			if (rename(temporary, path))
				die("%s: %s\n", path, strerror(errno));
		}
	}
	free_image(&original);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	const char *calls = getenv("DEDUP_CALLS"), *seed = getenv("DEDUP_SEED");
	unsigned long left = calls ? strtoul(calls, NULL, 0) : 10000;
	unsigned int round;
	struct helper helper;

	if (is_helper(argc, argv))
		return run_modprobe(argv[3]);

	need_stats();
	sigaction(SIGALRM, &sa, NULL);
	run_command("mkdir -p " FOLDER);
	make_modules();
	map_shared(O_CREAT);
	shared->seed = seed ? strtoul(seed, NULL, 0) : time(NULL);
	printf("seed %u\n", shared->seed);
	fflush(stdout);
	install_helper(&helper);
	for (round = 1; left; round++) {
		unsigned int made = run_round(round);

		left -= made < left ? made : left;
	}
	remove_helper(&helper);
	return 0;
}
