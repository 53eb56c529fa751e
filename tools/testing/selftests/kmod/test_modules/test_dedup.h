/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Interface of the test modules, for each other and for the test programs.
 */
#ifndef TEST_DEDUP_H
#define TEST_DEDUP_H

#include <linux/ioctl.h>

/*
 * ioctl(2) on /dev/test_dedup_request: the argument is the name of a module,
 * the result that of request_module() or request_module_nowait().
 */
#define TEST_DEDUP_REQUEST		_IO('D', 1)
#define TEST_DEDUP_REQUEST_NOWAIT	_IO('D', 2)

#ifdef __KERNEL__
int test_dedup_symbol(void);
#endif

#endif
