// SPDX-License-Identifier: GPL-2.0

//! The task that runs: its locks, its signals, its luck with memory.

use loom::sync::{Arc, Condvar, Mutex};
use std::cell::{Cell, RefCell};

use crate::error::{Result, ENOMEM};

pub type Pid = i32;

pub const TASK_COMM_LEN: usize = 16;

/// The task that runs, as far as others see it.
pub struct Task;

impl Task {
    pub fn pid(&self) -> Pid {
        1
    }

    pub fn comm(&self) -> [u8; TASK_COMM_LEN] {
        [0; TASK_COMM_LEN]
    }
}

#[macro_export]
macro_rules! current {
    () => {
        $crate::task::Task
    };
}

loom::thread_local! {
    static SPINLOCKS: Cell<u32> = Cell::new(0);
    static FAIL_NEXT_ALLOCATION: Cell<bool> = Cell::new(false);
    static SIGNALS: RefCell<Option<Signals>> = RefCell::new(None);
}

pub(crate) fn spinlocks(change: i32) {
    SPINLOCKS.with(|held| held.set(held.get().checked_add_signed(change).unwrap()));
}

pub(crate) fn assert_may_sleep(what: &str) {
    SPINLOCKS.with(|held| assert_eq!(held.get(), 0, "a task {what} under a spinlock"));
}

/// Makes the next allocation of this task fail.
pub fn fail_next_allocation() {
    FAIL_NEXT_ALLOCATION.with(|fail| fail.set(true));
}

pub(crate) fn allocation() -> Result {
    match FAIL_NEXT_ALLOCATION.with(|fail| fail.replace(false)) {
        true => Err(ENOMEM),
        false => Ok(()),
    }
}

/// What a completion keeps: whether it is done, and who sleeps until then.
#[derive(Default)]
pub(crate) struct WaitQueue {
    pub(crate) done: Mutex<bool>,
    pub(crate) wake: Condvar,
}

#[derive(Default)]
struct SignalState {
    pending: bool,
    asleep_on: Option<Arc<WaitQueue>>,
}

/// The signals of one task, to be sent from another.
#[derive(Clone, Default)]
pub struct Signals(Arc<Mutex<SignalState>>);

impl Signals {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes these the signals of the task that calls.
    pub fn adopt(self) {
        SIGNALS.with(|mine| *mine.borrow_mut() = Some(self));
    }

    /// Sends a signal: the task wakes up if it sleeps, and does not fall asleep any more.
    pub fn send(&self) {
        let mut state = self.0.lock().unwrap();
        state.pending = true;
        let asleep_on = state.asleep_on.take();
        drop(state);

        if let Some(queue) = asleep_on {
            // Who holds this lock has not fallen asleep yet.
            drop(queue.done.lock().unwrap());
            queue.wake.notify_all();
        }
    }

    /// Whether a signal is pending; if not, one that comes wakes whoever sleeps on `queue`.
    fn pending_or_asleep_on(&self, queue: &Arc<WaitQueue>) -> bool {
        let mut state = self.0.lock().unwrap();

        if !state.pending {
            state.asleep_on = Some(queue.clone());
        }
        state.pending
    }
}

/// [`Signals::pending_or_asleep_on`] of the task that calls.
pub(crate) fn signal_pending_or_asleep_on(queue: &Arc<WaitQueue>) -> bool {
    SIGNALS.with(|mine| match &*mine.borrow() {
        Some(signals) => signals.pending_or_asleep_on(queue),
        None => false,
    })
}

/// To be called when a task no longer sleeps on anything.
pub(crate) fn awake() {
    SIGNALS.with(|mine| {
        if let Some(signals) = &*mine.borrow() {
            signals.0.lock().unwrap().asleep_on = None;
        }
    });
}
