/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of module load deduplication share.
 *
 * Who calls first owns a load. The module's init function holds the owner in the
 * kernel for as long as a test needs: it waits if the parameter "park" says so.
 * The module is coming then.
 *
 * A process has arrived where it is to wait when it sleeps inside its system
 * call, see has_arrived(). So no test depends on how long anything takes; the
 * time limits only turn a hang into a failure.
 */
#ifndef DEDUP_COMMON_H
#define DEDUP_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/elf.h>
#include <linux/module.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest.h"

#define MODULE_NAME	"test_dedup"
#define EXPORTED	MODULE_NAME "_symbol"
/* Needs that symbol. */
#define USER_NAME	"test_dedup_user"
#define PARAMETERS	"/sys/module/" MODULE_NAME "/parameters/"
/* The longest name that struct module has room for. */
#define MODULE_NAME_MAX	55
#define STATS_DIR	"/sys/kernel/debug/modules/"
#define STATS		STATS_DIR "stats"
#define DEDUP		STATS_DIR "dedup"
#define PENDING		STATS_DIR "pending"
/* There is no such file on a kernel that deduplicates in one way only. */
#define DEDUP_MODE	"/sys/module/module/parameters/dedup"

/* Far more than anything here takes; a hang is reported after this long. */
#define DEADLINE_S	120

/* In the environment: do less, where there is little time. */
static inline bool is_quick(void)
{
	return getenv("DEDUP_QUICK");
}

/* Waits for a condition; the message says what did not come. */
#define wait_until(condition, ...)					\
do {									\
	double end_ = now() + DEADLINE_S;				\
									\
	while (!(condition)) {						\
		if (now() > end_)					\
			ksft_exit_fail_msg(__VA_ARGS__);		\
		usleep(1000);						\
	}								\
} while (0)

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * Modules, in files and in memory
 */

struct image {
	char *bytes;
	size_t len;
};

/* The path of a test module: in the folder argv[1], or where the Makefile puts them. */
static inline void module_path(char path[PATH_MAX], char **argv, const char *name)
{
	const char *slash = strrchr(argv[0], '/');
	int len;

	if (argv[1])
		len = snprintf(path, PATH_MAX, "%s/%s.ko", argv[1], name);
	else
		len = snprintf(path, PATH_MAX, "%.*stest_modules/%s.ko",
			       slash ? (int)(slash - argv[0]) + 1 : 0, argv[0], name);
	if (len >= PATH_MAX)
		ksft_exit_fail_msg("the path of %s.ko is too long\n", name);
}

static inline struct image new_image(size_t len)
{
	struct image image = { .bytes = calloc(1, len), .len = len };

	if (!image.bytes)
		ksft_exit_fail_msg("no memory\n");
	return image;
}

/* The same, cut or filled up to a length. */
static inline struct image copy_image(const struct image *from, size_t len)
{
	struct image copy = new_image(len);

	memcpy(copy.bytes, from->bytes, len < from->len ? len : from->len);
	return copy;
}

static inline struct image read_image(const char *path)
{
	struct image image;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		ksft_exit_skip("%s: %s\n", path, strerror(errno));
	image = new_image(st.st_size);
	if (read(fd, image.bytes, image.len) != (ssize_t)image.len)
		ksft_exit_fail_msg("%s: could not be read\n", path);
	close(fd);
	return image;
}

/* Writes a file to a folder. The caller unlinks and frees the path. */
static inline char *write_image_to(const char *folder, const struct image *image)
{
	char *path;
	int fd = -1;

	if (asprintf(&path, "%s/" MODULE_NAME ".XXXXXX", folder) > 0)
		fd = mkstemp(path);
	if (fd < 0 || write(fd, image->bytes, image->len) != (ssize_t)image->len)
		ksft_exit_fail_msg("%s: %s\n", folder, strerror(errno));
	close(fd);
	return path;
}

/* Under /tmp, because the file system of the build may give every open an inode of its own. */
static inline char *write_image(const struct image *image)
{
	return write_image_to("/tmp", image);
}

/* Writes an image over a file of the same length. */
static inline void overwrite(const char *path, const struct image *image)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, image->bytes, image->len) != (ssize_t)image->len)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	close(fd);
}

