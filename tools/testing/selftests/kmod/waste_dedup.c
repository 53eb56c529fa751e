// SPDX-License-Identifier: GPL-2.0
/*
 * Loads of a module that is there or on its way: what each of them returns, and
 * that none of them allocates anything of the size of the module.
 *
 * The owner of the load is held while the others arrive, see dedup_common.h.
 * Needs module.dedup=full, which is the default where there is that parameter.
 *
 * Usage: waste_dedup [FOLDER OF test_dedup.ko]
 */
#include "dedup_common.h"

#define OTHER_NAME	"test_dedup_request"
#define NR_WAITERS	8
#define MAX_CALLERS	255
#define LARGE		(4UL << 20)

/* test_dedup, and another module, filled up to the same length. */
static struct image image, other_image;

/* Where a load comes from. Each waiter may have a file of its own. */
enum source {
	FIRST_FILE,
	SECOND_FILE,
	OWN_FILES,
	MEMORY,
};

static const char * const source_names[] = {
	"a file", "a second file", "a file of its own each", "memory",
};

static struct load files[OWN_FILES + NR_WAITERS];

static struct load load_from(enum source source, int waiter, const char *args)
{
	if (source == MEMORY)
		return (struct load){ .image = &image, .args = args };
	return with_args(files[source == OWN_FILES ? OWN_FILES + waiter : source], args);
}

/*
 * What the kernel counts
 */

/* Loads that were saved, as the file has them, and what they would have read. */
struct saved {
	unsigned long same_file, same_name, late, from_memory, bytes;
};

struct counts {
	unsigned long counters[NR_COUNTERS];
	struct saved saved;
};

static struct counts before;

static struct saved read_saved(void)
{
	char *text = read_text(DEDUP, SIZE_MAX);
	struct saved saved = {
		.same_file = number_of(text, "same_file"),
		.same_name = number_of(text, "same_name"),
		.late = number_of(text, "late"),
		.from_memory = number_of(text, "from_memory"),
		.bytes = number_of(text, "bytes_never_allocated"),
	};

	free(text);
	return saved;
}

static void begin(void)
{
	unsigned int i;

	for (i = 0; i < NR_COUNTERS; i++)
		before.counters[i] = read_counter(counter_names[i]);
	before.saved = read_saved();
}

static bool is_change(const char *name, unsigned long before, unsigned long after,
		      unsigned long change)
{
	if (after - before == change)
		return true;
	ksft_print_msg("%s: %+ld, not %+ld\n", name, after - before, change);
	return false;
}

/* Whether since begin() so many modules were loaded, nothing in vain, and this saved. */
static bool nothing_was_wasted(unsigned long loaded, const struct saved saved)
{
	struct saved now = read_saved();
	bool ok = true;
	unsigned int i;

	for (i = 0; i < NR_COUNTERS; i++) {
		unsigned long after = read_counter(counter_names[i]);

		if (!strcmp(counter_names[i], "modcount"))
			ok &= is_change("modcount", before.counters[i], after, loaded);
		else if (strncmp(counter_names[i], "total_", 6))
			ok &= is_change(counter_names[i], before.counters[i], after, 0);
		else
			ok &= (after > before.counters[i]) == (loaded > 0);
	}
	ok &= is_change("same_file", before.saved.same_file, now.same_file, saved.same_file);
	ok &= is_change("same_name", before.saved.same_name, now.same_name, saved.same_name);
	ok &= is_change("late", before.saved.late, now.late, saved.late);
	ok &= is_change("from_memory", before.saved.from_memory, now.from_memory,
			saved.from_memory);
	ok &= is_change("bytes_never_allocated", before.saved.bytes, now.bytes, saved.bytes);
	return ok;
}

/* How many of the callers end otherwise than with want. */
static int count_others(const struct caller *callers, int n, int want)
{
	int i, others = 0;

	for (i = 0; i < n; i++)
		others += !is_result("a waiter", finish(&callers[i]), want);
	return others;
}

/* How many wait for a load, as the kernel says. */
static int count_waiting(void)
{
	char *text = read_text(PENDING, SIZE_MAX), *rest = text, *line;
	int n, sum = 0;

	while ((line = strsep(&rest, "\n")))
		if (sscanf(line, "waiters\t%d", &n) == 1)
			sum += n;
	free(text);
	return sum;
}

/*
 * Loads at the same time
 */

enum outcome {
	SUCCEEDS,
	FAILS,
	IS_KILLED,
};

static void start_waiters(struct caller callers[NR_WAITERS], enum source source, const char *args)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++) {
		struct load load = load_from(source, i, args);

		callers[i] = start_waiter(&load);
	}
}

/* What eight waiters save. Those for one file wait for the first of them, which has the name. */
static struct saved saved_by(enum source owner, enum source waiter)
{
	struct saved saved = { .bytes = NR_WAITERS * image.len };

	if (waiter == MEMORY)
		saved.from_memory = NR_WAITERS;
	else if (waiter == OWN_FILES)
		saved.same_name = NR_WAITERS;
	else if (waiter == owner)
		saved.same_file = NR_WAITERS;
	else
		saved = (struct saved){
			.same_name = 1,
			.same_file = NR_WAITERS - 1,
			.bytes = saved.bytes,
		};
	return saved;
}

