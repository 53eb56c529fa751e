/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Module load deduplication: what C and Rust see of each other.
 *
 * The Rust side is kernel/module/dedup.rs, where each function is documented.
 */
#ifndef _MODULE_DEDUP_H
#define _MODULE_DEDUP_H

#include <linux/compiler_types.h>

struct file;

/* Called by Rust. */
int init_module_from_file(struct file *f, const char __user *uargs, int flags);

/* Called by C. */
int module_dedup_load_file(struct file *file, const char __user *uargs, int flags);

#ifdef CONFIG_MODULE_DEDUP_RUST
void module_dedup_init(void);
#else
static inline void module_dedup_init(void) { }
#endif

#endif /* _MODULE_DEDUP_H */
