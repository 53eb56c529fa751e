/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Module load deduplication: what C and Rust see of each other.
 *
 * The Rust side is kernel/module/dedup.rs, where each function is documented.
 */
#ifndef _MODULE_DEDUP_H
#define _MODULE_DEDUP_H

#include <linux/compiler_types.h>
#include <linux/types.h>

struct dentry;
struct file;

/* What a load in Rust is to C, which hands it through in struct load_info. */
struct module_dedup_load;

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
loff_t module_dedup_file_size(const struct file *file);

/* Called by C. */
int module_dedup_load_file(struct file *file, const char __user *uargs, int flags);
int module_dedup_load_memory(void __user *umod, unsigned long len, const char __user *uargs);
int module_dedup_request(char *module_name, bool wait);
void module_dedup_debugfs_init(struct dentry *dir);

#ifdef CONFIG_MODULE_DEDUP_RUST
void module_dedup_init(void);
int module_dedup_claim(struct module_dedup_load *load, const char *name);
void module_dedup_unloading(void);
#else
static inline void module_dedup_init(void) { }
static inline int module_dedup_claim(struct module_dedup_load *load, const char *name)
{
	return 0;
}
static inline void module_dedup_unloading(void) { }
#endif

#endif /* _MODULE_DEDUP_H */
