// SPDX-License-Identifier: GPL-2.0

//! Time, which stands still.

use std::{
    marker::PhantomData,
    ops::{Div, Sub},
};

#[derive(Clone, Copy)]
pub struct Monotonic;

#[derive(Clone, Copy)]
pub struct Instant<C>(PhantomData<C>);

impl<C> Instant<C> {
    pub fn now() -> Self {
        Self(PhantomData)
    }

    pub fn elapsed(&self) -> Delta {
        Delta(0)
    }
}

impl<C> Sub for Instant<C> {
    type Output = Delta;

    fn sub(self, _: Self) -> Delta {
        Delta(0)
    }
}

pub type Jiffies = u64;

pub fn msecs_to_jiffies(milliseconds: u32) -> Jiffies {
    milliseconds.into()
}

/// A number of seconds.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Delta(i64);

impl Delta {
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds)
    }

    pub fn as_millis(self) -> i64 {
        self.0 * 1_000
    }

    pub fn as_micros_ceil(self) -> i64 {
        self.0 * 1_000_000
    }
}

impl Div for Delta {
    type Output = i64;

    fn div(self, rhs: Self) -> i64 {
        self.0 / rhs.0
    }
}
