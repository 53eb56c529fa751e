// SPDX-License-Identifier: GPL-2.0
/*
 * A storm of random loads from a few processes: of any file, image, length, flags
 * and arguments, valid or not, some of which another thread changes or takes away
 * meanwhile. The processes also unload modules, and get signals.
 *
 * No made-up code may ever run. An image with random bytes is of another machine:
 * the loader rejects it before it looks at anything else, but the name can still
 * be peeked. In all other images only the name is changed, or the end is missing:
 * an image ends with its section headers, so any truncation is detected. A
 * compressed image with random bytes has them in the headers of its blocks, which
 * contain an image of another machine.
 *
 * Even callers have a signal handler that interrupts a call. Odd callers have one
 * with SA_RESTART and are stopped and continued: they must never see EINTR.
 *
 * The storm runs once, in the first test. All tests judge what it has done. The
 * seed makes each process repeat its calls; the order between processes differs.
 *
 * Environment, besides that of dedup_common.h:
 *   DEDUP_SECONDS  length of the storm
 *   DEDUP_SEED     seed of the random numbers
 *
 * Needs module.dedup=full.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "dedup_common.h"
#include "kselftest_harness.h"

/* Another thread changes the name to this, and back. */
#define CHANGED_NAME	"test_deduq"
#define NR_CALLERS	4
#define PAGE		4096UL
#define MAX_ERRNO	4095
/* More memory than any machine has, but a possible length of a file. */
#define HUGE_LEN	(1024ULL << 30)
#define LARGE_LEN	(8UL << 20)

/* All names that a module can have here. */
static const char * const names[] = {
	/* Uses a symbol of one of the others, so it is unloaded first. */
	USER_NAME, MODULE_NAME, CHANGED_NAME, "fuzz_0", "fuzz_1",
	"a_module_whose_name_takes_all_the_room_that_there_is_xx",
};

static struct image image, user_image;

#define NR_CALLS	14

/* The storm: shared by the tests and by the callers. */
static struct {
	bool has_begun, is_complete;
	unsigned long seed;
	struct counters before, after;
	unsigned int nr_killed;
	unsigned int nr_bad_ends;		/* callers that did not end as they should */
	int nr_complaints;			/* of the kernel, about what it cannot read */
	atomic_bool is_over;
	unsigned long made[NR_CALLS];		/* calls of each kind */
	unsigned long loaded;			/* loads that returned 0 */
	unsigned long bad_results;
	unsigned long ended[MAX_ERRNO + 1];	/* calls that ended with 0, or that errno */
} *storm;

