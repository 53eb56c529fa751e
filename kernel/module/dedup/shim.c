// SPDX-License-Identifier: GPL-2.0
/*
 * Module load deduplication: what only C can do, or does for less.
 */

#define pr_fmt(fmt) "module: " fmt

#include <linux/audit.h>
#include <linux/bug.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/printk.h>
#include <linux/shmem_fs.h>
#include <linux/stat.h>
#include <linux/string.h>
#include <uapi/linux/module.h>

#include "../internal.h"
#include "../dedup.h"

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
		pr_warn("module.dedup=%s is unknown, it stays full\n", val);
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

void module_dedup_audit(const char *module_name)
{
	audit_log_kern_module(module_name);
}

loff_t module_dedup_file_size(const struct file *file)
{
	return i_size_read(file_inode(file));
}

unsigned long module_dedup_totalram_pages(void)
{
	return totalram_pages();
}

/*
 * What is in the page cache of a file, without the way through its file system. That
 * of a disk or of memory says what is in the file; over a network, it may have changed.
 */
static bool read_cached(struct file *file, loff_t pos, void *to, size_t len)
{
	struct folio *folio;
	size_t offset;
	bool is_there;

	if ((file->f_flags & O_DIRECT) ||
	    !(file_inode(file)->i_sb->s_bdev || shmem_mapping(file->f_mapping)))
		return false;
	/* Security modules and watchers of the file have their say, as for any read. */
	if (rw_verify_area(READ, file, &pos, len))
		return false;
	folio = filemap_get_folio(file->f_mapping, pos >> PAGE_SHIFT);
	if (IS_ERR(folio))
		return false;

	offset = offset_in_folio(folio, pos);
	is_there = folio_test_uptodate(folio) && !folio_contain_hwpoisoned_page(folio) &&
		   len <= folio_size(folio) - offset &&
		   pos + len <= i_size_read(file->f_mapping->host);
	if (is_there)
		memcpy_from_folio(to, folio, offset, len);
	folio_put(folio);
	return is_there;
}

/*
 * Only of a regular file can a module be loaded, and only of some of those: to
 * read others could sleep, take what is meant for somebody else, or not be
 * possible for the kernel.
 */
bool module_dedup_read(struct file *file, loff_t pos, void *to, size_t len)
{
	if (!S_ISREG(file_inode(file)->i_mode) || !(file->f_mode & FMODE_CAN_READ))
		return false;
	/* Files of procfs are of that kind; kernel_read() would complain of them in the log. */
	if (!file->f_op->read_iter || file->f_op->read)
		return false;
	/* Those that have no size are not loaded, so what they would give is left to others. */
	if (pos > i_size_read(file_inode(file)) - (loff_t)len)
		return false;

	return read_cached(file, pos, to, len) || kernel_read(file, to, len, &pos) == len;
}

/*
 * A change has to show however soon it comes after the last one. A version does
 * that, and so does a time that is never given twice once it was looked at.
 */
bool module_dedup_file_id(const struct file *file, struct module_dedup_file_id *id)
{
	struct inode *inode = file_inode(file);
	struct kstat stat;

	/* What is written there through a mapping is no change to anybody. */
	if (shmem_mapping(d_real_inode(file->f_path.dentry)->i_mapping))
		return false;

	if (vfs_getattr_nosec(&file->f_path, &stat,
			      STATX_INO | STATX_SIZE | STATX_CTIME | STATX_CHANGE_COOKIE,
			      AT_STATX_SYNC_AS_STAT))
		return false;

	if (stat.result_mask & STATX_CHANGE_COOKIE)
		id->change = stat.change_cookie;
	else if (is_mgtime(inode))
		id->change = timespec64_to_ns(&stat.ctime);
	else
		return false;
	id->device = stat.dev;
	id->number = stat.ino;
	id->generation = inode->i_generation;
	id->size = stat.size;
	return true;
}

#ifdef CONFIG_MODULE_STATS
/* The counters are Rust's. To bump one from Rust costs a call, here it does not. */
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
