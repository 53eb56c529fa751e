// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/modules: names, modes and format of the files. Each open()
 * of "stats" shows one text, complete and consistent, whatever its length, the
 * size of the reads, and loads meanwhile.
 *
 * Only a duplicate that is detected late is counted. Hence the kernel must run
 * with module.dedup=inode if it has that parameter.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "dedup_common.h"
#include "kselftest_harness.h"

#define NR_NAMES	150
/* The kernel lists that many modules. */
#define NR_RECORDS	1024
#define NR_OTHERS	5
#define NR_READERS	64
#define NR_LOADERS	4

/* From the start of the program on. */
static int kernel_log;

/*
 * The expected text
 */

/* Consumes the line of that label. */
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

/* Consumes the line of an average, which is missing if there is nothing to divide. */
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

/* Consumes one row of the list of duplicates. */
static bool take_row(const char **text)
{
	/* The last one belongs to the row that counts modules without a row. */
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

/* Whether a text is complete and its numbers agree with each other. */
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
	ksft_print_msg("byte %zd of %zu: %.*s\n", rest - text, strlen(text),
		       (int)strcspn(rest, "\n"), rest);
	return false;
}

static bool stats_are_consistent(size_t step)
{
	char *text = read_text(STATS, step);
	bool ok = is_consistent(text);

	free(text);
	return ok;
}

static bool has_row(const char *text, const char *name, unsigned long times)
{
	char row[512];

	snprintf(row, sizeof(row), "\n%25s\t%15lu\t%25s\n", name, times, "Becoming");
	return strstr(text, row);
}

static int count_rows(const char *text)
{
	const char *row = strstr(text, "Duplicate failed modules:\n");
	int lines = 0;

	for (; row && *row; row++)
		lines += *row == '\n';
	return lines - 2;
}

/*
 * Files
 */

static mode_t mode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_mode;
}

FIXTURE(counter)
{
};

FIXTURE_VARIANT(counter)
{
	const char *name;
};

FIXTURE_VARIANT_ADD(counter, modcount) { .name = "modcount" };
FIXTURE_VARIANT_ADD(counter, failed_kreads) { .name = "failed_kreads" };
FIXTURE_VARIANT_ADD(counter, failed_decompress) { .name = "failed_decompress" };
FIXTURE_VARIANT_ADD(counter, failed_becoming) { .name = "failed_becoming" };
FIXTURE_VARIANT_ADD(counter, failed_load_modules) { .name = "failed_load_modules" };
FIXTURE_VARIANT_ADD(counter, total_mod_size) { .name = "total_mod_size" };
FIXTURE_VARIANT_ADD(counter, total_text_size) { .name = "total_text_size" };
FIXTURE_VARIANT_ADD(counter, invalid_kread_bytes) { .name = "invalid_kread_bytes" };
FIXTURE_VARIANT_ADD(counter, invalid_decompress_bytes) { .name = "invalid_decompress_bytes" };
FIXTURE_VARIANT_ADD(counter, invalid_becoming_bytes) { .name = "invalid_becoming_bytes" };
FIXTURE_VARIANT_ADD(counter, invalid_mod_bytes) { .name = "invalid_mod_bytes" };

FIXTURE_SETUP(counter)
{
}

FIXTURE_TEARDOWN(counter)
{
}

/* Mode 0400; a number and a newline. */
TEST_F(counter, file)
{
	char path[PATH_MAX], *text, *end;

	snprintf(path, sizeof(path), STATS_DIR "%s", variant->name);
	ASSERT_EQ(S_IFREG | 0400, mode_of(path));
	text = read_text(path, SIZE_MAX);
	strtoul(text, &end, 10);
	EXPECT_TRUE(isdigit(*text));
	EXPECT_STREQ("\n", end);
	free(text);
}

TEST(stats_file)
{
	EXPECT_EQ(S_IFREG | 0400, mode_of(STATS));
	EXPECT_TRUE(stats_are_consistent(SIZE_MAX));
}

TEST(dedup_and_pending_files)
{
	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	EXPECT_EQ(S_IFREG | 0400, mode_of(DEDUP));
	EXPECT_EQ(S_IFREG | 0400, mode_of(PENDING));
}

/*
 * A long list of duplicates
 */

/* Every tenth name is as long as a name can be. All differ. */
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

