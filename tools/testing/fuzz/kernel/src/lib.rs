// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the few items of the kernel crate that peek.rs and key.rs use, on std.
//!
//! It is not the one of the model checker, because nothing here is about tasks: what runs 100,000
//! times should not run under loom.

pub mod fmt {
    pub use std::fmt::{Display, Formatter, Result, Write};
}

pub mod module_list {
    pub const MODULE_NAME_LEN: usize = 64 - size_of::<usize>();
}

pub mod str {
    pub use std::ffi::CStr;

    /// Bytes to be shown to people.
    pub struct BStr;

    impl BStr {
        pub fn from_bytes(bytes: &[u8]) -> String {
            bytes.escape_ascii().to_string()
        }
    }
}

pub mod sync {
    pub use std::sync::Arc;
}

#[macro_export]
macro_rules! fmt {
    ($($args:tt)*) => { format_args!($($args)*) };
}

pub mod prelude {
    pub use crate::fmt;
    pub use std::ffi::{c_char, c_int};

    pub type KVec<T> = Vec<T>;
}