/*
 * From now on, /tmp is a file system of this process and its children, which
 * tells every change of a file from the one before. An overlay does not.
 */
static inline void use_own_tmp(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL))
		ksft_exit_fail_msg("/tmp: %s\n", strerror(errno));
}

/*
 * Makes a file system in memory that tells every change of a file, whatever changes
 * it, at a folder of that name; false if it cannot be had. It is not to hide other
 * files, and goes with umount2(folder, MNT_DETACH).
 */
static inline bool mount_xfs(const char *folder)
{
	return !system("modprobe -q xfs && mkfs.xfs -q -f /dev/ram0") &&
	       (!mkdir(folder, 0700) || errno == EEXIST) &&
	       !mount("/dev/ram0", folder, "xfs", 0, NULL);
}

/* The most that a block of zstd holds is twice as much. */
#define ZSTD_BLOCK	(64UL << 10)

/*
 * Makes a zstd frame of an image: blocks stored as they are, and those that
 * consist of one byte as that byte. RFC 8878.
 */
static inline struct image compress(const struct image *from)
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
		uint32_t block_header;

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

static inline struct elf64_shdr *find_section(const struct image *image, const char *name)
{
	struct elf64_hdr *hdr = (struct elf64_hdr *)image->bytes;
	struct elf64_shdr *sections = (struct elf64_shdr *)(image->bytes + hdr->e_shoff);
	const char *names = image->bytes + sections[hdr->e_shstrndx].sh_offset;
	int i;

	for (i = 1; i < hdr->e_shnum; i++)
		if (!strcmp(names + sections[i].sh_name, name))
			return &sections[i];
	ksft_exit_fail_msg("the module has no section %s\n", name);
}

static inline char *find_string(const struct image *image, const char *in, const char *string)
{
	struct elf64_shdr *section = find_section(image, in);
	char *found = memmem(image->bytes + section->sh_offset, section->sh_size, string,
			     strlen(string) + 1);

	if (!found)
		ksft_exit_fail_msg("the module has no %s in %s\n", string, in);
	return found;
}

/* Puts another string in the place of one, which is at least as long. */
static inline void replace_string(const struct image *image, const char *in, const char *from,
				  const char *to)
{
	char *at = find_string(image, in, from);

	if (strlen(to) > strlen(from))
		ksft_exit_fail_msg("no room for %s in place of %s\n", to, from);
	memset(at, 0, strlen(from));
	memcpy(at, to, strlen(to));
}

/* Where the name stands in the image: the kernel goes by the one in struct module. */
static inline char *find_name(const struct image *image)
{
	return find_string(image, ".gnu.linkonce.this_module", MODULE_NAME);
}

/* Puts another name where one stands. */
static inline void put_name(char *at, const char *name)
{
	memset(at, 0, MODULE_NAME_MAX);
	memcpy(at, name, strlen(name));
}

/* Gives a copy of an image another name. */
static inline void set_name(const struct image *image, const struct image *copy, const char *name)
{
	put_name(copy->bytes + (find_name(image) - image->bytes), name);
}

/* Gives it another symbol to export: no two live modules may export the same one. */
static inline void set_symbol(const struct image *copy, const char *symbol)
{
	replace_string(copy, "__ksymtab_strings", EXPORTED, symbol);
}

/* One finit_module(2), or init_module(2) if there is an image and no path. */
struct load {
	const char *path;
	const struct image *image;
	const char *args;
	int flags;
};

static inline struct load with_args(struct load load, const char *args)
{
	load.args = args;
	return load;
}

static inline struct load with_flags(struct load load, int flags)
{
	load.flags = flags;
	return load;
}

static inline long load_syscall(const struct load *load)
{
	return load->path ? SYS_finit_module : SYS_init_module;
}

/* Loads, from a file on a file description of its own: 0 or the errno. */
static inline int do_load(const struct load *load)
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