FIXTURE(list)
{
	struct image image;
	struct image renamed;	/* a copy under changing names */
};

/* What is in the list stays there: only the first test adds the names. */
FIXTURE_SETUP(list)
{
	char *text;
	int i;

	unload_leftover(MODULE_NAME);
	self->image = read_module(MODULE_NAME);
	self->renamed = copy_image(&self->image, self->image.len);
	text = read_text(STATS, SIZE_MAX);
	for (i = 0; i < NR_NAMES; i++)
		if (!has_row(text, nth_name(i), 1))
			load_duplicate_as(&self->image, &self->renamed, nth_name(i));
	free(text);
}

FIXTURE_TEARDOWN_PARENT(list)
{
	EXPECT_EQ(0, count_in_log(kernel_log, "WARNING:"));
}

TEST_F_TIMEOUT(list, complete, TEST_LIMIT_S)
{
	char *text = read_text(STATS, SIZE_MAX);
	int i, rows = 0;

	EXPECT_TRUE(is_consistent(text));
	for (i = 0; i < NR_NAMES; i++)
		rows += has_row(text, nth_name(i), 1);
	EXPECT_EQ(NR_NAMES, rows);
	free(text);
}

TEST_F_TIMEOUT(list, longest_names, TEST_LIMIT_S)
{
	char *text = read_text(STATS, SIZE_MAX);
	int i, rows = 0;

	for (i = 0; i < NR_NAMES; i += 10)
		rows += has_row(text, nth_name(i), 1);
	EXPECT_EQ(NR_NAMES / 10, rows);
	free(text);
}

/* Names that cannot be printed are escaped. */
TEST_F_TIMEOUT(list, odd_names, TEST_LIMIT_S)
{
	static const char * const names[] = {
		"dedup\nnew\nlines", "dedup\ttab", "dedup \x01\x1b\x7f\x80\xff", "dedup\\",
	};
	unsigned int i, odd = 0;
	char *text, *c;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		load_duplicate_as(&self->image, &self->renamed, names[i]);
	text = read_text(STATS, SIZE_MAX);
	EXPECT_TRUE(is_consistent(text));
	for (c = text; *c; c++)
		odd += (*c < ' ' || *c > '~') && *c != '\t' && *c != '\n';
	EXPECT_EQ(0, odd);
	free(text);
}

/* The kernel does not warn of a long text. */
TEST_F_TIMEOUT(list, no_warning, TEST_LIMIT_S)
{
	int log = open_log();

	EXPECT_TRUE(stats_are_consistent(SIZE_MAX));
	EXPECT_EQ(0, count_in_log(log, "WARNING:"));
}

/*
 * Reads
 */

FIXTURE(read)
{
	struct image image;
	struct load duplicate;
	char *text;		/* by one read(2) */
	size_t len;
};

/* test_dedup is live, and in the list. */
FIXTURE_SETUP(read)
{
	unload_leftover(MODULE_NAME);
	self->image = read_module(MODULE_NAME);
	self->duplicate = (struct load){ .image = &self->image, .args = "" };
	ASSERT_EQ(0, do_load(&self->duplicate));
	ASSERT_EQ(EEXIST, do_load(&self->duplicate));
	self->text = read_text(STATS, SIZE_MAX);
	self->len = strlen(self->text);
}

FIXTURE_TEARDOWN_PARENT(read)
{
	unload_leftover(MODULE_NAME);
	EXPECT_EQ(0, count_in_log(kernel_log, "WARNING:"));
}

/*
 * Reads a text byte by byte into a buffer of len + 1 bytes, and loads a duplicate
 * now and then if there is one. Returns the length.
 */
static size_t read_bytes(int fd, char *bytes, size_t len, const struct load *duplicate)
{
	size_t got;

	for (got = 0; got <= len && read(fd, bytes + got, 1) == 1; got++)
		if (duplicate && got % 100 == 0)
			do_load(duplicate);
	return got;
}

TEST_F_TIMEOUT(read, by_bytes, TEST_LIMIT_S)
{
	char *bytes = read_text(STATS, 1);

	EXPECT_STREQ(self->text, bytes);
	free(bytes);
}