/* One row of the table: who waits gets the result that is documented, and costs nothing. */
static void test_waiters(enum source owner_source, enum source waiter_source, enum outcome outcome)
{
	static const char * const outcomes[] = { "succeeds", "fails", "is killed" };
	static const int owner_results[] = { 0, ENODEV, KILLED };
	static const int same_results[] = { 0, ENODEV, EINTR };
	static const int other_results[] = { EEXIST, EBUSY, EBUSY };
	const char *args = outcome == FAILS ? "park=1 init_result=-19" : "park=1";
	bool is_same = waiter_source == owner_source && owner_source != MEMORY;
	int want = is_same ? same_results[outcome] : other_results[outcome];
	struct load load = load_from(owner_source, 0, args);
	struct caller callers[NR_WAITERS];
	struct owner owner;
	bool ok;

	begin();
	owner = park_by_init(&load, MODULE_NAME);
	start_waiters(callers, waiter_source, args);
	ok = !is_live(MODULE_NAME);
	if (outcome == IS_KILLED)
		kill(owner.caller.pid, SIGKILL);
	else
		release_owner(&owner);
	ok &= is_result("the owner", finish(&owner.caller), owner_results[outcome]);
	ok &= count_others(callers, NR_WAITERS, want) == 0;
	ok &= is_live(MODULE_NAME) == (outcome == SUCCEEDS);
	ok &= is_loaded(MODULE_NAME) == (outcome == SUCCEEDS);
	ok &= nothing_was_wasted(outcome == SUCCEEDS, saved_by(owner_source, waiter_source));
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "owner from %s %s, waiters from %s get %d\n",
			 source_names[owner_source], outcomes[outcome],
			 source_names[waiter_source], want);
}

static void test_all_waiters(void)
{
	static const enum source owners[] = { FIRST_FILE, SECOND_FILE, MEMORY };
	static const enum source waiters[] = { FIRST_FILE, SECOND_FILE, OWN_FILES, MEMORY };
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(owners); i++) {
		for (j = 0; j < ARRAY_SIZE(waiters); j++) {
			test_waiters(owners[i], waiters[j], SUCCEEDS);
			test_waiters(owners[i], waiters[j], FAILS);
			test_waiters(owners[i], waiters[j], IS_KILLED);
		}
	}
}

/* Every second waiter gets a signal, and leaves while the owner is still held. */
static void test_signal(int sig, int want, enum source source, const char *args, int others)
{
	struct load load = load_from(FIRST_FILE, 0, "park=1 tag=1");
	struct caller callers[NR_WAITERS];
	unsigned long n = NR_WAITERS / 2;
	struct saved saved = { .bytes = n * image.len };
	struct owner owner;
	bool ok;

	if (source == MEMORY)
		saved.from_memory = n;
	else if (others)
		saved.same_name = n;
	else
		saved.same_file = n;
	begin();
	owner = park_by_init(&load, MODULE_NAME);
	start_waiters(callers, source, args);
	for (int i = 0; i < NR_WAITERS / 2; i++)
		kill(callers[i].pid, sig);
	ok = count_others(callers, NR_WAITERS / 2, want) == 0;
	ok &= is_loaded(MODULE_NAME) && !is_live(MODULE_NAME);
	ok &= is_result("the owner", finish_owner(&owner), 0);
	ok &= count_others(callers + NR_WAITERS / 2, NR_WAITERS / 2, others) == 0;
	ok &= is_live(MODULE_NAME);
	ok &= nothing_was_wasted(1, saved);
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "signal %d to waiters from %s, args \"%s\": they leave, others stay\n",
			 sig, source_names[source], args);
}

static void test_signals(void)
{
	static const struct {
		int sig, result;
	} signals[] = {
		{ SIGKILL, KILLED },
		{ SIGUSR1, EINTR },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		int sig = signals[i].sig, result = signals[i].result;

		test_signal(sig, result, FIRST_FILE, "park=1 tag=1", 0);
		test_signal(sig, result, FIRST_FILE, "park=1 tag=2", EEXIST);
		test_signal(sig, result, OWN_FILES, "park=1 tag=1", EEXIST);
		test_signal(sig, result, MEMORY, "park=1 tag=1", EEXIST);
	}
}

/* What an init function made up is its load's result, even if waits can end with it. */
static void test_result(int result)
{
	char args[32];
	struct load load;
	struct caller callers[NR_WAITERS];
	struct owner owner;
	bool ok;

	snprintf(args, sizeof(args), "park=1 init_result=%d", -result);
	load = load_from(FIRST_FILE, 0, args);
	begin();
	owner = park_by_init(&load, MODULE_NAME);
	start_waiters(callers, FIRST_FILE, args);
	ok = is_result("the owner", finish_owner(&owner), result);
	ok &= count_others(callers, NR_WAITERS, result) == 0;
	ok &= nothing_was_wasted(0, saved_by(FIRST_FILE, FIRST_FILE));
	ksft_test_result(ok, "the init function fails with %d: waiters get that\n", result);
}

/*
 * The owner of a file, who waits for the name, gets a signal: that is no result for those
 * who wait for the file. One of them takes its place.
 */