static void bump(unsigned long *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/*
 * Random numbers: splitmix64
 */

static __thread unsigned long long random_state;

static unsigned long long random_number(void)
{
	unsigned long long z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned long below(unsigned long n)
{
	return random_number() % n;
}

static bool one_in(unsigned long n)
{
	return !below(n);
}

/*
 * Images
 */

enum content {
	GOOD,
	USER,
	RENAMED,
	COMPRESSED,
	SPARSE_TAIL,
	LAST_GOOD = SPARSE_TAIL,
	BROKEN,
	BROKEN_HEADERS,
	SIGNED,
	CUT,
	COMPRESSED_CUT,
	COMPRESSED_BROKEN,
	EMPTY,
	GARBAGE,
	SPARSE,
	HUGE_SPARSE,
	NR_CONTENTS,
};

static bool can_be_loaded(enum content content)
{
	return content <= LAST_GOOD;
}

static bool is_compressed(enum content content)
{
	return content == COMPRESSED || content == COMPRESSED_CUT || content == COMPRESSED_BROKEN;
}

/* Makes an image unusable. Must be the last change to it. */
static void disable(const struct image *image)
{
	struct elf_hdr *hdr = (struct elf_hdr *)image->bytes;

	hdr->e_machine = EM_NONE;
}

static void put_random_bytes(char *at, size_t len, unsigned int changes)
{
	while (changes--) {
		char *byte = at + below(len);

		/* A value near the old one takes other paths. */
		if (one_in(2))
			*byte += one_in(2) ? 1 : -1;
		else
			*byte = one_in(4) ? 0xff : random_number();
	}
}

/* Puts random bytes where the kernel looks for the name. */
static void break_headers(const struct image *broken)
{
	struct elf_hdr *hdr = (struct elf_hdr *)broken->bytes;
	struct elf_shdr *sections = (struct elf_shdr *)(broken->bytes + hdr->e_shoff);
	struct elf_shdr *module = find_section(broken, ".gnu.linkonce.this_module");
	struct elf_shdr *strings = &sections[hdr->e_shstrndx];
	struct {
		void *at;
		size_t len;
	} parts[] = {
		{ hdr, sizeof(*hdr) },
		{ sections, hdr->e_shnum * sizeof(*sections) },
		{ module, sizeof(*module) },
		{ strings, sizeof(*strings) },
		{ broken->bytes + module->sh_offset, 128 },
		{ broken->bytes + strings->sh_offset, strings->sh_size },
	};
	unsigned int i = below(ARRAY_SIZE(parts));

	put_random_bytes(parts[i].at, parts[i].len, 1 + below(3));
}

/* Appends a signature with random contents. */
static struct image sign(const struct image *from)
{
	static const char marker[] = "~Module signature appended~\n";
	struct image copy = copy_image(from, from->len + below(64) + 12 + sizeof(marker) - 1);
	char *end = copy.bytes + copy.len;

	put_random_bytes(copy.bytes + from->len, copy.len - from->len, 64);
	/* A valid type and length: the kernel goes on to the contents. */
	if (one_in(2)) {
		memset(end - sizeof(marker) + 1 - 12, 0, 12);
		end[-(long)sizeof(marker) + 1 - 10] = 2;
		end[-(long)sizeof(marker)] = below(64);
	}
	memcpy(end - sizeof(marker) + 1, marker, sizeof(marker) - 1);
	return copy;
}

/* Puts random bytes into the magic number or the header of the first block, see compress(). */
static void break_frame(const struct image *frame)
{
	size_t header = 9;

	if (one_in(4))
		put_random_bytes(frame->bytes, 4, 1);
	else
		put_random_bytes(frame->bytes + header, 3, 1 + below(2));
}

/* Makes an image. Its file may be longer, see make_file(). */
static struct image make_image(enum content content)
{
	struct image copy, other;

	switch (content) {
	case USER:
		return copy_image(&user_image, user_image.len);
	case RENAMED:
		copy = copy_image(&image, image.len);
		set_name(&image, &copy, names[below(ARRAY_SIZE(names))]);
		return copy;
	case COMPRESSED:
		return compress(&image);
	case BROKEN:
		copy = copy_image(&image, image.len + below(100));
		put_random_bytes(copy.bytes, copy.len, 1 + below(100));
		disable(&copy);
		return copy;
	case BROKEN_HEADERS:
		copy = copy_image(&image, image.len);
		break_headers(&copy);
		disable(&copy);
		return copy;
	case SIGNED:
		copy = copy_image(&image, image.len);
		disable(&copy);
		other = sign(&copy);
		free_image(&copy);
		return other;
	case CUT:
		return copy_image(&image, below(image.len));
	case COMPRESSED_CUT:
		copy = compress(&image);
		copy.len = below(copy.len);
		return copy;
	case COMPRESSED_BROKEN:
		copy = copy_image(&image, image.len);
		disable(&copy);
		other = compress(&copy);
		free_image(&copy);
		break_frame(&other);
		return other;
	case EMPTY:
	case SPARSE:
	case HUGE_SPARSE:
		return (struct image){ .bytes = calloc(1, 1) };
	case GARBAGE:
		copy = new_image(1 + below(10000));
		put_random_bytes(copy.bytes, copy.len, copy.len);
		return copy;
	default:
		return copy_image(&image, image.len);
	}
}

/*
 * Arguments
 */

/* Returns the last bytes, PAGE in number, before memory that cannot be accessed. */
static char *page_before_hole(void)
{
	static char *hole;
	size_t page = getpagesize();

	if (!hole) {
		hole = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
		if (hole == MAP_FAILED)
			die("mmap: %s\n", strerror(errno));
		hole += page;
		if (mprotect(hole, page, PROT_NONE))
			die("mprotect: %s\n", strerror(errno));
	}
	return hole - PAGE;
}

static const char *random_bad_pointer(void)
{
	static const unsigned long long pointers[] = {
		0, 1, 8, 0xfff, 1ULL << 46, 1ULL << 47, 1ULL << 63, ~0ULL, ~0xfffULL, -4096ULL,
		0xffff888000000000, 0xffffffff81000000,
	};

	return (const char *)(uintptr_t)pointers[below(ARRAY_SIZE(pointers))];
}

struct arguments {
	const char *text;
	bool is_bad;		/* cannot be read */
};

static struct arguments random_arguments(void)
{
	static const char * const texts[] = {
		"", "tag=1", "tag=2", "tag=1 tag=2", "park=0", "park=1", "park=1 tag=2",
		"init_result=-19", "init_result=-17", "init_result=1", "park=1 init_result=-19",
		"tag=none", "tag", "=", "no_such_parameter=1", "\"", "-- tag=1", "tag=1\n",
	};
	static char *long_text;
	char *page = page_before_hole();

	switch (below(16)) {
	case 0:
		return (struct arguments){ random_bad_pointer(), true };
	case 1:
		/* No NUL before the hole. */
		memset(page, ' ', PAGE);
		return (struct arguments){ page + below(PAGE + 1), true };
	case 2:
		/* The NUL is the last byte before the hole. */
		memset(page, ' ', PAGE);
		page[PAGE - 1] = '\0';
		return (struct arguments){ page + below(PAGE), false };
	case 3:
		if (!long_text)
			long_text = new_image(1 << 20).bytes;
		memset(long_text, ' ', 1 << 20);
		long_text[below(1 << 20)] = '\0';
		long_text[(1 << 20) - 1] = '\0';
		return (struct arguments){ long_text, false };
	case 4 ... 6:
		return (struct arguments){ "", false };
	case 7 ... 9:
		return (struct arguments){ "park=1", false };
	default:
		return (struct arguments){ texts[below(ARRAY_SIZE(texts))], false };
	}
}

/*
 * Races with another thread
 */

enum race {
	CHANGE_NAME,
	CHANGE_HEADERS,
	PROTECT,
	LOAD,
	CLOSE,
};

static struct {
	pthread_t thread;
	enum race race;
	char *bytes;		/* a copy of the image, in pages of its own */
	size_t size;
	int fd, fds[3];		/* what fd is, in turn */
	atomic_bool is_over;
} other;

/* Never changes the machine of the image. */
static void change_header(void)
{
	struct elf_hdr *hdr = (struct elf_hdr *)image.bytes;
	size_t first = offsetof(struct elf_hdr, e_machine) + sizeof(hdr->e_machine);

	if (one_in(3))
		put_random_bytes(other.bytes + first, sizeof(*hdr) - first, 1);
	else
		put_random_bytes(other.bytes + hdr->e_shoff, image.len - hdr->e_shoff, 1);
	/* Restore it now and then: few changes reach more code than many. */
	if (one_in(4)) {
		memcpy(other.bytes + first, image.bytes + first, sizeof(*hdr) - first);
		memcpy(other.bytes + hdr->e_shoff, image.bytes + hdr->e_shoff,
		       image.len - hdr->e_shoff);
	}
}

static void load_good_file(int fd);

static void *be_other_thread(void *seed)
{
	size_t name = find_name(&image) - image.bytes + strlen(MODULE_NAME) - 1;
	size_t page = getpagesize();
	unsigned int i;

	random_state = (uintptr_t)seed;
	for (i = 0; !other.is_over; i++) {
		switch (other.race) {
		case CHANGE_NAME:
			/* MODULE_NAME and CHANGED_NAME differ in the last letter. */
			__atomic_store_n(other.bytes + name, i % 2 ? 'p' : 'q', __ATOMIC_RELAXED);
			break;
		case CHANGE_HEADERS:
			change_header();
			break;
		case PROTECT:
			mprotect(other.bytes + below(other.size / page) * page, page,
				 i % 2 ? PROT_NONE : PROT_READ | PROT_WRITE);
			break;
		case LOAD:
			load_good_file(other.fd);
			break;
		case CLOSE:
			if (one_in(3))
				close(other.fd);
			else
				dup2(other.fds[i % ARRAY_SIZE(other.fds)], other.fd);
			break;
		}
		/* The length of calls varies a lot. */
		usleep(below(300));
	}
	return NULL;
}

static void start_other_thread(enum race race)
{
	sigset_t set, old;

	other.race = race;
	other.is_over = false;
	/* Signals are for the caller. */
	sigfillset(&set);
	pthread_sigmask(SIG_SETMASK, &set, &old);
	if (pthread_create(&other.thread, NULL, be_other_thread, (void *)random_number()))
		_exit(1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void stop_other_thread(void)
{
	other.is_over = true;
	pthread_join(other.thread, NULL);
}

/*
 * Calls
 */

static int caller_number, generation;
static unsigned long call_number;

/* Whether a call that this caller makes may end like that. */
static bool is_known(int err, bool is_load)
{
	static const int known[] = {
		0,
		EBADF, EFAULT, EINVAL, EFBIG, ETXTBSY, ENOMEM,
		EIO,		/* a file of the kernel is shorter than its size */
		ENOEXEC, EBADMSG,
		ENOENT,		/* no such symbol, or no such module to unload */
		EEXIST, EBUSY,
		EAGAIN,		/* the module to unload is in use */
		ENODEV,		/* from the init function */
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (err == known[i])
			return true;
	/* Unlike a wait, module_mutex is not taken again after a signal. */
	return err == EINTR && (caller_number % 2 == 0 || !is_load);
}

/* Counts a result, and reports one that is wrong. errno is that of the call. */
static void count_result(const char *what, long result, bool is_load, bool can_succeed)
{
	int err = result ? errno : 0;

	bump(&storm->ended[err]);
	if ((err || can_succeed) && is_known(err, is_load))
		return;
	ksft_print_msg("process %d.%d, call %lu: %s ended with %d\n", caller_number, generation,
		       call_number, what, err);
	bump(&storm->bad_results);
}

static void call_finit(const char *what, int fd, int flags, bool can_succeed)
{
	struct arguments arguments = random_arguments();
	long result;

	switch (below(12)) {
	case 0:
		flags = random_number();
		break;
	case 1:
		flags ^= 1 << below(32);
		break;
	case 2:
		flags = below(8);
		break;
	}
	/* The file position makes no difference. */
	if (one_in(4))
		lseek(fd, below(1 << 20), SEEK_SET);
	result = syscall(SYS_finit_module, fd, arguments.text, flags);
	if (!result)
		bump(&storm->loaded);
	count_result(what, result, true, can_succeed && !arguments.is_bad && !(flags & ~7));
}

/*
 * Files
 */

/* One file of each content, for all callers. */
static char files[NR_CONTENTS][PATH_MAX];

static void make_file(char path[PATH_MAX], enum content content)
{
	struct image from = make_image(content);
	off_t len = content == HUGE_SPARSE ? HUGE_LEN : LARGE_LEN;

	write_image(path, &from);
	if ((content == SPARSE_TAIL || content == SPARSE || content == HUGE_SPARSE) &&
	    truncate(path, len))
		die("%s: %s\n", path, strerror(errno));
	free_image(&from);
}

/* Often the same good image: other loads have little to wait for. */
static enum content random_content(void)
{
	if (one_in(3))
		return GOOD;
	return one_in(3) ? below(LAST_GOOD + 1) : below(NR_CONTENTS);
}

static void load_file(void)
{
	enum content content = random_content();
	bool is_own = one_in(3), can_succeed = can_be_loaded(content);
	int flags = is_compressed(content) ? MODULE_INIT_COMPRESSED_FILE : 0;
	char own_path[PATH_MAX], *path = is_own ? own_path : files[content];
	int mode = O_RDONLY, fd;

	if (is_own)
		make_file(own_path, content);
	switch (below(16)) {
	case 0:
		mode = O_WRONLY;
		can_succeed = false;
		break;
	case 1:
		/* Can only succeed by sharing another load. */
		mode = O_RDWR;
		break;
	case 2:
		mode = O_PATH;
		can_succeed = false;
		break;
	case 3:
		mode = O_RDONLY | O_DIRECT;
		break;
	}
	fd = open(path, mode | O_CLOEXEC);
	if (is_own && one_in(2))
		unlink(path);
	/* A file that is being loaded cannot be opened for writing. */
	if (fd >= 0) {
		call_finit(path, fd, flags, can_succeed);
		close(fd);
	}
	if (is_own)
		unlink(path);
}

static void load_memfd(void)
{
	enum content content = random_content();
	int flags = is_compressed(content) ? MODULE_INIT_COMPRESSED_FILE : 0;
	struct image from = make_image(content);
	int memfd = memfd_create("fuzz", MFD_CLOEXEC), fd = memfd;
	char path[64];

	if (memfd < 0 || write(memfd, from.bytes, from.len) != (ssize_t)from.len)
		die("memfd: %s\n", strerror(errno));
	if (one_in(2)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		close(memfd);
	}
	call_finit("memfd", fd, flags, can_be_loaded(content));
	close(fd);
	free_image(&from);
}

/* Files without a module, and file descriptors without a file. */
static void load_other_fd(void)
{
	static const char * const paths[] = {
		"/", "/tmp", "/dev/zero", "/dev/null", "/proc/version", "/proc/self/maps",
		"/proc/self/mem", "/proc/modules", "/proc/kcore", "/proc/self/fail-nth",
		"/sys/kernel/notes", "/sys/kernel/uevent_seqnum", "/sys/module", STATS, PENDING,
		"/sys/module/" MODULE_NAME "/parameters/park",
	};
	static const int numbers[] = { -1, AT_FDCWD, INT_MIN, INT_MAX, 1 << 20, 900 };
	const char *what = "fd";
	int fds[2] = { -1, -1 };

	switch (below(8)) {
	case 0:
		if (!pipe2(fds, O_CLOEXEC) && one_in(2) && write(fds[1], image.bytes, PAGE) < 0)
			_exit(1);
		what = "pipe";
		break;
	case 1:
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
		what = "socket";
		break;
	case 2:
		fds[0] = eventfd(0, EFD_CLOEXEC);
		fds[1] = epoll_create1(EPOLL_CLOEXEC);
		what = "eventfd or epoll";
		break;
	case 3:
		call_finit("no fd", numbers[below(ARRAY_SIZE(numbers))], 0, false);
		return;
	default:
		what = paths[below(ARRAY_SIZE(paths))];
		fds[0] = open(what, O_RDONLY | O_CLOEXEC);
		fds[1] = dup(fds[0]);
	}
	call_finit(what, fds[below(2)], one_in(8) ? MODULE_INIT_COMPRESSED_FILE : 0, false);
	if (fds[0] >= 0)
		close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
}

/* The fd is closed or becomes another file at any time. */
static void load_closed_fd(void)
{
	int i, n = 1 + below(5);

	other.fds[0] = open(files[GOOD], O_RDONLY | O_CLOEXEC);
	other.fds[1] = open(files[BROKEN], O_RDONLY | O_CLOEXEC);
	other.fds[2] = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	other.fd = dup(other.fds[0]);
	start_other_thread(CLOSE);
	for (i = 0; i < n; i++)
		call_finit("fd that is closed", other.fd, 0, true);
	stop_other_thread();
	close(other.fd);
	for (i = 0; i < (int)ARRAY_SIZE(other.fds); i++)
		close(other.fds[i]);
}

static void load_good_file(int fd)
{
	long result = syscall(SYS_finit_module, fd, "", 0);

	if (!result)
		bump(&storm->loaded);
	count_result("file that is loaded twice", result, true, true);
}

/* Two threads load the same file, with the same arguments: one often shares the other's result. */
static void load_twice(void)
{
	int i, n = 1 + below(5);

	other.fd = open(files[GOOD], O_RDONLY | O_CLOEXEC);
	start_other_thread(LOAD);
	for (i = 0; i < n; i++)
		load_good_file(other.fd);
	stop_other_thread();
	close(other.fd);
}

/*
 * Memory
 */

static void call_init(const char *what, const void *bytes, size_t len, bool can_succeed)
{
	struct arguments arguments = random_arguments();
	long result = syscall(SYS_init_module, bytes, len, arguments.text);

	if (!result)
		bump(&storm->loaded);
	count_result(what, result, true, can_succeed && !arguments.is_bad);
}

/* Returns less than the length of the image, or far more than can be allocated. */
static size_t random_len(size_t len)
{
	static const size_t lens[] = {
		0, 1, 63, 64, 65, (size_t)HUGE_LEN, LONG_MAX, LONG_MAX + 1UL, ~0UL, -PAGE,
	};

	return len && one_in(2) ? below(len) : lens[below(ARRAY_SIZE(lens))];
}

static void load_memory(void)
{
	enum content content = random_content();
	bool can_succeed = can_be_loaded(content) && !is_compressed(content);
	struct image from = make_image(content);
	char *page = page_before_hole();

	switch (below(8)) {
	case 0:
		call_init("bad pointer", random_bad_pointer(),
			  one_in(2) ? image.len : random_len(image.len), false);
		break;
	case 1:
		call_init("image of another length", from.bytes, random_len(from.len), false);
		break;
	case 2:
		memcpy(page, image.bytes, PAGE);
		call_init("image before a hole", page, image.len, false);
		break;
	default:
		call_init("image", from.bytes, from.len, can_succeed);
	}
	free_image(&from);
}

/* The image changes or becomes unreadable at any time. */
static void load_changing_memory(void)
{
	enum race race = below(PROTECT + 1);
	size_t page = getpagesize();
	int i, n = 1 + below(5);
	struct image copy;

	other.size = (image.len + page - 1) / page * page;
	other.bytes = mmap(NULL, other.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	if (other.bytes == MAP_FAILED)
		_exit(1);
	memcpy(other.bytes, image.bytes, image.len);
	copy = (struct image){ .bytes = other.bytes, .len = image.len };
	if (race == CHANGE_HEADERS)
		disable(&copy);
	start_other_thread(race);
	for (i = 0; i < n; i++)
		call_init("image that changes", copy.bytes, copy.len, race != CHANGE_HEADERS);
	stop_other_thread();
	munmap(other.bytes, other.size);
}

/*
 * Callers
 */

static void unload(void)
{
	const char *name = names[below(ARRAY_SIZE(names))];
	char *page = page_before_hole();

	switch (below(20)) {
	case 0:
		name = random_bad_pointer();
		break;
	case 1:
		memset(page, 'x', PAGE);
		name = page + PAGE - below(100);
		break;
	case 2:
		name = "";
		break;
	}
	count_result("delete_module",
		     syscall(SYS_delete_module, name, one_in(4) ? 0 : O_NONBLOCK), false, true);
}

static void (*const calls[NR_CALLS])(void) = {
	load_file, load_file, load_file, load_file, load_twice, load_memfd, load_other_fd,
	load_closed_fd,
	load_memory, load_memory, load_memory, load_changing_memory, unload, unload,
};

static pid_t start_caller(int number, int new_generation)
{
	struct sigaction sa = {
		.sa_handler = on_signal,
		.sa_flags = number % 2 ? SA_RESTART : 0,
	};
	pid_t pid;

	/* A child inherits it, so not even its first signal ends it. */
	sigaction(SIGUSR1, &sa, NULL);
	pid = fork_child();
	if (pid)
		return pid;
	caller_number = number;
	generation = new_generation;
	random_state = storm->seed + number * 1000003UL + generation;
	while (!storm->is_over) {
		int kind = below(NR_CALLS);

		call_number++;
		calls[kind]();
		bump(&storm->made[kind]);
	}
	_exit(0);
}

/*
 * The storm
 */

/* Releases all modules that are held by their init function. */
static void release_all(void)
{
	char path[PATH_MAX];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/module/%s/parameters/park", names[i]);
		write_to(path, "0");
	}
}

static bool is_reaped(pid_t pid, int *status)
{
	release_all();
	return waitpid(pid, status, WNOHANG) == pid;
}

/* Waits for a caller to end, and counts one that ends in another way than it should. */
static void end_caller(pid_t pid, bool is_killed)
{
	int status;

	wait_until(is_reaped(pid, &status), "process %d hangs\n", pid);
	if (is_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	ksft_print_msg("process %d ended with status %#x\n", pid, status);
	storm->nr_bad_ends++;
}

/* Must increase, or the storm has missed what it is for. */
static const enum dedup_counter varied_counters[] = {
	PERFORMED, SAME_FILE, SAME_NAME, ALREADY_LOADED, FROM_MEMORY, ABORTED, WAITS,
	WAITS_INTERRUPTED,
};

static bool has_variety(void)
{
	struct counters change = counters_since(&storm->before);
	bool has = storm->loaded;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(varied_counters); i++)
		has &= change.dedup[varied_counters[i]] > 0;
	for (i = 0; i < NR_CALLS; i++)
		has &= storm->made[i] > 0;
	return has;
}

/* Sends a random signal. */
static void disturb(pid_t pid, int caller)
{
	if (caller % 2 && one_in(2)) {
		kill(pid, SIGSTOP);
		usleep(below(3000));
		kill(pid, SIGCONT);
	} else {
		kill(pid, SIGUSR1);
	}
}

/* Lets callers run for a time, or longer until there was some of everything. */
static void run_storm(int seconds)
{
	double end = now() + seconds;
	int log = open_log();
	pid_t pids[NR_CALLERS];
	int i;

	storm->before = read_counters();
	for (i = 0; i < NR_CALLERS; i++)
		pids[i] = start_caller(i, 0);
	while (now() < end || (now() < end + DEADLINE_S && !has_variety())) {
		usleep(below(20000));
		i = below(NR_CALLERS);
		if (one_in(3))
			release_all();
		if (one_in(3))
			disturb(pids[i], i);
		if (one_in(50)) {
			kill(pids[i], SIGKILL);
			end_caller(pids[i], true);
			pids[i] = start_caller(i, ++storm->nr_killed);
		}
		/* The log is short: read it often. */
		storm->nr_complaints += count_in_log(log, "not supported for file");
	}
	storm->is_over = true;
	for (i = 0; i < NR_CALLERS; i++)
		end_caller(pids[i], false);
	close(log);
	storm->after = read_counters();
}

static void print_results(void)
{
	unsigned int i;
	int err;

	for (err = 0; err <= MAX_ERRNO; err++)
		if (storm->ended[err])
			ksft_print_msg("%6lu calls ended with %d (%s)\n", storm->ended[err], err,
				       strerror(err));
	for (i = 0; i < NR_DEDUP_COUNTERS; i++)
		ksft_print_msg("%6lu %s\n", storm->after.dedup[i] - storm->before.dedup[i],
			       dedup_counter_names[i]);
	ksft_print_msg("%6u callers killed\n", storm->nr_killed);
}

/*
 * Tests
 */

FIXTURE(storm)
{
};

FIXTURE_SETUP(storm)
{
	const char *text = getenv("DEDUP_SECONDS");
	int seconds = text ? atoi(text) : is_quick() ? 5 : 20;
	unsigned int i;

	image = read_module(MODULE_NAME);
	user_image = read_module(USER_NAME);
	use_own_tmp();
	random_state = storm->seed;
	for (i = 0; i < NR_CONTENTS; i++)
		make_file(files[i], i);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		unload_leftover(names[i]);
	if (!storm->has_begun) {
		storm->has_begun = true;
		ksft_print_msg("DEDUP_SECONDS=%d DEDUP_SEED=%lu\n", seconds, storm->seed);
		run_storm(seconds);
		print_results();
		storm->is_complete = true;
	}
	ASSERT_TRUE(storm->is_complete)
		TH_LOG("the storm has failed, see the first test");
}

FIXTURE_TEARDOWN_PARENT(storm)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		unload_leftover(names[i]);
}

/* All callers have ended: as told, or killed. */
TEST_F_TIMEOUT(storm, callers_end, TEST_LIMIT_S)
{
	EXPECT_EQ(0, storm->nr_bad_ends);
}

/* No call has loaded what cannot be loaded, or failed with an odd error. */
TEST_F_TIMEOUT(storm, results, TEST_LIMIT_S)
{
	EXPECT_EQ(0, storm->bad_results);
}

/* The kernel checks a file before it tries to read it. */
TEST_F_TIMEOUT(storm, no_complaints, TEST_LIMIT_S)
{
	EXPECT_EQ(0, storm->nr_complaints);
}

TEST_F_TIMEOUT(storm, nothing_pending, TEST_LIMIT_S)
{
	EXPECT_TRUE(is_idle());
}

/*
 * Each load has one end. Each success has loaded a module or shared another success;
 * a caller that was killed may have had one more.
 */
TEST_F_TIMEOUT(storm, counters, TEST_LIMIT_S)
{
	const unsigned long *after = storm->after.dedup, *before = storm->before.dedup;
	unsigned long modules = storm->after.mod[MODCOUNT] - storm->before.mod[MODCOUNT];

	EXPECT_EQ(after[LOADS], after[PERFORMED] + after[SAME_FILE] + after[SAME_NAME] +
				after[ALREADY_LOADED] + after[FROM_MEMORY] + after[ABORTED]);
	EXPECT_LE(after[WAITS_INTERRUPTED], after[WAITS]);
	EXPECT_LE(modules, storm->loaded + storm->nr_killed);
	EXPECT_LE(storm->loaded, modules + after[SAME_FILE] - before[SAME_FILE]);
}

/* There were calls of each kind, and loads with each end. */
TEST_F_TIMEOUT(storm, variety, TEST_LIMIT_S)
{
	unsigned int i;

	EXPECT_LT(0, storm->loaded);
	for (i = 0; i < NR_CALLS; i++) {
		EXPECT_LT(0, storm->made[i])
			TH_LOG("no call of kind %u", i);
	}
	for (i = 0; i < ARRAY_SIZE(varied_counters); i++) {
		enum dedup_counter counter = varied_counters[i];

		EXPECT_LT(storm->before.dedup[counter], storm->after.dedup[counter])
			TH_LOG("%s has not increased", dedup_counter_names[counter]);
	}
}

TEST_F_TIMEOUT(storm, modules_loadable, TEST_LIMIT_S)
{
	const struct load loads[] = {
		{ .path = files[GOOD], .args = "" },
		{ .path = files[COMPRESSED], .args = "", .flags = MODULE_INIT_COMPRESSED_FILE },
		{ .image = &image, .args = "" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		EXPECT_EQ(0, do_load(&loads[i]))
			TH_LOG("load %u", i);
		EXPECT_TRUE(is_live(MODULE_NAME));
		must_unload(MODULE_NAME);
	}
}

int main(int argc, char **argv)
{
	const char *seed = getenv("DEDUP_SEED");

	need_stats();
	need_dedup();
	need_mode("full");
	storm = alloc_shared(sizeof(*storm));
	if (seed)
		storm->seed = strtoul(seed, NULL, 0);
	else if (getrandom(&storm->seed, sizeof(storm->seed), 0) != sizeof(storm->seed))
		die("getrandom: %s\n", strerror(errno));
	return test_harness_run(argc, argv);
}