/* A duplicate changes three lines and one row, but not the text of an open file. */
TEST_F_TIMEOUT(read, during_changes, TEST_LIMIT_S)
{
	char *bytes = new_image(self->len + 1).bytes, *changed;
	int fd = open(STATS, O_RDONLY | O_CLOEXEC);

	EXPECT_EQ(self->len, read_bytes(fd, bytes, self->len, &self->duplicate));
	EXPECT_EQ(0, memcmp(self->text, bytes, self->len));
	changed = read_text(STATS, SIZE_MAX);
	EXPECT_STRNE(self->text, changed);
	close(fd);
	free(bytes);
	free(changed);
}

/* A rewound file shows the new text. */
TEST_F_TIMEOUT(read, after_rewind, TEST_LIMIT_S)
{
	int fd = open(STATS, O_RDONLY | O_CLOEXEC);
	char *bytes, *changed;
	size_t len;

	bytes = new_image(self->len + 1).bytes;
	EXPECT_EQ(self->len, read_bytes(fd, bytes, self->len, &self->duplicate));
	free(bytes);
	changed = read_text(STATS, SIZE_MAX);
	EXPECT_STRNE(self->text, changed);
	len = strlen(changed);
	bytes = new_image(len + 1).bytes;
	EXPECT_EQ(0, lseek(fd, 0, SEEK_SET));
	EXPECT_EQ(len, read_bytes(fd, bytes, len, NULL));
	EXPECT_EQ(0, memcmp(changed, bytes, len));
	close(fd);
	free(bytes);
	free(changed);
}

/* Each reader sees consistent texts while others load duplicates at full speed. */
TEST_F_TIMEOUT(read, during_storm, TEST_LIMIT_S)
{
	static const size_t steps[] = { SIZE_MAX, 4096, 1000, 61, 7, 1 };
	struct caller loaders[NR_LOADERS], readers[NR_READERS];
	unsigned long before = read_mod_counter(FAILED_BECOMING);
	int i;

	for (i = 0; i < NR_LOADERS; i++) {
		loaders[i] = fork_caller();
		while (!loaders[i].pid)
			do_load(&self->duplicate);
	}
	for (i = 0; i < NR_READERS; i++) {
		readers[i] = fork_caller();
		if (!readers[i].pid) {
			*readers[i].result = stats_are_consistent(steps[i % ARRAY_SIZE(steps)]) &&
					     stats_are_consistent(SIZE_MAX);
			_exit(0);
		}
	}
	EXPECT_EQ(0, reap_all(readers, NR_READERS, 1, true));
	for (i = 0; i < NR_LOADERS; i++)
		kill(loaders[i].pid, SIGKILL);
	EXPECT_EQ(0, reap_all(loaders, NR_LOADERS, 1, KILLED));
	EXPECT_LT(before, read_mod_counter(FAILED_BECOMING));
	TH_LOG("%lu duplicate loads", read_mod_counter(FAILED_BECOMING) - before);
}

/*
 * The bound of the list, last because a full list makes all texts long
 */

FIXTURE(bound)
{
	struct image image;
	struct image renamed;
};

FIXTURE_SETUP(bound)
{
	if (is_quick())
		SKIP(return, "too many duplicates for DEDUP_QUICK");
	unload_leftover(MODULE_NAME);
	self->image = read_module(MODULE_NAME);
	self->renamed = copy_image(&self->image, self->image.len);
}

FIXTURE_TEARDOWN_PARENT(bound)
{
	EXPECT_EQ(0, count_in_log(kernel_log, "WARNING:"));
}

/* The last row counts the duplicates that found the list full. */
TEST_F_TIMEOUT(bound, others_counted, TEST_LIMIT_S)
{
	char *text = read_text(STATS, SIZE_MAX), others[128];
	int i, missing = NR_RECORDS - count_rows(text);

	free(text);
	for (i = 0; i < missing + NR_OTHERS; i++)
		load_duplicate_as(&self->image, &self->renamed, nth_name(NR_NAMES + i));
	text = read_text(STATS, SIZE_MAX);
	snprintf(others, sizeof(others), "\n%25s\t%15d\t%25s\n", "(others)", NR_OTHERS,
		 "Too many to list");
	EXPECT_TRUE(is_consistent(text));
	EXPECT_NE(NULL, strstr(text, others));
	EXPECT_EQ(NR_RECORDS + 1, count_rows(text));
	free(text);
}

int main(int argc, char **argv)
{
	need_stats();
	need_mode("inode");
	kernel_log = open_log();
	return test_harness_run(argc, argv);
}
