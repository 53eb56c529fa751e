// SPDX-License-Identifier: GPL-2.0
/*
 * What module.dedup= promises: which load of a module that is there, or on its
 * way, has allocated something in vain before it fails. And in every mode, as on
 * any kernel: with module.sig_enforce, nothing is loaded that is not signed.
 *
 * That cannot be switched off again, so it is the last test here.
 *
 * Usage: modes_dedup [FOLDER OF THE TEST MODULES]
 */
#include "dedup_common.h"

#define OTHER_NAME	MODULE_NAME "_user"
#define SIG_ENFORCE	"/sys/module/module/parameters/sig_enforce"
/* Ours are not; the kernel's own is, if its configuration signs it. */
#define SIGNED_NAME	"test_module"

enum situation { LATE_FILE, LATE_MEMORY, PENDING_FILE, PENDING_OTHER_FILE, NR_SITUATIONS };

static const char * const situation_names[NR_SITUATIONS] = {
	[LATE_FILE] = "a late load from the file",
	[LATE_MEMORY] = "a late load from memory",
	[PENDING_FILE] = "a load from a file that is being loaded",
	[PENDING_OTHER_FILE] = "a load from another file meanwhile",
};

/* What a load ends with, and which counter finds that it was in vain. */
struct end {
	int result;
	const char *counter;
};

#define IMAGE_IN_VAIN	"failed_becoming"
#define ALL_IN_VAIN	"failed_load_modules"

static const struct {
	const char *mode;
	struct end ends[NR_SITUATIONS];
} modes[] = {
	{ "full\n", {
		[LATE_FILE] = { EEXIST },
		[LATE_MEMORY] = { EEXIST },
		[PENDING_FILE] = { 0 },
		[PENDING_OTHER_FILE] = { EEXIST },
	} },
	{ "inode\n", {
		[LATE_FILE] = { EEXIST, IMAGE_IN_VAIN },
		[LATE_MEMORY] = { EEXIST, IMAGE_IN_VAIN },
		[PENDING_FILE] = { 0 },
		[PENDING_OTHER_FILE] = { EEXIST, IMAGE_IN_VAIN },
	} },
	{ "early\n", {
		[LATE_FILE] = { EEXIST, IMAGE_IN_VAIN },
		[LATE_MEMORY] = { EEXIST, IMAGE_IN_VAIN },
		[PENDING_FILE] = { EEXIST, IMAGE_IN_VAIN },
		[PENDING_OTHER_FILE] = { EEXIST, IMAGE_IN_VAIN },
	} },
	{ "none\n", {
		[LATE_FILE] = { EEXIST, ALL_IN_VAIN },
		[LATE_MEMORY] = { EEXIST, ALL_IN_VAIN },
		[PENDING_FILE] = { EEXIST, ALL_IN_VAIN },
		[PENDING_OTHER_FILE] = { EEXIST, ALL_IN_VAIN },
	} },
};

static int test_situation(enum situation situation, const struct load *file,
			  const struct load *other_file, const struct load *memory)
{
	const struct load *load = file;
	struct caller caller;
	struct owner owner;
	int result;

	if (situation == LATE_MEMORY)
		load = memory;
	else if (situation == PENDING_OTHER_FILE)
		load = other_file;

	owner = park_by_init(file, MODULE_NAME);
	if (situation == LATE_FILE || situation == LATE_MEMORY) {
		if (finish_owner(&owner))
			ksft_exit_fail_msg("the module could not be loaded\n");
		result = do_load(load);
	} else {
		caller = start_waiter(load);
		if (finish_owner(&owner))
			ksft_exit_fail_msg("the module could not be loaded\n");
		result = finish(&caller);
	}
	must_unload(MODULE_NAME);
	return result;
}

