// SPDX-License-Identifier: GPL-2.0

//! Tracepoints: waits that begin and end, and loads that are refused. Their formats are in
//! `include/trace/events/module_dedup.h`.

use kernel::{
    prelude::*,
    task::Pid,
    time::Delta,
    tracepoint::declare_trace, //
};

use crate::{
    key::Subject,
    waits::Caller, //
};

declare_trace! {
    /// # Safety
    ///
    /// `name` must point to a string, and `comm` to `TASK_COMM_LEN` bytes with a NUL among them.
    unsafe fn module_dedup_wait(
        kind: c_uint,
        name: *const c_char,
        device: u32,
        number: u64,
        owner: Pid,
        comm: *const c_char,
    );

    /// # Safety
    ///
    /// As [`module_dedup_wait`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn module_dedup_done(
        kind: c_uint,
        name: *const c_char,
        device: u32,
        number: u64,
        owner: Pid,
        comm: *const c_char,
        result: c_int,
        microseconds: i64,
    );

    /// # Safety
    ///
    /// `name` must point to a string.
    unsafe fn module_dedup_refused(
        kind: c_uint,
        name: *const c_char,
        device: u32,
        number: u64,
        reason: c_uint,
        error: c_int,
    );
}

/// Why a load is refused.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// A module of that name is live, or being unloaded.
    Late = 0,
    /// Another load of the same was pending.
    Pending = 1,
    /// It would wait for itself.
    Circle = 2,
}

/// A subject in the words of C: its kind, as `show_module_dedup_kind()` numbers them, its name,
/// device and inode number. What a kind has not is empty or 0.
fn fields(subject: &Subject) -> (c_uint, *const c_char, u32, u64) {
    match subject {
        Subject::File(device, number) => (0, c"".as_char_ptr(), *device, *number),
        Subject::Module(name) => (1, name.as_ptr(), 0, 0),
        Subject::Request(name) => (2, name.as_ptr(), 0, 0),
    }
}

/// The current task begins to wait for what `owner` loads or requests.
pub(crate) fn wait(subject: Subject, owner: &Caller) {
    let (kind, name, device, number) = fields(&subject);

    // SAFETY: The strings are in `subject` and `owner`, and end with a NUL.
    unsafe { module_dedup_wait(kind, name, device, number, owner.pid(), owner.comm()) };
}

/// That wait is over.
pub(crate) fn done(subject: Subject, owner: &Caller, result: c_int, waited: Delta) {
    let (kind, name, device, number) = fields(&subject);
    let microseconds = waited.as_micros_ceil();

    // SAFETY: As above.
    unsafe {
        module_dedup_done(
            kind,
            name,
            device,
            number,
            owner.pid(),
            owner.comm(),
            result,
            microseconds,
        )
    };
}

/// The current task is told with `error` that it does not load, or request, `subject`.
pub(crate) fn refused(subject: Subject, reason: Reason, error: Error) {
    let (kind, name, device, number) = fields(&subject);

    // SAFETY: The string is in `subject`, and ends with a NUL.
    unsafe {
        module_dedup_refused(
            kind,
            name,
            device,
            number,
            reason as c_uint,
            error.to_errno(),
        )
    };
}
