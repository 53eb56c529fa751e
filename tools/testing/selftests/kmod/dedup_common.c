// SPDX-License-Identifier: GPL-2.0
/*
 * Shared by the selftests of module load deduplication, see dedup_common.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "dedup_common.h"

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

bool is_quick(void)
{
	return getenv("DEDUP_QUICK");
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("# ");
	vprintf(format, args);
	va_end(args);
	exit(KSFT_FAIL);
}

void *alloc_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap: %s\n", strerror(errno));
	return memory;
}

void run_command(const char *format, ...)
{
	char *command;
	va_list args;

	va_start(args, format);
	if (vasprintf(&command, format, args) < 0)
		die("no memory\n");
	va_end(args);
	if (system(command))
		die("failed: %s\n", command);
	free(command);
}

/*
 * Preconditions
 */

#define skip_unless(condition, ...)					\
do {									\
	if (!(condition)) {						\
		ksft_print_header();					\
		ksft_exit_skip(__VA_ARGS__);				\
	}								\
} while (0)

void need_stats(void)
{
	char path[PATH_MAX];

	module_path(path, MODULE_NAME);
	skip_unless(!geteuid(), "must be root\n");
	skip_unless(!access(STATS, R_OK), "needs CONFIG_MODULE_STATS and debugfs\n");
	skip_unless(!access(path, R_OK), "%s: %s\n", path, strerror(errno));
}

void need_dedup(void)
{
	skip_unless(has_dedup() && !access(DEDUP, R_OK), "needs CONFIG_MODULE_DEDUP_RUST\n");
}

void need_mode(const char *mode)
{
	skip_unless(!has_dedup() || has_mode(mode), "needs module.dedup=%s\n", mode);
}

void need_file(const char *path, const char *what)
{
	skip_unless(!access(path, F_OK), "needs %s\n", what);
}

bool has_dedup(void)
{
	return !access(DEDUP_MODE, F_OK);
}

bool has_mode(const char *mode)
{
	char line[32];

	snprintf(line, sizeof(line), "%s\n", mode);
	return has_dedup() && file_says(DEDUP_MODE, line);
}

/*
 * Modules, in files and in memory
 */

void module_path(char path[PATH_MAX], const char *name)
{
	const char *folder = getenv("DEDUP_MODULES");
	char exe[PATH_MAX];
	ssize_t len;
	int written;

	if (folder) {
		written = snprintf(path, PATH_MAX, "%s/%s.ko", folder, name);
	} else {
		len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
		if (len < 0)
			die("/proc/self/exe: %s\n", strerror(errno));
		exe[len] = '\0';
		*strrchr(exe, '/') = '\0';
		written = snprintf(path, PATH_MAX, "%s/test_modules/%s.ko", exe, name);
	}
	if (written >= PATH_MAX)
		die("the path of %s.ko is too long\n", name);
}

struct image read_module(const char *name)
{
	char path[PATH_MAX];

	module_path(path, name);
	return read_image(path);
}

struct image read_image(const char *path)
{
	struct image image;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s\n", path, strerror(errno));
	image = new_image(st.st_size);
	if (read(fd, image.bytes, image.len) != (ssize_t)image.len)
		die("%s: could not be read\n", path);
	close(fd);
	return image;
}

struct image new_image(size_t len)
{
	struct image image = { .bytes = calloc(1, len ?: 1), .len = len };

	if (!image.bytes)
		die("no memory\n");
	return image;
}

struct image copy_image(const struct image *from, size_t len)
{
	struct image copy = new_image(len);

	memcpy(copy.bytes, from->bytes, len < from->len ? len : from->len);
	return copy;
}

void free_image(struct image *image)
{
	free(image->bytes);
	*image = (struct image){ };
}

const char *write_image_to(char path[PATH_MAX], const char *folder, const struct image *image)
{
	int fd;

	snprintf(path, PATH_MAX, "%s/" MODULE_NAME ".XXXXXX", folder);
	fd = mkstemp(path);
	if (fd < 0 || write(fd, image->bytes, image->len) != (ssize_t)image->len)
		die("%s: %s\n", path, strerror(errno));
	close(fd);
	return path;
}