static void test_owner_leaves(void)
{
	struct load named = load_from(SECOND_FILE, 0, "park=1");
	struct load load = load_from(FIRST_FILE, 0, "");
	struct caller leaves, others[2];
	struct owner owner;
	bool ok;

	begin();
	owner = park_by_init(&named, MODULE_NAME);
	leaves = start_waiter(&load);
	others[0] = start_waiter(&load);
	others[1] = start_waiter(&load);
	kill(leaves.pid, SIGUSR1);
	ok = is_result("the owner of the file", finish(&leaves), EINTR);
	wait_until(count_waiting() == 2, "the others do not wait\n");
	ok &= is_result("the owner of the name", finish_owner(&owner), 0);
	ok &= count_others(others, 2, EEXIST) == 0;
	ok &= nothing_was_wasted(1, (struct saved){
		.same_file = 1,
		.same_name = 1,
		.bytes = 2 * image.len,
	});
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "the owner of a file leaves: whoever waits for it takes its place\n");
}

/*
 * The module is live, and its load goes on all the same: it waits for what the module has
 * begun. Who has the same file waits for its result; who knows the name does not wait.
 */
static void test_live_owner(void)
{
	struct load load = load_from(FIRST_FILE, 0, "park=1 park_live=1");
	struct load others[] = {
		load_from(SECOND_FILE, 0, ""),
		load_from(MEMORY, 0, ""),
	};
	unsigned long waits;
	struct caller same;
	struct owner owner;
	unsigned int i;
	bool ok = true;

	begin();
	owner = park_by_init(&load, MODULE_NAME);
	wait_until(is_live(MODULE_NAME), "the module does not become live\n");
	waits = read_dedup("waits");
	for (i = 0; i < ARRAY_SIZE(others); i++)
		ok &= is_result("another load", do_load(&others[i]), EEXIST);
	ok &= is_result("waits", read_dedup("waits"), waits);
	same = start_waiter(&load);
	ok &= is_result("the owner", finish_owner(&owner), 0);
	ok &= is_result("a waiter for the file", finish(&same), 0);
	ok &= nothing_was_wasted(1, (struct saved){
		.same_file = 1,
		.same_name = 1,
		.from_memory = 1,
		.bytes = 3 * image.len,
	});
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "owner whose module is live: who has the name does not wait\n");
}

/*
 * Arguments and flags
 */

static bool has_tag(const char *expected)
{
	return is_loaded(MODULE_NAME) && file_says(PARAMETERS "tag", expected);
}

/*
 * The owner fails, and those who have other arguments, or flags, load with their
 * own: one of them, for all who have the same. That one is held in turn until all
 * others wait for it, so that none of them is late.
 */
static void test_owner_fails(const char *what, const char *owner_args, struct load load)
{
	struct load fails = load_from(FIRST_FILE, 0, owner_args);
	struct caller callers[NR_WAITERS];
	struct owner owner;
	bool ok;
	int i;

	begin();
	owner = park_by_init(&fails, MODULE_NAME);
	for (i = 0; i < NR_WAITERS; i++)
		callers[i] = start_waiter(&load);
	ok = is_result("the owner", finish_owner(&owner), EINVAL);
	wait_until(!access(owner.park, F_OK) && count_waiting() == NR_WAITERS - 1,
		   "the waiters did not wait again\n");
	ok &= has_tag("2\n") && !is_live(MODULE_NAME);
	ok &= is_result("release", write_to(owner.park, "0"), 0);
	ok &= count_others(callers, NR_WAITERS, 0) == 0;
	ok &= has_tag("2\n") && is_live(MODULE_NAME);
	ok &= nothing_was_wasted(1, (struct saved){
		.same_file = NR_WAITERS - 1,
		.bytes = (NR_WAITERS - 1) * image.len,
	});
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "owner fails, waiters have other %s: they load with theirs\n", what);
}

/* The owner succeeds: the module is there, and not as the others want it. */
static void test_owner_succeeds(const char *what, struct load load)
{
	struct load succeeds = load_from(FIRST_FILE, 0, "park=1 tag=1");
	struct caller callers[NR_WAITERS];
	struct owner owner;
	bool ok;
	int i;

	begin();
	owner = park_by_init(&succeeds, MODULE_NAME);
	for (i = 0; i < NR_WAITERS; i++)
		callers[i] = start_waiter(&load);
	ok = is_result("the owner", finish_owner(&owner), 0);
	ok &= count_others(callers, NR_WAITERS, EEXIST) == 0;
	ok &= has_tag("1\n") && is_live(MODULE_NAME);
	ok &= nothing_was_wasted(1, (struct saved){
		.same_name = NR_WAITERS,
		.bytes = NR_WAITERS * image.len,
	});
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "owner succeeds, waiters have other %s: it keeps its own\n", what);
}

/* Arguments that there is no memory for are others than any, and need not be known to wait. */
static void test_long_arguments(void)
{
	struct image text = new_image(2 * LARGE);
	struct load load;

	memset(text.bytes, ' ', text.len - 1);
	load = load_from(FIRST_FILE, 0, text.bytes);
	ksft_test_result(is_result("alone", do_load(&load), ENOMEM),
			 "arguments longer than any memory: ENOMEM\n");
	test_owner_succeeds("arguments, longer than any memory", load);
	free(text.bytes);
}

