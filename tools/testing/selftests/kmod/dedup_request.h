/* SPDX-License-Identifier: GPL-2.0 */
/*
 * request_module() at will, for the tests of its deduplication.
 *
 * The test module test_dedup_request lets any process make a request, and the
 * test program itself is what the kernel calls instead of modprobe. That keeps a
 * log, can be held on a fifo, and ends as the test says.
 */
#ifndef DEDUP_REQUEST_H
#define DEDUP_REQUEST_H

#include <sys/ioctl.h>

#include "dedup_common.h"
#include "test_modules/test_dedup.h"

#define REQUEST_MODULE	"test_dedup_request"
#define REQUEST_DEVICE	"/dev/" REQUEST_MODULE
#define MODPROBE	"/proc/sys/kernel/modprobe"
#define DUP_MESSAGE	"module-autoload: duplicate request for module "

/* Holds the helper's name, its log, and what tells it what to do. */
static char helper_dir[64] = "/tmp/dedup_request.XXXXXX";
static char *old_modprobe;

static inline void helper_path(char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", helper_dir, name);
}

/* Whether the kernel has called this program: modprobe -q -- NAME. */
static inline bool is_helper(int argc, char **argv)
{
	return argc == 4 && !strcmp(argv[1], "-q") && !strcmp(argv[2], "--");
}

/*
 * The helper: says that it was called, waits for its exit code if there is a
 * fifo with the name, then loads the file NAME.ko if there is one.
 */
static inline int be_helper(char **argv)
{
	struct load load = { .args = "" };
	char path[PATH_MAX], line[PATH_MAX];
	char code = 0;
	int fd;

	/* It is called by a link in that folder. */
	snprintf(helper_dir, sizeof(helper_dir), "%s", argv[0]);
	*strrchr(helper_dir, '/') = '\0';
	helper_path(path, "log");
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	snprintf(line, sizeof(line), "%s\n", argv[3]);
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		return 255;
	helper_path(path, argv[3]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, &code, 1) != 1)
		return 255;
	snprintf(line, sizeof(line), "%.*s.ko", NAME_MAX, argv[3]);
	helper_path(path, line);
	load.path = path;
	if (!code && !access(path, F_OK))
		return do_load(&load);
	return code;
}

/* How often the helper was called for that name. */
static inline int helper_calls(const char *name)
{
	char path[PATH_MAX], *text, *line, *rest;
	int calls = 0;

	helper_path(path, "log");
	text = read_text(path, SIZE_MAX);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		calls += !strcmp(line, name);
	free(text);
	return calls;
}

/* From now on, helpers wait when they are called for that name. */
static inline int hold_helpers(const char *name)
{
	char path[PATH_MAX];
	int fd;

	helper_path(path, name);
	fd = mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	return fd;
}

/* Lets one helper, now or when it comes, end with that code. */
static inline void release_helper(int fd, char code)
{
	if (write(fd, &code, 1) != 1)
		ksft_exit_fail_msg("fifo: %s\n", strerror(errno));
}

/* From now on, helpers end at once with success when they are called for that name. */
static inline void unhold_helpers(const char *name, int fd)
{
	char path[PATH_MAX];

	helper_path(path, name);
	unlink(path);
	close(fd);
}

/* From now on, the helper loads that image when it is called for that name. */
static inline void let_helper_load(const char *name, const struct image *image)
{
	char path[PATH_MAX], *file = write_image(image);

	helper_path(path, name);
	strcat(path, ".ko");
	if (rename(file, path))
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	free(file);
}

static inline void let_helper_not_load(const char *name)
{
	char path[PATH_MAX];

	helper_path(path, name);
	strcat(path, ".ko");
	unlink(path);
}

/* Starts a request; its result is 0, a wait status of the helper, or -errno. */
static inline struct caller start_request(const char *name, unsigned int cmd)
{
	struct caller c = fork_caller();
	int fd, ret;

	if (c.pid)
		return c;
	fd = open(REQUEST_DEVICE, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		_exit(1);
	ret = ioctl(fd, cmd, name);
	*c.result = ret < 0 ? -errno : ret;
	_exit(0);
}

/* Starts a request that has to wait; returns when it does. It can be killed then. */
static inline struct caller start_waiting_request(const char *name)
{
	struct caller c = start_request(name, TEST_DEDUP_REQUEST);

	wait_until(has_arrived(c.pid, SYS_ioctl, 'D'), "a request for %s did not arrive\n", name);
	return c;
}

/* Starts a request that nobody else has made; returns when its helper is held. */
static inline struct caller start_first_request(const char *name)
{
	struct caller c = start_waiting_request(name);

	wait_until(helper_calls(name) == 1, "the helper for %s was not called\n", name);
	return c;
}

static inline int request(const char *name, unsigned int cmd)
{
	struct caller c = start_request(name, cmd);

	return finish(&c);
}

static inline void setup_requests(char **argv)
{
	char exe[PATH_MAX], path[PATH_MAX];
	struct load load = { .path = path, .args = "" };
	ssize_t len;
	int err;

	module_path(path, argv, REQUEST_MODULE);
	must_unload(REQUEST_MODULE);
	err = do_load(&load);
	if (err)
		ksft_exit_skip("%s: %s\n", path, strerror(err));
	wait_until(!access(REQUEST_DEVICE, F_OK), "there is no " REQUEST_DEVICE "\n");

	len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (len < 0 || !mkdtemp(helper_dir))
		ksft_exit_fail_msg("%s: %s\n", helper_dir, strerror(errno));
	exe[len] = '\0';
	helper_path(path, "log");
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	helper_path(path, "modprobe");
	old_modprobe = read_text(MODPROBE, SIZE_MAX);
	err = symlink(exe, path) ? errno : write_to(MODPROBE, path);
	if (err)
		ksft_exit_fail_msg("%s: %s\n", MODPROBE, strerror(err));
}

static inline void cleanup_requests(void)
{
	char path[PATH_MAX];

	write_to(MODPROBE, old_modprobe);
	free(old_modprobe);
	must_unload(REQUEST_MODULE);
	helper_path(path, "log");
	unlink(path);
	helper_path(path, "modprobe");
	unlink(path);
	rmdir(helper_dir);
}

#endif
