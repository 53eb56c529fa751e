// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of waits and of rejected loads. `include/trace/events/module_dedup.h` has their
//! formats.

use kernel::{
    prelude::*,
    str::CStr,
    task::Pid,
    time::Delta,
    tracepoint::declare_trace, //
};

use crate::{
    target::Target,
    task::TaskId, //
};

declare_trace! {
    fn module_dedup_wait_begin(
        kind: c_uint,
        name: &CStr,
        dev: u32,
        ino: u64,
        owner: Pid,
        comm: &CStr,
    );

    #[allow(clippy::too_many_arguments)]
    fn module_dedup_wait_end(
        kind: c_uint,
        name: &CStr,
        dev: u32,
        ino: u64,
        owner: Pid,
        comm: &CStr,
        result: c_int,
        waited_us: i64,
    );

    fn module_dedup_already_loaded(kind: c_uint, name: &CStr, dev: u32, ino: u64, error: c_int);
    fn module_dedup_pending(kind: c_uint, name: &CStr, dev: u32, ino: u64, error: c_int);
    fn module_dedup_deadlock(kind: c_uint, name: &CStr, dev: u32, ino: u64, error: c_int);
}

/// Splits a target into the fields of the events: its kind, numbered as in
/// `show_module_dedup_kind()`, and its name or device and inode number.
fn fields(target: &Target) -> (c_uint, &CStr, u32, u64) {
    match target {
        Target::File { dev, ino } => (0, c"", *dev, *ino),
        Target::Module(name) => (1, name.as_c_str(), 0, 0),
        Target::Request(name) => (2, name.as_c_str(), 0, 0),
    }
}

/// The current task begins to wait for `target`, which `owner` loads or requests.
pub(crate) fn wait_begin(target: &Target, owner: &TaskId) {
    let (kind, name, dev, ino) = fields(target);

    module_dedup_wait_begin(kind, name, dev, ino, owner.pid(), owner.comm());
}

/// The wait of the current task ended with `result`.
pub(crate) fn wait_end(target: &Target, owner: &TaskId, result: c_int, waited: Delta) {
    let (kind, name, dev, ino) = fields(target);
    let waited_us = waited.as_micros_ceil();

    module_dedup_wait_end(
        kind,
        name,
        dev,
        ino,
        owner.pid(),
        owner.comm(),
        result,
        waited_us,
    );
}

/// A load is rejected: a module of its name is live.
pub(crate) fn already_loaded(target: &Target, error: Error) {
    let (kind, name, dev, ino) = fields(target);

    module_dedup_already_loaded(kind, name, dev, ino, error.to_errno());
}

/// A load is rejected: another load of the same file or name was pending.
pub(crate) fn pending(target: &Target, error: Error) {
    let (kind, name, dev, ino) = fields(target);

    module_dedup_pending(kind, name, dev, ino, error.to_errno());
}

/// A wait is rejected: it would deadlock.
pub(crate) fn deadlock(target: &Target) {
    let (kind, name, dev, ino) = fields(target);

    module_dedup_deadlock(kind, name, dev, ino, EDEADLK.to_errno());
}