/* Whoever has a bad pointer is told so at once, and nobody else notices. */
static void test_bad_pointers(void)
{
	static const enum source sources[] = { FIRST_FILE, SECOND_FILE, MEMORY };
	static const char * const pointers[] = { NULL, (const char *)8, (const char *)~0xfffUL };
	struct load load = load_from(FIRST_FILE, 0, "park=1");
	struct caller waiter;
	struct owner owner;
	unsigned int i, j;
	bool ok = true;

	begin();
	owner = park_by_init(&load, MODULE_NAME);
	waiter = start_waiter(&load);
	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		for (j = 0; j < ARRAY_SIZE(pointers); j++) {
			struct load bad = load_from(sources[i], 0, pointers[j]);

			ok &= is_result("with a bad pointer", do_load(&bad), EFAULT);
		}
	}
	ok &= !is_live(MODULE_NAME) && count_waiting() == 1;
	ok &= is_result("the owner", finish_owner(&owner), 0);
	ok &= is_result("the waiter", finish(&waiter), 0);
	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		struct load bad = load_from(sources[i], 0, NULL);

		ok &= is_result("late, with a bad pointer", do_load(&bad), EFAULT);
	}
	ok &= nothing_was_wasted(1, (struct saved){ .same_file = 1, .bytes = image.len });
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "bad pointers to arguments: EFAULT for each, and for nobody else\n");
}

static void test_arguments(void)
{
	struct load other_args = load_from(FIRST_FILE, 0, "park=1 tag=2");
	struct load other_flags = with_flags(load_from(FIRST_FILE, 0, "park=1 tag=2 init_result=0"),
					     MODULE_INIT_IGNORE_MODVERSIONS);

	test_owner_fails("arguments", "park=1 tag=1 init_result=-22", other_args);
	test_owner_fails("flags", "park=1 tag=1 init_result=-22", other_flags);
	test_owner_succeeds("arguments", other_args);
	other_flags.args = "park=1 tag=1";
	test_owner_succeeds("flags", other_flags);
	test_long_arguments();
	test_bad_pointers();
}

/*
 * Images that another process changes while they are loaded
 */

#define HELD_PAGE	(32UL << 10)
#define MOVED_MODULE	(64UL << 10)
#define MOVED_SECTIONS	(96UL << 10)
#define CHANGING_LEN	(128UL << 10)

/* An image in memory, whose name is that of image at first. */
struct changing {
	struct image image;
	char *name;
};

/*
 * The name is moved to behind a page that is missing, so that a load is held when it has
 * peeked the name, and before it reads it with all the rest.
 */
static struct changing new_changing(const char *symbol)
{
	struct changing new = { .image.len = CHANGING_LEN };
	struct elf64_shdr *module;

	new.image.bytes = mmap(NULL, CHANGING_LEN, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (new.image.bytes == MAP_FAILED || image.len > HELD_PAGE)
		ksft_exit_fail_msg("no image that can change: %s\n", strerror(errno));
	memcpy(new.image.bytes, image.bytes, image.len);
	set_symbol(&new.image, symbol);
	module = find_section(&new.image, ".gnu.linkonce.this_module");
	memcpy(new.image.bytes + MOVED_MODULE, new.image.bytes + module->sh_offset,
	       module->sh_size);
	module->sh_offset = MOVED_MODULE;
	new.name = find_name(&new.image);
	return new;
}

/* Starts a load, and returns when it is held. Until it is over, its result is its userfaultfd. */
static struct caller start_held(const struct changing *changing)
{
	struct load load = { .image = &changing->image, .args = "" };
	struct caller c = fork_caller();

