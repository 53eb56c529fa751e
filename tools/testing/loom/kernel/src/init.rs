// SPDX-License-Identifier: GPL-2.0

//! Initializers and allocation.

use crate::{error::Result, task};

pub struct Flags;

pub const GFP_KERNEL: Flags = Flags;

/// Makes a `T`. In the kernel it does so in place; loom does not care about places.
pub trait PinInit<T> {
    fn make(self) -> Result<T>;
}

/// A closure as an initializer, and what the macros below expand to.
pub struct Init<F>(pub F);

impl<T, F: FnOnce() -> Result<T>> PinInit<T> for Init<F> {
    fn make(self) -> Result<T> {
        self.0()
    }
}

/// What an allocation does, whether it succeeds: see [`task::fail_allocation`].
pub(crate) fn allocate<T>(init: impl PinInit<T>) -> Result<T> {
    task::assert_may_sleep("allocates");
    task::allocation()?;
    init.make()
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
