// SPDX-License-Identifier: GPL-2.0
/*
 * Looks at VmallocUsed every 10 ms until it is told to end (SIGTERM), and then
 * prints the highest value seen, in KiB. A peak between two looks is not seen.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void end(int signal)
{
	over = signal;
}

static long vmalloc_used(int fd)
{
	static const char label[] = "VmallocUsed:";
	char text[8192];
	const char *line;
	ssize_t len;

	len = pread(fd, text, sizeof(text) - 1, 0);
	if (len <= 0)
		return -1;
	text[len] = '\0';
	line = strstr(text, label);
	return line ? strtol(line + sizeof(label) - 1, NULL, 10) : -1;
}

int main(void)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	const struct sigaction action = { .sa_handler = end };
	long peak = -1;
	int fd;

	fd = open("/proc/meminfo", O_RDONLY);
	if (fd < 0 || sigaction(SIGTERM, &action, NULL)) {
		perror("vmalloc_peak");
		return 1;
	}
	while (!over) {
		long now = vmalloc_used(fd);

		if (now < 0) {
			fputs("vmalloc_peak: no VmallocUsed\n", stderr);
			return 1;
		}
		if (now > peak)
			peak = now;
		nanosleep(&pause, NULL);
	}
	printf("%ld\n", peak);
	return 0;
}
