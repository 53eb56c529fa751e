// SPDX-License-Identifier: GPL-2.0
/*
 * Module loads and requests of every kind, as a script: it prints what can be
 * observed, one "label<TAB>value" a line, for scripts/differential to compare
 * two kernels. It judges nothing itself.
 *
 * Nothing that is printed depends on timing: who has to wait does so for a load
 * or a helper that is held until all have arrived. And nothing depends on the
 * name of the kernel, which stands in every module and changes its length: all
 * images are filled up to one length.
 *
 * First comes what is to be the same, with the text of "stats" at its end; then
 * what differs, on purpose or on some kernels only.
 *
 * Needs module_blacklist=test_black on the kernel's command line, and
 * module.dedup=inode where there is that parameter: what C does.
 *
 * Usage: dedup_workload [FOLDER OF THE TEST MODULES]
 */
#include <stddef.h>
#include <sys/socket.h>

#include "dedup_request.h"

/* Everything but padding is in the first half, also with what debugging adds. */
#define IMAGE_LEN	(128 << 10)
#define HALF		(IMAGE_LEN / 2)
#define NR_WAITERS	8
#define TEST_KMOD	"/sys/devices/virtual/misc/test_kmod0/"

/* test_dedup: in memory, in a file, in other files, and in a file, compressed. */
static struct image image;
static struct load from_memory, from_file, from_other_files[NR_WAITERS], from_compressed;

/*
 * Printing
 */

static const char *scenario;
static unsigned long before[NR_COUNTERS];

static void begin(const char *name)
{
	unsigned int i;

	scenario = name;
	for (i = 0; i < NR_COUNTERS; i++)
		before[i] = read_counter(counter_names[i]);
}

static void report(const char *what, long value)
{
	printf("%s: %s\t%ld\n", scenario, what, value);
}