const char *write_image(char path[PATH_MAX], const struct image *image)
{
	return write_image_to(path, "/tmp", image);
}

const char *write_module(char path[PATH_MAX], const char *name)
{
	struct image image = read_module(name);

	write_image(path, &image);
	free_image(&image);
	return path;
}

void overwrite(const char *path, const struct image *image)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, image->bytes, image->len) != (ssize_t)image->len)
		die("%s: %s\n", path, strerror(errno));
	close(fd);
}

void use_own_tmp(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL))
		die("/tmp: %s\n", strerror(errno));
}

/* Half of what a zstd block holds at most. */
#define ZSTD_BLOCK	(64UL << 10)

/*
 * Stores each block as it is, or as one byte and a count where it consists of
 * one byte: RFC 8878 without any compression of the rest.
 */
struct image compress(const struct image *from)
{
	const unsigned char header[] = {
		0x28, 0xb5, 0x2f, 0xfd,		/* magic */
		0xa0,				/* one segment, a length of 4 bytes */
		from->len, from->len >> 8, from->len >> 16, from->len >> 24,
	};
	size_t blocks = (from->len + ZSTD_BLOCK - 1) / ZSTD_BLOCK, at, len;
	struct image frame = new_image(sizeof(header) + blocks * 3 + from->len);
	char *to = mempcpy(frame.bytes, header, sizeof(header));

	for (at = 0; at < from->len; at += len) {
		const char *block = from->bytes + at;
		bool is_last, is_repeated;
		unsigned int block_header;

		len = from->len - at < ZSTD_BLOCK ? from->len - at : ZSTD_BLOCK;
		is_last = at + len == from->len;
		is_repeated = !memcmp(block, block + 1, len - 1);
		block_header = len << 3 | is_repeated << 1 | is_last;
		to = mempcpy(to, &block_header, 3);
		to = mempcpy(to, block, is_repeated ? 1 : len);
	}
	frame.len = to - frame.bytes;
	return frame;
}

struct elf_shdr *find_section(const struct image *image, const char *name)
{
	struct elf_hdr *hdr = (struct elf_hdr *)image->bytes;
	struct elf_shdr *sections = (struct elf_shdr *)(image->bytes + hdr->e_shoff);
	const char *names = image->bytes + sections[hdr->e_shstrndx].sh_offset;
	int i;

	for (i = 1; i < hdr->e_shnum; i++)
		if (!strcmp(names + sections[i].sh_name, name))
			return &sections[i];
	die("the module has no section %s\n", name);
}

char *find_string(const struct image *image, const char *section, const char *string)
{
	struct elf_shdr *shdr = find_section(image, section);
	char *found = memmem(image->bytes + shdr->sh_offset, shdr->sh_size, string,
			     strlen(string) + 1);

	if (!found)
		die("the module has no %s in %s\n", string, section);
	return found;
}

void replace_string(const struct image *image, const char *section, const char *from,
		    const char *to)
{
	char *at = find_string(image, section, from);

	if (strlen(to) > strlen(from))
		die("no room for %s in place of %s\n", to, from);
	memset(at, 0, strlen(from));
	memcpy(at, to, strlen(to));
}

void spoil_string(const struct image *image, const char *section, const char *string)
{
	struct elf_shdr *shdr = find_section(image, section);
	char *found = memmem(image->bytes + shdr->sh_offset, shdr->sh_size, string,
			     strlen(string));

	if (!found)
		die("the module has no %s in %s\n", string, section);
	*found = '?';
}

char *find_name(const struct image *image)
{
	return find_string(image, ".gnu.linkonce.this_module", MODULE_NAME);
}

void put_name(char *at, const char *name)
{
	memset(at, 0, MODULE_NAME_MAX);
	memcpy(at, name, strlen(name));
}

void set_name(const struct image *image, const struct image *copy, const char *name)
{
	put_name(copy->bytes + (find_name(image) - image->bytes), name);
}

