// SPDX-License-Identifier: GPL-2.0

//! Who waits for whom.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    task::{
        Pid,
        TASK_COMM_LEN, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

/// A task that loads or requests a module, as it was when it began to. It may be gone when this is
/// looked at.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    /// In the initial namespace, as the log has it.
    pid: Pid,
    comm: [u8; TASK_COMM_LEN],
    since: Instant<Monotonic>,
}

impl Caller {
    /// The task that calls this, now.
    pub(crate) fn current() -> Self {
        Self {
            pid: current!().pid(),
            comm: current!().comm(),
            since: Instant::now(),
        }
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Delta {
        self.since.elapsed()
    }
}

/// The name of the task, which it may have given itself, escaped where it cannot be printed; and
/// its number.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comm = self.comm.split(|byte| *byte == 0).next().unwrap_or(&[]);

        f.write_fmt(fmt!("{}[{}]", BStr::from_bytes(comm), self.pid))
    }
}
