/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the selftests of module load deduplication.
 *
 * The first caller owns a load. With park=1 among its arguments, the init
 * function of test_dedup holds the owner in the kernel until a test releases
 * it. Until then the module is coming.
 *
 * A waiter has arrived when it sleeps inside its system call, see
 * has_arrived(). No test depends on how long anything takes; the time limits
 * only turn a hang into a failure.
 *
 * Tests use kselftest_harness.h, which this header leaves to them: the harness
 * keeps its list of tests in the file that includes it. Functions here never
 * judge what is tested. They return it, or call die() if the test cannot go on.
 *
 * Environment:
 *   DEDUP_MODULES  folder of the test modules, by default test_modules/ beside
 *                  the program
 *   DEDUP_QUICK    if set, repeat less; for slow kernels
 */
#ifndef DEDUP_COMMON_H
#define DEDUP_COMMON_H

#include <limits.h>
#include <linux/elf.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"

#define MODULE_NAME	"test_dedup"
/* Exported by test_dedup, and used by test_dedup_user. */
#define EXPORTED	MODULE_NAME "_symbol"
#define USER_NAME	"test_dedup_user"
#define PARAMETERS	"/sys/module/" MODULE_NAME "/parameters/"
/* MODULE_NAME_LEN - 1 */
#define MODULE_NAME_MAX	(63 - sizeof(long))

/* Modules are ELF files of the same class as this program. */
#if __SIZEOF_LONG__ == 8
#define elf_hdr		elf64_hdr
#define elf_shdr	elf64_shdr
#else
#define elf_hdr		elf32_hdr
#define elf_shdr	elf32_shdr
#endif

#define STATS_DIR	"/sys/kernel/debug/modules/"
#define STATS		STATS_DIR "stats"
#define DEDUP		STATS_DIR "dedup"
#define PENDING		STATS_DIR "pending"
/* module.dedup=; only with CONFIG_MODULE_DEDUP_RUST */
#define DEDUP_MODE	"/sys/module/module/parameters/dedup"

/* A condition that has not come true by then never will. */
#define DEADLINE_S	120
/*
 * For TEST_F_TIMEOUT(): long enough for wait_until() to report a hang itself.
 * The harness can only kill a test without a reason and without its teardown.
 */
#define TEST_LIMIT_S	600

/**
 * wait_until_within() - Poll for a condition.
 * @seconds: time limit
 * @condition: expression to evaluate until it is true
 * @...: what did not happen, as for printf(); ends with a newline
 *
 * Calls die() if the time is over.
 */
#define wait_until_within(seconds, condition, ...)			\
do {									\
	double end_ = now() + (seconds);				\
									\
	while (!(condition)) {						\
		if (now() > end_)					\
			die(__VA_ARGS__);				\
		usleep(1000);						\
	}								\
} while (0)

/* The same, with a limit of DEADLINE_S. */
#define wait_until(condition, ...)	wait_until_within(DEADLINE_S, condition, __VA_ARGS__)

/* Seconds since boot. */
double now(void);

/* Whether DEDUP_QUICK is set. */
bool is_quick(void);

/**
 * die() - End a test that cannot go on.
 * @format: the reason, as for printf(); ends with a newline
 *
 * Prints the reason and exits with KSFT_FAIL. Within the harness this fails the
 * current test only, and FIXTURE_TEARDOWN_PARENT() still runs.
 */
__noreturn __printf(1, 2) void die(const char *format, ...);

/* Allocates zeroed memory that children share. Never fails. */
void *alloc_shared(size_t size);

/* Runs a command with sh(1); calls die() if it fails. */
__printf(1, 2) void run_command(const char *format, ...);

/*
 * Preconditions of a whole program, for main() to check before it calls
 * test_harness_run(). If one is missing, the program exits with KSFT_SKIP.
 */

/* Needs root, CONFIG_MODULE_STATS, debugfs and the test modules. */
void need_stats(void);
/* Needs CONFIG_MODULE_DEDUP_RUST. */
void need_dedup(void);
/* Needs module.dedup=@mode where the kernel has that parameter. */
void need_mode(const char *mode);
/* Needs a file; @what names the option that provides it. */
void need_file(const char *path, const char *what);

