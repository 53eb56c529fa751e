// SPDX-License-Identifier: GPL-2.0
/*
 * A script of module loads and requests of every kind. It prints what it observes,
 * one "label<TAB>value" line each, for scripts/test/differential to compare two
 * kernels. It judges nothing itself.
 *
 * No value depends on timing: loads and helpers are held until all callers wait.
 * No value depends on the name of the kernel, which is part of each module and
 * changes its length: all images are padded to one length.
 *
 * The scenarios that must not differ come first; the text of "stats" ends them.
 * Those that differ follow, by intention or on some kernels only.
 *
 * Needs module_blacklist=test_black and, if the kernel has that parameter,
 * module.dedup=inode, which deduplicates what C does, or module.dedup=full.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "dedup_request.h"

/* Everything but the padding is in the first half, even with debug information. */
#define IMAGE_LEN	(128 << 10)
#define HALF		(IMAGE_LEN / 2)
#define NR_WAITERS	8
#define NR_MANY		60
#define TEST_KMOD	"/sys/devices/virtual/misc/test_kmod0/"
#define PARK		PARAMETERS "park"

/* test_dedup: in memory, in a file, in other files, and in a compressed file. */
static struct image image;
static struct load from_memory, from_file, from_other_files[NR_WAITERS], from_compressed;

static struct helper helper;

/*
 * Printing
 */

static const char *scenario;
static struct counters before;

static void begin(const char *name)
{
	scenario = name;
	before = read_counters();
}

static void report(const char *what, long value)
{
	printf("%s: %s\t%ld\n", scenario, what, value);
}

/* Prints the results of callers. */
static void report_callers(const char *what, const struct caller *callers, int n)
{
	int i, result;

	printf("%s: %s\t", scenario, what);
	for (i = 0; i < n; i++) {
		result = reap(&callers[i]);
		if (i)
			putchar(' ');
		if (result == KILLED)
			printf("killed");
		else
			printf("%d", result);
	}
	putchar('\n');
}

static void report_caller(const char *what, const struct caller *caller)
{
	report_callers(what, caller, 1);
}

/* Prints a text in one line. Different texts look different. */
static void report_text(const char *what, const char *text)
{
	printf("%s: %s\t", scenario, what);
	for (; *text; text++) {
		if (*text == '\t')
			printf("\\t");
		else if (*text >= ' ' && *text <= '~' && *text != '\\')
			putchar(*text);
		else
			printf("\\x%02x", (unsigned char)*text);
	}
	putchar('\n');
}

static void report_counters(void)
{
	struct counters change = counters_since(&before);
	unsigned int i;

	for (i = 0; i < NR_MOD_COUNTERS; i++)
		report(mod_counter_names[i], change.mod[i]);
}

/* Loads and unloads. */
static void load_once(const char *name, const struct load *load)
{
	begin(name);
	report("result", do_load(load));
	report_counters();
	must_unload(MODULE_NAME);
}

/*
 * Images
 */

static struct image read_padded(const char *name)
{
	struct image raw = read_module(name), padded;

	if (raw.len > HALF)
		die("%s.ko has %zu bytes\n", name, raw.len);
	padded = copy_image(&raw, IMAGE_LEN);
	free_image(&raw);
	return padded;
}

/* Loads an image from a file, then from memory, and frees it. */
static void load_image(const char *name, struct image broken, int flags)
{
	char path[PATH_MAX], label[128];
	struct load file = { .path = path, .args = "", .flags = flags };
	struct load memory = { .image = &broken, .args = "" };

	write_image(path, &broken);
	snprintf(label, sizeof(label), "%s, finit_module", name);
	load_once(label, &file);
	if (!(flags & MODULE_INIT_COMPRESSED_FILE)) {
		snprintf(label, sizeof(label), "%s, init_module", name);
		load_once(label, &memory);
	}
	unlink(path);
	free_image(&broken);
}

/*
 * Scenarios: system calls with bad arguments
 */

static void load_fd(const char *name, int fd, int flags)
{
	begin(name);
	report("result", syscall(SYS_finit_module, fd, "", flags) ? errno : 0);
	report_counters();
	must_unload(MODULE_NAME);
	if (fd >= 0)
		close(fd);
}

/* The process opens the file before it drops its privileges. */
static void not_root(void)
{
	int fd = open(from_file.path, O_RDONLY | O_CLOEXEC);
	struct caller callers[2];

	begin("not root");
	start_unprivileged(callers, fd, &from_memory);
	close(fd);
	report_callers("finit_module, init_module", callers, 2);
	report_counters();
}

