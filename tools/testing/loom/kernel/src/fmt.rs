// SPDX-License-Identifier: GPL-2.0

//! Formatting, which is that of std here.

pub use std::fmt::{Display, Formatter, Result, Write};

#[macro_export]
macro_rules! fmt {
    ($($args:tt)*) => { format_args!($($args)*) };
}

/// Formats a message and drops it.
#[macro_export]
macro_rules! pr_warn {
    ($($args:tt)*) => { drop(format!($($args)*)) };
}

/// Bytes that are shown as text.
pub struct BStr;

impl BStr {
    pub fn from_bytes(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }
}