/* Whether the kernel has CONFIG_MODULE_DEDUP_RUST. */
bool has_dedup(void);
/* Whether the kernel runs with module.dedup=@mode. */
bool has_mode(const char *mode);

/*
 * Modules, in files and in memory
 */

struct image {
	char *bytes;
	size_t len;
};

/* Stores the path of a test module in @path. */
void module_path(char path[PATH_MAX], const char *name);
/* Reads a test module into memory. */
struct image read_module(const char *name);
/* Reads a file into memory. */
struct image read_image(const char *path);
/* Allocates a zeroed image. */
struct image new_image(size_t len);
/* Copies an image, truncated or padded with zeroes to @len. */
struct image copy_image(const struct image *from, size_t len);
void free_image(struct image *image);

/*
 * Writes an image to a new file in /tmp, and stores its path in @path. The file
 * system of the build is not used: it may give each open its own inode. Returns
 * @path.
 */
const char *write_image(char path[PATH_MAX], const struct image *image);
/* The same, for a copy of a test module. */
const char *write_module(char path[PATH_MAX], const char *name);
/* The same, in another folder. */
const char *write_image_to(char path[PATH_MAX], const char *folder, const struct image *image);
/* Overwrites a file with an image of the same length. */
void overwrite(const char *path, const struct image *image);

/*
 * Mounts a tmpfs on /tmp for this process and its children. Unlike an overlay,
 * it shows each change of a file in its attributes. Nothing needs to be
 * unlinked there.
 */
void use_own_tmp(void);
/* Returns a zstd frame of an image. */
struct image compress(const struct image *from);

struct elf_shdr *find_section(const struct image *image, const char *name);
/* Returns the address of a NUL-terminated string in a section. */
char *find_string(const struct image *image, const char *section, const char *string);
/* Replaces a string in a section by one that is not longer. */
void replace_string(const struct image *image, const char *section, const char *from,
		    const char *to);
/* Replaces the first byte of a string, or of a part of one, in a section. */
void spoil_string(const struct image *image, const char *section, const char *string);
/* Returns the address of the name in struct module, which is the one that counts. */
char *find_name(const struct image *image);
/* Stores a name at an address from find_name(). */
void put_name(char *at, const char *name);
/* Renames @copy, a copy of @image. */
void set_name(const struct image *image, const struct image *copy, const char *name);
/* Renames the symbol that an image exports: two live modules cannot share one. */
void set_symbol(const struct image *copy, const char *symbol);

/*
 * Loads
 */

/* One finit_module(2), or one init_module(2) if there is no path. */
struct load {
	const char *path;
	const struct image *image;
	const char *args;
	int flags;
};

struct load with_args(struct load load, const char *args);
struct load with_flags(struct load load, int flags);

/* SYS_finit_module or SYS_init_module */
long load_syscall(const struct load *load);
/* Loads; a file is opened for this load only. Returns 0 or an errno. */
int do_load(const struct load *load);
/* Returns 0 or an errno. */
int unload_module(const char *name);
/* Unloads a module that is live, or not loaded at all. */
void must_unload(const char *name);
/*
 * For teardown: waits until no load is pending and unloads a module, whatever
 * state an aborted test left it in.
 */
void unload_leftover(const char *name);
/* Renames @copy, loads it, loads it again for -EEXIST, and unloads it. */
void load_duplicate_as(const struct image *image, const struct image *copy, const char *name);

/* Whether a module is in the list: coming, live or going. */
bool is_loaded(const char *name);
bool is_live(const char *name);

/*
 * Processes
 */

/* fork(2) for a child that is killed when this process ends. Never fails. */
pid_t fork_child(void);

/* A child that makes one system call. */
struct caller {
	pid_t pid;
	int *result;	/* shared with the child */
};

/* The result of a caller that was killed. */
#define KILLED		INT_MAX
/* More callers than any test has at a time. */
#define MAX_CALLERS	1024

/*
 * Like fork_child(): in the child, pid is 0. The child stores its result and
 * calls _exit(0).
 */
struct caller fork_caller(void);
/* Waits for a caller to end. Returns its result, or KILLED. */
int reap(const struct caller *caller);
/*
 * Reaps callers 0, step, 2 * step, ... of n. Returns the number of those whose
 * result is not @want, and prints the first of these.
 */
int reap_all(const struct caller *callers, int n, int step, int want);
/* Whether a child has ended. It can still be reaped. */
bool has_ended(pid_t pid);