/* What became of callers: an errno or the like each. */
static void report_callers(const char *what, const struct caller *callers, int n)
{
	int i, result;

	printf("%s: %s\t", scenario, what);
	for (i = 0; i < n; i++) {
		result = finish(&callers[i]);
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

/* Prints the text such that it is one line, and any other text looks different. */
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
	unsigned int i;

	for (i = 0; i < NR_COUNTERS; i++)
		report(counter_names[i], read_counter(counter_names[i]) - before[i]);
}

/* One load, and the module is gone again. */
static void load_alone(const char *name, const struct load *load)
{
	begin(name);
	report("result", do_load(load));
	report_counters();
	must_unload(MODULE_NAME);
}

/*
 * Images
 */

static struct image read_padded(char **argv, const char *name)
{
	char path[PATH_MAX];
	struct image raw, padded;

	module_path(path, argv, name);
	raw = read_image(path);
	if (raw.len > HALF)
		ksft_exit_fail_msg("%s has %zu bytes\n", path, raw.len);
	padded = copy_image(&raw, IMAGE_LEN);
	free(raw.bytes);
	return padded;
}

/* Loads an image from a file, then from memory, and frees it. */
static void load_image(const char *name, struct image broken, int flags)
{
	char label[128];
	char *path = write_image(&broken);
	struct load file = { .path = path, .args = "", .flags = flags };
	struct load memory = { .image = &broken, .args = "" };

	snprintf(label, sizeof(label), "%s, finit_module", name);
	load_alone(label, &file);
	if (!(flags & MODULE_INIT_COMPRESSED_FILE)) {
		snprintf(label, sizeof(label), "%s, init_module", name);
		load_alone(label, &memory);
	}
	unlink(path);
	free(path);
	free(broken.bytes);
}

/*
 * Scenarios: errors before anything is looked at
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

/* A process that opened the file before it gave up what it needs to load a module. */
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
		ksft_exit_fail_msg("pipe: %s\n", strerror(errno));
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
	load_alone("file open for writing", &busy);
	close(fd);

	load.image = &empty;
	load_alone("image without bytes", &load);
	load.image = &unmapped;
	load_alone("image not mapped", &load);

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
		{ "bad type", offsetof(struct elf64_hdr, e_type), 2, ET_EXEC },
		{ "bad machine", offsetof(struct elf64_hdr, e_machine), 2, EM_NONE },
		{ "bad size of headers", offsetof(struct elf64_hdr, e_shentsize), 2, 1 },
		{ "headers at 0", offsetof(struct elf64_hdr, e_shoff), 8, 0 },
		{ "headers at the end", offsetof(struct elf64_hdr, e_shoff), 8, IMAGE_LEN },
		{ "headers across the end", offsetof(struct elf64_hdr, e_shoff), 8,
			IMAGE_LEN - sizeof(struct elf64_shdr) },
		{ "headers far away", offsetof(struct elf64_hdr, e_shoff), 8, ~0UL - 63 },
		{ "no sections", offsetof(struct elf64_hdr, e_shnum), 2, 0 },
		{ "many sections", offsetof(struct elf64_hdr, e_shnum), 2, 0xffff },
		{ "no section names", offsetof(struct elf64_hdr, e_shstrndx), 2, 0 },
		{ "names nowhere", offsetof(struct elf64_hdr, e_shstrndx), 2, 0xffff },
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

/* Replaces the first byte of a string in the section of that name. */
static struct image image_without(const char *section, const char *string)
{
	struct image broken = copy_image(&image, IMAGE_LEN);
	struct elf64_shdr *shdr = find_section(&broken, section);
	char *found = memmem(broken.bytes + shdr->sh_offset, shdr->sh_size,
			     string, strlen(string));

	if (!found)
		ksft_exit_fail_msg("the module has no %s\n", string);
	*found = '?';
	return broken;
}

static void corrupt_images(void)
{
	cut_images();
	bad_headers();
	bad_section("section outside", ".modinfo",
		    offsetof(struct elf64_shdr, sh_offset), IMAGE_LEN);
	bad_section("section too long", ".modinfo", offsetof(struct elf64_shdr, sh_size), ~0UL);
	bad_section("short struct module", ".gnu.linkonce.this_module",
		    offsetof(struct elf64_shdr, sh_size), 8);
	bad_section("no symbols", ".symtab", offsetof(struct elf64_shdr, sh_size), 0);
	load_image("no struct module", image_without(".shstrtab", ".gnu.linkonce"), 0);
	load_image("no modinfo", image_without(".shstrtab", ".modinfo"), 0);
	load_image("no vermagic", image_without(".modinfo", "vermagic="), 0);
	load_image("wrong vermagic", image_without(".modinfo", "SMP"), 0);
	load_image("wrong vermagic, flag to ignore it", image_without(".modinfo", "SMP"),
		   MODULE_INIT_IGNORE_VERMAGIC);
	load_image("unknown symbol", image_without(".strtab", "param_get_bool"), 0);
}

/* The blacklist goes by the name in .modinfo. */
static void blacklisted_name(void)
{
	struct image black = copy_image(&image, IMAGE_LEN);
	struct elf64_shdr *shdr = find_section(&black, ".modinfo");
	char *name = memmem(black.bytes + shdr->sh_offset, shdr->sh_size, "name=" MODULE_NAME,
			    sizeof("name=" MODULE_NAME));

	if (!name)
		ksft_exit_fail_msg("the module does not say its name\n");
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
		load_alone(name, &file);
		snprintf(name, sizeof(name), "init returns %d, init_module", results[i]);
		load_alone(name, &memory);
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
		load_alone(name, &file);
		snprintf(name, sizeof(name), "%s, init_module", args[i].name);
		load_alone(name, &memory);
	}
}

/* What is found when the module is live. */
static void late_duplicates(void)
{
	struct image vermagic = image_without(".modinfo", "vermagic=");
	const struct load bad = { .image = &vermagic, .args = "" };
	const struct load bad_value = with_args(from_file, "init_result=none");
	const struct {
		const char *name;
		const struct load *load;
	} late[] = {
		{ "late, same file", &from_file },
		{ "late, other file", &from_other_files[0] },
		{ "late, from memory", &from_memory },
		{ "late, compressed", &from_compressed },
		{ "late, bad value in args", &bad_value },
		{ "late, from memory, no vermagic", &bad },
	};
	unsigned int i;

	begin("before the late ones");
	report("result", do_load(&from_file));
	report_counters();
	for (i = 0; i < ARRAY_SIZE(late); i++) {
		begin(late[i].name);
		report("result", do_load(late[i].load));
		report_counters();
	}
	must_unload(MODULE_NAME);
	free(vermagic.bytes);
}

