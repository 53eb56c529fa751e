// SPDX-License-Identifier: GPL-2.0
/*
 * request_module() on demand, see dedup_request.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "dedup_request.h"

static void helper_path(char path[PATH_MAX], const struct helper *helper, const char *name,
			const char *suffix)
{
	snprintf(path, PATH_MAX, "%s/%.*s%s", helper->dir, NAME_MAX, name, suffix);
}

bool is_helper(int argc, char **argv)
{
	return argc == 4 && !strcmp(argv[1], "-q") && !strcmp(argv[2], "--");
}

int run_helper(char **argv)
{
	struct load load = { .args = "" };
	char path[PATH_MAX], line[PATH_MAX];
	struct helper helper;
	/* Plain char is unsigned on ARM. */
	signed char code = 0;
	int fd;

	/* argv[0] is a link in the folder. */
	snprintf(helper.dir, sizeof(helper.dir), "%s", argv[0]);
	*strrchr(helper.dir, '/') = '\0';
	helper_path(path, &helper, "log", "");
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	snprintf(line, sizeof(line), "%s\n", argv[3]);
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		return 255;
	/* The read ends without a code if the test has died. */
	helper_path(path, &helper, argv[3], "");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, &code, 1) != 1)
		return 255;
	if (code < 0)
		raise(-code);
	helper_path(path, &helper, argv[3], ".ko");
	load.path = path;
	if (!code && !access(path, F_OK))
		return do_load(&load);
	return code;
}

void install_helper(struct helper *helper)
{
	char exe[PATH_MAX], path[PATH_MAX], *old;
	struct load load = { .path = path, .args = "" };
	ssize_t len;
	int err;

	module_path(path, REQUEST_MODULE);
	unload_leftover(REQUEST_MODULE);
	err = do_load(&load);
	if (err)
		die("%s: %s\n", path, strerror(err));
	wait_until(!access(REQUEST_DEVICE, F_OK), "there is no " REQUEST_DEVICE "\n");

	snprintf(helper->dir, sizeof(helper->dir), "/tmp/dedup_request.XXXXXX");
	len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (len < 0 || !mkdtemp(helper->dir))
		die("%s: %s\n", helper->dir, strerror(errno));
	exe[len] = '\0';
	helper_path(path, helper, "log", "");
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	helper_path(path, helper, "modprobe", "");
	old = read_text(MODPROBE, SIZE_MAX);
	snprintf(helper->old_modprobe, sizeof(helper->old_modprobe), "%s", old);
	free(old);
	err = symlink(exe, path) ? errno : write_to(MODPROBE, path);
	if (err)
		die("%s: %s\n", MODPROBE, strerror(err));
}

void remove_helper(const struct helper *helper)
{
	struct dirent *entry;
	char path[PATH_MAX];
	DIR *dir;

	write_to(MODPROBE, helper->old_modprobe);
	unload_leftover(REQUEST_MODULE);
	dir = opendir(helper->dir);
	while (dir && (entry = readdir(dir))) {
		helper_path(path, helper, entry->d_name, "");
		unlink(path);
	}
	if (dir)
		closedir(dir);
	if (rmdir(helper->dir))
		die("%s: %s\n", helper->dir, strerror(errno));
}

int helper_calls(const struct helper *helper, const char *name)
{
	char path[PATH_MAX], *text, *line, *rest;
	int calls = 0;

	helper_path(path, helper, "log", "");
	text = read_text(path, SIZE_MAX);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		calls += !strcmp(line, name);
	free(text);
	return calls;
}

int hold_helpers(const struct helper *helper, const char *name)
{
	char path[PATH_MAX];
	int fd;

	helper_path(path, helper, name, "");
	fd = mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("%s: %s\n", path, strerror(errno));
	return fd;
}

void release_helper(int fd, char code)
{
	if (write(fd, &code, 1) != 1)
		die("fifo: %s\n", strerror(errno));
}

void unhold_helpers(const struct helper *helper, const char *name, int fd)
{
	char path[PATH_MAX];

	helper_path(path, helper, name, "");
	unlink(path);
	close(fd);
}

void set_helper_module(const struct helper *helper, const char *name, const struct image *image)
{
	char file[PATH_MAX], path[PATH_MAX];

	helper_path(path, helper, name, ".ko");
	if (!image)
		unlink(path);
	else if (rename(write_image_to(file, helper->dir, image), path))
		die("%s: %s\n", path, strerror(errno));
}

struct caller start_request(const char *name, unsigned int cmd)
{
	struct caller caller = fork_caller();
	int fd, ret;

	if (caller.pid)
		return caller;
	fd = open(REQUEST_DEVICE, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		_exit(1);
	ret = ioctl(fd, cmd, name);
	*caller.result = ret < 0 ? -errno : ret;
	_exit(0);
}

struct caller start_waiting_request(const char *name)
{
	struct caller caller = start_request(name, TEST_DEDUP_REQUEST);

	wait_until(has_arrived(caller.pid, SYS_ioctl, 'D'), "a request for %s does not wait\n",
		   name);
	return caller;
}

struct caller start_first_request(const struct helper *helper, const char *name)
{
	struct caller caller = start_waiting_request(name);

	wait_until(helper_calls(helper, name) == 1, "the helper for %s was not called\n", name);
	return caller;
}

void start_requests(const struct helper *helper, struct caller *callers, int n, const char *name)
{
	int i;

	callers[0] = start_first_request(helper, name);
	for (i = 1; i < n; i++)
		callers[i] = start_waiting_request(name);
}

int request(const char *name, unsigned int cmd)
{
	struct caller caller = start_request(name, cmd);

	return reap(&caller);
}