void set_symbol(const struct image *copy, const char *symbol)
{
	replace_string(copy, "__ksymtab_strings", EXPORTED, symbol);
}

/*
 * Loads
 */

struct load with_args(struct load load, const char *args)
{
	load.args = args;
	return load;
}

struct load with_flags(struct load load, int flags)
{
	load.flags = flags;
	return load;
}

long load_syscall(const struct load *load)
{
	return load->path ? SYS_finit_module : SYS_init_module;
}

int do_load(const struct load *load)
{
	int fd, err;

	if (!load->path)
		return syscall(SYS_init_module, load->image->bytes, load->image->len,
			       load->args) ? errno : 0;
	fd = open(load->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	err = syscall(SYS_finit_module, fd, load->args, load->flags) ? errno : 0;
	close(fd);
	return err;
}

int unload_module(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

void must_unload(const char *name)
{
	int err = unload_module(name);

	if (err && err != ENOENT)
		die("delete_module %s: %s\n", name, strerror(err));
}

void unload_leftover(const char *name)
{
	int err;

	wait_until(is_idle(), "a load is still pending\n");
	/* EBUSY: coming or going. EWOULDBLOCK: in use, perhaps by a dying process. */
	wait_until((err = unload_module(name)) != EBUSY && err != EWOULDBLOCK,
		   "%s cannot be unloaded: %s\n", name, strerror(err));
	if (err && err != ENOENT)
		die("delete_module %s: %s\n", name, strerror(err));
}

void load_duplicate_as(const struct image *image, const struct image *copy, const char *name)
{
	struct load load = { .image = copy, .args = "" };
	int err;

	set_name(image, copy, name);
	err = do_load(&load);
	if (err)
		die("%s: %s\n", name, strerror(err));
	err = do_load(&load);
	if (err != EEXIST)
		die("%s, second load: %s\n", name, strerror(err));
	must_unload(name);
}

bool is_loaded(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(path, F_OK);
}

bool is_live(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/module/%s/initstate", name);
	return !access(path, F_OK) && file_says(path, "live\n");
}

/*
 * Processes
 */

pid_t fork_child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("fork: %s\n", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent may have ended before. */
		if (getppid() != parent)
			_exit(KSFT_FAIL);
	}
	return pid;
}

struct caller fork_caller(void)
{
	static unsigned int next;
	static int *results;
	struct caller caller;

	if (!results)
		results = alloc_shared(MAX_CALLERS * sizeof(*results));
	caller.result = &results[next++ % MAX_CALLERS];
	caller.pid = fork_child();
	return caller;
}

int reap(const struct caller *caller)
{
	int status;
	pid_t pid;

	wait_until((pid = waitpid(caller->pid, &status, WNOHANG)), "process %d hangs\n",
		   caller->pid);
	if (pid != caller->pid)
		die("waitpid: %s\n", strerror(errno));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return KILLED;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		die("process %d ended with status %#x\n", pid, status);
	return *caller->result;
}

int reap_all(const struct caller *callers, int n, int step, int want)
{
	int i, others = 0;

	for (i = 0; i < n; i += step) {
		int result = reap(&callers[i]);

		if (result != want && !others++)
			ksft_print_msg("caller %d of %d: result %d, not %d\n", i, n, result, want);
	}
	return others;
}

bool has_ended(pid_t pid)
{
	siginfo_t info = { };

	return !waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

bool has_state(pid_t pid, char state)
{
	char path[64], buf[512], found = '?';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	/* The name before the state may contain anything, but the last ")" ends it. */
	if (!fgets(buf, sizeof(buf), f) ||
	    sscanf(strrchr(buf, ')') ?: "", ") %c", &found) != 1)
		found = '?';
	fclose(f);
	return found == state;
}

bool has_arrived(pid_t pid, long syscall_nr, char state)
{
	char path[64];
	long nr = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fscanf(f, "%ld", &nr) != 1)
		nr = -1;
	fclose(f);
	return nr == syscall_nr && has_state(pid, state);
}

void on_signal(int sig)
{
}

struct caller start_load(const struct load *load)
{
	/* Without SA_RESTART the call returns. */
	struct sigaction sa = { .sa_handler = on_signal };
	struct sigaction restart = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct caller caller = fork_caller();

	if (caller.pid)
		return caller;
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &restart, NULL);
	*caller.result = do_load(load);
	_exit(0);
}

