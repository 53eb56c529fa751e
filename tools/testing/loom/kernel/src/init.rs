// SPDX-License-Identifier: GPL-2.0

//! Initializers and allocation.

use crate::{error::Result, task};

pub struct Flags;

pub const GFP_KERNEL: Flags = Flags;

/// Makes a `T`. In the kernel this happens in place; loom does not depend on that.
pub trait PinInit<T, E = ()> {
    fn make(self) -> Result<T>;
}

/// A closure as an initializer; the macros below expand to it.
pub struct Init<F>(pub F);

impl<T, E, F: FnOnce() -> Result<T>> PinInit<T, E> for Init<F> {
    fn make(self) -> Result<T> {
        self.0()
    }
}

/// Allocates a `T`, or fails: see [`task::fail_allocation`].
pub(crate) fn allocate<T, E>(init: impl PinInit<T, E>) -> Result<T> {
    task::assert_unlocked("allocates");
    task::allocation()?;
    init.make()
}

/// `KVec::from_elem()`.
pub trait FromElem<T>: Sized {
    fn from_elem(value: T, len: usize, flags: Flags) -> Result<Self>;
}

impl<T: Clone> FromElem<T> for Vec<T> {
    fn from_elem(value: T, len: usize, _: Flags) -> Result<Self> {
        allocate::<_, ()>(Init(|| Ok(vec![value; len])))
    }
}

/// `field: value` and `field <- initializer`, as in the kernel.
#[macro_export]
macro_rules! pin_init {
    (@fields $t:ident {} -> { $($done:tt)* }) => { $t { $($done)* } };
    (@fields $t:ident { $f:ident <- $e:expr, $($rest:tt)* } -> { $($done:tt)* }) => {
        $crate::pin_init!(@fields $t { $($rest)* } -> {
            $($done)* $f: $crate::init::PinInit::make($e)?,
        })
    };
    (@fields $t:ident { $f:ident: $e:expr, $($rest:tt)* } -> { $($done:tt)* }) => {
        $crate::pin_init!(@fields $t { $($rest)* } -> { $($done)* $f: $e, })
    };
    (@fields $t:ident { $f:ident, $($rest:tt)* } -> { $($done:tt)* }) => {
        $crate::pin_init!(@fields $t { $($rest)* } -> { $($done)* $f, })
    };
    ($t:ident { $($fields:tt)* }) => {
        $crate::init::Init(move || Ok($crate::pin_init!(@fields $t { $($fields)* } -> {})))
    };
}

#[macro_export]
macro_rules! try_pin_init {
    ($($init:tt)*) => { $crate::pin_init!($($init)*) };
}
