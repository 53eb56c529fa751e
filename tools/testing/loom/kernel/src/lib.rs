// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the few items of the kernel crate that `kernel/module/dedup/` uses, on loom.
//!
//! What is modelled is what the code under test relies on: who excludes whom, who wakes whom, and
//! what is ordered before what. The rules of the kernel that Rust does not check are checked here:
//! nobody allocates, wakes or sleeps while holding a spinlock.

// Stable Rust coerces no references but its own.
#![feature(coerce_unsized, unsize)]

pub mod fmt;
pub mod init;
pub mod list;
pub mod sync;
pub mod task;
pub mod time;

pub mod str {
    pub use crate::fmt::BStr;
}

pub mod prelude {
    pub use crate::error::*;
    pub use crate::init::{PinInit, GFP_KERNEL};
    pub use crate::{current, fmt, pin_init, pr_warn, try_pin_init};
    pub use macros::pin_data;
    pub use std::ffi::{c_char, c_int, c_uint};
    pub use std::vec::Vec as KVec;
}

pub mod error {
    /// An errno.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(i32);

    pub type Result<T = (), E = Error> = core::result::Result<T, E>;

    impl Error {
        pub fn to_errno(self) -> i32 {
            self.0
        }
    }

    pub const EINTR: Error = Error(-4);
    pub const EAGAIN: Error = Error(-11);
    pub const ENOMEM: Error = Error(-12);
    pub const EDEADLK: Error = Error(-35);
    pub const ETIMEDOUT: Error = Error(-110);
    pub const ERESTARTSYS: Error = Error(-512);
}
