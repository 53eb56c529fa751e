// SPDX-License-Identifier: GPL-2.0

//! Audit records, of which a system call has at most one.

use std::{cell::Cell, ffi::CStr};

use crate::{base, task};

base::thread_local! {
    static RECORDS: Cell<u32> = Cell::new(0);
}

/// Adds the name of a module to the record of the current system call.
pub fn log_kern_module(_: &CStr) {
    task::assert_unlocked("allocates");
    RECORDS.with(|records| {
        records.set(records.get() + 1);
        assert_eq!(records.get(), 1, "a second audit record replaces the first");
    });
}

/// Makes a system call. Returns also whether it has recorded a module.
pub fn syscall<T>(f: impl FnOnce() -> T) -> (T, bool) {
    // A model may call from within a call, where the kernel would start a process.
    let outer = RECORDS.with(Cell::take);
    let value = f();

    (value, RECORDS.with(|records| records.replace(outer)) == 1)
}