static void compressed_files(void)
{
	struct load load = from_compressed;
	struct image frame, broken;

	load_alone("compressed", &load);
	load.args = "init_result=-19";
	load_alone("compressed, init returns -19", &load);
	load = with_flags(from_file, MODULE_INIT_COMPRESSED_FILE);
	load_alone("not compressed, but said to be", &load);
	load = with_flags(from_compressed, 0);
	load_alone("compressed, but not said to be", &load);

	frame = compress(&image);
	broken = copy_image(&frame, frame.len);
	broken.bytes[0] ^= 1;
	load_image("compressed, bad magic", broken, MODULE_INIT_COMPRESSED_FILE);
	broken = copy_image(&frame, frame.len);
	/* There is no block of type 3. */
	broken.bytes[frame.len - 4] |= 3 << 1;
	load_image("compressed, bad block", broken, MODULE_INIT_COMPRESSED_FILE);
	load_image("compressed, cut to 4 bytes", copy_image(&frame, 4),
		   MODULE_INIT_COMPRESSED_FILE);
	load_image("compressed, cut to 4096 bytes", copy_image(&frame, 4096),
		   MODULE_INIT_COMPRESSED_FILE);
	load_image("compressed, with more behind it", copy_image(&frame, frame.len + 100),
		   MODULE_INIT_COMPRESSED_FILE);
	free(frame.bytes);

	broken = image_without(".modinfo", "vermagic=");
	load_image("compressed, no vermagic", compress(&broken), MODULE_INIT_COMPRESSED_FILE);
	free(broken.bytes);
}

/*
 * Scenarios: while another load is held
 */

/* Waiters that all make the same call, or each one of its own. */
struct waiters {
	const struct load *loads;
	bool differ;
};

static void start_waiters(struct caller callers[NR_WAITERS], const struct waiters *waiters)
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
	owner = park_by_init(&load, MODULE_NAME);
	start_waiters(callers, waiters);
	report("loaded meanwhile", read_counter("modcount") - before[0]);
	if (killed)
		kill(owner.caller.pid, SIGKILL);
	else
		release_owner(&owner);
	report_caller("owner", &owner.caller);
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

	for (i = 0; i < ARRAY_SIZE(outcomes); i++) {
		const char *outcome = outcomes[i];

		wait_for_owner("same file", outcome, &from_file, &same_file);
		wait_for_owner("same file, other args", outcome, &from_file, &same_file_other_args);
		wait_for_owner("one other file", outcome, &from_file, &one_other_file);
		wait_for_owner("other files", outcome, &from_file, &other_files);
		wait_for_owner("from memory", outcome, &from_file, &in_memory);
		wait_for_owner("compressed", outcome, &from_file, &in_compressed_file);
		wait_for_owner("both from memory", outcome, &from_memory, &in_memory);
		wait_for_owner("files, owner from memory", outcome, &from_memory, &other_files);
	}
}

/* Half of the waiters get a signal, and leave while the owner is still held. */
static void signalled_waiters(const char *name, int sig, const struct waiters *waiters)
{
	struct load load = with_args(from_file, "park=1");
	struct caller callers[NR_WAITERS];
	struct owner owner;
	int i;

	begin(name);
	owner = park_by_init(&load, MODULE_NAME);
	start_waiters(callers, waiters);
	for (i = 0; i < NR_WAITERS / 2; i++)
		kill(callers[i].pid, sig);
	report_callers("signalled", callers, NR_WAITERS / 2);
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_callers("others", callers + NR_WAITERS / 2, NR_WAITERS / 2);
	report_counters();
	must_unload(MODULE_NAME);
}

/* A module that is going is neither waited for nor replaced. */
static void load_while_going(void)
{
	char park[] = "/sys/module/" MODULE_NAME "/parameters/park";
	char state[] = "/sys/module/" MODULE_NAME "/initstate";
	struct caller unload;

	begin("going");
	report("load", do_load(&from_file));
	report("park", write_to(park, "1"));
	unload = fork_caller();
	if (!unload.pid) {
		*unload.result = unload_module(MODULE_NAME);
		_exit(0);
	}
	wait_until(file_says(state, "going\n"), "the module does not go\n");
	report("from a file", do_load(&from_file));
	report("from memory", do_load(&from_memory));
	report("release", write_to(park, "0"));
	report_caller("unload", &unload);
	report_counters();
}

