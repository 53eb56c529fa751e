// SPDX-License-Identifier: GPL-2.0
/*
 * Storms: many callers that load one module at the same moment.
 *
 * For each number of callers, of both modules and both system calls, threads
 * wait at a barrier and then load. Prints a table, TAB between the columns, whose
 * first line names them. The owner is the caller whose load succeeded first: by
 * finit_module() the others may succeed too.
 *
 * Usage: storm FOLDER REPEATS CALLERS...
 */
#include <pthread.h>

#include "dedup_common.h"
#include "meminfo.h"

#define MAX_CALLERS	255

struct caller_thread {
	pthread_t thread;
	const struct load *load;
	int fd;		/* open before the storm */
	int err;
	long took;	/* us */
	long end;	/* us */
};

static struct caller_thread callers[MAX_CALLERS];
static pthread_barrier_t start;

static int meminfo_fd;
static volatile bool over;
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
		ksft_exit_fail_msg("/proc/meminfo cannot be read\n");
	return info.vmalloc;
}

/* Ahead of the callers, or it would see only what they leave behind. */
static void *watch(void *arg)
{
	const struct sched_param first = { .sched_priority = 1 };

	pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	while (!over) {
		long seen = vmalloc_kib();

		if (seen > peak_kib)
			peak_kib = seen;
		usleep(1000);
	}
	return NULL;
}

static unsigned long wasted_bytes(void)
{
	return read_counter("invalid_kread_bytes") + read_counter("invalid_decompress_bytes") +
	       read_counter("invalid_becoming_bytes") + read_counter("invalid_mod_bytes");
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

static void storm(const char *name, const struct load *load, int n)
{
	long begun, before, last = 0, took[MAX_CALLERS] = {}, waiters;
	int i, owner = -1, loaded = 0, refused = 0;
	unsigned long wasted = wasted_bytes();
	pthread_t watcher;

	must(pthread_barrier_init(&start, NULL, n + 1));
	for (i = 0; i < n; i++) {
		callers[i] = (struct caller_thread){ .load = load, .fd = -1 };
		if (load->path)
			callers[i].fd = open(load->path, O_RDONLY | O_CLOEXEC);
		must(pthread_create(&callers[i].thread, NULL, call, &callers[i]));
	}
	over = false;
	before = peak_kib = vmalloc_kib();
	must(pthread_create(&watcher, NULL, watch, NULL));
	begun = microseconds();
	pthread_barrier_wait(&start);
	for (i = 0; i < n; i++) {
		must(pthread_join(callers[i].thread, NULL));
		if (load->path)
			close(callers[i].fd);
	}
	over = true;
	must(pthread_join(watcher, NULL));
	pthread_barrier_destroy(&start);

	for (i = 0; i < n; i++) {
		const struct caller_thread *c = &callers[i];

		last = c->end > last ? c->end : last;
		refused += c->err == EEXIST;
		if (c->err)
			continue;
		loaded++;
		if (owner < 0 || c->end < callers[owner].end)
			owner = i;
	}
	if (owner < 0)
		ksft_exit_fail_msg("%s: nobody loaded it: %s\n", name, strerror(callers[0].err));
	for (i = 0, waiters = 0; i < n; i++)
		if (i != owner)
			took[waiters++] = callers[i].took;
	qsort(took, waiters, sizeof(*took), compare);
	printf("%s\t%s\t%d\t%ld\t%ld\t%ld\t%ld\t%ld\t%lu\t%d\t%d\t%d\n",
	       load->path ? "finit_module" : "init_module", name, n, last - begun,
	       callers[owner].took, took[waiters / 2], took[waiters * 99 / 100],
	       peak_kib - before, wasted_bytes() - wasted, loaded, refused,
	       n - loaded - refused);
	must_unload(name);
}

int main(int argc, char **argv)
{
	static const char * const names[] = { "storm_small", "storm_large" };
	int i, j, k;

	if (argc < 4)
		ksft_exit_fail_msg("usage: storm FOLDER REPEATS CALLERS...\n");
	need_root_and_stats();
	use_own_tmp();
	meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	puts("call\tmodule\tcallers\twall us\towner us\twaiter median us\twaiter p99 us\t"
	     "vmalloc peak KiB\twasted bytes\tloaded\trefused\tother");
	for (i = 0; i < 2; i++) {
		char from[PATH_MAX];
		struct image image;
		struct load file = { .args = "" }, memory = { .args = "", .image = &image };

		module_path(from, argv, names[i]);
		image = read_image(from);
		file.path = write_image(&image);
		for (j = 3; j < argc; j++) {
			int n = atoi(argv[j]);

			if (n < 1 || n > MAX_CALLERS)
				ksft_exit_fail_msg("'%s' is not 1 to %d callers\n", argv[j], MAX_CALLERS);
			for (k = 0; k < atoi(argv[2]); k++) {
				storm(names[i], &file, n);
				storm(names[i], &memory, n);
			}
		}
		unlink(file.path);
	}
	return 0;
}