static void bad_calls(void)
{
	struct load busy = from_file;
	struct image empty = { .bytes = "" };
	struct image unmapped = { .len = IMAGE_LEN };
	struct load load = { .args = "" };
	int fds[2], fd;

	load_fd("fd -1", -1, 0);
	load_fd("fd that is not open", 1000, 0);
	load_fd("fd opened with O_WRONLY", open(from_file.path, O_WRONLY), 0);
	load_fd("fd opened with O_RDWR", open(from_file.path, O_RDWR), 0);
	load_fd("fd opened with O_PATH", open(from_file.path, O_PATH), 0);
	load_fd("fd of a folder", open("/tmp", O_RDONLY), 0);
	load_fd("fd of a device", open("/dev/null", O_RDONLY), 0);
	load_fd("fd of a socket", socket(AF_UNIX, SOCK_STREAM, 0), 0);
	if (pipe(fds))
		die("pipe: %s\n", strerror(errno));
	load_fd("fd of a pipe", fds[0], 0);
	close(fds[1]);

	load_fd("flag 8", open(from_file.path, O_RDONLY), 8);
	load_fd("flags -1", open(from_file.path, O_RDONLY), -1);
	load_fd("flag 8, bad fd", -1, 8);
	load_fd("flag to ignore versions", open(from_file.path, O_RDONLY),
		MODULE_INIT_IGNORE_MODVERSIONS);
	load_fd("flag to ignore vermagic", open(from_file.path, O_RDONLY),
		MODULE_INIT_IGNORE_VERMAGIC);

	fd = open(from_file.path, O_RDWR);
	load_once("file open for writing", &busy);
	close(fd);

	load.image = &empty;
	load_once("image without bytes", &load);
	load.image = &unmapped;
	load_once("image not mapped", &load);

	not_root();
}

/*
 * Scenarios: corrupt images
 */

static void cut_images(void)
{
	static const size_t lengths[] = { 0, 1, 63, 64, 1024, 4096 };
	char name[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		snprintf(name, sizeof(name), "cut to %zu bytes", lengths[i]);
		load_image(name, copy_image(&image, lengths[i]), 0);
	}
}

static void bad_headers(void)
{
	static const struct {
		const char *name;
		size_t offset, size;
		unsigned long value;
	} headers[] = {
		{ "bad magic", 0, 1, 0 },
		{ "bad type", offsetof(struct elf_hdr, e_type), 2, ET_EXEC },
		{ "bad machine", offsetof(struct elf_hdr, e_machine), 2, EM_NONE },
		{ "bad size of headers", offsetof(struct elf_hdr, e_shentsize), 2, 1 },
		{ "headers at 0", offsetof(struct elf_hdr, e_shoff), sizeof(long), 0 },
		{ "headers at the end", offsetof(struct elf_hdr, e_shoff), sizeof(long),
			IMAGE_LEN },
		{ "headers across the end", offsetof(struct elf_hdr, e_shoff), sizeof(long),
			IMAGE_LEN - sizeof(struct elf_shdr) },
		{ "headers far away", offsetof(struct elf_hdr, e_shoff), sizeof(long),
			~0UL - 63 },
		{ "no sections", offsetof(struct elf_hdr, e_shnum), 2, 0 },
		{ "many sections", offsetof(struct elf_hdr, e_shnum), 2, 0xffff },
		{ "no section names", offsetof(struct elf_hdr, e_shstrndx), 2, 0 },
		{ "names nowhere", offsetof(struct elf_hdr, e_shstrndx), 2, 0xffff },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(headers); i++) {
		struct image broken = copy_image(&image, IMAGE_LEN);

		memcpy(broken.bytes + headers[i].offset, &headers[i].value, headers[i].size);
		load_image(headers[i].name, broken, 0);
	}
}

static void bad_section(const char *name, const char *section, size_t offset, unsigned long value)
{
	struct image broken = copy_image(&image, IMAGE_LEN);

	memcpy((char *)find_section(&broken, section) + offset, &value, sizeof(value));
	load_image(name, broken, 0);
}

static struct image image_without(const char *section, const char *string)
{
	struct image broken = copy_image(&image, IMAGE_LEN);

	spoil_string(&broken, section, string);
	return broken;
}

static void corrupt_images(void)
{
	cut_images();
	bad_headers();
	bad_section("section outside", ".modinfo",
		    offsetof(struct elf_shdr, sh_offset), IMAGE_LEN);
	bad_section("section too long", ".modinfo", offsetof(struct elf_shdr, sh_size), ~0UL);
	bad_section("short struct module", ".gnu.linkonce.this_module",
		    offsetof(struct elf_shdr, sh_size), 8);
	bad_section("no symbols", ".symtab", offsetof(struct elf_shdr, sh_size), 0);
	load_image("no struct module", image_without(".shstrtab", ".gnu.linkonce"), 0);
	load_image("no modinfo", image_without(".shstrtab", ".modinfo"), 0);
	load_image("no vermagic", image_without(".modinfo", "vermagic="), 0);
	load_image("wrong vermagic", image_without(".modinfo", "SMP"), 0);
	load_image("wrong vermagic, flag to ignore it", image_without(".modinfo", "SMP"),
		   MODULE_INIT_IGNORE_VERMAGIC);
	load_image("unknown symbol", image_without(".strtab", "param_get_bool"), 0);
}

/* The blacklist applies to the name in .modinfo. */
static void blacklisted_name(void)
{
	struct image black = copy_image(&image, IMAGE_LEN);
	struct elf_shdr *shdr = find_section(&black, ".modinfo");
	char *name = memmem(black.bytes + shdr->sh_offset, shdr->sh_size, "name=" MODULE_NAME,
			    sizeof("name=" MODULE_NAME));

	if (!name)
		die("the module does not say its name\n");
	memcpy(name, "name=test_black", sizeof("name=test_black"));
	load_image("blacklisted", black, 0);
}

