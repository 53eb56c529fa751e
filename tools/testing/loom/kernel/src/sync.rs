// SPDX-License-Identifier: GPL-2.0

//! Locks, references, completions.

use loom::{
    cell::UnsafeCell,
    sync::{
        atomic::{AtomicU32, Ordering},
        Mutex, MutexGuard,
    },
};
use std::{
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

use crate::{
    error::{Result, ERESTARTSYS},
    init::{Init, PinInit},
    task::{self, WaitQueue},
};

pub use crate::new_spinlock;
pub use loom::sync::Arc;

/// Atomics, all of them relaxed.
pub mod atomic {
    pub mod ordering {
        pub struct Relaxed;
    }

    use loom::sync::atomic::{AtomicU32, Ordering};
    use ordering::Relaxed;
    use std::marker::PhantomData;

    /// An `Atomic<u32>`: there are no others.
    pub struct Atomic<T>(AtomicU32, PhantomData<T>);

    impl Atomic<u32> {
        pub fn new(value: u32) -> Self {
            Self(AtomicU32::new(value), PhantomData)
        }

        pub fn load(&self, _: Relaxed) -> u32 {
            self.0.load(Ordering::Relaxed)
        }

        pub fn add(&self, value: u32, _: Relaxed) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        pub fn fetch_sub(&self, value: u32, _: Relaxed) -> u32 {
            self.0.fetch_sub(value, Ordering::Relaxed)
        }
    }
}

/// A borrow of what an [`Arc`] holds, from which there is a way back to the [`Arc`].
pub struct ArcBorrow<'a, T>(pub(crate) &'a Arc<T>);

impl<T> Deref for ArcBorrow<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

impl<T> From<ArcBorrow<'_, T>> for Arc<T> {
    fn from(borrow: ArcBorrow<'_, T>) -> Self {
        borrow.0.clone()
    }
}

pub struct SpinLock<T>(Mutex<T>);

impl<T> SpinLock<T> {
    pub fn new(value: T) -> impl PinInit<Self> {
        Init(move || Ok(Self(Mutex::new(value))))
    }

    pub fn lock(&self) -> Guard<'_, T> {
        let guard = self.0.lock().unwrap();

        task::spinlocks(1);
        Guard(guard)
    }
}

#[macro_export]
macro_rules! new_spinlock {
    ($value:expr, $name:literal) => {
        $crate::sync::SpinLock::new($value)
    };
}

pub struct Guard<'a, T>(MutexGuard<'a, T>);

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        task::spinlocks(-1);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// As in the kernel, complete_all() and the waits take the lock of the completion.
pub struct Completion(Arc<WaitQueue>);

impl Completion {
    pub fn new() -> impl PinInit<Self> {
        Init(|| Ok(Self(Arc::default())))
    }

    pub fn complete_all(&self) {
        task::assert_may_sleep("wakes others");
        *self.0.done.lock().unwrap() = true;
        self.0.wake.notify_all();
    }

    /// The only signals here are fatal.
    pub fn wait_for_completion_killable(&self) -> Result {
        self.wait_for_completion_interruptible()
    }

    pub fn wait_for_completion_interruptible(&self) -> Result {
        task::assert_may_sleep("sleeps");

        let mut done = self.0.done.lock().unwrap();
        let mut result = Ok(());
        while !*done {
            if task::signal_pending_or_asleep_on(&self.0) {
                result = Err(ERESTARTSYS);
                break;
            }
            done = self.0.wake.wait(done).unwrap();
        }
        drop(done);
        task::awake();
        result
    }
}

/// The kernel's, with the same orderings.
pub struct SetOnce<T> {
    init: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: The value is written once, before `init` says so, and only read after that.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}

impl<T: Copy> SetOnce<T> {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            init: AtomicU32::new(0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    pub fn populate(&self, value: T) -> bool {
        let first = self
            .init
            .compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();

        if first {
            // SAFETY: Only one caller finds 0, and nobody reads before there is a 2.
            self.value.with_mut(|slot| unsafe { (*slot).write(value) });
            self.init.store(2, Ordering::Release);
        }
        first
    }

    pub fn copy(&self) -> Option<T> {
        (self.init.load(Ordering::Acquire) == 2)
            // SAFETY: 2 means that the value was written and is not written again.
            .then(|| self.value.with(|slot| unsafe { (*slot).assume_init() }))
    }
}
