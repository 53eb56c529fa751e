/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Expectations of tests of loads. Include after kselftest_harness.h.
 */
#ifndef DEDUP_EXPECT_H
#define DEDUP_EXPECT_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "dedup_common.h"

/*
 * Checks by how much counters have increased. Each counter of loads that failed
 * or wasted memory must be in @want, or unchanged.
 */
static void expect_counters(struct __test_metadata *_metadata, const struct counters *before,
			    const struct counters *want)
{
	static const enum dedup_counter compared[] = {
		SAME_FILE, SAME_NAME, ALREADY_LOADED, FROM_MEMORY, ABORTED, UNTRACKED, DEADLOCKS,
		BYTES_SAVED,
	};
	struct counters change = counters_since(before);
	const unsigned long *loads = change.dedup;
	unsigned int i;

	for (i = 0; i < NR_MOD_COUNTERS; i++) {
		unsigned long expected = want->mod[i], seen = change.mod[i];

		if (i == TOTAL_MOD_SIZE || i == TOTAL_TEXT_SIZE) {
			expected = want->mod[MODCOUNT] > 0;
			seen = seen > 0;
		}
		EXPECT_EQ(expected, seen)
			TH_LOG("%s", mod_counter_names[i]);
	}
	for (i = 0; i < ARRAY_SIZE(compared); i++)
		EXPECT_EQ(want->dedup[compared[i]], change.dedup[compared[i]])
			TH_LOG("%s", dedup_counter_names[compared[i]]);
	EXPECT_EQ(loads[LOADS], loads[PERFORMED] + loads[SAME_FILE] + loads[SAME_NAME] +
		  loads[ALREADY_LOADED] + loads[FROM_MEMORY] + loads[ABORTED]);
}

/* Loads a module, and then n duplicates, each of which saves @size and wastes nothing. */
static void load_duplicates(struct __test_metadata *_metadata, const struct load *first,
			    const struct load *duplicate, size_t size, int n)
{
	int i, others = 0;
	struct counters before, want = { .dedup[BYTES_SAVED] = n * size };
	char *stats, *stats_after;

	want.dedup[duplicate->path ? ALREADY_LOADED : FROM_MEMORY] = n;
	ASSERT_EQ(0, do_load(first));
	stats = read_text(STATS, SIZE_MAX);
	before = read_counters();
	for (i = 0; i < n; i++)
		others += do_load(duplicate) != EEXIST;
	EXPECT_EQ(0, others);
	expect_counters(_metadata, &before, &want);
	stats_after = read_text(STATS, SIZE_MAX);
	EXPECT_STREQ(stats, stats_after);
	free(stats);
	free(stats_after);
}

#endif