	if (!c.pid) {
		*c.result = hold_page(changing->image.bytes + HELD_PAGE);
		if (*c.result < 0)
			_exit(1);
		*c.result = do_load(&load);
		_exit(0);
	}
	wait_until(has_arrived(c.pid, SYS_init_module, 'S'), "the owner is not held\n");
	return c;
}

static void release_held(const struct caller *c, const struct changing *changing)
{
	release_page(c->pid, *c->result, changing->image.bytes + HELD_PAGE);
}

/* Whether one of two who waited has loaded the module, and the other found it there. */
static bool one_took_its_place(const struct caller waiters[2])
{
	int results[] = { finish(&waiters[0]), finish(&waiters[1]) };
	bool ok = is_result("one of those who waited", results[results[0] != 0], 0);

	return ok & is_result("the other one", results[results[0] == 0], EEXIST);
}

/* Who waits for a name that its owner no longer has: one takes its place, for the others. */
static void test_renamed_owner(void)
{
	struct changing changing = new_changing("renamed_symbol");
	struct load files[] = { load_from(FIRST_FILE, 0, ""), load_from(SECOND_FILE, 0, "") };
	struct caller owner, waiters[2];
	int i;
	bool ok;

	begin();
	owner = start_held(&changing);
	for (i = 0; i < 2; i++)
		waiters[i] = start_waiter(&files[i]);
	put_name(changing.name, OTHER_NAME);
	release_held(&owner, &changing);
	ok = is_result("the owner", finish(&owner), 0);
	ok &= one_took_its_place(waiters);
	ok &= is_live(MODULE_NAME) && is_live(OTHER_NAME);
	ok &= nothing_was_wasted(2, (struct saved){ .same_name = 1, .bytes = image.len });
	must_unload(MODULE_NAME);
	must_unload(OTHER_NAME);
	munmap(changing.image.bytes, CHANGING_LEN);
	ksft_test_result(ok, "the owner's image changes its name: who waits takes its place\n");
}

/*
 * A load that fails before its module is in the list is no result for those who wait for
 * the name: what they load may be another image, and they have no signal.
 */
static void test_owner_fails_early(bool is_killed)
{
	struct changing changing = new_changing("early_symbol");
	struct elf64_hdr *hdr = (struct elf64_hdr *)changing.image.bytes;
	struct load files[] = { load_from(FIRST_FILE, 0, ""), load_from(SECOND_FILE, 0, "") };
	struct caller owner, waiters[2];
	int i;
	bool ok;

	memcpy(changing.image.bytes + MOVED_SECTIONS, changing.image.bytes + hdr->e_shoff,
	       hdr->e_shnum * hdr->e_shentsize);
	hdr->e_shoff = MOVED_SECTIONS;
	begin();
	owner = start_held(&changing);
	for (i = 0; i < 2; i++)
		waiters[i] = start_waiter(&files[i]);
	if (is_killed) {
		kill(owner.pid, SIGKILL);
	} else {
		memset(changing.image.bytes + MOVED_SECTIONS, 0, CHANGING_LEN - MOVED_SECTIONS);
		release_held(&owner, &changing);
	}
	ok = is_result("the owner", finish(&owner), is_killed ? KILLED : ENOEXEC);
	ok &= one_took_its_place(waiters);
	ok &= is_live(MODULE_NAME) && file_says(PENDING, "");
	must_unload(MODULE_NAME);
	munmap(changing.image.bytes, CHANGING_LEN);
	ksft_test_result(ok, "an owner %s before its module is in the list: who waits loads it\n",
			 is_killed ? "is killed" : "fails");
}

/* Each comes to want the name that the other one has, and neither keeps its own for that. */
static void test_swapped_names(void)
{
	struct changing one = new_changing("one_symbol"), other = new_changing("other_symbol");
	struct caller owners[2];
	bool ok;

	put_name(other.name, OTHER_NAME);
	begin();
	owners[0] = start_held(&one);
	owners[1] = start_held(&other);
	put_name(one.name, OTHER_NAME);
	put_name(other.name, MODULE_NAME);
	release_held(&owners[0], &one);
	wait_until(count_waiting() == 1, "it does not wait for the name it came to have\n");
	release_held(&owners[1], &other);
	ok = is_result("one", finish(&owners[1]), 0);
	ok &= is_result("the other one", finish(&owners[0]), 0);
	ok &= is_live(MODULE_NAME) && is_live(OTHER_NAME);
	ok &= nothing_was_wasted(2, (struct saved){});
	must_unload(MODULE_NAME);
	must_unload(OTHER_NAME);
	munmap(one.image.bytes, CHANGING_LEN);
	munmap(other.image.bytes, CHANGING_LEN);
	ksft_test_result(ok, "two images swap their names: both are loaded\n");
}

/*
 * Loads of a module that is live
 */

static void test_late(const struct load *live, const struct load *late, const char *what,
		      size_t size)
{
	int i, others = 0, n = is_quick() ? 100 : 1000;
	struct saved saved = { .bytes = n * size };
	bool ok = is_result("first load", do_load(live), 0);

	if (late->path)
		saved.late = n;
	else
		saved.from_memory = n;
	begin();
	for (i = 0; i < n; i++)
		others += do_load(late) != EEXIST;
	ok &= !others && nothing_was_wasted(0, saved);
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "%d late loads of a module that came from %s: EEXIST\n", n, what);
}

/*
 * tmpfs, which there is everywhere, does not tell what is written through a
 * mapping: there, what came of a compressed file is not remembered, and every
 * late load takes the full way. It has to end in the same way.
 */
static void test_late_compressed(const struct load *compressed)
{
	bool ok = is_result("first load", do_load(compressed), 0);
	int i, n = 10;

	for (i = 0; i < n; i++)
		ok &= is_result("late load", do_load(compressed), EEXIST);
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "%d late loads of a compressed file on tmpfs: EEXIST\n", n);
}

/*
 * Those who come late at the same time may meet each other, and none of them is
 * a load that failed: the module is there.
 */
static void test_late_at_once(void)
{
	static const enum source sources[] = { FIRST_FILE, SECOND_FILE, MEMORY };
	struct load first = load_from(FIRST_FILE, 0, "");
	struct caller callers[64];
	bool ok = is_result("first load", do_load(&first), 0);
	unsigned int i, n = is_quick() ? 10 : 100;
	int err;

	for (i = 0; i < ARRAY_SIZE(callers); i++) {
		struct load load = load_from(sources[i % ARRAY_SIZE(sources)], 0, "");

		callers[i] = fork_caller();
		if (callers[i].pid)
			continue;
		do
			err = do_load(&load);
		while (err == EEXIST && --n);
		*callers[i].result = err;
		_exit(0);
	}
	ok &= count_others(callers, ARRAY_SIZE(callers), EEXIST) == 0;
	must_unload(MODULE_NAME);
	ksft_test_result(ok, "%zu processes are late %u times at once: EEXIST\n",
			 ARRAY_SIZE(callers), n);
}

