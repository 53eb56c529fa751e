// SPDX-License-Identifier: GPL-2.0
/*
 * Cost of a module load without duplicates.
 *
 * Prints "label<TAB>value" lines: the least, the median and the most
 * nanoseconds of finit_module(2) and of init_module(2). With -icount shift=0,
 * a nanosecond of a QEMU guest is one instruction.
 *
 * Usage: load_cost MODULE.ko...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void measure(const char *call, const char *name, const struct load *load)
{
	static long took[LOADS];
	int i;

	for (i = 0; i < LOADS; i++) {
		long begun = nanoseconds();
		int err = do_load(load);

		took[i] = nanoseconds() - begun;
		if (err)
			die("%s: %s\n", name, strerror(err));
		must_unload(name);
	}
	qsort(took, LOADS, sizeof(*took), compare);
	printf("%s %s least\t%ld\n", call, name, took[0]);
	printf("%s %s median\t%ld\n", call, name, took[LOADS / 2]);
	printf("%s %s most\t%ld\n", call, name, took[LOADS - 1]);
}

static void measure_module(const char *from, const struct image *image)
{
	char path[PATH_MAX], *name = strdup(basename(from));
	struct load file = { .path = write_image(path, image), .args = "" };
	struct load memory = { .image = image, .args = "" };

	if (!name)
		die("no memory\n");
	*strchrnul(name, '.') = '\0';
	measure("finit_module", name, &file);
	measure("init_module", name, &memory);
	unlink(path);
	free(name);
}

int main(int argc, char **argv)
{
	struct image images[argc];
	int i;

	/* Read first: the modules may be in the /tmp that is about to be hidden. */
	for (i = 1; i < argc; i++)
		images[i] = read_image(argv[i]);
	/* A plain file system, like that of installed modules, not an overlay. */
	use_own_tmp();
	for (i = 1; i < argc; i++)
		measure_module(argv[i], &images[i]);
	return 0;
}