/*
 * A module that needs a symbol of one that is coming waits for that, and itself
 * is in the list by then: others wait for it.
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
	owner = park_by_init(&load, MODULE_NAME);
	first = start_waiter(&needs);
	start_waiters(callers, &waiters);
	released = now();
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_caller("user", &first);
	/* Not woken, it would look again after 30 s. */
	report("woken at once", now() - released < 20);
	report_callers("waiters", callers, NR_WAITERS);
	report_counters();
	must_unload("test_dedup_user");
	must_unload(MODULE_NAME);
}

static void wait_for_symbols(char **argv)
{
	struct image user = read_padded(argv, "test_dedup_user");
	struct load load = { .image = &user, .args = "" };

	load_alone("user of a symbol that is not there", &load);
	wait_for_symbol("wait for a symbol, owner succeeds", "park=1", &user);
	wait_for_symbol("wait for a symbol, owner fails", "park=1 init_result=-19", &user);
	free(user.bytes);
}

/*
 * Scenarios: request_module()
 */

static void must_write(const char *path, const char *text)
{
	int err = write_to(path, text);

	if (err)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(err));
}

/* As many requests at once as there are threads, through test_kmod. */
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
	int fifo = hold_helpers(module), log = open_log(), i;
	struct caller first, waiters[NR_WAITERS];

	begin(name);
	first = start_first_request(module);
	for (i = 0; i < NR_WAITERS; i++)
		waiters[i] = start_waiting_request(module);
	report("nowait meanwhile", request(module, TEST_DEDUP_REQUEST_NOWAIT));
	release_helper(fifo, code);
	report_caller("first", &first);
	report_callers("waiters", waiters, NR_WAITERS);
	unhold_helpers(module, fifo);
	report("helpers", helper_calls(module));
	report("messages", count_in_log(log, DUP_MESSAGE));
	close(log);
}

/* A waiter that is killed leaves; the others stay. */
static void killed_waiter(void)
{
	const char *module = "killed_waiter";
	int fifo = hold_helpers(module);
	struct caller first, waiters[2];

	begin("request, waiter killed");
	first = start_first_request(module);
	waiters[0] = start_waiting_request(module);
	waiters[1] = start_waiting_request(module);
	kill(waiters[0].pid, SIGKILL);
	report_caller("killed waiter", &waiters[0]);
	release_helper(fifo, 0);
	report_caller("first", &first);
	report_caller("other waiter", &waiters[1]);
	unhold_helpers(module, fifo);
	report("helpers", helper_calls(module));
}

/* One that did not wait for its helper is none that others could wait for. */
static void nowait_first(void)
{
	const char *module = "nowait_first";
	int fifo = hold_helpers(module);
	struct caller second;

	begin("request, nowait first");
	report("first", request(module, TEST_DEDUP_REQUEST_NOWAIT));
	wait_until(helper_calls(module) == 1, "the helper was not called\n");
	second = start_waiting_request(module);
	wait_until(helper_calls(module) == 2, "the helper was not called again\n");
	release_helper(fifo, 0);
	release_helper(fifo, 0);
	report_caller("second", &second);
	unhold_helpers(module, fifo);
}