/* Whether a process is in that state of proc(5). */
bool has_state(pid_t pid, char state);
/* Whether a process is inside that system call, and in that state of proc(5). */
bool has_arrived(pid_t pid, long syscall_nr, char state);
/* Signal handler that does nothing, to interrupt a system call. */
void on_signal(int sig);

/*
 * Starts a caller that loads. Its result is an errno. SIGUSR1 interrupts it;
 * SIGUSR2 has a handler with SA_RESTART.
 */
struct caller start_load(const struct load *load);
/* The same, for a load that waits for another one; returns when it does. */
struct caller start_waiter(const struct load *load);
/* Starts n waiters; returns when all of them wait. */
void start_waiters(struct caller *callers, int n, const struct load *load);
/* Starts two loads without privileges: from an open file and from memory. */
void start_unprivileged(struct caller callers[2], int fd, const struct load *memory);

/* A load that is held by its init function. */
struct owner {
	struct caller caller;
	char park[128];		/* writing 0 to this file releases the owner */
};

/* Starts a load with park=1 in its arguments; returns when it is held. */
struct owner park_owner(const struct load *load, const char *name);
/* Releases an owner. One that was killed may be gone: reap() reports that. */
void release_owner(const struct owner *owner);
/* Releases and reaps. */
int reap_owner(const struct owner *owner);

/*
 * Makes accesses of this process to a page block. Returns a userfaultfd, or -1.
 */
int hold_page(void *page);
/* Provides that page, all zeroes, to process @pid, whose userfaultfd it is. */
void release_page(pid_t pid, int userfaultfd, void *page);

/*
 * Starts a load of an image in shared memory that misses a page; returns when it
 * is held there.
 */
struct caller start_held_load(const struct load *load, void *page);
/* Provides that page, all zeroes. */
void release_held_load(const struct caller *caller, void *page);

/*
 * Files of the kernel
 */

/* Writes a string to a file. Returns 0 or an errno. */
int write_to(const char *path, const char *text);
/*
 * Reads a file, at most step bytes a read(2). Returns a string for the caller
 * to free.
 */
char *read_text(const char *path, size_t step);
/* Whether a file consists of that text. */
bool file_says(const char *path, const char *expected);

/* Single-counter files beside STATS. */
enum mod_counter {
	MODCOUNT,
	FAILED_KREADS,
	FAILED_DECOMPRESS,
	FAILED_BECOMING,
	FAILED_LOAD_MODULES,
	TOTAL_MOD_SIZE,
	TOTAL_TEXT_SIZE,
	INVALID_KREAD_BYTES,
	INVALID_DECOMPRESS_BYTES,
	INVALID_BECOMING_BYTES,
	INVALID_MOD_BYTES,
	NR_MOD_COUNTERS
};

/* Lines of DEDUP. */
enum dedup_counter {
	LOADS,
	PERFORMED,
	SAME_FILE,
	SAME_NAME,
	ALREADY_LOADED,
	FROM_MEMORY,
	ABORTED,
	REQUESTS_JOINED,
	REQUESTS_REPLAYED,
	UNTRACKED,
	DEADLOCKS,
	WAITS,
	WAITS_INTERRUPTED,
	BYTES_SAVED,
	NR_DEDUP_COUNTERS
};

extern const char * const mod_counter_names[NR_MOD_COUNTERS];
extern const char * const dedup_counter_names[NR_DEDUP_COUNTERS];

/* All counters of the kernel. Those of DEDUP are 0 where it does not exist. */
struct counters {
	unsigned long mod[NR_MOD_COUNTERS];
	unsigned long dedup[NR_DEDUP_COUNTERS];
};

struct counters read_counters(void);
/* Returns by how much each counter has increased. */
struct counters counters_since(const struct counters *before);
/* Reads one counter. */
unsigned long read_mod_counter(enum mod_counter counter);
unsigned long read_dedup_counter(enum dedup_counter counter);

/* Whether no load is pending. Always true where PENDING does not exist. */
bool is_idle(void);
/* Returns how many waiters PENDING shows. */
int count_waiters(void);

/* Opens the kernel log at its end. */
int open_log(void);
/* Returns how many messages since the last call, or since open_log(), contain a text. */
int count_in_log(int fd, const char *text);

#endif
