// SPDX-License-Identifier: GPL-2.0
/*
 * The values of module.dedup=: which loads of a module that is live or pending
 * allocate memory before they fail. And with any value, as on any kernel:
 * module.sig_enforce lets no module in without a signature.
 */
#include <errno.h>
#include <stdlib.h>

#include "dedup_common.h"
#include "kselftest_harness.h"

#define SIG_ENFORCE	"/sys/module/module/parameters/sig_enforce"
/* A module of the kernel, which its build signs. The test modules have no signature. */
#define SIGNED_NAME	"test_module"

enum situation {
	LIVE_FILE,
	LIVE_MEMORY,
	PENDING_FILE,
	PENDING_OTHER_FILE,
	NR_SITUATIONS
};

/* The result of a load, and the counter of those that allocated memory for nothing. */
struct outcome {
	int result;
	enum mod_counter counter;
};

#define NO_WASTE	NR_MOD_COUNTERS
#define IMAGE_WASTED	FAILED_BECOMING
#define MODULE_WASTED	FAILED_LOAD_MODULES

static const struct {
	const char *mode;
	struct outcome outcomes[NR_SITUATIONS];
} modes[] = {
	{ "full", {
		[LIVE_FILE] = { EEXIST, NO_WASTE },
		[LIVE_MEMORY] = { EEXIST, NO_WASTE },
		[PENDING_FILE] = { 0, NO_WASTE },
		[PENDING_OTHER_FILE] = { EEXIST, NO_WASTE },
	} },
	{ "inode", {
		[LIVE_FILE] = { EEXIST, IMAGE_WASTED },
		[LIVE_MEMORY] = { EEXIST, IMAGE_WASTED },
		[PENDING_FILE] = { 0, NO_WASTE },
		[PENDING_OTHER_FILE] = { EEXIST, IMAGE_WASTED },
	} },
	{ "early", {
		[LIVE_FILE] = { EEXIST, IMAGE_WASTED },
		[LIVE_MEMORY] = { EEXIST, IMAGE_WASTED },
		[PENDING_FILE] = { EEXIST, IMAGE_WASTED },
		[PENDING_OTHER_FILE] = { EEXIST, IMAGE_WASTED },
	} },
	{ "none", {
		[LIVE_FILE] = { EEXIST, MODULE_WASTED },
		[LIVE_MEMORY] = { EEXIST, MODULE_WASTED },
		[PENDING_FILE] = { EEXIST, MODULE_WASTED },
		[PENDING_OTHER_FILE] = { EEXIST, MODULE_WASTED },
	} },
};

FIXTURE(mode)
{
	struct image image;
	char paths[2][PATH_MAX];
	struct load file, other_file, memory;
	const struct outcome *outcomes;
};

FIXTURE_SETUP(mode)
{
	unsigned int i;

	if (!has_dedup())
		SKIP(return, "needs CONFIG_MODULE_DEDUP_RUST");
	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (has_mode(modes[i].mode))
			self->outcomes = modes[i].outcomes;
	ASSERT_NE(NULL, self->outcomes)
		TH_LOG("%s has a value without documentation", DEDUP_MODE);

	unload_leftover(MODULE_NAME);
	use_own_tmp();
	self->image = read_module(MODULE_NAME);
	self->file.path = write_image(self->paths[0], &self->image);
	self->other_file.path = write_image(self->paths[1], &self->image);
	self->memory.image = &self->image;
	self->file.args = "park=1";
	self->other_file.args = "park=1";
	self->memory.args = "park=1";
}

FIXTURE_TEARDOWN_PARENT(mode)
{
	unload_leftover(MODULE_NAME);
}

/* Checks the result of a load, and the two counters of waste since then. */
static void check_outcome(struct __test_metadata *_metadata, const struct outcome *want,
			  int result, const struct counters *before)
{
	struct counters change = counters_since(before);

	EXPECT_EQ(want->result, result);
	EXPECT_EQ(want->counter == IMAGE_WASTED, change.mod[FAILED_BECOMING]);
	EXPECT_EQ(want->counter == MODULE_WASTED, change.mod[FAILED_LOAD_MODULES]);
}

