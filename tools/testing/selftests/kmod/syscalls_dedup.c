// SPDX-License-Identifier: GPL-2.0
/*
 * Random loads from a few processes at once: any file, image, length, flags and
 * arguments, right or wrong, some changed or taken away by another thread
 * meanwhile. Modules are unloaded in between, and callers get signals.
 *
 * No image that is made up may ever run. One with random bytes in it is of a machine
 * that this is not: the loader refuses it before it looks at anything else, while
 * that is no matter to whoever only wants to know the name. Of what is left as it
 * was, only the name is changed, or it is cut: the last thing in the file are the
 * headers of the sections, so that any cut is refused. A compressed image with
 * random bytes has them in what tells its blocks apart, around an image of another
 * machine.
 *
 * The seed makes each process do the same again. Who comes first is not repeated.
 *
 * Needs module.dedup=full.
 *
 * Usage: syscalls_dedup [FOLDER OF THE TEST MODULES [SECONDS [SEED]]]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "dedup_common.h"

/* What another thread makes of the name, and back. */
#define CHANGED_NAME	"test_deduq"
#define NR_CALLERS	4
#define PAGE		4096UL
#define MAX_ERRNO	4095
/* More than any computer has, and less than what a file can pretend to have. */
#define HUGE_LEN	(1024UL << 30)
#define LARGE_LEN	(8UL << 20)

/* All names that a module can have here. */
static const char * const names[] = {
	/* It needs one of the others, and has to go first. */
	USER_NAME, MODULE_NAME, CHANGED_NAME, "fuzz_0", "fuzz_1",
	"a_module_whose_name_takes_all_the_room_that_there_is_xx",
};

static struct image image, user_image;
static unsigned long seed;

#define NR_CALLS	13

/* What the callers tell us, and each other. */
static struct {
	atomic_bool is_over;
	atomic_bool has_failed;
	atomic_ulong made[NR_CALLS];		/* calls of each kind */
	atomic_ulong loaded;			/* loads that returned 0 */
	atomic_ulong ended[MAX_ERRNO + 1];	/* calls that ended with 0, or that errno */
} *shared;

/*
 * Random numbers: splitmix64
 */

static __thread uint64_t random_state;

