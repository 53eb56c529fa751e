// SPDX-License-Identifier: GPL-2.0
/*
 * Module load deduplication: what only C can do, or does for less.
 */

#define pr_fmt(fmt) "module: " fmt

#include <linux/bug.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <uapi/linux/module.h>

#include "../internal.h"
#include "../dedup.h"

#undef MODULE_PARAM_PREFIX
#define MODULE_PARAM_PREFIX "module."

#ifdef CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS
static bool enable_dups_trace = IS_ENABLED(CONFIG_MODULE_DEBUG_AUTOLOAD_DUPS_TRACE);
module_param(enable_dups_trace, bool_enable_only, 0644);
#else
#define enable_dups_trace false
#endif

/*
 * Whoever asks for a module again and again, without a look at whether it is
 * there, is to be found: with a stack trace, if one is wanted.
 */
void module_dedup_warn_duplicate(const char *module_name)
{
	if (enable_dups_trace)
		WARN(1, "module-autoload: duplicate request for module %s\n", module_name);
	else
		pr_warn("module-autoload: duplicate request for module %s\n", module_name);
}

loff_t module_dedup_file_size(const struct file *file)
{
	return i_size_read(file_inode(file));
}

#ifdef CONFIG_MODULE_STATS
/* The counters are Rust's. To bump one from Rust costs a call, here it does not. */
extern atomic_long_t invalid_becoming_bytes;
extern atomic_long_t invalid_mod_bytes;
extern atomic_t failed_becoming;
extern atomic_t failed_load_modules;

static unsigned long compressed_bytes(struct load_info *info, int flags)
{
#ifdef CONFIG_MODULE_DECOMPRESS
	if (flags & MODULE_INIT_COMPRESSED_FILE)
		return info->compressed_len;
#endif
	return 0;
}

/* The image and the module, which is about as large, were allocated in vain. */
void mod_stat_bump_invalid(struct load_info *info, int flags)
{
	atomic_long_add(info->len * 2 + compressed_bytes(info, flags), &invalid_mod_bytes);
	atomic_inc(&failed_load_modules);
}

/* The image was. */
void mod_stat_bump_becoming(struct load_info *info, int flags)
{
	atomic_inc(&failed_becoming);
	atomic_long_add(info->len + compressed_bytes(info, flags), &invalid_becoming_bytes);
}
#endif

#ifdef CONFIG_MODULE_DEBUGFS
/* After mod_debugfs_root is made, which is the same level of initcalls, but linked before. */
static int __init module_dedup_debugfs(void)
{
	module_dedup_debugfs_init(mod_debugfs_root);
	return 0;
}
module_init(module_dedup_debugfs);
#endif
