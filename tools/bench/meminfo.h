/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Read memory usage from /proc/meminfo.
 */
#ifndef BENCH_MEMINFO_H
#define BENCH_MEMINFO_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All values in KiB. */
struct meminfo {
	long vmalloc;	/* VmallocUsed */
	long used;	/* "used" of free(1): MemTotal less MemAvailable */
};

static inline long meminfo_field(const char *text, const char *label)
{
	const char *line = strstr(text, label);

	return line ? strtol(line + strlen(label), NULL, 10) : -1;
}

/* Reads from an open /proc/meminfo. Returns false if a value is missing. */
static inline bool read_meminfo(int fd, struct meminfo *info)
{
	char text[8192];
	long total, available;
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

	if (len <= 0)
		return false;
	text[len] = '\0';
	info->vmalloc = meminfo_field(text, "VmallocUsed:");
	total = meminfo_field(text, "MemTotal:");
	available = meminfo_field(text, "MemAvailable:");
	info->used = total - available;
	return info->vmalloc >= 0 && total >= 0 && available >= 0;
}

#endif
