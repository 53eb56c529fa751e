// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the few items of the kernel crate that `kernel/module/dedup/` uses, on loom. Without
//! the feature `loom`, it runs on real threads and measures what they do: see [`profile`].
//!
//! It models what the code under test relies on: mutual exclusion, wakeups and memory ordering. It
//! also checks the rules of the kernel that Rust does not check: a task must not allocate, free,
//! wake or sleep while it holds a spinlock.

// Stable Rust coerces no references but its own.
#![feature(coerce_unsized, unsize)]

pub mod audit;
mod base;
pub mod crypto;
pub mod fmt;
pub mod init;
pub mod list;
pub mod module_list;
pub mod profile;
pub mod sync;
pub mod task;
pub mod time;
pub mod tracepoint;

pub mod ratelimit {
    use crate::{init::Init, init::PinInit, time::Jiffies};
    use std::ffi::{c_int, CStr};

    /// Limits nothing: a model logs little.
    pub struct RateLimit;

    impl RateLimit {
        pub fn new(_: Jiffies, _: c_int) -> impl PinInit<Self> {
            Init(|| Ok(Self))
        }

        pub fn allows(&self, _: &CStr) -> bool {
            true
        }
    }
}

pub mod str {
    pub use crate::fmt::BStr;
    pub use std::ffi::CStr;
}

pub mod prelude {
    pub use crate::error::*;
    pub use crate::init::{FromElem, PinInit, GFP_KERNEL};
    pub use crate::{current, fmt, pin_init, pr_warn, try_pin_init};
    pub use macros::pin_data;
    pub use std::ffi::{c_int, c_uint};
    pub use std::vec::Vec as KVec;
}

pub mod alloc {
    pub mod flags {
        pub use crate::init::GFP_KERNEL as GFP_KERNEL_ACCOUNT;
    }
}

pub mod error {
    /// An errno.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(i32);

    pub type Result<T = (), E = Error> = core::result::Result<T, E>;

    impl Error {
        pub const fn to_errno(self) -> i32 {
            self.0
        }
    }

    /// Makes a result of a value that is negative for an error.
    pub const fn to_result(value: i32) -> Result {
        match value {
            0.. => Ok(()),
            errno => Err(Error(errno)),
        }
    }

    pub const ENOENT: Error = Error(-2);
    pub const EINTR: Error = Error(-4);
    pub const EIO: Error = Error(-5);
    pub const ENOEXEC: Error = Error(-8);
    pub const EAGAIN: Error = Error(-11);
    pub const ENOMEM: Error = Error(-12);
    pub const EACCES: Error = Error(-13);
    pub const EPERM: Error = Error(-1);
    pub const ETIME: Error = Error(-62);
    pub const EBUSY: Error = Error(-16);
    pub const EEXIST: Error = Error(-17);
    pub const EDEADLK: Error = Error(-35);
    pub const ETIMEDOUT: Error = Error(-110);
    pub const ERESTARTSYS: Error = Error(-512);
}
