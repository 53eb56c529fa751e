// SPDX-License-Identifier: GPL-2.0
/*
 * What a load of a module costs that nobody else loads.
 *
 * Prints "label<TAB>value" lines: the least, the median and the greatest time
 * of finit_module(2) and init_module(2), in nanoseconds. Under QEMU's
 * -icount shift=0 a nanosecond is an instruction, see scripts/cost.
 *
 * Usage: load_cost [FOLDER OF test_dedup.ko]
 */
#include "dedup_common.h"

/* Enough for a median that no interrupt decides. */
#define LOADS	201

static long nanoseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void measure(const char *name, const struct load *load)
{
	static long took[LOADS];
	int i;

	for (i = 0; i < LOADS; i++) {
		long begun = nanoseconds();
		int err = do_load(load);

		took[i] = nanoseconds() - begun;
		if (err)
			ksft_exit_fail_msg("%s: %s\n", name, strerror(err));
		must_unload(MODULE_NAME);
	}
	qsort(took, LOADS, sizeof(*took), compare);
	printf("%s_min\t%ld\n%s_median\t%ld\n%s_max\t%ld\n", name, took[0],
	       name, took[LOADS / 2], name, took[LOADS - 1]);
}

int main(int argc, char **argv)
{
	struct load file = { .args = "" }, memory = { .args = "" };
	char from[PATH_MAX], *path;
	struct image image;

	module_path(from, argv, MODULE_NAME);
	image = read_image(from);
	path = write_image(&image);
	file.path = path;
	memory.image = &image;
	measure("finit_module", &file);
	measure("init_module", &memory);
	unlink(path);
	free(path);
	free(image.bytes);
	return 0;
}