/* While its exit function runs, a module is neither there nor gone. */
static void test_going(void)
{
	struct load file = load_from(FIRST_FILE, 0, ""), memory = load_from(MEMORY, 0, "");
	bool ok = is_result("first load", do_load(&file), 0);
	struct caller unloader;

	if (write_to(PARAMETERS "park", "1"))
		ksft_exit_fail_msg("the module could not be parked\n");
	unloader = fork_caller();
	if (!unloader.pid) {
		*unloader.result = unload_module(MODULE_NAME);
		_exit(0);
	}
	wait_until(has_arrived(unloader.pid, SYS_delete_module, 'D'),
		   "the module is not unloaded\n");
	begin();
	ok &= is_result("from a file", do_load(&file), EBUSY);
	ok &= is_result("from memory", do_load(&memory), EBUSY);
	ok &= nothing_was_wasted(0, (struct saved){
		.late = 1, .from_memory = 1, .bytes = 2 * image.len,
	});
	if (write_to(PARAMETERS "park", "0"))
		ksft_exit_fail_msg("the module could not be let go\n");
	ok &= is_result("unload", finish(&unloader), 0);
	ksft_test_result(ok, "loads of a module that is being unloaded: EBUSY\n");
}

static void test_late_loads(const struct load *compressed)
{
	struct load file = load_from(FIRST_FILE, 0, ""), memory = load_from(MEMORY, 0, "");
	struct load other_file = load_from(SECOND_FILE, 0, "");
	/* What nobody can allocate was not saved either. */
	struct image too_long = { .bytes = image.bytes, .len = LONG_MAX };
	struct load too_much = { .image = &too_long, .args = "" };

	test_late(&file, &file, "the same file", image.len);
	test_late(&file, &other_file, "another file", image.len);
	test_late(&file, &memory, "a file, from memory", image.len);
	test_late(&file, &too_much, "a file, from more memory than there is", 0);
	test_late(&memory, &memory, "memory, from memory", image.len);
	test_late(&memory, &file, "memory, from a file", image.len);
	test_late_at_once();
	test_going();
	test_late_compressed(compressed);
	test_late(compressed, &file, "a compressed file, from one that is not", image.len);
	test_late(compressed, &memory, "a compressed file, from memory", image.len);
}

/* Writes like overwrite(), by a mapping whose pages were read before they are written to. */
static void overwrite_mapped(const char *path, const struct image *from)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *bytes = mmap(NULL, from->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd < 0 || bytes == MAP_FAILED)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	close(fd);
	if (memcmp(bytes, from->bytes, from->len))
		memcpy(bytes, from->bytes, from->len);
	munmap(bytes, from->len);
}

static void replace(const char *path, const struct image *from)
{
	char *file = write_image(from);

	if (rename(file, path))
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	free(file);
}

/* Whether the file system of /tmp tells every change of a file. */
static bool is_remembered;

/* A file that a live module came from, and that now has another module in it. */
static void test_replaced(const char *how,
			  void (*change)(const char *path, const struct image *from),
			  bool is_compressed)
{
	struct image first = is_compressed ? compress(&image) : image;
	struct image second = is_compressed ? compress(&other_image) : other_image;
	char *path = write_image(&first);
	struct load load = {
		.path = path,
		.args = "",
		.flags = is_compressed ? MODULE_INIT_COMPRESSED_FILE : 0,
	};
	bool ok;

	ok = is_result("first module", do_load(&load), 0);
	ok &= is_result("first module again", do_load(&load), EEXIST);
	change(path, &second);
	ok &= is_result("other module", do_load(&load), 0);
	ok &= is_live(MODULE_NAME) && is_live(OTHER_NAME);
	begin();
	ok &= is_result("other module again", do_load(&load), EEXIST);
	if (!is_compressed || is_remembered)
		ok &= nothing_was_wasted(0, (struct saved){ .late = 1, .bytes = second.len });
	must_unload(MODULE_NAME);
	/* And back: the memory of either is of no use now. */
	change(path, &first);
	ok &= is_result("first module once more", do_load(&load), 0);
	ok &= is_live(MODULE_NAME);
	must_unload(MODULE_NAME);
	must_unload(OTHER_NAME);
	unlink(path);
	free(path);
	if (is_compressed) {
		free(first.bytes);
		free(second.bytes);
	}
	ksft_test_result(ok, "%sfile %s: the module that is in it is loaded\n",
			 is_compressed ? "compressed " : "", how);
}

/* Another build of the module, which tells its version. */
static struct image new_build(char version)
{
	struct image build = copy_image(&image, image.len);
	struct elf64_shdr *modinfo = find_section(&build, ".modinfo");
	static const char field[] = "\0version=";
	char *found = memmem(build.bytes + modinfo->sh_offset, modinfo->sh_size, field,
			     sizeof(field) - 1);

	if (!found)
		ksft_exit_fail_msg("the module has no version\n");
	found[sizeof(field) - 1] = version;
	return build;
}

static bool has_version(const char *version)
{
	return is_live(MODULE_NAME) && file_says("/sys/module/" MODULE_NAME "/version", version);
}

