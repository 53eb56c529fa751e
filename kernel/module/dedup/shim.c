// SPDX-License-Identifier: GPL-2.0
/*
 * Module load deduplication: module parameters, tracepoints, a WARN() with the
 * address of its caller, and an initcall.
 */

#define pr_fmt(fmt) "module: " fmt

#include <linux/bug.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>
#include <linux/string.h>

#include "../internal.h"
#include "dedup.h"

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/module_dedup.h>

#undef MODULE_PARAM_PREFIX
#define MODULE_PARAM_PREFIX "module."

enum module_dedup_mode module_dedup_mode __ro_after_init;

static const char * const modes[] = {
	[MODULE_DEDUP_FULL] = "full",
	[MODULE_DEDUP_INODE] = "inode",
	[MODULE_DEDUP_EARLY] = "early",
	[MODULE_DEDUP_NONE] = "none",
};

static int set_mode(const char *val, const struct kernel_param *kp)
{
	int mode = sysfs_match_string(modes, val);

	if (mode < 0) {
		pr_warn("unknown value '%s' of module.dedup, using full\n", val);
		mode = MODULE_DEDUP_FULL;
	}
	module_dedup_mode = mode;
	return 0;
}

static int get_mode(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", modes[module_dedup_mode]);
}

static const struct kernel_param_ops mode_ops = {
	.set = set_mode,
	.get = get_mode,
};
module_param_cb(dedup, &mode_ops, NULL, 0400);

#ifdef CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS
static bool enable_dups_trace = IS_ENABLED(CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS_TRACE);
module_param(enable_dups_trace, bool_enable_only, 0644);
#else
#define enable_dups_trace false
#endif

/*
 * Helps to find code that requests a module without checking whether it is
 * loaded already. Any user can trigger requests, so rate-limit the messages.
 */
void module_dedup_warn_duplicate(const char *module_name)
{
	static DEFINE_RATELIMIT_STATE(limit, 10 * HZ, 256);

	if (!__ratelimit(&limit))
		return;
	if (enable_dups_trace)
		WARN(1, "module-autoload: duplicate request for module %s\n", module_name);
	else
		pr_warn("module-autoload: duplicate request for module %s\n", module_name);
}

#ifdef CONFIG_MODULE_STATS
static unsigned long compressed_bytes(struct load_info *info, int flags)
{
#ifdef CONFIG_MODULE_DECOMPRESS
	if (flags & MODULE_INIT_COMPRESSED_FILE)
		return info->compressed_len;
#endif
	return 0;
}

/* The image and the module, which is about as large, were allocated for nothing. */
void mod_stat_bump_invalid(struct load_info *info, int flags)
{
	atomic_long_add(info->len * 2 + compressed_bytes(info, flags), &invalid_mod_bytes);
	atomic_inc(&failed_load_modules);
}

/* Only the image was allocated for nothing. */
void mod_stat_bump_becoming(struct load_info *info, int flags)
{
	atomic_inc(&failed_becoming);
	atomic_long_add(info->len + compressed_bytes(info, flags), &invalid_becoming_bytes);
}
#endif

#ifdef CONFIG_MODULE_DEBUGFS
/*
 * Initcalls of one level run in link order, and main.o, which creates
 * mod_debugfs_root, is linked before this file.
 */
static int __init module_dedup_debugfs(void)
{
	module_dedup_debugfs_init(mod_debugfs_root);
	return 0;
}
module_init(module_dedup_debugfs);
#endif
