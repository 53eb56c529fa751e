// SPDX-License-Identifier: GPL-2.0

#include <linux/audit.h>

__rust_helper void rust_helper_audit_log_kern_module(const char *name)
{
	audit_log_kern_module(name);
}