/*
 * Scenarios: one load after the other
 */

static void failing_loads(void)
{
	static const int results[] = { -ENOMEM, -EEXIST, -EBUSY, -ENODEV, -EINTR, -EAGAIN, 1 };
	char args[32];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(results); i++) {
		struct load file, memory;
		char name[64];

		snprintf(args, sizeof(args), "init_result=%d", results[i]);
		file = with_args(from_file, args);
		memory = with_args(from_memory, args);
		snprintf(name, sizeof(name), "init returns %d, finit_module", results[i]);
		load_once(name, &file);
		snprintf(name, sizeof(name), "init returns %d, init_module", results[i]);
		load_once(name, &memory);
	}
}

static void bad_args(void)
{
	static const struct {
		const char *name, *args;
	} args[] = {
		{ "args with an unknown name", "no_such_parameter=1" },
		{ "args with a bad value", "init_result=none" },
		{ "args after a double dash", "-- something" },
		{ "args with an open quote", "\"" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(args); i++) {
		struct load file = with_args(from_file, args[i].args);
		struct load memory = with_args(from_memory, args[i].args);
		char name[64];

		snprintf(name, sizeof(name), "%s, finit_module", args[i].name);
		load_once(name, &file);
		snprintf(name, sizeof(name), "%s, init_module", args[i].name);
		load_once(name, &memory);
	}
}

/* Loads of a module that is live. */
static void duplicates(void)
{
	struct image vermagic = image_without(".modinfo", "vermagic=");
	const struct load bad = { .image = &vermagic, .args = "" };
	const struct load bad_value = with_args(from_file, "init_result=none");
	const struct {
		const char *name;
		const struct load *load;
	} duplicates[] = {
		{ "live, same file", &from_file },
		{ "live, other file", &from_other_files[0] },
		{ "live, from memory", &from_memory },
		{ "live, compressed", &from_compressed },
		{ "live, bad value in args", &bad_value },
		{ "live, from memory, no vermagic", &bad },
	};
	unsigned int i;

	begin("live, first load");
	report("result", do_load(&from_file));
	report_counters();
	for (i = 0; i < ARRAY_SIZE(duplicates); i++) {
		begin(duplicates[i].name);
		report("result", do_load(duplicates[i].load));
		report_counters();
	}
	must_unload(MODULE_NAME);
	free_image(&vermagic);
}

static void compressed_files(void)
{
	struct load load = from_compressed;
	struct image frame, broken;

	load_once("compressed", &load);
	load.args = "init_result=-19";
	load_once("compressed, init returns -19", &load);
	load = with_flags(from_file, MODULE_INIT_COMPRESSED_FILE);
	load_once("not compressed, but said to be", &load);
	load = with_flags(from_compressed, 0);
	load_once("compressed, but not said to be", &load);

	frame = compress(&image);
	broken = copy_image(&frame, frame.len);
	broken.bytes[0] ^= 1;
	load_image("compressed, bad magic", broken, MODULE_INIT_COMPRESSED_FILE);
	broken = copy_image(&frame, frame.len);
	/* No block has type 3. */
	broken.bytes[frame.len - 4] |= 3 << 1;
	load_image("compressed, bad block", broken, MODULE_INIT_COMPRESSED_FILE);
	load_image("compressed, cut to 4 bytes", copy_image(&frame, 4),
		   MODULE_INIT_COMPRESSED_FILE);
	load_image("compressed, cut to 4096 bytes", copy_image(&frame, 4096),
		   MODULE_INIT_COMPRESSED_FILE);
	load_image("compressed, with bytes appended", copy_image(&frame, frame.len + 100),
		   MODULE_INIT_COMPRESSED_FILE);
	free_image(&frame);

	broken = image_without(".modinfo", "vermagic=");
	load_image("compressed, no vermagic", compress(&broken), MODULE_INIT_COMPRESSED_FILE);
	free_image(&broken);
}

/* The file of a live module gets the bytes of another one, of the same length. */
static void overwritten_file(const char *name, const struct load *load)
{
	struct image other = copy_image(&image, IMAGE_LEN);
	struct image first = read_image(load->path), second;

	set_name(&image, &other, "test_dedup_other");
	set_symbol(&other, "other_symbol");
	second = load->flags ? compress(&other) : copy_image(&other, IMAGE_LEN);
	if (second.len != first.len)
		die("the images differ in length\n");
	begin(name);
	report("first", do_load(load));
	overwrite(load->path, &second);
	report("second", do_load(load));
	report("first is live", is_live(MODULE_NAME));
	report("second is live", is_live("test_dedup_other"));
	report_counters();
	must_unload("test_dedup_other");
	must_unload(MODULE_NAME);
	overwrite(load->path, &first);
	free_image(&first);
	free_image(&second);
	free_image(&other);
}

/* Loads of a broken image, at the same time. */
static void failing_herd(void)
{
	struct image broken = image_without(".modinfo", "vermagic=");
	struct load load = { .image = &broken, .args = "" };
	struct caller callers[NR_WAITERS];
	int i;

	begin("no vermagic, many at once");
	for (i = 0; i < NR_WAITERS; i++)
		callers[i] = start_load(&load);
	report_callers("results", callers, NR_WAITERS);
	report_counters();
	free_image(&broken);
}

/*
 * Scenarios: while another load is held
 */

/* Waiters that all make one call, or a call each. */
struct waiters {
	const struct load *loads;
	bool differ;
};

static void start_all(struct caller callers[NR_WAITERS], const struct waiters *waiters)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++)
		callers[i] = start_waiter(&waiters->loads[waiters->differ ? i : 0]);
}

