/* SPDX-License-Identifier: GPL-2.0 */
/*
 * request_module() on demand, for the selftests of its deduplication.
 *
 * The test module test_dedup_request calls request_module() on behalf of any
 * process. Instead of modprobe, the kernel runs the test program itself: the
 * helper. It logs its calls, can be held, and ends as a test tells it to.
 */
#ifndef DEDUP_REQUEST_H
#define DEDUP_REQUEST_H

#include "dedup_common.h"
#include "test_modules/test_dedup.h"

#define REQUEST_MODULE	"test_dedup_request"
#define REQUEST_DEVICE	"/dev/" REQUEST_MODULE
#define MODPROBE	"/proc/sys/kernel/modprobe"
#define DUP_MESSAGE	"module-autoload: duplicate request for module "

/* Belongs into FIXTURE(): remove_helper() is for FIXTURE_TEARDOWN_PARENT(). */
struct helper {
	char dir[64];			/* the helper's name, log and orders */
	char old_modprobe[PATH_MAX];
};

/* Whether the kernel runs this program as the helper: modprobe -q -- NAME. */
bool is_helper(int argc, char **argv);
/*
 * Does the helper's work and returns its exit code: logs the call, waits for
 * the exit code if it is held, then loads a module if it has one.
 */
int run_helper(char **argv);

/* Loads the test module and makes the kernel call the helper. */
void install_helper(struct helper *helper);
/* Undoes that, also after an aborted test. */
void remove_helper(const struct helper *helper);

/* Returns how often the helper was called for a name. */
int helper_calls(const struct helper *helper, const char *name);
/* Holds each helper for that name. Returns a file descriptor for release_helper(). */
int hold_helpers(const struct helper *helper, const char *name);
/*
 * Lets one helper, the next one if there is none yet, exit with that code. A
 * negative code is a signal that ends it.
 */
void release_helper(int fd, char code);
/* Later helpers for that name succeed at once. */
void unhold_helpers(const struct helper *helper, const char *name, int fd);
/* Makes helpers for that name load an image, or nothing if it is NULL. */
void set_helper_module(const struct helper *helper, const char *name, const struct image *image);

/* Starts a request. Its result is 0, a wait status of the helper, or -errno. */
struct caller start_request(const char *name, unsigned int cmd);
/* The same, for a request that waits; returns when it does. SIGKILL interrupts it. */
struct caller start_waiting_request(const char *name);
/* The same, for the first request for a name; returns when its helper is held. */
struct caller start_first_request(const struct helper *helper, const char *name);
/* Starts n requests that wait for the helper of the first one. */
void start_requests(const struct helper *helper, struct caller *callers, int n, const char *name);
/* Starts a request and returns its result. */
int request(const char *name, unsigned int cmd);

#endif
