/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One look at /proc/meminfo.
 */
#ifndef BENCH_MEMINFO_H
#define BENCH_MEMINFO_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of /proc/meminfo, in KiB. */
struct meminfo {
	long vmalloc;	/* VmallocUsed */
	long used;	/* what free(1) calls used: MemTotal less MemAvailable */
};

static inline long meminfo_field(const char *text, const char *label)
{
	const char *line = strstr(text, label);

	return line ? strtol(line + strlen(label), NULL, 10) : -1;
}

/* Reads an open /proc/meminfo; false if it does not say what is asked. */
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