static inline int unload_module(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

static inline void must_unload(const char *name)
{
	int err = unload_module(name);

	if (err && err != ENOENT)
		ksft_exit_fail_msg("delete_module %s: %s\n", name, strerror(err));
}

/* Loads a copy of an image under another name, twice, and unloads it. */
static inline void duplicate_as(const struct image *image, const struct image *copy,
				const char *name)
{
	struct load load = { .image = copy, .args = "" };
	int err;

	set_name(image, copy, name);
	err = do_load(&load);
	if (err)
		ksft_exit_fail_msg("%s: %s\n", name, strerror(err));
	err = do_load(&load);
	if (err != EEXIST)
		ksft_exit_fail_msg("%s, second time: %s\n", name, strerror(err));
	must_unload(name);
}

static inline bool is_loaded(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(path, F_OK);
}

/*
 * Processes
 */

/* A process that makes one system call. */
struct caller {
	pid_t pid;
	int *result;	/* in memory that it shares with us */
};

/* Stands for the result of a caller that was killed. */
#define KILLED		INT_MAX

/* More callers than any test has at a time. */
#define MAX_RUNNING	1024

/* Like fork(2): in the child, pid is 0. It stores its result, then ends with 0. */
static inline struct caller fork_caller(void)
{
	static int *results;
	static unsigned int next;
	struct caller c;

	if (!results) {
		results = mmap(NULL, MAX_RUNNING * sizeof(*results), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (results == MAP_FAILED)
			ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	}
	c.result = &results[next++ % MAX_RUNNING];
	c.pid = fork();
	if (c.pid < 0)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	return c;
}

/* Waits for the end of a caller: its result, or KILLED. */
static inline int finish(const struct caller *c)
{
	int status;
	pid_t pid;

	wait_until((pid = waitpid(c->pid, &status, WNOHANG)), "process %d hangs\n", c->pid);
	if (pid != c->pid)
		ksft_exit_fail_msg("waitpid: %s\n", strerror(errno));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return KILLED;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		ksft_exit_fail_msg("process %d ended with status %#x\n", pid, status);
	return *c->result;
}

/* Whether the process is inside that system call, and in that state of proc(5). */
static inline bool has_arrived(pid_t pid, long syscall_nr, char wanted)
{
	char path[64], buf[512], state = '?';
	long nr = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fscanf(f, "%ld", &nr) != 1)
		nr = -1;
	fclose(f);
	if (nr != syscall_nr)
		return false;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (!fgets(buf, sizeof(buf), f) ||
	    sscanf(strrchr(buf, ')') ?: "", ") %c", &state) != 1)
		state = '?';
	fclose(f);
	return state == wanted;
}

static inline void on_signal(int sig)
{
}

/* Starts a process that loads; its result is the errno. SIGUSR1 interrupts it. */
static inline struct caller start_load(const struct load *load)
{
	/* No SA_RESTART: the call is to return. */
	struct sigaction sa = { .sa_handler = on_signal };
	struct caller c = fork_caller();

	if (c.pid)
		return c;
	sigaction(SIGUSR1, &sa, NULL);
	*c.result = do_load(load);
	_exit(0);
}

/* Starts two loads without privileges: from a file that is open already, and from memory. */
static inline void start_unprivileged(struct caller callers[2], int fd, const struct load *memory)
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

/* Starts a process that has to wait for somebody else's load; returns when it does. */
static inline struct caller start_waiter(const struct load *load)
{
	struct caller c = start_load(load);

	wait_until(has_arrived(c.pid, load_syscall(load), 'S'), "a waiter did not arrive\n");
	return c;
}

/*
 * Owners
 */

struct owner {
	struct caller caller;
	char park[128];		/* 0 written here lets it go on */
};

/* Starts an owner and returns when it is held by its init function; args has park=1. */
static inline struct owner park_by_init(const struct load *load, const char *name)
{
	struct owner o;

	snprintf(o.park, sizeof(o.park), "/sys/module/%s/parameters/park", name);
	o.caller = start_load(load);
	wait_until(!access(o.park, F_OK), "the owner could not be parked\n");
	return o;
}

/* Writes a string to a file of the kernel: 0 or the errno. */
static inline int write_to(const char *path, const char *text)
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

/* Lets an owner go on. One that was killed may be gone: that is for finish() to say. */
static inline void release_owner(const struct owner *o)
{
	int err = write_to(o->park, "0");

	if (err && err != ENOENT && err != ENODEV)
		ksft_exit_fail_msg("%s: %s\n", o->park, strerror(err));
}

static inline int finish_owner(const struct owner *o)
{
	release_owner(o);
	return finish(&o->caller);
}

/*
 * Pages that are missing: who needs one waits for it
 */

/* Lets the calling process wait for a page: a userfaultfd, or -1. */
static inline int hold_page(void *page)
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

/* Gives the process its page, which is all zero. */
static inline void release_page(pid_t pid, int userfaultfd, void *page)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int fd = syscall(SYS_pidfd_getfd, pidfd, userfaultfd, 0);
	struct uffdio_zeropage zero = {
		.range = { (unsigned long)page, sysconf(_SC_PAGESIZE) },
	};

	if (fd < 0 || ioctl(fd, UFFDIO_ZEROPAGE, &zero))
		ksft_exit_fail_msg("userfaultfd: %s\n", strerror(errno));
	close(fd);
	close(pidfd);
}

