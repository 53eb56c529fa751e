// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the frequency of this machine's time stamp counter in kHz. QEMU's
 * emulation shows this counter to its guests, whose own measurement goes wrong
 * when the machine is busy: their clock then runs many times too fast.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct sample {
	uint64_t tsc, ns;
};

/* The two clocks at the same time: the best of many, if others run in between. */
static struct sample sample(void)
{
	struct sample best;
	uint64_t least = UINT64_MAX;
	int i;

	for (i = 0; i < 1000; i++) {
		uint64_t before = __rdtsc(), after;
		struct timespec ts;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		after = __rdtsc();
		if (after - before >= least)
			continue;
		least = after - before;
		best.tsc = before + least / 2;
		best.ns = ts.tv_sec * 1000000000ULL + ts.tv_nsec;
	}
	return best;
}

int main(void)
{
	const struct timespec interval = { .tv_nsec = 200000000 };
	struct sample first = sample(), last;

	nanosleep(&interval, NULL);
	last = sample();
	printf("%llu\n", (last.tsc - first.tsc) * 1000000ULL / (last.ns - first.ns));
	return 0;
}
