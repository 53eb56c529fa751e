// SPDX-License-Identifier: GPL-2.0

//! Audit records.
//!
//! C header: [`include/linux/audit.h`](srctree/include/linux/audit.h)

use crate::{
    bindings,
    prelude::*, //
};

/// Adds the name of a kernel module to the audit record of the current system call.
///
/// Must be called at most once in a system call that loads or unloads a module: a second call
/// replaces the name and leaks the memory of the first.
///
/// May sleep, as it allocates memory. If the allocation fails, the name is lost and the audit code
/// logs that. Does nothing if the current task is not audited, or if the kernel was built without
/// `CONFIG_AUDITSYSCALL`.
///
/// # Examples
///
/// ```
/// use kernel::audit;
///
/// // A kernel thread is not in a system call, so there is no record to add to.
/// audit::log_kern_module(c"example");
/// ```
pub fn log_kern_module(name: &CStr) {
    // SAFETY: `name` is a valid C string, which is copied.
    unsafe { bindings::audit_log_kern_module(name.as_char_ptr()) }
}