static uint64_t random_number(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15;

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

/* Last of all changes to an image: from now on, it is of no use to this machine. */
static void disable(const struct image *image)
{
	struct elf64_hdr *hdr = (struct elf64_hdr *)image->bytes;

	hdr->e_machine = EM_NONE;
}

static void put_random_bytes(char *at, size_t len, unsigned int changes)
{
	while (changes--) {
		char *byte = at + below(len);

		/* What is near the old value leads astray in other ways. */
		if (one_in(2))
			*byte += one_in(2) ? 1 : -1;
		else
			*byte = one_in(4) ? 0xff : random_number();
	}
}

/* Random bytes where the name is looked for. */
static void break_headers(const struct image *broken)
{
	struct elf64_hdr *hdr = (struct elf64_hdr *)broken->bytes;
	struct elf64_shdr *sections = (struct elf64_shdr *)(broken->bytes + hdr->e_shoff);
	struct elf64_shdr *module = find_section(broken, ".gnu.linkonce.this_module");
	struct elf64_shdr *strings = &sections[hdr->e_shstrndx];
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

/* What follows an image that is signed, if the rest of it means anything. */
static struct image sign(const struct image *from)
{
	static const char marker[] = "~Module signature appended~\n";
	struct image copy = copy_image(from, from->len + below(64) + 12 + sizeof(marker) - 1);
	char *end = copy.bytes + copy.len;

	put_random_bytes(copy.bytes + from->len, copy.len - from->len, 64);
	/* A kind and a length that the kernel goes on with. */
	if (one_in(2)) {
		memset(end - sizeof(marker) + 1 - 12, 0, 12);
		end[-(long)sizeof(marker) + 1 - 10] = 2;
		end[-(long)sizeof(marker)] = below(64);
	}
	memcpy(end - sizeof(marker) + 1, marker, sizeof(marker) - 1);
	return copy;
}

/* Random bytes in the magic number and in the headers of blocks: see compress(). */
static void break_frame(const struct image *frame)
{
	size_t header = 9;

	if (one_in(4))
		put_random_bytes(frame->bytes, 4, 1);
	else
		put_random_bytes(frame->bytes + header, 3, 1 + below(2));
}

/* Makes an image, whose file may be longer than what it has in memory. */
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
		free(copy.bytes);
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
		free(copy.bytes);
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

/* Two pages, the second of which cannot be touched. */
static char *page_before_hole(void)
{
	static char *page;

	if (page)
		return page;
	page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || mprotect(page + PAGE, PAGE, PROT_NONE))
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	return page;
}

static const char *random_bad_pointer(void)
{
	static const unsigned long pointers[] = {
		0, 1, 8, 0xfff, 1UL << 46, 1UL << 47, 1UL << 63, ~0UL, ~0xfffUL, -4096UL,
		0xffff888000000000, 0xffffffff81000000,
	};

	return (const char *)pointers[below(ARRAY_SIZE(pointers))];
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
		/* The NUL is the last byte before it. */
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
 * What another thread does meanwhile
 */

enum race {
	CHANGE_NAME,
	CHANGE_HEADERS,
	PROTECT,
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

/* The machine of the image is never touched. */
static void change_header(void)
{
	struct elf64_hdr *hdr = (struct elf64_hdr *)image.bytes;
	size_t first = offsetof(struct elf64_hdr, e_machine) + sizeof(hdr->e_machine);

	if (one_in(3))
		put_random_bytes(other.bytes + first, sizeof(*hdr) - first, 1);
	else
		put_random_bytes(other.bytes + hdr->e_shoff, image.len - hdr->e_shoff, 1);
	/* Otherwise, it would soon be all the same. */
	if (one_in(4)) {
		memcpy(other.bytes + first, image.bytes + first, sizeof(*hdr) - first);
		memcpy(other.bytes + hdr->e_shoff, image.bytes + hdr->e_shoff,
		       image.len - hdr->e_shoff);
	}
}

static void *be_other_thread(void *seed)
{
	size_t name = find_name(&image) - image.bytes + strlen(MODULE_NAME) - 1;
	unsigned int i;

	random_state = (uintptr_t)seed;
	for (i = 0; !other.is_over; i++) {
		switch (other.race) {
		case CHANGE_NAME:
			/* From test_dedup to test_deduq, and back. */
			__atomic_store_n(other.bytes + name, i % 2 ? 'p' : 'q', __ATOMIC_RELAXED);
			break;
		case CHANGE_HEADERS:
			change_header();
			break;
		case PROTECT:
			mprotect(other.bytes + below(other.size / PAGE) * PAGE, PAGE,
				 i % 2 ? PROT_NONE : PROT_READ | PROT_WRITE);
			break;
		case CLOSE:
			if (one_in(3))
				close(other.fd);
			else
				dup2(other.fds[i % ARRAY_SIZE(other.fds)], other.fd);
			break;
		}
		/* Calls are of very different lengths. */
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

/*
 * What a call may end with: what the loader says of images, files and names, what
 * deduplication adds, and what the init function was told to return.
 */
static bool is_known(int err)
{
	static const int known[] = {
		0,
		EBADF, EFAULT, EINVAL, EFBIG, ETXTBSY, ENOMEM,
		EIO,		/* a file of the kernel is shorter than it says */
		ENOEXEC, EBADMSG,
		ENOENT,		/* no such symbol, or module to unload */
		EEXIST, EBUSY, EINTR,
		EAGAIN,		/* the module to unload is in use */
		ENODEV,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (err == known[i])
			return true;
	return false;
}

/* Takes the result of a call, and whether it may have been a success. */
static void count(const char *what, long result, bool can_succeed)
{
	int err = result ? errno : 0;

	shared->ended[err]++;
	if ((err || can_succeed) && is_known(err))
		return;
	ksft_print_msg("seed %lu, process %d.%d, call %lu: %s ended with %d\n", seed,
		       caller_number, generation, call_number, what, err);
	shared->has_failed = true;
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
	/* Where in a file one is, is nothing to its load. */
	if (one_in(4))
		lseek(fd, below(1 << 20), SEEK_SET);
	result = syscall(SYS_finit_module, fd, arguments.text, flags);
	if (!result)
		shared->loaded++;
	count(what, result, can_succeed && !arguments.is_bad && !(flags & ~7));
}

/*
 * Files
 */

/* One of each, which the callers share. */
static char *files[NR_CONTENTS];

/* Where it is remembered what compressed files hold, if that can be had. */
static const char *compressed_folder = "/tmp";

static char *make_file(enum content content)
{
	struct image from = make_image(content);
	char *path = write_image_to(is_compressed(content) ? compressed_folder : "/tmp", &from);
	off_t len = content == HUGE_SPARSE ? HUGE_LEN : LARGE_LEN;

	if ((content == SPARSE_TAIL || content == SPARSE || content == HUGE_SPARSE) &&
	    truncate(path, len))
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	free(from.bytes);
	return path;
}

/* Often what is good, and the same: otherwise there is not much to wait for. */
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
	char *path = is_own ? make_file(content) : files[content];
	int flags = is_compressed(content) ? MODULE_INIT_COMPRESSED_FILE : 0;
	int mode = O_RDONLY, fd;

	switch (below(16)) {
	case 0:
		mode = O_WRONLY;
		can_succeed = false;
		break;
	case 1:
		/* Can only succeed if somebody else loads it. */
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
	/* Where somebody loads it at that time, it cannot be opened for writing. */
	if (fd >= 0) {
		call_finit(path, fd, flags, can_succeed);
		close(fd);
	}
	if (is_own) {
		unlink(path);
		free(path);
	}
}

static void load_memfd(void)
{
	enum content content = random_content();
	int flags = is_compressed(content) ? MODULE_INIT_COMPRESSED_FILE : 0;
	struct image from = make_image(content);
	int memfd = memfd_create("fuzz", MFD_CLOEXEC), fd = memfd;
	char path[64];

	if (memfd < 0 || write(memfd, from.bytes, from.len) != (ssize_t)from.len)
		ksft_exit_fail_msg("memfd: %s\n", strerror(errno));
	if (one_in(2)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		close(memfd);
	}
	call_finit("memfd", fd, flags, can_be_loaded(content));
	close(fd);
	free(from.bytes);
}

/* What is no file of a module, or no file. */
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

/* The fd is closed, or becomes another file, at any time. */
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

/*
 * Memory
 */

static void call_init(const char *what, const void *bytes, size_t len, bool can_succeed)
{
	struct arguments arguments = random_arguments();
	long result = syscall(SYS_init_module, bytes, len, arguments.text);

	if (!result)
		shared->loaded++;
	count(what, result, can_succeed && !arguments.is_bad);
}

/* Less than the image has, or far more than there can be. */
static size_t random_len(size_t len)
{
	static const size_t lens[] = {
		0, 1, 63, 64, 65, HUGE_LEN, LONG_MAX, 1UL << 63, ~0UL, -PAGE,
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
	free(from.bytes);
}

/* The image is changed, or cannot be read, at any time. */
static void load_changing_memory(void)
{
	enum race race = below(PROTECT + 1);
	int i, n = 1 + below(5);
	struct image copy;

	other.size = (image.len + PAGE - 1) / PAGE * PAGE;
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
	count("delete_module", syscall(SYS_delete_module, name, one_in(4) ? 0 : O_NONBLOCK), true);
}

static void (*const calls[NR_CALLS])(void) = {
	load_file, load_file, load_file, load_file, load_memfd, load_other_fd, load_closed_fd,
	load_memory, load_memory, load_memory, load_changing_memory, unload, unload,
};

static pid_t start_caller(int number, int new_generation)
{
	pid_t pid = fork();

	if (pid < 0)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	if (pid)
		return pid;
	/* Nobody is left to disturb other tests, whatever happens here. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	caller_number = number;
	generation = new_generation;
	random_state = seed + number * 1000003UL + generation;
	while (!shared->is_over) {
		int kind = below(NR_CALLS);

		call_number++;
		calls[kind]();
		shared->made[kind]++;
	}
	_exit(0);
}

/* Lets go on whatever is held by its init function. */
static void release_all(void)
{
	char path[PATH_MAX];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/module/%s/parameters/park", names[i]);
		write_to(path, "0");
	}
}

static bool has_ended(pid_t pid, int *status)
{
	release_all();
	return waitpid(pid, status, WNOHANG) == pid;
}

/* Whether a caller ended as it was to. */
static bool reap(pid_t pid, bool is_killed)
{
	int status;

	wait_until(has_ended(pid, &status), "process %d hangs\n", pid);
	if (is_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return true;
	ksft_print_msg("process %d ended with status %#x\n", pid, status);
	return false;
}

/*
 * What happens
 */

struct counts {
	unsigned long modules;		/* that were loaded */
	unsigned long loads, owned, same_file, same_name, late, from_memory, left;
	unsigned long waits, interrupted;
};

static struct counts read_counts(void)
{
	char *text = read_text(DEDUP, SIZE_MAX);
	struct counts counts = {
		.modules = read_counter("modcount"),
		.loads = number_of(text, "loads"),
		.owned = number_of(text, "owned"),
		.same_file = number_of(text, "same_file"),
		.same_name = number_of(text, "same_name"),
		.late = number_of(text, "late"),
		.from_memory = number_of(text, "from_memory"),
		.left = number_of(text, "left"),
		.waits = number_of(text, "waits"),
		.interrupted = number_of(text, "waits_interrupted"),
	};

	free(text);
	return counts;
}

/* Whether enough happened since then for the rest to say anything. */
static bool all_happened(const struct counts *before)
{
	struct counts after = read_counts();
	bool ok = shared->loaded && after.waits > before->waits &&
		  after.interrupted > before->interrupted && after.owned > before->owned &&
		  after.same_file > before->same_file && after.same_name > before->same_name &&
		  after.late > before->late && after.from_memory > before->from_memory;
	int i;

	for (i = 0; i < NR_CALLS; i++)
		ok &= shared->made[i] > 0;
	return ok;
}

/* What there was besides calls. */
struct outcome {
	bool all_ended;
	unsigned int killed;
	int complaints;		/* of the kernel, of what cannot be read */
};

/* Lets them call for so long, or longer until everything has happened, and disturbs them. */
static struct outcome run(int seconds, const struct counts *before)
{
	struct outcome outcome = { .all_ended = true };
	double end = now() + seconds;
	int log = open_log();
	pid_t pids[NR_CALLERS];
	int i;

	for (i = 0; i < NR_CALLERS; i++)
		pids[i] = start_caller(i, 0);
	while (now() < end || (now() < end + DEADLINE_S && !all_happened(before))) {
		usleep(below(20000));
		i = below(NR_CALLERS);
		if (one_in(3))
			release_all();
		if (one_in(3))
			kill(pids[i], SIGUSR1);
		if (one_in(50)) {
			kill(pids[i], SIGKILL);
			outcome.all_ended &= reap(pids[i], true);
			pids[i] = start_caller(i, ++outcome.killed);
		}
		/* The log does not keep everything for long. */
		outcome.complaints += count_in_log(log, "not supported for file");
	}
	shared->is_over = true;
	for (i = 0; i < NR_CALLERS; i++)
		outcome.all_ended &= reap(pids[i], false);
	close(log);
	return outcome;
}

/*
 * What is left
 */

/*
 * Nobody is left, so that every load was counted as one kind or another. Each that
 * returned 0 made a module, or shared one; somebody who was killed did not tell.
 */
static bool add_up(const struct counts *before, const struct counts *after, unsigned int killed)
{
	unsigned long modules = after->modules - before->modules;
	unsigned long shared_ones = after->same_file - before->same_file;
	unsigned long loaded = shared->loaded;

	ksft_print_msg("%lu loads: %lu owned, %lu same_file, %lu same_name, %lu late\n",
		       after->loads, after->owned, after->same_file, after->same_name,
		       after->late);
	ksft_print_msg("%lu from_memory, %lu left; %lu waits, %lu interrupted\n",
		       after->from_memory, after->left, after->waits, after->interrupted);
	ksft_print_msg("%lu modules loaded, %lu calls told so, %u killed\n", modules, loaded,
		       killed);
	return after->loads == after->owned + after->same_file + after->same_name + after->late +
			       after->from_memory + after->left &&
	       after->interrupted <= after->waits &&
	       modules <= loaded + killed && loaded <= modules + shared_ones;
}

static void print_results(void)
{
	int err;

	for (err = 0; err <= MAX_ERRNO; err++)
		if (shared->ended[err])
			ksft_print_msg("%6lu calls ended with %d (%s)\n", shared->ended[err], err,
				       strerror(err));
}

static bool can_all_be_loaded(void)
{
	struct load loads[] = {
		{ .path = files[GOOD], .args = "" },
		{ .path = files[COMPRESSED], .args = "", .flags = MODULE_INIT_COMPRESSED_FILE },
		{ .image = &image, .args = "" },
	};
	unsigned int i;
	bool ok = true;
	int err;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		must_unload(names[i]);
	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		err = do_load(&loads[i]);
		if (err || !is_live(MODULE_NAME)) {
			ksft_print_msg("load %u ended with %d\n", i, err);
			ok = false;
		}
		must_unload(MODULE_NAME);
	}
	return ok;
}

static void prepare(char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	char path[PATH_MAX];
	unsigned int i;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	module_path(path, argv, MODULE_NAME);
	image = read_image(path);
	module_path(path, argv, USER_NAME);
	user_image = read_image(path);
	use_own_tmp();
	if (mount_xfs("/tmp/xfs"))
		compressed_folder = "/tmp/xfs";
	random_state = seed;
	for (i = 0; i < NR_CONTENTS; i++)
		files[i] = make_file(i);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		must_unload(names[i]);
	/* No SA_RESTART: calls are to return. */
	sigaction(SIGUSR1, &sa, NULL);
}

int main(int argc, char **argv)
{
	int seconds = argc > 2 ? atoi(argv[2]) : is_quick() ? 5 : 20;
	struct counts before, after;
	struct outcome outcome;

	ksft_print_header();
	need_root_and_stats();
	if (access(DEDUP, F_OK) || access(DEDUP_MODE, F_OK))
		ksft_exit_skip("needs CONFIG_MODULE_DEDUP_RUST\n");
	if (!file_says(DEDUP_MODE, "full\n"))
		ksft_exit_skip("needs module.dedup=full\n");
	if (argc > 3)
		seed = strtoul(argv[3], NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		ksft_exit_fail_msg("getrandom: %s\n", strerror(errno));
	ksft_print_msg("%d seconds, seed %lu\n", seconds, seed);
	prepare(argv);

	ksft_set_plan(6);
	before = read_counts();
	outcome = run(seconds, &before);
	after = read_counts();
	print_results();
	ksft_test_result(outcome.all_ended && !shared->has_failed,
			 "random loads: nobody hangs, loads what cannot be, or gets an odd error\n");
	/* It refuses what it cannot read before it tries to. */
	ksft_test_result(!outcome.complaints,
			 "the kernel does not complain of what it was given\n");
	ksft_test_result(file_says(PENDING, ""), "nothing is pending afterwards\n");
	ksft_test_result(add_up(&before, &after, outcome.killed), "the counters add up\n");
	ksft_test_result(all_happened(&before),
			 "there were calls of each kind, and loads of each end\n");
	ksft_test_result(can_all_be_loaded(), "modules can be loaded and unloaded\n");
	ksft_finished();
}
