// SPDX-License-Identifier: GPL-2.0
/*
 * Samples memory usage every 10 ms until SIGTERM, then prints the highest values.
 * Misses a peak between two samples.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "../meminfo.h"

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	stopped = signal;
}

int main(void)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	const struct sigaction action = { .sa_handler = stop };
	struct meminfo now, peak = { 0 };
	int fd;

	fd = open("/proc/meminfo", O_RDONLY);
	if (fd < 0 || sigaction(SIGTERM, &action, NULL)) {
		perror("memory_peak");
		return 1;
	}
	while (!stopped) {
		if (!read_meminfo(fd, &now)) {
			fputs("memory_peak: cannot read /proc/meminfo\n", stderr);
			return 1;
		}
		if (now.vmalloc > peak.vmalloc)
			peak.vmalloc = now.vmalloc;
		if (now.used > peak.used)
			peak.used = now.used;
		nanosleep(&pause, NULL);
	}
	printf("vmalloc peak KiB\t%ld\nused peak KiB\t%ld\n", peak.vmalloc, peak.used);
	return 0;
}
