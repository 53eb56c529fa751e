// SPDX-License-Identifier: GPL-2.0

//! Locks, references, completions.

use std::{
    any::type_name,
    cell::Cell,
    marker::Unsize,
    mem::{forget, MaybeUninit},
    ops::{CoerceUnsized, Deref, DerefMut},
    sync::{atomic::Ordering::Relaxed, TryLockError},
};

use crate::{
    base::{
        cell::UnsafeCell,
        sync::{
            atomic::{AtomicU32, Ordering},
            Mutex, MutexGuard,
        },
    },
    error::Result,
    init::{allocate, Flags, Init, PinInit},
    profile::{self, Section},
    task::{self, WaitMode, WaitQueue},
    time::Jiffies,
};

pub use crate::new_spinlock;

pub mod aref {
    pub use crate::task::ARef;
}

pub mod atomic {
    pub mod ordering {
        use crate::base::sync::atomic;

        pub trait Ordering {
            const IT: atomic::Ordering;
        }

        macro_rules! orderings {
            ($($name:ident)*) => {
                $(
                    pub struct $name;

                    impl Ordering for $name {
                        const IT: atomic::Ordering = atomic::Ordering::$name;
                    }
                )*
            };
        }

        orderings!(Relaxed Acquire Release);
    }

    use ordering::{Ordering, Relaxed};
    use std::{cell::Cell, marker::PhantomData};

    use crate::{base::sync::atomic::AtomicU32, profile};

    /// A number of 32 bits: the code under test has no others.
    pub trait Number {
        fn from_bits(bits: u32) -> Self;
        fn bits(self) -> u32;
    }

    impl Number for u32 {
        fn from_bits(bits: u32) -> Self {
            bits
        }

        fn bits(self) -> u32 {
            self
        }
    }

    impl Number for i32 {
        fn from_bits(bits: u32) -> Self {
            bits.cast_signed()
        }

        fn bits(self) -> u32 {
            self.cast_unsigned()
        }
    }

    std::thread_local! {
        static IS_PLAIN: Cell<bool> = const { Cell::new(false) };
    }

    /// Sets whether the atomics that this model makes from now on are plain numbers. Correct where
    /// a lock protects them or nothing depends on them, and leaves loom much less to explore.
    pub fn be_plain(plain: bool) {
        IS_PLAIN.set(plain);
    }

    enum Word {
        Loom(AtomicU32),
        Plain(std::sync::atomic::AtomicU32),
    }

    pub struct Atomic<T>(Word, PhantomData<T>);

    macro_rules! call {
        ($atomic:expr, $method:ident($($arg:expr),*)) => {
            match &$atomic.0 {
                Word::Loom(word) => word.$method($($arg),*),
                Word::Plain(word) => word.$method($($arg),*),
            }
        };
    }

    impl<T: Number> Atomic<T> {
        pub fn new(value: T) -> Self {
            let word = match IS_PLAIN.get() {
                true => Word::Plain(value.bits().into()),
                false => Word::Loom(AtomicU32::new(value.bits())),
            };
            Self(word, PhantomData)
        }

        pub fn load<O: Ordering>(&self, _: O) -> T {
            profile::read("atomics", self);
            T::from_bits(call!(self, load(O::IT)))
        }

        pub fn store<O: Ordering>(&self, value: T, _: O) {
            profile::write("atomics", self);
            call!(self, store(value.bits(), O::IT));
        }

        pub fn add(&self, value: T, _: Relaxed) {
            self.fetch_add(value, Relaxed);
        }

        pub fn fetch_add<O: Ordering>(&self, value: T, _: O) -> T {
            profile::write("atomics", self);
            T::from_bits(call!(self, fetch_add(value.bits(), O::IT)))
        }

        pub fn fetch_sub<O: Ordering>(&self, value: T, _: O) -> T {
            profile::write("atomics", self);
            T::from_bits(call!(self, fetch_sub(value.bits(), O::IT)))
        }

        pub fn cmpxchg(&self, old: T, new: T, _: Relaxed) -> Result<T, T> {
            let relaxed = Relaxed::IT;

            profile::write("atomics", self);
            call!(
                self,
                compare_exchange(old.bits(), new.bits(), relaxed, relaxed)
            )
            .map(T::from_bits)
            .map_err(T::from_bits)
        }
    }
}

std::thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// Returns the number of reference-counted objects that this model has not freed. One number is
/// enough: loom runs the tasks of a model in one thread. Real threads free what others made.
pub fn live() -> usize {
    LIVE.get().try_into().unwrap()
}

/// A counted reference. loom does not see the count: safe code can only tell when the object is
/// freed, and exploring every order in which references are dropped takes 30 times as long.
pub struct Arc<T: ?Sized>(std::sync::Arc<T>);

impl<T: ?Sized + Unsize<U>, U: ?Sized> CoerceUnsized<Arc<U>> for Arc<T> {}