/* The file changes while the module is live; once that is gone, it is the file that counts. */
static void test_other_build(bool is_compressed)
{
	struct image build = new_build('2');
	struct image first = is_compressed ? compress(&image) : image;
	struct image second = is_compressed ? compress(&build) : build;
	char *path = write_image(&first);
	struct load load = {
		.path = path,
		.args = "",
		.flags = is_compressed ? MODULE_INIT_COMPRESSED_FILE : 0,
	};
	bool ok;

	ok = is_result("first build", do_load(&load), 0) && has_version("1\n");
	overwrite(path, &second);
	ok &= is_result("other build beside it", do_load(&load), EEXIST) && has_version("1\n");
	must_unload(MODULE_NAME);
	ok &= is_result("other build", do_load(&load), 0) && has_version("2\n");
	must_unload(MODULE_NAME);
	overwrite(path, &first);
	ok &= is_result("first build again", do_load(&load), 0) && has_version("1\n");
	must_unload(MODULE_NAME);
	load = (struct load){ .image = &build, .args = "" };
	ok &= is_result("other build from memory", do_load(&load), 0) && has_version("2\n");
	must_unload(MODULE_NAME);
	unlink(path);
	free(path);
	free(build.bytes);
	if (is_compressed) {
		free(first.bytes);
		free(second.bytes);
	}
	ksft_test_result(ok, "%sfile with another build: it is loaded after an unload\n",
			 is_compressed ? "compressed " : "");
}

static void test_changes(bool is_compressed)
{
	test_replaced("overwritten", overwrite, is_compressed);
	test_replaced("overwritten by a mapping", overwrite_mapped, is_compressed);
	test_replaced("replaced", replace, is_compressed);
	test_other_build(is_compressed);
}

/*
 * A file system that does tell every change: what came of a compressed file is
 * remembered there, and forgotten when it has to be.
 */
static void test_compressed_on_xfs(const struct image *frame)
{
	struct load compressed = { .args = "", .flags = MODULE_INIT_COMPRESSED_FILE };
	char *path;

	if (!mount_xfs("/tmp")) {
		ksft_test_result_skip("needs XFS on /dev/ram0, and mkfs.xfs\n");
		ksft_test_result_skip("the same\n");
		ksft_test_result_skip("the same\n");
		ksft_test_result_skip("the same\n");
		ksft_test_result_skip("the same\n");
		return;
	}
	path = write_image(frame);
	compressed.path = path;
	is_remembered = true;
	test_late(&compressed, &compressed, "a compressed file on XFS", frame->len);
	unlink(path);
	free(path);
	test_changes(true);
	is_remembered = false;
	umount2("/tmp", MNT_DETACH);
}

/*
 * Memory
 */

static unsigned long vmalloc_used(void)
{
	char *text = read_text("/proc/meminfo", SIZE_MAX), *line = strstr(text, "VmallocUsed:");
	unsigned long kib;

	if (!line || sscanf(line, "VmallocUsed: %lu kB", &kib) != 1)
		ksft_exit_fail_msg("/proc/meminfo has no VmallocUsed\n");
	free(text);
	return kib << 10;
}

/* Whether the process waits, and with a look at the memory meanwhile. */
static bool has_arrived_watched(pid_t pid, unsigned long *peak)
{
	unsigned long used = vmalloc_used();

	if (used > *peak)
		*peak = used;
	return has_arrived(pid, SYS_init_module, 'S');
}

/*
 * Many processes with an image of 4 MB each. They are all there before the owner,
 * so that what they themselves take is not in the difference.
 */
static void test_peak(void)
{
	struct image large = copy_image(&image, LARGE);
	struct load owner_load = { .image = &large, .args = "park=1" };
	struct load load = { .image = &large, .args = "" };
	int i, gate[2], n = is_quick() ? 32 : MAX_CALLERS - 1;
	struct caller callers[MAX_CALLERS];
	unsigned long parked, peak = 0;
	struct owner owner;
	bool ok;

	if (pipe2(gate, O_CLOEXEC))
		ksft_exit_fail_msg("pipe: %s\n", strerror(errno));
	for (i = 0; i < n; i++) {
		char c;

		callers[i] = fork_caller();
		if (callers[i].pid)
			continue;
		if (read(gate[0], &c, 1) != 1)
			_exit(1);
		*callers[i].result = do_load(&load);
		_exit(0);
	}
	begin();
	owner = park_by_init(&owner_load, MODULE_NAME);
	/* The owner has its module by now, and its copy of the image no longer. */
	parked = vmalloc_used();
	if (write(gate[1], large.bytes, n) != n)
		ksft_exit_fail_msg("pipe: %s\n", strerror(errno));
	for (i = 0; i < n; i++)
		wait_until(has_arrived_watched(callers[i].pid, &peak),
			   "%d of %d did not arrive\n", n - i, n);
	ksft_print_msg("vmalloc: %lu KiB with the owner, %lu KiB with %d waiters\n",
		       parked >> 10, peak >> 10, n);
	ok = peak <= parked + LARGE;
	ok &= is_result("the owner", finish_owner(&owner), 0);
	ok &= count_others(callers, n, EEXIST) == 0;
	ok &= nothing_was_wasted(1, (struct saved){
		.from_memory = n,
		.bytes = n * LARGE,
	});
	must_unload(MODULE_NAME);
	close(gate[0]);
	close(gate[1]);
	free(large.bytes);
	ksft_test_result(ok, "%d calls of init_module with 4 MB: one image in memory at most\n",
			 n + 1);
}

/*
 * What is refused for other reasons, as on any kernel: the name is looked for
 * before C looks at the file.
 */