struct caller start_waiter(const struct load *load)
{
	struct caller caller;

	start_waiters(&caller, 1, load);
	return caller;
}

void start_waiters(struct caller *callers, int n, const struct load *load)
{
	int i;

	for (i = 0; i < n; i++)
		callers[i] = start_load(load);
	for (i = 0; i < n; i++)
		wait_until(has_arrived(callers[i].pid, load_syscall(load), 'S'),
			   "%d of %d waiters did not arrive\n", n - i, n);
}

void start_unprivileged(struct caller callers[2], int fd, const struct load *memory)
{
	int i;

	for (i = 0; i < 2; i++) {
		callers[i] = fork_caller();
		if (callers[i].pid)
			continue;
		if (setuid(65534))
			_exit(1);
		if (i)
			*callers[i].result = do_load(memory);
		else
			*callers[i].result = syscall(SYS_finit_module, fd, "", 0) ? errno : 0;
		_exit(0);
	}
}

struct owner park_owner(const struct load *load, const char *name)
{
	struct owner owner;

	snprintf(owner.park, sizeof(owner.park), "/sys/module/%s/parameters/park", name);
	owner.caller = start_load(load);
	wait_until(!access(owner.park, F_OK), "the owner of %s could not be parked\n", name);
	return owner;
}

void release_owner(const struct owner *owner)
{
	int err = write_to(owner->park, "0");

	if (err && err != ENOENT && err != ENODEV)
		die("%s: %s\n", owner->park, strerror(err));
}

int reap_owner(const struct owner *owner)
{
	release_owner(owner);
	return reap(&owner->caller);
}

int hold_page(void *page)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { (unsigned long)page, sysconf(_SC_PAGESIZE) },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range))
		return -1;
	return fd;
}

void release_page(pid_t pid, int userfaultfd, void *page)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int fd = syscall(SYS_pidfd_getfd, pidfd, userfaultfd, 0);
	struct uffdio_zeropage zero = {
		.range = { (unsigned long)page, sysconf(_SC_PAGESIZE) },
	};

	if (fd < 0 || ioctl(fd, UFFDIO_ZEROPAGE, &zero))
		die("userfaultfd: %s\n", strerror(errno));
	close(fd);
	close(pidfd);
}

struct caller start_held_load(const struct load *load, void *page)
{
	struct caller caller = fork_caller();

	if (!caller.pid) {
		/* The result is a userfaultfd until the load ends. */
		*caller.result = hold_page(page);
		if (*caller.result < 0)
			_exit(1);
		*caller.result = do_load(load);
		_exit(0);
	}
	wait_until(has_arrived(caller.pid, SYS_init_module, 'S') || has_ended(caller.pid),
		   "the load is not held\n");
	return caller;
}

void release_held_load(const struct caller *caller, void *page)
{
	release_page(caller->pid, *caller->result, page);
}

/*
 * Files of the kernel
 */

int write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		err = errno;
	close(fd);
	return err;
}

char *read_text(const char *path, size_t step)
{
	size_t len = 0, size = 1 << 20;
	char *text = malloc(size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0 || !text)
		die("%s: %s\n", path, strerror(errno));
	while ((got = read(fd, text + len, step < size - 1 - len ? step : size - 1 - len)) > 0)
		len += got;
	if (got < 0)
		die("%s: %s\n", path, strerror(errno));
	close(fd);
	text[len] = '\0';
	return text;
}

bool file_says(const char *path, const char *expected)
{
	char *text = read_text(path, SIZE_MAX);
	bool equal = !strcmp(text, expected);

	free(text);
	return equal;
}

