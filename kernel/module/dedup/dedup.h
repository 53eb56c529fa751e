/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Module load deduplication: the interface between the loader in C and
 * kernel/module/dedup/ in Rust. ffi.rs documents the functions that C calls.
 */
#ifndef _MODULE_DEDUP_H
#define _MODULE_DEDUP_H

#include <linux/compiler_types.h>
#include <linux/fs.h>
#include <linux/moduleloader.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/umh.h>
#include <uapi/linux/module.h>

struct cred;
struct dentry;

/* A load in Rust, which the loader passes through in struct load_info. */
struct module_dedup_load;

/*
 * The loader
 */

/* Read a module and load it. Both return 0 or a negative errno, and may sleep. */
int module_init_from_file(struct file *f, const char __user *uargs, int flags,
			  struct module_dedup_load *dedup);
int module_init_from_memory(void __user *umod, unsigned long len, const char __user *uargs,
			    struct module_dedup_load *dedup);

/*
 * Returns 0, -EEXIST if the module is live, -EBUSY if it is going or failed to
 * load, or -ERESTARTSYS on a signal during the wait. Sleeps.
 */
int module_check_duplicate(const char *name);

#ifdef CONFIG_MODULE_DEDUP_RUST

/* module.dedup=, see Documentation/admin-guide/module-dedup.rst. */
enum module_dedup_mode {
	MODULE_DEDUP_FULL,
	MODULE_DEDUP_INODE,
	MODULE_DEDUP_EARLY,
	MODULE_DEDUP_NONE,
};

/* Set while the command line is parsed. */
extern enum module_dedup_mode module_dedup_mode;

/*
 * Runs modprobe in one of its MAX_KMOD_CONCURRENT slots. Returns the status of
 * modprobe or a negative errno: -ETIME if no slot is free for 5 s. Sleeps.
 */
int module_dedup_modprobe(char *module_name, bool wait);
/* Logs a duplicate request_module(). */
void module_dedup_warn_duplicate(const char *module_name);

/* Counters in Rust that shim.c bumps. */
extern atomic_long_t invalid_becoming_bytes;
extern atomic_long_t invalid_mod_bytes;
extern atomic_t failed_becoming;
extern atomic_t failed_load_modules;

/*
 * Rust
 */

int module_dedup_load_file(struct file *file, const char __user *uargs, int flags);
int module_dedup_load_memory(void __user *umod, unsigned long len, const char __user *uargs);
char *module_dedup_args(struct module_dedup_load *load, const char __user *uargs);
void module_dedup_set_image(struct module_dedup_load *load, const void *image, size_t len);
int module_dedup_check_name(struct module_dedup_load *load, const char *name);
void module_dedup_joined_list(struct module_dedup_load *load);
void module_dedup_live(const char *name);
void module_dedup_unload_begin(void);
void module_dedup_going(const char *name);
void module_dedup_unloaded(void);
int module_dedup_request(char *module_name, bool wait);
void *module_dedup_helper_ticket(const char *module_name);
int module_dedup_helper_started(struct subprocess_info *info, struct cred *new);
void module_dedup_helper_end(void *ticket);
void module_dedup_debugfs_init(struct dentry *dir);

/* Must be called before the helper runs. */
static inline void *module_dedup_helper_begin(struct subprocess_info *info,
					      const char *module_name)
{
	info->data = module_dedup_helper_ticket(module_name);
	info->init = module_dedup_helper_started;
	return info->data;
}

static inline int idempotent_init_module(struct file *f, const char __user *uargs, int flags)
{
	if (!(f->f_mode & FMODE_READ))
		return -EBADF;
	return module_dedup_load_file(f, uargs, flags);
}

#else /* !CONFIG_MODULE_DEDUP_RUST */

static inline int module_dedup_load_memory(void __user *umod, unsigned long len,
					   const char __user *uargs)
{
	return module_init_from_memory(umod, len, uargs, NULL);
}

static inline char *module_dedup_args(struct module_dedup_load *load, const char __user *uargs)
{
	return strndup_user(uargs, ~0UL >> 1);
}

static inline void module_dedup_set_image(struct module_dedup_load *load, const void *image,
					  size_t len) { }

static inline int module_dedup_check_name(struct module_dedup_load *load, const char *name)
{
	return module_check_duplicate(name);
}

static inline void module_dedup_joined_list(struct module_dedup_load *load) { }
static inline void module_dedup_live(const char *name) { }
static inline void module_dedup_unload_begin(void) { }
static inline void module_dedup_going(const char *name) { }
static inline void module_dedup_unloaded(void) { }

static inline int module_dedup_request(char *module_name, bool wait)
{
	return -EOPNOTSUPP;
}

static inline void *module_dedup_helper_begin(struct subprocess_info *info,
					      const char *module_name)
{
	return NULL;
}

static inline void module_dedup_helper_end(void *ticket) { }

#endif /* CONFIG_MODULE_DEDUP_RUST */

#endif /* _MODULE_DEDUP_H */
