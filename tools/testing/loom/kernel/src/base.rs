// SPDX-License-Identifier: GPL-2.0

//! The primitives that the stand-ins are built on: those of loom, or those of std in a program
//! with real threads.

#[cfg(feature = "loom")]
pub(crate) use loom::{cell, sync, thread, thread_local};
#[cfg(not(feature = "loom"))]
pub(crate) use std::{sync, thread, thread_local};

/// The part of `loom::cell` that is not in std.
#[cfg(not(feature = "loom"))]
pub(crate) mod cell {
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(value.into())
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
