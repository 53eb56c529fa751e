// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/modules: names, modes and format of the files, and that one
 * open() of "stats" shows one text, whole and in itself consistent, however long
 * it is, however small the reads are, and whatever happens meanwhile.
 *
 * Duplicates are counted only if they are not caught before, so the kernel needs
 * module.dedup=inode on its command line if it knows that parameter.
 *
 * Usage: stats_dedup [FOLDER OF test_dedup.ko]
 */
#include <ctype.h>

#include "dedup_common.h"

#define NR_NAMES	150
/* How many modules are recorded at most. */
#define NR_RECORDS	1024
#define NR_OTHERS	5
#define NR_READERS	64
#define NR_STORMERS	4

/* test_dedup, and a copy whose name is changed. */
static struct image image, renamed;

/*
 * What the text has to look like
 */

/* Takes the line of that label off the text. */
static bool take(const char **text, const char *label, unsigned long *value)
{
	char line[80];
	int len = snprintf(line, sizeof(line), "%25s\t", label);

	if (strncmp(*text, line, len))
		return false;
	*value = strtoul(*text + len, NULL, 10);
	len = snprintf(line, sizeof(line), "%25s\t%lu\n", label, *value);
	if (strncmp(*text, line, len))
		return false;
	*text += len;
	return true;
}

/* Takes the line of an average, which is there if there is one. */
static bool take_average(const char **text, const char *label, unsigned long sum,
			 unsigned long count)
{
	unsigned long average;

	if (!sum || !count)
		return true;
	return take(text, label, &average) && average == (sum + count - 1) / count;
}

static bool take_string(const char **text, const char *string)
{
	size_t len = strlen(string);

	if (strncmp(*text, string, len))
		return false;
	*text += len;
	return true;
}

/* Takes one row of the list of duplicates. */
static bool take_row(const char **text)
{
	/* The last one is for all that found no room, after the others. */
	static const char * const reasons[] = {
		"Becoming", "Load", "Becoming & Load", "Too many to list",
	};
	const char *name = *text + strspn(*text, " ");
	size_t len = strcspn(name, "\t\n");
	unsigned long times;
	unsigned int i;

	if (name[len] != '\t')
		return false;
	times = strtoul(name + len + 1, NULL, 10);
	for (i = 0; i < ARRAY_SIZE(reasons); i++) {
		char row[512];

		snprintf(row, sizeof(row), "%25.*s\t%15lu\t%25s\n", (int)len, name, times,
			 reasons[i]);
		if (take_string(text, row))
			return true;
	}
	return false;
}

/* Whether it is one text, complete, and what it says agrees with itself. */
static bool is_consistent(const char *text)
{
	static const char * const labels[] = {
		"Mods ever loaded", "Mods failed on kread", "Mods failed on decompress",
		"Mods failed on becoming", "Mods failed on load", "Total module size",
		"Total mod text size", "Failed kread bytes", "Failed decompress bytes",
		"Failed becoming bytes", "Failed kmod bytes", "Virtual mem wasted bytes",
	};
	unsigned long v[ARRAY_SIZE(labels)];
	const char *rest = text;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(labels); i++)
		if (!take(&rest, labels[i], &v[i]))
			goto bad;
	if (v[11] != v[7] + v[8] + v[9] + v[10])
		goto bad;
	if (!take_average(&rest, "Average mod size", v[5], v[0]) ||
	    !take_average(&rest, "Average mod text size", v[6], v[0]) ||
	    !take_average(&rest, "Avg fail kread bytes", v[7], v[1]) ||
	    !take_average(&rest, "Avg fail becoming bytes", v[9], v[3]) ||
	    !take_average(&rest, "Avg fail decomp bytes", v[8], v[2]) ||
	    !take_average(&rest, "Average fail load bytes", v[10], v[4]))
		goto bad;
	if (!*rest)
		return true;
	if (!take_string(&rest, "Duplicate failed modules:\n") ||
	    !take_string(&rest, "              Module-name\t How-many-times\t"
				"                   Reason\n"))
		goto bad;
	while (*rest)
		if (!take_row(&rest))
			goto bad;
	return true;

bad:
	ksft_print_msg("byte %zd of %zu: %.60s\n", rest - text, strlen(text), rest);
	return false;
}