static void test_mode(const struct image *image)
{
	struct load file = { .path = write_image(image), .args = "park=1" };
	struct load other_file = { .path = write_image(image), .args = "park=1" };
	struct load memory = { .image = image, .args = "park=1" };
	const struct end *ends = NULL;
	unsigned int i, counter;

	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (file_says(DEDUP_MODE, modes[i].mode))
			ends = modes[i].ends;
	if (!ends)
		ksft_exit_fail_msg("%s is not documented\n", DEDUP_MODE);

	for (i = 0; i < NR_SITUATIONS; i++) {
		static const char * const in_vain[] = { IMAGE_IN_VAIN, ALL_IN_VAIN };
		unsigned long before[ARRAY_SIZE(in_vain)];
		int result;
		bool ok;

		for (counter = 0; counter < ARRAY_SIZE(in_vain); counter++)
			before[counter] = read_counter(in_vain[counter]);
		result = test_situation(i, &file, &other_file, &memory);
		ok = result == ends[i].result;
		if (!ok)
			ksft_print_msg("result: %d, not %d\n", result, ends[i].result);
		for (counter = 0; counter < ARRAY_SIZE(in_vain); counter++) {
			unsigned long count = read_counter(in_vain[counter]) - before[counter];
			bool is_counted = ends[i].counter &&
					  !strcmp(ends[i].counter, in_vain[counter]);

			if (count == is_counted)
				continue;
			ksft_print_msg("%s: +%lu\n", in_vain[counter], count);
			ok = false;
		}
		ksft_test_result(ok, "%s: %d, %s\n", situation_names[i], ends[i].result,
				 ends[i].counter ?: "nothing in vain");
	}
	unlink(file.path);
	unlink(other_file.path);
}

/*
 * A module that is live was loaded before. Where its name is peeked, that comes
 * before the signature.
 */
static void test_signatures(const struct image *image, const struct image *other)
{
	char *path = write_image(other);
	struct load live = { .image = image, .args = "" }, unsigned_file = { .args = "" };
	struct load unsigned_memory = { .args = "" };
	bool is_full = !access(DEDUP_MODE, F_OK) && file_says(DEDUP_MODE, "full\n");
	int err;

	unsigned_file.path = path;
	unsigned_memory.image = other;
	err = do_load(&live);
	if (err)
		ksft_exit_fail_msg("%s\n", strerror(err));
	if (write_to(SIG_ENFORCE, "Y"))
		ksft_exit_fail_msg("%s: %s\n", SIG_ENFORCE, strerror(errno));

	err = do_load(&unsigned_file);
	ksft_test_result(err == EKEYREJECTED && !is_loaded(OTHER_NAME),
			 "without a signature, finit_module: %d\n", err);
	err = do_load(&unsigned_memory);
	ksft_test_result(err == EKEYREJECTED && !is_loaded(OTHER_NAME),
			 "without a signature, init_module: %d\n", err);
	err = do_load(&live);
	ksft_test_result(err == (is_full ? EEXIST : EKEYREJECTED),
			 "without a signature, of a name that is live: %d\n", err);
	must_unload(MODULE_NAME);
	err = do_load(&live);
	ksft_test_result(err == EKEYREJECTED && !is_loaded(MODULE_NAME),
			 "without a signature, of a name that was live: %d\n", err);
	ksft_test_result(!system("modprobe " SIGNED_NAME) && is_loaded(SIGNED_NAME),
			 "with a signature: loaded\n");
	unlink(path);
	free(path);
}

int main(int argc, char **argv)
{
	char path[PATH_MAX];
	struct image image, other;

	ksft_print_header();
	need_root_and_stats();
	if (access(SIG_ENFORCE, W_OK))
		ksft_exit_skip("needs CONFIG_MODULE_SIG\n");
	module_path(path, argv, MODULE_NAME);
	image = read_image(path);
	module_path(path, argv, OTHER_NAME);
	other = read_image(path);
	use_own_tmp();
	must_unload(MODULE_NAME);
	must_unload(OTHER_NAME);

	if (access(DEDUP_MODE, F_OK)) {
		ksft_set_plan(5);
	} else {
		ksft_set_plan(NR_SITUATIONS + 5);
		test_mode(&image);
	}
	test_signatures(&image, &other);
	ksft_finished();
}
