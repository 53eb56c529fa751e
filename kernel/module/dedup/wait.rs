// SPDX-License-Identifier: GPL-2.0

//! How a task waits: which signals end the wait, how long it lasts, and why it fails.

use kernel::{
    prelude::*,
    task::Task, //
};

/// The signals that end a wait.
#[derive(Clone, Copy)]
pub(crate) enum WaitMode {
    /// Any signal.
    Interruptible,
    /// A fatal signal.
    Killable,
}

impl WaitMode {
    /// Returns whether a signal that ends the wait is pending for `task`.
    pub(crate) fn has_signal(self, task: &Task) -> bool {
        match self {
            Self::Interruptible => task.signal_pending(),
            Self::Killable => task.fatal_signal_pending(),
        }
    }
}

/// The limit of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the owner completes.
    Unlimited,
    /// Until the owner completes, or for a few seconds if its module has not joined the module list
    /// by then: nothing about the image has been verified, and it may never arrive.
    UntilListed,
}

/// Why a wait failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitError {
    /// A signal came first.
    Signal,
    /// The wait would have completed a cycle.
    Deadlock,
    /// The task did not want to wait any longer.
    Timeout,
}

impl From<WaitError> for Error {
    fn from(err: WaitError) -> Self {
        match err {
            // The system call restarts, unless a handler without SA_RESTART runs.
            WaitError::Signal => ERESTARTSYS,
            WaitError::Deadlock => EDEADLK,
            WaitError::Timeout => ETIMEDOUT,
        }
    }
}