static const struct waiters same_file = { &from_file, false };
static const struct waiters one_other_file = { from_other_files, false };
static const struct waiters other_files = { from_other_files, true };
static const struct waiters in_memory = { &from_memory, false };
static const struct waiters in_compressed_file = { &from_compressed, false };

/* Whether each caller has ended or waits, except for nr_held in an init function. */
static bool are_settled(const struct caller *callers, int n, const struct load *load, int nr_held)
{
	long nr = load_syscall(load);
	int i, held = 0;

	for (i = 0; i < n; i++) {
		if (has_ended(callers[i].pid) || has_arrived(callers[i].pid, nr, 'S'))
			continue;
		/* An init function sleeps such that only SIGKILL ends it. */
		if (!has_arrived(callers[i].pid, nr, 'D'))
			return false;
		held++;
	}
	return held == nr_held;
}

static void wait_for_owner(const char *name, const char *outcome, const struct load *owner_load,
			   const struct waiters *waiters)
{
	bool fails = !strcmp(outcome, "fails"), killed = !strcmp(outcome, "is killed");
	struct load load = with_args(*owner_load, fails ? "park=1 init_result=-19" : "park=1");
	struct caller callers[NR_WAITERS];
	struct owner owner;
	char label[128];

	snprintf(label, sizeof(label), "%s, owner %s", name, outcome);
	begin(label);
	owner = park_owner(&load, MODULE_NAME);
	start_all(callers, waiters);
	report("loaded meanwhile", counters_since(&before).mod[MODCOUNT]);
	if (killed)
		kill(owner.caller.pid, SIGKILL);
	else
		release_owner(&owner);
	report_caller("owner", &owner.caller);
	if (killed) {
		/* The module is back if one of the waiters is the new owner. */
		wait_until(are_settled(callers, NR_WAITERS, waiters->loads,
				       is_loaded(MODULE_NAME) && !is_live(MODULE_NAME)),
			   "the waiters do not settle: %s\n", label);
		release_owner(&owner);
	}
	report_callers("waiters", callers, NR_WAITERS);
	report("is there", is_loaded(MODULE_NAME));
	report_counters();
	must_unload(MODULE_NAME);
}

static void wait_for_owners(void)
{
	static const char * const outcomes[] = { "succeeds", "fails", "is killed" };
	const struct load bad_args = with_args(from_file, "init_result=-19");
	const struct waiters same_file_other_args = { &bad_args, false };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		wait_for_owner("same file", outcomes[i], &from_file, &same_file);
		wait_for_owner("same file, other args", outcomes[i], &from_file,
			       &same_file_other_args);
	}
	for (i = 0; i < ARRAY_SIZE(outcomes); i++) {
		const char *outcome = outcomes[i];

		wait_for_owner("one other file", outcome, &from_file, &one_other_file);
		wait_for_owner("other files", outcome, &from_file, &other_files);
		wait_for_owner("from memory", outcome, &from_file, &in_memory);
		wait_for_owner("compressed", outcome, &from_file, &in_compressed_file);
		wait_for_owner("both from memory", outcome, &from_memory, &in_memory);
		wait_for_owner("files, owner from memory", outcome, &from_memory, &other_files);
	}
}

/* A new owner of the file, if there is one, is held until the others wait again. */
static void wait_for_killed_owners(void)
{
	const struct load parked = with_args(from_file, "park=1");
	const struct load parked_fails = with_args(from_file, "park=1 init_result=-19");
	const struct waiters same_args = { &parked, false };
	const struct waiters other_args = { &parked_fails, false };

	wait_for_owner("same file", "is killed", &from_file, &same_args);
	wait_for_owner("same file, other args", "is killed", &from_file, &other_args);
}

/* Half of the waiters get a signal, and return while the owner is still held. */
static void signalled_waiters(const char *name, int sig, const struct waiters *waiters)
{
	struct load load = with_args(from_file, "park=1");
	struct caller callers[NR_WAITERS];
	struct owner owner;
	int i;

	begin(name);
	owner = park_owner(&load, MODULE_NAME);
	start_all(callers, waiters);
	for (i = 0; i < NR_WAITERS / 2; i++)
		kill(callers[i].pid, sig);
	report_callers("signalled", callers, NR_WAITERS / 2);
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_callers("others", callers + NR_WAITERS / 2, NR_WAITERS / 2);
	report_counters();
	must_unload(MODULE_NAME);
}

