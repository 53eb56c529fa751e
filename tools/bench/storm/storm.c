// SPDX-License-Identifier: GPL-2.0
/*
 * Storms: many callers load one module at the same moment.
 *
 * Runs REPEATS storms for each number of CALLERS, for each module and both system
 * calls. In each storm, threads wait at a barrier and then load the module. Prints a
 * table with TABs between the columns; the first line names them. The owner is the
 * caller whose load succeeds first, or ends first if all fail. With finit_module(),
 * others may succeed as well. storm_bad is storm_large with a wrong vermagic.
 *
 * Usage: env DEDUP_MODULES=FOLDER storm REPEATS CALLERS...
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dedup_common.h"
#include "meminfo.h"

#define MOST_CALLERS	255

struct caller_thread {
	pthread_t thread;
	const struct load *load;
	int fd;		/* opened before the storm */
	int err;
	long took;	/* us */
	long end;	/* us */
};

static struct caller_thread callers[MOST_CALLERS];
static pthread_barrier_t start;

static int meminfo_fd;
static volatile bool stopped;
static long peak_kib;

static long microseconds(void)
{
	return now() * 1e6;
}

static void *call(void *arg)
{
	struct caller_thread *c = arg;
	const struct load *load = c->load;
	long begun;

	pthread_barrier_wait(&start);
	begun = microseconds();
	if (load->path)
		c->err = syscall(SYS_finit_module, c->fd, load->args, 0) ? errno : 0;
	else
		c->err = syscall(SYS_init_module, load->image->bytes, load->image->len,
				 load->args) ? errno : 0;
	c->end = microseconds();
	c->took = c->end - begun;
	return NULL;
}

static long vmalloc_kib(void)
{
	struct meminfo info;

	if (!read_meminfo(meminfo_fd, &info))
		ksft_exit_fail_msg("cannot read /proc/meminfo\n");
	return info.vmalloc;
}

/* Needs a higher priority than the callers. Otherwise it would run after the peak. */
static void *watch(void *arg)
{
	const struct sched_param first = { .sched_priority = 1 };

	pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	while (!stopped) {
		long seen = vmalloc_kib();

		if (seen > peak_kib)
			peak_kib = seen;
		usleep(1000);
	}
	return NULL;
}

static unsigned long wasted_bytes(void)
{
	return read_mod_counter(INVALID_KREAD_BYTES) + read_mod_counter(INVALID_DECOMPRESS_BYTES) +
	       read_mod_counter(INVALID_BECOMING_BYTES) + read_mod_counter(INVALID_MOD_BYTES);
}

static int compare(const void *a, const void *b)
{
	const long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void must(int err)
{
	if (err)
		ksft_exit_fail_msg("pthread: %s\n", strerror(err));
}

static void storm(const char *name, bool is_bad, const struct load *load, int n)
{
	long begun, before, last = 0, took[MOST_CALLERS] = {}, waiters;
	int i, owner = -1, loaded = 0, rejected = 0;
	unsigned long wasted = wasted_bytes();
	pthread_t watcher;

	must(pthread_barrier_init(&start, NULL, n + 1));
	for (i = 0; i < n; i++) {
		callers[i] = (struct caller_thread){ .load = load, .fd = -1 };
		if (load->path)
			callers[i].fd = open(load->path, O_RDONLY | O_CLOEXEC);
		must(pthread_create(&callers[i].thread, NULL, call, &callers[i]));
	}
	stopped = false;
	before = peak_kib = vmalloc_kib();
	must(pthread_create(&watcher, NULL, watch, NULL));
	begun = microseconds();
	pthread_barrier_wait(&start);
	for (i = 0; i < n; i++) {
		must(pthread_join(callers[i].thread, NULL));
		if (load->path)
			close(callers[i].fd);
	}
	stopped = true;
	must(pthread_join(watcher, NULL));
	pthread_barrier_destroy(&start);

	for (i = 0; i < n; i++) {
		const struct caller_thread *c = &callers[i];

		last = c->end > last ? c->end : last;
		rejected += c->err == EEXIST;
		loaded += !c->err;
		if (c->err && !is_bad)
			continue;
		if (owner < 0 || c->end < callers[owner].end)
			owner = i;
	}
	if (owner < 0)
		ksft_exit_fail_msg("%s: no load succeeded: %s\n", name, strerror(callers[0].err));
	for (i = 0, waiters = 0; i < n; i++)
		if (i != owner)
			took[waiters++] = callers[i].took;
	qsort(took, waiters, sizeof(*took), compare);
	printf("%s\t%s\t%d\t%ld\t%ld\t%ld\t%ld\t%ld\t%lu\t%d\t%d\t%d\n",
	       load->path ? "finit_module" : "init_module", name, n, last - begun,
	       callers[owner].took, took[waiters / 2], took[waiters * 99 / 100],
	       peak_kib - before, wasted_bytes() - wasted, loaded, rejected,
	       n - loaded - rejected);
	if (!is_bad)
		must_unload(name);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name, *file;
	} modules[] = {
		{ "storm_small", "storm_small" },
		{ "storm_large", "storm_large" },
		{ "storm_bad", "storm_large" },
	};
	unsigned int i;
	int j, k;

	if (argc < 3)
		ksft_exit_fail_msg("usage: storm REPEATS CALLERS...\n");
	need_file(STATS, "CONFIG_MODULE_STATS, and root,");
	use_own_tmp();
	meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	puts("call\tmodule\tcallers\twall us\towner us\twaiter median us\twaiter p99 us\t"
	     "vmalloc peak KiB\twasted bytes\tloaded\trejected\tother");
	for (i = 0; i < ARRAY_SIZE(modules); i++) {
		bool is_bad = i == 2;
		struct image image = read_module(modules[i].file);
		char path[PATH_MAX];
		struct load file = { .args = "" }, memory = { .args = "", .image = &image };

		if (is_bad)
			spoil_string(&image, ".modinfo", "vermagic=");
		file.path = write_image(path, &image);
		for (j = 2; j < argc; j++) {
			int n = atoi(argv[j]);

			if (n < 1 || n > MOST_CALLERS)
				ksft_exit_fail_msg("CALLERS '%s' is not a number from 1 to %d\n",
						   argv[j], MOST_CALLERS);
			for (k = 0; k < atoi(argv[1]); k++) {
				storm(modules[i].name, is_bad, &file, n);
				storm(modules[i].name, is_bad, &memory, n);
			}
		}
		unlink(path);
		free_image(&image);
	}
	return 0;
}