static void odd_requests(void)
{
	char name[MODULE_NAME_MAX + 2];
	char *path;

	memset(name, 'x', sizeof(name));
	name[MODULE_NAME_MAX] = '\0';
	begin("request, longest name");
	report("result", request(name, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(name));
	name[MODULE_NAME_MAX] = 'x';
	name[MODULE_NAME_MAX + 1] = '\0';
	begin("request, name too long");
	report("result", request(name, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(name));

	path = read_text(MODPROBE, SIZE_MAX);
	must_write(MODPROBE, "\n");
	begin("request, no modprobe");
	report("result", request("no_modprobe", TEST_DEDUP_REQUEST));
	must_write(MODPROBE, "/no/such/file\n");
	begin("request, modprobe is not there");
	report("result", request("bad_modprobe", TEST_DEDUP_REQUEST));
	must_write(MODPROBE, path);
	free(path);
}

static void requests(void)
{
	wait_for_helper("request, helper succeeds", "helper_succeeds", 0);
	wait_for_helper("request, helper fails", "helper_fails", 1);
	killed_waiter();
	nowait_first();
	odd_requests();
}

/*
 * What is known to differ
 */

/* Before anything is read, or after the module is allocated. */
static void bad_pointer_to_args(void)
{
	struct load load = with_args(from_file, (const char *)8);

	load_alone("args at 8", &load);
}

/* Who waits for a request that is killed, while its helper goes on. */
static void killed_request(void)
{
	const char *module = "killed_first";
	int fifo = hold_helpers(module), i;
	struct caller first, waiters[NR_WAITERS];

	begin("request, first killed");
	first = start_first_request(module);
	for (i = 0; i < NR_WAITERS; i++)
		waiters[i] = start_waiting_request(module);
	kill(first.pid, SIGKILL);
	report_caller("first", &first);
	/* The helper of the first is still there; there may be one more. */
	release_helper(fifo, 0);
	release_helper(fifo, 0);
	report_callers("waiters", waiters, NR_WAITERS);
	unhold_helpers(module, fifo);
	report("helpers", helper_calls(module));
}

/* A second request after the first has failed. */
static void request_after_failure(void)
{
	const char *module = "again";
	int fifo = hold_helpers(module);

	begin("request, again after failure");
	release_helper(fifo, 1);
	report("first", request(module, TEST_DEDUP_REQUEST));
	unhold_helpers(module, fifo);
	report("second", request(module, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(module));
}

/* A second request after the first has succeeded. */
static void request_after_success(void)
{
	let_helper_load(MODULE_NAME, &image);
	begin("request, again while it is live");
	report("first", request(MODULE_NAME, TEST_DEDUP_REQUEST));
	report("is there", is_loaded(MODULE_NAME));
	report("second", request(MODULE_NAME, TEST_DEDUP_REQUEST));
	report("helpers", helper_calls(MODULE_NAME));
	report_counters();
	must_unload(MODULE_NAME);
	begin("request, again after unload");
	report("third", request(MODULE_NAME, TEST_DEDUP_REQUEST));
	report("is there", is_loaded(MODULE_NAME));
	report("helpers", helper_calls(MODULE_NAME));
	report_counters();
	must_unload(MODULE_NAME);
	let_helper_not_load(MODULE_NAME);
}

/* There are 50 slots for requests. */
static void many_requests(void)
{
	int fifo = hold_helpers("slow"), failed = 0;
	struct caller slow[60];
	unsigned int i;

	begin("request, beside 60 for a slow module");
	slow[0] = start_first_request("slow");
	for (i = 1; i < ARRAY_SIZE(slow); i++)
		slow[i] = start_waiting_request("slow");
	report("other", request("other", TEST_DEDUP_REQUEST));
	report("helpers for the other", helper_calls("other"));
	release_helper(fifo, 0);
	for (i = 0; i < ARRAY_SIZE(slow); i++)
		failed += finish(&slow[i]) != 0;
	unhold_helpers("slow", fifo);
	report("slow ones that failed", failed);
	report("helpers for the slow ones", helper_calls("slow"));
}

static int handled[2];

static void tell_handled(int sig)
{
	char c = 0;

	if (write(handled[1], &c, 1) != 1)
		_exit(255);
}

/* What a handler with SA_RESTART makes of a wait. */
static void restarted_wait(const char *name, const struct load *waiter_load)
{
	struct sigaction sa = { .sa_handler = tell_handled, .sa_flags = SA_RESTART };
	struct load load = with_args(from_file, "park=1");
	struct caller waiter;
	struct owner owner;
	char c;

	if (pipe(handled))
		ksft_exit_fail_msg("pipe: %s\n", strerror(errno));
	begin(name);
	owner = park_by_init(&load, MODULE_NAME);
	waiter = fork_caller();
	if (!waiter.pid) {
		sigaction(SIGUSR1, &sa, NULL);
		*waiter.result = do_load(waiter_load);
		_exit(0);
	}
	wait_until(has_arrived(waiter.pid, load_syscall(waiter_load), 'S'),
		   "the waiter did not arrive\n");
	kill(waiter.pid, SIGUSR1);
	if (read(handled[0], &c, 1) != 1)
		ksft_exit_fail_msg("the signal was not handled\n");
	release_owner(&owner);
	report_caller("owner", &owner.caller);
	report_caller("waiter", &waiter);
	report_counters();
	must_unload(MODULE_NAME);
	close(handled[0]);
	close(handled[1]);
}

/* Who waits for a file that waits for a name: what it gets if that one is interrupted. */
static void interrupted_between(const char *name, int sig)
{
	struct load load = with_args(from_file, "park=1");
	struct caller callers[NR_WAITERS];
	struct owner owner;

	begin(name);
	owner = park_by_init(&load, MODULE_NAME);
	start_waiters(callers, &one_other_file);
	kill(callers[0].pid, sig);
	report_callers("waiters", callers, NR_WAITERS);
	release_owner(&owner);
	report_caller("owner", &owner.caller);
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
	duplicate_as(&image, &renamed, "a\nb\t\x01\x7f\xe9\\c d");
	list = duplicate_list();
	rest = list;
	for (i = 0; i < 4; i++) {
		char what[] = "line 0 of the list";

		what[5] += i;
		report_text(what, strsep(&rest, "\n"));
	}
	free(list);
	free(renamed.bytes);
}

/* A list that is longer than C's buffer. */
static void long_list(void)
{
	struct image renamed = copy_image(&image, IMAGE_LEN);
	char name[32], *list, *rest, *line;
	int i, whole = 0;

	begin("130 duplicates");
	for (i = 0; i < 130; i++) {
		snprintf(name, sizeof(name), "dedup_long_%d", i);
		duplicate_as(&image, &renamed, name);
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
	free(renamed.bytes);
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
	struct image frame;
	char *path, *other_paths[NR_WAITERS], *compressed_path;
	int i;

	if (is_helper(argc, argv))
		return be_helper(argv);

	need_root_and_stats();
	if (!file_says("/sys/module/kernel/parameters/module_blacklist", "test_black\n"))
		ksft_exit_skip("needs module_blacklist=test_black\n");
	setvbuf(stdout, NULL, _IOLBF, 0);
	image = read_padded(argv, MODULE_NAME);
	frame = compress(&image);
	path = write_image(&image);
	compressed_path = write_image(&frame);
	from_memory = (struct load){ .image = &image, .args = "" };
	from_file = (struct load){ .path = path, .args = "" };
	for (i = 0; i < NR_WAITERS; i++) {
		other_paths[i] = write_image(&image);
		from_other_files[i] = (struct load){ .path = other_paths[i], .args = "" };
	}
	from_compressed = (struct load){
		.path = compressed_path,
		.args = "",
		.flags = MODULE_INIT_COMPRESSED_FILE,
	};

	load_alone("alone, from a file", &from_file);
	load_alone("alone, from memory", &from_memory);
	bad_calls();
	corrupt_images();
	blacklisted_name();
	failing_loads();
	bad_args();
	late_duplicates();
	compressed_files();
	wait_for_owners();
	signalled_waiters("same file, SIGKILL", SIGKILL, &same_file);
	signalled_waiters("same file, caught signal", SIGUSR1, &same_file);
	signalled_waiters("other files, SIGKILL", SIGKILL, &other_files);
	signalled_waiters("other files, caught signal", SIGUSR1, &other_files);
	signalled_waiters("from memory, SIGKILL", SIGKILL, &in_memory);
	signalled_waiters("from memory, caught signal", SIGUSR1, &in_memory);
	restarted_wait("same file, signal with SA_RESTART", &from_file);
	load_while_going();
	wait_for_symbols(argv);

	if (system("modprobe test_kmod"))
		ksft_exit_fail_msg("modprobe test_kmod failed\n");
	storm("test_kmod and modprobe, 8 threads", "test_module", "8");
	storm("test_kmod and modprobe, no such module", "test_dedup_missing", "8");
	setup_requests(argv);
	requests();
	print_stats();

	/* From here on with what is known to differ. */
	bad_pointer_to_args();
	restarted_wait("from memory, signal with SA_RESTART", &from_memory);
	interrupted_between("other file, first waiter gets SIGKILL", SIGKILL);
	interrupted_between("other file, first waiter gets a caught signal", SIGUSR1);
	killed_request();
	request_after_failure();
	request_after_success();
	many_requests();
	odd_names();
	long_list();

	cleanup_requests();
	must_unload("test_kmod");
	must_unload("test_module");
	unlink(path);
	unlink(compressed_path);
	for (i = 0; i < NR_WAITERS; i++)
		unlink(other_paths[i]);
	return 0;
}