static bool has_row(const char *text, const char *name, unsigned long times)
{
	char row[512];

	snprintf(row, sizeof(row), "\n%25s\t%15lu\t%25s\n", name, times, "Becoming");
	return strstr(text, row);
}

static bool stats_are_consistent(size_t step)
{
	char *text = read_text(STATS, step);
	bool ok = is_consistent(text);

	free(text);
	return ok;
}

/*
 * Tests
 */

static bool has_mode_0400(const char *path)
{
	struct stat st;

	return !stat(path, &st) && st.st_mode == (S_IFREG | 0400);
}

static void test_files(void)
{
	unsigned int i;
	bool ok;

	for (i = 0; i < NR_COUNTERS; i++) {
		char path[PATH_MAX], *text, *end;

		snprintf(path, sizeof(path), STATS_DIR "%s", counter_names[i]);
		ok = has_mode_0400(path);
		text = ok ? read_text(path, SIZE_MAX) : strdup("");
		strtoul(text, &end, 10);
		ok &= isdigit(*text) && !strcmp(end, "\n");
		free(text);
		ksft_test_result(ok, "%s: mode 0400, a number and a newline\n", counter_names[i]);
	}
	ksft_test_result(has_mode_0400(STATS) && stats_are_consistent(SIZE_MAX),
			 "stats: mode 0400, the format of always\n");
	if (access(DEDUP, F_OK))
		ksft_test_result_skip("needs CONFIG_MODULE_DEDUP_RUST\n");
	else
		ksft_test_result(has_mode_0400(DEDUP) && has_mode_0400(PENDING),
				 "dedup and pending: mode 0400\n");
}

/* The names of the long list: some are as long as they can be, all differ. */
static const char *nth_name(int i)
{
	static char name[MODULE_NAME_MAX + 1];

	snprintf(name, sizeof(name), "dedup_%04d", i);
	if (i % 10 == 0) {
		memset(name + strlen(name), 'x', MODULE_NAME_MAX - strlen(name));
		name[MODULE_NAME_MAX] = '\0';
	}
	return name;
}

static void test_long_list(void)
{
	int i, rows = 0, long_rows = 0;
	char *text;
	bool ok;

	for (i = 0; i < NR_NAMES; i++)
		duplicate_as(&image, &renamed, nth_name(i));
	text = read_text(STATS, SIZE_MAX);
	ok = is_consistent(text);
	for (i = 0; i < NR_NAMES; i++) {
		if (!has_row(text, nth_name(i), 1))
			continue;
		rows++;
		long_rows += i % 10 == 0;
	}
	free(text);
	ksft_test_result(ok && rows == NR_NAMES, "%d of %d duplicates are in the list\n", rows,
			 NR_NAMES);
	ksft_test_result(long_rows == NR_NAMES / 10,
			 "%d of %d names of %d characters are shown whole\n", long_rows,
			 NR_NAMES / 10, MODULE_NAME_MAX);
}

static void test_odd_names(void)
{
	static const char * const names[] = {
		"dedup\nnew\nlines", "dedup\ttab", "dedup \x01\x1b\x7f\x80\xff", "dedup\\",
	};
	unsigned int i;
	bool ok = true;
	char *text, *c;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		duplicate_as(&image, &renamed, names[i]);
	text = read_text(STATS, SIZE_MAX);
	ok = is_consistent(text);
	for (c = text; *c; c++)
		ok &= (*c >= ' ' && *c <= '~') || *c == '\t' || *c == '\n';
	free(text);
	ksft_test_result(ok, "names that cannot be printed are escaped\n");
}

static void test_small_reads(const struct load *duplicate)
{
	char *whole = read_text(STATS, SIZE_MAX), *bytes = read_text(STATS, 1), *now;
	int fd = open(STATS, O_RDONLY | O_CLOEXEC);
	size_t len = strlen(whole), got;
	bool ok;

	ksft_test_result(!strcmp(whole, bytes), "reads of 1 byte give what one read gives\n");

	/* A duplicate load changes three lines, and one in the list. */
	for (got = 0; got <= len && read(fd, bytes + got, 1) == 1; got++)
		if (got % 100 == 0)
			do_load(duplicate);
	now = read_text(STATS, SIZE_MAX);
	ok = got == len && !memcmp(whole, bytes, len) && strcmp(whole, now);
	ksft_test_result(ok, "reads of 1 byte give one text while the counters change\n");

	/* Whoever rewinds wants to know how it is now. */
	len = strlen(now);
	ok = lseek(fd, 0, SEEK_SET) == 0;
	for (got = 0; got <= len && read(fd, bytes + got, 1) == 1; got++)
		;
	ok &= got == len && !memcmp(now, bytes, len);
	ksft_test_result(ok, "it is a new text when it is read again\n");
	close(fd);
	free(whole);
	free(bytes);
	free(now);
}