/* The load of a module that is live waits for asynchronous work. */
static void load_while_settling(void)
{
	struct load load = with_args(from_file, "park=1 park_live=1");
	struct owner owner;

	begin("live, but its load has not ended");
	owner = park_owner(&load, MODULE_NAME);
	wait_until(is_live(MODULE_NAME), "the module is not live\n");
	report("from other file", do_load(&from_other_files[0]));
	report("from memory", do_load(&from_memory));
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_counters();
	must_unload(MODULE_NAME);
}

/* An image that is not in memory for now does not delay a load of another one. */
static void load_beside_missing_page(void)
{
	struct image missing = { .bytes = alloc_shared(IMAGE_LEN), .len = IMAGE_LEN };
	struct load load = { .image = &missing, .args = "" };
	struct caller held;

	memcpy(missing.bytes, image.bytes, HALF);
	begin("beside an image with a missing page");
	held = start_held_load(&load, missing.bytes + HALF);
	report("from a file", do_load(&from_file));
	release_held_load(&held, missing.bytes + HALF);
	report_caller("with the missing page", &held);
	report_counters();
	must_unload(MODULE_NAME);
}

/* A module that is going is neither waited for nor replaced. */
static void load_while_going(void)
{
	struct caller unload;

	begin("going");
	report("load", do_load(&from_file));
	report("park", write_to(PARK, "1"));
	unload = fork_caller();
	if (!unload.pid) {
		*unload.result = unload_module(MODULE_NAME);
		_exit(0);
	}
	wait_until(file_says("/sys/module/" MODULE_NAME "/initstate", "going\n"),
		   "the module does not go\n");
	report("from a file", do_load(&from_file));
	report("from memory", do_load(&from_memory));
	report("release", write_to(PARK, "0"));
	report_caller("unload", &unload);
	report_counters();
}

/*
 * A module that needs a symbol of a module that is coming waits for it. It is
 * itself in the list by then, so others wait for it.
 */
static void wait_for_symbol(const char *name, const char *args, struct image *user)
{
	struct load load = with_args(from_file, args);
	struct load needs = { .image = user, .args = "" };
	const struct waiters waiters = { &needs, false };
	struct caller first, callers[NR_WAITERS];
	struct owner owner;
	double released;

	begin(name);
	owner = park_owner(&load, MODULE_NAME);
	first = start_waiter(&needs);
	start_all(callers, &waiters);
	released = now();
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_caller("user", &first);
	/* Without a wakeup, it looks again after 30 s. */
	report("woken at once", now() - released < 20);
	report_callers("waiters", callers, NR_WAITERS);
	report_counters();
	must_unload(USER_NAME);
	must_unload(MODULE_NAME);
}

static void wait_for_symbols(void)
{
	struct image user = read_padded(USER_NAME);
	struct load load = { .image = &user, .args = "" };

	load_once("user of a missing symbol", &load);
	wait_for_symbol("wait for a symbol, owner succeeds", "park=1", &user);
	wait_for_symbol("wait for a symbol, owner fails", "park=1 init_result=-19", &user);
	free_image(&user);
}

/*
 * Scenarios: request_module()
 */

static void must_write(const char *path, const char *text)
{
	int err = write_to(path, text);

	if (err)
		die("%s: %s\n", path, strerror(err));
}

/* Makes requests from several threads at once, with test_kmod. */
static void storm(const char *name, const char *module, const char *threads)
{
	char *result;

	begin(name);
	must_write(TEST_KMOD "config_test_case", "1");
	must_write(TEST_KMOD "config_test_driver", module);
	must_write(TEST_KMOD "config_num_threads", threads);
	must_write(TEST_KMOD "trigger_config", "1");
	result = read_text(TEST_KMOD "test_result", SIZE_MAX);
	report("result", atoi(result));
	free(result);
	report("is there", is_loaded(module));
	report_counters();
}

/* Requests that arrive while the helper of the first is held. */
static void wait_for_helper(const char *name, const char *module, char code)
{
	int fifo = hold_helpers(&helper, module), log = open_log();
	struct caller callers[NR_WAITERS + 1];

	begin(name);
	start_requests(&helper, callers, NR_WAITERS + 1, module);
	report("nowait meanwhile", request(module, TEST_DEDUP_REQUEST_NOWAIT));
	release_helper(fifo, code);
	report_caller("first", &callers[0]);
	report_callers("waiters", callers + 1, NR_WAITERS);
	unhold_helpers(&helper, module, fifo);
	report("helpers", helper_calls(&helper, module));
	report("messages", count_in_log(log, DUP_MESSAGE));
	close(log);
}

/* A waiter that is killed returns; the others wait on. */
static void killed_waiter(void)
{
	const char *module = "killed_waiter";
	int fifo = hold_helpers(&helper, module);
	struct caller callers[3];

	begin("request, waiter killed");
	start_requests(&helper, callers, 3, module);
	kill(callers[1].pid, SIGKILL);
	report_caller("killed waiter", &callers[1]);
	release_helper(fifo, 0);
	report_caller("first", &callers[0]);
	report_caller("other waiter", &callers[2]);
	unhold_helpers(&helper, module, fifo);
	report("helpers", helper_calls(&helper, module));
}

