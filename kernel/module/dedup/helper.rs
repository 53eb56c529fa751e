// SPDX-License-Identifier: GPL-2.0

//! modprobe processes that the kernel starts, and the processes that descend from them.

use kernel::task::{
    Pid,
    Task, //
};

/// A usermode helper: a process whose parent is a kernel thread. Other such processes count as
/// helpers, too, but no task waits for them.
///
/// A TGID can be reused, but not with the same start time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Helper {
    /// Thread group ID, in the initial PID namespace.
    pub(crate) tgid: Pid,
    /// Start time, in nanoseconds since boot.
    start: u64,
}

impl Helper {
    /// Maximum number of processes to visit, from the task to its helper; bounds the time under a
    /// spinlock. No configuration of modprobe comes near it.
    const MAX_GENERATIONS: usize = 64;

    /// Returns the helper that `task` is or descends from: the process whose parent is a kernel
    /// thread, unless that is init.
    ///
    /// Returns [`None`] for kernel threads, for tasks that have been released, and if the helper is
    /// not among the first [`Helper::MAX_GENERATIONS`] processes from `task` on.
    ///
    /// May be called from any context.
    pub(crate) fn of(task: &Task) -> Option<Self> {
        let mut helper = None;
        let mut generations = 0;

        task.find_ancestor(|ancestor| {
            if ancestor.is_kthread() {
                return Some(helper);
            }
            helper = ancestor.group_start_boottime().map(|start| Self {
                tgid: ancestor.tgid(),
                start,
            });
            generations += 1;
            (generations > Self::MAX_GENERATIONS).then_some(None)
        })
        .flatten()
        .filter(|helper| helper.tgid != 1)
    }
}