static void test_storm(const struct load *duplicate)
{
	static const size_t steps[] = { SIZE_MAX, 4096, 1000, 61, 7, 1 };
	struct caller stormers[NR_STORMERS], readers[NR_READERS];
	unsigned long before = read_counter("failed_becoming");
	int i, bad = 0;

	for (i = 0; i < NR_STORMERS; i++) {
		stormers[i] = fork_caller();
		while (!stormers[i].pid)
			do_load(duplicate);
	}
	for (i = 0; i < NR_READERS; i++) {
		readers[i] = fork_caller();
		if (!readers[i].pid) {
			*readers[i].result = stats_are_consistent(steps[i % ARRAY_SIZE(steps)]) &&
					     stats_are_consistent(SIZE_MAX);
			_exit(0);
		}
	}
	for (i = 0; i < NR_READERS; i++)
		bad += !finish(&readers[i]);
	for (i = 0; i < NR_STORMERS; i++) {
		kill(stormers[i].pid, SIGKILL);
		bad += finish(&stormers[i]) != KILLED;
	}
	ksft_print_msg("%lu duplicate loads meanwhile\n",
		       read_counter("failed_becoming") - before);
	ksft_test_result(!bad && read_counter("failed_becoming") > before,
			 "%d readers during a storm of duplicate loads: consistent texts\n",
			 NR_READERS);
}

static int count_rows(const char *text)
{
	const char *row = strstr(text, "Duplicate failed modules:\n");
	int lines = 0;

	for (; row && *row; row++)
		lines += *row == '\n';
	return lines - 2;
}

/* Records are bounded, and the last row counts what found no room. */
static void test_bound(void)
{
	char *text = read_text(STATS, SIZE_MAX), last[128];
	int i, rows, missing = NR_RECORDS - count_rows(text);
	bool ok;

	free(text);
	for (i = 0; i < missing + NR_OTHERS; i++)
		duplicate_as(&image, &renamed, nth_name(NR_NAMES + i));
	text = read_text(STATS, SIZE_MAX);
	rows = count_rows(text);
	snprintf(last, sizeof(last), "\n%25s\t%15d\t%25s\n", "(others)", NR_OTHERS,
		 "Too many to list");
	ok = is_consistent(text) && strstr(text, last);
	free(text);
	ksft_test_result(ok && rows == NR_RECORDS + 1,
			 "%d rows for %d duplicates, the last for those without one\n", rows,
			 NR_RECORDS + NR_OTHERS);
}

int main(int argc, char **argv)
{
	struct load load = { .image = &image, .args = "" };
	char ko[PATH_MAX];
	int log;

	ksft_print_header();
	need_root_and_stats();
	if (!access(DEDUP_MODE, F_OK) && !file_says(DEDUP_MODE, "inode\n"))
		ksft_exit_skip("needs module.dedup=inode\n");
	module_path(ko, argv, MODULE_NAME);
	image = read_image(ko);
	renamed = copy_image(&image, image.len);
	must_unload(MODULE_NAME);
	log = open_log();

	ksft_set_plan(NR_COUNTERS + 11);
	test_files();
	test_long_list();
	test_odd_names();
	if (do_load(&load))
		ksft_exit_fail_msg("%s could not be loaded\n", ko);
	/* It is in the list from now on. */
	do_load(&load);
	test_small_reads(&load);
	test_storm(&load);
	must_unload(MODULE_NAME);
	if (is_quick())
		ksft_test_result_skip("too many duplicates for DEDUP_QUICK\n");
	else
		test_bound();
	ksft_test_result(!count_in_log(log, "WARNING:"), "the kernel does not warn\n");

	close(log);
	ksft_finished();
}
