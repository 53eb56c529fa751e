/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Module load deduplication: what C and Rust see of each other.
 *
 * The Rust side is kernel/module/dedup.rs, where each function is documented.
 */
#ifndef _MODULE_DEDUP_H
#define _MODULE_DEDUP_H

#include <linux/compiler_types.h>
#include <linux/moduleloader.h>
#include <linux/types.h>
#include <uapi/linux/module.h>

struct cred;
struct dentry;
struct file;
struct subprocess_info;

/* What a load in Rust is to C, which hands it through in struct load_info. */
struct module_dedup_load;

/* A file and its contents: another "change" says that they may be others. */
struct module_dedup_file_id {
	u64 number;
	u64 change;
	loff_t size;
	u32 device;
	u32 generation;
};

/* module.dedup=, see Documentation/admin-guide/module-dedup.rst. */
enum module_dedup_mode {
	MODULE_DEDUP_FULL,
	MODULE_DEDUP_INODE,
	MODULE_DEDUP_EARLY,
	MODULE_DEDUP_NONE,
};

/* Called by Rust. */
int init_module_from_file(struct file *f, const char __user *uargs, int flags,
			  struct module_dedup_load *dedup);
int init_module_from_memory(void __user *umod, unsigned long len, const char __user *uargs,
			    struct module_dedup_load *dedup);
/* Sleeps until no module of that name is on its way; -ERESTARTSYS if a signal comes. */
int module_wait_finished(const char *name);
/* Calls modprobe in one of its slots, of which there are MAX_KMOD_CONCURRENT. */
int module_dedup_modprobe(char *module_name, bool wait);
/* Reports a duplicate request_module(). */
void module_dedup_warn_duplicate(const char *module_name);
void module_dedup_audit(const char *module_name);
unsigned long module_dedup_totalram_pages(void);
loff_t module_dedup_file_size(const struct file *file);
/* Whether all the bytes could be read. */
bool module_dedup_read(struct file *file, loff_t pos, void *to, size_t len);
/* Whether the file system tells changes apart; if so, fills in *id. */
bool module_dedup_file_id(const struct file *file, struct module_dedup_file_id *id);
/* Counters that nobody but the functions that bump them needs to see. */
extern atomic_long_t invalid_becoming_bytes;
extern atomic_long_t invalid_mod_bytes;
extern atomic_t failed_becoming;
extern atomic_t failed_load_modules;
/* Set at boot, and never again. */
extern enum module_dedup_mode module_dedup_mode;

/* Called by C. */
int module_dedup_load_file(struct file *file, const char __user *uargs, int flags);
int module_dedup_load_memory(void __user *umod, unsigned long len, const char __user *uargs);
/* NULL if there was no memory to copy them; they are still in user space then. */
const char *module_dedup_args(const struct module_dedup_load *load);
int module_dedup_request(char *module_name, bool wait);
void module_dedup_debugfs_init(struct dentry *dir);

#ifdef CONFIG_MODULE_DEDUP_RUST
int module_dedup_claim(struct module_dedup_load *load, const char *name);
void module_dedup_joined(struct module_dedup_load *load);
void module_dedup_before_unload(void);
void module_dedup_unloading(const char *name);
void *module_dedup_helper_begin(const char *module_name);
int module_dedup_helper_started(struct subprocess_info *info, struct cred *new);
void module_dedup_helper_end(void *ticket);
#else
static inline int module_dedup_claim(struct module_dedup_load *load, const char *name)
{
	return 0;
}

static inline void module_dedup_joined(struct module_dedup_load *load) { }
static inline void module_dedup_before_unload(void) { }
static inline void module_dedup_unloading(const char *name) { }

static inline void *module_dedup_helper_begin(const char *module_name)
{
	return NULL;
}

#define module_dedup_helper_started NULL

static inline void module_dedup_helper_end(void *ticket) { }
#endif

#endif /* _MODULE_DEDUP_H */