/*
 * Statistics and messages
 */

/* The files beside stats, each with one number. */
static const char * const counter_names[] = {
	"modcount", "failed_kreads", "failed_decompress", "failed_becoming",
	"failed_load_modules", "total_mod_size", "total_text_size",
	"invalid_kread_bytes", "invalid_decompress_bytes", "invalid_becoming_bytes",
	"invalid_mod_bytes",
};

#define NR_COUNTERS	ARRAY_SIZE(counter_names)

/* Reads a file of the kernel, step bytes at a time, into a string that the caller frees. */
static inline char *read_text(const char *path, size_t step)
{
	size_t len = 0, size = 1 << 20;
	char *text = malloc(size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0 || !text)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	while ((got = read(fd, text + len, step < size - 1 - len ? step : size - 1 - len)) > 0)
		len += got;
	if (got < 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	close(fd);
	text[len] = '\0';
	return text;
}

static inline bool file_says(const char *path, const char *expected)
{
	char *text = read_text(path, SIZE_MAX);
	bool equal = !strcmp(text, expected);

	free(text);
	return equal;
}

static inline bool is_live(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/module/%s/initstate", name);
	return !access(path, F_OK) && file_says(path, "live\n");
}

static inline unsigned long read_counter(const char *name)
{
	char path[PATH_MAX], *text;
	unsigned long value;

	snprintf(path, sizeof(path), STATS_DIR "%s", name);
	text = read_text(path, SIZE_MAX);
	value = strtoul(text, NULL, 10);
	free(text);
	return value;
}

/* The number behind a label of a text, which begins a line. */
static inline unsigned long number_of(const char *text, const char *label)
{
	size_t len = strlen(label);
	const char *line;

	for (line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, label, len) && line[len] == '\t')
			return strtoul(line + len, NULL, 10);
	}
	ksft_exit_fail_msg("%s has no line %s\n", DEDUP, label);
}

static inline unsigned long read_dedup(const char *label)
{
	char *text = read_text(DEDUP, SIZE_MAX);
	unsigned long number = number_of(text, label);

	free(text);
	return number;
}

/* Whether that is what was wanted; says if it is not. */
static inline bool is_result(const char *name, long got, long want)
{
	if (got == want)
		return true;
	ksft_print_msg("%s: %ld, not %ld\n", name, got, want);
	return false;
}

/* The kernel's log from here on. */
static inline int open_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || lseek(fd, 0, SEEK_END) < 0)
		ksft_exit_fail_msg("/dev/kmsg: %s\n", strerror(errno));
	return fd;
}

/* How many messages since the last call, or since open_log(), have that text. */
static inline int count_in_log(int fd, const char *text)
{
	char record[8192];
	int count = 0;
	ssize_t len;

	while ((len = read(fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		if (len < 0)
			ksft_exit_fail_msg("messages were lost\n");
		record[len] = '\0';
		count += !!strstr(record, text);
	}
	return count;
}

/* What every one of these tests needs. */
static inline void need_root_and_stats(void)
{
	if (geteuid())
		ksft_exit_skip("must be root\n");
	if (access(STATS, R_OK))
		ksft_exit_skip("needs CONFIG_MODULE_STATS and debugfs\n");
}

#endif