/* No request can wait for one that does not wait for its helper. */
static void nowait_first(void)
{
	const char *module = "nowait_first";
	int fifo = hold_helpers(&helper, module);
	struct caller second;

	begin("request, nowait first");
	report("first", request(module, TEST_DEDUP_REQUEST_NOWAIT));
	wait_until(helper_calls(&helper, module) == 1, "the helper was not called\n");
	second = start_waiting_request(module);
	wait_until(helper_calls(&helper, module) == 2, "the helper was not called again\n");
	release_helper(fifo, 0);
	release_helper(fifo, 0);
	report_caller("second", &second);
	unhold_helpers(&helper, module, fifo);
}

static void odd_requests(void)
{
	char name[MODULE_NAME_MAX + 2];
	char *path;

	memset(name, 'x', sizeof(name));
	name[MODULE_NAME_MAX] = '\0';
	begin("request, longest name");
	report("result", request(name, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(&helper, name));
	name[MODULE_NAME_MAX] = 'x';
	name[MODULE_NAME_MAX + 1] = '\0';
	begin("request, name too long");
	report("result", request(name, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(&helper, name));

	path = read_text(MODPROBE, SIZE_MAX);
	must_write(MODPROBE, "\n");
	begin("request, no modprobe");
	report("result", request("no_modprobe", TEST_DEDUP_REQUEST));
	must_write(MODPROBE, "/no/such/file\n");
	begin("request, modprobe is missing");
	report("result", request("bad_modprobe", TEST_DEDUP_REQUEST));
	must_write(MODPROBE, path);
	free(path);
}

/*
 * The helper, or its shell, starts a process in the background, and exits once
 * that process waits for the load whose init function waits for the helper.
 */
#define IN_BACKGROUND	"background"

static void background_path(char path[PATH_MAX], const char *folder, const char *file)
{
	snprintf(path, PATH_MAX, "%s/" IN_BACKGROUND ".%s", folder, file);
}

static int run_background_helper(const char *argv0)
{
	char folder[PATH_MAX], path[PATH_MAX], result[16];
	struct load load = { .path = path, .args = "request=" IN_BACKGROUND };
	pid_t pid;
	int fd;

	snprintf(folder, sizeof(folder), "%s", argv0);
	*strrchr(folder, '/') = '\0';
	pid = fork();
	if (pid) {
		wait_until(has_arrived(pid, SYS_finit_module, 'S') || has_ended(pid),
			   "the process in the background does not wait\n");
		return 0;
	}
	background_path(path, folder, "image");
	snprintf(result, sizeof(result), "%d\n", do_load(&load));
	background_path(path, folder, "result");
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	return write(fd, result, strlen(result)) < 0;
}

static void load_in_background(void)
{
	char path[PATH_MAX], result_path[PATH_MAX], new[PATH_MAX], *result;
	struct load load = { .path = path, .args = "request=" IN_BACKGROUND };

	background_path(path, helper.dir, "image");
	background_path(result_path, helper.dir, "result");
	if (rename(write_image_to(new, helper.dir, &image), path))
		die("%s: %s\n", path, strerror(errno));
	begin("request, helper loads in the background");
	report("owner", do_load(&load));
	wait_until(!access(result_path, F_OK) && !file_says(result_path, ""),
		   "the process in the background hangs\n");
	result = read_text(result_path, SIZE_MAX);
	report("in the background", atoi(result));
	free(result);
	report_counters();
	must_unload(MODULE_NAME);
}

static void requests(void)
{
	wait_for_helper("request, helper succeeds", "helper_succeeds", 0);
	wait_for_helper("request, helper fails", "helper_fails", 1);
	killed_waiter();
	nowait_first();
	odd_requests();
	load_in_background();
}

/*
 * Scenarios that are known to differ
 */

/* The arguments are copied before anything is read, or after the module is allocated. */
static void bad_pointer_to_args(void)
{
	struct load load = with_args(from_file, (const char *)8);

	load_once("args at 8", &load);
}

/* Waiters for a request that is killed, while its helper still runs. */
static void killed_request(void)
{
	const char *module = "killed_first";
	int fifo = hold_helpers(&helper, module);
	struct caller callers[NR_WAITERS + 1];

	begin("request, first killed");
	start_requests(&helper, callers, NR_WAITERS + 1, module);
	kill(callers[0].pid, SIGKILL);
	report_caller("first", &callers[0]);
	/* The helper of the first request is still held, and perhaps a second one. */
	release_helper(fifo, 0);
	release_helper(fifo, 0);
	report_callers("waiters", callers + 1, NR_WAITERS);
	unhold_helpers(&helper, module, fifo);
	report("helpers", helper_calls(&helper, module));
}

/* A request that begins after an unload, while a helper from before runs. */
static void request_after_unload(void)
{
	const char *module = "unloaded";
	int fifo = hold_helpers(&helper, module);
	struct caller first, second;

	begin("request, after an unload");
	first = start_first_request(&helper, module);
	report("load", do_load(&from_file));
	must_unload(MODULE_NAME);
	second = start_waiting_request(module);
	release_helper(fifo, 1);
	report_caller("first", &first);
	release_helper(fifo, 0);
	report_caller("second", &second);
	unhold_helpers(&helper, module, fifo);
	report("helpers", helper_calls(&helper, module));
}

/* A second request after the first has failed. */
static void request_after_failure(void)
{
	const char *module = "again";
	int fifo = hold_helpers(&helper, module);

	begin("request, again after failure");
	release_helper(fifo, 1);
	report("first", request(module, TEST_DEDUP_REQUEST));
	unhold_helpers(&helper, module, fifo);
	report("second", request(module, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(&helper, module));
}

/* A second request after the first has succeeded. */
static void request_after_success(void)
{
	set_helper_module(&helper, MODULE_NAME, &image);
	begin("request, again while it is live");
	report("first", request(MODULE_NAME, TEST_DEDUP_REQUEST));
	report("is there", is_loaded(MODULE_NAME));
	report("second", request(MODULE_NAME, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(&helper, MODULE_NAME));
	report_counters();
	must_unload(MODULE_NAME);
	begin("request, again after unload");
	report("third", request(MODULE_NAME, TEST_DEDUP_REQUEST));
	report("is there", is_loaded(MODULE_NAME));
	report("helpers", helper_calls(&helper, MODULE_NAME));
	report_counters();
	must_unload(MODULE_NAME);
	set_helper_module(&helper, MODULE_NAME, NULL);
}

/* There are 50 slots for requests. */
static void many_requests(void)
{
	int fifo = hold_helpers(&helper, "slow"), i, failed = 0;
	struct caller slow[NR_MANY];

	begin("request, beside 60 for a slow module");
	start_requests(&helper, slow, NR_MANY, "slow");
	report("other", request("other", TEST_DEDUP_REQUEST));
	report("helpers for the other", helper_calls(&helper, "other"));
	release_helper(fifo, 0);
	for (i = 0; i < NR_MANY; i++)
		failed += reap(&slow[i]) != 0;
	unhold_helpers(&helper, "slow", fifo);
	report("slow ones that failed", failed);
	report("helpers for the slow ones", helper_calls(&helper, "slow"));
}

static int handled[2];

static void tell_handled(int sig)
{
	char c = 0;

	if (write(handled[1], &c, 1) != 1)
		_exit(255);
}

/* Sends a signal whose handler has SA_RESTART. */
static void send_restarting(pid_t pid)
{
	char c;

	kill(pid, SIGUSR1);
	if (read(handled[0], &c, 1) != 1)
		die("the signal was not handled\n");
}

static bool has_stopped(pid_t pid)
{
	siginfo_t info = { };

	return !waitid(P_PID, pid, &info, WSTOPPED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

static void stop_and_continue(pid_t pid)
{
	kill(pid, SIGSTOP);
	wait_until(has_stopped(pid), "process %d does not stop\n", pid);
	kill(pid, SIGCONT);
}

/* A waiter gets a signal that its process need not notice. */
static void disturbed_wait(const char *name, const struct load *waiter_load,
			   void (*disturb)(pid_t pid))
{
	struct sigaction sa = { .sa_handler = tell_handled, .sa_flags = SA_RESTART };
	struct load load = with_args(from_file, "park=1");
	struct caller waiter;
	struct owner owner;

	if (pipe(handled))
		die("pipe: %s\n", strerror(errno));
	begin(name);
	owner = park_owner(&load, MODULE_NAME);
	waiter = fork_caller();
	if (!waiter.pid) {
		sigaction(SIGUSR1, &sa, NULL);
		*waiter.result = do_load(waiter_load);
		_exit(0);
	}
	wait_until(are_settled(&waiter, 1, waiter_load, 0), "the waiter did not arrive\n");
	disturb(waiter.pid);
	wait_until(are_settled(&waiter, 1, waiter_load, 0), "the waiter does not settle\n");
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_caller("waiter", &waiter);
	report_counters();
	must_unload(MODULE_NAME);
	close(handled[0]);
	close(handled[1]);
}

/* Waiters for a file whose owner waits for a name and gets a signal. */
static void interrupted_owner(const char *name, int sig)
{
	struct load load = with_args(from_file, "park=1");
	struct caller callers[NR_WAITERS];
	struct owner owner;

	begin(name);
	owner = park_owner(&load, MODULE_NAME);
	start_all(callers, &one_other_file);
	kill(callers[0].pid, sig);
	report_caller("first waiter", &callers[0]);
	wait_until(are_settled(callers + 1, NR_WAITERS - 1, one_other_file.loads, 0),
		   "the other waiters do not settle\n");
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_callers("other waiters", callers + 1, NR_WAITERS - 1);
	report_counters();
	must_unload(MODULE_NAME);
}

static char *duplicate_list(void)
{
	char *text = read_text(STATS, SIZE_MAX), *header, *list;

	header = strstr(text, "Duplicate failed modules:\n");
	list = strdup(header ?: "");
	free(text);
	return list;
}

static void odd_names(void)
{
	struct image renamed = copy_image(&image, IMAGE_LEN);
	char *list, *rest;
	int i;

	begin("name that cannot be printed");
	load_duplicate_as(&image, &renamed, "a\nb\t\x01\x7f\xe9\\c d");
	list = duplicate_list();
	rest = list;
	for (i = 0; i < 4; i++) {
		char what[] = "line 0 of the list";

		what[5] += i;
		/* The list is empty in mode full. */
		report_text(what, strsep(&rest, "\n") ?: "");
	}
	free(list);
	free_image(&renamed);
}

/* A list that is longer than the buffer of C. */
static void long_list(void)
{
	struct image renamed = copy_image(&image, IMAGE_LEN);
	char name[32], *list, *rest, *line;
	int i, whole = 0;

	begin("130 duplicates");
	for (i = 0; i < 130; i++) {
		snprintf(name, sizeof(name), "dedup_long_%d", i);
		load_duplicate_as(&image, &renamed, name);
	}
	list = duplicate_list();
	rest = list;
	while ((line = strsep(&rest, "\n"))) {
		unsigned long times;
		char reason[32];

		whole += sscanf(line, " dedup_long_%d %lu %31s", &i, &times, reason) == 3 &&
			 times == 1 && !strcmp(reason, "Becoming");
	}
	report("in the list", whole);
	report_counters();
	free(list);
	free_image(&renamed);
}

static void print_stats(void)
{
	char *text = read_text(STATS, SIZE_MAX), *rest = text, *line;
	char what[32];
	int i;

	begin("stats");
	for (i = 1; (line = strsep(&rest, "\n")); i++) {
		snprintf(what, sizeof(what), "line %02d", i);
		report_text(what, line);
	}
	free(text);
}

int main(int argc, char **argv)
{
	char path[PATH_MAX], compressed_path[PATH_MAX], other_paths[NR_WAITERS][PATH_MAX];
	struct image frame;
	int i;

	if (is_helper(argc, argv) && !strcmp(argv[3], IN_BACKGROUND))
		return run_background_helper(argv[0]);
	if (is_helper(argc, argv))
		return run_helper(argv);

	need_stats();
	if (!has_mode("full"))
		need_mode("inode");
	if (!file_says("/sys/module/kernel/parameters/module_blacklist", "test_black\n"))
		ksft_exit_skip("needs module_blacklist=test_black\n");
	setvbuf(stdout, NULL, _IOLBF, 0);
	image = read_padded(MODULE_NAME);
	frame = compress(&image);
	from_memory = (struct load){ .image = &image, .args = "" };
	from_file = (struct load){ .path = write_image(path, &image), .args = "" };
	for (i = 0; i < NR_WAITERS; i++) {
		from_other_files[i] = from_file;
		from_other_files[i].path = write_image(other_paths[i], &image);
	}
	from_compressed = with_flags(from_file, MODULE_INIT_COMPRESSED_FILE);
	from_compressed.path = write_image(compressed_path, &frame);

	load_once("from a file", &from_file);
	load_once("from memory", &from_memory);
	bad_calls();
	corrupt_images();
	blacklisted_name();
	failing_loads();
	bad_args();
	duplicates();
	compressed_files();
	overwritten_file("file overwritten by another module", &from_file);
	overwritten_file("compressed file overwritten by another module", &from_compressed);
	failing_herd();
	wait_for_owners();
	signalled_waiters("same file, SIGKILL", SIGKILL, &same_file);
	signalled_waiters("same file, caught signal", SIGUSR1, &same_file);
	signalled_waiters("other files, SIGKILL", SIGKILL, &other_files);
	signalled_waiters("other files, caught signal", SIGUSR1, &other_files);
	signalled_waiters("from memory, SIGKILL", SIGKILL, &in_memory);
	signalled_waiters("from memory, caught signal", SIGUSR1, &in_memory);
	disturbed_wait("from memory, signal with SA_RESTART", &from_memory, send_restarting);
	disturbed_wait("from memory, stopped", &from_memory, stop_and_continue);
	load_while_going();
	load_while_settling();
	load_beside_missing_page();
	wait_for_symbols();

	if (system("modprobe test_kmod"))
		die("modprobe test_kmod failed\n");
	storm("test_kmod and modprobe, 8 threads", "test_module", "8");
	storm("test_kmod and modprobe, no such module", "test_dedup_missing", "8");
	install_helper(&helper);
	requests();
	print_stats();

	/* The scenarios from here on are known to differ. */
	bad_pointer_to_args();
	disturbed_wait("same file, signal with SA_RESTART", &from_file, send_restarting);
	disturbed_wait("same file, stopped", &from_file, stop_and_continue);
	wait_for_killed_owners();
	interrupted_owner("one other file, first waiter gets SIGKILL", SIGKILL);
	interrupted_owner("one other file, first waiter gets a caught signal", SIGUSR1);
	killed_request();
	request_after_unload();
	request_after_failure();
	request_after_success();
	many_requests();
	odd_names();
	long_list();

	remove_helper(&helper);
	must_unload("test_kmod");
	must_unload("test_module");
	unlink(path);
	unlink(compressed_path);
	for (i = 0; i < NR_WAITERS; i++)
		unlink(other_paths[i]);
	return 0;
}
