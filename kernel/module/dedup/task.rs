// SPDX-License-Identifier: GPL-2.0

//! The identity of a task that loads or requests a module, or waits.

use kernel::{
    fmt,
    prelude::*,
    str::{
        BStr,
        CStr, //
    },
    task::{
        Pid,
        TASK_COMM_LEN, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// Hashes `value` to a bucket number, like `hash_64()` of `include/linux/hash.h`: the
/// multiplication moves the bits that differ to the top.
pub(crate) fn bucket_of(value: u64) -> u8 {
    const GOLDEN_RATIO_64: u64 = 0x61c8_8646_80b5_83eb;

    (value.wrapping_mul(GOLDEN_RATIO_64) >> (u64::BITS - u8::BITS)) as u8
}

/// The identity of a task that loads, requests or waits, taken when it began. The task may have
/// exited since.
#[derive(Clone, Copy)]
pub(crate) struct TaskId {
    /// In the initial PID namespace, as in the log.
    pid: Pid,
    /// Hash of the address of the `task_struct`, which user space cannot choose.
    bucket: u8,
    /// Name of the task, with a NUL.
    comm: [u8; TASK_COMM_LEN],
    /// When the identity was taken.
    start: Instant<Monotonic>,
}

impl TaskId {
    /// Returns the identity of the current task.
    pub(crate) fn current() -> Self {
        let task = current!();

        Self {
            pid: task.pid(),
            bucket: bucket_of(task.as_ptr().addr() as u64),
            comm: task.comm(),
            start: Instant::now(),
        }
    }

    /// Returns the PID of the task, in the initial PID namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the hash bucket of the task.
    pub(crate) fn bucket(&self) -> u8 {
        self.bucket
    }

    /// Returns the name that the task had at that time.
    pub(crate) fn comm(&self) -> &CStr {
        // Task::comm() always has a NUL.
        CStr::from_bytes_until_nul(&self.comm).unwrap_or_default()
    }

    /// Returns the time since the identity was taken.
    pub(crate) fn age(&self) -> Delta {
        self.start.elapsed()
    }

    /// Returns the identity of a task that does not exist, for tests.
    #[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
    pub(crate) fn with_pid(pid: Pid) -> Self {
        Self {
            pid,
            bucket: bucket_of(pid as u64),
            ..Self::current()
        }
    }
}

/// Shows the name and the PID. The name is escaped: the task itself may have chosen it.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comm = BStr::from_bytes(self.comm().to_bytes());

        f.write_fmt(fmt!("{comm}[{}]", self.pid))
    }
}
