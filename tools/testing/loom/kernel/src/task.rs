// SPDX-License-Identifier: GPL-2.0

//! The current task: its identity, its locks, its signals, and the allocation that fails.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    sync::atomic::AtomicBool,
};

use crate::{
    base::{
        self,
        sync::{Arc, Condvar, Mutex},
    },
    error::{Result, ENOMEM, ERESTARTSYS},
    profile::{self, Section},
    sync::lock,
};

pub type Pid = i32;

pub const TASK_COMM_LEN: usize = 16;

/// A task, as far as others see it. Each is a process of its own.
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

    /// Returns the current task.
    pub fn current() -> Current {
        let mut task = TASK.with(|task| task.borrow().clone());

        task.signals = SIGNALS.with(|signals| signals.borrow().clone());
        Current(task)
    }

    /// Makes the current task a helper: its parent is a kernel thread.
    pub fn become_helper() {
        TASK.with(|task| task.borrow_mut().parent = Some(Box::new(Task::new(2, true, None))));
    }

    /// Makes the current task a child of `parent`.
    pub fn become_child_of(parent: Task) {
        TASK.with(|task| task.borrow_mut().parent = Some(Box::new(parent)));
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn tgid(&self) -> Pid {
        self.pid
    }

    /// Returns an address that no other task has.
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
        self.has_signal(WaitMode::Interruptible)
    }

    pub fn fatal_signal_pending(&self) -> bool {
        self.has_signal(WaitMode::Killable)
    }

    fn has_signal(&self, mode: WaitMode) -> bool {
        self.signals
            .as_ref()
            .is_some_and(|signals| signals.0.lock().unwrap().end(mode))
    }
}

/// A counted reference to a [`Task`].
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

/// Returns a number of the current task, the same in each run of loom.
fn number() -> Pid {
    let id = format!("{:?}", base::thread::current().id());
    let digits: String = id.chars().filter(char::is_ascii_digit).collect();
    // A Fibonacci number, so that all tasks share a bucket of a Fibonacci hash: the harder case.
    let step = if cfg!(feature = "loom") { 1597 } else { 1 };

    100 + step * digits.parse::<Pid>().unwrap()
}

base::thread_local! {
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

/// Fails the model if the current task holds a spinlock.
pub(crate) fn assert_unlocked(what: &str) {
    // A model that has already failed shows its first failure.
    if !std::thread::panicking() {
        SPINLOCKS.with(|held| assert_eq!(held.get(), 0, "a task {what} under a spinlock"));
    }
}

/// Makes the `nth` allocation of this task from now on fail, or none if that is 0.
pub fn fail_allocation(nth: u32) {
    ALLOCATIONS.with(|left| left.set(nth));
}

/// Returns whether that allocation is still to come.
pub fn is_to_fail() -> bool {
    ALLOCATIONS.with(|left| left.get() != 0)
}

pub(crate) fn allocation() -> Result {
    match ALLOCATIONS.with(|left| left.replace(left.get().saturating_sub(1))) {
        1 => Err(ENOMEM),
        _ => Ok(()),
    }
}

/// Returns whether other tasks can send signals to this task.
pub fn takes_signals() -> bool {
    SIGNALS.with(|mine| mine.borrow().is_some())
}

/// Which signals end a sleep.
#[derive(Clone, Copy)]
pub(crate) enum WaitMode {
    Interruptible,
    Killable,
}

/// A lock, a flag under it, and the tasks that sleep until a condition holds. It outlives the
/// object that it is a part of, so that a use after free is detected.
#[derive(Default)]
pub(crate) struct WaitQueue {
    pub(crate) lock: Mutex<bool>,
    pub(crate) wake: Condvar,
    /// The object is freed. Not for loom: it is a check.
    pub(crate) freed: AtomicBool,
}

impl WaitQueue {
    /// Sleeps until `condition` of the flag holds, which is evaluated under the lock. Fails with
    /// `ERESTARTSYS` if a signal that `mode` allows comes first.
    pub(crate) fn wait_event(
        self: &std::sync::Arc<Self>,
        mode: WaitMode,
        mut condition: impl FnMut(bool) -> bool,
    ) -> Result {
        assert_unlocked("sleeps");

        profile::write("completions", &**self);
        let (mut flag, is_contended) = lock(&self.lock);
        let mut held = Section::new(("completion", "wait"), is_contended);
        let mut result = Ok(());
        while !condition(*flag) {
            if signal_pending_or_asleep_on(self, mode) {
                result = Err(ERESTARTSYS);
                break;
            }
            drop(held);
            flag = self.wake.wait(flag).unwrap();
            held = Section::new(("completion", "wait"), false);
            profile::woken();
        }
        drop((flag, held));
        awake();
        result
    }
}

#[derive(Default)]
struct SignalState {
    pending: bool,
    killed: bool,
    asleep_on: Option<std::sync::Arc<WaitQueue>>,
}

impl SignalState {
    /// Returns whether these signals end a sleep.
    fn end(&self, mode: WaitMode) -> bool {
        match mode {
            WaitMode::Interruptible => self.pending || self.killed,
            WaitMode::Killable => self.killed,
        }
    }
}

/// The signals of one task, which another task can send.
#[derive(Clone, Default)]
pub struct Signals(Arc<Mutex<SignalState>>);

impl Signals {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes these the signals of the current task.
    pub fn adopt(self) {
        SIGNALS.with(|mine| *mine.borrow_mut() = Some(self));
    }

    /// Sends a signal that is not fatal.
    pub fn send(&self) {
        self.wake(|state| state.pending = true);
    }

    /// Sends a fatal signal.
    pub fn kill(&self) {
        self.wake(|state| state.killed = true);
    }

    /// Wakes the task if it sleeps; it decides whether it sleeps again.
    fn wake(&self, change: impl FnOnce(&mut SignalState)) {
        let mut state = self.0.lock().unwrap();
        change(&mut state);
        let asleep_on = state.asleep_on.take();
        drop(state);

        if let Some(queue) = asleep_on {
            // A task that holds this lock has not fallen asleep yet.
            drop(queue.lock.lock().unwrap());
            queue.wake.notify_all();
        }
    }

    /// Returns whether a signal that ends the sleep is pending. If not, the next signal wakes the
    /// tasks that sleep on `queue`.
    fn pending_or_asleep_on(&self, queue: &std::sync::Arc<WaitQueue>, mode: WaitMode) -> bool {
        let mut state = self.0.lock().unwrap();
        let end = state.end(mode);

        if !end {
            state.asleep_on = Some(queue.clone());
        }
        end
    }
}

/// [`Signals::pending_or_asleep_on`] of the current task.
fn signal_pending_or_asleep_on(queue: &std::sync::Arc<WaitQueue>, mode: WaitMode) -> bool {
    SIGNALS.with(|mine| match &*mine.borrow() {
        Some(signals) => signals.pending_or_asleep_on(queue, mode),
        None => false,
    })
}

/// The current task no longer sleeps.
fn awake() {
    SIGNALS.with(|mine| {
        if let Some(signals) = &*mine.borrow() {
            signals.0.lock().unwrap().asleep_on = None;
        }
    });
}