const char * const mod_counter_names[NR_MOD_COUNTERS] = {
	[MODCOUNT] = "modcount",
	[FAILED_KREADS] = "failed_kreads",
	[FAILED_DECOMPRESS] = "failed_decompress",
	[FAILED_BECOMING] = "failed_becoming",
	[FAILED_LOAD_MODULES] = "failed_load_modules",
	[TOTAL_MOD_SIZE] = "total_mod_size",
	[TOTAL_TEXT_SIZE] = "total_text_size",
	[INVALID_KREAD_BYTES] = "invalid_kread_bytes",
	[INVALID_DECOMPRESS_BYTES] = "invalid_decompress_bytes",
	[INVALID_BECOMING_BYTES] = "invalid_becoming_bytes",
	[INVALID_MOD_BYTES] = "invalid_mod_bytes",
};

const char * const dedup_counter_names[NR_DEDUP_COUNTERS] = {
	[LOADS] = "loads",
	[PERFORMED] = "performed",
	[SAME_FILE] = "same_file",
	[SAME_NAME] = "same_name",
	[ALREADY_LOADED] = "already_loaded",
	[FROM_MEMORY] = "from_memory",
	[ABORTED] = "aborted",
	[REQUESTS_JOINED] = "requests_joined",
	[REQUESTS_REPLAYED] = "requests_replayed",
	[UNTRACKED] = "untracked",
	[DEADLOCKS] = "deadlocks",
	[WAITS] = "waits",
	[WAITS_INTERRUPTED] = "waits_interrupted",
	[BYTES_SAVED] = "bytes_saved",
};

/* Returns the number in the line of DEDUP that begins with a label. */
static unsigned long find_number(const char *text, const char *label)
{
	size_t len = strlen(label);
	const char *line;

	for (line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, label, len) && line[len] == '\t')
			return strtoul(line + len, NULL, 10);
	}
	die("%s has no line %s\n", DEDUP, label);
}

unsigned long read_mod_counter(enum mod_counter counter)
{
	char path[PATH_MAX], *text;
	unsigned long value;

	snprintf(path, sizeof(path), STATS_DIR "%s", mod_counter_names[counter]);
	text = read_text(path, SIZE_MAX);
	value = strtoul(text, NULL, 10);
	free(text);
	return value;
}

unsigned long read_dedup_counter(enum dedup_counter counter)
{
	char *text = read_text(DEDUP, SIZE_MAX);
	unsigned long value = find_number(text, dedup_counter_names[counter]);

	free(text);
	return value;
}

struct counters read_counters(void)
{
	struct counters counters = { };
	unsigned int i;
	char *text;

	for (i = 0; i < NR_MOD_COUNTERS; i++)
		counters.mod[i] = read_mod_counter(i);
	if (access(DEDUP, F_OK))
		return counters;
	text = read_text(DEDUP, SIZE_MAX);
	for (i = 0; i < NR_DEDUP_COUNTERS; i++)
		counters.dedup[i] = find_number(text, dedup_counter_names[i]);
	free(text);
	return counters;
}

struct counters counters_since(const struct counters *before)
{
	struct counters change = read_counters();
	unsigned int i;

	for (i = 0; i < NR_MOD_COUNTERS; i++)
		change.mod[i] -= before->mod[i];
	for (i = 0; i < NR_DEDUP_COUNTERS; i++)
		change.dedup[i] -= before->dedup[i];
	return change;
}

bool is_idle(void)
{
	return access(PENDING, F_OK) || file_says(PENDING, "");
}

int count_waiters(void)
{
	char *text = read_text(PENDING, SIZE_MAX), *rest = text, *line;
	int n, sum = 0;

	while ((line = strsep(&rest, "\n")))
		if (sscanf(line, "waiters\t%d", &n) == 1)
			sum += n;
	free(text);
	return sum;
}

int open_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || lseek(fd, 0, SEEK_END) < 0)
		die("/dev/kmsg: %s\n", strerror(errno));
	return fd;
}

int count_in_log(int fd, const char *text)
{
	char record[8192];
	int count = 0;
	ssize_t len;

	while ((len = read(fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		if (len < 0)
			die("/dev/kmsg: messages were lost\n");
		record[len] = '\0';
		count += !!strstr(record, text);
	}
	return count;
}