impl<T> Arc<T> {
    pub fn new(value: T) -> Self {
        let value = std::sync::Arc::new(value);

        LIVE.set(LIVE.get() + 1);
        if profile::counts_lines() {
            forget(value.clone());
        }
        Self(value)
    }
}

impl<T: ?Sized> Clone for Arc<T> {
    fn clone(&self) -> Self {
        profile::write("references", &**self);
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Arc<T> {
    /// Returns whether there is no other reference.
    pub fn is_last(&self) -> bool {
        std::sync::Arc::strong_count(&self.0) == 1
    }
}

impl<T: ?Sized> Drop for Arc<T> {
    fn drop(&mut self) {
        profile::write("references", &**self);
        if self.is_last() {
            task::assert_unlocked("frees");
            LIVE.set(LIVE.get() - 1);
        }
    }
}

/// The only reference to an object that nobody else has seen.
pub struct UniqueArc<T>(pub(crate) Arc<T>);

impl<T> UniqueArc<T> {
    pub fn pin_init(init: impl PinInit<T>, _: Flags) -> Result<Self> {
        allocate(init).map(|value| Self(Arc::new(value)))
    }
}

impl<T: ?Sized + std::fmt::Display> std::fmt::Display for Arc<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: ?Sized> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A borrow of an object in an [`Arc`], which can be turned back into an [`Arc`].
pub struct ArcBorrow<'a, T>(pub(crate) &'a Arc<T>);

impl<T> Clone for ArcBorrow<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ArcBorrow<'_, T> {}

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

/// Not in place: the stack of a loom task is too small to move tables around on it.
pub struct SpinLock<T> {
    data: Mutex<Box<T>>,
    name: &'static str,
}

impl<T> SpinLock<T> {
    pub fn new(value: T, name: &'static str) -> impl PinInit<Self> {
        Init(move || {
            Ok(Self {
                data: Mutex::new(Box::new(value)),
                name,
            })
        })
    }

    pub fn lock(&self) -> Guard<'_, T> {
        profile::write("locks", self);
        let (data, is_contended) = lock(&self.data);

        task::spinlocks(1);
        Guard {
            data,
            _section: Section::new((self.name, type_name::<T>()), is_contended),
        }
    }
}

/// Takes a lock. Returns also whether somebody else held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> (MutexGuard<'_, T>, bool) {
    // loom explores both results of an attempt.
    if cfg!(feature = "loom") {
        return (mutex.lock().unwrap(), false);
    }
    match mutex.try_lock() {
        Ok(guard) => (guard, false),
        Err(TryLockError::WouldBlock) => (mutex.lock().unwrap(), true),
        Err(TryLockError::Poisoned(err)) => panic!("{err}"),
    }
}

#[macro_export]
macro_rules! new_spinlock {
    ($value:expr, $name:literal) => {
        $crate::sync::SpinLock::new($value, $name)
    };
}

pub type SpinLockGuard<'a, T> = Guard<'a, T>;

/// The lock is dropped before the end of the critical section is recorded.
pub struct Guard<'a, T> {
    data: MutexGuard<'a, Box<T>>,
    _section: Section,
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        task::spinlocks(-1);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

/// As in the kernel, complete_all() and the waits take the lock of the completion, and sleeping
/// tasks are woken under it.
pub struct Completion(std::sync::Arc<WaitQueue>);

impl Completion {
    pub fn new() -> impl PinInit<Self> {
        Init(|| Ok(Self(std::sync::Arc::default())))
    }

    pub fn complete_all(&self) {
        task::assert_unlocked("wakes others");
        let queue = self.0.clone();

        profile::write("completions", &*queue);
        let (mut done, is_contended) = lock(&queue.lock);
        let held = Section::new(("completion", "complete_all"), is_contended);
        *done = true;
        queue.wake.notify_all();
        drop(held);
        assert!(
            !queue.freed.load(Relaxed),
            "a completion is used after it was freed"
        );
    }

    /// Time stands still: the timeout never expires.
    pub fn wait_for_completion_killable_timeout(&self, timeout: Jiffies) -> Result<Jiffies> {
        self.0.wait_event(WaitMode::Killable, |done| done)?;
        Ok(timeout)
    }

    /// Time stands still: the timeout never expires.
    pub fn wait_for_completion_interruptible_timeout(&self, timeout: Jiffies) -> Result<Jiffies> {
        self.0.wait_event(WaitMode::Interruptible, |done| done)?;
        Ok(timeout)
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.0.freed.store(true, Relaxed);
    }
}

/// Like that of the kernel, with the same orderings.
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
        profile::write("entries", self);
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
        profile::read("entries", self);
        (self.init.load(Ordering::Acquire) == 2)
            // SAFETY: 2 means that the value was written and is not written again.
            .then(|| self.value.with(|slot| unsafe { (*slot).assume_init() }))
    }
}
