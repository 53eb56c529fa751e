// SPDX-License-Identifier: GPL-2.0

//! The task that runs: its locks, its signals, its luck with memory.

use loom::sync::{Arc, Condvar, Mutex};
use std::{
    cell::{Cell, RefCell},
    ops::Deref,
};

use crate::error::{Result, ENOMEM};

pub type Pid = i32;

pub const TASK_COMM_LEN: usize = 16;

/// A task, as far as others see it. Each has a process of its own.
#[derive(Clone)]
pub struct Task {
    pid: Pid,
    is_kthread: bool,
    parent: Option<Box<Task>>,
    signals: Option<Signals>,
}

impl Task {
    fn new(pid: Pid, is_kthread: bool, parent: Option<Task>) -> Self {
        Self {
            pid,
            is_kthread,
            parent: parent.map(Box::new),
            signals: None,
        }
    }

    /// The task that calls this.
    pub fn current() -> Current {
        let mut task = TASK.with(|task| task.borrow().clone());

        task.signals = SIGNALS.with(|signals| signals.borrow().clone());
        Current(task)
    }

    /// Makes the task that calls a helper of the kernel: its parent is a thread of the kernel.
    pub fn become_helper() {
        TASK.with(|task| task.borrow_mut().parent = Some(Box::new(Task::new(2, true, None))));
    }

    /// Makes the task that calls a child of `parent`.
    pub fn become_child_of(parent: Task) {
        TASK.with(|task| task.borrow_mut().parent = Some(Box::new(parent)));
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn tgid(&self) -> Pid {
        self.pid
    }

    /// Tells it from others, as its address does.
    pub fn as_ptr(&self) -> *mut () {
        core::ptr::without_provenance_mut(self.pid as usize)
    }

    pub fn comm(&self) -> [u8; TASK_COMM_LEN] {
        [0; TASK_COMM_LEN]
    }

    pub fn is_kthread(&self) -> bool {
        self.is_kthread
    }

    pub fn group_start_boottime(&self) -> Option<u64> {
        Some(0)
    }

    pub fn find_ancestor<T>(&self, mut f: impl FnMut(&Task) -> Option<T>) -> Option<T> {
        let mut task = Some(self);

        while let Some(this) = task {
            if let Some(found) = f(this) {
                return Some(found);
            }
            task = this.parent.as_deref();
        }
        None
    }

    pub fn signal_pending(&self) -> bool {
        self.signals
            .as_ref()
            .is_some_and(|signals| signals.0.lock().unwrap().pending)
    }

    /// The only signals here are fatal.
    pub fn fatal_signal_pending(&self) -> bool {
        self.signal_pending()
    }
}

/// What keeps a [`Task`].
#[derive(Clone)]
pub struct ARef<T>(T);

impl From<&Task> for ARef<Task> {
    fn from(task: &Task) -> Self {
        Self(task.clone())
    }
}

impl<T> Deref for ARef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// As in the kernel, a type of its own.
pub struct Current(Task);

impl Deref for Current {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.0
    }
}

#[macro_export]
macro_rules! current {
    () => {
        &$crate::task::Task::current()
    };
}

/// A number of the task that calls, the same whenever loom runs it.
fn number() -> Pid {
    let id = format!("{:?}", loom::thread::current().id());
    let digits: String = id.chars().filter(char::is_ascii_digit).collect();

    100 + digits.parse::<Pid>().unwrap()
}

loom::thread_local! {
    static SPINLOCKS: Cell<u32> = Cell::new(0);
    static ALLOCATIONS: Cell<u32> = Cell::new(0);
    static TASK: RefCell<Task> = RefCell::new(Task::new(
        number(),
        false,
        Some(Task::new(1, false, Some(Task::new(0, true, None)))),
    ));
    static SIGNALS: RefCell<Option<Signals>> = RefCell::new(None);
}

pub(crate) fn spinlocks(change: i32) {
    SPINLOCKS.with(|held| held.set(held.get().checked_add_signed(change).unwrap()));
}

pub(crate) fn assert_may_sleep(what: &str) {
    SPINLOCKS.with(|held| assert_eq!(held.get(), 0, "a task {what} under a spinlock"));
}

/// Makes the `nth` allocation of this task from now on fail, or none if that is 0.
pub fn fail_allocation(nth: u32) {
    ALLOCATIONS.with(|left| left.set(nth));
}

/// Whether there was no such allocation yet.
pub fn is_to_fail() -> bool {
    ALLOCATIONS.with(|left| left.get() != 0)
}

pub(crate) fn allocation() -> Result {
    match ALLOCATIONS.with(|left| left.replace(left.get().saturating_sub(1))) {
        1 => Err(ENOMEM),
        _ => Ok(()),
    }
}

/// What a completion keeps: whether it is done, and who sleeps until then. It outlives the
/// completion, so that a use after that was freed is seen for what it is.
#[derive(Default)]
pub(crate) struct WaitQueue {
    pub(crate) done: Mutex<bool>,
    pub(crate) wake: Condvar,
    /// Whether the completion is freed.
    pub(crate) freed: Cell<bool>,
}

// SAFETY: loom runs one task at a time, all of them in one thread.
unsafe impl Sync for WaitQueue {}

#[derive(Default)]
struct SignalState {
    pending: bool,
    asleep_on: Option<std::sync::Arc<WaitQueue>>,
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
    fn pending_or_asleep_on(&self, queue: &std::sync::Arc<WaitQueue>) -> bool {
        let mut state = self.0.lock().unwrap();

        if !state.pending {
            state.asleep_on = Some(queue.clone());
        }
        state.pending
    }
}

/// [`Signals::pending_or_asleep_on`] of the task that calls.
pub(crate) fn signal_pending_or_asleep_on(queue: &std::sync::Arc<WaitQueue>) -> bool {
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