static void test_fd(const char *name, int fd, int flags, int want)
{
	int got = syscall(SYS_finit_module, fd, "", flags) ? errno : 0;

	ksft_test_result(is_result(name, got, want), "finit_module, %s: %d\n", name, want);
	if (fd >= 0)
		close(fd);
}

static void test_one_load(const char *name, const struct load *load, int want)
{
	ksft_test_result(is_result(name, do_load(load), want), "%s, %s: %d\n",
			 load->path ? "finit_module" : "init_module", name, want);
}

/* A file opened before the process gives up what it needs to load a module. */
static void test_not_root(void)
{
	struct load memory = load_from(MEMORY, 0, "");
	int fd = open(files[0].path, O_RDONLY | O_CLOEXEC);
	struct caller callers[2];
	bool ok;

	start_unprivileged(callers, fd, &memory);
	close(fd);
	ok = count_others(callers, 2, EPERM) == 0;
	ksft_test_result(ok, "without CAP_SYS_MODULE: %d\n", EPERM);
}

/* What is no file is not read: what somebody else is to get from it is still there. */
static void test_pipe(void)
{
	int fds[2], got, left = 0;
	bool ok;

	if (pipe2(fds, O_CLOEXEC) || write(fds[1], image.bytes, 4096) != 4096)
		ksft_exit_fail_msg("pipe: %s\n", strerror(errno));
	got = syscall(SYS_finit_module, fds[0], "", 0) ? errno : 0;
	ok = is_result("pipe", got, EINVAL);
	ok &= !ioctl(fds[0], FIONREAD, &left) && is_result("bytes in the pipe", left, 4096);
	close(fds[0]);
	close(fds[1]);
	ksft_test_result(ok, "finit_module, pipe: %d, and nothing is taken from it\n", EINVAL);
}

static void test_errors(void)
{
	struct image zeros = new_image(4096);
	struct image unmapped = { .len = image.len };
	struct load not_elf, load = { .args = "" };
	struct load file = load_from(FIRST_FILE, 0, "");
	int fd, log = open_log();
	char *path;

	test_fd("no fd", -1, 0, EBADF);
	test_fd("fd for writing", open(file.path, O_WRONLY), 0, EBADF);
	test_fd("bad flags", open(file.path, O_RDONLY), 8, EINVAL);
	test_fd("folder", open("/tmp", O_RDONLY), 0, EINVAL);
	test_fd("device", open("/dev/null", O_RDONLY), 0, EINVAL);
	test_pipe();
	test_not_root();

	fd = open(file.path, O_RDWR);
	test_one_load("file open for writing", &file, ETXTBSY);
	close(fd);
	path = write_image(&zeros);
	not_elf = (struct load){ .path = path, .args = "" };
	test_one_load("not ELF", &not_elf, ENOEXEC);
	unlink(path);
	free(path);
	load.image = &zeros;
	test_one_load("not ELF", &load, ENOEXEC);
	load.image = &unmapped;
	test_one_load("image not mapped", &load, EFAULT);
	ksft_test_result(!count_in_log(log, "not supported for file"),
			 "the kernel does not complain of what it was given\n");
	close(log);
	free(zeros.bytes);
}

static void test_parameter(void)
{
	struct stat st;

	ksft_test_result(!stat(DEDUP_MODE, &st) && st.st_mode == (S_IFREG | 0400),
			 "the mode is shown to root only\n");
}

static void read_images(char **argv)
{
	struct image raw, other;
	char path[PATH_MAX];
	size_t len;

	module_path(path, argv, MODULE_NAME);
	raw = read_image(path);
	module_path(path, argv, OTHER_NAME);
	other = read_image(path);
	len = raw.len > other.len ? raw.len : other.len;
	image = copy_image(&raw, len);
	other_image = copy_image(&other, len);
	free(raw.bytes);
	free(other.bytes);
}

int main(int argc, char **argv)
{
	struct load compressed = { .args = "", .flags = MODULE_INIT_COMPRESSED_FILE };
	struct image frame;
	unsigned int i;
	char *path;

	ksft_print_header();
	need_root_and_stats();
	if (access(DEDUP, F_OK) || access(DEDUP_MODE, F_OK))
		ksft_exit_skip("needs CONFIG_MODULE_DEDUP_RUST\n");
	if (!file_says(DEDUP_MODE, "full\n"))
		ksft_exit_skip("needs module.dedup=full\n");
	read_images(argv);
	use_own_tmp();
	for (i = 0; i < ARRAY_SIZE(files); i++)
		files[i] = (struct load){ .path = write_image(&image) };
	frame = compress(&image);
	path = write_image(&frame);
	compressed.path = path;
	must_unload(MODULE_NAME);
	must_unload(OTHER_NAME);

	ksft_set_plan(36 + 8 + 4 + 7 + 4 + 11 + 8 + 5 + 1 + 12 + 1);
	test_all_waiters();
	test_signals();
	test_result(EDEADLK);
	test_result(EINTR);
	test_owner_leaves();
	test_live_owner();
	test_arguments();
	test_renamed_owner();
	test_owner_fails_early(true);
	test_owner_fails_early(false);
	test_swapped_names();
	test_late_loads(&compressed);
	test_changes(false);
	test_changes(true);
	test_compressed_on_xfs(&frame);
	test_peak();
	test_errors();
	test_parameter();
	ksft_finished();
}