static void load_live(struct __test_metadata *_metadata, const struct load *first,
		      const struct load *second, const struct outcome *want)
{
	struct counters before = read_counters();
	struct owner owner = park_owner(first, MODULE_NAME);

	ASSERT_EQ(0, reap_owner(&owner));
	check_outcome(_metadata, want, do_load(second), &before);
}

static void load_pending(struct __test_metadata *_metadata, const struct load *first,
			 const struct load *second, const struct outcome *want)
{
	struct counters before = read_counters();
	struct owner owner = park_owner(first, MODULE_NAME);
	struct caller waiter = start_waiter(second);

	ASSERT_EQ(0, reap_owner(&owner));
	check_outcome(_metadata, want, reap(&waiter), &before);
}

TEST_F_TIMEOUT(mode, live_file, TEST_LIMIT_S)
{
	load_live(_metadata, &self->file, &self->file, &self->outcomes[LIVE_FILE]);
}

TEST_F_TIMEOUT(mode, live_memory, TEST_LIMIT_S)
{
	load_live(_metadata, &self->file, &self->memory, &self->outcomes[LIVE_MEMORY]);
}

TEST_F_TIMEOUT(mode, pending_file, TEST_LIMIT_S)
{
	load_pending(_metadata, &self->file, &self->file, &self->outcomes[PENDING_FILE]);
}

TEST_F_TIMEOUT(mode, pending_other_file, TEST_LIMIT_S)
{
	load_pending(_metadata, &self->file, &self->other_file,
		     &self->outcomes[PENDING_OTHER_FILE]);
}

/* Last, because sig_enforce cannot be reset. */
FIXTURE(sig_enforce)
{
	struct image image, user_image;
	char path[PATH_MAX];
	struct load load, user_file, user_memory;
};

FIXTURE_SETUP(sig_enforce)
{
	unload_leftover(USER_NAME);
	unload_leftover(MODULE_NAME);
	use_own_tmp();
	self->image = read_module(MODULE_NAME);
	self->user_image = read_module(USER_NAME);
	self->load = (struct load){ .image = &self->image, .args = "" };
	self->user_memory = (struct load){ .image = &self->user_image, .args = "" };
	self->user_file.path = write_image(self->path, &self->user_image);
	self->user_file.args = "";
	/* The first test needs the module live under enforcement. */
	if (file_says(SIG_ENFORCE, "N\n"))
		ASSERT_EQ(0, do_load(&self->load));
	ASSERT_EQ(0, write_to(SIG_ENFORCE, "Y"));
}

FIXTURE_TEARDOWN_PARENT(sig_enforce)
{
	unload_leftover(USER_NAME);
	unload_leftover(MODULE_NAME);
	unload_leftover(SIGNED_NAME);
}

/*
 * A module that is live has been loaded before. In the mode full, that is
 * detected before the signature is checked.
 */
TEST_F_TIMEOUT(sig_enforce, name_live, TEST_LIMIT_S)
{
	ASSERT_TRUE(is_live(MODULE_NAME));
	EXPECT_EQ(has_mode("full") ? EEXIST : EKEYREJECTED, do_load(&self->load));
}

/* Once it is unloaded, the same module needs a signature. */
TEST_F_TIMEOUT(sig_enforce, name_was_live, TEST_LIMIT_S)
{
	must_unload(MODULE_NAME);
	EXPECT_EQ(EKEYREJECTED, do_load(&self->load));
	EXPECT_FALSE(is_loaded(MODULE_NAME));
}

TEST_F_TIMEOUT(sig_enforce, unsigned_file, TEST_LIMIT_S)
{
	EXPECT_EQ(EKEYREJECTED, do_load(&self->user_file));
	EXPECT_FALSE(is_loaded(USER_NAME));
}

TEST_F_TIMEOUT(sig_enforce, unsigned_memory, TEST_LIMIT_S)
{
	EXPECT_EQ(EKEYREJECTED, do_load(&self->user_memory));
	EXPECT_FALSE(is_loaded(USER_NAME));
}

TEST_F_TIMEOUT(sig_enforce, signed_module, TEST_LIMIT_S)
{
	EXPECT_EQ(0, system("modprobe " SIGNED_NAME));
	EXPECT_TRUE(is_loaded(SIGNED_NAME));
}

int main(int argc, char **argv)
{
	need_stats();
	need_file(SIG_ENFORCE, "CONFIG_MODULE_SIG");
	return test_harness_run(argc, argv);
}
