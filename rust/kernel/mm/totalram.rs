// SPDX-License-Identifier: GPL-2.0

//! The amount of memory of the machine.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::bindings;

/// Returns the number of pages that the page allocator manages.
///
/// This is the upper bound of what can be allocated, not what is free. It changes with memory
/// hotplug and balloon drivers. May be called from any context.
///
/// # Examples
///
/// ```
/// use kernel::mm::totalram_pages;
///
/// assert!(totalram_pages() > 0);
/// ```
#[inline]
pub fn totalram_pages() -> usize {
    // SAFETY: FFI call with no safety requirements.
    unsafe { bindings::totalram_pages() }
}
